//! Archives on the disk: what was acknowledged is in them after a crash, and what is too old or too much goes.

use crate::client::Client;
use crate::node::{Node, Place};

const MESSAGES: usize = 20;

/// Alice's messages to Bob, acknowledged.
fn say(node: &Node, first: usize) {
    let mut alice = Client::acked(node, "alice", "secret");
    for number in first..first + MESSAGES {
        alice.send(&format!(
            "<message to='bob@localhost' type='chat'><body>m{number}</body></message>"
        ));
    }
    alice.send("<r xmlns='urn:xmpp:sm:3'/>");
    alice.expect(&format!("<a xmlns='urn:xmpp:sm:3' h='{MESSAGES}'/>"));
}

/// The bodies in somebody's archive.
fn archive(node: &Node, user: &str) -> Vec<String> {
    let mut client = Client::log_in(node, user, "secret");
    client.send("<iq type='set' id='all'><query xmlns='urn:xmpp:mam:2'/></iq>");
    let text = client.expect("</fin></iq>");
    assert!(text.contains("complete='true'"), "{text}");
    let bodies = text.split("<body>").skip(1);
    bodies.map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("m{number}")).collect()
}

fn place() -> Place {
    let place = Place::new();
    for name in ["alice", "bob"] {
        place.add_user(name, "secret");
    }
    place
}

#[test]
fn what_was_acknowledged_is_in_both_archives_after_a_crash() {
    let place = place();
    for round in 0..3 {
        let node = place.start();
        for user in ["alice", "bob"] {
            assert_eq!(archive(&node, user), numbers(0..round * MESSAGES), "{user}");
        }
        say(&node, round * MESSAGES);
        node.kill();
    }
}

#[test]
fn retention_is_changed_while_the_node_runs() {
    let place = place();
    let file = place.path("corefire.toml");
    std::fs::write(&file, "[archive]\n").unwrap();
    let mut node = place.start_as(place.program(&["serve", "--config", "corefire.toml"]));
    say(&node, 0);
    assert_eq!(archive(&node, "bob"), numbers(0..MESSAGES));
    let keep = "[archive.domains.\"localhost\"]\nmessages_per_account = 3\n";
    std::fs::write(&file, keep).unwrap();
    place.run(&["reload"]);
    let line = node.wait_for_log("old messages were taken out of the archives");
    assert!(line.contains("rows=34"), "{line}");
    for user in ["alice", "bob"] {
        assert_eq!(archive(&node, user), numbers(MESSAGES - 3..MESSAGES), "{user}");
    }
    std::fs::write(&file, "[archive]\nenabled = false\n").unwrap();
    place.run(&["reload"]);
    let mut bob = Client::log_in(&node, "bob", "secret");
    bob.send("<iq type='set' id='all'><query xmlns='urn:xmpp:mam:2'/></iq>");
    bob.expect("<service-unavailable ");
    node.stop();
}
