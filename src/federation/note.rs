//! What operators read in the log of federation. The runtime writes it, with the values as fields.

use super::probe::Failure;
use std::net::IpAddr;
use std::sync::Arc;

/// One line of the log. Domains are those of servers, never addresses of people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A stream to a domain is up: `by`, how both authenticated; `info`.
    Established { domain: Arc<str>, own: Arc<str>, by: &'static str },
    /// A peer authenticated a pair on an incoming stream; `info`.
    Accepted { domain: Arc<str>, own: Arc<str>, by: &'static str },
    /// A domain could not be reached; `text` says at which step, why, and what can be done; `warn`, at the first failure
    /// in a row and at each time the breaker opens.
    Unreachable { domain: Arc<str>, own: Arc<str>, failure: Failure, text: Box<str> },
    /// It is reached again after it was not; `info`.
    Recovered { domain: Arc<str>, own: Arc<str> },
    /// Messages were sent back; `warn`.
    Bounced { domain: Arc<str>, stanzas: u64, failure: Failure },
    /// A peer broke the rules and its stream was closed; `warn`.
    Broken { domain: Option<Arc<str>>, peer: IpAddr, text: Box<str> },
    /// A bug was contained; `error`.
    Fault { text: Box<str> },
}
