//! Beacons: small UDP datagrams by which the nodes of one cluster find each other, on a multicast group or at the
//! addresses of seeds.
//!
//! ```text
//! magic "CFBN" | version 1 | time, 8 bytes | nonce, 16 bytes | facts | HMAC-SHA256 of all before, 32 bytes
//! ```
//!
//! The key is derived from the secret of the cluster, so that a beacon of another cluster on the same group is not told
//! from a forged one: its code is wrong.
//!
//! **Time.** Clocks of nodes may be an hour wrong each way, and a node must still be found. So the time only refuses what
//! is more than `WINDOW` (a bit over two hours) away from our clock. Within it a beacon is taken once: a sender's times
//! rise strictly, whatever its clock does, and of each sender the times and nonces of the last `KEPT` are known; what is
//! not newer than those that were forgotten is refused.
//!
//! **What a replayed beacon can do at most.** Whoever recorded a beacon can show it to a node that has not seen it (on
//! another network, or one that was started since) within two hours, or once one of `SENDERS_MAX` better known senders
//! displaced its sender. That node then sends one gossip datagram of some hundred bytes, once in a second at most, to an
//! address where a true node was; it takes up nobody as a member and believes nothing of what the beacon says, until an
//! authentic answer comes.

use super::datagram::{Form, MAC_BYTES, sign};
use super::facts;
use super::refusal::Refusal;
use super::view::{NodeFacts, Run};
use crate::base::instant::Wall;
use crate::base::rng::Rng;
use ring::hmac;
use std::collections::{BTreeMap, VecDeque};

pub const MAGIC: [u8; 4] = *b"CFBN";
pub const VERSION: u8 = 1;
/// Two clocks, each an hour wrong, and five minutes. In microseconds, as `Wall`.
pub const WINDOW_US: u64 = 125 * 60 * 1_000_000;
/// Senders whose times are known; beyond, the one that was not heard for longest is forgotten.
pub const SENDERS_MAX: usize = 256;
/// Times and nonces of each sender that are known.
pub const KEPT: usize = 32;
/// No beacon is longer.
pub const BEACON_BYTES_MAX: usize = HEADER + facts::FACTS_BYTES_MAX + MAC_BYTES;

const HEADER: usize = 4 + 1 + 8 + 16;
const FORM: Form =
    Form { magic: MAGIC, version: VERSION, header_bytes: HEADER, bytes_max: BEACON_BYTES_MAX };

/// Makes the beacons of one run of a node.
#[derive(Debug)]
pub struct Lamp {
    key: hmac::Key,
    /// Of the last beacon.
    time: u64,
}

impl Lamp {
    pub fn new(key: &[u8; 32]) -> Lamp {
        Lamp { key: hmac::Key::new(hmac::HMAC_SHA256, key), time: 0 }
    }

    /// The next beacon. No two are equal, and each is newer than the one before.
    ///
    /// - takes: facts that `facts::check` lets pass
    pub fn beacon(&mut self, now: Wall, facts: &NodeFacts, rng: &mut Rng) -> Vec<u8> {
        self.time = now.0.max(self.time.saturating_add(1));
        let mut nonce = [0; 16];
        rng.fill(&mut nonce);
        let mut bytes = FORM.start(256);
        bytes.extend_from_slice(&self.time.to_be_bytes());
        bytes.extend_from_slice(&nonce);
        facts::write(facts, &mut bytes);
        sign(&self.key, &mut bytes);
        bytes
    }
}

/// A beacon that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    pub facts: NodeFacts,
    /// How far the sender's clock is before ours, the way included; below 0: behind. In microseconds.
    pub ahead_us: i64,
}

/// Reads beacons, each once. One per node.
#[derive(Debug)]
pub struct Lookout {
    key: hmac::Key,
    senders: BTreeMap<Run, Seen>,
    /// Beacons that were taken.
    taken: u64,
}

#[derive(Debug)]
struct Seen {
    /// Nothing up to this time is taken.
    floor: u64,
    beacons: VecDeque<(u64, u128)>,
    /// The count of the last beacon of this sender among all.
    last: u64,
}

impl Lookout {
    pub fn new(key: &[u8; 32]) -> Lookout {
        Lookout { key: hmac::Key::new(hmac::HMAC_SHA256, key), senders: BTreeMap::new(), taken: 0 }
    }

