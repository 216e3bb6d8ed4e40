//! Two nodes in one process, around one store: links are letters.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::cluster::placement::{Member, Placement, ShardId};
use crate::features::{self, Settings};
use crate::runtime::clock::Clock;
use crate::runtime::cluster::port::Incoming;
use crate::runtime::errands::{Errands, Runner};
use crate::runtime::executor::{self, Beats, CoreSettings, Cores, Done, Setup, Ways};
use crate::runtime::listener::{Transport, listen};
use crate::runtime::mailbox::{Letter, Mailbox, StoreAsker};
use crate::runtime::mesh::mesh;
use crate::runtime::passwords::Passwords;
use crate::runtime::storage::Storage;
use crate::runtime::tls::{Certificates, TlsServer};
use crate::shard::errand::{Errand, Outcome};
use crate::shard::{Limits, ShardConfig};
use crate::store::memory::MemoryStore;
use crate::store::{Reader, Write, Writer as _};
use crate::stream::c2s::C2sPolicy;
use crate::stream::sasl::{client::plain, encode_payload, new_credentials};
use crate::xmpp::jid::BareJid;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use std::collections::BTreeMap;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SHARDS: u16 = 2;
const PASSWORD: &str = "secret";
const PATIENCE: Duration = Duration::from_secs(20);

type Mailboxes = Arc<Mutex<BTreeMap<Run, Vec<Mailbox>>>>;

/// Links from one node to all others.
#[derive(Clone)]
struct Wire {
    run: Run,
    mailboxes: Mailboxes,
}

impl Carrier for Wire {
    fn send(&self, piece: Outgoing) {
        let from = Place { run: self.run, shard: piece.from };
        let Outgoing { to, frames, news, relay, .. } = piece;
        if let Some(mailboxes) = self.mailboxes.lock().unwrap().get(&to.run) {
            let incoming = Incoming::Piece { from, sent: None, frames, news, relay };
            mailboxes[usize::from(to.shard.0)].send(Letter::Link(incoming));
        }
    }

    fn renew(&self, _: Run) {
        unreachable!("nothing is kept back here");
    }
}

struct NoErrands;

impl Runner for NoErrands {
    fn run(&self, _: Errand, answer: &mut dyn FnMut(Outcome)) {
        answer(Outcome::Busy);
    }
}

struct Node {
    run: Run,
    plain: SocketAddr,
    tls: SocketAddr,
    mailboxes: Vec<Mailbox>,
    cores: Cores,
    storage: Storage,
}

struct Cluster {
    /// `None`: stopped.
    nodes: Vec<Option<Node>>,
    mailboxes: Mailboxes,
    certificate: rustls::pki_types::CertificateDer<'static>,
    placement: Arc<Placement>,
}

fn run(node: u32) -> Run {
    Run { node: NodeId(node), incarnation: 1 }
}

impl Cluster {
    /// Nodes 1 and 2, and all users of the tests.
    fn start() -> Cluster {
        let members = [1, 2].map(|node| Member {
            node: NodeId(node),
            name: format!("node-{node}"),
            weight: 1,
            shards: SHARDS,
            federates: false,
        });
        let placement = Arc::new(Placement::new(1, &members));
        let store = MemoryStore::new();
        let mut writer = store.open().0;
        let credentials = new_credentials(PASSWORD, 4_096, &mut |salt| salt.fill(7)).unwrap();
        let create = |user: String| Write::CreateAccount {
            owner: BareJid::parse(&format!("{user}@here")).unwrap(),
            credentials: credentials.clone(),
        };
        writer.commit(&(0..20).map(|n| create(format!("user{n}"))).collect::<Vec<_>>()).unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["here".into()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let key = rustls::crypto::ring::sign::any_supported_type(&key).unwrap();
        let key = rustls::sign::CertifiedKey::new(vec![certificate.clone()], key);
        let tls = TlsServer::new(Certificates::new(key, BTreeMap::new(), None)).unwrap();
        let mailboxes = Mailboxes::default();
        let nodes = [1, 2]
            .map(|node| Some(start_node(run(node), &placement, &store, &tls, mailboxes.clone())));
        let cluster = Cluster { nodes: nodes.into(), mailboxes, certificate, placement };
        cluster.tell(run(1), || Incoming::Up(run(2)));
        cluster.tell(run(2), || Incoming::Up(run(1)));
        cluster
    }

    fn tell(&self, to: Run, incoming: impl Fn() -> Incoming) {
        let node = self.nodes.iter().flatten().find(|node| node.run == to).unwrap();
        node.mailboxes.iter().for_each(|mailbox| mailbox.send(Letter::Link(incoming())));
    }

    /// The link between the nodes breaks, and stays so.
    fn cut(&self) {
        self.mailboxes.lock().unwrap().clear();
        self.tell(run(1), || Incoming::Down(run(2)));
        self.tell(run(2), || Incoming::Down(run(1)));
    }

    /// A user whose account is at this node, at its first or last shard.
    fn user_of(&self, node: u32, shard: u16) -> String {
        let owner = |user: &String| {
            let jid = BareJid::parse(&format!("{user}@here")).unwrap();
            self.placement.owner(jid.hash64())
        };
        let wanted = Owner { node: NodeId(node), shard: ShardId(shard) };
        (0..20).map(|n| format!("user{n}")).find(|user| owner(user) == wanted).unwrap()
    }

    fn node(&self, node: u32) -> &Node {
        self.nodes.iter().flatten().find(|it| it.run.node.0 == node).unwrap()
    }

    /// Connections of the node's shards, wherever their sockets are.
    fn connections(&self, node: u32) -> u64 {
        let count = |mailbox: &Mailbox| {
            let (answer, figures) = std::sync::mpsc::channel();
            mailbox.send(Letter::Status(answer));
            figures.recv().unwrap().connections
        };
        self.node(node).mailboxes.iter().map(count).sum()
    }

    fn connect(&self, node: u32) -> Client<TcpStream> {
        Client::over(dial(self.node(node).plain))
    }

    fn connect_tls(&self, node: u32) -> Client<impl Read + std::io::Write + use<>> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("here").unwrap();
        let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        Client::over(rustls::StreamOwned::new(connection, dial(self.node(node).tls)))
    }

