//! Numbers of the ring between this shard and another (and of the way to itself, which counts the same).
//!
//! Outward: what each numbered frame carries, so that it is known when that is handled. Towards another node the frames
//! are kept until then, too: the way there may break, and the node may be gone before it has handled them. The other
//! direction is `frame::ring::Inward`.

use super::copy::Covered;
use super::peers::Peer;
use super::session::SessionId;
use crate::frame::Flags;
use smallvec::SmallVec;
use std::collections::VecDeque;

/// A frame that came in over a ring: whose *handled* number waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameRef {
    pub ring: u16,
    pub number: u64,
}

impl FrameRef {
    /// The frame where somebody waits for its handling: the flags of its stanza say so.
    pub(super) fn awaited(self, flags: Flags) -> Option<FrameRef> {
        flags.contains(Flags::WANTS_ACK).then_some(self)
    }
}

/// What is handled when a frame of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// A stanza of an acknowledged stream.
    Stanza(SessionId, u32),
    /// A frame that was sent on.
    Frame(FrameRef),
    /// A message of a client whose socket is here: the token of its stream, and its number.
    Direct(u64, u32),
}

impl Carried {
    pub(super) fn is_frame(self) -> bool {
        matches!(self, Carried::Frame(_))
    }
}

/// What waits until the other side has a frame of ours. It may not have *handled* it, as frames before it wait, and those
/// may be for something here.
#[derive(Debug)]
pub(super) enum Arrival {
    /// A frame of another that ours answers: not handled before.
    Answer(FrameRef),
    /// Copies of sessions have what the frame told of them.
    Copied(Covered),
    /// A session is where it should be: its copies go, which are there.
    Moved(SessionId, SmallVec<[Peer; 1]>),
}

/// Our frames to one shard.
#[derive(Debug, Default)]
pub(super) struct Outward {
    last: u64,
    /// The other side is known to have received so far.
    arrived: u64,
    handled: u64,
    /// In the order of their frames.
    waiting: VecDeque<(u64, Carried)>,
    /// How many of those are frames that were sent on.
    sent_on: usize,
    /// There towards another node.
    kept: Option<Box<Kept>>,
    /// What waits until frames have arrived, in their order.
    arrivals: VecDeque<(u64, Arrival)>,
}

/// Frames that are not handled.
#[derive(Debug, Default)]
struct Kept {
    frames: VecDeque<(u64, Box<[u8]>)>,
    bytes: usize,
}

/// What is left of the way to a shard that is gone.
#[derive(Debug, Default)]
pub(super) struct Unhandled {
    pub frames: VecDeque<(u64, Box<[u8]>)>,
    pub waiting: VecDeque<(u64, Carried)>,
}

impl Outward {
    /// Towards another node, with numbers from behind `first` on.
    pub(super) fn to_node(first: u64) -> Self {
        let kept = Some(Box::default());
        Self { last: first, arrived: first, handled: first, kept, ..Self::default() }
    }

    /// The number of the next frame.
    pub(super) fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Frames must be kept.
    pub(super) fn keeps(&self) -> bool {
        self.kept.is_some()
    }

    /// The frame that has the last number.
    pub(super) fn keep(&mut self, frame: &[u8]) {
        if let Some(kept) = &mut self.kept {
            kept.bytes += frame.len();
            kept.frames.push_back((self.last, frame.into()));
        }
    }

