//! When and how often a remote domain is tried: at most so many look-ups and connections are being made at a time, and a
//! lane that failed waits, each time for about twice as long, up to some minutes. One that failed so often that its breaker
//! is open answers what is not stored at once; stored messages wait on.

use super::conn::{Conn, Side};
use super::control::Step;
use super::discovery::{Plan, Problem, Target};
use super::domain::{LaneId, Link};
use super::effect::{Action, ClientTls, ConnId, Effects};
use super::input::{Attempt, Connected, DialProblem, TlsProblem};
use super::outbound::{Out, Progress};
use super::queue::Item;
use super::{Core, Failure, Federation, Note, Stage, Timer};
use crate::base::instant::Instant;
use crate::xmpp::stanza_error::StanzaCondition;
use std::sync::Arc;
use std::time::Duration;

/// A lasting problem (no such domain) is looked at again after this at the earliest and at the latest.
const LASTING: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// Where a domain has more targets, one that is silent is given this part of the time that the last one has; twice as much
/// after each attempt at all of them, so that a domain that is just slow is reached in the end.
pub(super) const SHARE: u32 = 4;

/// How often the wait of a domain is cut short as its peer came in, at most: it may come often, and not be reachable.
const ALIVE_EVERY: Duration = Duration::from_secs(30);

/// From the look-up to a connection at most, whatever the runtime does.
pub(super) const DIAL_MAX: Duration = Duration::from_secs(180);

/// How a lane's attempts went.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// In a row.
    pub failures: u32,
    /// Not before.
    pub retry_at: Instant,
    /// It failed so often that new requests are answered at once.
    pub broken: bool,
    /// There is no such domain, until `retry_at`.
    pub lasting: bool,
    /// The words of the last failure.
    pub text: Box<str>,
    /// Its peer came in and is alive: when the wait was last cut short for that.
    alive_at: Option<Instant>,
}

impl Attempts {
    /// What a stanza is answered that need not be queued, as it would not be sent soon.
    pub(super) fn answers_at_once(
        &self,
        item: &Item,
        now: Instant,
    ) -> Option<(StanzaCondition, Box<str>)> {
        if self.lasting && now < self.retry_at {
            return Some((StanzaCondition::RemoteServerNotFound, self.text.clone()));
        }
        (self.broken && item.row.is_never())
            .then(|| (StanzaCondition::RemoteServerTimeout, self.text.clone()))
    }

    /// All is well.
    pub(super) fn succeed(&mut self) {
        *self = Attempts { alive_at: self.alive_at, ..Attempts::default() };
    }

    /// The part of its time that a target gets where there are others, as a divisor.
    fn share(&self) -> u32 {
        (SHARE >> self.failures.min(SHARE)).max(1)
    }

    /// The peer has come and proved who it is, so it is worth a new attempt. Failures are remembered: if this one fails, the
    /// wait goes on where it was.
    ///
    /// - gives: whether there was a wait, which is over now
    pub(super) fn is_alive(&mut self, now: Instant) -> bool {
        let waits = self.failures > 0 && self.retry_at > now;
        if !waits || self.alive_at.is_some_and(|at| now < at + ALIVE_EVERY) {
            return false;
        }
        self.alive_at = Some(now);
        self.retry_at = now;
        (self.broken, self.lasting) = (false, false);
        true
    }
}

impl Core {
    /// Gets a stream for a lane that has none: one that the peer opened and that goes both ways, else a new one.
    pub(super) fn want_stream(&mut self, id: LaneId, fx: &mut Effects) {
        if self.stopping {
            return;
        }
        let now = self.now.mono;
        if let Some(conn) = self.find_bidi(id) {
            return self.adopt(id, conn, fx);
        }
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        if lane.attempts.retry_at > now {
            let retry_at = lane.attempts.retry_at;
            lane.link = Link::BackingOff;
            self.wheel.insert(retry_at, Timer::Retry(id));
        } else if self.dialling < self.config.limits.dials {
            self.start(id, fx);
        } else {
            lane.link = Link::Waiting;
            self.waiting.push_back(id);
        }
    }

    /// The time before the next attempt is over.
    pub(super) fn retry(&mut self, id: LaneId, fx: &mut Effects) {
        let now = self.now.mono;
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        if lane.link == Link::BackingOff && lane.attempts.retry_at <= now {
            lane.link = Link::Idle;
            lane.attempts.lasting = false;
            if lane.wants_stream() {
                self.want_stream(id, fx);
            }
        }
    }

    fn start(&mut self, id: LaneId, fx: &mut Effects) {
        let Some((own, remote)) = self.ends(id) else { return };
        let Some(mut out) = Out::new(own, remote, Some(id)) else { return };
        out.share = self.lanes.get(id.0).map_or(SHARE, |lane| lane.attempts.share());
        let conn = self.begin(out, fx);
        if let Some(lane) = self.lanes.get_mut(id.0) {
            lane.link = Link::Dialling(conn);
        }
    }

