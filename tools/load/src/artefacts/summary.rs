//! `summary.json`: all figures of a run for programs. `tools/load/summary.schema.json` describes it.
//!
//! The number in `schema` changes when a field goes away or changes its meaning; new fields may come without. Fields
//! end in their unit. `operations` counts the measured phases, `phases` each phase by itself, `timeline` each second.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::figures::Figures;
use super::hlog;
use super::stall::{self, Stall};
use crate::cost;
use crate::record::{
    Cost, Environment, Interval, Latency, LedgerReport, LoopMode, Operation, Outcome,
    ThresholdResult, Total, UnreadableHistogram,
};

/// Version of the form below.
pub const SCHEMA: u32 = 1;

/// What the run says in a word; the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// The tool was the bottleneck: no figure of it may be believed.
    Invalid,
    /// It ended before its time.
    Aborted,
    /// A threshold was not held.
    Fail,
    Pass,
}

/// Open or closed loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loop {
    Open,
    Closed,
}

/// One operation over some phases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OperationSummary {
    pub planned: u64,
    /// For fan-out once per recipient.
    pub done: u64,
    pub failed: u64,
    pub failed_by_condition: BTreeMap<String, u64>,
    pub planned_per_s: f64,
    pub done_per_s: f64,
    /// From the intended moment to done.
    pub response: Figures,
    /// From sent to done.
    pub service: Figures,
}

/// A phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseSummary {
    pub name: String,
    pub kind: String,
    pub begin_s: f64,
    pub length_s: f64,
    /// Whether thresholds and `operations` count it.
    pub measured: bool,
    pub operations: BTreeMap<Operation, OperationSummary>,
}

/// A fault that was injected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultSummary {
    pub at_s: f64,
    pub name: String,
    pub took_s: f64,
    pub result: String,
}

/// The tool itself over the whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OwnSummary {
    /// Intended moment to the write.
    pub lag: Figures,
    pub cpu_s: f64,
    /// Percent of one core.
    pub cpu_percent: f64,
    /// Operations that left more than 1 ms late by the tool's own fault.
    pub late: u64,
    /// Operations that were not begun.
    pub dropped: u64,
}

/// The server's process over the measured phases, or all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerSummary {
    pub cpu_s: f64,
    /// Percent of one core.
    pub cpu_percent: f64,
    pub memory_begin_bytes: u64,
    pub memory_end_bytes: u64,
    pub memory_max_bytes: u64,
}

/// One operation in one second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondTally {
    pub planned: u64,
    pub done: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, u64>,
}

/// One second of the run. Its latencies are in `latency.hlog`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    pub second: u64,
    /// Place in `phases`.
    pub phase: usize,
    pub online: u64,
    pub operations: BTreeMap<Operation, SecondTally>,
    pub lag_p99_us: u64,
    pub own_cpu_s: f64,
    pub late: u64,
    pub dropped: u64,
    pub server_cpu_s: Option<f64>,
    pub server_memory_bytes: Option<u64>,
}

/// All figures of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    pub schema: u32,
    pub name: String,
    pub result: Judgement,
    /// Why the run is invalid; empty: it is valid.
    pub invalid: Vec<String>,
    pub aborted: Option<String>,
    #[serde(rename = "loop")]
    pub mode: Loop,
    /// In flight per pair; of a closed loop.
    pub window: Option<u32>,
    pub seed: u64,
    pub users: u64,
    /// UTC, RFC 3339.
    pub started: String,
    /// Seconds since the epoch.
    pub started_s: f64,
    pub length_s: f64,
    /// Seconds that `operations` counts.
    pub measured_s: u64,
    pub operations: BTreeMap<Operation, OperationSummary>,
    /// Failures of all operations over the whole run.
    pub errors: BTreeMap<String, u64>,
    /// Sessions that ended unasked over the whole run, by cause.
    pub disconnected: BTreeMap<String, u64>,
    pub ledger: LedgerReport,
    pub cost: Cost,
    pub thresholds: Vec<ThresholdResult>,
    pub faults: Vec<FaultSummary>,
    pub stalls: Vec<Stall>,
    pub phases: Vec<PhaseSummary>,
    pub own: OwnSummary,
    pub server: Option<ServerSummary>,
    /// CPU time per message of each process, in microseconds, where there are several.
    #[serde(default)]
    pub cpu_us_per_message_of_each: Vec<f64>,
    pub environment: Environment,
    /// The scenario's text.
    pub scenario: String,
    pub timeline: Vec<Second>,
}

