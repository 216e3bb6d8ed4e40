//! How far a run is and what it has shown so far: the state that the screen and the lines are written from.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::record::{Fault, Interval, Latency, LoopMode, Operation, Phase, ServerLoad};

/// Seconds that the charts go back.
pub(super) const HISTORY: usize = 600;
/// Faults and notes that are kept; older ones give way.
const EVENTS_MAX: usize = 50;
/// A second whose operations left later than this says so on the screen.
const LAG_TOLD: Duration = Duration::from_millis(1);

/// What is known of a run before it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Outline {
    /// Name of the scenario.
    pub name: String,
    /// Host and port.
    pub target: String,
    pub mode: LoopMode,
    pub users: u64,
    pub workers: usize,
    pub phases: Vec<Phase>,
}

impl Outline {
    /// Until the last phase ends, without the drain behind it.
    pub fn length(&self) -> Duration {
        let phases = self.phases.iter().filter(|phase| phase.kind != "drain");
        phases.map(|phase| phase.begin + phase.length).max().unwrap_or_default()
    }
}

/// What a run tells while it goes on.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// A second is over, all workers merged.
    Interval(Box<Interval>),
    /// Something was done to the server.
    Fault(Fault),
    /// The run is INVALID, and why.
    Invalid(String),
    /// A line for whoever looks: a worker that is gone, a run that is being ended.
    Note(String),
}

/// One operation, in the present phase and in the last second.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Line {
    pub(super) planned_last: u64,
    pub(super) done_last: u64,
    pub(super) failed_last: u64,
    pub(super) done: u64,
    pub(super) failed: u64,
    pub(super) response: Latency,
    pub(super) service: Latency,
}

/// One second of the charts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) done: u64,
    /// p99 of the response time of the operation that was done most often.
    pub(super) p99_us: u64,
    pub(super) lag_p99_us: u64,
}

/// The state.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) outline: Outline,
    /// Seconds that are over.
    pub(super) seconds: u64,
    pub(super) phase: usize,
    pub(super) online: u64,
    pub(super) operations: BTreeMap<Operation, Line>,
    /// Of all operations, and sessions that ended unasked, over the whole run.
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) points: VecDeque<Point>,
    /// The operation that was done most often in the last second in which any was.
    pub(super) busiest: Option<Operation>,
    /// Faults and notes with the second they belong to.
    pub(super) events: VecDeque<(u64, String)>,
    pub(super) lag: Latency,
    pub(super) late: u64,
    pub(super) dropped: u64,
    pub(super) own_cpu_last: Duration,
    pub(super) server: Option<ServerLoad>,
    pub(super) invalid: Vec<String>,
    /// Intervals whose histograms could not be read.
    pub(super) unreadable: u64,
}

impl Progress {
    pub(super) fn new(outline: Outline) -> Self {
        Self {
            outline,
            seconds: 0,
            phase: 0,
            online: 0,
            operations: BTreeMap::new(),
            failed: BTreeMap::new(),
            points: VecDeque::new(),
            busiest: None,
            events: VecDeque::new(),
            lag: Latency::default(),
            late: 0,
            dropped: 0,
            own_cpu_last: Duration::ZERO,
            server: None,
            invalid: Vec::new(),
            unreadable: 0,
        }
    }

    pub(super) fn take(&mut self, update: Update) {
        match update {
            Update::Interval(interval) => self.interval(&interval),
            Update::Fault(fault) => {
                let event = format!("fault {}: {}", fault.name, fault.result);
                self.event(fault.at.as_secs(), event);
            }
            Update::Invalid(reason) => {
                if !self.invalid.contains(&reason) {
                    self.invalid.push(reason);
                }
            }
            Update::Note(note) => self.event(self.seconds, note),
        }
    }

