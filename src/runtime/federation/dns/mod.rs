//! The thread that asks the DNS for the federation cores: `hickory-resolver` on a tokio runtime of its own, as it cannot run on
//! glommio. A core asks with a closure that brings the answer back, and which runs on this thread.
//!
//! Its bounds: look-ups that wait (`WAITING_MAX`, beyond which the answer is `Problem::Busy` at once), look-ups in flight
//! (`LOOKUPS_MAX`), questions in flight (`QUESTIONS_MAX`), seconds for a question with its aliases and attempts
//! (`QUESTION_TIMEOUT`), and the cache. A domain that several ask for is looked up once. Documents of POSH are fetched here as well,
//! within bounds of their own (`super::posh`).
//!
//! Aliases are followed here and not by hickory: its resolver takes the target of an SRV record for one, and so does not find
//! SRV records behind an alias.

mod answer;
pub(super) mod cache;
pub(super) mod turns;

pub use answer::read;

use super::super::executor;
use super::posh::{self, Fetcher, Fetches, PoshSettings};
use crate::base::rng::Rng;
use crate::federation::discovery::{
    Answer, Failure, Kind, Options, Plan, Problem, Question, Routes, Search, Step, reachable,
};
use crate::federation::posh::{Fingerprints, PoshProblem};
use answer::{Anchors, Chase};
use cache::{Cache, Known};
use hickory_resolver::config::{NameServerConfig, ResolverOpts};
use hickory_resolver::net::dnssec::DnssecDnsHandle;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer, RetryDnsHandle};
use hickory_resolver::net::{DnsError as Spoken, NetError};
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::proto::serialize::txt::{ParseError, trust_anchor as anchor_file};
use hickory_resolver::{Hosts, NameServerPool, PoolContext, TlsConfig, system_conf};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use turns::Turns;

/// Requests that wait for the thread or for a look-up.
const WAITING_MAX: usize = 4_096;
const LOOKUPS_MAX: usize = 64;
const QUESTIONS_MAX: usize = 128;
/// For one request to one server; then it is asked again, and others. Tests have less patience.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 2_000 });
/// Requests in all are one more.
const REPETITIONS: usize = 1;
const QUESTION_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 600 } else { 6_000 });
/// Seconds for which a name is absent that cannot be.
const IMPOSSIBLE_TTL_S: u32 = 300;
/// The port of the DNS.
const PORT: u16 = 53;

/// What the operator decides.
#[derive(Clone, Debug, Default)]
pub struct DnsSettings {
    /// In no order; empty: those of the system, with its file of hosts.
    pub servers: Vec<SocketAddr>,
    pub routes: Arc<Routes>,
    /// Whether strangers' records may lead to this machine or a private network.
    pub local_addresses: bool,
    /// DNSSEC is checked here, of the zones with these keys and all below; then TLSA records count (RFC 7673). The servers
    /// must pass on what the checks need, or they have no answers that hold.
    pub dnssec: Option<Dnssec>,
    /// How documents of RFC 7711 are fetched; none are without.
    pub posh: Option<PoshSettings>,
    /// Processors that the thread may use, where it is not to take those of the shards; empty: all.
    pub cpus: Vec<usize>,
}

/// Whose signatures the checks of DNSSEC begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dnssec {
    /// Those of the root zone.
    Root,
    /// A file of DNSKEY records.
    File(PathBuf),
}

/// Settings that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    #[error("the trust anchor {} cannot be read: {why}", path.display())]
    TrustAnchor { path: PathBuf, why: String },
    #[error("HTTPS cannot be spoken: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the thread of the resolver cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Takes an answer and how long it took to find. Runs on the resolver's thread.
pub type Reply = Box<dyn FnOnce(Result<Arc<Plan>, Problem>, Duration) + Send>;

/// Asks the resolver's thread, which ends with the last of these. Cloned to every federation core.
#[derive(Clone)]
pub struct Dns {
    events: UnboundedSender<Event>,
    waiting: Arc<AtomicUsize>,
}

