//! What a shard measures of the stanzas and logins that pass through it (DESIGN section 9).

use crate::harness::*;
use corefire::shard::Latencies;
use std::time::Duration;

/// Series that have counted: name, how often, and the longest in microseconds.
fn told(latencies: &Latencies) -> Vec<(String, u64, u64)> {
    let stanzas = latencies.stanzas().map(|(kind, path, stage, counts)| {
        (format!("{kind:?} {} {}", path.name(), stage.name()), counts)
    });
    let logins = latencies
        .logins()
        .map(|(mechanism, end, counts)| (format!("{mechanism} {}", end.name()), counts));
    let mut all = Vec::new();
    for (name, counts) in stanzas.chain(logins) {
        if let Some(counts) = counts.histogram() {
            all.push((name, counts.len(), counts.max() / 1_000));
        }
    }
    all
}

#[track_caller]
fn has(latencies: &Latencies, name: &str, count: u64, micros: std::ops::Range<u64>) {
    let told = told(latencies);
    let found = told.iter().find(|(one, ..)| one == name);
    let is_right =
        found.is_some_and(|(_, times, longest)| *times == count && micros.contains(longest));
    assert!(is_right, "{name} {count} {micros:?}, not {told:?}");
}

fn stanzas(xml: &str) -> usize {
    ["<message ", "<presence ", "<iq "].iter().map(|start| xml.matches(start).count()).sum()
}

/// Two names that live on different shards of two.
fn apart(node: &Node) -> (&'static str, &'static str) {
    let names = ["alice", "bob", "carol", "dave", "erin", "frank"];
    let other = names.iter().find(|name| node.owner(name) != node.owner("alice"));
    ("alice", other.unwrap())
}

#[test]
fn a_message_on_one_shard_is_timed_from_its_read_to_its_write() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (alice, bob) = (node.online("alice", "a"), node.online("bob", "b"));
    node.measure();
    node.writing_takes = Duration::from_micros(250);
    node.send(alice, &chat("bob@here", "one").repeat(8));
    assert_eq!(node.count(bob), 8);
    let latencies = node.latencies(0);
    has(&latencies, "Message same_shard total", 8, 248..254);
    has(&latencies, "Message same_shard write", 8, 248..254);
    assert!(told(&latencies).iter().all(|(name, ..)| !name.contains("core")), "{latencies:?}");
    assert!(told(&node.latencies(0)).is_empty(), "taken is taken");
}

#[test]
fn a_message_between_shards_is_timed_with_its_hop() {
    let mut node = Node::new(2);
    let (one, other) = apart(&node);
    node.users(&[one, other]);
    let (sender, _recipient) = (node.online(one, "a"), node.online(other, "b"));
    node.measure();
    node.hold_rings();
    node.send(sender, &chat(&format!("{other}@here"), "one"));
    node.advance(Duration::from_micros(700));
    node.writing_takes = Duration::from_micros(300);
    node.free_rings();
    let (from, to) = (node.owner(one), node.owner(other));
    let latencies = node.latencies(to);
    has(&latencies, "Message core core_hop", 1, 695..710);
    has(&latencies, "Message core write", 1, 298..304);
    has(&latencies, "Message core total", 1, 990..1_010);
    assert!(told(&node.latencies(from)).is_empty(), "the sender's shard has written nothing");
}

/// One way is an estimate, and none is made of clocks that nobody has compared.
#[test]
fn a_message_between_nodes_is_timed_by_clocks_that_were_compared() {
    let mut nodes = Node::cluster(2, 1, |_| {});
    nodes.members(&[(1, 1), (2, 1)], &[]);
    let (one, other) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    let (sender, _recipient) = (nodes.online(&one, "a"), nodes.online(&other, "b"));
    nodes.measure();
    let timed = |nodes: &mut Node, from: u32| {
        nodes.clock_ahead = Some((from, Duration::from_secs(3_600)));
        nodes.hold_rings();
        nodes.send(sender, &chat(&format!("{other}@here"), "one"));
        nodes.advance(Duration::from_micros(400));
        nodes.writing_takes = Duration::from_micros(300);
        nodes.free_rings();
        nodes.writing_takes = Duration::ZERO;
        nodes.latencies(nodes.owner(&other))
    };
    // Either clock an hour ahead of the other.
    for from in [1, 2] {
        let latencies = timed(&mut nodes, from);
        assert!(told(&latencies).is_empty(), "{:?}", told(&latencies));
    }
    nodes.clocks_compared = true;
    for from in [1, 2] {
        let latencies = timed(&mut nodes, from);
        has(&latencies, "Message node node_hop", 1, 395..410);
        has(&latencies, "Message node write", 1, 298..304);
        has(&latencies, "Message node total", 1, 690..710);
    }
}

#[test]
fn what_answers_an_iq_is_timed_as_an_iq() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let alice = node.online("alice", "a");
    node.measure();
    node.send(alice, "<iq type='get' id='1' to='here'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert!(node.read(alice).contains("type='result'"));
    has(&node.latencies(0), "Iq same_shard total", 1, 0..1);
}

