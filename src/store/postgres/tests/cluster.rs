//! Several nodes on one database.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::super::{Error, Writer};
use super::super::cluster::{Beat, ClusterLink, Facts, Proposal, Proposed};
use super::super::{PostgresReader, PostgresWriter, Settings, shared_writers, writers};
use super::server::Server;
use super::{JULIET, QUICK, append, create, ids, settings};

/// A node that has opened the database.
struct Node {
    writer: PostgresWriter,
    facts: Facts,
    link: ClusterLink,
}

fn one_writer(settings: &Settings) -> Settings {
    let mut settings = settings.clone();
    settings.writers = 1;
    settings
}

fn start(settings: &Settings, name: &str) -> Result<Node, Error> {
    let (mut writers, _, id) = shared_writers(&one_writer(settings), name)?;
    let writer = writers.remove(0);
    let facts = Facts {
        id,
        incarnation: writer.incarnation(),
        name: name.to_owned(),
        shards: 2,
        weight: 100,
        link: "127.0.0.1:5270".parse().unwrap(),
        clients: vec!["a.example.org:5222".to_owned(), "b.example.org:5222".to_owned()],
        components: Vec::new(),
        federates: false,
        oldest_frame: 1,
        newest_frame: 2,
        version: "0.2.0".to_owned(),
    };
    let link = ClusterLink::new(settings, "test");
    Ok(Node { writer, facts, link })
}

/// One that has said that it lives.
fn member(settings: &Settings, name: &str) -> Node {
    let mut node = start(settings, name).unwrap();
    node.renew(0).unwrap();
    node
}

impl Node {
    fn renew(&mut self, settled_epoch: u64) -> Result<super::super::cluster::Snapshot, Error> {
        self.link.renew(&Beat { facts: &self.facts, state: "member", settled_epoch })
    }

    fn run(&self) -> (u32, u64) {
        (self.facts.id, self.facts.incarnation)
    }

    fn propose(
        &mut self,
        from: u64,
        members: &[Facts],
        fence: &[(u32, u64)],
        over: &[(u32, u64)],
    ) -> Proposed {
        let by = self.run();
        let why = "a test";
        self.link.propose(&Proposal { by, from, members, fence, over, why }).unwrap()
    }
}

fn refusal<T>(refused: Result<T, Error>) -> String {
    let Err(error) = refused else { panic!("opened") };
    error.to_string()
}

#[test]
fn nodes_of_a_cluster_write_beside_each_other_and_read_what_each_says() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut a = start(&settings, "a").unwrap();
    let mut b = start(&settings, "b").unwrap();
    assert_eq!((a.facts.id, b.facts.id), (1, 2));
    a.writer.commit(&[create(JULIET), append(JULIET, 1)]).unwrap();
    b.writer.commit(&[append(JULIET, 2)]).unwrap();
    a.writer.commit(&[append(JULIET, 3)]).unwrap();
    assert_eq!(ids(&mut PostgresReader::open(&settings).unwrap(), JULIET), [1, 2, 3]);
    let found = a.renew(0).unwrap();
    assert_eq!((found.epoch, found.members.len(), found.nodes.len()), (0, 0, 1), "b said nothing");
    let found = b.renew(7).unwrap();
    assert_eq!(found.nodes.len(), 2);
    assert_eq!(found.nodes[0].facts, a.facts);
    assert_eq!(found.nodes[1].settled_epoch, 7);
    assert!(found.nodes.iter().all(|node| node.lease_ms > 2_000 && node.lease_ms <= 3_000));
    assert_eq!(a.propose(0, &[a.facts.clone()], &[], &[]), Proposed::Won);
    let found = b.link.read().unwrap();
    assert_eq!((found.epoch, found.members), (1, vec![a.facts.clone()]));
    assert_eq!(found.clear, Duration::ZERO);
    let events = b.link.events(10).unwrap();
    assert_eq!((events.len(), events[0].node.as_str(), events[0].epoch), (1, "a", 1));
    a.link.release(a.facts.id, a.facts.incarnation).unwrap();
    let found = b.link.read().unwrap();
    assert_eq!((found.nodes[0].lease_ms, found.nodes[0].state.as_str()), (0, "left"));
}

