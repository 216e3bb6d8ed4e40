//! The archive in the log: pages of it, its ends, and its oldest rows going.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::super::{
    Answer, ArchiveEnds, ArchiveQuery, Error, LOG_ID_MAX, LogEntry, ORIGIN_ROWS, Origin, Page,
    Written,
};
use super::conversation;
use super::index::{self, FRESH, Index, MAIN};
use super::reader::{ENTRY_COLUMNS, entry, origin};
use crate::base::hash::Set;
use crate::base::instant::Wall;
use crate::xmpp::jid::{BareJid, JidCache};

/// - takes: a connection that sees one state of the database throughout
/// - cost: of a page, that of its rows, also of one conversation, and of fewer than `BEHIND_MAX` index entries passed over;
///   with a resource, that of the rows of the conversation which are passed over; times are found in some 40 steps
pub(super) fn page(
    conn: &Connection,
    query: &ArchiveQuery,
    jids: &mut JidCache,
) -> Result<Answer, Error> {
    let none = Answer::Archive {
        entries: Vec::new(),
        complete: true,
        count: (query.count_max > 0).then_some(0),
    };
    let Some(owner) = number_of(conn, query.owner.as_str())? else { return Ok(none) };
    let mut filter =
        Filter { sql: String::new(), values: vec![Value::Integer(owner)], with_upto: None };
    if let Some(with) = &query.with {
        let Some(peer) = number_of(conn, with.bare().as_str())? else { return Ok(none) };
        filter.values.push(Value::Integer(peer));
        filter.with_upto = Some(conversation::upto(conn, owner)?);
        if let Some(resource) = with.resource() {
            filter.add("resource = ", Value::Text(resource.to_owned()));
        }
    }
    // Where times rise with the ids, the bounds say all: rows are then counted along the index alone.
    let untimed = (query.disorder_us == 0).then(|| filter.clone());
    let (mut above, mut below) = (0, u64::MAX);
    if let Some(start) = query.start {
        let from = Wall(start.0.saturating_sub(query.disorder_us));
        above = first_since(conn, owner, from)?.saturating_sub(1);
        filter.add("at >= ", Value::Integer(micros(start)));
    }
    if let Some(end) = query.end {
        let past = Wall(end.0.saturating_add(query.disorder_us).saturating_add(1));
        below = first_since(conn, owner, past)?;
        filter.add("at <= ", Value::Integer(micros(end)));
    }
    let within = |bounds: (u64, u64)| (bounds.0.max(above), bounds.1.min(below));
    let count = match query.count_max {
        0 => None,
        max => {
            let counted = untimed.as_ref().unwrap_or(&filter);
            let count = counted.count(conn, query, within(query.id_bounds()), max)?;
            (count <= u64::from(max)).then_some(count)
        }
    };
    let wanted = usize::try_from(query.max).unwrap_or(usize::MAX);
    let bounds = within(query.page_bounds());
    // One row more than asked for tells whether there are more.
    let limit = query.max.saturating_add(1);
    let mut entries = filter.entries(conn, query, bounds, limit, jids)?;
    let complete = entries.len() <= wanted;
    entries.truncate(wanted);
    if matches!(query.page, Page::Before(_)) {
        entries.reverse();
    }
    Ok(Answer::Archive { entries, complete, count })
}

/// - takes: a connection that sees one state of the database throughout
pub(super) fn ends(conn: &Connection, owner: &BareJid, up_to: u64) -> Result<Answer, Error> {
    let Some(owner) = number_of(conn, owner.as_str())? else {
        return Ok(Answer::ArchiveEnds(None));
    };
    let indexed = index::both("id, row", "owner = ?1 AND id <= ?2");
    let end = |order: &str| -> Result<Option<(u64, Wall)>, Error> {
        let sql = format!(
            "SELECT end.id, at FROM ({indexed} ORDER BY id {order} LIMIT 1) AS end \
             CROSS JOIN entry ON entry.row = end.row AND entry.owner = ?1"
        );
        let mut statement = conn.prepare_cached(&sql)?;
        let row = statement.query_row(params![owner, signed(up_to)], id_and_time);
        Ok(row.optional()?)
    };
    let (first, last) = (end("ASC")?, end("DESC")?);
    Ok(Answer::ArchiveEnds(first.zip(last).map(|(first, last)| ArchiveEnds { first, last })))
}

