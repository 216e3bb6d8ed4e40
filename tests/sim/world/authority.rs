//! Who decides in a cluster: the authority of each node, which asks the database, and what gossip says to it.
//!
//! The machine is the real one. Questions and answers take their time and get lost; what is asked may be done though its
//! answer is not heard. Gossip finds out late who is there and who is not.

use super::cluster::{Fault, Happening};
use super::*;
use corefire::cluster::authority::{Answer, Authority, Input as Ask, Output, Request, Told};

/// How long a question may take, as in `store::postgres::cluster`, in µs.
const LIMIT: u64 = 2 * SECOND;
/// How often it is looked who hears whom.
const GOSSIP: u64 = SECOND / 10;

/// What one node is told by gossip.
#[derive(Clone, Copy, Default)]
pub(super) struct Heard {
    is_alive: bool,
    /// It has been otherwise since then.
    since: Option<u64>,
}

/// A run's part in deciding.
pub(super) struct Seat {
    machine: Authority,
    wake_at: u64,
    /// The newest epoch that all of its shards have settled, as it was told.
    settled: u64,
    /// By run.
    heard: BTreeMap<usize, Heard>,
}

fn mono(now: u64) -> Instant {
    Instant((now + 1_000_000_000) * 1000)
}

fn micros(at: Instant) -> u64 {
    (at.0 / 1000).saturating_sub(1_000_000_000)
}

impl World {
    /// Whether a run can ask the database now.
    fn has_store(&self, run: usize) -> bool {
        let away = self.cluster.away.get(&self.runs[run].id.node.0).copied().unwrap_or(0);
        self.now >= away.max(self.cluster.silent_until)
    }

    /// Whether the node's next run can begin.
    pub(super) fn may_start(&self, node: u32) -> bool {
        let away = self.cluster.away.get(&node).copied().unwrap_or(0);
        self.cluster.database.is_free(node, self.now)
            && self.now >= away.max(self.cluster.silent_until)
    }

    pub(super) fn is_fenced(&self, run: usize) -> bool {
        self.cluster.database.is_fenced(self.runs[run].id)
    }

    pub(super) fn facts(&self, run: usize, weight: u32) -> NodeFacts {
        let id = self.runs[run].id;
        NodeFacts {
            name: format!("node-{}", id.node.0),
            run: id,
            shards: self.plan.shards,
            weight,
            link: ([127, 0, 0, 1], 7000 + id.node.0 as u16).into(),
            clients: Vec::new(),
            components: Vec::new(),
            federates: false,
            frames: (1, 1),
            version: String::new(),
        }
    }

    pub(super) fn take_seat(&mut self, run: usize) {
        let facts = self.facts(run, 1);
        self.cluster.database.claim(facts.clone(), self.now);
        let machine = Authority::new(facts, mono(self.now));
        let seat = Seat { machine, wake_at: u64::MAX, settled: 0, heard: BTreeMap::new() };
        self.runs[run].seat = Some(seat);
        self.wake_authority(run);
        match self.plan.cluster.as_ref().is_some_and(|plan| plan.swim) {
            true => self.lend_ear(run),
            false => self.at_cluster(self.now + GOSSIP, Happening::Gossip(run)),
        }
    }

    fn wake_authority(&mut self, run: usize) {
        let now = self.now;
        let Some(seat) = &mut self.runs[run].seat else { return };
        let Some(wake) = seat.machine.wake() else { return };
        let at = micros(wake).max(now) + 1;
        if at < seat.wake_at || seat.wake_at <= now {
            seat.wake_at = at;
            self.at_cluster(at, Happening::Tell(run, Ask::Tick));
        }
    }

    /// Something for a run's authority.
    pub(super) fn tell(&mut self, run: usize, input: Ask) {
        if !self.runs[run].lives {
            return;
        }
        // A stall may end sooner than was said, or later: what waits for its end goes before what comes after it.
        self.runs[run].untold.push_back(input);
        self.tell_all(run);
    }

    /// What a run's authority was not told yet, if the run does not stand still.
    pub(super) fn tell_all(&mut self, run: usize) {
        let slot = &self.runs[run];
        if slot.stalled_until > self.now && !slot.untold.is_empty() {
            let end = slot.stalled_until + 1;
            return self.at_cluster(end, Happening::Wake(run));
        }
        while self.runs[run].lives
            && let Some(input) = self.runs[run].untold.pop_front()
        {
            self.tell_now(run, input);
        }
    }

    fn tell_now(&mut self, run: usize, input: Ask) {
        let mut out = Vec::new();
        let Some(seat) = &mut self.runs[run].seat else { return };
        seat.machine.handle(mono(self.now), input, &mut out);
        for output in out {
            match output {
                Output::Ask(request) => {
                    let delay = self.chance.delay(self.slow());
                    self.at_cluster(self.now + delay, Happening::Asked(run, self.now, request));
                }
                Output::Adopt(view) => self.adopt(run, view),
                Output::Lease(until) => {
                    self.runs[run].lease_until = micros(until);
                    self.go_on(run);
                }
                Output::Waiting(reason) if self.log => {
                    let reason = reason.map(|reason| reason.to_string());
                    eprintln!("{} run {run} waits: {reason:?}", self.now);
                }
                Output::Waiting(_) => {}
                Output::Fenced => return self.crash(run),
                Output::Left => {
                    self.say_goodbye(run);
                    self.cluster.database.release(self.runs[run].id, self.now);
                    return self.crash(run);
                }
            }
        }
        self.wake_authority(run);
    }

