//! Rates: who sends too much is read more slowly, loses nothing, and nobody else notices.

use crate::harness::*;
use corefire::base::limit::Rate;
use corefire::shard::{Rates, ShardConfig, TrafficRate};
use std::time::Duration;

/// Ten a second, twenty at once.
fn ten() -> Rate {
    Rate::new(10, Duration::from_secs(2))
}

fn stanzas(rate: Rate) -> TrafficRate {
    TrafficRate { stanzas: rate, bytes: Rate::FREE }
}

fn with(rates: Rates) -> Node {
    node(1, rates)
}

fn node(shards: u16, rates: Rates) -> Node {
    Node::with(shards, |config: &mut ShardConfig| config.limits.rates = rates)
}

/// Fills up what the login took.
fn rest(node: &mut Node) {
    node.advance(Duration::from_secs(10));
}

fn burst(to: &str, numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| chat(to, &number.to_string())).collect()
}

#[test]
fn session_above_its_rate_is_slowed_and_loses_nothing() {
    let mut node = with(Rates { session: stanzas(ten()), ..Rates::default() });
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    rest(&mut node);
    // One read is taken whole.
    node.send(alice, &burst("bob@here", 0..50));
    assert!(!node.is_read(alice));
    assert_eq!(bodies(&node.read(bob)).len(), 50);
    node.send(alice, &burst("bob@here", 50..51));
    assert_eq!(node.read(bob), "", "what comes now waits");
    node.advance(Duration::from_millis(2_900));
    assert!(!node.is_read(alice), "fifty less twenty at once are three seconds");
    assert_eq!(node.read(bob), "");
    node.advance(Duration::from_millis(300));
    assert_eq!(bodies(&node.read(bob)), ["50"]);
    node.advance(Duration::from_secs(1));
    assert!(node.is_read(alice));
    assert_eq!(node.read(alice), "", "no error");
    assert_eq!(node.probe(0).reads_slowed, 1);
}

#[test]
fn over_a_minute_the_rate_holds() {
    let mut node = with(Rates { session: stanzas(ten()), ..Rates::default() });
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    rest(&mut node);
    let mut sent = 0;
    for _ in 0..600 {
        while node.is_read(alice) {
            node.send(alice, &chat("bob@here", &sent.to_string()));
            sent += 1;
        }
        node.advance(Duration::from_millis(100));
    }
    assert!((600..=630).contains(&sent), "{sent}");
    let text = node.read(bob);
    let wanted: Vec<String> = (0..sent).map(|number| number.to_string()).collect();
    assert_eq!(bodies(&text), wanted, "all of it, in order");
}

#[test]
fn bytes_are_counted_where_there_is_no_stanza() {
    let bytes = Rate::new(10_000, Duration::from_secs(1));
    let traffic = TrafficRate { stanzas: Rate::FREE, bytes };
    let mut node = with(Rates { session: traffic, ..Rates::default() });
    let alice = node.online("alice", "phone");
    rest(&mut node);
    node.send(alice, &" ".repeat(9_000));
    assert!(node.is_read(alice));
    node.send(alice, &" ".repeat(11_000));
    assert!(!node.is_read(alice));
    node.advance(Duration::from_millis(900));
    assert!(!node.is_read(alice));
    node.advance(Duration::from_millis(200));
    assert!(node.is_read(alice));
    // Before login as well.
    let stranger = node.connect(0);
    node.send(stranger, &" ".repeat(20_000));
    assert!(!node.is_read(stranger));
}

#[test]
fn sessions_of_an_account_share_its_rate_and_others_do_not() {
    let mut node = with(Rates { account: stanzas(ten()), ..Rates::default() });
    let phone = node.online("alice", "phone");
    let pc = node.online("alice", "pc");
    let bob = node.online("bob", "pc");
    rest(&mut node);
    node.read(phone);
    node.send(phone, &burst("bob@here", 0..20));
    assert!(node.is_read(phone));
    node.send(pc, &chat("bob@here", "one more"));
    assert!(!node.is_read(pc), "the account has used up what there is at once");
    node.send(bob, &burst("alice@here", 0..20));
    assert!(node.is_read(bob));
    assert_eq!(bodies(&node.read(bob)).len(), 21);
    assert_eq!(bodies(&node.read(phone)).len(), 20, "who is slowed still receives");
}

