//! Sockets that are told to go elsewhere while the node is drained: what the cores have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// One per drain. Cloned to every core, and to whoever wants to know how far it is.
#[derive(Clone, Debug)]
pub struct Departing {
    span: Duration,
    /// Cores that do not know yet whom they have to tell.
    awaited: Arc<AtomicU64>,
    left: Arc<AtomicU64>,
}

impl Departing {
    /// - takes: `span`, over which each core tells those who are there now
    pub fn new(span: Duration, cores: usize) -> Departing {
        Departing {
            span,
            awaited: Arc::new(AtomicU64::new(cores as u64)),
            left: Arc::new(AtomicU64::new(0)),
        }
    }

    pub fn span(&self) -> Duration {
        self.span
    }

    /// A core has so many to tell. Called once by each.
    pub fn planned(&self, count: usize) {
        self.left.fetch_add(count as u64, Ordering::AcqRel);
        self.awaited.fetch_sub(1, Ordering::AcqRel);
    }

    /// So many of them have been told, or need not be any more.
    pub fn told(&self, count: usize) {
        self.left.fetch_sub(count as u64, Ordering::AcqRel);
    }

    /// How many are still to be told.
    pub fn left(&self) -> u64 {
        self.left.load(Ordering::Acquire)
    }

    pub fn is_done(&self) -> bool {
        self.awaited.load(Ordering::Acquire) == 0 && self.left() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_done_when_all_cores_have_told_all() {
        let departing = Departing::new(Duration::from_secs(1), 2);
        let core = departing.clone();
        core.planned(0);
        assert!(!departing.is_done(), "the other core does not know yet");
        departing.planned(3);
        core.told(1);
        assert_eq!((departing.left(), departing.is_done()), (2, false));
        core.told(2);
        assert_eq!((departing.left(), departing.is_done()), (0, true));
    }
}
