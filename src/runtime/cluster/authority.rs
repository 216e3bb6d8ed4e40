//! The thread `authority`: one connection to the shared database, and the machine that says what is asked over it. It may
//! wait for the database as long as a question's limit: who acts by a lease knows until when, whatever this thread does.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::base::instant::Instant;
use crate::cluster::authority::{
    Answer, Authority, Beat, Input, LEASE, NodeRow, Outcome, Output, Proposal, Reason, Request,
    Snapshot, State, Told, Wish,
};
use crate::cluster::placement::NodeId;
use crate::cluster::view::{NodeFacts, Run, View};
use crate::runtime::clock::Clock;
use crate::store::Error;
use crate::store::postgres::Settings;
use crate::store::postgres::cluster::{self as store, ClusterLink, Proposed};

/// Changes that are at hand for the operator.
const EVENTS_SHOWN: u32 = 100;
/// Inputs that are taken before the clock is looked at again.
const INPUTS_MAX: usize = 256;
/// How long it sleeps where the machine names no time: when it has ended, which is looked at before.
const IDLE: Duration = Duration::from_secs(1);

const _: () = assert!(store::LEASE.as_secs() == LEASE.as_secs(), "both speak of the same lease");

/// What the node is told. The same words as in `cluster::authority::Output`.
#[derive(Clone, Debug)]
pub enum Event {
    Adopt(Arc<View>),
    Lease(Instant),
    Waiting(Option<Reason>),
    Fenced,
    Left,
}

/// For `corefire cluster status`, `members` and `events`; of the last answer of the database.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub epoch: u64,
    /// As of RFC 3339, in UTC.
    pub changed_at: String,
    pub why: String,
    /// All nodes that the database knows, members or not, by id.
    pub nodes: Vec<NodeFigures>,
    /// Why this node waits.
    pub waiting: Option<Reason>,
    /// Newest first.
    pub events: Vec<store::Event>,
}

#[derive(Clone, Debug)]
pub struct NodeFigures {
    /// Of the run that is a member; for one that is none, of the last. Its weight is the one in force.
    pub facts: NodeFacts,
    /// Whether this run is a member at this epoch.
    pub is_member: bool,
    pub wished_weight: u32,
    pub state: State,
    pub settled: u64,
    /// What is left of its lease.
    pub lease: Duration,
}

enum Command {
    Input(Input),
    Stop,
}

/// What others have of the thread. It ends when it is told to, or with the last of these.
#[derive(Clone)]
pub struct Handle {
    commands: Sender<Command>,
    figures: Arc<Mutex<Figures>>,
}

impl Handle {
    pub fn told(&self, told: Told) {
        self.send(Command::Input(Input::Told(told)));
    }

    /// All shards of this node have what is theirs at this epoch.
    pub fn settled(&self, epoch: u64) {
        self.send(Command::Input(Input::Settled(epoch)));
    }

    /// Its share of the partitions; 0 to drain it.
    pub fn weigh(&self, weight: u32) {
        self.send(Command::Input(Input::Wish(Wish::Weight(weight))));
    }

    /// Gives all away and leaves; `Event::Left` comes when that is done.
    pub fn leave(&self) {
        self.send(Command::Input(Input::Wish(Wish::Leave)));
    }

    /// Gives the lease back and ends the thread. What this node wrote must be done.
    pub fn stop(&self) {
        self.send(Command::Stop);
    }

