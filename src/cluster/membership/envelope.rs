//! What is around each gossip datagram: who sends it, a number by which it is taken once, and a code that only nodes with
//! the cluster's secret can make.
//!
//! ```text
//! magic "CFGS" | version 1 | kind | run of the sender, 12 bytes | revision of its facts, 4 bytes
//!   | number, 8 bytes | body | HMAC-SHA256 of all before, 32 bytes
//! ```
//!
//! SWIM's own messages are harmless when they come again (news of a lower incarnation change nothing, and a message names
//! its receiver) but for two: a recorded `Ack` would hide that its sender died from one who waits for that very number,
//! and a recorded `Announce` would show a dead node to one that was started since. The numbers stop the first. The second
//! is let be: that ghost is suspected and dead again in two seconds, and what a node owns is decided by the database,
//! which has no such run.

use super::super::datagram::{Form, MAC_BYTES, sign};
use super::super::facts::{self, FACTS_BYTES_MAX, Reader};
use super::super::refusal::Refusal;
use super::super::view::Run;
use crate::base::instant::Wall;
use ring::hmac;
use std::collections::BTreeMap;

const MAGIC: [u8; 4] = *b"CFGS";
const VERSION: u8 = 1;
/// A message of SWIM is never longer, nor are facts, so that no network cuts a datagram.
pub(super) const BODY_BYTES_MAX: usize = 1280;
/// No gossip datagram is longer.
pub const DATAGRAM_BYTES_MAX: usize = HEADER + BODY_BYTES_MAX + MAC_BYTES;

const HEADER: usize = 4 + 1 + 1 + 12 + 4 + 8;
const FORM: Form =
    Form { magic: MAGIC, version: VERSION, header_bytes: HEADER, bytes_max: DATAGRAM_BYTES_MAX };
/// Runs whose numbers are known; beyond, the one that was not heard for longest is forgotten.
pub(super) const SENDERS_MAX: usize = 1024;

const _: () = assert!(FACTS_BYTES_MAX < BODY_BYTES_MAX);

/// What a datagram says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A message of SWIM.
    Swim,
    /// The facts of the sender.
    Facts,
    /// The same, and the receiver's are wanted.
    FactsWanted,
    /// The sender ends on purpose.
    Leave,
    /// The receiver's `Leave` came.
    LeaveHeard,
    /// The receiver is suspected: which of its lives, and at what incarnation of SWIM.
    Suspected,
}

const KINDS: [Kind; 6] =
    [Kind::Swim, Kind::Facts, Kind::FactsWanted, Kind::Leave, Kind::LeaveHeard, Kind::Suspected];

/// An authentic datagram that was not seen before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Letter<'a> {
    pub(super) kind: Kind,
    pub(super) from: Run,
    /// Of the sender's facts: whoever knows older ones asks.
    pub(super) revision: u32,
    pub(super) body: &'a [u8],
}

/// Closes and opens the datagrams of one run of a node.
#[derive(Debug)]
pub(super) struct Post {
    key: hmac::Key,
    run: Run,
    number: u64,
    senders: BTreeMap<Run, Seen>,
    opened: u64,
}

/// Numbers of one sender that came: the highest, and of the 128 up to it those whose bit is set.
#[derive(Debug)]
struct Seen {
    top: u64,
    bits: u128,
    /// The count of its last datagram among all.
    last: u64,
}

impl Post {
    /// - takes: the time, so that numbers go on where a run should begin anew
    pub(super) fn new(key: &[u8; 32], run: Run, now: Wall) -> Post {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Post { key, run, number: now.0, senders: BTreeMap::new(), opened: 0 }
    }

    pub(super) fn close(&mut self, kind: Kind, revision: u32, body: &[u8]) -> Vec<u8> {
        self.number += 1;
        let mut bytes = FORM.start(HEADER + body.len() + MAC_BYTES);
        bytes.push(KINDS.iter().position(|other| *other == kind).unwrap_or_default() as u8);
        facts::put_run(&mut bytes, self.run);
        bytes.extend_from_slice(&revision.to_be_bytes());
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(body);
        sign(&self.key, &mut bytes);
        bytes
    }

