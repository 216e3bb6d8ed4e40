//! On a real server: the contract, its settings, and its faults.
#![expect(clippy::unwrap_used, reason = "tests")]

mod checks;
mod cluster;
mod domains;
mod faults;
mod moves;
mod places;

use std::time::{Duration, Instant};

use super::super::contract::{self, append, bare, create};
use super::super::{
    Answer, ArchiveQuery, Error, Keep, LogEntry, Page, Query, Reader, Write, Writer, Written,
};
use super::{PostgresReader, PostgresWriter, Settings, writers};
use crate::xmpp::credentials::{Credentials, ScramKeys};
use crate::xmpp::jid::Jid;

#[path = "../../../tests/postgres/server.rs"]
pub(crate) mod server;
use server::Server;

const JULIET: &str = "juliet@example.org";

/// Quick: what is lost with the machine is no matter here.
const QUICK: &[&str] = &["fsync=off", "full_page_writes=off"];

fn settings(server: &Server, database: &str) -> Settings {
    server.database(database);
    Settings::parse(&server.url_with_password(database)).unwrap()
}

/// One connection that writes.
fn open(settings: &Settings) -> PostgresWriter {
    let mut settings = settings.clone();
    settings.writers = 1;
    writers(&settings, "here").unwrap().0.remove(0)
}

fn ids(reader: &mut dyn Reader, owner: &str) -> Vec<u64> {
    let query = Query::Log { owner: bare(owner), after: 0, limit: u32::MAX };
    match reader.read(&query).unwrap() {
        Answer::Log { entries, .. } => entries.iter().map(|entry| entry.id).collect(),
        other => panic!("a log was asked for, not {other:?}"),
    }
}

/// Commits as the storage threads do, until it is done.
fn commit(writer: &mut PostgresWriter, batch: &[Write]) -> Vec<Written> {
    let began = Instant::now();
    loop {
        match writer.commit(batch) {
            Ok(written) => return written,
            Err(error) => assert!(began.elapsed() < Duration::from_secs(60), "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
        let _ = writer.reopen();
    }
}

#[test]
fn postgres_keeps_the_contract() {
    let Some(server) = Server::start(QUICK) else { return };
    server.database("corefire");
    let mut count = 0;
    contract::suite(&mut || {
        count += 1;
        // A schema each: a database takes its time to be made.
        server.sql("corefire", &format!("CREATE SCHEMA c{count} AUTHORIZATION xmpp"));
        let url = server.url_with_password("corefire");
        let url = format!("{url}?options=-csearch_path%3Dc{count}");
        let settings = Settings::parse(&url).unwrap();
        let writer = open(&settings);
        (Box::new(writer), Box::new(PostgresReader::open(&settings).unwrap()))
    });
    assert!(count > 20);
}

/// All backends answer alike, whatever is asked in whatever order.
#[test]
fn postgres_and_its_twin_in_memory_agree_on_random_batches() {
    let Some(server) = Server::start(QUICK) else { return };
    for seed in 0..3 {
        let settings = settings(&server, &format!("r{seed}"));
        let mut writer = open(&settings);
        let mut reader = PostgresReader::open(&settings).unwrap();
        contract::agrees_with_twin(seed, &mut writer, &mut reader);
    }
}

#[test]
fn an_incarnation_is_never_given_twice_and_the_older_one_is_fenced() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut first = open(&settings);
    first.commit(&[create(JULIET), append(JULIET, 1)]).unwrap();
    let Err(refused) = writers(&settings, "there") else { panic!("two have the database") };
    let refused = refused.to_string();
    assert!(refused.contains("in use by the node \"here\" since 2"), "{refused}");
    assert!(!refused.contains("pass"), "{refused}");
    // It loses its session, and the lock with it, unnoticed; another takes the database.
    server.sql(
        "corefire",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'xmpp'",
    );
    let mut second = open(&settings);
    assert_eq!(second.incarnation(), first.incarnation() + 1);
    assert!(first.commit(&[append(JULIET, 2)]).is_err());
    assert!(matches!(first.reopen(), Err(Error::Fenced)));
    second.commit(&[append(JULIET, 3)]).unwrap();
    let mut reader = PostgresReader::open(&settings).unwrap();
    assert_eq!(ids(&mut reader, JULIET), [1, 3]);
}

#[test]
fn a_write_of_one_who_was_fenced_fails_and_leaves_nothing() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut writer = open(&settings);
    writer.commit(&[create(JULIET)]).unwrap();
    server.sql("corefire", "UPDATE member SET fenced = true");
    assert!(matches!(writer.commit(&[append(JULIET, 1)]), Err(Error::Fenced)));
    assert!(matches!(writer.reopen(), Err(Error::Fenced)));
    assert!(ids(&mut PostgresReader::open(&settings).unwrap(), JULIET).is_empty());
}

