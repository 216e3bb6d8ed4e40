//! Who waits for which domain: each domain is asked for once, and so many at a time.

use crate::base::hash::Map;
use std::collections::VecDeque;
use std::sync::Arc;

pub(in crate::runtime::federation) struct Turns<A> {
    /// Under way at a time.
    most: usize,
    under_way: usize,
    pending: Map<Arc<str>, Vec<A>>,
    /// Of these, the ones that are not asked for yet.
    queue: VecDeque<Arc<str>>,
}

impl<A> Turns<A> {
    pub(in crate::runtime::federation) fn new(most: usize) -> Turns<A> {
        Turns { most, under_way: 0, pending: Map::default(), queue: VecDeque::new() }
    }

    /// How many wait for this domain; `None` where it is not asked for.
    pub(in crate::runtime::federation) fn askers(&self, domain: &str) -> Option<usize> {
        self.pending.get(domain).map(Vec::len)
    }

    /// Domains that wait for their turn.
    pub(in crate::runtime::federation) fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub(in crate::runtime::federation) fn add(&mut self, domain: Arc<str>, asker: A) {
        match self.pending.get_mut(&domain) {
            Some(askers) => askers.push(asker),
            None => {
                self.pending.insert(domain.clone(), vec![asker]);
                self.queue.push_back(domain);
            }
        }
    }

    /// A domain whose turn it is; `done` follows.
    pub(in crate::runtime::federation) fn next(&mut self) -> Option<Arc<str>> {
        if self.under_way >= self.most {
            return None;
        }
        let domain = self.queue.pop_front()?;
        self.under_way += 1;
        Some(domain)
    }

    /// Gives who waited for it.
    pub(in crate::runtime::federation) fn done(&mut self, domain: &str) -> Vec<A> {
        self.under_way -= 1;
        self.pending.remove(domain).unwrap_or_default()
    }
}
