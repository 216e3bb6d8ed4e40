//! How the nodes of a cluster find each other: by beacons on a multicast group, by the addresses of seeds, and by names of
//! the DNS. All three are equal and may be used together; a machine without sockets and clocks.
//!
//! A beacon goes to the group and to each seed that is no member: each second while this node is alone, each five
//! seconds after, so that halves of a cluster that lost each other meet again. Whoever takes a beacon of a node that is
//! no member asks it by gossip to be taken up (`Output::Join`); more a beacon never does.

use super::beacon::{Lamp, Lookout};
use super::facts::{self, FactsFault};
use super::refusal::{Refusal, Refusals};
use super::view::{NodeFacts, Run};
use crate::base::instant::{Instant, Now};
use crate::base::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

/// Addresses and names of seeds.
pub const SEEDS_MAX: usize = 64;
/// Addresses of one name that are used; a name with more gives its first.
pub const ADDRESSES_MAX: usize = 64;
/// Seeds that get a beacon in one round; with more, they take turns.
pub const ROUND_MAX: usize = 64;
/// Addresses that were asked lately are known; beyond, none is asked until the oldest may be again.
pub const JOINS_MAX: usize = 256;
const ALONE: Duration = Duration::from_secs(1);
const IN_COMPANY: Duration = Duration::from_secs(5);
const RESOLVE: Duration = Duration::from_secs(10);
/// An address is asked at most so often, whoever shows beacons.
const JOIN_AGAIN: Duration = Duration::from_secs(1);