impl Summary {
    /// - errors: a histogram of the run that cannot be read
    pub fn of(outcome: &Outcome) -> Result<Self, UnreadableHistogram> {
        let is_measured =
            |interval: &Interval| outcome.phases.get(interval.phase).is_some_and(|it| it.measured);
        let measured_s = outcome.intervals.iter().filter(|it| is_measured(it)).count() as u64;
        let mut phases = Vec::with_capacity(outcome.phases.len());
        for (place, phase) in outcome.phases.iter().enumerate() {
            let seconds = outcome.intervals.iter().filter(|it| it.phase == place).count() as u64;
            phases.push(PhaseSummary {
                name: phase.name.clone(),
                kind: phase.kind.clone(),
                begin_s: phase.begin.as_secs_f64(),
                length_s: phase.length.as_secs_f64(),
                measured: phase.measured,
                operations: operations(outcome.totals(|it| it.phase == place)?, seconds),
            });
        }
        let mut errors = BTreeMap::<String, u64>::new();
        for tally in outcome.intervals.iter().flat_map(|it| it.tallies.values()) {
            for (condition, count) in &tally.failed {
                *errors.entry(condition.clone()).or_default() += count;
            }
        }
        let mut disconnected = BTreeMap::<String, u64>::new();
        for (cause, count) in outcome.intervals.iter().flat_map(|it| &it.disconnected) {
            *disconnected.entry(cause.clone()).or_default() += count;
        }
        let verdict = &outcome.verdict;
        let result = if !verdict.invalid.is_empty() {
            Judgement::Invalid
        } else if verdict.aborted.is_some() {
            Judgement::Aborted
        } else if outcome.thresholds.iter().any(|it| !it.held) {
            Judgement::Fail
        } else {
            Judgement::Pass
        };
        let (mode, window) = match outcome.mode {
            LoopMode::Open => (Loop::Open, None),
            LoopMode::Closed { window } => (Loop::Closed, Some(window)),
        };
        Ok(Self {
            schema: SCHEMA,
            name: outcome.name.clone(),
            result,
            invalid: verdict.invalid.clone(),
            aborted: verdict.aborted.clone(),
            mode,
            window,
            seed: outcome.seed,
            users: outcome.users,
            started: rfc3339(outcome.started),
            started_s: hlog::epoch_seconds(outcome),
            length_s: outcome.length.as_secs_f64(),
            measured_s,
            operations: operations(outcome.measured()?, measured_s),
            errors,
            disconnected,
            ledger: outcome.ledger,
            cost: outcome.cost,
            thresholds: outcome.thresholds.clone(),
            faults: outcome
                .faults
                .iter()
                .map(|fault| FaultSummary {
                    at_s: fault.at.as_secs_f64(),
                    name: fault.name.clone(),
                    took_s: fault.took.as_secs_f64(),
                    result: fault.result.clone(),
                })
                .collect(),
            stalls: stall::find(outcome)?,
            phases,
            own: own(outcome)?,
            server: server(outcome, measured_s, is_measured),
            cpu_us_per_message_of_each: cost::per_message_of_each(outcome)
                .into_iter()
                .map(rounded)
                .collect(),
            environment: outcome.environment.clone(),
            scenario: outcome.scenario.clone(),
            timeline: outcome.intervals.iter().map(second).collect::<Result<_, _>>()?,
        })
    }

