//! A copy of the database while it is written to, for the day when it is lost.

use std::fs::File;
use std::path::Path;

use rusqlite::{Connection, params};

use super::super::record::{IDS_AHEAD, INCARNATIONS_AHEAD};
use super::super::{Error, LOG_ID_MAX, STORE_PARTITIONS};
use super::{connect, open_error, schema};

/// Copies the database at `path`, which a node may be writing to, into the new file `to`: as it is at one moment, durable
/// when this returns.
///
/// - cost: reads and writes all of it; meanwhile the WAL of the database does not get shorter
/// - errors: as of [`super::open`]; `Damaged` where the copy is not sound; `to` may then be there, and is to be removed
pub fn backup(path: &Path, to: &Path) -> Result<(), Error> {
    let conn = connect(path)?;
    if !matches!(schema::owner(&conn)?, schema::Owner::Ours) {
        return Err(open_error(path, "the database is empty"));
    }
    let version = schema::check(&conn, schema::MIGRATIONS)?;
    let target = to.to_str().ok_or_else(|| open_error(to, "the name is not UTF-8"))?;
    conn.execute("VACUUM INTO ?1", [target])?;
    drop(conn);
    let copy = connect(to)?;
    let sound: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(Error::Damaged(format!("the copy of {}: {sound}", path.display())));
    }
    put_ahead(&copy, version)?;
    drop(copy);
    File::open(to)
        .and_then(|file| file.sync_all())
        .map_err(|error| open_error(to, &format!("it cannot be flushed: {error}")))
}

/// What the original gives after the copy was made must not be given again by the copy: see `Counters::ahead`.
fn put_ahead(copy: &Connection, version: u32) -> Result<(), Error> {
    let transaction = copy.unchecked_transaction()?;
    for partition in 0..STORE_PARTITIONS {
        transaction.execute(
            "INSERT INTO id_block (partition, next) VALUES (?1, 1 + ?2) \
             ON CONFLICT (partition) DO UPDATE SET next = min(next + ?2, ?3)",
            params![partition, IDS_AHEAD.cast_signed(), (LOG_ID_MAX - IDS_AHEAD).cast_signed()],
        )?;
    }
    let mut sql = "UPDATE node SET incarnation = incarnation + ?1".to_owned();
    if version >= schema::CONVERSATIONS {
        sql.push_str(", conversations = conversations + ?1");
    }
    transaction.execute(&sql, [INCARNATIONS_AHEAD.cast_signed()])?;
    Ok(transaction.commit()?)
}
