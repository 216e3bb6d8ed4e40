//! The node's part in a cluster: its threads towards other nodes, and what they tell each other and the shards.
//!
//! One thread hears all: who lives (gossip), who is linked, what the database says. It tells the shards of new members,
//! and the authority of what it heard.

use super::drain::{Draining, Progress};
use super::{Event, told};
use crate::admin::figures::{ClusterFigures, LinkFigures};
use crate::base::rng::Rng;
use crate::cluster::authority::{Reason, Told};
use crate::cluster::membership::{Health, MemberEvent};
use crate::cluster::placement::{NodeId, PARTITIONS, ShardId};
use crate::cluster::secret::{Label, Secret};
use crate::cluster::view::{NodeFacts, Run, View};
use crate::config::Config;
use crate::frame::{FRAME_BYTES_MAX, VERSIONS};
use crate::runtime::clock::Clock;
use crate::runtime::cluster::authority::{self, Handle};
use crate::runtime::cluster::calls::{Calls, Ear, Question};
use crate::runtime::cluster::gossip::{Gossip, GossipCommand, GossipHandle, GossipSettings};
use crate::runtime::cluster::lease::Membership;
use crate::runtime::cluster::links::{
    self, Command, LinkEvent, LinkState, Links, LinksThread, PeerFigures, Sink,
};
use crate::runtime::cluster::port::{Carrier, Incoming};
use crate::runtime::cluster::secret;
use crate::runtime::cluster::threads::{start_gossip, start_links};
use crate::runtime::control::cluster::{ClusterEvent, ClusterLink, ClusterNode, ClusterStatus};
use crate::runtime::control::inquiry::{Finding, Inquiry};
use crate::runtime::executor::{self, MakeCarrier};
use crate::runtime::federation::FederationLetter;
use crate::runtime::mailbox::{Letter, Mailbox};
use crate::runtime::retention::Owns;
use crate::store::Place;
use crate::xmpp::jid::BareJid;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it is seen whether the shards have settled.
const STEP: Duration = Duration::from_millis(50);

/// How long another node may take to answer what an operator asks.
const ANSWER_PATIENCE: Duration = Duration::from_secs(6);

/// What the threads tell.
enum News {
    Authority(authority::Event),
    Member(MemberEvent),
    Link(LinkEvent),
    /// The node lets its clients go.
    Drain(Progress),
    /// It is to have this weight, whatever it was doing.
    Weigh(u32),
    Stop,
}

/// What everybody may ask of the node's part in the cluster. Cloned freely.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) membership: Membership,
    authority: Handle,
    gossip: GossipHandle,
    links: Links,
    calls: Calls,
    view: Arc<Mutex<Arc<View>>>,
    /// The last one, until the node gets another weight.
    drain: Arc<Mutex<Option<Progress>>>,
    news: Sender<News>,
    cores: usize,
}

impl Part {
    /// Asks other nodes, and waits for what they find; `None` where one did not answer in time, or what it answered makes no
    /// sense.
    pub(super) fn ask(&self, of: &[Run], inquiry: &Inquiry) -> Vec<Option<Finding>> {
        let Ok(text) = serde_json::to_vec(inquiry) else { return vec![None; of.len()] };
        let answers = self.calls.ask(of, &text, ANSWER_PATIENCE);
        answers.into_iter().map(|text| serde_json::from_slice(&text?).ok()).collect()
    }

    /// Answers what other nodes ask, until none of them can any more.
    pub(super) fn answer(
        &self,
        questions: Receiver<Question>,
        mut find: impl FnMut(Inquiry) -> Finding + Send + 'static,
    ) -> Result<JoinHandle<()>, super::Error> {
        let calls = self.calls.clone();
        thread("inquiries", move || {
            for question in questions {
                let finding = match serde_json::from_slice(&question.text) {
                    Ok(inquiry) => find(inquiry),
                    // Of a newer node.
                    Err(error) => Finding::Failed { message: error.to_string() },
                };
                if let Ok(text) = serde_json::to_vec(&finding) {
                    calls.answer(&question, text);
                }
            }
        })
    }

