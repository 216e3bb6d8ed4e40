//! A connection that reads; never in the way of the writer.

use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, Statement, Transaction, params};

use super::super::{
    AccountRecord, Answer, Counters, Error, Keep, LOG_ID_MAX, LOG_ROWS_COUNTED, LacksKeys,
    LogEntry, Origin, Query, Reader, RosterItem, Subscription,
};
use super::writer::UNLISTED;
use super::{READER_CACHE_KIB, archive, connect, index, open_error, schema};
use crate::base::instant::Wall;
use crate::xmpp::credentials::{Credentials, ScramKeys};
use crate::xmpp::jid::{BareJid, Jid, JidCache};

/// Addresses that a reader keeps parsed: contacts and correspondents come back often.
const JIDS: usize = 4_096;

/// Answers queries. As many as there are threads to read.
pub struct SqliteReader {
    conn: Connection,
    jids: JidCache,
}

impl SqliteReader {
    /// Opens the database at `path`, which a writer has made.
    ///
    /// - errors: as [`super::open`]; `Open` where there is none
    pub fn open(path: &Path) -> Result<SqliteReader, Error> {
        let conn = connect(path)?;
        if !matches!(schema::owner(&conn)?, schema::Owner::Ours) {
            return Err(open_error(path, "the database is empty"));
        }
        schema::check(&conn, schema::MIGRATIONS)?;
        conn.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        conn.pragma_update(None, "query_only", true)?;
        Ok(SqliteReader { conn, jids: JidCache::new(JIDS) })
    }

