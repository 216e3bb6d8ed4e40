//! The latencies as histograms of OpenMetrics: classic buckets, cumulative since the start. Native histograms need the
//! protobuf form of a scrape, which is not served.

use super::latency::{Board, Series};
use crate::base::histogram::Sum;
use crate::shard::Stage;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::fmt;

/// Upper bounds in nanoseconds; one bucket more has the rest.
const BOUNDS_NS: [u64; 18] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];
/// Of writes that share a commit.
const BOUNDS_WRITES: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// A family, and what its help says.
type Family = (&'static str, &'static str);

const ROUTE: Family = ("stanza_route", "From the read that completed a stanza to its write");
const STAGE: Family = ("stanza_stage", "A stanza's time in a part of its way");
const LOGIN: Family = ("login", "From the accept of a connection to its session");
const RUN_QUEUE: Family =
    ("core_run_queue", "From the first input of a turn until its effects are carried out");
const TURN: Family = ("core_turn", "Length of the turns of a core");
const STALL: Family = ("core_stall", "Length of the turns that held up a core for over 10 ms");
const LATE: Family = ("core_late", "How late a core came to its timers, where that was over 10 ms");
const S2S: Family = ("federation_stage", "Time in a part of the way to another server");
const S2S_TURN: Family = ("federation_turn", "Length of the turns of a federation core");
const BATCH: Family = ("store_batch_size", "Writes that shared a commit");

/// One histogram of a family.
#[derive(Debug)]
struct Row {
    family: Family,
    labels: Vec<(&'static str, String)>,
    sum: f64,
    count: u64,
    buckets: Vec<(f64, u64)>,
}

/// What a scrape tells of latencies. Made while the board is held, written when it is not.
#[derive(Debug)]
pub struct Exposition {
    rows: Vec<Row>,
    busy: Vec<(u16, f64)>,
    uncounted: u64,
}

impl Exposition {
    pub fn of(board: &Board) -> Exposition {
        Exposition {
            rows: board.total.iter().filter_map(|(series, sum)| row(*series, sum)).collect(),
            busy: board.cores.keys().map(|shard| (*shard, board.busy_ratio(*shard))).collect(),
            uncounted: board.uncounted,
        }
    }
}

/// `None` for what has a family elsewhere.
fn row(series: Series, sum: &Sum) -> Option<Row> {
    let shard = |shard: u16| vec![("shard", shard.to_string())];
    let (family, labels) = match series {
        Series::Stanza(kind, path, stage) => {
            let mut labels = vec![("kind", kind.0.to_owned()), ("path", path.name().to_owned())];
            if stage == Stage::Total {
                (ROUTE, labels)
            } else {
                labels.push(("stage", stage.name().to_owned()));
                (STAGE, labels)
            }
        }
        Series::Login(mechanism, end) => {
            (LOGIN, vec![("mechanism", mechanism.to_owned()), ("end", end.name().to_owned())])
        }
        Series::RunQueue(of) => (RUN_QUEUE, shard(of)),
        Series::Turn(of) => (TURN, shard(of)),
        Series::Stall(of) => (STALL, shard(of)),
        Series::Late(of) => (LATE, shard(of)),
        Series::S2s(stage) => {
            (S2S, vec![("path", "s2s".to_owned()), ("stage", stage.name().to_owned())])
        }
        Series::FederationTurn(core) => (S2S_TURN, vec![("core", core.to_string())]),
        Series::StoreBatch => (BATCH, Vec::new()),
        Series::StoreCommit => return None,
    };
    let (bounds, scale): (&[u64], f64) =
        if series.is_time() { (&BOUNDS_NS, 1e-9) } else { (&BOUNDS_WRITES, 1.0) };
    let mut counts = vec![0; bounds.len() + 1];
    let mut total = 0.0;
    for step in sum.histogram().iter_recorded() {
        let (value, count) = (step.value_iterated_to(), step.count_at_value());
        // A value is that of the upper end of its cell, which is within two digits of what was measured.
        let value = sum.histogram().lowest_equivalent(value);
        counts[bounds.partition_point(|bound| *bound < value)] += count;
        total += value as f64 * count as f64 * scale;
    }
    let bounds = bounds.iter().map(|bound| *bound as f64 * scale).chain([f64::INFINITY]);
    Some(Row {
        family,
        labels,
        sum: total,
        count: sum.histogram().len(),
        buckets: bounds.zip(counts).collect(),
    })
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in [ROUTE, STAGE, LOGIN, RUN_QUEUE, TURN, STALL, LATE, S2S, S2S_TURN, BATCH] {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.family == family).collect();
            if rows.is_empty() {
                continue;
            }
            let (name, help) = family;
            let unit = (family != BATCH).then_some(&Unit::Seconds);
            let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
            for row in rows {
                let Row { labels, sum, count, buckets, .. } = row;
                if labels.is_empty() {
                    metric.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)?;
                } else {
                    let mut one = metric.encode_family(labels)?;
                    one.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)?;
                }
            }
        }
        let help = "Share of the last seconds that a core was in turns";
        let mut busy =
            encoder.encode_descriptor("core_busy_ratio", help, None, MetricType::Gauge)?;
        for (shard, ratio) in &self.busy {
            let labels = [("shard", shard.to_string())];
            ConstGauge::new(*ratio).encode(busy.encode_family(&labels)?)?;
        }
        let help = "Deliveries that no histogram has, since too many waited for slow readers";
        let metric =
            encoder.encode_descriptor("stanza_uncounted", help, None, MetricType::Counter)?;
        ConstCounter::new(self.uncounted).encode(metric)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::admin::latency::{CorePart, StorePart};
    use crate::admin::{figures::Figures, metrics};
    use std::time::Duration;

    fn scrape() -> String {
        let mut board = Board::default();
        let mut part = CorePart { shard: 1, ..CorePart::default() };
        part.core.turns.record(Duration::from_micros(70));
        part.core.turns.record(Duration::from_millis(30));
        part.core.stalls.record(Duration::from_millis(30));
        part.core.busy_ns = 500_000_000;
        let mut store = StorePart::default();
        store.batches.record_batch(3);
        store.batches.record_batch(300);
        board.add(Duration::from_secs(1), &[part], &[], &store);
        metrics::text(Figures::default(), Exposition::of(&board)).unwrap()
    }

    #[track_caller]
    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }

    #[test]
    fn each_bucket_has_all_that_is_not_above_it() {
        let text = scrape();
        for line in [
            "corefire_core_turn_seconds_bucket{le=\"0.00005\",shard=\"1\"} 0",
            "corefire_core_turn_seconds_bucket{le=\"0.0001\",shard=\"1\"} 1",
            "corefire_core_turn_seconds_bucket{le=\"0.025\",shard=\"1\"} 1",
            "corefire_core_turn_seconds_bucket{le=\"0.05\",shard=\"1\"} 2",
            "corefire_core_turn_seconds_bucket{le=\"+Inf\",shard=\"1\"} 2",
            "corefire_core_turn_seconds_count{shard=\"1\"} 2",
            "corefire_core_stall_seconds_count{shard=\"1\"} 1",
            "corefire_store_batch_size_bucket{le=\"4.0\"} 1",
            "corefire_store_batch_size_count 2",
            "corefire_core_busy_ratio{shard=\"1\"} 0.5",
        ] {
            has(&text, line);
        }
        let sum = text.lines().find(|line| line.starts_with("corefire_core_turn_seconds_sum"));
        let sum: f64 = sum.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        assert!((sum - 0.03007).abs() < 0.0003, "{sum}");
    }
}
