//! XEP-0198: what is acknowledged and when, and how a session survives its connection.

use crate::harness::*;
use corefire::shard::AckLevel;
use std::time::Duration;

pub(crate) const R: &str = "<r xmlns='urn:xmpp:sm:3'/>";

pub(crate) fn a(h: u32) -> String {
    format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>")
}

pub(crate) fn resume(id: &str, h: u32) -> String {
    format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>")
}

/// A client behind the SASL success of `name`, which may resume.
pub(crate) fn returning(node: &mut Node, name: &str) -> Client {
    let owner = node.owner(name);
    node.authenticate(owner, name)
}

// ---- enabling

#[test]
fn enabled_tells_an_id_and_the_time_to_resume() {
    let mut node = Node::new(1);
    let alice = node.login("alice", "phone");
    node.send(alice, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let enabled = node.read(alice);
    assert!(enabled.starts_with("<enabled xmlns='urn:xmpp:sm:3' id='"), "{enabled}");
    assert_eq!((attr(&enabled, "resume"), attr(&enabled, "max")), ("true", "60"));
    assert!(attr(&enabled, "id").len() >= 22);
}

#[test]
fn enabled_without_resumption_tells_no_id_and_ends_with_its_connection() {
    let mut node = Node::new(1);
    let alice = node.login("alice", "phone");
    node.send(alice, "<enable xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(node.read(alice), "<enabled xmlns='urn:xmpp:sm:3'/>");
    node.cut(alice);
    assert_eq!(node.sessions(), 0);
}

#[test]
fn second_enable_ends_the_stream() {
    let mut node = Node::new(1);
    let alice = node.login("alice", "phone");
    node.enable(alice);
    node.send(alice, "<enable xmlns='urn:xmpp:sm:3'/>");
    let text = node.read(alice);
    let failed = "<failed xmlns='urn:xmpp:sm:3'><unexpected-request ";
    assert!(text.starts_with(failed) && text.contains("<policy-violation "), "{text}");
    assert!(!node.is_open(alice));
}

#[test]
fn enabling_before_binding_is_refused_and_the_stream_lives() {
    let mut node = Node::new(1);
    let alice = node.authenticate(0, "alice");
    node.send(alice, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let answer = node.read(alice);
    assert!(answer.contains("<failed xmlns='urn:xmpp:sm:3'><unexpected-request "), "{answer}");
    node.send(alice, &bind("pc"));
    assert!(node.read(alice).contains("<jid>alice@here/pc</jid>"));
    node.enable(alice);
}

// ---- acknowledging what the client sent

#[test]
fn request_is_answered_at_once_when_all_is_handled() {
    let mut node = Node::new(2);
    let (alice, _) = node.online_acked("alice", "phone");
    node.send(alice, R);
    assert_eq!(node.read(alice), a(1));
    for (stanza, h) in [
        (chat("bob@here", "nobody there"), 2),
        ("<iq type='get' id='1' to='here'><ping xmlns='urn:xmpp:ping'/></iq>".into(), 3),
        ("<presence to='bob@here'/>".into(), 4),
        (chat("@here", "malformed"), 5),
        ("<iq type='get' id='2'><query xmlns='jabber:iq:roster'/></iq>".into(), 6),
    ] {
        node.send(alice, &[&stanza, R].concat());
        assert!(node.read(alice).contains(&a(h)), "{stanza}");
    }
}

#[test]
fn only_stanzas_count() {
    let mut node = Node::new(1);
    let (alice, _) = node.online_acked("alice", "phone");
    node.send(alice, &[R, R, " ", R].concat());
    assert_eq!(node.read(alice), a(1));
}

#[test]
fn acknowledgement_waits_for_the_commit() {
    for (shards, bob) in [(1, "bob"), (4, "bob"), (4, "carol"), (4, "dave"), (4, "erin")] {
        let mut node = Node::new(shards);
        let (alice, _) = node.online_acked("alice", "phone");
        let bobs = node.online(bob, "pc");
        // So that the account has ids to log with.
        node.send(alice, &chat(&format!("{bob}@here"), "before"));
        node.hold_store();
        node.send(alice, &[chat(&format!("{bob}@here"), "hi").as_str(), R].concat());
        assert_eq!(node.read(alice), "");
        let received = node.read(bobs);
        assert_eq!(bodies(&received), ["before", "hi"], "delivery does not wait");
        node.free_store();
        assert_eq!(node.read(alice), a(3));
    }
}

#[test]
fn request_gets_the_present_number_after_a_second_and_the_rest_unasked() {
    let mut node = Node::new(1);
    let (alice, _) = node.online_acked("alice", "phone");
    node.users(&["bob"]);
    node.hold_store();
    node.send(alice, &[chat("bob@here", "hi").as_str(), R].concat());
    node.advance(Duration::from_millis(900));
    assert_eq!(node.read(alice), "");
    node.advance(Duration::from_millis(200));
    assert_eq!(node.read(alice), a(1));
    node.free_store();
    assert_eq!(node.read(alice), a(2));
    node.send(alice, &chat("bob@here", "again"));
    assert_eq!(node.read(alice), "", "the next one is not owed");
}

#[test]
fn what_follows_a_request_does_not_hold_its_answer_up() {
    let mut node = Node::new(1);
    let (alice, _) = node.online_acked("alice", "phone");
    node.users(&["bob"]);
    node.send(alice, &chat("bob@here", "before"));
    node.hold_store();
    node.send(alice, &[R, &chat("bob@here", "after")].concat());
    assert_eq!(node.read(alice), a(2));
}

#[test]
fn each_of_two_requests_is_answered() {
    let mut node = Node::new(1);
    let (alice, _) = node.online_acked("alice", "phone");
    node.users(&["bob"]);
    node.send(alice, &chat("bob@here", "before"));
    node.hold_store();
    let one = [chat("bob@here", "1").as_str(), R].concat();
    let two = [chat("bob@here", "2").as_str(), R].concat();
    node.send(alice, &[one, two].concat());
    assert_eq!(node.read(alice), "");
    node.answer_one();
    assert_eq!(node.read(alice), a(3));
    node.answer_one();
    assert_eq!(node.read(alice), a(4));
}

#[test]
fn message_that_cannot_be_stored_is_answered_and_so_handled() {
    let mut node = Node::new(1);
    let (alice, _) = node.online_acked("alice", "phone");
    node.users(&["bob"]);
    node.send(alice, &chat("bob@here", "before"));
    node.store_fails = true;
    node.send(alice, &[chat("bob@here", "hi").as_str(), R].concat());
    let text = node.read(alice);
    assert!(text.contains("<resource-constraint "), "{text}");
    assert!(text.contains(&a(3)), "{text}");
}

#[test]
fn received_level_does_not_wait_for_the_store() {
    let mut node = Node::with(2, |config| config.ack = AckLevel::Received);
    let (alice, _) = node.online_acked("alice", "phone");
    let bob = node.online("bob", "pc");
    node.hold_store();
    node.send(alice, &[chat("bob@here", "hi").as_str(), R].concat());
    assert_eq!(node.read(alice), a(2));
    assert_eq!(bodies(&node.read(bob)), ["hi"]);
}

// ---- what the client acknowledges

#[test]
fn client_is_asked_once_per_turn_and_not_again_before_it_answers() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let (bob, _) = node.online_acked("bob", "pc");
    node.send(alice, &[chat("bob@here", "1"), chat("bob@here", "2")].concat());
    assert_eq!(node.read(bob).matches(R).count(), 1);
    node.send(alice, &chat("bob@here", "3"));
    assert!(!node.read(bob).contains(R));
    node.send(bob, &a(3));
    assert_eq!(node.read(bob), R, "there is one more to ask about");
    node.send(bob, &a(4));
    assert_eq!(node.read(bob), "");
}

#[test]
fn number_above_what_was_sent_ends_the_stream() {
    let mut node = Node::new(1);
    let (alice, _) = node.online_acked("alice", "phone");
    node.send(alice, &a(8));
    let text = node.read(alice);
    assert!(text.contains("<undefined-condition xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>"));
    let detail = "<handled-count-too-high xmlns='urn:xmpp:sm:3' h='8' send-count='1'/>";
    assert!(text.contains(detail), "{text}");
    assert!(!node.is_open(alice));
}

#[test]
fn number_that_is_none_is_a_bad_format() {
    for h in ["", "x", "-1", "4294967296"] {
        let mut node = Node::new(1);
        let (alice, _) = node.online_acked("alice", "phone");
        node.send(alice, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
        assert!(node.read(alice).contains("<bad-format "), "{h}");
    }
}

#[test]
fn session_that_never_acknowledges_ends_when_its_queue_is_full() {
    let mut node = Node::with(1, |config| config.limits.resume_queue = 20);
    let alice = node.online("alice", "phone");
    let (bob, _) = node.online_acked("bob", "pc");
    (0..30).for_each(|number| node.send(alice, &chat("bob@here", &number.to_string())));
    let text = node.read(bob);
    assert!(text.contains("<policy-violation "), "{text}");
    assert!(!node.is_open(bob));
    assert_eq!(node.sessions(), 1);
    // Nothing of it is lost.
    let again = node.login("bob", "pc");
    node.send(again, "<presence/>");
    let wanted: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    let text = node.read(again);
    assert_eq!(bodies(&text), wanted);
}

// ---- resuming

#[test]
fn resumed_session_gets_everything_unacknowledged_again_in_order() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = node.online("alice", "phone");
        let (bob, id) = node.online_acked("bob", "pc");
        (0..4).for_each(|number| node.send(alice, &chat("bob@here", &number.to_string())));
        let before = node.read(bob);
        node.send(bob, &a(3));
        node.cut(bob);
        node.send(alice, &chat("bob@here", "4"));
        assert_eq!(node.read(alice), "");
        let bob = returning(&mut node, "bob");
        node.send(bob, &resume(&id, 3));
        let text = node.read(bob);
        assert!(text.starts_with("<resumed xmlns='urn:xmpp:sm:3' h='1' previd='"), "{text}");
        assert_eq!(attr(&text, "previd"), id);
        assert_eq!(bodies(&text), ["2", "3", "4"]);
        let kept = before.split_inclusive("</message>").nth(2).unwrap();
        assert!(text.contains(kept), "{kept} in {text}");
        node.send(bob, &a(6));
        node.send(alice, &chat("bob@here", "5"));
        assert_eq!(bodies(&node.read(bob)), ["5"]);
        assert_eq!(node.sessions(), 2);
    }
}

#[test]
fn resumption_takes_the_session_from_a_connection_that_still_lives() {
    let mut node = Node::new(1);
    let (old, id) = node.online_acked("alice", "phone");
    let new = returning(&mut node, "alice");
    node.send(new, &resume(&id, 1));
    assert!(node.read(old).contains("<conflict "));
    assert!(!node.is_open(old));
    assert!(node.read(new).starts_with("<resumed "));
    node.send(new, R);
    assert_eq!(node.read(new), a(1));
    node.advance(Duration::from_secs(90));
    assert_eq!(node.sessions(), 1);
}

#[test]
fn unknown_session_is_not_found_and_a_resource_may_be_bound_instead() {
    let mut node = Node::new(1);
    let alice = node.authenticate(0, "alice");
    node.send(alice, &resume("nothing", 0));
    assert_eq!(
        node.read(alice),
        "<failed xmlns='urn:xmpp:sm:3'><item-not-found \
         xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    );
    node.send(alice, &bind("phone"));
    assert!(node.read(alice).contains("<jid>alice@here/phone</jid>"));
}

#[test]
fn session_of_another_account_is_not_found() {
    let mut node = Node::new(1);
    let (alice, id) = node.online_acked("alice", "phone");
    let bob = returning(&mut node, "bob");
    node.send(bob, &resume(&id, 1));
    assert!(node.read(bob).contains("<item-not-found "));
    assert!(node.is_open(alice));
}

#[test]
fn too_high_a_number_in_resume_leaves_the_session_as_it_was() {
    let mut node = Node::new(1);
    let (alice, id) = node.online_acked("alice", "phone");
    let other = returning(&mut node, "alice");
    node.send(other, &resume(&id, 9));
    assert!(node.read(other).contains("<handled-count-too-high "));
    assert!(node.is_open(alice));
    node.cut(alice);
    let again = returning(&mut node, "alice");
    node.send(again, &resume(&id, 1));
    assert!(node.read(again).starts_with("<resumed "));
}

#[test]
fn resumption_waits_until_what_came_before_is_handled() {
    let mut node = Node::new(4);
    let (alice, id) = node.online_acked("alice", "phone");
    node.users(&["bob"]);
    node.send(alice, &chat("bob@here", "before"));
    node.hold_store();
    node.send(alice, &chat("bob@here", "hi"));
    node.cut(alice);
    let alice = returning(&mut node, "alice");
    node.send(alice, &[resume(&id, 1).as_str(), &chat("bob@here", "later"), R].concat());
    assert_eq!(node.read(alice), "", "whether it is safe is not known yet");
    node.free_store();
    let text = node.read(alice);
    assert!(text.contains("<resumed xmlns='urn:xmpp:sm:3' h='3' "), "{text}");
    assert!(text.contains(&a(4)), "{text}");
    let bob = node.login("bob", "pc");
    node.send(bob, "<presence/>");
    assert_eq!(bodies(&node.read(bob)), ["before", "hi", "later"]);
}

#[test]
fn session_whose_time_to_resume_is_over_ends() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let (bob, id) = node.online_acked("bob", "pc");
    node.send(bob, "<presence to='alice@here'/>");
    node.read(alice);
    node.send(alice, &chat("bob@here", "logged"));
    node.send(
        alice,
        "<message type='chat' to='bob@here/pc' id='n'><body>named</body></message>\
         <message type='chat' to='bob@here'><active xmlns='http://jabber.org/protocol/chatstates'/></message>\
         <iq type='get' id='q' to='bob@here/pc'><q xmlns='urn:q'/></iq>",
    );
    node.cut(bob);
    node.advance(Duration::from_secs(59));
    assert_eq!(node.read(alice), "");
    node.advance(Duration::from_secs(2));
    let text = node.read(alice);
    assert!(text.contains("<presence from='bob@here/pc' "), "{text}");
    assert!(text.contains("type='unavailable'"), "{text}");
    assert_eq!(text.matches("<service-unavailable ").count(), 1, "{text}");
    assert!(text.contains("id='q'"), "{text}");
    let again = returning(&mut node, "bob");
    node.send(again, &resume(&id, 1));
    assert!(node.read(again).contains("<item-not-found "));
    node.send(again, &bind("pc"));
    node.send(again, "<presence/>");
    let text = node.read(again);
    assert_eq!(bodies(&text), ["logged", "named"]);
}

#[test]
fn unacknowledged_messages_go_to_the_other_resource_when_the_session_ends() {
    let mut node = Node::new(1);
    let (alice, _) = node.online_acked("alice", "phone");
    let (pc, _) = node.online_acked("bob", "pc");
    let tab = node.online_with("bob", "tab", -1);
    node.send(alice, &[chat("bob@here", "1").as_str(), &chat("bob@here", "2")].concat());
    assert_eq!(bodies(&node.read(pc)), ["1", "2"]);
    node.cut(pc);
    node.send(tab, "<presence><priority>1</priority></presence>");
    node.read(tab);
    node.advance(Duration::from_secs(61));
    assert_eq!(bodies(&node.read(tab)), ["1", "2"]);
    assert_eq!(node.logged("bob"), 0);
}

#[test]
fn messages_meant_for_the_account_are_not_bounced_when_a_session_ends() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let (bob, _) = node.online_acked("bob", "pc");
    node.send(alice, "<message to='bob@here' id='1'><body>normal</body></message>");
    node.cut(bob);
    node.advance(Duration::from_secs(61));
    assert_eq!(node.read(alice), "");
    assert_eq!(node.logged("bob"), 1);
}

#[test]
fn session_that_closed_its_stream_cannot_be_resumed() {
    let mut node = Node::new(1);
    let (alice, id) = node.online_acked("alice", "phone");
    node.send(alice, "</stream:stream>");
    let again = returning(&mut node, "alice");
    node.send(again, &resume(&id, 1));
    assert!(node.read(again).contains("<item-not-found "));
}

#[test]
fn session_that_is_resumed_twice_lives_on() {
    let mut node = Node::new(1);
    let (mut alice, id) = node.online_acked("alice", "phone");
    for _ in 0..3 {
        node.cut(alice);
        node.advance(Duration::from_secs(40));
        alice = returning(&mut node, "alice");
        node.send(alice, &resume(&id, 1));
        assert!(node.read(alice).starts_with("<resumed "));
    }
    node.advance(Duration::from_secs(61));
    assert!(node.is_open(alice));
    assert_eq!(node.sessions(), 1);
}
