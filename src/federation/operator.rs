//! What operators ask: `corefire federation list|check|close|block`.

use super::control::{Answered, Check, CheckStep, LIST_MAX, Listed, Request, State, Step};
use super::domain::{BLOCKED, Domain, DomainId, Link};
use super::effect::{Action, ConnId, Effects};
use super::outbound::{Out, Progress};
use super::{Core, Failure};
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use std::sync::Arc;
use std::time::Duration;

/// Checks under way at a time.
const CHECKS_MAX: usize = 16;

impl Core {
    pub(super) fn asked(&mut self, number: u64, request: Request, fx: &mut Effects) {
        let answered = match request {
            Request::List { after, limit } => self.list(after.as_deref(), limit),
            Request::Close { domain } => {
                let error = StreamError::new(StreamCondition::Reset);
                Answered::Closed { connections: self.close_domain(&domain, &error, fx) }
            }
            Request::Block { domain } => {
                let new = self.blocked.insert(domain.clone());
                Answered::Blocked { new, connections: self.shut_out(&domain, fx) }
            }
            Request::Unblock { domain } => {
                Answered::Unblocked { was: self.blocked.remove(&domain) }
            }
            Request::Check { domain, own } => {
                return self.check(number, &domain, own.as_deref(), fx);
            }
        };
        fx.actions.push(Action::Answer { number, answered: Box::new(answered) });
    }

    fn list(&self, after: Option<&str>, limit: usize) -> Answered {
        let mut names: Vec<&Arc<str>> =
            self.names.keys().filter(|name| after.is_none_or(|after| ***name > *after)).collect();
        names.sort_unstable();
        let limit = limit.clamp(1, LIST_MAX);
        let more = names.len() > limit;
        let listed = names.iter().take(limit).filter_map(|name| {
            let id = self.names.get(&***name)?;
            Some(self.listed(self.domains.get(id.0)?))
        });
        Answered::List { domains: listed.collect(), more }
    }

    fn listed(&self, domain: &Domain) -> Listed {
        let lanes = || domain.lanes.iter().filter_map(|lane| self.lanes.get(lane.0));
        let up = lanes().filter(|lane| matches!(lane.link, Link::Up(_))).count();
        Listed {
            domain: domain.name.clone(),
            state: self.state(domain),
            outgoing: u32::try_from(up).unwrap_or(u32::MAX),
            incoming: u32::try_from(domain.inbound.len()).unwrap_or(u32::MAX),
            queued: lanes().map(|lane| lane.queue.len()).sum(),
            queued_bytes: lanes().map(|lane| lane.queue.bytes()).sum(),
            unconfirmed: lanes().map(|lane| lane.queue.unconfirmed()).sum(),
            stored: domain.stored,
            sent: domain.sent,
            received: domain.received,
            bounced: domain.bounced,
            failure: domain.failure.as_ref().map(|(at, _, text)| (*at, text.clone())),
            by: domain.by.clone(),
        }
    }

    /// How things stand with a domain: the best of what holds for its lanes, but for a refusal.
    pub(super) fn state(&self, domain: &Domain) -> State {
        if self.is_refused(&domain.name) {
            return State::Blocked;
        }
        let lanes = || domain.lanes.iter().filter_map(|lane| self.lanes.get(lane.0));
        let any = |wanted: fn(&super::domain::Lane) -> bool| lanes().any(wanted);
        if any(|lane| matches!(lane.link, Link::Up(_))) || !domain.inbound.is_empty() {
            State::Connected
        } else if any(|lane| matches!(lane.link, Link::Dialling(_) | Link::Waiting)) {
            State::Connecting
        } else if any(|lane| lane.attempts.broken) {
            State::Broken
        } else if any(|lane| lane.link == Link::BackingOff) {
            State::BackingOff
        } else {
            State::Idle
        }
    }

    /// Closes all connections with a domain.
    fn close_domain(&mut self, name: &str, error: &StreamError, fx: &mut Effects) -> usize {
        let Some(domain) = self.find_domain(name).and_then(|id| self.domains.get(id.0)) else {
            return 0;
        };
        let mut conns: Vec<ConnId> = domain.inbound.to_vec();
        let lanes = domain.lanes.clone();
        conns.extend(lanes.iter().filter_map(|lane| self.lanes.get(lane.0)?.conn()));
        conns.sort_unstable();
        conns.dedup();
        for conn in &conns {
            let text = "an operator closed it";
            self.give_up(*conn, Failure::Policy, text, Some(error.clone()), fx);
        }
        for lane in lanes {
            // It may be tried anew at once.
            if let Some(slot) = self.lanes.get_mut(lane.0) {
                slot.attempts.succeed();
                if slot.link == Link::BackingOff {
                    slot.link = Link::Idle;
                }
            }
            self.touch(lane);
        }
        conns.len()
    }

