//! Each thing that cannot be so is found, and told with what mends it.

use super::super::super::transfer;
use super::super::check;
use super::{QUICK, Server, open, settings};

/// All ids that were filled in are of this one.
fn partition(_: u64) -> u16 {
    9
}

#[test]
fn each_problem_of_a_database_is_found_and_told() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "checked");
    transfer::tests::fill(&mut open(&settings));
    let sound = check(&settings, partition).unwrap();
    assert_eq!((sound.count, &sound.problems), (0, &Vec::new()));
    assert!(sound.rows.iter().all(|(_, rows)| *rows > 0), "{:?}", sound.rows);
    let one = "(SELECT min(owner) FROM account)";
    for (sql, told) in [
        (
            "INSERT INTO slot VALUES (99999, 'x', '')".to_owned(),
            "what features keep of number 99999 belongs to no account; copy all",
        ),
        (
            "INSERT INTO roster VALUES (99999, '', 'a@b', '', '[]', 0, false, false, NULL)"
                .to_owned(),
            "the roster of number 99999 belongs to no account; copy all",
        ),
        (
            format!("INSERT INTO roster VALUES ({one}, '', '@', '', '[]', 0, false, false, NULL)"),
            " is no address; restore",
        ),
        (
            format!(
                "INSERT INTO roster VALUES ({one}, '', 'a@b', '', '{{', 0, false, false, NULL)"
            ),
            " has groups that cannot be read; restore",
        ),
        (
            format!(
                "INSERT INTO roster VALUES ({one}, '', 'a@b', '', '[]', 5, false, false, NULL)"
            ),
            " has an unknown subscription; restore",
        ),
        (
            "UPDATE log SET owner = 99999 WHERE id = (SELECT max(id) FROM log)".to_owned(),
            "the log of number 99999 belongs to no account; copy all",
        ),
        (
            "UPDATE log SET archived = true \
             WHERE owner = (SELECT id FROM jid WHERE text = 'remote.example') AND id = 7"
                .to_owned(),
            "the message 7 of remote.example is in the archive of a domain, which has none; copy all",
        ),
        (
            "UPDATE log SET id = 5000 \
             WHERE owner = (SELECT id FROM jid WHERE text = 'd5.example')"
                .to_owned(),
            "the message 5000 of d5.example has an id that its partition 9 gives only from 4097 on",
        ),
        ("UPDATE log SET peer = 99999".to_owned(), " is from nobody; copy all"),
        ("UPDATE log SET close_start = 1000000".to_owned(), " has its tags outside of itself; "),
        (
            "UPDATE log SET archived = false; DELETE FROM pending".to_owned(),
            " is neither pending nor in the archive; copy all",
        ),
        (format!("INSERT INTO pending VALUES ({one}, 1234567)"), "the message 1234567 of "),
        ("DELETE FROM id_block".to_owned(), " gives only from 1 on; restore"),
        (
            "INSERT INTO id_block VALUES (70000, 5)".to_owned(),
            "the partition 70000 has 5 as its next id; restore",
        ),
        (
            "UPDATE account SET sha256_stored_key = '\\x01'".to_owned(),
            " has keys of a wrong length; set its password with: corefire user passwd",
        ),
        (
            format!("UPDATE jid SET text = 'Capulet@example.org' WHERE id = {one}"),
            "\"Capulet@example.org\" is not prepared; restore",
        ),
        (format!("DELETE FROM jid WHERE id = {one}"), " has no address; copy all"),
    ] {
        server.sql("postgres", "DROP DATABASE IF EXISTS faulty WITH (FORCE)");
        server.sql("postgres", "CREATE DATABASE faulty OWNER xmpp TEMPLATE checked");
        server.sql("faulty", &sql);
        let faulty = super::Settings::parse(&server.url_with_password("faulty")).unwrap();
        let found = check(&faulty, partition).unwrap();
        assert!(found.count > 0, "{sql}");
        assert!(
            found.problems.iter().any(|line| line.contains(told)),
            "{sql}: {:?}",
            found.problems
        );
    }
}