/// Looks among the newest rows of either kind.
pub(super) fn origins(
    conn: &Connection,
    owner: &BareJid,
    origins: &[Origin],
    since: Wall,
) -> Result<Answer, Error> {
    let mut there = Set::default();
    if let Some(owner) = number_of(conn, owner.as_str())? {
        let indexed = index::both("id, row", "owner = ?1");
        let archived = format!(
            "({indexed} ORDER BY id DESC LIMIT {ORIGIN_ROWS}) AS newest \
             CROSS JOIN entry ON entry.row = newest.row AND entry.owner = ?1"
        );
        let pending = format!(
            "(SELECT at, incarnation, link, number FROM entry INDEXED BY entry_pending \
             WHERE owner = ?1 AND pending = 1 ORDER BY id DESC LIMIT {ORIGIN_ROWS})"
        );
        for rows in [archived, pending] {
            let sql = format!("SELECT incarnation, link, number FROM {rows} WHERE at >= ?2");
            let mut statement = conn.prepare_cached(&sql)?;
            for found in statement.query_map(params![owner, micros(since)], |row| origin(row, 0))? {
                there.insert(found?);
            }
        }
    }
    Ok(Answer::Origins(origins.iter().map(|origin| there.contains(origin)).collect()))
}

/// The oldest rows of the archive go: see `Write::PruneArchive`.
pub(super) fn prune(
    conn: &Connection,
    index: &mut Index,
    owner: i64,
    before: Wall,
    keep: u64,
    limit: u32,
) -> Result<Written, Error> {
    let sql = format!("{} ORDER BY id DESC LIMIT 1 OFFSET ?2", index::both("id", "owner = ?1"));
    let surplus: Option<i64> = match i64::try_from(keep) {
        Ok(keep) => conn
            .prepare_cached(&sql)?
            .query_row(params![owner, keep], |row| row.get(0))
            .optional()?,
        Err(_) => None,
    };
    let surplus = surplus.unwrap_or(0).cast_unsigned();
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut gone = Vec::new();
    let mut more = false;
    'tables: for table in index::TABLES {
        let sql = format!(
            "SELECT {table}.id, at, entry.row, pending FROM {table} \
             CROSS JOIN entry ON entry.row = {table}.row AND entry.owner = ?1 \
             WHERE {table}.owner = ?1 ORDER BY {table}.id LIMIT ?2"
        );
        let mut oldest = conn.prepare_cached(&sql)?;
        let mut rows = oldest.query(params![owner, i64::from(limit) + 1])?;
        while let Some(row) = rows.next()? {
            let (id, at) = id_and_time(row)?;
            if at >= before && id > surplus {
                break 'tables;
            }
            if gone.len() == wanted {
                more = true;
                break 'tables;
            }
            gone.push((id, row.get::<_, i64>(2)?, row.get::<_, bool>(3)?));
        }
    }
    let mut delete = conn.prepare_cached("DELETE FROM entry WHERE row = ?1")?;
    let mut hide = conn.prepare_cached("UPDATE entry SET archived = 0 WHERE row = ?1")?;
    for (id, row, pending) in &gone {
        index.remove(conn, owner, *id)?;
        if *pending {
            hide.execute([row])?
        } else {
            delete.execute([row])?
        };
    }
    Ok(Written::Pruned { rows: u32::try_from(gone.len()).unwrap_or(u32::MAX), more })
}

/// Conditions beside the ids, as text with its values.
#[derive(Clone)]
struct Filter {
    /// Of columns of `entry` that the indexes do not have.
    sql: String,
    /// The first is the owner; where rows are to be with somebody, the second is that peer.
    values: Vec<Value>,
    /// Up to which id `conversation` has the rows with the peer.
    with_upto: Option<u64>,
}

/// The table along which rows are found, each in the order of its ids.
#[derive(Clone, Copy)]
enum Along {
    /// The owner's rows, with whomever: the older ones.
    Main,
    /// The newer ones.
    Fresh,
    /// The rows with the peer alone.
    Conversation,
}

impl Along {
    fn table(self) -> &'static str {
        match self {
            Along::Main => MAIN,
            Along::Fresh => FRESH,
            Along::Conversation => "conversation",
        }
    }
}

/// Ids above one and below another.
type Range = (u64, u64);

impl Filter {
    fn add(&mut self, condition: &str, value: Value) {
        self.values.push(value);
        self.sql.push_str(&format!(" AND entry.{condition}?{}", self.values.len()));
    }

