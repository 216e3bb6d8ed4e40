//! Threads of links against each other on loopback, and what else may come to their port.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::calls::Ear;
use super::super::tls::{LinkTls, expected_name};
use super::*;
use crate::base::instant::Wall;
use crate::cluster::link::{Event, Link, Refusal};
use crate::cluster::placement::NodeId;
use crate::cluster::view::Place;
use crate::frame::{Batch, Encoder, Envelope, Flags, Kind, Recipients, VERSIONS};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

const SECRET: &str = "u7Zq0b1Vh2JtLxYw9cPmN4sKdRfGe8aQ6oTiB3yXz5E";
const OTHER_SECRET: &str = "x7Zq0b1Vh2JtLxYw9cPmN4sKdRfGe8aQ6oTiB3yXz5E";
const SHARDS: u16 = 2;
/// More than anything takes here, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    facts: NodeFacts,
    thread: LinksThread,
    inbox: Receiver<(ShardId, Incoming)>,
    events: UnboundedReceiver<LinkEvent>,
}

struct Shards(Sender<(ShardId, Incoming)>);

impl Sink for Shards {
    fn deliver(&self, shard: ShardId, incoming: Incoming) {
        let _ = self.0.send((shard, incoming));
    }
}

fn facts(node: u32, link: SocketAddr) -> NodeFacts {
    NodeFacts {
        name: format!("node-{node}"),
        run: Run { node: NodeId(node), incarnation: 7 },
        shards: SHARDS,
        weight: 1,
        link,
        clients: Vec::new(),
        components: Vec::new(),
        federates: false,
        frames: VERSIONS,
        version: "test".into(),
    }
}

impl Node {
    fn start(node: u32, secret: &str) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let facts = facts(node, listener.local_addr().unwrap());
        let settings = Settings {
            listener,
            facts: facts.clone(),
            secret: Secret::new(secret).unwrap(),
            frame_bytes_max: 1 << 20,
            clock: Clock::start(),
            seed: [u8::try_from(node).unwrap(); 32],
        };
        let (sender, inbox) = channel();
        let (tell, events) = unbounded_channel();
        let thread = super::start(settings, Arc::new(Shards(sender)), tell).unwrap();
        Node { facts, thread, inbox, events }
    }

    fn peers(&self, peers: &[&NodeFacts]) {
        let peers = peers.iter().map(|facts| (*facts).clone()).collect();
        self.thread.links().command(Command::Peers(peers));
    }

    fn next(&self) -> (ShardId, Incoming) {
        self.inbox.recv_timeout(PATIENCE).unwrap()
    }

    /// Every shard is told, in order.
    fn expect_up(&self, run: Run) {
        for shard in 0..SHARDS {
            let (to, incoming) = self.next();
            assert!(matches!(incoming, Incoming::Up(up) if up == run), "{incoming:?}");
            assert_eq!(to, ShardId(shard));
        }
    }

    fn expect_down(&self, run: Run) {
        for _ in 0..SHARDS {
            let (_, incoming) = self.next();
            assert!(matches!(incoming, Incoming::Down(down) if down == run), "{incoming:?}");
        }
    }

    /// Frame `number` from our shard 0 to shard 1 of `to`.
    fn send(&self, to: Run, number: u64) {
        let place = Place { run: to, shard: ShardId(1) };
        self.thread.links().send(Outgoing {
            from: ShardId(0),
            to: place,
            frames: frame(number),
            news: Some((number, number / 2)),
            relay: number.to_le_bytes().to_vec(),
        });
    }

    fn expect_piece(&self, run: Run, number: u64) {
        let (to, incoming) = self.next();
        let Incoming::Piece { from, frames, news, relay, .. } = incoming else {
            panic!("{incoming:?}")
        };
        assert_eq!((to, from), (ShardId(1), Place { run, shard: ShardId(0) }));
        assert_eq!(frames.iter().map(|frame| frame.number).collect::<Vec<_>>(), [number]);
        assert_eq!((news, relay), (Some((number, number / 2)), number.to_le_bytes().to_vec()));
    }

    fn refused(&self, word: &str) -> u64 {
        self.thread.links().figures().refused.get(word).copied().unwrap_or(0)
    }

    fn peer(&self) -> PeerFigures {
        self.thread.links().figures().peers.first().cloned().unwrap_or_default()
    }

    fn event(&mut self) -> LinkEvent {
        self.events.blocking_recv().unwrap()
    }
}

fn frame(number: u64) -> Batch {
    let mut batch = Batch::new();
    let envelope = Envelope {
        epoch: 1,
        number,
        hops: 1,
        ingress: Wall(5),
        trace: None,
        flags: Flags::default(),
        from: "a@b/c",
        to: "d@e",
        also_to: Recipients::NONE,
        kind: Kind::Message,
        subtype: 0,
        open_end: 0,
        close_start: 0,
        stanza: b"hello",
    };
    Encoder::new(4096).append(&mut batch, &envelope).unwrap();
    batch
}

