//! A connection that reads. Where it was lost, it is made anew; while that fails, questions fail at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::{Row, types::FromSql};

use super::super::{
    AccountRecord, Answer, Counters, Error, Keep, LOG_ID_MAX, LOG_ROWS_COUNTED, LacksKeys,
    LogEntry, Origin, Query, Reader, RosterItem, Subscription,
};
use super::archive;
use super::columns::UNLISTED;
use super::fault::{Fault, told};
use super::link::{Call, Link, Value};
use super::schema;
use super::settings::Settings;
use crate::base::instant::Wall;
use crate::xmpp::credentials::{Credentials, ScramKeys};
use crate::xmpp::jid::{BareJid, Jid, JidCache};

/// How long an answer may take before the connection is given up; the server gives up a little earlier.
const LIMIT: Duration = Duration::from_secs(25);
const SESSION: &str = "SET default_transaction_read_only = on; SET statement_timeout = '20s';";
/// How long after a connection that could not be made the next one is tried.
const PAUSE: Duration = Duration::from_secs(1);
/// Addresses that a reader keeps parsed: contacts and correspondents come back often.
const JIDS: usize = 4_096;

/// In the order of `SQL`.
#[derive(Clone, Copy)]
#[repr(usize)]
pub(super) enum Sql {
    Begin,
    Commit,
    Account,
    LogRows,
    Roster,
    EagerSlots,
    Slot,
    Log,
    Accounts,
    LacksKeys,
    SlotNames,
    NextIds,
    Incarnation,
    CountAccounts,
    ArchivedAt,
    ArchiveEnds,
    FirstSince,
    PageUp,
    PageDown,
    PagePeerUp,
    PagePeerDown,
    PageIdsUp,
    PageIdsDown,
    Count,
    CountPeer,
    CountIds,
    Origins,
    RemoteLogs,
}

/// Along the index of the domains alone, each looked up among what is pending: the limit keeps the planner from a walk
/// through all that is.
pub(super) const REMOTE_LOGS: &str = "SELECT jid.text FROM jid CROSS JOIN LATERAL \
     (SELECT 1 FROM pending WHERE pending.owner = jid.id LIMIT 1) AS waiting \
     WHERE strpos(jid.text, '@') = 0 AND jid.text > $1 ORDER BY jid.text LIMIT $2";

