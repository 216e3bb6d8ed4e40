//! Drawings for reports: inline SVG without script or outside assets, whose colours come from the page's style sheet.
//!
//! - [`svg`] writes elements, [`scale`] maps values to the paper and finds ticks, [`units`] writes values for people
//! - [`percentile`] draws distributions over a logarithmic axis of percentiles
//! - [`time`] is the frame of all charts over time, with phases, faults and stalls; [`heat`] and [`series`] fill it
//!
//! Own code rather than a chart library's: marks, classes for light and dark, and text that keeps its size are most of
//! what these charts are, and axes are the small rest.

pub(crate) mod heat;
pub(crate) mod percentile;
pub(crate) mod scale;
pub(crate) mod series;
pub(crate) mod svg;
pub(crate) mod time;
pub(crate) mod units;

use serde::Serialize;

/// A line of a chart's legend.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Key {
    /// The class of what is drawn.
    pub(crate) class: String,
    pub(crate) text: String,
}

impl Key {
    pub(crate) fn new(class: &str, text: impl Into<String>) -> Self {
        Self { class: class.to_owned(), text: text.into() }
    }
}

/// A chart with the words around it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) title: String,
    pub(crate) keys: Vec<Key>,
    pub(crate) note: String,
    pub(crate) svg: String,
}
