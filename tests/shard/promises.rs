//! What README promises of acknowledgements and ids, where the tests of each part leave it open.

use crate::acks::R;
use crate::harness::*;
use std::time::Duration;

/// The number that the client is told by now.
fn told(node: &mut Node, client: Client) -> u32 {
    node.send(client, R);
    node.advance(Duration::from_millis(1_100));
    let text = node.read(client);
    let answer = text.rfind("<a ").unwrap_or_else(|| panic!("no <a/> in {text}"));
    attr(&text[answer..], "h").parse().unwrap()
}

// ---- R1

/// Messages to accounts of all cores, whose rows become durable one by one and out of the order in which they were sent.
#[test]
fn no_acknowledgement_passes_what_is_durable() {
    let to = ["bob", "carol", "dave", "erin", "frank", "grace"];
    for (shards, archive) in [(1, false), (4, false), (4, true)] {
        let mut node = Node::with(shards, |config| config.archive = archive);
        let (alice, _) = node.online_acked("alice", "phone");
        node.users(&to);
        // So that each account has ids to log with.
        to.iter().for_each(|name| node.send(alice, &chat(&format!("{name}@here"), "before")));
        let base = told(&mut node, alice);
        node.hold_store();
        let sent: Vec<(&str, String)> = to
            .iter()
            .chain(&to)
            .enumerate()
            .map(|(number, name)| (*name, number.to_string()))
            .collect();
        for (name, body) in &sent {
            node.send(alice, &chat(&format!("{name}@here"), body));
        }
        assert_eq!(told(&mut node, alice), base);
        let mut last = base;
        for write in (0..sent.len() * (1 + usize::from(archive))).rev() {
            if write % 3 == 0 {
                node.answer_one()
            } else {
                node.answer_newest()
            }
            let h = told(&mut node, alice);
            let copies = archive.then(|| node.kept("alice", true));
            let durable = sent.iter().take_while(|(name, body)| {
                let body = format!("<body>{body}</body>");
                let copied = copies.as_ref().is_none_or(|copies| copies.contains(&body));
                copied && node.kept(name, false).contains(&body)
            });
            assert_eq!((h - base) as usize, durable.count(), "not more, and not less");
            assert!(h >= last);
            last = h;
        }
        node.free_store();
        assert_eq!(told(&mut node, alice), base + 12);
    }
}

/// What cannot be committed is refused by name, and what can is kept.
#[test]
fn commit_that_fails_refuses_what_it_did_not_keep_and_pretends_nothing() {
    for (shards, archive) in [(1, false), (4, false), (1, true), (4, true)] {
        let mut node = Node::with(shards, |config| config.archive = archive);
        let (alice, _) = node.online_acked("alice", "phone");
        node.users(&["bob"]);
        node.send(alice, &chat("bob@here", "before"));
        let base = told(&mut node, alice);
        for (body, fails) in [("1", false), ("2", true), ("3", true), ("4", false)] {
            node.store_fails = fails;
            node.send(alice, &[chat("bob@here", body).as_str(), R].concat());
            let text = node.read(alice);
            assert_eq!(text.contains("<resource-constraint "), fails, "{body}: {text}");
            assert_eq!(text.contains(&format!("id='{body}'")), fails, "{body}: {text}");
        }
        assert_eq!(told(&mut node, alice), base + 4, "each is kept or refused");
        let bob = node.login("bob", "pc");
        node.send(bob, "<presence/>");
        assert_eq!(bodies(&node.read(bob)), ["before", "1", "4"]);
    }
}

#[test]
fn store_that_does_not_answer_holds_acknowledgements_and_nothing_else() {
    let mut node = Node::new(2);
    let (alice, _) = node.online_acked("alice", "phone");
    let bob = node.online("bob", "pc");
    node.send(alice, &chat("bob@here", "before"));
    node.read(bob);
    let base = told(&mut node, alice);
    node.hold_store();
    for number in 0..20_u32 {
        node.send(alice, &chat("bob@here", &number.to_string()));
        assert_eq!(bodies(&node.read(bob)), [number.to_string()], "delivery waits for no disk");
        node.send(bob, &chat("alice@here", "back"));
        assert_eq!(bodies(&node.read(alice)), ["back"]);
        node.advance(Duration::from_millis(500));
    }
    assert_eq!(told(&mut node, alice), base);
    node.free_store();
    assert_eq!(told(&mut node, alice), base + 20);
}

// ---- R2

#[test]
fn id_that_was_shown_and_never_kept_can_be_paged_from() {
    for shards in [1, 2] {
        let mut node = Node::with(shards, |config| config.archive = true);
        let (alice, _) = node.online_acked("alice", "phone");
        let bob = node.online("bob", "pc");
        let mut ids: Vec<String> = Vec::new();
        for (body, fails) in [("1", false), ("2", true), ("3", false)] {
            node.store_fails = fails;
            node.send(alice, &chat("bob@here", body));
            let text = node.read(bob);
            assert_eq!(bodies(&text), [body]);
            let shown = &text[text.find("<stanza-id ").unwrap()..];
            ids.push(attr(shown, "id").to_owned());
        }
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
        for (side, wanted) in [("after", "3"), ("before", "1")] {
            node.send(
                bob,
                &format!(
                    "<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'>\
                     <set xmlns='http://jabber.org/protocol/rsm'><max>9</max><{side}>{}</{side}></set>\
                     </query></iq>",
                    ids[1]
                ),
            );
            assert_eq!(bodies(&node.read(bob)), [wanted], "{side}");
        }
    }
}

// ---- R7

/// Each request gets one answer, whoever owes it: the server, another client, or the server for a client that is gone.
#[test]
fn each_request_gets_one_answer() {
    let mut node = Node::new(4);
    let alice = node.online("alice", "phone");
    let (bob, _) = node.online_acked("bob", "pc");
    let carol = node.online("carol", "pc");
    node.users(&["dave"]);
    let asked = [
        "here",
        "alice@here",
        "bob@here",
        "dave@here",
        "nobody@here",
        "dave@here/pc",
        "bob@here/pc",
        "carol@here/pc",
        "remote.example",
        "@here",
    ];
    for (number, to) in asked.iter().enumerate() {
        for kind in ["get", "set"] {
            let id = format!("{kind}{number}");
            node.send(
                alice,
                &format!("<iq type='{kind}' id='{id}' to='{to}'><q xmlns='urn:q'/></iq>"),
            );
        }
    }
    node.send(carol, "<iq type='result' id='get7' to='alice@here/phone'/>");
    node.send(carol, "<iq type='error' id='set7' to='alice@here/phone'/>");
    let mut text = node.read(alice);
    assert!(!text.contains("id='get6'"), "its client may still answer: {text}");
    node.cut(bob);
    node.cut(carol);
    node.advance(Duration::from_secs(61));
    text.push_str(&node.read(alice));
    for (number, to) in asked.iter().enumerate() {
        for kind in ["get", "set"] {
            let count = text.matches(&format!("id='{kind}{number}'")).count();
            assert_eq!(count, 1, "{kind} to {to}: {text}");
        }
    }
}
