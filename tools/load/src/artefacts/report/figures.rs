//! The charts of a report.

use std::collections::BTreeMap;

use crate::artefacts::summary::{Second, Summary};
use crate::chart::percentile::{self, Curve, Limit};
use crate::chart::series::{self, Series, Shape, Unit};
use crate::chart::time::Timeline;
use crate::chart::{Figure, Key, heat, units};
use crate::record::{Latency, Operation, Outcome, UnreadableHistogram};

/// More conditions than that share the last colour.
const CONDITIONS: usize = 6;

/// Two charts for each operation that was done: over percentiles, and over time.
pub(super) fn latencies(
    outcome: &Outcome,
    summary: &Summary,
    timeline: &Timeline<'_>,
) -> Result<Vec<Figure>, UnreadableHistogram> {
    let measured = outcome.measured()?;
    let mut figures = Vec::new();
    for operation in Operation::ALL {
        let columns = columns(outcome, timeline, operation)?;
        if columns.iter().all(Latency::is_empty) {
            continue;
        }
        let name = operation.name();
        if let Some(total) = measured.get(&operation).filter(|total| !total.response.is_empty()) {
            figures.push(percentiles(summary, name, &total.response, &total.service));
        } else {
            let none = Latency::default();
            figures.push(percentiles(summary, name, &none, &none));
        }
        let title = format!("{name}: response time over the run");
        let column = units::clock(timeline.step as f64);
        figures.push(Figure {
            svg: heat::draw(timeline, &title, &columns),
            title,
            keys: vec![
                Key::new("heat1", "few"),
                Key::new("heat3", ""),
                Key::new("heat6", "most operations"),
                Key::new("over p99", "p99"),
                Key::new("over p50", "p50"),
            ],
            note: format!("Colours are logarithmic; a column is {column}."),
        });
    }
    Ok(figures)
}

fn percentiles(summary: &Summary, name: &str, response: &Latency, service: &Latency) -> Figure {
    let title = format!("{name}: percentiles");
    let limits: Vec<Limit> = summary
        .thresholds
        .iter()
        .filter_map(|it| limit(&it.expression, name).map(|limit| Limit { held: it.held, ..limit }))
        .collect();
    let curves = [
        Curve { class: "response", latency: response },
        Curve { class: "service", latency: service },
    ];
    let mut keys = vec![
        Key::new("response", "response, from the plan"),
        Key::new("service", "service, from the send"),
    ];
    if let Some(limit) = limits.first() {
        let class = if limit.held { "limit" } else { "limit missed" };
        keys.push(Key::new(class, "threshold"));
    }
    let mut note = match response.count() {
        0 => "Not done in a measured phase.".to_owned(),
        count => format!("{} operations.", units::grouped(count)),
    };
    let faults = summary.faults.len();
    if faults > 0 {
        note.push_str(&format!(
            " Includes the time of {}.",
            if faults == 1 { "fault F1".to_owned() } else { format!("faults F1 to F{faults}") }
        ));
    }
    Figure { svg: percentile::draw(&title, &curves, &limits), title, keys, note }
}

