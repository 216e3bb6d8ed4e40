//! R4 where a session's owner dies: it goes on from its copy (XEP-0198; several nodes).

use crate::acks::{R, a, resume, returning};
use crate::harness::{Client, Node, attr, bind, bodies, chat};
use crate::iq::befriend;
use corefire::shard::ShardConfig;
use std::time::Duration;

const EQUAL: [(u32, u32); 3] = [(1, 1), (2, 1), (3, 1)];

fn cluster_with(change: impl Fn(&mut ShardConfig)) -> Node {
    let mut nodes = Node::cluster(3, 1, change);
    nodes.members(&EQUAL, &[]);
    assert!(nodes.is_settled());
    nodes
}

fn cluster() -> Node {
    cluster_with(|_| {})
}

/// Those that are left, of all three.
fn without(dead: &[u32]) -> Vec<(u32, u32)> {
    EQUAL.into_iter().filter(|(id, _)| !dead.contains(id)).collect()
}

/// The nodes die at once, and the others go on.
fn die(nodes: &mut Node, dead: &[u32]) {
    dead.iter().for_each(|id| nodes.kill_node(*id));
    nodes.members(&without(dead), &[]);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
}

/// What the server says to one who comes again.
fn come(nodes: &mut Node, name: &str, id: &str, h: u32) -> (Client, String) {
    let again = returning(nodes, name);
    nodes.send(again, &resume(id, h));
    let text = nodes.read(again);
    (again, text)
}

fn copies(nodes: &Node) -> u64 {
    (0..3).map(|core| nodes.probe(core).copies).sum()
}

fn revived(nodes: &Node) -> u64 {
    (0..3).map(|core| nodes.probe(core).copies_revived).sum()
}

/// A name of that node, whose copies are with `successor`.
fn name_with(nodes: &mut Node, owner: u32, successor: u32) -> String {
    let rest = without(&[owner]);
    let owned: Vec<String> =
        (0..200).map(|at| format!("s{at}")).filter(|name| nodes.node_of(name) == owner).collect();
    // Who owns them without that node is as all nodes would compute it.
    let placement = corefire::cluster::placement::Placement::new(
        99,
        &rest
            .iter()
            .map(|(id, weight)| corefire::cluster::placement::Member {
                node: corefire::cluster::placement::NodeId(*id),
                name: format!("node-{id}"),
                weight: *weight,
                shards: 1,
                federates: false,
            })
            .collect::<Vec<_>>(),
    );
    let is_there =
        |name: &&String| placement.owner(crate::harness::bare(name).hash64()).node.0 == successor;
    owned.iter().find(is_there).expect("each node is next for some").clone()
}

#[test]
fn a_session_whose_owner_died_is_resumed_with_what_was_not_acknowledged() {
    let mut nodes = cluster();
    let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    let (alice, _) = nodes.online_acked(&here, "phone");
    let (bob, id) = nodes.online_acked(&there, "desk");
    for body in ["1", "2", "3", "4"] {
        nodes.send(alice, &chat(&format!("{there}@here"), body));
    }
    assert_eq!(bodies(&nodes.read(bob)), ["1", "2", "3", "4"]);
    nodes.send(bob, &chat(&format!("{here}@here"), "from bob"));
    nodes.send(bob, &format!("{}{R}", a(3)));
    assert!(nodes.read(bob).contains(&a(2)));
    nodes.kill_node(2);
    nodes.send(alice, &chat(&format!("{there}@here"), "5"));
    die(&mut nodes, &[2]);
    let (bob, text) = come(&mut nodes, &there, &id, 3);
    assert_eq!((attr(&text, "h"), attr(&text, "previd")), ("2", &*id), "{text}");
    assert_eq!(bodies(&text), ["3", "4", "5"]);
    // Both sides count on.
    nodes.send(bob, &format!("{}{R}", chat(&format!("{here}@here"), "again")));
    assert!(nodes.read(bob).contains(&a(3)));
    assert_eq!(bodies(&nodes.read(alice)), ["from bob", "again"]);
    nodes.send(bob, &a(6));
    assert_eq!(nodes.logged(&there), 0);
    assert!(nodes.is_open(bob));
    assert_eq!(revived(&nodes), 1);
}

