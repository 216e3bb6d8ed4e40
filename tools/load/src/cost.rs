//! What the server paid for a message, a login and a session, where the run shows it.
//!
//! Each figure needs seconds in which the server did one thing alone: CPU time of a second with logins and messages
//! cannot be divided between them. What cannot be told is said, with what to change.

use std::time::Duration;

use crate::judge::show;
use crate::record::{Cost, Interval, Operation, Outcome, ServerLoad};

/// Share of other operations that a second may have and still count as one of a single kind.
const OTHERS_MAX: f64 = 0.01;
/// With fewer, the resolution of what is measured is seen and not the cost.
const MESSAGES_MIN: u64 = 1000;
const LOGINS_MIN: u64 = 50;
const SESSIONS_MIN: u64 = 100;

/// A figure, or why there is none.
type Figure = Result<f64, &'static str>;

/// The three figures with their reasons.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    pub cpu_us_per_message: Figure,
    pub cpu_us_per_login: Figure,
    pub bytes_per_session: Figure,
}

impl Costs {
    pub fn of(outcome: &Outcome) -> Self {
        let before = outcome.server_before;
        if before.is_none() {
            let unknown = Err("the run was told no process (--server-pid)");
            return Self {
                cpu_us_per_message: unknown,
                cpu_us_per_login: unknown,
                bytes_per_session: unknown,
            };
        }
        Self {
            cpu_us_per_message: message(outcome),
            cpu_us_per_login: login(outcome),
            bytes_per_session: session(outcome, before.unwrap_or_default()),
        }
    }

    pub fn record(&self) -> Cost {
        Cost {
            cpu_us_per_message: self.cpu_us_per_message.ok(),
            cpu_us_per_login: self.cpu_us_per_login.ok(),
            bytes_per_session: self.bytes_per_session.ok(),
        }
    }

    /// The server cost line, and a line for each figure that is missing.
    pub fn lines(&self) -> Vec<String> {
        let us = |us: f64| format!("{} of CPU", show(Duration::from_secs_f64(us / 1e6)));
        let figures = [
            ("message", self.cpu_us_per_message.map(us)),
            ("login", self.cpu_us_per_login.map(us)),
            ("session", self.bytes_per_session.map(|bytes| format!("{bytes:.0} bytes"))),
        ];
        let known: Vec<String> = figures
            .iter()
            .filter_map(|(what, figure)| Some(format!("{} per {what}", figure.as_ref().ok()?)))
            .collect();
        let mut lines = Vec::new();
        if !known.is_empty() {
            lines.push(format!("server cost: {}", known.join(", ")));
        }
        let missing =
            figures.iter().filter_map(|(what, figure)| Some((what, figure.as_ref().err()?)));
        lines.extend(
            missing.map(|(what, why)| format!("server cost per {what} is not known: {why}")),
        );
        lines
    }
}

fn is_message(operation: Operation) -> bool {
    use Operation::{ComponentMessage, Message, RoomMessage};
    matches!(operation, Message | RoomMessage | ComponentMessage)
}

fn done(interval: &Interval, wanted: impl Fn(Operation) -> bool) -> u64 {
    let tallies = interval.tallies.iter().filter(|(operation, _)| wanted(**operation));
    tallies.map(|(_, tally)| tally.done).sum()
}

/// CPU time, as `load` finds it, and number of what is `wanted`, over the seconds that had nothing else.
fn alone<'a>(
    intervals: impl Iterator<Item = &'a Interval>,
    wanted: impl Fn(Operation) -> bool,
    load: impl Fn(&Interval) -> Option<ServerLoad>,
) -> (Duration, u64) {
    let mut sum = (Duration::ZERO, 0);
    for interval in intervals {
        let count = done(interval, &wanted);
        let others = done(interval, |operation| !wanted(operation));
        let Some(server) = load(interval) else {
            continue;
        };
        if count > 0 && others as f64 <= count as f64 * OTHERS_MAX {
            sum = (sum.0 + server.cpu, sum.1 + count);
        }
    }
    sum
}

