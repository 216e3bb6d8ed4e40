//! Other domains in a cluster: each is one node's, and what is for it goes there from all others. The test plays the
//! federation cores of all nodes.

use crate::acks::{R, a};
use crate::harness::*;
use corefire::frame::Flags;
use std::time::Duration;

const EQUAL: [(u32, u32); 3] = [(1, 1), (2, 1), (3, 1)];

fn start(members: &[(u32, u32)]) -> Node {
    let mut nodes = Node::cluster(3, 2, |config| config.federation_cores = 1);
    nodes.members(members, &[]);
    assert!(nodes.is_settled());
    nodes.settled_out();
    nodes
}

/// Where it went, and what it said.
fn out(nodes: &mut Node) -> Vec<(u32, String)> {
    nodes.gone_out().iter().map(|it| (it.node, bodies(&it.stanza).concat())).collect()
}

#[test]
fn one_node_sends_for_all() {
    let mut nodes = start(&EQUAL);
    let domains: Vec<String> = (1..=3).map(|node| nodes.domain_at("d", node)).collect();
    for at in 1..=3 {
        let name = nodes.name_at("a", at);
        let alice = nodes.online(&name, "phone");
        nodes.gone_out();
        for (node, domain) in (1..).zip(&domains) {
            nodes.send(alice, &chat(&format!("romeo@{domain}/x"), "hi"));
            assert_eq!(out(&mut nodes), [(node, "hi".to_owned())], "from {at}");
        }
        assert_eq!(nodes.read(alice), "");
    }
}

#[test]
fn what_comes_in_anywhere_reaches_its_account() {
    let mut nodes = start(&EQUAL);
    for owner in 1..=3 {
        let name = nodes.name_at("b", owner);
        let bob = nodes.online(&name, "desk");
        for at in 1..=3 {
            nodes.come_in_at(at, &crate::federation::romeo(&format!("{name}@here"), "hello"));
            assert_eq!(bodies(&nodes.read(bob)), ["hello"], "at {at} for one of {owner}");
        }
        // A refusal goes out by the owner of the domain.
        let sender = nodes.domain_node("else.example");
        nodes.gone_out();
        let nobody = nodes.name_at("nobody", owner);
        nodes.come_in_at(1, &crate::federation::romeo(&format!("{nobody}@here"), "lost"));
        let back = nodes.gone_out();
        assert_eq!(back.len(), 1);
        assert_eq!(back[0].node, sender);
        assert!(back[0].stanza.contains("service-unavailable"), "{}", back[0].stanza);
    }
}

/// Pings are of the core that sends to the domain; their answers come in where the DNS leads.
#[test]
fn the_answer_to_a_ping_of_a_federation_core_comes_to_the_node_of_the_domain() {
    let mut nodes = start(&EQUAL);
    for owner in 1..=3 {
        let domain = nodes.domain_at("d", owner);
        for at in 1..=3 {
            nodes.come_in_at(at, &format!("<iq from='{domain}' to='here' id='p1' type='result'/>"));
            let back = nodes.gone_out();
            assert_eq!(back.len(), 1, "at {at}");
            assert_eq!((back[0].node, &*back[0].from, &*back[0].to[0]), (owner, &*domain, "here"));
        }
    }
}

#[test]
fn acknowledgement_waits_for_the_federation_core_of_another_node() {
    let mut nodes = start(&EQUAL);
    let (name, domain) = (nodes.name_at("a", 1), nodes.domain_at("d", 2));
    let (alice, _) = nodes.online_acked(&name, "phone");
    nodes.hold_foreign();
    nodes.send(alice, &[&chat(&format!("romeo@{domain}"), "hi"), R].concat());
    assert!(nodes.gone_out().iter().any(|it| it.flags.contains(Flags::WANTS_ACK)));
    nodes.advance(Duration::from_millis(1_100));
    assert_eq!(nodes.read(alice), a(1), "the initial presence");
    nodes.free_foreign();
    assert_eq!(nodes.read(alice), a(2));
}

#[test]
fn nodes_that_talk_with_no_other_server_hand_over_what_is_for_them() {
    let mut nodes = Node::cluster(2, 2, |_| {});
    nodes.start_node(3, 2, &|config| config.federation_cores = 1);
    nodes.members_of(&EQUAL, &[], |id| id == 3);
    assert!(nodes.is_settled());
    let name = nodes.name_at("a", 1);
    let alice = nodes.online(&name, "phone");
    for number in 0..20 {
        nodes.send(alice, &chat(&format!("romeo@d{number}.example"), "hi"));
    }
    assert_eq!(out(&mut nodes), vec![(3, "hi".to_owned()); 20]);
}

