//! From a core to those who watch: hops go out when their turn ends. Who does not take them in time misses some, and is told
//! how many.

use crate::shard::{Hop, WatchId};
use std::sync::mpsc::{SyncSender, TrySendError};

/// One per core.
#[derive(Debug, Default)]
pub(super) struct Watchers(Vec<Watcher>);

#[derive(Debug)]
struct Watcher {
    id: WatchId,
    hops: SyncSender<Hop>,
    missed: u64,
}

impl Watchers {
    pub(super) fn add(&mut self, id: WatchId, hops: SyncSender<Hop>) {
        self.0.push(Watcher { id, hops, missed: 0 });
    }

    /// Gives how many hops it missed since the last one that it got.
    pub(super) fn remove(&mut self, id: WatchId) -> u64 {
        self.0.extract_if(.., |one| one.id == id).map(|one| one.missed).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn tell(&mut self, hops: Vec<Hop>) {
        for mut hop in hops {
            let Some(watcher) = self.0.iter_mut().find(|one| one.id == hop.watch) else { continue };
            hop.left_out += std::mem::take(&mut watcher.missed);
            if let Err(TrySendError::Full(hop)) = watcher.hops.try_send(hop) {
                watcher.missed = hop.left_out + 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::instant::{Instant, Wall};
    use crate::shard::{About, Step};
    use std::sync::mpsc::sync_channel;

    fn hop(watch: WatchId) -> Hop {
        Hop {
            watch,
            stanza: (0, 1),
            shard: 0,
            at: Instant(0),
            wall: Wall(0),
            step: Step::Received,
            detail: String::new(),
            about: About::default(),
            left_out: 2,
        }
    }

    #[test]
    fn who_is_slow_learns_how_many_it_missed() {
        let (one, other) = (WatchId::new(0, 0), WatchId::new(1, 0));
        let mut watchers = Watchers::default();
        let (hops, seen) = sync_channel(1);
        watchers.add(one, hops);
        watchers.tell(vec![hop(one), hop(other), hop(one), hop(one)]);
        assert_eq!(seen.try_iter().map(|hop| hop.left_out).collect::<Vec<_>>(), [2]);
        watchers.tell(vec![hop(one), hop(one)]);
        assert_eq!(seen.try_iter().map(|hop| hop.left_out).collect::<Vec<_>>(), [8]);
        assert_eq!((watchers.remove(one), watchers.is_empty()), (3, true));
    }
}
