//! Two runs side by side: what is called better, the same and worse, and what is not compared at all.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;

use corefire_load::artefacts;
use corefire_load::compare::{Change, Options, Run, Unreadable, compare};
use corefire_load::record::Outcome;

#[path = "support/sample.rs"]
mod sample;

use sample::{STOP, chat, closed_chat, invalid, mixed_day, slower_chat};

const OPTIONS: Options = Options { confidence: 0.99, tolerance: 0.05, draws: 120, seed: 1 };

fn written(run: &Outcome) -> (tempfile::TempDir, Run) {
    let folder = tempfile::tempdir().unwrap();
    artefacts::write(run, folder.path()).unwrap();
    let run = Run::read(folder.path()).unwrap();
    (folder, run)
}

fn refused(a: &Outcome, b: &Outcome) -> String {
    let ((_a, a), (_b, b)) = (written(a), written(b));
    compare(&a, &b, &OPTIONS).unwrap_err().to_string()
}

#[test]
fn a_run_is_the_same_as_itself_and_as_one_with_other_noise() {
    let ((_a, a), (_b, b)) = (written(&chat(&[])), written(&slower_chat(1.0)));
    for other in [&a, &b] {
        let found = compare(&a, other, &OPTIONS).unwrap();
        assert_eq!((found.verdict, found.exit_status()), (Change::Same, 0), "{}", found.table());
    }
}

#[test]
fn a_slower_run_is_worse_and_the_other_way_round_better() {
    let ((_a, a), (_b, b)) = (written(&chat(&[])), written(&slower_chat(1.3)));
    let found = compare(&a, &b, &OPTIONS).unwrap();
    assert_eq!((found.verdict, found.exit_status()), (Change::Worse, 99));
    let p50 = found.rows.iter().find(|row| row.figure == "response p50").unwrap();
    let (low, high) = p50.interval.unwrap();
    assert!(low < 1.3 && 1.25 < low && high < 1.35, "{p50:?}");
    assert_eq!(p50.change, Change::Worse);
    // It does as much, and nothing fails.
    let rate = found.rows.iter().find(|row| row.figure == "done per second").unwrap();
    assert_eq!(rate.change, Change::Same);

    let back = compare(&b, &a, &OPTIONS).unwrap();
    assert_eq!((back.verdict, back.exit_status()), (Change::Better, 0));
    // A difference that is tolerated is none.
    let lenient = Options { tolerance: 0.5, ..OPTIONS };
    assert_eq!(compare(&a, &b, &lenient).unwrap().verdict, Change::Same);
}

#[test]
fn the_same_seed_gives_the_same_intervals() {
    let ((_a, a), (_b, b)) = (written(&chat(&[])), written(&slower_chat(1.3)));
    let once = compare(&a, &b, &OPTIONS).unwrap();
    assert_eq!(once, compare(&a, &b, &OPTIONS).unwrap());
    assert_ne!(once, compare(&a, &b, &Options { seed: 2, ..OPTIONS }).unwrap());
}

#[test]
fn a_single_stall_is_not_taken_for_the_run_to_come() {
    // One second of fifty holds it: many draws have none, so the tail is uncertain and says so.
    let ((_a, a), (_b, b)) = (written(&chat(&[])), written(&chat(&[STOP])));
    let found = compare(&a, &b, &OPTIONS).unwrap();
    let tail = found.rows.iter().find(|row| row.figure == "response p99.9").unwrap();
    let (low, high) = tail.interval.unwrap();
    assert!(low < 1.5 && high > 100.0, "{tail:?}");
}

#[test]
fn one_lost_message_more_is_worse() {
    let mut lossy = chat(&[]);
    lossy.ledger.acknowledged.lost = 1;
    let ((_a, a), (_b, b)) = (written(&chat(&[])), written(&lossy));
    let found = compare(&a, &b, &OPTIONS).unwrap();
    let worse: Vec<_> = found.rows.iter().filter(|row| row.change == Change::Worse).collect();
    assert_eq!(worse.len(), 1);
    assert_eq!(
        (worse[0].subject.as_str(), worse[0].figure.as_str()),
        ("acknowledged messages", "lost")
    );
    assert_eq!(found.exit_status(), 99);
}

