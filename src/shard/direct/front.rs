//! At the front: the client's bytes are cut and read as its owner does it, and messages go to where they are for.

use super::label::{Label, origin};
use crate::base::hash::Map;
use crate::base::instant::{Now, Wall};
use crate::cluster::relay::Leave;
use crate::cluster::view::Place;
use crate::frame::{Envelope, Flags, Kind, Recipients, message_flags};
use crate::shard::control::Control;
use crate::shard::effect::{Action, Effects};
use crate::shard::peers::Peer;
use crate::shard::ring::Carried;
use crate::shard::route::Realm;
use crate::shard::{Core, Shard};
use crate::xmpp::jid::Jid;
use crate::xmpp::ns;
use crate::xmpp::stanza::{IqType, MessageType, Stanza, StanzaKind, write_stamped};
use crate::xmpp::xml::framer::{Framer, Step};
use crate::xmpp::xml::reader;
use std::fmt::Write as _;
use std::sync::Arc;

/// Messages of one stream that are sent and not handled: above, its client is not read.
const OUT_MAX: u32 = 256;
/// Larger stanzas go by way of the owner: none may need more credit than there ever is.
const STANZA_BYTES_MAX: usize = 16 << 10;

/// What became of the next bytes of a client.
#[derive(Debug, PartialEq, Eq)]
pub enum FrontSaid {
    /// They are a message that is on its way. They go to the connection's owner as such.
    Sent { number: u32, at: Wall, bytes: Vec<u8> },
    /// They go to the owner, who deals with them.
    Pass(Vec<u8>),
    /// Likewise, and so does all that follows until the owner allows it again.
    Stops(Vec<u8>),
    /// More must come, or something must be handled: then there is `Action::FrontGoesOn`.
    Waits,
    /// The shard knows nothing of this stream.
    Gone,
}

/// A client whose messages are sent from here.
#[derive(Debug)]
struct Front {
    jid: Jid,
    text: Arc<str>,
    /// Of its session, for labels.
    label: u64,
    owner: Peer,
    framer: Framer,
    unread: Vec<u8>,
    /// Of the stanza that was cut last.
    number: u32,
    /// Its bytes are read here.
    reads: bool,
    /// It may send no more.
    stopped: bool,
    /// The owner wants to know when all is handled.
    ends: bool,
    waits: bool,
    /// Sent and not handled.
    out: u32,
    /// Handled, and the owner was not told.
    done: Vec<u32>,
    /// Of the last message that was sent.
    last: Option<u32>,
}

/// One per shard.
#[derive(Debug, Default)]
pub(in crate::shard) struct Fronts {
    by_token: Map<u64, Front>,
    /// Those with something to tell, or to go on with.
    due: Vec<u64>,
}

/// What is done with a stanza.
enum Way {
    /// A message for this recipient, who is another's.
    Direct(Jid),
    /// The order of what it does to that of others' messages is nobody's concern.
    Beside,
    /// It may not come before messages that were sent, and what follows not before it.
    Behind,
}

impl Shard {
    /// The owner of a front's connection lets it send. Gives whether it does.
    pub fn front_begins(&mut self, now: Now, from: Place, leave: &Leave<'_>) -> bool {
        self.core.now = now;
        let core = &mut self.core;
        let Ok(jid) = Jid::parse(leave.jid) else { return false };
        let Some(owner) = core.peers.member(from) else { return false };
        // A node speaks for its own accounts only.
        let is_its = core.peers.of(core.placement.owner(jid.bare().hash64())) == Some(owner);
        if !is_its || jid.is_bare() || core.is_tracing() || core.stopping {
            return false;
        }
        if let Some(front) = core.fronts.by_token.get_mut(&leave.token) {
            if front.owner != owner || front.jid != jid || front.ends || front.out > 0 {
                return false;
            }
            (front.reads, front.stopped, front.number) = (true, false, leave.number);
            front.framer = Framer::between_stanzas(leave.root);
            return true;
        }
        let front = Front {
            text: jid.to_string().into(),
            jid,
            label: leave.label,
            owner,
            framer: Framer::between_stanzas(leave.root),
            unread: Vec::new(),
            number: leave.number,
            reads: true,
            stopped: false,
            ends: false,
            waits: false,
            out: 0,
            done: Vec::new(),
            last: None,
        };
        core.fronts.by_token.insert(leave.token, front);
        true
    }

