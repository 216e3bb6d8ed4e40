//! Who is kept out whatever their credentials are, and what a shard does when it is told anew how to decide.
//!
//! A ban ends the streams of those whom it names at once, and their sessions for good; a banned network is not served,
//! and sessions of those who came from it can be resumed from elsewhere.

use super::account::AccountId;
use super::config::ShardConfig;
use super::effect::{ConnId, Effects};
use super::feature::Feature;
use super::{Shard, Waiting};
use crate::base::hash::Set;
use crate::base::network::{Network, Networks};
use crate::xmpp::jid::BareJid;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// One entry of `[access] banned`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ban {
    Account(BareJid),
    /// Every account of a domain.
    Domain(String),
    Network(Network),
}

impl FromStr for Ban {
    type Err = &'static str;

    /// `NAME@DOMAIN`, an address or network, or a domain.
    fn from_str(text: &str) -> Result<Ban, &'static str> {
        if let Ok(network) = text.parse() {
            return Ok(Ban::Network(network));
        }
        if text.contains('/') {
            return Err("is neither a network nor a bare address");
        }
        let jid = BareJid::parse(text).map_err(|_| "is no address, domain or network")?;
        Ok(match jid.local() {
            Some(_) => Ban::Account(jid),
            None => Ban::Domain(jid.as_str().to_owned()),
        })
    }
}

/// All bans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    accounts: Set<BareJid>,
    domains: Set<String>,
    networks: Networks,
}

impl Access {
    pub fn is_banned(&self, account: &BareJid) -> bool {
        // Asked at each login: most servers ban nobody.
        (!self.accounts.is_empty() && self.accounts.contains(account.as_str()))
            || (!self.domains.is_empty() && self.domains.contains(account.domain()))
    }

    pub fn refuses(&self, peer: IpAddr) -> bool {
        self.networks.contains(peer)
    }
}

impl FromIterator<Ban> for Access {
    fn from_iter<I: IntoIterator<Item = Ban>>(bans: I) -> Access {
        let mut access = Access::default();
        let mut networks = Vec::new();
        for ban in bans {
            match ban {
                Ban::Account(jid) => {
                    access.accounts.insert(jid);
                }
                Ban::Domain(domain) => {
                    access.domains.insert(domain);
                }
                Ban::Network(network) => networks.push(network),
            }
        }
        access.networks = networks.into_iter().collect();
        access
    }
}

/// The features of one shard, made anew with their settings.
pub struct Features(pub Vec<Box<dyn Feature>>);

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|feature| feature.manifest().name)).finish()
    }
}

impl Shard {
    /// What is decided from now on is decided by `config`: for the sessions that there are as well.
    pub(super) fn reconfigured(
        &mut self,
        config: Arc<ShardConfig>,
        features: Features,
        fx: &mut Effects,
    ) {
        let old = std::mem::replace(&mut self.core.config, config);
        self.replace_features(features);
        self.core.evict_surplus();
        self.components_reconfigured(&old.components, fx);
        if old.limits.rates.exempt != self.core.config.limits.rates.exempt {
            self.core.exempt_anew();
        }
        if old.access != self.core.config.access {
            self.end_banned(fx);
        }
    }

    /// Requests that wait for the store go on with the feature of the same name.
    fn replace_features(&mut self, features: Features) {
        let before = std::mem::take(&mut self.core.manifests);
        self.set_features(features.0);
        let after = &self.core.manifests;
        let place = |old: usize| {
            let name = before.get(old)?.name;
            after.iter().position(|manifest| manifest.name == name)
        };
        for waiting in self.core.tickets.values_mut() {
            if let Waiting::Feature { feature, .. } | Waiting::Errand { feature, .. } = waiting {
                // Past the end: nobody answers it any more.
                *feature = place(*feature).unwrap_or(usize::MAX);
            }
        }
    }

    fn end_banned(&mut self, fx: &mut Effects) {
        let core = &self.core;
        let access = &core.config.access;
        let mut accounts: Vec<AccountId> = core
            .sessions
            .iter()
            .filter(|(_, session)| access.is_banned(session.jid.bare()))
            .map(|(_, session)| session.account)
            .collect();
        accounts.dedup();
        for account in accounts {
            let error = StreamError::new(StreamCondition::PolicyViolation);
            self.end_sessions_of(account, &|_| true, &error, fx);
        }
        // Those from banned networks, and those who have shown their password and not bound yet.
        let access = &self.core.config.access;
        let conns: Vec<ConnId> = self
            .core
            .conns
            .iter()
            .filter(|(_, conn)| {
                let banned = conn.account.as_ref().is_some_and(|jid| access.is_banned(jid));
                banned || access.refuses(conn.peer)
            })
            .map(|(id, _)| ConnId(id))
            .collect();
        for conn in conns {
            self.close(conn, Some(StreamError::new(StreamCondition::PolicyViolation)), fx);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_entry_is_an_account_a_domain_or_a_network() {
        let ban = |text: &str| text.parse::<Ban>();
        assert_eq!(ban("Eve@Here").unwrap(), Ban::Account(BareJid::parse("eve@here").unwrap()));
        assert_eq!(ban("example.org").unwrap(), Ban::Domain("example.org".into()));
        for network in ["192.0.2.0/24", "192.0.2.1", "2001:db8::/32", "::1"] {
            assert_eq!(ban(network).unwrap(), Ban::Network(network.parse().unwrap()));
        }
        for fault in ["", "eve@here/phone", "192.0.2.0/33", "@", "a b@here"] {
            assert!(ban(fault).is_err(), "{fault}");
        }
    }

    #[test]
    fn a_ban_holds_for_what_it_names_only() {
        let bans = ["eve@here", "there", "192.0.2.0/24"].map(|text| text.parse::<Ban>().unwrap());
        let access: Access = bans.into_iter().collect();
        let is_banned = |jid: &str| access.is_banned(&BareJid::parse(jid).unwrap());
        assert!(is_banned("eve@here") && is_banned("anyone@there"));
        assert!(!is_banned("bob@here") && !is_banned("eve@elsewhere"));
        assert!(access.refuses("192.0.2.9".parse().unwrap()));
        assert!(!access.refuses("192.0.3.9".parse().unwrap()));
    }
}
