//! The node: wires cores, store, listeners and the control socket from a checked configuration; starts them in order
//! and ends them in the reverse.

mod certificates;
mod log;
mod reload;

use crate::base::limit::Rate;
use crate::base::rng::Rng;
use crate::cluster::placement::Placement;
use crate::config::{self, Config, ConfigError, Origin, TlsPolicy};
use crate::features;
use crate::runtime::clock::Clock;
use crate::runtime::control::accounts::{self, Accounts};
use crate::runtime::control::{
    ControlHandler, ControlRequest, ControlResponse, Listener, ShardStatus, Status, server,
};
use crate::runtime::data_dir::DataDir;
use crate::runtime::executor::{self, CoreSettings, Cores, MakeFeatures};
use crate::runtime::listener::{self, Listening, Transport};
use crate::runtime::mailbox::{Letter, Mailbox};
use crate::runtime::passwords::Passwords;
use crate::runtime::preflight::{self, Granted};
use crate::runtime::signal::{self, Signal};
use crate::runtime::storage::{Storage, StoreHandle};
use crate::runtime::tls::{self, TlsServer};
use crate::shard::{AckLevel, Limits, Rates, ShardConfig, TrafficRate};
use crate::store::sqlite::{self, SqliteReader};
use crate::store::{Answer, Query, Reader, Write, Written};
use crate::stream::c2s::C2sPolicy;
use crate::xmpp::jid::BareJid;
use crate::xmpp::xml::framer::XmlLimits;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Threads that read the store.
const READERS: usize = 2;
/// How long a shard may take to tell its figures.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);
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
    let granted = preflight::check(shards, config.limits.connections as usize)?;
    let (events, waiting) = channel();
    let signals = events.clone();
    signal::listen(move |signal| {
        let _ = signals.send(Event::Signal(signal));
    })
    .map_err(|error| told("signals cannot be received", &error))?;

    let opened = sqlite::open(&config.store_path())?;
    let incarnation = opened.incarnation;
    let mut readers: Vec<Box<dyn Reader>> = Vec::new();
    for _ in 0..READERS {
        readers.push(Box::new(SqliteReader::open(&opened.path)?));
    }
    let mut own_reader = SqliteReader::open(&opened.path)?;
    let tls = certificates::tls_server(&config, data_dir.path())?;
    let decoy_secret = decoy_secret(data_dir.path())?;
    let listening = listen(&config, shards)?;
    let addresses = listeners(&listening);

    let (mailboxes, letters): (Vec<_>, Vec<_>) = (0..shards).map(|_| Mailbox::new()).unzip();
    let storage = Storage::start(Box::new(opened.writer), readers, &mailboxes)
        .map_err(|error| told("a storage thread cannot be started", &error))?;
    let password_queue = config.limits.password_checks_queue as usize;
    let passwords = Passwords::start(usize::from(shards).div_ceil(2), password_queue, &mailboxes)
        .map_err(|error| told("a password thread cannot be started", &error))?;
    let itself = Itself { shards, incarnation, decoy_secret };
    let policy = policy(&config, offers_sha512(&config, &mut own_reader)?);
    let setup = executor::Setup {
        shards,
        config: Arc::new(itself.shard_config(&config, policy)),
        placement: Arc::new(Placement::single(shards)),
        features: make_features(&config),
        settings: core_settings(&config, granted, tls.clone()),
        passwords: passwords.clone(),
        clock: Clock::start(),
    };
    let sockets = listening.into_iter().map(|one| (one.transport, one.sockets)).collect();
    let core_ended = move |shard| {
        let _ = events.send(Event::CoreEnded(shard));
    };
    let cores = executor::start(setup, sockets, &mailboxes, letters, &storage, core_ended)?;

    let desk = Desk {
        reloading: Mutex::new(reload::Reloading { origin, log, tls, passwords, itself }),
        config: Mutex::new(config.clone()),
        mailboxes: mailboxes.clone(),
        data_dir: data_dir.path().to_owned(),
        store: storage.handle(),
        reader: Mutex::new(own_reader),
        placement: Placement::single(shards),
        listeners: addresses.clone(),
        incarnation,
        began,
        shards,
    };
    let desk = Arc::new(desk);
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
    let result = wait(&waiting, &desk, cores);
    drop(control);
    storage.stop();
    tracing::info!("stopped");
    drop(data_dir);
    result
}

/// Waits for the end: wanted by a signal, or forced by a core that failed.
fn wait(events: &Receiver<Event>, desk: &Desk, cores: Cores) -> Result<(), Error> {
    loop {
        match events.recv() {
            Ok(Event::Signal(Signal::Hangup)) => {
                // What came of it is in the log.
                let _ = desk.reload();
            }
            Ok(Event::Signal(Signal::Stop)) => break,
            Ok(Event::CoreEnded(shard)) => {
                return Err(Error::Other(format!(
                    "the core of shard {shard} has ended; see the log"
                )));
            }
            Err(_) => break,
        }
    }
    tracing::info!("stopping");
    for mailbox in &desk.mailboxes {
        mailbox.send(Letter::Shutdown);
    }
    cores.join();
    Ok(())
}

