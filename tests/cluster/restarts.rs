//! Nodes that are stopped and started again on purpose, one after the other, while clients go on.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Finding};
use crate::person::Person;

/// One who writes to another; who is cut off comes again.
struct Talk {
    sender: Person,
    recipient: Person,
    to: String,
    said: Vec<String>,
}

impl Talk {
    fn turn(&mut self, cluster: &Cluster, first: usize) {
        self.come_again(cluster, first);
        // No more than a client would have on its way.
        if self.sender.unacked() < 50 {
            let id = format!("m{}", self.said.len());
            self.sender.message(&self.to, &id);
            self.sender.ask();
            self.said.push(id);
        }
        self.sender.listen(Duration::from_millis(3));
        self.recipient.listen(Duration::from_millis(3));
    }

    fn come_again(&mut self, cluster: &Cluster, first: usize) {
        for person in [&mut self.sender, &mut self.recipient] {
            if !person.is_connected() {
                person.come(&cluster.doors(first), Duration::from_secs(20));
            }
        }
    }

    /// Until all that was said is acknowledged and there.
    fn catch_up(&mut self, cluster: &Cluster) {
        let until = Instant::now() + Duration::from_secs(20);
        while (self.sender.unacked() > 0 || self.recipient.firsts().len() < self.said.len())
            && Instant::now() < until
        {
            self.come_again(cluster, 0);
            for person in [&mut self.sender, &mut self.recipient] {
                person.ask();
                person.listen(Duration::from_millis(20));
            }
        }
    }
}

#[test]
fn a_rolling_restart_loses_nothing_and_costs_clients_a_resumption_at_most() {
    let Some(mut cluster) = Cluster::start(3, &Finding::Multicast) else { return };
    let (alice, bob) = (cluster.new_user(0, "alice", 2), cluster.new_user(1, "bob", 2));
    let mut talk = Talk {
        sender: Person::at(&alice, cluster.node(0).plain),
        recipient: Person::at(&bob, cluster.node(2).plain),
        to: bob.clone(),
        said: Vec::new(),
    };
    let began = Instant::now();
    for at in 0..3 {
        let until = Instant::now() + Duration::from_millis(500);
        while Instant::now() < until {
            talk.turn(&cluster, at + 1);
        }
        let node = cluster.take(at);
        let stopping = Instant::now();
        let stopped = std::thread::spawn(move || node.stop());
        while !stopped.is_finished() {
            talk.turn(&cluster, at + 1);
        }
        stopped.join().unwrap();
        eprintln!("stopped {} in {:?}", at, stopping.elapsed());
        cluster.boot(at);
        let members = Instant::now() + Duration::from_secs(20);
        while cluster.members().is_none_or(|(_, names)| names.len() < 3) {
            assert!(Instant::now() < members, "{}", cluster.events());
            talk.turn(&cluster, at + 1);
        }
    }
    talk.catch_up(&cluster);
    eprintln!(
        "{} messages in {:?}; sessions {} and {}, resumptions {} and {}; troubles {:#?} {:#?}",
        talk.said.len(),
        began.elapsed(),
        talk.sender.sessions,
        talk.recipient.sessions,
        talk.sender.resumptions,
        talk.recipient.resumptions,
        talk.sender.troubles,
        talk.recipient.troubles,
    );
    assert_eq!(talk.recipient.firsts(), talk.said);
    assert_eq!(talk.recipient.messages.len(), talk.said.len(), "nothing came twice");
    assert!(talk.sender.bounced.is_empty(), "{:?}", talk.sender.bounced);
    assert_eq!((talk.sender.sessions, talk.recipient.sessions), (1, 1), "all else was resumed");
}

#[test]
fn a_node_that_joins_takes_its_share_and_sessions_move_with_it() {
    let Some(mut cluster) = Cluster::prepare(3, &Finding::Multicast) else { return };
    cluster.boot(0);
    cluster.boot(1);
    cluster.expect_all();
    let (alice, bob) = (cluster.new_user(2, "alice", 0), cluster.new_user(2, "bob", 0));
    let mut talk = Talk {
        sender: Person::at(&alice, cluster.node(0).plain),
        recipient: Person::at(&bob, cluster.node(1).plain),
        to: bob.clone(),
        said: Vec::new(),
    };
    assert_ne!(cluster.owner(0, &alice), 2);
    for _ in 0..20 {
        talk.turn(&cluster, 0);
    }
    cluster.boot(2);
    let until = Instant::now() + Duration::from_secs(20);
    while cluster.members().is_none_or(|(_, names)| names.len() < 3) {
        assert!(Instant::now() < until, "{}", cluster.events());
        talk.turn(&cluster, 0);
    }
    assert_eq!(cluster.owner(0, &alice), 2);
    for _ in 0..50 {
        talk.turn(&cluster, 0);
    }
    talk.catch_up(&cluster);
    assert_eq!(talk.recipient.firsts(), talk.said);
    assert_eq!(talk.recipient.messages.len(), talk.said.len());
    for person in [&talk.sender, &talk.recipient] {
        assert_eq!(person.sessions, 1, "{:?}", person.troubles);
        assert!(person.resumptions <= 1, "{:?}", person.troubles);
    }
}

/// Its client sat with another node than its account's, which stops: it is told where its account is.
#[test]
fn whoever_is_sent_away_by_a_node_that_stops_is_told_where_to_go() {
    let Some(mut cluster) = Cluster::prepare(2, &Finding::Multicast) else { return };
    for (number, place) in (1..).zip(&mut cluster.places) {
        place.add(&format!("cluster.clients=[\"n{number}.example.org:5222\"]"));
        place.add("c2s.redirect=owner");
    }
    (0..2).for_each(|at| cluster.boot(at));
    cluster.expect_all();
    let users = [0, 1].map(|owner| cluster.new_user(owner, "user", 0));
    // The second is sent on first, comes back as clients do that cannot, and is let in. The first is at home.
    let mut people = users.each_ref().map(|user| Person::at(user, cluster.node(0).plain));
    people.iter_mut().for_each(Person::wait_acked);
    cluster.take(0).stop();
    for person in &mut people {
        person.wait_gone();
        let told = person.troubles.iter().rev().find(|it| it.starts_with("<stream:error"));
        let told = told.unwrap_or_else(|| panic!("{:?}", person.troubles));
        assert!(told.contains(">n2.example.org:5222</see-other-host>"), "{told}");
        person.come(&cluster.doors(1), Duration::from_secs(20));
        assert_eq!(person.resumptions, 1, "{:?}", person.troubles);
    }
}
