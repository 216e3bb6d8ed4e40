//! Rates and levels over time: lines, areas and stacks.

use super::scale::Scale;
use super::svg::Path;
use super::time::Timeline;
use super::units;

/// How a series is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Line,
    Area,
}

/// A value per column of the timeline, `None` where nothing is known.
pub(crate) struct Series<'a> {
    pub(crate) class: &'a str,
    pub(crate) name: &'a str,
    pub(crate) shape: Shape,
    pub(crate) values: Vec<Option<f64>>,
}

/// What an axis counts.
#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Count,
    Percent,
    Bytes,
    Microseconds,
}

impl Unit {
    fn scale(self, high: f64, from: f64, to: f64) -> Scale {
        match self {
            Self::Bytes => Scale::of_bytes(high, from, to),
            Self::Count | Self::Percent | Self::Microseconds => Scale::straight(high, from, to),
        }
    }

    fn write(self, value: f64) -> String {
        match self {
            Self::Count => units::count(value),
            Self::Percent => format!("{} %", units::digits(value)),
            Self::Bytes => units::bytes(value),
            Self::Microseconds => units::microseconds(value),
        }
    }
}

/// The series in one chart over a straight axis from zero; the last lies on top.
pub(crate) fn draw(
    timeline: &Timeline<'_>,
    label: &str,
    series: &[Series<'_>],
    unit: Unit,
) -> String {
    let mut chart = timeline.begin(label);
    let values = series.iter().flat_map(|series| series.values.iter().flatten());
    let high = values.copied().fold(0.0, f64::max);
    let up = unit.scale(high * 1.02, chart.bottom, chart.top);
    timeline.up(&mut chart, &up, |value| unit.write(value));
    for series in series {
        let mut line = Path::default();
        let mut area = Path::default();
        let mut before: Option<f64> = None;
        for (column, value) in series.values.iter().enumerate() {
            let (x, width) = timeline.place(column);
            let Some(value) = value else {
                before = None;
                continue;
            };
            // Steps: a value holds for its whole column.
            let y = up.at(*value);
            if before.is_some() {
                line.to(x, y)
            } else {
                line.go(x, y)
            }
            line.to(x + width, y);
            before = Some(y);
            area.cell(x, y, width, chart.bottom - y);
        }
        if series.shape == Shape::Area {
            chart.svg.path(&format!("area {}", series.class), &area);
        }
        chart.svg.path(&format!("line {}", series.class), &line);
    }
    for column in 0..timeline.columns() {
        let known: Vec<String> = series
            .iter()
            .filter_map(|series| {
                let value = series.values.get(column).copied().flatten()?;
                Some(format!("{} {}", series.name, unit.write(value)))
            })
            .collect();
        if !known.is_empty() {
            let (x, width) = timeline.place(column);
            let words = format!("{}: {}", timeline.name(column), known.join(", "));
            chart.svg.hint(x, chart.top, width, chart.bottom - chart.top, &words);
        }
    }
    timeline.end(chart)
}

/// The series on top of one another, as bars.
pub(crate) fn stack(
    timeline: &Timeline<'_>,
    label: &str,
    series: &[Series<'_>],
    unit: Unit,
) -> String {
    let mut chart = timeline.begin(label);
    let mut sums = vec![0.0; timeline.columns()];
    for series in series {
        for (sum, value) in sums.iter_mut().zip(&series.values) {
            *sum += value.unwrap_or(0.0);
        }
    }
    let up = unit.scale(sums.iter().copied().fold(0.0, f64::max), chart.bottom, chart.top);
    timeline.up(&mut chart, &up, |value| unit.write(value));
    let mut below = vec![0.0; timeline.columns()];
    for series in series {
        let mut path = Path::default();
        for (column, value) in series.values.iter().enumerate() {
            let value = value.unwrap_or(0.0);
            if value > 0.0 {
                let (x, width) = timeline.place(column);
                let (low, high) = (up.at(below[column]), up.at(below[column] + value));
                // A single failure is seen as well.
                path.cell(x, high.min(low - 1.5), width, (low - high).max(1.5));
                below[column] += value;
            }
        }
        chart.svg.path(&format!("bar {}", series.class), &path);
    }
    for column in (0..timeline.columns()).filter(|column| sums[*column] > 0.0) {
        let known: Vec<String> = series
            .iter()
            .filter_map(|series| {
                let value = series.values.get(column).copied().flatten()?;
                (value > 0.0).then(|| format!("{} {}", series.name, unit.write(value)))
            })
            .collect();
        let (x, width) = timeline.place(column);
        let words = format!("{}: {}", timeline.name(column), known.join(", "));
        chart.svg.hint(x, chart.top, width, chart.bottom - chart.top, &words);
    }
    timeline.end(chart)
}
