//! Two ends that keep the rules.

use super::side::{CUTS, Cut, Side, pair, secret, talk};
use crate::stream::dialback::{Dialback, Verdict};
use crate::stream::s2s::{Offer, PeerLimits};
use crate::xmpp::stanza_error::StanzaCondition;
use crate::xmpp::stream_error::StreamCondition;

const MESSAGE: &str =
    "<message from='a@here.example/x' to='b@there.example' id='1'><body>hi</body></message>";
const ANSWER: &str =
    "<message from='b@there.example' to='a@here.example/x' id='2'><body>yes</body></message>";

/// Two sides that have said what there was to say.
fn connected(secure: bool, wants: Offer, cut: Cut) -> (Side, Side) {
    let (mut one, mut other) = (Side::initiating(secure), Side::receiving(secure));
    (one.wants, other.wants) = (wants, wants);
    talk(&mut one, &mut other, cut);
    (one, other)
}

const ALL: Offer = Offer { external: true, dialback: true, bidi: true, management: true };
const PLAIN: Offer = Offer { external: true, dialback: true, bidi: false, management: false };
const DIALBACK: Offer = Offer { external: false, ..PLAIN };

#[test]
fn certificates_authenticate_a_stream_with_any_cut() {
    for cut in CUTS {
        let (mut one, mut other) = connected(false, PLAIN, cut);
        assert_eq!(one.events, ["start-tls", "features", "authenticated", "features"], "{cut:?}");
        assert_eq!(other.events, ["opened", "start-tls", "opened", "external", "opened"]);
        assert_eq!(other.stream.inbound(), [pair("there.example", "here.example")]);
        assert_eq!(one.stream.outbound(), [pair("here.example", "there.example")]);
        assert!(one.stream.inbound().is_empty() && other.stream.outbound().is_empty());
        assert!(one.stream.is_secure() && other.stream.is_authenticated());
        one.send(MESSAGE);
        talk(&mut one, &mut other, cut);
        assert_eq!(other.stanzas, [MESSAGE]);
        one.stream.close(None, &one.policy, &mut one.out);
        talk(&mut one, &mut other, cut);
        assert!(one.stream.is_closed() && other.stream.is_closed());
        assert_eq!((&one.error, &other.error), (&None, &None));
        assert!(!one.stream.may_send(&pair("here.example", "there.example")));
    }
}

#[test]
fn direct_tls_needs_no_starttls() {
    let (one, other) = connected(true, PLAIN, Cut::Not);
    assert_eq!(one.events, ["features", "authenticated", "features"]);
    assert_eq!(other.events, ["opened", "external", "opened"]);
}

#[test]
fn dialback_authenticates_a_stream_with_any_cut() {
    for cut in CUTS {
        let (mut one, mut other) = connected(false, DIALBACK, cut);
        assert_eq!(one.events, ["start-tls", "features", "valid"], "{cut:?}");
        assert_eq!(other.events, ["opened", "start-tls", "opened", "ask"]);
        assert!(!other.stream.is_authenticated(), "by a certificate");
        one.send(MESSAGE);
        talk(&mut one, &mut other, cut);
        assert_eq!(other.stanzas, [MESSAGE]);
    }
}

#[test]
fn dialback_follows_where_the_certificate_is_refused() {
    let (mut one, mut other) = (Side::initiating(false), Side::receiving(false));
    other.certificate = false;
    talk(&mut one, &mut other, Cut::Not);
    assert!(one.saw("not-authenticated") && one.saw("valid"));
    assert!(!one.stream.is_authenticated());
    assert!(one.stream.may_send(&pair("here.example", "there.example")));
}

#[test]
fn ids_differ_for_each_header() {
    let (one, other) = connected(false, PLAIN, Cut::Not);
    assert_eq!((one.stream.id(), other.stream.id()), ("seed-3", "seed-3"));
}

#[test]
fn stanzas_go_both_ways_where_both_want_it() {
    for (wants, cut) in
        CUTS.iter().flat_map(|&cut| [(ALL, cut), (Offer { external: false, ..ALL }, cut)])
    {
        let (mut one, mut other) = connected(false, wants, cut);
        assert!(other.saw("bidi") && one.stream.is_bidi());
        assert_eq!(one.stream.inbound(), [pair("here.example", "there.example")]);
        assert!(other.stream.may_send(&pair("there.example", "here.example")));
        one.send(MESSAGE);
        other.send(ANSWER);
        talk(&mut one, &mut other, cut);
        assert_eq!(
            (&one.stanzas[..], &other.stanzas[..]),
            (&[ANSWER.into()][..], &[MESSAGE.into()][..])
        );
        assert_eq!((one.acknowledged, other.acknowledged), (1, 1), "XEP-0198 counts both ways");
        assert_eq!((&one.error, &other.error), (&None, &None));
    }
}

#[test]
fn limits_are_told_in_both_directions() {
    let (one, other) = connected(false, ALL, Cut::Not);
    let limits = PeerLimits { bytes_max: Some(262_144), idle_s: Some(600) };
    assert_eq!(one.stream.peer_limits(), limits);
    assert_eq!(other.stream.peer_limits(), limits);
    assert!(one.stream.fits(262_144) && !one.stream.fits(262_145));
    let (_, other) = connected(false, PLAIN, Cut::Not);
    assert!(other.stream.fits(usize::MAX), "it said nothing");
}

#[test]
fn limits_are_narrow_until_a_pair_is_authenticated() {
    let (mut one, mut other) = (Side::initiating(true), Side::receiving(true));
    assert_eq!(other.stream.limits(&other.policy).stanza_bytes_max, 10_000);
    talk(&mut one, &mut other, Cut::Not);
    assert_eq!(other.stream.limits(&other.policy).stanza_bytes_max, 262_144);
    one.send(&MESSAGE.replace("hi", &"x".repeat(100_000)));
    talk(&mut one, &mut other, Cut::Seed(9));
    assert_eq!(other.stanzas.len(), 1);
}