#[test]
fn slowed_client_gets_its_acknowledgements() {
    let mut node = with(Rates { session: stanzas(ten()), ..Rates::default() });
    let (alice, _) = node.online_acked("alice", "phone");
    node.online("bob", "pc");
    rest(&mut node);
    node.send(alice, &(burst("bob@here", 0..30) + "<r xmlns='urn:xmpp:sm:3'/>"));
    assert!(!node.is_read(alice));
    assert!(node.read(alice).contains("<a xmlns='urn:xmpp:sm:3' h='31'/>"), "presence came first");
}

#[test]
fn who_trickles_before_login_is_slowed_and_a_session_begins_afresh() {
    let mut node = with(Rates { login: Rate::new(2, Duration::from_secs(10)), ..Rates::default() });
    node.users(&["alice"]);
    let slow = node.connect(0);
    let parts: Vec<String> = HEADER.chars().map(String::from).collect();
    parts[..20].iter().for_each(|part| node.send(slow, part));
    assert!(node.is_read(slow));
    node.send(slow, &parts[20]);
    assert!(!node.is_read(slow), "a byte costs as much as an element");
    node.send(slow, &parts[21..].concat());
    assert_eq!(node.read(slow), "");
    node.advance(Duration::from_secs(2));
    assert!(node.read(slow).contains("<stream:features>"), "and nothing was lost");
    let alice = node.login("alice", "phone");
    node.send(alice, &burst("alice@here", 0..200));
    assert!(node.is_read(alice));
}

#[test]
fn network_shares_its_rate_and_other_networks_do_not() {
    let mut node = with(Rates { network: stanzas(ten()), ..Rates::default() });
    let near = node.online("alice", "phone");
    let beside = node.online("bob", "pc");
    let far = node.connect_from(0, [198, 51, 100, 1].into());
    rest(&mut node);
    node.send(near, &burst("bob@here", 0..20));
    assert!(node.is_read(near));
    node.send(beside, &chat("alice@here", "one more"));
    assert!(!node.is_read(beside));
    node.send(far, HEADER);
    assert!(node.is_read(far));
    assert_eq!(node.networks(), 2);
}

#[test]
fn exempt_networks_are_free() {
    let mut node = with(Rates {
        session: stanzas(ten()),
        account: stanzas(ten()),
        network: stanzas(ten()),
        connections: Rate::new(1, Duration::from_secs(1)),
        login: ten(),
        sessions: Rate::new(1, Duration::from_secs(1)),
        exempt: vec!["192.0.2.0/24".parse().unwrap()],
        networks: 16,
    });
    let alice = node.online("alice", "phone");
    (0..3).for_each(|number| _ = node.login("alice", &number.to_string()));
    node.send(alice, &burst("alice@here", 0..200));
    assert!(node.is_read(alice));
    assert!((0..10).all(|_| node.admits(0, [192, 0, 2, 7].into())));
    assert_eq!(node.networks(), 0);
    assert_eq!(node.probe(0).connections_refused, 0);
}

#[test]
fn connections_are_exempt_as_the_configuration_of_now_says() {
    let rates = |exempt: &[&str]| Rates {
        session: stanzas(ten()),
        exempt: exempt.iter().map(|network| network.parse().unwrap()).collect(),
        networks: 16,
        ..Rates::default()
    };
    let mut node = with(rates(&[]));
    let alice = node.online("alice", "phone");
    assert_eq!(node.networks(), 1);
    node.reconfigure(|config| config.limits.rates = rates(&["192.0.2.0/24"]));
    node.advance(Duration::from_secs(60));
    node.send(alice, &burst("alice@here", 0..200));
    assert!(node.is_read(alice));
    node.reconfigure(|config| config.limits.rates = rates(&[]));
    node.send(alice, &burst("alice@here", 0..200));
    assert!(!node.is_read(alice));
    node.cut(alice);
    assert_eq!(node.networks(), 1, "as for one that was counted from the start");
}

