//! XEP-0198 on streams that go both ways, on ones that are taken up again, and on ones that end at once: no count is taken
//! for another, and little comes twice.

use crate::certs;
use crate::peer::*;
use crate::rig::{Rig, Wish, config};
use corefire::federation::discovery::Problem;
use corefire::federation::{ConnId, Input};
use std::time::Duration;

fn core(index: u16, cores: u16) -> Rig {
    let mut config = config(A);
    (config.cores, config.index) = (cores, index);
    Rig::with(config, 1 + u64::from(index))
}

/// The cores get what they have for each other, until there is nothing more.
fn meet(cores: &mut [&mut Rig]) {
    let count = cores.len();
    let mut idle = false;
    while !std::mem::replace(&mut idle, true) {
        for (from, to) in (0..count * count).map(|pair| (pair / count, pair % count)) {
            let batch = std::mem::take(&mut cores[from].fx.outbox[1 + to]);
            if batch.frames() > 0 {
                idle = false;
                let (ring, sent) = (1 + u16::try_from(from).unwrap(), cores[to].now.mono);
                cores[to].give(Input::Frames { from: ring, sent, batch: &batch });
            }
        }
    }
}

/// B has a stream on this core, and sent one message that the shard has not handled; gives its name.
fn has_stream(rig: &mut Rig) -> (ConnId, String) {
    let conn = authenticated(rig);
    rig.handles = false;
    rig.hear(conn, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let said = rig.said(conn);
    let name = said.split(" id='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    rig.hear(
        conn,
        &format!(
            "<message type='chat' id='m1' from='x@{B}/1' to='y@{A}'><body>m1</body></message>"
        ),
    );
    assert_eq!(rig.texts().len(), 1);
    (conn, name.to_owned())
}

#[test]
fn a_stream_is_taken_up_on_whichever_core_its_peer_comes_back_to() {
    let (mut one, mut two, mut three) = (core(0, 3), core(1, 3), core(2, 3));
    let (first, name) = has_stream(&mut one);
    // The core has not noticed yet that the peer is gone.
    let second = authenticated(&mut two);
    two.hear(second, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{name}' h='0'/>"));
    meet(&mut [&mut one, &mut two, &mut three]);
    assert!(one.has_closed(first));
    assert_eq!(two.said(second), "", "the shard has the message still");
    one.handle_all();
    one.turn();
    meet(&mut [&mut one, &mut two, &mut three]);
    let resumed = |h| format!("<resumed xmlns='urn:xmpp:sm:3' h='{h}' previd='{name}'/>");
    assert_eq!(two.said(second), resumed(1));
    two.hear(
        second,
        &format!("<message type='chat' id='m2' from='x@{B}/1' to='y@{A}'><body>m2</body></message><r xmlns='urn:xmpp:sm:3'/>"),
    );
    assert_eq!(
        (two.said(second).as_str(), two.texts().len()),
        ("<a xmlns='urn:xmpp:sm:3' h='2'/>", 1)
    );
    // And again, by the same name.
    two.lose(second);
    let third = authenticated(&mut three);
    three.hear(third, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{name}' h='0'/>"));
    meet(&mut [&mut one, &mut two, &mut three]);
    assert_eq!(three.said(third), resumed(2));
    assert_eq!([one.probe(), two.probe(), three.probe()].map(|it| it.streams_resumed), [0, 1, 1]);
}

#[test]
fn a_stream_that_no_core_has_or_that_is_anothers_is_not_found() {
    let (mut one, mut two) = (core(0, 2), core(1, 2));
    let (_, name) = has_stream(&mut one);
    one.handle_all();
    one.turn();
    let stranger = comes(&mut two, certs::valid("other.example"));
    two.said(stranger);
    two.hear(stranger, "<db:result from='other.example' to='a.example'>key</db:result>");
    assert!(two.said(stranger).contains("type='valid'"));
    let (second, third) = (authenticated(&mut two), authenticated(&mut two));
    for (conn, name) in [(stranger, name), (second, "unknown".into()), (third, "x".repeat(3_000))] {
        let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{name}' h='0'/>");
        two.hear(conn, &format!("{resume}<enable xmlns='urn:xmpp:sm:3'/>"));
        let asks = two.fx.outbox.iter().any(|batch| batch.frames() > 0);
        assert_eq!(asks, name.len() < 100, "only for what may be a name of ours");
        meet(&mut [&mut one, &mut two]);
        let said = two.said(conn);
        assert!(said.contains("<item-not-found"), "{name}: {said}");
        assert!(said.ends_with("<enabled xmlns='urn:xmpp:sm:3'/>"), "what follows is read: {said}");
    }
    assert_eq!(two.probe().streams_resumed, 0);
}

/// The connection that wanted it is gone when it comes: the stream is not lost with that.
#[test]
fn a_stream_that_is_given_away_in_vain_can_be_taken_up_there() {
    let (mut one, mut two) = (core(0, 2), core(1, 2));
    let (first, name) = has_stream(&mut one);
    one.lose(first);
    one.handle_all();
    one.turn();
    let second = authenticated(&mut two);
    let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{name}' h='0'/>");
    two.hear(second, &resume);
    two.lose(second);
    meet(&mut [&mut one, &mut two]);
    let third = authenticated(&mut two);
    two.hear(third, &resume);
    assert!(two.said(third).contains("h='1'"));
    // Not for ever.
    two.lose(third);
    two.advance(Duration::from_secs(121));
    let fourth = authenticated(&mut two);
    two.hear(fourth, &resume);
    meet(&mut [&mut one, &mut two]);
    assert!(two.said(fourth).contains("<item-not-found"));
}

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
