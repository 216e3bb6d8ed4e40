//! What grows with the number of nodes: hops of a message, state of a node, gossip and beacons, and what a change of
//! members moves. Measured of the real machines: placement, views and shards, membership and discovery under a clock of
//! their own.
//!
//! `COREFIRE_SIM_GROWTH=1 cargo test --release --test sim growth -- --nocapture` prints the table of README.md, "Several
//! nodes"; without it, only the small clusters are measured, and held against what the table says.

use crate::chance::Chance;
use corefire::base::instant::{Instant, Now, Wall};
use corefire::base::rng::Rng;
use corefire::cluster::discovery::{self, Discovery};
use corefire::cluster::membership::{MemberEvent, Membership, Outputs};
use corefire::cluster::placement::{NodeId, PARTITIONS, Placement, ShardId};
use corefire::cluster::view::{NodeFacts, Run, View};
use corefire::features;
use corefire::shard::{Effects, Input, Limits, Shard, ShardConfig};
use corefire::stream::c2s::C2sPolicy;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const KEY: [u8; 32] = [7; 32];
/// Of each node.
const SHARDS: u16 = 8;
const SESSIONS: f64 = 1e7;
/// Messages by which hops are counted.
const MESSAGES: u32 = 200_000;
const SECOND: u64 = 1_000_000;

fn link(node: u32) -> SocketAddr {
    SocketAddr::from(([10, 0, (node / 250) as u8, (node % 250) as u8], 7070))
}

fn facts(node: u32) -> NodeFacts {
    NodeFacts {
        name: format!("xmpp-{node}"),
        run: Run { node: NodeId(node), incarnation: 1_000 + u64::from(node) },
        shards: SHARDS,
        weight: 1,
        link: link(node),
        clients: vec![format!("xmpp-{node}.example.org:5222")],
        components: Vec::new(),
        federates: false,
        frames: (1, 1),
        version: "0.2.0".into(),
    }
}

fn view(epoch: u64, nodes: impl Iterator<Item = u32>) -> View {
    View::new(epoch, nodes.map(facts).collect())
}

// ---- messages

/// Nodes that a message crosses on its way: sockets anywhere; the recipient's at its owner; both at their owners; a
/// component with a connection to each node.
fn hops(placement: &Placement, chance: &mut Chance) -> [f64; 4] {
    let members = placement.members();
    let mut sums = [0; 4];
    for _ in 0..MESSAGES {
        let anywhere = |chance: &mut Chance| members[chance.index(members.len())].node;
        let (from, to) = (placement.owner(chance.next()).node, placement.owner(chance.next()).node);
        let (front, back) = (anywhere(chance), anywhere(chance));
        let crossed = |way: &[NodeId]| way.windows(2).filter(|pair| pair[0] != pair[1]).count();
        let ways = [&[front, from, to, back][..], &[front, from, to], &[from, to], &[to]];
        for (sum, way) in sums.iter_mut().zip(ways) {
            *sum += crossed(way);
        }
    }
    sums.map(|sum| sum as f64 / f64::from(MESSAGES))
}

// ---- what a change moves

/// Share of partitions whose owner is another, and of those the ones that neither come from nor go to `node`.
fn moved(before: &Placement, after: &Placement, node: NodeId) -> (f64, usize) {
    let pairs = (0..PARTITIONS).map(|it| (before.node(it), after.node(it)));
    let moved: Vec<_> = pairs.filter(|(one, other)| one != other).collect();
    let strange = moved.iter().filter(|(one, other)| *one != node && *other != node).count();
    (moved.len() as f64 / f64::from(PARTITIONS), strange)
}

/// The largest share of a node, as a multiple of the mean.
fn largest(placement: &Placement) -> f64 {
    let mut counts: BTreeMap<NodeId, u32> = BTreeMap::new();
    (0..PARTITIONS).for_each(|it| *counts.entry(placement.node(it)).or_default() += 1);
    let mean = f64::from(PARTITIONS) / placement.members().len() as f64;
    f64::from(counts.into_values().max().unwrap_or(0)) / mean
}

// ---- state

/// Bytes that the process has in memory.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

fn per_one(before: usize, count: usize) -> usize {
    resident().saturating_sub(before) / count
}

