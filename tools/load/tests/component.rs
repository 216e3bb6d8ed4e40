//! An external component (XEP-0114) as the sender of a run.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;

use corefire_load::drive::Failure;
use corefire_load::plan::{Plan, Request, Target};
use corefire_load::record::{Operation, Outcome};
use corefire_load::run::{self, Unwatched};
use corefire_load::workers;

#[path = "support/office.rs"]
mod office;

const SCENARIO: &str = "\
lag_max = \"10s\"
[connection]
tls = \"none\"
mechanism = \"PLAIN\"
[component]
secret = \"stamps\"
[[phase]]
kind = \"ramp\"
length = \"1s\"
[[phase]]
kind = \"hold\"
length = \"2s\"
[[population]]
name = \"notified\"
users = 20
[population.component-message]
rate = 100
body = 200
to = \"account\"
[[population]]
name = \"pairs\"
users = 10
[population.message]
rate = 50
[population.component-message]
rate = 30
to = \"session\"
";

fn request(scenario: &str, address: SocketAddr) -> Request {
    Request {
        component: Some(address),
        ..Request::new(
            "component",
            scenario,
            vec![Target { address, domain: office::DOMAIN.to_owned() }],
        )
    }
}

fn done(outcome: &Outcome, operation: Operation) -> (u64, u64) {
    let totals = outcome.totals(|_| true).unwrap();
    let total = &totals[&operation];
    assert!(total.failed.is_empty(), "{:?}", total.failed);
    assert_eq!(total.response.count(), total.done);
    (total.planned, total.done)
}

fn check(outcome: &Outcome) {
    let (planned, notified) = done(outcome, Operation::ComponentMessage);
    assert!((150..400).contains(&planned), "{planned} planned");
    assert_eq!(planned, notified);
    let (_, talked) = done(outcome, Operation::Message);
    let sent = &outcome.ledger.sent;
    assert_eq!((sent.messages, sent.received), (notified + talked, notified + talked));
    assert_eq!((sent.lost, sent.duplicated, sent.reordered, sent.corrupted), (0, 0, 0, 0));
}

#[test]
fn messages_of_a_component_reach_users_and_are_in_the_ledger() {
    let request = request(SCENARIO, office::open());
    let plan = Plan::new(&request).unwrap();
    check(&run::run(&plan, &request, None, &mut Unwatched).unwrap());
}

#[test]
fn a_component_keeps_a_window_open_for_each_recipient() {
    let request = Request { closed: Some(2), ..request(SCENARIO, office::open()) };
    let plan = Plan::new(&request).unwrap();
    let outcome = run::run(&plan, &request, None, &mut Unwatched).unwrap();
    let (_, notified) = done(&outcome, Operation::ComponentMessage);
    assert!(notified > 1000, "as fast as they are read: {notified}");
    let sent = &outcome.ledger.sent;
    assert_eq!((sent.received, sent.lost, sent.reordered), (sent.messages, 0, 0));
}

#[test]
fn with_workers_the_component_still_has_one_connection() {
    let request = request(SCENARIO, office::open());
    let plan = Plan::new(&request).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_corefire-load"));
    check(&workers::run(program, 2, &plan, &request, None, &mut Unwatched).unwrap());
}

#[test]
fn a_component_with_a_wrong_secret_is_a_fault_of_the_target() {
    let request = request(&SCENARIO.replace("stamps", "coins"), office::open());
    let plan = Plan::new(&request).unwrap();
    let failure = run::run(&plan, &request, None, &mut Unwatched).unwrap_err();
    let Failure::Target(what) = failure else { panic!("{failure}") };
    assert!(what.starts_with("component service.office.example at 127.0.0.1:"), "{what}");
    assert!(what.contains("not-authorized") && what.contains("secret"), "{what}");
}
