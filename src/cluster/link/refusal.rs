//! Why a link is refused or given up: a word for the counter, a line for the log, a number for the peer.

use super::super::view::Run;
use crate::frame::FrameError;

/// What a peer did, or did not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a record of {bytes} bytes, where {limit} are allowed")]
    TooLarge { bytes: usize, limit: usize },
    #[error("the header of a record makes no sense")]
    Header,
    #[error("a record of the unknown kind {0}")]
    Kind(u8),
    #[error("a record whose checksum does not match")]
    Checksum,
    #[error("a record that is not what its kind demands")]
    Malformed,
    #[error(
        "a record that does not belong here: nobody has been introduced, or it has been already"
    )]
    Order,
    #[error("a frame that cannot be taken: {0}")]
    Frame(#[from] FrameError),
    #[error("it speaks versions {theirs:?} of the link and we {ours:?}; update the older node")]
    Protocol { ours: (u16, u16), theirs: (u16, u16) },
    #[error("it speaks versions {theirs:?} of frames and we {ours:?}; update the older node")]
    Frames { ours: (u16, u16), theirs: (u16, u16) },
    #[error("it is of another cluster")]
    Cluster,
    #[error("it has the name or the id of this node; each node needs its own")]
    Twin,
    #[error("its certificate is not for the name that it gives itself, {0:?}")]
    Name(String),
    #[error("it dialled, though the node with the lower id does")]
    Direction,
    #[error("its run {0:?} is not a member that we know of")]
    Unknown(Run),
    #[error("it is the run {theirs:?} of the node, and {expected:?} was expected")]
    Run { expected: Run, theirs: Run },
    #[error("it says that it has {theirs} shards, and the members' list says {expected}")]
    Shards { expected: u16, theirs: u16 },
    #[error("a piece from its shard {0}, which it does not have")]
    FromShard(u16),
    #[error("a piece for our shard {0}, which we do not have")]
    ToShard(u16),
    #[error("it has been silent for too long")]
    Silent,
    #[error("it does not take what waits for it: {0} bytes")]
    Overflow(usize),
    #[error("it refused us: {0}")]
    ByPeer(&'static str),
}

/// The words, and by their place the numbers that go over the link: only ever extended at the end. 0 is no refusal.
const WORDS: [&str; 20] = [
    "left",
    "too-large",
    "header",
    "kind",
    "checksum",
    "malformed",
    "order",
    "frame",
    "link-version",
    "frame-version",
    "cluster",
    "twin",
    "name",
    "direction",
    "unknown-run",
    "other-run",
    "shards",
    "silent",
    "overflow",
    "by-peer",
];

impl Refusal {
    /// For a counter.
    pub fn word(&self) -> &'static str {
        match self {
            Refusal::TooLarge { .. } => "too-large",
            Refusal::Header => "header",
            Refusal::Kind(_) => "kind",
            Refusal::Checksum => "checksum",
            Refusal::Malformed => "malformed",
            Refusal::Order => "order",
            Refusal::Frame(_) => "frame",
            Refusal::Protocol { .. } => "link-version",
            Refusal::Frames { .. } => "frame-version",
            Refusal::Cluster => "cluster",
            Refusal::Twin => "twin",
            Refusal::Name(_) => "name",
            Refusal::Direction => "direction",
            Refusal::Unknown(_) => "unknown-run",
            Refusal::Run { .. } => "other-run",
            Refusal::Shards { .. } | Refusal::FromShard(_) | Refusal::ToShard(_) => "shards",
            Refusal::Silent => "silent",
            Refusal::Overflow(_) => "overflow",
            Refusal::ByPeer(_) => "by-peer",
        }
    }

    pub(super) fn code(&self) -> u8 {
        let place = WORDS.iter().position(|word| *word == self.word());
        place.and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX)
    }

    /// What the peer gave as its reason.
    pub(super) fn by_peer(code: u8) -> Refusal {
        Refusal::ByPeer(WORDS.get(usize::from(code)).copied().unwrap_or("another reason"))
    }
}
