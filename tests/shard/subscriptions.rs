//! Subscriptions (RFC 6121 §3 and appendix A): who asks, who answers, what it does to both rosters.

use crate::harness::*;
use corefire::store::{RosterItem, Subscription, Write};

pub(crate) const ROSTER: &str = "<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>";

/// Logs in, asks for the roster and sends presence.
pub(crate) fn interested(node: &mut Node, name: &str, resource: &str) -> Client {
    let client = node.login(name, resource);
    node.send(client, ROSTER);
    node.send(client, "<presence/>");
    node.read(client);
    client
}

pub(crate) fn to(name: &str, kind: &str) -> String {
    format!("<presence to='{name}@here' type='{kind}'/>")
}

/// The roster item of a contact as the client would read it now, without its name.
pub(crate) fn item(node: &mut Node, client: Client, contact: &str) -> Option<String> {
    node.read(client);
    node.send(client, ROSTER);
    let roster = node.read(client);
    let start = roster.find(&format!("<item jid='{contact}@here'"))?;
    let item = &roster[start..];
    Some(item[..item.find("/>").or(item.find("</item>")).unwrap()].to_owned())
}

pub(crate) fn subscription(node: &mut Node, client: Client, contact: &str) -> String {
    item(node, client, contact).map_or("-".into(), |item| attr(&item, "subscription").to_owned())
}

pub(crate) fn befriend(node: &mut Node, alice: Client, bob: Client) {
    node.send(alice, &to("bob", "subscribe"));
    node.send(bob, &to("alice", "subscribed"));
    node.send(bob, &to("alice", "subscribe"));
    node.send(alice, &to("bob", "subscribed"));
    assert_eq!(subscription(node, alice, "bob"), "both");
    assert_eq!(subscription(node, bob, "alice"), "both");
}

/// Alice and Bob, on one shard or on two.
pub(crate) fn friends(shards: u16) -> (Node, Client, Client) {
    let mut node = Node::new(shards);
    let alice = interested(&mut node, "alice", "phone");
    let bob = interested(&mut node, "bob", "pc");
    befriend(&mut node, alice, bob);
    (node, alice, bob)
}

/// Whether the text says that a resource is gone, whatever the order of its attributes.
pub(crate) fn says_gone(text: &str, from: &str) -> bool {
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

/// Clients do so to be asked anew; the answer to the first must not be the end of the second.
#[test]
fn subscribing_again_right_after_unsubscribing_is_a_new_request() {
    for shards in [1, 4] {
        let mut scene = scene(shards, "to", "from");
        let Scene { node, phone, bob, name, .. } = &mut scene;
        let again = [to(name, "unsubscribe"), to(name, "subscribe")].concat();
        node.send(*phone, &again);
        assert_eq!(state_of(&node.roster("alice"), name), "none+out");
        assert_eq!(state_of(&node.roster(name), "alice"), "none+in");
        node.send(*bob, &to("alice", "subscribed"));
        assert_eq!(state_of(&node.roster("alice"), name), "to");
        assert_eq!(state_of(&node.roster(name), "alice"), "from");
    }
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
fn approval_that_nobody_asked_for_is_kept_until_somebody_does() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = interested(&mut node, "alice", "phone");
        let bob = interested(&mut node, "bob", "pc");
        node.send(alice, &to("bob", "subscribed"));
        assert_eq!(node.read(bob), "");
        let approved = "<item jid='bob@here' approved='true' subscription='none'/>";
        assert!(node.read(alice).contains(approved));
        node.send(bob, &to("alice", "subscribe"));
        let text = node.read(alice);
        assert!(!text.contains("type='subscribe'"), "{text}");
        assert!(text.contains("<item jid='bob@here' approved='true' subscription='from'/>"));
        let text = node.read(bob);
        let told = text.find("<presence from='alice@here' to='bob@here' type='subscribed'>");
        let seen = text.find("<presence from='alice@here/phone' to='bob@here'");
        assert!(told.is_some() && told < seen, "{text}");
        assert_eq!(subscription(&mut node, bob, "alice"), "to");
    }
}

#[test]
fn approval_that_is_taken_back_before_anybody_asked_is_told_to_nobody() {
    let mut node = Node::new(1);
    let alice = interested(&mut node, "alice", "phone");
    let bob = interested(&mut node, "bob", "pc");
    node.send(alice, &to("bob", "subscribed"));
    node.send(alice, &to("bob", "unsubscribed"));
    assert_eq!(node.read(bob), "");
    node.send(bob, &to("alice", "subscribe"));
    assert!(node.read(alice).contains("type='subscribe'"));
}

