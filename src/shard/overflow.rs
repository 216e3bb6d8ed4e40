//! What has no room on its ring (DESIGN §4). A frame that a shard makes while it handles another cannot wait by stopping a
//! client's read: refusals, answers, what goes on to another owner, and what is sent again as a node is gone, wait here, in
//! order, until their ring takes them. The frame that each comes of is not handled before it has left, and whatever else is
//! for that ring is refused meanwhile.
//!
//! At the bound it goes back as an error or is dropped, as if it had met a ring without this: what goes on is refused, news
//! of presence and the server's own stanzas are dropped and counted.

use super::account::Queued;
use super::effect::Effects;
use super::handover::sent_on;
use super::peers::Peer;
use super::post::Post;
use super::ring::{Carried, FrameRef};
use super::{Core, Shard, Timer, Undo};
use crate::base::instant::Wall;
use crate::frame::{Envelope, Recipients};
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes that wait, with what each costs beside its stanza.
const BYTES_MAX: usize = 16 << 20;
const BYTES_EACH: usize = 256;
/// How often a ring is looked at of which nobody tells that it has room again.
const STEP: Duration = Duration::from_millis(20);

/// What waits for room.
#[derive(Debug)]
pub(super) enum Late {
    /// A stanza of the server's own, and when it was made. The frame that it answers is held.
    Post(Wall, Post),
    /// A frame for an account of another shard. It is held where it wants to be acknowledged.
    Frame(Queued),
    /// One of ours that went to a node which is gone, and what is handled when it is.
    Again(Queued, Box<[Carried]>),
}

impl Late {
    fn post(&self) -> &Post {
        match self {
            Late::Post(_, post) => post,
            Late::Frame(queued) | Late::Again(queued, _) => &queued.post,
        }
    }

    fn bytes(&self) -> usize {
        let post = self.post();
        BYTES_EACH + post.stanza.len() + post.from.len() + post.to.len()
    }

    /// The frame that is not handled before this has left.
    fn held(&self) -> Option<FrameRef> {
        match self {
            Late::Post(_, post) => post.answers,
            Late::Frame(queued) => queued.at.awaited(queued.post.flags),
            Late::Again(..) => None,
        }
    }
}

/// One per shard.
#[derive(Debug, Default)]
pub(super) struct Overflow {
    /// Of the rings for which something waits; few are full at a time.
    ways: Vec<(Peer, VecDeque<Late>)>,
    bytes: usize,
    is_looking: bool,
}

impl Overflow {
    pub(super) fn is_empty(&self) -> bool {
        self.ways.is_empty()
    }

    fn waits_for(&self, peer: Peer) -> bool {
        self.ways.iter().any(|(of, _)| *of == peer)
    }

    fn push(&mut self, peer: Peer, late: Late) {
        self.bytes += late.bytes();
        match self.ways.iter_mut().find(|(of, _)| *of == peer) {
            Some((_, line)) => line.push_back(late),
            None => self.ways.push((peer, VecDeque::from([late]))),
        }
    }

    fn take(
        &mut self,
        peer: Peer,
        one: impl Fn(&mut VecDeque<Late>) -> Option<Late>,
    ) -> Option<Late> {
        let at = self.ways.iter().position(|(of, _)| *of == peer)?;
        let late = one(&mut self.ways[at].1);
        if self.ways[at].1.is_empty() {
            self.ways.remove(at);
        }
        self.bytes -= late.as_ref().map_or(0, Late::bytes);
        late
    }
}

impl Shard {
    /// Owners have changed: what waits for its ring goes to those that it is for now.
    pub(super) fn send_late_anew(&mut self, late: Vec<Late>, fx: &mut Effects) {
        for late in late {
            match late {
                Late::Post(_, post) => {
                    let held = post.answers;
                    self.send_post(post, fx);
                    self.core.release_frame(held);
                }
                Late::Frame(queued) => self.deliver_parked(&queued, fx),
                Late::Again(queued, carried) => {
                    let envelope = queued.envelope(self.core.placement.epoch());
                    self.post_again(&envelope, envelope.to, &carried, fx);
                }
            }
        }
    }
}

impl Core {
    /// Whether a frame for that shard can go now, behind all that wait for room.
    pub(super) fn has_room(&self, peer: Peer, fx: &Effects) -> bool {
        (self.overflow.is_empty() || !self.overflow.waits_for(peer)) && !self.is_ring_full(peer, fx)
    }

