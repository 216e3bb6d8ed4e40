//! The node of a world: its start and its crashes, the turns of its cores, its rings and its store.

use super::*;

impl World {
    pub(super) fn boot(&mut self) {
        self.boot += 1;
        self.up = true;
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
            ..ShardConfig::new(policy, self.plan.limits.clone())
        });
        self.storage = Some(storage);
        let shards = self.plan.shards;
        let placement = Arc::new(Placement::single(shards));
        let now = self.clock();
        self.cores = (0..shards)
            .map(|shard| Core {
                shard: Shard::new(
                    ShardId(shard),
                    config.clone(),
                    placement.clone(),
                    features::all(),
                    Rng::from_u64(self.seed ^ u64::from(self.boot) << 32 ^ u64::from(shard) << 8),
                    now,
                ),
                fx: Effects::new(shards),
                inputs: VecDeque::new(),
                planned: false,
                tick_at: u64::MAX,
                conns: HashMap::new(),
                reply_at: 0,
                stuffed: false,
            })
            .collect();
        let row = || (0..shards).map(|_| Ring::default()).collect();
        self.rings = (0..shards).map(|_| row()).collect();
    }

    /// The memory of all shards is gone, and what was not committed.
    pub(super) fn crash(&mut self) {
        if !self.up {
            return;
        }
        self.counts.crashes += 1;
        self.up = false;
        self.boot += 1;
        self.check_faults();
        for core in &self.cores {
            self.counts.paused += core.shard.probe().reads_paused;
            self.counts.slow += core.shard.probe().slow_readers_closed;
        }
        let kept = self.chance.percent(50);
        if let Some(storage) = self.storage.take() {
            self.counts.commits += storage.commits;
            storage.crash(kept);
        }
        self.cores.clear();
        for account in &mut self.model.accounts {
            account.disturbed_at = self.now;
        }
        for link in 0..self.links.len() {
            if self.links[link].gone {
                continue;
            }
            self.links[link].gone = true;
            self.links[link].conn = None;
            if self.chance.percent(50) {
                self.client_lost(LinkId(link));
            } else {
                let at = self.links[link].down_at + self.chance.below(1000);
                self.plan_at(at, Event::DownEnd(LinkId(link)));
            }
        }
        let delay = self.chance.delay(2 * SECOND) + 1;
        self.plan_in(delay, Event::Boot);
    }

    pub(super) fn check_faults(&mut self) {
        let faults: u64 = self.cores.iter().map(|core| core.shard.probe().faults).sum();
        if faults > 0 {
            self.model.fail(|| format!("{faults} faults were contained"));
        }
    }

    pub(super) fn give(&mut self, core: usize, given: Given) {
        let delay = self.chance.delay(3_000);
        let slot = &mut self.cores[core];
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
        let now = self.clock();
        for _ in 0..count {
            let Some(given) = self.cores[core].inputs.pop_front() else { break };
            self.hand_over(core, given, now);
        }
        let slot = &mut self.cores[core];
        slot.shard.end_turn(now, &mut slot.fx);
        if slot.shard.probe().faults > 0 {
            self.check_faults();
        }
        self.carry_out(core);
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
                    eprintln!("{} core {core} {} frames from {}", self.now, batch.frames(), from.0);
                }
                shard.handle(
                    now,
                    Input::Frames { from: from.into(), sent: now.mono, batch: &batch },
                    fx,
                );
                self.note(2, u64::from(from.0), batch.as_bytes());
            }
            Given::Handled(by, received, handled) => {
                shard.handle(now, Input::Handled { by: by.into(), received, handled }, fx);
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
        if let Some(storage) = &mut self.storage {
            for (ticket, write) in writes {
                if self.log {
                    eprintln!("{} core {core} {ticket:?} {}", self.now, show(&write));
                }
                storage.push(core, ticket, write);
            }
        }
        self.start_commit();
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
        for (to, received, handled) in news {
            self.rings[core][usize::from(to.0)].news = Some((received, handled));
        }
        self.ship_news(core);
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
                let slot = &mut self.cores[core];
                slot.conns.remove(&conn);
                let Some(moved) = slot.shard.extract(conn) else {
                    return self.model.fail(|| "a connection to move is not there".to_owned());
                };
                self.counts.moves += 1;
                self.links[link.0].conn = None;
                let to = usize::from(to.shard.0);
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
        let ring = &mut self.rings[from][to];
        ring.cargo.push_back(cargo);
        ring.at = (ring.at + 1).max(self.now + delay);
        let at = ring.at;
        self.plan_at(at, Event::Ring(from, to));
    }

    /// Moves what waits in the outbox into rings that have room.
    pub(super) fn ship(&mut self, core: usize) {
        for to in 0..self.rings.len() {
            if self.cores[core].fx.outbox[to].is_empty() {
                continue;
            }
            if self.rings[core][to].cargo.len() >= self.plan.ring {
                self.cores[core].stuffed = true;
                continue;
            }
            let batch = std::mem::take(&mut self.cores[core].fx.outbox[to]);
            self.push_cargo(core, to, Cargo::Frames(batch));
        }
    }

    pub(super) fn ship_news(&mut self, core: usize) {
        for to in 0..self.rings.len() {
            if !self.cores[core].fx.outbox[to].is_empty() {
                continue;
            }
            if let Some((received, handled)) = self.rings[core][to].news.take() {
                self.push_cargo(core, to, Cargo::News(received, handled));
            }
        }
    }

    pub(super) fn ring_arrives(&mut self, from: usize, to: usize) {
        let Some(cargo) = self.rings[from][to].cargo.pop_front() else { return };
        let sender = ShardId(from as u16);
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
            if self.cores[from].fx.outbox.iter().all(Batch::is_empty) {
                self.cores[from].stuffed = false;
                self.give(from, Given::Relieved);
            }
        }
    }

    // ---- the store

    pub(super) fn start_commit(&mut self) {
        let Some(storage) = &mut self.storage else { return };
        if storage.start() {
            let delay = 200 + self.chance.delay(300_000);
            self.plan_in(delay, Event::Commit);
        }
    }

    pub(super) fn commit(&mut self) {
        let Some(storage) = &mut self.storage else { return };
        match storage.finish(&mut self.chance) {
            Commit::Again => {
                let delay = 1000 + self.chance.delay(300_000);
                self.plan_in(delay, Event::Commit);
            }
            Commit::Done(answers) => {
                for (core, ticket, outcome) in answers {
                    self.counts.failed += u64::from(matches!(outcome, StoreOutcome::Failed));
                    let delay = self.chance.delay(5_000);
                    let at = (self.now + delay).max(self.cores[core].reply_at + 1);
                    self.cores[core].reply_at = at;
                    self.plan_at(at, Event::Give(core, Given::Stored(ticket, outcome)));
                }
                self.start_commit();
            }
        }
    }
}
