//! Looks for what cannot be so: in SQLite's own structures, and in what the rows say of each other.

use std::path::Path;

use rusqlite::Connection;

use super::super::Error;
use super::super::check::{
    Checked, MOVE, NextIds, RESTORE, TOLD_MAX, address_fault, contact_fault,
};
use super::{connect, conversation, open_error, schema};

/// Reads the whole database at `path`, at one moment. Nothing is changed.
///
/// - takes: `partition`, the store partition of an address by its `hash64`
/// - errors: as of [`super::open`]; one that is damaged so far that it cannot be read is a problem, no error
pub fn check(path: &Path, partition: fn(u64) -> u16) -> Result<Checked, Error> {
    let conn = match connect(path) {
        Err(Error::Damaged(cause)) => {
            let mut checked = Checked::default();
            checked.tell(0, || format!("{cause}; {RESTORE}"));
            return Ok(checked);
        }
        other => other?,
    };
    if !matches!(schema::owner(&conn)?, schema::Owner::Ours) {
        return Err(open_error(path, "the database is empty"));
    }
    let version = schema::check(&conn, schema::MIGRATIONS)?;
    let mut checked = Checked::default();
    match look(&conn, version, partition, &mut checked) {
        Ok(()) => {}
        Err(Error::Damaged(cause)) => checked
            .tell(0, || format!("{cause}; what follows was not looked at; {RESTORE}, or {MOVE}")),
        Err(error) => return Err(error),
    }
    Ok(checked)
}

fn look(
    conn: &Connection,
    version: u32,
    partition: fn(u64) -> u16,
    checked: &mut Checked,
) -> Result<(), Error> {
    let snapshot = conn.unchecked_transaction()?;
    structure(&snapshot, checked)?;
    for table in ["account", "roster", "slot", "entry", "jid"] {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows: i64 = snapshot.query_row(&sql, [], |row| row.get(0))?;
        checked.rows.push((table, rows.cast_unsigned()));
    }
    for rule in RULES {
        by_rule(&snapshot, rule, checked)?;
    }
    if version >= schema::INDEX {
        for rule in INDEX_RULES {
            by_rule(&snapshot, rule, checked)?;
        }
    }
    // After an older program they are made anew before anybody reads them.
    if version >= schema::CONVERSATIONS && conversation::is_kept(&snapshot)? {
        for rule in CONVERSATION_RULES {
            by_rule(&snapshot, rule, checked)?;
        }
    }
    addresses(&snapshot, checked)?;
    rosters(&snapshot, checked)?;
    ids(&snapshot, partition, checked)
}

