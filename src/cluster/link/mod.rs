//! One link between two nodes: what is said on it, and what is believed of it. Fed with bytes and the time, it gives bytes
//! and events; the connection below it is TLS with certificates of the cluster, whose handshake nobody can replay: both
//! sides put fresh random numbers and keys into it, there are no tickets, and nothing is sent early.
//!
//! Who has the lower node id dials and says Hello; the other one says Hello when it has found the dialler among the
//! members, or Bye with its reason. From then on each sends *pieces* (frames, news and relay of one shard for one shard),
//! pings, the newest epoch that it knows, and what operators ask of all nodes. Nothing is numbered or kept here: after a link broke, what it carried may
//! have arrived or not, in order up to some place. Numbers are the shards' own.
//!
//! A peer is not trusted: the length of each record is judged before it is awaited, its checksum before a field is read,
//! each frame as in `frame::check`, and shards against what the members' list says. What fails ends the link, with a
//! [`Refusal`] that says why.

mod hello;
mod record;
mod refusal;
#[cfg(test)]
mod tests;
mod timing;

use super::placement::ShardId;
use super::view::NodeFacts;
use crate::base::instant::{Now, Wall};
use crate::frame::Batch;
use hello::{HELLO_BYTES_MAX, Hello, common};
use record::{Fields, HEADER, Kind, Records, write};
use std::sync::Arc;
use timing::Timing;

pub use hello::{ClusterId, PROTOCOL};
pub use refusal::Refusal;
pub use timing::{Departure, Estimate};

/// What is relayed for sockets in one piece, at most: whole messages, which cannot be cut here.
pub const RELAY_BYTES_MAX: usize = 32 << 20;
/// Frames of one record, unless a single one is larger: more go in several.
pub const PART_BYTES: usize = 1 << 20;
/// What may wait to be written. Past it the peer is too slow, and the link is given up: frames come again with the next.
pub const OUTPUT_BYTES_MAX: usize = 64 << 20;
/// A question or an answer between nodes, at most.
pub const CALL_BYTES_MAX: usize = 4 << 20;
/// Turns of the timer (one a second) without a byte after which a link is broken.
pub const SILENT_TICKS: u32 = 5;
/// Epochs that a peer is heard on between two turns of the timer; the newest of further ones is told at the turn.
const EPOCHS_PER_TICK: u32 = 8;

/// Of a Piece, what stands before relay and frames: shards, marks, two numbers, when it was sent.
const PIECE_HEAD: usize = 32;
const HAS_NEWS: u32 = 1;

/// What this node is, for all its links.
#[derive(Clone, Debug)]
pub struct Ours {
    pub facts: NodeFacts,
    pub cluster: ClusterId,
    /// Bytes of a frame at most, as in `frame::check`.
    pub frame_bytes_max: usize,
}

/// What a link tells.
#[derive(Debug)]
pub enum Event {
    /// A dialler has introduced itself: `admit` or `refuse` it. Nothing but its cluster, versions and direction is checked.
    Hello(Box<NodeFacts>),
    /// Both have admitted each other. Frames go in this version.
    Up { facts: Box<NodeFacts>, frames_version: u16 },
    /// Frames are checked; `from` is a shard that the peer has, `to` one that we have.
    Piece {
        from: ShardId,
        to: ShardId,
        sent: Option<Departure>,
        frames: Batch,
        news: Option<(u64, u64)>,
        relay: Vec<u8>,
    },
    /// The peer knows of this epoch, newer than what it knew of before.
    Epoch(u64),
    /// The peer asks something under a number of its own.
    Ask(u64, Vec<u8>),
    /// The peer answers what was asked under this number, or says so.
    Answer(u64, Vec<u8>),
    /// The peer leaves on purpose; nothing follows.
    Left,
}

/// One connection between two nodes.
#[derive(Debug)]
pub struct Link {
    ours: Arc<Ours>,
    state: State,
    records: Records,
    out: Vec<u8>,
    /// Bytes that were taken from `out` and are not written yet.
    leaving: usize,
    timing: Timing,
    quiet_ticks: u32,
    /// The newest epoch that we told the peer, and that it told us.
    told: u64,
    heard: u64,
    /// Events of epochs that may still be given before the next turn of the timer, and whether one is due then.
    epochs_left: u32,
    is_epoch_due: bool,
}

#[derive(Debug)]
enum State {
    /// We have said Hello, to this one.
    Dialled(Box<NodeFacts>),
    /// Nobody has spoken.
    Accepted,
    /// The peer has said Hello and waits for ours.
    Offered(Box<NodeFacts>),
    Up {
        /// The peer's.
        shards: u16,
    },
    /// Nothing is read or written any more but what waits.
    Over,
}

