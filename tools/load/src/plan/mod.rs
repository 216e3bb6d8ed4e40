//! What a scenario comes to: phases on a clock, users, and a seeded schedule of every operation.

mod random;
mod schedule;

use std::net::SocketAddr;
use std::time::Duration;

use ring::digest;
use serde::{Deserialize, Serialize};

pub use random::Random;
pub use schedule::{Act, Due, Schedule};

use crate::record::{LoopMode, Phase};
use crate::scenario::{Fault, PhaseWish, Population, Scenario, Security};

/// Entries of the schedule that a digest covers at most: a second's work.
const DIGEST_MAX: u64 = 50_000_000;

/// A server, and the domain whose accounts log in there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub address: SocketAddr,
    pub domain: String,
}

/// All that a run is asked for. The same request makes the same plan, in this process or a worker's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// For a scenario that does not say its own.
    pub name: String,
    /// The scenario's file.
    pub scenario: String,
    /// User n of a population belongs to target n modulo their number.
    pub targets: Vec<Target>,
    pub users: Option<u64>,
    pub rate: Option<f64>,
    /// Of the measured phases together.
    pub duration: Option<Duration>,
    pub seed: Option<u64>,
    pub closed: Option<u32>,
    /// `auto`, `none`, `starttls`, `direct`.
    pub tls: Option<String>,
    /// Where the scenario's component connects, instead of the first target's host and the scenario's port.
    pub component: Option<SocketAddr>,
}

impl Request {
    /// The scenario as it stands.
    pub fn new(name: &str, scenario: &str, targets: Vec<Target>) -> Self {
        Self {
            name: name.to_owned(),
            scenario: scenario.to_owned(),
            targets,
            users: None,
            rate: None,
            duration: None,
            seed: None,
            closed: None,
            tls: None,
            component: None,
        }
    }
}

/// Why a request makes no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanError {
    Scenario(Vec<Fault>),
    /// An option and the scenario do not go together.
    Request(String),
}

/// The scenario's component at its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentAt {
    /// Its own address.
    pub address: String,
    pub connect: SocketAddr,
    pub secret: String,
}

/// A phase with its place in time.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseAt {
    pub begin: Duration,
    pub wish: PhaseWish,
}

/// A scenario with the request's changes, on a clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub scenario: Scenario,
    pub targets: Vec<Target>,
    pub mode: LoopMode,
    pub phases: Vec<PhaseAt>,
    component: Option<ComponentAt>,
    /// By population: the first user of each room, and their number behind it. Empty without rooms.
    rooms: Vec<Vec<u64>>,
}

/// A worker's part: every `count`-th group of users of each population.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// From 0.
    pub index: u64,
    pub count: u64,
}

impl Share {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, count: 1 };
}

/// What a schedule holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub entries: u64,
    /// First 16 hexadecimal digits of the SHA-256 of all entries, or of the first 50 million.
    pub digest: String,
}

impl Plan {
    /// - errors: a scenario with faults; options that it has no place for
    pub fn new(request: &Request) -> Result<Self, PlanError> {
        let mut scenario =
            Scenario::read(&request.scenario, &request.name).map_err(PlanError::Scenario)?;
        if let Some(seed) = request.seed {
            scenario.seed = seed;
        }
        if let Some(tls) = &request.tls {
            scenario.connection.security = match tls.as_str() {
                "auto" => Security::Auto,
                "none" => Security::None,
                "starttls" => Security::Starttls,
                "direct" => Security::Direct,
                other => return Err(PlanError::Request(format!("--tls {other} is not known"))),
            };
        }
        if let Some(users) = request.users {
            scale_users(&mut scenario, users);
        }
        if let Some(rate) = request.rate {
            scale_rate(&mut scenario, rate)?;
        }
        let before = place(&scenario.phases);
        if let Some(duration) = request.duration {
            scale_duration(&mut scenario, duration)?;
        }
        let phases = place(&scenario.phases);
        move_faults(&mut scenario, &before, &phases)?;
        let mode = match request.closed {
            None => LoopMode::Open,
            Some(0) => return Err(PlanError::Request("--closed needs a window above 0".into())),
            Some(window) => LoopMode::Closed { window },
        };
        if mode != LoopMode::Open
            && let Some(population) = scenario.populations.iter().find(|p| does_more(p))
        {
            let what = format!(
                "--closed knows message, component-message, ping, roster-get, roster-set and archive; population \"{}\" does more",
                population.name
            );
            return Err(PlanError::Request(what));
        }
        if request.component.is_some() && scenario.component.is_none() {
            let what = "--component: the scenario has no [component]";
            return Err(PlanError::Request(what.to_owned()));
        }
        let rooms = scenario.populations.iter().map(room_starts).collect();
        let component = component(&scenario, request);
        Ok(Self { scenario, targets: request.targets.clone(), mode, phases, component, rooms })
    }

