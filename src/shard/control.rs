//! Frames between shards that carry no stanza: who is connected where, and what a change of owners needs.
//!
//! Their text is in the frame's stanza, and what they are about in its `from`. They keep their place among other frames.

use super::effect::Effects;
use super::foreign::outgoing_flags;
use super::peers::Peer;
use super::ring::FrameRef;
use super::subscription::is_subscription;
use super::{Core, Shard, config};
use crate::frame::{self, Envelope, Flags, Kind, Recipients};
use crate::xmpp::jid::{BareJid, Jid};

/// What a control frame says, as its subtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Control {
    /// The sending shard has a connection of the component `from`; its number there is the text.
    ComponentConnected = 1,
    /// It has it no more.
    ComponentGone = 2,
    /// An IQ was answered on a connection of the sending shard; the text is its name (`asked`).
    ComponentAnswered = 3,
    /// All that follows was sent by the epoch in the text, or a later one.
    Marker = frame::MARKER,
    /// The sending shard has given away all that it lost by the epoch in the text.
    Sealed = frame::SEALED,
    /// A frame that was sent to a node which is gone; it may have been handled there. See `retry`.
    Retry = 6,
    /// A session that moves with its account. See `migration`.
    Session = 7,
    /// Of a session of `from` that moved, a stanza is handled; see `migration`.
    StanzaDone = 8,
    /// The account `from` was changed behind its owner's back.
    AccountChanged = 9,
    /// The account `from` was deleted; the text is who was on its roster, one to a line.
    AccountDeleted = 10,
    /// Sessions of `from`, a full or bare JID, are to end.
    EndSessions = 11,
    /// Ids of a store partition were given to others: its number, and the first that is free.
    IdsGiven = 12,
    /// As `Retry`, of a frame that came to a shard which passed it on: it was handled nowhere.
    Passed = 13,
    /// Of copies of sessions, between their owner and who keeps them; see `copy`.
    Copy = 14,
    /// A message that went straight from its sender's front. See `direct`.
    Direct = 15,
    /// Messages that a front sent are handled: on a line for each stream its token, and their numbers.
    DirectDone = 16,
    /// To a front: the stream of this token is over. Answered by `DirectEnded`.
    DirectEnd = 17,
    /// All that the front sent for it is handled: its token, and the number of the last message.
    DirectEnded = 18,
    /// Stanzas that the sending shard handled, for accounts that are the receiving one's now; see `heard`.
    Heard = 19,
    /// Frames that the receiving shard sent on are handled, though ones before them are not: their numbers. See `outbound`.
    HandledApart = 20,
}

impl Control {
    fn from_u8(code: u8) -> Option<Control> {
        const ALL: [Control; 20] = [
            Control::ComponentConnected,
            Control::ComponentGone,
            Control::ComponentAnswered,
            Control::Marker,
            Control::Sealed,
            Control::Retry,
            Control::Session,
            Control::StanzaDone,
            Control::AccountChanged,
            Control::AccountDeleted,
            Control::EndSessions,
            Control::IdsGiven,
            Control::Passed,
            Control::Copy,
            Control::Direct,
            Control::DirectDone,
            Control::DirectEnd,
            Control::DirectEnded,
            Control::Heard,
            Control::HandledApart,
        ];
        ALL.into_iter().find(|control| *control as u8 == code)
    }
}

impl Shard {
    /// A control frame. What makes no sense is left alone: another node may be newer.
    pub(super) fn control(&mut self, envelope: &Envelope<'_>, at: FrameRef, fx: &mut Effects) {
        let Some(control) = Control::from_u8(envelope.subtype) else { return };
        let from = Peer(at.ring);
        let is_of_owner =
            matches!(control, Control::Session | Control::StanzaDone | Control::Heard);
        if is_of_owner && self.core.park(envelope, envelope.to, at) {
            return;
        }
        // Those that carry images, frames and numbers are no text.
        let is_text = !matches!(
            control,
            Control::Copy | Control::Session | Control::Retry | Control::Passed | Control::Heard
        );
        let text = std::str::from_utf8(if is_text { envelope.stanza } else { b"" });
        let text = text.unwrap_or_default();
        match control {
            Control::ComponentConnected | Control::ComponentGone | Control::ComponentAnswered => {
                self.component_control(control, envelope, from);
            }
            Control::Marker => self.marked(from, text.parse().unwrap_or(0), fx),
            Control::Sealed => self.sealed(from, text.parse().unwrap_or(0), fx),
            Control::Retry => self.retried(envelope, at, false, fx),
            Control::Passed => self.retried(envelope, at, true, fx),
            Control::Copy => self.copy_records(from, envelope.epoch, envelope.stanza),
            Control::Heard => self.heard_elsewhere(envelope.stanza, at, fx),
            Control::Session => self.session_arrives(envelope.stanza, fx),
            Control::StanzaDone => self.stanza_done(envelope, text, fx),
            Control::AccountChanged | Control::AccountDeleted | Control::EndSessions => {
                self.account_control(control, envelope.from, text, fx);
            }
            Control::Direct => self.direct_arrives(envelope, at, fx),
            Control::DirectDone => self.core.direct_done(from, text),
            Control::DirectEnd => self.core.front_asked(from, text, fx),
            Control::DirectEnded => self.core.direct_ended(from, text),
            Control::HandledApart => self.core.frames_handled_apart(from, text),
            Control::IdsGiven => {
                let numbers = text.split_once(' ');
                let numbers = numbers.and_then(|(partition, next)| {
                    Some((partition.parse().ok()?, next.parse().ok()?))
                });
                if let Some((partition, next)) = numbers {
                    self.core.ids_given(partition, next);
                }
            }
        }
    }

