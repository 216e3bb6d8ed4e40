//! Two machines with bytes between them, and what a hostile node could send instead.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::hello::Hello;
use super::*;
use crate::base::instant::Instant;
use crate::cluster::placement::NodeId;
use crate::cluster::view::Run;
use crate::frame::{Encoder, Envelope, Flags, FrameError, Recipients, VERSIONS};
use std::time::Duration;

const SHARDS: u16 = 4;

fn facts(node: u32) -> NodeFacts {
    NodeFacts {
        name: format!("node-{node}"),
        run: Run { node: NodeId(node), incarnation: 7 },
        shards: SHARDS,
        weight: 1,
        link: format!("127.0.0.{node}:5270").parse().unwrap(),
        clients: vec![format!("n{node}.example.com:5222")],
        components: Vec::new(),
        federates: false,
        frames: VERSIONS,
        version: "0.2.0".into(),
    }
}

fn ours(node: u32) -> Arc<Ours> {
    Arc::new(Ours { facts: facts(node), cluster: [9; 16], frame_bytes_max: 1 << 20 })
}

fn at(ms: u64) -> Now {
    Now { mono: Instant(ms * 1_000_000), wall: Wall(1_000_000 + ms * 1000) }
}

fn frames(numbers: std::ops::Range<u64>, stanza: &[u8]) -> Batch {
    let (mut encoder, mut batch) = (Encoder::new(1 << 20), Batch::new());
    for number in numbers {
        let envelope = Envelope {
            epoch: 3,
            number,
            hops: 1,
            ingress: Wall(5),
            trace: None,
            flags: Flags::default(),
            from: "a@b/c",
            to: "d@e",
            also_to: Recipients::NONE,
            kind: crate::frame::Kind::Message,
            subtype: 0,
            open_end: 0,
            close_start: 0,
            stanza,
        };
        encoder.append(&mut batch, &envelope).unwrap();
    }
    batch
}

fn output(link: &mut Link) -> Vec<u8> {
    let mut bytes = Vec::new();
    link.output(&mut bytes);
    link.written(bytes.len());
    bytes
}

/// What is told of `bytes`, in words that compare, and how it ends.
fn hear(link: &mut Link, bytes: &[u8], piece: usize) -> (Vec<String>, Result<(), Refusal>) {
    let (mut told, mut events) = (Vec::new(), Vec::new());
    for bytes in bytes.chunks(piece.max(1)) {
        let received = link.receive(at(1), bytes, &mut events);
        told.extend(events.drain(..).map(words));
        if received.is_err() {
            return (told, received);
        }
    }
    (told, Ok(()))
}

fn words(event: Event) -> String {
    match event {
        Event::Hello(facts) => format!("hello {facts:?}"),
        Event::Up { facts, frames_version } => format!("up {} {frames_version}", facts.name),
        Event::Piece { from, to, sent, frames, news, relay } => {
            let numbers: Vec<u64> = frames.iter().map(|frame| frame.number).collect();
            let at = sent.map(|sent| sent.at.0);
            format!("piece {} {} {at:?} {numbers:?} {news:?} {relay:?}", from.0, to.0)
        }
        Event::Epoch(epoch) => format!("epoch {epoch}"),
        Event::Ask(number, text) => format!("ask {number} {text:?}"),
        Event::Answer(number, text) => format!("answer {number} {text:?}"),
        Event::Left => "left".into(),
    }
}

/// Node 1 has dialled node 2, and they have met.
fn pair() -> (Link, Link) {
    let (mut one, mut two) = (Link::dial(ours(1), facts(2), 5), Link::accept(ours(2)));
    let (told, met) = hear(&mut two, &output(&mut one), 64);
    assert_eq!((told.len(), met), (2, Ok(())));
    assert_eq!(told[0], "epoch 5");
    let mut events = Vec::new();
    two.admit(&facts(1), 6, &mut events).unwrap();
    assert_eq!(events.pop().map(words), Some("up node-1 1".into()));
    let (told, met) = hear(&mut one, &output(&mut two), 64);
    assert_eq!((told, met), (vec!["epoch 6".into(), "up node-2 1".into()], Ok(())));
    assert!(one.is_up() && two.is_up());
    (one, two)
}

/// A bit of everything that node 1 may say.
fn said() -> Vec<u8> {
    let (mut one, _) = pair();
    let shards = (ShardId(1), ShardId(2));
    one.piece(shards, Wall(70), &frames(0..2, b"hi"), Some((9, 8)), b"relay").unwrap();
    one.tick(at(0), &mut Vec::new()).unwrap();
    one.tell(7);
    one.call(3, true, b"?").unwrap();
    one.call(9, false, b"").unwrap();
    one.piece((ShardId(0), ShardId(3)), Wall(71), &Batch::new(), None, b"x").unwrap();
    one.leave();
    output(&mut one)
}

