//! One-to-one messages: users talk within groups, each to so many partners.

use std::time::Instant;

use super::Notes;
use super::body::{self, Bodies};
use super::ledger::{Arrival, MessageId};
use super::session::Sessions;
use super::window::Windows;
use crate::Engine;
use crate::plan::Plan;
use crate::record::Operation;
use crate::scan::Element;
use crate::scenario::Address;

/// The messages of one population.
pub(super) struct Messages {
    bodies: Bodies,
    run: u32,
    address: Address,
    partners: u64,
    /// Only one in so many sends.
    stride: u64,
    /// The ledger's number of the first conversation.
    first: u32,
    /// The first session; conversation `c` is that of session `base + c / partners`.
    base: usize,
    sessions: usize,
    windows: Windows,
}

impl Messages {
    pub(super) fn new(
        plan: &Plan,
        population: usize,
        run: u32,
        first: u32,
        sessions: &Sessions,
    ) -> Option<Self> {
        let wish = plan.scenario.populations[population].message.as_ref()?;
        let mine = || sessions.iter().enumerate().filter(|(_, s)| s.population == population);
        Some(Self {
            bodies: Bodies::new(run, wish.body_bytes),
            run,
            address: wish.address,
            partners: wish.partners,
            stride: wish.stride(),
            first,
            base: mine().next().map_or(0, |(at, _)| at),
            sessions: mine().count(),
            windows: Windows::default(),
        })
    }

    /// How many conversations there are.
    pub(super) fn conversations(&self) -> u32 {
        (self.sessions as u64 * self.partners) as u32
    }

    fn conversation(&self, sender: usize, slot: u64) -> u32 {
        self.first + ((sender - self.base) as u64 * self.partners + slot) as u32
    }

    /// Sender and recipient of a conversation.
    fn ends(&self, conversation: u32) -> (usize, usize) {
        let place = u64::from(conversation - self.first);
        let (sender, slot) = (place / self.partners, place % self.partners);
        let group = self.partners + 1;
        // Groups are whole and lie side by side.
        let recipient = sender / group * group + (sender % group + 1 + slot) % group;
        (self.base + sender as usize, self.base + recipient as usize)
    }

    /// Recipients, in the order of conversations.
    pub(super) fn recipients(&self) -> impl Iterator<Item = usize> {
        (self.first..self.first + self.conversations())
            .map(|conversation| self.ends(conversation).1)
    }

    fn has(&self, conversation: u32) -> bool {
        (self.first..self.first + self.conversations()).contains(&conversation)
    }

    /// A message is due.
    pub(super) fn send(
        &mut self,
        sender: usize,
        dice: u64,
        intended: Instant,
        now: Instant,
        engine: &mut Engine,
        notes: &mut Notes,
    ) {
        if notes.sender(sender, Operation::Message).is_none() {
            return;
        }
        let conversation = self.conversation(sender, dice % self.partners);
        self.write(conversation, intended, now, engine, notes);
    }

    fn write(
        &self,
        conversation: u32,
        intended: Instant,
        now: Instant,
        engine: &mut Engine,
        notes: &mut Notes,
    ) {
        let (sender, recipient) = self.ends(conversation);
        let Some(client) = notes.sessions.client(sender) else {
            return;
        };
        let message = MessageId { conversation, number: notes.ledger.next_number(conversation) };
        let to = notes.sessions.address(recipient, self.address == Address::Full);
        let stanza = engine.send(client, 1, |out| {
            out.extend_from_slice(b"<message type='chat' to='");
            out.extend_from_slice(to);
            self.bodies.write_end(message, out);
        });
        let stanza = notes.sessions.is_managed(sender).then_some(stanza);
        let (planned, written) = (notes.since(intended), notes.since(now));
        notes.ledger.sent(conversation, planned, written, sender, stanza);
        notes.recorder.sent(Operation::Message, intended, now);
    }

    /// A message arrived.
    pub(super) fn take(
        &mut self,
        session: usize,
        stanza: &Element<'_>,
        at: Instant,
        notes: &mut Notes,
    ) {
        if stanza.attribute("type") == Some(b"error") {
            let id = stanza.attribute("id").and_then(|id| body::read_id(self.run, id));
            if let Some((message, _)) = id.filter(|(message, _)| self.has(message.conversation)) {
                notes.ledger.bounced(message);
                let condition = super::request::condition(stanza);
                notes.recorder.failed(Operation::Message, &condition);
                self.windows.credit((message.conversation - self.first) as usize);
            }
            return;
        }
        let Some((message, intact)) = body::of(self.run, stanza) else {
            return;
        };
        if !self.has(message.conversation) || self.ends(message.conversation).1 != session {
            // Not where it was sent to: counted as a message that nobody sent.
            let nowhere = MessageId { conversation: u32::MAX, number: 0 };
            notes.ledger.received(nowhere, false, notes.since(at));
            return;
        }
        let now = notes.since(at);
        if let Arrival::First { intended, sent } = notes.ledger.received(message, intact, now) {
            let begin = notes.begin;
            notes.moved = at;
            notes.recorder.done(Operation::Message, begin + intended, begin + sent, at);
            self.windows.credit((message.conversation - self.first) as usize);
        }
    }

    /// A session has a new stream.
    pub(super) fn ready(&mut self, session: usize, notes: &mut Notes) {
        self.may_repeat(session, notes);
        for slot in 0..self.partners {
            self.windows.retry((self.conversation(session, slot) - self.first) as usize);
        }
    }

    /// What had arrived at a session may arrive there again.
    pub(super) fn may_repeat(&self, session: usize, notes: &mut Notes) {
        let group = self.partners + 1;
        let place = (session - self.base) as u64;
        let now = notes.since(Instant::now());
        for slot in 0..self.partners {
            // The partner whose slot leads here.
            let sender = place / group * group + (place % group + group - 1 - slot) % group;
            notes.ledger.new_life(self.conversation(self.base + sender as usize, slot), now);
        }
    }

    /// A session's stream is gone: what it had under way may never arrive, so its window is open again.
    pub(super) fn closed(&mut self, session: usize) {
        let first = (session - self.base) * self.partners as usize;
        (first..first + self.partners as usize).for_each(|own| self.windows.reset(own));
    }

    /// Closed loop: sends what the window has room for.
    pub(super) fn refill(
        &mut self,
        window: u32,
        now: Instant,
        engine: &mut Engine,
        notes: &mut Notes,
    ) {
        let mut windows = std::mem::take(&mut self.windows);
        windows.open_all(window, self.conversations() as usize);
        let sender = |place: usize| self.ends(self.first + place as u32).0;
        let sends = |sender: usize| ((sender - self.base) as u64).is_multiple_of(self.stride);
        let is_there = |place| sends(sender(place)) && notes.sessions.is_up(sender(place));
        for (place, room) in windows.take(is_there) {
            for _ in 0..room {
                self.write(self.first + place as u32, now, now, engine, notes);
            }
        }
        self.windows = windows;
    }
}
