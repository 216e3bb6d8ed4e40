//! Clusters of membership machines on a network and a clock that a seed decides.

use super::*;
use crate::base::instant::Wall;
use crate::cluster::placement::NodeId;

const KEY: [u8; 32] = [7; 32];

struct Node {
    machine: Membership,
    events: Vec<(u64, MemberEvent)>,
    is_running: bool,
    /// Until when it reads and sends nothing.
    stalled_until: u64,
    inbox: Vec<Vec<u8>>,
}

struct Net {
    rng: Rng,
    ms: u64,
    nodes: Vec<Node>,
    /// By when they arrive.
    under_way: BTreeMap<(u64, u64), (SocketAddr, Vec<u8>)>,
    sent: u64,
    bytes: u64,
    loss_percent: u64,
    twice_percent: u64,
    /// Nodes below it and the others do not hear each other.
    split: Option<usize>,
}

fn at(ms: u64) -> Instant {
    Instant::default() + Duration::from_millis(ms)
}

fn link(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + node as u8], 7070))
}

fn run(node: usize) -> Run {
    Run { node: NodeId(node as u32), incarnation: 100 + node as u64 }
}

fn facts(node: usize) -> NodeFacts {
    NodeFacts {
        name: format!("n{node}"),
        run: run(node),
        shards: 4,
        weight: 1,
        link: link(node),
        clients: vec![format!("n{node}.example.org:5222")],
        components: Vec::new(),
        federates: false,
        frames: (1, 2),
        version: "0.2.0".into(),
    }
}

impl Net {
    fn new(count: usize, seed: u64) -> Net {
        let mut net = Net {
            rng: Rng::from_u64(seed),
            ms: 1000,
            nodes: Vec::new(),
            under_way: BTreeMap::new(),
            sent: 0,
            bytes: 0,
            loss_percent: 0,
            twice_percent: 0,
            split: None,
        };
        for node in 0..count {
            net.add(facts(node));
        }
        net
    }

    /// A cluster in which all know each other.
    fn together(count: usize, seed: u64) -> Net {
        let mut net = Net::new(count, seed);
        for node in 1..count {
            net.join(node, 0);
        }
        net.run_for(6_000);
        net.assert_all_up();
        for node in &mut net.nodes {
            node.events.clear();
        }
        net
    }

    fn add(&mut self, facts: NodeFacts) -> usize {
        let now = Now { mono: at(self.ms), wall: Wall(1_800_000_000_000_000) };
        let machine = Membership::new(facts, &KEY, now, &mut self.rng).expect("sound facts");
        self.nodes.push(Node {
            machine,
            events: Vec::new(),
            is_running: true,
            stalled_until: 0,
            inbox: Vec::new(),
        });
        self.nodes.len() - 1
    }

    fn join(&mut self, node: usize, to: usize) {
        let to = self.nodes[to].machine.facts().link;
        self.with(node, |machine, now, out| machine.join(now, to, out));
    }

    fn with(&mut self, node: usize, work: impl FnOnce(&mut Membership, Instant, &mut Outputs)) {
        let mut out = Outputs::default();
        work(&mut self.nodes[node].machine, at(self.ms), &mut out);
        let ms = self.ms;
        self.nodes[node].events.extend(out.events.into_iter().map(|event| (ms, event)));
        for (to, bytes) in out.datagrams {
            assert!(bytes.len() <= DATAGRAM_BYTES_MAX);
            self.send(node, to, bytes);
        }
    }

    fn send(&mut self, from: usize, to: SocketAddr, bytes: Vec<u8>) {
        self.sent += 1;
        self.bytes += bytes.len() as u64;
        let side = |node: usize| self.split.is_some_and(|split| node < split);
        let to_node = self.nodes.iter().position(|node| node.machine.facts().link == to);
        if to_node.is_some_and(|to| side(from) != side(to))
            || self.rng.below(100) < self.loss_percent
        {
            return;
        }
        let copies = 1 + u64::from(self.rng.below(100) < self.twice_percent);
        for _ in 0..copies {
            // Now and then one overtakes another.
            let delay = 1 + self.rng.below(if self.loss_percent > 0 { 20 } else { 2 });
            self.under_way.insert((self.ms + delay, self.rng.next_u64()), (to, bytes.clone()));
        }
    }