impl Link {
    /// Ours to say Hello.
    ///
    /// - takes: who is expected to answer: run, name and shards must be these; the newest epoch that we know
    pub fn dial(ours: Arc<Ours>, expected: NodeFacts, epoch: u64) -> Link {
        let mut link = Link::new(ours, State::Dialled(Box::new(expected)));
        link.introduce(epoch);
        link
    }

    pub fn accept(ours: Arc<Ours>) -> Link {
        Link::new(ours, State::Accepted)
    }

    fn new(ours: Arc<Ours>, state: State) -> Link {
        Link {
            ours,
            state,
            records: Records::default(),
            out: Vec::new(),
            leaving: 0,
            timing: Timing::default(),
            quiet_ticks: 0,
            told: 0,
            heard: 0,
            epochs_left: EPOCHS_PER_TICK,
            is_epoch_due: false,
        }
    }

    fn introduce(&mut self, epoch: u64) {
        self.told = epoch;
        let facts = self.ours.facts.clone();
        Hello { protocol: PROTOCOL, cluster: self.ours.cluster, epoch, facts }.write(&mut self.out);
    }

    /// Takes what the peer sent, cut anywhere. Events before the place of a refusal are given and count.
    ///
    /// - errors: the link is over; a Bye with the reason waits to be written
    pub fn receive(
        &mut self,
        now: Now,
        bytes: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        if matches!(self.state, State::Over) {
            return Ok(());
        }
        self.quiet_ticks = 0;
        self.records.push(bytes);
        let taken = self.take(now, events);
        if let Err(refusal) = &taken {
            self.refuse(refusal);
        }
        taken
    }

    fn take(&mut self, now: Now, events: &mut Vec<Event>) -> Result<(), Refusal> {
        loop {
            let limit = match &self.state {
                State::Up { .. } => record_bytes_max(self.ours.frame_bytes_max),
                State::Dialled(_) | State::Accepted => HELLO_BYTES_MAX,
                // Who waits for our Hello has nothing to say.
                State::Offered(_) if self.records.has_more() => return Err(Refusal::Order),
                State::Offered(_) | State::Over => return Ok(()),
            };
            let Some(record) = self.records.next(limit)? else { return Ok(()) };
            let mut fields = Fields(record.sealed);
            match (record.kind, &self.state) {
                (Kind::Hello, State::Dialled(_) | State::Accepted) => {
                    let hello = Hello::read(record.sealed)?;
                    self.meet(hello, events)?;
                }
                (Kind::Piece, &State::Up { shards }) => {
                    let timing = &self.timing;
                    let piece = read_piece(&self.ours, shards, timing, record.sealed, record.open);
                    events.push(piece?);
                }
                (Kind::Ping, State::Up { .. }) => {
                    let number = fields.array::<8>()?;
                    fields.end()?;
                    self.make_room(2 * HEADER)?;
                    let wall = now.wall.0.to_le_bytes();
                    write(&mut self.out, Kind::Pong, [&number, &wall], &[]);
                }
                (Kind::Pong, State::Up { .. }) => {
                    let (number, wall) = (fields.u64()?, fields.u64()?);
                    fields.end()?;
                    self.timing.pong(number, Wall(wall), now);
                }
                (Kind::Epoch, State::Up { .. }) => {
                    let epoch = fields.u64()?;
                    fields.end()?;
                    self.hear(epoch, events);
                }
                (kind @ (Kind::Ask | Kind::Answer), State::Up { .. }) => {
                    let number = fields.u64()?;
                    if fields.0.len() > CALL_BYTES_MAX {
                        return Err(Refusal::Malformed);
                    }
                    let text = fields.0.to_vec();
                    let is_question = kind == Kind::Ask;
                    let event = if is_question { Event::Ask } else { Event::Answer };
                    events.push(event(number, text));
                }
                (Kind::Bye, _) => {
                    let code = fields.u8()?;
                    fields.end()?;
                    self.state = State::Over;
                    if code != 0 {
                        return Err(Refusal::by_peer(code));
                    }
                    events.push(Event::Left);
                }
                _ => return Err(Refusal::Order),
            }
        }
    }

    /// Judges a Hello as far as it can be without the members.
    fn meet(&mut self, hello: Hello, events: &mut Vec<Event>) -> Result<(), Refusal> {
        let (ours, theirs) = (&self.ours.facts, &hello.facts);
        if hello.cluster != self.ours.cluster {
            return Err(Refusal::Cluster);
        }
        if theirs.run.node == ours.run.node || theirs.name == ours.name {
            return Err(Refusal::Twin);
        }
        if common(ours.frames, theirs.frames).is_none() {
            return Err(Refusal::Frames { ours: ours.frames, theirs: theirs.frames });
        }
        let is_their_turn = theirs.run.node < ours.run.node;
        self.hear(hello.epoch, events);
        match std::mem::replace(&mut self.state, State::Over) {
            State::Dialled(expected) => self.open(&expected, hello.facts, events),
            _ if !is_their_turn => Err(Refusal::Direction),
            _ => {
                let facts = Box::new(hello.facts);
                events.push(Event::Hello(facts.clone()));
                self.state = State::Offered(facts);
                Ok(())
            }
        }
    }

