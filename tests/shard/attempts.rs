//! Failed logins: too many close an account to guessing and a network to logging in, and tell nobody who exists.

use crate::harness::*;
use corefire::base::limit::Rate;
use corefire::stream::sasl::client::{ClientBinding, ScramClient};
use corefire::stream::sasl::{Mechanism, decode_payload, encode_payload};
use std::net::IpAddr;
use std::time::Duration;

const WINDOW: Duration = Duration::from_secs(600);
const HOME: [u8; 4] = [192, 0, 2, 9];
const AWAY: [u8; 4] = [198, 51, 100, 1];
const STRANGE: [u8; 4] = [203, 0, 113, 1];

#[test]
fn who_fails_again_on_one_stream_waits_longer_each_time() {
    let mut node = Node::with(1, |config| config.limits.login_attempts = 4);
    node.users(&["alice"]);
    let client = node.connect_from(0, AWAY.into());
    node.send(client, HEADER);
    node.read(client);
    let fails = |node: &mut Node| {
        node.send(client, &plain("alice", "wrong"));
        node.read(client).matches("<not-authorized").count()
    };
    assert_eq!((fails(&mut node), fails(&mut node)), (1, 1), "a slip of the finger costs nothing");
    assert_eq!(fails(&mut node), 0);
    node.advance(Duration::from_millis(1_100));
    assert_eq!(node.read(client).matches("<not-authorized").count(), 1);
    assert_eq!(fails(&mut node), 0);
    node.advance(Duration::from_millis(1_100));
    assert_eq!(node.read(client), "", "two seconds now");
    node.advance(Duration::from_secs(1));
    let end = node.read(client);
    assert!(end.contains("<policy-violation"), "{end}");
}

#[test]
fn a_challenge_and_a_refusal_leave_at_a_moment_that_does_not_depend_on_what_was_found() {
    let mut node = Node::with(1, |config| config.answer_after = Duration::from_millis(1));
    node.users(&["alice"]);
    for user in ["alice", "nobody"] {
        let client = node.connect_from(0, AWAY.into());
        let first = encode_payload(format!("n,,n={user},r=fyko").as_bytes());
        let sasl = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
        // What comes in one piece with it does not take it along.
        node.send(
            client,
            &format!("{HEADER}<auth {sasl} mechanism='SCRAM-SHA-256'>{first}</auth>"),
        );
        assert!(!node.read(client).contains("<challenge"));
        node.advance(Duration::from_micros(900));
        assert_eq!(node.read(client), "");
        node.advance(Duration::from_micros(100));
        assert!(node.read(client).contains("<challenge"));
        node.send(client, &format!("<response {sasl}>{}</response>", encode_payload(b"c=biws")));
        assert_eq!(node.read(client), "");
        node.advance(Duration::from_millis(1));
        assert!(node.read(client).contains("<failure"));
    }
}

/// Three failures close an account, eight a network.
fn node() -> Node {
    let mut node = Node::with(1, |config| {
        config.limits.failed_logins_account = Rate::over(3, WINDOW);
        config.limits.failed_logins_network = Rate::over(8, WINDOW);
        config.limits.login_attempts = 2;
    });
    node.users(&["alice", "bob"]);
    node
}