/// Bytes of the members and owners of one epoch.
fn bytes_of_view(count: u32) -> usize {
    const COPIES: u64 = 100;
    let first = view(1, 1..=count);
    let before = resident();
    let copies: Vec<View> = (0..COPIES)
        .map(|_| View { placement: Arc::new((*first.placement).clone()), ..first.clone() })
        .collect();
    let bytes = per_one(before, copies.len());
    // It stays, so that what is measured next finds no memory that was given back.
    std::mem::forget(copies);
    bytes
}

/// Bytes that a shard keeps for the shards of all others, and the frames that it sends for a change of owners.
fn shard_among(count: u32) -> (usize, u64) {
    let shards = 400 / count as usize + 10;
    let now = Now { mono: Instant(1_000_000_000), wall: Wall(1_800_000_000_000_000) };
    let policy =
        C2sPolicy::new("sim.example", features::stream_features(&features::Settings::default()));
    let mut config = ShardConfig::new(policy, Limits::default());
    (config.node, config.incarnation) = (NodeId(1), facts(1).run.incarnation);
    let (config, alone) = (Arc::new(config), Arc::new(Placement::single(SHARDS)));
    let view = Arc::new(view(1, 1..=count));
    let mut all: Vec<(Shard, Effects)> = (0..shards)
        .map(|at| {
            let id = ShardId(at as u16 % SHARDS);
            let rng = Rng::from_u64(at as u64);
            let features = features::all();
            (
                Shard::new(id, config.clone(), alone.clone(), features, rng, now),
                Effects::new(SHARDS),
            )
        })
        .collect();
    let before = resident();
    let mut frames = 0;
    for (shard, fx) in &mut all {
        shard.handle(now, Input::Placed(view.clone()), fx);
        shard.end_turn(now, fx);
        // They leave, and are handled where they went.
        let told: Vec<_> = (0..fx.outbox.len())
            .filter(|at| !std::mem::take(&mut fx.outbox[*at]).is_empty())
            .map(|at| corefire::shard::Peer(at as u16))
            .collect();
        for by in told {
            let most = u64::MAX >> 1;
            shard.handle(now, Input::Handled { by, received: most, handled: most }, fx);
        }
        shard.end_turn(now, fx);
        // What each other shard gets is a marker now, and a seal later.
        frames += 2 * shard.probe().frames_out;
    }
    let bytes = per_one(before, shards);
    std::mem::forget(all);
    (bytes, frames / shards as u64)
}

/// What a node keeps because of the others.
struct State {
    view: usize,
    peers: usize,
    frames: u64,
}

impl State {
    fn of(count: u32) -> State {
        let view = bytes_of_view(count);
        let (peers, frames) = shard_among(count);
        State { view, peers, frames }
    }
}

// ---- gossip and beacons

enum What {
    Tick(usize),
    Arrive(usize, Vec<u8>),
    Beacon(usize, Vec<u8>),
}

struct Node {
    membership: Membership,
    discovery: Discovery,
    lives: bool,
    tick_at: u64,
}

/// Datagrams and bytes of them.
#[derive(Clone, Copy, Default, Debug)]
struct Traffic {
    sent: u64,
    bytes: u64,
    beacons: u64,
    beacon_bytes: u64,
}

/// Nodes on a network that loses nothing, with a multicast group.
struct Net {
    now: u64,
    number: u64,
    agenda: BTreeMap<(u64, u64), What>,
    nodes: Vec<Node>,
    chance: Chance,
    traffic: Traffic,
    /// When who was told of a death.
    deaths: Vec<(u64, usize)>,
}

fn at(now: u64) -> Now {
    Now { mono: Instant(now * 1000), wall: Wall(1_800_000_000_000_000 + now) }
}

impl Net {
    fn new(count: u32) -> Net {
        let mut net = Net {
            now: SECOND,
            number: 0,
            agenda: BTreeMap::new(),
            nodes: Vec::new(),
            chance: Chance::new(count.into()),
            traffic: Traffic::default(),
            deaths: Vec::new(),
        };
        for node in 1..=count {
            let mut rng = Rng::from_u64(node.into());
            let membership = Membership::new(facts(node), &KEY, at(net.now), &mut rng);
            let settings = discovery::Settings { has_group: true, ..Default::default() };
            let mono = at(net.now).mono;
            let discovery = Discovery::new(settings, facts(node), &KEY, mono, rng);
            net.nodes.push(Node {
                membership: membership.expect("sound facts"),
                discovery: discovery.expect("sound settings"),
                lives: true,
                tick_at: 0,
            });
            net.plan_tick(net.nodes.len() - 1);
        }
        net
    }

