//! Real instances on loopback.

use super::*;
use crate::cluster::placement::NodeId;
use crate::cluster::refusal::Refusal;
use crate::cluster::view::Run;
use std::net::UdpSocket as StdSocket;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

const PATIENCE: Duration = Duration::from_secs(20);

struct Node {
    handle: GossipHandle,
    events: Receiver<MemberEvent>,
    thread: Option<JoinHandle<()>>,
    link: SocketAddr,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.handle.command(GossipCommand::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Node {
    fn wait_for(&self, wanted: impl Fn(&MemberEvent) -> bool) -> MemberEvent {
        loop {
            let event = self.events.recv_timeout(PATIENCE).expect("the event in time");
            if wanted(&event) {
                return event;
            }
        }
    }

    fn wait_for_up(&self, node: u32) -> NodeFacts {
        let is_it = |event: &MemberEvent| matches!(event, MemberEvent::Up(facts) if facts.run.node.0 == node);
        match self.wait_for(is_it) {
            MemberEvent::Up(facts) => facts,
            other => panic!("{other:?}"),
        }
    }
}

fn settings(bind: &str) -> GossipSettings {
    GossipSettings {
        bind: bind.parse().expect("an address"),
        group: None,
        interface: None,
        seeds: Vec::new(),
        dns: String::new(),
        keys: ([1; 32], [2; 32]),
    }
}

fn facts(node: u32) -> NodeFacts {
    NodeFacts {
        name: format!("n{node}"),
        run: Run { node: NodeId(node), incarnation: 10 },
        shards: 2,
        weight: 1,
        link: "127.0.0.1:1".parse().expect("an address"),
        clients: Vec::new(),
        components: Vec::new(),
        federates: false,
        frames: (1, 2),
        version: "0.2.0".into(),
    }
}

fn start(node: u32, settings: &GossipSettings) -> Node {
    let (sender, events) = channel();
    let tell = move |event| {
        let _ = sender.send(event);
    };
    let rng = Rng::from_u64(u64::from(node));
    let (gossip, handle) =
        Gossip::bind(settings, facts(node), Clock::start(), rng, tell).expect("sockets");
    let link = gossip.link();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let thread = std::thread::spawn(move || {
        let runtime = runtime.expect("a runtime");
        runtime.block_on(gossip.run()).expect("it runs");
        runtime.shutdown_background();
    });
    Node { handle, events, thread: Some(thread), link }
}

fn refusal(settings: &GossipSettings) -> String {
    let bound = Gossip::bind(settings, facts(1), Clock::start(), Rng::from_u64(1), drop);
    bound.err().expect("it is refused").to_string()
}

#[test]
fn nodes_find_each_other_by_seeds_and_names_and_know_who_lives() {
    let one = start(1, &settings("127.0.0.1:0"));
    let by_seed = GossipSettings { seeds: vec![one.link.to_string()], ..settings("127.0.0.2:0") };
    let two = start(2, &by_seed);
    assert_eq!(two.wait_for_up(1), NodeFacts { link: one.link, ..facts(1) });
    assert_eq!(one.wait_for_up(2), NodeFacts { link: two.link, ..facts(2) });
    let name = format!("localhost:{}", one.link.port());
    let three = start(3, &GossipSettings { dns: name, ..settings("127.0.0.3:0") });
    for node in [&one, &two] {
        assert_eq!(node.wait_for_up(3).link, three.link);
    }

    let drained = NodeFacts { weight: 0, ..facts(2) };
    assert!(two.handle.command(GossipCommand::Tell(drained)));
    let is_drained =
        |event: &MemberEvent| matches!(event, MemberEvent::Changed(facts) if facts.weight == 0);
    one.wait_for(is_drained);

    assert!(three.handle.command(GossipCommand::Leave));
    three.wait_for(|event| *event == MemberEvent::Gone);
    one.wait_for(|event| *event == MemberEvent::Left(facts(3).run));

    drop(two);
    one.wait_for(|event| *event == MemberEvent::Dead(facts(2).run));
    let figures = one.handle.figures();
    assert!(figures.members.is_empty());
    assert_eq!((figures.gossip.dead, figures.gossip.left), (1, 1));
    assert!(figures.beacons.received >= 2 && figures.gossip.received > 10);
    assert_eq!(figures.beacons.refused.total(), 0);
}

/// Whether this machine carries datagrams to a group on loopback.
fn has_multicast(group: SocketAddr) -> bool {
    let interface = Some(Ipv4Addr::LOCALHOST);
    let bind = SocketAddr::from(([127, 0, 0, 1], 0));
    let Ok(sockets) = sockets::open(bind, Some(group), interface) else { return false };
    let Some(ears) = sockets.group else { return false };
    let mut byte = [0];
    ears.set_nonblocking(false).expect("a socket");
    ears.set_read_timeout(Some(Duration::from_secs(1))).expect("a socket");
    sockets.link.send_to(b"?", group).is_ok() && ears.recv_from(&mut byte).is_ok()
}

#[test]
fn nodes_find_each_other_by_multicast_and_two_clusters_on_one_group_do_not() {
    // A free port, so that no other test is heard.
    let port = StdSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let group = SocketAddr::from(([239, 192, 0, 99], port.expect("a port").port()));
    if !has_multicast(group) {
        eprintln!("skipped: this machine has no multicast on loopback");
        return;
    }
    let on_group = |bind| GossipSettings {
        group: Some(group),
        interface: Some(Ipv4Addr::LOCALHOST),
        ..settings(bind)
    };
    let one = start(1, &on_group("127.0.0.1:0"));
    let foreign = GossipSettings { keys: ([3; 32], [4; 32]), ..on_group("127.0.0.4:0") };
    let foreign = start(4, &foreign);
    let two = start(2, &on_group("127.0.0.2:0"));
    let three = start(3, &on_group("127.0.0.3:0"));
    assert_eq!(two.wait_for_up(1).link, one.link);
    assert_eq!(three.wait_for_up(2).link, two.link);
    assert_eq!(one.wait_for_up(3).link, three.link);
    assert!(one.handle.figures().beacons.own >= 1, "what it says to the group comes back");
    assert!(foreign.events.try_recv().is_err());
    let figures = foreign.handle.figures();
    assert!(figures.beacons.refused.of(Refusal::BadMac) >= 1 && figures.beacons.received == 0);
    assert!(figures.members.is_empty());
}

#[test]
fn what_is_wrong_is_said_in_one_line_that_names_the_key() {
    let taken = StdSocket::bind("127.0.0.1:0").and_then(|socket| {
        let address = socket.local_addr()?;
        Ok((socket, address))
    });
    let (_socket, address) = taken.expect("a socket");
    let group = |text: &str| Some(text.parse().expect("an address"));
    let sound = settings("127.0.0.1:0");
    let elsewhere = Some(Ipv4Addr::new(192, 0, 2, 1));
    for (settings, words) in [
        (settings("0.0.0.0:7070"), "cluster.bind = \"0.0.0.0:7070\": other nodes cannot reach"),
        (settings("192.0.2.1:0"), "cluster.bind = \"192.0.2.1:0\": UDP cannot be bound"),
        (settings(&address.to_string()), "a port that nobody has"),
        (
            GossipSettings { group: group("10.0.0.1:7077"), ..sound.clone() },
            "is no multicast group",
        ),
        (
            GossipSettings { group: group("[ff02::1]:7077"), ..sound.clone() },
            "is no multicast group",
        ),
        (
            GossipSettings {
                group: group("239.192.0.98:7077"),
                interface: elsewhere,
                ..sound.clone()
            },
            "cluster.multicast.interface = \"192.0.2.1\": the group 239.192.0.98:7077 cannot be",
        ),
        (
            GossipSettings { group: group("239.192.0.98:7077"), ..settings("[::1]:0") },
            "write the IPv4 address of the interface for beacons",
        ),
        (GossipSettings { seeds: vec!["10.0.0.2".into()], ..sound.clone() }, "HOST:PORT"),
        (
            GossipSettings { seeds: vec!["a b:1".into()], ..sound.clone() },
            "cluster.seeds: \"a b:1\"",
        ),
        (GossipSettings { seeds: vec!["n:1".into(); 65], ..sound.clone() }, "at most 64 seeds"),
        (GossipSettings { dns: "nodes:x".into(), ..sound.clone() }, "cluster.dns = \"nodes:x\""),
    ] {
        let line = refusal(&settings);
        assert!(line.contains(words) && !line.contains('\n'), "{line}");
    }
}
