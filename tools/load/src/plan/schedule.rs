//! When what is due: a seeded list of intended moments, made lazily and in order.
//!
//! It depends on the scenario and the seed alone, not on the server, the clock, or how many workers share it.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Plan, Random};
use crate::record::Operation;
use crate::scenario::{Arrivals, PhaseKind};

/// What a user is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Be online from now on.
    Login,
    /// Be offline from now on.
    Logout,
    /// The connection is cut without a word; [`Act::Login`] follows.
    Cut,
    Operation(Operation),
}

/// One entry of the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// From the start of the run.
    pub at: Duration,
    /// Place in the scenario's list.
    pub population: usize,
    /// Number within the population.
    pub user: u64,
    pub act: Act,
    /// A number for the act's own choices (which partner, what size).
    pub dice: u64,
}

impl Due {
    /// The entry as bytes, for comparisons and digests.
    pub fn bytes(&self) -> [u8; 34] {
        let act = match self.act {
            Act::Login => 0,
            Act::Logout => 1,
            Act::Cut => 2,
            Act::Operation(operation) => 16 + operation as u8,
        };
        let mut bytes = [0; 34];
        bytes[..8].copy_from_slice(&(self.at.as_nanos() as u64).to_le_bytes());
        bytes[8..16].copy_from_slice(&(self.population as u64).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.user.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.dice.to_le_bytes());
        bytes[32] = act;
        bytes
    }
}

/// All entries in order.
pub struct Schedule {
    streams: Vec<Stream>,
}

struct Stream {
    next: Option<Due>,
    source: Source,
}

enum Source {
    Operations(Operations),
    Sessions(VecDeque<Due>),
}

impl Schedule {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut sources = Vec::new();
        for at in 0..plan.scenario.populations.len() {
            sources.push(Source::Sessions(sessions(plan, at)));
        }
        for (at, population) in plan.scenario.populations.iter().enumerate() {
            for (operation, rate) in population.rates() {
                let pieces = pieces(plan, rate);
                let random = Random::new(plan.scenario.seed, &[1, at as u64, operation as u64]);
                sources.push(Source::Operations(Operations {
                    population: at,
                    users: population.users,
                    stride: match (operation, &population.message) {
                        (Operation::Message, Some(wish)) => wish.stride(),
                        _ => 1,
                    },
                    operation,
                    pieces,
                    arrivals: plan.scenario.arrivals,
                    random,
                    mass: 0.0,
                }));
            }
        }
        let streams = sources.into_iter().map(|mut source| Stream { next: source.next(), source });
        Self { streams: streams.collect() }
    }

    /// When the next entry is due.
    pub fn next_at(&self) -> Option<Duration> {
        self.streams.iter().filter_map(|stream| stream.next.map(|due| due.at)).min()
    }
}

impl Iterator for Schedule {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        // Few streams: a scan costs less than a heap. Of equal moments the first stream goes first.
        let mut first: Option<(Duration, usize)> = None;
        for (at, stream) in self.streams.iter().enumerate() {
            if let Some(due) = stream.next
                && first.is_none_or(|(moment, _)| due.at < moment)
            {
                first = Some((due.at, at));
            }
        }
        let stream = &mut self.streams[first?.1];
        let due = stream.next;
        stream.next = stream.source.next();
        due
    }
}

impl Source {
    fn next(&mut self) -> Option<Due> {
        match self {
            Self::Operations(operations) => operations.next(),
            Self::Sessions(list) => list.pop_front(),
        }
    }
}

/// A stretch in which the rate changes linearly; times in seconds.
struct Piece {
    begin: f64,
    length: f64,
    from: f64,
    to: f64,
    /// Operations expected before it.
    before: f64,
}

fn pieces(plan: &Plan, rate: f64) -> Vec<Piece> {
    let mut before = 0.0;
    let piece = |phase: &super::PhaseAt| {
        let (from, to) = (phase.wish.load.0 * rate, phase.wish.load.1 * rate);
        let length = phase.wish.length.as_secs_f64();
        let piece = Piece { begin: phase.begin.as_secs_f64(), length, from, to, before };
        before += (from + to) / 2.0 * length;
        piece
    };
    plan.phases.iter().map(piece).collect()
}

impl Piece {
    fn mass(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.length
    }

    /// When so much of its mass has come.
    fn moment(&self, mass: f64) -> f64 {
        let slope = (self.to - self.from) / self.length;
        // Of s·t²/2 + from·t = mass the positive root, in the form that holds for s = 0 as well.
        let root = (self.from * self.from + 2.0 * slope * mass).max(0.0).sqrt();
        self.begin + (2.0 * mass / (self.from + root)).min(self.length)
    }
}

/// Arrivals at a rate that changes over time: the integral of the rate grows by 1 per operation on average.
struct Operations {
    population: usize,
    users: u64,
    /// Only every so many of them.
    stride: u64,
    operation: Operation,
    pieces: Vec<Piece>,
    arrivals: Arrivals,
    random: Random,
    mass: f64,
}

impl Operations {
    fn next(&mut self) -> Option<Due> {
        self.mass += match self.arrivals {
            Arrivals::Poisson => self.random.gap(),
            Arrivals::Even => 1.0,
        };
        let piece = self.pieces.iter().find(|piece| self.mass < piece.before + piece.mass())?;
        let seconds = piece.moment(self.mass - piece.before);
        Some(Due {
            at: Duration::from_secs_f64(seconds),
            population: self.population,
            user: self.random.below(self.users / self.stride) * self.stride,
            act: Act::Operation(self.operation),
            dice: self.random.draw(),
        })
    }
}

/// Comings, goings and cuts of a population.
fn sessions(plan: &Plan, population: usize) -> VecDeque<Due> {
    let users = plan.scenario.populations[population].users;
    let mut random = Random::new(plan.scenario.seed, &[0, population as u64]);
    let mut list = Vec::new();
    let mut due = |at, user, act| {
        let dice = 0;
        list.push(Due { at, population, user, act, dice });
    };
    let mut online = 0;
    for phase in &plan.phases {
        let (begin, wish) = (phase.begin, &phase.wish);
        let wanted = (wish.users * users as f64).round() as u64;
        let moment = |place: u64, of: u64| begin + wish.length.mul_f64(place as f64 / of as f64);
        match wish.kind {
            PhaseKind::Ramp if wanted >= online => {
                for user in online..wanted {
                    due(moment(user - online, wanted - online), user, Act::Login);
                }
                online = wanted;
            }
            PhaseKind::Ramp => {
                for user in (wanted..online).rev() {
                    due(moment(online - 1 - user, online - wanted), user, Act::Logout);
                }
                online = wanted;
            }
            PhaseKind::Storm => {
                for user in 0..online {
                    // Two draws each, so that another share changes nothing about who comes back when.
                    let (place, later) = (random.fraction(), random.fraction());
                    if place < wish.share {
                        due(begin, user, Act::Cut);
                        due(begin + wish.spread.mul_f64(later), user, Act::Login);
                    }
                }
            }
            PhaseKind::Hold => {}
        }
    }
    // Stable: a user's cut stays before the return that is due in the same moment.
    list.sort_by_key(|due| due.at);
    list.into()
}
