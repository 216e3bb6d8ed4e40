//! What of an archive is with whom: a second order of the archive's rows, by owner, correspondent and id.
//!
//! It runs behind the archive. Up to an id of each owner (`conversation_upto`) it holds exactly the archived rows; those above
//! are found along the archive's own index (`index.rs`). When an owner has [`BEHIND_MAX`] of those, the writer puts them in,
//! in the transaction of the append that made them so many. Rows of one owner share their pages, so that a row costs a small
//! part of the page that it would cost on its own: an index that is always complete halves the rate of appends.
//!
//! Rows that leave the archive leave this, too, by triggers.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::Error;
use super::index;

/// Archived rows of an owner at which they are put in: a page of a conversation passes over fewer.
pub(super) const BEHIND_MAX: u32 = if cfg!(test) { 5 } else { 64 };

/// Rows that are put in at once: more than `BEHIND_MAX` wait only where an older program has appended them.
const STEP: u32 = if cfg!(test) { 7 } else { 1_024 };

/// How far an owner's conversations are behind the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    /// What is archived up to this id is there.
    pub(super) upto: u64,
    /// Rows above it: not fewer than there are, or `BEHIND_MAX`.
    rows: u32,
}

impl Behind {
    pub(super) fn of(conn: &Connection, owner: i64) -> Result<Behind, Error> {
        let upto = upto(conn, owner)?;
        // The newest first: where they are many, the others are not looked at.
        let sql = "SELECT count(*) FROM (SELECT 1 FROM archive_fresh WHERE owner = ?1 AND id > ?2 \
                   UNION ALL SELECT 1 FROM archive_main WHERE owner = ?1 AND id > ?2 LIMIT ?3)";
        let mut statement = conn.prepare_cached(sql)?;
        let rows = statement
            .query_row(params![owner, upto.cast_signed(), BEHIND_MAX], |row| row.get(0))?;
        Ok(Behind { upto, rows })
    }

    /// A row was archived which was not there before.
    ///
    /// - takes: the numbers of its owner and its peer, its id, and its place in `entry`
    pub(super) fn archived(
        &mut self,
        conn: &Connection,
        (owner, peer): (i64, i64),
        id: u64,
        row: i64,
    ) -> Result<(), Error> {
        if id <= self.upto {
            let sql =
                "INSERT OR IGNORE INTO conversation (owner, peer, id, row) VALUES (?1, ?2, ?3, ?4)";
            conn.prepare_cached(sql)?.execute(params![owner, peer, id.cast_signed(), row])?;
            return Ok(());
        }
        self.rows += 1;
        if self.rows >= BEHIND_MAX {
            self.catch_up(conn, owner)?;
        }
        Ok(())
    }

    fn catch_up(&mut self, conn: &Connection, owner: i64) -> Result<(), Error> {
        let behind = index::both("id", "owner = ?1 AND id > ?2");
        let sql = format!("SELECT max(id), count(*) FROM ({behind} ORDER BY id LIMIT ?3)");
        let above = self.upto.cast_signed();
        let (last, count): (Option<i64>, u32) = conn
            .prepare_cached(&sql)?
            .query_row(params![owner, above, STEP], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if let Some(last) = last {
            // A row that a damaged file has twice must not stand in the way of all that is written.
            let sql = format!(
                "INSERT OR IGNORE INTO conversation (owner, peer, id, row) {} ORDER BY id",
                index::both("owner, peer, id, row", "owner = ?1 AND id > ?2 AND id <= ?3")
            );
            conn.prepare_cached(&sql)?.execute(params![owner, above, last])?;
            let sql = "INSERT INTO conversation_upto (owner, id) VALUES (?1, ?2) \
                       ON CONFLICT (owner) DO UPDATE SET id = ?2";
            conn.prepare_cached(sql)?.execute([owner, last])?;
            self.upto = last.cast_unsigned();
        }
        // What is left goes with the next row.
        self.rows = if count < STEP { 0 } else { BEHIND_MAX };
        Ok(())
    }
}

/// Up to which id the conversations of an owner are there; 0 where nothing is.
pub(super) fn upto(conn: &Connection, owner: i64) -> Result<u64, Error> {
    let sql = "SELECT id FROM conversation_upto WHERE owner = ?1";
    let id: Option<i64> =
        conn.prepare_cached(sql)?.query_row([owner], |row| row.get(0)).optional()?;
    Ok(id.unwrap_or(0).cast_unsigned())
}

/// Whether no older program, which knows nothing of conversations, had the database last.
pub(super) fn is_kept(conn: &Connection) -> Result<bool, Error> {
    Ok(conn.query_row("SELECT conversations = incarnation FROM node", [], |row| row.get(0))?)
}

/// Makes all anew from the archive, in the transaction that is open.
///
/// - cost: some 2 us for each archived row
pub(super) fn rebuild(conn: &Connection) -> Result<(), Error> {
    let archived = index::both("owner, peer, id, row", "true");
    conn.execute_batch(&format!(
        "DELETE FROM conversation; \
         DELETE FROM conversation_upto; \
         INSERT OR IGNORE INTO conversation (owner, peer, id, row) {archived} ORDER BY owner, id; \
         INSERT INTO conversation_upto (owner, id) \
         SELECT owner, max(id) FROM ({archived} ORDER BY owner, id) GROUP BY owner",
    ))?;
    Ok(())
}
