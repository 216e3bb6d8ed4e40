//! What a session had from an owner that died. The rows of its newest messages may never have been written; then who sent
//! them sends them again, and they are kept and archived as any. The session does not get them a second time: it had them
//! on its stream, or has them in its queue.

use super::super::session::SessionId;
use super::super::{Core, copy};
use crate::base::hash::Set;
use crate::base::instant::Instant;
use crate::frame::Origin;
use crate::stream::resume::CountersImage;
use std::time::Duration;

/// As long as detours are remembered: by then, who sends something again has done so.
const FOR: Duration = Duration::from_secs(600);
/// Of one session, at most. What then comes again, comes twice.
pub(in super::super) const HAD_MAX: usize = 4_096;

/// Of one session that came from a copy.
#[derive(Debug)]
pub(in super::super) struct Had {
    origins: Set<Origin>,
    until: Instant,
}

impl Had {
    /// - takes: `told`, as `to_bytes` gave it; `counters`, whose queue it has, too
    pub(in super::super) fn new(told: &[u8], counters: &CountersImage, now: Instant) -> Had {
        let mut rest = told;
        let mut origins: Set<Origin> = counters.origins().take(HAD_MAX).collect();
        while let Some((origin, behind)) = Origin::read(rest)
            && origins.len() < HAD_MAX
        {
            origins.insert(origin);
            rest = behind;
        }
        Had { origins, until: now + FOR }
    }

    /// In no order.
    pub(in super::super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.origins.len() * Origin::BYTES);
        self.origins.iter().for_each(|origin| origin.write(&mut out));
        out
    }

    fn has(&self, origin: &Origin, now: Instant) -> bool {
        now < self.until && self.origins.contains(origin)
    }
}

impl Core {
    /// Whether a session had this message from an owner that died. Its row is that of what the session has to confirm.
    pub(in super::super) fn has_had(
        &mut self,
        session: SessionId,
        origin: Option<Origin>,
        row: Option<u64>,
    ) -> bool {
        let now = self.now.mono;
        let Some((slot, origin)) = self.sessions.get_mut(session.0).zip(origin) else {
            return false;
        };
        if !slot.had.as_deref().is_some_and(|had| had.has(&origin, now)) {
            return false;
        }
        let Some(row) = row else { return true };
        let counters = slot.counters.as_deref_mut();
        let mut queue = counters.into_iter().flat_map(|it| it.unacknowledged_mut());
        let sent = queue.find(|sent| sent.origin == Some(origin));
        let before = sent.map(|sent| sent.log_id.replace(row));
        drop(queue);
        let account = slot.account;
        match before {
            Some(before) => {
                // It may have been kept as the session fell asleep: one row is enough.
                let surplus = before.filter(|before| *before != row);
                self.confirmed.extend(surplus.map(|row| (account, row)));
                self.changed(session, copy::ROWS);
            }
            None => self.confirmed.push((account, row)),
        }
        true
    }
}
