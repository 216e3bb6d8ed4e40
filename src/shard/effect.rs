//! All that a shard can do to the world. The runtime carries it out once per turn; simulation plays the world.

use super::errand::Errand;
use crate::base::ids::Id;
use crate::base::instant::Instant;
use crate::cluster::placement::Owner;
use crate::frame::{Batch, Mark};
pub use crate::store::Ticket;
use crate::store::{Query, Write};
use crate::xmpp::credentials::ScramKeys;
use std::net::IpAddr;
use std::sync::Arc;

/// A client connection of one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId(pub Id);

/// Rare effects, in the order in which they were decided.
#[derive(Debug)]
pub enum Action {
    /// Flush this connection's output, then shake hands.
    StartTls(ConnId),
    /// The connection belongs to another shard: take it out and send it there; as an image where that is of another node.
    Move { conn: ConnId, to: Owner },
    /// Flush this connection's output, then close it.
    Close(ConnId),
    /// Drop this connection at once: its reader is too slow for its output.
    Abort(ConnId),
    /// Reading was stopped and goes on.
    ReadAgain(ConnId),
    /// The front of this connection may send messages itself; see `cluster::relay::Leave`.
    GiveLeave { conn: ConnId, token: u64, label: u64, root: u32, number: u32, jid: Arc<str> },
    /// It may no more.
    TakeLeaveBack(ConnId),
    /// The client of this stream, whose socket is here, may be read on: `Shard::front_next`.
    FrontGoesOn(u64),
    /// Slow work for a side thread: does this password give these keys?
    CheckPassword(PasswordCheck),
    /// Work for a side thread; `Input::Administered` brings what came of it, always.
    Administer { ticket: Ticket, errand: Errand },
}

/// PLAIN's password against the account's keys. `conn` gets the verdict.
#[derive(Debug)]
pub struct PasswordCheck {
    pub conn: ConnId,
    /// Where the client comes from: the queue is fair per network.
    pub peer: IpAddr,
    pub password: String,
    pub keys: ScramKeys,
    /// False for an account that does not exist: checked all the same, for the time it takes, and refused.
    pub known: bool,
}

/// What one or more inputs want done. Filled by the shard, emptied by the runtime at the end of a turn.
#[derive(Debug)]
pub struct Effects {
    pub actions: Vec<Action>,
    /// Connections with output, each once.
    pub dirty: Vec<ConnId>,
    /// Connections whose output is withheld until that moment: then `Shard::let_go`.
    pub withheld: Vec<(ConnId, Instant)>,
    /// Frames by peer: this node's shards first, then its federation cores, then shards of others.
    pub outbox: Vec<Batch>,
    pub writes: Vec<(Ticket, Write)>,
    /// Each sees what this shard wrote for the same owner before it.
    pub queries: Vec<(Ticket, Query)>,
}

/// Where `Effects` stood, so that a fault's effects can be cut back.
#[derive(Debug)]
pub struct EffectsMark {
    actions: usize,
    outbox: Vec<Mark>,
    writes: usize,
    queries: usize,
}

impl Effects {
    /// - `cores`: shards and federation cores of the node
    pub fn new(cores: u16) -> Self {
        Self {
            actions: Vec::new(),
            dirty: Vec::new(),
            withheld: Vec::new(),
            outbox: (0..cores).map(|_| Batch::default()).collect(),
            writes: Vec::new(),
            queries: Vec::new(),
        }
    }

    /// Room for frames to so many peers.
    pub(super) fn make_room(&mut self, peers: usize) {
        if self.outbox.len() < peers {
            self.outbox.resize_with(peers, Batch::default);
        }
    }

    pub fn mark_into(&self, mark: &mut EffectsMark) {
        mark.actions = self.actions.len();
        mark.writes = self.writes.len();
        mark.queries = self.queries.len();
        mark.outbox.clear();
        mark.outbox.extend(self.outbox.iter().map(Batch::mark));
    }

    /// Takes back everything decided since `mark`; output of connections is the shard's own to cut.
    pub fn cut_back(&mut self, mark: &EffectsMark) {
        self.actions.truncate(mark.actions);
        self.writes.truncate(mark.writes);
        self.queries.truncate(mark.queries);
        for (batch, mark) in self.outbox.iter_mut().zip(&mark.outbox) {
            batch.truncate_to(*mark);
        }
    }

    /// Nothing waits to be carried out.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
            && self.dirty.is_empty()
            && self.withheld.is_empty()
            && self.writes.is_empty()
            && self.queries.is_empty()
            && self.outbox.iter().all(Batch::is_empty)
    }
}

impl EffectsMark {
    pub fn new() -> Self {
        Self { actions: 0, outbox: Vec::new(), writes: 0, queries: 0 }
    }
}

impl Default for EffectsMark {
    fn default() -> Self {
        Self::new()
    }
}
