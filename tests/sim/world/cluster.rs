//! Several nodes in a world: their runs, the links between them, and the authority that decides who is a member.
//!
//! The authority is a script of what `cluster::authority` promises: epochs rise by one, a run that is taken over is fenced
//! with the epoch that does so, and nobody acts by that epoch while the run may believe in its lease. A link keeps order
//! and loses what is under way when it breaks; then `Input::Linked` comes at either side, at a time of its own.

use super::*;
use corefire::cluster::placement::Owner;
use corefire::shard::Peer as RingPeer;
use std::ops::Range;

/// As in `cluster::authority`, in µs.
const LEASE: u64 = 3 * SECOND;
const RENEW: u64 = SECOND;
const MARGIN: u64 = SECOND / 4;

/// What a seed decides of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct ClusterPlan {
    pub(crate) nodes: u32,
    /// Those that are there from the start.
    founders: u32,
    faults: Vec<(u64, Fault)>,
    /// How long it takes at most until a node hears of an epoch.
    slow: u64,
    /// Between nodes.
    far: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    Kill(u32),
    /// It stands still.
    Stall(u32, u64),
    /// The link between two breaks, and is there again after so long.
    Break(u32, u32, u64),
    /// It reaches no other node, nor the authority where that is said.
    Isolate(u32, u64, bool),
    /// The authority does not answer.
    Silence(u64),
    Weight(u32, u32),
    /// It owns nothing any more, then ends, then starts again.
    Leave(u32),
    Join(u32),
}

impl ClusterPlan {
    pub(super) fn of(seed: u64, calm: bool) -> ClusterPlan {
        let mut chance = Chance::new(seed ^ 0xc105_7e12);
        let chance = &mut chance;
        let nodes = chance.within(2, 4) as u32;
        let founders = chance.within(1, u64::from(nodes)) as u32;
        let span = 4 * SECOND;
        let mut faults = Vec::new();
        for node in founders + 1..=nodes {
            faults.push((chance.below(span), Fault::Join(node)));
        }
        // A world has a few kinds of trouble, so that each is also seen alone.
        let kinds: Vec<u64> = (0..chance.within(1, 3)).map(|_| chance.below(7)).collect();
        let count = chance.within(1, 8);
        for _ in 0..count {
            let at = SECOND + chance.below(20 * SECOND);
            let node = chance.within(1, u64::from(nodes)) as u32;
            let other = chance.within(1, u64::from(nodes)) as u32;
            let long = chance.delay(8 * SECOND);
            let fault = match kinds[chance.index(kinds.len())] {
                0 if !calm => Fault::Kill(node),
                1 if !calm => Fault::Stall(node, long),
                2 if !calm => Fault::Break(node, other, long),
                3 if !calm => Fault::Isolate(node, long, chance.percent(50)),
                4 => Fault::Silence(long),
                5 => Fault::Leave(node),
                _ => Fault::Weight(node, [0, 1, 1, 3][chance.index(4)]),
            };
            faults.push((at, fault));
        }
        ClusterPlan {
            nodes,
            founders,
            faults,
            slow: [20_000, 500_000, 3 * SECOND][chance.index(3)],
            far: [2_000, 20_000, 300_000][chance.index(3)],
        }
    }
}

/// One run of a node.
pub(super) struct NodeRun {
    pub(super) id: Run,
    /// Of all cores that ever were.
    pub(super) cores: Range<usize>,
    pub(super) lives: bool,
    pub(super) storage: Option<Storage>,
    pub(super) fenced: bool,
    pub(super) stalled_until: u64,
    lease_until: u64,
    leaving: bool,
}

impl NodeRun {
    pub(super) fn new(id: Run, cores: Range<usize>, storage: Storage) -> NodeRun {
        NodeRun {
            id,
            cores,
            lives: true,
            storage: Some(storage),
            fenced: false,
            stalled_until: 0,
            lease_until: 0,
            leaving: false,
        }
    }
}

/// One direction of a link, between two runs.
#[derive(Default)]
struct Way {
    is_up: bool,
    generation: u32,
    at: u64,
    cargo: VecDeque<FarCargo>,
}

