//! An older program on a database of this one: what it may do, and what it left.

use super::*;
use crate::base::instant::Wall;
use crate::store::Origin;

#[test]
fn a_password_that_an_older_program_changes_leaves_no_key_of_the_old_one() {
    let (_directory, path) = directory();
    open(&path).unwrap().writer.commit(&[create(JULIET)]).unwrap();
    // The statement of version 0.1.
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("UPDATE account SET sha1_stored_key = x'01', sha256_stored_key = x'02'")
        .unwrap();
    let mut reader = SqliteReader::open(&path).unwrap();
    let Answer::Account(Some(account)) =
        reader.read(&Query::Account { owner: bare(JULIET) }).unwrap()
    else {
        panic!("the account is there");
    };
    assert_eq!(account.credentials.sha256.stored_key, [2]);
    assert_eq!(account.credentials.sha512, None);
}

/// What an older program runs beside the archive: the statements of version 0.1.
#[test]
fn an_older_program_sees_the_pending_rows_alone_and_works_with_them() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    let row = |id, keep| Write::AppendLog {
        owner: bare(JULIET),
        entry: LogEntry { keep, ..contract::entry(id, "romeo@example.org/a", b"x") },
    };
    writer.commit(&[create(JULIET), create("romeo@example.org")]).unwrap();
    writer.commit(&[row(1, Keep::Archived), row(2, Keep::Both), row(3, Keep::Both)]).unwrap();
    let conn = Connection::open(&path).unwrap();
    let owner = "(SELECT id FROM jid WHERE text = 'juliet@example.org')";
    let pending = || {
        let sql = format!("SELECT count(*) FROM log WHERE log.owner = {owner} AND log.id > 1");
        conn.query_row(&sql, [], |row| row.get::<_, u32>(0)).unwrap()
    };
    assert_eq!(pending(), 2);
    for id in [3, 4, 4] {
        conn.execute_batch(&format!(
            "INSERT INTO log (owner, id, peer, at, incarnation, link, number, open_end, close_start, stanza) \
             SELECT {owner}, {id}, {owner}, 1, 1, 1, 1, 1, 1, x'00' \
             WHERE NOT EXISTS (SELECT 1 FROM log WHERE owner = {owner} AND id = {id})"
        ))
        .unwrap();
    }
    assert_eq!(pending(), 3);
    for id in [2, 4] {
        conn.execute_batch(&format!("DELETE FROM log WHERE owner = {owner} AND id = {id}"))
            .unwrap();
    }
    let mut reader = SqliteReader::open(&path).unwrap();
    assert_eq!(ids(&mut reader, JULIET), [3]);
    let archive = |reader: &mut SqliteReader| {
        let query = Query::Archive(Box::new(ArchiveQuery::all(bare(JULIET), 9)));
        match reader.read(&query).unwrap() {
            Answer::Archive { entries, .. } => entries.iter().map(|entry| entry.id).collect(),
            other => panic!("a page was asked for, not {other:?}"),
        }
    };
    let expected: Vec<u64> = vec![1, 2, 3];
    assert_eq!(archive(&mut reader), expected);
    // It deletes the account: nothing is left to the next of that name.
    conn.execute_batch(&format!(
        "DELETE FROM log WHERE owner = {owner}; DELETE FROM account WHERE owner = {owner}"
    ))
    .unwrap();
    writer.commit(&[create(JULIET)]).unwrap();
    assert_eq!((archive(&mut reader), ids(&mut reader, JULIET)), (vec![], vec![]));
}

#[test]
fn what_an_older_program_left_pending_is_pending() {
    let (_directory, path) = directory();
    super::super::make(&path).unwrap();
    let mut conn = connect(&path).unwrap();
    schema::migrate(&mut conn, &MIGRATIONS[..2]).unwrap();
    conn.execute_batch(
        "INSERT INTO jid (id, text) VALUES (1, 'juliet@example.org'), (2, 'romeo@example.org');
         INSERT INTO account VALUES (1, 0, 0, 1, x'', x'', x'', 1, x'', x'', x'', NULL, NULL, NULL, NULL);
         INSERT INTO log VALUES (1, 1, 7, 2, 5, 3, 4, 6, 1, 2, x'61'), (2, 1, 9, 2, 6, 3, 4, 7, 1, 2, x'62')",
    )
    .unwrap();
    drop(conn);
    let mut writer = open(&path).unwrap().writer;
    let mut reader = SqliteReader::open(&path).unwrap();
    assert_eq!(ids(&mut reader, JULIET), [7, 9]);
    let query = Query::Log { owner: bare(JULIET), after: 0, limit: 1 };
    let Answer::Log { entries, .. } = reader.read(&query).unwrap() else { panic!("a log") };
    let expected = LogEntry {
        at: Wall(5),
        origin: Origin { incarnation: 3, link: 4, number: 6 },
        open_end: 1,
        close_start: 2,
        ..contract::entry(7, "romeo@example.org", b"a")
    };
    assert_eq!(entries, [expected]);
    writer.commit(&[Write::ConfirmLog { owner: bare(JULIET), ids: vec![7] }]).unwrap();
    assert_eq!(ids(&mut reader, JULIET), [9]);
}
