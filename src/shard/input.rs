//! All that can happen to a shard.

use super::access::Features;
use super::config::ShardConfig;
use super::effect::{ConnId, Ticket};
use super::errand::{Announcement, Outcome};
use super::peers::Peer;
use crate::base::instant::{Instant, Wall};
use crate::cluster::view::{Run, View};
use crate::frame::Batch;
pub use crate::store::StoreOutcome;
use crate::stream::TlsFacts;
use crate::xmpp::jid::{BareJid, Jid};
use std::sync::Arc;

/// One event. Connections come in by `Shard::accept`, which names them.
#[derive(Debug)]
pub enum Input<'a> {
    /// Plain text of a connection, any cut of it.
    Bytes { conn: ConnId, bytes: &'a [u8] },
    /// As `Bytes`: one stanza, which the front of the connection sent to where it is for, with its number and when it came.
    Told { conn: ConnId, number: u32, at: Wall, bytes: &'a [u8] },
    /// The front makes use of `Action::GiveLeave`, from that time on by its clock; or it does no more.
    FrontChanged { conn: ConnId, sends: Option<Wall> },
    /// The handshake that `StartTls` asked for is done.
    Secured { conn: ConnId, facts: TlsFacts },
    /// The peer is gone, or the handshake failed, or the output that went before `Close` has left.
    Closed { conn: ConnId },
    /// Frames of another shard, in order; `sent`: when that shard's turn ended.
    Frames { from: Peer, sent: Instant, batch: &'a Batch },
    /// Another shard has received and handled our frames up to these numbers.
    Handled { by: Peer, received: u64, handled: u64 },
    /// There is a way to this run of another node (again): what it may have missed is sent once more.
    Linked(Run),
    /// From now on these are the members of the cluster, and owners are computed by that.
    Placed(Arc<View>),
    /// Rings took what waited for them, or the store did: clients may be read again.
    Relieved,
    /// The store's answer.
    Stored { ticket: Ticket, outcome: StoreOutcome },
    /// The verdict on a `PasswordCheck`; `None` where the queue was full.
    PasswordChecked { conn: ConnId, verdict: Option<bool> },
    /// The account was created, deleted or changed behind the shard's back.
    AccountChanged(BareJid),
    /// Ids of a store partition below `next` were given to rows that another brought in: those given from now on are
    /// higher.
    IdsGiven { partition: u16, next: u64 },
    /// An operator decided anew.
    Reconfigured { config: Arc<ShardConfig>, features: Features },
    /// The account is gone; `contacts` were on its roster and must not take its successor for it.
    AccountDeleted { jid: BareJid, contacts: Vec<Jid> },
    /// What came of `Action::Administer`.
    Administered { ticket: Ticket, outcome: Outcome },
    /// An operator ends a session (full JID), or all of an account.
    EndSessions(Jid),
    /// To the available sessions of the announcement's domain, from the slot `after` of the table on; the next page
    /// begins at `Shard::next_page`.
    Announce { announcement: Arc<Announcement>, after: u32 },
    /// Time passes; `Shard::next_due` says when the next one is wanted.
    Tick,
    /// The node ends: every stream gets `system-shutdown`.
    Shutdown,
}
