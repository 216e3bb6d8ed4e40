//! Bad input that needs sockets: peers that stall, vanish, never read, or try passwords. Each ends as it should, the
//! node's memory stays where it was, and somebody who is in goes on chatting. Figures are `tools/bench hostile`'s; here
//! are bounds that no machine is too slow for. The other rows are in `tests/shard/bad_input.rs`.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use corefire::stream::sasl::client::plain;

use crate::client::{Client, HEADER, STARTTLS};
use crate::node::{Node, Place};

const PATIENCE: Duration = Duration::from_secs(20);
const TIMEOUT: &str = "<connection-timeout xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>";
/// The start of a TLS record that announces a ClientHello of 512 bytes.
const HALF_A_HELLO: &[u8] = &[0x16, 3, 1, 2, 4, 1, 0, 2, 0, 3, 3, 1, 2, 3, 4];

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Ends a connection by a reset, which leaves nothing of it in this kernel either.
fn abort(socket: TcpStream) {
    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A node with somebody on it, and a place for the attack.
fn with_alice(place: &Place) -> (Node, Client) {
    place.add_user("alice", "secret");
    place.add_user("bob", "secret");
    place.add_user("carol", "secret");
    let node = place.start();
    let mut alice = Client::log_in(&node, "alice", "secret");
    alice.ping("first");
    (node, alice)
}

fn connections(place: &Place) -> u64 {
    let status: serde_json::Value =
        serde_json::from_str(&place.run(&["status", "--json"])).unwrap();
    let shards = status["shards"].as_array().unwrap();
    shards.iter().map(|shard| shard["connections"].as_u64().unwrap()).sum()
}

/// Waits until only so many connections are left.
fn wait_for_connections(place: &Place, wanted: u64) {
    let until = std::time::Instant::now() + PATIENCE;
    while connections(place) != wanted {
        assert!(std::time::Instant::now() < until, "{} connections stay", connections(place));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn assert_flat(before: u64, after: u64, allowed: u64, what: &str) {
    assert!(after < before + allowed, "{what}: from {before} to {after} bytes, {allowed} allowed");
}

#[test]
fn slow_loris_before_login_is_timed_out() {
    let place = Place::new().set("limits.login_timeout_s=1");
    let (node, mut alice) = with_alice(&place);
    // One byte after the other: of a header, of an element behind it, and of a handshake.
    let mut header = connect(node.plain);
    let mut element = connect(node.plain);
    element.write_all(HEADER.as_bytes()).unwrap();
    let mut handshake = connect(node.direct);
    handshake.write_all(HALF_A_HELLO).unwrap();
    let mut bytes = HEADER.bytes().chain(std::iter::repeat(b' '));
    // Whoever is cut off finds out by writing; what it was told is still there to be read.
    for _ in 0..200 {
        let byte = [bytes.next().unwrap()];
        let written = [
            header.write_all(&byte).is_ok(),
            element.write_all(b"<").is_ok() || element.write_all(b"a").is_ok(),
            handshake.write_all(b"\0").is_ok(),
        ];
        if written == [false; 3] {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    let mut told = String::new();
    let _ = header.read_to_string(&mut told);
    assert!(told.contains(TIMEOUT), "{told}");
    wait_for_connections(&place, 1);
    alice.ping("still here");
}

#[test]
fn stream_that_is_opened_and_left_is_timed_out() {
    let place = Place::new().set("limits.login_timeout_s=1");
    let (node, mut alice) = with_alice(&place);
    for opened in [false, true] {
        let mut stranger = Client::connect(node.plain);
        if opened {
            stranger.open();
        }
        let end = stranger.expect_end();
        assert!(end.contains(TIMEOUT) && end.ends_with("</stream:stream>"), "{end}");
    }
    alice.ping("still here");
}

#[test]
fn ten_thousand_half_open_streams_cost_little_and_leave_nothing() {
    const STREAMS: u64 = 10_000;
    let place = Place::new().set("limits.login_timeout_s=600").set("c2s.tls=optional");
    let (node, mut alice) = with_alice(&place);
    let before = node.rss();
    let mut half_open = Vec::new();
    for number in 0..STREAMS {
        let mut socket = connect(node.plain);
        // Half of a header, a header, a header and half of an element.
        let said = match number % 3 {
            0 => HEADER[..40].to_owned(),
            1 => HEADER.to_owned(),
            _ => format!("{HEADER}<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='"),
        };
        socket.write_all(said.as_bytes()).unwrap();
        half_open.push(socket);
        if number % 1_000 == 0 {
            alice.ping(&format!("p{number}"));
        }
    }
    wait_for_connections(&place, STREAMS + 1);
    assert_flat(before, node.rss(), STREAMS * 10_000, "open");
    alice.ping("at the height of it");
    half_open.into_iter().for_each(abort);
    wait_for_connections(&place, 1);
    alice.ping("after it");
    node.stop();
}

#[test]
fn connections_above_the_rate_of_their_network_are_closed_at_once() {
    let place = Place::new().set("limits.exempt=[]").set("limits.network_connections_per_s=2");
    let (node, mut alice) = with_alice(&place);
    // Two shards, each with half of it, and ten seconds of that at once: twenty with alice's.
    let mut served = 0;
    for _ in 0..100 {
        // It may be reset before the connect returns.
        let answered = TcpStream::connect_timeout(&node.plain, PATIENCE).and_then(|mut socket| {
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.write_all(HEADER.as_bytes())?;
            socket.read(&mut [0; 8])
        });
        match answered {
            Ok(length) => served += usize::from(length > 0),
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
                "{error}"
            ),
        }
    }
    assert!((5..60).contains(&served), "{served} of 100");
    alice.ping("in already");
}

#[test]
fn session_above_its_rate_is_slowed_and_loses_nothing() {
    let place = Place::new()
        .set("limits.exempt=[]")
        .set("limits.burst_s=1")
        .set("limits.session_stanzas_per_s=100");
    let (node, mut alice) = with_alice(&place);
    let mut bob = Client::log_in(&node, "bob", "secret");
    bob.send("<presence/>");
    bob.ping("there");
    let began = std::time::Instant::now();
    let pad = "x".repeat(1_000);
    for number in 0..600 {
        alice.send(&format!(
            "<message to='bob@localhost/r' id='{number}'><body>{number}{pad}</body></message>"
        ));
    }
    for number in 0..600 {
        let text = bob.expect("</message>");
        assert!(text.contains(&format!("<body>{number}x")), "{number} wanted: {text}");
    }
    // Some 600 less one second's and one read's, at 100 a second: never less than this, however fast the machine is.
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    alice.ping("not closed");
}

#[test]
fn abort_inside_a_tls_handshake_gives_its_place_back() {
    let place = Place::new().set("limits.handshakes_in_flight=2").set("node.shards=1");
    let (node, mut alice) = with_alice(&place);
    for _ in 0..300 {
        let mut socket = connect(node.direct);
        socket.write_all(HALF_A_HELLO).unwrap();
        abort(socket);
    }
    let before = node.rss();
    for round in 0..1_000 {
        let mut socket = connect(node.direct);
        socket.write_all(&HALF_A_HELLO[..round % HALF_A_HELLO.len()]).unwrap();
        abort(socket);
        if round % 20 == 0 {
            let mut upgrading = Client::connect(node.plain);
            upgrading.open();
            upgrading.send(STARTTLS);
            upgrading.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            let mut socket = upgrading.into_socket();
            socket.write_all(HALF_A_HELLO).unwrap();
            abort(socket);
        }
    }
    Client::direct(&node).open();
    Client::starttls(&node).open();
    wait_for_connections(&place, 1);
    assert_flat(before, node.rss(), 16 << 20, "handshakes");
    alice.ping("still here");
}

#[test]
fn reader_that_never_reads_costs_its_bound_and_holds_nobody_up() {
    let place = Place::new().set("limits.output_bytes=1000000");
    let (node, mut alice) = with_alice(&place);
    let mut carol = Client::log_in(&node, "carol", "secret");
    // Bob has a resource and never reads again. Headlines are not kept for later.
    let mut bob = Client::log_in(&node, "bob", "secret");
    bob.send("<presence/>");
    bob.ping("there");
    let before = node.rss();
    let pad = "x".repeat(60_000);
    let headline =
        format!("<message to='bob@localhost' type='headline'><body>{pad}</body></message>");
    // Sixty megabytes: more than the bound and what the kernel takes.
    for number in 0..1_000 {
        alice.send(&headline);
        if number % 50 == 0 {
            carol.ping(&format!("c{number}"));
        }
    }
    alice.ping("all taken");
    assert_flat(before, node.rss(), 32 << 20, "output");
    wait_for_connections(&place, 2);
    // What was written before is there, then the connection ends.
    let said = bob.expect_end();
    assert!(said.len() > 1_000_000, "{}", said.len());
    Client::log_in(&node, "bob", "secret").ping("again");
}

#[test]
fn ten_thousand_connects_and_aborts_leave_nothing() {
    let place = Place::new().set("c2s.tls=optional");
    let (node, mut alice) = with_alice(&place);
    let round = |number: usize| {
        let mut socket = connect(node.plain);
        let said = match number % 4 {
            0 => "",
            1 => &HEADER[..20],
            2 => HEADER,
            _ => "not XML at all",
        };
        let _ = socket.write_all(said.as_bytes());
        abort(socket);
    };
    (0..2_000).for_each(round);
    wait_for_connections(&place, 1);
    let before = node.rss();
    (0..10_000).for_each(round);
    wait_for_connections(&place, 1);
    assert_flat(before, node.rss(), 4 << 20, "10 000 connections that are gone");
    alice.ping("still here");
    node.stop();
}

#[test]
fn flood_of_passwords_is_bounded_and_ends_its_streams() {
    let place = Place::new().set("c2s.tls=optional").set("limits.password_checks_queue=8");
    let (node, mut alice) = with_alice(&place);
    let before = node.rss();
    let message = BASE64.encode(plain("", "alice", "wrong"));
    let attempt = format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}</auth>"
    );
    let (mut refused, mut busy) = (0, 0);
    for round in 0..5 {
        let mut flood: Vec<_> = (0..60).map(|_| Client::connect(node.plain)).collect();
        for client in &mut flood {
            client.send(&format!("{HEADER}{}", attempt.repeat(8)));
        }
        for pinged in 0..20 {
            alice.ping(&format!("r{round}p{pinged}"));
        }
        for client in &mut flood {
            let said = client.expect_end();
            refused += said.matches("<not-authorized/>").count();
            busy += said.matches("<temporary-auth-failure/>").count();
            assert!(!said.contains("<success"), "{said}");
            assert!(said.contains("<policy-violation "), "too many failed logins: {said}");
        }
    }
    assert!(refused > 0 && busy > 0, "{refused} checked, {busy} not even that");
    assert_flat(before, node.rss(), 16 << 20, "passwords");
    alice.ping("still here");
    Client::log_in(&node, "alice", "secret").ping("and others may come");
}

#[test]
fn answers_do_not_tell_who_exists() {
    let place = Place::new().set("c2s.tls=optional");
    let (node, _alice) = with_alice(&place);
    let answer = |mechanism: &str, message: &str| {
        let mut client = Client::connect(node.plain);
        client.open();
        client.auth(mechanism, message);
        client.expect(">");
        client.expect("</")
    };
    let failed = |user: &str| answer("PLAIN", &BASE64.encode(plain("", user, "wrong")));
    assert_eq!(failed("alice"), failed("nobody"));
    assert_eq!(failed("alice"), failed("x"));
    // SCRAM: the same salt each time, of the same length, with the same number of rounds.
    let challenge = |user: &str| {
        let first = BASE64.encode(format!("n,,n={user},r=nonce"));
        let said = answer("SCRAM-SHA-256", &first);
        let text = BASE64.decode(said.trim_end_matches("</")).unwrap();
        let text = String::from_utf8(text).unwrap();
        let (nonce, rest) = text.split_once(",s=").unwrap();
        assert!(nonce.starts_with("r=nonce"));
        (nonce.len(), rest.to_owned())
    };
    let (known, unknown) = (challenge("alice"), challenge("nobody"));
    assert_eq!(known.0, unknown.0);
    assert_eq!(known.1.len(), unknown.1.len());
    assert_eq!(known.1.split_once(",i=").unwrap().1, unknown.1.split_once(",i=").unwrap().1);
    assert_eq!(challenge("alice").1, known.1);
    assert_eq!(challenge("nobody").1, unknown.1);
    assert_ne!(challenge("other").1, unknown.1);
}

#[test]
fn peer_that_closes_its_side_at_any_moment_is_let_go() {
    let place = Place::new().set("c2s.tls=optional");
    let (node, mut alice) = with_alice(&place);
    let conversation =
        format!("{HEADER}<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>");
    for length in (0..conversation.len()).step_by(7) {
        let mut socket = connect(node.plain);
        socket.write_all(&conversation.as_bytes()[..length]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let _ = socket.read_to_end(&mut Vec::new());
    }
    wait_for_connections(&place, 1);
    alice.ping("still here");
}
