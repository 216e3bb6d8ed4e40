//! What must hold when a world has come to rest, and after one more fault.

use super::*;

impl World {
    pub(super) fn settle(&mut self) {
        self.quiet = true;
        self.calm_down();
        for client in 0..self.clients.len() {
            let orders = self.clients[client].settle();
            self.obey(client, orders);
        }
        for storage in self.runs.iter_mut().filter_map(|run| run.storage.as_mut()) {
            storage.faults = 0;
        }
        self.run_for(30 * SECOND);
        self.check_epochs();
        // All in all longer than a hostile client may be silent, and its session then waits to be resumed.
        let limits = &self.plan.limits;
        let silent = limits.silence + limits.silence / 2 + limits.resume;
        self.run_for((silent.as_micros() as u64).max(90 * SECOND) - 30 * SECOND);
        for client in 0..self.clients.len() {
            let mut orders = Orders::default();
            self.clients[client].ask(&mut orders);
            self.obey(client, orders);
        }
        self.run_for(10 * SECOND);
    }

    pub(super) fn check_settled(&mut self) {
        for client in &self.clients {
            let (index, phase) = (client.index, client.phase);
            if phase != Phase::Online {
                let session = client.session;
                self.model.fail(|| format!("client {index} is stuck in {phase:?} ({session:?})"));
            }
            let open = client.unacknowledged.len();
            if open > 0 {
                self.model.fail(|| format!("client {index} has {open} stanzas never acknowledged"));
            }
        }
        self.model.check_promises();
        if self.calm {
            self.model.check_nothing_lost();
        }
        let alive: Vec<Option<u32>> = self.clients.iter().map(|client| client.session).collect();
        if self.plan.cluster.is_none() && self.counts.crashes == 0 {
            let mut confirms = vec![true; self.plan.accounts];
            for client in self.clients.iter().filter(|client| !client.confirms()) {
                confirms[client.account] = false;
            }
            self.model.check_leftovers(&alive, &confirms);
        }
        self.model.check_answers(&alive);
        for account in 0..self.plan.accounts {
            let query = Query::Log { owner: address(account), after: 0, limit: 10 };
            let Ok(Answer::Log { entries, .. }) = self.disk.reader().read(&query) else { continue };
            if let Some(entry) = entries.first() {
                let text = String::from_utf8_lossy(&entry.stanza).into_owned();
                let rows = entries.len();
                self.model.fail(|| {
                    format!("R3: {rows} rows are left in the log of account {account}: {text}")
                });
            }
        }
        self.check_archives();
        let open: usize = self.living().map(|core| core.shard.open_stanzas()).sum();
        if open > 0 {
            self.model.fail(|| format!("{open} stanzas are open though all is settled"));
        }
    }

    /// R1, R2: what was acknowledged is in the archive of either side, and nothing is in one twice; pages of any size tell
    /// the same forward and back.
    fn check_archives(&mut self) {
        let mut reader = self.disk.reader();
        let mut archives = Vec::new();
        for account in 0..self.plan.accounts {
            let all = ArchiveQuery::all(address(account), u32::MAX);
            let whole = page(&mut reader, all.clone());
            let mut forward = Vec::new();
            let mut backward = Vec::new();
            while forward.len() < whole.len() {
                let after = forward.last().map_or(0, |entry: &LogEntry| entry.id);
                let next = ArchiveQuery { page: Page::After(after), max: 3, ..all.clone() };
                forward.extend(page(&mut reader, next));
                let before = backward.first().map_or(u64::MAX, |entry: &LogEntry| entry.id);
                let next = ArchiveQuery { page: Page::Before(before), max: 3, ..all.clone() };
                backward.splice(0..0, page(&mut reader, next));
            }
            if forward != whole || backward != whole {
                self.model.fail(|| format!("R2: pages of account {account} differ from the whole"));
            }
            let mut kept = BTreeSet::new();
            for entry in &whole {
                let Some(message) = marked(&entry.stanza) else { continue };
                if !kept.insert(message) && !self.model.may_be_twice(message) {
                    self.model.fail(|| format!("R2: m{message} is twice in archive {account}"));
                }
            }
            self.counts.archived += kept.len() as u64;
            archives.push(kept);
        }
        if !self.plan.archive {
            return;
        }
        for (index, message) in self.model.messages.iter().enumerate() {
            let sides = [self.clients[message.from].account, message.to];
            let has = sides.map(|account| archives[account].contains(&index));
            // A sender whose own row the store refused is told nothing: the recipient has the message.
            let may_lack = [self.counts.failed > 0, false];
            for side in 0..2 {
                if message.covered && !message.refused && !has[side] && !may_lack[side] {
                    let text =
                        format!("R1: m{index} was acknowledged and is not in {sides:?}[{side}]");
                    return self.model.fail(|| text);
                }
            }
        }
    }

