//! The connection that writes: a batch is one transaction.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension, params};

use super::super::intern::Intern;
use super::super::settled::Settled;
use super::super::{
    Counters, Error, LOG_ID_MAX, LogEntry, RosterItem, Subscription, Write, Writer, Written,
    check_counters,
};
use super::checkpoint::Checkpointer;
use super::conversation::{self, Behind};
use super::index::{self, Index, Indexed};
use super::{
    WAL_PAGES, WRITER_CACHE_KIB, archive, checkpoint, connect, make_private, open_error, schema,
};
use crate::xmpp::credentials::Credentials;
use crate::xmpp::jid::{BareJid, Jid};

/// Commits batches. One per database; lives on the writer's thread.
pub struct SqliteWriter {
    path: PathBuf,
    /// None after a commit that failed, until it is reopened.
    live: Option<Live>,
}

struct Live {
    // Dropped before `conn`: the last connection to close tidies the WAL up.
    checkpointer: Checkpointer,
    conn: Connection,
    known: Intern<Known>,
    index: Index,
    /// Changes when another connection writes (`PRAGMA data_version`): then `known` and `index` may be wrong.
    data_version: i64,
}

/// What the writer knows of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    /// `jid.id`.
    id: i64,
    /// Whether the address has an account.
    account: bool,
    /// `None` where nobody has looked.
    log: Option<Log>,
}

/// What the writer knows of an owner's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Log {
    /// No row has a higher id.
    newest: u64,
    conversations: Behind,
}

impl Known {
    fn new(id: i64, account: bool) -> Known {
        Known { id, account, log: None }
    }
}

impl SqliteWriter {
    pub(super) fn open(path: &Path) -> Result<SqliteWriter, Error> {
        Ok(SqliteWriter { path: path.to_owned(), live: Some(Live::open(path)?) })
    }

    pub(super) fn next_incarnation(&mut self) -> Result<u64, Error> {
        let live = self.live.as_ref().ok_or_else(closed)?;
        let conn = live.conn.unchecked_transaction()?;
        if !conversation::is_kept(&conn)? {
            conversation::rebuild(&conn)?;
        }
        let number: i64 = conn.query_row(
            "UPDATE node SET incarnation = incarnation + 1, conversations = incarnation + 1 \
             RETURNING incarnation",
            [],
            |row| row.get(0),
        )?;
        conn.commit()?;
        Ok(number.cast_unsigned())
    }
}

#[cfg(test)]
impl SqliteWriter {
    /// Stands for a disk with room for so many pages.
    pub(super) fn limit_pages(&mut self, pages: u32) {
        let live = self.live.as_ref().expect("open");
        live.conn.pragma_update(None, "max_page_count", pages).expect("a pragma");
    }
}

impl Writer for SqliteWriter {
    fn commit(&mut self, batch: &[Write]) -> Result<Vec<Written>, Error> {
        let live = self.live.as_mut().ok_or_else(closed)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        match live.commit(batch) {
            Ok(written) => {
                if let Err(error) = live.checkpointer.after_commit(&live.conn) {
                    // The commit stands; where the disk is in trouble, the next one will say so.
                    tracing::warn!(%error, "the WAL of the store cannot be brought into its file");
                }
                Ok(written)
            }
            Err(error) => {
                // Closing rolls back. A connection whose flush failed is not asked again: the kernel reports such a
                // failure once, and a second flush would succeed without the data.
                self.live = None;
                Err(error)
            }
        }
    }

    fn reopen(&mut self) -> Result<(), Error> {
        self.live = None;
        self.live = Some(Live::open(&self.path)?);
        Ok(())
    }
}

impl Drop for SqliteWriter {
    /// Leaves all in the file, so that a node that has stopped leaves one file to copy. SQLite does so by itself only
    /// where no reader is open any more.
    fn drop(&mut self) {
        if let Some(Live { checkpointer, conn, .. }) = self.live.take() {
            drop(checkpointer);
            if let Err(error) = checkpoint(&conn, "TRUNCATE") {
                // Nothing is lost: the next start reads the WAL.
                tracing::warn!(%error, "the WAL of the store cannot be brought into its file");
            }
        }
    }
}

fn closed() -> Error {
    Error::Backend("closed after an error; to be reopened".to_owned())
}

