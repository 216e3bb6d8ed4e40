//! What waits for one remote domain from one of ours, in order: first what went out and is not confirmed, then what has
//! not gone out.
//!
//! Order is that of arrival for all stanzas of a pair of domains, which gives it to each pair of addresses. What is
//! unconfirmed when a stream is lost stays at the front, and goes out first on the next one. There it may come a second
//! time, as nobody knows whether the peer had it: so it goes out again once, and an IQ that asks for something not at all
//! (it is answered instead, as running a request twice may do harm where reading a message twice does not).

use crate::base::instant::{Instant, Wall};
use crate::frame::Kind;
use crate::xmpp::stanza::{IqType, MessageType, PresenceType};
use std::collections::VecDeque;
use std::time::Duration;

/// Beside its bytes, what a stanza in a queue costs, roughly.
const ITEM_BYTES: usize = 160;

/// How often a message goes out that is not confirmed: once, and once more.
const TIMES_MAX: u8 = 2;

/// A frame of a shard: whose *handled* number waits for a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameRef {
    pub ring: u16,
    pub number: u64,
}

/// How far a stanza is kept in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// It is of no lasting content.
    Never,
    /// It may have to be.
    NotYet,
    /// The row of this id is being written.
    Writing(u64),
    Durable(u64),
}

impl Row {
    pub(super) fn is_never(self) -> bool {
        self == Row::Never
    }

    pub(super) fn id(self) -> Option<u64> {
        match self {
            Row::Writing(id) | Row::Durable(id) => Some(id),
            Row::Never | Row::NotYet => None,
        }
    }
}

/// One stanza for the remote domain.
#[derive(Debug)]
pub(super) struct Item {
    /// Counts the stanzas of its queue.
    pub number: u64,
    pub kind: Kind,
    pub subtype: u8,
    /// The whole stanza with its addresses, self-contained but for the content namespace.
    pub bytes: Box<[u8]>,
    pub open_end: u32,
    pub close_start: u32,
    /// When it came here, and when its sender sent it.
    pub at: Instant,
    pub ingress: Wall,
    /// Held until this is handled.
    pub frame: Option<FrameRef>,
    pub row: Row,
    /// How often it went out without being confirmed.
    pub times: u8,
}

impl Item {
    /// It asks for something: whoever sent it waits for one answer.
    pub(super) fn is_request(&self) -> bool {
        self.kind == Kind::Iq
            && matches!(IqType::from_code(self.subtype), Some(IqType::Get | IqType::Set))
    }

    /// Errors, and results of IQs, are never answered.
    pub(super) fn is_answer(&self) -> bool {
        match self.kind {
            Kind::Message => self.subtype == MessageType::Error.code(),
            Kind::Presence => self.subtype == PresenceType::Error.code(),
            Kind::Iq => !self.is_request(),
            Kind::Control => true,
        }
    }

    fn cost(&self) -> usize {
        self.bytes.len() + ITEM_BYTES
    }
}

/// The queue of a pair of domains. On one core, bounded by `Limits::queue_stanzas` and `queue_bytes`.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: VecDeque<Item>,
    /// So many at the front went out on the stream of now.
    out: usize,
    bytes: usize,
    last: u64,
    last_old: u64,
    /// Stanzas up to this number need not be looked at for the store.
    passed: u64,
}

