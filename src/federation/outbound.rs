//! Connections that we make: the steps from a connection to a stream that carries stanzas.
//!
//! What is learnt on the way is kept as steps with their words, so that `corefire federation check` tells what an attempt
//! of the core itself would meet: it is one, on a connection of its own.

use super::conn::Conn;
use super::control::{CheckStep, Step};
use super::dial::SHARE;
use super::discovery::Plan;
use super::domain::{LaneId, Link};
use super::effect::{Action, ClientTls, ConnId, Effects, TlsRole};
use super::frames::domain_jid;
use super::input::{Attempt, TlsVersion, Untrusted};
use super::trust::By;
use super::{Core, Failure, Note, Stage, Timer};
use crate::base::instant::Instant;
use crate::stream::dialback::Verdict;
use crate::stream::s2s::{Features, NoTls, Pair};
use std::sync::Arc;
use std::time::Duration;

/// How far an outgoing connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Resolving,
    Dialling,
    /// TLS and features.
    Negotiating,
    /// The features are known, and nothing is asked for: keys can be verified.
    Ready,
    /// EXTERNAL or dialback is asked for.
    Asking,
    /// XEP-0198 is asked for.
    Enabling,
    /// Stanzas may flow.
    Up,
    /// What it was for is over.
    Over,
}

/// A stream that was lost, and is to be taken up on the next connection of its lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resumable {
    pub name: Box<str>,
    pub until: Instant,
    /// The last number that the peer told.
    pub acknowledged: u32,
}

/// The outgoing side of a connection.
#[derive(Debug)]
pub(super) struct Out {
    pub own: Arc<str>,
    pub remote: Arc<str>,
    pub pair: Pair,
    /// The lane that it is made for; `None` for a check, and when it is over.
    pub lane: Option<LaneId>,
    /// The number of the operator's question.
    pub check: Option<u64>,
    pub walk: Vec<CheckStep>,
    pub plan: Option<Arc<Plan>>,
    pub target: usize,
    /// A target behind which there are others gets so small a part of its time.
    pub share: u32,
    pub progress: Progress,
    /// It counts among those that are being made.
    pub counted: bool,
    /// What became of targets before this one.
    pub tried: Box<str>,
    /// For how long there is no such domain.
    pub lasting: Option<Duration>,
    features: Features,
    /// How it authenticates.
    by: &'static str,
    asked_at: Instant,
}

/// Steps of a walk at most: targets and addresses are bounded, too.
const STEPS_MAX: usize = 64;

impl Out {
    /// `None` where one of the two is no domain.
    pub(super) fn new(own: Arc<str>, remote: Arc<str>, lane: Option<LaneId>) -> Option<Out> {
        let pair = Pair { local: domain_jid(&own)?, remote: domain_jid(&remote)? };
        Some(Out {
            own,
            remote,
            pair,
            lane,
            check: None,
            walk: Vec::new(),
            plan: None,
            target: 0,
            share: SHARE,
            progress: Progress::Resolving,
            counted: true,
            tried: "".into(),
            lasting: None,
            features: Features::default(),
            by: "",
            asked_at: Instant::default(),
        })
    }

    /// Notes a step for who asked.
    pub(super) fn step(&mut self, step: Step, sound: bool, text: &str, took: Duration) {
        if self.check.is_some() && self.walk.len() < STEPS_MAX {
            self.walk.push(CheckStep { step, sound, text: text.into(), took });
        }
    }

    /// How long the peer may take until its features are known, of the whole time that an attempt has.
    pub(super) fn negotiation(&self, whole: Duration) -> Duration {
        let others = self.plan.as_ref().is_some_and(|plan| self.target + 1 < plan.targets.len());
        if others && self.progress == Progress::Negotiating { whole / self.share } else { whole }
    }

    pub(super) fn target_name(&self) -> String {
        let target = self.plan.as_ref().and_then(|plan| plan.targets.get(self.target));
        target.map_or_else(String::new, ToString::to_string)
    }

