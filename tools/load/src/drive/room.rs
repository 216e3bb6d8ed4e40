//! Rooms (XEP-0045): each user is in one, what it says is timed once per occupant that reads it.
//!
//! The first occupant makes the room and opens it (§10.1.2); the others join behind it. A message is open until every
//! occupant that was in the room when it was sent has read it, or has left. All occupants must see one order (§7.4).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Notes;
use super::body::{self, Bodies};
use super::ledger::MessageId;
use super::session::Sessions;
use crate::Engine;
use crate::plan::Plan;
use crate::record::{LedgerCounts, Operation};
use crate::scan::{Element, escape};

/// With nobody ever in a room for so long the target has none.
const PATIENCE: Duration = Duration::from_secs(20);
/// Before a refused join is tried again.
const RETRY: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Presence {
    Out,
    /// Waits until the room is open.
    Waiting,
    Joining,
    In,
}

struct Occupant {
    room: usize,
    /// Within the room.
    place: usize,
    presence: Presence,
    since: Instant,
    /// Number of the next message.
    number: u64,
    /// Place in the room's order of the last message that it has read.
    seen: u64,
    /// That `since` is when a refused join is to be tried again.
    refused: bool,
}

struct Room {
    /// Escaped.
    address: Vec<u8>,
    /// The first occupant has made it and anybody may come in.
    is_open: bool,
    occupants: usize,
    entries: VecDeque<Entry>,
    /// Messages that somebody has read, in the order in which they were first read.
    order: u64,
}

struct Entry {
    message: MessageId,
    intended: Instant,
    sent: Instant,
    /// Occupants, a bit each, from whom an arrival is awaited.
    awaited: Vec<u64>,
    left: usize,
    /// Place in the room's order, once somebody has read it.
    order: u64,
}

/// The rooms of one population.
pub(super) struct Rooms {
    bodies: Bodies,
    run: u32,
    base: usize,
    occupants: Vec<Occupant>,
    rooms: Vec<Room>,
    /// Occupants that want to join, or whose room has to be opened.
    joining: Vec<usize>,
    /// With whether the room waits for its form.
    opening: Vec<(usize, bool)>,
    counts: LedgerCounts,
    open: u64,
    ever: bool,
    first: Option<Instant>,
    refusal: Option<String>,
    service: String,
}

impl Rooms {
    pub(super) fn new(
        plan: &Plan,
        population: usize,
        run: u32,
        sessions: &Sessions,
    ) -> Option<Self> {
        let wish = plan.scenario.populations[population].room.as_ref()?;
        let domain = plan.targets.first().map_or("", |target| &target.domain);
        let service = wish.service.replace("{}", domain);
        let now = Instant::now();
        let (mut occupants, mut rooms) = (Vec::new(), Vec::<Room>::new());
        let mut last = None;
        let mine = || sessions.iter().enumerate().filter(|(_, s)| s.population == population);
        for (_, session) in mine() {
            let number = plan.room_of(population, session.user)?;
            // Users of a room follow each other.
            if last != Some(number) {
                last = Some(number);
                let mut address = Vec::new();
                escape(&format!("load{run:x}-{population}-{number}@{service}"), &mut address);
                rooms.push(Room {
                    address,
                    is_open: false,
                    occupants: 0,
                    entries: VecDeque::new(),
                    order: 0,
                });
            }
            let room = rooms.len() - 1;
            let place = rooms[room].occupants;
            rooms[room].occupants += 1;
            occupants.push(Occupant {
                room,
                place,
                presence: Presence::Out,
                since: now,
                number: 0,
                seen: 0,
                refused: false,
            });
        }
        Some(Self {
            bodies: Bodies::new(run, wish.body_bytes),
            run,
            base: mine().next().map_or(0, |(at, _)| at),
            occupants,
            rooms,
            joining: Vec::new(),
            opening: Vec::new(),
            counts: LedgerCounts::default(),
            open: 0,
            ever: false,
            first: None,
            refusal: None,
            service,
        })
    }

    /// Deliveries that are awaited.
    pub(super) fn open(&self) -> u64 {
        self.open
    }

    /// Why there are no rooms at all, if that is known.
    pub(super) fn hopeless(&self, now: Instant, notes: &Notes) -> Option<String> {
        if self.ever || notes.sessions.online() == 0 {
            return None;
        }
        let is_late = self.first.is_some_and(|first| now > first + PATIENCE);
        let why = match &self.refusal {
            Some(condition) => format!("joining is refused: {condition}"),
            None if is_late => format!("no room could be joined within {} s", PATIENCE.as_secs()),
            None => return None,
        };
        Some(format!(
            "{}: {why}; the server needs group chat (XEP-0045) there, or another address in room.service of the scenario",
            self.service
        ))
    }

