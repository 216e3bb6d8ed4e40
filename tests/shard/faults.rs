//! A bug costs the stanza that met it and no more (DESIGN §8, contained faults).

use crate::acks::R;
use crate::harness::*;
use corefire::shard::{
    AccountId, Answers, Feature, Iq, Manifest, Method, RosterChange, Scope, StoreOutcome, Turn,
    Verdict,
};
use corefire::store::RosterItem;
use corefire::xmpp::jid::Jid;
use corefire::xmpp::stanza_error::StanzaError;
use std::sync::Once;

static MANIFEST: Manifest = Manifest {
    name: "bug",
    answers: &[
        Answers {
            method: Method::Get,
            namespace: "urn:bug",
            name: "now",
            scopes: &[Scope::Server, Scope::Own, Scope::Other],
        },
        Answers {
            method: Method::Get,
            namespace: "urn:bug",
            name: "late",
            scopes: &[Scope::Own, Scope::Other],
        },
    ],
    ..Manifest::EMPTY
};

/// Panics on `<now/>`, after it changed the account and sent something; on `<late/>` when the store has answered.
struct Bug;

impl Feature for Bug {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        if let Some(account) = iq.account {
            let contact = Jid::parse("ghost@here").unwrap();
            turn.send_subscription(account, &Jid::parse("carol@here").unwrap(), "subscribe");
            let item = RosterItem { name: "ghost".into(), ..RosterItem::new(contact) };
            turn.change_roster(account, RosterChange::Set(item));
        }
        assert!(iq.payload.name == "late", "a bug");
        Verdict::Pending
    }

    fn on_stored(
        &mut self,
        _: &mut Turn<'_>,
        _: AccountId,
        _: StoreOutcome,
    ) -> Result<Vec<u8>, StanzaError> {
        panic!("a bug");
    }
}

/// Keeps the bugs of these tests out of the output.
pub(crate) fn silence() {
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() != Some("a bug") {
                usual(info);
            }
        }));
    });
}

fn node(shards: u16) -> Node {
    silence();
    let features = || {
        let mut features = corefire::features::all();
        features.push(Box::new(Bug));
        features
    };
    Node::with_features(shards, |_| {}, features)
}

fn meet(to: &str) -> String {
    let to = if to.is_empty() { String::new() } else { format!(" to='{to}'") };
    format!("<iq type='get' id='bug'{to}><now xmlns='urn:bug'/></iq>")
}

const ROSTER: &str = "<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>";

fn other_shard(node: &Node) -> &'static str {
    let fits = |name: &&&str| node.owner(name) != node.owner("alice");
    ["bob", "dave", "erin", "frank"].iter().find(fits).unwrap()
}

#[test]
fn sender_is_answered_and_its_stream_lives() {
    for to in ["", "here", "alice@here"] {
        let mut node = node(1);
        let alice = node.online("alice", "phone");
        node.send(alice, &meet(to));
        let answer = node.read(alice);
        assert_eq!(answer.matches("<iq ").count(), 1, "{answer}");
        assert!(answer.contains("<internal-server-error "), "{answer}");
        assert_eq!((attr(&answer, "id"), attr(&answer, "type")), ("bug", "error"));
        assert_eq!(node.faults(), 1);
        node.send(alice, "<iq type='get' id='2' to='here'><ping xmlns='urn:xmpp:ping'/></iq>");
        assert!(node.read(alice).contains("type='result' id='2'"));
    }
}

#[test]
fn effects_before_the_bug_are_cut_back_and_the_account_is_read_again() {
    let mut node = node(1);
    let carol = node.online("carol", "pc");
    let alice = node.online("alice", "phone");
    node.send(alice, ROSTER);
    node.read(alice);
    node.send(alice, &meet(""));
    let answer = node.read(alice);
    assert!(!answer.contains("ghost"), "{answer}");
    assert_eq!(node.read(carol), "");
    node.send(alice, ROSTER);
    let roster = node.read(alice);
    assert!(roster.contains("ver='0'") && !roster.contains("ghost"), "{roster}");
}

#[test]
fn stanza_that_met_a_bug_is_handled_and_the_numbers_go_on() {
    for shards in [1, 4] {
        let mut node = node(shards);
        node.users(&["bob", "carol", "dave"]);
        let (alice, _) = node.online_acked("alice", "phone");
        node.send(alice, &[meet("").as_str(), R].concat());
        let text = node.read(alice);
        assert!(text.contains("<a xmlns='urn:xmpp:sm:3' h='2'/>"), "{text}");
        let to = ["bob@here", "carol@here", "dave@here"];
        let more: String = to.iter().map(|to| chat(to, "hi")).collect();
        node.send(alice, &[more.as_str(), R].concat());
        let text = node.read(alice);
        assert!(text.contains("<a xmlns='urn:xmpp:sm:3' h='5'/>"), "{text}");
    }
}

