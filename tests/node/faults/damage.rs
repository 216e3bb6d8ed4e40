//! Files that are not what the node wrote: cut short, overwritten, with bits flipped.

use std::fs;
use std::path::PathBuf;

use super::disk::next;
use super::ledger::{Row, archive, message, place, say};
use crate::client::Client;
use crate::node::{Node, Place};

const MESSAGES: u32 = 120;
const PAGE: usize = 4096;

/// A place where Alice has told Bob so much, and its database, which no node has open.
fn filled(stop: impl Fn(Node)) -> (Place, PathBuf) {
    let place = place(&["alice", "bob"]);
    let node = place.start();
    let mut alice = Client::acked(&node, "alice", "secret");
    let padding = "p".repeat(200);
    let text: String =
        (0..MESSAGES).map(|number| message("bob", &format!("{number} {padding}"))).collect();
    say(&mut alice, &text, MESSAGES);
    drop(alice);
    stop(node);
    let path = place.data_dir().join("corefire.db");
    (place, path)
}

/// All is in one file then.
fn stopped(node: Node) {
    node.stop();
}

fn whole(rows: &[Row]) -> bool {
    rows.len() == MESSAGES as usize
        && rows.iter().zip(0..).all(|(row, number)| row.body.starts_with(&format!("{number} ")))
}

#[test]
fn a_database_cut_short_or_overwritten_is_refused() {
    let (place, path) = filled(stopped);
    let sound = fs::read(&path).unwrap();
    let mut no_header = sound.clone();
    no_header[..100].fill(0x5a);
    let cases: [(&[u8], &str); 5] = [
        (&sound[..sound.len() / 2], "damaged"),
        (&sound[..PAGE + 100], "damaged"),
        (&sound[..100], "database"),
        (&[], "the file is empty"),
        (&no_header, "not a database"),
    ];
    for (bytes, cause) in cases {
        fs::write(&path, bytes).unwrap();
        let line = place.refused(place.program(&["serve"]));
        assert!(line.contains(cause), "{} bytes: {line}", bytes.len());
        // It is left as it was, for whoever can mend it.
        assert!(fs::read(&path).unwrap() == bytes);
    }
    fs::write(&path, &sound).unwrap();
    let node = place.start();
    let mut bob = Client::log_in(&node, "bob", "secret");
    assert!(whole(&archive(&mut bob, None)));
}

#[test]
fn a_page_that_was_lost_is_an_error_and_not_an_empty_archive() {
    let (place, path) = filled(stopped);
    let sound = fs::read(&path).unwrap();
    let mut bad = sound.clone();
    // Where Alice's copy of this message is, and Bob's.
    for at in (0..sound.len() - 8).filter(|at| &sound[*at..at + 8] == b"60 ppppp") {
        let page = at / PAGE * PAGE;
        bad[page..page + PAGE].fill(0);
    }
    assert!(bad != sound);
    fs::write(&path, bad).unwrap();
    let mut node = place.start();
    let mut bob = Client::log_in(&node, "bob", "secret");
    let answer = ask_for_all(&mut bob);
    assert!(answer.contains("<error type='wait'><resource-constraint "), "{answer}");
    let line = node.wait_for_log("the store cannot be read");
    assert!(line.contains("the database is damaged"), "{line}");
    bob.ping("alive");
}

/// The last page of the archive.
fn ask_for_all(client: &mut Client) -> String {
    client.send(
        "<iq type='set' id='last'><query xmlns='urn:xmpp:mam:2'>\
         <set xmlns='http://jabber.org/protocol/rsm'><max>100</max><before/></set></query></iq>",
    );
    client.expect("id='last'");
    let head = client.expect(">");
    head + &client.expect("</iq>")
}

#[test]
fn a_flipped_bit_in_the_wal_shows_nothing_wrong() {
    let (place, path) = filled(Node::kill);
    let wal = path.with_file_name("corefire.db-wal");
    let sound = (fs::read(&path).unwrap(), fs::read(&wal).unwrap());
    assert!(sound.1.len() > 10 * PAGE, "the WAL holds the messages");
    for at in [sound.1.len() / 3, sound.1.len() / 2, sound.1.len() - PAGE / 2] {
        let mut bad = sound.1.clone();
        bad[at] ^= 0x10;
        fs::write(&path, &sound.0).unwrap();
        fs::write(&wal, bad).unwrap();
        let node = place.start();
        let mut bob = Client::log_in(&node, "bob", "secret");
        // What was committed before it.
        let rows = archive(&mut bob, None);
        let mut numbered = rows.iter().zip(0..);
        assert!(numbered.all(|(row, number)| row.body.starts_with(&format!("{number} "))));
        node.kill();
    }
}

#[test]
fn flipped_bits_in_the_database_take_nothing_down() {
    let (place, path) = filled(stopped);
    let sound = fs::read(&path).unwrap();
    let mut random = 0xb17;
    for _ in 0..8 {
        let bit = next(&mut random) as usize % (sound.len() * 8);
        let mut bad = sound.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, bad).unwrap();
        let _ = fs::remove_file(path.with_file_name("corefire.db-wal"));
        match started(&place) {
            None => {}
            Some(mut node) => {
                let mut client = Client::starttls(&node);
                client.open();
                client.authenticate("bob", "secret");
                // Whatever becomes of it: the next is served.
                let _ = client.try_expect(">");
                let mut other = Client::starttls(&node);
                other.open();
                drop((client, other));
                node.signal(libc::SIGTERM);
                let log = node.rest_of_log();
                assert!(!log.iter().any(|line| line.contains("panicked")), "bit {bit}: {log:#?}");
            }
        }
    }
}

/// A node, or none where it refuses to start, in one line.
fn started(place: &Place) -> Option<Node> {
    let status = place.program(&["user", "list"]).output().unwrap();
    if status.status.success() {
        return Some(place.start());
    }
    let line = place.refused(place.program(&["serve"]));
    assert!(line.contains("database"), "{line}");
    None
}
