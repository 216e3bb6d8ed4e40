//! Seconds of several workers, put together in order.

use std::collections::BTreeMap;

use crate::record::{Interval, UnreadableHistogram};

/// What a worker told does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misfit {
    /// Not the second after its last.
    OutOfOrder {
        wanted: u64,
        told: u64,
    },
    Unreadable,
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OutOfOrder { wanted, told } => {
                write!(f, "told second {told} instead of {wanted}")
            }
            Self::Unreadable => UnreadableHistogram.fmt(f),
        }
    }
}

/// Gives each second out when all workers have told it. Who has left is not waited for.
#[derive(Debug)]
pub(super) struct Merger {
    /// Second that each worker tells next; none once it has left.
    next: Vec<Option<u64>>,
    open: BTreeMap<u64, Interval>,
}

impl Merger {
    pub(super) fn new(workers: usize) -> Self {
        Self { next: vec![Some(0); workers], open: BTreeMap::new() }
    }

    /// A worker tells a second.
    ///
    /// - errors: it does not fit; nothing of it was taken
    pub(super) fn take(&mut self, worker: usize, interval: Interval) -> Result<(), Misfit> {
        let wanted = self.next.get(worker).copied().flatten().unwrap_or(u64::MAX);
        if interval.number != wanted {
            return Err(Misfit::OutOfOrder { wanted, told: interval.number });
        }
        match self.open.get(&wanted) {
            Some(sum) => {
                // Its histograms are read one after another: what is half added must not stay.
                let mut whole = sum.clone();
                whole.merge(&interval).map_err(|UnreadableHistogram| Misfit::Unreadable)?;
                self.open.insert(wanted, whole);
            }
            None => {
                let mut whole = Interval {
                    number: interval.number,
                    phase: interval.phase,
                    ..Interval::default()
                };
                whole.merge(&interval).map_err(|UnreadableHistogram| Misfit::Unreadable)?;
                self.open.insert(wanted, whole);
            }
        }
        if let Some(next) = self.next.get_mut(worker) {
            *next = Some(wanted + 1);
        }
        Ok(())
    }

    /// A worker tells nothing more.
    pub(super) fn left(&mut self, worker: usize) {
        if let Some(next) = self.next.get_mut(worker) {
            *next = None;
        }
    }

    /// The next second that is complete.
    pub(super) fn complete(&mut self) -> Option<Interval> {
        let (&number, _) = self.open.first_key_value()?;
        let is_complete = self.next.iter().flatten().all(|next| *next > number);
        if is_complete { self.open.remove(&number) } else { None }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::record::{Operation, Recorder};

    fn second(number: u64, us: &[u64]) -> Interval {
        let (mut recorder, now) = (Recorder::default(), std::time::Instant::now());
        for us in us {
            recorder.sent(Operation::Ping, now, now);
            recorder.done(Operation::Ping, now, now, now + Duration::from_micros(*us));
        }
        recorder.close(number, 0, 5, Duration::from_millis(1))
    }

    fn drain(merger: &mut Merger) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| merger.complete())
            .map(|it| (it.number, it.tallies[&Operation::Ping].done))
            .collect()
    }

    #[test]
    fn seconds_are_given_out_in_order_when_the_slowest_has_told_them() {
        let mut merger = Merger::new(2);
        merger.take(0, second(0, &[10])).unwrap();
        merger.take(0, second(1, &[10])).unwrap();
        assert_eq!(drain(&mut merger), []);
        merger.take(1, second(0, &[20, 30])).unwrap();
        assert_eq!(drain(&mut merger), [(0, 3)]);
        merger.take(1, second(1, &[20])).unwrap();
        assert_eq!(drain(&mut merger), [(1, 2)]);
    }

    #[test]
    fn who_has_left_is_not_waited_for_and_what_it_told_stays() {
        let mut merger = Merger::new(2);
        merger.take(0, second(0, &[10])).unwrap();
        merger.take(1, second(0, &[20])).unwrap();
        merger.take(0, second(1, &[10])).unwrap();
        merger.left(1);
        merger.take(0, second(2, &[10])).unwrap();
        assert_eq!(drain(&mut merger), [(0, 2), (1, 1), (2, 1)]);
        assert!(matches!(merger.take(1, second(1, &[1])), Err(Misfit::OutOfOrder { .. })));
        merger.left(0);
        assert!(merger.complete().is_none());
    }

    #[test]
    fn a_second_that_does_not_fit_is_refused_as_a_whole() {
        let mut merger = Merger::new(2);
        merger.take(0, second(0, &[10])).unwrap();
        let skipped = merger.take(1, second(1, &[20]));
        assert_eq!(skipped, Err(Misfit::OutOfOrder { wanted: 0, told: 1 }));
        let text = serde_json::to_string(&second(0, &[20])).unwrap();
        let start = text.find("\"service\":\"").unwrap() + 11;
        let broken = format!("{}AAAA{}", &text[..start], &text[start + 4..]);
        let broken: Interval = serde_json::from_str(&broken).unwrap();
        assert_eq!(merger.take(1, broken), Err(Misfit::Unreadable));
        merger.left(1);
        assert_eq!(drain(&mut merger), [(0, 1)]);
    }
}