    /// - errors: each `Refusal` but those of times and room; nothing changes then
    pub(super) fn open<'a>(&mut self, bytes: &'a [u8]) -> Result<Letter<'a>, Refusal> {
        let signed = FORM.open(&self.key, bytes)?;
        let (letter, number) = letter(signed).ok_or(Refusal::Malformed)?;
        // Our own, come back.
        if letter.from == self.run || !self.is_first(letter.from, number) {
            return Err(Refusal::Replayed);
        }
        Ok(letter)
    }

    fn is_first(&mut self, from: Run, number: u64) -> bool {
        if self.senders.len() >= SENDERS_MAX
            && !self.senders.contains_key(&from)
            && let Some(run) =
                self.senders.iter().min_by_key(|(_, seen)| seen.last).map(|(run, _)| *run)
        {
            self.senders.remove(&run);
        }
        self.opened += 1;
        let seen = self.senders.entry(from).or_insert(Seen { top: number, bits: 0, last: 0 });
        if number > seen.top {
            let ahead = u32::try_from(number - seen.top).unwrap_or(u32::MAX);
            seen.bits = seen.bits.checked_shl(ahead).unwrap_or(0);
            seen.top = number;
        }
        let bit = u32::try_from(seen.top - number).ok().and_then(|back| 1u128.checked_shl(back));
        let Some(bit) = bit.filter(|bit| seen.bits & bit == 0) else { return false };
        seen.bits |= bit;
        seen.last = self.opened;
        true
    }
}

fn letter(bytes: &[u8]) -> Option<(Letter<'_>, u64)> {
    let mut reader = Reader::new(bytes);
    let kind = *KINDS.get(usize::from(reader.u8()?))?;
    let (from, revision, number) = (reader.run()?, reader.u32()?, reader.u64()?);
    Some((Letter { kind, from, revision, body: reader.rest() }, number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::placement::NodeId;

    const KEY: [u8; 32] = [7; 32];

    fn run(node: u32) -> Run {
        Run { node: NodeId(node), incarnation: 1 }
    }

    fn post(node: u32) -> Post {
        Post::new(&KEY, run(node), Wall(1000))
    }

    #[test]
    fn a_datagram_is_taken_once_and_any_changed_byte_is_noticed() {
        let bytes = post(1).close(Kind::Facts, 5, b"body");
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 0x40;
            let expected = match place {
                0..4 => Refusal::NotOurs,
                4 => Refusal::OtherVersion(VERSION ^ 0x40),
                _ => Refusal::BadMac,
            };
            assert_eq!(post(2).open(&changed), Err(expected), "{place}");
            let expected = if place < 5 { Refusal::NotOurs } else { Refusal::BadMac };
            assert_eq!(post(2).open(&bytes[..place]), Err(expected), "cut at {place}");
        }
        let mut post = post(2);
        let letter = Letter { kind: Kind::Facts, from: run(1), revision: 5, body: b"body" };
        assert_eq!(post.open(&bytes), Ok(letter));
        assert_eq!(post.open(&bytes), Err(Refusal::Replayed));
    }

    #[test]
    fn others_secrets_lengths_and_kinds_are_refused() {
        let foreign = Post::new(&[8; 32], run(1), Wall(0)).close(Kind::Leave, 0, b"");
        assert_eq!(post(2).open(&foreign), Err(Refusal::BadMac));
        let long = post(1).close(Kind::Swim, 0, &[0; BODY_BYTES_MAX + 1]);
        assert_eq!(post(2).open(&long), Err(Refusal::BadMac));
        let own = post(2).close(Kind::Swim, 0, b"");
        assert_eq!(post(2).open(&own), Err(Refusal::Replayed));
        let mut unknown = post(1).close(Kind::Swim, 0, b"");
        unknown.truncate(HEADER);
        unknown[5] = 6;
        sign(&hmac::Key::new(hmac::HMAC_SHA256, &KEY), &mut unknown);
        assert_eq!(post(2).open(&unknown), Err(Refusal::Malformed));
    }

    #[test]
    fn what_was_overtaken_is_taken_and_what_is_far_behind_is_not() {
        let (mut from, mut to) = (post(1), post(2));
        let sent: Vec<Vec<u8>> = (0..200).map(|_| from.close(Kind::Leave, 0, b"")).collect();
        for place in [1, 0, 127, 2, 128, 3] {
            assert!(to.open(&sent[place]).is_ok(), "{place}");
        }
        for place in [1, 0, 127, 2, 128, 3] {
            assert_eq!(to.open(&sent[place]), Err(Refusal::Replayed), "{place}");
        }
        assert!(to.open(&sent[199]).is_ok());
        assert!(to.open(&sent[72]).is_ok());
        assert_eq!(to.open(&sent[71]), Err(Refusal::Replayed));
    }

    #[test]
    fn what_is_known_of_senders_is_bounded() {
        let mut to = post(0);
        for node in 1..=2 * SENDERS_MAX as u32 {
            assert!(to.open(&post(node).close(Kind::Leave, 0, b"")).is_ok());
        }
        assert_eq!(to.senders.len(), SENDERS_MAX);
    }
}
