//! What a shard makes of a frame waits where its ring is full (DESIGN §4), and what that comes of is not handled before.

use crate::acks::{R, a};
use crate::harness::{Client, Node, bodies, chat};
use std::time::Duration;

const EQUAL: [(u32, u32); 3] = [(1, 1), (2, 1), (3, 1)];
const DRAINED: [(u32, u32); 3] = [(1, 1), (2, 0), (3, 1)];
/// What a ring holds before clients are stopped, and a stanza that fills it.
const SOME: usize = 4_000_000;
const REST: usize = 13_500_000;

/// Cores that frames go from and to: the first of each node.
const FIRST: usize = 0;
const SECOND: usize = 2;
const THIRD: usize = 4;

fn cluster() -> Node {
    let mut nodes = Node::cluster(3, 2, |config| {
        config.policy.limits.stanza_bytes_max = 20 << 20;
    });
    nodes.members(&EQUAL, &[]);
    nodes.advance(Duration::from_secs(1));
    nodes
}

/// A name whose account is at that core.
fn name_on(nodes: &Node, stem: &str, core: usize) -> String {
    let mut names = (0..10_000).map(|number| format!("{stem}{number}"));
    names.find(|name| nodes.owner(name) == core).expect("each core owns some")
}

fn online(nodes: &mut Node, stem: &str, core: usize) -> Client {
    let name = name_on(nodes, stem, core);
    nodes.online_acked(&name, "phone").0
}

fn padding(to: &str, bytes: usize) -> String {
    let text = "x".repeat(bytes);
    format!("<message type='headline' to='{to}@here'><x xmlns='urn:x'>{text}</x></message>")
}

/// Nothing comes from the node of one core to that of another, and the ring is full.
fn fill(nodes: &mut Node, from: usize, to: usize) {
    let (sender, sink) = (name_on(nodes, "filler", from), name_on(nodes, "sink", to));
    let sender = nodes.online(&sender, "pc");
    nodes.users(&[&sink]);
    nodes.hold_way(node_of(from), node_of(to));
    nodes.send(sender, &padding(&sink, SOME));
    nodes.send(sender, &padding(&sink, REST));
}

fn node_of(core: usize) -> u32 {
    1 + core as u32 / 2
}

/// A name whose account is at the second core, and at the third when its node is drained.
fn moving(nodes: &mut Node) -> String {
    nodes.members(&DRAINED, &[]);
    let names = (0..10_000).map(|number| format!("user{number}"));
    let moving: Vec<String> = names.filter(|name| nodes.owner(name) == THIRD).collect();
    nodes.members(&EQUAL, &[]);
    nodes.advance(Duration::from_secs(1));
    let name = moving.into_iter().find(|name| nodes.owner(name) == SECOND);
    let name = name.expect("the third node gets some of what the second had");
    nodes.users(&[&name]);
    name
}

fn dropped(nodes: &Node) -> u64 {
    (0..6).map(|shard| nodes.probe(shard).posts_dropped).sum()
}

/// R1.
#[test]
fn a_refusal_waits_for_room_and_its_stanza_is_not_handled_before() {
    let mut nodes = cluster();
    let alice = online(&mut nodes, "a", FIRST);
    let nobody = name_on(&nodes, "nobody", SECOND);
    fill(&mut nodes, SECOND, FIRST);
    nodes.send(alice, &chat(&format!("{nobody}@here"), "one"));
    nodes.send(alice, R);
    nodes.advance(Duration::from_secs(2));
    assert!(!nodes.read(alice).contains(&a(2)), "nobody has said anything yet");
    nodes.free_ways();
    nodes.advance(Duration::from_secs(1));
    nodes.send(alice, R);
    let text = nodes.read(alice);
    let refusal = text.find("<service-unavailable ").expect("a refusal");
    assert!(text.find(&a(2)).expect("an acknowledgement") > refusal, "{text}");
    assert_eq!(dropped(&nodes), 0);
}

