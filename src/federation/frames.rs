//! The rings between this core and the shards: stanzas that come in as frames to be sent to remote domains, and those that
//! go out as frames to the owners of their recipients.
//!
//! A frame that wants to be acknowledged is open until each of its stanzas is durable, confirmed by the peer, or answered.
//! It is never open for the peer's sake alone where messages are stored: *handled* is cumulative, and a domain that is
//! slow must not hold up what other clients of the same shard wait for.

use super::domain::LaneId;
use super::managed::StanzaNumber;
use super::queue::{FrameRef, Item, Row};
use super::{Core, Effects};
use crate::base::instant::{Instant, Wall};
use crate::frame::{Envelope, Flags, Kind, Recipients};
use crate::xmpp::jid::BareJid;
use crate::xmpp::stanza::Stanza;
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::reader::{self, StreamContext};
use crate::xmpp::xml::writer::escape_attr;
use std::collections::VecDeque;

/// Bytes of frames to one shard at which peers are not read any more, and at which what they sent is answered with
/// `resource-constraint`.
const RING_SOFT_BYTES: usize = 256 << 10;

/// What is done when a shard has handled a frame of ours.
#[derive(Clone, Copy, Debug)]
pub(super) enum Carried {
    /// A stanza of a peer's stream, whose acknowledgement waits for it.
    Stanza(StanzaNumber),
    /// What came back to its sender instead of going out: its row may go.
    Bounce { lane: LaneId, row: u64 },
    /// What another node is to send: the frame that brought it.
    Frame(FrameRef),
}

/// Our frames to one shard.
#[derive(Debug, Default)]
pub(super) struct Outward {
    last: u64,
    /// In the order of their frames.
    waiting: VecDeque<(u64, Carried)>,
}

impl Outward {
    /// Rows wait for what came back instead of going out.
    pub(super) fn has_bounces(&self) -> bool {
        self.waiting.iter().any(|(_, carried)| matches!(carried, Carried::Bounce { .. }))
    }
}

/// A stanza for a shard.
#[derive(Debug)]
pub(super) struct Post<'a> {
    pub from: &'a str,
    /// Whose owner gets it, and its address as text.
    pub owner: &'a BareJid,
    pub to: &'a str,
    pub kind: Kind,
    pub subtype: u8,
    pub flags: Flags,
    pub ingress: Wall,
    pub stanza: &'a [u8],
    pub open_end: u32,
    pub close_start: u32,
}

impl<'a> Post<'a> {
    /// What cores and shards say to each other.
    ///
    /// - takes: `to`, as `owner` and `to`
    pub(super) fn control(
        subtype: u8,
        from: &'a str,
        to: (&'a BareJid, &'a str),
        text: &'a [u8],
        now: Wall,
    ) -> Post<'a> {
        Post {
            from,
            owner: to.0,
            to: to.1,
            kind: Kind::Control,
            subtype,
            flags: Flags::default(),
            ingress: now,
            stanza: text,
            open_end: 0,
            close_start: 0,
        }
    }
}

impl Core {
    /// Frames of a shard, in order.
    pub(super) fn frames(
        &mut self,
        from: u16,
        _sent: Instant,
        batch: &crate::frame::Batch,
        fx: &mut Effects,
    ) {
        if usize::from(from) >= self.inward.len() {
            return;
        }
        for envelope in batch {
            let at = FrameRef { ring: from, number: envelope.number };
            self.inward[usize::from(from)].received(envelope.number);
            if from >= self.config.shards {
                match envelope.kind {
                    Kind::Control => self.core_says(from - self.config.shards, &envelope, fx),
                    _ => self.core_answered(&envelope),
                }
                continue;
            }
            if self.share.is_some() && envelope.kind == Kind::Control {
                self.told_of_epoch(from, &envelope, fx);
                continue;
            }
            if self.is_pong(&envelope) {
                self.core_answered(&envelope);
                continue;
            }
            if envelope.kind == Kind::Control {
                self.probe.control_frames_ignored += 1;
                continue;
            }
            self.recipient(&envelope, envelope.to, at, fx);
            for to in envelope.also_to {
                self.recipient(&envelope, to, at, fx);
            }
        }
    }

    /// Another core of this node has the answer to a ping of ours.
    fn core_answered(&mut self, envelope: &Envelope<'_>) {
        let mut index = std::mem::take(&mut self.index);
        let read =
            reader::read(envelope.stanza, &StreamContext::client(), &XmlLimits::PASSED, &mut index);
        let stanza = Stanza { bytes: envelope.stanza, index: &index };
        let id = read.ok().and_then(|()| stanza.id());
        if let (Some(id), Some(remote)) = (id, domain_of(envelope.from)) {
            self.pong(envelope.to, remote, &id);
        }
        self.index = index;
    }

    /// One stanza for one remote address.
    fn recipient(&mut self, envelope: &Envelope<'_>, to: &str, at: FrameRef, fx: &mut Effects) {
        let item = self.item(envelope, to, at);
        let own = domain_of(envelope.from).and_then(|own| self.config.own(own)).cloned();
        let (Some(own), Some(remote)) = (own, domain_of(to)) else {
            return self.drop_malformed(item);
        };
        self.enqueue(&own, remote, item, fx);
    }

