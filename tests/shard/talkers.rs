//! Who sends most, as operators see it.

use crate::harness::*;
use corefire::base::limit::Rate;
use corefire::shard::{Rates, Talker, TrafficRate};
use std::time::Duration;

fn names(talkers: &[Talker]) -> Vec<&str> {
    talkers.iter().map(|one| &*one.jid).collect()
}

fn many(count: usize) -> String {
    (0..count).map(|number| chat("nobody@here", &number.to_string())).collect()
}

#[test]
fn accounts_are_ranked_by_the_stanzas_and_the_bytes_that_they_send() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    let carol = node.online("carol", "tab");
    let long = chat("nobody@here", &"x".repeat(8_000));
    for _ in 0..60 {
        node.send(alice, &many(20));
        node.send(bob, &many(2));
        node.send(carol, &long);
        node.advance(Duration::from_secs(1));
    }
    let top = node.top_talkers(0);
    assert_eq!(names(&top.by_stanzas), ["alice@here/phone", "bob@here/pc", "carol@here/tab"]);
    assert_eq!(names(&top.by_bytes)[0], "carol@here/tab");
    // Over four half-lives all but a sixteenth is there; the portion that is not counted yet is less than one.
    let rate = top.by_stanzas[0].per_s;
    assert!((17.0..=21.0).contains(&rate), "{rate}");
}

#[test]
fn an_account_is_there_once_with_the_resource_that_talks_now() {
    let mut node = Node::new(1);
    let phone = node.online("alice", "phone");
    let hostile = node.online("alice", "&lt;img src=x onerror=alert(1)&gt;");
    node.send(phone, &many(100));
    node.send(hostile, &many(100));
    let top = node.top_talkers(0);
    assert_eq!(names(&top.by_stanzas), ["alice@here/<img src=x onerror=alert(1)>"]);
}

#[test]
fn components_and_those_who_are_free_of_rates_are_counted_too() {
    let mut node = Node::with(1, |config| {
        config.components = vec![access("bot.here")];
        let little = Rate::new(1_000, Duration::from_secs(1));
        let session = TrafficRate { stanzas: little, bytes: Rate::FREE };
        let exempt = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        config.limits.rates = Rates { session, exempt, ..Rates::default() };
    });
    let bot = node.component(0, "bot.here");
    let alice = node.online("alice", "phone");
    let from_bot: String = (0..40)
        .map(|_| "<message from='bot.here' to='nobody@here'><body>x</body></message>")
        .collect();
    node.send(bot, &from_bot);
    node.send(alice, &many(20));
    assert_eq!(names(&node.top_talkers(0).by_stanzas), ["bot.here", "alice@here/phone"]);
}

#[test]
fn who_was_loud_an_hour_ago_is_quiet_now() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    node.send(alice, &many(1_000));
    assert!(node.top_talkers(0).by_stanzas[0].per_s > 10.0);
    for _ in 0..12 {
        node.advance(Duration::from_secs(300));
    }
    // It answers the server's pings, no more.
    let top = node.top_talkers(0);
    assert!(top.by_stanzas.iter().all(|one| one.per_s < 0.5), "{top:?}");
}
