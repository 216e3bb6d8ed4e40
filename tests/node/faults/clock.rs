//! The wall clock is set back, while the node runs and before it starts again.

use super::disk::Disk;
use super::ledger::{archive, message, place, say};
use crate::client::Client;

#[test]
fn archives_stay_in_order_when_the_clock_is_set_back() {
    let place = place(&["alice", "bob"]);
    let disk = Disk::under(&place);
    let mut seen = None;
    let mut number = 0;
    for hours in [0, -1, -3, 2] {
        let node = disk.start(&place);
        for shift in [hours * 3600, hours * 3600 - 600] {
            let mut alice = Client::acked(&node, "alice", "secret");
            disk.shift_clock(shift);
            for handled in 1..=5 {
                say(&mut alice, &message("bob", &number.to_string()), handled);
                number += 1;
            }
        }
        let mut bob = Client::log_in(&node, "bob", "secret");
        // From an id that was shown before the clock was set back, and from the start.
        let new: Vec<_> =
            archive(&mut bob, seen.as_deref()).into_iter().map(|row| row.body).collect();
        assert_eq!(new, numbers(number - 10..number));
        let rows = archive(&mut bob, None);
        let bodies: Vec<_> = rows.iter().map(|row| row.body.clone()).collect();
        assert_eq!(bodies, numbers(0..number));
        let mut ids: Vec<_> = rows.iter().map(|row| row.id.clone()).collect();
        seen = ids.last().cloned();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), rows.len(), "each id is given once");
        node.kill();
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}