    /// In quiet: the node crashes, or some clients are cut or leave. Ten seconds after all are back, and the sessions over
    /// that nobody resumed, everybody sees again who is there.
    pub(super) fn disturb_again(&mut self) {
        // Who loses its stream now and does not come back, is to be seen no more.
        let all = 0..self.clients.len();
        self.absent = all.filter(|_| self.chance.percent(30)).collect();
        if self.chance.percent(30) {
            self.crash_one();
        } else {
            for client in 0..self.clients.len() {
                match self.chance.below(4) {
                    0 => self.cut(client),
                    1 => self.hang_up(client),
                    _ => {}
                }
            }
        }
        let resume = self.plan.limits.resume.as_micros() as u64;
        // A cut is noticed, or a client away long enough for the server to notice, within this.
        self.run_for(resume + 10 * SECOND + 10 * SECOND);
        self.check_presence("a fault in quiet");
        self.absent.clear();
    }

    /// R8, against the rosters as they are kept.
    pub(super) fn check_presence(&mut self, after: &str) {
        let mut reader = self.disk.reader();
        let rosters: Vec<Vec<RosterItem>> = (0..self.plan.accounts)
            .map(|account| match reader.read(&Query::Account { owner: address(account) }) {
                Ok(Answer::Account(Some(record))) => record.roster,
                _ => Vec::new(),
            })
            .collect();
        let item = |of: usize, contact: usize| {
            let contact = address(contact);
            rosters[of].iter().find(|item| *item.jid.bare() == contact).map(|it| it.subscription)
        };
        let is_to = |it| matches!(it, Some(Subscription::To | Subscription::Both));
        let is_from = |it| matches!(it, Some(Subscription::From | Subscription::Both));
        let mut wrong = None;
        for viewer in self.clients.iter().filter(|client| client.phase == Phase::Online) {
            let of = viewer.account;
            for jid in &viewer.seen {
                let is_there = self.clients.iter().any(|client| {
                    let allowed = client.account == of || is_from(item(client.account, of));
                    client.phase == Phase::Online && client.jid() == *jid && allowed
                });
                // What a stranger's session sent directly nobody takes back for it when its node dies, unless the session
                // has a copy (README, "Not there yet"): who watches knows by its roster whom to ask for.
                let is_stranger = |contact: &usize| {
                    jid.starts_with(&format!("{}/", address(*contact)))
                        && *contact != of
                        && !is_to(item(of, *contact))
                };
                let users = self.plan.accounts + self.plan.rogues;
                let is_lost = self.model.death_at > 0 && (0..users).any(|it| is_stranger(&it));
                if !is_there && !is_lost {
                    wrong = Some(format!("client {} sees {jid}, who is not there", viewer.index));
                }
            }
            for other in self.clients.iter().filter(|client| client.phase == Phase::Online) {
                let shown = other.account == of
                    || is_to(item(of, other.account)) && is_from(item(other.account, of));
                if shown && !viewer.seen.contains(&other.jid()) {
                    wrong = Some(format!("client {} does not see {}", viewer.index, other.jid()));
                }
            }
        }
        self.counts.sights +=
            self.clients.iter().map(|client| client.seen.len() as u64).sum::<u64>();
        if let Some(wrong) = wrong {
            self.model.fail(|| format!("R8: after {after}, {wrong}"));
        }
    }

    /// All hang up: nothing may be left.
    pub(super) fn end(&mut self) {
        if self.model.failure.is_some() {
            return;
        }
        for client in 0..self.clients.len() {
            if self.chance.percent(50) {
                self.cut(client);
            } else {
                self.hang_up(client);
            }
        }
        self.events.retain(|_, event| !matches!(event, Event::Connect(_) | Event::Rogue(_)));
        for rogue in 0..self.plan.rogues {
            if let Some(link) = self.rogue_links[rogue] {
                self.plan_in(10, Event::UpEnd(link, false));
            }
        }
        self.run_for(120 * SECOND);
        let sum = |of: &dyn Fn(&Core) -> usize| self.living().map(of).sum::<usize>();
        let sessions = sum(&|core| core.shard.sessions());
        let conns = sum(&|core| core.shard.probe().connections as usize);
        let open = sum(&|core| core.shard.open_stanzas());
        let accounts = sum(&|core| core.shard.accounts());
        if sessions + conns + open > 0 || accounts > self.plan.accounts + self.plan.rogues + 20 {
            self.model.fail(|| {
                format!(
                    "left over: {sessions} sessions, {conns} connections, {open} stanzas, {accounts} accounts"
                )
            });
        }
    }
}

fn page(reader: &mut impl Reader, query: ArchiveQuery) -> Vec<LogEntry> {
    match reader.read(&Query::Archive(Box::new(query))) {
        Ok(Answer::Archive { entries, .. }) => entries,
        other => panic!("a page was asked for, not {other:?}"),
    }
}

/// The number of the message that a stanza is.
fn marked(stanza: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(stanza).ok()?;
    text.split_once("<body>m")?.1.split_once('<')?.0.parse().ok()
}
