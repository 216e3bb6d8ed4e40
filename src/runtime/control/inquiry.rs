//! What a node asks the others when its operator asks of all of them, and what they answer: of what each has itself, never
//! of what others have. One JSON object each way, between nodes that know each other by their cluster's secret.

use super::{SessionCursor, SessionDetail};
use crate::shard::errand::Which;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "inquiry", rename_all = "snake_case")]
pub enum Inquiry {
    /// Sessions that the node has, of one account or of all, from a place on.
    Sessions { jid: Option<String>, after: Option<SessionCursor> },
    /// An operator ends a session (full JID), or all of an account.
    EndSessions { jid: String },
    /// Users of a domain that are online, the first `limit` of them, and how many there are.
    Users { domain: String, which: WhichUsers, limit: usize },
    /// To all sessions of the domain that are available.
    Announce { domain: String, subject: Option<String>, body: String },
    /// Connections of components.
    Components,
}

/// What was found, or done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// `next`: where the next page of this node begins, if there is one.
    Sessions {
        sessions: Vec<SessionDetail>,
        next: Option<SessionCursor>,
    },
    Ended {
        sessions: u64,
    },
    Users {
        jids: Vec<String>,
        online: u64,
        active: u64,
    },
    Done,
    /// By domain.
    Components {
        connections: BTreeMap<String, u64>,
    },
    /// One line.
    Failed {
        message: String,
    },
}

/// `Which`, as it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhichUsers {
    Online,
    Active,
    Idle,
}

impl From<Which> for WhichUsers {
    fn from(which: Which) -> WhichUsers {
        match which {
            Which::Online => WhichUsers::Online,
            Which::Active => WhichUsers::Active,
            Which::Idle => WhichUsers::Idle,
        }
    }
}

impl From<WhichUsers> for Which {
    fn from(which: WhichUsers) -> Which {
        match which {
            WhichUsers::Online => Which::Online,
            WhichUsers::Active => Which::Active,
            WhichUsers::Idle => Which::Idle,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn inquiries_and_findings_read_back() {
        let jid = || "a@b/\"c\"".to_owned();
        let after = Some(SessionCursor { node: 7, shard: 1, slot: 9 });
        for inquiry in [
            Inquiry::Sessions { jid: Some(jid()), after },
            Inquiry::EndSessions { jid: jid() },
            Inquiry::Users { domain: "b".into(), which: WhichUsers::Idle, limit: 3 },
            Inquiry::Announce { domain: "b".into(), subject: None, body: "x\ny".into() },
            Inquiry::Components,
        ] {
            let text = serde_json::to_vec(&inquiry).unwrap();
            assert_eq!(serde_json::from_slice::<Inquiry>(&text).unwrap(), inquiry);
        }
        for finding in [
            Finding::Sessions { sessions: vec![SessionDetail::default()], next: after },
            Finding::Ended { sessions: 2 },
            Finding::Users { jids: vec![jid()], online: 1, active: 1 },
            Finding::Done,
            Finding::Components { connections: [("bot.b".to_owned(), 2)].into() },
            Finding::Failed { message: "no".into() },
        ] {
            let text = serde_json::to_vec(&finding).unwrap();
            assert_eq!(serde_json::from_slice::<Finding>(&text).unwrap(), finding);
        }
    }
}
