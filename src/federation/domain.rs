//! Remote domains that are known here, and the lanes to them: one for each domain of ours that has something to say to
//! them.
//!
//! A lane is a queue and the stream that carries it, of which there is one at a time: that keeps the order. How a domain
//! is reached from one of our domains says little of another of ours (it may know one of them only), so attempts and
//! failures are a lane's.

use super::dial::Attempts;
use super::dialback::Asked;
use super::effect::ConnId;
use super::frames::domain_jid;
use super::probe::Failure;
use super::queue::{Item, Queue};
use super::{Core, Effects, Timer};
use crate::base::ids::Id;
use crate::base::instant::{Instant, Wall};
use crate::base::limit::Meter;
use crate::xmpp::jid::BareJid;
use crate::xmpp::stanza_error::StanzaCondition;
use smallvec::SmallVec;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DomainId(pub Id);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LaneId(pub Id);

/// A remote domain.
#[derive(Debug)]
pub(super) struct Domain {
    pub name: Arc<str>,
    /// Owner of its rows in the store.
    pub jid: BareJid,
    pub lanes: SmallVec<[LaneId; 1]>,
    /// Incoming connections that authenticated it.
    pub inbound: SmallVec<[ConnId; 2]>,
    /// Rows of earlier runs that have not been read.
    pub backlog: Option<super::durable::Backlog>,
    /// The epoch of a cluster since which they are read.
    pub read_since: u64,
    /// Rows from this one on are of this run.
    pub first_row: Option<u64>,
    /// Rows that wait in the store, as far as known.
    pub stored: usize,
    /// What its streams may send.
    pub stanzas: Meter,
    pub used_at: Instant,
    pub sent: u64,
    pub received: u64,
    pub bounced: u64,
    pub failure: Option<(Wall, Failure, Box<str>)>,
    /// How its newest stream authenticated, and what it speaks.
    pub by: Box<str>,
    /// Rows that were confirmed in this turn.
    pub confirmed: Vec<u64>,
}

/// What carries a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// Nothing, and nothing is wanted.
    Idle,
    /// It waits for its turn to dial.
    Waiting,
    /// Until then it is not tried again.
    BackingOff,
    /// A stream is on its way.
    Dialling(ConnId),
    /// This stream.
    Up(ConnId),
}

/// The way from a domain of ours to a remote one.
#[derive(Debug)]
pub(super) struct Lane {
    pub domain: DomainId,
    pub own: Arc<str>,
    pub queue: Queue,
    pub link: Link,
    pub attempts: Attempts,
    /// Keys that the remote domain is to verify for us as soon as a stream to it is there.
    pub asked: Vec<Asked>,
    /// A stream that was lost and may be taken up again.
    pub resumable: Option<super::outbound::Resumable>,
    /// It is in the list of those to look at when the turn ends.
    pub touched: bool,
    /// When its timers run out; later ones than these are not set.
    pub store_due: Option<Instant>,
    pub expire_due: Option<Instant>,
}

impl Lane {
    /// There is something for a stream to do.
    pub(super) fn wants_stream(&self) -> bool {
        !self.queue.is_empty() || !self.asked.is_empty()
    }

    pub(super) fn conn(&self) -> Option<ConnId> {
        match self.link {
            Link::Dialling(conn) | Link::Up(conn) => Some(conn),
            Link::Idle | Link::Waiting | Link::BackingOff => None,
        }
    }

    fn is_idle(&self) -> bool {
        matches!(self.link, Link::Idle | Link::BackingOff)
            && !self.wants_stream()
            && self.resumable.is_none()
    }
}

/// Idle domains that are looked at to find one that may go.
const EVICTION_LOOKS: usize = 16;

impl Core {
    pub(super) fn lane(&self, id: LaneId) -> Option<&Lane> {
        self.lanes.get(id.0)
    }

