//! The admin address of a running node: probes, metrics, and what needs the token.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::client::Client;
use crate::node::{Node, Place};
use corefire_shard_map::{Follower, Source};

fn request(node: &Node, method: &str, path: &str, host: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(node.admin).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn ask(node: &Node, path: &str, more: &str) -> (String, String) {
    let answer = request(node, "GET", path, &node.admin.to_string(), more);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[track_caller]
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

#[test]
fn metrics_count_what_happens() {
    let place = Place::new();
    place.add_user("alice", "secret");
    place.add_user("bob", "secret");
    let node = place.start();
    let mut alice = Client::log_in(&node, "alice", "secret");
    for number in 0..5 {
        alice.send(&format!(
            "<message to='bob@localhost' type='chat' id='m{number}'><body>hi</body></message>"
        ));
    }
    alice.send("<message to='nobody@localhost' type='chat' id='n'><body>hi</body></message>");
    alice.expect("service-unavailable");
    let mut wrong = Client::starttls(&node);
    wrong.open();
    wrong.authenticate("alice", "wrong");
    wrong.expect("<not-authorized/>");
    // The messages are in the store when their commits are.
    let text = loop {
        let (head, text) = ask(&node, "/metrics", "");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(
            head.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{head}"
        );
        if metric(&text, "corefire_store_writes_total") >= 5.0 {
            break text;
        }
    };
    assert!(text.ends_with("# EOF\n"));
    let sum = |name: &str| {
        (0..2).map(|shard| metric(&text, &format!("{name}{{shard=\"{shard}\"}}"))).sum::<f64>()
    };
    assert!((sum("corefire_shard_sessions") - 1.0).abs() < 0.1);
    assert!((sum("corefire_shard_connections") - 2.0).abs() < 0.1);
    for (name, least) in [
        ("corefire_shard_logins_total{outcome=\"done\"}", 1.0),
        ("corefire_shard_logins_total{outcome=\"failed\"}", 1.0),
        ("corefire_shard_messages_total{fate=\"stored\"}", 5.0),
        ("corefire_shard_messages_total{fate=\"bounced\"}", 1.0),
        ("corefire_listener_tls_handshakes_total{outcome=\"done\"}", 2.0),
        ("corefire_store_commit_seconds_count", 1.0),
        ("corefire_process_resident_bytes", 1e6),
        ("corefire_process_open_files", 10.0),
        ("corefire_node_ready", 1.0),
        ("corefire_node_connections_max", 32.0),
        ("corefire_shard_cpu_seconds_total{shard=\"0\"}", 1e-4),
    ] {
        assert!(metric(&text, name) >= least, "{name}\n{text}");
    }
    assert!(metric(&text, "corefire_node_shards_late") < 1.0);
    // The certificate that the node made for itself is good for centuries.
    let expiry =
        metric(&text, "corefire_tls_certificate_expiry_timestamp_seconds{domain=\"localhost\"}");
    assert!(expiry > 4e9, "{expiry}");
    for secret in ["alice", "bob", "@localhost", "127.0.0.1"] {
        assert!(!text.contains(secret), "labels never name anybody: {secret}");
    }
    drop((alice, wrong));
    node.stop();
}

#[test]
fn probes_are_open_and_the_status_needs_the_token() {
    let place = Place::new();
    let node = place.start();
    assert_eq!(ask(&node, "/livez", "").1, "live\n");
    assert_eq!(ask(&node, "/readyz", "").1, "ready\n");
    assert!(ask(&node, "/status", "").0.starts_with("HTTP/1.1 401"));
    assert!(ask(&node, "/anything", "").0.starts_with("HTTP/1.1 401"));
    let path = place.data_dir().join("admin-token");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let bearer = format!("Authorization: Bearer {}\r\n", std::fs::read_to_string(path).unwrap());
    let status: serde_json::Value =
        serde_json::from_str(&ask(&node, "/status", &bearer).1).unwrap();
    assert_eq!(status["pid"], node.pid());
    assert!(ask(&node, "/anything", &bearer).0.starts_with("HTTP/1.1 404"));
    assert!(ask(&node, "/livez", "Origin: http://evil.example\r\n").0.starts_with("HTTP/1.1 403"));
    node.stop();
}

#[test]
fn the_overview_tells_of_shards_talkers_and_certificates() {
    let place = Place::new();
    place.add_user("alice", "secret");
    let node = place.start();
    let path = place.data_dir().join("admin-token");
    let bearer = format!("Authorization: Bearer {}\r\n", std::fs::read_to_string(path).unwrap());
    let mut alice = Client::log_in(&node, "alice", "secret");
    for number in 0..100 {
        alice.send(&format!(
            "<message to='nobody@localhost' type='chat' id='m{number}'><body>hi</body></message>"
        ));
    }
    alice.expect("id='m99'");
    let overview: serde_json::Value =
        serde_json::from_str(&ask(&node, "/api/v1/overview", &bearer).1).unwrap();
    assert_eq!(overview["pid"], node.pid());
    assert_eq!(overview["ready"], true);
    assert_eq!(overview["not_ready"], serde_json::Value::Null);
    assert_eq!(overview["certificates"][0]["domain"], "localhost");
    assert_eq!(overview["certificates"][0]["self_signed"], true);
    let talker = overview["talkers"]["by_stanzas"][0]["jid"].as_str().unwrap();
    assert!(talker.starts_with("alice@localhost/"), "{overview}");
    let shards = overview["shards"].as_array().unwrap();
    assert_eq!(shards.len(), 2);
    let sum = |field: &str| shards.iter().map(|shard| shard[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum("sessions"), 1);
    assert!(sum("stanzas_in") >= 100 && sum("cpu_us") > 100, "{overview}");
    assert!(shards.iter().all(|shard| shard["late"] == false), "{overview}");
    let text = place.run(&["status"]);
    assert!(text.contains("\ntalkers    alice@localhost/"), "{text}");
    drop(alice);
    node.stop();
}

/// What a browser is told to refuse, of every answer; and what an answer without the token never has.
#[test]
fn the_page_is_open_and_what_it_shows_is_not() {
    let place = Place::new();
    place.add_user("alice", "secret");
    let node = place.start();
    let token = std::fs::read_to_string(place.data_dir().join("admin-token")).unwrap();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let _alice = Client::log_in(&node, "alice", "secret");
    let (head, document) = ask(&node, "/", "");
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-type: text/html"), "{head}");
    for path in ["/page/main.js", "/page/charts.js", "/page/style.css", "/page/icon.svg"] {
        let (head, body) = ask(&node, path, "");
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("nosniff"), "{path}: {head}");
        for secret in [token.as_str(), "alice", "localhost"] {
            assert!(!body.contains(secret) && !document.contains(secret), "{path}: {secret}");
        }
    }
    for path in ["/", "/page/main.js", "/api/v1/overview", "/metrics", "/livez", "/nothing"] {
        let (head, _) = ask(&node, path, "");
        let policy =
            head.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
        for rule in
            ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(!head.contains("access-control-"), "no other site may read it: {head}");
        assert!(!head.contains("set-cookie"), "{head}");
    }
    for more in ["", "Authorization: Bearer 00\r\n", &format!("Cookie: token={token}\r\n")] {
        let (head, body) = ask(&node, "/api/v1/overview", more);
        assert!(head.starts_with("HTTP/1.1 401"), "{more}: {head}");
        assert!(!body.contains("alice"), "{body}");
    }
    // A token in the address would stand in histories and logs.
    let (head, _) = ask(&node, &format!("/api/v1/overview?token={token}"), "");
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    for path in ["/", "/api/v1/overview"] {
        let foreign = format!("{bearer}Origin: http://evil.example\r\n");
        assert!(ask(&node, path, &foreign).0.starts_with("HTTP/1.1 403"), "{path}");
        let rebound = request(&node, "GET", path, "evil.example", &bearer);
        assert!(rebound.starts_with("HTTP/1.1 421"), "{path}: {rebound}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let answer = request(&node, method, path, "localhost", &bearer);
            assert!(answer.starts_with("HTTP/1.1 405"), "{method} {path}: {answer}");
        }
    }
    let answer = request(&node, "GET", "/api/v1/overview", "localhost", &bearer);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    node.stop();
}

/// As a sending service does it: by the client library, which keeps the map and asks for a newer one only.
#[test]
fn the_shard_map_is_told_and_followed() {
    let place = Place::new();
    let node = place.start();
    let token = std::fs::read_to_string(place.data_dir().join("admin-token")).unwrap();
    assert!(ask(&node, "/api/v1/shard-map", "").0.starts_with("HTTP/1.1 401"));
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let (head, json) = ask(&node, "/api/v1/shard-map", &bearer);
    assert!(head.contains("content-type: application/json"), "{head}");
    let etag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
    assert!(etag.starts_with("\"0-"), "{etag}");
    let (head, body) =
        ask(&node, "/api/v1/shard-map", &format!("{bearer}If-None-Match: {etag}\r\n"));
    assert!(head.starts_with("HTTP/1.1 304") && head.contains(etag) && body.is_empty(), "{head}");
    assert_eq!(place.run(&["cluster", "map", "--json"]).trim_end(), json);
    let mut follower = Follower::start(Source { address: node.admin.to_string(), token }).unwrap();
    assert!(!follower.refresh().unwrap());
    let owner = follower.map().owner("Alice@localhost/phone");
    let whereis: serde_json::Value =
        serde_json::from_str(&place.run(&["whereis", "alice@localhost", "--json"])).unwrap();
    assert_eq!(whereis["shard"], owner.shard);
    assert_eq!(whereis["partition"], owner.partition);
    assert_eq!(whereis["node"], owner.member.name);
    node.stop();
}

#[test]
fn a_stopping_node_is_not_ready() {
    let place = Place::new().set("limits.shutdown_s=3");
    let node = place.start();
    // The node waits a while for clients that do not close their side.
    let mut client = Client::connect(node.plain);
    client.open();
    node.signal(libc::SIGTERM);
    let mut answer = String::from("ready\n");
    while answer == "ready\n" {
        answer = ask(&node, "/readyz", "").1;
    }
    assert_eq!(answer, "not ready: the node is stopping\n");
    assert_eq!(ask(&node, "/livez", "").1, "live\n");
    drop(client);
    node.stop();
}

#[test]
fn an_admin_address_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let place = Place::new().set(&format!("admin.listen={address}"));
    let line = place.refused(place.program(&["serve"]));
    let wanted = format!("corefire: admin.listen: {address} is in use by another process");
    assert!(line.starts_with(&wanted), "{line}");
}

#[test]
fn the_service_manager_is_told_of_the_nodes_life() {
    let place = Place::new();
    let manager = UnixDatagram::bind(place.path("notify.sock")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let heard = || {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut command = place.program(&["serve"]);
    command.env("NOTIFY_SOCKET", place.path("notify.sock")).env("WATCHDOG_USEC", "200000");
    let node = place.start_as(command);
    assert_eq!(heard(), "READY=1");
    assert_eq!(heard(), "WATCHDOG=1");
    node.signal(libc::SIGHUP);
    let mut news = heard();
    while news == "WATCHDOG=1" {
        news = heard();
    }
    assert!(news.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{news}");
    assert_eq!(heard(), "READY=1");
    node.signal(libc::SIGTERM);
    let mut news = heard();
    while news == "WATCHDOG=1" {
        news = heard();
    }
    assert_eq!(news, "STOPPING=1");
    node.stop();
}