    fn account(&mut self, owner: &BareJid) -> Result<Option<Box<AccountRecord>>, Error> {
        // All statements see the same state of the database; dropping it ends the transaction.
        let _held = snapshot(&self.conn)?;
        let snapshot = &self.conn;
        let sql = "SELECT account.owner, disabled, roster_version, \
                   (SELECT count(*) FROM (SELECT 1 FROM entry WHERE entry.owner = account.owner \
                   AND pending = 1 LIMIT ?2)), \
                   sha1_iterations, sha1_salt, sha1_stored_key, sha1_server_key, \
                   sha256_iterations, sha256_salt, sha256_stored_key, sha256_server_key, \
                   sha512_iterations, sha512_salt, sha512_stored_key, sha512_server_key \
                   FROM jid JOIN account ON account.owner = jid.id WHERE jid.text = ?1";
        let found = snapshot
            .prepare_cached(sql)?
            .query_row(params![owner.as_str(), LOG_ROWS_COUNTED], |row| {
                let has_sha512 = row.get_ref(12)? != ValueRef::Null;
                let credentials = Credentials {
                    sha1: keys(row, 4)?,
                    sha256: keys(row, 8)?,
                    sha512: has_sha512.then(|| keys(row, 12).map(Box::new)).transpose()?,
                };
                let version: i64 = row.get(2)?;
                let id: i64 = row.get(0)?;
                Ok((
                    id,
                    Box::new(AccountRecord {
                        credentials,
                        disabled: row.get(1)?,
                        roster: Vec::new(),
                        roster_version: version.cast_unsigned(),
                        slots: Vec::new(),
                        log_rows: row.get(3)?,
                        archived_at: Wall(0),
                    }),
                ))
            })
            .optional()?;
        // For a name without an account the same is done, with nobody's number: how long the first answer of a login
        // takes must not tell whether there is one.
        let id = found.as_ref().map_or(NOBODY, |(id, _)| *id);
        let mut statement = snapshot.prepare_cached(
            "SELECT jid, name, groups, subscription, ask, approved, pending_in \
             FROM roster WHERE owner = ?1 ORDER BY jid",
        )?;
        let roster = roster(&mut statement, id, &mut self.jids)?;
        let mut statement = snapshot.prepare_cached(EAGER_SLOTS)?;
        let rows = statement.query_map([id], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let slots = rows.collect::<Result<_, _>>()?;
        let indexed = index::both("id, row", "owner = ?1");
        let sql = format!(
            "SELECT at FROM ({indexed} ORDER BY id DESC LIMIT 1) AS newest \
             CROSS JOIN entry ON entry.row = newest.row AND entry.owner = ?1"
        );
        let mut statement = snapshot.prepare_cached(&sql)?;
        let at: Option<i64> = statement.query_row([id], |row| row.get(0)).optional()?;
        let archived_at = Wall(at.unwrap_or(0).cast_unsigned());
        if found.is_none() {
            let sql = "SELECT count(*) FROM (SELECT 1 FROM entry WHERE owner = ?1 AND pending = 1 LIMIT ?2)";
            let _: u32 = snapshot
                .prepare_cached(sql)?
                .query_row(params![NOBODY, LOG_ROWS_COUNTED], |row| row.get(0))?;
        }
        let found = found.map(|(_, account)| *account);
        Ok(found.map(|account| Box::new(AccountRecord { roster, slots, archived_at, ..account })))
    }

    fn slot(&mut self, owner: &BareJid, name: &str) -> Result<Answer, Error> {
        let sql = "SELECT value FROM slot WHERE owner = (SELECT id FROM jid WHERE text = ?1) \
                   AND name = ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        let value =
            statement.query_row(params![owner.as_str(), name], |row| row.get(0)).optional()?;
        Ok(Answer::Slot(value))
    }

    fn log(&mut self, owner: &BareJid, after: u64, limit: u32) -> Result<Answer, Error> {
        let sql = format!(
            "SELECT {ENTRY_COLUMNS} FROM entry INDEXED BY entry_pending \
             CROSS JOIN jid ON jid.id = entry.peer \
             WHERE owner = (SELECT id FROM jid WHERE text = ?1) AND pending = 1 AND entry.id > ?2 \
             ORDER BY entry.id LIMIT ?3"
        );
        let after = after.min(LOG_ID_MAX).cast_signed();
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut statement = self.conn.prepare_cached(&sql)?;
        // One row more than asked for tells whether there are more.
        let mut rows = statement.query(params![owner.as_str(), after, i64::from(limit) + 1])?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next()? {
            if entries.len() == wanted {
                return Ok(Answer::Log { entries, more: true });
            }
            entries.push(entry(row, &mut self.jids)?);
        }
        Ok(Answer::Log { entries, more: false })
    }

    fn accounts(
        &self,
        domain: Option<&str>,
        only_disabled: bool,
        after: Option<&BareJid>,
        limit: u32,
    ) -> Result<Answer, Error> {
        // CROSS JOIN keeps the order: along the index of the texts, so that a page costs a page. What stands behind the
        // one @ of an account's address is its domain.
        let sql = "SELECT jid.text FROM jid CROSS JOIN account ON account.owner = jid.id \
                   WHERE jid.text > ?1 AND account.disabled >= ?3 \
                   AND (?4 IS NULL OR substr(jid.text, instr(jid.text, '@') + 1) = ?4) \
                   ORDER BY jid.text LIMIT ?2";
        let mut statement = self.conn.prepare_cached(sql)?;
        let after = after.map_or("", BareJid::as_str);
        let mut rows = statement.query(params![after, limit, only_disabled, domain])?;
        let mut accounts = Vec::new();
        while let Some(row) = rows.next()? {
            let text = row.get_ref(0)?.as_str()?;
            accounts.push(BareJid::parse(text).map_err(|error| bad_jid(text, &error))?);
        }
        Ok(Answer::Accounts(accounts))
    }

    fn remote_logs(&self, after: Option<&BareJid>, limit: u32) -> Result<Answer, Error> {
        let mut statement = self.conn.prepare_cached(REMOTE_LOGS)?;
        let mut rows = statement.query(params![after.map_or("", BareJid::as_str), limit])?;
        let mut domains = Vec::new();
        while let Some(row) = rows.next()? {
            let text = row.get_ref(0)?.as_str()?;
            domains.push(BareJid::parse(text).map_err(|error| bad_jid(text, &error))?);
        }
        Ok(Answer::RemoteLogs(domains))
    }

    fn counters(&self) -> Result<Answer, Error> {
        let sql = "SELECT partition, next FROM id_block WHERE next > 1 ORDER BY partition";
        let mut statement = self.conn.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))?;
        let next_ids = rows
            .map(|row| row.map(|(partition, next)| (partition, next.cast_unsigned())))
            .collect::<Result<_, _>>()?;
        let incarnation: i64 =
            self.conn.query_row("SELECT incarnation FROM node", [], |row| row.get(0))?;
        Ok(Answer::Counters(Counters { next_ids, incarnation: incarnation.cast_unsigned() }))
    }

    fn count_accounts(&self, domain: &str) -> Result<Answer, Error> {
        let sql = "SELECT count(*), total(disabled) FROM account JOIN jid ON jid.id = account.owner \
                   WHERE substr(jid.text, instr(jid.text, '@') + 1) = ?1";
        let mut statement = self.conn.prepare_cached(sql)?;
        Ok(statement.query_row([domain], |row| {
            let (accounts, disabled): (i64, f64) = (row.get(0)?, row.get(1)?);
            Ok(Answer::Counted { accounts: accounts.cast_unsigned(), disabled: disabled as u64 })
        })?)
    }
}

