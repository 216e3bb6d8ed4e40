//! The archive in the log: pages of it, and its ends.

use tokio_postgres::Row;

use super::super::{
    Answer, ArchiveEnds, ArchiveQuery, Error, LOG_ID_MAX, ORIGIN_ROWS, Origin, Page,
};
use super::link::{Call, Value};
use super::reader::{PostgresReader, Sql, column, entry, origin, unsigned};
use crate::base::hash::Set;
use crate::base::instant::Wall;
use crate::xmpp::jid::BareJid;

/// The columns of an entry, from `log` joined with its peer's `jid`.
macro_rules! entry_columns {
    () => {
        "log.id, log.at, jid.text, log.incarnation, log.link, log.number, log.open_end, log.close_start, \
         log.stanza, log.resource, log.archived, \
         EXISTS (SELECT 1 FROM pending WHERE pending.owner = log.owner AND pending.id = log.id)"
    };
}
pub(super) use entry_columns;

/// Whose, the ids above and up to which, and the times from and up to which; behind the limit come the others.
macro_rules! rows {
    () => {
        concat!(
            "log.owner = (SELECT id FROM jid WHERE text = $1) AND log.id > $2 AND log.id <= $3 AND ",
            rows!(kept)
        )
    };
    // Compared as rows of `log_peer`, which nothing but that index answers: by the columns one by one, the planner takes
    // the primary key and walks through the archive, where its sample showed all of it to be of one peer.
    (peer) => {
        concat!(
            "(log.owner, log.peer, log.id) > \
             ((SELECT id FROM jid WHERE text = $1), (SELECT id FROM jid WHERE text = $7), $2) \
             AND (log.owner, log.peer, log.id) <= \
             ((SELECT id FROM jid WHERE text = $1), (SELECT id FROM jid WHERE text = $7), $3) \
             AND ($8::text IS NULL OR log.resource = $8) AND ",
            rows!(kept)
        )
    };
    (ids) => {
        concat!(
            rows!(),
            " AND ($7::text IS NULL OR log.peer = (SELECT id FROM jid WHERE text = $7)) \
             AND ($8::text IS NULL OR log.resource = $8) AND log.id = ANY($9::bigint[])"
        )
    };
    (kept) => {
        "log.archived AND log.at >= $4 AND log.at <= $5"
    };
}

/// By id, and so that the index of `rows!` has it.
macro_rules! order {
    ($order:literal) => {
        concat!(" ORDER BY log.id ", $order)
    };
    ($order:literal, peer) => {
        concat!(" ORDER BY log.owner ", $order, ", log.peer ", $order, ", log.id ", $order)
    };
}

macro_rules! page {
    // Sorted afterwards: for the order's sake, the planner would walk through the archive.
    ($order:literal, ids) => {
        concat!(
            "SELECT * FROM (SELECT ", entry_columns!(), " FROM log JOIN jid ON jid.id = log.peer WHERE ", rows!(ids),
            " OFFSET 0) AS named ORDER BY 1 ", $order, " LIMIT $6"
        )
    };
    ($order:literal $(, $of:ident)?) => {
        concat!(
            "SELECT ", entry_columns!(), " FROM log JOIN jid ON jid.id = log.peer WHERE ", rows!($($of)?),
            order!($order $(, $of)?), " LIMIT $6"
        )
    };
}

/// Owner, time, incarnations, and how many of the newest rows are looked at. What is pending is in the log as well.
pub(super) const ORIGINS: &str = "SELECT incarnation, link, number FROM (\
         SELECT at, incarnation, link, number FROM log \
         WHERE owner = (SELECT id FROM jid WHERE text = $1) ORDER BY id DESC LIMIT $4\
     ) AS newest WHERE at >= $2 AND incarnation = ANY($3::bigint[])";

macro_rules! count {
    ($($order:literal, $of:ident)?) => {
        concat!(
            "SELECT count(*) FROM (SELECT 1 FROM log WHERE ", rows!($($of)?), $(order!($order, $of),)? " LIMIT $6) AS rows"
        )
    };
    (ids) => {
        concat!("SELECT count(*) FROM (SELECT 1 FROM log WHERE ", rows!(ids), " LIMIT $6) AS rows")
    };
}

pub(super) const PAGE_UP: &str = page!("ASC");
pub(super) const PAGE_DOWN: &str = page!("DESC");
pub(super) const PAGE_PEER_UP: &str = page!("ASC", peer);
pub(super) const PAGE_PEER_DOWN: &str = page!("DESC", peer);
pub(super) const PAGE_IDS_UP: &str = page!("ASC", ids);
pub(super) const PAGE_IDS_DOWN: &str = page!("DESC", ids);
pub(super) const COUNT: &str = count!();
pub(super) const COUNT_PEER: &str = count!("ASC", peer);
pub(super) const COUNT_IDS: &str = count!(ids);

