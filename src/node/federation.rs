//! The node's federation cores: put together from the configuration, told when it is read again, and asked by operators.

use super::{DEPTH_BEFORE_LOGIN, Desk, Error, PATIENCE, told};
use crate::admin::figures::FederationFigures;
use crate::admin::health::STALL_MS;
use crate::base::hash::{Map, hash64};
use crate::base::limit::Rate;
use crate::cluster::placement::{NodeId, federation_core};
use crate::config::{self, Config, MinTls, PeerPolicy};
use crate::federation::control::{Answered, LIST_MAX, Listed, Request};
use crate::federation::{FederationConfig, Limits, Policy, TlsVersion};
use crate::runtime::cluster::lease::Membership;
use crate::runtime::control::federation::{
    CheckStep, DOMAINS_MAX, FederationAnswer, FederationRequest, RemoteDomain, RemoteFailure,
};
use crate::runtime::control::{ControlResponse, Listener, Tell};
use crate::runtime::executor::{self, Beats, Done};
use crate::runtime::federation::certificates::Trust;
use crate::runtime::federation::dns::{Dns, DnsSettings, Dnssec};
use crate::runtime::federation::posh::PoshSettings;
use crate::runtime::federation::tls::FederationTls;
use crate::runtime::federation::{
    self, FederationCores, FederationLetter, FederationNews, FederationSettings, FederationSetup,
    FederationWays,
};
use crate::runtime::listener::{self, Listening, Transport};
use crate::runtime::mailbox::Mailbox;
use crate::runtime::mesh::Ends;
use crate::runtime::preflight;
use crate::runtime::storage::Storage;
use crate::runtime::tls::{self, TlsServer};
use crate::stream::dialback::DialbackSecret;
use crate::xmpp::datetime;
use crate::xmpp::jid::BareJid;
use crate::xmpp::xml::framer::XmlLimits;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Domains that operators have blocked with the command line, one a line; in the data directory.
const BLOCKED: &str = "federation-blocked";
/// So many of them at most: each look at a domain is a look at all.
const BLOCKED_MAX: usize = 10_000;
/// How often whoever waits for a check hears that it goes on.
const CHECK_STEP: Duration = Duration::from_secs(2);
/// How long a check may take: as long as an attempt with all its targets.
const CHECK_PATIENCE: Duration = Duration::from_secs(300);
/// To whoever asks a node that talks with no other server.
const OFF: &str =
    "the node talks with no other server; see federation.enabled in its configuration";

/// How many federation cores the node has.
pub(super) fn cores(config: &Config) -> u16 {
    if config.federation.enabled { config.federation.executors } else { 0 }
}

/// What the system must grant for the node.
pub(super) fn needed(config: &Config, shards: u16) -> preflight::Cores {
    let limits = &config.federation.limits;
    let peers = limits.connections.saturating_add(limits.domains);
    let federation = cores(config);
    preflight::Cores { shards, federation, peers: if federation > 0 { peers as usize } else { 0 } }
}

/// What there is of federation before its cores run.
pub(super) struct Prepared {
    listening: Vec<(bool, Listening)>,
    mailboxes: Vec<Mailbox<FederationLetter>>,
    letters: Vec<Receiver<FederationLetter>>,
    part: Part,
}

/// The running node's end of it. Shared by those who answer operators.
#[derive(Clone)]
pub(super) struct Part {
    mailboxes: Vec<Mailbox<FederationLetter>>,
    pub(super) beats: Beats,
    itself: Itself,
    dns: Dns,
    blocked: Arc<Blocked>,
    /// As each core last told them.
    last: Arc<Mutex<Vec<FederationFigures>>>,
}

/// What does not change while the node runs.
#[derive(Clone)]
struct Itself {
    shards: u16,
    /// In a cluster, with its name.
    node: Option<(NodeId, String)>,
    incarnation: u64,
    dialback_secret: DialbackSecret,
}

