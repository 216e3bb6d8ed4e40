//! How a core is woken, be it a shard's or one of federation: by other cores through rings, by side threads through letters.

use super::cluster::port::Incoming;
use super::departing::Departing;
use super::executor::{CoreSettings, MakeFeatures};
use crate::admin::figures::ShardFigures;
use crate::admin::latency::CorePart;
use crate::cluster::view::View;
use crate::shard::errand::{Announcement, Counts, Outcome, Page, SessionFacts, UsersQuery, Whose};
use crate::shard::{ConnId, Hop, ShardConfig, StoreOutcome, Ticket, TopTalkers, Watch, WatchId};
use crate::xmpp::jid::{BareJid, Jid};
use atomic_waker::AtomicWaker;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::task::Waker;

/// Wakes the one task of a core that looks at its rings and letters. One wake-up serves all that came before it.
#[derive(Debug, Default)]
pub struct Bell {
    waker: AtomicWaker,
    rung: AtomicBool,
}

impl Bell {
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Called by the core before it looks: what comes later rings again.
    pub fn listen(&self, waker: &Waker) {
        self.waker.register(waker);
        // Takes over what was sent before a ring that this clears; a later ring finds it cleared and wakes.
        self.rung.swap(false, Ordering::AcqRel);
    }
}

/// What a side thread tells a shard.
#[derive(Debug)]
pub enum Letter {
    Stored(Vec<(Ticket, StoreOutcome)>),
    /// `None`: the queue was full.
    PasswordChecked(ConnId, Option<bool>),
    AccountChanged(BareJid),
    /// Ids of a store partition below the second number were given elsewhere.
    IdsGiven(u16, u64),
    /// All that follows is decided by this.
    Reconfigured(Box<Reconfiguration>),
    /// With who was on its roster.
    AccountDeleted(BareJid, Vec<Jid>),
    Administered(Ticket, Outcome),
    /// The answer goes back on the channel.
    Status(Sender<ShardFigures>),
    /// The answer goes back on the channel.
    Talkers(Sender<TopTalkers>),
    /// A page of sessions from the slot on, of so many at most.
    Sessions(Whose, u32, usize, Sender<Page<SessionFacts>>),
    Users(UsersQuery, Sender<(Page<BareJid>, Counts)>),
    /// How many sessions are ended goes back on the channel.
    EndSessions(Jid, Sender<u64>),
    /// A page of an announcement from the slot on; where the next begins goes back on the channel.
    Announce(Arc<Announcement>, u32, Sender<Option<u32>>),
    /// What was measured goes back on the channel; what comes is empty, and counts from then on.
    Latencies(CorePart, Sender<CorePart>),
    /// Hops go to the first channel from now on; the other one learns that it is so.
    Watch(Watch, SyncSender<Hop>, Sender<()>),
    /// How many hops were not told since the last one goes back on the channel.
    EndWatch(WatchId, Sender<u64>),
    /// From another node, or of the link to it.
    Link(Incoming),
    /// The members of the cluster, from now on.
    View(Arc<View>),
    /// Sockets whose accounts are elsewhere are told to go, from now on; `None`: no more of them.
    Depart(Option<Departing>),
    Shutdown,
}

/// What a core takes over from a configuration that was read again.
#[derive(Clone)]
pub struct Reconfiguration {
    pub shard: Arc<ShardConfig>,
    pub features: MakeFeatures,
    pub core: CoreSettings,
}

impl fmt::Debug for Reconfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reconfiguration(..)")
    }
}

/// Sends letters to one core. Cloned to every side thread.
#[derive(Debug)]
pub struct Mailbox<L = Letter> {
    letters: Sender<L>,
    bell: Arc<Bell>,
}

impl<L> Clone for Mailbox<L> {
    fn clone(&self) -> Self {
        Self { letters: self.letters.clone(), bell: self.bell.clone() }
    }
}

impl<L> Mailbox<L> {
    pub fn new() -> (Self, Receiver<L>) {
        let (letters, receiver) = channel();
        (Self { letters, bell: Arc::default() }, receiver)
    }

    /// Letters to a core that has ended are lost, as nobody is left to read them.
    pub fn send(&self, letter: L) {
        if self.letters.send(letter).is_ok() {
            self.bell.ring();
        }
    }

    pub fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }
}

/// A core that asks the store and takes its answers as letters.
pub trait StoreAsker: Send + Sync {
    fn answer(&self, answers: Vec<(Ticket, StoreOutcome)>);
}

impl StoreAsker for Mailbox {
    fn answer(&self, answers: Vec<(Ticket, StoreOutcome)>) {
        self.send(Letter::Stored(answers));
    }
}
