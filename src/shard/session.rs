//! A bound resource: its socket, its XEP-0198 state, its presence. Lives on the shard that holds the socket.

use super::account::AccountId;
use super::copy::{Had, Out};
use super::direct::Tail;
use super::effect::ConnId;
use super::inactive::Held;
use crate::base::ids::Id;
use crate::base::instant::{Instant, Wall};
use crate::stream::resume::Counters;
use crate::xmpp::jid::Jid;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub Id);

/// What a resource last told its contacts (RFC 6121 §4).
#[derive(Clone, Debug)]
pub(super) struct Presence {
    pub priority: i8,
    /// The whole stanza, stamped with the full JID and without `to`.
    pub stanza: Box<[u8]>,
    /// Where its open tag ends and its close tag starts.
    pub open_end: u32,
    pub close_start: u32,
}

/// Logged messages that went to a client without XEP-0198: the answer to a ping behind them confirms them.
#[derive(Debug, Default)]
pub(super) struct Confirmation {
    /// Written and not confirmed, oldest first.
    pub rows: VecDeque<u64>,
    /// How many of `rows` the ping that is out covers.
    pub covered: usize,
    /// Numbers the pings, so that an old answer confirms nothing new.
    pub ping: u32,
}

/// One session.
#[derive(Debug)]
pub(super) struct Session {
    pub jid: Jid,
    /// The full JID as text: the `from` of all it sends.
    pub text: Arc<str>,
    pub account: AccountId,
    /// `None` while the session waits to be resumed.
    pub conn: Option<ConnId>,
    /// When it was bound.
    pub since: Wall,
    pub counters: Option<Box<Counters>>,
    pub confirmation: Option<Box<Confirmation>>,
    pub presence: Option<Box<Presence>>,
    /// Addresses outside the roster that were told of our presence (RFC 6121 §4.6).
    pub directed: Vec<Jid>,
    /// Has asked for the roster, so that pushes go to it (RFC 6121 §2.1.6).
    pub interested: bool,
    /// IQ requests delivered to the client and not answered: sender and id.
    pub open_iqs: Vec<(Box<str>, Box<str>)>,
    /// On the list of sessions to look at when the turn ends.
    pub noted: bool,
    /// Bugs that its stanzas ran into; repeats end the stream.
    pub faults: u8,
    /// Wants to resume it, and waits until all that it received is handled.
    pub resuming: Option<ConnId>,
    /// When it ends if nobody resumes it.
    pub ends_at: Option<Instant>,
    /// There while its client is inactive (XEP-0352).
    pub held: Option<Box<Held>>,
    /// What its client sends again may have been sent by a front that is gone.
    pub tail: Option<Box<Tail>>,
    /// What it had from owners that died, where it outlived one.
    pub had: Option<Box<Had>>,
    /// State of features, by its type.
    pub slots: Option<Box<SessionSlots>>,
    /// Its copy elsewhere, and what that does not know yet beside the counters (`copy`).
    pub copy: Option<Box<Out>>,
    pub changed: u8,
    /// It came from a copy that did not have all that its client was to hear of others.
    pub missed: bool,
}

/// What features keep with a session. Goes with it, and is never stored.
#[derive(Debug, Default)]
pub(super) struct SessionSlots(Vec<Box<dyn Any>>);

impl SessionSlots {
    pub(super) fn find<T: Any>(&self) -> Option<&T> {
        self.0.iter().find_map(|slot| slot.downcast_ref())
    }

    /// Made at its first use.
    pub(super) fn slot<T: Any + Default>(&mut self) -> &mut T {
        let place = match self.0.iter().position(|slot| slot.is::<T>()) {
            Some(place) => place,
            None => {
                self.0.push(Box::new(T::default()));
                self.0.len() - 1
            }
        };
        let slot = self.0[place].downcast_mut::<T>();
        slot.expect("a slot has the type by which it was found")
    }
}

impl Session {
    pub(super) fn new(jid: Jid, account: AccountId, conn: ConnId, since: Wall) -> Self {
        let text = jid.to_string().into();
        Self {
            jid,
            text,
            account,
            conn: Some(conn),
            since,
            counters: None,
            confirmation: None,
            presence: None,
            directed: Vec::new(),
            interested: false,
            open_iqs: Vec::new(),
            noted: false,
            faults: 0,
            ends_at: None,
            resuming: None,
            held: None,
            tail: None,
            had: None,
            slots: None,
            copy: None,
            changed: 0,
            missed: false,
        }
    }

    /// One that waits to be resumed.
    pub(super) fn waiting(jid: Jid, account: AccountId, since: Wall) -> Self {
        let mut session = Self::new(jid, account, ConnId(Id::from_u64(0)), since);
        session.conn = None;
        session
    }

    pub(super) fn resource(&self) -> &str {
        self.jid.resource().unwrap_or_default()
    }

    /// Priority of an available resource; `None` while unavailable.
    pub(super) fn priority(&self) -> Option<i8> {
        self.presence.as_ref().map(|presence| presence.priority)
    }

    /// Whether it holds the log row `id` unconfirmed.
    pub(super) fn holds_row(&self, id: u64) -> bool {
        let counted = self.counters.as_ref();
        counted
            .is_some_and(|counters| counters.unacknowledged().any(|sent| sent.log_id == Some(id)))
            || self.confirmation.as_ref().is_some_and(|waiting| waiting.rows.contains(&id))
    }
}
