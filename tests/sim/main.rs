//! Simulation: the real shards of one node or of several under a seeded scheduler, with a virtual clock, a store that
//! crashes, links that break, nodes that come and go as clients do. The promises that are checked are written down in `model.rs`, what the world promises in `world.rs`.
//!
//! - `COREFIRE_SIM_SEED=N`: one seed, with its plan; `COREFIRE_SIM_LOG=1` shows all that happens in it
//! - `COREFIRE_SIM_SEEDS=N`, `COREFIRE_SIM_SECONDS=S`: a campaign of so many seeds, or of so long; it begins at
//!   `COREFIRE_SIM_FIRST`; `COREFIRE_SIM_NODES=one` or `several` leaves out the others
//!
//! A seed that fails is printed with the command that repeats it, and joins `seeds.txt`.
#![expect(clippy::print_stdout, reason = "campaigns tell what they did")]

mod chance;
mod client;
mod growth;
mod model;
mod rogue;
mod storage;
#[expect(unreachable_pub, reason = "shared with the fuzz crate")]
#[path = "../fuzz/targets/stream.rs"]
mod stream;
mod world;

use std::sync::Mutex;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use world::{ARCHIVES, CASCADES, CLUSTERS, Counts, World};

pub(crate) const DOMAIN: &str = "sim.example";

const SEEDS: u64 = 64;
/// With several nodes.
const CLUSTER_SEEDS: u64 = 64;
static SEEDS_KEPT: &str = include_str!("seeds.txt");

fn fix_keys() {
    static FIXED: Once = Once::new();
    FIXED.call_once(|| assert!(corefire::base::hash::fix_keys(1), "a map came first"));
}

struct Outcome {
    failure: Option<String>,
    counts: Counts,
    trace: u64,
}

fn run(seed: u64) -> Outcome {
    fix_keys();
    let outcome = std::panic::catch_unwind(|| {
        let mut world = World::new(seed);
        let failure = world.run();
        Outcome { failure, counts: world.counts, trace: world.trace }
    });
    outcome.unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        let failure = format!("panic: {}", text.unwrap_or_default());
        Outcome { failure: Some(failure), counts: Counts::default(), trace: 0 }
    })
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs seeds on two threads until one fails, gives the failures and what was done.
fn campaign(
    seeds: impl Iterator<Item = u64> + Send,
    until: Option<Instant>,
) -> (Vec<String>, Counts, u64) {
    let seeds = Mutex::new(seeds);
    let sums = Mutex::new((Vec::new(), Counts::default()));
    let done = AtomicU64::new(0);
    let most = variable("COREFIRE_SIM_FAILURES").unwrap_or(1) as usize;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = seeds.lock().expect("no panic here").next();
                    let Some(seed) = seed else { return };
                    if until.is_some_and(|until| Instant::now() > until) {
                        return;
                    }
                    let outcome = run(seed);
                    done.fetch_add(1, Ordering::Relaxed);
                    let mut sums = sums.lock().expect("no panic here");
                    sums.1.add(&outcome.counts);
                    if let Some(failure) = outcome.failure {
                        let line = format!(
                            "failed: seed {seed} ({failure}); repeat: COREFIRE_SIM_SEED={seed} cargo test --test sim"
                        );
                        println!("{line}");
                        sums.0.push(line);
                    }
                    if sums.0.len() >= most {
                        return;
                    }
                }
            });
        }
    });
    let (failures, counts) = sums.into_inner().expect("no panic here");
    (failures, counts, done.into_inner())
}

