//! XEP-0077: strangers make accounts where they may, users cancel theirs, and new accounts are in quarantine.

use crate::harness::{Client, HEADER, Node, PASSWORD, bare, bind, chat, plain};
use corefire::shard::ShardConfig;
use std::time::Duration;

fn open(config: &mut ShardConfig) {
    config.policy.registration = true;
}

fn node(shards: u16) -> Node {
    Node::with(shards, open)
}

fn in_quarantine(config: &mut ShardConfig) {
    open(config);
    config.limits.quarantine = Duration::from_secs(4 * 3_600);
    config.limits.quarantine_strangers = 2;
}

const FIELDS: &str = "<iq type='get' id='f' to='here'><query xmlns='jabber:iq:register'/></iq>";

fn set(inner: &str) -> String {
    format!("<iq type='set' id='s'><query xmlns='jabber:iq:register'>{inner}</query></iq>")
}

fn account(name: &str) -> String {
    set(&format!("<username>{name}</username><password>{PASSWORD}</password>"))
}

impl Node {
    /// A stranger, from a network of its own.
    fn stranger(&mut self, shard: usize, network: u8) -> Client {
        let client = self.connect_from(shard, [198, 51, network, 1].into());
        self.send(client, HEADER);
        self.read(client);
        client
    }

    fn says(&mut self, client: Client, xml: &str) -> String {
        self.send(client, xml);
        self.read(client)
    }

    /// Makes an account and logs in to it, on one stream.
    fn newcomer(&mut self, name: &str, network: u8) -> Client {
        let client = self.stranger(0, network);
        let made = self.says(client, &account(name));
        assert!(made.contains("<iq type='result' id='s'"), "{made}");
        assert!(self.says(client, &plain(name, PASSWORD)).contains("<success"));
        self.says(client, HEADER);
        assert!(self.says(client, &bind("phone")).contains(&format!("{name}@here/phone")));
        client
    }
}

#[test]
fn a_stranger_makes_an_account_and_logs_in_on_the_same_stream_wherever_its_owner_is() {
    let mut node = node(3);
    for (network, name) in (1..).zip(["alice", "bob", "carol", "dave"]) {
        let client = node.connect_from(0, [198, 51, network, 1].into());
        let features = node.says(client, HEADER);
        assert!(
            features.contains("<register xmlns='http://jabber.org/features/iq-register'/>"),
            "{features}"
        );
        let fields = node.says(client, FIELDS);
        for field in ["<username/><password/>", "<x xmlns='jabber:x:data' type='form'>"] {
            assert!(fields.contains(field), "{fields}");
        }
        node.cut(client);
        let client = node.newcomer(name, network);
        assert_eq!(node.shard_of(client), node.owner(name));
        node.send(client, &chat(&format!("{name}@here"), "to myself"));
        assert!(node.record(name).is_some());
    }
    assert_eq!(node.faults(), 0);
}

#[test]
fn a_form_does_as_well_as_elements() {
    let mut node = node(2);
    let client = node.stranger(1, 1);
    let field =
        |var: &str, value: &str| format!("<field var='{var}'><value>{value}</value></field>");
    let form = |kind: &str, fields: &str| {
        set(&format!("<x xmlns='jabber:x:data' type='{kind}'>{fields}</x>"))
    };
    let kind = field("FORM_TYPE", "jabber:iq:register");
    let whole = kind.clone() + &field("username", "Alice") + &field("password", PASSWORD);
    let lacking = kind + &field("username", "alice");
    assert!(node.says(client, &form("cancel", "")).contains("<bad-request"));
    assert!(node.says(client, &form("submit", &lacking)).contains("<not-acceptable"));
    assert!(node.says(client, &form("submit", &whole)).contains("type='result'"));
    assert!(node.record("alice").is_some(), "the name is prepared");
    assert!(node.says(client, &plain("alice", PASSWORD)).contains("<success"));
}

