//! XEP-0359: ids that an account gives its messages, and ids that others claim it gave.

use crate::harness::*;
use std::time::Duration;

/// The ids by `by` in a text, in order.
fn ids(text: &str, by: &str) -> Vec<String> {
    let start = format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{by}' id='");
    let end = |rest: &str| rest[..rest.find('\'').unwrap()].to_owned();
    text.split(&start).skip(1).map(end).collect()
}

fn id(text: &str) -> String {
    let [id] = <[String; 1]>::try_from(ids(text, "bob@here")).unwrap_or_else(|_| panic!("{text}"));
    id
}

#[test]
fn messages_worth_keeping_have_an_id_and_others_have_none() {
    for (shards, acked) in [(1, false), (1, true), (2, false), (2, true)] {
        let mut node = Node::new(shards);
        let alice = node.online("alice", "phone");
        if acked {
            node.enable(alice);
        }
        let (bob, tab) = (node.online("bob", "pc"), node.online("bob", "tab"));
        node.read(bob);
        let mut seen = Vec::new();
        for to in ["bob@here", "bob@here/pc", "bob@here"] {
            node.send(alice, &chat(to, "hi"));
            seen.push(id(&node.read(bob)));
            let other = node.read(tab);
            assert!(other.is_empty() || id(&other) == seen[seen.len() - 1], "one id for all");
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 3);
        assert!(seen.iter().all(|id| id.len() == 16));
        for rest in [
            "type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/>",
            "type='chat'><body>x</body><no-store xmlns='urn:xmpp:hints'/>",
            "type='headline'><body>x</body>",
            "type='error'><body>x</body>",
        ] {
            node.send(alice, &format!("<message to='bob@here/pc' {rest}</message>"));
            let got = node.read(bob);
            assert!(got.starts_with("<message ") && !got.contains("stanza-id"), "{got}");
        }
    }
}

#[test]
fn message_that_comes_again_has_the_id_it_had() {
    for (shards, acked) in [(1, false), (1, true), (2, false), (2, true)] {
        let mut node = Node::new(shards);
        let alice = node.online("alice", "phone");
        if acked {
            node.enable(alice);
        }
        let (bob, sm) = node.online_acked("bob", "pc");
        for body in ["1", "2"] {
            node.send(alice, &chat("bob@here", body));
        }
        let first = ids(&node.read(bob), "bob@here");
        assert_eq!(first.len(), 2);
        // The same stream, resumed.
        node.cut(bob);
        node.send(alice, &chat("bob@here", "3"));
        let owner = node.owner("bob");
        let bob = node.authenticate(owner, "bob");
        node.send(bob, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{sm}' h='1'/>"));
        let again = ids(&node.read(bob), "bob@here");
        assert_eq!((&again[..2], again.len()), (&first[..], 3));
    }
}

#[test]
fn id_stays_the_same_from_one_session_to_the_next() {
    for (shards, acked) in [(1, false), (1, true), (2, false), (2, true)] {
        let mut node = Node::new(shards);
        let alice = node.online("alice", "phone");
        if acked {
            node.enable(alice);
        }
        let (bob, _) = node.online_acked("bob", "pc");
        let mut got = Vec::new();
        for body in ["1", "2"] {
            node.send(alice, &chat("bob@here", body));
            got.extend(ids(&node.read(bob), "bob@here"));
        }
        // It ends in order, and has acknowledged nothing.
        node.send(bob, "</stream:stream>");
        for resource in ["tab", "watch"] {
            let next = node.login("bob", resource);
            node.ignore_pings(next);
            node.send(next, "<presence/>");
            let text = node.read(next);
            assert_eq!(bodies(&text), ["1", "2"]);
            assert_eq!(ids(&text, "bob@here"), got, "{text}");
            node.cut(next);
        }
        // A session that falls asleep and never returns.
        let (pad, _) = node.online_acked("bob", "pad");
        node.cut(pad);
        node.advance(Duration::from_secs(120));
        let last = node.online("bob", "last");
        node.send(alice, &chat("bob@here", "3"));
        assert_eq!(bodies(&node.read(last)), ["3"], "what came to pad was confirmed");
    }
}

#[test]
fn ids_that_others_forged_go_and_all_else_stays() {
    let forged = [
        "<stanza-id xmlns='urn:xmpp:sid:0' by='bob@here' id='forged'/>",
        "<stanza-id xmlns='urn:xmpp:sid:0' by='BOB@Here' id='forged'></stanza-id>",
        "<s:stanza-id id=\"forged\" by=\"bob&#64;here\" xmlns:s=\"urn:xmpp:sid:0\"/>",
    ];
    let kept = "<stanza-id xmlns='urn:xmpp:sid:0' by='room@muc' id='1'/>\
        <origin-id xmlns='urn:xmpp:sid:0' id='2'/>\
        <stanza-id xmlns='urn:xmpp:sid:0' by='bob@here/pc' id='3'/>\
        <wrapped xmlns='urn:x'><stanza-id xmlns='urn:xmpp:sid:0' by='bob@here' id='4'/></wrapped>";
    for (shards, to) in [(1, "bob@here"), (2, "bob@here"), (2, "bob@here/pc")] {
        let mut node = Node::new(shards);
        let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
        for kind in ["chat", "headline", "error"] {
            let [one, two, three] = forged;
            node.send(
                alice,
                &format!(
                    "<message to='{to}' type='{kind}'>{one}<body>a</body>{two}{kept}{three}</message>"
                ),
            );
            let got = node.read(bob);
            if kind == "error" && to == "bob@here" {
                assert_eq!(got, "", "errors go to the resource they name");
                continue;
            }
            assert!(!got.contains("forged"), "{got}");
            assert!(got.contains(&format!("<body>a</body>{kept}")), "{got}");
            let own = ids(&got, "bob@here");
            assert_eq!(own.len(), if kind == "chat" { 2 } else { 1 }, "{got}");
        }
    }
}

#[test]
fn stored_message_has_one_id_and_no_forged_one() {
    let mut node = Node::new(2);
    let alice = node.online("alice", "phone");
    node.users(&["bob"]);
    let forged = "<stanza-id xmlns='urn:xmpp:sid:0' by='bob@here' id='forged'/>";
    node.send(alice, &format!("<message to='bob@here'><body>a</body>{forged}</message>"));
    let bob = node.login("bob", "pc");
    node.send(bob, "<presence/>");
    let text = node.read(bob);
    assert_ne!(id(&text), "forged");
}
