//! Frames that were sent to a node which is gone: they go to the new owners, who find out whether they were handled.
//!
//! What may have been handled carries its origin: who sent it, over which ring, with which number. The row of a message
//! keeps that, so the new owner looks for it among the newest rows of the account before it delivers the message. What is
//! in no log is known by those who handled it (`heard`).

use super::account::{Account, AccountId, Busy, Queued};
use super::control::Control;
use super::deliver::split;
use super::direct::{is_label, is_labelled, order_of_labels, unwrap as labelled};
use super::effect::Effects;
use super::handover::sent_on;
use super::heard::{Heard, has_origin, is_logged};
use super::line::place_of;
use super::peers::run_of;
use super::ring::{Carried, FrameRef};
use super::{Core, Shard, StoreOutcome, Ticket, Waiting};
use crate::base::hash::Map;
use crate::base::instant::Wall;
use crate::cluster::placement::Owner;
use crate::cluster::view::Place;
use crate::frame::{self, Envelope, Flags, Kind, Recipients};
use crate::store::{Answer, Origin, Query};
use crate::xmpp::jid::BareJid;
use crate::xmpp::stanza_error::StanzaError;
use std::cmp::Ordering;
use std::time::Duration;

/// How far clocks may be apart, and a commit late, for a row to be found.
const LEEWAY: Duration = Duration::from_secs(60);

/// Messages for which a log is asked at a time, beside the first in line.
const ASKED: usize = 1_024;

/// What the log says of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InLog {
    Here,
    /// One that the same sender sent later over the same ring is.
    Later,
    No,
}

/// A message that is looked for.
#[derive(Clone, Copy)]
struct Sought<'a> {
    origin: Origin,
    from: &'a str,
    is_here: bool,
    /// Its row was there, and went.
    was_here: bool,
}

