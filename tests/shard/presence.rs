//! Presence (RFC 6121 §4).

use crate::harness::*;
use crate::subscriptions::*;
use corefire::shard::{Absence, Slot};
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
        node.read(alice);
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

// ---- probes

/// What the client is shown of a full JID, as it came.
fn shown(text: &str, from: &str) -> Vec<String> {
    let is_of = |one: &&str| one.contains(&format!(" from='{from}'"));
    text.split_inclusive("</presence>").filter(is_of).map(Into::into).collect()
}

#[test]
fn probe_is_answered_for_those_who_may_see_and_by_the_resource_that_is_asked() {
    for shards in [1, 4] {
        let (mut node, alice, bob) = friends(shards);
        node.send(bob, "<presence><show>away</show></presence>");
        let tab = node.online("bob", "tab");
        node.read(alice);
        node.send(alice, &to("bob", "probe"));
        let text = node.read(alice);
        assert!(text.contains("<show>away</show>") && text.contains("bob@here/tab"), "{text}");
        assert_eq!(text.matches("<presence ").count(), 2, "{text}");
        node.send(alice, "<presence to='bob@here/tab' type='probe'/>");
        let text = node.read(alice);
        assert_eq!((attr(&text, "from"), text.matches("<presence ").count()), ("bob@here/tab", 1));
        node.send(alice, "<presence to='bob@here/pc' type='probe'/>");
        let text = node.read(alice);
        assert_eq!(text, "<presence from='bob@here/pc' to='alice@here/phone'></presence>");
        node.send(alice, "<presence to='bob@here/nowhere' type='probe'/>");
        assert!(says_gone(&node.read(alice), "bob@here/nowhere"));
        node.read(bob);
        node.send(bob, "<presence to='bob@here' type='probe'/>");
        let text = node.read(bob);
        assert_eq!(text.matches("<presence ").count(), 2, "one's own resources: {text}");
        node.read(tab);
    }
}

#[test]
fn probe_of_a_stranger_tells_nothing_whether_there_is_somebody_or_not() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = node.online("alice", "phone");
        node.online("bob", "pc");
        for address in ["bob@here", "bob@here/pc", "nobody@here", "nobody@here/pc"] {
            node.send(alice, &format!("<presence to='{address}' type='probe'/>"));
            assert_eq!(node.read(alice), "", "{address}");
        }
    }
}

/// §4.6.6
#[test]
fn probe_of_one_who_was_told_directly_is_answered_by_that_resource_alone() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = node.online("alice", "phone");
        let bob = node.online("bob", "pc");
        let tab = node.online("bob", "tab");
        node.send(tab, "<presence to='alice@here/phone'><show>xa</show></presence>");
        node.read(alice);
        for (address, told) in [("bob@here", false), ("bob@here/pc", false), ("bob@here/tab", true)]
        {
            node.send(alice, &format!("<presence to='{address}' type='probe'/>"));
            let text = node.read(alice);
            let answer = "<presence from='bob@here/tab' to='alice@here/phone'></presence>";
            assert_eq!(text, if told { answer } else { "" }, "{address}");
        }
        node.send(tab, "<presence to='alice@here/phone' type='unavailable'/>");
        node.read(alice);
        node.send(alice, "<presence to='bob@here/tab' type='probe'/>");
        assert_eq!(node.read(alice), "");
        node.read(bob);
    }
}

#[test]
fn probe_of_one_whose_request_waits_is_no_answer_to_the_request() {
    let mut node = Node::new(4);
    let alice = interested(&mut node, "alice", "phone");
    node.online("bob", "pc");
    node.send(alice, &to("bob", "subscribe"));
    node.read(alice);
    node.send(alice, &to("bob", "probe"));
    assert_eq!(node.read(alice), "");
    assert_eq!(item(&mut node, alice, "bob").unwrap(), item_asked());
}

