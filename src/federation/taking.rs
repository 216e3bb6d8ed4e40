//! Streams that are taken up again (XEP-0198) on another core than had them: the kernel picks the core of a new connection,
//! so the one that a peer comes back to asks the others whose stream it was.
//!
//! Whoever has it gives it away when the shards have handled all that came on it: a name, and a number. The others say that
//! they have none. Requests and answers are control frames on the rings between the cores, with the domains of the stream
//! as their addresses. So is the word that a peer has come, for the core that deals with its domain.

use super::effect::{ConnId, Effects};
use super::frames::{Post, domain_jid};
use super::managed::{Received, ReceivedId};
use super::{Core, Failure, Timer};
use crate::base::ids::Id;
use crate::frame::Envelope;
use crate::stream::resume::Counters;
use crate::stream::s2s::Pair;

/// Names of ours are shorter.
const NAME_BYTES_MAX: usize = 64;

/// Who has the stream of this name?
const ASK: u8 = 1;
/// It is yours.
const GIVE: u8 = 2;
/// Here is none.
const NONE: u8 = 3;
/// A peer of this domain, which is yours, has come here and proved who it is.
const ALIVE: u8 = 4;

/// A connection whose `<resume/>` waits for what other cores say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taking {
    /// What the peer has of ours.
    h: u32,
    /// Cores that have not answered.
    left: u16,
}

/// The core, and the connection there, that asked for a stream.
pub(super) type Asker = (u16, u64);

/// A connection of the core that asks, a number, and the name of a stream.
fn read(stanza: &[u8]) -> Option<(u64, u32, &str)> {
    let mut parts = std::str::from_utf8(stanza).ok()?.splitn(3, ' ');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?))
}

