//! Requests that the server answers: ping (XEP-0199), roster (RFC 6121 §2), pages of the archive (XEP-0313).

use std::time::{Duration, Instant};

use super::Notes;
use super::body::{hexadecimal, read_hexadecimal};
use crate::Engine;
use crate::plan::Plan;
use crate::record::Operation;
use crate::scan::Element;

/// A request without an answer for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

struct Pending {
    operation: Operation,
    session: usize,
    intended: Instant,
    sent: Instant,
}

/// All requests of a share that are under way.
#[derive(Default)]
pub(super) struct Requests {
    /// By slot; the `id` names slot and use, so that a late answer finds no other's place.
    pending: Vec<(u32, Option<Pending>)>,
    free: Vec<u32>,
    open: usize,
    /// Closed loop: (operation, session) that may send.
    due: Vec<(Operation, usize)>,
    filled: bool,
    /// By population: messages in a page of the archive.
    pages: Vec<u64>,
    /// Whether the archive has ever answered, and what it said instead.
    archive: (bool, Option<String>),
}

impl Requests {
    pub(super) fn new(plan: &Plan) -> Self {
        let page = |population: &crate::scenario::Population| {
            population.requests.iter().map(|wish| wish.page).max().unwrap_or(0)
        };
        let pages = plan.scenario.populations.iter().map(page).collect();
        Self { pages, ..Self::default() }
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Why the archive cannot be asked at all, if that is known.
    pub(super) fn hopeless(&self) -> Option<String> {
        let (ever, refusal) = &self.archive;
        let condition = refusal.as_ref().filter(|_| !ever)?;
        Some(format!(
            "the archive refuses the first query: {condition}; the server needs XEP-0313 switched on"
        ))
    }

    /// A request is due.
    pub(super) fn send(
        &mut self,
        operation: Operation,
        session: usize,
        intended: Instant,
        now: Instant,
        engine: &mut Engine,
        notes: &mut Notes,
    ) {
        let Some(client) = notes.sender(session, operation) else {
            return;
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pending.push((0, None));
            self.pending.len() as u32 - 1
        });
        let place = &mut self.pending[slot as usize];
        place.0 = place.0.wrapping_add(1);
        place.1 = Some(Pending { operation, session, intended, sent: now });
        let used = place.0;
        self.open += 1;
        let page = self.pages.get(notes.sessions.population(session)).copied().unwrap_or(0);
        engine.send(client, 1, |out| {
            let is_set = matches!(operation, Operation::RosterSet | Operation::Archive);
            let kind: &[u8] = if is_set { b"set" } else { b"get" };
            out.extend_from_slice(b"<iq type='");
            out.extend_from_slice(kind);
            out.extend_from_slice(b"' id='q");
            hexadecimal(u64::from(slot), out);
            out.push(b'.');
            hexadecimal(u64::from(used), out);
            out.extend_from_slice(b"'>");
            match operation {
                Operation::RosterGet => out.extend_from_slice(b"<query xmlns='jabber:iq:roster'/>"),
                Operation::RosterSet => {
                    // A handful of contacts whose names change, so that rosters do not grow without end.
                    out.extend_from_slice(b"<query xmlns='jabber:iq:roster'><item jid='contact");
                    hexadecimal(u64::from(used % 8), out);
                    out.extend_from_slice(b"@contacts.example' name='Contact ");
                    hexadecimal(u64::from(used), out);
                    out.extend_from_slice(b"'/></query>");
                }
                // The newest page, as clients ask when they come.
                Operation::Archive => out.extend_from_slice(
                    format!(
                        "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'>\
                         <max>{page}</max><before/></set></query>"
                    )
                    .as_bytes(),
                ),
                _ => out.extend_from_slice(b"<ping xmlns='urn:xmpp:ping'/>"),
            }
            out.extend_from_slice(b"</iq>");
        });
        notes.recorder.sent(operation, intended, now);
    }

    /// An answer, if it is one.
    pub(super) fn take(
        &mut self,
        session: usize,
        stanza: &Element<'_>,
        at: Instant,
        notes: &mut Notes,
    ) {
        let kind = stanza.attribute("type");
        if !matches!(kind, Some(b"result" | b"error")) {
            return;
        }
        let read = || {
            let digits = stanza.attribute("id")?.strip_prefix(b"q")?;
            let (slot, rest) = read_hexadecimal(digits)?;
            let (used, _) = read_hexadecimal(rest)?;
            Some((usize::try_from(slot).ok()?, used))
        };
        let Some((slot, used)) = read() else {
            return;
        };
        let Some((uses, pending)) = self.pending.get_mut(slot) else {
            return;
        };
        if u64::from(*uses) != used || pending.as_ref().is_none_or(|p| p.session != session) {
            return;
        }
        let Some(done) = pending.take() else {
            return;
        };
        self.free.push(slot as u32);
        self.open -= 1;
        if done.operation == Operation::Archive {
            if kind == Some(b"result") {
                self.archive.0 = true;
            } else if self.archive.1.is_none() {
                self.archive.1 = Some(condition(stanza));
            }
        }
        if kind == Some(b"result") {
            notes.recorder.done(done.operation, done.intended, done.sent, at);
        } else {
            notes.recorder.failed(done.operation, &condition(stanza));
        }
        if self.filled {
            self.due.push((done.operation, session));
        }
    }

    /// A session's connection is gone.
    pub(super) fn abandoned(&mut self, session: usize, notes: &mut Notes) {
        self.fail(|pending| pending.session == session, "connection lost", notes);
    }

    /// What has waited too long.
    pub(super) fn expire(&mut self, now: Instant, notes: &mut Notes) {
        self.fail(|pending| now > pending.sent + PATIENCE, "no answer", notes);
    }

    /// Nothing more will be waited for.
    pub(super) fn give_up(&mut self, notes: &mut Notes) {
        self.fail(|_| true, "no answer", notes);
    }

    fn fail(&mut self, is_over: impl Fn(&Pending) -> bool, why: &str, notes: &mut Notes) {
        if self.open == 0 {
            return;
        }
        for (slot, (_, pending)) in self.pending.iter_mut().enumerate() {
            if let Some(failed) = pending.take_if(|pending| is_over(pending)) {
                notes.recorder.failed(failed.operation, why);
                self.free.push(slot as u32);
                self.open -= 1;
                if self.filled {
                    self.due.push((failed.operation, failed.session));
                }
            }
        }
    }

    /// Closed loop: each session keeps `window` requests of each kind under way.
    pub(super) fn refill(
        &mut self,
        plan: &Plan,
        window: u32,
        now: Instant,
        engine: &mut Engine,
        notes: &mut Notes,
    ) {
        if !self.filled {
            self.filled = true;
            for (at, session) in notes.sessions.iter().enumerate() {
                for wish in &plan.scenario.populations[session.population].requests {
                    self.due.extend(std::iter::repeat_n((wish.operation, at), window as usize));
                }
            }
        }
        for (operation, session) in std::mem::take(&mut self.due) {
            if notes.sessions.is_up(session) {
                self.send(operation, session, now, now, engine, notes);
            } else {
                self.due.push((operation, session));
            }
        }
    }
}

/// The condition of an error stanza.
pub(super) fn condition(stanza: &Element<'_>) -> String {
    let condition = stanza.child("error").and_then(|error| {
        error.children().find(|child| child.name() != b"text").map(|child| child.name())
    });
    String::from_utf8_lossy(condition.unwrap_or(b"error without condition")).into_owned()
}