    fn event(&mut self, second: u64, event: String) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back((second, event));
    }

    fn interval(&mut self, interval: &Interval) {
        if interval.phase != self.phase {
            self.phase = interval.phase;
            self.operations.clear();
        }
        self.seconds = self.seconds.max(interval.number + 1);
        self.online = interval.online;
        for line in self.operations.values_mut() {
            (line.planned_last, line.done_last, line.failed_last) = (0, 0, 0);
        }
        let mut point = Point::default();
        let mut most = 0;
        for (operation, tally) in &interval.tallies {
            let response = tally.response.unpack().unwrap_or_else(|_| {
                self.unreadable += 1;
                Latency::default()
            });
            point.done += tally.done;
            if tally.done > most {
                most = tally.done;
                self.busiest = Some(*operation);
                point.p99_us = micros(response.quantile(0.99));
            }
            let failed = tally.failed.values().sum();
            let line = self.operations.entry(*operation).or_default();
            (line.planned_last, line.done_last, line.failed_last) =
                (tally.planned, tally.done, failed);
            line.done += tally.done;
            line.failed += failed;
            line.response.merge(&response);
            line.service.merge(&tally.service.unpack().unwrap_or_default());
            for (condition, count) in &tally.failed {
                *self.failed.entry(condition.clone()).or_default() += count;
            }
        }
        for (cause, count) in &interval.disconnected {
            *self.failed.entry(format!("disconnected: {cause}")).or_default() += count;
        }
        let lag = interval.own.lag.unpack().unwrap_or_default();
        point.lag_p99_us = micros(lag.quantile(0.99));
        self.lag.merge(&lag);
        self.late += interval.own.late;
        self.dropped += interval.own.dropped;
        self.own_cpu_last = interval.own.cpu;
        self.server = interval.server.or(self.server);
        if self.points.len() == HISTORY {
            self.points.pop_front();
        }
        self.points.push_back(point);
    }

    /// Name of the present phase.
    pub(super) fn phase_name(&self) -> &str {
        self.outline.phases.get(self.phase).map_or("", |phase| &phase.name)
    }

    /// Whether the tool leaves its plan behind now, which the verdict of the run may tell later.
    pub(super) fn is_behind(&self) -> bool {
        self.points.back().is_some_and(|point| u128::from(point.lag_p99_us) > LAG_TOLD.as_micros())
    }

    pub(super) fn errors(&self) -> u64 {
        self.failed.values().sum()
    }
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::record::{OwnLoad, Tally};

    pub(in super::super) fn outline() -> Outline {
        let phase = |name: &str, begin: u64, length: u64, measured: bool| Phase {
            name: name.to_owned(),
            kind: if measured { "hold" } else { "ramp" }.to_owned(),
            begin: Duration::from_secs(begin),
            length: Duration::from_secs(length),
            measured,
        };
        Outline {
            name: "chat".to_owned(),
            target: "127.0.0.1:5222".to_owned(),
            mode: LoopMode::Open,
            users: 200,
            workers: 2,
            phases: vec![phase("log in", 0, 2, false), phase("talk", 2, 8, true)],
        }
    }

    /// A second in which `done` messages took `us` each, and one failed.
    pub(in super::super) fn second(number: u64, phase: usize, done: u64, us: u64) -> Update {
        let mut latency = Latency::default();
        latency.record_n(Duration::from_micros(us), done);
        let mut lag = Latency::default();
        lag.record_n(Duration::from_micros(40), done);
        let tally = Tally {
            response: latency.pack(),
            service: latency.pack(),
            planned: done + 1,
            done,
            failed: [("service-unavailable".to_owned(), 1)].into(),
        };
        Update::Interval(Box::new(Interval {
            number,
            phase,
            tallies: [(Operation::Message, tally)].into(),
            online: 200,
            own: OwnLoad { lag: lag.pack(), cpu: Duration::from_millis(90), late: 3, dropped: 0 },
            server: Some(ServerLoad { cpu: Duration::from_millis(120), memory: 34 << 20 }),
            ..Interval::default()
        }))
    }

    #[test]
    fn counts_of_an_operation_begin_anew_with_each_phase_and_errors_do_not() {
        let mut progress = Progress::new(outline());
        progress.take(second(0, 0, 10, 300));
        progress.take(second(2, 1, 1000, 500));
        progress.take(second(3, 1, 3000, 700));
        let line = &progress.operations[&Operation::Message];
        assert_eq!((line.done_last, line.done, line.planned_last), (3000, 4000, 3001));
        assert_eq!(line.response.count(), 4000);
        assert_eq!((progress.errors(), progress.seconds, progress.late), (3, 4, 9));
        assert_eq!(progress.phase_name(), "talk");
        assert!(!progress.is_behind());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut progress = Progress::new(outline());
        for number in 0..2000 {
            progress.take(second(number, 1, 1, 300));
            progress.take(Update::Note("a note".to_owned()));
            progress.take(Update::Invalid("always the same".to_owned()));
        }
        assert_eq!(progress.points.len(), HISTORY);
        assert_eq!(progress.events.len(), EVENTS_MAX);
        assert_eq!(progress.invalid.len(), 1);
    }
}
