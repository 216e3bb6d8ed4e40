//! What operators ask of a federation core, and what it answers: `corefire federation list|check|close|block`.
//!
//! With several cores, those that name a domain go to the core of that domain, the others to all of them.

use super::probe::Failure;
use crate::base::instant::Wall;
use std::sync::Arc;
use std::time::Duration;

/// What is asked. Domains are prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The remote domains that are known here, in their order, after `after`; `limit` of them at most, never more than
    /// `LIST_MAX`.
    List {
        after: Option<Arc<str>>,
        limit: usize,
    },
    /// Close the streams with a domain, both ways, with `reset`. What waits for it goes out on new ones.
    Close {
        domain: Arc<str>,
    },
    /// Refuse a domain until `Unblock`, or until the configuration is read again, and close its streams
    /// (`policy-violation`). What waits for it is answered with `remote-server-not-found`.
    Block {
        domain: Arc<str>,
    },
    Unblock {
        domain: Arc<str>,
    },
    /// Walk to a domain step by step and say what happened, on a connection of its own; for `own`, or the first domain of
    /// ours.
    Check {
        domain: Arc<str>,
        own: Option<Arc<str>>,
    },
}

/// Domains of one page of a list at most.
pub const LIST_MAX: usize = 1_000;

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// `more`: there are others after the last one.
    List {
        domains: Vec<Listed>,
        more: bool,
    },
    /// So many connections were closed.
    Closed {
        connections: usize,
    },
    /// Whether it was not blocked before, and how many connections were closed.
    Blocked {
        new: bool,
        connections: usize,
    },
    /// Whether it was blocked.
    Unblocked {
        was: bool,
    },
    Checked(Check),
    /// It cannot be asked; in words.
    Refused(Box<str>),
}

/// One remote domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub domain: Arc<str>,
    pub state: State,
    /// Streams to it, and from it, that are authenticated.
    pub outgoing: u32,
    pub incoming: u32,
    /// Stanzas that wait, and their bytes.
    pub queued: usize,
    pub queued_bytes: usize,
    /// Stanzas sent that the peer has not confirmed.
    pub unconfirmed: usize,
    /// Rows in the store that wait for it.
    pub stored: usize,
    /// Stanzas since the domain came into memory.
    pub sent: u64,
    pub received: u64,
    pub bounced: u64,
    /// The last failure, in words, and when.
    pub failure: Option<(Wall, Box<str>)>,
    /// How its streams authenticate and what they speak, in a few words.
    pub by: Box<str>,
}

/// How things stand with a remote domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is going on.
    Idle,
    /// Being looked up, dialled, or negotiated with.
    Connecting,
    Connected,
    /// Waits before the next attempt.
    BackingOff,
    /// It failed so often that new IQs are answered at once.
    Broken,
    Blocked,
}

impl State {
    pub const ALL: [State; 6] = [
        State::Idle,
        State::Connecting,
        State::Connected,
        State::BackingOff,
        State::Broken,
        State::Blocked,
    ];

    pub fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Connecting => "connecting",
            State::Connected => "connected",
            State::BackingOff => "backing_off",
            State::Broken => "broken",
            State::Blocked => "blocked",
        }
    }
}

/// A walk to a domain: what was done, in order, and how it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Check {
    pub steps: Vec<CheckStep>,
    /// `None`: stanzas could flow.
    pub failure: Option<Failure>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckStep {
    pub step: Step,
    pub sound: bool,
    /// What was found; what is wrong and what can be done about it.
    pub text: Box<str>,
    pub took: Duration,
}

/// The steps of a walk, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Allowed at all, by our own configuration.
    Policy,
    Dns,
    Tcp,
    Tls,
    /// What the domain says of its certificate over HTTPS, where that is asked.
    Posh,
    Stream,
    Auth,
}

impl Step {
    pub const ALL: [Step; 7] =
        [Step::Policy, Step::Dns, Step::Tcp, Step::Tls, Step::Posh, Step::Stream, Step::Auth];

    pub fn name(self) -> &'static str {
        match self {
            Step::Policy => "policy",
            Step::Dns => "dns",
            Step::Tcp => "tcp",
            Step::Tls => "tls",
            Step::Posh => "posh",
            Step::Stream => "stream",
            Step::Auth => "auth",
        }
    }
}