enum FarCargo {
    Piece { from: usize, to: usize, frames: Batch, news: Option<(u64, u64)> },
    Conn { link: LinkId, to: usize, image: Vec<u8> },
}

/// The authority, and the links.
#[derive(Default)]
pub(super) struct Cluster {
    pub(super) epoch: u64,
    /// By node: its run, and its weight.
    members: BTreeMap<u32, (usize, u32)>,
    views: BTreeMap<u64, Arc<View>>,
    /// Nobody acts by newer epochs before that.
    adopt_at: u64,
    ways: BTreeMap<(usize, usize), Way>,
    silent_until: u64,
    isolated: BTreeMap<u32, (u64, bool)>,
    /// The newest epoch that each core was told.
    told: BTreeMap<usize, u64>,
}

pub(super) enum Happening {
    Fault(Fault),
    Join(usize),
    Lease(usize),
    View(usize, Arc<View>),
    /// Others take this run for dead.
    Suspect(usize),
    MayLeave(usize),
    LinkUp(usize, usize),
    Arrive(usize, usize, u32),
}

impl Given {
    /// It comes from clients or from other nodes.
    pub(super) fn needs_lease(&self, own: Run) -> bool {
        match self {
            Given::Bytes(..) | Given::Secured(_) | Given::Linked(_) | Given::AdoptImage(..) => true,
            Given::Frames(from, _) | Given::Handled(from, ..) => from.run != own,
            _ => false,
        }
    }
}

impl World {
    pub(super) fn living(&self) -> impl Iterator<Item = &Core> {
        self.cores.iter().filter(|core| core.lives)
    }

    /// The run of a node that lives.
    fn run_of(&self, node: u32) -> Option<usize> {
        self.runs.iter().rposition(|run| run.lives && run.id.node.0 == node)
    }

    pub(super) fn is_up(&self, node: u32) -> bool {
        self.run_of(node).is_some()
    }

    fn at_cluster(&mut self, at: u64, happening: Happening) {
        self.plan_at(at, Event::Cluster(happening));
    }

    pub(super) fn found(&mut self) {
        let Some(plan) = self.plan.cluster.clone() else { return };
        for node in 1..=plan.founders {
            self.boot(node);
        }
        for (at, fault) in plan.faults {
            self.at_cluster(at, Happening::Fault(fault));
        }
    }

    /// Whether clients may connect to that core.
    pub(super) fn admits(&self, core: usize) -> bool {
        let run = &self.runs[self.cores[core].run];
        let is_member = self.plan.cluster.is_none()
            || self.cluster.told.contains_key(&core)
                && !run.leaving
                && run.stalled_until <= self.now;
        self.cores[core].lives && is_member
    }

    pub(super) fn has_lease(&self, core: usize) -> bool {
        self.plan.cluster.is_none() || self.runs[self.cores[core].run].lease_until > self.now
    }

    pub(super) fn crash_all(&mut self) {
        for run in 0..self.runs.len() {
            self.crash(run);
        }
    }

    pub(super) fn crash_one(&mut self) {
        let live: Vec<usize> = (0..self.runs.len()).filter(|run| self.runs[*run].lives).collect();
        let run = match live.len() {
            0 => return,
            1 => live[0],
            count => live[self.chance.index(count)],
        };
        self.crash(run);
    }

    /// How much longer a node is down than its service manager takes.
    pub(super) fn pause(&mut self) -> u64 {
        match self.plan.cluster {
            Some(_) if !self.quiet => self.chance.delay(6 * SECOND),
            _ => 0,
        }
    }

    /// A run began: it has a lease, finds the others, wants to be a member.
    pub(super) fn started(&mut self, run: usize) {
        self.runs[run].lease_until = self.now + LEASE;
        self.at_cluster(self.now + RENEW, Happening::Lease(run));
        for other in 0..run {
            if self.runs[other].lives {
                let delay = self.chance.delay(300_000);
                self.at_cluster(self.now + delay, Happening::LinkUp(other, run));
            }
        }
        let delay = self.chance.delay(300_000);
        self.at_cluster(self.now + delay, Happening::Join(run));
    }

