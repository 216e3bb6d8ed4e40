//! Presence (RFC 6121 §4).

use crate::harness::*;
use crate::subscriptions::*;
use std::time::Duration;

#[test]
fn contacts_see_one_another_at_login_change_and_logout() {
    for shards in [1, 4] {
        let (mut node, alice, bob) = friends(shards);
        node.send(bob, "</stream:stream>");
        assert!(says_gone(&node.read(alice), "bob@here/pc"));
        let bob = node.login("bob", "tab");
        node.send(bob, "<presence><show>dnd</show></presence>");
        let wanted = "<presence from='bob@here/tab' to='alice@here'><show>dnd</show></presence>";
        assert_eq!(node.read(alice), wanted);
        let text = node.read(bob);
        assert!(text.contains("<presence from='alice@here/phone' to='bob@here"), "{text}");
        assert!(text.contains("<presence from='bob@here/tab' to='bob@here'>"), "itself: {text}");
        node.send(alice, "<presence><status>busy</status><priority>3</priority></presence>");
        assert!(node.read(bob).contains("<status>busy</status><priority>3</priority>"));
        node.read(alice);
        node.send(alice, "<presence type='unavailable'><status>bye</status></presence>");
        let text = node.read(bob);
        assert!(says_gone(&text, "alice@here/phone") && text.contains("bye"), "{text}");
        node.cut(bob);
        assert_eq!(node.read(alice), "", "who is unavailable hears nothing");
    }
}

#[test]
fn cut_connection_shows_as_gone_once() {
    let (mut node, alice, bob) = friends(4);
    node.read(alice);
    node.cut(bob);
    let text = node.read(alice);
    assert_eq!(text.matches("type='unavailable'").count(), 1, "{text}");
    node.advance(Duration::from_secs(200));
    assert_eq!(node.read(alice), "");
}

#[test]
fn own_resources_see_one_another() {
    let mut node = Node::new(1);
    let phone = node.online("alice", "phone");
    let pc = node.login("alice", "pc");
    node.send(pc, "<presence><priority>5</priority></presence>");
    assert!(node.read(phone).contains("<presence from='alice@here/pc' to='alice@here'>"));
    let text = node.read(pc);
    assert!(text.contains("from='alice@here/phone'"), "{text}");
    node.send(pc, "<presence type='unavailable'/>");
    assert!(says_gone(&node.read(phone), "alice@here/pc"));
}

#[test]
fn strangers_see_nothing() {
    let mut node = Node::new(4);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    node.send(bob, "<presence><show>away</show></presence>");
    assert_eq!(node.read(alice), "");
    node.send(alice, &to("bob", "probe"));
    assert!(!node.read(alice).contains("bob@here/pc"));
}

#[test]
fn directed_presence_reaches_its_target_and_is_taken_back() {
    for shards in [1, 4] {
        for cut in [false, true] {
            let mut node = Node::new(shards);
            let alice = node.online("alice", "phone");
            let bob = node.online("bob", "pc");
            node.send(alice, "<presence to='bob@here/pc'><show>chat</show></presence>");
            assert_eq!(
                node.read(bob),
                "<presence from='alice@here/phone' to='bob@here/pc'><show>chat</show></presence>"
            );
            node.send(alice, "<presence><show>away</show></presence>");
            assert_eq!(node.read(bob), "");
            match cut {
                true => node.cut(alice),
                false => node.send(alice, "<presence type='unavailable'/>"),
            }
            let text = node.read(bob);
            assert_eq!(text.matches("<presence ").count(), 1, "{text}");
            assert!(says_gone(&text, "alice@here/phone"), "{text}");
        }
    }
}

#[test]
fn directed_presence_that_was_taken_back_is_not_again() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    node.send(alice, "<presence to='bob@here'/>");
    node.send(alice, "<presence to='bob@here' type='unavailable'/>");
    assert!(says_gone(&node.read(bob), "alice@here/phone"));
    node.cut(alice);
    assert_eq!(node.read(bob), "");
}

#[test]
fn contact_that_was_told_directly_hears_once_that_we_go() {
    let (mut node, alice, bob) = friends(4);
    node.send(alice, "<presence to='bob@here/pc'/>");
    node.read(bob);
    node.cut(alice);
    assert_eq!(node.read(bob).matches("type='unavailable'").count(), 1);
}

#[test]
fn directed_presence_of_one_who_is_not_available_goes_to_its_target_alone() {
    let (mut node, alice, bob) = friends(1);
    node.send(alice, "<presence type='unavailable'/>");
    let carol = node.online("carol", "pc");
    node.read(bob);
    node.send(alice, "<presence to='carol@here'/>");
    node.cut(alice);
    assert!(says_gone(&node.read(carol), "alice@here/phone"));
    assert_eq!(node.read(bob), "");
}

#[test]
fn priority_that_is_none_is_a_bad_request() {
    let mut node = Node::new(1);
    let alice = node.login("alice", "phone");
    for priority in ["x", "128", "-129", "1.5", ""] {
        node.send(alice, &format!("<presence><priority>{priority}</priority></presence>"));
        assert!(node.read(alice).contains("<bad-request "), "{priority:?}");
    }
    for priority in ["-128", "0", "127"] {
        node.send(alice, &format!("<presence><priority>{priority}</priority></presence>"));
        assert!(!node.read(alice).contains("error"));
    }
}

#[test]
fn message_follows_the_highest_priority() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let pc = node.online_with("bob", "pc", 1);
    let tab = node.online_with("bob", "tab", 2);
    node.read(pc);
    node.send(alice, &chat("bob@here", "1"));
    node.send(pc, "<presence><priority>3</priority></presence>");
    node.send(alice, &chat("bob@here", "2"));
    assert_eq!(bodies(&node.read(tab)), ["1"]);
    assert_eq!(bodies(&node.read(pc)), ["2"]);
}

#[test]
fn deleted_account_shows_as_gone_to_its_contacts() {
    let (mut node, alice, bob) = friends(4);
    node.read(alice);
    let delete = corefire::store::Write::DeleteAccount { owner: bare("bob") };
    node.change_account("bob", delete);
    assert!(!node.is_open(bob));
    assert!(says_gone(&node.read(alice), "bob@here/pc"));
}
