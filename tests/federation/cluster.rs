//! A federation core of a node in a cluster: domains come and go, what waits for them is read, and handed on.

use crate::peer::*;
use crate::rig::{Rig, START, config};
use corefire::cluster::placement::{Member, NodeId, Placement};
use corefire::federation::Input;
use corefire::frame::{Flags, Kind, MARKER, SEALED};
use corefire::store::memory::MemoryStore;
use std::sync::Arc;
use std::time::Duration;

/// By which the domains of others are all of one node.
fn all_of(epoch: u64, owner: u32) -> Arc<Placement> {
    let member = |node: u32| Member {
        node: NodeId(node),
        name: format!("n{node}"),
        weight: u32::from(node == owner),
        shards: 1,
        federates: true,
    };
    Arc::new(Placement::new(epoch, &[member(1), member(2)]))
}

/// A core of that node, which goes by no epoch yet.
fn node(id: u32, store: &MemoryStore) -> Rig {
    let mut config = config(A);
    config.node = Some(NodeId(id));
    Rig::on(store.clone(), config, id.into(), START)
}

/// It hears of an epoch, and its shard goes by it.
fn place(rig: &mut Rig, epoch: u64, owner: u32) {
    rig.give(Input::Placed(all_of(epoch, owner)));
    rig.tell_epoch(MARKER, epoch);
}

/// A node that owns all domains.
fn owner(id: u32, store: &MemoryStore) -> Rig {
    let mut rig = node(id, store);
    place(&mut rig, 1, id);
    assert_eq!(rig.sealed, [1]);
    rig.tell_epoch(SEALED, 1);
    rig
}

fn message(rig: &mut Rig, id: &str) {
    rig.message("x@a.example/1", "y@b.example", id);
}

/// Ids of the messages in a text, in order.
fn ids(said: &str) -> Vec<String> {
    let messages = said.split("<message ").skip(1);
    messages.map(|it| it.split("id='").nth(1).unwrap().split('\'').next().unwrap().into()).collect()
}

fn ids_back(rig: &mut Rig) -> Vec<String> {
    let texts = rig.texts();
    texts.iter().flat_map(|text| ids(text)).collect()
}

#[test]
fn an_epoch_counts_when_the_shards_go_by_it() {
    let store = MemoryStore::new();
    let mut rig = owner(1, &store);
    message(&mut rig, "m1");
    rig.give(Input::Placed(all_of(2, 2)));
    message(&mut rig, "m2");
    assert!(rig.texts().is_empty());
    assert_eq!(rig.sealed, [1]);
    rig.tell_epoch(MARKER, 2);
    assert_eq!(rig.sealed, [1, 2]);
    // They were written as nothing carried them: the other node reads them.
    assert!(rig.texts().is_empty());
    assert_eq!(rig.probe().queued_stanzas, 0);
}

#[test]
fn what_waits_in_the_store_is_sent_by_the_new_owner_before_all_that_is_newer() {
    let store = MemoryStore::new();
    let (mut old, mut new) = (owner(1, &store), node(2, &store));
    place(&mut new, 1, 1);
    new.tell_epoch(SEALED, 1);
    for id in ["m1", "m2", "m3"] {
        message(&mut old, id);
    }
    let request = old.iq("x@a.example/1", "y@b.example/2", "q1");
    place(&mut old, 2, 2);
    assert_eq!(old.sealed, [1, 2]);
    assert_eq!(old.handled, request + 1, "all is with others");
    // A request is in no row.
    let back = old.texts();
    assert_eq!(back.len(), 1);
    assert!(back[0].starts_with("<iq ") && back[0].contains("to='y@b.example/2'"), "{back:?}");
    place(&mut new, 2, 2);
    assert!(new.wishes.is_empty(), "the others have not let go of it");
    new.tell_epoch(SEALED, 2);
    message(&mut new, "m4");
    let conn = goes_by_dialback(&mut new);
    assert_eq!(ids(&new.said(conn)), ["m1", "m2", "m3", "m4"]);
}

#[test]
fn what_was_sent_is_waited_for_and_the_stream_ends() {
    let store = MemoryStore::new();
    let mut rig = owner(1, &store);
    message(&mut rig, "m1");
    let conn = goes_by_dialback(&mut rig);
    let ping = ping_id(&rig.said(conn));
    place(&mut rig, 2, 2);
    assert_eq!(rig.sealed, [1]);
    assert!(!rig.has_closed(conn));
    let theirs = authenticated(&mut rig);
    rig.hear(theirs, &format!("<iq from='{B}' to='{A}' id='{ping}' type='result'/>"));
    assert_eq!(rig.sealed, [1, 2]);
    assert!(rig.has_closed(conn));
    // Nothing is left for the next owner.
    let mut new = node(2, &store);
    place(&mut new, 2, 2);
    new.tell_epoch(SEALED, 2);
    assert!(new.wishes.is_empty());
}

