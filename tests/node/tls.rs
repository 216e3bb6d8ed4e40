//! TLS: both ways in, what is agreed on, and what must not get through before it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use corefire::stream::sasl::client::{ClientBinding, ScramClient};
use corefire::stream::sasl::{Mechanism, TLS_EXPORTER};
use rustls::ProtocolVersion;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::client::{Client, STARTTLS, config};
use crate::node::Place;

#[test]
fn direct_tls_agrees_on_its_protocol_and_serves() {
    let place = Place::new();
    place.add_user("alice", "secret");
    let node = place.start();
    let mut client = Client::direct(&node);
    assert_eq!(client.alpn().as_deref(), Some(&b"xmpp-client"[..]));
    assert_eq!(client.version(), Some(ProtocolVersion::TLSv1_3));
    let features = client.open();
    assert!(!features.contains("starttls"), "{features}");
    client.authenticate("alice", "secret");
    client.expect("<success");
    client.bind();
    client.ping("1");
}

#[test]
fn direct_tls_serves_clients_that_name_no_protocol_and_refuses_other_protocols() {
    let place = Place::new();
    let node = place.start();
    let mut client = Client::connect(node.direct);
    client.shake_hands(config(&node.certificate(), &[]));
    assert_eq!(client.alpn(), None);
    client.open();

    let refused = std::panic::catch_unwind(|| {
        let mut client = Client::connect(node.direct);
        client.shake_hands(config(&node.certificate(), &[b"h2"]));
    });
    assert!(refused.is_err(), "a client that speaks another protocol is refused (RFC 7301 §3.2)");
}

#[test]
fn starttls_is_required_and_then_plain_logs_in() {
    let place = Place::new();
    place.add_user("alice", "secret");
    let node = place.start();
    let mut client = Client::connect(node.plain);
    let features = client.open();
    assert!(features.contains("<required/>") && !features.contains("mechanism"), "{features}");
    client.authenticate("alice", "secret");
    client.expect(
        "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><encryption-required/></failure>",
    );

    let mut client = Client::starttls(&node);
    let features = client.open();
    assert!(features.contains("<mechanism>PLAIN</mechanism>"), "{features}");
    client.authenticate("alice", "wrong");
    client.expect("<not-authorized/>");
    client.authenticate("alice", "secret");
    client.expect("<success");
    client.bind();
    client.ping("1");
}

#[test]
fn a_login_is_bound_to_its_connection() {
    let place = Place::new();
    place.add_user("alice", "secret");
    let node = place.start();
    let log_in = |data: [u8; 32], mut client: Client| {
        let binding = ClientBinding::Used { kind: TLS_EXPORTER, data: &data };
        let mechanism = Mechanism::ScramSha256Plus;
        let mut scram = ScramClient::new(mechanism, "alice", "secret", "nonce", binding).unwrap();
        client.open();
        client.auth(mechanism.name(), &BASE64.encode(scram.first()));
        client.expect("<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>");
        let challenge = client.expect("</challenge>");
        let challenge = BASE64.decode(challenge.trim_end_matches("</challenge>")).unwrap();
        let last = BASE64.encode(scram.server_first(&challenge).unwrap());
        client
            .send(&format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{last}</response>"));
        client
    };
    let client = Client::direct(&node);
    log_in(client.exporter(), client).expect("<success");
    let client = Client::starttls(&node);
    let of_another = Client::starttls(&node).exporter();
    log_in(of_another, client).expect("<failure");
}

#[test]
fn bytes_behind_starttls_end_the_stream() {
    let place = Place::new().set("limits.handshakes_in_flight=1").set("node.shards=1");
    let node = place.start();
    let mut client = Client::connect(node.plain);
    client.open();
    client.send(&format!("{STARTTLS}<iq type='get' id='smuggled'/>"));
    let end = client.expect_end();
    assert!(!end.contains("smuggled"), "{end}");
    // It holds no place among the handshakes, though its end is open still.
    Client::starttls(&node).open();
}

#[test]
fn what_is_no_tls_ends_the_connection() {
    let place = Place::new();
    let node = place.start();
    for garbage in ["<stream:stream>".as_bytes(), &[0x16, 3, 1, 0xff, 0xff, 0, 0]] {
        let mut socket = TcpStream::connect(node.direct).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(garbage).unwrap();
        let _ = socket.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        // An alert and an end, or a reset; no time-out.
        if let Err(error) = socket.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        }
        assert!(answer.len() < 16, "an alert at most");
    }
    Client::direct(&node).open();
}

#[test]
fn handshakes_that_stall_make_room_for_others() {
    let place = Place::new()
        .set("limits.handshakes_in_flight=1")
        .set("limits.login_timeout_s=1")
        .set("node.shards=1");
    let node = place.start();
    // Each takes the only place, or waits for it, and says nothing.
    let stalled: Vec<_> = (0..3).map(|_| TcpStream::connect(node.direct).unwrap()).collect();
    let mut upgrading: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Client::connect(node.plain);
            client.open();
            client.send(STARTTLS);
            client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            client
        })
        .collect();
    for mut socket in stalled {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert!(!matches!(socket.read(&mut [0]), Ok(1)), "closed, when its time had passed");
    }
    for client in &mut upgrading {
        assert_eq!(client.expect_end(), "");
    }
    for _ in 0..2 {
        Client::direct(&node).open();
        Client::starttls(&node).open();
    }
}
