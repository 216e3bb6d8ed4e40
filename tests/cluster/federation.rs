//! Three nodes that talk with another server, as one of them does for all; it dies, and it is stopped.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, PASSWORD};
use crate::node::{Node, Place};
use crate::person::Person;
use corefire_load::launch::free_address;

/// How long what waited for a node that was killed may take to arrive.
const ARRIVES: Duration = Duration::from_secs(40);
const NODES: usize = 3;

/// Three nodes and a server of its own, each on an address of its own.
struct World {
    cluster: Cluster,
    other: Place,
    server: Node,
    domain: String,
}

/// Loopback addresses that no other test has.
fn addresses(block: u8) -> [Ipv4Addr; NODES + 1] {
    let pid = std::process::id();
    let octet = |number: u32| u8::try_from(number % 200 + 2).unwrap();
    std::array::from_fn(|at| {
        let at = u8::try_from(at).unwrap();
        Ipv4Addr::new(127, octet(pid / 200), octet(pid), block * 16 + at + 1)
    })
}

/// - takes: `owner`, the node that is to talk with the other server
fn start(block: u8, owner: usize) -> Option<World> {
    let domain = Cluster::domain_at(owner, NODES);
    let addresses = addresses(block);
    let links: Vec<_> = (0..NODES).map(|_| free_address().unwrap()).collect();
    let federated = |place: Place, at: usize| {
        place
            .set("federation.enabled=true")
            .set(&format!("federation.listen=[\"{}:5269\"]", addresses[at]))
            .set("federation.direct_tls_listen=[]")
            .set("federation.limits.retry_first_s=1")
            .set("federation.limits.retry_last_s=1")
    };
    let mut cluster = Cluster::at(&links, &[], |at, place| {
        let before = links[(at + NODES - 1) % NODES];
        let place = place
            .set("cluster.multicast.group=")
            .set(&format!("cluster.seeds=[\"{before}\"]"))
            .set(&format!("federation.routes.\"{domain}\"={}:5269", addresses[NODES]));
        federated(place, at)
    })?;
    // Its connections come in at the first node that answers, be it the one that sends or not: also those that ask for
    // dialback keys.
    let doors: Vec<String> = (0..NODES).map(|at| format!("{}:5269", addresses[at])).collect();
    let other = Place::new()
        .set(&format!("domains=[\"{domain}\"]"))
        .set("c2s.tls=optional")
        .set(&format!("federation.routes.localhost={}", doors.join(" ")));
    let other = federated(other, NODES);
    other.run(&["user", "add", &format!("bob@{domain}"), "--password", PASSWORD]);
    let server = other.start();
    for at in 0..NODES {
        cluster.boot(at);
    }
    cluster.expect_all();
    Some(World { cluster, other, server, domain })
}

impl World {
    fn bob(&self) -> Person {
        Person::of("bob", &self.domain, self.server.plain)
    }

    fn bob_is(&self) -> String {
        format!("bob@{}", self.domain)
    }

    /// Streams to the other server, by node, of those that run.
    fn outgoing(&self, at: usize) -> u64 {
        let told = self.cluster.places[at].run(&["federation", "list", "--json"]);
        let lines = told.lines().map(|line| serde_json::from_str(line).unwrap());
        let mut lines = lines.filter(|line: &serde_json::Value| line["domain"] == *self.domain);
        lines.next().map_or(0, |line| line["outgoing"].as_u64().unwrap())
    }

    fn owner(&self, at: usize) -> String {
        let told = self.cluster.places[at].run(&["whereis", &self.bob_is(), "--json"]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(told["talks_to"], *self.domain, "{told}");
        told["node"].as_str().unwrap().to_owned()
    }
}

/// Somebody of the cluster who writes to bob, and what of it counts.
struct Writer {
    person: Person,
    stem: String,
    said: usize,
}

impl Writer {
    fn say(&mut self, to: &str) {
        let id = format!("{}.{}", self.stem, self.said);
        self.said += 1;
        self.person.message_to(to, &id);
        self.person.ask();
        self.person.listen(Duration::from_millis(1));
    }

