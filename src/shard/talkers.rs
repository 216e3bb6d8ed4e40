//! Who sends most: accounts and components by the stanzas and the bytes that were read of them, in two sketches per
//! shard.
//!
//! What is read adds up in its connection and goes into the sketches in portions of 32 stanzas: then the search among
//! their counters costs each stanza a few nanoseconds. What comes in smaller portions is let in while the shard has
//! time for it, so that a quiet node shows its few talkers as well.

use super::Shard;
use super::effect::ConnId;
use crate::base::heavy_hitters::HeavyHitters;
use crate::base::instant::{Instant, Now};
use std::sync::Arc;
use std::time::Duration;

/// Counters of each sketch: whoever sends more than a 64th of all that a shard reads has one.
const COUNTERS: usize = 64;
const HALF_LIFE: Duration = Duration::from_secs(15);
/// A connection's portion: what it has sent since it was counted last.
const PORTION_STANZAS: u32 = 32;
const PORTION_BYTES: u32 = 16 << 10;
/// Smaller portions that are taken in a window.
const SMALL_PORTIONS: u32 = 64;
const WINDOW: Duration = Duration::from_millis(250);
/// Talkers of each kind that are told, and how much one says at least to be one.
const TOLD: usize = 10;
const LEAST_PER_S: f64 = 0.01;

/// What a connection has sent and is not counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    stanzas: u32,
    bytes: u32,
}

/// One per shard.
#[derive(Debug)]
pub(super) struct Talkers {
    stanzas: HeavyHitters<Arc<str>>,
    bytes: HeavyHitters<Arc<str>>,
    small_portions: u32,
    window_ends: Instant,
}

impl Talkers {
    pub(super) fn new(now: Instant) -> Talkers {
        Talkers {
            stanzas: HeavyHitters::new(COUNTERS, HALF_LIFE, now),
            bytes: HeavyHitters::new(COUNTERS, HALF_LIFE, now),
            small_portions: SMALL_PORTIONS,
            window_ends: now,
        }
    }

    #[inline]
    fn takes(&mut self, said: Said, now: Instant) -> bool {
        if said.stanzas >= PORTION_STANZAS || said.bytes >= PORTION_BYTES {
            return true;
        }
        if now >= self.window_ends {
            self.small_portions = SMALL_PORTIONS;
            self.window_ends = now + WINDOW;
        }
        let takes = self.small_portions > 0;
        self.small_portions -= u32::from(takes);
        takes
    }
}

/// One who sends much.
#[derive(Clone, Debug, PartialEq)]
pub struct Talker {
    /// A full JID: the account, with its resource that was counted last; or a component's domain.
    pub jid: Arc<str>,
    /// Stanzas or bytes in a second, at least, over the last half minute.
    pub per_s: f64,
}

/// Those of a shard who send most, the first first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopTalkers {
    pub by_stanzas: Vec<Talker>,
    pub by_bytes: Vec<Talker>,
}

impl Shard {
    /// Notes what was read of a connection.
    #[inline]
    pub(super) fn heard(&mut self, id: ConnId, stanzas: u32, bytes: u32) {
        let core = &mut self.core;
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        let said = &mut conn.said;
        said.stanzas = said.stanzas.saturating_add(stanzas);
        said.bytes = said.bytes.saturating_add(bytes);
        let now = core.now.mono;
        if core.talkers.takes(*said, now) {
            self.count_said(id, now);
        }
    }

    fn count_said(&mut self, id: ConnId, now: Instant) {
        let core = &mut self.core;
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        // What came before it is known who talks is nobody's.
        let said = std::mem::take(&mut conn.said);
        let (key, label) = if let Some(session) = conn.session {
            let Some(session) = core.sessions.get(session.0) else { return };
            (session.account.0.to_u64(), &session.text)
        } else {
            let link = conn.component.as_ref();
            let Some(domain) = link.and_then(|link| link.stream.established()) else { return };
            let Some(number) = core.components.serving(domain) else { return };
            // No account has such an id: generations do not get so far.
            (u64::MAX - number as u64, domain)
        };
        if said.stanzas > 0 {
            core.talkers.stanzas.add(key, said.stanzas, label, now);
        }
        core.talkers.bytes.add(key, said.bytes, label, now);
    }

    /// Who sends most now, ten of each kind at most.
    pub fn top_talkers(&self, now: Now) -> TopTalkers {
        let told = |sketch: &HeavyHitters<Arc<str>>| {
            let mut told: Vec<Talker> = Vec::new();
            for hitter in sketch.hitters(now.mono) {
                // An account that was forgotten and came again has two counters.
                match told.iter_mut().find(|one| bare(&one.jid) == bare(&hitter.label)) {
                    Some(one) => one.per_s += hitter.per_s,
                    None => told.push(Talker { jid: hitter.label, per_s: hitter.per_s }),
                }
            }
            told.sort_by(|one, other| other.per_s.total_cmp(&one.per_s));
            told.retain(|one| one.per_s >= LEAST_PER_S);
            told.truncate(TOLD);
            told
        };
        TopTalkers {
            by_stanzas: told(&self.core.talkers.stanzas),
            by_bytes: told(&self.core.talkers.bytes),
        }
    }
}

fn bare(jid: &str) -> Option<&str> {
    jid.split('/').next()
}
