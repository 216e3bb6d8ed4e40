//! The control socket: how the command line talks to the running node.
//!
//! `DATA_DIR/control.sock`, mode 0600: whoever may open it may do everything. One JSON object per line each way, with
//! the version of the protocol in it. Requests of one connection are answered in order.
//!
//! Here are the values that pass; `server` and `client` are the two ends, `accounts` does what is asked of accounts,
//! `office` what shards ask, `inquiry` what nodes ask each other, `restore` brings an account in with all that belongs to it; `trace` is what passes for the one
//! request with many answers, `federation` what passes about other servers.

pub mod accounts;
pub mod client;
pub mod cluster;
pub mod federation;
pub mod inquiry;
pub mod office;
pub mod restore;
pub mod server;
pub mod trace;

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use self::cluster::ClusterStatus;
use self::federation::{FederationAnswer, FederationRequest};
use crate::admin::latency::{Report, StallReport};
use crate::cluster::map::ShardMap;
use crate::xmpp::credentials::{Credentials, ScramKeys};
use trace::{TraceEvent, TraceRequest};

/// Rises when a value changes its meaning. A node refuses a client of another version.
pub const PROTOCOL_VERSION: u32 = 1;

/// A line longer than this is refused; an import is sent in batches well below it.
pub const LINE_BYTES_MAX: u64 = 1 << 20;

/// Accounts of one `AccountRequest::List` at most.
pub const LIST_MAX: u32 = 1000;

/// Accounts of one `AccountRequest::Details` at most: each is read from the store.
pub const DETAILS_MAX: u32 = 200;

/// A line of the socket: the version of the protocol, then the value, whose fields have other names.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope<T> {
    pub(crate) protocol: u32,
    #[serde(flatten)]
    pub(crate) body: T,
}

/// What can be asked of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum ControlRequest {
    Account(AccountRequest),
    Status,
    /// How long things take.
    Latency,
    /// The same as a log of HdrHistograms.
    LatencyLog,
    /// The node reads its configuration again.
    Reload,
    /// Who owns an address.
    Whereis {
        jid: String,
    },
    /// What the owners of addresses are computed from.
    ShardMap,
    /// The cluster that the node is in.
    Cluster,
    /// The node lets its clients go, at its pace; how far it is, is told by `Cluster`. Where it does that already, it goes on.
    Drain,
    /// The node's share of the accounts from now on, at once; it is drained no more.
    Weigh {
        weight: u32,
    },
    /// Sessions, of one account or of all, from the place `after` on (the beginning without one).
    Sessions {
        jid: Option<String>,
        after: Option<SessionCursor>,
    },
    /// Ends a session (full JID), or all of an account.
    Kick {
        jid: String,
    },
    /// What happens to some stanzas, as it happens.
    Trace(TraceRequest),
    /// Other servers.
    Federation(FederationRequest),
}

/// Where a page of sessions begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionCursor {
    /// Its id.
    #[serde(default)]
    pub node: u32,
    pub shard: u16,
    pub slot: u32,
}

/// What can be asked of the accounts. Addresses are bare; they are prepared by whoever carries the request out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum AccountRequest {
    Add {
        jid: String,
        password: Password,
    },
    /// Keys are derived by the one who asks: they cost milliseconds each.
    Import {
        accounts: Vec<ImportedAccount>,
    },
    /// In the order of their text, after `after`; at most `limit` and `LIST_MAX`.
    List {
        after: Option<String>,
        limit: u32,
    },
    /// As `List`, with what operators ask of accounts; at most `limit` and `DETAILS_MAX`.
    Details {
        after: Option<String>,
        limit: u32,
    },
    Delete {
        jid: String,
    },
    SetPassword {
        jid: String,
        password: Password,
    },
    SetDisabled {
        jid: String,
        disabled: bool,
    },
    /// Ends a quarantine.
    Release {
        jid: String,
    },
    /// Answered as an `Import` of one account.
    Restore(restore::Restore),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "snake_case")]