    /// A domain is not talked to any more.
    pub(super) fn shut_out(&mut self, name: &str, fx: &mut Effects) -> usize {
        let error = StreamError::new(StreamCondition::PolicyViolation).with_text(BLOCKED);
        let closed = self.close_domain(name, &error, fx);
        let lanes = self
            .find_domain(name)
            .and_then(|id| self.domains.get(id.0))
            .map(|domain| domain.lanes.clone())
            .unwrap_or_default();
        for lane in lanes {
            self.verifications_failed(lane, fx);
            self.refuse_all(lane, BLOCKED, fx);
        }
        closed
    }

    /// After a reload: domains that were allowed and are so no more.
    pub(super) fn shut_out_refused(&mut self, fx: &mut Effects) {
        let refused = |domain: &Domain| self.is_refused(&domain.name);
        let names: Vec<(DomainId, Arc<str>)> = self
            .domains
            .iter()
            .filter(|(_, domain)| refused(domain))
            .map(|(id, domain)| (DomainId(id), domain.name.clone()))
            .collect();
        for (_, name) in names {
            self.shut_out(&name, fx);
        }
    }

    /// Walks to a domain on a connection of its own.
    fn check(&mut self, number: u64, domain: &Arc<str>, own: Option<&str>, fx: &mut Effects) {
        let own = match own {
            Some(own) => self.config.own(own).cloned(),
            None => self.config.domains.first().cloned(),
        };
        let policy = |text: String| Check {
            steps: vec![CheckStep {
                step: Step::Policy,
                sound: false,
                text: text.into(),
                took: Duration::ZERO,
            }],
            failure: Some(Failure::Policy),
        };
        let refusal = if self.is_refused(domain) {
            let check = policy(format!(
                "{domain} is blocked here: see federation.block and federation.allow, or corefire federation unblock"
            ));
            Answered::Checked(check)
        } else if self.config.own(domain).is_some() {
            Answered::Checked(policy(format!("{domain} is a domain of this server itself")))
        } else if self.checks >= CHECKS_MAX {
            Answered::Refused("other checks are under way".into())
        } else if let Some(mut out) = own.and_then(|own| Out::new(own, domain.clone(), None)) {
            self.checks += 1;
            out.check = Some(number);
            let policy = self.config.policy(domain);
            let way = match (policy.require_certificate, policy.dialback) {
                (true, _) | (_, false) => "allowed, with a valid certificate only",
                _ => "allowed, by certificate or dialback",
            };
            out.step(Step::Policy, true, way, Duration::ZERO);
            self.begin(out, fx);
            return;
        } else {
            Answered::Refused("this is no domain, or the other is none of ours".into())
        };
        fx.actions.push(Action::Answer { number, answered: Box::new(refusal) });
    }

    /// A walk is over: who asked is told.
    pub(super) fn check_done(
        &mut self,
        id: ConnId,
        failure: Option<(Failure, String)>,
        fx: &mut Effects,
    ) {
        let Some(out) = self.conns.get_mut(id.0).and_then(super::conn::Conn::out_mut) else {
            return;
        };
        let Some(number) = out.check.take() else { return };
        let mut steps = std::mem::take(&mut out.walk);
        let sound = failure.is_none();
        if let Some((kind, text)) = &failure
            && steps.last().is_none_or(|step| step.sound)
        {
            let step = step_of(*kind);
            steps.push(CheckStep {
                step,
                sound: false,
                text: text.as_str().into(),
                took: Duration::ZERO,
            });
        }
        self.checks = self.checks.saturating_sub(1);
        let check = Check { steps, failure: failure.map(|(failure, _)| failure) };
        let answered = Box::new(Answered::Checked(check));
        fx.actions.push(Action::Answer { number, answered });
        if sound {
            if let Some(out) = self.conns.get_mut(id.0).and_then(super::conn::Conn::out_mut) {
                out.progress = Progress::Over;
            }
            self.give_up(id, Failure::Lost, "the check is over", None, fx);
        }
    }
}

fn step_of(failure: Failure) -> Step {
    match failure {
        Failure::Policy => Step::Policy,
        Failure::NotFound | Failure::Dns => Step::Dns,
        Failure::Tcp => Step::Tcp,
        Failure::Tls => Step::Tls,
        Failure::Certificate | Failure::Auth => Step::Auth,
        Failure::Stream | Failure::Timeout | Failure::Lost => Step::Stream,
    }
}
