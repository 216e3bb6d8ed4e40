//! Several machines over a model of the database, a network and gossip, under seeded schedules.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::base::rng::Rng;
use crate::cluster::placement::NodeId;

const STEP_MS: u64 = 20;
/// How long gossip needs to find out.
const DEATH_MS: u64 = 1_800;
const BIRTH_MS: u64 = 200;
/// How long shards need to settle after all have adopted an epoch.
const SETTLE_MS: u64 = 150;

fn at(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
}

fn facts(node: u32, incarnation: u64) -> NodeFacts {
    NodeFacts {
        name: format!("n{node}"),
        run: Run { node: NodeId(node), incarnation },
        shards: 2,
        weight: 10,
        link: std::net::SocketAddr::from(([127, 0, 0, 1], 5000)),
        clients: Vec::new(),
        components: Vec::new(),
        federates: false,
        frames: (1, 1),
        version: "0".to_owned(),
    }
}

/// What `store::postgres::cluster` does, in memory.
#[derive(Default)]
struct Database {
    epoch: u64,
    members: Vec<NodeFacts>,
    nodes: Vec<(NodeFacts, State, u64, u64)>,
    fenced: BTreeSet<Run>,
    clear_at: u64,
    incarnation: u64,
    /// All epochs there were.
    history: BTreeMap<u64, Vec<NodeFacts>>,
}

impl Database {
    fn lease(until: u64, ms: u64) -> Duration {
        Duration::from_millis(until.saturating_sub(ms))
    }

    /// None while a run of that name lives.
    fn claim(&mut self, node: u32, ms: u64) -> Option<NodeFacts> {
        let place = self.nodes.iter().position(|row| row.0.run.node.0 == node);
        if place.is_some_and(|place| self.nodes[place].3 > ms) {
            return None;
        }
        self.incarnation += 1;
        let me = facts(node, self.incarnation);
        if let Some(place) = place {
            let old = self.nodes.remove(place).0.run;
            self.fenced.insert(old);
        }
        self.nodes.push((me.clone(), State::Joining, 0, ms + 3_000));
        self.nodes.sort_by_key(|row| row.0.run);
        Some(me)
    }

    fn ask(&mut self, request: &Request, ms: u64) -> Answer {
        match request {
            Request::Renew(beat) => {
                let run = beat.facts.run;
                let Some(row) = self.nodes.iter_mut().find(|row| row.0.run == run) else {
                    return Answer::Fenced;
                };
                if self.fenced.contains(&run) {
                    return Answer::Fenced;
                }
                *row = (beat.facts.clone(), beat.state, beat.settled, ms + 3_000);
                Answer::Snapshot(self.snapshot(ms))
            }
            Request::Propose(proposal) => self.propose(proposal, ms),
        }
    }

    fn snapshot(&self, ms: u64) -> Snapshot {
        let row = |row: &(NodeFacts, State, u64, u64)| NodeRow {
            facts: row.0.clone(),
            state: row.1,
            settled: row.2,
            lease: Self::lease(row.3, ms),
        };
        Snapshot {
            epoch: self.epoch,
            members: self.members.clone(),
            nodes: self.nodes.iter().map(row).collect(),
            clear: Self::lease(self.clear_at, ms),
        }
    }

    fn propose(&mut self, proposal: &Proposal, ms: u64) -> Answer {
        let lives = |run: &Run| {
            self.nodes.iter().any(|row| row.0.run == *run && row.3 > ms && row.1 != State::Fenced)
        };
        let is_known = self.nodes.iter().any(|row| row.0.run == proposal.by)
            && !self.fenced.contains(&proposal.by);
        if proposal.from != self.epoch || !is_known || proposal.over.iter().any(lives) {
            return Answer::Proposed(Outcome::Lost);
        }
        // A minority never fences a majority that lives.
        let fenced = proposal.fence.iter().filter(|run| lives(run)).count();
        let all = self.members.len();
        assert!(fenced * 2 <= all, "{} of {all} are fenced by {proposal:?}", fenced);
        if fenced > 0 && fenced * 2 == all {
            let lowest = self.members.iter().map(|member| member.run).min().unwrap();
            assert!(!proposal.fence.contains(&lowest), "{proposal:?}");
        }
        assert!(!proposal.members.is_empty());
        for member in &self.members {
            let stays = proposal.members.iter().any(|other| other.run == member.run);
            let is_own = member.run == proposal.by;
            assert!(stays || is_own || proposal.fence.contains(&member.run), "{proposal:?}");
        }
        for run in &proposal.fence {
            if let Some(row) = self.nodes.iter_mut().find(|row| row.0.run == *run) {
                row.1 = State::Fenced;
                self.clear_at = self.clear_at.max(row.3);
            }
            self.fenced.insert(*run);
        }
        self.epoch += 1;
        self.members.clone_from(&proposal.members);
        assert!(self.history.insert(self.epoch, self.members.clone()).is_none());
        Answer::Proposed(Outcome::Won)
    }
}