    pub fn figures(&self) -> Figures {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn send(&self, command: Command) {
        // It has ended, and told so.
        let _ = self.commands.send(command);
    }
}

/// Starts the thread.
///
/// - takes: `me`, with the run that `Place::open_shared` gave; `events`, called on the thread, which must not wait
pub fn start(
    settings: &Settings,
    me: NodeFacts,
    clock: Clock,
    events: impl FnMut(Event) + Send + 'static,
) -> std::io::Result<(Handle, std::thread::JoinHandle<()>)> {
    let (sender, commands) = channel();
    let figures = Arc::new(Mutex::new(Figures::default()));
    let handle = Handle { commands: sender, figures: figures.clone() };
    let name = format!("corefire/{}/authority", me.run.incarnation);
    let link = ClusterLink::new(settings, &name);
    let thread = std::thread::Builder::new().name("authority".into()).spawn(move || {
        let run = me.run;
        let machine = Authority::new(me, clock.mono());
        let mut thread =
            Thread { machine, link, clock, events, figures, events_of: 0, is_over: false };
        thread.run(&commands);
        // Who was taken over has none to give back.
        if let Err(error) = thread.link.release(run.node.0, run.incarnation) {
            tracing::info!(%error, "the lease could not be given back; it ends by itself");
        }
    })?;
    Ok((handle, thread))
}

struct Thread<E> {
    machine: Authority,
    link: ClusterLink,
    clock: Clock,
    events: E,
    figures: Arc<Mutex<Figures>>,
    /// The epoch to which the events of the figures go.
    events_of: u64,
    is_over: bool,
}

impl<E: FnMut(Event)> Thread<E> {
    fn run(&mut self, commands: &Receiver<Command>) {
        while !self.is_over {
            let now = self.clock.mono();
            let wait = self.machine.wake().map_or(IDLE, |wake| wake.since(now));
            match commands.recv_timeout(wait) {
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Command::Input(input)) => self.feed(input),
                Err(RecvTimeoutError::Timeout) => self.feed(Input::Tick),
            }
            for _ in 0..INPUTS_MAX {
                match commands.try_recv() {
                    Ok(Command::Stop) => return,
                    Ok(Command::Input(input)) => self.feed(input),
                    Err(_) => break,
                }
            }
        }
    }

    /// Gives it to the machine, and then the answers to all that follows from it.
    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let mut out = Vec::new();
        let mut news = None;
        while let Some(input) = inputs.pop_front() {
            self.machine.handle(self.clock.mono(), input, &mut out);
            for output in out.drain(..) {
                match output {
                    Output::Ask(request) => {
                        let answer = ask(&mut self.link, &self.figures, &request);
                        news = match &answer {
                            Answer::Snapshot(found) => Some(found.epoch),
                            _ => None,
                        };
                        inputs.push_back(Input::Answer(answer));
                    }
                    Output::Adopt(view) => (self.events)(Event::Adopt(view)),
                    Output::Lease(until) => (self.events)(Event::Lease(until)),
                    Output::Waiting(reason) => {
                        self.figures.lock().unwrap_or_else(PoisonError::into_inner).waiting =
                            reason.clone();
                        (self.events)(Event::Waiting(reason));
                    }
                    Output::Fenced => self.end(Event::Fenced),
                    Output::Left => self.end(Event::Left),
                }
            }
        }
        if let Some(epoch) = news.filter(|epoch| *epoch != self.events_of) {
            self.read_events(epoch);
        }
    }

    /// For people only, so it comes when nothing else is to be asked.
    fn read_events(&mut self, epoch: u64) {
        if let Ok(events) = self.link.events(EVENTS_SHOWN) {
            self.figures.lock().unwrap_or_else(PoisonError::into_inner).events = events;
            self.events_of = epoch;
        }
    }

    fn end(&mut self, event: Event) {
        self.is_over = true;
        (self.events)(event);
    }
}

/// Asks the database, and waits for what it says.
fn ask(link: &mut ClusterLink, figures: &Mutex<Figures>, request: &Request) -> Answer {
    let answer = match request {
        Request::Renew(beat) => renew(link, figures, beat),
        Request::Propose(proposal) => propose(link, proposal),
    };
    answer.unwrap_or_else(|error| match error {
        Error::Fenced => Answer::Fenced,
        error => Answer::Failed(error.to_string()),
    })
}

