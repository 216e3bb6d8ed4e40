//! How a message travels that may come again by another way, from a front or from its sender's owner: a control frame whose
//! text is a label and the stanza, so that whoever has the frame can send it again, and who stores the message knows it by
//! the label.
//!
//! The label names the message as its sender's session does: the session's token, the number of the stanza (XEP-0198) and
//! a hash of what the client wrote. A client that sends again what was not acknowledged gives it the same, wherever the
//! session is by then.

use crate::base::hash::hash64;
use crate::base::instant::Wall;
use crate::frame::{Envelope, Kind, Recipients};
use crate::shard::control::Control;
use crate::store::Origin;
use crate::stream::resume::Counters;
use crate::xmpp::stanza::MessageType;
use std::cmp::Ordering;

/// In tokens of sessions, which stand where runs of nodes do in other origins. Stores keep numbers of 63 bits; runs are
/// counted from 1.
pub(super) const IS_LABEL: u64 = 1 << 62;
/// Five numbers, big endian, and the type.
const BYTES: usize = 8 + 4 + 8 + 8 + 8 + 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Label {
    pub origin: Origin,
    /// No row of the message is older.
    pub since: Wall,
    /// By which it was sent first.
    pub epoch: u64,
    pub kind: MessageType,
}

/// Names a session in the labels of its messages; `None` where it cannot be resumed, so that nothing comes again.
pub(super) fn token(counters: &Counters) -> Option<u64> {
    let id = &counters.resumable.as_ref()?.id;
    Some(hash64(id.as_bytes()) >> 2 | IS_LABEL)
}

/// What the store knows the stanza by.
///
/// - takes: `token` of its session; `stanza`, as the client wrote it
pub(super) fn origin(token: u64, number: u32, stanza: &[u8]) -> Origin {
    // Stores keep numbers of 63 bits.
    Origin { incarnation: token, link: number, number: hash64(stanza) >> 1 }
}

/// Whether a session's client may say the message of this origin again.
pub(in crate::shard) fn is_label(origin: &Origin) -> bool {
    origin.incarnation & IS_LABEL != 0
}

/// Which of two messages a session sent first; `None` where that is not known by labels. Numbers count modulo 2^32.
pub(in crate::shard) fn order_of_labels(one: &Origin, other: &Origin) -> Option<Ordering> {
    if !is_label(one) || one.incarnation != other.incarnation {
        return None;
    }
    Some(match one.link.wrapping_sub(other.link) {
        0 => Ordering::Equal,
        ahead if ahead < 1 << 31 => Ordering::Greater,
        _ => Ordering::Less,
    })
}

impl Label {
    fn append(&self, out: &mut Vec<u8>) {
        let Origin { incarnation, link, number } = self.origin;
        out.extend_from_slice(&incarnation.to_be_bytes());
        out.extend_from_slice(&link.to_be_bytes());
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&self.since.0.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.push(self.kind.code());
    }