    fn run_for(&mut self, ms: u64) {
        for _ in 0..ms {
            self.ms += 1;
            while let Some(entry) =
                self.under_way.first_entry().filter(|entry| entry.key().0 <= self.ms)
            {
                let (to, bytes) = entry.remove();
                let is_there =
                    |node: &&mut Node| node.is_running && node.machine.facts().link == to;
                if let Some(node) = self.nodes.iter_mut().find(is_there) {
                    node.inbox.push(bytes);
                }
            }
            for node in 0..self.nodes.len() {
                if !self.nodes[node].is_running || self.nodes[node].stalled_until > self.ms {
                    continue;
                }
                for bytes in std::mem::take(&mut self.nodes[node].inbox) {
                    self.with(node, |machine, now, out| machine.datagram(now, &bytes, out));
                }
                if self.nodes[node].machine.next_tick().is_some_and(|due| due <= at(self.ms)) {
                    self.with(node, |machine, now, out| machine.tick(now, out));
                }
            }
        }
    }

    fn up(&self, node: usize) -> Vec<Run> {
        self.nodes[node].machine.members().map(|(facts, _)| facts.run).collect()
    }

    fn assert_all_up(&self) {
        let running = |node: &&Node| node.is_running;
        let all: BTreeSet<Run> =
            self.nodes.iter().filter(running).map(|node| node.machine.facts().run).collect();
        for (place, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.is_running) {
            let mut up: BTreeSet<Run> = self.up(place).into_iter().collect();
            up.insert(node.machine.facts().run);
            assert_eq!(up, all, "as node {place} sees it at {}", self.ms);
        }
    }

    fn told(&self, node: usize, event: &MemberEvent) -> Option<u64> {
        let mut events = self.nodes[node].events.iter();
        events.find(|(_, told)| told == event).map(|(ms, _)| *ms)
    }
}

#[test]
fn nodes_that_join_one_know_all_with_their_facts() {
    for (count, seed) in [(2, 1), (3, 2), (5, 3), (12, 4)] {
        let mut net = Net::new(count, seed);
        for node in 1..count {
            net.join(node, 0);
        }
        net.run_for(6_000);
        net.assert_all_up();
        for node in 0..count {
            for (known, health) in net.nodes[node].machine.members() {
                assert_eq!(*known, facts(known.run.node.0 as usize));
                assert_eq!(health, Health::Alive);
            }
            assert_eq!(net.nodes[node].machine.company().len(), count - 1);
            let ups = net.nodes[node].events.iter();
            let ups = ups.filter(|(_, event)| matches!(event, MemberEvent::Up(_))).count();
            assert_eq!(ups, count - 1, "each is told once");
        }
    }
}

#[test]
fn a_death_is_known_to_all_within_two_seconds() {
    let mut slowest = 0;
    for count in [3, 5, 12] {
        for seed in 0..20 {
            let mut net = Net::together(count, seed);
            let wait = net.rng.below(1000);
            net.run_for(wait);
            net.nodes[count - 1].is_running = false;
            let died = net.ms;
            net.run_for(4_000);
            for node in 0..count - 1 {
                let dead = MemberEvent::Dead(run(count - 1));
                let told = net.told(node, &dead).unwrap_or_else(|| panic!("{count} {seed} {node}"));
                slowest = slowest.max(told - died);
                assert!(told - died <= 2_000, "{} ms, {count} nodes, seed {seed}", told - died);
                let dead = net.nodes[node].events.iter();
                let dead = dead.filter(|(_, event)| matches!(event, MemberEvent::Dead(_)));
                assert_eq!(dead.count(), 1, "nobody else died");
            }
        }
    }
    eprintln!("the slowest death was known after {slowest} ms");
}

#[test]
fn a_stall_is_suspected_and_refuted() {
    let mut suspected = 0;
    for count in [3, 5, 12] {
        for seed in 0..20 {
            let mut net = Net::together(count, seed);
            for stall in [300, 500] {
                net.nodes[0].stalled_until = net.ms + stall;
                net.run_for(3_000);
                for node in &net.nodes {
                    let is_wrong = |event: &MemberEvent| !matches!(event, MemberEvent::Suspect(who) | MemberEvent::Trusted(who) if *who == run(0));
                    let wrong = node.events.iter().find(|(_, event)| is_wrong(event));
                    assert_eq!(wrong, None, "{count} nodes, seed {seed}");
                    let count =
                        |event| node.events.iter().filter(|(_, told)| *told == event).count();
                    let suspects = count(MemberEvent::Suspect(run(0)));
                    assert_eq!(suspects, count(MemberEvent::Trusted(run(0))));
                    suspected += suspects;
                }
                net.assert_all_up();
            }
        }
    }
    assert!(suspected > 100, "stalls of half a second are noticed: {suspected}");
}

