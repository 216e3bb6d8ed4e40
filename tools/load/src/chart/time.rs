//! The frame of charts over time: the axis, phases above, and what was done to the server or stood still.

use super::scale::Scale;
use super::svg::{Anchor, CHARACTER, Svg};
use super::units;
use crate::artefacts::stall::Stall;
use crate::artefacts::summary::{FaultSummary, PhaseSummary, Summary};

pub(crate) const WIDTH: f64 = 640.0;
pub(crate) const LEFT: f64 = 58.0;
pub(crate) const RIGHT: f64 = 626.0;
/// Height of the space for data.
const ROOM: f64 = 190.0;
const BELOW: f64 = 24.0;
/// Height of a line of marks.
const ROW: f64 = 15.0;
/// More columns than that are finer than the chart.
const COLUMNS_MAX: u64 = 142;

/// The time of a run, cut into columns of whole seconds.
pub(crate) struct Timeline<'a> {
    seconds: u64,
    /// Seconds per column.
    pub(crate) step: u64,
    phases: &'a [PhaseSummary],
    faults: &'a [FaultSummary],
    stalls: &'a [Stall],
}

/// A chart in the making: data comes between [`Timeline::begin`] and [`Timeline::end`].
pub(crate) struct Chart {
    pub(crate) svg: Svg,
    pub(crate) top: f64,
    pub(crate) bottom: f64,
}

impl<'a> Timeline<'a> {
    pub(crate) fn of(summary: &'a Summary) -> Self {
        let last = summary.timeline.last().map_or(0, |second| second.second + 1);
        let seconds = last.max(summary.length_s.ceil() as u64).max(1);
        // 1, 2, 5, 10, 20, 30 s, minutes …: columns whose borders people can name.
        let steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600];
        let fitting = steps.into_iter().find(|step| seconds.div_ceil(*step) <= COLUMNS_MAX);
        Self {
            seconds,
            step: fitting.unwrap_or(seconds.div_ceil(COLUMNS_MAX)),
            phases: &summary.phases,
            faults: &summary.faults,
            stalls: &summary.stalls,
        }
    }

    pub(crate) fn columns(&self) -> usize {
        self.seconds.div_ceil(self.step) as usize
    }

    pub(crate) fn column_of(&self, second: u64) -> usize {
        ((second / self.step) as usize).min(self.columns() - 1)
    }

    /// How many seconds a column has; the last may have fewer.
    pub(crate) fn seconds_in(&self, column: usize) -> u64 {
        let begin = column as u64 * self.step;
        self.step.min(self.seconds - begin).max(1)
    }

    fn across(&self) -> Scale {
        Scale::exact(self.seconds as f64, LEFT, RIGHT)
    }

    /// Left border and width of a column.
    pub(crate) fn place(&self, column: usize) -> (f64, f64) {
        let begin = column as u64 * self.step;
        let across = self.across();
        let left = across.at(begin as f64);
        (left, across.at((begin + self.seconds_in(column)) as f64) - left)
    }

    /// When a column begins, as the axis writes it.
    pub(crate) fn name(&self, column: usize) -> String {
        self.clock((column as u64 * self.step) as f64)
    }

    /// All moments of a run in one form: `42 s`, or `0:42` where it takes minutes.
    fn clock(&self, seconds: f64) -> String {
        let whole = seconds as u64;
        match self.seconds {
            all if all < 120 => units::clock(seconds),
            all if all < 3600 => format!("{}:{:02}", whole / 60, whole % 60),
            _ => format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60),
        }
    }

    pub(crate) fn begin(&self, label: &str) -> Chart {
        let rows = 1 + usize::from(!self.faults.is_empty()) + usize::from(!self.stalls.is_empty());
        let top = rows as f64 * ROW + 6.0;
        let bottom = top + ROOM;
        let mut svg = Svg::new(WIDTH, bottom + BELOW, label);
        let across = self.across();
        for phase in self.phases {
            let from = across.at(phase.begin_s);
            let to = across.at(phase.begin_s + phase.length_s);
            let class = if phase.measured { "phase" } else { "phase unmeasured" };
            svg.rect(class, from, 1.0, (to - from - 1.0).max(0.0), ROW - 2.0);
            if !phase.measured {
                svg.rect("aside", from, top, to - from, ROOM);
            }
            let room = ((to - from - 4.0) / CHARACTER).max(0.0) as usize;
            if let Some(name) = fitted(&phase.name, room) {
                svg.text("mark", (from + to) / 2.0, 11.0, Anchor::Middle, &name);
            }
            svg.hint(from, 1.0, (to - from).max(1.0), ROW - 2.0, &phase.name);
            svg.line("border", from, top, from, bottom);
        }
        for (seconds, text) in self.ticks() {
            let x = across.at(seconds);
            svg.line("axis", x, bottom, x, bottom + 4.0);
            let anchor = if x > RIGHT - 14.0 { Anchor::End } else { Anchor::Middle };
            svg.text("tick", x, bottom + 17.0, anchor, &text);
        }
        svg.line("axis", LEFT, bottom, RIGHT, bottom);
        Chart { svg, top, bottom }
    }

    /// Lines and values of the upward axis.
    pub(crate) fn up(&self, chart: &mut Chart, up: &Scale, write: impl Fn(f64) -> String) {
        for tick in up.ticks() {
            let y = up.at(tick);
            chart.svg.line("grid", LEFT, y, RIGHT, y);
            chart.svg.text("tick", LEFT - 6.0, y + 4.0, Anchor::End, &write(tick));
        }
    }

    /// Faults and stalls lie above the data.
    pub(crate) fn end(&self, mut chart: Chart) -> String {
        let across = self.across();
        let mut row = ROW;
        if !self.faults.is_empty() {
            let marks: Vec<(f64, String, String)> = (1..)
                .zip(self.faults)
                .map(|(number, fault)| {
                    (
                        across.at(fault.at_s),
                        format!("F{number}"),
                        format!("F{number} {}", fault.name),
                    )
                })
                .collect();
            for (x, _, long) in &marks {
                chart.svg.line("fault", *x, row + 3.0, *x, chart.bottom);
                chart.svg.hint(x - 3.0, row + 3.0, 6.0, chart.bottom - row - 3.0, long);
            }
            labels(&mut chart.svg, "mark fault-name", row + 10.0, &marks);
            row += ROW;
        }
        if !self.stalls.is_empty() {
            let mut marks = Vec::new();
            for stall in self.stalls {
                let (from, to) = (across.at(stall.from_s as f64), across.at(stall.to_s as f64));
                let wide = (to - from).max(2.0);
                chart.svg.rect("stall", from, row + 3.0, wide, chart.bottom - row - 3.0);
                let length = units::microseconds(stall.length_ms as f64 * 1e3);
                let long = format!("stall about {length}");
                chart.svg.hint(from, row + 3.0, wide, ROW, &long);
                marks.push((from, format!("≈ {length}"), long));
            }
            labels(&mut chart.svg, "mark stall-name", row + 10.0, &marks);
        }
        chart.svg.finish()
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let steps = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0];
        let wanted = self.seconds as f64 / 8.0;
        let hour = (wanted / 3600.0).ceil() * 3600.0;
        let step = steps.into_iter().find(|step| *step >= wanted).unwrap_or(hour);
        (0..)
            .map(|n| n as f64 * step)
            .take_while(|seconds| *seconds <= self.seconds as f64)
            .map(|seconds| (seconds, self.clock(seconds)))
            .collect()
    }
}

