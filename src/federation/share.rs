//! In a cluster: which remote domains are this node's, and how they come and go (DESIGN §7). A node without a cluster has
//! all of them, for good.
//!
//! A change of owners takes effect here when each shard of this node has said that all which follows was sent by it: no
//! frame for a domain that is lost comes behind that. What was sent to such a domain and is not confirmed is waited for, for
//! a moment; its streams end; what is in no row goes back to a shard, which passes it on to the new owner. Then the shards
//! are told, and do not let go of the epoch before: the new owner sends nothing earlier, and finds in the store all that
//! waits there.
//!
//! What was gained is taken when the shards say that all others have let go: rows are read, and frames follow.

use super::domain::{DomainId, LaneId, Link};
use super::durable::{Ids, Waiting, Walk};
use super::effect::Effects;
use super::frames::{Carried, Post, domain_of};
use super::queue::{Item, Row};
use super::{Core, Failure, Timer};
use crate::base::hash::hash64;
use crate::base::instant::Instant;
use crate::cluster::placement::{NodeId, PARTITIONS, Placement, partition};
use crate::frame::{self, Class, Envelope, Kind};
use crate::store::Ticket;
use crate::xmpp::stanza::{Stanza, StanzaKind};
use crate::xmpp::stanza_error::StanzaCondition;
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::reader::{self, StreamContext};
use std::sync::Arc;
use std::time::Duration;

/// How long a change of owners waits for peers to confirm what they were sent: as long as accounts may have to.
const LEAVE_MAX: Duration = Duration::from_millis(500);
/// How often it is looked at.
const STEP: Duration = Duration::from_millis(20);

/// Of a node in a cluster.
#[derive(Debug)]
pub(super) struct Share {
    own: NodeId,
    /// By which it acts; `None` before the first.
    placement: Option<Arc<Placement>>,
    /// The newest that was told; the shards may not go by it yet.
    told: Option<Arc<Placement>>,
    /// The newest epoch that each shard goes by.
    marked: Vec<u64>,
    /// All others have let go of what is ours.
    is_settled: bool,
    /// By partition: it is ours, was so since we read what waits for it, and nothing else of it is to be read.
    kept: Box<[bool]>,
    /// Domains that are let go of, until when at the latest.
    leaving: Vec<DomainId>,
    until: Instant,
    has_sealed: bool,
    /// Writes for what was lost are done when none up to this one is out.
    barrier: Option<Ticket>,
    is_looking: bool,
}

impl Share {
    /// - `shards`: of this node
    pub(super) fn new(own: NodeId, shards: u16) -> Share {
        Share {
            own,
            placement: None,
            told: None,
            marked: vec![0; usize::from(shards)],
            is_settled: false,
            kept: vec![false; usize::from(PARTITIONS)].into(),
            leaving: Vec::new(),
            until: Instant::default(),
            has_sealed: true,
            barrier: None,
            is_looking: false,
        }
    }

    fn epoch(&self) -> u64 {
        self.placement.as_ref().map_or(0, |placement| placement.epoch())
    }

    fn owns(&self, partition: u16) -> bool {
        let placement = self.placement.as_ref();
        placement.and_then(|placement| placement.domain_node(partition)) == Some(self.own)
    }

    fn keeps(&self, partition: u16) -> bool {
        self.kept.get(usize::from(partition)).copied().unwrap_or(false)
    }
}

fn partition_of(domain: &str) -> u16 {
    partition(hash64(domain.as_bytes()))
}

impl Core {
    /// Whether stanzas for a remote domain are this node's to send.
    pub(super) fn owns(&self, domain: &str) -> bool {
        self.share.as_ref().is_none_or(|share| share.owns(partition_of(domain)))
    }

    /// As `owns`; and all others have let go of it, and it is not about to go.
    fn takes(&self, domain: &str) -> bool {
        self.share.as_ref().is_none_or(|share| {
            let partition = partition_of(domain);
            share.owns(partition) && (share.is_settled || share.keeps(partition))
        })
    }

    /// Whether a lane is to a domain that is another node's, or about to be.
    pub(super) fn has_lost(&self, lane: LaneId) -> bool {
        let lane = self.lanes.get(lane.0);
        let domain = lane.and_then(|lane| self.domains.get(lane.domain.0));
        domain.is_some_and(|domain| !self.takes(&domain.name))
    }

    /// Whether rows that others left for a domain may not all be known.
    pub(super) fn is_gained(&self, domain: &str) -> bool {
        self.share.as_ref().is_none_or(|share| !share.keeps(partition_of(domain)))
    }

    /// By which it acts in a cluster.
    pub(super) fn epoch(&self) -> u64 {
        self.share.as_ref().map_or(0, Share::epoch)
    }

    /// Pages of a domain's rows that were asked for by an older epoch are of no use.
    pub(super) fn read_since(&self, id: DomainId) -> u64 {
        self.domains.get(id.0).map_or(0, |domain| domain.read_since)
    }

