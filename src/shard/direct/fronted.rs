//! What the owner of a stream keeps with the connection whose socket is at a front.

use crate::base::instant::Wall;
use crate::cluster::view::Place;
use crate::xmpp::stanza::StanzaKind;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use std::collections::VecDeque;

/// A connection whose socket is at a front.
#[derive(Debug)]
pub(in crate::shard) struct Fronted {
    pub(super) place: Place,
    /// Once it was allowed to send.
    pub(super) token: Option<u64>,
    pub(super) leave: LeaveState,
    /// How often in a row the front made no use of it.
    pub(super) refused: u8,
    /// It is among those that are looked at.
    pub(super) is_candidate: bool,
    /// Stanzas among the unread bytes that the front has sent, by where they end.
    pub(super) told: VecDeque<(usize, Told)>,
    /// The epoch, and the newest numbers of all rings in it: frames up to them are older than what the front sends.
    pub(super) barrier: Option<(u64, Box<[u64]>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaveState {
    None,
    Given,
    /// The front makes use of it.
    Used,
    /// Used, and taken back.
    Ending,
}

/// What a front says of a stanza that it has sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::shard) struct Told {
    pub(super) token: u64,
    pub(super) number: u32,
    pub(super) at: Wall,
}

impl Told {
    /// - takes: the kind of the stanza, and the number of the one before it
    /// - errors: it is not what the front says
    pub(in crate::shard) fn check(
        &self,
        kind: StanzaKind,
        before: Option<u32>,
    ) -> Result<(), StreamError> {
        let is_it = before.map(|before| before.wrapping_add(1)) == Some(self.number);
        if is_it && kind == StanzaKind::Message { Ok(()) } else { Err(broken()) }
    }

    /// When it came, by the clock of the front.
    pub(in crate::shard) fn at(&self) -> Wall {
        self.at
    }
}

impl Fronted {
    pub(super) fn new(place: Place) -> Fronted {
        Fronted {
            place,
            token: None,
            leave: LeaveState::None,
            refused: 0,
            is_candidate: false,
            told: VecDeque::new(),
            barrier: None,
        }
    }

    /// What the front says of the stanza that ends there.
    ///
    /// - errors: it spoke of what is no stanza
    pub(in crate::shard) fn told(&self, end: usize) -> Result<Option<Told>, StreamError> {
        match self.told.front() {
            Some((at, told)) if *at == end => Ok(Some(*told)),
            Some((at, _)) if *at < end => Err(broken()),
            _ => Ok(None),
        }
    }

    /// The stanza is dealt with.
    pub(in crate::shard) fn next_told(&mut self) {
        self.told.pop_front();
    }

    /// So many unread bytes are dealt with.
    pub(in crate::shard) fn taken(&mut self, length: usize) {
        self.told.iter_mut().for_each(|(at, _)| *at = at.saturating_sub(length));
    }
}

/// A front that does not keep to what was agreed.
pub(super) fn broken() -> StreamError {
    StreamError::new(StreamCondition::InternalServerError)
}