const SQL: [&str; 28] = [
    // Begin: all statements see the same state of the database.
    "BEGIN ISOLATION LEVEL REPEATABLE READ",
    // Commit
    "COMMIT",
    // Account
    "SELECT disabled, roster_version, \
     sha1_iterations, sha1_salt, sha1_stored_key, sha1_server_key, \
     sha256_iterations, sha256_salt, sha256_stored_key, sha256_server_key, \
     sha512_iterations, sha512_salt, sha512_stored_key, sha512_server_key \
     FROM account WHERE owner = (SELECT id FROM jid WHERE text = $1)",
    // LogRows
    "SELECT count(*) FROM (SELECT 1 FROM pending WHERE owner = (SELECT id FROM jid WHERE text = $1) LIMIT $2) AS rows",
    // Roster: put in order by us, which costs the server nothing.
    "SELECT jid, name, groups, subscription, ask, approved, pending_in \
     FROM roster WHERE owner = (SELECT id FROM jid WHERE text = $1)",
    // EagerSlots: those before the lazy ones, a range of the key.
    "SELECT name, value FROM slot WHERE owner = (SELECT id FROM jid WHERE text = $1) AND name < '~' ORDER BY name",
    // Slot
    "SELECT value FROM slot WHERE owner = (SELECT id FROM jid WHERE text = $1) AND name = $2",
    // Log
    concat!(
        "SELECT ",
        archive::entry_columns!(),
        " FROM pending AS waiting JOIN log ON log.owner = waiting.owner AND log.id = waiting.id \
         JOIN jid ON jid.id = log.peer \
         WHERE waiting.owner = (SELECT id FROM jid WHERE text = $1) AND waiting.id > $2 \
         ORDER BY waiting.id LIMIT $3"
    ),
    // Accounts: along the index of the texts, so that a page costs a page. What stands behind the one @ is the domain.
    "SELECT jid.text FROM jid JOIN account ON account.owner = jid.id \
     WHERE jid.text > $1 AND (account.disabled OR NOT $3) \
     AND ($4::text IS NULL OR substr(jid.text, strpos(jid.text, '@') + 1) = $4) \
     ORDER BY jid.text LIMIT $2",
    // LacksKeys
    "SELECT EXISTS (SELECT 1 FROM account WHERE length(sha1_stored_key) = 0), \
     EXISTS (SELECT 1 FROM account WHERE length(sha256_stored_key) = 0), \
     EXISTS (SELECT 1 FROM account WHERE sha512_stored_key IS NULL)",
    // SlotNames
    "SELECT name FROM slot WHERE owner = (SELECT id FROM jid WHERE text = $1) ORDER BY name",
    // NextIds
    "SELECT partition, next FROM id_block WHERE next > 1 ORDER BY partition",
    // Incarnation
    "SELECT coalesce(max(id), 0) FROM incarnation",
    // CountAccounts
    "SELECT count(*), count(*) FILTER (WHERE disabled) FROM account JOIN jid ON jid.id = account.owner \
     WHERE substr(jid.text, strpos(jid.text, '@') + 1) = $1",
    archive::NEWEST,
    archive::ENDS,
    archive::FIRST_SINCE,
    archive::PAGE_UP,
    archive::PAGE_DOWN,
    archive::PAGE_PEER_UP,
    archive::PAGE_PEER_DOWN,
    archive::PAGE_IDS_UP,
    archive::PAGE_IDS_DOWN,
    archive::COUNT,
    archive::COUNT_PEER,
    archive::COUNT_IDS,
    archive::ORIGINS,
    REMOTE_LOGS,
];

/// Answers queries. As many as there are threads to read.
pub struct PostgresReader {
    settings: Arc<Settings>,
    link: Option<Link>,
    /// The last attempt to connect that failed.
    failed: Option<Instant>,
    /// A transaction is open, which sees one state; with the connection that state is gone.
    holds: bool,
    jids: JidCache,
}

impl PostgresReader {
    /// Connects to a database that a writer has opened before.
    ///
    /// - errors: `Open`, `TooNew`
    pub fn open(settings: &Settings) -> Result<PostgresReader, Error> {
        let mut link = connect(settings)?;
        schema::check(&mut link, schema::MIGRATIONS)?;
        Ok(PostgresReader {
            settings: Arc::new(settings.clone()),
            link: Some(link),
            failed: None,
            holds: false,
            jids: JidCache::new(JIDS),
        })
    }

    /// Asks, a second time where the connection turns out to be lost.
    pub(super) fn ask(&mut self, calls: &[Call<'_>]) -> Result<Vec<Vec<Row>>, Error> {
        if self.holds {
            let link = self.link.as_mut().ok_or_else(lost_state)?;
            return link.ask(LIMIT, calls).map_err(|fault| {
                self.link = None;
                fault.into()
            });
        }
        let had_link = self.link.is_some();
        match self.link()?.ask(LIMIT, calls) {
            Ok(answers) => Ok(answers),
            Err(fault) => {
                self.link = None;
                // One that was silent for so long is not asked again.
                if had_link && fault.is_lost() && !matches!(fault, Fault::Silent) {
                    return match self.link()?.ask(LIMIT, calls) {
                        Ok(answers) => Ok(answers),
                        Err(fault) => {
                            self.link = None;
                            Err(fault.into())
                        }
                    };
                }
                if matches!(fault, Fault::Silent) {
                    self.failed = Some(Instant::now());
                }
                Err(fault.into())
            }
        }
    }

    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// All of it of one state of the database.
    fn ask_at_once(&mut self, calls: Vec<Call<'_>>) -> Result<Vec<Vec<Row>>, Error> {
        if self.holds {
            return self.ask(&calls);
        }
        let mut whole: Vec<Call<'_>> = vec![(Sql::Begin as usize, Vec::new())];
        whole.extend(calls);
        whole.push((Sql::Commit as usize, Vec::new()));
        let mut answers = self.ask(&whole)?;
        answers.pop();
        answers.remove(0);
        Ok(answers)
    }

    pub(super) fn jids(&mut self) -> &mut JidCache {
        &mut self.jids
    }

    fn link(&mut self) -> Result<&mut Link, Error> {
        if self.link.is_none() {
            if self.failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
                return Err(Error::Backend("not connected; tried again each second".to_owned()));
            }
            match connect(&self.settings) {
                Ok(link) => self.link = Some(link),
                Err(error) => {
                    self.failed = Some(Instant::now());
                    return Err(error);
                }
            }
            self.failed = None;
        }
        self.link.as_mut().ok_or_else(|| Error::Backend("not connected".to_owned()))
    }