#[test]
fn connections_of_a_network_above_its_rate_are_not_admitted() {
    let rate = Rate::new(2, Duration::from_secs(2));
    let mut node = with(Rates { connections: rate, networks: 100, ..Rates::default() });
    let admitted = |node: &mut Node, last: u8| node.admits(0, [203, 0, 113, last].into());
    assert_eq!((0..10).filter(|last| admitted(&mut node, *last)).count(), 4);
    assert!(node.admits(0, [203, 0, 114, 1].into()), "another network");
    assert!(node.admits(0, "2001:db8::1".parse().unwrap()));
    assert_eq!(node.probe(0).connections_refused, 6);
    node.advance(Duration::from_secs(1));
    assert_eq!((0..10).filter(|last| admitted(&mut node, *last)).count(), 2);
}

#[test]
fn networks_that_come_and_go_do_not_pile_up() {
    let rate = Rate::new(1, Duration::from_secs(1));
    let mut node = with(Rates { connections: rate, networks: 10, ..Rates::default() });
    for number in 0..1_000u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + (number << 8));
        assert!(node.admits(0, address.into()));
    }
    assert_eq!(node.networks(), 10);
    let alice = node.online("alice", "phone");
    assert_eq!(node.networks(), 11);
    node.cut(alice);
    assert_eq!(node.networks(), 10);
}

#[test]
fn account_begins_only_so_many_sessions() {
    let rate = Rate::new(1, Duration::from_secs(2));
    let mut node = with(Rates { sessions: rate, ..Rates::default() });
    let first = node.login("alice", "phone");
    node.login("alice", "pc");
    let third = node.authenticate(0, "alice");
    node.send(third, &bind("phone"));
    let answer = node.read(third);
    assert!(answer.contains("<error type='wait'><resource-constraint "), "{answer}");
    assert!(node.is_open(first), "the session that it would have replaced stays");
    node.login("bob", "pc");
    node.advance(Duration::from_secs(1));
    node.send(third, &bind("tablet"));
    assert!(node.read(third).contains("<jid>alice@here/tablet</jid>"));
}

#[test]
fn resumption_above_the_rate_waits() {
    let rate = Rate::new(1, Duration::from_secs(1));
    let mut node = with(Rates { sessions: rate, ..Rates::default() });
    let (alice, id) = node.online_acked("alice", "phone");
    node.cut(alice);
    let again = node.authenticate(0, "alice");
    node.send(again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"));
    assert_eq!(node.read(again), "");
    node.advance(Duration::from_millis(1_100));
    assert!(node.read(again).starts_with("<resumed "));
    assert_eq!(node.sessions(), 1);
}

#[test]
fn slowed_client_is_not_taken_for_a_silent_one() {
    let mut node = with(Rates { session: stanzas(ten()), ..Rates::default() });
    let alice = node.online("alice", "phone");
    node.ignore_pings(alice);
    rest(&mut node);
    // Three minutes of debt, and the client would be pinged after two.
    node.send(alice, &"<iq type='result' id='nobody asked'/>".repeat(1_900));
    for _ in 0..180 {
        node.advance(Duration::from_secs(1));
    }
    assert!(node.is_open(alice));
    assert!(!node.is_read(alice));
    node.advance(Duration::from_secs(10));
    assert!(node.is_read(alice));
}

#[test]
fn rates_go_along_when_a_connection_moves() {
    let mut node = node(
        2,
        Rates { session: stanzas(ten()), network: stanzas(ten()), networks: 4, ..Rates::default() },
    );
    let away = 1 - node.owner("alice");
    let alice = node.login_at(away, "alice", "phone");
    assert_eq!(node.moves(alice), 1);
    assert_eq!(node.networks(), 2, "remembered where it was, used where it is");
    rest(&mut node);
    node.send(alice, &burst("alice@here", 0..30));
    assert!(!node.is_read(alice));
    node.advance(Duration::from_secs(2));
    assert!(node.is_read(alice));
}