pub enum ControlResponse {
    Done,
    /// Refused or failed: one line of cause and remedy.
    Error {
        message: String,
    },
    /// For each account of the request, in its order.
    Imported {
        outcomes: Vec<ImportOutcome>,
    },
    /// `more`: there are accounts past the last one.
    Accounts {
        jids: Vec<String>,
        more: bool,
    },
    Details {
        accounts: Vec<AccountDetail>,
        more: bool,
    },
    Status(Box<Status>),
    Latency(Box<Report>),
    LatencyLog {
        text: String,
    },
    Place(Place),
    ShardMap(ShardMap),
    Cluster(Box<ClusterStatus>),
    /// It has begun.
    Draining,
    /// It was told to its cluster.
    Weighed,
    Reloaded(Reloaded),
    /// `next`: where the next page begins, if there is one. A page may be empty. `silent`: nodes of the cluster that gave
    /// no answer in time, so that their sessions are missing.
    Sessions {
        sessions: Vec<SessionDetail>,
        next: Option<SessionCursor>,
        #[serde(default)]
        silent: Vec<String>,
    },
    /// So many sessions were ended.
    Kicked {
        sessions: u64,
    },
    Trace(TraceEvent),
    Federation(FederationAnswer),
}

/// What a reload changed: lines of `KEY: OLD -> NEW`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    pub applied: Vec<String>,
    /// Of keys that the node looks at only when it starts.
    pub waiting: Vec<String>,
    /// What is legal and most likely not meant.
    pub warnings: Vec<String>,
}

impl ControlResponse {
    pub fn error(message: impl fmt::Display) -> ControlResponse {
        ControlResponse::Error { message: message.to_string() }
    }
}

/// In clear, on its way to the key derivation; never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportedAccount {
    pub jid: String,
    #[serde(with = "wire_credentials")]
    pub credentials: Credentials,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ImportOutcome {
    Created,
    Exists,
    /// A clause that says why.
    Refused {
        cause: String,
    },
}

/// An account, as `corefire user list --json` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountDetail {
    pub jid: String,
    pub disabled: bool,
    pub contacts: u64,
    /// Messages that wait for its clients.
    pub offline_messages: u64,
    /// XEP-0082; none where the account is in no quarantine.
    pub quarantine_until: Option<String>,
}

/// A session, as `corefire session list` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionDetail {
    /// Full.
    pub jid: String,
    /// Where its client is; none while the session waits to be resumed.
    pub address: Option<String>,
    pub tls: bool,
    /// XEP-0082.
    pub since: String,
    /// Seconds since the client was last heard; none while the session waits to be resumed.
    pub idle_s: Option<u64>,
    /// Of an available session.
    pub priority: Option<i8>,
    /// It can be resumed (XEP-0198).
    pub resumable: bool,
    /// The node of the cluster that has it.
    #[serde(default)]
    pub node: Option<String>,
    /// The node that its client is connected to; none while it waits to be resumed.
    #[serde(default)]
    pub socket: Option<String>,
}

/// A running node, as `corefire status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node: String,
    /// Of the program.
    pub version: String,
    pub pid: u32,
    /// Grows with each start of this node.
    pub incarnation: u64,
    pub uptime_s: u64,
    pub domains: Vec<String>,
    pub listeners: Vec<Listener>,
    pub shards: Vec<ShardStatus>,
    /// As configured: `stored` or `received`.
    pub ack: String,
    /// Where accounts are kept.
    pub store: String,
    pub data_dir: String,
    /// Who sends most.
    #[serde(default)]
    pub talkers: StatusTalkers,
}

/// The first first; ten of each kind at most.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusTalkers {
    pub by_stanzas: Vec<StatusTalker>,
    pub by_bytes: Vec<StatusTalker>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusTalker {
    /// Full, with the resource that was counted last; or a component's domain.
    pub jid: String,
    /// Stanzas or bytes in a second, at least, over the last half minute.
    pub per_s: f64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// As bound, so with the port that port 0 became.
    pub address: String,
    /// The configuration key: `c2s.listen`, `c2s.direct_tls_listen`.
    pub key: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    pub shard: u16,
    /// Client sockets, logged in or not.
    pub connections: u64,
    pub sessions: u64,
    /// Accounts in memory.
    pub accounts: u64,
    /// Components that may connect, with how many connections each has here.
    #[serde(default)]
    pub components: BTreeMap<String, u64>,
    /// Turns of over 10 ms, and the last of them.
    #[serde(default)]
    pub stalls: u64,
    #[serde(default)]
    pub last_stall: Option<StallReport>,
    /// How often the core came to its timers over 10 ms late.
    #[serde(default)]
    pub late: u64,
}