#[cfg(test)]
impl SqliteReader {
    pub(super) fn attempt_to_write(&self) -> Result<(), Error> {
        Ok(self.conn.execute_batch("DELETE FROM account")?)
    }
}

impl Reader for SqliteReader {
    fn read(&mut self, query: &Query) -> Result<Answer, Error> {
        match query {
            Query::Account { owner } => Ok(Answer::Account(self.account(owner)?)),
            Query::Slot { owner, name } => self.slot(owner, name),
            Query::Log { owner, after, limit } => self.log(owner, *after, *limit),
            Query::Archive(query) => {
                let _held = snapshot(&self.conn)?;
                archive::page(&self.conn, query, &mut self.jids)
            }
            Query::ArchiveEnds { owner, up_to } => {
                let _held = snapshot(&self.conn)?;
                archive::ends(&self.conn, owner, *up_to)
            }
            Query::Origins { owner, origins, since } => {
                archive::origins(&self.conn, owner, origins, *since)
            }
            Query::Accounts { domain, only_disabled, after, limit } => {
                self.accounts(domain.as_deref(), *only_disabled, after.as_ref(), *limit)
            }
            Query::CountAccounts { domain } => self.count_accounts(domain),
            Query::RemoteLogs { after, limit } => self.remote_logs(after.as_ref(), *limit),
            Query::LacksKeys => {
                let sql = "SELECT EXISTS (SELECT 1 FROM account WHERE length(sha1_stored_key) = 0), \
                           EXISTS (SELECT 1 FROM account WHERE length(sha256_stored_key) = 0), \
                           EXISTS (SELECT 1 FROM account WHERE sha512_stored_key IS NULL)";
                Ok(self.conn.query_row(sql, [], |row| {
                    Ok(Answer::LacksKeys(LacksKeys {
                        sha1: row.get(0)?,
                        sha256: row.get(1)?,
                        sha512: row.get(2)?,
                    }))
                })?)
            }
            Query::SlotNames { owner } => {
                let sql = "SELECT name FROM slot WHERE owner = (SELECT id FROM jid WHERE text = ?1) \
                           ORDER BY name";
                let mut statement = self.conn.prepare_cached(sql)?;
                let names = statement.query_map([owner.as_str()], |row| row.get(0))?;
                Ok(Answer::SlotNames(names.collect::<Result<_, _>>()?))
            }
            Query::Counters => self.counters(),
        }
    }

    fn hold(&mut self) -> Result<(), Error> {
        self.release()?;
        self.conn.execute_batch("BEGIN")?;
        // The state is that of the first look.
        let looked = self.conn.query_row("SELECT incarnation FROM node", [], |_| Ok(()));
        if looked.is_err() {
            self.conn.execute_batch("ROLLBACK")?;
        }
        Ok(looked?)
    }

    fn release(&mut self) -> Result<(), Error> {
        if !self.conn.is_autocommit() {
            self.conn.execute_batch("ROLLBACK")?;
        }
        Ok(())
    }
}

/// From here on statements see one state of the database, until the answer is dropped. `None` where one is held already.
fn snapshot(conn: &Connection) -> Result<Option<Transaction<'_>>, Error> {
    Ok(if conn.is_autocommit() { Some(conn.unchecked_transaction()?) } else { None })
}

