//! A session that moves with its account to another shard: what its client may resume, as it left its stream.
//!
//! Only what can be resumed moves; its stream has ended here, and the client takes it up again wherever it gets in. A
//! session that nobody resumes ends at its new owner as it would have ended here.

use super::control::Control;
use super::effect::Effects;
use super::feature::Manifest;
use super::peers::Peer;
use super::session::{Presence, Session, SessionId};
use super::turn::Turn;
use super::{Core, Shard, Timer};
use crate::base::hash::{Map, Set};
use crate::base::instant::Wall;
use crate::cluster::placement::Owner;
use crate::frame::Envelope;
use crate::stream::resume::{Counters, CountersImage};
use crate::xmpp::jid::{BareJid, Jid};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rkyv::rancor::Error as RkyvError;
use rkyv::{Archive, Deserialize, Serialize};
use std::time::Duration;

/// Bytes of an image, at most: larger sessions end instead, and leave what they keep to the log.
const IMAGE_BYTES_MAX: usize = 8 << 20;

/// Sessions that moved while stanzas of theirs were not handled: their old shard tells the new one of each that is.
#[derive(Debug, Default)]
pub(super) struct Moved {
    /// Those that left: account, name for resumption, and how many answers are still to come.
    left: Map<SessionId, (BareJid, Box<str>, u32)>,
    /// Those of them that had come with stanzas of which their first owner tells.
    passing: Set<SessionId>,
    /// What is to be told at the end of the turn.
    done: Vec<(SessionId, u32)>,
    /// Those that came, and from where.
    came: Map<SessionId, Peer>,
}

impl Moved {
    fn left(&mut self, session: SessionId, image: &SessionImage) {
        let things: u32 = image.counters.things_open();
        if let Ok(jid) = Jid::parse(&image.jid)
            && things > 0
        {
            let id = image.counters.id.as_str().into();
            self.left.insert(session, (jid.into_bare(), id, things));
            if self.came.remove(&session).is_some() {
                self.passing.insert(session);
            }
        }
    }

    /// Those that were at such an owner are lost with it.
    pub(super) fn forget(&mut self, is_lost: impl Fn(&BareJid) -> bool) {
        self.left.retain(|_, (jid, ..)| !is_lost(jid));
        self.passing.retain(|session| self.left.contains_key(session));
    }

    /// Nobody waits for an answer from here.
    pub(super) fn is_done(&self) -> bool {
        self.left.keys().all(|session| self.passing.contains(session))
    }

    pub(super) fn done(&mut self, session: SessionId, number: u32) {
        if !self.left.is_empty() && self.left.contains_key(&session) {
            self.done.push((session, number));
        }
    }
}

