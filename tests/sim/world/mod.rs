//! One node of some shards or a cluster of them, rings, storage, the network and the clients, under one seed and one
//! clock.
//!
//! The world plays the runtime as `shard/effect.rs` describes it. What it promises the shards and no more: frames and
//! the numbers of `ring_news` go over one ring in order; a connection's bytes go in order; the store answers each shard
//! in the order of its writes, and reads whenever it likes.

mod authority;
mod clients;
mod cluster;
mod database;
mod links;
mod network;
mod node;
mod settled;
mod swim;

use crate::DOMAIN;
use crate::chance::Chance;
use crate::client::{Client, Later, Orders, PASSWORD, Phase, SALT};
use crate::model::{Account, Model};
use crate::rogue;
use crate::storage::{Commit, Storage};
use corefire::base::instant::{Instant, Now, Wall};
use corefire::base::rng::Rng;
use corefire::cluster::placement::{NodeId, Placement, ShardId};
use corefire::cluster::view::{NodeFacts, Place, Run, View};
use corefire::features;
use corefire::frame::Batch;
use corefire::shard::errand::Outcome;
use corefire::shard::{
    Action, ConnId, Effects, Input, Limits, MovedConn, PasswordCheck, Shard, ShardConfig,
    StoreOutcome, Ticket,
};
use corefire::store::memory::MemoryStore;
use corefire::store::{
    Answer, ArchiveQuery, LogEntry, Page, Query, Reader, RosterItem, Subscription, Write,
    Writer as _,
};
use corefire::stream::TlsFacts;
use corefire::stream::c2s::C2sPolicy;
use corefire::stream::sasl::{ITERATIONS_MIN, ScramHash, derive};
use corefire::xmpp::credentials::Credentials;
use corefire::xmpp::jid::BareJid;
use corefire::xmpp::xml::framer::XmlLimits;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

static CREDENTIALS: LazyLock<Credentials> = LazyLock::new(|| {
    let keys = |hash| derive(PASSWORD, &SALT, ITERATIONS_MIN, hash).expect("bounds are kept");
    Credentials {
        sha1: keys(ScramHash::Sha1),
        sha256: keys(ScramHash::Sha256),
        sha512: Some(keys(ScramHash::Sha512).into()),
    }
});

pub(crate) const SECOND: u64 = 1_000_000;

/// Seeds from this one on are worlds with archives.
pub(crate) const ARCHIVES: u64 = 1 << 32;

/// Seeds from this one on are worlds of several nodes; of these, those with the bit of `ARCHIVES` have archives.
pub(crate) const CLUSTERS: u64 = 1 << 34;

/// Of these, those with this bit are worlds in which owners change often, and nodes die or stand still as they do.
pub(crate) const CASCADES: u64 = 1 << 35;

/// What a seed decides beforehand.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) shards: u16,
    pub(crate) accounts: usize,
    pub(crate) devices: usize,
    /// µs in which clients act.
    pub(crate) span: u64,
    pub(crate) crashes: u64,
    /// Of a thousand actions of a client: its stream is cut.
    pub(crate) cuts: u64,
    pub(crate) store_faults: u64,
    pub(crate) read_faults: u64,
    pub(crate) rogues: usize,
    /// Items that a ring holds.
    pub(crate) ring: usize,
    /// Longest pause between the actions of a client.
    pub(crate) pause: u64,
    pub(crate) net: u64,
    /// Accounts have archives.
    pub(crate) archive: bool,
    pub(crate) cluster: Option<cluster::ClusterPlan>,
    pub(crate) limits: Limits,
}