#[test]
fn stream_says_that_approvals_are_kept() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let client = node.connect(0);
    node.send(client, HEADER);
    node.send(client, &plain("alice", PASSWORD));
    node.send(client, HEADER);
    assert!(node.read(client).contains("<sub xmlns='urn:xmpp:features:pre-approval'/>"));
}

/// RFC 6121 §8.5.1: nobody learns who has an account here.
#[test]
fn request_to_nobody_gets_the_silence_of_one_who_does_not_answer() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = interested(&mut node, "alice", "phone");
        for kind in ["subscribe", "unsubscribe"] {
            node.send(alice, &to("nobody", kind));
            assert!(!node.read(alice).contains("<presence"));
        }
        assert_eq!(subscription(&mut node, alice, "nobody"), "none");
    }
}

#[test]
fn requests_to_oneself_are_ignored() {
    let mut node = Node::new(1);
    let alice = interested(&mut node, "alice", "phone");
    node.read(alice);
    for kind in ["subscribe", "subscribed", "unsubscribe", "unsubscribed"] {
        for address in ["alice@here", "alice@here/phone", "alice@here/other"] {
            node.send(alice, &format!("<presence to='{address}' type='{kind}'/>"));
            assert_eq!(node.read(alice), "", "{kind} to {address}");
        }
    }
    assert_eq!(node.roster("alice"), []);
}

#[test]
fn request_without_an_address_is_a_bad_one() {
    let mut node = Node::new(1);
    let alice = interested(&mut node, "alice", "phone");
    for kind in ["subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "nonsense"] {
        node.send(alice, &format!("<presence type='{kind}' id='p'/>"));
        assert!(node.read(alice).contains("<bad-request "), "{kind}");
    }
}

#[test]
fn request_to_a_resource_is_one_to_its_account() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = interested(&mut node, "alice", "phone");
        let pc = interested(&mut node, "bob", "pc");
        let tab = interested(&mut node, "bob", "tab");
        node.read(pc);
        node.send(alice, "<presence to='bob@here/nowhere' type='subscribe'/>");
        for client in [pc, tab] {
            let text = node.read(client);
            assert!(text.contains("from='alice@here' to='bob@here' type='subscribe'"), "{text}");
        }
        node.read(alice);
        node.send(pc, "<presence to='alice@here/phone' type='subscribed'/>");
        let text = node.read(alice);
        assert!(text.contains("from='bob@here' to='alice@here' type='subscribed'"), "{text}");
        assert_eq!(subscription(&mut node, alice, "bob"), "to");
    }
}

#[test]
fn requests_of_strangers_are_bounded_and_take_no_room_in_the_roster() {
    let mut node = Node::new(1);
    let bob = interested(&mut node, "bob", "pc");
    for name in ["c1", "c2", "c3"] {
        let stranger = node.online(name, "x");
        node.send(stranger, &to("bob", "subscribe"));
        assert!(!node.read(stranger).contains("unsubscribed"));
    }
    let last = interested(&mut node, "c4", "x");
    node.send(last, &to("bob", "subscribe"));
    assert!(node.read(last).contains("from='bob@here' to='c4@here' type='unsubscribed'"));
    assert_eq!(node.read(bob).matches("type='subscribe'").count(), 3);
    // A contact's request is not one of a stranger.
    node.send(bob, &to("c4", "subscribe"));
    node.send(last, &to("bob", "subscribe"));
    assert!(node.read(bob).contains("from='c4@here' to='bob@here' type='subscribe'"));
    for number in 0..7 {
        node.send(bob, &crate::roster::set(&format!("<item jid='n{number}@here'/>")));
        assert!(node.read(bob).contains("type='result'"), "{number}");
    }
}

#[test]
fn request_is_shown_once_per_login_however_often_it_comes() {
    let mut node = Node::new(4);
    let alice = interested(&mut node, "alice", "phone");
    let bob = interested(&mut node, "bob", "pc");
    for number in 0..3 {
        node.send(alice, &format!("<presence to='bob@here' type='subscribe' id='{number}'/>"));
    }
    assert_eq!(node.read(bob).matches("type='subscribe'").count(), 1);
    let tab = node.login("bob", "tab");
    node.send(tab, "<presence/>");
    assert_eq!(node.read(tab).matches("type='subscribe'").count(), 1);
    node.send(tab, "<presence><show>away</show></presence>");
    assert_eq!(node.read(tab).matches("type='subscribe'").count(), 0, "it was available already");
}