    /// Answers the dialler of `Event::Hello`.
    ///
    /// - takes: what the members' list says of it; the newest epoch that we know
    /// - errors: it is not what the list says; the link is over, and a Bye waits
    pub fn admit(
        &mut self,
        expected: &NodeFacts,
        epoch: u64,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        let State::Offered(facts) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(Refusal::Order);
        };
        let before = self.out.len();
        self.introduce(epoch);
        let opened = self.open(expected, *facts, events);
        if let Err(refusal) = &opened {
            self.out.truncate(before);
            self.refuse(refusal);
        }
        opened
    }

    fn open(
        &mut self,
        expected: &NodeFacts,
        facts: NodeFacts,
        events: &mut Vec<Event>,
    ) -> Result<(), Refusal> {
        if facts.run != expected.run {
            return Err(Refusal::Run { expected: expected.run, theirs: facts.run });
        }
        if facts.name != expected.name {
            return Err(Refusal::Name(facts.name));
        }
        if facts.shards != expected.shards {
            return Err(Refusal::Shards { expected: expected.shards, theirs: facts.shards });
        }
        let ours = self.ours.facts.frames;
        let frames_version =
            common(ours, facts.frames).ok_or(Refusal::Frames { ours, theirs: facts.frames })?;
        self.state = State::Up { shards: facts.shards };
        events.push(Event::Up { facts: Box::new(facts), frames_version });
        Ok(())
    }

    /// Ends the link with a reason for the peer. What waits before it is still written.
    pub fn refuse(&mut self, refusal: &Refusal) {
        self.state = State::Over;
        // Who refused us needs no answer.
        if !matches!(refusal, Refusal::ByPeer(_)) {
            write(&mut self.out, Kind::Bye, [&[refusal.code()], &[]], &[]);
        }
    }

    /// Says Bye, as this node leaves on purpose. What waits before it is still written.
    pub fn leave(&mut self) {
        if !matches!(self.state, State::Over) {
            self.state = State::Over;
            write(&mut self.out, Kind::Bye, [&[0], &[]], &[]);
        }
    }

    /// Sends what one of our shards has for one of the peer's, and when that shard gave it away. Without a link (yet, or any
    /// more) it is dropped.
    ///
    /// - errors: `Overflow`; the link is over
    /// - cost: one copy
    pub fn piece(
        &mut self,
        (from, to): (ShardId, ShardId),
        sent: Wall,
        frames: &Batch,
        news: Option<(u64, u64)>,
        relay: &[u8],
    ) -> Result<(), Refusal> {
        if !self.is_up() {
            return Ok(());
        }
        if relay.len() > RELAY_BYTES_MAX {
            self.state = State::Over;
            return Err(Refusal::Overflow(relay.len()));
        }
        let heads = (frames.len_bytes() / PART_BYTES * 2 + 1) * (HEADER + PIECE_HEAD);
        self.make_room(frames.len_bytes() + relay.len() + heads)?;
        let mut parts = frames.parts(PART_BYTES).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let is_last = parts.peek().is_none();
            let (news, relay) = if is_last { (news, relay) } else { (None, &[][..]) };
            let head = piece_head(from, to, sent, news);
            write(&mut self.out, Kind::Piece, [&head, relay], part);
            if is_last {
                return Ok(());
            }
        }
    }

    /// Asks the peer something, or answers what it asked under this number. Without a link it is dropped, as what is too
    /// long is: who asks waits for a time only.
    ///
    /// - errors: `Overflow`; the link is over
    pub fn call(&mut self, number: u64, is_question: bool, text: &[u8]) -> Result<(), Refusal> {
        if !self.is_up() || text.len() > CALL_BYTES_MAX {
            return Ok(());
        }
        self.make_room(HEADER + 8 + text.len())?;
        let kind = if is_question { Kind::Ask } else { Kind::Answer };
        write(&mut self.out, kind, [&number.to_le_bytes(), text], &[]);
        Ok(())
    }

    /// Tells the peer of an epoch, if it is newer than what we told before.
    pub fn tell(&mut self, epoch: u64) {
        if self.is_up() && epoch > self.told {
            self.told = epoch;
            write(&mut self.out, Kind::Epoch, [&epoch.to_le_bytes(), &[]], &[]);
        }
    }

    /// To be called once a second. It counts turns, not time: a process that was stopped must not take what waits for it
    /// in the socket for silence.
    ///
    /// - errors: `Silent`; the link is over
    pub fn tick(&mut self, now: Now, events: &mut Vec<Event>) -> Result<(), Refusal> {
        if !self.is_up() {
            return Ok(());
        }
        self.epochs_left = EPOCHS_PER_TICK;
        if std::mem::take(&mut self.is_epoch_due) {
            events.push(Event::Epoch(self.heard));
        }
        self.quiet_ticks += 1;
        if self.quiet_ticks > SILENT_TICKS {
            self.state = State::Over;
            return Err(Refusal::Silent);
        }
        let number = self.timing.ping(now).to_le_bytes();
        self.make_room(HEADER + number.len())?;
        write(&mut self.out, Kind::Ping, [&number, &[]], &[]);
        Ok(())
    }

    /// Swaps what is to be written against `spare`, which is emptied. It counts as waiting until it is said to be
    /// `written`.
    pub fn output(&mut self, spare: &mut Vec<u8>) {
        spare.clear();
        std::mem::swap(&mut self.out, spare);
        self.leaving += spare.len();
    }

    /// So many bytes of what `output` gave are on their way.
    pub fn written(&mut self, bytes: usize) {
        self.leaving = self.leaving.saturating_sub(bytes);
    }

    /// Bytes that are not written yet.
    pub fn waiting_bytes(&self) -> usize {
        self.out.len() + self.leaving
    }

    /// Whether something was taken to be written and not written to its end: what follows makes no sense to the peer.
    pub fn is_torn(&self) -> bool {
        self.leaving > 0
    }

    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Nothing more is read, and after what waits nothing more is written.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    /// `None` until a ping was answered.
    pub fn estimate(&self) -> Option<Estimate> {
        self.timing.estimate()
    }

    fn hear(&mut self, epoch: u64, events: &mut Vec<Event>) {
        if epoch <= self.heard {
            return;
        }
        self.heard = epoch;
        match self.epochs_left.checked_sub(1) {
            Some(left) => {
                self.epochs_left = left;
                events.push(Event::Epoch(epoch));
            }
            None => self.is_epoch_due = true,
        }
    }

    fn make_room(&mut self, bytes: usize) -> Result<(), Refusal> {
        let waiting = self.waiting_bytes();
        if waiting + bytes <= OUTPUT_BYTES_MAX {
            return Ok(());
        }
        self.state = State::Over;
        Err(Refusal::Overflow(waiting))
    }
}