impl Plan {
    fn of(seed: u64, chance: &mut Chance) -> Plan {
        let calm = chance.percent(15);
        let tight = !calm && chance.percent(30);
        let pick = |chance: &mut Chance, tight: bool, low: u64, high: u64| match tight {
            true => low,
            false if chance.percent(20) => low,
            false => high,
        };
        let limits = Limits {
            login_timeout: Duration::from_secs(20),
            silence: Duration::from_secs(chance.within(8, 60)),
            login_attempts: 3,
            output_bytes: pick(chance, tight, 16 << 10, 1 << 20) as usize,
            resources_per_account: 4,
            roster_items: 100,
            roster_name_bytes: 200,
            directed_presence: 20,
            offline_messages: pick(chance, tight, 8, 10_000) as u32,
            resume: Duration::from_secs(chance.within(2, 20)),
            resume_queue: pick(chance, tight, 20, 2_000) as usize,
            pending_stanzas: pick(chance, tight, 5, 1_000) as usize,
            accounts: pick(chance, tight, 12, 1_000) as usize,
            open_iqs: pick(chance, tight, 3, 100) as usize,
            ..Limits::default()
        };
        let limits = match calm {
            true => Limits {
                resume: Duration::from_secs(20),
                output_bytes: 1 << 20,
                resume_queue: 2_000,
                ..limits
            },
            false => limits,
        };
        Plan {
            shards: chance.within(1, 4) as u16,
            accounts: chance.within(2, 6) as usize,
            devices: chance.within(1, 2) as usize,
            span: chance.within(4, 30) * SECOND,
            crashes: if calm || chance.percent(50) { 0 } else { chance.within(1, 3) },
            cuts: if calm { 0 } else { [0, 10, 40, 100][chance.index(4)] },
            store_faults: if calm || chance.percent(60) {
                0
            } else {
                [10, 100, 400][chance.index(3)]
            },
            read_faults: if calm || chance.percent(80) { 0 } else { 30 },
            rogues: if chance.percent(30) { 1 } else { 0 },
            ring: if chance.percent(30) { 1 } else { 64 },
            pause: [200_000, SECOND, 4 * SECOND][chance.index(3)],
            net: [1_000, 50_000, 400_000][chance.index(3)],
            archive: seed & ARCHIVES != 0,
            cluster: (seed >= CLUSTERS).then(|| cluster::ClusterPlan::of(seed, calm)),
            limits,
        }
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.crashes == 0
            && self.cluster.is_none()
            && self.cuts == 0
            && self.store_faults == 0
            && self.read_faults == 0
            && self.limits.output_bytes >= 1 << 20
            && self.limits.resume_queue >= 2_000
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct LinkId(usize);

/// Who is at the other end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Peer {
    Client(usize),
    Rogue(usize),
}

/// One TCP connection.
struct Link {
    peer: Peer,
    /// The run of a node that has the socket.
    front: usize,
    shard: usize,
    conn: Option<ConnId>,
    /// Bytes that reached the server and were not read.
    inbox: Vec<u8>,
    up_at: u64,
    down_at: u64,
    /// Bytes on their way to the client, and how many may be.
    down_bytes: usize,
    window: usize,
    /// The client's end is closed.
    eof: bool,
    /// The server closes once its output is flushed.
    closing: bool,
    /// The server knows, or is about to be told, that the connection is gone.
    gone: bool,
    /// The client no longer hears.
    deaf: bool,
    /// The connection was lost while it moved.
    lost_on_the_way: bool,
    /// When its stream was lost, or the server ended it.
    lost_at: Option<u64>,
    securing: bool,
    /// Bytes are on their way from the socket to the shard.
    reading: bool,
}

enum Given {
    Bytes(LinkId, Vec<u8>),
    Secured(LinkId),
    Closed(LinkId),
    Frames(Place, Batch),
    Handled(Place, u64, u64),
    Linked(Run),
    Placed(Arc<View>),
    Relieved,
    Stored(Ticket, StoreOutcome),
    Password(ConnId, Option<bool>),
    Administered(Ticket, Outcome),
    AccountChanged(BareJid),
    Tick,
    Adopt(LinkId, Box<MovedConn>),
    /// A connection from another node.
    AdoptImage(LinkId, Vec<u8>),
}

enum Cargo {
    Frames(Batch),
    News(u64, u64),
    Conn(LinkId, Box<MovedConn>),
}

#[derive(Default)]
struct Ring {
    cargo: VecDeque<Cargo>,
    at: u64,
    /// Waits until the frames before it are in.
    news: Option<(u64, u64)>,
}

struct Core {
    shard: Shard,
    fx: Effects,
    inputs: VecDeque<Given>,
    planned: bool,
    tick_at: u64,
    conns: HashMap<ConnId, LinkId>,
    reply_at: u64,
    /// Something of its outbox did not fit into a ring.
    stuffed: bool,
    /// Its run, among all that ever were.
    run: usize,
    place: Place,
    lives: bool,
    /// What came while its node had no lease.
    kept_back: VecDeque<Given>,
}

enum Event {
    Run(usize),
    Tick(usize),
    Up(LinkId, Vec<u8>),
    UpEnd(LinkId, bool),
    Down(LinkId, Vec<u8>),
    DownEnd(LinkId),
    Readable(LinkId),
    Flush(LinkId),
    Ring(usize, usize),
    Commit(usize),
    Give(usize, Given),
    Read(usize, Ticket, Query),
    Secure(LinkId),
    Act(usize, u32),
    Connect(usize),
    Later(usize, Later),
    Rogue(usize),
    Crash,
    Boot(u32),
    Cluster(cluster::Happening),
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) messages: u64,
    pub(crate) receipts: u64,
    pub(crate) covered: u64,
    pub(crate) refused: u64,
    pub(crate) requests: u64,
    pub(crate) crashes: u64,
    pub(crate) cuts: u64,
    pub(crate) moves: u64,
    pub(crate) resumptions: u64,
    pub(crate) commits: u64,
    pub(crate) turns: u64,
    pub(crate) paused: u64,
    pub(crate) slow: u64,
    /// Writes that the store refused for good.
    pub(crate) failed: u64,
    /// Messages that were in archives at the end.
    pub(crate) archived: u64,
    /// Resources that clients saw when it was checked that they see the right ones.
    pub(crate) sights: u64,
    /// Epochs of clusters, and what moved by them.
    pub(crate) epochs: u64,
    pub(crate) moved_sessions: u64,
    /// Copies that became sessions, as their owners died.
    pub(crate) revived: u64,
    pub(crate) retried: u64,
    pub(crate) passed_on: u64,
    pub(crate) repeated: u64,
    pub(crate) duplicates: u64,
    /// Seconds that passed in the world.
    pub(crate) simulated: u64,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) model: Model,
    pub(crate) counts: Counts,
    pub(crate) trace: u64,
    chance: Chance,
    seed: u64,
    now: u64,
    sequence: u64,
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    /// All that ever ran, in the order of their starts.
    runs: Vec<cluster::NodeRun>,
    cores: Vec<Core>,
    rings: BTreeMap<(usize, usize), Ring>,
    cluster: cluster::Cluster,
    disk: MemoryStore,
    links: Vec<Link>,
    clients: Vec<Client>,
    client_links: Vec<Option<LinkId>>,
    rogue_links: Vec<Option<LinkId>>,
    quiet: bool,
    /// Clients that do not come back.
    absent: BTreeSet<usize>,
    /// Nothing breaks in this run.
    calm: bool,
    log: bool,
}