/// Who waits for an answer.
struct Asker {
    since: Instant,
    reply: Reply,
    /// Keeps the thread until there is one.
    _thread: UnboundedSender<Event>,
}

enum Event {
    Ask(Arc<str>, Asker),
    /// Of the settings with this number.
    Found(Arc<str>, u64, Known),
    Posh(Arc<str>, posh::Asker),
    Fetched(Arc<str>, u64, posh::Known),
    Settings(Box<Resolver>),
}

impl fmt::Debug for Dns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dns").field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

impl Dns {
    pub fn start(settings: DnsSettings) -> Result<Dns, DnsError> {
        let cpus = settings.cpus.clone();
        let resolver = Resolver::new(settings)?;
        let (events, received) = unbounded_channel();
        let waiting = Arc::<AtomicUsize>::default();
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        // The thread must not keep itself alive.
        let (weak, counter) = (events.downgrade(), waiting.clone());
        std::thread::Builder::new().name("dns".into()).spawn(move || {
            executor::stay_on(&cpus);
            let desk = Desk {
                resolver: Rc::new(resolver),
                version: 0,
                cache: Cache::new(cache::DOMAINS_MAX),
                posh: Fetches::default(),
                rng: Rng::from_seed(executor::seed()),
                turns: Turns::new(LOOKUPS_MAX),
                questions: Rc::new(Semaphore::new(QUESTIONS_MAX)),
                waiting: counter,
                events: weak,
            };
            LocalSet::new().block_on(&runtime, desk.run(received));
            runtime.shutdown_background();
        })?;
        Ok(Dns { events, waiting })
    }

    /// Looks a domain up, or remembers.
    ///
    /// - takes: the domain as JIDs are prepared. `reply` runs on the resolver's thread, or at once on this one where so many wait
    ///   that this one may not
    pub fn resolve(
        &self,
        domain: Arc<str>,
        reply: impl FnOnce(Result<Arc<Plan>, Problem>, Duration) + Send + 'static,
    ) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return reply(Err(Problem::Busy), Duration::ZERO);
        }
        let (since, reply, thread) = (Instant::now(), Box::new(reply), self.events.clone());
        let asked = Event::Ask(domain, Asker { since, reply, _thread: thread });
        if let Err(unsent) = self.events.send(asked)
            && let Event::Ask(_, asker) = unsent.0
        {
            (asker.reply)(Err(Problem::Busy), since.elapsed());
        }
    }

    /// Fetches the document of a domain, or remembers.
    ///
    /// - takes: as `resolve`. Each connection of a core asks once at most, which bounds what is on its way to the thread
    pub fn posh(
        &self,
        domain: Arc<str>,
        reply: impl FnOnce(Result<Arc<Fingerprints>, PoshProblem>, Duration) + Send + 'static,
    ) {
        let asker = posh::Asker::new(Box::new(reply));
        if let Err(unsent) = self.events.send(Event::Posh(domain, asker))
            && let Event::Posh(_, asker) = unsent.0
        {
            asker.tell(Err(PoshProblem::Busy));
        }
    }

    /// All that follows is asked by these; what is remembered is forgotten.
    pub fn reconfigure(&self, settings: DnsSettings) -> Result<(), DnsError> {
        let resolver = Resolver::new(settings)?;
        // Only a thread that ended does not hear it.
        let _ = self.events.send(Event::Settings(Box::new(resolver)));
        Ok(())
    }
}

/// A server as the configuration names it: an address, with a port or without.
pub fn server(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| {
        let text = text.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(text);
        text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT))
    })
}

/// The thread's own: who waits for which domain.
struct Desk {
    resolver: Rc<Resolver>,
    /// Grows with each change of settings, so that what was found by older ones is not kept.
    version: u64,
    cache: Cache<Known>,
    posh: Fetches,
    rng: Rng,
    turns: Turns<Asker>,
    questions: Rc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    events: tokio::sync::mpsc::WeakUnboundedSender<Event>,
}

