//! What is in no log and comes by two ways, as a node passed it on and left before its word of that was heard: handled once
//! (R7).

use crate::acks::{R, a, resume, returning};
use crate::harness::{Client, Node, attr, bare, bodies, chat};
use corefire::shard::ShardConfig;
use corefire::store::Write;
use std::time::Duration;

const EQUAL: [(u32, u32); 3] = [(1, 1), (2, 1), (3, 1)];
const DRAINED: [(u32, u32); 3] = [(1, 1), (2, 0), (3, 1)];
const WITHOUT: [(u32, u32); 2] = [(1, 1), (3, 1)];

/// Three nodes, and a name whose account is at the second, and at the third when that is drained.
fn cluster() -> (Node, String) {
    cluster_with(|_| {})
}

fn cluster_with(change: impl Fn(&mut ShardConfig)) -> (Node, String) {
    let mut nodes = Node::cluster(3, 2, change);
    nodes.members(&DRAINED, &[]);
    let names = (0..10_000).map(|number| format!("user{number}"));
    let moving: Vec<String> = names.filter(|name| nodes.node_of(name) == 3).collect();
    nodes.members(&EQUAL, &[]);
    nodes.advance(Duration::from_secs(1));
    let name = moving.into_iter().find(|name| nodes.node_of(name) == 2);
    let name = name.expect("the third node gets some of what the second had");
    nodes.users(&[&name]);
    (nodes, name)
}

/// The second node gives all away while `xml` is on its way to it, passes that on, and is not heard of any more.
fn pass_on(nodes: &mut Node, client: Client, xml: &str) {
    nodes.hold_rings();
    nodes.send(client, xml);
    nodes.members(&DRAINED, &[]);
    nodes.lose_news_of(2);
    nodes.free_rings();
    nodes.advance(Duration::from_secs(1));
}

/// It is gone: what it was sent, and did not tell to be handled, is sent again.
fn leave(nodes: &mut Node, others: &[(u32, u32)]) {
    let retried = retried(nodes);
    nodes.members(others, &[]);
    nodes.advance(Duration::from_secs(1));
    assert!(self::retried(nodes) > retried, "nothing was sent again");
}

fn retried(nodes: &Node) -> u64 {
    (0..6).map(|shard| nodes.probe(shard).frames_retried).sum()
}

fn get(to: &str) -> String {
    format!("<iq type='get' id='q' to='{to}'><vCard xmlns='vcard-temp'/></iq>")
}

/// Stanzas with this id that a client was sent.
fn count(xml: &str, id: &str) -> usize {
    xml.matches(&format!(" id='{id}'")).count()
}

#[test]
fn a_request_that_comes_by_two_ways_is_answered_once() {
    for resource in ["", "/nobody"] {
        for moves_on in [false, true] {
            let (mut nodes, name) = cluster();
            let (alice, _) = nodes.online_acked(&nodes.name_at("a", 1), "phone");
            pass_on(&mut nodes, alice, &get(&format!("{name}@here{resource}")));
            assert_eq!(count(&nodes.read(alice), "q"), 1);
            if moves_on {
                // Who has the account then must know what was done for it.
                nodes.members(&[(1, 1), (2, 0), (3, 0)], &[]);
                nodes.advance(Duration::from_secs(1));
                leave(&mut nodes, &[(1, 1), (3, 0)]);
            } else {
                leave(&mut nodes, &WITHOUT);
            }
            assert!(nodes.is_settled());
            let text = nodes.read(alice);
            assert_eq!(count(&text, "q"), 0, "{resource} {moves_on}: {text}");
            nodes.send(alice, R);
            assert!(nodes.read(alice).contains(&a(2)));
            // The same id again is another request.
            nodes.send(alice, &get(&format!("{name}@here{resource}")));
            assert_eq!(count(&nodes.read(alice), "q"), 1);
        }
    }
}

#[test]
fn a_request_that_comes_again_while_it_is_dealt_with_is_handled_when_it_is_answered() {
    let (mut nodes, name) = cluster();
    let (alice, _) = nodes.online_acked(&nodes.name_at("a", 1), "phone");
    nodes.hold_store();
    pass_on(&mut nodes, alice, &get(&format!("{name}@here")));
    // The account is read, then its card is asked for.
    nodes.answer_one();
    assert_eq!(nodes.queries_held(), 1);
    leave(&mut nodes, &WITHOUT);
    assert_eq!(nodes.queries_held(), 1);
    nodes.send(alice, R);
    nodes.advance(Duration::from_secs(1));
    let text = nodes.read(alice);
    assert!(text.contains(&a(1)) && count(&text, "q") == 0, "{text}");
    nodes.free_store();
    let text = nodes.read(alice);
    assert!(text.contains(&a(2)) && count(&text, "q") == 1, "{text}");
}

