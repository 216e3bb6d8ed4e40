//! XEP-0198 on streams that go both ways, on ones that are taken up again, and on ones that end at once: no count is taken
//! for another, and little comes twice.

use crate::certs;
use crate::peer::*;
use crate::rig::{Rig, Wish};
use corefire::federation::discovery::Problem;
use corefire::federation::{ConnId, Input};
use std::time::Duration;

/// While A waits before its next attempt, B comes with a stream that goes both ways; gives what A says on it.
fn comes_both_ways(rig: &mut Rig) -> (ConnId, String) {
    let conn = comes(rig, certs::valid(B));
    assert!(rig.said(conn).contains("urn:xmpp:features:bidi"));
    rig.hear(conn, "<bidi xmlns='urn:xmpp:bidi'/>");
    rig.hear(conn, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>");
    assert_eq!(rig.said(conn), SUCCESS);
    rig.hear(conn, &header(B, A, ""));
    let said = rig.said(conn);
    (conn, said)
}

fn waits(rig: &mut Rig) {
    let Some(Wish::Resolve(conn, _)) = rig.wishes.pop_front() else { panic!("a look-up") };
    let outcome = Err(Problem::Busy);
    rig.give(Input::Resolved { conn, outcome, took: Duration::ZERO });
    rig.wishes.clear();
}

#[test]
fn an_acknowledgement_that_repeats_an_older_number_is_no_fault() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1", "m2", "m3"]);
    let (conn, _) = enabled(&mut rig);
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    rig.said(conn);
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='0'/>");
    assert_eq!(rig.said(conn), "");
    assert_eq!(rig.probe().unconfirmed, 1);
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='3'/>");
    assert_eq!(rig.probe().unconfirmed, 0);
    // One that is too high is.
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='4'/>");
    assert!(rig.said(conn).contains("handled-count-too-high"));
    assert!(rig.has_closed(conn));
}

/// One that only ever repeats what it said has not answered.
#[test]
fn older_numbers_are_no_answer() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1"]);
    let (conn, _) = enabled(&mut rig);
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    send(&mut rig, &["m2"]);
    assert!(rig.said(conn).ends_with("<r xmlns='urn:xmpp:sm:3'/>"));
    for _ in 0..6 {
        rig.advance(Duration::from_secs(9));
        rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='0'/>");
    }
    assert!(!rig.has_closed(conn));
    rig.advance(Duration::from_secs(7));
    assert!(rig.has_closed(conn));
}

#[test]
fn a_resumption_that_knows_less_than_was_acknowledged_sends_all_that_is_out() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1", "m2", "m3"]);
    let (conn, _) = enabled(&mut rig);
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    rig.lose(conn);
    again(&mut rig);
    let (conn, said) = managed(&mut rig);
    assert!(said.contains("<resume "), "{said}");
    rig.hear(conn, "<resumed xmlns='urn:xmpp:sm:3' previd='name' h='1'/>");
    let said = rig.said(conn);
    assert_eq!(bodies(&said), ["m3"]);
    assert!(!said.contains("error"), "{said}");
}

/// What waited goes out as soon as a stream that goes both ways is there. Its peer, which asks for acknowledgements at the
/// same moment, is granted them all the same.
#[test]
fn acknowledgements_are_granted_where_stanzas_are_out_already() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1", "m2"]);
    waits(&mut rig);
    let (conn, said) = comes_both_ways(&mut rig);
    assert_eq!(bodies(&said), ["m1", "m2"]);
    let ping = ping_id(&said);
    rig.hear(conn, "<enable xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(rig.said(conn), "<enabled xmlns='urn:xmpp:sm:3'/><r xmlns='urn:xmpp:sm:3'/>");
    // The ping is not what is waited for any more.
    rig.hear(conn, &format!("<iq type='result' id='{ping}' from='{B}' to='{A}'/>"));
    assert_eq!(rig.probe().unconfirmed, 2);
    send(&mut rig, &["m3"]);
    assert_eq!(bodies(&rig.said(conn)), ["m3"]);
    // The peer's count begins where it was granted.
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='0'/>");
    assert_eq!((rig.probe().unconfirmed, rig.handled), (1, 2));
    rig.advance(Duration::from_secs(2));
    assert_eq!(rig.said(conn), "<r xmlns='urn:xmpp:sm:3'/>");
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert_eq!(rig.probe().unconfirmed, 0);
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    assert!(rig.said(conn).contains("handled-count-too-high"));
}

/// A server that takes its own stream up again on which ours went, too, counts on where it was.
#[test]
fn a_stream_both_ways_that_is_taken_up_again_counts_on() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1"]);
    waits(&mut rig);
    let (first, _) = comes_both_ways(&mut rig);
    rig.hear(first, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let said = rig.said(first);
    let name = said.split(" id='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    send(&mut rig, &["m2", "m3"]);
    rig.said(first);
    rig.hear(first, "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    assert_eq!(rig.probe().unconfirmed, 0);
    rig.lose(first);
    let (second, _) = comes_both_ways(&mut rig);
    rig.hear(second, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{name}' h='2'/>"));
    assert!(rig.said(second).contains("<resumed "));
    send(&mut rig, &["m4"]);
    assert_eq!(bodies(&rig.said(second)), ["m4"]);
    rig.hear(second, "<a xmlns='urn:xmpp:sm:3' h='3'/>");
    assert_eq!((rig.said(second).as_str(), rig.probe().unconfirmed), ("", 0));
}

/// Whoever ends each stream before it has confirmed anything makes little come twice.
#[test]
fn a_connection_that_has_confirmed_nothing_carries_little() {
    let mut rig = Rig::new(A);
    let ids: Vec<String> = (0..500).map(|number| format!("m{number:03}")).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    send(&mut rig, &ids);
    let (conn, said) = enabled(&mut rig);
    assert_eq!(bodies(&said), ids[..100]);
    send(&mut rig, &["last"]);
    assert_eq!(rig.said(conn), "");
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert_eq!(bodies(&rig.said(conn)).len(), 401, "now it is known to be of use");
}
