//! What of the archive is with whom: whenever it was put in, and whoever took it out.

use super::*;
use crate::xmpp::jid::Jid;

const ROMEO: &str = "romeo@example.org";
const MERCUTIO: &str = "mercutio@example.org";

/// Ids of the archived rows of `owner` with `peer`.
pub(super) fn with(reader: &mut SqliteReader, owner: &str, peer: &str) -> Vec<u64> {
    let mut query = ArchiveQuery::all(bare(owner), u32::MAX);
    query.with = Some(Jid::parse(peer).unwrap());
    query.count_max = u32::MAX;
    match reader.read(&Query::Archive(Box::new(query))).unwrap() {
        Answer::Archive { entries, count, complete: true } => {
            assert_eq!(count, Some(entries.len() as u64));
            entries.iter().map(|entry| entry.id).collect()
        }
        other => panic!("all of it was asked for, not {other:?}"),
    }
}

fn archived(id: u64, peer: &str) -> Write {
    let entry = LogEntry {
        keep: Keep::Archived,
        ..contract::entry(id, peer, b"<message><body/></message>")
    };
    Write::AppendLog { owner: bare(JULIET), entry }
}

/// Up to which id there is something, and how many rows.
fn state(path: &Path) -> (u64, u32) {
    let conn = Connection::open(path).unwrap();
    let sql = "SELECT coalesce((SELECT id FROM conversation_upto), 0), count(*) FROM conversation";
    conn.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))).unwrap()
}

fn problems(path: &Path) -> Vec<String> {
    // None of the ids was reserved.
    let problems = check(path, |_| 0).unwrap().problems;
    problems.into_iter().filter(|line| !line.contains("gives only from 1 on")).collect()
}

#[test]
fn rows_are_put_in_when_there_are_enough_and_found_before_and_after() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    let mut reader = SqliteReader::open(&path).unwrap();
    writer.commit(&[create(JULIET)]).unwrap();
    for id in 1..=23 {
        let peer = if id % 10 == 2 { MERCUTIO } else { ROMEO };
        writer.commit(&[archived(id, peer)]).unwrap();
        let upto = id / 5 * 5;
        assert_eq!(state(&path), (upto, u32::try_from(upto).unwrap()));
        let expected: Vec<u64> = [2, 12, 22].into_iter().filter(|rare| *rare <= id).collect();
        assert_eq!(with(&mut reader, JULIET, MERCUTIO), expected);
        // Another writer counts what is behind for itself.
        if id == 13 {
            drop(writer);
            writer = open(&path).unwrap().writer;
        }
    }
    assert_eq!(problems(&path), [""; 0]);
}

#[test]
fn what_a_batch_that_failed_put_in_is_not_there() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    let mut reader = SqliteReader::open(&path).unwrap();
    writer.commit(&[create(JULIET)]).unwrap();
    writer.commit(&(1..=4).map(|id| archived(id, MERCUTIO)).collect::<Vec<_>>()).unwrap();
    writer.limit_pages(60);
    let large = contract::entry(20, MERCUTIO, &[7; 400_000]);
    let mut batch: Vec<Write> = (5..=19).map(|id| archived(id, MERCUTIO)).collect();
    batch.push(Write::AppendLog { owner: bare(JULIET), entry: large });
    assert!(matches!(writer.commit(&batch), Err(Error::Full)));
    assert_eq!((state(&path), with(&mut reader, JULIET, MERCUTIO)), ((0, 0), vec![1, 2, 3, 4]));
    writer.reopen().unwrap();
    writer.commit(&batch).unwrap();
    assert_eq!(state(&path), (15, 15));
    writer.commit(&batch).unwrap();
    assert_eq!(with(&mut reader, JULIET, MERCUTIO), (1..=19).collect::<Vec<_>>());
    assert_eq!(problems(&path), [""; 0]);
}

/// It raises the incarnation, and what it did to an archive is not known.
#[test]
fn after_an_older_program_all_is_put_in_anew() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    writer.commit(&[create(JULIET)]).unwrap();
    let peer = |id| if id % 2 == 0 { MERCUTIO } else { ROMEO };
    writer.commit(&(10..=29).map(|id| archived(id, peer(id))).collect::<Vec<_>>()).unwrap();
    drop(writer);
    let conn = Connection::open(&path).unwrap();
    let kept: bool = conn
        .query_row("SELECT conversations = incarnation FROM node", [], |row| row.get(0))
        .unwrap();
    assert!(kept);
    conn.execute_batch(
        "UPDATE node SET incarnation = incarnation + 1;
         INSERT INTO entry (owner, id, peer, at, incarnation, link, number, open_end, close_start, stanza, resource, \
                            pending, archived) \
         SELECT owner, 4, (SELECT id FROM jid WHERE text = 'mercutio@example.org'), 1, 1, 1, 1, 0, 1, x'2020', '', 0, 1 \
         FROM account;
         INSERT INTO archive_main (owner, id, peer, row) \
         SELECT owner, id, peer, row FROM entry WHERE row = last_insert_rowid();
         DELETE FROM entry WHERE id = 10;
         UPDATE entry SET archived = 0, pending = 1 WHERE id = 12;
         DELETE FROM archive_main WHERE id IN (10, 12);
         DELETE FROM archive_fresh WHERE id IN (10, 12)",
    )
    .unwrap();
    drop(conn);
    assert_eq!(state(&path), (29, 18), "what was taken out is gone at once");
    let opened = open(&path).unwrap();
    let mut reader = SqliteReader::open(&path).unwrap();
    assert_eq!(with(&mut reader, JULIET, MERCUTIO), [4, 14, 16, 18, 20, 22, 24, 26, 28]);
    assert_eq!((state(&path), problems(&path)), ((29, 19), vec![]));
    drop(opened);
}