    /// What comes from another node is checked.
    fn split(bytes: &[u8]) -> Option<(Label, &[u8])> {
        let (incarnation, rest) = bytes.split_first_chunk()?;
        let (link, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (since, rest) = rest.split_first_chunk()?;
        let (epoch, rest) = rest.split_first_chunk()?;
        let (code, stanza) = rest.split_first()?;
        let kind = MessageType::from_code(*code);
        let kind = kind.filter(|kind| matches!(kind, MessageType::Chat | MessageType::Normal))?;
        let origin = Origin {
            incarnation: u64::from_be_bytes(*incarnation),
            link: u32::from_be_bytes(*link),
            number: u64::from_be_bytes(*number),
        };
        let (since, epoch) = (Wall(u64::from_be_bytes(*since)), u64::from_be_bytes(*epoch));
        Some((Label { origin, since, epoch, kind }, stanza))
    }

    /// The frame of `inner`, whose text goes to `out`.
    pub(super) fn wrap<'a>(&self, inner: &Envelope<'a>, out: &'a mut Vec<u8>) -> Envelope<'a> {
        self.append(out);
        out.extend_from_slice(inner.stanza);
        let length = u32::try_from(BYTES).unwrap_or(u32::MAX);
        Envelope {
            kind: Kind::Control,
            subtype: Control::Direct as u8,
            open_end: inner.open_end + length,
            close_start: inner.close_start + length,
            stanza: out,
            ..*inner
        }
    }
}

/// Whether it is a message with its label.
pub(in crate::shard) fn is_labelled(envelope: &Envelope<'_>) -> bool {
    envelope.kind == Kind::Control && envelope.subtype == Control::Direct as u8
}

/// The message of a frame that was made by `Label::wrap`; `None` for others.
pub(in crate::shard) fn unwrap<'a>(outer: &Envelope<'a>) -> Option<(Label, Envelope<'a>)> {
    if !is_labelled(outer) {
        return None;
    }
    let (label, stanza) = Label::split(outer.stanza)?;
    let length = u32::try_from(BYTES).ok()?;
    let inner = Envelope {
        epoch: label.epoch.min(outer.epoch),
        kind: Kind::Message,
        subtype: label.kind.code(),
        open_end: outer.open_end.checked_sub(length)?,
        close_start: outer.close_start.checked_sub(length)?,
        also_to: Recipients::NONE,
        stanza,
        ..*outer
    };
    Some((label, inner))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::frame::Flags;

    fn message(stanza: &[u8]) -> Envelope<'_> {
        Envelope {
            epoch: 3,
            number: 0,
            hops: 0,
            ingress: Wall(5),
            trace: None,
            flags: Flags::STORABLE,
            from: "alice@here/phone",
            to: "bob@here",
            also_to: Recipients::NONE,
            kind: Kind::Message,
            subtype: MessageType::Chat.code(),
            open_end: 9,
            close_start: 9,
            stanza,
        }
    }

    #[test]
    fn message_comes_out_as_it_went_in() {
        let inner = message(b"<message></message>");
        let origin = origin(1 << 62, 7, b"<message/>");
        let label = Label { origin, since: Wall(4), epoch: 3, kind: MessageType::Chat };
        let mut out = Vec::new();
        let outer = label.wrap(&inner, &mut out);
        assert_eq!(unwrap(&outer).unwrap(), (label, inner));
        assert!(unwrap(&inner).is_none());
        for cut in 0..BYTES {
            assert!(unwrap(&Envelope { stanza: &outer.stanza[..cut], ..outer }).is_none());
        }
        assert!(unwrap(&Envelope { open_end: 3, ..outer }).is_none());
        let mut odd = outer.stanza.to_vec();
        odd[BYTES - 1] = MessageType::Error.code();
        assert!(unwrap(&Envelope { stanza: &odd, ..outer }).is_none(), "errors are not sent so");
    }

    #[test]
    fn message_keeps_the_epoch_by_which_it_was_sent_first() {
        let origin = origin(1 << 62, 7, b"<message/>");
        let label = Label { origin, since: Wall(4), epoch: 3, kind: MessageType::Chat };
        let mut out = Vec::new();
        let again = Envelope { epoch: 5, ..label.wrap(&message(b"<message></message>"), &mut out) };
        assert_eq!(unwrap(&again).unwrap().1.epoch, 3);
        // It cannot be from the time to come.
        assert_eq!(unwrap(&Envelope { epoch: 2, ..again }).unwrap().1.epoch, 2);
    }

    #[test]
    fn messages_of_a_session_are_in_the_order_of_their_numbers() {
        let at = |token: u64, number| origin(token | IS_LABEL, number, b"<message/>");
        assert_eq!(order_of_labels(&at(9, 1), &at(9, 2)), Some(Ordering::Less));
        assert_eq!(order_of_labels(&at(9, 0), &at(9, u32::MAX)), Some(Ordering::Greater));
        assert_eq!(order_of_labels(&at(9, 7), &at(9, 7)), Some(Ordering::Equal));
        assert_eq!(order_of_labels(&at(9, 1), &at(8, 2)), None);
        // Numbers of rings are of the ring.
        let ring = Origin { incarnation: 3, link: 1, number: 5 };
        assert_eq!(order_of_labels(&ring, &Origin { link: 2, ..ring }), None);
    }

    #[test]
    fn equal_words_at_another_place_of_the_stream_are_another_message() {
        let one = origin(9, 1, b"<message/>");
        assert_eq!(one, origin(9, 1, b"<message/>"));
        assert_ne!(one, origin(9, 2, b"<message/>"));
        assert_ne!(one, origin(8, 1, b"<message/>"));
        assert_ne!(one, origin(9, 1, b"<message></message>"));
    }
}