#[test]
fn a_request_that_waited_for_its_account_twice_is_answered_once() {
    let (mut nodes, name) = cluster();
    let (alice, _) = nodes.online_acked(&nodes.name_at("a", 1), "phone");
    nodes.hold_store();
    pass_on(&mut nodes, alice, &get(&format!("{name}@here")));
    leave(&mut nodes, &WITHOUT);
    nodes.free_store();
    let text = nodes.read(alice);
    assert_eq!(count(&text, "q"), 1, "{text}");
    nodes.send(alice, R);
    assert!(nodes.read(alice).contains(&a(2)));
}

#[test]
fn a_client_gets_once_what_comes_by_two_ways() {
    let (mut nodes, name) = cluster();
    let (alice, _) = nodes.online_acked(&nodes.name_at("a", 1), "phone");
    let (_, id) = nodes.online_acked(&name, "desk");
    let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
    let to = format!("{name}@here/desk");
    let both = format!("{}<message type='chat' id='c' to='{to}'>{composing}</message>", get(&to));
    pass_on(&mut nodes, alice, &both);
    let bob = returning(&mut nodes, &name);
    nodes.send(bob, &resume(&id, 1));
    let text = nodes.read(bob);
    assert_eq!((count(&text, "q"), count(&text, "c")), (1, 1), "{text}");
    let asker = attr(text.split("<iq ").nth(1).unwrap(), "from").to_owned();
    nodes.send(bob, &format!("<iq type='result' id='q' to='{asker}'/>"));
    assert_eq!(count(&nodes.read(alice), "q"), 1);
    leave(&mut nodes, &WITHOUT);
    let text = nodes.read(bob);
    assert_eq!((count(&text, "q"), count(&text, "c")), (0, 0), "{text}");
}

#[test]
fn an_answer_that_comes_by_two_ways_reaches_its_asker_once() {
    let (mut nodes, name) = cluster();
    let (bob, _) = nodes.online_acked(&nodes.name_at("b", 1), "desk");
    let there = nodes.name_at("b", 1);
    let (alice, id) = nodes.online_acked(&name, "phone");
    nodes.send(alice, &get(&format!("{there}@here/desk")));
    assert_eq!(count(&nodes.read(bob), "q"), 1);
    pass_on(&mut nodes, bob, &format!("<iq type='result' id='q' to='{name}@here/phone'/>"));
    leave(&mut nodes, &WITHOUT);
    let alice = returning(&mut nodes, &name);
    nodes.send(alice, &resume(&id, 1));
    let text = nodes.read(alice);
    assert!(text.contains("<resumed "), "{text}");
    assert_eq!(count(&text, "q"), 1, "{text}");
}

/// R2: the row of the first way is on its way to the log while what comes by the second is to be looked for there.
#[test]
fn a_message_that_comes_again_while_its_row_is_written_is_kept_once() {
    let (mut nodes, name) = cluster();
    let (alice, _) = nodes.online_acked(&nodes.name_at("a", 1), "phone");
    nodes.hold_store();
    pass_on(&mut nodes, alice, &chat(&format!("{name}@here"), "one"));
    // The account is read, and ids are reserved.
    nodes.answer_one();
    nodes.answer_one();
    assert_eq!(nodes.queries_held(), 0);
    leave(&mut nodes, &WITHOUT);
    assert_eq!(nodes.queries_held(), 0);
    // The row is there: now it is looked for.
    nodes.answer_one();
    assert_eq!(nodes.queries_held(), 1);
    nodes.free_store();
    assert_eq!(bodies(&nodes.kept(&name, false)), ["one"]);
    nodes.send(alice, R);
    assert!(nodes.read(alice).contains(&a(2)));
}

