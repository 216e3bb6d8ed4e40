//! Traces: an operator watches an address or a stanza id, and is told each step of its stanzas. Bodies and other payload
//! are never told, only the names of elements.
//!
//! While nobody watches, there is no `Tracing` and each step costs one look for it. A stanza that is watched gets a
//! number, which its frame carries to other cores; what comes of it (an error, an answer, presence for many) carries the
//! same. The clock is read for each step that is told. Hops are kept until the turn ends, then the runtime takes them.
//!
//! `about` says what is told of a stanza, `hooks` where.

mod about;
mod hooks;

pub use about::About;

use super::effect::ConnId;
use super::latency::Laps;
use super::session::SessionId;
use super::{Core, Shard};
use crate::base::instant::{Instant, Now, Wall};
use crate::xmpp::jid::Jid;
use std::collections::VecDeque;

/// Watches at a time: as many as a stanza's number has place for.
pub const WATCHES_MAX: usize = 4;
/// Hops that one shard tells one watch in a second. The others are counted.
pub const HOPS_PER_S: u32 = 200;
/// Stanzas that left and are followed until they are in the socket, and as many until they are acknowledged.
const FOLLOWED_MAX: usize = 1_024;
/// Why a stanza is not delivered now.
pub(super) const NOBODY: &str = "no session takes it";
pub(super) const BY_FEATURE: &str = "by a feature";
/// Of a stanza's number: 16 bits of the shard that gave it, 24 that count; above them 6 bits for each watch.
const OWN_BITS: u32 = 40;
const COUNT_BITS: u32 = 24;
const WATCH_BITS: u32 = 6;

/// Tells the watches of a node apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId {
    slot: u8,
    /// Another one than that of the watch which had the slot before, of which stanzas may still be on their way.
    turn: u8,
}

impl WatchId {
    /// - `slot`: below `WATCHES_MAX`, and not that of another watch
    /// - `count`: how many there were before
    pub fn new(slot: usize, count: u64) -> WatchId {
        assert!(slot < WATCHES_MAX, "a slot for each watch");
        WatchId { slot: slot as u8, turn: (count % ((1 << WATCH_BITS) - 1)) as u8 + 1 }
    }

    pub fn slot(self) -> usize {
        self.slot.into()
    }

    fn shift(self) -> u32 {
        OWN_BITS + WATCH_BITS * u32::from(self.slot)
    }

    fn is_in(self, trace: u64) -> bool {
        (trace >> self.shift()) & ((1 << WATCH_BITS) - 1) == u64::from(self.turn)
    }

    fn put_into(self, trace: u64) -> u64 {
        let others = trace & !(((1 << WATCH_BITS) - 1) << self.shift());
        others | u64::from(self.turn) << self.shift()
    }
}

/// Whose stanzas are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    /// What an account or service sends and gets, or one resource of it.
    Address(Jid),
    /// Stanzas with this id.
    Id(Box<str>),
}

impl Whom {
    /// - `address`: prepared
    fn is(&self, address: &str) -> bool {
        match self {
            Whom::Address(whom) if whom.is_bare() => {
                super::deliver::split(address).0 == whom.bare().as_str()
            }
            Whom::Address(whom) => whom.is(address),
            Whom::Id(_) => false,
        }
    }

    fn has_id(&self, id: Option<&str>) -> bool {
        matches!(self, Whom::Id(wanted) if id == Some(wanted))
    }
}

/// What an operator wants to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    pub id: WatchId,
    pub whom: Whom,
}

/// What happened to a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Read from its sender's connection.
    Received,
    /// Its recipient is owned by this shard.
    Routed,
    /// In a frame for another shard.
    Crossing,
    /// At its recipient's owner, from another shard or from what waited.
    Arrived,
    /// Until its recipient's account can take it.
    Waiting,
    /// In the output of a recipient's connection.
    Delivered,
    /// For a client that nobody looks at (XEP-0352).
    Held,
    /// For a client that may resume its session (XEP-0198).
    Queued,
    /// No session takes it now: it stays in the log for the next one.
    Offline,
    /// Its row in the log is durable.
    Stored,
    /// Read from the log for a session.
    Replayed,
    /// The kernel has it.
    Written,
    /// By the client (XEP-0198).
    Acknowledged,
    /// It goes back to its sender.
    Refused,
    /// A feature dealt with it, and it goes no further.
    Taken,
    /// Nobody gets it, and nobody is told.
    Dropped,
}

impl Step {
    pub fn name(self) -> &'static str {
        match self {
            Step::Received => "received",
            Step::Routed => "routed",
            Step::Crossing => "crossing",
            Step::Arrived => "arrived",
            Step::Waiting => "waiting",
            Step::Delivered => "delivered",
            Step::Held => "held",
            Step::Queued => "queued",
            Step::Offline => "offline",
            Step::Stored => "stored",
            Step::Replayed => "replayed",
            Step::Written => "written",
            Step::Acknowledged => "acknowledged",
            Step::Refused => "refused",
            Step::Taken => "taken",
            Step::Dropped => "dropped",
        }
    }
}

