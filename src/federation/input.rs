//! All that can happen to a federation core.

use super::config::FederationConfig;
use super::control::Request;
use super::discovery::{Plan, Problem, Target};
use super::effect::ConnId;
use super::posh::{Fingerprints, Posh, PoshProblem};
use super::trust::{By, Distrust, PeerCertificate};
use crate::base::instant::Instant;
use crate::cluster::placement::Placement;
use crate::frame::Batch;
use crate::store::{StoreOutcome, Ticket};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// One event. Incoming connections are named by `Federation::accept`, outgoing ones by `Action::Resolve`.
#[derive(Debug)]
pub enum Input<'a> {
    /// Frames of a shard of this node, in order; `from`: its ring; `sent`: when that shard's turn ended.
    Frames { from: u16, sent: Instant, batch: &'a Batch },
    /// A shard has received and handled our frames up to these numbers.
    Handled { by: u16, received: u64, handled: u64 },
    /// Rings took what waited for them: peers may be read again.
    Relieved,
    /// What the resolver found of `Action::Resolve`, and how long it took.
    Resolved { conn: ConnId, outcome: Result<Arc<Plan>, Problem>, took: Duration },
    /// `Action::Dial` led to a connection. For a target of direct TLS the handshake is done, too.
    Connected { conn: ConnId, connected: Box<Connected> },
    /// None of the targets of `Action::Dial` could be reached.
    DialFailed { conn: ConnId, attempts: Vec<Attempt> },
    /// The handshake that `Action::StartTls` asked for is done; or, of an incoming connection of direct TLS, its first
    /// one.
    Secured { conn: ConnId, tls: Box<PeerTls>, took: Duration },
    /// What `Action::AskPosh` has found, and how long it took. The connection may be gone meanwhile.
    Posh {
        conn: ConnId,
        domain: Arc<str>,
        outcome: Result<Arc<Fingerprints>, PoshProblem>,
        took: Duration,
    },
    /// Plain text of a connection, any cut of it.
    Bytes { conn: ConnId, bytes: &'a [u8] },
    /// The connection is gone. Nothing of it comes any more.
    Closed { conn: ConnId, why: Lost },
    /// The store's answer.
    Stored { ticket: Ticket, outcome: StoreOutcome },
    /// In a cluster: who owns what, from now on. Each epoch once, in order; some may be left out.
    Placed(Arc<Placement>),
    /// An operator decided anew.
    Reconfigured(Arc<FederationConfig>),
    /// An operator asks; the answer is `Action::Answer` with the same number.
    Asked { number: u64, request: Request },
    /// Time passes; `Federation::next_due` says when the next one is wanted.
    Tick,
    /// The node ends: every stream gets `system-shutdown`; what is not confirmed waits in the store.
    Shutdown,
}

/// A connection that was dialled.
#[derive(Debug)]
pub struct Connected {
    /// Which target of the plan, and the address of it that answered.
    pub target: usize,
    pub address: SocketAddr,
    /// The time of the successful connection, without its TLS handshake.
    pub took: Duration,
    /// Of a target of direct TLS, and the time of the handshake.
    pub tls: Option<(Box<PeerTls>, Duration)>,
    /// What was tried before in vain.
    pub attempts: Vec<Attempt>,
}

/// An address that could not be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub target: Target,
    /// `None` where the target's name has no address.
    pub address: Option<SocketAddr>,
    pub why: DialProblem,
    pub took: Duration,
}

/// Why an address could not be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialProblem {
    /// The target's name has no address, or its look-up failed.
    NoAddress(String),
    /// Nobody listens there.
    Refused,
    TimedOut,
    /// Of direct TLS.
    Tls(TlsProblem),
    /// Anything else that the operating system says.
    Other(String),
}

/// Why a handshake failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsProblem {
    TimedOut,
    /// The connection was closed in the middle.
    Cut,
    /// The peer sent an alert, or spoke no TLS, or no version that is allowed; in rustls's words.
    Failed(String),
}

/// What the TLS layer knows of a peer once the handshake is done.
///
/// The handshake accepts any certificate, as dialback may do without; `certificate` says what it is worth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerTls {
    pub version: TlsVersion,
    /// `xmpp-server` was negotiated (XEP-0368).
    pub alpn: bool,
    /// The name that a client asked for (SNI).
    pub server_name: Option<String>,
    /// `None` where the peer showed none.
    pub certificate: Option<PeerCertificate>,
    /// What the domain itself says of it over HTTPS, where it was asked; the handshake leaves that out.
    pub posh: Option<Posh>,
}

impl PeerTls {
    /// Whether the peer's certificate proves that it is the server of `domain`, which is prepared.
    pub fn speaks_for(&self, domain: &str) -> Result<By, Untrusted> {
        let certificate = self.certificate.as_ref().ok_or(Untrusted::NoCertificate)?;
        let distrust = match certificate.speaks_for(domain) {
            Ok(by) => return Ok(by),
            Err(distrust) => distrust,
        };
        match &self.posh {
            Some(posh) if *posh.domain == *domain && distrust.leaves_posh() => {
                match &posh.outcome {
                    Ok(()) => Ok(By::Posh),
                    Err(problem) => Err(Untrusted::Posh { distrust, problem: problem.clone() }),
                }
            }
            _ => Err(Untrusted::Certificate(distrust)),
        }
    }
}

/// Why a peer is not trusted by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untrusted {
    NoCertificate,
    Certificate(Distrust),
    /// Nor by the document of the domain.
    Posh {
        distrust: Distrust,
        problem: PoshProblem,
    },
}

impl Untrusted {
    /// For the peer: what this server met on its way to others is not for it.
    pub(super) fn for_peer(&self) -> String {
        match self {
            Untrusted::Posh { distrust, problem: PoshProblem::Unreachable(_) } => {
                format!("{distrust}; nor does POSH prove it: there is no way to the document")
            }
            other => other.to_string(),
        }
    }

    /// Somebody else than the target may have answered: nothing is to be said to it.
    pub(super) fn is_alarming(&self) -> bool {
        *self == Untrusted::Certificate(Distrust::Dane)
    }
}

impl fmt::Display for Untrusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Untrusted::NoCertificate => f.write_str("it showed no certificate"),
            Untrusted::Certificate(distrust) => distrust.fmt(f),
            Untrusted::Posh { distrust, problem } => {
                write!(f, "{distrust}; nor does POSH prove it: {problem}")
            }
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The output before `Action::Close` has left, or the peer closed its side in order.
    Closed,
    /// `Action::Abort` was carried out.
    Aborted,
    /// The peer reset it, or the network broke it.
    Reset,
    /// The handshake of `Action::StartTls` failed.
    Tls(TlsProblem),
}
