//! How long stanzas take through this core, and logins: histograms by kind, path and stage (DESIGN section 9).
//!
//! The shard reads no clock: it counts with the times of its inputs, and with that at which a turn's output had left,
//! which it is told. Only parsing and routing are shorter than what inputs tell: for them the runtime lends a clock, which
//! is read for one stanza in 64. A stanza's way begins at the read that completed it; a frame tells when that was.
//!
//! A turn's deliveries to one connection out of one read are one entry: what eight messages in one read cost here is
//! little more than what one costs.

use super::effect::ConnId;
use super::peers::Peer;
use super::ring::FrameRef;
use super::{Core, Shard};
use crate::base::hash::Map;
use crate::base::histogram::Counts;
use crate::base::instant::{Instant, Now};
use crate::cluster::placement::NodeId;
use crate::frame::{Envelope, Flags, Kind};
use crate::stream::sasl::{Mechanism, TokenMechanism};
use crate::xmpp::stanza::StanzaKind;
use std::time::Duration;

/// Of so many stanzas one has its parsing and routing timed.
const SAMPLED: u32 = 64;
/// Deliveries to connections that take no more now, which wait to be counted.
const BLOCKED_MAX: usize = 4_096;

/// Which way a stanza went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Sender and recipient are on one core.
    #[default]
    SameShard,
    /// Between two cores of this node.
    Core,
    /// Between two nodes.
    Node,
}

impl Path {
    pub const ALL: [Path; 3] = [Path::SameShard, Path::Core, Path::Node];

    pub fn name(self) -> &'static str {
        match self {
            Path::SameShard => "same_shard",
            Path::Core => "core",
            Path::Node => "node",
        }
    }
}

/// A part of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// From the read to the end of parsing, what came before it in the same read included. Sampled.
    Parse,
    /// From there until it is delivered, answered, or in a frame. Sampled.
    Route,
    /// From the end of the turn that sent the frame until the other core takes it.
    CoreHop,
    /// The same to a core of another node: an estimate, as their clocks are compared by pings alone.
    NodeHop,
    /// From the append to the log until it is durable.
    Store,
    /// From the input that delivered it until the kernel has it: what a turn delivers leaves at the turn's end.
    Write,
    /// From delivery until the client has acknowledged it (XEP-0198).
    Ack,
    /// From the read to the write.
    Total,
}

impl Stage {
    pub const ALL: [Stage; 8] = [
        Stage::Parse,
        Stage::Route,
        Stage::CoreHop,
        Stage::NodeHop,
        Stage::Store,
        Stage::Write,
        Stage::Ack,
        Stage::Total,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Stage::Parse => "parse",
            Stage::Route => "route",
            Stage::CoreHop => "core_hop",
            Stage::NodeHop => "node_hop",
            Stage::Store => "store",
            Stage::Write => "write",
            Stage::Ack => "client_ack",
            Stage::Total => "total",
        }
    }
}

/// What a client logged in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoginBy {
    Sasl(Mechanism),
    Token(TokenMechanism),
}

/// What a login led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LoginEnd {
    Bound,
    /// A session of before goes on.
    Resumed,
}

impl LoginEnd {
    pub const ALL: [LoginEnd; 2] = [LoginEnd::Bound, LoginEnd::Resumed];

    pub fn name(self) -> &'static str {
        match self {
            LoginEnd::Bound => "bound",
            LoginEnd::Resumed => "resumed",
        }
    }
}

const KINDS: [StanzaKind; 3] = [StanzaKind::Message, StanzaKind::Presence, StanzaKind::Iq];
const MECHANISMS: usize = Mechanism::ALL.len() + TokenMechanism::ALL.len();

/// What one shard has measured since this was last taken from it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latencies {
    stanzas: [[[Counts; Stage::ALL.len()]; Path::ALL.len()]; KINDS.len()],
    logins: [[Counts; LoginEnd::ALL.len()]; MECHANISMS],
    /// Deliveries that were not counted, since too many waited for slow readers.
    pub uncounted: u64,
}

impl Latencies {
    fn stanza(&mut self, kind: StanzaKind, path: Path, stage: Stage) -> &mut Counts {
        &mut self.stanzas[kind_index(kind)][path as usize][stage as usize]
    }

