//! The loop: one thread, one epoll, any number of clients.
//!
//! A turn: what waits on the sockets is read (one read per ready socket), stanzas are cut and shown to the scenario,
//! the scenario queues what it wants sent, and each connection with output is written once.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};

use crate::client::{Client, Counters, Link, Resumable, write_answer};
use crate::login::{
    Around, Login, Management, Mechanism, Previous, Starttls, Step, Way, Wish, stanzas_behind,
};
use crate::scan::{Element, Unit, escape};
use crate::scram::KeyCache;
use crate::sources::Sources;
use crate::sys::{Poller, Ready};
use crate::tls::{Tls, client_config};
use crate::{Error, sys};

/// Bytes taken from a socket in one read.
const READ_BYTES: usize = 64 * 1024;
/// Descriptors kept for other things than connections.
pub(crate) const DESCRIPTORS_SPARE: u64 = 64;

/// What all clients of an engine share.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    pub address: SocketAddr,
    /// The XMPP domain, which also names the TLS server.
    pub domain: String,
    pub tls: Tls,
    /// `None`: the strongest that is offered and needs no channel binding.
    pub mechanism: Option<Mechanism>,
    pub way: Way,
    /// Whether the targets are nodes of one server: who lost its connection goes to the next of them.
    pub fail_over: bool,
    /// Addresses over which connections to loopback are spread.
    pub sources: Sources,
    /// Logins under way at once; others queue.
    pub login_in_flight: usize,
    /// With XEP-0198: stanzas after which an `<r/>` follows, at the end of that write.
    pub sm_request_every: u32,
}

/// One client.
#[derive(Clone, Debug, Default)]
pub struct ClientConfig {
    /// Which server: 0 is the configuration's, others are those of [`Engine::add_target`].
    pub target: usize,
    pub user: String,
    pub password: Rc<str>,
    pub resource: String,
    /// Send initial presence, and count as logged in when the server shows it back.
    pub presence: bool,
    pub management: Management,
    /// Enable XEP-0280.
    pub carbons: bool,
    /// Make the account by in-band registration (XEP-0077) first, if it is not there.
    pub register: bool,
    /// Open a stream and say nothing more: the client is ready when its stream header has left.
    pub silent: bool,
    /// Ask the kernel for the smallest receive buffer, so that a client that does not read is felt soon.
    pub narrow: bool,
}

/// Names a client of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(u32);

impl ClientId {
    /// Its place in the order of [`Engine::add`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a scenario wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Wait for the network, but not beyond this moment.
    Until(Instant),
    /// Leave [`Engine::run`].
    Done,
}

/// What is done with the clients. The `on_` methods only note; [`Scenario::turn`] acts.
pub trait Scenario {
    /// A login is complete.
    fn on_ready(&mut self, _client: ClientId) {}

    /// A stream goes on over a new connection (XEP-0198 §5); comes instead of [`Scenario::on_ready`].
    fn on_resumed(&mut self, _client: ClientId) {}

    /// The account is there (XEP-0077); it was asked for at `asked`.
    fn on_registered(&mut self, _client: ClientId, _asked: Instant, _now: Instant) {}

