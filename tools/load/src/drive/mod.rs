//! A run: the plan's entries are carried out at their intended moments, over one engine, and what comes of them is
//! recorded second by second.
//!
//! [`run_share`] drives one worker's share on the calling thread. What belongs to the run as a whole (faults, the
//! server's process, the outcome) is [`crate::run`]'s. Behaviours have a file each: `message` for one-to-one messages,
//! `component` for those of an external component, `room` for rooms, `churn` for presence, `request` for what the server
//! answers, `archive` for what archives show, `reader` for clients that do not read. `turn` is what the engine calls.

mod archive;
mod body;
mod churn;
mod component;
mod ledger;
mod message;
mod reader;
mod request;
mod room;
mod session;
mod turn;
mod window;

use std::fmt;
use std::time::{Duration, Instant};

use archive::Archives;
use churn::Churn;
use component::Component;
use ledger::Ledger;
use message::Messages;
use reader::Readers;
use request::Requests;
use room::Rooms;
use session::Sessions;

use crate::plan::{Act, Due, Plan, Schedule, Share};
use crate::record::{Interval, LedgerReport, LoopMode, Operation, Recorder};
use crate::scenario::{Reader, Security};
use crate::sources::Sources;
use crate::{ClientConfig, ClientId, Control, Engine, EngineConfig, Error, Tls, sys};

/// Entries carried out in one turn; between turns the sockets are read.
const ACTS_PER_TURN: usize = 4096;
/// The engine looks up at least so often.
const TURN_MAX: Duration = Duration::from_millis(20);
/// How long streams may take to end in order.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);
/// With nobody online for so long, and nobody ever having been, the target cannot be used.
const LOGIN_PATIENCE: Duration = Duration::from_secs(30);
/// Nothing arriving for so long means that nothing more comes.
const QUIET: Duration = Duration::from_secs(3);
/// The fact that tells of archives of which nothing can be said.
pub(crate) const UNREAD: &str = "archives not read to the end";
const SECOND: Duration = Duration::from_secs(1);

/// Why a share could not be driven to its end.
#[derive(Debug)]
pub enum Failure {
    /// The target refuses, or is not there.
    Target(String),
    /// The tool's own trouble.
    Tool(Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(what) => f.write_str(what),
            Self::Tool(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {}

/// Whether a run goes on after an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// As if the plan's time was over: stop sending, drain, read the archives where that is wanted. Several workers stop.
    Finish,
    /// Stop sending, drain, and give what there is.
    Stop,
}

/// What a worker saw that is not in its intervals.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ShareReport {
    pub ledger: LedgerReport,
    /// From the start to the last interval.
    pub length: Duration,
    /// Why it ended before its time.
    pub aborted: Option<String>,
    /// Ended because everybody was cut off and nobody came back.
    #[serde(default)]
    pub target_gone: bool,
    /// What more there is to tell: limit of descriptors, messages that were lost.
    pub facts: std::collections::BTreeMap<String, String>,
}

/// Drives a share of the plan on the calling thread.
///
/// A worker process makes the plan from the same [`crate::plan::Request`], calls this with its share, and passes on
/// each interval as it comes; intervals of the same number merge ([`Interval::merge`]), as do the reports
/// ([`crate::run::merge_reports`]).
///
/// - takes: `begin`, the moment of the plan's zero, the same for all workers and a little in the future;
///   `watch`, called with each interval as its second ends
/// - errors: the target cannot be used at all; the tool cannot work
pub fn run_share(
    plan: &Plan,
    share: Share,
    begin: Instant,
    watch: &mut dyn FnMut(&Interval) -> Flow,
) -> Result<ShareReport, Failure> {
    let mut engine = engine(plan, share).map_err(Failure::Tool)?;
    let mut drive = Drive::new(plan, share, begin, &mut engine, watch).map_err(Failure::Tool)?;
    let outcome = engine.run(&mut drive);
    if let Some(what) = drive.target_fault.take() {
        return Err(Failure::Target(what));
    }
    outcome.map_err(Failure::Tool)?;
    Ok(drive.report(&engine))
}

fn engine(plan: &Plan, share: Share) -> Result<Engine, Error> {
    let connection = &plan.scenario.connection;
    let first = plan.targets.first();
    let first = first.ok_or_else(|| Error::Config("a run needs a target".to_owned()))?;
    let mut engine = Engine::new(EngineConfig {
        address: first.address,
        domain: first.domain.clone(),
        tls: match connection.security {
            Security::Auto => Tls::Offered,
            Security::None => Tls::None,
            Security::Starttls => Tls::Starttls,
            Security::Direct => Tls::Direct,
        },
        mechanism: connection.mechanism,
        way: connection.way,
        fail_over: connection.fail_over,
        sources: Sources::of(connection.sources, share),
        login_in_flight: connection.logins_in_flight,
        sm_request_every: 1,
    })?;
    for target in &plan.targets[1..] {
        engine.add_target(target.address, &target.domain)?;
    }
    Ok(engine)
}

/// What behaviours note while stanzas arrive.
struct Notes {
    begin: Instant,
    /// When something of the ledger arrived last.
    moved: Instant,
    recorder: Recorder,
    ledger: Ledger,
    sessions: Sessions,
}

impl Notes {
    fn since(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.begin)
    }

