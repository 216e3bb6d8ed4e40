//! Balancers in front of the node (PROXY protocol), and clients over IPv6.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::client::{Client, STARTTLS, config};
use crate::node::{Node, Place};

const LINE: &[u8] = b"PROXY TCP4 203.0.113.5 198.51.100.1 50000 5222\r\n";

fn binary(client: [u8; 4], extensions: &[u8]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend(u16::try_from(12 + extensions.len()).unwrap().to_be_bytes());
    header.extend(client);
    header.extend([198, 51, 100, 1, 0xC3, 0x50, 0x14, 0x66]);
    header.extend(extensions);
    header
}

fn behind_a_balancer() -> Place {
    Place::new()
        .set("c2s.proxy_protocol=true")
        .set("c2s.proxy_from=[\"127.0.0.1\", \"::1\"]")
        .set("log.level=debug")
}

/// A connection whose first bytes are `header`.
fn through(address: SocketAddr, header: &[u8]) -> Client {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(header).unwrap();
    Client::over(socket)
}

#[track_caller]
fn logs_in(client: &mut Client, node: &Node) {
    client.open();
    client.send(STARTTLS);
    client.expect("<proceed");
    client.expect("/>");
    client.shake_hands(config(&node.certificate(), &[]));
    client.open();
    client.authenticate("alice", "secret");
    client.expect("<success");
    client.bind();
}

#[test]
fn the_address_in_the_header_is_the_clients() {
    let place = behind_a_balancer();
    place.add_user("alice", "secret");
    let mut node = place.start();
    let mut line = through(node.plain, LINE);
    logs_in(&mut line, &node);
    drop(line);
    node.wait_for_log("203.0.113.5");
    let mut starttls = through(node.plain, &binary([203, 0, 113, 6], b"\x04\x00\x00"));
    logs_in(&mut starttls, &node);
    drop(starttls);
    node.wait_for_log("203.0.113.6");
    let mut direct = through(node.direct, &binary([203, 0, 113, 7], &[]));
    direct.shake_hands(config(&node.certificate(), &[b"xmpp-client"]));
    direct.open();
    drop(direct);
    node.wait_for_log("203.0.113.7");
    node.stop();
}

#[test]
fn a_header_may_come_in_pieces_and_together_with_what_follows() {
    let place = behind_a_balancer();
    place.add_user("alice", "secret");
    let node = place.start();
    let mut socket = TcpStream::connect(node.plain).unwrap();
    socket.set_nodelay(true).unwrap();
    for byte in binary([203, 0, 113, 5], &[]) {
        socket.write_all(&[byte]).unwrap();
    }
    logs_in(&mut Client::over(socket), &node);
    let open = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                xmlns:stream='http://etherx.jabber.org/streams'>";
    let mut together = through(node.plain, &[LINE, open.as_bytes()].concat());
    together.expect("</stream:features>");
    // A handshake whose first bytes come with the header.
    let mut hello = rustls::ClientConnection::new(
        std::sync::Arc::new(config(&node.certificate(), &[])),
        "localhost".try_into().unwrap(),
    )
    .unwrap();
    let mut bytes = LINE.to_vec();
    hello.write_tls(&mut bytes).unwrap();
    let mut socket = TcpStream::connect(node.direct).unwrap();
    socket.write_all(&bytes).unwrap();
    while hello.is_handshaking() {
        hello.complete_io(&mut socket).unwrap();
    }
    drop((together, socket));
    node.stop();
}

#[test]
fn a_balancer_that_speaks_for_itself_is_served() {
    let node = behind_a_balancer().start();
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        through(node.plain, header).open();
    }
    node.stop();
}

#[test]
fn what_is_no_header_ends_the_connection() {
    let node = behind_a_balancer().start();
    for start in [&b"<stream:stream"[..], b"PROXY TCP4 x\r\n", &binary([1; 4], &[9; 5_000])] {
        for address in [node.plain, node.direct] {
            assert!(Client::is_refused(TcpStream::connect(address), start));
        }
    }
    node.stop();
}

#[test]
fn a_header_must_come_in_time() {
    let node = behind_a_balancer().set("limits.login_timeout_s=1").start();
    let began = Instant::now();
    let mut silent = Client::connect(node.plain);
    let mut half = through(node.plain, b"PROXY TCP4");
    assert_eq!(silent.expect_end() + &half.expect_end(), "");
    assert!(began.elapsed() < Duration::from_secs(10));
    node.stop();
}

#[test]
fn connections_from_elsewhere_are_closed_and_bans_hold_for_the_client() {
    let place = behind_a_balancer()
        .set("c2s.proxy_from=[\"127.0.0.2\"]")
        .set("access.banned=[\"203.0.113.0/24\", \"127.0.0.2\"]");
    let node = place.start();
    assert!(Client::is_refused(TcpStream::connect(node.plain), LINE));
    let from_balancer = || {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let ours = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), 0);
        socket.bind(&ours.into()).unwrap();
        socket.connect(&node.plain.into()).map(|()| TcpStream::from(socket))
    };
    assert!(Client::is_refused(from_balancer(), LINE));
    let mut served = from_balancer().unwrap();
    served.write_all(&binary([198, 51, 100, 7], &[])).unwrap();
    Client::over(served).open();
    node.stop();
}

#[test]
fn clients_are_served_over_ipv6() {
    let place = Place::new()
        .set("c2s.listen=[\"[::1]:0\"]")
        .set("c2s.direct_tls_listen=[\"[::1]:0\"]")
        .set("log.level=debug");
    place.add_user("alice", "secret");
    let mut node = place.start();
    assert!(node.plain.is_ipv6() && node.direct.is_ipv6());
    assert!(place.run(&["status"]).contains(&node.plain.to_string()));
    let mut client = Client::log_in(&node, "alice", "secret");
    client.ping("1");
    Client::direct(&node).open();
    drop(client);
    node.wait_for_log("peer=::1");
    node.stop();
    let banned = place.set("access.banned=[\"::/64\"]").start();
    assert!(Client::is_refused(TcpStream::connect(banned.plain), b""));
    banned.stop();
}

#[test]
fn proxy_protocol_without_balancers_is_refused() {
    let place = Place::new().set("c2s.proxy_protocol=true");
    let line = place.refused(place.program(&["serve"]));
    assert!(line.contains("proxy_from is empty") && line.contains("write"), "{line}");
}
