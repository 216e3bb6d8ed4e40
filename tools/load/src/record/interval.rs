//! One second of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::histogram::{PackedLatency, UnreadableHistogram};

/// What a simulated user does and what is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Connecting to bound (and available, where the scenario wants presence).
    Login,
    /// Breaking a connection to `<resumed/>` (XEP-0198).
    Resume,
    /// A one-to-one message: sent to read by its recipient.
    Message,
    /// A room message, once per occupant that reads it.
    RoomMessage,
    /// Joining a room: sent to the own presence with status 110.
    Join,
    /// Presence: sent to read by a contact.
    Presence,
    /// XEP-0199 to the server.
    Ping,
    /// Reading the roster.
    RosterGet,
    /// Changing a roster item: sent to the answer.
    RosterSet,
    /// A page of the archive (XEP-0313).
    Archive,
    /// In-band registration of an account (XEP-0077).
    Register,
    /// A message of an external component (XEP-0114): sent to read by its recipient.
    ComponentMessage,
}

impl Operation {
    /// In the order in which reports show them.
    pub const ALL: [Self; 12] = [
        Self::Login,
        Self::Resume,
        Self::Message,
        Self::RoomMessage,
        Self::Join,
        Self::Presence,
        Self::Ping,
        Self::RosterGet,
        Self::RosterSet,
        Self::Archive,
        Self::Register,
        Self::ComponentMessage,
    ];

    /// As scenario files, tags of `.hlog` and `summary.json` write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Resume => "resume",
            Self::Message => "message",
            Self::RoomMessage => "room-message",
            Self::Join => "join",
            Self::Presence => "presence",
            Self::Ping => "ping",
            Self::RosterGet => "roster-get",
            Self::RosterSet => "roster-set",
            Self::Archive => "archive",
            Self::Register => "register",
            Self::ComponentMessage => "component-message",
        }
    }
}

/// One operation during one interval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Intended moment to done: what a user who wanted it then has waited. Filed under the interval in which it was done.
    pub response: PackedLatency,
    /// Sent to done.
    pub service: PackedLatency,
    /// Operations whose intended moment lies in the interval.
    pub planned: u64,
    /// Operations that were done in it; for fan-out once per recipient.
    pub done: u64,
    /// Failures in it, by condition: the defined condition of a stanza or stream error, `closed`, `timeout`, `refused` …
    pub failed: BTreeMap<String, u64>,
}

/// What the tool itself did in an interval, all workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLoad {
    /// How late planned operations left: intended moment to the write.
    pub lag: PackedLatency,
    /// CPU time of the workers' threads.
    pub cpu: Duration,
    /// Operations that left more than 1 ms late by the tool's own fault.
    pub late: u64,
    /// Operations that were not begun because the tool could not (a session down, a window full).
    pub dropped: u64,
}

/// What the server's process did in an interval, read from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerLoad {
    /// CPU time spent in it.
    pub cpu: Duration,
    /// Bytes of anonymous resident memory at its end.
    pub memory: u64,
}

/// One second of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Number since the start of the run: interval n begins n seconds after it.
    pub number: u64,
    /// Place in [`super::Outcome::phases`] of the phase in which it begins.
    pub phase: usize,
    pub tallies: BTreeMap<Operation, Tally>,
    /// Sessions that are up at its end.
    pub online: u64,
    /// Sessions that ended unasked, by cause.
    #[serde(default)]
    pub disconnected: BTreeMap<String, u64>,
    pub own: OwnLoad,
    /// Known where the run was told a process; of all that it was told together.
    pub server: Option<ServerLoad>,
    /// Of each, where it was told several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<ServerLoad>,
}

impl Interval {
    /// Adds what another worker saw in the same second.
    ///
    /// - errors: a histogram that cannot be read
    pub fn merge(&mut self, other: &Self) -> Result<(), UnreadableHistogram> {
        let add =
            |one: &mut PackedLatency, other: &PackedLatency| -> Result<(), UnreadableHistogram> {
                let mut sum = one.unpack()?;
                sum.merge(&other.unpack()?);
                *one = sum.pack();
                Ok(())
            };
        for (operation, theirs) in &other.tallies {
            let mine = self.tallies.entry(*operation).or_default();
            add(&mut mine.response, &theirs.response)?;
            add(&mut mine.service, &theirs.service)?;
            mine.planned += theirs.planned;
            mine.done += theirs.done;
            for (condition, count) in &theirs.failed {
                *mine.failed.entry(condition.clone()).or_default() += count;
            }
        }
        self.online += other.online;
        for (cause, count) in &other.disconnected {
            *self.disconnected.entry(cause.clone()).or_default() += count;
        }
        add(&mut self.own.lag, &other.own.lag)?;
        self.own.cpu += other.own.cpu;
        self.own.late += other.own.late;
        self.own.dropped += other.own.dropped;
        self.server = self.server.or(other.server);
        if self.servers.is_empty() {
            self.servers.clone_from(&other.servers);
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::record::Latency;

    #[test]
    fn intervals_of_two_workers_add_up() {
        let one = |us: u64| {
            let mut latency = Latency::default();
            latency.record(Duration::from_micros(us));
            let tally = Tally {
                response: latency.pack(),
                service: latency.pack(),
                planned: 2,
                done: 1,
                failed: [("closed".to_owned(), 1)].into(),
            };
            Interval {
                tallies: [(Operation::Message, tally)].into(),
                online: 5,
                ..Interval::default()
            }
        };
        let mut sum = one(100);
        sum.merge(&one(300)).unwrap();
        let tally = &sum.tallies[&Operation::Message];
        let response = tally.response.unpack().unwrap();
        assert_eq!((response.count(), tally.planned, tally.done, sum.online), (2, 4, 2, 10));
        assert_eq!(tally.failed["closed"], 2);
        assert!(response.max() >= Duration::from_micros(300));
    }

    #[test]
    fn names_are_those_of_the_serialised_form() {
        for operation in Operation::ALL {
            let written = serde_json::to_string(&operation).unwrap();
            assert_eq!(written, format!("\"{}\"", operation.name()));
        }
    }
}
