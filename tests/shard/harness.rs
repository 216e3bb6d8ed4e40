//! A node of a few shards around a store in memory, and clients that talk to it in XML text.
//!
//! ```ignore
//! let mut node = Node::new(2);
//! let alice = node.online("alice", "phone");
//! node.send(alice, "<message to='bob@here'><body>hi</body></message>");
//! assert!(node.read(alice).contains("service-unavailable"));
//! ```
//!
//! Everything that a call causes has happened when it returns, but for what the test holds back: the store's answers
//! (`hold_store`), the frames between shards (`hold_rings`), a client's reading (`stop_reading`).

#[path = "harness/desk.rs"]
mod desk;
#[path = "harness/foreign.rs"]
mod foreign;
#[path = "harness/fronts.rs"]
mod fronts;
#[path = "harness/trace.rs"]
mod trace;

use corefire::base::instant::{Instant, Now, Wall};
use corefire::base::rng::Rng;
use corefire::cluster::placement::{NodeId, Owner, Placement, ShardId, store_partition};
use corefire::cluster::relay::Leave;
use corefire::cluster::view::{NodeFacts, Place, Run, View};
use corefire::frame::Batch;
use corefire::shard::errand::{Outcome, Registrations, SessionFacts, Whose};
use corefire::shard::{
    Action, ConnId, Effects, Feature, Features, ImageError, Input, Latencies, Limits, Peer, Probe,
    Shard, ShardConfig, StoreOutcome, Ticket, TopTalkers,
};
use corefire::store::memory::{MemoryReader, MemoryStore, MemoryWriter};
use corefire::store::{
    AccountRecord, Answer, ArchiveQuery, Keep, LogEntry, Origin, Query, Reader as _, RosterItem,
    Write, Writer as _, Written,
};
use corefire::stream::TlsFacts;
use corefire::stream::c2s::C2sPolicy;
use corefire::stream::component::{ComponentAccess, Secret};
use corefire::stream::sasl::{client, encode_payload, new_credentials};
use corefire::xmpp::credentials::Credentials;
use corefire::xmpp::jid::{BareJid, Jid};
use corefire::xmpp::xml::framer::{Framer, Step, XmlLimits};
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// Everybody's password.
pub(crate) const PASSWORD: &str = "secret";
pub(crate) const ITERATIONS: u32 = 4_096;
pub(crate) const HEADER: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='here' version='1.0'>";

/// A component's first words.
pub(crate) fn component_header(domain: &str) -> String {
    format!(
        "<stream:stream xmlns='jabber:component:accept' \
         xmlns:stream='http://etherx.jabber.org/streams' to='{domain}'>"
    )
}

/// A component that may connect with its name as its secret.
pub(crate) fn access(domain: &str) -> ComponentAccess {
    ComponentAccess { domain: domain.into(), secret: Secret::new(domain) }
}

/// One derivation serves all accounts of all tests.
pub(crate) static CREDENTIALS: LazyLock<Credentials> =
    LazyLock::new(|| new_credentials(PASSWORD, ITERATIONS, &mut |salt| salt.fill(7)).unwrap());

/// A client of the node, for as long as its connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client(usize);

struct Core {
    shard: Shard,
    fx: Effects,
    place: Place,
    /// Of its node.
    shards: u16,
    /// Its node was not killed.
    lives: bool,
    relays: fronts::Relays,
}

impl Core {
    fn node(&self) -> u32 {
        self.place.run.node.0
    }
}

struct Socket {
    shard: usize,
    conn: ConnId,
    /// What has arrived and was not looked at.
    inbox: Vec<u8>,
    reads: bool,
    /// Answers the server's pings, which the test then does not see.
    answers_pings: bool,
    open: bool,
    wants_tls: bool,
    moves: usize,
    /// There while its connection is on another node.
    front: Option<fronts::Fronted>,
}

enum Request {
    Write(Write),
    Query(Query),
}

pub(crate) struct Node {
    now: Now,
    /// Of one node, or of all that a cluster ever had.
    cores: Vec<Core>,
    placement: Arc<Placement>,
    epoch: u64,
    sockets: Vec<Socket>,
    writer: MemoryWriter,
    reader: MemoryReader,
    requests: VecDeque<(usize, Ticket, Request)>,
    /// Output that waits for its moment.
    withheld: Vec<(usize, ConnId, Instant)>,
    store_holds: bool,
    /// What the store was asked so far: to read, and to write.
    pub(crate) queries: usize,
    pub(crate) writes: usize,
    /// Writes fail as on a disk that gave up.
    pub(crate) store_fails: bool,
    /// Other nodes of its cluster that give no answer.
    pub(crate) silent: Vec<String>,
    rings: VecDeque<(usize, usize, Instant, Batch)>,
    rings_hold: bool,
    foreign: foreign::Foreign,
    /// What fronts and owners tell each other: from which core, to which.
    relayed: VecDeque<(usize, usize, Vec<u8>)>,
    /// Between which nodes all waits.
    held_ways: Vec<(u32, u32)>,
    /// What was handled, which nobody was told for that.
    held_news: Vec<(usize, usize, u64, u64)>,
    keeps_fronts: bool,
    /// Nodes that are started are to send directly.
    pub(crate) is_direct: bool,
    /// Connections move as they do between nodes.
    pub(crate) moves_as_images: bool,
    /// Those that did.
    pub(crate) images: Vec<Vec<u8>>,
    /// From a turn's end until its output has left.
    pub(crate) writing_takes: Duration,
    /// Nobody hears from this node what it has handled.
    news_lost_of: Option<NodeId>,
    /// The side threads that run errands have too much to do.
    pub(crate) errands_fail: bool,
    registrations: Registrations,
    /// When an administrator's stop ends the node.
    pub(crate) stops_in: Option<Duration>,
    /// A node whose wall clock is ahead, and by how much.
    pub(crate) clock_ahead: Option<(u32, Duration)>,
    /// Nodes know how far each other's clocks are off.
    pub(crate) clocks_compared: bool,
}

