//! Nodes that let their clients go before they are stopped: at a pace, each to a better place, without a loss.

use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Finding, name};
use crate::person::Person;

/// Accounts of the node that is drained, some of them connected elsewhere, and clients of it whose accounts are elsewhere.
const EACH: usize = 16;

/// Three nodes, of which the first lets so many clients go in a second.
fn three(per_s: u32) -> Option<Cluster> {
    let mut cluster = Cluster::prepare(3, &Finding::Multicast)?;
    for place in &mut cluster.places {
        place.add(&format!("cluster.drain_per_s={per_s}"));
    }
    (0..3).for_each(|at| cluster.boot(at));
    cluster.expect_all();
    Some(cluster)
}

/// Clients that are to go when the first node is drained, and that see to it that they come in somewhere.
struct Crowd {
    people: Vec<(String, Person)>,
    /// When each was sent away, of all.
    went: Vec<Instant>,
}

impl Crowd {
    fn new(cluster: &Cluster) -> Crowd {
        let of_first = (0..EACH).map(|number| (0, number % 2, format!("mine{number}-")));
        let of_others = (0..EACH).map(|number| (1 + number % 2, 0, format!("theirs{number}-")));
        let people = of_first.chain(of_others).map(|(owner, door, what)| {
            let user = cluster.new_user(owner, &what, 1);
            let mut person = Person::at(&user, cluster.node(door).plain);
            person.wait_acked();
            (user, person)
        });
        Crowd { people: people.collect(), went: Vec::new() }
    }

    fn turn(&mut self, cluster: &Cluster) {
        for (_, person) in &mut self.people {
            person.listen(Duration::from_millis(1));
            if !person.is_connected() {
                self.went.push(Instant::now());
                // Not where it came from.
                let doors = [1, 2].map(|at| cluster.node(at).plain);
                person.come(&doors, Duration::from_secs(20));
            }
        }
    }

    /// For so long.
    fn go_on(&mut self, cluster: &Cluster, span: Duration) {
        let until = Instant::now() + span;
        while Instant::now() < until {
            self.turn(cluster);
        }
    }

    /// How many were sent away in the fullest second.
    fn most_in_a_second(&self) -> usize {
        let within = |from: &Instant| {
            let second =
                |at: &&Instant| **at >= *from && at.duration_since(*from) < Duration::from_secs(1);
            self.went.iter().filter(second).count()
        };
        self.went.iter().map(within).max().unwrap_or(0)
    }

    fn resumptions(&self) -> Vec<usize> {
        self.people.iter().map(|(_, person)| person.resumptions).collect()
    }
}