/// R7.
#[test]
fn an_answer_waits_for_room() {
    let mut nodes = cluster();
    let alice = online(&mut nodes, "a", FIRST);
    let bob = name_on(&nodes, "b", SECOND);
    nodes.users(&[&bob]);
    fill(&mut nodes, SECOND, FIRST);
    let get = format!("<iq type='get' id='q' to='{bob}@here'><vCard xmlns='vcard-temp'/></iq>");
    nodes.send(alice, &get);
    nodes.free_ways();
    nodes.advance(Duration::from_secs(1));
    assert_eq!(nodes.read(alice).matches(" id='q'").count(), 1);
    assert_eq!(dropped(&nodes), 0);
}

/// What is on its way to an account that the second node has given to the third, to which its ring is full.
fn pass_on(nodes: &mut Node, name: &str, said: &[(Client, String)]) {
    fill(nodes, SECOND, THIRD);
    nodes.hold_way(1, 2);
    for (client, xml) in said {
        nodes.send(*client, xml);
    }
    nodes.members(&DRAINED, &[]);
    assert_eq!(nodes.owner(name), THIRD);
    nodes.free_ways();
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
}

/// R6.
#[test]
fn what_goes_on_waits_for_room_in_order() {
    let mut nodes = cluster();
    let name = moving(&mut nodes);
    let alice = online(&mut nodes, "a", FIRST);
    let to = format!("{name}@here");
    let said = ["one", "two"].map(|body| (alice, chat(&to, body)));
    pass_on(&mut nodes, &name, &said);
    nodes.send(alice, &chat(&to, "three"));
    nodes.send(alice, R);
    let text = nodes.read(alice);
    assert!(text.contains(&a(4)) && !text.contains("<error"), "{text}");
    assert_eq!(bodies(&nodes.kept(&name, false)), ["one", "two", "three"]);
}

/// The node that `name` is at is gone before it has heard what alice said, and the ring to the next owner is full.
fn lose(nodes: &mut Node, alice: Client, name: &str, said: &[&str]) {
    nodes.hold_way(1, 2);
    for body in said {
        nodes.send(alice, &chat(&format!("{name}@here"), body));
    }
    fill(nodes, FIRST, THIRD);
    nodes.kill_node(2);
    nodes.members(&[(1, 1), (3, 1)], &[]);
    assert_eq!(nodes.owner(name), THIRD);
    nodes.advance(Duration::from_secs(1));
}

/// R6.
#[test]
fn what_is_sent_again_waits_for_room_in_order() {
    let mut nodes = cluster();
    let name = moving(&mut nodes);
    let alice = online(&mut nodes, "a", FIRST);
    lose(&mut nodes, alice, &name, &["one", "two"]);
    nodes.free_ways();
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    nodes.send(alice, &chat(&format!("{name}@here"), "three"));
    nodes.send(alice, R);
    let text = nodes.read(alice);
    assert!(text.contains(&a(4)) && !text.contains("<error"), "{text}");
    assert_eq!(bodies(&nodes.kept(&name, false)), ["one", "two", "three"]);
}

/// The next owner is gone, too, before there is room.
#[test]
fn what_is_to_be_sent_again_goes_to_whom_it_is_for_then() {
    let mut nodes = cluster();
    let name = moving(&mut nodes);
    let alice = online(&mut nodes, "a", FIRST);
    lose(&mut nodes, alice, &name, &["one"]);
    nodes.kill_node(3);
    nodes.members(&[(1, 1)], &[]);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    nodes.send(alice, R);
    let text = nodes.read(alice);
    assert!(text.contains(&a(2)) && !text.contains("<error"), "{text}");
    assert_eq!(bodies(&nodes.kept(&name, false)), ["one"]);
}

#[test]
fn what_is_too_much_to_wait_goes_back() {
    let mut nodes = cluster();
    let name = moving(&mut nodes);
    let (alice, eve) = (online(&mut nodes, "a", FIRST), online(&mut nodes, "e", FIRST + 1));
    let said = [
        (alice, padding(&name, SOME)),
        (alice, padding(&name, REST)),
        (eve, chat(&format!("{name}@here"), "one")),
    ];
    pass_on(&mut nodes, &name, &said);
    nodes.send(eve, R);
    let text = nodes.read(eve);
    assert!(text.contains("<resource-constraint ") && text.contains(&a(2)), "{text}");
    assert!(bodies(&nodes.kept(&name, false)).is_empty());
}