/// What the log says of each.
fn in_log(all: &[Sought<'_>]) -> Vec<InLog> {
    let mut newest: Map<((u64, u32, u64), &str), u64> = Map::default();
    for one in all.iter().filter(|one| (one.is_here || one.was_here) && !is_label(&one.origin)) {
        let number = newest.entry((ring_of(&one.origin), one.from)).or_default();
        *number = one.origin.number.max(*number);
    }
    let told = all.iter().map(|one| {
        let newest = newest.get(&(ring_of(&one.origin), one.from));
        if one.is_here {
            InLog::Here
        } else if newest.is_some_and(|newest| one.origin.number < *newest) {
            InLog::Later
        } else {
            InLog::No
        }
    });
    told.collect()
}

/// What the log is asked when rows that are on their way to it are there: one of them may be the message's.
#[derive(Debug)]
pub(super) struct Question {
    /// So many writes of the account go first. They are done in order.
    after: u32,
    ticket: Ticket,
    query: Query,
}

impl Question {
    /// A write is done. Gives whether it was the last that goes first.
    pub(super) fn is_due(&mut self) -> bool {
        self.after = self.after.saturating_sub(1);
        self.after == 0
    }

    pub(super) fn into_query(self) -> (Ticket, Query) {
        (self.ticket, self.query)
    }
}

impl Shard {
    /// One frame to `place`, which is gone, goes to the owners of its recipients.
    ///
    /// - takes: `carried`, what is handled when it is
    pub(super) fn send_again(
        &mut self,
        place: Place,
        number: u64,
        frame: &[u8],
        carried: &[Carried],
        fx: &mut Effects,
    ) {
        // Frames are read in place where they are aligned.
        let mut batch = frame::Batch::default();
        batch.push_frame(frame);
        for envelope in batch.iter() {
            // It is older than all that is sent behind it, whatever the clock was set to since.
            let ingress = Wall(envelope.ingress.0.min(self.core.now.wall.0));
            let envelope = Envelope { ingress, ..envelope };
            if envelope.kind == Kind::Control {
                if is_wrapped(envelope.subtype) {
                    // The node that is gone may have handled what nobody had before.
                    let (epoch, subtype) = (self.core.placement.epoch(), Control::Retry as u8);
                    let envelope = Envelope { epoch, subtype, ..envelope };
                    self.post_again(&envelope, envelope.to, carried, fx);
                } else if is_labelled(&envelope) {
                    let (epoch, flags) =
                        (self.core.placement.epoch(), envelope.flags.with(Flags::RETRY));
                    let envelope = Envelope { epoch, flags, ..envelope };
                    self.post_again(&envelope, envelope.to, carried, fx);
                } else {
                    self.control_again(&envelope, fx);
                }
                continue;
            }
            let ring = u32::from(self.core.id.0) << 16 | u32::from(place.shard.0);
            let origin =
                Origin { incarnation: self.core.peers.own().incarnation, link: ring, number };
            for to in std::iter::once(envelope.to).chain(envelope.also_to) {
                let envelope = Envelope {
                    epoch: self.core.placement.epoch(),
                    to,
                    also_to: Recipients::NONE,
                    flags: envelope.flags.with(Flags::RETRY),
                    ..envelope
                };
                // Connections of a component are no accounts: it is chosen anew which of them gets it.
                if has_origin(envelope.kind) && self.core.components.of(to).is_none() {
                    let bytes = wrap(&origin, frame);
                    self.post_again(&wrapped(envelope, Control::Retry, &bytes), to, carried, fx);
                } else {
                    self.post_again(&envelope, to, carried, fx);
                }
            }
        }
    }

    pub(super) fn post_again(
        &mut self,
        envelope: &Envelope<'_>,
        to: &str,
        carried: &[Carried],
        fx: &mut Effects,
    ) {
        let hash = match self.core.jids.parse(to) {
            Ok(jid) => jid.bare().hash64(),
            Err(_) => return,
        };
        self.core.probe.frames_retried += 1;
        let flags = match carried.iter().any(|one| one.is_frame()) {
            true => sent_on(envelope.flags),
            false => envelope.flags,
        };
        let envelope = &Envelope { flags, ..*envelope };
        if let Some(at) = self.post(envelope, hash, fx) {
            for one in carried {
                self.core.outward[usize::from(at.ring)].expect(at.number, *one);
            }
            return;
        }
        let core = &mut self.core;
        let way = core.destination(envelope.from, to, hash);
        let full = way.filter(|peer| !core.has_room(*peer, fx));
        if full.is_some_and(|peer| core.send_again_later(peer, envelope, to, carried)) {
            return;
        }
        core.refuse_again(envelope, to, carried);
    }

    /// A frame that another sent to a node which is gone.
    pub(super) fn retried(
        &mut self,
        envelope: &Envelope<'_>,
        at: FrameRef,
        is_new: bool,
        fx: &mut Effects,
    ) {
        let (bare, _) = split(envelope.to);
        let Ok(jid) = BareJid::parse(bare) else { return };
        if self.core.placement.federates() && self.core.is_remote(envelope.to) {
            return self.retried_out(envelope, at, is_new, fx);
        }
        if self.pass_on(envelope, envelope.to, jid.hash64(), at, fx) {
            return;
        }
        let Some((origin, batch)) = unwrap(envelope.stanza) else { return };
        let Some(inner) = again(envelope, &batch, is_new) else { return };
        if !is_logged(inner.kind, inner.flags) {
            let heard = Heard::new(origin, &jid);
            return self.deliver_detoured(&inner, heard, at, fx);
        }
        let queued = Queued { retry: Some(origin), is_new, ..Queued::new(&inner, envelope.to, at) };
        let Some(account) = self.core.account(&jid, fx) else {
            return self.core.refuse_new(&queued);
        };
        let limit = self.core.config.limits.pending_stanzas;
        let waiting = self.core.accounts.get(account.0).map_or(0, |slot| slot.waiting.len());
        if is_new && waiting >= limit {
            return self.core.refuse_new(&queued);
        }
        self.wait_for_log(account, queued, fx);
    }

    /// It waits for its account as others do, then the log is asked for it, unless it is known to be new.
    pub(super) fn wait_for_log(&mut self, account: AccountId, queued: Queued, fx: &mut Effects) {
        let core = &mut self.core;
        let awaited = queued.at.awaited(queued.post.flags);
        if let Some(first) = core.waits_already(account, queued.retry) {
            return core.came_again(first, awaited);
        }
        core.hold_frame(awaited);
        let Some(slot) = core.accounts.get_mut(account.0) else { return };
        let place = match core.handover.holds(slot.jid.hash64()) {
            true => place_of(&slot.waiting, &queued),
            false => slot.waiting.len(),
        };
        slot.waiting.insert(place, queued);
        self.drain(account, fx);
    }

    /// Asks whether the message of a retried frame is in its recipient's log, and for those that wait behind it, as looking
    /// for one takes a walk through the newest rows.
    pub(super) fn ask_origin(
        &mut self,
        account: AccountId,
        queued: Queued,
        origin: Origin,
        fx: &mut Effects,
    ) {
        let core = &mut self.core;
        let Some(slot) = core.accounts.get_mut(account.0) else { return };
        if let Some(in_log) = core.found.remove(&Heard::new(origin, &slot.jid)) {
            return core.origin_is(account, queued, in_log);
        }
        slot.busy = Busy::Retry;
        let owner = slot.jid.clone();
        let may_be_there = |one: &&Queued| !one.is_new && is_logged(one.post.kind, one.post.flags);
        let (mut since, mut others) = (queued.row_since(), Vec::new());
        for one in slot.waiting.iter().filter(may_be_there) {
            if let Some(other) = one.retry.filter(|other| *other != origin) {
                since = since.min(one.row_since());
                others.push(other);
            }
            if others.len() == ASKED {
                break;
            }
        }
        let leeway = u64::try_from(LEEWAY.as_micros()).unwrap_or(u64::MAX);
        let since = Wall(since.0.saturating_sub(leeway));
        let origins = std::iter::once(origin).chain(others.iter().copied()).collect();
        let ticket = core.ticket(Waiting::Origin { account, queued: Box::new(queued), others });
        let query = Query::Origins { owner, origins, since };
        match core.accounts.get_mut(account.0).filter(|slot| slot.changing > 0) {
            Some(slot) => {
                let after = slot.changing;
                slot.question = Some(Box::new(Question { after, ticket, query }));
            }
            None => fx.queries.push((ticket, query)),
        }
    }

    /// The store has said which are there.
    pub(super) fn origins_found(
        &mut self,
        account: AccountId,
        queued: Queued,
        others: &[Origin],
        outcome: StoreOutcome,
        fx: &mut Effects,
    ) {
        let core = &mut self.core;
        let found = match outcome {
            StoreOutcome::Answer(Answer::Origins(found)) => found,
            _ => Vec::new(),
        };
        let all = queued.retry.iter().chain(others).zip(found);
        let mut told = Vec::new();
        if let Some(slot) = core.accounts.get(account.0) {
            let waiting = slot.waiting.iter().chain([&queued]);
            let senders: Map<Origin, &str> =
                waiting.filter_map(|one| Some((one.retry?, &*one.post.from))).collect();
            let heard = |origin: &Origin| Heard::new(*origin, &slot.jid);
            let sought = all.map(|(origin, is_here)| Sought {
                origin: *origin,
                from: senders.get(origin).copied().unwrap_or_default(),
                is_here,
                was_here: core.is_known(heard(origin)),
            });
            let sought: Vec<_> = sought.collect();
            let all = sought.iter().map(|one| heard(&one.origin));
            told = all.zip(in_log(&sought)).collect();
        }
        match told.split_first() {
            Some(((_, InLog::No), [])) if core.is_followed(account, &queued) => {
                if let Some(slot) = core.accounts.get_mut(account.0) {
                    put_back(slot, queued);
                }
            }
            Some(((_, in_log), of_others)) => {
                core.found = of_others.iter().copied().collect();
                core.origin_is(account, queued, *in_log);
            }
            // Nobody knows. It is refused, which its sender's acknowledgement may cover.
            None => core.refuse_queued(&queued),
        }
        self.no_longer_busy(account, Busy::Retry, fx);
        self.core.found.clear();
    }

    /// What waited for an account that is another shard's now.
    pub(super) fn send_queued_on(&mut self, queued: &Queued, owner: Owner, fx: &mut Effects) {
        let envelope = queued.envelope(self.core.placement.epoch());
        let Some(origin) = queued.retry else {
            return self.send_on(&envelope, envelope.to, owner, queued.at, fx);
        };
        let control = if queued.is_new { Control::Passed } else { Control::Retry };
        self.send_wrapped_on(&envelope, control, &origin, owner, queued.at, fx);
    }

    /// As `send_on`, with the origin of the frame: its first sender may have to send it again.
    pub(super) fn send_wrapped_on(
        &mut self,
        envelope: &Envelope<'_>,
        control: Control,
        origin: &Origin,
        owner: Owner,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let mut batch = frame::Batch::default();
        // What is too large is refused as it is.
        let bytes = match self.core.encoder.append(&mut batch, envelope) {
            Ok(_) => wrap(origin, batch.as_bytes()),
            Err(_) => return self.send_frame_on(envelope, envelope.to, owner, at, fx),
        };
        let envelope = wrapped(*envelope, control, &bytes);
        self.send_frame_on(&envelope, envelope.to, owner, at, fx);
    }
}

impl Core {
    /// The log has been asked for a message that waited.
    fn origin_is(&mut self, account: AccountId, queued: Queued, in_log: InLog) {
        let awaited = queued.at.awaited(queued.post.flags);
        // What came behind it on its way was dealt with after it, so it was handled, too. It may have been refused: where
        // somebody waits for it, it is kept.
        let is_handled = in_log == InLog::Later && awaited.is_none();
        if in_log == InLog::Here || is_handled {
            self.probe.duplicates_dropped += 1;
            self.release_frame(awaited);
        } else if self.was_confirmed(account, &queued) {
            self.release_frame(awaited);
        } else if let Some(slot) = self.accounts.get_mut(account.0) {
            // A session may have come meanwhile, to which older messages of the log go first.
            put_back(slot, Queued { is_new: true, ..queued });
        }
    }

    /// Whether a message that was looked for alone, and that nobody waits for, is to be looked for again with those that came
    /// behind it meanwhile: they may tell that it was handled.
    fn is_followed(&self, account: AccountId, queued: &Queued) -> bool {
        let Some((slot, origin)) = self.accounts.get(account.0).zip(queued.retry) else {
            return false;
        };
        let is_behind = |one: &Queued| {
            let other = one.retry.filter(|_| !one.is_new && one.post.from == queued.post.from);
            other.and_then(|other| order_of_origins(&origin, &other)) == Some(Ordering::Less)
        };
        let is_awaited = queued.at.awaited(queued.post.flags).is_some();
        !is_awaited && !is_label(&origin) && slot.waiting.iter().any(is_behind)
    }

    /// The frame of a message that waits for an account which moves here, where it came with that origin: one that was
    /// passed on from node to node, and was sent again as one of them died.
    pub(super) fn waits_already(
        &self,
        account: AccountId,
        origin: Option<Origin>,
    ) -> Option<FrameRef> {
        let slot = self.accounts.get(account.0)?;
        let moves = origin.is_some() && self.handover.holds(slot.jid.hash64());
        let mut waiting = slot.waiting.iter().filter(|_| moves);
        waiting.find(|other| other.retry == origin).map(|other| other.at)
    }

    /// Whether the row of a message that is in no log was there, and is confirmed.
    fn was_confirmed(&mut self, account: AccountId, queued: &Queued) -> bool {
        let Some((slot, origin)) = self.accounts.get(account.0).zip(queued.retry) else {
            return false;
        };
        let heard = Heard::new(origin, &slot.jid);
        self.has_heard(heard, queued.at.awaited(queued.post.flags))
    }

    /// It goes back as an error, whether it is wrapped or not.
    pub(super) fn refuse_wrapped(&mut self, envelope: &Envelope<'_>, to: &str, why: &StanzaError) {
        if let Some((_, inner)) = labelled(envelope) {
            return self.bounce(&inner, to, why);
        }
        let is_it = envelope.kind == Kind::Control && is_wrapped(envelope.subtype);
        match is_it.then(|| unwrap(envelope.stanza)).flatten() {
            Some((_, batch)) => {
                for inner in batch.iter() {
                    self.bounce(&inner, to, why);
                }
            }
            None => self.bounce(envelope, to, why),
        }
    }

    /// There is no room for what would be sent again; what it carries is handled by that.
    pub(super) fn refuse_again(&mut self, envelope: &Envelope<'_>, to: &str, carried: &[Carried]) {
        self.refuse_wrapped(envelope, to, &super::deliver::resource_constraint());
        carried.iter().for_each(|one| self.settle(*one));
    }

    /// The account is read anew, or goes to another shard: a message that is looked for in its log waits again, before all
    /// that came later.
    pub(super) fn stop_asking(&mut self, account: AccountId) {
        let is_it = |waiting: &Waiting| matches!(waiting, Waiting::Origin { account: of, .. } if *of == account);
        let asked = self.tickets.iter().find(|(_, waiting)| is_it(waiting));
        let asked = asked.map(|(ticket, _)| *ticket);
        if let Some(Waiting::Origin { queued, .. }) = asked.and_then(|it| self.tickets.remove(&it))
            && let Some(slot) = self.accounts.get_mut(account.0)
        {
            slot.question = None;
            put_back(slot, *queued);
        }
    }
}

/// A message that was looked for waits again, before all that came later; what a session left meanwhile is older.
fn put_back(slot: &mut Account, queued: Queued) {
    let older = slot.waiting.iter().take_while(|it| it.is_left()).count();
    let left = if queued.is_left() { 0 } else { older };
    slot.waiting.insert(left, queued);
}

/// Which of two messages was sent first, as far as their origins tell: by one session, or over one ring.
pub(super) fn order_of_origins(one: &Origin, other: &Origin) -> Option<Ordering> {
    order_of_labels(one, other)
        .or_else(|| (ring_of(one) == ring_of(other)).then(|| one.number.cmp(&other.number)))
}

/// Over which ring a stanza came: numbers of one ring tell the order.
fn ring_of(origin: &Origin) -> (u64, u32, u64) {
    (origin.incarnation, origin.link, run_of(origin.number))
}

/// The epoch by which a frame that is kept was sent first.
pub(super) fn first_epoch(frame: &[u8]) -> u64 {
    let mut batch = frame::Batch::default();
    batch.push_frame(frame);
    let Some(envelope) = batch.iter().next() else { return 0 };
    if let Some((_, inner)) = labelled(&envelope) {
        return inner.epoch;
    }
    let is_it = envelope.kind == Kind::Control && is_wrapped(envelope.subtype);
    let inner = is_it.then(|| unwrap(envelope.stanza)).flatten();
    let first = inner.and_then(|(_, inner)| inner.iter().next().map(|inner| inner.epoch));
    first.unwrap_or(envelope.epoch)
}

/// The control frame in whose `bytes` the frame of `inner` is wrapped.
fn wrapped<'a>(inner: Envelope<'a>, control: Control, bytes: &'a [u8]) -> Envelope<'a> {
    Envelope {
        kind: Kind::Control,
        subtype: control as u8,
        open_end: 0,
        close_start: 0,
        stanza: bytes,
        ..inner
    }
}

fn is_wrapped(subtype: u8) -> bool {
    subtype == Control::Retry as u8 || subtype == Control::Passed as u8
}

fn wrap(origin: &Origin, frame: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(Origin::BYTES + frame.len());
    origin.write(&mut bytes);
    bytes.extend_from_slice(frame);
    bytes
}

/// The stanza that was wrapped, as it is now: for the one recipient that its frame has.
///
/// - takes: `batch`, as `unwrap` gave it of `outer`
pub(super) fn again<'a>(
    outer: &Envelope<'a>,
    batch: &'a frame::Batch,
    is_new: bool,
) -> Option<Envelope<'a>> {
    let inner = batch.iter().next()?;
    let flags = if is_new { inner.flags } else { inner.flags.with(Flags::RETRY) };
    let (to, hops, ingress) = (outer.to, outer.hops, outer.ingress);
    Some(Envelope { to, hops, ingress, flags, also_to: Recipients::NONE, ..inner })
}

