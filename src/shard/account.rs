//! Accounts in memory: Loading, Ready or known not to exist. Absent ones are simply not in the table.
//!
//! While an account loads (or replays its offline messages, or waits for ids) its stanzas queue in order; the queue is
//! bounded. Idle accounts are evicted.

use super::attempts::NETWORKS_SLOT;
use super::contacts::Contacts;
use super::effect::{ConnId, Effects, Ticket};
use super::post::Post;
use super::rate::Traffic;
use super::retry::Question;
use super::ring::FrameRef;
use super::session::SessionId;
use super::{Core, Waiting};
use crate::base::hash::Set;
use crate::base::ids::Id;
use crate::base::instant::Instant;
use crate::base::instant::Wall;
use crate::base::limit::Meter;
use crate::base::network::Network;
use crate::cluster::placement::store_partition;
use crate::frame::{Envelope, Flags};
use crate::store::{AccountRecord, LogEntry, Origin, Query, Write};
use crate::xmpp::credentials::PackedCredentials;
use crate::xmpp::jid::BareJid;
use std::any::Any;
use std::collections::VecDeque;
use std::time::Duration;

/// How long an account that nobody uses stays in memory.
pub(super) const IDLE: Duration = Duration::from_secs(60);
/// Ids taken from the store at a time, and the rest at which the next block is asked for.
const ID_BLOCK: u32 = 4_096;
const ID_LOW: u64 = 1_024;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AccountId(pub Id);

/// Why an account's stanzas must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Busy {
    No,
    Loading,
    /// No id is left to log with; the next block is on its way.
    Ids,
    /// Offline messages go out first.
    Replay,
    /// It is not known yet whether a message of it is there already.
    Retry,
    /// It is another shard's now.
    Leaving,
}

/// What is known of an account.
#[derive(Debug)]
pub(super) enum State {
    Loading,
    /// There is no such account, as far as the store said a short while ago.
    Unknown,
    Ready(Box<Data>),
}

/// An account that is loaded.
#[derive(Debug)]
pub struct Data {
    pub credentials: PackedCredentials,
    pub disabled: bool,
    pub roster: Contacts,
    pub roster_version: u64,
    /// Those that it was logged in to from before.
    pub(super) networks: Box<[Network]>,
    /// State of features, by its type; what the store had for it waits in `stored` until it is asked for.
    slots: Vec<Box<dyn Any>>,
    stored: Vec<(String, Vec<u8>)>,
    /// Rows of the log that wait to be confirmed.
    pub log_rows: u32,
    /// No row of the archive is newer than this.
    pub(super) archived_at: Wall,
    /// Some of them are with no session: the next session that can take messages gets them.
    pub replay_due: bool,
}

/// State that a feature keeps with an account. The shard loads, evicts and drops it with the account.
pub trait Slot: Any + Sized {
    /// Its name in the store.
    const NAME: &'static str;

    /// From what `PutSlot` kept; `None` where there is nothing.
    fn load(stored: Option<&[u8]>) -> Self;
}

impl Data {
    pub fn new(record: AccountRecord) -> Self {
        let mut stored = record.slots;
        let networks = stored.iter().position(|(name, _)| name == NETWORKS_SLOT);
        let networks = networks.map(|place| stored.swap_remove(place).1).unwrap_or_default();
        let mut data = Self {
            networks: Self::read_networks(&networks),
            credentials: (&record.credentials).into(),
            disabled: record.disabled,
            roster: Contacts::new(&record.roster),
            roster_version: record.roster_version,
            slots: Vec::new(),
            stored,
            log_rows: record.log_rows,
            archived_at: record.archived_at,
            replay_due: record.log_rows > 0,
        };
        data.begin_archive();
        data
    }