#[test]
fn no_acknowledgement_is_told_before_the_copy_has_it() {
    let mut nodes = cluster();
    let name = nodes.name_at("a", 1);
    let (alice, id) = nodes.online_acked(&name, "phone");
    nodes.hold_rings();
    // It comes back to her: no other node has to do with it.
    nodes.send(alice, &format!("{}{R}", chat(&format!("{name}@here"), "one")));
    let text = nodes.read(alice);
    assert!(bodies(&text) == ["one"] && !text.contains("<a "), "{text}");
    // A request gets the number there is after a second, the rest comes unasked.
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.read(alice).contains(&a(1)));
    nodes.free_rings();
    assert!(nodes.read(alice).contains(&a(2)));
    // Nor as the session is resumed, nor when it is gone.
    nodes.hold_rings();
    nodes.send(alice, &chat(&format!("{name}@here"), "two"));
    nodes.cut(alice);
    let (alice, text) = come(&mut nodes, &name, &id, 2);
    assert_eq!(text, "");
    nodes.free_rings();
    let text = nodes.read(alice);
    assert!(text.contains("<resumed ") && attr(&text, "h") == "3", "{text}");
    assert_eq!(bodies(&text), ["two"]);
}

#[test]
fn what_was_never_told_is_sent_again_by_the_client() {
    let mut nodes = cluster();
    let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    nodes.users(&[&here]);
    let (bob, id) = nodes.online_acked(&there, "desk");
    nodes.hold_rings();
    nodes.send(bob, &format!("{}{R}", chat(&format!("{here}@here"), "one")));
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.read(bob).contains(&a(1)));
    nodes.kill_node(2);
    nodes.free_rings();
    die(&mut nodes, &[2]);
    let (bob, text) = come(&mut nodes, &there, &id, 1);
    assert_eq!(attr(&text, "h"), "1", "{text}");
    nodes.send(bob, &format!("{}{R}", chat(&format!("{here}@here"), "one")));
    assert!(nodes.read(bob).contains(&a(2)));
    assert_eq!(bodies(&nodes.kept(&here, false)), ["one"]);
}

/// The row is gone by then, as there is no archive, and another may have the account.
#[test]
fn what_its_recipient_has_confirmed_and_its_sender_says_again_does_not_come_again() {
    for (moves, plain) in [(false, false), (true, false), (false, true)] {
        let mut nodes = cluster();
        let (here, there) = (nodes.name_at("a", 1), name_with(&mut nodes, 2, 3));
        // Without XEP-0198 it is the server that asks.
        let (alice, alices) = match plain {
            true => (nodes.online(&here, "phone"), String::new()),
            false => nodes.online_acked(&here, "phone"),
        };
        let (bob, id) = nodes.online_acked(&there, "desk");
        // The copy learns nothing more.
        nodes.hold_way(2, 3);
        nodes.send(bob, &format!("{}{R}", chat(&format!("{here}@here"), "one")));
        nodes.advance(Duration::from_secs(1));
        assert!(nodes.read(bob).contains(&a(1)));
        assert_eq!(bodies(&nodes.read(alice)), ["one"]);
        if !plain {
            nodes.send(alice, &a(2));
        }
        assert_eq!(nodes.logged(&here), 0);
        die(&mut nodes, &[2]);
        let alice = if moves {
            nodes.members(&[(1, 0), (3, 1)], &[]);
            nodes.advance(Duration::from_secs(1));
            let (alice, text) = come(&mut nodes, &here, &alices, 2);
            assert!(text.contains("<resumed "), "{text}");
            alice
        } else {
            alice
        };
        let (bob, text) = come(&mut nodes, &there, &id, 1);
        assert_eq!(attr(&text, "h"), "1", "{text}");
        nodes.send(bob, &format!("{}{R}", chat(&format!("{here}@here"), "one")));
        assert!(nodes.read(bob).contains(&a(2)));
        assert_eq!(bodies(&nodes.read(alice)), [""; 0], "{moves} {plain}");
    }
}