    /// Begins with a look-up.
    pub(super) fn begin(&mut self, out: Out, fx: &mut Effects) -> ConnId {
        let domain = out.remote.clone();
        self.dialling += 1;
        let conn = Conn::new(Side::Out(Box::new(out)), self.now.mono);
        let conn = ConnId(self.conns.insert(conn));
        self.wheel.insert(self.now.mono + DIAL_MAX, Timer::Negotiation(conn));
        fx.actions.push(Action::Resolve { conn, domain });
        conn
    }

    /// A connection is no longer being made: the next lane may.
    pub(super) fn free_slot(&mut self, fx: &mut Effects) {
        self.dialling = self.dialling.saturating_sub(1);
        while self.dialling < self.config.limits.dials
            && let Some(id) = self.waiting.pop_front()
        {
            let Some(lane) = self.lanes.get_mut(id.0) else { continue };
            if lane.link != Link::Waiting {
                continue;
            }
            lane.link = Link::Idle;
            if lane.wants_stream() {
                self.want_stream(id, fx);
            }
        }
    }

    fn dial(&mut self, id: ConnId, plan: Arc<Plan>, first: usize, fx: &mut Effects) {
        let Some(out) = self.conns.get_mut(id.0).and_then(Conn::out_mut) else { return };
        out.progress = Progress::Dialling;
        out.plan = Some(plan.clone());
        let oldest = self.config.policy(&out.remote).oldest_tls;
        let tls = Arc::new(ClientTls { domain: out.remote.clone(), own: out.own.clone(), oldest });
        fx.actions.push(Action::Dial { conn: id, plan, first, share: out.share, tls });
    }

    /// The targets of a domain are known.
    pub(super) fn resolved(
        &mut self,
        id: ConnId,
        outcome: Result<Arc<Plan>, Problem>,
        took: Duration,
        fx: &mut Effects,
    ) {
        let Some(out) = self.conns.get_mut(id.0).and_then(Conn::out_mut) else { return };
        if out.progress != Progress::Resolving {
            return;
        }
        self.latencies.record(Stage::Resolve, took);
        match outcome {
            Ok(plan) => {
                let targets: Vec<String> = plan.targets.iter().map(Target::to_string).collect();
                out.step(Step::Dns, true, &targets.join(", "), took);
                self.dial(id, plan, 0, fx);
            }
            Err(problem) => {
                let text = problem.to_string();
                out.step(Step::Dns, false, &text, took);
                let failure = if problem.is_lasting() { Failure::NotFound } else { Failure::Dns };
                out.lasting = problem.ttl_s().map(|ttl| Duration::from_secs(ttl.into()));
                self.cut(id, failure, &text, fx);
            }
        }
    }

    /// None of the targets could be reached.
    pub(super) fn dial_failed(&mut self, id: ConnId, attempts: &[Attempt], fx: &mut Effects) {
        let Some(out) = self.conns.get_mut(id.0).and_then(Conn::out_mut) else { return };
        let (failure, text) = out.note_attempts(attempts);
        self.cut(id, failure, &text, fx);
    }

    /// The next target of the same domain is tried on a connection of its own.
    ///
    /// - gives: whether there is one
    pub(super) fn try_next(&mut self, id: ConnId, text: &str, fx: &mut Effects) -> bool {
        let Some(out) = self.conns.get_mut(id.0).and_then(Conn::out_mut) else { return false };
        let first = out.target + 1;
        let Some(plan) = out.plan.clone().filter(|plan| first < plan.targets.len()) else {
            return false;
        };
        let Some(mut next) = Out::new(out.own.clone(), out.remote.clone(), out.lane) else {
            return false;
        };
        next.share = out.share;
        next.walk = std::mem::take(&mut out.walk);
        next.check = out.check.take();
        next.tried = format!("{}{}: {text}; ", out.tried, out.target_name()).into();
        // The slot goes with it.
        out.counted = false;
        let lane = out.lane.take();
        let conn = ConnId(self.conns.insert(Conn::new(Side::Out(Box::new(next)), self.now.mono)));
        self.wheel.insert(self.now.mono + DIAL_MAX, Timer::Negotiation(conn));
        if let Some(lane) = lane.and_then(|lane| self.lanes.get_mut(lane.0)) {
            lane.link = Link::Dialling(conn);
            for asked in lane.asked.iter_mut().filter(|asked| asked.on == Some(id)) {
                asked.on = None;
            }
        }
        self.dial(conn, plan, first, fx);
        true
    }

