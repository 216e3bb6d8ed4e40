//! Which connections each component has, on which shard. Every shard has a copy; changes cross the rings in order with
//! the stanzas that they concern.
//!
//! Which of several connections gets a stanza is computed, not agreed upon: rendezvous hashing over the connections, of
//! the bare JID that the stanza is for, or of the bare JID of its sender where it is for the component's bare domain. So
//! all of one room or one bot's user arrives on one connection, a bare domain's senders spread, order per sender and
//! recipient holds, and a connection that comes or goes moves its share only.

use crate::base::hash::{Map, hash64};
use crate::cluster::placement::Owner;
use crate::shard::deliver::{domain_of, split};
use crate::shard::effect::ConnId;
use crate::shard::peers::Peer;
use crate::stream::component::ComponentAccess;
use std::sync::Arc;

/// An established connection of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::shard) struct Place {
    pub peer: Peer,
    pub conn: ConnId,
    /// What all nodes call the shard.
    pub owner: Owner,
}

#[derive(Debug)]
struct Component {
    domain: Arc<str>,
    /// False for one that was configured before, or will be: shards read a new configuration one after the other.
    is_configured: bool,
    places: Vec<Place>,
}

/// The components that are configured, in the order in which they became so.
#[derive(Debug, Default)]
pub(in crate::shard) struct Table {
    /// Never shortened: it grows with what an operator writes.
    components: Vec<Component>,
    names: Map<Arc<str>, usize>,
}

impl Table {
    pub(in crate::shard) fn new(known: &[ComponentAccess]) -> Self {
        let mut table = Self::default();
        table.configure(known);
        table
    }

    /// Takes over another configuration; connections stay known.
    pub(in crate::shard) fn configure(&mut self, known: &[ComponentAccess]) {
        self.components.iter_mut().for_each(|component| component.is_configured = false);
        for access in known {
            let component = self.entry(&access.domain);
            self.components[component].is_configured = true;
        }
    }

    /// The place in the list of a component, configured or not.
    pub(in crate::shard) fn entry(&mut self, domain: &str) -> usize {
        if let Some(known) = self.names.get(domain) {
            return *known;
        }
        let domain: Arc<str> = domain.into();
        self.names.insert(domain.clone(), self.components.len());
        self.components.push(Component { domain, is_configured: false, places: Vec::new() });
        self.components.len() - 1
    }

    /// The component that serves a domain.
    pub(in crate::shard) fn serving(&self, domain: &str) -> Option<usize> {
        if self.components.is_empty() {
            return None;
        }
        let component = self.names.get(domain).copied()?;
        self.components[component].is_configured.then_some(component)
    }

    /// The component that a prepared address belongs to.
    pub(in crate::shard) fn of(&self, jid: &str) -> Option<usize> {
        if self.components.is_empty() {
            return None;
        }
        self.serving(domain_of(jid))
    }

    pub(in crate::shard) fn connections(&self, component: usize) -> usize {
        self.components.get(component).map_or(0, |component| component.places.len())
    }

    pub(in crate::shard) fn places(&self, component: usize) -> &[Place] {
        self.components.get(component).map_or(&[], |component| &component.places)
    }