fn show(write: &Write) -> String {
    match write {
        Write::AppendLog { owner, entry } => {
            let text = String::from_utf8_lossy(&entry.stanza);
            format!("append {} to {owner:?}: {text:.140}", entry.id)
        }
        other => format!("{other:.200?}"),
    }
}

fn address(user: usize) -> BareJid {
    BareJid::parse(&format!("user{user}@{DOMAIN}")).expect("a sound address")
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        let mut chance = Chance::new(seed);
        let plan = Plan::of(seed, &mut chance);
        let disk = MemoryStore::new();
        let owners = plan.accounts + plan.rogues;
        let create =
            |user| Write::CreateAccount { owner: address(user), credentials: CREDENTIALS.clone() };
        let batch: Vec<Write> = (0..owners).map(create).collect();
        disk.open().0.commit(&batch).expect("a store in memory");
        let limits = &plan.limits;
        let counts = plan.read_faults == 0
            && limits.resume_queue >= 2_000
            && limits.output_bytes >= 1 << 20
            && limits.accounts >= 1_000;
        let resume = counts.then_some(limits.resume.as_micros() as u64);
        let mut model = Model::default();
        model.resume = resume;
        model.alone = plan.cluster.is_none();
        model.store_fails = plan.store_faults > 0;
        let mut clients = Vec::new();
        for account in 0..plan.accounts {
            let devices = chance.within(1, plan.devices as u64) as usize;
            model.accounts.push(Account { devices, disturbed_at: 0 });
            for device in 0..devices {
                clients.push(Client::new(clients.len(), account, device, &mut chance));
            }
        }
        let mut world = World {
            client_links: vec![None; clients.len()],
            rogue_links: vec![None; plan.rogues],
            calm: plan.is_calm(),
            plan,
            model,
            counts: Counts::default(),
            trace: 0xcbf2_9ce4_8422_2325,
            chance,
            seed,
            now: 0,
            sequence: 0,
            agenda: BinaryHeap::new(),
            events: BTreeMap::new(),
            runs: Vec::new(),
            cores: Vec::new(),
            rings: BTreeMap::new(),
            cluster: cluster::Cluster::default(),
            disk,
            links: Vec::new(),
            clients,
            quiet: false,
            absent: BTreeSet::new(),
            log: std::env::var_os("COREFIRE_SIM_LOG").is_some(),
        };
        match world.plan.cluster.as_ref().map(|plan| plan.nodes) {
            None => world.boot(0),
            Some(_) => world.found(),
        }
        for client in 0..world.clients.len() {
            let at = world.chance.delay(SECOND);
            world.plan_in(at, Event::Connect(client));
        }
        for rogue in 0..world.plan.rogues {
            world.plan_in(1000, Event::Rogue(rogue));
        }
        for _ in 0..world.plan.crashes {
            let at = world.chance.below(world.plan.span);
            world.plan_in(at, Event::Crash);
        }
        world
    }

    /// Runs the whole of it.
    ///
    /// - gives: the failure, where there is one
    pub(crate) fn run(&mut self) -> Option<String> {
        self.run_for(self.plan.span);
        self.settle();
        if self.plan.store_faults + self.plan.read_faults > 0 && self.model.failure.is_none() {
            // What the store kept of commits that it called failed is found at the next start.
            self.plan.store_faults = 0;
            self.plan.read_faults = 0;
            self.crash_all();
            self.run_for(60 * SECOND);
        }
        self.check_settled();
        self.check_presence("all is settled");
        self.disturb_again();
        self.end();
        self.count();
        self.model.failure.take()
    }

    fn count(&mut self) {
        let counts = &mut self.counts;
        counts.messages = self.model.messages.len() as u64;
        counts.requests = self.model.requests.len() as u64;
        for message in &self.model.messages {
            counts.receipts += u64::from(message.receipts);
            counts.covered += u64::from(message.covered);
            counts.refused += u64::from(message.refused);
        }
        counts.resumptions = self.clients.iter().map(|client| u64::from(client.resumed)).sum();
        for run in &self.runs {
            counts.commits += run.storage.as_ref().map_or(0, |storage| storage.commits);
        }
        counts.simulated = self.now / SECOND;
        for core in &self.cores {
            let probe = core.shard.probe();
            counts.paused += probe.reads_paused;
            counts.slow += probe.slow_readers_closed;
            counts.moved_sessions += probe.sessions_moved_in;
            counts.revived += probe.copies_revived;
            counts.retried += probe.frames_retried;
            counts.passed_on += probe.frames_passed_on;
            counts.repeated += probe.frames_repeated;
            counts.duplicates += probe.duplicates_dropped;
        }
    }

    // ---- time

    fn plan_at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.agenda.push(Reverse((at.max(self.now), self.sequence)));
        self.events.insert(self.sequence, event);
    }

    fn plan_in(&mut self, delay: u64, event: Event) {
        self.plan_at(self.now + delay, event);
    }

    fn run_for(&mut self, span: u64) {
        let until = self.now + span;
        while let Some(&Reverse((at, number))) = self.agenda.peek() {
            if at > until || self.model.failure.is_some() {
                break;
            }
            self.agenda.pop();
            let Some(event) = self.events.remove(&number) else { continue };
            self.now = at;
            self.happen(event);
        }
        self.now = until;
    }

    /// Of a run of a node, whose clock may be wrong.
    fn clock_of(&self, run: usize) -> Now {
        let ahead = self.cluster.clocks.get(&self.runs[run].id.node.0).copied().unwrap_or(0);
        let Now { mono, wall } = self.clock();
        Now { mono, wall: Wall(wall.0.saturating_add_signed(ahead)) }
    }

    fn clock(&self) -> Now {
        Now {
            mono: Instant((self.now + 1_000_000_000) * 1000),
            wall: Wall(1_700_000_000_000_000 + self.now),
        }
    }

    fn note(&mut self, kind: u8, one: u64, bytes: &[u8]) {
        let mut hash = self.trace;
        let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        add(kind);
        one.to_le_bytes().into_iter().for_each(&mut add);
        self.now.to_le_bytes().into_iter().for_each(&mut add);
        bytes.iter().copied().for_each(&mut add);
        self.trace = hash;
    }

    fn happen(&mut self, event: Event) {
        let core = match &event {
            Event::Run(core) | Event::Tick(core) | Event::Read(core, ..) => Some(*core),
            _ => None,
        };
        if let Some(run) = core.map(|core| self.cores[core].run)
            && self.runs[run].stalled_until > self.now
        {
            // Such a process does nothing at all.
            let at = self.runs[run].stalled_until;
            return self.plan_at(at, event);
        }
        match event {
            Event::Run(core) if self.cores[core].lives => self.turn(core),
            Event::Tick(core) if self.cores[core].lives => {
                self.cores[core].tick_at = u64::MAX;
                self.give(core, Given::Tick);
            }
            Event::Ring(from, to) if self.cores[to].lives => self.ring_arrives(from, to),
            Event::Commit(run) if self.runs[run].lives => self.commit(run),
            Event::Give(core, given) if self.cores[core].lives => self.give(core, given),
            Event::Read(core, ticket, query) if self.cores[core].lives => {
                let failed = self.chance.per_mille(self.plan.read_faults) && !self.quiet;
                let Some(storage) = &mut self.runs[self.cores[core].run].storage else { return };
                let outcome = if failed { StoreOutcome::Failed } else { storage.read(&query) };
                let delay = self.chance.delay(20_000);
                self.plan_in(delay, Event::Give(core, Given::Stored(ticket, outcome)));
            }
            Event::Run(_) | Event::Tick(_) | Event::Ring(..) | Event::Commit(_) => {}
            Event::Give(..) | Event::Read(..) => {}
            Event::Up(link, bytes) => {
                if !self.links[link.0].gone {
                    self.links[link.0].inbox.extend_from_slice(&bytes);
                    self.readable(link);
                }
            }
            Event::UpEnd(link, reset) => {
                self.links[link.0].eof = true;
                if reset {
                    self.links[link.0].inbox.clear();
                    self.lose(link);
                } else {
                    self.readable(link);
                }
            }
            Event::Down(link, bytes) => self.heard(link, &bytes),
            Event::DownEnd(link) => self.client_lost(link),
            Event::Readable(link) => self.readable(link),
            Event::Flush(link) => self.flush(link),
            Event::Secure(link) => self.secure(link),
            Event::Act(client, session) => self.act(client, session),
            Event::Connect(client) => self.connect(client),
            Event::Later(client, later) => {
                if self.clients[client].must_wait(&later) {
                    return self.plan_in(300_000, Event::Later(client, later));
                }
                let orders = self.clients[client].later(later, &mut self.model);
                self.obey(client, orders);
            }
            Event::Rogue(rogue) => self.rogue(rogue),
            Event::Crash => {
                if !self.quiet {
                    self.crash_one();
                }
            }
            Event::Boot(node) => self.boot(node),
            Event::Cluster(happening) => self.cluster_happens(happening),
        }
    }
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.messages += other.messages;
        self.receipts += other.receipts;
        self.covered += other.covered;
        self.refused += other.refused;
        self.requests += other.requests;
        self.crashes += other.crashes;
        self.cuts += other.cuts;
        self.moves += other.moves;
        self.resumptions += other.resumptions;
        self.commits += other.commits;
        self.turns += other.turns;
        self.paused += other.paused;
        self.slow += other.slow;
        self.failed += other.failed;
        self.archived += other.archived;
        self.sights += other.sights;
        self.epochs += other.epochs;
        self.moved_sessions += other.moved_sessions;
        self.revived += other.revived;
        self.retried += other.retried;
        self.passed_on += other.passed_on;
        self.repeated += other.repeated;
        self.duplicates += other.duplicates;
        self.simulated += other.simulated;
    }
}