/// The new owner sends nothing before the old one has let go, and all in the order in which it was sent.
#[test]
fn a_domain_that_moves_keeps_the_order() {
    let mut nodes = start(&EQUAL[..2]);
    let (from, domain) = {
        // It goes to the third node when that joins.
        let three = start(&EQUAL);
        let domains = (0..1_000).map(|number| format!("m{number}.example"));
        let moves = |it: &String| three.domain_node(it) == 3 && nodes.domain_node(it) == 2;
        (three.name_at("a", 1), domains.into_iter().find(|it| moves(it)).unwrap())
    };
    let alice = nodes.online(&from, "phone");
    let to = format!("romeo@{domain}");
    nodes.send(alice, &chat(&to, "1"));
    nodes.keep_domains();
    nodes.hold_rings();
    nodes.send(alice, &chat(&to, "2"));
    nodes.members(&EQUAL, &[]);
    nodes.advance(Duration::from_millis(1));
    nodes.send(alice, &chat(&to, "3"));
    nodes.free_rings();
    nodes.send(alice, &chat(&to, "4"));
    nodes.advance(Duration::from_secs(1));
    let before = out(&mut nodes);
    assert_eq!(before.first(), Some(&(2, "1".to_owned())));
    assert!(before.iter().all(|(node, _)| *node == 2), "{before:?}");
    assert!(!nodes.is_settled());
    nodes.let_go();
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    let after = out(&mut nodes);
    assert!(after.iter().all(|(node, _)| *node == 3), "{after:?}");
    let all: Vec<String> = before.into_iter().chain(after).map(|(_, body)| body).collect();
    assert_eq!(all, ["1", "2", "3", "4"]);
    let settled = nodes.settled_out();
    assert!(settled.iter().any(|(.., epoch)| epoch == "2"), "{settled:?}");
}

#[test]
fn what_a_dead_owner_had_not_handled_goes_to_the_next() {
    let mut nodes = start(&EQUAL);
    let (name, domain) = (nodes.name_at("a", 1), nodes.domain_at("d", 2));
    let (alice, _) = nodes.online_acked(&name, "phone");
    let to = format!("romeo@{domain}");
    nodes.hold_foreign();
    for number in 0..5 {
        nodes.send(alice, &chat(&to, &number.to_string()));
    }
    nodes.gone_out();
    nodes.kill_node(2);
    nodes.send(alice, &chat(&to, "5"));
    nodes.free_foreign();
    let rest = [EQUAL[0], EQUAL[2]];
    nodes.members(&rest, &[]);
    nodes.advance(Duration::from_secs(1));
    let next = nodes.domain_node(&domain);
    let expected: Vec<(u32, String)> = (0..6).map(|number| (next, number.to_string())).collect();
    assert_eq!(out(&mut nodes), expected);
    nodes.send(alice, R);
    assert!(nodes.read(alice).contains(&a(7)));
}

/// Doing a thing twice may do harm.
#[test]
fn a_request_that_a_dead_owner_may_have_sent_is_answered() {
    let mut nodes = start(&EQUAL);
    let (name, domain) = (nodes.name_at("a", 1), nodes.domain_at("d", 2));
    let alice = nodes.online(&name, "phone");
    nodes.lose_news_of(2);
    nodes.send(alice, &format!("<iq to='{domain}' type='set' id='q'><do xmlns='urn:x'/></iq>"));
    assert_eq!(nodes.gone_out().iter().filter(|it| it.stanza.starts_with("<iq")).count(), 1);
    nodes.kill_node(2);
    nodes.members(&[EQUAL[0], EQUAL[2]], &[]);
    nodes.advance(Duration::from_secs(1));
    assert_eq!(nodes.gone_out().iter().filter(|it| it.stanza.starts_with("<iq")).count(), 0);
    let answer = nodes.read(alice);
    assert!(answer.contains("<remote-server-timeout "), "{answer}");
}

/// What a federation core gives back goes to the new owner, and is handled when that has it.
#[test]
fn what_comes_back_from_a_federation_core_goes_on() {
    let mut nodes = start(&EQUAL);
    let domain = nodes.domain_at("d", 3);
    nodes.come_in_at(1, &format!(
        "<message from='alice@here/phone' to='romeo@{domain}' type='chat' id='x'><body>back</body></message>"
    ));
    assert_eq!(out(&mut nodes), [(3, "back".to_owned())]);
}
