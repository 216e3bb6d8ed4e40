//! One node of some shards, its rings, its storage, the network and the clients, under one seed and one clock.
//!
//! The world plays the runtime as `shard/effect.rs` describes it. What it promises the shards and no more: frames and
//! the numbers of `ring_news` go over one ring in order; a connection's bytes go in order; the store answers each shard
//! in the order of its writes, and reads whenever it likes.

use crate::DOMAIN;
use crate::chance::Chance;
use crate::client::{Client, Later, Orders, PASSWORD, Phase, SALT};
use crate::model::{Account, Model};
use crate::rogue;
use crate::storage::{Commit, Storage};
use corefire::base::instant::{Instant, Now, Wall};
use corefire::base::rng::Rng;
use corefire::cluster::placement::{Placement, ShardId};
use corefire::features;
use corefire::frame::Batch;
use corefire::shard::errand::Outcome;
use corefire::shard::{
    Action, ConnId, Effects, Input, Limits, MovedConn, PasswordCheck, Shard, ShardConfig,
    StoreOutcome, Ticket,
};
use corefire::store::memory::MemoryStore;
use corefire::store::{Answer, Query, Reader as _, Write, Writer as _};
use corefire::stream::TlsFacts;
use corefire::stream::c2s::C2sPolicy;
use corefire::stream::sasl::{ITERATIONS_MIN, ScramHash, derive};
use corefire::xmpp::credentials::Credentials;
use corefire::xmpp::jid::BareJid;
use corefire::xmpp::xml::framer::XmlLimits;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
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
    pub(crate) limits: Limits,
}

impl Plan {
    fn of(chance: &mut Chance) -> Plan {
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
            limits,
        }
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.crashes == 0
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
    boot: u32,
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
    securing: bool,
    /// Bytes are on their way from the socket to the shard.
    reading: bool,
}