    /// A stanza arrived, during login too; `at` is when it was read. IQs of type get and set are answered already.
    fn on_stanza(&mut self, client: ClientId, stanza: &Element<'_>, at: Instant);

    /// The server has handled so many of the client's stanzas since XEP-0198 was enabled (`<a h=''/>`, modulo 2^32).
    fn on_acked(&mut self, _client: ClientId, _handled: u32) {}

    /// The connection is gone.
    fn on_closed(&mut self, client: ClientId, cause: &str);

    /// Called before each wait: queue what is due, say what comes next.
    fn turn(&mut self, engine: &mut Engine, now: Instant) -> Result<Control, Error>;
}

/// A server and the domain that it serves.
struct Target {
    address: SocketAddr,
    domain: String,
    server_name: ServerName<'static>,
    /// What opens a stream.
    header: Vec<u8>,
    /// For components (XEP-0114): what is shared with the server.
    secret: Option<String>,
}

impl Target {
    fn new(address: SocketAddr, domain: &str) -> Result<Self, Error> {
        let server_name = ServerName::try_from(domain.to_owned())
            .map_err(|error| Error::Config(format!("domain {domain}: {error}")))?;
        let mut header = b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
            xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='"
            .to_vec();
        escape(domain, &mut header);
        header.extend_from_slice(b"'>");
        Ok(Self { address, domain: domain.to_owned(), server_name, header, secret: None })
    }
}

/// The address of a target, or after `broken` connections that of another one of the same server.
fn next_address(targets: &[Target], first: usize, broken: usize) -> SocketAddr {
    let own = &targets[first];
    let next = &targets[(first + broken) % targets.len()];
    let is_same = next.domain == own.domain && next.secret.is_none() && own.secret.is_none();
    if is_same { next.address } else { own.address }
}

/// Clients and their loop. Lives on one thread.
pub struct Engine {
    config: EngineConfig,
    targets: Vec<Target>,
    clients: Vec<Client>,
    poller: Poller,
    tls: Arc<rustls::ClientConfig>,
    keys: KeyCache,
    random: SystemRandom,
    descriptors: u64,
    queued: VecDeque<ClientId>,
    logging_in: usize,
    dirty: Vec<ClientId>,
    ready: Vec<Ready>,
    read_buffer: Vec<u8>,
    plain_buffer: Vec<u8>,
}

impl Engine {
    /// - errors: no epoll; a domain that cannot name a TLS server
    pub fn new(config: EngineConfig) -> Result<Self, Error> {
        let descriptors = sys::raise_descriptor_limit()
            .map_err(|error| Error::Io("limit of descriptors", error))?;
        sys::precise_timers().map_err(|error| Error::Io("timer slack", error))?;
        Ok(Self {
            poller: Poller::new().map_err(|error| Error::Io("epoll", error))?,
            targets: vec![Target::new(config.address, &config.domain)?],
            tls: client_config()?,
            keys: KeyCache::default(),
            random: SystemRandom::new(),
            descriptors,
            clients: Vec::new(),
            queued: VecDeque::new(),
            logging_in: 0,
            dirty: Vec::new(),
            ready: Vec::new(),
            read_buffer: vec![0; READ_BYTES],
            plain_buffer: vec![0; READ_BYTES],
            config,
        })
    }

    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// Adds a further server.
    ///
    /// - gives: its number, for [`ClientConfig::target`]
    /// - errors: a domain that cannot name a TLS server
    pub fn add_target(&mut self, address: SocketAddr, domain: &str) -> Result<usize, Error> {
        self.targets.push(Target::new(address, domain)?);
        Ok(self.targets.len() - 1)
    }

    /// Adds a server at which clients are components of the address `domain` (XEP-0114).
    pub fn add_component(
        &mut self,
        address: SocketAddr,
        domain: &str,
        secret: &str,
    ) -> Result<usize, Error> {
        let mut target = Target::new(address, domain)?;
        target.header = b"<stream:stream xmlns='jabber:component:accept' \
            xmlns:stream='http://etherx.jabber.org/streams' to='"
            .to_vec();
        escape(domain, &mut target.header);
        target.header.extend_from_slice(b"'>");
        target.secret = Some(secret.to_owned());
        self.targets.push(target);
        Ok(self.targets.len() - 1)
    }

    /// Descriptors that this process may have open.
    pub fn descriptors(&self) -> u64 {
        self.descriptors
    }

    /// Adds a client, not yet connected.
    pub fn add(&mut self, client: ClientConfig) -> Result<ClientId, Error> {
        let needed = self.clients.len() as u64 + 1 + DESCRIPTORS_SPARE;
        if needed > self.descriptors {
            return Err(Error::Descriptors { needed, limit: self.descriptors });
        }
        let id = ClientId(self.clients.len() as u32);
        self.clients.push(Client::new(Wish {
            user: client.user,
            password: client.password,
            resource: client.resource,
            target: client.target,
            mechanism: self.config.mechanism,
            starttls: match self.config.tls {
                Tls::None | Tls::Direct => Starttls::Never,
                Tls::Offered => Starttls::Offered,
                Tls::Starttls => Starttls::Always,
            },
            way: self.config.way,
            register: client.register,
            presence: client.presence,
            management: client.management,
            carbons: client.carbons,
            silent: client.silent,
            narrow: client.narrow,
        }));
        Ok(id)
    }

    /// Connects a client and logs it in as soon as the limit of logins allows. No effect unless it is down.
    pub fn start(&mut self, id: ClientId) {
        let client = &mut self.clients[id.index()];
        if matches!(client.link, Link::Down) {
            client.link = Link::Queued;
            self.queued.push_back(id);
        }
    }

