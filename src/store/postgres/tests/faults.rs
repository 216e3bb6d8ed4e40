//! The server ends, starts, stops answering, ends sessions, while it is written to.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::super::super::contract::{append, create};
use super::super::super::{Error, Query, Reader, Write, Writer, Written};
use super::super::{PostgresReader, PostgresWriter, Settings, writers};
use super::server::Server;
use super::{JULIET, QUICK, bare, commit, ids, open, settings};

/// What a server does to those who write, while they do; ends when it has done enough.
type Fault<'a> = &'a mut dyn FnMut(&mut Server);

/// Two who write, until `fault` has ended: afterwards each row that was acknowledged is there, and each once.
fn nothing_is_lost(server: &mut Server, fault: Fault<'_>) {
    let mut settings = settings(server, "corefire");
    settings.writers = 2;
    let (members, _) = writers(&settings, "here").unwrap();
    let ended = AtomicBool::new(false);
    let commits = AtomicU64::new(0);
    let acknowledged = std::thread::scope(|scope| {
        let (ended, commits) = (&ended, &commits);
        let threads: Vec<_> = (0..)
            .zip(members)
            .map(|(number, writer)| scope.spawn(move || write(number, writer, ended, commits)))
            .collect();
        while commits.load(Ordering::Relaxed) < 50 {
            std::thread::sleep(Duration::from_millis(1));
        }
        fault(server);
        // It goes on behind the last fault.
        let before = commits.load(Ordering::Relaxed);
        let began = Instant::now();
        while commits.load(Ordering::Relaxed) < before + 50 {
            assert!(began.elapsed() < Duration::from_secs(60), "no more commits");
            std::thread::sleep(Duration::from_millis(1));
        }
        ended.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    let mut reader = PostgresReader::open(&settings).unwrap();
    for (number, last) in (0u64..).zip(acknowledged) {
        // Each batch took one row away again.
        let expected: Vec<u64> = (1..=last).filter(|id| id % 10 != 0).collect();
        let found = ids(&mut reader, &format!("u{number}@example.org"));
        assert_eq!(found, expected);
    }
}

/// Appends ten rows in a batch and confirms one of them in the next. Gives the last id that was acknowledged.
fn write(number: u64, mut writer: PostgresWriter, ended: &AtomicBool, commits: &AtomicU64) -> u64 {
    let owner = format!("u{number}@example.org");
    assert_eq!(commit(&mut writer, &[create(&owner)]), [Written::Done]);
    let mut next = 1;
    while !ended.load(Ordering::Relaxed) {
        let batch: Vec<Write> = (next..next + 10).map(|id| append(&owner, id)).collect();
        assert_eq!(commit(&mut writer, &batch), vec![Written::Done; 10]);
        // A batch that runs late would bring this row back.
        let confirm = Write::ConfirmLog { owner: bare(&owner), ids: vec![next + 9] };
        assert_eq!(commit(&mut writer, &[confirm]), [Written::Done]);
        commits.fetch_add(2, Ordering::Relaxed);
        next += 10;
    }
    next - 1
}

#[test]
fn a_server_that_ends_at_once_and_starts_again_loses_nothing() {
    let Some(mut server) = Server::start(&[]) else { return };
    nothing_is_lost(&mut server, &mut |server| {
        for _ in 0..3 {
            server.stop();
            std::thread::sleep(Duration::from_millis(100));
            server.run();
            std::thread::sleep(Duration::from_millis(200));
        }
    });
}

#[test]
fn sessions_that_are_ended_in_the_middle_of_commits_lose_nothing() {
    let Some(mut server) = Server::start(QUICK) else { return };
    nothing_is_lost(&mut server, &mut |server| {
        for _ in 0..40 {
            let sql =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'xmpp'";
            server.sql("corefire", sql);
            std::thread::sleep(Duration::from_millis(15));
        }
    });
}

#[test]
fn a_server_that_stands_still_for_a_while_loses_nothing() {
    let Some(mut server) = Server::start(QUICK) else { return };
    nothing_is_lost(&mut server, &mut |server| {
        for _ in 0..2 {
            server.pause();
            std::thread::sleep(Duration::from_secs(2));
            server.resume();
            std::thread::sleep(Duration::from_millis(300));
        }
    });
}

/// PostgreSQL answers such a commit as done, with a warning.
#[test]
fn a_commit_whose_wait_for_a_standby_is_cancelled_does_not_count() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut writer = open(&settings);
    writer.commit(&[create(JULIET)]).unwrap();
    let set = |names: &str| {
        let sql = format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'");
        server.sql("postgres", &sql);
        server.sql("postgres", "SELECT pg_reload_conf()");
    };
    set("*");
    std::thread::scope(|scope| {
        let committing = scope.spawn(|| {
            loop {
                // Until the server has taken its new settings, commits wait for nobody.
                if let Err(error) = writer.commit(&[append(JULIET, 1)]) {
                    return error.to_string();
                }
            }
        });
        let waits = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
                     WHERE usename = 'xmpp' AND wait_event = 'SyncRep'";
        let began = Instant::now();
        while server.sql("postgres", waits).is_empty() {
            assert!(began.elapsed() < Duration::from_secs(20), "no commit waits");
            std::thread::sleep(Duration::from_millis(10));
        }
        let told = committing.join().unwrap();
        assert!(told.contains("for its standby was cancelled"), "{told}");
    });
    set("");
    assert_eq!(commit(&mut writer, &[append(JULIET, 1)]), [Written::Done]);
    assert_eq!(ids(&mut PostgresReader::open(&settings).unwrap(), JULIET), [1]);
}

#[test]
fn a_reader_connects_anew_and_fails_at_once_while_it_cannot() {
    let Some(mut server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut writer = open(&settings);
    writer.commit(&[create(JULIET), append(JULIET, 1)]).unwrap();
    let mut reader = PostgresReader::open(&settings).unwrap();
    assert_eq!(ids(&mut reader, JULIET), [1]);
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'corefire/read'";
    server.sql("corefire", sql);
    assert_eq!(ids(&mut reader, JULIET), [1], "nobody notices");
    server.stop();
    let query = Query::Account { owner: bare(JULIET) };
    assert!(reader.read(&query).is_err());
    let began = Instant::now();
    for _ in 0..1_000 {
        assert!(reader.read(&query).is_err());
    }
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    server.run();
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(ids(&mut reader, JULIET), [1]);
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("postgres://xmpp@{address}/corefire?connect_timeout=1");
    let began = Instant::now();
    let Err(error) = writers(&Settings::parse(&url).unwrap(), "here") else { panic!("opened") };
    assert!(matches!(error, Error::Open { .. }), "{error}");
    assert!(error.to_string().ends_with("no answer from the server in time"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(20));
}