    fn stop(&mut self, node: u32) {
        let slot =
            self.nodes.iter_mut().find(|it| it.as_ref().is_some_and(|it| it.run.node.0 == node));
        let Node { mailboxes, cores, storage, .. } = slot.unwrap().take().unwrap();
        mailboxes.iter().for_each(|mailbox| mailbox.send(Letter::Shutdown));
        cores.join();
        storage.stop();
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in [1, 2] {
            if self.nodes.iter().flatten().any(|it| it.run.node.0 == node) {
                self.stop(node);
            }
        }
    }
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn start_node(
    run: Run,
    placement: &Arc<Placement>,
    store: &MemoryStore,
    tls: &TlsServer,
    all: Mailboxes,
) -> Node {
    let features = Settings::default();
    let mut policy = C2sPolicy::new("here", features::stream_features(&features));
    policy.tls_required = false;
    let mut config = ShardConfig::new(policy, Limits::default());
    (config.node, config.scram_iterations) = (run.node, 4_096);
    let (mailboxes, letters): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| Mailbox::new()).unzip();
    all.lock().unwrap().insert(run, mailboxes.clone());
    let writer = store.open().0;
    let readers: Vec<Box<dyn Reader>> = vec![Box::new(store.reader())];
    let askers: Vec<Arc<dyn StoreAsker>> =
        mailboxes.iter().map(|mailbox| Arc::new(mailbox.clone()) as Arc<dyn StoreAsker>).collect();
    let storage = Storage::start(vec![Box::new(writer)], readers, &askers, || ()).unwrap();
    let clock = Clock::start();
    let runner: Arc<dyn Runner> = Arc::new(NoErrands);
    let wire = Mutex::new(Wire { run, mailboxes: all });
    let setup = Setup {
        shards: SHARDS,
        config: Arc::new(config),
        placement: placement.clone(),
        features: Arc::new(move || features::with(&features)),
        settings: CoreSettings {
            tls: tls.clone(),
            balancers: None,
            connections_max: 100,
            handshakes_max: 10,
            handshake_timeout: PATIENCE,
            redirects: false,
            shutdown_timeout: PATIENCE,
        },
        passwords: Passwords::start(1, 100, &mailboxes).unwrap(),
        errands: Errands::start(&runner, 10, &mailboxes).unwrap(),
        clock,
        beats: Beats::new(SHARDS, clock),
        measures: false,
        membership: None,
        links: Some(Arc::new(move || -> Box<dyn Carrier> {
            Box::new(wire.lock().unwrap().clone())
        })),
    };
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let plain = listen("plain", Transport::Plain, any, SHARDS).unwrap();
    let direct = listen("tls", Transport::DirectTls, any, SHARDS).unwrap();
    let addresses = (plain.address, direct.address);
    let sockets = [plain, direct].into_iter().map(|one| (one.transport, one.sockets)).collect();
    let bells: Vec<_> = mailboxes.iter().map(|mailbox| mailbox.bell().clone()).collect();
    let done = Done::new(bells.len());
    let ways = Ways { mailboxes: mailboxes.clone(), letters, rings: mesh(&bells), done };
    let cores = executor::start(setup, sockets, ways, &storage, |_| ()).unwrap();
    Node { run, plain: addresses.0, tls: addresses.1, mailboxes, cores, storage }
}

