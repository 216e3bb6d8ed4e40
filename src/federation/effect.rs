//! All that a federation core can do to the world. The runtime carries it out once per turn; simulation plays the world.

use super::control::Answered;
use super::discovery::Plan;
use super::input::TlsVersion;
use super::note::Note;
use crate::base::ids::Id;
use crate::frame::Batch;
use crate::store::{Query, Ticket, Write};
use std::sync::Arc;

/// A connection of a federation core: from `Action::Resolve` or `Federation::accept` until `Input::Closed`,
/// `Input::DialFailed` or a failed `Input::Resolved`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub Id);

/// Rare effects, in the order in which they were decided.
#[derive(Debug)]
pub enum Action {
    /// Find the targets of a domain: `Input::Resolved`, always, unless `Abort` comes first.
    Resolve { conn: ConnId, domain: Arc<str> },
    /// Connect to one of the targets of the plan, from the one with the number `first` on, in order, the addresses of each
    /// by Happy Eyeballs (RFC 8305); of direct TLS with the handshake. A target that is not the last one gets the `share`th
    /// part of the time. `Input::Connected` or `Input::DialFailed`. `conn` is one that was resolved, or a new one that takes
    /// up the targets that one did not come to.
    Dial { conn: ConnId, plan: Arc<Plan>, first: usize, share: u32, tls: Arc<ClientTls> },
    /// Flush this connection's output, then shake hands: `Input::Secured`, or `Input::Closed` with `Lost::Tls`.
    StartTls { conn: ConnId, role: TlsRole },
    /// Fetch the document in which a domain names its certificates (RFC 7711): `Input::Posh`, always.
    AskPosh { conn: ConnId, domain: Arc<str> },
    /// Flush this connection's output, then close it: TLS close_notify, half-close, a second for the peer's, then gone.
    /// `Input::Closed`.
    Close(ConnId),
    /// Drop it at once, with a look-up, dial or handshake that is under way. No `Input` for it comes any more.
    Abort(ConnId),
    /// Reading was stopped (`Federation::is_reading` was false) and goes on.
    ReadAgain(ConnId),
    /// The answer to `Input::Asked`.
    Answer { number: u64, answered: Box<Answered> },
    /// Something for the log.
    Note(Note),
}

/// The side that a connection takes in a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsRole {
    Client(Arc<ClientTls>),
    /// `to`: the domain of ours that the stream is for, where it named one: its certificate is shown if the client names
    /// none (SNI). A certificate is asked for from the peer, and not demanded.
    Server {
        to: Option<Arc<str>>,
        oldest: TlsVersion,
    },
}

/// How to shake hands as a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// The remote domain: the name to ask for (SNI).
    pub domain: Arc<str>,
    /// The domain of ours whose certificate to show.
    pub own: Arc<str>,
    pub oldest: TlsVersion,
}

/// What one or more inputs want done. Filled by the core, emptied by the runtime at the end of a turn.
#[derive(Debug)]
pub struct Effects {
    pub actions: Vec<Action>,
    /// Connections with output, each once.
    pub dirty: Vec<ConnId>,
    /// Frames by ring: the shards of this node, then its federation cores.
    pub outbox: Vec<Batch>,
    pub writes: Vec<(Ticket, Write)>,
    /// Each sees what this core wrote for the same owner before it.
    pub queries: Vec<(Ticket, Query)>,
}

impl Effects {
    /// - takes: the shards and the federation cores of this node together
    pub fn new(rings: u16) -> Self {
        Self {
            actions: Vec::new(),
            dirty: Vec::new(),
            outbox: (0..rings).map(|_| Batch::default()).collect(),
            writes: Vec::new(),
            queries: Vec::new(),
        }
    }

    /// Nothing waits to be carried out.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
            && self.dirty.is_empty()
            && self.writes.is_empty()
            && self.queries.is_empty()
            && self.outbox.iter().all(Batch::is_empty)
    }
}