    /// The slot of a feature, if there is anything in it: costs nothing for accounts that do not use the feature.
    pub fn slot_in_use<S: Slot>(&mut self) -> Option<&mut S> {
        let is_used = self.slots.iter().any(|slot| slot.is::<S>())
            || self.stored.iter().any(|(name, _)| name == S::NAME);
        is_used.then(|| self.slot())
    }

    /// The slot of a feature, made from the stored value at its first use.
    pub fn slot<S: Slot>(&mut self) -> &mut S {
        let place = match self.slots.iter().position(|slot| slot.is::<S>()) {
            Some(place) => place,
            None => {
                let stored = self.stored.iter().position(|(name, _)| name == S::NAME);
                let stored = stored.map(|place| self.stored.swap_remove(place).1);
                self.slots.push(Box::new(S::load(stored.as_deref())));
                self.slots.len() - 1
            }
        };
        let slot = self.slots[place].downcast_mut::<S>();
        slot.expect("a slot has the type by which it was found")
    }
}

/// Offline messages on their way to a session.
#[derive(Debug)]
pub(super) struct Replay {
    pub session: SessionId,
    /// The last id that was read.
    pub after: u64,
    /// A page is on its way from the store, as the answer to this.
    pub asked: Option<Ticket>,
    /// A timer runs, after which it is tried whether the next page can be read and sent.
    pub timer: bool,
    /// Rows behind that which were confirmed since: a page may have them all the same.
    pub confirmed: Vec<u64>,
    /// Messages that it came past, where an owner that died may have kept one which the next kept again.
    pub passed: Set<Origin>,
}

/// One account. Lives at its owner.
#[derive(Debug)]
pub(super) struct Account {
    pub jid: BareJid,
    pub state: State,
    pub busy: Busy,
    pub waiting: VecDeque<Queued>,
    /// Connections whose next element needs the account.
    pub logins: Vec<ConnId>,
    pub sessions: Vec<SessionId>,
    pub replay: Option<Replay>,
    pub used_at: Instant,
    timer: bool,
    /// The query whose answer is waited for; an older one's is out of date.
    pub load: Option<Ticket>,
    /// Writes of this account that are on their way. What is read before they are done is not what is so.
    pub changing: u32,
    /// Waits for some of them.
    pub question: Option<Box<Question>>,
    /// A node was gone before its roster was read: what its sessions see of its contacts may be out of date.
    pub is_unsure: bool,
    /// What its sessions have sent, and how many of them were new.
    pub traffic: Traffic,
    pub new_sessions: Meter,
}

impl Account {
    pub(super) fn data(&mut self) -> Option<&mut Data> {
        match &mut self.state {
            State::Ready(data) => Some(data),
            State::Loading | State::Unknown => None,
        }
    }

    fn is_idle(&self) -> bool {
        self.sessions.is_empty()
            && self.logins.is_empty()
            && self.waiting.is_empty()
            && self.busy == Busy::No
            && self.changing == 0
    }
}

/// A frame that waits for its account, copied out of its batch.
#[derive(Debug)]
pub(super) struct Queued {
    pub at: FrameRef,
    pub ingress: Wall,
    pub post: Post,
    /// Where it was sent first, if that is gone: it may be in the log already.
    pub retry: Option<Origin>,
    /// The row is not older than this, if it is there; `None`: than `ingress`.
    pub since: Option<Wall>,
    /// It is not in the log.
    pub is_new: bool,
    /// Cores that it crossed.
    pub hops: u8,
    /// By which it was sent first, as far as that is known.
    pub epoch: u64,
}

impl Queued {
    pub(super) fn new(envelope: &Envelope<'_>, to: &str, at: FrameRef) -> Self {
        Self {
            at,
            ingress: envelope.ingress,
            hops: envelope.hops,
            epoch: envelope.epoch,
            post: Post::of(envelope, to),
            retry: None,
            since: None,
            is_new: false,
        }
    }

    /// Its row is not older than this, if there is one.
    pub(super) fn row_since(&self) -> Wall {
        self.since.unwrap_or(self.ingress)
    }

