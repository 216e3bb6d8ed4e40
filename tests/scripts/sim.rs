//! Shards around a store in memory, configured as a node is.

use std::time::Duration;

use corefire::config::Config;
use corefire::stream::TlsFacts;
use corefire::stream::sasl::ScramHashes;
use corefire::xmpp::jid::BareJid;

use crate::driver::{Conn, Driver, Event, Way};
use crate::harness::{Client, Node};

pub(crate) struct Simulation {
    node: Node,
    shards: usize,
    clients: Vec<Wire>,
}

/// By which time passes for who waits.
const STEP: Duration = Duration::from_millis(100);
/// Of all connections; nobody here could use one for another.
const EXPORTER: [u8; 32] = [5; 32];

fn bindable() -> TlsFacts {
    TlsFacts {
        exporter: Some(EXPORTER),
        end_point: Some([9; 32].as_slice().into()),
        ..TlsFacts::default()
    }
}

struct Wire {
    client: Client,
    exporter: Option<[u8; 32]>,
    is_closed: bool,
}

impl Simulation {
    /// - takes: `settings`, of Corefire; `accounts`, local parts
    pub(crate) fn new(
        shards: u16,
        settings: &[String],
        accounts: &[String],
    ) -> Result<Simulation, String> {
        let own = [format!("node.shards={shards}"), "domains=[\"here\"]".into()];
        let settings: Vec<String> = own.iter().chain(settings).cloned().collect();
        let config = Config::load(None, &settings, None).map_err(|error| error.to_string())?;
        let features = || corefire::features::with(&config.features);
        let change = |it: &mut corefire::shard::ShardConfig| {
            let iterations = it.scram_iterations;
            let policy = corefire::node::policy(&config, ScramHashes::default());
            let (incarnation, secret) = (it.incarnation, it.decoy_secret);
            *it = corefire::node::shard_config(&config, policy, shards, incarnation, secret);
            it.scram_iterations = iterations;
        };
        let mut node = Node::with_features(shards, change, features);
        node.users(&accounts.iter().map(String::as_str).collect::<Vec<_>>());
        Ok(Simulation { node, shards: usize::from(shards), clients: Vec::new() })
    }

    fn arrived(&mut self) -> Option<(Conn, Event)> {
        for (conn, wire) in self.clients.iter_mut().enumerate() {
            let text = self.node.read(wire.client);
            if !text.is_empty() {
                return Some((conn, Event::Bytes(text.into_bytes())));
            }
            if !self.node.is_open(wire.client) && !wire.is_closed {
                wire.is_closed = true;
                return Some((conn, Event::Closed));
            }
        }
        None
    }
}

impl Driver for Simulation {
    fn domain(&self) -> &'static str {
        "here"
    }

    fn connect(&mut self, way: &Way) -> Result<Conn, String> {
        // Not at the account's owner: sockets move.
        let shard = self.clients.len() % self.shards;
        let facts = match way {
            Way::Plain | Way::Component => TlsFacts::default(),
            Way::Tls => bindable(),
            Way::Certificate(address) => {
                let address = BareJid::parse(address).map_err(|error| error.to_string())?;
                TlsFacts { addresses: [address].into(), ..bindable() }
            }
        };
        let client = match way {
            Way::Component => self.node.connect_component(shard),
            _ => self.node.connect_as(shard, Some(facts)),
        };
        self.node.ignore_pings(client);
        let exporter = matches!(way, Way::Tls | Way::Certificate(_)).then_some(EXPORTER);
        self.clients.push(Wire { client, exporter, is_closed: false });
        Ok(self.clients.len() - 1)
    }

    fn exporter(&self, conn: Conn) -> Option<[u8; 32]> {
        self.clients[conn].exporter
    }

    fn send(&mut self, conn: Conn, bytes: &[u8]) {
        let client = self.clients[conn].client;
        if self.node.is_open(client) {
            self.node.send_bytes(client, bytes);
        }
    }

    /// All that follows from what was done at once has happened already; what takes its time, as the answer to one who
    /// guesses does, comes once so much time was waited for.
    fn next(&mut self, wait: Duration) -> Option<(Conn, Event)> {
        let mut waited = Duration::ZERO;
        loop {
            let event = self.arrived();
            if event.is_some() || waited >= wait {
                return event;
            }
            self.node.advance(STEP);
            waited += STEP;
        }
    }

    fn cut(&mut self, conn: Conn) {
        let client = self.clients[conn].client;
        if self.node.is_open(client) {
            self.node.cut(client);
        }
    }

    fn advance(&mut self, span: Duration) -> Result<(), String> {
        // In steps, so that timers that set timers run as they would.
        let steps = u32::try_from(span.as_secs()).map_err(|error| error.to_string())?.max(1);
        for _ in 0..steps {
            self.node.advance(span / steps);
        }
        Ok(())
    }
}