/// Where to look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether there is a multicast group.
    pub has_group: bool,
    pub seeds: Vec<SocketAddr>,
    /// Names with a port, as the resolver takes them.
    pub names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryFault {
    #[error("at most 64 seeds and names can be asked")]
    Seeds,
    #[error("no other node can reach the seed {0}")]
    Seed(SocketAddr),
    #[error(transparent)]
    Facts(#[from] FactsFault),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A beacon to the multicast group.
    ToGroup(Vec<u8>),
    /// A beacon to a seed.
    ToSeed(SocketAddr, Vec<u8>),
    /// There is a node that is no member: `Membership::join`.
    Join(SocketAddr),
    /// The addresses of this name are wanted: `Discovery::resolved` or `unresolved` follows, sometime.
    Resolve(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiscoveryFigures {
    pub sent: u64,
    /// Beacons that were taken.
    pub received: u64,
    /// Our own, come back from the group.
    pub own: u64,
    pub refused: Refusals,
    /// Names that could not be resolved.
    pub unresolved: u64,
    /// How far the clock of the last sender is before ours; below 0: behind. In milliseconds.
    pub ahead_ms: i64,
}

/// One per node.
#[derive(Debug)]
pub struct Discovery {
    settings: Settings,
    facts: NodeFacts,
    lamp: Lamp,
    lookout: Lookout,
    rng: Rng,
    next_round: Instant,
    /// Which seed is the first of the next round.
    turn: usize,
    names: BTreeMap<String, Name>,
    joins: BTreeMap<SocketAddr, Instant>,
    figures: DiscoveryFigures,
}

#[derive(Debug)]
struct Name {
    next: Instant,
    addresses: Vec<SocketAddr>,
}

impl Discovery {
    /// The first beacon and the first look at names are due at once.
    ///
    /// - takes: the key of beacons, derived from the secret of the cluster
    /// - errors: too many seeds, or one that cannot be reached; facts that cannot be told
    pub fn new(
        settings: Settings,
        facts: NodeFacts,
        key: &[u8; 32],
        now: Instant,
        rng: Rng,
    ) -> Result<Discovery, DiscoveryFault> {
        facts::check(&facts)?;
        if settings.seeds.len() + settings.names.len() > SEEDS_MAX {
            return Err(DiscoveryFault::Seeds);
        }
        if let Some(seed) = settings.seeds.iter().find(|seed| !facts::is_reachable(**seed)) {
            return Err(DiscoveryFault::Seed(*seed));
        }
        let name = |name: &String| (name.clone(), Name { next: now, addresses: Vec::new() });
        Ok(Discovery {
            names: settings.names.iter().map(name).collect(),
            settings,
            facts,
            lamp: Lamp::new(key),
            lookout: Lookout::new(key),
            rng,
            next_round: now,
            turn: 0,
            joins: BTreeMap::new(),
            figures: DiscoveryFigures::default(),
        })
    }

    /// Takes a datagram from the group, or one that was sent to this node and begins as a beacon does.
    ///
    /// - takes: the members, as `Membership::company` has them
    pub fn datagram(
        &mut self,
        now: Now,
        bytes: &[u8],
        company: &[(Run, SocketAddr)],
        out: &mut Vec<Output>,
    ) {
        let beacon = match self.lookout.read(now.wall, bytes) {
            Ok(beacon) => beacon,
            Err(refusal) => return self.figures.refused.count(refusal),
        };
        if beacon.facts.run == self.facts.run {
            self.figures.own += 1;
            return;
        }
        self.figures.received += 1;
        self.figures.ahead_ms = beacon.ahead_us / 1000;
        let link = beacon.facts.link;
        let is_member = company.iter().any(|(run, _)| *run == beacon.facts.run);
        if !is_member && link != self.facts.link && self.may_join(now.mono, link) {
            out.push(Output::Join(link));
        }
    }

    /// What a name was resolved to. The order does not matter.
    pub fn resolved(&mut self, name: &str, addresses: &[SocketAddr]) {
        if let Some(name) = self.names.get_mut(name) {
            let reachable = addresses.iter().filter(|address| facts::is_reachable(**address));
            name.addresses = reachable.take(ADDRESSES_MAX).copied().collect();
        }
    }

    /// The name cannot be resolved now: what was known of it stays.
    pub fn unresolved(&mut self) {
        self.figures.unresolved += 1;
    }

    /// Does what is due. To be called at `next_tick`.
    ///
    /// - takes: the members, as `Membership::company` has them
    pub fn tick(&mut self, now: Now, company: &[(Run, SocketAddr)], out: &mut Vec<Output>) {
        for (name, state) in &mut self.names {
            if state.next <= now.mono {
                state.next = now.mono + RESOLVE;
                out.push(Output::Resolve(name.clone()));
            }
        }
        let period = if company.is_empty() { ALONE } else { IN_COMPANY };
        // Whoever is alone of a sudden does not wait for the slow round.
        let latest = now.mono + period.mul_f64(1.2);
        self.next_round = self.next_round.min(latest);
        if self.next_round > now.mono {
            return;
        }
        // A fifth more or less, so that nodes that were started together do not send together for ever.
        let jitter = u32::try_from(self.rng.below(401)).unwrap_or_default();
        self.next_round = now.mono + period.mul_f64(0.8 + f64::from(jitter) / 1000.0);
        if self.settings.has_group {
            let beacon = self.beacon(now);
            out.push(Output::ToGroup(beacon));
        }
        for seed in self.round(company) {
            let beacon = self.beacon(now);
            out.push(Output::ToSeed(seed, beacon));
        }
    }

    /// When `tick` is to be called.
    pub fn next_tick(&self) -> Instant {
        self.names.values().map(|name| name.next).chain([self.next_round]).min().unwrap_or_default()
    }

    /// Beacons say this from now on. Facts that cannot be told change nothing.
    pub fn tell(&mut self, facts: NodeFacts) {
        if facts::check(&facts).is_ok() {
            self.facts = facts;
        }
    }

    pub fn figures(&self) -> DiscoveryFigures {
        self.figures
    }

    /// A datagram for this machine was refused before it came here.
    pub fn refused(&mut self, refusal: Refusal) {
        self.figures.refused.count(refusal);
    }

    fn beacon(&mut self, now: Now) -> Vec<u8> {
        self.figures.sent += 1;
        self.lamp.beacon(now.wall, &self.facts, &mut self.rng)
    }

    /// The seeds of this round: those that are no members.
    fn round(&mut self, company: &[(Run, SocketAddr)]) -> Vec<SocketAddr> {
        let resolved = self.names.values().flat_map(|name| &name.addresses);
        let is_there = |seed: &SocketAddr| {
            *seed != self.facts.link && !company.iter().any(|(_, link)| link == seed)
        };
        let seeds: BTreeSet<SocketAddr> =
            self.settings.seeds.iter().chain(resolved).copied().filter(is_there).collect();
        let first = if seeds.len() > ROUND_MAX { self.turn % seeds.len() } else { 0 };
        self.turn = first + ROUND_MAX;
        seeds.iter().cycle().skip(first).take(seeds.len().min(ROUND_MAX)).copied().collect()
    }

    fn may_join(&mut self, now: Instant, link: SocketAddr) -> bool {
        if self.joins.get(&link).is_some_and(|last| now.since(*last) < JOIN_AGAIN) {
            return false;
        }
        if self.joins.len() >= JOINS_MAX {
            self.joins.retain(|_, last| now.since(*last) < JOIN_AGAIN);
        }
        if self.joins.len() >= JOINS_MAX && !self.joins.contains_key(&link) {
            return false;
        }
        self.joins.insert(link, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::instant::Wall;
    use crate::cluster::placement::NodeId;

    const KEY: [u8; 32] = [7; 32];

    fn at(ms: u64) -> Now {
        let wall = Wall(1_800_000_000_000_000 + ms * 1000);
        Now { mono: Instant::default() + Duration::from_millis(ms), wall }
    }

    fn link(node: u32) -> SocketAddr {
        format!("10.0.{}.{}:7070", node / 256, node % 256).parse().expect("an address")
    }

    fn facts(node: u32) -> NodeFacts {
        NodeFacts {
            name: format!("n{node}"),
            run: Run { node: NodeId(node), incarnation: 1 },
            shards: 4,
            weight: 1,
            link: link(node),
            clients: Vec::new(),
            components: Vec::new(),
            federates: false,
            frames: (1, 2),
            version: "0.2.0".into(),
        }
    }

    fn node(node: u32, settings: Settings) -> Discovery {
        let rng = Rng::from_u64(node.into());
        Discovery::new(settings, facts(node), &KEY, at(0).mono, rng).expect("settings")
    }

    fn group() -> Settings {
        Settings { has_group: true, ..Settings::default() }
    }

    fn tick(node: &mut Discovery, ms: u64, company: &[(Run, SocketAddr)]) -> Vec<Output> {
        let mut out = Vec::new();
        node.tick(at(ms), company, &mut out);
        out
    }

    fn take(
        node: &mut Discovery,
        ms: u64,
        bytes: &[u8],
        company: &[(Run, SocketAddr)],
    ) -> Vec<Output> {
        let mut out = Vec::new();
        node.datagram(at(ms), bytes, company, &mut out);
        out
    }

    fn only_beacon(out: Vec<Output>) -> Vec<u8> {
        match <[Output; 1]>::try_from(out) {
            Ok([Output::ToGroup(bytes) | Output::ToSeed(_, bytes)]) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_node_that_hears_a_stranger_asks_it_once_a_second() {
        let (mut one, mut two) = (node(1, group()), node(2, Settings::default()));
        let mut joins = 0;
        for ms in (0..4000).step_by(100) {
            one.next_round = at(ms).mono;
            let beacon = only_beacon(tick(&mut one, ms, &[]));
            assert_eq!(take(&mut one, ms, &beacon, &[]), []);
            match &take(&mut two, ms, &beacon, &[])[..] {
                [] => {}
                [Output::Join(to)] if *to == link(1) => joins += 1,
                other => panic!("{other:?}"),
            }
            assert_eq!(take(&mut two, ms, &beacon, &[]), []);
        }
        assert_eq!(joins, 4);
        assert_eq!((one.figures().own, one.figures().sent), (40, 40));
        assert_eq!(two.figures().received, 40);
        assert_eq!(two.figures().refused.of(Refusal::Replayed), 40);
    }

    #[test]
    fn members_are_not_asked() {
        let (mut one, mut two) = (node(1, group()), node(2, Settings::default()));
        let beacon = only_beacon(tick(&mut one, 0, &[]));
        assert_eq!(take(&mut two, 0, &beacon, &[(facts(1).run, link(1))]), []);
        let earlier = Run { incarnation: 0, ..facts(1).run };
        one.next_round = at(1).mono;
        let beacon = only_beacon(tick(&mut one, 1, &[]));
        let out = take(&mut two, 1, &beacon, &[(earlier, link(1))]);
        assert_eq!(out, [Output::Join(link(1))]);
    }

    #[test]
    fn beacons_are_quick_while_alone_and_slow_in_company() {
        let mut one = node(1, group());
        let mut count = |from: u64, to: u64, company: &[(Run, SocketAddr)]| {
            (from..to).filter(|ms| !tick(&mut one, *ms, company).is_empty()).count()
        };
        assert!((9..=13).contains(&count(0, 10_000, &[])));
        let company = [(facts(2).run, link(2))];
        assert!((9..=14).contains(&count(10_000, 65_000, &company)));
        assert!(count(65_000, 66_300, &[]) >= 1, "alone again, it does not wait");
    }

    #[test]
    fn seeds_and_names_that_are_no_members_get_beacons() {
        let settings = Settings {
            has_group: true,
            seeds: vec![link(1), link(2), link(3)],
            names: vec!["nodes.example.org:7070".into()],
        };
        let mut one = node(1, settings);
        let out = tick(&mut one, 0, &[]);
        assert_eq!(out[0], Output::Resolve("nodes.example.org:7070".into()));
        let kinds = |out: &[Output]| -> Vec<Option<SocketAddr>> {
            out.iter()
                .filter_map(|output| match output {
                    Output::ToGroup(_) => Some(None),
                    Output::ToSeed(to, _) => Some(Some(*to)),
                    _ => None,
                })
                .collect()
        };
        assert_eq!(kinds(&out), [None, Some(link(2)), Some(link(3))]);
        one.resolved(
            "nodes.example.org:7070",
            &[link(1), link(3), link(4), "0.0.0.0:1".parse().expect("an address")],
        );
        one.resolved("other.example.org:7070", &[link(9)]);
        one.unresolved();
        let company = [(facts(2).run, link(2))];
        let out = tick(&mut one, 7000, &company);
        assert_eq!(kinds(&out), [None, Some(link(3)), Some(link(4))]);
        assert!(tick(&mut one, 9_999, &company).is_empty());
        assert_eq!(
            tick(&mut one, 10_000, &company),
            [Output::Resolve("nodes.example.org:7070".into())]
        );
        assert!(one.next_tick() <= at(13_000).mono);
    }

    #[test]
    fn many_seeds_take_turns() {
        let names: Vec<String> = (0..4).map(|name| format!("name{name}:7070")).collect();
        let mut one = node(1, Settings { names: names.clone(), ..Settings::default() });
        for (place, name) in (0..).zip(&names) {
            let addresses: Vec<SocketAddr> =
                (0..100).map(|node| link(1000 + place * 100 + node)).collect();
            one.resolved(name, &addresses);
        }
        let mut asked = BTreeSet::new();
        for round in 0..4 {
            one.next_round = at(round).mono;
            let out = tick(&mut one, round, &[]);
            let seeds = out.iter().filter_map(|output| match output {
                Output::ToSeed(to, _) => Some(*to),
                _ => None,
            });
            let before = asked.len();
            asked.extend(seeds);
            assert_eq!(asked.len() - before, ROUND_MAX);
        }
        assert_eq!(asked.len(), 4 * ADDRESSES_MAX);
    }

    #[test]
    fn whoever_shows_many_addresses_has_few_asked() {
        let mut lamp = Lamp::new(&KEY);
        let (mut one, mut rng) = (node(1, Settings::default()), Rng::from_u64(9));
        let mut joins = 0;
        for node in 2..2 + 2 * JOINS_MAX as u32 {
            let beacon = lamp.beacon(at(0).wall, &facts(node), &mut rng);
            joins += take(&mut one, 0, &beacon, &[]).len();
        }
        assert_eq!(joins, JOINS_MAX);
        assert_eq!(one.joins.len(), JOINS_MAX);
        let beacon = lamp.beacon(at(0).wall, &facts(5000), &mut rng);
        assert_eq!(take(&mut one, 2000, &beacon, &[]).len(), 1);
        assert_eq!(one.joins.len(), 1);
    }

    #[test]
    fn what_cannot_be_right_is_refused_at_the_start() {
        let new =
            |settings| Discovery::new(settings, facts(1), &KEY, at(0).mono, Rng::from_u64(1)).err();
        let seeds = vec![link(2); SEEDS_MAX + 1];
        let many = Settings { seeds, ..Settings::default() };
        assert_eq!(new(many), Some(DiscoveryFault::Seeds));
        let seed: SocketAddr = "10.0.0.1:0".parse().expect("an address");
        let portless = Settings { seeds: vec![seed], ..Settings::default() };
        assert_eq!(new(portless), Some(DiscoveryFault::Seed(seed)));
    }
}