/// Along the index of the domains alone, each looked up among what is pending.
pub(super) const REMOTE_LOGS: &str = "SELECT text FROM jid INDEXED BY jid_domain \
    WHERE instr(text, '@') = 0 AND text > ?1 AND EXISTS ( \
        SELECT 1 FROM entry INDEXED BY entry_pending WHERE entry.owner = jid.id AND pending = 1 \
    ) ORDER BY text LIMIT ?2";

/// The number of no address.
const NOBODY: i64 = 0;

/// Slots that are read with the account: those before the lazy ones, a range of the key.
const EAGER_SLOTS: &str =
    "SELECT name, value FROM slot WHERE owner = ?1 AND name < '~' ORDER BY name";

/// Four columns from `first` on.
fn keys(row: &Row<'_>, first: usize) -> rusqlite::Result<ScramKeys> {
    Ok(ScramKeys {
        iterations: row.get(first)?,
        salt: row.get(first + 1)?,
        stored_key: row.get(first + 2)?,
        server_key: row.get(first + 3)?,
    })
}

fn roster(
    statement: &mut Statement<'_>,
    owner: i64,
    jids: &mut JidCache,
) -> Result<Vec<RosterItem>, Error> {
    let mut rows = statement.query([owner])?;
    let mut roster = Vec::new();
    while let Some(row) = rows.next()? {
        let groups = row.get_ref(2)?.as_str()?;
        // Most contacts are in no group.
        let groups = match groups {
            "[]" => Vec::new(),
            groups => serde_json::from_str(groups)
                .map_err(|error| Error::Damaged(format!("groups of a contact: {error}")))?,
        };
        roster.push(RosterItem {
            jid: jid(row.get_ref(0)?, jids)?,
            name: row.get(1)?,
            groups,
            subscription: subscription(row.get(3)?)?,
            listed: row.get::<_, u8>(3)? != UNLISTED,
            ask: row.get(4)?,
            approved: row.get(5)?,
            pending_in: row.get(6)?,
        });
    }
    Ok(roster)
}

/// What `entry` reads, of `entry` joined with the address of its peer.
pub(super) const ENTRY_COLUMNS: &str = "entry.id, at, jid.text, incarnation, link, number, open_end, close_start, \
                                        stanza, resource, pending, archived";

/// Incarnation, link and number, from this column on.
pub(super) fn origin(row: &Row<'_>, column: usize) -> rusqlite::Result<Origin> {
    let unsigned = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let (incarnation, number) = (unsigned(column)?, unsigned(column + 2)?);
    Ok(Origin { incarnation, link: row.get(column + 1)?, number })
}

pub(super) fn entry(row: &Row<'_>, jids: &mut JidCache) -> Result<LogEntry, Error> {
    let unsigned = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let id = unsigned(0)?;
    let with = jid(row.get_ref(2)?, jids)?;
    let with = match row.get_ref(9)?.as_str()? {
        "" => with,
        resource => {
            with.bare().with_resource(resource).map_err(|error| bad_jid(resource, &error))?
        }
    };
    let keep = Keep::new(row.get(10)?, row.get(11)?)
        .ok_or_else(|| Error::Damaged(format!("row {id} of a log is kept for nothing")))?;
    Ok(LogEntry {
        id,
        at: Wall(unsigned(1)?),
        with,
        keep,
        origin: origin(row, 3)?,
        stanza: row.get(8)?,
        open_end: row.get(6)?,
        close_start: row.get(7)?,
    })
}

fn jid(value: ValueRef<'_>, jids: &mut JidCache) -> Result<Jid, Error> {
    let text = value.as_str()?;
    jids.parse(text).map_err(|error| bad_jid(text, &error))
}

fn bad_jid(text: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Damaged(format!("{text:?} is no address: {error}"))
}

fn subscription(number: u8) -> Result<Subscription, Error> {
    match number {
        0 | UNLISTED => Ok(Subscription::None),
        1 => Ok(Subscription::To),
        2 => Ok(Subscription::From),
        3 => Ok(Subscription::Both),
        _ => Err(Error::Damaged(format!("subscription {number}"))),
    }
}
