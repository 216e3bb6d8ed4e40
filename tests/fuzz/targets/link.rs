//! Body of the fuzz target `link`: what may come over a connection between nodes, from a stranger with a certificate or a
//! member. The first byte chooses who hears it, whether checksums are put right, as a hostile node would, and how the bytes
//! are cut; the rest are the bytes.
//!
//! Promised: nothing panics; the cuts change nothing; what is told keeps to the shards that there are, and is less than
//! what was said; what is answered is bounded by it, too; after a refusal nothing more is told.

use std::sync::Arc;

use corefire::base::instant::{Instant, Now, Wall};
use corefire::cluster::link::{Event, Link, Ours, Refusal};
use corefire::cluster::placement::NodeId;
use corefire::cluster::view::{NodeFacts, Run};
use corefire::frame::VERSIONS;

const SHARDS: u16 = 4;
const HEADER: usize = 16;

pub(crate) fn link(data: &[u8]) {
    let Some((&choice, bytes)) = data.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if choice & 4 != 0 {
        seal(&mut bytes);
    }
    let whole = hear(choice & 3, &bytes, bytes.len());
    let cut = hear(choice & 3, &bytes, usize::from(choice >> 3));
    assert_eq!(whole, cut, "cuts change what is heard");
}

/// Puts the checksums of all whole records right.
fn seal(bytes: &mut [u8]) {
    let number = |bytes: &[u8]| bytes.first_chunk().map_or(0, |four| u32::from_le_bytes(*four));
    let mut rest = bytes;
    while rest.len() >= HEADER {
        let (length, open) = (number(rest), number(&rest[12..]) as usize);
        let Some(end) = (length as usize).checked_add(HEADER).filter(|end| *end <= rest.len())
        else {
            return;
        };
        let (record, more) = rest.split_at_mut(end);
        let sealed = end.saturating_sub(open).max(HEADER);
        let mut hasher = crc32fast::Hasher::new_with_initial(length);
        hasher.update(&record[8..sealed]);
        record[4..8].copy_from_slice(&hasher.finalize().to_le_bytes());
        rest = more;
    }
}

fn facts(node: u32) -> NodeFacts {
    NodeFacts {
        name: format!("node-{node}"),
        run: Run { node: NodeId(node), incarnation: 7 },
        shards: SHARDS,
        weight: 1,
        link: ([127, 0, 0, 1], 5270).into(),
        clients: Vec::new(),
        components: Vec::new(),
        federates: false,
        frames: VERSIONS,
        version: String::new(),
    }
}

fn ours(node: u32) -> Arc<Ours> {
    Arc::new(Ours { facts: facts(node), cluster: [9; 16], frame_bytes_max: 1 << 16 })
}

fn now() -> Now {
    Now { mono: Instant(1), wall: Wall(1) }
}

/// Node 2 as it listens to node 1: not introduced yet (0), or up; or node 1 that has dialled node 2 (1).
fn listener(who: u8) -> Link {
    let mut two = Link::accept(ours(2));
    let mut one = Link::dial(ours(1), facts(2), 1);
    let (mut bytes, mut events) = (Vec::new(), Vec::new());
    one.output(&mut bytes);
    match who {
        0 => return two,
        1 => return one,
        _ => two.receive(now(), &bytes, &mut events).expect("a sound Hello"),
    }
    two.admit(&facts(1), 1, &mut events).expect("the one that is expected");
    two.output(&mut bytes);
    two.written(bytes.len());
    two
}

/// All that is told, how it ends, and what is answered.
fn hear(who: u8, bytes: &[u8], piece: usize) -> (Vec<String>, Option<Refusal>, Vec<u8>) {
    let mut link = listener(who);
    let (mut told, mut events, mut answer) = (Vec::new(), Vec::new(), Vec::new());
    let (mut size, mut refusal) = (0, None);
    for bytes in bytes.chunks(piece.max(1)) {
        let heard = link.receive(now(), bytes, &mut events);
        assert!(refusal.is_none() || (heard.is_ok() && events.is_empty()));
        if let Err(reason) = heard {
            assert!(link.is_over() && !reason.word().is_empty() && !reason.to_string().is_empty());
            refusal = Some(reason);
        }
        for event in events.drain(..) {
            size += size_of(&event);
            told.push(format!("{event:?}"));
        }
    }
    assert!(size <= bytes.len());
    assert!(link.waiting_bytes() <= bytes.len() * 2 + 256, "answers grow with what is asked");
    link.output(&mut answer);
    (told, refusal, answer)
}

fn size_of(event: &Event) -> usize {
    match event {
        Event::Piece { from, to, frames, news, relay, .. } => {
            assert!(from.0 < SHARDS && to.0 < SHARDS);
            assert!(news.is_none_or(|(received, handled)| handled <= received));
            let stanzas: usize = frames.iter().map(|frame| frame.stanza.len()).sum();
            assert!(stanzas <= frames.len_bytes());
            frames.len_bytes() + relay.len()
        }
        Event::Hello(facts) => facts.name.len() + facts.version.len(),
        Event::Ask(_, text) | Event::Answer(_, text) => text.len(),
        Event::Up { .. } | Event::Epoch(_) | Event::Left => 0,
    }
}
