//! Requests, answers and passing messages that came by a detour: passed on by a shard that owned the account no more, or
//! sent again as the node was gone that they had gone to. One stanza may come both ways, where the word of the first that
//! it is handled got lost (R7). Rows of the log tell that of messages that are kept; of what is in no log the owner
//! remembers the origin, and the memory goes with the account. What came straight is not remembered: only its owner's
//! death has it sent to another, and what a dead owner did nobody knows. A node that leaves does not end before others know
//! that it has handled what they sent it (`idle`).
//!
//! Without an archive a row is there until its recipient has confirmed it, and the sender may not have heard that it is
//! handled by then: should the sender's owner die, it says the message again. So labels (`direct`) of messages whose rows
//! will go are remembered, too, apart from the others, since they are many. So are, after owners have changed, the origins of
//! all rows that go out, which may be of an owner that is gone, and those of messages that were refused: what comes of one by
//! a second way would be kept behind newer ones, of which the first was told that it failed (R6).
//!
//! Presence says how things are, and may say so twice.
//!
//! At the bound the oldest are forgotten first, and all in time; what then came again would be taken for new.

use super::account::{AccountId, Queued};
use super::control::Control;
use super::effect::Effects;
use super::ring::FrameRef;
use super::{Core, Shard};
use crate::base::hash::Map;
use crate::base::instant::Instant;
use crate::cluster::placement::Owner;
use crate::frame::{Envelope, Flags, Kind};
use crate::store::{LogEntry, Origin};
use crate::xmpp::jid::BareJid;
use std::collections::VecDeque;
use std::time::Duration;

/// What came by a detour; some 80 bytes each.
pub(super) const DETOURED: usize = 65_536;
/// Messages whose rows will go: for longer than clients usually need to come again, where a shard has 5 000 a second.
pub(super) const WRITTEN: usize = 131_072;
/// Longer than nodes usually are without each other or the database, to which a change of owners may have to wait.
const FOR: Duration = Duration::from_secs(600);
/// Of a stanza, as its new owner is told: origin, hash of the account.
const RECORD_BYTES: usize = Origin::BYTES + 8;
/// Of them in one frame, behind a byte that says which memory they are for.
const RECORDS: usize = 1_024;
const OF_DETOURS: u8 = 0;
const OF_ROWS: u8 = 1;

/// A stanza for one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Heard {
    pub origin: Origin,
    /// Hash of the account.
    pub account: u64,
}

impl Heard {
    pub(super) fn new(origin: Origin, account: &BareJid) -> Heard {
        Heard { origin, account: account.hash64() }
    }
}

/// What a shard remembers.
#[derive(Debug)]
pub(super) struct Memory {
    most: usize,
    /// With the frame that each came in first.
    known: Map<Heard, FrameRef>,
    /// In the order in which they came.
    order: VecDeque<(Instant, Heard)>,
    /// Frames that brought one again before it was handled: they are handled when the first is.
    followers: Vec<(FrameRef, FrameRef)>,
}

impl Memory {
    pub(super) fn new(most: usize) -> Memory {
        Memory { most, known: Map::default(), order: VecDeque::new(), followers: Vec::new() }
    }

    pub(super) fn insert(&mut self, heard: Heard, first: FrameRef, now: Instant) {
        self.forget(now);
        if self.known.insert(heard, first).is_none() {
            self.order.push_back((now, heard));
        }
        while self.order.len() > self.most {
            self.forget_oldest();
        }
    }

    /// Forgets what is old.
    pub(super) fn forget(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(at, _)| now.since(*at) >= FOR) {
            self.forget_oldest();
        }
        if self.order.is_empty() && self.order.capacity() > 0 {
            (self.order, self.known) = (VecDeque::new(), Map::default());
        }
    }

    /// Whether another frame brought again what `first` brought, which is not handled yet.
    pub(super) fn is_followed(&self, first: FrameRef) -> bool {
        self.followers.iter().any(|(of, _)| *of == first)
    }

    fn forget_oldest(&mut self) {
        if let Some((_, oldest)) = self.order.pop_front() {
            self.known.remove(&oldest);
        }
    }

    /// Takes out those whose accounts are not `ours`.
    fn take(&mut self, is_ours: impl Fn(u64) -> bool) -> Vec<Heard> {
        let is_ours = |(_, heard): &(Instant, Heard)| is_ours(heard.account);
        let lost: Vec<Heard> =
            self.order.iter().filter(|it| !is_ours(it)).map(|(_, heard)| *heard).collect();
        self.order.retain(is_ours);
        for heard in &lost {
            self.known.remove(heard);
        }
        lost
    }
}