/// Who wrote the row is gone with what it knew of it.
#[test]
fn what_another_owner_kept_and_its_recipient_has_confirmed_does_not_come_again() {
    for acked in [false, true] {
        let mut nodes = cluster();
        let (here, there) = (nodes.name_at("a", 2), name_with(&mut nodes, 1, 3));
        nodes.users(&[&here]);
        let (bob, id) = nodes.online_acked(&there, "desk");
        // The copy learns nothing more.
        nodes.hold_way(1, 3);
        let one = chat(&format!("{here}@here"), "one");
        nodes.send(bob, &format!("{one}{R}"));
        nodes.advance(Duration::from_secs(1));
        assert!(nodes.read(bob).contains(&a(1)));
        assert_eq!(nodes.logged(&here), 1);
        die(&mut nodes, &[1, 2]);
        let alice = nodes.login(&here, "phone");
        if acked {
            nodes.enable(alice);
        }
        nodes.send(alice, "<presence/>");
        assert_eq!(bodies(&nodes.read(alice)), ["one"], "{acked}");
        if acked {
            nodes.send(alice, &a(2));
        }
        assert_eq!(nodes.logged(&here), 0);
        let (bob, text) = come(&mut nodes, &there, &id, 1);
        assert_eq!(attr(&text, "h"), "1", "{text}");
        nodes.send(bob, &format!("{one}{R}"));
        assert!(nodes.read(bob).contains(&a(2)));
        assert_eq!(bodies(&nodes.read(alice)), [""; 0], "{acked}");
    }
}

/// Stanzas that were on their way to the copy when the owner died: the client has them, and their numbers.
#[test]
fn a_client_may_have_received_more_than_its_copy_knows() {
    for stays in [false, true] {
        let mut nodes = cluster();
        let name = nodes.name_at("a", 2);
        let near = (0..).map(|at| format!("n{at}")).find(|it| nodes.node_of(it) == 2).unwrap();
        let (bob, id) = nodes.online_acked(&name, "desk");
        let friend = nodes.online(&near, "phone");
        let carol = nodes.name_at("c", 1);
        let carol = nodes.online(&carol, "phone");
        nodes.hold_rings();
        // From a stream without XEP-0198: in no log.
        nodes.send(friend, &chat(&format!("{name}@here/desk"), "1"));
        nodes.send(friend, &chat(&format!("{name}@here/desk"), "2"));
        assert_eq!(bodies(&nodes.read(bob)), ["1", "2"]);
        nodes.kill_node(2);
        nodes.free_rings();
        die(&mut nodes, &[2]);
        // Comes while nobody knows what the client counted.
        nodes.send(carol, &chat(&format!("{name}@here/desk"), "3"));
        if stays {
            // Its copy must not know better.
            let (owner, other) = (nodes.node_of(&name), without(&[2, nodes.node_of(&name)])[0].0);
            nodes.kill_node(owner);
            nodes.members(&[(other, 1)], &[]);
            nodes.advance(Duration::from_secs(1));
        }
        let (bob, text) = come(&mut nodes, &name, &id, 3);
        assert!(text.contains("<resumed "), "{text}");
        assert_eq!(bodies(&text), ["3"]);
        nodes.send(bob, &a(4));
        assert!(nodes.is_open(bob), "{}", nodes.read(bob));
        nodes.send(bob, &a(5));
        assert!(!nodes.is_open(bob));
    }
}

/// A message that the dead owner had logged and not copied comes from the log, behind what was copied.
#[test]
fn messages_of_the_log_follow_those_of_the_copy_in_order() {
    let mut nodes = cluster();
    let (here, there) = (nodes.name_at("a", 2), nodes.name_at("b", 2));
    let (alice, _) = nodes.online_acked(&here, "phone");
    let (bob, id) = nodes.online_acked(&there, "desk");
    let carol = nodes.name_at("c", 1);
    let (carol, _) = nodes.online_acked(&carol, "phone");
    nodes.send(alice, &chat(&format!("{there}@here"), "1"));
    nodes.hold_rings();
    nodes.send(alice, &chat(&format!("{there}@here"), "2"));
    assert_eq!(bodies(&nodes.read(bob)), ["1", "2"]);
    nodes.kill_node(2);
    nodes.free_rings();
    nodes.send(carol, &chat(&format!("{there}@here"), "3"));
    die(&mut nodes, &[2]);
    nodes.send(carol, &chat(&format!("{there}@here"), "4"));
    let (bob, text) = come(&mut nodes, &there, &id, 1);
    assert_eq!(bodies(&text), ["1", "2", "3", "4"]);
    nodes.send(bob, &a(5));
    assert_eq!(nodes.logged(&there), 0);
}