/// The configuration of all tests, to be changed by some.
pub(crate) fn config() -> ShardConfig {
    let policy = C2sPolicy {
        limits_before: XmlLimits { stanza_bytes_max: 8_192, ..XmlLimits::default() },
        limits: XmlLimits { stanza_bytes_max: 65_536, ..XmlLimits::default() },
        ..C2sPolicy::new(
            "here",
            corefire::features::stream_features(&corefire::features::Settings::default()),
        )
    };
    let limits = Limits {
        silence: Duration::from_secs(120),
        login_attempts: 3,
        output_bytes: 256 << 10,
        resources_per_account: 4,
        roster_items: 8,
        subscription_requests: 3,
        roster_groups: 4,
        roster_name_bytes: 64,
        directed_presence: 4,
        offline_messages: 300,
        resume: Duration::from_secs(60),
        resume_queue: 500,
        pending_stanzas: 400,
        accounts: 1_000,
        open_iqs: 4,
        ..Limits::default()
    };
    ShardConfig {
        scram_iterations: ITERATIONS,
        decoy_secret: [9; 32],
        ..ShardConfig::new(policy, limits)
    }
}

impl Node {
    pub(crate) fn new(shards: u16) -> Node {
        Node::with(shards, |_| {})
    }

    pub(crate) fn with(shards: u16, change: impl FnOnce(&mut ShardConfig)) -> Node {
        Node::with_features(shards, change, corefire::features::all)
    }

    /// - takes: `features`, called once per shard
    pub(crate) fn with_features(
        shards: u16,
        change: impl FnOnce(&mut ShardConfig),
        features: impl Fn() -> Vec<Box<dyn Feature>>,
    ) -> Node {
        let mut config = config();
        change(&mut config);
        let config = Arc::new(config);
        let placement = Arc::new(Placement::single(shards));
        let now = Now { mono: Instant(1_000_000_000), wall: Wall(1_700_000_000_000_000) };
        let run = Run { node: config.node, incarnation: config.incarnation };
        let core = |id: u16| Core {
            shard: Shard::new(
                ShardId(id),
                config.clone(),
                placement.clone(),
                features(),
                Rng::from_u64(u64::from(id)),
                now,
            ),
            fx: Effects::new(shards + config.federation_cores),
            place: Place { run, shard: ShardId(id) },
            shards,
            lives: true,
            relays: fronts::Relays::default(),
        };
        let store = MemoryStore::new();
        let (writer, _) = store.open();
        Node {
            now,
            cores: (0..shards).map(core).collect(),
            placement: placement.clone(),
            epoch: 0,
            sockets: Vec::new(),
            reader: store.reader(),
            writer,
            requests: VecDeque::new(),
            withheld: Vec::new(),
            store_holds: false,
            queries: 0,
            writes: 0,
            store_fails: false,
            silent: Vec::new(),
            rings: VecDeque::new(),
            rings_hold: false,
            foreign: foreign::Foreign::new(config.federation_cores),
            relayed: VecDeque::new(),
            held_ways: Vec::new(),
            held_news: Vec::new(),
            keeps_fronts: false,
            is_direct: true,
            moves_as_images: false,
            images: Vec::new(),
            writing_takes: Duration::ZERO,
            news_lost_of: None,
            errands_fail: false,
            registrations: Registrations::default(),
            stops_in: None,
            clock_ahead: None,
            clocks_compared: false,
        }
    }

    // ---- clusters

    /// Nodes of so many shards each, with the ids from 1 on; none of them is a member yet.
    pub(crate) fn cluster(nodes: u32, shards: u16, change: impl Fn(&mut ShardConfig)) -> Node {
        let mut cluster = Node::with(1, |_| {});
        cluster.cores.clear();
        for id in 1..=nodes {
            cluster.start_node(id, shards, &change);
        }
        cluster
    }

    /// Starts a node, again under the same id.
    pub(crate) fn start_node(&mut self, id: u32, shards: u16, change: &impl Fn(&mut ShardConfig)) {
        let incarnation = 1 + self.cores.len() as u64;
        let mut config = config();
        change(&mut config);
        config.node = NodeId(id);
        config.incarnation = incarnation;
        self.federate(config.federation_cores);
        let config = Arc::new(config);
        let run = Run { node: NodeId(id), incarnation };
        for shard in (0..shards).map(ShardId) {
            let rng = Rng::from_u64(incarnation << 16 | u64::from(shard.0));
            let placement = Arc::new(Placement::single(shards));
            let features = corefire::features::all();
            self.cores.push(Core {
                shard: Shard::new(shard, config.clone(), placement, features, rng, self.now),
                fx: Effects::new(shards + config.federation_cores),
                place: Place { run, shard },
                shards,
                lives: true,
                relays: fronts::Relays::default(),
            });
        }
    }

    /// The node is gone, with its sockets and all that is on its way to it and from it.
    pub(crate) fn kill_node(&mut self, id: u32) {
        for at in 0..self.cores.len() {
            if self.cores[at].place.run.node != NodeId(id) || !self.cores[at].lives {
                continue;
            }
            self.cores[at].lives = false;
            self.rings.retain(|(from, to, ..)| *from != at && *to != at);
            self.requests.retain(|(asker, ..)| *asker != at);
            self.sockets.iter_mut().filter(|it| it.shard == at).for_each(|it| it.open = false);
        }
        self.lose_fronts_of(id);
    }

    pub(crate) fn lose_news_of(&mut self, id: u32) {
        self.news_lost_of = Some(NodeId(id));
    }

    /// There is a way again from the node whose news were lost.
    pub(crate) fn link_again(&mut self) {
        let of = self.news_lost_of.take();
        let places: Vec<Place> = self.cores.iter().map(|core| core.place).collect();
        let runs: BTreeSet<Run> = places.iter().map(|place| place.run).collect();
        for (at, place) in places.iter().enumerate().filter(|(_, it)| Some(it.run.node) == of) {
            for run in runs.iter().filter(|run| **run != place.run) {
                self.input(at, Input::Linked(*run));
            }
        }
        self.run();
    }