/// Alice's message went on to the account's new owner, which gave it to bob, and is about to write its row for the archive.
///
/// - gives: the nodes, the name of bob's account, and both
fn archiving() -> (Node, String, Client, Client) {
    let (mut nodes, name) = cluster_with(|config| config.archive = true);
    let alice = nodes.online(&nodes.name_at("a", 1), "phone");
    nodes.hold_rings();
    nodes.send(alice, &chat(&format!("{name}@here"), "one"));
    nodes.members(&DRAINED, &[]);
    nodes.lose_news_of(2);
    nodes.hold_store();
    nodes.free_rings();
    nodes.advance(Duration::from_secs(1));
    // The account is read, and its recipient comes before there are ids.
    nodes.answer_one();
    let bob = nodes.online(&name, "desk");
    nodes.answer_one();
    assert_eq!(bodies(&nodes.read(bob)), ["one"]);
    // What the login wrote is there, and the row is not.
    nodes.answer_one();
    (nodes, name, alice, bob)
}

/// R2: the row is for the archive alone, as the recipient is there and nobody waits for it.
#[test]
fn a_message_that_comes_again_while_it_is_archived_is_in_the_archive_once() {
    let (mut nodes, name, _, bob) = archiving();
    assert_eq!(bodies(&nodes.kept(&name, true)), [""; 0]);
    leave(&mut nodes, &WITHOUT);
    assert_eq!(nodes.queries_held(), 0, "its row is not there yet");
    nodes.free_store();
    assert_eq!(bodies(&nodes.kept(&name, true)), ["one"]);
    assert_eq!(bodies(&nodes.read(bob)), [""; 0]);
}

/// R6: the row was for the archive alone, and nobody is told that it failed. It is not archived after all, behind what came
/// later.
#[test]
fn a_message_that_could_not_be_archived_does_not_come_again() {
    let (mut nodes, name, alice, bob) = archiving();
    nodes.store_fails = true;
    nodes.answer_one();
    nodes.store_fails = false;
    nodes.free_store();
    nodes.send(alice, &chat(&format!("{name}@here"), "two"));
    leave(&mut nodes, &WITHOUT);
    assert_eq!(bodies(&nodes.kept(&name, true)), ["two"]);
    assert_eq!(bodies(&nodes.read(bob)), ["two"]);
}

/// R8: the rosters of the two would be at odds.
#[test]
fn a_subscription_outlives_the_node_on_which_it_waits_for_its_account() {
    let (mut nodes, name) = cluster();
    // Without XEP-0198, so that nobody else waits for it.
    let bob = nodes.online(&nodes.name_at("b", 1), "desk");
    nodes.hold_store();
    nodes.send(bob, &format!("<presence type='subscribe' to='{name}@here'/>"));
    nodes.answer_one();
    assert_eq!(nodes.queries_held(), 1);
    nodes.kill_node(2);
    nodes.free_store();
    leave(&mut nodes, &WITHOUT);
    let alice = nodes.login(&name, "phone");
    nodes.send(alice, "<presence/>");
    assert!(nodes.read(alice).contains("type='subscribe'"));
}

/// R6. It is the new owner's already when the old one, who never let go of it, is given up.
#[test]
fn what_is_sent_again_goes_before_what_waits_already_for_its_old_owner() {
    let (mut nodes, name) = cluster();
    let (alice, _) = nodes.online_acked(&nodes.name_at("a", 1), "phone");
    let to = format!("{name}@here");
    nodes.hold_way(1, 2);
    nodes.send(alice, &chat(&to, "one"));
    nodes.send(alice, &chat(&to, "two"));
    nodes.members(&DRAINED, &[2]);
    nodes.advance(Duration::from_secs(1));
    nodes.send(alice, &chat(&to, "three"));
    nodes.send(alice, &chat(&to, "four"));
    nodes.kill_node(2);
    leave(&mut nodes, &WITHOUT);
    assert!(nodes.is_settled());
    assert_eq!(bodies(&nodes.kept(&name, false)), ["one", "two", "three", "four"]);
}

/// R6.
#[test]
fn what_is_sent_again_stays_before_what_came_later_when_the_clock_was_set_back() {
    let (mut nodes, name) = cluster();
    let (alice, _) = nodes.online_acked(&nodes.name_at("a", 1), "phone");
    let to = format!("{name}@here");
    nodes.kill_node(2);
    nodes.send(alice, &chat(&to, "one"));
    nodes.set_clock_back(Duration::from_secs(2));
    nodes.hold_rings();
    nodes.members(&WITHOUT, &[]);
    nodes.send(alice, &chat(&to, "two"));
    nodes.free_rings();
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    assert_eq!(bodies(&nodes.kept(&name, false)), ["one", "two"]);
}

