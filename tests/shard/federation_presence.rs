//! Presence and subscriptions (RFC 6121 §3, §4) with contacts of other domains: the test plays the federation core.

use crate::federation::{federated, federated_with};
use crate::harness::*;
use crate::subscriptions::{befriend, interested};
use corefire::base::limit::Rate;
use corefire::shard::TrafficRate;
use corefire::store::{RosterItem, Subscription, Write};
use corefire::xmpp::jid::Jid;
use std::time::Duration;

fn item(jid: &str, change: impl FnOnce(&mut RosterItem)) -> RosterItem {
    let mut item = RosterItem::new(Jid::parse(jid).unwrap());
    change(&mut item);
    item
}

/// Puts a roster into the store, as it was before the node began.
fn roster(node: &mut Node, name: &str, set: Vec<RosterItem>) {
    node.users(&[name]);
    let put = Write::PutRoster { owner: bare(name), set, remove: Vec::new(), version: 7 };
    node.change_account(name, put);
}

fn both(jid: &str) -> RosterItem {
    item(jid, |it| it.subscription = Subscription::Both)
}

fn presence(from: &str, to: &str, kind: &str) -> String {
    let kind = if kind.is_empty() { String::new() } else { format!(" type='{kind}'") };
    format!("<presence from='{from}' to='{to}'{kind}/>")
}

/// What has gone out: recipients and stanza of each frame.
fn gone(node: &mut Node) -> Vec<(Vec<String>, String)> {
    node.gone_out().into_iter().map(|frame| (frame.to, frame.stanza)).collect()
}

fn subscription(node: &mut Node, name: &str) -> (Subscription, bool) {
    let roster = node.roster(name);
    let romeo = roster.iter().find(|item| item.jid.to_string() == "romeo@else.example");
    romeo.map_or((Subscription::None, false), |item| (item.subscription, item.ask))
}

// ---- presence

#[test]
fn presence_goes_to_all_contacts_elsewhere_in_one_frame_per_core() {
    for shards in [1, 4] {
        let mut node = federated(shards);
        let elsewhere = ["nurse@third.example", "romeo@else.example", "third.example"];
        let mut contacts: Vec<_> = elsewhere.iter().map(|jid| both(jid)).collect();
        contacts.push(both("bob@here"));
        contacts.push(item("paris@else.example", |it| it.subscription = Subscription::To));
        contacts.push(item("tybalt@else.example", |it| it.subscription = Subscription::From));
        roster(&mut node, "alice", contacts);
        let alice = node.login("alice", "phone");
        node.send(alice, "<presence><show>away</show></presence>");
        let sent = gone(&mut node);
        assert_eq!(sent.len(), 2, "presence and probe: {sent:?}");
        let watchers = sorted(&elsewhere, "tybalt@else.example");
        assert_eq!(sent[0].0, watchers);
        assert_eq!(sent[0].1, "<presence from='alice@here/phone'><show>away</show></presence>");
        assert_eq!(sent[1].0, sorted(&elsewhere, "paris@else.example"));
        assert_eq!(sent[1].1, "<presence from='alice@here/phone' type='probe'></presence>");
        node.send(alice, "<presence/>");
        let sent = gone(&mut node);
        assert_eq!((sent.len(), &sent[0].0), (1, &watchers));
        // She goes, by her own words or without.
        for by_words in [true, false] {
            if by_words {
                node.send(alice, "<presence type='unavailable'/>");
            } else {
                node.send(alice, "<presence/>");
                gone(&mut node);
                node.cut(alice);
            }
            let sent = gone(&mut node);
            assert_eq!((sent.len(), &sent[0].0), (1, &watchers));
            assert!(sent[0].1.contains("from='alice@here/phone' type='unavailable'"), "{sent:?}");
        }
    }
}

/// As the store has them.
fn sorted(jids: &[&str], also: &str) -> Vec<String> {
    let mut all: Vec<String> = jids.iter().chain([&also]).map(|jid| (*jid).to_owned()).collect();
    all.sort();
    all
}

#[test]
fn directed_presence_ends_for_those_who_got_it() {
    for ends_by in ["<presence type='unavailable'/>", "</stream:stream>", ""] {
        let mut node = federated(2);
        roster(&mut node, "alice", vec![both("romeo@else.example")]);
        let alice = node.online("alice", "phone");
        gone(&mut node);
        node.send(alice, "<presence to='room@third.example/nick'/>");
        node.send(alice, "<presence to='romeo@else.example'/>");
        node.send(alice, "<presence to='left@third.example'/>");
        node.send(alice, "<presence to='left@third.example' type='unavailable'/>");
        assert_eq!(gone(&mut node).len(), 4);
        match ends_by {
            "" => node.cut(alice),
            words => node.send(alice, words),
        }
        let sent = gone(&mut node);
        assert!(sent.iter().all(|(_, stanza)| stanza.contains("type='unavailable'")), "{sent:?}");
        let mut to: Vec<String> = sent.into_iter().flat_map(|(to, _)| to).collect();
        to.sort();
        assert_eq!(to, ["romeo@else.example", "room@third.example/nick"], "each once");
    }
}