    /// A walk through the domains that have rows is over: those that are ours are known.
    pub(super) fn all_known(&mut self) {
        if let Some(share) = self.share.as_mut().filter(|share| share.is_settled) {
            for partition in 0..PARTITIONS {
                share.kept[usize::from(partition)] = share.owns(partition);
            }
        }
    }

    /// What the cluster has decided.
    pub(super) fn placed(&mut self, placement: Arc<Placement>, fx: &mut Effects) {
        let Some(share) = &mut self.share else { return };
        let newest = share.told.as_ref().map(|told| told.epoch());
        if newest.is_none_or(|newest| placement.epoch() > newest) {
            share.told = Some(placement);
            self.go_by_it(fx);
        }
    }

    /// A shard of this node says something of an epoch.
    pub(super) fn told_of_epoch(&mut self, ring: u16, envelope: &Envelope<'_>, fx: &mut Effects) {
        let Some(share) = &mut self.share else { return };
        let text = std::str::from_utf8(envelope.stanza).unwrap_or_default();
        let Ok(epoch) = text.parse::<u64>() else { return };
        match envelope.subtype {
            frame::MARKER => {
                if let Some(marked) = share.marked.get_mut(usize::from(ring)) {
                    *marked = epoch.max(*marked);
                }
                self.go_by_it(fx);
            }
            frame::SEALED => self.settled(epoch, fx),
            _ => {}
        }
    }

    /// Goes by the newest placement if the shards do.
    fn go_by_it(&mut self, fx: &mut Effects) {
        let now = self.now.mono;
        let Some(share) = &mut self.share else { return };
        let Some(told) = share.told.clone().filter(|told| {
            let epoch = told.epoch();
            (share.placement.is_none() || epoch > share.epoch())
                && share.marked.iter().all(|marked| *marked >= epoch)
        }) else {
            return;
        };
        share.placement = Some(told);
        share.is_settled = false;
        share.has_sealed = false;
        share.barrier = None;
        share.until = now + LEAVE_MAX;
        for partition in 0..PARTITIONS {
            let kept = share.keeps(partition) && share.owns(partition);
            share.kept[usize::from(partition)] = kept;
        }
        // What was gained and is not known yet is read anew.
        self.walk = Walk::Held;
        let lost = self.domains.iter().filter(|(_, domain)| self.is_gained(&domain.name));
        let lost: Vec<DomainId> = lost.map(|(id, _)| DomainId(id)).collect();
        let epoch = self.epoch();
        for id in &lost {
            let Some(domain) = self.domains.get_mut(id.0) else { continue };
            // Pages that are on their way are nobody's.
            (domain.backlog, domain.read_since) = (None, epoch);
        }
        if let Some(share) = &mut self.share {
            share.leaving = lost;
        }
        self.leave_on(fx);
    }

    /// Goes on with letting go of what is lost, as far as it goes.
    pub(super) fn leave_on(&mut self, fx: &mut Effects) {
        let Some(share) = self.share.as_mut().filter(|share| !share.has_sealed) else { return };
        let is_over = self.now.mono >= share.until;
        let mut leaving = std::mem::take(&mut share.leaving);
        leaving.retain(|id| !self.lets_go_of(*id, is_over, fx));
        let is_empty = leaving.is_empty();
        let answers = self.outward.iter().any(super::frames::Outward::has_bounces);
        // Rows of what is confirmed by now, or goes back, are not to be read by the new owner.
        self.write_confirmed(fx);
        let (last, mut is_out) = (Ticket(self.next_ticket), false);
        let Some(share) = &mut self.share else { return };
        share.leaving = leaving;
        if is_empty && (!answers || is_over) {
            let barrier = *share.barrier.get_or_insert(last);
            is_out = self.tickets.iter().any(|(ticket, waiting)| {
                *ticket <= barrier && matches!(waiting, Waiting::Row { .. } | Waiting::Confirmed)
            });
        }
        if share.barrier.is_some() && !is_out {
            share.has_sealed = true;
            let epoch = share.epoch();
            for shard in 0..self.config.shards {
                self.tell_shard(shard, frame::SEALED, epoch, fx);
            }
        } else if !std::mem::replace(&mut share.is_looking, true) {
            self.wheel.insert(self.now.mono + STEP, Timer::Share);
        }
    }

    pub(super) fn share_due(&mut self, fx: &mut Effects) {
        if let Some(share) = &mut self.share {
            share.is_looking = false;
        }
        self.leave_on(fx);
    }

    /// Gives whether nothing of a domain that is lost is left.
    fn lets_go_of(&mut self, id: DomainId, is_over: bool, fx: &mut Effects) -> bool {
        let Some(domain) = self.domains.get(id.0) else { return true };
        let mut all = true;
        for lane in domain.lanes.clone() {
            all &= self.lane_leaves(lane, is_over, fx);
        }
        if let Some(domain) = self.domains.get_mut(id.0).filter(|_| all) {
            (domain.first_row, domain.stored) = (None, 0);
        }
        all
    }