/// Who owns an address, as `corefire whereis` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Prepared.
    pub jid: String,
    /// What it is at this server, as far as its domain says. None where no node runs.
    #[serde(default)]
    pub kind: Option<PlaceKind>,
    /// 16 hexadecimal digits.
    pub hash64: String,
    pub partition: u16,
    /// Its name.
    pub node: String,
    #[serde(default)]
    pub node_id: u32,
    pub shard: u16,
    /// Of the cluster, by which this holds; 0 without one.
    #[serde(default)]
    pub epoch: u64,
    /// Where clients reach this very node, `HOST:PORT` each.
    #[serde(default)]
    pub clients: Vec<String>,
    /// Of an account.
    #[serde(default)]
    pub sessions: Vec<PlaceSession>,
    /// Of an address elsewhere, in a cluster: its domain, with which the node talks for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub talks_to: Option<String>,
    /// Connections of a component, by the names of the nodes that they are on.
    #[serde(default)]
    pub connections: BTreeMap<String, u64>,
    /// Nodes that gave no answer in time: what they have is missing.
    #[serde(default)]
    pub silent: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlaceKind {
    /// Of a domain that is served here, whether there is one of that name or not.
    Account,
    /// It is served here, by each node.
    Domain,
    /// It, or its domain, is a component's.
    Component,
    /// Nothing of this server.
    Elsewhere,
}

/// A session, as `corefire whereis` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceSession {
    pub resource: String,
    /// The node that its client is connected to; none while it waits to be resumed.
    pub socket: Option<String>,
    /// Where its client is.
    pub address: Option<String>,
    /// XEP-0082.
    pub since: String,
}

/// Answers requests; called from several side threads at a time, may block.
pub trait ControlHandler: Send + Sync {
    /// Gives the last answer; those before it, where there are any, are told.
    fn handle(&self, request: ControlRequest, tell: &mut Tell<'_>) -> ControlResponse;
}

/// Sends an answer. False once nobody listens.
pub type Tell<'a> = dyn FnMut(ControlResponse) -> bool + 'a;

/// `Credentials` as JSON: bytes in base64.
mod wire_credentials {
    use serde::{Deserializer, Serializer, de};

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct WireCredentials {
        sha1: WireKeys,
        sha256: WireKeys,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha512: Option<WireKeys>,
    }

    #[derive(Serialize, Deserialize)]
    struct WireKeys {
        iterations: u32,
        salt: String,
        stored_key: String,
        server_key: String,
    }