#[test]
fn what_cannot_be_an_account_is_refused_and_costs_nothing() {
    let mut node = Node::with(1, |config| {
        open(config);
        config.admins = vec![bare("root")];
        config.access = ["eve@here".parse().unwrap()].into_iter().collect();
    });
    let client = node.stranger(0, 1);
    let long = "x".repeat(1_024);
    let refusals = [
        ("<username>alice</username>", "<not-acceptable"),
        ("<username/><password>x</password>", "<not-acceptable"),
        ("<password>x</password>", "<not-acceptable"),
        ("", "<not-acceptable"),
        ("<username>a b</username><password>x</password>", "<not-acceptable"),
        ("<username>a@b</username><password>x</password>", "<not-acceptable"),
        (&format!("<username>{long}</username><password>x</password>"), "<not-acceptable"),
        // A Cyrillic letter among Latin ones.
        ("<username>\u{430}lice</username><password>x</password>", "<not-acceptable"),
        ("<username>root</username><password>x</password>", "<conflict"),
        ("<username>Eve</username><password>x</password>", "<conflict"),
        ("<remove/>", "<unexpected-request"),
    ];
    for (inner, condition) in refusals {
        let answer = node.says(client, &set(inner));
        assert!(answer.contains(condition) && answer.contains("id='s'"), "{inner}: {answer}");
    }
    for name in ["\u{430}\u{43b}\u{438}\u{441}\u{430}", "alice.2-b_c+d"] {
        let other = node.stranger(0, 2);
        assert!(node.says(other, &account(name)).contains("type='result'"), "{name}");
    }
    assert!(node.record("root").is_none());
    let made = node.says(client, &account("alice"));
    assert!(made.contains("type='result'"), "none of it was counted: {made}");
    let again = node.says(client, &account("ALICE"));
    assert!(again.contains("<conflict"), "{again}");
}

#[test]
fn a_password_that_cannot_be_prepared_is_refused() {
    let mut node = node(1);
    let client = node.stranger(0, 1);
    let answer = node.says(client, &set("<username>alice</username><password>\u{e000}</password>"));
    assert!(answer.contains("<not-acceptable"), "{answer}");
    assert!(node.record("alice").is_none());
}

#[test]
fn a_network_and_all_of_them_have_their_share_of_an_hour() {
    let mut node = node(2);
    let client = node.stranger(0, 1);
    for name in ["a1", "a2"] {
        assert!(node.says(client, &account(name)).contains("type='result'"));
    }
    let refused = node.says(client, &account("a3"));
    assert!(refused.contains("<resource-constraint") && refused.contains("type='wait'"));
    for (network, name) in (2..).zip(["b1", "b2", "b3"]) {
        let client = node.stranger(1, network);
        assert!(node.says(client, &account(name)).contains("type='result'"));
    }
    let client = node.stranger(1, 9);
    assert!(node.says(client, &account("c1")).contains("<resource-constraint"));
    node.advance(Duration::from_secs(3_600));
    let client = node.stranger(0, 1);
    assert!(node.says(client, &account("a3")).contains("type='result'"));
    node.errands_fail = true;
    assert!(node.says(client, &account("a4")).contains("<resource-constraint"), "too busy");
    node.errands_fail = false;
    node.store_fails = true;
    assert!(node.says(client, &account("a4")).contains("<internal-server-error"));
    assert!(node.is_open(client));
}

#[test]
fn nobody_registers_where_it_is_off_or_without_tls() {
    let mut node = Node::new(1);
    let client = node.connect(0);
    assert!(!node.says(client, HEADER).contains("iq-register"));
    for xml in [FIELDS, &account("alice")] {
        assert!(node.says(client, xml).contains("<not-allowed"));
    }
    assert!(node.record("alice").is_none());

    let mut node = Node::with(1, open);
    let client = node.connect_as(0, None);
    assert!(!node.says(client, HEADER).contains("iq-register"));
    assert!(node.says(client, &account("alice")).contains("<stream:error><not-authorized"));

    let mut node = Node::with(1, |config| {
        open(config);
        config.policy.tls_required = false;
    });
    let client = node.connect_as(0, None);
    assert!(node.says(client, HEADER).contains("iq-register"));
    assert!(node.says(client, &account("alice")).contains("type='result'"));
}

#[test]
fn other_requests_before_login_end_the_stream() {
    let mut node = node(1);
    for xml in [
        "<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='get' id='1' to='there'><query xmlns='jabber:iq:register'/></iq>",
        "<iq type='result' id='1'><query xmlns='jabber:iq:register'/></iq>",
    ] {
        let client = node.stranger(0, 1);
        let end = node.says(client, xml);
        assert!(end.contains("<stream:error><not-authorized"), "{xml}: {end}");
        assert!(!node.is_open(client));
    }
}

#[test]
fn a_stranger_has_time_to_think_of_a_password_but_not_for_ever() {
    let mut node = node(1);
    let (silent, thinking) = (node.stranger(0, 1), node.stranger(0, 2));
    node.says(thinking, FIELDS);
    node.advance(Duration::from_secs(60));
    assert!(!node.is_open(silent) && node.is_open(thinking));
    node.says(thinking, FIELDS);
    node.advance(Duration::from_secs(239));
    assert!(node.is_open(thinking));
    node.advance(Duration::from_secs(2));
    assert!(node.read(thinking).contains("<connection-timeout"));
}

