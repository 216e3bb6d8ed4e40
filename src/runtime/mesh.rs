//! The rings between the cores of a node, its shards first, then those of federation: batches of frames, moving sockets and cumulative numbers, one way each.
//!
//! A batch moves by pointer and its buffer comes back empty, so that no memory is allocated or freed across cores. A
//! full ring leaves the batch with its sender, who asks to be rung when there is room.

use super::connection::MovedSocket;
use super::mailbox::Bell;
use crate::base::instant::Instant;
use crate::frame::Batch;
use rtrb::{Consumer, Producer, RingBuffer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Parcels on their way between two shards, at most.
const PARCELS: usize = 64;
/// A batch buffer that grew past this is not kept.
const BATCH_KEPT_BYTES: usize = 1 << 20;

/// What crosses in one piece.
pub struct Parcel {
    pub frames: Batch,
    pub sockets: Vec<MovedSocket>,
    /// When the turn that sent it ended.
    pub sent: Instant,
    /// Frames of the other direction that were received and handled, up to these numbers.
    pub news: Option<(u64, u64)>,
}

/// The end of a ring that a shard writes.
pub struct Outlet {
    parcels: Producer<Parcel>,
    spare: Consumer<Batch>,
    peer: Arc<Bell>,
    starved: Arc<AtomicBool>,
    /// News that found the ring full; newer ones replace them.
    news: Option<(u64, u64)>,
    sockets: Vec<MovedSocket>,
}

/// The end of a ring that a shard reads.
pub struct Inlet {
    parcels: Consumer<Parcel>,
    spare: Producer<Batch>,
    peer: Arc<Bell>,
    starved: Arc<AtomicBool>,
}

/// One core's ends of its rings, by the other core; none to itself.
pub type Ends = (Vec<Option<Outlet>>, Vec<Option<Inlet>>);

/// Both ends of all rings, by shard: `ends[i].0[j]` leads from i to j, `ends[i].1[j]` from j to i.
pub fn mesh(bells: &[Arc<Bell>]) -> Vec<Ends> {
    let count = bells.len();
    let mut ends: Vec<Ends> = (0..count)
        .map(|_| ((0..count).map(|_| None).collect(), (0..count).map(|_| None).collect()))
        .collect();
    for from in 0..count {
        for to in 0..count {
            if from == to {
                continue;
            }
            let (parcels_in, parcels_out) = RingBuffer::new(PARCELS);
            let (spare_in, spare_out) = RingBuffer::new(PARCELS);
            let starved = Arc::new(AtomicBool::new(false));
            ends[from].0[to] = Some(Outlet {
                parcels: parcels_in,
                spare: spare_out,
                peer: bells[to].clone(),
                starved: starved.clone(),
                news: None,
                sockets: Vec::new(),
            });
            ends[to].1[from] = Some(Inlet {
                parcels: parcels_out,
                spare: spare_in,
                peer: bells[from].clone(),
                starved,
            });
        }
    }
    ends
}

impl Outlet {
    /// A socket to go with the next parcel.
    pub fn add_socket(&mut self, socket: MovedSocket) {
        self.sockets.push(socket);
    }

    pub fn set_news(&mut self, received: u64, handled: u64) {
        self.news = Some((received, handled));
    }

    /// Sends the batch and what else waits; `batch` is empty afterwards. Gives false where the ring is full: all stays
    /// where it is, and the sender is rung when there is room.
    pub fn send(&mut self, batch: &mut Batch, now: Instant) -> bool {
        if batch.is_empty() && self.sockets.is_empty() && self.news.is_none() {
            return true;
        }
        if self.parcels.is_full() {
            self.starved.store(true, Ordering::SeqCst);
            // The other side may have made room between the look and the mark.
            if self.parcels.is_full() {
                return false;
            }
        }
        let parcel = Parcel {
            frames: if batch.is_empty() {
                Batch::new()
            } else {
                std::mem::replace(batch, self.spare.pop().unwrap_or_default())
            },
            sockets: std::mem::take(&mut self.sockets),
            sent: now,
            news: self.news.take(),
        };
        // Not full was just seen, and nobody else writes here.
        let sent = self.parcels.push(parcel).is_ok();
        debug_assert!(sent, "the ring had room");
        self.peer.ring();
        true
    }
}

impl Inlet {
    /// The next parcel.
    pub fn receive(&mut self) -> Option<Parcel> {
        let parcel = self.parcels.pop().ok()?;
        if self.starved.load(Ordering::SeqCst) && self.starved.swap(false, Ordering::SeqCst) {
            self.peer.ring();
        }
        Some(parcel)
    }

    /// Gives an emptied batch back to its sender.
    pub fn give_back(&mut self, mut batch: Batch) {
        if (1..=BATCH_KEPT_BYTES).contains(&batch.capacity()) {
            batch.clear();
            // A full return ring means that enough are on their way.
            let _ = self.spare.push(batch);
        }
    }
}