/// - takes: `joins`, in a cluster this node and what its dialback keys are made of
/// - errors: an address cannot be bound, the DNS not be asked, or a file not be read
pub(super) fn prepare(
    config: &Config,
    data_dir: &Path,
    shards: u16,
    (incarnation, joins): (u64, Option<(NodeId, [u8; 32])>),
    clock: crate::runtime::clock::Clock,
) -> Result<Option<Prepared>, Error> {
    let cores = cores(config);
    if cores == 0 {
        return Ok(None);
    }
    let section = &config.federation;
    let plain = section.listen.iter().map(|address| ("federation.listen", false, *address));
    let direct = section.direct_tls_listen.iter();
    let direct = direct.map(|address| ("federation.direct_tls_listen", true, *address));
    let mut listening = Vec::new();
    for (key, direct_tls, address) in plain.chain(direct) {
        let transport = if direct_tls { Transport::DirectTls } else { Transport::Plain };
        listening.push((direct_tls, listener::listen(key, transport, address, cores)?));
    }
    let (mailboxes, letters): (Vec<_>, Vec<_>) = (0..cores).map(|_| Mailbox::new()).unzip();
    let cpus = federation::cpus(shards, cores);
    let dns = Dns::start(DnsSettings { cpus, ..dns_settings(section)? });
    let dns = dns.map_err(|error| told("federation", &error))?;
    let dialback_secret = match &joins {
        Some((_, secret)) => DialbackSecret::new(secret),
        None => DialbackSecret::new(&executor::seed()),
    };
    let node = joins.map(|(node, _)| (node, config.node_name()));
    let figures = (0..cores).map(|core| FederationFigures { core, ..FederationFigures::default() });
    let part = Part {
        mailboxes: mailboxes.clone(),
        beats: Beats::new(cores, clock),
        itself: Itself { shards, node, incarnation, dialback_secret },
        dns,
        blocked: Arc::new(Blocked::open(data_dir.join(BLOCKED))?),
        last: Arc::new(Mutex::new(figures.collect())),
    };
    Ok(Some(Prepared { listening, mailboxes, letters, part }))
}

impl Prepared {
    pub(super) fn listeners(&self) -> impl Iterator<Item = Listener> + '_ {
        self.listening
            .iter()
            .map(|(_, one)| Listener { address: one.address.to_string(), key: one.key.to_owned() })
    }

    pub(super) fn part(&self) -> &Part {
        &self.part
    }

    /// Starts the cores, which accept connections from then on.
    pub(super) fn start(
        self,
        config: &Config,
        tls: &TlsServer,
        (rings, done): (Vec<Ends>, Done),
        (storage, clock): (&Storage, crate::runtime::clock::Clock),
        membership: Option<Membership>,
        ended: impl Fn(u16) + Send + Clone + 'static,
    ) -> Result<FederationCores, Error> {
        let Prepared { listening, mailboxes, letters, part } = self;
        let setup = FederationSetup {
            shards: part.itself.shards,
            configs: part.configs(config),
            settings: settings(config, tls)?,
            dns: part.dns.clone(),
            clock,
            beats: part.beats.clone(),
            measures: config.latency.enabled,
            membership,
        };
        let listeners =
            listening.into_iter().map(|(direct_tls, one)| (direct_tls, one.sockets)).collect();
        let ways = FederationWays { mailboxes, letters, rings, done };
        federation::start(setup, listeners, ways, storage, ended)
            .map_err(|error| Error::Other(error.to_string()))
    }
}

/// - errors: the authorities cannot be read
fn dns_settings(section: &config::Federation) -> Result<DnsSettings, Error> {
    let posh = match section.posh {
        true => Some(PoshSettings {
            trust: trust(section)?,
            routes: section.posh_routes.clone().into_iter().collect(),
        }),
        false => None,
    };
    Ok(DnsSettings {
        servers: section.dns.clone(),
        routes: Arc::new(section.routes()),
        local_addresses: section.takes_local_addresses(),
        dnssec: match &section.dnssec {
            config::Dnssec::Off => None,
            config::Dnssec::Root => Some(Dnssec::Root),
            config::Dnssec::File(path) => Some(Dnssec::File(path.clone())),
        },
        posh,
        cpus: Vec::new(),
    })
}

fn trust(section: &config::Federation) -> Result<Trust, Error> {
    Trust::load(section.ca_file.as_deref()).map_err(|error| told("federation.ca_file", &error))
}

/// - errors: the authorities cannot be read
fn settings(config: &Config, tls: &TlsServer) -> Result<FederationSettings, Error> {
    let trust = trust(&config.federation)?;
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    Ok(FederationSettings {
        tls: FederationTls::new(tls.certificates().clone(), trust),
        connect_timeout: seconds(config.federation.limits.connect_s),
        shutdown_timeout: seconds(config.limits.shutdown_s),
    })
}