const HEARD: [&str; 6] = [
    "piece 1 2 None [0, 1] Some((9, 8)) [114, 101, 108, 97, 121]",
    "epoch 7",
    "ask 3 [63]",
    "answer 9 []",
    "piece 0 3 None [] None [120]",
    "left",
];

#[test]
fn what_is_said_is_heard_in_order_however_it_is_cut() {
    for piece in [1, 3, 16, 17, 100, 100_000] {
        let (_, mut two) = pair();
        let (told, ended) = hear(&mut two, &said(), piece);
        assert_eq!((told, ended), (HEARD.map(String::from).to_vec(), Ok(())), "{piece}");
        assert!(two.is_over());
    }
}

#[test]
fn a_cut_record_is_waited_for_and_never_told() {
    let said = said();
    for end in 0..said.len() {
        let (_, mut two) = pair();
        let (told, ended) = hear(&mut two, &said[..end], end);
        assert_eq!(ended, Ok(()), "{end}");
        assert!(HEARD.iter().zip(&told).all(|(heard, told)| heard == told));
        assert!(told.len() < HEARD.len(), "{end}");
    }
}

#[test]
fn no_flipped_bit_changes_what_is_heard() {
    let said = said();
    for bit in 0..said.len() * 8 {
        let mut flipped = said.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (_, mut two) = pair();
        let (told, ended) = hear(&mut two, &flipped, said.len());
        assert!(HEARD.iter().zip(&told).all(|(heard, told)| heard == told), "{bit}: {told:?}");
        // Where it is no refusal, a length has grown and the rest is waited for.
        assert!(told.len() < HEARD.len() && (ended.is_err() || !two.is_over()), "{bit}: {told:?}");
    }
}

