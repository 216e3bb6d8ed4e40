//! HAProxy in front of a node, with `config/haproxy.cfg` as it is but for its addresses. Where HAProxy is not installed
//! the test says so and does nothing; in CI it must be there.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::client::{Client, STARTTLS, config};
use crate::node::{Node, Place};

const EXAMPLE: &str = include_str!("../../config/haproxy.cfg");
const START: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(20);
/// Debian has it where users do not look.
const PROGRAMS: [&str; 2] = ["haproxy", "/usr/sbin/haproxy"];

/// Ends with the test.
struct Balancer {
    child: Child,
    plain: SocketAddr,
    direct: SocketAddr,
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program() -> Option<&'static str> {
    let runs = |program: &&str| {
        let mut command = Command::new(program);
        command.arg("-v").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    PROGRAMS.into_iter().find(runs)
}

/// The example with other addresses; each of them must be there.
fn configuration(node: &Node, plain: SocketAddr, direct: SocketAddr) -> String {
    let mut text = EXAMPLE.to_owned();
    for (example, ours) in [
        ("maxconn 200000".to_owned(), "maxconn 100".to_owned()),
        ("bind :::5222 v4v6".to_owned(), format!("bind {plain}")),
        ("bind :::5223 v4v6".to_owned(), format!("bind {direct}")),
        ("server node1 10.0.0.11:5222 ".to_owned(), format!("server node1 {} ", node.plain)),
        ("server node1 10.0.0.11:5223 ".to_owned(), format!("server node1 {} ", node.direct)),
        ("port 5290 ".to_owned(), format!("port {} ", node.admin.port())),
    ] {
        assert!(text.contains(&example), "config/haproxy.cfg has no {example:?}");
        text = text.replace(&example, &ours);
    }
    text
}

fn start(program: &str, place: &Place, node: &Node) -> Balancer {
    // Held together, so that they differ.
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [plain, direct] = held.each_ref().map(|listener| listener.local_addr().unwrap());
    drop(held);
    let file = place.path("haproxy.cfg");
    std::fs::write(&file, configuration(node, plain, direct)).unwrap();
    // In the foreground, its own master.
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.stderr(std::fs::File::create(place.path("haproxy.log")).unwrap()).spawn();
    let mut balancer = Balancer { child: child.unwrap(), plain, direct };
    let until = Instant::now() + START;
    while TcpStream::connect(plain).is_err() {
        let told = || std::fs::read_to_string(place.path("haproxy.log")).unwrap_or_default();
        assert!(balancer.child.try_wait().unwrap().is_none(), "it refuses: {}", told());
        assert!(Instant::now() < until, "it does not listen: {}", told());
        std::thread::sleep(STEP);
    }
    balancer
}

/// From an address that is neither the balancer's nor the node's.
fn connect(from: [u8; 4], to: SocketAddr) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect_timeout(&to.into(), START).unwrap();
    Client::over(socket.into())
}

fn log_in(client: &mut Client) {
    client.open();
    client.authenticate("alice", "secret");
    client.expect("<success");
    client.bind();
    client.ping("through");
}

fn addresses(place: &Place) -> Vec<String> {
    let listed = place.run(&["session", "list", "--json"]);
    let sessions = listed.lines().map(|line| serde_json::from_str(line).unwrap());
    sessions
        .map(|session: serde_json::Value| session["address"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn clients_log_in_through_haproxy_and_keep_their_addresses() {
    let Some(program) = program() else {
        assert!(std::env::var("CI").is_err(), "haproxy is not installed");
        // Not by the macro, whose words are shown of tests that fail alone.
        let told = std::io::stderr().write_all(b"haproxy is not installed: skipped\n");
        told.unwrap();
        return;
    };
    let place = Place::new().set("c2s.proxy_protocol=true").set("c2s.proxy_from=[\"127.0.0.1\"]");
    place.add_user("alice", "secret");
    let node = place.start();
    let balancer = start(program, &place, &node);
    let mut starttls = connect([127, 0, 0, 51], balancer.plain);
    starttls.open();
    starttls.send(STARTTLS);
    starttls.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    starttls.shake_hands(config(&node.certificate(), &[]));
    log_in(&mut starttls);
    assert_eq!(addresses(&place), ["127.0.0.51"]);
    let mut direct = connect([127, 0, 0, 52], balancer.direct);
    direct.shake_hands(config(&node.certificate(), &[b"xmpp-client"]));
    // The same resource: the earlier session goes.
    log_in(&mut direct);
    assert!(starttls.expect_end().contains("<conflict "));
    assert_eq!(addresses(&place), ["127.0.0.52"]);
    drop(direct);
    // With nobody behind it, it lets nobody in.
    node.stop();
    let mut late = connect([127, 0, 0, 53], balancer.plain);
    let _ = late.try_send(crate::client::HEADER);
    assert_eq!(late.expect_end(), "");
}