    /// Who is to do what is due now; where the session is down, that is counted.
    fn sender(&mut self, session: usize, operation: Operation) -> Option<ClientId> {
        let client = self.sessions.client(session).filter(|_| self.sessions.is_up(session));
        if client.is_none() {
            self.recorder.dropped(operation);
            self.recorder.failed(operation, "sender offline");
        }
        client
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// Nothing new is sent; until then what is under way may arrive.
    Draining(Instant),
    /// All has arrived that will; the archives are read.
    Archiving,
    Closing(Instant),
}

struct Drive<'p> {
    plan: &'p Plan,
    share: Share,
    schedule: Schedule,
    /// The entry that comes next, of this share or not.
    next: Option<Due>,
    notes: Notes,
    /// By population.
    messages: Vec<Option<Messages>>,
    rooms: Vec<Option<Rooms>>,
    churn: Vec<Option<Churn>>,
    component: Option<Component>,
    requests: Requests,
    archives: Option<Archives>,
    readers: Readers,
    stage: Stage,
    /// Number of the interval that is open.
    interval: u64,
    cpu: Duration,
    watch: &'p mut dyn FnMut(&Interval) -> Flow,
    target_fault: Option<String>,
    aborted: Option<String>,
    target_gone: bool,
    /// Since when everybody who wants to be online is cut off.
    cut_off: Option<Instant>,
    ended: Duration,
}