#[test]
fn the_archive_of_an_older_version_is_put_in_when_it_is_opened() {
    let (_directory, path) = directory();
    super::super::make(&path).unwrap();
    let mut conn = connect(&path).unwrap();
    schema::migrate(&mut conn, &MIGRATIONS[..4]).unwrap();
    conn.execute_batch(
        "INSERT INTO jid (id, text) VALUES (1, 'juliet@example.org'), (2, 'mercutio@example.org');
         INSERT INTO account VALUES (1, 0, 0, 1, x'', x'', x'', 1, x'', x'', x'', NULL, NULL, NULL, NULL);
         INSERT INTO entry VALUES (1, 1, 9, 2, 5, 3, 4, 6, 1, 2, x'6161', '', 1, 1),
                                  (2, 1, 7, 2, 6, 3, 4, 7, 1, 2, x'6262', '', 0, 1),
                                  (3, 1, 8, 2, 6, 3, 4, 7, 1, 2, x'6262', '', 1, 0)",
    )
    .unwrap();
    drop(conn);
    assert_eq!(problems(&path), [""; 0], "before it is opened");
    let opened = open(&path).unwrap();
    assert_eq!(state(&path), (9, 2));
    let mut reader = SqliteReader::open(&path).unwrap();
    assert_eq!(with(&mut reader, JULIET, MERCUTIO), [7, 9]);
    assert_eq!(problems(&path), [""; 0]);
    drop(opened);
}

#[test]
fn raised_counters_and_copies_do_not_make_it_anew() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    let counters = crate::store::Counters { next_ids: Vec::new(), incarnation: 77 };
    writer.commit(&[create(JULIET), Write::RaiseCounters { counters }]).unwrap();
    writer.commit(&(1..=5).map(|id| archived(id, ROMEO)).collect::<Vec<_>>()).unwrap();
    drop(writer);
    let copy = path.with_file_name("copy.db");
    super::super::backup(&path, &copy).unwrap();
    for path in [path, copy] {
        let conn = Connection::open(&path).unwrap();
        // Would not be there after that.
        conn.execute_batch("DELETE FROM conversation WHERE id = 3").unwrap();
        drop(open(&path).unwrap());
        assert_eq!(state(&path), (5, 4));
    }
}

#[test]
fn a_conversation_that_lacks_a_message_or_has_another_is_told() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    writer.commit(&[create(JULIET), create(ROMEO)]).unwrap();
    writer.commit(&(1..=7).map(|id| archived(id, ROMEO)).collect::<Vec<_>>()).unwrap();
    let entry = LogEntry {
        keep: Keep::Archived,
        ..contract::entry(3, JULIET, b"<message><body/></message>")
    };
    writer.commit(&[Write::AppendLog { owner: bare(ROMEO), entry }]).unwrap();
    drop(writer);
    assert_eq!(problems(&path), [""; 0]);
    for (sql, told) in [
        ("DELETE FROM conversation WHERE id = 3", "the message 3 of juliet@example.org is missing"),
        (
            "INSERT INTO conversation SELECT owner, peer, 9, row + 1 FROM conversation WHERE id = 5",
            "the message 9",
        ),
        ("UPDATE conversation SET row = 99 WHERE id = 2", "the message 2"),
        ("UPDATE conversation_upto SET id = 4", "the message 5"),
    ] {
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(&format!("SAVEPOINT all_of_it; {sql}; RELEASE all_of_it")).unwrap();
        let found = problems(&path);
        assert!(found.iter().any(|line| line.contains(told)), "{sql}: {found:?}");
        // Puts it in order again.
        conn.execute_batch("UPDATE node SET conversations = 0").unwrap();
        drop(open(&path).unwrap());
        assert_eq!(problems(&path), [""; 0]);
    }
    // A row that leads to another's message leads nowhere.
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("UPDATE conversation SET row = (SELECT max(row) FROM entry) WHERE id = 2")
        .unwrap();
    let mut reader = SqliteReader::open(&path).unwrap();
    let mut query = ArchiveQuery::all(bare(JULIET), 9);
    query.with = Some(Jid::parse(ROMEO).unwrap());
    match reader.read(&Query::Archive(Box::new(query))).unwrap() {
        Answer::Archive { entries, .. } => {
            assert!(entries.iter().all(|entry| entry.with != Jid::parse(JULIET).unwrap()))
        }
        other => panic!("a page was asked for, not {other:?}"),
    }
}
