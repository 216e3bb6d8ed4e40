//! Who has what: XEP-0198 with a peer that the test plays, pings with one that does not speak it, and what becomes of what
//! was not confirmed when a stream is lost.

use crate::certs;
use crate::peer::*;
use crate::rig::{Rig, Wish};
use corefire::federation::Input;
use corefire::federation::discovery::Problem;
use corefire::frame::Kind;
use std::time::Duration;

#[test]
fn acknowledged_messages_are_handled_and_leave_no_row() {
    let mut rig = Rig::new(A);
    rig.stores = false;
    send(&mut rig, &["m1", "m2", "m3"]);
    let (conn, said) = enabled(&mut rig);
    assert_eq!(bodies(&said), ["m1", "m2", "m3"]);
    assert!(said.ends_with("<r xmlns='urn:xmpp:sm:3'/>"), "{said}");
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    assert_eq!(rig.handled, 2);
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='3'/>");
    assert_eq!(rig.handled, 3);
    rig.stores = true;
    rig.turn();
    let rig = rig.restarted();
    assert!(rig.wishes.is_empty(), "nothing is left to be sent");
}

#[test]
fn more_acknowledged_than_sent_ends_the_stream() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1"]);
    let (conn, _) = enabled(&mut rig);
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='2'/>");
    assert!(rig.said(conn).contains("handled-count-too-high"));
    assert!(rig.has_closed(conn));
    again(&mut rig);
    let (_, said) = managed(&mut rig);
    assert!(said.contains("<resume"), "nothing was confirmed by it: {said}");
}

#[test]
fn a_stream_that_is_taken_up_again_sends_what_the_peer_lacks_and_no_more() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1", "m2", "m3"]);
    let (conn, _) = enabled(&mut rig);
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    rig.iq("x@a.example/1", "y@b.example/2", "q1");
    assert!(rig.said(conn).contains("<iq "));
    rig.lose(conn);
    send(&mut rig, &["m4"]);
    again(&mut rig);
    let (conn, said) = managed(&mut rig);
    assert!(said.starts_with("<resume ") && said.contains("previd='name'"), "{said}");
    rig.hear(conn, "<resumed xmlns='urn:xmpp:sm:3' previd='name' h='2'/>");
    let said = rig.said(conn);
    assert_eq!(bodies(&said), ["m3", "m4"]);
    assert!(said.contains("id='q1'"), "the peer never had it: {said}");
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='5'/>");
    assert_eq!(rig.handled, rig.frames_sent());
    assert!(rig.got.is_empty());
}

#[test]
fn what_cannot_be_taken_up_goes_out_once_more_but_for_requests() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1", "m2"]);
    rig.iq("x@a.example/1", "y@b.example/2", "q1");
    let (conn, _) = enabled(&mut rig);
    rig.lose(conn);
    again(&mut rig);
    let (conn, _) = managed(&mut rig);
    rig.hear(
        conn,
        "<failed xmlns='urn:xmpp:sm:3' h='1'><item-not-found \
         xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>",
    );
    let texts = rig.texts();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("q1") && texts[0].contains("<remote-server-timeout"));
    rig.hear(conn, "<enabled xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(bodies(&rig.said(conn)), ["m2"]);
    // A second loss: it comes back.
    rig.lose(conn);
    let texts = rig.texts();
    assert_eq!(texts.len(), 1);
    assert!(texts[0].contains("id='m2'") && texts[0].contains("<remote-server-timeout"));
    assert_eq!(rig.handled, rig.frames_sent());
}

