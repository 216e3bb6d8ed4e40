//! A node of a world: its start and its crashes, the turns of its cores, its rings and its store.

use super::*;

impl World {
    pub(super) fn boot(&mut self, node: u32) {
        if self.is_up(node) {
            return;
        }
        if self.plan.cluster.is_some() && !self.may_start(node) {
            return self.plan_in(200_000, Event::Boot(node));
        }
        let run = self.runs.len();
        let storage = Storage::open(self.disk.clone(), self.plan.store_faults);
        let policy = C2sPolicy {
            tls_required: false,
            limits_before: XmlLimits { stanza_bytes_max: 10_000, ..XmlLimits::default() },
            limits: XmlLimits { stanza_bytes_max: 100_000, ..XmlLimits::default() },
            ..C2sPolicy::new(DOMAIN, features::stream_features(&features::Settings::default()))
        };
        let config = Arc::new(ShardConfig {
            scram_iterations: ITERATIONS_MIN,
            decoy_secret: [7; 32],
            incarnation: storage.incarnation,
            archive: self.plan.archive,
            node: NodeId(node),
            ..ShardConfig::new(policy, self.plan.limits.clone())
        });
        let shards = self.plan.shards;
        let first = self.cores.len();
        let id = Run { node: NodeId(node), incarnation: storage.incarnation };
        self.runs.push(cluster::NodeRun::new(id, first..first + usize::from(shards), storage));
        let placement = Arc::new(Placement::single(shards));
        let now = self.clock_of(run);
        let boot = 1 + 2 * run as u64;
        let seed = self.seed;
        let cores = (0..shards).map(|shard| Core {
            shard: Shard::new(
                ShardId(shard),
                config.clone(),
                placement.clone(),
                features::all(),
                Rng::from_u64(seed ^ boot << 32 ^ u64::from(shard) << 8),
                now,
            ),
            fx: Effects::new(shards),
            inputs: VecDeque::new(),
            planned: false,
            tick_at: u64::MAX,
            conns: HashMap::new(),
            reply_at: 0,
            stuffed: false,
            run,
            place: Place { run: id, shard: ShardId(shard) },
            lives: true,
            kept_back: VecDeque::new(),
        });
        self.cores.extend(cores);
        if self.plan.cluster.is_some() {
            self.started(run);
        }
    }

    /// The memory of all shards is gone, and what was not committed.
    pub(super) fn crash(&mut self, run: usize) {
        if !self.runs[run].lives {
            return;
        }
        if self.log {
            eprintln!("{} run {run} {:?} ends", self.now, self.runs[run].id);
        }
        self.counts.crashes += 1;
        self.model.crash_at = self.now;
        self.check_faults();
        let kept = self.chance.percent(50) && !self.is_fenced(run);
        let slot = &mut self.runs[run];
        slot.lives = false;
        if let Some(storage) = slot.storage.take() {
            self.counts.commits += storage.commits;
            storage.crash(kept);
        }
        let mut moving = Vec::new();
        for core in slot.cores.clone() {
            let core = &mut self.cores[core];
            core.lives = false;
            let inputs = core.inputs.drain(..).chain(core.kept_back.drain(..));
            moving.extend(inputs.filter_map(|given| match given {
                Given::AdoptImage(link, _) => Some(link),
                _ => None,
            }));
        }
        moving.into_iter().for_each(|link| self.lose_moving(link));
        for account in &mut self.model.accounts {
            account.disturbed_at = self.now;
        }
        self.crashed(run);
        for link in 0..self.links.len() {
            let state = &self.links[link];
            let is_owner = self.cores[state.shard].run == run;
            if state.gone || !is_owner && state.front != run {
                continue;
            }
            if !is_owner {
                // Its connection is on another node, which is told in time.
                let delay = self.chance.delay(SECOND);
                self.plan_in(delay, Event::UpEnd(LinkId(link), true));
            } else {
                self.links[link].gone = true;
                self.links[link].conn = None;
            }
            if self.chance.percent(50) {
                self.client_lost(LinkId(link));
            } else {
                let at = self.links[link].down_at + self.chance.below(1000);
                self.plan_at(at, Event::DownEnd(LinkId(link)));
            }
        }
        let node = self.runs[run].id.node.0;
        let delay = self.chance.delay(2 * SECOND) + 1 + self.pause();
        self.plan_in(delay, Event::Boot(node));
    }

