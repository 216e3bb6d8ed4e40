//! Several nodes in a world: their runs, and what goes wrong with them and between them.

use super::authority::Seat;
use super::database::Database;
use super::links::Way;
use super::swim::Ear;
use super::*;
use corefire::cluster::authority::{Input as Ask, Request, Wish};
use corefire::cluster::placement::Owner;
use std::collections::VecDeque;
use std::ops::Range;

/// By what clocks are wrong, in µs.
const STEPS: [i64; 4] = [-3_600 * SECOND as i64, 3_600 * SECOND as i64, -2_000_000, 300_000];

/// Of a hundred clusters, those with the real gossip, which takes time.
const SWIM: u64 = 12;

/// What a seed decides of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct ClusterPlan {
    pub(crate) nodes: u32,
    /// Those that are there from the start.
    founders: u32,
    faults: Vec<(u64, Fault)>,
    /// How long a question to the authority is on its way at most, and its answer.
    pub(super) slow: u64,
    /// Between nodes.
    pub(super) far: u64,
    /// Gossip is the real one, and loses so many of a hundred datagrams.
    pub(super) swim: bool,
    pub(super) loss: u64,
    /// So many changes of owners are disturbed.
    pub(super) disturbed: u64,
}

#[derive(Clone, Debug)]
pub(super) enum Fault {
    Kill(u32),
    /// It stands still.
    Stall(u32, u64),
    /// The link between two breaks, and is there again after so long.
    Break(u32, u32, u64),
    /// It breaks so often.
    Flap(u32, u32, u64),
    /// Nothing comes from the first to the second for so long; the other way is open.
    OneWay(u32, u32, u64),
    /// These hear nothing of the others, nor these of them, for so long.
    Split(Vec<u32>, u64),
    /// It cannot reach the authority.
    Away(u32, u64),
    /// The authority does not answer.
    Silence(u64),
    /// Its clock of the day is set, by so many µs.
    Clock(u32, i64),
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
        let kinds: Vec<u64> = (0..chance.within(1, 3)).map(|_| chance.below(12)).collect();
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
                3 if !calm => {
                    if chance.percent(50) {
                        faults.push((at, Fault::Away(node, long)));
                    }
                    Fault::Split(vec![node], long)
                }
                4 => Fault::Silence(long),
                5 => Fault::Leave(node),
                7 if !calm => Fault::OneWay(node, other, long),
                8 if !calm => Fault::Flap(node, other, chance.within(2, 12)),
                9 if !calm => {
                    Fault::Split((1..=nodes).filter(|_| chance.percent(50)).collect(), long)
                }
                10 if !calm => Fault::Away(node, long),
                11 if !calm => Fault::Clock(node, STEPS[chance.index(STEPS.len())]),
                _ => Fault::Weight(node, [0, 1, 1, 3][chance.index(4)]),
            };
            faults.push((at, fault));
        }
        let cascades = seed & CASCADES != 0 && !calm;
        for _ in 0..if cascades { chance.within(1, 6) } else { 0 } {
            let at = SECOND + chance.below(20 * SECOND);
            let node = chance.within(1, u64::from(nodes)) as u32;
            faults.push((at, Fault::Weight(node, [0, 1, 3][chance.index(3)])));
        }
        ClusterPlan {
            nodes,
            founders,
            faults,
            slow: [10_000, 200_000, 1_500_000][chance.index(3)],
            far: [2_000, 20_000, 300_000][chance.index(3)],
            swim: chance.percent(SWIM),
            loss: if calm { 0 } else { [0, 4, 20][chance.index(3)] },
            disturbed: if cascades { chance.within(1, 4) } else { 0 },
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
    pub(super) stalled_until: u64,
    /// What its authority is told when it goes on.
    pub(super) untold: VecDeque<Ask>,
    pub(super) lease_until: u64,
    leaving: bool,
    /// Its part in deciding who owns what.
    pub(super) seat: Option<Seat>,
    pub(super) ear: Option<Ear>,
    /// Somebody acts by an epoch that took it over.
    pub(super) is_replaced: bool,
}

impl NodeRun {
    pub(super) fn new(id: Run, cores: Range<usize>, storage: Storage) -> NodeRun {
        NodeRun {
            id,
            cores,
            lives: true,
            storage: Some(storage),
            stalled_until: 0,
            untold: VecDeque::new(),
            lease_until: 0,
            leaving: false,
            seat: None,
            ear: None,
            is_replaced: false,
        }
    }
}

