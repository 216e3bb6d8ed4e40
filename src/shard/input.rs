//! All that can happen to a shard.

use super::access::Features;
use super::config::ShardConfig;
use super::effect::{ConnId, Ticket};
use crate::cluster::placement::ShardId;
use crate::frame::Batch;
use crate::store::{Answer, Written};
use crate::stream::TlsFacts;
use crate::xmpp::jid::BareJid;
use std::sync::Arc;

/// One event. Connections come in by `Shard::accept`, which names them.
#[derive(Debug)]
pub enum Input<'a> {
    /// Plain text of a connection, any cut of it.
    Bytes { conn: ConnId, bytes: &'a [u8] },
    /// The handshake that `StartTls` asked for is done.
    Secured { conn: ConnId, facts: TlsFacts },
    /// The peer is gone, or the handshake failed, or the output that went before `Close` has left.
    Closed { conn: ConnId },
    /// Frames of another shard, in order.
    Frames { from: ShardId, batch: &'a Batch },
    /// Another shard has received and handled our frames up to these numbers.
    Handled { by: ShardId, received: u64, handled: u64 },
    /// Rings took what waited for them, or the store did: clients may be read again.
    Relieved,
    /// The store's answer.
    Stored { ticket: Ticket, outcome: StoreOutcome },
    /// The verdict on a `PasswordCheck`; `None` where the queue was full.
    PasswordChecked { conn: ConnId, verdict: Option<bool> },
    /// The account was created, deleted or changed behind the shard's back.
    AccountChanged(BareJid),
    /// An operator decided anew.
    Reconfigured { config: Arc<ShardConfig>, features: Features },
    /// Time passes; `Shard::next_due` says when the next one is wanted.
    Tick,
    /// The node ends: every stream gets `system-shutdown`.
    Shutdown,
}

/// What became of a request to the store.
#[derive(Clone, Debug)]
pub enum StoreOutcome {
    Written(Written),
    Answer(Answer),
    /// The store could not do it, and has given up trying.
    Failed,
}