    pub(super) fn check_faults(&mut self) {
        let faults: u64 = self.living().map(|core| core.shard.probe().faults).sum();
        if faults > 0 {
            self.model.fail(|| format!("{faults} faults were contained"));
        }
    }

    pub(super) fn give(&mut self, core: usize, given: Given) {
        let delay = self.chance.delay(3_000);
        let slot = &mut self.cores[core];
        if !slot.lives {
            return;
        }
        slot.inputs.push_back(given);
        if !slot.planned {
            slot.planned = true;
            self.plan_in(delay, Event::Run(core));
        }
    }

    /// One turn: some of the inputs, then the effects.
    pub(super) fn turn(&mut self, core: usize) {
        self.counts.turns += 1;
        self.cores[core].planned = false;
        let waiting = self.cores[core].inputs.len();
        let count = match self.chance.percent(80) {
            true => waiting,
            false => self.chance.within(1, waiting.max(1) as u64) as usize,
        };
        let now = self.clock_of(self.cores[core].run);
        for _ in 0..count {
            let Some(given) = self.cores[core].inputs.pop_front() else { break };
            if given.needs_lease(self.cores[core].place.run) {
                if !self.has_lease(core) {
                    self.cores[core].kept_back.push_back(given);
                    continue;
                }
                self.check_lease(core);
            }
            self.hand_over(core, given, now);
        }
        let slot = &mut self.cores[core];
        slot.shard.end_turn(now, &mut slot.fx);
        if slot.shard.probe().faults > 0 {
            self.check_faults();
        }
        self.carry_out(core);
        if self.plan.cluster.is_some() {
            self.look_at_settled(self.cores[core].run);
        }
        if !self.cores[core].inputs.is_empty() && !self.cores[core].planned {
            self.cores[core].planned = true;
            let delay = self.chance.delay(1_000);
            self.plan_in(delay, Event::Run(core));
        }
    }

