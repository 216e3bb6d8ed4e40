//! Body of the fuzz target `gossip`: datagrams that come to a node's address for gossip.
//!
//! The input is a row of datagrams, each after its length in two bytes. A length with its highest bit set: the datagram is
//! signed as a node of the cluster would sign it, so that what stands behind the code is reached.
//!
//! Promised: nothing panics, whatever authentic nodes say; what is known stays within its bounds; nothing is sent that is
//! longer than a datagram, nor more than a few for each that came; what is not signed leaves nothing behind.

use corefire::base::instant::{Instant, Now, Wall};
use corefire::base::rng::Rng;
use corefire::cluster::membership::{DATAGRAM_BYTES_MAX, MEMBERS_MAX, Membership, Outputs};
use corefire::cluster::placement::NodeId;
use corefire::cluster::view::{NodeFacts, Run};

const KEY: [u8; 32] = [7; 32];
const SIGNED: usize = 1 << 15;
/// Members that this few bytes can name; each is asked for its facts.
const ANSWERS_MAX: usize = 64;

pub(crate) fn gossip(data: &[u8]) {
    let facts = NodeFacts {
        name: "n1".into(),
        run: Run { node: NodeId(1), incarnation: 1 },
        shards: 1,
        weight: 1,
        link: ([10, 0, 0, 1], 7070).into(),
        clients: Vec::new(),
        components: Vec::new(),
        federates: false,
        frames: (1, 1),
        version: String::new(),
    };
    let mut now = Instant(1_000_000_000);
    let wall = Wall(1_800_000_000_000_000);
    let start = Now { mono: now, wall };
    let mut node = Membership::new(facts, &KEY, start, &mut Rng::from_u64(1)).expect("sound facts");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &KEY);
    let mut out = Outputs::default();
    let mut rest = data;
    while let [one, two, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*one, *two]));
        let (body, behind) = tail.split_at(tail.len().min(length & (SIGNED - 1)));
        rest = behind;
        let mut bytes = body.to_vec();
        let is_signed = length & SIGNED != 0;
        if is_signed {
            bytes.extend_from_slice(ring::hmac::sign(&key, body).as_ref());
        }
        let refused = node.figures().refused.total();
        node.datagram(now, &bytes, &mut out);
        if !is_signed {
            assert_eq!(node.figures().refused.total(), refused + 1);
            assert!(out.datagrams.is_empty() && out.events.is_empty());
        }
        assert!(out.datagrams.iter().all(|(_, bytes)| bytes.len() <= DATAGRAM_BYTES_MAX));
        assert!(out.datagrams.len() <= ANSWERS_MAX, "{}", out.datagrams.len());
        assert!(node.company().len() <= MEMBERS_MAX);
        out = Outputs::default();
        now = Instant(now.0 + 50_000_000);
        if node.next_tick().is_some_and(|due| due <= now) {
            node.tick(now, &mut out);
            out = Outputs::default();
        }
    }
    for _ in 0..20 {
        now = node.next_tick().unwrap_or(now).max(now);
        node.tick(now, &mut out);
    }
    node.leave(now, &mut out);
}