/// Version 1 of the image of a session.
#[derive(Archive, Serialize, Deserialize, Debug)]
struct SessionImage {
    jid: String,
    since: u64,
    counters: CountersImage,
    presence: Option<PresenceImage>,
    directed: Vec<String>,
    interested: bool,
    open_iqs: Vec<(String, String)>,
    /// What features keep with it, by the name of the slot.
    slots: Vec<(String, Vec<u8>)>,
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
        let slots = self.pack_session(session, fx);
        let core = &mut self.core;
        let Some(slot) = core.sessions.get(session.0) else { return true };
        let Some(counters) = slot.counters.as_deref() else { return false };
        let image = SessionImage {
            jid: slot.text.to_string(),
            since: slot.since.0,
            counters: counters.image(),
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
        };
        let Ok(bytes) = rkyv::to_bytes::<RkyvError>(&image) else { return false };
        if bytes.len() > IMAGE_BYTES_MAX || core.is_ring_full(peer, fx) {
            return false;
        }
        let text = STANDARD.encode(&bytes);
        let bare = slot.jid.bare().as_str().to_owned();
        core.send_control(peer, Control::Session, &bare, text.as_bytes(), fx);
        core.probe.sessions_moved_out += 1;
        core.moved.left(session, &image);
        self.forget_session(session);
        true
    }

    /// The session is another shard's now: nobody is told of an end.
    fn forget_session(&mut self, session: SessionId) {
        let core = &mut self.core;
        let Some(slot) = core.sessions.remove(session.0) else { return };
        if let Some(resumable) = slot.counters.and_then(|counters| counters.resumable) {
            core.resumable.remove(&resumable.id);
        }
        if let Some(account) = core.accounts.get_mut(slot.account.0) {
            account.sessions.retain(|other| *other != session);
        }
    }

    /// A session comes with its account.
    pub(super) fn session_arrives(
        &mut self,
        envelope: &Envelope<'_>,
        from: Peer,
        fx: &mut Effects,
    ) {
        let image = STANDARD.decode(envelope.stanza).ok();
        let image = image.filter(|bytes| bytes.len() <= IMAGE_BYTES_MAX);
        let image = image.and_then(|bytes| {
            let mut aligned = rkyv::util::AlignedVec::<16>::new();
            aligned.extend_from_slice(&bytes);
            rkyv::from_bytes::<SessionImage, RkyvError>(&aligned).ok()
        });
        let Some(image) = image else { return };
        let Ok(jid) = Jid::parse(&image.jid) else { return };
        let core = &mut self.core;
        if core.placement.owner(jid.bare().hash64()) != core.own() {
            // Owners changed once more while it was on its way.
            let bare = jid.bare().clone();
            core.tell_owner(&bare, Control::Session, bare.as_str(), envelope.stanza, fx);
            return;
        }
        let Some(counters) = Counters::from_image(image.counters) else { return };
        let Some(resumable) = counters.resumable.clone() else { return };
        let is_open = counters.open_count() > 0;
        let bare = jid.bare().clone();
        let Some(account) = core.account(&bare, fx) else { return };
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
        session.open_iqs =
            image.open_iqs.into_iter().map(|(from, id)| (from.into(), id.into())).collect();
        let id = SessionId(core.sessions.insert(session));
        if is_open {
            core.moved.came.insert(id, from);
        }
        core.resumable.insert(resumable.id, id);
        if let Some(slot) = core.accounts.get_mut(account.0) {
            slot.sessions.push(id);
        }
        core.wheel.insert(ends_at, Timer::Resume(id));
        core.probe.sessions_moved_in += 1;
        self.unpack_session(id, &image.slots, fx);
    }

    /// A stanza of a session that came is handled where it was sent.
    pub(super) fn stanza_done(&mut self, envelope: &Envelope<'_>, text: &str, fx: &mut Effects) {
        let Some((id, number)) = text.rsplit_once(' ') else { return };
        let (Ok(jid), Ok(number)) = (BareJid::parse(envelope.from), number.parse()) else {
            return;
        };
        let core = &mut self.core;
        if core.tell_owner(&jid, Control::StanzaDone, jid.as_str(), text.as_bytes(), fx) {
            return;
        }
        let session = core.resumable.get(id).copied().filter(|session| {
            core.sessions.get(session.0).is_some_and(|session| *session.jid.bare() == jid)
        });
        let Some(session) = session else { return };
        core.complete(session, number);
        let counters = core.sessions.get(session.0).and_then(|slot| slot.counters.as_ref());
        if counters.is_none_or(|counters| counters.open_count() == 0) {
            core.moved.came.remove(&session);
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
        for (session, number) in std::mem::take(&mut self.moved.done) {
            let Some((jid, id, things)) = self.moved.left.get_mut(&session) else { continue };
            *things -= 1;
            let (jid, text) = (jid.clone(), format!("{id} {number}"));
            if *things == 0 {
                self.moved.left.remove(&session);
                self.moved.passing.remove(&session);
            }
            if !self.tell_owner(&jid, Control::StanzaDone, jid.as_str(), text.as_bytes(), fx) {
                // It came back.
                let session = self.resumable.get(text.split(' ').next().unwrap_or_default());
                if let Some(session) = session.copied() {
                    self.advance(session, |counters| counters.complete(number));
                }
            }
        }
    }

    /// Those who would tell what becomes of open stanzas are gone.
    pub(super) fn forget_arrivals(&mut self, gone: &[Peer]) {
        let lost: Vec<SessionId> = self
            .moved
            .came
            .extract_if(|_, from| gone.contains(from))
            .map(|(session, _)| session)
            .collect();
        for session in lost {
            self.advance(session, |counters| {
                counters.forget_open();
                true
            });
        }
    }
}

/// What a feature is called between nodes.
fn name(manifest: &Manifest) -> String {
    manifest.specs.first().map(|spec| spec.name.to_owned()).unwrap_or_default()
}
