//! Messages that wait in the store until the peer has confirmed them, so that the end of the process loses none.
//!
//! A message is written when it has waited for a moment: a peer that answers quickly costs no row. While nothing carries
//! its lane it is written at once. Rows belong to the bare address of the remote domain; a row goes when the peer has
//! confirmed the message, or the shard of its sender has the answer in its stead.
//!
//! Rows of earlier runs are read page by page, before anything newer goes out. Whether a domain has any is asked at the
//! start; nothing at all goes out before that is known.

use super::domain::{DomainId, LaneId, Link};
use super::effect::Effects;
use super::queue::{Item, Row};
use super::{Core, Timer};
use crate::base::instant::Instant;
use crate::cluster::placement::store_partition;
use crate::frame::Kind;
use crate::store::{
    Answer, Keep, LogEntry, Origin, Query, STORE_PARTITIONS, StoreOutcome, Ticket, Write, Written,
};
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::stanza::{MessageType, Stanza};
use crate::xmpp::stanza_error::StanzaCondition;
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::reader::{self, StreamContext};
use std::time::Duration;

/// Requests under way above which peers are not read.
pub(super) const REQUESTS_SOFT: usize = 4_096;
/// Above it nothing more is written; it waits.
const REQUESTS_HARD: usize = 16_384;
/// How long the peer has to confirm a message before it is written.
const UNWRITTEN_MAX: Duration = Duration::from_millis(200);
/// How long a store that failed, or has too much to do, is left alone.
const STORE_PAUSE: Duration = Duration::from_secs(2);
/// Ids that are reserved at once.
const ID_BLOCK: u32 = 4_096;
/// Domains of one page.
const DOMAINS_PAGE: u32 = 256;

/// What an answer of the store is for.
#[derive(Debug)]
pub(super) enum Waiting {
    /// The message of this number in this lane.
    Row {
        lane: LaneId,
        number: u64,
    },
    /// Of this partition of the store, asked for at this time of its ids.
    Ids(u16, u64),
    /// Rows that nobody waits for any more.
    Confirmed,
    /// By this epoch of a cluster.
    Domains(u64),
    Page(DomainId, u64),
}

/// Ids of one store partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Ids {
    next: u64,
    end: u64,
    asked: bool,
    /// Blocks that were asked for before are not used.
    since: u64,
    /// Lanes that wait for some.
    waiting: Vec<LaneId>,
}

impl Ids {
    /// Others gave higher ones.
    ///
    /// - gives: lanes that wait for some
    pub(super) fn forget(&mut self) -> Vec<LaneId> {
        (self.next, self.end, self.asked) = (0, 0, false);
        self.since += 1;
        std::mem::take(&mut self.waiting)
    }
}

/// Rows of a domain that earlier runs left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backlog {
    /// Those up to this id are read.
    after: u64,
    loading: bool,
}

impl Backlog {
    pub(super) fn new() -> Backlog {
        Backlog { after: 0, loading: false }
    }
}

/// How far the domains that have rows are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Walk {
    /// In a cluster: not to be asked while owners change.
    Held,
    /// To be asked for those after this one.
    Next(Option<BareJid>),
    Asked,
    Done,
}