    /// Ends the client's stream in order; the scenario sees it closed when the server has closed its side.
    pub fn close(&mut self, id: ClientId) {
        if self.is_ready(id) {
            self.acknowledge(id);
            self.append(id, |out| out.extend_from_slice(b"</stream:stream>"));
            let client = &mut self.clients[id.index()];
            client.link = Link::Closing;
            client.resumable = None;
        }
    }

    /// Drops the client's connection without a word, and without telling the scenario.
    pub fn abandon(&mut self, id: ClientId) {
        self.queued.retain(|queued| *queued != id);
        let client = &mut self.clients[id.index()];
        if matches!(client.link, Link::Connecting | Link::Login(_)) {
            self.logging_in -= 1;
        }
        client.reset();
    }

    /// Whether the client's next login can go on with its last stream.
    pub fn can_resume(&self, id: ClientId) -> bool {
        self.clients[id.index()].resumable.is_some()
    }

    /// From now on leaves what the server sends in the kernel, or reads it again.
    pub fn set_deaf(&mut self, id: ClientId, deaf: bool) -> Result<(), Error> {
        let client = &mut self.clients[id.index()];
        client.deaf = deaf;
        if let Some(socket) = &client.socket {
            let watched =
                self.poller.modify(socket.as_raw_fd(), u64::from(id.0), !deaf, client.blocked);
            watched.map_err(|error| Error::Io("epoll", error))?;
        }
        Ok(())
    }

    /// Whether the client is logged in.
    pub fn is_ready(&self, id: ClientId) -> bool {
        matches!(self.clients[id.index()].link, Link::Ready)
    }

    /// Whether the client is neither connected nor about to be.
    pub fn is_down(&self, id: ClientId) -> bool {
        matches!(self.clients[id.index()].link, Link::Down)
    }

    /// Whether [`Engine::close`] was called and the server has not closed its side yet.
    pub fn is_closing(&self, id: ClientId) -> bool {
        matches!(self.clients[id.index()].link, Link::Closing)
    }

    /// Full JID of a client that is or was logged in.
    pub fn jid(&self, id: ClientId) -> &str {
        &self.clients[id.index()].jid
    }

    /// Account name of a client.
    pub fn user(&self, id: ClientId) -> &str {
        &self.clients[id.index()].wish.user
    }

    /// Queues `stanzas` stanzas that `write` appends; they leave together at the end of the turn.
    ///
    /// - gives: the number of the last one since XEP-0198 was enabled, as `<a h=''/>` will count it
    pub fn send(&mut self, id: ClientId, stanzas: u32, write: impl FnOnce(&mut Vec<u8>)) -> u32 {
        let had = self.clients[id.index()].output.len();
        let appended = self.append(id, write);
        let client = &mut self.clients[id.index()];
        if appended {
            client.counters.sent = client.counters.sent.wrapping_add(stanzas);
            if let Some(resumable) = &mut client.resumable {
                resumable.unacked.push_back((client.counters.sent, client.output[had..].into()));
            }
        }
        client.counters.sent
    }

    /// Tells the server what the client has received (XEP-0198 §4), unasked.
    pub fn acknowledge(&mut self, id: ClientId) {
        let counters = &self.clients[id.index()].counters;
        if counters.enabled {
            let received = counters.received;
            self.append(id, |out| {
                out.extend_from_slice(
                    format!("<a xmlns='urn:xmpp:sm:3' h='{received}'/>").as_bytes(),
                );
            });
        }
    }

    /// Whether there was a connection to append to.
    fn append(&mut self, id: ClientId, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let client = &mut self.clients[id.index()];
        if client.socket.is_none() || matches!(client.link, Link::Closing) {
            return false;
        }
        write(&mut client.output);
        if !client.dirty {
            client.dirty = true;
            self.dirty.push(id);
        }
        true
    }