fn told(what: &str, why: &dyn Display) -> Error {
    Error::Other(format!("{what}: {why}"))
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
    let mut listening = Vec::new();
    for (key, transport, address) in plain.chain(direct) {
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
fn offers_sha512(config: &Config, reader: &mut SqliteReader) -> Result<bool, Error> {
    Ok(match config.auth.scram_sha512 {
        config::Sha512::On => true,
        config::Sha512::Off => false,
        config::Sha512::Auto => {
            let lacks = matches!(reader.read(&Query::LacksSha512)?, Answer::LacksSha512(true));
            if lacks {
                tracing::info!(
                    "SCRAM-SHA-512 is not offered: passwords from before version 0.2 have no keys for it"
                );
            }
            !lacks
        }
    })
}

/// What a node has of itself, beside its configuration.
#[derive(Clone, Copy)]
struct Itself {
    shards: u16,
    incarnation: u64,
    decoy_secret: [u8; 32],
}

impl Itself {
    fn shard_config(&self, config: &Config, policy: C2sPolicy) -> ShardConfig {
        shard_config(config, policy, self.shards, self.incarnation, self.decoy_secret)
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
        access: config.access.banned.iter().cloned().collect(),
        scram_iterations: config.auth.scram_iterations,
        decoy_secret,
        incarnation,
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
    }
}

/// - takes: `scram_sha512`, whether every account has keys for it
pub fn policy(config: &Config, scram_sha512: bool) -> C2sPolicy {
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
        scram_sha512,
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
    Limits {
        login_timeout: Duration::from_secs(limits.login_timeout_s.into()),
        silence: Duration::from_secs(limits.silence_s.into()),
        login_attempts: u8::try_from(limits.login_attempts).unwrap_or(u8::MAX),
        output_bytes: limits.output_bytes as usize,
        resources_per_account: limits.resources_per_account as usize,
        roster_items: limits.roster_items as usize,
        block_list_items: limits.block_list_items as usize,
        subscription_requests: limits.subscription_requests as usize,
        held_stanzas: limits.held_stanzas as usize,
        held_bytes: limits.held_bytes as usize,
        roster_groups: limits.roster_groups_per_item as usize,
        vcard_bytes: limits.vcard_bytes as usize,
        private_bytes: limits.private_bytes as usize,
        private_items: limits.private_items as usize,
        roster_name_bytes: limits.roster_name_bytes as usize,
        directed_presence: limits.directed_presence as usize,
        offline_messages: limits.offline_messages,
        resume: Duration::from_secs(limits.resume_s.into()),
        resume_queue: limits.resume_queue as usize,
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
    reader: Mutex<SqliteReader>,
    placement: Placement,
    listeners: Vec<Listener>,
    incarnation: u64,
    began: Instant,
    shards: u16,
}

impl ControlHandler for Desk {
    fn handle(&self, request: ControlRequest) -> ControlResponse {
        let config = self.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
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
            ControlRequest::Whereis { jid } => {
                match accounts::place(&jid, &config.node_name(), self.shards) {
                    Ok(place) => ControlResponse::Place(place),
                    Err(message) => ControlResponse::error(message),
                }
            }
        }
    }
}

impl Desk {
    fn status(&self, config: &Config) -> Status {
        let mut shards = self.figures();
        shards.sort_by_key(|one| one.shard);
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
            store: config.store_path().display().to_string(),
            data_dir: config.node.data_dir.display().to_string(),
        }
    }

    /// Of the shards that answer in time. Each has then read all letters that were sent to it before.
    fn figures(&self) -> Vec<ShardStatus> {
        let (answers, figures) = channel();
        for mailbox in &self.mailboxes {
            mailbox.send(Letter::Status(answers.clone()));
        }
        drop(answers);
        let until = Instant::now() + STATUS_PATIENCE;
        let mut shards = Vec::new();
        while let Ok(one) = figures.recv_timeout(until.saturating_duration_since(Instant::now())) {
            shards.push(ShardStatus {
                shard: one.shard,
                connections: one.connections,
                sessions: one.sessions,
                accounts: one.accounts,
            });
        }
        shards
    }

    fn tell_owner(&self, owner: &BareJid) {
        let shard = self.placement.owner(owner.hash64()).shard;
        if let Some(mailbox) = self.mailboxes.get(usize::from(shard.0)) {
            mailbox.send(Letter::AccountChanged(owner.clone()));
        }
    }
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
        let owners: Vec<BareJid> =
            batch.iter().filter_map(|write| write.owner().cloned()).collect();
        let written = self.desk.store.write(batch).map_err(crate::store::Error::Backend)?;
        for owner in owners {
            self.desk.tell_owner(&owner);
        }
        // A client that acts on the answer of the command must not find the account as it was before.
        self.desk.figures();
        Ok(written)
    }

    fn read(&mut self, query: Query) -> Result<Answer, crate::store::Error> {
        self.desk.reader.lock().unwrap_or_else(PoisonError::into_inner).read(&query)
    }
}