    /// The owner takes it back.
    pub fn front_stops(&mut self, token: u64) {
        if let Some(front) = self.core.fronts.by_token.get_mut(&token) {
            front.stopped = true;
        }
    }

    /// The socket is gone, or its connection: nothing more is sent.
    pub fn front_ended(&mut self, token: u64) {
        if let Some(front) = self.core.fronts.by_token.get_mut(&token) {
            (front.reads, front.waits, front.unread) = (false, false, Vec::new());
        }
    }

    /// Whether its client may be read.
    pub fn front_is_reading(&self, token: u64) -> bool {
        self.core.fronts.by_token.get(&token).is_none_or(|front| !front.waits)
    }

    /// What a client said. Then `front_next`, until nothing more comes.
    pub fn front_input(&mut self, token: u64, bytes: &[u8]) {
        if let Some(front) = self.core.fronts.by_token.get_mut(&token).filter(|front| front.reads) {
            front.unread.extend_from_slice(bytes);
        }
    }

    /// Deals with the next piece of what a client said.
    ///
    /// - takes: `credit`, bytes that can go to the owner at once
    pub fn front_next(
        &mut self,
        now: Now,
        token: u64,
        credit: usize,
        fx: &mut Effects,
    ) -> FrontSaid {
        self.core.now = now;
        self.core.meter.leave();
        self.core.trace_enter(None);
        let said = self.next_of_front(token, credit, fx);
        self.finish(fx);
        said
    }

    fn next_of_front(&mut self, token: u64, credit: usize, fx: &mut Effects) -> FrontSaid {
        let core = &mut self.core;
        let front = core.fronts.by_token.get_mut(&token).filter(|front| front.reads);
        let Some(front) = front else { return FrontSaid::Gone };
        front.waits = false;
        if front.unread.is_empty() {
            return FrontSaid::Waits;
        }
        let before = front.framer.clone();
        let limits = &core.config.policy.limits;
        let range = match front.framer.next(&front.unread, limits) {
            Ok(Step::More(0)) => return FrontSaid::Waits,
            // Blanks show that the client is there.
            Ok(Step::More(blank)) => return FrontSaid::Pass(front.unread.drain(..blank).collect()),
            Ok(Step::Stanza(range)) => range,
            // The end, whoever brings it about.
            Ok(Step::Open(_) | Step::Close(_)) | Err(_) => return front.stops(),
        };
        let mut unread = std::mem::take(&mut front.unread);
        let mut index = std::mem::take(&mut self.index);
        let read = reader::read(&unread[range.clone()], &core.usual, limits, &mut index);
        let (mut way, mut number) = (Way::Behind, None);
        if read.is_ok() {
            let stanza = Stanza { bytes: &unread[range.clone()], index: &index };
            way = self.core.front_way(token, &stanza);
            let cut = self.core.fronts.by_token.get(&token).map_or(0, |front| front.number);
            number = stanza.kind().map(|_| cut.wrapping_add(1));
        }
        let out = self.core.fronts.by_token.get(&token).map_or(0, |front| front.out);
        let mut waits = match way {
            // Where much waits, each client has one message out: it is not for its owner to carry what is too much here.
            Way::Direct(_) => {
                let most = if self.core.is_pressed(fx) { 1 } else { OUT_MAX };
                out >= most || credit < range.end
            }
            Way::Beside => false,
            Way::Behind => out > 0 && read.is_ok(),
        };
        let mut sent = None;
        if let (Way::Direct(to), Some(number), false) = (&way, number, waits) {
            let mut went = false;
            let sound = self.contained(fx, |shard, fx| {
                let stanza = Stanza { bytes: &unread[range.clone()], index: &index };
                went = shard.send_from_front(token, number, to, &stanza, fx);
            });
            if sound && went {
                sent = Some(number);
            } else {
                way = Way::Behind;
                waits = out > 0;
            }
        }
        self.index = index;
        let at = self.core.now.wall;
        let Some(front) = self.core.fronts.by_token.get_mut(&token) else {
            return FrontSaid::Gone;
        };
        if waits {
            (front.waits, front.framer, front.unread) = (true, before, unread);
            return FrontSaid::Waits;
        }
        front.number = number.unwrap_or(front.number);
        if let (Way::Behind, None) = (&way, sent) {
            front.unread = unread;
            return front.stops();
        }
        let bytes: Vec<u8> = unread.drain(..range.end).collect();
        front.unread = unread;
        match sent {
            Some(number) => FrontSaid::Sent { number, at, bytes },
            None => FrontSaid::Pass(bytes),
        }
    }

