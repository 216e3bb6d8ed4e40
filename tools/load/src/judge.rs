//! Whether a run may be believed, and whether what its scenario demands has held.

use std::time::Duration;

use crate::plan::Plan;
use crate::record::{Latency, Operation, Outcome, ThresholdResult, Total};
use crate::scenario::{Subject, Threshold};

/// Share of a core above which a worker cannot be trusted to be on time.
const CPU_MAX: f64 = 0.95;
/// Lateness of the median that is not worth a word, as a part of `lag_max`: 50 µs of 1 ms.
const LAG_MEDIAN_PART: u32 = 20;

/// Fills in the verdict and the thresholds.
pub fn judge(plan: &Plan, outcome: &mut Outcome) {
    match judge_parts(plan, outcome) {
        Ok((invalid, thresholds)) => {
            outcome.verdict.invalid = invalid;
            outcome.thresholds = thresholds;
        }
        Err(error) => outcome.verdict.invalid = vec![format!("the record is damaged: {error}")],
    }
}

type Parts = (Vec<String>, Vec<ThresholdResult>);

fn judge_parts(
    plan: &Plan,
    outcome: &Outcome,
) -> Result<Parts, crate::record::UnreadableHistogram> {
    let totals = outcome.measured()?;
    let is_measured = |phase: usize| outcome.phases.get(phase).is_some_and(|phase| phase.measured);
    let measured: Vec<_> =
        outcome.intervals.iter().filter(|interval| is_measured(interval.phase)).collect();
    let mut lag = Latency::default();
    for interval in &measured {
        lag.merge(&interval.own.lag.unpack()?);
    }
    let mut invalid = Vec::new();
    let p99 = lag.quantile(0.99);
    if p99 > plan.scenario.lag_max {
        invalid.push(format!(
            "the tool itself was late: p99 {} behind its plan, {} allowed (lag_max)",
            show(p99),
            show(plan.scenario.lag_max)
        ));
    }
    let mut all = Latency::default();
    totals.values().for_each(|total| all.merge(&total.response));
    let (own, response) = (lag.quantile(0.5), all.quantile(0.5));
    if own > plan.scenario.lag_max / LAG_MEDIAN_PART && own > response / 10 {
        invalid.push(format!(
            "the tool's own median lateness of {} is more than a tenth of the median response of {}",
            show(own),
            show(response)
        ));
    }
    // The last interval is cut short.
    let whole = &measured[..measured.len().saturating_sub(1)];
    let cpu: Duration = whole.iter().map(|interval| interval.own.cpu).sum();
    let share =
        cpu.as_secs_f64() / (whole.len() as f64 * outcome.environment.workers as f64).max(1.0);
    if share > CPU_MAX {
        invalid.push(format!(
            "the tool used {:.0} % of its core; lower the rate or use more workers",
            share * 100.0
        ));
    }
    let seconds: f64 = outcome
        .phases
        .iter()
        .filter(|phase| phase.measured && phase.kind != "drain")
        .map(|phase| phase.length.as_secs_f64())
        .sum();
    let thresholds = plan
        .scenario
        .thresholds
        .iter()
        .map(|threshold| check(threshold, outcome, &totals, seconds))
        .collect();
    Ok((invalid, thresholds))
}

type Totals = std::collections::BTreeMap<Operation, Total>;

