//! What shards, cores and the storage threads have measured, merged: how long stanzas, logins, turns and commits take.
//! Values in, JSON and tables out; who collects them is `node`'s affair.
//!
//! `/api/v1/latency` is one object, whose names stay as long as its `version`:
//!
//! ```json
//! {"version": 1, "time": "2026-01-01T12:00:00.000Z", "uptime_s": 3600, "recent_s": 10, "enabled": true, "uncounted": 0,
//!  "series": [
//!   {"group": "stanza", "kind": "message", "path": "same_shard", "stage": "total", "unit": "ns",
//!    "total":  {"count": 9, "min": 41000, "mean": 52000.0, "p50": 50431, "p90": 61000, "p99": 90000, "p999": 91000,
//!               "max": 91135, "curve": [[0.0, 41000], [50.0, 50431], [100.0, 91135]]},
//!    "recent": {"count": 2, "...": "as above, of the last recent_s seconds"}}],
//!  "shards": [
//!   {"shard": 0, "busy_ratio": 0.01, "turns": 812, "stalls": 0, "late": 0,
//!    "last_stall": {"at": "2026-01-01T11:00:00.000Z", "took_ns": 12000000, "did": "read 3, effects 1", "longest": "read",
//!                   "longest_ns": 11000000}}]}
//! ```
//!
//! Groups: `stanza` (`kind`, `path`, `stage`), `federation` (`path`, always `s2s`, and `stage`), `federation_turn` (`core`), `login` (`mechanism`, `end`), `run_queue`, `turn`, `stall` and `late` (each
//! with `shard`), `store_commit`, and `store_batch`, whose unit is `writes`. A series is there once it has counted; its
//! values are nanoseconds with two significant digits. `"estimate": true` stands where the clocks of two nodes are in it. `curve` has pairs of percentile and value. `last_stall` is null
//! before the first. `total` and `last_stall` are since the start.

use crate::base::histogram::{Counts, Part, Sum};
use crate::base::instant::Wall;
use crate::federation::{self, Stage as S2sStage};
use crate::shard::{Latencies, LoginEnd, Path, Stage};
use crate::xmpp::datetime;
use crate::xmpp::stanza::StanzaKind;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Of the JSON.
pub const VERSION: u32 = 1;
/// What counts as recent.
pub const RECENT: usize = 10;

/// What a turn is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TurnPart {
    /// Bytes of a client or component, TLS included.
    #[default]
    Read,
    Frames,
    /// From side threads: the store, operators.
    Letters,
    Timers,
    /// What inputs wanted: writing to sockets, rings and the store.
    Effects,
}

impl TurnPart {
    pub const ALL: [TurnPart; 5] =
        [TurnPart::Read, TurnPart::Frames, TurnPart::Letters, TurnPart::Timers, TurnPart::Effects];

    pub fn name(self) -> &'static str {
        match self {
            TurnPart::Read => "read",
            TurnPart::Frames => "frames",
            TurnPart::Letters => "letters",
            TurnPart::Timers => "timers",
            TurnPart::Effects => "effects",
        }
    }
}

/// A turn that held up its core.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastStall {
    pub at: Wall,
    pub took: Duration,
    /// Its parts and how many there were of each.
    pub did: String,
    /// The part that took longest, and how long one of it took.
    pub longest: TurnPart,
    pub longest_took: Duration,
}

/// What a core measures beside its shard.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CoreLatency {
    /// How long what is ready waits to run: from a turn's first input until its effects are carried out.
    pub run_queue: Counts,
    pub turns: Counts,
    /// The turns that held up the core.
    pub stalls: Counts,
    /// How late the core came to its timers, where that was late.
    pub late: Counts,
    pub busy_ns: u64,
    pub last_stall: Option<LastStall>,
}

impl CoreLatency {
    pub fn clear(&mut self) {
        for counts in [&mut self.run_queue, &mut self.turns, &mut self.stalls, &mut self.late] {
            counts.clear();
        }
        self.busy_ns = 0;
        self.last_stall = None;
    }
}

/// One core's part of an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CorePart {
    pub shard: u16,
    pub stanzas: Box<Latencies>,
    pub core: Box<CoreLatency>,
}

impl CorePart {
    /// Empty, in the same memory.
    pub fn clear(&mut self) {
        self.stanzas.clear();
        self.core.clear();
    }
}

/// One federation core's part of an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FederationPart {
    /// Among the federation cores.
    pub core: u16,
    pub stages: Box<federation::Latencies>,
    pub turns: Box<CoreLatency>,
}

impl FederationPart {
    /// Empty, in the same memory.
    pub fn clear(&mut self) {
        self.stages.clear();
        self.turns.clear();
    }
}

/// The storage threads' part of an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorePart {
    pub commits: Counts,
    /// Writes of one commit.
    pub batches: Counts,
}

