//! The schema and how it grows: each step is one transaction.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::super::Error;
pub(super) use super::super::migration::Migration;
use super::super::migration::version;

/// In the header of each database of ours (`PRAGMA application_id`): "Core".
const APPLICATION_ID: i32 = 0x436f_7265;

/// The step with which a database has its conversations.
pub(super) const CONVERSATIONS: u32 = 5;

/// The step with which the index of the archive is in tables of its own.
pub(super) const INDEX: u32 = 6;

/// All steps that this program knows, in order.
pub(super) static MIGRATIONS: &[Migration] = &[
    Migration { number: 1, oldest: 1, sql: include_str!("migrations/0001_accounts_and_log.sql") },
    Migration { number: 2, oldest: 1, sql: include_str!("migrations/0002_scram_sha512.sql") },
    Migration { number: 3, oldest: 1, sql: include_str!("migrations/0003_archive.sql") },
    Migration {
        number: 4,
        oldest: 1,
        sql: include_str!("migrations/0004_keys_of_other_servers.sql"),
    },
    Migration {
        number: CONVERSATIONS,
        oldest: 1,
        sql: include_str!("migrations/0005_conversations.sql"),
    },
    Migration {
        number: INDEX,
        oldest: 1,
        sql: include_str!("migrations/0006_index_of_the_archive.sql"),
    },
    Migration { number: 7, oldest: 1, sql: include_str!("migrations/0007_remote_domains.sql") },
];

/// Whose file this is.
pub(super) enum Owner {
    Nobody,
    Ours,
    Other,
}

/// Reads the file's header and changes nothing.
///
/// - errors: `NotADatabase` for a file that is none
pub(super) fn owner(conn: &Connection) -> rusqlite::Result<Owner> {
    let id: i32 = conn.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let tables: u32 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (id, tables) {
        (APPLICATION_ID, _) => Owner::Ours,
        (0, 0) => Owner::Nobody,
        _ => Owner::Other,
    })
}

/// Does the steps that the database lacks.
///
/// - gives: the version of the schema afterwards, which may be above what `known` holds
/// - errors: `TooNew` where the database shuts this program out; then nothing changed
pub(super) fn migrate(conn: &mut Connection, known: &[Migration]) -> Result<u32, Error> {
    conn.execute_batch(
        "CREATE TABLE IF NOT EXISTS migration (
             number INTEGER PRIMARY KEY,
             oldest INTEGER NOT NULL   -- programs that know less may not use the database any more
         ) STRICT",
    )?;
    let mut version = check(conn, known)?;
    for step in known {
        if step.number <= version {
            continue;
        }
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.execute_batch(step.sql)?;
        tx.execute(
            "INSERT INTO migration (number, oldest) VALUES (?1, ?2)",
            params![step.number, step.oldest],
        )?;
        tx.commit()?;
        version = step.number;
    }
    Ok(version)
}

/// The version of the schema, where this program may use it.
///
/// - errors: `TooNew`
pub(super) fn check(conn: &Connection, known: &[Migration]) -> Result<u32, Error> {
    let row: Option<(Option<u32>, Option<u32>)> = conn
        .query_row("SELECT max(number), max(oldest) FROM migration", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()?;
    let (found, oldest) = row.unwrap_or_default();
    version(known, found.unwrap_or(0), oldest.unwrap_or(0))
}