/// The dead owner had given its client messages whose rows were not written yet: they are kept when they come again, and
/// are not told twice to a client that has them, or gets them as it resumes.
#[test]
fn what_a_resumed_session_had_already_is_kept_and_does_not_come_again() {
    for (archive, had, moves) in
        [(false, 2, false), (true, 2, false), (true, 4, false), (false, 4, true), (true, 2, true)]
    {
        let mut nodes = cluster_with(|config| config.archive = archive);
        let (here, there) = (nodes.name_at("a", 1), name_with(&mut nodes, 2, 3));
        let (alice, _) = nodes.online_acked(&here, "phone");
        let (bob, id) = nodes.online_acked(&there, "desk");
        nodes.send(alice, &chat(&format!("{there}@here"), "0"));
        nodes.send(bob, &a(2));
        nodes.hold_store();
        nodes.send(alice, &chat(&format!("{there}@here"), "1"));
        nodes.send(alice, &chat(&format!("{there}@here"), "2"));
        assert_eq!(bodies(&nodes.read(bob)), ["0", "1", "2"]);
        nodes.kill_node(2);
        nodes.free_store();
        die(&mut nodes, &[2]);
        assert_eq!(revived(&nodes), 1);
        if moves {
            // Its new owner leaves as well, in order.
            nodes.members(&[(1, 1), (3, 0)], &[]);
            nodes.advance(Duration::from_secs(1));
            assert!(nodes.is_settled());
        }
        let (bob, text) = come(&mut nodes, &there, &id, had);
        let left = if had == 2 { &["1", "2"][..] } else { &[] };
        let context = format!("archive {archive}, had {had}, moves {moves}: {text}");
        assert_eq!(bodies(&text), left, "{context}");
        nodes.send(alice, &chat(&format!("{there}@here"), "3"));
        assert_eq!(bodies(&nodes.read(bob)), ["3"], "{context}");
        nodes.send(bob, &a(5));
        assert_eq!(nodes.logged(&there), 0, "{context}");
        if archive {
            assert_eq!(bodies(&nodes.kept(&there, true)), ["0", "1", "2", "3"], "{context}");
        }
    }
}

/// It is kept for the session, which sleeps, and is sent again as nobody has heard that it was handled. Where the log has
/// others, what comes while nobody is there waits for these.
#[test]
fn what_a_session_had_that_was_not_kept_has_one_row_when_it_comes_again() {
    for others in [&[][..], &["0"]] {
        let mut nodes = cluster();
        let (here, there) = (nodes.name_at("a", 1), name_with(&mut nodes, 2, 3));
        let to = format!("{there}@here");
        let alice = nodes.online(&here, "phone");
        let (carol, _) = nodes.online_acked(&nodes.name_at("c", 3), "phone");
        let (bob, id) = nodes.online_acked(&there, "desk");
        others.iter().for_each(|body| nodes.send(carol, &chat(&to, body)));
        assert_eq!(nodes.logged(&there), others.len());
        nodes.lose_news_of(2);
        nodes.send(alice, &chat(&to, "1"));
        let all = [others, &["1"]].concat();
        assert_eq!(bodies(&nodes.read(bob)), all);
        assert_eq!(nodes.logged(&there), others.len());
        die(&mut nodes, &[2]);
        assert_eq!(bodies(&nodes.kept(&there, false)), all);
        let (bob, text) = come(&mut nodes, &there, &id, 1);
        assert_eq!(bodies(&text), all);
        nodes.send(bob, &a(1 + u32::try_from(all.len()).unwrap()));
        assert_eq!(nodes.logged(&there), 0);
        assert_eq!(bodies(&nodes.read(bob)), [""; 0]);
    }
}

/// What was confirmed to the dead owner is written off by the next one, and the account read, when owners have settled:
/// while owners change, another may still give it rows, and higher ids.
#[test]
fn a_revived_account_is_read_when_owners_have_settled() {
    let mut nodes = cluster();
    let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    let (alice, _) = nodes.online_acked(&here, "phone");
    let (bob, id) = nodes.online_acked(&there, "desk");
    nodes.send(alice, &chat(&format!("{there}@here"), "1"));
    nodes.send(bob, &a(2));
    nodes.send(alice, &chat(&format!("{there}@here"), "2"));
    assert_eq!(bodies(&nodes.read(bob)), ["1", "2"]);
    nodes.kill_node(2);
    nodes.hold_store();
    nodes.hold_rings();
    nodes.members(&without(&[2]), &[]);
    assert!(!nodes.is_settled());
    // Nor is anything written for it, as its last owner may not be done.
    assert_eq!((revived(&nodes), nodes.requests_held()), (1, 0));
    nodes.free_rings();
    nodes.free_store();
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.is_settled());
    let (_, text) = come(&mut nodes, &there, &id, 2);
    assert_eq!(bodies(&text), ["2"], "{text}");
}