fn item_asked() -> String {
    "<item jid='bob@here' subscription='none' ask='subscribe'".into()
}

/// A server that believes in a subscription which is over learns better by its probe (§4.3.2).
#[test]
fn probe_of_one_who_may_not_see_any_more_ends_its_belief() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        node.users(&["alice", "bob"]);
        for (contact, believed) in [("bob", "to"), ("nobody", "both")] {
            let put = corefire::store::Write::PutRoster {
                owner: bare("alice"),
                set: vec![in_state(contact, believed).unwrap()],
                remove: Vec::new(),
                version: 1,
            };
            node.change_account("alice", put);
        }
        let alice = interested(&mut node, "alice", "phone");
        assert_eq!(subscription(&mut node, alice, "bob"), "none");
        assert_eq!(subscription(&mut node, alice, "nobody"), "from");
    }
}

/// §4.3.2: whether the account still is in memory or not.
#[test]
fn contact_who_is_away_is_shown_with_the_last_words_and_their_time() {
    for shards in [1, 4] {
        for evicted in [false, true] {
            let (mut node, alice, bob) = friends(shards);
            let first = node.online("bob", "tab");
            node.send(
                first,
                "<presence type='unavailable'><status>not the last</status></presence>",
            );
            node.send(bob, "<presence type='unavailable' id='u'><status>bye</status></presence>");
            node.cut(bob);
            node.cut(first);
            node.cut(alice);
            if evicted {
                node.advance(Duration::from_secs(600));
            }
            let alice = node.login("alice", "phone");
            node.send(alice, "<presence/>");
            let text = node.read(alice);
            let last = shown(&text, "bob@here");
            assert_eq!(last.len(), 1, "{text}");
            let stanza = &last[0];
            assert!(stanza.contains("type='unavailable'") && stanza.contains("id='u'"), "{stanza}");
            assert!(stanza.contains("to='alice@here/phone'"), "{stanza}");
            assert!(stanza.contains(
                "<status>bye</status><delay xmlns='urn:xmpp:delay' from='bob@here' \
                 stamp='2023-11-14T22:13:20.000Z'/></presence>"
            ));
            assert!(!text.contains("bob@here/"), "there is no resource: {text}");
        }
    }
}

#[test]
fn contact_who_was_never_there_is_away() {
    let (mut node, alice, bob) = friends(4);
    node.users(&["carol"]);
    node.cut(bob);
    node.send(alice, &to("carol", "subscribe"));
    let carol = node.login("carol", "pc");
    node.send(carol, &to("alice", "subscribed"));
    node.read(alice);
    node.send(alice, &to("carol", "probe"));
    let text = node.read(alice);
    let wanted = "<presence from='carol@here' to='alice@here/phone' type='unavailable'>";
    assert!(text.contains(wanted), "{text}");
}

#[test]
fn last_words_that_are_long_are_forgotten_and_their_time_is_not() {
    let (mut node, alice, bob) = friends(4);
    let status = "x".repeat(2_000);
    node.send(bob, &format!("<presence type='unavailable'><status>{status}</status></presence>"));
    node.cut(bob);
    node.read(alice);
    node.send(alice, &to("bob", "probe"));
    let text = node.read(alice);
    assert!(says_gone(&text, "bob@here") && text.len() < 400, "{text}");
    assert!(text.contains("<delay "), "{text}");
}

#[test]
fn node_that_stops_keeps_when_its_users_went() {
    let (mut node, alice, bob) = friends(4);
    node.send(alice, "<presence type='unavailable'><status>bye</status></presence>");
    node.read(bob);
    node.advance(Duration::from_secs(100));
    let sleeper = node.online_acked("carol", "phone").0;
    node.cut(sleeper);
    node.shut_down();
    let mut last = |name: &str| {
        let record = node.record(name).unwrap();
        let slot = record.slots.into_iter().find(|(slot, _)| slot == Absence::NAME);
        Absence::load(slot.map(|(_, bytes)| bytes).as_deref()).last().cloned()
    };
    let (alices, bobs, carols) = (last("alice").unwrap(), last("bob").unwrap(), last("carol"));
    assert!(String::from_utf8_lossy(&alices.stanza).contains("bye"), "she went before");
    assert_eq!((&*bobs.from, bobs.at.0 - alices.at.0), ("bob@here/pc", 100_000_000));
    assert_eq!(
        carols.map(|last| last.at),
        Some(bobs.at),
        "whoever may come back is not there either"
    );
}

