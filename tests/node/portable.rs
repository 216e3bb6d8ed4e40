//! Accounts come in and go out, and the database is copied, while the node serves.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::node::Place;

/// Messages that one test stores.
const SENT_MAX: u64 = 4_000;

const DOMAINS: &str =
    "domains=[\"localhost\",\"example.org\",\"scram.example\",\"sha256.example\"]";

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/data").join(name);
    path.display().to_string()
}

/// Prosody's accounts come into the running node, and Alice, who is logged in, writes to one of them.
fn import(place: &Place, alice: &mut Client) {
    let imported = place.run(&["import", &data("prosody-0.12")]);
    assert!(imported.contains("         5 accounts\n"), "{imported}");
    alice
        .send("<message to='juliet@localhost' type='chat'><body>after the import</body></message>");
    alice.ping("1");
}

#[track_caller]
fn in_order(got: &str, wanted: &[&str]) {
    let places: Vec<Option<usize>> = wanted.iter().map(|it| got.find(it)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}: {got}");
}

#[test]
fn users_of_another_server_log_in_with_the_passwords_they_had() {
    let place = Place::new().set(DOMAINS);
    place.add_user("alice", "secret");
    let node = place.start();
    let mut early = Client::starttls(&node);
    assert!(early.open().contains("SCRAM-SHA-256"));
    let mut alice = Client::log_in(&node, "alice", "secret");
    // The node has looked this one up and knows that there is none.
    alice.send("<message to='juliet@localhost' type='chat' id='e'><body>early</body></message>");
    alice.expect("<service-unavailable");
    import(&place, &mut alice);
    let mut juliet = Client::log_in(&node, "juliet", "secret");
    juliet.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    let roster = juliet.expect("</query></iq>");
    assert!(roster.contains("romeo@localhost") && roster.contains("Verona \u{2713}"), "{roster}");
    juliet.send("<iq type='get' id='b'><blocklist xmlns='urn:xmpp:blocking'/></iq>");
    juliet.expect("tybalt@example.net");
    juliet.send("<presence/>");
    let got = juliet.expect("after the import");
    in_order(&got, &["Wherefore", "\u{1f600}", "Peace", "after the import"]);
    assert!(got.contains("stamp='2026-11-26T17:38:44"), "{got}");

    // Some have keys of SHA-1 alone, some of SHA-256: neither is offered, which would lock the others out.
    let told = place.program(&["import", &data("prosody-0.12"), "--replace"]).output().unwrap();
    assert!(told.status.success());
    place.run(&["reload"]);
    let mut late = Client::starttls(&node);
    let features = late.open();
    assert!(features.contains("PLAIN") && !features.contains("SCRAM"), "{features}");
    late.authenticate("juliet", "secret");
    late.expect("<success");
    node.stop();
}

#[test]
fn a_running_node_is_exported_and_its_export_is_imported_into_another() {
    let place = Place::new();
    place.add_user("alice", "secret");
    place.add_user("bob", "secret");
    let node = place.start();
    let mut alice = Client::acked(&node, "alice", "secret");
    for number in 0..150 {
        let body = format!("{number} {}", "x".repeat(2_000));
        alice.send(&format!(
            "<message to='bob@localhost' type='chat'><body>{body}</body></message>"
        ));
    }
    // All of them are durable.
    alice.send("<r xmlns='urn:xmpp:sm:3'/>");
    alice.expect("h='150'");
    let export = place.path("export.xml");
    place.run(&["export", "--out", export.to_str().unwrap()]);

    let other = Place::new();
    let second = other.start();
    // More than one step: the account comes in in parts.
    let told = other.run(&["import", export.to_str().unwrap()]);
    assert!(told.contains("       150 offline messages\n"), "{told}");
    let again = other.path("again.xml");
    other.run(&["export", "--out", again.to_str().unwrap()]);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(&export), read(&again));
    let mut alice = Client::log_in(&second, "alice", "secret");
    alice.send("<message to='bob@localhost' type='chat'><body>150 later</body></message>");
    alice.ping("1");
    let mut bob = Client::log_in(&second, "bob", "secret");
    bob.send("<presence/>");
    let got = bob.expect("<body>150 later");
    let numbers: Vec<u32> = got
        .split("<body>")
        .skip(1)
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(numbers, (0..=150).collect::<Vec<u32>>());
    node.stop();
    second.stop();
}

