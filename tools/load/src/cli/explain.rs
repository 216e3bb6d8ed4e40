//! `corefire-load explain`: the plan in words and numbers.

use std::time::Duration;

use super::{Complaint, Exit, PlanArguments};
use crate::plan::{Act, Plan, Target};
use crate::record::LoopMode;
use crate::scenario::PhaseKind;

pub(super) fn explain(arguments: &PlanArguments) -> Result<Exit, Complaint> {
    // Where the accounts live changes nothing about the schedule.
    let nowhere = Target { address: ([127, 0, 0, 1], 5222).into(), domain: "DOMAIN".to_owned() };
    let request = arguments.request(vec![nowhere])?;
    let plan = arguments.plan(&request)?;
    print!("{}", describe(&plan));
    Ok(Exit::Pass)
}

/// The plan as text.
fn describe(plan: &Plan) -> String {
    let scenario = &plan.scenario;
    let mut lines = vec![format!("scenario {}: {}", scenario.name, scenario.about)];
    lines.push(match plan.mode {
        LoopMode::Open => {
            "open loop: each operation has its moment, and its response counts from there".to_owned()
        }
        LoopMode::Closed { window } => format!(
            "CLOSED loop: {window} under way per pair or user; the server sets the pace, delays are hidden"
        ),
    });
    lines.push(format!(
        "{} users, {:.1} operations/s at load 1, seed {}, length {} and up to {} of drain",
        scenario.users(),
        scenario.rate(),
        scenario.seed,
        seconds(plan.length()),
        seconds(scenario.drain)
    ));
    lines.push("phases:".to_owned());
    for phase in &plan.phases {
        let wish = &phase.wish;
        let load = if wish.load.0 == wish.load.1 {
            format!("load {}", wish.load.0)
        } else {
            format!("load {} to {}", wish.load.0, wish.load.1)
        };
        let what = match wish.kind {
            PhaseKind::Ramp => {
                format!("{:.0} % of the users are online at its end", wish.users * 100.0)
            }
            PhaseKind::Hold => "as before".to_owned(),
            PhaseKind::Storm => format!(
                "{:.0} % of the connections are cut at its beginning, and come back within {}",
                wish.share * 100.0,
                seconds(wish.spread)
            ),
        };
        lines.push(format!(
            "  {:>8} + {:<8} {:<5} {:<16} {load}; {what}{}",
            seconds(phase.begin),
            seconds(wish.length),
            wish.kind.name(),
            wish.name,
            if wish.measured { "" } else { "; not measured" }
        ));
    }
    lines.push("populations:".to_owned());
    for (at, population) in scenario.populations.iter().enumerate() {
        lines.push(format!(
            "  {}: {} users, {} to {}",
            population.name,
            population.users,
            plan.account(at, 0),
            plan.account(at, population.users - 1)
        ));
        for (operation, rate) in population.rates() {
            lines.push(format!(
                "    {:<18} {rate:>10.1}/s, one per user each {}",
                operation.name(),
                if rate > 0.0 {
                    seconds(Duration::from_secs_f64(population.users as f64 / rate))
                } else {
                    "never".to_owned()
                }
            ));
        }
    }
    if let Some(component) = plan.component() {
        lines.push(format!(
            "component {}: connects to port {}, one connection; whom it writes to is driven by the first worker",
            component.address,
            component.connect.port()
        ));
    }
    for fault in &scenario.faults {
        lines.push(format!("fault at {}: {} ({})", seconds(fault.at), fault.name, fault.command));
    }
    for threshold in &scenario.thresholds {
        lines.push(format!("must hold: {}", threshold.expression));
    }
    lines.push(schedule(plan));
    lines.join("\n") + "\n"
}

fn schedule(plan: &Plan) -> String {
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for due in plan.schedule() {
        let name = match due.act {
            Act::Login => "logins",
            Act::Logout => "logouts",
            Act::Cut => "cuts",
            Act::Operation(operation) => operation.name(),
        };
        *counts.entry(name).or_default() += 1;
    }
    let summary = plan.summary();
    let parts: Vec<String> = counts.iter().map(|(name, count)| format!("{count} {name}")).collect();
    format!(
        "schedule: {} entries ({}), SHA-256 {}",
        summary.entries,
        parts.join(", "),
        summary.digest
    )
}

/// A length in the unit that reads best.
fn seconds(length: Duration) -> String {
    let seconds = length.as_secs_f64();
    let text = |value: f64, unit| {
        let digits = format!("{value:.1}");
        format!("{}{unit}", digits.strip_suffix(".0").unwrap_or(&digits))
    };
    match seconds {
        _ if seconds >= 7200.0 => text(seconds / 3600.0, "h"),
        _ if seconds >= 300.0 => text(seconds / 60.0, "m"),
        _ if seconds < 1.0 && seconds > 0.0 => text(seconds * 1e3, "ms"),
        _ => text(seconds, "s"),
    }
}