/// A login asks for all contacts; absent ones are read only as far as the store has nothing else to do.
#[test]
fn probes_read_absent_accounts_only_while_the_store_is_idle() {
    let mut node = Node::with(1, |config| config.limits.probe_reads = 3);
    node.users(&["alice"]);
    for number in 0..8 {
        let name = format!("n{number}");
        node.users(&[&name]);
        befriended(&mut node, "alice", &name);
    }
    let alice = node.login("alice", "phone");
    node.hold_store();
    node.send(alice, "<presence/>");
    assert_eq!(node.queries_held(), 3);
    node.free_store();
    assert_eq!(node.read(alice).matches("type='unavailable'").count(), 3);
    assert_eq!(node.probe(0).presence_dropped, 5);
    // They are in memory now, and cost nothing; the others have their turn.
    node.send(alice, "<presence type='unavailable'/>");
    node.send(alice, "<presence/>");
    assert_eq!(node.read(alice).matches("type='unavailable'").count(), 1 + 6);
}

fn befriended(node: &mut Node, one: &str, other: &str) {
    for (owner, contact) in [(one, other), (other, one)] {
        let set = vec![in_state(contact, "both").unwrap()];
        let put = corefire::store::Write::PutRoster {
            owner: bare(owner),
            set,
            remove: Vec::new(),
            version: 1,
        };
        node.change_account(owner, put);
    }
}

/// A replay lasts as long as the client takes to confirm it, and fills the line of its account: who is there is told all
/// the same (R8).
#[test]
fn presence_neither_waits_behind_a_replay_nor_is_lost_where_the_line_is_full() {
    let mut node = Node::with(1, |config| config.limits.pending_stanzas = 2);
    node.users(&["alice", "bob"]);
    befriended(&mut node, "alice", "bob");
    let alice = node.online("alice", "phone");
    node.send(alice, &chat("bob@here", "stored"));
    let bob = node.login("bob", "pc");
    node.hold_store();
    node.send(bob, "<presence/>");
    (0..3).for_each(|_| node.send(alice, &chat("bob@here", "waits")));
    assert_eq!(node.read(alice).matches("<resource-constraint ").count(), 1, "the line is full");
    node.read(bob);
    node.send(alice, "<presence type='unavailable'/>");
    assert!(says_gone(&node.read(bob), "alice@here/phone"));
    node.send(alice, "<presence><status>back</status></presence>");
    let text = node.read(bob);
    assert!(text.contains("<status>back</status>") && !text.contains("waits"), "{text}");
    node.free_store();
    let text = node.read(bob);
    assert_eq!(text.matches("<body>waits<").count(), 2, "{text}");
    assert!(!text.contains("<presence"), "{text}");
}

#[test]
fn news_for_the_own_account_stays_in_order_while_a_replay_runs() {
    let mut node = Node::new(1);
    node.users(&["bob"]);
    let alice = node.online("alice", "phone");
    node.send(alice, &chat("bob@here", "stored"));
    let pc = node.online_with("bob", "pc", -1);
    let phone = node.online_with("bob", "phone", -1);
    node.send(phone, "<presence to='bob@here'/>");
    node.hold_store();
    node.send(pc, "<presence/>");
    node.read(pc);
    node.send(phone, "<presence type='unavailable'/><presence><status>back</status></presence>");
    node.free_store();
    let text = node.read(pc);
    let (gone, back) = (text.rfind("type='unavailable'"), text.rfind("<status>back</status>"));
    assert!(gone.is_some() && gone < back, "{text}");
    assert!(text.contains("<body>stored</body>"), "{text}");
}

