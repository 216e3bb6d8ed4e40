//! Tokens for quick logins (FAST, XEP-0484): asked for at a login, good for one message, replaced, ended.

use crate::harness::*;
use crate::sasl2::{agent, authenticate, authenticate_by, bind2, logged_in, opened, text};
use corefire::store::Write;
use corefire::stream::TlsFacts;
use corefire::stream::sasl::{decode_payload, initiator, new_credentials, responder};
use std::time::Duration;

const NONE: &str = "HT-SHA-256-NONE";
const DAY: Duration = Duration::from_secs(86_400);

fn ask(mechanism: &str) -> String {
    format!("<request-token xmlns='urn:xmpp:fast:0' mechanism='{mechanism}'/>")
}

/// A login with the password that asks for a token.
fn token_for(node: &mut Node, user: &str, client: &str, mechanism: &str) -> String {
    let (_, answer) = logged_in(node, user, &[agent(client), ask(mechanism)].concat());
    attr(answer.split("<token ").nth(1).unwrap_or_else(|| panic!("{answer}")), "token").to_owned()
}

/// `more`: attributes of `<fast/>`.
fn quick(user: &str, client: &str, token: &str, more: &str) -> String {
    let fast = format!("<fast xmlns='urn:xmpp:fast:0'{more}/>");
    let message = initiator(user, token, b"");
    authenticate_by(NONE, &message, &[agent(client), fast].concat())
}

fn try_quick(node: &mut Node, user: &str, client: &str, token: &str, more: &str) -> String {
    let conn = opened(node, user);
    node.send(conn, &quick(user, client, token, more));
    node.read(conn)
}

fn assert_refused(answer: &str, condition: &str) {
    assert!(answer.starts_with("<failure xmlns='urn:xmpp:sasl:2'>"), "{answer}");
    assert!(answer.contains(&format!("<{condition} ")), "{condition}: {answer}");
}

fn node() -> Node {
    let mut node = Node::with(1, |config| config.limits.token_holders = 2);
    node.users(&["alice", "bob"]);
    node
}

#[test]
fn token_logs_in_with_one_message_and_the_server_proves_that_it_knows_it() {
    let mut node = node();
    let token = token_for(&mut node, "alice", "a", NONE);
    let client = opened(&mut node, "alice");
    let login =
        quick("alice", "a", &token, "").replace("</auth", &format!("{}</auth", bind2("Fox", "")));
    node.send(client, &[login, "<presence/>".into(), chat("bob@here", "quick")].concat());
    let answer = node.read(client);
    let data = decode_payload(text(&answer, "additional-data")).unwrap();
    assert_eq!(data, responder(&token, b""));
    assert!(answer.contains("alice@here/Fox/") && answer.contains("<bound "), "{answer}");
    assert!(!answer.contains("<token"), "it is new enough: {answer}");
    assert_eq!(node.logged("bob"), 1);
}

#[test]
fn feature_lists_the_mechanisms_of_the_channel() {
    let mut node = node();
    let facts = TlsFacts { exporter: Some([5; 32]), ..TlsFacts::default() };
    for (facts, listed) in [(facts, "HT-SHA-256-EXPR"), (TlsFacts::default(), NONE)] {
        let client = node.connect_as(0, Some(facts));
        node.send(client, HEADER);
        let features = node.read(client);
        let fast = "<fast xmlns='urn:xmpp:fast:0'><mechanism>";
        assert!(features.contains(&format!("{fast}{listed}</mechanism>")), "{features}");
    }
    let answer = {
        let client = opened(&mut node, "alice");
        let login = authenticate_by("HT-SHA-256-EXPR", &initiator("alice", "x", b""), &agent("a"));
        node.send(client, &login);
        node.read(client)
    };
    assert_refused(&answer, "invalid-mechanism");
}

#[test]
fn bound_token_is_good_on_its_channel_by_its_mechanism_alone() {
    let mut node = node();
    let bound = |seed: u8| TlsFacts { exporter: Some([seed; 32]), ..TlsFacts::default() };
    let name = "HT-SHA-256-EXPR";
    let token = token_for(&mut node, "alice", "a", name);
    let mut login = |mechanism: &str, facts: TlsFacts, data: &[u8]| {
        let client = node.connect_as(0, Some(facts));
        node.send(client, HEADER);
        node.read(client);
        let more = [agent("a"), "<fast xmlns='urn:xmpp:fast:0'/>".into()].concat();
        let message = initiator("alice", &token, data);
        node.send(client, &authenticate_by(mechanism, &message, &more));
        node.read(client)
    };
    assert!(login(name, bound(5), &[5; 32]).starts_with("<success"));
    assert_refused(&login(name, bound(6), &[5; 32]), "not-authorized");
    assert_refused(&login(NONE, bound(5), b""), "not-authorized");
}

