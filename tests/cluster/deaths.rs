//! Nodes that die or stand still under their clients.

use std::time::{Duration, Instant};

use crate::chat::befriend;
use crate::cluster::{Cluster, Finding};
use crate::person::{Came, Person};

/// How long a client may take to be served again after a node was killed: its lease has to be over.
const BACK: Duration = Duration::from_secs(15);

#[test]
fn a_session_is_resumed_at_another_node_after_its_front_was_killed() {
    let Some(mut cluster) = Cluster::start(3, &Finding::Multicast) else { return };
    let (alice, bob) = (cluster.new_user(0, "alice", 0), cluster.new_user(1, "bob", 0));
    // Alice's account is with the first node, her socket with the third, which dies.
    let mut one = Person::at(&alice, cluster.node(2).plain);
    let mut two = Person::at(&bob, cluster.node(0).plain);
    befriend(&mut one, &alice, &mut two, &bob);
    for number in 0..20 {
        one.message(&bob, &format!("a{number}"));
        two.message(&alice, &format!("b{number}"));
    }
    one.wait_acked();
    one.wait_message("b19");
    one.listen(Duration::from_millis(100));
    let seen = two.presences.len();
    cluster.kill(2);
    // What comes meanwhile waits for her.
    one.listen(Duration::from_secs(1));
    assert!(!one.is_connected());
    for number in 20..40 {
        one.message(&bob, &format!("a{number}"));
        two.message(&alice, &format!("b{number}"));
    }
    let began = Instant::now();
    let came = one.come(&cluster.doors(0), BACK);
    eprintln!("resumed after {:?}", began.elapsed());
    assert_eq!(came, Came::Resumed, "{:?}", one.troubles);
    one.wait_acked();
    two.wait_acked();
    one.wait_message("b39");
    two.wait_message("a39");
    let all = |letter: char| (0..40).map(|number| format!("{letter}{number}")).collect::<Vec<_>>();
    assert_eq!(one.firsts(), all('b'));
    assert_eq!(two.firsts(), all('a'));
    assert!(one.repeated().is_empty() && two.repeated().is_empty());
    // For her contacts nothing has happened.
    let absences = two.presences[seen..].iter().filter(|it| it.contains("unavailable"));
    assert_eq!(absences.count(), 0, "{:?}", two.presences);
}

/// How long until a session goes on elsewhere after its owner was killed (R4).
const RESUMED: Duration = Duration::from_secs(5);

#[test]
fn a_session_is_resumed_elsewhere_after_its_owner_was_killed() {
    let Some(mut cluster) = Cluster::start(3, &Finding::Multicast) else { return };
    let bob = cluster.new_user(1, "bob", 1);
    // Both accounts are with the first node, which dies; one socket is there, the other with the second.
    let users = [cluster.new_user(0, "alice", 1), cluster.new_user(0, "carol", 1)];
    let mut two = Person::at(&bob, cluster.node(2).plain);
    let mut people = [0, 1].map(|at| Person::at(&users[at], cluster.node(at).plain));
    for (person, user) in people.iter_mut().zip(&users) {
        befriend(person, user, &mut two, &bob);
        for number in 0..40 {
            two.message(user, &format!("b{number}"));
            person.message(&bob, &format!("{user}{number}"));
        }
    }
    two.wait_acked();
    for person in &mut people {
        person.wait_acked();
        person.wait_message("b39");
    }
    // What comes while they do not listen is not acknowledged by them.
    for (person, user) in people.iter_mut().zip(&users) {
        for number in 40..80 {
            two.message(user, &format!("b{number}"));
            person.message(&bob, &format!("{user}{number}"));
        }
    }
    two.wait_acked();
    let seen = two.presences.len();
    let began = Instant::now();
    cluster.kill(0);
    for user in &users {
        for number in 80..120 {
            two.message(user, &format!("b{number}"));
        }
    }
    for person in &mut people {
        person.wait_gone();
        let came = person.come(&cluster.doors(1), BACK);
        let after = began.elapsed();
        eprintln!("resumed {after:?} after the kill");
        assert_eq!(came, Came::Resumed, "{:?}", person.troubles);
        assert!(after < RESUMED, "{after:?}");
    }
    for person in &mut people {
        person.wait_message("b119");
        person.wait_acked();
    }
    two.wait_acked();
    let all = |what: &str| (0..120).map(|at| format!("{what}{at}")).collect::<Vec<_>>();
    for (person, user) in people.iter().zip(&users) {
        assert_eq!(person.firsts(), all("b"), "{user}");
        let from_them = two.firsts().into_iter().filter(|id| id.starts_with(user.as_str()));
        assert_eq!(from_them.collect::<Vec<_>>(), all(user)[..80]);
        // They are seen again though they said nothing of it.
        assert!(two.sees(user), "{:?}", &two.presences[seen..]);
    }
    assert!(two.repeated().len() < 80, "{:?}", two.repeated());
}

