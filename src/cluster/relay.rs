//! Sockets whose connection lives on another node, as a machine: at the *front*, where the socket is, and at the *owner*,
//! where the connection is (one machine per core is both). It knows which of them belong together, what either side may
//! still send, and writes and reads what they tell each other; sockets, TLS and shards are the runtime's.
//!
//! Both directions are bounded by credit: the sender of more than it was allowed loses that connection. Messages leave
//! as one piece per turn and place; pieces are numbered, since links may drop some when they break: after a gap all that
//! was between the two cores ends, and the clients come again. What another node says is checked as it is read.

mod wire;

pub use wire::{IMAGE_BYTES_MAX, Leave, Malformed, Message, Messages, Said, messages};

use super::view::{Place, Run};
use crate::base::hash::Map;
use crate::base::ids::{Id, Slab};
use crate::base::instant::Wall;
use wire::append;

/// Bytes of a client that its owner has not dealt with: what a socket that is held has beside the kernel's buffer.
pub const INPUT_WINDOW: u32 = 64 << 10;
/// Bytes for a client that its socket has not taken; more waits at the owner, where `limits.output_bytes` counts.
pub const OUTPUT_WINDOW: u32 = 256 << 10;

/// One socket here whose connection is elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrontId(pub Id);

/// One socket elsewhere, as its own core names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Remote {
    pub place: Place,
    pub front: u64,
}

/// Why a connection was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No room for it.
    Full,
    Stopping,
    /// Its image could not be read, perhaps by an older version.
    Image,
}