/// What a histogram is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Series {
    Stanza(StanzaName, Path, Stage),
    /// By the name of the mechanism.
    Login(&'static str, LoginEnd),
    RunQueue(u16),
    Turn(u16),
    Stall(u16),
    Late(u16),
    /// Of the way to another server.
    S2s(S2sStage),
    /// Of a federation core.
    FederationTurn(u16),
    StoreCommit,
    StoreBatch,
}

/// The name of a kind of stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StanzaName(pub &'static str);

impl From<StanzaKind> for StanzaName {
    fn from(kind: StanzaKind) -> StanzaName {
        StanzaName(match kind {
            StanzaKind::Message => "message",
            StanzaKind::Presence => "presence",
            StanzaKind::Iq => "iq",
        })
    }
}

impl Series {
    pub fn is_time(self) -> bool {
        self != Series::StoreBatch
    }

    /// Without a blank or comma, as tags of a log must be: `message/core/total`, `login/PLAIN/bound`, `turn/0`.
    pub fn tag(self) -> String {
        match self {
            Series::Stanza(kind, path, stage) => {
                format!("{}/{}/{}", kind.0, path.name(), stage.name())
            }
            Series::Login(mechanism, end) => format!("login/{mechanism}/{}", end.name()),
            Series::RunQueue(shard) => format!("run_queue/{shard}"),
            Series::Turn(shard) => format!("turn/{shard}"),
            Series::Stall(shard) => format!("stall/{shard}"),
            Series::Late(shard) => format!("late/{shard}"),
            Series::S2s(stage) => format!("s2s/{}", stage.name()),
            Series::FederationTurn(core) => format!("federation_turn/{core}"),
            Series::StoreCommit => "store_commit".into(),
            Series::StoreBatch => "store_batch".into(),
        }
    }
}

/// Histograms of one span of time.
pub type Sums = BTreeMap<Series, Sum>;

/// One core, as it has done since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CoreFacts {
    pub busy: Duration,
    pub last_stall: Option<LastStall>,
}

/// All that was merged. Lives on the thread that merges, and is read by those who ask.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// Since the start.
    pub total: Sums,
    /// Of the last `RECENT` intervals; series without counts stay.
    recent: Sums,
    slices: VecDeque<Slice>,
    /// Since this was last taken, for the log.
    pub unlogged: Sums,
    pub cores: BTreeMap<u16, CoreFacts>,
    pub uncounted: u64,
}

/// What one interval added to what is recent.
#[derive(Clone, Debug, Default)]
struct Slice {
    took: Duration,
    parts: Vec<(Series, Part)>,
    busy: Vec<(u16, Duration)>,
}

impl Board {
    /// Adds an interval of the length `took`, in which those cores and the store that answered have measured this.
    pub fn add(
        &mut self,
        took: Duration,
        cores: &[CorePart],
        federation: &[FederationPart],
        store: &StorePart,
    ) {
        let mut slice = Slice { took, ..Slice::default() };
        for part in cores {
            let facts = self.cores.entry(part.shard).or_default();
            let busy = Duration::from_nanos(part.core.busy_ns);
            facts.busy += busy;
            if part.core.last_stall.is_some() {
                facts.last_stall.clone_from(&part.core.last_stall);
            }
            slice.busy.push((part.shard, busy));
            self.uncounted += part.stanzas.uncounted;
            for (kind, path, stage, counts) in part.stanzas.stanzas() {
                self.count(&mut slice, Series::Stanza(kind.into(), path, stage), counts);
            }
            for (mechanism, end, counts) in part.stanzas.logins() {
                self.count(&mut slice, Series::Login(mechanism, end), counts);
            }
            let CoreLatency { run_queue, turns, stalls, late, .. } = &*part.core;
            self.count(&mut slice, Series::RunQueue(part.shard), run_queue);
            self.count(&mut slice, Series::Turn(part.shard), turns);
            self.count(&mut slice, Series::Stall(part.shard), stalls);
            self.count(&mut slice, Series::Late(part.shard), late);
        }
        for part in federation {
            for (stage, counts) in part.stages.stages() {
                self.count(&mut slice, Series::S2s(stage), counts);
            }
            self.count(&mut slice, Series::FederationTurn(part.core), &part.turns.turns);
        }
        self.count(&mut slice, Series::StoreCommit, &store.commits);
        self.count(&mut slice, Series::StoreBatch, &store.batches);
        self.slices.push_back(slice);
        while self.slices.len() > RECENT {
            self.forget_oldest();
        }
    }

    fn count(&mut self, slice: &mut Slice, series: Series, counts: &Counts) {
        let Some(like) = counts.histogram() else { return };
        let part = counts.part();
        for sums in [&mut self.total, &mut self.recent, &mut self.unlogged] {
            sums.entry(series).or_insert_with(|| Sum::like(like)).add(&part);
        }
        slice.parts.push((series, part));
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.slices.pop_front() else { return };
        for (series, part) in &oldest.parts {
            if let Some(sum) = self.recent.get_mut(series) {
                sum.subtract(part);
            }
        }
    }

