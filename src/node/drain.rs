//! The node lets its clients go, when it is drained or stops: `cluster::drain` says when, the authority moves accounts, and
//! the cores end the streams of sockets whose accounts are elsewhere.

use super::cluster::Part;
use crate::base::instant::Instant;
use crate::base::rng::Rng;
use crate::cluster::drain::Ebb;
use crate::cluster::placement::{NodeId, PARTITIONS};
use crate::cluster::view::View;
use crate::runtime::control::cluster::ClusterDrain;
use crate::runtime::departing::Departing;
use crate::runtime::executor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the log says how far it is.
const TOLD: Duration = Duration::from_secs(5);

/// How far a drain is, for whoever asks. Cloned freely.
#[derive(Clone)]
pub(super) struct Progress {
    pub(super) departing: Departing,
    is_done: Arc<AtomicBool>,
}

impl Progress {
    /// - takes: `span`, which it is to take; `cores` of the node
    pub(super) fn new(span: Duration, cores: usize) -> Progress {
        Progress { departing: Departing::new(span, cores), is_done: Arc::default() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_done.load(Ordering::Acquire)
    }

    pub(super) fn figures(&self) -> ClusterDrain {
        ClusterDrain { connections_left: self.departing.left(), is_done: self.is_done() }
    }
}

/// What the members have together, but for one node.
pub(super) fn weight_of_others(view: &View, own: NodeId) -> u64 {
    let others = view.nodes.iter().filter(|node| node.run.node != own);
    others.map(|node| u64::from(node.weight)).sum()
}

/// A drain that is under way. On the thread that hears all of the cluster.
pub(super) struct Draining {
    own: NodeId,
    ebb: Ebb,
    progress: Progress,
    told_at: Instant,
}

impl Draining {
    pub(super) fn new(own: NodeId, view: &View, now: Instant, progress: Progress) -> Draining {
        let (span, mut rng) = (progress.departing.span(), Rng::from_seed(executor::seed()));
        let weight = view.node(own).map_or(0, |node| node.weight);
        tracing::info!(
            within_ms = span.as_millis(),
            partitions = partitions(view, own),
            "lets its clients go"
        );
        let ebb = Ebb::new(now, weight, weight_of_others(view, own), span, &mut rng);
        Draining { own, ebb, progress, told_at: now }
    }

    /// Goes on, and gives whether all is done.
    pub(super) fn go_on(&mut self, part: &Part, now: Instant) -> bool {
        let view = part.view();
        let is_settled = part.membership.settled_epoch() == view.epoch();
        let weight = view.node(self.own).map(|node| node.weight);
        let in_force = weight.filter(|_| is_settled);
        if weight_of_others(&view, self.own) == 0 {
            self.ebb.keep_the_rest();
        }
        if let Some(weight) = self.ebb.due(now, in_force) {
            part.ask_for_weight(weight);
        }
        let is_done = self.ebb.is_done(in_force) && self.progress.departing.is_done();
        if is_done {
            self.progress.is_done.store(true, Ordering::Release);
            tracing::info!("has let its clients go");
        } else if now.since(self.told_at) >= TOLD {
            self.told_at = now;
            let connections = self.progress.departing.left();
            tracing::info!(
                partitions = partitions(&view, self.own),
                connections,
                "clients that are still to go"
            );
        }
        is_done
    }
}

fn partitions(view: &View, own: NodeId) -> usize {
    (0..PARTITIONS).filter(|it| view.placement.node(*it) == own).count()
}