    /// A stanza of the server's own waits for room. At the bound it is dropped.
    pub(super) fn post_later(&mut self, peer: Peer, post: Post) {
        let late = Late::Post(self.now.wall, post);
        if self.overflow.bytes >= BYTES_MAX {
            self.probe.posts_dropped += 1;
            return;
        }
        self.hold_frame(late.held());
        self.wait_for_room(peer, late);
    }

    /// A frame that goes on waits for room.
    ///
    /// - takes: `at`, which is held where the frame wants to be acknowledged
    /// - gives: false at the bound
    pub(super) fn send_on_later(
        &mut self,
        peer: Peer,
        envelope: &Envelope<'_>,
        to: &str,
        at: FrameRef,
    ) -> bool {
        if self.overflow.bytes >= BYTES_MAX {
            return false;
        }
        self.wait_for_room(peer, Late::Frame(Queued::new(envelope, to, at)));
        self.undo.push(Undo::Late(peer));
        true
    }

    /// A frame that is sent again waits for room. Gives false at the bound.
    pub(super) fn send_again_later(
        &mut self,
        peer: Peer,
        envelope: &Envelope<'_>,
        to: &str,
        carried: &[Carried],
    ) -> bool {
        if self.overflow.bytes >= BYTES_MAX {
            return false;
        }
        let queued = Queued::new(envelope, to, self.no_frame());
        self.wait_for_room(peer, Late::Again(queued, carried.into()));
        true
    }

    fn wait_for_room(&mut self, peer: Peer, late: Late) {
        self.overflow.push(peer, late);
        self.look_for_room();
    }

    fn look_for_room(&mut self) {
        if !self.overflow.is_looking {
            self.overflow.is_looking = true;
            self.wheel.insert(self.now.mono + STEP, Timer::Overflow);
        }
    }

    pub(super) fn overflow_due(&mut self) {
        self.overflow.is_looking = false;
        if !self.overflow.is_empty() {
            self.look_for_room();
        }
    }

    /// Takes back the newest that waits for that shard: its sender is answered.
    pub(super) fn undo_late(&mut self, peer: Peer) {
        if let Some(late) = self.overflow.take(peer, VecDeque::pop_back) {
            self.release_frame(late.held());
        }
    }

    /// What waits goes, as far as there is room.
    ///
    /// - takes: `all`: rings or not, as something is to follow that must be behind it
    pub(super) fn send_late(&mut self, all: bool, fx: &mut Effects) {
        let peers: Vec<Peer> = self.overflow.ways.iter().map(|(peer, _)| *peer).collect();
        for peer in peers {
            while (all || !self.is_ring_full(peer, fx))
                && let Some(late) = self.overflow.take(peer, VecDeque::pop_front)
            {
                self.send_one_late(peer, late, fx);
            }
        }
    }

    fn send_one_late(&mut self, peer: Peer, late: Late, fx: &mut Effects) {
        let (epoch, held) = (self.placement.epoch(), late.held());
        let envelope = match &late {
            Late::Post(at, post) => post.envelope(epoch, *at),
            Late::Frame(queued) => {
                let envelope = queued.envelope(epoch);
                Envelope { flags: sent_on(envelope.flags), ..envelope }
            }
            Late::Again(queued, _) => queued.envelope(epoch),
        };
        let sent = Envelope { epoch, also_to: Recipients::NONE, ..envelope };
        let sent = self.append_frame(peer, &sent, fx);
        match (&late, sent) {
            (Late::Post(..), Some(sent)) => {
                if let Some(at) = held {
                    self.answered_by(at, sent);
                }
                self.release_frame(held);
            }
            (Late::Frame(_), Some(sent)) => {
                if let Some(at) = held {
                    let outward = &mut self.outward[usize::from(sent.ring)];
                    outward.expect(sent.number, Carried::Frame(at));
                }
            }
            (Late::Again(_, carried), Some(sent)) => {
                let outward = &mut self.outward[usize::from(sent.ring)];
                carried.iter().for_each(|one| outward.expect(sent.number, *one));
            }
            // No frame can take it.
            (Late::Post(..), None) => {
                self.probe.posts_dropped += 1;
                self.release_frame(held);
            }
            (Late::Frame(_), None) => {
                self.refuse_wrapped(&envelope, envelope.to, &super::deliver::resource_constraint());
                self.release_frame(held);
            }
            (Late::Again(_, carried), None) => {
                self.refuse_again(&envelope, envelope.to, carried);
            }
        }
    }

    /// All that waits, to be sent anew.
    pub(super) fn take_late(&mut self) -> Vec<Late> {
        self.overflow.bytes = 0;
        std::mem::take(&mut self.overflow.ways).into_iter().flat_map(|(_, line)| line).collect()
    }
}