    /// Takes a datagram.
    ///
    /// - errors: each `Refusal` but `Crowded`; nothing changes then
    /// - cost: one HMAC
    pub fn read(&mut self, now: Wall, bytes: &[u8]) -> Result<Beacon, Refusal> {
        let (time, nonce, facts) = open(&self.key, bytes)?;
        if time.saturating_add(WINDOW_US) < now.0 {
            return Err(Refusal::TooOld);
        }
        if time > now.0.saturating_add(WINDOW_US) {
            return Err(Refusal::TooNew);
        }
        if !self.senders.contains_key(&facts.run) {
            self.make_room();
        }
        self.taken += 1;
        let fresh = || Seen { floor: 0, beacons: VecDeque::new(), last: 0 };
        let seen = self.senders.entry(facts.run).or_insert_with(fresh);
        if time <= seen.floor || seen.beacons.contains(&(time, nonce)) {
            return Err(Refusal::Replayed);
        }
        seen.last = self.taken;
        seen.beacons.push_back((time, nonce));
        if seen.beacons.len() > KEPT
            && let Some((place, _)) =
                seen.beacons.iter().enumerate().min_by_key(|(_, (time, _))| *time)
            && let Some((oldest, _)) = seen.beacons.remove(place)
        {
            seen.floor = oldest;
        }
        let ahead_us = i128::from(time) - i128::from(now.0);
        Ok(Beacon { facts, ahead_us: i64::try_from(ahead_us).unwrap_or_default() })
    }

    fn make_room(&mut self) {
        if self.senders.len() >= SENDERS_MAX
            && let Some(run) =
                self.senders.iter().min_by_key(|(_, seen)| seen.last).map(|(run, _)| *run)
        {
            self.senders.remove(&run);
        }
    }
}

/// Whether this is meant as a beacon: a socket that takes several kinds of datagrams asks.
pub fn is_beacon(bytes: &[u8]) -> bool {
    FORM.is_meant(bytes)
}