    /// The file's text: for people as well, with a line for each second.
    pub fn to_json(&self) -> String {
        let without = Self { timeline: Vec::new(), ..self.clone() };
        // Maps of the summary have keys that are text, and floats of JSON may be anything finite; others are null.
        let mut text = serde_json::to_string_pretty(&without).unwrap_or_default();
        let seconds: Vec<String> = self
            .timeline
            .iter()
            .map(|second| serde_json::to_string(second).unwrap_or_default())
            .collect();
        if let Some(rest) = text.strip_suffix("\"timeline\": []\n}") {
            text = format!("{rest}\"timeline\": [\n    {}\n  ]\n}}\n", seconds.join(",\n    "));
        }
        text
    }
}

fn operations(
    totals: BTreeMap<Operation, Total>,
    seconds: u64,
) -> BTreeMap<Operation, OperationSummary> {
    let per_second = |count: u64| rounded(count as f64 / seconds.max(1) as f64);
    totals
        .into_iter()
        .map(|(operation, total)| {
            let summary = OperationSummary {
                planned: total.planned,
                done: total.done,
                failed: total.failed.values().sum(),
                planned_per_s: per_second(total.planned),
                done_per_s: per_second(total.done),
                response: Figures::of(&total.response),
                service: Figures::of(&total.service),
                failed_by_condition: total.failed,
            };
            (operation, summary)
        })
        .collect()
}

fn own(outcome: &Outcome) -> Result<OwnSummary, UnreadableHistogram> {
    let mut lag = Latency::default();
    let mut cpu = Duration::ZERO;
    let (mut late, mut dropped) = (0, 0);
    for interval in &outcome.intervals {
        lag.merge(&interval.own.lag.unpack()?);
        cpu += interval.own.cpu;
        late += interval.own.late;
        dropped += interval.own.dropped;
    }
    let seconds = outcome.intervals.len().max(1) as f64;
    Ok(OwnSummary {
        lag: Figures::of(&lag),
        cpu_s: rounded(cpu.as_secs_f64()),
        cpu_percent: rounded(cpu.as_secs_f64() / seconds * 100.0),
        late,
        dropped,
    })
}

fn server(
    outcome: &Outcome,
    measured_s: u64,
    is_measured: impl Fn(&Interval) -> bool,
) -> Option<ServerSummary> {
    let loads: Vec<_> = outcome
        .intervals
        .iter()
        .filter(|interval| is_measured(interval))
        .filter_map(|interval| interval.server)
        .collect();
    let cpu: Duration = loads.iter().map(|load| load.cpu).sum();
    Some(ServerSummary {
        cpu_s: rounded(cpu.as_secs_f64()),
        cpu_percent: rounded(cpu.as_secs_f64() / measured_s.max(1) as f64 * 100.0),
        memory_begin_bytes: loads.first()?.memory,
        memory_end_bytes: loads.last()?.memory,
        memory_max_bytes: loads.iter().map(|load| load.memory).max()?,
    })
}

fn second(interval: &Interval) -> Result<Second, UnreadableHistogram> {
    let tallies = interval.tallies.iter().map(|(operation, tally)| {
        let tally =
            SecondTally { planned: tally.planned, done: tally.done, failed: tally.failed.clone() };
        (*operation, tally)
    });
    Ok(Second {
        second: interval.number,
        phase: interval.phase,
        online: interval.online,
        operations: tallies.collect(),
        lag_p99_us: Figures::of(&interval.own.lag.unpack()?).p99_us,
        own_cpu_s: rounded(interval.own.cpu.as_secs_f64()),
        late: interval.own.late,
        dropped: interval.own.dropped,
        server_cpu_s: interval.server.map(|server| rounded(server.cpu.as_secs_f64())),
        server_memory_bytes: interval.server.map(|server| server.memory),
    })
}

/// To a microsecond, a thousandth of a percent.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// A moment as `2026-11-26T14:05:46Z`, of the Gregorian calendar without leap seconds.
pub fn rfc3339(moment: SystemTime) -> String {
    let seconds = moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days since 1 March of year 0, in eras of 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        let at = |seconds| rfc3339(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(at(1_795_701_946), "2026-11-26T14:05:46Z");
        assert_eq!(at(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(at(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