// ---- the configuration of the actors

/// What each federation core is told of the configuration.
fn actor_config(
    config: &Config,
    itself: &Itself,
    blocked: &BTreeSet<String>,
    index: u16,
    cores: u16,
) -> FederationConfig {
    let section = &config.federation;
    let names = |list: &[String]| list.iter().map(|name| name.as_str().into()).collect();
    let policies = section.domains.iter();
    let policies = policies.map(|(domain, own)| (domain.as_str().into(), policy(own)));
    FederationConfig {
        domains: names(&config.domains),
        components: config.components.secrets.iter().map(|one| one.domain.clone()).collect(),
        shards: itself.shards,
        index,
        cores,
        node: itself.node.as_ref().map(|(node, _)| *node),
        incarnation: itself.incarnation,
        stored: config.storage.ack == config::AckLevel::Stored,
        management: section.stream_management,
        bidi: section.bidirectional,
        policy: policy(&section.policy),
        policies: policies.collect::<Map<_, _>>(),
        allow: names(&section.allow),
        block: section.block.iter().chain(blocked).map(|name| name.as_str().into()).collect(),
        dialback_secret: itself.dialback_secret.clone(),
        posh: section.posh,
        patience: Duration::from_secs(section.patience_s.into()),
        limits: limits(config, cores),
    }
}

fn policy(policy: &PeerPolicy) -> Policy {
    Policy {
        require_certificate: policy.require_certificate,
        dialback: policy.dialback,
        oldest_tls: match policy.min_tls {
            MinTls::Tls12 => TlsVersion::Tls12,
            MinTls::Tls13 => TlsVersion::Tls13,
        },
    }
}

/// The bounds of one of `cores`: of what the whole node may have, its part.
fn limits(config: &Config, cores: u16) -> Limits {
    let (common, limits) = (&config.limits, &config.federation.limits);
    let part = |whole: u32| whole.div_ceil(cores.max(1).into()) as usize;
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let ahead = seconds(common.burst_s);
    let small = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
    let xml = XmlLimits {
        stanza_bytes_max: limits.stanza_bytes,
        depth_max: small(common.depth),
        attributes_max: small(common.attributes),
        name_bytes_max: small(common.name_bytes),
        header_bytes_max: common.stream_header_bytes,
    };
    Limits {
        domains: part(limits.domains),
        queue_stanzas: limits.queue_stanzas as usize,
        queue_bytes: limits.queue_bytes as usize,
        queues_bytes: part(limits.queues_bytes),
        dials: part(limits.dials),
        incoming: part(limits.connections),
        incoming_per_network: part(limits.connections_per_network),
        strangers_per_network: part(limits.strangers_per_network),
        pairs_per_stream: limits.pairs_per_stream as usize,
        pending_pairs_per_stream: limits.pending_pairs_per_stream as usize,
        pending_pairs: part(limits.pending_pairs),
        xml_before: XmlLimits {
            stanza_bytes_max: common.stanza_bytes_before_login,
            depth_max: DEPTH_BEFORE_LOGIN,
            ..xml.clone()
        },
        xml,
        stanzas: Rate::new(limits.stanzas_per_s, ahead),
        bytes: Rate::new(limits.bytes_per_s, ahead),
        output_soft: limits.output_soft_bytes as usize,
        output_hard: limits.output_bytes as usize,
        unconfirmed: limits.unconfirmed as usize,
        unhandled: limits.unhandled as usize,
        negotiation: seconds(limits.negotiation_s),
        confirmation: seconds(limits.confirmation_s),
        idle: seconds(limits.idle_s),
        silence: seconds(limits.silence_s),
        retry_first: seconds(limits.retry_first_s),
        retry_last: seconds(limits.retry_last_s),
        breaker: limits.breaker,
        wait: seconds(limits.wait_s),
        resume: seconds(limits.resume_s),
        ..Limits::default()
    }
}

// ---- while it runs

impl Part {
    pub(super) fn mailboxes(&self) -> &[Mailbox<FederationLetter>] {
        &self.mailboxes
    }

    /// For each core.
    fn configs(&self, config: &Config) -> Vec<Arc<FederationConfig>> {
        let cores = u16::try_from(self.mailboxes.len()).unwrap_or(u16::MAX);
        let blocked = self.blocked.all();
        let of = |index| Arc::new(actor_config(config, &self.itself, &blocked, index, cores));
        (0..cores).map(of).collect()
    }

