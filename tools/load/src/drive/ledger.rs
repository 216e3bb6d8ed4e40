//! What was promised and what arrived: every message of a worker's conversations.
//!
//! A conversation is one sender's messages to one recipient, numbered from 0. Three promises are told apart: written to
//! a socket (which a cut connection may lose by right), covered by an `<a h=''/>` (XEP-0198: not to be lost), and shown
//! by the recipient's archive.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use crate::record::{LedgerCounts, LedgerReport};

const ACKED: u8 = 1;
const RECEIVED: u8 = 1 << 1;
const BOUNCED: u8 = 1 << 2;
const REORDERED: u8 = 1 << 3;
const CORRUPTED: u8 = 1 << 4;
/// No acknowledgement can come any more: the stream it was sent on is gone.
const ORPHANED: u8 = 1 << 5;
/// The recipient's archive shows it.
const ARCHIVED: u8 = 1 << 6;

/// Overtaken and repeated messages that are told.
const ODDITIES_MAX: usize = 20;

/// Where a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageId {
    pub(super) conversation: u32,
    pub(super) number: u64,
}

struct Entry {
    /// From the start of the run.
    intended: Duration,
    sent: Duration,
    state: u8,
    /// Again on the same stream, again after a lost connection.
    again: (u16, u16),
    /// Of the recipient, when it arrived last.
    life: u32,
    /// When that was, from the start of the run.
    arrived: Duration,
}

#[derive(Default)]
struct Conversation {
    /// Number of the first entry that is kept.
    base: u64,
    entries: VecDeque<Entry>,
    /// One more than the highest number that arrived.
    high: u64,
    /// Of the recipient; each of its streams is a life.
    life: u32,
    /// When it began, from the start of the run.
    born: Duration,
    /// Numbers below have arrived in an earlier life.
    before: u64,
    /// One more than the highest number that the archive has shown.
    archived: u64,
}

/// What an arrival was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    First {
        intended: Duration,
        sent: Duration,
    },
    /// Known already.
    Again,
    /// Never sent, or not to this conversation.
    Stray,
}

/// Of one worker.
pub(super) struct Ledger {
    conversations: Vec<Conversation>,
    /// Per session: (stanza number, message) that no `<a/>` has covered yet.
    unacked: Vec<VecDeque<(u32, MessageId)>>,
    /// Whether settled entries may go. Without, late repeats are told apart exactly.
    forgets: bool,
    sent: LedgerCounts,
    acked: LedgerCounts,
    strays: u64,
    /// The first that were overtaken or came twice on one stream, for people.
    oddities: Vec<String>,
    /// Neither arrived nor come back, and still possible.
    open: u64,
    /// Acknowledged, and neither arrived nor come back.
    owed: u64,
}

impl Ledger {
    pub(super) fn new(conversations: usize, sessions: usize, forgets: bool) -> Self {
        let mut ledger = Self {
            conversations: Vec::new(),
            unacked: Vec::new(),
            forgets,
            sent: LedgerCounts::default(),
            acked: LedgerCounts::default(),
            strays: 0,
            oddities: Vec::new(),
            open: 0,
            owed: 0,
        };
        ledger.conversations.resize_with(conversations, Conversation::default);
        ledger.unacked.resize_with(sessions, VecDeque::new);
        ledger
    }

    /// Number that the next message of a conversation gets.
    pub(super) fn next_number(&self, conversation: u32) -> u64 {
        let conversation = &self.conversations[conversation as usize];
        conversation.base + conversation.entries.len() as u64
    }

    /// The next message of a conversation is written. With `stanza`, the stream counts it under that number (XEP-0198).
    pub(super) fn sent(
        &mut self,
        conversation: u32,
        intended: Duration,
        sent: Duration,
        session: usize,
        stanza: Option<u32>,
    ) {
        let number = self.next_number(conversation);
        let state = if stanza.is_some() { 0 } else { ORPHANED };
        self.conversations[conversation as usize].entries.push_back(Entry {
            intended,
            sent,
            state,
            again: (0, 0),
            life: 0,
            arrived: Duration::ZERO,
        });
        if let Some(stanza) = stanza {
            self.unacked[session].push_back((stanza, MessageId { conversation, number }));
        }
        self.open += 1;
    }

