//! What the log tells, and what it must not.

use std::net::TcpStream;
use std::time::Duration;

use crate::client::Client;
use crate::node::Place;

/// At the level that tells most.
#[test]
fn no_password_and_no_body_is_ever_logged() {
    let place = Place::new().set("log.level=trace");
    for name in ["alice", "bob"] {
        place.add_user(name, "hunter2-is-secret");
    }
    let mut node = place.start();
    let mut alice = Client::log_in(&node, "alice", "hunter2-is-secret");
    alice.send(
        "<message to='bob@localhost' type='chat' id='m'><body>nobody-else-reads</body></message>",
    );
    alice.ping("1");
    let mut wrong = Client::starttls(&node);
    wrong.open();
    wrong.authenticate("alice", "hunter3-is-secret");
    wrong.expect("<not-authorized/>");
    wrong.send("<broken><nobody-else-reads");
    wrong.send("&&></x></x>");
    wrong.expect_end();
    let mut bob = Client::log_in(&node, "bob", "hunter2-is-secret");
    bob.send("<presence/>");
    bob.expect("nobody-else-reads");
    place.run(&["user", "passwd", "bob@localhost", "--password", "hunter4-is-secret"]);
    drop((alice, bob));
    node.signal(libc::SIGTERM);
    let lines = node.rest_of_log();
    assert!(lines.iter().any(|line| line.contains("DEBUG")), "{lines:#?}");
    for line in &lines {
        for word in ["is-secret", "nobody-else-reads"] {
            assert!(!line.contains(word), "{line}");
        }
    }
    node.stop();
}

#[test]
fn hostile_peers_do_not_fill_the_log() {
    let place = Place::new();
    let mut node = place.start();
    for number in 0..50 {
        let mut client = Client::connect(if number % 2 == 0 { node.plain } else { node.direct });
        client.send("GET / HTTP/1.1\r\n\r\n<x>&&&");
        client.expect_end();
        // Gone at once.
        drop(TcpStream::connect_timeout(&node.plain, Duration::from_secs(5)));
    }
    node.signal(libc::SIGTERM);
    let lines = node.rest_of_log();
    // A machine that is busy with other things makes turns long.
    let expected = [" INFO stop", " WARN a turn was long"];
    let is_told = |line: &&String| !expected.iter().any(|part| line.contains(part));
    let told: Vec<_> = lines.iter().filter(is_told).collect();
    assert!(told.is_empty(), "{told:#?}");
    node.stop();
}

/// One object a line, whatever happens and whoever sends what: a collector reads them without guessing.
#[test]
fn json_log_is_one_object_a_line() {
    let place = Place::new().set("log.format=json").set("log.level=trace");
    place.add_user("alice", "secret");
    let mut node = place.start();
    let mut alice = Client::log_in(&node, "alice", "secret");
    alice.send("<message to='bob@localhost' id='\"}{\n'><body>x</body></message>");
    alice.ping("1");
    let mut wrong = Client::starttls(&node);
    wrong.open();
    wrong.authenticate("alice\"}\u{2028}", "wrong");
    wrong.expect("<not-authorized/>");
    wrong.send("<broken a='\"}\n{\"level\":\"ERROR\"}'></x>");
    wrong.expect_end();
    drop(alice);
    node.signal(libc::SIGHUP);
    node.wait_for_log("reloaded");
    node.signal(libc::SIGTERM);
    let rest = node.rest_of_log();
    let before = std::mem::take(&mut node.logged);
    let lines: Vec<_> = before.iter().chain(&rest).collect();
    assert!(lines.len() > 5 && !rest.is_empty(), "{lines:#?}");
    for line in lines {
        let entry: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level"] {
            assert!(entry[key].is_string(), "{key}: {line}");
        }
        assert!(entry["fields"]["message"].is_string(), "{line}");
    }
    node.stop();
}