/// Stanzas of this run have numbers above it, those of earlier runs numbers below.
const FIRST: u64 = 1 << 40;

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sent on the stream of now, and not confirmed.
    pub(super) fn unconfirmed(&self) -> usize {
        self.out
    }

    /// Whether rows of some are being written.
    pub(super) fn is_writing(&self) -> bool {
        self.items.iter().any(|item| matches!(item.row, Row::Writing(_)))
    }

    /// Whether it matters that the peer gets what is out: somebody would wait for it, or miss it.
    pub(super) fn matters(&self) -> bool {
        self.items.iter().take(self.out).any(|item| !item.is_answer())
    }

    /// Adds a stanza at the end and numbers it.
    pub(super) fn push(&mut self, mut item: Item) {
        self.last = self.last.max(FIRST) + 1;
        item.number = self.last;
        self.bytes += item.cost();
        self.items.push_back(item);
    }

    /// The next stanza to go out, which counts as gone.
    pub(super) fn send(&mut self) -> Option<&Item> {
        let item = self.items.get_mut(self.out)?;
        self.out += 1;
        item.times = item.times.saturating_add(1);
        Some(item)
    }

    pub(super) fn next_unsent(&self) -> Option<&Item> {
        self.items.get(self.out)
    }

    /// Whether the next to go out is of an earlier run.
    pub(super) fn next_is_old(&self) -> bool {
        self.next_unsent().is_some_and(|item| item.number < FIRST)
    }

    /// Those of earlier runs.
    pub(super) fn old(&self) -> usize {
        self.items.partition_point(|item| item.number < FIRST)
    }

    /// Takes the next to go out away.
    pub(super) fn take_unsent(&mut self) -> Option<Item> {
        let item = self.items.remove(self.out)?;
        self.bytes -= item.cost();
        Some(item)
    }

    /// Takes one away that has not gone out.
    pub(super) fn take(&mut self, number: u64) -> Option<Item> {
        let place = self.items.binary_search_by_key(&number, |item| item.number).ok()?;
        if place < self.out {
            return None;
        }
        let item = self.items.remove(place)?;
        self.bytes -= item.cost();
        Some(item)
    }

    /// Adds a stanza of an earlier run: behind those of earlier runs, before all of this one.
    pub(super) fn push_old(&mut self, mut item: Item) {
        self.last_old += 1;
        item.number = self.last_old;
        self.bytes += item.cost();
        self.items.insert(self.old(), item);
    }

    /// The peer has the oldest that went out.
    pub(super) fn confirm(&mut self) -> Option<Item> {
        if self.out == 0 {
            return None;
        }
        self.out -= 1;
        self.pop()
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        self.bytes -= item.cost();
        if self.items.is_empty() && self.items.capacity() > 64 {
            self.items = VecDeque::new();
        }
        Some(item)
    }

    /// The stream is lost, and nobody knows what of that which went out the peer has.
    ///
    /// - gives: what is not sent again, in order: to be answered
    pub(super) fn lost(&mut self) -> Vec<Item> {
        let out = std::mem::take(&mut self.out);
        self.take_if(out, |item| item.is_request() || item.times >= TIMES_MAX)
    }

    /// The stream is taken up again: what went out, and the peer did not confirm, it never had.
    pub(super) fn rewind(&mut self) {
        for item in self.items.iter_mut().take(std::mem::take(&mut self.out)) {
            item.times = item.times.saturating_sub(1);
        }
    }

    /// Takes out what has not gone out and waits no longer.
    pub(super) fn expire(&mut self, is_due: impl Fn(&Item) -> bool) -> Vec<Item> {
        let out = std::mem::take(&mut self.out);
        let mut behind = self.items.split_off(out);
        std::mem::swap(&mut self.items, &mut behind);
        let due = self.take_if(usize::MAX, is_due);
        behind.append(&mut self.items);
        (self.items, self.out) = (behind, out);
        due
    }

    /// Takes all.
    pub(super) fn take_all(&mut self) -> Vec<Item> {
        self.out = 0;
        self.bytes = 0;
        std::mem::take(&mut self.items).into()
    }

    fn take_if(&mut self, first: usize, wanted: impl Fn(&Item) -> bool) -> Vec<Item> {
        let mut taken = Vec::new();
        let looked_at = first.min(self.items.len());
        let tail = self.items.split_off(looked_at);
        for item in std::mem::replace(&mut self.items, VecDeque::with_capacity(looked_at)) {
            if wanted(&item) {
                self.bytes -= item.cost();
                taken.push(item);
            } else {
                self.items.push_back(item);
            }
        }
        self.items.extend(tail);
        taken
    }

    /// The row of this item was written: gives the item. Items come in the order of their numbers.
    pub(super) fn by_number(&mut self, number: u64) -> Option<&mut Item> {
        let place = self.items.binary_search_by_key(&number, |item| item.number).ok()?;
        self.items.get_mut(place)
    }

    /// The oldest that is to be in the store and is not.
    ///
    /// - cost: each stanza is passed once
    pub(super) fn oldest_unstored(&mut self) -> Option<&mut Item> {
        let mut place = self.items.partition_point(|item| item.number <= self.passed);
        while let Some(item) = self.items.get(place).filter(|item| item.row != Row::NotYet) {
            self.passed = item.number;
            place += 1;
        }
        self.items.get_mut(place)
    }

    /// When the first of those that have not gone out has waited for as long as `wait` says of it.
    pub(super) fn expires(&self, wait: impl Fn(&Item) -> Duration) -> Option<Instant> {
        self.items.iter().skip(self.out).map(|item| item.at + wait(item)).min()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn item(kind: Kind, subtype: u8, row: Row) -> Item {
        Item {
            number: 0,
            kind,
            subtype,
            bytes: vec![0; 100].into(),
            open_end: 0,
            close_start: 0,
            at: Instant(0),
            ingress: Wall(0),
            frame: None,
            row,
            times: 0,
        }
    }

    fn message() -> Item {
        item(Kind::Message, 1, Row::NotYet)
    }

    fn request() -> Item {
        item(Kind::Iq, IqType::Get.code(), Row::Never)
    }

    fn numbers(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.send().map(|item| item.number - FIRST)).collect()
    }

    #[test]
    fn what_was_lost_goes_first_and_once_more_but_for_requests() {
        let mut queue = Queue::default();
        for item in [message(), request(), message(), message()] {
            queue.push(item);
        }
        (0..3).for_each(|_| assert!(queue.send().is_some()));
        assert_eq!(queue.confirm().unwrap().number - FIRST, 1);
        let answered: Vec<_> = queue.lost().into_iter().map(|item| item.number - FIRST).collect();
        assert_eq!(answered, [2], "the request");
        queue.push(message());
        assert_eq!(numbers(&mut queue), [3, 4, 5]);
        let answered: Vec<_> = queue.lost().into_iter().map(|item| item.number - FIRST).collect();
        assert_eq!(answered, [3], "it went out twice");
        assert_eq!(numbers(&mut queue), [4, 5]);
        assert_eq!(queue.len(), 2);
        (0..2).for_each(|_| assert!(queue.confirm().is_some()));
        assert!(queue.confirm().is_none());
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_stream_that_goes_on_has_sent_nothing_twice() {
        let mut queue = Queue::default();
        for _ in 0..3 {
            queue.push(request());
        }
        for _ in 0..5 {
            assert_eq!(numbers(&mut queue), [1, 2, 3]);
            queue.rewind();
        }
        assert_eq!(numbers(&mut queue), [1, 2, 3]);
        assert_eq!(queue.lost().len(), 3);
    }

    #[test]
    fn what_has_gone_out_does_not_expire() {
        let mut queue = Queue::default();
        for _ in 0..4 {
            queue.push(message());
        }
        queue.send();
        let due: Vec<_> = queue.expire(|item| item.number != FIRST + 3).into_iter().collect();
        assert_eq!(due.iter().map(|item| item.number - FIRST).collect::<Vec<_>>(), [2, 4]);
        assert_eq!((queue.unconfirmed(), numbers(&mut queue)), (1, vec![3]));
        assert_eq!(queue.take_all().len(), 2);
        assert_eq!((queue.len(), queue.bytes()), (0, 0));
    }

    #[test]
    fn earlier_runs_go_first_in_their_order() {
        let mut queue = Queue::default();
        queue.push(message());
        queue.push_old(item(Kind::Message, 1, Row::Durable(7)));
        queue.push_old(item(Kind::Message, 1, Row::Durable(8)));
        assert_eq!(queue.old(), 2);
        assert!(queue.next_is_old());
        let rows: Vec<_> = std::iter::from_fn(|| queue.send().map(|item| item.row.id())).collect();
        assert_eq!(rows, [Some(7), Some(8), None]);
    }

    #[test]
    fn each_message_is_looked_at_once_for_the_store() {
        let mut queue = Queue::default();
        for item in [request(), message(), request(), message()] {
            queue.push(item);
        }
        for expected in [2, 4] {
            let item = queue.oldest_unstored().unwrap();
            assert_eq!(item.number - FIRST, expected);
            item.row = Row::Writing(expected);
        }
        assert!(queue.oldest_unstored().is_none());
        assert!(queue.take(FIRST + 4).is_some());
        assert!(queue.by_number(FIRST + 4).is_none());
    }
}
