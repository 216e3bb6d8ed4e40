//! Messages that nobody is there for (XEP-0160): stored, delivered at login, gone only when confirmed.

use crate::acks::a;
use crate::harness::*;
use corefire::store::Write;
use std::time::Duration;

fn stored(node: &mut Node, bodies: &[&str]) -> Client {
    let alice = node.online("alice", "phone");
    node.users(&["bob"]);
    bodies.iter().for_each(|body| node.send(alice, &chat("bob@here", body)));
    alice
}

/// Bob logs in and does not answer the server's pings.
fn bob_without_answers(node: &mut Node, resource: &str) -> Client {
    let bob = node.login("bob", resource);
    node.ignore_pings(bob);
    node.send(bob, "<presence/>");
    bob
}

fn pong(text: &str) -> String {
    let ping = &text[text.rfind("<iq type='get'").unwrap()..];
    format!("<iq type='result' id='{}' to='here'/>", attr(ping, "id"))
}

#[test]
fn messages_are_delivered_at_login_in_order_with_a_stamp() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = stored(&mut node, &["1", "2", "3"]);
        assert_eq!(node.read(alice), "");
        assert_eq!(node.logged("bob"), 3);
        let bob = node.login("bob", "pc");
        assert_eq!(node.read(bob), "", "not before presence");
        node.send(bob, "<presence/>");
        let text = node.read(bob);
        assert_eq!(bodies(&text), ["1", "2", "3"]);
        let first = "<message from='alice@here/phone' to='bob@here' type='chat' id='1'><body>1</body>\
            <delay xmlns='urn:xmpp:delay' from='here' stamp='2023-11-14T22:13:20";
        assert!(text.contains(first), "{text}");
        assert_eq!(text.matches("<delay ").count(), 3);
    }
}

#[test]
fn negative_priority_gets_no_stored_messages_until_it_rises() {
    let mut node = Node::new(1);
    stored(&mut node, &["1"]);
    let bob = node.login("bob", "pc");
    node.send(bob, "<presence><priority>-1</priority></presence>");
    assert_eq!(bodies(&node.read(bob)), [""; 0]);
    node.send(bob, "<presence><priority>0</priority></presence>");
    assert_eq!(bodies(&node.read(bob)), ["1"]);
}

#[test]
fn answer_to_the_ping_behind_them_confirms_messages() {
    let mut node = Node::new(1);
    stored(&mut node, &["1", "2"]);
    let bob = bob_without_answers(&mut node, "pc");
    let text = node.read(bob);
    assert!(text.ends_with("<ping xmlns='urn:xmpp:ping'/></iq>"), "{text}");
    assert_eq!(text.matches("<ping ").count(), 1);
    assert_eq!(node.logged("bob"), 2);
    node.send(bob, &pong(&text));
    assert_eq!(node.logged("bob"), 0);
}

#[test]
fn error_as_answer_to_the_ping_confirms_too() {
    let mut node = Node::new(1);
    stored(&mut node, &["1"]);
    let bob = bob_without_answers(&mut node, "pc");
    let answer = pong(&node.read(bob)).replace("result", "error");
    node.send(bob, &answer);
    assert_eq!(node.logged("bob"), 0);
}

#[test]
fn answer_to_another_ping_confirms_nothing() {
    let mut node = Node::new(1);
    stored(&mut node, &["1"]);
    let bob = bob_without_answers(&mut node, "pc");
    for id in ["silence", "confirm-0", "confirm-2", "x"] {
        node.send(bob, &format!("<iq type='result' id='{id}' to='here'/>"));
    }
    assert_eq!(node.logged("bob"), 1);
}

#[test]
fn messages_that_were_not_confirmed_come_again() {
    let mut node = Node::new(1);
    stored(&mut node, &["1", "2"]);
    let bob = bob_without_answers(&mut node, "pc");
    assert_eq!(bodies(&node.read(bob)), ["1", "2"]);
    node.cut(bob);
    let bob = node.login("bob", "pc");
    node.send(bob, "<presence/>");
    assert_eq!(bodies(&node.read(bob)), ["1", "2"]);
    assert_eq!(node.logged("bob"), 0);
    let next = node.online("bob", "pc");
    assert_eq!(node.read(next), "");
}

