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

use crate::login::{Management, Mechanism, Way};
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
    pub way: Way,
    /// Logins under way at once; what comes due beyond waits, and the wait counts.
    pub logins_in_flight: usize,
    /// Addresses of loopback, from 127.0.0.1 on, over which connections to loopback are spread.
    pub sources: usize,
    /// After a connection was lost: the first wait before the next attempt; doubled each time, with jitter.
    pub backoff_first: Duration,
    pub backoff_max: Duration,
    /// Whether who lost a connection goes to the next of several targets: nodes of one server.
    pub fail_over: bool,
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

/// Users who do the same.
#[derive(Clone, Debug, PartialEq)]
pub struct Population {
    pub name: String,
    pub users: u64,
    pub presence: bool,
    pub management: Management,
    /// Share of the users of each group who go without XEP-0198 all the same, the last ones.
    pub plain: f64,
    /// XEP-0280.
    pub carbons: bool,
    pub reader: Reader,
    pub message: Option<MessageWish>,
    pub room: Option<RoomWish>,
    pub churn: Option<ChurnWish>,
    pub component: Option<ComponentMessageWish>,
    pub cut: Option<CutWish>,
    /// Requests and their rates per second.
    pub requests: Vec<RequestWish>,
}

/// How a population's clients read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Normal,
    /// Nothing for nine tenths of each period, with the smallest buffer that the kernel gives.
    Slow {
        period: Duration,
    },
    /// Open a stream and never say more: they hold a connection that is not logged in.
    HalfOpen,
}

/// Messages to rooms (XEP-0045).
#[derive(Clone, Debug, PartialEq)]
pub struct RoomWish {
    /// Of the population together, per second, at load 1.
    pub rate: f64,
    pub body_bytes: usize,
    pub rooms: u64,
    /// Exponent of Zipf's law: room n has occupants in proportion to 1/nˢ.
    pub zipf: f64,
    /// Where rooms live; `{}` is the domain.
    pub service: String,
}

/// Changes of presence, which reach contacts.
#[derive(Clone, Debug, PartialEq)]
pub struct ChurnWish {
    /// Of the population together, per second, at load 1.
    pub rate: f64,
    /// Contacts of each user, with mutual subscriptions that the run makes; users are in groups of one more.
    pub contacts: u64,
}

/// Connections that break and come back, as those of phones do.
#[derive(Clone, Debug, PartialEq)]
pub struct CutWish {
    /// Of the population together, per second, at load 1.
    pub rate: f64,
    /// From the break to the wish to be back.
    pub away: Duration,
}

/// How a message is addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Address {
    /// To the session, as clients do within a conversation (RFC 6121 §5.1).
    #[default]
    Full,
    /// To the account, as the first message of a conversation.
    Bare,
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
    pub senders: Senders,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Senders {
    #[default]
    All,
    /// The first of each group: the others read. With a partner each and two targets, those of the first target write to
    /// those of the second.
    First,
}

impl MessageWish {
    /// One user in so many sends.
    pub fn stride(&self) -> u64 {
        match self.senders {
            Senders::All => 1,
            Senders::First => self.partners + 1,
        }
    }
}

/// Messages that the scenario's component sends to the users.
#[derive(Clone, Debug, PartialEq)]
pub struct ComponentMessageWish {
    /// To the population together, per second, at load 1.
    pub rate: f64,
    pub body_bytes: usize,
    pub to: Address,
}

/// The external component (XEP-0114).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentWish {
    /// Its own address; `{}` is the domain of the first target.
    pub address: String,
    /// Where the host of the first target takes components.
    pub port: u16,
    pub secret: String,
}

/// Requests that the server answers.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestWish {
    pub operation: Operation,
    /// Of the population together, per second, at load 1.
    pub rate: f64,
    /// Archive: messages asked for.
    pub page: u64,
}

impl Population {
    /// Users that know each other, and so are driven by one worker.
    pub fn group(&self) -> u64 {
        let partners = self.message.as_ref().map_or(0, |message| message.partners);
        let contacts = self.churn.as_ref().map_or(0, |churn| churn.contacts);
        partners.max(contacts) + 1
    }

    /// XEP-0198 of one user.
    pub fn management_of(&self, user: u64) -> Management {
        let group = self.group();
        let managed = group - (group as f64 * self.plain).round() as u64;
        if user % group < managed { self.management } else { Management::Off }
    }

    /// What a cut connection comes back by.
    pub fn comeback(&self) -> Operation {
        if self.management == Management::Resume { Operation::Resume } else { Operation::Login }
    }

    /// Rates of its activities, by operation.
    pub fn rates(&self) -> impl Iterator<Item = (Operation, f64)> {
        let message = self.message.iter().map(|wish| (Operation::Message, wish.rate));
        let room = self.room.iter().map(|wish| (Operation::RoomMessage, wish.rate));
        let churn = self.churn.iter().map(|wish| (Operation::Presence, wish.rate));
        let component = self.component.iter().map(|wish| (Operation::ComponentMessage, wish.rate));
        let cut = self.cut.iter().map(|wish| (self.comeback(), wish.rate));
        let requests = self.requests.iter().map(|wish| (wish.operation, wish.rate));
        message.chain(room).chain(churn).chain(component).chain(cut).chain(requests)
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
    pub component: Option<ComponentWish>,
    /// Whether the ledger reads the recipients' archives (XEP-0313) at the end.
    pub reads_archives: bool,
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
