//! What nodes measure of the way between them.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Finding, PATIENCE};
use crate::person::Person;

#[test]
fn the_way_between_two_nodes_is_told_as_an_estimate() {
    let Some(cluster) = Cluster::start(3, &Finding::Multicast) else { return };
    let [alice, bob] = &[0, 1].map(|owner| cluster.new_user(owner, "user", 0));
    let mut one = Person::at(alice, cluster.node(0).plain);
    let mut two = Person::at(bob, cluster.node(1).plain);
    // Clocks are compared by pings, one a second.
    let until = Instant::now() + PATIENCE;
    loop {
        let told = cluster.places[1].run(&["cluster", "status"]);
        if told.matches("round trip").count() == 2 && told.contains(" us, clock ") {
            break;
        }
        assert!(Instant::now() < until, "{told}");
        std::thread::sleep(Duration::from_millis(50));
    }
    for number in 0..50 {
        one.message(bob, &format!("m{number}"));
    }
    two.wait_message("m49");
    for stage in ["node_hop", "total"] {
        let is_it = |one: &serde_json::Value| {
            one["kind"] == "message" && one["path"] == "node" && one["stage"] == stage
        };
        // What cores have measured is gathered each second.
        let until = Instant::now() + PATIENCE;
        let found = loop {
            let told = cluster.places[1].run(&["latency", "--json"]);
            let told: serde_json::Value = serde_json::from_str(&told).unwrap();
            let found = told["series"].as_array().unwrap().iter().find(|one| is_it(one));
            match found.filter(|one| one["total"]["count"].as_u64() >= Some(50)) {
                Some(found) => break found.clone(),
                None => assert!(Instant::now() < until, "no {stage}: {told}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        assert_eq!(found["estimate"], true, "{found}");
        // Both nodes have one clock here, and no message took that long.
        assert!(found["total"]["max"].as_u64() < Some(20_000_000_000), "{found}");
    }
    let shown = cluster.places[1].run(&["latency"]);
    assert!(shown.contains("message node node_hop (estimate)"), "{shown}");
}
