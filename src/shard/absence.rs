//! When the last resource of an account went, and what it said (RFC 6121 §4.3.2, XEP-0012). Kept in a slot, and written
//! once, when that resource goes.

use super::account::{AccountId, Slot};
use super::effect::Effects;
use super::presence::gone;
use super::{Core, Waiting};
use crate::base::instant::Wall;
use crate::store::Write;

/// Last words longer than this are forgotten: they are read with the account each time.
const STANZA_BYTES: usize = 1 << 10;
/// Time, the two offsets, and the length of the address, before address and stanza.
const HEAD_BYTES: usize = 18;

/// The slot. Empty for an account that was never there.
#[derive(Debug, Default)]
pub struct Absence {
    last: Option<Last>,
}

/// The last unavailable presence of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    pub at: Wall,
    /// Full JID of the resource.
    pub from: Box<str>,
    /// The whole stanza, stamped with it and without `to`.
    pub stanza: Box<[u8]>,
    /// Where its open tag ends and its close tag starts.
    pub open_end: u32,
    pub close_start: u32,
}

impl Absence {
    pub fn last(&self) -> Option<&Last> {
        self.last.as_ref()
    }
}

impl Slot for Absence {
    const NAME: &'static str = "absence";

    fn load(stored: Option<&[u8]>) -> Self {
        Self { last: stored.and_then(Last::from_bytes) }
    }
}

impl Last {
    fn to_bytes(&self) -> Vec<u8> {
        let length = HEAD_BYTES + self.from.len() + self.stanza.len();
        let mut bytes = Vec::with_capacity(length);
        // An address has 3071 bytes at most (RFC 7622).
        let from_bytes = u16::try_from(self.from.len()).unwrap_or(0);
        bytes.extend_from_slice(&self.at.0.to_le_bytes());
        bytes.extend_from_slice(&self.open_end.to_le_bytes());
        bytes.extend_from_slice(&self.close_start.to_le_bytes());
        bytes.extend_from_slice(&from_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.from.as_bytes()[..usize::from(from_bytes)]);
        bytes.extend_from_slice(&self.stanza);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (at, rest) = bytes.split_first_chunk()?;
        let (open_end, rest) = rest.split_first_chunk()?;
        let (close_start, rest) = rest.split_first_chunk()?;
        let (from_bytes, rest) = rest.split_first_chunk()?;
        let (from, stanza) = rest.split_at_checked(u16::from_le_bytes(*from_bytes).into())?;
        let last = Self {
            at: Wall(u64::from_le_bytes(*at)),
            from: std::str::from_utf8(from).ok()?.into(),
            stanza: stanza.into(),
            open_end: u32::from_le_bytes(*open_end),
            close_start: u32::from_le_bytes(*close_start),
        };
        let sound = 0 < last.open_end
            && last.open_end <= last.close_start
            && (last.close_start as usize) < stanza.len();
        sound.then_some(last)
    }
}

/// How many are written at a time as the node stops: what clients still say is not to wait behind all of them.
const DEPARTURES: usize = 1_024;

impl Core {
    /// The node stops: accounts with an available resource are to be kept as gone. Nobody is told, as all go.
    pub(super) fn plan_departures(&mut self) {
        for (id, account) in self.accounts.iter() {
            let mut sessions = account.sessions.iter().filter_map(|id| self.sessions.get(id.0));
            if let Some(session) = sessions.rfind(|session| session.presence.is_some()) {
                self.departing.push((AccountId(id), session.text.as_ref().into()));
            }
        }
        self.departing.shrink_to_fit();
    }

    /// Has some of them written, unless the store is busy with what came before.
    pub(super) fn write_departures(&mut self, fx: &mut Effects) {
        if self.tickets.len() >= DEPARTURES {
            return;
        }
        for _ in 0..DEPARTURES {
            let Some((account, from)) = self.departing.pop() else { return };
            let (stanza, close) = gone(&from);
            self.depart(account, &from, &stanza, (close, close), fx);
        }
    }

    /// The account has no available resource any more: what the last one said is kept.
    ///
    /// - takes: its unavailable presence, stamped with `from`, without `to`
    pub(super) fn depart(
        &mut self,
        account: AccountId,
        from: &str,
        stanza: &[u8],
        (open_end, close_start): (u32, u32),
        fx: &mut Effects,
    ) {
        let at = self.now.wall;
        let from: Box<str> = from.into();
        let last = if stanza.len() <= STANZA_BYTES {
            Last { at, from, stanza: stanza.into(), open_end, close_start }
        } else {
            let (stanza, close_start) = gone(&from);
            Last { at, from, stanza: stanza.into(), open_end: close_start, close_start }
        };
        let Some(slot) = self.accounts.get_mut(account.0) else { return };
        let owner = slot.jid.clone();
        let Some(data) = slot.data() else { return };
        let value = Some(last.to_bytes());
        data.slot::<Absence>().last = Some(last);
        let ticket = self.ticket(Waiting::Log(account));
        fx.writes.push((ticket, Write::PutSlot { owner, name: Absence::NAME.into(), value }));
        self.wrote(account);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_reads_back_and_what_is_broken_is_nothing() {
        let stanza = b"<presence from='a@b/c' type='unavailable'><status>x</status></presence>";
        let last = Last {
            at: Wall(1_700_000_000_000_000),
            from: "a@b/c".into(),
            stanza: stanza[..].into(),
            open_end: 42,
            close_start: 60,
        };
        let bytes = last.to_bytes();
        let read = |bytes: &[u8]| Absence::load(Some(bytes)).last;
        assert_eq!(read(&bytes), Some(last));
        for length in 0..HEAD_BYTES + "a@b/c".len() + 61 {
            assert_eq!(read(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Absence::load(None).last, None);
    }
}
