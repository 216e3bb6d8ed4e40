//! Some nodes, their database, and what they may know of each other at the start.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use corefire::base::hash::hash64;
use corefire::cluster::placement::{Member, NodeId, Placement};
use corefire_load::launch::free_address;

use crate::node::{Node, Place};
use crate::server::Server;

/// How long all members may take to have what is theirs, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(20);
/// Random, as `corefire cluster init` writes it.
pub(crate) const SECRET: &str = "4fQ0qkXn2m8sYtB7vRzJ1cWdHe6LpGuA9iKoNxT3wZb";
pub(crate) const PASSWORD: &str = "secret";

/// How the nodes hear of each other.
pub(crate) enum Finding {
    /// By a multicast group of their own, no node knows an address.
    Multicast,
    /// Each knows the address of the node before it, the first that of the last.
    Seeds,
}

/// Dropping it kills the nodes and then the database.
pub(crate) struct Cluster {
    nodes: Vec<Option<Node>>,
    pub(crate) places: Vec<Place>,
    links: Vec<SocketAddr>,
    pub(crate) server: Server,
    _secret: tempfile::TempDir,
}

/// The name of a node, by its place.
pub(crate) fn name(at: usize) -> String {
    format!("n{}", at + 1)
}

/// A file that only we may read.
pub(crate) fn secret_file(directory: &tempfile::TempDir, text: &str) -> PathBuf {
    let path = directory.path().join(format!("secret-{}", hash64(text.as_bytes())));
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// What a node of a cluster needs beside the address for links.
pub(crate) fn place(server: &Server, name: &str, secret: &std::path::Path) -> Place {
    Place::new()
        .set(&format!("node.name={name}"))
        .set("c2s.tls=optional")
        .set(&format!("storage.url={}", server.socket_url("corefire")))
        .set("cluster.enabled=true")
        .set(&format!("cluster.secret_file={}", secret.display()))
}

impl Cluster {
    /// Starts `count` nodes, and waits until all are members. `None` where PostgreSQL is not installed.
    pub(crate) fn start(count: usize, finding: &Finding) -> Option<Cluster> {
        let mut cluster = Cluster::prepare(count, finding)?;
        for at in 0..count {
            cluster.boot(at);
        }
        cluster.expect_all();
        Some(cluster)
    }

    /// All but the nodes.
    pub(crate) fn prepare(count: usize, finding: &Finding) -> Option<Cluster> {
        let links: Vec<SocketAddr> = (0..count).map(|_| free_address().unwrap()).collect();
        let group = free_address().unwrap().port();
        Cluster::at(&links, &[], |at, place| match finding {
            Finding::Multicast => place
                .set(&format!("cluster.multicast.group=239.192.0.77:{group}"))
                .set("cluster.multicast.interface=127.0.0.1"),
            Finding::Seeds => {
                let before = links[(at + count - 1) % count];
                place.set("cluster.multicast.group=").set(&format!("cluster.seeds=[\"{before}\"]"))
            }
        })
    }

    /// - takes: `links`, the addresses between the nodes; `options` of the database; `more` settings for the node at each
    ///   place
    pub(crate) fn at(
        links: &[SocketAddr],
        options: &[&str],
        more: impl Fn(usize, Place) -> Place,
    ) -> Option<Cluster> {
        let server = Server::start(options)?;
        server.database("corefire");
        let directory = tempfile::tempdir().unwrap();
        let secret = secret_file(&directory, SECRET);
        let places = links.iter().enumerate().map(|(at, link)| {
            let place = place(&server, &name(at), &secret);
            more(at, place.set(&format!("cluster.bind={link}")))
        });
        let places: Vec<Place> = places.collect();
        let nodes = places.iter().map(|_| None).collect();
        Some(Cluster { nodes, places, links: links.to_vec(), server, _secret: directory })
    }

    pub(crate) fn boot(&mut self, at: usize) {
        self.boot_as(at, self.places[at].program(&["serve"]));
    }

    pub(crate) fn boot_as(&mut self, at: usize, command: Command) {
        assert!(self.nodes[at].is_none(), "{} runs", name(at));
        self.nodes[at] = Some(self.places[at].start_as(command));
    }

    pub(crate) fn node(&self, at: usize) -> &Node {
        self.nodes[at].as_ref().unwrap()
    }

    pub(crate) fn take(&mut self, at: usize) -> Node {
        self.nodes[at].take().unwrap()
    }

    pub(crate) fn link(&self, at: usize) -> SocketAddr {
        self.links[at]
    }

    /// Where clients reach the nodes that run, beginning with the one at `first`.
    pub(crate) fn doors(&self, first: usize) -> Vec<SocketAddr> {
        let count = self.nodes.len();
        let order = (0..count).map(|step| (first + step) % count);
        order.filter_map(|at| Some(self.nodes[at].as_ref()?.plain)).collect()
    }

    /// kill -9.
    pub(crate) fn kill(&mut self, at: usize) {
        self.take(at).kill();
    }

    pub(crate) fn signal(&self, at: usize, signal: i32) {
        self.node(at).signal(signal);
    }

    pub(crate) fn add_user(&self, at: usize, user: &str) {
        self.places[at].add_user(user, PASSWORD);
    }

    /// The node that owns an account, as the node at `at` has it.
    pub(crate) fn owner(&self, at: usize, user: &str) -> usize {
        let told = self.places[at].run(&["whereis", &format!("{user}@localhost"), "--json"]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let owner = told["node"].as_str().unwrap();
        (0..self.places.len()).find(|at| name(*at) == owner).unwrap()
    }

    /// An account that the node at `owner` owns, made by way of the node at `by`.
    pub(crate) fn new_user(&self, owner: usize, what: &str, by: usize) -> String {
        let user = self.name_at(owner, what);
        self.add_user(by, &user);
        user
    }

    /// An account name that the node at `owner` owns, while all nodes are members; `what` tells it from others.
    pub(crate) fn name_at(&self, owner: usize, what: &str) -> String {
        let member = |at: usize| Member {
            node: NodeId(u32::try_from(at).unwrap()),
            name: name(at),
            weight: 1,
            shards: 2,
            federates: false,
        };
        let members: Vec<Member> = (0..self.places.len()).map(member).collect();
        let placement = Placement::new(1, &members);
        let owns = |user: &String| {
            let hash = hash64(format!("{user}@localhost").as_bytes());
            placement.owner(hash).node == members[owner].node
        };
        (0..).map(|number| format!("{what}{number}")).find(owns).unwrap()
    }

    /// A domain of another server that the node at `owner` is to talk with, while all nodes are members.
    pub(crate) fn domain_at(owner: usize, count: usize) -> String {
        let member = |at: usize| Member {
            node: NodeId(u32::try_from(at).unwrap()),
            name: name(at),
            weight: 1,
            shards: 2,
            federates: true,
        };
        let members: Vec<Member> = (0..count).map(member).collect();
        let placement = Placement::new(1, &members);
        let owns = |domain: &String| {
            let owner_of = placement.domain_owner(hash64(domain.as_bytes())).unwrap();
            owner_of.node == members[owner].node
        };
        (0..).map(|number| format!("beta{number}.test")).find(owns).unwrap()
    }

    /// Members, in order, once all of them have what is theirs; and the epoch.
    pub(crate) fn members(&self) -> Option<(u64, Vec<String>)> {
        let told = self.server.sql(
            "corefire",
            "SELECT epoch, string_agg(node ->> 'name', ' ' ORDER BY node ->> 'name'), \
             bool_and(coalesce(settled_epoch >= epoch AND incarnation = (node ->> 'incarnation')::bigint, false)) \
             FROM cluster_epoch CROSS JOIN jsonb_array_elements(members) node \
             LEFT JOIN cluster_node ON name = node ->> 'name' GROUP BY epoch",
        );
        let fields: Vec<&str> = told.split('|').collect();
        let [epoch, names, "t"] = fields[..] else { return None };
        let names = names.split(' ').map(str::to_owned).collect();
        Some((epoch.parse().unwrap(), names))
    }

    /// Waits until these are the members, and have what is theirs; gives the epoch.
    #[track_caller]
    pub(crate) fn expect_members(&self, places: &[usize]) -> u64 {
        let mut wanted: Vec<String> = places.iter().map(|at| name(*at)).collect();
        wanted.sort();
        let until = Instant::now() + PATIENCE;
        loop {
            let found = self.members();
            match found {
                Some((epoch, names)) if names == wanted => return epoch,
                found if Instant::now() > until => {
                    panic!("{found:?} instead of {wanted:?}; {}", self.events())
                }
                _ => std::thread::sleep(STEP),
            }
        }
    }

    #[track_caller]
    pub(crate) fn expect_all(&self) -> u64 {
        let running: Vec<usize> =
            (0..self.nodes.len()).filter(|at| self.nodes[*at].is_some()).collect();
        self.expect_members(&running)
    }

    /// What the cluster tells people of its changes.
    pub(crate) fn events(&self) -> String {
        self.server.sql("corefire", "SELECT epoch, node, what FROM cluster_event ORDER BY id")
    }
}

impl Drop for Cluster {
    /// Of a test that failed, what its nodes had to say belongs to the failure.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if let Some(mut node) = node.take() {
                eprintln!("{}: {:#?}", name(at), node.last_words());
            }
        }
    }
}