    fn plan(&mut self, at: u64, what: What) {
        self.number += 1;
        self.agenda.insert((at, self.number), what);
    }

    fn plan_tick(&mut self, node: usize) {
        let slot = &mut self.nodes[node];
        let dues = [slot.membership.next_tick(), Some(slot.discovery.next_tick())];
        let due = dues.into_iter().flatten().min().unwrap_or_default();
        slot.tick_at = (due.0.div_ceil(1000)).max(self.now + 1);
        let tick_at = slot.tick_at;
        self.plan(tick_at, What::Tick(node));
    }

    fn run_for(&mut self, seconds: u64) {
        let until = self.now + seconds * SECOND;
        while let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= until) {
            let ((now, _), what) = entry.remove_entry();
            self.now = now;
            let (What::Tick(node) | What::Arrive(node, _) | What::Beacon(node, _)) = what;
            if !self.nodes[node].lives {
                continue;
            }
            let (mut out, mut found) = (Outputs::default(), Vec::new());
            let slot = &mut self.nodes[node];
            match what {
                What::Tick(_) if slot.tick_at != now => continue,
                What::Tick(_) => {
                    slot.membership.tick(at(now).mono, &mut out);
                    let company = slot.membership.company();
                    slot.discovery.tick(at(now), &company, &mut found);
                }
                What::Arrive(_, bytes) => slot.membership.datagram(at(now).mono, &bytes, &mut out),
                What::Beacon(_, bytes) => {
                    let company = slot.membership.company();
                    slot.discovery.datagram(at(now), &bytes, &company, &mut found);
                }
            }
            for output in found {
                match output {
                    discovery::Output::Join(link) => {
                        self.nodes[node].membership.join(at(now).mono, link, &mut out);
                    }
                    discovery::Output::ToGroup(bytes) => self.tell_group(node, &bytes),
                    discovery::Output::ToSeed(..) | discovery::Output::Resolve(_) => {}
                }
            }
            self.carry_out(node, out);
            self.plan_tick(node);
        }
        self.now = until;
    }

    fn tell_group(&mut self, from: usize, bytes: &[u8]) {
        self.traffic.beacons += 1;
        self.traffic.beacon_bytes += bytes.len() as u64;
        for to in (0..self.nodes.len()).filter(|to| *to != from) {
            let delay = self.chance.within(100, 2_000);
            self.plan(self.now + delay, What::Beacon(to, bytes.to_vec()));
        }
    }

    fn carry_out(&mut self, from: usize, out: Outputs) {
        for (to, bytes) in out.datagrams {
            self.traffic.sent += 1;
            self.traffic.bytes += bytes.len() as u64;
            let to = self.nodes.iter().position(|node| node.membership.facts().link == to);
            if let Some(to) = to {
                let delay = self.chance.within(100, 2_000);
                self.plan(self.now + delay, What::Arrive(to, bytes));
            }
        }
        for event in out.events {
            if let MemberEvent::Dead(_) = event {
                self.deaths.push((self.now, from));
            }
        }
    }

    /// What one node sends in a second.
    fn measure(&mut self, seconds: u64) -> [f64; 4] {
        self.traffic = Traffic::default();
        self.run_for(seconds);
        let Traffic { sent, bytes, beacons, beacon_bytes } = self.traffic;
        let living = self.nodes.iter().filter(|node| node.lives).count();
        [sent, bytes, beacons, beacon_bytes]
            .map(|count| count as f64 / seconds as f64 / living as f64)
    }
}

/// Gossip of one node and second at rest, and in the two seconds in which a death is found out; how long that took until
/// all knew.
struct Gossip {
    rest: [f64; 4],
    death: [f64; 4],
    known: Duration,
}

fn gossip(count: u32) -> Gossip {
    let mut net = Net::new(count);
    // All start at once: the harshest beginning.
    net.run_for(20);
    for node in &net.nodes {
        assert_eq!(node.membership.members().count() as u32, count - 1, "all know all");
    }
    let rest = net.measure(30);
    net.nodes[0].lives = false;
    let died = net.now;
    let death = net.measure(2);
    net.run_for(8);
    assert_eq!(net.deaths.len() as u32, count - 1, "each hears of one death once");
    let known = net.deaths.iter().map(|(at, _)| at - died).max().unwrap_or(0);
    Gossip { rest, death, known: Duration::from_micros(known) }
}

// ---- the table

