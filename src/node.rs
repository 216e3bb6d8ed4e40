//! The node: wires cores, store, listeners and the control socket from a checked configuration; starts them in order
//! and ends them in the reverse.

mod certificates;
mod cluster;
mod drain;
mod everywhere;
mod federation;
mod log;
mod reload;
mod trace;
mod watch;

use crate::admin::figures::{CertificateFigures, ClusterFigures, ShardFigures};
use crate::admin::http::Door;
use crate::admin::overview::{self, NodeFacts};
use crate::base::limit::Rate;
use crate::base::rng::Rng;
use crate::cluster::map::ShardMap;
use crate::cluster::placement::NodeId;
use crate::cluster::view::{Run, View};
use crate::config::{self, Config, ConfigError, Origin, TlsPolicy};
use crate::features;
use crate::runtime::clock::Clock;
use crate::runtime::control::accounts::{self, Accounts, News};
use crate::runtime::control::cluster::ClusterStatus;
use crate::runtime::control::office::{self, Found, Office};
use crate::runtime::control::{
    ControlHandler, ControlRequest, ControlResponse, Listener, ShardStatus, Status, StatusTalker,
    StatusTalkers, Tell, server,
};
use crate::runtime::data_dir::DataDir;
use crate::runtime::errands::{Errands, Runner};
use crate::runtime::executor::{self, Beats, CoreSettings, Cores, Done, MakeFeatures, Ways};
use crate::runtime::federation::FederationCores;
use crate::runtime::http::{self, HttpServer};
use crate::runtime::latency::{Collector, Latency};
use crate::runtime::listener::{self, Listening, Transport};
use crate::runtime::mailbox::{Letter, Mailbox, StoreAsker};
use crate::runtime::mesh::mesh;
use crate::runtime::notify;
use crate::runtime::passwords::Passwords;
use crate::runtime::preflight::{self, Granted};
use crate::runtime::retention::{self, Retention, Rule};
use crate::runtime::signal::{self, Signal};
use crate::runtime::storage::{Storage, StoreHandle};
use crate::runtime::tls::{self, TlsServer};
use crate::shard::errand::{Announcement, Errand, Outcome, Registrations, Shares, Which};
use crate::shard::{AckLevel, Limits, Rates, ShardConfig, Talker, TopTalkers, TrafficRate};
use crate::store::{Answer, Query, Reader, Write, Written};
use crate::stream::c2s::C2sPolicy;
use crate::stream::sasl::ScramHashes;
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::xml::framer::XmlLimits;
use std::fmt::Display;
use std::net::{IpAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use watch::Watch;

/// Threads that read the store.
const READERS: usize = 2;
/// How long a shard may take to tell its figures.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);
/// To whoever asks a node without a cluster for its cluster.
const ALONE: &str = "the node is in no cluster; see [cluster] in its configuration";
/// To whoever drains the last node that owns anything.
const NO_HEIR: &str = "no other member takes accounts (there is none, or all are drained): nobody can take what the node owns";
/// How long one may take over what an operator asks of its sessions.
const PATIENCE: Duration = Duration::from_secs(5);
/// Elements before login are small and flat.
const DEPTH_BEFORE_LOGIN: u16 = 8;

/// Why a node did not start, or ended badly: one line of cause and remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    DataDir(#[from] crate::runtime::data_dir::DataDirError),
    #[error(transparent)]
    Preflight(#[from] preflight::Refusal),
    #[error(transparent)]
    Listen(#[from] listener::ListenError),
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    #[error(transparent)]
    Cores(#[from] executor::Error),
    #[error("{0}")]
    Other(String),
}

/// What main waits for.
enum Event {
    Signal(Signal),
    CoreEnded(u16),
    FederationCoreEnded(u16),
    /// An administrator's wish.
    Stop,
    /// Another node has taken the store.
    Fenced,
    /// The node is a member of its cluster.
    Joined,
    /// It has let its clients go, as it was told to.
    Drained,
    /// It has given away all that it owned.
    Left,
}

/// Runs a node until it is told to stop.
///
/// - `origin`: where its configuration is read from, now and at each reload
pub fn run(origin: Origin) -> Result<(), Error> {
    let config = origin.load()?;
    let log = log::start(&config);
    let began = Instant::now();
    let data_dir = DataDir::open(&config.node.data_dir)?;
    let shards = config.shard_count();
    let needed = federation::needed(&config, shards);
    let granted = preflight::check(needed, config.limits.connections as usize)?;
    let (events, waiting) = channel();
    let signals = events.clone();
    signal::listen(move |signal| {
        let _ = signals.send(Event::Signal(signal));
    })
    .map_err(|error| told("signals cannot be received", &error))?;

    let place = config.store_place();
    let entry = if config.cluster.enabled { Some(cluster::prepare(&config)?) } else { None };
    let (opened, node) = match &entry {
        Some(_) => {
            let shared = place.open_shared(&config.node_name())?;
            (shared.opened, NodeId(shared.node))
        }
        None => (place.open(&config.node_name())?, NodeId::default()),
    };
    let incarnation = opened.incarnation;
    for warning in &opened.warnings {
        tracing::warn!("{warning}");
    }
    let readers = (0..READERS).map(|_| place.reader()).collect::<Result<Vec<_>, _>>()?;
    let mut own_reader = place.reader()?;
    let retention_reader = place.reader()?;
    let tls = certificates::tls_server(&config, data_dir.path())?;
    let decoy_secret = match &entry {
        Some(entry) => entry.decoy_secret(),
        None => decoy_secret(data_dir.path())?,
    };
    let listening = listen(&config, shards)?;
    let admin_listener = match config.admin.listen {
        Some(address) => Some(listener::listen_alone("admin.listen", address)?),
        None => None,
    };
    let clock = Clock::start();
    let of_cluster = entry.as_ref().map(|entry| (node, entry.dialback_secret()));
    let of_run = (incarnation, of_cluster);
    let federation = federation::prepare(&config, data_dir.path(), shards, of_run, clock)?;
    let mut addresses = listeners(&listening);
    addresses.extend(federation.iter().flat_map(federation::Prepared::listeners));
    if let Some(Ok(address)) = admin_listener.as_ref().map(|listener| listener.local_addr()) {
        addresses.push(Listener { address: address.to_string(), key: "admin.listen".to_owned() });
    }

    let (mailboxes, letters): (Vec<_>, Vec<_>) = (0..shards).map(|_| Mailbox::new()).unzip();
    let taken = events.clone();
    let fenced = move || {
        let _ = taken.send(Event::Fenced);
    };
    let federation_part = federation.as_ref().map(|prepared| prepared.part().clone());
    let of_federation = federation_part.as_ref().map_or(&[][..], federation::Part::mailboxes);
    let mut askers: Vec<Arc<dyn StoreAsker>> = Vec::new();
    askers.extend(mailboxes.iter().map(|it| Arc::new(it.clone()) as Arc<dyn StoreAsker>));
    askers.extend(of_federation.iter().map(|it| Arc::new(it.clone()) as Arc<dyn StoreAsker>));
    let bells: Vec<_> = mailboxes.iter().map(|mailbox| mailbox.bell().clone()).collect();
    let of_federation_bells = of_federation.iter().map(|mailbox| mailbox.bell().clone());
    let mut rings = mesh(&bells.into_iter().chain(of_federation_bells).collect::<Vec<_>>());
    let federation_rings = rings.split_off(usize::from(shards));
    let done = Done::new(usize::from(needed.shards) + usize::from(needed.federation));
    let storage = Storage::start(opened.writers, readers, &askers, fenced)
        .map_err(|error| told("a storage thread cannot be started", &error))?;
    let password_queue = config.limits.password_checks_queue as usize;
    let passwords = Passwords::start(usize::from(shards).div_ceil(2), password_queue, &mailboxes)
        .map_err(|error| told("a password thread cannot be started", &error))?;
    let itself = Itself { shards, node, incarnation, decoy_secret };
    let policy = policy(&config, offered_scram(&config, own_reader.as_mut())?);
    let beats = Beats::new(shards, clock);
    let measures = config.latency.enabled;
    let log_file = latency_log(&config);
    let collector =
        Collector::start(&mailboxes, of_federation, storage.handle(), clock, measures, log_file)
            .map_err(Error::Other)?;
    let latency = collector.latency().clone();
    let watch = Watch::new(
        began,
        beats.clone(),
        storage.handle(),
        latency.clone(),
        &mailboxes,
        federation_part.clone(),
    );
    let admin = match admin_listener {
        Some(listener) => Some(serve_admin(listener, &config, data_dir.path(), watch.clone())?),
        None => None,
    };
    let joined = match entry {
        Some(entry) => {
            let run = Run { node, incarnation };
            let mailboxes = (&mailboxes[..], of_federation);
            Some(cluster::start(entry, &config, run, clock, mailboxes, events.clone())?)
        }
        None => None,
    };
    let (part, questions, threads) = match joined {
        Some((part, questions, threads)) => (Some(part), Some(questions), Some(threads)),
        None => (None, None, None),
    };
    if part.is_some() && !joins(&waiting)? {
        tracing::info!("stopped before the node was a member");
        return Ok(());
    }
    let owns: retention::Owns = match &part {
        Some(part) => part.owns(node),
        None => Arc::new(|_| true),
    };
    let rules = retention_rules(&config);
    let retention = Retention::start(storage.handle(), retention_reader, clock, rules, owns)
        .map_err(|error| told("the thread that prunes archives cannot be started", &error))?;
    let reloading = reload::Reloading {
        origin,
        log,
        tls: tls.clone(),
        passwords: passwords.clone(),
        retention,
        itself,
    };
    let desk = Arc::new(Desk {
        reloading: Mutex::new(reloading),
        config: Mutex::new(config.clone()),
        mailboxes: mailboxes.clone(),
        data_dir: data_dir.path().to_owned(),
        store: storage.handle(),
        latency,
        reader: Mutex::new(own_reader),
        alone: Arc::new(View::single(&config.node_name(), shards, incarnation)),
        node,
        part: part.clone(),
        federation: federation_part,
        listeners: addresses.clone(),
        incarnation,
        began,
        shards,
        connections_max: AtomicU64::new(granted.connections as u64),
        certificates: Mutex::new(tls.expiries(&config.domains)),
        clock,
        registrations: Mutex::default(),
        events: events.clone(),
        traces: trace::Traces::default(),
        stopping: AtomicBool::new(false),
    });
    let runner: Arc<dyn Runner> = desk.clone();
    let errands = Errands::start(&runner, password_queue, &mailboxes)
        .map_err(|error| told("a thread for errands cannot be started", &error))?;
    drop(runner);
    let answering = match part.as_ref().zip(questions) {
        Some((part, questions)) => {
            let desk = desk.clone();
            Some(part.answer(questions, move |inquiry| desk.find(inquiry))?)
        }
        None => None,
    };
    let setup = executor::Setup {
        shards,
        config: Arc::new(itself.shard_config(&config, policy)),
        placement: desk.alone.placement.clone(),
        features: make_features(&config),
        settings: core_settings(&config, granted, tls),
        passwords,
        errands,
        clock,
        beats,
        measures,
        links: part.as_ref().map(cluster::Part::carriers),
        membership: part.as_ref().map(|part| part.membership.clone()),
    };
    let sockets = listening.into_iter().map(|one| (one.transport, one.sockets)).collect();
    // Before clients come: what they send to other servers goes behind what is stored for those.
    let federation_cores = match federation {
        Some(prepared) => {
            let events = events.clone();
            let ended = move |core| {
                let _ = events.send(Event::FederationCoreEnded(core));
            };
            let tls = desk.reloading.lock().unwrap_or_else(PoisonError::into_inner).tls.clone();
            let ways = (federation_rings, done.clone());
            let membership = part.as_ref().map(|part| part.membership.clone());
            Some(prepared.start(&config, &tls, ways, (&storage, clock), membership, ended)?)
        }
        None => None,
    };
    let core_ended = move |shard| {
        let _ = events.send(Event::CoreEnded(shard));
    };
    let ways = Ways { mailboxes, letters, rings, done };
    let cores = executor::start(setup, sockets, ways, &storage, core_ended)?;

    let control = server::serve(&data_dir, desk.clone())
        .map_err(|error| told("the control socket cannot be made", &error))?;
    for address in &addresses {
        tracing::info!(address = %address.address, key = %address.key, "listening");
    }
    for warning in config.certificate_warnings() {
        tracing::warn!("{warning}");
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = %config.node_name(),
        domains = %config.domains.join(" "),
        shards,
        incarnation,
        ready_ms = began.elapsed().as_millis(),
        "ready"
    );
    watch.serves(desk.clone());
    notify::tell("READY=1");
    let result = wait(&waiting, &desk, &watch, (cores, federation_cores), collector);
    drop(control);
    drop(admin);
    storage.stop();
    // The lease goes back when nothing more is written.
    drop(threads);
    if answering.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("the thread that answers other nodes had panicked");
    }
    tracing::info!("stopped");
    drop(data_dir);
    result
}

/// Waits until the node is a member of its cluster. Gives false where it is to stop instead.
fn joins(events: &Receiver<Event>) -> Result<bool, Error> {
    loop {
        match events.recv() {
            Ok(Event::Joined) => return Ok(true),
            Ok(Event::Fenced) => return Err(crate::store::Error::Fenced.into()),
            Ok(Event::Signal(Signal::Stop) | Event::Stop | Event::Left) | Err(_) => {
                return Ok(false);
            }
            Ok(
                Event::Signal(Signal::Hangup)
                | Event::CoreEnded(_)
                | Event::FederationCoreEnded(_)
                | Event::Drained,
            ) => {}
        }
    }
}

/// Lets the node's clients go and gives away what it owns, as far as that is possible in time.
fn leave(events: &Receiver<Event>, desk: &Desk, part: &cluster::Part, patience: Duration) {
    tracing::info!("leaving the cluster");
    let began = Instant::now();
    part.drain(desk.drain_span(patience / 2));
    // What is not given away by then goes at once.
    let (mut is_drained, mut until) = (false, began + patience.mul_f32(0.75));
    loop {
        match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Left | Event::Fenced | Event::CoreEnded(_)) => return,
            // Once more: at once.
            Ok(Event::Signal(Signal::Stop)) => return,
            Ok(Event::Drained) | Err(RecvTimeoutError::Timeout) if !is_drained => {
                (is_drained, until) = (true, began + patience);
                part.leave();
            }
            Ok(_) => {}
            Err(_) => {
                tracing::warn!("the cluster was not left in time; the others take over");
                return;
            }
        }
    }
}

