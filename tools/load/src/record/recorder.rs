//! Counts operations into the second in which they happen.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::histogram::Latency;
use super::interval::{Interval, Operation, OwnLoad, Tally};

/// How late an operation may leave before it counts as late.
const LATE: Duration = Duration::from_millis(1);

#[derive(Default)]
struct Open {
    response: Latency,
    service: Latency,
    planned: u64,
    done: u64,
    failed: BTreeMap<String, u64>,
}

impl Open {
    fn tally(&self) -> Tally {
        Tally {
            response: self.response.pack(),
            service: self.service.pack(),
            planned: self.planned,
            done: self.done,
            failed: self.failed.clone(),
        }
    }
}

/// One worker's present second. The driver calls [`Recorder::close`] when the second is over.
#[derive(Default)]
pub struct Recorder {
    tallies: BTreeMap<Operation, Open>,
    lag: Latency,
    late: u64,
    dropped: u64,
    disconnected: BTreeMap<String, u64>,
}

impl Recorder {
    /// An operation that was intended for `intended` is written now: its lag is the tool's own.
    pub fn sent(&mut self, operation: Operation, intended: Instant, now: Instant) {
        let lag = now.saturating_duration_since(intended);
        self.lag.record(lag);
        self.late += u64::from(lag > LATE);
        self.tallies.entry(operation).or_default().planned += 1;
    }

    /// An operation is wanted since a moment that no plan knew, such as a login after a lost connection.
    pub fn wanted(&mut self, operation: Operation) {
        self.tallies.entry(operation).or_default().planned += 1;
    }

    /// A session ended unasked.
    pub fn disconnected(&mut self, cause: &str) {
        *self.disconnected.entry(cause.to_owned()).or_default() += 1;
    }

    /// An operation that was planned could not be begun.
    pub fn dropped(&mut self, operation: Operation) {
        self.dropped += 1;
        self.tallies.entry(operation).or_default().planned += 1;
    }

    /// An operation is done (once per recipient).
    pub fn done(&mut self, operation: Operation, intended: Instant, sent: Instant, done: Instant) {
        let tally = self.tallies.entry(operation).or_default();
        tally.response.record(done.saturating_duration_since(intended));
        tally.service.record(done.saturating_duration_since(sent));
        tally.done += 1;
    }

    /// An operation failed with that condition.
    pub fn failed(&mut self, operation: Operation, condition: &str) {
        let failed = &mut self.tallies.entry(operation).or_default().failed;
        match failed.get_mut(condition) {
            Some(count) => *count += 1,
            None => {
                failed.insert(condition.to_owned(), 1);
            }
        }
    }

    /// Ends the second.
    pub fn close(&mut self, number: u64, phase: usize, online: u64, cpu: Duration) -> Interval {
        let open = std::mem::take(self);
        Interval {
            number,
            phase,
            tallies: open
                .tallies
                .iter()
                .map(|(operation, open)| (*operation, open.tally()))
                .collect(),
            online,
            disconnected: open.disconnected,
            own: OwnLoad { lag: open.lag.pack(), cpu, late: open.late, dropped: open.dropped },
            server: None,
            servers: Vec::new(),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn response_counts_from_the_plan_and_service_from_the_write() {
        let (mut recorder, begin) = (Recorder::default(), Instant::now());
        let sent = begin + Duration::from_millis(40);
        recorder.sent(Operation::Ping, begin, sent);
        recorder.done(Operation::Ping, begin, sent, begin + Duration::from_millis(50));
        recorder.failed(Operation::Ping, "service-unavailable");
        let interval = recorder.close(3, 1, 7, Duration::from_millis(2));
        let tally = &interval.tallies[&Operation::Ping];
        let near = |latency: Latency, ms: u64| {
            latency.max().abs_diff(Duration::from_millis(ms)) < Duration::from_micros(100)
        };
        assert!(near(tally.response.unpack().unwrap(), 50));
        assert!(near(tally.service.unpack().unwrap(), 10));
        assert_eq!(
            (tally.planned, tally.done, tally.failed.len(), interval.own.late),
            (1, 1, 1, 1)
        );
        assert!(recorder.close(4, 1, 7, Duration::ZERO).tallies.is_empty());
    }
}