/// Of figures, which nobody announces.
fn wait_until(mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "it never came to be so");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn pair() -> (Node, Node) {
    let (one, two) = (Node::start(1, SECRET), Node::start(2, SECRET));
    one.peers(&[&one.facts, &two.facts]);
    two.peers(&[&one.facts, &two.facts]);
    one.expect_up(two.facts.run);
    two.expect_up(one.facts.run);
    (one, two)
}

/// A wire that can be cut.
struct Wire {
    address: SocketAddr,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    fn to(target: SocketAddr) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ends = Arc::new(Mutex::new(Vec::new()));
        let kept: Arc<Mutex<Vec<TcpStream>>> = ends.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(target) else { continue };
                for (mut from, mut to) in [(&near, &far), (&far, &near)]
                    .map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
                {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                kept.lock().unwrap().extend([near, far]);
            }
        });
        Wire { address, ends }
    }

    fn cut(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

/// A node of ours that says what it likes: its certificate is for `name`.
struct Impostor {
    tls: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
    link: Link,
}

impl Impostor {
    fn dial(target: &NodeFacts, name: &str, facts: NodeFacts) -> Impostor {
        let secret = Secret::new(SECRET).unwrap();
        let tls = LinkTls::new(&secret, name, Clock::start().now().wall).unwrap();
        let server = expected_name(&target.name).unwrap();
        let client = rustls::ClientConnection::new(tls.client, server).unwrap();
        let stream = TcpStream::connect(target.link).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut cluster = [0; 16];
        cluster.copy_from_slice(&secret.derive(Label::Cluster)[..16]);
        let ours = Arc::new(Ours { facts, cluster, frame_bytes_max: 1 << 20 });
        let link = Link::dial(ours, target.clone(), 0);
        let mut impostor = Impostor { tls: rustls::StreamOwned::new(client, stream), link };
        impostor.flush();
        impostor
    }

    fn flush(&mut self) {
        let mut bytes = Vec::new();
        self.link.output(&mut bytes);
        self.link.written(bytes.len());
        self.tls.write_all(&bytes).unwrap();
    }

    /// The first event but epochs, or how it ended.
    fn hear(&mut self) -> Result<Event, Refusal> {
        let (mut buffer, mut events) = ([0; 4096], Vec::new());
        loop {
            let taken = self.tls.read(&mut buffer).unwrap();
            assert!(taken > 0, "closed without a word");
            self.link.receive(Clock::start().now(), &buffer[..taken], &mut events)?;
            events.retain(|event| !matches!(event, Event::Epoch(_)));
            if !events.is_empty() {
                return Ok(events.remove(0));
            }
        }
    }
}

#[test]
fn pieces_arrive_in_order_both_ways() {
    let (one, two) = pair();
    for number in 0..1_000 {
        one.send(two.facts.run, number);
        two.send(one.facts.run, number);
    }
    for number in 0..1_000 {
        one.expect_piece(two.facts.run, number);
        two.expect_piece(one.facts.run, number);
    }
    wait_until(|| one.peer().estimate.is_some() && two.peer().estimate.is_some());
    let figures = one.peer();
    assert_eq!((figures.state, figures.pieces_in, figures.pieces_out), (LinkState::Up, 1000, 1000));
    // One clock: what is estimated is within what it may be wrong.
    let estimate = figures.estimate.unwrap();
    assert!(estimate.offset_us.unsigned_abs() <= estimate.error_us + 1_000, "{estimate:?}");
    wait_until(|| one.peer().bytes_out > 100_000 && one.peer().queue_bytes == 0);
}

#[test]
fn large_pieces_go_both_ways_at_once() {
    let (one, two) = pair();
    let relay = vec![7; 6 << 20];
    for (from, to) in [(&one, &two), (&two, &one)] {
        for _ in 0..4 {
            let to = Place { run: to.facts.run, shard: ShardId(0) };
            let (frames, relay) = (Batch::new(), relay.clone());
            let piece = Outgoing { from: ShardId(1), to, frames, news: None, relay };
            from.thread.links().send(piece);
        }
    }
    for node in [&one, &two] {
        for _ in 0..4 {
            let (_, Incoming::Piece { relay: came, .. }) = node.next() else { panic!() };
            assert!(came == relay);
        }
    }
}

#[test]
fn a_cut_link_comes_again() {
    let (one, two) = (Node::start(1, SECRET), Node::start(2, SECRET));
    let wire = Wire::to(two.facts.link);
    one.peers(&[&NodeFacts { link: wire.address, ..two.facts.clone() }]);
    two.peers(&[&one.facts]);
    for round in 0..3 {
        one.expect_up(two.facts.run);
        two.expect_up(one.facts.run);
        one.send(two.facts.run, round);
        two.expect_piece(one.facts.run, round);
        wire.cut();
        one.expect_down(two.facts.run);
        two.expect_down(one.facts.run);
    }
    one.expect_up(two.facts.run);
    assert_eq!((one.peer().reconnects, one.peer().ups), (3, 4));
}

#[test]
fn nodes_answer_each_other_and_who_does_not_is_not_waited_for() {
    let (one, mut two) = pair();
    let (ear, _questions) = Ear::new();
    let calls = ear.calls(one.thread.links().clone());
    let mut heard = one.events;
    let ears = std::thread::spawn(move || {
        while let Some(event) = heard.blocking_recv() {
            if let LinkEvent::Answered(from, number, text) = event {
                ear.answered(from, number, text);
            }
        }
    });
    let (run, stranger) = (two.facts.run, Run { node: NodeId(9), incarnation: 1 });
    let links = two.thread.links().clone();
    let answering = std::thread::spawn(move || {
        let mut next = || loop {
            if let LinkEvent::Asked(from, number, text) = two.event() {
                return (from, number, text);
            }
        };
        let (from, number, text) = next();
        // What nobody asked, and an answer to the question.
        links.answer(from, number + 77, b"nonsense".to_vec());
        links.answer(from, number, [&text[..], b"!"].concat());
        // To the second there is no answer.
        next().2
    });
    let began = Instant::now();
    let answers = calls.ask(&[stranger, run], b"well", PATIENCE);
    assert_eq!(answers, [None, Some(b"well!".to_vec())]);
    assert!(began.elapsed() < PATIENCE / 2, "nobody waits for who has no link");
    assert_eq!(calls.ask(&[run], b"again", Duration::from_millis(50)), [None]);
    assert_eq!(answering.join().unwrap(), b"again");
    drop((calls, one.thread));
    ears.join().unwrap();
}

#[test]
fn what_is_sent_without_a_link_is_dropped_and_counted() {
    let one = Node::start(1, SECRET);
    let awaited = facts(2, "127.0.0.1:9".parse().unwrap());
    one.send(awaited.run, 1);
    wait_until(|| one.thread.links().figures().pieces_without_peer == 1);
    one.peers(&[&awaited]);
    one.send(awaited.run, 2);
    wait_until(|| one.peer().pieces_dropped == 1);
    one.send(Run { incarnation: 8, ..awaited.run }, 3);
    wait_until(|| one.thread.links().figures().pieces_without_peer == 2);
    wait_until(|| one.refused("unreachable") > 1);
    assert_eq!(one.peer().state, LinkState::Dialling);
    one.peers(&[]);
    wait_until(|| one.thread.links().figures().peers.is_empty());
}

#[test]
fn another_secret_gets_no_further_than_the_handshake() {
    let (one, two) = pair();
    let stranger = Node::start(0, OTHER_SECRET);
    stranger.peers(&[&one.facts]);
    one.peers(&[&stranger.facts, &two.facts]);
    wait_until(|| stranger.refused("certificate") > 1 && one.refused("certificate") > 1);
    let end = stranger.peer().last_end.unwrap();
    assert!(end.contains("is the secret the same?"), "{end}");
    // Nobody else noticed.
    one.send(two.facts.run, 1);
    two.expect_piece(one.facts.run, 1);
    assert!(one.inbox.try_recv().is_err() && stranger.inbox.try_recv().is_err());
}

#[test]
fn scanners_and_silent_strangers_are_counted_and_keep_nobody_out() {
    let (one, two) = (Node::start(1, SECRET), Node::start(2, SECRET));
    let mut answer = Vec::new();
    for said in [&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], &[0xff; 300], b"\x16\x03\x01\xff\xff"] {
        let mut scanner = TcpStream::connect(two.facts.link).unwrap();
        scanner.write_all(said).unwrap();
        scanner.shutdown(Shutdown::Write).unwrap();
        scanner.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = scanner.read_to_end(&mut answer);
    }
    wait_until(|| two.refused("tls") >= 2);
    drop(TcpStream::connect(two.facts.link).unwrap());
    wait_until(|| two.refused("closed") >= 1);
    let silent: Vec<_> = (0..90).map(|_| TcpStream::connect(two.facts.link).unwrap()).collect();
    wait_until(|| two.refused("crowded") >= 20);
    assert!(two.thread.links().figures().handshakes <= 64);
    one.peers(&[&two.facts]);
    two.peers(&[&one.facts]);
    one.expect_up(two.facts.run);
    two.expect_up(one.facts.run);
    one.send(two.facts.run, 1);
    two.expect_piece(one.facts.run, 1);
    // They are given up after their time.
    wait_until(|| two.thread.links().figures().handshakes == 0);
    assert!(two.refused("timeout") >= 60);
    drop(silent);
}