    /// Notes addresses that could not be reached; gives the words for the last one, with how many others there were.
    pub(super) fn note_attempts(&mut self, attempts: &[Attempt]) -> (Failure, String) {
        let mut last = (Failure::Tcp, "no address could be reached".to_owned());
        for attempt in attempts {
            let (failure, words) = attempt.why.describe();
            let address = attempt.address.map(|it| format!(" at {it}")).unwrap_or_default();
            let text = format!("{}{address}: {words}", attempt.target);
            let step = if failure == Failure::Dns {
                Step::Dns
            } else if failure == Failure::Tls {
                Step::Tls
            } else {
                Step::Tcp
            };
            self.step(step, false, &text, attempt.took);
            last = (failure, text);
        }
        if attempts.len() > 1 {
            last.1 = format!("{} (and {} other addresses)", last.1, attempts.len() - 1);
        }
        last
    }
}

impl Core {
    fn out(&mut self, id: ConnId) -> Option<&mut Out> {
        self.conns.get_mut(id.0).and_then(Conn::out_mut)
    }

    /// STARTTLS was agreed on.
    pub(super) fn start_tls(&mut self, id: ConnId, fx: &mut Effects) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        conn.hold = super::conn::Hold::Tls;
        let pair = conn.stream.as_ref().and_then(|stream| stream.pair());
        let role = match conn.out() {
            Some(out) => {
                let oldest = self.config.policy(&out.remote).oldest_tls;
                let (domain, own) = (out.remote.clone(), out.own.clone());
                TlsRole::Client(Arc::new(ClientTls { domain, own, oldest }))
            }
            None => {
                let policy = |pair: &Pair| self.config.policy(pair.remote.as_str());
                let oldest = pair.as_ref().map_or(self.config.policy, policy).oldest_tls;
                let to = pair.and_then(|pair| self.config.own(pair.local.as_str()).cloned());
                TlsRole::Server { to, oldest }
            }
        };
        fx.actions.push(Action::StartTls { conn: id, role });
    }

    pub(super) fn no_tls(&mut self, id: ConnId, why: NoTls, fx: &mut Effects) {
        let text = match why {
            NoTls::NotOffered => {
                "it offers no STARTTLS: it does not speak TLS, or something on the way took the offer out; without TLS \
                 nothing is sent"
            }
            NoTls::Refused => {
                "it offers STARTTLS and then refuses it: its certificate may be missing"
            }
        };
        if let Some(out) = self.out(id) {
            out.step(Step::Tls, false, text, Duration::ZERO);
        }
        self.give_up(id, Failure::Tls, text, None, fx);
    }

    /// A handshake is done, on either side.
    pub(super) fn tls_known(
        &mut self,
        id: ConnId,
        version: TlsVersion,
        took: Duration,
        fx: &mut Effects,
    ) {
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let trust = conn.tls.as_ref().map(|tls| {
            let pair = conn.stream.as_ref().and_then(|stream| stream.pair());
            pair.map(|pair| tls.speaks_for(pair.remote.as_str()))
        });
        let Some(out) = conn.out_mut() else { return };
        let oldest = self.config.policy(&out.remote).oldest_tls;
        let name = match version {
            TlsVersion::Tls12 => "TLS 1.2",
            TlsVersion::Tls13 => "TLS 1.3",
        };
        if version < oldest {
            let text = format!("it speaks {name} and nothing newer, which min_tls forbids");
            out.step(Step::Tls, false, &text, took);
            return self.give_up(id, Failure::Tls, &text, None, fx);
        }
        let (sound, text) = match trust.flatten() {
            Some(Ok(_)) => (true, format!("{name}, its certificate is valid for {}", out.remote)),
            Some(Err(distrust)) => (false, format!("{name}, but {}", distrust)),
            None => (true, name.to_owned()),
        };
        out.step(Step::Tls, sound, &text, took);
        let remote = out.remote.clone();
        self.ask_posh(id, &remote, fx);
    }

    /// What the peer's certificate says of its domain.
    fn trust_of(&self, id: ConnId) -> Result<By, Untrusted> {
        let conn = self.conns.get(id.0);
        let tls = conn.and_then(|conn| Some((conn.tls.as_ref()?, conn.out()?)));
        tls.map_or(Err(Untrusted::NoCertificate), |(tls, out)| tls.speaks_for(&out.remote))
    }

    /// The stream is secure, and this is what the peer offers.
    pub(super) fn features(&mut self, id: ConnId, features: Features, fx: &mut Effects) {
        let now = self.now.mono;
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        let authenticated = conn.stream.as_ref().is_some_and(|stream| stream.is_authenticated());
        let Some(out) = conn.out_mut() else { return };
        // Those of the authenticated stream do not name again what came before.
        out.features =
            Features { dialback: out.features.dialback || features.dialback, ..features };
        if authenticated {
            return self.established(id, "certificate", fx);
        }
        out.progress = Progress::Ready;
        out.asked_at = now;
        let remote = out.remote.clone();
        out.step(Step::Stream, true, &offers(&features), Duration::ZERO);
        let policy = self.config.policy(&remote);
        let needed = policy.require_certificate || !policy.dialback;
        if let Err(distrust) = self.trust_of(id)
            && (needed || distrust.is_alarming())
        {
            let text = match needed {
                true => format!(
                    "{distrust}; a valid one is needed here, by federation.require_certificate or .dialback"
                ),
                false => distrust.to_string(),
            };
            if let Some(out) = self.out(id) {
                out.step(Step::Auth, false, &text, Duration::ZERO);
            }
            return self.give_up(id, Failure::Certificate, &text, None, fx);
        }
        self.use_ready(id, fx);
    }

    /// A connection whose features are known does what its lane wants: verify keys, or become a stream for stanzas.
    pub(super) fn use_ready(&mut self, id: ConnId, fx: &mut Effects) {
        let Some(out) = self.out(id) else { return };
        let (lane, check) = (out.lane, out.check.is_some());
        if let Some(lane) = lane {
            self.send_asked(lane, id, fx);
        }
        let wants =
            lane.and_then(|lane| self.lane(lane)).is_some_and(|lane| !lane.queue.is_empty());
        if wants || check {
            self.authenticate(id, fx);
        } else {
            if self.out(id).is_some_and(|out| out.counted) {
                let short = self.now.mono + self.config.limits.negotiation;
                self.wheel.insert(short, Timer::Idle(id));
            }
            self.slot_done(id, fx);
        }
    }

    fn authenticate(&mut self, id: ConnId, fx: &mut Effects) {
        let trusted = self.trust_of(id).is_ok();
        let policy = self.policy.clone();
        let now = self.now.mono;
        self.wheel.insert(now + self.config.limits.negotiation, Timer::Negotiation(id));
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        conn.began = now;
        let Some(out) = conn.out_mut() else { return };
        out.progress = Progress::Asking;
        out.asked_at = now;
        let (features, remote) = (out.features, out.remote.clone());
        let takes_dialback = self.config.policy(&remote).dialback;
        // A stream that goes both ways is not taken up again after a loss, as both ends would have to: where XEP-0198 is
        // spoken, that is worth more than a connection.
        let manages = features.management && self.config.management;
        let bidi = self.config.bidi && trusted && features.bidi && !manages;
        let asked = self.with_stream(id, fx, |stream, out| {
            if bidi {
                stream.bidi(&policy, out);
            }
            features.external && stream.authenticate(out)
        });
        if asked == Some(true) {
            return;
        }
        if takes_dialback {
            return self.ask_dialback(id, "it does not offer EXTERNAL", fx);
        }
        let text = "it does not offer EXTERNAL: it does not accept our certificate, and dialback is off here";
        self.auth_failed(id, text, fx);
    }

    fn ask_dialback(&mut self, id: ConnId, why: &str, fx: &mut Effects) {
        let secret = self.config.dialback_secret.clone();
        let policy = self.policy.clone();
        let Some(out) = self.out(id) else { return };
        let pair = out.pair.clone();
        let asked = self.with_stream(id, fx, |stream, out| {
            let key = secret.key(pair.remote.as_str(), pair.local.as_str(), stream.id());
            stream.ask(&pair, &key, &policy, out)
        });
        if asked != Some(true) {
            let text =
                format!("{why}, and no dialback either: there is no way to prove who we are");
            self.auth_failed(id, &text, fx);
        }
    }

    fn auth_failed(&mut self, id: ConnId, text: &str, fx: &mut Effects) {
        let now = self.now.mono;
        if let Some(out) = self.out(id) {
            let took = now.since(out.asked_at);
            out.step(Step::Auth, false, text, took);
        }
        self.give_up(id, Failure::Auth, text, None, fx);
    }

    /// EXTERNAL went through; the features of the new stream follow.
    pub(super) fn authenticated(&mut self, id: ConnId) {
        if let Some(out) = self.out(id) {
            out.by = "certificate";
        }
    }

    /// EXTERNAL did not.
    pub(super) fn not_authenticated(&mut self, id: ConnId, condition: &str, fx: &mut Effects) {
        let Some(out) = self.out(id) else { return };
        let remote = out.remote.clone();
        let text = format!("it refuses our certificate ({condition})");
        if self.config.policy(&remote).dialback {
            self.ask_dialback(id, &text, fx);
        } else {
            self.auth_failed(id, &format!("{text}, and dialback is off here"), fx);
        }
    }

    /// The answer to our key.
    pub(super) fn dialback_answer(&mut self, id: ConnId, verdict: Verdict, fx: &mut Effects) {
        match verdict {
            Verdict::Valid => self.established(id, "dialback", fx),
            Verdict::Invalid => {
                let text = "it asked the server that stands in the DNS for our domain, which denies our key: the DNS leads \
                            to another server than this one";
                self.auth_failed(id, text, fx);
            }
            Verdict::Error(condition) => {
                let text = format!(
                    "it could not verify our key ({}): it may not reach this server at the address that the DNS gives \
                     for our domain",
                    condition.name()
                );
                self.auth_failed(id, &text, fx);
            }
        }
    }

    /// The pair is authenticated: what is left is XEP-0198.
    fn established(&mut self, id: ConnId, by: &'static str, fx: &mut Effects) {
        let now = self.now.mono;
        let trusted = self.trust_of(id).is_ok();
        let manages = self.config.management;
        let Some(out) = self.out(id) else { return };
        if out.progress != Progress::Asking {
            return;
        }
        out.by = by;
        let took = now.since(out.asked_at);
        let (pair, lane) = (out.pair.clone(), out.lane);
        let management = out.features.management && manages;
        let text = format!("it knows us by {by}");
        out.step(Step::Auth, true, &text, took);
        self.latencies.record(Stage::Auth, took);
        if self.out(id).is_some_and(|out| out.check.is_some()) {
            return self.check_done(id, None, fx);
        }
        if trusted {
            self.with_stream(id, fx, |stream, _| stream.trust(&pair));
        }
        let now_resumable = lane.and_then(|lane| self.lane(lane)?.resumable.clone());
        let asked = match now_resumable.filter(|_| management) {
            Some(old) => self.with_stream(id, fx, |stream, out| stream.resume(&old.name, 0, out)),
            None if management => self.with_stream(id, fx, |stream, out| {
                let resume = !stream.is_bidi();
                stream.enable(resume, out)
            }),
            None => None,
        };
        if asked == Some(true) {
            if let Some(out) = self.out(id) {
                out.progress = Progress::Enabling;
            }
        } else {
            if let Some(lane) = lane {
                self.give_up_lost(lane, fx);
            }
            self.up(id, fx);
        }
    }

    /// XEP-0198 is in force.
    pub(super) fn enabled(
        &mut self,
        id: ConnId,
        name: Option<Box<str>>,
        max_s: Option<u32>,
        fx: &mut Effects,
    ) {
        let window = self.config.limits.resume;
        let max = max_s.map_or(window, |max| window.min(Duration::from_secs(max.into())));
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.managed.begin(Some(0));
            conn.managed.resumable = name.map(|name| (name, max));
        }
        self.count_both_ways(id);
        self.up(id, fx);
    }

    /// The earlier stream goes on: what the peer has of it is confirmed, the rest goes out again.
    pub(super) fn resumed(&mut self, id: ConnId, h: u32, fx: &mut Effects) {
        let Some(lane) = self.out(id).and_then(|out| out.lane) else { return };
        let old = self.lane_mut(lane).and_then(|lane| lane.resumable.take());
        let Some(old) = old else { return };
        let window = old.until.since(self.now.mono);
        if let Some(conn) = self.conns.get_mut(id.0) {
            conn.carries = Some(lane);
            conn.managed.begin(Some(old.acknowledged));
            conn.managed.resumable = Some((old.name, window.max(self.config.limits.resume)));
        }
        self.probe.streams_resumed += 1;
        self.acknowledged(id, h, fx);
        if let Some(lane) = self.lane_mut(lane) {
            lane.queue.rewind();
        }
        self.up(id, fx);
    }

    /// XEP-0198 was not granted.
    pub(super) fn not_managed(&mut self, id: ConnId, h: Option<u32>, fx: &mut Effects) {
        let Some(lane) = self.out(id).and_then(|out| out.lane) else { return };
        let old = self.lane_mut(lane).and_then(|lane| lane.resumable.take());
        let Some(old) = old else { return self.up(id, fx) };
        let out = self.lane(lane).map_or(0, |lane| lane.queue.unconfirmed());
        if let Some(h) = h {
            let had = h.wrapping_sub(old.acknowledged) as usize;
            if had <= out {
                self.confirm(lane, id, had);
            }
        }
        self.give_up_lost(lane, fx);
        let asked = self.with_stream(id, fx, |stream, out| {
            let resume = !stream.is_bidi();
            stream.enable(resume, out)
        });
        if asked != Some(true) {
            self.up(id, fx);
        }
    }

    /// Stanzas may flow.
    fn up(&mut self, id: ConnId, fx: &mut Effects) {
        let now = self.now.mono;
        let idle = self.config.limits.idle;
        let Some(conn) = self.conns.get_mut(id.0) else { return };
        conn.used_at = now;
        let managed = matches!(conn.managed.confirm, super::managed::Confirm::Managed { .. });
        let bidi = conn.stream.as_ref().is_some_and(|stream| stream.is_bidi());
        let Some(out) = conn.out_mut() else { return };
        if matches!(out.progress, Progress::Up | Progress::Over) {
            return;
        }
        out.progress = Progress::Up;
        let (own, domain, by, lane) = (out.own.clone(), out.remote.clone(), out.by, out.lane);
        conn.carries = lane;
        self.slot_done(id, fx);
        self.wheel.insert(now + idle, Timer::Idle(id));
        self.probe.streams_established += 1;
        let Some(lane) = lane else { return };
        let words = format!(
            "{by}{}{}",
            if managed { ", XEP-0198" } else { ", pings" },
            if bidi { ", both ways" } else { "" }
        );
        if let Some(domain) = self.domain_of_lane(lane) {
            domain.by = words.into();
        }
        if let Some(slot) = self.lanes.get_mut(lane.0) {
            slot.link = Link::Up(id);
            let recovers = slot.attempts.failures > 0;
            let note = match recovers {
                true => Note::Recovered { domain, own },
                false => Note::Established { domain, own, by },
            };
            fx.actions.push(Action::Note(note));
        }
        self.send_asked(lane, id, fx);
        self.touch(lane);
    }

    /// It no longer counts among the connections that are being made.
    pub(super) fn slot_done(&mut self, id: ConnId, fx: &mut Effects) {
        let Some(out) = self.out(id) else { return };
        if std::mem::take(&mut out.counted) {
            self.free_slot(fx);
        }
    }
}

fn offers(features: &Features) -> String {
    let list = [
        (features.external, "EXTERNAL"),
        (features.dialback, "dialback"),
        (features.bidi, "XEP-0288"),
        (features.management, "XEP-0198"),
    ];
    let named: Vec<&str> = list.iter().filter(|(there, _)| *there).map(|(_, name)| *name).collect();
    match named.is_empty() {
        true => "it offers nothing".to_owned(),
        false => format!("it offers {}", named.join(", ")),
    }
}