/// "None + Pending In" without an entry of the user's making, and with one.
#[test]
fn request_of_a_stranger_leaves_the_roster_as_clients_know_it() {
    let mut node = Node::new(1);
    let alice = interested(&mut node, "alice", "phone");
    let bob = interested(&mut node, "bob", "pc");
    node.send(bob, &crate::roster::set("<item jid='x@here'/>"));
    let before = node.read(bob);
    let version = attr(&before, "ver").to_owned();
    node.send(alice, &to("bob", "subscribe"));
    node.read(bob);
    node.send(bob, &ROSTER.replace("<query", &format!("<query ver='{version}'")));
    assert!(!node.read(bob).contains("<query"), "the version has not changed");
    node.send(bob, &crate::roster::set("<item jid='alice@here' subscription='remove'/>"));
    assert!(node.read(bob).contains("<item-not-found "));
    // Now the user adds the contact, with no more than the address.
    node.send(bob, &crate::roster::set("<item jid='alice@here'/>"));
    assert!(node.read(bob).contains("<item jid='alice@here' subscription='none'/>"));
    assert_eq!(subscription(&mut node, bob, "alice"), "none");
    node.send(alice, &to("bob", "unsubscribe"));
    assert_eq!(subscription(&mut node, bob, "alice"), "none", "it stays");
}

