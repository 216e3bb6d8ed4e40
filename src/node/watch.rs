//! What is known of a node from outside of its shards: whether it can serve, its metrics, and the pages that tell it.

use super::{Desk, federation};
use crate::admin::exposition::Exposition;
use crate::admin::figures::{FederationFigures, Figures, ShardFigures};
use crate::admin::health::{Health, STALL_MS, Stage};
use crate::admin::http::{OPENMETRICS, Page, Reply};
use crate::admin::metrics;
use crate::admin::overview::{self, NodeFacts};
use crate::base::hash::hash64;
use crate::cluster::map::ShardMap;
use crate::runtime::control::cluster::ClusterView;
use crate::runtime::executor::Beats;
use crate::runtime::http::PageHandler;
use crate::runtime::latency::Latency;
use crate::runtime::mailbox::{Letter, Mailbox};
use crate::runtime::process;
use crate::runtime::storage::StoreHandle;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long a scrape waits for shards; those that are late are told with their last figures.
const SCRAPE_PATIENCE: Duration = Duration::from_millis(500);

/// Of `/api/v1/cluster`.
const CLUSTER_SCHEMA: u32 = 1;

/// One per node. Asked by the threads of the admin address and by the main thread.
pub(super) struct Watch {
    stage: AtomicU8,
    began: Instant,
    beats: Beats,
    store: StoreHandle,
    latency: Latency,
    mailboxes: Vec<Mailbox>,
    federation: Option<federation::Part>,
    /// As each shard last told them.
    last: Mutex<Vec<ShardFigures>>,
    /// Once the node serves.
    desk: OnceLock<Arc<Desk>>,
}

impl Watch {
    pub(super) fn new(
        began: Instant,
        beats: Beats,
        store: StoreHandle,
        latency: Latency,
        mailboxes: &[Mailbox],
        federation: Option<federation::Part>,
    ) -> Arc<Watch> {
        let shards = 0..u16::try_from(mailboxes.len()).unwrap_or(u16::MAX);
        let last = shards.map(|shard| ShardFigures { shard, ..ShardFigures::default() }).collect();
        Arc::new(Watch {
            stage: AtomicU8::new(0),
            began,
            beats,
            store,
            latency,
            mailboxes: mailboxes.to_vec(),
            federation,
            last: Mutex::new(last),
            desk: OnceLock::new(),
        })
    }

    pub(super) fn serves(&self, desk: Arc<Desk>) {
        // Told once in a node's life.
        let _ = self.desk.set(desk);
        self.stage.store(1, Ordering::Release);
    }

    pub(super) fn stops(&self) {
        self.stage.store(2, Ordering::Release);
    }

    pub(super) fn health(&self) -> Health {
        Health {
            stage: match self.stage.load(Ordering::Acquire) {
                0 => Stage::Starting,
                1 => Stage::Serving,
                _ => Stage::Stopping,
            },
            shard_silence_ms: self.beats.silence_ms(),
            federation_silence_ms: self.federation_silence_ms(),
            store_is_failing: self.store.figures().is_failing,
            lacks_lease: self.desk.get().is_some_and(|desk| desk.lacks_lease()),
            is_drained: self.desk.get().is_some_and(|desk| desk.is_drained()),
        }
    }

    fn federation_silence_ms(&self) -> Vec<u64> {
        self.federation.as_ref().map_or_else(Vec::new, |part| part.beats.silence_ms())
    }

    /// No core hangs.
    pub(super) fn is_alive(&self) -> bool {
        let silence = self.beats.silence_ms().into_iter().chain(self.federation_silence_ms());
        silence.max().is_none_or(|silence| silence <= STALL_MS)
    }

    fn federation_figures(&self) -> Vec<FederationFigures> {
        let Some(part) = &self.federation else { return Vec::new() };
        part.figures(SCRAPE_PATIENCE)
    }

    /// A shard that hangs is not written to: its letters would pile up.
    fn responsive(&self) -> Vec<Mailbox> {
        let mut hanging = self.beats.silence_ms().into_iter().map(|silence| silence > STALL_MS);
        self.mailboxes.iter().filter(|_| !hanging.next().unwrap_or(false)).cloned().collect()
    }

    /// The shards' figures, and those whose figures are old.
    fn shard_figures(&self) -> (Vec<ShardFigures>, Vec<u16>) {
        let told = collect(&self.responsive(), SCRAPE_PATIENCE);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let mut late: Vec<u16> = last.iter().map(|figures| figures.shard).collect();
        late.retain(|shard| !told.iter().any(|one| one.shard == *shard));
        for figures in told {
            let place = usize::from(figures.shard);
            if let Some(known) = last.get_mut(place) {
                *known = figures;
            }
        }
        (last.clone(), late)
    }

