//! A session that moves with its account to another shard: what its client may resume, as it left its stream.
//!
//! Only what can be resumed moves; its stream has ended here, and the client takes it up again wherever it gets in. A
//! session that nobody resumes ends at its new owner as it would have ended here.

use super::control::Control;
use super::copy::{Had, Out};
use super::direct::Tail;
use super::effect::Effects;
use super::feature::Manifest;
use super::peers::Peer;
use super::ring::FrameRef;
use super::session::{Presence, Session, SessionId};
use super::turn::Turn;
use super::{Core, Shard, Timer};
use crate::base::hash::Map;
use crate::base::instant::Wall;
use crate::cluster::placement::{NodeId, Owner, partition};
use crate::cluster::view::Run;
use crate::frame::{Envelope, Origin};
use crate::stream::resume::{Counters, CountersImage};
use crate::xmpp::jid::{BareJid, Jid};
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};
use std::time::Duration;

/// Bytes of an image, at most: larger sessions end instead, and leave what they keep to the log.
const IMAGE_BYTES_MAX: usize = 8 << 20;

/// What was told of sessions that are not here yet, at most.
const EARLY_MAX: usize = 65_536;

/// The slot of what may be known already of what the client says next, which is no feature's.
const TAIL: &str = "direct";
/// And that of what a session had from owners that died.
const HAD: &str = "had";

/// Sessions that moved. Until they are safe with their new owner their old shard can send them again; and it tells the new
/// one of each of their stanzas that is handled.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Those that left from here.
    left: Map<SessionId, Left>,
    /// Those that came and went on at once, since owners had changed once more.
    forwarded: Vec<Image>,
    /// What is to be told at the end of the turn.
    done: Vec<(SessionId, u32)>,
    /// Those that came with open stanzas, and the run of the node that tells of them.
    came: Map<SessionId, Run>,
    /// What was told of sessions that are still on their way here: name, stanza, how many things that waits for.
    early: Vec<(Box<str>, u32, u8)>,
}

/// A session that left.
#[derive(Debug)]
struct Left {
    jid: BareJid,
    /// Its name for resumption.
    id: Box<str>,
    /// Its stanzas that were open, and how many things each waits for now: what is said is this number, so that it may be
    /// said again.
    open: Vec<(u32, u8)>,
    /// While it may have to be sent again.
    image: Option<Image>,
}

/// A session on its way to its new owner.
#[derive(Debug)]
struct Image {
    jid: BareJid,
    /// Where it was sent.
    at: FrameRef,
    bytes: Box<[u8]>,
}

impl Left {
    fn is_done(&self) -> bool {
        self.open.iter().all(|(_, things)| *things == 0)
    }
}

impl Moved {
    /// Nobody waits for an answer from here.
    pub(super) fn is_done(&self) -> bool {
        self.left.values().all(Left::is_done)
    }

    /// Whether the session was here, and may still be told something where it is now.
    pub(super) fn has_left(&self, session: SessionId) -> bool {
        self.left.contains_key(&session)
    }

    pub(super) fn done(&mut self, session: SessionId, number: u32) {
        if self.left.is_empty() {
            return;
        }
        let open = self.left.get_mut(&session).map(|left| &mut left.open);
        let stanza = open.and_then(|open| open.iter_mut().find(|(of, _)| *of == number));
        if let Some((_, things)) = stanza {
            *things = things.saturating_sub(1);
            self.done.push((session, number));
        }
    }

    /// All have let go of what they lost: who left is with the new owner, who came is here. Those of whom something is told
    /// at the end of this turn stay until then.
    pub(super) fn settled(&mut self) {
        let done = &self.done;
        let is_to_be_told = |session: &SessionId| done.iter().any(|(of, _)| of == session);
        self.left.retain(|session, left| !left.is_done() || is_to_be_told(session));
        self.early = Vec::new();
    }

    /// This shard has sealed: from now on the new owners answer for what they were sent.
    pub(super) fn sealed(&mut self) {
        self.left.values_mut().for_each(|left| left.image = None);
        self.forwarded = Vec::new();
    }

    fn images(&mut self) -> impl Iterator<Item = &mut Image> {
        let left = self.left.values_mut().filter_map(|left| left.image.as_mut());
        left.chain(&mut self.forwarded)
    }
}

