//! What a client may say again, and a front or an owner that died may have sent, of which the owner of the stream knows
//! nothing.

use crate::base::instant::{Instant, Wall};
use std::time::Duration;

/// What of a session may have been sent of which nobody knows here: its client sends it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Tail {
    /// Of the stream whose front may have sent it; 0: its owner may have.
    pub(super) token: u64,
    pub(super) since: Wall,
    /// The last stanza of it, where that is known.
    pub(super) last: Option<u32>,
    /// Where it is not: when it is over, from the first stanza on.
    pub(super) ends_at: Option<Instant>,
}

impl Tail {
    /// Of a session whose owner died.
    ///
    /// - takes: what was known of it; `window`, for which it would wait for its client
    pub(in crate::shard) fn of_dead(known: Option<Tail>, now: Wall, window: Duration) -> Tail {
        let window = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
        let before = Wall(now.0.saturating_sub(window));
        match known {
            Some(tail) => Tail { since: tail.since.min(before), ..tail },
            None => Tail { token: 0, since: before, last: None, ends_at: None },
        }
    }

    pub(in crate::shard) fn to_bytes(&self) -> Vec<u8> {
        [self.token.to_be_bytes(), self.since.0.to_be_bytes()].concat()
    }

    pub(in crate::shard) fn from_bytes(bytes: &[u8]) -> Option<Tail> {
        let (token, since) = bytes.split_first_chunk::<8>()?;
        let since = Wall(u64::from_be_bytes(since.try_into().ok()?));
        Some(Tail { token: u64::from_be_bytes(*token), since, last: None, ends_at: None })
    }
}

/// Whether one stanza comes before another, counted modulo 2^32.
pub(super) fn is_before(one: u32, other: u32) -> bool {
    one != other && other.wrapping_sub(one) < u32::MAX / 2
}

impl Tail {
    /// Whether what follows the stanza `number` is new.
    pub(super) fn is_over(&self, number: u32, now: Instant) -> bool {
        match self.last {
            Some(last) => !is_before(number, last),
            None => self.ends_at.is_some_and(|at| now >= at),
        }
    }
}