#[test]
fn another_run_of_a_node_is_refused_and_replaces_the_old_one_when_it_is_the_member() {
    let (one, two) = (Node::start(1, SECRET), Node::start(2, SECRET));
    let mut other = one.facts.clone();
    other.run.incarnation = 8;
    one.peers(&[&two.facts]);
    two.peers(&[&other]);
    // Node 1 is of run 7, which is over as far as node 2 knows.
    wait_until(|| two.refused("other-run") > 0 && one.refused("by-peer") > 0);
    assert!(one.peer().last_end.unwrap().contains("other-run"));
    two.peers(&[&one.facts]);
    one.expect_up(two.facts.run);
    two.expect_up(one.facts.run);
    two.peers(&[&other]);
    two.expect_down(one.facts.run);
    one.expect_down(two.facts.run);
    assert_eq!(two.peer().run, other.run);
}

#[test]
fn a_dialler_may_be_a_moment_early_and_its_epoch_is_heard() {
    let (one, mut two) = (Node::start(1, SECRET), Node::start(2, SECRET));
    one.thread.links().command(Command::Epoch(9));
    one.peers(&[&two.facts]);
    assert_eq!(two.event(), LinkEvent::Epoch(one.facts.run, 9));
    two.peers(&[&one.facts]);
    two.expect_up(one.facts.run);
    one.expect_up(two.facts.run);
    // Where this took long it has dialled, and told its epoch, again.
    let mut event = two.event();
    while event == LinkEvent::Epoch(one.facts.run, 9) {
        event = two.event();
    }
    assert_eq!(event, LinkEvent::Up(one.facts.clone()));
    one.thread.links().command(Command::Epoch(10));
    assert_eq!(two.event(), LinkEvent::Epoch(one.facts.run, 10));
}

