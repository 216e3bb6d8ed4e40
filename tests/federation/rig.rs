//! One actor and what is round it: sockets that the test holds, shards that take what they get, a store in memory, time
//! that is told.

use corefire::base::instant::{Instant, Now, Wall};
use corefire::base::rng::Rng;
use corefire::federation::control::{Answered, Request};
use corefire::federation::discovery::{Plan, Security, Source, Target};
use corefire::federation::posh::{Fingerprints, PoshProblem};
use corefire::federation::{
    Action, ConnId, Connected, Effects, Federation, FederationConfig, Input, Limits, Lost, Note,
    PeerTls, Policy, Probe,
};
use corefire::frame::ring::Inward;
use corefire::frame::{Batch, Encoder, Envelope, Flags, Kind, Recipients};
use corefire::store::memory::{MemoryStore, MemoryWriter};
use corefire::store::{Reader, StoreOutcome, Ticket, Write, Writer};
use corefire::stream::dialback::DialbackSecret;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a shard got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Got {
    pub(crate) number: u64,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) kind: Kind,
    pub(crate) flags: Flags,
    pub(crate) text: String,
}

/// What the actor wants of the world, for the test to do.
#[derive(Debug)]
pub(crate) enum Wish {
    Resolve(ConnId, Arc<str>),
    Dial(ConnId, Arc<Plan>, usize),
    StartTls(ConnId),
    Posh(ConnId, Arc<str>),
    Close(ConnId),
    Abort(ConnId),
}

pub(crate) struct Rig {
    pub(crate) federation: Federation,
    pub(crate) fx: Effects,
    pub(crate) now: Now,
    pub(crate) wishes: VecDeque<Wish>,
    /// What came out for shards, in order.
    pub(crate) got: Vec<Got>,
    /// Epochs of a cluster of which shards were told that this node lets go of what it lost.
    pub(crate) sealed: Vec<u64>,
    /// Shards handle what they get at once.
    pub(crate) handles: bool,
    pub(crate) answers: BTreeMap<u64, Answered>,
    pub(crate) notes: Vec<Note>,
    /// Frames of ours that the actor has handled.
    pub(crate) handled: u64,
    pub(crate) store: MemoryStore,
    writer: MemoryWriter,
    /// The store answers when it is asked.
    pub(crate) stores: bool,
    asked: VecDeque<(Ticket, Result<Write, corefire::store::Query>)>,
    encoder: Encoder,
    sent: u64,
    shard: Inward,
    config: FederationConfig,
    seed: u64,
}

pub(crate) const START: Now =
    Now { mono: Instant(1_000_000_000_000), wall: Wall(1_700_000_000_000_000) };

pub(crate) fn config(domains: &str) -> FederationConfig {
    FederationConfig {
        domains: domains.split(' ').map(Into::into).collect(),
        components: Vec::new(),
        shards: 1,
        index: 0,
        cores: 1,
        node: None,
        incarnation: 1,
        stored: true,
        management: true,
        bidi: true,
        policy: Policy::default(),
        policies: Default::default(),
        allow: Vec::new(),
        block: Vec::new(),
        dialback_secret: DialbackSecret::new(domains.as_bytes()),
        posh: false,
        patience: Duration::from_secs(3_600),
        limits: Limits::default(),
    }
}

impl Rig {
    pub(crate) fn new(domains: &str) -> Rig {
        Rig::with(config(domains), 1)
    }

    pub(crate) fn with(config: FederationConfig, seed: u64) -> Rig {
        Rig::on(MemoryStore::new(), config, seed, START)
    }

    pub(crate) fn on(store: MemoryStore, config: FederationConfig, seed: u64, now: Now) -> Rig {
        let (writer, _) = store.open();
        let rng = Rng::from_u64(seed);
        let mut rig = Rig {
            federation: Federation::new(Arc::new(config.clone()), rng, now),
            fx: Effects::new(config.shards + config.cores),
            now,
            wishes: VecDeque::new(),
            got: Vec::new(),
            sealed: Vec::new(),
            handles: true,
            answers: BTreeMap::new(),
            notes: Vec::new(),
            handled: 0,
            store,
            writer,
            stores: true,
            asked: VecDeque::new(),
            encoder: Encoder::new(1 << 24),
            sent: 0,
            shard: Inward::default(),
            config,
            seed,
        };
        rig.turn();
        rig
    }

