//! `corefire-load run`: progress while it runs, the result behind it.

use std::fmt::Write as _;

use super::{Complaint, Exit, RunArguments, targets};
use crate::artefacts;
use crate::drive::{Failure, Flow};
use crate::judge::show;
use crate::plan::Plan;
use crate::record::{Interval, LedgerCounts, LoopMode, Outcome};
use crate::run::{ServerWatch, run as drive};

pub(super) fn run(arguments: &RunArguments) -> Result<Exit, Complaint> {
    let targets = targets(&arguments.target, &arguments.domain)?;
    let request = arguments.plan.request(targets)?;
    let plan = arguments.plan.plan(&request)?;
    if let Some(folder) = &arguments.out {
        // Found out before the run and not behind it.
        std::fs::create_dir_all(folder)
            .map_err(|error| (Exit::Usage, format!("--out {}: {error}", folder.display())))?;
    }
    let server = arguments.server_pid.map(ServerWatch::new).transpose().map_err(|error| {
        (Exit::Usage, format!("--server-pid: {error}; give the process id of the running server"))
    })?;
    println!(
        "{}: {} users, {:.0} operations/s, {:.0} s{}",
        plan.scenario.name,
        plan.scenario.users(),
        plan.scenario.rate(),
        plan.length().as_secs_f64(),
        match plan.mode {
            LoopMode::Open => String::new(),
            LoopMode::Closed { window } => format!(", CLOSED loop, window {window}"),
        }
    );
    let mut progress = |interval: &Interval| {
        println!("{}", progress_line(&plan, interval));
        Flow::Continue
    };
    let outcome =
        drive(&plan, &request, server, &mut progress).map_err(|failure| match failure {
            Failure::Target(what) => (Exit::Target, what),
            Failure::Tool(error) => (Exit::Invalid, error.to_string()),
        })?;
    print!("{}", summary(&outcome));
    if let Some(folder) = &arguments.out {
        artefacts::write(&outcome, folder)
            .map_err(|error| (Exit::Usage, format!("--out {}: {error}", folder.display())))?;
        println!("{}", folder.join("report.html").display());
    }
    Ok(exit(&outcome))
}

/// What a run comes to: a run that cannot be believed has neither passed nor failed.
fn exit(outcome: &Outcome) -> Exit {
    if !outcome.verdict.invalid.is_empty() {
        Exit::Invalid
    } else if outcome.thresholds.iter().any(|threshold| !threshold.held) {
        Exit::Threshold
    } else {
        Exit::Pass
    }
}

/// One second in one line.
fn progress_line(plan: &Plan, interval: &Interval) -> String {
    let phase = plan.phases.get(interval.phase).map_or("drain", |phase| &phase.wish.name);
    let mut line =
        format!("{:>5} s {phase:<12} {:>6} online", interval.number + 1, interval.online);
    for (operation, tally) in &interval.tallies {
        let failed: u64 = tally.failed.values().sum();
        let response = tally.response.unpack().unwrap_or_default();
        // Writing to a String does not fail.
        let _ = write!(line, "  {} {}/s", operation.name(), tally.done);
        if !response.is_empty() {
            let _ = write!(
                line,
                " p50 {} p99 {}",
                show(response.quantile(0.5)),
                show(response.quantile(0.99))
            );
        }
        if failed > 0 {
            let _ = write!(line, " FAILED {failed}");
        }
    }
    if let Some(server) = interval.server {
        let _ = write!(
            line,
            "  server {:.0} % {:.1} MB",
            server.cpu.as_secs_f64() * 100.0,
            server.memory as f64 / 1e6
        );
    }
    line
}

/// The result for people.
fn summary(outcome: &Outcome) -> String {
    let mut lines = Vec::new();
    if let LoopMode::Closed { window } = outcome.mode {
        lines.push(format!(
            "CLOSED LOOP, window {window}: delays in which nothing could be sent are not in these figures"
        ));
    }
    lines.push(format!(
        "{:<18} {:>10} {:>8} {:>10} {:>10} {:>10} {:>10}   service p99.9",
        "measured", "done", "failed", "p50", "p99", "p99.9", "max"
    ));
    let totals = outcome.measured().unwrap_or_default();
    for (operation, total) in &totals {
        let at = |share| show(total.response.quantile(share));
        lines.push(format!(
            "{:<18} {:>10} {:>8} {:>10} {:>10} {:>10} {:>10}   {}",
            operation.name(),
            total.done,
            total.failed.values().sum::<u64>(),
            at(0.5),
            at(0.99),
            at(0.999),
            show(total.response.max()),
            show(total.service.quantile(0.999))
        ));
        for (condition, count) in &total.failed {
            lines.push(format!("  {count} × {condition}"));
        }
    }
    let mut ledger = |name: &str, counts: &LedgerCounts| {
        lines.push(format!(
            "ledger {name}: {} messages, lost {}, duplicated {}, redelivered {}, reordered {}, corrupted {}, bounced {}",
            counts.messages,
            counts.lost,
            counts.duplicated,
            counts.redelivered,
            counts.reordered,
            counts.corrupted,
            counts.bounced
        ));
    };
    if outcome.ledger.sent.messages > 0 {
        ledger("sent", &outcome.ledger.sent);
    }
    if outcome.ledger.acknowledged.messages > 0 {
        ledger("acknowledged", &outcome.ledger.acknowledged);
    }
    if let Some(archived) = &outcome.ledger.archived {
        ledger("archived", archived);
    }
    for fault in &outcome.faults {
        lines.push(format!(
            "fault at {:.1} s: {} ({}, took {})",
            fault.at.as_secs_f64(),
            fault.name,
            fault.result,
            show(fault.took)
        ));
    }
    for threshold in &outcome.thresholds {
        let word = if threshold.held { "held  " } else { "BROKEN" };
        lines.push(format!("{word} {}: {}", threshold.expression, threshold.measured));
    }
    if let Some(cause) = &outcome.verdict.aborted {
        lines.push(format!("ended before its time: {cause}"));
    }
    for cause in &outcome.verdict.invalid {
        lines.push(format!("INVALID: {cause}"));
    }
    if outcome.verdict.invalid.is_empty() {
        let held = outcome.thresholds.iter().all(|threshold| threshold.held);
        lines.push(if held { "PASS" } else { "FAIL: a threshold is broken" }.to_owned());
    }
    lines.join("\n") + "\n"
}
