//! Where a store is: what the configuration names, and who uses it opens.

use std::fmt;
use std::path::PathBuf;

use super::postgres::{self, PostgresReader, Settings};
use super::sqlite::{self, SqliteReader};
use super::{Checked, Error, Reader, Writer};

/// A store, by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file.
    Sqlite(PathBuf),
    Postgres(Box<Settings>),
}

/// A store that is ready to be written to.
pub struct Opened {
    /// One for SQLite; for PostgreSQL one for each connection. All writes of a store partition go to the same.
    pub writers: Vec<Box<dyn Writer>>,
    /// How often this store was opened, this time included: never the same twice, durable before it is given.
    pub incarnation: u64,
    /// What makes an acknowledgement worth less than it should be, a line each with what mends it.
    pub warnings: Vec<String>,
}

/// A store that nodes of a cluster write to beside each other.
pub struct Shared {
    pub opened: Opened,
    /// The number of the node's name: the same after a restart, from 1.
    pub node: u32,
}

impl Place {
    /// Opens the store for one who writes alone.
    ///
    /// - takes: `node`, the name by which others see who has it
    /// - errors: as of the kind
    /// - blocking
    pub fn open(&self, node: &str) -> Result<Opened, Error> {
        match self {
            Place::Sqlite(path) => {
                let opened = sqlite::open(path)?;
                let incarnation = opened.incarnation;
                let writers: Vec<Box<dyn Writer>> = vec![Box::new(opened.writer)];
                Ok(Opened { writers, incarnation, warnings: Vec::new() })
            }
            Place::Postgres(settings) => postgres::open(settings, node),
        }
    }

    /// Opens the store for a node of a cluster.
    ///
    /// - takes: `node`, its name in the cluster
    /// - errors: as of the kind; `Open` for one that nodes cannot share
    /// - blocking
    pub fn open_shared(&self, node: &str) -> Result<Shared, Error> {
        match self {
            Place::Sqlite(path) => Err(Error::Open {
                path: path.display().to_string(),
                reason: "the nodes of a cluster need a database that all of them reach; name a PostgreSQL in storage.url"
                    .to_owned(),
            }),
            Place::Postgres(settings) => postgres::open_shared(settings, node),
        }
    }

    /// Opens a store that was opened before, to read.
    ///
    /// - blocking
    pub fn reader(&self) -> Result<Box<dyn Reader>, Error> {
        Ok(match self {
            Place::Sqlite(path) => Box::new(SqliteReader::open(path)?),
            Place::Postgres(settings) => Box::new(PostgresReader::open(settings)?),
        })
    }

    /// Reads all of it, at one moment, and tells what cannot be so. Nothing is changed; a node may run on it.
    ///
    /// - takes: `partition`, the store partition of an address by its `hash64`
    /// - errors: as of [`Place::reader`]; what is damaged is a problem, no error
    /// - blocking: as long as it takes to read all of it
    pub fn check(&self, partition: fn(u64) -> u16) -> Result<Checked, Error> {
        match self {
            Place::Sqlite(path) => sqlite::check(path, partition),
            Place::Postgres(settings) => postgres::check(settings, partition),
        }
    }
}

impl fmt::Display for Place {
    /// Without secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Sqlite(path) => path.display().fmt(f),
            Place::Postgres(settings) => settings.fmt(f),
        }
    }
}