    /// As after kill -9: the store is what is left.
    pub(crate) fn restarted(self) -> Rig {
        Rig::on(self.store, self.config, self.seed + 1_000, self.now)
    }

    pub(crate) fn give(&mut self, input: Input<'_>) {
        self.federation.handle(self.now, input, &mut self.fx);
        self.turn();
    }

    /// Ends the turn and does what the actor wants, as far as no network is needed.
    pub(crate) fn turn(&mut self) {
        loop {
            self.federation.end_turn(self.now, &mut self.fx);
            for action in std::mem::take(&mut self.fx.actions) {
                match action {
                    Action::Resolve { conn, domain } => {
                        self.wishes.push_back(Wish::Resolve(conn, domain));
                    }
                    Action::Dial { conn, plan, first, .. } => {
                        self.wishes.push_back(Wish::Dial(conn, plan, first));
                    }
                    Action::StartTls { conn, .. } => self.wishes.push_back(Wish::StartTls(conn)),
                    Action::AskPosh { conn, domain } => {
                        self.wishes.push_back(Wish::Posh(conn, domain));
                    }
                    Action::Close(conn) => self.wishes.push_back(Wish::Close(conn)),
                    Action::Abort(conn) => self.wishes.push_back(Wish::Abort(conn)),
                    Action::ReadAgain(_) => {}
                    Action::Answer { number, answered } => {
                        assert!(self.answers.insert(number, *answered).is_none(), "one answer");
                    }
                    Action::Note(note) => self.notes.push(note),
                }
            }
            let writes = std::mem::take(&mut self.fx.writes);
            let queries = std::mem::take(&mut self.fx.queries);
            self.asked.extend(writes.into_iter().map(|(ticket, write)| (ticket, Ok(write))));
            self.asked.extend(queries.into_iter().map(|(ticket, query)| (ticket, Err(query))));
            let mut more = self.stores && !self.asked.is_empty();
            if self.stores {
                self.store_answers();
            }
            more |= self.shards();
            let news: Vec<_> = self.federation.ring_news().collect();
            for (ring, _, handled) in news {
                assert!(ring < self.config.shards + self.config.cores);
                if ring == 0 {
                    assert!(handled >= self.handled, "handled only rises");
                    self.handled = handled;
                }
            }
            if !more {
                break;
            }
        }
    }

    /// The store does what it was asked.
    pub(crate) fn store_answers(&mut self) {
        for (ticket, request) in std::mem::take(&mut self.asked) {
            let outcome = match request {
                Ok(write) => match self.writer.commit(&[write]) {
                    Ok(mut written) => StoreOutcome::Written(written.remove(0)),
                    Err(_) => {
                        let _ = self.writer.reopen();
                        StoreOutcome::Failed
                    }
                },
                Err(query) => match self.store.reader().read(&query) {
                    Ok(answer) => StoreOutcome::Answer(answer),
                    Err(_) => StoreOutcome::Failed,
                },
            };
            self.federation.handle(self.now, Input::Stored { ticket, outcome }, &mut self.fx);
        }
    }

    /// Shards take their frames; gives whether there were any.
    fn shards(&mut self) -> bool {
        let batch = std::mem::take(&mut self.fx.outbox[0]);
        for envelope in &batch {
            assert_eq!(envelope.number, self.shard.received_number() + 1, "frames are numbered");
            self.shard.received(envelope.number);
            if envelope.kind == Kind::Control {
                assert_eq!(envelope.subtype, corefire::frame::SEALED);
                self.sealed.push(std::str::from_utf8(envelope.stanza).unwrap().parse().unwrap());
                continue;
            }
            let text = std::str::from_utf8(envelope.stanza).unwrap().to_owned();
            assert!(text[..envelope.open_end as usize].ends_with('>'), "{text}");
            assert!(text[envelope.close_start as usize..].starts_with("</"), "{text}");
            self.got.push(Got {
                number: envelope.number,
                from: envelope.from.to_owned(),
                to: envelope.to.to_owned(),
                kind: envelope.kind,
                flags: envelope.flags,
                text,
            });
        }
        if self.handles && !batch.is_empty() {
            self.handle_all();
        }
        !batch.is_empty()
    }

    /// Shards have handled all that they got.
    pub(crate) fn handle_all(&mut self) {
        let number = self.shard.received_number();
        let input = Input::Handled { by: 0, received: number, handled: number };
        self.federation.handle(self.now, input, &mut self.fx);
    }

