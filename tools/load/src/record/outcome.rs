//! A whole run.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::histogram::{Latency, UnreadableHistogram};
use super::interval::{Interval, Operation, ServerLoad};

/// Whether operations leave by plan, or when the one before is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoopMode {
    /// Each operation has its intended moment, whatever the server does.
    Open,
    /// So many in flight per pair: hides the time in which nothing could be sent. Stamped on each artefact.
    Closed { window: u32 },
}

/// A stretch of the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    pub name: String,
    /// `ramp`, `hold` or `storm`.
    pub kind: String,
    /// From the start of the run.
    pub begin: Duration,
    pub length: Duration,
    /// Whether thresholds and the report's totals count it; a ramp or warm-up does not.
    pub measured: bool,
}

/// Something that was done to the server during the run, drawn into every chart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// From the start of the run.
    pub at: Duration,
    pub name: String,
    /// How long its command ran.
    pub took: Duration,
    /// What became of the command: `exit 0`, `signal 9` …
    pub result: String,
}

/// A threshold of the scenario and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThresholdResult {
    /// As the scenario wrote it: `message.response p99.9 < 5ms`.
    pub expression: String,
    /// What was measured, with its unit.
    pub measured: String,
    pub held: bool,
}

/// Messages of one kind of promise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerCounts {
    pub messages: u64,
    pub received: u64,
    /// Came back as an error: told, so not lost.
    pub bounced: u64,
    pub lost: u64,
    /// Arrived again on the same stream.
    pub duplicated: u64,
    /// Arrived again after the recipient's connection was lost: allowed, as the confirmation may have been.
    #[serde(default)]
    pub redelivered: u64,
    pub reordered: u64,
    pub corrupted: u64,
}

/// What was promised and what arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerReport {
    /// All that were written to a socket; without XEP-0198 a cut connection may lose them by right.
    pub sent: LedgerCounts,
    /// Those that an `<a h=''/>` covered.
    pub acknowledged: LedgerCounts,
    /// Those that the archive of the recipient shows, where the scenario asked it.
    pub archived: Option<LedgerCounts>,
}

/// What the server paid: no XMPP tool prints it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// CPU of the server's process per message that arrived, over the measured phases.
    pub cpu_us_per_message: Option<f64>,
    /// Over a phase of logins alone.
    pub cpu_us_per_login: Option<f64>,
    /// Anonymous memory at the end of the logins less that before, by session.
    pub bytes_per_session: Option<f64>,
}

/// Where and with what it ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    pub tool_version: String,
    /// Host and port.
    pub target: String,
    pub domain: String,
    /// What the server said of itself (XEP-0092), if it did.
    pub server: Option<String>,
    pub workers: usize,
    /// More lines: kernel, processor, cores, governor, limit of descriptors, command line.
    pub facts: BTreeMap<String, String>,
}

/// Whether the run may be believed, and whether it passed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Why the run is INVALID: the tool was the bottleneck. Empty: valid.
    pub invalid: Vec<String>,
    /// Why it ended before its time.
    pub aborted: Option<String>,
    /// It ended because the target was there no more; else by the operator's wish.
    #[serde(default)]
    pub target_gone: bool,
}

/// A run, complete.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Name of the scenario.
    pub name: String,
    /// The scenario's file as it was read, with the command line's changes below it as comments.
    pub scenario: String,
    pub seed: u64,
    pub mode: LoopMode,
    pub started: SystemTime,
    pub length: Duration,
    pub users: u64,
    /// CPU time and memory of the server's process before the first connection.
    #[serde(default)]
    pub server_before: Option<ServerLoad>,
    pub phases: Vec<Phase>,
    /// In order, without gaps.
    pub intervals: Vec<Interval>,
    pub faults: Vec<Fault>,
    pub ledger: LedgerReport,
    pub cost: Cost,
    pub thresholds: Vec<ThresholdResult>,
    pub environment: Environment,
    pub verdict: Verdict,
}

/// Sums over intervals.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Total {
    pub response: Latency,
    pub service: Latency,
    pub planned: u64,
    pub done: u64,
    pub failed: BTreeMap<String, u64>,
}

impl Outcome {
    /// Each operation over the intervals that `wanted` picks, in the order of [`Operation::ALL`].
    ///
    /// - errors: a histogram that cannot be read
    pub fn totals(
        &self,
        wanted: impl Fn(&Interval) -> bool,
    ) -> Result<BTreeMap<Operation, Total>, UnreadableHistogram> {
        let mut totals = BTreeMap::<Operation, Total>::new();
        for interval in self.intervals.iter().filter(|interval| wanted(interval)) {
            for (operation, tally) in &interval.tallies {
                let total = totals.entry(*operation).or_default();
                total.response.merge(&tally.response.unpack()?);
                total.service.merge(&tally.service.unpack()?);
                total.planned += tally.planned;
                total.done += tally.done;
                for (condition, count) in &tally.failed {
                    *total.failed.entry(condition.clone()).or_default() += count;
                }
            }
        }
        Ok(totals)
    }

    /// Each operation over all measured phases: what summaries and thresholds speak of.
    ///
    /// - errors: a histogram that cannot be read
    pub fn measured(&self) -> Result<BTreeMap<Operation, Total>, UnreadableHistogram> {
        self.totals(|interval| self.phases.get(interval.phase).is_some_and(|phase| phase.measured))
    }
}
