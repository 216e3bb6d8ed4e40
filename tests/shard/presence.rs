//! Subscriptions, rosters and presence (RFC 6121 §2 to §4).

use crate::harness::*;
use std::time::Duration;

const ROSTER: &str = "<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>";

/// Logs in, asks for the roster and sends presence.
fn interested(node: &mut Node, name: &str, resource: &str) -> Client {
    let client = node.login(name, resource);
    node.send(client, ROSTER);
    node.send(client, "<presence/>");
    node.read(client);
    client
}

fn to(name: &str, kind: &str) -> String {
    format!("<presence to='{name}@here' type='{kind}'/>")
}

/// The roster item of a contact as the client would read it now, without its name.
fn item(node: &mut Node, client: Client, contact: &str) -> Option<String> {
    node.read(client);
    node.send(client, ROSTER);
    let roster = node.read(client);
    let start = roster.find(&format!("<item jid='{contact}@here'"))?;
    let item = &roster[start..];
    Some(item[..item.find("/>").or(item.find("</item>")).unwrap()].to_owned())
}

fn subscription(node: &mut Node, client: Client, contact: &str) -> String {
    item(node, client, contact).map_or("-".into(), |item| attr(&item, "subscription").to_owned())
}

fn befriend(node: &mut Node, alice: Client, bob: Client) {
    node.send(alice, &to("bob", "subscribe"));
    node.send(bob, &to("alice", "subscribed"));
    node.send(bob, &to("alice", "subscribe"));
    node.send(alice, &to("bob", "subscribed"));
    assert_eq!(subscription(node, alice, "bob"), "both");
    assert_eq!(subscription(node, bob, "alice"), "both");
}

/// Alice and Bob, on one shard or on two.
fn friends(shards: u16) -> (Node, Client, Client) {
    let mut node = Node::new(shards);
    let alice = interested(&mut node, "alice", "phone");
    let bob = interested(&mut node, "bob", "pc");
    befriend(&mut node, alice, bob);
    (node, alice, bob)
}

/// Whether the text says that a resource is gone, whatever the order of its attributes.
fn says_gone(text: &str, from: &str) -> bool {
    text.split_inclusive("</presence>")
        .any(|one| one.contains(&format!(" from='{from}'")) && one.contains("type='unavailable'"))
}

// ---- subscribing

#[test]
fn request_is_asked_pushed_approved_and_shows_presence() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = interested(&mut node, "alice", "phone");
        let bob = interested(&mut node, "bob", "pc");
        node.send(alice, &to("bob", "subscribe"));
        let text = node.read(alice);
        assert!(text.contains("<item jid='bob@here' subscription='none' ask='subscribe'/>"));
        let text = node.read(bob);
        assert!(text.contains("<presence from='alice@here' to='bob@here' type='subscribe'>"));
        assert!(!text.contains("<item"), "who only asks is in no roster: {text}");
        assert_eq!(subscription(&mut node, bob, "alice"), "-");

        node.send(bob, &to("alice", "subscribed"));
        let text = node.read(bob);
        assert!(text.contains("<item jid='alice@here' subscription='from'/>"), "{text}");
        let text = node.read(alice);
        let told = text.find("<presence from='bob@here' to='alice@here' type='subscribed'>");
        let pushed = text.find("<item jid='bob@here' subscription='to'/>");
        let seen = text.find("<presence from='bob@here/pc' to='alice@here'");
        assert!(told.is_some() && told < pushed && pushed < seen, "{text}");

        node.send(bob, &to("alice", "subscribe"));
        node.send(alice, &to("bob", "subscribed"));
        assert!(node.read(bob).contains("<item jid='alice@here' subscription='both'/>"));
        assert!(node.read(alice).contains("<item jid='bob@here' subscription='both'/>"));
    }
}

#[test]
fn request_that_waits_is_shown_at_the_next_login() {
    let mut node = Node::new(4);
    let alice = interested(&mut node, "alice", "phone");
    node.users(&["bob"]);
    node.send(
        alice,
        "<presence to='bob@here' type='subscribe' id='s'><status>hi</status></presence>",
    );
    for _ in 0..2 {
        let bob = node.login("bob", "pc");
        node.send(bob, "<presence/>");
        let text = node.read(bob);
        assert!(text.contains("type='subscribe' id='s'><status>hi</status></presence>"), "{text}");
        node.send(bob, "</stream:stream>");
    }
    let bob = interested(&mut node, "bob", "pc");
    node.send(bob, &to("alice", "subscribed"));
    let bob = node.online("bob", "other");
    assert!(!node.read(bob).contains("type='subscribe'"));
}