    fn slow(&self) -> u64 {
        self.plan.cluster.as_ref().map_or(0, |plan| plan.slow)
    }

    /// - takes: `sent`, when it was asked
    pub(super) fn asked(&mut self, run: usize, sent: u64, request: Request) {
        let late = sent + LIMIT;
        let failed = || Answer::Failed("no answer".to_owned());
        let delay = self.chance.delay(self.slow());
        let (at, answer) = if self.has_store(run) && self.now < late {
            let answer = match request {
                Request::Renew(beat) => self.cluster.database.renew(beat, self.now),
                Request::Propose(proposal) => {
                    let outcome = self.cluster.database.propose(&proposal, self.now);
                    if self.log {
                        eprintln!("{} {outcome:?} {}", self.now, proposal.why);
                    }
                    Answer::Proposed(outcome)
                }
            };
            // The connection may break while the answer is on its way.
            match self.now + delay {
                at if at < late && self.has_store(run) => (at, answer),
                _ => (late, failed()),
            }
        } else {
            (late.max(self.now), failed())
        };
        self.at_cluster(at, Happening::Tell(run, Ask::Answer(answer)));
    }

    fn adopt(&mut self, run: usize, view: Arc<View>) {
        if self.log {
            let members: Vec<_> = view
                .nodes
                .iter()
                .map(|it| (it.name.as_str(), it.run.incarnation, it.weight))
                .collect();
            eprintln!("{} run {run} adopts {} {members:?}", self.now, view.epoch());
        }
        let known = self.cluster.views.entry(view.epoch()).or_insert_with(|| view.clone());
        if *known != view {
            return self.model.fail(|| format!("R9: two epochs {}", view.epoch()));
        }
        self.counts.epochs = self.counts.epochs.max(view.epoch());
        for other in 0..self.runs.len() {
            let was_replaced = self.runs[other].is_replaced;
            if !was_replaced && self.is_fenced(other) && !view.has(self.runs[other].id) {
                self.runs[other].is_replaced = true;
                self.taken_over(other);
            }
        }
        for core in self.runs[run].cores.clone() {
            self.give(core, Given::Placed(view.clone()));
        }
        self.disturb_change();
        for other in 0..self.runs.len() {
            if other != run && self.is_linked(run, other) {
                let delay = self.chance.delay(50_000);
                let told = Ask::Told(Told::EpochTold(view.epoch()));
                self.at_cluster(self.now + delay, Happening::Tell(other, told));
            }
        }
    }

    /// Owners change, and something else happens soon.
    fn disturb_change(&mut self) {
        let Some(plan) = &self.plan.cluster else { return };
        let (nodes, most) = (u64::from(plan.nodes), plan.disturbed);
        if self.quiet || self.cluster.disturbed >= most || !self.chance.percent(25) {
            return;
        }
        self.cluster.disturbed += 1;
        let node = self.chance.within(1, nodes) as u32;
        let delay = self.chance.delay(SECOND);
        let fault = match self.chance.below(3) {
            0 => Fault::Stall(node, self.chance.below(8 * SECOND)),
            _ => Fault::Kill(node),
        };
        self.at_cluster(self.now + delay, Happening::Fault(fault));
    }

    /// What came while there was no lease is dealt with.
    fn go_on(&mut self, run: usize) {
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

    /// The shards of a run may have settled an epoch.
    pub(super) fn look_at_settled(&mut self, run: usize) {
        let shards = self.runs[run].cores.clone();
        let settled = shards.map(|core| self.cores[core].shard.settled_epoch()).min().unwrap_or(0);
        let Some(seat) = self.runs[run].seat.as_mut().filter(|seat| seat.settled != settled) else {
            return;
        };
        seat.settled = settled;
        let delay = self.chance.delay(100_000);
        self.at_cluster(self.now + delay, Happening::Tell(run, Ask::Settled(settled)));
    }

    /// Gossip finds out who is there: those who come soon, those who are silent when they have been for a while.
    pub(super) fn gossip(&mut self, run: usize) {
        if !self.runs[run].lives {
            return;
        }
        self.at_cluster(self.now + GOSSIP, Happening::Gossip(run));
        let (node, now) = (self.runs[run].id.node.0, self.now);
        if self.runs[run].stalled_until > now {
            return;
        }
        let mut told = Vec::new();
        for other in (0..self.runs.len()).filter(|other| *other != run) {
            let it = &self.runs[other];
            let is_there = it.lives
                && it.stalled_until <= now
                && self.reaches(node, it.id.node.0)
                && self.reaches(it.id.node.0, node);
            let id = it.id;
            let needs = match is_there {
                true => 50_000 + self.chance.below(300_000),
                false => 1_200_000 + self.chance.below(800_000),
            };
            let Some(seat) = &mut self.runs[run].seat else { return };
            if !is_there && seat.heard.get(&other).is_none_or(|heard| !heard.is_alive) {
                continue;
            }
            let heard = seat.heard.entry(other).or_default();
            if heard.is_alive == is_there {
                heard.since = None;
            } else if now - *heard.since.get_or_insert(now) >= needs {
                *heard = Heard { is_alive: is_there, since: None };
                told.push(if is_there { Told::Alive(id) } else { Told::Dead(id) });
            }
        }
        for told in told {
            self.tell(run, Ask::Told(told));
        }
    }
}
