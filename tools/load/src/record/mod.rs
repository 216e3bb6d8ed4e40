//! What a run showed, in the form in which it is recorded, merged over workers, written and compared.
//!
//! A worker's [`Recorder`] counts operations second by second. Intervals of several workers merge without loss, because
//! an HdrHistogram is a list of counts; a percentile is computed from merged counts and never from percentiles.
//! [`Outcome`] is the whole run: artefacts, thresholds and comparisons read it and nothing else.

mod histogram;
mod interval;
mod outcome;
mod recorder;

pub use histogram::{Latency, PackedLatency, UnreadableHistogram};
pub use interval::{Interval, Operation, OwnLoad, ServerLoad, Tally};
pub use outcome::{
    Cost, Environment, Fault, LedgerCounts, LedgerReport, LoopMode, Outcome, Phase,
    ThresholdResult, Total, Verdict,
};
pub use recorder::Recorder;
