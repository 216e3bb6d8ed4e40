//! Several nodes: accounts on one, sockets at their owners, and owners that change.

use crate::acks::{R, a, resume, returning};
use crate::harness::{Node, attr, bodies, chat};
use crate::iq::befriend;
use std::time::Duration;

const EQUAL: [(u32, u32); 3] = [(1, 1), (2, 1), (3, 1)];

fn cluster() -> Node {
    let mut nodes = Node::cluster(3, 2, |_| {});
    nodes.members(&EQUAL, &[]);
    assert!(nodes.is_settled());
    nodes
}

#[test]
fn messages_cross_nodes_both_ways() {
    let mut nodes = cluster();
    let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    let alice = nodes.online(&here, "phone");
    let bob = nodes.online(&there, "desk");
    nodes.send(alice, &chat(&format!("{there}@here"), "one"));
    nodes.send(bob, &chat(&format!("{here}@here/phone"), "two"));
    assert_eq!(bodies(&nodes.read(bob)), ["one"]);
    assert_eq!(bodies(&nodes.read(alice)), ["two"]);
    nodes.send(alice, &chat("nobody@here", "lost"));
    assert!(nodes.read(alice).contains("service-unavailable"));
}

/// The shard tells what it acts by, on each node the same.
#[test]
fn the_shard_map_is_that_of_the_epoch() {
    let ask = "<iq type='get' id='m' to='here'><shard-map xmlns='urn:corefire:shard-map:1'/></iq>";
    let mut nodes = cluster();
    let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    let clients = [nodes.online(&here, "phone"), nodes.online(&there, "desk")];
    let told = |nodes: &mut Node| {
        let maps = clients.map(|client| {
            nodes.send(client, ask);
            let text = nodes.read(client);
            let from = text.find("<shard-map ").unwrap_or_else(|| panic!("{text}"));
            text[from..text.find("</shard-map>").unwrap()].to_owned()
        });
        assert_eq!(maps[0], maps[1]);
        maps[0].clone()
    };
    let before = told(&mut nodes);
    assert_eq!(before.matches("<member ").count(), 3);
    assert!(before.contains("node='2' weight='1' shards='2'"), "{before}");
    nodes.members(&[(1, 1), (2, 1), (3, 0)], &[]);
    nodes.advance(Duration::from_secs(1));
    let after = told(&mut nodes);
    assert!(after.contains("node='3' weight='0'"), "{after}");
    let epoch = |map: &str| attr(map, "epoch").parse::<u64>().unwrap();
    assert!(epoch(&after) > epoch(&before), "{after}");
}

#[test]
fn acknowledgement_waits_for_the_other_node() {
    let mut nodes = cluster();
    let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 3));
    let (alice, _) = nodes.online_acked(&here, "phone");
    nodes.users(&[&there]);
    nodes.hold_store();
    nodes.send(alice, &chat(&format!("{there}@here"), "one"));
    nodes.send(alice, R);
    assert!(!nodes.read(alice).contains("h='2'"));
    nodes.free_store();
    assert_eq!(nodes.logged(&there), 1);
    assert!(nodes.read(alice).contains(&a(2)));
}

#[test]
fn a_node_that_joins_takes_over_sessions_that_can_be_resumed() {
    let mut nodes = Node::cluster(3, 2, |_| {});
    nodes.members(&EQUAL[..2], &[]);
    // Whose account will move to the third node?
    let names: Vec<String> = (0..40).map(|number| format!("user{number}")).collect();
    let clients: Vec<_> = names.iter().map(|name| nodes.online_acked(name, "phone")).collect();
    let (friend, _) = nodes.online_acked("friend", "desk");
    nodes.members(&EQUAL, &[]);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    let moved: Vec<usize> = (0..names.len()).filter(|at| nodes.node_of(&names[*at]) == 3).collect();
    assert!(moved.len() > 4, "{moved:?}");
    for at in moved {
        let (client, id) = &clients[at];
        assert!(nodes.read(*client).contains("<reset "), "{}", names[at]);
        if nodes.is_open(friend) {
            nodes.send(friend, &chat(&format!("{}@here", names[at]), "while away"));
        }
        let again = returning(&mut nodes, &names[at]);
        nodes.send(again, &resume(id, 1));
        let text = nodes.read(again);
        assert!(text.contains("<resumed "), "{text}");
        if nodes.is_open(friend) {
            assert_eq!(bodies(&text), ["while away"]);
        }
    }
}

