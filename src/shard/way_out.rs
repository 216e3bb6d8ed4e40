//! Stanzas for other domains in a cluster (DESIGN §7): each domain has one owner, as an account has, and all that is for it
//! goes by the shard that the owner is. That shard gives it to the federation core of its own node; so one path leads from
//! each sender to each domain, and while owners change it is kept straight as the way to an account is: what was routed by
//! an older epoch goes on to the new owner, which sends nothing to the domain before all others have let go of it.
//!
//! Federation cores meet the shards of their own node alone. What comes in from another domain is given to one of those,
//! which passes it on to the owner of the account. Answers to a federation core's own pings come in at any node, and go back
//! by the owner of the domain that gave them.

use super::account::Queued;
use super::deliver::{domain_of, is_error, is_result};
use super::effect::Effects;
use super::heard::Heard;
use super::line::place_of;
use super::peers::Peer;
use super::retry::{again, unwrap};
use super::ring::FrameRef;
use super::{Core, Shard};
use crate::base::hash::hash64;
use crate::frame::{Envelope, Kind};
use crate::xmpp::stanza::IqType;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};

/// Frames that wait for one domain while owners change, at most; above, they are refused.
const LINE_MAX: usize = 4_096;
/// Domains that have such a line.
const LINES_MAX: usize = 4_096;

impl Shard {
    /// A frame for another domain, or one that its federation core waits for.
    pub(super) fn hand_out(
        &mut self,
        envelope: &Envelope<'_>,
        to: &str,
        domain: &str,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let hash = hash64(domain.as_bytes());
        let Some(owner) = self.core.placement.domain_owner(hash) else {
            return self.core.bounce(envelope, to, &not_found());
        };
        if owner != self.core.own() && !self.core.is_remote(to) {
            // An answer to a ping, which is asked for again where it is lost: it needs no name.
            if !self.core.park(envelope, to, at) {
                self.core.hold_frame(at.awaited(envelope.flags));
                self.send_frame_on(envelope, to, owner, at, fx);
            }
            return;
        }
        if self.pass_on_to(owner, None, envelope, to, at, fx) {
            return;
        }
        let queued = || Queued::new(envelope, to, at);
        if self.core.handover.holds_domain(hash) {
            return self.core.wait_to_go_out(domain, queued());
        }
        self.core.hold_frame(at.awaited(envelope.flags));
        self.send_out(envelope, to, domain, at, fx);
    }

    /// - takes: `at`, which is held where the frame wants to be acknowledged
    fn send_out(
        &mut self,
        envelope: &Envelope<'_>,
        to: &str,
        domain: &str,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let peer = self.core.peers.federation(domain);
        self.core.went_out = peer;
        self.send_frame_to(envelope, to, peer, at, fx);
    }

    /// As `retried`, of a frame for another domain. What the owner that is gone did of it nobody knows: it may go out twice,
    /// but for a request, which is answered instead. Reading a message twice does less harm than doing a thing twice.
    pub(super) fn retried_out(
        &mut self,
        envelope: &Envelope<'_>,
        at: FrameRef,
        is_new: bool,
        fx: &mut Effects,
    ) {
        let domain = domain_of(envelope.to);
        let hash = hash64(domain.as_bytes());
        let Some(owner) = self.core.placement.domain_owner(hash) else {
            return self.core.refuse_wrapped(envelope, envelope.to, &not_found());
        };
        if self.pass_on_to(owner, None, envelope, envelope.to, at, fx) {
            return;
        }
        let Some((origin, batch)) = unwrap(envelope.stanza) else { return };
        let Some(inner) = again(envelope, &batch, is_new) else { return };
        let to = inner.to;
        let is_request =
            matches!(IqType::from_code(inner.subtype), Some(IqType::Get | IqType::Set));
        if !is_new && inner.kind == Kind::Iq && is_request {
            let why = StanzaError::new(StanzaCondition::RemoteServerTimeout);
            return self.core.bounce(&inner, to, &why);
        }
        if self.core.handover.holds_domain(hash) {
            let queued = Queued { retry: Some(origin), is_new, ..Queued::new(&inner, to, at) };
            return self.core.wait_to_go_out(domain, queued);
        }
        let awaited = at.awaited(inner.flags);
        let heard = Heard { origin, account: hash };
        if self.core.has_heard(heard, awaited) {
            return;
        }
        self.core.hold_frame(awaited);
        self.send_out(&inner, to, domain, at, fx);
        let now = self.core.now.mono;
        self.core.memory.insert(heard, at, now);
    }

