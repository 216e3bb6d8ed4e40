//! Who is online: logins at their intended moments, lost connections that come back with growing waits.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::Notes;
use super::ledger::Ledger;
use crate::plan::{Plan, Random, Share};
use crate::record::Operation;
use crate::scan::escape;
use crate::scenario::StreamManagement;
use crate::{ClientId, Engine};

/// One simulated user of this share.
pub(super) struct Session {
    pub(super) population: usize,
    pub(super) user: u64,
    /// The engine's name for it.
    pub(super) client: Option<ClientId>,
    /// Whether the user wants to be online.
    wanted: bool,
    state: State,
    /// Logins that failed since the last that did not.
    attempts: u8,
    /// When the user wanted to be online, and when the tool began.
    intended: Instant,
    begun: Instant,
    /// XEP-0198 is enabled when online.
    managed: bool,
    /// As others address it, escaped: full when known, else the account. The first `bare` bytes are the account.
    address: Box<[u8]>,
    bare: usize,
    /// The full address has to be asked for.
    is_new: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Down,
    LoggingIn,
    Up,
}

/// All sessions of a share, in the order of the engine's clients.
pub(super) struct Sessions {
    list: Vec<Session>,
    /// By population: the place of its first session.
    first: Vec<usize>,
    /// By population: group size and users.
    groups: Vec<(u64, u64)>,
    share: Share,
    retries: BinaryHeap<Reverse<(Instant, usize)>>,
    new: Vec<usize>,
    online: u64,
    ever: bool,
    random: Random,
    /// First wait and longest.
    backoff: (Duration, Duration),
}

