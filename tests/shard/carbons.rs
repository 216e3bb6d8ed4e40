//! XEP-0280: which messages are copied to whom, and what becomes of the copies.

use crate::harness::*;
use crate::sasl2::{bind2, logged_in};
use std::time::Duration;

fn carbons(what: &str) -> String {
    format!("<iq type='set' id='{what}'><{what} xmlns='urn:xmpp:carbons:2'/></iq>")
}

fn enable(node: &mut Node, client: Client) {
    node.send(client, &carbons("enable"));
    let answer = node.read(client);
    assert!(answer.contains("<iq type='result' id='enable'"), "{answer}");
}

fn online(node: &mut Node, name: &str, resource: &str, priority: i8) -> Client {
    let client = node.online_with(name, resource, priority);
    enable(node, client);
    client
}

/// Alice's phone and pc and Bob's phone, pc and deaf resource, which alone asks for no copies; Bob's phone has the
/// highest priority.
struct Scene {
    node: Node,
    alice: [Client; 2],
    bob: [Client; 3],
}

fn scene(shards: u16) -> Scene {
    let mut node = Node::new(shards);
    let alice = [online(&mut node, "alice", "phone", 0), online(&mut node, "alice", "pc", 0)];
    let deaf = node.online_with("bob", "deaf", 1);
    let (phone, pc) = (online(&mut node, "bob", "phone", 5), online(&mut node, "bob", "pc", 1));
    let bob = [phone, pc, deaf];
    for client in alice.iter().chain(&bob) {
        node.read(*client);
    }
    Scene { node, alice, bob }
}

