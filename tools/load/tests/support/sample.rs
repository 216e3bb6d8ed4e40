//! Runs that never were: a server in a few lines, with the faults that artefacts have to show. The same numbers each time.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use corefire_load::record::{
    Cost, Environment, Fault, Interval, Latency, LedgerCounts, LedgerReport, LoopMode, Operation,
    Outcome, OwnLoad, Phase, ServerLoad, Tally, ThresholdResult, Verdict,
};

const SECOND_US: u64 = 1_000_000;

/// xorshift64*: enough for noise that repeats.
struct Noise(u64);

impl Noise {
    fn share(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Some 1 with a long tail: log-normal.
    fn factor(&mut self, spread: f64) -> f64 {
        let sum: f64 = (0..12).map(|_| self.share()).sum::<f64>() - 6.0;
        let tail = if self.share() < 0.002 { 3.0 } else { 1.0 };
        (sum * spread).exp() * tail
    }
}

#[derive(Default)]
struct Second {
    response: Latency,
    service: Latency,
    planned: u64,
    done: u64,
    failed: BTreeMap<String, u64>,
}

/// A time in which the server does nothing, from and to in microseconds of the run.
#[derive(Clone, Copy)]
pub(crate) struct Pause {
    pub(crate) from_us: u64,
    pub(crate) to_us: u64,
    /// What is planned in it fails: the server was killed.
    pub(crate) kills: bool,
}

struct Kind {
    operation: Operation,
    per_second: u64,
    median_us: f64,
    fan_out: u64,
}

struct Draft {
    seconds: u64,
    tallies: Vec<BTreeMap<Operation, Second>>,
    noise: Noise,
    pauses: Vec<Pause>,
}

impl Draft {
    fn new(seconds: u64, pauses: &[Pause]) -> Self {
        let tallies = (0..seconds).map(|_| BTreeMap::new()).collect();
        Self { seconds, tallies, noise: Noise(20_261_126), pauses: pauses.to_vec() }
    }

    fn at(&mut self, us: u64, operation: Operation) -> &mut Second {
        let second = (us / SECOND_US).min(self.seconds - 1) as usize;
        self.tallies[second].entry(operation).or_default()
    }

    /// What the server makes of an operation that is sent at `sent`: when it is done, unless it fails.
    fn serve(&mut self, sent: u64, work_us: f64) -> Option<u64> {
        let mut done = sent + work_us as u64;
        for pause in &self.pauses {
            if done >= pause.from_us && sent < pause.to_us {
                if pause.kills {
                    return None;
                }
                // All that waited is done within some milliseconds.
                done = pause.to_us + (done - sent) + (self.noise.share() * 8000.0) as u64;
            }
        }
        Some(done)
    }

    /// Operations by plan, whatever the server does.
    fn open(&mut self, kind: &Kind, from: u64, to: u64) {
        let gap = SECOND_US as f64 / kind.per_second as f64;
        let mut at = (from * SECOND_US) as f64;
        while at < (to * SECOND_US) as f64 {
            let intended = at as u64;
            at += gap * (0.5 + self.noise.share());
            self.at(intended, kind.operation).planned += 1;
            let sent = intended + (self.noise.share() * 30.0) as u64;
            for _ in 0..kind.fan_out {
                let work = kind.median_us * self.noise.factor(0.4);
                match self.serve(sent, work) {
                    Some(done) => {
                        let second = self.at(done, kind.operation);
                        second.response.record(Duration::from_micros(done - intended));
                        second.service.record(Duration::from_micros(done - sent));
                        second.done += 1;
                    }
                    None => {
                        let failed = &mut self.at(intended, kind.operation).failed;
                        let condition = if sent.is_multiple_of(3) { "timeout" } else { "closed" };
                        *failed.entry(condition.to_owned()).or_default() += 1;
                        break;
                    }
                }
            }
        }
    }

    /// Each of `pairs` sends when its message before is done.
    fn closed(&mut self, kind: &Kind, pairs: u64, from: u64, to: u64) {
        for _ in 0..pairs {
            let mut now = from * SECOND_US;
            while now < to * SECOND_US {
                self.at(now, kind.operation).planned += 1;
                let work = kind.median_us * self.noise.factor(0.4);
                let done = self.serve(now, work).unwrap_or(now + SECOND_US);
                let second = self.at(done, kind.operation);
                second.response.record(Duration::from_micros(done - now));
                second.service.record(Duration::from_micros(done - now));
                second.done += 1;
                now = done + 4000;
            }
        }
    }