impl Sessions {
    pub(super) fn new(plan: &Plan, share: Share) -> Self {
        let now = Instant::now();
        let (mut list, mut first, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        for (population, wish) in plan.scenario.populations.iter().enumerate() {
            first.push(list.len());
            groups.push((wish.group(), wish.users));
            let users = (0..wish.users).filter(|user| plan.is_in(share, population, *user));
            list.extend(users.map(|user| Session {
                population,
                user,
                client: None,
                wanted: false,
                state: State::Down,
                attempts: 0,
                intended: now,
                begun: now,
                managed: wish.management != StreamManagement::Off,
                address: Box::default(),
                bare: 0,
                is_new: false,
            }));
        }
        let connection = &plan.scenario.connection;
        Self {
            list,
            first,
            groups,
            share,
            retries: BinaryHeap::new(),
            new: Vec::new(),
            online: 0,
            ever: false,
            random: Random::new(plan.scenario.seed, &[2, share.index]),
            backoff: (connection.backoff_first, connection.backoff_max),
        }
    }

    /// Gives each session the address of its account.
    pub(super) fn set_targets(&mut self, plan: &Plan) {
        for session in &mut self.list {
            let mut address = Vec::new();
            escape(&plan.account(session.population, session.user), &mut address);
            address.push(b'@');
            escape(&plan.targets[plan.target_of(session.user)].domain, &mut address);
            session.bare = address.len();
            session.address = address.into();
        }
    }

    /// Sets the engine's names, which are in the same order.
    pub(super) fn set_clients(&mut self, clients: Vec<ClientId>) {
        for (session, client) in self.list.iter_mut().zip(clients) {
            session.client = Some(client);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Session> {
        self.list.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn online(&self) -> u64 {
        self.online
    }

    /// Whether no login has ever been complete although somebody wants to be online.
    pub(super) fn nobody_came(&self) -> bool {
        !self.ever && self.list.iter().any(|session| session.wanted)
    }

    pub(super) fn population(&self, session: usize) -> usize {
        self.list[session].population
    }

    /// The session of a user, if it is this share's.
    pub(super) fn find(&self, population: usize, user: u64) -> Option<usize> {
        let (group, users) = self.groups[population];
        let unit = user / group;
        if user >= users || unit % self.share.count != self.share.index {
            return None;
        }
        let place = unit / self.share.count * group + user % group;
        Some(self.first[population] + place as usize)
    }

    pub(super) fn is_up(&self, session: usize) -> bool {
        self.list[session].state == State::Up
    }

    pub(super) fn is_managed(&self, session: usize) -> bool {
        self.list[session].managed
    }

    pub(super) fn client(&self, session: usize) -> Option<ClientId> {
        self.list[session].client
    }

    pub(super) fn clients(&self) -> impl Iterator<Item = ClientId> + use<'_> {
        self.list.iter().filter_map(|session| session.client)
    }

    /// Escaped, of the session or of its account.
    pub(super) fn address(&self, session: usize, full: bool) -> &[u8] {
        let session = &self.list[session];
        if full { &session.address } else { &session.address[..session.bare] }
    }

    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.retries.peek().map(|Reverse((at, _))| *at)
    }

    /// Messages that wait for an acknowledgement that may still come.
    pub(super) fn unacked(&self, ledger: &Ledger) -> usize {
        (0..self.list.len()).map(|session| ledger.unacked(session)).sum()
    }

    /// Asks the engine for the addresses that logins have brought.
    pub(super) fn learn_addresses(&mut self, engine: &Engine) {
        for at in std::mem::take(&mut self.new) {
            let session = &mut self.list[at];
            session.is_new = false;
            let Some(client) = session.client else {
                continue;
            };
            let mut address = Vec::new();
            escape(engine.jid(client), &mut address);
            if *address != *session.address && !address.is_empty() {
                session.bare = address.iter().position(|b| *b == b'/').unwrap_or(address.len());
                session.address = address.into();
            }
        }
    }

    /// The session ended because it was asked to.
    pub(super) fn gone(&mut self, session: usize) {
        let session = &mut self.list[session];
        if session.state == State::Up {
            self.online -= 1;
        }
        session.state = State::Down;
    }

    /// Waits, longer after each failure, before the next attempt.
    fn retry_later(&mut self, at: usize, now: Instant) {
        let session = &mut self.list[at];
        let doubled = self.backoff.0.saturating_mul(1 << session.attempts.min(16));
        session.attempts = session.attempts.saturating_add(1);
        // Half of it to all of it, so that those who were cut together do not come back together.
        let wait = doubled.min(self.backoff.1).mul_f64(0.5 + self.random.fraction() / 2.0);
        self.retries.push(Reverse((now + wait, at)));
    }
}

impl Notes {
    /// The user wants to be online since `intended`.
    pub(super) fn log_in(
        &mut self,
        at: usize,
        engine: &mut Engine,
        intended: Instant,
        now: Instant,
    ) {
        let session = &mut self.sessions.list[at];
        session.wanted = true;
        if session.state != State::Down {
            return;
        }
        session.intended = intended;
        self.recorder.sent(Operation::Login, intended, now);
        self.begin(at, engine, now);
    }

    fn begin(&mut self, at: usize, engine: &mut Engine, now: Instant) {
        let session = &mut self.sessions.list[at];
        session.begun = now;
        session.state = State::LoggingIn;
        if let Some(client) = session.client {
            engine.start(client);
        }
    }

    /// The user wants to be offline.
    pub(super) fn log_out(&mut self, at: usize, engine: &mut Engine) {
        let session = &mut self.sessions.list[at];
        session.wanted = false;
        if session.state == State::Up
            && let Some(client) = session.client
        {
            engine.close(client);
        }
    }

    /// The connection is dropped without a word; the user wants to be back when the plan says so.
    pub(super) fn cut(&mut self, at: usize, engine: &mut Engine) {
        let session = &mut self.sessions.list[at];
        if session.state == State::Up {
            self.sessions.online -= 1;
        }
        session.state = State::Down;
        session.wanted = false;
        if let Some(client) = session.client {
            engine.abandon(client);
        }
        self.ledger.orphaned(at);
    }

    /// A login is complete.
    pub(super) fn ready(&mut self, at: usize, now: Instant) {
        let session = &mut self.sessions.list[at];
        session.state = State::Up;
        session.attempts = 0;
        self.recorder.done(Operation::Login, session.intended, session.begun, now);
        self.sessions.online += 1;
        self.sessions.ever = true;
        if !std::mem::replace(&mut session.is_new, true) {
            self.sessions.new.push(at);
        }
    }

    /// A connection ended, or was never there.
    ///
    /// - gives: why the target cannot be used at all, if this shows it
    pub(super) fn closed(&mut self, at: usize, cause: &str, plan: &Plan) -> Option<String> {
        let now = Instant::now();
        let cause = condition(cause);
        let ever = self.sessions.ever;
        let session = &mut self.sessions.list[at];
        let was = std::mem::replace(&mut session.state, State::Down);
        self.ledger.orphaned(at);
        if was == State::Up {
            self.sessions.online -= 1;
        }
        if !session.wanted {
            return None;
        }
        if was == State::Up {
            self.recorder.disconnected(&cause);
            self.recorder.wanted(Operation::Login);
            session.intended = now;
        } else {
            self.recorder.failed(Operation::Login, &cause);
            let is_hopeless = cause.starts_with("connecting") || cause.contains("offered");
            let is_refused = cause.contains("login refused: not-authorized");
            if !ever && is_hopeless || is_refused && session.attempts == 0 && !ever {
                let account = plan.account(session.population, session.user);
                let target = &plan.targets[plan.target_of(session.user)];
                let remedy = if is_refused {
                    "; make the accounts, or write register = true in [accounts] of the scenario"
                } else {
                    ""
                };
                return Some(format!(
                    "{} ({account}@{}): {cause}{remedy}",
                    target.address, target.domain
                ));
            }
        }
        self.sessions.retry_later(at, now);
        None
    }

    /// Begins the logins whose wait is over.
    pub(super) fn retry(&mut self, engine: &mut Engine, now: Instant) {
        while let Some(Reverse((due, at))) = self.sessions.retries.peek().copied()
            && due <= now
        {
            self.sessions.retries.pop();
            let session = &self.sessions.list[at];
            // A cut and a new wish may have come between.
            if session.wanted && session.state == State::Down {
                self.begin(at, engine, now);
            }
        }
    }
}

/// A cause in words that many have in common: without the system's numbers.
fn condition(cause: &str) -> String {
    let end = cause.find(" (os error").unwrap_or(cause.len());
    cause[..end].to_lowercase()
}
