//! Two nodes on a real server; the test is their gossip, their links and their shards.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::store::{Place, Shared};
use std::sync::mpsc::Receiver;

use crate::store::postgres::tests::server::Server;

const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    run: Run,
    handle: Handle,
    events: Receiver<Event>,
    // Its writers hold the lock on the database.
    _store: Shared,
}

fn start(settings: &Settings, name: &str) -> Node {
    let mut settings = settings.clone();
    settings.writers = 1;
    let store = Place::Postgres(Box::new(settings.clone())).open_shared(name).unwrap();
    let run = Run { node: NodeId(store.node), incarnation: store.opened.incarnation };
    let me = NodeFacts {
        name: name.to_owned(),
        run,
        shards: 1,
        weight: 100,
        link: "127.0.0.1:5270".parse().unwrap(),
        clients: Vec::new(),
        components: Vec::new(),
        federates: false,
        frames: (1, 1),
        version: "0".to_owned(),
    };
    let (sender, events) = channel();
    let told = move |event| {
        let _ = sender.send(event);
    };
    let (handle, _) = super::start(&settings, me, Clock::start(), told).unwrap();
    Node { run, handle, events, _store: store }
}

impl Node {
    fn until(&self, mut is_it: impl FnMut(&Event) -> bool) -> Event {
        let began = std::time::Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "it does not come");
            let event = self.events.recv_timeout(PATIENCE).unwrap();
            if is_it(&event) {
                return event;
            }
        }
    }

    fn adopts(&self, epoch: u64) -> Arc<View> {
        match self.until(|event| matches!(event, Event::Adopt(view) if view.epoch() == epoch)) {
            Event::Adopt(view) => {
                self.handle.settled(epoch);
                view
            }
            _ => unreachable!("it was looked for"),
        }
    }

    fn hears(&self, other: &Node) {
        self.handle.told(Told::Linked(other.run));
        self.handle.told(Told::Alive(other.run));
    }
}

#[test]
fn a_node_joins_is_taken_over_and_comes_again_and_one_that_leaves_says_when() {
    let Some(server) = Server::start(&["fsync=off", "full_page_writes=off"]) else { return };
    server.database("corefire");
    let settings = Settings::parse(&server.url_with_password("corefire")).unwrap();
    let a = start(&settings, "a");
    assert!(a.adopts(1).has(a.run));
    a.until(|event| matches!(event, Event::Lease(_)));
    let b = start(&settings, "b");
    let waits = b.until(|event| matches!(event, Event::Waiting(Some(Reason::Unlinked(_)))));
    assert!(format!("{waits:?}").contains("a (127.0.0.1:5270)"), "{waits:?}");
    a.hears(&b);
    b.hears(&a);
    assert_eq!(b.adopts(2).nodes.len(), 2);
    a.handle.told(Told::EpochTold(2));
    assert!(a.adopts(2).has(b.run));
    a.handle.told(Told::Dead(b.run));
    b.until(|event| matches!(event, Event::Fenced));
    let view = a.adopts(3);
    assert!(!view.has(b.run));
    drop(b);
    let again = start(&settings, "b");
    a.hears(&again);
    again.hears(&a);
    assert_eq!(again.adopts(4).nodes.len(), 2);
    a.adopts(4);
    a.handle.leave();
    for epoch in [5, 6] {
        again.adopts(epoch);
        a.adopts(epoch);
    }
    a.until(|event| matches!(event, Event::Left));
    // What is for people comes a little later.
    let began = std::time::Instant::now();
    while again.handle.figures().events.len() < 6 {
        assert!(began.elapsed() < PATIENCE, "{:?}", again.handle.figures());
        std::thread::sleep(Duration::from_millis(10));
    }
    let figures = again.handle.figures();
    assert_eq!((figures.epoch, figures.why.as_str()), (6, "a left"));
    assert_eq!(figures.nodes.len(), 2);
    assert!(!figures.nodes[0].is_member && figures.nodes[1].is_member);
    let told: Vec<&str> = figures.events.iter().map(|event| event.what.as_str()).collect();
    assert_eq!(
        told,
        ["a left", "a is drained", "b joined", "a took b over", "b joined", "a joined"]
    );
    again.handle.stop();
}
