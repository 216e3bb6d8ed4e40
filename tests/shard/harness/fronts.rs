//! Sockets on other nodes than their connections, as the runtime has them: a `Relay` for each core, and the pieces between
//! them beside the frames.

use super::*;
use corefire::cluster::relay::{Event, FrontId, Leave, Lost, Refusal, Relay, messages};
use corefire::shard::FrontSaid;
use corefire::xmpp::stream_error::StreamCondition;

/// What a core has of sockets that are apart from their connections.
#[derive(Default)]
pub(super) struct Relays {
    pub relay: Relay<usize>,
    /// Streams whose messages are sent from here.
    sending: Vec<(u64, FrontId, usize)>,
}

/// A client's socket, and its front.
#[derive(Clone, Copy)]
pub(super) struct Fronted {
    core: usize,
    id: FrontId,
    sends: Option<u64>,
}

impl Node {
    /// Sockets stay where they are, as on real nodes, and their bytes go to their owners.
    pub(crate) fn keep_fronts(&mut self) {
        self.keeps_fronts = true;
    }

    /// What goes from one node to the other waits, in order.
    pub(crate) fn hold_way(&mut self, from: u32, to: u32) {
        self.held_ways.push((from, to));
    }

    /// Batches and pieces that wait for ways which are held.
    pub(crate) fn on_their_way(&self) -> usize {
        self.rings.len() + self.relayed.len()
    }

    pub(crate) fn free_ways(&mut self) {
        self.held_ways.clear();
        self.run();
        for (from, to, received, handled) in std::mem::take(&mut self.held_news) {
            if let Some(by) = self.peer(to, from).filter(|_| self.cores[from].lives) {
                self.input(to, Input::Handled { by, received, handled });
            }
        }
        self.run();
    }

    /// The link between two nodes breaks, with all that is on it, and is there again.
    pub(crate) fn break_link(&mut self, one: u32, other: u32) {
        self.lose_link(one, other);
        for (at, of) in [(one, other), (other, one)] {
            let run = self.cores.iter().find(|core| core.lives && core.node() == of).unwrap();
            let run = run.place.run;
            for core in 0..self.cores.len() {
                if self.cores[core].node() == at {
                    self.input(core, Input::Linked(run));
                }
            }
        }
        self.run();
    }

    /// Whether the messages of a client are sent by its front.
    pub(crate) fn sends_directly(&self, client: Client) -> bool {
        self.sockets[client.0].front.is_some_and(|front| front.sends.is_some())
    }

    /// Messages that clients got, by the nodes that they crossed.
    pub(crate) fn nodes_crossed(&self) -> [u64; 5] {
        let mut sum = [0; 5];
        for core in &self.cores {
            sum.iter_mut().zip(core.shard.probe().hops).for_each(|(sum, hops)| *sum += hops);
        }
        sum
    }