    pub(super) fn view(&self) -> Arc<View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gives away what it owns, and leaves; `Event::Left` comes then.
    pub(super) fn leave(&self) {
        self.authority.leave();
    }

    fn call_off(&self) {
        *self.drain.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Its share of the accounts from now on, at once. A drain is over.
    pub(super) fn weigh(&self, weight: u32) {
        self.call_off();
        let _ = self.news.send(News::Weigh(weight));
    }

    /// A step of a drain.
    pub(super) fn ask_for_weight(&self, weight: u32) {
        self.authority.weigh(weight);
    }

    /// Lets clients go within the span; `Event::Drained` comes then. One that was under way is replaced.
    pub(super) fn drain(&self, span: Duration) {
        let progress = Progress::new(span, self.cores);
        *self.drain.lock().unwrap_or_else(PoisonError::into_inner) = Some(progress.clone());
        let _ = self.news.send(News::Drain(progress));
    }

    /// The drain that is under way, or was done.
    pub(super) fn progress(&self) -> Option<Progress> {
        self.drain.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an account is this node's.
    pub(super) fn owns(&self, own: NodeId) -> Owns {
        let part = self.clone();
        Arc::new(move |jid: &BareJid| part.view().placement.owner(jid.hash64()).node == own)
    }

    pub(super) fn figures(&self, clock: Clock) -> ClusterFigures {
        let (view, links, gossip) = (self.view(), self.links.figures(), self.gossip.figures());
        let refused = links.refused.values().sum::<u64>()
            + gossip.beacons.refused.total()
            + gossip.gossip.refused.total();
        ClusterFigures {
            epoch: view.epoch(),
            is_settled: self.membership.settled_epoch() == view.epoch(),
            has_lease: self.membership.has_lease(clock.mono()),
            members: view.nodes.len() as u64,
            links_up: links.peers.iter().filter(|peer| peer.state == LinkState::Up).count() as u64,
            queue_bytes: links.peers.iter().map(|peer| peer.queue_bytes as u64).sum(),
            refused,
            links: links.peers.iter().map(link_figures).collect(),
        }
    }

    /// What this node knows of the cluster.
    pub(super) fn status(&self, own: NodeId, name: &str, clock: Clock) -> ClusterStatus {
        let (view, known) = (self.view(), self.authority.figures());
        let (gossip, links) = (self.gossip.figures(), self.links.figures());
        let mut refused: BTreeMap<String, u64> = BTreeMap::new();
        let mut add = |part: &str, word: &str, count: u64| {
            if count > 0 {
                refused.insert(format!("{part}: {word}"), count);
            }
        };
        for (word, count) in gossip.beacons.refused.iter() {
            add("beacon", word, count);
        }
        for (word, count) in gossip.gossip.refused.iter() {
            add("gossip", word, count);
        }
        for (word, count) in &links.refused {
            add("link", word, *count);
        }
        let mut partitions: BTreeMap<NodeId, usize> = BTreeMap::new();
        for partition in 0..PARTITIONS {
            *partitions.entry(view.placement.node(partition)).or_default() += 1;
        }
        let nodes = known
            .nodes
            .iter()
            .map(|node| {
                let facts = &node.facts;
                let is_it = |one: &(NodeFacts, Health)| one.0.run == facts.run;
                let health = match gossip.members.iter().find(|one| is_it(one)) {
                    _ if facts.run.node == own => "this",
                    Some((_, Health::Alive)) => "alive",
                    Some((_, Health::Suspect)) => "suspect",
                    None => "unknown",
                };
                ClusterNode {
                    name: facts.name.clone(),
                    id: facts.run.node.0,
                    incarnation: facts.run.incarnation,
                    state: node.state.word().to_owned(),
                    is_member: view.has(facts.run),
                    weight: facts.weight,
                    shards: facts.shards,
                    partitions: if view.has(facts.run) {
                        partitions.get(&facts.run.node).copied().unwrap_or(0)
                    } else {
                        0
                    },
                    address: facts.link.to_string(),
                    clients: facts.clients.clone(),
                    version: facts.version.clone(),
                    settled_epoch: node.settled,
                    lease_ms: u64::try_from(node.lease.as_millis()).unwrap_or(u64::MAX),
                    health: health.to_owned(),
                    link: links.peers.iter().find(|peer| peer.run == facts.run).map(link_status),
                }
            })
            .collect();
        let event = |event: &crate::store::postgres::cluster::Event| ClusterEvent {
            at: event.at.clone(),
            epoch: event.epoch,
            node: event.node.clone(),
            what: event.what.clone(),
        };
        ClusterStatus {
            node: name.to_owned(),
            epoch: view.epoch(),
            changed_at: known.changed_at.clone(),
            why: known.why.clone(),
            waiting: known.waiting.as_ref().map(ToString::to_string),
            is_settled: self.membership.settled_epoch() == view.epoch(),
            has_lease: self.membership.has_lease(clock.mono()),
            drain: self.progress().map(|progress| progress.figures()),
            nodes,
            events: known.events.iter().map(event).collect(),
            refused,
            clock_ahead_ms: gossip.beacons.ahead_ms,
        }
    }

    /// A core's own end of the links.
    pub(super) fn carriers(&self) -> MakeCarrier {
        let links = self.links.clone();
        Arc::new(move || -> Box<dyn Carrier> { Box::new(links.clone()) })
    }
}

fn link_figures(peer: &PeerFigures) -> LinkFigures {
    LinkFigures {
        node: peer.name.clone(),
        is_up: peer.state == LinkState::Up,
        rtt_s: peer.estimate.map(|estimate| estimate.rtt.as_secs_f64()),
        clock_ahead_s: peer.estimate.map(|estimate| estimate.offset_us as f64 / 1e6),
        queue_bytes: peer.queue_bytes as u64,
    }
}

fn link_status(peer: &PeerFigures) -> ClusterLink {
    ClusterLink {
        state: match peer.state {
            LinkState::Up => "up",
            LinkState::Dialling => "dialling",
            LinkState::Awaited => "awaited",
        }
        .to_owned(),
        rtt_us: peer
            .estimate
            .map(|estimate| u64::try_from(estimate.rtt.as_micros()).unwrap_or(u64::MAX)),
        clock_ahead_us: peer.estimate.map(|estimate| estimate.offset_us),
        bytes_in: peer.bytes_in,
        bytes_out: peer.bytes_out,
        queue_bytes: peer.queue_bytes as u64,
        reconnects: peer.reconnects,
        last_end: peer.last_end.clone(),
    }
}

/// The threads. Dropped last: what other nodes still have to hear leaves before.
pub(super) struct Threads {
    news: Sender<News>,
    authority: Handle,
    authority_thread: Option<JoinHandle<()>>,
    gossip: GossipHandle,
    others: Vec<JoinHandle<()>>,
    links: Option<LinksThread>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.gossip.command(GossipCommand::Leave);
        self.authority.stop();
        let _ = self.news.send(News::Stop);
        join(self.authority_thread.take());
        // Who hears what links tell ends with the links.
        self.links = None;
        join(self.others.drain(..));
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the cluster had panicked");
        }
    }
}