    pub(super) fn crashed(&mut self, run: usize) {
        if self.plan.cluster.is_none() {
            return;
        }
        self.model.death_at = self.now;
        for other in 0..self.runs.len() {
            self.break_link(run, other);
        }
        let delay = 300_000 + self.chance.below(1_700_000);
        self.at_cluster(self.now + delay, Happening::Suspect(run));
    }

    fn is_reachable(&self, run: usize) -> bool {
        let cut = self.cluster.isolated.get(&self.runs[run].id.node.0);
        self.cluster.silent_until <= self.now
            && !cut.is_some_and(|(until, of_store)| *of_store && *until > self.now)
    }

    // ---- the authority

    fn propose(&mut self) {
        let (shards, slow) = (self.plan.shards, self.plan.cluster.as_ref().map_or(0, |it| it.slow));
        let cluster = &mut self.cluster;
        cluster.epoch += 1;
        let nodes = cluster.members.iter().map(|(node, (run, weight))| NodeFacts {
            name: format!("node-{node}"),
            run: self.runs[*run].id,
            shards,
            weight: *weight,
            link: ([127, 0, 0, 1], 1).into(),
            clients: Vec::new(),
            frames: (1, 1),
            version: String::new(),
        });
        let view = Arc::new(View::new(cluster.epoch, nodes.collect()));
        cluster.views.insert(cluster.epoch, view.clone());
        let members: Vec<usize> = cluster.members.values().map(|(run, _)| *run).collect();
        for run in members {
            if !self.runs[run].lives {
                continue;
            }
            let delay = self.chance.delay(slow);
            let cut = self.cluster.isolated.get(&self.runs[run].id.node.0);
            let until = cut.filter(|(_, of_store)| *of_store).map_or(0, |(until, _)| *until);
            let at = (self.now + delay).max(self.cluster.adopt_at).max(until);
            self.at_cluster(at, Happening::View(run, view.clone()));
        }
    }

    /// Others take a run for dead: it is fenced, and they own what was its.
    fn take_over(&mut self, run: usize) {
        let node = self.runs[run].id.node.0;
        let is_member = self.cluster.members.get(&node).is_some_and(|(of, _)| *of == run);
        // Somebody who lives must ask for it.
        let proposer = self.cluster.members.values().any(|(other, _)| {
            *other != run && self.runs[*other].lives && self.is_reachable(*other)
        });
        if !is_member {
            return;
        }
        if !proposer {
            return self.at_cluster(self.now + 500_000, Happening::Suspect(run));
        }
        if self.log {
            eprintln!("{} run {run} of node {node} is taken over", self.now);
        }
        self.runs[run].fenced = true;
        self.cluster.members.remove(&node);
        let over = self.runs[run].lease_until + MARGIN;
        self.cluster.adopt_at = self.cluster.adopt_at.max(over);
        self.propose();
    }

    fn join(&mut self, run: usize) {
        if !self.runs[run].lives {
            return;
        }
        if !self.is_reachable(run) {
            return self.at_cluster(self.now + 200_000, Happening::Join(run));
        }
        let node = self.runs[run].id.node.0;
        if let Some((old, _)) = self.cluster.members.insert(node, (run, 1)) {
            self.runs[old].fenced = true;
            let over = self.runs[old].lease_until + MARGIN;
            self.cluster.adopt_at = self.cluster.adopt_at.max(over);
        }
        self.propose();
    }

    fn renew(&mut self, run: usize) {
        if !self.runs[run].lives {
            return;
        }
        let stalled = self.runs[run].stalled_until;
        if stalled > self.now {
            let delay = self.chance.delay(300_000);
            return self.at_cluster(stalled + delay, Happening::Lease(run));
        }
        if !self.is_reachable(run) {
            return self.at_cluster(self.now + 200_000, Happening::Lease(run));
        }
        if self.runs[run].fenced {
            return self.crash(run);
        }
        self.runs[run].lease_until = self.now + LEASE;
        self.at_cluster(self.now + RENEW, Happening::Lease(run));
        for core in self.runs[run].cores.clone() {
            let slot = &mut self.cores[core];
            while let Some(given) = slot.kept_back.pop_back() {
                slot.inputs.push_front(given);
            }
            if !slot.inputs.is_empty() && !slot.planned {
                slot.planned = true;
                self.plan_in(1, Event::Run(core));
            }
        }
    }

