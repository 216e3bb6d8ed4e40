//! A change of owners: what this shard has lost goes to who has it now, and what it has gained is served when all others
//! have let go of it (DESIGN §6).
//!
//! On a new epoch each shard sends a marker to every other: no frame behind it was routed by an older one. A shard that
//! has all markers, whose lost accounts have no session left and whose writes for them are durable, tells all that it has
//! *sealed* the epoch. When all have, the epoch is settled: nobody else can write or deliver for what one owns by it.
//! Until then accounts that were gained wait as if they were being read; those that stayed are served throughout. Sessions
//! are with their new owners before their old one seals: an owner that dies before that has not served them, so that they
//! can be sent to the next one.
//!
//! A frame for an account that is not ours goes on to its owner, or waits where it was routed by an epoch that is not
//! known here yet. Nothing is sent back for its epoch.

use super::account::{AccountId, Busy, Queued};
use super::control::Control;
use super::deliver::is_error;
use super::direct::is_labelled;
use super::effect::Effects;
use super::heard::has_origin;
use super::peers::Peer;
use super::retry::first_epoch;
use super::ring::{Carried, FrameRef};
use super::session::SessionId;
use super::{Core, Shard, Timer};
use crate::base::hash::{Map, Set};
use crate::base::instant::Instant;
use crate::cluster::placement::{Owner, PARTITIONS, partition};
use crate::cluster::view::{Place, View};
use crate::frame::{Envelope, Flags, Kind};
use crate::xmpp::jid::BareJid;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked at.
const STEP: Duration = Duration::from_millis(20);
/// Cores and nodes that a frame may cross: only while owners change are they more than two.
const HOPS_MAX: u8 = 64;
/// Frames that were routed by an epoch which is not known here yet, at most; above, they go on as if it were not so.
const PARKED_MAX: usize = 65_536;

/// What a shard knows of the present change.
#[derive(Debug)]
pub(super) struct Handover {
    /// `None` for a node without a cluster, to which all belongs for good.
    view: Option<Arc<View>>,
    /// Something is ours by this epoch.
    pub(super) owns: bool,
    /// Partitions that are ours and that nobody else had since we served them.
    kept: Box<[bool]>,
    /// As `kept`, of remote domains.
    kept_domains: Box<[bool]>,
    /// What waits for remote domains that are ours when the epoch is settled.
    pub(super) going_out: Map<Box<str>, VecDeque<Queued>>,
    is_settled: bool,
    /// When an epoch was settled last.
    settled_at: Option<Instant>,
    /// The newest epoch of which the marker is in, and the newest that is sealed.
    marked: Map<Place, u64>,
    sealed: Map<Place, u64>,
    has_sealed: bool,
    /// Our writes for what was lost are durable when no ticket up to this one is out.
    barrier: Option<u64>,
    /// Accounts that are ours, and read when the epoch is settled.
    held: Vec<AccountId>,
    pub(super) parked: VecDeque<Queued>,
    /// Senders of those of them that come again.
    parked_again: Set<Box<str>>,
    /// Frames of others that were answered while this went on. Each is kept by its sender until it is handled, which bounds
    /// them.
    pub(super) answered: Vec<FrameRef>,
    /// The last frames that older epochs sent to nodes which own nothing any more, and may end.
    pub(super) last_to_idle: Vec<(Peer, u64)>,
    is_looking: bool,
}

impl Handover {
    pub(super) fn new() -> Handover {
        Handover {
            view: None,
            owns: true,
            kept: Box::default(),
            kept_domains: Box::default(),
            going_out: Map::default(),
            is_settled: true,
            settled_at: None,
            marked: Map::default(),
            sealed: Map::default(),
            has_sealed: true,
            barrier: None,
            held: Vec::new(),
            parked: VecDeque::new(),
            parked_again: Set::default(),
            answered: Vec::new(),
            last_to_idle: Vec::new(),
            is_looking: false,
        }
    }

    /// Whether an account with this hash, which is ours, must not be read yet.
    pub(super) fn holds(&self, hash64: u64) -> bool {
        !self.is_settled && !self.kept.get(usize::from(partition(hash64))).copied().unwrap_or(false)
    }

    /// As `holds`, of a remote domain: nothing is sent to it yet.
    pub(super) fn holds_domain(&self, hash64: u64) -> bool {
        let kept = self.kept_domains.get(usize::from(partition(hash64)));
        !self.is_settled && !kept.copied().unwrap_or(false)
    }

