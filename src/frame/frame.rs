//! What a frame says, apart from how it is written.

use std::fmt;

use rkyv::boxed::ArchivedBox;
use rkyv::vec::ArchivedVec;

use crate::base::instant::Wall;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    Message = 1,
    Presence = 2,
    Iq = 3,
    /// Between shards and nodes themselves; `Envelope::subtype` says what, and `stanza` is theirs to read.
    Control = 4,
}

impl Kind {
    pub fn from_u8(code: u8) -> Option<Kind> {
        match code {
            1 => Some(Kind::Message),
            2 => Some(Kind::Presence),
            3 => Some(Kind::Iq),
            4 => Some(Kind::Control),
            _ => None,
        }
    }
}

/// Marks of a frame. Unknown ones are kept and mean nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u16);

impl Flags {
    /// The sender's stream waits for the handled number to reach this frame.
    pub const WANTS_ACK: Flags = Flags(1);
    /// Sent before over a path that broke: it may have arrived already.
    pub const RETRY: Flags = Flags(2);
    /// A message that belongs in a log: of lasting content, and nobody forbade to keep it.
    pub const STORABLE: Flags = Flags(4);
    /// People would miss it: it is answered with an error where it can be neither delivered nor kept.
    pub const CONTENT: Flags = Flags(8);
    /// A message that comes again: its id in the account (XEP-0359) stands at its end.
    pub const STAMPED: Flags = Flags(16);
    /// Presence that a session asked for by becoming available. It is of no use to one that no longer is.
    pub const PROBED: Flags = Flags(32);
    /// A storable message that archives may keep for good.
    pub const ARCHIVABLE: Flags = Flags(64);
    /// It takes back an earlier message of its sender (XEP-0424).
    pub const RETRACTS: Flags = Flags(128);
    /// The server's own error, to whom it refused a stanza: that one counts as handled, so this does not wait.
    pub const REFUSAL: Flags = Flags(256);
    /// A session that ended had it already: it is older than all else of its sender that waits.
    pub const LEFT: Flags = Flags(512);
    /// The first of the nodes that it crossed was that of its client's socket, which is not its session's.
    pub const RELAYED: Flags = Flags(1024);
    /// A frame that its sender got waits for it: it is told as handled by itself, should ones before it be open for longer.
    pub const SENT_ON: Flags = Flags(2048);

    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    #[must_use]
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    #[must_use]
    pub fn without(self, other: Flags) -> Flags {
        Flags(self.0 & !other.0)
    }
}

/// All that a frame says, borrowed from who made it or from the frame itself.
///
/// To send one on, append it again with what changed: `Envelope { number, hops: frame.hops + 1, ..frame }`.
#[derive(Clone, Copy, PartialEq)]
pub struct Envelope<'a> {
    /// The placement by which the frame was routed.
    pub epoch: u64,
    /// Counts the frames of one ring or link.
    pub number: u64,
    /// Cores and nodes that it has crossed.
    pub hops: u8,
    /// When the stanza came in: for latencies and delay stamps only.
    pub ingress: Wall,
    pub trace: Option<u64>,
    pub flags: Flags,
    /// JIDs as prepared by the sending core.
    pub from: &'a str,
    pub to: &'a str,
    /// Further recipients of the same bytes at the same destination.
    pub also_to: Recipients<'a>,
    pub kind: Kind,
    /// The `type` of the stanza in a code of its users; opaque here.
    pub subtype: u8,
    /// Bytes of `stanza` up to the end of its start tag.
    pub open_end: u32,
    /// Where the end tag of `stanza` starts: `open_end <= close_start <= stanza.len()`.
    pub close_start: u32,
    /// UTF-8 text, well-formed and self-contained XML where it comes from our own parser; of a control frame, any bytes.
    pub stanza: &'a [u8],
}

impl Envelope<'_> {
    pub(super) fn has_sound_offsets(&self) -> bool {
        self.open_end <= self.close_start && self.close_start as usize <= self.stanza.len()
    }
}

/// Without the stanza and the addresses: they do not belong in a log.
impl fmt::Debug for Envelope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("kind", &self.kind)
            .field("subtype", &self.subtype)
            .field("epoch", &self.epoch)
            .field("number", &self.number)
            .field("hops", &self.hops)
            .field("flags", &self.flags)
            .field("also_to", &self.also_to.len())
            .field("stanza_bytes", &self.stanza.len())
            .finish_non_exhaustive()
    }
}

/// The further recipients of a fan-out, in order.
#[derive(Clone, Copy)]
pub struct Recipients<'a>(List<'a>);

#[derive(Clone, Copy)]
enum List<'a> {
    Given(&'a [&'a str]),
    Archived(&'a [ArchivedBox<str>]),
}

impl<'a> Recipients<'a> {
    pub const NONE: Recipients<'static> = Recipients(List::Given(&[]));

    pub(super) fn from_archive(archive: &'a ArchivedVec<ArchivedBox<str>>) -> Recipients<'a> {
        Recipients(List::Archived(archive.as_slice()))
    }

    pub fn iter(&self) -> RecipientsIter<'a> {
        RecipientsIter(self.0)
    }

    pub fn len(&self) -> usize {
        match self.0 {
            List::Given(list) => list.len(),
            List::Archived(list) => list.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> From<&'a [&'a str]> for Recipients<'a> {
    fn from(list: &'a [&'a str]) -> Recipients<'a> {
        Recipients(List::Given(list))
    }
}

impl PartialEq for Recipients<'_> {
    fn eq(&self, other: &Recipients<'_>) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a> IntoIterator for Recipients<'a> {
    type Item = &'a str;
    type IntoIter = RecipientsIter<'a>;

    fn into_iter(self) -> RecipientsIter<'a> {
        self.iter()
    }
}

#[derive(Clone)]
pub struct RecipientsIter<'a>(List<'a>);

impl<'a> Iterator for RecipientsIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        match &mut self.0 {
            List::Given(list) => {
                let (first, rest) = list.split_first()?;
                *list = rest;
                Some(first)
            }
            List::Archived(list) => {
                let (first, rest) = list.split_first()?;
                *list = rest;
                Some(first.get())
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = Recipients(self.0).len();
        (len, Some(len))
    }
}

impl ExactSizeIterator for RecipientsIter<'_> {}

/// Why a frame cannot be written or read. Reading errors but `Incomplete` mean that the link must be closed: what
/// follows cannot be told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not an error of the peer: more bytes are needed.
    #[error("the frame has not come in whole")]
    Incomplete,
    #[error("the frame does not start at a multiple of 16 in memory")]
    Misaligned,
    #[error("the frame is larger than its limit")]
    TooLarge,
    #[error("the batch holds as much as one can address")]
    BatchFull,
    #[error("the length, padding or reserved bytes of the header make no sense")]
    Header,
    #[error("the checksum does not match")]
    Checksum,
    #[error("the version {0} is not spoken here")]
    Version(u16),
    #[error("the kind {0} is not known")]
    Kind(u8),
    #[error("the body is not an archive of its version")]
    Archive,
    #[error("the offsets of the tags lie outside of the stanza")]
    Offsets,
    #[error("the stanza is not UTF-8")]
    Utf8,
    #[error("the archive could not be written")]
    Unwritable,
}