    /// A session has a new stream.
    pub(super) fn ready(&mut self, session: usize) {
        let at = session - self.base;
        let is_first = self.occupants[at].place == 0;
        let is_open = self.rooms[self.occupants[at].room].is_open;
        if is_first || is_open {
            self.joining.push(at);
        } else {
            self.occupants[at].presence = Presence::Waiting;
        }
    }

    /// A session's stream goes on: it is where it was.
    pub(super) fn resumed(&mut self, session: usize) {
        let occupant = &self.occupants[session - self.base];
        if occupant.presence == Presence::Out {
            self.ready(session);
        }
    }

    /// A session's connection is gone: what it has not read it may never read.
    pub(super) fn closed(&mut self, session: usize) {
        let at = session - self.base;
        self.occupants[at].presence = Presence::Out;
        self.occupants[at].refused = false;
        let (room, place) = (self.occupants[at].room, self.occupants[at].place);
        for entry in &mut self.rooms[room].entries {
            if take_bit(&mut entry.awaited, place) {
                entry.left -= 1;
                self.open -= 1;
                self.counts.messages -= 1;
            }
        }
        settle(&mut self.rooms[room].entries);
    }

    /// Joins and opens.
    pub(super) fn turn(&mut self, now: Instant, engine: &mut Engine, notes: &mut Notes) {
        for (at, is_locked) in std::mem::take(&mut self.opening) {
            let room = self.occupants[at].room;
            self.rooms[room].is_open = true;
            if let Some(client) = notes.sessions.client(self.base + at).filter(|_| is_locked) {
                engine.send(client, 1, |out| {
                    out.extend_from_slice(b"<iq type='set' id='open' to='");
                    out.extend_from_slice(&self.rooms[room].address);
                    out.extend_from_slice(
                        b"'><query xmlns='http://jabber.org/protocol/muc#owner'>\
                          <x xmlns='jabber:x:data' type='submit'/></query></iq>",
                    );
                });
            }
            for (other, occupant) in self.occupants.iter().enumerate() {
                if occupant.room == room && occupant.presence == Presence::Waiting {
                    self.joining.push(other);
                }
            }
        }
        for at in std::mem::take(&mut self.joining) {
            let session = self.base + at;
            let occupant = &mut self.occupants[at];
            if occupant.refused && now < occupant.since {
                self.joining.push(at);
                continue;
            }
            let client = notes.sessions.client(session).filter(|_| notes.sessions.is_up(session));
            let Some(client) = client else {
                continue;
            };
            self.first.get_or_insert(now);
            occupant.presence = Presence::Joining;
            occupant.since = now;
            occupant.refused = false;
            let room = &self.rooms[occupant.room].address;
            engine.send(client, 1, |out| {
                out.extend_from_slice(b"<presence to='");
                out.extend_from_slice(room);
                out.extend_from_slice(format!("/u{at:x}").as_bytes());
                out.extend_from_slice(
                    b"'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>",
                );
            });
            notes.recorder.sent(Operation::Join, now, now);
        }
    }

    /// Presence of a room.
    pub(super) fn presence(
        &mut self,
        session: usize,
        stanza: &Element<'_>,
        at: Instant,
        notes: &mut Notes,
    ) {
        let place = session - self.base;
        let occupant = &mut self.occupants[place];
        if occupant.presence != Presence::Joining {
            return;
        }
        let from = stanza.attribute("from").unwrap_or_default();
        if !from.starts_with(&self.rooms[occupant.room].address) {
            return;
        }
        match stanza.attribute("type") {
            Some(b"error") => {
                let condition = super::request::condition(stanza);
                notes.recorder.failed(Operation::Join, &condition);
                if !self.ever {
                    self.refusal = Some(condition);
                }
                occupant.presence = Presence::Out;
                occupant.refused = true;
                occupant.since = at + RETRY;
                self.joining.push(place);
            }
            None => {
                let has = |code: &[u8]| {
                    stanza.children().filter(|child| child.name() == b"x").any(|x| {
                        x.children().any(|status| {
                            status.name() == b"status" && status.attribute("code") == Some(code)
                        })
                    })
                };
                if !has(b"110") {
                    return;
                }
                occupant.presence = Presence::In;
                occupant.seen = self.rooms[occupant.room].order;
                self.ever = true;
                notes.recorder.done(Operation::Join, occupant.since, occupant.since, at);
                let is_new = has(b"201");
                if is_new || !self.rooms[occupant.room].is_open {
                    self.opening.push((place, is_new));
                }
            }
            Some(_) => {}
        }
    }