    /// It is read when the epoch is settled.
    pub(super) fn hold(&mut self, account: AccountId) {
        self.held.push(account);
    }

    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Whether an epoch was settled within this time: what is older may be another owner's.
    pub(super) fn has_settled_within(&self, span: Duration, now: Instant) -> bool {
        self.settled_at.is_some_and(|at| now.since(at) < span)
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.view.is_some()
    }

    /// What it acts by; `None` for a node without a cluster.
    pub(super) fn view(&self) -> Option<&Arc<View>> {
        self.view.as_ref()
    }
}

impl Shard {
    /// The number of a shard of another node, for `Input::Frames` and `Input::Handled`.
    pub fn peer(&mut self, place: Place, fx: &mut Effects) -> Option<Peer> {
        self.core.enter(place, fx)
    }

    /// Where the frames of `Effects::outbox` at this number go.
    pub fn place(&self, peer: Peer) -> Place {
        self.core.peers.place(peer)
    }

    /// There is a way to a node again: what it did not handle is sent once more, and what it did is told again.
    pub(super) fn linked(&mut self, run: crate::cluster::view::Run, fx: &mut Effects) {
        let core = &mut self.core;
        let peers: Vec<Peer> = core.peers.of_run(run).collect();
        for peer in peers {
            let ring = peer.index();
            core.inward[ring].tell_again();
            let batch = &mut fx.outbox[ring];
            // What has not left is kept, too.
            batch.clear();
            core.outward[ring].kept().for_each(|frame| batch.push_frame(frame));
        }
    }

    pub(super) fn placed(&mut self, view: Arc<View>, fx: &mut Effects) {
        let core = &mut self.core;
        let known = core.handover.view.is_some();
        if known && view.epoch() <= core.placement.epoch() {
            return;
        }
        // What clients confirmed is not to come again elsewhere.
        core.write_confirmed(fx);
        let before = std::mem::replace(&mut core.placement, view.placement.clone());
        let own = core.own();
        let late = core.take_late();
        let gone = core.peers.leave(|run| view.has(run));
        if !gone.is_empty() {
            core.drop_orphans();
        }
        if !known {
            core.handover.kept = vec![false; usize::from(PARTITIONS)].into();
            core.handover.kept_domains = core.handover.kept.clone();
        }
        for (partition, kept) in (0..PARTITIONS).zip(&mut core.handover.kept) {
            *kept = *kept && view.placement.node(partition) == own.node;
        }
        for (partition, kept) in (0..PARTITIONS).zip(&mut core.handover.kept_domains) {
            *kept = *kept && view.placement.domain_node(partition) == Some(own.node);
        }
        core.handover.owns = (0..PARTITIONS).any(|it| view.placement.node(it) == own.node);
        let mut new = Vec::new();
        for node in &view.nodes {
            if node.run != core.peers.own() {
                new.extend(core.peers.take_part(node.run, node.shards));
            }
        }
        core.grow(fx);
        core.handover.last_to_idle = core.last_to_idle(&view);
        for peer in new {
            core.announce_components_to(peer, fx);
        }
        let handover = &mut core.handover;
        handover.view = Some(view);
        handover.is_settled = false;
        handover.has_sealed = false;
        handover.barrier = None;
        handover.parked_again = Set::default();
        gone.iter().for_each(|peer| core.components.lose(*peer));
        self.send_unhandled_again(&gone, fx);
        self.fronts_lost(&gone, fx);
        self.core.fronts_placed(&gone);
        if !gone.is_empty() {
            let core = &mut self.core;
            let nodes: Vec<_> = gone.iter().map(|peer| core.peers.place(*peer).run.node).collect();
            let lost: Arc<[bool]> =
                (0..PARTITIONS).map(|partition| nodes.contains(&before.node(partition))).collect();
            self.send_sessions_again(&lost, &gone, fx);
            // Sessions that go take along what their clients must hear of it.
            self.contacts_lost(&lost, fx);
            self.core.copies.lost = lost;
        }
        self.lose_accounts(fx);
        self.heard_moves(fx);
        self.core.copies_placed(&gone);
        self.revive_copies(&gone, &before, fx);
        self.core.tell_others(Control::Marker, fx);
        self.core.tell_federation(Control::Marker, fx);
        self.going_out_anew(fx);
        self.send_late_anew(late, fx);
        let parked = std::mem::take(&mut self.core.handover.parked);
        for queued in parked {
            self.deliver_parked(&queued, fx);
        }
        if !gone.is_empty() {
            self.core.forget_arrivals();
        }
        self.look_at_handover(fx);
    }

