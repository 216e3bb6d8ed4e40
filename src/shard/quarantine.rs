//! Quarantine: an account that its user made in-band may write only to those who know it already, and to a few
//! strangers per hour, until its time is over or an operator releases it. So a spammer gains little from accounts.

use super::account::Slot;
use crate::base::instant::Wall;
use smallvec::SmallVec;

const HOUR_US: u64 = 3_600_000_000;

/// The slot of an account in quarantine. It outlives the account's memory and the node.
///
/// Stored as numbers of 8 bytes, big endian: the end, the begin of the present hour, then the strangers of that hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quarantine {
    /// Microseconds since the Unix epoch; 0 where there is none.
    until: u64,
    hour: u64,
    /// `hash64` of those who were written to in this hour.
    strangers: SmallVec<[u64; 4]>,
}

/// What an account in quarantine may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// It is counted, or need not be.
    Granted,
    /// It is, and this must be kept.
    Counted(Vec<u8>),
    Refused,
}

impl Quarantine {
    pub fn new(until: Wall) -> Self {
        Self { until: until.0, hour: 0, strangers: SmallVec::new() }
    }

    /// When it ends; `None` where there is none.
    pub fn until(&self) -> Option<Wall> {
        (self.until > 0).then_some(Wall(self.until))
    }

    pub fn is_over(&self, now: Wall) -> bool {
        self.until <= now.0
    }

    /// The account writes to a stranger.
    ///
    /// - takes: `stranger`, the `hash64` of its bare JID; how many there may be in an hour
    pub fn write_to(&mut self, stranger: u64, per_hour: usize, now: Wall) -> Leave {
        if self.is_over(now) {
            return Leave::Granted;
        }
        if now.0.saturating_sub(self.hour) >= HOUR_US {
            self.hour = now.0;
            self.strangers.clear();
        }
        if self.strangers.contains(&stranger) {
            return Leave::Granted;
        }
        if self.strangers.len() >= per_hour {
            return Leave::Refused;
        }
        self.strangers.push(stranger);
        Leave::Counted(self.to_bytes())
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = [self.until, self.hour].into_iter().chain(self.strangers.iter().copied());
        numbers.flat_map(u64::to_be_bytes).collect()
    }
}

impl Slot for Quarantine {
    const NAME: &'static str = "quarantine";

    fn load(stored: Option<&[u8]>) -> Self {
        let mut numbers = stored.unwrap_or_default().as_chunks::<8>().0.iter();
        let mut next = || numbers.next().map(|bytes| u64::from_be_bytes(*bytes));
        let (until, hour) = (next().unwrap_or(0), next().unwrap_or(0));
        Self { until, hour, strangers: std::iter::from_fn(next).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_strangers_an_hour_and_then_no_more() {
        let at = |s: u64| Wall(1_700_000_000_000_000 + s * 1_000_000);
        let mut quarantine = Quarantine::new(at(10_000));
        let Leave::Counted(_) = quarantine.write_to(1, 2, at(0)) else { panic!("the first") };
        let Leave::Counted(kept) = quarantine.write_to(2, 2, at(1)) else { panic!("the second") };
        assert_eq!(quarantine.write_to(1, 2, at(2)), Leave::Granted, "no stranger any more");
        assert_eq!(quarantine.write_to(3, 2, at(3)), Leave::Refused);
        let mut kept = Quarantine::load(Some(&kept));
        assert_eq!(kept, quarantine, "it survives");
        assert_eq!(kept.write_to(3, 2, at(3_599)), Leave::Refused);
        assert!(matches!(kept.write_to(3, 2, at(3_600)), Leave::Counted(_)), "the next hour");
        assert_eq!(kept.write_to(4, 0, at(10_000)), Leave::Granted, "it is over");
        assert_eq!(Quarantine::load(None).until(), None);
    }
}
