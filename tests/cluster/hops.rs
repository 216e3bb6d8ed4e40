//! How many nodes messages cross, by the counters of the nodes.

use crate::cluster::{Cluster, Finding};
use crate::node::Node;
use crate::person::Person;
use std::io::{Read, Write};
use std::net::TcpStream;

/// Messages that clients of all nodes got, by the nodes that they crossed.
fn hops(cluster: &Cluster) -> [u64; 5] {
    let mut sum = [0; 5];
    for at in 0..3 {
        let text = metrics(cluster.node(at));
        for (sum, hops) in sum.iter_mut().zip(["0", "1", "2", "3", "more"]) {
            let name = format!("corefire_cluster_messages_total{{hops=\"{hops}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&name));
            *sum += line.unwrap_or_else(|| panic!("no {name} in {text}")).parse::<u64>().unwrap();
        }
    }
    sum
}

fn metrics(node: &Node) -> String {
    let mut stream = TcpStream::connect(node.admin).unwrap();
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", node.admin)
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Each of nine people, three of each node, sits somewhere and writes to the eight others, twice.
fn all_write(cluster: &Cluster, stem: &str, door: impl Fn(usize, usize) -> usize) -> [u64; 5] {
    let users: Vec<(usize, String)> =
        (0..9).map(|at| (at % 3, cluster.new_user(at % 3, &format!("{stem}{at}x"), 0))).collect();
    let sit = |(at, (owner, user)): (usize, &(usize, String))| {
        let mut person = Person::at(user, cluster.node(door(at, *owner)).plain);
        // Its first presence is handled, and nothing else is open.
        person.wait_acked();
        person
    };
    let mut people: Vec<Person> = users.iter().enumerate().map(sit).collect();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let before = hops(cluster);
    for round in 0..2 {
        for (from, person) in people.iter_mut().enumerate() {
            for to in (0..9).filter(|to| *to != from) {
                person.message(&users[to].1, &format!("{round}.{from}.{to}"));
            }
        }
        for (at, person) in people.iter_mut().enumerate() {
            person.wait_acked();
            for from in (0..9).filter(|from| *from != at) {
                person.wait_message(&format!("{round}.{from}.{at}"));
            }
        }
    }
    for person in &people {
        assert_eq!(person.messages.len(), 16);
        assert!(person.repeated().is_empty());
    }
    let after = hops(cluster);
    let counted: [u64; 5] = std::array::from_fn(|at| after[at] - before[at]);
    assert_eq!(counted.iter().sum::<u64>(), 144);
    counted
}

#[test]
fn a_message_crosses_as_many_nodes_as_the_table_says() {
    let Some(cluster) = Cluster::start(3, &Finding::Multicast) else { return };
    // Anywhere: of the nine, each node's three sit at all three nodes.
    let anywhere = all_write(&cluster, "any", |at, _| at / 3);
    eprintln!("anywhere: {anywhere:?}");
    assert_eq!(anywhere[3..], [0, 0], "{anywhere:?}");
    let at_owners = all_write(&cluster, "own", |_, owner| owner);
    eprintln!("all at their owners: {at_owners:?}");
    assert_eq!(at_owners[2..], [0, 0, 0], "{at_owners:?}");
}

#[test]
fn a_message_to_who_sits_at_its_owner_crosses_one_node_at_most() {
    let Some(cluster) = Cluster::start(3, &Finding::Multicast) else { return };
    let names = [0, 1].map(|owner| cluster.new_user(owner, "user", 0));
    // The sender's account is at the first node, and the recipient with its own at the second.
    for (door, wanted) in [(2, 1), (1, 0), (0, 1)] {
        let mut one = Person::at(&names[0], cluster.node(door).plain);
        let mut two = Person::at(&names[1], cluster.node(1).plain);
        one.wait_acked();
        std::thread::sleep(std::time::Duration::from_millis(200));
        let before = hops(&cluster);
        for number in 0..20 {
            one.message(&names[1], &format!("{door}.{number}"));
        }
        one.wait_acked();
        two.wait_message(&format!("{door}.19"));
        let after = hops(&cluster);
        let counted: Vec<u64> =
            after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(counted[wanted], 20, "{counted:?}, by node {door}");
    }
}