    fn may_leave(&mut self, run: usize) {
        let node = self.runs[run].id.node.0;
        let is_member = self.cluster.members.get(&node).is_some_and(|(of, _)| *of == run);
        if !self.runs[run].lives || !is_member {
            return;
        }
        let epoch = self.cluster.epoch;
        let mut cores = self.runs[run].cores.clone();
        let is_done = cores.all(|core| self.cores[core].shard.settled_epoch() == epoch);
        if !is_done || !self.is_reachable(run) || self.cluster.members.len() < 2 {
            return self.at_cluster(self.now + 200_000, Happening::MayLeave(run));
        }
        self.cluster.members.remove(&node);
        self.runs[run].fenced = true;
        self.propose();
        self.crash(run);
    }

    pub(super) fn cluster_happens(&mut self, happening: Happening) {
        match happening {
            Happening::Fault(fault) if !self.quiet => self.fault(fault),
            Happening::Fault(Fault::Join(node)) => self.boot(node),
            Happening::Fault(_) => {}
            Happening::Join(run) => self.join(run),
            Happening::Lease(run) => self.renew(run),
            Happening::View(run, view) => {
                if !self.runs[run].lives {
                    return;
                }
                for core in self.runs[run].cores.clone() {
                    self.give(core, Given::Placed(view.clone()));
                }
            }
            Happening::Suspect(run) => self.take_over(run),
            Happening::MayLeave(run) => self.may_leave(run),
            Happening::LinkUp(one, two) => self.link_up(one, two),
            Happening::Arrive(from, to, generation) => self.arrive(from, to, generation),
        }
    }

    fn fault(&mut self, fault: Fault) {
        if self.log {
            eprintln!("{} {fault:?}", self.now);
        }
        match fault {
            Fault::Kill(node) => {
                if let Some(run) = self.run_of(node) {
                    self.crash(run);
                }
            }
            Fault::Stall(node, span) => {
                let Some(run) = self.run_of(node) else { return };
                self.runs[run].stalled_until = self.now + span;
                self.suspect_maybe(run, span);
            }
            Fault::Break(node, other, span) => {
                let (Some(one), Some(two)) = (self.run_of(node), self.run_of(other)) else {
                    return;
                };
                self.break_link(one, two);
                self.at_cluster(self.now + span, Happening::LinkUp(one, two));
            }
            Fault::Isolate(node, span, of_store) => {
                let Some(run) = self.run_of(node) else { return };
                self.cluster.isolated.insert(node, (self.now + span, of_store));
                for other in 0..self.runs.len() {
                    if other != run && self.runs[other].lives {
                        self.break_link(run, other);
                        let delay = self.chance.delay(300_000);
                        self.at_cluster(self.now + span + delay, Happening::LinkUp(run, other));
                    }
                }
                self.suspect_maybe(run, span);
            }
            Fault::Silence(span) => {
                self.cluster.silent_until = self.cluster.silent_until.max(self.now + span);
            }
            Fault::Weight(node, weight) => {
                if let Some((_, slot)) = self.cluster.members.get_mut(&node) {
                    *slot = weight;
                    self.propose();
                }
            }
            Fault::Leave(node) => {
                let Some((run, weight)) = self.cluster.members.get_mut(&node) else { return };
                *weight = 0;
                let run = *run;
                self.runs[run].leaving = true;
                self.propose();
                self.at_cluster(self.now + 200_000, Happening::MayLeave(run));
            }
            Fault::Join(node) => self.boot(node),
        }
    }

    fn suspect_maybe(&mut self, run: usize, span: u64) {
        if span > 3 * SECOND / 2 && self.chance.percent(70) {
            self.at_cluster(self.now + 3 * SECOND / 2, Happening::Suspect(run));
        }
    }

    /// No more trouble.
    pub(super) fn calm_down(&mut self) {
        for run in &mut self.runs {
            run.stalled_until = run.stalled_until.min(self.now);
        }
        self.cluster.silent_until = 0;
        self.cluster.isolated.clear();
    }

