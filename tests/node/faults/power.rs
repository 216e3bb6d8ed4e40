//! The power goes: the node is killed, and of its files only what was synced is there.

use std::time::{Duration, Instant};

use super::disk::{Disk, Unsynced, Writes, next};
use super::ledger::{Kept, archive, check, place, talk};
use crate::client::Client;
use crate::node::{Node, Place};

/// Cycles of a test that was not told how long to search.
const CYCLES: u32 = 3;

#[derive(Default)]
struct Counts {
    acknowledged: u32,
    kept: Kept,
    bytes_lost: usize,
}

/// Kills and restores `place` once, while two clients talk to one that is away.
fn cycle(
    place: &Place,
    disk: &Disk,
    number: u32,
    random: &mut u64,
    seen: &mut [Option<String>; 3],
    counts: &mut Counts,
) {
    let node = disk.start(place);
    disk.writes(if next(random).is_multiple_of(3) { Writes::Short } else { Writes::Sound });
    // As slow as disks are: the power goes before a flush is done.
    disk.slow_fsync(Duration::from_millis(1 + next(random) % 15));
    let names = ["alice", "carol"];
    let talks = names.map(|name| {
        (name, talk(Client::acked(&node, name, "secret"), "bob", format!("{number}/{name}")))
    });
    std::thread::sleep(Duration::from_millis(50 + next(random) % 400));
    node.kill();
    let unsynced =
        if next(random).is_multiple_of(2) { Unsynced::Lost } else { Unsynced::Mixed(next(random)) };
    counts.bytes_lost += disk.after_power_cut(unsynced);
    if next(random).is_multiple_of(2) {
        // It goes again while the node brings the WAL into the file.
        disk.start_and_kill(place, Duration::from_millis(next(random) % 100));
        counts.bytes_lost += disk.after_power_cut(unsynced);
    }
    disk.writes(Writes::Sound);
    disk.slow_fsync(Duration::ZERO);
    let told = talks.map(|(name, talk)| (name, talk.join().unwrap().0));

    let node = disk.start(place);
    let take = |user: &str, seen: &mut Option<String>| {
        let mut client = Client::log_in(&node, user, "secret");
        let rows = archive(&mut client, seen.as_deref());
        if let Some(last) = rows.last() {
            *seen = Some(last.id.clone());
        }
        rows
    };
    let [of_alice, of_carol, of_bob] = seen;
    let bob = take("bob", of_bob);
    let own = [take("alice", of_alice), take("carol", of_carol)];
    for ((name, acknowledged), own) in told.into_iter().zip(&own) {
        counts.acknowledged += acknowledged;
        for rows in [&bob, own] {
            let label = format!("{number}/{name}");
            let kept = check(rows.iter().map(|row| row.body.as_str()), &label, acknowledged);
            if kept != Kept::default() {
                eprintln!("power: cycle {number}, {name}, {acknowledged} acknowledged: {kept:?}");
            }
            counts.kept.lost += kept.lost;
            counts.kept.duplicates += kept.duplicates;
            counts.kept.reordered += kept.reordered;
        }
    }
    // Bob was away: what is in his archive waits for him, too.
    let waiting = delivered(&node, &number.to_string(), bob.len());
    let bodies: Vec<&str> = bob.iter().map(|row| row.body.as_str()).collect();
    if waiting != bodies {
        eprintln!("power: cycle {number}: {} waited, {} are archived", waiting.len(), bodies.len());
        counts.kept.lost += 1;
    }
    node.kill();
}

/// What comes to Bob when he is there, of the cycle with this label: `count` messages. He confirms them.
fn delivered(node: &Node, label: &str, count: usize) -> Vec<String> {
    let mut client = Client::acked(node, "bob", "secret");
    client.send("<presence/>");
    let prefix = format!("{label}/");
    let (mut bodies, mut handled) = (Vec::new(), 0);
    while bodies.len() < count {
        let text = client.expect("</message>");
        handled += 1;
        if handled % 50 == 0 {
            client.send(&format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>"));
        }
        let (_, rest) = text.split_once("<body>").unwrap();
        let body = rest.split('<').next().unwrap();
        if body.starts_with(&prefix) {
            bodies.push(body.to_owned());
        }
    }
    client.send(&format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>"));
    client.ping("confirmed");
    bodies
}

/// `tools/campaign power` gives it time by COREFIRE_POWER_SECONDS.
#[test]
fn no_acknowledged_message_is_lost_with_the_power() {
    let seconds = std::env::var("COREFIRE_POWER_SECONDS").ok().map(|text| text.parse().unwrap());
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    eprintln!("power: seed={seed}");
    let mut random = seed | 1;
    let place = place(&["alice", "bob", "carol"]).set("limits.offline_messages=100000");
    let disk = Disk::under(&place);
    let (mut seen, mut counts) = ([None, None, None], Counts::default());
    let mut cycles = 0;
    while until.map_or(cycles < CYCLES, |until| Instant::now() < until) {
        cycle(&place, &disk, cycles, &mut random, &mut seen, &mut counts);
        cycles += 1;
    }
    let Counts { acknowledged, kept, bytes_lost } = counts;
    let Kept { lost, duplicates, reordered } = kept;
    eprintln!(
        "power: cycles={cycles} acknowledged={acknowledged} lost={lost} duplicates={duplicates} \
         reordered={reordered} bytes_lost={bytes_lost}"
    );
    assert_eq!((lost, duplicates, reordered), (0, 0, 0));
    assert!(acknowledged > 0, "nothing was acknowledged: nothing was tested");
    assert!(bytes_lost > 0, "each write was synced: no power cut was tested");
}