#[test]
fn frames_that_a_dead_node_did_not_handle_reach_the_new_owner_once() {
    for durable in [false, true] {
        let mut nodes = cluster();
        let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
        let (alice, _) = nodes.online_acked(&here, "phone");
        nodes.users(&[&there]);
        if durable {
            // It is in the log of the dead node's account, and nobody was told so.
            nodes.lose_news_of(2);
        } else {
            nodes.hold_store();
        }
        nodes.send(alice, &chat(&format!("{there}@here"), "one"));
        nodes.send(alice, &chat(&format!("{there}@here"), "two"));
        nodes.kill_node(2);
        nodes.free_store();
        nodes.read(alice);
        nodes.members(&[(1, 1), (3, 1)], &[]);
        nodes.advance(Duration::from_secs(1));
        assert!(nodes.is_settled());
        assert_eq!(bodies(&nodes.kept(&there, false)), ["one", "two"], "durable: {durable}");
        nodes.send(alice, R);
        nodes.advance(Duration::from_secs(1));
        assert!(nodes.read(alice).contains("h='3'"));
    }
}

#[test]
fn watchers_see_the_contacts_of_a_dead_node_go_and_come_back() {
    let mut nodes = cluster();
    let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    let alice = nodes.online(&here, "phone");
    let bob = nodes.online(&there, "desk");
    befriend(&mut nodes, alice, bob, [&here, &there]);
    nodes.kill_node(2);
    nodes.read(alice);
    nodes.members(&[(1, 1), (3, 1)], &[]);
    let text = nodes.read(alice);
    assert!(
        text.contains(&format!("from='{there}@here'")) && text.contains("unavailable"),
        "{text}"
    );
    let _again = nodes.online(&there, "desk");
    assert!(nodes.read(alice).contains(&format!("<presence from='{there}@here/desk'")));
}

#[test]
fn a_node_that_learns_late_of_an_epoch_loses_and_doubles_nothing() {
    let mut nodes = Node::cluster(3, 1, |_| {});
    nodes.members(&EQUAL[..2], &[]);
    let names: Vec<String> = (0..30).map(|number| format!("user{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    nodes.users(&names);
    let (alice, _) = nodes.online_acked("alice", "phone");
    let sender = nodes.node_of("alice");
    let view = nodes.members(&EQUAL, &[sender]);
    for name in &names {
        nodes.send(alice, &chat(&format!("{name}@here"), "hello"));
    }
    assert!(!nodes.is_settled());
    nodes.tell_view(&view, |_| true);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    for name in &names {
        assert_eq!(bodies(&nodes.kept(name, false)), ["hello"], "{name}");
    }
}

/// Names whose accounts that node owns.
fn names_at(nodes: &Node, node: u32, count: usize) -> Vec<String> {
    let names = (0..10_000).map(|number| format!("user{number}"));
    names.filter(|name| nodes.node_of(name) == node).take(count).collect()
}

/// A killed node comes back while the one that had its accounts for a moment looks whether what was sent again is there.
#[test]
fn what_is_looked_for_in_a_log_stays_before_what_came_later_when_owners_change() {
    let mut nodes = cluster();
    let (alice, _) = nodes.online_acked(&nodes.name_at("a", 1), "phone");
    let names = names_at(&nodes, 2, 8);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    nodes.users(&names);
    nodes.kill_node(2);
    for body in ["one", "two", "three"] {
        names.iter().for_each(|name| nodes.send(alice, &chat(&format!("{name}@here"), body)));
    }
    nodes.hold_store();
    nodes.members(&[(1, 1), (3, 1)], &[]);
    nodes.advance(Duration::from_secs(1));
    // The accounts are read; then the first message of each is looked for.
    names.iter().for_each(|_| nodes.answer_one());
    assert_eq!(nodes.queries_held(), names.len());
    nodes.start_node(2, 2, &|_| {});
    nodes.members(&EQUAL, &[]);
    nodes.advance(Duration::from_secs(1));
    nodes.free_store();
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    for name in names {
        assert_eq!(bodies(&nodes.kept(name, false)), ["one", "two", "three"], "{name}");
    }
}
