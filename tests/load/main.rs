//! The load tool against the real server: what `corefire-load run` says of it, and that open loop tells the truth about
//! a server that stands still.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use corefire_load::cli::{Exit, execute};
use corefire_load::launch::{Corefire, ScratchDir, Server};
use corefire_load::plan::{Plan, Request, Target};
use corefire_load::record::{Operation, Outcome, Total};
use corefire_load::run::{self, Unwatched};

/// The shipped scenario is made short, and a busy machine may make the tool late.
const CHAT: &str = include_str!("../../tools/load/scenarios/chat.toml");
const USERS: usize = 20;

fn chat() -> String {
    let text = CHAT
        .replace("length = \"5s\"", "length = \"1s\"")
        .replace("length = \"3s\"", "length = \"500ms\"")
        .replace("p99.9 < 100ms", "p99.9 < 10s");
    format!("lag_max = \"10s\"\n{text}")
}

struct Running {
    server: Server,
    address: SocketAddr,
    folder: ScratchDir,
}

fn server() -> Running {
    let folder = ScratchDir::new("corefire-load-test").unwrap();
    let corefire =
        Corefire::new(Path::new(env!("CARGO_BIN_EXE_corefire")), folder.path(), &[]).unwrap();
    corefire.import((0..USERS).map(|at| format!("user{at}@localhost")), "secret").unwrap();
    let server = corefire.start(&[], &[]).unwrap();
    Running { server, address: corefire.plain, folder }
}

fn arguments(list: &[&str]) -> impl Iterator<Item = OsString> {
    let list: Vec<OsString> = list.iter().map(OsString::from).collect();
    std::iter::once(OsString::from("corefire-load")).chain(list)
}

fn file(running: &Running, name: &str, text: &str) -> PathBuf {
    let path = running.folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn chat_passes_against_the_server_and_loses_nothing() {
    let running = server();
    let scenario = file(&running, "chat.toml", &chat());
    let out = running.folder.path().join("out");
    let exit = execute(arguments(&[
        "run",
        "--quiet",
        scenario.to_str().unwrap(),
        "--target",
        &running.address.to_string(),
        "--domain",
        "localhost",
        "--users",
        "20",
        "--rate",
        "200",
        "--duration",
        "2s",
        "--out",
        out.to_str().unwrap(),
    ]));
    assert_eq!(exit, Exit::Pass);
    let summary = std::fs::read_to_string(out.join("summary.json")).unwrap();
    assert!(summary.contains("\"lost == 0\""), "{summary}");
    assert!(out.join("latency.hlog").exists() && out.join("report.html").exists());
}

#[test]
fn what_went_wrong_is_told_by_the_exit_code() {
    let running = server();
    let target = running.address.to_string();
    let run = |text: &str, target: &str, domain: &str| {
        let scenario = file(&running, "scenario.toml", text);
        let scenario = scenario.to_str().unwrap();
        execute(arguments(&[
            "run",
            scenario,
            "--target",
            target,
            "--domain",
            domain,
            "--users",
            "2",
            "--rate",
            "20",
            "--duration",
            "1s",
        ]))
    };
    // Port 1 of loopback: nobody listens there.
    assert_eq!(run(&chat(), "127.0.0.1:1", "localhost"), Exit::Target);
    let strangers = chat().replace("user{}", "stranger{}");
    assert_eq!(run(&strangers, &target, "localhost"), Exit::Target);
    let strict = chat().replace("p99.9 < 10s", "p99.9 < 1us");
    assert_eq!(run(&strict, &target, "localhost"), Exit::Threshold);
    let late = chat().replace("lag_max = \"10s\"", "lag_max = \"10us\"");
    assert_eq!(run(&late, &target, "localhost"), Exit::Invalid);
    let faulty = chat().replace("kind = \"hold\"", "kind = \"hodl\"");
    assert_eq!(run(&faulty, &target, "localhost"), Exit::Usage);
}

#[test]
fn who_leaves_while_messages_come_is_asked_back_for_them() {
    let running = server();
    // The first half leaves at once, and is written to until the end.
    let text = chat().replace("to = \"session\"", "to = \"account\"");
    let leave =
        "[[phase]]\nname = \"leave\"\nkind = \"ramp\"\nlength = \"2s\"\nusers = 0.5\nload = 1.0\n";
    let at = text.find("[[population]]").unwrap();
    let text = format!("{}{leave}{}", &text[..at], &text[at..]);
    let request = Request {
        users: Some(USERS as u64),
        rate: Some(200.0),
        ..Request::new(
            "leave",
            &text.replace("length = \"30s\"", "length = \"1s\""),
            vec![Target { address: running.address, domain: "localhost".to_owned() }],
        )
    };
    let plan = Plan::new(&request).unwrap();
    let outcome = run::run(&plan, &request, None, &mut Unwatched).unwrap();
    let online = outcome.intervals.iter().skip(2).map(|interval| interval.online);
    assert!(online.min() < Some(USERS as u64 - 2), "some left");
    let acked = &outcome.ledger.acknowledged;
    assert!(acked.messages > 200, "{acked:?}");
    assert_eq!((acked.lost, acked.bounced), (0, 0), "{acked:?}");
}

/// Chats while the server's process is stopped for 500 ms.
fn stopped(running: &Running, closed: Option<u32>) -> Outcome {
    let pid = running.server.probe().unwrap().pid();
    let stop = format!(
        "[[fault]]\nat = \"2500ms\"\nname = \"stop\"\n\
         exec = \"kill -STOP {pid}; sleep 0.5; kill -CONT {pid}\"\n"
    );
    let request = Request {
        users: Some(USERS as u64),
        rate: Some(400.0),
        closed,
        ..Request::new(
            "stopped",
            &(chat().replace("length = \"30s\"", "length = \"3s\"") + &stop),
            vec![Target { address: running.address, domain: "localhost".to_owned() }],
        )
    };
    let plan = Plan::new(&request).unwrap();
    run::run(&plan, &request, None, &mut Unwatched).unwrap()
}

fn messages(outcome: &Outcome) -> Total {
    outcome.measured().unwrap().remove(&Operation::Message).unwrap()
}

#[test]
fn a_server_that_stands_still_shows_in_open_loop_and_hides_in_closed_loop() {
    let running = server();
    let open = stopped(&running, None);
    assert_eq!(open.faults.len(), 1, "{:?}", open.faults);
    let open = messages(&open);
    let max = open.response.max();
    assert!(max >= Duration::from_millis(400), "{max:?}");
    // A sixth of the messages were due while it stood still, and have waited a quarter of a second on average.
    let p95 = open.response.quantile(0.95);
    assert!(p95 >= Duration::from_millis(200), "open: p95 {p95:?}");
    // In closed loop there is one message of each pair that waits, among thousands that do not.
    let closed = messages(&stopped(&running, Some(1)));
    let p95 = closed.response.quantile(0.95);
    assert!(p95 < Duration::from_millis(200), "closed: p95 {p95:?}");
}