/// What comes over links goes to the shards' mailboxes.
struct Mailboxes(Vec<Mailbox>);

impl Sink for Mailboxes {
    fn deliver(&self, shard: ShardId, incoming: Incoming) {
        if let Some(mailbox) = self.0.get(usize::from(shard.0)) {
            mailbox.send(Letter::Link(incoming));
        }
    }
}

/// What the node is in the cluster, before it takes part.
pub(super) struct Entry {
    secret: Secret,
    bind: SocketAddr,
    listener: TcpListener,
}

impl Entry {
    /// The secret from which accounts that do not exist get their salts: the same at each node.
    pub(super) fn decoy_secret(&self) -> [u8; 32] {
        self.secret.derive(Label::Decoys)
    }

    /// What dialback keys are made of.
    pub(super) fn dialback_secret(&self) -> [u8; 32] {
        self.secret.derive(Label::Dialback)
    }
}

/// Reads the secret and takes the address for links: what can be wrong about them is told before anything is opened.
pub(super) fn prepare(config: &Config) -> Result<Entry, super::Error> {
    let missing = |key: &str| super::Error::Other(format!("cluster.{key} is not set"));
    let path = config.cluster.secret_file.as_ref().ok_or_else(|| missing("secret_file"))?;
    let secret = secret::read(path)
        .map_err(|error| super::Error::Other(format!("cluster.secret_file: {error}")))?;
    let bind = config.cluster.bind.ok_or_else(|| missing("bind"))?;
    let listener = TcpListener::bind(bind).map_err(|error| {
        told(
            &format!(
                "cluster.bind: {bind} cannot be listened on; write a free address of this host"
            ),
            &error,
        )
    })?;
    Ok(Entry { secret, bind, listener })
}

