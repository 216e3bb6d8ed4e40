//! `report.html`: the run for people who were not there. One file, to be opened offline, mailed and printed.
//!
//! Its figures are those of [`Summary`], written shorter; the full ones are in the `value` of each `<data>`.

mod figures;

use minijinja::context;
use minijinja::value::{Serde, Value};

use super::summary::Summary;
use crate::chart::time::Timeline;
use crate::page;
use crate::record::{Operation, Outcome, UnreadableHistogram};

const PAGE: &str = include_str!("page.html");

/// Why there is no report.
#[derive(Debug)]
pub enum Error {
    Histogram(UnreadableHistogram),
    Page(page::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Histogram(error) => error.fmt(f),
            Self::Page(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {}

impl From<UnreadableHistogram> for Error {
    fn from(error: UnreadableHistogram) -> Self {
        Self::Histogram(error)
    }
}

/// The page.
///
/// - takes: a run and the summary of it
pub fn write(outcome: &Outcome, summary: &Summary) -> Result<String, Error> {
    let timeline = Timeline::of(summary);
    let ledger = &summary.ledger;
    let mut rows = vec![("sent", ledger.sent), ("acknowledged", ledger.acknowledged)];
    rows.extend(ledger.archived.map(|counts| ("archived", counts)));
    let unmeasured: Vec<String> =
        summary.phases.iter().filter(|it| !it.measured).map(|it| it.name.clone()).collect();
    let failed: u64 = summary.errors.values().sum();
    let longest_stall = summary.stalls.iter().map(|it| it.length_ms * 1000).max().unwrap_or(0);
    let context = context! {
        s => Value::from(Serde(summary)),
        main => main(summary).map(Operation::name),
        failed,
        longest_stall,
        ledger => Value::from(Serde(&rows)),
        unmeasured,
        latencies => Value::from(Serde(figures::latencies(outcome, summary, &timeline)?)),
        throughputs => Value::from(Serde(figures::throughputs(summary, &timeline))),
        errors => Value::from(Serde(figures::errors(summary, &timeline))),
        server => Value::from(Serde(figures::server(summary, &timeline))),
        own => Value::from(Serde(figures::own(summary, &timeline))),
    };
    page::render(PAGE, context).map_err(Error::Page)
}

/// The operation that the run is about: messages, or what was done most.
fn main(summary: &Summary) -> Option<Operation> {
    let done = summary.operations.iter().filter(|(_, it)| it.done > 0);
    let message = |operation: Operation| operation == Operation::Message;
    done.max_by_key(|(operation, it)| (message(**operation), it.done)).map(|(it, _)| *it)
}