enum Given {
    Bytes(LinkId, Vec<u8>),
    Secured(LinkId),
    Closed(LinkId),
    Frames(ShardId, Batch),
    Handled(ShardId, u64, u64),
    Relieved,
    Stored(Ticket, StoreOutcome),
    Password(ConnId, Option<bool>),
    Administered(Ticket, Outcome),
    AccountChanged(BareJid),
    Tick,
    Adopt(LinkId, Box<MovedConn>),
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
    Commit,
    Give(usize, Given),
    Read(usize, Ticket, Query),
    Secure(LinkId),
    Act(usize, u32),
    Connect(usize),
    Later(usize, Later),
    Rogue(usize),
    Crash,
    Boot,
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
    events: BTreeMap<u64, (u32, Event)>,
    boot: u32,
    up: bool,
    cores: Vec<Core>,
    rings: Vec<Vec<Ring>>,
    storage: Option<Storage>,
    disk: MemoryStore,
    links: Vec<Link>,
    clients: Vec<Client>,
    client_links: Vec<Option<LinkId>>,
    rogue_links: Vec<Option<LinkId>>,
    quiet: bool,
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
        let plan = Plan::of(&mut chance);
        let disk = MemoryStore::new();
        let owners = plan.accounts + plan.rogues;
        let create =
            |user| Write::CreateAccount { owner: address(user), credentials: CREDENTIALS.clone() };
        let batch: Vec<Write> = (0..owners).map(create).collect();
        disk.open().0.commit(&batch).expect("a store in memory");
        let mut model = Model::default();
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
            boot: 0,
            up: false,
            cores: Vec::new(),
            rings: Vec::new(),
            storage: None,
            disk,
            links: Vec::new(),
            clients,
            quiet: false,
            log: std::env::var_os("COREFIRE_SIM_LOG").is_some(),
        };
        world.boot();
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
            self.crash();
            self.run_for(60 * SECOND);
        }
        self.check_settled();
        self.end();
        self.count();
        self.model.failure.take()
    }

    fn settle(&mut self) {
        self.quiet = true;
        for client in 0..self.clients.len() {
            let orders = self.clients[client].settle();
            self.obey(client, orders);
        }
        if let Some(storage) = &mut self.storage {
            storage.faults = 0;
        }
        // Longer than any session waits to be resumed, and any silence lasts.
        self.run_for(90 * SECOND);
        for client in 0..self.clients.len() {
            let mut orders = Orders::default();
            self.clients[client].ask(&mut orders);
            self.obey(client, orders);
        }
        self.run_for(10 * SECOND);
    }

    fn check_settled(&mut self) {
        for client in &self.clients {
            let (index, phase) = (client.index, client.phase);
            if phase != Phase::Online {
                let session = client.session;
                self.model.fail(|| format!("client {index} is stuck in {phase:?} ({session:?})"));
            }
            let open = client.unacknowledged.len();
            if open > 0 {
                self.model.fail(|| format!("client {index} has {open} stanzas never acknowledged"));
            }
        }
        self.model.check_promises();
        if self.calm {
            self.model.check_nothing_lost();
        }
        let alive: Vec<Option<u32>> = self.clients.iter().map(|client| client.session).collect();
        self.model.check_answers(&alive);
        for account in 0..self.plan.accounts {
            let query = Query::Log { owner: address(account), after: 0, limit: 10 };
            let Ok(Answer::Log { entries, .. }) = self.disk.reader().read(&query) else { continue };
            if let Some(entry) = entries.first() {
                let text = String::from_utf8_lossy(&entry.stanza).into_owned();
                let rows = entries.len();
                self.model.fail(|| {
                    format!("R3: {rows} rows are left in the log of account {account}: {text}")
                });
            }
        }
        let open: usize = self.cores.iter().map(|core| core.shard.open_stanzas()).sum();
        if open > 0 {
            self.model.fail(|| format!("{open} stanzas are open though all is settled"));
        }
    }

    /// All hang up: nothing may be left.
    fn end(&mut self) {
        if self.model.failure.is_some() {
            return;
        }
        for client in 0..self.clients.len() {
            if self.chance.percent(50) {
                self.cut(client);
            } else {
                self.hang_up(client);
            }
        }
        self.events.retain(|_, (_, event)| !matches!(event, Event::Connect(_) | Event::Rogue(_)));
        for rogue in 0..self.plan.rogues {
            if let Some(link) = self.rogue_links[rogue] {
                self.plan_in(10, Event::UpEnd(link, false));
            }
        }
        self.run_for(120 * SECOND);
        let sum = |of: &dyn Fn(&Core) -> usize| self.cores.iter().map(of).sum::<usize>();
        let sessions = sum(&|core| core.shard.sessions());
        let conns = sum(&|core| core.shard.probe().connections as usize);
        let open = sum(&|core| core.shard.open_stanzas());
        let accounts = sum(&|core| core.shard.accounts());
        if sessions + conns + open > 0 || accounts > self.plan.accounts + self.plan.rogues + 20 {
            self.model.fail(|| {
                format!(
                    "left over: {sessions} sessions, {conns} connections, {open} stanzas, {accounts} accounts"
                )
            });
        }
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
        counts.commits += self.storage.as_ref().map_or(0, |storage| storage.commits);
        for core in &self.cores {
            counts.paused += core.shard.probe().reads_paused;
            counts.slow += core.shard.probe().slow_readers_closed;
        }
    }

    // ---- time

    fn plan_at(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.agenda.push(Reverse((at.max(self.now), self.sequence)));
        self.events.insert(self.sequence, (self.boot, event));
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
            let Some((boot, event)) = self.events.remove(&number) else { continue };
            self.now = at;
            self.happen(boot, event);
        }
        self.now = until;
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

    fn happen(&mut self, boot: u32, event: Event) {
        let of_now = boot == self.boot && self.up;
        match event {
            Event::Run(core) if of_now => self.turn(core),
            Event::Tick(core) if of_now => {
                self.cores[core].tick_at = u64::MAX;
                self.give(core, Given::Tick);
            }
            Event::Ring(from, to) if of_now => self.ring_arrives(from, to),
            Event::Commit if of_now => self.commit(),
            Event::Give(core, given) if of_now => self.give(core, given),
            Event::Read(core, ticket, query) if of_now => {
                let failed = self.chance.per_mille(self.plan.read_faults) && !self.quiet;
                let Some(storage) = &mut self.storage else { return };
                let outcome = if failed { StoreOutcome::Failed } else { storage.read(&query) };
                let delay = self.chance.delay(20_000);
                self.plan_in(delay, Event::Give(core, Given::Stored(ticket, outcome)));
            }
            Event::Run(_) | Event::Tick(_) | Event::Ring(..) | Event::Commit => {}
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
                    self.crash();
                }
            }
            Event::Boot => self.boot(),
        }
    }

    // ---- the node

    fn boot(&mut self) {
        self.boot += 1;
        self.up = true;
        let storage = Storage::open(self.disk.clone(), self.plan.store_faults);
        let policy = C2sPolicy {
            tls_required: false,
            limits_before: XmlLimits { stanza_bytes_max: 10_000, ..XmlLimits::default() },
            limits: XmlLimits { stanza_bytes_max: 100_000, ..XmlLimits::default() },
            ..C2sPolicy::new(DOMAIN, features::stream_features(&features::Settings::default()))
        };
        let config = Arc::new(ShardConfig {
            scram_iterations: ITERATIONS_MIN,
            decoy_secret: [7; 32],
            incarnation: storage.incarnation,
            ..ShardConfig::new(policy, self.plan.limits.clone())
        });
        self.storage = Some(storage);
        let shards = self.plan.shards;
        let placement = Arc::new(Placement::single(shards));
        let now = self.clock();
        self.cores = (0..shards)
            .map(|shard| Core {
                shard: Shard::new(
                    ShardId(shard),
                    config.clone(),
                    placement.clone(),
                    features::all(),
                    Rng::from_u64(self.seed ^ u64::from(self.boot) << 32 ^ u64::from(shard) << 8),
                    now,
                ),
                fx: Effects::new(shards),
                inputs: VecDeque::new(),
                planned: false,
                tick_at: u64::MAX,
                conns: HashMap::new(),
                reply_at: 0,
                stuffed: false,
            })
            .collect();
        let row = || (0..shards).map(|_| Ring::default()).collect();
        self.rings = (0..shards).map(|_| row()).collect();
    }

    /// The memory of all shards is gone, and what was not committed.
    fn crash(&mut self) {
        if !self.up {
            return;
        }
        self.counts.crashes += 1;
        self.up = false;
        self.boot += 1;
        self.check_faults();
        for core in &self.cores {
            self.counts.paused += core.shard.probe().reads_paused;
            self.counts.slow += core.shard.probe().slow_readers_closed;
        }
        let kept = self.chance.percent(50);
        if let Some(storage) = self.storage.take() {
            self.counts.commits += storage.commits;
            storage.crash(kept);
        }
        self.cores.clear();
        for account in &mut self.model.accounts {
            account.disturbed_at = self.now;
        }
        for link in 0..self.links.len() {
            if self.links[link].gone {
                continue;
            }
            self.links[link].gone = true;
            self.links[link].conn = None;
            if self.chance.percent(50) {
                self.client_lost(LinkId(link));
            } else {
                let at = self.links[link].down_at + self.chance.below(1000);
                self.plan_at(at, Event::DownEnd(LinkId(link)));
            }
        }
        let delay = self.chance.delay(2 * SECOND) + 1;
        self.plan_in(delay, Event::Boot);
    }

    fn check_faults(&mut self) {
        let faults: u64 = self.cores.iter().map(|core| core.shard.probe().faults).sum();
        if faults > 0 {
            self.model.fail(|| format!("{faults} faults were contained"));
        }
    }

    fn give(&mut self, core: usize, given: Given) {
        let delay = self.chance.delay(3_000);
        let slot = &mut self.cores[core];
        slot.inputs.push_back(given);
        if !slot.planned {
            slot.planned = true;
            self.plan_in(delay, Event::Run(core));
        }
    }

    /// One turn: some of the inputs, then the effects.
    fn turn(&mut self, core: usize) {
        self.counts.turns += 1;
        self.cores[core].planned = false;
        let waiting = self.cores[core].inputs.len();
        let count = match self.chance.percent(80) {
            true => waiting,
            false => self.chance.within(1, waiting.max(1) as u64) as usize,
        };
        let now = self.clock();
        for _ in 0..count {
            let Some(given) = self.cores[core].inputs.pop_front() else { break };
            self.hand_over(core, given, now);
        }
        let slot = &mut self.cores[core];
        slot.shard.end_turn(now, &mut slot.fx);
        if slot.shard.probe().faults > 0 {
            self.check_faults();
        }
        self.carry_out(core);
        if !self.cores[core].inputs.is_empty() && !self.cores[core].planned {
            self.cores[core].planned = true;
            let delay = self.chance.delay(1_000);
            self.plan_in(delay, Event::Run(core));
        }
    }

    fn hand_over(&mut self, core: usize, given: Given, now: Now) {
        let mut read_on = None;
        let slot = &mut self.cores[core];
        let (shard, fx) = (&mut slot.shard, &mut slot.fx);
        match given {
            Given::Bytes(link, bytes) => {
                let state = &mut self.links[link.0];
                state.reading = false;
                let Some(conn) = state.conn.filter(|_| state.shard == core) else {
                    // It moved meanwhile: a runtime would not have read it.
                    state.inbox.splice(..0, bytes);
                    return self.plan_in(1, Event::Readable(link));
                };
                if self.log {
                    let text = String::from_utf8_lossy(&bytes);
                    eprintln!("{} core {core} {:?} < {text}", self.now, self.links[link.0].peer);
                }
                shard.handle(now, Input::Bytes { conn, bytes: &bytes }, fx);
                self.note(1, link.0 as u64, &bytes);
                read_on = Some(link);
            }
            Given::Secured(link) => {
                let Some(conn) = self.links[link.0].conn else { return };
                let facts = TlsFacts::default();
                shard.handle(now, Input::Secured { conn, facts }, fx);
            }
            Given::Closed(link) => {
                let state = &mut self.links[link.0];
                if state.shard != core {
                    let core = state.shard;
                    return self.give(core, Given::Closed(link));
                }
                let Some(conn) = state.conn.take() else {
                    state.lost_on_the_way = true;
                    return;
                };
                slot.conns.remove(&conn);
                if self.log {
                    eprintln!("{} core {core} {:?} closed", self.now, self.links[link.0].peer);
                }
                shard.handle(now, Input::Closed { conn }, fx);
            }
            Given::Frames(from, batch) => {
                if self.log {
                    eprintln!("{} core {core} {} frames from {}", self.now, batch.frames(), from.0);
                }
                shard.handle(now, Input::Frames { from, sent: now.mono, batch: &batch }, fx);
                self.note(2, u64::from(from.0), batch.as_bytes());
            }
            Given::Handled(by, received, handled) => {
                shard.handle(now, Input::Handled { by, received, handled }, fx);
            }
            Given::Relieved => shard.handle(now, Input::Relieved, fx),
            Given::Stored(ticket, outcome) => {
                if self.log {
                    let text = format!("{outcome:?}");
                    eprintln!("{} core {core} {ticket:?} {:.100}", self.now, text);
                }
                shard.handle(now, Input::Stored { ticket, outcome }, fx);
            }
            Given::Password(conn, verdict) => {
                shard.handle(now, Input::PasswordChecked { conn, verdict }, fx);
            }
            Given::Administered(ticket, outcome) => {
                shard.handle(now, Input::Administered { ticket, outcome }, fx);
            }
            Given::AccountChanged(jid) => shard.handle(now, Input::AccountChanged(jid), fx),
            Given::Tick => shard.handle(now, Input::Tick, fx),
            Given::Adopt(link, moved) => {
                let conn = shard.adopt(now, *moved, fx);
                slot.conns.insert(conn, link);
                self.links[link.0].conn = Some(conn);
                self.links[link.0].shard = core;
                if self.links[link.0].lost_on_the_way {
                    self.give(core, Given::Closed(link));
                } else {
                    read_on = Some(link);
                }
            }
        }
        if let Some(link) = read_on {
            let delay = self.chance.delay(1000);
            self.plan_in(delay, Event::Readable(link));
        }
    }

    fn carry_out(&mut self, core: usize) {
        let actions = std::mem::take(&mut self.cores[core].fx.actions);
        for action in actions {
            self.action(core, action);
        }
        let dirty = std::mem::take(&mut self.cores[core].fx.dirty);
        for conn in dirty {
            if let Some(&link) = self.cores[core].conns.get(&conn) {
                self.flush(link);
            }
        }
        let writes = std::mem::take(&mut self.cores[core].fx.writes);
        if let Some(storage) = &mut self.storage {
            for (ticket, write) in writes {
                if self.log {
                    eprintln!("{} core {core} {ticket:?} {}", self.now, show(&write));
                }
                storage.push(core, ticket, write);
            }
        }
        self.start_commit();
        let queries = std::mem::take(&mut self.cores[core].fx.queries);
        for (ticket, query) in queries {
            if self.log {
                eprintln!("{} core {core} {ticket:?} query {query:?}", self.now);
            }
            let delay = self.chance.delay(20_000);
            self.plan_in(delay, Event::Read(core, ticket, query));
        }
        self.ship(core);
        let news: Vec<_> = self.cores[core].shard.ring_news().collect();
        for (to, received, handled) in news {
            self.rings[core][usize::from(to.0)].news = Some((received, handled));
        }
        self.ship_news(core);
        self.plan_tick(core);
    }

    fn plan_tick(&mut self, core: usize) {
        let Some(due) = self.cores[core].shard.next_due() else { return };
        let at = (due.0.div_ceil(1000)).saturating_sub(1_000_000_000).max(self.now);
        if at < self.cores[core].tick_at {
            self.cores[core].tick_at = at;
            self.plan_at(at, Event::Tick(core));
        }
    }

    fn action(&mut self, core: usize, action: Action) {
        let link_of = |conn: &ConnId| self.cores[core].conns.get(conn).copied();
        match action {
            Action::StartTls(conn) => {
                let Some(link) = link_of(&conn) else { return };
                self.links[link.0].securing = true;
            }
            Action::Move { conn, to } => {
                let Some(link) = link_of(&conn) else { return };
                let slot = &mut self.cores[core];
                slot.conns.remove(&conn);
                let Some(moved) = slot.shard.extract(conn) else {
                    return self.model.fail(|| "a connection to move is not there".to_owned());
                };
                self.counts.moves += 1;
                self.links[link.0].conn = None;
                let to = usize::from(to.0);
                self.push_cargo(core, to, Cargo::Conn(link, Box::new(moved)));
            }
            Action::Close(conn) => {
                let Some(link) = link_of(&conn) else { return };
                self.links[link.0].closing = true;
                self.disturb(link);
                self.flush(link);
            }
            Action::Abort(conn) => {
                let Some(link) = link_of(&conn) else { return };
                let at = self.links[link.0].down_at;
                self.plan_at(at, Event::DownEnd(link));
                self.disturb(link);
                self.lose(link);
            }
            Action::ReadAgain(conn) => {
                let Some(link) = link_of(&conn) else { return };
                let delay = self.chance.delay(1000);
                self.plan_in(delay, Event::Readable(link));
            }
            Action::CheckPassword(check) => {
                let PasswordCheck { conn, password, keys, known, .. } = check;
                let busy = !self.quiet && self.plan.cuts > 0 && self.chance.percent(2);
                let right = known && password == PASSWORD && keys.salt == SALT;
                let verdict = (!busy).then_some(right);
                let delay = self.chance.delay(50_000);
                self.plan_in(delay, Event::Give(core, Given::Password(conn, verdict)));
            }
            Action::Administer { ticket, .. } => {
                // Accounts change by the plan alone: whoever asks finds the side threads busy, after a while.
                let delay = self.chance.delay(50_000);
                let given = Given::Administered(ticket, Outcome::Busy);
                self.plan_in(delay, Event::Give(core, given));
            }
        }
    }

    // ---- rings

    fn push_cargo(&mut self, from: usize, to: usize, cargo: Cargo) {
        let delay = self.chance.delay(5_000);
        let ring = &mut self.rings[from][to];
        ring.cargo.push_back(cargo);
        ring.at = (ring.at + 1).max(self.now + delay);
        let at = ring.at;
        self.plan_at(at, Event::Ring(from, to));
    }

    /// Moves what waits in the outbox into rings that have room.
    fn ship(&mut self, core: usize) {
        for to in 0..self.rings.len() {
            if self.cores[core].fx.outbox[to].is_empty() {
                continue;
            }
            if self.rings[core][to].cargo.len() >= self.plan.ring {
                self.cores[core].stuffed = true;
                continue;
            }
            let batch = std::mem::take(&mut self.cores[core].fx.outbox[to]);
            self.push_cargo(core, to, Cargo::Frames(batch));
        }
    }

    fn ship_news(&mut self, core: usize) {
        for to in 0..self.rings.len() {
            if !self.cores[core].fx.outbox[to].is_empty() {
                continue;
            }
            if let Some((received, handled)) = self.rings[core][to].news.take() {
                self.push_cargo(core, to, Cargo::News(received, handled));
            }
        }
    }

    fn ring_arrives(&mut self, from: usize, to: usize) {
        let Some(cargo) = self.rings[from][to].cargo.pop_front() else { return };
        let sender = ShardId(from as u16);
        match cargo {
            Cargo::Frames(batch) => self.give(to, Given::Frames(sender, batch)),
            Cargo::News(received, handled) => {
                self.give(to, Given::Handled(sender, received, handled));
            }
            Cargo::Conn(link, moved) => self.give(to, Given::Adopt(link, moved)),
        }
        if self.cores[from].stuffed {
            self.ship(from);
            self.ship_news(from);
            if self.cores[from].fx.outbox.iter().all(Batch::is_empty) {
                self.cores[from].stuffed = false;
                self.give(from, Given::Relieved);
            }
        }
    }

    // ---- the store

    fn start_commit(&mut self) {
        let Some(storage) = &mut self.storage else { return };
        if storage.start() {
            let delay = 200 + self.chance.delay(300_000);
            self.plan_in(delay, Event::Commit);
        }
    }

    fn commit(&mut self) {
        let Some(storage) = &mut self.storage else { return };
        match storage.finish(&mut self.chance) {
            Commit::Again => {
                let delay = 1000 + self.chance.delay(300_000);
                self.plan_in(delay, Event::Commit);
            }
            Commit::Done(answers) => {
                for (core, ticket, outcome) in answers {
                    let delay = self.chance.delay(5_000);
                    let at = (self.now + delay).max(self.cores[core].reply_at + 1);
                    self.cores[core].reply_at = at;
                    self.plan_at(at, Event::Give(core, Given::Stored(ticket, outcome)));
                }
                self.start_commit();
            }
        }
    }

    // ---- the network

    fn open_link(&mut self, peer: Peer) -> Option<LinkId> {
        if !self.up {
            return None;
        }
        let shard = self.chance.index(self.cores.len());
        let now = self.clock();
        let ip = std::net::IpAddr::from([127, 0, 0, 1]);
        let conn = self.cores[shard].shard.accept(now, ip, None);
        let link = LinkId(self.links.len());
        self.cores[shard].conns.insert(conn, link);
        let window = [2_000, 20_000, 1 << 20][self.chance.index(3)];
        self.links.push(Link {
            peer,
            boot: self.boot,
            shard,
            conn: Some(conn),
            inbox: Vec::new(),
            up_at: 0,
            down_at: 0,
            down_bytes: 0,
            window,
            eof: false,
            closing: false,
            gone: false,
            deaf: false,
            lost_on_the_way: false,
            securing: false,
            reading: false,
        });
        self.plan_tick(shard);
        Some(link)
    }

    /// The peer sends bytes, which arrive in pieces.
    fn send_up(&mut self, link: LinkId, mut bytes: Vec<u8>) {
        while !bytes.is_empty() {
            let length = match self.chance.percent(70) {
                true => bytes.len(),
                false => self.chance.within(1, bytes.len() as u64) as usize,
            };
            let rest = bytes.split_off(length);
            let delay = self.chance.delay(self.plan.net);
            let slot = &mut self.links[link.0];
            slot.up_at = (slot.up_at + 1).max(self.now + delay);
            let at = slot.up_at;
            self.plan_at(at, Event::Up(link, bytes));
            bytes = rest;
        }
    }

    /// The runtime reads, if it should.
    fn readable(&mut self, link: LinkId) {
        let slot = &self.links[link.0];
        let (Some(conn), core) = (slot.conn, slot.shard) else { return };
        if slot.gone || slot.securing || slot.reading || slot.boot != self.boot {
            return;
        }
        if !self.cores[core].shard.is_reading(conn) {
            return;
        }
        if slot.inbox.is_empty() {
            if slot.eof {
                self.lose(link);
            }
            return;
        }
        let length = match self.chance.percent(60) {
            true => slot.inbox.len(),
            false => self.chance.within(1, slot.inbox.len() as u64) as usize,
        };
        self.links[link.0].reading = true;
        let rest = self.links[link.0].inbox.split_off(length);
        let bytes = std::mem::replace(&mut self.links[link.0].inbox, rest);
        self.give(core, Given::Bytes(link, bytes));
    }

    fn disturb(&mut self, link: LinkId) {
        if let Peer::Client(client) = self.links[link.0].peer {
            self.model.accounts[self.clients[client].account].disturbed_at = self.now;
        }
    }

    /// The server learns that the connection is gone.
    fn lose(&mut self, link: LinkId) {
        let slot = &mut self.links[link.0];
        if slot.gone || slot.boot != self.boot {
            return;
        }
        slot.gone = true;
        match slot.conn {
            Some(_) => {
                let core = slot.shard;
                self.give(core, Given::Closed(link));
            }
            None => slot.lost_on_the_way = true,
        }
    }

    fn flush(&mut self, link: LinkId) {
        let slot = &self.links[link.0];
        let (Some(conn), core) = (slot.conn, slot.shard) else { return };
        if slot.gone || slot.boot != self.boot {
            return;
        }
        let Some(output) = self.cores[core].shard.output(conn) else { return };
        let room = slot.window.saturating_sub(slot.down_bytes);
        let most = output.bytes.len().min(room);
        let take = match self.chance.percent(80) {
            true => most,
            false => self.chance.below(most as u64 + 1) as usize,
        };
        let rest = output.bytes.len() - take;
        let mut bytes = output.bytes[..take].to_vec();
        self.note_refusals(core, conn);
        self.cores[core].shard.output_left(conn, take);
        self.links[link.0].down_bytes += take;
        while !bytes.is_empty() {
            let length = match self.chance.percent(70) {
                true => bytes.len(),
                false => self.chance.within(1, bytes.len() as u64) as usize,
            };
            let later = bytes.split_off(length);
            let mut delay = self.chance.delay(self.plan.net);
            if !self.quiet && self.plan.cuts > 0 && self.chance.per_mille(5) {
                // The client does not read for a while.
                delay += self.chance.below(10 * SECOND);
            }
            let slot = &mut self.links[link.0];
            slot.down_at = (slot.down_at + 1).max(self.now + delay);
            let at = slot.down_at;
            self.plan_at(at, Event::Down(link, bytes));
            bytes = later;
        }
        if rest == 0 && self.links[link.0].closing {
            let at = self.links[link.0].down_at + 1;
            self.plan_at(at, Event::DownEnd(link));
            self.lose(link);
        } else if rest > 0 && take < most {
            let delay = 1 + self.chance.delay(5_000);
            self.plan_in(delay, Event::Flush(link));
        }
    }

    /// Errors for messages that a stream carries: the sender is answered, though the stream may break.
    fn note_refusals(&mut self, core: usize, conn: ConnId) {
        let Some(output) = self.cores[core].shard.output(conn) else { return };
        let Ok(text) = std::str::from_utf8(output.bytes) else { return };
        for piece in text.split("<message ").skip(1) {
            let tag = piece.split('>').next().unwrap_or_default();
            let tag = format!(" {tag}");
            if crate::client::attr(&tag, "type") == Some("error") {
                let id = crate::client::attr(&tag, "id").unwrap_or_default();
                let message = crate::client::number(id, 'm');
                if let Some(message) = message.and_then(|at| self.model.messages.get_mut(at)) {
                    message.refused = true;
                }
            }
        }
    }

    fn heard(&mut self, link: LinkId, bytes: &[u8]) {
        let slot = &mut self.links[link.0];
        let was_full = slot.down_bytes >= slot.window;
        slot.down_bytes -= bytes.len();
        if was_full && !slot.gone {
            self.plan_in(1, Event::Flush(link));
        }
        if self.links[link.0].deaf {
            return;
        }
        self.note(3, link.0 as u64, bytes);
        match self.links[link.0].peer {
            Peer::Client(client) => {
                if self.log {
                    eprintln!("{} client {client} < {}", self.now, String::from_utf8_lossy(bytes));
                }
                let Self { model, chance, clients, .. } = self;
                let orders = clients[client].bytes(bytes, model, chance, self.now);
                self.obey(client, orders);
            }
            Peer::Rogue(_) => {}
        }
    }

    fn secure(&mut self, link: LinkId) {
        if self.links[link.0].gone || !self.links[link.0].securing {
            return;
        }
        self.links[link.0].securing = false;
        let core = self.links[link.0].shard;
        if self.links[link.0].boot != self.boot {
            return;
        }
        self.give(core, Given::Secured(link));
        if let Peer::Client(client) = self.links[link.0].peer
            && self.client_links[client] == Some(link)
        {
            let orders = self.clients[client].secured();
            self.obey(client, orders);
        }
    }

    // ---- clients

    fn connect(&mut self, client: usize) {
        if self.client_links[client].is_some() {
            return;
        }
        let Some(link) = self.open_link(Peer::Client(client)) else {
            let delay = 100_000 + self.chance.delay(SECOND);
            return self.plan_in(delay, Event::Connect(client));
        };
        self.client_links[client] = Some(link);
        let Self { model, chance, clients, .. } = self;
        let orders = clients[client].connected(model, chance, self.now);
        self.obey(client, orders);
    }

    fn obey(&mut self, client: usize, orders: Orders) {
        let Orders { send, later, hang_up, online, secure } = orders;
        if let Some(link) = self.client_links[client] {
            self.send_up(link, send);
            if secure {
                let delay = self.chance.delay(self.plan.net);
                self.plan_in(delay, Event::Secure(link));
            }
        }
        for (delay, later) in later {
            self.plan_in(delay, Event::Later(client, later));
        }
        if online && !self.quiet {
            let session = self.clients[client].session.unwrap_or(0);
            let delay = self.chance.delay(self.plan.pause);
            self.plan_in(delay, Event::Act(client, session));
        }
        if hang_up {
            self.hang_up(client);
        }
    }

    /// The client closes its end; what it sent before still arrives.
    fn hang_up(&mut self, client: usize) {
        let Some(link) = self.client_links[client] else { return };
        self.leave(client, link);
        let slot = &mut self.links[link.0];
        slot.up_at += 1;
        let at = slot.up_at.max(self.now);
        self.plan_at(at, Event::UpEnd(link, false));
    }

    /// The network fails: what is under way is lost or not, and the server learns of it late.
    fn cut(&mut self, client: usize) {
        let Some(link) = self.client_links[client] else { return };
        self.counts.cuts += 1;
        self.leave(client, link);
        let slot = &mut self.links[link.0];
        slot.deaf = true;
        let reset = self.chance.percent(50);
        let delay = self.chance.delay(3 * SECOND);
        let slot = &mut self.links[link.0];
        let at = if reset { self.now + delay } else { slot.up_at.max(self.now + delay) };
        self.plan_at(at, Event::UpEnd(link, reset));
    }

    /// The client is away from now on, and comes back.
    fn leave(&mut self, client: usize, link: LinkId) {
        self.links[link.0].deaf = true;
        self.client_links[client] = None;
        self.clients[client].disconnected();
        let account = self.clients[client].account;
        self.model.accounts[account].disturbed_at = self.now;
        let away = match self.quiet {
            true => 100_000,
            false => self.chance.delay(15 * SECOND),
        };
        self.plan_in(away, Event::Connect(client));
    }

    /// The server's end is closed, and all that it sent is read.
    fn client_lost(&mut self, link: LinkId) {
        if self.links[link.0].deaf {
            return;
        }
        self.links[link.0].deaf = true;
        if let Peer::Client(client) = self.links[link.0].peer
            && self.client_links[client] == Some(link)
        {
            self.leave(client, link);
            if !self.links[link.0].gone {
                self.plan_in(1000, Event::UpEnd(link, false));
            }
        }
    }

    fn act(&mut self, client: usize, session: u32) {
        let slot = &self.clients[client];
        let enough = self.model.messages.len() > 1_500;
        if self.quiet || enough || slot.phase != Phase::Online || slot.session != Some(session) {
            return;
        }
        let mut orders = Orders::default();
        let Self { model, chance, clients, .. } = self;
        let (slot, now) = (&mut clients[client], self.now);
        match chance.below(100) {
            0..55 => slot.chat(&mut orders, model, chance, now),
            55..62 => (0..chance.within(2, 40)).for_each(|_| {
                slot.chat(&mut orders, model, chance, now);
            }),
            62..78 => slot.request(&mut orders, model, chance),
            78..88 => slot.ask(&mut orders),
            88..94 => slot.social(&mut orders, model, chance, now),
            94 if self.plan.cuts > 0 => {
                // It ends its session in order.
                orders.send.extend_from_slice(b"</stream:stream>");
                self.obey(client, orders);
                self.hang_up(client);
                self.clients[client].forget();
                return;
            }
            _ => orders.send.push(b' '),
        }
        self.obey(client, orders);
        if self.chance.per_mille(self.plan.cuts) {
            return self.cut(client);
        }
        if self.plan.cuts > 0 && self.chance.per_mille(2) {
            // An operator changed something.
            let account = address(self.clients[client].account);
            if self.up {
                for core in 0..self.cores.len() {
                    self.give(core, Given::AccountChanged(account.clone()));
                }
            }
        }
        let delay = self.chance.delay(self.plan.pause);
        self.plan_in(delay, Event::Act(client, session));
    }

    /// A hostile peer: says something, comes back when it is thrown out.
    fn rogue(&mut self, rogue: usize) {
        if self.quiet {
            return;
        }
        let alive = self.rogue_links[rogue].filter(|link| {
            let link = &self.links[link.0];
            !link.gone && !link.eof && link.boot == self.boot
        });
        let user = self.plan.accounts + rogue;
        match alive {
            None => {
                if let Some(link) = self.open_link(Peer::Rogue(rogue)) {
                    self.rogue_links[rogue] = Some(link);
                    let bytes = rogue::opening(user, &mut self.chance);
                    self.send_up(link, bytes);
                }
            }
            Some(link) => {
                let victim = match self.clients.len() {
                    0 => String::new(),
                    count => self.clients[self.chance.index(count)].full_jid(),
                };
                let bytes = rogue::nuisance(&victim, &mut self.chance);
                self.send_up(link, bytes);
                if self.chance.percent(3) {
                    self.plan_in(0, Event::UpEnd(link, true));
                }
            }
        }
        let delay = self.chance.delay(SECOND);
        self.plan_in(delay, Event::Rogue(rogue));
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
    }
}
