//! Messages that a front sends itself: fewer nodes on the way, and all promises as before, whoever dies.

use crate::acks::{R, a, resume};
use crate::harness::{Client, Node, attr, bodies, chat};
use crate::iq::befriend;
use corefire::shard::ShardConfig;
use std::time::Duration;

const EQUAL: [(u32, u32); 3] = [(1, 1), (2, 1), (3, 1)];

fn cluster() -> Node {
    cluster_with(|_| {})
}

fn cluster_with(change: impl Fn(&mut ShardConfig)) -> Node {
    let mut nodes = Node::cluster(3, 1, |config| {
        config.archive = true;
        change(config);
    });
    nodes.keep_fronts();
    nodes.members(&EQUAL, &[]);
    assert!(nodes.is_settled());
    nodes
}

/// Names of an account of node 1 and one of node 3.
pub(crate) fn one_node_away(change: impl Fn(&mut ShardConfig)) -> (Node, [String; 2]) {
    let nodes = cluster_with(change);
    let names = [nodes.name_at("a", 1), nodes.name_at("b", 3)];
    (nodes, names)
}

/// Logs in by way of that node, with XEP-0198, and gives the id for `<resume/>`.
pub(crate) fn online_at(nodes: &mut Node, node: u32, name: &str) -> (Client, String) {
    let client = nodes.login_at(nodes.core_at(node), name, "phone");
    let id = nodes.enable(client);
    nodes.send(client, "<presence/>");
    confirm(nodes, client, 0);
    (client, id)
}

