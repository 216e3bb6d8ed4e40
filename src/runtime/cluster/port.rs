//! Between a core and the links to other nodes: what a turn of the core has for them leaves as one piece for each shard of
//! another node, and comes to a core in such pieces.

use crate::cluster::link::Departure;
use crate::cluster::placement::ShardId;
use crate::cluster::view::{Place, Run};
use crate::frame::Batch;

/// What one of our shards has for a shard of another node.
#[derive(Debug)]
pub struct Outgoing {
    pub from: ShardId,
    pub to: Place,
    pub frames: Batch,
    /// Its frames to us that were received and handled, up to these numbers.
    pub news: Option<(u64, u64)>,
    /// What fronts and cores tell each other of sockets, whole messages one after the other; see `relay`.
    pub relay: Vec<u8>,
}

/// What comes from another node. What came in one link comes in its order.
#[derive(Debug)]
pub enum Incoming {
    /// As it was sent: frames (checked), then news, then what concerns sockets. `sent` is known once the clocks of both have
    /// been compared.
    Piece {
        from: Place,
        sent: Option<Departure>,
        frames: Batch,
        news: Option<(u64, u64)>,
        relay: Vec<u8>,
    },
    /// There is a link to this run: what it did not handle is to be sent (again).
    Up(Run),
    /// There is none any more; sockets that were relayed over it are lost. Frames wait for the next one.
    Down(Run),
}

/// Takes pieces to the links. Cloned to every core.
pub trait Carrier: Send {
    /// Never waits. What cannot be sent now is dropped if it is `relay`; frames come again after `Incoming::Up`.
    fn send(&self, piece: Outgoing);

    /// Something that came from this run was dropped: the link to it is made anew, so that it comes again.
    fn renew(&self, run: Run);
}