    /// A session left it behind, so it is older than what came since.
    pub(super) fn is_left(&self) -> bool {
        self.post.flags.contains(Flags::LEFT)
    }

    /// - takes: the present epoch
    pub(super) fn envelope(&self, epoch: u64) -> Envelope<'_> {
        let epoch = self.epoch.min(epoch);
        Envelope {
            number: self.at.number,
            hops: self.hops,
            ..self.post.envelope(epoch, self.ingress)
        }
    }
}

/// Ids reserved for one store partition.
#[derive(Clone, Debug, Default)]
pub(super) struct IdBlock {
    next: u64,
    end: u64,
    following: Option<(u64, u64)>,
    asked: bool,
    waiting: Vec<AccountId>,
    /// Rows that nobody else waits for, with the tickets of their writes; in order.
    pub(super) rows: VecDeque<(Ticket, BareJid, LogEntry)>,
    /// Ids below it were given by others.
    floor: u64,
    /// The block that is on its way was asked for too early.
    is_stale: bool,
}

impl IdBlock {
    /// The last id that was given; `None` where none was since the start of the node.
    pub(super) fn last(&self) -> Option<u64> {
        self.next.checked_sub(1).filter(|last| *last > 0)
    }

    /// Forgets what lies below the floor. What others gave counts as given, if anything was.
    fn rise(&mut self) {
        if self.end > 0 {
            self.next = self.next.max(self.floor);
            self.end = self.end.max(self.next);
        }
        if self.following.is_some_and(|(next, _)| next < self.floor) {
            self.following = None;
        }
    }
}

impl Core {
    /// The account, in whatever state; loads it if it is absent. `None` where the table is full of busy accounts.
    pub(super) fn account(&mut self, jid: &BareJid, fx: &mut Effects) -> Option<AccountId> {
        if let Some(&id) = self.names.get(jid.as_str()) {
            if let Some(account) = self.accounts.get_mut(id.0) {
                account.used_at = self.now.mono;
            }
            return Some(id);
        }
        if self.names.len() >= self.config.limits.accounts && !self.evict_one() {
            return None;
        }
        let id = AccountId(self.accounts.insert(Account {
            jid: jid.clone(),
            state: State::Loading,
            busy: Busy::Loading,
            waiting: VecDeque::new(),
            logins: Vec::new(),
            sessions: Vec::new(),
            replay: None,
            used_at: self.now.mono,
            timer: false,
            load: None,
            changing: 0,
            question: None,
            is_unsure: false,
            traffic: Traffic::default(),
            new_sessions: Meter::default(),
        }));
        self.names.insert(jid.clone(), id);
        self.load(id, fx);
        Some(id)
    }

    /// All others have let go of the account: it is read.
    pub(super) fn load_held(&mut self, id: AccountId, fx: &mut Effects) {
        let is_held = |account: &Account| account.busy == Busy::Loading && account.load.is_none();
        if self.accounts.get(id.0).is_some_and(is_held) {
            self.load(id, fx);
        }
    }

    /// Reads the account, once owners have settled and all that was written to it is in the store: until then others may
    /// write to it, and give ids that are higher than ours.
    fn load(&mut self, id: AccountId, fx: &mut Effects) {
        let Some(account) = self.accounts.get_mut(id.0) else { return };
        if self.handover.holds(account.jid.hash64()) {
            account.load = None;
            self.handover.hold(id);
            return;
        }
        let ticket = self.ticket(Waiting::Account(id));
        let Some(account) = self.accounts.get_mut(id.0) else { return };
        if account.changing > 0 {
            account.load = None;
            self.tickets.remove(&ticket);
            return;
        }
        account.load = Some(ticket);
        fx.queries.push((ticket, Query::Account { owner: account.jid.clone() }));
    }