    pub(super) fn one(&mut self, sql: Sql, values: &[Value<'_>]) -> Result<Vec<Row>, Error> {
        let mut answers = self.ask(&[(sql as usize, values.to_vec())])?;
        Ok(answers.pop().unwrap_or_default())
    }

    /// For a name without an account the same is asked: how long the first answer of a login takes must not tell whether
    /// there is one.
    fn account(&mut self, owner: &BareJid) -> Result<Option<Box<AccountRecord>>, Error> {
        let text = owner.as_str();
        let counted = i64::from(LOG_ROWS_COUNTED);
        let calls: Vec<Call<'_>> = vec![
            (Sql::Account as usize, vec![&text]),
            (Sql::LogRows as usize, vec![&text, &counted]),
            (Sql::Roster as usize, vec![&text]),
            (Sql::EagerSlots as usize, vec![&text]),
            (Sql::ArchivedAt as usize, vec![&text]),
        ];
        let answers = self.ask_at_once(calls)?;
        let [accounts, log_rows, contacts, slots, archived] = &answers[..] else {
            return Err(Error::Backend("another number of answers".to_owned()));
        };
        let Some(row) = accounts.first() else { return Ok(None) };
        let mut roster = Vec::with_capacity(contacts.len());
        for row in contacts {
            roster.push(contact(row, &mut self.jids)?);
        }
        roster.sort_by_cached_key(|item| item.jid.to_string());
        let slots = slots.iter().map(|row| Ok((column(row, 0)?, column(row, 1)?)));
        let log_rows: i64 = log_rows.first().map_or(Ok(0), |row| column(row, 0))?;
        Ok(Some(Box::new(AccountRecord {
            credentials: credentials(row, 2)?,
            disabled: column(row, 0)?,
            roster_version: unsigned(row, 1)?,
            slots: slots.collect::<Result<_, Error>>()?,
            log_rows: u32::try_from(log_rows).unwrap_or(LOG_ROWS_COUNTED),
            archived_at: Wall(archived.first().map_or(Ok(0), |row| unsigned(row, 0))?),
            roster,
        })))
    }

    fn log(&mut self, owner: &BareJid, after: u64, limit: u32) -> Result<Answer, Error> {
        let after = after.min(LOG_ID_MAX).cast_signed();
        // One row more than asked for tells whether there are more.
        let rows_max = i64::from(limit) + 1;
        let rows = self.one(Sql::Log, &[&owner.as_str(), &after, &rows_max])?;
        let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
        let entries = rows.iter().take(wanted).map(|row| entry(row, &mut self.jids));
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        Ok(Answer::Log { more: rows.len() > wanted, entries })
    }
}

fn connect(settings: &Settings) -> Result<Link, Error> {
    Link::connect(settings, "corefire/read", SESSION, &SQL)
}

