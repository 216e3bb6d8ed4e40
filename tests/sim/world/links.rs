//! Links between the nodes of a world, and what is on its way over them: in order, and lost where a link breaks.

use super::cluster::Happening;
use super::*;
use corefire::cluster::authority::{Input as Ask, Told};
use corefire::cluster::placement::Owner;
use corefire::shard::Peer as RingPeer;

/// After so long in which nothing comes through, a link counts as broken, in µs.
const KEEP_ALIVE: u64 = 2 * SECOND;

/// One direction of a link, between two runs.
#[derive(Default)]
pub(super) struct Way {
    is_up: bool,
    generation: u32,
    at: u64,
    cargo: VecDeque<FarCargo>,
}

enum FarCargo {
    Piece { from: usize, to: usize, frames: Batch, news: Option<(u64, u64)> },
    Conn { link: LinkId, to: usize, image: Vec<u8> },
}

impl World {
    pub(super) fn is_linked(&self, one: usize, two: usize) -> bool {
        self.cluster.ways.get(&(one, two)).is_some_and(|way| way.is_up)
    }

    pub(super) fn link_up(&mut self, one: usize, two: usize) {
        if one == two || !self.runs[one].lives || !self.runs[two].lives {
            return;
        }
        let until = self.apart_until(one, two);
        if until > self.now {
            let delay = self.chance.delay(300_000);
            return self.at_cluster(until + delay, Happening::LinkUp(one, two));
        }
        if self.is_linked(one, two) {
            return;
        }
        for (from, to) in [(one, two), (two, one)] {
            let way = self.cluster.ways.entry((from, to)).or_default();
            way.is_up = true;
            way.generation += 1;
            let id = self.runs[to].id;
            for core in self.runs[from].cores.clone() {
                self.give(core, Given::Linked(id));
            }
        }
        for (from, to) in [(one, two), (two, one)] {
            let id = self.runs[to].id;
            self.tell(from, Ask::Told(Told::Linked(id)));
        }
    }

    /// Until when something keeps two runs from having a link.
    fn apart_until(&self, one: usize, two: usize) -> u64 {
        let (one, two) = (self.runs[one].id.node.0, self.runs[two].id.node.0);
        self.cut_until(one, two).max(self.cut_until(two, one))
    }

    /// Nothing comes from one to the other any more: the link breaks, at once or when nothing has come over it for long.
    pub(super) fn link_cut(&mut self, one: usize, two: usize, is_told: bool) {
        match is_told {
            true => self.break_link(one, two),
            false => self.at_cluster(self.now + KEEP_ALIVE, Happening::LinkSilent(one, two)),
        }
        let delay = self.chance.delay(300_000);
        let at = self.apart_until(one, two) + delay;
        self.at_cluster(at, Happening::LinkUp(one, two));
    }

    pub(super) fn link_silent(&mut self, one: usize, two: usize) {
        if self.apart_until(one, two) > self.now {
            self.break_link(one, two);
        }
    }

    pub(super) fn break_link(&mut self, one: usize, two: usize) {
        if !self.is_linked(one, two) {
            return;
        }
        for (from, to) in [(one, two), (two, one)] {
            let Some(way) = self.cluster.ways.get_mut(&(from, to)) else { continue };
            way.is_up = false;
            way.generation += 1;
            let cargo = std::mem::take(&mut way.cargo);
            // What is in already comes through.
            let ids = (self.runs[from].id.node.0, self.runs[to].id.node.0);
            let most = if self.reaches(ids.0, ids.1) { cargo.len() as u64 } else { 0 };
            let through = self.chance.below(most + 1) as usize;
            for (at, cargo) in cargo.into_iter().enumerate() {
                match cargo {
                    cargo if at < through => self.unload(to, cargo),
                    FarCargo::Conn { link, .. } => self.lose_moving(link),
                    FarCargo::Piece { .. } => {}
                }
            }
        }
        for (from, to) in [(one, two), (two, one)] {
            let id = self.runs[to].id;
            self.tell(from, Ask::Told(Told::Unlinked(id)));
        }
        // Sockets that were relayed over it are lost.
        for link in 0..self.links.len() {
            let state = &self.links[link];
            let (front, owner) = (state.front, self.cores[state.shard].run);
            if state.gone || ![(one, two), (two, one)].contains(&(front, owner)) {
                continue;
            }
            self.disturb(LinkId(link));
            self.lose(LinkId(link));
            let at = self.links[link].down_at + self.chance.below(1000);
            self.plan_at(at, Event::DownEnd(LinkId(link)));
        }
    }

