//! What a peer that comes to us by itself changes for what waits for it, and how long the targets of a domain may be silent.

use crate::certs;
use crate::peer::*;
use crate::rig::{Rig, Wish, config};
use corefire::base::hash::hash64;
use corefire::cluster::placement::federation_core;
use corefire::federation::control::{Answered, Request, State};
use corefire::federation::discovery::Problem;
use corefire::federation::{ConnId, Input, Limits};
use std::time::Duration;

/// The next look-up comes to nothing.
fn fails(rig: &mut Rig, problem: Problem) {
    let at = rig.wishes.iter().position(|wish| matches!(wish, Wish::Resolve(..)));
    let at = at.expect("a look-up is wanted");
    let Some(Wish::Resolve(conn, _)) = rig.wishes.remove(at) else { unreachable!() };
    rig.give(Input::Resolved { conn, outcome: Err(problem), took: Duration::ZERO });
    rig.wishes.retain(|wish| matches!(wish, Wish::Resolve(..)));
}

/// So often in a row that the next attempt is a minute away or more.
fn fails_often(rig: &mut Rig) {
    for _ in 0..9 {
        while rig.wishes.is_empty() {
            rig.advance(Duration::from_secs(1));
        }
        fails(rig, Problem::Busy);
    }
    rig.advance(Duration::from_secs(40));
    assert!(rig.wishes.is_empty(), "it waits");
}

fn state(rig: &mut Rig) -> State {
    match rig.ask(Request::List { after: None, limit: 10 }) {
        Some(Answered::List { domains, .. }) => domains[0].state,
        other => panic!("{other:?}"),
    }
}

fn wants_look_up(rig: &Rig) -> bool {
    rig.wishes.iter().any(|wish| matches!(wish, Wish::Resolve(..)))
}

#[test]
fn a_domain_that_waits_is_tried_at_once_when_its_peer_comes_in() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1"]);
    fails_often(&mut rig);
    assert_eq!(state(&mut rig), State::Broken);
    // Whoever only says that it is this domain changes nothing.
    let stranger = comes(&mut rig, certs::self_signed("other.example"));
    rig.said(stranger);
    assert!(!wants_look_up(&rig));
    authenticated(&mut rig);
    assert!(wants_look_up(&rig));
    // What need not be stored is no longer answered at once.
    rig.iq("x@a.example/1", "y@b.example", "q1");
    assert_eq!(rig.texts(), [""; 0]);
    rig.wishes.retain(|wish| matches!(wish, Wish::Resolve(..)));
    let (_, said) = enabled(&mut rig);
    assert!(bodies(&said) == ["m1"] && said.contains("id='q1'"), "{said}");
}

#[test]
fn a_domain_that_is_alive_and_not_reached_is_not_tried_whenever_its_peer_comes() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1"]);
    fails_often(&mut rig);
    authenticated(&mut rig);
    fails(&mut rig, Problem::Busy);
    for _ in 0..5 {
        authenticated(&mut rig);
        assert!(!wants_look_up(&rig));
    }
    // The wait is what it was before.
    rig.advance(Duration::from_secs(29));
    assert!(!wants_look_up(&rig));
    rig.advance(Duration::from_secs(2));
    authenticated(&mut rig);
    assert!(wants_look_up(&rig));
}

#[test]
fn a_domain_that_is_proved_by_dialback_is_tried_at_once_for_all_that_waits() {
    let mut rig = Rig::new("a.example c.example");
    rig.message("x@c.example/1", "y@b.example", "m1");
    fails_often(&mut rig);
    // The certificate speaks for the domain that asks: it is believed without asking back.
    let conn = comes(&mut rig, certs::valid(B));
    rig.said(conn);
    rig.hear(conn, "<db:result from='b.example' to='a.example'>key</db:result>");
    assert!(rig.said(conn).contains("type='valid'"));
    assert!(!wants_look_up(&rig), "how it is reached from one domain says nothing of another");
    rig.hear(conn, "<db:result from='b.example' to='c.example'>key</db:result>");
    assert!(wants_look_up(&rig));
}

/// The kernel gave the connection to another core than the one that deals with the domain.
#[test]
fn a_domain_is_tried_at_once_whichever_core_its_peer_comes_to() {
    let index = federation_core(hash64(B.as_bytes()), 2).unwrap();
    let core = |index: u16| {
        let mut config = config(A);
        (config.cores, config.index) = (2, index);
        Rig::with(config, 1 + u64::from(index))
    };
    let (mut waits, mut hears) = (core(index), core(1 - index));
    send(&mut waits, &["m1"]);
    fails_often(&mut waits);
    authenticated(&mut hears);
    let batch = std::mem::take(&mut hears.fx.outbox[usize::from(1 + index)]);
    assert_eq!(batch.frames(), 1);
    let (from, sent) = (1 + (1 - index), waits.now.mono);
    waits.give(Input::Frames { from, sent, batch: &batch });
    assert!(wants_look_up(&waits));
}