    /// A frame for one who is not ours goes on. Gives false where it is ours.
    pub(super) fn pass_on(
        &mut self,
        envelope: &Envelope<'_>,
        to: &str,
        hash64: u64,
        at: FrameRef,
        fx: &mut Effects,
    ) -> bool {
        let owner = self.core.placement.owner(hash64);
        self.pass_on_to(owner, Some(hash64), envelope, to, at, fx)
    }

    /// As `pass_on`, where the owner is known.
    ///
    /// - takes: the hash of an account; none for another domain, of which a shard writes nothing
    pub(super) fn pass_on_to(
        &mut self,
        owner: Owner,
        account: Option<u64>,
        envelope: &Envelope<'_>,
        to: &str,
        at: FrameRef,
        fx: &mut Effects,
    ) -> bool {
        let core = &mut self.core;
        if owner == core.own() {
            return false;
        }
        if core.park(envelope, to, at) {
            return true;
        }
        core.hold_frame(at.awaited(envelope.flags));
        if !account.is_some_and(|hash64| core.waits_for_writes(hash64, envelope, to, at)) {
            self.send_on(envelope, to, owner, at, fx);
        }
        true
    }

    /// - takes: `at`, which is held where the frame wants to be acknowledged
    pub(super) fn send_on(
        &mut self,
        envelope: &Envelope<'_>,
        to: &str,
        owner: Owner,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        if has_origin(envelope.kind) {
            let origin = self.core.origin(at);
            let also_to = crate::frame::Recipients::NONE;
            let envelope = Envelope { to, also_to, ..*envelope };
            return self.send_wrapped_on(&envelope, Control::Passed, &origin, owner, at, fx);
        }
        self.send_frame_on(envelope, to, owner, at, fx);
    }

    pub(super) fn send_frame_on(
        &mut self,
        envelope: &Envelope<'_>,
        to: &str,
        owner: Owner,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let peer = self.core.peers.of(owner).filter(|_| envelope.hops < HOPS_MAX);
        self.send_frame_to(envelope, to, peer, at, fx);
    }

    /// - takes: `peer`, without which the frame is refused
    pub(super) fn send_frame_to(
        &mut self,
        envelope: &Envelope<'_>,
        to: &str,
        peer: Option<Peer>,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let core = &mut self.core;
        core.probe.frames_passed_on += 1;
        let awaited = at.awaited(envelope.flags);
        let passed = Envelope {
            epoch: core.placement.epoch(),
            to,
            also_to: crate::frame::Recipients::NONE,
            flags: sent_on(envelope.flags),
            ..*envelope
        };
        let sent = match peer {
            Some(peer) if core.has_room(peer, fx) => core.append_frame(peer, &passed, fx),
            Some(peer) if core.send_on_later(peer, envelope, to, at) => return,
            _ => None,
        };
        match sent {
            Some(sent) => {
                if let Some(at) = awaited {
                    core.outward[usize::from(sent.ring)].expect(sent.number, Carried::Frame(at));
                }
            }
            None => {
                core.refuse_wrapped(envelope, to, &super::deliver::resource_constraint());
                core.release_frame(awaited);
            }
        }
    }

    pub(super) fn deliver_parked(&mut self, queued: &Queued, fx: &mut Effects) {
        let envelope = queued.envelope(self.core.placement.epoch());
        let at = queued.at;
        let sound = self.contained(fx, |shard, fx| shard.deliver(&envelope, at, fx));
        if !sound {
            self.faulty_frame(&envelope, fx);
        }
        self.core.release_frame(at.awaited(envelope.flags));
    }