/// A step of a stanza, for one watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    pub watch: WatchId,
    /// Of the stanza and what comes of it, in the node: the shard that saw it first, and a number there.
    pub stanza: (u16, u32),
    /// Where it was.
    pub shard: u16,
    pub at: Instant,
    pub wall: Wall,
    pub step: Step,
    /// Whereto, wherefrom, or why.
    pub detail: String,
    pub about: About,
    /// So many hops of the watch before this one were not told.
    pub left_out: u64,
}

/// A stanza that is followed when its bytes are gone.
#[derive(Clone, Debug)]
pub(super) struct Traced {
    trace: u64,
    detail: String,
    about: About,
}

/// Until its output has left.
struct Leaving {
    conn: ConnId,
    blocked: bool,
    traced: Traced,
}

/// Until its client has acknowledged so many.
struct Unconfirmed {
    session: SessionId,
    number: u32,
    traced: Traced,
}

struct Watching {
    watch: Watch,
    second: Instant,
    told: u32,
    left_out: u64,
}

/// The watches of one shard. There while somebody watches.
pub(super) struct Tracing {
    shard: u16,
    clock: Laps,
    watching: Vec<Watching>,
    /// Of what is handled now, if that is watched.
    current: Option<u64>,
    /// Who sent the stanza that was read last, if that is watched.
    sender: String,
    count: u32,
    hops: Vec<Hop>,
    leaving: Vec<Leaving>,
    unconfirmed: VecDeque<Unconfirmed>,
}

/// How far lists went when a stanza's handling began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    leaving: usize,
    unconfirmed: usize,
}

impl Tracing {
    /// The number of a stanza, with the watches that it is for beside those that it had.
    fn mark(&mut self, trace: Option<u64>, is_whom: impl Fn(&Whom) -> bool) -> Option<u64> {
        let mut marked = trace;
        for Watching { watch, .. } in &self.watching {
            if !marked.is_some_and(|trace| watch.id.is_in(trace)) && is_whom(&watch.whom) {
                let number = marked.unwrap_or_else(|| {
                    self.count = (self.count + 1) & ((1 << COUNT_BITS) - 1);
                    u64::from(self.shard) << COUNT_BITS | u64::from(self.count)
                });
                marked = Some(watch.id.put_into(number));
            }
        }
        marked
    }

    /// Whether a watch has room for one more hop of this stanza. Where it has none, that is counted.
    fn has_room(&mut self, trace: u64, at: Instant) -> bool {
        let mut any = false;
        for watching in self.watching.iter_mut().filter(|one| one.watch.id.is_in(trace)) {
            if at.since(watching.second).as_secs() >= 1 {
                watching.second = at;
                watching.told = 0;
            }
            match watching.told < HOPS_PER_S {
                true => any = true,
                false => watching.left_out += 1,
            }
        }
        any
    }

    /// After `has_room`.
    fn tell(&mut self, at: Instant, now: Now, step: Step, traced: Traced) {
        let Traced { trace, detail, about } = traced;
        let stanza = ((trace >> COUNT_BITS) as u16, trace as u32 & ((1 << COUNT_BITS) - 1));
        let after = u64::try_from(at.since(now.mono).as_micros()).unwrap_or(u64::MAX);
        let wall = Wall(now.wall.0.saturating_add(after));
        for watching in &mut self.watching {
            if !watching.watch.id.is_in(trace) || watching.told >= HOPS_PER_S {
                continue;
            }
            watching.told += 1;
            self.hops.push(Hop {
                watch: watching.watch.id,
                stanza,
                shard: self.shard,
                at,
                wall,
                step,
                detail: detail.clone(),
                about: about.clone(),
                left_out: std::mem::take(&mut watching.left_out),
            });
        }
    }

    /// It cannot be followed: some step of it will not be told.
    fn leave_out(&mut self, trace: u64) {
        for watching in self.watching.iter_mut().filter(|one| one.watch.id.is_in(trace)) {
            watching.left_out += 1;
        }
    }
}

impl Shard {
    /// Stanzas of whom it names are traced from now on. Above `WATCHES_MAX` it is not watched; whoever asks has a bound.
    ///
    /// - `clock`: read for each hop, on the clock of `Now::mono`
    pub fn watch(&mut self, watch: Watch, clock: Laps) {
        let tracing = self.core.tracing.get_or_insert_with(|| {
            Box::new(Tracing {
                shard: self.core.id.0,
                clock,
                watching: Vec::new(),
                current: None,
                sender: String::new(),
                count: 0,
                hops: Vec::new(),
                leaving: Vec::new(),
                unconfirmed: VecDeque::new(),
            })
        });
        if tracing.watching.len() < WATCHES_MAX {
            let second = self.core.now.mono;
            tracing.watching.push(Watching { watch, second, told: 0, left_out: 0 });
        }
    }

