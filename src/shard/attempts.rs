//! Failed logins, counted where they are judged: on the shard of the account that they name. Above its number an account
//! is closed to guessing, and a network to logging in at all, both with `temporary-auth-failure`; failures are forgotten
//! one by one.
//!
//! - An account is counted by its name, so one that does not exist closes like one that does.
//! - Its owner is not locked out by others: from networks in which the account was logged in to before, and from which
//!   not too many attempts have failed, the right password is taken all the same. A wrong one is answered there as
//!   everywhere, so nobody can tell such a network from another.
//! - A network has its number on each shard, as many times as it names accounts of different shards.
//! - The table is bounded; when it is full, the oldest count is forgotten.

use super::Core;
use super::account::{AccountId, Data};
use super::effect::{ConnId, Effects};
use super::{Waiting, config::Limits};
use crate::base::hash::Map;
use crate::base::instant::Instant;
use crate::base::limit::{Meter, Rate};
use crate::base::network::Network;
use crate::store::Write;
use crate::stream::sasl::SaslFailure;
use crate::xmpp::jid::BareJid;
use std::collections::VecDeque;

/// Networks that are remembered of an account; the one that came first is forgotten first.
const NETWORKS_KNOWN: usize = 16;
/// Name of the slot that holds them, one a line.
pub(super) const NETWORKS_SLOT: &str = "login.networks";

/// Whose failures are counted; accounts by the hash of their address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Party {
    Account(u64),
    Network(Network),
    /// An account from one of the networks that it is known in.
    Home(u64, Network),
}

/// One per core.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: Map<Party, Meter>,
    /// In the order in which they came into the table.
    order: VecDeque<Party>,
}

impl Attempts {
    fn is_closed(&self, party: Party, rate: &Rate, now: Instant) -> bool {
        self.failed.get(&party).is_some_and(|meter| meter.clone().take(rate, now).is_err())
    }

    /// A failure while it is closed does not keep it closed for longer.
    fn failed(&mut self, party: Party, rate: &Rate, most: usize, now: Instant) {
        if let Some(meter) = self.failed.get_mut(&party) {
            let _ = meter.take(rate, now);
            return;
        }
        while self.order.len() >= most.max(1) {
            let Some(oldest) = self.order.pop_front() else { break };
            self.failed.remove(&oldest);
        }
        let mut meter = Meter::default();
        let _ = meter.take(rate, now);
        self.failed.insert(party, meter);
        self.order.push_back(party);
    }
}

impl Core {
    /// Where failures of a connection count; `None` where its network is free of rates.
    fn counted(&self, id: ConnId) -> Option<Network> {
        let conn = self.conns.get(id.0)?;
        conn.network.map(|_| Network::around(conn.peer))
    }

    /// Whether a network has had too many failed logins: then nothing is looked at, whatever the account.
    pub(super) fn is_network_closed(&self, id: ConnId) -> bool {
        let rate = &self.config.limits.failed_logins_network;
        let network = self.counted(id);
        network.is_some_and(|network| {
            self.attempts.is_closed(Party::Network(network), rate, self.now.mono)
        })
    }

    /// The last word on a password, after the same work whether it was right, and whether there is an account.
    ///
    /// - errors: `not-authorized`, and `temporary-auth-failure` while the account is closed
    pub(super) fn judge(
        &mut self,
        id: ConnId,
        account: Option<AccountId>,
        jid: &BareJid,
        proven: bool,
        fx: &mut Effects,
    ) -> Result<(), SaslFailure> {
        let verdict = if proven { Ok(()) } else { Err(SaslFailure::NotAuthorized) };
        let Some(network) = self.counted(id) else { return verdict };
        let now = self.now.mono;
        let Limits { failed_logins_account: rate, failed_logins_tracked: most, .. } =
            self.config.limits;
        let (whole, home) = (Party::Account(jid.hash64()), Party::Home(jid.hash64(), network));
        let data = account.and_then(|account| self.accounts.get_mut(account.0)?.data());
        let is_known = data.is_some_and(|data| data.networks.contains(&network));
        let is_closed = self.attempts.is_closed(whole, &rate, now);
        let is_home = is_known && !self.attempts.is_closed(home, &rate, now);
        if !proven {
            self.attempts.failed(whole, &rate, most, now);
            if is_known {
                self.attempts.failed(home, &rate, most, now);
            }
            self.network_failed(id);
        }
        match verdict {
            Ok(()) if is_closed && !is_home => Err(SaslFailure::TemporaryAuthFailure),
            Err(_) if is_closed => Err(SaslFailure::TemporaryAuthFailure),
            Ok(()) => {
                if let Some(account) = account.filter(|_| !is_known) {
                    self.learn_network(account, network, fx);
                }
                Ok(())
            }
            refused => refused,
        }
    }

    /// A login from there has failed, whatever it was by.
    pub(super) fn network_failed(&mut self, id: ConnId) {
        let Some(network) = self.counted(id) else { return };
        let Limits { failed_logins_network: rate, failed_logins_tracked: most, .. } =
            self.config.limits;
        self.attempts.failed(Party::Network(network), &rate, most, self.now.mono);
    }

    /// The account was logged in to from a network for the first time.
    fn learn_network(&mut self, account: AccountId, network: Network, fx: &mut Effects) {
        let Some(slot) = self.accounts.get_mut(account.0) else { return };
        let owner = slot.jid.clone();
        let Some(data) = slot.data() else { return };
        let first = (data.networks.len() + 1).saturating_sub(NETWORKS_KNOWN);
        let known = data.networks.iter().skip(first).copied().chain([network]).collect();
        data.networks = known;
        let text: Vec<String> = data.networks.iter().map(Network::to_string).collect();
        let value = Some(text.join("\n").into_bytes());
        let ticket = self.ticket(Waiting::Log(account));
        let name = NETWORKS_SLOT.to_owned();
        fx.writes.push((ticket, Write::PutSlot { owner, name, value }));
        self.wrote(account);
    }
}

impl Data {
    /// Networks that the account was logged in to from, as the store has them.
    pub(super) fn read_networks(value: &[u8]) -> Box<[Network]> {
        let text = String::from_utf8_lossy(value);
        text.lines().filter_map(|line| line.parse().ok()).take(NETWORKS_KNOWN).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn table_forgets_the_oldest_and_a_party_opens_bit_by_bit() {
        let rate = Rate::over(2, Duration::from_secs(600));
        let mut attempts = Attempts::default();
        let at = |s: u64| Instant(1_000_000_000_000 + s * 1_000_000_000);
        for _ in 0..9 {
            attempts.failed(Party::Account(1), &rate, 3, at(0));
        }
        assert!(attempts.is_closed(Party::Account(1), &rate, at(0)));
        assert!(attempts.is_closed(Party::Account(1), &rate, at(299)));
        assert!(!attempts.is_closed(Party::Account(1), &rate, at(300)), "one more try");
        attempts.failed(Party::Account(1), &rate, 3, at(300));
        assert!(attempts.is_closed(Party::Account(1), &rate, at(301)));
        for other in 2..=4 {
            attempts.failed(Party::Account(other), &rate, 3, at(301));
        }
        assert_eq!((attempts.failed.len(), attempts.order.len()), (3, 3));
        assert!(!attempts.is_closed(Party::Account(1), &rate, at(301)), "forgotten");
    }
}