/// What two sessions of one address say to an account, in order: the first from its own node, the second by way of another,
/// before which the clock is set back.
fn say_by_two_ways(nodes: &mut Node, here: &str, name: &str, acked: bool) {
    let to = format!("{name}@here");
    nodes.keep_fronts();
    for (body, core) in [("one", nodes.owner(here)), ("two", nodes.core_at(3))] {
        let alice = nodes.login_at(core, here, "phone");
        if acked {
            nodes.enable(alice);
        }
        nodes.send(alice, &chat(&to, body));
        nodes.set_clock_back(Duration::from_secs(2));
    }
    nodes.advance(Duration::from_millis(1));
}

/// R6.
#[test]
fn what_is_sent_again_stays_in_order_whatever_node_its_sender_came_by() {
    for acked in [false, true] {
        let (mut nodes, name) = cluster_with(|config| config.direct = false);
        let here = nodes.name_at("a", 1);
        nodes.kill_node(2);
        say_by_two_ways(&mut nodes, &here, &name, acked);
        leave(&mut nodes, &WITHOUT);
        assert!(nodes.is_settled());
        assert_eq!(bodies(&nodes.kept(&name, false)), ["one", "two"], "{acked}");
    }
}

/// R6.
#[test]
fn what_waits_for_its_old_owner_to_let_go_is_in_order_whatever_node_its_sender_came_by() {
    for (moves_on, acked) in [(false, false), (false, true), (true, false), (true, true)] {
        let (mut nodes, name) = cluster_with(|config| config.direct = false);
        let here = nodes.name_at("a", 1);
        let view = nodes.members(&DRAINED, &[2]);
        say_by_two_ways(&mut nodes, &here, &name, acked);
        if moves_on {
            nodes.members(&[(1, 1), (2, 0), (3, 0)], &[]);
        } else {
            nodes.tell_view(&view, |id| id == 2);
        }
        nodes.advance(Duration::from_secs(1));
        assert!(nodes.is_settled());
        let kept = nodes.kept(&name, false);
        assert_eq!(bodies(&kept), ["one", "two"], "{moves_on} {acked}");
    }
}

/// R6. What a session leaves as its account moves is older than what waits, the first of it before the last.
#[test]
fn what_a_session_leaves_goes_on_in_order() {
    let (mut nodes, name) = cluster();
    let alice = nodes.online(&nodes.name_at("a", 1), "phone");
    let bob = nodes.login(&name, "desk");
    nodes.send(bob, "<enable xmlns='urn:xmpp:sm:3'/><presence/>");
    for body in ["one", "two", "three"] {
        nodes.send(alice, &chat(&format!("{name}@here"), body));
    }
    assert_eq!(nodes.logged(&name), 0);
    nodes.members(&DRAINED, &[]);
    nodes.advance(Duration::from_secs(1));
    assert_eq!(bodies(&nodes.kept(&name, false)), ["one", "two", "three"]);
}

/// A node passed it on to one that had to pass it on, and died: what its sender sends again is there first.
#[test]
fn a_message_that_is_passed_on_twice_and_sent_again_is_kept_once() {
    let mut nodes = Node::cluster(4, 2, |_| {});
    let members = |weights: [u32; 4]| {
        let weights = (1..).zip(weights);
        weights.filter(|(_, weight)| *weight < 9).collect::<Vec<(u32, u32)>>()
    };
    let mut names: Vec<String> = (0..200).map(|number| format!("user{number}")).collect();
    // Without the second node, which is the number 9.
    for (weights, owner) in [([1, 9, 1, 0], 3), ([1, 0, 1, 1], 4), ([1, 1, 1, 1], 2)] {
        nodes.members(&members(weights), &[]);
        names.retain(|name| nodes.node_of(name) == owner);
    }
    nodes.advance(Duration::from_secs(1));
    let name = names.first().expect("one that goes from the second to the fourth to the third");
    nodes.users(&[name]);
    let (alice, _) = nodes.online_acked(&nodes.name_at("a", 1), "phone");
    // The fourth does not hear that the first has let go of it.
    nodes.hold_way(1, 4);
    nodes.hold_rings();
    nodes.send(alice, &chat(&format!("{name}@here"), "one"));
    nodes.members(&members([1, 0, 1, 1]), &[]);
    nodes.free_rings();
    nodes.kill_node(2);
    nodes.hold_way(4, 3);
    nodes.members(&members([1, 9, 1, 0]), &[]);
    assert!(retried(&nodes) > 0, "nothing was sent again");
    nodes.free_ways();
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    assert_eq!(bodies(&nodes.kept(name, false)), ["one"]);
    nodes.send(alice, R);
    assert!(nodes.read(alice).contains(&a(2)));
}

