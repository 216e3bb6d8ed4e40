//! Interval logs, `.hlog`: HdrHistogram's log format 1.3, histograms in V2 encoding, deflated, in microseconds.
//!
//! A line holds one second of one operation, tagged `OPERATION.response` or `OPERATION.service`; seconds in which
//! nothing was done have no line. Times are seconds since the start of the run, which the header gives. Comments say
//! how the loop was closed or open, and where phases begin.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogIterator, IntervalLogWriterBuilder, LogEntry, Tag,
};
use hdrhistogram::serialization::{Deserializer, V2DeflateSerializer};

use crate::record::{Latency, LoopMode, Operation, Outcome, UnreadableHistogram};

const LEGEND: &str =
    "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n";
const SECOND: Duration = Duration::from_secs(1);
/// The column `Interval_Max` is for people: in milliseconds.
const US_PER_MAX: f64 = 1e3;

/// Which of the two times of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Time {
    Response,
    Service,
}

impl Time {
    pub const BOTH: [Self; 2] = [Self::Response, Self::Service];

    pub fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Service => "service",
        }
    }
}

/// The log's tag of an operation.
pub fn tag(operation: Operation, time: Time) -> String {
    format!("{}.{}", operation.name(), time.name())
}

fn operation_of(tag: &str) -> Option<(Operation, Time)> {
    let (operation, time) = tag.split_once('.')?;
    Some((
        Operation::ALL.into_iter().find(|it| it.name() == operation)?,
        Time::BOTH.into_iter().find(|it| it.name() == time)?,
    ))
}

/// The whole log as text.
///
/// - errors: a histogram of the run that cannot be read
pub fn write(outcome: &Outcome) -> Result<String, UnreadableHistogram> {
    let mut text = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mode = closed(outcome.mode).unwrap_or_else(|| "open loop".to_owned());
    let mut header = IntervalLogWriterBuilder::new();
    header
        .add_comment(&format!("[Logged with corefire-load {}]", outcome.environment.tool_version))
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!(
            "[Scenario: {}; {mode}; values in microseconds]",
            line(&outcome.name)
        ));
    for reason in &outcome.verdict.invalid {
        header.add_comment(&format!("[INVALID: {}]", line(reason)));
    }
    header
        .with_start_time(outcome.started)
        .with_base_time(outcome.started)
        .with_max_value_divisor(US_PER_MAX);
    // Writing to memory does not fail, and counts of a run are below the format's 2^63.
    let _ = header.begin_log_with(&mut text, &mut serializer);
    text.extend_from_slice(LEGEND.as_bytes());
    let mut rows = IntervalLogWriterBuilder::new();
    rows.with_max_value_divisor(US_PER_MAX);
    let mut body = Vec::new();
    {
        let Ok(mut log) = rows.begin_log_with(&mut body, &mut serializer) else {
            return Err(UnreadableHistogram);
        };
        let mut phase = None;
        for interval in &outcome.intervals {
            if phase != Some(interval.phase) {
                phase = Some(interval.phase);
                if let Some(begun) = outcome.phases.get(interval.phase) {
                    let measured = if begun.measured { "measured" } else { "not measured" };
                    let name = line(&begun.name);
                    let _ = log.write_comment(&format!(
                        "[Phase: {name} ({}, {measured}) from {}.000]",
                        line(&begun.kind),
                        interval.number
                    ));
                }
            }
            for (operation, tally) in &interval.tallies {
                for (time, packed) in
                    [(Time::Response, &tally.response), (Time::Service, &tally.service)]
                {
                    let latency = packed.unpack()?;
                    if latency.is_empty() {
                        continue;
                    }
                    let tag = tag(*operation, time);
                    log.write_histogram(
                        latency.counts(),
                        Duration::from_secs(interval.number),
                        SECOND,
                        Tag::new(&tag),
                    )
                    .map_err(|_| UnreadableHistogram)?;
                }
            }
        }
    }
    let mut text = String::from_utf8(text).map_err(|_| UnreadableHistogram)?;
    let body = String::from_utf8(body).map_err(|_| UnreadableHistogram)?;
    // The second writer says its divisor again; once is enough.
    text.push_str(body.split_once('\n').map_or("", |(_, rows)| rows));
    Ok(text)
}

/// What is stamped on artefacts of a closed loop.
pub(super) fn closed(mode: LoopMode) -> Option<String> {
    match mode {
        LoopMode::Open => None,
        LoopMode::Closed { window } => Some(format!(
            "CLOSED LOOP, window {window}: time in which nothing could be sent is hidden"
        )),
    }
}

/// A name or reason as part of one line.
pub(super) fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A log as [`write`] writes it: by second, what each tag counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// Seconds since the epoch.
    pub started: Duration,
    pub seconds: BTreeMap<u64, BTreeMap<(Operation, Time), Latency>>,
}

/// Why a log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// Not the log format, from that byte on.
    Format { offset: usize },
    /// A histogram in the line of that tag and second is damaged.
    Histogram { tag: String, second: u64 },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format { offset } => {
                write!(f, "not an HdrHistogram interval log from byte {offset} on")
            }
            Self::Histogram { tag, second } => {
                write!(f, "the histogram of {tag} in second {second} is damaged")
            }
        }
    }
}

impl std::error::Error for Unreadable {}

impl Log {
    /// Lines with tags that no operation has are passed over.
    ///
    /// - errors: it is no interval log, or a histogram is damaged
    pub fn read(text: &str) -> Result<Self, Unreadable> {
        let mut log = Self::default();
        let mut deserializer = Deserializer::new();
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            let line = match entry {
                Ok(LogEntry::Interval(line)) => line,
                Ok(LogEntry::StartTime(started)) => {
                    log.started = started;
                    continue;
                }
                Ok(LogEntry::BaseTime(_)) => continue,
                Err(hdrhistogram::serialization::interval_log::LogIteratorError::ParseError {
                    offset,
                }) => return Err(Unreadable::Format { offset }),
            };
            let tag = line.tag().map_or("", |tag| tag.as_str());
            let Some(key) = operation_of(tag) else { continue };
            let second = line.start_timestamp().as_secs();
            let damaged = || Unreadable::Histogram { tag: tag.to_owned(), second };
            let bytes = BASE64.decode(line.encoded_histogram()).map_err(|_| damaged())?;
            let counts: Histogram<u64> =
                deserializer.deserialize(&mut bytes.as_slice()).map_err(|_| damaged())?;
            let latency = log.seconds.entry(second).or_default().entry(key).or_default();
            latency.merge(&Latency::from_counts(counts).ok_or_else(damaged)?);
        }
        Ok(log)
    }

    /// One tag over the seconds that `wanted` picks.
    pub fn merged(&self, key: (Operation, Time), wanted: impl Fn(u64) -> bool) -> Latency {
        let mut sum = Latency::default();
        for (_, tags) in self.seconds.iter().filter(|(second, _)| wanted(**second)) {
            if let Some(latency) = tags.get(&key) {
                sum.merge(latency);
            }
        }
        sum
    }
}

/// Seconds and milliseconds since the epoch, as the log's header gives the start.
pub fn epoch_seconds(outcome: &Outcome) -> f64 {
    let since = outcome.started.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1e3).round() / 1e3
}