    /// What a reload would do, checked.
    ///
    /// - errors: a file that is named cannot be read
    pub(super) fn check(&self, config: &Config, tls: &TlsServer) -> Result<Reload, Error> {
        let settings = settings(config, tls)?;
        Ok(Reload { settings, dns: dns_settings(&config.federation)? })
    }

    /// All that follows goes by this configuration.
    pub(super) fn reload(&self, config: &Config, reload: Reload) {
        if let Err(error) = self.dns.reconfigure(reload.dns) {
            tracing::error!(%error, "the DNS is asked as before");
        }
        self.reconfigure(config, Some(&reload.settings));
    }

    fn reconfigure(&self, config: &Config, settings: Option<&FederationSettings>) {
        for (mailbox, actor) in self.mailboxes.iter().zip(self.configs(config)) {
            let news = FederationNews { actor, settings: settings.cloned() };
            mailbox.send(FederationLetter::Reconfigured(Box::new(news)));
        }
    }

    pub(super) fn stop(&self) {
        for mailbox in &self.mailboxes {
            mailbox.send(FederationLetter::Shutdown);
        }
    }

    /// Of each core; of one that does not answer in time as it last told them. A core that hangs is not written to: its
    /// letters would pile up.
    pub(super) fn figures(&self, patience: Duration) -> Vec<FederationFigures> {
        let (answers, answered) = channel();
        for (mailbox, silence) in self.mailboxes.iter().zip(self.beats.silence_ms()) {
            if silence <= STALL_MS {
                mailbox.send(FederationLetter::Status(answers.clone()));
            }
        }
        drop(answers);
        let until = Instant::now() + patience;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(one) = answered.recv_timeout(until.saturating_duration_since(Instant::now())) {
            let place = usize::from(one.core);
            if let Some(known) = last.get_mut(place) {
                *known = one;
            }
        }
        last.clone()
    }

    /// Has all cores answer.
    ///
    /// - errors: one does not in time
    fn ask_all(&self, request: &Request) -> Result<Vec<Answered>, String> {
        let (answers, answered) = channel();
        for mailbox in &self.mailboxes {
            mailbox.send(FederationLetter::Asked(request.clone(), answers.clone()));
        }
        drop(answers);
        let until = Instant::now() + PATIENCE;
        let next = |_| {
            let left = until.saturating_duration_since(Instant::now());
            match answered.recv_timeout(left) {
                Ok(Answered::Refused(why)) => Err(why.into_string()),
                Ok(answer) => Ok(answer),
                Err(_) => {
                    Err("a federation core gave no answer in time; try again, or see the log"
                        .to_owned())
                }
            }
        };
        self.mailboxes.iter().map(next).collect()
    }

    fn list(&self, after: Option<&str>) -> Result<FederationAnswer, String> {
        let after = after.map(domain).transpose()?;
        let limit = DOMAINS_MAX.min(LIST_MAX);
        let mut found: Vec<Listed> = Vec::new();
        let mut is_cut = false;
        for answer in self.ask_all(&Request::List { after, limit })? {
            if let Answered::List { domains, more } = answer {
                is_cut |= more;
                found.extend(domains);
            }
        }
        // Each core gives the first of its own, so that the first of all are among them.
        found.sort_by(|one, other| one.domain.cmp(&other.domain));
        found.dedup_by(|other, one| {
            let is_same = one.domain == other.domain;
            if is_same {
                merge(one, other);
            }
            is_same
        });
        let more = is_cut || found.len() > limit;
        found.truncate(limit);
        let name = self.itself.node.as_ref().map(|(_, name)| name.clone());
        let shown = |listed| RemoteDomain { node: name.clone(), ..shown(listed) };
        Ok(FederationAnswer::Domains { domains: found.into_iter().map(shown).collect(), more })
    }

    fn close(&self, name: &str) -> Result<FederationAnswer, String> {
        let name = domain(name)?;
        let closed = self.ask_all(&Request::Close { domain: name.clone() })?;
        let connections = closed.iter().map(|answer| match answer {
            Answered::Closed { connections } => *connections as u64,
            _ => 0,
        });
        Ok(FederationAnswer::Closed { domain: name.to_string(), connections: connections.sum() })
    }