fn open(key: &hmac::Key, bytes: &[u8]) -> Result<(u64, u128, NodeFacts), Refusal> {
    let mut reader = facts::Reader::new(FORM.open(key, bytes)?);
    let (Some(time), Some(nonce)) = (reader.u64(), reader.u128()) else {
        return Err(Refusal::Malformed);
    };
    let facts = facts::read(reader.rest()).ok_or(Refusal::Malformed)?;
    Ok((time, nonce, facts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::placement::NodeId;

    const KEY: [u8; 32] = [7; 32];
    const NOON: Wall = Wall(1_800_000_000_000_000);
    const HOUR: u64 = 3_600_000_000;

    fn facts(incarnation: u64) -> NodeFacts {
        NodeFacts {
            name: "n1".into(),
            run: Run { node: NodeId(1), incarnation },
            shards: 4,
            weight: 1,
            link: "10.0.0.1:7070".parse().expect("an address"),
            clients: Vec::new(),
            components: Vec::new(),
            federates: false,
            frames: (1, 2),
            version: "0.2.0".into(),
        }
    }

    fn signed(key: &[u8; 32], mut bytes: Vec<u8>) -> Vec<u8> {
        sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &mut bytes);
        bytes
    }

    fn beacon_at(time: u64) -> Vec<u8> {
        Lamp::new(&KEY).beacon(Wall(time), &facts(1), &mut Rng::from_u64(time))
    }

    #[test]
    fn a_beacon_is_taken_once() {
        let mut lookout = Lookout::new(&KEY);
        let bytes = beacon_at(NOON.0 + 5);
        let beacon = lookout.read(NOON, &bytes).expect("a beacon");
        assert_eq!(beacon, Beacon { facts: facts(1), ahead_us: 5 });
        assert_eq!(lookout.read(NOON, &bytes), Err(Refusal::Replayed));
        // By another node it is.
        assert!(Lookout::new(&KEY).read(NOON, &bytes).is_ok());
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let bytes = beacon_at(NOON.0);
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[place] ^= 1 << bit;
                let expected = match place {
                    0..4 => Refusal::NotOurs,
                    4 => Refusal::OtherVersion(VERSION ^ (1 << bit)),
                    _ => Refusal::BadMac,
                };
                assert_eq!(Lookout::new(&KEY).read(NOON, &changed), Err(expected), "{place}");
            }
            let refusal = Lookout::new(&KEY).read(NOON, &bytes[..place]);
            let expected = if place < 5 { Refusal::NotOurs } else { Refusal::BadMac };
            assert_eq!(refusal, Err(expected), "cut at {place}");
        }
    }

    #[test]
    fn a_foreign_cluster_has_another_code() {
        let foreign = Lamp::new(&[8; 32]).beacon(NOON, &facts(1), &mut Rng::from_u64(1));
        assert_eq!(Lookout::new(&KEY).read(NOON, &foreign), Err(Refusal::BadMac));
        let long = signed(&KEY, [&MAGIC[..], &[VERSION], &[0; BEACON_BYTES_MAX]].concat());
        assert_eq!(Lookout::new(&KEY).read(NOON, &long), Err(Refusal::BadMac));
    }

    #[test]
    fn authentic_nonsense_is_malformed() {
        let mut bytes = beacon_at(NOON.0);
        bytes.truncate(bytes.len() - MAC_BYTES);
        bytes.push(1);
        assert_eq!(Lookout::new(&KEY).read(NOON, &signed(&KEY, bytes)), Err(Refusal::Malformed));
        let empty = signed(&KEY, [&MAGIC[..], &[VERSION], &[0; 24]].concat());
        assert_eq!(Lookout::new(&KEY).read(NOON, &empty), Err(Refusal::Malformed));
    }

    #[test]
    fn clocks_may_be_an_hour_wrong_each_way() {
        for (time, expected) in [
            (NOON.0 - 2 * HOUR, None),
            (NOON.0 + 2 * HOUR, None),
            (NOON.0 - 3 * HOUR, Some(Refusal::TooOld)),
            (NOON.0 + 3 * HOUR, Some(Refusal::TooNew)),
            (0, Some(Refusal::TooOld)),
            (u64::MAX - 1, Some(Refusal::TooNew)),
        ] {
            assert_eq!(Lookout::new(&KEY).read(NOON, &beacon_at(time)).err(), expected, "{time}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_makes_newer_beacons_all_the_same() {
        let (mut lamp, mut rng) = (Lamp::new(&KEY), Rng::from_u64(1));
        let mut lookout = Lookout::new(&KEY);
        for step in 0..200 {
            // An hour back half way through.
            let now = Wall(NOON.0 + step * 1_000_000 - if step < 100 { 0 } else { HOUR });
            let bytes = lamp.beacon(now, &facts(1), &mut rng);
            assert!(lookout.read(NOON, &bytes).is_ok(), "{step}");
        }
    }

    #[test]
    fn what_is_older_than_all_known_is_a_replay_and_what_was_overtaken_is_not() {
        let beacons: Vec<Vec<u8>> = (0..40).map(|step| beacon_at(NOON.0 + step)).collect();
        let mut lookout = Lookout::new(&KEY);
        for bytes in beacons.iter().skip(1).rev() {
            let _ = lookout.read(NOON, bytes);
        }
        assert_eq!(lookout.read(NOON, &beacons[0]), Err(Refusal::Replayed));
        let mut lookout = Lookout::new(&KEY);
        for place in [1, 0, 3, 2] {
            assert!(lookout.read(NOON, &beacons[place]).is_ok());
        }
        for bytes in &beacons {
            let _ = lookout.read(NOON, bytes);
        }
        assert!(beacons.iter().all(|bytes| lookout.read(NOON, bytes) == Err(Refusal::Replayed)));
    }

    #[test]
    fn what_is_known_of_senders_is_bounded() {
        let mut lookout = Lookout::new(&KEY);
        let (mut lamp, mut rng) = (Lamp::new(&KEY), Rng::from_u64(1));
        for incarnation in 0..2 * SENDERS_MAX as u64 {
            let bytes = lamp.beacon(NOON, &facts(incarnation), &mut rng);
            assert!(lookout.read(NOON, &bytes).is_ok());
            // One that is heard stays known.
            let bytes = lamp.beacon(NOON, &facts(0), &mut rng);
            assert!(lookout.read(NOON, &bytes).is_ok());
            assert_eq!(lookout.read(NOON, &bytes), Err(Refusal::Replayed));
        }
        assert_eq!(lookout.senders.len(), SENDERS_MAX);
        assert!(lookout.senders.values().all(|seen| seen.beacons.len() <= KEPT));
    }
}