#[test]
fn presence_that_goes_around_is_timed_for_each_who_sees_it() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let alice = node.online("alice", "a");
    let others = [node.online("alice", "b"), node.online("alice", "c")];
    node.measure();
    node.send(alice, "<presence><status>out</status></presence>");
    assert!(others.iter().all(|other| node.read(*other).contains("out")));
    has(&node.latencies(0), "Presence same_shard total", 3, 0..1);
}

#[test]
fn one_stanza_in_64_has_its_parsing_and_routing_timed() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (alice, _bob) = (node.online("alice", "a"), node.online("bob", "b"));
    node.measure();
    for _ in 0..128 {
        node.send(alice, &chat("bob@here", "one"));
    }
    let latencies = node.latencies(0);
    has(&latencies, "Message same_shard parse", 2, 0..10);
    has(&latencies, "Message same_shard route", 2, 0..2);
    has(&latencies, "Message same_shard total", 128, 0..1);
}

#[test]
fn a_stored_message_is_timed_until_it_is_durable() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (alice, _) = node.online_acked("alice", "a");
    let bob = node.online("bob", "b");
    node.send(alice, &chat("bob@here", "first"));
    node.measure();
    node.hold_store();
    node.send(alice, &chat("bob@here", "one"));
    node.advance(Duration::from_millis(4));
    node.free_store();
    assert!(node.read(bob).contains("one"));
    has(&node.latencies(0), "Message same_shard store", 1, 3_990..4_050);
}

#[test]
fn an_acknowledgement_is_timed_from_the_delivery_on() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let alice = node.online("alice", "a");
    let (bob, _) = node.online_acked("bob", "b");
    // Its own presence has come and is acknowledged.
    let before = 1;
    node.measure();
    node.send(alice, &chat("bob@here", "one").repeat(2));
    node.advance(Duration::from_millis(30));
    let sent = before + stanzas(&node.read(bob));
    node.send(bob, &format!("<a xmlns='urn:xmpp:sm:3' h='{sent}'/>"));
    has(&node.latencies(0), "Message same_shard client_ack", 2, 29_900..30_300);
}

#[test]
fn how_long_a_client_was_away_is_not_taken_for_its_acknowledgement() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let alice = node.online("alice", "a");
    let (bob, id) = node.online_acked("bob", "b");
    // Its own presence has come and is acknowledged.
    let before = 1;
    node.measure();
    node.send(alice, &chat("bob@here", "one"));
    node.cut(bob);
    node.advance(Duration::from_secs(20));
    let again = node.authenticate(0, "bob");
    node.send(again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{before}'/>"));
    let sent = before + stanzas(&node.read(again));
    node.send(again, &format!("<a xmlns='urn:xmpp:sm:3' h='{sent}'/>"));
    let told = told(&node.latencies(0));
    assert!(told.iter().all(|(name, ..)| !name.ends_with("client_ack")), "{told:?}");
}

#[test]
fn a_client_that_reads_late_is_counted_when_it_reads() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (alice, bob) = (node.online("alice", "a"), node.online("bob", "b"));
    node.measure();
    node.stop_reading(bob);
    node.send(alice, &chat("bob@here", "one"));
    assert!(told(&node.latencies(0)).is_empty());
    node.advance(Duration::from_millis(900));
    node.read_on(bob);
    assert!(node.read(bob).contains("one"));
    let latencies = node.latencies(0);
    has(&latencies, "Message same_shard total", 1, 895_000..910_000);
    // One that never does is not counted at all.
    node.stop_reading(bob);
    node.send(alice, &chat("bob@here", "two"));
    node.cut(bob);
    assert!(told(&node.latencies(0)).iter().all(|(name, ..)| !name.contains("total")));
}

#[test]
fn readers_that_never_read_cost_a_bounded_list() {
    let mut node = Node::with(1, |config| config.limits.output_bytes = 4 << 20);
    node.users(&["alice", "bob"]);
    let (alice, bob) = (node.online("alice", "a"), node.online("bob", "b"));
    node.measure();
    node.stop_reading(bob);
    // Each in a read of its own, at another time.
    for _ in 0..5_000 {
        node.advance(Duration::from_micros(1));
        node.send(alice, "<message to='bob@here/b' type='chat'/>");
    }
    assert_eq!(node.latencies(0).uncounted, 5_000 - 4_096);
}

#[test]
fn logins_are_timed_by_mechanism_and_by_what_they_lead_to() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    node.measure();
    let (alice, id) = node.online_acked("alice", "a");
    has(&node.latencies(0), "PLAIN bound", 1, 0..1);
    node.cut(alice);
    let again = node.authenticate(0, "alice");
    node.advance(Duration::from_millis(2));
    node.send(again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"));
    assert!(node.read(again).contains("<resumed "));
    has(&node.latencies(0), "PLAIN resumed", 1, 1_990..2_020);
}

#[test]
fn nothing_is_counted_unless_it_is_asked_for() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (alice, _bob) = (node.online("alice", "a"), node.online("bob", "b"));
    node.send(alice, &chat("bob@here", "one").repeat(100));
    assert_eq!(*node.latencies(0), Latencies::default());
}