#[test]
fn wrong_tokens_look_alike_whoever_they_are_for() {
    let mut node = node();
    let token = token_for(&mut node, "alice", "a", NONE);
    let others = token_for(&mut node, "bob", "a", NONE);
    let mut answers = Vec::new();
    for (user, client, token) in [
        ("alice", "a", "guess"),
        ("alice", "b", &*token),
        ("alice", "a", &*others),
        ("nobody", "a", &*token),
    ] {
        answers.push(try_quick(&mut node, user, client, token, ""));
    }
    assert_refused(&answers[0], "not-authorized");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert!(try_quick(&mut node, "alice", "a", &token, "").starts_with("<success"));
    // Without a word on who it is, or on that it is a token.
    for (what, without) in [
        (agent("a"), quick("alice", "a", &token, "").replace(&agent("a"), "")),
        (
            "fast".into(),
            quick("alice", "a", &token, "").replace("<fast xmlns='urn:xmpp:fast:0'/>", ""),
        ),
    ] {
        let client = opened(&mut node, "alice");
        node.send(client, &without);
        let answer = node.read(client);
        assert!(answer.contains("<malformed-request "), "{what}: {answer}");
    }
}

#[test]
fn token_is_replaced_in_time_and_the_old_one_is_good_until_the_new_one_is_used() {
    let mut node = node();
    let old = token_for(&mut node, "alice", "a", NONE);
    node.advance(DAY * 6);
    let answer = try_quick(&mut node, "alice", "a", &old, "");
    let new = attr(answer.split("<token ").nth(1).unwrap(), "token").to_owned();
    // The client may not have heard of it.
    let answer = try_quick(&mut node, "alice", "a", &old, "");
    assert!(answer.starts_with("<success"), "{answer}");
    let newer = attr(answer.split("<token ").nth(1).unwrap(), "token").to_owned();
    assert_refused(&try_quick(&mut node, "alice", "a", &new, ""), "not-authorized");
    assert!(try_quick(&mut node, "alice", "a", &newer, "").starts_with("<success"));
    assert_refused(&try_quick(&mut node, "alice", "a", &old, ""), "not-authorized");
    node.advance(DAY * 22);
    assert_refused(&try_quick(&mut node, "alice", "a", &newer, ""), "credentials-expired");
}

#[test]
fn count_must_rise_where_it_is_told() {
    let mut node = node();
    let token = token_for(&mut node, "alice", "a", NONE);
    let mut login = |more: &str| try_quick(&mut node, "alice", "a", &token, more);
    assert!(login(" count='5'").starts_with("<success"));
    assert_refused(&login(" count='5'"), "not-authorized");
    assert_refused(&login(" count='4'"), "not-authorized");
    assert!(login(" count='6'").starts_with("<success"));
    assert!(login("").starts_with("<success"));
    assert!(login(" count='x'").contains("<bad-format "));
}

#[test]
fn client_can_end_its_token_and_a_new_password_ends_all() {
    let mut node = node();
    let token = token_for(&mut node, "alice", "a", NONE);
    let answer = try_quick(&mut node, "alice", "a", &token, " invalidate='true'");
    assert!(answer.starts_with("<success") && !answer.contains("<token"), "{answer}");
    assert_refused(&try_quick(&mut node, "alice", "a", &token, ""), "not-authorized");

    let token = token_for(&mut node, "alice", "a", NONE);
    let credentials = new_credentials("another", ITERATIONS, &mut |salt| salt.fill(8)).unwrap();
    node.change_account("alice", Write::SetCredentials { owner: bare("alice"), credentials });
    assert_refused(&try_quick(&mut node, "alice", "a", &token, ""), "not-authorized");
}

#[test]
fn clients_with_tokens_are_bounded_and_the_one_idle_for_longest_goes() {
    let mut node = node();
    let first = token_for(&mut node, "alice", "a", NONE);
    let second = token_for(&mut node, "alice", "b", NONE);
    assert!(try_quick(&mut node, "alice", "a", &first, "").starts_with("<success"));
    let third = token_for(&mut node, "alice", "c", NONE);
    assert_refused(&try_quick(&mut node, "alice", "b", &second, ""), "not-authorized");
    // They are in the store: the account leaves memory.
    node.advance(Duration::from_secs(400));
    assert_eq!(node.accounts(), 0);
    for (client, token) in [("a", first), ("c", third)] {
        assert!(try_quick(&mut node, "alice", client, &token, "").starts_with("<success"));
    }
}

#[test]
fn token_is_told_when_it_is_stored_and_not_if_it_is_not() {
    let mut node = node();
    let client = opened(&mut node, "alice");
    let login = authenticate("alice", &[agent("a"), ask(NONE)].concat());
    node.hold_store();
    node.send(client, &login);
    assert_eq!(node.read(client), "");
    node.free_store();
    assert!(node.read(client).contains("<token "));
    // A store that is out of order costs the token, not the login.
    node.store_fails = true;
    let client = opened(&mut node, "alice");
    node.send(client, &login);
    let answer = node.read(client);
    assert!(answer.starts_with("<success") && !answer.contains("<token"), "{answer}");
}