/// A stanza of which the log may tell whether it came before.
pub(super) fn is_logged(kind: Kind, flags: Flags) -> bool {
    kind == Kind::Message && flags.contains(Flags::STORABLE)
}

/// A stanza that takes its origin along on a detour.
pub(super) fn has_origin(kind: Kind) -> bool {
    matches!(kind, Kind::Message | Kind::Iq)
}

impl Shard {
    /// A stanza that is in no log came by a detour: it is handled, unless it was.
    pub(super) fn deliver_detoured(
        &mut self,
        stanza: &Envelope<'_>,
        heard: Heard,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        if self.core.has_heard(heard, at.awaited(stanza.flags)) {
            return;
        }
        self.core.retry_origin = Some(heard.origin);
        self.deliver(stanza, at, fx);
        self.core.remember(heard, at);
    }

    /// As `deliver_detoured`, of one that waited for its account.
    pub(super) fn deliver_heard(
        &mut self,
        account: AccountId,
        queued: &Queued,
        heard: Heard,
        epoch: u64,
        fx: &mut Effects,
    ) {
        let again = queued.at.awaited(queued.post.flags);
        if self.core.has_heard(heard, again) {
            return self.core.release_frame(again);
        }
        self.core.retry_origin = Some(heard.origin);
        self.deliver_queued(account, queued, epoch, fx);
        self.core.remember(heard, queued.at);
    }

    /// Remembers what others did of accounts that are ours now; what has moved on goes after it.
    ///
    /// - takes: `at`, the frame that told it
    pub(super) fn heard_elsewhere(&mut self, told: &[u8], at: FrameRef, fx: &mut Effects) {
        let Some((of, records)) = told.split_first() else { return };
        let core = &mut self.core;
        let records = records.chunks_exact(RECORD_BYTES).filter_map(read);
        let (ours, others): (Vec<_>, Vec<_>) =
            records.partition(|heard| core.placement.owner(heard.account) == core.own());
        let memory = if *of == OF_ROWS { &mut core.written } else { &mut core.memory };
        for heard in ours {
            memory.insert(heard, at, core.now.mono);
        }
        core.tell_heard(*of, others, fx);
    }

    /// What was heard of accounts that are others' now is theirs to know, before they serve them.
    pub(super) fn heard_moves(&mut self, fx: &mut Effects) {
        let core = &mut self.core;
        let own = core.own();
        let placement = core.placement.clone();
        let is_ours = |account| placement.owner(account) == own;
        let (detours, rows) = (core.memory.take(is_ours), core.written.take(is_ours));
        core.tell_heard(OF_DETOURS, detours, fx);
        core.tell_heard(OF_ROWS, rows, fx);
    }
}

impl Core {
    /// A stanza that came with its origin is handled by now, unless it waits for something: what keeps it takes the origin.
    pub(super) fn remember(&mut self, heard: Heard, first: FrameRef) {
        if self.retry_origin.take().is_some() {
            let now = self.now.mono;
            self.memory.insert(heard, first, now);
        }
    }

    /// The row of a message is there, and goes when it is confirmed; or it could not be written, and the message was
    /// refused, or was for the archive alone. The account may have moved meanwhile.
    ///
    /// - takes: `first`, the frame that is not handled before its sender has the refusal
    pub(super) fn row_is_done(&mut self, heard: Heard, first: Option<FrameRef>, fx: &mut Effects) {
        if self.placement.owner(heard.account) != self.own() {
            return self.tell_heard(OF_ROWS, vec![heard], fx);
        }
        let first = first.unwrap_or_else(|| self.no_frame());
        self.written.insert(heard, first, self.now.mono);
    }

