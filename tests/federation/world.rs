//! Actors that talk to each other over a network in memory, on a virtual clock. What is random comes from a seed.

use crate::certs;
use crate::rig::{Got, Rig, START, Wish, config, plan};
use corefire::base::instant::{Instant, Now, Wall};
use corefire::base::rng::Rng;
use corefire::federation::discovery::Problem;
use corefire::federation::{
    Attempt, ConnId, Connected, DialProblem, FederationConfig, Input, Lost, PeerTls,
};
use corefire::frame::{Flags, Kind};
use corefire::store::memory::MemoryStore;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// One end of a link.
type End = (usize, ConnId);

struct Link {
    ends: [End; 2],
    up: bool,
    /// What each end sends arrives in order, not before this.
    arrives: [Instant; 2],
}

enum Event {
    Resolved(End, Arc<str>),
    Dialled(End),
    Bytes { link: usize, to: usize, bytes: Vec<u8> },
    Secured { link: usize },
    Closed { link: usize, to: usize, why: Lost },
}

pub(crate) struct Node {
    pub(crate) rig: Option<Rig>,
    pub(crate) domain: String,
    /// What it shows of itself in handshakes.
    pub(crate) tls: PeerTls,
    /// Nobody reaches it.
    pub(crate) is_deaf: bool,
    /// All that its shards ever got.
    pub(crate) got: Vec<Got>,
    runs: u64,
    store: MemoryStore,
    config: FederationConfig,
}

pub(crate) struct World {
    pub(crate) nodes: Vec<Node>,
    links: Vec<Link>,
    events: BTreeMap<(Instant, u64), Event>,
    count: u64,
    now: Instant,
    pub(crate) rng: Rng,
    pub(crate) latency: Duration,
    /// Of so many deliveries one breaks its link instead; 0: none.
    pub(crate) breaks: u64,
    dialled: BTreeMap<End, Vec<(usize, String)>>,
}

impl World {
    /// Nodes with these domains, whose certificates nobody vouches for.
    pub(crate) fn new(seed: u64, domains: &[&str]) -> World {
        World::with(seed, domains, |_| {})
    }

    pub(crate) fn with(
        seed: u64,
        domains: &[&str],
        adapt: impl Fn(&mut FederationConfig),
    ) -> World {
        let node = |(at, domain): (usize, &&str)| {
            let mut config = config(domain);
            adapt(&mut config);
            let store = MemoryStore::new();
            let seed = seed * 100 + at as u64;
            Node {
                rig: Some(Rig::on(store.clone(), config.clone(), seed, START)),
                domain: (*domain).to_owned(),
                tls: certs::self_signed(domain),
                is_deaf: false,
                got: Vec::new(),
                runs: seed * 1_000,
                store,
                config,
            }
        };
        World {
            nodes: domains.iter().enumerate().map(node).collect(),
            links: Vec::new(),
            events: BTreeMap::new(),
            count: 0,
            now: START.mono,
            rng: Rng::from_u64(seed),
            latency: Duration::from_millis(5),
            breaks: 0,
            dialled: BTreeMap::new(),
        }
    }

    pub(crate) fn certified(mut self) -> World {
        for node in &mut self.nodes {
            node.tls = certs::valid(&node.domain);
        }
        self
    }

    pub(crate) fn rig(&mut self, node: usize) -> &mut Rig {
        self.nodes[node].rig.as_mut().expect("it runs")
    }

    /// Does something to a node, and lets the world take what comes of it.
    pub(crate) fn at<T>(&mut self, node: usize, work: impl FnOnce(&mut Rig) -> T) -> T {
        let now = self.time();
        let rig = self.rig(node);
        rig.now = now;
        let result = work(rig);
        self.settle(node);
        result
    }