    /// Bytes of frames that are kept.
    pub(super) fn kept_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.bytes)
    }

    /// The frames that are kept, in order.
    pub(super) fn kept(&self) -> impl Iterator<Item = &[u8]> {
        self.kept.iter().flat_map(|kept| kept.frames.iter().map(|(_, frame)| &**frame))
    }

    /// `carried` is handled when the frame `number` is.
    pub(super) fn expect(&mut self, number: u64, carried: Carried) {
        self.sent_on += usize::from(carried.is_frame());
        self.waiting.push_back((number, carried));
    }

    /// Frames that were sent on by ones of ours which are not open, whatever is before those. It is for a shard's way to
    /// itself: a frame on it may have been sent on, come back from a node that is gone, and wait for one behind it.
    pub(super) fn sent_on_done(&mut self, is_open: impl Fn(u64) -> bool) -> Vec<FrameRef> {
        if self.sent_on == 0 {
            return Vec::new();
        }
        let mut frames = Vec::new();
        self.waiting.retain(|(number, carried)| match carried {
            Carried::Frame(at) if !is_open(*number) => {
                frames.push(*at);
                false
            }
            _ => true,
        });
        self.sent_on -= frames.len();
        frames
    }

    /// The other side handled all frames up to `handled`: gives what is done by that, one at a time.
    pub(super) fn done(&mut self, handled: u64) -> Option<Carried> {
        self.handled = self.handled.max(handled);
        if let Some(kept) = &mut self.kept {
            while let Some((_, frame)) = kept.frames.pop_front_if(|(number, _)| *number <= handled)
            {
                kept.bytes -= frame.len();
            }
        }
        let (_, carried) = self.waiting.pop_front_if(|(number, _)| *number <= handled)?;
        self.sent_on -= usize::from(carried.is_frame());
        Some(carried)
    }

    /// The other side handled this frame, though not all before it. It is not sent again. Gives what is done by that.
    pub(super) fn done_apart(&mut self, number: u64) -> SmallVec<[Carried; 1]> {
        if let Some(kept) = &mut self.kept
            && let Ok(place) = kept.frames.binary_search_by_key(&number, |(of, _)| *of)
            && let Some((_, frame)) = kept.frames.remove(place)
        {
            kept.bytes -= frame.len();
        }
        let first = self.waiting.partition_point(|(of, _)| *of < number);
        let mut done: SmallVec<[Carried; 1]> = SmallVec::new();
        while self.waiting.get(first).is_some_and(|(of, _)| *of == number) {
            done.extend(self.waiting.remove(first).map(|(_, carried)| carried));
        }
        self.sent_on -= done.iter().filter(|carried| carried.is_frame()).count();
        done
    }

    /// Takes back the numbers after `last`: their frames were cut back before they left.
    pub(super) fn cut_back(&mut self, last: u64) {
        self.last = last;
        while let Some((_, carried)) = self.waiting.pop_back_if(|(number, _)| *number > last) {
            self.sent_on -= usize::from(carried.is_frame());
        }
        if let Some(kept) = &mut self.kept {
            while let Some((_, frame)) = kept.frames.pop_back_if(|(number, _)| *number > last) {
                kept.bytes -= frame.len();
            }
        }
    }

    /// The other side received all frames up to this one.
    pub(super) fn arrived(&mut self, received: u64) {
        self.arrived = self.arrived.max(received);
    }

    /// `what` waits until the frame with this number has arrived.
    pub(super) fn await_arrival(&mut self, number: u64, what: Arrival) {
        self.arrivals.push_back((number, what));
    }

    /// What waited for a frame that has arrived, one at a time.
    pub(super) fn next_arrival(&mut self) -> Option<Arrival> {
        self.arrivals.pop_front_if(|(number, _)| *number <= self.arrived).map(|(_, what)| what)
    }

    /// What waits for a frame that was cut back, or is on no way any more; one at a time, newest first.
    pub(super) fn lost_arrival(&mut self) -> Option<Arrival> {
        let is_over = self.kept.is_none();
        self.arrivals
            .pop_back_if(|(number, _)| is_over || *number > self.last)
            .map(|(_, what)| what)
    }

    /// Whether the other side received this frame, as far as is known of one on another node.
    pub(super) fn has_arrived(&self, number: u64) -> bool {
        !self.keeps() || number <= self.arrived
    }

    /// The other side is gone: gives what it did not handle.
    pub(super) fn give_up(&mut self) -> Unhandled {
        let frames = self.kept.take().map(|kept| kept.frames).unwrap_or_default();
        self.sent_on = 0;
        Unhandled { frames, waiting: std::mem::take(&mut self.waiting) }
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// The other side handled all frames up to this one.
    pub(super) fn handled(&self) -> u64 {
        self.handled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::ring::Inward;

    #[test]
    fn a_frame_that_came_back_behind_itself_is_done_when_that_is() {
        let (mut outward, mut inward) = (Outward::default(), Inward::default());
        let first = FrameRef { ring: 0, number: outward.number() };
        let again = outward.number();
        inward.received(again);
        inward.hold(first.number);
        inward.hold(again);
        outward.expect(again, Carried::Frame(first));
        assert_eq!(outward.sent_on_done(|number| inward.is_open(number)), []);
        inward.release(again);
        assert_eq!(outward.done(inward.handled()), None);
        assert_eq!(outward.sent_on_done(|number| inward.is_open(number)), [first]);
        assert_eq!(outward.done(again), None);
    }

    #[test]
    fn a_frame_that_is_done_apart_is_not_sent_again_and_completes_what_it_carried() {
        let at = |number| Carried::Frame(FrameRef { ring: 3, number });
        let mut outward = Outward::to_node(0);
        for frame in [b"one", b"two"] {
            let number = outward.number();
            outward.keep(frame);
            outward.expect(number, at(10 * number));
            outward.expect(number, at(10 * number + 1));
        }
        assert_eq!(outward.done_apart(2)[..], [at(20), at(21)]);
        assert!(outward.kept().eq([b"one"]) && outward.kept_bytes() == 3);
        assert!(outward.done_apart(2).is_empty() && outward.done_apart(7).is_empty());
        assert_eq!(outward.done(2), Some(at(10)));
        assert_eq!(outward.done(2), Some(at(11)));
        assert_eq!(outward.done(2), None);
        assert_eq!((outward.sent_on, outward.kept_bytes()), (0, 0));
    }

    #[test]
    fn handled_frames_complete_the_stanzas_they_carried() {
        let session = SessionId(crate::base::ids::Id::from_u64(7));
        let mut outward = Outward::default();
        let first = outward.number();
        outward.expect(first, Carried::Stanza(session, 1));
        outward.number();
        let third = outward.number();
        outward.expect(third, Carried::Stanza(session, 2));
        assert_eq!(outward.done(2), Some(Carried::Stanza(session, 1)));
        assert_eq!(outward.done(2), None);
        assert_eq!(outward.done(3), Some(Carried::Stanza(session, 2)));
    }
}