#[test]
fn node_that_stops_says_goodbye_to_other_domains_alone() {
    let mut node = federated(2);
    let alice = interested(&mut node, "alice", "phone");
    let bob = interested(&mut node, "bob", "pc");
    befriend(&mut node, alice, bob);
    node.send(alice, "<presence to='room@third.example/nick'/>");
    let mut contacts = node.roster("bob");
    contacts.push(both("romeo@else.example"));
    roster(&mut node, "bob", contacts);
    node.read(alice);
    gone(&mut node);
    node.shut_down();
    let mut sent = gone(&mut node);
    sent.sort();
    let to: Vec<_> = sent.iter().map(|(to, _)| to.join(" ")).collect();
    assert_eq!(to, ["romeo@else.example", "room@third.example/nick"]);
    assert!(sent[0].1.contains("from='bob@here/pc' type='unavailable'"));
    assert!(sent[1].1.contains("from='alice@here/phone' type='unavailable'"));
    assert!(!node.read(alice).contains("<presence"));
}

#[test]
fn presence_of_others_reaches_all_available_resources() {
    for shards in [1, 4] {
        let mut node = federated(shards);
        roster(&mut node, "alice", vec![both("romeo@else.example")]);
        let phone = node.online("alice", "phone");
        let tablet = node.login("alice", "tablet");
        for kind in ["", "unavailable"] {
            node.come_in(&presence("romeo@else.example/x", "alice@here", kind));
            let text = node.read(phone);
            assert!(text.starts_with("<presence from='romeo@else.example/x' to='alice@here'"));
            assert_eq!(text.contains("unavailable"), !kind.is_empty());
            assert_eq!(node.read(tablet), "", "it is not available");
        }
        node.come_in(&presence("room@third.example/n", "alice@here/tablet", ""));
        assert!(node.read(tablet).contains("from='room@third.example/n'"));
        // News for who is not here go nowhere, and nobody is told.
        node.come_in(&presence("romeo@else.example/x", "bob@here", ""));
        gone(&mut node);
        assert_eq!(node.faults(), 0);
    }
}

// ---- probes

#[test]
fn probe_is_answered_to_those_who_may_see_the_account() {
    for shards in [1, 4] {
        let mut node = federated(shards);
        let from = item("romeo@else.example", |it| it.subscription = Subscription::From);
        let to = item("nurse@else.example", |it| it.subscription = Subscription::To);
        roster(&mut node, "alice", vec![from, to]);
        let probe = |jid: &str, to: &str| presence(jid, to, "probe");
        // Nobody is there.
        node.come_in(&probe("romeo@else.example", "alice@here"));
        assert_eq!(
            gone(&mut node),
            [(
                vec!["romeo@else.example".to_owned()],
                "<presence from='alice@here' to='romeo@else.example' type='unavailable'></presence>"
                    .to_owned()
            )]
        );
        let alice = node.login("alice", "phone");
        node.send(alice, "<presence><show>dnd</show></presence>");
        gone(&mut node);
        node.read(alice);
        node.come_in(&probe("romeo@else.example", "alice@here"));
        let sent = gone(&mut node);
        assert_eq!((sent.len(), &*sent[0].0[0]), (1, "romeo@else.example"));
        assert!(sent[0].1.contains("<show>dnd</show>"));
        for (stranger, to) in [
            ("nurse@else.example", "alice@here"),
            ("paris@else.example", "alice@here"),
            ("paris@else.example/x", "alice@here/phone"),
            ("romeo@other.example", "alice@here"),
            ("romeo@else.example", "nobody@here"),
        ] {
            node.come_in(&probe(stranger, to));
            let sent = gone(&mut node);
            assert_eq!(sent.len(), 1, "{stranger}: {sent:?}");
            assert!(sent[0].1.contains(" type='unsubscribed'"), "{stranger}: {sent:?}");
        }
        assert_eq!(node.read(alice), "");
    }
}

#[test]
fn who_was_told_directly_may_ask_whether_it_still_is_so() {
    let mut node = federated(2);
    let alice = node.online("alice", "phone");
    node.send(alice, "<presence to='room@third.example/nick'/>");
    gone(&mut node);
    node.come_in(&presence("room@third.example", "alice@here/phone", "probe"));
    let sent = gone(&mut node);
    assert!(sent.len() == 1 && !sent[0].1.contains("type="), "{sent:?}");
}

