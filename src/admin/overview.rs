//! `/api/v1/overview`: all that the admin page shows but for latency, as JSON. Counters are counted since the start, so
//! that whoever asks twice has rates; addresses of talkers are told here, behind the token, and nowhere in `/metrics`.
//!
//! Fields are added and stay; `schema` rises when one changes its meaning.

use super::figures::{COMMIT_BUCKETS_US, CertificateFigures, Figures};
use super::metrics::summed;
use crate::shard::{Talker, TopTalkers};
use serde::Serialize;
use std::collections::BTreeMap;

pub const SCHEMA: u32 = 1;
/// Talkers of each kind that are told.
const TALKERS: usize = 10;

/// Who is asked: what does not change by itself.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    pub node: String,
    pub pid: u32,
    pub incarnation: u64,
    pub domains: Vec<String>,
    /// As configured.
    pub log_level: String,
    /// Why the node is not ready.
    pub not_ready: Option<String>,
    /// Milliseconds since the Unix epoch, when this was asked.
    pub now_ms: u64,
}

#[derive(Debug, Serialize)]
struct Overview<'a> {
    schema: u32,
    node: &'a str,
    version: &'a str,
    pid: u32,
    incarnation: u64,
    now_ms: u64,
    uptime_s: u64,
    ready: bool,
    not_ready: Option<&'a str>,
    log_level: &'a str,
    domains: &'a [String],
    connections_max: u64,
    shards: Vec<Shard>,
    counters: BTreeMap<&'static str, u64>,
    store: Store,
    process: Process,
    certificates: &'a [CertificateFigures],
    talkers: Talkers,
}

#[derive(Debug, Serialize)]
struct Shard {
    shard: u16,
    /// It did not answer in time: these are its last figures.
    late: bool,
    /// When they were true, on a clock of the node's own; for differences.
    at_us: u64,
    /// CPU time of the core's thread.
    cpu_us: u64,
    connections: u64,
    sessions: u64,
    accounts: u64,
    store_waiting: u64,
    ring_bytes: u64,
    clients_held: u64,
    stanzas_in: u64,
    stanzas_out: u64,
    faults: u64,
}

#[derive(Debug, Serialize)]
struct Store {
    writes_queued: u64,
    writes: u64,
    commits: u64,
    commits_failed: u64,
    commit_us: u64,
    /// Commits by their time: upper bound in microseconds (none: longer), how many.
    commit_buckets: Vec<(Option<u64>, u64)>,
    queries: u64,
    failing: bool,
}

#[derive(Debug, Serialize)]
struct Process {
    cpu_s: f64,
    resident_bytes: u64,
    open_files: u64,
    open_files_max: u64,
}

#[derive(Debug, Default, Serialize)]
struct Talkers {
    by_stanzas: Vec<Told>,
    by_bytes: Vec<Told>,
}

#[derive(Debug, Serialize)]
struct Told {
    jid: String,
    per_s: f64,
}

/// The shards' talkers as those of the node. An account is on one shard, so nobody is there twice but components.
pub fn loudest(shards: &[TopTalkers]) -> TopTalkers {
    let merged = |of: fn(&TopTalkers) -> &[Talker]| {
        let mut all: Vec<Talker> = Vec::new();
        for talker in shards.iter().flat_map(of) {
            match all.iter_mut().find(|one| one.jid == talker.jid) {
                Some(one) => one.per_s += talker.per_s,
                None => all.push(talker.clone()),
            }
        }
        all.sort_by(|one, other| other.per_s.total_cmp(&one.per_s));
        all.truncate(TALKERS);
        all
    };
    TopTalkers { by_stanzas: merged(|one| &one.by_stanzas), by_bytes: merged(|one| &one.by_bytes) }
}

/// Gives the JSON text.
///
/// - errors: none that could happen while writing into memory
pub fn json(
    facts: &NodeFacts,
    figures: &Figures,
    talkers: &TopTalkers,
) -> serde_json::Result<String> {
    let told = |talkers: &[Talker]| {
        let told = |one: &Talker| Told { jid: one.jid.to_string(), per_s: one.per_s };
        talkers.iter().map(told).collect()
    };
    let store = &figures.store;
    let bounds = COMMIT_BUCKETS_US.iter().copied().map(Some).chain([None]);
    serde_json::to_string(&Overview {
        schema: SCHEMA,
        node: &facts.node,
        version: &figures.version,
        pid: facts.pid,
        incarnation: facts.incarnation,
        now_ms: facts.now_ms,
        uptime_s: figures.uptime_s,
        ready: figures.is_ready,
        not_ready: facts.not_ready.as_deref(),
        log_level: &facts.log_level,
        domains: &facts.domains,
        connections_max: figures.connections_max,
        shards: shards(figures),
        counters: counters(figures),
        store: Store {
            writes_queued: store.writes_queued,
            writes: store.writes,
            commits: store.commits,
            commits_failed: store.commits_failed,
            commit_us: store.commit_us,
            commit_buckets: bounds.zip(store.commit_buckets).collect(),
            queries: store.queries,
            failing: store.is_failing,
        },
        process: Process {
            cpu_s: figures.process.cpu_seconds,
            resident_bytes: figures.process.resident_bytes,
            open_files: figures.process.open_files,
            open_files_max: figures.process.open_files_max,
        },
        certificates: &figures.certificates,
        talkers: Talkers {
            by_stanzas: told(&talkers.by_stanzas),
            by_bytes: told(&talkers.by_bytes),
        },
    })
}

