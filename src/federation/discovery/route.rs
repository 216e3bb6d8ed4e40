//! Where the operator says that a domain is: `[federation.routes]`, which no DNS is asked about.

use super::{PORT, Security, TARGETS_MAX};
use crate::base::hash::Map;
use crate::xmpp::jid::BareJid;
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A way: `192.0.2.1:5269`, `[2001:db8::1]:5269` or `xmpp.example.org:5269`, the port optional; behind `tls://` TLS begins with
/// the connection, else by STARTTLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub(super) place: Place,
    pub(super) port: u16,
    pub(super) security: Security,
}

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Address(IpAddr),
    /// A-labels in lower case.
    Name(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("neither HOST:PORT, nor an address with or without a port (IPv6 in brackets)")]
    Place,
    #[error("one place, or several with blanks between them, {PLACES_MAX} at most")]
    Count,
    #[error("the port is a number from 1 to 65535")]
    Port,
    #[error("neither a domain, nor *.DOMAIN for all below it")]
    Domain,
}

impl Route {
    pub fn parse(text: &str) -> Result<Route, RouteError> {
        let (text, security) = match text.strip_prefix("tls://") {
            Some(text) => (text, Security::DirectTls),
            None => (text, Security::StartTls),
        };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Route::new(Place::Address(address.ip()), address.port(), security);
        }
        if let Some(address) = literal(text) {
            return Route::new(Place::Address(address), PORT, security);
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().map_err(|_| RouteError::Port)?),
            None => (text, PORT),
        };
        let name = dns_name(name).ok_or(RouteError::Place)?;
        Route::new(Place::Name(name), port, security)
    }

    fn new(place: Place, port: u16, security: Security) -> Result<Route, RouteError> {
        if port == 0 {
            return Err(RouteError::Port);
        }
        Ok(Route { place, port, security })
    }
}

/// Places in a route.
const PLACES_MAX: usize = TARGETS_MAX;

/// The routes of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    /// By the domain as JIDs are prepared.
    domains: Map<String, Vec<Route>>,
    /// By the domain that all of these are below.
    below: Map<String, Vec<Route>>,
}

impl Routes {
    /// - takes: a domain, or `*.` and a domain for all that are below it but not itself; and places as in `Route::parse`,
    ///   blanks between them, the first one tried first
    /// - errors: in words for who wrote the configuration
    pub fn insert(&mut self, domain: &str, places: &str) -> Result<(), RouteError> {
        let route: Vec<_> =
            places.split_whitespace().map(Route::parse).collect::<Result<_, _>>()?;
        if route.is_empty() || route.len() > PLACES_MAX {
            return Err(RouteError::Count);
        }
        let (map, domain) = match domain.strip_prefix("*.") {
            Some(domain) => (&mut self.below, domain),
            None => (&mut self.domains, domain),
        };
        let domain = BareJid::parse(domain).ok().filter(|jid| jid.local().is_none());
        let domain = domain.ok_or(RouteError::Domain)?;
        map.insert(domain.domain().to_owned(), route);
        Ok(())
    }

    /// The domain's own, else that of the nearest domain above it.
    pub fn of(&self, domain: &str) -> Option<&[Route]> {
        if let Some(route) = self.domains.get(domain) {
            return Some(route);
        }
        if self.below.is_empty() || literal(domain).is_some() {
            return None;
        }
        let mut rest = domain;
        while let Some((_, parent)) = rest.split_once('.') {
            if let Some(route) = self.below.get(parent) {
                return Some(route);
            }
            rest = parent;
        }
        None
    }
}

/// The address that a domain part is: IPv4 as it is, IPv6 in brackets (RFC 7622 §3.2).
pub(crate) fn literal(domain: &str) -> Option<IpAddr> {
    match domain.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => domain.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

/// A-labels in lower case, without the final dot; `None` where the DNS has no room for it.
pub(crate) fn dns_name(domain: &str) -> Option<String> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    Uts46::new()
        .to_ascii(domain.as_bytes(), AsciiDenyList::URL, Hyphens::Allow, DnsLength::Verify)
        .ok()
        .map(|name| name.into_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn route(host: &str, port: u16, security: Security) -> Result<Route, RouteError> {
        let place = match host.parse() {
            Ok(address) => Place::Address(address),
            Err(_) => Place::Name(host.to_owned()),
        };
        Ok(Route { place, port, security })
    }

    #[test]
    fn places_are_read_in_all_their_forms() {
        use Security::{DirectTls, StartTls};
        for (text, expected) in [
            ("192.0.2.1:5270", route("192.0.2.1", 5270, StartTls)),
            ("192.0.2.1", route("192.0.2.1", 5269, StartTls)),
            ("[2001:db8::1]:1", route("2001:db8::1", 1, StartTls)),
            ("[2001:db8::1]", route("2001:db8::1", 5269, StartTls)),
            ("tls://192.0.2.1:5270", route("192.0.2.1", 5270, DirectTls)),
            ("XMPP.Example.org.:7", route("xmpp.example.org", 7, StartTls)),
            ("tls://m\u{fc}nchen.example", route("xn--mnchen-3ya.example", 5269, DirectTls)),
            ("xmpp_1", route("xmpp_1", 5269, StartTls)),
            ("192.0.2.1:0", Err(RouteError::Port)),
            ("host:0", Err(RouteError::Port)),
            ("host:65536", Err(RouteError::Port)),
            ("host:", Err(RouteError::Port)),
            ("", Err(RouteError::Place)),
            (":5269", Err(RouteError::Place)),
            ("a b:5269", Err(RouteError::Place)),
            ("https://host", Err(RouteError::Port)),
            ("2001:db8::1", Err(RouteError::Place)),
        ] {
            assert_eq!(Route::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn the_nearest_route_above_a_domain_is_its_own() {
        let mut routes = Routes::default();
        routes.insert("Example.ORG", "192.0.2.1").unwrap();
        routes.insert("*.example.org", "192.0.2.2").unwrap();
        routes.insert("*.rooms.example.org", "192.0.2.3").unwrap();
        routes.insert("*.2.1", "192.0.2.4").unwrap();
        let found = |domain: &str| match &routes.of(domain)?[0].place {
            Place::Address(IpAddr::V4(address)) => Some(address.octets()[3]),
            _ => None,
        };
        assert_eq!(found("example.org"), Some(1));
        assert_eq!(found("a.example.org"), Some(2));
        assert_eq!(found("a.b.example.org"), Some(2));
        assert_eq!(found("rooms.example.org"), Some(2));
        assert_eq!(found("a.rooms.example.org"), Some(3));
        assert_eq!(found("notexample.org"), None);
        assert_eq!(found("org"), None);
        assert_eq!(found("192.0.2.1"), None, "an address is below no domain");
        assert_eq!(routes.insert("a@b", "192.0.2.1"), Err(RouteError::Domain));
        assert_eq!(routes.insert("*.", "192.0.2.1"), Err(RouteError::Domain));
        assert_eq!(routes.insert("*", "192.0.2.1"), Err(RouteError::Domain));
        assert_eq!(routes.insert("a", " "), Err(RouteError::Count));
        assert_eq!(routes.insert("a", &"b ".repeat(PLACES_MAX + 1)), Err(RouteError::Count));
        routes.insert("a", &"b ".repeat(PLACES_MAX)).unwrap();
    }
}
