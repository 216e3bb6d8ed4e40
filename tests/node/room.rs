//! Too much of everything. More connections than the node has room for: who is in stays served, who waits gets in when
//! others leave. More from one client than a core can take: the others have their turn.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::node::Place;
use crate::restrict;

const HEADER: &str = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

#[test]
fn without_descriptors_sessions_live_on_and_others_wait() {
    let place = Place::new().set("node.shards=1");
    place.add_user("alice", "secret");
    place.add_user("bob", "secret");
    let mut command = place.program(&["serve"]);
    // Of these, 80 are the node's own.
    restrict::limit(&mut command, libc::RLIMIT_NOFILE, 80 + 34);
    let node = place.start_as(command);
    let mut alice = Client::log_in(&node, "alice", "secret");
    let mut bob = Client::log_in(&node, "bob", "secret");
    bob.send("<presence/>");
    bob.ping("there");
    let inside: Vec<_> = (0..32)
        .map(|_| {
            let mut client = Client::connect(node.plain);
            client.open();
            client
        })
        .collect();
    let mut outside: Vec<_> = (0..5)
        .map(|_| {
            let mut client = Client::connect(node.plain);
            client.send(HEADER);
            client
        })
        .collect();
    for number in 0..20 {
        alice.send(&format!(
            "<message to='bob@localhost' type='chat' id='{number}'><body>number {number}</body></message>"
        ));
        bob.expect(&format!("<body>number {number}</body>"));
    }
    place.run(&["user", "list"]);
    assert!(!outside[4].is_answered_within(Duration::from_millis(300)));
    drop(inside);
    for client in &mut outside {
        client.expect("</stream:features>");
    }
    alice.ping("1");
    bob.ping("2");
    node.stop();
}

#[test]
fn a_client_that_never_pauses_does_not_hold_others_up() {
    let place = Place::new().set("node.shards=1").set("c2s.tls=optional");
    place.add_user("alice", "secret");
    let node = place.start();
    let mut alice = Client::log_in(&node, "alice", "secret");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut socket = TcpStream::connect(node.plain).unwrap();
                socket.write_all(HEADER.as_bytes()).unwrap();
                // Between stanzas white space may come without an end.
                let blanks = vec![b' '; 256 << 10];
                while !done.load(Ordering::Relaxed) {
                    socket.write_all(&blanks).unwrap();
                }
            });
        }
        let began = Instant::now();
        for number in 0..50 {
            alice.ping(&format!("p{number}"));
        }
        let took = began.elapsed();
        done.store(true, Ordering::Relaxed);
        assert!(took < Duration::from_secs(5), "{took:?} for 50 round trips");
    });
}
