//! The figures as OpenMetrics text. Names are `corefire_PART_WHAT`, and end in `_total` where they only grow; labels are
//! words of ours and names of nodes, never addresses.

mod federation;

use super::exposition::Exposition;
use super::figures::{COMMIT_BUCKETS_US, CoreProbe, Figures, LinkFigures, ShardFigures};
use crate::shard::Probe;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use std::fmt::{self, Debug};

/// Gives the text of a scrape.
///
/// - errors: none that could happen while writing into memory; the caller answers that the server failed
pub fn text(figures: Figures, latencies: Exposition) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("corefire");
    registry.register_collector(Box::new(Scrape(figures)));
    registry.register_collector(Box::new(latencies));
    let mut text = String::with_capacity(8 << 10);
    encode(&mut text, &registry)?;
    Ok(text)
}

/// How often messages crossed from node to node.
const HOPS: [&str; 5] = ["0", "1", "2", "3", "more"];

/// Messages that clients got, by that.
pub fn hops(shards: &[ShardFigures]) -> impl Iterator<Item = (&'static str, u64)> {
    HOPS.into_iter().zip(summed(shards).hops)
}

#[derive(Debug)]
struct Scrape(Figures);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let figures = &self.0;
        let mut page = Page(encoder);
        page.node(figures)?;
        page.clients(figures)?;
        page.stanzas(&summed(&figures.shards))?;
        page.store(figures)?;
        page.process(figures)?;
        page.cluster(figures)?;
        page.federation(&figures.federation)?;
        page.certificates(figures)
    }
}

/// The shards' counters as those of the node. Each field by its name, so that a new one is told about here.
pub(super) fn summed(shards: &[ShardFigures]) -> Probe {
    let mut sum = Probe::default();
    for shard in shards {
        let Probe {
            connections,
            connections_accepted,
            connections_refused,
            connections_banned,
            connections_moved_out,
            connections_moved_in,
            logins,
            logins_failed,
            sessions_resumed,
            stanzas_in,
            stanzas_out,
            messages_delivered,
            messages_stored,
            messages_bounced,
            presence_dropped,
            frames_out,
            frames_in,
            hops,
            frames_repeated,
            frames_refused,
            messages_sent_directly,
            frames_passed_on,
            frames_retried,
            duplicates_dropped,
            sessions_moved_out,
            sessions_moved_in,
            copy_frames,
            copy_bytes,
            copies_refused,
            copies_revived,
            copies,
            copies_bytes,
            posts_dropped,
            faults,
            slow_readers_closed,
            reads_paused,
            reads_slowed,
            component_connections,
            component_stanzas_in,
            component_stanzas_out,
            component_stanzas_bounced,
        } = &shard.probe;
        sum.connections += connections;
        sum.connections_accepted += connections_accepted;
        sum.connections_refused += connections_refused;
        sum.connections_banned += connections_banned;
        sum.connections_moved_out += connections_moved_out;
        sum.connections_moved_in += connections_moved_in;
        sum.logins += logins;
        sum.logins_failed += logins_failed;
        sum.sessions_resumed += sessions_resumed;
        sum.stanzas_in += stanzas_in;
        sum.stanzas_out += stanzas_out;
        sum.messages_delivered += messages_delivered;
        sum.messages_stored += messages_stored;
        sum.messages_bounced += messages_bounced;
        sum.presence_dropped += presence_dropped;
        sum.frames_out += frames_out;
        sum.frames_in += frames_in;
        sum.hops.iter_mut().zip(hops).for_each(|(sum, count)| *sum += count);
        sum.frames_repeated += frames_repeated;
        sum.frames_refused += frames_refused;
        sum.messages_sent_directly += messages_sent_directly;
        sum.frames_passed_on += frames_passed_on;
        sum.frames_retried += frames_retried;
        sum.duplicates_dropped += duplicates_dropped;
        sum.sessions_moved_out += sessions_moved_out;
        sum.sessions_moved_in += sessions_moved_in;
        sum.copy_frames += copy_frames;
        sum.copy_bytes += copy_bytes;
        sum.copies_refused += copies_refused;
        sum.copies_revived += copies_revived;
        sum.copies += copies;
        sum.copies_bytes += copies_bytes;
        sum.posts_dropped += posts_dropped;
        sum.faults += faults;
        sum.slow_readers_closed += slow_readers_closed;
        sum.reads_paused += reads_paused;
        sum.reads_slowed += reads_slowed;
        sum.component_connections += component_connections;
        sum.component_stanzas_in += component_stanzas_in;
        sum.component_stanzas_out += component_stanzas_out;
        sum.component_stanzas_bounced += component_stanzas_bounced;
    }
    sum
}

struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn count(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstCounter::new(value);
        metric.encode(self.0.encode_descriptor(name, help, None, MetricType::Counter)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let metric = ConstGauge::new(value);
        metric.encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    /// One gauge by what a thing is.
    fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, u64)],
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (word, value) in values {
            ConstGauge::new(*value).encode(family.encode_family(&[(label, *word)])?)?;
        }
        Ok(())
    }

    /// One counter by what a thing was.
    fn counts(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, u64)],
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (word, value) in values {
            ConstCounter::new(*value).encode(family.encode_family(&[(label, *word)])?)?;
        }
        Ok(())
    }

    /// One gauge for each shard.
    fn by_shard(
        &mut self,
        name: &str,
        help: &str,
        shards: &[ShardFigures],
        value: impl Fn(&ShardFigures) -> u64,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for shard in shards {
            let label = [("shard", shard.shard.to_string())];
            ConstGauge::new(value(shard)).encode(family.encode_family(&label)?)?;
        }
        Ok(())
    }

    /// One gauge for each other node; what is not known is left out.
    fn by_link(
        &mut self,
        name: &str,
        help: &str,
        links: &[LinkFigures],
        value: impl Fn(&LinkFigures) -> Option<f64>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for link in links {
            if let Some(value) = value(link) {
                let label = [("node", link.node.as_str())];
                ConstGauge::new(value).encode(family.encode_family(&label)?)?;
            }
        }
        Ok(())
    }

    fn node(&mut self, figures: &Figures) -> fmt::Result {
        let mut info =
            self.0.encode_descriptor("node_build", "The program", None, MetricType::Info)?;
        info.encode_info(&[("version", figures.version.as_str())])?;
        self.gauge("node_ready", "Whether clients can be served", figures.is_ready.into())?;
        self.gauge("node_uptime_seconds", "Since the start", figures.uptime_s)?;
        let help = "Shards that did not answer this scrape in time; their figures are older";
        self.gauge("node_shards_late", help, figures.late.len() as u64)
    }

    fn clients(&mut self, figures: &Figures) -> fmt::Result {
        let shards = &figures.shards;
        let help = "Client connections, logged in or not";
        self.by_shard("shard_connections", help, shards, |shard| shard.connections)?;
        self.by_shard("shard_sessions", "Bound resources", shards, |shard| shard.sessions)?;
        self.by_shard("shard_accounts", "Accounts in memory", shards, |shard| shard.accounts)?;
        let help = "Requests of the shard to the store without an answer";
        self.by_shard("shard_store_waiting", help, shards, |shard| shard.waiting_for_store)?;
        let help = "Bytes for other shards that their rings did not take yet";
        self.by_shard("shard_ring_bytes", help, shards, |shard| shard.ring_bytes)?;
        let help = "Clients that are not read since rings or the store are full";
        self.by_shard("shard_clients_held", help, shards, |shard| shard.clients_held)?;
        let help = "CPU time of the shard's core; by its rate, how busy that is";
        let unit = Some(&Unit::Seconds);
        let mut cpu = self.0.encode_descriptor("shard_cpu", help, unit, MetricType::Counter)?;
        for shard in shards {
            let label = [("shard", shard.shard.to_string())];
            ConstCounter::new(seconds(shard.cpu_us)).encode(cpu.encode_family(&label)?)?;
        }
        let help = "Connections that the node takes at most";
        self.gauge("node_connections_max", help, figures.connections_max)?;
        let probe = summed(shards);
        let core = |count: fn(&CoreProbe) -> u64| shards.iter().map(|one| count(&one.core)).sum();
        self.counts(
            "listener_connections",
            "Connections that came in, by what became of them",
            "fate",
            &[
                ("accepted", probe.connections_accepted),
                ("throttled", probe.connections_refused),
                ("banned", probe.connections_banned),
                ("no_balancer", core(|core| core.unproxied_refused)),
                ("bad_proxy_header", core(|core| core.proxy_headers_malformed)),
                ("system_refused", core(|core| core.accepts_failed)),
            ],
        )?;
        self.counts(
            "listener_tls_handshakes",
            "TLS handshakes, by their outcome",
            "outcome",
            &[
                ("done", core(|core| core.handshakes)),
                ("failed", core(|core| core.handshakes_failed)),
            ],
        )?;
        let help = "Logins, by their outcome";
        let values = [("done", probe.logins), ("failed", probe.logins_failed)];
        self.counts("shard_logins", help, "outcome", &values)?;
        let help = "Sessions that a new connection took over";
        self.count("shard_sessions_resumed", help, probe.sessions_resumed)?;
        let help = "Connections that went to the core of their account";
        self.count("shard_connections_moved", help, probe.connections_moved_in)?;
        let help = "Connections closed since their client did not read";
        self.count("shard_slow_readers_closed", help, probe.slow_readers_closed)?;
        let help = "Times that a client was not read for a while, by the cause";
        let values = [("pressure", probe.reads_paused), ("rate", probe.reads_slowed)];
        self.counts("shard_reads_throttled", help, "cause", &values)
    }

    fn stanzas(&mut self, probe: &Probe) -> fmt::Result {
        let values = [("in", probe.stanzas_in), ("out", probe.stanzas_out)];
        self.counts("shard_stanzas", "Stanzas from and to clients", "direction", &values)?;
        self.counts(
            "shard_messages",
            "Messages at their recipient's owner, by what became of them; one may be stored and delivered",
            "fate",
            &[
                ("delivered", probe.messages_delivered),
                ("stored", probe.messages_stored),
                ("bounced", probe.messages_bounced),
            ],
        )?;
        let values = [("in", probe.frames_in), ("out", probe.frames_out)];
        self.counts("shard_frames", "Frames between cores", "direction", &values)?;
        let help = "Connections of components that have logged in";
        self.gauge("component_connections", help, probe.component_connections)?;
        self.counts(
            "component_stanzas",
            "Stanzas from and to components; answered with an error where a component was not connected",
            "fate",
            &[
                ("in", probe.component_stanzas_in),
                ("out", probe.component_stanzas_out),
                ("bounced", probe.component_stanzas_bounced),
            ],
        )?;
        let help = "Presence that a full ring did not take";
        self.count("shard_presence_dropped", help, probe.presence_dropped)?;
        let help = "Stanzas of the server itself that were given up";
        self.count("shard_posts_dropped", help, probe.posts_dropped)?;
        let help = "Frames of federation cores that spoke for an address of ours, or were for one of others";
        self.count("shard_frames_refused", help, probe.frames_refused)?;
        self.count("shard_faults", "Bugs that were contained; please report", probe.faults)
    }

    /// Nothing without a cluster.
    fn cluster(&mut self, figures: &Figures) -> fmt::Result {
        let Some(cluster) = &figures.cluster else { return Ok(()) };
        let probe = summed(&figures.shards);
        self.gauge("cluster_epoch", "The newest epoch that this node acts by", cluster.epoch)?;
        let help = "Whether all shards have what is theirs at that epoch";
        self.gauge("cluster_settled", help, cluster.is_settled.into())?;
        let help = "Whether the node may act as the owner of what it has";
        self.gauge("cluster_lease", help, cluster.has_lease.into())?;
        self.gauge("cluster_members", "Nodes that own accounts, or may", cluster.members)?;
        self.gauge("cluster_links_up", "Links to other nodes", cluster.links_up)?;
        let help = "Connections of clients here whose accounts are at other nodes";
        let fronts = figures.shards.iter().map(|shard| shard.fronts).sum();
        self.gauge("cluster_fronts", help, fronts)?;
        let help = "Bytes that wait to be written to other nodes";
        self.gauge("cluster_links_queue_bytes", help, cluster.queue_bytes)?;
        let links = &cluster.links;
        let help = "Whether there is a link to that node";
        self.by_link("cluster_link_up", help, links, |link| Some(f64::from(u8::from(link.is_up))))?;
        let help = "The last round trip to that node";
        self.by_link("cluster_link_round_trip_seconds", help, links, |link| link.rtt_s)?;
        let help = "An estimate of how far that node's clock is before this one's";
        self.by_link("cluster_link_clock_ahead_seconds", help, links, |link| link.clock_ahead_s)?;
        let help = "Bytes that wait to be written to that node";
        let bytes = |link: &LinkFigures| Some(link.queue_bytes as f64);
        self.by_link("cluster_link_queue_bytes", help, links, bytes)?;
        let help = "Beacons, gossip and handshakes that were refused";
        self.count("cluster_refused", help, cluster.refused)?;
        self.counts(
            "cluster_frames",
            "Frames between nodes that took another way: come again over a new link, sent on as their owner had changed, \
             sent to new owners as the old one was gone; messages that were there already",
            "fate",
            &[
                ("repeated", probe.frames_repeated),
                ("passed_on", probe.frames_passed_on),
                ("retried", probe.frames_retried),
                ("duplicate", probe.duplicates_dropped),
            ],
        )?;
        let hops: Vec<(&str, u64)> = HOPS.into_iter().zip(probe.hops).collect();
        let help = "Messages that clients got, by how often they crossed from node to node";
        self.counts("cluster_messages", help, "hops", &hops)?;
        let help = "Messages of clients whose account is on another node, sent straight to where they are for";
        self.count("cluster_messages_direct", help, probe.messages_sent_directly)?;
        let sum =
            |count: fn(&CoreProbe) -> u64| figures.shards.iter().map(|one| count(&one.core)).sum();
        let values = [
            ("sent", sum(|core| core.redirected)),
            ("ignored", sum(|core| core.redirects_ignored)),
        ];
        let help = "Clients that were sent to the node of their account, and those that came again all the same";
        self.counts("cluster_redirects", help, "fate", &values)?;
        let values = [("in", probe.sessions_moved_in), ("out", probe.sessions_moved_out)];
        let help = "Sessions that moved with their accounts";
        self.counts("cluster_sessions_moved", help, "direction", &values)?;
        let help = "Frames that told copies of sessions at other nodes what changed";
        self.count("cluster_copy_frames", help, probe.copy_frames)?;
        let help = "Bytes of those frames";
        self.count("cluster_copy_bytes", help, probe.copy_bytes)?;
        let help = "Copies of other nodes' sessions that are kept here";
        self.gauge("cluster_copy_sessions", help, probe.copies)?;
        let help = "Bytes of the copies that are kept here";
        self.gauge("cluster_copy_kept_bytes", help, probe.copies_bytes)?;
        let values = [("refused", probe.copies_refused), ("revived", probe.copies_revived)];
        let help = "Sessions that were left without a copy, as there was no room for it, and copies that became sessions as \
                    their owner died";
        self.counts("cluster_copies", help, "fate", &values)
    }

    fn store(&mut self, figures: &Figures) -> fmt::Result {
        let store = &figures.store;
        self.gauge("store_writes_queued", "Writes that wait for a commit", store.writes_queued)?;
        self.count("store_writes", "Writes that are durable", store.writes)?;
        self.count("store_queries", "Questions to the store", store.queries)?;
        self.count("store_commits_failed", "Commits that failed", store.commits_failed)?;
        let help = "Whether the last commit failed";
        self.gauge("store_failing", help, store.is_failing.into())?;
        let bounds = COMMIT_BUCKETS_US.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(store.commit_buckets).collect();
        let mut commits = self.0.encode_descriptor(
            "store_commit",
            "Time of a commit, however many writes share it",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        let sum = seconds(store.commit_us);
        commits.encode_histogram::<NoLabelSet>(sum, store.commits, &buckets, None)
    }

    fn process(&mut self, figures: &Figures) -> fmt::Result {
        let process = &figures.process;
        let cpu = ConstCounter::new(process.cpu_seconds);
        let help = "CPU time of the process";
        let unit = Some(&Unit::Seconds);
        cpu.encode(self.0.encode_descriptor("process_cpu", help, unit, MetricType::Counter)?)?;
        self.gauge("process_resident_bytes", "Memory of the process", process.resident_bytes)?;
        self.gauge("process_open_files", "Descriptors in use", process.open_files)?;
        let help = "Descriptors that the process may use";
        self.gauge("process_open_files_max", help, process.open_files_max)
    }

    /// By our own domains, which are configured.
    fn certificates(&mut self, figures: &Figures) -> fmt::Result {
        let mut family = self.0.encode_descriptor(
            "tls_certificate_expiry_timestamp",
            "When the first certificate of a domain's chain expires, since the Unix epoch",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for certificate in &figures.certificates {
            let label = [("domain", certificate.domain.as_str())];
            ConstGauge::new(certificate.expires_s).encode(family.encode_family(&label)?)?;
        }
        Ok(())
    }
}

fn seconds(micros: u64) -> f64 {
    std::time::Duration::from_micros(micros).as_secs_f64()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::admin::figures::{ClusterFigures, StoreFigures};
    use crate::admin::latency::Board;

    fn shard(number: u16) -> ShardFigures {
        let probe = Probe {
            logins: 3,
            logins_failed: 1,
            messages_bounced: u64::from(number),
            ..Probe::default()
        };
        ShardFigures { shard: number, connections: 7, probe, ..ShardFigures::default() }
    }

    fn scrape() -> String {
        let mut commit_buckets = [0; COMMIT_BUCKETS_US.len() + 1];
        commit_buckets[1] = 2;
        commit_buckets[8] = 1;
        let store = StoreFigures {
            commits: 3,
            commit_us: 12_500_000,
            commit_buckets,
            ..StoreFigures::default()
        };
        let shards = vec![shard(0), shard(1)];
        let link = |node: &str, rtt_s: Option<f64>| LinkFigures {
            node: node.to_owned(),
            is_up: rtt_s.is_some(),
            rtt_s,
            clock_ahead_s: rtt_s.map(|_| -0.5),
            queue_bytes: 7,
        };
        let links = vec![link("n2", Some(0.00025)), link("n3", None)];
        let figures = Figures {
            version: "9".into(),
            shards,
            store,
            cluster: Some(ClusterFigures { epoch: 4, links, ..ClusterFigures::default() }),
            is_ready: true,
            ..Figures::default()
        };
        text(figures, Exposition::of(&Board::default())).unwrap()
    }

    #[track_caller]
    fn has(text: &str, line: &str) {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }

    #[test]
    fn counters_of_all_shards_are_summed() {
        let text = scrape();
        has(&text, "corefire_shard_logins_total{outcome=\"done\"} 6");
        has(&text, "corefire_shard_logins_total{outcome=\"failed\"} 2");
        has(&text, "corefire_shard_messages_total{fate=\"bounced\"} 1");
        has(&text, "corefire_shard_connections{shard=\"1\"} 7");
        has(&text, "corefire_node_ready 1");
        has(&text, "corefire_node_build_info{version=\"9\"} 1");
    }

    #[test]
    fn each_link_has_its_gauges_and_what_is_not_known_is_left_out() {
        let text = scrape();
        has(&text, "corefire_cluster_epoch 4");
        has(&text, "corefire_cluster_link_up{node=\"n2\"} 1.0");
        has(&text, "corefire_cluster_link_up{node=\"n3\"} 0.0");
        has(&text, "corefire_cluster_link_round_trip_seconds{node=\"n2\"} 0.00025");
        has(&text, "corefire_cluster_link_clock_ahead_seconds{node=\"n2\"} -0.5");
        has(&text, "corefire_cluster_link_queue_bytes{node=\"n3\"} 7.0");
        assert!(!text.contains("round_trip_seconds{node=\"n3\"}"), "{text}");
    }

    #[test]
    fn commits_are_a_histogram_in_seconds() {
        let text = scrape();
        has(&text, "corefire_store_commit_seconds_bucket{le=\"0.001\"} 0");
        has(&text, "corefire_store_commit_seconds_bucket{le=\"0.004\"} 2");
        has(&text, "corefire_store_commit_seconds_bucket{le=\"+Inf\"} 3");
        has(&text, "corefire_store_commit_seconds_count 3");
        has(&text, "corefire_store_commit_seconds_sum 12.5");
        has(&text, "corefire_process_cpu_seconds_total 0.0");
    }

    /// OpenMetrics 1.0: each sample belongs to a family with a type, families are not repeated, and the end is told.
    #[test]
    fn the_text_is_openmetrics() {
        let text = scrape();
        assert!(text.ends_with("# EOF\n"));
        let mut families = std::collections::BTreeSet::new();
        let mut family = String::new();
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap().to_owned();
                assert!(families.insert(family.clone()), "{family} is there twice");
            }
            if line.starts_with('#') {
                continue;
            }
            assert!(line.starts_with(&family), "{line} under {family}");
            assert!(line.starts_with("corefire_"), "{line}");
            let value = line.rsplit(' ').next().unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }
}
