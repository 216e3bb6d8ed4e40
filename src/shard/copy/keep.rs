//! At the successor: copies of sessions that others own. They are no sessions: nobody finds them, and they do nothing,
//! until an epoch says that their owner is gone.

use super::super::migration::SessionImage;
use super::super::outbound::Mark;
use super::super::peers::Peer;
use super::super::{Core, Shard};
use super::record::{Record, Records, write_refused};
use crate::base::hash::Map;
use crate::stream::resume::{Tally, Unacknowledged};
use std::collections::VecDeque;

/// What the client confirmed last: the owner may be gone before the rows are out of the log, or in it.
const CONFIRMED_MAX: usize = 256;
/// What a copy and a stanza in it take beside their bytes.
const COPY_BYTES: usize = 512;
const STANZA_BYTES: usize = 64;

/// One copy.
#[derive(Debug)]
pub(super) struct Copy {
    /// Without what follows.
    pub image: SessionImage,
    pub tally: Tally,
    pub queue: VecDeque<Unacknowledged>,
    pub confirmed: VecDeque<Mark>,
    /// Of its owner, as that told of it last.
    pub epoch: u64,
    /// Bytes of the image.
    image_bytes: usize,
    queue_bytes: usize,
}

impl Copy {
    fn new(mut image: SessionImage, image_bytes: usize, epoch: u64) -> Copy {
        let tally = image.counters.tally();
        let queue = image.counters.take_queue();
        let queue_bytes = queue.iter().map(size).sum();
        let image_bytes = image_bytes.saturating_sub(queue_bytes).saturating_add(COPY_BYTES);
        let confirmed = VecDeque::new();
        Copy { image, tally, queue, confirmed, epoch, image_bytes, queue_bytes }
    }

    fn bytes(&self) -> usize {
        self.image_bytes + self.queue_bytes
    }

    fn advance(&mut self, tally: Tally, stanzas: Vec<Unacknowledged>) {
        self.queue_bytes += stanzas.iter().map(size).sum::<usize>();
        self.queue.extend(stanzas);
        self.tally = tally;
        let out = tally.sent.wrapping_sub(tally.acknowledged) as usize;
        while self.queue.len() > out
            && let Some(stanza) = self.queue.pop_front()
        {
            self.queue_bytes -= size(&stanza);
            let mark = Mark { row: stanza.log_id, origin: stanza.origin };
            if mark != Mark::NONE {
                if self.confirmed.len() == CONFIRMED_MAX {
                    self.confirmed.pop_front();
                }
                self.confirmed.push_back(mark);
            }
        }
        if self.queue.is_empty() {
            self.queue.shrink_to(8);
        }
    }
}

fn size(stanza: &Unacknowledged) -> usize {
    stanza.bytes.len() + STANZA_BYTES
}

/// By their owner's shard and its number of the session.
#[derive(Debug, Default)]
pub(super) struct Kept {
    copies: Map<(Peer, u64), Copy>,
    bytes: usize,
}

impl Kept {
    fn insert(&mut self, key: (Peer, u64), copy: Copy) {
        self.bytes += copy.bytes();
        self.copies.insert(key, copy);
    }

    fn remove(&mut self, key: (Peer, u64)) -> Option<Copy> {
        let copy = self.copies.remove(&key)?;
        self.bytes -= copy.bytes();
        Some(copy)
    }

    /// All whose owners are among these, with those, in an order that depends on nothing else.
    pub(super) fn take_of(&mut self, owners: &[Peer]) -> Vec<(Peer, Copy)> {
        let mut keys: Vec<(Peer, u64)> =
            self.copies.keys().filter(|(owner, _)| owners.contains(owner)).copied().collect();
        keys.sort_unstable();
        keys.into_iter().filter_map(|key| Some((key.0, self.remove(key)?))).collect()
    }
}

impl Shard {
    /// Records of another shard.
    ///
    /// - takes: `epoch`, by which they were sent
    pub(in super::super) fn copy_records(&mut self, from: Peer, epoch: u64, text: &[u8]) {
        for record in Records(text) {
            match record {
                Record::Whole { session, image } => {
                    self.core.keep_whole((from, session), image, epoch);
                }
                Record::Frame { session, image } => {
                    self.core.keep_frame((from, session), image, epoch);
                }
                Record::Delta { session, tally, stanzas } => {
                    self.core.keep_delta((from, session), tally, stanzas, epoch);
                }
                Record::End { session } => {
                    self.core.copies.kept.remove((from, session));
                }
                Record::Refused { session } => self.core.copy_refused(from, session),
            }
        }
        self.core.count_copies();
    }
}

impl Core {
    fn keep_whole(&mut self, key: (Peer, u64), bytes: &[u8], epoch: u64) {
        self.copies.kept.remove(key);
        let Some(image) = SessionImage::read(bytes) else { return };
        let copy = Copy::new(image, bytes.len(), epoch);
        if self.has_room_for_copy(copy.bytes()) {
            self.copies.kept.insert(key, copy);
        } else {
            self.refuse_copy(key);
        }
    }

    fn keep_frame(&mut self, key: (Peer, u64), bytes: &[u8], epoch: u64) {
        let Some(image) = SessionImage::read(bytes) else { return };
        self.change_copy(key, epoch, |copy| {
            copy.image = image;
            copy.image_bytes = bytes.len() + COPY_BYTES;
        });
    }

    fn keep_delta(
        &mut self,
        key: (Peer, u64),
        tally: Tally,
        stanzas: Vec<Unacknowledged>,
        epoch: u64,
    ) {
        self.change_copy(key, epoch, |copy| copy.advance(tally, stanzas));
    }

    fn change_copy(&mut self, key: (Peer, u64), epoch: u64, change: impl FnOnce(&mut Copy)) {
        let kept = &mut self.copies.kept;
        let Some(copy) = kept.copies.get_mut(&key) else { return };
        let before = copy.bytes();
        copy.epoch = epoch;
        change(copy);
        kept.bytes = (kept.bytes - before).saturating_add(copy.bytes());
        if kept.bytes > self.config.limits.copy_bytes {
            kept.remove(key);
            self.refuse_copy(key);
        }
    }

    fn has_room_for_copy(&self, bytes: usize) -> bool {
        let (limits, kept) = (&self.config.limits, &self.copies.kept);
        kept.copies.len() < limits.copies && kept.bytes + bytes <= limits.copy_bytes
    }

    fn refuse_copy(&mut self, (owner, session): (Peer, u64)) {
        if !self.peers.is_gone(owner) {
            write_refused(self.copies.records_to(owner), session);
        }
    }

    pub(super) fn count_copies(&mut self) {
        self.probe.copies = self.copies.kept.copies.len() as u64;
        self.probe.copies_bytes = self.copies.kept.bytes as u64;
    }
}
