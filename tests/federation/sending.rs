//! What goes out: for several recipients, late, too large, in the wrong namespace, and by more than one core.

use crate::certs;
use crate::peer::*;
use crate::rig::{Rig, Wish, config};
use corefire::base::hash::hash64;
use corefire::base::instant::Wall;
use corefire::cluster::placement::federation_core;
use corefire::federation::Input;
use corefire::frame::{Batch, Encoder, Envelope, Flags, Kind, Recipients};
use std::time::Duration;

fn presence(rig: &mut Rig, to: &str, also_to: &[&str]) {
    let text = "<presence from='x@a.example/1'></presence>";
    let envelope = Envelope {
        epoch: 0,
        number: 1,
        hops: 0,
        ingress: Wall(0),
        trace: None,
        flags: Flags::default(),
        from: "x@a.example/1",
        to,
        also_to: Recipients::from(also_to),
        kind: Kind::Presence,
        subtype: 0,
        open_end: 31,
        close_start: 31,
        stanza: text.as_bytes(),
    };
    let mut batch = Batch::new();
    Encoder::new(1 << 16).append(&mut batch, &envelope).unwrap();
    rig.give(Input::Frames { from: 0, sent: rig.now.mono, batch: &batch });
}

#[test]
fn presence_for_many_is_written_to_each() {
    let mut rig = Rig::new(A);
    presence(&mut rig, "y@b.example", &["z@b.example", "y@c.example"]);
    let conn = goes_by_dialback(&mut rig);
    let said = rig.said(conn);
    for to in ["y@b.example", "z@b.example"] {
        assert!(said.contains(&format!(" to='{to}'")), "{said}");
    }
    assert_eq!(said.matches("<presence ").count(), 2, "{said}");
    assert_eq!(rig.probe().domains, 2);
}

#[test]
fn what_comes_late_says_when_it_was_sent() {
    let mut rig = Rig::new(A);
    rig.message("x@a.example/1", "y@b.example", "m1");
    rig.advance(Duration::from_secs(20));
    rig.message("x@a.example/1", "y@b.example", "m2");
    let conn = goes_by_dialback(&mut rig);
    let said = rig.said(conn);
    let delay = "<delay xmlns='urn:xmpp:delay' from='a.example' stamp='2023-11-14T22:13:20.000Z'/></message>";
    assert_eq!(said.matches("<delay").count(), 1, "{said}");
    assert!(said.contains(delay), "{said}");
}

#[test]
fn what_a_peer_does_not_take_comes_back() {
    let mut rig = Rig::new(A);
    rig.message("x@a.example/1", "y@b.example", &"m".repeat(12_000));
    rig.message("x@a.example/1", "y@b.example", "small");
    let limits = "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>10000</max-bytes></limits>";
    let (conn, _) = goes(&mut rig, certs::self_signed(B), &format!("{DIALBACK}{limits}"));
    rig.hear(conn, "<db:result from='b.example' to='a.example' type='valid'/>");
    let said = rig.said(conn);
    assert!(said.contains("<body>small</body>") && !said.contains("mmm"), "{}", said.len());
    let texts = rig.texts();
    assert_eq!(texts.len(), 1);
    assert!(texts[0].contains("<policy-violation"), "{}", &texts[0][texts[0].len() - 300..]);
}

#[test]
fn nothing_is_smuggled_into_the_namespace_of_servers() {
    let mut rig = Rig::new(A);
    let text = "<message from='x@a.example/1' to='y@b.example' id='m' type='chat'><body>hi</body>\
        <x xmlns='jabber:server'/></message>";
    rig.send_flagged(text, Kind::Message, 1, Flags::default());
    rig.message("x@a.example/1", "y@b.example", "m2");
    let conn = goes_by_dialback(&mut rig);
    assert!(!rig.said(conn).contains("jabber:server'/>"));
    let texts = rig.texts();
    assert_eq!(texts.len(), 1);
    assert!(texts[0].contains("<bad-request"), "{texts:?}");
}