    /// Turns until the scenario is done.
    ///
    /// - errors: what the scenario gives; epoll failing
    pub fn run<S: Scenario>(&mut self, scenario: &mut S) -> Result<(), Error> {
        loop {
            let now = Instant::now();
            let control = scenario.turn(self, now)?;
            while self.logging_in < self.config.login_in_flight
                && let Some(id) = self.queued.pop_front()
            {
                if let Err(error) = self.connect(id) {
                    self.end(id, &format!("connecting: {error}"), scenario);
                }
            }
            while let Some(id) = self.dirty.pop() {
                if let Err(error) = self.flush(id) {
                    // What the server sent before it closed may still wait to be read.
                    self.readable(id, scenario);
                    self.end(id, &format!("writing: {error}"), scenario);
                }
            }
            let Control::Until(deadline) = control else {
                return Ok(());
            };
            let timeout = deadline.saturating_duration_since(Instant::now());
            let mut ready = std::mem::take(&mut self.ready);
            let waited = self.poller.wait(Some(timeout), &mut ready);
            waited.map_err(|error| Error::Io("epoll", error))?;
            for event in &ready {
                self.event(event, scenario);
            }
            self.ready = ready;
        }
    }

    fn event<S: Scenario>(&mut self, event: &Ready, scenario: &mut S) {
        let id = ClientId(event.token as u32);
        let client = &mut self.clients[id.index()];
        let Some(socket) = &client.socket else {
            return;
        };
        if matches!(client.link, Link::Connecting) {
            let outcome = if event.writable { socket.take_error() } else { return };
            match outcome {
                Ok(None) => self.open(id, scenario),
                Ok(Some(error)) | Err(error) => {
                    return self.end(id, &format!("connecting: {error}"), scenario);
                }
            }
        } else if event.writable && client.blocked && !client.dirty {
            client.dirty = true;
            self.dirty.push(id);
        }
        if event.readable && !self.clients[id.index()].deaf {
            self.readable(id, scenario);
        }
    }

    fn connect(&mut self, id: ClientId) -> io::Result<()> {
        let client = &mut self.clients[id.index()];
        let address = next_address(&self.targets, client.wish.target, client.broken);
        self.logging_in += 1;
        client.link = Link::Connecting;
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if client.wish.narrow {
            socket.set_recv_buffer_size(1)?;
        }
        let is_loopback = address.is_ipv4() && address.ip().is_loopback();
        if let Some(source) = self.config.sources.address(id.index()).filter(|_| is_loopback) {
            socket.bind(&SocketAddr::new(IpAddr::V4(source), 0).into())?;
        }
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let socket = TcpStream::from(socket);
        self.poller.add(socket.as_raw_fd(), u64::from(id.0), true)?;
        client.blocked = true;
        client.socket = Some(socket);
        Ok(())
    }

    /// The TCP connection stands.
    fn open<S: Scenario>(&mut self, id: ClientId, scenario: &mut S) {
        let mut nonce = [0; 18];
        // Only uniqueness matters here, and the operating system's source does not fail once it has begun to work.
        let _ = self.random.fill(&mut nonce);
        self.clients[id.index()].link = Link::Login(Box::new(Login::new(BASE64.encode(nonce))));
        // Components connect in the clear (XEP-0114), as a rule from the same machine.
        let target = self.clients[id.index()].wish.target;
        let is_component = self.targets[target].secret.is_some();
        if self.config.tls == Tls::Direct && !is_component {
            self.secure(id);
        }
        self.open_stream(id);
        if self.clients[id.index()].wish.silent {
            self.clients[id.index()].link = Link::Silent;
            self.logging_in -= 1;
            scenario.on_ready(id);
        }
    }

    fn secure(&mut self, id: ClientId) {
        let target = self.clients[id.index()].wish.target;
        let name = self.targets[target].server_name.clone();
        // Cannot fail for a configuration that has built: the name and the protocol versions are given.
        let connection = ClientConnection::new(Arc::clone(&self.tls), name);
        self.clients[id.index()].tls = connection.ok().map(Box::new);
    }

    fn open_stream(&mut self, id: ClientId) {
        let client = &mut self.clients[id.index()];
        client.scanner.restart();
        client.output.extend_from_slice(&self.targets[client.wish.target].header);
        self.append(id, |_| {});
    }

