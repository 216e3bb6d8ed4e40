//! The comparison as a page.

use std::collections::BTreeMap;

use minijinja::context;
use minijinja::value::{Serde, Value};

use super::{Comparison, Run};
use crate::artefacts::hlog::Time;
use crate::chart::percentile::{self, Curve};
use crate::chart::{Figure, Key, units};
use crate::page;

const PAGE: &str = include_str!("page.html");

pub(super) fn write(comparison: &Comparison, a: &Run, b: &Run) -> Result<String, page::Error> {
    let mut figures = Vec::new();
    let common = a.summary.operations.keys().filter(|it| b.summary.operations.contains_key(it));
    for operation in common {
        for time in Time::BOTH {
            let (of_a, of_b) = (a.merged(*operation, time), b.merged(*operation, time));
            if of_a.is_empty() && of_b.is_empty() {
                continue;
            }
            let title = format!("{}: {} time", operation.name(), time.name());
            let curves =
                [Curve { class: "base", latency: &of_a }, Curve { class: "other", latency: &of_b }];
            figures.push(Figure {
                svg: percentile::draw(&title, &curves, &[]),
                title,
                keys: vec![Key::new("base", "A"), Key::new("other", "B")],
                note: format!(
                    "{} operations of A, {} of B.",
                    units::grouped(of_a.count()),
                    units::grouped(of_b.count())
                ),
            });
        }
    }
    let rows: Vec<Value> = comparison
        .rows
        .iter()
        .map(|row| {
            context! {
                row => Value::from(Serde(row)),
                interval => row.interval_text(),
                ratio => row.ratio.map(|ratio| format!("{ratio:.3}")),
            }
        })
        .collect();
    let name = |run: &Run| run.folder.display().to_string();
    let context = context! {
        name => a.summary.name.clone(),
        verdict => comparison.verdict.name(),
        words => comparison.words(),
        confidence => comparison.confidence,
        tolerance => comparison.tolerance,
        seconds => vec![a.measured.len(), b.measured.len()],
        rows,
        figures => Value::from(Serde(figures)),
        names => vec![name(a), name(b)],
        runs => Value::from(Serde(facts(a, b))),
        version => a.summary.environment.tool_version.clone(),
    };
    page::render(PAGE, context)
}

/// What both runs say of where and with what they ran, line by line, and whether they differ in it.
fn facts(a: &Run, b: &Run) -> Vec<(String, String, String)> {
    let of = |run: &Run| -> BTreeMap<String, String> {
        let environment = &run.summary.environment;
        let mut facts = environment.facts.clone();
        let lines = [
            ("started", run.summary.started.clone()),
            ("target", environment.target.clone()),
            ("server", environment.server.clone().unwrap_or_default()),
            ("tool", format!("corefire-load {}", environment.tool_version)),
            ("seed", run.summary.seed.to_string()),
            ("workers", environment.workers.to_string()),
        ];
        facts.extend(lines.map(|(name, value)| (name.to_owned(), value)));
        facts
    };
    let (of_a, of_b) = (of(a), of(b));
    let mut names: Vec<&String> = of_a.keys().chain(of_b.keys()).collect();
    names.sort();
    names.dedup();
    let value =
        |facts: &BTreeMap<String, String>, name| facts.get(name).cloned().unwrap_or_default();
    names.iter().map(|name| ((*name).clone(), value(&of_a, *name), value(&of_b, *name))).collect()
}