    /// A session's stream has shown `<a h='handled'/>`.
    pub(super) fn acked(&mut self, session: usize, handled: u32) {
        while let Some((stanza, message)) = self.unacked[session].front().copied() {
            // Wrapping comparison: h counts modulo 2^32.
            if handled.wrapping_sub(stanza) >= 1 << 31 {
                break;
            }
            self.unacked[session].pop_front();
            self.mark(message, ACKED);
        }
    }

    /// Messages of a session that wait for an `<a/>`.
    pub(super) fn unacked(&self, session: usize) -> usize {
        self.unacked[session].len()
    }

    /// A session's stream is gone for good: what it had not acknowledged was never promised.
    pub(super) fn orphaned(&mut self, session: usize) {
        for (_, message) in std::mem::take(&mut self.unacked[session]) {
            self.mark(message, ORPHANED);
        }
    }

    /// The recipient of a conversation has a new stream, or one that a server resumed which may not know all that another
    /// had delivered.
    pub(super) fn new_life(&mut self, conversation: u32, now: Duration) {
        let conversation = &mut self.conversations[conversation as usize];
        conversation.life += 1;
        conversation.born = now;
        conversation.before = conversation.high;
    }

    /// A message arrived at its recipient.
    pub(super) fn received(&mut self, message: MessageId, intact: bool, now: Duration) -> Arrival {
        let Some(conversation) = self.conversations.get_mut(message.conversation as usize) else {
            self.strays += 1;
            return Arrival::Stray;
        };
        if message.number < conversation.base {
            // Its entry is gone, as it had arrived.
            let counts = &mut self.sent;
            if message.number < conversation.before {
                counts.redelivered += 1;
            } else {
                counts.duplicated += 1;
            }
            return Arrival::Again;
        }
        let (life, born) = (conversation.life, conversation.born);
        let Some(entry) =
            conversation.entries.get_mut((message.number - conversation.base) as usize)
        else {
            self.strays += 1;
            return Arrival::Stray;
        };
        if entry.state & RECEIVED != 0 {
            if entry.life == life && self.oddities.len() < ODDITIES_MAX {
                self.oddities.push(format!(
                    "{:x}.{:x} of {:.2} s came at {:.2} and at {:.2} s on one stream of {:.2} s",
                    message.conversation,
                    message.number,
                    entry.sent.as_secs_f64(),
                    entry.arrived.as_secs_f64(),
                    now.as_secs_f64(),
                    born.as_secs_f64()
                ));
            }
            let again = if entry.life == life { &mut entry.again.0 } else { &mut entry.again.1 };
            *again = again.saturating_add(1);
            (entry.life, entry.arrived) = (life, now);
            return Arrival::Again;
        }
        let sent = entry.sent;
        let arrival = Arrival::First { intended: entry.intended, sent };
        (entry.life, entry.arrived) = (life, now);
        let mut state = RECEIVED;
        if message.number < conversation.high {
            state |= REORDERED;
            let over =
                conversation.entries.get((conversation.high - 1 - conversation.base) as usize);
            if self.oddities.len() < ODDITIES_MAX {
                self.oddities.push(format!(
                    "{:x}.{:x} of {:.2} s came at {:.2} s after {:x} of {:.2} s",
                    message.conversation,
                    message.number,
                    sent.as_secs_f64(),
                    now.as_secs_f64(),
                    conversation.high - 1,
                    over.map_or(0.0, |over| over.sent.as_secs_f64())
                ));
            }
        }
        if !intact {
            state |= CORRUPTED;
        }
        conversation.high = conversation.high.max(message.number + 1);
        self.mark(message, state);
        arrival
    }

    /// A message came back to its sender as an error.
    pub(super) fn bounced(&mut self, message: MessageId) {
        self.mark(message, BOUNCED);
    }