#[test]
fn copies_of_ended_sessions_do_not_come_back() {
    let mut nodes = cluster();
    let there = nodes.name_at("b", 2);
    let ids = ["closed", "timed out", "stays", "kicked"].map(|resource| {
        let (bob, id) = nodes.online_acked(&there, resource);
        match resource {
            "closed" => nodes.send(bob, "</stream:stream>"),
            "kicked" => nodes.kick(&format!("{there}@here/kicked")),
            "timed out" => {
                nodes.cut(bob);
                nodes.advance(Duration::from_secs(61));
            }
            _ => {}
        }
        id
    });
    // One that counts and cannot be resumed has none.
    let other = nodes.login(&there, "plain");
    nodes.send(other, "<enable xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(copies(&nodes), 1);
    die(&mut nodes, &[2]);
    assert_eq!((revived(&nodes), copies(&nodes)), (1, 1));
    for (at, id) in ids.iter().enumerate() {
        let (_, text) = come(&mut nodes, &there, id, 1);
        assert_eq!(text.contains("<resumed "), at == 2, "{text}");
    }
}

#[test]
fn a_session_that_moved_and_then_lost_its_owner_is_resumed_at_the_third() {
    let mut nodes = cluster();
    let name = name_with(&mut nodes, 2, 3);
    let sender = nodes.name_at("c", 1);
    let (sender, _) = nodes.online_acked(&sender, "phone");
    let (bob, id) = nodes.online_acked(&name, "desk");
    nodes.send(sender, &chat(&format!("{name}@here"), "1"));
    // Its account goes to the third node, and its copy to the first.
    nodes.members(&[(1, 1), (2, 0), (3, 1)], &[]);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.read(bob).contains("<reset "));
    assert_eq!((nodes.node_of(&name), copies(&nodes)), (3, 2));
    nodes.send(sender, &chat(&format!("{name}@here"), "2"));
    nodes.kill_node(3);
    nodes.members(&[(1, 1), (2, 0)], &[]);
    nodes.advance(Duration::from_secs(1));
    let (bob, text) = come(&mut nodes, &name, &id, 1);
    assert!(text.contains("<resumed "), "{text}");
    assert_eq!(bodies(&text), ["1", "2"]);
    nodes.send(bob, &a(3));
    assert_eq!(nodes.logged(&name), 0);
}

#[test]
fn when_the_successor_dies_another_node_gets_the_copy() {
    let mut nodes = cluster();
    let name = name_with(&mut nodes, 1, 2);
    let (bob, id) = nodes.online_acked(&name, "desk");
    nodes.kill_node(2);
    nodes.send(bob, &format!("{}{R}", chat(&format!("{name}@here"), "one")));
    let text = nodes.read(bob);
    assert!(bodies(&text) == ["one"] && !text.contains("<a "), "{text}");
    die(&mut nodes, &[2]);
    let text = nodes.read(bob);
    assert!(text.contains(&a(2)), "{text}");
    nodes.send(bob, &format!("{}{R}", chat(&format!("{name}@here"), "two")));
    assert!(nodes.read(bob).contains(&a(3)));
    nodes.kill_node(1);
    nodes.members(&[(3, 1)], &[]);
    nodes.advance(Duration::from_secs(1));
    let (bob, text) = come(&mut nodes, &name, &id, 2);
    assert_eq!(attr(&text, "h"), "3", "{text}");
    assert_eq!(bodies(&text), ["two"]);
    // Nobody is left to keep a copy, and nothing waits for one.
    nodes.send(bob, &format!("{}{R}", chat(&format!("{name}@here"), "three")));
    assert!(nodes.read(bob).contains(&a(4)));
    assert_eq!(nodes.probe(2).copies, 0);
}

#[test]
fn when_both_die_the_session_is_gone_and_no_message_is() {
    let mut nodes = Node::cluster(3, 1, |config| config.archive = true);
    nodes.members(&EQUAL, &[]);
    let name = name_with(&mut nodes, 1, 2);
    let sender = nodes.name_at("c", 3);
    let (sender, _) = nodes.online_acked(&sender, "phone");
    let (_, id) = nodes.online_acked(&name, "desk");
    nodes.send(sender, &format!("{}{R}", chat(&format!("{name}@here"), "one")));
    assert!(nodes.read(sender).contains(&a(2)));
    die(&mut nodes, &[1, 2]);
    let (again, text) = come(&mut nodes, &name, &id, 1);
    assert!(text.contains("<failed ") && text.contains("<item-not-found "), "{text}");
    assert_eq!(bodies(&nodes.kept(&name, true)), ["one"]);
    nodes.send(again, &crate::harness::bind("desk"));
    nodes.send(again, "<presence/>");
    assert_eq!(bodies(&nodes.read(again)), ["one"]);
}