/// What a threshold like `message.response p99.9 < 5ms` sets for that operation.
fn limit(expression: &str, operation: &str) -> Option<Limit> {
    let (left, value) = expression.split_once('<')?;
    let value = value.trim_start_matches('=').trim();
    let (figure, share) = left.trim().split_once(' ')?;
    if figure != format!("{operation}.response") {
        return None;
    }
    let share = match share.trim() {
        "max" => 1.0,
        share => share.strip_prefix('p')?.parse::<f64>().ok()? / 100.0,
    };
    let unit = value.find(|c: char| c.is_alphabetic() || c == 'µ')?;
    let per_unit = match value[unit..].trim() {
        "us" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    let us = value[..unit].trim().parse::<f64>().ok()? * per_unit;
    (0.0..=1.0).contains(&share).then_some(Limit { share, us, held: true })
}

/// Response times of each column.
fn columns(
    outcome: &Outcome,
    timeline: &Timeline<'_>,
    operation: Operation,
) -> Result<Vec<Latency>, UnreadableHistogram> {
    let mut columns = vec![Latency::default(); timeline.columns()];
    for interval in &outcome.intervals {
        if let Some(tally) = interval.tallies.get(&operation) {
            columns[timeline.column_of(interval.number)].merge(&tally.response.unpack()?);
        }
    }
    Ok(columns)
}

/// The sum of `value` over the seconds of each column; `None` where no second has one.
fn sums(
    summary: &Summary,
    timeline: &Timeline<'_>,
    value: impl Fn(&Second) -> Option<f64>,
) -> Vec<Option<f64>> {
    let mut sums = vec![None; timeline.columns()];
    for second in &summary.timeline {
        if let Some(value) = value(second) {
            *sums[timeline.column_of(second.second)].get_or_insert(0.0) += value;
        }
    }
    sums
}

/// The same by second.
fn rates(
    summary: &Summary,
    timeline: &Timeline<'_>,
    value: impl Fn(&Second) -> Option<f64>,
) -> Vec<Option<f64>> {
    let sums = sums(summary, timeline, value).into_iter().enumerate();
    sums.map(|(column, sum)| Some(sum? / timeline.seconds_in(column) as f64)).collect()
}

/// The highest `value` of each column.
fn highest(
    summary: &Summary,
    timeline: &Timeline<'_>,
    value: impl Fn(&Second) -> Option<f64>,
) -> Vec<Option<f64>> {
    let mut highest = vec![None; timeline.columns()];
    for second in &summary.timeline {
        if let Some(value) = value(second) {
            let high: &mut Option<f64> = &mut highest[timeline.column_of(second.second)];
            *high = Some(high.map_or(value, |high| high.max(value)));
        }
    }
    highest
}

pub(super) fn throughputs(summary: &Summary, timeline: &Timeline<'_>) -> Vec<Figure> {
    let mut figures = Vec::new();
    for operation in Operation::ALL {
        let of = |second: &Second| second.operations.get(&operation).cloned();
        let all = summary.timeline.iter().filter_map(of);
        let (planned, done, failed) = all.fold((0, 0, 0), |(planned, done, failed), it| {
            let failures: u64 = it.failed.values().sum();
            (planned + it.planned, done + it.done, failed + failures)
        });
        if planned + done + failed == 0 {
            continue;
        }
        let rate = |value: &dyn Fn(&Second) -> Option<u64>| {
            rates(summary, timeline, |second| Some(value(second).unwrap_or(0) as f64))
        };
        let mut drawn = vec![
            Series {
                class: "planned",
                name: "planned",
                shape: Shape::Line,
                values: rate(&|second| Some(of(second)?.planned)),
            },
            Series {
                class: "done",
                name: "done",
                shape: Shape::Area,
                values: rate(&|second| Some(of(second)?.done)),
            },
        ];
        // What was done hides what was planned wherever they agree; the plan lies on top.
        drawn.swap(0, 1);
        let mut keys = vec![Key::new("planned", "planned"), Key::new("done", "done")];
        if failed > 0 {
            keys.push(Key::new("failed", "failed"));
            drawn.push(Series {
                class: "failed",
                name: "failed",
                shape: Shape::Line,
                values: where_any(rate(&|second| Some(of(second)?.failed.values().sum()))),
            });
        }
        let title = format!("{}: operations per second", operation.name());
        let note = match operation {
            Operation::RoomMessage | Operation::Presence => {
                "Planned once, done once per recipient.".to_owned()
            }
            _ => String::new(),
        };
        let svg = series::draw(timeline, &title, &drawn, Unit::Count);
        figures.push(Figure { title, keys, note, svg });
    }
    figures
}

/// Without the columns that are zero, as are those beside them: a line along the axis looks like something.
fn where_any(values: Vec<Option<f64>>) -> Vec<Option<f64>> {
    let is_any = |column: usize| values.get(column).copied().flatten().is_some_and(|it| it > 0.0);
    let is_near = |column: usize| (column.saturating_sub(1)..=column + 1).any(is_any);
    (0..values.len()).map(|column| values[column].filter(|_| is_near(column))).collect()
}

pub(super) fn errors(summary: &Summary, timeline: &Timeline<'_>) -> Option<Figure> {
    let mut conditions: Vec<(&String, u64)> =
        summary.errors.iter().map(|(condition, count)| (condition, *count)).collect();
    conditions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    // The last colour is for all the rest.
    let mut groups = BTreeMap::<usize, Vec<&str>>::new();
    for (place, (condition, _)) in conditions.iter().enumerate() {
        groups.entry(place.min(CONDITIONS - 1)).or_default().push(condition);
    }
    if groups.is_empty() {
        return None;
    }
    let classes: Vec<String> = (1..=groups.len()).map(|number| format!("e{number}")).collect();
    let names: Vec<String> = groups
        .values()
        .map(|names| if names.len() > 1 { "others".to_owned() } else { names.join("") })
        .collect();
    let drawn: Vec<Series<'_>> = groups
        .iter()
        .map(|(place, group)| Series {
            class: &classes[*place],
            name: &names[*place],
            shape: Shape::Area,
            values: sums(summary, timeline, |second| {
                let failed = second.operations.values().flat_map(|it| &it.failed);
                let counted = failed.filter(|(condition, _)| group.contains(&condition.as_str()));
                Some(counted.map(|(_, count)| *count).sum::<u64>() as f64)
            }),
        })
        .collect();
    let title = "Failures of all operations, by condition".to_owned();
    Some(Figure {
        svg: series::stack(timeline, &title, &drawn, Unit::Count),
        title,
        keys: classes.iter().zip(&names).map(|(class, name)| Key::new(class, name)).collect(),
        note: format!("A column is {}.", units::clock(timeline.step as f64)),
    })
}

pub(super) fn server(summary: &Summary, timeline: &Timeline<'_>) -> Vec<Figure> {
    let cpu = rates(summary, timeline, |second| Some(second.server_cpu_s? * 100.0));
    let memory = highest(summary, timeline, |second| Some(second.server_memory_bytes? as f64));
    vec![
        level("Server: CPU, percent of one core", "CPU", cpu, timeline, Unit::Percent),
        level("Server: memory", "memory", memory, timeline, Unit::Bytes),
    ]
}

pub(super) fn own(summary: &Summary, timeline: &Timeline<'_>) -> Vec<Figure> {
    let lag = highest(summary, timeline, |second| Some(second.lag_p99_us as f64));
    let online = highest(summary, timeline, |second| Some(second.online as f64));
    vec![
        level("Tool: how late operations left, p99", "p99", lag, timeline, Unit::Microseconds),
        level("Sessions that were up", "sessions", online, timeline, Unit::Count),
    ]
}

/// One value over time.
fn level(
    title: &str,
    name: &str,
    values: Vec<Option<f64>>,
    timeline: &Timeline<'_>,
    unit: Unit,
) -> Figure {
    let drawn = [Series { class: "load", name, shape: Shape::Area, values }];
    Figure {
        svg: series::draw(timeline, title, &drawn, unit),
        title: title.to_owned(),
        keys: Vec::new(),
        note: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_of_a_percentile_is_drawn_where_it_lies() {
        let limit = |expression| limit(expression, "message").map(|it| (it.share, it.us));
        assert_eq!(limit("message.response p99.9 < 5ms"), Some((0.9990000000000001, 5000.0)));
        assert_eq!(limit("message.response p50 <= 300us"), Some((0.5, 300.0)));
        assert_eq!(limit("message.response p50<300 us"), Some((0.5, 300.0)));
        assert_eq!(limit("message.response max < 1.5s"), Some((1.0, 1_500_000.0)));
        assert_eq!(limit("login.response p99 < 1s"), None);
        assert_eq!(limit("lost == 0"), None);
    }
}