#[test]
fn acknowledged_messages_are_gone_and_the_others_come_again() {
    let mut node = Node::new(1);
    stored(&mut node, &["1", "2", "3"]);
    let bob = node.login("bob", "pc");
    node.send(bob, "<enable xmlns='urn:xmpp:sm:3'/>");
    node.send(bob, "<presence/>");
    assert_eq!(bodies(&node.read(bob)), ["1", "2", "3"]);
    // Presence of its own, and two messages.
    node.send(bob, "<a xmlns='urn:xmpp:sm:3' h='3'/>");
    assert_eq!(node.logged("bob"), 1);
    node.cut(bob);
    let bob = node.login("bob", "pc");
    node.send(bob, "<presence/>");
    assert_eq!(bodies(&node.read(bob)), ["3"]);
}

#[test]
fn message_above_the_limit_is_refused() {
    let mut node = Node::with(1, |config| config.limits.offline_messages = 2);
    let alice = stored(&mut node, &["1", "2"]);
    assert_eq!(node.read(alice), "");
    node.send(alice, &chat("bob@here", "3"));
    assert!(node.read(alice).contains("<service-unavailable "));
    let bob = node.login("bob", "pc");
    node.send(bob, "<presence/>");
    assert_eq!(bodies(&node.read(bob)), ["1", "2"]);
    node.send(bob, "</stream:stream>");
    node.send(alice, &chat("bob@here", "4"));
    assert_eq!(node.read(alice), "");
}

#[test]
fn what_is_not_worth_storing_is_not_stored() {
    let mut node = Node::new(1);
    let alice = stored(&mut node, &[]);
    let cases = [
        ("<body>x</body><no-store xmlns='urn:xmpp:hints'/>", true),
        ("<body>x</body><store xmlns='urn:xmpp:hints'/><no-store xmlns='urn:xmpp:hints'/>", true),
        ("<composing xmlns='http://jabber.org/protocol/chatstates'/>", false),
        ("", false),
    ];
    for (payload, bounced) in cases {
        node.send(alice, &format!("<message type='chat' to='bob@here'>{payload}</message>"));
        let answer = node.read(alice);
        assert_eq!(answer.contains("<service-unavailable "), bounced, "{payload}: {answer}");
        assert_eq!(node.logged("bob"), 0, "{payload}");
    }
}

#[test]
fn hints_say_what_is_kept() {
    let hint = |name: &str| format!("<body>x</body><{name} xmlns='urn:xmpp:hints'/>");
    // `no-permanent-store` is about archives, and permits to keep a message until it is delivered.
    let cases = [
        ("chat", hint("no-permanent-store"), 1),
        ("chat", hint("no-copy"), 1),
        ("headline", hint("store"), 1),
        ("headline", hint("no-copy"), 0),
        ("error", hint("store"), 0),
    ];
    for (kind, payload, kept) in cases {
        let mut node = Node::new(2);
        let alice = stored(&mut node, &[]);
        node.send(alice, &format!("<message type='{kind}' to='bob@here'>{payload}</message>"));
        assert_eq!(node.read(alice), "", "{kind} {payload}");
        assert_eq!(node.logged("bob"), kept, "{kind} {payload}");
        let bob = node.online("bob", "pc");
        node.send(bob, "<presence/>");
        assert_eq!(node.logged("bob"), 0);
    }
}

#[test]
fn receipts_markers_and_encrypted_payloads_are_stored() {
    let mut node = Node::new(1);
    let alice = stored(&mut node, &[]);
    let cases = [
        "<received xmlns='urn:xmpp:receipts' id='1'/>",
        "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>",
        "<encrypted xmlns='eu.siacs.conversations.axolotl'/>",
        "<x xmlns='urn:x'/><store xmlns='urn:xmpp:hints'/>",
    ];
    for (number, payload) in cases.iter().enumerate() {
        node.send(alice, &format!("<message type='chat' to='bob@here'>{payload}</message>"));
        assert_eq!(node.logged("bob"), number + 1, "{payload}");
    }
}