/// The database, the links, and what is broken now.
#[derive(Default)]
pub(super) struct Cluster {
    pub(super) database: Database,
    pub(super) views: BTreeMap<u64, Arc<View>>,
    pub(super) ways: BTreeMap<(usize, usize), Way>,
    pub(super) silent_until: u64,
    /// Nodes that cannot reach the database until then.
    pub(super) away: BTreeMap<u32, u64>,
    /// Nothing comes from the first node to the second until then.
    cut: BTreeMap<(u32, u32), u64>,
    /// How far the clocks of nodes are ahead.
    pub(super) clocks: BTreeMap<u32, i64>,
    /// Changes of owners that were.
    pub(super) disturbed: u64,
    /// The newest epoch that each core was told.
    told: BTreeMap<usize, u64>,
}

pub(super) enum Happening {
    Fault(Fault),
    /// For the authority of a run.
    Tell(usize, Ask),
    /// A run that stood still may go on.
    Wake(usize),
    /// A question of a run, and when it was asked, is at the database.
    Asked(usize, u64, Request),
    Gossip(usize),
    /// A datagram for a run, or something is due in its gossip.
    Hear(usize, Option<Vec<u8>>),
    LinkUp(usize, usize),
    /// Nothing has come over it for long, if it still is that generation.
    LinkSilent(usize, usize),
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
    pub(super) fn run_of(&self, node: u32) -> Option<usize> {
        self.runs.iter().rposition(|run| run.lives && run.id.node.0 == node)
    }

    pub(super) fn is_up(&self, node: u32) -> bool {
        self.run_of(node).is_some()
    }

    pub(super) fn at_cluster(&mut self, at: u64, happening: Happening) {
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
        self.take_seat(run);
        for other in 0..run {
            if self.runs[other].lives {
                let delay = self.chance.delay(300_000);
                self.at_cluster(self.now + delay, Happening::LinkUp(other, run));
            }
        }
    }

    pub(super) fn crashed(&mut self, run: usize) {
        if self.plan.cluster.is_none() {
            return;
        }
        self.model.death_at = self.now;
        self.model.lose_refusals(run);
        (self.runs[run].seat, self.runs[run].ear) = (None, None);
        for other in 0..self.runs.len() {
            self.break_link(run, other);
        }
    }

    /// Somebody acts by an epoch without that run. If it stands still or is cut off, that is a death to others.
    pub(super) fn taken_over(&mut self, run: usize) {
        if !self.runs[run].lives {
            return;
        }
        self.model.death_at = self.now;
        self.model.lose_refusals(run);
        let told = self.runs[run].cores.clone().filter_map(|core| self.cluster.told.get(&core));
        let view = told.max().and_then(|epoch| self.cluster.views.get(epoch));
        if view.is_none_or(|view| view.nodes.len() < 2) {
            // Nobody was there to keep copies of its sessions, as far as it knew.
            self.model.crash_at = self.now;
        }
    }

    /// Whether what one node sends to another comes there.
    pub(super) fn reaches(&self, from: u32, to: u32) -> bool {
        self.cut_until(from, to) <= self.now
    }

    pub(super) fn cut_until(&self, from: u32, to: u32) -> u64 {
        self.cluster.cut.get(&(from, to)).copied().unwrap_or(0)
    }