fn each((cpu, count): (Duration, u64)) -> f64 {
    cpu.as_secs_f64() * 1e6 / count.max(1) as f64
}

/// Seconds of the measured phases, without the drain.
fn measured(outcome: &Outcome) -> impl Iterator<Item = &Interval> {
    outcome.intervals.iter().filter(|interval| {
        let phase = outcome.phases.get(interval.phase);
        phase.is_some_and(|phase| phase.measured && phase.kind != "drain")
    })
}

/// CPU time of each process per message, in microseconds and the order in which the run was told of them; nothing where
/// that was one, or where the sum of all is not known.
pub fn per_message_of_each(outcome: &Outcome) -> Vec<f64> {
    if message(outcome).is_err() {
        return Vec::new();
    }
    let count = outcome.intervals.iter().map(|interval| interval.servers.len()).max().unwrap_or(0);
    let of = |place: usize| {
        let load = |interval: &Interval| interval.servers.get(place).copied();
        each(alone(measured(outcome), is_message, load))
    };
    (0..count).map(of).collect()
}

fn message(outcome: &Outcome) -> Figure {
    let found = alone(measured(outcome), is_message, |interval| interval.server);
    let all: u64 = outcome.intervals.iter().map(|interval| done(interval, is_message)).sum();
    match found.1 {
        0 if all == 0 => Err("there were no messages"),
        0 => {
            Err("no measured second had messages alone; measure them in a phase without other work")
        }
        count if count < MESSAGES_MIN => Err("fewer than 1000 messages, in seconds of their own"),
        _ => Ok(each(found)),
    }
}

fn login(outcome: &Outcome) -> Figure {
    let is_login = |operation| operation == Operation::Login;
    let found = alone(outcome.intervals.iter(), is_login, |interval| interval.server);
    let all: u64 = outcome.intervals.iter().map(|interval| done(interval, is_login)).sum();
    match found.1 {
        0 if all == 0 => Err("there were no logins"),
        0 => Err("no second had logins alone; let messages wait for the end of the ramp"),
        count if count < LOGINS_MIN => Err("fewer than 50 logins, in seconds of their own"),
        _ => Ok(each(found)),
    }
}

