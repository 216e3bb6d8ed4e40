//! The index of the archive: which rows of `entry` an owner has there, by id, in two tables.
//!
//! Owners write in any order, so each row goes to a page of its own. In an index larger than memory that page is read,
//! written into the WAL and copied back for one row, and appending slows down as the archive grows. So what is appended goes
//! to a small table first (`archive_fresh`), which stays in the writer's cache. When that holds [`FRESH_MAX`] rows, each
//! commit carries over about as many as it appends to the large one (`archive_main`), in the order of the owners, round and
//! round: rows that have gathered beside each other share a page of the large table.
//!
//! Of each owner, the ids in `archive_main` are below those in `archive_fresh`, so that a page is read from one and then from
//! the other, and nothing is sorted. A row is in one of the two, by the transaction that appends or carries it.
//!
//! While all is fresh, this costs what one index costs. The large table's pages each take `2 * FRESH_MAX / pages` rows at a
//! visit (twice: the owners that come next have gathered for longest): 12 with 10 million messages, one with 100 million, and
//! then a carried row costs what an appended one would have cost.

use rusqlite::{Connection, OptionalExtension, params};

use super::super::Error;

/// Rows in `archive_fresh` above which they are carried over: some 35 MB, of the 64 that the writer's cache holds.
const FRESH_MAX: u64 = if cfg!(test) { 6 } else { 1 << 20 };

/// Rows that are carried at once, at least: where commits are small, each would visit the same page again.
const STEP_MIN: u64 = if cfg!(test) { 2 } else { 256 };

/// And at most, which bounds what a commit waits for it: more than a commit of the server appends, so `archive_fresh` does not
/// grow past its bound and a commit.
const STEP_MAX: u64 = if cfg!(test) { 5 } else { 2_048 };

/// The tables in the order of their ids.
pub(super) const TABLES: [&str; 2] = [MAIN, FRESH];
pub(super) const MAIN: &str = "archive_main";
pub(super) const FRESH: &str = "archive_fresh";

/// One row of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Indexed {
    /// `jid.id` of the owner and of the other side.
    pub(super) owner: i64,
    pub(super) peer: i64,
    pub(super) id: u64,
    /// `entry.row`.
    pub(super) row: i64,
}

/// What the writer knows of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Index {
    /// Rows in `archive_fresh`.
    fresh: u64,
    /// The owner with whom the carrying goes on.
    next: i64,
}

impl Index {
    /// - cost: a walk through `archive_fresh`, some 10 ms at most
    pub(super) fn of(conn: &Connection) -> Result<Index, Error> {
        Ok(Index { fresh: count_fresh(conn)?, next: 0 })
    }

    /// - takes: whether the id is above all that the owner has in the archive
    pub(super) fn put(
        &mut self,
        conn: &Connection,
        indexed: Indexed,
        is_new: bool,
    ) -> Result<(), Error> {
        let Indexed { owner, peer, id, row } = indexed;
        let values = params![owner, id.cast_signed(), peer, row];
        // A row that a damaged file has already must not stand in the way of all that is written.
        if is_new || !is_within_main(conn, owner, id)? {
            let sql = "INSERT OR REPLACE INTO archive_fresh (owner, id, peer, row) VALUES (?1, ?2, ?3, ?4)";
            conn.prepare_cached(sql)?.execute(values)?;
            self.fresh += 1;
        } else {
            let sql = "INSERT OR REPLACE INTO archive_main (owner, id, peer, row) VALUES (?1, ?2, ?3, ?4)";
            conn.prepare_cached(sql)?.execute(values)?;
        }
        Ok(())
    }

    /// The row that it leads to leaves the archive.
    pub(super) fn remove(&mut self, conn: &Connection, owner: i64, id: u64) -> Result<(), Error> {
        for table in TABLES {
            let sql = format!("DELETE FROM {table} WHERE owner = ?1 AND id = ?2");
            let gone = conn.prepare_cached(&sql)?.execute(params![owner, id.cast_signed()])?;
            self.less(table, gone);
        }
        Ok(())
    }

    /// The whole archive of an owner goes.
    pub(super) fn remove_all(&mut self, conn: &Connection, owner: i64) -> Result<(), Error> {
        for table in TABLES {
            let sql = format!("DELETE FROM {table} WHERE owner = ?1");
            let gone = conn.prepare_cached(&sql)?.execute([owner])?;
            self.less(table, gone);
        }
        Ok(())
    }

