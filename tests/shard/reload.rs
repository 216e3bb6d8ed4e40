//! A shard that is told to decide anew: limits and bans hold for the sessions that there are, and nothing is lost.

use crate::harness::*;
use corefire::shard::{Access, Ban, Feature};

fn bans(entries: &[&str]) -> Access {
    entries.iter().map(|entry| entry.parse::<Ban>().unwrap()).collect()
}

const VIOLATION: &str = "<policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>";
const RESUME: &str = "<resume xmlns='urn:xmpp:sm:3' h='0' previd='";

#[test]
fn banned_account_loses_its_sessions_at_once_and_for_good() {
    let mut node = Node::new(2);
    let (phone, id) = node.online_acked("eve", "phone");
    let (laptop, resumable) = node.online_acked("eve", "laptop");
    let bob = node.online("bob", "phone");
    node.cut(laptop);
    node.reconfigure(|config| config.access = bans(&["eve@here"]));
    assert!(node.read(phone).contains(VIOLATION));
    assert!(!node.is_open(phone));
    assert!(node.is_open(bob));
    // Not even after the ban is lifted can those sessions be taken up again.
    node.reconfigure(|_| {});
    for previd in [id, resumable] {
        let owner = node.owner("eve");
        let again = node.authenticate(owner, "eve");
        node.send(again, &format!("{RESUME}{previd}'/>"));
        assert!(node.read(again).contains("item-not-found"));
    }
}

#[test]
fn banned_account_cannot_log_in_and_its_messages_wait() {
    let mut node = Node::new(2);
    node.users(&["eve", "bob"]);
    node.reconfigure(|config| config.access = bans(&["eve@here"]));
    let owner = node.owner("eve");
    let eve = node.connect(owner);
    node.send(eve, HEADER);
    node.send(eve, &plain("eve", PASSWORD));
    assert!(node.read(eve).contains("<account-disabled/>"));
    // RFC 6120 §6.5.1: only those who know the password are told so.
    node.send(eve, &plain("eve", "wrong"));
    assert!(node.read(eve).contains("<not-authorized/>"));
    let bob = node.online("bob", "phone");
    node.send(bob, &chat("eve@here", "for later"));
    assert_eq!(node.logged("eve"), 1);
    node.reconfigure(|_| {});
    let eve = node.online("eve", "phone");
    let _ = eve;
    assert_eq!(node.logged("eve"), 0);
}

#[test]
fn ban_between_login_and_bind_ends_the_stream() {
    let mut node = Node::new(2);
    let owner = node.owner("eve");
    let eve = node.authenticate(owner, "eve");
    node.reconfigure(|config| config.access = bans(&["eve@here"]));
    assert!(node.read(eve).contains(VIOLATION));
}

#[test]
fn banned_domain_bans_its_accounts() {
    let mut node = Node::new(2);
    let eve = node.online("eve", "phone");
    node.reconfigure(|config| config.access = bans(&["here"]));
    assert!(node.read(eve).contains(VIOLATION));
}

#[test]
fn banned_network_is_not_served_and_its_sessions_can_be_resumed_from_elsewhere() {
    let mut node = Node::new(2);
    let (alice, id) = node.online_acked("alice", "phone");
    assert!(node.admits(0, "192.0.2.1".parse().unwrap()));
    node.reconfigure(|config| config.access = bans(&["192.0.2.0/24"]));
    assert!(node.read(alice).contains(VIOLATION));
    assert!(!node.admits(0, "192.0.2.1".parse().unwrap()));
    assert!(node.admits(0, "198.51.100.1".parse().unwrap()));
    assert_eq!(node.probe(0).connections_banned, 1);
    node.reconfigure(|_| {});
    let owner = node.owner("alice");
    let again = node.authenticate(owner, "alice");
    node.send(again, &format!("{RESUME}{id}'/>"));
    assert!(node.read(again).contains("<resumed"));
}

#[test]
fn lower_limit_holds_for_the_sessions_that_there_are() {
    let mut node = Node::new(2);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "phone");
    let body = "x".repeat(20_000);
    node.send(alice, &chat("bob@here", &body));
    assert!(node.read(bob).contains(&body));
    node.reconfigure(|config| config.policy.limits.stanza_bytes_max = 10_000);
    node.send(alice, &chat("bob@here", &body));
    assert!(node.read(alice).contains(VIOLATION));
}

#[test]
fn reload_while_messages_are_on_their_way_loses_and_reorders_none() {
    let mut node = Node::new(4);
    let (alice, _) = node.online_acked("alice", "phone");
    let bob = node.online("bob", "phone");
    node.hold_store();
    node.hold_rings();
    for number in 0..20 {
        node.send(alice, &chat("bob@here", &format!("m{number:02}")));
        node.reconfigure(|config| config.limits.offline_messages = 100 + number);
    }
    node.free_rings();
    node.free_store();
    let text = node.read(bob);
    let places: Vec<usize> =
        (0..20).map(|number| text.find(&format!("m{number:02}")).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    node.send(alice, "<r xmlns='urn:xmpp:sm:3'/>");
    // Presence, and twenty messages.
    assert!(node.read(alice).contains("h='21'"));
}

#[test]
fn request_that_waits_for_the_store_is_answered_by_the_feature_of_the_same_name() {
    let set =
        "<iq type='set' id='s'><query xmlns='jabber:iq:roster'><item jid='bob@here'/></query></iq>";
    let reversed = || -> Vec<Box<dyn Feature>> {
        let mut features = corefire::features::all();
        features.reverse();
        features
    };
    let mut node = Node::new(2);
    let alice = node.online("alice", "phone");
    node.hold_store();
    node.send(alice, set);
    node.reconfigure_with(|_| {}, reversed);
    node.free_store();
    let answer = node.read(alice);
    assert!(answer.contains("type='result'") && answer.contains("id='s'"), "{answer}");

    // A feature that is gone cannot answer; somebody must.
    node.hold_store();
    node.send(alice, set);
    let none = || -> Vec<Box<dyn Feature>> { Vec::new() };
    node.reconfigure_with(|_| {}, none);
    node.free_store();
    assert!(node.read(alice).contains("service-unavailable"));
}
