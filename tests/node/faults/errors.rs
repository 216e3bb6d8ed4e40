//! A disk that answers with errors, has no room, or is slow.

use std::time::{Duration, Instant};

use super::disk::{Disk, Unsynced, Writes, next};
use super::ledger::{Kept, acknowledged, archive, check, message, place, say, talk};
use crate::client::Client;
use crate::node::{Node, Place};

const ASK: &str = "<r xmlns='urn:xmpp:sm:3'/>";

/// Longer than the store is tried again before it refuses.
const REFUSED: Duration = Duration::from_secs(15);

fn bodies(node: &Node, user: &str) -> Vec<String> {
    let mut client = Client::log_in(node, user, "secret");
    archive(&mut client, None).into_iter().map(|row| row.body).collect()
}

fn ready(node: &Node) -> String {
    let mut client = Client::connect(node.admin);
    client.send("GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.expect_end()
}

#[test]
fn after_a_failed_fsync_nothing_is_acknowledged_until_it_is_on_the_disk() {
    let place = place(&["alice", "bob", "carol"]);
    let disk = Disk::under(&place);
    let mut node = disk.start(&place);
    let mut alice = Client::acked(&node, "alice", "secret");
    say(&mut alice, &(message("carol", "before") + &message("bob", "before")), 2);
    let before = disk.faults();
    disk.fail_fsync(true);
    alice.send(&message("bob", "meanwhile"));
    alice.send(ASK);
    disk.wait_for_fault(before);
    node.wait_for_log("nothing is acknowledged until it works again");
    assert_eq!(acknowledged(&mut alice), Some(2));
    assert!(ready(&node).contains("not ready: the store takes no writes"));
    // The stream lives, and what is on the disk can be read.
    alice.ping("alive");
    assert_eq!(bodies(&node, "carol"), ["before"]);
    disk.fail_fsync(false);
    node.wait_for_log("the store works again");
    assert!(ready(&node).contains("ready\n"));
    // With the ping.
    say(&mut alice, "", 4);
    // The kernel forgets the pages of a flush that failed: they must have been written again.
    node.kill();
    disk.after_power_cut(Unsynced::Lost);
    let node = disk.start(&place);
    assert_eq!(bodies(&node, "alice"), ["before", "before", "meanwhile"]);
    assert_eq!(bodies(&node, "bob"), ["before", "meanwhile"]);
}

#[test]
fn a_disk_that_fails_now_and_then_loses_nothing_that_was_acknowledged() {
    let place = place(&["alice", "bob"]).set("limits.offline_messages=100000");
    let disk = Disk::under(&place);
    let node = disk.start(&place);
    let mut random = 0x5eed;
    let talk = talk(Client::acked(&node, "alice", "secret"), "bob", "flaky".to_owned());
    for _ in 0..12 {
        let before = disk.faults();
        match next(&mut random) % 3 {
            0 => disk.fail_fsync(true),
            1 => disk.writes(Writes::Fail),
            _ => disk.writes(Writes::NoRoom),
        }
        disk.wait_for_fault(before);
        disk.fail_fsync(false);
        disk.writes(Writes::Sound);
        std::thread::sleep(Duration::from_millis(next(&mut random) % 100));
    }
    node.kill();
    disk.after_power_cut(Unsynced::Lost);
    let (told, _) = talk.join().unwrap();
    assert!(told > 0, "nothing was acknowledged");
    let node = disk.start(&place);
    for user in ["alice", "bob"] {
        let bodies = bodies(&node, user);
        let kept = check(bodies.iter().map(String::as_str), "flaky", told);
        assert_eq!(kept, Kept::default(), "{user}");
    }
}

/// What cannot be kept is answered with an error when the store has failed for ten seconds; then `heal` is done.
#[track_caller]
fn refuses_and_heals(place: &Place, disk: &Disk, fail: impl Fn(&Disk), told: &str) {
    let mut node = disk.start(place);
    let mut alice = Client::acked(&node, "alice", "secret");
    let mut carol = Client::log_in(&node, "carol", "secret");
    carol.send("<presence/>");
    carol.ping("there");
    say(&mut alice, &message("bob", "before"), 1);
    fail(disk);
    let began = Instant::now();
    alice.send(&message("bob", "refused"));
    node.wait_for_log(told);
    // What needs no store goes on: a message that is not to be kept.
    alice.send(
        "<message to='carol@localhost/r' type='chat'><body>now</body><no-store xmlns='urn:xmpp:hints'/></message>",
    );
    carol.expect("<body>now</body>");
    let error = alice.expect("</message>");
    assert!(error.contains("type='error'"), "{error}");
    assert!(error.contains("<resource-constraint "), "{error}");
    assert!(began.elapsed() < REFUSED, "{:?}", began.elapsed());
    // Answered is acknowledged.
    say(&mut alice, "", 3);
    disk.fail_fsync(false);
    disk.writes(Writes::Sound);
    // Without anybody who writes.
    node.wait_for_log("the store works again");
    say(&mut alice, &message("bob", "after"), 4);
    assert!(ready(&node).contains("ready\n"));
    node.kill();
    disk.after_power_cut(Unsynced::Lost);
    let node = disk.start(place);
    let bodies = bodies(&node, "bob");
    assert_eq!(bodies, ["before", "after"]);
}

#[test]
fn a_full_disk_refuses_what_must_be_kept_and_heals() {
    let place = place(&["alice", "bob", "carol"]);
    let disk = Disk::under(&place);
    refuses_and_heals(&place, &disk, |disk| disk.writes(Writes::NoRoom), "the disk is full");
}

#[test]
fn a_disk_that_takes_no_writes_refuses_what_must_be_kept_and_heals() {
    let place = place(&["alice", "bob", "carol"]);
    let disk = Disk::under(&place);
    refuses_and_heals(&place, &disk, |disk| disk.writes(Writes::Fail), "disk I/O error");
}

#[test]
fn with_a_slow_disk_recipients_do_not_wait_and_acks_do() {
    let slow = Duration::from_secs(1);
    let place = place(&["alice", "bob"]);
    let disk = Disk::under(&place);
    let node = disk.start(&place);
    let mut alice = Client::acked(&node, "alice", "secret");
    let mut bob = Client::log_in(&node, "bob", "secret");
    bob.send("<presence/>");
    bob.ping("there");
    // Blocks of ids are there after the first.
    say(&mut alice, &message("bob", "first"), 1);
    bob.expect("<body>first</body>");
    disk.slow_fsync(slow);
    let began = Instant::now();
    let burst: String = (0..100).map(|number| message("bob", &number.to_string())).collect();
    alice.send(&burst);
    alice.send(ASK);
    bob.expect("<body>99</body>");
    let delivered = began.elapsed();
    assert!(delivered < slow / 2, "{delivered:?}");
    let mut handled = 0;
    while handled < 101 {
        handled = acknowledged(&mut alice).unwrap();
        assert!(handled == 1 || began.elapsed() >= slow, "{handled} after {:?}", began.elapsed());
        alice.send(ASK);
    }
    // The hundred are a few commits, not a hundred.
    assert!(began.elapsed() < slow * 5, "{:?}", began.elapsed());
    disk.slow_fsync(Duration::ZERO);
    assert_eq!(bodies(&node, "bob").len(), 101);
}