impl Core {
    /// Asks all other cores for a stream that a peer wants to go on with here.
    ///
    /// - gives: whether there are others
    pub(super) fn ask_cores(&mut self, id: ConnId, name: &str, h: u32, fx: &mut Effects) -> bool {
        if name.len() > NAME_BYTES_MAX {
            return false;
        }
        let stream = self.conns.get(id.0).and_then(|conn| conn.stream.as_ref());
        let Some(pair) = stream.and_then(|stream| stream.inbound().first().cloned()) else {
            return false;
        };
        let others = (0..self.config.cores).filter(|core| *core != self.config.index);
        let mut left = 0;
        for core in others.collect::<Vec<_>>() {
            left += u16::from(self.tell_core(core, ASK, &pair, (id.0.to_u64(), 0, name), fx));
        }
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.managed.taking = Some(Taking { h, left });
        }
        left > 0
    }

    fn tell_core(
        &mut self,
        core: u16,
        what: u8,
        pair: &Pair,
        (conn, h, name): (u64, u32, &str),
        fx: &mut Effects,
    ) -> bool {
        let stanza = format!("{conn} {h} {name}");
        let to = (&pair.local, pair.local.as_str());
        let post = Post::control(what, pair.remote.as_str(), to, stanza.as_bytes(), self.now.wall);
        self.post_on(self.config.shards + core, &post, None, fx)
    }

    /// Tells the core that deals with a domain that its peer is there.
    pub(super) fn tell_alive(&mut self, core: u16, pair: &Pair, fx: &mut Effects) {
        self.tell_core(core, ALIVE, pair, (0, 0, ""), fx);
    }

    /// A control frame of another core.
    pub(super) fn core_says(&mut self, core: u16, envelope: &Envelope<'_>, fx: &mut Effects) {
        let (Some((conn, h, name)), Some(local), Some(remote)) =
            (read(envelope.stanza), domain_jid(envelope.to), domain_jid(envelope.from))
        else {
            self.probe.control_frames_ignored += 1;
            return;
        };
        let pair = Pair { local, remote };
        match envelope.subtype {
            ASK => self.asked_for_stream((core, conn), &pair, name, fx),
            GIVE if self.has_room_to_resume() => {
                self.stream_given(ConnId(Id::from_u64(conn)), pair, name, h);
            }
            GIVE | NONE => self.no_stream_there(ConnId(Id::from_u64(conn)), fx),
            ALIVE => self.pair_is_alive(&pair, false, fx),
            _ => self.probe.control_frames_ignored += 1,
        }
    }

    fn asked_for_stream(&mut self, asker: Asker, pair: &Pair, name: &str, fx: &mut Effects) {
        let found = self.resumables.get(name).copied();
        let found = found.filter(|it| self.received.get(it.0).is_some_and(|it| it.pair == *pair));
        let Some(found) = found else {
            self.tell_core(asker.0, NONE, pair, (asker.1, 0, name), fx);
            return;
        };
        if let Some(conn) = self.received.get(found.0).and_then(|it| it.conn) {
            // The peer gave it up before we noticed.
            self.cut(conn, Failure::Lost, "its stream was taken up on another connection", fx);
        }
        self.stays(found, fx);
        if let Some(received) = self.received.get_mut(found.0) {
            received.asker = Some(asker);
            self.giving.push(found);
        }
    }

    /// A stream that another core asked for is taken up here, or over: that core does not get it.
    pub(super) fn stays(&mut self, id: ReceivedId, fx: &mut Effects) {
        let Some(received) = self.received.get_mut(id.0) else { return };
        if let Some((core, conn)) = received.asker.take() {
            let (pair, name) = (received.pair.clone(), received.name.clone());
            self.tell_core(core, NONE, &pair, (conn, 0, &name), fx);
        }
    }

    /// Gives away what was asked for and is handled.
    pub(super) fn give_streams(&mut self, fx: &mut Effects) {
        for id in std::mem::take(&mut self.giving) {
            let is_ready = |it: &&Received| it.asker.is_some() && it.counters.open_count() == 0;
            let Some((core, conn)) =
                self.received.get(id.0).filter(is_ready).and_then(|it| it.asker)
            else {
                continue;
            };
            if let Some(mut received) = self.received.remove(id.0) {
                self.resumables.remove(&received.name);
                let h = received.counters.tell();
                self.tell_core(core, GIVE, &received.pair, (conn, h, &received.name), fx);
            }
        }
    }

    /// A stream of another core is ours from here on, whether or not the connection that wanted it is there still.
    fn stream_given(&mut self, id: ConnId, pair: Pair, name: &str, h: u32) {
        let received = Received {
            name: name.into(),
            pair,
            counters: Counters::going_on(h),
            conn: None,
            lost_at: None,
            asker: None,
        };
        let received = ReceivedId(self.received.insert(received));
        self.resumables.insert(name.into(), received);
        let taking = self.conns.get_mut(id.0).and_then(|conn| {
            let taking = conn.managed.taking.take()?;
            conn.managed.received = Some(received);
            conn.managed.resuming = Some(taking.h);
            Some(taking)
        });
        let Some(slot) = self.received.get_mut(received.0) else { return };
        match taking {
            Some(_) => slot.conn = Some(id),
            None => {
                slot.lost_at = Some(self.now.mono);
                self.wheel
                    .insert(self.now.mono + self.config.limits.resume, Timer::Resume(received));
            }
        }
        self.note(id);
    }

    fn no_stream_there(&mut self, id: ConnId, fx: &mut Effects) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let Some(taking) = &mut conn.managed.taking else { return };
        taking.left = taking.left.saturating_sub(1);
        if taking.left == 0 {
            conn.managed.taking = None;
            self.not_resumed(id, fx);
        }
    }

    /// There is no such stream; another may be begun.
    pub(super) fn not_resumed(&mut self, id: ConnId, fx: &mut Effects) {
        self.with_stream(id, fx, |stream, out| {
            stream.not_managed("item-not-found", None, out);
        });
        self.resumed_conns.push(id);
    }
}