/// R6. Another stanza of the sender came between them, whose place in the line says nothing of theirs.
#[test]
fn messages_that_are_sent_again_keep_their_order_whatever_is_sent_again_between_them() {
    let (mut nodes, name) = cluster();
    let (alice, _) = nodes.online_acked(&nodes.name_at("a", 1), "phone");
    let to = format!("{name}@here");
    nodes.hold_way(1, 2);
    nodes.send(alice, &format!("{}{}{}", chat(&to, "one"), get(&to), chat(&to, "two")));
    nodes.members(&DRAINED, &[2]);
    nodes.advance(Duration::from_secs(1));
    nodes.send(alice, &chat(&to, "three"));
    nodes.kill_node(2);
    leave(&mut nodes, &WITHOUT);
    assert!(nodes.is_settled());
    assert_eq!(bodies(&nodes.kept(&name, false)), ["one", "two", "three"]);
    assert_eq!(count(&nodes.read(alice), "q"), 1);
}

/// R6. Its sender heard that it failed: it is not kept after all, behind what came later, where it comes again.
#[test]
fn a_message_that_was_refused_stays_so_when_it_comes_again() {
    for (acked, archive, answered) in
        [(false, false, 1), (false, true, 2), (true, false, 1), (true, false, 2), (true, true, 2)]
    {
        let (mut nodes, name) = cluster_with(|config| config.archive = archive);
        let here = nodes.name_at("a", 1);
        let alice = match acked {
            true => nodes.online_acked(&here, "phone").0,
            false => nodes.online(&here, "phone"),
        };
        let to = format!("{name}@here");
        // The account is read; its ids cannot be reserved, or are, and the row cannot be written.
        nodes.hold_store();
        nodes.hold_rings();
        nodes.send(alice, &chat(&to, "one"));
        nodes.members(&DRAINED, &[]);
        nodes.lose_news_of(2);
        nodes.free_rings();
        nodes.advance(Duration::from_secs(1));
        (0..answered + usize::from(archive)).for_each(|_| nodes.answer_one());
        nodes.store_fails = true;
        nodes.free_store();
        let text = nodes.read(alice);
        assert!(text.contains("<resource-constraint "), "{acked} {archive} {answered}: {text}");
        nodes.store_fails = false;
        nodes.send(alice, &chat(&to, "two"));
        leave(&mut nodes, &WITHOUT);
        assert!(nodes.is_settled());
        let kept = nodes.kept(&name, archive);
        assert_eq!(bodies(&kept), ["two"], "{acked} {archive} {answered}");
        if acked {
            nodes.send(alice, R);
            assert!(nodes.read(alice).contains(&a(3)));
        }
    }
}

/// The store was reading its account anew as it said that, so it waits; its client says it again where it is then.
#[test]
fn what_waits_for_its_account_is_not_taken_from_a_session_that_moves() {
    let (mut nodes, name) = cluster();
    let there = nodes.name_at("b", 1);
    nodes.users(&[&there]);
    let (alice, id) = nodes.online_acked(&name, "phone");
    nodes.hold_store();
    nodes.change_account(&name, Write::SetDisabled { owner: bare(&name), disabled: false });
    nodes.send(alice, &chat(&format!("{there}@here"), "one"));
    nodes.members(&DRAINED, &[]);
    nodes.free_store();
    nodes.advance(Duration::from_secs(1));
    assert_eq!(bodies(&nodes.kept(&there, false)), [""; 0]);
    let again = returning(&mut nodes, &name);
    nodes.send(again, &resume(&id, 1));
    let text = nodes.read(again);
    assert_eq!(attr(&text, "h"), "1", "{text}");
}