#[test]
fn a_node_that_leaves_says_so() {
    let (one, mut two) = pair();
    let (run, up) = (one.facts.run, LinkEvent::Up(one.facts.clone()));
    one.send(two.facts.run, 1);
    drop(one);
    two.expect_piece(run, 1);
    two.expect_down(run);
    assert_eq!(two.event(), up);
    assert_eq!(two.event(), LinkEvent::Left(run));
    assert_eq!(two.event(), LinkEvent::Down(run, "it left on purpose".into()));
}

#[test]
fn a_member_that_lies_is_refused_by_what_it_lied_about() {
    let two = Node::start(2, SECRET);
    let one = facts(1, "127.0.0.1:9".parse().unwrap());
    two.peers(&[&one]);
    let mut impostor = Impostor::dial(&two.facts, "node-9", one.clone());
    assert_eq!(impostor.hear().unwrap_err(), Refusal::ByPeer("name"));
    wait_until(|| two.refused("name") == 1);
    let more = NodeFacts { shards: 9, ..one.clone() };
    let mut impostor = Impostor::dial(&two.facts, "node-1", more);
    assert_eq!(impostor.hear().unwrap_err(), Refusal::ByPeer("shards"));
    wait_until(|| two.refused("shards") == 1);
    assert!(two.inbox.try_recv().is_err());
    // Admitted, and then a piece from a shard that it does not have.
    let mut impostor = Impostor::dial(&two.facts, "node-1", one.clone());
    assert!(matches!(impostor.hear(), Ok(Event::Up { .. })));
    two.expect_up(one.run);
    impostor.link.piece((ShardId(5), ShardId(0)), Wall(1), &frame(1), None, &[]).unwrap();
    impostor.flush();
    assert_eq!(impostor.hear().unwrap_err(), Refusal::ByPeer("shards"));
    two.expect_down(one.run);
    assert_eq!(two.refused("shards"), 2);
}

#[test]
fn a_second_connection_of_a_peer_takes_the_place_of_the_first() {
    let two = Node::start(2, SECRET);
    let one = facts(1, "127.0.0.1:9".parse().unwrap());
    two.peers(&[&one]);
    let mut first = Impostor::dial(&two.facts, "node-1", one.clone());
    assert!(matches!(first.hear(), Ok(Event::Up { .. })));
    two.expect_up(one.run);
    let mut second = Impostor::dial(&two.facts, "node-1", one.clone());
    assert!(matches!(second.hear(), Ok(Event::Up { .. })));
    two.expect_down(one.run);
    two.expect_up(one.run);
    second
        .link
        .piece((ShardId(0), ShardId(1)), Wall(1), &frame(4), Some((4, 2)), &4_u64.to_le_bytes())
        .unwrap();
    second.flush();
    two.expect_piece(one.run, 4);
}
