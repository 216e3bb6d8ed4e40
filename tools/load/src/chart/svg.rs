//! Elements of a drawing.

use std::fmt::Write as _;

/// Where a text stands at its point.
#[derive(Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// About so wide is a character of a chart's text, whose size is 11.
pub(crate) const CHARACTER: f64 = 6.1;

/// A drawing; sizes are in its own units, which are pixels where the page has the room.
pub(crate) struct Svg {
    text: String,
}

impl Svg {
    /// `label` tells those who do not see it what it shows.
    pub(crate) fn new(width: f64, height: f64, label: &str) -> Self {
        let label = escaped(label);
        Self {
            text: format!(
                "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\" \
                 preserveAspectRatio=\"xMidYMid meet\">"
            ),
        }
    }

    pub(crate) fn line(&mut self, class: &str, x1: f64, y1: f64, x2: f64, y2: f64) {
        let _ = write!(self.text, "<path class=\"{class}\" d=\"M{} {}", short(x1), short(y1));
        let _ = write!(self.text, "L{} {}\"/>", short(x2), short(y2));
    }

    pub(crate) fn rect(&mut self, class: &str, x: f64, y: f64, width: f64, height: f64) {
        let (x, y, width, height) = (short(x), short(y), short(width), short(height));
        let _ = write!(
            self.text,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"
        );
    }

    pub(crate) fn circle(&mut self, class: &str, x: f64, y: f64, radius: f64) {
        let (x, y) = (short(x), short(y));
        let _ =
            write!(self.text, "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"/>");
    }

    /// A place without colour that says `words` when it is pointed at.
    pub(crate) fn hint(&mut self, x: f64, y: f64, width: f64, height: f64, words: &str) {
        let (x, y, width, height) = (short(x), short(y), short(width), short(height));
        let words = escaped(words);
        let _ = write!(
            self.text,
            "<rect class=\"hint\" x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\">\
             <title>{words}</title></rect>"
        );
    }

    pub(crate) fn path(&mut self, class: &str, path: &Path) {
        if !path.0.is_empty() {
            let _ = write!(self.text, "<path class=\"{class}\" d=\"{}\"/>", path.0);
        }
    }

    pub(crate) fn text(&mut self, class: &str, x: f64, y: f64, anchor: Anchor, words: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let (x, y, words) = (short(x), short(y), escaped(words));
        let _ = write!(
            self.text,
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{words}</text>"
        );
    }

    pub(crate) fn finish(mut self) -> String {
        self.text.push_str("</svg>");
        self.text
    }
}

/// A line through points, or areas.
#[derive(Default)]
pub(crate) struct Path(String);

impl Path {
    /// Begins a new line.
    pub(crate) fn go(&mut self, x: f64, y: f64) {
        let _ = write!(self.0, "M{} {}", short(x), short(y));
    }

    pub(crate) fn to(&mut self, x: f64, y: f64) {
        let _ = write!(self.0, "L{} {}", short(x), short(y));
    }

    /// To the next point, or a new line at it if there is none before.
    pub(crate) fn on(&mut self, x: f64, y: f64) {
        if self.0.is_empty() { self.go(x, y) } else { self.to(x, y) }
    }

    /// Reaches a little over its right border: neighbours of one path then leave no seam, and none is darker for it.
    pub(crate) fn cell(&mut self, x: f64, y: f64, width: f64, height: f64) {
        let (right, down) = (short(width + 0.6), short(height));
        let _ = write!(self.0, "M{} {}h{right}v{down}h-{right}z", short(x), short(y));
    }
}

/// Tenths are finer than a screen.
fn short(value: f64) -> String {
    let value = (value * 10.0).round() / 10.0;
    // No "-0".
    format!("{}", value + 0.0)
}

/// Text as content of an element or value of an attribute.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}
