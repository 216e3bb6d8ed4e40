//! What operators ask and are told: list, check, close, block.

use crate::certs;
use crate::peer::*;
use crate::rig::{Rig, Wish};
use crate::world::World;
use corefire::federation::control::{Answered, Request, State, Step};
use corefire::federation::discovery::Problem;
use corefire::federation::{Failure, Input};
use std::time::Duration;

#[test]
fn the_list_says_how_things_stand() {
    let mut world = World::new(1, &[A, B]).certified();
    world.at(0, |rig| rig.message("x@a.example/1", "y@b.example", "m"));
    world.run(Duration::from_secs(2));
    world.at(0, |rig| rig.message("x@a.example/1", "y@dead.example", "m"));
    world.run(Duration::from_secs(2));
    let request = Request::List { after: None, limit: 10 };
    let answered = world.at(0, |rig| rig.ask(request)).unwrap();
    let Answered::List { domains, more } = answered else { panic!("{answered:?}") };
    assert!(!more);
    let states: Vec<_> = domains.iter().map(|one| (&*one.domain, one.state, one.sent)).collect();
    assert_eq!(states, [(B, State::Connected, 1), ("dead.example", State::Idle, 0)]);
    assert!(domains[1].failure.as_ref().unwrap().1.contains("DNS"), "{domains:?}");
}

#[test]
fn a_check_tells_each_step() {
    let mut rig = Rig::new(A);
    rig.ask(Request::Check { domain: B.into(), own: None });
    let (conn, said) = goes(&mut rig, certs::self_signed(B), DIALBACK);
    assert!(said.contains("<db:result"), "{said}");
    rig.hear(conn, "<db:result from='b.example' to='a.example' type='valid'/>");
    let Some(Answered::Checked(check)) = rig.answers.values().next().cloned() else { panic!() };
    assert_eq!(check.failure, None);
    let steps: Vec<_> = check.steps.iter().map(|step| (step.step, step.sound)).collect();
    assert_eq!(
        steps,
        [
            (Step::Policy, true),
            (Step::Dns, true),
            (Step::Tcp, true),
            (Step::Tls, false),
            (Step::Stream, true),
            (Step::Auth, true)
        ]
    );
    assert!(check.steps[3].text.contains("self-signed"), "{check:?}");
    assert!(rig.has_closed(conn));
    assert_eq!(rig.federation.connections(), 0);
}

#[test]
fn a_check_that_fails_says_where() {
    let mut rig = Rig::new(A);
    rig.ask(Request::Check { domain: B.into(), own: None });
    let Some(Wish::Resolve(conn, _)) = rig.wishes.pop_front() else { panic!() };
    let outcome = Err(Problem::NoSuchDomain { ttl_s: 60 });
    rig.give(Input::Resolved { conn, outcome, took: Duration::ZERO });
    let Some(Answered::Checked(check)) = rig.answers.values().next().cloned() else { panic!() };
    assert_eq!(check.failure, Some(Failure::NotFound));
    let last = check.steps.last().unwrap();
    assert_eq!((last.step, last.sound), (Step::Dns, false));
    // Next by a target that fails after another one.
    rig.answers.clear();
    rig.wishes.clear();
    rig.ask(Request::Check { domain: B.into(), own: None });
    rig.resolve(B, "one.example:5269 two.example:5269");
    let conn = rig.connect(0, None);
    rig.lose(conn);
    rig.wishes.retain(|wish| matches!(wish, Wish::Dial(..)));
    let conn = rig.connect(1, None);
    rig.lose(conn);
    let Some(Answered::Checked(check)) = rig.answers.values().next().cloned() else { panic!() };
    assert_eq!(check.failure, Some(Failure::Lost));
    let last = &check.steps.last().unwrap().text;
    assert!(last.contains("one.example") && last.contains("two.example"), "{last}");
}

#[test]
fn a_blocked_domain_is_cut_off_both_ways() {
    let mut rig = Rig::new(A);
    let theirs = authenticated(&mut rig);
    rig.message("x@a.example/1", "y@b.example", "m1");
    let answered = rig.ask(Request::Block { domain: B.into() });
    assert_eq!(answered, Some(Answered::Blocked { new: true, connections: 2 }));
    assert!(rig.said(theirs).contains("<policy-violation"));
    rig.message("x@a.example/1", "y@b.example", "m2");
    let texts = rig.texts();
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts.iter().all(|text| text.contains("<remote-server-not-found")));
    assert_eq!(rig.handled, 2);
    let conn = rig.accept("192.0.2.7:4000");
    rig.hear(conn, &header(B, A, ""));
    assert!(rig.said(conn).contains("<policy-violation"));
    assert_eq!(
        rig.ask(Request::Unblock { domain: B.into() }),
        Some(Answered::Unblocked { was: true })
    );
    rig.message("x@a.example/1", "y@b.example", "m3");
    assert!(rig.wishes.iter().any(|wish| matches!(wish, Wish::Resolve(..))));
}

#[test]
fn what_waits_goes_out_anew_after_a_close() {
    let mut world = World::new(3, &[A, B]);
    world.at(0, |rig| rig.message("x@a.example/1", "y@b.example", "m1"));
    world.run(Duration::from_secs(3));
    let answered = world.at(0, |rig| rig.ask(Request::Close { domain: B.into() }));
    assert!(matches!(answered, Some(Answered::Closed { connections: 1 | 2 })), "{answered:?}");
    world.at(0, |rig| rig.message("x@a.example/1", "y@b.example", "m2"));
    world.run(Duration::from_secs(5));
    assert_eq!(world.messages(1), ["m1", "m2"]);
}

#[test]
fn the_end_says_goodbye_and_keeps_what_is_stored() {
    let mut rig = Rig::new(A);
    let theirs = authenticated(&mut rig);
    rig.message("x@a.example/1", "y@b.example", "m1");
    rig.iq("x@a.example/1", "y@b.example", "q1");
    rig.give(Input::Shutdown);
    assert!(rig.said(theirs).contains("<system-shutdown"));
    let texts = rig.texts();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(texts[0].contains("q1"));
    let rig = rig.restarted();
    assert!(rig.wishes.iter().any(|wish| matches!(wish, Wish::Resolve(..))));
}
