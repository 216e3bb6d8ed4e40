//! A copy of the database while it is written to, for the day when it is lost.

use std::fs::File;
use std::path::Path;

use rusqlite::{Connection, params};

use super::super::{Error, LOG_ID_MAX, STORE_PARTITIONS};
use super::{connect, open_error, schema};

/// How far a copy's counters are ahead of those of its original. What the original gave after the copy was made must not be
/// given again by the copy: clients know it.
const IDS_AHEAD: i64 = 1 << 32;
const INCARNATIONS_AHEAD: i64 = 1 << 20;

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
    schema::check(&conn, schema::MIGRATIONS)?;
    let target = to.to_str().ok_or_else(|| open_error(to, "the name is not UTF-8"))?;
    conn.execute("VACUUM INTO ?1", [target])?;
    drop(conn);
    let copy = connect(to)?;
    let sound: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(Error::Damaged(format!("the copy of {}: {sound}", path.display())));
    }
    put_ahead(&copy)?;
    drop(copy);
    File::open(to)
        .and_then(|file| file.sync_all())
        .map_err(|error| open_error(to, &format!("it cannot be flushed: {error}")))
}

fn put_ahead(copy: &Connection) -> Result<(), Error> {
    let transaction = copy.unchecked_transaction()?;
    for partition in 0..STORE_PARTITIONS {
        transaction.execute(
            "INSERT INTO id_block (partition, next) VALUES (?1, 1 + ?2) \
             ON CONFLICT (partition) DO UPDATE SET next = min(next + ?2, ?3)",
            params![partition, IDS_AHEAD, LOG_ID_MAX.cast_signed() - IDS_AHEAD],
        )?;
    }
    transaction.execute("UPDATE node SET incarnation = incarnation + ?1", [INCARNATIONS_AHEAD])?;
    Ok(transaction.commit()?)
}