    pub(super) fn serialize<S: Serializer>(keys: &Credentials, s: S) -> Result<S::Ok, S::Error> {
        let wire = |keys: &ScramKeys| WireKeys {
            iterations: keys.iterations,
            salt: BASE64.encode(&keys.salt),
            stored_key: BASE64.encode(&keys.stored_key),
            server_key: BASE64.encode(&keys.server_key),
        };
        let sha512 = keys.sha512.as_deref().map(wire);
        WireCredentials { sha1: wire(&keys.sha1), sha256: wire(&keys.sha256), sha512 }.serialize(s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Credentials, D::Error> {
        let bytes = |text: &str| BASE64.decode(text).map_err(de::Error::custom);
        let keys = |wire: WireKeys, length: usize| {
            let keys = ScramKeys {
                iterations: wire.iterations,
                salt: bytes(&wire.salt)?,
                stored_key: bytes(&wire.stored_key)?,
                server_key: bytes(&wire.server_key)?,
            };
            let is_none = keys.stored_key.is_empty() && keys.server_key.is_empty();
            match is_none || (keys.stored_key.len() == length && keys.server_key.len() == length) {
                true => Ok(keys),
                false => Err(de::Error::custom("a key of the wrong length")),
            }
        };
        let wire = WireCredentials::deserialize(d)?;
        let sha512 = wire.sha512.map(|sha512| keys(sha512, 64).map(Box::new)).transpose()?;
        Ok(Credentials { sha1: keys(wire.sha1, 20)?, sha256: keys(wire.sha256, 32)?, sha512 })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::cluster::view::View;

    fn keys(length: usize) -> ScramKeys {
        let bytes = vec![7; length];
        ScramKeys {
            iterations: 4096,
            salt: vec![1; 16],
            stored_key: bytes.clone(),
            server_key: bytes,
        }
    }

    #[test]
    fn every_request_reads_back_from_its_line() {
        let credentials =
            Credentials { sha1: keys(20), sha256: keys(32), sha512: Some(keys(64).into()) };
        let jid = "alice@localhost".to_owned();
        let password = Password("secret".into());
        let requests = [
            ControlRequest::Status,
            ControlRequest::Reload,
            ControlRequest::ShardMap,
            ControlRequest::Cluster,
            ControlRequest::Drain,
            ControlRequest::Weigh { weight: 2 },
            ControlRequest::Whereis { jid: jid.clone() },
            ControlRequest::Trace(TraceRequest { jid: Some(jid.clone()), id: None, seconds: 60 }),
            ControlRequest::Account(AccountRequest::Add {
                jid: jid.clone(),
                password: password.clone(),
            }),
            ControlRequest::Account(AccountRequest::SetPassword { jid: jid.clone(), password }),
            ControlRequest::Account(AccountRequest::Delete { jid: jid.clone() }),
            ControlRequest::Account(AccountRequest::List { after: None, limit: 10 }),
            ControlRequest::Account(AccountRequest::Import {
                accounts: vec![ImportedAccount { jid, credentials }],
            }),
        ];
        for request in requests {
            let line =
                serde_json::to_string(&Envelope { protocol: PROTOCOL_VERSION, body: &request })
                    .unwrap();
            let read: Envelope<ControlRequest> = serde_json::from_str(&line).unwrap();
            assert_eq!(read.body, request, "{line}");
        }
    }

    #[test]
    fn every_response_reads_back_from_its_line() {
        let place = Place {
            jid: "a@b".into(),
            hash64: format!("{:016x}", u64::MAX),
            partition: 4095,
            node: "n".into(),
            node_id: u32::MAX,
            shard: 1,
            epoch: u64::MAX,
            clients: vec!["[::1]:5222".into()],
            kind: Some(PlaceKind::Component),
            sessions: vec![PlaceSession::default()],
            talks_to: Some("b".into()),
            connections: [("n".to_owned(), 2)].into(),
            silent: vec!["m".into()],
        };
        let responses = [
            ControlResponse::Done,
            ControlResponse::error("no"),
            ControlResponse::Imported {
                outcomes: vec![
                    ImportOutcome::Created,
                    ImportOutcome::Exists,
                    ImportOutcome::Refused { cause: "no".into() },
                ],
            },
            ControlResponse::Accounts { jids: vec!["a@b".into()], more: true },
            ControlResponse::Status(Box::new(Status {
                version: "0.1.0".into(),
                shards: vec![ShardStatus::default()],
                ..Status::default()
            })),
            ControlResponse::Place(place),
            ControlResponse::ShardMap(ShardMap::of(&View::single("n", 2, 1))),
            ControlResponse::Cluster(Box::default()),
            ControlResponse::Draining,
            ControlResponse::Weighed,
            ControlResponse::Trace(TraceEvent::Hop(Box::default())),
            ControlResponse::Trace(TraceEvent::Quiet),
            ControlResponse::Trace(TraceEvent::LeftOut { hops: u64::MAX }),
            ControlResponse::Reloaded(Reloaded {
                applied: vec!["limits.depth: 64 -> 32".into()],
                ..Reloaded::default()
            }),
        ];
        for response in responses {
            let line =
                serde_json::to_string(&Envelope { protocol: PROTOCOL_VERSION, body: &response })
                    .unwrap();
            let read: Envelope<ControlResponse> = serde_json::from_str(&line).unwrap();
            assert_eq!(read.body, response, "{line}");
        }
    }

    #[test]
    fn keys_of_a_wrong_length_are_refused() {
        for (sha1, sha512) in [(19, 64), (20, 63)] {
            let credentials = Credentials {
                sha1: keys(sha1),
                sha256: keys(32),
                sha512: Some(keys(sha512).into()),
            };
            let account = ImportedAccount { jid: "a@b".into(), credentials };
            let line = serde_json::to_string(&account).unwrap();
            assert!(serde_json::from_str::<ImportedAccount>(&line).is_err());
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(format!("{:?}", Password("secret".into())), "Password(..)");
    }
}
