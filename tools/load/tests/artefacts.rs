//! What runs leave behind: figures that agree wherever they are written, stamps, and stalls.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use corefire_load::artefacts::hlog::{Log, Time};
use corefire_load::artefacts::{self, Figures, Summary};
use corefire_load::record::Operation;

#[path = "support/sample.rs"]
mod sample;

use sample::{Pause, STOP, chat, closed_chat, invalid, mixed_day, slower_chat};

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The text between two others.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("no {begin}"));
    rest.split_once(end).unwrap_or_else(|| panic!("no {end} after {begin}")).0
}

/// The numbers of all `<data>` in a piece of the page.
fn data(html: &str) -> Vec<f64> {
    let parts = html.split("<data value=\"").skip(1);
    parts.map(|part| part.split_once('"').unwrap().0.parse().unwrap()).collect()
}

#[test]
fn log_distributions_summary_and_page_agree() {
    let folder = tempfile::tempdir().unwrap();
    let run = mixed_day();
    let written = artefacts::write(&run, folder.path()).unwrap();
    let summary: Summary = serde_json::from_str(&read(folder.path(), "summary.json")).unwrap();
    assert_eq!(summary, written);

    let log = Log::read(&read(folder.path(), "latency.hlog")).unwrap();
    let page = read(folder.path(), "report.html");
    let phases = |measured_only: bool| -> Vec<usize> {
        let all = summary.phases.iter().enumerate();
        all.filter(|(_, it)| it.measured || !measured_only).map(|(place, _)| place).collect()
    };
    let over = |key, phases: &[usize]| {
        log.merged(key, |second| {
            summary.timeline.iter().any(|it| it.second == second && phases.contains(&it.phase))
        })
    };
    let mut compared = 0;
    for (operation, of) in &summary.operations {
        for (time, figures) in [(Time::Response, of.response), (Time::Service, of.service)] {
            let key = (*operation, time);
            assert_eq!(Figures::of(&over(key, &phases(true))), figures, "{key:?} in the log");
            let name = format!("{}.{}", operation.name(), time.name());
            let cells = data(between(&page, &format!("<tr data-row=\"{name}\""), "</tr>"));
            let counts = [of.planned as f64, of.done as f64, of.failed as f64, of.done_per_s];
            let shown = [
                figures.count as f64,
                figures.mean_us,
                figures.p50_us as f64,
                figures.p90_us as f64,
                figures.p99_us as f64,
                figures.p99_9_us as f64,
                figures.p99_99_us as f64,
                figures.max_us as f64,
            ];
            let expected =
                if time == Time::Response { [&counts[..], &shown].concat() } else { shown.into() };
            assert_eq!(cells, expected, "{name} on the page");
            compared += 1;
        }
    }
    assert_eq!(compared, 12);

    for (place, phase) in summary.phases.iter().enumerate() {
        for (operation, of) in &phase.operations {
            if of.done == 0 {
                continue;
            }
            let name = phase.name.replace(' ', "-");
            for (time, figures) in [(Time::Response, of.response), (Time::Service, of.service)] {
                let key = (*operation, time);
                assert_eq!(Figures::of(&over(key, &[place])), figures, "{key:?} in {name}");
                let file = format!("{}.{name}.{}.hgrm", operation.name(), time.name());
                let text = read(folder.path(), &file);
                let at = |share: &str| -> f64 {
                    let lines = text.lines().map(|it| it.split_whitespace().collect::<Vec<_>>());
                    let mut rows = lines.filter(|row| row.get(1) == Some(&share));
                    rows.next().unwrap_or_else(|| panic!("{file}: no {share}"))[0].parse().unwrap()
                };
                assert_eq!(at("0.500000000000"), figures.p50_us as f64 / 1e3, "{file}");
                assert_eq!(at("1.000000000000"), figures.max_us as f64 / 1e3, "{file}");
                let count = between(&text, "Total count    = ", "]").trim();
                assert_eq!(count.parse::<u64>().unwrap(), figures.count, "{file}");
            }
        }
    }

    let errors = between(&page, "<section id=\"errors\">", "</section>");
    for (condition, times) in &summary.errors {
        let row = between(errors, &format!("<tr data-condition=\"{condition}\">"), "</tr>");
        assert_eq!(data(row)[0], *times as f64);
    }
    for (name, counts) in
        [("sent", summary.ledger.sent), ("archived", summary.ledger.archived.unwrap())]
    {
        let row = data(between(&page, &format!("<tr data-ledger=\"{name}\">"), "</tr>"));
        let told = [counts.messages, counts.received, counts.bounced, counts.lost];
        assert_eq!(row[..4], told.map(|count| count as f64));
    }
    let stall = data(between(&page, "<tr data-stall=", "</tr>"));
    assert_eq!(stall[0], summary.stalls[0].length_ms as f64);
    let cost = data(between(&page, "<p id=\"cost\">", "</p>"));
    assert_eq!(cost, [9.4, 312.0, 2874.0]);
}