#[test]
fn who_was_stalled_for_long_comes_back_and_takes_nobody_else_for_dead() {
    for seed in 0..10 {
        let mut net = Net::together(5, seed);
        net.nodes[0].stalled_until = net.ms + 10_000;
        net.run_for(9_000);
        assert!((1..5).all(|node| net.told(node, &MemberEvent::Dead(run(0))).is_some()));
        net.run_for(9_000);
        net.assert_all_up();
        assert!(net.told(0, &MemberEvent::TakenForDead).is_some());
        for node in 0..5 {
            for other in 1..5 {
                assert_eq!(net.told(node, &MemberEvent::Dead(run(other))), None, "seed {seed}");
            }
        }
        assert!(net.nodes[0].machine.figures().stalled_ms >= 9_000);
        assert_eq!(net.nodes[0].machine.figures().taken_for_dead, 1);
    }
}

#[test]
fn leaving_is_told_and_is_no_death() {
    for (count, loss) in [(2, 0), (3, 0), (12, 0), (5, 10)] {
        for seed in 0..10 {
            let mut net = Net::together(count, seed);
            net.loss_percent = loss;
            let left = net.ms;
            net.with(0, |machine, now, out| machine.leave(now, out));
            net.run_for(400);
            let gone = net.told(0, &MemberEvent::Gone).expect("it ends by itself");
            assert!(gone - left <= 300);
            assert_eq!(net.nodes[0].machine.next_tick(), None);
            net.nodes[0].is_running = false;
            net.run_for(5_000);
            for node in 1..count {
                let told = net.told(node, &MemberEvent::Left(run(0))).expect("it was told");
                assert!(told - left <= 300);
                assert_eq!(net.told(node, &MemberEvent::Dead(run(0))), None);
                assert_eq!(net.nodes[node].machine.figures().left, 1);
            }
            net.loss_percent = 0;
            net.run_for(3_000);
            net.assert_all_up();
        }
    }
}

#[test]
fn a_fifth_of_loss_with_doubles_and_overtaking_converges() {
    for (count, seed) in [(3, 1), (5, 2), (12, 3)] {
        let mut net = Net::new(count, seed);
        (net.loss_percent, net.twice_percent) = (20, 10);
        for _ in 0..23 {
            // As discovery does it: who is alone asks again, each second.
            for node in 1..count {
                if net.nodes[node].machine.company().is_empty() {
                    net.join(node, 0);
                }
            }
            net.run_for(1_000);
        }
        let deaths = |net: &Net| {
            let all = net.nodes.iter().flat_map(|node| &node.events);
            all.filter(|(_, event)| matches!(event, MemberEvent::Dead(_))).count()
        };
        eprintln!("{count} nodes: {} deaths by mistake in 23 s", deaths(&net));
        net.loss_percent = 0;
        net.run_for(5_000);
        net.assert_all_up();
        let replays = net.nodes.iter().map(|node| node.machine.figures().refused);
        assert!(replays.clone().all(|refused| refused.of(Refusal::Replayed) > 0));
        assert!(replays.clone().all(|refused| refused.of(Refusal::Replayed) == refused.total()));
    }
}

#[test]
fn halves_that_lost_each_other_meet_again() {
    for (count, split) in [(2, 1), (3, 1), (5, 2), (12, 6)] {
        for seed in 0..5 {
            let mut net = Net::together(count, seed);
            net.split = Some(split);
            net.run_for(10_000);
            assert_eq!(net.up(0).len(), split - 1);
            assert_eq!(net.up(count - 1).len(), count - split - 1);
            net.split = None;
            net.run_for(15_000);
            net.assert_all_up();
        }
    }
}

#[test]
fn changed_facts_reach_all_even_those_who_missed_the_telling() {
    for loss in [0, 60] {
        let mut net = Net::together(5, 7);
        net.loss_percent = loss;
        let changed = NodeFacts { weight: 0, ..facts(2) };
        let tell = changed.clone();
        net.with(2, |machine, now, out| machine.tell(now, tell, out).expect("sound facts"));
        net.run_for(20);
        net.loss_percent = 0;
        net.run_for(5_000);
        for node in [0, 1, 3, 4] {
            assert!(net.told(node, &MemberEvent::Changed(changed.clone())).is_some());
            assert!(net.nodes[node].machine.members().any(|(facts, _)| *facts == changed));
        }
        let wrong = NodeFacts { version: "v".repeat(99), ..facts(2) };
        net.with(2, |machine, now, out| {
            assert_eq!(machine.tell(now, wrong, out), Err(FactsFault::Version));
            assert!(out.datagrams.is_empty());
        });
    }
}

