//! One node's view of who owns what: what it asks of the shared database, which alone decides, and what it may take for
//! decided.
//!
//! Gossip and links only propose. An epoch follows another by compare-and-set; who is taken over is fenced with it. A node
//! acts as owner while its lease lives, and its lease cannot be renewed once it was taken over, so an epoch that takes
//! somebody over is adopted when the last lease that they can believe to have is over. No more than one question is on
//! the way. The runtime carries questions and answers; the clock comes in.

mod decide;
mod reason;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::membership::REVIVAL_PERIOD;
use super::view::{NodeFacts, Run, View};
use crate::base::instant::Instant;
use decide::Step;
pub use reason::Reason;

/// How long a lease lives, by the clock of the database.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often it is renewed.
pub const RENEW: Duration = Duration::from_secs(1);
/// What a lease counts as shorter here: clocks run unevenly.
const MARGIN: Duration = Duration::from_millis(250);
/// Between two questions, whatever there is to ask.
const PACE: Duration = Duration::from_millis(50);
/// Pause after a failure; it doubles up to `RENEW`.
const BACKOFF: Duration = Duration::from_millis(100);
/// How long the next in line waits for the one before it to take somebody over.
const TURN: Duration = Duration::from_millis(600);
/// How long the database must have answered before leases count as over: when it comes back, all are.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a node that was started again has to replace its old run by itself.
const RETURN: Duration = Duration::from_secs(5);
/// After so long one that is heard of, and yet has no lease, is taken over.
const HEADLESS: Duration = Duration::from_secs(30);
/// How long one to whom there is a link has to answer to gossip that says it is dead: whoever was cut off from all of them
/// took them for dead, and says so when it comes back. Until gossip asks the dead again those who believe it are dead for
/// each other. A link breaks with its node, so that a killed one is not doubted.
const DOUBT: Duration = REVIVAL_PERIOD.saturating_mul(2).saturating_add(Duration::from_millis(500));
/// Runs of which something is remembered beside those that the database knows.
const RUNS_MAX: usize = 1_024;

/// What happened to it.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Told(Told),
    Wish(Wish),
    /// All shards of this node have what is theirs at this epoch.
    Settled(u64),
    Answer(Answer),
    /// Time has passed; see [`Authority::wake`].
    Tick,
}

/// What gossip and links say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Alive(Run),
    Dead(Run),
    /// It said so itself.
    Left(Run),
    /// There is a link to it.
    Linked(Run),
    Unlinked(Run),
    /// A peer knows this epoch.
    EpochTold(u64),
}

/// What the operator wants of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Its share; 0 to drain it.
    Weight(u32),
    /// To own nothing, and then be no member.
    Leave,
}

/// What the database said to the one question that was on its way.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// To `Renew`: the lease is renewed.
    Snapshot(Snapshot),
    /// To `Renew`: this run has been taken over.
    Fenced,
    /// To `Propose`.
    Proposed(Outcome),
    /// Nothing is known of what was asked.
    Failed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Won,
    /// The epoch is another by now, or a lease lives that should be over.
    Lost,
    /// A fence waits for writes.
    Busy,
}

/// What holds, at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// 0 before the first.
    pub epoch: u64,
    pub members: Vec<NodeFacts>,
    pub nodes: Vec<NodeRow>,
    /// Until the leases of all who were taken over are over.
    pub clear: Duration,
}

/// A node that the database knows.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow {
    /// Of the run that has its name. Its weight is the one that it wishes.
    pub facts: NodeFacts,
    pub state: State,
    pub settled: u64,
    /// What is left of it; zero: it is over.
    pub lease: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Joining,
    Member,
    Leaving,
    /// It gave its lease back.
    Left,
    /// It was taken over.
    Fenced,
}

impl State {
    /// For people.
    pub fn word(self) -> &'static str {
        match self {
            State::Joining => "joining",
            State::Member => "member",
            State::Leaving => "leaving",
            State::Left => "left",
            State::Fenced => "fenced",
        }
    }
}

/// What it wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// For the database; its answer comes in before the next.
    Ask(Request),
    /// These are the members now.
    Adopt(Arc<View>),
    /// Until then this node may act as owner of what is its own.
    Lease(Instant),
    /// Why it does not go on, whenever that changes; none: nothing is in the way.
    Waiting(Option<Reason>),
    /// This run has been taken over and must end.
    Fenced,
    /// This node is no member any more, and others have what was its own: it may end.
    Left,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Renews the lease, says this of us, and reads all.
    Renew(Beat),
    Propose(Proposal),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Beat {
    /// With the weight that this node wishes to have.
    pub facts: NodeFacts,
    pub state: State,
    pub settled: u64,
}

/// The epoch behind `from`.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    pub by: Run,
    pub from: u64,
    pub members: Vec<NodeFacts>,
    /// Runs that are taken over.
    pub fence: Vec<Run>,
    /// Of these, those that may be only if their leases are over.
    pub over: Vec<Run>,
    pub why: String,
}

