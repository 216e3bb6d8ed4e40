//! What passes for `corefire trace`: one request, and events until the trace ends.

use serde::{Deserialize, Serialize};

/// How long a trace may take, in seconds.
pub const TRACE_S_MAX: u32 = 600;

/// An address, or a stanza id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceRequest {
    pub jid: Option<String>,
    pub id: Option<String>,
    /// Up to `TRACE_S_MAX`.
    pub seconds: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TraceEvent {
    /// All shards look from now on.
    Began {
        /// The address, prepared, or the id.
        whom: String,
        seconds: u32,
        shards: u64,
        /// What the operator may not have meant.
        note: Option<String>,
    },
    Hop(Box<TraceHop>),
    /// So many hops were too many to be told, between the one before and the one after.
    LeftOut {
        hops: u64,
    },
    /// Nothing happened for a while; sent to notice when nobody listens any more.
    Quiet,
    /// The last one.
    Ended {
        hops: u64,
        stanzas: u64,
        left_out: u64,
    },
}

/// A step of a stanza. Without a body or any other payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceHop {
    /// XEP-0082, to the microsecond.
    pub at: String,
    /// Of the stanza and of what comes of it: the shard that saw it first, and a number there.
    pub stanza: String,
    /// Microseconds since the first hop with this `stanza`.
    pub since_us: u64,
    /// Where it happened.
    pub shard: u16,
    pub step: String,
    /// Whereto, wherefrom or why; may be empty.
    pub detail: String,
    /// `message`, `presence`, `iq`
    pub kind: String,
    #[serde(rename = "type")]
    pub type_: Option<String>,
    /// Of an error.
    pub condition: Option<String>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub id: Option<String>,
    pub bytes: u64,
    /// Names of its child elements.
    pub children: Vec<String>,
}