#[test]
fn a_user_cancels_the_account_and_all_of_it_goes() {
    let mut node = node(2);
    let (alice, other) = (node.online("alice", "phone"), node.online("alice", "desk"));
    let bob = node.online("bob", "desk");
    node.send(bob, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    node.send(bob, "<presence type='subscribe' to='alice@here'/>");
    node.send(alice, "<presence type='subscribed' to='bob@here'/>");
    for client in [alice, other, bob] {
        node.read(client);
    }
    let refused = node.says(alice, &set("<remove/><username>alice</username>"));
    assert!(refused.contains("<bad-request"), "{refused}");
    let end = node.says(alice, &set("<remove/>"));
    let (done, error) = (end.find("type='result'"), end.find("<stream:error><not-authorized"));
    assert!(done.is_some() && done < error, "{end}");
    assert!(node.read(other).contains("<stream:error><not-authorized"));
    assert!(!node.is_open(alice) && !node.is_open(other));
    assert!(node.record("alice").is_none());
    assert!(node.read(bob).contains("type='unsubscribed'"));
    let late = node.connect(0);
    node.send(late, HEADER);
    assert!(node.says(late, &plain("alice", PASSWORD)).contains("<not-authorized"));
    let carol = node.stranger(0, 1);
    assert!(node.says(carol, &account("alice")).contains("type='result'"), "the name is free");
    assert!(node.roster("alice").is_empty());
    assert_eq!(node.faults(), 0);
}

#[test]
fn a_new_account_writes_to_few_strangers_until_it_is_released() {
    let mut node = Node::with(2, in_quarantine);
    node.users(&["bob", "carol", "dave", "erin"]);
    let spam = node.newcomer("spam", 1);
    node.says(spam, "<presence/>");
    assert_eq!(node.says(spam, &chat("bob@here", "buy")), "");
    assert_eq!(node.says(spam, &chat("bob@here", "buy now")), "", "no stranger any more");
    assert!(node.says(spam, &chat("spam@here/phone", "to myself")).contains("to myself"));
    let asked = node.says(spam, "<presence type='subscribe' to='carol@here'/>");
    assert!(!asked.contains("<policy-violation"), "{asked}");
    let refused = node.says(spam, &chat("dave@here", "buy"));
    assert!(refused.contains("<policy-violation"), "{refused}");
    let refused = node.says(spam, "<presence type='subscribe' to='dave@here'/>");
    assert!(refused.contains("<policy-violation"), "{refused}");
    assert_eq!(node.logged("dave"), 0);
    let pong =
        node.says(spam, "<iq type='get' id='p' to='here'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert!(pong.contains("type='result'"), "{pong}");

    // Who agrees to a subscription is no stranger.
    let dave = node.online("dave", "desk");
    node.send(dave, "<presence type='subscribe' to='spam@here'/>");
    node.send(spam, "<presence type='subscribed' to='dave@here'/>");
    node.read(spam);
    node.read(dave);
    assert_eq!(node.says(spam, &chat("dave@here", "hello")), "");
    assert!(node.read(dave).contains("hello"));

    // It holds for the next session, too, and the count of the hour goes with the hour.
    node.cut(spam);
    let spam = node.login("spam", "desk");
    assert!(node.says(spam, &chat("erin@here", "buy")).contains("<policy-violation"));
    for _ in 0..60 {
        // The client answers pings meanwhile.
        node.advance(Duration::from_secs(61));
    }
    node.read(spam);
    assert_eq!(node.says(spam, &chat("erin@here", "buy")), "");
    node.says(spam, &chat("bob@here", "buy"));
    assert!(node.says(spam, &chat("carol@here", "buy")).contains("<policy-violation"));
    let name = "quarantine".to_owned();
    let release = corefire::store::Write::PutSlot { owner: bare("spam"), name, value: None };
    node.change_account("spam", release);
    assert_eq!(node.says(spam, &chat("carol@here", "a friend now")), "");
    assert_eq!(node.faults(), 0);
}

#[test]
fn a_quarantine_ends_and_leaves_nothing_behind() {
    let mut node = Node::with(1, |config| {
        in_quarantine(config);
        config.limits.quarantine = Duration::from_secs(60);
        config.limits.quarantine_strangers = 0;
    });
    node.users(&["bob"]);
    let kept = |node: &mut Node| {
        node.record("new").unwrap().slots.iter().any(|(name, _)| name == "quarantine")
    };
    let new = node.newcomer("new", 1);
    assert!(node.says(new, &chat("bob@here", "x")).contains("<policy-violation"));
    assert!(kept(&mut node));
    node.advance(Duration::from_secs(61));
    assert_eq!(node.says(new, &chat("bob@here", "x")), "");
    assert!(!kept(&mut node));
    let old = node.online("old", "phone");
    assert_eq!(node.says(old, &chat("bob@here", "x")), "", "others were never in it");
}
