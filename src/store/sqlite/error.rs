//! What SQLite's codes mean to the callers of the store.

use rusqlite::ErrorCode;

use super::super::Error;

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        match &error {
            rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
                ErrorCode::DiskFull => Error::Full,
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
                    Error::Damaged(error.to_string())
                }
                // "disk I/O error" alone does not say of what.
                _ => Error::Backend(format!("{error} (SQLite: {})", failure.extended_code)),
            },
            // A column holds what no version of this program writes.
            rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..) => Error::Damaged(error.to_string()),
            _ => Error::Backend(error.to_string()),
        }
    }
}

impl From<rusqlite::types::FromSqlError> for Error {
    fn from(error: rusqlite::types::FromSqlError) -> Error {
        Error::Damaged(error.to_string())
    }
}
