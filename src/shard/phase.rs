//! The phases at which features are called beside IQs: on a stanza's way, and in a session's life. Which feature wants
//! which phase is worked out once, at the shard's start.

use super::Shard;
use super::account::AccountId;
use super::effect::Effects;
use super::feature::{Feature, Manifest};
use super::session::SessionId;
use super::turn::Turn;
use crate::frame::{Envelope, Flags};
use crate::xmpp::jid::Jid;
use crate::xmpp::stanza::{MessageType, Stanza, StanzaKind};
use crate::xmpp::stanza_error::StanzaError;
use crate::xmpp::xml::element::Element;
use smallvec::SmallVec;
use std::sync::Arc;

/// A point on the way of a stanza, or in the life of a session, at which features are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// `Feature::on_sent`
    Sent,
    /// `Feature::on_received`
    Received,
    /// `Feature::on_delivered`
    Delivered,
    /// `Feature::on_audience`
    Audience,
    /// `Feature::on_session`
    Session,
}

/// A stanza of one of our clients, before it is decided where it goes.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    pub session: SessionId,
    pub account: AccountId,
    pub kind: StanzaKind,
    /// `None` where the client named nobody: it means its own account or its server.
    pub to: Option<&'a Jid>,
    pub stanza: Stanza<'a>,
}

/// A stanza for an account, before its sessions are chosen.
#[derive(Clone, Copy)]
pub struct Received<'a> {
    pub account: AccountId,
    pub kind: StanzaKind,
    /// As prepared by the core of the sender.
    pub from: &'a str,
    /// This recipient; the envelope may name several.
    pub to: &'a str,
    pub envelope: &'a Envelope<'a>,
}

/// Which end of a message's way an account stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Out,
    In,
}

/// A message that is on its way out of a session, or that was given to sessions (or to the log, where there are none).
#[derive(Clone, Copy)]
pub struct Delivered<'a> {
    pub account: AccountId,
    pub direction: Direction,
    pub kind: MessageType,
    pub flags: Flags,
    pub from: &'a str,
    pub to: &'a str,
    /// Those that sent it or got it.
    pub sessions: &'a [SessionId],
    /// As it was written, with addresses and its id in the account.
    pub stanza: &'a [u8],
    /// Bytes of `stanza` up to the end of its start tag.
    pub open_end: u32,
}

/// What a feature says of a stanza on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passage {
    Pass,
    /// It goes back with this error; what may not be answered (errors, results, presence from outside) is dropped.
    Refuse(StanzaError),
    /// It ends here: the feature has dealt with it, or nobody is to notice it.
    Taken,
}

/// Addresses that something goes to, each with the hash of its bare JID.
pub type Audience = Vec<(u64, Arc<str>)>;

/// Turning points of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionChange {
    /// A resource is bound.
    Started,
    /// Its first presence is out.
    Available,
    /// It is gone for good, and its state goes with it after this call. A session that waits to be resumed has not ended.
    Ended,
}

/// Features by the phase that they declare, in their order.
#[derive(Debug, Default)]
pub(super) struct Phases {
    sent: Wanted,
    received: Wanted,
    delivered: Wanted,
    audience: Wanted,
    session: Wanted,
}

/// Places in the list of features.
type Wanted = SmallVec<[u8; 8]>;

impl Phases {
    pub(super) fn of(features: &[Box<dyn Feature>]) -> Self {
        let wanted = |phase: Phase| -> Wanted {
            let places = features.iter().enumerate();
            let wants = places.filter(|(_, feature)| feature.manifest().phases.contains(&phase));
            wants.filter_map(|(place, _)| u8::try_from(place).ok()).collect()
        };
        Self {
            sent: wanted(Phase::Sent),
            received: wanted(Phase::Received),
            delivered: wanted(Phase::Delivered),
            audience: wanted(Phase::Audience),
            session: wanted(Phase::Session),
        }
    }

    /// Whether something holds of all features that see what clients send.
    pub(super) fn all_sent(&self, holds: impl FnMut(usize) -> bool) -> bool {
        self.sent.iter().map(|place| usize::from(*place)).all(holds)
    }

    pub(super) fn wants_delivered(&self) -> bool {
        !self.delivered.is_empty()
    }
}

impl Shard {
    pub(super) fn ask_sent(&mut self, sent: &Sent<'_>, fx: &mut Effects) -> Passage {
        for &place in &self.phases.sent {
            let feature = usize::from(place);
            let mut turn = Turn::silent(&mut self.core, fx, feature);
            match self.features[feature].on_sent(&mut turn, sent) {
                Passage::Pass => {}
                other => return other,
            }
        }
        Passage::Pass
    }

    pub(super) fn ask_received(&mut self, received: &Received<'_>, fx: &mut Effects) -> Passage {
        for &place in &self.phases.received {
            let feature = usize::from(place);
            let mut turn = Turn::silent(&mut self.core, fx, feature);
            match self.features[feature].on_received(&mut turn, received) {
                Passage::Pass => {}
                other => return other,
            }
        }
        Passage::Pass
    }

    pub(super) fn tell_delivered(&mut self, delivered: &Delivered<'_>, fx: &mut Effects) {
        for &place in &self.phases.delivered {
            let feature = usize::from(place);
            let mut turn = Turn::silent(&mut self.core, fx, feature);
            self.features[feature].on_delivered(&mut turn, delivered);
        }
    }

    pub(super) fn retain_audience(
        &mut self,
        account: AccountId,
        audience: &mut Audience,
        fx: &mut Effects,
    ) {
        for &place in &self.phases.audience {
            let feature = usize::from(place);
            let mut turn = Turn::silent(&mut self.core, fx, feature);
            self.features[feature].on_audience(&mut turn, account, audience);
        }
    }

    /// What the features answer to what a client asks for inside of `<bind/>`, as XML.
    pub(super) fn ask_bind(
        &mut self,
        session: SessionId,
        request: &Element,
        fx: &mut Effects,
    ) -> Vec<u8> {
        let mut out = Vec::new();
        let takes = |manifest: &Manifest| manifest.bind_inline.contains(&&*request.namespace);
        for feature in 0..self.features.len() {
            if takes(self.core.manifests[feature]) {
                let mut turn = Turn::silent(&mut self.core, fx, feature);
                out.extend(self.features[feature].on_bind(&mut turn, session, request));
            }
        }
        out
    }

    /// Sessions end in timers and broken connections, too: a bug is contained here.
    pub(super) fn tell_session(
        &mut self,
        session: SessionId,
        change: SessionChange,
        fx: &mut Effects,
    ) {
        for at in 0..self.phases.session.len() {
            let feature = usize::from(self.phases.session[at]);
            self.contained(fx, |shard, fx| {
                let mut turn = Turn::silent(&mut shard.core, fx, feature);
                shard.features[feature].on_session(&mut turn, session, change);
            });
        }
    }
}