    /// What a node that is gone had not handled goes to those who own it now.
    fn send_unhandled_again(&mut self, gone: &[Peer], fx: &mut Effects) {
        let mut again = Vec::new();
        for peer in gone {
            let mut unhandled = self.core.outward[peer.index()].give_up();
            // Answers are sent again by us, who are here; sessions that went there are lost with it, and so are their copies.
            self.core.lose_arrivals(peer.index());
            fx.outbox[peer.index()].clear();
            let place = self.core.peers.place(*peer);
            for (number, frame) in std::mem::take(&mut unhandled.frames) {
                let mut carried = Vec::new();
                while let Some((_, one)) = unhandled.waiting.pop_front_if(|(at, _)| *at <= number) {
                    carried.push(one);
                }
                again.push((first_epoch(&frame), place, number, frame, carried));
            }
        }
        // In an epoch an account has one owner, and all for it is on one way. By another epoch it was on another one, and may
        // have been sent again before, behind what was sent later.
        again.sort_by_key(|(epoch, ..)| *epoch);
        for (_, place, number, frame, carried) in again {
            self.send_again(place, number, &frame, &carried, fx);
        }
    }

    /// Accounts that are another's now: what waits for them goes there, sessions follow or end.
    fn lose_accounts(&mut self, fx: &mut Effects) {
        let core = &mut self.core;
        let own = core.own();
        let lost: Vec<AccountId> = core
            .accounts
            .iter()
            .filter(|(_, account)| core.placement.owner(account.jid.hash64()) != own)
            .map(|(id, _)| AccountId(id))
            .collect();
        let is_lost = |jid: &BareJid| core.placement.owner(jid.hash64()) != own;
        let logins: Vec<super::ConnId> = core
            .conns
            .iter()
            .filter(|(_, conn)| {
                conn.session.is_none()
                    && (conn.login.is_some() || conn.account.as_ref().is_some_and(is_lost))
            })
            .map(|(id, _)| super::ConnId(id))
            .collect();
        for conn in logins {
            self.close(conn, Some(moved()), fx);
        }
        for id in lost {
            let Some(account) = self.core.accounts.get_mut(id.0) else { continue };
            if account.busy == Busy::Retry {
                self.core.stop_asking(id);
            }
            let Some(account) = self.core.accounts.get_mut(id.0) else { continue };
            account.busy = Busy::Leaving;
            account.replay = None;
            account.load = None;
            let logins = std::mem::take(&mut account.logins);
            // What is read of a session now would go ahead of what waits for accounts that are still to leave.
            for session in account.sessions.clone() {
                self.stop_reading(session, fx);
            }
            for conn in logins {
                // It is sent on to where the account is.
                self.release(conn, fx);
            }
            self.leave_account(id, fx);
        }
        let core = &mut self.core;
        core.handover.barrier = Some(core.next_ticket);
    }

    /// Nothing more is taken from a session that moves: what its client has not sent yet, it sends to where it is then.
    fn stop_reading(&mut self, session: SessionId, fx: &mut Effects) {
        let Some(slot) = self.core.sessions.get_mut(session.0) else { return };
        if let Some(conn) = slot.resuming.take() {
            self.close(conn, Some(moved()), fx);
        }
        let Some(slot) = self.core.sessions.get_mut(session.0) else { return };
        let Some(conn) = slot.conn.take() else { return };
        slot.ends_at = None;
        let account = slot.jid.bare().clone();
        self.core.no_longer_inactive(session, fx);
        if let Some(conn) = self.core.conns.get_mut(conn.0) {
            conn.session = None;
        }
        let why = self.core.moved_to(&account);
        self.close(conn, Some(why), fx);
        self.core.log_unacknowledged(session, fx);
    }

    /// Goes on with a change of owners, as far as it goes.
    pub(super) fn look_at_handover(&mut self, fx: &mut Effects) {
        if self.core.handover.is_settled {
            return;
        }
        let core = &self.core;
        let is_durable = core
            .handover
            .barrier
            .is_some_and(|last| !core.tickets.keys().any(|ticket| ticket.0 <= last));
        if is_durable {
            self.send_unwritten(fx);
        }
        let core = &mut self.core;
        let handover = &core.handover;
        if !handover.has_sealed
            && is_durable
            && core.have_all_told(&handover.marked)
            && core.have_sessions_arrived()
            && core.has_federation_sealed()
        {
            core.handover.has_sealed = true;
            core.moved.sealed();
            // What is older than all that the new owners will do.
            core.send_late(true, fx);
            core.tell_others(Control::Sealed, fx);
        }
        if core.handover.has_sealed && core.have_all_told(&core.handover.sealed) {
            return self.settled(fx);
        }
        if !self.core.handover.is_looking {
            self.core.handover.is_looking = true;
            let due = self.core.now.mono + STEP;
            self.core.wheel.insert(due, Timer::Handover);
        }
    }

