//! The database that all share goes, and comes back.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Finding};
use crate::person::Person;

#[test]
fn clients_stay_connected_while_the_database_is_away_and_go_on_when_it_is_back() {
    let Some(mut cluster) = Cluster::start(3, &Finding::Multicast) else { return };
    let (alice, bob) = (cluster.new_user(0, "alice", 2), cluster.new_user(1, "bob", 2));
    let mut one = Person::at(&alice, cluster.node(2).plain);
    let mut two = Person::at(&bob, cluster.node(1).plain);
    for number in 0..10 {
        one.message(&bob, &format!("m{number}"));
    }
    one.wait_acked();
    cluster.server.stop();
    for number in 10..20 {
        one.message(&bob, &format!("m{number}"));
    }
    one.ask();
    one.listen(Duration::from_secs(6));
    assert!(one.is_connected() && two.is_connected(), "{:?}", one.troubles);
    // What could not be kept was not acknowledged.
    assert!(one.unacked() > 0);
    let began = Instant::now();
    cluster.server.run();
    one.wait_acked();
    two.wait_message("m19");
    eprintln!("acknowledged {:?} after the database was back", began.elapsed());
    let wanted: Vec<String> = (0..20).map(|number| format!("m{number}")).collect();
    assert_eq!(two.firsts(), wanted);
    assert_eq!(two.messages.len(), 20);
    cluster.expect_all();
    assert_eq!((one.sessions, one.resumptions), (1, 0), "{:?}", one.troubles);
    assert_eq!((two.sessions, two.resumptions), (1, 0), "{:?}", two.troubles);
    // Nobody was taken over because all were without it.
    for at in 0..3 {
        one.message(&bob, &format!("after{at}"));
    }
    one.wait_acked();
    two.wait_message("after2");
}