    fn figures(&self) -> Figures {
        let (shards, late) = self.shard_figures();
        Figures {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: self.began.elapsed().as_secs(),
            shards,
            late,
            connections_max: self.desk.get().map_or(0, |desk| desk.connections_max()),
            store: self.store.figures(),
            process: process::figures(),
            certificates: self.desk.get().map_or_else(Vec::new, |desk| desk.certificates()),
            cluster: self.desk.get().and_then(|desk| desk.cluster_figures()),
            federation: self.federation_figures(),
            is_ready: self.health().check().is_ok(),
        }
    }

    /// - errors: the node does not serve yet
    fn overview(&self) -> Option<serde_json::Result<String>> {
        let desk = self.desk.get()?;
        let figures = self.figures();
        let talkers = ask_all(&self.responsive(), SCRAPE_PATIENCE, Letter::Talkers);
        let facts = NodeFacts { not_ready: self.health().check().err(), ..desk.facts() };
        Some(overview::json(&facts, &figures, &overview::loudest(&talkers)))
    }
}

impl Watch {
    /// - errors: the node does not serve yet
    fn cluster(&self) -> Option<serde_json::Result<String>> {
        let cluster = self.desk.get()?.cluster_status();
        let hops = match &cluster {
            Some(_) => metrics::hops(&self.shard_figures().0).collect(),
            None => BTreeMap::new(),
        };
        Some(serde_json::to_string(&ClusterView { schema: CLUSTER_SCHEMA, cluster, hops }))
    }
}

impl PageHandler for Watch {
    fn page(&self, page: Page) -> Reply {
        match page {
            Page::Live => Reply::text(200, "live\n"),
            Page::Ready => match self.health().check() {
                Ok(()) => Reply::text(200, "ready\n"),
                Err(why) => Reply::text(503, format!("not ready: {why}\n")),
            },
            Page::Metrics => match metrics::text(
                self.figures(),
                self.latency.with(|board| Exposition::of(board)),
            ) {
                Ok(body) => Reply { content_type: OPENMETRICS, ..Reply::text(200, body) },
                Err(_) => Reply::text(500, "the metrics cannot be written\n"),
            },
            Page::Status => json(self.desk.get().map(|desk| desk.status_json())),
            Page::Overview => json(self.overview()),
            Page::Latency => json(Some(serde_json::to_string(&self.latency.report()))),
            Page::Cluster => json(self.cluster()),
            Page::ShardMap => {
                let map = self.desk.get().map(|desk| desk.shard_map());
                let text = map.as_ref().map(ShardMap::to_json);
                let etag = match (&map, &text) {
                    (Some(map), Some(Ok(text))) => Some(etag(map.epoch, text)),
                    _ => None,
                };
                Reply { etag, ..json(text) }
            }
            Page::Asset(asset) => asset.into(),
        }
    }
}

/// The epoch, and a digest for what changes within one: a node without a cluster that was started with other shards.
fn etag(epoch: u64, text: &str) -> String {
    format!("\"{epoch}-{:016x}\"", hash64(text.as_bytes()))
}

fn json(text: Option<serde_json::Result<String>>) -> Reply {
    match text {
        Some(Ok(body)) => Reply { content_type: "application/json", ..Reply::text(200, body) },
        Some(Err(_)) => Reply::text(500, "what was asked for cannot be written\n"),
        None => Reply::text(503, "the node is starting\n"),
    }
}

/// Figures of the shards that answer in time. Each has then read all letters that were sent to it before.
pub(super) fn collect(mailboxes: &[Mailbox], patience: Duration) -> Vec<ShardFigures> {
    ask_all(mailboxes, patience, Letter::Status)
}

/// Answers of the shards that give theirs in time.
pub(super) fn ask_all<T>(
    mailboxes: &[Mailbox],
    patience: Duration,
    letter: impl Fn(Sender<T>) -> Letter,
) -> Vec<T> {
    let (answers, answered) = channel();
    for mailbox in mailboxes {
        mailbox.send(letter(answers.clone()));
    }
    drop(answers);
    let until = Instant::now() + patience;
    let mut told = Vec::with_capacity(mailboxes.len());
    while let Ok(one) = answered.recv_timeout(until.saturating_duration_since(Instant::now())) {
        told.push(one);
    }
    told
}