    pub(super) fn handover_due(&mut self, fx: &mut Effects) {
        self.core.handover.is_looking = false;
        self.look_at_handover(fx);
    }

    /// Everybody has let go of what we gained.
    fn settled(&mut self, fx: &mut Effects) {
        let core = &mut self.core;
        let own = core.own();
        core.handover.is_settled = true;
        core.handover.settled_at = Some(core.now.mono);
        core.moved.settled();
        for at in std::mem::take(&mut core.handover.answered) {
            core.release_frame(Some(at));
        }
        for (partition, kept) in (0..PARTITIONS).zip(&mut core.handover.kept) {
            *kept = core.placement.node(partition) == own.node;
        }
        for (partition, kept) in (0..PARTITIONS).zip(&mut core.handover.kept_domains) {
            *kept = core.placement.domain_node(partition) == Some(own.node);
        }
        // Others gave higher ones to what is ours now.
        core.forget_ids();
        for id in std::mem::take(&mut core.handover.held) {
            core.load_held(id, fx);
        }
        core.tell_federation(Control::Sealed, fx);
        self.go_out(fx);
    }

    /// Sessions that can be resumed go to the new owner, others end; then what waits goes.
    fn leave_account(&mut self, id: AccountId, fx: &mut Effects) {
        let Some(account) = self.core.accounts.get(id.0) else { return };
        let owner = self.core.placement.owner(account.jid.hash64());
        for session in account.sessions.clone() {
            let slot = self.core.sessions.get(session.0);
            let counters = slot.and_then(|slot| slot.counters.as_deref());
            let resumable = counters.is_some_and(|counters| counters.resumable.is_some());
            if !(resumable && self.send_session(session, owner, fx)) {
                self.end_session(session, fx);
            }
        }
        let Some(account) = self.core.accounts.get_mut(id.0) else { return };
        let (hash64, is_written) = (account.jid.hash64(), account.changing == 0);
        let waiting = std::mem::take(&mut account.waiting);
        if !is_written {
            self.core.leaves_unwritten(hash64);
        }
        for queued in waiting {
            if let Some(queued) = self.core.behind_writes(hash64, queued) {
                self.send_queued_on(&queued, owner, fx);
            }
        }
        if let Some(account) = self.core.accounts.remove(id.0) {
            self.core.names.remove(account.jid.as_str());
        }
    }

    /// No frame of that shard that follows was routed by an older epoch.
    pub(super) fn marked(&mut self, from: Peer, epoch: u64, fx: &mut Effects) {
        let place = self.core.peers.place(from);
        let newest = self.core.handover.marked.entry(place).or_default();
        *newest = (*newest).max(epoch);
        self.look_at_handover(fx);
    }

    pub(super) fn sealed(&mut self, from: Peer, epoch: u64, fx: &mut Effects) {
        let place = self.core.peers.place(from);
        let newest = self.core.handover.sealed.entry(place).or_default();
        *newest = (*newest).max(epoch);
        self.look_at_handover(fx);
    }
}

