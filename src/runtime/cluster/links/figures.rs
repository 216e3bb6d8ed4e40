//! How the links are, for `cluster status` and the metrics. Written by the thread of the links, read by others.

use crate::cluster::link::Estimate;
use crate::cluster::placement::NodeId;
use crate::cluster::view::Run;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LinkState {
    /// This node dials, or will again after a pause.
    Dialling,
    /// The peer is the one to dial.
    #[default]
    Awaited,
    Up,
}

/// One peer that there should be a link to. Sums are over all connections to this run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerFigures {
    pub name: String,
    pub run: Run,
    pub state: LinkState,
    /// Round trip and clock; `None` before the first ping was answered. Of the last connection.
    pub estimate: Option<Estimate>,
    pub frames_version: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub pieces_in: u64,
    pub pieces_out: u64,
    /// Pieces that were for this run while there was no link to it.
    pub pieces_dropped: u64,
    /// Bytes that wait to be written.
    pub queue_bytes: usize,
    /// How often the link came up after the first time.
    pub reconnects: u64,
    /// How often it came up.
    pub ups: u64,
    /// Why the last connection ended, or did not come about.
    pub last_end: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinksFigures {
    /// By node id.
    pub peers: Vec<PeerFigures>,
    /// Connections that were refused in their handshake or broke the rules later, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Handshakes that others have begun.
    pub handshakes: usize,
    /// Pieces for runs that there should be no link to.
    pub pieces_without_peer: u64,
}

/// The figures as they are kept. Nothing that can panic happens under its lock.
#[derive(Debug, Default)]
pub(super) struct Board(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    peers: BTreeMap<NodeId, PeerFigures>,
    refused: BTreeMap<&'static str, u64>,
    handshakes: usize,
    pieces_without_peer: u64,
}

impl Board {
    pub(super) fn figures(&self) -> LinksFigures {
        self.with(|kept| LinksFigures {
            peers: kept.peers.values().cloned().collect(),
            refused: kept.refused.clone(),
            handshakes: kept.handshakes,
            pieces_without_peer: kept.pieces_without_peer,
        })
    }

    /// What is counted of a peer; nothing where it is none any more.
    pub(super) fn peer(&self, node: NodeId, change: impl FnOnce(&mut PeerFigures)) {
        self.with(|kept| kept.peers.get_mut(&node).map(change));
    }

    pub(super) fn add(&self, figures: PeerFigures) {
        self.with(|kept| kept.peers.insert(figures.run.node, figures));
    }

    pub(super) fn remove(&self, node: NodeId) {
        self.with(|kept| kept.peers.remove(&node));
    }

    pub(super) fn refused(&self, word: &'static str) {
        self.with(|kept| *kept.refused.entry(word).or_default() += 1);
    }

    pub(super) fn handshakes(&self, number: usize) {
        self.with(|kept| kept.handshakes = number);
    }

    pub(super) fn without_peer(&self) {
        self.with(|kept| kept.pieces_without_peer += 1);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