    pub(super) fn hand_over(&mut self, core: usize, given: Given, now: Now) {
        let mut read_on = None;
        let slot = &mut self.cores[core];
        let (shard, fx) = (&mut slot.shard, &mut slot.fx);
        match given {
            Given::Bytes(link, bytes) => {
                let state = &mut self.links[link.0];
                state.reading = false;
                let Some(conn) = state.conn.filter(|_| state.shard == core) else {
                    // It moved meanwhile: a runtime would not have read it.
                    state.inbox.splice(..0, bytes);
                    return self.plan_in(1, Event::Readable(link));
                };
                if self.log {
                    let text = String::from_utf8_lossy(&bytes);
                    eprintln!("{} core {core} {:?} < {text}", self.now, self.links[link.0].peer);
                }
                shard.handle(now, Input::Bytes { conn, bytes: &bytes }, fx);
                self.note(1, link.0 as u64, &bytes);
                read_on = Some(link);
            }
            Given::Secured(link) => {
                let Some(conn) = self.links[link.0].conn else { return };
                let facts = TlsFacts::default();
                shard.handle(now, Input::Secured { conn, facts }, fx);
            }
            Given::Closed(link) => {
                let state = &mut self.links[link.0];
                if state.shard != core {
                    let core = state.shard;
                    return self.give(core, Given::Closed(link));
                }
                let Some(conn) = state.conn.take() else {
                    state.lost_on_the_way = true;
                    return;
                };
                slot.conns.remove(&conn);
                if self.log {
                    eprintln!("{} core {core} {:?} closed", self.now, self.links[link.0].peer);
                }
                shard.handle(now, Input::Closed { conn }, fx);
            }
            Given::Frames(from, batch) => {
                if self.log {
                    eprintln!("{} core {core} {} frames from {from:?}", self.now, batch.frames());
                    for envelope in batch.iter() {
                        let text = String::from_utf8_lossy(envelope.stanza);
                        let (kind, to) = (envelope.kind, envelope.to);
                        let (number, sub) = (envelope.number, envelope.subtype);
                        eprintln!("  {number} {kind:?} {sub} to {to}: {text:.240}");
                    }
                }
                for envelope in batch.iter().filter(|_| self.plan.cluster.is_some()) {
                    let message = refused(envelope.stanza);
                    let message = message.and_then(|at| self.model.messages.get_mut(at));
                    if let Some(message) = message {
                        message.refused = true;
                    }
                }
                let Some(peer) = shard.peer(from, fx) else { return };
                let input = Input::Frames { from: peer, sent: now.mono, batch: &batch };
                shard.handle(now, input, fx);
                self.note(2, u64::from(from.shard.0), batch.as_bytes());
            }
            Given::Handled(by, received, handled) => {
                if self.log {
                    eprintln!(
                        "{} core {core} handled {handled} received {received} by {by:?}",
                        self.now
                    );
                }
                let Some(by) = shard.peer(by, fx) else { return };
                shard.handle(now, Input::Handled { by, received, handled }, fx);
            }
            Given::Linked(run) => shard.handle(now, Input::Linked(run), fx),
            Given::Placed(view) => {
                if self.log {
                    let members: Vec<_> =
                        view.placement.members().iter().map(|it| (it.node.0, it.weight)).collect();
                    eprintln!("{} core {core} epoch {} {members:?}", self.now, view.epoch());
                }
                shard.handle(now, Input::Placed(view.clone()), fx);
                self.told(core, view.epoch());
            }
            Given::Relieved => shard.handle(now, Input::Relieved, fx),
            Given::Stored(ticket, outcome) => {
                if self.log {
                    let text = format!("{outcome:?}");
                    eprintln!("{} core {core} {ticket:?} {:.100}", self.now, text);
                }
                shard.handle(now, Input::Stored { ticket, outcome }, fx);
            }
            Given::Password(conn, verdict) => {
                shard.handle(now, Input::PasswordChecked { conn, verdict }, fx);
            }
            Given::Administered(ticket, outcome) => {
                shard.handle(now, Input::Administered { ticket, outcome }, fx);
            }
            Given::AccountChanged(jid) => shard.handle(now, Input::AccountChanged(jid), fx),
            Given::Tick => shard.handle(now, Input::Tick, fx),
            Given::Adopt(link, moved) => {
                let conn = shard.adopt(now, *moved, fx);
                slot.conns.insert(conn, link);
                self.links[link.0].conn = Some(conn);
                self.links[link.0].shard = core;
                if self.links[link.0].lost_on_the_way {
                    self.give(core, Given::Closed(link));
                } else {
                    read_on = Some(link);
                }
            }
            Given::AdoptImage(link, image) => {
                let conn = match shard.adopt_image(now, &image, fx) {
                    Ok(conn) => conn,
                    Err(error) => return self.model.fail(|| format!("an image: {error}")),
                };
                slot.conns.insert(conn, link);
                self.links[link.0].conn = Some(conn);
                self.links[link.0].shard = core;
                // The node of its socket may have died meanwhile.
                if self.links[link.0].lost_on_the_way || self.links[link.0].gone {
                    self.give(core, Given::Closed(link));
                } else {
                    read_on = Some(link);
                }
            }
        }
        if let Some(link) = read_on {
            let delay = self.chance.delay(1000);
            self.plan_in(delay, Event::Readable(link));
        }
    }

