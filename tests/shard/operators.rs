//! What operators see and do: sessions in pages, sessions that are ended, accounts that are disabled or deleted, and the
//! errands that features give to side threads.

use crate::harness::{Node, PASSWORD, bare, chat, plain};
use corefire::shard::errand::{Errand, Outcome, Secret};
use corefire::shard::{Answers, Feature, Iq, Manifest, Method, Scope, Turn, Verdict};
use corefire::store::Write;
use corefire::xmpp::stanza_error::{StanzaCondition, StanzaError};
use std::any::Any;
use std::time::Duration;

#[test]
fn a_full_jid_ends_one_session_and_a_bare_one_all() {
    let mut node = Node::new(2);
    let (phone, _) = node.online_acked("alice", "phone");
    let desk = node.online("alice", "desk");
    let away = node.login("alice", "away");
    node.kick("alice@here/nowhere");
    assert_eq!(node.session_facts("alice").len(), 3, "nothing ends that was not named");
    node.kick("alice@here/phone");
    let told = node.read(phone);
    assert!(told.contains("<policy-violation") && told.contains("an operator has ended"), "{told}");
    assert!(!node.is_open(phone));
    assert!(node.read(desk).contains("type='unavailable'"), "the others see it go");
    node.kick("alice@here");
    for client in [desk, away] {
        assert!(node.read(client).contains("<policy-violation"));
        assert!(!node.is_open(client));
    }
    assert_eq!((node.sessions(), node.faults()), (0, 0));
    node.online("alice", "phone");
}

#[test]
fn a_session_that_was_ended_cannot_be_resumed() {
    let mut node = Node::new(1);
    let (phone, id) = node.online_acked("alice", "phone");
    node.cut(phone);
    assert_eq!(node.session_facts("alice")[0].peer, None, "it waits to be resumed");
    node.kick("alice@here");
    assert_eq!(node.sessions(), 0);
    let again = node.authenticate(0, "alice");
    node.send(again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"));
    assert!(node.read(again).contains("<item-not-found"));
}

#[test]
fn the_sessions_of_a_disabled_account_end_and_only_its_user_learns_why_none_begins() {
    let mut node = Node::new(2);
    let alice = node.online("alice", "phone");
    let disable = |disabled| Write::SetDisabled { owner: bare("alice"), disabled };
    node.change_account("alice", disable(true));
    let told = node.read(alice);
    assert!(told.contains("<policy-violation") && told.contains("disabled"), "{told}");
    assert_eq!(node.sessions(), 0);

    let attempt = |node: &mut Node, password| {
        let client = node.connect(0);
        node.send(client, crate::harness::HEADER);
        node.send(client, &plain("alice", password));
        node.read(client)
    };
    let refused = attempt(&mut node, PASSWORD);
    assert!(refused.contains("<account-disabled"), "{refused}");
    let refused = attempt(&mut node, "wrong");
    assert!(refused.contains("<not-authorized") && !refused.contains("disabled"), "{refused}");

    let bob = node.online("bob", "desk");
    node.send(bob, &chat("alice@here", "later"));
    assert_eq!(node.read(bob), "", "what belongs to it stays, and messages are kept");
    node.change_account("alice", disable(false));
    let alice = node.online("alice", "phone");
    assert_eq!(node.logged("alice"), 0);
    node.send(alice, &chat("bob@here", "back"));
    assert!(node.read(bob).contains("back"));
}

#[test]
fn operators_see_where_clients_are_and_how_long_they_were_silent() {
    let mut node = Node::new(1);
    let _alice = node.online_with("alice", "phone", 3);
    node.login("alice", "desk");
    node.advance(Duration::from_secs(30));
    let facts = node.session_facts("alice");
    let [phone, desk] = &facts[..] else { panic!("{facts:?}") };
    assert_eq!(phone.jid.to_string(), "alice@here/phone");
    assert_eq!(phone.peer, Some([192, 0, 2, 1].into()));
    assert!(phone.secure && !phone.resumable);
    assert_eq!((phone.priority, desk.priority), (Some(3), None));
    assert_eq!(phone.idle, Some(Duration::from_secs(30)));
    assert_eq!(phone.since.0, 1_700_000_000_000_000);
}

#[test]
fn sessions_are_told_in_pages_each_once() {
    let mut node = Node::new(1);
    let names: Vec<String> = (0..7).map(|n| format!("user{n}")).collect();
    for name in &names {
        node.login(name, "r");
    }
    node.kick("user3@here");
    let pages = node.session_pages(0, 2);
    assert!(pages.iter().all(|page| page.len() <= 2), "{pages:?}");
    let mut all: Vec<String> = pages.concat();
    all.sort();
    let rest = names.iter().filter(|name| *name != "user3");
    assert_eq!(all, rest.map(|name| format!("{name}@here/r")).collect::<Vec<_>>());
    assert_eq!(node.session_pages(0, 100).len(), 1);
}

/// Changes the password of whoever asks, and says what came of it.
struct Asks;

static ASKS: Manifest = Manifest {
    name: "asks",
    answers: &[Answers {
        method: Method::Set,
        namespace: "test",
        name: "ask",
        scopes: &[Scope::Server],
    }],
    ..Manifest::EMPTY
};

impl Feature for Asks {
    fn manifest(&self) -> &'static Manifest {
        &ASKS
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        let name = iq.from.split('@').next().unwrap();
        let password = Secret(iq.payload.text().into_owned());
        turn.errand(Errand::ChangePassword { jid: bare(name), password }, name.to_owned());
        Verdict::Pending
    }

    fn on_errand(
        &mut self,
        _turn: &mut Turn<'_>,
        from: &str,
        context: Box<dyn Any>,
        outcome: Outcome,
    ) -> Result<Vec<u8>, StanzaError> {
        let name = context.downcast::<String>().expect("what was given");
        assert!(from.starts_with(&*name));
        match outcome {
            Outcome::Done => Ok(b"<done xmlns='test'/>".to_vec()),
            Outcome::Refused(_) => panic!("a feature's fault is contained here, too"),
            _ => Err(StanzaCondition::ResourceConstraint.into()),
        }
    }
}

fn asks() -> Vec<Box<dyn Feature>> {
    vec![Box::new(Asks)]
}

#[test]
fn what_a_client_sends_behind_an_errand_waits_for_it_and_each_request_has_one_answer() {
    let mut node = Node::with_features(2, |_| {}, asks);
    let bob = node.online("bob", "desk");
    let alice = node.online("alice", "phone");
    let ask = |id: &str, password: &str| {
        format!("<iq type='set' to='here' id='{id}'><ask xmlns='test'>{password}</ask></iq>")
    };
    node.send(alice, &[ask("1", "new secret"), chat("bob@here", "after")].concat());
    assert!(node.read(alice).contains("<done"));
    assert!(node.read(bob).contains("after"));
    node.errands_fail = true;
    node.send(alice, &ask("2", "newer"));
    assert!(node.read(alice).contains("<resource-constraint"));
    node.errands_fail = false;
    // No password at all makes the feature fail.
    node.send(alice, &ask("3", ""));
    assert!(node.read(alice).contains("<internal-server-error"));
    assert_eq!(node.faults(), 1);
    let kept = node.record("alice").unwrap().credentials;
    assert!(kept != *crate::harness::CREDENTIALS, "the password is another");
}