fn check(
    threshold: &Threshold,
    outcome: &Outcome,
    totals: &Totals,
    seconds: f64,
) -> ThresholdResult {
    let empty = Total::default();
    let of = |operation: Operation| totals.get(&operation).unwrap_or(&empty);
    let latency = |latency: &Latency, percent: f64| {
        // Nothing measured is no proof that anything was quick.
        let value = (!latency.is_empty()).then(|| latency.quantile(percent / 100.0));
        (value.map(|v| v.as_secs_f64()), value.map_or("nothing".to_owned(), show))
    };
    let count = |count: u64| (Some(count as f64), count.to_string());
    let ledger = &outcome.ledger;
    let (value, measured) = match threshold.subject {
        Subject::Response(operation, percent) => latency(&of(operation).response, percent),
        Subject::Service(operation, percent) => latency(&of(operation).service, percent),
        Subject::Rate(operation) => {
            let rate = of(operation).done as f64 / seconds.max(1e-9);
            (Some(rate), format!("{rate:.1}/s"))
        }
        Subject::Errors(operation) => {
            let chosen: Vec<&Total> = match operation {
                Some(operation) => vec![of(operation)],
                None => totals.values().collect(),
            };
            let planned: u64 = chosen.iter().map(|total| total.planned).sum();
            let failed: u64 = chosen.iter().flat_map(|total| total.failed.values()).sum();
            let share = failed as f64 / planned.max(1) as f64;
            let value = (planned > 0).then_some(share);
            (value, format!("{:.4}% ({failed} of {planned})", share * 100.0))
        }
        // With XEP-0198 a promise is what was acknowledged; without it, everything is.
        Subject::Lost if ledger.acknowledged.messages > 0 => {
            count(ledger.acknowledged.lost + ledger.archived.map_or(0, |archived| archived.lost))
        }
        Subject::Lost => count(ledger.sent.lost),
        Subject::Duplicated => count(ledger.sent.duplicated),
        Subject::Reordered => count(ledger.sent.reordered),
        Subject::Corrupted => count(ledger.sent.corrupted),
        Subject::Disconnected => count(
            outcome.intervals.iter().flat_map(|interval| interval.disconnected.values()).sum(),
        ),
    };
    ThresholdResult {
        expression: threshold.expression.clone(),
        measured,
        held: value.is_some_and(|value| threshold.holds(value)),
    }
}

/// A duration with a unit that suits it.
pub fn show(value: Duration) -> String {
    let us = value.as_secs_f64() * 1e6;
    match us {
        _ if us < 1e3 => format!("{us:.0} µs"),
        _ if us < 1e5 => format!("{:.2} ms", us / 1e3),
        _ if us < 1e6 => format!("{:.0} ms", us / 1e3),
        _ => format!("{:.2} s", us / 1e6),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::plan::{Request, Target};
    use crate::record::{Interval, OwnLoad, Recorder};
    use crate::run;

    const TEXT: &str = "\
thresholds = [\"message.response p99 < 5ms\", \"lost == 0\", \"errors < 1%\", \"ping.response p50 < 1s\"]
[[phase]]
kind = \"ramp\"
length = \"1s\"
[[phase]]
kind = \"hold\"
length = \"2s\"
[[population]]
users = 2
[population.message]
rate = 10
";

    /// A run in which messages took `ms`, and left `lag_us` late.
    fn outcome(ms: u64, lag_us: u64) -> Outcome {
        let request = Request::new(
            "test",
            TEXT,
            vec![Target { address: ([127, 0, 0, 1], 1).into(), domain: "d".to_owned() }],
        );
        let plan = Plan::new(&request).unwrap();
        let mut recorder = Recorder::default();
        let begin = std::time::Instant::now();
        let sent = begin + Duration::from_micros(lag_us);
        for _ in 0..1000 {
            recorder.sent(Operation::Message, begin, sent);
            recorder.done(Operation::Message, begin, sent, begin + Duration::from_millis(ms));
        }
        let cpu = Duration::from_millis(100);
        let intervals: Vec<Interval> = vec![
            recorder.close(0, 1, 2, cpu),
            Interval {
                number: 1,
                phase: 1,
                own: OwnLoad { cpu, ..OwnLoad::default() },
                ..Interval::default()
            },
        ];
        let started = std::time::SystemTime::UNIX_EPOCH;
        let report = crate::drive::ShareReport::default();
        run::outcome(&plan, &request, started, intervals, Vec::new(), None, 1, report)
    }

    #[test]
    fn thresholds_hold_or_not_by_what_was_measured() {
        let held = |outcome: &Outcome| -> Vec<bool> {
            outcome.thresholds.iter().map(|threshold| threshold.held).collect()
        };
        // Nothing was pinged, so nothing is known about it.
        assert_eq!(held(&outcome(2, 10)), [true, true, true, false]);
        assert_eq!(held(&outcome(20, 10)), [false, true, true, false]);
        assert!(outcome(2, 10).verdict.invalid.is_empty());
    }

    #[test]
    fn a_tool_that_was_late_makes_the_run_invalid() {
        let late = outcome(20, 1500).verdict.invalid;
        assert!(late.len() == 1 && late[0].contains("lag_max"), "{late:?}");
        let half = outcome(1, 500).verdict.invalid;
        assert!(half.len() == 1 && half[0].contains("a tenth"), "{half:?}");
    }
}