struct Node {
    machine: Authority,
    run: Run,
    /// Its answer, and when it arrives.
    answer: Option<(u64, Answer)>,
    view: Option<Arc<View>>,
    lease: u64,
    settled: u64,
    adopted_ms: u64,
    waiting: Option<Reason>,
    has_left: bool,
    /// What gossip told of each run last.
    heard: BTreeMap<Run, bool>,
}

impl Node {
    fn acts(&self, ms: u64) -> bool {
        ms < self.lease && self.view.as_ref().is_some_and(|view| view.has(self.run))
    }
}

struct World {
    ms: u64,
    rng: Rng,
    database: Database,
    /// By the number of a name, from 1.
    nodes: BTreeMap<u32, Node>,
    /// When it starts (again).
    starts: BTreeMap<u32, u64>,
    /// Nodes that cannot reach each other, in both directions, and since when each pair can or cannot.
    cut: BTreeSet<(u32, u32)>,
    seen: BTreeMap<(Run, Run), u64>,
    /// Who cannot reach the database.
    away: BTreeSet<u32>,
    /// Of what these ask, some is done, and only the answer is lost.
    is_lossy: bool,
    fenced: usize,
    log: Vec<String>,
}

impl World {
    fn new(seed: u64, count: u32) -> World {
        let mut rng = Rng::from_u64(seed);
        let starts = (1..=count).map(|node| (node, rng.below(300))).collect();
        World {
            ms: 0,
            rng,
            database: Database::default(),
            nodes: BTreeMap::new(),
            starts,
            cut: BTreeSet::new(),
            seen: BTreeMap::new(),
            away: BTreeSet::new(),
            is_lossy: false,
            fenced: 0,
            log: Vec::new(),
        }
    }

    fn is_cut(&self, one: u32, other: u32) -> bool {
        self.cut.contains(&(one.min(other), one.max(other)))
    }

    fn crash(&mut self, node: u32, back_ms: u64) {
        self.nodes.remove(&node);
        self.starts.insert(node, self.ms + back_ms);
    }

    fn wish(&mut self, node: u32, wish: Wish) {
        self.feed(node, Input::Wish(wish));
    }

    fn feed(&mut self, id: u32, input: Input) {
        let mut out = Vec::new();
        let ms = self.ms;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.machine.handle(at(ms), input, &mut out);
        for output in out {
            let node = self.nodes.get_mut(&id).unwrap();
            match output {
                Output::Ask(request) => {
                    assert!(node.answer.is_none(), "two questions at once");
                    let answer = if self.away.contains(&id) {
                        if self.is_lossy && self.rng.below(8) == 0 {
                            self.database.ask(&request, ms);
                        }
                        (ms + 2_000, Answer::Failed("no answer".to_owned()))
                    } else {
                        let answer = self.database.ask(&request, ms);
                        (ms + 1 + self.rng.below(60), answer)
                    };
                    self.nodes.get_mut(&id).unwrap().answer = Some(answer);
                }
                Output::Adopt(view) => {
                    assert_eq!(self.database.history[&view.epoch()].len(), view.nodes.len());
                    assert!(node.view.as_ref().is_none_or(|old| old.epoch() < view.epoch()));
                    self.log.push(format!("{ms} n{id} adopts {}", view.epoch()));
                    node.view = Some(view);
                    node.adopted_ms = ms;
                }
                Output::Lease(until) => node.lease = until.0 / 1_000_000,
                Output::Waiting(reason) => {
                    self.log.push(format!(
                        "{ms} n{id} waits: {}",
                        reason.as_ref().map_or(String::new(), ToString::to_string)
                    ));
                    node.waiting = reason;
                }
                Output::Fenced => {
                    self.log.push(format!("{ms} n{id} is fenced"));
                    self.fenced += 1;
                    self.crash(id, 1_000);
                    return;
                }
                Output::Left => node.has_left = true,
            }
        }
    }