#[test]
fn a_peer_that_confirms_nothing_holds_nobody_up_and_gets_it_again() {
    let store = MemoryStore::new();
    let mut rig = owner(1, &store);
    message(&mut rig, "m1");
    let conn = goes_by_dialback(&mut rig);
    assert_eq!(ids(&rig.said(conn)), ["m1"]);
    // By the time that it is lost it is in the store.
    rig.advance(Duration::from_secs(1));
    place(&mut rig, 2, 2);
    rig.advance(Duration::from_millis(400));
    assert_eq!(rig.sealed, [1]);
    rig.advance(Duration::from_millis(200));
    assert_eq!(rig.sealed, [1, 2]);
    assert!(rig.has_closed(conn));
    assert!(rig.texts().is_empty(), "it is not handed back: it has a row");
    let mut new = node(2, &store);
    place(&mut new, 2, 2);
    new.tell_epoch(SEALED, 2);
    let conn = goes_by_dialback(&mut new);
    assert_eq!(ids(&new.said(conn)), ["m1"]);
}

#[test]
fn a_domain_that_comes_back_is_read_anew_and_once() {
    let store = MemoryStore::new();
    let mut rig = owner(1, &store);
    for id in ["m1", "m2"] {
        message(&mut rig, id);
    }
    for (epoch, owner) in [(2, 2), (3, 1), (4, 1)] {
        place(&mut rig, epoch, owner);
        rig.tell_epoch(SEALED, epoch);
    }
    message(&mut rig, "m3");
    let conn = goes_by_dialback(&mut rig);
    assert_eq!(ids(&rig.said(conn)), ["m1", "m2", "m3"]);
}

#[test]
fn what_is_anothers_goes_back_and_is_handled_when_that_is() {
    let store = MemoryStore::new();
    let mut rig = owner(1, &store);
    place(&mut rig, 2, 2);
    rig.tell_epoch(SEALED, 2);
    rig.handles = false;
    let number = rig.message("x@a.example/1", "y@b.example", "late");
    assert_eq!(rig.got.len(), 1);
    let got = &rig.got[0];
    assert_eq!((&*got.from, &*got.to), ("x@a.example/1", "y@b.example"));
    assert!(got.flags.contains(Flags::WANTS_ACK.with(Flags::STORABLE).with(Flags::CONTENT)));
    assert_eq!(rig.handled, number - 1);
    rig.handle_all();
    rig.turn();
    assert_eq!(rig.handled, number);
    assert_eq!(ids_back(&mut rig), ["late"]);
}

/// Peers come to any node. What is refused goes back by the node of the domain; so do answers to pings of that node.
#[test]
fn a_peer_is_served_by_any_node_and_answered_by_its_own() {
    let store = MemoryStore::new();
    let mut rig = node(1, &store);
    place(&mut rig, 1, 2);
    rig.tell_epoch(SEALED, 1);
    let conn = authenticated(&mut rig);
    rig.hear(conn, &format!("<message from='y@{B}/r' to='x@{A}' id='m'><body>hi</body></message>"));
    rig.hear(conn, &format!("<iq from='{B}' to='{A}' id='p1-7' type='result'/>"));
    rig.hear(conn, &format!("<iq from='y@{B}/r' to='x@{A}/r' id='bad' type='get'/>"));
    let got: Vec<_> = rig.got.iter().map(|got| (got.kind, &*got.from, &*got.to)).collect();
    let (there, here) = (format!("y@{B}/r"), format!("x@{A}"));
    let request = format!("x@{A}/r");
    assert_eq!(
        got,
        [(Kind::Message, &*there, &*here), (Kind::Iq, B, A), (Kind::Iq, &*request, &*there)]
    );
    assert!(rig.got[2].text.contains("<bad-request"), "{}", rig.got[2].text);
    // As the node of the domain gets it from its shard.
    let mut other = owner(2, &store);
    message(&mut other, "m1");
    let out = goes_by_dialback(&mut other);
    let ping = ping_id(&other.said(out));
    assert_eq!(other.probe().unconfirmed, 1);
    let pong = format!("<iq from='{B}' to='{A}' id='{ping}' type='result'></iq>");
    other.send_flagged(&pong, Kind::Iq, 2, Flags::default());
    assert_eq!(other.probe().unconfirmed, 0);
}
