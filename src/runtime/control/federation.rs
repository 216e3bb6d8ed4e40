//! What passes for `corefire federation`: what is asked about other servers, and the answers.

use serde::{Deserialize, Serialize};

/// Domains of one page of `FederationRequest::List` at most.
pub const DOMAINS_MAX: usize = 500;

/// Domains are as the operator writes them; they are prepared by the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "federation", rename_all = "snake_case")]
pub enum FederationRequest {
    /// Domains that the node knows, in the order of their text, after `after`.
    List {
        after: Option<String>,
    },
    Close {
        domain: String,
    },
    /// Until it is unblocked, also by a restart.
    Block {
        domain: String,
    },
    Unblock {
        domain: String,
    },
    /// Answered step by step; `own`: for which of our domains, the first without one.
    Check {
        domain: String,
        own: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "federation", rename_all = "snake_case")]
pub enum FederationAnswer {
    /// `more`: there are domains past the last one.
    Domains { domains: Vec<RemoteDomain>, more: bool },
    /// So many connections were closed.
    Closed { domain: String, connections: u64 },
    /// `new`: it was not blocked before.
    Blocked { domain: String, new: bool, connections: u64 },
    /// `was`: it was blocked before; `still`: by what else it is blocked.
    Unblocked { domain: String, was: bool, still: Option<String> },
    /// The check goes on; sent so that nobody takes the node for hanging.
    Waiting,
    /// The last answer to a check. `failure`: the class of what went wrong; `None`: stanzas can flow.
    Checked { domain: String, steps: Vec<CheckStep>, failure: Option<String> },
}

/// A domain of another server, as `corefire federation list` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteDomain {
    pub domain: String,
    /// `idle`, `connecting`, `connected`, `backing_off`, `broken`, `blocked`
    pub state: String,
    /// Streams to it, and from it.
    pub outgoing: u64,
    pub incoming: u64,
    /// Stanzas that wait, and their bytes.
    pub queued: u64,
    pub queued_bytes: u64,
    /// Sent, and not confirmed by it.
    pub unconfirmed: u64,
    /// Messages for it in the store.
    pub stored: u64,
    /// Stanzas since it came into memory.
    pub sent: u64,
    pub received: u64,
    pub bounced: u64,
    /// How its streams authenticate, in a few words; may be empty.
    pub by: String,
    pub failure: Option<RemoteFailure>,
    /// In a cluster: the node that has all this. Others have their own of the same domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The last time that a domain could not be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFailure {
    /// XEP-0082.
    pub at: String,
    pub text: String,
}

/// What was done on the way to a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckStep {
    /// `policy`, `dns`, `tcp`, `tls`, `stream`, `auth`
    pub step: String,
    pub sound: bool,
    /// What was found; what is wrong, and what can be done about it.
    pub text: String,
    pub took_us: u64,
}
