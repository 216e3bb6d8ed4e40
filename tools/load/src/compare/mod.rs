//! Two runs side by side: is the second better, the same, or worse?
//!
//! A figure of a run is one draw of many that the run could have shown. How far it may lie off is found by drawing from
//! the run itself: blocks of neighbouring seconds, with replacement, until there are as many as it had; its histograms
//! are merged and the figure is read off again, a thousand times for both runs (moving blocks, because a second is much
//! like the one before it). The ratios that remain when the rarest on both sides are cut off are the interval. A figure
//! is better or worse only if its interval leaves out 1 and it moved by more than what is tolerated, so neither noise nor
//! a difference that nobody feels fails a build.
//!
//! What differs from run to run and not from second to second (where threads landed, what else the machine did) no
//! single run can show. Repeat runs before a close verdict is believed.

mod bootstrap;
mod page;
mod run;

use std::fmt::{self, Write as _};

use serde::Serialize;

pub use run::{Run, Unreadable};

use crate::artefacts::hlog::Time;
use crate::artefacts::summary::{Judgement, Loop};
use crate::chart::units;
use crate::record::Operation;

/// Seconds below which intervals say nothing.
const SECONDS_MIN: usize = 10;
/// Plans that differ by less are the same plan.
const PLANNED_TOLERANCE: f64 = 0.02;
/// Operations beyond a percentile below which it is chance.
const BEYOND_MIN: f64 = 10.0;
/// A share of failures that grew by less is the same.
const FAILED_TOLERANCE: f64 = 0.0001;

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Share of draws within an interval, 0.5 to 0.9999.
    pub confidence: f64,
    /// A ratio up to 1 more than this is the same.
    pub tolerance: f64,
    /// How often each run is drawn.
    pub draws: usize,
    /// The same seed gives the same intervals.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { confidence: 0.99, tolerance: 0.05, draws: 1000, seed: 1 }
    }
}

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    Better,
    Same,
    Worse,
}

impl Change {
    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Same => "same",
            Self::Worse => "worse",
        }
    }
}

/// A figure of both runs, written for people.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// An operation's name, or what else the figure is of.
    pub subject: String,
    pub figure: String,
    pub a: String,
    pub b: String,
    /// B by A; nothing where A is zero.
    pub ratio: Option<f64>,
    /// In which the ratio lies (of shares of failures: the difference); nothing where a run has only one such figure.
    pub interval: Option<(f64, f64)>,
    pub change: Change,
}

/// All that was compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub rows: Vec<Row>,
    /// Worse if a figure is; else better if one is.
    pub verdict: Change,
    pub confidence: f64,
    pub tolerance: f64,
}

/// Why two runs cannot be compared: all reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotComparable(pub Vec<String>);

impl fmt::Display for NotComparable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the runs cannot be compared:")?;
        self.0.iter().try_for_each(|reason| write!(f, "\n  - {reason}"))
    }
}

impl std::error::Error for NotComparable {}

/// What is better of a figure.
#[derive(Clone, Copy)]
enum Wanted {
    Low,
    High,
}

