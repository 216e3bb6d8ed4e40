//! What was sent, seen and promised, and the checks of it.
//!
//! - **R1, R3**: a message that an `<a h/>` or `<resumed h/>` covered reaches a client of its recipient, or its sender's
//!   stream carried an error for it. *Reaches* means that the client confirmed it (XEP-0198, or the answer to the ping
//!   behind it; in a cluster, an error counts that is on its way, as it may wait longer for its account than the
//!   acknowledgement for it does): what a client got and did not confirm before its session was lost it forgets, so the server must
//!   bring it again. At the end nothing is left in any log.
//! - **R2**: no message is twice in an archive, and pages tell the same as the whole (`world/settled.rs`); one that its client
//!   sent again, as its owner died before it told, may be.
//! - **R4**: a session that can be resumed is, for as long as was promised, unless it held more than it may, or the node died
//!   that had it, and had no copy of it. No number that its client is told then is below one that it was told before, or above
//!   what it sent (`Client::acknowledged`), no message comes twice on one of its streams, and R1, R6 and R7 hold across the death as they do across any break of its stream.
//! - **R6**: on one receiving session, a message to a bare JID that its account has not confirmed yet never comes behind
//!   a later one of the same sender. For accounts with one device this holds throughout. With several devices, what
//!   went to one of them and never arrived goes to another when its session ends, behind newer ones: there it is
//!   asked only of messages whose recipient had all its streams
//!   from well before the sending until the receipt. In a cluster it is not asked of one that a node refused which was gone
//!   before anybody had the refusal: what is refused counts as handled, so later ones may be kept, and nobody is left who
//!   knows of it when its sender's node sends it again. Nor of one whose row the store gave up, where the node is gone
//!   before it could refuse it.
//! - **R7**: no request is answered twice; one whose asker's session lives at the end has an answer, unless a client whose
//!   session lives too has got it and chose to be silent. In a cluster, a node that dies may have had the request or its
//!   answer: nobody waits for those that were asked before the last death.
//! - **R8**: in quiet, each client sees as available its account's clients and those whose accounts let it, and nobody
//!   else; again 10 s after a crash, or after cuts and the time that sessions sleep (`world/settled.rs`, against the rosters
//!   kept).
//! - **R9**: nobody writes for an account whose owner is another by the published rule, or while another's writes for it
//!   are under way; nobody acts by a lease once others act by an epoch that took it over (`world/cluster.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Longer than a session sleeps before it ends, in µs.
const UNDISTURBED: u64 = 25_000_000;

/// Longer than what a session received last takes to be handled, so that it can be resumed, in µs.
const PATIENCE: u64 = 5_000_000;

#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) from: usize,
    /// Its sender's.
    pub(crate) session: Option<u32>,
    /// Account, and whether its bare JID was written.
    pub(crate) to: usize,
    pub(crate) bare: bool,
    pub(crate) sent_at: u64,
    pub(crate) covered: bool,
    pub(crate) refused: bool,
    pub(crate) receipts: u32,
    pub(crate) confirmed: bool,
    /// Its sender sent it again, as nobody had told it of it.
    pub(crate) again: bool,
    /// The run of a node that refused it last, and whether that went down with it.
    refused_by: Option<usize>,
    refusal_lost: bool,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) from: usize,
    pub(crate) session: u32,
    pub(crate) asked_at: u64,
    pub(crate) answers: u32,
    /// The client session that got it last, and whether it answers.
    pub(crate) holder: Option<(usize, u32, bool)>,
}

#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) devices: usize,
    /// When one of its streams was lost last.
    pub(crate) disturbed_at: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) accounts: Vec<Account>,
    pub(crate) messages: Vec<Message>,
    pub(crate) requests: Vec<Request>,
    pub(crate) sessions: u32,
    /// Per receiving session and sender: the newest message, and all of them.
    newest: BTreeMap<(u32, usize), usize>,
    seen: BTreeSet<(u32, usize)>,
    /// How long a session may be resumed, in µs; `None` where that cannot be counted on.
    pub(crate) resume: Option<u64>,
    /// There is one node.
    pub(crate) alone: bool,
    /// The store may not do what it is asked.
    pub(crate) store_fails: bool,
    /// When a node died last.
    pub(crate) crash_at: u64,
    /// When a node of a cluster died last, or was taken over.
    pub(crate) death_at: u64,
    pub(crate) failure: Option<String>,
}