    fn block(&self, name: &str) -> Result<FederationAnswer, String> {
        let name = domain(name)?;
        self.blocked.change(|all| {
            if all.len() >= BLOCKED_MAX && !all.contains(&*name) {
                return Err(format!(
                    "{BLOCKED_MAX} domains are blocked, which is as many as can be"
                ));
            }
            all.insert(name.to_string());
            Ok(())
        })?;
        let (mut new, mut connections) = (false, 0);
        for answer in self.ask_all(&Request::Block { domain: name.clone() })? {
            if let Answered::Blocked { new: of_core, connections: closed } = answer {
                new |= of_core;
                connections += closed as u64;
            }
        }
        Ok(FederationAnswer::Blocked { domain: name.to_string(), new, connections })
    }

    fn unblock(&self, name: &str, config: &Config) -> Result<FederationAnswer, String> {
        let name = domain(name)?;
        let mut was = false;
        self.blocked.change(|all| {
            was = all.remove(&*name);
            Ok(())
        })?;
        // Of those that the configuration blocks, the command line takes none away.
        let section = &config.federation;
        let rest = actor_config(config, &self.itself, &BTreeSet::new(), 0, 1);
        if rest.blocks(&name) {
            let still = match section.allow.is_empty() {
                true => "federation.block in the configuration names it",
                false => {
                    "federation.block names it in the configuration, or federation.allow does not"
                }
            };
            let still = Some(still.to_owned());
            return Ok(FederationAnswer::Unblocked { domain: name.to_string(), was, still });
        }
        // It may have come with the configuration, at the start or since.
        self.reconfigure(config, None);
        for answer in self.ask_all(&Request::Unblock { domain: name.clone() })? {
            was |= matches!(answer, Answered::Unblocked { was: true });
        }
        Ok(FederationAnswer::Unblocked { domain: name.to_string(), was, still: None })
    }

    fn check_domain(
        &self,
        name: &str,
        own: Option<&str>,
        tell: &mut Tell<'_>,
    ) -> Result<FederationAnswer, String> {
        let name = domain(name)?;
        let own = own.map(domain).transpose()?;
        let cores = u16::try_from(self.mailboxes.len()).unwrap_or(u16::MAX);
        let core = federation_core(hash64(name.as_bytes()), cores).unwrap_or(0);
        let mailbox = self.mailboxes.get(usize::from(core)).ok_or(OFF)?;
        let (answer, answered): (Sender<Answered>, _) = channel();
        mailbox.send(FederationLetter::Asked(Request::Check { domain: name.clone(), own }, answer));
        let until = Instant::now() + CHECK_PATIENCE;
        loop {
            match answered.recv_timeout(CHECK_STEP) {
                Ok(Answered::Checked(check)) => {
                    let steps = check.steps.into_iter().map(|step| CheckStep {
                        step: step.step.name().to_owned(),
                        sound: step.sound,
                        text: step.text.into_string(),
                        took_us: u64::try_from(step.took.as_micros()).unwrap_or(u64::MAX),
                    });
                    return Ok(FederationAnswer::Checked {
                        domain: name.to_string(),
                        steps: steps.collect(),
                        failure: check.failure.map(|failure| failure.name().to_owned()),
                    });
                }
                Ok(Answered::Refused(why)) => return Err(why.into_string()),
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => {
                    if !tell(ControlResponse::Federation(FederationAnswer::Waiting)) {
                        return Err("nobody waits for the answer".to_owned());
                    }
                }
                Ok(_) | Err(_) => return Err("the check gave no answer; see the log".to_owned()),
            }
        }
    }
}

/// What a reload will have the cores go by.
pub(super) struct Reload {
    settings: FederationSettings,
    dns: DnsSettings,
}

/// - errors: what is wrong with it, and what to write
fn domain(text: &str) -> Result<Arc<str>, String> {
    match BareJid::from_parts(None, text) {
        Ok(jid) => Ok(jid.as_str().into()),
        Err(fault) => Err(format!("{text:?} is no domain: {fault}; write one as in example.org")),
    }
}