/// From before the first connection to the last second in which all were online and nothing else had been done yet.
fn session(outcome: &Outcome, before: ServerLoad) -> Figure {
    let most = outcome.intervals.iter().map(|interval| interval.online).max().unwrap_or_default();
    if most < SESSIONS_MIN {
        return Err("fewer than 100 sessions");
    }
    let is_quiet = |interval: &&Interval| {
        done(interval, |operation| operation != Operation::Login) == 0
            && outcome.phases.get(interval.phase).is_some_and(|phase| phase.kind != "drain")
    };
    let quiet = outcome.intervals.iter().take_while(is_quiet);
    let last = quiet.filter(|interval| interval.online == most && interval.server.is_some()).last();
    let Some(memory) = last.and_then(|interval| interval.server).map(|server| server.memory) else {
        return Err("other work began before all were online; let it wait for the end of the ramp");
    };
    Ok(memory.saturating_sub(before.memory) as f64 / most as f64)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::record::{Environment, LedgerReport, LoopMode, Phase, Tally, Verdict};

    /// Phase (0 the ramp, 1 a measured hold), what was done, CPU in ms, online, MiB.
    type Second<'a> = (usize, &'a [(Operation, u64)], u64, u64, u64);

    fn outcome(seconds: &[Second<'_>]) -> Outcome {
        let phase = |name: &str, measured| Phase {
            name: name.to_owned(),
            kind: name.to_owned(),
            begin: Duration::ZERO,
            length: Duration::from_secs(5),
            measured,
        };
        let intervals =
            seconds.iter().zip(0..).map(|((phase, tallies, cpu, online, memory), number)| {
                let tally = |(operation, done): &(Operation, u64)| {
                    (*operation, Tally { done: *done, planned: *done, ..Tally::default() })
                };
                Interval {
                    number,
                    phase: *phase,
                    tallies: tallies.iter().map(tally).collect(),
                    online: *online,
                    server: Some(ServerLoad {
                        cpu: Duration::from_millis(*cpu),
                        memory: memory << 20,
                    }),
                    ..Interval::default()
                }
            });
        Outcome {
            name: "cost".to_owned(),
            scenario: String::new(),
            seed: 1,
            mode: LoopMode::Open,
            started: SystemTime::UNIX_EPOCH,
            length: Duration::from_secs(10),
            users: 1000,
            server_before: Some(ServerLoad { cpu: Duration::from_secs(7), memory: 10 << 20 }),
            phases: vec![phase("ramp", false), phase("hold", true), phase("drain", true)],
            intervals: intervals.collect(),
            faults: Vec::new(),
            ledger: LedgerReport::default(),
            cost: Cost::default(),
            thresholds: Vec::new(),
            environment: Environment::default(),
            verdict: Verdict::default(),
        }
    }

    use Operation::{Login, Message, Ping};

    #[test]
    fn each_figure_comes_from_seconds_that_had_nothing_else() {
        let outcome = outcome(&[
            (0, &[(Login, 600)], 90, 600, 15),
            (0, &[(Login, 400)], 60, 1000, 18),
            (1, &[], 1, 1000, 14),
            (1, &[(Message, 1000), (Login, 500)], 900, 1000, 30),
            (1, &[(Message, 2000)], 20, 1000, 30),
            (1, &[(Message, 4000), (Ping, 1)], 40, 1000, 30),
            (2, &[(Message, 10)], 1, 0, 30),
        ]);
        let costs = Costs::of(&outcome);
        assert!((costs.cpu_us_per_message.unwrap_or_default() - 10.0).abs() < 1e-9);
        assert!((costs.cpu_us_per_login.unwrap_or_default() - 150.0).abs() < 1e-9);
        // The last quiet second, when the server had given back what the logins took.
        assert_eq!(costs.bytes_per_session, Ok((4 << 20) as f64 / 1000.0));
        assert_eq!(
            costs.lines(),
            [
                "server cost: 10 µs of CPU per message, 150 µs of CPU per login, 4194 bytes per session"
            ]
        );
    }

    #[test]
    fn of_two_processes_each_has_its_part_of_a_message() {
        let mut outcome = outcome(&[
            (0, &[(Login, 600)], 90, 600, 15),
            (1, &[(Message, 2000)], 20, 1000, 30),
            (1, &[(Message, 4000)], 40, 1000, 30),
        ]);
        assert_eq!(per_message_of_each(&outcome), [0.0; 0], "one process");
        for interval in &mut outcome.intervals {
            let load = |ms| ServerLoad { cpu: Duration::from_millis(ms), memory: 0 };
            let all = interval.server.map_or(0, |server| server.cpu.as_millis() as u64);
            interval.servers = vec![load(all / 4), load(all - all / 4)];
        }
        let each = per_message_of_each(&outcome);
        assert!((each[0] - 2.5).abs() < 1e-9 && (each[1] - 7.5).abs() < 1e-9, "{each:?}");
    }

    #[test]
    fn what_the_phases_do_not_show_is_explained() {
        let mixed: &[(Operation, u64)] = &[(Login, 600), (Message, 600)];
        let costs = Costs::of(&outcome(&[(0, mixed, 90, 600, 15), (1, mixed, 60, 1000, 18)]));
        assert_eq!(costs.record(), Cost::default());
        let lines = costs.lines();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].contains("no measured second had messages alone"), "{lines:?}");
        assert!(lines[1].contains("no second had logins alone"), "{lines:?}");
        assert!(lines[2].contains("other work began"), "{lines:?}");
        let few = Costs::of(&outcome(&[(0, &[(Login, 10)], 90, 10, 15)]));
        assert_eq!(few.cpu_us_per_message, Err("there were no messages"));
        assert_eq!(few.bytes_per_session, Err("fewer than 100 sessions"));
        let unwatched = Outcome { server_before: None, ..outcome(&[]) };
        assert!(Costs::of(&unwatched).lines()[0].contains("--server-pid"));
    }
}
