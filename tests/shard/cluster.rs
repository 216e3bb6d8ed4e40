//! Several nodes: accounts on one, sockets at their owners, and owners that change.

use crate::acks::{R, a, resume, returning};
use crate::harness::{Client, Node, attr, bodies, chat};
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
fn clients_of_a_drained_node_are_told_where_to_go_and_resume_there() {
    let mut nodes = Node::cluster(3, 1, |config| config.redirects = true);
    nodes.members(&EQUAL, &[]);
    let names: Vec<String> = (0..4).map(|at| nodes.name_at(&format!("user{at}-"), 3)).collect();
    let clients: Vec<_> = names.iter().map(|name| nodes.online_acked(name, "phone")).collect();
    nodes.members(&[(1, 1), (2, 1), (3, 0)], &[]);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    for (name, (client, id)) in names.iter().zip(&clients) {
        let told = nodes.read(*client);
        let there = format!(">node-{}.here:5222</see-other-host>", nodes.node_of(name));
        assert!(told.contains("<see-other-host ") && told.contains(&there), "{name}: {told}");
        let again = returning(&mut nodes, name);
        nodes.send(again, &resume(id, 1));
        assert!(nodes.read(again).contains("<resumed "));
    }
}

/// R7: what it answered would be asked of the next owner again, if it left before that is known.
#[test]
fn a_node_that_owns_nothing_stays_until_others_know_what_it_has_handled() {
    let mut nodes = cluster();
    let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    let (alice, _) = nodes.online_acked(&here, "phone");
    nodes.lose_news_of(2);
    let request =
        format!("<iq type='get' id='q' to='{there}@here'><vCard xmlns='vcard-temp'/></iq>");
    nodes.send(alice, &request);
    assert!(nodes.read(alice).contains(" id='q'"));
    nodes.members(&[(1, 1), (2, 0), (3, 1)], &[]);
    nodes.advance(Duration::from_secs(1));
    assert!(!nodes.is_settled());
    nodes.link_again();
    assert!(nodes.is_settled());
    nodes.members(&[(1, 1), (3, 1)], &[]);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    nodes.send(alice, R);
    let text = nodes.read(alice);
    assert!(text.contains(&a(2)) && !text.contains(" id='q'"), "{text}");
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

/// A walk through the newest rows for each of them would take the database longer than they took to come.
#[test]
fn what_is_sent_again_is_looked_for_together() {
    let mut nodes = cluster();
    let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    let (alice, _) = nodes.online_acked(&here, "phone");
    nodes.users(&[&there]);
    nodes.lose_news_of(2);
    let numbers: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    let said = |nodes: &mut Node, numbers: &[String]| {
        for number in numbers {
            nodes.send(alice, &chat(&format!("{there}@here"), number));
        }
    };
    said(&mut nodes, &numbers[..20]);
    nodes.hold_store();
    said(&mut nodes, &numbers[20..]);
    nodes.kill_node(2);
    nodes.free_store();
    nodes.read(alice);
    let before = nodes.queries;
    nodes.members(&[(1, 1), (3, 1)], &[]);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    let asked = nodes.queries - before;
    assert!((1..10).contains(&asked), "{asked}");
    assert_eq!(bodies(&nodes.kept(&there, false)), numbers);
    nodes.send(alice, R);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.read(alice).contains("h='51'"));
}