    /// All others have let go of the domains that are ours.
    pub(super) fn go_out(&mut self, fx: &mut Effects) {
        for (domain, line) in std::mem::take(&mut self.core.handover.going_out) {
            for queued in line {
                self.goes_out(&domain, &queued, fx);
            }
        }
    }

    fn goes_out(&mut self, domain: &str, queued: &Queued, fx: &mut Effects) {
        let epoch = self.core.placement.epoch();
        let envelope = queued.envelope(epoch);
        let awaited = queued.at.awaited(envelope.flags);
        if let Some(origin) = queued.retry {
            let heard = Heard { origin, account: hash64(domain.as_bytes()) };
            if self.core.has_heard(heard, awaited) {
                return self.core.release_frame(awaited);
            }
            let now = self.core.now.mono;
            self.core.memory.insert(heard, queued.at, now);
        }
        self.send_out(&envelope, envelope.to, domain, queued.at, fx);
    }

    /// Owners have changed once more: what waits for domains that are others' now goes there.
    pub(super) fn going_out_anew(&mut self, fx: &mut Effects) {
        let own = self.core.own();
        for (domain, line) in std::mem::take(&mut self.core.handover.going_out) {
            let owner = self.core.placement.domain_owner(hash64(domain.as_bytes()));
            match owner {
                Some(owner) if owner == own => {
                    self.core.handover.going_out.insert(domain, line);
                }
                Some(owner) => {
                    line.iter().for_each(|queued| self.send_queued_on(queued, owner, fx));
                }
                None => line.iter().for_each(|queued| {
                    let envelope = queued.envelope(self.core.placement.epoch());
                    self.core.bounce(&envelope, envelope.to, &not_found());
                    self.core.release_frame(queued.at.awaited(envelope.flags));
                }),
            }
        }
    }
}

impl Core {
    /// Whether stanzas for other domains go anywhere.
    pub(super) fn is_federated(&self) -> bool {
        self.peers.is_federated() || self.placement.federates()
    }

    /// Who is given what is for another domain: its owner in a cluster; else the federation core.
    pub(super) fn way_out(&self, domain: &str) -> Option<Peer> {
        if !self.placement.federates() {
            return self.peers.federation(domain);
        }
        self.peers.of(self.placement.domain_owner(hash64(domain.as_bytes()))?)
    }

    /// The remote domain whose federation core gets a frame, in a cluster: that of its recipient; or that of its sender, for
    /// an answer to the server itself, which asks nobody but with the pings of those cores.
    pub(super) fn domain_out<'a>(&self, envelope: &Envelope<'a>, to: &'a str) -> Option<&'a str> {
        if !self.placement.federates() {
            return None;
        }
        if self.is_remote(to) {
            return Some(domain_of(to));
        }
        let answers = is_result(envelope) || is_error(envelope);
        let is_pong = answers
            && envelope.kind == Kind::Iq
            && self.is_local_domain(to)
            && self.is_remote(envelope.from);
        is_pong.then(|| domain_of(envelope.from))
    }

    /// A frame waits until all others have let go of its domain.
    fn wait_to_go_out(&mut self, domain: &str, queued: Queued) {
        let handover = &mut self.handover;
        let has_room = match handover.going_out.get(domain) {
            Some(line) => line.len() < LINE_MAX,
            None => handover.going_out.len() < LINES_MAX,
        };
        let awaited = queued.at.awaited(queued.post.flags);
        if !has_room {
            let envelope = queued.envelope(self.placement.epoch());
            return self.bounce(&envelope, envelope.to, &super::deliver::resource_constraint());
        }
        let line = handover.going_out.entry(domain.into()).or_default();
        let again = queued.retry.and_then(|_| line.iter().find(|it| it.retry == queued.retry));
        if let Some(first) = again.map(|it| it.at) {
            return self.came_again(first, awaited);
        }
        let place = place_of(line, &queued);
        line.insert(place, queued);
        self.hold_frame(awaited);
    }
}

fn not_found() -> StanzaError {
    StanzaError::new(StanzaCondition::RemoteServerNotFound)
}
