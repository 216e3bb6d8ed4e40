//! A filled store goes to PostgreSQL and comes back, and is what it was.

use super::super::super::memory::MemoryStore;
use super::super::super::sqlite::{self, SqliteReader};
use super::super::super::{Answer, Query, Reader, Writer, transfer};
use super::super::PostgresReader;
use super::{QUICK, Server, open, settings};

/// Copies all of `from`, and compares.
fn moved(from: &mut dyn Reader, writer: &mut dyn Writer, to: &mut dyn Reader) {
    let copied = transfer::copy(from, writer, to, &mut |_| ()).unwrap();
    let comparison = transfer::compare(from, to).unwrap();
    assert_eq!((comparison.differences, &comparison.told), (0, &Vec::new()));
    assert_eq!((&comparison.from, &comparison.to), (&copied, &copied));
    assert!(copied.values().all(|count| *count > 0), "{copied:?}");
}

#[test]
fn a_filled_store_moves_to_postgres_and_back_and_is_the_same() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "moved");
    let dir = tempfile::tempdir().unwrap();
    let (here, back) = (dir.path().join("here.db"), dir.path().join("back.db"));
    let mut filled = sqlite::open(&here).unwrap().writer;
    transfer::tests::fill(&mut filled);
    let mut here = SqliteReader::open(&here).unwrap();
    let mut writer = open(&settings);
    let mut there = PostgresReader::open(&settings).unwrap();
    moved(&mut here, &mut writer, &mut there);

    let mut returned = sqlite::open(&back).unwrap().writer;
    let mut back = SqliteReader::open(&back).unwrap();
    moved(&mut there, &mut returned, &mut back);
    assert_eq!(transfer::compare(&mut here, &mut back).unwrap().differences, 0);

    // And to a third kind, from what it was at first.
    let memory = MemoryStore::new();
    moved(&mut here, &mut memory.open().0, &mut memory.reader());
    assert_eq!(transfer::compare(&mut memory.reader(), &mut there).unwrap().differences, 0);
}

#[test]
fn while_held_postgres_shows_one_moment_and_a_lost_one_is_an_error() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "held");
    let mut writer = open(&settings);
    let mut reader = PostgresReader::open(&settings).unwrap();
    let count = Query::CountAccounts { domain: "example.org".to_owned() };
    let counted = |reader: &mut PostgresReader| match reader.read(&count).unwrap() {
        Answer::Counted { accounts, .. } => accounts,
        other => panic!("a number was asked for, not {other:?}"),
    };
    reader.hold().unwrap();
    super::commit(&mut writer, &[super::create("juliet@example.org")]);
    assert_eq!(counted(&mut reader), 0, "that moment has passed");
    reader.release().unwrap();
    assert_eq!(counted(&mut reader), 1);

    reader.hold().unwrap();
    server.sql(
        "held",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE datname = 'held' AND state = 'idle in transaction'",
    );
    assert!(reader.read(&count).is_err(), "another connection would show another moment");
    assert!(reader.read(&count).is_err());
    reader.release().unwrap();
    assert_eq!(counted(&mut reader), 1);
}