    fn gossip(&mut self) {
        let runs: Vec<(u32, Run)> = self.nodes.iter().map(|(id, node)| (*id, node.run)).collect();
        let present: BTreeSet<Run> = runs.iter().map(|(_, run)| *run).collect();
        let mut told = Vec::new();
        for (id, run) in &runs {
            let known: Vec<Run> = self.nodes[id].heard.keys().copied().collect();
            for other in present.iter().copied().chain(known).collect::<BTreeSet<_>>() {
                if other == *run {
                    continue;
                }
                let is_there = present.contains(&other) && !self.is_cut(*id, other.node.0);
                let heard = self.nodes[id].heard.get(&other).copied();
                if heard == Some(is_there) || (heard.is_none() && !is_there) {
                    self.seen.remove(&(*run, other));
                    continue;
                }
                let since = *self.seen.entry((*run, other)).or_insert(self.ms);
                let needs = if is_there { BIRTH_MS } else { DEATH_MS };
                if self.ms - since >= needs {
                    told.push((*id, other, is_there));
                }
            }
        }
        for (id, other, is_there) in told {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.heard.insert(other, is_there);
            }
            let (said, link) = match is_there {
                true => (Told::Alive(other), Told::Linked(other)),
                false => (Told::Dead(other), Told::Unlinked(other)),
            };
            self.feed(id, Input::Told(link));
            self.feed(id, Input::Told(said));
        }
    }

    fn step(&mut self) {
        self.ms += STEP_MS;
        let ms = self.ms;
        let due: Vec<u32> =
            self.starts.iter().filter(|(_, at)| **at <= ms).map(|(id, _)| *id).collect();
        for id in due {
            if self.away.contains(&id) {
                continue;
            }
            let Some(me) = self.database.claim(id, ms) else { continue };
            self.starts.remove(&id);
            let run = me.run;
            self.log.push(format!("{ms} n{id} starts as {}", run.incarnation));
            let node = Node {
                machine: Authority::new(me, at(ms)),
                run,
                answer: None,
                view: None,
                lease: 0,
                settled: 0,
                adopted_ms: 0,
                waiting: None,
                has_left: false,
                heard: BTreeMap::new(),
            };
            self.nodes.insert(id, node);
        }
        self.gossip();
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            if let Some((_, answer)) = node.answer.take_if(|(due, _)| *due <= ms) {
                self.feed(id, Input::Answer(answer));
            }
            let Some(node) = self.nodes.get(&id) else { continue };
            if node.machine.wake().is_some_and(|wake| wake <= at(ms)) {
                self.feed(id, Input::Tick);
            }
        }
        self.settle();
        self.check();
    }

    /// As the shards: when all members have adopted it, and can reach each other.
    fn settle(&mut self) {
        let mut settled = Vec::new();
        for (id, node) in &self.nodes {
            let Some(view) = &node.view else { continue };
            let all = view.nodes.iter().all(|member| {
                self.nodes.get(&member.run.node.0).is_some_and(|other| {
                    other.run == member.run
                        && other.view.as_ref().is_some_and(|v| v.epoch() >= view.epoch())
                        && !self.is_cut(*id, member.run.node.0)
                })
            });
            if all && node.settled < view.epoch() && self.ms >= node.adopted_ms + SETTLE_MS {
                settled.push((*id, view.epoch()));
            }
        }
        for (id, epoch) in settled {
            if let Some(node) = self.nodes.get_mut(&id) {
                node.settled = epoch;
            }
            self.feed(id, Input::Settled(epoch));
        }
    }

    /// One owner: nobody acts who was taken over in the eyes of another who acts.
    fn check(&self) {
        for (id, node) in self.nodes.iter().filter(|(_, node)| node.acts(self.ms)) {
            for (other, rival) in self.nodes.iter().filter(|(_, node)| node.acts(self.ms)) {
                let (mine, its) = (node.view.as_ref().unwrap(), rival.view.as_ref().unwrap());
                assert!(
                    mine.epoch() >= its.epoch() || !self.was_taken(node.run, its.epoch()),
                    "at {} n{id} acts at epoch {} though n{other} acts at {} without it",
                    self.ms,
                    mine.epoch(),
                    its.epoch()
                );
            }
        }
    }

    fn was_taken(&self, run: Run, epoch: u64) -> bool {
        let is_member = self.database.history[&epoch].iter().any(|member| member.run == run);
        !is_member && self.database.fenced.contains(&run)
    }

    fn run(&mut self, ms: u64) {
        let end = self.ms + ms;
        while self.ms < end {
            self.step();
        }
    }

    /// All nodes are members of one epoch, act, and nothing is in the way.
    fn is_whole(&self, count: usize) -> bool {
        self.nodes.len() == count
            && self.database.members.len() == count
            && self.nodes.values().all(|node| {
                node.acts(self.ms)
                    && node.waiting.is_none()
                    && node.settled == self.database.epoch
                    && node.view.as_ref().is_some_and(|v| v.epoch() == self.database.epoch)
            })
    }

    fn until_whole(&mut self, count: usize, limit_ms: u64) -> u64 {
        let began = self.ms;
        while !self.is_whole(count) {
            assert!(
                self.ms < began + limit_ms,
                "not whole at {}: epoch {} of {:?}\n{}",
                self.ms,
                self.database.epoch,
                self.database.members.iter().map(|m| m.run).collect::<Vec<_>>(),
                self.log.join("\n")
            );
            self.step();
        }
        self.ms - began
    }

    fn cut_off(&mut self, side: &[u32], count: u32) {
        for one in side {
            for other in (1..=count).filter(|other| !side.contains(other)) {
                self.cut.insert((*one.min(&other), *one.max(&other)));
            }
        }
    }
}