impl Desk {
    async fn run(mut self, mut events: UnboundedReceiver<Event>) {
        while let Some(event) = events.recv().await {
            match event {
                Event::Ask(domain, asker) => self.ask(domain, asker),
                Event::Found(domain, version, known) => self.found(domain, version, known),
                Event::Settings(resolver) => {
                    self.resolver = Rc::from(resolver);
                    self.version += 1;
                    self.cache.clear();
                    self.posh.forget();
                }
                Event::Posh(domain, asker) => {
                    self.posh.ask(domain, asker);
                    self.fetch();
                }
                Event::Fetched(domain, version, known) => {
                    self.posh.fetched(&domain, known, version == self.version);
                    self.fetch();
                }
            }
        }
    }

    fn ask(&mut self, domain: Arc<str>, asker: Asker) {
        if let Some(known) = self.cache.get(&domain, Instant::now()) {
            return self.tell(&known, asker);
        }
        self.turns.add(domain, asker);
        self.fill();
    }

    fn fill(&mut self) {
        while let Some(events) = self.events.upgrade()
            && let Some(domain) = self.turns.next()
        {
            let (resolver, version) = (self.resolver.clone(), self.version);
            let questions = self.questions.clone();
            let rng = Rng::from_seed(executor::seed());
            let of = domain.clone();
            let look_up = spawn_local(async move { resolver.look_up(&of, &questions, rng).await });
            spawn_local(async move {
                // A fault of the library must not leave who asked without an answer.
                let known = look_up.await.unwrap_or_else(|_| Err(broken(&domain)));
                // The desk ends after this.
                let _ = events.send(Event::Found(domain, version, known));
            });
        }
    }

    /// Begins with documents that are asked for, as many as may be under way.
    fn fetch(&mut self) {
        while let Some(events) = self.events.upgrade()
            && let Some(domain) = self.posh.next()
        {
            let (resolver, version) = (self.resolver.clone(), self.version);
            let (questions, of) = (self.questions.clone(), domain.clone());
            let fetch = spawn_local(async move {
                let Some(fetcher) = &resolver.posh else { return Err(PoshProblem::Busy) };
                fetcher.fetch(&of, |host| resolver.addresses(host, &questions)).await
            });
            spawn_local(async move {
                // As above.
                let fault = || PoshProblem::Unreachable("a fault of this server".to_owned());
                let known = fetch.await.unwrap_or_else(|_| Err(fault()));
                let _ = events.send(Event::Fetched(domain, version, known));
            });
        }
    }

    fn found(&mut self, domain: Arc<str>, version: u64, known: Known) {
        let askers = self.turns.done(&domain);
        if version == self.version {
            self.cache.insert(domain, known.clone(), Instant::now());
        }
        for asker in askers {
            self.tell(&known, asker);
        }
        self.fill();
    }

    /// Each plan is drawn anew.
    fn tell(&mut self, known: &Known, asker: Asker) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        let outcome = match known {
            Ok(facts) => Ok(Arc::new(facts.plan(&mut self.rng))),
            Err(problem) => Err(problem.clone()),
        };
        (asker.reply)(outcome, asker.since.elapsed());
    }
}

/// How to ask, by one set of settings.
struct Resolver {
    settings: DnsSettings,
    /// All servers, the quick ones first.
    client: Client,
    /// Each for itself, where there are several: hickory takes a refusal of one for the last word.
    each: Vec<Client>,
    /// The system's file, where the system's servers are asked.
    hosts: Option<Hosts>,
    anchors: Anchors,
    posh: Option<Fetcher>,
}

type Plain = RetryDnsHandle<NameServerPool<TokioRuntimeProvider>>;

struct Client {
    plain: Plain,
    checked: DnssecDnsHandle<Plain>,
}