/// The domain has two targets, and the first one takes the connection.
fn first_target_takes(rig: &mut Rig) -> ConnId {
    send(rig, &["m1"]);
    rig.resolve(B, "one.example:5269 two.example:5269");
    let conn = rig.connect(0, None);
    assert!(rig.said(conn).contains("<stream:stream"));
    conn
}

#[test]
fn a_target_that_takes_the_connection_and_is_silent_holds_up_the_next_for_a_part_of_the_time() {
    let part = Limits::default().negotiation / 4;
    let mut rig = Rig::new(A);
    let silent = first_target_takes(&mut rig);
    rig.advance(part - Duration::from_millis(100));
    assert!(!rig.has_closed(silent));
    rig.advance(Duration::from_millis(200));
    assert!(rig.has_closed(silent));
    let next = rig.connect(1, None);
    // The last one has all of it.
    rig.advance(part * 3);
    assert!(!rig.has_closed(next));
    rig.advance(part);
    assert!(rig.has_closed(next));
    // Who is slow, and no more, is reached at last: each attempt gives it twice the time.
    rig.advance(Duration::from_secs(1));
    rig.wishes.retain(|wish| matches!(wish, Wish::Resolve(..)));
    let slow = first_target_takes(&mut rig);
    rig.advance(part + Duration::from_secs(1));
    assert!(!rig.has_closed(slow));
}

#[test]
fn a_target_that_speaks_has_all_the_time_to_verify_us() {
    let mut rig = Rig::new(A);
    let conn = first_target_takes(&mut rig);
    rig.hear(conn, &header(B, A, "s0"));
    rig.hear(conn, &features(STARTTLS));
    rig.hear(conn, PROCEED);
    rig.shake(certs::self_signed(B));
    rig.hear(conn, &header(B, A, "s1"));
    rig.hear(conn, &features(DIALBACK));
    assert!(rig.said(conn).contains("<db:result"));
    rig.advance(Limits::default().negotiation - Duration::from_secs(1));
    assert!(!rig.has_closed(conn));
}

#[test]
fn the_time_until_a_peer_is_known_is_measured() {
    let mut rig = Rig::new(A);
    let conn = comes(&mut rig, certs::valid(B));
    rig.said(conn);
    rig.advance(Duration::from_millis(40));
    let auths = |rig: &mut Rig| {
        let latencies = rig.federation.take_latencies(Default::default());
        let (_, counts) = latencies.stages().find(|(stage, _)| stage.name() == "auth").unwrap();
        (counts.len(), counts.histogram().map_or(0, |histogram| histogram.max()))
    };
    assert_eq!(auths(&mut rig), (0, 0));
    rig.hear(conn, "<db:result from='b.example' to='a.example'>key</db:result>");
    rig.hear(conn, "<db:result from='b.example' to='c.example'>key</db:result>");
    let (count, max) = auths(&mut rig);
    assert_eq!(count, 1, "once for each connection");
    assert!((40_000_000..60_000_000).contains(&max), "{max} ns");
}

#[test]
fn the_oldest_version_of_tls_holds_for_the_domain_whoever_opened_the_stream() {
    let mut strict = config(A);
    let policy = corefire::federation::Policy {
        oldest_tls: corefire::federation::TlsVersion::Tls13,
        ..strict.policy
    };
    strict.policies.insert(B.into(), policy);
    let old = |domains: &str| corefire::federation::PeerTls {
        version: corefire::federation::TlsVersion::Tls12,
        ..certs::valid(domains)
    };
    // Of direct TLS: the stream's header is the first that tells whose it is.
    let mut rig = Rig::with(strict.clone(), 1);
    let peer = "192.0.2.7:4000".parse().unwrap();
    let conn = rig.federation.accept(rig.now, peer, true).unwrap();
    rig.secured(conn, old(B));
    rig.hear(conn, &header(B, A, ""));
    let said = rig.said(conn);
    assert!(said.contains("<policy-violation") && !said.contains("<stream:features>"), "{said}");
    assert!(rig.has_closed(conn));

    // A stream of another domain, of which less is demanded, does not speak for it, either.
    let mut rig = Rig::with(strict, 1);
    let conn = rig.federation.accept(rig.now, peer, true).unwrap();
    rig.secured(conn, old("other.example b.example"));
    rig.hear(conn, &header("other.example", A, ""));
    assert!(rig.said(conn).contains("<stream:features>"));
    rig.hear(conn, "<db:result from='other.example' to='a.example'>key</db:result>");
    assert!(rig.said(conn).contains("type='valid'"));
    rig.hear(conn, "<db:result from='b.example' to='a.example'>key</db:result>");
    let said = rig.said(conn);
    assert!(said.contains("<policy-violation") && !said.contains("type='valid'"), "{said}");
    rig.hear(
        conn,
        "<message from='y@b.example/1' to='x@a.example' id='m'><body>hi</body></message>",
    );
    assert!(rig.got.is_empty());
}