    /// Shards route by prepared addresses: only a bug brings one that is none.
    fn drop_malformed(&mut self, item: Item) {
        self.probe.answers_dropped += 1;
        if let Some(frame) = item.frame {
            self.release(frame);
        }
    }

    /// The stanza of a frame for one of its recipients. The frame is held for it, where that matters.
    fn item(&mut self, envelope: &Envelope<'_>, to: &str, at: FrameRef) -> Item {
        let stored = envelope.flags.contains(Flags::STORABLE);
        let waits = envelope.flags.contains(Flags::WANTS_ACK) && self.config.stored;
        if waits {
            self.inward[usize::from(at.ring)].hold(at.number);
        }
        let (bytes, added) = addressed(envelope, to);
        Item {
            number: 0,
            kind: envelope.kind,
            subtype: envelope.subtype,
            bytes,
            open_end: envelope.open_end + added,
            close_start: envelope.close_start + added,
            at: self.now.mono,
            ingress: envelope.ingress,
            frame: waits.then_some(at),
            row: if stored { Row::NotYet } else { Row::Never },
            times: 0,
        }
    }

    /// One stanza that held this frame is dealt with.
    pub(super) fn release(&mut self, at: FrameRef) {
        if let Some(inward) = self.inward.get_mut(usize::from(at.ring)) {
            inward.release(at.number);
        }
    }

    /// A shard has handled our frames up to this one.
    pub(super) fn handled(&mut self, by: u16, handled: u64) {
        while let Some(outward) = self.outward.get_mut(usize::from(by))
            && let Some((_, carried)) =
                outward.waiting.pop_front_if(|(number, _)| *number <= handled)
        {
            match carried {
                Carried::Stanza(number) => self.stanza_handled(number),
                Carried::Bounce { lane, row } => self.confirm_row(lane, row),
                Carried::Frame(at) => self.release(at),
            }
        }
    }

    /// Puts a frame on the ring to the owner of its recipient.
    ///
    /// - gives: whether it did; what is too large for a frame goes nowhere
    pub(super) fn post(
        &mut self,
        post: &Post<'_>,
        carried: Option<Carried>,
        fx: &mut Effects,
    ) -> bool {
        let ring = self.config.shard_of(post.owner);
        self.post_on(ring, post, carried, fx)
    }

    /// As `post`, to the owner of a ring.
    pub(super) fn post_on(
        &mut self,
        ring: u16,
        post: &Post<'_>,
        carried: Option<Carried>,
        fx: &mut Effects,
    ) -> bool {
        let ring = usize::from(ring);
        let (Some(outward), Some(batch)) = (self.outward.get_mut(ring), fx.outbox.get_mut(ring))
        else {
            return false;
        };
        let number = outward.last + 1;
        let envelope = Envelope {
            epoch: 0,
            number,
            hops: 0,
            ingress: post.ingress,
            trace: None,
            flags: if carried.is_some() { post.flags.with(Flags::WANTS_ACK) } else { post.flags },
            from: post.from,
            to: post.to,
            also_to: Recipients::NONE,
            kind: post.kind,
            subtype: post.subtype,
            open_end: post.open_end,
            close_start: post.close_start,
            stanza: post.stanza,
        };
        if self.encoder.append(batch, &envelope).is_err() {
            return false;
        }
        outward.last = number;
        if let Some(carried) = carried {
            outward.waiting.push_back((number, carried));
        }
        true
    }

    /// Rings, or the store, are so full that peers must wait.
    pub(super) fn is_pressed(&self, fx: &Effects) -> bool {
        self.tickets.len() > super::durable::REQUESTS_SOFT
            || fx.outbox.iter().any(|batch| batch.len_bytes() > RING_SOFT_BYTES)
    }
}

/// The domain of a prepared address.
pub(super) fn domain_of(jid: &str) -> Option<&str> {
    let bare = jid.split_once('/').map_or(jid, |(bare, _)| bare);
    let domain = bare.split_once('@').map_or(bare, |(_, domain)| domain);
    (!domain.is_empty()).then_some(domain)
}

/// The bare address of a domain; `None` for what is none.
pub(super) fn domain_jid(domain: &str) -> Option<BareJid> {
    BareJid::from_parts(None, domain).ok()
}

/// The stanza of a frame with its recipient in its start tag, and how many bytes that added.
fn addressed(envelope: &Envelope<'_>, to: &str) -> (Box<[u8]>, u32) {
    let open = envelope.stanza.get(..envelope.open_end as usize).unwrap_or_default();
    if crate::xmpp::stanza::has_attr(open, "to") || open.is_empty() {
        return (envelope.stanza.into(), 0);
    }
    let mut bytes = Vec::with_capacity(envelope.stanza.len() + to.len() + 8);
    let name = open.iter().position(|byte| b" />".contains(byte)).unwrap_or(open.len());
    bytes.extend_from_slice(&open[..name]);
    bytes.extend_from_slice(b" to='");
    escape_attr(&mut bytes, to);
    bytes.push(b'\'');
    let added = bytes.len() - name;
    bytes.extend_from_slice(&envelope.stanza[name..]);
    (bytes.into(), u32::try_from(added).unwrap_or(0))
}
