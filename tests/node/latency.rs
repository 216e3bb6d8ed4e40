//! What the running node tells of its latencies.

use crate::admin::ask;
use crate::client::Client;
use crate::node::{Node, Place};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use std::path::Path;
use std::time::{Duration, Instant};

/// Merged once a second.
const PATIENCE: Duration = Duration::from_secs(15);

fn bearer(place: &Place) -> String {
    let token = std::fs::read_to_string(place.data_dir().join("admin-token")).unwrap();
    format!("Authorization: Bearer {token}\r\n")
}

fn report(node: &Node, place: &Place) -> serde_json::Value {
    let (head, body) = ask(node, "/api/v1/latency", &bearer(place));
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("application/json"), "{head}");
    serde_json::from_str(&body).unwrap()
}

/// How often a stage of messages was counted, all paths together.
fn messages(report: &serde_json::Value, stage: &str) -> u64 {
    let series = report["series"].as_array().unwrap().iter();
    let wanted = series.filter(|one| one["kind"] == "message" && one["stage"] == stage);
    wanted.map(|one| one["total"]["count"].as_u64().unwrap()).sum()
}

/// A node on which `count` messages went from alice to bob.
fn busy(place: &Place, count: u32) -> (Node, Client, Client) {
    for name in ["alice", "bob"] {
        place.add_user(name, "pw");
    }
    let node = place.start();
    let mut alice = Client::log_in(&node, "alice", "pw");
    let mut bob = Client::log_in(&node, "bob", "pw");
    bob.send("<presence/>");
    bob.expect("<presence");
    for _ in 0..count {
        alice.send("<message to='bob@localhost' type='chat'><body>hello</body></message>");
        bob.expect("</message>");
    }
    (node, alice, bob)
}

/// Asks until the answer is as `is_right` wants it.
#[track_caller]
fn until<T>(ask: impl Fn() -> T, is_right: impl Fn(&T) -> bool) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = ask();
        if is_right(&answer) {
            return answer;
        }
        assert!(Instant::now() < end, "it is never told");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// By tag, all intervals of a log together; each line must be readable.
fn read_log(path: &Path) -> std::collections::BTreeMap<String, Histogram<u64>> {
    let mut found = std::collections::BTreeMap::new();
    let text = std::fs::read(path).unwrap_or_default();
    for entry in IntervalLogIterator::new(&text) {
        let LogEntry::Interval(line) = entry.unwrap() else { continue };
        use base64::Engine;
        let engine = base64::engine::general_purpose::STANDARD;
        let bytes = engine.decode(line.encoded_histogram()).unwrap();
        let one: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
        let tag = line.tag().unwrap().as_str().to_owned();
        match found.entry(tag) {
            std::collections::btree_map::Entry::Vacant(place) => drop(place.insert(one)),
            std::collections::btree_map::Entry::Occupied(mut sum) => {
                sum.get_mut().add(one).unwrap()
            }
        }
    }
    found
}

/// Messages of all paths that were counted until they were written.
fn logged(path: &Path) -> u64 {
    let log = read_log(path);
    let is_total = |tag: &str| tag.starts_with("message/") && tag.ends_with("/total");
    log.iter().filter(|(tag, _)| is_total(tag)).map(|(_, counts)| counts.len()).sum()
}

#[test]
fn the_log_is_readable_while_it_grows_and_whole_when_the_node_ends() {
    let place = Place::new().set("latency.interval_s=1");
    let (node, mut alice, mut bob) = busy(&place, 50);
    let path = place.data_dir().join("latency.hlog");
    until(|| logged(&path), |count| *count == 50);
    alice.send("<message to='bob@localhost' type='chat'><body>last</body></message>");
    bob.expect("</message>");
    drop((alice, bob));
    node.stop();
    assert_eq!(logged(&path), 51, "what came before the end is in it");
    let place = place.set("latency.log=\"\"");
    let before = std::fs::metadata(&path).unwrap().len();
    place.start().stop();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), before, "no log is wanted");
}