/// Acknowledges what was read, behind `before` stanzas; gives the text.
fn confirm(nodes: &mut Node, client: Client, before: usize) -> String {
    let text = nodes.read(client);
    let h = before
        + ["<message", "<presence", "<iq"].map(|it| text.matches(it).count()).iter().sum::<usize>();
    nodes.send(client, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
    text
}

fn returning_at(nodes: &mut Node, node: u32, name: &str) -> Client {
    nodes.authenticate(nodes.core_at(node), name)
}

struct Pair {
    nodes: Node,
    alice: Client,
    /// For `<resume/>`.
    id: String,
    bob: Client,
    to: String,
    names: [String; 2],
}

/// Alice's account is with node 1, her socket with node 2; Bob and his with node 3.
fn pair() -> Pair {
    let mut nodes = cluster();
    let names = [nodes.name_at("a", 1), nodes.name_at("b", 3)];
    let (alice, id) = online_at(&mut nodes, 2, &names[0]);
    let (bob, _) = online_at(&mut nodes, 3, &names[1]);
    assert!(nodes.sends_directly(alice) && !nodes.sends_directly(bob));
    let to = format!("{}@here", names[1]);
    Pair { nodes, alice, id, bob, to, names }
}

impl Pair {
    fn say(&mut self, body: &str) {
        let text = chat(&self.to, body);
        self.nodes.send(self.alice, &text);
    }

    /// Alice's number, as she is told it.
    fn handled(&mut self) -> String {
        self.nodes.send(self.alice, R);
        self.nodes.advance(Duration::from_secs(1));
        let text = self.nodes.read(self.alice);
        attr(&text[text.rfind("<a ").unwrap_or_else(|| panic!("{text}"))..], "h").to_owned()
    }

    fn heard(&mut self) -> Vec<String> {
        bodies(&self.nodes.read(self.bob)).into_iter().map(str::to_owned).collect()
    }
}

#[test]
fn message_crosses_two_nodes_at_most_and_one_where_its_recipient_is_at_its_owner() {
    let mut nodes = cluster();
    let names = [nodes.name_at("a", 1), nodes.name_at("b", 3), nodes.name_at("c", 2)];
    let (alice, _) = online_at(&mut nodes, 2, &names[0]);
    let (bob, _) = online_at(&mut nodes, 1, &names[1]);
    let (carol, _) = online_at(&mut nodes, 2, &names[2]);
    nodes.send(alice, &chat(&format!("{}@here", names[1]), "far"));
    assert_eq!((bodies(&nodes.read(bob)), nodes.nodes_crossed()), (vec!["far"], [0, 0, 1, 0, 0]));
    // The front is the recipient's owner.
    nodes.send(bob, &chat(&format!("{}@here/phone", names[0]), "back"));
    assert_eq!(
        (bodies(&nodes.read(alice)), nodes.nodes_crossed()),
        (vec!["back"], [0, 1, 1, 0, 0])
    );
    nodes.send(bob, &chat(&format!("{}@here", names[2]), "at its owner"));
    assert_eq!(
        (bodies(&nodes.read(carol)), nodes.nodes_crossed()),
        (vec!["at its owner"], [0, 2, 1, 0, 0])
    );
    // Where the front is the recipient's owner, nothing crosses.
    nodes.send(alice, &chat(&format!("{}@here", names[2]), "here"));
    assert_eq!(
        (bodies(&nodes.read(carol)), nodes.nodes_crossed()),
        (vec!["here"], [1, 2, 1, 0, 0])
    );
    nodes.send(carol, &chat(&format!("{}@here", names[1]), "from its owner"));
    assert_eq!(
        (bodies(&nodes.read(bob)), nodes.nodes_crossed()),
        (vec!["from its owner"], [1, 2, 2, 0, 0])
    );
    nodes.send(alice, &[chat("nobody@here", "lost"), R.into()].concat());
    let text = nodes.read(alice);
    assert!(text.contains("service-unavailable") && text.contains(&a(4)), "{text}");
}

#[test]
fn owner_archives_copies_and_acknowledges_what_its_front_has_sent() {
    let mut pair = pair();
    let name = pair.names[0].clone();
    let tablet = pair.nodes.login(&name, "tablet");
    pair.nodes.send(tablet, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    pair.nodes.read(tablet);
    // The change took the leave back, and the first message went by way of the owner.
    pair.say("zero");
    assert_eq!(pair.handled(), "2");
    assert!(pair.nodes.sends_directly(pair.alice));
    pair.nodes.hold_store();
    pair.say("one");
    assert!(pair.nodes.sends_directly(pair.alice));
    assert_eq!(pair.handled(), "2", "nothing is durable");
    pair.nodes.free_store();
    assert_eq!(pair.handled(), "3");
    assert_eq!(pair.heard(), ["zero", "one"]);
    let copies = pair.nodes.read(tablet);
    assert_eq!(bodies(&copies), ["zero", "one"], "{copies}");
    for name in pair.names.clone() {
        assert_eq!(bodies(&pair.nodes.kept(&name, true)), ["zero", "one"], "{name}");
    }
    assert_eq!(pair.nodes.faults(), 0);
}

#[test]
fn what_is_no_message_waits_for_those_before_it_and_holds_back_those_behind() {
    let mut pair = pair();
    let (alice, bob) = (pair.alice, pair.bob);
    let [here, there] = pair.names.clone();
    befriend(&mut pair.nodes, alice, bob, [&here, &there]);
    pair.say("zero");
    pair.nodes.send(alice, R);
    assert!(pair.nodes.sends_directly(alice));
    pair.heard();
    pair.nodes.hold_way(2, 3);
    let iq = format!(
        "<iq type='get' id='q' to='{}/phone'><query xmlns='jabber:iq:version'/></iq>",
        pair.to
    );
    let ask = [chat(&pair.to, "one"), iq, chat(&pair.to, "two")].concat();
    pair.nodes.send(alice, &ask);
    assert_eq!(pair.nodes.read(bob), "");
    // Its owner answers meanwhile what is between the two of them.
    let ping = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>";
    assert_eq!(pair.nodes.read(alice).matches("<iq").count(), 0);
    pair.nodes.send(alice, ping);
    pair.nodes.free_ways();
    let text = pair.nodes.read(bob);
    let places = ["one</body>", "id='q'", "two</body>"].map(|it| text.find(it));
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{text}");
    assert!(pair.nodes.read(alice).contains("id='p'"));
}

#[test]
fn own_affairs_pass_beside_messages_that_are_on_their_way() {
    let mut pair = pair();
    pair.nodes.hold_way(2, 3);
    pair.say("one");
    let ping = "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq><presence/> ";
    pair.nodes.send(pair.alice, ping);
    assert!(pair.nodes.read(pair.alice).contains("id='p'"));
    pair.say("two");
    assert!(pair.nodes.sends_directly(pair.alice));
    pair.nodes.free_ways();
    assert_eq!(pair.heard(), ["one", "two"]);
    assert_eq!(pair.handled(), "5");
}

#[test]
fn any_cut_of_the_stream_gives_the_same() {
    let mut pair = pair();
    let script: String = (0..4).map(|number| chat(&pair.to, &number.to_string())).collect();
    let script = format!("{script} <presence/>{}", chat(&pair.to, "4"));
    for byte in script.as_bytes() {
        pair.nodes.send_bytes(pair.alice, &[*byte]);
    }
    assert_eq!(pair.heard(), ["0", "1", "2", "3", "4"]);
    assert_eq!(pair.handled(), "7");
    let sent = |nodes: &Node| nodes.probe(nodes.core_at(2)).messages_sent_directly;
    assert_eq!(sent(&pair.nodes), 5);
    // What is not well-formed is its owner's to judge.
    pair.nodes.send(pair.alice, &[chat(&pair.to, "5"), "<message>&x;</message>".into()].concat());
    assert_eq!(pair.heard(), ["5"]);
    assert!(pair.nodes.read(pair.alice).contains("</stream:stream>"));
}

#[test]
fn blocked_address_gets_nothing_from_the_front_either() {
    let mut pair = pair();
    let block = format!(
        "<iq type='set' id='x'><block xmlns='urn:xmpp:blocking'><item jid='{}'/></block></iq>",
        pair.to
    );
    pair.nodes.send(pair.alice, &[chat(&pair.to, "one"), block, chat(&pair.to, "two")].concat());
    assert_eq!(pair.heard(), ["one"]);
    assert!(pair.nodes.read(pair.alice).contains("<blocked "));
    assert!(!pair.nodes.sends_directly(pair.alice));
    pair.say("three");
    assert!(pair.heard().is_empty());
    pair.nodes.send(pair.alice, "<iq type='set' id='y'><unblock xmlns='urn:xmpp:blocking'/></iq>");
    assert!(pair.nodes.sends_directly(pair.alice));
    pair.say("four");
    assert_eq!(pair.heard(), ["four"]);
}

#[test]
fn forged_sender_is_refused_by_the_owner() {
    let mut pair = pair();
    let forged = chat(&pair.to, "x").replace("<message ", "<message from='eve@here' ");
    pair.nodes.send(pair.alice, &forged);
    assert!(pair.heard().is_empty());
    assert!(pair.nodes.read(pair.alice).contains("<invalid-from "));
}

/// Alice's front dies while messages of hers are on their way, and she goes on at the third node.
fn front_dies(prepare: impl Fn(&mut Node), before: impl Fn(&mut Node)) {
    let mut pair = pair();
    pair.say("zero");
    prepare(&mut pair.nodes);
    pair.say("one");
    pair.say("two");
    before(&mut pair.nodes);
    pair.nodes.kill_node(2);
    pair.nodes.free_ways();
    let again = returning_at(&mut pair.nodes, 3, &pair.names[0]);
    let inbound = 1;
    pair.nodes.send(again, &resume(&pair.id, inbound));
    pair.nodes.members(&[(1, 1), (3, 1)], &[]);
    pair.nodes.free_store();
    pair.nodes.advance(Duration::from_secs(1));
    assert!(pair.nodes.is_settled());
    let text = pair.nodes.read(again);
    let h: usize = attr(&text[text.find("<resumed ").unwrap_or_else(|| panic!("{text}"))..], "h")
        .parse()
        .unwrap();
    // She sends again what is not acknowledged.
    for body in ["zero", "one", "two"].iter().skip(h - 1) {
        pair.nodes.send(again, &chat(&pair.to, body));
    }
    pair.nodes.send(again, &chat(&pair.to, "three"));
    pair.nodes.send(again, R);
    assert!(pair.nodes.read(again).contains(&a(5)));
    assert_eq!(pair.heard(), ["zero", "one", "two", "three"]);
    for name in pair.names.clone() {
        let kept = pair.nodes.kept(&name, true);
        assert_eq!(bodies(&kept), ["zero", "one", "two", "three"], "{name}");
    }
    assert_eq!(pair.nodes.faults(), 0);
}

#[test]
fn front_that_dies_is_stood_in_for_by_the_owner() {
    // Nothing has arrived at the recipient's.
    front_dies(|nodes| nodes.hold_way(2, 3), |_| {});
    // It has, and nobody knows.
    front_dies(|nodes| nodes.hold_way(3, 2), |_| {});
    front_dies(Node::hold_store, |_| {});
    // All is handled.
    front_dies(|_| {}, |_| {});
}

#[test]
fn what_a_dead_front_had_not_told_of_comes_from_the_client_and_is_known() {
    front_dies(|nodes| nodes.hold_way(2, 1), |_| {});
    front_dies(
        |nodes| {
            nodes.hold_way(2, 1);
            nodes.hold_way(2, 3);
        },
        |_| {},
    );
}

/// R6. The recipient's node hears of the death late, and what comes again waits for that.
#[test]
fn what_is_said_behind_what_comes_again_does_not_overtake_it() {
    for acked in [false, true] {
        let mut pair = pair();
        pair.nodes.hold_way(2, 3);
        pair.say("one");
        pair.say("two");
        pair.nodes.kill_node(2);
        pair.nodes.free_ways();
        let view = pair.nodes.members(&[(1, 1), (3, 1)], &[3]);
        let next = returning_at(&mut pair.nodes, 1, &pair.names[0]);
        pair.nodes.send(next, &crate::harness::bind("phone"));
        if acked {
            pair.nodes.enable(next);
        }
        pair.nodes.send(next, &chat(&pair.to, "three"));
        assert!(pair.heard().is_empty(), "{acked}");
        pair.nodes.tell_view(&view, |id| id == 3);
        pair.nodes.advance(Duration::from_secs(1));
        assert_eq!(pair.heard(), ["one", "two", "three"], "{acked}");
        assert!(pair.nodes.is_settled() && pair.nodes.faults() == 0);
    }
}

#[test]
fn recipients_owner_that_dies_is_followed_by_the_front() {
    for durable in [false, true] {
        let mut pair = pair();
        pair.say("zero");
        if durable {
            pair.nodes.lose_news_of(3);
        } else {
            pair.nodes.hold_store();
        }
        pair.say("one");
        pair.say("two");
        pair.nodes.kill_node(3);
        pair.nodes.free_store();
        pair.nodes.members(&[(1, 1), (2, 1)], &[]);
        pair.nodes.advance(Duration::from_secs(1));
        assert!(pair.nodes.is_settled());
        assert_eq!(
            bodies(&pair.nodes.kept(&pair.names[1], true)),
            ["zero", "one", "two"],
            "{durable}"
        );
        assert_eq!(pair.handled(), "4");
        pair.say("three");
        assert_eq!(pair.handled(), "5");
        assert_eq!(bodies(&pair.nodes.kept(&pair.names[1], true)), ["zero", "one", "two", "three"]);
    }
}

#[test]
fn client_that_comes_by_another_node_does_not_overtake_itself() {
    for resumes in [true, false] {
        let mut pair = pair();
        pair.nodes.hold_way(2, 3);
        pair.say("one");
        pair.say("two");
        pair.nodes.cut(pair.alice);
        let again = returning_at(&mut pair.nodes, 1, &pair.names[0]);
        let back = match resumes {
            true => resume(&pair.id, 1),
            false => crate::harness::bind("phone"),
        };
        pair.nodes.send(again, &[back, chat(&pair.to, "three")].concat());
        assert!(pair.heard().is_empty(), "{resumes}");
        pair.nodes.free_ways();
        assert_eq!(pair.heard(), ["one", "two", "three"], "{resumes}");
        let text = pair.nodes.read(again);
        assert!(!resumes || text.contains("<resumed ") && text.contains("h='3'"), "{text}");
    }
}

/// The front lives and its way to the owner breaks: what was on it is lost, and nothing of what it told.
#[test]
fn broken_link_between_front_and_owner_loses_and_doubles_nothing() {
    for told in [true, false] {
        let mut pair = pair();
        pair.say("zero");
        pair.nodes.hold_way(2, if told { 3 } else { 1 });
        pair.say("one");
        pair.say("two");
        pair.nodes.break_link(1, 2);
        assert!(!pair.nodes.is_open(pair.alice));
        let again = returning_at(&mut pair.nodes, 3, &pair.names[0]);
        pair.nodes.send(again, &resume(&pair.id, 1));
        pair.nodes.free_ways();
        let text = pair.nodes.read(again);
        let h: usize =
            attr(&text[text.find("<resumed ").unwrap_or_else(|| panic!("{text}"))..], "h")
                .parse()
                .unwrap();
        assert_eq!(h, if told { 4 } else { 2 });
        for body in ["zero", "one", "two"].iter().skip(h - 1) {
            pair.nodes.send(again, &chat(&pair.to, body));
        }
        pair.nodes.send(again, &chat(&pair.to, "three"));
        pair.nodes.send(again, R);
        assert!(pair.nodes.read(again).contains(&a(5)));
        assert_eq!(pair.heard(), ["zero", "one", "two", "three"], "{told}");
        // What is known to be new goes straight again.
        pair.nodes.send(again, &chat(&pair.to, "four"));
        assert!(pair.nodes.sends_directly(again), "{told}");
        assert_eq!(pair.heard(), ["four"]);
    }
}

#[test]
fn session_that_moves_takes_its_open_messages_with_it() {
    for known in [true, false] {
        let mut nodes = Node::cluster(4, 1, |config| config.archive = true);
        nodes.keep_fronts();
        let three = [(1, 1), (2, 1), (3, 1), (4, 0)];
        nodes.members(&three, &[]);
        // Whose account the fourth node will own.
        let names: Vec<String> = (0..200).map(|number| format!("u{number}")).collect();
        let before: Vec<u32> = names.iter().map(|name| nodes.node_of(name)).collect();
        nodes.members(&[(1, 1), (2, 1), (3, 1), (4, 1)], &[]);
        let moves = |at: &usize| nodes.node_of(&names[*at]) == 4 && before[*at] == 1;
        let mover = names[(0..200).find(moves).unwrap()].clone();
        let stays = |at: &usize| nodes.node_of(&names[*at]) == 3 && before[*at] == 3;
        let friend = names[(0..200).find(stays).unwrap()].clone();
        nodes.members(&three, &[]);
        nodes.advance(Duration::from_secs(1));
        let (alice, id) = online_at(&mut nodes, 2, &mover);
        let (bob, _) = online_at(&mut nodes, 3, &friend);
        assert!(nodes.sends_directly(alice));
        let to = format!("{friend}@here");
        if known {
            nodes.hold_store();
        } else {
            nodes.hold_way(2, 1);
        }
        nodes.send(alice, &chat(&to, "one"));
        nodes.send(alice, &chat(&to, "two"));
        nodes.members(&[(1, 1), (2, 1), (3, 1), (4, 1)], &[]);
        nodes.free_ways();
        nodes.free_store();
        nodes.advance(Duration::from_secs(1));
        assert!(nodes.is_settled());
        assert!(!nodes.is_open(alice));
        let again = returning_at(&mut nodes, 3, &mover);
        nodes.send(again, &resume(&id, 1));
        let text = nodes.read(again);
        let h: usize =
            attr(&text[text.find("<resumed ").unwrap_or_else(|| panic!("{text}"))..], "h")
                .parse()
                .unwrap();
        for body in ["one", "two"].iter().skip(h - 1) {
            nodes.send(again, &chat(&to, body));
        }
        nodes.send(again, &chat(&to, "three"));
        nodes.send(again, R);
        assert!(nodes.read(again).contains(&a(4)), "{known}");
        assert_eq!(bodies(&nodes.read(bob)), ["one", "two", "three"], "{known}, h {h}");
        assert_eq!(bodies(&nodes.kept(&friend, true)), ["one", "two", "three"]);
    }
}