fn shards(figures: &Figures) -> Vec<Shard> {
    let shard = |one: &super::figures::ShardFigures| Shard {
        shard: one.shard,
        late: figures.late.contains(&one.shard),
        at_us: one.at_us,
        cpu_us: one.cpu_us,
        connections: one.connections,
        sessions: one.sessions,
        accounts: one.accounts,
        store_waiting: one.waiting_for_store,
        ring_bytes: one.ring_bytes,
        clients_held: one.clients_held,
        stanzas_in: one.probe.stanzas_in,
        stanzas_out: one.probe.stanzas_out,
        faults: one.probe.faults,
    };
    figures.shards.iter().map(shard).collect()
}

/// What the page shows as rates and as limits that were hit.
fn counters(figures: &Figures) -> BTreeMap<&'static str, u64> {
    let probe = summed(&figures.shards);
    let failed = figures.shards.iter().map(|one| one.core.handshakes_failed).sum();
    BTreeMap::from([
        ("connections_accepted", probe.connections_accepted),
        ("connections_throttled", probe.connections_refused),
        ("connections_banned", probe.connections_banned),
        ("handshakes_failed", failed),
        ("logins", probe.logins),
        ("logins_failed", probe.logins_failed),
        ("sessions_resumed", probe.sessions_resumed),
        ("stanzas_in", probe.stanzas_in),
        ("stanzas_out", probe.stanzas_out),
        ("messages_delivered", probe.messages_delivered),
        ("messages_stored", probe.messages_stored),
        ("messages_bounced", probe.messages_bounced),
        ("presence_dropped", probe.presence_dropped),
        ("posts_dropped", probe.posts_dropped),
        ("slow_readers_closed", probe.slow_readers_closed),
        ("reads_paused", probe.reads_paused),
        ("reads_slowed", probe.reads_slowed),
        ("faults", probe.faults),
    ])
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::admin::figures::ShardFigures;

    fn talker(jid: &str, per_s: f64) -> Talker {
        Talker { jid: jid.into(), per_s }
    }

    #[test]
    fn the_loudest_of_all_shards_come_first_and_components_once() {
        let shard = |jids: &[(&str, f64)]| TopTalkers {
            by_stanzas: jids.iter().map(|(jid, per_s)| talker(jid, *per_s)).collect(),
            by_bytes: Vec::new(),
        };
        let all = loudest(&[
            shard(&[("a@x/1", 5.0), ("bot.x", 4.0)]),
            shard(&[("b@x/1", 7.0), ("bot.x", 4.0)]),
        ]);
        let jids: Vec<_> = all.by_stanzas.iter().map(|one| (&*one.jid, one.per_s)).collect();
        assert_eq!(jids, [("bot.x", 8.0), ("b@x/1", 7.0), ("a@x/1", 5.0)]);
        let many: Vec<_> = (0..30).map(|n| talker(&format!("{n}@x/1"), f64::from(n))).collect();
        let many = TopTalkers { by_stanzas: Vec::new(), by_bytes: many };
        assert_eq!(loudest(&[many]).by_bytes.len(), TALKERS);
    }

    #[test]
    fn whatever_a_resource_says_the_json_reads_back() {
        let shard = |shard| ShardFigures { shard, cpu_us: 7, ..ShardFigures::default() };
        let figures = Figures {
            version: "9".into(),
            shards: vec![shard(0), shard(1)],
            late: vec![1],
            ..Figures::default()
        };
        let jid = "a@x/\"</script><img src=x onerror=alert(1)>\u{2028}\\";
        let talkers = TopTalkers { by_stanzas: vec![talker(jid, 1.5)], ..TopTalkers::default() };
        let text = json(&NodeFacts::default(), &figures, &talkers).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["talkers"]["by_stanzas"][0]["jid"], jid);
        assert_eq!(value["schema"], SCHEMA);
        let late = [&value["shards"][0]["late"], &value["shards"][1]["late"]];
        assert_eq!(late, [false, true]);
        assert_eq!(value["store"]["commit_buckets"][8][0], serde_json::Value::Null);
    }
}