fn renew(link: &mut ClusterLink, figures: &Mutex<Figures>, beat: &Beat) -> Result<Answer, Error> {
    let facts = row(&beat.facts);
    let state = name(beat.state);
    let found = link.renew(&store::Beat { facts: &facts, state, settled_epoch: beat.settled })?;
    let snapshot = snapshot(&found);
    let mut figures = figures.lock().unwrap_or_else(PoisonError::into_inner);
    figures.epoch = found.epoch;
    figures.changed_at = found.changed_at;
    figures.why = found.why;
    figures.nodes = node_figures(&snapshot);
    Ok(Answer::Snapshot(snapshot))
}

fn propose(link: &mut ClusterLink, proposal: &Proposal) -> Result<Answer, Error> {
    let members: Vec<store::Facts> = proposal.members.iter().map(row).collect();
    let runs = |runs: &[Run]| -> Vec<(u32, u64)> {
        runs.iter().map(|run| (run.node.0, run.incarnation)).collect()
    };
    let proposed = link.propose(&store::Proposal {
        by: (proposal.by.node.0, proposal.by.incarnation),
        from: proposal.from,
        members: &members,
        fence: &runs(&proposal.fence),
        over: &runs(&proposal.over),
        why: &proposal.why,
    })?;
    let outcome = match proposed {
        Proposed::Won => Outcome::Won,
        Proposed::Lost => Outcome::Lost,
        Proposed::Busy => Outcome::Busy,
    };
    tracing::info!(why = %proposal.why, epoch = proposal.from + 1, ?outcome, "epoch proposed");
    Ok(Answer::Proposed(outcome))
}

fn row(facts: &NodeFacts) -> store::Facts {
    store::Facts {
        id: facts.run.node.0,
        incarnation: facts.run.incarnation,
        name: facts.name.clone(),
        shards: facts.shards,
        weight: facts.weight,
        link: facts.link,
        clients: facts.clients.clone(),
        components: facts.components.clone(),
        federates: facts.federates,
        oldest_frame: facts.frames.0,
        newest_frame: facts.frames.1,
        version: facts.version.clone(),
    }
}

fn facts(row: &store::Facts) -> NodeFacts {
    NodeFacts {
        name: row.name.clone(),
        run: Run { node: NodeId(row.id), incarnation: row.incarnation },
        shards: row.shards,
        weight: row.weight,
        link: row.link,
        clients: row.clients.clone(),
        components: row.components.clone(),
        federates: row.federates,
        frames: (row.oldest_frame, row.newest_frame),
        version: row.version.clone(),
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Joining => "joining",
        State::Member => "member",
        State::Leaving => "leaving",
        State::Left => "left",
        State::Fenced => "fenced",
    }
}

fn state(name: &str) -> State {
    match name {
        "member" => State::Member,
        "leaving" => State::Leaving,
        "left" => State::Left,
        "fenced" => State::Fenced,
        // Of a newer program, perhaps: it takes no part in anything that this one knows.
        _ => State::Joining,
    }
}

fn snapshot(found: &store::Snapshot) -> Snapshot {
    let node = |node: &store::Node| NodeRow {
        facts: facts(&node.facts),
        state: state(&node.state),
        settled: node.settled_epoch,
        lease: Duration::from_millis(node.lease_ms),
    };
    Snapshot {
        epoch: found.epoch,
        members: found.members.iter().map(facts).collect(),
        nodes: found.nodes.iter().map(node).collect(),
        clear: found.clear,
    }
}

fn node_figures(found: &Snapshot) -> Vec<NodeFigures> {
    let figures = |row: &NodeRow| {
        let run = row.facts.run;
        let member = found.members.iter().find(|member| member.run.node == run.node);
        NodeFigures {
            facts: member.unwrap_or(&row.facts).clone(),
            is_member: member.is_some_and(|member| member.run == run),
            wished_weight: row.facts.weight,
            state: row.state,
            settled: row.settled,
            lease: row.lease,
        }
    };
    found.nodes.iter().map(figures).collect()
}
