//! Clients that do not read: for nine tenths of each period what the server sends stays in the kernel.

use std::time::{Duration, Instant};

use super::session::Sessions;
use crate::Engine;
use crate::plan::Plan;
use crate::scenario::Reader;

/// The slow populations of a share.
pub(super) struct Readers {
    slow: Vec<Slow>,
}

struct Slow {
    population: usize,
    period: Duration,
    is_deaf: bool,
    /// Of the next change.
    at: Option<Instant>,
}

impl Readers {
    pub(super) fn new(plan: &Plan) -> Self {
        let slow = plan.scenario.populations.iter().enumerate().filter_map(|(at, wish)| match wish
            .reader
        {
            Reader::Slow { period } => {
                Some(Slow { population: at, period, is_deaf: false, at: None })
            }
            _ => None,
        });
        Self { slow: slow.collect() }
    }

    /// Changes what is due; gives the moment of the next change.
    pub(super) fn turn(
        &mut self,
        begin: Instant,
        now: Instant,
        engine: &mut Engine,
        sessions: &Sessions,
    ) -> Option<Instant> {
        for slow in &mut self.slow {
            let due = *slow.at.get_or_insert(begin + slow.period);
            if now < due {
                continue;
            }
            slow.is_deaf = !slow.is_deaf;
            let part = if slow.is_deaf { 0.9 } else { 0.1 };
            slow.at = Some(now + slow.period.mul_f64(part));
            let mine = sessions.iter().filter(|session| session.population == slow.population);
            for client in mine.filter_map(|session| session.client) {
                // Logins need their answers; whoever logs in is left in peace until the next change.
                if engine.is_ready(client) || !slow.is_deaf {
                    // An epoll that fails here fails in the next wait as well, where it ends the run.
                    let _ = engine.set_deaf(client, slow.is_deaf);
                }
            }
        }
        self.slow.iter().filter_map(|slow| slow.at).min()
    }
}