    /// The recipient's archive shows a message; they come in the archive's order.
    pub(super) fn archived(&mut self, message: MessageId, intact: bool, counts: &mut LedgerCounts) {
        counts.corrupted += u64::from(!intact);
        let conversation = self.conversations.get_mut(message.conversation as usize);
        let found = conversation.and_then(|conversation| {
            let place = message.number.checked_sub(conversation.base)?;
            let entry = conversation.entries.get_mut(place as usize)?;
            Some((entry, &mut conversation.archived))
        });
        let Some((entry, high)) = found else {
            // What nobody sent is a message changed beyond recognition.
            counts.corrupted += u64::from(intact);
            return;
        };
        if entry.state & ARCHIVED != 0 {
            counts.duplicated += 1;
            return;
        }
        entry.state |= ARCHIVED;
        counts.messages += 1;
        counts.received += u64::from(entry.state & RECEIVED != 0);
        counts.bounced += u64::from(entry.state & BOUNCED != 0);
        counts.reordered += u64::from(message.number < *high);
        *high = (*high).max(message.number + 1);
    }

    /// Messages of a conversation that were acknowledged, did not come back, and are not in the archive.
    pub(super) fn not_archived(&self, conversation: u32) -> u64 {
        let is_missing =
            |entry: &&Entry| entry.state & ACKED != 0 && entry.state & (ARCHIVED | BOUNCED) == 0;
        let entries = &self.conversations[conversation as usize].entries;
        entries.iter().filter(is_missing).count() as u64
    }

    /// Messages that have neither arrived nor come back.
    pub(super) fn open(&self) -> u64 {
        self.open
    }

    /// The same of some conversations.
    pub(super) fn open_in(&self, conversations: Range<u32>) -> u64 {
        let range = conversations.start as usize..conversations.end as usize;
        let entries = self.conversations[range].iter().flat_map(|it| &it.entries);
        entries.filter(|entry| entry.state & (RECEIVED | BOUNCED) == 0).count() as u64
    }

    /// Messages that were acknowledged and have neither arrived nor come back.
    pub(super) fn owed(&self) -> u64 {
        self.owed
    }

    fn mark(&mut self, message: MessageId, bits: u8) {
        const DONE: u8 = RECEIVED | BOUNCED;
        let Some(conversation) = self.conversations.get_mut(message.conversation as usize) else {
            return;
        };
        let Some(place) = message.number.checked_sub(conversation.base) else {
            return;
        };
        let Some(entry) = conversation.entries.get_mut(place as usize) else {
            return;
        };
        let was = entry.state;
        entry.state |= bits;
        let is_owed = |state: u8| u64::from(state & ACKED != 0 && state & DONE == 0);
        self.owed = self.owed + is_owed(entry.state) - is_owed(was);
        if was & DONE == 0 && entry.state & DONE != 0 {
            self.open -= 1;
        }
        if !self.forgets {
            return;
        }
        let is_settled =
            |entry: &Entry| entry.state & DONE != 0 && entry.state & (ACKED | ORPHANED) != 0;
        while conversation.entries.front().is_some_and(is_settled) {
            conversation.base += 1;
            if let Some(entry) = conversation.entries.pop_front() {
                tally(&entry, &mut self.sent, &mut self.acked);
            }
        }
    }

    /// Messages that were acknowledged and have neither arrived nor come back: (conversation, number), the first `max`.
    pub(super) fn lost(&self, max: usize) -> Vec<MessageId> {
        let mut list = Vec::new();
        for (at, conversation) in self.conversations.iter().enumerate() {
            for (place, entry) in conversation.entries.iter().enumerate() {
                let is_lost = entry.state & ACKED != 0 && entry.state & (RECEIVED | BOUNCED) == 0;
                if is_lost && list.len() < max {
                    let number = conversation.base + place as u64;
                    list.push(MessageId { conversation: at as u32, number });
                }
            }
        }
        list
    }

    /// What was overtaken, or came twice on one stream; the first of it, in words.
    pub(super) fn oddities(&self) -> &[String] {
        &self.oddities
    }

    /// The figures, if nothing more arrives.
    pub(super) fn report(&self) -> LedgerReport {
        let (mut sent, mut acked) = (self.sent, self.acked);
        for entry in self.conversations.iter().flat_map(|conversation| &conversation.entries) {
            tally(entry, &mut sent, &mut acked);
        }
        // What nobody sent is a message changed beyond recognition.
        sent.corrupted += self.strays;
        LedgerReport { sent, acknowledged: acked, archived: None }
    }
}