struct Client<S> {
    stream: S,
    heard: String,
}

const HEADER: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='here' version='1.0'>";

impl<S: Read + std::io::Write> Client<S> {
    fn over(stream: S) -> Self {
        Self { stream, heard: String::new() }
    }

    fn say(&mut self, xml: &str) {
        self.stream.write_all(xml.as_bytes()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Reads until this was said; gives all up to it.
    fn hear(&mut self, text: &str) -> String {
        let mut from = 0;
        loop {
            if let Some(at) = self.heard[from..].find(text) {
                let rest = self.heard.split_off(from + at + text.len());
                return std::mem::replace(&mut self.heard, rest);
            }
            from = self.heard.len().saturating_sub(text.len());
            assert!(self.read() > 0, "the stream ends before {text}: {}", self.heard);
        }
    }

    fn read(&mut self) -> usize {
        let mut bytes = [0; 16 << 10];
        let length = self.stream.read(&mut bytes).unwrap_or(0);
        // These tests speak ASCII.
        self.heard.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        length
    }

    /// What is said until the end.
    fn hear_out(&mut self) -> String {
        while self.read() > 0 {}
        std::mem::take(&mut self.heard)
    }

    fn open(&mut self) {
        self.say(HEADER);
        self.hear("</stream:features>");
    }

    fn authenticate(&mut self, user: &str) {
        self.open();
        let message = encode_payload(&plain("", user, PASSWORD));
        let sasl = "urn:ietf:params:xml:ns:xmpp-sasl";
        self.say(&format!("<auth xmlns='{sasl}' mechanism='PLAIN'>{message}</auth>"));
        self.hear("<success");
        self.open();
    }

    /// Logs in and binds `user@here/x`.
    fn bind(&mut self, user: &str) {
        self.authenticate(user);
        self.say(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>x</resource></bind></iq>",
        );
        self.hear(&format!("<jid>{user}@here/x</jid>"));
    }

    /// As `bind`; the session can be resumed by what is given.
    fn login(&mut self, user: &str) -> String {
        self.bind(user);
        self.say("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        let enabled = self.hear("<enabled") + &self.hear("/>");
        let id = enabled.split(" id='").nth(1).unwrap_or_else(|| panic!("{enabled}"));
        id.split('\'').next().unwrap().to_owned()
    }

    fn ping(&mut self) {
        self.say("<iq type='get' id='ping' to='here'><ping xmlns='urn:xmpp:ping'/></iq>");
        assert!(self.hear("id='ping'").contains("<iq"));
    }
}

fn with_resumption(heard: &str) -> String {
    format!("<resume xmlns='urn:xmpp:sm:3' h='0' previd='{heard}'/>")
}

#[test]
fn client_is_served_by_the_node_of_its_account_wherever_it_connects() {
    let cluster = Cluster::start();
    for (front, owner, shard) in [(1, 2, 0), (1, 2, 1), (2, 1, 1)] {
        let user = cluster.user_of(owner, shard);
        let mut plain = cluster.connect(front);
        plain.login(&user);
        plain.ping();
        assert_eq!((cluster.connections(front), cluster.connections(owner)), (0, 1));
        plain.say("</stream:stream>");
        assert!(plain.hear_out().ends_with("</stream:stream>"));
        let mut tls = cluster.connect_tls(front);
        tls.login(&user);
        tls.ping();
        tls.say("</stream:stream>");
        assert!(tls.hear_out().ends_with("</stream:stream>"));
        // Their sockets linger until the clients are gone.
        drop((plain, tls));
        while cluster.connections(owner) > 0 {
            std::thread::yield_now();
        }
    }
}

/// Both are many times what may be on its way at once.
#[test]
fn much_in_both_directions_keeps_its_order() {
    let cluster = Cluster::start();
    let user = cluster.user_of(2, 0);
    let mut client = cluster.connect(1);
    client.bind(&user);
    client.say("<presence/>");
    let body = "x".repeat(900);
    let mut writer = client.stream.try_clone().unwrap();
    let count = 2_000;
    let to = format!("{user}@here/x");
    let writing = std::thread::spawn(move || {
        for number in 0..count {
            let message = format!(
                "<message to='{to}' type='chat' id='m{number}'><body>{body}</body></message>"
            );
            writer.write_all(message.as_bytes()).unwrap();
        }
    });
    for number in 0..count {
        let heard = client.hear("</message>");
        assert!(heard.contains(&format!(" id='m{number}'")), "{number}: {heard}");
    }
    writing.join().unwrap();
}

#[test]
fn client_that_leaves_can_resume_its_session_at_the_other_node() {
    let cluster = Cluster::start();
    let user = cluster.user_of(2, 0);
    let mut client = cluster.connect(1);
    let id = client.login(&user);
    drop(client);
    let mut client = cluster.connect(2);
    client.authenticate(&user);
    client.say(&with_resumption(&id));
    client.hear("<resumed");
}

#[test]
fn broken_link_ends_streams_in_order_and_sessions_wait_for_their_clients() {
    let cluster = Cluster::start();
    let user = cluster.user_of(2, 1);
    let mut client = cluster.connect_tls(1);
    let id = client.login(&user);
    cluster.cut();
    let last = client.hear_out();
    assert!(last.contains("<system-shutdown") && last.ends_with("</stream:stream>"), "{last}");
    let mut client = cluster.connect(2);
    client.authenticate(&user);
    client.say(&with_resumption(&id));
    client.hear("<resumed");
}

#[test]
fn account_whose_node_is_out_of_reach_is_refused_and_others_are_served() {
    let cluster = Cluster::start();
    cluster.cut();
    let mut client = cluster.connect(1);
    client.open();
    let message = encode_payload(&plain("", &cluster.user_of(2, 0), PASSWORD));
    let sasl = "urn:ietf:params:xml:ns:xmpp-sasl";
    client.say(&format!("<auth xmlns='{sasl}' mechanism='PLAIN'>{message}</auth>"));
    let last = client.hear_out();
    assert!(last.contains("<remote-connection-failed"), "{last}");
    cluster.connect(1).login(&cluster.user_of(1, 0));
}

#[test]
fn client_that_tries_an_account_of_a_third_shard_comes_again() {
    let cluster = Cluster::start();
    let mut client = cluster.connect(1);
    client.open();
    let sasl = "urn:ietf:params:xml:ns:xmpp-sasl";
    let mut try_as = |user: &str| {
        let message = encode_payload(&plain("", user, "wrong"));
        client.say(&format!("<auth xmlns='{sasl}' mechanism='PLAIN'>{message}</auth>"));
    };
    try_as(&cluster.user_of(2, 0));
    try_as(&cluster.user_of(2, 1));
    let last = client.hear_out();
    assert!(last.contains("<not-authorized") && last.contains("<reset"), "{last}");
}

#[test]
fn node_that_stops_ends_its_streams_wherever_their_sockets_or_sessions_are() {
    let mut cluster = Cluster::start();
    let user = cluster.user_of(2, 0);
    let mut at_front = cluster.connect(1);
    let id = at_front.login(&user);
    let mut at_owner = cluster.connect(2);
    at_owner.login(&cluster.user_of(1, 0));
    cluster.stop(1);
    for client in [&mut at_front, &mut at_owner] {
        let last = client.hear_out();
        assert!(last.contains("<system-shutdown") && last.ends_with("</stream:stream>"), "{last}");
    }
    let mut client = cluster.connect(2);
    client.authenticate(&user);
    client.say(&with_resumption(&id));
    client.hear("<resumed");
}

#[test]
fn fronts_that_are_let_go_end_within_the_time_and_who_comes_later_stays() {
    let cluster = Cluster::start();
    let mut clients = [0, 1].map(|shard| {
        let mut client = cluster.connect(1);
        client.login(&cluster.user_of(2, shard));
        client
    });
    let mut at_home = cluster.connect(1);
    at_home.login(&cluster.user_of(1, 0));
    let depart = |order: Option<&Departing>| {
        for mailbox in &cluster.node(1).mailboxes {
            mailbox.send(Letter::Depart(order.cloned()));
        }
    };
    // It is called off before anybody's time has come.
    let never = Departing::new(Duration::from_secs(86_400), SHARDS.into());
    depart(Some(&never));
    depart(None);
    while !never.is_done() {
        std::thread::yield_now();
    }
    clients.iter_mut().for_each(Client::ping);
    let departing = Departing::new(Duration::from_millis(800), SHARDS.into());
    depart(Some(&departing));
    let mut late = cluster.connect(1);
    late.authenticate(&cluster.user_of(2, 0));
    for client in &mut clients {
        let last = client.hear_out();
        assert!(last.contains("<system-shutdown") && last.ends_with("</stream:stream>"), "{last}");
    }
    assert!(departing.is_done());
    late.say(
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <resource>late</resource></bind></iq>",
    );
    late.hear("@here/late</jid>");
    at_home.ping();
}