struct Row {
    hops: [f64; 4],
    largest: f64,
    joined: f64,
    died: f64,
    gossip: Gossip,
}

fn measure(count: u32) -> Row {
    let now = view(1, 1..=count).placement;
    let joined = view(2, 1..=count + 1).placement;
    let died = view(2, 2..=count).placement;
    let (joined, strange_join) = moved(&now, &joined, NodeId(count + 1));
    let (died, strange_death) = moved(&now, &died, NodeId(1));
    assert_eq!((strange_join, strange_death), (0, 0), "between others nothing moves");
    let hops = hops(&now, &mut Chance::new(count.into()));
    Row { hops, largest: largest(&now), joined, died, gossip: gossip(count) }
}

#[test]
fn growth_stays_within_what_the_readme_says() {
    let is_table = std::env::var_os("COREFIRE_SIM_GROWTH").is_some();
    let counts: &[u32] = if is_table { &[3, 12, 100] } else { &[3, 12] };
    let state: BTreeMap<u32, State> = match is_table {
        true => counts.iter().map(|count| (*count, State::of(*count))).collect(),
        false => BTreeMap::new(),
    };
    let rows: Vec<(u32, Row)> = counts.iter().map(|count| (*count, measure(*count))).collect();
    for (count, row) in &rows {
        let far = 1.0 - 1.0 / f64::from(*count);
        for (hops, most) in row.hops.iter().zip([3.0, 2.0, 1.0, 0.0]) {
            assert!((hops - most * far).abs() < 0.05, "{count} nodes: {hops} of {most}");
        }
        let share = 1.0 / f64::from(count + 1);
        assert!((0.5..1.6).contains(&(row.joined / share)), "{count} nodes: {} joined", row.joined);
        let Gossip { rest: [sent, bytes, beacons, _], known, .. } = row.gossip;
        assert!(sent < 20.0 && bytes < 6_000.0 && beacons < 0.4, "{count} nodes: {sent} {bytes}");
        if *count <= 12 {
            assert!(known < Duration::from_secs(2), "{count} nodes: {known:?}");
        }
    }
    if is_table {
        print(&rows, &state);
    }
}

fn print(rows: &[(u32, Row)], state: &BTreeMap<u32, State>) {
    let line = |what: &str, cell: &dyn Fn(u32, &Row) -> String| {
        let cells: Vec<String> = rows.iter().map(|(count, row)| cell(*count, row)).collect();
        println!("| {what} | {} |", cells.join(" | "));
    };
    line("nodes", &|count, _| count.to_string());
    println!("|---|{}", "---|".repeat(rows.len()));
    let ways = [
        "sockets anywhere",
        "the recipient's at its owner",
        "both at their owners",
        "a component everywhere",
    ];
    for (at, way) in ways.iter().enumerate() {
        line(&format!("frames between nodes per message: {way}"), &|_, row| {
            format!("{:.2}", row.hops[at])
        });
    }
    line("links of a node", &|count, _| (count - 1).to_string());
    line("sessions of a node, of 10⁷", &|count, _| format!("{:.0}", SESSIONS / f64::from(count)));
    line("the largest share, of the mean", &|_, row| format!("{:.2}", row.largest));
    line("moved when one joins", &|_, row| format!("{:.1} %", row.joined * 100.0));
    line("moved when one dies", &|_, row| format!("{:.1} %", row.died * 100.0));
    line("bytes of the members and owners, per node", &|count, _| state[&count].view.to_string());
    line("bytes for the shards of others, per shard", &|count, _| state[&count].peers.to_string());
    line("frames by which a change of owners is agreed, per shard", &|count, _| {
        state[&count].frames.to_string()
    });
    line("gossip sent per node and second, datagrams", &|_, row| {
        format!("{:.1}", row.gossip.rest[0])
    });
    line("and bytes", &|_, row| format!("{:.0}", row.gossip.rest[1]));
    line("the same while a death is found out, bytes", &|_, row| {
        format!("{:.0}", row.gossip.death[1])
    });
    line("a death is known to all after, s", &|_, row| {
        format!("{:.1}", row.gossip.known.as_secs_f64())
    });
    line("beacons sent per node and minute", &|_, row| format!("{:.1}", row.gossip.rest[2] * 60.0));
    line("beacons heard per node and second, bytes", &|count, row| {
        format!("{:.0}", row.gossip.rest[3] * f64::from(count - 1))
    });
}