#[test]
fn what_is_pipelined_behind_a_bug_waits_for_the_account_and_is_served() {
    let mut node = node(1);
    let bob = node.online("bob", "pc");
    let alice = node.login("alice", "phone");
    node.send(alice, &[&meet(""), ROSTER, "<presence/>", &chat("bob@here", "hi")].concat());
    let text = node.read(alice);
    assert!(text.contains("<query xmlns='jabber:iq:roster' ver='0'"), "{text}");
    assert!(text.contains("<presence from='alice@here/phone'"), "{text}");
    assert_eq!(bodies(&node.read(bob)), ["hi"]);
}

#[test]
fn contact_learns_that_a_session_ended_by_its_bugs_is_gone() {
    let mut node = node(1);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    crate::iq::befriend(&mut node, alice, bob, ["alice", "bob"]);
    for _ in 0..4 {
        node.send(alice, &meet(""));
    }
    assert!(!node.is_open(alice));
    let text = node.read(bob);
    assert!(text.contains("from='alice@here/phone'") && text.contains("'unavailable'"), "{text}");
}

#[test]
fn repeated_bugs_end_the_stream() {
    let mut node = node(1);
    let alice = node.online("alice", "phone");
    for _ in 0..3 {
        node.send(alice, &meet(""));
        assert!(node.is_open(alice));
    }
    node.send(alice, &meet(""));
    assert!(node.read(alice).contains("<stream:error><internal-server-error "));
    assert!(!node.is_open(alice));
    assert_eq!(node.faults(), 4);
}

#[test]
fn bug_in_a_frame_of_another_shard_is_answered_and_disturbs_nothing() {
    let mut node = node(4);
    let bob = other_shard(&node);
    let bobs = node.online(bob, "pc");
    let carol = node.online("carol", "pc");
    let (alice, _) = node.online_acked("alice", "phone");
    let to = format!("{bob}@here");
    node.hold_rings();
    node.send(alice, &[chat(&to, "1"), meet(&to), chat(&to, "2"), R.into()].concat());
    node.free_rings();
    assert_eq!(bodies(&node.read(bobs)), ["1", "2"]);
    assert_eq!(node.read(carol), "");
    let text = node.read(alice);
    assert_eq!(text.matches("<internal-server-error ").count(), 1, "{text}");
    assert!(text.contains("<a xmlns='urn:xmpp:sm:3' h='4'/>"), "{text}");
    assert_eq!((node.faults(), node.sessions()), (1, 3));
}

#[test]
fn bug_at_a_recipient_of_the_same_shard_reads_its_account_again() {
    let mut node = node(1);
    let bob = node.online("bob", "pc");
    let alice = node.online("alice", "phone");
    node.send(bob, ROSTER);
    node.read(bob);
    node.send(alice, &meet("bob@here"));
    assert!(node.read(alice).contains("<internal-server-error "));
    node.send(bob, ROSTER);
    let roster = node.read(bob);
    assert!(roster.contains("ver='0'") && !roster.contains("ghost"), "{roster}");
}

#[test]
fn bug_behind_the_store_is_answered_and_the_client_is_read_on() {
    for to in ["", "bob@here", "dave@here", "erin@here", "frank@here"] {
        let mut node = node(4);
        node.users(&["bob", "dave", "erin", "frank"]);
        let (alice, _) = node.online_acked("alice", "phone");
        let request = meet(to).replace("now", "late");
        node.send(alice, &[request.as_str(), &chat("bob@here", "next"), R].concat());
        let text = node.read(alice);
        assert_eq!(text.matches("<internal-server-error ").count(), 1, "{to}: {text}");
        assert!(text.contains("<a xmlns='urn:xmpp:sm:3' h='3'/>"), "{to}: {text}");
        assert!(node.is_read(alice));
        assert_eq!(node.faults(), 1);
    }
}

/// RFC 6120 §8.3.3.6: the stanza is answered, and the component's other work goes on; repeats end the stream.
#[test]
fn bug_met_by_a_component_costs_its_stanza() {
    silence();
    let mut node = Node::with_features(
        1,
        |config| config.components = vec![access("bot.here")],
        || vec![Box::new(Bug)],
    );
    let bot = node.component(0, "bot.here");
    let bug = "<iq type='get' id='1' from='bot.here' to='here'><now xmlns='urn:bug'/></iq>";
    for _ in 0..3 {
        node.send(bot, bug);
        assert!(
            node.read(bot)
                .contains("<internal-server-error xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>")
        );
    }
    let alice = node.online("alice", "phone");
    node.send(alice, &chat("bot.here", "hi"));
    assert_eq!(bodies(&node.read(bot)), ["hi"]);
    node.send(bot, bug);
    assert!(node.read(bot).ends_with("</stream:error></stream:stream>"));
    assert!(!node.is_open(bot));
    assert_eq!(node.faults(), 4);
    node.send(alice, &chat("bot.here", "hi"));
    assert!(node.read(alice).contains("<remote-server-timeout "));
}