    /// What was measured since the last time that this was asked.
    pub fn take_unlogged(&mut self) -> Sums {
        std::mem::take(&mut self.unlogged)
    }

    /// The share of the last seconds in which the core was in a turn.
    pub fn busy_ratio(&self, shard: u16) -> f64 {
        let span: Duration = self.slices.iter().map(|slice| slice.took).sum();
        let busy = self.slices.iter().flat_map(|slice| &slice.busy);
        let busy: Duration = busy.filter(|(of, _)| *of == shard).map(|(_, busy)| *busy).sum();
        if span.is_zero() { 0.0 } else { (busy.as_secs_f64() / span.as_secs_f64()).min(1.0) }
    }

    pub fn report(&self, enabled: bool, now: Wall, uptime: Duration) -> Report {
        let recent: Duration = self.slices.iter().map(|slice| slice.took).sum();
        let none = Percentiles::default();
        Report {
            version: VERSION,
            time: datetime::format(now),
            uptime_s: uptime.as_secs(),
            recent_s: recent.as_secs_f64().round() as u64,
            enabled,
            uncounted: self.uncounted,
            series: self
                .total
                .iter()
                .map(|(series, sum)| SeriesReport {
                    recent: self.recent.get(series).map_or(none.clone(), Percentiles::of),
                    total: Percentiles::of(sum),
                    ..SeriesReport::named(*series)
                })
                .collect(),
            shards: self.cores.keys().map(|shard| self.core(*shard)).collect(),
        }
    }

    /// A core, since the start.
    pub fn core(&self, shard: u16) -> ShardReport {
        let last_stall = self.cores.get(&shard).and_then(|facts| facts.last_stall.as_ref());
        ShardReport {
            shard,
            busy_ratio: self.busy_ratio(shard),
            turns: self.counted(Series::Turn(shard)),
            stalls: self.counted(Series::Stall(shard)),
            late: self.counted(Series::Late(shard)),
            last_stall: last_stall.map(StallReport::of),
        }
    }

    /// How often something was counted since the start.
    fn counted(&self, series: Series) -> u64 {
        self.total.get(&series).map_or(0, |sum| sum.histogram().len())
    }
}

/// The object of `/api/v1/latency`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub version: u32,
    pub time: String,
    pub uptime_s: u64,
    pub recent_s: u64,
    pub enabled: bool,
    /// Deliveries that were not counted, since too many waited for slow readers.
    pub uncounted: u64,
    pub series: Vec<SeriesReport>,
    pub shards: Vec<ShardReport>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesReport {
    pub group: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mechanism: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<u16>,
    /// Among the federation cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<u16>,
    /// The clocks of two nodes are in it, which are compared by pings alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimate: bool,
    /// `ns` or `writes`.
    pub unit: String,
    pub total: Percentiles,
    pub recent: Percentiles,
}

