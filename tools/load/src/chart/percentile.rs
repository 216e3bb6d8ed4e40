//! Distributions over percentiles, whose distance to 100 % is logarithmic: the tail has the room that the mean hides.

use super::scale::Scale;
use super::svg::{Anchor, Path, Svg};
use super::units;
use crate::artefacts::hgrm;
use crate::record::Latency;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 290.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 626.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 252.0;
/// Percentiles that get a line, with how they are written.
const TICKS: [(f64, &str); 8] = [
    (0.0, "0 %"),
    (0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
    (0.99999, "99.999 %"),
    (0.999999, "99.9999 %"),
];

/// A distribution in the class of its line.
pub(crate) struct Curve<'a> {
    pub(crate) class: &'a str,
    pub(crate) latency: &'a Latency,
}

/// A limit that the scenario sets: at most `us` at the percentile `share`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Limit {
    pub(crate) share: f64,
    pub(crate) us: f64,
    pub(crate) held: bool,
}

/// The curves in one drawing; the last lies on top.
pub(crate) fn draw(label: &str, curves: &[Curve<'_>], limits: &[Limit]) -> String {
    let mut svg = Svg::new(WIDTH, HEIGHT, label);
    let counted = curves.iter().map(|curve| curve.latency.count()).max().unwrap_or(0);
    // As far as there are values to tell the percentile apart.
    let decades = (counted.max(1) as f64).log10().clamp(2.0, 6.0);
    let across = Scale::exact(decades, LEFT, RIGHT);
    let at = |share: f64| across.at(if share < 1.0 { -(1.0 - share).log10() } else { decades });
    let filled = || curves.iter().filter(|curve| !curve.latency.is_empty());
    let lows = filled().map(|curve| curve.latency.counts().min() as f64);
    let highs = filled().map(|curve| curve.latency.counts().max() as f64);
    let low = lows.fold(f64::INFINITY, f64::min);
    let high = highs.fold(0.0, f64::max);
    let up = Scale::logarithmic(if low.is_finite() { low } else { 1.0 }, high, BOTTOM, TOP);
    for tick in up.ticks() {
        let y = up.at(tick);
        svg.line("grid", LEFT, y, RIGHT, y);
        svg.text("tick", LEFT - 6.0, y + 4.0, Anchor::End, &units::microseconds(tick));
    }
    for (share, text) in TICKS {
        if -(1.0 - share).log10() > decades + 1e-9 {
            continue;
        }
        let x = at(share);
        svg.line("grid", x, TOP, x, BOTTOM);
        let (x, anchor) = if x > RIGHT - 20.0 { (RIGHT, Anchor::End) } else { (x, Anchor::Middle) };
        svg.text("tick", x, BOTTOM + 16.0, anchor, text);
    }
    svg.line("axis", LEFT, BOTTOM, RIGHT, BOTTOM);
    svg.text(
        "tick",
        (LEFT + RIGHT) / 2.0,
        BOTTOM + 33.0,
        Anchor::Middle,
        "percentile of operations",
    );
    for curve in curves {
        let mut path = Path::default();
        let steps = hgrm::steps(curve.latency);
        for step in &steps {
            path.on(at(step.share), up.at(step.value_us as f64));
        }
        svg.path(&format!("curve {}", curve.class), &path);
        if let Some(last) = steps.last() {
            svg.circle(&format!("dot {}", curve.class), RIGHT, up.at(last.value_us as f64), 3.0);
        }
        for step in &steps {
            let words = format!(
                "{:.4} %: {}",
                step.share * 100.0,
                units::microseconds(step.value_us as f64)
            );
            svg.hint(at(step.share) - 3.0, up.at(step.value_us as f64) - 5.0, 6.0, 10.0, &words);
        }
    }
    for limit in limits {
        let class = if limit.held { "limit" } else { "limit missed" };
        if limit.us >= up.low() && limit.us <= up.high() {
            let (x, y) = (at(limit.share), up.at(limit.us));
            svg.line(class, (x - 24.0).max(LEFT), y, (x + 24.0).min(RIGHT), y);
            svg.line(class, x, y - 6.0, x, y + 6.0);
        }
    }
    svg.finish()
}