    /// The next epoch: these nodes, of the weights, are the members. Told to those that live, `late` ones excepted.
    pub(crate) fn members(&mut self, members: &[(u32, u32)], late: &[u32]) -> Arc<View> {
        let federates = self.foreign.cores() > 0;
        self.members_of(members, late, |_| federates)
    }

    /// As `members`, of which some talk with other servers.
    pub(crate) fn members_of(
        &mut self,
        members: &[(u32, u32)],
        late: &[u32],
        federates: impl Fn(u32) -> bool,
    ) -> Arc<View> {
        self.epoch += 1;
        let node = |(id, weight): &(u32, u32)| {
            let cores = || self.cores.iter().filter(|it| it.lives && it.place.run.node.0 == *id);
            NodeFacts {
                name: format!("node-{id}"),
                run: cores().next().expect("a node that lives").place.run,
                shards: u16::try_from(cores().count()).unwrap(),
                weight: *weight,
                link: "127.0.0.1:1".parse().unwrap(),
                clients: vec![format!("node-{id}.here:5222")],
                components: Vec::new(),
                federates: federates(*id),
                frames: (1, 1),
                version: String::new(),
            }
        };
        let view = Arc::new(View::new(self.epoch, members.iter().map(node).collect()));
        self.placement = view.placement.clone();
        self.tell_view(&view, |id| !late.contains(&id));
        view
    }

    /// Tells a view to the nodes of those ids that are wanted.
    pub(crate) fn tell_view(&mut self, view: &Arc<View>, wanted: impl Fn(u32) -> bool) {
        for at in 0..self.cores.len() {
            let node = self.cores[at].place.run.node;
            if wanted(node.0) && view.node(node).is_some() {
                self.input(at, Input::Placed(view.clone()));
            }
        }
        self.run();
    }

    /// A node that is no member any more, and still there, hears of a view.
    pub(crate) fn tell_left(&mut self, view: &Arc<View>, id: u32) {
        for at in 0..self.cores.len() {
            if self.cores[at].lives && self.cores[at].place.run.node.0 == id {
                self.input(at, Input::Placed(view.clone()));
            }
        }
        self.run();
    }

    /// Whether all shards that live have settled the newest epoch.
    pub(crate) fn is_settled(&self) -> bool {
        let members = self.placement.members();
        let is_member = |core: &&Core| members.iter().any(|it| it.node == core.place.run.node);
        let mut cores = self.cores.iter().filter(|core| core.lives).filter(is_member);
        cores.all(|core| core.shard.settled_epoch() == self.epoch)
    }

    /// The node that owns `name@here`.
    pub(crate) fn node_of(&self, name: &str) -> u32 {
        self.placement.owner(bare(name).hash64()).node.0
    }

    /// A name, of those that begin with `stem`, whose account that node owns.
    pub(crate) fn name_at(&self, stem: &str, node: u32) -> String {
        let mut names = (0..10_000).map(|number| format!("{stem}{number}"));
        names.find(|name| self.node_of(name) == node).expect("each node owns some")
    }

    // ---- accounts

    /// Creates accounts at `here`.
    pub(crate) fn users(&mut self, names: &[&str]) {
        for name in names {
            let owner = bare(name);
            let create = Write::CreateAccount { owner, credentials: CREDENTIALS.clone() };
            self.writer.commit(&[create]).unwrap();
        }
    }

    /// Creates an account at any domain.
    pub(crate) fn user_at(&mut self, jid: &str) {
        let owner = BareJid::parse(jid).unwrap();
        let create = Write::CreateAccount { owner, credentials: CREDENTIALS.clone() };
        self.writer.commit(&[create]).unwrap();
    }

    /// Changes an account as an operator would, and tells its shard.
    pub(crate) fn change_account(&mut self, name: &str, change: Write) {
        self.writer.commit(&[change]).unwrap();
        let jid = bare(name);
        let owner = self.owner(name);
        self.input(owner, Input::AccountChanged(jid));
        self.run();
    }

    /// Tells the shard of `name@here` that others gave ids of its partition below `next`.
    pub(crate) fn ids_given(&mut self, name: &str, next: u64) {
        let partition = store_partition(bare(name).hash64());
        let owner = self.owner(name);
        self.input(owner, Input::IdsGiven { partition, next });
        self.run();
    }

    /// Puts messages into the log of `name@here` as an import does.
    pub(crate) fn bring_in(&mut self, name: &str, bodies: &[&str]) {
        let partition = store_partition(bare(name).hash64());
        let count = u32::try_from(bodies.len()).unwrap();
        let written = self.writer.commit(&[Write::ReserveIds { partition, count }]).unwrap();
        let [Written::Reserved { first }] = written[..] else { panic!("{written:?}") };
        self.ids_given(name, first + u64::from(count));
        let append = |(id, body): (u64, &&str)| {
            let open = "<message from='carol@there' to='x@here' type='chat'>";
            let stanza = format!("{open}<body>{body}</body></message>");
            let entry = LogEntry {
                id,
                at: Wall(1_600_000_000_000_000),
                with: Jid::parse("carol@there").unwrap(),
                keep: Keep::Pending,
                origin: Origin::default(),
                open_end: u32::try_from(open.len()).unwrap(),
                close_start: u32::try_from(stanza.len() - "</message>".len()).unwrap(),
                stanza: stanza.into_bytes(),
            };
            Write::AppendLog { owner: bare(name), entry }
        };
        let rows: Vec<Write> = (first..).zip(bodies).map(append).collect();
        self.writer.commit(&rows).unwrap();
        let owner = self.owner(name);
        self.input(owner, Input::AccountChanged(bare(name)));
        self.run();
    }

