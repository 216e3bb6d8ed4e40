//! XEP-0198 §5: how far sessions that ended had been handled, for clients that come too late to resume them.
//!
//! Lives on the shard that owned them, and only in memory: a restart forgets it.

use crate::base::hash::Map;
use std::collections::VecDeque;
use std::sync::Arc;

/// One per shard. The oldest are forgotten first.
#[derive(Debug, Default)]
pub(super) struct Ended {
    sessions: Map<Arc<str>, Last>,
    order: VecDeque<Arc<str>>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    /// Hash of the account whose session it was: nobody else is told.
    owner: u64,
    handled: u32,
}

impl Ended {
    /// - takes: `id`, which no other session ever had; `most`, how many are remembered
    pub(super) fn insert(&mut self, id: Box<str>, owner: u64, handled: u32, most: usize) {
        while self.order.len() >= most {
            let Some(oldest) = self.order.pop_front() else { return };
            self.sessions.remove(&oldest);
        }
        let id: Arc<str> = id.into();
        self.order.push_back(id.clone());
        self.sessions.insert(id, Last { owner, handled });
    }

    /// What was handled of the session `id`, if it was one of `owner`.
    pub(super) fn handled(&self, id: &str, owner: u64) -> Option<u32> {
        self.sessions.get(id).filter(|last| last.owner == owner).map(|last| last.handled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_told_to_their_owner() {
        let mut ended = Ended::default();
        for (id, handled) in [("a", 1), ("b", 2), ("c", 3)] {
            ended.insert(id.into(), 7, handled, 2);
        }
        assert_eq!(["a", "b", "c"].map(|id| ended.handled(id, 7)), [None, Some(2), Some(3)]);
        assert_eq!(ended.handled("c", 8), None);
        // The bound may have been lowered.
        ended.insert("d".into(), 7, 4, 0);
        assert_eq!(["b", "c", "d"].map(|id| ended.handled(id, 7)), [None; 3]);
        assert!(ended.order.is_empty() && ended.sessions.is_empty());
    }
}
