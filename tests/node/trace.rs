//! `corefire trace` on a running node: what it tells of real sessions, and its bounds.

use crate::client::Client;
use crate::node::{Node, Place};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(15);

/// A trace that runs. Dropping it ends it, as its operator would.
struct Trace {
    child: Child,
    lines: Receiver<String>,
    /// What it has told so far.
    told: Vec<String>,
}

impl Trace {
    /// Returns when the node traces.
    #[track_caller]
    fn start(place: &Place, arguments: &[&str]) -> Trace {
        let mut command = place.program(&["trace"]);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let (tell, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in out.map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let mut first = String::new();
        errors.read_line(&mut first).unwrap();
        assert!(first.starts_with("corefire: tracing "), "{first}");
        child.stderr = Some(errors.into_inner());
        Trace { child, lines, told: Vec::new() }
    }

    /// The next line with this in it, which must come.
    #[track_caller]
    fn expect(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.told.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(_) => panic!("{text:?} never comes: {:#?}", self.told),
            }
        }
    }

    /// Waits until it has ended by itself; gives what it said of that.
    fn end(mut self) -> String {
        assert!(self.child.wait().unwrap().success());
        let mut rest = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
        rest
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A node on which alice and bob are online.
fn scene(place: &Place) -> (Node, Client, Client) {
    for name in ["alice", "bob"] {
        place.add_user(name, "pw");
    }
    let node = place.start();
    let alice = Client::log_in(&node, "alice", "pw");
    let mut bob = Client::log_in(&node, "bob", "pw");
    bob.send("<presence/>");
    bob.expect("<presence");
    (node, alice, bob)
}

fn message(to: &str, id: &str) -> String {
    format!("<message to='{to}' type='chat' id='{id}'><body>hush, hush</body></message>")
}

#[test]
fn a_message_is_told_hop_by_hop_and_its_text_is_not() {
    let place = Place::new();
    place.add_user("carol", "pw");
    let (node, mut alice, mut bob) = scene(&place);
    let mut trace = Trace::start(&place, &["alice@localhost", "--for", "60s"]);
    alice.send(&message("bob@localhost", "m1"));
    bob.expect("</message>");
    let received = trace.expect("received");
    assert!(
        received.contains(" +0 us ") && received.contains(" message chat alice@localhost/"),
        "{received}"
    );
    assert!(
        received.contains(" -> bob@localhost id=\"m1\" ") && received.ends_with(" B <body>"),
        "{received}"
    );
    let written = trace.expect("written");
    assert!(written.contains("; to bob@localhost/") && !written.contains(" +0 us "), "{written}");
    let stanza = |line: &str| line.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(stanza(&received), stanza(&written), "one stanza, on whatever shards");
    for step in [" delivered ", " us  shard "] {
        assert!(trace.told.iter().any(|line| line.contains(step)), "{:#?}", trace.told);
    }
    // Nobody is there, or nobody exists.
    alice.send(&message("carol@localhost", "m2"));
    trace.expect("offline");
    trace.expect("stored");
    alice.send(&message("nobody@localhost", "m3"));
    trace.expect("refused");
    trace.expect("message error service-unavailable nobody@localhost -> alice@localhost/");
    bob.send(&message("alice@localhost", "m4"));
    trace.expect("id=\"m4\"");
    let told = trace.told.join("\n");
    assert!(!told.contains("hush"), "{told}");
    drop((trace, alice, bob));
    node.stop();
}

#[test]
fn a_trace_ends_with_its_time_and_can_be_read_by_programs() {
    let place = Place::new();
    let (node, mut alice, mut bob) = scene(&place);
    let mut trace = Trace::start(&place, &["--id", "m1", "--for", "2s"]);
    let output = place
        .program(&["trace", "--id", "m1", "--for", "2", "--json"])
        .stdout(Stdio::piped())
        .spawn();
    let mut json = BufReader::new(output.unwrap().stdout.take().unwrap()).lines();
    let mut event =
        || -> serde_json::Value { serde_json::from_str(&json.next().unwrap().unwrap()).unwrap() };
    let began = event();
    assert_eq!(
        (&began["event"], &began["whom"], &began["seconds"]),
        (&"began".into(), &"m1".into(), &2.into())
    );
    alice.send(&message("bob@localhost", "m1"));
    bob.expect("</message>");
    alice.send(&message("bob@localhost", "m2"));
    bob.expect("</message>");
    trace.expect("written");
    assert!(trace.told.iter().all(|line| line.contains("id=\"m1\"")), "{:#?}", trace.told);
    let hops = trace.told.len();
    assert_eq!(trace.end(), format!("corefire: {hops} hops of 1 stanza; 0 hops left out\n"));
    let first = event();
    assert_eq!(
        (&first["event"], &first["step"], &first["since_us"]),
        (&"hop".into(), &"received".into(), &0.into())
    );
    assert_eq!(
        (&first["kind"], &first["type"], &first["id"]),
        (&"message".into(), &"chat".into(), &"m1".into())
    );
    assert_eq!(first["children"], serde_json::json!(["body"]));
    let ended = std::iter::repeat_with(event).find(|event| event["event"] != "hop").unwrap();
    assert_eq!(
        ended,
        serde_json::json!({"event": "ended", "hops": hops, "stanzas": 1, "left_out": 0})
    );
    drop((alice, bob));
    node.stop();
}

#[test]
fn a_busy_address_is_told_in_part_and_how_much_is_missing() {
    let place = Place::new();
    let (node, mut alice, mut bob) = scene(&place);
    let trace = Trace::start(&place, &["alice@localhost", "--for", "3s"]);
    alice.send(&message("bob@localhost", "m").repeat(500));
    for _ in 0..500 {
        bob.expect("</message>");
    }
    let told = trace.end();
    let numbers: Vec<u64> =
        told.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    let [hops, _, left_out] = numbers[..] else { panic!("{told}") };
    assert!((200..=800).contains(&hops), "at most 200 a second: {told}");
    assert!(hops + left_out >= 2_000, "four hops of each: {told}");
    drop((alice, bob));
    node.stop();
}

#[test]
fn so_many_traces_run_at_once_and_one_that_is_left_makes_room() {
    let place = Place::new();
    let node = place.start();
    let mut traces: Vec<Trace> =
        (0..4).map(|_| Trace::start(&place, &["--id", "m1", "--for", "10m"])).collect();
    let refused = || place.program(&["trace", "--id", "m1"]).output().unwrap();
    let told = String::from_utf8(refused().stderr).unwrap();
    assert!(
        told.starts_with("corefire: 4 traces run already") && told.lines().count() == 1,
        "{told}"
    );
    // Other commands are served meanwhile.
    place.run(&["status"]);
    traces.pop();
    let end = Instant::now() + PATIENCE;
    loop {
        let output = place.program(&["trace", "--id", "m1", "--for", "1s"]).output().unwrap();
        if output.status.success() {
            break;
        }
        assert!(Instant::now() < end, "its operator has gone, and it goes on");
    }
    node.stop();
    // Those that were left have seen their node end.
    for mut trace in traces {
        assert!(!trace.child.wait().unwrap().success());
    }
}

#[test]
fn an_address_that_cannot_be_traced_is_told_why() {
    let place = Place::new();
    let node = place.start();
    let refused = |arguments: &[&str]| {
        let output = place.program(arguments).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(
        refused(&["trace", "alice@else.org"]),
        "corefire: alice@else.org: this node serves localhost, not else.org; trace the local address that it talks with\n"
    );
    let nobody = place.program(&["trace", "nobody@localhost", "--for", "1s"]).output().unwrap();
    let told = String::from_utf8(nobody.stderr).unwrap();
    assert!(
        told.starts_with("corefire: warning: there is no account nobody@localhost\n"),
        "{told}"
    );
    assert!(nobody.status.success(), "it may be made meanwhile: {told}");
    node.stop();
}