    /// Ids in the log of `name@here`.
    pub(crate) fn log_ids(&mut self, name: &str) -> Vec<u64> {
        let query = Query::Log { owner: bare(name), after: 0, limit: 10_000 };
        match self.reader.read(&query).unwrap() {
            Answer::Log { entries, .. } => entries.iter().map(|entry| entry.id).collect(),
            other => panic!("a log, not {other:?}"),
        }
    }

    /// Has all shards go by a configuration that differs from that of all tests by `change`.
    pub(crate) fn reconfigure(&mut self, change: impl FnOnce(&mut ShardConfig)) {
        self.reconfigure_with(change, corefire::features::all);
    }

    pub(crate) fn reconfigure_with(
        &mut self,
        change: impl FnOnce(&mut ShardConfig),
        features: impl Fn() -> Vec<Box<dyn Feature>>,
    ) {
        let mut config = config();
        change(&mut config);
        let config = Arc::new(config);
        for shard in 0..self.cores.len() {
            let features = Features(features());
            self.input(shard, Input::Reconfigured { config: config.clone(), features });
        }
        self.run();
    }

    /// The shard that owns `name@here`.
    pub(crate) fn owner(&self, name: &str) -> usize {
        self.owner_of(&bare(name))
    }

    fn owner_of(&self, jid: &BareJid) -> usize {
        self.core_of(self.placement.owner(jid.hash64()))
    }

    /// What the store has of `name@here`.
    pub(crate) fn record(&mut self, name: &str) -> Option<Box<AccountRecord>> {
        match self.reader.read(&Query::Account { owner: bare(name) }).unwrap() {
            Answer::Account(record) => record,
            other => panic!("an account, not {other:?}"),
        }
    }

    /// Ends sessions as an operator does.
    pub(crate) fn kick(&mut self, jid: &str) {
        let jid = Jid::parse(jid).unwrap();
        let owner = self.owner_of(jid.bare());
        self.input(owner, Input::EndSessions(jid));
        self.run();
    }

    /// Sessions of `name@here` as operators see them.
    pub(crate) fn session_facts(&self, name: &str) -> Vec<SessionFacts> {
        let whose = Whose::Account(bare(name));
        self.cores[self.owner(name)].shard.session_facts(self.now, &whose, 0, 0).found
    }

    /// All sessions of a shard, in pages of so many.
    pub(crate) fn session_pages(&self, shard: usize, limit: usize) -> Vec<Vec<String>> {
        let (mut pages, mut after) = (Vec::new(), Some(0));
        while let Some(slot) = after {
            let page = self.cores[shard].shard.session_facts(self.now, &Whose::Anyone, slot, limit);
            pages.push(page.found.iter().map(|facts| facts.jid.to_string()).collect());
            after = page.next;
        }
        pages
    }

    pub(crate) fn top_talkers(&self, shard: usize) -> TopTalkers {
        self.cores[shard].shard.top_talkers(self.now)
    }

    /// Rows in the log of `name@here`.
    pub(crate) fn logged(&mut self, name: &str) -> usize {
        let query = Query::Log { owner: bare(name), after: 0, limit: 10_000 };
        match self.reader.read(&query).unwrap() {
            Answer::Log { entries, .. } => entries.len(),
            other => panic!("a log, not {other:?}"),
        }
    }

    /// What the store has in the log of `name@here`, or in its archive, as one text.
    pub(crate) fn kept(&mut self, name: &str, in_archive: bool) -> String {
        let owner = bare(name);
        let query = match in_archive {
            false => Query::Log { owner, after: 0, limit: 10_000 },
            true => Query::Archive(Box::new(ArchiveQuery::all(owner, 10_000))),
        };
        match self.reader.read(&query).unwrap() {
            Answer::Log { entries, .. } | Answer::Archive { entries, .. } => {
                let stanzas = entries.iter().map(|entry| &entry.stanza[..]);
                String::from_utf8(stanzas.collect::<Vec<_>>().concat()).unwrap()
            }
            other => panic!("rows, not {other:?}"),
        }
    }

    /// The roster of `name@here` as the store has it.
    pub(crate) fn roster(&mut self, name: &str) -> Vec<RosterItem> {
        match self.reader.read(&Query::Account { owner: bare(name) }).unwrap() {
            corefire::store::Answer::Account(account) => account.unwrap().roster,
            other => panic!("an account, not {other:?}"),
        }
    }

    // ---- connections

    /// A connection on which the TLS handshake came first.
    pub(crate) fn connect(&mut self, shard: usize) -> Client {
        self.connect_as(shard, Some(TlsFacts::default()))
    }

    pub(crate) fn connect_as(&mut self, shard: usize, tls: Option<TlsFacts>) -> Client {
        self.accept(shard, [192, 0, 2, 1].into(), tls)
    }

    pub(crate) fn connect_from(&mut self, shard: usize, peer: IpAddr) -> Client {
        self.accept(shard, peer, Some(TlsFacts::default()))
    }

    /// Whether a new connection from there may stay.
    pub(crate) fn admits(&mut self, shard: usize, peer: IpAddr) -> bool {
        self.cores[shard].shard.admits(self.now, peer)
    }

    /// Networks whose rates are remembered.
    pub(crate) fn networks(&self) -> usize {
        self.cores.iter().map(|core| core.shard.networks()).sum()
    }

    fn accept(&mut self, shard: usize, peer: IpAddr, tls: Option<TlsFacts>) -> Client {
        let conn = self.cores[shard].shard.accept(self.now, peer, tls);
        self.accepted(shard, conn)
    }

    /// A connection to where components come in.
    pub(crate) fn connect_component(&mut self, shard: usize) -> Client {
        let peer = [192, 0, 2, 2].into();
        let conn = self.cores[shard].shard.accept_component(self.now, peer);
        self.accepted(shard, conn)
    }

    /// A connection of the component `domain`, whose secret is its name.
    pub(crate) fn component(&mut self, shard: usize, domain: &str) -> Client {
        let (client, answer) = self.shake_hands(shard, domain);
        assert_eq!(answer, "<handshake/>");
        client
    }

