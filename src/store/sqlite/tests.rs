//! What only a file can do: reopening, schemas, damage, and death at any moment.
#![expect(clippy::unwrap_used, reason = "tests")]

mod conversations;
mod domains;
mod index;
mod older;

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;
use tempfile::TempDir;

use super::super::contract::{self, append, bare, create};
use super::super::{
    Answer, ArchiveQuery, Error, Keep, LogEntry, Query, Reader, Write, Writer, Written,
};
use super::schema::{self, MIGRATIONS, Migration};
use super::{Opened, SqliteReader, beside, check, checkpoint, connect, open};

const JULIET: &str = "juliet@example.org";

fn directory() -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("corefire.db");
    (directory, path)
}

fn ids(reader: &mut dyn Reader, owner: &str) -> Vec<u64> {
    let query = Query::Log { owner: bare(owner), after: 0, limit: u32::MAX };
    match reader.read(&query).unwrap() {
        Answer::Log { entries, .. } => entries.iter().map(|entry| entry.id).collect(),
        other => panic!("a log was asked for, not {other:?}"),
    }
}

#[test]
fn sqlite_keeps_the_contract() {
    let mut directories = Vec::new();
    contract::suite(&mut || {
        let (directory, path) = directory();
        directories.push(directory);
        let opened = open(&path).unwrap();
        (Box::new(opened.writer), Box::new(SqliteReader::open(&path).unwrap()))
    });
}

/// Both backends answer alike, whatever is asked in whatever order.
#[test]
fn sqlite_and_its_twin_in_memory_agree_on_random_batches() {
    for seed in 0..6 {
        let (_directory, path) = directory();
        let mut writer = open(&path).unwrap().writer;
        let mut reader = SqliteReader::open(&path).unwrap();
        contract::agrees_with_twin(seed, &mut writer, &mut reader);
    }
}

#[test]
fn everything_is_there_after_closing_and_opening_and_the_incarnation_rises() {
    let (_directory, path) = directory();
    for round in 1..=4u64 {
        let Opened { mut writer, incarnation, path: told } = open(&path).unwrap();
        assert_eq!((incarnation, &told), (round, &path));
        let expected = if round == 1 { Written::Done } else { Written::Exists };
        let written = writer.commit(&[create(JULIET), append(JULIET, round)]).unwrap();
        assert_eq!(written, [expected, Written::Done]);
        let mut reader = SqliteReader::open(&path).unwrap();
        assert_eq!(ids(&mut reader, JULIET), (1..=round).collect::<Vec<_>>());
    }
}

#[test]
fn the_writer_notices_what_another_connection_has_changed() {
    let (_directory, path) = directory();
    let mut first = open(&path).unwrap().writer;
    first.commit(&[create(JULIET), append(JULIET, 1)]).unwrap();
    let mut second = open(&path).unwrap().writer;
    second.commit(&[Write::DeleteAccount { owner: bare(JULIET) }]).unwrap();
    assert_eq!(first.commit(&[append(JULIET, 2)]).unwrap(), [Written::NoAccount]);
}