    /// Liveness: half a minute after the last fault all who run are members, and know who owns what.
    pub(super) fn check_epochs(&mut self) {
        if self.plan.cluster.is_none() || self.model.failure.is_some() {
            return;
        }
        let epoch = self.cluster.epoch;
        for core in 0..self.cores.len() {
            let slot = &self.cores[core];
            if !slot.lives {
                continue;
            }
            let settled = slot.shard.settled_epoch();
            let place = slot.place;
            let told = self.cluster.told.get(&core).copied().unwrap_or(0);
            if settled != epoch {
                return self.model.fail(|| {
                    format!("liveness: {place:?} settled {settled}, told {told}, of {epoch}")
                });
            }
        }
        for client in &self.clients {
            if client.phase != Phase::Online {
                let (index, phase) = (client.index, client.phase);
                return self.model.fail(|| format!("liveness: client {index} is in {phase:?}"));
            }
        }
    }

    // ---- R9

    /// Nobody writes for an account while another may: what is under way for it, is of one run.
    pub(super) fn check_owners(&mut self, core: usize, writes: &[(Ticket, Write)]) {
        if self.plan.cluster.is_none() || writes.is_empty() {
            return;
        }
        let (run, place) = (self.cores[core].run, self.cores[core].place);
        if self.runs[run].fenced {
            return;
        }
        let owner = Owner { node: place.run.node, shard: place.shard };
        let settled = self.cores[core].shard.settled_epoch();
        for (_, write) in writes {
            let Some(account) = write.owner() else { continue };
            let others = self.runs.iter().enumerate().filter(|(at, it)| *at != run && !it.fenced);
            let mut pending =
                others.flat_map(|(_, it)| it.storage.iter().flat_map(Storage::pending));
            if pending.any(|other| other.owner() == Some(account)) {
                let text =
                    format!("R9: {place:?} and another write for {account:?}: {}", show(write));
                return self.model.fail(|| text);
            }
            let Some(view) = self.cluster.views.get(&settled) else { continue };
            if view.placement.owner(account.hash64()) != owner {
                let text =
                    format!("R9: {place:?} writes for {account:?} at {settled}: {}", show(write));
                return self.model.fail(|| text);
            }
        }
    }

    pub(super) fn told(&mut self, core: usize, epoch: u64) {
        let told = self.cluster.told.entry(core).or_default();
        *told = epoch.max(*told);
    }

    // ---- links

    fn link_up(&mut self, one: usize, two: usize) {
        if one == two || !self.runs[one].lives || !self.runs[two].lives {
            return;
        }
        let cut = |run: usize| {
            let cut = self.cluster.isolated.get(&self.runs[run].id.node.0);
            cut.map_or(0, |(until, _)| *until)
        };
        let until = cut(one).max(cut(two));
        if until > self.now {
            return self.at_cluster(until + 1, Happening::LinkUp(one, two));
        }
        if self.cluster.ways.get(&(one, two)).is_some_and(|way| way.is_up) {
            return;
        }
        for (from, to) in [(one, two), (two, one)] {
            let way = self.cluster.ways.entry((from, to)).or_default();
            way.is_up = true;
            way.generation += 1;
            let id = self.runs[to].id;
            for core in self.runs[from].cores.clone() {
                self.give(core, Given::Linked(id));
            }
        }
    }

    fn break_link(&mut self, one: usize, two: usize) {
        if !self.cluster.ways.get(&(one, two)).is_some_and(|way| way.is_up) {
            return;
        }
        for (from, to) in [(one, two), (two, one)] {
            let Some(way) = self.cluster.ways.get_mut(&(from, to)) else { continue };
            way.is_up = false;
            way.generation += 1;
            let cargo = std::mem::take(&mut way.cargo);
            // What is in already comes through.
            let most = cargo.len() as u64;
            let through = self.chance.below(most + 1) as usize;
            for (at, cargo) in cargo.into_iter().enumerate() {
                match cargo {
                    cargo if at < through => self.unload(to, cargo),
                    FarCargo::Conn { link, .. } => self.lose_moving(link),
                    FarCargo::Piece { .. } => {}
                }
            }
        }
        // Sockets that were relayed over it are lost.
        for link in 0..self.links.len() {
            let state = &self.links[link];
            let (front, owner) = (state.front, self.cores[state.shard].run);
            if state.gone || ![(one, two), (two, one)].contains(&(front, owner)) {
                continue;
            }
            self.disturb(LinkId(link));
            self.lose(LinkId(link));
            let at = self.links[link].down_at + self.chance.below(1000);
            self.plan_at(at, Event::DownEnd(LinkId(link)));
        }
    }

