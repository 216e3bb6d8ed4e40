//! Progress as lines of text, where there is no terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::progress::{Progress, Update, micros};
use crate::chart::units;
use crate::record::{Latency, Operation};

#[derive(Clone, Debug, Default)]
struct Sum {
    planned: u64,
    done: u64,
    response: Latency,
}

/// Makes a line of every so many seconds, one for the end of each phase, and one for each event at once.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    every: u64,
    sums: BTreeMap<Operation, Sum>,
    seconds: u64,
    errors: u64,
    server: Duration,
    own: Duration,
}

impl Lines {
    pub(super) fn new(every: u64) -> Self {
        Self {
            every: every.max(1),
            sums: BTreeMap::new(),
            seconds: 0,
            errors: 0,
            server: Duration::ZERO,
            own: Duration::ZERO,
        }
    }

    /// What is to be written for an update.
    ///
    /// - takes: `progress` before the update
    pub(super) fn take(&mut self, progress: &Progress, update: &Update) -> Vec<String> {
        match update {
            Update::Interval(interval) => {
                let mut lines = Vec::new();
                if interval.phase != progress.phase && self.seconds > 0 {
                    lines.push(self.line(progress));
                }
                for (operation, tally) in &interval.tallies {
                    let sum = self.sums.entry(*operation).or_default();
                    sum.planned += tally.planned;
                    sum.done += tally.done;
                    sum.response.merge(&tally.response.unpack().unwrap_or_default());
                    self.errors += tally.failed.values().sum::<u64>();
                }
                self.errors += interval.disconnected.values().sum::<u64>();
                self.seconds += 1;
                self.own += interval.own.cpu;
                self.server += interval.server.map_or(Duration::ZERO, |server| server.cpu);
                lines
            }
            Update::Fault(fault) => vec![format!(
                "{:>5} s  fault {}: {} after {}",
                fault.at.as_secs(),
                fault.name,
                fault.result,
                units::microseconds(micros(fault.took) as f64)
            )],
            Update::Invalid(reason) if progress.invalid.contains(reason) => Vec::new(),
            Update::Invalid(reason) => {
                vec![format!("{:>5} s  INVALID: {reason}", progress.seconds)]
            }
            Update::Note(note) => vec![format!("{:>5} s  {note}", progress.seconds)],
        }
    }

    /// Whether a line is due.
    pub(super) fn is_due(&self) -> bool {
        self.seconds >= self.every
    }

    /// Whether there is nothing to tell.
    pub(super) fn is_empty(&self) -> bool {
        self.seconds == 0
    }

    /// What happened since the line before.
    ///
    /// - takes: `progress` with all of it
    pub(super) fn line(&mut self, progress: &Progress) -> String {
        let seconds = self.seconds.max(1) as f64;
        let rate = |count: u64| units::grouped((count as f64 / seconds).round() as u64);
        let mut line = format!(
            "{:>5} s  {}  {} online",
            progress.seconds,
            progress.phase_name(),
            units::grouped(progress.online)
        );
        for (operation, sum) in &self.sums {
            // Writing to a String does not fail.
            let _ = write!(line, "  {} {}/s", operation.name(), rate(sum.done));
            let fans_out =
                *operation == Operation::RoomMessage || *operation == Operation::Presence;
            if sum.planned != sum.done && !fans_out {
                let _ = write!(line, " of {}", rate(sum.planned));
            }
            if !sum.response.is_empty() {
                let us = |time| units::microseconds(micros(time) as f64);
                let _ = write!(
                    line,
                    " (p50 {}, p99 {}, p99.9 {}, max {})",
                    us(sum.response.quantile(0.5)),
                    us(sum.response.quantile(0.99)),
                    us(sum.response.quantile(0.999)),
                    us(sum.response.max())
                );
            }
        }
        let _ = write!(line, "  errors {}", units::grouped(self.errors));
        let percent = |cpu: Duration| cpu.as_secs_f64() / seconds * 100.0;
        if let Some(server) = progress.server {
            let memory = units::bytes(server.memory as f64);
            let _ = write!(line, "  server {:.0} % {memory}", percent(self.server));
        }
        let _ = write!(line, "  tool {:.0} %", percent(self.own));
        *self = Self::new(self.every);
        line
    }
}

#[cfg(test)]
mod tests {
    use super::super::progress::tests::{outline, second};
    use super::*;

    fn feed(updates: impl IntoIterator<Item = Update>, every: u64) -> Vec<String> {
        let (mut progress, mut lines) = (Progress::new(outline()), Lines::new(every));
        let mut written = Vec::new();
        for update in updates {
            written.extend(lines.take(&progress, &update));
            progress.take(update);
            if lines.is_due() {
                written.push(lines.line(&progress));
            }
        }
        written.iter().map(|line| line.replace('\u{202f}', " ")).collect()
    }

    #[test]
    fn a_line_tells_rates_percentiles_errors_and_the_server_since_the_one_before() {
        let seconds = (2..12).map(|number| second(number, 1, 1000, 500));
        let lines = feed(seconds, 5);
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[1],
            "   12 s  talk  200 online  message 1 000/s of 1 001 \
             (p50 500 µs, p99 500 µs, p99.9 500 µs, max 500 µs)  errors 5  server 12 % 34 MiB  tool 9 %"
        );
    }

    #[test]
    fn a_phase_ends_with_a_line_and_events_are_told_at_once() {
        let lines = feed(
            [
                second(0, 0, 10, 300),
                second(1, 0, 10, 300),
                second(2, 1, 10, 300),
                Update::Note("worker 2 is gone".to_owned()),
                Update::Invalid("a worker is gone".to_owned()),
                Update::Invalid("a worker is gone".to_owned()),
            ],
            5,
        );
        assert!(lines[0].starts_with("    2 s  log in"), "{lines:?}");
        assert_eq!(lines[1..], ["    3 s  worker 2 is gone", "    3 s  INVALID: a worker is gone"]);
    }
}