#[test]
fn resource_hears_of_its_own_going() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    node.send(alice, "<presence type='unavailable'><status>bye</status></presence>");
    let text = node.read(alice);
    assert!(says_gone(&text, "alice@here/phone") && text.contains("bye"), "{text}");
    node.send(alice, "<presence type='unavailable'/>");
    assert_eq!(node.read(alice), "", "it was gone already");
}

// ---- last activity (XEP-0012)

fn last(node: &mut Node, client: Client, to: &str) -> String {
    node.read(client);
    let xml = format!("<iq type='get' id='last' to='{to}'><query xmlns='jabber:iq:last'/></iq>");
    node.send(client, &xml);
    node.read(client)
}

#[test]
fn last_activity_is_told_to_those_who_may_see() {
    for shards in [1, 4] {
        let (mut node, alice, bob) = friends(shards);
        let query = |answer: &str| {
            let start = answer.find("<query").unwrap_or_else(|| panic!("{answer}"));
            answer[start..answer.rfind("</iq>").unwrap()].to_owned()
        };
        let nothing = "<query xmlns='jabber:iq:last' seconds='0'/>";
        assert_eq!(query(&last(&mut node, alice, "bob@here")), nothing);
        node.send(
            bob,
            "<presence type='unavailable'><status>Heading &amp; Home</status></presence>",
        );
        assert_eq!(query(&last(&mut node, alice, "bob@here")), nothing, "it is connected");
        node.cut(bob);
        node.advance(Duration::from_millis(90_700));
        let wanted = "<query xmlns='jabber:iq:last' seconds='90'>Heading &amp; Home</query>";
        assert_eq!(query(&last(&mut node, alice, "bob@here")), wanted);
        assert_eq!(query(&last(&mut node, alice, "alice@here")), nothing, "oneself");
        let uptime = "<query xmlns='jabber:iq:last' seconds='90'/>";
        assert_eq!(query(&last(&mut node, alice, "here")), uptime);
        // A client may tell how long nobody has touched it; who may not see it does not get that far.
        let bob = node.online("bob", "pc");
        let carol = node.online("carol", "x");
        assert_eq!(last(&mut node, alice, "bob@here/pc"), "");
        assert!(node.read(bob).contains("<query xmlns='jabber:iq:last'/>"));
        for address in ["bob@here", "bob@here/pc", "bob@here/no", "nobody@here", "nobody@here/pc"] {
            let answer = last(&mut node, carol, address);
            assert!(answer.contains("<service-unavailable "), "{address}: {answer}");
        }
        assert_eq!(node.read(bob), "");
        let ping = "<iq type='get' id='p' to='bob@here/pc'><ping xmlns='urn:xmpp:ping'/></iq>";
        node.send(carol, ping);
        assert!(node.read(bob).contains("urn:xmpp:ping"), "anything else does");
    }
}

#[test]
fn account_that_never_was_there_has_no_last_activity() {
    let mut node = Node::new(1);
    node.users(&["alice", "carol"]);
    befriended(&mut node, "alice", "carol");
    let alice = node.online("alice", "phone");
    assert!(last(&mut node, alice, "carol@here").contains("<item-not-found "));
}

#[test]
fn words_in_an_id_are_no_address() {
    let mut node = Node::new(1);
    let (pc, phone) = (node.online("alice", "pc"), node.online("alice", "phone"));
    node.read(pc);
    node.send(phone, "<presence id=\"x to='bob@here\"/>");
    let text = node.read(pc);
    assert_eq!(
        (text.matches(" to='alice@here'").count(), text.matches("<presence").count()),
        (1, 1),
        "{text}"
    );
}
