//! `corefire-load run`: progress while it runs, the result behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::{Complaint, Exit, RunArguments, targets};
use crate::artefacts;
use crate::cost::{self, Costs};
use crate::drive::{Failure, Flow};
use crate::engine::DESCRIPTORS_SPARE;
use crate::judge::show;
use crate::live::{Live, Outline, Style, Update};
use crate::plan::Plan;
use crate::record::{Fault, Interval, LedgerCounts, LoopMode, Outcome};
use crate::run::{ServerWatch, Watch, run as drive};
use crate::{sys, workers};

pub(super) fn run(arguments: &RunArguments) -> Result<Exit, Complaint> {
    let targets = targets(&arguments.target, &arguments.domain)?;
    let request = arguments.plan.request(targets)?;
    let plan = arguments.plan.plan(&request)?;
    if let Some(folder) = &arguments.out {
        // Found out before the run and not behind it.
        std::fs::create_dir_all(folder)
            .map_err(|error| (Exit::Usage, format!("--out {}: {error}", folder.display())))?;
    }
    let pids = &arguments.server_pid;
    let server =
        (!pids.is_empty()).then(|| ServerWatch::of(pids)).transpose().map_err(|error| {
            (
                Exit::Usage,
                format!("--server-pid: {error}; give the process id of the running server"),
            )
        })?;
    if let Ok(limits) = sys::descriptor_limits()
        && let Some(told) = raised(&plan, u64::from(arguments.workers), limits)
    {
        eprintln!("corefire-load: {told}");
    }
    let style = if arguments.quiet { Style::Quiet } else { Style::fitting() };
    let workers = usize::from(arguments.workers);
    let stop = Arc::new(AtomicBool::new(false));
    end_in_order(&stop).map_err(|error| (Exit::Invalid, format!("signals: {error}")))?;
    let mut show = Show { live: live(&plan, workers, style, &stop)?, stop };
    let outcome = match workers {
        1 => drive(&plan, &request, server, &mut show),
        _ => {
            let program = std::env::current_exe()
                .map_err(|error| (Exit::Invalid, format!("the name of this program: {error}")))?;
            workers::run(&program, workers, &plan, &request, server, &mut show)
        }
    };
    // The terminal is as it was before anything is printed.
    drop(show);
    let mut outcome = outcome.map_err(|failure| match failure {
        Failure::Target(what) => (Exit::Target, what),
        Failure::Tool(error) => (Exit::Invalid, error.to_string()),
    })?;
    let costs = Costs::of(&outcome);
    outcome.cost = costs.record();
    print!("{}", summary(&outcome, (!pids.is_empty()).then_some(costs)));
    if let Some(folder) = &arguments.out {
        artefacts::write(&outcome, folder)
            .map_err(|error| (Exit::Usage, format!("--out {}: {error}", folder.display())))?;
        println!("{}", folder.join("report.html").display());
    }
    Ok(exit(&outcome))
}

/// Tells that the limit of open descriptors is raised, where the plan needs that; one connection takes one.
///
/// - takes: the limit as it is, and as far as it can be raised
fn raised(plan: &Plan, workers: u64, (soft, hard): (u64, u64)) -> Option<String> {
    let needed = plan.scenario.users().div_ceil(workers) + DESCRIPTORS_SPARE;
    if needed <= soft {
        return None;
    }
    let remedy = if needed > hard {
        "; not enough: raise it with `ulimit -Hn`, or share the users among more --workers"
    } else {
        ""
    };
    Some(format!(
        "{needed} open descriptors are needed in a process: limit raised from {soft} to {hard}{remedy}"
    ))
}

/// What a run comes to: a run that was not finished or cannot be believed has neither passed nor failed.
fn exit(outcome: &Outcome) -> Exit {
    if outcome.verdict.target_gone {
        Exit::Target
    } else if outcome.verdict.aborted.is_some() {
        Exit::Stopped
    } else if !outcome.verdict.invalid.is_empty() {
        Exit::Invalid
    } else if outcome.thresholds.iter().any(|threshold| !threshold.held) {
        Exit::Threshold
    } else {
        Exit::Pass
    }
}

/// A first SIGINT or SIGTERM asks for the end in order, a second one ends at once.
fn end_in_order(stop: &Arc<AtomicBool>) -> std::io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(stop))?;
        flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

fn live(
    plan: &Plan,
    workers: usize,
    style: Style,
    stop: &Arc<AtomicBool>,
) -> Result<Live, Complaint> {
    let targets: Vec<String> = plan.targets.iter().map(|it| it.address.to_string()).collect();
    let outline = Outline {
        name: plan.scenario.name.clone(),
        target: targets.join(", "),
        mode: plan.mode,
        users: plan.scenario.users(),
        workers,
        phases: plan.record_phases(),
    };
    Live::start(outline, style, Arc::clone(stop))
        .map_err(|error| (Exit::Invalid, format!("the terminal: {error}")))
}

/// Passes on what a run tells, and whether somebody wants its end.
struct Show {
    live: Live,
    stop: Arc<AtomicBool>,
}

impl Watch for Show {
    fn second(&mut self, interval: &Interval) -> Flow {
        if self.live.is_shown() {
            self.live.update(Update::Interval(Box::new(interval.clone())));
        }
        if self.stop.load(Ordering::Relaxed) { Flow::Stop } else { Flow::Continue }
    }

    fn fault(&mut self, fault: &Fault) {
        self.live.update(Update::Fault(fault.clone()));
    }

    fn invalid(&mut self, reason: &str) {
        self.live.update(Update::Invalid(reason.to_owned()));
    }
}

/// The result for people.
fn summary(outcome: &Outcome, costs: Option<Costs>) -> String {
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
    lines.extend(costs.iter().flat_map(Costs::lines));
    for (number, us) in (1..).zip(cost::per_message_of_each(outcome)) {
        let us = show(Duration::from_secs_f64(us / 1e6));
        lines.push(format!("server {number} alone: {us} of CPU per message"));
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
    if outcome.verdict.invalid.is_empty() && outcome.verdict.aborted.is_none() {
        let held = outcome.thresholds.iter().all(|threshold| threshold.held);
        lines.push(if held { "PASS" } else { "FAIL: a threshold is broken" }.to_owned());
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::plan::{Request, Target};

    #[test]
    fn a_raised_limit_of_descriptors_is_told_where_the_plan_needs_it() {
        let scenario =
            "[[phase]]\nkind = \"ramp\"\nlength = \"1s\"\n[[population]]\nusers = 18000\n";
        let plan = Plan::new(&Request::new(
            "many",
            scenario,
            vec![Target { address: ([127, 0, 0, 1], 5222).into(), domain: "localhost".to_owned() }],
        ))
        .unwrap();
        assert_eq!(raised(&plan, 1, (20_000, 20_000)), None);
        let told = raised(&plan, 1, (1024, 20_000)).unwrap();
        assert!(told.ends_with("limit raised from 1024 to 20000"), "{told}");
        assert!(told.starts_with("18064 open descriptors"), "{told}");
        let told = raised(&plan, 2, (1024, 4096)).unwrap();
        assert!(told.contains("9064") && told.contains("not enough"), "{told}");
    }
}
