//! Logins by the certificate of the client (SASL EXTERNAL, XEP-0178), by both profiles of SASL.

use crate::harness::*;
use crate::sasl2::{agent, authenticate_by, bind2, text};
use corefire::store::Write;
use corefire::stream::TlsFacts;
use corefire::stream::sasl::encode_payload;
use corefire::xmpp::jid::BareJid;

const OFFER: &str = "<mechanism>EXTERNAL</mechanism>";

/// A connection on which a certificate with these addresses was shown, and the features that it got.
fn certified(node: &mut Node, shard: usize, addresses: &[&str]) -> (Client, String) {
    let addresses = addresses.iter().map(|it| BareJid::parse(it).unwrap()).collect();
    let facts = TlsFacts { addresses, ..TlsFacts::default() };
    let client = node.connect_as(shard, Some(facts));
    node.send(client, HEADER);
    let features = node.read(client);
    (client, features)
}

fn auth(authzid: &str) -> String {
    let message = if authzid.is_empty() { "=".into() } else { encode_payload(authzid.as_bytes()) };
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>{message}</auth>")
}

/// What a login by SASL 1 ends with.
fn try_auth(node: &mut Node, addresses: &[&str], authzid: &str) -> String {
    let (client, _) = certified(node, 0, addresses);
    node.send(client, &auth(authzid));
    node.read(client)
}

fn assert_failed(answer: &str, condition: &str) {
    assert!(
        answer.starts_with("<failure ") && answer.contains(&format!("<{condition}")),
        "{answer}"
    );
}

#[test]
fn offered_by_both_profiles_to_those_whose_certificate_names_the_domain() {
    let mut node = Node::new(1);
    let (_, features) = certified(&mut node, 0, &["alice@there", "alice@here"]);
    assert_eq!(features.matches(OFFER).count(), 2, "{features}");
    for addresses in [&[][..], &["alice@there"], &["here"]] {
        let (client, features) = certified(&mut node, 0, addresses);
        assert!(!features.contains(OFFER), "{addresses:?}: {features}");
        node.send(client, &auth("alice@here"));
        assert_failed(&node.read(client), "invalid-mechanism");
        node.send(client, &authenticate_by("EXTERNAL", b"", ""));
        assert_failed(&node.read(client), "invalid-mechanism");
    }
}

#[test]
fn offered_after_starttls_too() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let client = node.connect_as(0, None);
    node.send(client, HEADER);
    node.send(client, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    node.read(client);
    let addresses = [BareJid::parse("alice@here").unwrap()].into();
    node.secure(client, TlsFacts { addresses, ..TlsFacts::default() });
    node.send(client, HEADER);
    assert!(node.read(client).contains(OFFER));
    node.send(client, &auth(""));
    assert!(node.read(client).starts_with("<success "));
}

#[test]
fn certificate_logs_in_wherever_it_arrives_and_a_resource_is_bound() {
    let mut node = Node::new(2);
    node.users(&["alice"]);
    for shard in 0..2 {
        let (client, _) = certified(&mut node, shard, &["alice@here"]);
        node.send(client, &auth(""));
        let answer = node.read(client);
        assert_eq!(answer, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
        node.send(client, HEADER);
        node.read(client);
        node.send(client, &bind("phone"));
        assert!(node.read(client).contains("<jid>alice@here/phone</jid>"));
    }
}

#[test]
fn initial_response_may_come_when_asked_for() {
    let mut node = Node::new(2);
    node.users(&["alice"]);
    for shard in 0..2 {
        let (client, _) = certified(&mut node, shard, &["alice@here"]);
        node.send(client, &auth("").replace('>', "/>").replace("/>=</auth/>", "/>"));
        assert!(node.read(client).starts_with("<challenge "), "an empty one");
        node.send(client, "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
        assert!(node.read(client).starts_with("<success "));
    }
}

#[test]
fn authorization_identity_is_one_of_the_addresses_at_the_domain() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let both = &["alice@here", "bob@here"];
    assert!(try_auth(&mut node, both, "bob@here").starts_with("<success "));
    assert_failed(&try_auth(&mut node, both, ""), "invalid-authzid");
    let alice = &["alice@here", "bob@there"];
    assert!(try_auth(&mut node, alice, "").starts_with("<success "));
    for other in ["bob@here", "bob@there", "here", "@"] {
        assert_failed(&try_auth(&mut node, alice, other), "invalid-authzid");
    }
    assert_failed(&try_auth(&mut node, alice, "alice@here\0"), "malformed-request");
}

#[test]
fn account_must_exist_and_be_enabled() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    assert_failed(&try_auth(&mut node, &["nobody@here"], ""), "not-authorized");
    node.change_account("alice", Write::SetDisabled { owner: bare("alice"), disabled: true });
    assert_failed(&try_auth(&mut node, &["alice@here"], ""), "account-disabled");
}

#[test]
fn failures_count_as_those_of_other_mechanisms_do() {
    let mut node = Node::with(1, |config| config.limits.login_attempts = 2);
    let (client, _) = certified(&mut node, 0, &["nobody@here"]);
    node.send(client, &auth(""));
    assert!(node.is_open(client));
    node.send(client, &auth("other@here"));
    assert!(node.read(client).contains("<policy-violation"));
    assert!(!node.is_open(client));
}

#[test]
fn sasl2_logs_in_binds_and_gives_a_token() {
    let mut node = Node::new(2);
    node.users(&["alice"]);
    for shard in 0..2 {
        let (client, _) = certified(&mut node, shard, &["alice@here"]);
        let request = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";
        let more = [agent("a"), bind2("Fox", ""), request.into()].concat();
        node.send(client, &authenticate_by("EXTERNAL", b"", &more));
        let answer = node.read(client);
        assert!(answer.starts_with("<success xmlns='urn:xmpp:sasl:2'>"), "{answer}");
        assert!(text(&answer, "authorization-identifier").starts_with("alice@here/Fox"));
        assert!(answer.contains("<token "), "{answer}");
    }
}

#[test]
fn sasl2_compares_the_identity_with_whom_the_stream_is_from() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let addresses = ["alice@here", "bob@here"].map(|it| BareJid::parse(it).unwrap());
    let facts = TlsFacts { addresses: addresses.into(), ..TlsFacts::default() };
    let client = node.connect_as(0, Some(facts));
    node.send(client, &HEADER.replace("to='here'", "to='here' from='alice@here'"));
    node.read(client);
    node.send(client, &authenticate_by("EXTERNAL", b"bob@here", ""));
    assert_failed(&node.read(client), "invalid-authzid");
    node.send(client, &authenticate_by("EXTERNAL", b"alice@here", ""));
    assert!(node.read(client).starts_with("<success "));
}
