//! Peers that break the rules, each played step by step: the right condition, nothing taken, memory bounded.

use crate::certs;
use crate::peer::*;
use crate::rig::{Rig, config};
use corefire::federation::trust::ChainProblem;
use corefire::federation::{Failure, Lost, Note, TlsVersion};
use std::time::Duration;

fn rig() -> Rig {
    Rig::new(A)
}

/// What the operator is told of a domain that is not reached.
fn unreachable(rig: &Rig) -> Option<(Failure, String)> {
    rig.notes.iter().rev().find_map(|note| match note {
        Note::Unreachable { failure, text, .. } => Some((*failure, text.to_string())),
        _ => None,
    })
}

const MESSAGE: &str =
    "<message from='y@b.example/1' to='x@a.example' id='m'><body>hi</body></message>";

#[test]
fn certificates_that_prove_nothing_are_not_offered_external() {
    let expired = ChainProblem::Expired { at_s: 0, intermediate: false };
    for tls in [
        certs::self_signed(B),
        certs::tls(B, Err(expired)),
        certs::tls(B, Err(ChainProblem::WeakKey { bits: 1024 })),
        certs::valid("other.example"),
    ] {
        let mut rig = rig();
        let conn = comes(&mut rig, tls);
        let said = rig.said(conn);
        assert!(!said.contains("EXTERNAL") && said.contains("dialback"), "{said}");
        let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>";
        rig.hear(conn, auth);
        let said = rig.said(conn);
        assert!(said.contains("<failure"), "{said}");
        rig.hear(conn, MESSAGE);
        assert!(rig.said(conn).contains("<stream:error>"));
        assert!(rig.got.is_empty());
    }
}

#[test]
fn certificates_are_demanded_where_the_policy_says_so() {
    let mut demanding = config(A);
    demanding.policy.require_certificate = true;
    let mut rig = Rig::with(demanding.clone(), 1);
    let conn = comes(&mut rig, certs::self_signed(B));
    let said = rig.said(conn);
    assert!(said.contains("<policy-violation") && said.contains("self-signed"), "{said}");
    assert!(rig.has_closed(conn));

    let mut rig = Rig::with(demanding, 1);
    rig.message("x@a.example/1", "y@b.example", "m");
    let (conn, said) = goes(&mut rig, certs::valid("other.example"), EXTERNAL);
    assert!(!said.contains("<auth") && !said.contains("<message"), "{said}");
    assert!(rig.has_closed(conn));
    let (failure, text) = unreachable(&rig).unwrap();
    assert_eq!(failure, Failure::Certificate);
    assert!(text.contains("other.example"), "{text}");
}

#[test]
fn old_tls_is_refused_where_the_policy_says_so() {
    let mut strict = config(A);
    strict.policy.oldest_tls = TlsVersion::Tls13;
    let mut rig = Rig::with(strict, 1);
    let old = || {
        let mut tls = certs::valid(B);
        tls.version = TlsVersion::Tls12;
        tls
    };
    let conn = comes(&mut rig, old());
    assert!(rig.said(conn).contains("<policy-violation"));
    rig.message("x@a.example/1", "y@b.example", "m");
    rig.wishes.retain(|wish| matches!(wish, crate::rig::Wish::Resolve(..)));
    rig.resolve(B, "b.example:5269");
    let conn = rig.connect(0, Some(old()));
    assert!(!rig.said(conn).contains("<message"));
    assert_eq!(unreachable(&rig).unwrap().0, Failure::Tls);
}

#[test]
fn starttls_that_was_stripped_ends_the_attempt() {
    let mut rig = rig();
    rig.message("x@a.example/1", "y@b.example", "m");
    rig.resolve(B, "b.example:5269");
    let conn = rig.connect(0, None);
    rig.said(conn);
    rig.hear(conn, &header(B, A, "s0"));
    rig.hear(conn, &features(DIALBACK));
    let said = rig.said(conn);
    assert!(!said.contains("db:result") && !said.contains("<message"), "{said}");
    assert!(rig.has_closed(conn));
    let (failure, text) = unreachable(&rig).unwrap();
    assert_eq!(failure, Failure::Tls);
    assert!(text.contains("STARTTLS"), "{text}");
}