// ---- subscriptions

#[test]
fn request_of_ours_is_granted_and_taken_back() {
    for shards in [1, 4] {
        let mut node = federated(shards);
        let alice = interested(&mut node, "alice", "phone");
        let says = |kind: &str| presence("romeo@else.example", "alice@here", kind);
        node.send(alice, "<presence to='romeo@else.example/x' type='subscribe'/>");
        assert_eq!(
            gone(&mut node),
            [(
                vec!["romeo@else.example".to_owned()],
                "<presence from='alice@here' to='romeo@else.example' type='subscribe'></presence>"
                    .to_owned()
            )]
        );
        assert!(node.read(alice).contains("subscription='none' ask='subscribe'/>"));
        assert_eq!(subscription(&mut node, "alice"), (Subscription::None, true));

        let shard = node.come_in(&says("subscribed"));
        assert_eq!(node.unhandled_from_outside(shard), 0);
        let text = node.read(alice);
        let told = text.find("type='subscribed'");
        assert!(told.is_some() && told < text.find("subscription='to'/>"), "{text}");
        assert_eq!(subscription(&mut node, "alice"), (Subscription::To, false));
        node.come_in(&presence("romeo@else.example/x", "alice@here", ""));
        assert!(node.read(alice).contains("from='romeo@else.example/x'"));

        node.come_in(&says("unsubscribed"));
        let text = node.read(alice);
        assert!(text.contains("type='unsubscribed'") && text.contains("subscription='none'/>"));
        assert_eq!(subscription(&mut node, "alice"), (Subscription::None, false));
        // Once more, and taken back by her.
        node.send(alice, "<presence to='romeo@else.example' type='subscribe'/>");
        node.come_in(&says("subscribed"));
        gone(&mut node);
        node.send(alice, "<presence to='romeo@else.example' type='unsubscribe'/>");
        let sent = gone(&mut node);
        assert!(sent.len() == 1 && sent[0].1.contains("type='unsubscribe'"), "{sent:?}");
        assert_eq!(subscription(&mut node, "alice"), (Subscription::None, false));
        assert_eq!(node.faults(), 0);
    }
}

#[test]
fn request_of_others_waits_is_granted_and_ends() {
    for shards in [1, 4] {
        let mut node = federated(shards);
        node.users(&["alice"]);
        let says = |kind: &str| presence("romeo@else.example", "alice@here", kind);
        node.hold_store();
        let shard = node.come_in(&says("subscribe"));
        assert_eq!(node.unhandled_from_outside(shard), 1, "until it is in her roster");
        node.free_store();
        assert_eq!(node.unhandled_from_outside(shard), 0);
        assert!(gone(&mut node).is_empty(), "nobody has answered");
        let alice = node.login("alice", "phone");
        node.send(alice, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
        node.send(alice, "<presence><status>here</status></presence>");
        assert!(
            node.read(alice).contains("from='romeo@else.example' to='alice@here' type='subscribe'")
        );
        assert!(gone(&mut node).is_empty(), "he may not see her yet");
        // As long as it waits, nothing is said of her.
        node.come_in(&says("probe"));
        assert!(gone(&mut node).is_empty());

        node.send(alice, "<presence to='romeo@else.example' type='subscribed'/>");
        let sent = gone(&mut node);
        assert_eq!(sent.len(), 2, "{sent:?}");
        assert!(sent[0].1.contains("from='alice@here' to='romeo@else.example' type='subscribed'"));
        assert!(
            sent[1].1.contains("<status>here</status>") && sent[1].1.contains("'alice@here/phone'")
        );
        assert_eq!(subscription(&mut node, "alice").0, Subscription::From);
        // Who asks again is answered without her.
        node.come_in(&says("subscribe"));
        assert!(gone(&mut node)[0].1.contains("type='subscribed'"));

        node.come_in(&says("unsubscribe"));
        let sent = gone(&mut node);
        assert!(sent.iter().any(|(_, stanza)| says_gone(stanza)), "{sent:?}");
        assert_eq!(subscription(&mut node, "alice").0, Subscription::None);
        node.send(alice, "<presence><show>away</show></presence>");
        assert!(gone(&mut node).is_empty());
        assert_eq!(node.faults(), 0);
    }
}

fn says_gone(stanza: &str) -> bool {
    stanza.contains("from='alice@here/phone'") && stanza.contains("type='unavailable'")
}

#[test]
fn contact_that_is_removed_hears_the_end_of_both_subscriptions() {
    let mut node = federated(2);
    roster(&mut node, "alice", vec![both("romeo@else.example")]);
    let alice = interested(&mut node, "alice", "phone");
    gone(&mut node);
    node.send(
        alice,
        "<iq type='set' id='r'><query xmlns='jabber:iq:roster'>\
         <item jid='romeo@else.example' subscription='remove'/></query></iq>",
    );
    let said: String = node.said_outside().concat();
    for kind in ["unsubscribe", "unsubscribed", "unavailable"] {
        assert!(said.contains(&format!("type='{kind}'")), "{kind}: {said}");
    }
    assert!(node.roster("alice").is_empty());
}

#[test]
fn request_to_a_domain_that_cannot_be_reached_is_told_and_asked_again_later() {
    let mut node = federated(2);
    let alice = interested(&mut node, "alice", "phone");
    node.send(alice, "<presence to='romeo@else.example' type='subscribe'/>");
    node.send(alice, "<presence to='bob@here' type='subscribe'/>");
    node.read(alice);
    let error = "<error type='cancel'><remote-server-not-found \
        xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
    let refusal = |from: &str| {
        format!("<presence from='{from}' to='alice@here' type='error'>{error}</presence>")
    };
    node.come_in(&refusal("romeo@else.example"));
    assert!(node.read(alice).contains("<remote-server-not-found "));
    // Nobody else is heard like that.
    node.come_in(&refusal("paris@else.example"));
    assert_eq!(node.read(alice), "");
    gone(&mut node);
    node.online("alice", "tablet");
    assert!(gone(&mut node).is_empty(), "with the first resource only");
    node.kick("alice@here");
    gone(&mut node);
    node.online("alice", "phone");
    let sent = gone(&mut node);
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0].0, ["romeo@else.example"]);
    assert_eq!(sent[0].1, "<presence from='alice@here' type='subscribe'></presence>");
}

