//! Who is at an address, and what was told of them.

use super::super::view::{NodeFacts, Run};
use super::event::{MemberEvent, Outputs};
use super::peer::Peer;
use crate::base::instant::Instant;
use foca::State;

/// Who is at an address.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) peer: Peer,
    pub(super) state: State,
    pub(super) incarnation: u16,
    /// `Up` was told, and no end since.
    pub(super) is_told: bool,
    pub(super) has_left: bool,
    pub(super) facts: Option<(u32, NodeFacts)>,
    pub(super) since: Instant,
    pub(super) asked: Instant,
    pub(super) accused: Instant,
    /// The other run of its name that was told of.
    pub(super) twin: Option<Run>,
}

impl Known {
    /// Whoever SWIM speaks of for the first time; what it says of them comes next.
    pub(super) fn new(peer: Peer, now: Instant) -> Known {
        Known {
            peer,
            state: State::Down,
            incarnation: 0,
            is_told: false,
            has_left: false,
            facts: None,
            since: now,
            asked: Instant::default(),
            accused: Instant::default(),
            twin: None,
        }
    }

    pub(super) fn is_member(&self) -> bool {
        self.state != State::Down && !self.has_left
    }

    /// Tells that it is up, once, when its facts are known.
    pub(super) fn tell(&mut self, out: &mut Outputs) {
        if let Some((_, facts)) = &self.facts
            && self.is_member()
            && !self.is_told
        {
            self.is_told = true;
            out.events.push(MemberEvent::Up(facts.clone()));
        }
    }
}