fn whole(seed: u64, count: u32) -> World {
    let mut world = World::new(seed, count);
    world.until_whole(count as usize, 30_000);
    world
}

#[test]
fn the_first_node_forms_the_cluster_at_once() {
    let mut world = World::new(1, 1);
    world.run(1_000);
    assert!(world.is_whole(1), "{}", world.log.join("\n"));
    assert_eq!(world.database.epoch, 1);
}

#[test]
fn nodes_that_start_together_join_one_after_the_other() {
    for seed in 0..6 {
        let world = whole(seed, 5);
        assert_eq!(world.database.epoch, 5, "one change for each");
        assert_eq!(world.fenced, 0);
    }
}

#[test]
fn a_node_that_reaches_the_database_but_not_a_member_waits_and_says_so() {
    let mut world = whole(3, 2);
    world.starts.insert(3, 0);
    world.cut_off(&[3], 3);
    world.run(10_000);
    let told = world.nodes[&3].waiting.as_ref().unwrap().to_string();
    assert!(told.contains("n1 (127.0.0.1:5000)") && told.contains("n2 ("), "{told}");
    assert!(!world.nodes[&3].acts(world.ms));
    world.cut.clear();
    world.until_whole(3, 5_000);
}

#[test]
fn a_node_that_dies_is_taken_over_within_the_lease_and_one_that_returns_joins_again() {
    for seed in 0..6 {
        let mut world = whole(seed, 3);
        let victim = u32::try_from(seed % 3).unwrap() + 1;
        world.crash(victim, 8_000);
        let began = world.ms;
        while world
            .nodes
            .values()
            .any(|node| node.view.as_ref().is_some_and(|view| view.node(NodeId(victim)).is_some()))
        {
            world.step();
            assert!(world.ms < began + 4_200, "{}", world.log.join("\n"));
        }
        world.until_whole(3, 15_000);
        assert_eq!(world.fenced, 0, "nobody else is taken over");
    }
}