/// Compares B to A.
///
/// - errors: runs of different scenarios or plans, of open and closed loop, invalid or aborted ones, or too short ones
pub fn compare(a: &Run, b: &Run, options: &Options) -> Result<Comparison, NotComparable> {
    let reasons = differences(a, b);
    if !reasons.is_empty() {
        return Err(NotComparable(reasons));
    }
    let mut rows = Vec::new();
    let drawn_a = bootstrap::Draws::of(a.measured.len(), options.draws, options.seed);
    let drawn_b = bootstrap::Draws::of(b.measured.len(), options.draws, !options.seed);
    let interval = |a: &[f64], b: &[f64]| {
        let ratios = a.iter().zip(b).filter(|(a, _)| **a > 0.0).map(|(a, b)| b / a).collect();
        bootstrap::interval(ratios, options.confidence)
    };
    for (operation, of_a) in &a.summary.operations {
        let Some(of_b) = b.summary.operations.get(operation) else { continue };
        let subject = operation.name();
        for (time, figures_a, figures_b) in [
            (Time::Response, &of_a.response, &of_b.response),
            (Time::Service, &of_a.service, &of_b.service),
        ] {
            let shares = [
                (0.5, "p50", figures_a.p50_us, figures_b.p50_us),
                (0.9, "p90", figures_a.p90_us, figures_b.p90_us),
                (0.99, "p99", figures_a.p99_us, figures_b.p99_us),
                (0.999, "p99.9", figures_a.p99_9_us, figures_b.p99_9_us),
            ];
            let count = figures_a.count.min(figures_b.count) as f64;
            let shares: Vec<_> =
                shares.into_iter().filter(|it| count * (1.0 - it.0) >= BEYOND_MIN).collect();
            let wanted: Vec<f64> = shares.iter().map(|it| it.0).collect();
            let quantiles_a = drawn_a.quantiles(&a.latencies(*operation, time), &wanted);
            let quantiles_b = drawn_b.quantiles(&b.latencies(*operation, time), &wanted);
            for (place, (_, name, us_a, us_b)) in shares.into_iter().enumerate() {
                let found = interval(&quantiles_a[place], &quantiles_b[place]);
                let figure = format!("{} {name}", time.name());
                let (us_a, us_b) = (us_a as f64, us_b as f64);
                let write = units::microseconds;
                rows.push(row(subject, &figure, us_a, us_b, found, write, Wanted::Low, options));
            }
        }
        let of = |run: &Run, draws: &bootstrap::Draws| {
            let counts = |value: fn(&run::Counts) -> f64| run.counts(*operation, value);
            let done = counts(|it| it.done);
            let failed = counts(|it| it.failed);
            let ended: Vec<f64> = done.iter().zip(&failed).map(|(a, b)| a + b).collect();
            (draws.means(&done), draws.ratios(&failed, &ended))
        };
        let ((done_a, failed_a), (done_b, failed_b)) = (of(a, &drawn_a), of(b, &drawn_b));
        rows.push(row(
            subject,
            "done per second",
            of_a.done_per_s,
            of_b.done_per_s,
            interval(&done_a, &done_b),
            units::count,
            Wanted::High,
            options,
        ));
        let share = |failed: u64, done: u64| failed as f64 / ((failed + done) as f64).max(1.0);
        let shares = (share(of_a.failed, of_a.done), share(of_b.failed, of_b.done));
        let differences = failed_a.iter().zip(&failed_b).map(|(a, b)| b - a).collect();
        rows.push(failures(subject, shares, bootstrap::interval(differences, options.confidence)));
    }
    rows.extend(of_server(a, b, &drawn_a, &drawn_b, interval, options));
    rows.extend(of_ledger(a, b));
    let is = |change| rows.iter().any(|row| row.change == change);
    let verdict = match () {
        () if is(Change::Worse) => Change::Worse,
        () if is(Change::Better) => Change::Better,
        () => Change::Same,
    };
    let Options { confidence, tolerance, .. } = *options;
    Ok(Comparison { rows, verdict, confidence, tolerance })
}

#[expect(clippy::too_many_arguments, reason = "the columns of a table")]
fn row(
    subject: &str,
    figure: &str,
    a: f64,
    b: f64,
    interval: Option<(f64, f64)>,
    write: impl Fn(f64) -> String,
    wanted: Wanted,
    options: &Options,
) -> Row {
    let ratio = (a > 0.0).then(|| b / a);
    let limit = 1.0 + options.tolerance;
    let change = match ratio {
        Some(ratio) => {
            // Without an interval, what is tolerated alone decides.
            let (low, high) = interval.unwrap_or((ratio, ratio));
            let grew = ratio > limit && low > 1.0;
            let shrank = ratio < 1.0 / limit && high < 1.0;
            match wanted {
                Wanted::Low => changed(grew, shrank),
                Wanted::High => changed(shrank, grew),
            }
        }
        None => match wanted {
            Wanted::Low => changed(b > 0.0, false),
            Wanted::High => changed(false, b > 0.0),
        },
    };
    Row {
        subject: subject.to_owned(),
        figure: figure.to_owned(),
        a: write(a),
        b: write(b),
        ratio,
        interval,
        change,
    }
}

fn changed(is_worse: bool, is_better: bool) -> Change {
    match (is_worse, is_better) {
        (true, _) => Change::Worse,
        (_, true) => Change::Better,
        _ => Change::Same,
    }
}

/// Shares of failures: one that was zero has no ratio, so their difference is judged.
fn failures(subject: &str, (a, b): (f64, f64), interval: Option<(f64, f64)>) -> Row {
    let (low, high) = interval.unwrap_or((b - a, b - a));
    Row {
        subject: subject.to_owned(),
        figure: "failed".to_owned(),
        a: percent(a),
        b: percent(b),
        ratio: (a > 0.0).then(|| b / a),
        interval,
        change: changed(
            low > 0.0 && b - a > FAILED_TOLERANCE,
            high < 0.0 && a - b > FAILED_TOLERANCE,
        ),
    }
}

