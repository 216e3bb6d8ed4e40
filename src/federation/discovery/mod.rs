//! Where the server of a domain is: from what the DNS says, or the operator, to targets in the order in which they are tried
//! (RFC 6120 §3.2, RFC 2782, XEP-0368, RFC 8305).
//!
//! A look-up is a `Search`: it says which questions to ask, takes the answers, and ends with `Facts` or a `Problem`. `Facts`
//! can be kept as long as they are good, and give a `Plan` for each attempt, drawn anew by the weights. What the DNS says is
//! a stranger's word: everything is bounded, and nothing of it is taken that could not be meant.
//!
//! Asking is left to `runtime`, dialling to the actor.

mod order;
mod route;
mod search;

pub use route::{Route, RouteError, Routes};
pub(crate) use route::{dns_name, literal};
pub use search::{Facts, Options, Search, Step};

use std::fmt;
use std::net::IpAddr;

/// The port of `jabber:server` (RFC 6120 §14.7).
pub const PORT: u16 = 5269;
/// Targets of a plan. Beyond these the ones that RFC 2782 puts last are left out.
pub const TARGETS_MAX: usize = 16;
/// Addresses of a target. Beyond these the later ones are left out.
pub const ADDRESSES_MAX: usize = 8;
/// TLSA records of a target. Beyond these the later ones are left out.
pub const TLSA_MAX: usize = 8;
/// Records that are looked at in one answer, SRV records of the lowest priorities first.
pub const RECORDS_MAX: usize = 256;

/// The addresses in answers about one name to which it may lead, families in turns, `ADDRESSES_MAX` at most.
///
/// - `local_addresses`: as in `Options`
pub fn reachable(answers: &[Answer], local_addresses: bool) -> Vec<IpAddr> {
    let records = answers.iter().flat_map(|answer| match answer {
        Answer::Found { records, .. } => records.as_slice(),
        _ => &[],
    });
    let addresses = records.take(RECORDS_MAX).filter_map(|record| match record {
        Record::Address(address) => Some(address.to_canonical()),
        _ => None,
    });
    let may_reach = |address: &IpAddr| match order::reach(*address) {
        order::Reach::Public => true,
        order::Reach::Local => local_addresses,
        order::Reach::Never => false,
    };
    let addresses: Vec<_> = addresses.filter(may_reach).collect();
    order::interleave(&addresses, ADDRESSES_MAX)
}

/// What is asked of the DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Question {
    /// A-labels in lower case, without the final dot.
    pub name: String,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Srv,
    A,
    Aaaa,
    Tlsa,
}

/// What the DNS says to a question, aliases (CNAME) followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// At least one record of the kind that was asked for; `secure`: DNSSEC proves them, and the aliases that led there.
    Found { records: Vec<Record>, ttl_s: u32, secure: bool },
    /// The name is there, without a record of this kind (NODATA).
    Nothing { ttl_s: u32 },
    /// NXDOMAIN.
    NoSuchName { ttl_s: u32 },
    /// Nobody knows: another time the answer may be another.
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Srv(Srv),
    Address(IpAddr),
    Tlsa(Tlsa),
}

/// What the certificate of a target must be (RFC 6698 §2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlsa {
    pub usage: u8,
    pub selector: u8,
    pub matching: u8,
    pub data: Vec<u8>,
}

/// A record of RFC 2782.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Srv {
    pub priority: u16,
    pub weight: u16,
    pub port: u16,
    /// A-labels in lower case, without the final dot; empty: the target is `.`, nothing is there.
    pub target: String,
}

/// Why a question has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No server answered in time.
    Timeout,
    /// SERVFAIL, REFUSED and their kin.
    Refused,
    /// DNSSEC says that the answer is forged, or its signatures are out of date.
    Bogus,
    /// Aliases lead in a circle, or too far.
    Aliases,
    /// No server could be asked, or it said what is no answer.
    Broken,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Timeout => "no DNS server answered in time",
            Failure::Refused => "the DNS server failed or refused to answer",
            Failure::Bogus => "the answer fails DNSSEC validation",
            Failure::Aliases => "its aliases (CNAME) lead in a circle or too far",
            Failure::Broken => "no DNS server could be asked, or what it said is no answer",
        })
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Srv => "SRV",
            Kind::A => "A",
            Kind::Aaaa => "AAAA",
            Kind::Tlsa => "TLSA",
        };
        write!(f, "{} {kind}", self.name)
    }
}

