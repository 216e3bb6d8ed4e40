//! XEP-0191: what passes between an account and an address that it blocks, and what does not.

use crate::harness::*;
use crate::iq::befriend;
use corefire::store::Write;

fn set(what: &str, items: &[&str]) -> String {
    let items: String = items.iter().map(|jid| format!("<item jid='{jid}'/>")).collect();
    format!("<iq type='set' id='{what}'><{what} xmlns='urn:xmpp:blocking'>{items}</{what}></iq>")
}

const LIST: &str = "<iq type='get' id='list'><blocklist xmlns='urn:xmpp:blocking'/></iq>";
const PING: &str = "<ping xmlns='urn:xmpp:ping'/>";

fn block(node: &mut Node, client: Client, jid: &str) {
    change(node, client, "block", &[jid]);
}

fn unblock(node: &mut Node, client: Client, jid: &str) {
    change(node, client, "unblock", &[jid]);
}

fn change(node: &mut Node, client: Client, what: &str, items: &[&str]) {
    node.send(client, &set(what, items));
    let answer = node.read(client);
    assert!(answer.contains(&format!("<iq type='result' id='{what}'")), "{answer}");
}

/// Alice and Bob, who see each other.
fn friends(shards: u16) -> (Node, Client, Client) {
    let mut node = Node::new(shards);
    let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
    befriend(&mut node, alice, bob, ["alice", "bob"]);
    node.read(alice);
    node.read(bob);
    (node, alice, bob)
}

#[test]
fn list_is_shown_pushed_and_kept() {
    let mut node = Node::new(2);
    let (alice, pc) = (node.online("alice", "phone"), node.online("alice", "pc"));
    let deaf = node.online("alice", "deaf");
    for client in [alice, pc] {
        node.read(client);
        node.send(client, LIST);
        let answer = node.read(client);
        assert!(answer.contains("<blocklist xmlns='urn:xmpp:blocking'/>"), "{answer}");
    }
    node.send(alice, &set("block", &["romeo@there", "Bob@here", "here.example/x"]));
    let push = node.read(pc);
    assert!(push.contains("type='set'") && push.contains(" to='alice@here/pc'"), "{push}");
    assert!(push.contains("<block xmlns='urn:xmpp:blocking'><item jid='bob@here'/>"), "{push}");
    assert_eq!(push.matches("<item ").count(), 3);
    let own = node.elements(alice);
    assert_eq!(own.len(), 2, "a push, and the result: {own:?}");
    assert_eq!(node.read(deaf), "", "it has not asked for the list");
    // A second time changes nothing.
    block(&mut node, alice, "bob@here");
    assert_eq!(node.read(pc), "");

    // The list outlives all sessions, and the account's time in memory.
    for client in [alice, pc, deaf] {
        node.send(client, "</stream:stream>");
    }
    node.advance(std::time::Duration::from_secs(120));
    assert_eq!(node.accounts(), 0);
    let alice = node.online("alice", "phone");
    node.send(alice, LIST);
    let list = node.read(alice);
    let items = "<item jid='bob@here'/><item jid='here.example/x'/><item jid='romeo@there'/>";
    assert!(list.contains(items), "{list}");
    node.send(alice, &set("unblock", &["romeo@there"]));
    let push = node.read(alice);
    assert!(push.contains("<unblock xmlns='urn:xmpp:blocking'><item jid='romeo@there'/>"));
    node.send(alice, &set("unblock", &[]));
    assert!(node.read(alice).contains("<unblock xmlns='urn:xmpp:blocking'/>"));
    node.send(alice, LIST);
    assert!(node.read(alice).contains("<blocklist xmlns='urn:xmpp:blocking'/>"));
    unblock(&mut node, alice, "bob@here");
}

#[test]
fn what_is_no_list_of_addresses_is_refused() {
    let mut node = Node::with(1, |config| config.limits.block_list_items = 2);
    let alice = node.online("alice", "phone");
    let cases = [
        (set("block", &[]), "bad-request"),
        (set("block", &["a@b@c/"]), "jid-malformed"),
        (set("unblock", &["@"]), "jid-malformed"),
        (set("block", &["x"]).replace("jid=", "id="), "bad-request"),
        (set("block", &["x"]).replace("item", "entry"), "bad-request"),
        (set("block", &["x", "y", "z"]), "not-acceptable"),
        (set("block", &["x"]).replace("id='block'", "id='1' to='bob@here'"), "service-unavailable"),
    ];
    for (request, condition) in cases {
        node.send(alice, &request);
        let answer = node.read(alice);
        assert!(answer.contains(&format!("<{condition} ")), "{request} gives {answer}");
    }
    change(&mut node, alice, "block", &["x", "y", "x"]);
    node.send(alice, &set("block", &["z"]));
    assert!(node.read(alice).contains("<not-acceptable "));
}