    pub(super) fn carry_out(&mut self, core: usize) {
        let actions = std::mem::take(&mut self.cores[core].fx.actions);
        for action in actions {
            self.action(core, action);
        }
        let dirty = std::mem::take(&mut self.cores[core].fx.dirty);
        for conn in dirty {
            if let Some(&link) = self.cores[core].conns.get(&conn) {
                self.flush(link);
            }
        }
        let writes = std::mem::take(&mut self.cores[core].fx.writes);
        self.check_owners(core, &writes);
        let run = self.cores[core].run;
        if let Some(storage) = &mut self.runs[run].storage {
            for (ticket, write) in writes {
                if self.log {
                    eprintln!("{} core {core} {ticket:?} {}", self.now, show(&write));
                }
                storage.push(core, ticket, write);
            }
        }
        self.start_commit(run);
        let queries = std::mem::take(&mut self.cores[core].fx.queries);
        for (ticket, query) in queries {
            if self.log {
                eprintln!("{} core {core} {ticket:?} query {query:?}", self.now);
            }
            let delay = self.chance.delay(20_000);
            self.plan_in(delay, Event::Read(core, ticket, query));
        }
        self.ship(core);
        let news: Vec<_> = self.cores[core].shard.ring_news().collect();
        let mut remote = Vec::new();
        for (to, received, handled) in news {
            if to.0 < self.plan.shards {
                let to = self.runs[run].cores.start + usize::from(to.0);
                self.rings.entry((core, to)).or_default().news = Some((received, handled));
            } else {
                remote.push((to, (received, handled)));
            }
        }
        self.ship_news(core);
        self.ship_far(core, remote);
        self.plan_tick(core);
    }

    pub(super) fn plan_tick(&mut self, core: usize) {
        let Some(due) = self.cores[core].shard.next_due() else { return };
        let at = (due.0.div_ceil(1000)).saturating_sub(1_000_000_000).max(self.now);
        if at < self.cores[core].tick_at {
            self.cores[core].tick_at = at;
            self.plan_at(at, Event::Tick(core));
        }
    }

    pub(super) fn action(&mut self, core: usize, action: Action) {
        let link_of = |conn: &ConnId| self.cores[core].conns.get(conn).copied();
        match action {
            Action::StartTls(conn) => {
                let Some(link) = link_of(&conn) else { return };
                self.links[link.0].securing = true;
            }
            Action::Move { conn, to } => {
                let Some(link) = link_of(&conn) else { return };
                if to.node != self.cores[core].place.run.node {
                    return self.move_far(core, conn, link, to);
                }
                let slot = &mut self.cores[core];
                slot.conns.remove(&conn);
                let Some(moved) = slot.shard.extract(conn) else {
                    return self.model.fail(|| "a connection to move is not there".to_owned());
                };
                self.counts.moves += 1;
                self.links[link.0].conn = None;
                let to = self.runs[self.cores[core].run].cores.start + usize::from(to.shard.0);
                self.push_cargo(core, to, Cargo::Conn(link, Box::new(moved)));
            }
            Action::Close(conn) => {
                let Some(link) = link_of(&conn) else { return };
                self.links[link.0].closing = true;
                self.disturb(link);
                self.flush(link);
            }
            Action::Abort(conn) => {
                let Some(link) = link_of(&conn) else { return };
                let at = self.links[link.0].down_at;
                self.plan_at(at, Event::DownEnd(link));
                self.disturb(link);
                self.lose(link);
            }
            // Sockets are with their connections.
            Action::GiveLeave { .. } | Action::TakeLeaveBack(_) | Action::FrontGoesOn(_) => {}
            Action::ReadAgain(conn) => {
                let Some(link) = link_of(&conn) else { return };
                let delay = self.chance.delay(1000);
                self.plan_in(delay, Event::Readable(link));
            }
            Action::CheckPassword(check) => {
                let PasswordCheck { conn, password, keys, known, .. } = check;
                let busy = !self.quiet && self.plan.cuts > 0 && self.chance.percent(2);
                let right = known && password == PASSWORD && keys.salt == SALT;
                let verdict = (!busy).then_some(right);
                let delay = self.chance.delay(50_000);
                self.plan_in(delay, Event::Give(core, Given::Password(conn, verdict)));
            }
            Action::Administer { ticket, .. } => {
                // Accounts change by the plan alone: whoever asks finds the side threads busy, after a while.
                let delay = self.chance.delay(50_000);
                let given = Given::Administered(ticket, Outcome::Busy);
                self.plan_in(delay, Event::Give(core, given));
            }
        }
    }

    // ---- rings

    pub(super) fn push_cargo(&mut self, from: usize, to: usize, cargo: Cargo) {
        let delay = self.chance.delay(5_000);
        let ring = self.rings.entry((from, to)).or_default();
        ring.cargo.push_back(cargo);
        ring.at = (ring.at + 1).max(self.now + delay);
        let at = ring.at;
        self.plan_at(at, Event::Ring(from, to));
    }

