//! What peers can make grow has a bound, and each bound its answer.

use crate::harness::*;
use std::time::Duration;

fn big(to: &str) -> String {
    chat(to, &"x".repeat(10_000))
}

#[test]
fn slow_reader_is_closed_and_may_resume() {
    let mut node = Node::with(1, |config| config.limits.output_bytes = 100_000);
    let alice = node.online("alice", "phone");
    let (bob, id) = node.online_acked("bob", "pc");
    node.stop_reading(bob);
    (0..6).for_each(|_| node.send(alice, &big("bob@here")));
    assert!(!node.is_open(bob));
    assert_eq!(node.probe(0).slow_readers_closed, 1);
    assert_eq!(node.sessions(), 2);
    let bob = node.authenticate(0, "bob");
    node.send(bob, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"));
    let text = node.read(bob);
    assert!(text.starts_with("<resumed "));
    assert_eq!(bodies(&text).len(), 6);
    assert!(node.is_open(bob));
}

#[test]
fn slow_reader_without_resumption_ends() {
    let mut node = Node::with(1, |config| config.limits.output_bytes = 100_000);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    node.stop_reading(bob);
    (0..12).for_each(|_| node.send(alice, &big("bob@here")));
    assert!(!node.is_open(bob));
    assert_eq!(node.sessions(), 1);
}

#[test]
fn reader_at_the_bound_is_left_alone() {
    let mut node = Node::with(1, |config| config.limits.output_bytes = 100_000);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    node.stop_reading(bob);
    (0..4).for_each(|_| node.send(alice, &big("bob@here")));
    assert!(node.is_open(bob));
}

#[test]
fn account_has_so_many_resources() {
    let mut node = Node::new(1);
    (0..4).for_each(|number| _ = node.login("alice", &number.to_string()));
    let more = node.authenticate(0, "alice");
    node.send(more, &bind("more"));
    assert!(node.read(more).contains("<resource-constraint "));
    node.send(more, &bind("3"));
    assert!(node.read(more).contains("<jid>alice@here/3</jid>"), "in the place of another");
    assert_eq!(node.sessions(), 4);
}

#[test]
fn session_that_waits_to_be_resumed_makes_way() {
    let mut node = Node::new(1);
    let (phone, _) = node.online_acked("alice", "phone");
    (0..3).for_each(|number| _ = node.login("alice", &number.to_string()));
    node.cut(phone);
    node.login("alice", "more");
    assert_eq!(node.sessions(), 4);
}

#[test]
fn full_table_of_accounts_refuses_new_ones_until_one_is_idle() {
    let mut node = Node::with(1, |config| config.limits.accounts = 3);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    node.online("carol", "pc");
    node.users(&["dave"]);
    node.send(alice, &chat("dave@here", "hi"));
    assert!(node.read(alice).contains("<resource-constraint "));
    let dave = node.connect(0);
    node.send(dave, HEADER);
    node.send(dave, &plain("dave", PASSWORD));
    assert!(node.read(dave).contains("<temporary-auth-failure/>"));
    node.send(bob, "</stream:stream>");
    node.send(alice, &chat("dave@here", "hi"));
    assert_eq!(node.read(alice), "");
    assert_eq!(node.logged("dave"), 1);
}

#[test]
fn idle_accounts_make_way_for_others_and_unknown_names_do_not_pile_up() {
    let mut node = Node::with(1, |config| config.limits.accounts = 3);
    let alice = node.online("alice", "phone");
    for number in 0..20 {
        node.send(alice, &chat(&format!("nobody{number}@here"), "hi"));
        assert!(node.read(alice).contains("<service-unavailable "));
    }
}

#[test]
fn account_with_writes_on_their_way_is_not_evicted() {
    let mut node = Node::with(1, |config| config.limits.accounts = 2);
    let alice = node.online("alice", "phone");
    node.users(&["bob", "carol"]);
    node.send(alice, &chat("bob@here", "1"));
    node.hold_store();
    node.send(alice, &chat("bob@here", "2"));
    node.send(alice, &chat("carol@here", "3"));
    assert!(node.read(alice).contains("<resource-constraint "));
    node.free_store();
    node.send(alice, &chat("carol@here", "4"));
    assert_eq!(node.logged("carol"), 1);
}

#[test]
fn stanzas_that_wait_for_an_account_are_bounded() {
    let mut node = Node::with(1, |config| config.limits.pending_stanzas = 5);
    let alice = node.online("alice", "phone");
    node.users(&["bob"]);
    node.hold_store();
    (0..8).for_each(|number| node.send(alice, &chat("bob@here", &number.to_string())));
    assert_eq!(node.read(alice).matches("<resource-constraint ").count(), 3);
    node.free_store();
    assert_eq!(node.logged("bob"), 5);
    assert_eq!(node.read(alice), "");
}

#[test]
fn requests_that_a_client_leaves_open_are_bounded() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    let request =
        |id: usize| format!("<iq type='get' id='{id}' to='bob@here/pc'><q xmlns='urn:q'/></iq>");
    (0..5).for_each(|id| node.send(alice, &request(id)));
    let text = node.read(alice);
    assert_eq!(text.matches("<resource-constraint ").count(), 1, "{text}");
    node.send(bob, "<iq type='result' id='0' to='alice@here/phone'/>");
    node.read(alice);
    node.send(alice, &request(5));
    assert_eq!(node.read(alice), "");
}