/// A transaction that was given up for lost may still be on its way; it must not come after what followed it.
#[test]
fn what_an_old_session_has_under_way_is_waited_for_and_what_it_still_sends_is_refused() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut writer = open(&settings);
    writer.commit(&[create(JULIET)]).unwrap();
    let before = writer.member().clone();
    let held = std::thread::scope(|scope| {
        let lock = format!(
            "BEGIN; SELECT 1 FROM member WHERE incarnation = {} AND generation = {} FOR SHARE; \
             SELECT pg_sleep(1.5); COMMIT",
            before.incarnation, before.generation
        );
        let server = &server;
        scope.spawn(move || server.sql("corefire", &lock));
        std::thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        writer.reopen().unwrap();
        began.elapsed()
    });
    assert!(held > Duration::from_millis(500), "{held:?}");
    assert_eq!(writer.member().generation, before.generation + 1);
    let found = format!(
        "SELECT count(*) FROM member WHERE incarnation = {} AND generation = {} AND NOT fenced",
        before.incarnation, before.generation
    );
    assert_eq!(server.sql("corefire", &found), "0", "what the old session sends finds no member");
    writer.commit(&[append(JULIET, 1)]).unwrap();
}

/// What was done, and whose answer was lost, is answered as done when it is run again.
#[test]
fn a_batch_whose_fate_is_unknown_is_answered_as_if_it_were_done_once() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut writer = open(&settings);
    let romeo = "romeo@example.org";
    let batch = [
        create(JULIET),
        append(JULIET, 1),
        Write::DeleteAccount { owner: bare(romeo) },
        Write::ReserveIds { partition: 3, count: 10 },
    ];
    writer.commit(&[create(romeo)]).unwrap();
    writer.commit(&batch).unwrap();
    writer.lose_answer();
    assert!(writer.commit(&batch).is_err());
    writer.reopen().unwrap();
    let reserved = Written::Reserved { first: 11 };
    assert_eq!(
        writer.commit(&batch).unwrap(),
        [Written::Done, Written::Done, Written::Done, reserved]
    );
    // It is known again: another's account, and none.
    assert_eq!(
        writer.commit(&batch[..3]).unwrap(),
        [Written::Exists, Written::Done, Written::NoAccount]
    );
    // Another password is another account.
    writer.lose_answer();
    writer.reopen().unwrap();
    let other = Write::CreateAccount { owner: bare(JULIET), credentials: contract::credentials(9) };
    assert_eq!(writer.commit(&[other]).unwrap(), [Written::Exists]);
}

/// As an import brings them from a server that knew no other.
fn sha1_alone(seed: u8) -> Credentials {
    let none = ScramKeys { iterations: 0, salt: vec![], stored_key: vec![], server_key: vec![] };
    Credentials { sha256: none, sha512: None, ..contract::credentials(seed) }
}