#[test]
fn a_node_that_was_started_again_replaces_its_last_run() {
    let mut net = Net::together(3, 1);
    net.nodes[2].is_running = false;
    net.run_for(100);
    let next = Run { incarnation: 900, ..run(2) };
    let node = net.add(NodeFacts { run: next, ..facts(2) });
    // The network finds nodes by their address, and the old one is no more.
    net.nodes.swap_remove(2);
    assert_eq!(node, 3);
    net.join(2, 0);
    net.run_for(3_000);
    net.assert_all_up();
    for node in [0, 1] {
        let events: Vec<&MemberEvent> =
            net.nodes[node].events.iter().map(|(_, event)| event).collect();
        let up = MemberEvent::Up(NodeFacts { run: next, ..facts(2) });
        assert_eq!(events, [&MemberEvent::Dead(run(2)), &up]);
    }
}

#[test]
fn two_nodes_of_one_name_are_told_and_both_live() {
    let mut net = Net::together(3, 1);
    let other = NodeFacts { name: "n1".into(), ..facts(5) };
    let node = net.add(other);
    net.join(node, 0);
    net.run_for(10_000);
    net.assert_all_up();
    let twins = MemberEvent::Twins { name: "n1".into(), older: run(1), newer: run(5) };
    for node in 0..4 {
        let told = net.nodes[node].events.iter().filter(|(_, event)| *event == twins).count();
        assert_eq!(told, 1, "node {node}");
    }
    // One that was started again elsewhere, when its last run was dead, is no twin.
    let mut net = Net::together(3, 2);
    net.nodes[1].is_running = false;
    net.run_for(50);
    let node = net.add(NodeFacts { name: "n1".into(), ..facts(5) });
    net.join(node, 0);
    net.run_for(10_000);
    net.assert_all_up();
    for node in [0, 2, 3] {
        let twins = |event: &MemberEvent| matches!(event, MemberEvent::Twins { .. });
        assert!(!net.nodes[node].events.iter().any(|(_, event)| twins(event)));
    }
}

#[test]
fn what_is_recorded_changes_nothing_when_it_comes_again() {
    let mut net = Net::together(3, 1);
    let mut recorded = Vec::new();
    for _ in 0..1_000 {
        net.run_for(1);
        recorded.extend(net.under_way.values().cloned());
    }
    let before: Vec<usize> = net.nodes.iter().map(|node| node.events.len()).collect();
    for (to, bytes) in recorded {
        let node = (0..3).find(|node| link(*node) == to).expect("a node");
        net.with(node, |machine, now, out| {
            machine.datagram(now, &bytes, out);
            // Those still under way are taken now, and come again then.
        });
    }
    net.run_for(2_000);
    let after: Vec<usize> = net.nodes.iter().map(|node| node.events.len()).collect();
    assert_eq!(before, after);
    net.assert_all_up();
    assert!(net.nodes.iter().all(|node| {
        let refused = node.machine.figures().refused;
        refused.of(Refusal::Replayed) > 0 && refused.total() == refused.of(Refusal::Replayed)
    }));
}

