//! Who of the cluster lives: SWIM by the package `foca`, as a machine without sockets and clocks.
//!
//! - source: SWIM (Das, Gupta, Motivala, 2002) with suspicion; `foca` has the protocol, here is what it needs and what it
//!   leaves out: authenticated datagrams (`envelope`), bounded members, facts of nodes, leaving on purpose, suspects that
//!   are told at once, and time that stood still.
//! - **Death** is known within 2 s in clusters of 3 to 12 nodes: a member is probed by somebody within three periods
//!   (0.6 s), its silence is noticed at the end of that period (0.2 s), and it is suspected for 0.8 s. A node that stalls
//!   for half a second is suspected, told so when it reads again, and refutes.
//! - **Facts** are told by the node that they are of, on its first contact with each member and when they change. Each
//!   datagram carries the revision of its sender's facts, so that who missed a change asks; a member is `Up` once its
//!   facts are known.
//! - **A stalled process** finds its timers late and the answers of others unread, and would take all of them for dead. So
//!   time in which this machine was not called does not count: its timers move by as much.
//! - **Two nodes of one name** are both members, and one event tells of them: at once on each of the two, on others when
//!   the older run is heard a second after the newer came. The older counts as dead when it is silent, as everybody.
//! - **A run that is declared dead and lives** (a long stall, a partition) takes another life and is `Up` again. Whether it
//!   still owns anything is the database's matter.
//!
//! What is believed of others' words: whoever has the secret may say anything of anybody; members say it, the database
//! decides who owns. At rest a node sends some 12 datagrams of 100 to 200 bytes each second, however many nodes there are.

mod envelope;
mod event;
mod known;
mod peer;
mod swim;
#[cfg(test)]
mod tests;

use super::facts::{self, FactsFault, Reader};
use super::refusal::Refusal;
use super::view::{NodeFacts, Run};
use crate::base::instant::{Instant, Now};
use crate::base::rng::Rng;
use envelope::{Kind, Post};
use foca::{Foca, Member, State, Timer};
use known::Known;
use peer::{Peer, PeerCodec};
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use swim::{FAN_OUT, OurFoca, Swim, config};

pub use envelope::DATAGRAM_BYTES_MAX;
pub use event::{Health, MemberEvent, MemberFigures, Outputs};
pub(super) use swim::REVIVAL_PERIOD;

/// Addresses that are remembered, dead ones included; a datagram that names more is refused (`Crowded`).
pub const MEMBERS_MAX: usize = 512;
/// The machine wants to be called at least so often.
const TICK: Duration = Duration::from_millis(100);
/// Not called for longer, it was stalled.
const STALL: Duration = Duration::from_millis(250);
const ASK_AGAIN: Duration = Duration::from_millis(200);
const ACCUSE_AGAIN: Duration = Duration::from_millis(150);
const LEAVE_AGAIN: Duration = Duration::from_millis(50);
const LEAVE_ROUNDS: u32 = 5;
/// What was under way when a run was replaced came by then.
const TWIN_AFTER: Duration = Duration::from_secs(1);

/// The membership as one run of a node sees it. One per node.
pub struct Membership {
    facts: NodeFacts,
    revision: u32,
    post: Post,
    foca: OurFoca,
    known: BTreeMap<SocketAddr, Known>,
    timers: BTreeMap<(Instant, u64), Timer<Peer>>,
    timer_count: u64,
    /// Of the last call.
    last: Instant,
    /// When the dead were asked for because nobody else is there, and how often.
    revival: (Instant, usize),
    leaving: Option<Leaving>,
    is_gone: bool,
    figures: MemberFigures,
}

#[derive(Debug)]
struct Leaving {
    waiting: BTreeSet<SocketAddr>,
    rounds: u32,
    next: Instant,
}

impl Membership {
    /// A node that knows nobody.
    ///
    /// - takes: the key of gossip, derived from the secret of the cluster
    /// - errors: facts that cannot be told
    pub fn new(
        facts: NodeFacts,
        key: &[u8; 32],
        now: Now,
        rng: &mut Rng,
    ) -> Result<Membership, FactsFault> {
        facts::check(&facts)?;
        let mut seed = [0; 32];
        rng.fill(&mut seed);
        // As it comes back from datagrams, without a scope.
        let link = SocketAddr::new(facts.link.ip(), facts.link.port());
        let peer = Peer { name: Arc::from(facts.name.as_str()), run: facts.run, life: 0, link };
        Ok(Membership {
            post: Post::new(key, facts.run, now.wall),
            foca: Foca::new(peer, config(), ChaCha20Rng::from_seed(seed), PeerCodec),
            facts: NodeFacts { link, ..facts },
            revision: 1,
            known: BTreeMap::new(),
            timers: BTreeMap::new(),
            timer_count: 0,
            last: now.mono,
            revival: (now.mono, 0),
            leaving: None,
            is_gone: false,
            figures: MemberFigures::default(),
        })
    }