#[test]
fn lengths_are_judged_before_anything_is_stored() {
    let (mut one, mut two) = pair();
    let mut header = [0; 16];
    header[8] = Kind::Piece as u8;
    let limit = record_bytes_max(1 << 20);
    header[..4].copy_from_slice(&u32::try_from(limit).unwrap().to_le_bytes());
    assert_eq!(hear(&mut two, &header, 16).1, Ok(()));
    header[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = Err(Refusal::TooLarge { bytes: u32::MAX as usize, limit });
    assert_eq!(hear(&mut one, &header, 16).1, refused);
    // Who has not been introduced may say less.
    let mut stranger = Link::accept(ours(2));
    header[..4].copy_from_slice(&20_000u32.to_le_bytes());
    let refused = Err(Refusal::TooLarge { bytes: 20_000, limit: HELLO_BYTES_MAX });
    assert_eq!(hear(&mut stranger, &header, 16).1, refused);
}

/// What a peer of node 2 gets for one record whose checksum is right.
fn refused(kind: Kind, sealed: &[u8], open: &[u8]) -> Option<Refusal> {
    let (_, mut two) = pair();
    let mut bytes = Vec::new();
    write(&mut bytes, kind, [sealed, &[]], open);
    let (told, ended) = hear(&mut two, &bytes, bytes.len());
    assert!(ended.is_ok() || told.is_empty());
    ended.err()
}

#[test]
fn hostile_records_with_right_checksums_are_refused() {
    let head = |from, to, news| piece_head(ShardId(from), ShardId(to), Wall(1), news);
    let piece = |head: [u8; PIECE_HEAD], open: &[u8]| refused(Kind::Piece, &head, open);
    assert_eq!(piece(head(3, 3, Some((5, 5))), &[]), None);
    assert_eq!(piece(head(SHARDS, 0, None), &[]), Some(Refusal::FromShard(SHARDS)));
    assert_eq!(piece(head(0, SHARDS, None), &[]), Some(Refusal::ToShard(SHARDS)));
    assert_eq!(piece(head(0, u16::MAX, None), &[]), Some(Refusal::ToShard(u16::MAX)));
    assert_eq!(piece(head(0, 0, Some((4, 5))), &[]), Some(Refusal::Malformed));
    for (place, byte) in [(4, 2), (7, 1), (8, 1), (23, 1)] {
        let mut head = head(0, 0, None);
        head[place] = byte;
        assert_eq!(piece(head, &[]), Some(Refusal::Malformed), "{place}");
    }
    for length in 0..PIECE_HEAD {
        let short = &head(0, 0, None)[..length];
        assert_eq!(refused(Kind::Piece, short, &[]), Some(Refusal::Malformed), "{length}");
    }
    for (kind, length) in [(Kind::Ping, 8), (Kind::Pong, 16), (Kind::Epoch, 8), (Kind::Bye, 1)] {
        for wrong in [0, length - 1, length + 1].into_iter().filter(|wrong| *wrong != length) {
            let body = vec![0; wrong];
            assert_eq!(refused(kind, &body, &[]), Some(Refusal::Malformed), "{kind:?} {wrong}");
        }
        assert_eq!(refused(kind, &vec![0; length], b"x"), Some(Refusal::Header), "{kind:?}");
    }
    for kind in [Kind::Ask, Kind::Answer] {
        assert_eq!(refused(kind, &[0; 7], &[]), Some(Refusal::Malformed), "{kind:?}");
        let long = vec![0; 8 + CALL_BYTES_MAX + 1];
        assert_eq!(refused(kind, &long, &[]), Some(Refusal::Malformed), "{kind:?}");
    }
    for code in [0, 9, 255] {
        let mut bytes = Vec::new();
        write(&mut bytes, Kind::Ping, [&[0; 8], &[]], &[]);
        bytes[8] = code;
        assert_eq!(hear(&mut pair().1, &bytes, 99).1, Err(Refusal::Kind(code)));
        bytes[8] = 3;
        bytes[10] = 1;
        assert_eq!(hear(&mut pair().1, &bytes, 99).1, Err(Refusal::Header));
    }
}

#[test]
fn frames_are_checked_before_they_are_handed_on() {
    let batch = frames(0..3, b"hello");
    let head = piece_head(ShardId(0), ShardId(0), Wall(1), None);
    let piece = |bytes: &[u8]| refused(Kind::Piece, &head, bytes);
    assert_eq!(piece(batch.as_bytes()), None);
    let cut = &batch.as_bytes()[..batch.len_bytes() - 16];
    assert_eq!(piece(cut), Some(Refusal::Frame(FrameError::Incomplete)));
    let mut flipped = batch.as_bytes().to_vec();
    flipped[60] ^= 4;
    assert_eq!(piece(&flipped), Some(Refusal::Frame(FrameError::Checksum)));
    // A version that was not agreed on, with a right checksum.
    let mut newer = frames(0..1, b"hello").as_bytes().to_vec();
    newer[8] = 2;
    let mut hasher = crc32fast::Hasher::new_with_initial(u32::try_from(newer.len()).unwrap());
    hasher.update(&newer[8..]);
    newer[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
    assert_eq!(piece(&newer), Some(Refusal::Frame(FrameError::Version(2))));
    let large = frames(0..1, &vec![b'x'; 5_000]);
    let (mut one, _) = pair();
    one.piece((ShardId(0), ShardId(0)), Wall(1), &large, None, &[]).unwrap();
    let small = Arc::new(Ours { frame_bytes_max: 4096, ..(*ours(2)).clone() });
    let mut two = Link::new(small, State::Up { shards: SHARDS });
    let taken = hear(&mut two, &output(&mut one), 999).1;
    assert_eq!(taken, Err(Refusal::Frame(FrameError::TooLarge)));
}

/// How node 2 takes a Hello of node 1 that was changed, to the end of its admission.
fn met(change: impl FnOnce(&mut Hello)) -> Result<Link, Refusal> {
    let mut hello = Hello { protocol: PROTOCOL, cluster: [9; 16], epoch: 0, facts: facts(1) };
    change(&mut hello);
    let mut bytes = Vec::new();
    hello.write(&mut bytes);
    let mut two = Link::accept(ours(2));
    hear(&mut two, &bytes, bytes.len()).1?;
    two.admit(&facts(1), 0, &mut Vec::new())?;
    Ok(two)
}

#[test]
fn who_does_not_belong_here_is_refused_by_reason() {
    let refusal = |change: fn(&mut Hello)| met(change).err();
    assert_eq!(refusal(|_| ()), None);
    assert_eq!(refusal(|hello| hello.cluster[3] = 0), Some(Refusal::Cluster));
    assert_eq!(refusal(|hello| hello.facts.run.node.0 = 2), Some(Refusal::Twin));
    assert_eq!(refusal(|hello| hello.facts.name = "node-2".into()), Some(Refusal::Twin));
    assert_eq!(refusal(|hello| hello.facts.run.node.0 = 3), Some(Refusal::Direction));
    let theirs = Run { incarnation: 6, ..facts(1).run };
    assert_eq!(
        refusal(|hello| hello.facts.run.incarnation = 6),
        Some(Refusal::Run { expected: facts(1).run, theirs })
    );
    assert_eq!(
        refusal(|hello| hello.facts.name = "other".into()),
        Some(Refusal::Name("other".into()))
    );
    assert_eq!(
        refusal(|hello| hello.facts.shards = 5),
        Some(Refusal::Shards { expected: SHARDS, theirs: 5 })
    );
    assert_eq!(refusal(|hello| hello.facts.shards = 0), Some(Refusal::Malformed));
    assert_eq!(refusal(|hello| hello.facts.shards = 5000), Some(Refusal::Malformed));
    assert_eq!(refusal(|hello| hello.facts.name.clear()), Some(Refusal::Malformed));
    assert_eq!(refusal(|hello| hello.facts.name = "two\nlines".into()), Some(Refusal::Malformed));
    // The dialler judges as well.
    let mut one = Link::dial(ours(1), facts(2), 0);
    let mut bytes = Vec::new();
    let facts = NodeFacts { shards: 9, ..facts(2) };
    Hello { protocol: PROTOCOL, cluster: [9; 16], epoch: 0, facts }.write(&mut bytes);
    let lied = Err(Refusal::Shards { expected: SHARDS, theirs: 9 });
    assert_eq!(hear(&mut one, &bytes, 99).1, lied);
}

#[test]
fn versions_may_be_apart_by_one_and_no_common_one_is_said() {
    assert_eq!(common((1, 2), (2, 3)), Some(2));
    assert_eq!(common((1, 3), (1, 2)), Some(2));
    assert_eq!(common((1, 1), (2, 3)), None);
    assert_eq!(common((3, 4), (1, 2)), None);
    assert_eq!(common((2, 1), (1, 2)), None);
    assert!(met(|hello| hello.protocol = (1, 2)).is_ok());
    assert!(met(|hello| hello.facts.frames = (1, 2)).is_ok());
    let refusal = met(|hello| hello.protocol = (2, 3)).unwrap_err();
    assert_eq!(refusal, Refusal::Protocol { ours: (1, 1), theirs: (2, 3) });
    let refusal = met(|hello| hello.facts.frames = (2, 3)).unwrap_err();
    assert_eq!(refusal, Refusal::Frames { ours: (1, 1), theirs: (2, 3) });
    assert!(refusal.to_string().contains("update the older node"));
}

#[test]
fn a_hello_is_whole_or_refused_and_later_versions_may_say_more() {
    let mut bytes = Vec::new();
    Hello { protocol: PROTOCOL, cluster: [9; 16], epoch: 3, facts: facts(1) }.write(&mut bytes);
    let body = &bytes[HEADER..];
    for end in 0..body.len() {
        assert_eq!(Hello::read(&body[..end]), Err(Refusal::Malformed), "{end}");
    }
    let read = Hello::read(&[body, b"more of a later version"].concat()).unwrap();
    assert_eq!((read.epoch, read.facts), (3, facts(1)));
}

#[test]
fn nobody_speaks_out_of_order() {
    let mut piece = Vec::new();
    write(&mut piece, Kind::Piece, [&piece_head(ShardId(0), ShardId(0), Wall(1), None), &[]], &[]);
    assert_eq!(hear(&mut Link::accept(ours(2)), &piece, 99).1, Err(Refusal::Order));
    let hello = output(&mut Link::dial(ours(1), facts(2), 0));
    assert_eq!(hear(&mut pair().1, &hello, 99).1, Err(Refusal::Order));
    // Before it is admitted.
    let mut two = Link::accept(ours(2));
    let early = [&hello[..], &piece].concat();
    assert_eq!(hear(&mut two, &early, early.len()).1, Err(Refusal::Order));
    assert_eq!(two.admit(&facts(1), 0, &mut Vec::new()), Err(Refusal::Order));
    // And who has been refused is not heard again.
    assert_eq!(hear(&mut two, &hello, 99), (Vec::new(), Ok(())));
}

#[test]
fn the_peer_is_told_why() {
    let mut one = Link::dial(ours(1), facts(2), 0);
    let mut two = Link::accept(ours(2));
    hear(&mut two, &output(&mut one), 99).1.unwrap();
    two.refuse(&Refusal::Unknown(facts(1).run));
    let (told, ended) = hear(&mut one, &output(&mut two), 99);
    assert_eq!((told.len(), ended), (0, Err(Refusal::ByPeer("unknown-run"))));
    assert!(output(&mut one).is_empty(), "no answer to a refusal");
    let (mut one, mut two) = pair();
    let mut bytes = said();
    let place = bytes.len() - 1;
    bytes[place] ^= 1;
    hear(&mut two, &bytes, bytes.len()).1.unwrap_err();
    output(&mut one);
    let ended = hear(&mut one, &output(&mut two), 9_999).1;
    assert_eq!(ended, Err(Refusal::ByPeer("checksum")));
}

#[test]
fn a_silent_peer_is_given_up_and_one_that_answers_is_not() {
    let (mut one, mut two) = pair();
    let mut events = Vec::new();
    for second in 1..20 {
        let now = at(second * 1000);
        one.tick(now, &mut events).unwrap();
        two.receive(now, &output(&mut one), &mut events).unwrap();
        one.receive(at(second * 1000 + 4), &output(&mut two), &mut events).unwrap();
    }
    let estimate = one.estimate().unwrap();
    assert_eq!(estimate.rtt, Duration::from_millis(4));
    assert_eq!((estimate.offset_us, estimate.error_us), (-2_000, 2_000));
    for _ in 0..SILENT_TICKS {
        one.tick(at(30_000), &mut events).unwrap();
    }
    assert_eq!(one.tick(at(30_000), &mut events), Err(Refusal::Silent));
    assert!(one.is_over() && events.is_empty());
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_at_the_bound() {
    let (mut one, _) = pair();
    let batch = frames(0..1, &vec![b'x'; 1_000_000]);
    let mut sent = 0;
    let refusal = loop {
        match one.piece((ShardId(0), ShardId(0)), Wall(1), &batch, None, &[]) {
            Ok(()) => sent += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refusal, Refusal::Overflow(bytes) if bytes <= OUTPUT_BYTES_MAX));
    assert!((60..=67).contains(&sent) && one.is_over(), "{sent}");
    // What was taken to be written counts until it is.
    let (mut one, _) = pair();
    let mut bytes = Vec::new();
    one.piece((ShardId(0), ShardId(0)), Wall(1), &batch, None, &[]).unwrap();
    one.output(&mut bytes);
    assert_eq!(one.waiting_bytes(), bytes.len());
    one.written(bytes.len());
    assert_eq!(one.waiting_bytes(), 0);
    let relay = vec![0; RELAY_BYTES_MAX + 1];
    let refused = one.piece((ShardId(0), ShardId(0)), Wall(1), &Batch::new(), None, &relay);
    assert_eq!(refused, Err(Refusal::Overflow(relay.len())));
    // A flood of pings is answered within the same bound.
    let (_, mut two) = pair();
    let mut pings = Vec::new();
    for _ in 0..100_000 {
        write(&mut pings, Kind::Ping, [&[0; 8], &[]], &[]);
    }
    let flooded = (0..100).find_map(|_| two.receive(at(1), &pings, &mut Vec::new()).err());
    assert!(matches!(flooded, Some(Refusal::Overflow(_))), "{flooded:?}");
}

#[test]
fn large_batches_go_in_parts_and_news_follows_the_last() {
    let (mut one, mut two) = pair();
    let batch = frames(0..30, &vec![b'x'; 100_000]);
    one.piece((ShardId(1), ShardId(2)), Wall(1), &batch, Some((3, 2)), b"r").unwrap();
    let (told, ended) = hear(&mut two, &output(&mut one), 1 << 16);
    assert_eq!(ended, Ok(()));
    assert_eq!(told.len(), 3);
    assert_eq!(told[0], "piece 1 2 None [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] None []");
    assert!(told[2].ends_with("28, 29] Some((3, 2)) [114]"));
}

#[test]
fn a_flood_of_epochs_is_told_a_few_times_and_the_newest_at_last() {
    let (mut one, mut two) = pair();
    for epoch in 1..1000 {
        one.tell(epoch);
        one.tell(epoch);
    }
    let (told, ended) = hear(&mut two, &output(&mut one), 1 << 16);
    assert!(ended.is_ok() && (6..=8).contains(&told.len()), "{told:?}");
    let mut events = Vec::new();
    two.tick(at(1000), &mut events).unwrap();
    assert_eq!(events.pop().map(words), Some("epoch 999".into()));
    two.tick(at(2000), &mut events).unwrap();
    assert!(events.is_empty());
}

#[test]
fn without_a_link_nothing_is_sent() {
    let mut one = Link::dial(ours(1), facts(2), 0);
    output(&mut one);
    one.piece((ShardId(0), ShardId(0)), Wall(1), &frames(0..1, b"x"), None, b"x").unwrap();
    one.tell(9);
    one.tick(at(1), &mut Vec::new()).unwrap();
    assert!(output(&mut one).is_empty());
}
