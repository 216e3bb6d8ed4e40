//! One run by several processes: nothing is lost in between, and a process that dies is told.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use corefire_load::drive::Flow;
use corefire_load::plan::{Plan, Request, Target};
use corefire_load::record::{Fault, Interval, Operation, Outcome};
use corefire_load::run::Watch;
use corefire_load::{run, workers};

#[path = "support/office.rs"]
mod office;

const SCENARIO: &str = "\
[connection]
tls = \"none\"
mechanism = \"PLAIN\"
[[phase]]
kind = \"ramp\"
length = \"1s\"
[[phase]]
kind = \"hold\"
length = \"2s\"
[[population]]
name = \"pairs\"
users = 40
[population.message]
rate = 200
[[population]]
name = \"others\"
users = 10
[population.ping]
rate = 50
";

/// One test after another: the workers of one are not to be taken for those of another.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Quiet {
    seconds: u64,
    invalid: Vec<String>,
    /// What to do in the second of that number.
    at: u64,
    then: Box<dyn FnMut() -> Flow>,
}

impl Quiet {
    fn new(at: u64, then: impl FnMut() -> Flow + 'static) -> Self {
        Self { seconds: 0, invalid: Vec::new(), at, then: Box::new(then) }
    }
}

impl Watch for Quiet {
    fn second(&mut self, interval: &Interval) -> Flow {
        assert_eq!(interval.number, self.seconds, "a second is missing");
        self.seconds += 1;
        if interval.number == self.at { (self.then)() } else { Flow::Continue }
    }

    fn fault(&mut self, _fault: &Fault) {}

    fn invalid(&mut self, reason: &str) {
        self.invalid.push(reason.to_owned());
    }
}

fn request(address: SocketAddr) -> Request {
    Request::new("workers", SCENARIO, vec![Target { address, domain: office::DOMAIN.to_owned() }])
}

fn by_workers(count: usize, watch: &mut Quiet) -> Outcome {
    let request = request(office::open());
    let plan = Plan::new(&request).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_corefire-load"));
    workers::run(program, count, &plan, &request, None, watch).unwrap()
}

fn counts(outcome: &Outcome) -> BTreeMap<Operation, (u64, u64, u64)> {
    let totals = outcome.totals(|_| true).unwrap();
    totals
        .into_iter()
        .map(|(operation, total)| {
            assert_eq!(total.response.count(), total.done, "{operation:?}");
            (operation, (total.planned, total.done, total.failed.values().sum()))
        })
        .collect()
}

#[test]
fn one_process_and_several_workers_give_the_same_counts() {
    let _alone = alone();
    let request = request(office::open());
    let plan = Plan::new(&request).unwrap();
    let mut go_on = Quiet::new(u64::MAX, || Flow::Continue);
    let by_one = run::run(&plan, &request, None, &mut go_on).unwrap();
    let expected = counts(&by_one);
    assert_eq!(expected[&Operation::Login], (50, 50, 0));
    assert!(expected[&Operation::Message].1 > 300, "{expected:?}");
    for count in [2, 3] {
        let mut watch = Quiet::new(u64::MAX, || Flow::Continue);
        let outcome = by_workers(count, &mut watch);
        assert_eq!(counts(&outcome), expected, "{count} workers");
        assert_eq!(outcome.environment.workers, count);
        let (sent, expected) = (outcome.ledger.sent, by_one.ledger.sent);
        assert_eq!((sent.messages, sent.received), (expected.messages, expected.received));
        assert_eq!((sent.lost, sent.corrupted, watch.invalid.len()), (0, 0, 0));
        assert_eq!(outcome.intervals.iter().map(|it| it.online).max(), Some(50));
    }
}

/// Processes that this one started, by their parent's entry in `/proc`.
fn children() -> Vec<u32> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        if parent.is_some_and(|parent| parent == own.to_string()) {
            found.push(pid);
        }
    }
    found
}

#[test]
fn a_worker_that_is_killed_makes_the_run_invalid_and_the_others_go_on() {
    let _alone = alone();
    let mut watch = Quiet::new(0, || {
        let worker = children()[0];
        Command::new("kill").args(["-KILL", &worker.to_string()]).status().unwrap();
        Flow::Continue
    });
    let outcome = by_workers(2, &mut watch);
    assert_eq!(watch.invalid.len(), 1);
    assert!(watch.invalid[0].contains("is lost") && watch.invalid[0].contains("signal: 9"));
    assert!(outcome.verdict.invalid.contains(&watch.invalid[0]), "{:?}", outcome.verdict);
    let last = outcome.intervals.iter().rfind(|it| it.phase == 1).unwrap();
    assert!(last.online > 10 && last.online < 40, "{} online", last.online);
    assert!(outcome.length >= Duration::from_secs(3));
}

#[test]
fn an_order_to_stop_ends_all_workers_before_their_time() {
    let _alone = alone();
    let mut watch = Quiet::new(0, || Flow::Stop);
    let outcome = by_workers(2, &mut watch);
    assert!(outcome.verdict.aborted.is_some());
    assert!(outcome.length < Duration::from_secs(3), "{:?}", outcome.length);
    assert_eq!(outcome.ledger.sent.lost, 0);
}

#[test]
fn a_target_that_refuses_is_told_by_workers_as_by_one_process() {
    let _alone = alone();
    // Bound and not listening: refused.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let request = request(address);
    let plan = Plan::new(&request).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_corefire-load"));
    let mut watch = Quiet::new(u64::MAX, || Flow::Continue);
    let failure = workers::run(program, 2, &plan, &request, None, &mut watch).unwrap_err();
    assert!(failure.to_string().contains("refused"), "{failure}");
}