fn structure(conn: &Connection, checked: &mut Checked) -> Result<(), Error> {
    let mut statement = conn.prepare(&format!("PRAGMA integrity_check({TOLD_MAX})"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let line: String = row.get(0)?;
        if line != "ok" {
            let before = checked.problems.len();
            checked.tell(before, || format!("the file is damaged: {line}; {RESTORE}, or {MOVE}"));
        }
    }
    Ok(())
}

/// Rows that should not be there: each is a text that tells which.
struct Rule {
    sql: &'static str,
    problem: &'static str,
    remedy: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        sql: "SELECT 'account ' || owner FROM account WHERE owner NOT IN (SELECT id FROM jid)",
        problem: "has no address",
        remedy: MOVE,
    },
    Rule {
        sql: "SELECT DISTINCT 'the roster of ' || coalesce(text, 'number ' || owner) FROM roster \
              LEFT JOIN jid ON id = owner WHERE owner NOT IN (SELECT owner FROM account)",
        problem: "belongs to no account",
        remedy: MOVE,
    },
    Rule {
        sql: "SELECT DISTINCT 'what features keep of ' || coalesce(text, 'number ' || owner) FROM slot \
              LEFT JOIN jid ON id = owner WHERE owner NOT IN (SELECT owner FROM account)",
        problem: "belongs to no account",
        remedy: MOVE,
    },
    Rule {
        sql: "SELECT DISTINCT 'the log of ' || coalesce(text, 'number ' || owner) FROM entry \
              LEFT JOIN jid ON jid.id = owner WHERE owner NOT IN (SELECT owner FROM account) \
              AND coalesce(instr(text, '@'), 1) > 0",
        problem: "belongs to no account",
        remedy: MOVE,
    },
    Rule {
        sql: "SELECT 'the message ' || entry.id || ' of ' || text FROM entry JOIN jid ON jid.id = owner \
              WHERE archived = 1 AND instr(text, '@') = 0",
        problem: "is in the archive of a domain, which has none",
        remedy: MOVE,
    },
    Rule {
        sql: "SELECT 'the message ' || entry.id || ' of ' || coalesce(text, 'number ' || owner) FROM entry \
              LEFT JOIN jid ON jid.id = owner WHERE peer NOT IN (SELECT id FROM jid)",
        problem: "is from nobody",
        remedy: MOVE,
    },
    Rule {
        sql: "SELECT 'the message ' || entry.id || ' of ' || coalesce(text, 'number ' || owner) FROM entry \
              LEFT JOIN jid ON jid.id = owner GROUP BY owner, entry.id HAVING count(*) > 1",
        problem: "is there more than once",
        remedy: MOVE,
    },
    Rule {
        sql: "SELECT 'the message ' || entry.id || ' of ' || coalesce(text, 'number ' || owner) FROM entry \
              LEFT JOIN jid ON jid.id = owner \
              WHERE open_end > close_start OR close_start > length(stanza)",
        problem: "has its tags outside of itself",
        remedy: "its owner's clients cannot read it; restore the database from a backup",
    },
    Rule {
        sql: "SELECT 'the message ' || entry.id || ' of ' || coalesce(text, 'number ' || owner) FROM entry \
              LEFT JOIN jid ON jid.id = owner \
              WHERE pending NOT IN (0, 1) OR archived NOT IN (0, 1) OR pending + archived = 0",
        problem: "is neither pending nor in the archive",
        remedy: MOVE,
    },
    Rule {
        sql: "SELECT coalesce(text, 'number ' || owner) FROM account LEFT JOIN jid ON id = owner WHERE \
              length(sha1_stored_key) NOT IN (0, 20) OR length(sha1_server_key) <> length(sha1_stored_key) OR \
              length(sha256_stored_key) NOT IN (0, 32) OR length(sha256_server_key) <> length(sha256_stored_key) OR \
              coalesce(length(sha512_stored_key), 64) <> 64 OR coalesce(length(sha512_server_key), 64) <> 64",
        problem: "has keys of a wrong length",
        remedy: "set its password with: corefire user passwd",
    },
];

/// What SQLite's own look at the structure cannot see, as to SQLite these are tables like others.
const INDEX_RULES: &[Rule] = &[
    Rule {
        sql: "SELECT 'the message ' || entry.id || ' of ' || coalesce(text, 'number ' || entry.owner) FROM entry \
              LEFT JOIN archive_main AS m ON m.owner = entry.owner AND m.id = entry.id \
              LEFT JOIN archive_fresh AS f ON f.owner = entry.owner AND f.id = entry.id \
              LEFT JOIN jid ON jid.id = entry.owner \
              WHERE entry.archived = 1 AND coalesce((m.row, m.peer) <> (entry.row, entry.peer), true) \
              AND coalesce((f.row, f.peer) <> (entry.row, entry.peer), true)",
        problem: "is missing in the index of its archive",
        remedy: RESTORE,
    },
    Rule {
        sql: "SELECT 'the message ' || i.id || ' of ' || coalesce(text, 'number ' || i.owner) FROM ( \
                  SELECT owner, id, peer, row FROM archive_main \
                  UNION ALL SELECT owner, id, peer, row FROM archive_fresh \
              ) AS i LEFT JOIN entry ON entry.row = i.row LEFT JOIN jid ON jid.id = i.owner \
              WHERE entry.row IS NULL OR entry.archived <> 1 \
              OR (entry.owner, entry.peer, entry.id) <> (i.owner, i.peer, i.id)",
        problem: "is in the index of an archive in which it is not",
        remedy: MOVE,
    },
    Rule {
        sql: "SELECT 'the message ' || f.id || ' of ' || coalesce(text, 'number ' || f.owner) FROM archive_fresh AS f \
              LEFT JOIN jid ON jid.id = f.owner \
              WHERE f.id <= (SELECT max(m.id) FROM archive_main AS m WHERE m.owner = f.owner)",
        problem: "is in the index of its archive twice, or behind newer ones",
        remedy: MOVE,
    },
];

