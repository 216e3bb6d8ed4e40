//! Who is online: logins at their intended moments, lost connections that come back with growing waits.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use super::Notes;
use super::ledger::Ledger;
use crate::login::Management;
use crate::plan::{Plan, Random, Share};
use crate::record::Operation;
use crate::scan::escape;
use crate::{ClientId, Engine};

/// Of a user who is another share's.
const NOWHERE: u32 = u32::MAX;

/// One simulated user of this share.
pub(super) struct Session {
    pub(super) population: usize,
    pub(super) user: u64,
    /// The engine's name for it.
    pub(super) client: Option<ClientId>,
    /// Whether the user wants to be online.
    wanted: bool,
    state: State,
    /// Whether the wish to be online is in the record.
    planned: bool,
    /// Login, or the resumption of a stream.
    comeback: Operation,
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
    /// By population and user: the session, if it is this share's.
    places: Vec<Vec<u32>>,
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
        let (mut list, mut places) = (Vec::new(), Vec::new());
        for (population, wish) in plan.scenario.populations.iter().enumerate() {
            let mut place = vec![NOWHERE; wish.users as usize];
            let users = (0..wish.users).filter(|user| plan.is_in(share, population, *user));
            let first = list.len();
            list.extend(users.map(|user| Session {
                population,
                user,
                client: None,
                wanted: false,
                state: State::Down,
                planned: false,
                comeback: Operation::Login,
                attempts: 0,
                intended: now,
                begun: now,
                managed: wish.management_of(user) != Management::Off,
                address: Box::default(),
                bare: 0,
                is_new: false,
            }));
            for (at, session) in list.iter().enumerate().skip(first) {
                place[session.user as usize] = at as u32;
            }
            places.push(place);
        }
        let connection = &plan.scenario.connection;
        Self {
            list,
            places,
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

    /// Whether nobody is online any more, and not because nobody wants to be: the server has ended connections or
    /// refused them since.
    pub(super) fn all_cut_off(&self) -> bool {
        self.ever
            && self.online == 0
            && self.list.iter().any(|session| session.wanted && session.attempts > 0)
    }

    pub(super) fn population(&self, session: usize) -> usize {
        self.list[session].population
    }

    /// The session of a user, if it is this share's.
    pub(super) fn find(&self, population: usize, user: u64) -> Option<usize> {
        let place = *self.places[population].get(user as usize)?;
        (place != NOWHERE).then_some(place as usize)
    }

    pub(super) fn is_up(&self, session: usize) -> bool {
        self.list[session].state == State::Up
    }

    /// Whether the plan has the user online, or on its way.
    pub(super) fn is_wanted(&self, session: usize) -> bool {
        self.list[session].wanted
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
        session.planned = false;
        self.begin(at, engine, now);
    }

    fn begin(&mut self, at: usize, engine: &mut Engine, now: Instant) {
        let session = &mut self.sessions.list[at];
        let Some(client) = session.client else {
            return;
        };
        session.begun = now;
        session.state = State::LoggingIn;
        session.comeback =
            if engine.can_resume(client) { Operation::Resume } else { Operation::Login };
        if !std::mem::replace(&mut session.planned, true) {
            self.recorder.sent(session.comeback, session.intended, now);
        }
        engine.start(client);
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

    /// The connection is dropped without a word. The user wants to be back at `back`, or when the plan says so.
    pub(super) fn cut(&mut self, at: usize, engine: &mut Engine, back: Option<Instant>) {
        let session = &mut self.sessions.list[at];
        if session.state == State::Up {
            self.sessions.online -= 1;
        }
        session.state = State::Down;
        session.wanted = back.is_some();
        let Some(client) = session.client else {
            return;
        };
        engine.abandon(client);
        if !engine.can_resume(client) {
            self.ledger.orphaned(at);
        }
        if let Some(back) = back {
            session.intended = back;
            session.planned = false;
            self.sessions.retries.push(Reverse((back, at)));
        }
    }

    /// A login is complete.
    pub(super) fn ready(&mut self, at: usize, now: Instant) {
        // What an old stream had not acknowledged was never promised, if it did not go on.
        self.ledger.orphaned(at);
        let session = &mut self.sessions.list[at];
        if session.comeback == Operation::Resume {
            self.recorder.failed(Operation::Resume, "not resumed");
            self.recorder.wanted(Operation::Login);
        }
        session.comeback = Operation::Login;
        self.up(at, now);
    }

    /// A stream goes on.
    pub(super) fn resumed(&mut self, at: usize, now: Instant) {
        self.up(at, now);
    }

    fn up(&mut self, at: usize, now: Instant) {
        let session = &mut self.sessions.list[at];
        session.state = State::Up;
        session.attempts = 0;
        self.recorder.done(session.comeback, session.intended, session.begun, now);
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
        if plan.scenario.populations[session.population].management != Management::Resume {
            self.ledger.orphaned(at);
        }
        if was == State::Up {
            self.sessions.online -= 1;
        }
        if !session.wanted {
            return None;
        }
        if was == State::Up {
            self.recorder.disconnected(&cause);
            // The user has wanted to be back since now; the waits between attempts are not the tool's lateness.
            self.recorder.wanted(plan.scenario.populations[session.population].comeback());
            session.intended = now;
            session.planned = true;
        } else {
            self.recorder.failed(session.comeback, &cause);
            let is_hopeless = cause.starts_with("connecting")
                || cause.contains("offered")
                || cause.contains("refused");
            if !ever && is_hopeless {
                let account = plan.account(session.population, session.user);
                let target = &plan.targets[plan.target_of(session.user)];
                let remedy = if cause.contains("login refused: not-authorized") {
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
            // A cut and a new wish may have come between; then another wait counts.
            if session.wanted
                && session.state == State::Down
                && (session.planned || session.intended <= now)
            {
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
