//! Copies whose owner is gone: they become sessions that wait to be resumed, at who owns their accounts now.

use super::super::account::AccountId;
use super::super::control::Control;
use super::super::effect::Effects;
use super::super::migration::SessionImage;
use super::super::peers::Peer;
use super::super::session::SessionId;
use super::super::{Core, Shard};
use super::keep::Copy;
use crate::cluster::placement::{Owner, Placement, partition};
use crate::stream::resume::is_after;
use crate::xmpp::jid::Jid;
use std::sync::Arc;

/// An account with sessions from copies: what they heard of contacts may be wrong.
#[derive(Debug)]
pub(super) struct Awakened {
    /// By partition: the contact's owner died, too.
    lost: Arc<[bool]>,
    /// All contacts.
    all: bool,
}

impl Shard {
    /// - takes: `gone`, shards that are no more; `before`, the placement by which they were
    pub(in super::super) fn revive_copies(
        &mut self,
        gone: &[Peer],
        before: &Placement,
        fx: &mut Effects,
    ) {
        let accounts = &self.core.accounts;
        self.core.copies.awakened.retain(|account, _| accounts.contains(account.0));
        if gone.is_empty() {
            return;
        }
        for (of, copy) in self.core.copies.kept.take_of(gone) {
            let Copy { mut image, tally, queue, confirmed, epoch, .. } = copy;
            let Ok(jid) = Jid::parse(&image.jid) else { continue };
            if epoch < before.epoch() && self.core.is_outdated(&jid, of, before, gone) {
                continue;
            }
            image.counters.revive(tally, queue);
            image.may_be_said_again(self.core.now.wall);
            image.had(confirmed.iter().filter_map(|mark| mark.origin));
            self.core.probe.copies_revived += 1;
            let owner = self.core.placement.owner(jid.bare().hash64());
            if owner != self.core.own() {
                // Owners changed otherwise, too.
                self.core.send_image(&jid, &image, owner, fx);
                continue;
            }
            let Some(session) = self.session_of(image, jid, fx) else { continue };
            if let Some(slot) = self.core.sessions.get(session.0) {
                let account = slot.account;
                let rows = confirmed.iter().filter_map(|mark| mark.row);
                self.core.confirmed.extend(rows.map(|row| (account, row)));
            }
            self.awaken(session);
            self.keep_address(session, fx);
        }
        self.core.count_copies();
    }

    /// When its account is read, the session asks for its contacts whose owners are gone.
    pub(in super::super) fn awaken(&mut self, session: SessionId) {
        let core = &mut self.core;
        let Some(slot) = core.sessions.get(session.0) else { return };
        let lost = core.copies.lost.clone();
        let of_account = core.copies.awakened.entry(slot.account);
        of_account.or_insert(Awakened { lost, all: false }).all |= slot.missed;
    }

    /// The account is read.
    pub(in super::super) fn awake(&mut self, account: AccountId, fx: &mut Effects) {
        if self.core.copies.awakened.is_empty() {
            return;
        }
        if let Some(Awakened { lost, all }) = self.core.copies.awakened.remove(&account) {
            let is_lost = |hash64, is_remote: bool| {
                let lost = lost.get(usize::from(partition(hash64)));
                all || !is_remote && lost.copied().unwrap_or_default()
            };
            self.lose_contacts(account, is_lost, fx);
        }
    }

    /// Whether the session of an image is to be here: it is not, or came from a copy that is older.
    pub(in super::super) fn takes_place(&mut self, image: &SessionImage, jid: &Jid) -> bool {
        let core = &mut self.core;
        let comes = &image.counters;
        let Some(session) = core.resumable.get(&*comes.id).copied() else {
            let has_ended = core.ended.handled(&comes.id, jid.bare().hash64()).is_some();
            return !(comes.is_unsure() && has_ended);
        };
        let is_older = core.sessions.get(session.0).is_some_and(|slot| {
            let counters = slot.counters.as_deref();
            slot.conn.is_none()
                && slot.jid == *jid
                && counters.is_some_and(|counters| {
                    let (here, there) = (counters.tally(), comes.tally());
                    let is_ahead = is_after(there.handled, here.handled)
                        || there.handled == here.handled && is_after(there.sent, here.sent);
                    here.known.is_some() && (there.known.is_none() || is_ahead)
                })
        });
        if is_older {
            let copy = self.forget_session(session);
            self.core.copy_ends(session, copy);
        }
        is_older
    }
}

impl Core {
    /// The client may have been told more than a copy knows: by that placement its owner, `of`, was to have it at another
    /// node, which is gone as well.
    fn is_outdated(&self, jid: &Jid, of: Peer, before: &Placement, gone: &[Peer]) -> bool {
        let hash = jid.bare().hash64();
        let node = |peer: Peer| self.peers.place(peer).run.node;
        // Where the account was to move, the new owner has it, or the old one did not know of that placement.
        let is_owner = before.owner(hash).node == node(of);
        let is_gone = |next: Owner| gone.iter().any(|peer| node(*peer) == next.node);
        is_owner && before.successor(hash).is_some_and(is_gone)
    }

    /// The session of an image is another shard's.
    fn send_image(&mut self, jid: &Jid, image: &SessionImage, owner: Owner, fx: &mut Effects) {
        let Some(peer) = self.peers.of(owner) else { return };
        let Some(bytes) = image.write().filter(|_| !self.is_ring_full(peer, fx)) else { return };
        self.send_control(peer, Control::Session, jid.bare().as_str(), &bytes, fx);
    }
}