/// As from a node that was cut off from all others, and comes back.
#[test]
fn a_false_rumour_of_a_death_is_denied_in_time_where_there_is_a_link() {
    let mut world = whole(5, 3);
    let epoch = world.database.epoch;
    let run = world.nodes[&2].run;
    for id in [1, 3] {
        world.feed(id, Input::Told(Told::Dead(run)));
    }
    world.run(1_500);
    for id in [1, 3] {
        world.feed(id, Input::Told(Told::Alive(run)));
    }
    world.run(10_000);
    assert_eq!(world.database.epoch, epoch, "{:#?}", world.log);
    // Not denied, it is true, whatever the link says.
    for id in [1, 3] {
        world.feed(id, Input::Told(Told::Dead(run)));
    }
    world.run(4_000);
    assert_eq!(world.database.epoch, epoch + 1, "{:#?}", world.log);
}

#[test]
fn of_two_nodes_the_one_with_the_higher_id_waits_for_the_lease() {
    let mut world = whole(5, 2);
    world.crash(1, 20_000);
    world.run(5_500);
    assert_eq!(world.database.members.len(), 1);
    assert!(world.nodes[&2].acts(world.ms));
}

#[test]
fn a_partition_leaves_one_side_and_heals_without_an_operator() {
    for seed in 0..6 {
        let mut world = whole(seed, 3);
        let alone = u32::try_from(seed % 3).unwrap() + 1;
        world.cut_off(&[alone], 3);
        world.run(12_000);
        assert_eq!(world.database.members.len(), 2, "{}", world.log.join("\n"));
        assert_eq!(world.fenced, 1, "the one alone");
        world.cut.clear();
        world.until_whole(3, 15_000);
    }
}

#[test]
fn of_two_halves_the_one_with_the_lowest_id_goes_on() {
    let mut world = whole(9, 4);
    world.cut_off(&[2, 3], 4);
    world.run(12_000);
    let ids: Vec<u32> = world.database.members.iter().map(|member| member.run.node.0).collect();
    assert_eq!(ids, [1, 4]);
    assert!(world.nodes[&1].acts(world.ms) && world.nodes[&4].acts(world.ms));
    world.cut.clear();
    world.until_whole(4, 20_000);
}

#[test]
fn a_minority_with_the_database_goes_on_when_the_leases_of_the_majority_are_over() {
    let mut world = whole(10, 3);
    world.cut_off(&[3], 3);
    world.away.extend([1, 2]);
    world.run(12_000);
    assert!(world.nodes[&3].acts(world.ms), "{}", world.log.join("\n"));
    assert!(!world.nodes[&1].acts(world.ms) && !world.nodes[&2].acts(world.ms));
    world.cut.clear();
    world.away.clear();
    world.until_whole(3, 30_000);
}

#[test]
fn without_the_database_nobody_acts_and_nobody_is_taken_over() {
    for seed in 0..3 {
        let mut world = whole(seed, 3);
        world.away.extend([1, 2, 3]);
        world.run(60_000);
        assert!(world.nodes.values().all(|node| !node.acts(world.ms)));
        assert!(
            world
                .nodes
                .values()
                .all(|node| { matches!(node.waiting, Some(Reason::Database { .. })) })
        );
        let epoch = world.database.epoch;
        world.away.clear();
        world.until_whole(3, 10_000);
        assert_eq!((world.database.epoch, world.fenced), (epoch, 0));
    }
}

#[test]
fn a_node_without_the_database_that_others_see_keeps_its_sockets_for_a_while() {
    let mut world = whole(11, 3);
    world.away.insert(2);
    world.run(15_000);
    assert_eq!(world.fenced, 0);
    assert_eq!(world.database.members.len(), 3);
    world.away.clear();
    world.until_whole(3, 5_000);
    world.away.insert(2);
    world.run(45_000);
    assert_eq!(world.database.members.len(), 2, "its accounts are served at last");
    world.away.clear();
    world.until_whole(3, 15_000);
}

#[test]
fn who_leaves_gives_all_away_first() {
    let mut world = whole(12, 3);
    world.wish(1, Wish::Leave);
    let epoch = world.database.epoch;
    while !world.nodes[&1].has_left {
        world.step();
        assert!(world.ms < 60_000, "{}", world.log.join("\n"));
    }
    assert_eq!(world.database.epoch, epoch + 2, "drained, then removed");
    let drained = &world.database.history[&(epoch + 1)];
    assert_eq!(drained.iter().map(|node| node.weight).collect::<Vec<_>>(), [0, 10, 10]);
    assert_eq!((world.database.members.len(), world.fenced), (2, 0));
}