impl Resolver {
    fn new(settings: DnsSettings) -> Result<Resolver, DnsError> {
        let mut options = ResolverOpts::default();
        let (servers, hosts) = match settings.servers.is_empty() {
            false => (settings.servers.iter().map(name_server).collect::<Vec<_>>(), None),
            true => {
                let servers = match system_conf::read_system_conf() {
                    Ok((config, _)) => config.name_servers().to_vec(),
                    // Domains with a route are found all the same.
                    Err(error) => {
                        tracing::warn!(%error, "the system's DNS servers are not known; federation.dns may name some");
                        Vec::new()
                    }
                };
                let hosts = Hosts::from_system().inspect_err(|error| {
                    tracing::debug!(%error, "the system's file of hosts cannot be read");
                });
                (servers, hosts.ok())
            }
        };
        options.timeout = REQUEST_TIMEOUT;
        options.attempts = REPETITIONS;
        options.edns0 = true;
        options.case_randomization = true;
        options.max_active_requests = QUESTIONS_MAX;
        options.cache_size = 0;
        options.validate = settings.dnssec.is_some();
        options.try_tcp_on_error = true;
        let tls = TlsConfig::new().map_err(|error| std::io::Error::other(error.to_string()))?;
        let context = Arc::new(PoolContext::new(options, tls));
        let (keys, anchors) = match &settings.dnssec {
            Some(dnssec) => keys(dnssec)?,
            None => (TrustAnchors::empty(), Anchors::default()),
        };
        let keys = Arc::new(keys);
        let client = |servers: &[NameServerConfig]| {
            let provider = TokioRuntimeProvider::default();
            let pool = NameServerPool::from_config(servers.to_vec(), context.clone(), provider);
            let plain = RetryDnsHandle::new(pool, REPETITIONS);
            let checked = DnssecDnsHandle::with_trust_anchor(plain.clone(), keys.clone());
            Client { plain, checked }
        };
        let each = match servers.len() {
            0 | 1 => Vec::new(),
            _ => servers.iter().map(|server| client(std::slice::from_ref(server))).collect(),
        };
        let posh = settings.posh.clone().map(Fetcher::new).transpose()?;
        Ok(Resolver { client: client(&servers), each, settings, hosts, anchors, posh })
    }

    async fn look_up(&self, domain: &str, questions: &Semaphore, mut rng: Rng) -> Known {
        let options = Options {
            local_addresses: self.settings.local_addresses,
            dane: self.settings.dnssec.is_some(),
        };
        let (mut search, mut step) = Search::begin(domain, &self.settings.routes, options);
        loop {
            let asked = match step {
                Step::Done(outcome) => return outcome.map(Arc::new),
                Step::Ask(asked) => asked,
            };
            let answers = asked.into_iter().map(|question| async {
                let answer = self.answer(&question, questions).await;
                (question, answer)
            });
            let answers = all(answers).await;
            step = search.answered(&answers, &mut rng);
        }
    }

    /// Where a server of HTTPS may be.
    ///
    /// - errors: in words
    async fn addresses(&self, host: String, questions: &Semaphore) -> Result<Vec<IpAddr>, String> {
        let asked = [Kind::Aaaa, Kind::A].map(|kind| Question { name: host.clone(), kind });
        let answers = all(asked.iter().map(|question| self.answer(question, questions))).await;
        let found = reachable(&answers, self.settings.local_addresses);
        if !found.is_empty() {
            return Ok(found);
        }
        let failed = answers.iter().find_map(|answer| match answer {
            Answer::Failed(failure) => {
                Some(format!("the address of {host} is not known: {failure}"))
            }
            _ => None,
        });
        Err(failed.unwrap_or_else(|| format!("{host} has no address that may be connected to")))
    }

    async fn answer(&self, question: &Question, questions: &Semaphore) -> Answer {
        // It is never closed.
        let _permit = questions.acquire().await;
        match tokio::time::timeout(QUESTION_TIMEOUT, self.chase(question)).await {
            Ok(answer) => answer,
            Err(_) => Answer::Failed(Failure::Timeout),
        }
    }

    async fn chase(&self, question: &Question) -> Answer {
        let impossible = Answer::NoSuchName { ttl_s: IMPOSSIBLE_TTL_S };
        if let Some(answer) = self.known_here(question) {
            return answer;
        }
        let Some(mut chase) = Chase::new(question, self.anchors.clone()) else {
            return impossible;
        };
        loop {
            let (name, kind) = chase.next();
            let query = Query::query(name, kind);
            if let Some(answer) = chase.heard(self.send(query, chase.is_checked()).await) {
                return answer;
            }
        }
    }

