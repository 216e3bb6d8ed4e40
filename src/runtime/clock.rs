//! The only place where clocks are read.

use crate::base::instant::{Instant, Now, Wall};
use std::time::{SystemTime, UNIX_EPOCH};

/// Counts from the start of the node. Copied to every core, so that their instants compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    pub fn start() -> Self {
        Self { origin: std::time::Instant::now() }
    }

    pub fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: self.mono(),
            wall: Wall(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)),
        }
    }

    pub fn mono(&self) -> Instant {
        Instant(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}