#[test]
fn a_creation_is_known_again_by_whatever_keys_the_account_has() {
    const DONE: Written = Written::Done;
    const EXISTS: Written = Written::Exists;
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut writer = open(&settings);
    let owner = |name: &str| bare(&format!("{name}@example.org"));
    let create = |name: &str, credentials: Credentials| {
        let owner = owner(name);
        Write::CreateAccount { owner, credentials }
    };
    let set = |name: &str, credentials: Credentials| {
        let owner = owner(name);
        Write::SetCredentials { owner, credentials }
    };
    let delete = |name: &str| Write::DeleteAccount { owner: owner(name) };
    let mut without_sha1 = contract::credentials(4);
    without_sha1.sha1 = sha1_alone(4).sha256;
    writer.commit(&[create("there", sha1_alone(1))]).unwrap();
    for (batch, answers) in [
        (vec![create("a", sha1_alone(1))], vec![DONE]),
        (vec![create("b", without_sha1)], vec![DONE]),
        // The keys that are there in the end are not those it was created with.
        (vec![create("c", sha1_alone(1)), set("c", sha1_alone(2))], vec![DONE, DONE]),
        (
            vec![create("d", sha1_alone(1)), delete("d"), create("d", sha1_alone(2))],
            vec![DONE, DONE, DONE],
        ),
        (vec![create("e", sha1_alone(1)), create("e", sha1_alone(2))], vec![DONE, EXISTS]),
        (vec![create("f", sha1_alone(1)), delete("f")], vec![DONE, DONE]),
        (vec![create("there", sha1_alone(2))], vec![EXISTS]),
    ] {
        assert_eq!(writer.commit(&batch).unwrap(), answers, "{batch:?}");
        writer.lose_answer();
        writer.reopen().unwrap();
        assert_eq!(writer.commit(&batch).unwrap(), answers, "again: {batch:?}");
    }
    // One that differs in no key but that of SHA-1 is another.
    writer.lose_answer();
    writer.reopen().unwrap();
    assert_eq!(writer.commit(&[create("a", sha1_alone(2))]).unwrap(), [EXISTS]);
}

#[test]
fn what_other_transactions_stand_in_the_way_of_is_run_again() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut writer = open(&settings);
    writer.commit(&[create(JULIET)]).unwrap();
    server.sql(
        "corefire",
        "CREATE SEQUENCE attempts; CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS \
         $$ BEGIN IF nextval('attempts') % 4 <> 0 THEN \
         RAISE EXCEPTION 'in the way' USING ERRCODE = TG_ARGV[0]; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER fail BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION fail('40001')",
    );
    let mut reader = PostgresReader::open(&settings).unwrap();
    writer.commit(&[append(JULIET, 1)]).unwrap();
    assert_eq!(server.sql("corefire", "SELECT last_value FROM attempts"), "4");
    assert_eq!(ids(&mut reader, JULIET), [1]);
    // What nobody else is to blame for is not.
    server.sql(
        "corefire",
        "DROP TRIGGER fail ON log; \
         CREATE TRIGGER fail BEFORE INSERT ON log FOR EACH ROW EXECUTE FUNCTION fail('53100')",
    );
    assert!(matches!(writer.commit(&[append(JULIET, 2)]), Err(Error::Full)));
    assert!(writer.commit(&[append(JULIET, 2)]).is_err(), "closed until it is reopened");
    assert_eq!(ids(&mut reader, JULIET), [1]);
}

#[test]
fn several_who_write_at_once_intern_the_same_addresses() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut many = settings.clone();
    many.writers = 4;
    let (writers, warnings) = writers(&many, "here").unwrap();
    assert_eq!(warnings.len(), 2, "fsync and full_page_writes: {warnings:?}");
    std::thread::scope(|scope| {
        for (number, mut writer) in (0u64..).zip(writers) {
            scope.spawn(move || {
                let owner = format!("u{number}@example.org");
                writer.commit(&[create(&owner)]).unwrap();
                for round in 0..20u64 {
                    // All in the same moment, each in another order.
                    let mut peers: Vec<u64> = (0..40).collect();
                    peers.rotate_left(usize::try_from(number * 10).unwrap());
                    let batch: Vec<Write> = peers
                        .iter()
                        .map(|peer| {
                            let id = round * 40 + peer + 1;
                            let with = format!("peer{round}x{peer}@example.org");
                            let entry = contract::entry(id, &with, b"<message/>");
                            Write::AppendLog { owner: bare(&owner), entry }
                        })
                        .collect();
                    let written = writer.commit(&batch).unwrap();
                    assert_eq!(written, vec![Written::Done; batch.len()]);
                }
            });
        }
    });
    assert_eq!(server.sql("corefire", "SELECT count(*), count(DISTINCT text) FROM jid"), "804|804");
    assert_eq!(server.sql("corefire", "SELECT count(*) FROM log"), "3200");
}