    /// Gives how many hops were left out since the last one that was told.
    pub fn end_watch(&mut self, id: WatchId) -> u64 {
        let Some(tracing) = &mut self.core.tracing else { return 0 };
        let ended = tracing.watching.extract_if(.., |one| one.watch.id == id);
        let left_out = ended.map(|one| one.left_out).sum();
        if tracing.watching.is_empty() {
            self.core.tracing = None;
        }
        left_out
    }

    /// What was told since the last time.
    pub fn take_hops(&mut self) -> Vec<Hop> {
        self.core
            .tracing
            .as_mut()
            .map_or_else(Vec::new, |tracing| std::mem::take(&mut tracing.hops))
    }
}

impl Core {
    /// Where the lists stood, so that a fault's entries can be cut back. The hops before it did happen.
    pub(super) fn trace_mark(&self) -> Mark {
        self.tracing.as_ref().map_or_else(Mark::default, |tracing| Mark {
            leaving: tracing.leaving.len(),
            unconfirmed: tracing.unconfirmed.len(),
        })
    }

    pub(super) fn trace_cut_back(&mut self, mark: Mark) {
        if let Some(tracing) = &mut self.tracing {
            tracing.leaving.truncate(mark.leaving);
            tracing.unconfirmed.truncate(mark.unconfirmed);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::time::Duration;

    fn tracing(watches: &[Watch]) -> Tracing {
        let watching = |watch: &Watch| Watching {
            watch: watch.clone(),
            second: Instant(0),
            told: 0,
            left_out: 0,
        };
        Tracing {
            shard: 7,
            clock: Box::new(|| Instant(0)),
            watching: watches.iter().map(watching).collect(),
            current: None,
            sender: String::new(),
            count: 0,
            hops: Vec::new(),
            leaving: Vec::new(),
            unconfirmed: VecDeque::new(),
        }
    }

    fn address(text: &str) -> Whom {
        Whom::Address(Jid::parse(text).unwrap())
    }

    fn watch(slot: usize, whom: Whom) -> Watch {
        Watch { id: WatchId::new(slot, 0), whom }
    }

    fn traced(trace: u64) -> Traced {
        Traced { trace, detail: String::new(), about: About::default() }
    }

    #[test]
    fn an_account_is_all_its_resources_and_a_resource_is_itself() {
        let account = address("alice@here");
        assert!(account.is("alice@here") && account.is("alice@here/a"));
        assert!(!account.is("alice@here.org") && !account.is("bob@here/alice@here"));
        let resource = address("alice@here/a");
        assert!(resource.is("alice@here/a"));
        assert!(!resource.is("alice@here") && !resource.is("alice@here/b"));
        let id = Whom::Id("m1".into());
        assert!(id.has_id(Some("m1")) && !id.has_id(Some("m2")) && !id.has_id(None));
        assert!(!id.is("m1"));
    }

    #[test]
    fn a_stanza_of_two_watches_is_one_with_the_marks_of_both() {
        let watches = [watch(0, address("alice@here")), watch(3, address("bob@here"))];
        let mut tracing = tracing(&watches);
        let first = tracing.mark(None, |whom| whom.is("alice@here/a")).unwrap();
        assert!(watches[0].id.is_in(first) && !watches[1].id.is_in(first));
        let both = tracing.mark(Some(first), |whom| whom.is("bob@here")).unwrap();
        assert!(watches.iter().all(|watch| watch.id.is_in(both)));
        let own = (1 << OWN_BITS) - 1;
        assert_eq!((first & own, both & own), (7 << COUNT_BITS | 1, first & own));
        assert_eq!(tracing.mark(None, |whom| whom.is("carol@here")), None);
    }

    #[test]
    fn a_watch_is_not_told_of_what_the_one_before_it_in_its_slot_watched() {
        for count in [0, 62, 63, 1_000] {
            let (before, after) = (WatchId::new(2, count), WatchId::new(2, count + 1));
            let old = before.put_into(5);
            assert!(before.is_in(old) && !after.is_in(old));
            assert!(!before.is_in(after.put_into(old)) && after.is_in(after.put_into(old)));
        }
    }

    #[test]
    fn a_watch_is_told_so_many_hops_a_second_and_how_many_were_left_out() {
        let watches = [watch(1, address("alice@here"))];
        let mut tracing = tracing(&watches);
        let trace = tracing.mark(None, |_| true).unwrap();
        let now = Now { mono: Instant(0), wall: Wall(1_000) };
        for micros in 0..u64::from(2 * HOPS_PER_S) {
            let at = now.mono + Duration::from_micros(micros);
            if tracing.has_room(trace, at) {
                tracing.tell(at, now, Step::Received, traced(trace));
            }
        }
        assert_eq!(tracing.hops.len(), HOPS_PER_S as usize);
        assert_eq!(tracing.hops[7].wall, Wall(1_007));
        let later = now.mono + Duration::from_secs(1);
        assert!(tracing.has_room(trace, later));
        tracing.tell(later, now, Step::Written, traced(trace));
        let last = tracing.hops.last().unwrap();
        assert_eq!((last.left_out, last.step.name()), (u64::from(HOPS_PER_S), "written"));
        assert_eq!(tracing.watching[0].left_out, 0);
    }
}
