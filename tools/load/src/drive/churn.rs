//! Changes of presence, and the subscriptions by which contacts see them.
//!
//! Users of a group are each other's contacts: when a session is ready it asks those behind it in the group, and
//! whoever is asked agrees and asks back (RFC 6121 §3.1). A status text names the change, so that each contact's arrival
//! is timed.

use std::collections::VecDeque;
use std::time::Instant;

use super::Notes;
use super::body::{hexadecimal, read_hexadecimal};
use super::session::Sessions;
use crate::Engine;
use crate::plan::Plan;
use crate::record::Operation;
use crate::scan::Element;

/// Changes of a session that may still arrive; presence may be dropped for a newer one, so nothing waits for it.
const KEPT: usize = 8;

struct Change {
    number: u64,
    intended: Instant,
    sent: Instant,
}

#[derive(Default)]
struct Own {
    /// Since when it hears of others.
    ready: Option<Instant>,
    number: u64,
    changes: VecDeque<Change>,
}

/// The changes of one population.
pub(super) struct Churn {
    run: u32,
    group: usize,
    base: usize,
    own: Vec<Own>,
    /// Sessions that have just come.
    new: Vec<usize>,
    /// (from, to as it stood in the request).
    agreed: Vec<(usize, Vec<u8>)>,
}

impl Churn {
    pub(super) fn new(
        plan: &Plan,
        population: usize,
        run: u32,
        sessions: &Sessions,
    ) -> Option<Self> {
        let wish = &plan.scenario.populations[population];
        wish.churn.as_ref()?;
        let mine = || sessions.iter().enumerate().filter(|(_, s)| s.population == population);
        let mut own = Vec::new();
        own.resize_with(mine().count(), Own::default);
        Some(Self {
            run,
            group: wish.group() as usize,
            base: mine().next().map_or(0, |(at, _)| at),
            own,
            new: Vec::new(),
            agreed: Vec::new(),
        })
    }

    pub(super) fn ready(&mut self, session: usize) {
        self.own[session - self.base].ready = Some(Instant::now());
        self.new.push(session);
    }

    /// A change is due.
    pub(super) fn send(
        &mut self,
        session: usize,
        intended: Instant,
        now: Instant,
        engine: &mut Engine,
        notes: &mut Notes,
    ) {
        let Some(client) = notes.sender(session, Operation::Presence) else {
            return;
        };
        let own = &mut self.own[session - self.base];
        own.number += 1;
        let number = own.number;
        if own.changes.len() == KEPT {
            own.changes.pop_front();
        }
        own.changes.push_back(Change { number, intended, sent: now });
        let run = self.run;
        engine.send(client, 1, |out| {
            let show: &[u8] = if number.is_multiple_of(2) { b"chat" } else { b"away" };
            out.extend_from_slice(b"<presence><show>");
            out.extend_from_slice(show);
            out.extend_from_slice(b"</show><status>");
            hexadecimal(u64::from(run), out);
            out.push(b'.');
            hexadecimal(session as u64, out);
            out.push(b'.');
            hexadecimal(number, out);
            out.extend_from_slice(b"</status></presence>");
        });
        notes.recorder.sent(Operation::Presence, intended, now);
    }

    /// Presence arrived.
    pub(super) fn take(
        &mut self,
        session: usize,
        stanza: &Element<'_>,
        at: Instant,
        notes: &mut Notes,
    ) {
        match stanza.attribute("type") {
            Some(b"subscribe") => {
                if let Some(from) = stanza.attribute("from") {
                    self.agreed.push((session, from.to_vec()));
                }
            }
            None => {
                let read = || {
                    let status = stanza.child("status")?;
                    let (run, rest) = read_hexadecimal(status.content())?;
                    let (sender, rest) = read_hexadecimal(rest)?;
                    let (number, _) = read_hexadecimal(rest)?;
                    let place = usize::try_from(sender).ok()?.checked_sub(self.base)?;
                    // Each session sees its own changes as well.
                    (run == u64::from(self.run) && place + self.base != session)
                        .then_some((place, number))
                };
                let Some((place, number)) = read() else {
                    return;
                };
                let changes = self.own.get(place).map(|own| &own.changes);
                let change = changes.and_then(|c| c.iter().find(|change| change.number == number));
                if let Some(change) = change {
                    let (intended, sent) = (change.intended, change.sent);
                    // Who came later is told where its contacts are, not what changes.
                    let ready =
                        session.checked_sub(self.base).and_then(|at| self.own.get(at)?.ready);
                    if ready.is_none_or(|ready| ready > sent) {
                        return;
                    }
                    notes.recorder.done(Operation::Presence, intended, sent, at);
                }
            }
            Some(_) => {}
        }
    }

    /// Asks and agrees.
    pub(super) fn turn(&mut self, engine: &mut Engine, notes: &mut Notes) {
        for session in std::mem::take(&mut self.new) {
            let place = session - self.base;
            let end = (place / self.group + 1) * self.group;
            for contact in place + 1..end.min(self.own.len()) {
                let to = notes.sessions.address(self.base + contact, false).to_vec();
                self.ask(session, &to, engine, notes);
            }
        }
        for (session, to) in std::mem::take(&mut self.agreed) {
            if let Some(client) = notes.sessions.client(session) {
                engine.send(client, 1, |out| write(b"subscribed", &to, out));
            }
            let bare = to.iter().position(|b| *b == b'/').unwrap_or(to.len());
            // Who is asked is behind the asker; asking back ends there.
            let place = session - self.base;
            let first = place / self.group * self.group;
            let is_before =
                (first..place).any(|p| notes.sessions.address(self.base + p, false) == &to[..bare]);
            if is_before {
                self.ask(session, &to[..bare], engine, notes);
            }
        }
    }

    fn ask(&self, session: usize, to: &[u8], engine: &mut Engine, notes: &Notes) {
        if let Some(client) = notes.sessions.client(session) {
            engine.send(client, 1, |out| write(b"subscribe", to, out));
        }
    }
}

fn write(kind: &[u8], to: &[u8], out: &mut Vec<u8>) {
    for piece in [&b"<presence type='"[..], kind, b"' to='", to, b"'/>"] {
        out.extend_from_slice(piece);
    }
}