/// R6. The account moved as the first way was broken, so they are on two; then both nodes die, one after the other or at once.
#[test]
fn messages_that_went_to_two_nodes_which_died_are_sent_again_in_order() {
    const MOVED: [(u32, u32); 3] = [(1, 1), (2, 1), (3, 0)];
    for at_once in [false, true] {
        let mut nodes = Node::cluster(3, 2, |_| {});
        nodes.members(&MOVED, &[]);
        let names = (0..10_000).map(|number| format!("user{number}"));
        let moving: Vec<String> = names.filter(|name| nodes.node_of(name) == 2).collect();
        nodes.members(&EQUAL, &[]);
        nodes.advance(Duration::from_secs(1));
        let name = moving.into_iter().find(|name| nodes.node_of(name) == 3);
        let name = name.expect("the second node gets some of what the third had");
        nodes.users(&[&name]);
        // Without XEP-0198 messages have no labels, by which they would be in order.
        let alice = nodes.online(&nodes.name_at("a", 1), "phone");
        let to = format!("{name}@here");
        nodes.hold_way(1, 3);
        nodes.hold_way(1, 2);
        nodes.send(alice, &chat(&to, "one"));
        nodes.members(&MOVED, &[2, 3]);
        nodes.send(alice, &chat(&to, "two"));
        nodes.kill_node(3);
        if !at_once {
            nodes.members(&[(1, 1), (2, 1)], &[2]);
        }
        nodes.kill_node(2);
        leave(&mut nodes, &[(1, 1)]);
        assert!(nodes.is_settled());
        assert_eq!(bodies(&nodes.kept(&name, false)), ["one", "two"], "{at_once}");
    }
}

/// R6. It goes with its node, and its client says it again; what was said later is not to be there before.
#[test]
fn what_comes_for_an_account_that_leaves_waits_for_the_rows_that_are_on_their_way() {
    const HEAVY: [(u32, u32); 3] = [(1, 1), (2, 1), (3, 9)];
    for dies in [false, true] {
        let mut nodes = Node::cluster(3, 2, |_| {});
        nodes.members(&HEAVY, &[]);
        let names = |nodes: &Node, stem: &str, node| -> Vec<String> {
            let names = (0..10_000).map(|number| format!("{stem}{number}"));
            names.filter(|name| nodes.node_of(name) == node).collect()
        };
        let (staying, moving) = (names(&nodes, "a", 2), names(&nodes, "b", 3));
        nodes.members(&EQUAL, &[]);
        nodes.advance(Duration::from_secs(1));
        let of = |names: Vec<String>| names.into_iter().find(|name| nodes.node_of(name) == 2);
        let (here, name) = (of(staying).expect("one stays"), of(moving).expect("one goes"));
        nodes.users(&[&name]);
        let (alice, id) = nodes.online_acked(&here, "phone");
        let to = format!("{name}@here");
        nodes.send(alice, &format!("{}{R}", chat(&to, "zero")));
        assert!(nodes.read(alice).contains(&a(2)));
        nodes.hold_store();
        nodes.send(alice, &chat(&to, "one"));
        nodes.members(&HEAVY, &[]);
        nodes.send(alice, &chat(&to, "two"));
        if dies {
            nodes.kill_node(2);
            nodes.free_store();
            nodes.members(&[(1, 1), (3, 9)], &[]);
            nodes.advance(Duration::from_secs(1));
            let again = returning(&mut nodes, &here);
            nodes.send(again, &resume(&id, 1));
            let text = nodes.read(again);
            assert_eq!(attr(&text, "h"), "2", "{text}");
            nodes.send(again, &format!("{}{}", chat(&to, "one"), chat(&to, "two")));
        } else {
            nodes.free_store();
            nodes.advance(Duration::from_secs(1));
            nodes.send(alice, R);
            assert!(nodes.read(alice).contains(&a(4)));
        }
        assert!(nodes.is_settled());
        assert_eq!(bodies(&nodes.kept(&name, false)), ["zero", "one", "two"], "{dies}");
    }
}

