//! A scenario: who is there, what they do and when, and what must hold. Read from TOML, checked as a whole.
//!
//! [`Scenario::read`] finds every fault of a file at once, with line, key and what to write instead. What a scenario
//! comes to on a clock is [`crate::plan`]'s.

pub mod init;
mod read;
mod reader;
mod threshold;

use std::time::Duration;

pub use reader::{Fault, duration};
pub use threshold::{Bound, Subject, Threshold};

use crate::login::Mechanism;
use crate::pairs::Address;
use crate::record::Operation;

/// How connections are secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// STARTTLS where the server offers it.
    Auto,
    None,
    Starttls,
    Direct,
}

/// What all sessions have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    pub security: Security,
    /// `None`: the strongest of SCRAM-SHA-256, SCRAM-SHA-1 and PLAIN that the server offers.
    pub mechanism: Option<Mechanism>,
    /// Logins under way at once; what comes due beyond waits, and the wait counts.
    pub logins_in_flight: usize,
    /// Addresses of loopback, from 127.0.0.1 on, over which connections to loopback are spread.
    pub sources: usize,
    /// After a connection was lost: the first wait before the next attempt; doubled each time, with jitter.
    pub backoff_first: Duration,
    pub backoff_max: Duration,
}

/// Which accounts the users are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// Name with `{}` for the number.
    pub pattern: String,
    /// Number of the first.
    pub first: u64,
    pub password: String,
    /// Make each account by in-band registration (XEP-0077) before its first login; one that exists is fine.
    pub register: bool,
}

/// What a phase is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseKind {
    /// Sessions come (or go) evenly over its length.
    Ramp,
    Hold,
    /// At its beginning connections are cut; their users want to be back.
    Storm,
}

impl PhaseKind {
    /// As files and artefacts write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ramp => "ramp",
            Self::Hold => "hold",
            Self::Storm => "storm",
        }
    }
}

/// A stretch of the run.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseWish {
    pub name: String,
    pub kind: PhaseKind,
    pub length: Duration,
    /// Whether thresholds and totals count it.
    pub measured: bool,
    /// Factor of all rates at its beginning and end; linear between.
    pub load: (f64, f64),
    /// Share of the users that want to be online at its end.
    pub users: f64,
    /// Storm: share of the online sessions whose connections are cut at its beginning.
    pub share: f64,
    /// Storm: time over which those users come back.
    pub spread: Duration,
}

/// How a population's operations follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Independent of each other, as of many users (exponential gaps).
    Poisson,
    /// Evenly spaced.
    Even,
}

/// XEP-0198 of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamManagement {
    Off,
    /// Acknowledgements.
    On,
}

/// Users who do the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    pub name: String,
    pub users: u64,
    pub presence: bool,
    pub management: StreamManagement,
    pub message: Option<MessageWish>,
    /// Requests and their rates per second.
    pub requests: Vec<RequestWish>,
}

/// One-to-one messages.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageWish {
    /// Of the population together, per second, at load 1.
    pub rate: f64,
    pub body_bytes: usize,
    pub address: Address,
    /// Recipients of each sender; users talk within groups of one more.
    pub partners: u64,
}

/// Requests that the server answers.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestWish {
    pub operation: Operation,
    /// Of the population together, per second, at load 1.
    pub rate: f64,
}

impl Population {
    /// Users that know each other, and so are driven by one worker.
    pub fn group(&self) -> u64 {
        self.message.as_ref().map_or(1, |message| message.partners + 1)
    }

    /// Rates of its activities, by operation.
    pub fn rates(&self) -> impl Iterator<Item = (Operation, f64)> {
        let message = self.message.iter().map(|wish| (Operation::Message, wish.rate));
        message.chain(self.requests.iter().map(|wish| (wish.operation, wish.rate)))
    }
}

/// Something that is done to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultWish {
    /// From the start of the run.
    pub at: Duration,
    pub name: String,
    /// For `sh -c`.
    pub command: String,
}

/// A checked scenario.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    pub name: String,
    pub about: String,
    pub seed: u64,
    pub arrivals: Arrivals,
    /// How long, after the last phase, what is under way may still arrive.
    pub drain: Duration,
    /// p99 of the tool's own lateness above which the run is INVALID.
    pub lag_max: Duration,
    pub connection: Connection,
    pub accounts: Accounts,
    pub phases: Vec<PhaseWish>,
    pub populations: Vec<Population>,
    pub thresholds: Vec<Threshold>,
    pub faults: Vec<FaultWish>,
}

impl Scenario {
    pub fn users(&self) -> u64 {
        self.populations.iter().map(|population| population.users).sum()
    }

    /// Operations per second of all populations, at load 1.
    pub fn rate(&self) -> f64 {
        self.populations.iter().flat_map(|p| p.rates()).map(|(_, rate)| rate).sum()
    }
}