#[test]
fn the_timeline_adds_up_to_the_operations() {
    let summary = Summary::of(&mixed_day()).unwrap();
    let mut sums = BTreeMap::<Operation, (u64, u64, u64)>::new();
    for second in summary.timeline.iter().filter(|it| summary.phases[it.phase].measured) {
        for (operation, tally) in &second.operations {
            let sum = sums.entry(*operation).or_default();
            sum.0 += tally.planned;
            sum.1 += tally.done;
            sum.2 += tally.failed.values().sum::<u64>();
        }
    }
    for (operation, of) in &summary.operations {
        assert_eq!(sums[operation], (of.planned, of.done, of.failed));
        assert_eq!(of.response.count, of.done);
    }
}

#[test]
fn a_stop_of_half_a_second_is_a_stall_of_about_its_length_and_shows_in_the_tail() {
    let summary = Summary::of(&chat(&[STOP])).unwrap();
    let [stall] = &summary.stalls[..] else { panic!("{:?}", summary.stalls) };
    assert_eq!((stall.from_s, stall.to_s), (40, 41));
    assert!((490..=520).contains(&stall.length_ms), "{stall:?}");
    // Half a second of 50 is 1 %; the slowest tenth of those who waited are beyond p99.9.
    let tail = summary.operations[&Operation::Message].response.p99_9_us;
    assert!((430_000..520_000).contains(&tail), "{tail}");
}

#[test]
fn a_closed_loop_hides_the_same_stop() {
    let summary = Summary::of(&closed_chat(&[STOP])).unwrap();
    let response = summary.operations[&Operation::Message].response;
    assert!(response.p99_9_us < 5_000 && response.max_us > 490_000, "{response:?}");
    assert_eq!(summary.stalls, []);
}

#[test]
fn what_is_no_stall_is_not_called_one() {
    assert_eq!(Summary::of(&chat(&[])).unwrap().stalls, []);
    // One that waits alone: a slow answer.
    let mut run = chat(&[]);
    let tally = run.intervals[30].tallies.get_mut(&Operation::Message).unwrap();
    let mut response = tally.response.unpack().unwrap();
    response.record(std::time::Duration::from_millis(700));
    tally.response = response.pack();
    assert_eq!(Summary::of(&run).unwrap().stalls, []);
    // Slow from some moment on: overload.
    let mut run = chat(&[]);
    let slow = slower_chat(400.0);
    run.intervals.truncate(30);
    run.intervals.extend(slow.intervals[30..].iter().cloned());
    assert_eq!(Summary::of(&run).unwrap().stalls, []);
}

#[test]
fn stalls_are_found_wherever_seconds_begin_and_end() {
    let ms = |from: u64, to: u64| Pause { from_us: from * 1000, to_us: to * 1000, kills: false };
    let found = |pauses: &[Pause]| -> Vec<(u64, u64, u64)> {
        let stalls = Summary::of(&chat(pauses)).unwrap().stalls;
        stalls.iter().map(|it| (it.from_s, it.to_s, (it.length_ms + 50) / 100)).collect()
    };
    // Over a border; with its end just before one; of whole seconds.
    assert_eq!(found(&[ms(20_800, 21_300)]), [(21, 22, 5)]);
    assert_eq!(found(&[ms(20_498, 20_998)]), [(20, 21, 5)]);
    assert_eq!(found(&[ms(20_400, 23_300)]), [(21, 24, 29)]);
    assert_eq!(found(&[ms(20_200, 20_280), ms(21_300, 21_800)]), [(20, 21, 1), (21, 22, 5)]);
    // Two in seconds side by side, and one that never ends.
    assert_eq!(found(&[ms(20_200, 20_500), ms(21_300, 21_600)]), [(20, 21, 3), (21, 22, 3)]);
    let [(from, to, length)] = found(&[Pause { kills: true, ..ms(56_000, 70_000) }])[..] else {
        panic!("not one")
    };
    assert_eq!((from, to, length), (56, 60, 40));
}