impl Reader for PostgresReader {
    fn read(&mut self, query: &Query) -> Result<Answer, Error> {
        match query {
            Query::Account { owner } => Ok(Answer::Account(self.account(owner)?)),
            Query::Slot { owner, name } => {
                let rows = self.one(Sql::Slot, &[&owner.as_str(), name])?;
                Ok(Answer::Slot(rows.first().map(|row| column(row, 0)).transpose()?))
            }
            Query::Log { owner, after, limit } => self.log(owner, *after, *limit),
            Query::Archive(query) => self.archive(query).inspect_err(|_| {
                // It may have left its transaction open.
                self.link = None;
            }),
            Query::ArchiveEnds { owner, up_to } => self.archive_ends(owner, *up_to),
            Query::Origins { owner, origins, since } => self.origins(owner, origins, *since),
            Query::Accounts { domain, only_disabled, after, limit } => {
                let after = after.as_ref().map_or("", BareJid::as_str);
                let limit = i64::from(*limit);
                let rows = self.one(Sql::Accounts, &[&after, &limit, only_disabled, domain])?;
                Ok(Answer::Accounts(rows.iter().map(bare_jid).collect::<Result<_, _>>()?))
            }
            Query::RemoteLogs { after, limit } => {
                let after = after.as_ref().map_or("", BareJid::as_str);
                let rows = self.one(Sql::RemoteLogs, &[&after, &i64::from(*limit)])?;
                Ok(Answer::RemoteLogs(rows.iter().map(bare_jid).collect::<Result<_, _>>()?))
            }
            Query::CountAccounts { domain } => {
                let rows = self.one(Sql::CountAccounts, &[domain])?;
                let count = |place| rows.first().map_or(Ok(0), |row| unsigned(row, place));
                Ok(Answer::Counted { accounts: count(0)?, disabled: count(1)? })
            }
            Query::LacksKeys => {
                let rows = self.one(Sql::LacksKeys, &[])?;
                let lacks = |place| rows.first().map_or(Ok(false), |row| column(row, place));
                Ok(Answer::LacksKeys(LacksKeys {
                    sha1: lacks(0)?,
                    sha256: lacks(1)?,
                    sha512: lacks(2)?,
                }))
            }
            Query::SlotNames { owner } => {
                let rows = self.one(Sql::SlotNames, &[&owner.as_str()])?;
                let names = rows.iter().map(|row| column(row, 0));
                Ok(Answer::SlotNames(names.collect::<Result<_, _>>()?))
            }
            Query::Counters => {
                let calls = vec![
                    (Sql::NextIds as usize, Vec::new()),
                    (Sql::Incarnation as usize, Vec::new()),
                ];
                let answers = self.ask_at_once(calls)?;
                let [blocks, incarnation] = &answers[..] else {
                    return Err(Error::Backend("another number of answers".to_owned()));
                };
                let next = |row: &Row| {
                    let partition: i32 = column(row, 0)?;
                    let partition = u16::try_from(partition)
                        .map_err(|_| Error::Damaged(format!("partition {partition}")))?;
                    Ok::<_, Error>((partition, unsigned(row, 1)?))
                };
                Ok(Answer::Counters(Counters {
                    next_ids: blocks.iter().map(next).collect::<Result<_, _>>()?,
                    incarnation: incarnation.first().map_or(Ok(0), |row| unsigned(row, 0))?,
                }))
            }
        }
    }

    fn hold(&mut self) -> Result<(), Error> {
        self.release()?;
        // The state is that of the first statement behind it.
        let calls = [(Sql::Begin as usize, Vec::new()), (Sql::Incarnation as usize, Vec::new())];
        self.ask(&calls)?;
        self.holds = true;
        Ok(())
    }

    fn release(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.holds)
            && let Some(link) = &mut self.link
            && let Err(fault) = link.ask(LIMIT, &[(Sql::Commit as usize, Vec::new())])
        {
            // What was read stands; the next question gets a new connection.
            self.link = None;
            tracing::debug!(why = %told(&fault), "the end of a reading transaction was not confirmed");
        }
        Ok(())
    }
}

fn lost_state() -> Error {
    Error::Backend(
        "the connection was lost, and with it the state that was read; try again".to_owned(),
    )
}

