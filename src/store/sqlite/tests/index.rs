//! The index of the archive in its two tables: whatever was carried over so far, and whenever the process ends.

use super::super::SqliteWriter;
use super::*;
use crate::store::Page;
use crate::xmpp::jid::Jid;

const ROMEO: &str = "romeo@example.org";
const MERCUTIO: &str = "mercutio@example.org";

/// Behind whom the large table has others, before whom too.
const OWNERS: [&str; 3] = ["juliet@example.org", "nurse@example.org", "tybalt@example.org"];

fn archived(owner: &str, id: u64) -> Write {
    let peer = if id.is_multiple_of(7) { MERCUTIO } else { ROMEO };
    let entry = contract::entry(id, peer, b"<message><body/></message>");
    Write::AppendLog { owner: bare(owner), entry: LogEntry { keep: Keep::Archived, ..entry } }
}

/// A database whose owners have so many messages each, one from each commit.
fn filled(each: u64) -> (TempDir, PathBuf, SqliteWriter, SqliteReader) {
    let (directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    writer.commit(&OWNERS.map(create)).unwrap();
    for id in 1..=each {
        writer.commit(&OWNERS.map(|owner| archived(owner, id))).unwrap();
    }
    let reader = SqliteReader::open(&path).unwrap();
    (directory, path, writer, reader)
}

fn shown(reader: &mut SqliteReader, query: ArchiveQuery) -> Vec<u64> {
    match reader.read(&Query::Archive(Box::new(query))).unwrap() {
        Answer::Archive { entries, .. } => entries.iter().map(|entry| entry.id).collect(),
        other => panic!("a page was asked for, not {other:?}"),
    }
}

/// Pages through all of an archive, each way, and asks for the rest of what can be asked.
fn assert_archive(reader: &mut SqliteReader, owner: &str, expected: &[u64]) {
    for max in [1, 3, 100] {
        let query = |page| ArchiveQuery { page, ..ArchiveQuery::all(bare(owner), max) };
        let (mut forward, mut back) = (Vec::new(), Vec::new());
        loop {
            let page = shown(reader, query(Page::After(forward.last().copied().unwrap_or(0))));
            if page.is_empty() {
                break;
            }
            forward.extend(page);
        }
        loop {
            let page = shown(reader, query(Page::Before(back.last().copied().unwrap_or(u64::MAX))));
            if page.is_empty() {
                break;
            }
            back.extend(page.iter().rev());
        }
        back.reverse();
        assert_eq!((forward.as_slice(), back.as_slice()), (expected, expected));
    }
    let of = |change: &dyn Fn(&mut ArchiveQuery)| {
        let mut query = ArchiveQuery::all(bare(owner), 100);
        change(&mut query);
        query
    };
    let rare: Vec<u64> = expected.iter().copied().filter(|id| id.is_multiple_of(7)).collect();
    let with = |query: &mut ArchiveQuery| query.with = Some(Jid::parse(MERCUTIO).unwrap());
    assert_eq!(shown(reader, of(&with)), rare);
    for id in expected {
        let at = contract::entry(*id, ROMEO, b"").at;
        let (before, since): (Vec<u64>, Vec<u64>) = expected.iter().partition(|other| *other < id);
        assert_eq!(shown(reader, of(&|query| query.start = Some(at))), since);
        let end = crate::base::instant::Wall(at.0 - 1);
        assert_eq!(shown(reader, of(&|query| query.end = Some(end))), before);
        assert_eq!(shown(reader, of(&|query| query.ids = Some(vec![*id, id + 1_000]))), [*id]);
    }
    let counting = of(&|query| query.count_max = 1_000);
    match reader.read(&Query::Archive(Box::new(counting))).unwrap() {
        Answer::Archive { count, .. } => assert_eq!(count, Some(expected.len() as u64)),
        other => panic!("a page was asked for, not {other:?}"),
    }
    match reader.read(&Query::ArchiveEnds { owner: bare(owner), up_to: u64::MAX }).unwrap() {
        Answer::ArchiveEnds(ends) => assert_eq!(
            ends.map(|ends| (ends.first.0, ends.last.0)),
            expected.first().copied().zip(expected.last().copied())
        ),
        other => panic!("the ends were asked for, not {other:?}"),
    }
}

/// Rows in either table.
fn rows(path: &Path) -> (u32, u32) {
    let conn = Connection::open(path).unwrap();
    let sql = "SELECT (SELECT count(*) FROM archive_main), (SELECT count(*) FROM archive_fresh)";
    conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

fn problems(path: &Path) -> Vec<String> {
    // None of the ids was reserved.
    let problems = check(path, |_| 0).unwrap().problems;
    problems.into_iter().filter(|line| !line.contains("gives only from 1 on")).collect()
}

/// As kill -9 leaves it: what was committed is in the WAL.
fn killed(path: &Path) -> PathBuf {
    let copy = path.with_file_name("killed.db");
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(beside(&copy, suffix));
    }
    for suffix in ["", "-wal"] {
        std::fs::copy(beside(path, suffix), beside(&copy, suffix)).unwrap();
    }
    copy
}

#[test]
fn pages_are_the_same_at_each_step_and_after_each_death() {
    let (_directory, path, mut writer, mut reader) = filled(0);
    let mut fresh_max = 0;
    for id in 1..=24 {
        writer.commit(&OWNERS.map(|owner| archived(owner, id))).unwrap();
        let expected: Vec<u64> = (1..=id).collect();
        let copy = killed(&path);
        let mut again = open(&copy).unwrap().writer;
        let mut rereader = SqliteReader::open(&copy).unwrap();
        assert_eq!(rows(&copy), rows(&path));
        for owner in OWNERS {
            assert_archive(&mut reader, owner, &expected);
            assert_archive(&mut rereader, owner, &expected);
        }
        // It goes on from there, with what has not been carried yet.
        again.commit(&OWNERS.map(|owner| archived(owner, id + 1))).unwrap();
        let expected: Vec<u64> = (1..=id + 1).collect();
        OWNERS.iter().for_each(|owner| assert_archive(&mut rereader, owner, &expected));
        assert_eq!((problems(&path), problems(&copy)), (vec![], vec![]));
        let (main, fresh) = rows(&path);
        assert_eq!(u64::from(main + fresh), 3 * id);
        fresh_max = fresh_max.max(fresh);
    }
    // Its bound, what is not worth a step, and what a commit appends.
    assert!(fresh_max <= 6 + 2 + 3, "{fresh_max} rows are fresh");
    assert!(rows(&path).0 > 50, "the rest was carried over");
}

#[test]
fn nothing_is_carried_while_there_is_little() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    writer.commit(&[create(OWNERS[0])]).unwrap();
    for id in 1..=7 {
        writer.commit(&[archived(OWNERS[0], id)]).unwrap();
        assert_eq!(rows(&path), (0, u32::try_from(id).unwrap()));
    }
    writer.commit(&[archived(OWNERS[0], 8)]).unwrap();
    assert_eq!(rows(&path), (2, 6));
}

