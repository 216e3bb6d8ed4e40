//! Servers whose certificates nobody vouches for prove their names by calling back (XEP-0220).

use super::{met, pair, they_chat};
use crate::admin::ask;

#[test]
fn two_servers_with_self_signed_certificates_talk_over_dialback() {
    let ([alpha, beta], [one, other], [mut alice, mut bob]) = met(|side| side);
    for text in ["hello", "again"] {
        they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), text);
    }
    for (side, domain) in [(&alpha, "beta.test"), (&beta, "alpha.test")] {
        let listed = side.listed(domain);
        assert_eq!(listed["state"], "connected", "{listed}");
        assert!(listed["by"].as_str().unwrap().contains("dialback"), "{listed}");
    }
    let metrics = ask(&one, "/metrics", "").1;
    let has = |line: &str| metrics.lines().any(|one| one == line);
    assert!(has("corefire_federation_domains{state=\"connected\"} 1"), "{metrics}");
    assert!(!metrics.contains("beta.test"), "no domain of others is a label");
    one.stop();
    other.stop();
}

#[test]
fn requests_get_their_answers_and_unknown_accounts_an_error() {
    let [alpha, beta] = pair(|side| side);
    alpha.add_user("alice");
    beta.add_user("bob");
    let (one, other) = (alpha.start(), beta.start());
    let mut alice = alpha.log_in(&one, "alice");
    alice.send("<iq type='get' id='p1' to='beta.test'><ping xmlns='urn:xmpp:ping'/></iq>");
    let answer = alice.expect("</iq>");
    assert!(!answer.contains("type='error'"), "{answer}");
    alice.send(
        "<iq type='get' id='d1' to='beta.test'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>",
    );
    let answer = alice.expect("</iq>");
    assert!(answer.contains("from='beta.test'") && answer.contains("<identity"), "{answer}");
    alice.send("<message to='nobody@beta.test' id='m1' type='chat'><body>hi</body></message>");
    let answer = alice.expect("</message>");
    assert!(answer.contains("type='error'") && answer.contains("service-unavailable"), "{answer}");
    // Presence is seen over there, once it is allowed.
    let mut bob = beta.log_in(&other, "bob");
    alice.send("<presence to='bob@beta.test' type='subscribe'/>");
    bob.expect("type='subscribe'");
    bob.send("<presence to='alice@alpha.test' type='subscribed'/>");
    alice.expect("<presence from='bob@beta.test/r'");
    bob.send("<presence><show>away</show></presence>");
    alice.expect("<show>away</show>");
    drop(bob);
    one.stop();
    other.stop();
}

#[test]
fn several_executors_and_shards_share_the_domains() {
    let [alpha, beta] = pair(|side| side.set("federation.executors=3"));
    alpha.add_user("alice");
    for user in ["bob", "carol", "dave"] {
        beta.add_user(user);
    }
    let (one, other) = (alpha.start(), beta.start());
    let mut alice = alpha.log_in(&one, "alice");
    for user in ["bob", "carol", "dave"] {
        let mut friend = beta.log_in(&other, user);
        let jid = format!("{user}@beta.test");
        they_chat((&mut alice, "alice@alpha.test"), (&mut friend, &jid), user);
    }
    assert_eq!(alpha.listed("beta.test")["outgoing"], 1);
    one.stop();
    other.stop();
}
