//! Rows of an account that another shard has now, on their way to the store: what comes for the account meanwhile waits
//! behind them, and goes on when they are there.
//!
//! A node that dies in between takes such a row along, and its message: nobody was told that it is safe, so its client says
//! it again. Had a later message gone on by then, it would be in the log first (R6). All of it goes before this shard
//! seals, for which its writes must be done, too; so nothing waits any longer for this.

use super::account::Queued;
use super::effect::Effects;
use super::ring::FrameRef;
use super::{Core, Shard};
use crate::base::hash::Set;
use crate::frame::Envelope;
use crate::xmpp::jid::Jid;
use std::collections::VecDeque;

/// Frames at most; above, they go on as if nothing were on its way. Each is kept by its sender until it is handled.
const WAITING_MAX: usize = 65_536;

/// One per shard.
#[derive(Debug, Default)]
pub(super) struct Unwritten {
    /// Hashes of accounts.
    accounts: Set<u64>,
    /// In the order in which they go on. They are held where they want to be acknowledged.
    line: VecDeque<Queued>,
}

impl Shard {
    /// What was on its way is written: what waits behind it goes to those who have the accounts now.
    pub(super) fn send_unwritten(&mut self, fx: &mut Effects) {
        if self.core.unwritten.accounts.is_empty() {
            return;
        }
        for queued in std::mem::take(&mut self.core.unwritten).line {
            let Ok(jid) = self.core.jids.parse(&queued.post.to).map(Jid::into_bare) else {
                self.core.release_frame(queued.at.awaited(queued.post.flags));
                continue;
            };
            let owner = self.core.placement.owner(jid.hash64());
            if owner != self.core.own() {
                self.send_queued_on(&queued, owner, fx);
            } else if queued.retry.is_none() {
                // Owners have changed once more.
                self.deliver_parked(&queued, fx);
            } else if let Some(account) = self.core.account(&jid, fx) {
                let held = queued.at.awaited(queued.post.flags);
                self.wait_for_log(account, queued, fx);
                self.core.release_frame(held);
            } else {
                self.core.refuse_queued(&queued);
            }
        }
    }
}

impl Core {
    /// Rows of the account are on their way to the store as it leaves.
    pub(super) fn is_unwritten(&self, hash64: u64) -> bool {
        self.unwritten.accounts.contains(&hash64) && self.unwritten.line.len() < WAITING_MAX
    }

    pub(super) fn leaves_unwritten(&mut self, hash64: u64) {
        self.unwritten.accounts.insert(hash64);
    }

    /// What waited for the account as it left; gives it back where it need not wait.
    pub(super) fn behind_writes(&mut self, hash64: u64, queued: Queued) -> Option<Queued> {
        if !self.is_unwritten(hash64) {
            return Some(queued);
        }
        self.unwritten.line.push_back(queued);
        None
    }

    /// What comes for the account now. Gives whether it waits.
    ///
    /// - takes: `at`, which is held where the frame wants to be acknowledged
    pub(super) fn waits_for_writes(
        &mut self,
        hash64: u64,
        envelope: &Envelope<'_>,
        to: &str,
        at: FrameRef,
    ) -> bool {
        if !self.is_unwritten(hash64) {
            return false;
        }
        let (retry, is_new) = (self.retry_origin, self.retry_origin.is_some());
        let queued = Queued { retry, is_new, ..Queued::new(envelope, to, at) };
        self.unwritten.line.push_back(queued);
        true
    }
}