/// Where to try, the first target first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The name for SNI: the domain's A-labels, never the target's (XEP-0368 §2). `None` for a domain that is an address.
    pub server_name: Option<String>,
    pub source: Source,
    /// At least one, each with at least one address.
    pub targets: Vec<Target>,
    /// Seconds for which what this was drawn from is good.
    pub ttl_s: u32,
}

impl Tlsa {
    /// Whether it is of a kind that we know; others are as if they were not there (RFC 7671 §4.1).
    fn is_usable(&self) -> bool {
        let fits = match self.matching {
            0 => (1..=16_384).contains(&self.data.len()),
            1 => self.data.len() == 32,
            2 => self.data.len() == 64,
            _ => false,
        };
        // Of the usages those that stand for themselves: DANE-TA and DANE-EE (RFC 7672 §3.1.3).
        matches!(self.usage, 2 | 3) && self.selector <= 1 && fits
    }
}

/// How targets were found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `[federation.routes]`.
    Route,
    /// SRV records.
    Srv,
    /// There are no SRV records: the domain itself, at port 5269 (RFC 6120 §3.2.2).
    Fallback,
    /// The domain is an IP address.
    Literal,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// For people: a name, or the address where there is none.
    pub host: String,
    pub port: u16,
    pub security: Security,
    /// In the order in which attempts are started (RFC 8305 §4): families take turns, IPv6 first.
    pub addresses: Vec<IpAddr>,
    /// What DANE wants of the certificate: one of these, each of a kind that can be used, proven by DNSSEC with all that
    /// led there (RFC 7673 §3). Empty: it says nothing.
    pub tlsa: Vec<Tlsa>,
}

/// How TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// With the connection (XEP-0368).
    DirectTls,
    /// By STARTTLS.
    StartTls,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let security = match self.security {
            Security::DirectTls => "direct TLS",
            Security::StartTls => "STARTTLS",
        };
        match self.host.parse::<std::net::Ipv6Addr>() {
            Ok(address) => write!(f, "[{address}]:{} ({security})", self.port),
            Err(_) => write!(f, "{}:{} ({security})", self.host, self.port),
        }
    }
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The domain is no name that the DNS can be asked for: too long with what stands before it.
    BadName,
    /// Neither SRV records nor addresses.
    NoSuchDomain { ttl_s: u32 },
    /// The domain says that it has no XMPP server (RFC 2782: the target is `.`).
    NotOffered { ttl_s: u32 },
    /// The targets have no address; with the first few of their names.
    NoAddress { hosts: Vec<String>, ttl_s: u32 },
    /// The only addresses are those of this machine or network, where a stranger's record may not lead; with one of them.
    LocalAddress { address: IpAddr, ttl_s: u32 },
    /// A question without which nothing can be said has no answer.
    Unanswered { question: Question, why: Failure },
    /// So many look-ups wait that this one was not begun.
    Busy,
}

impl Problem {
    /// Whether it will stand until the operator of that domain changes its records: `remote-server-not-found`, at once. Else it
    /// is worth another attempt.
    pub fn is_lasting(&self) -> bool {
        self.ttl_s().is_some()
    }

    /// Seconds for which a lasting problem is known to last.
    pub fn ttl_s(&self) -> Option<u32> {
        match self {
            Problem::BadName => Some(u32::MAX),
            Problem::NoSuchDomain { ttl_s }
            | Problem::NotOffered { ttl_s }
            | Problem::NoAddress { ttl_s, .. }
            | Problem::LocalAddress { ttl_s, .. } => Some(*ttl_s),
            Problem::Unanswered { .. } | Problem::Busy => None,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::BadName => f.write_str("the domain is too long for the names of its SRV records"),
            Problem::NoSuchDomain { .. } => {
                f.write_str("the DNS knows neither SRV records nor an address of the domain")
            }
            Problem::NotOffered { .. } => f.write_str(
                "the domain says in its SRV records (target \".\") that it has no XMPP server for others",
            ),
            Problem::NoAddress { hosts, .. } => {
                write!(f, "the SRV records lead to names without an address: {}", hosts.join(", "))
            }
            Problem::LocalAddress { address, .. } => write!(
                f,
                "the DNS gives only addresses of a private network or of this machine ({address}); federation.local_addresses = \
                 \"on\" permits them, and federation.routes a single one"
            ),
            Problem::Unanswered { question, why } => write!(f, "{question}: {why}"),
            Problem::Busy => f.write_str("too many look-ups wait for the DNS"),
        }
    }
}