impl Live {
    fn open(path: &Path) -> Result<Live, Error> {
        let mut conn = connect(path)?;
        make_private(path).map_err(|error| open_error(path, &error.to_string()))?;
        let mode: String =
            conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if mode != "wal" {
            return Err(open_error(path, "the file system does not support a WAL (shared memory)"));
        }
        conn.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
        conn.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
        // What stands in the WAL may be there in memory only, if a flush failed before: written into the file and
        // flushed there, it is durable again.
        let (busy, _) = checkpoint(&conn, "TRUNCATE")?;
        if busy {
            return Err(Error::Backend("a reader holds the WAL".to_owned()));
        }
        schema::migrate(&mut conn, schema::MIGRATIONS)?;
        let data_version = data_version(&conn)?;
        let index = Index::of(&conn)?;
        let checkpointer = Checkpointer::start(path)?;
        Ok(Live { checkpointer, conn, known: Intern::default(), index, data_version })
    }

    fn commit(&mut self, batch: &[Write]) -> Result<Vec<Written>, Error> {
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let data_version = data_version(&self.conn)?;
        if data_version != self.data_version {
            self.known.clear();
            self.index = Index::of(&self.conn)?;
            self.data_version = data_version;
        }
        let mut written = Vec::with_capacity(batch.len());
        let settled = Settled::of(batch);
        let mut batch_of =
            Batch { conn: &self.conn, known: &mut self.known, index: &mut self.index, settled };
        for (place, write) in batch.iter().enumerate() {
            written.push(batch_of.apply(write, place)?);
        }
        self.index.carry(&self.conn)?;
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        Ok(written)
    }
}