#[test]
fn a_row_that_comes_late_goes_where_its_neighbours_are() {
    let (_directory, path, mut writer, mut reader) = filled(0);
    let mut expected = Vec::new();
    // Upwards by tens, and each time one in the midst of what is there.
    for step in 1..=20 {
        let late = step * 37 % (step * 10) + 1;
        for id in [step * 10, late] {
            writer.commit(&OWNERS.map(|owner| archived(owner, id))).unwrap();
            expected.push(id);
        }
        expected.sort_unstable();
        expected.dedup();
        OWNERS.iter().for_each(|owner| assert_archive(&mut reader, owner, &expected));
        assert_eq!(problems(&path), [""; 0]);
        if step % 6 == 0 {
            writer.reopen().unwrap();
        }
    }
    // All of it again: nothing is doubled.
    let again: Vec<Write> = expected.iter().map(|id| archived(OWNERS[1], *id)).collect();
    writer.commit(&again).unwrap();
    assert_archive(&mut reader, OWNERS[1], &expected);
    assert_eq!(problems(&path), [""; 0]);
}

#[test]
fn rows_go_from_either_table_while_others_are_carried() {
    let (_directory, path, mut writer, mut reader) = filled(0);
    let mut oldest = 1;
    for id in 1..=30 {
        let prune = Write::PruneArchive {
            owner: bare(OWNERS[0]),
            before: contract::entry(0, ROMEO, b"").at,
            keep: 4,
            limit: 3,
        };
        let mut batch = OWNERS.map(|owner| archived(owner, id)).to_vec();
        batch.push(prune);
        if id == 15 {
            batch.push(Write::DeleteAccount { owner: bare(OWNERS[1]) });
            batch.push(create(OWNERS[1]));
        }
        writer.commit(&batch).unwrap();
        oldest = oldest.max(id.saturating_sub(3));
        let expected = |from| (from..=id).collect::<Vec<_>>();
        assert_archive(&mut reader, OWNERS[0], &expected(oldest));
        assert_archive(&mut reader, OWNERS[1], &expected(if id < 15 { 1 } else { 16 }));
        assert_archive(&mut reader, OWNERS[2], &expected(1));
        assert_eq!(problems(&path), [""; 0]);
    }
    // Down to nothing; and the count of what is fresh is still right.
    writer.commit(&OWNERS.map(|owner| Write::DeleteAccount { owner: bare(owner) })).unwrap();
    assert_eq!(rows(&path), (0, 0));
    writer.commit(&[create(OWNERS[0])]).unwrap();
    writer.commit(&(1..=7).map(|id| archived(OWNERS[0], id)).collect::<Vec<_>>()).unwrap();
    assert_eq!(rows(&path), (0, 7));
}

