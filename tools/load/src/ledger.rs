//! What was promised and what arrived, across kills and restarts of a server.
//!
//! The promises (DESIGN §8): a stanza that an `<a h=''/>` covered is not lost (R1); first arrivals of a pair are in the
//! order they were sent in (R6); nothing arrives twice but after a restart, when a confirmation may have been forgotten.

use std::collections::{HashMap, VecDeque};

/// A message: its place in the ledger.
pub type MessageId = usize;

struct Message {
    sender: u32,
    recipient: u32,
    acked: bool,
    bounced: bool,
    /// The life of the server in which it arrived last.
    received: Option<u32>,
}

/// Every message of a run. Each restart of the server begins a new *life*.
#[derive(Default)]
pub struct Ledger {
    messages: Vec<Message>,
    /// Sent in this life and not covered by an `<a/>` yet: per sender, (stanza number, message).
    open: HashMap<u32, VecDeque<(u32, MessageId)>>,
    /// Latest message of a pair to arrive first.
    latest: HashMap<(u32, u32), MessageId>,
    life: u32,
    counts: Counts,
    outstanding: usize,
}

/// The figures of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub sent: u64,
    /// Covered by an `<a h=''/>` that the sender saw.
    pub acked: u64,
    /// Distinct messages that arrived.
    pub received: u64,
    /// Arrived without having been acknowledged: allowed.
    pub received_unacked: u64,
    /// Came back to the sender as an error: allowed, and no loss.
    pub bounced: u64,
    /// Arrived again after a restart: allowed.
    pub duplicates_after_restart: u64,
    /// Arrived again in the same life of the server: a fault.
    pub duplicates: u64,
    /// Arrived first after a later one of its pair: a fault.
    pub misordered: u64,
    /// Arrived at another account than the addressed one, or was never sent: a fault.
    pub strays: u64,
    /// Acknowledged, never arrived, not bounced: a fault.
    pub lost: u64,
}

impl Counts {
    /// Whether all promises held.
    pub fn is_good(&self) -> bool {
        self.lost + self.misordered + self.duplicates + self.strays == 0
    }
}

impl Ledger {
    /// The server was started again: what is unacknowledged stays so.
    pub fn begin_life(&mut self) {
        self.life += 1;
        self.open.clear();
    }

    /// Number of the server's present life.
    pub fn life(&self) -> u32 {
        self.life
    }

    /// A message is about to be sent; its id is what must arrive.
    pub fn send(&mut self, sender: u32, recipient: u32) -> MessageId {
        self.counts.sent += 1;
        self.messages.push(Message {
            sender,
            recipient,
            acked: false,
            bounced: false,
            received: None,
        });
        self.messages.len() - 1
    }

    /// The message was stanza `number` of its sender's stream (XEP-0198 §4).
    pub fn numbered(&mut self, message: MessageId, number: u32) {
        let sender = self.messages[message].sender;
        self.open.entry(sender).or_default().push_back((number, message));
    }

    /// The sender saw `<a h='handled'/>`.
    pub fn acked(&mut self, sender: u32, handled: u32) {
        let Some(open) = self.open.get_mut(&sender) else {
            return;
        };
        while let Some((number, message)) = open.front().copied() {
            // Wrapping comparison: h counts modulo 2^32.
            if handled.wrapping_sub(number) >= 1 << 31 {
                break;
            }
            open.pop_front();
            let message = &mut self.messages[message];
            message.acked = true;
            self.counts.acked += 1;
            if message.received.is_none() && !message.bounced {
                self.outstanding += 1;
            }
        }
    }

    /// Messages of a sender that no `<a/>` has covered yet.
    pub fn unacked(&self, sender: u32) -> usize {
        self.open.get(&sender).map_or(0, VecDeque::len)
    }

    /// A message arrived at `recipient`.
    pub fn received(&mut self, id: MessageId, recipient: u32) {
        let Some(message) = self.messages.get_mut(id).filter(|m| m.recipient == recipient) else {
            self.counts.strays += 1;
            return;
        };
        match message.received.replace(self.life) {
            Some(life) if life == self.life => self.counts.duplicates += 1,
            Some(_) => self.counts.duplicates_after_restart += 1,
            None => {
                self.counts.received += 1;
                if message.acked && !message.bounced {
                    self.outstanding -= 1;
                }
                let latest = self.latest.entry((message.sender, recipient)).or_insert(id);
                self.counts.misordered += u64::from(*latest > id);
                *latest = id.max(*latest);
            }
        }
    }

