//! Looks for what cannot be so in what the rows say of each other. The server's own structures are `pg_amcheck`'s.

use std::time::Duration;

use tokio_postgres::Row;

use super::super::Error;
use super::super::check::{
    Checked, MOVE, NextIds, RESTORE, TOLD_MAX, address_fault, contact_fault,
};
use super::columns::UNLISTED;
use super::link::{Link, Value};
use super::reader::column;
use super::schema;
use super::settings::Settings;

/// One statement may read all rows of a table.
const LIMIT: Duration = Duration::from_secs(3_600);

/// Rows read at once: what is held in memory, of some 100 B each.
const PAGE: i64 = 10_000;

/// Whole tables are read here: what is best against another is for the server to say.
const SESSION: &str = "
    SET plan_cache_mode = auto;
    SET enable_seqscan = on;
    SET enable_bitmapscan = on;
    SET enable_hashjoin = on;
    SET enable_mergejoin = on;
    SET enable_sort = on;
";

/// Reads the whole database, at one moment. Nothing is changed.
///
/// - takes: `partition`, the store partition of an address by its `hash64`
/// - errors: as of [`super::open`]; `Damaged` for a row that cannot be read
/// - cost: while it runs the server keeps what nodes replace and delete meanwhile
pub fn check(settings: &Settings, partition: fn(u64) -> u16) -> Result<Checked, Error> {
    let mut link = Link::connect(settings, "corefire/check", SESSION, &[])?;
    schema::check(&mut link, schema::MIGRATIONS)?;
    link.once(LIMIT, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", &[])?;
    let mut checked = Checked::default();
    for (table, sql) in TABLES {
        let rows = link.once(LIMIT, sql, &[])?;
        let count: i64 = rows.first().map_or(Ok(0), |row| column(row, 0))?;
        checked.rows.push((table, count.cast_unsigned()));
    }
    for rule in RULES {
        by_rule(&mut link, rule, &mut checked)?;
    }
    addresses(&mut link, &mut checked)?;
    rosters(&mut link, &mut checked)?;
    ids(&mut link, partition, &mut checked)?;
    Ok(checked)
}

const TABLES: [(&str, &str); 6] = [
    ("account", "SELECT count(*) FROM account"),
    ("roster", "SELECT count(*) FROM roster"),
    ("slot", "SELECT count(*) FROM slot"),
    ("log", "SELECT count(*) FROM log"),
    ("pending", "SELECT count(*) FROM pending"),
    ("jid", "SELECT count(*) FROM jid"),
];

/// Rows that should not be there: each is a text that tells which.
struct Rule {
    sql: &'static str,
    problem: &'static str,
    remedy: &'static str,
}

/// Rows of a table whose owner has no account.
macro_rules! of_no_account {
    ($what:literal, $table:literal) => {
        concat!(
            "SELECT DISTINCT '",
            $what,
            " of ' || coalesce(text, 'number ' || owner) AS which FROM ",
            $table,
            " AS o LEFT JOIN jid ON jid.id = owner \
             WHERE NOT EXISTS (SELECT 1 FROM account WHERE account.owner = o.owner)"
        )
    };
}

/// Messages of which something holds.
macro_rules! messages {
    ($condition:literal) => {
        concat!(
            "SELECT 'the message ' || log.id || ' of ' || coalesce(text, 'number ' || owner) AS which \
             FROM log LEFT JOIN jid ON jid.id = owner WHERE ",
            $condition
        )
    };
}

const RULES: &[Rule] = &[
    Rule {
        sql: "SELECT 'account ' || owner AS which FROM account \
              WHERE NOT EXISTS (SELECT 1 FROM jid WHERE id = owner)",
        problem: "has no address",
        remedy: MOVE,
    },
    Rule {
        sql: of_no_account!("the roster", "roster"),
        problem: "belongs to no account",
        remedy: MOVE,
    },
    Rule {
        sql: of_no_account!("what features keep", "slot"),
        problem: "belongs to no account",
        remedy: MOVE,
    },
    Rule {
        sql: concat!(of_no_account!("the log", "log"), " AND coalesce(strpos(text, '@'), 1) > 0"),
        problem: "belongs to no account",
        remedy: MOVE,
    },
    Rule {
        sql: messages!("archived AND strpos(text, '@') = 0"),
        problem: "is in the archive of a domain, which has none",
        remedy: MOVE,
    },
    Rule {
        sql: messages!("NOT EXISTS (SELECT 1 FROM jid AS other WHERE other.id = peer)"),
        problem: "is from nobody",
        remedy: MOVE,
    },
    Rule {
        sql: messages!("open_end < 0 OR open_end > close_start OR close_start > length(stanza)"),
        problem: "has its tags outside of itself",
        remedy: "its owner's clients cannot read it; restore the database from a backup",
    },
    Rule {
        sql: messages!(
            "NOT archived AND NOT EXISTS \
             (SELECT 1 FROM pending WHERE pending.owner = log.owner AND pending.id = log.id)"
        ),
        problem: "is neither pending nor in the archive",
        remedy: MOVE,
    },
    Rule {
        sql: "SELECT 'the message ' || p.id || ' of ' || coalesce(text, 'number ' || owner) AS which \
              FROM pending AS p LEFT JOIN jid ON jid.id = owner \
              WHERE NOT EXISTS (SELECT 1 FROM log WHERE log.owner = p.owner AND log.id = p.id)",
        problem: "is pending and not there",
        remedy: MOVE,
    },
    Rule {
        sql: "SELECT coalesce(text, 'number ' || owner) AS which FROM account LEFT JOIN jid ON id = owner WHERE \
              length(sha1_stored_key) NOT IN (0, 20) OR length(sha1_server_key) <> length(sha1_stored_key) OR \
              length(sha256_stored_key) NOT IN (0, 32) OR length(sha256_server_key) <> length(sha256_stored_key) OR \
              coalesce(length(sha512_stored_key), 64) <> 64 OR coalesce(length(sha512_server_key), 64) <> 64",
        problem: "has keys of a wrong length",
        remedy: "set its password with: corefire user passwd",
    },
];

fn by_rule(link: &mut Link, rule: &Rule, checked: &mut Checked) -> Result<(), Error> {
    // All are counted, and only those that are told come over.
    let Rule { sql, problem, remedy } = rule;
    let sql = format!("SELECT which, count(*) OVER () FROM ({sql}) AS found LIMIT {TOLD_MAX}");
    let rows = link.once(LIMIT, &sql, &[])?;
    for row in &rows {
        let which: &str = column(row, 0)?;
        checked.problems.push(format!("{which} {problem}; {remedy}"));
    }
    let count: i64 = rows.first().map_or(Ok(0), |row| column(row, 1))?;
    checked.count += count.cast_unsigned();
    Ok(())
}

fn addresses(link: &mut Link, checked: &mut Checked) -> Result<(), Error> {
    const SQL: &str = "SELECT id, text, EXISTS (SELECT 1 FROM account WHERE owner = id) \
                       FROM jid WHERE id > $1 ORDER BY id LIMIT $2";
    let (mut last, mut told) = (i64::MIN, 0);
    loop {
        let rows = link.once(LIMIT, SQL, &[&last, &PAGE])?;
        for row in &rows {
            last = column(row, 0)?;
            let (text, is_account): (&str, bool) = (column(row, 1)?, column(row, 2)?);
            let Some(fault) = address_fault(text, is_account) else { continue };
            checked.tell(told, || format!("{text:?} {fault}; {RESTORE}"));
            told += 1;
        }
        if is_last(&rows) {
            return Ok(());
        }
    }
}

fn rosters(link: &mut Link, checked: &mut Checked) -> Result<(), Error> {
    const SQL: &str = "SELECT owner, key, coalesce(text, 'number ' || owner), jid, groups, subscription \
                       FROM (SELECT owner, key, jid, groups, subscription FROM roster \
                       WHERE (owner, key) > ($1, $2) ORDER BY owner, key LIMIT $3) AS page \
                       LEFT JOIN jid AS of ON of.id = owner ORDER BY owner, key";
    let (mut owner, mut key, mut told) = (i64::MIN, Vec::<u8>::new(), 0);
    loop {
        let from: [Value<'_>; 3] = [&owner, &key, &PAGE];
        let rows = link.once(LIMIT, SQL, &from)?;
        for row in &rows {
            let (shown, contact, groups): (&str, &str, &str) =
                (column(row, 2)?, column(row, 3)?, column(row, 4)?);
            let is_known = (0..=UNLISTED).contains(&column(row, 5)?);
            let Some(fault) = contact_fault(contact, groups, is_known) else { continue };
            checked.tell(told, || format!("the contact {contact:?} of {shown} {fault}; {RESTORE}"));
            told += 1;
        }
        if let Some(row) = rows.last() {
            (owner, key) = (column(row, 0)?, column(row, 1)?);
        }
        if is_last(&rows) {
            return Ok(());
        }
    }
}

/// No row has an id that could be given again.
fn ids(link: &mut Link, partition_of: fn(u64) -> u16, checked: &mut Checked) -> Result<(), Error> {
    // By the owner, an account or a domain, whose newest message is the first of its index from behind.
    const SQL: &str = "SELECT jid.id, text, \
                       (SELECT log.id FROM log WHERE log.owner = jid.id ORDER BY log.id DESC LIMIT 1) \
                       FROM jid WHERE jid.id > $1 AND (strpos(text, '@') = 0 \
                       OR EXISTS (SELECT 1 FROM account WHERE account.owner = jid.id)) \
                       ORDER BY jid.id LIMIT $2";
    let mut next = NextIds::new(partition_of);
    for row in &link.once(LIMIT, "SELECT partition, next FROM id_block", &[])? {
        let partition: i32 = column(row, 0)?;
        next.put(partition.into(), column(row, 1)?, checked);
    }
    let mut last = i64::MIN;
    loop {
        let rows = link.once(LIMIT, SQL, &[&last, &PAGE])?;
        for row in &rows {
            last = column(row, 0)?;
            if let Some(newest) = column(row, 2)? {
                next.look(column(row, 1)?, newest, checked);
            }
        }
        if is_last(&rows) {
            return Ok(());
        }
    }
}

fn is_last(rows: &[Row]) -> bool {
    i64::try_from(rows.len()).is_ok_and(|count| count < PAGE)
}