impl<'p> Drive<'p> {
    fn new(
        plan: &'p Plan,
        share: Share,
        begin: Instant,
        engine: &mut Engine,
        watch: &'p mut dyn FnMut(&Interval) -> Flow,
    ) -> Result<Self, Error> {
        let mut sessions = Sessions::new(plan, share);
        let password: std::rc::Rc<str> = plan.scenario.accounts.password.as_str().into();
        let mut clients = Vec::new();
        for session in sessions.iter() {
            let population = &plan.scenario.populations[session.population];
            clients.push(engine.add(ClientConfig {
                target: plan.target_of(session.user),
                user: plan.account(session.population, session.user),
                password: std::rc::Rc::clone(&password),
                resource: "load".to_owned(),
                presence: population.presence || population.churn.is_some(),
                management: population.management_of(session.user),
                carbons: population.carbons,
                register: plan.scenario.accounts.register,
                silent: population.reader == Reader::HalfOpen,
                narrow: matches!(population.reader, Reader::Slow { .. }),
            })?);
        }
        sessions.set_clients(clients);
        // Messages of an earlier run may still wait at the server.
        let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let run = started.map_or(1, |since| since.as_micros() as u32).rotate_left(7);
        let mut conversations = 0;
        let messages: Vec<Option<Messages>> = (0..plan.scenario.populations.len())
            .map(|at| {
                let messages = Messages::new(plan, at, run, conversations, &sessions)?;
                conversations += messages.conversations();
                Some(messages)
            })
            .collect();
        sessions.set_targets(plan);
        // Behind the sessions, whose numbers are those of the engine's first clients.
        let component = Component::new(plan, run, conversations, &sessions, engine)?;
        conversations += component.as_ref().map_or(0, Component::conversations);
        let populations = 0..plan.scenario.populations.len();
        let rooms = populations.clone().map(|at| Rooms::new(plan, at, run, &sessions)).collect();
        let churn = populations.map(|at| Churn::new(plan, at, run, &sessions)).collect();
        // With faults and storms a message may come again long after, as it may when targets stand in for each other; without,
        // memory is to stay small.
        let is_calm = plan.scenario.faults.is_empty()
            && plan.phases.iter().all(|phase| phase.wish.share == 0.0)
            && plan.scenario.populations.iter().all(|population| population.cut.is_none());
        // An archive is held against every message.
        let forgets =
            is_calm && !plan.scenario.reads_archives && !plan.scenario.connection.fail_over;
        let ledger = Ledger::new(conversations as usize, sessions.len(), forgets);
        let archives = plan.scenario.reads_archives.then(|| {
            let of_component = component.iter().flat_map(Component::recipients);
            let recipients = messages.iter().flatten().flat_map(Messages::recipients);
            Archives::new(run, recipients.chain(of_component).collect())
        });
        let mut schedule = plan.schedule();
        Ok(Self {
            next: schedule.next(),
            plan,
            share,
            schedule,
            notes: Notes { begin, moved: begin, recorder: Recorder::default(), ledger, sessions },
            messages,
            rooms,
            churn,
            component,
            requests: Requests::new(plan),
            archives,
            readers: Readers::new(plan),
            stage: Stage::Running,
            interval: 0,
            cpu: sys::thread_cpu().map_err(|error| Error::Io("own CPU clock", error))?,
            watch,
            target_fault: None,
            aborted: None,
            target_gone: false,
            cut_off: None,
            ended: Duration::ZERO,
        })
    }

    fn report(&self, engine: &Engine) -> ShareReport {
        let mut facts = std::collections::BTreeMap::new();
        facts.insert("descriptor limit".to_owned(), engine.descriptors().to_string());
        let lost = self.notes.ledger.lost(10);
        if !lost.is_empty() {
            let told: Vec<String> =
                lost.iter().map(|id| format!("{:x}.{:x}", id.conversation, id.number)).collect();
            facts.insert("lost messages".to_owned(), told.join(" "));
        }
        let oddities = self.notes.ledger.oddities();
        if !oddities.is_empty() {
            facts.insert("overtaken or repeated".to_owned(), oddities.join("; "));
        }
        let mut ledger = self.notes.ledger.report();
        for rooms in self.rooms.iter().flatten() {
            rooms.add_to(&mut ledger.sent);
        }
        if let Some(archives) = &self.archives {
            ledger.archived = archives.report();
            let unread = archives.unread();
            if !unread.is_empty() {
                let told: Vec<String> =
                    unread.iter().map(|(why, count)| format!("{count} ({why})")).collect();
                facts.insert(UNREAD.to_owned(), told.join(", "));
            }
        }
        ShareReport {
            ledger,
            length: self.ended,
            aborted: self.aborted.clone(),
            target_gone: self.target_gone,
            facts,
        }
    }

    /// Carries out one entry.
    fn act(&mut self, due: &Due, engine: &mut Engine, now: Instant) {
        let Some(session) = self.notes.sessions.find(due.population, due.user) else {
            return;
        };
        let intended = self.notes.begin + due.at;
        match due.act {
            Act::Login => self.notes.log_in(session, engine, intended, now),
            Act::Logout => self.notes.log_out(session, engine),
            Act::Cut => self.cut(session, None, engine),
            Act::Operation(_) if self.plan.mode != LoopMode::Open => {}
            Act::Operation(Operation::Message) => {
                if let Some(messages) = &mut self.messages[due.population] {
                    messages.send(session, due.dice, intended, now, engine, &mut self.notes);
                }
            }
            Act::Operation(Operation::RoomMessage) => {
                if let Some(rooms) = &mut self.rooms[due.population] {
                    rooms.send(session, intended, now, engine, &mut self.notes);
                }
            }
            Act::Operation(Operation::ComponentMessage) => {
                if let Some(component) = &self.component {
                    component.send(session, intended, now, engine, &mut self.notes);
                }
            }
            Act::Operation(Operation::Presence) => {
                if let Some(churn) = &mut self.churn[due.population] {
                    churn.send(session, intended, now, engine, &mut self.notes);
                }
            }
            Act::Operation(Operation::Login | Operation::Resume) => {
                if !self.notes.sessions.is_up(session) {
                    // Away already, or on its way back.
                    return;
                }
                let cut = &self.plan.scenario.populations[due.population].cut;
                let away = cut.as_ref().map_or(Duration::ZERO, |cut| cut.away);
                self.cut(session, Some(intended.max(now) + away), engine);
            }
            Act::Operation(operation) => {
                self.requests.send(operation, session, intended, now, engine, &mut self.notes);
            }
        }
    }