    /// A statement without its order, which takes the bounds of the ids and the limit behind the values.
    ///
    /// - takes: the columns; none where rows are only to be counted
    fn rows(&self, along: Along, columns: Option<&str>) -> String {
        let of = along.table();
        let is_of_index_alone = columns.is_none() && self.sql.is_empty();
        // Whatever a damaged file says, nobody reads another's.
        let entry = match is_of_index_alone {
            true => String::new(),
            false => format!(" CROSS JOIN entry ON entry.row = {of}.row AND entry.owner = ?1"),
        };
        let (columns, jid) = match columns {
            Some(columns) => (columns, " CROSS JOIN jid ON jid.id = entry.peer"),
            None => ("1", ""),
        };
        let with = match self.with_upto {
            Some(_) => format!(" AND {of}.peer = ?2"),
            None => String::new(),
        };
        let (above, last) = (self.values.len() + 1, self.values.len() + 2);
        format!(
            "SELECT {columns} FROM {of}{entry}{jid} WHERE {of}.owner = ?1{with} \
             AND {of}.id > ?{above} AND {of}.id <= ?{last}{}",
            self.sql
        )
    }

    fn values(&self, (above, below): Range, limit: u32) -> Vec<Value> {
        let mut values = self.values.clone();
        for number in [signed(above), signed(below.saturating_sub(1)), i64::from(limit)] {
            values.push(Value::Integer(number));
        }
        values
    }

    /// Where to look, in the order of the ids: at the whole, or around each id that is named.
    fn ranges(&self, query: &ArchiveQuery, (above, below): Range) -> Vec<(Along, Vec<Range>)> {
        match (&query.ids, self.with_upto) {
            (Some(ids), _) => {
                let within = |id: &u64| *id > above && *id < below && *id <= LOG_ID_MAX;
                let mut ids: Vec<u64> = ids.iter().copied().filter(within).collect();
                ids.sort_unstable();
                ids.dedup();
                let ranges: Vec<Range> =
                    ids.into_iter().map(|id| (id - 1, id.saturating_add(1))).collect();
                vec![(Along::Main, ranges.clone()), (Along::Fresh, ranges)]
            }
            (None, None) => {
                let range = vec![(above, below)];
                vec![(Along::Main, range.clone()), (Along::Fresh, range)]
            }
            // Above it there are few rows, whomever they are with.
            (None, Some(upto)) => {
                let rest = vec![(above.max(upto), below)];
                vec![
                    (Along::Conversation, vec![(above, below.min(upto.saturating_add(1)))]),
                    (Along::Main, rest.clone()),
                    (Along::Fresh, rest),
                ]
            }
        }
    }

    fn count(
        &self,
        conn: &Connection,
        query: &ArchiveQuery,
        bounds: Range,
        max: u32,
    ) -> Result<u64, Error> {
        let mut count = 0;
        for (along, ranges) in self.ranges(query, bounds) {
            let rows = self.rows(along, None);
            let sql = format!("SELECT count(*) FROM ({rows} LIMIT ?{})", self.values.len() + 3);
            let mut statement = conn.prepare_cached(&sql)?;
            for range in ranges {
                let values = self.values(range, max.saturating_add(1));
                let found: i64 = statement.query_row(params_from_iter(values), |row| row.get(0))?;
                count += found.cast_unsigned();
            }
        }
        Ok(count)
    }

    /// Up to `limit` rows, in the direction of the paging.
    fn entries(
        &self,
        conn: &Connection,
        query: &ArchiveQuery,
        bounds: Range,
        limit: u32,
        jids: &mut JidCache,
    ) -> Result<Vec<LogEntry>, Error> {
        let backwards = matches!(query.page, Page::Before(_));
        let order = if backwards { "DESC" } else { "ASC" };
        let mut ranges = self.ranges(query, bounds);
        if backwards {
            ranges.reverse();
        }
        let mut entries = Vec::new();
        for (along, mut ranges) in ranges {
            let rows = self.rows(along, Some(ENTRY_COLUMNS));
            let of = along.table();
            let sql = format!("{rows} ORDER BY {of}.id {order} LIMIT ?{}", self.values.len() + 3);
            let mut statement = conn.prepare_cached(&sql)?;
            if backwards {
                ranges.reverse();
            }
            for range in ranges {
                let left = limit - u32::try_from(entries.len()).unwrap_or(limit).min(limit);
                if left == 0 {
                    return Ok(entries);
                }
                let mut rows = statement.query(params_from_iter(self.values(range, left)))?;
                while let Some(row) = rows.next()? {
                    entries.push(entry(row, jids)?);
                }
            }
        }
        Ok(entries)
    }
}