/// What the runtime must act on. `S` is its handle of a socket.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a, S> {
    /// Adopt it, then call `accept` or `refuse`.
    Open { remote: Remote, image: &'a [u8] },
    /// Its client may be read.
    MayRead(FrontId),
    /// It is over, and forgotten: nothing was said for its connection yet.
    Refused(S, Refusal),
    /// From a client. Then call `consumed`.
    Input { conn: Id, bytes: &'a [u8] },
    /// For a client. As it leaves, call `took`.
    Output { front: FrontId, bytes: &'a [u8], said: Said },
    /// What waited for credit may be sent.
    MayWrite(Id),
    /// The front may send messages of its client itself. Call `sends`, or `sends_not`.
    Leave(FrontId, Leave<'a>),
    /// It may no more.
    NoLeave(FrontId),
    /// The front does, from that time on; or it does no more.
    FrontChanged(Id, Option<Wall>),
    /// As `Input`: one stanza, which the front has sent.
    Sent { conn: Id, number: u32, at: Wall, bytes: &'a [u8] },
    /// Its client is gone, and it is forgotten.
    Closed(Id),
    /// The node of its socket stops, or lets its clients go: end its stream.
    Stop(Id),
    /// It is over, and forgotten: drop its socket.
    Aborted(S),
    /// Something was lost on the way: call `lose` for that place.
    Gap,
}

/// What ends with a link, or with pieces that are lost.
#[derive(Debug, PartialEq, Eq)]
pub struct Lost<S> {
    pub fronts: Vec<S>,
    pub conns: Vec<Id>,
}

#[derive(Debug)]
struct Front<S> {
    socket: S,
    place: Place,
    /// Its name at the owner, once that has taken it.
    conn: Option<u64>,
    /// Bytes that may be sent to the owner.
    credit: u32,
    /// Read beyond the credit, or before there was any.
    queue: Vec<u8>,
    /// Bytes that were sent to the owner.
    sent: u64,
    /// Bytes that the owner may still send.
    room: u32,
    /// Bytes that the socket has taken since the owner was told.
    taken: u32,
}

#[derive(Debug)]
struct Owned {
    remote: Remote,
    /// Bytes that the front may still send.
    room: u32,
    /// Bytes that were taken since the front was told.
    taken: u32,
    /// All that came.
    received: u64,
    /// Bytes that may be sent to the front.
    credit: u32,
    /// Something waits for credit.
    blocked: bool,
    /// The last of its output is sent.
    ended: bool,
}

#[derive(Debug, Default)]
struct Peer {
    /// Of the next piece to it.
    number: u64,
    /// Of the next piece from it; `None`: any.
    expected: Option<u64>,
    out: Vec<u8>,
}

/// One per core of a node that is in a cluster.
#[derive(Debug)]
pub struct Relay<S> {
    fronts: Slab<Front<S>>,
    owned: Map<Id, Owned>,
    peers: Map<Place, Peer>,
    /// Places that something is to be sent to, each once.
    due: Vec<Place>,
    stopping: bool,
}

impl<S> Default for Relay<S> {
    fn default() -> Self {
        Self {
            fronts: Slab::new(),
            owned: Map::default(),
            peers: Map::default(),
            due: Vec::new(),
            stopping: false,
        }
    }
}

impl<S: Clone> Relay<S> {
    // ---- the front

    /// A connection goes to its owner.
    pub fn open(&mut self, place: Place, socket: S, image: &[u8]) -> FrontId {
        let front = Front {
            socket,
            place,
            conn: None,
            credit: INPUT_WINDOW,
            queue: Vec::new(),
            sent: 0,
            room: OUTPUT_WINDOW,
            taken: 0,
        };
        let id = FrontId(self.fronts.insert(front));
        self.tell(place, &Message::Open { front: id.0.to_u64(), image });
        id
    }

    pub fn socket(&self, front: FrontId) -> Option<S> {
        self.fronts.get(front.0).map(|front| front.socket.clone())
    }

    /// Whether the owner has taken it.
    pub fn is_accepted(&self, front: FrontId) -> bool {
        self.fronts.get(front.0).is_some_and(|front| front.conn.is_some())
    }

    /// Whether its client should be read.
    pub fn is_reading(&self, front: FrontId) -> bool {
        self.fronts.get(front.0).is_some_and(Front::is_reading)
    }

    /// What its client said.
    ///
    /// - takes: no more than one read when `is_reading`: what is beyond the credit is kept
    pub fn input(&mut self, front: FrontId, bytes: &[u8]) {
        let Some(slot) = self.fronts.get_mut(front.0) else { return };
        slot.queue.extend_from_slice(bytes);
        self.send_queue(front);
    }

    fn send_queue(&mut self, id: FrontId) {
        let Some(front) = self.fronts.get_mut(id.0) else { return };
        let Some(conn) = front.conn else { return };
        let length = front.queue.len().min(front.credit as usize);
        if length == 0 {
            return;
        }
        front.credit -= length as u32;
        front.sent += length as u64;
        let (place, mut queue) = (front.place, std::mem::take(&mut front.queue));
        self.tell(place, &Message::Input { conn, bytes: &queue[..length] });
        if length < queue.len()
            && let Some(front) = self.fronts.get_mut(id.0)
        {
            queue.drain(..length);
            front.queue = queue;
        }
    }

    /// Bytes that can be sent to the owner at once.
    pub fn credit(&self, front: FrontId) -> usize {
        let front = self.fronts.get(front.0).filter(|front| front.is_reading());
        front.map_or(0, |front| front.credit as usize)
    }

    /// A stanza of its client has been sent from here.
    ///
    /// - takes: no more than `credit`
    pub fn sent(&mut self, id: FrontId, number: u32, at: Wall, bytes: &[u8]) {
        let Some(front) = self.fronts.get_mut(id.0) else { return };
        let Some(conn) = front.conn else { return };
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        front.credit = front.credit.saturating_sub(length);
        front.sent += u64::from(length);
        let place = front.place;
        self.tell(place, &Message::Sent { conn, number, at, bytes });
    }

    /// From here on its messages are sent from here: not before `Event::Leave`.
    pub fn sends(&mut self, id: FrontId, at: Wall) {
        if let Some(Front { place, conn: Some(conn), .. }) = self.fronts.get(id.0) {
            self.tell(*place, &Message::Sends { conn: *conn, at });
        }
    }

    /// They are not, or no more.
    pub fn sends_not(&mut self, id: FrontId) {
        if let Some(Front { place, conn: Some(conn), .. }) = self.fronts.get(id.0) {
            self.tell(*place, &Message::SendsNot { conn: *conn });
        }
    }

    /// Its socket has taken so many bytes of output. Gives true where the owner is told.
    pub fn took(&mut self, id: FrontId, length: usize) -> bool {
        let Some(front) = self.fronts.get_mut(id.0) else { return false };
        front.taken = front.taken.saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        let Some(conn) = front.conn.filter(|_| front.taken >= OUTPUT_WINDOW / 2) else {
            return false;
        };
        let bytes = std::mem::take(&mut front.taken);
        front.room = front.room.saturating_add(bytes).min(OUTPUT_WINDOW);
        let place = front.place;
        self.tell(place, &Message::OutputCredit { conn, bytes });
        true
    }

    /// Its socket is gone.
    pub fn close(&mut self, front: FrontId) {
        // One that is not taken yet is told of when it is.
        if let Some(Front { place, conn: Some(conn), .. }) = self.fronts.remove(front.0) {
            self.tell(place, &Message::Closed { conn });
        }
    }

    /// Sockets here whose owners have taken them.
    pub fn accepted_fronts(&self) -> Vec<FrontId> {
        let taken = self.fronts.iter().filter(|(_, front)| front.conn.is_some());
        taken.map(|(id, _)| FrontId(id)).collect()
    }

    /// One socket is to go elsewhere: its owner ends the stream, in order.
    pub fn let_go(&mut self, front: FrontId) {
        if let Some((place, conn)) =
            self.fronts.get(front.0).and_then(|front| Some((front.place, front.conn?)))
        {
            self.tell(place, &Message::Stop { conn });
        }
    }

    /// The node stops: owners end the streams of its sockets, in order.
    pub fn stop(&mut self) {
        self.stopping = true;
        let taken = self.fronts.iter().filter_map(|(_, front)| Some((front.place, front.conn?)));
        for (place, conn) in taken.collect::<Vec<_>>() {
            self.tell(place, &Message::Stop { conn });
        }
    }

    // ---- the owner

    /// `conn` is the connection that a front opened.
    pub fn accept(&mut self, remote: Remote, conn: Id) {
        let owned = Owned {
            remote,
            room: INPUT_WINDOW,
            taken: 0,
            received: 0,
            credit: OUTPUT_WINDOW,
            blocked: false,
            ended: false,
        };
        self.owned.insert(conn, owned);
        let message = Message::Accepted { front: remote.front, conn: conn.to_u64() };
        self.tell(remote.place, &message);
    }

    pub fn refuse(&mut self, remote: Remote, why: Refusal) {
        self.tell(remote.place, &Message::Refused { front: remote.front, why });
    }

    pub fn owns(&self, conn: Id) -> bool {
        self.owned.contains_key(&conn)
    }

    /// Where the socket of a connection here is; `None` where it is here, too.
    pub fn socket_of(&self, conn: Id) -> Option<Place> {
        self.owned.get(&conn).map(|owned| owned.remote.place)
    }

    /// What was received of its client is dealt with, or kept; `reading`: more may come.
    pub fn consumed(&mut self, conn: Id, reading: bool) {
        let Some(owned) = self.owned.get_mut(&conn) else { return };
        if !reading || owned.taken < INPUT_WINDOW / 2 {
            return;
        }
        let bytes = std::mem::take(&mut owned.taken);
        owned.room += bytes;
        let Remote { place, front } = owned.remote;
        self.tell(place, &Message::InputCredit { front, bytes });
    }

    /// Sends what a connection has to say, as far as the credit goes; gives how many bytes.
    ///
    /// - takes: `last`, nothing comes after it; `may_end`, an error may follow all of it
    pub fn output(&mut self, conn: Id, bytes: &[u8], last: bool, may_end: bool) -> usize {
        let Some(owned) = self.owned.get_mut(&conn) else { return 0 };
        let length = bytes.len().min(owned.credit as usize);
        owned.blocked = length < bytes.len();
        let closing = last && !owned.blocked;
        if owned.ended || (length == 0 && !closing) {
            return 0;
        }
        owned.credit -= length as u32;
        owned.ended = closing;
        let said = Said { closing, may_end: may_end && !owned.blocked };
        let Remote { place, front } = owned.remote;
        self.tell(place, &Message::Output { front, said, bytes: &bytes[..length] });
        length
    }

    /// The front may send messages itself, behind all that has come.
    pub fn give_leave(&mut self, conn: Id, leave: &Leave<'_>) {
        if let Some(owned) = self.owned.get(&conn) {
            let (Remote { place, front }, behind) = (owned.remote, owned.received);
            self.tell(place, &Message::Leave { front, behind, leave: *leave });
        }
    }

    /// It may no more.
    pub fn take_leave_back(&mut self, conn: Id) {
        if let Some(Remote { place, front }) = self.owned.get(&conn).map(|owned| owned.remote) {
            self.tell(place, &Message::NoLeave { front });
        }
    }

    /// Drops a connection at once. Gives false for one that is not relayed.
    pub fn abort(&mut self, conn: Id) -> bool {
        let Some(owned) = self.owned.remove(&conn) else { return false };
        let Remote { place, front } = owned.remote;
        self.tell(place, &Message::Aborted { front });
        true
    }

    // ---- both

    /// No socket here is elsewhere's, and no connection here has its socket elsewhere.
    pub fn is_idle(&self) -> bool {
        self.fronts.is_empty() && self.owned.is_empty()
    }

    /// Sockets here and connections here.
    pub fn len(&self) -> (usize, usize) {
        (self.fronts.len(), self.owned.len())
    }

    /// Takes one message of a piece that came from there.
    pub fn take<'a>(&mut self, from: Place, message: Message<'a>) -> Option<Event<'a, S>> {
        match message {
            Message::Number(number) => {
                let peer = self.peers.entry(from).or_default();
                let expected = peer.expected.replace(number.wrapping_add(1));
                return expected.is_some_and(|it| it != number).then_some(Event::Gap);
            }
            Message::Open { front, image } => {
                return Some(Event::Open { remote: Remote { place: from, front }, image });
            }
            Message::Accepted { front, conn } => return self.accepted(from, front, conn),
            Message::Refused { front, why } => {
                let id = self.front(from, front)?;
                let front = self.fronts.remove(id.0)?;
                return Some(Event::Refused(front.socket, why));
            }
            Message::Output { front, said, bytes } => {
                return self.output_came(from, front, said, bytes);
            }
            Message::InputCredit { front, bytes } => {
                let id = self.front(from, front)?;
                let front = self.fronts.get_mut(id.0)?;
                front.credit = front.credit.saturating_add(bytes).min(INPUT_WINDOW);
                self.send_queue(id);
                return self.is_reading(id).then_some(Event::MayRead(id));
            }
            Message::Aborted { front } => {
                let id = self.front(from, front)?;
                return Some(Event::Aborted(self.fronts.remove(id.0)?.socket));
            }
            Message::Leave { front, behind, leave } => {
                let id = self.front(from, front)?;
                let front = self.fronts.get(id.0)?;
                if front.sent == behind && front.is_reading() {
                    return Some(Event::Leave(id, leave));
                }
                // What it said meanwhile is not known to whoever allowed it.
                self.sends_not(id);
                return None;
            }
            Message::NoLeave { front } => return Some(Event::NoLeave(self.front(from, front)?)),
            Message::Input { .. }
            | Message::Sent { .. }
            | Message::Sends { .. }
            | Message::SendsNot { .. }
            | Message::OutputCredit { .. }
            | Message::Closed { .. }
            | Message::Stop { .. } => {}
        }
        self.take_for_owner(from, message)
    }

    fn take_for_owner<'a>(&mut self, from: Place, message: Message<'a>) -> Option<Event<'a, S>> {
        let (Message::Input { conn, .. }
        | Message::Sent { conn, .. }
        | Message::Sends { conn, .. }
        | Message::SendsNot { conn }
        | Message::OutputCredit { conn, .. }
        | Message::Closed { conn }
        | Message::Stop { conn }) = message
        else {
            return None;
        };
        let conn = Id::from_u64(conn);
        // One that is over here was told so: what was on its way meanwhile is for nobody. Others' are not theirs to name.
        let owned = self.owned.get_mut(&conn).filter(|owned| owned.remote.place == from)?;
        match message {
            Message::Sends { at, .. } => Some(Event::FrontChanged(conn, Some(at))),
            Message::SendsNot { .. } => Some(Event::FrontChanged(conn, None)),
            Message::Input { bytes, .. } | Message::Sent { bytes, .. } => {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let Some(room) = owned.room.checked_sub(length) else {
                    self.abort(conn);
                    return Some(Event::Closed(conn));
                };
                owned.room = room;
                owned.taken += length;
                owned.received += u64::from(length);
                Some(match message {
                    Message::Sent { number, at, .. } => Event::Sent { conn, number, at, bytes },
                    _ => Event::Input { conn, bytes },
                })
            }
            Message::OutputCredit { bytes, .. } => {
                owned.credit = owned.credit.saturating_add(bytes).min(OUTPUT_WINDOW);
                owned.blocked.then_some(Event::MayWrite(conn))
            }
            Message::Closed { .. } => {
                self.owned.remove(&conn);
                Some(Event::Closed(conn))
            }
            _ => Some(Event::Stop(conn)),
        }
    }

    fn accepted<'a>(&mut self, from: Place, front: u64, conn: u64) -> Option<Event<'a, S>> {
        let Some(id) = self.front(from, front) else {
            // Its socket has gone meanwhile.
            self.tell(from, &Message::Closed { conn });
            return None;
        };
        let front = self.fronts.get_mut(id.0)?;
        if front.conn.is_some() {
            return None;
        }
        front.conn = Some(conn);
        if self.stopping {
            self.tell(from, &Message::Stop { conn });
        }
        self.send_queue(id);
        Some(Event::MayRead(id))
    }

    fn output_came<'a>(
        &mut self,
        from: Place,
        front: u64,
        said: Said,
        bytes: &'a [u8],
    ) -> Option<Event<'a, S>> {
        let id = self.front(from, front)?;
        let front = self.fronts.get_mut(id.0)?;
        let room =
            u32::try_from(bytes.len()).ok().and_then(|length| front.room.checked_sub(length));
        let (Some(room), Some(_)) = (room, front.conn) else {
            let socket = front.socket.clone();
            self.close(id);
            return Some(Event::Aborted(socket));
        };
        front.room = room;
        Some(Event::Output { front: id, bytes, said })
    }

    /// A front of ours that this place may speak of.
    fn front(&self, from: Place, front: u64) -> Option<FrontId> {
        let id = FrontId(Id::from_u64(front));
        self.fronts.get(id.0).filter(|front| front.place == from)?;
        Some(id)
    }

    /// Pieces from there are missing or make no sense: all that is between us ends, on both sides.
    pub fn lose(&mut self, place: Place) -> Lost<S> {
        let lost = self.ends_with(|it| it == place);
        for id in lost.1 {
            self.close(id);
        }
        for conn in &lost.0.conns {
            self.abort(*conn);
        }
        lost.0
    }

    /// There is no link to this run of a node any more. What is for it goes nowhere.
    pub fn unlinked(&mut self, run: Run) -> Lost<S> {
        let (lost, fronts) = self.ends_with(|it| it.run == run);
        for id in fronts {
            self.fronts.remove(id.0);
        }
        for conn in &lost.conns {
            self.owned.remove(conn);
        }
        self.peers.retain(|place, _| place.run != run);
        self.due.retain(|place| place.run != run);
        lost
    }

    fn ends_with(&self, is_lost: impl Fn(Place) -> bool) -> (Lost<S>, Vec<FrontId>) {
        let fronts = self.fronts.iter().filter(|(_, front)| is_lost(front.place));
        let (ids, fronts) = fronts.map(|(id, front)| (FrontId(id), front.socket.clone())).unzip();
        let owned = self.owned.iter().filter(|(_, owned)| is_lost(owned.remote.place));
        let mut conns: Vec<Id> = owned.map(|(conn, _)| *conn).collect();
        // The order of a map must not show.
        conns.sort_unstable();
        (Lost { fronts, conns }, ids)
    }

    fn tell(&mut self, place: Place, message: &Message<'_>) {
        let peer = self.peers.entry(place).or_default();
        if peer.out.is_empty() {
            self.due.push(place);
            append(&Message::Number(peer.number), &mut peer.out);
            peer.number = peer.number.wrapping_add(1);
        }
        append(message, &mut peer.out);
    }

    /// What is to be sent, one piece for each place.
    pub fn pieces(&mut self) -> impl Iterator<Item = (Place, Vec<u8>)> {
        let due = std::mem::take(&mut self.due);
        due.into_iter().filter_map(|place| {
            let out = std::mem::take(&mut self.peers.get_mut(&place)?.out);
            (!out.is_empty()).then_some((place, out))
        })
    }
}

impl<S> Front<S> {
    fn is_reading(&self) -> bool {
        self.conn.is_some() && self.queue.is_empty() && self.credit > 0
    }
}

#[cfg(test)]
mod tests;