/// Version 1 of the image of a session.
#[derive(Archive, Serialize, Deserialize, Debug)]
pub(super) struct SessionImage {
    pub(super) jid: String,
    since: u64,
    pub(super) counters: CountersImage,
    presence: Option<PresenceImage>,
    directed: Vec<String>,
    interested: bool,
    open_iqs: Vec<(String, String)>,
    /// What features keep with it, by the name of the slot.
    slots: Vec<(String, Vec<u8>)>,
    /// Node and incarnation of the run that tells what becomes of its open stanzas.
    teller: (u32, u64),
    /// What its client sees of its contacts may be out of date.
    is_unsure: bool,
    /// Something was held back for its client, of which the image has nothing.
    inactive: bool,
}

impl SessionImage {
    /// Its owner died: what its client says next may have been sent, and nobody is left who knows.
    pub(super) fn may_be_said_again(&mut self, now: Wall) {
        let known = self.slots.iter().position(|(name, _)| name == TAIL);
        let known = known.and_then(|place| Tail::from_bytes(&self.slots.swap_remove(place).1));
        let window = Duration::from_secs(self.counters.window_s.into());
        self.slots.push((TAIL.to_owned(), Tail::of_dead(known, now, window).to_bytes()));
    }

    /// Its owner died, of which it had these beside what is in its queue.
    pub(super) fn had(&mut self, origins: impl Iterator<Item = Origin>) {
        let place = self.slots.iter().position(|(name, _)| name == HAD);
        let mut had = place.map(|place| self.slots.swap_remove(place).1).unwrap_or_default();
        origins.for_each(|origin| origin.write(&mut had));
        self.slots.push((HAD.to_owned(), had));
    }

    /// `None` where it is too large.
    pub(super) fn write(&self) -> Option<rkyv::util::AlignedVec> {
        let bytes = rkyv::to_bytes::<RkyvError>(self).ok()?;
        (bytes.len() <= IMAGE_BYTES_MAX).then_some(bytes)
    }

    /// What comes from another node is checked.
    pub(super) fn read(bytes: &[u8]) -> Option<SessionImage> {
        if bytes.len() > IMAGE_BYTES_MAX {
            return None;
        }
        let mut aligned = rkyv::util::AlignedVec::<16>::new();
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<SessionImage, RkyvError>(&aligned).ok()
    }
}

#[derive(Archive, Serialize, Deserialize, Debug)]
struct PresenceImage {
    priority: i8,
    stanza: Vec<u8>,
    open_end: u32,
    close_start: u32,
}

impl Shard {
    /// Sends a session that waits to be resumed to the new owner of its account. Gives false where it cannot be sent; it
    /// is as it was then.
    pub(super) fn send_session(
        &mut self,
        session: SessionId,
        owner: Owner,
        fx: &mut Effects,
    ) -> bool {
        let Some(peer) = self.core.peers.of(owner) else { return false };
        if !self.core.sessions.contains(session.0) {
            return true;
        }
        let Some(image) = self.image_of(session, true, fx) else { return false };
        let core = &mut self.core;
        let Some(slot) = core.sessions.get(session.0) else { return true };
        let Some(bytes) = image.write().filter(|_| !core.is_ring_full(peer, fx)) else {
            return false;
        };
        let jid = slot.jid.bare().clone();
        let at = core.send_control(peer, Control::Session, jid.as_str(), &bytes, fx);
        core.probe.sessions_moved_out += 1;
        // Where another tells of its stanzas, it tells the new owner.
        let is_ours = core.moved.came.remove(&session).is_none();
        let open = image.counters.open_stanzas().filter(|_| is_ours).collect();
        let id = image.counters.id.as_str().into();
        let image = Image { jid: jid.clone(), at, bytes: bytes.as_slice().into() };
        core.moved.left.insert(session, Left { jid, id, open, image: Some(image) });
        let copy = self.forget_session(session);
        self.core.copy_moves(session, copy, at);
        true
    }

    /// A session as it is; with what its client has not acknowledged, where `whole`.
    pub(super) fn image_of(
        &mut self,
        session: SessionId,
        whole: bool,
        fx: &mut Effects,
    ) -> Option<SessionImage> {
        let mut slots = self.pack_session(session, fx);
        let tail = self.core.tail_of(session);
        slots.extend(tail.map(|tail| (TAIL.to_owned(), tail.to_bytes())));
        let core = &self.core;
        let slot = core.sessions.get(session.0)?;
        slots.extend(slot.had.as_deref().map(|had| (HAD.to_owned(), had.to_bytes())));
        let counters = slot.counters.as_deref()?;
        let teller = core.moved.came.get(&session).copied().unwrap_or(core.peers.own());
        Some(SessionImage {
            jid: slot.text.to_string(),
            since: slot.since.0,
            counters: if whole { counters.image() } else { counters.image_of_tally() },
            presence: slot.presence.as_deref().map(|presence| PresenceImage {
                priority: presence.priority,
                stanza: presence.stanza.to_vec(),
                open_end: presence.open_end,
                close_start: presence.close_start,
            }),
            directed: slot.directed.iter().map(ToString::to_string).collect(),
            interested: slot.interested,
            open_iqs: slot
                .open_iqs
                .iter()
                .map(|(from, id)| (from.to_string(), id.to_string()))
                .collect(),
            slots,
            teller: (teller.node.0, teller.incarnation),
            is_unsure: core.accounts.get(slot.account.0).is_some_and(|account| account.is_unsure),
            inactive: slot.held.is_some(),
        })
    }