impl SeriesReport {
    fn named(series: Series) -> SeriesReport {
        let group = |name: &str| SeriesReport {
            group: name.to_owned(),
            unit: if series.is_time() { "ns" } else { "writes" }.to_owned(),
            ..SeriesReport::default()
        };
        let of_shard = |name: &str, shard: u16| SeriesReport { shard: Some(shard), ..group(name) };
        match series {
            Series::Stanza(kind, path, stage) => SeriesReport {
                kind: Some(kind.0.to_owned()),
                path: Some(path.name().to_owned()),
                stage: Some(stage.name().to_owned()),
                estimate: stage == Stage::NodeHop || (path, stage) == (Path::Node, Stage::Total),
                ..group("stanza")
            },
            Series::Login(mechanism, end) => SeriesReport {
                mechanism: Some(mechanism.to_owned()),
                end: Some(end.name().to_owned()),
                ..group("login")
            },
            Series::RunQueue(shard) => of_shard("run_queue", shard),
            Series::Turn(shard) => of_shard("turn", shard),
            Series::Stall(shard) => of_shard("stall", shard),
            Series::Late(shard) => of_shard("late", shard),
            Series::S2s(stage) => SeriesReport {
                path: Some("s2s".to_owned()),
                stage: Some(stage.name().to_owned()),
                ..group("federation")
            },
            Series::FederationTurn(core) => {
                SeriesReport { core: Some(core), ..group("federation_turn") }
            }
            Series::StoreCommit => group("store_commit"),
            Series::StoreBatch => group("store_batch"),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    pub count: u64,
    pub min: u64,
    pub mean: f64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
    /// Percentile and value, rising.
    pub curve: Vec<(f64, u64)>,
}

impl Percentiles {
    fn of(sum: &Sum) -> Percentiles {
        let counts = sum.histogram();
        if counts.is_empty() {
            return Percentiles::default();
        }
        let at = |quantile| counts.value_at_quantile(quantile);
        let curve = counts.iter_quantiles(2);
        Percentiles {
            count: counts.len(),
            min: counts.min(),
            mean: counts.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: counts.max(),
            curve: curve.map(|step| (step.percentile(), step.value_iterated_to())).collect(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ShardReport {
    pub shard: u16,
    /// Of the last `recent_s` seconds.
    pub busy_ratio: f64,
    pub turns: u64,
    pub stalls: u64,
    /// How often the core came late to its timers, by more than a stall.
    pub late: u64,
    pub last_stall: Option<StallReport>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallReport {
    pub at: String,
    pub took_ns: u64,
    pub did: String,
    pub longest: String,
    pub longest_ns: u64,
}

impl StallReport {
    fn of(stall: &LastStall) -> StallReport {
        let nanos = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        StallReport {
            at: datetime::format(stall.at),
            took_ns: nanos(stall.took),
            did: stall.did.clone(),
            longest: stall.longest.name().to_owned(),
            longest_ns: nanos(stall.longest_took),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn part(shard: u16, turn_ms: u64) -> CorePart {
        let mut part = CorePart { shard, ..CorePart::default() };
        part.core.turns.record(Duration::from_millis(turn_ms));
        part.core.busy_ns = turn_ms * 1_000_000;
        part
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn recent_is_the_last_ten_intervals_and_total_is_all() {
        let mut board = Board::default();
        let store = StorePart::default();
        board.add(SECOND, &[part(0, 400)], &[], &store);
        for _ in 0..9 {
            board.add(SECOND, &[part(0, 1)], &[], &store);
        }
        let report = board.report(true, Wall(0), SECOND);
        assert_eq!(report.series.len(), 1);
        let turns = &report.series[0];
        assert_eq!((turns.group.as_str(), turns.shard), ("turn", Some(0)));
        assert_eq!((turns.recent.count, turns.total.count, report.recent_s), (10, 10, 10));
        assert!((report.shards[0].busy_ratio - 0.0409).abs() < 1e-6, "{report:?}");
        board.add(SECOND, &[part(0, 1)], &[], &store);
        let turns = &board.report(true, Wall(0), SECOND).series[0];
        assert_eq!((turns.recent.count, turns.total.count), (10, 11));
        assert!(turns.recent.max < 2_000_000 && turns.total.max > 390_000_000, "{turns:?}");
    }

    #[test]
    fn shards_are_told_apart_and_their_stalls_kept() {
        let mut board = Board::default();
        let mut stalled = part(1, 30);
        stalled.core.stalls.record(Duration::from_millis(30));
        stalled.core.last_stall = Some(LastStall {
            at: Wall(1_767_225_600_000_000),
            took: Duration::from_millis(30),
            did: "read 2".into(),
            longest: TurnPart::Read,
            longest_took: Duration::from_millis(29),
        });
        board.add(SECOND, &[part(0, 1), stalled], &[], &StorePart::default());
        board.add(SECOND, &[part(0, 1), part(1, 1)], &[], &StorePart::default());
        let report = board.report(true, Wall(0), SECOND);
        let counts: Vec<_> = report.shards.iter().map(|one| (one.turns, one.stalls)).collect();
        assert_eq!(counts, [(2, 0), (2, 1)]);
        let stall = report.shards[1].last_stall.clone().unwrap();
        assert_eq!(
            (stall.at.as_str(), stall.longest.as_str()),
            ("2026-01-01T00:00:00.000Z", "read")
        );
    }

    #[test]
    fn the_report_survives_as_json() {
        let mut board = Board::default();
        let mut store = StorePart::default();
        store.commits.record(Duration::from_millis(3));
        store.batches.record_batch(17);
        board.add(SECOND, &[part(0, 1)], &[], &store);
        let report = board.report(true, Wall(0), Duration::from_secs(5));
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["version"], 1);
        let series = json["series"].as_array().unwrap();
        let batch = series.iter().find(|one| one["group"] == "store_batch").unwrap();
        assert_eq!((&batch["unit"], &batch["total"]["max"]), (&"writes".into(), &17.into()));
        assert_eq!(batch.get("path"), None);
        let curve = batch["total"]["curve"].as_array().unwrap();
        assert_eq!(curve.last().unwrap()[0], 100.0);
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }

    #[test]
    fn what_was_taken_for_the_log_is_not_taken_again() {
        let mut board = Board::default();
        board.add(SECOND, &[part(0, 1)], &[], &StorePart::default());
        assert_eq!(board.take_unlogged().len(), 1);
        assert!(board.take_unlogged().is_empty());
    }
}