/// A session had it before that was kept, and its row is of that session.
#[test]
fn what_a_session_at_a_dead_node_did_not_acknowledge_and_is_sent_again_is_kept_once() {
    for ends in [false, true] {
        let mut nodes = cluster();
        let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
        let alice = nodes.online(&here, "phone");
        let (bob, _) = nodes.online_acked(&there, "desk");
        nodes.lose_news_of(2);
        nodes.send(alice, &chat(&format!("{there}@here"), "one"));
        assert_eq!(bodies(&nodes.read(bob)), ["one"]);
        assert_eq!(nodes.logged(&there), 0);
        match ends {
            true => nodes.send(bob, "</stream:stream>"),
            false => nodes.cut(bob),
        }
        assert_eq!(nodes.logged(&there), 1, "{ends}");
        nodes.kill_node(2);
        nodes.members(&[(1, 1), (3, 1)], &[]);
        nodes.advance(Duration::from_secs(1));
        assert!(nodes.is_settled());
        assert_eq!(bodies(&nodes.kept(&there, false)), ["one"], "{ends}");
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

/// But for a session that can be resumed, whose copy is told of it (R4).
#[test]
fn a_login_touches_one_other_node_at_most() {
    let mut nodes = cluster();
    let name = nodes.name_at("a", 2);
    nodes.users(&[&name]);
    nodes.keep_fronts();
    for (from, to) in [(1, 3), (3, 1), (2, 3), (3, 2)] {
        nodes.hold_way(from, to);
    }
    let alice = nodes.login_at(nodes.core_at(1), &name, "phone");
    nodes.send(alice, "<enable xmlns='urn:xmpp:sm:3'/><presence/>");
    nodes.send(alice, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    let text = nodes.read(alice);
    assert!(text.contains("<enabled ") && text.contains("type='result' id='r'"), "{text}");
    assert_eq!(nodes.on_their_way(), 0);
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

/// A killed node comes back and is killed again: messages that were sent on to it come back behind themselves.
#[test]
fn what_comes_back_from_a_node_that_died_twice_is_handled() {
    let mut nodes = Node::cluster(2, 1, |_| {});
    let (both, alone) = ([(1, 1), (2, 1)], [(2, 1)]);
    nodes.members(&both, &[]);
    let (alice, _) = nodes.online_acked(&nodes.name_at("a", 2), "phone");
    let names = names_at(&nodes, 1, 3);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    nodes.users(&names);
    nodes.kill_node(1);
    names.iter().for_each(|name| nodes.send(alice, &chat(&format!("{name}@here"), "one")));
    nodes.hold_store();
    nodes.members(&alone, &[]);
    names.iter().for_each(|_| nodes.answer_one());
    assert_eq!(nodes.queries_held(), names.len());
    nodes.start_node(1, 1, &|_| {});
    nodes.members(&both, &[]);
    nodes.advance(Duration::from_secs(1));
    nodes.kill_node(1);
    nodes.members(&alone, &[]);
    nodes.free_store();
    nodes.advance(Duration::from_secs(1));
    nodes.send(alice, R);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.read(alice).contains(&a(4)));
    for name in names {
        assert_eq!(bodies(&nodes.kept(name, false)), ["one"], "{name}");
    }
}

/// What waits for a frame that went on is on the way that the frame came by, behind it.
#[test]
fn what_went_to_and_fro_between_two_nodes_as_owners_changed_is_handled() {
    let mut nodes = Node::cluster(2, 1, |_| {});
    nodes.members(&EQUAL[..2], &[]);
    nodes.advance(Duration::from_secs(1));
    let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    nodes.users(&[&here]);
    let (bob, id) = nodes.online_acked(&there, "desk");
    nodes.hold_rings();
    for body in ["one", "two"] {
        nodes.send(bob, &chat(&format!("{here}@here"), body));
    }
    nodes.members(&[(1, 0), (2, 1)], &[]);
    // The first node sends it on to the second, and that sends it back.
    let view = nodes.members(&[(1, 1), (2, 0)], &[1]);
    nodes.free_rings();
    let passed_on = |nodes: &Node, shard| nodes.probe(shard).frames_passed_on;
    assert_eq!((passed_on(&nodes, 0), passed_on(&nodes, 1)), (2, 2));
    nodes.tell_view(&view, |id| id == 1);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    assert_eq!(bodies(&nodes.kept(&here, false)), ["one", "two"]);
    let text = come_back(&mut nodes, &there, &id);
    assert!(text.contains("h='3'"), "{text}");
}

/// Clients with XEP-0198, each with its name and what it resumes by.
fn many(nodes: &mut Node) -> Vec<(String, Client, String)> {
    let names: Vec<String> = (0..30).map(|number| format!("user{number}")).collect();
    let online = |name: String| {
        let (client, id) = nodes.online_acked(&name, "phone");
        (name, client, id)
    };
    names.into_iter().map(online).collect()
}

/// What a client reads that comes back.
fn come_back(nodes: &mut Node, name: &str, id: &str) -> String {
    let again = returning(nodes, name);
    nodes.send(again, &resume(id, 1));
    let text = nodes.read(again);
    assert!(text.contains("<resumed "), "{name}: {text}");
    text
}

#[test]
fn a_request_that_the_store_has_while_its_session_moves_is_answered_where_that_is_then() {
    let mut nodes = Node::cluster(3, 2, |_| {});
    nodes.members(&EQUAL[..2], &[]);
    let clients = many(&mut nodes);
    nodes.hold_store();
    let set = "<iq type='set' id='r'><query xmlns='jabber:iq:roster'>\
               <item jid='friend@here' name='x'/></query></iq>";
    clients.iter().for_each(|(_, client, _)| nodes.send(*client, set));
    nodes.members(&EQUAL, &[]);
    nodes.free_store();
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    let moved: Vec<_> = clients.iter().filter(|it| nodes.node_of(&it.0) == 3).cloned().collect();
    assert!(moved.len() > 4, "{}", moved.len());
    for (name, _, id) in moved {
        let text = come_back(&mut nodes, &name, &id);
        assert!(text.contains("h='2'") && text.contains("type='result' id='r'"), "{text}");
    }
}

#[test]
fn a_session_that_moved_is_told_what_is_handled_at_the_moment_owners_settle() {
    let mut nodes = cluster();
    let (name, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    nodes.users(&[&there]);
    let (alice, id) = nodes.online_acked(&name, "phone");
    nodes.send(alice, &chat(&format!("{there}@here"), "one"));
    nodes.hold_store();
    nodes.send(alice, &chat(&format!("{there}@here"), "two"));
    nodes.members(&[(1, 0), (2, 1), (3, 1)], &[]);
    // The recipient's owner has sealed when that is written, and tells both at once.
    nodes.free_store();
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    let text = come_back(&mut nodes, &name, &id);
    assert!(text.contains("h='3'"), "{text}");
}

/// R1: what waits for a session is with it before its client hears that all is handled, and may say goodbye.
#[test]
fn what_is_refused_while_the_sender_moves_counts_as_handled_when_the_refusals_are_with_its_session()
{
    const REFUSED: usize = 8;
    let mut nodes = Node::cluster(3, 1, |it| it.limits.pending_stanzas = 2);
    let drained = [(1, 1), (2, 1), (3, 0)];
    nodes.members(&drained, &[]);
    let names = names_at(&nodes, 1, 40);
    nodes.members(&EQUAL, &[]);
    let [sender, there] =
        [3, 1].map(|node| names.iter().find(|name| nodes.node_of(name) == node).unwrap());
    nodes.users(&[there]);
    let (alice, id) = nodes.online_acked(sender, "phone");
    // Her node is the last to learn that she is another's, and the recipient is being read.
    let view = nodes.members(&drained, &[3]);
    nodes.hold_store();
    (0..2 + REFUSED).for_each(|_| nodes.send(alice, &chat(&format!("{there}@here"), "hello")));
    nodes.free_store();
    nodes.send(alice, R);
    nodes.advance(Duration::from_secs(2));
    let text = nodes.read(alice);
    assert!(text.contains(&a(3)) && !text.contains("type='error'"), "{text}");
    nodes.tell_view(&view, |id| id == 3);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    let text = come_back(&mut nodes, sender, &id);
    assert!(text.contains(&format!("h='{}'", 3 + REFUSED)), "{text}");
    assert_eq!(text.matches("<resource-constraint ").count(), REFUSED, "{text}");
}

/// R7: nobody sends it again, and it finds a place however many refusals wait for the session, too.
#[test]
fn an_answer_reaches_a_session_that_moves_beside_many_refusals() {
    let mut nodes = Node::cluster(3, 1, |it| it.limits.pending_stanzas = 2);
    let drained = [(1, 1), (2, 1), (3, 0)];
    nodes.members(&EQUAL, &[]);
    let [sender, there, asked] =
        [("a", 3), ("b", 1), ("c", 1)].map(|(stem, at)| nodes.name_at(stem, at));
    nodes.users(&[&there]);
    let (alice, id) = nodes.online_acked(&sender, "phone");
    let carol = nodes.online(&asked, "desk");
    let ping = "<ping xmlns='urn:xmpp:ping'/>";
    nodes.send(alice, &format!("<iq type='get' id='q' to='{asked}@here/desk'>{ping}</iq>"));
    assert!(nodes.read(carol).contains("id='q'"));
    // Her node is the last to learn that she is another's, and the recipient is being read.
    let view = nodes.members(&drained, &[3]);
    nodes.hold_store();
    (0..8).for_each(|_| nodes.send(alice, &chat(&format!("{there}@here"), "hello")));
    nodes.free_store();
    nodes.send(carol, &format!("<iq type='result' id='q' to='{sender}@here/phone'/>"));
    nodes.tell_view(&view, |id| id == 3);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    let text = come_back(&mut nodes, &sender, &id);
    assert_eq!(text.matches("<resource-constraint ").count(), 6, "{text}");
    assert_eq!(text.matches("type='result' id='q'").count(), 1, "{text}");
}

#[test]
fn sessions_on_their_way_to_a_node_that_dies_go_to_the_next_owner() {
    let mut nodes = Node::cluster(4, 2, |_| {});
    nodes.members(&EQUAL[..2], &[]);
    let clients = many(&mut nodes);
    nodes.hold_rings();
    nodes.members(&EQUAL, &[]);
    let moved: Vec<_> = clients.iter().filter(|it| nodes.node_of(&it.0) == 3).cloned().collect();
    assert!(moved.len() > 4, "{}", moved.len());
    nodes.kill_node(3);
    nodes.free_rings();
    nodes.members(&[(1, 1), (2, 1), (4, 1)], &[]);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    assert!(moved.iter().any(|it| nodes.node_of(&it.0) == 4));
    for (name, _, id) in moved {
        come_back(&mut nodes, &name, &id);
    }
}

#[test]
fn a_session_that_moved_twice_does_not_wait_for_a_node_that_is_gone() {
    let mut nodes = cluster();
    let name = nodes.name_at("a", 1);
    let (alice, id) = nodes.online_acked(&name, "phone");
    nodes.users(&["bob"]);
    nodes.hold_store();
    nodes.send(alice, &chat("bob@here", "not stored yet"));
    // The store has it still, so the first owner tells of it when it is done.
    nodes.members(&[(1, 0), (2, 1), (3, 0)], &[]);
    nodes.members(&[(1, 0), (2, 0), (3, 1)], &[]);
    nodes.kill_node(1);
    nodes.members(&[(2, 0), (3, 1)], &[]);
    nodes.free_store();
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    let text = come_back(&mut nodes, &name, &id);
    assert!(text.contains("h='1'"), "{text}");
}

#[test]
fn watchers_that_move_while_the_node_of_a_contact_dies_see_it_go() {
    for is_read in [true, false] {
        let mut nodes = cluster();
        let without_first = [(1, 0), (2, 1), (3, 1)];
        nodes.members(&without_first, &[]);
        let later_at_third = names_at(&nodes, 3, 200);
        nodes.members(&EQUAL, &[]);
        nodes.advance(Duration::from_secs(1));
        let mut later_at_third = later_at_third.into_iter();
        let here = later_at_third.find(|name| nodes.node_of(name) == 1).expect("some move there");
        let there = nodes.name_at("b", 2);
        let (alice, id) = nodes.online_acked(&here, "phone");
        let bob = nodes.online(&there, "desk");
        befriend(&mut nodes, alice, bob, [&here, &there]);
        if !is_read {
            // It moves before, and its new owner has not read its roster when the other node dies.
            nodes.hold_store();
            nodes.members(&without_first, &[]);
            nodes.advance(Duration::from_secs(1));
        }
        nodes.kill_node(2);
        nodes.members(&[(1, 0), (3, 1)], &[]);
        nodes.free_store();
        nodes.advance(Duration::from_secs(1));
        assert!(nodes.is_settled());
        let text = come_back(&mut nodes, &here, &id);
        let gone = format!("<presence from='{there}@here' type='unavailable'");
        let gone = text.rfind(&gone).unwrap_or_else(|| panic!("{is_read}: {text}"));
        let seen = text.rfind(&format!("<presence from='{there}@here/desk'"));
        assert!(seen.is_none_or(|seen| seen < gone), "{is_read}: {text}");
    }
}