/// The least id from which on rows are from `time` or later, if times rise with the ids: by halving.
fn first_since(conn: &Connection, owner: i64, time: Wall) -> Result<u64, Error> {
    let of = |table: &str| {
        conn.prepare_cached(&format!(
            "SELECT {table}.id, at FROM {table} \
             CROSS JOIN entry ON entry.row = {table}.row AND entry.owner = ?1 \
             WHERE {table}.owner = ?1 AND {table}.id >= ?2 ORDER BY {table}.id LIMIT 1"
        ))
    };
    let last = |table: &str| -> Result<Option<i64>, Error> {
        let sql = format!("SELECT max(id) FROM {table} WHERE owner = ?1");
        Ok(conn.prepare_cached(&sql)?.query_row([owner], |row| row.get(0))?)
    };
    let mut probe = of(FRESH)?;
    let mut first = probe.query_row(params![owner, 0], id_and_time).optional()?;
    // Where no fresh row is from before, it is the first of those, or one of the others.
    let last = match first {
        Some((_, at)) if at < time => last(FRESH)?,
        _ => {
            probe = of(MAIN)?;
            first = probe.query_row(params![owner, 0], id_and_time).optional()?;
            last(MAIN)?
        }
    };
    let Some(last) = last else { return Ok(0) };
    let (mut low, mut high) = (first.map_or(0, |(id, _)| id), last.cast_unsigned() + 1);
    // Rows below `low` are from before; rows from `high` on are not.
    while low < high {
        let middle = low + (high - low) / 2;
        match probe.query_row(params![owner, signed(middle)], id_and_time).optional()? {
            Some((id, at)) if id < high && at < time => low = id + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

fn id_and_time(row: &rusqlite::Row<'_>) -> rusqlite::Result<(u64, Wall)> {
    let (id, at): (i64, i64) = (row.get(0)?, row.get(1)?);
    Ok((id.cast_unsigned(), Wall(at.cast_unsigned())))
}

/// As a column compares: what is above all that a row can have comes out as the highest.
fn signed(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

fn micros(time: Wall) -> i64 {
    signed(time.0)
}

fn number_of(conn: &Connection, jid: &str) -> Result<Option<i64>, Error> {
    let mut statement = conn.prepare_cached("SELECT id FROM jid WHERE text = ?1")?;
    Ok(statement.query_row([jid], |row| row.get(0)).optional()?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// However long an archive is: a page goes along one index from its first row to its last.
    #[test]
    fn no_page_sorts_or_passes_over_other_owners_rows() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("corefire.db");
        drop(super::super::open(&path).unwrap());
        let conn = super::super::connect(&path).unwrap();
        for (along, with_upto) in [
            (Along::Main, None),
            (Along::Main, Some(7)),
            (Along::Fresh, None),
            (Along::Fresh, Some(7)),
            (Along::Conversation, Some(7)),
        ] {
            let values = vec![Value::Integer(1), Value::Integer(2)];
            let mut filter = Filter { sql: String::new(), values, with_upto };
            for condition in [None, Some("at >= "), Some("resource = ")] {
                if let Some(condition) = condition {
                    filter.add(condition, Value::Integer(3));
                }
                let of = along.table();
                for sql in [
                    filter.rows(along, None),
                    format!("{} ORDER BY {of}.id", filter.rows(along, Some(ENTRY_COLUMNS))),
                    format!("{} ORDER BY {of}.id DESC", filter.rows(along, Some(ENTRY_COLUMNS))),
                ] {
                    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
                    let steps = statement.raw_query().mapped(|row| row.get::<_, String>(3));
                    let steps: Vec<String> = steps.map(Result::unwrap).collect();
                    let is_sought = |step: &String| step.starts_with("SEARCH ");
                    assert!(steps.iter().all(is_sought), "{sql}: {steps:?}");
                    let first = format!("SEARCH {of} USING PRIMARY KEY (owner=? AND ");
                    assert!(steps[0].starts_with(&first), "{sql}: {steps:?}");
                }
            }
        }
    }
}