#[test]
fn a_batch_that_failed_has_carried_nothing() {
    let (_directory, path, mut writer, mut reader) = filled(9);
    let before = rows(&path);
    writer.limit_pages(60);
    let large = contract::entry(11, ROMEO, &[7; 400_000]);
    let large = LogEntry { keep: Keep::Archived, ..large };
    let mut batch = OWNERS.map(|owner| archived(owner, 10)).to_vec();
    batch.push(Write::AppendLog { owner: bare(OWNERS[2]), entry: large });
    assert!(matches!(writer.commit(&batch), Err(Error::Full)));
    assert_eq!(rows(&path), before);
    writer.reopen().unwrap();
    writer.commit(&batch).unwrap();
    assert_archive(&mut reader, OWNERS[0], &(1..=10).collect::<Vec<_>>());
    assert_eq!(
        (shown(&mut reader, ArchiveQuery::all(bare(OWNERS[2]), 99)).len(), problems(&path)),
        (11, vec![])
    );
}

#[test]
fn an_index_that_lacks_a_message_or_has_another_is_told() {
    let (_directory, path, writer, reader) = filled(9);
    drop((writer, reader));
    assert_eq!(problems(&path), [""; 0]);
    let conn = Connection::open(&path).unwrap();
    for (sql, told) in [
        (
            "DELETE FROM archive_main WHERE id = (SELECT max(id) FROM archive_main)",
            "is missing in the index of its archive",
        ),
        ("DELETE FROM archive_fresh", "is missing in the index of its archive"),
        ("UPDATE archive_fresh SET peer = 99", "is missing in the index of its archive"),
        (
            "DELETE FROM entry WHERE row = (SELECT min(row) FROM archive_main)",
            "the message 1 of juliet@example.org is in the index of an archive in which it is not",
        ),
        (
            "UPDATE entry SET archived = 0, pending = 1 WHERE row = (SELECT max(row) FROM archive_fresh)",
            "the message 9 of tybalt@example.org is in the index of an archive in which it is not",
        ),
        (
            "INSERT INTO archive_main SELECT * FROM archive_fresh WHERE id = 9",
            "is in the index of its archive twice",
        ),
        (
            "INSERT INTO archive_fresh SELECT * FROM archive_main WHERE id = 1",
            "is in the index of its archive twice, or behind newer ones",
        ),
    ] {
        conn.execute_batch("BEGIN").unwrap();
        assert_ne!(conn.execute(sql, []).unwrap(), 0, "{sql}");
        conn.execute_batch("COMMIT").unwrap();
        let found = problems(&path);
        assert!(found.iter().any(|line| line.contains(told)), "{sql}: {found:?}");
        // Puts it in order again, all in one table.
        conn.execute_batch(
            "DELETE FROM archive_main; DELETE FROM archive_fresh;
             UPDATE entry SET archived = 1, pending = 0;
             INSERT INTO archive_main SELECT owner, id, peer, row FROM entry WHERE id < 5;
             INSERT INTO archive_fresh SELECT owner, id, peer, row FROM entry WHERE id >= 5;
             UPDATE node SET conversations = -1",
        )
        .unwrap();
        drop(open(&path).unwrap());
        assert_eq!(problems(&path), [""; 0], "{sql}");
    }
}

/// A row of the index that leads to another's message leads nowhere.
#[test]
fn nobody_reads_anothers_message_whatever_the_index_says() {
    let (_directory, path, _writer, mut reader) = filled(9);
    let conn = Connection::open(&path).unwrap();
    for table in ["archive_main", "archive_fresh"] {
        conn.execute_batch(&format!(
            "UPDATE {table} SET row = (SELECT max(row) FROM entry) \
             WHERE owner = (SELECT id FROM jid WHERE text = 'juliet@example.org')"
        ))
        .unwrap();
    }
    assert_eq!(shown(&mut reader, ArchiveQuery::all(bare(OWNERS[0]), 99)), [0; 0]);
}

