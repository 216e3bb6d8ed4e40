//! What the engine calls: events go to the behaviours, and each turn moves the run on through its stages.

use std::time::Instant;

use super::component::Component;
use super::{Drive, LOGIN_PATIENCE, Stage, TURN_MAX};
use crate::record::Operation;
use crate::scan::Element;
use crate::{ClientId, Control, Engine, Error, Scenario};

impl Scenario for Drive<'_> {
    fn on_ready(&mut self, client: ClientId) {
        if let Some(component) = self.component.as_mut().filter(|it| it.is(client)) {
            component.ready();
            return;
        }
        let session = client.index();
        self.notes.ready(session, Instant::now());
        let population = self.notes.sessions.population(session);
        if let Some(component) = &mut self.component {
            component.recipient_ready(session, &mut self.notes);
        }
        if let Some(messages) = &mut self.messages[population] {
            messages.ready(session, &mut self.notes);
        }
        if let Some(rooms) = &mut self.rooms[population] {
            rooms.ready(session);
        }
        if let Some(churn) = &mut self.churn[population] {
            churn.ready(session);
        }
    }

    fn on_resumed(&mut self, client: ClientId) {
        let session = client.index();
        self.notes.resumed(session, Instant::now());
        let population = self.notes.sessions.population(session);
        // In a cluster the stream may go on at another node than the one that died with the newest of it.
        if self.plan.targets.len() > 1
            && let Some(messages) = &self.messages[population]
        {
            messages.may_repeat(session, &mut self.notes);
        }
        if let Some(rooms) = &mut self.rooms[population] {
            rooms.resumed(session);
        }
    }

    fn on_registered(&mut self, _client: ClientId, asked: Instant, now: Instant) {
        self.notes.recorder.wanted(Operation::Register);
        self.notes.recorder.done(Operation::Register, asked, asked, now);
    }

    fn on_stanza(&mut self, client: ClientId, stanza: &Element<'_>, at: Instant) {
        let session = client.index();
        if let Some(component) = &mut self.component {
            if component.is(client) {
                component.take_own(stanza, &mut self.notes);
                return;
            }
            if stanza.name() == b"message" && component.take(session, stanza, at, &mut self.notes) {
                return;
            }
        }
        if let Some(archives) = &mut self.archives
            && archives.take(session, stanza, &mut self.notes.ledger)
        {
            return;
        }
        match stanza.name() {
            b"message" => {
                let population = self.notes.sessions.population(session);
                if let Some(rooms) = &mut self.rooms[population] {
                    rooms.take(session, stanza, at, &mut self.notes);
                } else if let Some(messages) = &mut self.messages[population] {
                    messages.take(session, stanza, at, &mut self.notes);
                }
            }
            b"presence" => {
                let population = self.notes.sessions.population(session);
                if let Some(rooms) = &mut self.rooms[population] {
                    rooms.presence(session, stanza, at, &mut self.notes);
                } else if let Some(churn) = &mut self.churn[population] {
                    churn.take(session, stanza, at, &mut self.notes);
                }
            }
            b"iq" => self.requests.take(session, stanza, at, &mut self.notes),
            _ => {}
        }
    }

    fn on_acked(&mut self, client: ClientId, handled: u32) {
        self.notes.ledger.acked(client.index(), handled);
    }

    fn on_closed(&mut self, client: ClientId, cause: &str) {
        if let Some(component) = self.component.as_mut().filter(|it| it.is(client)) {
            if !matches!(self.stage, Stage::Closing(_)) {
                let fault = component.closed(cause, &mut self.notes);
                self.target_fault = self.target_fault.take().or(fault);
            }
            return;
        }
        let session = client.index();
        if matches!(self.stage, Stage::Closing(_)) {
            self.notes.sessions.gone(session);
            return;
        }
        let fault = self.notes.closed(session, cause, self.plan);
        self.left(session);
        if self.target_fault.is_none() {
            self.target_fault = fault;
        }
    }

    fn turn(&mut self, engine: &mut Engine, now: Instant) -> Result<Control, Error> {
        if self.target_fault.is_some() {
            return Ok(Control::Done);
        }
        self.close_intervals(now)?;
        self.notes.sessions.learn_addresses(engine);
        match self.stage {
            Stage::Running => {
                let waited = self.notes.since(now);
                if waited > LOGIN_PATIENCE && self.notes.sessions.nobody_came() {
                    let seconds = LOGIN_PATIENCE.as_secs();
                    self.target_fault = Some(format!("no login was complete within {seconds} s"));
                    return Ok(Control::Done);
                }
                if self.is_gone(now) {
                    self.give_up_target();
                    self.stage = Stage::Draining(now);
                    return Ok(Control::Until(now));
                }
                Ok(self.turn_running(engine, now))
            }
            Stage::Draining(until) => {
                self.is_gone(now);
                if now >= until && self.cut_off.is_some() {
                    self.give_up_target();
                }
                if self.is_settled(now) || now >= until {
                    self.requests.give_up(&mut self.notes);
                    let of_component = self.component.as_ref().map_or(0, |it| it.open(&self.notes));
                    for _ in 0..of_component {
                        self.notes.recorder.failed(Operation::ComponentMessage, "not arrived");
                    }
                    for _ in of_component..self.notes.ledger.open() {
                        self.notes.recorder.failed(Operation::Message, "not arrived");
                    }
                    for rooms in self.rooms.iter().flatten() {
                        for _ in 0..rooms.open() {
                            self.notes.recorder.failed(Operation::RoomMessage, "not arrived");
                        }
                    }
                    if self.archives.is_some() && self.aborted.is_none() {
                        self.stage = Stage::Archiving;
                    } else {
                        self.close_all(engine, now);
                    }
                    return Ok(Control::Until(now));
                }
                self.notes.retry(engine, now);
                self.follow_up(engine, now);
                Ok(Control::Until((now + TURN_MAX).min(until)))
            }
            Stage::Archiving if self.aborted.is_some() => {
                // Archives that are not read to the end say nothing.
                self.archives = None;
                self.close_all(engine, now);
                Ok(Control::Until(now))
            }
            Stage::Archiving => {
                if self.archives.as_mut().is_some_and(|it| !it.read(engine, now, &self.notes)) {
                    return Ok(Control::Until(now + TURN_MAX));
                }
                let unread = self.archives.iter().flat_map(|it| it.unread().values()).sum();
                for _ in 0..unread {
                    self.notes.recorder.failed(Operation::Archive, "archive not read to its end");
                }
                self.close_all(engine, now);
                Ok(Control::Until(now))
            }
            Stage::Closing(until) => {
                let is_open = |id: &ClientId| engine.is_closing(*id);
                let component = self.component.as_ref().map(Component::client);
                if now < until
                    && self.notes.sessions.clients().chain(component).any(|id| is_open(&id))
                {
                    return Ok(Control::Until((now + TURN_MAX).min(until)));
                }
                self.ended = self.notes.since(now);
                self.close_interval()?;
                Ok(Control::Done)
            }
        }
    }
}
