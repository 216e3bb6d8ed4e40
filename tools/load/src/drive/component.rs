//! Messages of an external component (XEP-0114) to users: one connection, which has its own address.
//!
//! Each recipient is a conversation of the ledger. Streams of components have no XEP-0198, so that nothing of it counts
//! as acknowledged.

use std::ops::Range;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Notes;
use super::body::{self, Bodies};
use super::ledger::{Arrival, MessageId};
use super::session::Sessions;
use super::window::Windows;
use crate::plan::{ComponentAt, Plan};
use crate::record::Operation;
use crate::scan::{Element, escape};
use crate::scenario::Address;
use crate::{ClientConfig, ClientId, Engine, Error};

/// From the loss of the connection to the next attempt.
const RETRY: Duration = Duration::from_secs(1);

/// What a population is sent.
struct Part {
    bodies: Bodies,
    to: Address,
    /// The ledger's number of the first conversation, and the first session; both go on together.
    first: u32,
    base: usize,
    sessions: usize,
    windows: Windows,
}

impl Part {
    fn conversations(&self) -> Range<u32> {
        self.first..self.first + self.sessions as u32
    }

    fn credit(&mut self, conversation: u32) {
        self.windows.credit((conversation - self.first) as usize);
    }
}

/// The component of a share, with its connection.
pub(super) struct Component {
    client: ClientId,
    at: ComponentAt,
    /// As it stands in stanzas, escaped.
    address: Vec<u8>,
    run: u32,
    /// By population.
    parts: Vec<Option<Part>>,
    is_up: bool,
    /// Whether a handshake was ever complete.
    ever: bool,
    retry: Option<Instant>,
}

impl Component {
    /// - takes: the ledger's number of its first conversation
    /// - gives: nothing where no population of this share is sent anything
    /// - errors: an address that cannot name a stream
    pub(super) fn new(
        plan: &Plan,
        run: u32,
        mut first: u32,
        sessions: &Sessions,
        engine: &mut Engine,
    ) -> Result<Option<Self>, Error> {
        let Some(at) = plan.component() else {
            return Ok(None);
        };
        let mut part = |population: usize| {
            let wish = plan.scenario.populations[population].component.as_ref()?;
            let mine = || sessions.iter().enumerate().filter(|(_, s)| s.population == population);
            let part = Part {
                bodies: Bodies::new(run, wish.body_bytes),
                to: wish.to,
                first,
                base: mine().next()?.0,
                sessions: mine().count(),
                windows: Windows::default(),
            };
            first = part.conversations().end;
            Some(part)
        };
        let parts: Vec<_> = (0..plan.scenario.populations.len()).map(&mut part).collect();
        if parts.iter().all(Option::is_none) {
            return Ok(None);
        }
        let target = engine.add_component(at.connect, &at.address, &at.secret)?;
        let client = engine.add(ClientConfig {
            target,
            user: at.address.clone(),
            password: Rc::from(""),
            ..ClientConfig::default()
        })?;
        engine.start(client);
        let mut address = Vec::new();
        escape(&at.address, &mut address);
        let (is_up, ever, retry) = (false, false, None);
        Ok(Some(Self { client, at, address, run, parts, is_up, ever, retry }))
    }

    pub(super) fn is(&self, client: ClientId) -> bool {
        self.client == client
    }

    /// How many conversations there are.
    pub(super) fn conversations(&self) -> u32 {
        self.parts.iter().flatten().map(|part| part.sessions as u32).sum()
    }

    /// Recipients, in the order of conversations.
    pub(super) fn recipients(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().flatten().flat_map(|part| part.base..part.base + part.sessions)
    }

    /// Messages that have neither arrived nor come back.
    pub(super) fn open(&self, notes: &Notes) -> u64 {
        self.parts.iter().flatten().map(|part| notes.ledger.open_in(part.conversations())).sum()
    }

    /// A message to `recipient` is due.
    pub(super) fn send(
        &self,
        recipient: usize,
        intended: Instant,
        now: Instant,
        engine: &mut Engine,
        notes: &mut Notes,
    ) {
        let Some(part) = &self.parts[notes.sessions.population(recipient)] else {
            return;
        };
        let trouble = match (self.is_up, notes.sessions.is_up(recipient)) {
            (false, _) => Some("component offline"),
            // What is sent to nobody is not a message that a user waits for.
            (true, false) => Some("recipient offline"),
            (true, true) => None,
        };
        if let Some(trouble) = trouble {
            notes.recorder.dropped(Operation::ComponentMessage);
            notes.recorder.failed(Operation::ComponentMessage, trouble);
            return;
        }
        self.write(part, recipient, intended, now, engine, notes);
    }