    fn send_from_front(
        &mut self,
        token: u64,
        number: u32,
        to: &Jid,
        stanza: &Stanza<'_>,
        fx: &mut Effects,
    ) -> bool {
        let core = &mut self.core;
        let Some(front) = core.fronts.by_token.get(&token) else { return false };
        let (from, session) = (front.text.clone(), front.label);
        let kind = stanza.message_type();
        let to_text = to.to_string();
        let mut bytes = core.buffer();
        let (open_end, close_start) =
            write_stamped(&mut bytes, stanza, Some(&from), Some(&to_text));
        let message = Envelope {
            epoch: core.placement.epoch(),
            number: 0,
            hops: 0,
            ingress: core.now.wall,
            trace: None,
            flags: message_flags(kind, stanza).with(Flags::WANTS_ACK),
            from: &from,
            to: &to_text,
            also_to: Recipients::NONE,
            kind: Kind::Message,
            subtype: kind.code(),
            open_end,
            close_start,
            stanza: &bytes,
        };
        let origin = origin(session, number, stanza.bytes);
        let (since, epoch) = (message.ingress, message.epoch);
        let label = Label { origin, since, epoch, kind };
        let mut text = core.buffer();
        let sent = self.post(&label.wrap(&message, &mut text), to.bare().hash64(), fx);
        let core = &mut self.core;
        core.give_back(text);
        core.give_back(bytes);
        let Some(at) = sent else { return false };
        core.outward[usize::from(at.ring)].expect(at.number, Carried::Direct(token, number));
        core.probe.messages_sent_directly += 1;
        if let Some(front) = core.fronts.by_token.get_mut(&token) {
            front.out += 1;
            front.last = Some(number);
        }
        true
    }
}

impl Front {
    fn stops(&mut self) -> FrontSaid {
        (self.reads, self.waits) = (false, false);
        FrontSaid::Stops(std::mem::take(&mut self.unread))
    }
}

