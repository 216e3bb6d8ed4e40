//! What the membership tells.

use super::super::refusal::Refusals;
use super::super::view::{NodeFacts, Run};
use std::net::SocketAddr;

/// What became known of the members. In the order in which it did; of one run, `Up` comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberEvent {
    Up(NodeFacts),
    /// The same run says something else of itself.
    Changed(NodeFacts),
    /// It did not answer; it is a member for as long as it may still refute that.
    Suspect(Run),
    /// It refuted.
    Trusted(Run),
    /// It is silent, or another run has its address. The same run may be `Up` again, if it was only unreachable.
    Dead(Run),
    /// It ends on purpose.
    Left(Run),
    /// Two nodes have this name, one of them maybe this one, and both live.
    Twins {
        name: String,
        older: Run,
        newer: Run,
    },
    /// The others had declared this run dead; it is coming back.
    TakenForDead,
    /// `Membership::leave` is done: no datagram goes or comes any more.
    Gone,
}

/// What a call gave. The caller empties it.
#[derive(Debug, Default)]
pub struct Outputs {
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
    pub events: Vec<MemberEvent>,
}

/// Counts since the start, and the members now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberFigures {
    pub sent: u64,
    /// Refused ones included.
    pub received: u64,
    pub refused: Refusals,
    /// How often a member was suspected by this node or by others.
    pub suspicions: u64,
    /// How often the others took this node for dead.
    pub taken_for_dead: u64,
    /// Milliseconds in which this machine should have been called and was not.
    pub stalled_ms: u64,
    /// Members but for this node, by state.
    pub alive: usize,
    pub suspect: usize,
    /// Addresses whose last run is remembered as dead, and as gone on purpose.
    pub dead: usize,
    pub left: usize,
}

/// How a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Alive,
    Suspect,
}