    /// A message came back to `sender` as an error.
    pub fn bounced(&mut self, id: MessageId, sender: u32) {
        let Some(message) = self.messages.get_mut(id).filter(|m| m.sender == sender) else {
            self.counts.strays += 1;
            return;
        };
        if !std::mem::replace(&mut message.bounced, true) {
            self.counts.bounced += 1;
            if message.acked && message.received.is_none() {
                self.outstanding -= 1;
            }
        }
    }

    /// Acknowledged messages that have not arrived yet.
    pub fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// The figures, if nothing more arrives.
    pub fn counts(&self) -> Counts {
        let early = |m: &&Message| m.received.is_some() && !m.acked;
        Counts {
            lost: self.outstanding as u64,
            received_unacked: self.messages.iter().filter(early).count() as u64,
            ..self.counts
        }
    }

    /// The first `max` lost messages: (id, sender, recipient).
    pub fn lost(&self, max: usize) -> Vec<(MessageId, u32, u32)> {
        let lost = |(_, m): &(usize, &Message)| m.acked && m.received.is_none() && !m.bounced;
        let shown = self.messages.iter().enumerate().filter(lost).take(max);
        shown.map(|(id, m)| (id, m.sender, m.recipient)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(ledger: &mut Ledger, count: u32) -> Vec<MessageId> {
        (1..=count)
            .map(|number| {
                let id = ledger.send(1, 2);
                ledger.numbered(id, number);
                id
            })
            .collect()
    }

    #[test]
    fn acknowledged_messages_that_never_arrive_are_lost_and_others_are_not() {
        let mut ledger = Ledger::default();
        let ids = sent(&mut ledger, 4);
        ledger.acked(1, 3);
        assert_eq!((ledger.unacked(1), ledger.outstanding()), (1, 3));
        ledger.received(ids[0], 2);
        ledger.bounced(ids[1], 1);
        ledger.begin_life();
        let counts = ledger.counts();
        assert_eq!((counts.acked, counts.received, counts.bounced, counts.lost), (3, 1, 1, 1));
        assert_eq!(ledger.lost(9), [(ids[2], 1, 2)]);
        assert!(!counts.is_good());
        ledger.received(ids[2], 2);
        assert!(ledger.counts().is_good());
        // An acknowledgement after the arrival makes nothing outstanding.
        let more = sent(&mut ledger, 1);
        ledger.received(more[0], 2);
        ledger.acked(1, 1);
        assert_eq!(ledger.outstanding(), 0);
    }

    #[test]
    fn duplicates_are_a_fault_only_within_one_life() {
        let mut ledger = Ledger::default();
        let ids = sent(&mut ledger, 1);
        ledger.received(ids[0], 2);
        ledger.begin_life();
        ledger.received(ids[0], 2);
        assert!(ledger.counts().is_good());
        ledger.received(ids[0], 2);
        let counts = ledger.counts();
        assert_eq!((counts.duplicates_after_restart, counts.duplicates), (1, 1));
        assert!(!counts.is_good());
    }

    #[test]
    fn order_counts_first_arrivals_only() {
        let mut ledger = Ledger::default();
        let ids = sent(&mut ledger, 3);
        ledger.received(ids[0], 2);
        ledger.received(ids[2], 2);
        ledger.begin_life();
        ledger.received(ids[0], 2);
        assert_eq!(ledger.counts().misordered, 0);
        ledger.received(ids[1], 2);
        assert_eq!(ledger.counts().misordered, 1);
    }

    #[test]
    fn messages_at_the_wrong_account_are_strays() {
        let mut ledger = Ledger::default();
        let ids = sent(&mut ledger, 1);
        ledger.received(ids[0], 3);
        ledger.received(99, 2);
        assert_eq!(ledger.counts().strays, 2);
    }
}
