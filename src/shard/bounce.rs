//! Stanzas that go back to their senders as errors (RFC 6120 §8.3).

use super::account::Queued;
use super::deliver::{is_error, is_result};
use super::trace::Step;
use super::{Core, Post};
use crate::frame::{Envelope, Kind};
use crate::xmpp::stanza::{IqType, MessageType, Stanza, StanzaKind};
use crate::xmpp::stanza_error::{StanzaError, write_error_reply};
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::reader::{self, Index};

/// What is needed to send a message back when it could not be stored.
#[derive(Debug)]
pub(super) struct Bounce {
    pub kind: Kind,
    pub subtype: u8,
    pub from: Box<str>,
    pub to: Box<str>,
    /// The stanza's open tag.
    pub open: Box<[u8]>,
}

impl Bounce {
    pub(super) fn new(kind: Kind, subtype: u8, from: &str, to: &str, open: &[u8]) -> Self {
        Self { kind, subtype, from: from.into(), to: to.into(), open: open.into() }
    }
}

impl Core {
    /// Sends a stanza back to its sender as an error. Errors and results are never answered.
    pub(super) fn bounce(&mut self, envelope: &Envelope<'_>, to: &str, error: &StanzaError) {
        if let Some((_, inner)) = super::direct::unwrap(envelope) {
            return self.bounce(&inner, to, error);
        }
        if envelope.kind == Kind::Presence {
            // Presence is not answered with errors by an account: that would tell strangers who is here.
            self.probe.presence_dropped += 1;
            self.trace_envelope(envelope, to, Step::Dropped, error.condition.name());
            return;
        }
        self.remember_refusal(envelope, to);
        let is_answer = is_error(envelope) || is_result(envelope);
        let step = if is_answer { Step::Dropped } else { Step::Refused };
        self.trace_envelope(envelope, to, step, error.condition.name());
        let open = &envelope.stanza[..envelope.open_end as usize];
        let bounce = Bounce::new(envelope.kind, envelope.subtype, envelope.from, to, open);
        self.bounce_later(&bounce, error);
    }

    /// What waited for its account goes back, and is handled by that.
    pub(super) fn refuse_queued(&mut self, queued: &Queued) {
        let envelope = queued.envelope(self.placement.epoch());
        let awaited = queued.at.awaited(envelope.flags);
        let outer = self.copies.enter(awaited);
        let origin = std::mem::replace(&mut self.retry_origin, queued.retry);
        self.bounce(&envelope, envelope.to, &super::deliver::resource_constraint());
        self.retry_origin = origin;
        self.copies.enter(outer);
        self.release_frame(awaited);
    }

    /// As `refuse_queued`, of what finds no place to wait.
    pub(super) fn refuse_new(&mut self, queued: &Queued) {
        self.hold_frame(queued.at.awaited(queued.post.flags));
        self.refuse_queued(queued);
    }

    pub(super) fn bounce_later(&mut self, bounce: &Bounce, error: &StanzaError) {
        let (kind, code) = match bounce.kind {
            Kind::Message => {
                if bounce.subtype == MessageType::Error.code() {
                    return;
                }
                self.probe.messages_bounced += 1;
                (StanzaKind::Message, MessageType::Error.code())
            }
            Kind::Iq => {
                let asks =
                    matches!(IqType::from_code(bounce.subtype), Some(IqType::Get | IqType::Set));
                if !asks {
                    return;
                }
                (StanzaKind::Iq, IqType::Error.code())
            }
            Kind::Presence | Kind::Control => return,
        };
        let id = open_tag_id(&bounce.open);
        let mut stanza = Vec::with_capacity(256);
        write_error_reply(
            &mut stanza,
            kind,
            id.as_deref(),
            Some(&bounce.to),
            Some(&bounce.from),
            error,
        );
        let refusal = Post::refusal(&bounce.to, &bounce.from, bounce.kind, code, stanza);
        self.leave(Post { answers: self.copies.frame(), ..refusal });
    }
}

/// The id in an open tag of our own writing.
pub(super) fn open_tag_id(open: &[u8]) -> Option<String> {
    let mut closed = open.to_vec();
    if let Some(last) = closed.pop() {
        closed.extend_from_slice(&[b'/', last]);
    }
    stanza_id(&closed)
}

pub(super) fn stanza_id(stanza: &[u8]) -> Option<String> {
    let mut index = Index::default();
    let limits = XmlLimits::PASSED;
    let context = crate::xmpp::xml::reader::StreamContext::client();
    reader::read(stanza, &context, &limits, &mut index).ok()?;
    Stanza { bytes: stanza, index: &index }.id().map(|id| id.into_owned())
}