    /// A write of the account is on its way.
    pub(super) fn wrote(&mut self, id: AccountId) {
        if let Some(account) = self.accounts.get_mut(id.0) {
            account.changing += 1;
        }
    }

    /// A write of the account is done; a read may have waited for it. Gives whether it was the last.
    pub(super) fn written(&mut self, id: AccountId, fx: &mut Effects) -> bool {
        let Some(account) = self.accounts.get_mut(id.0) else { return false };
        account.changing = account.changing.saturating_sub(1);
        let last = account.changing == 0;
        if account.question.as_deref_mut().is_some_and(Question::is_due) {
            fx.queries.extend(account.question.take().map(|question| question.into_query()));
        }
        if last {
            self.load_held(id, fx);
        }
        last
    }

    /// Starts over with what the store has: after a fault, or when the account was changed from outside. Until that is
    /// here, what was known serves for one thing: sessions that end must be able to tell their contacts.
    pub(super) fn reload(&mut self, id: AccountId, fx: &mut Effects) {
        let Some(account) = self.accounts.get_mut(id.0) else { return };
        if account.busy == Busy::Leaving {
            return;
        }
        if account.busy == Busy::Retry {
            self.stop_asking(id);
        }
        let Some(account) = self.accounts.get_mut(id.0) else { return };
        account.busy = Busy::Loading;
        account.replay = None;
        self.load(id, fx);
    }

    /// Tickets given since `first` were cut back with what they stood for: whoever would wait for them asks anew.
    pub(super) fn undo_tickets(&mut self, first: u64, fx: &mut Effects) {
        for number in first + 1..=self.next_ticket {
            let Some(waiting) = self.tickets.remove(&Ticket(number)) else { continue };
            match waiting {
                Waiting::Account(account) | Waiting::Page(account) => {
                    self.reload(account, fx);
                }
                Waiting::Ids(partition) => self.ask_for_ids(partition, fx),
                Waiting::Append { account, at, .. } | Waiting::Change { account, at, .. } => {
                    self.written(account, fx);
                    self.release_frame(at);
                    self.reload(account, fx);
                }
                Waiting::Log(account)
                | Waiting::Archived(account, _)
                | Waiting::Login { account, .. } => {
                    self.written(account, fx);
                    self.reload(account, fx);
                }
                Waiting::Feature { account, wrote, .. } => {
                    if wrote {
                        self.written(account, fx);
                    }
                    self.reload(account, fx);
                }
                // A stranger's stream ends with a fault.
                Waiting::Errand { .. }
                | Waiting::Registration { .. }
                | Waiting::Sent(..)
                | Waiting::Nobody => {}
                Waiting::Origin { account, queued, .. } => {
                    self.release_frame(queued.at.awaited(queued.post.flags));
                    self.reload(account, fx);
                }
                Waiting::Retraction { .. } => {
                    self.retractions = self.retractions.saturating_sub(1);
                }
            }
        }
    }

    /// Frees the place of an idle account. Looks at a bounded number of candidates.
    fn evict_one(&mut self) -> bool {
        for _ in 0..64 {
            let Some(id) = self.idle.pop_front() else { return false };
            if self.drop_if_idle(id) {
                return true;
            }
        }
        false
    }

    /// Frees places until there are no more accounts than there may be, or none is idle.
    pub(super) fn evict_surplus(&mut self) {
        while self.names.len() > self.config.limits.accounts && self.evict_one() {}
    }

    fn drop_if_idle(&mut self, id: AccountId) -> bool {
        match self.accounts.get_mut(id.0) {
            Some(account) if account.is_idle() => {
                if let Some(account) = self.accounts.remove(id.0) {
                    self.names.remove(account.jid.as_str());
                }
                true
            }
            Some(account) => {
                account.timer = false;
                false
            }
            None => false,
        }
    }