#[test]
fn long_request_is_kept_without_its_content() {
    let mut node = Node::new(1);
    let alice = interested(&mut node, "alice", "phone");
    node.users(&["bob"]);
    let status = "x".repeat(10_000);
    let request =
        format!("<presence to='bob@here' type='subscribe'><status>{status}</status></presence>");
    node.send(alice, &request);
    let bob = node.login("bob", "pc");
    node.send(bob, "<presence/>");
    let text = node.read(bob);
    let wanted = "<presence from='alice@here' to='bob@here' type='subscribe'></presence>";
    assert!(text.contains(wanted) && text.len() < 1_000, "{text}");
}

#[test]
fn denied_request_leaves_no_trace() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = interested(&mut node, "alice", "phone");
        let bob = interested(&mut node, "bob", "pc");
        node.send(alice, &to("bob", "subscribe"));
        node.read(bob);
        node.send(bob, &to("alice", "unsubscribed"));
        assert_eq!(node.read(bob), "", "nothing that was shown has changed");
        assert_eq!(subscription(&mut node, bob, "alice"), "-");
        let text = node.read(alice);
        assert!(text.contains("type='unsubscribed'"), "{text}");
        assert_eq!(subscription(&mut node, alice, "bob"), "none");
        let bob = node.online("bob", "other");
        assert!(!node.read(bob).contains("type='subscribe'"));
    }
}

#[test]
fn subscriber_that_asks_again_is_told_that_it_is_one() {
    let (mut node, alice, bob) = friends(4);
    node.read(bob);
    node.send(alice, &to("bob", "subscribe"));
    assert_eq!(node.read(bob), "");
    assert_eq!(subscription(&mut node, alice, "bob"), "both");
}

#[test]
fn approval_that_nobody_asked_for_changes_nothing() {
    let mut node = Node::new(1);
    let alice = interested(&mut node, "alice", "phone");
    let bob = interested(&mut node, "bob", "pc");
    node.send(alice, &to("bob", "subscribed"));
    node.send(alice, &to("bob", "unsubscribed"));
    assert_eq!((node.read(alice), node.read(bob)), (String::new(), String::new()));
}

#[test]
fn request_to_nobody_is_denied() {
    let mut node = Node::new(4);
    let alice = interested(&mut node, "alice", "phone");
    node.send(alice, &to("nobody", "subscribe"));
    assert!(node.read(alice).contains("from='nobody@here' to='alice@here' type='unsubscribed'"));
    assert_eq!(subscription(&mut node, alice, "nobody"), "none");
}

#[test]
fn unsubscribing_ends_one_direction() {
    for shards in [1, 4] {
        let (mut node, alice, bob) = friends(shards);
        node.read(alice);
        node.send(alice, &to("bob", "unsubscribe"));
        assert!(says_gone(&node.read(alice), "bob@here/pc"));
        assert!(node.read(bob).contains("type='unsubscribe'"));
        assert_eq!(subscription(&mut node, alice, "bob"), "from");
        assert_eq!(subscription(&mut node, bob, "alice"), "to");
        node.send(bob, "<presence><show>away</show></presence>");
        assert!(!node.read(alice).contains("away"));
        node.read(bob);
        node.send(alice, "<presence><show>away</show></presence>");
        assert!(node.read(bob).contains("away"));
    }
}

#[test]
fn taking_an_approval_back_shows_us_gone() {
    for shards in [1, 4] {
        let (mut node, alice, bob) = friends(shards);
        node.read(bob);
        node.send(alice, &to("bob", "unsubscribed"));
        let text = node.read(bob);
        assert!(text.contains("type='unsubscribed'"), "{text}");
        assert!(says_gone(&text, "alice@here/phone"), "{text}");
        assert_eq!(subscription(&mut node, alice, "bob"), "to");
        assert_eq!(subscription(&mut node, bob, "alice"), "from");
    }
}

