//! What a node proposes, given what it knows; nothing is changed but when to look again.
//!
//! - One change at a time: who joins, leaves or changes its weight waits until the epoch before has settled. A death does
//!   not wait.
//! - A member is taken over when its lease is over and nothing is heard of it, or when gossip says that it is dead and our
//!   side is the larger one; of two halves, the one with the lowest node id. While there is a link to it, it has a moment
//!   to deny that. The live member with the lowest id takes it over, the others in their turn.
//! - Who leaves is drained first, and removed when it owns nothing. Somebody serves always: the last member with a weight
//!   keeps it until another that stays has one, and if it leaves, one of the drained serves again.
//! - Who starts waits for a link to each member whose lease lives: it is never silently alone.

use super::{
    Authority, DOUBT, HEADLESS, PATIENCE, Proposal, RETURN, Reason, Snapshot, State, TURN,
};
use crate::base::instant::Instant;
use crate::cluster::view::{NodeFacts, Run};

pub(super) enum Step {
    /// And what is in the way of something else.
    Propose(Proposal, Option<Reason>),
    Wait(Option<Reason>),
    Left,
}

/// Who may be taken over.
struct Gone {
    run: Run,
    name: String,
    /// Only if its lease is over.
    over: bool,
}

impl Authority {
    pub(super) fn decide(&mut self, now: Instant) -> Step {
        self.decide_at = None;
        if let Some((since, why)) = &self.trouble {
            return Step::Wait(Some(Reason::Database { since: *since, why: why.clone() }));
        }
        let Some(found) = self.snapshot.take() else { return Step::Wait(Some(Reason::Starting)) };
        let step = if !self.is_fresh || self.lease.is_none_or(|lease| now >= lease) {
            Step::Wait(self.reason.clone())
        } else if found.has(self.me.run) {
            self.as_member(now, &found)
        } else {
            self.as_newcomer(now, &found)
        };
        self.snapshot = Some(found);
        step
    }

    fn as_newcomer(&mut self, now: Instant, found: &Snapshot) -> Step {
        if self.leaving {
            // What was ours is with others when the epoch that we are not in has settled.
            let is_done =
                self.adopted.is_none() || (found.is_settled() && self.epoch() >= found.epoch);
            return if is_done { Step::Left } else { Step::Wait(settling(found)) };
        }
        if self.adopted.is_some() {
            // Taken over; what follows from it comes with the adoption.
            return Step::Wait(None);
        }
        let gone = self.gone(now, found);
        let is_gone = |run: Run| gone.iter().any(|one| one.run == run);
        let own = |member: &&NodeFacts| member.run.node == self.me.run.node;
        let others = || found.members.iter().filter(|member| !own(member));
        let stay = || others().filter(|member| !is_gone(member.run));
        let unlinked: Vec<String> = stay()
            .filter(|member| !found.is_over(member.run) && !self.linked.contains(&member.run))
            .map(shown)
            .collect();
        if !unlinked.is_empty() {
            return Step::Wait(Some(Reason::Unlinked(unlinked)));
        }
        // Nobody may be left who only seems to be there.
        let vacant: Vec<String> =
            stay().filter(|member| found.is_over(member.run)).map(shown).collect();
        if !vacant.is_empty() {
            return Step::Wait(Some(Reason::Vacant(vacant)));
        }
        let old = found.members.iter().find(own);
        if old.is_none() && stay().next().is_some() {
            if !gone.is_empty() {
                let names = gone.into_iter().map(|one| one.name).collect();
                return Step::Wait(Some(Reason::Vacant(names)));
            }
            if !found.is_settled() {
                return Step::Wait(settling(found));
            }
        }
        let mut members: Vec<NodeFacts> = stay().cloned().collect();
        members.push(self.me.clone());
        let mut fence: Vec<Run> = gone.iter().map(|one| one.run).collect();
        fence.extend(old.map(|old| old.run));
        let mut why = match old {
            Some(_) => format!("{} was started again", self.me.name),
            None => format!("{} joined", self.me.name),
        };
        if !gone.is_empty() {
            why = format!("{why}, and took {} over", names(&gone));
        }
        self.propose(found, members, fence.clone(), fence, why, None)
    }