#[test]
fn a_node_is_drained_and_filled_again() {
    let mut world = whole(13, 3);
    for weight in [0, 7] {
        world.wish(2, Wish::Weight(weight));
        world.run(3_000);
        assert_eq!(world.database.members[1].weight, weight);
        assert!(world.is_whole(3));
    }
}

#[test]
fn the_last_one_that_serves_keeps_on_until_another_does() {
    let mut world = whole(14, 3);
    let weights = |world: &World| -> Vec<u32> {
        world.database.members.iter().map(|node| node.weight).collect()
    };
    for node in [2, 3, 1] {
        world.wish(node, Wish::Weight(0));
        world.run(3_000);
    }
    assert_eq!(weights(&world), [10, 0, 0]);
    world.wish(3, Wish::Weight(5));
    world.run(5_000);
    assert_eq!(weights(&world), [0, 0, 5]);
}

#[test]
fn who_leaves_last_of_those_that_serve_gives_all_to_the_drained() {
    let mut world = whole(15, 3);
    for node in [2, 3] {
        world.wish(node, Wish::Weight(0));
        world.run(3_000);
    }
    world.wish(1, Wish::Leave);
    let mut told = false;
    while !world.nodes[&1].has_left {
        world.step();
        assert!(world.ms < 60_000, "{}", world.log.join("\n"));
        let members = &world.database.members;
        told |= members.len() == 3 && members.iter().filter(|node| node.weight == 0).count() == 3;
    }
    assert!(!told, "nobody served");
    world.run(5_000);
    let weights: Vec<u32> = world.database.members.iter().map(|node| node.weight).collect();
    assert_eq!((weights, world.fenced), (vec![0, 1], 0), "one has to");
}

/// A cluster is shut down.
#[test]
fn all_may_leave_at_once() {
    for seed in 0..5 {
        let mut world = whole(seed, 3);
        for node in 1..=3 {
            world.wish(node, Wish::Leave);
        }
        while !world.nodes.values().all(|node| node.has_left) {
            world.step();
            assert!(world.ms < 90_000, "{}", world.log.join("\n"));
        }
        assert_eq!(world.fenced, 0, "{seed}");
        let serves = |members: &Vec<NodeFacts>| members.iter().any(|node| node.weight > 0);
        let mut epochs = world.database.history.values().filter(|members| members.len() > 1);
        assert!(epochs.all(serves), "{seed}: nobody serves");
    }
}

#[test]
fn a_cluster_that_ended_whole_starts_again() {
    for seed in 0..3 {
        let mut world = whole(seed, 3);
        for (node, back) in [(1, 5_000), (2, 9_000), (3, 5_100)] {
            world.crash(node, back);
        }
        world.until_whole(3, 25_000);
        assert_eq!(world.fenced, 0);
    }
}

/// Every seed is a story of faults; then all ends, and it is whole again within 30 s.
#[test]
fn whatever_happens_there_is_one_owner_and_it_heals() {
    let seeds = std::env::var("AUTHORITY_SEEDS").ok().and_then(|text| text.parse().ok());
    for seed in 0..seeds.unwrap_or(12) {
        let count = 3 + u32::try_from(seed % 3).unwrap();
        let mut world = World::new(seed, count);
        world.is_lossy = true;
        let some = |world: &mut World| u32::try_from(world.rng.below(count.into())).unwrap() + 1;
        for _ in 0..12 {
            let (one, other) = (some(&mut world), some(&mut world));
            let pause = world.rng.below(6_000);
            match world.rng.below(10) {
                0 | 1 => world.crash(one, pause),
                2 => world.cut_off(&[one], count),
                3 => world.cut_off(&[one, other], count),
                // A partial one.
                4 if one != other => {
                    world.cut.insert((one.min(other), one.max(other)));
                }
                5 | 6 => world.cut.clear(),
                7 => {
                    world.away.insert(one);
                }
                8 => world.away.clear(),
                _ => world.wish(one, Wish::Weight(u32::try_from(pause % 12).unwrap())),
            }
            let pause = world.rng.below(5_000);
            world.run(pause);
        }
        world.cut.clear();
        world.away.clear();
        let took = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.until_whole(count as usize, 30_000)
        }));
        assert!(took.is_ok(), "seed {seed} of {count} nodes");
    }
}