    /// A message is due.
    pub(super) fn send(
        &mut self,
        session: usize,
        intended: Instant,
        now: Instant,
        engine: &mut Engine,
        notes: &mut Notes,
    ) {
        let at = session - self.base;
        let client = notes.sessions.client(session);
        let Some(client) = client.filter(|_| self.occupants[at].presence == Presence::In) else {
            notes.recorder.dropped(Operation::RoomMessage);
            notes.recorder.failed(Operation::RoomMessage, "sender not in its room");
            return;
        };
        let number = self.occupants[at].number;
        self.occupants[at].number += 1;
        let room = self.occupants[at].room;
        let message = MessageId { conversation: at as u32, number };
        let mut awaited = vec![0u64; self.rooms[room].occupants.div_ceil(64)];
        let mut left = 0;
        let first = at - self.occupants[at].place;
        for occupant in &self.occupants[first..first + self.rooms[room].occupants] {
            if occupant.presence == Presence::In {
                awaited[occupant.place / 64] |= 1 << (occupant.place % 64);
                left += 1;
            }
        }
        self.open += left as u64;
        self.counts.messages += left as u64;
        let room = &mut self.rooms[room];
        room.entries.push_back(Entry { message, intended, sent: now, awaited, left, order: 0 });
        engine.send(client, 1, |out| {
            out.extend_from_slice(b"<message type='groupchat' to='");
            out.extend_from_slice(&room.address);
            self.bodies.write_end(message, out);
        });
        notes.recorder.sent(Operation::RoomMessage, intended, now);
    }

    /// A message arrived.
    pub(super) fn take(
        &mut self,
        session: usize,
        stanza: &Element<'_>,
        at: Instant,
        notes: &mut Notes,
    ) {
        let place = session - self.base;
        let kind = stanza.attribute("type");
        if kind == Some(b"error") {
            let id = stanza.attribute("id").and_then(|id| body::read_id(self.run, id));
            if let Some((message, _)) = id {
                self.bounced(message);
                let condition = super::request::condition(stanza);
                notes.recorder.failed(Operation::RoomMessage, &condition);
            }
            return;
        }
        // What is told of the past is not of this conversation.
        if kind != Some(b"groupchat") || stanza.child("delay").is_some() {
            return;
        }
        let Some(text) = stanza.child("body") else {
            return;
        };
        let Some((message, intact)) = body::read(self.run, text.text().as_bytes()) else {
            return;
        };
        let occupant = &mut self.occupants[place];
        let room = &mut self.rooms[occupant.room];
        let Some(entry) = room.entries.iter_mut().find(|entry| entry.message == message) else {
            // Everybody has read it already, or it was never sent here.
            self.counts.duplicated += 1;
            return;
        };
        if !take_bit(&mut entry.awaited, occupant.place) {
            self.counts.duplicated += 1;
            return;
        }
        if entry.order == 0 {
            room.order += 1;
            entry.order = room.order;
        }
        self.counts.reordered += u64::from(entry.order < occupant.seen);
        occupant.seen = occupant.seen.max(entry.order);
        notes.moved = at;
        entry.left -= 1;
        self.open -= 1;
        self.counts.received += 1;
        self.counts.corrupted += u64::from(!intact);
        notes.recorder.done(Operation::RoomMessage, entry.intended, entry.sent, at);
        settle(&mut room.entries);
    }

    fn bounced(&mut self, message: MessageId) {
        let Some(sender) = self.occupants.get(message.conversation as usize) else {
            return;
        };
        let entries = &mut self.rooms[sender.room].entries;
        if let Some(entry) = entries.iter_mut().find(|entry| entry.message == message) {
            self.counts.bounced += entry.left as u64;
            self.open -= entry.left as u64;
            entry.left = 0;
            entry.awaited.fill(0);
        }
        settle(entries);
    }

    /// Deliveries to occupants, as the ledger counts messages.
    pub(super) fn add_to(&self, counts: &mut LedgerCounts) {
        counts.messages += self.counts.messages;
        counts.received += self.counts.received;
        counts.bounced += self.counts.bounced;
        counts.lost += self.open;
        counts.duplicated += self.counts.duplicated;
        counts.reordered += self.counts.reordered;
        counts.corrupted += self.counts.corrupted;
    }
}

/// Clears a bit; gives whether it was set.
fn take_bit(bits: &mut [u64], place: usize) -> bool {
    let Some(word) = bits.get_mut(place / 64) else {
        return false;
    };
    let bit = 1 << (place % 64);
    let was = *word & bit != 0;
    *word &= !bit;
    was
}

/// Lets go of the oldest messages that nobody waits for.
fn settle(entries: &mut VecDeque<Entry>) {
    while entries.front().is_some_and(|entry| entry.left == 0) {
        entries.pop_front();
    }
}