    /// What an operator did to an account; its owner is told by whoever else hears of it.
    fn account_control(&mut self, control: Control, whose: &str, text: &str, fx: &mut Effects) {
        let Ok(jid) = Jid::parse(whose) else { return };
        match control {
            Control::AccountChanged => self.account_changed(jid.bare(), fx),
            Control::AccountDeleted => {
                let contacts: Vec<Jid> =
                    text.lines().filter_map(|line| Jid::parse(line).ok()).collect();
                self.account_deleted(jid.bare(), &contacts, fx);
            }
            Control::EndSessions => self.end_sessions(&jid, fx),
            _ => {}
        }
    }

    /// A control frame to a shard that is gone. What operators did is for the next owner; sessions and what is said of them
    /// have their own way (`migration`), and the rest was for that shard alone.
    pub(super) fn control_again(&mut self, envelope: &Envelope<'_>, fx: &mut Effects) {
        match Control::from_u8(envelope.subtype) {
            Some(Control::Heard) => {
                self.heard_elsewhere(envelope.stanza, self.core.no_frame(), fx);
            }
            Some(control) => {
                let text = std::str::from_utf8(envelope.stanza).unwrap_or_default();
                self.account_control(control, envelope.from, text, fx);
            }
            None => {}
        }
    }
}

impl Core {
    /// Sends a control frame, however full the ring is: there are few of them.
    pub(super) fn send_control(
        &mut self,
        peer: Peer,
        control: Control,
        from: &str,
        text: &[u8],
        fx: &mut Effects,
    ) -> FrameRef {
        let envelope = Envelope {
            epoch: self.placement.epoch(),
            number: 0,
            hops: 0,
            ingress: self.now.wall,
            trace: None,
            flags: Flags::default(),
            from,
            to: "",
            also_to: Recipients::NONE,
            kind: Kind::Control,
            subtype: control as u8,
            open_end: 0,
            close_start: 0,
            stanza: text,
        };
        let sent = self.append_frame(peer, &envelope, fx);
        sent.expect("a ring's batch has room for a control frame")
    }

    /// Has the owner of `owner` hear of something, if that is another shard. Gives whether it is.
    pub(super) fn tell_owner(
        &mut self,
        owner: &BareJid,
        control: Control,
        from: &str,
        text: &[u8],
        fx: &mut Effects,
    ) -> bool {
        let peer = self.peers.of(self.placement.owner(owner.hash64()));
        match peer {
            Some(peer) if peer != self.id.into() => {
                self.send_control(peer, control, from, text, fx);
                true
            }
            _ => false,
        }
    }

    /// Shards of other nodes give ids of all store partitions, too.
    pub(super) fn tell_ids_given(&mut self, partition: u16, next: u64, fx: &mut Effects) {
        let others: Vec<Peer> =
            self.peers.live().filter(|peer| !self.peers.is_local(*peer)).collect();
        for peer in others {
            let text = format!("{partition} {next}");
            self.send_control(peer, Control::IdsGiven, "", text.as_bytes(), fx);
        }
    }

    /// Puts a frame into the batch for `peer`, with the next number. `None` where it cannot be written.
    pub(super) fn append_frame(
        &mut self,
        peer: Peer,
        envelope: &Envelope<'_>,
        fx: &mut Effects,
    ) -> Option<FrameRef> {
        let ring = peer.index();
        let batch = fx.outbox.get_mut(ring)?;
        let number = self.outward[ring].last() + 1;
        let before = batch.len_bytes();
        let mut flags = envelope.flags;
        if self.peers.is_federation(peer) {
            flags = outgoing_flags(flags);
        } else if envelope.kind == Kind::Presence && is_subscription(envelope.subtype) {
            // Whoever sent it has changed its roster by now: it must outlive a node on which it waits for its account.
            flags = flags.with(Flags::WANTS_ACK);
        }
        self.encoder.append(batch, &Envelope { number, flags, ..*envelope }).ok()?;
        self.outward[ring].number();
        if self.outward[ring].keeps() {
            self.outward[ring].keep(&batch.as_bytes()[before..]);
        }
        self.probe.frames_out += 1;
        Some(FrameRef { ring: peer.0, number })
    }

    /// Nothing more may wait for that shard.
    pub(super) fn is_ring_full(&self, peer: Peer, fx: &Effects) -> bool {
        let ring = peer.index();
        let waiting = fx.outbox.get(ring).map_or(0, |batch| batch.len_bytes());
        waiting.max(self.outward[ring].kept_bytes()) > config::RING_HARD_BYTES
    }
}