    /// A connection is lost on its way to another node.
    pub(super) fn lose_moving(&mut self, link: LinkId) {
        self.links[link.0].gone = true;
        self.disturb(link);
        let at = self.links[link.0].down_at + self.chance.below(1000);
        self.plan_at(at, Event::DownEnd(link));
    }

    pub(super) fn move_far(&mut self, core: usize, conn: ConnId, link: LinkId, to: Owner) {
        let now = self.clock_of(self.cores[core].run);
        let Some(image) = self.cores[core].shard.extract_image(now, conn) else { return };
        self.cores[core].conns.remove(&conn);
        self.links[link.0].conn = None;
        self.counts.moves += 1;
        let from = self.cores[core].run;
        let member = self.run_of(to.node.0).filter(|run| self.is_linked(from, *run));
        let Some(run) = member else { return self.lose_moving(link) };
        let to = self.runs[run].cores.start + usize::from(to.shard.0);
        self.load(from, run, FarCargo::Conn { link, to, image });
    }

    pub(super) fn ship_far(&mut self, core: usize, mut news: Vec<(RingPeer, (u64, u64))>) {
        let shards = usize::from(self.plan.shards);
        for at in shards..self.cores[core].fx.outbox.len() {
            let peer = RingPeer(at as u16);
            let told = news.iter().position(|(of, _)| *of == peer);
            let slot = &mut self.cores[core];
            if slot.fx.outbox[at].is_empty() && told.is_none() {
                continue;
            }
            let frames = std::mem::take(&mut slot.fx.outbox[at]);
            let refused = frames.iter().filter_map(|frame| super::node::refused(frame.stanza));
            let run = slot.run;
            refused.for_each(|message| self.model.refuse(message, run));
            let slot = &self.cores[core];
            let (place, from) = (slot.shard.place(peer), slot.run);
            let news = told.map(|at| news.swap_remove(at).1);
            let Some(run) = self.runs.iter().position(|run| run.id == place.run) else { continue };
            if self.is_linked(from, run) {
                let to = self.runs[run].cores.start + usize::from(place.shard.0);
                self.load(from, run, FarCargo::Piece { from: core, to, frames, news });
            }
        }
    }

    fn load(&mut self, from: usize, to: usize, cargo: FarCargo) {
        let delay = self.chance.delay(self.plan.cluster.as_ref().map_or(0, |plan| plan.far));
        let Some(way) = self.cluster.ways.get_mut(&(from, to)) else { return };
        way.cargo.push_back(cargo);
        way.at = (way.at + 1).max(self.now + delay);
        let (at, generation) = (way.at, way.generation);
        self.at_cluster(at, Happening::Arrive(from, to, generation));
    }

    pub(super) fn arrive(&mut self, from: usize, to: usize, generation: u32) {
        let until = self.cut_until(self.runs[from].id.node.0, self.runs[to].id.node.0);
        if until > self.now {
            // It waits on the way.
            return self.at_cluster(until, Happening::Arrive(from, to, generation));
        }
        let Some(way) = self.cluster.ways.get_mut(&(from, to)) else { return };
        if way.generation == generation
            && let Some(cargo) = way.cargo.pop_front()
        {
            self.unload(to, cargo);
        }
    }

    fn unload(&mut self, run: usize, cargo: FarCargo) {
        let lives = self.runs[run].lives;
        match cargo {
            FarCargo::Piece { from, to, frames, news } if lives => {
                let from = self.cores[from].place;
                if !frames.is_empty() {
                    self.give(to, Given::Frames(from, frames));
                }
                if let Some((received, handled)) = news {
                    self.give(to, Given::Handled(from, received, handled));
                }
            }
            FarCargo::Conn { link, to, image } if lives => {
                self.give(to, Given::AdoptImage(link, image));
            }
            FarCargo::Conn { link, .. } => self.lose_moving(link),
            FarCargo::Piece { .. } => {}
        }
    }
}
