//! Two actors: messages over certificates and over dialback, both ways.

use crate::world::World;
use std::time::Duration;

const A: &str = "a.example";
const B: &str = "b.example";

fn exchange(mut world: World) -> World {
    world.at(0, |rig| rig.message("x@a.example/1", "y@b.example", "m1"));
    world.at(0, |rig| rig.message("x@a.example/1", "y@b.example", "m2"));
    world.run(Duration::from_secs(5));
    assert_eq!(world.messages(1), ["m1", "m2"]);
    assert_eq!(world.rig(0).handled, 2);
    world.at(1, |rig| rig.message("y@b.example/2", "x@a.example", "n1"));
    world.run(Duration::from_secs(5));
    assert_eq!(world.messages(0), ["n1"]);
    assert_eq!(world.bounced(0), [""; 0]);
    world
}

#[test]
fn messages_go_both_ways_over_dialback() {
    let mut world = exchange(World::new(1, &[A, B]));
    let probe = world.rig(1).probe();
    assert_eq!((probe.pairs_by_dialback, probe.pairs_by_certificate), (1, 0));
}

#[test]
fn messages_go_both_ways_over_certificates() {
    let mut world = exchange(World::new(2, &[A, B]).certified());
    let probe = world.rig(1).probe();
    assert_eq!((probe.pairs_by_dialback, probe.pairs_by_certificate), (0, 1));
}

#[test]
fn messages_go_without_stream_management() {
    exchange(World::with(3, &[A, B], |config| config.management = false));
    exchange(
        World::with(4, &[A, B], |config| {
            (config.management, config.bidi) = (false, false);
        })
        .certified(),
    );
}