fn data_version(conn: &Connection) -> Result<i64, Error> {
    Ok(conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

/// A transaction under way.
struct Batch<'a> {
    conn: &'a Connection,
    known: &'a mut Intern<Known>,
    index: &'a mut Index,
    settled: Settled<'a>,
}

impl Batch<'_> {
    /// - takes: the place of `write` in the batch
    fn apply(&mut self, write: &Write, place: usize) -> Result<Written, Error> {
        match write {
            Write::CreateAccount { owner, credentials } => self.create(owner, credentials),
            Write::DeleteAccount { owner } => self.of_account(owner, Batch::delete),
            Write::SetCredentials { owner, credentials } => {
                self.of_account(owner, |batch, _, id| batch.set_credentials(id, credentials))
            }
            Write::SetDisabled { owner, disabled } => self.of_account(owner, |batch, _, id| {
                let sql = "UPDATE account SET disabled = ?2 WHERE owner = ?1";
                batch.conn.prepare_cached(sql)?.execute(params![id, disabled])?;
                Ok(())
            }),
            Write::PutRoster { owner, set, remove, version } => {
                self.of_account(owner, |batch, _, id| batch.put_roster(id, set, remove, *version))
            }
            Write::PutSlot { owner, name, value } => {
                self.of_account(owner, |batch, _, id| batch.put_slot(id, name, value.as_deref()))
            }
            Write::AppendLog { entry, .. } if entry.id > LOG_ID_MAX => {
                Err(Error::Backend(format!("log id {} is above {LOG_ID_MAX}", entry.id)))
            }
            Write::AppendLog { owner, entry } if write.is_of_domain() => {
                let known = self.intern(owner)?;
                self.append(owner, known, entry, place)?;
                Ok(Written::Done)
            }
            Write::AppendLog { owner, entry } => match self.find(owner)? {
                Some(known) if known.account => {
                    self.append(owner, known, entry, place)?;
                    Ok(Written::Done)
                }
                _ => Ok(Written::NoAccount),
            },
            Write::ConfirmLog { owner, ids } if write.is_of_domain() => {
                if let Some(known) = self.find(owner)? {
                    self.confirm(owner, known.id, ids)?;
                }
                Ok(Written::Done)
            }
            Write::ConfirmLog { owner, ids } => {
                self.of_account(owner, |batch, owner, id| batch.confirm(owner, id, ids))
            }
            Write::ReplaceLog { owner, id: row, stanza, open_end, close_start } => self
                .of_account(owner, |batch, _, id| {
                    batch.replace(id, *row, stanza, *open_end, *close_start)
                }),
            Write::PruneArchive { owner, before, keep, limit } => match self.find(owner)? {
                Some(Known { id, account: true, .. }) => {
                    archive::prune(self.conn, self.index, id, *before, *keep, *limit)
                }
                _ => Ok(Written::NoAccount),
            },
            Write::RaiseCounters { counters } => self.raise(counters),
            Write::ReserveIds { partition, count } => self.reserve(*partition, *count),
        }
    }

    /// Does `change` to the account of `owner`, if there is one.
    fn of_account(
        &mut self,
        owner: &BareJid,
        change: impl FnOnce(&mut Self, &BareJid, i64) -> Result<(), Error>,
    ) -> Result<Written, Error> {
        match self.find(owner)? {
            Some(Known { id, account: true, .. }) => {
                change(self, owner, id)?;
                Ok(Written::Done)
            }
            _ => Ok(Written::NoAccount),
        }
    }

    fn find(&mut self, jid: &BareJid) -> Result<Option<Known>, Error> {
        if let Some(known) = self.known.find(jid) {
            return Ok(Some(known));
        }
        let sql = "SELECT jid.id, account.owner IS NOT NULL FROM jid LEFT JOIN account ON account.owner = jid.id \
                   WHERE jid.text = ?1";
        let known = self
            .conn
            .prepare_cached(sql)?
            .query_row([jid.as_str()], |row| Ok(Known::new(row.get(0)?, row.get(1)?)))
            .optional()?;
        if let Some(known) = known {
            self.known.put(jid.clone(), known);
        }
        Ok(known)
    }

    /// The number of `jid`, which gets one if it has none.
    fn intern(&mut self, jid: &BareJid) -> Result<Known, Error> {
        if let Some(known) = self.find(jid)? {
            return Ok(known);
        }
        let id = self
            .conn
            .prepare_cached("INSERT INTO jid (text) VALUES (?1)")?
            .insert([jid.as_str()])?;
        let known = Known::new(id, false);
        self.known.put(jid.clone(), known);
        Ok(known)
    }

    fn create(&mut self, owner: &BareJid, credentials: &Credentials) -> Result<Written, Error> {
        if owner.local().is_none() {
            return Ok(Written::NoAccount);
        }
        let Known { id, account, .. } = self.intern(owner)?;
        if account {
            return Ok(Written::Exists);
        }
        let sql = "INSERT INTO account (owner, \
                   sha1_iterations, sha1_salt, sha1_stored_key, sha1_server_key, \
                   sha256_iterations, sha256_salt, sha256_stored_key, sha256_server_key, \
                   sha512_iterations, sha512_salt, sha512_stored_key, sha512_server_key, \
                   disabled, roster_version) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, 0)";
        self.put_keys(sql, id, credentials)?;
        self.known.put(owner.clone(), Known::new(id, true));
        Ok(Written::Done)
    }

    /// In the transaction like all else: what is left of a long log holds the others up for as long as that takes. Who
    /// deletes an account empties its archive before.
    fn delete(&mut self, owner: &BareJid, id: i64) -> Result<(), Error> {
        for sql in [
            "DELETE FROM entry WHERE owner = ?1 AND pending = 1",
            "DELETE FROM entry WHERE owner = ?1 AND row IN (\
                 SELECT row FROM archive_main WHERE owner = ?1 \
                 UNION ALL SELECT row FROM archive_fresh WHERE owner = ?1)",
            "DELETE FROM conversation_upto WHERE owner = ?1",
            "DELETE FROM slot WHERE owner = ?1",
            "DELETE FROM roster WHERE owner = ?1",
        ] {
            self.conn.prepare_cached(sql)?.execute([id])?;
        }
        self.index.remove_all(self.conn, id)?;
        self.conn.prepare_cached("DELETE FROM account WHERE owner = ?1")?.execute([id])?;
        self.known.put(owner.clone(), Known::new(id, false));
        Ok(())
    }

    fn set_credentials(&mut self, id: i64, credentials: &Credentials) -> Result<(), Error> {
        let sql = "UPDATE account SET \
                   sha1_iterations = ?2, sha1_salt = ?3, sha1_stored_key = ?4, sha1_server_key = ?5, \
                   sha256_iterations = ?6, sha256_salt = ?7, sha256_stored_key = ?8, sha256_server_key = ?9, \
                   sha512_iterations = ?10, sha512_salt = ?11, sha512_stored_key = ?12, sha512_server_key = ?13 \
                   WHERE owner = ?1";
        self.put_keys(sql, id, credentials)
    }

    /// Runs `sql` with the account's number and the keys in the order of their hashes.
    fn put_keys(&mut self, sql: &str, id: i64, credentials: &Credentials) -> Result<(), Error> {
        let Credentials { sha1, sha256, sha512 } = credentials;
        let sha512 = sha512.as_ref();
        self.conn.prepare_cached(sql)?.execute(params![
            id,
            sha1.iterations,
            sha1.salt,
            sha1.stored_key,
            sha1.server_key,
            sha256.iterations,
            sha256.salt,
            sha256.stored_key,
            sha256.server_key,
            sha512.map(|keys| keys.iterations),
            sha512.map(|keys| &keys.salt),
            sha512.map(|keys| &keys.stored_key),
            sha512.map(|keys| &keys.server_key),
        ])?;
        Ok(())
    }

    fn put_roster(
        &mut self,
        id: i64,
        set: &[RosterItem],
        remove: &[Jid],
        version: u64,
    ) -> Result<(), Error> {
        let mut delete =
            self.conn.prepare_cached("DELETE FROM roster WHERE owner = ?1 AND jid = ?2")?;
        for jid in remove {
            delete.execute(params![id, jid.to_string()])?;
        }
        let mut put = self.conn.prepare_cached(
            "INSERT OR REPLACE INTO roster \
             (owner, jid, name, groups, subscription, ask, approved, pending_in) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?;
        for item in set {
            let groups = serde_json::to_string(&item.groups)
                .map_err(|error| Error::Backend(format!("groups of a contact: {error}")))?;
            put.execute(params![
                id,
                item.jid.to_string(),
                item.name,
                groups,
                if item.listed { number_of(item.subscription) } else { UNLISTED },
                item.ask,
                item.approved,
                item.pending_in,
            ])?;
        }
        let sql = "UPDATE account SET roster_version = ?2 WHERE owner = ?1";
        self.conn.prepare_cached(sql)?.execute(params![id, version.cast_signed()])?;
        Ok(())
    }

    fn put_slot(&mut self, id: i64, name: &str, value: Option<&[u8]>) -> Result<(), Error> {
        match value {
            Some(value) => {
                let sql = "INSERT OR REPLACE INTO slot (owner, name, value) VALUES (?1, ?2, ?3)";
                self.conn.prepare_cached(sql)?.execute(params![id, name, value])?;
            }
            None => {
                let sql = "DELETE FROM slot WHERE owner = ?1 AND name = ?2";
                self.conn.prepare_cached(sql)?.execute(params![id, name])?;
            }
        }
        Ok(())
    }

    fn append(
        &mut self,
        owner: &BareJid,
        known: Known,
        entry: &LogEntry,
        place: usize,
    ) -> Result<(), Error> {
        let mut log = match known.log {
            Some(log) => log,
            None => Log {
                newest: self.newest(known.id)?,
                conversations: Behind::of(self.conn, known.id)?,
            },
        };
        // Ids rise: what is above all that the log has is not in it. Only for a row that comes again all indexes are asked,
        // as there is none for all rows.
        let is_new = entry.id > log.newest;
        let mut is_pending = entry.keep.is_pending();
        if is_new && is_pending && self.settled.settle(owner, entry.id, place) {
            is_pending = false;
            if !entry.keep.is_archived() {
                return Ok(());
            }
        }
        log.newest = log.newest.max(entry.id);
        if is_new || !self.is_there(known.id, entry.id)? {
            let peer = self.intern(entry.with.bare())?.id;
            let row = self.conn.prepare_cached(INSERT_ENTRY)?.insert(params![
                known.id,
                entry.id.cast_signed(),
                peer,
                entry.at.0.cast_signed(),
                entry.origin.incarnation.cast_signed(),
                entry.origin.link,
                entry.origin.number.cast_signed(),
                entry.open_end,
                entry.close_start,
                entry.stanza,
                entry.with.resource().unwrap_or(""),
                is_pending,
                entry.keep.is_archived(),
            ])?;
            if entry.keep.is_archived() {
                let indexed = Indexed { owner: known.id, peer, id: entry.id, row };
                self.index.put(self.conn, indexed, is_new)?;
                log.conversations.archived(self.conn, (known.id, peer), entry.id, row)?;
            }
        }
        self.known.change(owner, |known| known.log = Some(log));
        Ok(())
    }

    /// Whether a log has a row with this id, for whatever it is kept.
    fn is_there(&self, owner: i64, id: u64) -> Result<bool, Error> {
        let sql =
            "SELECT EXISTS (SELECT 1 FROM entry WHERE owner = ?1 AND id = ?2 AND pending = 1)";
        let is_pending = self
            .conn
            .prepare_cached(sql)?
            .query_row(params![owner, id.cast_signed()], |row| row.get(0))?;
        Ok(is_pending || index::find(self.conn, owner, id)?.is_some())
    }

    /// The highest id in a log; 0 where it is empty.
    fn newest(&self, owner: i64) -> Result<u64, Error> {
        let sql = "SELECT id FROM entry INDEXED BY entry_pending WHERE owner = ?1 AND pending = 1 \
                   ORDER BY id DESC LIMIT 1";
        let mut statement = self.conn.prepare_cached(sql)?;
        let pending: Option<i64> = statement.query_row([owner], |row| row.get(0)).optional()?;
        let archived = index::newest(self.conn, owner)?;
        Ok(archived.max(pending.unwrap_or(0).cast_unsigned()))
    }

    fn confirm(&mut self, owner: &BareJid, id: i64, ids: &[u64]) -> Result<(), Error> {
        let delete =
            "DELETE FROM entry WHERE owner = ?1 AND id = ?2 AND pending = 1 AND archived = 0";
        let stay = "UPDATE entry SET pending = 0 WHERE owner = ?1 AND id = ?2 AND pending = 1";
        for entry in ids.iter().filter(|entry| self.settled.is_due(owner, **entry)) {
            // One above `LOG_ID_MAX` finds nothing, as a number below zero.
            let row = [id, entry.cast_signed()];
            if self.conn.prepare_cached(delete)?.execute(row)? == 0 {
                self.conn.prepare_cached(stay)?.execute(row)?;
            }
        }
        Ok(())
    }

    fn replace(
        &mut self,
        id: i64,
        row: u64,
        stanza: &[u8],
        open_end: u32,
        close_start: u32,
    ) -> Result<(), Error> {
        // One statement per index, or the planner would have none.
        let sql = "UPDATE entry SET stanza = ?3, open_end = ?4, close_start = ?5 \
                   WHERE owner = ?1 AND id = ?2 AND pending = 1";
        let mut replace = self.conn.prepare_cached(sql)?;
        replace.execute(params![id, row.cast_signed(), stanza, open_end, close_start])?;
        let Some(archived) = index::find(self.conn, id, row)? else { return Ok(()) };
        let sql = "UPDATE entry SET stanza = ?3, open_end = ?4, close_start = ?5 \
                   WHERE owner = ?1 AND row = ?2";
        let mut replace = self.conn.prepare_cached(sql)?;
        replace.execute(params![id, archived, stanza, open_end, close_start])?;
        Ok(())
    }

    fn raise(&mut self, counters: &Counters) -> Result<Written, Error> {
        check_counters(counters)?;
        let sql = "INSERT INTO id_block (partition, next) VALUES (?1, ?2) \
                   ON CONFLICT (partition) DO UPDATE SET next = max(next, ?2)";
        let mut raise = self.conn.prepare_cached(sql)?;
        for (partition, next) in &counters.next_ids {
            raise.execute(params![partition, next.cast_signed()])?;
        }
        let sql = "UPDATE node SET incarnation = max(incarnation, ?1), \
                   conversations = CASE conversations WHEN incarnation THEN max(incarnation, ?1) ELSE conversations END";
        self.conn.execute(sql, [counters.incarnation.cast_signed()])?;
        Ok(Written::Done)
    }

    fn reserve(&mut self, partition: u16, count: u32) -> Result<Written, Error> {
        // The first id is 1, so that "after 0" means "from the start". Past `LOG_ID_MAX` the column refuses.
        let sql = "INSERT INTO id_block (partition, next) VALUES (?1, 1 + ?2) \
                   ON CONFLICT (partition) DO UPDATE SET next = next + ?2 RETURNING next - ?2";
        let first: i64 = self
            .conn
            .prepare_cached(sql)?
            .query_row(params![partition, count], |row| row.get(0))?;
        Ok(Written::Reserved { first: first.cast_unsigned() })
    }
}

const INSERT_ENTRY: &str = "INSERT INTO entry \
    (owner, id, peer, at, incarnation, link, number, open_end, close_start, stanza, resource, pending, archived) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

/// In place of a subscription: the contact is not in the roster, only its request waits.
pub(super) const UNLISTED: u8 = 4;

fn number_of(subscription: Subscription) -> u8 {
    match subscription {
        Subscription::None => 0,
        Subscription::To => 1,
        Subscription::From => 2,
        Subscription::Both => 3,
    }
}