    /// From the start to the end of the last phase, without the drain.
    pub fn length(&self) -> Duration {
        self.phases.last().map_or(Duration::ZERO, |phase| phase.begin + phase.wish.length)
    }

    /// The component that sends, if there is one.
    pub fn component(&self) -> Option<ComponentAt> {
        self.component.clone()
    }

    /// Every entry from the start.
    pub fn schedule(&self) -> Schedule {
        Schedule::new(self)
    }

    pub fn summary(&self) -> Summary {
        let mut context = digest::Context::new(&digest::SHA256);
        let mut entries = 0;
        for due in self.schedule() {
            if entries < DIGEST_MAX {
                context.update(&due.bytes());
            }
            entries += 1;
        }
        let digest = context.finish();
        let digest = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Summary { entries, digest }
    }

    /// The phase at a moment; the last one's number behind its end.
    pub fn phase_at(&self, at: Duration) -> usize {
        self.phases.iter().rposition(|phase| phase.begin <= at).unwrap_or(0)
    }

    /// The phases as records have them, with the drain behind the last.
    pub fn record_phases(&self) -> Vec<Phase> {
        let mut phases: Vec<Phase> = self
            .phases
            .iter()
            .map(|phase| Phase {
                name: phase.wish.name.clone(),
                kind: phase.wish.kind.name().to_owned(),
                begin: phase.begin,
                length: phase.wish.length,
                measured: phase.wish.measured,
            })
            .collect();
        // What was planned in the last phase and is late must count where that phase does.
        let measured = phases.last().is_some_and(|phase| phase.measured);
        phases.push(Phase {
            name: "drain".to_owned(),
            kind: "drain".to_owned(),
            begin: self.length(),
            length: self.scenario.drain,
            measured,
        });
        phases
    }

    /// Whether a user is a share's.
    pub fn is_in(&self, share: Share, population: usize, user: u64) -> bool {
        if self.scenario.populations[population].component.is_some() {
            // A component has one connection, and messages are read where they are sent.
            return share.index == 0;
        }
        let unit = match self.room_of(population, user) {
            Some(room) => room,
            None => user / self.scenario.populations[population].group(),
        };
        unit % share.count == share.index
    }

    /// The room that a user is in.
    pub fn room_of(&self, population: usize, user: u64) -> Option<u64> {
        let starts = &self.rooms[population];
        // The last entry is the end.
        let place = starts.partition_point(|start| *start <= user);
        (place > 0 && place < starts.len()).then(|| place as u64 - 1)
    }

    /// The users of a room.
    pub fn occupants(&self, population: usize, room: u64) -> std::ops::Range<u64> {
        let starts = &self.rooms[population];
        starts[room as usize]..starts[room as usize + 1]
    }

    /// The target at which a user has its account.
    pub fn target_of(&self, user: u64) -> usize {
        (user % self.targets.len().max(1) as u64) as usize
    }

    /// Number of an account: populations have theirs one after another.
    pub fn account_number(&self, population: usize, user: u64) -> u64 {
        let before: u64 = self.scenario.populations[..population].iter().map(|p| p.users).sum();
        self.scenario.accounts.first + before + user
    }

    /// Name of an account, without its domain.
    pub fn account(&self, population: usize, user: u64) -> String {
        let number = self.account_number(population, user).to_string();
        self.scenario.accounts.pattern.replace("{}", &number)
    }
}

/// Whether a population does what a closed loop cannot.
fn does_more(population: &Population) -> bool {
    population.room.is_some() || population.churn.is_some() || population.cut.is_some()
}