    pub(super) fn cluster_happens(&mut self, happening: Happening) {
        match happening {
            Happening::Fault(fault) if !self.quiet => self.fault(fault),
            Happening::Fault(Fault::Join(node)) => self.boot(node),
            Happening::Fault(_) => {}
            Happening::Tell(run, input) => self.tell(run, input),
            Happening::Wake(run) => self.tell_all(run),
            Happening::Asked(run, sent, request) => self.asked(run, sent, request),
            Happening::Gossip(run) => self.gossip(run),
            Happening::Hear(run, datagram) => self.hear(run, datagram),
            Happening::LinkUp(one, two) => self.link_up(one, two),
            Happening::LinkSilent(one, two) => self.link_silent(one, two),
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
                if let Some(run) = self.run_of(node) {
                    self.runs[run].stalled_until = self.now + span;
                }
            }
            Fault::Break(node, other, span) => {
                let (Some(one), Some(two)) = (self.run_of(node), self.run_of(other)) else {
                    return;
                };
                self.break_link(one, two);
                self.at_cluster(self.now + span, Happening::LinkUp(one, two));
            }
            Fault::Flap(node, other, count) => {
                let span = self.chance.within(10_000, 400_000);
                self.fault(Fault::Break(node, other, span));
                if count > 0 {
                    let delay = span + self.chance.below(SECOND);
                    let again = Fault::Flap(node, other, count - 1);
                    self.at_cluster(self.now + delay, Happening::Fault(again));
                }
            }
            Fault::OneWay(node, other, span) if node != other => self.sever(&[(node, other)], span),
            Fault::OneWay(..) => {}
            Fault::Split(side, span) => {
                let nodes = self.plan.cluster.as_ref().map_or(0, |plan| plan.nodes);
                let apart = |one: &u32, two: &u32| side.contains(one) != side.contains(two);
                let pairs: Vec<(u32, u32)> = (1..=nodes)
                    .flat_map(|one| (1..=nodes).map(move |two| (one, two)))
                    .filter(|(one, two)| apart(one, two))
                    .collect();
                self.sever(&pairs, span);
            }
            Fault::Away(node, span) => {
                self.cluster.away.insert(node, self.now + span);
            }
            Fault::Silence(span) => {
                self.cluster.silent_until = self.cluster.silent_until.max(self.now + span);
            }
            Fault::Clock(node, by) => {
                *self.cluster.clocks.entry(node).or_default() = by;
            }
            Fault::Weight(node, weight) => {
                if let Some(run) = self.run_of(node) {
                    self.tell(run, Ask::Wish(Wish::Weight(weight)));
                }
            }
            Fault::Leave(node) => {
                let Some(run) = self.run_of(node) else { return };
                self.runs[run].leaving = true;
                self.tell(run, Ask::Wish(Wish::Leave));
            }
            Fault::Join(node) => self.boot(node),
        }
    }

    /// Nothing comes from the first of each pair to the second any more. Who sends is told at once, or finds out.
    fn sever(&mut self, pairs: &[(u32, u32)], span: u64) {
        let is_told = self.chance.percent(50);
        for (from, to) in pairs {
            let until = self.cut_until(*from, *to).max(self.now + span);
            self.cluster.cut.insert((*from, *to), until);
            if let (Some(one), Some(two)) = (self.run_of(*from), self.run_of(*to)) {
                self.link_cut(one, two, is_told);
            }
        }
    }

    /// No more trouble.
    pub(super) fn calm_down(&mut self) {
        for run in &mut self.runs {
            run.stalled_until = run.stalled_until.min(self.now);
        }
        self.cluster.silent_until = 0;
        self.cluster.cut.clear();
        self.cluster.away.clear();
    }

    /// Liveness: half a minute after the last fault all who run are members, and know who owns what.
    pub(super) fn check_epochs(&mut self) {
        if self.plan.cluster.is_none() || self.model.failure.is_some() {
            return;
        }
        let epoch = self.cluster.database.epoch;
        for core in 0..self.cores.len() {
            let slot = &self.cores[core];
            if !slot.lives {
                continue;
            }
            let settled = slot.shard.settled_epoch();
            let place = slot.place;
            let told = self.cluster.told.get(&core).copied().unwrap_or(0);
            if settled != epoch || !self.cluster.database.is_member(place.run) {
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

    /// Nobody acts by a lease when others act by an epoch that took it over.
    pub(super) fn check_lease(&mut self, core: usize) {
        let run = self.cores[core].run;
        if self.runs[run].is_replaced {
            let place = self.cores[core].place;
            self.model.fail(|| format!("R9: {place:?} acts though it was taken over"));
        }
    }

    /// Nobody writes for an account while another may: what is under way for it, is of one run.
    pub(super) fn check_owners(&mut self, core: usize, writes: &[(Ticket, Write)]) {
        if self.plan.cluster.is_none() || writes.is_empty() {
            return;
        }
        let (run, place) = (self.cores[core].run, self.cores[core].place);
        if self.is_fenced(run) {
            return;
        }
        let owner = Owner { node: place.run.node, shard: place.shard };
        let settled = self.cores[core].shard.settled_epoch();
        for (_, write) in writes {
            let Some(account) = write.owner() else { continue };
            let others =
                self.runs.iter().enumerate().filter(|(at, _)| *at != run && !self.is_fenced(*at));
            let mut pending =
                others.flat_map(|(_, it)| it.storage.iter().flat_map(Storage::pending));
            if pending.any(|other| other.owner() == Some(account)) {
                let text =
                    format!("R9: {place:?} and another write for {account:?}: {}", show(write));
                return self.model.fail(|| text);
            }
            let Some(view) = self.cluster.views.get(&settled) else { continue };
            if drawn(&view.nodes, account) != owner {
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
}

/// The owner of an account by the rule as it is published, in fractions: they are never so close that it matters.
fn drawn(members: &[NodeFacts], account: &BareJid) -> Owner {
    let hash = account.hash64();
    let partition = (hash % 4096) as u16;
    let all_drained = members.iter().all(|member| member.weight == 0);
    let cost = |member: &NodeFacts| {
        let weight = if all_drained { 1.0 } else { f64::from(member.weight) };
        let text = [member.name.as_bytes(), &[0], &partition.to_be_bytes()].concat();
        (64.0 - (corefire::base::hash::hash64(&text).max(1) as f64).log2()) / weight
    };
    let owner = members.iter().min_by(|one, two| cost(one).total_cmp(&cost(two)));
    let owner = owner.expect("an epoch has members");
    let shard = ((hash >> 32) * u64::from(owner.shards)) >> 32;
    Owner { node: owner.run.node, shard: ShardId(shard as u16) }
}