    /// Takes a datagram from the network.
    pub fn datagram(&mut self, now: Instant, bytes: &[u8], out: &mut Outputs) {
        if self.is_gone {
            return;
        }
        self.enter(now);
        self.figures.received += 1;
        if let Err(refusal) = self.open(now, bytes, out) {
            self.figures.refused.count(refusal);
        }
    }

    /// Asks whoever is at this address to be taken up. Nothing happens if nobody answers.
    pub fn join(&mut self, now: Instant, link: SocketAddr, out: &mut Outputs) {
        if self.is_gone || link == self.facts.link || !facts::is_reachable(link) {
            return;
        }
        self.enter(now);
        self.swim(now, out, |foca, swim| foca.announce(Peer::at(link), swim));
    }

    /// Tells the members what this node says of itself from now on. Name, run and address stay as they are.
    ///
    /// - errors: facts that cannot be told; the old ones stay
    pub fn tell(
        &mut self,
        now: Instant,
        facts: NodeFacts,
        out: &mut Outputs,
    ) -> Result<(), FactsFault> {
        let NodeFacts { name, run, link, .. } = self.facts.clone();
        let facts = NodeFacts { name, run, link, ..facts };
        facts::check(&facts)?;
        if facts == self.facts || self.is_gone {
            return Ok(());
        }
        self.enter(now);
        self.facts = facts;
        self.revision += 1;
        for (_, link) in self.company() {
            self.send_facts(Kind::Facts, link, out);
        }
        Ok(())
    }

    /// Tells the members that this node ends on purpose. `Gone` follows, in a quarter of a second at most.
    pub fn leave(&mut self, now: Instant, out: &mut Outputs) {
        if self.is_gone || self.leaving.is_some() {
            return;
        }
        self.enter(now);
        let waiting = self.company().into_iter().map(|(_, link)| link).collect();
        self.leaving = Some(Leaving { waiting, rounds: 0, next: now });
        self.go_on_leaving(now, out);
    }