    /// Names that the servers of the system are not asked for: those in its file of hosts, and those that are no names of the
    /// DNS (RFC 6761 §6.3, §6.4, RFC 7686 §2). Servers that the operator names may have zones for them.
    fn known_here(&self, question: &Question) -> Option<Answer> {
        let hosts = self.hosts.as_ref()?;
        let found = |address: IpAddr| {
            let records = vec![crate::federation::discovery::Record::Address(address)];
            Some(Answer::Found { records, ttl_s: IMPOSSIBLE_TTL_S, secure: false })
        };
        let kind = match question.kind {
            Kind::A => Some(RecordType::A),
            Kind::Aaaa => Some(RecordType::AAAA),
            Kind::Srv | Kind::Tlsa => None,
        };
        if let Some((kind, name)) = kind.zip(answer::fqdn(&question.name))
            && let Some(lookup) = hosts.lookup_static_host(&Query::query(name, kind))
        {
            let address = lookup.answers().iter().find_map(|record| record.data.ip_addr());
            return address.and_then(found);
        }
        let top = question.name.rsplit('.').next().unwrap_or_default();
        match (top, question.kind) {
            ("localhost", Kind::A) => found([127, 0, 0, 1].into()),
            ("localhost", Kind::Aaaa) => found(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)),
            ("localhost" | "invalid" | "onion", _) => {
                Some(Answer::NoSuchName { ttl_s: IMPOSSIBLE_TTL_S })
            }
            _ => None,
        }
    }

    async fn send(&self, query: Query, is_checked: bool) -> Result<DnsResponse, NetError> {
        let mut outcome = self.client.send(query.clone(), is_checked).await;
        for one in &self.each {
            if !matches!(outcome, Err(NetError::Dns(Spoken::ResponseCode(_)))) {
                break;
            }
            outcome = one.send(query.clone(), is_checked).await;
        }
        outcome
    }
}

impl Client {
    async fn send(&self, query: Query, is_checked: bool) -> Result<DnsResponse, NetError> {
        let mut options = DnsRequestOptions::default();
        options.case_randomization = true;
        options.edns_set_dnssec_ok = is_checked;
        match is_checked {
            true => self.checked.lookup(query, options).first_answer().await,
            false => self.plain.lookup(query, options).first_answer().await,
        }
    }
}

fn broken(domain: &str) -> Problem {
    let question = Question { name: domain.to_owned(), kind: Kind::Srv };
    Problem::Unanswered { question, why: Failure::Broken }
}

/// All at once, in their order.
async fn all<T: 'static>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(|future| (Some(Box::pin(future)), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_done = true;
        for (future, result) in &mut futures {
            let Some(waiting) = future else { continue };
            match waiting.as_mut().poll(context) {
                std::task::Poll::Ready(value) => (*future, *result) = (None, Some(value)),
                std::task::Poll::Pending => is_done = false,
            }
        }
        if is_done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    futures.into_iter().filter_map(|(_, result)| result).collect()
}

fn name_server(server: &SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut config.connections {
        connection.port = server.port();
    }
    config
}

/// The keys, and the zones whose they are.
fn keys(dnssec: &Dnssec) -> Result<(TrustAnchors, Anchors), DnsError> {
    let Dnssec::File(path) = dnssec else {
        return Ok((TrustAnchors::default(), [Name::root()].into()));
    };
    let refused = |why: String| DnsError::TrustAnchor { path: Path::to_owned(path), why };
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    let records = anchor_file::Parser::new(text.as_str()).parse();
    let records = records.map_err(|error| refused(error.to_string()))?;
    let zones = records.iter().filter_map(|entry| match entry {
        anchor_file::Entry::DNSKEY(record) => Some(record.name().clone()),
        _ => None,
    });
    let zones: Vec<Name> = zones.collect();
    let keys = text.parse().map_err(|error: ParseError| refused(error.to_string()))?;
    if zones.is_empty() {
        return Err(refused("there is no DNSKEY record in it".to_owned()));
    }
    Ok((keys, zones.into()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