#[test]
fn several_pages_come_whole_and_in_order() {
    for acked in [false, true] {
        let mut node = Node::new(1);
        let wanted: Vec<String> = (0..300).map(|number| number.to_string()).collect();
        stored(&mut node, &wanted.iter().map(String::as_str).collect::<Vec<_>>());
        let bob = node.login("bob", "pc");
        if acked {
            node.enable(bob);
        }
        node.send(bob, "<presence/>");
        let mut text = node.read(bob);
        let mut h = 0;
        let stanzas =
            |text: &str| text.matches("<message ").count() + text.matches("<presence ").count();
        while acked && h != stanzas(&text) {
            h = stanzas(&text);
            node.send(bob, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
            text += &node.read(bob);
        }
        assert_eq!(bodies(&text), wanted);
        assert_eq!(node.logged("bob"), 0);
    }
}

#[test]
fn pages_wait_for_a_client_that_does_not_confirm() {
    let mut node = Node::new(1);
    let wanted: Vec<String> = (0..400).map(|number| number.to_string()).collect();
    stored(&mut node, &wanted.iter().take(300).map(String::as_str).collect::<Vec<_>>());
    let bob = node.login("bob", "pc");
    node.enable(bob);
    node.send(bob, "<presence/>");
    let text = node.read(bob);
    assert!(bodies(&text).len() < 340);
}

#[test]
fn new_messages_come_behind_the_stored_ones() {
    let mut node = Node::new(1);
    let alice = stored(&mut node, &["1", "2"]);
    node.hold_store();
    let bob = node.login("bob", "pc");
    node.send(bob, "<presence/>");
    node.send(alice, &chat("bob@here", "3"));
    assert_eq!(bodies(&node.read(bob)), [""; 0]);
    node.free_store();
    assert_eq!(bodies(&node.read(bob)), ["1", "2", "3"]);
}

#[test]
fn message_on_its_way_to_the_store_is_not_missed_by_a_login() {
    let mut node = Node::new(1);
    let alice = stored(&mut node, &["1"]);
    let bob = node.login("bob", "pc");
    node.hold_store();
    node.send(alice, &chat("bob@here", "2"));
    node.send(bob, "<presence/>");
    assert_eq!(node.queries_held(), 0, "the log is read when the message is in it");
    node.free_store();
    assert_eq!(bodies(&node.read(bob)), ["1", "2"]);
}

#[test]
fn message_confirmed_a_moment_ago_does_not_come_again() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let (pc, _) = node.online_acked("bob", "pc");
    let tab = node.online_with("bob", "tab", -1);
    // Somebody who is asleep makes the log keep what goes to the others, too.
    node.cut(pc);
    ["1", "2", "3"].iter().for_each(|body| node.send(alice, &chat("bob@here", body)));
    assert_eq!(node.logged("bob"), 3);
    node.send(tab, "<presence><priority>1</priority></presence>");
    node.read(tab);
    node.hold_store();
    node.advance(std::time::Duration::from_secs(61));
    node.free_store();
    assert_eq!(bodies(&node.read(tab)), ["1", "2", "3"]);
    assert_eq!(node.logged("bob"), 0);
}

/// What a client confirms while a page of the log is read is in that page all the same.
#[test]
fn message_confirmed_while_the_log_is_read_does_not_come_again() {
    let mut node = Node::new(1);
    let (alice, _) = node.online_acked("alice", "phone");
    let (bob, _) = node.online_acked("bob", "pc");
    ["1", "2"].iter().for_each(|body| node.send(alice, &chat("bob@here", body)));
    assert_eq!((bodies(&node.read(bob)).len(), node.logged("bob")), (2, 2));
    node.hold_store();
    let (owner, disabled) = (bare("bob"), false);
    node.change_account("bob", Write::SetDisabled { owner, disabled });
    // The account is read again; then its log is asked for.
    node.answer_query();
    assert_eq!(node.queries_held(), 1);
    node.send(bob, &a(3));
    node.free_store();
    let text = node.read(bob);
    assert!(bodies(&text).is_empty(), "{text}");
    assert_eq!(node.logged("bob"), 0);
}

#[test]
fn page_asked_for_an_ended_session_is_not_taken_for_the_next_one() {
    let mut node = Node::new(1);
    let wanted: Vec<String> = (0..150).map(|number| number.to_string()).collect();
    stored(&mut node, &wanted.iter().map(String::as_str).collect::<Vec<_>>());
    let pc = node.login("bob", "pc");
    node.ignore_pings(pc);
    let tab = node.login("bob", "tab");
    node.hold_store();
    node.send(pc, "<presence/>");
    node.answer_query();
    // The second page is on its way to the first session when that ends.
    node.send(tab, "<presence/>");
    node.cut(pc);
    node.free_store();
    assert_eq!(bodies(&node.read(tab)), wanted);
}

#[test]
fn of_two_resources_one_gets_the_stored_messages() {
    let mut node = Node::new(1);
    stored(&mut node, &["1"]);
    let (pc, tab) = (node.login("bob", "pc"), node.login("bob", "tab"));
    node.send(pc, "<presence/>");
    node.send(tab, "<presence/>");
    assert_eq!(bodies(&node.read(pc)), ["1"]);
    assert_eq!(bodies(&node.read(tab)), [""; 0]);
}