/// Lives on the thread `authority`.
pub struct Authority {
    /// With the weight that it wishes.
    me: NodeFacts,
    leaving: bool,
    alive: BTreeSet<Run>,
    /// And since when gossip says so.
    dead: BTreeMap<Run, Instant>,
    linked: BTreeSet<Run>,
    told_epoch: u64,
    settled: u64,
    snapshot: Option<Snapshot>,
    /// The snapshot is newer than all that we asked to change.
    is_fresh: bool,
    /// When it came.
    learned_at: Instant,
    /// When what it says may be adopted.
    clear_at: Instant,
    adopted: Option<Arc<View>>,
    /// Until when we may act as owner.
    lease: Option<Instant>,
    asked: Option<Instant>,
    last_asked: Option<Instant>,
    renew_at: Instant,
    failures: u32,
    /// Since when the database has answered, every time.
    steady_since: Option<Instant>,
    trouble: Option<(Instant, String)>,
    /// Since when we have seen a member without a lease.
    over_since: BTreeMap<Run, Instant>,
    /// Since when somebody is to be taken over.
    vacant_since: Option<Instant>,
    /// When a decision is due that only time brings.
    decide_at: Option<Instant>,
    reason: Option<Reason>,
    has_ended: bool,
}

impl Authority {
    /// - takes: `me`, with the run that the database gave us
    pub fn new(me: NodeFacts, now: Instant) -> Authority {
        Authority {
            me,
            leaving: false,
            alive: BTreeSet::new(),
            dead: BTreeMap::new(),
            linked: BTreeSet::new(),
            told_epoch: 0,
            settled: 0,
            snapshot: None,
            is_fresh: false,
            learned_at: now,
            clear_at: now,
            adopted: None,
            lease: None,
            asked: None,
            last_asked: None,
            renew_at: now,
            failures: 0,
            steady_since: None,
            trouble: None,
            over_since: BTreeMap::new(),
            vacant_since: None,
            decide_at: None,
            reason: None,
            has_ended: false,
        }
    }

    /// When it is to be given a `Tick`, if nothing happens before; none while only an answer can help.
    pub fn wake(&self) -> Option<Instant> {
        if self.has_ended {
            return None;
        }
        let is_held = self.snapshot.as_ref().is_some_and(|found| {
            let concerns_us = self.adopted.is_some() || found.has(self.me.run);
            found.epoch > self.epoch() && concerns_us
        });
        let adopt = is_held.then_some(self.clear_at);
        let ask = [Some(self.renew_at), self.decide_at].into_iter().flatten().min();
        [adopt, ask.filter(|_| self.asked.is_none())].into_iter().flatten().min()
    }