    /// As `component`, with what the server says to the handshake.
    pub(crate) fn shake_hands(&mut self, shard: usize, domain: &str) -> (Client, String) {
        let client = self.connect_component(shard);
        self.send(client, &component_header(domain));
        let id = attr(&self.read(client), "id").to_owned();
        let hash = Secret::new(domain).handshake(&id);
        self.send(client, &format!("<handshake>{hash}</handshake>"));
        let answer = self.read(client);
        (client, answer)
    }

    /// A connection that comes from another node.
    pub(crate) fn adopt(&mut self, shard: usize, image: &[u8]) -> Result<Client, ImageError> {
        let Core { shard: owner, fx, .. } = &mut self.cores[shard];
        let conn = owner.adopt_image(self.now, image, fx)?;
        let client = self.accepted(shard, conn);
        self.run();
        Ok(client)
    }

    fn accepted(&mut self, shard: usize, conn: ConnId) -> Client {
        self.sockets.push(Socket {
            shard,
            conn,
            inbox: Vec::new(),
            reads: true,
            answers_pings: true,
            open: true,
            wants_tls: false,
            moves: 0,
            front: None,
        });
        Client(self.sockets.len() - 1)
    }

    /// Logs in and binds; the account is created if it is not there yet.
    pub(crate) fn login(&mut self, name: &str, resource: &str) -> Client {
        let owner = self.owner(name);
        self.login_at(owner, name, resource)
    }

    pub(crate) fn login_at(&mut self, shard: usize, name: &str, resource: &str) -> Client {
        let client = self.authenticate(shard, name);
        self.send(client, &bind(resource));
        let answer = self.read(client);
        assert!(answer.contains(&format!("<jid>{name}@here/{resource}</jid>")), "{answer}");
        client
    }

    /// Logs in, up to where a resource is to be bound or a session resumed.
    pub(crate) fn authenticate(&mut self, shard: usize, name: &str) -> Client {
        self.users(&[name]);
        let client = self.connect(shard);
        self.send(client, HEADER);
        self.send(client, &plain(name, PASSWORD));
        let answer = self.read(client);
        assert!(answer.contains("<success"), "{answer}");
        self.send(client, HEADER);
        self.read(client);
        client
    }

    /// Logs in and sends presence; what the server sends at that is read already.
    pub(crate) fn online(&mut self, name: &str, resource: &str) -> Client {
        self.online_with(name, resource, 0)
    }

    pub(crate) fn online_with(&mut self, name: &str, resource: &str, priority: i8) -> Client {
        let client = self.login(name, resource);
        let presence = format!("<presence><priority>{priority}</priority></presence>");
        self.send(client, &presence);
        self.read(client);
        client
    }

