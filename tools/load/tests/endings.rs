//! Runs that end before their time do not pass: what each exit code says.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[path = "support/office.rs"]
mod office;

const SCENARIO: &str = "\
drain = \"2s\"
lag_max = \"10s\"
[connection]
tls = \"none\"
mechanism = \"PLAIN\"
[[phase]]
kind = \"ramp\"
length = \"500ms\"
[[phase]]
kind = \"hold\"
length = \"3s\"
[[population]]
users = 10
[population.message]
rate = 50
";

/// Starts a run that prints into pipes.
fn start(folder: &Path, address: SocketAddr) -> Child {
    start_with(folder, address, "")
}

fn start_with(folder: &Path, address: SocketAddr, more: &str) -> Child {
    let scenario = folder.join("scenario.toml");
    std::fs::write(&scenario, format!("{SCENARIO}{more}")).unwrap();
    Command::new(env!("CARGO_BIN_EXE_corefire-load"))
        .args(["run", "--quiet", scenario.to_str().unwrap()])
        .args(["--target", &address.to_string(), "--domain", office::DOMAIN])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Exit code, and what was printed on standard output and error.
fn end(run: Child) -> (Option<i32>, String) {
    let output = run.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(told).unwrap())
}

#[test]
fn a_target_that_goes_away_ends_the_run_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let (address, closing) = office::open_until();
    let run = start(folder.path(), address);
    std::thread::sleep(Duration::from_millis(1500));
    drop(closing);
    let (code, told) = end(run);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("ended before its time: the target went away"), "{told}");
    assert!(!told.contains("PASS"), "{told}");
}

#[test]
fn a_run_that_the_operator_ends_exits_with_130() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let run = start(folder.path(), office::open());
    std::thread::sleep(Duration::from_millis(1000));
    let pid = run.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let (code, told) = end(run);
    assert_eq!(code, Some(130), "{told}");
    assert!(told.contains("stopped by the operator") && !told.contains("PASS"), "{told}");
    assert!(begun.elapsed() < Duration::from_millis(3500));
}

#[test]
fn a_run_that_ends_in_its_time_passes() {
    let folder = tempfile::tempdir().unwrap();
    let (code, told) = end(start(folder.path(), office::open()));
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("PASS"), "{told}");
}

#[test]
fn a_ledger_of_archives_needs_a_server_that_has_them_and_ends_with_3_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let run = start_with(folder.path(), office::open(), "[ledger]\narchive = true\n");
    let (code, told) = end(run);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("service-unavailable; it needs XEP-0313 switched on"), "{told}");
    assert!(begun.elapsed() < Duration::from_millis(1500), "{:?}", begun.elapsed());
}