#[test]
fn failures_that_were_not_there_are_worse() {
    let mut failing = chat(&[]);
    for interval in &mut failing.intervals[10..] {
        for tally in interval.tallies.values_mut() {
            tally.failed.insert("resource-constraint".to_owned(), 20);
        }
    }
    let ((_a, a), (_b, b)) = (written(&chat(&[])), written(&failing));
    let found = compare(&a, &b, &OPTIONS).unwrap();
    let failed = found.rows.iter().find(|row| row.figure == "failed").unwrap();
    assert_eq!(
        (failed.change, failed.a.as_str(), failed.b.as_str()),
        (Change::Worse, "0 %", "0.99 %")
    );
}

#[test]
fn runs_that_differ_in_what_they_did_are_not_compared() {
    let other = refused(&chat(&[]), &mixed_day());
    assert!(other.contains("A ran scenario chat, B ran mixed-day"), "{other}");
    let closed = refused(&chat(&[]), &closed_chat(&[]));
    assert!(closed.contains("A is an open loop, B is a closed loop, window 1"), "{closed}");
    let not_valid = refused(&invalid(), &chat(&[]));
    assert!(not_valid.contains("A is INVALID, the tool was the bottleneck: p99"), "{not_valid}");

    let mut changed = chat(&[]);
    changed.scenario = changed.scenario.replace("5ms", "9ms");
    let changed = refused(&chat(&[]), &changed);
    assert!(changed.contains("the scenarios are not the same: A has"), "{changed}");
    let mut commented = chat(&[]);
    commented.scenario.push_str("# --target other.example:5222\n");
    let ((_a, a), (_b, b)) = (written(&chat(&[])), written(&commented));
    assert_eq!(compare(&a, &b, &OPTIONS).unwrap().verdict, Change::Same);

    let mut aborted = chat(&[]);
    aborted.verdict.aborted = Some("the server closed all streams".to_owned());
    assert!(refused(&chat(&[]), &aborted).contains("B ended before its time: the server closed"));
    let mut more = chat(&[]);
    for interval in &mut more.intervals {
        interval.tallies.values_mut().for_each(|tally| tally.planned *= 2);
    }
    assert!(refused(&chat(&[]), &more).contains("message: A planned"));
    let mut short = chat(&[]);
    short.phases[0].length = std::time::Duration::from_secs(55);
    short.phases[1].begin = std::time::Duration::from_secs(55);
    short.intervals[10..55].iter_mut().for_each(|interval| interval.phase = 0);
    assert!(refused(&short, &short).contains("A measured 5 s"));
}

#[test]
fn folders_that_hold_no_run_are_told_apart() {
    let (folder, _) = written(&chat(&[]));
    let path = folder.path();
    let summary = fs::read_to_string(path.join("summary.json")).unwrap();
    let log = fs::read_to_string(path.join("latency.hlog")).unwrap();
    let with = |summary: &str, log: &str| {
        fs::write(path.join("summary.json"), summary).unwrap();
        fs::write(path.join("latency.hlog"), log).unwrap();
        Run::read(path)
    };
    let newer = summary.replacen("\"schema\": 1", "\"schema\": 2", 1);
    assert!(matches!(with(&newer, &log), Err(Unreadable::Schema(_, 2))));
    assert!(matches!(with("{}", &log), Err(Unreadable::Summary(..))));
    assert!(matches!(with(&summary, "nonsense\n"), Err(Unreadable::Log(..))));
    let shorter: Vec<&str> = log.lines().take(60).collect();
    let shorter = shorter.join("\n") + "\n";
    assert!(matches!(with(&summary, &shorter), Err(Unreadable::Apart { .. })));
    let damaged = log.replacen(",HISTF", ",HIST", 1);
    assert!(matches!(with(&summary, &damaged), Err(Unreadable::Log(..))));
    assert!(with(&summary, &log).is_ok());
    fs::remove_file(path.join("latency.hlog")).unwrap();
    assert!(matches!(Run::read(path), Err(Unreadable::File(..))));
}

#[test]
fn table_and_page_say_the_same() {
    let ((_a, a), (_b, b)) = (written(&chat(&[])), written(&slower_chat(1.3)));
    let found = compare(&a, &b, &OPTIONS).unwrap();
    let (table, page) = (found.table(), found.page(&a, &b).unwrap());
    assert!(table.starts_with("| Of | Figure | A | B | B / A | 99 % interval | Verdict |\n"));
    assert!(table.contains("| message | response p50 |") && table.contains("| **worse** |"));
    assert!(table.trim_end().ends_with("figures, better in 0."), "{table}");
    for row in &found.rows {
        assert!(page.contains(&format!("<td>{}</td><td>{}</td>", row.a, row.b)), "{row:?}");
    }
    assert!(page.contains("WORSE") && page.matches("<figure>").count() == 2);
}
