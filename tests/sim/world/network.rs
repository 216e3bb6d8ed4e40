//! The network of a world: what is on its way between a client and its core, and what is lost of it.

use super::*;

impl World {
    pub(super) fn open_link(&mut self, peer: Peer) -> Option<LinkId> {
        let doors: Vec<usize> = (0..self.cores.len()).filter(|core| self.admits(*core)).collect();
        if doors.is_empty() {
            return None;
        }
        let shard = doors[self.chance.index(doors.len())];
        let now = self.clock_of(self.cores[shard].run);
        let ip = std::net::IpAddr::from([127, 0, 0, 1]);
        let conn = self.cores[shard].shard.accept(now, ip, None);
        let link = LinkId(self.links.len());
        self.cores[shard].conns.insert(conn, link);
        let window = [2_000, 20_000, 1 << 20][self.chance.index(3)];
        self.links.push(Link {
            peer,
            front: self.cores[shard].run,
            shard,
            conn: Some(conn),
            inbox: Vec::new(),
            up_at: 0,
            down_at: 0,
            down_bytes: 0,
            window,
            eof: false,
            closing: false,
            gone: false,
            deaf: false,
            lost_on_the_way: false,
            lost_at: None,
            securing: false,
            reading: false,
        });
        self.plan_tick(shard);
        Some(link)
    }

    /// The peer sends bytes, which arrive in pieces.
    pub(super) fn send_up(&mut self, link: LinkId, mut bytes: Vec<u8>) {
        while !bytes.is_empty() {
            let length = match self.chance.percent(70) {
                true => bytes.len(),
                false => self.chance.within(1, bytes.len() as u64) as usize,
            };
            let rest = bytes.split_off(length);
            let delay = self.chance.delay(self.plan.net);
            let slot = &mut self.links[link.0];
            slot.up_at = (slot.up_at + 1).max(self.now + delay);
            let at = slot.up_at;
            self.plan_at(at, Event::Up(link, bytes));
            bytes = rest;
        }
    }

    /// The runtime reads, if it should.
    pub(super) fn readable(&mut self, link: LinkId) {
        let slot = &self.links[link.0];
        let (Some(conn), core) = (slot.conn, slot.shard) else { return };
        if slot.gone || slot.securing || slot.reading || !self.cores[core].lives {
            return;
        }
        if !self.cores[core].shard.is_reading(conn) {
            return;
        }
        if slot.inbox.is_empty() {
            if slot.eof {
                self.lose(link);
            }
            return;
        }
        let length = match self.chance.percent(60) {
            true => slot.inbox.len(),
            false => self.chance.within(1, slot.inbox.len() as u64) as usize,
        };
        self.links[link.0].reading = true;
        let rest = self.links[link.0].inbox.split_off(length);
        let bytes = std::mem::replace(&mut self.links[link.0].inbox, rest);
        self.give(core, Given::Bytes(link, bytes));
    }

    pub(super) fn disturb(&mut self, link: LinkId) {
        self.links[link.0].lost_at.get_or_insert(self.now);
        if let Peer::Client(client) = self.links[link.0].peer {
            self.model.accounts[self.clients[client].account].disturbed_at = self.now;
            if self.client_links[client] == Some(link) {
                self.clients[client].lost_at.get_or_insert(self.now);
            }
        }
    }

    /// The server learns that the connection is gone.
    pub(super) fn lose(&mut self, link: LinkId) {
        let slot = &mut self.links[link.0];
        if slot.gone || slot.conn.is_some() && !self.cores[slot.shard].lives {
            return;
        }
        slot.gone = true;
        match slot.conn {
            Some(_) => {
                let core = slot.shard;
                self.give(core, Given::Closed(link));
            }
            None => slot.lost_on_the_way = true,
        }
    }