#[test]
fn contact_hears_that_we_go_before_it_loses_us() {
    for shards in [1, 4] {
        let (mut node, alice, bob) = friends(shards);
        node.read(bob);
        node.send(alice, &to("bob", "unsubscribed"));
        let text = node.read(bob);
        let gone = text.find("from='alice@here/phone'").unwrap();
        assert!(gone < text.find("type='unsubscribed'").unwrap(), "{text}");
    }
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

// ---- each cell of the tables of appendix A

/// The states of §A.1, as the tables order them.
const STATES: [&str; 9] =
    ["none", "none+out", "none+in", "none+out+in", "to", "to+in", "from", "from+out", "both"];

/// What Alice's stanza does to her contact Bob, by the state between them: the new state; whether it is `routed`;
/// whether her interested resource is `pushed` an item; whether Bob is shown that she is `here` or `gone`.
const OUTBOUND: [(&str, [&str; 9]); 4] = [
    (
        "subscribe", // A.2.1
        [
            "none+out, routed, pushed",
            "none+out, routed",
            "none+out+in, routed, pushed",
            "none+out+in, routed",
            "to, routed",
            "to+in, routed",
            "from+out, routed, pushed",
            "from+out, routed",
            "both, routed",
        ],
    ),
    (
        "unsubscribe", // A.2.2
        [
            "none, routed",
            "none, routed, pushed",
            "none+in, routed",
            "none+in, routed, pushed",
            "none, routed, pushed",
            "none+in, routed, pushed",
            "from, routed",
            "from, routed, pushed",
            "from, routed, pushed",
        ],
    ),
    (
        "subscribed", // A.2.3
        [
            "none+approved, pushed",
            "none+out+approved, pushed",
            "from, routed, pushed, here",
            "from+out, routed, pushed, here",
            "to+approved, pushed",
            "both, routed, pushed, here",
            "from",
            "from+out",
            "both",
        ],
    ),
    (
        "unsubscribed", // A.2.4
        [
            "none",
            "none+out",
            "none, routed",
            "none+out, routed",
            "to",
            "to, routed",
            "none, routed, pushed, gone",
            "none+out, routed, pushed, gone",
            "to, routed, pushed, gone",
        ],
    ),
];

/// What Bob's stanza does to Alice: the new state; which of her resources hear of it (`available` ones or `interested`
/// ones); whether the interested ones are `pushed` an item; whether her server has `answered` that Bob is subscribed;
/// whether he is shown that she is `here` or `gone`.
const INBOUND: [(&str, [&str; 9]); 4] = [
    (
        "subscribe", // A.3.1
        [
            "none+in, available",
            "none+out+in, available",
            "none+in",
            "none+out+in",
            "to+in, available",
            "to+in",
            "from, answered, here",
            "from+out, answered, here",
            "both, answered, here",
        ],
    ),
    (
        "unsubscribe", // A.3.2
        [
            "none",
            "none+out",
            "none, interested",
            "none+out, interested",
            "to",
            "to, interested",
            "none, interested, pushed, gone",
            "none+out, interested, pushed, gone",
            "to, interested, pushed, gone",
        ],
    ),
    (
        "subscribed", // A.3.3
        [
            "none",
            "to, interested, pushed",
            "none+in",
            "to+in, interested, pushed",
            "to",
            "to+in",
            "from",
            "both, interested, pushed",
            "both",
        ],
    ),
    (
        "unsubscribed", // A.3.4
        [
            "none",
            "none, interested, pushed",
            "none+in",
            "none+in, interested, pushed",
            "none, interested, pushed",
            "none+in, interested, pushed",
            "from",
            "from, interested, pushed",
            "from, interested, pushed",
        ],
    ),
];

/// The notes of the tables: what pre-approval (§3.4) changes.
const APPROVED_OUTBOUND: [(&str, [(&str, &str); 3]); 4] = [
    (
        "subscribe",
        [
            ("none+approved", "none+out+approved, routed, pushed"),
            ("none+out+approved", "none+out+approved, routed"),
            ("to+approved", "to+approved, routed"),
        ],
    ),
    (
        "unsubscribe",
        [
            ("none+approved", "none+approved, routed"),
            ("none+out+approved", "none+approved, routed, pushed"),
            ("to+approved", "none+approved, routed, pushed"),
        ],
    ),
    (
        "subscribed",
        [
            ("none+approved", "none+approved"),
            ("none+out+approved", "none+out+approved"),
            ("to+approved", "to+approved"),
        ],
    ),
    (
        "unsubscribed",
        [
            ("none+approved", "none, pushed"),
            ("none+out+approved", "none+out, pushed"),
            ("to+approved", "to, pushed"),
        ],
    ),
];
const APPROVED_INBOUND: [(&str, [(&str, &str); 3]); 4] = [
    (
        "subscribe",
        [
            ("none+approved", "from+approved, pushed, answered, here"),
            ("none+out+approved", "from+out+approved, pushed, answered, here"),
            ("to+approved", "both+approved, pushed, answered, here"),
        ],
    ),
    (
        "unsubscribe",
        [
            ("none+approved", "none+approved"),
            ("from+approved", "none+approved, interested, pushed, gone"),
            ("both+approved", "to+approved, interested, pushed, gone"),
        ],
    ),
    (
        "subscribed",
        [
            ("none+approved", "none+approved"),
            ("none+out+approved", "to+approved, interested, pushed"),
            ("to+approved", "to+approved"),
        ],
    ),
    (
        "unsubscribed",
        [
            ("none+approved", "none+approved"),
            ("none+out+approved", "none+approved, interested, pushed"),
            ("to+approved", "none+approved, interested, pushed"),
        ],
    ),
];

/// The roster item for a contact in a state, in words; `None` where there need not be one.
pub(crate) fn in_state(contact: &str, state: &str) -> Option<RosterItem> {
    let mut item = RosterItem::new(bare(contact).into());
    for word in state.split('+') {
        match word {
            "none" => {}
            "to" => item.subscription = Subscription::To,
            "from" => item.subscription = Subscription::From,
            "both" => item.subscription = Subscription::Both,
            "out" => item.ask = true,
            "in" => {
                let request =
                    format!("<presence from='{contact}@here' type='subscribe'></presence>");
                item.pending_in = Some(request.into_bytes());
            }
            "approved" => item.approved = true,
            other => panic!("{other}?"),
        }
    }
    item.listed = state != "none+in";
    (state != "none").then_some(item)
}

fn state_of(roster: &[RosterItem], contact: &str) -> String {
    let Some(item) = roster.iter().find(|item| *item.jid.bare() == bare(contact)) else {
        return "none".into();
    };
    let subscription = match item.subscription {
        Subscription::None => "none",
        Subscription::To => "to",
        Subscription::From => "from",
        Subscription::Both => "both",
    };
    let flags =
        [(item.ask, "+out"), (item.pending_in.is_some(), "+in"), (item.approved, "+approved")];
    let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag);
    std::iter::once(subscription).chain(flags).collect()
}

/// Alice's phone asked for the roster and her watch did not; Bob's computer did. All three are available.
struct Scene {
    node: Node,
    phone: Client,
    watch: Client,
    bob: Client,
    name: &'static str,
}