fn component(scenario: &Scenario, request: &Request) -> Option<ComponentAt> {
    let (wish, first) = (scenario.component.as_ref()?, request.targets.first()?);
    Some(ComponentAt {
        address: wish.address.replace("{}", &first.domain),
        connect: request.component.unwrap_or(SocketAddr::new(first.address.ip(), wish.port)),
        secret: wish.secret.clone(),
    })
}

fn place(wishes: &[PhaseWish]) -> Vec<PhaseAt> {
    let mut begin = Duration::ZERO;
    let mut at = |wish: &PhaseWish| {
        let phase = PhaseAt { begin, wish: wish.clone() };
        begin += wish.length;
        phase
    };
    wishes.iter().map(&mut at).collect()
}

/// Users in a row share a room; how many follows Zipf's law, and nobody's room is empty.
fn room_starts(population: &Population) -> Vec<u64> {
    let Some(wish) = &population.room else {
        return Vec::new();
    };
    let rooms = wish.rooms.min(population.users);
    let weight = |room: u64| ((room + 1) as f64).powf(-wish.zipf);
    let total: f64 = (0..rooms).map(weight).sum();
    let spare = (population.users - rooms) as f64;
    let mut before = 0.0;
    let mut starts: Vec<u64> = (0..rooms)
        .map(|room| {
            let start = room + (spare * before / total).round() as u64;
            before += weight(room);
            start
        })
        .collect();
    starts.push(population.users);
    starts
}

fn scale_users(scenario: &mut Scenario, users: u64) {
    let total = scenario.users().max(1);
    for population in &mut scenario.populations {
        let group = population.group();
        let share = (u128::from(population.users) * u128::from(users) / u128::from(total)) as u64;
        population.users = (share / group).max(1) * group;
    }
}

fn scale_rate(scenario: &mut Scenario, rate: f64) -> Result<(), PlanError> {
    let total = scenario.rate();
    if total <= 0.0 || !rate.is_finite() || rate < 0.0 {
        let what = format!("--rate {rate}: the scenario has no rates that could become that");
        return Err(PlanError::Request(what));
    }
    let factor = rate / total;
    for population in &mut scenario.populations {
        population.message.iter_mut().for_each(|wish| wish.rate *= factor);
        population.room.iter_mut().for_each(|wish| wish.rate *= factor);
        population.churn.iter_mut().for_each(|wish| wish.rate *= factor);
        population.component.iter_mut().for_each(|wish| wish.rate *= factor);
        population.cut.iter_mut().for_each(|wish| wish.rate *= factor);
        population.requests.iter_mut().for_each(|wish| wish.rate *= factor);
    }
    Ok(())
}

fn scale_duration(scenario: &mut Scenario, duration: Duration) -> Result<(), PlanError> {
    let measured = scenario.phases.iter().filter(|phase| phase.measured);
    let total: Duration = measured.map(|phase| phase.length).sum();
    if total.is_zero() || duration.is_zero() {
        let what =
            "--duration: a length above 0, and a measured phase that can have it, are needed";
        return Err(PlanError::Request(what.to_owned()));
    }
    let factor = duration.as_secs_f64() / total.as_secs_f64();
    for phase in scenario.phases.iter_mut().filter(|phase| phase.measured) {
        phase.length = phase.length.mul_f64(factor).max(Duration::from_millis(1));
        phase.spread = phase.spread.mul_f64(factor);
    }
    Ok(())
}

/// Keeps each fault at its place within its phase.
fn move_faults(
    scenario: &mut Scenario,
    before: &[PhaseAt],
    after: &[PhaseAt],
) -> Result<(), PlanError> {
    for fault in &mut scenario.faults {
        let at = before.iter().rposition(|phase| phase.begin <= fault.at).unwrap_or(0);
        let (Some(old), Some(new)) = (before.get(at), after.get(at)) else {
            continue;
        };
        let place = (fault.at - old.begin).as_secs_f64() / old.wish.length.as_secs_f64();
        if place >= 1.0 {
            let what = format!("fault \"{}\" at {:?} is after the end", fault.name, fault.at);
            return Err(PlanError::Request(what));
        }
        fault.at = new.begin + new.wish.length.mul_f64(place);
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