    pub(super) fn flush(&mut self, link: LinkId) {
        let slot = &self.links[link.0];
        let (Some(conn), core) = (slot.conn, slot.shard) else { return };
        if slot.gone || !self.cores[core].lives {
            return;
        }
        let Some(output) = self.cores[core].shard.output(conn) else { return };
        let room = slot.window.saturating_sub(slot.down_bytes);
        let most = output.bytes.len().min(room);
        let take = match self.chance.percent(80) {
            true => most,
            false => self.chance.below(most as u64 + 1) as usize,
        };
        let rest = output.bytes.len() - take;
        let mut bytes = output.bytes[..take].to_vec();
        self.note_refusals(core, conn);
        self.cores[core].shard.output_left(conn, take);
        self.links[link.0].down_bytes += take;
        while !bytes.is_empty() {
            let length = match self.chance.percent(70) {
                true => bytes.len(),
                false => self.chance.within(1, bytes.len() as u64) as usize,
            };
            let later = bytes.split_off(length);
            let mut delay = self.chance.delay(self.plan.net);
            if !self.quiet && self.plan.cuts > 0 && self.chance.per_mille(5) {
                // The client does not read for a while.
                delay += self.chance.below(10 * SECOND);
            }
            let slot = &mut self.links[link.0];
            slot.down_at = (slot.down_at + 1).max(self.now + delay);
            let at = slot.down_at;
            self.plan_at(at, Event::Down(link, bytes));
            bytes = later;
        }
        if rest == 0 && self.links[link.0].closing {
            let at = self.links[link.0].down_at + 1;
            self.plan_at(at, Event::DownEnd(link));
            self.lose(link);
        } else if rest > 0 && take < most {
            let delay = 1 + self.chance.delay(5_000);
            self.plan_in(delay, Event::Flush(link));
        }
    }

    /// Errors for messages that a stream carries: the sender is answered, though the stream may break.
    pub(super) fn note_refusals(&mut self, core: usize, conn: ConnId) {
        let Some(output) = self.cores[core].shard.output(conn) else { return };
        let Ok(text) = std::str::from_utf8(output.bytes) else { return };
        for piece in text.split("<message ").skip(1) {
            let tag = piece.split('>').next().unwrap_or_default();
            let tag = format!(" {tag}");
            if crate::client::attr(&tag, "type") == Some("error") {
                let id = crate::client::attr(&tag, "id").unwrap_or_default();
                let message = crate::client::number(id, 'm');
                if let Some(message) = message.and_then(|at| self.model.messages.get_mut(at)) {
                    message.refused = true;
                }
            }
        }
    }

    pub(super) fn heard(&mut self, link: LinkId, bytes: &[u8]) {
        let slot = &mut self.links[link.0];
        let was_full = slot.down_bytes >= slot.window;
        slot.down_bytes -= bytes.len();
        if was_full && !slot.gone {
            self.plan_in(1, Event::Flush(link));
        }
        if self.links[link.0].deaf {
            return;
        }
        self.note(3, link.0 as u64, bytes);
        match self.links[link.0].peer {
            Peer::Client(client) => {
                if self.log {
                    eprintln!("{} client {client} < {}", self.now, String::from_utf8_lossy(bytes));
                }
                let Self { model, chance, clients, .. } = self;
                let orders = clients[client].bytes(bytes, model, chance, self.now);
                // A client that reads late may read of a session whose stream has ended since: it waits from then on.
                if clients[client].lost_at.is_none() {
                    clients[client].lost_at = self.links[link.0].lost_at;
                }
                self.obey(client, orders);
            }
            Peer::Rogue(_) => {}
        }
    }

    pub(super) fn secure(&mut self, link: LinkId) {
        if self.links[link.0].gone || !self.links[link.0].securing {
            return;
        }
        self.links[link.0].securing = false;
        let core = self.links[link.0].shard;
        if !self.cores[core].lives {
            return;
        }
        self.give(core, Given::Secured(link));
        if let Peer::Client(client) = self.links[link.0].peer
            && self.client_links[client] == Some(link)
        {
            let orders = self.clients[client].secured();
            self.obey(client, orders);
        }
    }
}