    /// The account may have become idle: it is evicted later unless it is used again.
    pub(super) fn maybe_idle(&mut self, id: AccountId) {
        let Some(account) = self.accounts.get_mut(id.0) else { return };
        if account.is_idle() && !account.timer {
            account.timer = true;
            account.used_at = self.now.mono;
            self.idle.push_back(id);
        }
    }

    /// Evicts what has been idle for long.
    pub(super) fn sweep_idle(&mut self) {
        while let Some(&id) = self.idle.front() {
            let due = match self.accounts.get(id.0) {
                Some(account) => self.now.mono.since(account.used_at) >= IDLE,
                None => true,
            };
            if !due {
                break;
            }
            self.idle.pop_front();
            self.drop_if_idle(id);
        }
    }

    /// The next id for the log of `account`; `None` while the next block is on its way.
    pub(super) fn next_log_id(&mut self, id: AccountId, fx: &mut Effects) -> Option<u64> {
        let partition = match self.accounts.get(id.0) {
            Some(account) => store_partition(account.jid.hash64()),
            None => return None,
        };
        let given = self.next_id_of(partition, fx);
        let block = &mut self.blocks[usize::from(partition)];
        if given.is_none() && !block.waiting.contains(&id) {
            block.waiting.push(id);
        }
        given
    }

    /// As `next_log_id`, for a row that no account waits for.
    pub(super) fn next_id_of(&mut self, partition: u16, fx: &mut Effects) -> Option<u64> {
        let block = &mut self.blocks[usize::from(partition)];
        if block.next == block.end
            && let Some((next, end)) = block.following.take()
        {
            (block.next, block.end) = (next, end);
        }
        let given = (block.next < block.end).then(|| {
            block.next += 1;
            block.next - 1
        });
        let low = block.following.is_none() && block.end - block.next < ID_LOW;
        if low && !block.asked {
            self.ask_for_ids(partition, fx);
        }
        given
    }

    /// Asks for ids of a partition where none were had yet.
    pub(super) fn ensure_ids(&mut self, partition: u16, fx: &mut Effects) {
        let block = &self.blocks[usize::from(partition)];
        if block.end == 0 && block.following.is_none() && !block.asked {
            self.ask_for_ids(partition, fx);
        }
    }

    fn ask_for_ids(&mut self, partition: u16, fx: &mut Effects) {
        self.blocks[usize::from(partition)].asked = true;
        let ticket = self.ticket(Waiting::Ids(partition));
        fx.writes.push((ticket, Write::ReserveIds { partition, count: ID_BLOCK }));
    }

    /// Others gave ids of this partition below `next`: those given here from now on are higher.
    pub(super) fn ids_given(&mut self, partition: u16, next: u64) {
        let Some(block) = self.blocks.get_mut(usize::from(partition)) else { return };
        block.floor = block.floor.max(next);
        block.rise();
    }

    /// Owners changed: for accounts that were others' till now, ids must be higher than those that these gave.
    pub(super) fn forget_ids(&mut self) {
        for block in &mut self.blocks {
            block.next = 0;
            block.end = 0;
            block.following = None;
            block.is_stale = block.asked;
        }
    }

    /// A block came (or failed to come): gives the accounts that waited for it.
    pub(super) fn ids_reserved(
        &mut self,
        partition: u16,
        first: Option<u64>,
        fx: &mut Effects,
    ) -> Vec<AccountId> {
        let block = &mut self.blocks[usize::from(partition)];
        block.asked = false;
        let is_stale = std::mem::take(&mut block.is_stale);
        if first.is_some_and(|first| is_stale || first < block.floor) {
            // It was reserved before others went past it. The next one lies above.
            self.ask_for_ids(partition, fx);
            return Vec::new();
        }
        if let Some(first) = first {
            block.following = Some((first, first + u64::from(ID_BLOCK)));
        }
        std::mem::take(&mut block.waiting)
    }

    pub(super) fn ticket(&mut self, waiting: Waiting) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(ticket, waiting);
        ticket
    }
}