    /// As `online`, with XEP-0198; gives the id for `<resume/>`, too.
    pub(crate) fn online_acked(&mut self, name: &str, resource: &str) -> (Client, String) {
        let client = self.login(name, resource);
        let id = self.enable(client);
        self.send(client, "<presence/>");
        let h = self.count(client);
        self.send(client, &format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
        self.read(client);
        (client, id)
    }

    /// Enables XEP-0198 with resumption.
    pub(crate) fn enable(&mut self, client: Client) -> String {
        self.send(client, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        attr(&self.read(client), "id").to_owned()
    }

    /// Sends `xml`, and lets everything happen that follows from it.
    pub(crate) fn send(&mut self, client: Client, xml: &str) {
        self.send_bytes(client, xml.as_bytes());
    }

    pub(crate) fn send_bytes(&mut self, client: Client, bytes: &[u8]) {
        let Socket { shard, conn, open, .. } = self.sockets[client.0];
        assert!(open, "{client:?} is closed and sends {:?}", String::from_utf8_lossy(bytes));
        if !self.front_bytes(client.0, bytes) {
            self.input(shard, Input::Bytes { conn, bytes });
        }
        self.run();
    }

    /// Gives the result of the handshake that STARTTLS asked for.
    pub(crate) fn secure(&mut self, client: Client, facts: TlsFacts) {
        let socket = &mut self.sockets[client.0];
        assert!(std::mem::take(&mut socket.wants_tls), "nobody asked for a handshake");
        let (shard, conn) = (socket.shard, socket.conn);
        self.input(shard, Input::Secured { conn, facts });
        self.run();
    }

    /// What the client has received since it last looked.
    pub(crate) fn read(&mut self, client: Client) -> String {
        String::from_utf8(std::mem::take(&mut self.sockets[client.0].inbox)).unwrap()
    }

    /// As `read`, cut into first-level elements.
    pub(crate) fn elements(&mut self, client: Client) -> Vec<String> {
        cut(&self.read(client))
    }

    /// How many stanzas the client has received since it last looked.
    pub(crate) fn count(&mut self, client: Client) -> usize {
        let is_stanza = |element: &&String| {
            ["<message", "<presence", "<iq"].iter().any(|name| element.starts_with(name))
        };
        self.elements(client).iter().filter(is_stanza).count()
    }

    /// The connection breaks.
    pub(crate) fn cut(&mut self, client: Client) {
        let socket = &mut self.sockets[client.0];
        socket.open = false;
        let (shard, conn) = (socket.shard, socket.conn);
        if !self.front_cut(client.0) {
            self.input(shard, Input::Closed { conn });
        }
        self.run();
    }

    /// Whether the server has left the connection open.
    pub(crate) fn is_open(&self, client: Client) -> bool {
        self.sockets[client.0].open
    }

    /// Whether the server reads from the connection.
    pub(crate) fn is_read(&self, client: Client) -> bool {
        let Socket { shard, conn, .. } = self.sockets[client.0];
        self.cores[shard].shard.is_reading(conn)
    }

    /// How often the connection changed its shard.
    pub(crate) fn moves(&self, client: Client) -> usize {
        self.sockets[client.0].moves
    }

    pub(crate) fn shard_of(&self, client: Client) -> usize {
        self.sockets[client.0].shard
    }

    /// The client takes nothing more from its socket.
    pub(crate) fn stop_reading(&mut self, client: Client) {
        self.sockets[client.0].reads = false;
    }

    /// The client leaves the server's pings unanswered, and the test sees them.
    pub(crate) fn ignore_pings(&mut self, client: Client) {
        self.sockets[client.0].answers_pings = false;
    }

    /// The client reads on, and takes what waited for it.
    pub(crate) fn read_on(&mut self, client: Client) {
        let Socket { shard, conn, .. } = self.sockets[client.0];
        self.sockets[client.0].reads = true;
        self.flush(shard, conn);
        self.cores[shard].shard.unblocked(conn, self.now.mono);
    }

    // ---- time, store, rings

    pub(crate) fn advance(&mut self, span: Duration) {
        let micros = u64::try_from(span.as_micros()).unwrap();
        self.now.mono = self.now.mono + span;
        self.now.wall.0 += micros;
        for shard in 0..self.cores.len() {
            self.input(shard, Input::Tick);
            while self.cores[shard].shard.is_behind() {
                self.input(shard, Input::Tick);
            }
        }
        self.run();
    }

    /// The wall clock is set back; the other goes on.
    pub(crate) fn wall(&self) -> Wall {
        self.now.wall
    }

    pub(crate) fn set_clock_back(&mut self, span: Duration) {
        self.now.wall.0 -= u64::try_from(span.as_micros()).unwrap();
    }

    /// From now on the store keeps its answers back.
    pub(crate) fn hold_store(&mut self) {
        self.store_holds = true;
    }

    /// The store answers what it was asked, and whatever comes next.
    pub(crate) fn free_store(&mut self) {
        self.store_holds = false;
        self.run();
    }

    /// The store answers only the oldest request that it holds.
    pub(crate) fn answer_one(&mut self) {
        let oldest = self.requests.pop_front();
        let (shard, ticket, request) = oldest.expect("nothing was asked of the store");
        self.answer(shard, ticket, request);
        self.run();
    }

    /// The store's threads work side by side: the newest request that it holds is answered.
    pub(crate) fn answer_newest(&mut self) {
        let newest = self.requests.pop_back();
        let (shard, ticket, request) = newest.expect("nothing was asked of the store");
        self.answer(shard, ticket, request);
        self.run();
    }

    /// The store reads before it writes, as its threads may: the oldest query is answered.
    pub(crate) fn answer_query(&mut self) {
        let is_query = |(_, _, request): &(_, _, Request)| matches!(request, Request::Query(_));
        let place = self.requests.iter().position(is_query);
        let place = place.expect("no query was given to the store");
        let (shard, ticket, request) = self.requests.remove(place).unwrap();
        self.answer(shard, ticket, request);
        self.run();
    }

    pub(crate) fn requests_held(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn queries_held(&self) -> usize {
        self.requests.iter().filter(|(_, _, it)| matches!(it, Request::Query(_))).count()
    }

    pub(crate) fn hold_rings(&mut self) {
        self.rings_hold = true;
    }

    pub(crate) fn free_rings(&mut self) {
        self.rings_hold = false;
        self.run();
    }

    pub(crate) fn relieve(&mut self) {
        for shard in 0..self.cores.len() {
            self.input(shard, Input::Relieved);
        }
        self.run();
    }

    pub(crate) fn shut_down(&mut self) {
        for shard in 0..self.cores.len() {
            self.input(shard, Input::Shutdown);
        }
        self.run();
    }

    pub(crate) fn probe(&self, shard: usize) -> &Probe {
        self.cores[shard].shard.probe()
    }

    /// Has all shards measure; each look at the clock between inputs finds it a microsecond later.
    pub(crate) fn measure(&mut self) {
        for core in &mut self.cores {
            let clock = std::cell::Cell::new(self.now.mono);
            core.shard.measure(Box::new(move || {
                clock.set(clock.get() + Duration::from_micros(1));
                clock.get()
            }));
        }
    }

    /// What a shard has measured since the last time.
    pub(crate) fn latencies(&mut self, shard: usize) -> Box<Latencies> {
        self.cores[shard].shard.take_latencies(Box::default())
    }

    pub(crate) fn sessions(&self) -> usize {
        self.cores.iter().map(|core| core.shard.sessions()).sum()
    }

    /// Accounts in memory.
    pub(crate) fn accounts(&self) -> usize {
        self.cores.iter().map(|core| core.shard.accounts()).sum()
    }

    pub(crate) fn faults(&self) -> u64 {
        self.cores.iter().map(|core| core.shard.probe().faults).sum()
    }

    // ---- the world around the shards

    fn input(&mut self, shard: usize, input: Input<'_>) {
        let mut now = self.now;
        now.wall.0 += self.ahead_us(shard);
        let Core { shard, fx, lives, .. } = &mut self.cores[shard];
        if *lives {
            shard.handle(now, input, fx);
        }
    }

    fn ahead_us(&self, at: usize) -> u64 {
        let node = self.cores[at].place.run.node.0;
        let ahead = self.clock_ahead.filter(|(id, _)| *id == node);
        ahead.map_or(0, |(_, ahead)| u64::try_from(ahead.as_micros()).unwrap())
    }

    /// What links tell of frames, once the clocks of both nodes are known to each other.
    fn compare_clocks(&mut self, at: usize, other: usize, peer: Peer, sent: Instant) {
        let is_far = self.cores[at].place.run != self.cores[other].place.run;
        if is_far && self.clocks_compared {
            let ahead = self.ahead_us(other).cast_signed() - self.ahead_us(at).cast_signed();
            let took = self.now.mono.since(sent);
            self.cores[at].shard.came_from_afar(peer, took, ahead);
        }
    }

    /// What a core calls another.
    fn peer(&mut self, at: usize, other: usize) -> Option<Peer> {
        let place = self.cores[other].place;
        let Core { shard, fx, lives, .. } = &mut self.cores[at];
        if *lives { shard.peer(place, fx) } else { None }
    }

    fn lives_at(&self, place: Place) -> Option<usize> {
        self.cores.iter().position(|core| core.lives && core.place == place)
    }

    fn core_of(&self, owner: Owner) -> usize {
        let is_it = |core: &Core| {
            core.lives && core.place.run.node == owner.node && core.place.shard == owner.shard
        };
        self.cores.iter().position(is_it).expect("an owner that lives")
    }

    /// Turns of all shards until nothing more happens.
    fn run(&mut self) {
        for _ in 0..100_000 {
            let mut busy = false;
            for shard in 0..self.cores.len() {
                busy |= self.turn(shard);
            }
            while let Some(at) =
                self.relayed.iter().position(|(from, to, _)| !self.is_held_way(*from, *to))
                && let Some((from, to, piece)) = self.relayed.remove(at)
            {
                self.piece_came(from, to, &piece);
                busy = true;
            }
            while !self.rings_hold
                && let Some(at) =
                    self.rings.iter().position(|(from, to, ..)| !self.is_held_way(*from, *to))
                && let Some((from, to, sent, batch)) = self.rings.remove(at)
            {
                if let Some(peer) = self.peer(to, from) {
                    self.compare_clocks(to, from, peer, sent);
                    self.input(to, Input::Frames { from: peer, sent, batch: &batch });
                }
                busy = true;
            }
            while !self.store_holds
                && let Some((shard, ticket, request)) = self.requests.pop_front()
            {
                self.answer(shard, ticket, request);
                busy = true;
            }
            if !busy {
                return;
            }
        }
        panic!("the shards never come to rest");
    }

    /// The end of one shard's turn: its effects are carried out. Gives whether there were any.
    fn turn(&mut self, at: usize) -> bool {
        let Core { shard, fx, lives, shards, .. } = &mut self.cores[at];
        if !*lives {
            return false;
        }
        shard.end_turn(self.now, fx);
        let added = fx.withheld.drain(..).map(|(conn, moment)| (at, conn, moment));
        self.withheld.extend(added);
        let foreign = foreign::rings(fx, *shards);
        let waits = self.foreign.is_full && foreign::is_all(fx, &foreign);
        let mut busy = !fx.is_empty() && !waits;
        let writes = fx.writes.drain(..).map(|(ticket, write)| (at, ticket, Request::Write(write)));
        let before = self.requests.len();
        self.requests.extend(writes);
        self.writes += self.requests.len() - before;
        let asked = fx.queries.drain(..).map(|(ticket, query)| (at, ticket, Request::Query(query)));
        let before = self.requests.len();
        self.requests.extend(asked);
        self.queries += self.requests.len() - before;
        let outbox: Vec<(Place, Batch)> = (0..)
            .zip(&mut fx.outbox)
            .filter(|(_, batch)| !batch.is_empty())
            .filter(|(peer, _)| !self.foreign.is_full || !foreign.contains(&Peer(*peer)))
            .map(|(peer, batch)| (shard.place(Peer(peer)), std::mem::take(batch)))
            .collect();
        let news: Vec<_> = shard.ring_news().collect();
        let news: Vec<_> = news
            .into_iter()
            .map(|(of, received, handled)| (shard.place(of), received, handled))
            .collect();
        let dirty = std::mem::take(&mut fx.dirty);
        let actions = std::mem::take(&mut fx.actions);
        for (place, batch) in outbox {
            if let Some(core) = self.foreign_core(at, place) {
                self.went_to_foreign(at, core, &batch);
                continue;
            }
            // What goes to a node that is gone is lost.
            if let Some(to) = self.lives_at(place) {
                self.rings.push_back((at, to, self.now.mono, batch));
            }
        }
        dirty.into_iter().for_each(|conn| self.flush(at, conn));
        busy |= self.pieces(at);
        let now = self.now.mono;
        let due = self.withheld.extract_if(.., |(shard, _, moment)| *shard == at && *moment <= now);
        for (_, conn, _) in due.collect::<Vec<_>>() {
            self.cores[at].shard.let_go(conn);
            self.flush(at, conn);
            busy = true;
        }
        self.cores[at].shard.flushed(self.now.mono + self.writing_takes);
        for action in actions {
            self.act(at, action);
        }
        for (of, received, handled) in news {
            if let Some(core) = self.foreign_core(at, of) {
                self.foreign.told(at, core, received, handled);
                continue;
            }
            if let Some(to) = self.lives_at(of).filter(|to| self.is_held_way(at, *to)) {
                self.held_news.push((at, to, received, handled));
                continue;
            }
            let lost = self.news_lost_of == Some(self.cores[at].place.run.node);
            if let Some(to) = self.lives_at(of).filter(|_| !lost)
                && let Some(by) = self.peer(to, at)
            {
                self.input(to, Input::Handled { by, received, handled });
            }
            busy = true;
        }
        busy
    }

    fn act(&mut self, at: usize, action: Action) {
        match action {
            Action::StartTls(conn) => {
                let client = self.client(at, conn);
                self.sockets[client].wants_tls = true;
            }
            Action::Move { conn, to } => {
                let elsewhere = to.node != self.cores[at].place.run.node;
                if elsewhere && self.keeps_fronts {
                    return self.open_front(at, conn, to);
                }
                let client = self.client(at, conn);
                let to = self.core_of(to);
                let conn = if self.moves_as_images || elsewhere {
                    let image = self.cores[at].shard.extract_image(self.now, conn);
                    // Where it is closed meanwhile, it stays.
                    let Some(image) = image else { return };
                    self.images.push(image.clone());
                    let Core { shard, fx, .. } = &mut self.cores[to];
                    shard.adopt_image(self.now, &image, fx).unwrap()
                } else {
                    let moved = self.cores[at].shard.extract(conn).unwrap();
                    let Core { shard, fx, .. } = &mut self.cores[to];
                    shard.adopt(self.now, moved, fx)
                };
                let socket = &mut self.sockets[client];
                (socket.shard, socket.conn) = (to, conn);
                socket.moves += 1;
            }
            Action::Close(conn) if self.flush_owned(at, conn) => {}
            Action::Abort(conn) if self.abort_owned(at, conn) => {}
            Action::GiveLeave { conn, token, label, root, number, jid } => {
                self.give_leave(at, conn, &Leave { token, label, root, number, jid: &jid });
            }
            Action::TakeLeaveBack(conn) => self.take_leave_back(at, conn),
            Action::FrontGoesOn(token) => self.front_goes_on(at, token),
            Action::Close(conn) | Action::Abort(conn) => {
                let Some(client) = self.find(at, conn) else { return };
                if matches!(action, Action::Close(_)) {
                    self.flush(at, conn);
                }
                if std::mem::take(&mut self.sockets[client].open) {
                    self.input(at, Input::Closed { conn });
                }
            }
            Action::ReadAgain(conn) => self.read_again(at, conn),
            Action::CheckPassword(check) => {
                let verdict = Some(check.known && check.password == PASSWORD);
                self.input(at, Input::PasswordChecked { conn: check.conn, verdict });
            }
            Action::Administer { ticket, errand } => {
                if self.errands_fail {
                    return self.input(at, Input::Administered { ticket, outcome: Outcome::Busy });
                }
                desk::run(self, at, ticket, errand);
            }
        }
    }

    fn flush(&mut self, at: usize, conn: ConnId) {
        if self.flush_owned(at, conn) {
            return;
        }
        let Some(client) = self.find(at, conn) else { return };
        let shard = &mut self.cores[at].shard;
        let socket = &mut self.sockets[client];
        if socket.reads
            && let Some(output) = shard.output(conn)
        {
            socket.inbox.extend_from_slice(output.bytes);
            let length = output.bytes.len();
            shard.output_left(conn, length);
        } else if !socket.reads {
            shard.blocked(conn);
        }
        if socket.answers_pings {
            self.answer_pings(client);
        }
    }

    fn answer_pings(&mut self, client: usize) {
        let text = String::from_utf8(std::mem::take(&mut self.sockets[client].inbox)).unwrap();
        let ping = "<ping xmlns='urn:xmpp:ping'/></iq>";
        let is_ours = |iq: &str| iq.ends_with(ping) && iq.contains(" from='here' ");
        let (mut kept, mut ids) = (String::new(), Vec::new());
        for piece in text.split_inclusive("</iq>") {
            let (before, iq) = piece.split_at(piece.rfind("<iq ").unwrap_or(piece.len()));
            kept.push_str(before);
            if is_ours(iq) { ids.push(attr(iq, "id").to_owned()) } else { kept.push_str(iq) }
        }
        let Socket { shard, conn, .. } = self.sockets[client];
        self.sockets[client].inbox = kept.into_bytes();
        for id in ids {
            let pong = format!("<iq type='result' id='{id}'/>");
            if !self.front_bytes(client, pong.as_bytes()) {
                self.input(shard, Input::Bytes { conn, bytes: pong.as_bytes() });
            }
        }
    }

    fn answer(&mut self, shard: usize, ticket: Ticket, request: Request) {
        let outcome = match request {
            Request::Write(_) if self.store_fails => StoreOutcome::Failed,
            Request::Write(write) => match self.writer.commit(&[write]) {
                Ok(mut written) => StoreOutcome::Written(written.remove(0)),
                Err(_) => StoreOutcome::Failed,
            },
            Request::Query(query) => match self.reader.read(&query) {
                Ok(answer) => StoreOutcome::Answer(answer),
                Err(_) => StoreOutcome::Failed,
            },
        };
        self.input(shard, Input::Stored { ticket, outcome });
    }

    fn find(&self, shard: usize, conn: ConnId) -> Option<usize> {
        self.sockets.iter().position(|it| it.open && it.shard == shard && it.conn == conn)
    }

    fn client(&self, shard: usize, conn: ConnId) -> usize {
        self.find(shard, conn).expect("an action for a connection that lives")
    }
}

// ---- text

pub(crate) fn bare(name: &str) -> BareJid {
    BareJid::parse(&format!("{name}@here")).unwrap()
}

pub(crate) fn plain(user: &str, password: &str) -> String {
    let message = encode_payload(&client::plain("", user, password));
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{message}</auth>")
}

pub(crate) fn bind(resource: &str) -> String {
    format!(
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>{resource}</resource></bind></iq>"
    )
}

pub(crate) fn chat(to: &str, body: &str) -> String {
    format!("<message type='chat' id='{body}' to='{to}'><body>{body}</body></message>")
}

/// Value of the first attribute of that name.
pub(crate) fn attr<'a>(xml: &'a str, name: &str) -> &'a str {
    let start = xml.find(&format!(" {name}='")).unwrap_or_else(|| panic!("no {name} in {xml}"));
    let rest = &xml[start + name.len() + 3..];
    &rest[..rest.find('\'').unwrap()]
}

/// The text of each `<body/>`, in order.
pub(crate) fn bodies(xml: &str) -> Vec<&str> {
    xml.split("<body>").skip(1).map(|rest| rest.split("</body>").next().unwrap()).collect()
}

/// Cuts what a server said behind its header into first-level elements.
fn cut(text: &str) -> Vec<String> {
    let mut framer = Framer::new();
    let limits = XmlLimits { stanza_bytes_max: u32::MAX, ..XmlLimits::default() };
    let mut rest = [HEADER, text].concat().into_bytes();
    let mut elements = Vec::new();
    loop {
        match framer.next(&rest, &limits).unwrap_or_else(|error| panic!("{error} in {text}")) {
            Step::Open(range) => drop(rest.drain(..range.end)),
            Step::Stanza(range) => {
                elements.push(String::from_utf8(rest[range.clone()].to_vec()).unwrap());
                rest.drain(..range.end);
            }
            Step::Close(_) | Step::More(_) => return elements,
        }
    }
}