#[test]
fn a_session_without_room_for_a_copy_goes_on_and_ends_with_its_node() {
    let bounds: [fn(&mut ShardConfig); 2] =
        [|config| config.limits.copies = 1, |config| config.limits.copy_bytes = 2_500];
    for bound in bounds {
        let mut nodes = cluster_with(bound);
        let name = name_with(&mut nodes, 1, 2);
        let (_, first) = nodes.online_acked(&name, "first");
        let (second, id) = nodes.online_acked(&name, "second");
        if nodes.probe(0).copies_refused == 0 {
            let long = "x".repeat(2_000);
            nodes.send(second, &chat(&format!("{name}@here/second"), &long));
        }
        assert!(nodes.probe(0).copies_refused > 0);
        assert_eq!(nodes.probe(1).copies, 1);
        nodes.read(second);
        nodes.hold_rings();
        nodes.send(second, &format!("{}{R}", chat(&format!("{name}@here/second"), "one")));
        assert!(nodes.read(second).contains("<a "), "nothing waits");
        nodes.free_rings();
        die(&mut nodes, &[1]);
        assert!(come(&mut nodes, &name, &first, 1).1.contains("<resumed "));
        assert!(come(&mut nodes, &name, &id, 1).1.contains("<failed "));
    }
}

#[test]
fn each_session_has_one_copy_whatever_nodes_come_and_go() {
    let mut nodes = Node::cluster(4, 2, |_| {});
    nodes.members(&[(1, 1)], &[]);
    let names: Vec<String> = (0..60).map(|number| format!("user{number}")).collect();
    let ids: Vec<String> = names.iter().map(|name| nodes.online_acked(name, "phone").1).collect();
    let kept = |nodes: &Node| (0..8).map(|core| nodes.probe(core).copies).sum::<u64>();
    assert_eq!(kept(&nodes), 0);
    let steps: [&[(u32, u32)]; 4] =
        [&EQUAL[..2], &EQUAL, &[(1, 1), (2, 1), (3, 0), (4, 2)], &[(1, 1), (2, 0), (3, 1), (4, 0)]];
    for members in steps {
        nodes.members(members, &[]);
        nodes.advance(Duration::from_secs(1));
        assert!(nodes.is_settled());
        assert_eq!((nodes.sessions(), kept(&nodes)), (60, 60), "{members:?}");
    }
    nodes.members(&[(1, 1), (2, 0), (3, 0), (4, 0)], &[]);
    nodes.advance(Duration::from_secs(1));
    assert_eq!((nodes.sessions(), kept(&nodes)), (60, 0));
    for (name, id) in names.iter().zip(&ids) {
        assert!(come(&mut nodes, name, id, 1).1.contains("<resumed "), "{name}");
    }
}

#[test]
fn contacts_see_a_session_that_lives_on_without_its_client() {
    let mut nodes = cluster();
    let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    let alice = nodes.online(&here, "phone");
    let (bob, id) = nodes.online_acked(&there, "desk");
    befriend(&mut nodes, alice, bob, [&here, &there]);
    nodes.kill_node(2);
    nodes.read(alice);
    nodes.members(&[(1, 1), (3, 1)], &[]);
    let text = nodes.read(alice);
    let gone = text.find("unavailable").expect("gone at first");
    let back = text.find(&format!("<presence from='{there}@here/desk'")).expect("and back");
    assert!(gone < back, "{text}");
    let (_, text) = come(&mut nodes, &there, &id, 1);
    assert!(text.contains("<resumed "), "{text}");
    nodes.kick(&format!("{there}@here/desk"));
    let text = nodes.read(alice);
    assert!(text.contains("unavailable") && text.contains(&format!("{there}@here/desk")), "{text}");
}