    /// Those that have counted.
    pub fn stanzas(&self) -> impl Iterator<Item = (StanzaKind, Path, Stage, &Counts)> {
        KINDS.into_iter().zip(&self.stanzas).flat_map(|(kind, paths)| {
            Path::ALL.into_iter().zip(paths).flat_map(move |(path, stages)| {
                let stages = Stage::ALL.into_iter().zip(stages);
                stages.map(move |(stage, counts)| (kind, path, stage, counts))
            })
        })
    }

    /// By the name of their mechanism.
    pub fn logins(&self) -> impl Iterator<Item = (&'static str, LoginEnd, &Counts)> {
        let names = Mechanism::ALL.into_iter().map(Mechanism::name);
        let names = names.chain(TokenMechanism::ALL.into_iter().map(TokenMechanism::name));
        names.zip(&self.logins).flat_map(|(name, ends)| {
            LoginEnd::ALL.into_iter().zip(ends).map(move |(end, counts)| (name, end, counts))
        })
    }

    /// Counts from nothing again, in the same memory.
    pub fn clear(&mut self) {
        self.stanzas.as_flattened_mut().as_flattened_mut().iter_mut().for_each(Counts::clear);
        self.logins.as_flattened_mut().iter_mut().for_each(Counts::clear);
        self.uncounted = 0;
    }

    /// Bytes that the histograms hold.
    pub fn memory(&self) -> usize {
        let stanzas = self.stanzas.as_flattened().as_flattened().iter();
        stanzas.chain(self.logins.as_flattened()).map(Counts::memory).sum::<usize>()
            + size_of::<Latencies>()
    }
}

fn kind_index(kind: StanzaKind) -> usize {
    match kind {
        StanzaKind::Message => 0,
        StanzaKind::Presence => 1,
        StanzaKind::Iq => 2,
    }
}

/// What is handled now, if its way began with a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passage {
    pub kind: StanzaKind,
    pub path: Path,
    read: Instant,
}

impl Passage {
    /// In one byte, for who keeps it and need not know what it says.
    pub(super) fn label(self) -> u8 {
        (kind_index(self.kind) << 2) as u8 | self.path as u8
    }
}

/// Deliveries of one passage to one connection in one turn.
#[derive(Clone, Copy, Debug)]
struct Delivered {
    conn: ConnId,
    passage: Passage,
    at: Instant,
    count: u32,
}

/// Reads a clock for what is sampled.
pub type Laps = Box<dyn Fn() -> Instant>;

/// The instruments of one shard.
#[derive(Default)]
pub(super) struct Meter {
    /// Nothing is measured without one.
    laps: Option<Laps>,
    counts: Box<Latencies>,
    pub passage: Option<Passage>,
    /// Of this turn.
    delivered: Vec<Delivered>,
    /// To connections whose output did not leave with its turn.
    blocked: Map<ConnId, Vec<Delivered>>,
    blocked_count: usize,
    seen: u32,
    /// Where the present stanza went: to another core, if it was sent to one.
    pub way: Path,
    /// How long the frames that are taken next were on their way from another node.
    from_afar: Option<Duration>,
    /// How far clocks of other nodes are before ours, in microseconds, as far as it is known.
    clocks_ahead: Map<NodeId, i64>,
}

impl Meter {
    pub(super) fn start(&mut self, laps: Laps) {
        self.laps = Some(laps);
    }

    pub(super) fn take(&mut self, spare: Box<Latencies>) -> Box<Latencies> {
        std::mem::replace(&mut self.counts, spare)
    }

    fn is_on(&self) -> bool {
        self.laps.is_some()
    }

    /// A client's or component's stanza is handled from here on.
    pub(super) fn enter(&mut self, kind: StanzaKind, now: Now) {
        self.passage =
            self.is_on().then_some(Passage { kind, path: Path::SameShard, read: now.mono });
    }

    /// Nothing is: what is sent has no read that it began with.
    pub(super) fn leave(&mut self) {
        self.passage = None;
    }