    fn lane_leaves(&mut self, id: LaneId, is_over: bool, fx: &mut Effects) -> bool {
        let Some(lane) = self.lanes.get(id.0) else { return true };
        let link = lane.link;
        if let Link::Up(conn) = link
            && lane.queue.unconfirmed() > 0
            && !is_over
        {
            self.set_barrier(id, conn, fx);
            return false;
        }
        let Some(lane) = self.lanes.get(id.0) else { return true };
        if lane.queue.is_writing() {
            return false;
        }
        // What may have been done must not be done twice; the rest goes out once more, if it went out.
        self.give_up_lost(id, fx);
        let Some(lane) = self.lanes.get_mut(id.0) else { return true };
        self.queued_bytes -= lane.queue.bytes();
        for item in lane.queue.take_all() {
            if !matches!(item.row, Row::Durable(_)) {
                self.hand_back(id, item, fx);
            }
        }
        if let Link::Up(conn) = link {
            self.give_up(conn, Failure::Lost, "another node of the cluster has it now", None, fx);
        }
        true
    }

    /// A stanza for a domain that is another node's goes back to a shard, which passes it on.
    fn hand_back(&mut self, lane: LaneId, item: Item, fx: &mut Effects) {
        if !self.goes_back(&item, fx) {
            let text = "it could not be handed to another node";
            self.refuse_in(lane, item, StanzaCondition::ResourceConstraint, text.into(), fx);
        }
    }

    fn goes_back(&mut self, item: &Item, fx: &mut Effects) -> bool {
        let kind = match item.kind {
            Kind::Message => StanzaKind::Message,
            Kind::Presence => StanzaKind::Presence,
            Kind::Iq => StanzaKind::Iq,
            Kind::Control => return false,
        };
        let mut index = std::mem::take(&mut self.index);
        let read =
            reader::read(&item.bytes, &StreamContext::client(), &XmlLimits::PASSED, &mut index);
        let stanza = Stanza { bytes: &item.bytes, index: &index };
        let parts = read.ok().and_then(|()| {
            let flags = Class::of(kind, &stanza).map(|class| class.flags).unwrap_or_default();
            Some((stanza.from()?, stanza.to()?, flags))
        });
        let mut left = false;
        if let Some((from, to, flags)) = parts
            && let (Ok(from), Ok(to)) = (self.jids.parse(&from), self.jids.parse(&to))
            && let Some(domain) = super::frames::domain_jid(to.domain())
        {
            let post = Post {
                from: &from.to_string(),
                owner: &domain,
                to: &to.to_string(),
                kind: item.kind,
                subtype: item.subtype,
                flags,
                ingress: item.ingress,
                stanza: &item.bytes,
                open_end: item.open_end,
                close_start: item.close_start,
            };
            left = self.post(&post, item.frame.map(Carried::Frame), fx);
        }
        self.index = index;
        left
    }

    /// Gives a stanza back whose domain is another node's, or may be.
    pub(super) fn not_ours(&mut self, remote: &str, item: Item, fx: &mut Effects) -> Option<Item> {
        if self.takes(remote) {
            return Some(item);
        }
        if !self.goes_back(&item, fx) {
            let text = "it could not be handed to another node";
            self.refuse(item, StanzaCondition::ResourceConstraint, text, fx);
        }
        None
    }

    /// All others have let go of what is ours by this epoch.
    fn settled(&mut self, epoch: u64, fx: &mut Effects) {
        let Some(share) = &mut self.share else { return };
        if share.is_settled || epoch != share.epoch() {
            return;
        }
        share.is_settled = true;
        if (0..PARTITIONS).all(|it| share.keeps(it) || !share.owns(it)) {
            self.walk = Walk::Done;
            return;
        }
        // Others gave higher ones to what is ours now.
        let waiting: Vec<LaneId> = self.ids.iter_mut().flat_map(Ids::forget).collect();
        waiting.into_iter().for_each(|lane| self.touch(lane));
        (self.walk, self.walked) = (Walk::Next(None), None);
        self.walk_on(fx);
    }

    fn tell_shard(&mut self, shard: u16, subtype: u8, epoch: u64, fx: &mut Effects) {
        let text = epoch.to_string();
        let own = self.config.domains.first().and_then(|own| super::frames::domain_jid(own));
        let Some(own) = own else { return };
        let post = Post::control(subtype, "", (&own, ""), text.as_bytes(), self.now.wall);
        self.post_on(shard, &post, None, fx);
    }

    /// Whether a frame of a shard is the answer to a ping of ours, which came in at another node.
    pub(super) fn is_pong(&self, envelope: &Envelope<'_>) -> bool {
        envelope.kind == Kind::Iq
            && self.share.is_some()
            && domain_of(envelope.to).is_some_and(|own| self.config.own(own).is_some())
    }
}
