//! Plans: the same seed makes the same schedule; options change what they name and nothing else.

use std::collections::HashMap;

use super::*;
use crate::record::Operation;

const TEXT: &str = "\
seed = 5
[[phase]]
kind = \"ramp\"
length = \"2s\"
[[phase]]
name = \"rise\"
length = \"10s\"
load = [0.0, 1.0]
[[phase]]
name = \"storm\"
kind = \"storm\"
length = \"4s\"
share = 0.5
spread = \"2s\"
load = 1.0
[[population]]
users = 40
[population.message]
rate = 100
[[population]]
users = 10
[population.ping]
rate = 20
[[fault]]
at = \"7s\"
exec = \"true\"
";

fn request() -> Request {
    Request::new(
        "test",
        TEXT,
        vec![Target { address: ([127, 0, 0, 1], 5222).into(), domain: "localhost".to_owned() }],
    )
}

fn bytes(plan: &Plan) -> Vec<u8> {
    plan.schedule().flat_map(|due| due.bytes()).collect()
}

#[test]
fn the_same_seed_makes_the_same_schedule_byte_for_byte() {
    let plan = Plan::new(&request()).unwrap();
    let again = Plan::new(&request()).unwrap();
    assert_eq!(bytes(&plan), bytes(&again));
    assert_eq!(plan.summary(), again.summary());
    let other = Plan::new(&Request { seed: Some(6), ..request() }).unwrap();
    assert_ne!(bytes(&plan), bytes(&other));
    assert_ne!(plan.summary().digest, other.summary().digest);
}

#[test]
fn entries_are_in_order_and_as_many_as_the_rates_say() {
    let plan = Plan::new(&request()).unwrap();
    let list: Vec<Due> = plan.schedule().collect();
    assert!(list.is_sorted_by_key(|due| due.at));
    let mut counts: HashMap<&str, u64> = HashMap::new();
    for due in &list {
        let kind = match due.act {
            Act::Login => "login",
            Act::Logout => "logout",
            Act::Cut => "cut",
            Act::Operation(operation) => operation.name(),
        };
        *counts.entry(kind).or_default() += 1;
    }
    // 100/s over a rise of 10 s and 4 s at full load; three standard deviations of a Poisson count.
    assert!(counts["message"].abs_diff(900) < 90, "{counts:?}");
    assert!(counts["ping"].abs_diff(180) < 41, "{counts:?}");
    assert_eq!(counts["login"], 50 + counts["cut"]);
    assert!(counts["cut"].abs_diff(25) < 12, "{counts:?}");
    // A rise has three quarters of its operations in its second half.
    let rise = |from: u64, to: u64| {
        let within = |due: &&Due| {
            due.act == Act::Operation(Operation::Message)
                && due.at >= Duration::from_secs(from)
                && due.at < Duration::from_secs(to)
        };
        list.iter().filter(within).count() as f64
    };
    assert!((rise(7, 12) / rise(2, 12) - 0.75).abs() < 0.06);
}

#[test]
fn even_arrivals_have_equal_gaps() {
    let text = format!("arrivals = \"even\"\n{TEXT}").replace("load = [0.0, 1.0]", "load = 1.0");
    let plan = Plan::new(&Request { scenario: text, ..request() }).unwrap();
    let at = |due: &Due| (due.act == Act::Operation(Operation::Message)).then_some(due.at);
    let moments: Vec<Duration> = plan.schedule().filter_map(|due| at(&due)).collect();
    for pair in moments.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(gap.abs_diff(Duration::from_millis(10)) < Duration::from_micros(1), "{gap:?}");
    }
}

#[test]
fn options_change_users_rates_and_lengths_in_proportion() {
    let plan = Plan::new(&Request {
        users: Some(100),
        rate: Some(60.0),
        duration: Some(Duration::from_secs(7)),
        ..request()
    })
    .unwrap();
    let users: Vec<u64> = plan.scenario.populations.iter().map(|p| p.users).collect();
    assert_eq!(users, [80, 20]);
    assert!((plan.scenario.rate() - 60.0).abs() < 1e-9);
    // 14 s are measured, in two phases.
    let lengths: Vec<f64> = plan.phases.iter().map(|p| p.wish.length.as_secs_f64()).collect();
    assert_eq!(lengths, [2.0, 5.0, 2.0]);
    // Half through the rise, as before.
    assert_eq!(plan.scenario.faults[0].at, Duration::from_secs_f64(4.5));
    let small = Plan::new(&Request { users: Some(1), ..request() }).unwrap();
    let users: Vec<u64> = small.scenario.populations.iter().map(|p| p.users).collect();
    assert_eq!(users, [2, 1], "whole groups, at least one");
}

