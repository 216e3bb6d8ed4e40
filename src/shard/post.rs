//! An envelope that owns what it says: for stanzas that wait.

use super::ring::FrameRef;
use crate::base::instant::Wall;
use crate::frame::{Envelope, Flags, Kind, Recipients};

/// A stanza with its addresses: what the server sends of itself, after the handler that wants it has returned, and what a
/// frame brought before its account could take it.
#[derive(Debug)]
pub(super) struct Post {
    pub from: Box<str>,
    pub to: Box<str>,
    pub kind: Kind,
    pub subtype: u8,
    pub flags: Flags,
    /// Of what it is or comes of, where that is watched.
    pub trace: Option<u64>,
    /// The frame that it is the answer to, where somebody keeps that: not handled before this has arrived.
    pub answers: Option<FrameRef>,
    pub stanza: Vec<u8>,
    pub open_end: u32,
    pub close_start: u32,
}

impl Post {
    /// A copy of what a frame brought, for one of its recipients.
    pub(super) fn of(envelope: &Envelope<'_>, to: &str) -> Self {
        Self {
            from: envelope.from.into(),
            to: to.into(),
            kind: envelope.kind,
            subtype: envelope.subtype,
            flags: envelope.flags,
            trace: envelope.trace,
            answers: None,
            stanza: envelope.stanza.to_vec(),
            open_end: envelope.open_end,
            close_start: envelope.close_start,
        }
    }

    /// As it is sent, but for the number that its ring gives it.
    pub(super) fn envelope(&self, epoch: u64, ingress: Wall) -> Envelope<'_> {
        Envelope {
            epoch,
            number: 0,
            hops: 0,
            ingress,
            trace: self.trace,
            flags: self.flags,
            from: &self.from,
            to: &self.to,
            also_to: Recipients::NONE,
            kind: self.kind,
            subtype: self.subtype,
            open_end: self.open_end,
            close_start: self.close_start,
            stanza: &self.stanza,
        }
    }

    /// A stanza of our own making, which ends with its close tag.
    pub(super) fn whole(from: &str, to: &str, kind: Kind, subtype: u8, stanza: Vec<u8>) -> Self {
        let open_end = memchr::memchr(b'>', &stanza).map_or(0, |end| end + 1);
        let close_start = memchr::memmem::rfind(&stanza, b"</").unwrap_or(stanza.len());
        Self {
            from: from.into(),
            to: to.into(),
            kind,
            subtype,
            flags: Flags::default(),
            trace: None,
            answers: None,
            open_end: u32::try_from(open_end.min(close_start)).unwrap_or(0),
            close_start: u32::try_from(close_start).unwrap_or(0),
            stanza,
        }
    }

    /// The server's own error about what it refused.
    pub(super) fn refusal(from: &str, to: &str, kind: Kind, subtype: u8, stanza: Vec<u8>) -> Self {
        Self { flags: Flags::REFUSAL, ..Self::whole(from, to, kind, subtype, stanza) }
    }
}
