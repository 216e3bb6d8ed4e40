//! The clients of a world, and those who try to break it: they come, act and go.

use super::*;

impl World {
    pub(super) fn connect(&mut self, client: usize) {
        if self.client_links[client].is_some() || self.absent.contains(&client) {
            return;
        }
        let Some(link) = self.open_link(Peer::Client(client)) else {
            let delay = 100_000 + self.chance.delay(SECOND);
            return self.plan_in(delay, Event::Connect(client));
        };
        self.client_links[client] = Some(link);
        let Self { model, chance, clients, .. } = self;
        let orders = clients[client].connected(model, chance, self.now);
        self.obey(client, orders);
    }

    pub(super) fn obey(&mut self, client: usize, orders: Orders) {
        let Orders { send, later, hang_up, online, secure } = orders;
        if let Some(link) = self.client_links[client] {
            self.send_up(link, send);
            if secure {
                let delay = self.chance.delay(self.plan.net);
                self.plan_in(delay, Event::Secure(link));
            }
        }
        for (delay, later) in later {
            self.plan_in(delay, Event::Later(client, later));
        }
        if online && !self.quiet {
            let session = self.clients[client].session.unwrap_or(0);
            let delay = self.chance.delay(self.plan.pause);
            self.plan_in(delay, Event::Act(client, session));
        }
        if hang_up {
            self.hang_up(client);
        }
    }

    /// The client closes its end; what it sent before still arrives.
    pub(super) fn hang_up(&mut self, client: usize) {
        let Some(link) = self.client_links[client] else { return };
        self.leave(client, link);
        let slot = &mut self.links[link.0];
        slot.up_at += 1;
        let at = slot.up_at.max(self.now);
        self.plan_at(at, Event::UpEnd(link, false));
    }

    /// The network fails: what is under way is lost or not, and the server learns of it late.
    pub(super) fn cut(&mut self, client: usize) {
        let Some(link) = self.client_links[client] else { return };
        self.counts.cuts += 1;
        self.leave(client, link);
        let slot = &mut self.links[link.0];
        slot.deaf = true;
        let reset = self.chance.percent(50);
        let delay = self.chance.delay(3 * SECOND);
        let slot = &mut self.links[link.0];
        let at = if reset { self.now + delay } else { slot.up_at.max(self.now + delay) };
        self.plan_at(at, Event::UpEnd(link, reset));
    }

    /// The client is away from now on, and comes back.
    pub(super) fn leave(&mut self, client: usize, link: LinkId) {
        self.links[link.0].deaf = true;
        self.client_links[client] = None;
        self.clients[client].lost_at.get_or_insert(self.now);
        self.clients[client].disconnected();
        let account = self.clients[client].account;
        self.model.accounts[account].disturbed_at = self.now;
        let away = match self.quiet {
            true => 100_000,
            false => self.chance.delay(15 * SECOND),
        };
        self.plan_in(away, Event::Connect(client));
    }

    /// The server's end is closed, and all that it sent is read.
    pub(super) fn client_lost(&mut self, link: LinkId) {
        if self.links[link.0].deaf {
            return;
        }
        self.links[link.0].deaf = true;
        if let Peer::Client(client) = self.links[link.0].peer
            && self.client_links[client] == Some(link)
        {
            self.leave(client, link);
            if !self.links[link.0].gone {
                self.plan_in(1000, Event::UpEnd(link, false));
            }
        }
    }

    pub(super) fn act(&mut self, client: usize, session: u32) {
        let slot = &self.clients[client];
        let enough = self.model.messages.len() > 1_500;
        if self.quiet || enough || slot.phase != Phase::Online || slot.session != Some(session) {
            return;
        }
        let mut orders = Orders::default();
        let Self { model, chance, clients, .. } = self;
        let (slot, now) = (&mut clients[client], self.now);
        match chance.below(100) {
            0..55 => slot.chat(&mut orders, model, chance, now),
            55..62 => (0..chance.within(2, 40)).for_each(|_| {
                slot.chat(&mut orders, model, chance, now);
            }),
            62..78 => slot.request(&mut orders, model, chance, now),
            78..88 => slot.ask(&mut orders),
            88..94 => slot.social(&mut orders, model, chance, now),
            94 if self.plan.cuts > 0 => {
                // It ends its session in order.
                orders.send.extend_from_slice(b"</stream:stream>");
                self.obey(client, orders);
                self.hang_up(client);
                self.clients[client].forget();
                return;
            }
            _ => orders.send.push(b' '),
        }
        self.obey(client, orders);
        if self.chance.per_mille(self.plan.cuts) {
            return self.cut(client);
        }
        if self.plan.cuts > 0 && self.chance.per_mille(2) {
            // An operator changed something.
            let account = address(self.clients[client].account);
            for core in 0..self.cores.len() {
                if self.cores[core].lives {
                    self.give(core, Given::AccountChanged(account.clone()));
                }
            }
        }
        let delay = self.chance.delay(self.plan.pause);
        self.plan_in(delay, Event::Act(client, session));
    }

    /// A hostile peer: says something, comes back when it is thrown out.
    pub(super) fn rogue(&mut self, rogue: usize) {
        if self.quiet {
            return;
        }
        let alive = self.rogue_links[rogue].filter(|link| {
            let link = &self.links[link.0];
            !link.gone && !link.eof && self.cores[link.shard].lives
        });
        let user = self.plan.accounts + rogue;
        match alive {
            None => {
                if let Some(link) = self.open_link(Peer::Rogue(rogue)) {
                    self.rogue_links[rogue] = Some(link);
                    let bytes = rogue::opening(user, &mut self.chance);
                    self.send_up(link, bytes);
                }
            }
            Some(link) => {
                let victim = match self.clients.len() {
                    0 => String::new(),
                    count => self.clients[self.chance.index(count)].full_jid(),
                };
                let bytes = rogue::nuisance(&victim, &mut self.chance);
                self.send_up(link, bytes);
                if self.chance.percent(3) {
                    self.plan_in(0, Event::UpEnd(link, true));
                }
            }
        }
        let delay = self.chance.delay(SECOND);
        self.plan_in(delay, Event::Rogue(rogue));
    }
}