fn drain(cluster: &Cluster) -> Child {
    let mut command = cluster.places[0].program(&["drain"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a command said, if it went well.
#[track_caller]
fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn status(cluster: &Cluster) -> serde_json::Value {
    serde_json::from_str(&cluster.places[0].run(&["cluster", "status", "--json"])).unwrap()
}

#[test]
fn a_drain_lets_clients_go_one_after_the_other_and_loses_nothing() {
    let Some(mut cluster) = three(4) else { return };
    let mut crowd = Crowd::new(&cluster);
    let mut writer = Person::at(&cluster.new_user(1, "writer", 1), cluster.node(1).plain);
    assert_eq!(status(&cluster)["drain"], serde_json::Value::Null);
    let began = Instant::now();
    let (mut first, mut second) = (drain(&cluster), None);
    let mut messages: Vec<Vec<String>> = vec![Vec::new(); crowd.people.len()];
    let mut saw_it_going = false;
    for turn in 0.. {
        let at = turn % crowd.people.len();
        let id = format!("m{turn}");
        writer.message(&crowd.people[at].0, &id);
        messages[at].push(id);
        writer.ask();
        writer.listen(Duration::from_millis(1));
        crowd.turn(&cluster);
        if turn == 10 {
            // Another one only waits for what is under way.
            second = Some(drain(&cluster));
            let text = cluster.places[0].run(&["cluster", "status"]);
            saw_it_going = text.contains("n1 is being drained; still to go: ");
        }
        if turn > 10 && first.try_wait().unwrap().is_some() {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{}", status(&cluster));
    }
    let took = began.elapsed();
    let told = [first, second.unwrap()].map(|child| said(&child.wait_with_output().unwrap()));
    for told in &told {
        assert!(told.ends_with("the node owns no account any more; it may be stopped\n"), "{told}");
    }
    assert!(told[0].contains("still to go: ") && saw_it_going, "{told:?}");
    crowd.go_on(&cluster, Duration::from_millis(500));
    let (all, most) = (crowd.people.len(), crowd.most_in_a_second());
    eprintln!("{} of {all} went in {took:?}, at most {most} in a second", crowd.went.len());
    assert_eq!(crowd.resumptions(), vec![1; all], "each went once");
    assert!(crowd.went.last().unwrap().duration_since(crowd.went[0]) > Duration::from_secs(5));
    // Some four go in a second; where the machine stands still for one, those of two or three are seen together.
    assert!(most <= all / 2, "{most} of {all} in one second: {:?}", crowd.went);

    assert_eq!(status(&cluster)["drain"]["is_done"], true);
    writer.wait_acked();
    for ((user, person), wanted) in crowd.people.iter_mut().zip(&messages) {
        wanted.last().into_iter().for_each(|last| person.wait_message(last));
        assert_eq!(person.firsts(), *wanted, "{user}");
        assert_eq!(person.messages.len(), wanted.len(), "{user}: nothing came twice");
        assert_eq!(person.sessions, 1, "{user}: {:?}", person.troubles);
    }
    assert!(writer.bounced.is_empty(), "{:?}", writer.bounced);
    // Nobody is there any more who would notice that it stops.
    let node = cluster.take(0);
    let stopped = std::thread::spawn(move || node.stop());
    crowd.go_on(&cluster, Duration::from_secs(1));
    assert!(stopped.join().unwrap() < Duration::from_secs(5));
    let troubles =
        |(_, person): &(String, Person)| (person.resumptions > 1).then(|| person.troubles.clone());
    let troubles: Vec<_> = crowd.people.iter().filter_map(troubles).collect();
    assert_eq!(crowd.resumptions(), vec![1; all], "{troubles:?}");
}

#[test]
fn a_drain_ends_with_another_weight_and_a_stop_in_the_middle_of_one_does_not_wait_for_it() {
    // It would take half a minute.
    let Some(mut cluster) = three(1) else { return };
    let mut crowd = Crowd::new(&cluster);
    let draining = drain(&cluster);
    crowd.go_on(&cluster, Duration::from_secs(4));
    let went = crowd.went.len();
    assert!((1..EACH).contains(&went), "{went}");
    cluster.places[0].run(&["cluster", "weight", "100"]);
    let output = draining.wait_with_output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && why.contains("it is drained no more"), "{why}");
    // Accounts that went come back; then nobody is sent away.
    crowd.go_on(&cluster, Duration::from_secs(3));
    let went = crowd.went.len();
    crowd.go_on(&cluster, Duration::from_secs(3));
    assert_eq!(crowd.went.len(), went);
    let now = status(&cluster);
    let own = now["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name(0));
    assert_eq!((&own.unwrap()["weight"], &now["drain"]), (&100.into(), &serde_json::Value::Null));

    let mut draining = drain(&cluster);
    crowd.go_on(&cluster, Duration::from_secs(1));
    assert!(draining.try_wait().unwrap().is_none());
    let node = cluster.take(0);
    let stopped = std::thread::spawn(move || node.stop());
    while !stopped.is_finished() {
        crowd.turn(&cluster);
    }
    let took = stopped.join().unwrap();
    assert!(took < Duration::from_secs(10), "{took:?}");
    // It was done in time, or the node was gone first.
    draining.wait().unwrap();
    crowd.go_on(&cluster, Duration::from_millis(500));
    for (user, person) in &crowd.people {
        assert!(person.is_connected(), "{user}");
        assert_eq!(person.sessions, 1, "{user}: {:?}", person.troubles);
    }
}

#[test]
fn a_drained_node_serves_again_when_all_others_stop() {
    let Some(mut cluster) = three(100) else { return };
    let user = cluster.new_user(0, "late", 1);
    said(&drain(&cluster).wait_with_output().unwrap());
    assert_eq!(status(&cluster)["drain"]["is_done"], true);
    let others = [2, 1].map(|at| cluster.take(at));
    let stops = others.map(|node| std::thread::spawn(move || node.stop()));
    for stop in stops {
        let took = stop.join().unwrap();
        assert!(took < Duration::from_secs(8), "{took:?}");
    }
    let now = status(&cluster);
    let own = now["nodes"].as_array().unwrap().iter().find(|node| node["name"] == name(0));
    assert_eq!((&own.unwrap()["weight"], &now["drain"]), (&1.into(), &serde_json::Value::Null));
    let person = Person::at(&user, cluster.node(0).plain);
    assert!(person.is_connected());
}