#[test]
fn broken_stream_goes_on_where_it_was() {
    for cut in CUTS {
        let (mut one, mut other) = connected(false, ALL, cut);
        assert!(one.saw("enabled") && other.saw("enable"));
        one.send(MESSAGE);
        talk(&mut one, &mut other, cut);
        // Two more that get lost, and one of the peer.
        one.send(MESSAGE);
        one.send(MESSAGE);
        other.send(ANSWER);
        let (mut again, mut there) = (Side::initiating(false), Side::receiving(false));
        again.suspended = one.management.take();
        there.suspended = other.management.take();
        talk(&mut again, &mut there, cut);
        assert!(again.saw("resumed") && there.saw("resume"), "{cut:?}");
        assert!(again.stream.is_managed() && there.stream.is_managed());
        let out = |side: &Side| side.management.as_ref().unwrap().out_count();
        assert_eq!((out(&again), out(&there)), (2, 1));
        for _ in 0..2 {
            again.out.extend_from_slice(MESSAGE.as_bytes());
        }
        again.management.as_mut().unwrap().request(&mut again.out);
        talk(&mut again, &mut there, cut);
        assert_eq!((there.stanzas.len(), again.acknowledged, out(&again)), (2, 2, 0));
    }
}

#[test]
fn stream_of_another_pair_is_not_resumed() {
    let (mut one, other) = connected(false, ALL, Cut::Not);
    let (mut again, mut there) = (Side::initiating(false), Side::receiving(false));
    again.suspended = one.management.take();
    drop(other);
    talk(&mut again, &mut there, Cut::Not);
    assert!(again.saw("not-managed"));
    assert_eq!(again.acknowledged, 3, "told with the refusal");
    assert!(!again.stream.is_managed());
    assert!(again.stream.enable(true, &mut again.out), "it begins a new one");
}

#[test]
fn more_pairs_are_asked_for_on_one_stream() {
    let (mut one, mut other) = connected(false, PLAIN, Cut::Not);
    let rooms = pair("rooms.here.example", "there.example");
    let key = secret().key("there.example", "rooms.here.example", one.stream.id());
    assert!(!one.stream.may_send(&rooms));
    assert!(one.stream.ask(&rooms, &key, &one.policy, &mut one.out));
    assert!(!one.stream.ask(&rooms, &key, &one.policy, &mut one.out), "asked already");
    talk(&mut one, &mut other, Cut::Bytes);
    assert!(one.stream.may_send(&rooms));
    one.send("<message from='rooms.here.example' to='b@there.example'/>");
    talk(&mut one, &mut other, Cut::Bytes);
    assert_eq!(other.stanzas.len(), 1);
    assert_eq!(other.error, None);
    // A target that is not served there: the stream lives on.
    let elsewhere = pair("here.example", "chat.there.example");
    assert!(one.stream.ask(&elsewhere, "k", &one.policy, &mut one.out));
    talk(&mut one, &mut other, Cut::Not);
    assert!(one.saw("error") && !one.stream.may_send(&elsewhere));
    assert_eq!(other.error, None);
}

#[test]
fn wrong_key_is_invalid() {
    let (mut one, mut other) = (Side::initiating(true), Side::receiving(true));
    other.wants.external = false;
    one.wants = Offer { external: true, ..Offer::default() };
    one.policy.pairs_max = 0; // `Side::ask` is not to ask by itself.
    talk(&mut one, &mut other, Cut::Not);
    one.policy.pairs_max = 1;
    let here = pair("here.example", "there.example");
    assert!(one.stream.ask(&here, "wrong", &one.policy, &mut one.out));
    talk(&mut one, &mut other, Cut::Not);
    assert!(one.saw("invalid") && !one.stream.may_send(&here));
    assert!(other.stream.inbound().is_empty());
    one.send(MESSAGE);
    talk(&mut one, &mut other, Cut::Not);
    assert_eq!(other.condition(), Some(StreamCondition::NotAuthorized));
    assert_eq!(one.condition(), Some(StreamCondition::NotAuthorized), "as the peer says");
}

#[test]
fn keys_are_verified_on_a_stream_of_their_own() {
    let (mut one, mut other) = (Side::initiating(true), Side::receiving(true));
    (one.wants.external, one.policy.pairs_max) = (false, 0);
    talk(&mut one, &mut other, Cut::Not);
    // The peer of one made a key for our domain on our stream "id".
    let made = secret().key("here.example", "there.example", "id");
    let here = pair("here.example", "there.example");
    assert!(one.stream.verify(&here, "id", &made, &one.policy, &mut one.out));
    assert!(!one.stream.verify(&here, "id", &made, &one.policy, &mut one.out), "asked already");
    assert!(one.stream.verify(&here, "other", &made, &one.policy, &mut one.out));
    talk(&mut one, &mut other, Cut::Bytes);
    assert_eq!(one.events, ["features", "verified", "verified"]);
    assert_eq!(other.events, ["opened", "bidi", "verify", "verify"]);
    assert!(!one.stream.is_established() && !other.stream.is_established());
    let elsewhere = pair("here.example", "not-there.example");
    assert!(one.stream.verify(&elsewhere, "id", "k", &one.policy, &mut one.out));
    other.take(&std::mem::take(&mut one.out));
    let mut expected = Vec::new();
    let (from, to) = (elsewhere.remote, elsewhere.local);
    let verdict = Verdict::Error(StanzaCondition::ItemNotFound);
    Dialback::Verified { from, to, id: "id".into(), verdict }.write(&mut expected);
    assert_eq!(other.said().as_bytes(), expected);
}