/// An owner with 200,000 messages, of which 20 are with another: no question walks through them.
#[test]
fn a_page_of_a_long_archive_reads_a_page_of_rows() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut writer = open(&settings);
    let romeo = "romeo@example.org";
    let append = |id, with, keep| {
        let entry = LogEntry { keep, ..contract::entry(id, with, b"<message/>") };
        Write::AppendLog { owner: bare(JULIET), entry }
    };
    writer
        .commit(&[
            create(JULIET),
            append(1, romeo, Keep::Archived),
            append(2, "nurse@example.org", Keep::Both),
        ])
        .unwrap();
    // Told that all are of one peer, as a sample that missed the few tells: pages may not depend on that.
    server.sql(
        "corefire",
        "INSERT INTO log SELECT owner, 2 + n, CASE WHEN n % 10000 = 0 THEN peer ELSE owner END, at + n, \
         incarnation, number, link, open_end, close_start, archived, resource, stanza \
         FROM log, generate_series(1, 200000) AS n WHERE id = 1; \
         ALTER TABLE log ALTER peer SET (n_distinct = 1); ANALYZE",
    );
    let read = |columns: &str| -> Vec<u64> {
        let sql = format!("SELECT {columns} FROM pg_stat_user_tables WHERE relname = 'log'");
        server.sql("corefire", &sql).split('|').map(|number| number.parse().unwrap()).collect()
    };
    let before = read("seq_tup_read, idx_tup_fetch");
    let mut reader = PostgresReader::open(&settings).unwrap();
    let all = ArchiveQuery::all(bare(JULIET), 50);
    let last = ArchiveQuery { page: Page::Before(u64::MAX), ..all.clone() };
    let middle = contract::entry(100_000, romeo, b"").at;
    let with = Some(Jid::parse(romeo).unwrap());
    for (query, rows) in [
        (all.clone(), 50),
        (last.clone(), 50),
        (ArchiveQuery { page: Page::After(100_000), ..all.clone() }, 50),
        (ArchiveQuery { with: with.clone(), ..last.clone() }, 21),
        (ArchiveQuery { with, page: Page::After(150_000), count_max: 100, ..all.clone() }, 6),
        (ArchiveQuery { start: Some(middle), ..all.clone() }, 50),
        (ArchiveQuery { end: Some(middle), ..last }, 50),
        (ArchiveQuery { ids: Some(vec![7, 150_000]), ..all }, 2),
    ] {
        match reader.read(&Query::Archive(Box::new(query.clone()))).unwrap() {
            Answer::Archive { entries, .. } => assert_eq!(entries.len(), rows, "{query:?}"),
            other => panic!("a page was asked for, not {other:?}"),
        }
    }
    assert_eq!(ids(&mut reader, JULIET), [2]);
    reader.read(&Query::ArchiveEnds { owner: bare(JULIET), up_to: u64::MAX }).unwrap();
    reader.read(&Query::Account { owner: bare(JULIET) }).unwrap();
    // Its session tells what it did as it ends.
    drop(reader);
    let began = Instant::now();
    loop {
        let after = read("seq_tup_read, idx_tup_fetch");
        assert_eq!(after[0], before[0], "no walk through the table");
        assert!(after[1] - before[1] < 1_000, "{} rows", after[1] - before[1]);
        if after[1] - before[1] > 300 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "no statistics");
        std::thread::sleep(Duration::from_millis(50));
    }
}
