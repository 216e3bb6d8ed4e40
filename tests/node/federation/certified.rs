//! Servers that prove their names by certificates (XEP-0178), and what becomes of bad ones.

use super::{Side, addresses, authority, met, they_chat};
use crate::admin::ask;
use rcgen::{CertificateParams, date_time_ymd};

#[test]
fn two_servers_of_one_authority_need_nothing_but_their_certificates() {
    let ca = authority("everybody's");
    let ([alpha, _beta], [one, other], [mut alice, mut bob]) = met(|side| {
        let domain = side.domain;
        side.certified(domain, Some(&ca), |_| ())
            .trusting(&ca)
            .set("federation.require_certificate=true")
            .set("federation.dialback=false")
            .set("federation.min_tls=\"1.3\"")
    });
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "hello");
    let listed = alpha.listed("beta.test");
    assert!(listed["by"].as_str().unwrap().contains("certificate"), "{listed}");
    one.stop();
    other.stop();
}

#[test]
fn direct_tls_works_both_ways() {
    let ca = authority("everybody's");
    let [one, other] = addresses();
    let side = |domain: &'static str, address, peer: &str, at| {
        Side::new(domain, address)
            .knows(peer, &format!("tls://{at}:5270"))
            .certified(domain, Some(&ca), |_| ())
            .trusting(&ca)
            .set("federation.require_certificate=true")
            // Nobody listens for anything else.
            .set("federation.listen=[]")
    };
    let alpha = side("alpha.test", one, "beta.test", other);
    let beta = side("beta.test", other, "alpha.test", one);
    alpha.add_user("alice");
    beta.add_user("bob");
    let (one, other) = (alpha.start(), beta.start());
    let mut alice = alpha.log_in(&one, "alice");
    let mut bob = beta.log_in(&other, "bob");
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "hello");
    one.stop();
    other.stop();
}

/// Of two servers, `beta.test` shows a certificate that is bad in one way; `alpha.test` is fine.
fn with_bad_certificate(
    name: &str,
    is_signed: bool,
    change: impl FnOnce(&mut CertificateParams),
    policy: &str,
) -> [Side; 2] {
    let ca = authority("everybody's");
    let [one, other] = addresses();
    let (alpha, beta) = (Side::new("alpha.test", one), Side::new("beta.test", other));
    let (to_alpha, to_beta) = (alpha.route(), beta.route());
    let alpha = alpha
        .knows("beta.test", &to_beta)
        .certified("alpha.test", Some(&ca), |_| ())
        .trusting(&ca)
        .set(policy)
        .set("federation.limits.wait_s=2")
        .set("federation.patience_s=2");
    let beta = beta
        .knows("alpha.test", &to_alpha)
        .certified(name, is_signed.then_some(&ca), change)
        .trusting(&ca);
    alpha.add_user("alice");
    beta.add_user("bob");
    [alpha, beta]
}

/// The message comes back, and the log says why.
#[track_caller]
pub(super) fn is_refused([alpha, beta]: [Side; 2], words: &str) {
    let (mut one, other) = (alpha.start(), beta.start());
    let mut alice = alpha.log_in(&one, "alice");
    alice.send("<message to='bob@beta.test' id='m' type='chat'><body>hi</body></message>");
    let line = one.wait_for_log("cannot be reached");
    assert!(line.contains("beta.test") && line.contains(words), "{line} / {words}");
    let answer = alice.expect("</message>");
    assert!(answer.contains("type='error'") && answer.contains("remote-server"), "{answer}");
    // Nor is the other one let in.
    let mut bob = beta.log_in(&other, "bob");
    bob.send("<message to='alice@alpha.test' type='chat'><body>from bob</body></message>");
    alice.ping_at("alpha.test", "1");
    assert!(!alice.is_answered_within(std::time::Duration::from_millis(500)));
    one.stop();
    drop(other);
}