/// Starts the threads. The node takes part as soon as the database says so; `Event::Joined` comes then.
///
/// - gives: what other nodes ask, too, for `Part::answer`
///
/// - takes: `run`, as the store gave it; `mailboxes` of the shards, which may start later
pub(super) fn start(
    entry: Entry,
    config: &Config,
    run: Run,
    clock: Clock,
    (mailboxes, of_federation): (&[Mailbox], &[Mailbox<FederationLetter>]),
    events: Sender<Event>,
) -> Result<(Part, Receiver<Question>, Threads), super::Error> {
    let Entry { secret, bind, listener } = entry;
    let shards = u16::try_from(mailboxes.len()).unwrap_or(u16::MAX);
    let facts = NodeFacts {
        name: config.node_name(),
        run,
        shards,
        weight: config.cluster.weight,
        link: bind,
        clients: config.cluster.clients.clone(),
        components: config.cluster.components.clone(),
        federates: config.federation.enabled,
        frames: VERSIONS,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let (news, heard) = channel();
    let of_links = news.clone();
    let (ear, questions) = Ear::new();
    let ear = Arc::new(ear);
    let hears = ear.clone();
    let (links, link_news) = start_links(
        links::Settings {
            listener,
            facts: facts.clone(),
            secret: secret.clone(),
            frame_bytes_max: FRAME_BYTES_MAX,
            clock,
            seed: executor::seed(),
        },
        Arc::new(Mailboxes(mailboxes.to_vec())),
        move |event| match event {
            LinkEvent::Asked(from, number, text) => hears.asked(from, number, text),
            LinkEvent::Answered(from, number, text) => hears.answered(from, number, text),
            event => {
                if let LinkEvent::Down(run, _) = &event {
                    hears.lost(*run);
                }
                let _ = of_links.send(News::Link(event));
            }
        },
    )
    .map_err(|error| told("links to other nodes cannot be made", &error))?;
    let mut others = vec![link_news];

    let settings = GossipSettings {
        bind,
        group: config.cluster.multicast.group,
        interface: config.cluster.multicast.interface,
        seeds: config.cluster.seeds.clone(),
        dns: config.cluster.dns.clone(),
        keys: (secret.derive(Label::Beacons), secret.derive(Label::Gossip)),
    };
    let of_members = news.clone();
    let tell = move |event| {
        let _ = of_members.send(News::Member(event));
    };
    let rng = Rng::from_seed(executor::seed());
    let (gossip, gossip_handle) = Gossip::bind(&settings, facts.clone(), clock, rng, tell)
        .map_err(|error| super::Error::Other(error.to_string()))?;
    let gossip = start_gossip(gossip)
        .map_err(|error| told("the thread of the cluster cannot be started", &error))?;
    others.push(gossip);

    let Place::Postgres(database) = config.store_place() else {
        return Err(super::Error::Other("the nodes of a cluster share a PostgreSQL".to_owned()));
    };
    let of_authority = news.clone();
    let (authority, authority_thread) =
        authority::start(&database, facts.clone(), clock, move |event| {
            let _ = of_authority.send(News::Authority(event));
        })
        .map_err(|error| told("the thread of the authority cannot be started", &error))?;

    let membership = Membership::new(shards);
    let part = Part {
        membership: membership.clone(),
        authority: authority.clone(),
        gossip: gossip_handle.clone(),
        links: links.links().clone(),
        calls: ear.calls(links.links().clone()),
        view: Arc::new(Mutex::new(Arc::new(View::single(&facts.name, shards, run.incarnation)))),
        drain: Arc::default(),
        news: news.clone(),
        cores: mailboxes.len(),
    };
    let hub = Hub {
        me: facts,
        part: part.clone(),
        mailboxes: mailboxes.to_vec(),
        of_federation: of_federation.to_vec(),
        events,
        clock,
        draining: None,
        known: BTreeMap::new(),
        alive: BTreeSet::new(),
        has_joined: false,
        settled: 0,
        peers: Vec::new(),
    };
    others.push(thread("members", move || hub.run(&heard))?);
    let threads = Threads {
        news,
        authority,
        authority_thread: Some(authority_thread),
        gossip: gossip_handle,
        others,
        links: Some(links),
    };
    Ok((part, questions, threads))
}

fn thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, super::Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| told(&format!("the thread {name} cannot be started"), &error))
}