/// Waits for the end: wanted by a signal, or forced by a core that failed.
fn wait(
    events: &Receiver<Event>,
    desk: &Desk,
    watch: &Watch,
    (cores, federation): (Cores, Option<FederationCores>),
    collector: Collector,
) -> Result<(), Error> {
    let watchdog = notify::watchdog();
    let mut result = Ok(());
    loop {
        match events.recv_timeout(watchdog.unwrap_or(Duration::from_secs(3_600))) {
            Ok(Event::Signal(Signal::Hangup)) => {
                notify::tell(&notify::reloading());
                // What came of it is in the log.
                let _ = desk.reload();
                notify::tell("READY=1");
            }
            Ok(Event::Signal(Signal::Stop) | Event::Stop) => {
                if let Some(part) = &desk.part {
                    leave(events, desk, part, desk.shutdown_patience());
                }
                break;
            }
            Ok(Event::Joined | Event::Drained) => {}
            Ok(Event::Left) => break,
            Ok(Event::Fenced) => {
                // It serves nobody any more; whoever starts it again has it ask for the store as anyone does.
                result = Err(crate::store::Error::Fenced.into());
                break;
            }
            Ok(Event::CoreEnded(shard)) => {
                return Err(Error::Other(format!(
                    "the core of shard {shard} has ended; see the log"
                )));
            }
            Ok(Event::FederationCoreEnded(core)) => {
                return Err(Error::Other(format!("federation core {core} has ended; see the log")));
            }
            Err(RecvTimeoutError::Timeout) => {
                // A node that hangs is started again by whoever asked for this.
                if watchdog.is_some() && watch.is_alive() {
                    notify::tell("WATCHDOG=1");
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    tracing::info!("stopping");
    watch.stops();
    notify::tell("STOPPING=1");
    // While the cores can still be asked.
    drop(collector);
    for mailbox in &desk.mailboxes {
        mailbox.send(Letter::Shutdown);
    }
    if let Some(part) = &desk.federation {
        part.stop();
    }
    cores.join();
    if let Some(federation) = federation {
        federation.join();
    }
    result
}

fn told(what: &str, why: &dyn Display) -> Error {
    Error::Other(format!("{what}: {why}"))
}

/// The admin address, and the token for what is not open there: another at each start.
fn serve_admin(
    listener: TcpListener,
    config: &Config,
    data_dir: &Path,
    watch: Arc<Watch>,
) -> Result<HttpServer, Error> {
    let path = data_dir.join("admin-token");
    let token: String = executor::seed().iter().map(|byte| format!("{byte:02x}")).collect();
    tls::write_private(&path, token.as_bytes())
        .map_err(|error| told(&format!("{} cannot be written", path.display()), &error))?;
    let mut hosts = config.admin.hosts.clone();
    hosts.push(config.node_name().to_ascii_lowercase());
    let door = Door { hosts, token };
    http::serve(listener, door, watch)
        .map_err(|error| told("the admin address cannot be served", &error))
}

/// What the archives of each domain keep; nothing is said of those that keep all.
fn retention_rules(config: &Config) -> Vec<Rule> {
    let archive = &config.archive;
    let rule = |domain: &String| {
        let kept = archive.domains.get(domain).unwrap_or(&archive.retention);
        let days = (kept.days > 0).then(|| Duration::from_secs(u64::from(kept.days) * 86_400));
        let messages = (kept.messages_per_account > 0).then(|| kept.messages_per_account.into());
        Rule { domain: domain.clone(), age_max: days, messages_max: messages }
    };
    let rules = config.domains.iter().map(rule);
    rules.filter(|rule| rule.age_max.is_some() || rule.messages_max.is_some()).collect()
}

/// Where latencies are logged, and how often.
fn latency_log(config: &Config) -> Option<(PathBuf, Duration)> {
    let config::Latency { log, interval_s, .. } = &config.latency;
    let interval = Duration::from_secs(u64::from(*interval_s));
    (!log.is_empty()).then(|| (config.node.data_dir.join(log), interval))
}

/// The secret from which accounts that do not exist get their salts: the same at each start.
fn decoy_secret(data_dir: &Path) -> Result<[u8; 32], Error> {
    let path = data_dir.join("decoy-secret");
    if let Ok(found) = std::fs::read(&path)
        && let Ok(secret) = <[u8; 32]>::try_from(found.as_slice())
    {
        return Ok(secret);
    }
    let mut secret = [0; 32];
    Rng::from_seed(executor::seed()).fill(&mut secret);
    tls::write_private(&path, &secret)
        .map_err(|error| told(&format!("{} cannot be written", path.display()), &error))?;
    Ok(secret)
}

fn listen(config: &Config, shards: u16) -> Result<Vec<Listening>, Error> {
    let plain = config.c2s.listen.iter().map(|address| ("c2s.listen", Transport::Plain, *address));
    let direct = config
        .c2s
        .direct_tls_listen
        .iter()
        .map(|address| ("c2s.direct_tls_listen", Transport::DirectTls, *address));
    let components = config.components.listen.iter();
    let components =
        components.map(|address| ("components.listen", Transport::Component, *address));
    let mut listening = Vec::new();
    for (key, transport, address) in plain.chain(direct).chain(components) {
        listening.push(listener::listen(key, transport, address, shards)?);
    }
    Ok(listening)
}

fn listeners(listening: &[Listening]) -> Vec<Listener> {
    listening
        .iter()
        .map(|one| Listener { address: one.address.to_string(), key: one.key.to_owned() })
        .collect()
}

/// A mechanism that some accounts cannot use would lock them out: clients choose the strongest that is listed.
fn offered_scram(config: &Config, reader: &mut dyn Reader) -> Result<ScramHashes, Error> {
    let Answer::LacksKeys(lacks) = reader.read(&Query::LacksKeys)? else {
        return Err(Error::Other("the store answered another question than was asked".to_owned()));
    };
    let told = |name: &str, why: &str| tracing::info!("SCRAM-{name} is not offered: {why}");
    const IMPORTED: &str =
        "accounts that came from another server have no keys for it, until their passwords are set";
    if lacks.sha1 {
        told("SHA-1", IMPORTED);
    }
    if lacks.sha256 {
        told("SHA-256", IMPORTED);
    }
    let sha512 = match config.auth.scram_sha512 {
        config::Sha512::On => true,
        config::Sha512::Off => false,
        config::Sha512::Auto => {
            if lacks.sha512 {
                told(
                    "SHA-512",
                    "passwords from before version 0.2, and those that came from another server, have no keys for it",
                );
            }
            !lacks.sha512
        }
    };
    Ok(ScramHashes { sha1: !lacks.sha1, sha256: !lacks.sha256, sha512 })
}

/// When a challenge or a refusal leaves: more than a core that is not overloaded needs for it, with the look-up.
const ANSWER_AFTER: Duration = Duration::from_millis(1);

/// Seconds of their rate that connections without a session may use at once, so that a login is one burst.
const LOGIN_AHEAD: Duration = Duration::from_secs(10);

/// What a node has of itself, beside its configuration.
#[derive(Clone, Copy)]
struct Itself {
    shards: u16,
    node: NodeId,
    incarnation: u64,
    decoy_secret: [u8; 32],
}

impl Itself {
    fn shard_config(&self, config: &Config, policy: C2sPolicy) -> ShardConfig {
        ShardConfig {
            answer_after: ANSWER_AFTER,
            node: self.node,
            location: config.cluster.clients.first().map(|at| at.as_str().into()),
            redirects: config.c2s.redirect == config::Redirect::Owner,
            federation_cores: federation::cores(config),
            ..shard_config(config, policy, self.shards, self.incarnation, self.decoy_secret)
        }
    }
}

/// What each of `shards` shards is told of the configuration.
pub fn shard_config(
    config: &Config,
    policy: C2sPolicy,
    shards: u16,
    incarnation: u64,
    decoy_secret: [u8; 32],
) -> ShardConfig {
    ShardConfig {
        policy,
        limits: limits(config, shards),
        ack: match config.storage.ack {
            config::AckLevel::Stored => AckLevel::Stored,
            config::AckLevel::Received => AckLevel::Received,
        },
        archive: config.archive.enabled,
        access: config.access.banned.iter().cloned().collect(),
        scram_iterations: config.auth.scram_iterations,
        decoy_secret,
        answer_after: Duration::ZERO,
        admins: config.admins.clone(),
        components: config.components.secrets.clone(),
        node: NodeId::default(),
        direct: true,
        location: None,
        redirects: false,
        incarnation,
        federation_cores: 0,
    }
}

fn make_features(config: &Config) -> MakeFeatures {
    let settings = config.features.clone();
    Arc::new(move || features::with(&settings))
}

fn core_settings(config: &Config, granted: Granted, tls: TlsServer) -> CoreSettings {
    CoreSettings {
        tls,
        balancers: config
            .c2s
            .proxy_protocol
            .then(|| config.c2s.proxy_from.iter().copied().collect()),
        connections_max: granted.connections,
        handshakes_max: config.limits.handshakes_in_flight as usize,
        handshake_timeout: Duration::from_secs(config.limits.login_timeout_s.into()),
        shutdown_timeout: Duration::from_secs(config.limits.shutdown_s.into()),
        redirects: config.c2s.redirect == config::Redirect::Owner,
    }
}

/// - takes: `scram`, what may be listed of it
pub fn policy(config: &Config, scram: ScramHashes) -> C2sPolicy {
    let limits = &config.limits;
    let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let after = XmlLimits {
        stanza_bytes_max: limits.stanza_bytes,
        depth_max: small(limits.depth),
        attributes_max: small(limits.attributes),
        name_bytes_max: small(limits.name_bytes),
        header_bytes_max: limits.stream_header_bytes,
    };
    C2sPolicy {
        domains: config.domains.iter().map(|domain| domain.as_str().into()).collect(),
        tls_required: config.c2s.tls == TlsPolicy::Required,
        scram,
        registration: config.registration.in_band,
        limits_before: XmlLimits {
            stanza_bytes_max: limits.stanza_bytes_before_login,
            depth_max: DEPTH_BEFORE_LOGIN,
            ..after.clone()
        },
        limits: after,
        idle_s: limits.silence_s,
        features: features::stream_features(&config.features),
    }
}

fn limits(config: &Config, shards: u16) -> Limits {
    let limits = &config.limits;
    let part = |whole: u32| whole.div_ceil(shards.into());
    let failures = Duration::from_secs(limits.failed_logins_window_s.into());
    Limits {
        login_timeout: Duration::from_secs(limits.login_timeout_s.into()),
        silence: Duration::from_secs(limits.silence_s.into()),
        login_attempts: u8::try_from(limits.login_attempts).unwrap_or(u8::MAX),
        failed_logins_account: Rate::over(limits.failed_logins_per_account, failures),
        failed_logins_network: Rate::over(limits.failed_logins_per_network, failures),
        failed_logins_tracked: part(limits.failed_logins_tracked) as usize,
        token_holders: limits.token_holders_per_account as usize,
        token_life: Duration::from_secs(u64::from(limits.token_days) * 86_400),
        output_bytes: limits.output_bytes as usize,
        resources_per_account: limits.resources_per_account as usize,
        roster_items: limits.roster_items as usize,
        block_list_items: limits.block_list_items as usize,
        subscription_requests: limits.subscription_requests as usize,
        archive_page: limits.archive_page,
        archive_count: limits.archive_count,
        archive_preferences: limits.archive_preferences as usize,
        held_stanzas: limits.held_stanzas as usize,
        held_bytes: limits.held_bytes as usize,
        quarantine: Duration::from_secs(config.registration.quarantine_s.into()),
        quarantine_strangers: config.registration.quarantine_strangers_per_h as usize,
        probe_reads: limits.probe_reads as usize,
        roster_groups: limits.roster_groups_per_item as usize,
        vcard_bytes: limits.vcard_bytes as usize,
        private_bytes: limits.private_bytes as usize,
        private_items: limits.private_items as usize,
        roster_name_bytes: limits.roster_name_bytes as usize,
        directed_presence: limits.directed_presence as usize,
        offline_messages: limits.offline_messages,
        resume: Duration::from_secs(limits.resume_s.into()),
        resume_queue: limits.resume_queue as usize,
        copies: part(limits.copies) as usize,
        copy_bytes: part(limits.copy_bytes) as usize,
        sessions_remembered: part(limits.sessions_remembered) as usize,
        component_connections: limits.component_connections as usize,
        component_open_iqs: limits.component_open_iqs as usize,
        pending_stanzas: limits.pending_stanzas_per_account as usize,
        accounts: part(limits.accounts_cached) as usize,
        open_iqs: limits.open_iqs as usize,
        rates: rates(config, shards),
    }
}

/// Rates of one shard: an account's in whole, as all its sessions are there; of a network's, the shard's part.
fn rates(config: &Config, shards: u16) -> Rates {
    let limits = &config.limits;
    let ahead = Duration::from_secs(limits.burst_s.into());
    let rate = |per_s| Rate::new(per_s, ahead);
    let part = |whole: u32| whole.div_ceil(shards.into());
    // Who is alone in a network, and so on one shard, has no less than an account may have.
    let above = |whole: u32, account: u32| match account {
        0 => rate(whole),
        account => rate(part(whole).max(account.min(whole))),
    };
    Rates {
        session: TrafficRate {
            stanzas: rate(limits.session_stanzas_per_s),
            bytes: rate(limits.session_bytes_per_s),
        },
        account: TrafficRate {
            stanzas: rate(limits.account_stanzas_per_s),
            bytes: rate(limits.account_bytes_per_s),
        },
        network: TrafficRate {
            stanzas: above(limits.network_stanzas_per_s, limits.account_stanzas_per_s),
            bytes: above(limits.network_bytes_per_s, limits.account_bytes_per_s),
        },
        connections: rate(part(limits.network_connections_per_s)),
        login: Rate::new(limits.login_elements_per_s, LOGIN_AHEAD),
        sessions: rate(limits.account_sessions_per_s),
        exempt: limits.exempt.clone(),
        networks: part(limits.networks) as usize,
    }
}

/// Answers the control socket. Called from its threads.
struct Desk {
    /// Held while the configuration is read again: one after the other.
    reloading: Mutex<reload::Reloading>,
    config: Mutex<Config>,
    mailboxes: Vec<Mailbox>,
    data_dir: PathBuf,
    store: StoreHandle,
    latency: Latency,
    reader: Mutex<Box<dyn Reader>>,
    /// The view of a node without a cluster.
    alone: Arc<View>,
    node: NodeId,
    /// There in a cluster.
    part: Option<cluster::Part>,
    /// There where the node talks with other servers.
    federation: Option<federation::Part>,
    listeners: Vec<Listener>,
    incarnation: u64,
    began: Instant,
    shards: u16,
    /// As granted by the system.
    connections_max: AtomicU64,
    /// Of the running TLS server, which a reload may renew.
    certificates: Mutex<Vec<CertificateFigures>>,
    clock: Clock,
    registrations: Mutex<Registrations>,
    events: Sender<Event>,
    traces: trace::Traces,
    /// An administrator has ended the node, which may have a delay.
    stopping: AtomicBool,
}

impl Runner for Desk {
    fn run(&self, errand: Errand, answer: &mut dyn FnMut(Outcome)) {
        let config = self.config();
        office::run(&mut Clerk { desk: self, config: &config }, errand, answer);
    }
}

impl ControlHandler for Desk {
    fn handle(&self, request: ControlRequest, tell: &mut Tell<'_>) -> ControlResponse {
        let config = self.config();
        match request {
            ControlRequest::Account(request) => {
                let mut clerk = Clerk { desk: self, config: &config };
                accounts::perform(&mut clerk, request)
            }
            ControlRequest::Reload => match self.reload() {
                Ok(reloaded) => ControlResponse::Reloaded(reloaded),
                Err(faults) => ControlResponse::error(faults),
            },
            ControlRequest::Status => ControlResponse::Status(Box::new(self.status(&config))),
            ControlRequest::Latency => ControlResponse::Latency(Box::new(self.latency.report())),
            ControlRequest::LatencyLog => match self.latency.log_text() {
                Ok(text) => ControlResponse::LatencyLog { text },
                Err(error) => ControlResponse::error(error),
            },
            ControlRequest::Whereis { jid } => match self.whereis(&jid, &config) {
                Ok(place) => ControlResponse::Place(place),
                Err(message) => ControlResponse::error(message),
            },
            ControlRequest::ShardMap => ControlResponse::ShardMap(self.shard_map()),
            ControlRequest::Cluster => match self.cluster_status() {
                Some(status) => ControlResponse::Cluster(Box::new(status)),
                None => ControlResponse::error(ALONE),
            },
            ControlRequest::Drain => match self.drain() {
                Ok(()) => ControlResponse::Draining,
                Err(why) => ControlResponse::error(why),
            },
            ControlRequest::Weigh { weight } => match &self.part {
                Some(part) => {
                    part.weigh(weight);
                    ControlResponse::Weighed
                }
                None => ControlResponse::error(ALONE),
            },
            ControlRequest::Sessions { jid, after } => {
                let page = self.session_page(jid.as_deref(), after);
                page.unwrap_or_else(ControlResponse::error)
            }
            ControlRequest::Kick { jid } => self.kick(&jid).unwrap_or_else(ControlResponse::error),
            ControlRequest::Federation(request) => {
                let answer = self.federation(request, &config, tell);
                answer.unwrap_or_else(ControlResponse::error)
            }
            ControlRequest::Trace(request) => {
                trace::run(self, &config, &request, tell).unwrap_or_else(ControlResponse::error)
            }
        }
    }
}

impl Desk {
    fn config(&self) -> Config {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn owner(&self, jid: &BareJid) -> u16 {
        let owner = self.view().placement.owner(jid.hash64());
        // A shard of ours sends on what another node's must know.
        if owner.node == self.node { owner.shard.0 } else { 0 }
    }

    /// Who owns what, as far as it is known here.
    fn view(&self) -> Arc<View> {
        self.part.as_ref().map_or_else(|| self.alone.clone(), cluster::Part::view)
    }

    fn lacks_lease(&self) -> bool {
        let part = self.part.as_ref();
        part.is_some_and(|part| !part.membership.has_lease(self.clock.mono()))
    }

    fn cluster_figures(&self) -> Option<ClusterFigures> {
        Some(self.part.as_ref()?.figures(self.clock))
    }

    fn cluster_status(&self) -> Option<ClusterStatus> {
        let part = self.part.as_ref()?;
        Some(part.status(self.node, &self.config().node_name(), self.clock))
    }

    /// Lets the node's clients go, unless it does so already.
    ///
    /// - errors: why not
    fn drain(&self) -> Result<(), &'static str> {
        let part = self.part.as_ref().ok_or(ALONE)?;
        if part.progress().is_some_and(|progress| !progress.is_done()) {
            return Ok(());
        }
        if drain::weight_of_others(&part.view(), self.node) == 0 {
            return Err(NO_HEIR);
        }
        let longest = Duration::from_secs(self.config().cluster.drain_s.into());
        part.drain(self.drain_span(longest));
        Ok(())
    }

    /// How long clients are given to go: those whose accounts are here, and those who are here with accounts of others.
    fn drain_span(&self, longest: Duration) -> Duration {
        let figures = watch::collect(&self.mailboxes, STATUS_PATIENCE);
        let clients = figures.iter().map(|shard| shard.sessions + shard.fronts).sum();
        crate::cluster::drain::span(clients, self.config().cluster.drain_per_s, longest)
    }

    /// The node has let its clients go, or does so: it wants no others.
    fn is_drained(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.progress().is_some())
    }

    fn shutdown_patience(&self) -> Duration {
        Duration::from_secs(self.config().limits.shutdown_s.into())
    }

    fn shard_map(&self) -> ShardMap {
        ShardMap::of(&self.view())
    }

    fn status(&self, config: &Config) -> Status {
        let mut shards = self.figures();
        shards.sort_by_key(|one| one.shard);
        let talkers = watch::ask_all(&self.mailboxes, STATUS_PATIENCE, Letter::Talkers);
        Status {
            node: config.node_name(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            incarnation: self.incarnation,
            uptime_s: self.began.elapsed().as_secs(),
            domains: config.domains.clone(),
            listeners: self.listeners.clone(),
            shards,
            ack: match config.storage.ack {
                config::AckLevel::Stored => "stored",
                config::AckLevel::Received => "received",
            }
            .to_owned(),
            store: config.store_place().to_string(),
            data_dir: config.node.data_dir.display().to_string(),
            talkers: status_talkers(overview::loudest(&talkers)),
        }
    }

    fn status_json(&self) -> serde_json::Result<String> {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
        serde_json::to_string(&self.status(&config))
    }

    fn certificates(&self) -> Vec<CertificateFigures> {
        self.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the overview says of the node, but for its health.
    fn facts(&self) -> NodeFacts {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        NodeFacts {
            node: config.node_name(),
            pid: std::process::id(),
            incarnation: self.incarnation,
            domains: config.domains.clone(),
            log_level: config.log.level.as_str().to_owned(),
            not_ready: None,
            now_ms: self.clock.now().wall.0 / 1_000,
        }
    }

    fn connections_max(&self) -> u64 {
        self.connections_max.load(Ordering::Relaxed)
    }

    /// Of the shards that answer in time. Each has then read all letters that were sent to it before.
    fn figures(&self) -> Vec<ShardStatus> {
        let told = watch::collect(&self.mailboxes, STATUS_PATIENCE);
        self.latency.with(|board| {
            let status = |one: ShardFigures| {
                let core = board.core(one.shard);
                ShardStatus {
                    shard: one.shard,
                    connections: one.connections,
                    sessions: one.sessions,
                    accounts: one.accounts,
                    components: one.components,
                    stalls: core.stalls,
                    last_stall: core.last_stall,
                    late: core.late,
                }
            };
            told.into_iter().map(status).collect()
        })
    }
}

fn status_talkers(top: TopTalkers) -> StatusTalkers {
    let told = |talkers: Vec<Talker>| {
        let told = |one: Talker| StatusTalker { jid: one.jid.to_string(), per_s: one.per_s };
        talkers.into_iter().map(told).collect()
    };
    StatusTalkers { by_stanzas: told(top.by_stanzas), by_bytes: told(top.by_bytes) }
}

/// One request's work on the accounts.
struct Clerk<'a> {
    desk: &'a Desk,
    config: &'a Config,
}

impl Accounts for Clerk<'_> {
    fn domains(&self) -> &[String] {
        &self.config.domains
    }

    fn scram_iterations(&self) -> u32 {
        self.config.auth.scram_iterations
    }

    fn write(&mut self, batch: Vec<Write>) -> Result<Vec<Written>, crate::store::Error> {
        self.desk.store.write(batch).map_err(crate::store::Error::Backend)
    }

    fn read(&mut self, query: Query) -> Result<Answer, crate::store::Error> {
        self.desk.reader.lock().unwrap_or_else(PoisonError::into_inner).read(&query)
    }

    fn tell(&mut self, news: Vec<News>) {
        for news in news {
            let (owner, letter) = match news {
                News::Changed(owner) => (self.desk.owner(&owner), Letter::AccountChanged(owner)),
                News::IdsGiven { owner, partition, next } => {
                    (self.desk.owner(&owner), Letter::IdsGiven(partition, next))
                }
                News::Deleted { owner, contacts } => {
                    (self.desk.owner(&owner), Letter::AccountDeleted(owner, contacts))
                }
            };
            if let Some(mailbox) = self.desk.mailboxes.get(usize::from(owner)) {
                mailbox.send(letter);
            }
        }
        // A client that acts on the answer of the command must not find the account as it was before.
        self.desk.figures();
    }
}

impl Office for Clerk<'_> {
    fn admit(&mut self, peer: IpAddr) -> bool {
        if self.config.limits.exempt.iter().any(|network| network.contains(peer)) {
            return true;
        }
        let registrations = self.desk.registrations.lock();
        let now = self.desk.clock.now().mono;
        let rules = &self.config.registration;
        let shares = Shares { per_subnet: rules.per_network_per_h, in_all: rules.per_node_per_h };
        registrations.unwrap_or_else(PoisonError::into_inner).admit(peer, shares, now)
    }

    fn resources(&mut self, of: &BareJid) -> Result<Vec<String>, String> {
        self.resources_everywhere(of)
    }

    fn users(&mut self, domain: &str, which: Which, limit: usize) -> Found {
        self.users_everywhere(domain, which, limit)
    }

    fn end_sessions(&mut self, jid: &Jid) -> Result<u64, String> {
        self.end_sessions_everywhere(jid)
    }

    fn announce(&mut self, announcement: &Announcement) -> Vec<String> {
        self.announce_everywhere(announcement)
    }

    fn stop(&mut self, delay: Duration) -> bool {
        if self.desk.stopping.swap(true, Ordering::AcqRel) {
            return false;
        }
        let events = self.desk.events.clone();
        let started = std::thread::Builder::new().name("stop".into()).spawn(move || {
            std::thread::sleep(delay);
            let _ = events.send(Event::Stop);
        });
        match started {
            Ok(_) => tracing::info!(delay_s = delay.as_secs(), "an administrator stops the node"),
            Err(_) => self.desk.stopping.store(false, Ordering::Release),
        }
        self.desk.stopping.load(Ordering::Acquire)
    }
}