    fn time(&self) -> Now {
        let passed = self.now.since(START.mono).as_micros();
        Now { mono: self.now, wall: Wall(START.wall.0 + u64::try_from(passed).unwrap()) }
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.count += 1;
        self.events.insert((self.now + after, self.count), event);
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, span: Duration) {
        let until = self.now + span;
        loop {
            let event = self.events.first_key_value().map(|(at, _)| at.0);
            let timer = self
                .nodes
                .iter()
                .enumerate()
                .filter_map(|(at, node)| Some((node.rig.as_ref()?.federation.next_due()?, at)))
                .min();
            let next = event.into_iter().chain(timer.map(|timer| timer.0)).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            match timer {
                Some((due, node)) if event.is_none_or(|event| due < event) => {
                    self.at(node, |rig| rig.give(Input::Tick));
                }
                _ => {
                    if let Some((_, event)) = self.events.pop_first() {
                        self.happen(event);
                    }
                }
            }
        }
        self.now = until;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Resolved((node, conn), domain) => self.resolved(node, conn, &domain),
            Event::Dialled((node, conn)) => self.dialled(node, conn),
            Event::Bytes { link, to, bytes } => {
                if self.breaks > 0 && self.rng.below(self.breaks) == 0 {
                    return self.break_link(link);
                }
                let (node, conn) = self.links[link].ends[to];
                if self.links[link].up && self.is_alive(node) {
                    self.at(node, |rig| rig.give(Input::Bytes { conn, bytes: &bytes }));
                }
            }
            Event::Secured { link } => {
                for to in [1, 0] {
                    let (node, conn) = self.links[link].ends[to];
                    let peer = self.nodes.get(self.links[link].ends[1 - to].0);
                    let Some(tls) = peer.map(|peer| peer.tls.clone()) else { continue };
                    if self.links[link].up && self.is_alive(node) {
                        self.at(node, |rig| rig.secured(conn, tls));
                    }
                }
            }
            Event::Closed { link, to, why } => {
                let (node, conn) = self.links[link].ends[to];
                if self.is_alive(node) {
                    self.at(node, |rig| rig.give(Input::Closed { conn, why }));
                }
            }
        }
    }

    /// It runs, and is the run that had this end.
    fn is_alive(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(|node| node.rig.is_some())
    }

    fn resolved(&mut self, node: usize, conn: ConnId, domain: &str) {
        if self.nodes[node].rig.is_none() {
            return;
        }
        let known = self.nodes.iter().any(|node| node.domain == *domain);
        let outcome = match known {
            true => Ok(Arc::new(plan(&format!("{domain}:5269")))),
            false => Err(Problem::NoSuchDomain { ttl_s: 60 }),
        };
        let took = self.latency;
        self.at(node, |rig| rig.give(Input::Resolved { conn, outcome, took }));
    }

    fn dialled(&mut self, node: usize, conn: ConnId) {
        if self.nodes[node].rig.is_none() {
            return;
        }
        let Some(targets) = self.dialled.remove(&(node, conn)) else { return };
        let (target, host) = targets.first().cloned().expect("there is a target");
        let peer = self.nodes.iter().position(|node| node.domain == host);
        let peer =
            peer.filter(|peer| self.nodes[*peer].rig.is_some() && !self.nodes[*peer].is_deaf);
        let now = self.time();
        let accepted = peer.and_then(|peer| {
            let rig = self.rig(peer);
            rig.now = now;
            let address = format!("192.0.2.{}:40000", node + 1).parse().unwrap();
            Some((peer, rig.federation.accept(now, address, false)?))
        });
        let took = self.latency;
        let Some(end) = accepted else {
            let attempt = Attempt {
                target: plan(&format!("{host}:5269")).targets.remove(0),
                address: Some("192.0.2.9:5269".parse().unwrap()),
                why: DialProblem::Refused,
                took,
            };
            return self.at(node, |rig| {
                rig.give(Input::DialFailed { conn, attempts: vec![attempt] });
            });
        };
        let (ends, arrives) = ([(node, conn), end], [self.now; 2]);
        self.links.push(Link { ends, up: true, arrives });
        let connected = Connected {
            target,
            address: "192.0.2.9:5269".parse().unwrap(),
            took,
            tls: None,
            attempts: Vec::new(),
        };
        self.at(node, |rig| {
            rig.give(Input::Connected { conn, connected: Box::new(connected) });
        });
    }

    /// The link and end of a connection.
    fn link(&self, node: usize, conn: ConnId) -> Option<(usize, usize)> {
        self.links.iter().enumerate().rev().find_map(|(at, link)| {
            let end = link.ends.iter().position(|end| *end == (node, conn))?;
            Some((at, end))
        })
    }

    /// The world takes what a node wants of it.
    fn settle(&mut self, node: usize) {
        loop {
            let Some(rig) = self.nodes[node].rig.as_mut() else { return };
            let mut idle = true;
            let dirty = std::mem::take(&mut rig.fx.dirty);
            for conn in dirty {
                idle = false;
                let bytes = self.rig(node).said(conn).into_bytes();
                if let Some((link, end)) = self.link(node, conn).filter(|_| !bytes.is_empty()) {
                    self.send(link, 1 - end, |link, to| Event::Bytes { link, to, bytes });
                }
            }
            let wishes = std::mem::take(&mut self.rig(node).wishes);
            for wish in wishes {
                idle = false;
                self.wish(node, wish);
            }
            let got = std::mem::take(&mut self.rig(node).got);
            for got in got {
                idle = false;
                self.answer_ping(node, &got);
                self.nodes[node].got.push(got);
            }
            if idle {
                return;
            }
        }
    }

    /// As a shard does.
    fn answer_ping(&mut self, node: usize, got: &Got) {
        if got.kind != Kind::Iq || !got.text.contains("urn:xmpp:ping") || got.to.contains('@') {
            return;
        }
        let id = got.text.split("id='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
        let text = format!("<iq from='{}' to='{}' id='{id}' type='result'></iq>", got.to, got.from);
        self.rig(node).send_flagged(&text, Kind::Iq, 2, Flags::default());
    }

    fn send(&mut self, link: usize, to: usize, event: impl FnOnce(usize, usize) -> Event) {
        let spread = u64::try_from(self.latency.as_nanos()).unwrap();
        let at = self.now + self.latency + Duration::from_nanos(self.rng.below(spread));
        let slot = &mut self.links[link];
        let at = at.max(slot.arrives[to]);
        slot.arrives[to] = at;
        self.count += 1;
        self.events.insert((at, self.count), event(link, to));
    }

    fn wish(&mut self, node: usize, wish: Wish) {
        match wish {
            Wish::Resolve(conn, domain) => {
                self.plan(self.latency, Event::Resolved((node, conn), domain));
            }
            Wish::Dial(conn, plan, first) => {
                let hosts = plan.targets.iter().map(|target| target.host.clone());
                let targets = hosts.enumerate().skip(first).collect();
                self.dialled.insert((node, conn), targets);
                self.plan(self.latency, Event::Dialled((node, conn)));
            }
            Wish::StartTls(conn) => {
                // The client's side asks last.
                if let Some((link, 0)) = self.link(node, conn) {
                    self.plan(self.latency * 2, Event::Secured { link });
                }
            }
            Wish::Posh(..) => unreachable!("POSH is off"),
            Wish::Close(conn) => {
                if let Some((link, end)) = self.link(node, conn) {
                    let why = Lost::Closed;
                    self.send(link, 1 - end, |link, to| Event::Closed { link, to, why });
                    let why = Lost::Closed;
                    self.plan(self.latency, Event::Closed { link, to: end, why });
                } else {
                    let why = Lost::Closed;
                    self.rig(node).give(Input::Closed { conn, why });
                }
            }
            Wish::Abort(conn) => {
                if let Some((link, end)) = self.link(node, conn) {
                    self.send(link, 1 - end, |link, to| Event::Closed {
                        link,
                        to,
                        why: Lost::Reset,
                    });
                }
            }
        }
    }

    /// What is on its way is lost; both ends learn of it, some time.
    fn break_link(&mut self, link: usize) {
        if !std::mem::replace(&mut self.links[link].up, false) {
            return;
        }
        for to in [0, 1] {
            let after = Duration::from_millis(1 + self.rng.below(200));
            self.plan(after, Event::Closed { link, to, why: Lost::Reset });
        }
    }

    pub(crate) fn break_all(&mut self) {
        for link in 0..self.links.len() {
            self.break_link(link);
        }
    }

    /// kill -9, and a new start.
    pub(crate) fn restart(&mut self, node: usize) {
        let broken: Vec<usize> = (0..self.links.len())
            .filter(|link| self.links[*link].ends.iter().any(|end| end.0 == node))
            .collect();
        for link in broken {
            if std::mem::replace(&mut self.links[link].up, false) {
                let to = usize::from(self.links[link].ends[0].0 == node);
                self.plan(self.latency, Event::Closed { link, to, why: Lost::Reset });
            }
            // Its names of connections mean nothing to the next run.
            for end in &mut self.links[link].ends {
                if end.0 == node {
                    end.0 = usize::MAX;
                }
            }
        }
        self.forget(node);
        let now = self.time();
        let slot = &mut self.nodes[node];
        slot.runs += 1;
        slot.rig = Some(Rig::on(slot.store.clone(), slot.config.clone(), slot.runs, now));
        self.settle(node);
    }

    /// Events of a node that has ended.
    fn forget(&mut self, node: usize) {
        let links = &self.links;
        self.events.retain(|_, event| match event {
            Event::Resolved(end, _) | Event::Dialled(end) => end.0 != node,
            Event::Bytes { link, to, .. } | Event::Closed { link, to, .. } => {
                links[*link].ends[*to].0 != usize::MAX
            }
            Event::Secured { link } => links[*link].up,
        });
    }

    /// Ids of messages that the shards of a node got, in order, without errors.
    pub(crate) fn messages(&self, node: usize) -> Vec<String> {
        self.ids(node, false)
    }

    /// Ids of messages that came back as errors.
    pub(crate) fn bounced(&self, node: usize) -> Vec<String> {
        self.ids(node, true)
    }

    fn ids(&self, node: usize, errors: bool) -> Vec<String> {
        let messages = self.nodes[node].got.iter().filter(|got| got.kind == Kind::Message);
        messages
            .filter(|got| got.text.contains("type='error'") == errors)
            .filter_map(|got| Some(got.text.split(" id='").nth(1)?.split('\'').next()?.to_owned()))
            .collect()
    }
}