#[test]
fn plain_text_before_the_handshake_is_never_taken() {
    // To us.
    let mut rig = rig();
    let conn = rig.accept("192.0.2.7:4000");
    rig.hear(conn, &header(B, A, ""));
    rig.said(conn);
    rig.hear(conn, &format!("{STARTTLS}{}", header(B, A, "")));
    assert!(rig.has_closed(conn), "bytes behind starttls");
    let conn = rig.accept("192.0.2.7:4001");
    rig.hear(conn, &header(B, A, ""));
    rig.hear(conn, STARTTLS);
    rig.hear(conn, MESSAGE);
    assert!(rig.has_closed(conn), "bytes in place of the handshake");
    // By whom we go to.
    rig.wishes.clear();
    rig.message("x@a.example/1", "y@b.example", "m");
    rig.resolve(B, "b.example:5269");
    let conn = rig.connect(0, None);
    rig.hear(conn, &header(B, A, "s0"));
    rig.hear(conn, &features(STARTTLS));
    rig.hear(conn, &format!("{PROCEED}{}{}", header(B, A, "s1"), features(EXTERNAL)));
    assert!(rig.has_closed(conn), "bytes behind proceed");
    assert!(rig.got.is_empty());
}

#[test]
fn stanzas_before_authentication_end_the_stream() {
    let mut rig = rig();
    let conn = comes(&mut rig, certs::self_signed(B));
    rig.said(conn);
    rig.hear(conn, MESSAGE);
    let said = rig.said(conn);
    assert!(said.contains("<stream:error>"), "{said}");
    assert!(rig.got.is_empty() && rig.has_closed(conn));
}

#[test]
fn stanzas_for_other_domains_end_the_stream() {
    for (from, to, condition) in [
        ("y@c.example/1", "x@a.example", "invalid-from"),
        ("y@a.example/1", "x@a.example", "invalid-from"),
        ("y@b.example/1", "x@z.example", "host-unknown"),
    ] {
        let mut rig = rig();
        let conn = authenticated(&mut rig);
        rig.hear(conn, MESSAGE);
        assert_eq!(rig.texts().len(), 1);
        rig.hear(conn, &format!("<message from='{from}' to='{to}'><body>x</body></message>"));
        let said = rig.said(conn);
        assert!(said.contains(condition), "{from} {to}: {said}");
        assert!(rig.got.is_empty() && rig.has_closed(conn));
    }
    let mut rig = rig();
    let conn = authenticated(&mut rig);
    rig.hear(conn, "<message from='y@b.example/1'><body>x</body></message>");
    assert!(rig.said(conn).contains("improper-addressing"));
    assert!(rig.got.is_empty());
}

#[test]
fn nested_and_large_xml_is_cut_off() {
    let nested =
        format!("<message from='y@b.example' to='x@a.example'>{}", "<a xmlns='u'>".repeat(100));
    let large =
        format!("<message from='y@b.example' to='x@a.example'><body>{}", "x".repeat(600_000));
    let bomb = "<!DOCTYPE x [<!ENTITY a 'aaaa'>]>".to_owned();
    for (text, condition) in
        [(nested, "policy-violation"), (large, "policy-violation"), (bomb, "restricted-xml")]
    {
        let mut rig = rig();
        let conn = authenticated(&mut rig);
        for part in text.as_bytes().chunks(16_384) {
            rig.hear(conn, std::str::from_utf8(part).unwrap());
        }
        let said = rig.said(conn);
        assert!(said.contains(condition), "{said}");
        assert!(rig.got.is_empty() && rig.has_closed(conn));
    }
    // Before authentication much less is taken.
    let mut rig = rig();
    let conn = comes(&mut rig, certs::self_signed(B));
    rig.said(conn);
    rig.hear(conn, &format!("<db:result from='b.example' to='a.example'>{}", "k".repeat(12_000)));
    assert!(rig.said(conn).contains("policy-violation"));
}

#[test]
fn a_peer_that_says_nothing_or_a_byte_a_minute_is_given_up() {
    // One that came.
    let mut rig = rig();
    let silent = rig.accept("192.0.2.7:4000");
    let slow = rig.accept("192.0.2.8:4000");
    for byte in header(B, A, "").chars().take(3) {
        rig.hear(slow, &byte.to_string());
        rig.advance(Duration::from_secs(14));
    }
    assert!(rig.has_closed(silent) && rig.has_closed(slow));
    // One that we went to.
    rig.message("x@a.example/1", "y@b.example", "m");
    rig.resolve(B, "b.example:5269");
    let conn = rig.connect(0, None);
    rig.advance(Duration::from_millis(30_300));
    assert!(rig.has_closed(conn));
    assert_eq!(unreachable(&rig).unwrap().0, Failure::Timeout);
    assert_eq!(rig.federation.connections(), 0);
}

#[test]
fn a_stanza_that_was_cut_off_is_not_taken() {
    let mut rig = rig();
    let conn = authenticated(&mut rig);
    rig.hear(conn, &MESSAGE[..40]);
    rig.lose(conn);
    assert!(rig.got.is_empty());
    // Half-closed: what came whole was taken.
    let conn = authenticated(&mut rig);
    rig.hear(conn, &format!("{MESSAGE}</stream:stream>"));
    assert_eq!(rig.texts().len(), 1);
    assert!(rig.said(conn).contains("</stream:stream>"));
    assert!(rig.has_closed(conn));
    assert_eq!(rig.federation.connections(), 0);
}