/// The thread that hears all.
struct Hub {
    me: NodeFacts,
    part: Part,
    mailboxes: Vec<Mailbox>,
    of_federation: Vec<Mailbox<FederationLetter>>,
    events: Sender<Event>,
    clock: Clock,
    draining: Option<Draining>,
    /// Runs of other nodes of which anybody spoke, by node.
    known: BTreeMap<Run, NodeFacts>,
    /// Those that live, by gossip.
    alive: BTreeSet<Run>,
    has_joined: bool,
    settled: u64,
    /// Those that the links were told of last.
    peers: Vec<Run>,
}

impl Hub {
    fn run(mut self, heard: &Receiver<News>) {
        loop {
            match heard.recv_timeout(STEP) {
                Ok(News::Authority(event)) => self.decided(event),
                Ok(News::Member(event)) => self.member(event),
                Ok(News::Link(event)) => self.link(event),
                Ok(News::Drain(progress)) => self.drain(progress),
                Ok(News::Weigh(weight)) => self.weigh(weight),
                Ok(News::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let settled = self.part.membership.settled_epoch();
            if settled != self.settled {
                self.settled = settled;
                self.part.authority.settled(settled);
                if settled > 0 {
                    tracing::info!(epoch = settled, "all shards have what is theirs");
                }
            }
            self.let_some_go();
        }
    }

    fn drain(&mut self, progress: Progress) {
        self.depart(Some(&progress));
        let (own, now) = (self.me.run.node, self.clock.mono());
        self.draining = Some(Draining::new(own, &self.part.view(), now, progress));
    }

    fn weigh(&mut self, weight: u32) {
        self.draining = None;
        self.depart(None);
        self.part.ask_for_weight(weight);
    }

    fn depart(&self, progress: Option<&Progress>) {
        for mailbox in &self.mailboxes {
            mailbox.send(Letter::Depart(progress.map(|progress| progress.departing.clone())));
        }
    }

    fn let_some_go(&mut self) {
        let Some(draining) = &mut self.draining else { return };
        if draining.go_on(&self.part, self.clock.mono()) {
            self.draining = None;
            let _ = self.events.send(Event::Drained);
        }
    }

    fn decided(&mut self, event: authority::Event) {
        match event {
            authority::Event::Adopt(view) => self.adopt(view),
            authority::Event::Lease(until) => self.part.membership.set_lease(until),
            authority::Event::Waiting(None) => tracing::info!("the cluster goes on"),
            authority::Event::Waiting(Some(reason)) => self.waits(&reason),
            authority::Event::Fenced => {
                let _ = self.events.send(Event::Fenced);
            }
            authority::Event::Left => {
                let _ = self.events.send(Event::Left);
            }
        }
    }

    fn waits(&self, reason: &Reason) {
        tracing::warn!(why = %reason, "the cluster waits");
    }

    fn adopt(&mut self, view: Arc<View>) {
        let names: Vec<&str> = view.nodes.iter().map(|node| node.name.as_str()).collect();
        tracing::info!(epoch = view.epoch(), members = %names.join(" "), "members");
        *self.part.view.lock().unwrap_or_else(PoisonError::into_inner) = view.clone();
        let weight = view.node(self.me.run.node).map_or(0, |node| node.weight);
        if weight > 0 && self.part.progress().is_some_and(|progress| progress.is_done()) {
            tracing::warn!(weight, "serves again, as nobody else does: it is drained no more");
            self.part.call_off();
            self.weigh(weight);
        }
        for node in &view.nodes {
            self.meet(node);
            if node.run != self.me.run {
                self.part.gossip.command(GossipCommand::Join(node.link));
            }
        }
        for mailbox in &self.mailboxes {
            mailbox.send(Letter::View(view.clone()));
        }
        for mailbox in &self.of_federation {
            mailbox.send(FederationLetter::View(view.clone()));
        }
        self.part.links.command(Command::Epoch(view.epoch()));
        self.tell_links();
        if !std::mem::replace(&mut self.has_joined, true) {
            let _ = self.events.send(Event::Joined);
        }
    }

    fn meet(&mut self, facts: &NodeFacts) {
        if facts.run.node != self.me.run.node {
            self.known.insert(facts.run, facts.clone());
        }
    }

    fn member(&mut self, event: MemberEvent) {
        match event {
            MemberEvent::Up(facts) => {
                let run = facts.run;
                self.meet(&facts);
                self.alive.insert(run);
                self.tell_links();
                self.part.authority.told(Told::Alive(run));
            }
            MemberEvent::Changed(facts) => self.meet(&facts),
            MemberEvent::Suspect(_) => {}
            MemberEvent::Trusted(run) => self.part.authority.told(Told::Alive(run)),
            MemberEvent::Dead(run) => {
                self.alive.remove(&run);
                self.tell_links();
                self.part.authority.told(Told::Dead(run));
            }
            MemberEvent::Left(run) => {
                self.alive.remove(&run);
                self.tell_links();
                self.part.authority.told(Told::Left(run));
            }
            // Gossip has told people of it.
            MemberEvent::Twins { .. } | MemberEvent::TakenForDead | MemberEvent::Gone => {}
        }
    }

    fn link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up(facts) => {
                self.part.authority.told(Told::Linked(facts.run));
            }
            LinkEvent::Down(run, _) => {
                self.part.authority.told(Told::Unlinked(run));
            }
            LinkEvent::Epoch(_, epoch) => self.part.authority.told(Told::EpochTold(epoch)),
            LinkEvent::Left(run) => self.part.authority.told(Told::Left(run)),
            // They went where they belong.
            LinkEvent::Asked(..) | LinkEvent::Answered(..) => {}
        }
    }

    /// There should be links to the newest run of each node that lives, or is a member.
    fn tell_links(&mut self) {
        let view = self.part.view();
        let alive = &self.alive;
        self.known.retain(|run, _| alive.contains(run) || view.has(*run));
        let mut newest: BTreeMap<_, &NodeFacts> = BTreeMap::new();
        for (run, facts) in &self.known {
            newest.insert(run.node, facts);
        }
        let peers: Vec<NodeFacts> = newest.into_values().cloned().collect();
        let runs: Vec<Run> = peers.iter().map(|peer| peer.run).collect();
        if runs != self.peers {
            self.peers = runs;
            self.part.links.command(Command::Peers(peers));
        }
    }
}