    /// The session is another shard's now: nobody is told of an end. Gives what is known of its copy.
    pub(super) fn forget_session(&mut self, session: SessionId) -> Option<Box<Out>> {
        let core = &mut self.core;
        let slot = core.sessions.remove(session.0)?;
        if let Some(resumable) = slot.counters.and_then(|counters| counters.resumable) {
            core.resumable.remove(&resumable.id);
        }
        if let Some(account) = core.accounts.get_mut(slot.account.0) {
            account.sessions.retain(|other| *other != session);
        }
        slot.copy
    }

    /// A session comes with its account.
    pub(super) fn session_arrives(&mut self, bytes: &[u8], fx: &mut Effects) {
        let Some(image) = SessionImage::read(bytes) else { return };
        let Ok(jid) = Jid::parse(&image.jid) else { return };
        let bare = jid.bare().clone();
        let core = &mut self.core;
        let owner = core.placement.owner(bare.hash64());
        if owner != core.own() {
            // Owners changed once more while it was on its way.
            if let Some(peer) = core.peers.of(owner) {
                let at = core.send_control(peer, Control::Session, bare.as_str(), bytes, fx);
                core.moved.forwarded.push(Image { jid: bare, at, bytes: bytes.into() });
            }
            return;
        }
        let is_unsure = image.counters.is_unsure();
        if let Some(id) = self.session_of(image, jid, fx) {
            self.core.probe.sessions_moved_in += 1;
            if is_unsure {
                self.awaken(id);
            }
            self.keep_address(id, fx);
        }
    }

    /// A session came late, from a node that is no member any more: its client may have been told that it is gone, and have
    /// bound the same resource anew. One of the two ends, as if that had bound it while the other was here; what contacts
    /// saw of it they see of the one that stays.
    pub(super) fn keep_address(&mut self, came: SessionId, fx: &mut Effects) {
        let core = &mut self.core;
        let Some(slot) = core.sessions.get(came.0) else { return };
        let (jid, since, account) = (slot.jid.clone(), slot.since, slot.account);
        let Some(owner) = core.accounts.get(account.0) else { return };
        let is_namesake = |other: &SessionId| {
            *other != came && core.sessions.get(other.0).is_some_and(|slot| slot.jid == jid)
        };
        let Some(other) = owner.sessions.iter().copied().find(is_namesake) else { return };
        let stays = core.sessions.get(other.0);
        let stays = stays.is_some_and(|slot| slot.conn.is_some() || slot.since.0 >= since.0);
        let (stays, ends) = if stays { (other, came) } else { (came, other) };
        if core.sessions.get(stays.0).is_some_and(|slot| slot.presence.is_some())
            && let Some(slot) = core.sessions.get_mut(ends.0)
        {
            slot.presence = None;
            let mut told = std::mem::take(&mut slot.directed);
            let most = core.config.limits.directed_presence;
            if let Some(slot) = core.sessions.get_mut(stays.0) {
                told.retain(|jid| !slot.directed.contains(jid));
                let room = most.saturating_sub(slot.directed.len()).min(told.len());
                slot.directed.extend(told.drain(..room));
                slot.changed |= super::copy::KEPT_WITH_IT;
            }
            if let Some(slot) = core.sessions.get_mut(ends.0) {
                slot.directed = told;
            }
        }
        self.end_session(ends, fx);
    }