    fn as_member(&mut self, now: Instant, found: &Snapshot) -> Step {
        let gone = self.gone(now, found);
        if !gone.is_empty() {
            return self.take_over(now, found, &gone);
        }
        self.vacant_since = None;
        let others = || found.members.iter().filter(|member| member.run != self.me.run);
        let lost: Vec<String> =
            others().filter(|member| self.dead.contains_key(&member.run)).map(shown).collect();
        if !lost.is_empty() {
            return Step::Wait(Some(Reason::Minority(lost)));
        }
        // Those who are heard of and cannot be reached are told, but keep nobody from anything.
        let unlinked: Vec<String> =
            others().filter(|member| !self.linked.contains(&member.run)).map(shown).collect();
        let aside = (!unlinked.is_empty()).then_some(Reason::Unlinked(unlinked));
        let wish = self.wished_weight();
        let Some(mine) = found.members.iter().find(|member| member.run == self.me.run) else {
            return Step::Wait(aside);
        };
        // Somebody serves always: who has all keeps it until another that stays has a weight. Where all leave, they go in
        // the order of their ids.
        let leaves = |run: Run| {
            found.nodes.iter().any(|row| row.facts.run == run && row.state == State::Leaving)
        };
        let none_stays = others().all(|member| leaves(member.run));
        let heirs = || {
            others().filter(|member| match none_stays && self.leaving {
                true => member.run.node > self.me.run.node,
                false => !leaves(member.run),
            })
        };
        let is_last = heirs().all(|member| member.weight == 0);
        let weight = if wish == 0 && is_last && !self.leaving { mine.weight } else { wish };
        // One of an older program that made an epoch left out what it does not know.
        let is_left_out = mine.federates != self.me.federates;
        if mine.weight == weight && !is_left_out && !self.leaving {
            let last = (weight != wish).then_some(Reason::Last);
            return Step::Wait(aside.or(last));
        }
        if self.leaving && found.members.len() > 1 && heirs().next().is_none() {
            let before = others().map(shown).collect();
            return Step::Wait(aside.or(Some(Reason::Before(before))));
        }
        if !found.is_settled() {
            return Step::Wait(settling(found));
        }
        if self.leaving && found.members.len() == 1 {
            // There is nobody who could have it. Those who went before wait until this epoch has settled.
            return Step::Left;
        }
        let mut members = found.members.clone();
        let name = &self.me.name;
        let heir = heirs().max_by_key(|member| member.run).filter(|_| self.leaving && is_last);
        let why = if let Some(heir) = heir {
            // They are all drained, and one has to take what is ours. Two would give it up to each other.
            for member in &mut members {
                if member.run == self.me.run {
                    member.weight = 0;
                } else if member.run == heir.run {
                    member.weight = 1;
                }
            }
            format!("{name} is drained, and {} serves again", heir.name)
        } else if mine.weight != weight || (is_left_out && !self.leaving) {
            for member in members.iter_mut().filter(|member| member.run == self.me.run) {
                member.weight = weight;
                member.federates = self.me.federates;
            }
            match weight {
                _ if mine.weight == weight => format!("{name} talks with other servers"),
                0 => format!("{name} is drained"),
                _ => format!("{name} has the weight {weight}"),
            }
        } else {
            members.retain(|member| member.run != self.me.run);
            format!("{name} left")
        };
        self.propose(found, members, Vec::new(), Vec::new(), why, aside)
    }

    fn take_over(&mut self, now: Instant, found: &Snapshot, gone: &[Gone]) -> Step {
        let since = *self.vacant_since.get_or_insert(now);
        let is_gone = |run: Run| gone.iter().any(|one| one.run == run);
        // Those before us who could do it.
        let before = found.members.iter().filter(|member| {
            let run = member.run;
            run.node < self.me.run.node
                && !is_gone(run)
                && !self.dead.contains_key(&run)
                && !found.is_over(run)
        });
        let turn = since + TURN * u32::try_from(before.count()).unwrap_or(u32::MAX);
        let reason = Some(Reason::Vacant(gone.iter().map(|one| one.name.clone()).collect()));
        if now < turn {
            self.decide_at = Some(turn);
            return Step::Wait(reason);
        }
        let members = found.members.iter().filter(|member| !is_gone(member.run)).cloned().collect();
        let fence = gone.iter().map(|one| one.run).collect();
        let over = gone.iter().filter(|one| one.over).map(|one| one.run).collect();
        let why = format!("{} took {} over", self.me.name, names(gone));
        self.propose(found, members, fence, over, why, reason)
    }

