//! Messages that a node sent which is gone by now, for accounts and domains of which others have not let go.
//!
//! An older message of the same sender may have been on its way to an owner before, and have gone down with the node that
//! sent it. Nobody was told that either is handled, so whoever said them says them again; were the later one kept, the
//! older would come behind it (R6). What nobody waits for is not said again, and stays.

use super::Core;
use super::account::Queued;
use super::peers::Peer;
use crate::frame::{Flags, Kind};
use std::collections::VecDeque;

impl Core {
    /// Nodes are gone, and the next epoch has not begun here. The frames are never handled: nobody is left to be told.
    pub(super) fn drop_orphans(&mut self) {
        let Core { handover, peers, memory, accounts, .. } = self;
        let is_orphan = |queued: &Queued| {
            let post = &queued.post;
            // Control frames are messages, too, that take something along.
            matches!(post.kind, Kind::Message | Kind::Control)
                && post.flags.contains(Flags::WANTS_ACK)
                && peers.is_gone(Peer(queued.at.ring))
                && !memory.is_followed(queued.at)
        };
        let forget = |line: &mut VecDeque<Queued>| line.retain(|queued| !is_orphan(queued));
        for (_, account) in accounts.iter_mut() {
            if handover.holds(account.jid.hash64()) {
                forget(&mut account.waiting);
            }
        }
        handover.going_out.values_mut().for_each(forget);
        forget(&mut handover.parked);
    }
}