/// The answer to one PLAIN login.
fn login(node: &mut Node, from: impl Into<IpAddr>, user: &str, password: &str) -> String {
    let client = node.connect_from(0, from.into());
    node.send(client, HEADER);
    node.read(client);
    node.send(client, &plain(user, password));
    let answer = node.read(client);
    node.cut(client);
    let words = ["success", "not-authorized", "temporary-auth-failure"];
    let word = words.into_iter().find(|word| answer.contains(&format!("<{word}")));
    word.unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// All that the server says to one login by SCRAM, but for its nonces.
fn scram(node: &mut Node, from: impl Into<IpAddr>, user: &str, password: &str) -> (usize, String) {
    let client = node.connect_from(0, from.into());
    node.send(client, HEADER);
    node.read(client);
    let mechanism = Mechanism::ScramSha256;
    let binding = ClientBinding::Unsupported;
    let mut scram = ScramClient::new(mechanism, user, password, "fyko", binding).unwrap();
    let sasl = "xmlns='urn:ietf:params:xml:ns:xmpp-sasl'";
    let first = encode_payload(&scram.first());
    node.send(client, &format!("<auth {sasl} mechanism='SCRAM-SHA-256'>{first}</auth>"));
    let challenge = node.read(client);
    let data = challenge.split('>').nth(1).unwrap().split('<').next().unwrap();
    let last = scram.server_first(&decode_payload(data).unwrap()).unwrap();
    node.send(client, &format!("<response {sasl}>{}</response>", encode_payload(&last)));
    let answer = node.read(client);
    node.cut(client);
    let answer = if answer.starts_with("<success") { "<success".to_owned() } else { answer };
    (challenge.len(), answer)
}

#[test]
fn too_many_failures_close_an_account_and_time_opens_it() {
    let mut node = node();
    for _ in 0..3 {
        assert_eq!(login(&mut node, AWAY, "alice", "wrong"), "not-authorized");
    }
    assert_eq!(login(&mut node, AWAY, "alice", "wrong"), "temporary-auth-failure");
    assert_eq!(login(&mut node, AWAY, "alice", PASSWORD), "temporary-auth-failure");
    assert_eq!(login(&mut node, STRANGE, "alice", PASSWORD), "temporary-auth-failure");
    assert!(scram(&mut node, STRANGE, "alice", PASSWORD).1.contains("<temporary-auth-failure/>"));
    assert_eq!(login(&mut node, AWAY, "bob", PASSWORD), "success", "others are not touched");
    node.advance(WINDOW / 3);
    assert_eq!(login(&mut node, STRANGE, "alice", PASSWORD), "success");
}

#[test]
fn account_stays_open_to_its_owner_where_he_was_before() {
    let mut node = node();
    assert_eq!(login(&mut node, HOME, "alice", PASSWORD), "success");
    // It is known after the account left memory, and after a restart.
    node.advance(Duration::from_secs(120));
    assert_eq!(node.accounts(), 0);
    for _ in 0..5 {
        login(&mut node, AWAY, "alice", "wrong");
    }
    assert_eq!(login(&mut node, [192, 0, 2, 77], "alice", PASSWORD), "success", "a neighbour");
    assert_eq!(scram(&mut node, HOME, "alice", PASSWORD).1, "<success");
    assert_eq!(login(&mut node, AWAY, "alice", PASSWORD), "temporary-auth-failure");
    // Guessing from there has its own bound.
    for _ in 0..3 {
        assert_eq!(login(&mut node, HOME, "alice", "wrong"), "temporary-auth-failure");
    }
    assert_eq!(login(&mut node, HOME, "alice", PASSWORD), "temporary-auth-failure");
}

#[test]
fn too_many_failures_close_a_network_for_every_account() {
    let mut node = node();
    for number in 0..8 {
        let user = format!("user{number}");
        assert_eq!(login(&mut node, AWAY, &user, "wrong"), "not-authorized");
    }
    for user in ["alice", "nobody"] {
        let neighbour = [198, 51, 100, 200];
        assert_eq!(login(&mut node, neighbour, user, PASSWORD), "temporary-auth-failure");
    }
    assert_eq!(login(&mut node, STRANGE, "alice", PASSWORD), "success");
    let from = |text: &str| text.parse::<IpAddr>().unwrap();
    for number in 0..9 {
        login(&mut node, from("2001:db8::1"), &format!("user{number}"), "wrong");
    }
    assert_eq!(login(&mut node, from("2001:db8::ffff"), "bob", PASSWORD), "temporary-auth-failure");
    assert_eq!(login(&mut node, from("2001:db8:0:1::1"), "bob", PASSWORD), "success");
}

/// Neither before nor while an account is closed, wherever one asks from: also from a network that the account is known
/// in.
#[test]
fn answers_do_not_tell_who_exists() {
    for from in [HOME, AWAY] {
        let mut answers = Vec::new();
        for user in ["alice", "nobody"] {
            let mut node = node();
            login(&mut node, HOME, "alice", PASSWORD);
            let mut seen = Vec::new();
            for _ in 0..3 {
                login(&mut node, STRANGE, user, "wrong");
            }
            for _ in 0..4 {
                let (length, answer) = scram(&mut node, from, user, "wrong");
                seen.push((length, answer));
                seen.push((0, login(&mut node, from, user, "wrong")));
            }
            answers.push(seen);
        }
        assert_eq!(answers[0], answers[1], "from {from:?}");
    }
}

#[test]
fn network_free_of_rates_is_free_of_this_too() {
    let mut node = Node::with(1, |config| {
        config.limits.failed_logins_account = Rate::over(1, WINDOW);
        config.limits.rates.exempt = vec!["192.0.2.0/24".parse().unwrap()];
    });
    node.users(&["alice"]);
    for _ in 0..5 {
        assert_eq!(login(&mut node, HOME, "alice", "wrong"), "not-authorized");
    }
    assert_eq!(login(&mut node, HOME, "alice", PASSWORD), "success");
}