    /// Does what is due. To be called at `next_tick`; earlier does no harm, later is taken for a stall.
    pub fn tick(&mut self, now: Instant, out: &mut Outputs) {
        if self.is_gone {
            return;
        }
        self.enter(now);
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let timer = entry.remove();
            if self.is_refuted(&timer) {
                continue;
            }
            self.swim(now, out, |foca, swim| foca.handle_timer(timer, swim));
        }
        self.ask_again(now, out);
        self.revive(now, out);
        self.go_on_leaving(now, out);
    }

    /// When `tick` is to be called. `None` once this node is gone.
    pub fn next_tick(&self) -> Option<Instant> {
        if self.is_gone {
            return None;
        }
        let timer = self.timers.keys().next().map(|(due, _)| *due);
        let leaving = self.leaving.as_ref().map(|leaving| leaving.next);
        [timer, leaving].into_iter().flatten().chain([self.last + TICK]).min()
    }

    /// What this node says of itself.
    pub fn facts(&self) -> &NodeFacts {
        &self.facts
    }

    /// The members that are up, but for this node, by address.
    pub fn members(&self) -> impl Iterator<Item = (&NodeFacts, Health)> {
        self.known.values().filter(|known| known.is_told).filter_map(|known| {
            let (_, facts) = known.facts.as_ref()?;
            let is_suspect = known.state == State::Suspect;
            Some((facts, if is_suspect { Health::Suspect } else { Health::Alive }))
        })
    }

    /// The members whom SWIM knows, their facts known or not, but for this node.
    pub fn company(&self) -> Vec<(Run, SocketAddr)> {
        let members = self.known.values().filter(|known| known.is_member());
        members.map(|known| (known.peer.run, known.peer.link)).collect()
    }

    pub fn figures(&self) -> MemberFigures {
        let mut figures = self.figures;
        for known in self.known.values() {
            match known.state {
                _ if known.has_left => figures.left += 1,
                State::Alive => figures.alive += 1,
                State::Suspect => figures.suspect += 1,
                State::Down => figures.dead += 1,
            }
        }
        figures
    }

    /// COMPAT(foca, 2.0.0): at the end of a suspicion it tells the member that it is dead even where the member had
    /// refuted, which would make it take another life for nothing.
    fn is_refuted(&self, timer: &Timer<Peer>) -> bool {
        let Timer::ChangeSuspectToDown { member_id, incarnation, .. } = timer else { return false };
        !self.foca.iter_membership_state().any(|member| {
            member.id() == member_id
                && member.incarnation() == *incarnation
                && member.state() == State::Suspect
        })
    }

    /// Time in which nobody called does not count.
    fn enter(&mut self, now: Instant) {
        let gap = now.since(self.last);
        self.last = self.last.max(now);
        if gap <= STALL {
            return;
        }
        let lost = gap.saturating_sub(TICK);
        self.figures.stalled_ms += u64::try_from(lost.as_millis()).unwrap_or_default();
        let timers = std::mem::take(&mut self.timers);
        self.timers =
            timers.into_iter().map(|((due, count), timer)| ((due + lost, count), timer)).collect();
    }

    fn open(&mut self, now: Instant, bytes: &[u8], out: &mut Outputs) -> Result<(), Refusal> {
        let letter = self.post.open(bytes)?;
        match letter.kind {
            Kind::Swim => {
                let (source, peers) = peer::survey(letter.body).ok_or(Refusal::Malformed)?;
                if source.run != letter.from {
                    return Err(Refusal::Malformed);
                }
                let strangers: BTreeSet<SocketAddr> = peers
                    .iter()
                    .map(|peer| peer.link)
                    .filter(|link| !self.known.contains_key(link) && *link != self.facts.link)
                    .collect();
                if self.known.len() + strangers.len() > MEMBERS_MAX {
                    return Err(Refusal::Crowded);
                }
                let is_sound =
                    self.swim(now, out, |foca, swim| foca.handle_data(letter.body, swim));
                if !is_sound {
                    return Err(Refusal::Malformed);
                }
            }
            Kind::Facts | Kind::FactsWanted => {
                let facts = facts::read(letter.body).filter(|facts| facts.run == letter.from);
                self.learn(letter.revision, facts.ok_or(Refusal::Malformed)?, out)?;
                if letter.kind == Kind::FactsWanted
                    && let Some(link) = self.link_of(letter.from)
                {
                    self.send_facts(Kind::Facts, link, out);
                }
            }
            Kind::Leave => self.let_go(letter.from, out),
            Kind::LeaveHeard => {
                if let (Some(link), Some(leaving)) = (self.link_of(letter.from), &mut self.leaving)
                {
                    leaving.waiting.remove(&link);
                }
                self.go_on_leaving(now, out);
            }
            Kind::Suspected => {
                let mut reader = Reader::new(letter.body);
                let (Some(peer), Some(incarnation)) = (peer::peer(&mut reader), reader.u16())
                else {
                    return Err(Refusal::Malformed);
                };
                self.refute(now, letter.from, peer, incarnation, out);
            }
        }
        self.heard(now, letter.from, letter.revision, out);
        Ok(())
    }

    /// Lets SWIM do something, and carries out what it wants.
    ///
    /// - gives: whether it had no complaint
    fn swim(
        &mut self,
        now: Instant,
        out: &mut Outputs,
        work: impl FnOnce(&mut OurFoca, &mut Swim) -> Result<(), foca::Error>,
    ) -> bool {
        let mut swim = Swim::default();
        let is_sound = work(&mut self.foca, &mut swim).is_ok();
        for (to, body) in swim.messages {
            self.send(Kind::Swim, to, &body, out);
        }
        for (timer, after) in swim.timers {
            self.timer_count += 1;
            self.timers.insert((now + after, self.timer_count), timer);
        }
        if swim.is_rejoining {
            self.figures.taken_for_dead += 1;
            out.events.push(MemberEvent::TakenForDead);
        }
        self.compare(now, out);
        is_sound
    }

    fn send(&mut self, kind: Kind, to: SocketAddr, body: &[u8], out: &mut Outputs) {
        self.figures.sent += 1;
        out.datagrams.push((to, self.post.close(kind, self.revision, body)));
    }

    fn send_facts(&mut self, kind: Kind, to: SocketAddr, out: &mut Outputs) {
        let mut body = Vec::with_capacity(128);
        facts::write(&self.facts, &mut body);
        self.send(kind, to, &body, out);
    }

    fn link_of(&self, run: Run) -> Option<SocketAddr> {
        self.known.values().find(|known| known.peer.run == run).map(|known| known.peer.link)
    }

    /// Compares what SWIM knows now with what was told of it.
    fn compare(&mut self, now: Instant, out: &mut Outputs) {
        let mut strange = Vec::new();
        let mut suspects = Vec::new();
        let own = self.facts.link;
        for member in self.foca.iter_membership_state().filter(|member| member.id().link != own) {
            let known = self
                .known
                .entry(member.id().link)
                .or_insert_with(|| Known::new(member.id().clone(), now));
            if known.peer != *member.id() {
                if known.peer.run != member.id().run {
                    if known.is_told {
                        out.events.push(MemberEvent::Dead(known.peer.run));
                    }
                    (known.is_told, known.has_left, known.facts) = (false, false, None);
                    (known.since, known.twin, known.state) = (now, None, State::Down);
                }
                known.peer = member.id().clone();
            }
            let before = std::mem::replace(&mut known.state, member.state());
            known.incarnation = member.incarnation();
            if !known.is_member() {
                if known.is_told {
                    known.is_told = false;
                    out.events.push(MemberEvent::Dead(known.peer.run));
                }
                continue;
            }
            if before == State::Down && known.facts.is_none() {
                strange.push(known.peer.link);
            }
            known.tell(out);
            let event = match (before, known.state) {
                (State::Suspect, State::Alive) => MemberEvent::Trusted(known.peer.run),
                (State::Alive | State::Down, State::Suspect) => {
                    self.figures.suspicions += 1;
                    suspects.push(known.peer.link);
                    MemberEvent::Suspect(known.peer.run)
                }
                _ => continue,
            };
            if known.is_told {
                out.events.push(event);
            }
        }
        if self.known.len() > self.foca.iter_membership_state().len() {
            let members = self.foca.iter_membership_state();
            let links: BTreeSet<SocketAddr> = members.map(|member| member.id().link).collect();
            self.known.retain(|link, _| links.contains(link));
        }
        for link in strange {
            self.ask(now, link, out);
        }
        for link in suspects {
            self.accuse(now, link, out);
        }
    }

    fn ask(&mut self, now: Instant, link: SocketAddr, out: &mut Outputs) {
        if let Some(known) = self.known.get_mut(&link) {
            known.asked = now;
            self.send_facts(Kind::FactsWanted, link, out);
        }
    }

    /// Tells a suspect, who could otherwise learn it too late by chance.
    fn accuse(&mut self, now: Instant, link: SocketAddr, out: &mut Outputs) {
        if let Some(known) = self.known.get_mut(&link) {
            known.accused = now;
            let mut body = Vec::with_capacity(64);
            peer::put_peer(&mut body, &known.peer);
            body.extend_from_slice(&known.incarnation.to_be_bytes());
            self.send(Kind::Suspected, link, &body, out);
        }
    }

    /// Refutes, towards who suspects first: whatever comes from us shows our new incarnation.
    fn refute(
        &mut self,
        now: Instant,
        accuser: Run,
        peer: Peer,
        incarnation: u16,
        out: &mut Outputs,
    ) {
        if peer != *self.foca.identity() {
            return;
        }
        let suspicion = Member::new(peer, incarnation, State::Suspect);
        self.swim(now, out, |foca, swim| foca.apply_many([suspicion].into_iter(), true, swim));
        let accuser = self.known.values().find(|known| known.peer.run == accuser);
        if let Some(peer) = accuser.map(|known| known.peer.clone()) {
            self.swim(now, out, |foca, swim| foca.announce(peer, swim));
        }
    }

    fn learn(&mut self, revision: u32, facts: NodeFacts, out: &mut Outputs) -> Result<(), Refusal> {
        // Not known yet: it is asked for once it is.
        let known = self.known.values_mut().find(|known| known.peer.run == facts.run);
        let Some(known) = known else { return Ok(()) };
        if facts.link != known.peer.link || *facts.name != *known.peer.name {
            return Err(Refusal::Malformed);
        }
        let before = known.facts.as_ref();
        if before.is_some_and(|(older, _)| *older >= revision) {
            return Ok(());
        }
        if known.is_told && before.is_some_and(|(_, before)| *before != facts) {
            out.events.push(MemberEvent::Changed(facts.clone()));
        }
        known.facts = Some((revision, facts));
        known.tell(out);
        Ok(())
    }

    fn let_go(&mut self, run: Run, out: &mut Outputs) {
        let Some(known) = self.known.values_mut().find(|known| known.peer.run == run) else {
            return;
        };
        known.has_left = true;
        let link = known.peer.link;
        if std::mem::take(&mut known.is_told) {
            out.events.push(MemberEvent::Left(run));
        }
        self.send(Kind::LeaveHeard, link, &[], out);
    }

    /// A datagram came from this run itself: it lives.
    fn heard(&mut self, now: Instant, run: Run, revision: u32, out: &mut Outputs) {
        let Some(known) = self.known.values().find(|known| known.peer.run == run) else { return };
        if !known.is_member() {
            return;
        }
        let is_old = known.facts.as_ref().is_some_and(|(older, _)| *older < revision);
        let (link, should_ask) = (known.peer.link, is_old && now.since(known.asked) >= ASK_AGAIN);
        let rank = |run: Run| (run.incarnation, run.node);
        let other = if known.peer.name == self.foca.identity().name {
            Some(self.facts.run)
        } else {
            let is_newer = |other: &&Known| {
                other.is_member()
                    && other.peer.name == known.peer.name
                    && rank(other.peer.run) > rank(run)
                    && now.since(other.since) >= TWIN_AFTER
            };
            self.known.values().find(is_newer).map(|other| other.peer.run)
        };
        if let Some(other) = other.filter(|other| known.twin != Some(*other)) {
            let name = known.peer.name.to_string();
            let (older, newer) = if rank(run) < rank(other) { (run, other) } else { (other, run) };
            out.events.push(MemberEvent::Twins { name, older, newer });
            if let Some(known) = self.known.get_mut(&link) {
                known.twin = Some(other);
            }
        }
        if should_ask {
            self.ask(now, link, out);
        }
    }

    fn ask_again(&mut self, now: Instant, out: &mut Outputs) {
        let members = || self.known.values().filter(|known| known.is_member());
        let unknown: Vec<SocketAddr> = members()
            .filter(|known| known.facts.is_none() && now.since(known.asked) >= ASK_AGAIN)
            .map(|known| known.peer.link)
            .collect();
        let suspects: Vec<SocketAddr> = members()
            .filter(|known| known.state == State::Suspect)
            .filter(|known| now.since(known.accused) >= ACCUSE_AGAIN)
            .map(|known| known.peer.link)
            .collect();
        for link in unknown {
            self.ask(now, link, out);
        }
        for link in suspects {
            self.accuse(now, link, out);
        }
    }

    /// SWIM rests when nobody is there, so the addresses of the dead are asked here.
    fn revive(&mut self, now: Instant, out: &mut Outputs) {
        if self.foca.num_members() > 0 || now.since(self.revival.0) < REVIVAL_PERIOD {
            return;
        }
        let dead: Vec<Peer> = self
            .known
            .values()
            .filter(|known| known.state == State::Down && !known.has_left)
            .map(|known| known.peer.clone())
            .collect();
        let first = self.revival.1;
        self.revival = (now, first.wrapping_add(FAN_OUT) % dead.len().max(1));
        for peer in dead.iter().cycle().skip(first).take(FAN_OUT.min(dead.len())) {
            self.swim(now, out, |foca, swim| foca.announce(peer.clone(), swim));
        }
    }

    fn go_on_leaving(&mut self, now: Instant, out: &mut Outputs) {
        let Some(leaving) = &mut self.leaving else { return };
        if !leaving.waiting.is_empty() && leaving.rounds < LEAVE_ROUNDS {
            if now < leaving.next {
                return;
            }
            leaving.rounds += 1;
            leaving.next = now + LEAVE_AGAIN;
            let waiting = leaving.waiting.clone();
            for link in waiting {
                self.send(Kind::Leave, link, &[], out);
            }
            return;
        }
        if !leaving.waiting.is_empty() && now < leaving.next {
            return;
        }
        // Those who did not hear it learn from the others that this run is no more.
        self.leaving = None;
        self.swim(now, out, |foca, swim| foca.leave_cluster(swim));
        self.is_gone = true;
        out.events.push(MemberEvent::Gone);
    }
}
