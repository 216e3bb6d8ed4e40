//! The points on a stanza's way at which features are called, and what they may do there.

use crate::harness::*;
use corefire::shard::{
    AccountId, Audience, Delivered, Direction, Feature, Manifest, Passage, Phase, Received, Sent,
    SessionChange, SessionId, Turn,
};
use corefire::store::Write;
use corefire::xmpp::stanza_error::{StanzaCondition, StanzaError};
use std::sync::Mutex;

/// Stops, refuses and counts what names it.
struct Gate;

static MANIFEST: Manifest = Manifest {
    name: "gate",
    phases: &[Phase::Sent, Phase::Received, Phase::Delivered, Phase::Audience, Phase::Session],
    ..Manifest::EMPTY
};

#[derive(Default)]
struct Count(u32);

fn passage(bytes: &[u8], phase: &str) -> Passage {
    let text = String::from_utf8_lossy(bytes);
    assert!(!text.contains(&format!("{phase}-bug")), "a bug");
    if text.contains(&format!("{phase}-refuse")) {
        Passage::Refuse(StanzaError::new(StanzaCondition::NotAcceptable))
    } else if text.contains(&format!("{phase}-take")) {
        Passage::Taken
    } else {
        Passage::Pass
    }
}

/// Changes that were told of sessions at the resources "log" and "bug", by all tests.
static CHANGES: Mutex<Vec<SessionChange>> = Mutex::new(Vec::new());

impl Feature for Gate {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_sent(&mut self, turn: &mut Turn<'_>, sent: &Sent<'_>) -> Passage {
        turn.session_slot::<Count>(sent.session).unwrap().0 += 1;
        passage(sent.stanza.bytes, "sent")
    }

    fn on_received(&mut self, _: &mut Turn<'_>, received: &Received<'_>) -> Passage {
        passage(received.envelope.stanza, "received")
    }

    /// Tells the other sessions of the account who sent it or got it, and how often its sender has sent.
    fn on_delivered(&mut self, turn: &mut Turn<'_>, delivered: &Delivered<'_>) {
        match delivered.direction {
            Direction::In => passage(delivered.stanza, "delivered"),
            Direction::Out => passage(delivered.stanza, "gone"),
        };
        let resource = |turn: &Turn<'_>, session: &SessionId| {
            turn.session_jid(*session).unwrap().resource().unwrap().to_owned()
        };
        let names: Vec<_> = delivered.sessions.iter().map(|it| resource(turn, it)).collect();
        let count = |session: &SessionId| turn.session_slot_in_use(*session).map(|Count(n)| *n);
        let sent = match delivered.direction {
            Direction::Out => delivered.sessions.first().and_then(count),
            Direction::In => None,
        };
        let note = format!(
            "<message><note>{:?} {} {sent:?}</note></message>",
            delivered.direction,
            names.join("+")
        );
        for session in turn.sessions(delivered.account) {
            if !delivered.sessions.contains(&session) {
                turn.send(session, &[note.as_bytes()]);
            }
        }
    }

    fn on_audience(&mut self, _: &mut Turn<'_>, _: AccountId, audience: &mut Audience) {
        audience.retain(|(_, jid)| !jid.starts_with("carol@"));
    }

    fn on_session(&mut self, turn: &mut Turn<'_>, session: SessionId, change: SessionChange) {
        let resource = turn.session_jid(session).unwrap().resource().unwrap().to_owned();
        if ["log", "bug"].contains(&&*resource) {
            CHANGES.lock().unwrap().push(change);
        }
        assert!(resource != "bug", "a bug");
    }
}

fn node(shards: u16) -> Node {
    let features = || {
        let mut features = corefire::features::all();
        features.push(Box::new(Gate));
        features
    };
    Node::with_features(shards, |_| {}, features)
}

fn message(to: &str, sign: &str) -> String {
    format!("<message to='{to}' id='m' type='chat'><body>{sign}</body></message>")
}