    /// Those that have a connection of the component, each once.
    pub(in crate::shard) fn peers(&self, component: usize) -> Vec<Peer> {
        let mut peers: Vec<_> = self.places(component).iter().map(|place| place.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// The connections of a shard, with their domains.
    pub(in crate::shard) fn of_peer(
        &self,
        peer: Peer,
    ) -> impl Iterator<Item = (Arc<str>, ConnId)> + '_ {
        self.components.iter().flat_map(move |component| {
            let here = component.places.iter().filter(move |place| place.peer == peer);
            here.map(|place| (component.domain.clone(), place.conn))
        })
    }

    /// A shard is gone, with its connections.
    pub(in crate::shard) fn lose(&mut self, peer: Peer) {
        for component in &mut self.components {
            component.places.retain(|place| place.peer != peer);
        }
    }

    /// Each component with how many connections it has, those of `peer` only where one is given.
    pub(in crate::shard) fn counts(
        &self,
        peer: Option<Peer>,
    ) -> impl Iterator<Item = (&str, usize)> {
        self.components.iter().filter(|component| component.is_configured).map(move |component| {
            let here = |place: &&Place| peer.is_none_or(|peer| place.peer == peer);
            (&*component.domain, component.places.iter().filter(here).count())
        })
    }

    pub(in crate::shard) fn add(&mut self, component: usize, place: Place) {
        if let Some(component) = self.components.get_mut(component)
            && !component.places.contains(&place)
        {
            component.places.push(place);
        }
    }

    /// Whether it was there.
    pub(in crate::shard) fn remove(&mut self, component: usize, place: Place) -> bool {
        let Some(component) = self.components.get_mut(component) else { return false };
        let before = component.places.len();
        component.places.retain(|other| *other != place);
        component.places.len() < before
    }

    /// The connection that a stanza goes to.
    ///
    /// - `peer`: only connections of that shard count; where one of its connections is the choice among all, it is so
    ///   among them as well
    /// - cost: with one connection none, else a hash of the address and some instructions for each connection
    pub(in crate::shard) fn choose(
        &self,
        component: usize,
        from: &str,
        to: &str,
        peer: Option<Peer>,
    ) -> Option<Place> {
        let places = &self.components.get(component)?.places;
        let mut here = places.iter().filter(|place| peer.is_none_or(|only| place.peer == only));
        let (first, second) = (here.next()?, here.next());
        let Some(second) = second else { return Some(*first) };
        let key = hash64(deciding(from, to).as_bytes());
        let rank = |place: &&Place| {
            let Owner { node, shard } = place.owner;
            let name = place.conn.0.to_u64().rotate_left(32) ^ u64::from(shard.0) << 48;
            let name = name ^ mixed(node.0.into());
            // The name breaks ties, so that every shard breaks them alike.
            (mixed(key ^ mixed(name)), name)
        };
        [first, second].into_iter().chain(here).max_by_key(rank).copied()
    }
}

/// The bare JID by which a connection is chosen.
fn deciding<'a>(from: &'a str, to: &'a str) -> &'a str {
    let (bare, _) = split(to);
    if bare.contains('@') { bare } else { split(from).0 }
}

/// A bijection in which each bit of the result depends on each of `x` (the finaliser of SplitMix64).
fn mixed(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::base::ids::Id;
    use crate::cluster::placement::{NodeId, ShardId};
    use crate::stream::component::Secret;

    fn place(shard: u16, index: u32) -> Place {
        let owner = Owner { node: NodeId(0), shard: ShardId(shard) };
        Place { peer: Peer(shard), conn: ConnId(Id { index, generation: 1 }), owner }
    }

    fn table(places: &[Place]) -> Table {
        let access = ComponentAccess { domain: "bot".into(), secret: Secret::new("x") };
        let mut table = Table::new(&[access]);
        places.iter().for_each(|place| table.add(0, *place));
        table
    }

    #[test]
    fn addresses_find_the_component_of_their_domain() {
        let table = table(&[]);
        for jid in ["bot", "bot/a@b", "user@bot", "user@bot/res/ource@x"] {
            assert_eq!(table.of(jid), Some(0), "{jid}");
        }
        for jid in ["", "bot.bot", "bot@here", "here/bot", "user@here/x@bot"] {
            assert_eq!(table.of(jid), None, "{jid}");
        }
        assert_eq!(Table::default().of("bot"), None);
        assert_eq!(table.choose(0, "alice@here", "bot", None), None);
    }

    #[test]
    fn a_recipient_stays_on_its_connection_and_a_bare_domain_spreads_its_senders() {
        let places = [place(0, 1), place(0, 2), place(1, 1), place(3, 9)];
        let table = table(&places);
        let mut counts = [0; 4];
        for number in 0..4_000 {
            let user = format!("user{number}@here");
            let to = format!("room{number}@bot");
            let chosen = table.choose(0, &user, "bot", None).unwrap();
            counts[places.iter().position(|place| *place == chosen).unwrap()] += 1;
            let full = table.choose(0, &format!("{user}/phone"), "bot/any", None);
            assert_eq!(full, Some(chosen), "order per sender and recipient");
            let room = table.choose(0, &user, &to, None);
            assert_eq!(table.choose(0, "other@here", &format!("{to}/nick"), None), room);
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_connection_that_goes_moves_its_share_only() {
        let places = [place(0, 1), place(0, 2), place(1, 1)];
        let (all, gone) = (table(&places), table(&places[..2]));
        for number in 0..1_000 {
            let user = format!("user{number}@here");
            let before = all.choose(0, &user, "bot", None).unwrap();
            if before != places[2] {
                assert_eq!(gone.choose(0, &user, "bot", None), Some(before));
                assert_eq!(all.choose(0, &user, "bot", Some(before.peer)), Some(before));
            }
        }
    }

    #[test]
    fn connections_are_counted_by_component_and_shard() {
        let mut table = table(&[place(0, 1), place(1, 1), place(1, 1)]);
        let counts =
            |table: &Table, shard| table.counts(shard).map(|(_, count)| count).collect::<Vec<_>>();
        assert_eq!(table.connections(0), 2, "the same one counts once");
        assert_eq!(counts(&table, None), [2]);
        assert_eq!(counts(&table, Some(Peer(1))), [1]);
        assert!(table.remove(0, place(1, 1)));
        assert!(!table.remove(0, place(1, 1)));
        assert_eq!(counts(&table, Some(Peer(1))), [0]);
        let news = ComponentAccess { domain: "news".into(), secret: Secret::new("x") };
        table.add(1, place(0, 1));
        table.configure(&[news]);
        assert_eq!((table.serving("bot"), table.serving("news")), (None, Some(1)));
        assert_eq!(counts(&table, None), [0], "of what is configured");
        assert!(table.remove(0, place(0, 1)), "one that is no longer configured leaves as any");
    }
}
