//! Shards around a store in memory, configured as a node is.

use std::time::Duration;

use corefire::config::Config;

use crate::driver::{Conn, Driver, Event};
use crate::harness::{Client, Node};

pub(crate) struct Simulation {
    node: Node,
    shards: usize,
    clients: Vec<(Client, Told)>,
}

#[derive(Default)]
struct Told {
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
            let policy = corefire::node::policy(&config, true);
            let (incarnation, secret) = (it.incarnation, it.decoy_secret);
            *it = corefire::node::shard_config(&config, policy, shards, incarnation, secret);
            it.scram_iterations = iterations;
        };
        let mut node = Node::with_features(shards, change, features);
        node.users(&accounts.iter().map(String::as_str).collect::<Vec<_>>());
        Ok(Simulation { node, shards: usize::from(shards), clients: Vec::new() })
    }
}

impl Driver for Simulation {
    fn domain(&self) -> &'static str {
        "here"
    }

    fn connect(&mut self) -> Result<Conn, String> {
        // Not at the account's owner: sockets move.
        let client = self.node.connect(self.clients.len() % self.shards);
        self.node.ignore_pings(client);
        self.clients.push((client, Told::default()));
        Ok(self.clients.len() - 1)
    }

    fn send(&mut self, conn: Conn, bytes: &[u8]) {
        let client = self.clients[conn].0;
        if self.node.is_open(client) {
            self.node.send_bytes(client, bytes);
        }
    }

    /// All that follows from what was done has happened already: there is nothing to wait for.
    fn next(&mut self, _: Duration) -> Option<(Conn, Event)> {
        for (conn, (client, told)) in self.clients.iter_mut().enumerate() {
            let text = self.node.read(*client);
            if !text.is_empty() {
                return Some((conn, Event::Bytes(text.into_bytes())));
            }
            if !self.node.is_open(*client) && !told.is_closed {
                told.is_closed = true;
                return Some((conn, Event::Closed));
            }
        }
        None
    }

    fn cut(&mut self, conn: Conn) {
        let client = self.clients[conn].0;
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
