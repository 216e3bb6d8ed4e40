//! Servers that are dead, or silent, or come back: what clients of ours notice of that, and what is kept.

use super::{Side, addresses, met, pair, they_chat, wait_until};
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// Short times, so that a test sees what takes minutes.
fn hasty(side: Side) -> Side {
    side.set("federation.limits.negotiation_s=1")
        .set("federation.limits.connect_s=1")
        .set("federation.limits.wait_s=2")
        .set("federation.patience_s=2")
}

#[test]
fn a_server_that_accepts_and_says_nothing_harms_nobody() {
    let [one, silent] = addresses();
    let listener = TcpListener::bind(SocketAddr::from((silent, 5269))).unwrap();
    let route = format!("{silent}:5269");
    let alpha = hasty(Side::new("alpha.test", one)).knows("silent.test", &route);
    alpha.add_user("alice");
    let node = alpha.start();
    let mut alice = alpha.log_in(&node, "alice");
    alice.send("<message to='x@silent.test' id='m' type='chat'><body>hi</body></message>");
    let mut held = vec![listener.accept().unwrap()];
    let began = Instant::now();
    alice.ping_at("alpha.test", "1");
    assert!(began.elapsed() < Duration::from_secs(1), "local requests do not wait");
    std::thread::spawn(move || {
        while let Ok(next) = listener.accept() {
            held.push(next);
        }
    });
    let answer = alice.expect("</message>");
    assert!(answer.contains("remote-server-timeout"), "{answer}");
    node.stop();
}

#[test]
fn a_domain_that_the_dns_says_nothing_of_is_given_up_in_time() {
    let [one] = addresses();
    // Nobody listens there.
    let alpha = hasty(Side::new("alpha.test", one)).set("federation.dns=[\"127.0.0.1:9\"]");
    alpha.add_user("alice");
    let node = alpha.start();
    let mut alice = alpha.log_in(&node, "alice");
    alice.send("<message to='x@unknown.test' id='m' type='chat'><body>hi</body></message>");
    alice.ping_at("alpha.test", "1");
    let answer = alice.expect("</message>");
    assert!(answer.contains("remote-server-timeout"), "{answer}");
    node.stop();
}

/// R1 towards other servers: what was acknowledged to the client is delivered, though its server was killed and the other
/// one not there.
#[test]
fn a_message_survives_kill_9_while_the_other_server_is_down() {
    let [alpha, beta] = pair(|side| side);
    alpha.add_user("alice");
    beta.add_user("bob");
    let one = alpha.start();
    let mut alice = alpha.log_in(&one, "alice");
    for number in 0..3 {
        alice.send(&format!(
            "<message to='bob@beta.test' id='m{number}' type='chat'><body>kept {number}</body></message>"
        ));
    }
    alice.send("<r xmlns='urn:xmpp:sm:3'/>");
    // With the presence of the login.
    alice.expect("<a xmlns='urn:xmpp:sm:3' h='4'/>");
    one.kill();
    let other = beta.start();
    let one = alpha.start();
    let mut bob = beta.log_in(&other, "bob");
    for number in 0..3 {
        bob.expect(&format!("<body>kept {number}</body>"));
    }
    wait_until("nothing waits any more", || alpha.listed("beta.test")["stored"] == 0);
    let mut alice = alpha.log_in(&one, "alice");
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "after");
    one.stop();
    other.stop();
}

#[test]
fn a_server_that_is_started_again_is_reached_again() {
    let ([_alpha, beta], [one, other], [mut alice, mut bob]) = met(|side| side);
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "hello");
    drop(bob);
    other.kill();
    alice.send("<message to='bob@beta.test' type='chat'><body>while away</body></message>");
    let other = beta.start();
    let mut bob = beta.log_in(&other, "bob");
    bob.expect("<body>while away</body>");
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "again");
    one.stop();
    other.stop();
}

#[test]
fn an_address_in_use_is_one_line() {
    let [one] = addresses();
    let taken = TcpListener::bind(SocketAddr::from((one, 5269))).unwrap();
    let alpha = Side::new("alpha.test", one);
    let line = alpha.place.refused(alpha.place.program(&["serve"]));
    assert!(line.contains("federation.listen") && line.contains("in use"), "{line}");
    drop(taken);
}

/// The first two of the domain's servers take the connection: one says nothing, one does not even shake hands.
#[test]
fn servers_of_a_domain_that_are_silent_hold_up_the_next_for_a_part_of_the_time() {
    let [one, other, silent, mute] = addresses();
    let held =
        [(silent, 5269), (mute, 5270)].map(|at| TcpListener::bind(SocketAddr::from(at)).unwrap());
    let beta = Side::new("beta.test", other).knows("alpha.test", &format!("{one}:5269"));
    let route = format!("{silent}:5269 tls://{mute}:5270 {}", beta.route());
    let alpha = Side::new("alpha.test", one)
        .knows("beta.test", &route)
        .set("federation.limits.negotiation_s=16")
        .set("federation.limits.connect_s=8");
    alpha.add_user("alice");
    beta.add_user("bob");
    let (one, other) = (alpha.start(), beta.start());
    let mut alice = alpha.log_in(&one, "alice");
    let mut bob = beta.log_in(&other, "bob");
    let began = Instant::now();
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "hello");
    let took = began.elapsed();
    // A fourth of each; all of it would be 24 seconds.
    assert!((Duration::from_secs(5)..Duration::from_secs(14)).contains(&took), "{took:?}");
    drop(held);
    one.stop();
    other.stop();
}

/// Another server that has stopped to read, with all buffers on the way to it full.
#[test]
fn a_node_ends_in_time_though_another_server_does_not_listen() {
    let ([alpha, _beta], [one, other], [mut alice, mut bob]) = met(|side| side);
    they_chat((&mut alice, "alice@alpha.test"), (&mut bob, "bob@beta.test"), "hello");
    other.signal(libc::SIGSTOP);
    let body = "x".repeat(100_000);
    wait_until("nothing more leaves", || {
        for _ in 0..10 {
            alice.send(&format!(
                "<message to='bob@beta.test' type='chat'><body>{body}</body></message>"
            ));
        }
        alice.ping_at("alpha.test", "sent");
        let listed = alpha.listed("beta.test");
        let number = |name: &str| listed[name].as_u64().unwrap();
        number("unconfirmed") > 0 && number("queued") > number("unconfirmed")
    });
    drop(alice);
    let took = one.stop();
    assert!(took < Duration::from_secs(6), "{took:?}");
    other.signal(libc::SIGCONT);
    drop(bob);
    other.stop();
}
