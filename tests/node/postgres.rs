//! A node whose store is a PostgreSQL server.

use std::time::Duration;

use crate::client::Client;
use crate::node::{Node, Place};
use crate::restrict;

#[path = "../postgres/server.rs"]
#[expect(dead_code, reason = "the tests of the store use the rest of it")]
pub(crate) mod server;
use server::{PASSWORD, Server};

/// A place on an empty database, with two accounts.
fn place(server: &Server) -> Place {
    server.database("corefire");
    let file = server.file("password-of-xmpp", PASSWORD);
    let place = Place::new()
        .set(&format!("storage.url={}", server.url("corefire")))
        .set(&format!("storage.password_file={}", file.display()))
        .set("storage.connections=3");
    place.add_user("alice", "secret");
    place.add_user("bob", "secret");
    place
}

/// Messages to Bob, and the wish to hear that they are safe.
fn send(alice: &mut Client, numbers: std::ops::Range<u32>) {
    for number in numbers {
        alice.send(&format!(
            "<message to='bob@localhost' type='chat' id='{number}'><body>number {number}</body></message>"
        ));
    }
    alice.send("<r xmlns='urn:xmpp:sm:3'/>");
}

fn expect_all(node: &Node, numbers: std::ops::Range<u32>) -> Client {
    let mut bob = Client::log_in(node, "bob", "secret");
    bob.send("<presence/>");
    for number in numbers {
        bob.expect(&format!("<body>number {number}</body>"));
    }
    bob
}

#[test]
fn accounts_and_messages_are_in_the_database_and_survive_a_restart_and_a_kill() {
    let Some(server) = Server::start(&[]) else { return };
    let place = place(&server);
    assert_eq!(place.run(&["user", "list"]), "alice@localhost\nbob@localhost\n");
    assert!(!place.data_dir().join("corefire.db").exists());
    let node = place.start();
    let first = node.incarnation;
    let mut one = Client::acked(&node, "alice", "secret");
    send(&mut one, 0..10);
    one.expect("h='10'");
    let status = place.run(&["status"]);
    assert!(status.contains("postgres://xmpp@127.0.0.1:"), "{status}");
    assert!(!status.contains(PASSWORD), "{status}");
    node.stop();
    // Between two nodes, a command has the database.
    place.add_user("carol", "secret");
    let node = place.start();
    assert!(node.incarnation > first, "{} after {first}", node.incarnation);
    let mut one = Client::acked(&node, "alice", "secret");
    send(&mut one, 10..30);
    one.expect("h='20'");
    node.kill();
    let node = place.start();
    drop(expect_all(&node, 0..30));
    Client::log_in(&node, "carol", "secret").ping("1");
    assert!(!node.logged.iter().any(|line| line.contains("WARN")), "{:?}", node.logged);
    node.stop();
}

#[test]
fn a_second_node_and_its_commands_are_told_who_has_the_database() {
    let Some(server) = Server::start(&["fsync=off"]) else { return };
    let place = place(&server).set("node.name=one");
    let node = place.start();
    assert!(node.logged.iter().any(|line| line.contains("WARN") && line.contains("fsync = on")));
    let file = server.file("password-of-xmpp", PASSWORD);
    let other = Place::new()
        .set(&format!("storage.url={}", server.url("corefire")))
        .set(&format!("storage.password_file={}", file.display()));
    let told = other.refused(other.program(&["serve"]));
    assert!(told.contains("in use by the node \"one\" since"), "{told}");
    let output = other.program(&["user", "list"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("in use by the node \"one\""), "{told}");
    Client::log_in(&node, "alice", "secret").ping("1");
    node.stop();
}

#[test]
fn a_node_whose_database_was_taken_over_ends_and_says_why() {
    let Some(server) = Server::start(&["fsync=off"]) else { return };
    let place = place(&server);
    let mut node = place.start();
    let mut alice = Client::acked(&node, "alice", "secret");
    server.sql("corefire", "UPDATE member SET fenced = true");
    send(&mut alice, 0..1);
    node.wait_for_log("another node has taken the database over");
    let end = alice.expect_end();
    assert!(end.contains("<system-shutdown"), "{end}");
    assert_eq!(node.ended(), Some(1));
}

/// While the database is away nothing is acknowledged; what was sent meanwhile is, when it is back.
#[test]
fn a_database_that_goes_and_comes_back_costs_patience_and_no_message() {
    let Some(mut server) = Server::start(&[]) else { return };
    let place = place(&server);
    let mut node = place.start();
    let mut alice = Client::acked(&node, "alice", "secret");
    send(&mut alice, 0..5);
    alice.expect("h='5'");
    server.stop();
    send(&mut alice, 5..10);
    node.wait_for_log("the store failed");
    std::thread::sleep(Duration::from_secs(2));
    server.run();
    alice.expect("h='10'");
    node.wait_for_log("the store works again");
    drop(expect_all(&node, 0..10));
    node.stop();
}

#[test]
fn a_node_with_a_database_does_what_it_does_under_the_profile_for_containers() {
    let Some(server) = Server::start(&["fsync=off"]) else { return };
    let place = place(&server);
    let mut command = place.program(&["serve"]);
    restrict::allow_only(&mut command, &crate::seccomp::allowed());
    let node = place.start_as(command);
    let mut alice = Client::acked(&node, "alice", "secret");
    send(&mut alice, 0..3);
    alice.expect("h='3'");
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'xmpp'";
    server.sql("corefire", sql);
    drop(expect_all(&node, 0..3));
    node.stop();
}