/// R8. A node that is no member any more has the copy, and hears late that its owner died. The client was told that its
/// session is gone, and has bound the same resource anew.
#[test]
fn a_session_that_comes_too_late_takes_nothing_from_the_one_that_has_its_address() {
    for is_there in [false, true] {
        let mut nodes = cluster();
        let name = name_with(&mut nodes, 2, 3);
        let (bob, id) = nodes.online_acked(&name, "desk");
        nodes.send(bob, "<presence to='stranger@here'/>");
        let alone = nodes.members(&[(2, 1)], &[]);
        nodes.tell_left(&alone, 3);
        nodes.kill_node(2);
        // Who owns the account next never knew of the third node, so that it waits for nothing from there.
        nodes.start_node(2, 1, &|_| {});
        let view = nodes.members(&[(2, 1)], &[]);
        nodes.advance(Duration::from_secs(1));
        assert!(nodes.is_settled());
        let phone = nodes.online(&name, "phone");
        let (bob, text) = come(&mut nodes, &name, &id, 1);
        assert!(text.contains("<failed "), "{text}");
        nodes.send(bob, &bind("desk"));
        nodes.read(bob);
        let anew = nodes.enable(bob);
        nodes.send(bob, "<presence/>");
        assert!(nodes.read(phone).contains(&format!("<presence from='{name}@here/desk'")));
        if !is_there {
            nodes.cut(bob);
        }
        assert_eq!(nodes.session_facts(&name).len(), 2);
        nodes.tell_left(&view, 3);
        assert_eq!((revived(&nodes), nodes.session_facts(&name).len()), (1, 2));
        assert_eq!(nodes.probe(nodes.owner(&name)).sessions_moved_in, 1, "it did not come");
        nodes.advance(Duration::from_secs(30));
        let (_, text) = match is_there {
            true => (bob, String::new()),
            false => come(&mut nodes, &name, &anew, 1),
        };
        assert!(is_there || text.contains("<resumed "), "{text}");
        nodes.advance(Duration::from_secs(61));
        let text = nodes.read(phone);
        assert!(!text.contains("unavailable"), "{text}");
    }
}

/// Who went with the same node, and left no copy, is gone for the session, too.
#[test]
fn a_session_that_lives_on_sees_which_contacts_do_not() {
    let mut nodes = cluster();
    let (one, other) = (nodes.name_at("a", 2), nodes.name_at("b", 2));
    let (alice, id) = nodes.online_acked(&one, "phone");
    let bob = nodes.online(&other, "desk");
    befriend(&mut nodes, alice, bob, [&one, &other]);
    die(&mut nodes, &[2]);
    let (_, text) = come(&mut nodes, &one, &id, 1);
    assert!(text.contains("<resumed "), "{text}");
    let last = text.rfind(&format!("from='{other}@here")).expect("news of the contact");
    assert!(text[last..].contains("type='unavailable'"), "{text}");
}

#[test]
fn a_request_that_the_copy_has_does_not_come_again() {
    let mut nodes = cluster();
    let (here, there) = (nodes.name_at("a", 1), nodes.name_at("b", 2));
    let (alice, _) = nodes.online_acked(&here, "phone");
    let (_, id) = nodes.online_acked(&there, "desk");
    let request =
        format!("<iq type='get' id='q' to='{there}@here/desk'><query xmlns='urn:example:q'/></iq>");
    for is_copied in [false, true] {
        if is_copied {
            nodes.lose_news_of(2);
        }
        nodes.send(alice, &request.replace("'q'", &format!("'q{is_copied}'")));
    }
    die(&mut nodes, &[2]);
    let (_, text) = come(&mut nodes, &there, &id, 1);
    assert_eq!(text.matches("id='qfalse'").count(), 1, "{text}");
    assert_eq!(text.matches("id='qtrue'").count(), 1, "{text}");
    nodes.send(alice, R);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.read(alice).contains(&a(3)));
}