#[test]
fn a_flood_is_read_slower_and_not_dropped() {
    let mut slow = config(A);
    slow.limits.stanzas = corefire::base::limit::Rate::new(10, Duration::from_secs(1));
    let mut rig = Rig::with(slow, 1);
    let conn = authenticated(&mut rig);
    rig.hear(conn, &MESSAGE.repeat(50));
    let at_once = rig.texts().len();
    assert!(at_once < 20, "{at_once}");
    assert!(!rig.federation.is_reading(conn));
    rig.advance(Duration::from_secs(10));
    assert_eq!(at_once + rig.texts().len(), 50);
    assert!(rig.federation.is_reading(conn));
    assert!(!rig.has_closed(conn));
}

#[test]
fn shards_that_do_not_keep_up_stop_the_peer() {
    let mut few = config(A);
    few.limits.unhandled = 10;
    let mut rig = Rig::with(few, 1);
    rig.handles = false;
    let conn = authenticated(&mut rig);
    rig.hear(conn, "<enable xmlns='urn:xmpp:sm:3'/>");
    assert!(rig.said(conn).contains("<enabled"));
    rig.hear(conn, &format!("{}<r xmlns='urn:xmpp:sm:3'/>", MESSAGE.repeat(30)));
    assert_eq!(rig.texts().len(), 10);
    assert!(!rig.federation.is_reading(conn));
    rig.handles = true;
    rig.handle_all();
    rig.turn();
    assert_eq!(rig.texts().len(), 20);
    assert!(rig.federation.is_reading(conn));
    let said = rig.said(conn);
    assert!(said.contains("h='30'"), "{said}");
}

#[test]
fn domains_that_do_not_exist_are_answered_at_once() {
    use corefire::federation::Input;
    use corefire::federation::discovery::Problem;
    let mut rig = rig();
    rig.message("x@a.example/1", "y@b.example", "m1");
    rig.iq("x@a.example/1", "y@b.example", "q1");
    let Some(crate::rig::Wish::Resolve(conn, _)) = rig.wishes.pop_front() else { panic!() };
    let outcome = Err(Problem::NoSuchDomain { ttl_s: 60 });
    rig.give(Input::Resolved { conn, outcome, took: Duration::ZERO });
    // And so is what comes next, without another look-up.
    rig.message("x@a.example/1", "y@b.example", "m2");
    let texts = rig.texts();
    assert_eq!(texts.len(), 3);
    assert!(texts.iter().all(|text| text.contains("<remote-server-not-found")), "{texts:?}");
    assert!(rig.wishes.iter().all(|wish| matches!(wish, crate::rig::Wish::Abort(_))));
    assert_eq!(rig.handled, 3);
    rig.advance(Duration::from_secs(61));
    rig.message("x@a.example/1", "y@b.example", "m3");
    assert!(rig.wishes.iter().any(|wish| matches!(wish, crate::rig::Wish::Resolve(..))));
}

#[test]
fn a_storm_of_unknown_domains_is_bounded() {
    let mut small = config(A);
    small.limits.domains = 500;
    small.limits.dials = 8;
    let mut rig = Rig::with(small, 1);
    for number in 0..10_000 {
        rig.iq("x@a.example/1", &format!("y@d{number}.example"), "q");
    }
    let look_ups = rig.wishes.iter().filter(|it| matches!(it, crate::rig::Wish::Resolve(..)));
    assert_eq!(look_ups.count(), 8);
    let probe = rig.probe();
    assert_eq!((probe.domains, probe.dials), (500, 8));
    assert_eq!(probe.bounced_constraint, 9_500);
    assert_eq!(rig.texts().len(), 9_500);
    // Nobody waits for ever.
    rig.advance(Duration::from_secs(200));
    assert_eq!(rig.texts().len(), 500);
    assert_eq!(rig.probe().queued_stanzas, 0);
}

#[test]
fn strangers_of_one_network_are_bounded() {
    let mut small = config(A);
    small.limits.strangers_per_network = 3;
    let mut rig = Rig::with(small, 1);
    let conns: Vec<_> =
        (0..3).map(|port| rig.accept(&format!("192.0.2.7:{}", 4_000 + port))).collect();
    let peer = "192.0.2.9:4000".parse().unwrap();
    assert!(rig.federation.accept(rig.now, peer, false).is_none());
    let other = "198.51.100.1:4000".parse().unwrap();
    assert!(rig.federation.accept(rig.now, other, false).is_some());
    rig.give(corefire::federation::Input::Closed { conn: conns[0], why: Lost::Closed });
    assert!(rig.federation.accept(rig.now, peer, false).is_some());
}