/// R6. The sender's node dies, and with it what it had for the old owner, which its client says again; what it sent to the
/// new one, which waits for the old one to let go, is not to be there before.
#[test]
fn what_waits_from_a_node_that_died_comes_again_behind_what_was_lost_with_it() {
    for acked in [false, true] {
        let (mut nodes, name) = cluster();
        let here = nodes.name_at("a", 1);
        let (alice, id) = match acked {
            true => nodes.online_acked(&here, "phone"),
            false => (nodes.online(&here, "phone"), String::new()),
        };
        let to = format!("{name}@here");
        nodes.hold_way(1, 2);
        nodes.send(alice, &chat(&to, "one"));
        nodes.members(&DRAINED, &[]);
        nodes.advance(Duration::from_secs(1));
        nodes.send(alice, &chat(&to, "two"));
        nodes.advance(Duration::from_secs(1));
        assert!(!nodes.is_settled());
        nodes.kill_node(1);
        nodes.members(&DRAINED[1..], &[]);
        nodes.advance(Duration::from_secs(1));
        assert!(nodes.is_settled());
        if acked {
            let again = returning(&mut nodes, &here);
            nodes.send(again, &resume(&id, 1));
            let text = nodes.read(again);
            assert_eq!(attr(&text, "h"), "1", "{text}");
            nodes.send(again, &format!("{}{}{R}", chat(&to, "one"), chat(&to, "two")));
            nodes.advance(Duration::from_secs(1));
            assert!(nodes.read(again).contains(&a(3)));
        }
        // Nobody says it again whose stream has no XEP-0198.
        let expected = if acked { &["one", "two"][..] } else { &["two"] };
        assert_eq!(bodies(&nodes.kept(&name, false)), expected);
    }
}

/// R6. Its client got it in vain, as its connection was gone; what came later is in the log.
#[test]
fn what_was_handled_before_what_is_kept_is_not_taken_for_new() {
    for acked in [false, true] {
        let (mut nodes, name) = cluster_with(|config| config.direct = false);
        let here = nodes.name_at("a", 1);
        let alice = match acked {
            true => nodes.online_acked(&here, "phone").0,
            false => nodes.online(&here, "phone"),
        };
        let bob = nodes.online(&name, "desk");
        nodes.ignore_pings(bob);
        let to = format!("{name}@here");
        nodes.lose_news_of(2);
        nodes.send(alice, &chat(&to, "one"));
        nodes.cut(bob);
        nodes.send(alice, &chat(&to, "two"));
        let expected = if acked { &["one", "two"][..] } else { &["two"] };
        assert_eq!(bodies(&nodes.kept(&name, false)), expected);
        nodes.kill_node(2);
        leave(&mut nodes, &WITHOUT);
        assert!(nodes.is_settled());
        assert_eq!(bodies(&nodes.kept(&name, false)), expected);
    }
}

/// The second node gives the account away, whose client confirms `kept` to the next owner, and dies.
fn confirmed_does_not_come_again(nodes: &mut Node, name: &str, kept: &str) {
    nodes.members(&DRAINED, &[]);
    nodes.advance(Duration::from_secs(1));
    let bob = nodes.login(name, "desk");
    nodes.enable(bob);
    nodes.send(bob, "<presence/>");
    assert_eq!(bodies(&nodes.read(bob)), [kept]);
    nodes.send(bob, &a(2));
    assert_eq!(nodes.logged(name), 0);
    nodes.kill_node(2);
    leave(nodes, &WITHOUT);
    assert_eq!(bodies(&nodes.read(bob)), [""; 0]);
    assert_eq!(nodes.logged(name), 0);
}

/// R4. The row of one that came straight is gone: who wrote it could not say so before it gave the account away and died.
#[test]
fn what_the_next_owner_saw_confirmed_does_not_come_again() {
    let (mut nodes, name) = cluster_with(|config| config.direct = false);
    let here = nodes.name_at("a", 1);
    let (alice, _) = nodes.online_acked(&here, "phone");
    nodes.lose_news_of(2);
    nodes.send(alice, &chat(&format!("{name}@here"), "one"));
    assert_eq!(nodes.logged(&name), 1);
    confirmed_does_not_come_again(&mut nodes, &name, "one");
}

/// As before, and the row of what came later is confirmed, and gone.
#[test]
fn what_was_handled_before_what_was_kept_is_not_taken_for_new() {
    let (mut nodes, name) = cluster_with(|config| config.direct = false);
    let here = nodes.name_at("a", 1);
    let alice = nodes.online(&here, "phone");
    let bob = nodes.online(&name, "desk");
    nodes.ignore_pings(bob);
    let to = format!("{name}@here");
    nodes.lose_news_of(2);
    nodes.send(alice, &chat(&to, "one"));
    nodes.cut(bob);
    nodes.send(alice, &chat(&to, "two"));
    confirmed_does_not_come_again(&mut nodes, &name, "two");
}
