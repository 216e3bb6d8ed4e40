//! Stanzas of our users that do not go out are answered with an error (RFC 6120 §8.3, §10.4); answers and presence are not.

use super::domain::LaneId;
use super::effect::Effects;
use super::frames::{Carried, Post};
use super::queue::{FrameRef, Item, Row};
use super::{Core, Failure};
use crate::base::instant::Instant;
use crate::frame::{Flags, Kind};
use crate::xmpp::stanza::{IqType, MessageType, Stanza, StanzaKind};
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError, write_error_reply};
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::reader::{self, StreamContext};
use std::sync::Arc;

impl Core {
    /// Answers a stanza that is in no lane.
    pub(super) fn refuse(
        &mut self,
        item: Item,
        condition: StanzaCondition,
        text: &str,
        fx: &mut Effects,
    ) {
        self.answer_item(&item, condition, text, None, fx);
        self.release_item(item.frame);
    }

    /// Answers a stanza of a lane. Its row goes when the shard of its sender has the answer.
    pub(super) fn refuse_in(
        &mut self,
        lane: LaneId,
        item: Item,
        condition: StanzaCondition,
        text: Box<str>,
        fx: &mut Effects,
    ) {
        let row = item.row.id();
        let carried = row.map(|row| Carried::Bounce { lane, row });
        let answered = self.answer_item(&item, condition, &text, carried, fx);
        if let (false, Some(row)) = (answered, row) {
            self.confirm_row(lane, row);
        }
        if let Some(domain) = self.domain_of_lane(lane) {
            domain.bounced += 1;
        }
        self.release_item(item.frame);
    }

    fn release_item(&mut self, frame: Option<FrameRef>) {
        if let Some(frame) = frame {
            self.release(frame);
        }
    }

    /// Gives whether a frame left for it.
    fn answer_item(
        &mut self,
        item: &Item,
        condition: StanzaCondition,
        text: &str,
        carried: Option<Carried>,
        fx: &mut Effects,
    ) -> bool {
        if item.kind == Kind::Presence {
            self.probe.presence_dropped += 1;
            return false;
        }
        if item.is_answer() {
            self.probe.answers_dropped += 1;
            return false;
        }
        match condition {
            StanzaCondition::RemoteServerNotFound => self.probe.bounced_not_found += 1,
            StanzaCondition::ResourceConstraint => self.probe.bounced_constraint += 1,
            _ => self.probe.bounced_timeout += 1,
        }
        let (kind, subtype) = match item.kind {
            Kind::Iq => (StanzaKind::Iq, IqType::Error.code()),
            _ => (StanzaKind::Message, MessageType::Error.code()),
        };
        let mut index = std::mem::take(&mut self.index);
        let read =
            reader::read(&item.bytes, &StreamContext::client(), &XmlLimits::PASSED, &mut index);
        let stanza = Stanza { bytes: &item.bytes, index: &index };
        let parts = read.ok().and_then(|()| Some((stanza.from()?, stanza.to()?, stanza.id())));
        let mut sent = false;
        if let Some((sender, recipient, id)) = parts
            && let Ok(to) = self.jids.parse(&sender)
        {
            let error = StanzaError::new(condition).with_text(text.to_owned());
            let mut out = Vec::with_capacity(256);
            write_error_reply(
                &mut out,
                kind,
                id.as_deref(),
                Some(&recipient),
                Some(&sender),
                &error,
            );
            let open_end = open_end(&out);
            let close_start = memchr::memmem::rfind(&out, b"</").unwrap_or(out.len());
            let post = Post {
                from: &recipient,
                owner: to.bare(),
                to: &sender,
                kind: item.kind,
                subtype,
                flags: Flags::REFUSAL,
                ingress: self.now.wall,
                stanza: &out,
                open_end,
                close_start: u32::try_from(close_start).unwrap_or(open_end),
            };
            sent = self.post(&post, carried, fx);
        }
        self.index = index;
        sent
    }

    /// Queues a stanza of the server itself for a remote domain.
    ///
    /// - takes: one that ends with its close tag
    pub(super) fn send_own(
        &mut self,
        own: &Arc<str>,
        remote: &str,
        kind: StanzaKind,
        stanza: Vec<u8>,
        fx: &mut Effects,
    ) {
        let (kind, subtype) = match kind {
            StanzaKind::Message => (Kind::Message, MessageType::Error.code()),
            StanzaKind::Presence => return,
            StanzaKind::Iq => (Kind::Iq, IqType::Error.code()),
        };
        let close_start = memchr::memmem::rfind(&stanza, b"</").unwrap_or(stanza.len());
        let item = Item {
            number: 0,
            kind,
            subtype,
            open_end: open_end(&stanza),
            close_start: u32::try_from(close_start).unwrap_or(0),
            bytes: stanza.into(),
            at: self.now.mono,
            ingress: self.now.wall,
            frame: None,
            row: Row::Never,
            times: 0,
        };
        self.enqueue(own, remote, item, fx);
    }

    /// Answers all that waits for a domain which is not talked to any more.
    pub(super) fn refuse_all(&mut self, lane: LaneId, text: &str, fx: &mut Effects) {
        let Some(slot) = self.lanes.get_mut(lane.0) else { return };
        slot.resumable = None;
        self.queued_bytes -= slot.queue.bytes();
        for item in slot.queue.take_all() {
            self.refuse_in(lane, item, StanzaCondition::RemoteServerNotFound, text.into(), fx);
        }
        self.probe.failures[Failure::Policy as usize] += 1;
    }

    /// When a stanza came, on the clock of this run, that another run took at that time.
    pub(super) fn came_at(&self, wall: crate::base::instant::Wall) -> Instant {
        let ago = self.now.wall.0.saturating_sub(wall.0).saturating_mul(1_000);
        Instant(self.now.mono.0.saturating_sub(ago))
    }
}

/// Behind the start tag of a stanza of our own writing, in which no attribute holds a `>`.
fn open_end(stanza: &[u8]) -> u32 {
    memchr::memchr(b'>', stanza).map_or(0, |end| u32::try_from(end + 1).unwrap_or(0))
}