/// What a message costs, beside no copies: one frame for either side's session and turn, with the message once.
#[test]
#[expect(clippy::print_stdout, reason = "tells what was measured")]
fn a_message_costs_a_frame_for_either_session_and_turn() {
    const ROUNDS: u32 = 400;
    for (burst, copies) in [(1, true), (1, false), (20, true), (20, false)] {
        let mut nodes =
            cluster_with(|config| config.limits.copies = if copies { 1_000 } else { 0 });
        let (here, there) = (name_with(&mut nodes, 1, 3), name_with(&mut nodes, 2, 3));
        let (alice, _) = nodes.online_acked(&here, "phone");
        let (bob, _) = nodes.online_acked(&there, "desk");
        let told = |nodes: &Node| {
            let probes = [0, 1, 2].map(|core| nodes.probe(core));
            let sum = |of: fn(&corefire::shard::Probe) -> u64| -> u64 {
                probes.iter().map(|probe| of(probe)).sum()
            };
            (sum(|it| it.copy_frames), sum(|it| it.copy_bytes), sum(|it| it.frames_out))
        };
        let before = told(&nodes);
        let began = std::time::Instant::now();
        let mut h = 1;
        for _ in 0..ROUNDS / burst {
            let messages = chat(&format!("{there}@here"), &"x".repeat(100)).repeat(burst as usize);
            nodes.send(alice, &format!("{messages}{R}"));
            h += burst;
            nodes.send(bob, &a(h));
            nodes.read(alice);
            nodes.read(bob);
        }
        let spent = began.elapsed() / ROUNDS;
        let after = told(&nodes);
        let (frames, bytes) = (after.0 - before.0, after.1 - before.1);
        let turns = u64::from(ROUNDS / burst);
        if copies {
            assert!(frames <= 2 * turns + 2, "{frames} frames in {turns} turns");
            assert!(bytes <= u64::from(ROUNDS) * 450, "{bytes} bytes");
        } else {
            assert_eq!((frames, bytes), (0, 0));
        }
        let each = |to: u64, from: u64| (to - from) as f64 / f64::from(ROUNDS);
        println!(
            "bursts of {burst}, copies {copies}: {spent:?} a message, {:.2} frames of copies with {:.0} bytes, {:.2} of all",
            each(after.0, before.0),
            each(after.1, before.1),
            each(after.2, before.2),
        );
    }
}

/// R4, R1. The dead owner kept what a session left, its copy did not hear of that, and the next owner keeps it again.
#[test]
fn what_two_owners_kept_comes_once_and_stays_until_it_is_confirmed() {
    // The sender may be at the same shard, where nobody waits for it.
    for (resumes, at) in [(false, 1), (true, 1), (false, 2), (true, 2)] {
        let mut nodes = cluster();
        let there = name_with(&mut nodes, 2, 3);
        let [alice, carol] = [("a", at), ("c", 1)].map(|(stem, at)| {
            let name = nodes.name_at(stem, at);
            nodes.online(&name, "phone")
        });
        let to = format!("{there}@here");
        let (bob, id) = nodes.online_acked(&there, "desk");
        nodes.send(alice, &chat(&to, "1"));
        assert_eq!((bodies(&nodes.read(bob)), nodes.logged(&there)), (vec!["1"], 0));
        // The copy learns nothing more.
        nodes.hold_way(2, 3);
        match resumes {
            true => nodes.cut(bob),
            false => nodes.send(bob, "</stream:stream>"),
        }
        assert_eq!(nodes.logged(&there), 1);
        die(&mut nodes, &[2]);
        nodes.send(carol, &chat(&to, "2"));
        let (bob, text) = match resumes {
            true => come(&mut nodes, &there, &id, 1),
            false => {
                let bob = nodes.login(&there, "desk");
                nodes.enable(bob);
                nodes.send(bob, "<presence/>");
                let text = nodes.read(bob);
                (bob, text)
            }
        };
        let context = format!("resumes {resumes}, sent at node {at}");
        assert_eq!((bodies(&text), nodes.logged(&there)), (vec!["1", "2"], 2), "{context}");
        nodes.send(bob, &a(3));
        assert_eq!(nodes.logged(&there), 0, "{context}");
    }
}

/// R1. Its client was told of more, as the node that had the newer copy knew it; that died with the owner.
#[test]
fn a_session_does_not_come_to_life_from_a_copy_that_was_replaced() {
    for knows in [false, true] {
        let mut nodes = cluster();
        let name = name_with(&mut nodes, 1, 2);
        let other = nodes.name_at("c", 1);
        nodes.users(&[&other]);
        let (bob, id) = nodes.online_acked(&name, "desk");
        if !knows {
            nodes.hold_way(1, 2);
        }
        nodes.members(&[(1, 1), (2, 0), (3, 1)], &[]);
        nodes.send(bob, &format!("{}{R}", chat(&format!("{other}@here"), "1")));
        assert!(nodes.read(bob).contains(&a(2)), "the third node has the copy");
        assert_eq!(copies(&nodes), if knows { 1 } else { 2 });
        nodes.kill_node(1);
        nodes.kill_node(3);
        nodes.members(&[(2, 0)], &[]);
        nodes.advance(Duration::from_secs(1));
        assert_eq!(revived(&nodes), 0);
        let (_, text) = come(&mut nodes, &name, &id, 1);
        assert!(text.contains("<failed "), "{text}");
    }
}
