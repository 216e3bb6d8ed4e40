//! Rates of clients: what a session, an account and a network may send, and how many connections and sessions may be
//! new. Who is above a rate is not read for as long as it takes to pay, so that TCP slows the sender and nothing is
//! lost; others are not touched.
//!
//! Everything is charged after it was read, once for each read, so a read may be taken whole beyond a rate and is paid
//! for afterwards. A session's meter is in its connection and an account's in the account, both on one shard. A network
//! is metered on each shard for itself: new connections come to all shards alike (the kernel spreads them), so each has
//! its part of that rate; stanzas come to where the accounts are, so each shard's part is never below the rate of one
//! account, or somebody alone in a network would get less than was promised to an account.

use super::account::AccountId;
use super::conn::Hold;
use super::effect::{ConnId, Effects};
use super::{Core, Shard, Timer};
use crate::base::hash::Map;
use crate::base::ids::{Id, Slab};
use crate::base::instant::{Instant, Now};
use crate::base::limit::{Meter, Rate};
use crate::base::network::Network;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Stanzas and bytes of one party.
#[derive(Clone, Copy, Debug, Default)]
pub struct TrafficRate {
    pub stanzas: Rate,
    pub bytes: Rate,
}

/// Rates of one shard. None of them limits anything by default, as in simulation.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// Of one connection with a session; above, it is read no faster.
    pub session: TrafficRate,
    /// Reads and elements of a connection that has none yet; likewise.
    pub login: Rate,
    /// Of all sessions of an account; likewise.
    pub account: TrafficRate,
    /// Of all connections from a network, on this shard; likewise.
    pub network: TrafficRate,
    /// Connections from a network, on this shard; above, closed as they are accepted.
    pub connections: Rate,
    /// Sessions bound or resumed by an account; above, `resource-constraint` at the bind, and a resumption waits.
    pub sessions: Rate,
    /// Who is free of all rates.
    pub exempt: Vec<Network>,
    /// Origins without a connection whose past is remembered; the one that left first is forgotten first.
    pub networks: usize,
}

impl Rates {
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        self.exempt.iter().any(|network| network.contains(address))
    }
}

/// What one party has used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    stanzas: Meter,
    bytes: Meter,
}

impl Traffic {
    /// Gives when the party may be read again.
    #[inline]
    fn charge(&mut self, stanzas: u32, bytes: u32, rate: &TrafficRate, now: Instant) -> Instant {
        let first = self.stanzas.charge(stanzas, &rate.stanzas, now);
        first.max(self.bytes.charge(bytes, &rate.bytes, now))
    }
}

#[derive(Debug)]
struct Origin {
    network: Network,
    connections: Meter,
    traffic: Traffic,
    /// Connections from there on this shard.
    users: u32,
    /// It is in `Origins::idle`.
    idle: bool,
}

/// Networks that clients come from. One per core; bounded by the connections of the core and `Rates::networks`.
#[derive(Debug, Default)]
pub(super) struct Origins {
    entries: Slab<Origin>,
    names: Map<Network, Id>,
    idle: VecDeque<Id>,
}

impl Origins {
    fn find(&mut self, address: IpAddr) -> Id {
        let network = Network::around(address);
        let entries = &mut self.entries;
        *self.names.entry(network).or_insert_with(|| {
            let (connections, traffic) = (Meter::default(), Traffic::default());
            entries.insert(Origin { network, connections, traffic, users: 0, idle: false })
        })
    }

    /// Remembers a network that nobody may be using.
    fn rest(&mut self, id: Id, most: usize) {
        if let Some(entry) = self.entries.get_mut(id)
            && entry.users == 0
            && !entry.idle
        {
            entry.idle = true;
            self.idle.push_back(id);
        }
        while self.idle.len() > most {
            let Some(oldest) = self.idle.pop_front() else { return };
            let Some(entry) = self.entries.get_mut(oldest) else { continue };
            entry.idle = false;
            if entry.users == 0 {
                let network = entry.network;
                self.entries.remove(oldest);
                self.names.remove(&network);
            }
        }
    }

    /// A connection from there; `None` where it is free of rates.
    pub(super) fn enter(&mut self, address: IpAddr, rates: &Rates) -> Option<Id> {
        if rates.is_exempt(address) {
            return None;
        }
        let id = self.find(address);
        self.entries.get_mut(id)?.users += 1;
        Some(id)
    }