#[test]
fn removed_contact_is_unsubscribed_both_ways() {
    for shards in [1, 4] {
        let (mut node, alice, bob) = friends(shards);
        node.read(bob);
        node.send(
            alice,
            "<iq type='set' id='x'><query xmlns='jabber:iq:roster'>\
             <item jid='bob@here' subscription='remove'/></query></iq>",
        );
        let text = node.read(alice);
        assert!(text.contains("<item jid='bob@here' subscription='remove'/>"), "{text}");
        assert!(text.contains("<iq type='result' id='x'"), "{text}");
        assert!(says_gone(&node.read(bob), "alice@here/phone"));
        assert_eq!(subscription(&mut node, alice, "bob"), "-");
        assert_eq!(subscription(&mut node, bob, "alice"), "none");
    }
}

// ---- the roster

fn set(item: &str) -> String {
    format!("<iq type='set' id='set'><query xmlns='jabber:iq:roster'>{item}</query></iq>")
}

#[test]
fn roster_set_is_pushed_to_interested_resources_and_kept() {
    let mut node = Node::new(1);
    let phone = interested(&mut node, "alice", "phone");
    let pc = interested(&mut node, "alice", "pc");
    let deaf = node.online("alice", "deaf");
    for client in [phone, pc, deaf] {
        node.read(client);
    }
    node.send(phone, &set("<item jid='Bob@here' name='B&amp;b'><group>Friends</group></item>"));
    let item =
        "<item jid='bob@here' name='B&amp;b' subscription='none'><group>Friends</group></item>";
    for client in [phone, pc] {
        let text = node.read(client);
        assert!(text.contains(item), "{text}");
        assert!(text.contains("<iq type='set' id='push-1' to='alice@here/"), "{text}");
    }
    assert_eq!(node.read(deaf), "");
    node.send(phone, ROSTER);
    let roster = node.read(phone);
    assert!(roster.contains(&format!("<query xmlns='jabber:iq:roster' ver='1'>{item}</query>")));
    let known = ROSTER.replace("<query", "<query ver='1'");
    node.send(phone, &known);
    assert!(!node.read(phone).contains("<query"));
}

#[test]
fn roster_set_beyond_its_limits_is_refused() {
    let mut node = Node::new(1);
    let alice = node.login("alice", "phone");
    let long = "x".repeat(65);
    let cases = [
        (format!("<item jid='b@here' name='{long}'/>"), "not-acceptable"),
        (format!("<item jid='b@here'><group>{long}</group></item>"), "not-acceptable"),
        ("<item jid='b@here'><group/></item>".into(), "not-acceptable"),
        ("<item jid='b@here'><group>g</group><group>g</group></item>".into(), "bad-request"),
        (
            format!(
                "<item jid='b@here'>{}</item>",
                (0..5).map(|n| format!("<group>{n}</group>")).collect::<String>()
            ),
            "not-acceptable",
        ),
        ("<item jid='@'/>".into(), "jid-malformed"),
        ("<item/>".into(), "bad-request"),
        ("<item jid='a@here'/><item jid='b@here'/>".into(), "bad-request"),
        (String::new(), "bad-request"),
        ("<item jid='alice@here'/>".into(), "not-allowed"),
        ("<item jid='none@here' subscription='remove'/>".into(), "item-not-found"),
    ];
    for (item, condition) in cases {
        node.send(alice, &set(&item));
        let answer = node.read(alice);
        assert!(answer.contains(&format!("<{condition} ")), "{item}: {answer}");
    }
    for number in 0..8 {
        node.send(alice, &set(&format!("<item jid='c{number}@here'/>")));
        assert!(node.read(alice).contains("type='result'"));
    }
    node.send(alice, &set("<item jid='c9@here'/>"));
    assert!(node.read(alice).contains("<not-acceptable "));
    node.send(alice, &set("<item jid='c1@here' name='known'/>"));
    assert!(node.read(alice).contains("type='result'"));
    node.send(alice, &to("c9", "subscribe"));
    assert!(node.read(alice).contains("<not-acceptable "));
}

#[test]
fn roster_of_another_account_is_out_of_reach() {
    let (mut node, alice, _) = friends(1);
    node.read(alice);
    node.send(alice, &ROSTER.replace("id=", "to='bob@here' id="));
    assert!(node.read(alice).contains("<service-unavailable "));
}

// ---- presence

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