    /// A frame is delivered from here on, from a node whose clock is so far before ours.
    fn enter_frame(
        &mut self,
        envelope: &Envelope<'_>,
        path: Path,
        ahead_us: Option<i64>,
        now: Now,
    ) {
        let kind = match envelope.kind {
            Kind::Message => StanzaKind::Message,
            Kind::Presence => StanzaKind::Presence,
            Kind::Iq => StanzaKind::Iq,
            Kind::Control => return self.leave(),
        };
        if !self.is_on() || envelope.flags.contains(Flags::STAMPED) {
            // What comes again tells its first time.
            return self.leave();
        }
        // What the clocks of two nodes differ by says nothing of the way.
        let Some(ahead_us) = ahead_us else { return self.leave() };
        // The wall clock is the one that frames carry. Where it was set meanwhile, that is all which is wrong.
        let ingress = envelope.ingress.0.saturating_add_signed(ahead_us.saturating_neg());
        let micros = now.wall.0.saturating_sub(ingress);
        let read = Instant(now.mono.0.saturating_sub(micros.saturating_mul(1_000)));
        self.passage = Some(Passage { kind, path, read });
    }

    /// Where the stanza is one of those that are timed closely: the time, now that it is parsed.
    pub(super) fn parsed(&mut self) -> Option<Instant> {
        let laps = self.laps.as_ref()?;
        self.way = Path::SameShard;
        self.seen = self.seen.wrapping_add(1);
        self.seen.is_multiple_of(SAMPLED).then(laps)
    }

    /// It is routed, and came with the input of `now`.
    pub(super) fn routed(&mut self, kind: StanzaKind, now: Now, parsed: Instant) {
        let Some(routed) = self.laps.as_ref().map(|laps| laps()) else { return };
        self.counts.stanza(kind, self.way, Stage::Parse).record(parsed.since(now.mono));
        self.counts.stanza(kind, self.way, Stage::Route).record(routed.since(parsed));
    }

    /// What is handled now was delivered to a connection.
    pub(super) fn delivered(&mut self, conn: ConnId, now: Now) {
        let Some(passage) = self.passage else { return };
        match self.delivered.last_mut() {
            Some(last) if last.conn == conn && last.passage == passage && last.at == now.mono => {
                last.count += 1;
            }
            _ => self.delivered.push(Delivered { conn, passage, at: now.mono, count: 1 }),
        }
    }

    /// Where the list of deliveries stood, so that a fault's can be cut back.
    pub(super) fn mark(&self) -> usize {
        self.delivered.len()
    }

    /// Entries that were there have grown by what is cut back: that is not worth keeping track of.
    pub(super) fn cut_back(&mut self, mark: usize) {
        self.delivered.truncate(mark);
    }

    /// Frames have come from another core of this node, `took` ago sent; or from another node, `None`.
    pub(super) fn crossed(&mut self, kinds: [u32; 3], took: Option<Duration>) {
        let (path, stage, took) = match (took, self.from_afar.take()) {
            (Some(took), _) => (Path::Core, Stage::CoreHop, took),
            (None, Some(took)) => (Path::Node, Stage::NodeHop, took),
            (None, None) => return,
        };
        if !self.is_on() {
            return;
        }
        for (kind, count) in KINDS.into_iter().zip(kinds).filter(|(_, count)| *count > 0) {
            self.counts.stanza(kind, path, stage).record_many(took, count);
        }
    }

    pub(super) fn stored(&mut self, path: Path, took: Duration) {
        if self.is_on() {
            self.counts.stanza(StanzaKind::Message, path, Stage::Store).record(took);
        }
    }

    pub(super) fn acknowledged(&mut self, label: u8, took: Duration) {
        let kind = KINDS.get(usize::from(label >> 2)).copied();
        let path = Path::ALL.get(usize::from(label & 3)).copied();
        if let Some((kind, path)) = kind.zip(path).filter(|_| self.is_on()) {
            self.counts.stanza(kind, path, Stage::Ack).record(took);
        }
    }

    pub(super) fn logged_in(&mut self, by: LoginBy, end: LoginEnd, took: Duration) {
        if !self.is_on() {
            return;
        }
        let place = match by {
            LoginBy::Sasl(mechanism) => Mechanism::ALL.iter().position(|one| *one == mechanism),
            LoginBy::Token(mechanism) => TokenMechanism::ALL
                .iter()
                .position(|one| *one == mechanism)
                .map(|place| Mechanism::ALL.len() + place),
        };
        if let Some(ends) = place.and_then(|place| self.counts.logins.get_mut(place)) {
            ends[end as usize].record(took);
        }
    }

