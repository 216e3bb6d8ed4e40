//! Remote domains in a file: along which index they are found, what a check says of them, and what older programs leave.

use super::super::backup;
use super::super::reader::REMOTE_LOGS;
use super::*;

const DOMAIN: &str = "capulet.example";

fn domains(reader: &mut SqliteReader) -> Vec<String> {
    match reader.read(&Query::RemoteLogs { after: None, limit: 9 }).unwrap() {
        Answer::RemoteLogs(domains) => domains.iter().map(|jid| jid.to_string()).collect(),
        other => panic!("domains were asked for, not {other:?}"),
    }
}

/// However many accounts and correspondents there are.
#[test]
fn domains_with_rows_are_found_among_the_domains_alone() {
    let (_directory, path) = directory();
    drop(open(&path).unwrap());
    let asked = REMOTE_LOGS.replace("?1", "''").replace("?2", "9");
    let steps = index::plan(&connect(&path).unwrap(), &asked);
    assert!(
        steps[0].starts_with("SEARCH jid USING") && steps[0].contains("jid_domain"),
        "{steps:?}"
    );
    assert!(steps.iter().any(|step| step.contains("entry_pending (owner=?)")), "{steps:?}");
    assert!(
        !steps.iter().any(|step| step.contains("B-TREE") || step.contains("SCAN")),
        "{steps:?}"
    );
}

#[test]
fn rows_of_a_domain_are_in_no_index_of_archives() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    for id in 1..40 {
        writer.commit(&[append(DOMAIN, id), append("b.example", id)]).unwrap();
    }
    let conn = connect(&path).unwrap();
    let count = |table: &str| -> u32 {
        conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count("entry"), 78);
    for table in ["archive_main", "archive_fresh", "conversation", "conversation_upto", "account"] {
        assert_eq!(count(table), 0, "{table}");
    }
}

#[test]
fn a_check_finds_nothing_wrong_with_domains_but_what_is_wrong() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    writer.commit(&[Write::ReserveIds { partition: 0, count: 10 }]).unwrap();
    writer.commit(&[create(JULIET), append(JULIET, 1), append(DOMAIN, 2)]).unwrap();
    drop(writer);
    assert_eq!(check(&path, |_| 0).unwrap().problems, [""; 0]);
    let problems = |sql: &str| {
        let conn = Connection::open(&path).unwrap();
        conn.execute_batch(sql).unwrap();
        check(&path, |_| 0).unwrap().problems
    };
    let owner = format!("(SELECT id FROM jid WHERE text = '{DOMAIN}')");
    let found = problems(&format!("UPDATE entry SET archived = 1 WHERE owner = {owner}"));
    let told =
        "the message 2 of capulet.example is in the archive of a domain, which has none; copy all";
    assert!(found.iter().any(|line| line.starts_with(told)), "{found:?}");
    let found = problems(&format!("UPDATE entry SET archived = 0, id = 11 WHERE owner = {owner}"));
    let told =
        "the message 11 of capulet.example has an id that its partition 0 gives only from 11 on";
    assert!(found.len() == 1 && found[0].starts_with(told), "{found:?}");
    let found = problems(&format!("UPDATE entry SET id = 2, peer = 999 WHERE owner = {owner}"));
    assert!(found.iter().any(|line| line.contains("is from nobody")), "{found:?}");
}

#[test]
fn a_copy_has_the_rows_of_domains() {
    let (directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    writer.commit(&[create(JULIET), append(DOMAIN, 1), append(DOMAIN, 2)]).unwrap();
    let copy = directory.path().join("copy.db");
    backup(&path, &copy).unwrap();
    let mut reader = SqliteReader::open(&copy).unwrap();
    assert_eq!(
        (domains(&mut reader), ids(&mut reader, DOMAIN)),
        (vec![DOMAIN.to_owned()], vec![1, 2])
    );
}

/// A database from before: the domains that correspondents have are indexed, and none of them has rows.
#[test]
fn an_older_database_gets_its_index_of_domains() {
    let (_directory, path) = directory();
    super::super::make(&path).unwrap();
    let mut conn = connect(&path).unwrap();
    schema::migrate(&mut conn, &MIGRATIONS[..6]).unwrap();
    conn.execute_batch(
        "INSERT INTO jid (text) VALUES ('a.example'), ('juliet@example.org'), ('b.example')",
    )
    .unwrap();
    drop(conn);
    let mut writer = open(&path).unwrap().writer;
    let mut reader = SqliteReader::open(&path).unwrap();
    assert_eq!(domains(&mut reader), [""; 0]);
    writer.commit(&[append("b.example", 1)]).unwrap();
    assert_eq!(domains(&mut reader), ["b.example"]);
    // An older program that goes on with it keeps the index, and its own work disturbs no domain.
    let older = Connection::open(&path).unwrap();
    older
        .execute_batch(
            "INSERT INTO jid (text) VALUES ('c.example'); \
             DELETE FROM log WHERE owner = (SELECT id FROM jid WHERE text = 'juliet@example.org')",
        )
        .unwrap();
    writer.commit(&[append("c.example", 2)]).unwrap();
    assert_eq!(domains(&mut reader), ["b.example", "c.example"]);
    let problems = check(&path, |_| 0).unwrap().problems;
    assert!(problems.iter().all(|line| line.contains("an id that its partition")), "{problems:?}");
}
