//! The rows of the shared database by which a cluster decides, as `store::postgres::cluster` and `share` keep them: who has
//! which name, leases, the epoch with its members, and who is fenced.

use corefire::cluster::authority::{
    Answer, Beat, LEASE, NodeRow, Outcome, Proposal, Snapshot, State,
};
use corefire::cluster::view::{NodeFacts, Run};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Times are µs of the world.
#[derive(Default)]
pub(super) struct Database {
    pub(super) epoch: u64,
    pub(super) members: Vec<NodeFacts>,
    /// By node.
    rows: BTreeMap<u32, Row>,
    fenced: BTreeSet<Run>,
    clear_at: u64,
}

struct Row {
    facts: NodeFacts,
    state: State,
    settled: u64,
    lease_until: u64,
}

fn lease() -> u64 {
    LEASE.as_micros() as u64
}

impl Database {
    /// Whether a run may take the name: the one before it has no lease.
    pub(super) fn is_free(&self, node: u32, now: u64) -> bool {
        self.rows.get(&node).is_none_or(|row| row.lease_until <= now)
    }

    /// The run has the name of its node from now on; the one before it writes nothing any more.
    pub(super) fn claim(&mut self, facts: NodeFacts, now: u64) {
        let row = Row { state: State::Joining, settled: 0, lease_until: now + lease(), facts };
        if let Some(old) = self.rows.insert(row.facts.run.node.0, row) {
            self.fenced.insert(old.facts.run);
        }
    }

    pub(super) fn is_fenced(&self, run: Run) -> bool {
        self.fenced.contains(&run)
    }

    pub(super) fn is_member(&self, run: Run) -> bool {
        self.members.iter().any(|member| member.run == run)
    }

    /// It ended by its own will.
    pub(super) fn release(&mut self, run: Run, now: u64) {
        if let Some(row) = self.rows.get_mut(&run.node.0).filter(|row| row.facts.run == run) {
            (row.state, row.lease_until) = (State::Left, now);
        }
    }

    pub(super) fn renew(&mut self, beat: Beat, now: u64) -> Answer {
        let run = beat.facts.run;
        let row = self.rows.get_mut(&run.node.0).filter(|row| row.facts.run == run);
        let Some(row) = row.filter(|_| !self.fenced.contains(&run)) else { return Answer::Fenced };
        let Beat { facts, state, settled } = beat;
        *row = Row { facts, state, settled, lease_until: now + lease() };
        Answer::Snapshot(self.snapshot(now))
    }

    fn snapshot(&self, now: u64) -> Snapshot {
        let left = |until: u64| Duration::from_micros(until.saturating_sub(now)).min(LEASE);
        let row = |row: &Row| NodeRow {
            facts: row.facts.clone(),
            state: row.state,
            settled: row.settled,
            lease: left(row.lease_until),
        };
        Snapshot {
            epoch: self.epoch,
            members: self.members.clone(),
            nodes: self.rows.values().map(row).collect(),
            clear: left(self.clear_at),
        }
    }

    pub(super) fn propose(&mut self, proposal: &Proposal, now: u64) -> Outcome {
        let lives = |run: &Run| {
            let row = self.rows.get(&run.node.0).filter(|row| row.facts.run == *run);
            row.is_some_and(|row| row.lease_until > now)
        };
        let by = self.rows.get(&proposal.by.node.0).filter(|row| row.facts.run == proposal.by);
        let may = by.is_some() && !self.fenced.contains(&proposal.by);
        if proposal.from != self.epoch || !may || proposal.over.iter().any(lives) {
            return Outcome::Lost;
        }
        for run in &proposal.fence {
            let row = self.rows.get_mut(&run.node.0).filter(|row| row.facts.run == *run);
            if let Some(row) = row {
                row.state = State::Fenced;
                self.clear_at = self.clear_at.max(row.lease_until);
            }
            self.fenced.insert(*run);
        }
        self.epoch += 1;
        self.members.clone_from(&proposal.members);
        Outcome::Won
    }
}
