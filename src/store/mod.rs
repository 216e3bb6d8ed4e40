//! What is kept: plain values in, plain values out. One narrow contract of domain operations, and behind it SQLite,
//! PostgreSQL, and a twin in memory for simulation. Only the storage threads of `runtime` call a backend.

mod check;
#[cfg(test)]
pub mod contract;
mod intern;
pub mod memory;
mod migration;
pub mod place;
pub mod postgres;
pub mod record;
pub mod request;
mod settled;
pub mod sqlite;
pub mod ticket;
pub mod transfer;

pub use check::Checked;
pub use place::{Opened, Place, Shared};
pub use record::*;
pub use request::*;
pub use ticket::{StoreOutcome, Ticket};

/// The one that writes. Lives on the writer thread of a store.
pub trait Writer: Send {
    /// Commits `batch` as one durable transaction; answers come in the order of the writes.
    ///
    /// A write that cannot be done (account exists, no such account) answers so and disturbs no other.
    /// - errors: nothing of the batch may be counted as durable (after a flush that failed it may yet be found whole,
    ///   never in part); the caller must stop acknowledging, reopen, and tell the operator
    fn commit(&mut self, batch: &[Write]) -> Result<Vec<Written>, Error>;

    /// Makes the writer usable again after a commit that failed; until then each commit fails.
    ///
    /// - errors: the trouble is still there; to be tried again later
    fn reopen(&mut self) -> Result<(), Error>;
}

/// One that reads. Lives on a reader thread; sees everything committed before the call.
pub trait Reader: Send {
    fn read(&mut self, query: &Query) -> Result<Answer, Error>;

    /// Holds on to the present state: what is read from now on is of this one moment, until `release`. Old states cost a
    /// store that is written to: for as long as one account or a walk through all of them takes.
    fn hold(&mut self) -> Result<(), Error>;

    /// Reads the newest state again; nothing where none was held.
    fn release(&mut self) -> Result<(), Error>;
}

/// What a backend refuses of `Write::RaiseCounters`, with the whole batch.
fn check_counters(counters: &Counters) -> Result<(), Error> {
    for (partition, next) in &counters.next_ids {
        if *partition >= STORE_PARTITIONS || *next > LOG_ID_MAX {
            return Err(Error::Backend(format!("partition {partition} has no id {next}")));
        }
    }
    if counters.incarnation > LOG_ID_MAX {
        return Err(Error::Backend(format!("{} is no incarnation", counters.incarnation)));
    }
    Ok(())
}

/// Our own trouble with the store; never the fault of a peer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: cannot open the database: {reason}")]
    Open { path: String, reason: String },
    #[error(
        "the database was written by a newer version (schema {found}, this version reads up to {known})"
    )]
    TooNew { found: u32, known: u32 },
    #[error("the database is damaged: {0}")]
    Damaged(String),
    #[error("the disk is full")]
    Full,
    /// For good: this node must end.
    #[error(
        "another node has taken the database over, or it was put back to an older state; this node writes nothing any more"
    )]
    Fenced,
    #[error("database: {0}")]
    Backend(String),
}