    /// The session of an image waits to be resumed. Gives none where it is there already, or has ended here.
    pub(super) fn session_of(
        &mut self,
        image: SessionImage,
        jid: Jid,
        fx: &mut Effects,
    ) -> Option<SessionId> {
        if !self.takes_place(&image, &jid) {
            return None;
        }
        let core = &mut self.core;
        let had = image.slots.iter().find(|(name, _)| name == HAD);
        let had = had.map(|(_, told)| Had::new(told, &image.counters, core.now.mono));
        let counters = Counters::from_image(image.counters)?;
        let resumable = counters.resumable.clone()?;
        let account = core.account(jid.bare(), fx)?;
        let ends_at = core.now.mono + Duration::from_secs(resumable.window_s.into());
        let mut session = Session::waiting(jid, account, Wall(image.since));
        session.counters = Some(Box::new(counters));
        session.ends_at = Some(ends_at);
        session.presence = image.presence.map(|presence| {
            Box::new(Presence {
                priority: presence.priority,
                open_end: presence.open_end.min(presence.stanza.len() as u32),
                close_start: presence.close_start.min(presence.stanza.len() as u32),
                stanza: presence.stanza.into(),
            })
        });
        session.directed = image.directed.iter().filter_map(|jid| Jid::parse(jid).ok()).collect();
        session.interested = image.interested;
        let tail = image.slots.iter().find(|(name, _)| name == TAIL);
        session.tail = tail.and_then(|(_, bytes)| Tail::from_bytes(bytes)).map(Box::new);
        session.had = had.map(Box::new);
        session.open_iqs =
            image.open_iqs.into_iter().map(|(from, id)| (from.into(), id.into())).collect();
        session.missed = image.inactive;
        let id = SessionId(core.sessions.insert(session));
        core.resumable.insert(resumable.id.clone(), id);
        if let Some(slot) = core.accounts.get_mut(account.0) {
            slot.sessions.push(id);
            slot.is_unsure |= image.is_unsure;
        }
        core.wheel.insert(ends_at, Timer::Resume(id));
        let (node, incarnation) = image.teller;
        core.await_news(id, &resumable.id, Run { node: NodeId(node), incarnation });
        self.unpack_session(id, &image.slots, fx);
        self.core.note(id);
        Some(id)
    }

    /// A stanza of a session that came is handled where it was sent, or waits there for one thing less.
    pub(super) fn stanza_done(&mut self, envelope: &Envelope<'_>, text: &str, fx: &mut Effects) {
        let mut words = text.split(' ');
        let (Some(id), Some(number), Some(things)) = (words.next(), words.next(), words.next())
        else {
            return;
        };
        if let (Ok(jid), Ok(number), Ok(things)) =
            (BareJid::parse(envelope.from), number.parse(), things.parse())
        {
            self.core.tell_stanza(&jid, id, number, things, fx);
        }
    }

    /// Nodes are gone: sessions that were on their way to them go to who has their accounts now, and what was said of
    /// those that had left is said once more.
    ///
    /// - takes: by partition, whether its owner was among those that are gone
    pub(super) fn send_sessions_again(&mut self, lost: &[bool], gone: &[Peer], fx: &mut Effects) {
        let core = &mut self.core;
        let mut moved = std::mem::take(&mut core.moved);
        let mut ours = Vec::new();
        for image in moved.images().filter(|image| gone.contains(&Peer(image.at.ring))) {
            let owner = core.placement.owner(image.jid.hash64());
            match core.peers.of(owner).filter(|peer| *peer != core.id.into()) {
                Some(peer) => {
                    let (from, control) = (image.jid.as_str(), Control::Session);
                    image.at = core.send_control(peer, control, from, &image.bytes, fx);
                }
                None => ours.push(image.bytes.clone()),
            }
        }
        core.moved = moved;
        for bytes in ours {
            self.session_arrives(&bytes, fx);
        }
        let core = &mut self.core;
        let is_lost = |jid: &BareJid| lost[usize::from(partition(jid.hash64()))];
        let untold: Vec<(BareJid, Box<str>, u32, u8)> = core
            .moved
            .left
            .values()
            .filter(|left| is_lost(&left.jid))
            .flat_map(|left| {
                let one = |(number, things): &(u32, u8)| {
                    (left.jid.clone(), left.id.clone(), *number, *things)
                };
                left.open.iter().map(one)
            })
            .collect();
        for (jid, id, number, things) in untold {
            core.tell_stanza(&jid, &id, number, things, fx);
        }
    }

    /// What features keep with a session, each by the namespace of its first specification.
    fn pack_session(&mut self, session: SessionId, fx: &mut Effects) -> Vec<(String, Vec<u8>)> {
        let mut packed = Vec::new();
        for (number, feature) in self.features.iter().enumerate() {
            let turn = Turn::silent(&mut self.core, fx, number);
            if let Some(bytes) = feature.pack_session(&turn, session) {
                packed.push((name(feature.manifest()), bytes));
            }
        }
        packed
    }