    /// An attempt to reach the domain of a lane has failed for now.
    pub(super) fn attempt_failed(
        &mut self,
        id: LaneId,
        failure: Failure,
        text: &str,
        lasting: Option<Duration>,
        fx: &mut Effects,
    ) {
        let now = self.now.mono;
        let limits = &self.config.limits;
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        let attempts = &mut lane.attempts;
        attempts.failures = attempts.failures.saturating_add(1);
        let doubled = limits.retry_first * (1 << (attempts.failures - 1).min(16));
        let mut wait = doubled.min(limits.retry_last);
        if let Some(ttl) = lasting {
            wait = ttl.clamp(LASTING.0, LASTING.1);
        }
        // Between half and all of it, so that what failed together is not tried together.
        let spread = u64::try_from(wait.as_nanos() / 2).unwrap_or(u64::MAX);
        attempts.retry_at = now + wait / 2 + Duration::from_nanos(self.rng.below(spread.max(1)));
        attempts.lasting = lasting.is_some();
        attempts.text = text.into();
        let opens = !attempts.broken && attempts.failures >= limits.breaker;
        attempts.broken |= opens;
        let first = attempts.failures == 1;
        lane.link = Link::Idle;
        self.probe.failures[failure as usize] += 1;
        if opens {
            self.probe.breakers_opened += 1;
        }
        if let Some((own, domain)) = self.ends(id)
            && (opens || first)
        {
            let text = text.into();
            fx.actions.push(Action::Note(Note::Unreachable { domain, own, failure, text }));
        }
        let wall = self.now.wall;
        if let Some(domain) = self.domain_of_lane(id) {
            domain.failure = Some((wall, failure, text.into()));
        }
        self.give_up_resumable(id, fx);
        self.verifications_failed(id, fx);
        if lasting.is_some() {
            self.answer_all(id, StanzaCondition::RemoteServerNotFound, text, |_| true, fx);
        } else if self.lanes.get(id.0).is_some_and(|lane| lane.attempts.broken) {
            let passing = |item: &Item| item.row.is_never();
            self.answer_all(id, StanzaCondition::RemoteServerTimeout, text, passing, fx);
        }
        self.touch(id);
    }

    /// Answers what waits and has not gone out.
    pub(super) fn answer_all(
        &mut self,
        id: LaneId,
        condition: StanzaCondition,
        text: &str,
        wanted: impl Fn(&Item) -> bool,
        fx: &mut Effects,
    ) {
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        let before = lane.queue.bytes();
        let items = lane.queue.expire(wanted);
        self.queued_bytes -= before - lane.queue.bytes();
        for item in items {
            self.refuse_in(id, item, condition, text.into(), fx);
        }
    }
}

impl Federation {
    /// There is a connection.
    pub(super) fn connected(&mut self, id: ConnId, connected: Connected, fx: &mut Effects) {
        let core = &mut self.core;
        let now = core.now.mono;
        let negotiation = core.config.limits.negotiation;
        let Some(conn) = core.conns.get_mut(id.0) else { return };
        let Side::Out(out) = &mut conn.side else { return };
        if out.progress != Progress::Dialling {
            return;
        }
        out.note_attempts(&connected.attempts);
        out.target = connected.target;
        out.progress = Progress::Negotiating;
        let reached = format!("{} at {}", out.target_name(), connected.address);
        out.step(Step::Tcp, true, &reached, connected.took);
        let pair = out.pair.clone();
        let patience = out.negotiation(negotiation);
        conn.peer = Some(connected.address);
        conn.hold = super::conn::Hold::No;
        (conn.began, conn.heard_at, conn.used_at) = (now, now, now);
        core.latencies.record(Stage::Dial, connected.took);
        core.wheel.insert(now + patience, Timer::Negotiation(id));
        let mut out = Vec::new();
        let secure = connected.tls.is_some();
        let stream = crate::stream::s2s::S2sStream::initiate(pair, secure, &mut out);
        if let Some(conn) = core.conns.get_mut(id.0) {
            conn.stream = Some(Box::new(stream));
        }
        core.write(id, &out, fx);
        if let Some((tls, took)) = connected.tls {
            core.latencies.record(Stage::Tls, took);
            let version = tls.version;
            if let Some(conn) = core.conns.get_mut(id.0) {
                conn.tls = Some(tls);
            }
            core.tls_known(id, version, took, fx);
        }
        fx.actions.push(Action::ReadAgain(id));
    }
}

impl DialProblem {
    /// Which kind of failure it is, and the words for it.
    pub(super) fn describe(&self) -> (Failure, String) {
        match self {
            DialProblem::NoAddress(text) => (Failure::Dns, format!("no address: {text}")),
            DialProblem::Refused => (
                Failure::Tcp,
                "connection refused: nothing listens there, or a firewall says so".into(),
            ),
            DialProblem::TimedOut => (
                Failure::Tcp,
                "no answer: the host is down, or a firewall on the way drops connections".into(),
            ),
            DialProblem::Tls(problem) => (Failure::Tls, problem.describe()),
            DialProblem::Other(text) => (Failure::Tcp, text.clone()),
        }
    }
}

impl TlsProblem {
    /// The words for it.
    pub(super) fn describe(&self) -> String {
        match self {
            TlsProblem::TimedOut => "the TLS handshake got no answer".into(),
            TlsProblem::Cut => "it closed the connection in the middle of the TLS handshake".into(),
            TlsProblem::Failed(text) => format!("the TLS handshake failed: {text}"),
        }
    }
}