fn scene(shards: u16, alice: &str, bob: &str) -> Scene {
    let mut node = Node::new(shards);
    let names = ["bob", "carol", "dave", "erin", "frank", "grace"];
    let apart = |name: &&&str| shards == 1 || node.owner(name) != node.owner("alice");
    let name = *names.iter().find(apart).unwrap();
    node.users(&["alice", name]);
    let phone = interested(&mut node, "alice", "phone");
    let watch = node.online("alice", "watch");
    let computer = interested(&mut node, name, "pc");
    // Only now, as servers that meet heal what does not fit together (§4.3.2).
    for (owner, contact, state) in [("alice", name, alice), (name, "alice", bob)] {
        let set = in_state(contact, state).into_iter().collect();
        let owner_jid = bare(owner);
        let put = Write::PutRoster { owner: owner_jid, set, remove: Vec::new(), version: 1 };
        node.change_account(owner, put);
    }
    for client in [phone, watch, computer] {
        node.read(client);
    }
    Scene { node, phone, watch, bob: computer, name }
}

/// What one stanza has done, in the words of the tables.
fn outcome(scene: &mut Scene, kind: &str, inbound: bool) -> String {
    let Scene { node, phone, watch, bob, name } = scene;
    let (from, to, sender) =
        if inbound { (*name, "alice", *bob) } else { ("alice", *name, *phone) };
    node.send(sender, &format!("<presence to='{to}@here' type='{kind}'/>"));
    let (on_phone, on_watch, on_bob) = (node.read(*phone), node.read(*watch), node.read(*bob));
    let stanza = format!("<presence from='{from}@here' to='{to}@here' type='{kind}'>");
    let pushes = on_phone.matches("<iq type='set'").count();
    assert!(pushes <= 1 && !on_watch.contains("<iq"), "{on_phone} {on_watch}");
    let mut words = vec![state_of(&node.roster("alice"), name)];
    if inbound {
        match (on_phone.contains(&stanza), on_watch.contains(&stanza)) {
            (true, true) => words.push("available".into()),
            (true, false) => words.push("interested".into()),
            (false, false) => {}
            (false, true) => panic!("only those that are not interested: {on_watch}"),
        }
    } else if on_bob.contains(&stanza) {
        words.push("routed".into());
    }
    if pushes == 1 {
        words.push("pushed".into());
    }
    let answer = format!("<presence from='alice@here' to='{name}@here' type='subscribed'>");
    if inbound && on_bob.contains(&answer) {
        words.push("answered".into());
    }
    for resource in ["phone", "watch"] {
        let shown = format!("<presence from='alice@here/{resource}'");
        let word = match on_bob.find(&shown) {
            None => continue,
            Some(_) if says_gone(&on_bob, &format!("alice@here/{resource}")) => "gone",
            Some(_) => "here",
        };
        if resource == "phone" {
            words.push(word.into());
        } else {
            assert_eq!(words.last().map(String::as_str), Some(word), "both resources are shown");
        }
    }
    words.join(", ")
}

/// The state of the other side in which a stanza shows that it came, or may be sent.
fn receptive(kind: &str) -> &'static str {
    match kind {
        "subscribe" => "none",
        "subscribed" => "none+out",
        "unsubscribe" => "from",
        _ => "to",
    }
}

fn able(kind: &str) -> &'static str {
    match kind {
        "subscribed" => "none+in",
        "unsubscribed" => "from",
        _ => "none",
    }
}

fn check(shards: u16, kind: &str, before: &str, wanted: &str, inbound: bool) {
    let other = if inbound { able(kind) } else { receptive(kind) };
    let mut scene = scene(shards, before, other);
    let direction = if inbound { "inbound" } else { "outbound" };
    let cell = format!("{direction} {kind} in state {before}, {shards} shards");
    assert_eq!(outcome(&mut scene, kind, inbound), wanted, "{cell}");
    // What is in memory is what is in the store.
    let kept = state_of(&scene.node.roster("alice"), scene.name);
    let shown = item(&mut scene.node, scene.phone, scene.name);
    let listed = kept != "none" && kept != "none+in";
    assert!(!listed || shown.is_some(), "{cell}: {shown:?}");
}

#[test]
fn outbound_cells_of_appendix_a() {
    for shards in [1, 2] {
        for (kind, cells) in OUTBOUND {
            for (before, wanted) in STATES.iter().zip(cells) {
                check(shards, kind, before, wanted, false);
            }
        }
        for (kind, cells) in APPROVED_OUTBOUND {
            for (before, wanted) in cells {
                check(shards, kind, before, wanted, false);
            }
        }
    }
}

#[test]
fn inbound_cells_of_appendix_a() {
    for shards in [1, 2] {
        for (kind, cells) in INBOUND {
            for (before, wanted) in STATES.iter().zip(cells) {
                check(shards, kind, before, wanted, true);
            }
        }
        for (kind, cells) in APPROVED_INBOUND {
            for (before, wanted) in cells {
                check(shards, kind, before, wanted, true);
            }
        }
    }
}