#[test]
fn strangers_liars_and_crowds_are_refused() {
    let mut machine = Net::new(1, 1).nodes.remove(0).machine;
    let mut out = Outputs::default();
    let mut now = 2_000;
    let mut refused = |machine: &mut Membership, bytes: &[u8], out: &mut Outputs| {
        now += 1;
        let before = machine.figures().refused;
        machine.datagram(at(now), bytes, out);
        let after = machine.figures().refused;
        let counts = before.iter().zip(after.iter());
        let changed: Vec<&str> =
            counts.filter(|(one, two)| one != two).map(|(_, (label, _))| label).collect();
        changed
    };
    assert_eq!(refused(&mut machine, b"GET / HTTP/1.1", &mut out), ["not_ours"]);
    let mut post = Post::new(&[8; 32], run(1), Wall(0));
    assert_eq!(refused(&mut machine, &post.close(Kind::Leave, 1, &[]), &mut out), ["bad_mac"]);
    let mut post = Post::new(&KEY, run(1), Wall(0));
    for kind in [Kind::Swim, Kind::Facts, Kind::FactsWanted, Kind::Suspected] {
        let bytes = post.close(kind, 1, b"nonsense");
        assert_eq!(refused(&mut machine, &bytes, &mut out), ["malformed"]);
    }
    // A member may leave, be heard and be suspected only of itself.
    let message = |from: usize, members: std::ops::Range<usize>| {
        let peer = |node: usize| Peer {
            name: Arc::from(format!("n{node}")),
            run: run(node),
            life: 0,
            link: SocketAddr::from(([10, 1, (node / 256) as u8, (node % 256) as u8], 7070)),
        };
        let own = Peer { name: Arc::from("n0"), run: run(0), life: 0, link: link(0) };
        let header = foca::Header {
            src: peer(from),
            src_incarnation: 0,
            dst: own,
            message: foca::Message::Gossip,
        };
        let mut body = Vec::new();
        foca::Codec::encode_header(&mut PeerCodec, &header, &mut body).expect("room");
        body.extend_from_slice(&(members.len() as u16).to_be_bytes());
        for node in members {
            let member = Member::alive(peer(node));
            foca::Codec::encode_member(&mut PeerCodec, &member, &mut body).expect("room");
        }
        body
    };
    let bytes = post.close(Kind::Swim, 1, &message(2, 0..0));
    assert_eq!(refused(&mut machine, &bytes, &mut out), ["malformed"], "of another's name");
    let mut trailing = message(1, 0..0);
    trailing.extend_from_slice(b"more");
    let bytes = post.close(Kind::Swim, 1, &trailing);
    assert_eq!(refused(&mut machine, &bytes, &mut out), ["malformed"], "with more behind");
    assert!(machine.company().is_empty() && out.events.is_empty());

    let mut first = 2;
    while machine.company().len() + 30 <= MEMBERS_MAX {
        let bytes = post.close(Kind::Swim, 1, &message(1, first..first + 29));
        assert_eq!(refused(&mut machine, &bytes, &mut out), [""; 0]);
        first += 29;
    }
    let bytes = post.close(Kind::Swim, 1, &message(1, first..first + 30));
    assert_eq!(refused(&mut machine, &bytes, &mut out), ["crowded"]);
    let lie = NodeFacts { shards: 99, ..facts(2) };
    let mut body = Vec::new();
    facts::write(&lie, &mut body);
    let bytes = post.close(Kind::Facts, 1, &body);
    assert_eq!(refused(&mut machine, &bytes, &mut out), ["malformed"], "facts of another");
    let elsewhere = NodeFacts { link: link(9), ..facts(1) };
    let mut body = Vec::new();
    facts::write(&elsewhere, &mut body);
    let bytes = post.close(Kind::Facts, 1, &body);
    assert_eq!(refused(&mut machine, &bytes, &mut out), ["malformed"], "facts of another address");
}

/// It says that they are dead, and the authority doubts that for no longer than two and a half seconds.
#[test]
fn who_comes_back_from_a_cut_parts_the_others_for_a_moment_at_most() {
    for seed in 0..20 {
        let mut net = Net::together(3, seed);
        net.split = Some(1);
        net.run_for(4_000 + 37 * seed);
        net.split = None;
        let mut apart = 0;
        for _ in 0..1_000 {
            net.run_for(10);
            let is_apart = !net.up(1).contains(&run(2)) || !net.up(2).contains(&run(1));
            apart = if is_apart { apart + 10 } else { 0 };
            assert!(apart <= 1_500, "seed {seed}: {apart} ms");
        }
        net.assert_all_up();
    }
}

#[test]
fn a_node_at_rest_sends_little_and_the_same_seed_sends_the_same() {
    let measure = |count| {
        let mut net = Net::together(count, 5);
        net.run_for(20_000);
        let (sent, bytes) = (net.sent, net.bytes);
        net.run_for(20_000);
        (net.sent - sent, net.bytes - bytes)
    };
    for count in [3, 12] {
        let (sent, bytes) = measure(count);
        let per_node = (sent / 20 / count as u64, bytes / 20 / count as u64);
        eprintln!(
            "{count} nodes: {} datagrams, {} bytes a second and node",
            per_node.0, per_node.1
        );
        assert!(per_node.0 <= 20 && per_node.1 <= 4_000, "{per_node:?}");
        assert_eq!(measure(count), (sent, bytes));
    }
}