#[test]
fn shares_split_users_without_gap_or_overlap_and_keep_partners_together() {
    let plan = Plan::new(&request()).unwrap();
    for user in 0..40 {
        let owners: Vec<u64> =
            (0..3).filter(|index| plan.is_in(Share { index: *index, count: 3 }, 0, user)).collect();
        assert_eq!(owners.len(), 1);
        assert!(plan.is_in(Share { index: owners[0], count: 3 }, 0, user ^ 1));
    }
}

#[test]
fn a_fault_behind_the_end_is_refused() {
    let text = TEXT.replace("at = \"7s\"", "at = \"17s\"");
    let error = Plan::new(&Request { scenario: text, ..request() }).unwrap_err();
    assert!(matches!(error, PlanError::Request(what) if what.contains("after the end")));
}

#[test]
fn rooms_have_occupants_by_zipf_and_belong_to_one_worker() {
    let text = TEXT
        .replace("[population.message]\nrate = 100", "[population.room]\nrate = 100\nrooms = 4");
    let plan = Plan::new(&Request { scenario: text, ..request() }).unwrap();
    let sizes: Vec<u64> = (0..4)
        .map(|room| {
            let occupants = plan.occupants(0, room);
            for user in occupants.clone() {
                assert_eq!(plan.room_of(0, user), Some(room));
                assert!(plan.is_in(Share { index: room % 3, count: 3 }, 0, user));
            }
            occupants.end - occupants.start
        })
        .collect();
    // 36 of the 40 go by 1, 1/2, 1/3, 1/4.
    assert_eq!(sizes.iter().sum::<u64>(), 40);
    assert_eq!(sizes, [18, 10, 7, 5]);
    assert_eq!(plan.room_of(1, 0), None);
}

#[test]
fn whom_a_component_writes_to_belongs_to_the_first_worker() {
    let text = format!(
        "{}[component]\nsecret = \"s\"\n",
        TEXT.replace("[population.ping]", "[population.component-message]")
    );
    let here = ([127, 0, 0, 1], 1).into();
    let with = Request { scenario: text, component: Some(here), ..request() };
    let plan = Plan::new(&with).unwrap();
    assert_eq!(plan.component().map(|component| component.connect), Some(here));
    let (first, second) = (Share { index: 0, count: 2 }, Share { index: 1, count: 2 });
    assert!((0..10).all(|user| plan.is_in(first, 1, user) && !plan.is_in(second, 1, user)));
    assert!((0..40).any(|user| plan.is_in(second, 0, user)));
    assert!(Plan::new(&Request { closed: Some(1), ..with }).is_ok(), "a window for each recipient");
    let nobody = Plan::new(&Request { component: Some(here), ..request() }).unwrap_err();
    assert!(matches!(nobody, PlanError::Request(what) if what.contains("[component]")));
}

/// With two targets and a partner each: all messages go from the first to the second, at the rate that was asked for.
#[test]
fn where_only_the_first_of_each_group_sends_nobody_else_does() {
    let senders = |text: &str| {
        let targets = [("a.example", 5222), ("b.example", 6222)].map(|(domain, port)| Target {
            address: ([127, 0, 0, 1], port).into(),
            domain: domain.to_owned(),
        });
        let plan = Plan::new(&Request::new("test", text, targets.to_vec())).unwrap();
        let mut sent = vec![0; 40];
        for due in plan.schedule() {
            if due.act == Act::Operation(Operation::Message) {
                sent[due.user as usize] += 1;
            }
        }
        let of_second = (0..40).filter(|user| plan.target_of(*user) == 1);
        (sent.iter().sum::<u64>(), of_second.map(|user| sent[user as usize]).sum::<u64>())
    };
    let (all, of_second) = senders(TEXT);
    assert!(of_second * 3 > all, "{of_second} of {all}");
    let text = TEXT.replace("rate = 100\n", "rate = 100\nsenders = \"first\"\n");
    assert_eq!(senders(&text), (all, 0));
}