/// The name in so much room, cut if need be; nothing if too little of it is left.
fn fitted(name: &str, room: usize) -> Option<String> {
    if name.chars().count() <= room {
        return Some(name.to_owned());
    }
    let cut: String = name.chars().take(room.saturating_sub(1)).collect();
    (room >= 6).then(|| format!("{}…", cut.trim_end()))
}

/// Names beside their marks: the long one where it fits before the next mark (of the last mark also on its left), else
/// what fits of it or the short one, else none.
fn labels(svg: &mut Svg, class: &str, y: f64, marks: &[(f64, String, String)]) {
    // Names of marks are bold.
    let character = CHARACTER * 1.1;
    let wide = |text: &str| text.chars().count() as f64 * character + 6.0;
    let mut free = LEFT - 20.0;
    for (at, (x, short, long)) in marks.iter().enumerate() {
        let next = marks.get(at + 1).map_or(WIDTH, |(x, ..)| *x);
        let right = x.max(free);
        let room = ((next - right - 8.0) / character).max(0.0) as usize;
        if right + wide(long) > next && at + 1 == marks.len() && x - wide(long) >= free {
            svg.text(class, x - 3.0, y, Anchor::End, long);
        } else if let Some(name) = fitted(long, if room >= 10 { room } else { 0 }) {
            svg.text(class, right + 3.0, y, Anchor::Start, &name);
            free = right + wide(&name);
        } else if right + wide(short) <= next {
            svg.text(class, right + 3.0, y, Anchor::Start, short);
            free = right + wide(short);
        }
    }
}