    /// A row goes out that will be gone when it is confirmed. Another owner may have written it and be gone with what it
    /// remembered, and its sender's client may not have heard that it is handled.
    pub(super) fn row_goes_out(&mut self, entry: &LogEntry, account: &BareJid) {
        let now = self.now.mono;
        let may_be_anothers = self.handover.has_settled_within(FOR, now);
        if may_be_anothers && !entry.keep.is_archived() && entry.origin.number > 0 {
            let heard = Heard::new(entry.origin, account);
            self.written.insert(heard, self.no_frame(), now);
        }
    }

    /// A message of which the log may tell goes back as an error: should it come again, it was handled.
    pub(super) fn remember_refusal(&mut self, envelope: &Envelope<'_>, to: &str) {
        let Some(origin) = self.retry_origin else { return };
        if !is_logged(envelope.kind, envelope.flags) {
            return;
        }
        let Ok(jid) = self.jids.parse(to) else { return };
        let first = self.copies.frame().unwrap_or_else(|| self.no_frame());
        self.written.insert(Heard::new(origin, jid.bare()), first, self.now.mono);
    }

    /// Tells those who have the accounts now.
    fn tell_heard(&mut self, of: u8, lost: Vec<Heard>, fx: &mut Effects) {
        let mut of_owner: Vec<(Owner, Vec<u8>)> = Vec::new();
        for heard in lost {
            let owner = self.placement.owner(heard.account);
            let place = of_owner.iter().position(|(other, _)| *other == owner);
            let place = place.unwrap_or_else(|| {
                of_owner.push((owner, Vec::new()));
                of_owner.len() - 1
            });
            write(&mut of_owner[place].1, &heard);
        }
        for (owner, records) in of_owner {
            let Some(peer) = self.peers.of(owner) else { continue };
            for part in records.chunks(RECORDS * RECORD_BYTES) {
                self.send_control(peer, Control::Heard, "", &[&[of], part].concat(), fx);
            }
        }
    }

    /// Whether a stanza was handled before. What brings it again is handled when what brought it first is.
    ///
    /// - takes: `again`, the frame that brings it, where somebody waits for that
    pub(super) fn has_heard(&mut self, heard: Heard, again: Option<FrameRef>) -> bool {
        let Some(first) = self.first_of(heard) else { return false };
        self.came_again(first, again);
        true
    }

    fn first_of(&self, heard: Heard) -> Option<FrameRef> {
        let known = self.memory.known.get(&heard).or_else(|| self.written.known.get(&heard));
        known.copied()
    }

    /// As `has_heard`, where nothing brings it.
    pub(super) fn is_known(&self, heard: Heard) -> bool {
        self.first_of(heard).is_some()
    }

    /// A stanza is dropped that `first` brought before: what brings it again is handled when that is.
    pub(super) fn came_again(&mut self, first: FrameRef, again: Option<FrameRef>) {
        self.probe.duplicates_dropped += 1;
        if let Some(again) = again.filter(|again| *again != first && self.is_open(first)) {
            self.hold_frame(Some(again));
            self.memory.followers.push((first, again));
        }
    }

    fn is_open(&self, at: FrameRef) -> bool {
        self.inward.get(usize::from(at.ring)).is_some_and(|inward| inward.is_open(at.number))
    }

    /// Frames that brought again what is handled by now are so, too. Gives whether there were any.
    pub(super) fn release_followers(&mut self) -> bool {
        if self.memory.followers.is_empty() {
            return false;
        }
        let followers = std::mem::take(&mut self.memory.followers);
        let before = followers.len();
        for (first, again) in followers {
            match self.is_open(first) {
                true => self.memory.followers.push((first, again)),
                false => self.release_frame(Some(again)),
            }
        }
        self.memory.followers.len() < before
    }
}

fn write(to: &mut Vec<u8>, heard: &Heard) {
    let Heard { origin, account } = heard;
    origin.write(to);
    to.extend_from_slice(&account.to_be_bytes());
}

/// The other way. What comes from another node is checked.
fn read(record: &[u8]) -> Option<Heard> {
    let (origin, account) = Origin::read(record)?;
    Some(Heard { origin, account: u64::from_be_bytes(account.try_into().ok()?) })
}