    pub(super) fn lane_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.lanes.get_mut(id.0)
    }

    pub(super) fn domain_of_lane(&mut self, id: LaneId) -> Option<&mut Domain> {
        let domain = self.lanes.get(id.0)?.domain;
        self.domains.get_mut(domain.0)
    }

    /// The names of both ends: ours, then the remote one.
    pub(super) fn ends(&self, id: LaneId) -> Option<(Arc<str>, Arc<str>)> {
        let lane = self.lanes.get(id.0)?;
        let domain = self.domains.get(lane.domain.0)?;
        Some((lane.own.clone(), domain.name.clone()))
    }

    pub(super) fn find_domain(&self, name: &str) -> Option<DomainId> {
        self.names.get(name).copied()
    }

    pub(super) fn find_lane(&self, own: &str, remote: &str) -> Option<LaneId> {
        let domain = self.domains.get(self.find_domain(remote)?.0)?;
        domain
            .lanes
            .iter()
            .copied()
            .find(|lane| self.lanes.get(lane.0).is_some_and(|lane| *lane.own == *own))
    }

    /// The domain, which comes into memory if it is not there; `None` where too many are busy, or it is no domain.
    pub(super) fn domain(&mut self, name: &str) -> Option<DomainId> {
        if let Some(&id) = self.names.get(name) {
            if let Some(domain) = self.domains.get_mut(id.0) {
                domain.used_at = self.now.mono;
            }
            return Some(id);
        }
        if self.names.len() >= self.config.limits.domains && !self.evict_domain() {
            return None;
        }
        let jid = domain_jid(name)?;
        let name: Arc<str> = name.into();
        let id = DomainId(self.domains.insert(Domain {
            name: name.clone(),
            jid,
            lanes: SmallVec::new(),
            inbound: SmallVec::new(),
            backlog: None,
            read_since: 0,
            first_row: None,
            stored: 0,
            stanzas: Meter::default(),
            used_at: self.now.mono,
            sent: 0,
            received: 0,
            bounced: 0,
            failure: None,
            by: "".into(),
            confirmed: Vec::new(),
        }));
        self.by_age.push_back(id);
        self.names.insert(name, id);
        Some(id)
    }

    /// The lane between these domains, made if it is not there.
    pub(super) fn lane_to(&mut self, own: &Arc<str>, remote: &str) -> Option<LaneId> {
        let domain = self.domain(remote)?;
        if let Some(lane) = self.find_lane(own, remote) {
            return Some(lane);
        }
        let id = LaneId(self.lanes.insert(Lane {
            domain,
            own: own.clone(),
            queue: Queue::default(),
            link: Link::Idle,
            attempts: Attempts::default(),
            asked: Vec::new(),
            resumable: None,
            touched: false,
            store_due: None,
            expire_due: None,
        }));
        self.domains.get_mut(domain.0)?.lanes.push(id);
        Some(id)
    }

    /// Forgets a domain with which nothing goes on.
    fn evict_domain(&mut self) -> bool {
        for _ in 0..EVICTION_LOOKS.min(self.by_age.len()) {
            let Some(id) = self.by_age.pop_front() else { return false };
            let Some(domain) = self.domains.get(id.0) else { continue };
            let idle = domain.inbound.is_empty()
                && domain.backlog.is_none()
                && domain.confirmed.is_empty()
                && domain.stored == 0
                && domain.lanes.iter().all(|lane| self.lanes.get(lane.0).is_none_or(Lane::is_idle));
            if !idle {
                self.by_age.push_back(id);
                continue;
            }
            if let Some(domain) = self.domains.remove(id.0) {
                for lane in &domain.lanes {
                    self.lanes.remove(lane.0);
                }
                self.names.remove(&domain.name);
            }
            return true;
        }
        false
    }

    /// Takes a stanza for a remote domain: queues it, or answers it.
    pub(super) fn enqueue(&mut self, own: &Arc<str>, remote: &str, item: Item, fx: &mut Effects) {
        if self.is_refused(remote) {
            return self.refuse(item, StanzaCondition::RemoteServerNotFound, BLOCKED, fx);
        }
        let Some(item) = self.not_ours(remote, item, fx) else { return };
        let Some(lane_id) = self.lane_to(own, remote) else {
            return self.refuse(item, StanzaCondition::ResourceConstraint, FULL, fx);
        };
        let limits = &self.config.limits;
        let Some(lane) = self.lanes.get_mut(lane_id.0) else { return };
        let connected = matches!(lane.link, Link::Up(_));
        if let Some((condition, text)) = lane.attempts.answers_at_once(&item, self.now.mono) {
            return self.refuse_in(lane_id, item, condition, text, fx);
        }
        let full = lane.queue.len() >= limits.queue_stanzas
            || lane.queue.bytes() + item.bytes.len() > limits.queue_bytes
            || self.queued_bytes > limits.queues_bytes && !connected;
        if full {
            return self.refuse_in(
                lane_id,
                item,
                StanzaCondition::ResourceConstraint,
                FULL.into(),
                fx,
            );
        }
        let wait = if item.row.is_never() { limits.wait } else { self.config.patience };
        let due = item.at + wait;
        let before = lane.queue.bytes();
        lane.queue.push(item);
        self.queued_bytes += lane.queue.bytes() - before;
        if !connected && lane.expire_due.is_none_or(|set| due < set) {
            lane.expire_due = Some(due);
            self.wheel.insert(due, Timer::Expire(lane_id));
        }
        self.touch(lane_id);
    }

    /// Whether stanzas of this domain are neither taken nor sent.
    pub(super) fn is_refused(&self, remote: &str) -> bool {
        self.refused.contains(remote)
            || self.blocked.contains(remote)
            || self.config.own(remote).is_some()
    }

    /// Looks at a lane when the turn ends.
    pub(super) fn touch(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(id.0)
            && !lane.touched
        {
            lane.touched = true;
            self.touched.push(id);
        }
    }

    /// What a lane needs after a turn: a stream, rows in the store, timers.
    pub(super) fn settle_lane(&mut self, id: LaneId, fx: &mut Effects) {
        let is_lost = self.has_lost(id);
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        lane.touched = false;
        if is_lost && !lane.queue.is_empty() {
            // It goes back; see `share`.
            return;
        }
        match lane.link {
            Link::Up(conn) => self.flow(id, conn, fx),
            Link::Idle if lane.wants_stream() => self.want_stream(id, fx),
            Link::Dialling(conn) => self.use_dialling(conn, fx),
            Link::Waiting | Link::BackingOff | Link::Idle => {}
        }
        self.store_what_waits(id, fx);
        self.set_expiry(id);
    }

    fn set_expiry(&mut self, id: LaneId) {
        let (patience, wait) = (self.config.patience, self.config.limits.wait);
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        if matches!(lane.link, Link::Up(_)) || lane.expire_due.is_some() {
            return;
        }
        let wait_of = |item: &Item| if item.row.is_never() { wait } else { patience };
        let Some(due) = lane.queue.expires(wait_of) else { return };
        lane.expire_due = Some(due);
        self.wheel.insert(due, Timer::Expire(id));
    }

    pub(super) fn lane_wants_stream(&self, id: LaneId) -> bool {
        self.lanes.get(id.0).is_some_and(Lane::wants_stream)
    }

    /// Answers what has waited for too long.
    pub(super) fn expire(&mut self, id: LaneId, fx: &mut Effects) {
        let (patience, wait) = (self.config.patience, self.config.limits.wait);
        let now = self.now.mono;
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        lane.expire_due = None;
        self.give_up_resumable(id, fx);
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        if matches!(lane.link, Link::Up(_)) {
            return;
        }
        let before = lane.queue.bytes();
        let due = lane.queue.expire(|item| {
            let wait = if item.row.is_never() { wait } else { patience };
            item.at + wait <= now
        });
        self.queued_bytes -= before - lane.queue.bytes();
        let text = self.why_not(id);
        for item in due {
            self.refuse_in(id, item, StanzaCondition::RemoteServerTimeout, text.clone(), fx);
        }
        self.set_expiry(id);
    }

    /// Why the domain of a lane is not reached, for the sender of a stanza.
    pub(super) fn why_not(&self, id: LaneId) -> Box<str> {
        let lane = self.lanes.get(id.0);
        let domain = lane.and_then(|lane| self.domains.get(lane.domain.0));
        domain
            .and_then(|domain| domain.failure.as_ref())
            .map_or_else(|| NO_ANSWER.into(), |(_, _, text)| text.clone())
    }
}

pub(super) const BLOCKED: &str = "this server does not talk to that domain";
const FULL: &str = "too much waits for other servers";
const NO_ANSWER: &str = "the other server did not answer in time";