    /// What the database said last.
    pub fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    pub fn reason(&self) -> Option<&Reason> {
        self.reason.as_ref()
    }

    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        if self.has_ended {
            return;
        }
        match input {
            Input::Told(told) => self.on_told(now, told),
            Input::Wish(Wish::Weight(weight)) => self.me.weight = weight,
            Input::Wish(Wish::Leave) => self.leaving = true,
            Input::Settled(epoch) if epoch > self.settled => {
                self.settled = epoch;
                self.read_soon(now);
            }
            Input::Settled(_) | Input::Tick => {}
            Input::Answer(answer) => self.on_answer(now, answer, out),
        }
        if !self.has_ended {
            self.go_on(now, out);
        }
    }

    fn on_told(&mut self, now: Instant, told: Told) {
        match told {
            Told::Alive(run) => {
                self.dead.remove(&run);
                self.alive.insert(run);
            }
            Told::Dead(run) | Told::Left(run) => {
                self.alive.remove(&run);
                self.dead.entry(run).or_insert(now);
                self.read_soon(now);
            }
            Told::Linked(run) => {
                self.linked.insert(run);
            }
            Told::Unlinked(run) => {
                self.linked.remove(&run);
            }
            Told::EpochTold(epoch) => {
                let known = self.snapshot.as_ref().map_or(0, |found| found.epoch);
                if epoch > known.max(self.told_epoch) {
                    self.told_epoch = epoch;
                    self.read_soon(now);
                }
            }
        }
        self.forget();
    }

    /// Of runs that the database does not know nothing is kept beyond a number of them, the oldest first.
    fn forget(&mut self) {
        let known = |run: &Run| {
            let found = self.snapshot.as_ref();
            found.is_some_and(|found| {
                found.row(*run).is_some() || found.members.iter().any(|member| member.run == *run)
            })
        };
        for runs in [&mut self.alive, &mut self.linked] {
            if runs.len() > RUNS_MAX {
                runs.retain(known);
            }
        }
        if self.dead.len() > RUNS_MAX {
            self.dead.retain(|run, _| known(run));
        }
    }

    fn read_soon(&mut self, now: Instant) {
        let soonest = self.last_asked.map_or(now, |asked| asked + PACE).max(now);
        // In trouble, the pause between attempts stays.
        if self.failures == 0 {
            self.renew_at = self.renew_at.min(soonest);
        }
    }

    fn on_answer(&mut self, now: Instant, answer: Answer, out: &mut Vec<Output>) {
        let Some(sent) = self.asked.take() else { return };
        match answer {
            Answer::Failed(why) => {
                self.renew_at = now + (BACKOFF * 2_u32.pow(self.failures.min(4))).min(RENEW);
                self.failures = self.failures.saturating_add(1);
                self.steady_since = None;
                self.over_since.clear();
                self.is_fresh = false;
                let since = self.trouble.as_ref().map_or(sent, |(since, _)| *since);
                self.trouble = Some((since, why));
            }
            Answer::Fenced => self.end(Output::Fenced, out),
            Answer::Proposed(_) => {
                self.is_fresh = false;
                self.renew_at = now;
            }
            Answer::Snapshot(found) => {
                // We stood still, or the answer was long on its way: what we know of others is old.
                if self.lease.is_none_or(|lease| sent > lease) {
                    self.steady_since = None;
                    self.over_since.clear();
                }
                self.steady_since.get_or_insert(sent);
                self.trouble = None;
                self.failures = 0;
                self.renew_at = sent + RENEW;
                let lease = sent + (LEASE - MARGIN);
                self.lease = Some(lease);
                out.push(Output::Lease(lease));
                self.learn(now, found);
            }
        }
    }

    fn learn(&mut self, now: Instant, found: Snapshot) {
        let known = self.snapshot.as_ref().map_or(0, |known| known.epoch);
        // The same epoch does not become later by a second look.
        let clear_at = now + found.clear.min(LEASE);
        self.clear_at = if found.epoch == known { self.clear_at.min(clear_at) } else { clear_at };
        let over: BTreeSet<Run> = found
            .members
            .iter()
            .map(|member| member.run)
            .filter(|run| found.is_over(*run))
            .collect();
        self.over_since.retain(|run, _| over.contains(run));
        for run in over {
            self.over_since.entry(run).or_insert(now);
        }
        self.snapshot = Some(found);
        self.learned_at = now;
        self.is_fresh = true;
    }

    fn epoch(&self) -> u64 {
        self.adopted.as_ref().map_or(0, |view| view.epoch())
    }

    fn end(&mut self, last: Output, out: &mut Vec<Output>) {
        self.has_ended = true;
        out.push(last);
    }

    fn go_on(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.adopt(now, out);
        if self.has_ended {
            return;
        }
        let step = self.decide(now);
        let mut proposal = None;
        let reason = match step {
            Step::Propose(found, reason) => {
                proposal = Some(found);
                reason
            }
            Step::Wait(reason) => reason,
            Step::Left => return self.end(Output::Left, out),
        };
        if reason != self.reason {
            self.reason.clone_from(&reason);
            out.push(Output::Waiting(reason));
        }
        if self.asked.is_some() {
            return;
        }
        let request = if now >= self.renew_at {
            Request::Renew(self.beat())
        } else if let Some(proposal) = proposal {
            Request::Propose(proposal)
        } else {
            return;
        };
        self.asked = Some(now);
        self.last_asked = Some(now);
        out.push(Output::Ask(request));
    }

    fn beat(&self) -> Beat {
        let is_member = self.snapshot.as_ref().is_some_and(|found| found.has(self.me.run));
        let state = match (self.leaving, is_member) {
            (true, _) => State::Leaving,
            (false, true) => State::Member,
            (false, false) => State::Joining,
        };
        let mut facts = self.me.clone();
        facts.weight = self.wished_weight();
        Beat { facts, state, settled: self.settled }
    }

    fn wished_weight(&self) -> u32 {
        if self.leaving { 0 } else { self.me.weight }
    }

    /// Who was no member yet has nothing to do with the epochs of others.
    fn adopt(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some(found) = &self.snapshot else { return };
        if found.epoch <= self.epoch() || now < self.clear_at {
            return;
        }
        let is_member = found.has(self.me.run);
        if !is_member && self.adopted.is_none() {
            return;
        }
        if !is_member && !self.leaving {
            return self.end(Output::Fenced, out);
        }
        let view = Arc::new(View::new(found.epoch, found.members.clone()));
        self.adopted = Some(view.clone());
        out.push(Output::Adopt(view));
    }
}

impl Snapshot {
    pub(super) fn has(&self, run: Run) -> bool {
        self.members.iter().any(|member| member.run == run)
    }

    /// The row of this very run.
    pub(super) fn row(&self, run: Run) -> Option<&NodeRow> {
        self.nodes.iter().find(|row| row.facts.run == run)
    }

    /// Whether the lease of this run is over: another has its name, it gave it back, or let it go.
    pub(super) fn is_over(&self, run: Run) -> bool {
        self.row(run).is_none_or(|row| row.lease.is_zero())
    }

    /// Whether all members have what is theirs.
    pub(super) fn is_settled(&self) -> bool {
        self.unsettled().next().is_none()
    }

    pub(super) fn unsettled(&self) -> impl Iterator<Item = &NodeFacts> {
        let epoch = self.epoch;
        self.members
            .iter()
            .filter(move |member| self.row(member.run).is_none_or(|row| row.settled < epoch))
    }
}