#[test]
fn a_feature_may_refuse_or_take_what_a_client_sends() {
    for shards in [1, 2] {
        let mut node = node(shards);
        let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
        node.enable(alice);
        for to in ["bob@here", "bob@here/pc", "bob@there"] {
            node.send(alice, &message(to, "sent-refuse"));
            let answer = node.read(alice);
            assert!(answer.contains("<not-acceptable "), "{answer}");
            assert_eq!((attr(&answer, "from"), attr(&answer, "id")), (to, "m"));
            node.send(alice, &message(to, "sent-take"));
            assert_eq!(node.read(alice), "");
        }
        for kind in ["result", "error"] {
            let iq = format!("<iq to='bob@here/pc' id='1' type='{kind}'><sent-refuse/></iq>");
            node.send(alice, &iq);
            assert_eq!(node.read(alice), "", "answers are not answered");
        }
        node.send(alice, "<presence to='bob@here'><status>sent-refuse</status></presence>");
        assert!(node.read(alice).contains("<not-acceptable "));
        node.send(alice, "<iq type='get' id='1'><query xmlns='sent-refuse'/></iq>");
        assert!(node.read(alice).contains("<not-acceptable "));
        assert_eq!(node.read(bob), "");
        node.send(alice, "<r xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(attr(&node.read(alice), "h"), "10", "each of them is handled");
    }
}

#[test]
fn a_feature_may_refuse_or_drop_what_comes_for_an_account() {
    for shards in [1, 2] {
        let mut node = node(shards);
        let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
        node.users(&["carol"]);
        for to in ["bob@here", "bob@here/pc", "carol@here"] {
            node.send(alice, &message(to, "received-refuse"));
            let answer = node.read(alice);
            assert!(answer.contains("<not-acceptable "), "{answer}");
            assert_eq!((attr(&answer, "from"), attr(&answer, "id")), (to, "m"));
            node.send(alice, &message(to, "received-take"));
            assert_eq!(node.read(alice), "");
        }
        node.send(
            alice,
            "<iq to='bob@here/pc' id='1' type='get'><q xmlns='received-refuse'/></iq>",
        );
        assert!(node.read(alice).contains("<not-acceptable "));
        node.send(alice, "<presence to='bob@here'><status>received-refuse</status></presence>");
        assert_eq!(node.read(alice), "", "nobody learns what became of presence");
        assert_eq!(node.read(bob), "");
        assert_eq!(node.logged("carol"), 0);
    }
}

#[test]
fn features_learn_which_sessions_sent_and_got_a_message() {
    for shards in [1, 2] {
        let mut node = node(shards);
        let (phone, pc) = (node.online("alice", "phone"), node.login("alice", "pc"));
        let (tab, low) = (node.online_with("bob", "tab", 5), node.online_with("bob", "low", 1));
        node.read(tab);
        node.send(phone, &message("bob@here", "1"));
        assert!(node.read(pc).contains("<note>Out phone Some(2)</note>"));
        assert!(node.read(low).contains("<note>In tab None</note>"));
        assert_eq!((node.count(phone), node.count(tab)), (0, 1));
        node.users(&["dave"]);
        node.send(phone, &message("dave@here", "2"));
        assert!(node.read(pc).contains("<note>Out phone Some(3)</note>"));
    }
}

#[test]
fn a_feature_chooses_who_hears_of_an_account() {
    let mut node = node(2);
    let carol = node.online("carol", "pc");
    let bob = node.online("bob", "pc");
    let alice = node.online("alice", "phone");
    for name in ["bob", "carol"] {
        let contact = if name == "bob" { bob } else { carol };
        node.send(alice, &format!("<presence to='{name}@here'><priority>3</priority></presence>"));
        assert_eq!(node.count(contact), 1, "directed presence");
    }
    node.send(alice, "<presence type='unavailable'/>");
    assert!(node.read(bob).contains("unavailable"));
    assert_eq!(node.read(carol), "");
}

#[test]
fn features_follow_a_session_and_a_bug_of_theirs_costs_it_nothing() {
    crate::faults::silence();
    let mut node = node(1);
    let alice = node.online("alice", "log");
    node.send(alice, "<presence><status>again</status></presence>");
    node.send(alice, "</stream:stream>");
    let bob = node.online("bob", "bug");
    node.send(bob, "<iq type='get' id='1' to='here'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert!(node.read(bob).contains("type='result' id='1'"));
    node.cut(bob);
    assert_eq!((node.sessions(), node.faults()), (0, 3));
    use SessionChange::{Available, Ended, Started};
    let told = std::mem::take(&mut *CHANGES.lock().unwrap());
    assert_eq!(told, [Started, Available, Ended, Started, Available, Ended]);
}

#[test]
fn a_bug_in_a_phase_costs_one_stanza() {
    crate::faults::silence();
    for shards in [1, 2] {
        let mut node = node(shards);
        let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
        node.enable(alice);
        for sign in ["sent-bug", "received-bug", "delivered-bug"] {
            node.send(alice, &message("bob@here", sign));
            let answer = node.read(alice);
            assert_eq!(
                answer.matches("<internal-server-error ").count(),
                1,
                "{shards} {sign} {answer}"
            );
            assert_eq!(node.read(bob), "");
        }
        node.send(alice, &message("bob@here", "well"));
        assert_eq!(bodies(&node.read(bob)), ["well"]);
        node.send(alice, "<r xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(attr(&node.read(alice), "h"), "4");
    }
}

#[test]
fn bug_leaves_what_is_held_for_an_inactive_client_as_it_was() {
    crate::faults::silence();
    for (shards, acked) in [(1, false), (2, true)] {
        let mut node = node(shards);
        let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
        if acked {
            node.enable(bob);
        }
        node.send(bob, "<inactive xmlns='urn:xmpp:csi:0'/>");
        let state = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
        for text in ["1", "2"] {
            let presence = format!("<presence to='bob@here/pc'><status>{text}</status></presence>");
            node.send(alice, &presence);
            node.send(alice, &format!("<message to='bob@here/pc'>{state}</message>"));
        }
        node.send(alice, &message("bob@here/pc", "delivered-bug"));
        assert!(node.read(alice).contains("<internal-server-error "));
        assert_eq!(node.read(bob), "");
        node.send(bob, "<active xmlns='urn:xmpp:csi:0'/>");
        let got = node.read(bob);
        assert_eq!((got.matches("<composing ").count(), got.matches("<status>").count()), (2, 1));
        assert!(got.contains("<status>2") && !got.contains("bug"), "{got}");
    }
}

/// The account of the recipient is read from the store meanwhile: the sender is told that its stanza came to nothing, so
/// nothing may come of it later, and no later stanza may count as safe for it.
#[test]
fn bug_takes_back_what_waits_for_an_account() {
    crate::faults::silence();
    let mut node = node(1);
    let bob = node.online("bob", "pc");
    let (alice, _) = node.online_acked("alice", "phone");
    node.read(bob);
    node.hold_store();
    let vcard = b"<vCard xmlns='vcard-temp'/>".to_vec();
    let change = Write::PutSlot { owner: bare("bob"), name: "none".into(), value: Some(vcard) };
    node.change_account("bob", change);
    let texts = ["first", "gone-bug", "last"];
    let more: String = texts.iter().map(|text| message("bob@here", text)).collect();
    node.send(alice, &[more.as_str(), "<r xmlns='urn:xmpp:sm:3'/>"].concat());
    let answer = node.read(alice);
    assert_eq!(answer.matches("<internal-server-error ").count(), 1, "{answer}");
    assert!(!answer.contains("<a "), "{answer}");
    node.free_store();
    assert_eq!(bodies(&node.read(bob)), ["first", "last"]);
    assert_eq!(attr(&node.read(alice), "h"), "4");
}