#[test]
fn unconfirmed_messages_go_to_the_other_resource() {
    let mut node = Node::new(1);
    stored(&mut node, &["1", "2"]);
    let pc = bob_without_answers(&mut node, "pc");
    let tab = node.online("bob", "tab");
    assert_eq!(bodies(&node.read(pc)), ["1", "2"]);
    node.cut(pc);
    assert_eq!(bodies(&node.read(tab)), ["1", "2"]);
    assert_eq!(node.logged("bob"), 0);
}

/// R6: its client did not confirm it before it was gone.
#[test]
fn what_a_session_leaves_while_its_account_is_read_goes_before_what_waits_for_that() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let pc = node.login("bob", "pc");
    node.send(pc, "<enable xmlns='urn:xmpp:sm:3'/><presence/>");
    node.send(alice, &chat("bob@here", "1"));
    assert_eq!(bodies(&node.read(pc)), ["1"]);
    node.hold_store();
    let enable = Write::SetDisabled { owner: bare("bob"), disabled: false };
    node.change_account("bob", enable);
    assert_eq!(node.queries_held(), 1);
    node.send(alice, &chat("bob@here", "2"));
    node.cut(pc);
    node.free_store();
    assert_eq!(bodies(&node.kept("bob", false)), ["1", "2"]);
}

#[test]
fn messages_to_an_online_client_are_logged_only_for_senders_that_want_acks() {
    let mut node = Node::new(1);
    let bob = bob_without_answers(&mut node, "pc");
    let alice = node.online("alice", "phone");
    node.send(alice, &chat("bob@here", "1"));
    assert_eq!(node.logged("bob"), 0);
    let (carol, _) = node.online_acked("carol", "phone");
    node.send(carol, &chat("bob@here", "2"));
    assert_eq!(node.logged("bob"), 1);
    node.cut(bob);
    let bob = node.login("bob", "pc");
    node.send(bob, "<presence/>");
    assert_eq!(bodies(&node.read(bob)), ["2"]);
}

#[test]
fn client_that_never_answers_pings_is_ended_at_the_bound() {
    let mut node = Node::with(1, |config| config.limits.resume_queue = 20);
    let bob = bob_without_answers(&mut node, "pc");
    let (alice, _) = node.online_acked("alice", "phone");
    (0..30).for_each(|number| node.send(alice, &chat("bob@here", &number.to_string())));
    assert!(node.read(bob).contains("<policy-violation "));
    assert_eq!(node.logged("bob"), 30);
}

/// Each fits into what a client may leave unread, and both do not.
#[test]
fn a_large_message_of_the_log_waits_for_those_before_it() {
    let mut node = Node::with(1, |config| config.limits.output_bytes = 20_000);
    let (small, large) = ("a".repeat(8_000), "b".repeat(14_000));
    stored(&mut node, &[&small, &large]);
    assert_eq!(node.logged("bob"), 2);
    let bob = bob_without_answers(&mut node, "pc");
    assert_eq!(bodies(&node.read(bob)), [&small]);
    node.advance(Duration::from_secs(2));
    assert_eq!(bodies(&node.read(bob)), [&large]);
}

#[test]
fn messages_that_are_brought_in_stand_behind_older_ones_and_before_newer_ones() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        // The shard has a block of ids from here on.
        let alice = stored(&mut node, &["1"]);
        node.bring_in("bob", &["a", "b"]);
        node.send(alice, &chat("bob@here", "2"));
        assert!(node.log_ids("bob").is_sorted());
        let bob = node.login("bob", "pc");
        node.send(bob, "<presence/>");
        let text = node.read(bob);
        assert_eq!(bodies(&text), ["1", "a", "b", "2"], "{text}");
    }
}

#[test]
fn ids_below_those_that_others_gave_are_not_used_though_they_were_reserved() {
    let mut node = Node::new(1);
    let alice = stored(&mut node, &[]);
    node.hold_store();
    node.send(alice, &chat("bob@here", "1"));
    // Bob's account is read; ids are asked for, and others go past them meanwhile.
    node.answer_query();
    node.ids_given("bob", 10_000);
    node.free_store();
    let ids = node.log_ids("bob");
    assert!(ids.len() == 1 && ids[0] >= 10_000, "{ids:?}");
}