#[test]
fn directed_presence_is_bounded() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let to = |number: usize| format!("<presence to='c{number}@here'/>");
    (0..4).for_each(|number| node.send(alice, &to(number)));
    assert_eq!(node.read(alice), "");
    node.send(alice, &to(4));
    assert!(node.read(alice).contains("<resource-constraint "));
    node.send(alice, &to(0));
    assert_eq!(node.read(alice), "");
}

/// A sender, and the name of somebody on another shard.
fn apart(node: &mut Node) -> (Client, &'static str) {
    let alice = node.online("alice", "phone");
    let fits = |name: &&&str| node.owner(name) != node.owner("alice");
    let name = ["bob", "carol", "dave", "erin", "frank"].iter().find(fits).unwrap();
    node.users(&[name]);
    (alice, name)
}

#[test]
fn full_ring_stops_a_client_and_relief_lets_it_go_on() {
    // What one batch brings a reader must fit its bound.
    let mut node = Node::with(2, |config| config.limits.output_bytes = 4 << 20);
    let (alice, name) = apart(&mut node);
    let bob = node.online(name, "pc");
    let wanted: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    let pad = "x".repeat(10_000);
    let burst: String = wanted
        .iter()
        .map(|body| {
            format!(
                "<message to='{name}@here'><body>{body}</body><x xmlns='urn:x'>{pad}</x></message>"
            )
        })
        .collect();
    node.send(alice, &burst);
    assert!(!node.is_read(alice));
    let before = bodies(&node.read(bob)).len();
    assert!((20..40).contains(&before), "{before}");
    assert_eq!(node.probe(node.owner("alice")).reads_paused, 1);
    let mut more = Vec::new();
    while !node.is_read(alice) {
        node.relieve();
        more.extend(bodies(&node.read(bob)).into_iter().map(str::to_owned));
    }
    assert_eq!(more, wanted[before..]);
}

#[test]
fn accounts_that_nobody_uses_leave_memory() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    node.send(alice, &chat("nobody@here", "hi"));
    node.send(alice, &chat("other@here", "hi"));
    assert_eq!(node.accounts(), 3);
    node.advance(Duration::from_secs(61));
    assert_eq!(node.accounts(), 1);
}

#[test]
fn message_at_the_limit_of_its_size_is_as_safe_as_others() {
    for shards in [1, 2] {
        let mut node = Node::new(shards);
        let alice = node.online("alice", "phone");
        let (bob, _) = node.online_acked("bob", "pc");
        let forged = "<stanza-id xmlns='urn:xmpp:sid:0' by='bob@here' id='forged'/>";
        let frame = chat("bob@here", "").replace("</message>", &format!("{forged}</message>"));
        let body = "x".repeat(65_536 - frame.len());
        node.send(alice, &frame.replace("<body>", &format!("<body>{body}")));
        let got = node.read(bob);
        assert!(got.contains(&body) && !got.contains("forged"));
        // Bob's client has not acknowledged it.
        node.send(bob, "</stream:stream>");
        let bob = node.login("bob", "tab");
        node.send(bob, "<presence/>");
        assert_eq!(bodies(&node.read(bob)), [body]);
    }
}
