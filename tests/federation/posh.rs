//! Domains that name the certificates of their servers themselves, over HTTPS (RFC 7711): with both ends of a stream.

use crate::certs;
use crate::peer::*;
use crate::rig::{Rig, Wish, config};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use corefire::federation::control::{Answered, Request, Step};
use corefire::federation::posh::{Fingerprints, Lookup, LookupStep, PoshProblem};
use corefire::federation::trust::{ChainProblem, Dane};
use corefire::federation::{ConnId, Input};
use corefire::federation::{Failure, Lost, PeerTls};
use std::time::Duration;

const AUTH: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>";

/// An actor that asks, and takes nothing but certificates.
fn strict() -> Rig {
    let mut config = config(A);
    config.posh = true;
    config.policy.require_certificate = true;
    config.policy.dialback = false;
    Rig::with(config, 1)
}

/// A document with a certificate of this digest.
fn naming(digest: [u8; 32]) -> Result<Fingerprints, PoshProblem> {
    let digest = BASE64.encode(digest);
    let text = format!(r#"{{"fingerprints":[{{"sha-256":"{digest}"}}],"expires":600}}"#);
    match Lookup::begin(B)?.answered(200, None, text.as_bytes()) {
        LookupStep::Done(outcome) => outcome,
        LookupStep::Ask => unreachable!("it is a document"),
    }
}

/// One that names the certificate of `certs`.
fn right() -> Result<Fingerprints, PoshProblem> {
    naming([1; 32])
}

fn asks(rig: &Rig) -> bool {
    rig.wishes.iter().any(|wish| matches!(wish, Wish::Posh(..)))
}

/// A has shaken hands with B, whose features are there and are not read yet.
fn gone(rig: &mut Rig, tls: PeerTls) -> ConnId {
    let (conn, said) = goes(rig, tls, EXTERNAL);
    assert_eq!(said, "", "nothing is said to a peer that has not proved who it is");
    assert!(!rig.federation.is_reading(conn));
    conn
}

#[test]
fn a_server_that_its_domain_names_is_believed() {
    for tls in [certs::self_signed(B), certs::valid("host.example")] {
        let mut rig = strict();
        rig.message("x@a.example/1", "y@b.example", "m");
        let conn = gone(&mut rig, tls);
        assert_eq!(rig.fetched(B, right()), conn);
        assert!(rig.said(conn).contains("mechanism='EXTERNAL'"));
        assert!(rig.federation.is_reading(conn));
        assert_eq!(rig.probe().posh_proved, 1);
    }
}

#[test]
fn a_server_that_its_domain_does_not_name_is_not() {
    for (outcome, words) in [
        (naming([9; 32]), "names other certificates"),
        (Err(PoshProblem::Absent), "no document"),
        (Err(PoshProblem::Timeout), "in time"),
    ] {
        let mut rig = strict();
        rig.message("x@a.example/1", "y@b.example", "m");
        let conn = gone(&mut rig, certs::valid("host.example"));
        rig.fetched(B, outcome);
        assert!(!rig.said(conn).contains("EXTERNAL"));
        assert!(rig.has_closed(conn));
        let notes = format!("{:?}", rig.notes);
        assert!(notes.contains(words) && notes.contains("host.example"), "{notes} / {words}");
        let probe = rig.probe();
        assert_eq!(probe.failures[Failure::Certificate as usize], 1);
        assert_eq!(probe.posh_proved, 0);
        assert_eq!(probe.posh_refused + probe.posh_absent + probe.posh_failed, 1);
    }
}

#[test]
fn the_domain_is_not_asked_where_that_could_not_help() {
    let expired = ChainProblem::Expired { at_s: 1, intermediate: false };
    let mut forged = certs::self_signed(B);
    forged.certificate.as_mut().unwrap().dane = Dane::Contradicts;
    let bare = PeerTls { certificate: None, ..certs::valid(B) };
    for tls in [certs::valid(B), certs::tls(B, Err(expired)), forged, bare] {
        let mut rig = strict();
        rig.message("x@a.example/1", "y@b.example", "m");
        goes(&mut rig, tls, EXTERNAL);
        assert!(!asks(&rig));
    }
    // Nor where the operator does not want it.
    let mut rig = Rig::new(A);
    rig.message("x@a.example/1", "y@b.example", "m");
    goes(&mut rig, certs::self_signed(B), DIALBACK);
    assert!(!asks(&rig));
    let _theirs = comes(&mut rig, certs::self_signed(B));
    assert!(!asks(&rig));
}

#[test]
fn dialback_is_left_where_no_document_helps() {
    let mut config = config(A);
    config.posh = true;
    let mut rig = Rig::with(config, 1);
    rig.message("x@a.example/1", "y@b.example", "m");
    let (conn, said) = goes(&mut rig, certs::self_signed(B), DIALBACK);
    assert_eq!(said, "");
    rig.fetched(B, Err(PoshProblem::Absent));
    assert!(rig.said(conn).contains("<db:result"));
}

#[test]
fn a_peer_that_comes_waits_for_its_document_and_is_believed_by_it() {
    let mut rig = strict();
    let conn = comes(&mut rig, certs::valid("host.example"));
    assert_eq!(rig.said(conn), "", "no features yet");
    assert!(!rig.federation.is_reading(conn));
    // What it says meanwhile is read behind the answer.
    rig.hear(conn, AUTH);
    assert_eq!(rig.said(conn), "");
    rig.fetched(B, right());
    let said = rig.said(conn);
    assert!(said.contains("EXTERNAL") && said.contains("<success"), "{said}");
    rig.hear(conn, &header(B, A, ""));
    assert!(rig.said(conn).contains("<stream:features>"));
    assert!(!asks(&rig), "once for a connection");
    rig.hear(
        conn,
        "<message from='y@b.example/1' to='x@a.example' id='m'><body>hi</body></message>",
    );
    assert_eq!(rig.texts().len(), 1);
    // It speaks for no other domain than that of the document.
    rig.hear(conn, "<db:result from='c.example' to='a.example'>key</db:result>");
    assert!(rig.said(conn).contains("not-authorized"));
}

#[test]
fn a_peer_that_comes_and_is_not_named_is_told_so() {
    let mut rig = strict();
    let conn = comes(&mut rig, certs::valid("host.example"));
    rig.fetched(B, naming([9; 32]));
    let said = rig.said(conn);
    assert!(said.contains("policy-violation") && said.contains("POSH"), "{said}");
    assert!(rig.has_closed(conn));
    assert_eq!(rig.probe().posh_refused, 1);
}

#[test]
fn an_answer_that_nobody_waits_for_changes_nothing() {
    let mut rig = strict();
    let conn = comes(&mut rig, certs::self_signed(B));
    rig.lose(conn);
    rig.fetched(B, right());
    assert_eq!((rig.federation.connections(), rig.probe().posh_proved), (0, 0));
    // A second one for a connection that has gone on.
    let conn = comes(&mut rig, certs::self_signed(B));
    rig.fetched(B, Err(PoshProblem::Absent));
    let took = Duration::ZERO;
    let outcome = right().map(std::sync::Arc::new);
    rig.give(Input::Posh { conn, domain: B.into(), outcome, took });
    assert_eq!(rig.probe().posh_proved, 0);
    assert!(!rig.said(conn).contains("EXTERNAL"));
}

#[test]
fn a_peer_that_waits_too_long_is_closed() {
    let mut rig = strict();
    let conn = comes(&mut rig, certs::self_signed(B));
    rig.advance(Duration::from_secs(31));
    rig.said(conn);
    assert!(rig.has_closed(conn));
    assert_eq!(rig.federation.connections(), 0);
    let outcome = right().map(std::sync::Arc::new);
    rig.give(Input::Posh { conn, domain: B.into(), outcome, took: Duration::ZERO });
    rig.give(Input::Closed { conn, why: Lost::Reset });
}

/// A target that is silent gets a part of the time where there are others; one whose domain is asked is not silent.
#[test]
fn a_server_is_not_given_up_for_the_time_that_its_document_takes() {
    let mut rig = strict();
    rig.message("x@a.example/1", "y@b.example", "m");
    rig.resolve(B, "tls:one.example:5270 tls:two.example:5270");
    let conn = rig.connect(0, Some(certs::self_signed(B)));
    rig.advance(Duration::from_secs(14));
    assert!(!rig.has_closed(conn));
    rig.fetched(B, right());
    rig.hear(conn, &header(B, A, "s1"));
    rig.hear(conn, &features(EXTERNAL));
    assert!(rig.said(conn).contains("mechanism='EXTERNAL'"));
    // For ever it is not waited for.
    let mut rig = strict();
    rig.message("x@a.example/1", "y@b.example", "m");
    rig.resolve(B, "tls:one.example:5270 tls:two.example:5270");
    let conn = rig.connect(0, Some(certs::self_signed(B)));
    rig.advance(Duration::from_secs(31));
    rig.said(conn);
    assert!(rig.has_closed(conn));
    let next = rig.connect(1, Some(certs::valid(B)));
    assert_ne!(next, conn);
}

#[test]
fn what_was_met_on_the_way_to_a_document_is_not_for_the_peer() {
    let mut rig = strict();
    let conn = comes(&mut rig, certs::self_signed(B));
    rig.fetched(B, Err(PoshProblem::unreachable("192.0.2.9:443: connection refused")));
    let said = rig.said(conn);
    assert!(said.contains("no way to the document") && !said.contains("192.0.2.9"), "{said}");
}

#[test]
fn a_check_tells_what_the_document_says() {
    for (outcome, sound, words) in
        [(right(), true, "names it"), (naming([9; 32]), false, "other certificates")]
    {
        let mut rig = strict();
        rig.ask(Request::Check { domain: B.into(), own: None });
        let conn = gone(&mut rig, certs::self_signed(B));
        rig.fetched(B, outcome);
        if sound {
            rig.hear(conn, SUCCESS);
            rig.hear(conn, &header(B, A, "s2"));
            rig.hear(conn, &features(""));
        }
        let Some(Answered::Checked(check)) = rig.answers.values().next().cloned() else { panic!() };
        assert_eq!(check.failure, (!sound).then_some(Failure::Certificate), "{check:?}");
        let step = check.steps.iter().find(|step| step.step == Step::Posh).unwrap();
        assert_eq!(step.sound, sound);
        assert!(step.text.contains(words), "{step:?}");
        assert_eq!(step.took, Duration::from_millis(4));
    }
}