#[test]
fn only_the_user_of_the_server_may_read_the_files() {
    let (directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    writer.commit(&[create(JULIET)]).unwrap();
    let files: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(files.len(), 3, "the database, its WAL and the index of that");
    for file in files {
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    drop(writer);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    drop(open(&path).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn readers_cannot_write() {
    let (_directory, path) = directory();
    let opened = open(&path).unwrap();
    let reader = SqliteReader::open(&path).unwrap();
    assert!(reader.attempt_to_write().is_err());
    drop(opened);
}

fn opening_fails(path: &Path) -> String {
    match open(path) {
        Ok(_) => panic!("{} was opened", path.display()),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let (_directory, path) = directory();
    let garbage = b"this is certainly not a database, whatever its name says. ".repeat(200);
    std::fs::write(&path, &garbage).unwrap();
    let text = opening_fails(&path);
    assert!(text.contains("corefire.db") && text.contains("file is not a database"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), garbage);
    assert!(SqliteReader::open(&path).is_err());
}

#[test]
fn the_database_of_another_program_is_refused_and_left_alone() {
    let (_directory, path) = directory();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE cookies (value)").unwrap();
    let before = std::fs::read(&path).unwrap();
    let text = opening_fails(&path);
    assert!(text.contains("of another program"), "{text}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn a_path_that_cannot_be_had_is_told_with_its_reason() {
    let (directory, path) = directory();
    let text = opening_fails(&directory.path().join("absent/corefire.db"));
    assert!(text.contains("absent/corefire.db") && text.contains("No such file"), "{text}");
    assert!(opening_fails(directory.path()).contains("cannot open"), "a directory");
    assert!(SqliteReader::open(&path).is_err(), "a reader makes no file");
    assert!(!path.exists());
}

#[test]
fn a_damaged_database_is_reported_as_damaged_and_not_as_empty() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    writer.commit(&[create(JULIET)]).unwrap();
    writer.commit(&(1..2_000).map(|id| append(JULIET, id)).collect::<Vec<_>>()).unwrap();
    drop(writer);
    let whole = std::fs::read(&path).unwrap();
    assert!(whole.len() > 40 * 4096);

    // The tail is missing, as after a bad copy.
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(open(&path).map(drop), Err(Error::Damaged(_))));

    // The pages behind the first few are overwritten: seen when they are read.
    let mut bad = whole.clone();
    for byte in &mut bad[8 * 4096..] {
        *byte = 0x5A;
    }
    std::fs::write(&path, &bad).unwrap();
    let result = open(&path).and_then(|mut opened| {
        opened.writer.commit(&(3_000..3_100).map(|id| append(JULIET, id)).collect::<Vec<_>>())
    });
    assert!(matches!(result, Err(Error::Damaged(_))), "{result:?}");
}

#[test]
fn an_empty_or_missing_file_is_not_taken_for_a_new_database() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    writer.commit(&[create(JULIET)]).unwrap();
    // As kill -9 leaves it: what was committed is in the WAL.
    let copy = path.with_file_name("copy.db");
    for suffix in ["", "-wal"] {
        std::fs::copy(beside(&path, suffix), beside(&copy, suffix)).unwrap();
    }
    let whole = std::fs::read(&copy).unwrap();
    for bytes in [Some(&[][..]), None] {
        match bytes {
            Some(bytes) => std::fs::write(&copy, bytes).unwrap(),
            None => std::fs::remove_file(&copy).unwrap(),
        }
        assert!(matches!(open(&copy).map(drop), Err(Error::Damaged(_))));
    }
    std::fs::write(&copy, whole).unwrap();
    drop(open(&copy).unwrap());
    let mut reader = SqliteReader::open(&copy).unwrap();
    assert!(matches!(
        reader.read(&Query::Account { owner: bare(JULIET) }).unwrap(),
        Answer::Account(Some(_))
    ));
}

#[test]
fn a_start_that_ended_early_is_no_hindrance() {
    let (_directory, path) = directory();
    std::fs::write(beside(&path, ".new"), "half").unwrap();
    std::fs::write(beside(&path, ".new-wal"), "half").unwrap();
    assert_eq!(open(&path).unwrap().incarnation, 1);
    assert!(!beside(&path, ".new").exists() && !beside(&path, ".new-wal").exists());
}

#[test]
fn a_full_disk_is_told_as_such_and_the_writer_goes_on_after_reopening() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    writer.commit(&[create(JULIET), append(JULIET, 1)]).unwrap();
    writer.limit_pages(30);
    let large = vec![7; 400_000];
    let entry = contract::entry(2, JULIET, &large);
    let batch = [append(JULIET, 3), Write::AppendLog { owner: bare(JULIET), entry }];
    assert!(matches!(writer.commit(&batch), Err(Error::Full)));
    writer.reopen().unwrap();
    let mut reader = SqliteReader::open(&path).unwrap();
    assert_eq!(ids(&mut reader, JULIET), [1]);
    writer.commit(&batch).unwrap();
    assert_eq!(ids(&mut reader, JULIET), [1, 2, 3]);
}

const FIRST: Migration =
    Migration { number: 1, oldest: 1, sql: "CREATE TABLE one (a INTEGER) STRICT" };
const SECOND: Migration =
    Migration { number: 2, oldest: 1, sql: "ALTER TABLE one ADD COLUMN b INTEGER" };
const THIRD: Migration = Migration { number: 3, oldest: 3, sql: "DROP TABLE one" };
const BROKEN: Migration =
    Migration { number: 2, oldest: 1, sql: "CREATE TABLE two (a); CREATE TABLE one (a)" };

#[test]
fn migrations_run_once_in_order_and_say_who_may_still_use_the_database() {
    let (_directory, path) = directory();
    super::make(&path).unwrap();
    let mut conn = connect(&path).unwrap();
    assert_eq!(schema::migrate(&mut conn, &[FIRST]).unwrap(), 1);
    assert_eq!(schema::migrate(&mut conn, &[FIRST]).unwrap(), 1, "nothing to do");
    assert_eq!(schema::migrate(&mut conn, &[FIRST, SECOND]).unwrap(), 2);
    // The second step only added: the older program works on beside the newer.
    assert_eq!(schema::migrate(&mut conn, &[FIRST]).unwrap(), 2);
    assert_eq!(schema::migrate(&mut conn, &[FIRST, SECOND, THIRD]).unwrap(), 3);
    for known in [&[FIRST][..], &[FIRST, SECOND]] {
        let refused = schema::migrate(&mut conn, known);
        assert!(matches!(refused, Err(Error::TooNew { found: 3, .. })), "{refused:?}");
    }
}

#[test]
fn a_migration_that_fails_changes_nothing() {
    let (_directory, path) = directory();
    super::make(&path).unwrap();
    let mut conn = connect(&path).unwrap();
    schema::migrate(&mut conn, &[FIRST]).unwrap();
    assert!(schema::migrate(&mut conn, &[FIRST, BROKEN]).is_err());
    let tables: u32 = conn
        .query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'two'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(tables, 0);
    assert_eq!(schema::migrate(&mut conn, &[FIRST, SECOND]).unwrap(), 2);
}

#[test]
fn migrations_are_numbered_without_gaps() {
    for (number, step) in (1..).zip(MIGRATIONS) {
        assert_eq!(step.number, number);
        assert!(step.oldest <= number);
    }
}

/// However long the archive is: each of these goes along the index that holds its rows alone.
#[test]
fn what_is_pending_is_found_without_a_look_at_the_archive() {
    let (_directory, path) = directory();
    drop(open(&path).unwrap());
    let conn = connect(&path).unwrap();
    for (sql, index) in [
        (
            "SELECT count(*) FROM (SELECT 1 FROM entry WHERE owner = 1 AND pending = 1 LIMIT 9)",
            "entry_pending",
        ),
        (
            "DELETE FROM entry WHERE owner = 1 AND id = 2 AND pending = 1 AND archived = 0",
            "entry_pending",
        ),
        (
            "UPDATE entry SET pending = 0 WHERE owner = 1 AND id = 2 AND pending = 1",
            "entry_pending",
        ),
        ("DELETE FROM entry WHERE owner = 1 AND pending = 1", "entry_pending"),
        (
            "DELETE FROM entry WHERE owner = 1 AND row IN (SELECT row FROM archive_main WHERE owner = 1 \
             UNION ALL SELECT row FROM archive_fresh WHERE owner = 1)",
            "INTEGER PRIMARY KEY",
        ),
    ] {
        let steps = index::plan(&conn, sql);
        assert!(steps.iter().any(|step| step.contains(index)), "{sql}: {steps:?}");
    }
}

#[test]
fn a_database_of_a_newer_version_is_refused_with_both_versions_named() {
    let (_directory, path) = directory();
    drop(open(&path).unwrap());
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch("INSERT INTO migration (number, oldest) VALUES (90, 1)").unwrap();
    assert_eq!(open(&path).unwrap().incarnation, 2, "newer, but this version may use it");
    conn.execute_batch("INSERT INTO migration (number, oldest) VALUES (99, 99)").unwrap();
    let text = opening_fails(&path);
    assert!(text.contains("schema 99"), "{text}");
    assert!(matches!(SqliteReader::open(&path).map(drop), Err(Error::TooNew { found: 99, .. })));
}

#[test]
fn the_wal_comes_back_into_the_file_while_commits_go_on() {
    let (_directory, path) = directory();
    let mut writer = open(&path).unwrap().writer;
    let mut reader = SqliteReader::open(&path).unwrap();
    writer.commit(&[create(JULIET)]).unwrap();
    let body = vec![7; 200_000];
    let conn = connect(&path).unwrap();
    let mut written_max = 0;
    let mut restarts = 0;
    let mut before = 0;
    // Four times what the WAL should hold.
    for id in 1..=1_600 {
        let entry = contract::entry(id, JULIET, &body);
        writer.commit(&[Write::AppendLog { owner: bare(JULIET), entry }]).unwrap();
        let confirm = Write::ConfirmLog { owner: bare(JULIET), ids: vec![id] };
        writer.commit(&[confirm]).unwrap();
        let (_, wal) = checkpoint(&conn, "NOOP").unwrap();
        written_max = written_max.max(wal.written);
        restarts += u32::from(wal.written < before);
        before = wal.written;
    }
    assert!(restarts > 0, "the WAL started anew");
    assert!(written_max < 2 * super::WAL_PAGES, "{written_max} pages");
    assert!(ids(&mut reader, JULIET).is_empty());
}

/// Set for the child that is to be killed: the path of its database.
const CHILD: &str = "COREFIRE_TEST_STORE_CHILD";
/// How many batches the child commits before it ends by itself.
const CHILD_BATCHES: &str = "COREFIRE_TEST_STORE_BATCHES";
const OWNERS: [&str; 2] = ["juliet@example.org", "romeo@example.org"];
const BATCH: u64 = 20;

/// One that waits, and that stays in the archive.
fn kept(owner: &str, id: u64) -> Write {
    let entry = LogEntry {
        keep: Keep::Both,
        ..contract::entry(id, OWNERS[1], b"<message><body/></message>")
    };
    Write::AppendLog { owner: bare(owner), entry }
}

/// Not a test of its own: what the tests below run in a process of its own.
#[test]
fn child_that_commits_and_tells() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let batches = std::env::var(CHILD_BATCHES).map_or(u64::MAX, |count| count.parse().unwrap());
    let mut writer = open(Path::new(&path)).unwrap().writer;
    let mut out = std::io::stdout().lock();
    writer.commit(&[create(OWNERS[0]), create(OWNERS[1])]).unwrap();
    for _ in 0..batches {
        let count = u32::try_from(BATCH).unwrap();
        let written = writer.commit(&[Write::ReserveIds { partition: 0, count }]).unwrap();
        let [Written::Reserved { first }] = written[..] else { panic!("{written:?}") };
        let batch: Vec<Write> =
            (first..first + BATCH).flat_map(|id| OWNERS.map(|owner| kept(owner, id))).collect();
        writer.commit(&batch).unwrap();
        writeln!(out, "committed {first}").unwrap();
    }
}

fn child(command: &mut Command, path: &Path) -> std::process::Child {
    let name = concat!(module_path!(), "::child_that_commits_and_tells");
    let (_, name) = name.split_once("::").unwrap();
    command
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn what_was_acknowledged_survives_kill_9_and_batches_stay_whole() {
    let (_directory, path) = directory();
    let mut acknowledged = Vec::new();
    for round in 1..=4u64 {
        let mut child = child(&mut Command::new(std::env::current_exe().unwrap()), &path);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = 0;
        for line in lines {
            let line = line.unwrap();
            let Some((_, first)) = line.split_once("committed ") else { continue };
            let first: u64 = first.parse().unwrap();
            assert!(acknowledged.last().is_none_or(|last| first >= last + BATCH), "ids rise");
            acknowledged.push(first);
            told += 1;
            // Then reads what was told before it died.
            if told == 40 * round {
                child.kill().unwrap();
            }
        }
        assert!(!child.wait().unwrap().success());
        assert!(told >= 40 * round);

        let opened = open(&path).unwrap();
        assert_eq!(opened.incarnation, 2 * round);
        let mut reader = SqliteReader::open(&path).unwrap();
        let logs = OWNERS.map(|owner| ids(&mut reader, owner));
        assert_eq!(logs[0], logs[1], "both sides of each message");
        assert_eq!(conversations::with(&mut reader, OWNERS[0], OWNERS[1]), logs[0]);
        assert_eq!(check(&path, |_| 0).unwrap().problems, [""; 0]);
        let expected: Vec<u64> =
            acknowledged.iter().flat_map(|first| *first..first + BATCH).collect();
        let (known, unknown): (Vec<u64>, Vec<u64>) =
            logs[0].iter().partition(|id| expected.binary_search(id).is_ok());
        assert_eq!(known, expected, "all that was acknowledged");
        assert!(unknown.len() <= usize::try_from(BATCH * round).unwrap(), "{unknown:?}");
        assert_eq!(
            unknown.len() % usize::try_from(BATCH).unwrap(),
            0,
            "a whole batch: {unknown:?}"
        );
        drop(opened);
    }
}

/// A missing flush cannot be seen by killing a process, so they are counted.
#[test]
fn each_commit_is_flushed_once() {
    let (directory, path) = directory();
    let trace = directory.path().join("trace");
    let batches = 50usize;
    let mut command = Command::new("strace");
    command.args(["-f", "-e", "trace=fsync,fdatasync", "-o"]).arg(&trace);
    command.arg(std::env::current_exe().unwrap()).env(CHILD_BATCHES, batches.to_string());
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !traced.is_ok_and(|output| output.status.success()) {
        return; // No strace here, or it may not trace.
    }
    assert!(child(&mut command, &path).wait_with_output().unwrap().status.success());
    let flushes = std::fs::read_to_string(&trace).unwrap().matches("sync(").count();
    // Two commits a batch, and a few flushes for opening and closing.
    assert!((2 * batches..2 * batches + 25).contains(&flushes), "{flushes} flushes");
}