    fn write(
        &self,
        part: &Part,
        recipient: usize,
        intended: Instant,
        now: Instant,
        engine: &mut Engine,
        notes: &mut Notes,
    ) {
        let conversation = part.first + (recipient - part.base) as u32;
        let message = MessageId { conversation, number: notes.ledger.next_number(conversation) };
        let to = notes.sessions.address(recipient, part.to == Address::Full);
        engine.send(self.client, 1, |out| {
            out.extend_from_slice(b"<message type='chat' from='");
            out.extend_from_slice(&self.address);
            out.extend_from_slice(b"' to='");
            out.extend_from_slice(to);
            part.bodies.write_end(message, out);
        });
        let (planned, written) = (notes.since(intended), notes.since(now));
        notes.ledger.sent(conversation, planned, written, recipient, None);
        notes.recorder.sent(Operation::ComponentMessage, intended, now);
    }

    /// Closed loop: sends what the windows have room for.
    pub(super) fn refill(
        &mut self,
        window: u32,
        now: Instant,
        engine: &mut Engine,
        notes: &mut Notes,
    ) {
        if !self.is_up {
            return;
        }
        for at in 0..self.parts.len() {
            let Some(part) = &mut self.parts[at] else { continue };
            part.windows.open_all(window, part.sessions);
            let base = part.base;
            let room = part.windows.take(|place| notes.sessions.is_up(base + place));
            let Some(part) = &self.parts[at] else { continue };
            for (place, room) in room {
                for _ in 0..room {
                    self.write(part, base + place, now, now, engine, notes);
                }
            }
        }
    }

    /// A message arrived at a user.
    ///
    /// - gives: whether it is from the component
    pub(super) fn take(
        &mut self,
        session: usize,
        stanza: &Element<'_>,
        at: Instant,
        notes: &mut Notes,
    ) -> bool {
        let Some(part) = &mut self.parts[notes.sessions.population(session)] else {
            return false;
        };
        if stanza.attribute("from") != Some(&self.address[..]) {
            return false;
        }
        let Some((message, intact)) = body::of(self.run, stanza) else {
            return true;
        };
        let is_here = part.conversations().contains(&message.conversation)
            && part.base + (message.conversation - part.first) as usize == session;
        let now = notes.since(at);
        if !is_here {
            // Not where it was sent to: counted as a message that nobody sent.
            let nowhere = MessageId { conversation: u32::MAX, number: 0 };
            notes.ledger.received(nowhere, false, now);
        } else if let Arrival::First { intended, sent } =
            notes.ledger.received(message, intact, now)
        {
            let begin = notes.begin;
            notes.moved = at;
            notes.recorder.done(Operation::ComponentMessage, begin + intended, begin + sent, at);
            part.credit(message.conversation);
        }
        true
    }

    /// Something arrived at the component: of interest are its own messages that come back.
    pub(super) fn take_own(&mut self, stanza: &Element<'_>, notes: &mut Notes) {
        let is_bounce = stanza.name() == b"message" && stanza.attribute("type") == Some(b"error");
        let id = stanza.attribute("id").and_then(|id| body::read_id(self.run, id));
        let Some((message, _)) = id.filter(|_| is_bounce) else { return };
        let mut parts = self.parts.iter_mut().flatten();
        let part = parts.find(|part| part.conversations().contains(&message.conversation));
        if let Some(part) = part {
            notes.ledger.bounced(message);
            let condition = super::request::condition(stanza);
            notes.recorder.failed(Operation::ComponentMessage, &condition);
            part.credit(message.conversation);
        }
    }

    /// A recipient has a new stream.
    pub(super) fn recipient_ready(&mut self, session: usize, notes: &mut Notes) {
        if let Some(part) = &mut self.parts[notes.sessions.population(session)] {
            let place = session - part.base;
            let now = notes.since(Instant::now());
            notes.ledger.new_life(part.first + place as u32, now);
            part.windows.retry(place);
        }
    }

    /// A recipient's stream is gone, and what was on its way there with it: its window is open again.
    pub(super) fn recipient_gone(&mut self, population: usize, session: usize) {
        if let Some(part) = &mut self.parts[population] {
            part.windows.reset(session - part.base);
        }
    }

    /// The handshake is complete.
    pub(super) fn ready(&mut self) {
        (self.is_up, self.ever) = (true, true);
    }

    /// The connection is gone, or was never there.
    ///
    /// - gives: why the target cannot be used at all, if this shows it
    pub(super) fn closed(&mut self, cause: &str, notes: &mut Notes) -> Option<String> {
        if !self.ever {
            return Some(format!(
                "component {} at {}: {cause}; the server has to know the component and its secret",
                self.at.address, self.at.connect
            ));
        }
        if std::mem::replace(&mut self.is_up, false) {
            notes.recorder.disconnected(&format!("component: {}", cause.to_lowercase()));
        }
        self.retry = Some(Instant::now() + RETRY);
        None
    }

    /// Connects again when the wait is over.
    pub(super) fn turn(&mut self, now: Instant, engine: &mut Engine) {
        if self.retry.is_some_and(|due| due <= now) {
            self.retry = None;
            engine.start(self.client);
        }
    }

    /// Ends the stream.
    pub(super) fn close(&mut self, engine: &mut Engine) {
        (self.is_up, self.retry) = (false, None);
        engine.close(self.client);
    }

    pub(super) fn client(&self) -> ClientId {
        self.client
    }
}