    fn count(&mut self, delivered: &Delivered, at: Instant) {
        let Delivered { passage: Passage { kind, path, read }, count, .. } = *delivered;
        let stages = &mut self.counts.stanzas[kind_index(kind)][path as usize];
        stages[Stage::Write as usize].record_many(at.since(delivered.at), count);
        stages[Stage::Total as usize].record_many(at.since(read), count);
    }

    fn wait(&mut self, delivered: Delivered) {
        if self.blocked_count >= BLOCKED_MAX {
            self.counts.uncounted += u64::from(delivered.count);
            return;
        }
        self.blocked_count += 1;
        self.blocked.entry(delivered.conn).or_default().push(delivered);
    }

    /// The connection is gone: what it did not take is not counted.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.unblock(conn);
    }

    fn unblock(&mut self, conn: ConnId) -> Vec<Delivered> {
        if self.blocked.is_empty() {
            return Vec::new();
        }
        let waiting = self.blocked.remove(&conn).unwrap_or_default();
        self.blocked_count -= waiting.len();
        waiting
    }
}

impl Shard {
    /// The frames that are taken next left their shard, on another node, so long ago; and that node's clock is so far before
    /// ours. Both are estimates.
    pub fn came_from_afar(&mut self, peer: Peer, took: Duration, clock_ahead_us: i64) {
        let node = self.core.peers.place(peer).run.node;
        self.core.meter.from_afar = Some(took);
        self.core.meter.clocks_ahead.insert(node, clock_ahead_us);
    }
}

impl Core {
    /// A frame is delivered from here on.
    pub(super) fn enter_frame(&mut self, envelope: &Envelope<'_>, at: FrameRef) {
        let path = self.path(at);
        let ahead_us = match path {
            Path::SameShard | Path::Core => Some(0),
            Path::Node => {
                let node = self.peers.place(Peer(at.ring)).run.node;
                self.meter.clocks_ahead.get(&node).copied()
            }
        };
        self.meter.enter_frame(envelope, path, ahead_us, self.now);
    }

    /// The way that a frame from this ring has come.
    pub(super) fn path(&self, at: FrameRef) -> Path {
        if at.ring == self.id.0 {
            Path::SameShard
        } else if self.peers.is_local(Peer(at.ring)) {
            Path::Core
        } else {
            Path::Node
        }
    }

    /// The client of this connection has its session.
    pub(super) fn login_ends(&mut self, id: ConnId, end: LoginEnd) {
        let Some(conn) = self.conns.get(id.0) else { return };
        if let Some(by) = conn.login_by {
            self.meter.logged_in(by, end, self.now.mono.since(conn.began));
        }
    }

    /// The turn's output has left, but for that of connections which take no more now.
    pub(super) fn output_written(&mut self, at: Instant) {
        let mut list = std::mem::take(&mut self.meter.delivered);
        for delivered in list.drain(..) {
            match self.conns.get(delivered.conn.0) {
                Some(conn) if conn.blocked => self.meter.wait(delivered),
                Some(_) => self.meter.count(&delivered, at),
                None => {}
            }
        }
        self.meter.delivered = list;
    }

    /// All output of a connection has left that had taken no more.
    pub(super) fn output_unblocked(&mut self, id: ConnId, at: Instant) {
        for delivered in self.meter.unblock(id) {
            self.meter.count(&delivered, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sets of a shard's histograms are there at a time: one counts while the other is merged.
    #[test]
    fn two_full_sets_fit_into_two_megabytes() {
        let mut all = Latencies::default();
        // All that there can be: what stays on its shard crosses nothing, and messages alone are stored.
        for kind in KINDS {
            for path in Path::ALL {
                for stage in Stage::ALL {
                    let none = path != Path::Core && stage == Stage::CoreHop
                        || path != Path::Node && stage == Stage::NodeHop
                        || kind != StanzaKind::Message && stage == Stage::Store;
                    if !none {
                        all.stanza(kind, path, stage).record(Duration::from_millis(1));
                    }
                }
            }
        }
        for counts in all.logins.as_flattened_mut() {
            counts.record(Duration::from_millis(1));
        }
        assert!(2 * all.memory() < 2_000_000, "{} bytes", all.memory());
        all.clear();
        assert!(all.stanzas().all(|(.., counts)| counts.is_empty()));
    }
}