/// The other way. What comes from another node is checked.
pub(super) fn unwrap(bytes: &[u8]) -> Option<(Origin, frame::Batch)> {
    let (origin, inner) = Origin::read(bytes)?;
    let batch = frame::Batch::checked(inner, frame::FRAME_BYTES_MAX).ok()?;
    (batch.frames() == 1).then_some((origin, batch))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::placement::NodeId;
    use crate::cluster::view::Run;

    #[test]
    fn a_message_was_handled_if_a_later_one_over_its_ring_is_in_the_log() {
        let first = super::super::peers::first_number(Run { node: NodeId(2), incarnation: 5 });
        let at = |number| Origin { incarnation: 3, link: 1, number: first + number };
        let label = |link| Origin { incarnation: 1 << 62, link, number: 7 };
        let not = |origin| Sought { origin, from: "alice@here", is_here: false, was_here: false };
        let here = |origin| Sought { is_here: true, ..not(origin) };
        let told = in_log(&[
            not(at(1)),
            here(at(2)),
            not(at(3)),
            Sought { was_here: true, ..not(at(4)) },
            not(at(5)),
            not(label(1)),
            here(label(2)),
            not(Origin { link: 2, ..at(1) }),
            Sought { from: "carol@here", ..not(at(1)) },
        ]);
        let (ring, others) = told.split_at(5);
        let wanted = [InLog::Later, InLog::Here, InLog::Later, InLog::No, InLog::No];
        assert_eq!(ring, wanted);
        assert_eq!(others, [InLog::No, InLog::Here, InLog::No, InLog::No]);
    }

    #[test]
    fn messages_over_one_ring_are_in_the_order_of_their_numbers() {
        let first = super::super::peers::first_number(Run { node: NodeId(2), incarnation: 5 });
        let at = |number| Origin { incarnation: 3, link: 1, number };
        assert_eq!(order_of_origins(&at(first + 1), &at(first + 2)), Some(Ordering::Less));
        assert_eq!(order_of_origins(&at(2), &at(1)), Some(Ordering::Greater));
        assert_eq!(order_of_origins(&at(1), &at(1)), Some(Ordering::Equal));
        // Shards of the same number on two nodes have two rings to them.
        assert_eq!(order_of_origins(&at(1), &at(first + 1)), None);
        assert_eq!(order_of_origins(&at(1), &Origin { link: 2, ..at(2) }), None);
        assert_eq!(order_of_origins(&at(1), &Origin { incarnation: 4, ..at(2) }), None);
    }
}