#[test]
fn a_request_that_was_lost_with_its_connection_is_answered_by_the_resumption() {
    let mut rig = Rig::new(A);
    let message =
        format!("<message type='chat' id='m1' from='x@{B}/1' to='y@{A}'><body>m1</body></message>");
    let first = authenticated(&mut rig);
    rig.handles = false;
    rig.hear(first, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let said = rig.said(first);
    let name = said.split(" id='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    rig.hear(first, &format!("{message}<r xmlns='urn:xmpp:sm:3'/>"));
    assert_eq!(rig.texts().len(), 1);
    rig.lose(first);
    let second = authenticated(&mut rig);
    rig.hear(second, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{name}' h='0'/>"));
    // The shard has it still.
    assert_eq!(rig.said(second), "");
    rig.handle_all();
    rig.turn();
    let said = rig.said(second);
    assert!(said.starts_with("<resumed ") && said.contains("h='1'"), "{said}");
    rig.hear(second, "<r xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(rig.said(second), "<a xmlns='urn:xmpp:sm:3' h='1'/>");
}

#[test]
fn a_ping_behind_each_batch_is_the_barrier() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1", "m2"]);
    let conn = goes_by_dialback(&mut rig);
    let said = rig.said(conn);
    assert_eq!(bodies(&said), ["m1", "m2"]);
    let first = ping_id(&said);
    // What comes while it is out waits for the next one.
    send(&mut rig, &["m3"]);
    let said = rig.said(conn);
    assert_eq!(bodies(&said), ["m3"]);
    assert!(!said.contains("urn:xmpp:ping"), "{said}");
    // The answer comes on a stream of the peer's; wrong ones mean nothing.
    let theirs = authenticated(&mut rig);
    for id in ["x", &first[..first.len() - 1]] {
        rig.hear(theirs, &format!("<iq from='{B}' to='{A}' id='{id}' type='result'/>"));
    }
    rig.texts();
    let before = rig.probe().unconfirmed;
    assert_eq!(before, 3);
    rig.hear(theirs, &format!("<iq from='{B}' to='{A}' id='{first}' type='error'/>"));
    assert!(rig.got.iter().all(|got| got.kind != Kind::Iq), "it is ours and goes nowhere");
    assert_eq!(rig.probe().unconfirmed, 1);
    let second = ping_id(&rig.said(conn));
    assert_ne!(first, second);
    rig.hear(theirs, &format!("<iq from='{B}' to='{A}' id='{second}' type='result'/>"));
    assert_eq!(rig.probe().unconfirmed, 0);
    assert_eq!(rig.handled, 3);
}

#[test]
fn a_ping_whose_answer_got_lost_is_sent_again_by_the_same_name() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1"]);
    let conn = goes_by_dialback(&mut rig);
    let first = ping_id(&rig.said(conn));
    rig.advance(Duration::from_secs(2));
    assert_eq!(rig.said(conn), "");
    send(&mut rig, &["m2"]);
    rig.advance(Duration::from_secs(2));
    let said = rig.said(conn);
    assert_eq!((bodies(&said), ping_id(&said)), (vec!["m2"], first.clone()));
    // It is the barrier that it was, and both may be answered.
    let theirs = authenticated(&mut rig);
    let answer = format!("<iq from='{B}' to='{A}' id='{first}' type='result'/>");
    rig.hear(theirs, &answer);
    assert_eq!(rig.probe().unconfirmed, 1);
    let second = ping_id(&rig.said(conn));
    assert_ne!(first, second);
    rig.hear(theirs, &answer);
    assert_eq!(rig.probe().unconfirmed, 1);
    // An answer in time leaves nothing to be asked.
    rig.hear(theirs, &format!("<iq from='{B}' to='{A}' id='{second}' type='result'/>"));
    assert_eq!(rig.probe().unconfirmed, 0);
    rig.advance(Duration::from_secs(10));
    assert_eq!(rig.said(conn), "");
}

#[test]
fn a_peer_that_does_not_answer_the_ping_is_lost() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1"]);
    let conn = goes_by_dialback(&mut rig);
    assert_eq!(bodies(&rig.said(conn)), ["m1"]);
    rig.advance(Duration::from_secs(61));
    assert!(rig.has_closed(conn));
    again(&mut rig);
    let conn = goes_by_dialback(&mut rig);
    assert_eq!(bodies(&rig.said(conn)), ["m1"], "once more");
}

/// Its own way to us may be shut for minutes, as that of servers is that back off.
#[test]
fn a_peer_whose_answers_do_not_come_confirms_by_the_end_of_its_stream() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1"]);
    let conn = goes_by_dialback(&mut rig);
    rig.said(conn);
    rig.advance(Duration::from_secs(4));
    send(&mut rig, &["m2"]);
    assert_eq!(bodies(&rig.said(conn)), ["m2"]);
    rig.advance(Duration::from_secs(3));
    let said = rig.said(conn);
    assert!(said.ends_with("</stream:stream>"), "{said}");
    // Nothing is said behind it, and the peer has time.
    send(&mut rig, &["m3"]);
    rig.advance(Duration::from_secs(20));
    assert_eq!((rig.said(conn).as_str(), rig.has_closed(conn)), ("", false));
    assert_eq!(rig.probe().unconfirmed, 2);
    rig.hear(conn, "</stream:stream>");
    assert_eq!(rig.said(conn), "");
    assert!(rig.has_closed(conn));
    assert_eq!(rig.probe().unconfirmed, 0);
    again(&mut rig);
    let conn = goes_by_dialback(&mut rig);
    assert_eq!(bodies(&rig.said(conn)), ["m3"]);
}

#[test]
fn no_other_end_of_a_stream_confirms_anything() {
    let end = "</stream:stream>";
    let error = "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    for (after, leaves, end) in [
        (7, true, ""),
        (7, true, &*format!("{error}{end}")),
        // Ours is on its way still, and before it was sent.
        (7, false, end),
        (2, true, end),
    ] {
        let mut rig = Rig::new(A);
        send(&mut rig, &["m1"]);
        let conn = goes_by_dialback(&mut rig);
        rig.said(conn);
        rig.advance(Duration::from_secs(after));
        if leaves {
            assert_eq!(rig.said(conn).ends_with("</stream:stream>"), after == 7);
        }
        rig.hear(conn, end);
        rig.lose(conn);
        again(&mut rig);
        let conn = goes_by_dialback(&mut rig);
        assert_eq!(bodies(&rig.said(conn)), ["m1"], "{end}");
    }
}