#[test]
fn promises_hold_under_every_seed() {
    if let Some(seed) = variable("COREFIRE_SIM_SEED") {
        fix_keys();
        println!("{:?}", World::new(seed).plan);
        let outcome = run(seed);
        println!("{:?}", outcome.counts);
        assert!(
            outcome.failure.is_none(),
            "failed: seed {seed} ({})",
            outcome.failure.unwrap_or_default()
        );
        return;
    }
    if std::env::var("COREFIRE_SIM_NODES").is_ok_and(|nodes| nodes == "several") {
        return;
    }
    let first = variable("COREFIRE_SIM_FIRST").unwrap_or(0);
    let count = variable("COREFIRE_SIM_SEEDS");
    let seconds = variable("COREFIRE_SIM_SECONDS");
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let count = count.unwrap_or(if until.is_some() { u64::MAX - first } else { SEEDS });
    let kept = kept().filter(|seed| *seed < CLUSTERS);
    let began = Instant::now();
    // In turn without archives and with them, unless all of a campaign are to be of one kind.
    let seeds = (first..first.saturating_add(count)).map(|seed| match seed % 2 {
        1 if first < ARCHIVES => ARCHIVES + seed,
        _ => seed,
    });
    let (failures, counts, seeds) = campaign(kept.chain(seeds), until);
    println!("{seeds} seeds in {}: {counts:?}", pace(&counts, began));
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// How long it took, and how much faster than real time it went.
fn pace(counts: &Counts, began: Instant) -> String {
    let took = began.elapsed();
    let faster = counts.simulated as f64 / took.as_secs_f64();
    format!("{took:.1?}, {} simulated seconds, {faster:.0} times real time", counts.simulated)
}

/// Seeds that once failed.
fn kept() -> impl Iterator<Item = u64> {
    SEEDS_KEPT.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok())
}

#[test]
fn promises_hold_in_clusters_under_every_seed() {
    let left_out = std::env::var("COREFIRE_SIM_NODES").is_ok_and(|nodes| nodes == "one");
    if variable("COREFIRE_SIM_SEED").is_some() || left_out {
        return;
    }
    let first = variable("COREFIRE_SIM_FIRST").unwrap_or(0) % ARCHIVES;
    let seconds = variable("COREFIRE_SIM_SECONDS");
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let count = variable("COREFIRE_SIM_SEEDS");
    let count = count.unwrap_or(if until.is_some() { u64::MAX } else { CLUSTER_SEEDS });
    let began = Instant::now();
    // With archives and without; every third is of the kind that is hard on changes of owners.
    let seeds = (first..first.saturating_add(count)).map(|seed| {
        let archive = if seed % 2 == 1 { ARCHIVES } else { 0 };
        let cascades = if seed % 3 == 2 { CASCADES } else { 0 };
        CLUSTERS + seed % ARCHIVES + archive + cascades
    });
    let kept = kept().filter(|seed| *seed >= CLUSTERS);
    let (failures, counts, seeds) = campaign(kept.chain(seeds), until);
    println!("{seeds} seeds of clusters in {}: {counts:?}", pace(&counts, began));
    assert!(seeds < 50 || counts.revived > 0, "no session outlived its owner");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_seed_repeats_exactly() {
    for seed in [3, 8, CLUSTERS + 2] {
        assert_eq!(run(seed).trace, run(seed).trace, "seed {seed}");
    }
    assert_ne!(run(3).trace, run(8).trace);
}

/// The seeds of the fuzz target, each whole and with bytes changed.
#[test]
fn a_shard_outlives_the_corpus_of_streams() {
    fix_keys();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/stream");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|entry| entry.expect("the corpus can be read").path())
        .collect();
    files.sort();
    let mut chance = chance::Chance::new(1);
    for file in files {
        let seed = std::fs::read(file).expect("the corpus can be read");
        stream::stream(&seed);
        for _ in 0..40 {
            let mut bytes = seed.clone();
            for _ in 0..chance.within(1, 4) {
                let at = chance.index(bytes.len());
                match chance.below(4) {
                    0 => bytes[at] = chance.next() as u8,
                    1 => bytes.truncate(at.max(2)),
                    2 => bytes.extend_from_within(at..),
                    _ => drop(bytes.drain(at / 2..at)),
                }
                if bytes.len() < 3 {
                    break;
                }
            }
            stream::stream(&bytes);
        }
    }
}