    /// A connection breaks.
    fn cut(&mut self, session: usize, back: Option<Instant>, engine: &mut Engine) {
        self.notes.cut(session, engine, back);
        self.left(session);
    }

    /// A session has no connection any more.
    fn left(&mut self, session: usize) {
        self.requests.abandoned(session, &mut self.notes);
        if let Some(archives) = &mut self.archives {
            archives.closed(session);
        }
        let population = self.notes.sessions.population(session);
        if let Some(messages) = &mut self.messages[population] {
            messages.closed(session);
        }
        if let Some(component) = &mut self.component {
            component.recipient_gone(population, session);
        }
        if let Some(rooms) = &mut self.rooms[population] {
            rooms.closed(session);
        }
    }

    /// Closed loop: whoever has room sends.
    fn refill(&mut self, engine: &mut Engine, now: Instant) {
        let LoopMode::Closed { window } = self.plan.mode else {
            return;
        };
        let at = self.notes.since(now);
        let phase = &self.plan.phases[self.plan.phase_at(at)];
        if at >= self.plan.length() || phase.wish.load == (0.0, 0.0) {
            return;
        }
        for messages in self.messages.iter_mut().flatten() {
            messages.refill(window, now, engine, &mut self.notes);
        }
        if let Some(component) = &mut self.component {
            component.refill(window, now, engine, &mut self.notes);
        }
        self.requests.refill(self.plan, window, now, engine, &mut self.notes);
    }

    /// Ends the seconds that are over.
    fn close_intervals(&mut self, now: Instant) -> Result<(), Error> {
        while now >= self.notes.begin + SECOND * (self.interval as u32 + 1) {
            self.close_interval()?;
        }
        Ok(())
    }

    fn close_interval(&mut self) -> Result<(), Error> {
        let cpu = sys::thread_cpu().map_err(|error| Error::Io("own CPU clock", error))?;
        let used = cpu.saturating_sub(self.cpu);
        self.cpu = cpu;
        let at = SECOND * self.interval as u32;
        let phase =
            if at >= self.plan.length() { self.plan.phases.len() } else { self.plan.phase_at(at) };
        let online = self.notes.sessions.online();
        let interval = self.notes.recorder.close(self.interval, phase, online, used);
        self.interval += 1;
        self.requests.expire(Instant::now(), &mut self.notes);
        match (self.watch)(&interval) {
            Flow::Continue => {}
            Flow::Finish => self.finish(),
            Flow::Stop => self.stop(),
        }
        Ok(())
    }

    /// The operator wants no more.
    fn stop(&mut self) {
        if !matches!(self.stage, Stage::Running | Stage::Archiving) {
            return;
        }
        self.aborted.get_or_insert_with(|| "stopped by the operator".to_owned());
        self.finish();
    }

    fn finish(&mut self) {
        if self.stage == Stage::Running {
            self.stage = Stage::Draining(Instant::now() + self.plan.scenario.drain);
        }
    }

    /// Whether nothing more is to be expected of what was sent. What was never acknowledged may be gone by right: it is
    /// waited for only while others still arrive.
    fn is_settled(&self, now: Instant) -> bool {
        let is_quiet = now > self.notes.moved + QUIET && self.notes.ledger.owed() == 0;
        // Those who are cut off have the time of the drain to come back.
        (is_quiet || self.is_complete()) && self.requests.open() == 0 && self.cut_off.is_none()
    }

