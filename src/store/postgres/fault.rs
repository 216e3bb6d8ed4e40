//! What went wrong on a connection, and what it means to the callers of the store.

use std::error::Error as _;

use tokio_postgres::error::SqlState;

use super::super::Error;

/// Why a question had no answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The server refused, or the connection was lost.
    Database(tokio_postgres::Error),
    /// The server is there, or not, and says nothing.
    Silent,
}

impl Fault {
    /// Another transaction was in the way: this one left nothing, and may be run again at once.
    pub(super) fn is_passing(&self) -> bool {
        let passing = [&SqlState::T_R_SERIALIZATION_FAILURE, &SqlState::T_R_DEADLOCK_DETECTED];
        self.code().is_some_and(|code| passing.contains(&code))
    }

    /// The session has ended or must be taken for it.
    pub(super) fn is_lost(&self) -> bool {
        match self.code() {
            // Operator intervention (57P01 to 57P05), but not a statement that was cancelled; connection exceptions;
            // a transaction that was left alone for too long.
            Some(code) => {
                let is_cancelled = *code == SqlState::QUERY_CANCELED;
                let of_lost = ["57", "08", "25P03"];
                of_lost.iter().any(|start| code.code().starts_with(start)) && !is_cancelled
            }
            None => true,
        }
    }

    pub(super) fn is(&self, code: &SqlState) -> bool {
        self.code() == Some(code)
    }

    fn code(&self) -> Option<&SqlState> {
        match self {
            Fault::Database(error) => error.code(),
            Fault::Silent => None,
        }
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Fault {
        Fault::Database(error)
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        let told = told(&fault);
        match fault.code() {
            Some(code) if *code == SqlState::DISK_FULL => Error::Full,
            Some(code)
                if [&SqlState::DATA_CORRUPTED, &SqlState::INDEX_CORRUPTED].contains(&code) =>
            {
                Error::Damaged(told)
            }
            _ => Error::Backend(told),
        }
    }
}

/// One line. The server's details are left out: they quote the values of rows.
pub(super) fn told(fault: &Fault) -> String {
    let Fault::Database(error) = fault else {
        return "no answer from the server in time".to_owned();
    };
    if let Some(refusal) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", refusal.message(), refusal.code().code());
    }
    let mut told = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        told = format!("{told}: {cause}");
        source = cause.source();
    }
    told
}