impl Core {
    fn ticket(&mut self, waiting: Waiting) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.tickets.insert(ticket, waiting);
        ticket
    }

    /// Whether rows of earlier runs may still have to go first.
    pub(super) fn domain_replays(&self, lane: LaneId) -> bool {
        let lane = self.lanes.get(lane.0);
        let domain = lane.and_then(|lane| self.domains.get(lane.domain.0));
        domain.is_some_and(|domain| {
            domain.backlog.is_some() || self.walk != Walk::Done && self.is_gained(&domain.name)
        })
    }

    /// Writes what a lane should have in the store by now.
    pub(super) fn store_what_waits(&mut self, id: LaneId, fx: &mut Effects) {
        if !self.config.stored {
            return;
        }
        let now = self.now.mono;
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        let moment = if matches!(lane.link, Link::Up(_)) { UNWRITTEN_MAX } else { Duration::ZERO };
        let Some(oldest) = lane.queue.oldest_unstored().map(|item| item.at) else { return };
        let due = oldest + moment;
        if due > now {
            return self.store_later(id, due);
        }
        if self.tickets.len() > REQUESTS_HARD {
            return self.store_later(id, now + STORE_PAUSE);
        }
        let before = Instant(now.0 - u64::try_from(moment.as_nanos()).unwrap_or(0).min(now.0));
        let Some(domain) = self.domains.get(lane.domain.0) else { return };
        let (owner, domain_id) = (domain.jid.clone(), lane.domain);
        let partition = store_partition(owner.hash64());
        let mut rows = Vec::new();
        while let Some(row) = self.next_id(partition, id, fx) {
            let Some(lane) = self.lanes.get_mut(id.0) else { break };
            let oldest = lane.queue.oldest_unstored();
            let Some(item) = oldest.filter(|item| item.at <= before) else {
                self.give_back(partition, row);
                break;
            };
            item.row = Row::Writing(row);
            let entry = LogEntry {
                id: row,
                at: item.ingress,
                with: Jid::from_bare(owner.clone()),
                keep: Keep::Pending,
                origin: Origin::default(),
                stanza: item.bytes.to_vec(),
                open_end: item.open_end,
                close_start: item.close_start,
            };
            rows.push((item.number, entry));
        }
        for (number, mut entry) in rows {
            if let Some(from) = self.sender_of(&entry.stanza) {
                entry.with = from;
            }
            if let Some(domain) = self.domains.get_mut(domain_id.0) {
                domain.stored += 1;
                domain.first_row.get_or_insert(entry.id);
            }
            let ticket = self.ticket(Waiting::Row { lane: id, number });
            fx.writes.push((ticket, Write::AppendLog { owner: owner.clone(), entry }));
        }
        let lane = self.lanes.get_mut(id.0);
        let oldest = lane.and_then(|lane| lane.queue.oldest_unstored()).map(|item| item.at);
        if let Some(oldest) = oldest.filter(|oldest| *oldest > before) {
            self.store_later(id, oldest + moment);
        }
    }

    fn store_later(&mut self, id: LaneId, due: Instant) {
        let Some(lane) = self.lanes.get_mut(id.0) else { return };
        if lane.store_due.is_none_or(|set| due < set) {
            lane.store_due = Some(due);
            self.wheel.insert(due, Timer::Store(id));
        }
    }

    pub(super) fn store_due(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(id.0) {
            lane.store_due = None;
            self.touch(id);
        }
    }

    fn sender_of(&mut self, stanza: &[u8]) -> Option<Jid> {
        let mut index = std::mem::take(&mut self.index);
        let read = reader::read(stanza, &StreamContext::client(), &XmlLimits::PASSED, &mut index);
        let from = read.ok().and_then(|()| Stanza { bytes: stanza, index: &index }.from());
        let from = from.and_then(|from| self.jids.parse(&from).ok());
        self.index = index;
        from
    }

    fn next_id(&mut self, partition: u16, lane: LaneId, fx: &mut Effects) -> Option<u64> {
        let ids = self.ids.get_mut(usize::from(partition % STORE_PARTITIONS))?;
        if ids.next < ids.end {
            ids.next += 1;
            return Some(ids.next - 1);
        }
        if !ids.waiting.contains(&lane) {
            ids.waiting.push(lane);
        }
        if !std::mem::replace(&mut ids.asked, true) {
            let since = ids.since;
            let ticket = self.ticket(Waiting::Ids(partition, since));
            fx.writes.push((ticket, Write::ReserveIds { partition, count: ID_BLOCK }));
        }
        None
    }

    fn give_back(&mut self, partition: u16, row: u64) {
        if let Some(ids) = self.ids.get_mut(usize::from(partition))
            && ids.next == row + 1
        {
            ids.next = row;
        }
    }

    /// A row is of no more use.
    pub(super) fn confirm_row(&mut self, lane: LaneId, row: u64) {
        let Some(lane) = self.lanes.get(lane.0) else { return };
        let id = lane.domain;
        if let Some(domain) = self.domains.get_mut(id.0) {
            domain.stored = domain.stored.saturating_sub(1);
            if domain.confirmed.is_empty() {
                self.confirming.push(id);
            }
            domain.confirmed.push(row);
        }
    }

    /// Tells the store of rows that are of no more use.
    pub(super) fn write_confirmed(&mut self, fx: &mut Effects) {
        for id in std::mem::take(&mut self.confirming) {
            let Some(domain) = self.domains.get_mut(id.0) else { continue };
            let ids = std::mem::take(&mut domain.confirmed);
            let owner = domain.jid.clone();
            let ticket = self.ticket(Waiting::Confirmed);
            fx.writes.push((ticket, Write::ConfirmLog { owner, ids }));
            self.read_on_backlog(id, fx);
        }
    }

    /// The store has answered.
    pub(super) fn stored(&mut self, ticket: Ticket, outcome: StoreOutcome, fx: &mut Effects) {
        match (self.tickets.remove(&ticket), outcome) {
            (Some(Waiting::Row { lane, number }), StoreOutcome::Written(Written::Done)) => {
                self.row_written(lane, number);
            }
            (Some(Waiting::Row { lane, number }), _) => self.row_failed(lane, number, fx),
            (Some(Waiting::Ids(partition, since)), outcome) => {
                self.ids_reserved(partition, since, &outcome);
            }
            // Owners have changed meanwhile: it is asked again.
            (Some(Waiting::Domains(of)), _) if of != self.epoch() => {}
            (Some(Waiting::Domains(_)), StoreOutcome::Answer(Answer::RemoteLogs(domains))) => {
                self.domains_known(domains, fx);
            }
            (Some(Waiting::Domains(_)), _) => {
                self.walk = Walk::Next(self.walked.clone());
                self.wheel.insert(self.now.mono + STORE_PAUSE, Timer::Walk);
            }
            // The domain may have gone and come back since.
            (Some(Waiting::Page(id, of)), StoreOutcome::Answer(Answer::Log { entries, more }))
                if of >= self.read_since(id) =>
            {
                self.page_read(id, entries, more, fx);
            }
            (Some(Waiting::Page(id, of)), _) if of < self.read_since(id) => {}
            (Some(Waiting::Page(id, _)), _) => {
                if let Some(domain) = self.domains.get_mut(id.0)
                    && let Some(backlog) = &mut domain.backlog
                {
                    backlog.loading = false;
                    self.wheel.insert(self.now.mono + STORE_PAUSE, Timer::Page(id));
                }
            }
            // A row that stays although it was confirmed is sent again after the next start.
            (Some(Waiting::Confirmed) | None, _) => {}
        }
    }

    fn row_written(&mut self, lane: LaneId, number: u64) {
        let Some(slot) = self.lanes.get_mut(lane.0) else { return };
        let Some(item) = slot.queue.by_number(number) else { return };
        let frame = item.frame.take();
        if let Row::Writing(row) = item.row {
            item.row = Row::Durable(row);
        }
        if let Some(frame) = frame {
            self.release(frame);
        }
    }

    /// It is not in the store. What has not gone out goes back; what has may yet be confirmed.
    fn row_failed(&mut self, lane: LaneId, number: u64, fx: &mut Effects) {
        if let Some(domain) = self.domain_of_lane(lane) {
            domain.stored = domain.stored.saturating_sub(1);
        }
        let Some(slot) = self.lanes.get_mut(lane.0) else { return };
        let before = slot.queue.bytes();
        if let Some(mut item) = slot.queue.take(number) {
            self.queued_bytes -= before - slot.queue.bytes();
            item.row = Row::Never;
            let text = "the message could not be stored until the other server takes it";
            self.refuse_in(lane, item, StanzaCondition::ResourceConstraint, text.into(), fx);
        } else if let Some(item) = slot.queue.by_number(number) {
            item.row = Row::Never;
        }
    }

    fn ids_reserved(&mut self, partition: u16, since: u64, outcome: &StoreOutcome) {
        let ids = self.ids.get_mut(usize::from(partition));
        let Some(ids) = ids.filter(|ids| ids.since == since) else { return };
        ids.asked = false;
        let waiting = std::mem::take(&mut ids.waiting);
        if let StoreOutcome::Written(Written::Reserved { first }) = outcome {
            (ids.next, ids.end) = (*first, first + u64::from(ID_BLOCK));
            for lane in waiting {
                self.touch(lane);
            }
        } else {
            let later = self.now.mono + STORE_PAUSE;
            for lane in waiting {
                self.store_later(lane, later);
            }
        }
    }

    /// Asks which domains have rows of earlier runs.
    pub(super) fn walk_on(&mut self, fx: &mut Effects) {
        let Walk::Next(after) = &self.walk else { return };
        let after = after.clone();
        self.walk = Walk::Asked;
        let ticket = self.ticket(Waiting::Domains(self.epoch()));
        fx.queries.push((ticket, Query::RemoteLogs { after, limit: DOMAINS_PAGE }));
    }

    fn domains_known(&mut self, domains: Vec<BareJid>, fx: &mut Effects) {
        let last = domains.len() < DOMAINS_PAGE as usize;
        for jid in domains {
            if self.deals_with(jid.as_str()) && self.is_gained(jid.as_str()) {
                let Some(id) = self.domain(jid.as_str()) else {
                    // There is room for it later.
                    self.walk = Walk::Next(self.walked.clone());
                    return self.wheel.insert(self.now.mono + STORE_PAUSE, Timer::Walk);
                };
                if let Some(domain) = self.domains.get_mut(id.0) {
                    domain.backlog.get_or_insert(Backlog::new());
                }
                self.read_on_backlog(id, fx);
            }
            self.walked = Some(jid);
        }
        if last {
            self.walk = Walk::Done;
            self.all_known();
            let lanes: Vec<LaneId> = self.lanes.iter().map(|(id, _)| LaneId(id)).collect();
            lanes.into_iter().for_each(|lane| self.touch(lane));
        } else {
            self.walk = Walk::Next(self.walked.clone());
            self.walk_on(fx);
        }
    }

    /// Reads the next page of a domain's rows when most of the last one is gone.
    pub(super) fn read_on_backlog(&mut self, id: DomainId, fx: &mut Effects) {
        let page = self.config.limits.page;
        let Some(domain) = self.domains.get(id.0) else { return };
        let old: usize = domain
            .lanes
            .iter()
            .filter_map(|lane| self.lanes.get(lane.0))
            .map(|lane| lane.queue.old())
            .sum();
        let Some(domain) = self.domains.get_mut(id.0) else { return };
        let Some(backlog) = &mut domain.backlog else { return };
        if backlog.loading || old > page as usize / 2 {
            return;
        }
        backlog.loading = true;
        let query = Query::Log { owner: domain.jid.clone(), after: backlog.after, limit: page };
        let ticket = self.ticket(Waiting::Page(id, self.epoch()));
        fx.queries.push((ticket, query));
    }

    fn page_read(&mut self, id: DomainId, entries: Vec<LogEntry>, more: bool, fx: &mut Effects) {
        let Some(domain) = self.domains.get_mut(id.0) else { return };
        let name = domain.name.clone();
        let first = domain.first_row.unwrap_or(u64::MAX);
        let Some(backlog) = &mut domain.backlog else { return };
        backlog.loading = false;
        let reached = entries.last().is_some_and(|entry| entry.id >= first);
        backlog.after = entries.last().map_or(backlog.after, |entry| entry.id);
        if !more || reached {
            domain.backlog = None;
        }
        for entry in entries.into_iter().filter(|entry| entry.id < first) {
            self.old_row(id, &name, entry, fx);
        }
        let lanes = self.domains.get(id.0).map(|domain| domain.lanes.clone()).unwrap_or_default();
        lanes.into_iter().for_each(|lane| self.touch(lane));
    }

    /// A message that an earlier run took.
    fn old_row(&mut self, id: DomainId, remote: &str, entry: LogEntry, fx: &mut Effects) {
        let mut index = std::mem::take(&mut self.index);
        let read =
            reader::read(&entry.stanza, &StreamContext::client(), &XmlLimits::PASSED, &mut index);
        let stanza = Stanza { bytes: &entry.stanza, index: &index };
        let kind = read.is_ok().then(|| stanza.message_type());
        self.index = index;
        let item = Item {
            number: 0,
            kind: Kind::Message,
            subtype: kind.unwrap_or(MessageType::Error).code(),
            open_end: entry.open_end,
            close_start: entry.close_start,
            at: self.came_at(entry.at),
            ingress: entry.at,
            frame: None,
            row: Row::Durable(entry.id),
            times: 0,
            bytes: entry.stanza.into(),
        };
        // A domain of ours that is ours no more has nobody to answer to: its rows go.
        let own = self.config.own(entry.with.domain()).cloned();
        let lane = own.and_then(|own| self.lane_to(&own, remote));
        let Some(lane) = lane else {
            self.probe.answers_dropped += 1;
            if let Some(domain) = self.domains.get_mut(id.0) {
                if domain.confirmed.is_empty() {
                    self.confirming.push(id);
                }
                domain.confirmed.push(entry.id);
            }
            return;
        };
        if let Some(domain) = self.domains.get_mut(id.0) {
            domain.stored += 1;
        }
        if self.is_refused(remote) || self.config.own(remote).is_some() {
            let text = super::domain::BLOCKED;
            return self.refuse_in(
                lane,
                item,
                StanzaCondition::RemoteServerNotFound,
                text.into(),
                fx,
            );
        }
        if let Some(slot) = self.lanes.get_mut(lane.0) {
            let before = slot.queue.bytes();
            slot.queue.push_old(item);
            self.queued_bytes += slot.queue.bytes() - before;
        }
    }
}