    /// Notes since when the target seems gone.
    ///
    /// - gives: whether that is for too long
    fn is_gone(&mut self, now: Instant) -> bool {
        if !self.notes.sessions.all_cut_off() {
            self.cut_off = None;
            return false;
        }
        // A server that comes back is found by an attempt, and these may lie `backoff_max` apart.
        let patience = LOGIN_PATIENCE + self.plan.scenario.connection.backoff_max * 2;
        now >= *self.cut_off.get_or_insert(now) + patience
    }

    /// Who left before all of its messages had arrived comes back for them: what the server keeps is not lost, and only
    /// so is seen whether it does.
    fn ask_back(&mut self, engine: &mut Engine, now: Instant) {
        let of_component = self.component.iter().flat_map(Component::recipients);
        let recipients = self.messages.iter().flatten().flat_map(Messages::recipients);
        let recipients: Vec<usize> = recipients.chain(of_component).collect();
        for (conversation, recipient) in (0..).zip(recipients) {
            let waits = || self.notes.ledger.open_in(conversation..conversation + 1) > 0;
            if !self.notes.sessions.is_wanted(recipient) && waits() {
                self.notes.log_in(recipient, engine, now, now);
            }
        }
    }

    /// Ends all streams in order.
    fn close_all(&mut self, engine: &mut Engine, now: Instant) {
        for id in self.notes.sessions.clients() {
            engine.close(id);
        }
        if let Some(component) = &mut self.component {
            component.close(engine);
        }
        self.stage = Stage::Closing(now + CLOSE_PATIENCE);
    }

    /// Ends the run before its time: the target is there no more.
    fn give_up_target(&mut self) {
        self.target_gone = true;
        self.aborted.get_or_insert_with(|| {
            "the target went away: everybody was cut off, and nobody came back".to_owned()
        });
    }

    fn is_complete(&self) -> bool {
        self.notes.ledger.open() == 0
            && self.rooms.iter().flatten().all(|rooms| rooms.open() == 0)
            && self.notes.sessions.unacked(&self.notes.ledger) == 0
    }

    /// What stanzas that arrived ask for.
    fn follow_up(&mut self, engine: &mut Engine, now: Instant) {
        for rooms in self.rooms.iter_mut().flatten() {
            rooms.turn(now, engine, &mut self.notes);
            if self.target_fault.is_none() {
                self.target_fault = rooms.hopeless(now, &self.notes);
            }
        }
        for churn in self.churn.iter_mut().flatten() {
            churn.turn(engine, &mut self.notes);
        }
        if let Some(component) = &mut self.component {
            component.turn(now, engine);
        }
        if self.target_fault.is_none() {
            self.target_fault = self.requests.hopeless();
        }
        if let Some(archives) = &mut self.archives {
            archives.turn(engine, &self.notes);
            self.target_fault = self.target_fault.take().or(archives.hopeless());
        }
    }

    fn turn_running(&mut self, engine: &mut Engine, now: Instant) -> Control {
        for _ in 0..ACTS_PER_TURN {
            let Some(due) = self.next.filter(|due| self.notes.begin + due.at <= now) else {
                break;
            };
            self.next = self.schedule.next();
            if self.plan.is_in(self.share, due.population, due.user) {
                self.act(&due, engine, now);
            }
        }
        self.refill(engine, now);
        self.notes.retry(engine, now);
        self.follow_up(engine, now);
        let end = self.notes.begin + self.plan.length();
        if now >= end {
            self.ask_back(engine, now);
            self.stage = Stage::Draining(now + self.plan.scenario.drain);
            return Control::Until(now);
        }
        let mut until = end.min(now + TURN_MAX);
        if let Some(due) = &self.next {
            until = until.min(self.notes.begin + due.at);
        }
        if let Some(retry) = self.notes.sessions.next_retry() {
            until = until.min(retry);
        }
        if let Some(turn) = self.readers.turn(self.notes.begin, now, engine, &self.notes.sessions) {
            until = until.min(turn);
        }
        Control::Until(until)
    }
}
