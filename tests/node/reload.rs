//! A configuration read again while the node runs: by signal and by command, all or nothing.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::{Client, config};
use crate::node::{Node, Place};

const VIOLATION: &str = "<policy-violation xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>";

/// A node with a configuration file, beside what the settings of all tests say.
fn start(place: &Place, file: &str) -> Node {
    write(place, file);
    place.start_as(place.program(&["serve", "--config", "corefire.toml"]))
}

fn write(place: &Place, file: &str) {
    std::fs::write(place.path("corefire.toml"), file).unwrap();
}

fn reload(place: &Place) -> (bool, String, String) {
    let mut command: Command = place.program(&["reload"]);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

#[test]
fn reload_tells_what_changed_and_what_needs_a_restart() {
    let place = Place::new();
    let mut node = start(&place, "[limits]\ndepth = 32\n");
    assert_eq!(reload(&place), (true, "nothing has changed\n".into(), String::new()));
    write(&place, "[limits]\ndepth = 16\n[log]\nlevel = \"debug\"\n[node]\nname = \"n2\"\n");
    let (done, applied, waiting) = reload(&place);
    assert!(done);
    assert_eq!(applied, "limits.depth: 32 -> 16\nlog.level: \"info\" -> \"debug\"\n");
    assert_eq!(waiting, "needs a restart: node.name: \"\" -> \"n2\"\n");
    // The level is the new one already.
    let _client = Client::connect(node.plain);
    drop(_client);
    node.wait_for_log("DEBUG");
    node.stop();
}

#[test]
fn faulty_file_changes_nothing_and_each_fault_is_told() {
    let place = Place::new();
    place.add_user("alice", "secret");
    let mut node = start(&place, "[limits]\ndepth = 32\n");
    let mut alice = Client::log_in(&node, "alice", "secret");
    write(&place, "[limits]\ndepth = 1\nsilences = 4\n[access]\nbanned = [\"alice@localhost\"]\n");
    let (done, told, faults) = reload(&place);
    assert!(!done && told.is_empty());
    assert!(faults.contains("the node goes on as it was"), "{faults}");
    assert!(
        faults.contains("corefire.toml:2: limits.depth: 1 is not within 8 to 1024"),
        "{faults}"
    );
    assert!(faults.contains("corefire.toml:3: limits.silences: no such key"), "{faults}");
    alice.ping("1");
    node.signal(libc::SIGHUP);
    node.wait_for_log("limits.silences");
    alice.ping("2");
    node.stop();
}

#[test]
fn sighup_applies_a_ban_to_the_sessions_that_there_are() {
    let place = Place::new();
    place.add_user("alice", "secret");
    place.add_user("eve", "secret");
    let mut node = start(&place, "");
    let mut alice = Client::log_in(&node, "alice", "secret");
    let mut eve = Client::log_in(&node, "eve", "secret");
    write(&place, "[access]\nbanned = [\"eve@localhost\"]\n");
    node.signal(libc::SIGHUP);
    let line = node.wait_for_log("access.banned");
    assert!(!line.contains("eve"), "no address above debug: {line}");
    assert!(eve.expect_end().contains(VIOLATION));
    alice.ping("1");
    let mut again = Client::starttls(&node);
    again.open();
    again.authenticate("eve", "secret");
    again.expect("<account-disabled/>");
    drop((alice, again));
    node.stop();
}

#[test]
fn banned_network_is_not_accepted() {
    let place = Place::new();
    let mut node = start(&place, "");
    write(&place, "[access]\nbanned = [\"127.0.0.0/8\"]\n");
    node.signal(libc::SIGHUP);
    node.wait_for_log("access.banned");
    for address in [node.plain, node.direct] {
        assert!(Client::is_refused(std::net::TcpStream::connect(address), b""));
    }
    node.stop();
}

#[test]
fn renewed_certificate_serves_new_connections_and_keeps_the_old_ones() {
    let place = Place::new();
    place.add_user("alice", "secret");
    let certified = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(place.path("chain.pem"), made.cert.pem()).unwrap();
        std::fs::write(place.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
        std::fs::write(place.path(name), made.cert.pem()).unwrap();
    };
    certified("first.pem");
    let node = start(&place, "[tls]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n");
    let direct = |trusted: &str| {
        let mut client = Client::connect(node.direct);
        client.shake_hands(config(&place.path(trusted), &[b"xmpp-client"]));
        client
    };
    let mut before = direct("first.pem");
    before.open();
    certified("second.pem");
    let (done, applied, _) = reload(&place);
    assert!(done);
    assert_eq!(applied, "tls: certificates were renewed\n");
    let mut after = direct("second.pem");
    after.open();
    before.authenticate("alice", "secret");
    before.expect("<success");
    // A pair that does not fit is refused, and the one that serves goes on.
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(place.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let (done, _, faults) = reload(&place);
    assert!(!done && faults.contains("tls.key"), "{faults}");
    direct("second.pem").open();
    drop((before, after));
    node.stop();
}

#[test]
fn reload_under_load_loses_nothing() {
    const MESSAGES: usize = 2_000;
    let place = Place::new();
    place.add_user("alice", "secret");
    place.add_user("bob", "secret");
    let node = start(&place, "");
    let mut alice = Client::log_in(&node, "alice", "secret");
    let mut bob = Client::log_in(&node, "bob", "secret");
    bob.send("<presence/>");
    bob.ping("there");
    let done = Arc::new(AtomicBool::new(false));
    let pid = node.pid();
    let reloading = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut count = 0;
            while !done.load(Ordering::Relaxed) {
                crate::restrict::send_signal(pid, libc::SIGHUP);
                count += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            count
        }
    });
    let sending = std::thread::spawn(move || {
        for number in 0..MESSAGES {
            alice.send(&format!(
                "<message to='bob@localhost' type='chat' id='m{number}'><body>hi</body></message>"
            ));
        }
        alice.ping("sent");
        alice
    });
    for number in 0..MESSAGES {
        let text = bob.expect("</message>");
        assert!(text.contains(&format!("id='m{number}'")), "{number}: {text}");
    }
    done.store(true, Ordering::Relaxed);
    assert!(reloading.join().unwrap() > 1);
    drop((sending.join().unwrap(), bob));
    node.stop();
}
