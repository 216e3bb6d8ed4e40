//! Commands on the running node take effect at once.

use crate::client::Client;
use crate::node::Place;

#[test]
fn an_account_that_was_just_added_logs_in() {
    let place = Place::new();
    let node = place.start();
    let mut early = Client::starttls(&node);
    early.open();
    // The node has looked the account up and knows that there is none.
    early.authenticate("alice", "secret");
    early.expect("<not-authorized/>");
    place.add_user("alice", "secret");
    early.authenticate("alice", "secret");
    early.expect("<success");
    Client::log_in(&node, "alice", "secret").ping("1");
}

#[test]
fn a_deleted_account_loses_its_sessions_and_its_login() {
    let place = Place::new();
    place.add_user("alice", "secret");
    place.add_user("bob", "secret");
    let node = place.start();
    let mut alice = Client::log_in(&node, "alice", "secret");
    let mut bob = Client::log_in(&node, "bob", "secret");
    place.run(&["user", "delete", "alice@localhost"]);
    let end = alice.expect_end();
    assert!(end.contains("<stream:error>") && end.ends_with("</stream:stream>"), "{end}");
    let mut again = Client::starttls(&node);
    again.open();
    again.authenticate("alice", "secret");
    again.expect("<not-authorized/>");
    bob.ping("1");
    // Nothing of the old account is there for a new one of its name.
    place.add_user("alice", "another");
    Client::log_in(&node, "alice", "another").ping("1");
}

#[test]
fn a_new_password_is_the_only_one_at_once() {
    let place = Place::new();
    place.add_user("alice", "old");
    let node = place.start();
    Client::log_in(&node, "alice", "old").ping("1");
    place.run(&["user", "passwd", "alice@localhost", "--password", "new"]);
    let mut client = Client::starttls(&node);
    client.open();
    client.authenticate("alice", "old");
    client.expect("<not-authorized/>");
    client.authenticate("alice", "new");
    client.expect("<success");
}

#[test]
fn sessions_are_listed_and_ended_and_a_disabled_account_stays_out() {
    let place = Place::new().set("node.shards=2");
    for name in ["alice", "bob"] {
        place.add_user(name, "secret");
    }
    let node = place.start();
    let mut alice = Client::log_in(&node, "alice", "secret");
    let mut bob = Client::log_in(&node, "bob", "secret");
    let listed = place.run(&["session", "list", "--json"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    for name in ["alice", "bob"] {
        let line =
            format!("{{\"jid\":\"{name}@localhost/r\",\"address\":\"127.0.0.1\",\"tls\":true");
        assert!(listed.contains(&line), "{listed}");
    }
    let listed = place.run(&["session", "list", "bob@localhost"]);
    assert!(listed.starts_with("bob@localhost/r: 127.0.0.1 (TLS), heard 0 s ago"), "{listed}");
    assert_eq!(listed.lines().count(), 1, "{listed}");

    assert_eq!(place.run(&["session", "kick", "bob@localhost/r"]), "ended 1 session\n");
    let end = bob.expect_end();
    assert!(end.contains("<policy-violation") && end.contains("an operator has ended"), "{end}");
    Client::log_in(&node, "bob", "secret").ping("1");

    place.run(&["user", "disable", "alice@localhost"]);
    let end = alice.expect_end();
    assert!(end.contains("the account is disabled"), "{end}");
    let mut again = Client::starttls(&node);
    again.open();
    again.authenticate("alice", "secret");
    again.expect("<account-disabled/>");
    place.run(&["user", "enable", "alice@localhost"]);
    Client::log_in(&node, "alice", "secret").ping("1");
}