    pub(super) fn leave(&mut self, id: Option<Id>, rates: &Rates) {
        let Some(id) = id else { return };
        if let Some(entry) = self.entries.get_mut(id) {
            entry.users = entry.users.saturating_sub(1);
        }
        self.rest(id, rates.networks);
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

impl Shard {
    /// Whether a connection that was just accepted may stay: the first thing to ask, before anything is kept for it.
    pub fn admits(&mut self, now: Now, peer: IpAddr) -> bool {
        let core = &mut self.core;
        if core.config.access.refuses(peer) {
            core.probe.connections_banned += 1;
            return false;
        }
        let rates = &core.config.limits.rates;
        if rates.is_exempt(peer) {
            return true;
        }
        let id = core.origins.find(peer);
        let Some(entry) = core.origins.entries.get_mut(id) else { return true };
        let admitted = entry.connections.take(&rates.connections, now.mono).is_ok();
        if !admitted {
            core.probe.connections_refused += 1;
        }
        core.origins.rest(id, rates.networks);
        admitted
    }

    /// Origins whose rates are remembered.
    pub fn networks(&self) -> usize {
        self.core.origins.len()
    }

    /// Charges what was read of a connection to all that it belongs to, and stops reading it where one is above its
    /// rate.
    #[inline]
    pub(super) fn charge(&mut self, id: ConnId, stanzas: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.heard(id, stanzas, bytes);
        let core = &mut self.core;
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        let Some(network) = conn.network else { return };
        let rates = &core.config.limits.rates;
        let now = core.now.mono;
        let mut free_at = if conn.session.is_some() || conn.component.is_some() {
            conn.traffic.charge(stanzas, bytes, &rates.session, now)
        } else {
            // Each read costs the core something, be it of one byte: thousands who trickle must not add up.
            let rate = TrafficRate { stanzas: rates.login, bytes: rates.session.bytes };
            conn.traffic.charge(stanzas.max(1), bytes, &rate, now)
        };
        if let Some(entry) = core.origins.entries.get_mut(network) {
            free_at = free_at.max(entry.traffic.charge(stanzas, bytes, &rates.network, now));
        }
        if let Some(session) = conn.session
            && let Some(session) = core.sessions.get(session.0)
            && let Some(account) = core.accounts.get_mut(session.account.0)
        {
            free_at = free_at.max(account.traffic.charge(stanzas, bytes, &rates.account, now));
        }
        if free_at > now {
            core.slow(id, free_at);
        }
    }

    /// The wait of a connection above its rate may be over.
    pub(super) fn rate_due(&mut self, id: ConnId, fx: &mut Effects) {
        let Some(conn) = self.core.conns.get(id.0) else { return };
        if let Hold::Rate(until) = conn.hold
            && until <= self.core.now.mono
        {
            self.release(id, fx);
        }
    }
}

impl Core {
    /// Other networks are free of rates than before: connections that are there count in, or no longer. Components have
    /// none either way.
    pub(super) fn exempt_anew(&mut self) {
        let rates = &self.config.limits.rates;
        for (_, conn) in self.conns.iter_mut() {
            let free = conn.is_established_component() || rates.is_exempt(conn.peer);
            match (free, conn.network) {
                (true, Some(_)) => self.origins.leave(conn.network.take(), rates),
                (false, None) => conn.network = self.origins.enter(conn.peer, rates),
                _ => {}
            }
        }
    }

    /// Stops reading a connection for a while, unless it waits for something else: then it is charged again when it
    /// goes on.
    pub(super) fn slow(&mut self, id: ConnId, until: Instant) {
        if let Some(conn) = self.conns.get_mut(id.0)
            && conn.hold == Hold::No
        {
            conn.hold = Hold::Rate(until);
            self.probe.reads_slowed += 1;
            self.wheel.insert(until, Timer::Rate(id));
        }
    }

    /// One more session of an account.
    ///
    /// - errors: when there may be one
    pub(super) fn take_session(&mut self, id: ConnId, account: AccountId) -> Result<(), Instant> {
        let rate = &self.config.limits.rates.sessions;
        let now = self.now.mono;
        if self.conns.get(id.0).is_none_or(|conn| conn.network.is_none()) {
            return Ok(());
        }
        let Some(account) = self.accounts.get_mut(account.0) else { return Ok(()) };
        account.new_sessions.take(rate, now)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn networks_in_use_stay_and_of_the_others_the_oldest_are_forgotten() {
        let rates = Rates { networks: 2, ..Rates::default() };
        let mut origins = Origins::default();
        let enter =
            |origins: &mut Origins, text: &str| origins.enter(text.parse().unwrap(), &rates);
        let first = enter(&mut origins, "192.0.2.1");
        assert_eq!(enter(&mut origins, "192.0.2.9"), first);
        let others: Vec<_> = (0..5).map(|n| enter(&mut origins, &format!("10.0.{n}.1"))).collect();
        assert_eq!(origins.len(), 6);
        origins.leave(first, &rates);
        for other in &others {
            origins.leave(*other, &rates);
        }
        assert_eq!(origins.len(), 3, "one in use, two remembered");
        assert_eq!(origins.enter("10.0.4.200".parse().unwrap(), &rates), others[4]);
        origins.leave(first, &rates);
        origins.leave(others[4], &rates);
        assert_eq!(origins.len(), 2);
        assert_ne!(origins.enter("10.0.0.1".parse().unwrap(), &rates), others[0]);
    }

    #[test]
    fn exempt_addresses_leave_no_trace() {
        let rates = Rates { exempt: vec!["127.0.0.0/8".parse().unwrap()], ..Rates::default() };
        let mut origins = Origins::default();
        assert_eq!(origins.enter("127.0.0.1".parse().unwrap(), &rates), None);
        origins.leave(None, &rates);
        assert_eq!(origins.len(), 0);
    }
}