#[test]
fn nothing_comes_from_whom_is_blocked() {
    for (shards, item) in [(1, "bob@here"), (2, "bob@here"), (2, "bob@here/pc")] {
        let (mut node, alice, bob) = friends(shards);
        block(&mut node, alice, item);
        node.read(bob);
        for kind in ["chat", "normal", "headline"] {
            for to in ["alice@here", "alice@here/phone"] {
                let message = format!("<message to='{to}' type='{kind}'><body>hi</body></message>");
                node.send(bob, &message);
                let answer = node.read(bob);
                assert!(answer.contains("<service-unavailable "), "{answer}");
            }
        }
        node.send(bob, "<message to='alice@here/phone' type='error'><body>hi</body></message>");
        for to in ["alice@here", "alice@here/phone"] {
            node.send(bob, &format!("<iq to='{to}' type='get' id='1'>{PING}</iq>"));
            assert!(node.read(bob).contains("<service-unavailable "));
            node.send(bob, &format!("<iq to='{to}' type='result' id='1'/>"));
            for kind in ["", "type='unavailable'", "type='probe'"] {
                node.send(bob, &format!("<presence to='{to}' {kind}/>"));
            }
        }
        node.send(bob, "<presence><status>changed</status></presence>");
        assert_eq!((node.read(alice), node.count(bob)), (String::new(), 1), "its own presence");
        // Nor is anything kept for later.
        node.send(alice, "</stream:stream>");
        node.send(bob, &chat("alice@here", "later"));
        assert!(node.read(bob).contains("<service-unavailable "));
        assert_eq!(node.logged("alice"), 0);
    }
}

#[test]
fn request_for_a_subscription_from_whom_is_blocked_leaves_no_trace() {
    for item in ["bob@here", "here"] {
        let mut node = Node::new(2);
        let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
        block(&mut node, alice, item);
        node.send(bob, "<presence to='alice@here' type='subscribe'/>");
        node.send(alice, "</stream:stream>");
        let alice = node.login("alice", "phone");
        node.send(alice, "<presence/>");
        assert!(!node.read(alice).contains("subscribe"), "{item}");
    }
}