const HOLDS: [(&str, &str); 11] = [
    ("chat", "<body>hi</body>"),
    ("chat", "<active xmlns='http://jabber.org/protocol/chatstates'/>"),
    ("chat", "<x xmlns='urn:x'/>"),
    ("normal", "<body>hi</body>"),
    ("normal", "<received xmlns='urn:xmpp:receipts' id='1'/>"),
    ("normal", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>"),
    ("normal", "<encrypted xmlns='urn:xmpp:omemo:2'/>"),
    ("normal", "<x xmlns='jabber:x:conference' jid='room@muc'/>"),
    ("normal", "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='x@y'/></x>"),
    ("headline", "<received xmlns='urn:xmpp:receipts' id='1'/>"),
    ("error", "<body>hi</body>"),
];

const HOLDS_NOT: [(&str, &str); 8] = [
    ("normal", "<x xmlns='urn:x'/>"),
    ("normal", ""),
    ("headline", "<body>news</body>"),
    ("groupchat", "<body>hi</body>"),
    ("chat", "<body>hi</body><private xmlns='urn:xmpp:carbons:2'/>"),
    ("chat", "<body>hi</body><no-copy xmlns='urn:xmpp:hints'/>"),
    ("error", "<body>hi</body><no-copy xmlns='urn:xmpp:hints'/>"),
    ("normal", "<body>hi</body><private xmlns='urn:xmpp:carbons:2'/>"),
];

#[test]
fn what_is_of_a_conversation_is_copied_at_both_ends_and_nothing_else() {
    for shards in [1, 2] {
        let Scene { mut node, alice: [phone, pc], bob: [at, other, deaf] } = scene(shards);
        let cases = HOLDS.iter().map(|it| (it, true)).chain(HOLDS_NOT.iter().map(|it| (it, false)));
        for ((kind, payload), copied) in cases {
            let message =
                format!("<message type='{kind}' to='bob@here/phone' id='1'>{payload}</message>");
            node.send(phone, &message);
            let got = node.elements(at);
            assert_eq!(got.len(), 1, "{message}");
            assert!(got[0].contains(payload) && !got[0].contains("forwarded"), "{}", got[0]);
            for (client, to, copy) in
                [(pc, "alice@here/pc", "sent"), (other, "bob@here/pc", "received")]
            {
                let got = node.elements(client);
                assert_eq!(got.len(), usize::from(copied), "{message} {got:?}");
                let Some(got) = got.first() else { continue };
                let from = to.split('/').next().unwrap();
                assert_eq!((attr(got, "from"), attr(got, "to")), (from, to));
                let type_ =
                    if *kind == "normal" { String::new() } else { format!(" type='{kind}'") };
                let wrapper = format!(
                    "<message from='{from}' to='{to}'{type_}><{copy} xmlns='urn:xmpp:carbons:2'>\
                     <forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' \
                     from='alice@here/phone' to='bob@here/phone'"
                );
                assert!(got.starts_with(&wrapper), "{got}\n{wrapper}");
                assert!(got.contains(payload), "{got}");
                assert!(got.ends_with(&format!("</message></forwarded></{copy}></message>")));
            }
            assert_eq!((node.read(deaf), node.read(phone)), (String::new(), String::new()));
        }
    }
}

#[test]
fn copy_has_the_id_of_the_message() {
    let Scene { mut node, alice: [phone, pc], bob: [at, other, _] } = scene(2);
    node.send(phone, &chat("bob@here", "hi"));
    let id = |text: &str| attr(&text[text.find("<stanza-id ").unwrap()..], "id").to_owned();
    let (got, copy) = (node.read(at), node.read(other));
    assert_eq!(id(&got), id(&copy));
    assert!(
        !node.read(pc).contains("stanza-id"),
        "what Bob's account gave is not known to Alice's"
    );
}

#[test]
fn message_to_the_account_is_copied_to_those_it_did_not_go_to() {
    for shards in [1, 2] {
        let Scene { mut node, alice: [phone, _], bob: [at, other, deaf] } = scene(shards);
        node.send(phone, &chat("bob@here", "1"));
        assert!(!node.read(at).contains("forwarded"));
        assert!(node.read(other).contains("<received "));
        assert_eq!(node.read(deaf), "");
        // All who get it as the best have no copy.
        node.send(other, "<presence><priority>5</priority></presence>");
        drop([at, other, deaf].map(|client| node.read(client)));
        node.send(phone, &chat("bob@here", "2"));
        for client in [at, other] {
            let got = node.read(client);
            assert_eq!((bodies(&got), got.contains("forwarded")), (vec!["2"], false));
        }
        // A resource that wants nothing sent to its account wants copies all the same.
        node.send(at, "<presence type='unavailable'/>");
        node.send(other, "<presence><priority>-1</priority></presence>");
        node.send(deaf, "<presence><priority>-1</priority></presence>");
        drop([at, other, deaf].map(|client| node.read(client)));
        node.send(phone, &chat("bob@here", "3"));
        assert_eq!(node.logged("bob"), 1);
        assert!(node.read(other).contains("<received ") && node.read(at).contains("<received "));
    }
}

#[test]
fn message_to_oneself_comes_once_to_each_other_resource() {
    for shards in [1, 2] {
        for to in ["to='bob@here'", "to='bob@here/phone'", ""] {
            let Scene { mut node, bob: [at, other, _], .. } = scene(shards);
            let watch = online(&mut node, "bob", "watch", 0);
            drop([at, other, watch].map(|client| node.read(client)));
            node.send(other, &format!("<message {to} type='chat'><body>note</body></message>"));
            let got: Vec<_> = [at, other, watch].map(|client| node.elements(client)).into();
            assert_eq!((got[0].len(), got[1].len(), got[2].len()), (1, 0, 1), "{to} {got:?}");
            assert!(got[2][0].contains("<received "), "{got:?}");
        }
    }
}

#[test]
fn copies_are_asked_for_and_given_up_at_will() {
    let mut node = Node::new(1);
    let (phone, pc) = (node.online("alice", "phone"), node.online("alice", "pc"));
    let bob = node.online("bob", "pc");
    node.read(phone);
    let steps = [
        ("enable", true),
        ("enable", true),
        ("disable", false),
        ("disable", false),
        ("enable", true),
    ];
    for (what, copied) in steps {
        node.send(pc, &carbons(what));
        let answer = node.read(pc);
        assert!(answer.contains(&format!("<iq type='result' id='{what}'")), "{answer}");
        node.send(phone, &chat("bob@here", "hi"));
        assert_eq!(node.count(pc), usize::from(copied));
        node.read(bob);
    }
    let other = carbons("enable").replace("id=", "to='bob@here' id=");
    node.send(pc, &other);
    assert!(node.read(pc).contains("<service-unavailable "));
}

#[test]
fn copy_that_a_client_makes_up_is_refused() {
    for shards in [1, 2] {
        let Scene { mut node, alice: [phone, pc], bob: [at, other, _] } = scene(shards);
        for name in ["sent", "received"] {
            let forged = format!(
                "<message to='bob@here'><{name} xmlns='urn:xmpp:carbons:2'>\
                 <forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' \
                 from='carol@here' to='bob@here'><body>x</body></message></forwarded></{name}></message>"
            );
            node.send(phone, &forged);
            assert!(node.read(phone).contains("<bad-request "));
            for client in [pc, at, other] {
                assert_eq!(node.read(client), "");
            }
        }
    }
}

#[test]
fn blocked_message_is_copied_to_nobody() {
    let Scene { mut node, alice: [phone, pc], bob: [at, other, _] } = scene(2);
    let block = "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='bob@here'/></block></iq>";
    node.send(phone, block);
    node.read(phone);
    node.send(phone, &chat("bob@here", "out"));
    node.send(at, &chat("alice@here/phone", "in"));
    for (client, body) in [(pc, ""), (other, "in")] {
        // Bob's own resources see what he tried to say, and then that it failed.
        let got = node.read(client);
        assert_eq!(bodies(&got), if body.is_empty() { vec![] } else { vec![body] }, "{got}");
    }
}

#[test]
fn error_is_copied_to_those_who_saw_what_it_answers() {
    let Scene { mut node, alice: [phone, pc], .. } = scene(2);
    node.send(phone, &chat("nobody@here", "hi"));
    let (own, copies) = (node.read(phone), node.elements(pc));
    assert!(own.contains("<service-unavailable ") && !own.contains("forwarded"));
    assert_eq!(copies.len(), 2);
    assert!(copies[0].contains("<sent ") && copies[1].contains("<service-unavailable "));
}

#[test]
fn copy_is_kept_for_a_session_that_sleeps_and_goes_with_it() {
    for (shards, acked) in [(1, false), (2, true)] {
        let Scene { mut node, alice: [phone, _], bob: [at, ..] } = scene(shards);
        if acked {
            node.enable(phone);
        }
        let (tab, sm) = node.online_acked("bob", "tab");
        enable(&mut node, tab);
        let owner = node.owner("bob");
        node.cut(tab);
        node.send(phone, &chat("bob@here/phone", "1"));
        let tab = node.authenticate(owner, "bob");
        node.send(tab, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{sm}' h='0'/>"));
        let resumed = node.read(tab);
        assert_eq!(resumed.matches("<received ").count(), 1, "{sm} {resumed}");
        node.cut(tab);
        node.read(at);
        node.advance(Duration::from_secs(120));
        assert!(!node.read(at).contains("forwarded"), "a copy is no message that was lost");
        assert_eq!(node.logged("bob"), 0);
    }
}

#[test]
fn copies_are_asked_for_at_the_bind() {
    let mut node = Node::new(2);
    node.users(&["alice"]);
    let enable = bind2("pc", "<enable xmlns='urn:xmpp:carbons:2'/>");
    let (pc, success) = logged_in(&mut node, "alice", &enable);
    assert!(success.contains("<bound "), "{success}");
    let (phone, bob) = (node.online("alice", "phone"), node.online("bob", "tv"));
    node.read(pc);
    node.send(phone, &chat("bob@here", "hi"));
    assert!(node.read(pc).contains("<sent "));
    assert_eq!(bodies(&node.read(bob)), ["hi"]);
    let again = node.connect(0);
    node.send(again, HEADER);
    let offer = node.read(again);
    for namespace in ["urn:xmpp:carbons:2", "urn:xmpp:csi:0"] {
        assert!(offer.contains(&format!("<feature var='{namespace}'/>")), "{offer}");
    }
}