/// Dialback proves the name.
#[track_caller]
fn is_taken_by_dialback([alpha, beta]: [Side; 2]) {
    let (one, other) = (alpha.start(), beta.start());
    let mut alice = alpha.log_in(&one, "alice");
    let mut bob = beta.log_in(&other, "bob");
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "hello");
    // What alpha has found of beta; beta knows alpha by its certificate.
    let metrics = ask(&one, "/metrics", "").1;
    let has = |line: &str| metrics.lines().any(|one| one == line);
    assert!(has("corefire_federation_pairs_total{by=\"dialback\"} 1"), "{metrics}");
    assert!(has("corefire_federation_pairs_total{by=\"certificate\"} 0"), "{metrics}");
    one.stop();
    other.stop();
}

const REQUIRED: &str = "federation.domains.\"beta.test\".require_certificate=true";
const EITHER: &str = "federation.require_certificate=false";

fn expired(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(2002, 1, 1);
}

#[test]
fn expired_certificate_is_refused_where_one_is_required() {
    is_refused(with_bad_certificate("beta.test", true, expired, REQUIRED), "expired");
}

#[test]
fn expired_certificate_leaves_dialback() {
    is_taken_by_dialback(with_bad_certificate("beta.test", true, expired, EITHER));
}

#[test]
fn self_signed_certificate_is_refused_where_one_is_required() {
    is_refused(with_bad_certificate("beta.test", false, |_| (), REQUIRED), "self-signed");
}

#[test]
fn self_signed_certificate_leaves_dialback() {
    is_taken_by_dialback(with_bad_certificate("beta.test", false, |_| (), EITHER));
}

#[test]
fn certificate_of_another_name_is_refused_where_one_is_required() {
    is_refused(with_bad_certificate("gamma.test", true, |_| (), REQUIRED), "gamma.test");
}

#[test]
fn certificate_of_another_name_leaves_dialback() {
    is_taken_by_dialback(with_bad_certificate("gamma.test", true, |_| (), EITHER));
}

/// Each domain of a node shows its own certificate, as server (SNI) and as client.
#[test]
fn domains_of_one_server_have_certificates_of_their_own() {
    let ca = authority("everybody's");
    let [one, other] = addresses();
    let (alpha, beta) = (Side::new("alpha.test", one), Side::new("beta.test", other));
    let (to_alpha, to_beta) = (alpha.route(), beta.route());
    let mut alpha = alpha
        .set("domains=[\"alpha.test\", \"second.test\"]")
        .knows("beta.test", &to_beta)
        .certified("alpha.test", Some(&ca), |_| ())
        .trusting(&ca)
        .set("federation.require_certificate=true");
    let key = rcgen::KeyPair::generate().unwrap();
    let second = CertificateParams::new(["second.test".to_owned()]).unwrap();
    let second = second.signed_by(&key, &ca).unwrap();
    std::fs::write(alpha.place.path("second.pem"), second.pem()).unwrap();
    std::fs::write(alpha.place.path("second.key"), key.serialize_pem()).unwrap();
    alpha.place.add("tls.hosts.\"second.test\".certificate=second.pem");
    alpha.place.add("tls.hosts.\"second.test\".key=second.key");
    let beta = beta
        .knows("alpha.test", &to_alpha)
        .knows("second.test", &to_alpha)
        .certified("beta.test", Some(&ca), |_| ())
        .trusting(&ca)
        .set("federation.require_certificate=true");
    for user in ["alice@alpha.test", "anna@second.test"] {
        alpha.place.run(&["user", "add", user, "--password", "secret"]);
    }
    beta.add_user("bob");
    let (first, peer) = (alpha.start(), beta.start());
    let second = Side { domain: "second.test", ..alpha };
    let mut anna = second.log_in(&first, "anna");
    let alpha = Side { domain: "alpha.test", ..second };
    let mut alice = alpha.log_in(&first, "alice");
    let mut bob = beta.log_in(&peer, "bob");
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "first");
    they_chat((&mut anna, "anna@second.test"), (&mut bob, "bob@beta.test"), "second");
    they_chat((&mut bob, "bob@beta.test"), (&mut anna, "anna@second.test"), "back");
    // Between domains of one server nothing leaves it.
    they_chat((&mut alice, "alice@alpha.test"), (&mut anna, "anna@second.test"), "inside");
    let listed = alpha.place.run(&["federation", "list"]);
    assert!(!listed.contains("second.test"), "{listed}");
    first.stop();
    peer.stop();
}