    /// Messages that fronts have sent, frames that were sent again, and those of them that were known already.
    pub(crate) fn front_counts(&self) -> [u64; 3] {
        let mut sum = [0; 3];
        for core in &self.cores {
            let probe = core.shard.probe();
            let counts =
                [probe.messages_sent_directly, probe.frames_retried, probe.duplicates_dropped];
            sum.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sum
    }

    /// What a client has received since it last looked, cut into elements; what is no whole one is left.
    pub(crate) fn first_level(&mut self, client: Client) -> Vec<String> {
        let text = self.read(client);
        // Behind a stream's header.
        let text = text.rsplit_once("</stream:features>").map_or(&*text, |(_, rest)| rest);
        let text = text.split("<stream:error>").next().unwrap_or_default();
        cut(text.strip_suffix("</stream:stream>").unwrap_or(text))
    }

    /// A core of that node, which is not its owner's.
    pub(crate) fn core_at(&self, node: u32) -> usize {
        self.cores.iter().position(|core| core.lives && core.node() == node).unwrap()
    }

    pub(super) fn is_held_way(&self, from: usize, to: usize) -> bool {
        let way = (self.cores[from].node(), self.cores[to].node());
        self.held_ways.contains(&way)
    }

    fn lose_link(&mut self, one: u32, other: u32) {
        let ends: Vec<u32> = self.cores.iter().map(Core::node).collect();
        let is_it =
            |from: usize, to: usize| [(one, other), (other, one)].contains(&(ends[from], ends[to]));
        self.rings.retain(|(from, to, ..)| !is_it(*from, *to));
        self.held_news.retain(|(from, to, ..)| !is_it(*from, *to));
        self.relayed.retain(|(from, to, _)| !is_it(*from, *to));
        for at in 0..self.cores.len() {
            let core = &self.cores[at];
            let far = if core.node() == one { other } else { one };
            if !core.lives || ![one, other].contains(&core.node()) {
                continue;
            }
            let runs: Vec<Run> = self
                .cores
                .iter()
                .filter(|core| core.node() == far)
                .map(|core| core.place.run)
                .collect();
            for run in runs {
                let lost = self.cores[at].relays.relay.unlinked(run);
                self.end_lost(at, lost);
            }
        }
    }

    /// A node is gone: so are its sockets, and those whose connections it had.
    pub(super) fn lose_fronts_of(&mut self, id: u32) {
        self.relayed.retain(|(from, to, _)| {
            let is_gone = |at: &usize| self.cores[*at].node() == id && !self.cores[*at].lives;
            !is_gone(from) && !is_gone(to)
        });
        let runs: Vec<Run> = self
            .cores
            .iter()
            .filter(|it| it.node() == id && !it.lives)
            .map(|it| it.place.run)
            .collect();
        for at in (0..self.cores.len()).filter(|at| self.cores[*at].lives).collect::<Vec<_>>() {
            for run in &runs {
                let lost = self.cores[at].relays.relay.unlinked(*run);
                self.end_lost(at, lost);
            }
        }
    }

    fn end_lost(&mut self, at: usize, lost: Lost<usize>) {
        for client in lost.fronts {
            self.end_front(client);
        }
        for conn in lost.conns {
            self.input(at, Input::Closed { conn: ConnId(conn) });
        }
    }

    fn end_front(&mut self, client: usize) {
        self.sends_no_more(client);
        self.sockets[client].front = None;
        self.sockets[client].open = false;
    }

    fn sends_no_more(&mut self, client: usize) {
        if let Some(front) = &mut self.sockets[client].front
            && let Some(token) = front.sends.take()
        {
            let core = &mut self.cores[front.core];
            core.relays.sending.retain(|(of, ..)| *of != token);
            core.shard.front_ended(token);
        }
    }

    // ---- the front

    /// The connection goes to its owner, and the socket stays.
    pub(super) fn open_front(&mut self, at: usize, conn: ConnId, to: Owner) {
        let client = self.client(at, conn);
        let is_it =
            |core: &Core| core.lives && core.node() == to.node.0 && core.place.shard == to.shard;
        if !self.cores.iter().any(is_it) {
            let Core { shard, fx, .. } = &mut self.cores[at];
            return shard.end_stream(self.now, conn, StreamCondition::RemoteConnectionFailed, fx);
        }
        self.flush(at, conn);
        let Some(image) = self.cores[at].shard.extract_image(self.now, conn) else { return };
        let place = self.cores[self.core_of(to)].place;
        let id = self.cores[at].relays.relay.open(place, client, &image);
        self.sockets[client].front = Some(Fronted { core: at, id, sends: None });
        self.sockets[client].moves += 1;
    }

    /// Gives false where the client's socket is with its connection.
    pub(super) fn front_bytes(&mut self, client: usize, bytes: &[u8]) -> bool {
        let Some(Fronted { core, id, sends }) = self.sockets[client].front else { return false };
        match sends {
            Some(token) => {
                self.cores[core].shard.front_input(token, bytes);
                self.send_on(client);
            }
            None => self.cores[core].relays.relay.input(id, bytes),
        }
        true
    }

    /// Gives false where the client's socket is with its connection.
    pub(super) fn front_cut(&mut self, client: usize) -> bool {
        let Some(Fronted { core, id, .. }) = self.sockets[client].front else { return false };
        self.end_front(client);
        self.cores[core].relays.relay.close(id);
        true
    }

    fn send_on(&mut self, client: usize) {
        let Some(Fronted { core, id, sends: Some(token) }) = self.sockets[client].front else {
            return;
        };
        loop {
            let Core { shard, fx, relays, .. } = &mut self.cores[core];
            let credit = relays.relay.credit(id);
            match shard.front_next(self.now, token, credit, fx) {
                FrontSaid::Sent { number, at, bytes } => relays.relay.sent(id, number, at, &bytes),
                FrontSaid::Pass(bytes) => relays.relay.input(id, &bytes),
                FrontSaid::Stops(bytes) => {
                    relays.relay.sends_not(id);
                    relays.relay.input(id, &bytes);
                    break;
                }
                FrontSaid::Gone => break,
                FrontSaid::Waits => return,
            }
        }
        self.cores[core].relays.sending.retain(|(of, ..)| *of != token);
        if let Some(front) = &mut self.sockets[client].front {
            front.sends = None;
        }
    }

    pub(super) fn front_goes_on(&mut self, at: usize, token: u64) {
        let found = self.cores[at].relays.sending.iter().find(|(of, ..)| *of == token);
        if let Some((.., client)) = found.copied() {
            self.send_on(client);
        }
    }

    // ---- the owner

    pub(super) fn give_leave(&mut self, at: usize, conn: ConnId, leave: &Leave<'_>) {
        self.cores[at].relays.relay.give_leave(conn.0, leave);
    }

    pub(super) fn take_leave_back(&mut self, at: usize, conn: ConnId) {
        self.cores[at].relays.relay.take_leave_back(conn.0);
    }

    /// Gives false for a connection whose socket is with it.
    pub(super) fn flush_owned(&mut self, at: usize, conn: ConnId) -> bool {
        let Core { shard, relays, .. } = &mut self.cores[at];
        if !relays.relay.owns(conn.0) {
            return false;
        }
        shard.flushing(conn);
        let may_end = shard.may_end(conn);
        if let Some(output) = shard.output(conn) {
            let sent = relays.relay.output(conn.0, output.bytes, output.closing, may_end);
            shard.output_left(conn, sent);
        }
        true
    }

    /// Gives false for a connection whose socket is with it.
    pub(super) fn abort_owned(&mut self, at: usize, conn: ConnId) -> bool {
        if !self.cores[at].relays.relay.abort(conn.0) {
            return false;
        }
        self.input(at, Input::Closed { conn });
        true
    }

    // ---- between them

    pub(super) fn pieces(&mut self, at: usize) -> bool {
        let pieces: Vec<_> = self.cores[at].relays.relay.pieces().collect();
        let busy = !pieces.is_empty();
        for (place, piece) in pieces {
            if let Some(to) = self.lives_at(place) {
                self.relayed.push_back((at, to, piece));
            }
        }
        busy
    }

    pub(super) fn piece_came(&mut self, from: usize, at: usize, piece: &[u8]) {
        let place = self.cores[from].place;
        for message in messages(piece) {
            let Core { relays, lives, .. } = &mut self.cores[at];
            if !*lives {
                return;
            }
            if let Some(event) = relays.relay.take(place, message.unwrap()) {
                self.relayed_event(at, place, event);
            }
        }
    }

    fn relayed_event(&mut self, at: usize, from: Place, event: Event<'_, usize>) {
        match event {
            Event::Open { remote, image } => {
                let Core { shard, fx, relays, .. } = &mut self.cores[at];
                let conn = shard.adopt_image(self.now, image, fx).unwrap();
                shard.fronted_by(conn, remote.place);
                relays.relay.accept(remote, conn.0);
            }
            Event::MayRead(front) => {
                if let Some(client) = self.cores[at].relays.relay.socket(front) {
                    self.send_on(client);
                }
            }
            Event::Refused(_, Refusal::Full | Refusal::Stopping | Refusal::Image) => {
                panic!("a connection is refused")
            }
            Event::Input { conn, bytes } => {
                self.input(at, Input::Bytes { conn: ConnId(conn), bytes });
                self.consumed(at, conn);
            }
            Event::Sent { conn, number, at: when, bytes } => {
                self.input(at, Input::Told { conn: ConnId(conn), number, at: when, bytes });
                self.consumed(at, conn);
            }
            Event::FrontChanged(conn, sends) => {
                self.input(at, Input::FrontChanged { conn: ConnId(conn), sends });
            }
            Event::Leave(id, leave) => {
                let Core { shard, relays, .. } = &mut self.cores[at];
                let client = relays.relay.socket(id).unwrap();
                if shard.front_begins(self.now, from, &leave) {
                    relays.sending.push((leave.token, id, client));
                    relays.relay.sends(id, self.now.wall);
                    self.sockets[client].front.as_mut().unwrap().sends = Some(leave.token);
                } else {
                    relays.relay.sends_not(id);
                }
            }
            Event::NoLeave(id) => {
                let client = self.cores[at].relays.relay.socket(id).unwrap();
                if let Some(token) = self.sockets[client].front.and_then(|front| front.sends) {
                    self.cores[at].shard.front_stops(token);
                }
            }
            Event::Output { front, bytes, said } => {
                let Core { relays, .. } = &mut self.cores[at];
                let Some(client) = relays.relay.socket(front) else { return };
                self.sockets[client].inbox.extend_from_slice(bytes);
                self.cores[at].relays.relay.took(front, bytes.len());
                if said.closing {
                    self.front_cut(client);
                } else if self.sockets[client].answers_pings {
                    self.answer_pings(client);
                }
            }
            Event::MayWrite(conn) => {
                self.flush_owned(at, ConnId(conn));
            }
            Event::Closed(conn) => self.input(at, Input::Closed { conn: ConnId(conn) }),
            Event::Stop(_) => {}
            Event::Aborted(client) => self.end_front(client),
            Event::Gap => panic!("a gap"),
        }
    }

    fn consumed(&mut self, at: usize, conn: corefire::base::ids::Id) {
        let Core { shard, relays, .. } = &mut self.cores[at];
        relays.relay.consumed(conn, shard.is_reading(ConnId(conn)));
    }

    pub(super) fn read_again(&mut self, at: usize, conn: ConnId) {
        self.cores[at].relays.relay.consumed(conn.0, true);
    }
}