#[test]
fn full_table_of_requests_is_answered_for_the_account() {
    let mut node = federated(1);
    node.users(&["alice"]);
    for number in 0..4 {
        node.come_in(&presence(&format!("r{number}@else.example"), "alice@here", "subscribe"));
        let sent = gone(&mut node);
        assert_eq!(sent.len(), usize::from(number == 3), "{number}: {sent:?}");
    }
    assert_eq!(node.roster("alice").len(), 3);
}

#[test]
fn account_that_is_deleted_ends_its_subscriptions_elsewhere() {
    let mut node = federated(2);
    roster(&mut node, "alice", vec![both("romeo@else.example")]);
    node.delete_account("alice", &["romeo@else.example"]);
    let said: String = node.said_outside().concat();
    for kind in ["unsubscribe", "unsubscribed"] {
        assert!(said.contains(&format!("type='{kind}'")), "{kind}: {said}");
    }
}

// ---- clusters

/// The partition of a contact elsewhere may be that of a node that is gone: the contact is not.
#[test]
fn contact_elsewhere_is_not_lost_with_a_node() {
    let mut nodes = Node::cluster(2, 1, |config| config.federation_cores = 1);
    nodes.members(&[(1, 1), (2, 1)], &[]);
    let name = nodes.name_at("a", 1);
    let contacts: Vec<String> =
        (0..6).map(|number| format!("romeo{number}@else.example")).collect();
    let in_second = |jid: &&String| {
        let hash = Jid::parse(jid).unwrap().bare().hash64();
        nodes.owner_node(hash) == 2
    };
    assert!(contacts.iter().any(|jid| in_second(&jid)), "some would be that node's");
    roster(&mut nodes, &name, contacts.iter().map(|jid| both(jid)).collect());
    let alice = nodes.online(&name, "phone");
    gone(&mut nodes);
    nodes.kill_node(2);
    nodes.members(&[(1, 1)], &[]);
    nodes.advance(Duration::from_secs(1));
    assert_eq!(nodes.read(alice), "");
    assert!(gone(&mut nodes).is_empty());
}

#[test]
fn rate_of_a_session_holds_for_other_domains_too() {
    let mut node = federated_with(1, |config| {
        let stanzas = Rate::new(10, Duration::from_secs(2));
        config.limits.rates.session = TrafficRate { stanzas, bytes: Rate::FREE };
    });
    let alice = node.online("alice", "phone");
    node.advance(Duration::from_secs(10));
    let burst = |numbers: std::ops::Range<usize>| -> String {
        numbers.map(|number| chat("romeo@else.example", &number.to_string())).collect()
    };
    node.send(alice, &burst(0..50));
    assert!(!node.is_read(alice));
    gone(&mut node);
    node.send(alice, &burst(50..51));
    assert!(gone(&mut node).is_empty(), "what comes now waits");
    node.advance(Duration::from_secs(4));
    assert_eq!(gone(&mut node).len(), 1);
}
