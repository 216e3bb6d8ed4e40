//! Watching stanzas on the shards of a node.

use super::Node;
use corefire::shard::{Hop, Watch, WatchId, Whom};
use corefire::xmpp::jid::Jid;
use std::time::Duration;

impl Node {
    /// All shards watch an address. Each look at the clock finds it a microsecond later.
    pub(crate) fn watch(&mut self, slot: usize, address: &str) -> WatchId {
        self.watch_whom(slot, Whom::Address(Jid::parse(address).unwrap()))
    }

    pub(crate) fn watch_id(&mut self, slot: usize, id: &str) -> WatchId {
        self.watch_whom(slot, Whom::Id(id.into()))
    }

    fn watch_whom(&mut self, slot: usize, whom: Whom) -> WatchId {
        let id = WatchId::new(slot, 0);
        for core in &mut self.cores {
            let clock = std::cell::Cell::new(self.now.mono);
            let looks = move || {
                clock.set(clock.get() + Duration::from_micros(1));
                clock.get()
            };
            core.shard.watch(Watch { id, whom: whom.clone() }, Box::new(looks));
        }
        id
    }

    /// Gives how many hops were left out at the end.
    pub(crate) fn end_watch(&mut self, id: WatchId) -> u64 {
        self.cores.iter_mut().map(|core| core.shard.end_watch(id)).sum()
    }

    /// What all shards have told since the last time, one shard after the other.
    pub(crate) fn hops(&mut self) -> Vec<Hop> {
        self.cores.iter_mut().flat_map(|core| core.shard.take_hops()).collect()
    }
}
