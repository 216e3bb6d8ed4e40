//! A node's life: it stops in order and in time, starts again with what it promised to keep, and heeds signals.

use socket2::{Domain, Socket, Type};
use std::time::Duration;

use crate::client::{Client, SHUTDOWN};
use crate::node::Place;

const CLOSE: &str = "</stream:stream>";

#[test]
fn sigterm_ends_every_stream_in_order() {
    let place = Place::new();
    place.add_user("alice", "secret");
    let node = place.start();
    let mut session = Client::log_in(&node, "alice", "secret");
    let mut direct = Client::direct(&node);
    direct.open();
    let mut plain = Client::connect(node.plain);
    plain.open();
    let mut silent = Client::connect(node.plain);
    // The silent one has been accepted before a later one is served.
    Client::connect(node.plain).open();
    node.signal(libc::SIGTERM);
    for client in [&mut session, &mut direct, &mut plain] {
        let end = client.expect_end();
        assert!(end.contains(SHUTDOWN) && end.ends_with(CLOSE), "{end}");
    }
    let end = silent.expect_end();
    assert!(end.is_empty() || end.ends_with(CLOSE), "{end}");
    drop((session, direct, plain, silent));
    node.stop();
}

#[test]
fn a_client_that_does_not_read_holds_the_end_up_for_a_bounded_time() {
    let place = Place::new().set("limits.shutdown_s=1").set("c2s.tls=optional");
    place.add_user("alice", "secret");
    place.add_user("bob", "secret");
    let node = place.start();
    let mut alice = Client::log_in(&node, "alice", "secret");
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Small, so that the server's output waits in the server.
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&node.plain.into()).unwrap();
    let mut bob = Client::over(socket.into());
    bob.open();
    bob.authenticate("bob", "secret");
    bob.expect("<success");
    bob.bind();
    bob.send("<presence/>");
    bob.ping("there");
    let body = "x".repeat(60_000);
    for number in 0..60 {
        alice.send(&format!(
            "<message to='bob@localhost' type='chat' id='m{number}'><body>{body}</body></message>"
        ));
    }
    alice.ping("sent");
    let mut stalled = Client::connect(node.direct);
    // A handshake that has begun and does not go on.
    stalled.send("\u{16}\u{3}\u{1}");
    let took = node.stop();
    assert!(took < Duration::from_secs(8), "{took:?}");
    assert!(alice.expect_end().contains(SHUTDOWN));
    drop(bob);
}

#[test]
fn sighup_does_not_end_the_node() {
    let place = Place::new();
    place.add_user("alice", "secret");
    let mut node = place.start();
    let mut alice = Client::log_in(&node, "alice", "secret");
    node.signal(libc::SIGHUP);
    node.wait_for_log("reloaded");
    alice.ping("1");
    Client::log_in(&node, "alice", "secret").ping("2");
    node.stop();
}

#[test]
fn offline_messages_and_the_count_of_starts_survive_a_restart() {
    let place = Place::new();
    place.add_user("alice", "secret");
    place.add_user("bob", "secret");
    let node = place.start();
    let first = node.incarnation;
    let mut alice = Client::log_in(&node, "alice", "secret");
    alice.send("<message to='bob@localhost' type='chat' id='1'><body>before</body></message>");
    alice.ping("1");
    node.stop();

    let node = place.start();
    assert!(node.incarnation > first, "{} after {first}", node.incarnation);
    let mut bob = Client::log_in(&node, "bob", "secret");
    bob.send("<presence/>");
    let message = bob.expect("<body>before</body>");
    assert!(message.contains("from='alice@localhost/r'"), "{message}");
}

#[test]
fn what_was_acknowledged_survives_a_kill() {
    let place = Place::new();
    place.add_user("alice", "secret");
    place.add_user("bob", "secret");
    let node = place.start();
    let mut alice = Client::acked(&node, "alice", "secret");
    for number in 0..20 {
        alice.send(&format!(
            "<message to='bob@localhost' type='chat' id='{number}'><body>number {number}</body></message>"
        ));
    }
    alice.send("<r xmlns='urn:xmpp:sm:3'/>");
    alice.expect("h='20'");
    node.kill();

    let node = place.start();
    let mut bob = Client::log_in(&node, "bob", "secret");
    bob.send("<presence/>");
    for number in 0..20 {
        bob.expect(&format!("<body>number {number}</body>"));
    }
}

#[test]
fn the_log_of_a_program_is_plain_text() {
    let place = Place::new();
    let mut node = place.start();
    node.signal(libc::SIGHUP);
    let line = node.wait_for_log("reloaded");
    assert!(!line.contains('\u{1b}'), "no colours where nobody looks: {line:?}");
}