#[test]
fn a_closed_loop_and_an_invalid_run_are_stamped_on_every_artefact() {
    for (run, stamp, heading) in [
        (closed_chat(&[]), "CLOSED LOOP, window 1", "CLOSED LOOP, window 1."),
        (invalid(), "INVALID: a worker used 99 % of its core", "INVALID: the tool was"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        artefacts::write(&run, folder.path()).unwrap();
        let mut checked = 0;
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            let has = match path.extension().unwrap().to_str().unwrap() {
                "html" => text.contains(heading),
                "json" => {
                    let summary: Summary = serde_json::from_str(&text).unwrap();
                    summary.window == Some(1) || !summary.invalid.is_empty()
                }
                _ => text.lines().any(|line| line.starts_with('#') && line.contains(stamp)),
            };
            assert!(has, "{}: not stamped {stamp}", path.display());
            checked += 1;
        }
        // Log, summary, page, and two distributions of each of two phases.
        assert_eq!(checked, 7);
    }
}

#[test]
fn a_folder_holds_the_artefacts_of_its_last_run_only() {
    let folder = tempfile::tempdir().unwrap();
    artefacts::write(&mixed_day(), folder.path()).unwrap();
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    artefacts::write(&chat(&[]), folder.path()).unwrap();
    let mut names: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "latency.hlog",
            "message.chat.response.hgrm",
            "message.chat.service.hgrm",
            "message.ramp.response.hgrm",
            "message.ramp.service.hgrm",
            "notes.txt",
            "report.html",
            "summary.json"
        ]
    );
}

#[test]
fn phases_with_one_name_and_names_with_slashes_have_files_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = chat(&[]);
    run.phases[0].name = "../a b".to_owned();
    run.phases[1].name = "../a b".to_owned();
    artefacts::write(&run, folder.path()).unwrap();
    read(folder.path(), "message.---a-b.response.hgrm");
    read(folder.path(), "message.---a-b-2.response.hgrm");
}

#[test]
fn a_run_in_which_nothing_happened_is_written_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = chat(&[]);
    run.intervals.clear();
    run.phases.clear();
    run.length = std::time::Duration::ZERO;
    let summary = artefacts::write(&run, folder.path()).unwrap();
    assert!(summary.operations.is_empty() && summary.server.is_none());
    assert!(read(folder.path(), "report.html").contains("Nothing was done."));
    assert!(Log::read(&read(folder.path(), "latency.hlog")).unwrap().seconds.is_empty());
}

#[test]
fn text_of_the_scenario_and_the_server_is_text_on_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = mixed_day();
    let hostile = "</pre><script>alert(1)</script>\"'&";
    run.scenario = hostile.to_owned();
    run.name = hostile.to_owned();
    run.phases[1].name = hostile.to_owned();
    run.faults[0].name = hostile.to_owned();
    run.environment.server = Some(hostile.to_owned());
    run.intervals[20]
        .tallies
        .get_mut(&Operation::Message)
        .unwrap()
        .failed
        .insert(hostile.to_owned(), 3);
    artefacts::write(&run, folder.path()).unwrap();
    let page = read(folder.path(), "report.html");
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "not escaped");
    assert_eq!(page.matches("</pre>").count(), 1);
}

#[test]
fn a_page_of_a_long_run_stays_small() {
    let mut run = chat(&[]);
    let mut second = run.intervals[30].clone();
    let mut response = corefire_load::record::Latency::default();
    (0..60).for_each(|n| response.record(std::time::Duration::from_micros(80 << (n % 8))));
    second.tallies.get_mut(&Operation::Message).unwrap().response = response.pack();
    second.tallies.get_mut(&Operation::Message).unwrap().service = response.pack();
    run.phases[1].length = std::time::Duration::from_secs(2 * 3600);
    run.length = std::time::Duration::from_secs(2 * 3600 + 10);
    run.intervals = (0..2 * 3600 + 10)
        .map(|number| corefire_load::record::Interval {
            number,
            phase: usize::from(number >= 10),
            ..second.clone()
        })
        .collect();
    let summary = Summary::of(&run).unwrap();
    let page = corefire_load::artefacts::report::write(&run, &summary).unwrap();
    assert!(page.len() < 400_000, "{} bytes", page.len());
}