    fn unpack_session(
        &mut self,
        session: SessionId,
        packed: &[(String, Vec<u8>)],
        fx: &mut Effects,
    ) {
        for (number, feature) in self.features.iter_mut().enumerate() {
            let own = name(feature.manifest());
            if let Some((_, bytes)) = packed.iter().find(|(of, _)| *of == own) {
                let mut turn = Turn::silent(&mut self.core, fx, number);
                feature.unpack_session(&mut turn, session, bytes);
            }
        }
    }
}

impl Core {
    /// Tells of stanzas of sessions that left.
    pub(super) fn tell_done(&mut self, fx: &mut Effects) {
        let done = std::mem::take(&mut self.moved.done);
        for (session, number) in &done {
            let Some(left) = self.moved.left.get(session) else { continue };
            let things = left.open.iter().find(|(of, _)| of == number).map_or(0, |it| it.1);
            let (jid, id) = (left.jid.clone(), left.id.clone());
            self.tell_stanza(&jid, &id, *number, things, fx);
        }
        if self.handover.is_settled() {
            for (session, _) in &done {
                if self.moved.left.get(session).is_some_and(Left::is_done) {
                    self.moved.left.remove(session);
                }
            }
        }
    }

    /// Has the owner of a session hear that its stanza waits for so many things.
    fn tell_stanza(&mut self, jid: &BareJid, id: &str, number: u32, things: u8, fx: &mut Effects) {
        let text = format!("{id} {number} {things}");
        if self.tell_owner(jid, Control::StanzaDone, jid.as_str(), text.as_bytes(), fx) {
            return;
        }
        let session = self.resumable.get(id).copied().filter(|session| {
            self.sessions.get(session.0).is_some_and(|session| session.jid.bare() == jid)
        });
        match session {
            Some(session) => self.settle_stanza(session, number, things),
            None if self.handover.holds(jid.hash64()) && self.moved.early.len() < EARLY_MAX => {
                self.moved.early.push((id.into(), number, things));
            }
            None => {}
        }
    }

    fn settle_stanza(&mut self, session: SessionId, number: u32, things: u8) {
        self.advance(session, |counters| counters.settle(number, things));
        let counters = self.sessions.get(session.0).and_then(|slot| slot.counters.as_ref());
        if counters.is_none_or(|counters| counters.open_count() == 0) {
            self.moved.came.remove(&session);
        }
    }

    /// A session came: its stanzas that are not handled wait for what `teller` says of them.
    fn await_news(&mut self, session: SessionId, id: &str, teller: Run) {
        let counters = self.sessions.get(session.0).and_then(|slot| slot.counters.as_ref());
        if counters.is_none_or(|counters| counters.open_count() == 0) {
            return;
        }
        if !self.handover.view().is_some_and(|view| view.has(teller)) {
            return self.forget_open(session);
        }
        self.moved.came.insert(session, teller);
        let mut known: Vec<(u32, u8)> = Vec::new();
        self.moved.early.retain(|(of, number, things)| {
            let is_it = **of == *id;
            known.extend(is_it.then_some((*number, *things)));
            !is_it
        });
        if teller == self.peers.own() {
            // It came back.
            let left = self.moved.left.values().filter(|left| *left.id == *id);
            known.extend(left.flat_map(|left| left.open.iter().copied()));
        }
        for (number, things) in known {
            self.settle_stanza(session, number, things);
        }
    }

    /// Those who would tell what becomes of open stanzas are gone.
    pub(super) fn forget_arrivals(&mut self) {
        let Some(view) = self.handover.view().cloned() else { return };
        let lost: Vec<SessionId> = self
            .moved
            .came
            .extract_if(|_, teller| !view.has(*teller))
            .map(|(session, _)| session)
            .collect();
        lost.into_iter().for_each(|session| self.forget_open(session));
    }

    fn forget_open(&mut self, session: SessionId) {
        self.advance(session, |counters| {
            counters.forget_open();
            true
        });
    }

    /// Whoever was sent a session has it.
    pub(super) fn have_sessions_arrived(&mut self) -> bool {
        let outward = &self.outward;
        self.moved
            .images()
            .all(|image| outward[usize::from(image.at.ring)].has_arrived(image.at.number))
    }
}

/// What a feature is called between nodes.
fn name(manifest: &Manifest) -> String {
    manifest.specs.first().map(|spec| spec.name.to_owned()).unwrap_or_default()
}