    fn readable<S: Scenario>(&mut self, id: ClientId, scenario: &mut S) {
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let cause = loop {
            let Some(mut socket) = self.clients[id.index()].socket.as_ref() else {
                break None;
            };
            match socket.read(&mut buffer) {
                Ok(0) => break Some("closed by the server".to_owned()),
                Ok(count) => {
                    let at = Instant::now();
                    if let Err(cause) = self.received(id, &buffer[..count], at, scenario) {
                        break Some(cause);
                    }
                    if count < buffer.len() {
                        break None;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(format!("reading: {error}")),
            }
        };
        self.read_buffer = buffer;
        if let Some(cause) = cause {
            self.end(id, &cause, scenario);
        }
    }

    /// Opens TLS records if there are any, and passes the plain bytes on.
    fn received<S: Scenario>(
        &mut self,
        id: ClientId,
        mut bytes: &[u8],
        at: Instant,
        scenario: &mut S,
    ) -> Result<(), String> {
        if self.clients[id.index()].tls.is_none() {
            return self.plain(id, bytes, at, scenario);
        }
        let mut plain = std::mem::take(&mut self.plain_buffer);
        let mut outcome = Ok(());
        while !bytes.is_empty() && outcome.is_ok() {
            outcome = self.records(id, &mut bytes, &mut plain, at, scenario);
        }
        self.plain_buffer = plain;
        outcome
    }

    fn records<S: Scenario>(
        &mut self,
        id: ClientId,
        bytes: &mut &[u8],
        plain: &mut [u8],
        at: Instant,
        scenario: &mut S,
    ) -> Result<(), String> {
        let tls = self.clients[id.index()].tls.as_mut().ok_or("TLS state is gone")?;
        tls.read_tls(bytes).map_err(|error| format!("TLS: {error}"))?;
        tls.process_new_packets().map_err(|error| format!("TLS: {error}"))?;
        if tls.wants_write() {
            self.append(id, |_| {});
        }
        loop {
            let Some(tls) = self.clients[id.index()].tls.as_mut() else {
                return Ok(());
            };
            match tls.reader().read(plain) {
                Ok(0) => return Err("closed by the server".to_owned()),
                Ok(count) => self.plain(id, &plain[..count], at, scenario)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(format!("TLS: {error}")),
            }
        }
    }

    /// Cuts stanzas; what is left stays with the client.
    fn plain<S: Scenario>(
        &mut self,
        id: ClientId,
        bytes: &[u8],
        at: Instant,
        scenario: &mut S,
    ) -> Result<(), String> {
        let client = &mut self.clients[id.index()];
        let mut held = std::mem::take(&mut client.input);
        let data = if held.is_empty() {
            bytes
        } else {
            held.extend_from_slice(bytes);
            &held
        };
        loop {
            let scanner = &mut self.clients[id.index()].scanner;
            match scanner.next(data).map_err(|error| error.to_string())? {
                Some(Unit::Open(range)) => self.opened(id, &data[range])?,
                Some(Unit::Element(range)) => {
                    let element =
                        Element::parse(&data[range]).ok_or("a tag that makes no sense")?;
                    self.element(id, &element, at, scenario)?;
                }
                Some(Unit::Close) => return Err("stream closed by the server".to_owned()),
                None => break,
            }
        }
        let client = &mut self.clients[id.index()];
        let kept = client.scanner.kept_from();
        client.scanner.forget();
        if kept < data.len() {
            if held.is_empty() {
                client.input = bytes[kept..].to_vec();
            } else {
                held.drain(..kept);
                client.input = held;
            }
        }
        Ok(())
    }

    /// The server has opened its stream: a component says now that it knows the secret (XEP-0114 §3).
    fn opened(&mut self, id: ClientId, header: &[u8]) -> Result<(), String> {
        let client = &mut self.clients[id.index()];
        let Some(secret) = &self.targets[client.wish.target].secret else {
            return Ok(());
        };
        if let Link::Login(login) = &mut client.link {
            let stream = Element::parse(header).and_then(|header| header.text_of("id"));
            let stream = stream.ok_or("a stream without id")?;
            let target = &self.targets[client.wish.target];
            login.shake_hands(&stream, secret, &target.domain, &mut client.output);
            self.append(id, |_| {});
        }
        Ok(())
    }

    fn element<S: Scenario>(
        &mut self,
        id: ClientId,
        element: &Element<'_>,
        at: Instant,
        scenario: &mut S,
    ) -> Result<(), String> {
        let client = &mut self.clients[id.index()];
        let name = element.name();
        if let b"message" | b"presence" | b"iq" = name {
            client.counters.received = client.counters.received.wrapping_add(1);
        }
        match name {
            b"error" => {
                let condition = element.children().next();
                let condition = condition.map_or(&b"unknown"[..], |child| child.name());
                return Err(format!("stream error {}", String::from_utf8_lossy(condition)));
            }
            b"r" => {
                self.acknowledge(id);
                return Ok(());
            }
            b"a" => {
                let handled = element.text_of("h").and_then(|h| h.parse().ok());
                let handled = handled.ok_or("an <a/> without h")?;
                if let Some(resumable) = &mut client.resumable {
                    resumable.acked(handled);
                }
                scenario.on_acked(id, handled);
                return Ok(());
            }
            b"iq" if matches!(element.attribute("type"), Some(b"get" | b"set")) => {
                self.send(id, 1, |out| write_answer(element, out));
            }
            _ => {}
        }
        if matches!(self.clients[id.index()].link, Link::Silent) {
            return Ok(());
        }
        if self.log_in(id, element, at, scenario)? != Step::Other {
            return Ok(());
        }
        if let b"message" | b"presence" | b"iq" = name {
            scenario.on_stanza(id, element, at);
        }
        Ok(())
    }

    /// Shows an element to the login, if one goes on, and does what comes of it.
    fn log_in<S: Scenario>(
        &mut self,
        id: ClientId,
        element: &Element<'_>,
        at: Instant,
        scenario: &mut S,
    ) -> Result<Step, String> {
        let client = &mut self.clients[id.index()];
        let Link::Login(login) = &mut client.link else {
            return Ok(Step::Other);
        };
        let had = client.output.len();
        let tls = client.tls.as_deref();
        let previous = client
            .resumable
            .as_ref()
            .map(|resumable| Previous { id: &resumable.id, received: client.counters.received });
        let mut around = Around {
            keys: &mut self.keys,
            binding: &|name| tls.and_then(|tls| crate::tls::binding(tls, name)),
            previous,
        };
        let step = login.take(element, &client.wish, &mut around, &mut client.output)?;
        let wrote = client.output.len() > had;
        let mut is_resumed = false;
        match step {
            Step::Enabled => {
                let sent = stanzas_behind(&client.wish);
                client.counters = Counters { enabled: true, sent, ..Counters::default() };
                let stream = std::mem::take(&mut login.stream_id);
                client.resumable = (!stream.is_empty())
                    .then(|| Box::new(Resumable { id: stream, unacked: VecDeque::new() }));
            }
            Step::NotResumed(handled) => {
                client.resumable = None;
                client.counters = Counters::default();
                if let Some(handled) = handled {
                    scenario.on_acked(id, handled);
                }
            }
            Step::Resumed(handled) => {
                is_resumed = true;
                client.counters.enabled = true;
                client.counters.requested = handled;
                login.jid = std::mem::take(&mut client.jid);
                if let Some(resumable) = &mut client.resumable {
                    resumable.acked(handled);
                    for (_, stanza) in &resumable.unacked {
                        client.output.extend_from_slice(stanza);
                    }
                }
                scenario.on_acked(id, handled);
            }
            Step::Registered => {
                if let Some(asked) = login.registering.take() {
                    scenario.on_registered(id, asked, at);
                }
            }
            Step::Send if login.is_registering() => login.registering = Some(at),
            _ => {}
        }
        let done = is_resumed
            || step == Step::Done
            || (step == Step::Enabled && login.is_complete(&client.wish));
        if done {
            client.jid = std::mem::take(&mut login.jid);
            client.link = Link::Ready;
            self.logging_in -= 1;
        }
        if wrote || is_resumed {
            self.append(id, |_| {});
        }
        match step {
            Step::StartTls => {
                self.secure(id);
                self.open_stream(id);
            }
            Step::Restart => self.open_stream(id),
            _ => {}
        }
        if is_resumed {
            scenario.on_resumed(id);
        } else if done {
            scenario.on_ready(id);
        }
        Ok(step)
    }

    fn flush(&mut self, id: ClientId) -> io::Result<()> {
        let client = &mut self.clients[id.index()];
        let blocked = client.write(self.config.sm_request_every)?;
        if let Some(socket) = &client.socket
            && blocked != client.blocked
        {
            self.poller.modify(socket.as_raw_fd(), u64::from(id.0), !client.deaf, blocked)?;
            client.blocked = blocked;
        }
        Ok(())
    }

    fn end<S: Scenario>(&mut self, id: ClientId, cause: &str, scenario: &mut S) {
        if self.is_down(id) {
            return;
        }
        if self.config.fail_over {
            self.clients[id.index()].broken += 1;
        }
        self.abandon(id);
        scenario.on_closed(id, cause);
    }
}

/// How long a run waits for anything at all to happen before it gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
