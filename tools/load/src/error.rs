//! Why a run could not be finished.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// What ended a run before its time.
#[derive(Debug)]
pub enum Error {
    /// A system call failed; the text says which.
    Io(&'static str, io::Error),
    /// A connection ended although the run still needed it.
    Closed { user: String, cause: String },
    /// Nothing arrived for as long as the run was ready to wait.
    Stalled { waiting_for: String },
    /// The limit of open descriptors is too low for the sessions wanted.
    Descriptors { needed: u64, limit: u64 },
    /// What was asked makes no sense.
    Config(String),
    /// The server program could not be started, or ended by itself.
    Server(String),
    /// A worker process could not do its part.
    Worker(String),
    /// A file could not be read or written.
    File(PathBuf, io::Error),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(what, error) => write!(f, "{what}: {error}"),
            Self::Closed { user, cause } => write!(f, "connection of {user} ended: {cause}"),
            Self::Stalled { waiting_for } => write!(f, "nothing moves: waiting for {waiting_for}"),
            Self::Descriptors { needed, limit } => {
                write!(f, "{needed} descriptors needed, the hard limit is {limit}")
            }
            Self::Config(what) => write!(f, "{what}"),
            Self::Server(what) => write!(f, "server: {what}"),
            Self::Worker(what) => write!(f, "{what}"),
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) | Self::File(_, error) => Some(error),
            _ => None,
        }
    }
}