    fn less(&mut self, table: &str, rows: usize) {
        if table == FRESH {
            self.fresh = self.fresh.saturating_sub(rows as u64);
        }
    }

    /// Carries over what is fresh and too much; to be called at the end of each transaction.
    ///
    /// - cost: nothing while there is little; some 3 us for each row of a step, and a visit to the pages they go to
    pub(super) fn carry(&mut self, conn: &Connection) -> Result<(), Error> {
        let surplus = self.fresh.saturating_sub(FRESH_MAX);
        if surplus < STEP_MIN {
            return Ok(());
        }
        let wanted = surplus.min(STEP_MAX).cast_signed();
        let sql = "SELECT owner, id FROM archive_fresh WHERE owner >= ?1 ORDER BY owner, id LIMIT 1 OFFSET ?2";
        let stays: Option<(i64, i64)> = conn
            .prepare_cached(sql)?
            .query_row([self.next, wanted], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        // Behind the last owner it begins anew; the lowest ids of each go first.
        let (owner, id) = stays.unwrap_or((i64::MAX, i64::MAX));
        let range = [self.next, owner, id];
        let sql = "INSERT OR REPLACE INTO archive_main (owner, id, peer, row) \
                   SELECT owner, id, peer, row FROM archive_fresh \
                   WHERE owner >= ?1 AND (owner, id) < (?2, ?3) ORDER BY owner, id";
        conn.prepare_cached(sql)?.execute(range)?;
        let sql = "DELETE FROM archive_fresh WHERE owner >= ?1 AND (owner, id) < (?2, ?3)";
        let carried = conn.prepare_cached(sql)?.execute(range)?;
        self.less(FRESH, carried);
        if carried == 0 && self.next == 0 {
            // A damaged file may have had rows that were put in again.
            self.fresh = count_fresh(conn)?;
        }
        self.next = stays.map_or(0, |(owner, _)| owner);
        Ok(())
    }
}

fn count_fresh(conn: &Connection) -> Result<u64, Error> {
    let rows: i64 = conn.query_row("SELECT count(*) FROM archive_fresh", [], |row| row.get(0))?;
    Ok(rows.cast_unsigned())
}

/// Whether an id would not be above all that the owner has in the large table.
fn is_within_main(conn: &Connection, owner: i64, id: u64) -> Result<bool, Error> {
    let sql = "SELECT EXISTS (SELECT 1 FROM archive_main WHERE owner = ?1 AND id > ?2)";
    let mut statement = conn.prepare_cached(sql)?;
    Ok(statement.query_row(params![owner, id.cast_signed()], |row| row.get(0))?)
}

/// Where in `entry` the row of an archive is.
pub(super) fn find(conn: &Connection, owner: i64, id: u64) -> Result<Option<i64>, Error> {
    let sql = "SELECT row FROM archive_fresh WHERE owner = ?1 AND id = ?2 \
               UNION ALL SELECT row FROM archive_main WHERE owner = ?1 AND id = ?2 LIMIT 1";
    let mut statement = conn.prepare_cached(sql)?;
    // One above `LOG_ID_MAX` finds nothing, as a number below zero.
    Ok(statement.query_row(params![owner, id.cast_signed()], |row| row.get(0)).optional()?)
}

/// The highest id in an owner's archive; 0 where it is empty.
pub(super) fn newest(conn: &Connection, owner: i64) -> Result<u64, Error> {
    // As a rule the first is enough, and has its page in memory.
    for table in [FRESH, MAIN] {
        let sql = format!("SELECT id FROM {table} WHERE owner = ?1 ORDER BY id DESC LIMIT 1");
        let mut statement = conn.prepare_cached(&sql)?;
        let id: Option<i64> = statement.query_row([owner], |row| row.get(0)).optional()?;
        if let Some(id) = id {
            return Ok(id.cast_unsigned());
        }
    }
    Ok(0)
}

/// The rows of both tables under one condition, as the beginning of a statement. With an order of the columns that stand in
/// the key, SQLite reads both side by side and sorts nothing.
pub(super) fn both(columns: &str, condition: &str) -> String {
    format!(
        "SELECT {columns} FROM archive_main WHERE {condition} \
         UNION ALL SELECT {columns} FROM archive_fresh WHERE {condition}"
    )
}