/// A peer answers a ping on a stream that another core has accepted.
#[test]
fn answers_to_pings_find_the_core_that_asked() {
    let index = federation_core(hash64(B.as_bytes()), 2).unwrap();
    let core = |index: u16| {
        let mut config = config(A);
        (config.cores, config.index) = (2, index);
        Rig::with(config, 1 + u64::from(index))
    };
    let (mut asks, mut hears) = (core(index), core(1 - index));
    asks.message("x@a.example/1", "y@b.example", "m");
    let conn = goes_by_dialback(&mut asks);
    let id = ping_id(&asks.said(conn));
    let theirs = authenticated(&mut hears);
    hears.hear(theirs, &format!("<iq from='{B}' to='{A}' id='{id}' type='result'/>"));
    assert!(hears.got.is_empty());
    let batch = std::mem::take(&mut hears.fx.outbox[usize::from(1 + index)]);
    assert_eq!(batch.frames(), 2, "the word that it has come, and its answer");
    assert_eq!(asks.probe().unconfirmed, 1);
    asks.give(Input::Frames { from: 1 + (1 - index), sent: asks.now.mono, batch: &batch });
    assert_eq!(asks.probe().unconfirmed, 0);
}

#[test]
fn each_domain_of_ours_has_a_stream_of_its_own() {
    let mut rig = Rig::new("a.example z.example");
    rig.message("x@a.example/1", "y@b.example", "m1");
    rig.message("x@z.example/1", "y@b.example", "m2");
    let look_ups = rig.wishes.iter().filter(|wish| matches!(wish, Wish::Resolve(..))).count();
    assert_eq!(look_ups, 2);
    let conn = goes_by_dialback(&mut rig);
    let said = rig.said(conn);
    assert!(said.contains("m1") && !said.contains("m2"), "{said}");
}

#[test]
fn idle_streams_are_closed() {
    let mut rig = Rig::new(A);
    rig.message("x@a.example/1", "y@b.example", "m1");
    let conn = goes_by_dialback(&mut rig);
    let id = ping_id(&rig.said(conn));
    let theirs = authenticated(&mut rig);
    rig.hear(theirs, &format!("<iq from='{B}' to='{A}' id='{id}' type='result'/>"));
    rig.advance(Duration::from_secs(590));
    assert!(!rig.has_closed(conn));
    rig.advance(Duration::from_secs(20));
    assert!(rig.said(conn).contains("</stream:stream>"));
    assert!(rig.has_closed(conn) && !rig.has_closed(theirs));
    rig.advance(Duration::from_secs(600));
    assert!(rig.has_closed(theirs));
    assert_eq!(rig.federation.connections(), 0);
    assert_eq!(rig.probe().streams_idle_closed, 2);
}

#[test]
fn attempts_wait_longer_each_time_and_the_breaker_opens() {
    let mut rig = Rig::new(A);
    rig.message("x@a.example/1", "y@b.example", "m1");
    let mut pauses = Vec::new();
    for _ in 0..8 {
        rig.resolve(B, "b.example:5269");
        rig.wishes.retain(|wish| matches!(wish, Wish::Dial(..)));
        let Some(Wish::Dial(conn, ..)) = rig.wishes.pop_front() else { panic!("no dial") };
        rig.give(Input::DialFailed { conn, attempts: Vec::new() });
        let before = rig.now.mono;
        while !rig.wishes.iter().any(|wish| matches!(wish, Wish::Resolve(..))) {
            rig.advance(Duration::from_millis(100));
        }
        pauses.push(rig.now.mono.since(before).as_millis());
    }
    for (at, pause) in pauses.iter().enumerate() {
        let whole = 1_000 << at;
        assert!((whole / 2..=whole + 200).contains(pause), "{pauses:?}");
    }
    // Now it is open: requests are answered at once, messages wait.
    rig.iq("x@a.example/1", "y@b.example", "q1");
    rig.message("x@a.example/1", "y@b.example", "m2");
    let texts = rig.texts();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("<remote-server-timeout"));
    assert_eq!(rig.probe().breakers_opened, 1);
    let conn = goes_by_dialback(&mut rig);
    assert!(rig.said(conn).contains("m2"));
}
