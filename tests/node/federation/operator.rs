//! What operators can do and see: check, list, close, block, unblock, and a configuration that is read again.

use super::{Side, addresses, authority, met, pair, they_chat, wait_until};

#[test]
fn a_check_walks_step_by_step_to_a_server_that_is_well() {
    let [alpha, beta] = pair(|side| side);
    let (one, other) = (alpha.start(), beta.start());
    let told = alpha.place.run(&["federation", "check", "beta.test"]);
    // Nobody vouches for its certificate, and dialback is allowed.
    for (step, verdict) in [("dns", "ok"), ("tcp", "ok"), ("tls", "weak"), ("auth", "ok")] {
        let line = told.lines().find(|line| line.contains(&format!(" {step} ")));
        assert!(line.is_some_and(|line| line.starts_with(verdict)), "{step}: {told}");
    }
    assert!(told.ends_with("beta.test can be reached\n"), "{told}");
    one.stop();
    other.stop();
}

#[test]
fn a_check_says_which_step_is_wrong_and_why() {
    let ca = authority("somebody's");
    let [one, other, nobody] = addresses();
    let beta = Side::new("beta.test", other);
    let alpha = Side::new("alpha.test", one)
        .knows("beta.test", &beta.route())
        .knows("nobody.test", &format!("{nobody}:5269"))
        .trusting(&ca)
        .set("federation.block=[\"blocked.test\"]")
        .set("federation.domains.\"beta.test\".require_certificate=true");
    let (one, other) = (alpha.start(), beta.start());
    let check = |domain: &str| {
        let output = alpha.place.program(&["federation", "check", domain]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{domain}");
        let told = String::from_utf8(output.stdout).unwrap();
        let why = String::from_utf8(output.stderr).unwrap();
        assert!(why.contains(&format!("{domain} cannot be reached")), "{why}");
        let wrong = told.lines().find(|line| line.starts_with("wrong ")).unwrap_or_default();
        wrong.to_owned()
    };
    let line = check("nobody.test");
    assert!(line.contains(" tcp ") && line.contains(&nobody.to_string()), "{line}");
    let line = check("beta.test");
    assert!(line.contains("self-signed"), "{line}");
    let line = check("blocked.test");
    assert!(line.contains(" policy "), "{line}");
    one.stop();
    other.stop();
}

#[test]
fn a_blocked_domain_is_refused_both_ways_and_stays_so_after_a_restart() {
    let [alpha, beta] = pair(|side| side);
    alpha.add_user("alice");
    alpha.add_user("anna");
    beta.add_user("bob");
    let (one, other) = (alpha.start(), beta.start());
    let mut alice = alpha.log_in(&one, "alice");
    let mut bob = beta.log_in(&other, "bob");
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "hello");
    let told = alpha.place.run(&["federation", "block", "Beta.Test"]);
    assert!(told.starts_with("beta.test is blocked; closed "), "{told}");
    let told = alpha.place.run(&["federation", "block", "beta.test"]);
    assert_eq!(told, "beta.test was blocked already\n");
    drop(alice);
    one.stop();
    let one = alpha.start();
    let mut anna = alpha.log_in(&one, "anna");
    anna.send("<message to='bob@beta.test' id='m' type='chat'><body>hi</body></message>");
    let answer = anna.expect("</message>");
    assert!(answer.contains("remote-server-not-found"), "{answer}");
    bob.send("<message to='anna@alpha.test' id='b' type='chat'><body>let me in</body></message>");
    anna.ping_at("alpha.test", "1");
    assert!(!anna.is_answered_within(std::time::Duration::from_millis(500)));
    let told = alpha.place.run(&["federation", "unblock", "beta.test"]);
    assert_eq!(told, "beta.test is blocked no more\n");
    they_chat((&mut anna, "anna@alpha.test"), (&mut bob, "bob@beta.test"), "welcome");
    one.stop();
    other.stop();
}

#[test]
fn closed_connections_come_up_again_when_they_are_needed() {
    let ([alpha, _beta], [one, other], [mut alice, mut bob]) = met(|side| side);
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "hello");
    let told = alpha.place.run(&["federation", "close", "beta.test"]);
    assert!(told.starts_with("beta.test: closed ") && !told.contains(" 0 "), "{told}");
    wait_until("the connections are gone", || {
        let listed = alpha.listed("beta.test");
        listed["outgoing"] == 0 && listed["incoming"] == 0
    });
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "again");
    one.stop();
    other.stop();
}

#[test]
fn a_node_without_federation_says_so() {
    let place = crate::node::Place::new();
    let node = place.start();
    let output = place.program(&["federation", "list"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("federation.enabled"), "{told}");
    node.stop();
}

#[test]
fn routes_and_policies_are_taken_over_by_a_reload() {
    let [one, other] = addresses();
    let (alpha, beta) = (Side::new("alpha.test", one), Side::new("beta.test", other));
    let (to_alpha, to_beta) = (alpha.route(), beta.route());
    let beta = beta.knows("alpha.test", &to_alpha);
    let file = alpha.place.path("corefire.toml");
    std::fs::write(&file, "").unwrap();
    alpha.add_user("alice");
    beta.add_user("bob");
    let one = alpha.place.start_as(alpha.place.program(&["serve", "--config", "corefire.toml"]));
    let other = beta.start();
    let mut alice = alpha.log_in(&one, "alice");
    let mut bob = beta.log_in(&other, "bob");
    std::fs::write(&file, format!("[federation.routes]\n\"beta.test\" = \"{to_beta}\"\n")).unwrap();
    alpha.place.run(&["reload"]);
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "found");
    let text = format!(
        "[federation]\nblock = [\"beta.test\"]\n[federation.routes]\n\"beta.test\" = \"{to_beta}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    alpha.place.run(&["reload"]);
    alice.send("<message to='bob@beta.test' id='m' type='chat'><body>hi</body></message>");
    let answer = alice.expect("</message>");
    assert!(answer.contains("remote-server-not-found"), "{answer}");
    one.stop();
    other.stop();
}
