//! How the cores number their requests to the storage threads, and what comes back.

use super::{Answer, Written};

/// Numbers a request of one core; its answer carries it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What became of a request to the store.
#[derive(Clone, Debug)]
pub enum StoreOutcome {
    Written(Written),
    Answer(Answer),
    /// The store could not do it, and has given up trying.
    Failed,
}
