//! The database as operators keep it: checked, copied, moved.

use corefire::store::sqlite;

use crate::Place;

impl Place {
    /// A data directory with two accounts.
    fn with_accounts() -> Place {
        let place = Place::new();
        for name in ["alice", "bob"] {
            let quick = ["--set", "auth.scram_iterations=4096"];
            let add = ["user", "add", &format!("{name}@localhost"), "--password", "x"];
            place.run(add.iter().chain(&quick)).done();
        }
        place
    }

    fn sql(&self, sql: &str) {
        let path = self.path("corefire-data/corefire.db");
        rusqlite::Connection::open(path).unwrap().execute_batch(sql).unwrap();
    }
}

#[test]
fn a_sound_database_has_no_problems() {
    let place = Place::with_accounts();
    assert_eq!(
        place.run(["store", "check"]).done(),
        "corefire-data/corefire.db: account 2, roster 0, slot 0, entry 0, jid 2\nno problems\n"
    );
}

#[test]
fn each_problem_is_a_line_that_says_what_mends_it() {
    for (sql, told) in [
        (
            "INSERT INTO slot VALUES (99, 'x', x'00')",
            "what features keep of number 99 belongs to no account; copy all",
        ),
        (
            "INSERT INTO roster VALUES (99, 'a@b', '', '[]', 0, 0, 0, NULL)",
            "the roster of number 99 belongs to no account; copy all",
        ),
        (
            "INSERT INTO roster SELECT owner, '@', '', '[]', 0, 0, 0, NULL FROM account LIMIT 1",
            "the contact \"@\" of alice@localhost is no address; restore",
        ),
        (
            "INSERT INTO roster SELECT owner, 'a@b', '', '{', 0, 0, 0, NULL FROM account LIMIT 1",
            "the contact \"a@b\" of alice@localhost has groups that cannot be read; restore",
        ),
        (
            "INSERT INTO entry SELECT NULL, owner, 5, owner, 0, 0, 0, 0, 1, 1, x'2020', '', 1, 0 FROM account LIMIT 1",
            "the message 5 of alice@localhost has an id that its partition",
        ),
        (
            "UPDATE account SET sha1_stored_key = x'01'",
            "alice@localhost has keys of a wrong length; set its password with: corefire user passwd",
        ),
        (
            "UPDATE jid SET text = 'Alice@localhost' WHERE text = 'alice@localhost'",
            "\"Alice@localhost\" is not prepared; restore",
        ),
        ("DELETE FROM jid WHERE text = 'bob@localhost'", "has no address; copy all"),
        (
            "PRAGMA writable_schema = on; UPDATE sqlite_schema SET rootpage = 3 WHERE name = 'slot'",
            "the file is damaged: ",
        ),
    ] {
        let place = Place::with_accounts();
        place.sql(sql);
        let run = place.run(["store", "check"]);
        assert_eq!(run.code, 1, "{sql}: {}{}", run.stdout, run.stderr);
        assert!(run.stderr.lines().any(|line| line.contains(told)), "{sql}: {}", run.stderr);
    }
}

#[test]
fn a_copy_is_a_database_whose_numbers_are_ahead() {
    let place = Place::with_accounts();
    place.run(["backup", "copy.db"]).done();
    place
        .run(["backup", "copy.db"])
        .refused(&["corefire: copy.db: there is such a file; give a new name"]);
    std::fs::create_dir(place.path("restored")).unwrap();
    std::fs::copy(place.path("copy.db"), place.path("restored/corefire.db")).unwrap();
    let listed = place.run(["user", "list", "--data-dir", "restored"]).done();
    assert_eq!(listed, "alice@localhost\nbob@localhost\n");
    place.run(["store", "check", "--data-dir", "restored"]).done();
    // Higher than any of the original will be for long.
    assert!(sqlite::open(&place.path("restored/corefire.db")).unwrap().incarnation > 1_000_000);
    assert!(sqlite::open(&place.path("corefire-data/corefire.db")).unwrap().incarnation < 100);
    let left: Vec<_> = std::fs::read_dir(place.dir.path()).unwrap().collect();
    assert_eq!(left.len(), 3, "{left:?}");
    place.run(["backup", "none/copy.db"]).refused(&[
        "corefire: none/copy.db: no backup was made: No such file or directory (os error 2)",
    ]);
}

#[test]
fn counters_are_shown_and_raised() {
    let place = Place::with_accounts();
    place.sql("INSERT INTO id_block VALUES (7, 42)");
    let show = || place.run(["store", "counters"]).done();
    // Each account was added by a program of its own.
    assert_eq!(show(), "corefire-data/corefire.db: ids up to 41, incarnation 2\n");
    let raised = place.run(["store", "counters", "--raise"]).done();
    let told = "corefire-data/corefire.db: ids up to 41, incarnation 3\nraised to: ids up to 4294967337, incarnation 1048579\n";
    assert_eq!(raised, told);
    assert_eq!(show(), "corefire-data/corefire.db: ids up to 4294967337, incarnation 1048579\n");
    let conn = rusqlite::Connection::open(place.path("corefire-data/corefire.db")).unwrap();
    let sql = "SELECT count(*), min(next) FROM id_block";
    let least: (u32, i64) = conn.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(least, (64, 1 + (1 << 32)), "also where no id was given yet");
    place.run(["store", "check"]).done();
    place
        .run(["store", "counters", "--raise", "--set", "storage.url=sqlite:none.db"])
        .refused(&["corefire: there is no corefire-data/none.db"]);
}

#[test]
fn a_database_moves_and_the_old_one_stays() {
    let place = Place::with_accounts();
    let moved = place.run(["store", "move", "sqlite:corefire.db", "sqlite:new.db"]).done();
    assert_eq!(
        moved,
        "corefire-data/corefire.db: 2 accounts\ncorefire-data/new.db: 2 accounts\nno differences; now set storage.url to the new one\n"
    );
    let there = place.run(["user", "list", "--set", "storage.url=sqlite:new.db"]).done();
    assert_eq!(there, place.run(["user", "list"]).done());
    for (from, to, told) in [
        (
            "sqlite:corefire.db",
            "sqlite:new.db",
            "the target has accounts or messages already; give one that is empty",
        ),
        ("sqlite:corefire.db", "sqlite:corefire.db", "are one database; give a new one"),
        ("sqlite:none.db", "sqlite:other.db", "there is no corefire-data/none.db"),
        ("corefire.db", "sqlite:other.db", "does not start with \"sqlite:\""),
    ] {
        let run = place.run(["store", "move", from, to]);
        assert!(run.code == 1 && run.stderr.contains(told), "{from} {to}: {}", run.stderr);
    }
    assert!(!place.path("corefire-data/other.db").exists());
}
