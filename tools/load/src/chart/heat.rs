//! Latency over time: how many operations took how long in each column, darker where there are more.

use super::scale::Scale;
use super::svg::Path;
use super::time::{Chart, Timeline};
use super::units;
use crate::record::Latency;

/// Rows per power of ten.
const ROWS: f64 = 10.0;
/// Classes of colour: `heat1` (one or few) to `heat6` (most).
pub(crate) const LEVELS: usize = 6;

/// - takes: a histogram per column of the timeline
pub(crate) fn draw(timeline: &Timeline<'_>, label: &str, columns: &[Latency]) -> String {
    let mut chart = timeline.begin(label);
    let filled = || columns.iter().filter(|latency| !latency.is_empty());
    let low = filled().map(|latency| latency.counts().min()).min().unwrap_or(1).max(1) as f64;
    let high = filled().map(|latency| latency.counts().max()).max().unwrap_or(1) as f64;
    let up = Scale::logarithmic(low, high, chart.bottom, chart.top);
    timeline.up(&mut chart, &up, units::microseconds);
    let first = (up.low().log10() * ROWS).floor() as usize;
    let rows = (up.high().log10() * ROWS).ceil() as usize - first;
    let cells: Vec<Vec<u64>> =
        columns.iter().map(|latency| counted(latency, first, rows)).collect();
    let most = cells.iter().flatten().copied().max().unwrap_or(1).max(1);
    let mut levels: [Path; LEVELS] = Default::default();
    for (column, cells) in cells.iter().enumerate() {
        let (x, width) = timeline.place(column);
        let mut row = 0;
        while row < cells.len() {
            let Some(level) = level(cells[row], most) else {
                row += 1;
                continue;
            };
            let begin = row;
            while row < cells.len() && self::level(cells[row], most) == Some(level) {
                row += 1;
            }
            let y = |row: usize| up.at(10f64.powf((first + row) as f64 / ROWS));
            levels[level].cell(x, y(row), width, y(begin) - y(row));
        }
    }
    for (level, path) in levels.iter().enumerate() {
        chart.svg.path(&format!("heat heat{}", level + 1), path);
    }
    line(timeline, &mut chart, &up, "over p99", columns, 0.99);
    line(timeline, &mut chart, &up, "over p50", columns, 0.5);
    for (column, latency) in columns.iter().enumerate().filter(|(_, latency)| !latency.is_empty()) {
        let (x, width) = timeline.place(column);
        let at = |share| units::microseconds(latency.counts().value_at_quantile(share) as f64);
        let words = format!(
            "{}: {} done, p50 {}, p99 {}, max {}",
            timeline.name(column),
            units::grouped(latency.count()),
            at(0.5),
            at(0.99),
            at(1.0)
        );
        chart.svg.hint(x, chart.top, width, chart.bottom - chart.top, &words);
    }
    timeline.end(chart)
}

/// How many values lie in each row.
fn counted(latency: &Latency, first: usize, rows: usize) -> Vec<u64> {
    let mut cells = vec![0; rows];
    for value in latency.counts().iter_recorded() {
        let us = value.value_iterated_to().max(1) as f64;
        let row = (us.log10() * ROWS).floor() as usize;
        let row = row.saturating_sub(first).min(rows - 1);
        cells[row] += value.count_at_value();
    }
    cells
}

/// Colours are logarithmic: one operation is seen beside thousands.
fn level(count: u64, most: u64) -> Option<usize> {
    if count == 0 {
        return None;
    }
    let share = (count as f64).ln() / (most.max(2) as f64).ln();
    Some(((share * LEVELS as f64) as usize).min(LEVELS - 1))
}

fn line(
    timeline: &Timeline<'_>,
    chart: &mut Chart,
    up: &Scale,
    class: &str,
    columns: &[Latency],
    share: f64,
) {
    let mut path = Path::default();
    let mut is_begun = false;
    for (column, latency) in columns.iter().enumerate() {
        if latency.is_empty() {
            is_begun = false;
            continue;
        }
        let (x, width) = timeline.place(column);
        let y = up.at(latency.counts().value_at_quantile(share) as f64);
        if is_begun {
            path.to(x + width / 2.0, y)
        } else {
            path.go(x + width / 2.0, y)
        }
        is_begun = true;
    }
    chart.svg.path(class, &path);
}