    /// Comes again where it is sent away.
    fn stay(&mut self, cluster: &Cluster) {
        if !self.person.is_connected() {
            self.person.come(&cluster.doors(0), ARRIVES);
        }
    }
}

/// Everything that was said is there, each time first in the order in which it was said.
#[track_caller]
fn assert_all_in_order(bob: &Person, writers: &[Writer]) {
    let firsts = bob.firsts();
    for writer in writers {
        assert!(writer.person.bounced.is_empty(), "{:?}", writer.person.bounced);
        let came: Vec<&str> = firsts
            .iter()
            .copied()
            .filter(|id| id.split('.').next() == Some(&writer.stem))
            .collect();
        let said: Vec<String> = (0..writer.said).map(|n| format!("{}.{n}", writer.stem)).collect();
        assert_eq!(came, said, "{}", writer.stem);
    }
    eprintln!("{} came, {} of them twice", firsts.len(), bob.messages.len() - firsts.len());
}

/// Takes what comes until all is there that was said.
#[track_caller]
fn wait_for_all(world: &World, bob: &mut Person, writers: &mut [Writer]) {
    let wanted: usize = writers.iter().map(|writer| writer.said).sum();
    let until = Instant::now() + ARRIVES;
    while bob.firsts().len() < wanted || writers.iter().any(|it| it.person.unacked() > 0) {
        for writer in writers.iter_mut() {
            writer.stay(&world.cluster);
            writer.person.ask();
            writer.person.listen(Duration::from_millis(5));
        }
        bob.listen(Duration::from_millis(20));
        let unacked: Vec<usize> = writers.iter().map(|it| it.person.unacked()).collect();
        let came = bob.firsts().len();
        assert!(Instant::now() < until, "{came} of {wanted} came, not acknowledged {unacked:?}");
    }
}

/// People whose accounts are on all nodes, connected each to the next one but where it is `away`.
fn writers(world: &World, away: Option<usize>) -> Vec<Writer> {
    let all = (0..NODES).filter(|owner| Some(*owner) != away);
    let writer = |owner: usize| {
        let stem = format!("w{owner}");
        let user = world.cluster.new_user(owner, &format!("{stem}-"), 0);
        let mut door = (owner + 1) % NODES;
        if Some(door) == away {
            door = (door + 1) % NODES;
        }
        let mut person = Person::at(&user, world.cluster.node(door).plain);
        person.wait_acked();
        Writer { person, stem, said: 0 }
    };
    all.map(writer).collect()
}

#[test]
fn accounts_of_all_nodes_chat_with_another_server_by_way_of_one() {
    let Some(world) = start(0, 1) else { return };
    for at in 0..NODES {
        assert_eq!(world.owner(at), "n2");
    }
    let mut bob = world.bob();
    let mut users = Vec::new();
    for owner in 0..NODES {
        for door in 0..NODES {
            let user = world.cluster.new_user(owner, &format!("u{owner}{door}-"), 0);
            let mut person = Person::at(&user, world.cluster.node(door).plain);
            person.message_to(&world.bob_is(), &format!("to-{user}"));
            bob.wait_message(&format!("to-{user}"));
            bob.message(&user, &format!("re-{user}"));
            person.wait_message(&format!("re-{user}"));
            person.wait_acked();
            users.push((user, person));
        }
    }
    bob.wait_acked();
    assert_eq!([0, 1, 2].map(|at| world.outgoing(at)), [0, 1, 0], "streams of stanzas");
    // Who is not there is told by an error, whichever way it goes.
    let nobody = world.cluster.name_at(2, "nobody");
    bob.message(&nobody, "lost");
    bob.wait("error", |bob| bob.bounced.iter().any(|id| id == "lost"));
    world.server.stop();
}

#[test]
fn nothing_acknowledged_is_lost_with_the_node_that_talks_with_another_server() {
    let Some(mut world) = start(1, 1) else { return };
    let mut bob = world.bob();
    let mut writers = writers(&world, Some(1));
    let to = world.bob_is();
    let mut back = 0;
    let round = |world: &World, writers: &mut Vec<Writer>, bob: &mut Person| {
        for writer in writers.iter_mut() {
            writer.stay(&world.cluster);
            writer.say(&to);
        }
        bob.listen(Duration::from_millis(1));
    };
    for _ in 0..150 {
        round(&world, &mut writers, &mut bob);
    }
    world.cluster.kill(1);
    let killed = Instant::now();
    while killed.elapsed() < Duration::from_secs(6) {
        round(&world, &mut writers, &mut bob);
    }
    wait_for_all(&world, &mut bob, &mut writers);
    eprintln!("all was there {:?} after the kill", killed.elapsed());
    assert_all_in_order(&bob, &writers);
    // And the other way.
    for writer in &mut writers {
        let id = format!("back{back}");
        back += 1;
        let user = writer.person.user().to_owned();
        bob.message(&user, &id);
        writer.person.wait_message(&id);
    }
    assert_ne!(world.owner(0), "n2");
    // It comes again, and has the domain back.
    world.cluster.boot(1);
    world.cluster.expect_all();
    for _ in 0..20 {
        round(&world, &mut writers, &mut bob);
    }
    wait_for_all(&world, &mut bob, &mut writers);
    assert_all_in_order(&bob, &writers);
    assert_eq!(world.owner(0), "n2");
}

#[test]
fn a_node_that_stops_hands_its_domains_on_while_all_is_written() {
    let Some(mut world) = start(2, 2) else { return };
    let mut bob = world.bob();
    let mut writers = writers(&world, None);
    let to = world.bob_is();
    for at in [2, 0, 1] {
        let turn = |world: &World, writers: &mut Vec<Writer>, bob: &mut Person| {
            for writer in writers.iter_mut() {
                writer.stay(&world.cluster);
                writer.say(&to);
            }
            bob.listen(Duration::from_millis(1));
        };
        for _ in 0..30 {
            turn(&world, &mut writers, &mut bob);
        }
        let node = world.cluster.take(at);
        let stopping = std::thread::spawn(move || node.stop());
        while !stopping.is_finished() {
            turn(&world, &mut writers, &mut bob);
        }
        eprintln!("n{} stopped in {:?}", at + 1, stopping.join().unwrap());
        for _ in 0..30 {
            turn(&world, &mut writers, &mut bob);
        }
        wait_for_all(&world, &mut bob, &mut writers);
        assert_all_in_order(&bob, &writers);
        world.cluster.boot(at);
        world.cluster.expect_all();
    }
    wait_for_all(&world, &mut bob, &mut writers);
    assert_all_in_order(&bob, &writers);
    let _ = world.other.run(&["federation", "list"]);
}