impl Core {
    /// Whom a change of owners is agreed with.
    fn others(&self) -> impl Iterator<Item = Peer> + '_ {
        self.peers.live().filter(|peer| *peer != self.id.into())
    }

    /// Tells all others how far this shard is with the present epoch.
    fn tell_others(&mut self, what: Control, fx: &mut Effects) {
        let epoch = self.placement.epoch().to_string();
        let others: Vec<Peer> = self.others().collect();
        for peer in others {
            self.send_control(peer, what, "", epoch.as_bytes(), fx);
        }
    }

    /// Tells the federation cores of this node.
    fn tell_federation(&mut self, what: Control, fx: &mut Effects) {
        let epoch = self.placement.epoch().to_string();
        for peer in self.peers.federation_cores() {
            self.send_control(peer, what, "", epoch.as_bytes(), fx);
        }
    }

    /// The federation cores of this node have let go of what they lost.
    fn has_federation_sealed(&self) -> bool {
        let epoch = self.placement.epoch();
        let sealed = &self.handover.sealed;
        let mut cores = self.peers.federation_cores();
        cores.all(|peer| sealed.get(&self.peers.place(peer)).is_some_and(|newest| *newest >= epoch))
    }

    /// - takes: the newest epoch that each has told
    fn have_all_told(&self, told: &Map<Place, u64>) -> bool {
        let epoch = self.placement.epoch();
        self.others()
            .all(|peer| told.get(&self.peers.place(peer)).is_some_and(|newest| *newest >= epoch))
    }

    /// This shard, as owners are named.
    pub(super) fn own(&self) -> Owner {
        Owner { node: self.peers.own().node, shard: self.id }
    }

    /// Whether frames and stanzas for that account are for this shard.
    pub(super) fn is_leaving(&self, account: AccountId) -> bool {
        self.accounts.get(account.0).is_some_and(|account| account.busy == Busy::Leaving)
    }

    /// What was routed by an epoch that is not known here waits for that. Gives whether it does.
    pub(super) fn park(&mut self, envelope: &Envelope<'_>, to: &str, at: FrameRef) -> bool {
        let is_early = envelope.epoch > self.placement.epoch();
        if !is_early || self.handover.parked.len() >= PARKED_MAX {
            return false;
        }
        self.hold_frame(at.awaited(envelope.flags));
        self.handover.parked.push_back(Queued::new(envelope, to, at));
        true
    }

    /// As `park`, of a message that comes again, though its account may be ours.
    pub(super) fn park_again(&mut self, envelope: &Envelope<'_>, at: FrameRef) -> bool {
        let is_parked = self.park(envelope, envelope.to, at);
        if is_parked && !self.handover.parked_again.contains(envelope.from) {
            self.handover.parked_again.insert(envelope.from.into());
        }
        is_parked
    }

    /// A message whose sender has others waiting that come again does not overtake those (R6). Its session may be a new one,
    /// of which nothing comes again.
    pub(super) fn park_behind(&mut self, envelope: &Envelope<'_>, at: FrameRef) -> bool {
        // Errors answer what counts as handled, and nobody waits for them.
        let is_said = || match envelope.kind {
            Kind::Message => !is_error(envelope),
            _ => is_labelled(envelope),
        };
        envelope.epoch > self.placement.epoch()
            && self.handover.parked_again.contains(envelope.from)
            && is_said()
            && self.park(envelope, envelope.to, at)
    }

    fn enter(&mut self, place: Place, fx: &mut Effects) -> Option<Peer> {
        let peer = self.peers.enter(place)?;
        self.grow(fx);
        Some(peer)
    }

    /// Nodes that lie between a session and its client: 1 where its socket is on another one.
    pub(super) fn hops_to(&self, session: SessionId) -> u8 {
        if !self.handover.is_cluster() {
            return 0;
        }
        let conn = self.sessions.get(session.0).and_then(|session| session.conn);
        u8::from(conn.and_then(|conn| self.conns.get(conn.0)).is_some_and(|conn| conn.is_relayed))
    }

    /// A message that crossed so many nodes goes to a session's client.
    pub(super) fn count_hops(&mut self, hops: u8, session: SessionId) {
        if self.handover.is_cluster() {
            let hops = usize::from(hops + self.hops_to(session));
            let most = self.probe.hops.len() - 1;
            self.probe.hops[hops.min(most)] += 1;
        }
    }

    /// Room for all peers that are known.
    fn grow(&mut self, fx: &mut Effects) {
        for index in self.outward.len()..self.peers.count() {
            let peer = Peer(u16::try_from(index).unwrap_or(u16::MAX));
            let run = self.peers.place(peer).run;
            let own = self.peers.own();
            self.outward.push(super::Outward::to_node(super::peers::first_number(run)));
            self.inward.push(super::Inward::from_node(super::peers::first_number(own)));
        }
        fx.make_room(self.outward.len());
    }

    /// Why the stream of a session ends whose account has moved: with where to go, if clients are told.
    fn moved_to(&self, account: &BareJid) -> StreamError {
        let owner = self.placement.owner(account.hash64()).node;
        let view = self.handover.view.as_ref().filter(|_| self.config.redirects);
        let address = view.and_then(|view| view.node(owner)?.clients.first());
        address.map_or_else(moved, |host| StreamError::see_other_host(host))
    }
}

/// The marks of a frame that goes on: where somebody waits for the one that came, that waits for this.
pub(super) fn sent_on(flags: Flags) -> Flags {
    match flags.contains(Flags::WANTS_ACK) {
        true => flags.with(Flags::SENT_ON),
        false => flags,
    }
}

/// Why streams end whose account has moved.
pub(super) fn moved() -> StreamError {
    StreamError::new(StreamCondition::Reset).with_text("the account has moved to another node")
}