    /// Moves what waits in the outbox into rings that have room.
    pub(super) fn ship(&mut self, core: usize) {
        for (at, to) in self.runs[self.cores[core].run].cores.clone().enumerate() {
            if self.cores[core].fx.outbox[at].is_empty() {
                continue;
            }
            if self.rings.entry((core, to)).or_default().cargo.len() >= self.plan.ring {
                self.cores[core].stuffed = true;
                continue;
            }
            let batch = std::mem::take(&mut self.cores[core].fx.outbox[at]);
            self.push_cargo(core, to, Cargo::Frames(batch));
        }
    }

    pub(super) fn ship_news(&mut self, core: usize) {
        for (at, to) in self.runs[self.cores[core].run].cores.clone().enumerate() {
            if !self.cores[core].fx.outbox[at].is_empty() {
                continue;
            }
            let news = self.rings.get_mut(&(core, to)).and_then(|ring| ring.news.take());
            if let Some((received, handled)) = news {
                self.push_cargo(core, to, Cargo::News(received, handled));
            }
        }
    }

    pub(super) fn ring_arrives(&mut self, from: usize, to: usize) {
        let cargo = self.rings.get_mut(&(from, to)).and_then(|ring| ring.cargo.pop_front());
        let Some(cargo) = cargo else { return };
        let sender = self.cores[from].place;
        match cargo {
            Cargo::Frames(batch) => self.give(to, Given::Frames(sender, batch)),
            Cargo::News(received, handled) => {
                self.give(to, Given::Handled(sender, received, handled));
            }
            Cargo::Conn(link, moved) => self.give(to, Given::Adopt(link, moved)),
        }
        if self.cores[from].stuffed {
            self.ship(from);
            self.ship_news(from);
            let shards = usize::from(self.plan.shards);
            if self.cores[from].fx.outbox.iter().take(shards).all(Batch::is_empty) {
                self.cores[from].stuffed = false;
                self.give(from, Given::Relieved);
            }
        }
    }

    // ---- the store

    pub(super) fn start_commit(&mut self, run: usize) {
        let Some(storage) = &mut self.runs[run].storage else { return };
        if storage.start() {
            let delay = 200 + self.chance.delay(300_000);
            self.plan_in(delay, Event::Commit(run));
        }
    }

    pub(super) fn commit(&mut self, run: usize) {
        if self.is_fenced(run) {
            return self.crash(run);
        }
        let Some(storage) = &mut self.runs[run].storage else { return };
        match storage.finish(&mut self.chance) {
            Commit::Again => {
                let delay = 1000 + self.chance.delay(300_000);
                self.plan_in(delay, Event::Commit(run));
            }
            Commit::Done(answers, given_up) => {
                for message in given_up.iter().filter_map(received) {
                    self.model.refuse(message, run);
                }
                for (core, ticket, outcome) in answers {
                    self.counts.failed += u64::from(matches!(outcome, StoreOutcome::Failed));
                    let delay = self.chance.delay(5_000);
                    let at = (self.now + delay).max(self.cores[core].reply_at + 1);
                    self.cores[core].reply_at = at;
                    self.plan_at(at, Event::Give(core, Given::Stored(ticket, outcome)));
                }
                self.start_commit(run);
            }
        }
    }
}

/// The number of the message that an error answers.
pub(super) fn refused(stanza: &[u8]) -> Option<usize> {
    let tag = std::str::from_utf8(stanza).ok()?.split('>').next()?;
    let is_refusal = tag.starts_with("<message") && tag.contains(" type='error'");
    crate::client::number(crate::client::attr(tag, "id").filter(|_| is_refusal)?, 'm')
}

/// The number of the message whose row for its recipient that is.
fn received(write: &Write) -> Option<usize> {
    let Write::AppendLog { owner, entry } = write else { return None };
    let tag = std::str::from_utf8(&entry.stanza).ok()?.split('>').next()?;
    let to = crate::client::attr(tag, "to")?.split('/').next()?;
    crate::client::number(crate::client::attr(tag, "id").filter(|_| to == owner.as_str())?, 'm')
}