/// A domain that two cores know: one has its queue, the other a connection that it has made.
fn merge(one: &mut Listed, other: &Listed) {
    one.outgoing += other.outgoing;
    one.incoming += other.incoming;
    one.queued += other.queued;
    one.queued_bytes += other.queued_bytes;
    one.unconfirmed += other.unconfirmed;
    one.stored += other.stored;
    one.sent += other.sent;
    one.received += other.received;
    one.bounced += other.bounced;
    if one.by.is_empty() {
        one.by.clone_from(&other.by);
    }
    if one.failure.is_none() {
        one.failure.clone_from(&other.failure);
    }
}

fn shown(listed: Listed) -> RemoteDomain {
    RemoteDomain {
        domain: listed.domain.to_string(),
        state: listed.state.name().to_owned(),
        outgoing: listed.outgoing.into(),
        incoming: listed.incoming.into(),
        queued: listed.queued as u64,
        queued_bytes: listed.queued_bytes as u64,
        unconfirmed: listed.unconfirmed as u64,
        stored: listed.stored as u64,
        sent: listed.sent,
        received: listed.received,
        bounced: listed.bounced,
        by: listed.by.into_string(),
        failure: listed
            .failure
            .map(|(at, text)| RemoteFailure { at: datetime::format(at), text: text.into_string() }),
        node: None,
    }
}

impl Desk {
    /// - errors: a line of cause and remedy
    pub(super) fn federation(
        &self,
        request: FederationRequest,
        config: &Config,
        tell: &mut Tell<'_>,
    ) -> Result<ControlResponse, String> {
        let part = self.federation.as_ref().ok_or(OFF)?;
        let answer = match request {
            FederationRequest::List { after } => part.list(after.as_deref()),
            FederationRequest::Close { domain } => part.close(&domain),
            FederationRequest::Block { domain } => part.block(&domain),
            FederationRequest::Unblock { domain } => part.unblock(&domain, config),
            FederationRequest::Check { domain, own } => {
                part.check_domain(&domain, own.as_deref(), tell)
            }
        };
        answer.map(ControlResponse::Federation)
    }
}

/// What operators have blocked, in a file that outlives the node.
struct Blocked {
    path: PathBuf,
    domains: Mutex<BTreeSet<String>>,
}

impl Blocked {
    fn open(path: PathBuf) -> Result<Blocked, Error> {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                return Err(told(&format!("{} cannot be read", path.display()), &error));
            }
        };
        let domains = text.lines().filter(|line| !line.is_empty()).take(BLOCKED_MAX);
        let domains = domains.map(str::to_owned).collect();
        Ok(Blocked { path, domains: Mutex::new(domains) })
    }

    fn all(&self) -> BTreeSet<String> {
        self.domains.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// - errors: those of `change`, or the file cannot be written: then nothing has changed
    fn change(
        &self,
        change: impl FnOnce(&mut BTreeSet<String>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut domains = self.domains.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = domains.clone();
        change(&mut changed)?;
        if changed == *domains {
            return Ok(());
        }
        let text: String = changed.iter().map(|domain| format!("{domain}\n")).collect();
        // A new file first: a crash leaves the one or the other.
        let new = self.path.with_extension("new");
        tls::write_private(&new, text.as_bytes())
            .and_then(|()| std::fs::rename(&new, &self.path))
            .map_err(|error| format!("{} cannot be written: {error}", self.path.display()))?;
        *domains = changed;
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_operators_block_outlives_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(BLOCKED);
        let blocked = Blocked::open(path.clone()).unwrap();
        let insert = |name: &'static str| {
            move |all: &mut BTreeSet<String>| {
                all.insert(name.to_owned());
                Ok(())
            }
        };
        blocked.change(insert("b.example")).unwrap();
        blocked.change(insert("a.example")).unwrap();
        assert_eq!(blocked.change(|_| Err("no".into())), Err("no".into()));
        let again = Blocked::open(path.clone()).unwrap();
        assert_eq!(again.all().into_iter().collect::<Vec<_>>(), ["a.example", "b.example"]);
        let clear = |all: &mut BTreeSet<String>| {
            all.clear();
            Ok(())
        };
        again.change(clear).unwrap();
        assert!(Blocked::open(path).unwrap().all().is_empty());
    }

    #[test]
    fn cores_share_what_the_node_may_have() {
        let config = Config::default();
        let (one, four) = (limits(&config, 1), limits(&config, 4));
        assert_eq!((one.domains, four.domains), (20_000, 5_000));
        assert_eq!(one.queue_stanzas, four.queue_stanzas, "a domain is on one core");
    }
}