pub(super) const ENDS: &str = "SELECT first.id, first.at, last.id, last.at FROM \
     (SELECT id, at FROM log WHERE owner = (SELECT id FROM jid WHERE text = $1) AND archived AND id <= $2 \
     ORDER BY id ASC LIMIT 1) AS first, \
     (SELECT id, at FROM log WHERE owner = (SELECT id FROM jid WHERE text = $1) AND archived AND id <= $2 \
     ORDER BY id DESC LIMIT 1) AS last";

pub(super) const NEWEST: &str = "SELECT at FROM log \
     WHERE owner = (SELECT id FROM jid WHERE text = $1) AND archived ORDER BY id DESC LIMIT 1";

/// The least id from which on rows are from a time or later, if times rise with the ids: by halving, at the server, in some
/// 40 steps. All rows but the last are looked at; beside comes the row that is there, or next, which may be the last.
pub(super) const FIRST_SINCE: &str = "WITH RECURSIVE \
     who AS MATERIALIZED (SELECT id FROM jid WHERE text = $1), \
     edge AS MATERIALIZED (\
     SELECT first.id AS first, last.id AS last FROM \
     (SELECT id FROM log WHERE owner = (SELECT id FROM who) AND archived ORDER BY id ASC LIMIT 1) AS first, \
     (SELECT id FROM log WHERE owner = (SELECT id FROM who) AND archived ORDER BY id DESC LIMIT 1) AS last), \
     halves (low, high) AS (\
     SELECT first, last FROM edge \
     UNION ALL \
     SELECT CASE WHEN before.yes THEN probe.id + 1 ELSE half.low END, \
     CASE WHEN before.yes THEN half.high ELSE half.middle END \
     FROM (SELECT low, high, low + (high - low) / 2 AS middle FROM halves WHERE low < high) AS half \
     LEFT JOIN LATERAL (\
     SELECT id, at FROM log WHERE owner = (SELECT id FROM who) AND archived AND id >= half.middle \
     ORDER BY id LIMIT 1) AS probe ON true \
     CROSS JOIN LATERAL (\
     SELECT coalesce(probe.id < half.high AND probe.at < $2::bigint, false) AS yes) AS before) \
     SELECT low, next.id, next.at FROM halves CROSS JOIN LATERAL (\
     SELECT id, at FROM log WHERE owner = (SELECT id FROM who) AND archived AND id >= halves.low \
     ORDER BY id LIMIT 1) AS next WHERE low >= high";

/// The parameters behind the owner.
struct Bounds {
    above: i64,
    up_to: i64,
    from: i64,
    until: i64,
    limit: i64,
}

impl PostgresReader {
    /// - cost: of a page, that of its rows, also of one conversation; with a resource, that of the rows of the conversation
    ///   which are passed over; named ids are looked up one by one; times are found in some 40 steps
    pub(super) fn archive(&mut self, query: &ArchiveQuery) -> Result<Answer, Error> {
        let owner = query.owner.as_str();
        let (start, end) = (query.start.map(micros), query.end.map(micros));
        let since = |time: Option<Wall>| time.map(micros);
        let start_from =
            since(query.start.map(|start| Wall(start.0.saturating_sub(query.disorder_us))));
        let end_past = since(
            query.end.map(|end| Wall(end.0.saturating_add(query.disorder_us).saturating_add(1))),
        );
        let holds = self.holds();
        let mut calls: Vec<Call<'_>> = Vec::new();
        if !holds {
            calls.push((Sql::Begin as usize, Vec::new()));
        }
        let begun = calls.len();
        for time in [&start_from, &end_past].into_iter().flatten() {
            calls.push((Sql::FirstSince as usize, vec![&owner, time]));
        }
        let (mut above, mut below) = (0, u64::MAX);
        if calls.len() > begun {
            let answers = self.ask(&calls)?;
            let mut answers = answers.iter().skip(begun);
            if let Some(time) = start_from {
                above = first_since(answers.next(), time)?.saturating_sub(1);
            }
            if let Some(time) = end_past {
                below = first_since(answers.next(), time)?;
            }
            calls = Vec::new();
        }
        let bounds = |(over, under): (u64, u64), limit: u32| Bounds {
            above: signed(over.max(above)),
            up_to: signed(under.min(below).saturating_sub(1)),
            from: start.unwrap_or(i64::MIN),
            until: end.unwrap_or(i64::MAX),
            limit: i64::from(limit) + 1,
        };
        let counted = bounds(query.id_bounds(), query.count_max);
        // One row more than asked for tells whether there are more.
        let paged = bounds(query.page_bounds(), query.max);
        let ids = query.ids.as_ref().map(|ids| ids_below_max(ids));
        let with = query.with.as_ref().map(|with| with.bare().as_str());
        let resource = query.with.as_ref().and_then(|with| with.resource());
        let others = (&with, &resource, &ids);
        let (page, count) = statements(query);
        if query.count_max > 0 {
            calls.push((count as usize, values(&owner, &counted, others)));
        }
        calls.push((page as usize, values(&owner, &paged, others)));
        if !holds {
            calls.push((Sql::Commit as usize, Vec::new()));
        }
        let mut answers = self.ask(&calls)?;
        if !holds {
            answers.pop();
        }
        let rows = answers.pop().unwrap_or_default();
        let count = match answers.pop().filter(|_| query.count_max > 0) {
            Some(rows) => {
                let count = rows.first().map_or(Ok(0), |row| unsigned(row, 0))?;
                (count <= u64::from(query.count_max)).then_some(count)
            }
            None => None,
        };
        let wanted = usize::try_from(query.max).unwrap_or(usize::MAX);
        let entries = rows.iter().take(wanted).map(|row| entry(row, self.jids()));
        let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
        if matches!(query.page, Page::Before(_)) {
            entries.reverse();
        }
        Ok(Answer::Archive { entries, complete: rows.len() <= wanted, count })
    }