#[test]
fn a_copy_made_under_load_has_all_that_was_acknowledged_before() {
    let place = Place::new().set("limits.offline_messages=10000");
    place.add_user("alice", "secret");
    place.add_user("bob", "secret");
    let node = place.start();
    let mut alice = Client::acked(&node, "alice", "secret");
    let (acknowledged, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let copy = place.path("copy.db");
    let mut sent = 0u64;
    let (before, after) = std::thread::scope(|scope| {
        let maker = scope.spawn(|| {
            while acknowledged.load(Ordering::Acquire) < 200 {
                std::thread::sleep(Duration::from_millis(1));
            }
            let before = acknowledged.load(Ordering::Acquire);
            place.run(&["backup", copy.to_str().unwrap()]);
            is_over.store(true, Ordering::Release);
            before
        });
        let began = Instant::now();
        while !is_over.load(Ordering::Acquire) && began.elapsed() < Duration::from_secs(60) {
            // As many as an account holds, with room.
            if sent >= SENT_MAX {
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            for _ in 0..20 {
                alice.send(&format!(
                    "<message to='bob@localhost' type='chat'><body>n{sent} </body></message>"
                ));
                sent += 1;
            }
            alice.send("<r xmlns='urn:xmpp:sm:3'/>");
            // All of them are durable.
            alice.expect(&format!("h='{sent}'"));
            acknowledged.store(sent, Ordering::Release);
        }
        (maker.join().unwrap(), sent)
    });
    node.kill();
    assert!(before >= 200 && after >= before);

    // Going back to it: the copy takes the place of the database.
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(place.data_dir().join(format!("corefire.db{suffix}")));
    }
    std::fs::copy(&copy, place.data_dir().join("corefire.db")).unwrap();
    assert!(place.run(&["store", "check"]).ends_with("no problems\n"));
    let node = place.start();
    let mut alice = Client::acked(&node, "alice", "secret");
    alice.send("<message to='bob@localhost' type='chat'><body>the last </body></message>");
    alice.send("<r xmlns='urn:xmpp:sm:3'/>");
    alice.expect("h='1'");
    let export = place.path("export.xml");
    place.run(&["export", "--out", export.to_str().unwrap(), "--user", "bob@localhost"]);
    let text = std::fs::read_to_string(export).unwrap();
    let waiting = text.split("<offline-messages>").nth(1).unwrap();
    let waiting = waiting.split("</offline-messages>").next().unwrap();
    let numbers: Vec<u64> = waiting
        .split("<body>n")
        .skip(1)
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .collect();
    let count = numbers.len() as u64;
    assert_eq!(numbers, (0..count).collect::<Vec<u64>>(), "a beginning, in order");
    assert!((before..=after).contains(&count), "{before} {count} {after}");
    assert!(waiting.rfind("the last") > waiting.rfind("<body>n"), "what comes later stands behind");
    node.stop();
}

#[test]
fn a_node_on_postgres_takes_accounts_in_and_is_checked_while_it_serves() {
    let Some(server) = crate::postgres::server::Server::start(&["fsync=off"]) else { return };
    server.database("corefire");
    let place = Place::new()
        .set(DOMAINS)
        .set(&format!("storage.url={}", server.socket_url("corefire")))
        .set("storage.connections=3");
    place.add_user("alice", "secret");
    let node = place.start();
    let mut alice = Client::log_in(&node, "alice", "secret");
    import(&place, &mut alice);
    let mut juliet = Client::log_in(&node, "juliet", "secret");
    juliet.send("<presence/>");
    let got = juliet.expect("after the import");
    in_order(&got, &["Wherefore", "Peace", "after the import"]);
    let checked = place.run(&["store", "check"]);
    assert!(checked.contains(": account 6, ") && checked.ends_with("no problems\n"), "{checked}");
    let exported = place.data_dir().join("all.xml");
    place.run(&["export", "--out", &exported.display().to_string()]);
    let exported = std::fs::read_to_string(exported).unwrap();
    assert!(exported.contains("after the import") && exported.contains("name='alice'"));
    // Nobody moves what a node runs on.
    let mut command =
        place.program(&["store", "move", &server.socket_url("corefire"), "sqlite:x.db"]);
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("in use"), "{told}");
    node.stop();
}