/// A share with as many digits as tell it from zero.
fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        percent if percent < 0.01 => format!("{percent:.4} %"),
        percent => format!("{} %", units::digits(percent)),
    }
}

/// What the server paid.
fn of_server(
    a: &Run,
    b: &Run,
    drawn_a: &bootstrap::Draws,
    drawn_b: &bootstrap::Draws,
    interval: impl Fn(&[f64], &[f64]) -> Option<(f64, f64)>,
    options: &Options,
) -> Vec<Row> {
    let mut rows = Vec::new();
    let micro = |value: f64| format!("{} µs", units::digits(value));
    if let (Some(cpu_a), Some(cpu_b)) = (a.server_cpu(), b.server_cpu()) {
        let (done_a, done_b) = (a.all_done(), b.all_done());
        let cost = |cpu: &[f64], done: &[f64]| {
            cpu.iter().sum::<f64>() * 1e6 / done.iter().sum::<f64>().max(1.0)
        };
        let found = interval(&drawn_a.ratios(&cpu_a, &done_a), &drawn_b.ratios(&cpu_b, &done_b));
        let (cost_a, cost_b) = (cost(&cpu_a, &done_a), cost(&cpu_b, &done_b));
        let figure = "CPU per operation done";
        rows.push(row("server", figure, cost_a, cost_b, found, micro, Wanted::Low, options));
    }
    let (cost_a, cost_b) = (&a.summary.cost, &b.summary.cost);
    for (figure, of_a, of_b) in [
        ("CPU per login", cost_a.cpu_us_per_login, cost_b.cpu_us_per_login),
        ("bytes per session", cost_a.bytes_per_session, cost_b.bytes_per_session),
    ] {
        if let (Some(of_a), Some(of_b)) = (of_a, of_b) {
            let write = |value: f64| match figure {
                "CPU per login" => micro(value),
                _ => units::count(value.round()),
            };
            rows.push(row("server", figure, of_a, of_b, None, write, Wanted::Low, options));
        }
    }
    rows
}

/// What was acknowledged is counted, not estimated: one more is worse.
fn of_ledger(a: &Run, b: &Run) -> Vec<Row> {
    let (of_a, of_b) = (a.summary.ledger.acknowledged, b.summary.ledger.acknowledged);
    let counts = [
        ("lost", of_a.lost, of_b.lost),
        ("duplicated", of_a.duplicated, of_b.duplicated),
        ("reordered", of_a.reordered, of_b.reordered),
        ("corrupted", of_a.corrupted, of_b.corrupted),
    ];
    let row = |(figure, a, b): (&str, u64, u64)| Row {
        subject: "acknowledged messages".to_owned(),
        figure: figure.to_owned(),
        a: units::grouped(a),
        b: units::grouped(b),
        ratio: (a > 0).then(|| b as f64 / a as f64),
        interval: None,
        change: changed(b > a, b < a),
    };
    counts.map(row).into()
}