    pub(super) fn origins(
        &mut self,
        owner: &BareJid,
        origins: &[Origin],
        since: Wall,
    ) -> Result<Answer, Error> {
        let mut incarnations: Vec<i64> =
            origins.iter().map(|origin| origin.incarnation.cast_signed()).collect();
        incarnations.sort_unstable();
        incarnations.dedup();
        let (since, most) = (signed(since.0), i64::from(ORIGIN_ROWS));
        let rows = self.one(Sql::Origins, &[&owner.as_str(), &since, &incarnations, &most])?;
        let there = rows.iter().map(|row| origin(row, 0)).collect::<Result<Set<_>, _>>()?;
        Ok(Answer::Origins(origins.iter().map(|origin| there.contains(origin)).collect()))
    }

    pub(super) fn archive_ends(&mut self, owner: &BareJid, up_to: u64) -> Result<Answer, Error> {
        let rows = self.one(Sql::ArchiveEnds, &[&owner.as_str(), &signed(up_to)])?;
        let end =
            |row: &Row, at| Ok::<_, Error>((unsigned(row, at)?, Wall(unsigned(row, at + 1)?)));
        let ends = rows
            .first()
            .map(|row| Ok::<_, Error>(ArchiveEnds { first: end(row, 0)?, last: end(row, 2)? }));
        Ok(Answer::ArchiveEnds(ends.transpose()?))
    }
}

/// Of the page and of the count.
fn statements(query: &ArchiveQuery) -> (Sql, Sql) {
    let is_up = matches!(query.page, Page::After(_));
    let (up, down, count) = match (&query.ids, &query.with) {
        (Some(_), _) => (Sql::PageIdsUp, Sql::PageIdsDown, Sql::CountIds),
        (None, Some(_)) => (Sql::PagePeerUp, Sql::PagePeerDown, Sql::CountPeer),
        (None, None) => (Sql::PageUp, Sql::PageDown, Sql::Count),
    };
    (if is_up { up } else { down }, count)
}

/// An address, its resource, and ids; each where a query has it.
type Others<'a> = (&'a Option<&'a str>, &'a Option<&'a str>, &'a Option<Vec<i64>>);

fn values<'a>(owner: &'a &'a str, bounds: &'a Bounds, others: Others<'a>) -> Vec<Value<'a>> {
    let Bounds { above, up_to, from, until, limit } = bounds;
    let mut values: Vec<Value<'a>> = vec![owner, above, up_to, from, until, limit];
    let (with, resource, ids) = others;
    if with.is_some() || ids.is_some() {
        values.extend([with as Value<'a>, resource]);
    }
    if let Some(ids) = ids {
        values.push(ids);
    }
    values
}

/// - takes: the answer to `FIRST_SINCE`, and the time that was asked for
fn first_since(rows: Option<&Vec<Row>>, time: i64) -> Result<u64, Error> {
    // An empty archive.
    let Some(row) = rows.and_then(|rows| rows.first()) else { return Ok(0) };
    let is_past_all = column::<i64>(row, 2)? < time;
    if is_past_all { Ok(unsigned(row, 1)? + 1) } else { unsigned(row, 0) }
}

/// As a column compares: what is above all that a row can have comes out as the highest.
fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

fn micros(time: Wall) -> i64 {
    signed(time.0)
}

fn ids_below_max(ids: &[u64]) -> Vec<i64> {
    ids.iter().filter(|id| **id <= LOG_ID_MAX).map(|id| id.cast_signed()).collect()
}