#[test]
fn the_index_of_an_older_version_is_taken_over() {
    let (_directory, path) = directory();
    super::super::make(&path).unwrap();
    let mut conn = connect(&path).unwrap();
    schema::migrate(&mut conn, &MIGRATIONS[..5]).unwrap();
    conn.execute_batch(
        "INSERT INTO jid (id, text) VALUES (1, 'juliet@example.org'), (2, 'romeo@example.org');
         INSERT INTO account VALUES (1, 0, 0, 1, x'', x'', x'', 1, x'', x'', x'', NULL, NULL, NULL, NULL),
                                    (2, 0, 0, 1, x'', x'', x'', 1, x'', x'', x'', NULL, NULL, NULL, NULL);
         WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 40)
         INSERT INTO entry SELECT n, 1 + n % 2, 100 - n, 2 - n % 2, 1, 1, 1, n, 1, 2, x'6161', '', n % 3 = 0, n % 3 <> 1
         FROM n WHERE n % 3 <> 1 OR n % 3 = 0",
    )
    .unwrap();
    drop(conn);
    assert_eq!(problems(&path), [""; 0], "before it is opened");
    let mut writer = open(&path).unwrap().writer;
    let mut reader = SqliteReader::open(&path).unwrap();
    assert_eq!((rows(&path), problems(&path)), ((26, 0), vec![]));
    let mut expected: Vec<u64> =
        (1..=40).filter(|n| n % 3 != 1 && n % 2 == 0).map(|n| 100 - n).collect();
    expected.sort_unstable();
    assert_archive_ids(&mut reader, &expected);
    writer.commit(&[archived(OWNERS[0], 200), archived(OWNERS[0], 1)]).unwrap();
    expected.insert(0, 1);
    expected.push(200);
    assert_archive_ids(&mut reader, &expected);
    assert_eq!((rows(&path), problems(&path)), ((27, 1), vec![]));
}

/// Forward and back, without a look at times.
fn assert_archive_ids(reader: &mut SqliteReader, expected: &[u64]) {
    for page in [Page::After(0), Page::Before(u64::MAX)] {
        let query = ArchiveQuery { page, ..ArchiveQuery::all(bare(OWNERS[0]), 99) };
        assert_eq!(shown(reader, query), expected);
    }
}

/// Both tables are read side by side where one order is asked of both: nothing is gathered and sorted.
#[test]
fn no_statement_over_both_tables_sorts() {
    let (_directory, path) = directory();
    drop(open(&path).unwrap());
    let conn = connect(&path).unwrap();
    let of = |columns, condition| super::super::index::both(columns, condition);
    for sql in [
        format!(
            "SELECT end.id, at FROM ({} ORDER BY id DESC LIMIT 1) AS end \
             CROSS JOIN entry ON entry.row = end.row AND entry.owner = 1",
            of("id, row", "owner = 1 AND id <= 9")
        ),
        format!("{} ORDER BY id DESC LIMIT 1 OFFSET 100", of("id", "owner = 1")),
        format!(
            "SELECT max(id), count(*) FROM ({} ORDER BY id LIMIT 9)",
            of("id", "owner = 1 AND id > 2")
        ),
        format!("{} ORDER BY id", of("owner, peer, id, row", "owner = 1 AND id > 2 AND id <= 3")),
        format!(
            "SELECT owner, max(id) FROM ({} ORDER BY owner, id) GROUP BY owner",
            of("owner, peer, id, row", "true")
        ),
        "SELECT owner, id, peer, row FROM archive_fresh \
         WHERE owner >= 1 AND (owner, id) < (2, 3) ORDER BY owner, id"
            .to_owned(),
    ] {
        let steps = plan(&conn, &sql);
        let is_along = |step: &String| step.contains("TEMP B-TREE");
        assert!(!steps.iter().any(is_along), "{sql}: {steps:?}");
        let is_found = |step: &String| {
            !step.contains("archive_")
                || step.contains("PRIMARY KEY")
                || !sql.contains("WHERE owner")
        };
        assert!(steps.iter().all(is_found), "{sql}: {steps:?}");
    }
}

pub(super) fn plan(conn: &Connection, sql: &str) -> Vec<String> {
    let mut statement = conn.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    statement.query_map([], |row| row.get(3)).unwrap().map(Result::unwrap).collect()
}