#[test]
fn a_message_to_a_dead_domain_survives_the_end_of_the_process() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1", "m2"]);
    assert_eq!(rig.handled, 2, "the store has them");
    let mut rig = rig.restarted();
    // What is newer waits for them.
    send(&mut rig, &["m3"]);
    let (conn, said) = enabled(&mut rig);
    assert_eq!(bodies(&said), ["m1", "m2", "m3"]);
    rig.hear(conn, "<a xmlns='urn:xmpp:sm:3' h='3'/>");
    let rig = rig.restarted();
    assert!(rig.wishes.is_empty());
}

#[test]
fn many_rows_are_read_page_by_page_and_go_first() {
    let mut rig = Rig::new(A);
    let ids: Vec<String> = (0..350).map(|number| format!("m{number:03}")).collect();
    for id in &ids {
        rig.message("x@a.example/1", "y@b.example", id);
    }
    let mut rig = rig.restarted();
    send(&mut rig, &["new"]);
    let (conn, mut said) = enabled(&mut rig);
    let mut got: Vec<String> = Vec::new();
    for _ in 0..20 {
        got.extend(bodies(&said).into_iter().map(str::to_owned));
        rig.hear(conn, &format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", got.len()));
        said = rig.said(conn);
    }
    assert_eq!(got.len(), 351);
    assert_eq!(got[..350], ids[..]);
    assert_eq!(got[350], "new");
}

#[test]
fn the_store_that_fails_sends_messages_back() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m0"]);
    let error = corefire::store::Error::Full;
    rig.store.tear_next(corefire::store::memory::Tear::Lost, error);
    send(&mut rig, &["m1"]);
    let texts = rig.texts();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("id='m1'") && texts[0].contains("<resource-constraint"));
    assert_eq!(rig.handled, 2);
}

#[test]
fn stored_messages_bounce_when_patience_is_over_and_others_sooner() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1"]);
    rig.iq("x@a.example/1", "y@b.example", "q1");
    rig.send_flagged(
        "<presence from='x@a.example/1' to='y@b.example'></presence>",
        Kind::Presence,
        0,
        Default::default(),
    );
    rig.advance(Duration::from_secs(70));
    let texts = rig.texts();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("q1") && texts[0].contains("<remote-server-timeout"));
    rig.advance(Duration::from_secs(3_600));
    let texts = rig.texts();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("id='m1'") && texts[0].contains("<remote-server-timeout"));
    // The row went with the answer.
    let rig = rig.restarted();
    assert!(rig.wishes.is_empty());
}

/// RFC 6120 §8.3.1
#[test]
fn errors_and_results_are_never_answered() {
    let mut rig = Rig::new(A);
    for (text, kind, subtype) in [
        ("<message from='x@a.example' to='y@b.example' type='error'></message>", Kind::Message, 4),
        ("<iq from='x@a.example' to='y@b.example' id='1' type='result'></iq>", Kind::Iq, 2),
        ("<iq from='x@a.example' to='y@b.example' id='1' type='error'></iq>", Kind::Iq, 3),
    ] {
        rig.send_flagged(text, kind, subtype, Default::default());
    }
    rig.advance(Duration::from_secs(4_000));
    assert_eq!(rig.texts(), [""; 0]);
    assert_eq!(rig.probe().queued_stanzas, 0);
}

#[test]
fn stream_that_goes_both_ways_carries_nothing_before_it_has_begun_anew() {
    let mut rig = Rig::new(A);
    send(&mut rig, &["m1"]);
    let Some(Wish::Resolve(conn, _)) = rig.wishes.pop_front() else { panic!() };
    let outcome = Err(Problem::Busy);
    rig.give(Input::Resolved { conn, outcome, took: Duration::ZERO });
    rig.wishes.clear();

    // While A waits before its next attempt, B comes.
    let conn = comes(&mut rig, certs::valid(B));
    assert!(rig.said(conn).contains("urn:xmpp:features:bidi"));
    rig.hear(conn, "<bidi xmlns='urn:xmpp:bidi'/>");
    rig.hear(conn, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>");
    assert_eq!(rig.said(conn), SUCCESS);
    send(&mut rig, &["m2"]);
    assert_eq!(rig.said(conn), "", "a header of B is due, and one of A");
    rig.hear(conn, &header(B, A, ""));
    let said = rig.said(conn);
    let (before, _) = said.split_once("<message").unwrap_or_else(|| panic!("{said}"));
    assert!(before.contains("<stream:stream") && before.contains("</stream:features>"), "{said}");
    assert_eq!(bodies(&said), ["m1", "m2"]);
}