#[test]
fn of_several_who_propose_an_epoch_one_wins() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut nodes = ["a", "b", "c"].map(|name| member(&settings, name));
    for epoch in 0..20 {
        let (ready, all) = (AtomicUsize::new(0), nodes.len());
        let won: usize = std::thread::scope(|scope| {
            let ready = &ready;
            let threads: Vec<_> = nodes
                .iter_mut()
                .map(|node| {
                    scope.spawn(move || {
                        let members = [node.facts.clone()];
                        ready.fetch_add(1, Ordering::Relaxed);
                        while ready.load(Ordering::Relaxed) < all {
                            std::hint::spin_loop();
                        }
                        node.propose(epoch, &members, &[], &[]) == Proposed::Won
                    })
                })
                .collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(won, 1);
        assert_eq!(nodes[0].link.read().unwrap().epoch, epoch + 1);
    }
}

#[test]
fn who_is_taken_over_writes_nothing_more_and_has_no_lease() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let [mut a, mut b] = ["a", "b"].map(|name| member(&settings, name));
    b.writer.commit(&[create(JULIET), append(JULIET, 1)]).unwrap();
    let both = [a.facts.clone(), b.facts.clone()];
    assert_eq!(a.propose(0, &both, &[], &[]), Proposed::Won);
    let (alone, fence) = ([a.facts.clone()], [b.run()]);
    // Its lease lives: who says that it must be over takes nothing.
    assert_eq!(a.propose(1, &alone, &fence, &fence), Proposed::Lost);
    b.writer.commit(&[append(JULIET, 2)]).unwrap();
    // A larger side needs not wait, but others then know until when its lease may seem to live.
    assert_eq!(a.propose(1, &alone, &fence, &[]), Proposed::Won);
    let found = a.renew(0).unwrap();
    assert_eq!((found.epoch, found.members), (2, alone.to_vec()));
    assert!(found.clear > Duration::from_secs(1) && found.clear <= Duration::from_secs(3));
    assert!(matches!(b.writer.commit(&[append(JULIET, 3)]), Err(Error::Fenced)));
    assert!(matches!(b.writer.reopen(), Err(Error::Fenced)));
    assert!(matches!(b.renew(0), Err(Error::Fenced)));
    assert_eq!(b.propose(2, &[b.facts.clone()], &[a.run()], &[]), Proposed::Lost);
    a.writer.commit(&[append(JULIET, 3)]).unwrap();
    a.writer.reopen().unwrap();
    a.writer.commit(&[append(JULIET, 4)]).unwrap();
    assert_eq!(ids(&mut PostgresReader::open(&settings).unwrap(), JULIET), [1, 2, 3, 4]);
}

/// As of a machine that died between the lock of its member row and its commit.
#[test]
fn a_fence_does_not_wait_for_a_transaction_that_nobody_will_end() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let [mut a, mut b] = ["a", "b"].map(|name| member(&settings, name));
    let session = b.writer.member().session();
    let mut stuck = super::super::link::Link::connect(&settings, &session, "", &[]).unwrap();
    let run = b.run().1.cast_signed();
    let limit = Duration::from_secs(5);
    stuck.once(limit, "BEGIN", &[]).unwrap();
    stuck.once(limit, "SELECT 1 FROM member WHERE incarnation = $1 FOR SHARE", &[&run]).unwrap();
    let (alone, fence) = ([a.facts.clone()], [b.run()]);
    assert_eq!(a.propose(0, &alone, &fence, &[]), Proposed::Busy);
    let began = std::time::Instant::now();
    while a.propose(0, &alone, &fence, &[]) != Proposed::Won {
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    assert!(matches!(b.renew(0), Err(Error::Fenced)));
}

#[test]
fn a_node_alone_and_a_cluster_exclude_each_other() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let single = || writers(&one_writer(&settings), "single");
    let alone = single().unwrap();
    let told = refusal(start(&settings, "a"));
    assert!(told.contains("in no cluster") && told.contains("\"single\""), "{told}");
    drop(alone);
    let mut a = start(&settings, "a").unwrap();
    a.renew(0).unwrap();
    let (told, run) = std::thread::scope(|scope| {
        let refused = scope.spawn(|| refusal(single()));
        while !refused.is_finished() {
            a.renew(0).unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
        (refused.join().unwrap(), a.run())
    });
    assert!(told.contains("the nodes of a cluster: \"a\""), "{told}");
    a.link.release(run.0, run.1).unwrap();
    drop(a);
    drop(single().unwrap());
}

#[test]
fn two_nodes_of_one_name_are_not_there_at_once() {
    let Some(server) = Server::start(QUICK) else { return };
    let settings = settings(&server, "corefire");
    let mut first = start(&settings, "a").unwrap();
    let mut other = start(&settings, "b").unwrap();
    let told = std::thread::scope(|scope| {
        let refused = scope.spawn(|| refusal(start(&settings, "a")));
        while !refused.is_finished() {
            first.renew(0).unwrap();
            std::thread::sleep(Duration::from_millis(200));
        }
        refused.join().unwrap()
    });
    assert!(told.contains("has the name \"a\" and lives, at 127.0.0.1:5270"), "{told}");
    first.writer.commit(&[create(JULIET)]).unwrap();
    // It crashed: its lease ends, and the next one has its name, its number, and nothing else of it.
    let mut again = start(&settings, "a").unwrap();
    assert_eq!(again.facts.id, first.facts.id);
    assert!(again.facts.incarnation > first.facts.incarnation);
    assert!(matches!(first.writer.commit(&[append(JULIET, 1)]), Err(Error::Fenced)));
    assert!(matches!(first.renew(0), Err(Error::Fenced)));
    again.writer.commit(&[append(JULIET, 2)]).unwrap();
    other.writer.commit(&[append(JULIET, 3)]).unwrap();
    other.writer.reopen().unwrap();
}