impl Core {
    /// What a stanza is, as its owner would find it.
    fn front_way(&mut self, token: u64, stanza: &Stanza<'_>) -> Way {
        let Some(kind) = stanza.kind() else { return Way::Beside };
        let Some(front) = self.fronts.by_token.get(&token) else { return Way::Behind };
        let is_own = |from: &str| from == &*front.text || from == front.jid.bare().as_str();
        if stanza.from().is_some_and(|from| !is_own(&from)) {
            return Way::Behind;
        }
        let to = match stanza.to().map(|to| self.jids.parse(&to)) {
            None => None,
            Some(Ok(to)) => Some(to),
            Some(Err(_)) => return Way::Behind,
        };
        let is_ours = |to: &Jid| self.realm(to.domain()) == Realm::Ours;
        let is_for_server = to.as_ref().is_none_or(|to| {
            is_ours(to) && (to.local().is_none() || to.is_bare() && to.bare() == front.jid.bare())
        });
        match (kind, to) {
            // What it changes may change what is allowed.
            (StanzaKind::Iq, _) if is_for_server && stanza.iq_type() != Some(IqType::Set) => {
                Way::Beside
            }
            (StanzaKind::Presence, None) => Way::Beside,
            (StanzaKind::Message, Some(to))
                if is_ours(&to)
                    && to.local().is_some()
                    && to.bare() != front.jid.bare()
                    && !front.stopped
                    && !front.ends
                    && !self.is_tracing()
                    && stanza.bytes.len() <= STANZA_BYTES_MAX
                    && matches!(stanza.message_type(), MessageType::Chat | MessageType::Normal)
                    // Copies are not the client's to make.
                    && !stanza.children().any(|child| child.namespace == ns::CARBONS) =>
            {
                Way::Direct(to)
            }
            _ => Way::Behind,
        }
    }

    /// A message of a front is handled.
    pub(in crate::shard) fn front_settled(&mut self, token: u64, number: u32) {
        if let Some(front) = self.fronts.by_token.get_mut(&token) {
            front.out = front.out.saturating_sub(1);
            front.done.push(number);
            self.fronts.due.push(token);
        }
    }

    /// The owner of a connection, which is gone, asks whether all is handled that its front sent.
    pub(in crate::shard) fn front_asked(&mut self, from: Peer, text: &str, fx: &mut Effects) {
        let Ok(token) = u64::from_str_radix(text, 16) else { return };
        match self.fronts.by_token.get_mut(&token) {
            Some(front) if front.owner == from => {
                front.ends = true;
                self.fronts.due.push(token);
            }
            Some(_) => {}
            // It never began.
            None => {
                self.send_control(from, Control::DirectEnded, "", text.as_bytes(), fx);
            }
        }
    }

    /// Tells owners what is handled, one line for each stream; the end of a turn.
    pub(in crate::shard) fn tell_owners(&mut self, fx: &mut Effects) {
        let mut due = std::mem::take(&mut self.fronts.due);
        if due.is_empty() {
            return;
        }
        due.dedup();
        let mut done: Vec<(Peer, String)> = Vec::new();
        let mut over: Vec<(Peer, String)> = Vec::new();
        for token in due {
            let Some(front) = self.fronts.by_token.get_mut(&token) else { continue };
            if front.waits {
                fx.actions.push(Action::FrontGoesOn(token));
            }
            let owner = front.owner;
            if !front.done.is_empty() {
                let place = done.iter().position(|(peer, _)| *peer == owner);
                let place = place.unwrap_or_else(|| {
                    done.push((owner, String::new()));
                    done.len() - 1
                });
                let text = &mut done[place].1;
                // Texts take whatever is written.
                let _ = write!(text, "{token:x}");
                for number in front.done.drain(..) {
                    let _ = write!(text, " {number}");
                }
                text.push('\n');
            }
            if front.ends && front.out == 0 {
                let last = front.last.map_or(String::new(), |last| format!(" {last}"));
                over.push((owner, format!("{token:x}{last}")));
                self.fronts.by_token.remove(&token);
            }
        }
        for (owner, text) in done {
            self.send_control(owner, Control::DirectDone, "", text.as_bytes(), fx);
        }
        for (owner, text) in over {
            self.send_control(owner, Control::DirectEnded, "", text.as_bytes(), fx);
        }
    }

    /// Owners have changed: who owns a client's account no longer has nothing to say of it.
    pub(in crate::shard) fn fronts_placed(&mut self, gone: &[Peer]) {
        let (peers, placement) = (&self.peers, &self.placement);
        self.fronts.by_token.retain(|_, front| !gone.contains(&front.owner));
        for front in self.fronts.by_token.values_mut() {
            let owner = peers.of(placement.owner(front.jid.bare().hash64()));
            front.stopped |= owner != Some(front.owner);
        }
    }
}