    fn propose(
        &self,
        found: &Snapshot,
        mut members: Vec<NodeFacts>,
        fence: Vec<Run>,
        over: Vec<Run>,
        why: String,
        aside: Option<Reason>,
    ) -> Step {
        members.sort_by_key(|member| member.run);
        let (by, from) = (self.me.run, found.epoch);
        Step::Propose(Proposal { by, from, members, fence, over, why }, aside)
    }

    /// The members that may be taken over now, without the runs of our own name.
    fn gone(&mut self, now: Instant, found: &Snapshot) -> Vec<Gone> {
        let is_member = found.has(self.me.run);
        let is_larger = self.is_larger_side(found);
        let is_steady = self.steady_since.is_some_and(|since| now.since(since) >= PATIENCE);
        let mut wakes = Vec::new();
        let mut gone = Vec::new();
        for member in &found.members {
            let run = member.run;
            if run.node == self.me.run.node {
                continue;
            }
            let row = found.nodes.iter().find(|row| row.facts.run.node == run.node);
            let is_dead = self.dead.contains_key(&run);
            let is_silent = is_dead || !(self.alive.contains(&run) && self.linked.contains(&run));
            let over = found.is_over(run);
            let mut lasts = |span| {
                let Some(since) = self.over_since.get(&run) else { return false };
                wakes.push(*since + span);
                now.since(*since) >= span
            };
            let by_lease = over
                && match row {
                    Some(row) if row.facts.run != run && !row.lease.is_zero() => {
                        !is_member || lasts(RETURN)
                    }
                    Some(row) if row.facts.run == run && row.state != State::Left => {
                        (is_silent && is_steady) || lasts(HEADLESS)
                    }
                    _ => true,
                };
            let is_doubtful = self.linked.contains(&run)
                && self.dead.get(&run).is_some_and(|since| {
                    wakes.push(*since + DOUBT);
                    now.since(*since) < DOUBT
                });
            let by_number = is_dead && !is_doubtful && is_larger;
            if by_lease || by_number {
                gone.push(Gone { run, name: member.name.clone(), over: !by_number });
            } else if let Some(row) = row.filter(|_| is_silent && !over) {
                // It may have been renewed since: it is looked at again when it should be over.
                self.renew_at = self.renew_at.min(self.learned_at + row.lease);
            }
        }
        wakes.extend(self.steady_since.map(|since| since + PATIENCE));
        self.decide_at = wakes.into_iter().filter(|at| *at > now).min();
        gone
    }

    /// Whether those that gossip sees alive are more than half of the members, or half of them with the lowest id.
    fn is_larger_side(&self, found: &Snapshot) -> bool {
        if !found.has(self.me.run) {
            return false;
        }
        let is_here = |run: Run| {
            run == self.me.run || (self.alive.contains(&run) && !self.dead.contains_key(&run))
        };
        let here = found.members.iter().filter(|member| is_here(member.run)).count();
        let lowest = found.members.iter().map(|member| member.run).min();
        let (twice, all) = (here * 2, found.members.len());
        twice > all || (twice == all && lowest.is_some_and(is_here))
    }
}

fn settling(found: &Snapshot) -> Option<Reason> {
    let names: Vec<String> = found.unsettled().map(|member| member.name.clone()).collect();
    (!names.is_empty()).then_some(Reason::Settling { epoch: found.epoch, names })
}

fn shown(node: &NodeFacts) -> String {
    format!("{} ({})", node.name, node.link)
}

fn names(gone: &[Gone]) -> String {
    let names: Vec<&str> = gone.iter().map(|one| one.name.as_str()).collect();
    names.join(", ")
}