pub(super) fn column<'r, T: FromSql<'r>>(row: &'r Row, place: usize) -> Result<T, Error> {
    // It holds what no version of this program writes.
    row.try_get(place).map_err(|error| Error::Damaged(error.to_string()))
}

pub(super) fn unsigned(row: &Row, place: usize) -> Result<u64, Error> {
    column::<i64>(row, place).map(i64::cast_unsigned)
}

/// Twelve columns from `first` on.
pub(super) fn credentials(row: &Row, first: usize) -> Result<Credentials, Error> {
    let sha512: Option<Vec<u8>> = column(row, first + 10)?;
    Ok(Credentials {
        sha1: keys(row, first)?,
        sha256: keys(row, first + 4)?,
        sha512: sha512.map(|_| keys(row, first + 8).map(Box::new)).transpose()?,
    })
}

/// Four columns from `first` on.
fn keys(row: &Row, first: usize) -> Result<ScramKeys, Error> {
    let iterations: i64 = column(row, first)?;
    Ok(ScramKeys {
        iterations: u32::try_from(iterations)
            .map_err(|_| Error::Damaged(format!("{iterations} iterations")))?,
        salt: column(row, first + 1)?,
        stored_key: column(row, first + 2)?,
        server_key: column(row, first + 3)?,
    })
}

fn contact(row: &Row, jids: &mut JidCache) -> Result<RosterItem, Error> {
    // Most contacts are in no group.
    let groups = match column(row, 2)? {
        "[]" => Vec::new(),
        groups => serde_json::from_str(groups)
            .map_err(|error| Error::Damaged(format!("groups of a contact: {error}")))?,
    };
    let number: i16 = column(row, 3)?;
    Ok(RosterItem {
        jid: jid(column(row, 0)?, jids)?,
        name: column(row, 1)?,
        groups,
        subscription: match number {
            0 | UNLISTED => Subscription::None,
            1 => Subscription::To,
            2 => Subscription::From,
            3 => Subscription::Both,
            _ => return Err(Error::Damaged(format!("subscription {number}"))),
        },
        listed: number != UNLISTED,
        ask: column(row, 4)?,
        approved: column(row, 5)?,
        pending_in: column(row, 6)?,
    })
}

/// Incarnation, link and number, from this place on.
pub(super) fn origin(row: &Row, place: usize) -> Result<Origin, Error> {
    Ok(Origin {
        incarnation: unsigned(row, place)?,
        link: column::<i32>(row, place + 1)?.cast_unsigned(),
        number: unsigned(row, place + 2)?,
    })
}

pub(super) fn entry(row: &Row, jids: &mut JidCache) -> Result<LogEntry, Error> {
    let small = |place| column::<i32>(row, place).map(i32::cast_unsigned);
    let peer = jid(column(row, 2)?, jids)?;
    let with = match column(row, 9)? {
        "" => peer,
        resource => {
            peer.bare().with_resource(resource).map_err(|error| bad_jid(resource, &error))?
        }
    };
    let keep = Keep::new(column(row, 11)?, column(row, 10)?)
        .ok_or_else(|| Error::Damaged("a row of the log is kept for nothing".to_owned()))?;
    Ok(LogEntry {
        id: unsigned(row, 0)?,
        at: Wall(unsigned(row, 1)?),
        with,
        keep,
        origin: origin(row, 3)?,
        open_end: small(6)?,
        close_start: small(7)?,
        stanza: column(row, 8)?,
    })
}

fn jid(text: &str, jids: &mut JidCache) -> Result<Jid, Error> {
    jids.parse(text).map_err(|error| bad_jid(text, &error))
}

/// - takes: a row whose first column is an address
fn bare_jid(row: &Row) -> Result<BareJid, Error> {
    let text: &str = column(row, 0)?;
    BareJid::parse(text).map_err(|error| bad_jid(text, &error))
}

fn bad_jid(text: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Damaged(format!("{text:?} is no address: {error}"))
}