    fn intervals(mut self, phases: &[Phase], users: u64) -> Vec<Interval> {
        let tallies = std::mem::take(&mut self.tallies);
        let mut intervals = Vec::new();
        for (number, seconds) in tallies.into_iter().enumerate() {
            let begin = Duration::from_secs(number as u64);
            let phase = phases.iter().rposition(|phase| phase.begin <= begin).unwrap_or(0);
            let done: u64 = seconds.values().map(|second| second.done).sum();
            let mut lag = Latency::default();
            for _ in 0..200 {
                lag.record(Duration::from_micros(5 + (self.noise.share() * 60.0) as u64));
            }
            let ramp = (number as u64 + 1).min(10);
            intervals.push(Interval {
                disconnected: Default::default(),
                number: number as u64,
                phase,
                tallies: seconds
                    .into_iter()
                    .map(|(operation, second)| {
                        let tally = Tally {
                            response: second.response.pack(),
                            service: second.service.pack(),
                            planned: second.planned,
                            done: second.done,
                            failed: second.failed,
                        };
                        (operation, tally)
                    })
                    .collect(),
                online: users * ramp / 10,
                own: OwnLoad {
                    lag: lag.pack(),
                    cpu: Duration::from_micros(60_000 + done * 4),
                    late: u64::from(number % 17 == 3),
                    dropped: 0,
                },
                server: Some(ServerLoad {
                    cpu: Duration::from_micros(20_000 + done * 9),
                    memory: 24_000_000 + users * ramp / 10 * 2900 + number as u64 * 20_000,
                }),
                servers: Vec::new(),
            });
        }
        intervals
    }
}

fn phase(name: &str, kind: &str, begin: u64, length: u64, measured: bool) -> Phase {
    Phase {
        name: name.to_owned(),
        kind: kind.to_owned(),
        begin: Duration::from_secs(begin),
        length: Duration::from_secs(length),
        measured,
    }
}

fn outcome(name: &str, phases: Vec<Phase>, intervals: Vec<Interval>, users: u64) -> Outcome {
    let facts = [
        ("command line", "corefire-load run chat.toml --target 127.0.0.1:5222 --server-pid 4711"),
        ("cores", "16"),
        ("descriptors", "20000"),
        ("governor", "performance"),
        ("kernel", "Linux 6.12.9"),
        ("processor", "Example Processor 7, 2.4 GHz"),
    ];
    let messages = 400_000;
    let sent = LedgerCounts { messages, received: messages, ..LedgerCounts::default() };
    Outcome {
        name: name.to_owned(),
        scenario: format!(
            "# {name}: pairs that write to one another\nname = \"{name}\"\nseed = 7\nusers = {users}\n\n\
             [[phase]]\nname = \"ramp\"\nkind = \"ramp\"\nlength = \"10s\"\n\n\
             [threshold]\n\"message.response\" = \"p99.9 < 5ms\" # <kept> & checked\n"
        ),
        seed: 7,
        mode: LoopMode::Open,
        started: UNIX_EPOCH + Duration::from_millis(1_795_701_946_250),
        length: Duration::from_secs(intervals.len() as u64),
        users,
        phases,
        intervals,
        faults: Vec::new(),
        server_before: None,
        ledger: LedgerReport { sent, acknowledged: sent, archived: None },
        cost: Cost {
            cpu_us_per_message: Some(9.4),
            cpu_us_per_login: Some(312.0),
            bytes_per_session: Some(2874.0),
        },
        thresholds: vec![ThresholdResult {
            expression: "lost == 0".to_owned(),
            measured: "0".to_owned(),
            held: true,
        }],
        environment: Environment {
            tool_version: "0.1.0".to_owned(),
            target: "127.0.0.1:5222".to_owned(),
            domain: "example.org".to_owned(),
            server: Some("Corefire 0.1.0".to_owned()),
            workers: 2,
            facts: facts.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        },
        verdict: Verdict::default(),
    }
}

const MESSAGE: Kind =
    Kind { operation: Operation::Message, per_second: 2000, median_us: 420.0, fan_out: 1 };

/// A stop of 500 ms: what `SIGSTOP` and `SIGCONT` make.
pub(crate) const STOP: Pause = Pause { from_us: 40_250_000, to_us: 40_750_000, kills: false };

/// Nothing but messages, with those pauses; 60 s, of which the first 10 are not measured.
pub(crate) fn chat(pauses: &[Pause]) -> Outcome {
    let phases = vec![phase("ramp", "ramp", 0, 10, false), phase("chat", "hold", 10, 50, true)];
    let mut draft = Draft::new(60, pauses);
    draft.open(&MESSAGE, 2, 60);
    let intervals = draft.intervals(&phases, 5000);
    outcome("chat", phases, intervals, 5000)
}

/// The same as [`chat`] in a closed loop.
pub(crate) fn closed_chat(pauses: &[Pause]) -> Outcome {
    let phases = vec![phase("ramp", "ramp", 0, 10, false), phase("chat", "hold", 10, 50, true)];
    let mut draft = Draft::new(60, pauses);
    draft.closed(&MESSAGE, 9, 2, 60);
    let intervals = draft.intervals(&phases, 18);
    let mut run = outcome("chat", phases, intervals, 18);
    run.mode = LoopMode::Closed { window: 1 };
    run
}

/// A [`chat`] whose answers take so many times as long.
pub(crate) fn slower_chat(times: f64) -> Outcome {
    let phases = vec![phase("ramp", "ramp", 0, 10, false), phase("chat", "hold", 10, 50, true)];
    let mut draft = Draft::new(60, &[]);
    draft.noise = Noise(99);
    draft.open(&Kind { median_us: MESSAGE.median_us * times, ..MESSAGE }, 2, 60);
    let intervals = draft.intervals(&phases, 5000);
    outcome("chat", phases, intervals, 5000)
}

/// All that a report can show: several operations and phases, a stop, a kill, errors, a threshold that was missed.
pub(crate) fn mixed_day() -> Outcome {
    let kill = Pause { from_us: 75_300_000, to_us: 76_900_000, kills: true };
    let phases = vec![
        phase("ramp", "ramp", 0, 10, false),
        phase("day", "hold", 10, 60, true),
        phase("evening", "hold", 70, 30, true),
        phase("reconnect storm", "storm", 100, 20, true),
    ];
    let mut draft = Draft::new(120, &[STOP, kill]);
    let kind = |operation, per_second, median_us, fan_out| Kind {
        operation,
        per_second,
        median_us,
        fan_out,
    };
    draft.open(&kind(Operation::Login, 300, 3800.0, 1), 0, 10);
    draft.open(&kind(Operation::Resume, 150, 900.0, 1), 76, 80);
    draft.open(&kind(Operation::Login, 900, 9100.0, 1), 100, 112);
    draft.open(&MESSAGE, 8, 70);
    draft.open(&Kind { per_second: 3400, ..MESSAGE }, 70, 120);
    draft.open(&kind(Operation::RoomMessage, 20, 640.0, 25), 10, 120);
    draft.open(&kind(Operation::Presence, 120, 510.0, 1), 10, 120);
    draft.open(&kind(Operation::Archive, 15, 2600.0, 1), 10, 120);
    let intervals = draft.intervals(&phases, 5000);
    let mut run = outcome("mixed-day", phases, intervals, 5000);
    run.faults = vec![
        Fault {
            at: Duration::from_micros(STOP.from_us),
            name: "stop the server for 500 ms".to_owned(),
            took: Duration::from_millis(503),
            result: "exit 0".to_owned(),
        },
        Fault {
            at: Duration::from_micros(kill.from_us),
            name: "kill -9 and start again".to_owned(),
            took: Duration::from_millis(1604),
            result: "exit 0".to_owned(),
        },
    ];
    run.intervals[75].disconnected.insert("closed".to_owned(), 5000);
    run.ledger.sent.lost = 38;
    run.ledger.acknowledged.redelivered = 17;
    run.ledger.sent.received -= 40;
    run.ledger.sent.bounced = 2;
    run.ledger.acknowledged.messages -= 38;
    run.ledger.acknowledged.received = run.ledger.acknowledged.messages;
    run.ledger.archived = Some(run.ledger.acknowledged);
    run.thresholds.push(ThresholdResult {
        expression: "message.response p99.9 < 5ms".to_owned(),
        measured: "417 ms".to_owned(),
        held: false,
    });
    run
}

/// A run whose tool was the bottleneck.
pub(crate) fn invalid() -> Outcome {
    let mut run = chat(&[]);
    run.verdict.invalid = vec![
        "p99 of the tool's own lag is 14.2 ms, more than 1 ms".to_owned(),
        "a worker used 99 % of its core".to_owned(),
    ];
    run
}