/// All that forbids to compare.
fn differences(a: &Run, b: &Run) -> Vec<String> {
    let mut reasons = Vec::new();
    for (name, run) in [("A", a), ("B", b)] {
        match run.summary.result {
            Judgement::Invalid => {
                let why = run.summary.invalid.join("; ");
                reasons.push(format!("{name} is INVALID, the tool was the bottleneck: {why}"));
            }
            Judgement::Aborted => {
                let why = run.summary.aborted.as_deref().unwrap_or("aborted");
                reasons.push(format!("{name} ended before its time: {why}"));
            }
            Judgement::Pass | Judgement::Fail => {
                if run.measured.len() < SECONDS_MIN {
                    let seconds = run.measured.len();
                    reasons.push(format!(
                        "{name} measured {seconds} s; intervals need {SECONDS_MIN} s at least"
                    ));
                }
            }
        }
    }
    let loop_of = |run: &Run| match (run.summary.mode, run.summary.window) {
        (Loop::Open, _) => "an open loop".to_owned(),
        (Loop::Closed, window) => format!("a closed loop, window {}", window.unwrap_or(0)),
    };
    if loop_of(a) != loop_of(b) {
        reasons.push(format!("A is {}, B is {}", loop_of(a), loop_of(b)));
    }
    let (of_a, of_b) = (&a.summary, &b.summary);
    if of_a.name != of_b.name {
        reasons.push(format!("A ran scenario {}, B ran {}", of_a.name, of_b.name));
    } else if let Some(line) = first_difference(&of_a.scenario, &of_b.scenario) {
        reasons.push(format!("the scenarios are not the same: {line}"));
    }
    if of_a.users != of_b.users {
        reasons.push(format!("A had {} users, B had {}", of_a.users, of_b.users));
    }
    let phases = |run: &Run| -> Vec<(String, f64, bool)> {
        let phases = run.summary.phases.iter();
        phases.map(|it| (it.name.clone(), it.length_s, it.measured)).collect()
    };
    if phases(a) != phases(b) {
        reasons.push("their phases differ".to_owned());
    }
    let in_both = |operation: &&Operation| of_b.operations.contains_key(*operation);
    let common: Vec<&Operation> = of_a.operations.keys().filter(in_both).collect();
    if common.is_empty() {
        reasons.push("no operation was measured in both".to_owned());
    }
    // In a closed loop the server decides how much is sent.
    let is_open = of_a.mode == Loop::Open && of_b.mode == Loop::Open;
    for operation in common.into_iter().filter(|_| is_open) {
        let planned = |run: &Run| run.summary.operations[operation].planned as f64;
        let (of_a, of_b) = (planned(a), planned(b));
        if (of_a - of_b).abs() > PLANNED_TOLERANCE * of_a.max(of_b) + 4.0 {
            let name = operation.name();
            reasons.push(format!("{name}: A planned {of_a}, B planned {of_b}"));
        }
    }
    reasons
}

/// The first line that differs; comments and empty lines do not count.
fn first_difference(a: &str, b: &str) -> Option<String> {
    let lines = |text: &str| -> Vec<String> {
        let lines = text.lines().map(str::trim);
        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
    };
    let (a, b) = (lines(a), lines(b));
    let nothing = "nothing".to_owned();
    (0..a.len().max(b.len())).find_map(|at| {
        let (of_a, of_b) = (a.get(at), b.get(at));
        (of_a != of_b).then(|| {
            format!("A has {:?}, B has {:?}", of_a.unwrap_or(&nothing), of_b.unwrap_or(&nothing))
        })
    })
}

impl Row {
    fn interval_text(&self) -> String {
        match self.interval {
            None => "–".to_owned(),
            Some((0.0, 0.0)) => "–".to_owned(),
            Some((low, high)) if self.figure == "failed" => {
                format!("{:+.3} to {:+.3} points", low * 100.0, high * 100.0)
            }
            Some((low, high)) => format!("{low:.3} to {high:.3}"),
        }
    }
}

impl Comparison {
    /// The exit status that scripts go by: 0, or 99 if a figure is worse.
    pub fn exit_status(&self) -> u8 {
        match self.verdict {
            Change::Better | Change::Same => 0,
            Change::Worse => 99,
        }
    }

    /// A table in Markdown, with the verdict below.
    pub fn table(&self) -> String {
        let mut text = format!(
            "| Of | Figure | A | B | B / A | {} % interval | Verdict |\n\
             | --- | --- | ---: | ---: | ---: | ---: | --- |\n",
            units::digits(self.confidence * 100.0)
        );
        for row in &self.rows {
            let ratio = row.ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.3}"));
            let change = match row.change {
                Change::Same => row.change.name().to_owned(),
                change => format!("**{}**", change.name()),
            };
            let Row { subject, figure, a, b, .. } = row;
            let interval = row.interval_text();
            let _ = writeln!(
                text,
                "| {subject} | {figure} | {a} | {b} | {ratio} | {interval} | {change} |"
            );
        }
        let _ = writeln!(text, "\nB is {}.", self.words());
        text
    }

    fn words(&self) -> String {
        let count = |change| self.rows.iter().filter(|row| row.change == change).count();
        let (worse, better) = (count(Change::Worse), count(Change::Better));
        match self.verdict {
            Change::Same => "the same as A in all figures".to_owned(),
            Change::Worse => format!(
                "worse than A in {worse} of {} figures, better in {better}",
                self.rows.len()
            ),
            Change::Better => {
                format!("better than A in {better} of {} figures, worse in none", self.rows.len())
            }
        }
    }

    /// The same as a page of its own, with the distributions of both runs over one another.
    ///
    /// - errors: a fault of the tool
    pub fn page(&self, a: &Run, b: &Run) -> Result<String, crate::page::Error> {
        page::write(self, a, b)
    }
}