    /// A connection is lost on its way to another node.
    pub(super) fn lose_moving(&mut self, link: LinkId) {
        self.links[link.0].gone = true;
        self.disturb(link);
        let at = self.links[link.0].down_at + self.chance.below(1000);
        self.plan_at(at, Event::DownEnd(link));
    }

    pub(super) fn move_far(&mut self, core: usize, conn: ConnId, link: LinkId, to: Owner) {
        let now = self.clock();
        let Some(image) = self.cores[core].shard.extract_image(now, conn) else { return };
        self.cores[core].conns.remove(&conn);
        self.links[link.0].conn = None;
        self.counts.moves += 1;
        let from = self.cores[core].run;
        let member = self
            .run_of(to.node.0)
            .filter(|run| self.cluster.ways.get(&(from, *run)).is_some_and(|way| way.is_up));
        let Some(run) = member else { return self.lose_moving(link) };
        let to = self.runs[run].cores.start + usize::from(to.shard.0);
        self.load(from, run, FarCargo::Conn { link, to, image });
    }

    pub(super) fn ship_far(&mut self, core: usize, mut news: Vec<(RingPeer, (u64, u64))>) {
        let shards = usize::from(self.plan.shards);
        for at in shards..self.cores[core].fx.outbox.len() {
            let peer = RingPeer(at as u16);
            let told = news.iter().position(|(of, _)| *of == peer);
            let slot = &mut self.cores[core];
            if slot.fx.outbox[at].is_empty() && told.is_none() {
                continue;
            }
            let frames = std::mem::take(&mut slot.fx.outbox[at]);
            let (place, from) = (slot.shard.place(peer), slot.run);
            let news = told.map(|at| news.swap_remove(at).1);
            let Some(run) = self.runs.iter().position(|run| run.id == place.run) else { continue };
            if self.cluster.ways.get(&(from, run)).is_some_and(|way| way.is_up) {
                let to = self.runs[run].cores.start + usize::from(place.shard.0);
                self.load(from, run, FarCargo::Piece { from: core, to, frames, news });
            }
        }
    }

    fn load(&mut self, from: usize, to: usize, cargo: FarCargo) {
        let delay = self.chance.delay(self.plan.cluster.as_ref().map_or(0, |plan| plan.far));
        let Some(way) = self.cluster.ways.get_mut(&(from, to)) else { return };
        way.cargo.push_back(cargo);
        way.at = (way.at + 1).max(self.now + delay);
        let (at, generation) = (way.at, way.generation);
        self.at_cluster(at, Happening::Arrive(from, to, generation));
    }

    fn arrive(&mut self, from: usize, to: usize, generation: u32) {
        let Some(way) = self.cluster.ways.get_mut(&(from, to)) else { return };
        if way.generation == generation
            && let Some(cargo) = way.cargo.pop_front()
        {
            self.unload(to, cargo);
        }
    }

    fn unload(&mut self, run: usize, cargo: FarCargo) {
        let lives = self.runs[run].lives;
        match cargo {
            FarCargo::Piece { from, to, frames, news } if lives => {
                let from = self.cores[from].place;
                if !frames.is_empty() {
                    self.give(to, Given::Frames(from, frames));
                }
                if let Some((received, handled)) = news {
                    self.give(to, Given::Handled(from, received, handled));
                }
            }
            FarCargo::Conn { link, to, image } if lives => {
                self.give(to, Given::AdoptImage(link, image));
            }
            FarCargo::Conn { link, .. } => self.lose_moving(link),
            FarCargo::Piece { .. } => {}
        }
    }
}
