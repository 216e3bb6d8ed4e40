//! The commands on a PostgreSQL database: accounts come in and go out, and all of it moves, is checked, and is not copied.

use crate::Place;
use crate::portable::data;

#[path = "../postgres/server.rs"]
#[expect(dead_code, reason = "the tests of the store use the rest of it")]
mod server;
use server::{PASSWORD, Server};

const DOMAINS: &str =
    "domains=[\"localhost\",\"example.org\",\"scram.example\",\"sha256.example\"]";

#[test]
fn a_database_moves_to_postgres_and_back_and_exports_the_same() {
    let Some(server) = Server::start(&["fsync=off"]) else { return };
    server.database("corefire");
    let place = Place::new();
    let url = server.url("corefire");
    let password = server.file("password-of-xmpp", PASSWORD);
    let file = format!("storage.password_file={}", password.display());
    let storage = format!("storage.url={url}");
    let run = |arguments: &[&str]| place.run(arguments.iter().chain(&["--set", DOMAINS]));
    let there =
        |arguments: &[&str]| run(&[arguments, &["--set", &storage, "--set", &file]].concat());

    run(&["import", &data("prosody-0.12")]).done();
    run(&["export", "--out", "one.xml"]).done();
    let moved = there(&["store", "move", "sqlite:corefire.db", &url]).done();
    let lines: Vec<&str> = moved.lines().collect();
    let [from, to, last] = lines[..] else { panic!("{moved}") };
    let counts = from.strip_prefix("corefire-data/corefire.db: ").unwrap();
    assert!(counts.starts_with("5 accounts, ") && counts.contains(" contacts"), "{moved}");
    assert!(to.starts_with("postgres://xmpp@") && to.ends_with(&format!(": {counts}")), "{moved}");
    assert_eq!(last, "no differences; now set storage.url to the new one");
    assert_eq!(there(&["user", "list"]).done(), run(&["user", "list"]).done());
    let checked = there(&["store", "check"]).done();
    assert!(checked.contains(": account 5, ") && checked.ends_with("\nno problems\n"), "{checked}");
    there(&["export", "--out", "two.xml"]).done();

    let back = there(&["store", "move", &url, "sqlite:back.db"]).done();
    assert!(back.contains(&format!("corefire-data/back.db: {counts}\n")), "{back}");
    run(&["export", "--out", "three.xml", "--set", "storage.url=sqlite:back.db"]).done();
    let read = |name: &str| std::fs::read_to_string(place.path(name)).unwrap();
    assert_eq!(read("one.xml"), read("two.xml"));
    assert_eq!(read("one.xml"), read("three.xml"));

    for (from, to, told) in [
        (
            "sqlite:back.db",
            url.as_str(),
            "the target has accounts or messages already; give one that is empty",
        ),
        (&url, &url, "are one database; give a new one"),
        ("sqlite:none.db", &url, "there is no corefire-data/none.db"),
    ] {
        let run = there(&["store", "move", from, to]);
        assert!(run.code == 1 && run.stderr.contains(told), "{from} {to}: {}", run.stderr);
    }
}

#[test]
fn accounts_are_imported_into_postgres_and_problems_are_told_and_a_backup_is_pg_dumps() {
    let Some(server) = Server::start(&["fsync=off"]) else { return };
    server.database("corefire");
    let place = Place::new();
    let storage = format!("storage.url={}", server.socket_url("corefire"));
    let set = ["--set", DOMAINS, "--set", &storage];
    let run = |arguments: &[&str]| place.run(arguments.iter().chain(&set));
    let same = |arguments: &[&str]| place.run(arguments.iter().chain(&["--set", DOMAINS]));

    let imported = run(&["import", &data("prosody-0.12")]).done();
    assert!(imported.contains("         5 accounts\n"), "{imported}");
    assert_eq!(imported, same(&["import", &data("prosody-0.12")]).done(), "as into SQLite");
    run(&["export", "--out", "one.xml"]).done();
    same(&["export", "--out", "two.xml"]).done();
    // One came with a password, of which each import makes keys of its own.
    let read = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(place.path(name)).unwrap();
        text.lines().filter(|line| !line.contains("SCRAM-")).map(str::to_owned).collect()
    };
    assert!(read("one.xml").len() > 20);
    assert_eq!(read("one.xml"), read("two.xml"));

    server.sql("corefire", "INSERT INTO slot VALUES (99999, 'x', '')");
    let checked = run(&["store", "check"]);
    assert_eq!(checked.code, 1);
    assert!(
        checked.stderr.contains("what features keep of number 99999 belongs to no account; copy"),
        "{}",
        checked.stderr
    );
    assert!(checked.stderr.ends_with("corefire: 1 problem; see the line above\n"));

    let before = run(&["store", "counters"]).done();
    assert!(before.contains(": ids up to "), "{before}");
    let raised = run(&["store", "counters", "--raise"]).done();
    let (_, raised) = raised.split_once("raised to: ").unwrap();
    assert_ne!(before.split_once(": ").unwrap().1, raised);
    assert!(run(&["store", "counters"]).done().ends_with(raised), "{raised}");

    let refused = run(&["backup", "copy"]);
    assert_eq!((refused.code, refused.stderr.lines().count()), (1, 1), "{}", refused.stderr);
    assert!(refused.stderr.contains("pg_dump"), "{}", refused.stderr);
    assert!(!place.path("copy").exists());
}