fn record_bytes_max(frame_bytes_max: usize) -> usize {
    PIECE_HEAD + RELAY_BYTES_MAX + PART_BYTES.max(frame_bytes_max)
}

fn piece_head(
    from: ShardId,
    to: ShardId,
    sent: Wall,
    news: Option<(u64, u64)>,
) -> [u8; PIECE_HEAD] {
    let (received, handled) = news.unwrap_or_default();
    let marks = if news.is_some() { HAS_NEWS } else { 0 };
    let mut head = [0; PIECE_HEAD];
    head[..2].copy_from_slice(&from.0.to_le_bytes());
    head[2..4].copy_from_slice(&to.0.to_le_bytes());
    head[4..8].copy_from_slice(&marks.to_le_bytes());
    head[8..16].copy_from_slice(&received.to_le_bytes());
    head[16..24].copy_from_slice(&handled.to_le_bytes());
    head[24..].copy_from_slice(&sent.0.to_le_bytes());
    head
}

/// - takes: the peer's number of shards; the parts of a record
fn read_piece(
    ours: &Ours,
    shards: u16,
    timing: &Timing,
    sealed: &[u8],
    open: &[u8],
) -> Result<Event, Refusal> {
    let mut fields = Fields(sealed);
    let (from, to, marks) = (fields.u16()?, fields.u16()?, fields.u32()?);
    let (received, handled, sent) = (fields.u64()?, fields.u64()?, Wall(fields.u64()?));
    if from >= shards {
        return Err(Refusal::FromShard(from));
    }
    if to >= ours.facts.shards {
        return Err(Refusal::ToShard(to));
    }
    // What was handled was received; without news there are no numbers.
    let is_sound = match marks {
        0 => (received, handled) == (0, 0),
        HAS_NEWS => handled <= received,
        _ => false,
    };
    let relay = fields.0;
    if !is_sound || relay.len() > RELAY_BYTES_MAX {
        return Err(Refusal::Malformed);
    }
    Ok(Event::Piece {
        from: ShardId(from),
        to: ShardId(to),
        sent: timing.departure(sent),
        frames: Batch::checked(open, ours.frame_bytes_max)?,
        news: (marks == HAS_NEWS).then_some((received, handled)),
        relay: relay.to_vec(),
    })
}