#[test]
fn nothing_goes_to_whom_is_blocked() {
    for shards in [1, 2] {
        let (mut node, alice, bob) = friends(shards);
        node.enable(alice);
        block(&mut node, alice, "bob@here");
        node.read(bob);
        let stanzas = [
            chat("bob@here", "1"),
            chat("bob@here/pc", "2"),
            format!("<iq to='bob@here/pc' id='3' type='get'>{PING}</iq>"),
            "<presence to='bob@here'/>".into(),
            "<presence to='bob@here' type='subscribe'/>".into(),
        ];
        for stanza in &stanzas {
            node.send(alice, stanza);
            let answer = node.read(alice);
            let error = "<error type='cancel'>\
                <not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
                <blocked xmlns='urn:xmpp:blocking:errors'/></error>";
            assert!(answer.contains(error), "{stanza} gives {answer}");
        }
        node.send(alice, "<iq to='bob@here/pc' id='4' type='result'/>");
        node.send(alice, "<presence><status>changed</status></presence>");
        assert_eq!(node.read(bob), "");
        node.send(alice, "<r xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(attr(&node.read(alice), "h"), "8", "all of them are handled");
    }
}

#[test]
fn whom_is_blocked_sees_the_user_go_and_come_back() {
    for (shards, item) in [(1, "bob@here"), (2, "bob@here"), (2, "bob@here/pc"), (2, "here")] {
        let (mut node, alice, bob) = friends(shards);
        block(&mut node, alice, item);
        let seen = node.read(bob);
        assert!(seen.contains(" from='alice@here/phone'"), "{seen}");
        assert!(seen.contains("type='unavailable'"), "{seen}");
        node.read(alice);
        node.send(bob, "<presence><status>while blocked</status></presence>");
        assert_eq!(node.read(alice), "");
        node.send(alice, &set("unblock", &[]));
        let seen = node.read(bob);
        assert!(seen.contains(" from='alice@here/phone'"), "{seen}");
        assert!(!seen.contains("unavailable"), "{seen}");
        let answer = node.read(alice);
        assert!(answer.contains("while blocked"), "what was missed is asked for: {answer}");
        node.send(bob, &chat("alice@here", "again"));
        assert_eq!(bodies(&node.read(alice)), ["again"]);
    }
}

#[test]
fn strangers_learn_nothing_of_being_blocked() {
    let mut node = Node::new(2);
    let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
    block(&mut node, alice, "bob@here");
    unblock(&mut node, alice, "bob@here");
    assert_eq!(node.read(bob), "");
    // But whoever was told directly sees the user go.
    node.send(alice, "<presence to='bob@here/pc'/>");
    node.read(bob);
    block(&mut node, alice, "bob@here");
    assert!(node.read(bob).contains("type='unavailable'"));
    node.send(alice, "</stream:stream>");
    assert_eq!(node.read(bob), "");
}

#[test]
fn an_account_at_login_neither_shows_itself_to_whom_it_blocks_nor_asks() {
    let (mut node, alice, bob) = friends(2);
    block(&mut node, alice, "bob@here");
    node.send(alice, "</stream:stream>");
    node.read(bob);
    let alice = node.login("alice", "phone");
    node.send(alice, "<presence/>");
    assert_eq!(node.read(bob), "");
    assert!(!node.read(alice).contains("bob@here"));
}

#[test]
fn own_resources_and_the_server_stay_in_reach() {
    for item in ["alice@here", "alice@here/pc", "here"] {
        let mut node = Node::new(2);
        let (alice, pc) = (node.online("alice", "phone"), node.online("alice", "pc"));
        node.read(alice);
        block(&mut node, alice, item);
        node.send(alice, &chat("alice@here/pc", "hi"));
        assert_eq!(bodies(&node.read(pc)), ["hi"], "{item}");
        node.send(alice, &format!("<iq to='here' id='1' type='get'>{PING}</iq>"));
        assert!(node.read(alice).contains("<iq type='result' id='1'"));
        node.send(pc, "<presence><status>seen</status></presence>");
        assert!(node.read(alice).contains("seen"));
    }
}

#[test]
fn change_that_could_not_be_stored_is_refused_and_undone() {
    let mut node = Node::new(1);
    let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
    node.store_fails = true;
    node.send(alice, &set("block", &["bob@here"]));
    assert!(node.read(alice).contains("<resource-constraint "));
    node.store_fails = false;
    node.send(bob, &chat("alice@here", "hi"));
    assert_eq!(bodies(&node.read(alice)), ["hi"]);
}

#[test]
fn what_waits_from_whom_is_blocked_since_is_not_delivered() {
    for shards in [1, 2] {
        let mut node = Node::new(shards);
        let (bob, carol) = (node.online("bob", "pc"), node.online("carol", "pc"));
        node.users(&["alice"]);
        for (client, body) in [(bob, "1"), (carol, "2"), (bob, "3")] {
            node.send(client, &chat("alice@here", body));
        }
        node.send(bob, "<presence to='alice@here' type='subscribe'/>");
        let alice = node.login("alice", "phone");
        block(&mut node, alice, "bob@here");
        node.send(alice, "<presence/>");
        let got = node.read(alice);
        assert_eq!(bodies(&got), ["2"]);
        assert!(!got.contains("subscribe"), "{got}");
        assert_eq!(node.logged("alice"), 0);
    }
}

/// Where no more can wait, an answer goes ahead of what does; not past the list.
#[test]
fn no_answer_of_whom_is_blocked_slips_through_while_the_account_is_read() {
    for (shards, blocked) in [(1, true), (2, true), (1, false)] {
        let mut node = Node::with(shards, |config| config.limits.pending_stanzas = 8);
        let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
        befriend(&mut node, alice, bob, ["alice", "bob"]);
        let carol = node.online("carol", "pc");
        if blocked {
            block(&mut node, alice, "bob@here");
        }
        node.read(alice);
        node.hold_store();
        let touch = Write::PutSlot { owner: bare("alice"), name: "none".into(), value: None };
        node.change_account("alice", touch);
        let to = "alice@here/phone";
        for _ in 0..8 {
            node.send(carol, &chat(to, "in line"));
        }
        node.send(
            bob,
            &format!("<message to='{to}' type='error' id='e1'><body>hi</body></message>"),
        );
        node.send(bob, &format!("<iq to='{to}' type='error' id='e2'/>"));
        let ahead = node.read(alice);
        assert_eq!(
            (ahead.contains("'e1'"), ahead.contains("'e2'")),
            (!blocked, !blocked),
            "{ahead}"
        );
        node.free_store();
        assert_eq!(bodies(&node.read(alice)), ["in line"; 8]);
    }
}

#[test]
fn errors_of_a_client_stay_in_order_with_what_it_sent_before() {
    for shards in [1, 2] {
        let (mut node, alice, bob) = friends(shards);
        node.hold_store();
        let touch = Write::PutSlot { owner: bare("alice"), name: "none".into(), value: None };
        node.change_account("alice", touch);
        let to = "alice@here/phone";
        node.send(bob, &chat(to, "1"));
        let error = "<body>2</body><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        node.send(bob, &format!("<message to='{to}' type='error' id='e1'>{error}</message>"));
        node.send(bob, &chat(to, "3"));
        assert_eq!(node.read(alice), "");
        node.free_store();
        assert_eq!(bodies(&node.read(alice)), ["1", "2", "3"]);
    }
}