impl Model {
    pub(crate) fn fail(&mut self, what: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(what());
        }
    }

    pub(crate) fn session(&mut self) -> u32 {
        self.sessions += 1;
        self.sessions
    }

    pub(crate) fn send(
        &mut self,
        (from, session): (usize, Option<u32>),
        to: usize,
        bare: bool,
        now: u64,
    ) -> usize {
        self.messages.push(Message {
            from,
            session,
            to,
            bare,
            sent_at: now,
            covered: false,
            refused: false,
            receipts: 0,
            confirmed: false,
            again: false,
            refused_by: None,
            refusal_lost: false,
        });
        self.messages.len() - 1
    }

    /// A message may be kept twice that its sender sent again as its owner died: what that had done of it nobody knew.
    pub(crate) fn may_be_twice(&self, message: usize) -> bool {
        let message = self.messages.get(message);
        message.is_some_and(|it| it.again && self.death_at > 0 && it.sent_at <= self.death_at)
    }

    /// A run of a node says of a message that it is refused, or must as its store has given up the row.
    pub(crate) fn refuse(&mut self, message: usize, run: usize) {
        if let Some(message) = self.messages.get_mut(message) {
            message.refused_by = Some(run);
        }
    }

    /// The run is gone: of what it refused nobody knows who has not heard it yet.
    pub(crate) fn lose_refusals(&mut self, run: usize) {
        for message in self.messages.iter_mut().filter(|it| it.refused_by == Some(run)) {
            message.refusal_lost = true;
        }
    }

    pub(crate) fn ask(&mut self, from: usize, session: u32, now: u64) -> usize {
        self.requests.push(Request { from, session, asked_at: now, answers: 0, holder: None });
        self.requests.len() - 1
    }

    pub(crate) fn answered(&mut self, request: usize) {
        let Some(slot) = self.requests.get_mut(request) else { return };
        slot.answers += 1;
        // A request to a node that dies is sent again, as nobody knows what became of it.
        let excused = self.death_at > 0 && slot.asked_at <= self.death_at;
        if slot.answers > 1 && !excused {
            self.fail(|| format!("R7: request q{request} was answered twice"));
        }
    }

    pub(crate) fn receive(&mut self, account: usize, session: u32, message: usize, now: u64) {
        let Some(slot) = self.messages.get_mut(message) else {
            return self.fail(|| format!("a message m{message} that nobody sent"));
        };
        slot.receipts += 1;
        if slot.to != account {
            let to = slot.to;
            return self.fail(|| format!("m{message} for account {to} came to account {account}"));
        }
        let excused = slot.refused || slot.refusal_lost;
        let (from, bare, again, sent_at) = (slot.from, slot.bare, slot.confirmed, slot.sent_at);
        if !self.seen.insert((session, message)) || !bare {
            return;
        }
        let newest = self.newest.entry((session, from)).or_insert(message);
        let late = *newest > message;
        let newer = *newest;
        *newest = message.max(*newest);
        let recipient = &self.accounts[account];
        let whole = recipient.disturbed_at == 0 || recipient.disturbed_at + UNDISTURBED < sent_at;
        let strict = recipient.devices == 1 || whole;
        if late && !again && !excused && strict {
            self.fail(|| {
                format!("R6: m{message} of client {from} came behind m{newer} in session {session} at {now}")
            });
        }
    }

    /// A message came a second time on one stream. With two devices that may be what the other left; and a row that could
    /// not be taken out when it was confirmed is read again.
    pub(crate) fn twice(&mut self, account: usize, message: usize, now: u64) {
        let is_excused = self.messages[message].refused || self.may_be_twice(message);
        if self.accounts[account].devices == 1 && !self.store_fails && !is_excused {
            self.fail(|| {
                format!("R4: m{message} came twice on one stream of account {account} at {now}")
            });
        }
    }

    /// A client was told that its session is not there.
    ///
    /// - takes: `bound_at`, when the session began at the earliest; `lost_at`, when its stream was lost; `asked`, from when
    ///   it was asked for until the answer
    pub(crate) fn not_resumed(
        &mut self,
        client: usize,
        bound_at: u64,
        lost_at: u64,
        asked: Range<u64>,
    ) {
        let Some(resume) = self.resume.filter(|_| self.crash_at < bound_at) else { return };
        let over = lost_at + resume;
        // In a cluster what it sent last may be with a node that stands still.
        let is_left_waiting = self.alone && asked.start + PATIENCE < over;
        if asked.end < over || is_left_waiting {
            self.fail(|| {
                format!("R4: the session of client {client}, whose stream was lost at {lost_at}, is not there at {asked:?}")
            });
        }
    }

    /// Nothing broke but streams: what came from one that did not went back, or reached a client that confirms, if not on
    /// the first of its streams then on another (XEP-0198 §4).
    ///
    /// - takes: the session that each client has now, and by account whether all of its clients confirm
    pub(crate) fn check_leftovers(&mut self, alive: &[Option<u32>], confirms: &[bool]) {
        let lost = self.messages.iter().position(|message| {
            let is_told = message.session.is_some() && alive[message.from] == message.session;
            is_told && confirms[message.to] && !message.confirmed && !message.refused
        });
        if let Some(index) = lost {
            let Message { from, to, .. } = self.messages[index];
            self.fail(|| {
                format!("m{index} of client {from}, whose stream never broke, did not reach account {to}")
            });
        }
    }

    pub(crate) fn check_promises(&mut self) {
        for (index, message) in self.messages.iter().enumerate() {
            if message.covered && !message.confirmed && !message.refused {
                let Message { from, to, receipts, .. } = message;
                let what = format!(
                    "R1: m{index} of client {from} to account {to} was acknowledged and is lost ({receipts} receipts)"
                );
                return self.fail(|| what);
            }
        }
    }

    /// Without cuts and crashes nothing at all may be lost.
    pub(crate) fn check_nothing_lost(&mut self) {
        let lost =
            self.messages.iter().position(|message| message.receipts == 0 && !message.refused);
        if let Some(index) = lost {
            self.fail(|| format!("m{index} was lost though nothing broke"));
        }
    }

    /// - takes: the session that each client has now
    pub(crate) fn check_answers(&mut self, alive: &[Option<u32>]) {
        for (index, request) in self.requests.iter().enumerate() {
            let Request { from, session, asked_at, answers, holder } = *request;
            if self.death_at > 0 && asked_at <= self.death_at {
                continue;
            }
            let silent = holder.is_some_and(|(client, session, answers)| {
                !answers && alive[client] == Some(session)
            });
            if answers == 0 && alive[from] == Some(session) && !silent {
                let what = format!(
                    "R7: request q{index} of client {from} has no answer (holder {holder:?})"
                );
                return self.fail(|| what);
            }
        }
    }
}