const CONVERSATION_RULES: &[Rule] = &[
    Rule {
        sql: "SELECT 'the message ' || entry.id || ' of ' || coalesce(text, 'number ' || entry.owner) \
              FROM entry CROSS JOIN conversation_upto AS upto ON upto.owner = entry.owner \
              LEFT JOIN conversation AS c ON c.owner = entry.owner AND c.peer = entry.peer AND c.id = entry.id \
              LEFT JOIN jid ON jid.id = entry.owner \
              WHERE entry.archived = 1 AND entry.id <= upto.id AND (c.row IS NULL OR c.row <> entry.row)",
        problem: "is missing in its conversation",
        remedy: MOVE,
    },
    Rule {
        sql: "SELECT 'the message ' || c.id || ' of ' || coalesce(text, 'number ' || c.owner) \
              FROM conversation AS c LEFT JOIN conversation_upto AS upto ON upto.owner = c.owner \
              LEFT JOIN entry ON entry.row = c.row LEFT JOIN jid ON jid.id = c.owner \
              WHERE coalesce(upto.id, 0) < c.id OR entry.row IS NULL OR entry.archived <> 1 \
              OR (entry.owner, entry.peer, entry.id) <> (c.owner, c.peer, c.id)",
        problem: "is in a conversation in which it should not be",
        remedy: MOVE,
    },
];

fn by_rule(conn: &Connection, rule: &Rule, checked: &mut Checked) -> Result<(), Error> {
    let mut statement = conn.prepare(rule.sql)?;
    let mut rows = statement.query([])?;
    let mut told = 0;
    while let Some(row) = rows.next()? {
        let which: String = row.get(0)?;
        checked.tell(told, || format!("{which} {}; {}", rule.problem, rule.remedy));
        told += 1;
    }
    Ok(())
}

fn addresses(conn: &Connection, checked: &mut Checked) -> Result<(), Error> {
    let mut statement = conn.prepare(
        "SELECT text, account.owner IS NOT NULL FROM jid LEFT JOIN account ON account.owner = jid.id",
    )?;
    let mut rows = statement.query([])?;
    let mut told = 0;
    while let Some(row) = rows.next()? {
        let (text, is_account) = (row.get_ref(0)?.as_str()?, row.get::<_, bool>(1)?);
        let Some(fault) = address_fault(text, is_account) else { continue };
        checked.tell(told, || format!("{text:?} {fault}; {RESTORE}"));
        told += 1;
    }
    Ok(())
}

fn rosters(conn: &Connection, checked: &mut Checked) -> Result<(), Error> {
    let mut statement = conn.prepare(
        "SELECT coalesce(text, 'number ' || owner), roster.jid, groups, subscription \
         FROM roster LEFT JOIN jid ON id = owner",
    )?;
    let mut rows = statement.query([])?;
    let mut told = 0;
    while let Some(row) = rows.next()? {
        let (contact, groups) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
        let is_known = row.get::<_, i64>(3)? <= i64::from(super::writer::UNLISTED);
        let Some(fault) = contact_fault(contact, groups, is_known) else { continue };
        let owner: String = row.get(0)?;
        checked.tell(told, || format!("the contact {contact:?} of {owner} {fault}; {RESTORE}"));
        told += 1;
    }
    Ok(())
}

/// No row has an id that could be given again.
fn ids(
    conn: &Connection,
    partition_of: fn(u64) -> u16,
    checked: &mut Checked,
) -> Result<(), Error> {
    let mut next = NextIds::new(partition_of);
    let mut statement = conn.prepare("SELECT partition, next FROM id_block")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        next.put(row.get(0)?, row.get(1)?, checked);
    }
    let mut statement = conn.prepare(
        "SELECT text, top FROM (SELECT owner, max(id) AS top FROM entry GROUP BY owner) \
         JOIN jid ON jid.id = owner",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let owner: String = row.get(0)?;
        next.look(&owner, row.get(1)?, checked);
    }
    Ok(())
}
