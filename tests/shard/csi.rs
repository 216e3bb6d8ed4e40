//! XEP-0352: what waits for a client that nobody looks at, and what does not.

use crate::harness::*;
use crate::iq::befriend;
use crate::sasl2::{bind2, logged_in, text};
use std::time::Duration;

const INACTIVE: &str = "<inactive xmlns='urn:xmpp:csi:0'/>";
const ACTIVE: &str = "<active xmlns='urn:xmpp:csi:0'/>";
const TYPES: &str = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";

fn types(to: &str) -> String {
    format!("<message type='chat' to='{to}'>{TYPES}</message>")
}

fn status(text: &str) -> String {
    format!("<presence><status>{text}</status></presence>")
}

/// Alice and Bob, who see each other; Bob's client has just become inactive.
fn scene(shards: u16) -> (Node, Client, Client) {
    let mut node = Node::new(shards);
    let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
    befriend(&mut node, alice, bob, ["alice", "bob"]);
    node.send(bob, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    node.read(alice);
    node.read(bob);
    node.send(bob, INACTIVE);
    assert_eq!(node.read(bob), "", "an indication is not answered");
    (node, alice, bob)
}

/// The text of each `<status/>`, in order.
fn statuses(text: &str) -> Vec<&str> {
    text.split("<status>").skip(1).map(|rest| rest.split('<').next().unwrap()).collect()
}

#[test]
fn presence_and_typing_wait_until_the_client_is_active() {
    for shards in [1, 2] {
        let (mut node, alice, bob) = scene(shards);
        node.send(alice, &status("old"));
        node.send(alice, &types("bob@here"));
        node.send(alice, &status("new"));
        assert_eq!(node.read(bob), "");
        node.send(
            bob,
            &format!("{ACTIVE}<iq type='get' id='p' to='here'><ping xmlns='urn:xmpp:ping'/></iq>"),
        );
        let got = node.elements(bob);
        assert_eq!(got.len(), 3, "{got:?}");
        assert!(got[0].contains("<composing "), "{got:?}");
        assert!(got[1].contains("new"), "only the newest presence counts: {got:?}");
        assert!(got[2].contains("id='p'"), "and all of it comes before the answer: {got:?}");
        node.send(alice, &status("later"));
        assert_eq!(statuses(&node.read(bob)), ["later"], "nothing waits for an active client");
    }
}

#[test]
fn what_matters_comes_at_once_and_what_waited_before_it() {
    let iq = "<iq type='get' id='1' to='bob@here/pc'><ping xmlns='urn:xmpp:ping'/></iq>";
    let urgent = [
        chat("bob@here", "hi"),
        "<message to='bob@here/pc'/>".into(),
        format!("<message to='bob@here'>{TYPES}<body>hi</body></message>"),
        format!("<message to='bob@here/pc'>{TYPES}<x xmlns='urn:x'/></message>"),
        format!("<message type='error' to='bob@here/pc'>{TYPES}</message>"),
        "<message to='bob@here'><received xmlns='urn:xmpp:receipts' id='1'/></message>".into(),
        iq.into(),
        "<presence to='bob@here/pc' type='error'/>".into(),
        "<presence to='bob@here' type='unsubscribe'/>".into(),
    ];
    for (number, stanza) in urgent.iter().enumerate() {
        let (mut node, alice, bob) = scene(1 + number as u16 % 2);
        node.send(alice, &status("away"));
        node.send(alice, &types("bob@here/pc"));
        assert_eq!(node.read(bob), "");
        node.send(alice, stanza);
        let got = node.elements(bob);
        assert!(got.len() >= 3, "{stanza}: {got:?}");
        assert!(got[0].contains("away") && got[1].contains(TYPES), "{stanza}: {got:?}");
        // It is inactive still.
        node.send(alice, &types("bob@here/pc"));
        assert_eq!(node.read(bob), "", "{stanza}");
    }
}

#[test]
fn newest_presence_of_each_resource_is_kept_and_of_a_room_all() {
    let (mut node, alice, bob) = scene(2);
    let tab = node.online("alice", "tab");
    for text in ["1", "2"] {
        node.send(tab, &status(text));
        node.send(alice, &status(text));
    }
    node.send(tab, "<presence type='unavailable'/>");
    for text in ["3", "4"] {
        let room = "<x xmlns='http://jabber.org/protocol/muc#user'/>";
        node.send(
            alice,
            &format!("<presence to='bob@here/pc'><status>{text}</status>{room}</presence>"),
        );
    }
    assert_eq!(node.read(bob), "");
    node.send(bob, ACTIVE);
    let got = node.read(bob);
    assert_eq!(statuses(&got), ["2", "3", "4"], "{got}");
    assert!(got.find("type='unavailable'") < got.find("<status>3"), "{got}");
}

#[test]
fn copies_of_typing_wait_and_copies_of_messages_do_not() {
    let (mut node, alice, bob) = scene(2);
    let tab = node.online("bob", "tab");
    node.send(bob, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
    assert!(node.read(bob).contains("id='c'"));
    node.send(tab, &types("alice@here/phone"));
    node.send(alice, &types("bob@here/tab"));
    assert_eq!(node.read(bob), "");
    node.send(tab, &chat("alice@here/phone", "hi"));
    let got = node.read(bob);
    assert_eq!(got.matches("<forwarded ").count(), 3, "{got}");
}

#[test]
fn what_waits_is_bounded_in_number_and_bytes() {
    for (stanzas, bytes) in [(3, 64 << 10), (100, 1_000)] {
        let mut node = Node::with(1, |config| {
            config.limits.held_stanzas = stanzas;
            config.limits.held_bytes = bytes;
        });
        let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
        node.send(bob, INACTIVE);
        let mut sent = 0;
        let got = loop {
            node.send(alice, &types("bob@here/pc"));
            sent += 1;
            let got = node.count(bob);
            if got > 0 {
                break got;
            }
            assert!(sent < 20, "it is held for ever");
        };
        assert_eq!(got, sent, "at the bound all of it goes out");
        assert!(sent > 3);
        node.send(alice, &types("bob@here/pc"));
        assert_eq!(node.read(bob), "", "and the next waits again");
    }
}

#[test]
fn stream_that_resumes_the_session_has_what_was_held_and_begins_active() {
    for (shards, breaks) in [(1, true), (2, true), (1, false)] {
        let mut node = Node::new(shards);
        let alice = node.online("alice", "phone");
        let (bob, sm) = node.online_acked("bob", "pc");
        let owner = node.owner("bob");
        node.send(bob, INACTIVE);
        node.send(alice, &types("bob@here/pc"));
        node.send(alice, "<presence to='bob@here/pc'><status>seen</status></presence>");
        node.send(bob, "<r xmlns='urn:xmpp:sm:3'/>");
        assert!(node.read(bob).starts_with("<a "), "what is held is not counted yet");
        if breaks {
            node.cut(bob);
            node.send(alice, &types("bob@here/pc"));
        }
        let again = node.authenticate(owner, "bob");
        node.send(again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{sm}' h='1'/>"));
        let got = node.read(again);
        assert_eq!(
            (got.matches(TYPES).count(), statuses(&got)),
            (if breaks { 2 } else { 1 }, vec!["seen"]),
            "{got}"
        );
        node.send(alice, &types("bob@here/pc"));
        assert!(node.read(again).contains(TYPES), "active");
    }
}

#[test]
fn messages_outlive_a_session_that_ends_while_it_is_inactive() {
    for acked in [false, true] {
        let (mut node, alice, bob) = scene(2);
        if acked {
            node.enable(bob);
            node.read(bob);
        }
        node.send(alice, &status("lost"));
        node.send(alice, &types("bob@here/pc"));
        node.ignore_pings(bob);
        node.send(alice, &chat("bob@here", "kept"));
        assert_eq!(bodies(&node.read(bob)), ["kept"]);
        node.send(alice, &types("bob@here/pc"));
        node.send(bob, "</stream:stream>");
        node.advance(Duration::from_secs(120));
        assert_eq!((node.sessions(), node.faults()), (1, 0));
        let tab = node.login("bob", "tab");
        node.send(tab, "<presence/>");
        let got = node.read(tab);
        assert_eq!(bodies(&got), if acked { vec!["kept"] } else { vec![] });
        assert!(!got.contains(TYPES));
    }
}

#[test]
fn client_may_be_inactive_from_the_bind_on() {
    let mut node = Node::new(2);
    node.users(&["bob"]);
    let alice = node.online("alice", "phone");
    let inactive = bind2("pc", INACTIVE);
    let (bob, success) = logged_in(&mut node, "bob", &inactive);
    let jid = text(&success, "authorization-identifier").to_owned();
    node.send(alice, &types(&jid));
    assert_eq!(node.read(bob), "");
    node.send(alice, &chat(&jid, "hi"));
    let got = node.read(bob);
    assert!(got.find("<composing ") < got.find("<body>") && got.contains("<composing "), "{got}");
    node.send(alice, &types(&jid));
    node.send(bob, ACTIVE);
    assert!(node.read(bob).contains("<composing "));
}