#[test]
fn what_a_killed_owner_had_acknowledged_is_there_and_contacts_see_who_went_and_came() {
    let Some(mut cluster) = Cluster::start(3, &Finding::Multicast) else { return };
    let (alice, bob) = (cluster.new_user(0, "alice", 1), cluster.new_user(1, "bob", 1));
    let carol = cluster.new_user(0, "carol", 1);
    // Alice's account is with the first node, which dies; her socket is with the second.
    let mut one = Person::at(&alice, cluster.node(1).plain);
    let mut two = Person::at(&bob, cluster.node(2).plain);
    befriend(&mut one, &alice, &mut two, &bob);
    for number in 0..50 {
        two.message(&alice, &format!("b{number}"));
        one.message(&bob, &format!("a{number}"));
        // Who is nowhere.
        two.message(&carol, &format!("c{number}"));
    }
    two.wait_acked();
    one.wait_acked();
    let seen = two.presences.len();
    let began = Instant::now();
    cluster.kill(0);
    two.wait("absence of the dead node's user", |two| {
        two.presences[seen..].iter().any(|it| it.contains(&alice) && it.contains("unavailable"))
    });
    eprintln!("unavailable after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10));
    let came = one.come(&cluster.doors(1), BACK);
    eprintln!("back ({came:?}) after {:?}", began.elapsed());
    let seen = two.presences.len().saturating_sub(4);
    two.wait("presence of who came back", |two| {
        two.presences[seen..].iter().any(|it| it.contains(&alice) && !it.contains("unavailable"))
    });
    one.wait_message("b49");
    two.wait_message("a49");
    let all = |letter: char| (0..50).map(|number| format!("{letter}{number}")).collect::<Vec<_>>();
    assert_eq!(one.firsts(), all('b'));
    assert_eq!(two.firsts(), all('a'));
    let mut three = Person::at(&carol, cluster.node(2).plain);
    three.wait_message("c49");
    assert_eq!(three.firsts(), all('c'));
    // What is said from now on goes the new way.
    two.message(&alice, "after");
    two.wait_acked();
    one.wait_message("after");
    assert!(one.repeated().is_empty() && two.repeated().is_empty() && three.repeated().is_empty());
    cluster.expect_all();
}

/// Held for longer than its lease lives, a node is taken over: it must not go on as if it owned what others have.
#[test]
fn a_node_that_stood_still_loses_nothing_and_owns_nothing_that_others_have() {
    let Some(mut cluster) = Cluster::start(3, &Finding::Multicast) else { return };
    let (alice, bob) = (cluster.new_user(0, "alice", 1), cluster.new_user(1, "bob", 1));
    let mut one = Person::at(&alice, cluster.node(0).plain);
    let mut two = Person::at(&bob, cluster.node(2).plain);
    for number in 0..20 {
        two.message(&alice, &format!("b{number}"));
    }
    two.wait_acked();
    one.wait_message("b19");
    one.listen(Duration::from_millis(50));
    cluster.signal(0, libc::SIGSTOP);
    for number in 20..40 {
        two.message(&alice, &format!("b{number}"));
    }
    two.ask();
    two.listen(Duration::from_secs(5));
    cluster.signal(0, libc::SIGCONT);
    // It was taken over, and ends; or it was not, and goes on.
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        one.listen(Duration::from_millis(20));
        two.listen(Duration::from_millis(20));
    }
    let members = cluster.members();
    let fenced = members.is_some_and(|(_, names)| names == ["n2", "n3"]);
    eprintln!("taken over: {fenced}; {}", cluster.events());
    if fenced {
        assert_eq!(cluster.take(0).ended(), Some(1));
        cluster.boot(0);
    }
    cluster.expect_all();
    two.message(&alice, "after");
    two.wait_wherever(&cluster.doors(1)[..1], None);
    one.wait_wherever(&cluster.doors(0)[..1], Some("after"));
    let mut all = (0..40).map(|number| format!("b{number}")).collect::<Vec<_>>();
    all.push("after".to_owned());
    assert_eq!(one.firsts(), all, "{:?}", one.messages);
    assert!(one.repeated().is_empty(), "{:?}", one.repeated());
}
