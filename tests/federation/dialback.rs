//! XEP-0220 in its three roles, and those who abuse it.

use crate::certs;
use crate::peer::*;
use crate::rig::{Rig, Wish};
use corefire::stream::dialback::DialbackSecret;

const MESSAGE: &str =
    "<message from='y@b.example/1' to='x@a.example' id='m'><body>hi</body></message>";

/// B asks on a stream that it opened; gives the connections: B's, and ours to B on which the key is to be verified, with
/// the id of B's stream.
fn asked(
    rig: &mut Rig,
    key: &str,
) -> (corefire::federation::ConnId, corefire::federation::ConnId, String) {
    let theirs = comes(rig, certs::self_signed(B));
    let said = rig.said(theirs);
    let id = said.split(" id='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    rig.hear(theirs, &format!("<db:result from='{B}' to='{A}'>{key}</db:result>"));
    let (ours, said) = goes(rig, certs::self_signed(B), DIALBACK);
    assert_eq!(
        said,
        format!("<db:verify from='{A}' to='{B}' id='{id}'>{key}</db:verify>"),
        "nothing is asked for ourselves"
    );
    (theirs, ours, id)
}

#[test]
fn a_key_that_its_domain_confirms_opens_the_way() {
    let mut rig = Rig::new(A);
    let (theirs, ours, id) = asked(&mut rig, "key");
    rig.hear(ours, &format!("<db:verify from='{B}' to='{A}' id='{id}' type='valid'/>"));
    assert!(rig.said(theirs).contains("type='valid'"));
    rig.hear(theirs, MESSAGE);
    assert_eq!(rig.texts().len(), 1);
}

#[test]
fn a_key_that_its_domain_denies_ends_the_stream() {
    let mut rig = Rig::new(A);
    let (theirs, ours, id) = asked(&mut rig, "wrong");
    rig.hear(ours, &format!("<db:verify from='{B}' to='{A}' id='{id}' type='invalid'/>"));
    let said = rig.said(theirs);
    assert!(said.contains("type='invalid'"), "{said}");
    assert!(rig.has_closed(theirs));
    assert_eq!(rig.probe().pairs_refused, 1);
}

#[test]
fn answers_that_nobody_waits_for_mean_nothing() {
    let mut rig = Rig::new(A);
    let (theirs, ours, id) = asked(&mut rig, "key");
    // Of another stream, of another pair, on the wrong connection, and not asked at all.
    for (conn, text) in [
        (ours, format!("<db:verify from='{B}' to='{A}' id='other' type='valid'/>")),
        (ours, format!("<db:verify from='c.example' to='{A}' id='{id}' type='valid'/>")),
        (theirs, format!("<db:verify from='{B}' to='{A}' id='{id}' type='valid'/>")),
        (theirs, format!("<db:result from='{B}' to='{A}' type='valid'/>")),
    ] {
        rig.hear(conn, &text);
        assert!(!rig.said(theirs).contains("type='valid'"), "{text}");
    }
    rig.hear(theirs, MESSAGE);
    assert!(rig.got.is_empty());
    assert_eq!(rig.probe().pairs_by_dialback, 0);
}

#[test]
fn a_domain_that_cannot_be_asked_is_an_error_and_no_denial() {
    let mut rig = Rig::new(A);
    let theirs = comes(&mut rig, certs::self_signed(B));
    rig.said(theirs);
    rig.hear(theirs, &format!("<db:result from='{B}' to='{A}'>key</db:result>"));
    rig.advance(std::time::Duration::from_secs(31));
    let said = rig.said(theirs);
    assert!(said.contains("type='error'") && said.contains("remote-server-timeout"), "{said}");
    assert_eq!(rig.probe().pending_pairs, 0);
}

#[test]
fn keys_under_verification_are_bounded() {
    let mut few = crate::rig::config(A);
    few.limits.pending_pairs_per_stream = 2;
    few.limits.pending_pairs = 3;
    let mut rig = Rig::with(few, 1);
    let mut refused = 0;
    for stream in 0..2 {
        let conn = comes(&mut rig, certs::self_signed(B));
        rig.said(conn);
        for number in 0..4 {
            let from = format!("s{stream}n{number}.example");
            rig.hear(conn, &format!("<db:result from='{from}' to='{A}'>key</db:result>"));
        }
        refused += rig.said(conn).matches("resource-constraint").count();
    }
    assert_eq!((rig.probe().pending_pairs, refused), (3, 5));
}

#[test]
fn one_stream_carries_the_domains_of_its_certificate() {
    let mut rig = Rig::new("a.example rooms.a.example");
    let conn = comes(&mut rig, certs::valid("b.example rooms.b.example"));
    rig.said(conn);
    for (from, to) in [(B, A), ("rooms.b.example", A), (B, "rooms.a.example")] {
        rig.hear(conn, &format!("<db:result from='{from}' to='{to}'>any</db:result>"));
        assert!(rig.said(conn).contains("type='valid'"), "{from} {to}");
    }
    rig.hear(conn, "<message from='rooms.b.example' to='x@a.example'><body>1</body></message>");
    assert_eq!(rig.texts().len(), 1);
    rig.hear(
        conn,
        "<message from='rooms.b.example' to='x@rooms.a.example'><body>1</body></message>",
    );
    assert!(rig.said(conn).contains("<stream:error>"), "that pair was not asked for");
    assert!(rig.got.is_empty());
}

/// Authoritative.
#[test]
fn our_own_keys_are_known_again_and_no_others() {
    let mut rig = Rig::new(A);
    let secret = DialbackSecret::new(A.as_bytes());
    let conn = comes(&mut rig, certs::self_signed(B));
    rig.said(conn);
    let key = secret.key(B, A, "s1");
    for (id, key, to, verdict) in [
        ("s1", key.as_str(), A, "type='valid'"),
        ("s2", key.as_str(), A, "type='invalid'"),
        ("s1", "0123", A, "type='invalid'"),
        ("s1", key.as_str(), "z.example", "type='error'"),
    ] {
        rig.hear(conn, &format!("<db:verify from='{B}' to='{to}' id='{id}'>{key}</db:verify>"));
        let said = rig.said(conn);
        assert!(said.contains(verdict) || said.contains("host-unknown"), "{id} {to}: {said}");
    }
}

#[test]
fn a_peer_that_verifies_and_asks_nothing_gets_nothing() {
    let mut rig = Rig::new(A);
    let (theirs, ours, id) = asked(&mut rig, "key");
    rig.hear(ours, &format!("<db:verify from='{B}' to='{A}' id='{id}' type='valid'/>"));
    rig.said(theirs);
    // The connection serves for what follows.
    rig.message("x@a.example/1", "y@b.example", "m");
    let said = rig.said(ours);
    assert!(said.contains("<db:result from='a.example' to='b.example'>"), "{said}");
    assert!(!rig.wishes.iter().any(|wish| matches!(wish, Wish::Resolve(..))));
    rig.hear(ours, &format!("<db:result from='{B}' to='{A}' type='valid'/>"));
    assert!(rig.said(ours).contains("<body>m</body>"));
}