fn tally(entry: &Entry, sent: &mut LedgerCounts, acked: &mut LedgerCounts) {
    let has = |bit| u64::from(entry.state & bit != 0);
    let add = |counts: &mut LedgerCounts| {
        counts.messages += 1;
        counts.received += has(RECEIVED);
        counts.bounced += has(BOUNCED);
        counts.lost += u64::from(entry.state & (RECEIVED | BOUNCED) == 0);
        counts.duplicated += u64::from(entry.again.0);
        counts.redelivered += u64::from(entry.again.1);
        counts.reordered += has(REORDERED);
        counts.corrupted += has(CORRUPTED);
    };
    add(sent);
    if entry.state & ACKED != 0 {
        add(acked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> MessageId {
        MessageId { conversation: 0, number }
    }

    fn sent(count: u32, forgets: bool) -> Ledger {
        let mut ledger = Ledger::new(1, 2, forgets);
        for stanza in 1..=count {
            ledger.sent(0, Duration::from_secs(1), Duration::from_secs(2), 0, Some(stanza));
        }
        ledger
    }

    #[test]
    fn acknowledged_messages_that_never_arrive_are_lost_apart_from_others() {
        let mut ledger = sent(4, false);
        ledger.acked(0, 3);
        assert_eq!((ledger.unacked(0), ledger.open()), (1, 4));
        let first =
            Arrival::First { intended: Duration::from_secs(1), sent: Duration::from_secs(2) };
        assert_eq!(ledger.received(id(0), true, Duration::ZERO), first);
        ledger.bounced(id(1));
        ledger.orphaned(0);
        let report = ledger.report();
        assert_eq!((report.sent.messages, report.sent.lost, report.sent.bounced), (4, 2, 1));
        assert_eq!((report.acknowledged.messages, report.acknowledged.lost), (3, 1));
        assert_eq!((ledger.lost(9), ledger.owed()), (vec![id(2)], 1));
        // An acknowledgement of a later stream says nothing about the old one's.
        ledger.acked(0, 9);
        assert_eq!(ledger.report().acknowledged.messages, 3);
    }

    #[test]
    fn repeats_are_a_fault_only_on_the_same_stream_of_the_recipient() {
        for forgets in [false, true] {
            let mut ledger = sent(2, forgets);
            ledger.acked(0, 2);
            ledger.received(id(0), true, Duration::ZERO);
            ledger.received(id(1), true, Duration::ZERO);
            ledger.new_life(0, Duration::ZERO);
            assert_eq!(ledger.received(id(1), true, Duration::ZERO), Arrival::Again);
            let counts = ledger.report().sent;
            assert_eq!((counts.duplicated, counts.redelivered), (0, 1), "forgets {forgets}");
        }
        let mut ledger = sent(1, true);
        ledger.acked(0, 1);
        ledger.received(id(0), true, Duration::ZERO);
        ledger.received(id(0), true, Duration::ZERO);
        assert_eq!(ledger.report().sent.duplicated, 1);
    }

    #[test]
    fn overtaken_messages_and_changed_ones_are_counted() {
        let mut ledger = sent(3, true);
        ledger.received(id(0), true, Duration::ZERO);
        ledger.received(id(2), false, Duration::ZERO);
        ledger.received(id(1), true, Duration::ZERO);
        assert_eq!(ledger.received(id(7), true, Duration::ZERO), Arrival::Stray);
        let counts = ledger.report().sent;
        assert_eq!((counts.reordered, counts.corrupted, counts.received), (1, 2, 3));
        assert_eq!(ledger.open(), 0);
    }

    #[test]
    fn settled_messages_take_no_memory() {
        let mut ledger = Ledger::new(1, 1, true);
        for number in 0..1000 {
            ledger.sent(0, Duration::ZERO, Duration::ZERO, 0, Some(number as u32 + 1));
            ledger.received(id(number), true, Duration::ZERO);
            ledger.acked(0, number as u32 + 1);
        }
        assert!(ledger.conversations[0].entries.is_empty());
        assert_eq!(ledger.report().acknowledged.received, 1000);
    }
}