#[test]
fn a_file_that_is_no_log_is_not_written_to() {
    let place = Place::new().set("latency.log=notes.txt");
    std::fs::create_dir_all(place.data_dir()).unwrap();
    std::fs::set_permissions(place.data_dir(), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    std::fs::write(place.data_dir().join("notes.txt"), "mine").unwrap();
    let line = place.refused(place.program(&["serve"]));
    assert!(line.contains("latency.log") && line.contains("no histogram log"), "{line}");
    assert_eq!(std::fs::read_to_string(place.data_dir().join("notes.txt")).unwrap(), "mine");
}

#[test]
fn the_command_shows_a_table_and_exports_it() {
    let place = Place::new();
    let (node, alice, bob) = busy(&place, 100);
    let has_all = |text: &String| {
        let rows = text
            .lines()
            .filter(|line| line.starts_with("message "))
            .filter(|line| line.contains(" total "));
        rows.filter_map(|row| row.split_whitespace().nth(3)?.parse::<u64>().ok()).sum::<u64>()
            == 100
    };
    let table = until(|| place.run(&["latency"]), has_all);
    let head: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(head, ["count", "p50", "p90", "p99", "p99.9", "max"]);
    assert!(table.contains("login PLAIN bound"), "{table}");
    assert!(place.run(&["latency", "--recent"]).starts_with("of the last "), "{table}");
    let json: serde_json::Value = serde_json::from_str(&place.run(&["latency", "--json"])).unwrap();
    assert_eq!(json["version"], 1);
    let file = place.path("out.hlog");
    place.run(&["latency", "--hlog", file.to_str().unwrap()]);
    assert_eq!(logged(&file), 100);
    let again = place.program(&["latency", "--hlog", file.to_str().unwrap()]).output().unwrap();
    assert!(!again.status.success(), "what is there is not written over");
    drop((alice, bob));
    node.stop();
}

#[test]
fn metrics_have_the_latencies_as_histograms() {
    let place = Place::new();
    place.add_user("carol", "pw");
    let (node, mut alice, bob) = busy(&place, 100);
    alice.send("<message to='carol@localhost' type='chat'><body>for later</body></message>");
    let text = until(
        || ask(&node, "/metrics", "").1,
        |text| {
            text.contains("corefire_stanza_stage_seconds_count")
                && text.contains("corefire_store_batch_size")
        },
    );
    for name in [
        "corefire_stanza_route_seconds_bucket{le=\"+Inf\",kind=\"message\",path=\"",
        "corefire_stanza_stage_seconds_bucket{le=\"0.001\",kind=\"message\",path=\"",
        "corefire_login_seconds_count{mechanism=\"PLAIN\",end=\"bound\"}",
        "corefire_core_run_queue_seconds_count{shard=\"0\"}",
        "corefire_core_turn_seconds_sum{shard=\"1\"}",
        "corefire_core_busy_ratio{shard=\"0\"}",
        "corefire_store_batch_size_bucket{le=\"+Inf\"}",
        "corefire_store_commit_seconds_count",
    ] {
        assert!(text.lines().any(|line| line.starts_with(name)), "{name}\n{text}");
    }
    drop((alice, bob));
    node.stop();
}

/// The cores did not run: that is no turn of theirs, and they notice it all the same.
#[test]
fn a_node_that_stood_still_tells_how_long() {
    let place = Place::new();
    let mut node = place.start();
    std::thread::sleep(Duration::from_millis(300));
    node.signal(libc::SIGSTOP);
    std::thread::sleep(Duration::from_millis(700));
    node.signal(libc::SIGCONT);
    let line = node.wait_for_log("a core was late");
    let late: u64 =
        line.split("late_ms=").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((500..5_000).contains(&late), "{line}");
    let status = || -> serde_json::Value {
        serde_json::from_str(&place.run(&["status", "--json"])).unwrap()
    };
    let late = |status: &serde_json::Value| {
        status["shards"].as_array().unwrap().iter().all(|shard| shard["late"].as_u64().unwrap() > 0)
    };
    until(status, late);
    assert!(place.run(&["status"]).contains("late to its timers"));
    let longest = |report: &serde_json::Value| {
        let series = report["series"].as_array().unwrap().iter();
        series
            .filter(|one| one["group"] == "late")
            .any(|one| one["total"]["max"].as_u64().unwrap() > 500_000_000)
    };
    until(|| report(&node, &place), longest);
    node.stop();
}

#[test]
fn a_node_that_measures_nothing_says_so() {
    let place = Place::new().set("latency.enabled=false");
    let (node, alice, bob) = busy(&place, 10);
    let output = place.program(&["latency"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "corefire: latencies are not measured: latency.enabled is false\n");
    assert_eq!(report(&node, &place)["enabled"], false);
    assert!(!place.data_dir().join("latency.hlog").exists());
    drop((alice, bob));
    node.stop();
}

#[test]
fn messages_and_logins_show_up_in_the_api() {
    let place = Place::new();
    let (node, alice, bob) = busy(&place, 200);
    assert!(ask(&node, "/api/v1/latency", "").0.starts_with("HTTP/1.1 401"));
    let told = until(|| report(&node, &place), |told| messages(told, "total") >= 200);
    assert_eq!((&told["version"], &told["enabled"]), (&1.into(), &true.into()));
    assert_eq!((messages(&told, "total"), messages(&told, "write")), (200, 200));
    assert!(messages(&told, "route") > 0, "{told}");
    let series = told["series"].as_array().unwrap();
    let total = series.iter().find(|one| one["stage"] == "total" && one["kind"] == "message");
    let total = &total.unwrap()["total"];
    let at = |name: &str| total[name].as_u64().unwrap();
    assert!(1_000 < at("p50") && at("p50") <= at("p99") && at("p99") <= at("max"), "{total}");
    assert!(series.iter().any(|one| one["group"] == "login" && one["end"] == "bound"), "{told}");
    assert_eq!(told["shards"].as_array().unwrap().len(), 2);
    drop((alice, bob));
    node.stop();
}