    /// What came out for shards since the last time, as text.
    pub(crate) fn texts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.got).into_iter().map(|got| got.text).collect()
    }

    /// A client's stanza leaves its shard. Gives the number of its frame.
    pub(crate) fn send_flagged(
        &mut self,
        text: &str,
        kind: Kind,
        subtype: u8,
        flags: Flags,
    ) -> u64 {
        self.sent += 1;
        let attr = |name: &str| {
            let at = text.find(&format!("{name}='"))? + name.len() + 2;
            Some(&text[at..at + text[at..].find('\'')?])
        };
        let (from, to) = (attr("from").unwrap(), attr("to").unwrap());
        let open_end = u32::try_from(text.find('>').unwrap() + 1).unwrap();
        let close_start = u32::try_from(text.rfind("</").unwrap()).unwrap();
        let mut batch = Batch::new();
        let envelope = Envelope {
            epoch: 0,
            number: self.sent,
            hops: 0,
            ingress: self.now.wall,
            trace: None,
            flags,
            from,
            to,
            also_to: Recipients::NONE,
            kind,
            subtype,
            open_end,
            close_start,
            stanza: text.as_bytes(),
        };
        self.encoder.append(&mut batch, &envelope).unwrap();
        self.give(Input::Frames { from: 0, sent: self.now.mono, batch: &batch });
        self.sent
    }

    /// In a cluster: the shard says something of an epoch.
    pub(crate) fn tell_epoch(&mut self, what: u8, epoch: u64) {
        self.sent += 1;
        let text = epoch.to_string();
        let mut batch = Batch::new();
        let envelope = Envelope {
            epoch,
            number: self.sent,
            hops: 0,
            ingress: self.now.wall,
            trace: None,
            flags: Flags::default(),
            from: "",
            to: "",
            also_to: Recipients::NONE,
            kind: Kind::Control,
            subtype: what,
            open_end: 0,
            close_start: 0,
            stanza: text.as_bytes(),
        };
        self.encoder.append(&mut batch, &envelope).unwrap();
        self.give(Input::Frames { from: 0, sent: self.now.mono, batch: &batch });
    }

    /// A message that is stored, and acknowledged when it is safe.
    pub(crate) fn message(&mut self, from: &str, to: &str, id: &str) -> u64 {
        let text = format!(
            "<message from='{from}' to='{to}' id='{id}' type='chat'><body>{id}</body></message>"
        );
        let flags = Flags::STORABLE.with(Flags::WANTS_ACK).with(Flags::CONTENT);
        self.send_flagged(&text, Kind::Message, 1, flags)
    }

    pub(crate) fn iq(&mut self, from: &str, to: &str, id: &str) -> u64 {
        let text =
            format!("<iq from='{from}' to='{to}' id='{id}' type='get'><query xmlns='u:q'/></iq>");
        self.send_flagged(&text, Kind::Iq, 0, Flags::default())
    }

    pub(crate) fn frames_sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn advance(&mut self, span: Duration) {
        let until = self.now.mono + span;
        while let Some(due) = self.federation.next_due().filter(|due| *due <= until) {
            let step = due.since(self.now.mono);
            self.pass(step);
            self.give(Input::Tick);
        }
        let rest = until.since(self.now.mono);
        self.pass(rest);
    }

    fn pass(&mut self, span: Duration) {
        self.now.mono = self.now.mono + span;
        self.now.wall = Wall(self.now.wall.0 + u64::try_from(span.as_micros()).unwrap());
    }

    pub(crate) fn probe(&mut self) -> Probe {
        self.federation.probe().clone()
    }

    pub(crate) fn ask(&mut self, request: Request) -> Option<Answered> {
        let number = self.seed + self.answers.len() as u64 + 77;
        self.give(Input::Asked { number, request });
        self.answers.get(&number).cloned()
    }

    // Sockets.

    /// A peer connects.
    pub(crate) fn accept(&mut self, address: &str) -> ConnId {
        let peer: SocketAddr = address.parse().unwrap();
        self.federation.accept(self.now, peer, false).expect("there is room")
    }

    pub(crate) fn hear(&mut self, conn: ConnId, text: &str) {
        self.give(Input::Bytes { conn, bytes: text.as_bytes() });
    }

    /// What the actor has written to a connection.
    pub(crate) fn said(&mut self, conn: ConnId) -> String {
        let text = match self.federation.output(conn) {
            Some(output) => String::from_utf8(output.bytes.to_vec()).unwrap(),
            None => return String::new(),
        };
        self.federation.flushing(conn);
        self.federation.output_left(conn, text.len(), self.now.mono);
        self.turn();
        text
    }

    pub(crate) fn secured(&mut self, conn: ConnId, tls: PeerTls) {
        let took = Duration::from_millis(2);
        self.give(Input::Secured { conn, tls: Box::new(tls), took });
    }

    pub(crate) fn lose(&mut self, conn: ConnId) {
        self.give(Input::Closed { conn, why: Lost::Reset });
    }

    /// The next look-up, which finds these targets: `host:port`, or `tls:host:port`, separated by blanks.
    pub(crate) fn resolve(&mut self, domain: &str, targets: &str) -> ConnId {
        let is_it = |wish: &Wish| matches!(wish, Wish::Resolve(..));
        let Some(Wish::Resolve(conn, asked)) = self.next_wish(is_it) else {
            panic!("no look-up is wanted")
        };
        assert_eq!(&*asked, domain);
        let plan = Arc::new(plan(targets));
        let took = Duration::from_millis(3);
        self.give(Input::Resolved { conn, outcome: Ok(plan), took });
        conn
    }

    /// The next dial leads to the target of that number.
    pub(crate) fn connect(&mut self, target: usize, tls: Option<PeerTls>) -> ConnId {
        let is_it = |wish: &Wish| matches!(wish, Wish::Dial(..));
        let Some(Wish::Dial(conn, _, first)) = self.next_wish(is_it) else {
            panic!("no dial is wanted")
        };
        assert!(target >= first);
        let took = Duration::from_millis(1);
        let connected = Connected {
            target,
            address: "192.0.2.1:5269".parse().unwrap(),
            took,
            tls: tls.map(|tls| (Box::new(tls), took)),
            attempts: Vec::new(),
        };
        self.give(Input::Connected { conn, connected: Box::new(connected) });
        conn
    }

    /// The handshake that the actor wants next is done.
    pub(crate) fn shake(&mut self, tls: PeerTls) -> ConnId {
        let is_it = |wish: &Wish| matches!(wish, Wish::StartTls(..));
        let Some(Wish::StartTls(conn)) = self.next_wish(is_it) else {
            panic!("no handshake is wanted")
        };
        self.secured(conn, tls);
        conn
    }

    /// The document of a domain that is asked for is there, or is not.
    pub(crate) fn fetched(
        &mut self,
        domain: &str,
        outcome: Result<Fingerprints, PoshProblem>,
    ) -> ConnId {
        let is_it = |wish: &Wish| matches!(wish, Wish::Posh(..));
        let Some(Wish::Posh(conn, asked)) = self.next_wish(is_it) else {
            panic!("no document is asked for")
        };
        assert_eq!(&*asked, domain);
        let took = Duration::from_millis(4);
        self.give(Input::Posh { conn, domain: asked, outcome: outcome.map(Arc::new), took });
        conn
    }

    fn next_wish(&mut self, is_it: impl Fn(&Wish) -> bool) -> Option<Wish> {
        let at = self.wishes.iter().position(is_it)?;
        self.wishes.remove(at)
    }

    /// Whether the actor closed this connection, in whatever way; the close is carried out.
    pub(crate) fn has_closed(&mut self, conn: ConnId) -> bool {
        let is_it = |wish: &Wish| match wish {
            Wish::Close(it) | Wish::Abort(it) => *it == conn,
            _ => false,
        };
        let Some(at) = self.wishes.iter().position(is_it) else { return false };
        if matches!(self.wishes.remove(at), Some(Wish::Close(_))) {
            self.give(Input::Closed { conn, why: Lost::Closed });
        }
        true
    }
}

pub(crate) fn plan(targets: &str) -> Plan {
    let target = |text: &str| {
        let (security, text) = match text.strip_prefix("tls:") {
            Some(rest) => (Security::DirectTls, rest),
            None => (Security::StartTls, text),
        };
        let (host, port) = text.rsplit_once(':').unwrap();
        Target {
            host: host.to_owned(),
            port: port.parse().unwrap(),
            security,
            addresses: vec!["192.0.2.1".parse().unwrap()],
            tlsa: Vec::new(),
        }
    };
    Plan {
        server_name: None,
        source: Source::Srv,
        targets: targets.split(' ').map(target).collect(),
        ttl_s: 60,
    }
}
