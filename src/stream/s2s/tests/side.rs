//! One end of a stream with the simplest core behind it that can be: it does what its fields say.

use super::management::Management;
use crate::base::instant::Instant;
use crate::base::rng::Rng;
use crate::stream::dialback::{Dialback, DialbackSecret, Verdict};
use crate::stream::s2s::{Event, Offer, Pair, Reader, Role, S2sPolicy, S2sStream, rewrite};
use crate::stream::sasl::SaslFailure;
use crate::xmpp::jid::BareJid;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::reader::Index;

pub(super) fn pair(local: &str, remote: &str) -> Pair {
    let jid = |text| BareJid::parse(text).unwrap();
    Pair { local: jid(local), remote: jid(remote) }
}

pub(super) fn secret() -> DialbackSecret {
    DialbackSecret::new(b"d14lb4ck43v3r")
}

pub(super) struct Side {
    pub stream: S2sStream,
    pub reader: Reader,
    pub policy: S2sPolicy,
    /// What leaves next.
    pub out: Vec<u8>,
    /// Receiving: what is offered. Initiating: what is made use of.
    pub wants: Offer,
    /// Receiving: the certificate is good for whom the peer wants to be.
    pub certificate: bool,
    /// The peer's keys are judged at once.
    pub judges: bool,
    pub management: Option<Management>,
    /// Initiating: resume this in place of `enable`.
    pub suspended: Option<Management>,
    /// Names of events, in order.
    pub events: Vec<&'static str>,
    pub stanzas: Vec<String>,
    pub error: Option<StreamError>,
    /// Stanzas the peer has, by its acknowledgements.
    pub acknowledged: u32,
    index: Index,
}

impl Side {
    pub(super) fn initiating(secure: bool) -> Side {
        let mut out = Vec::new();
        let stream = S2sStream::initiate(pair("here.example", "there.example"), secure, &mut out);
        Side { out, ..Side::new(stream, "here.example") }
    }

    pub(super) fn receiving(secure: bool) -> Side {
        Side::new(S2sStream::accept(secure, "seed-"), "there.example")
    }

    fn new(stream: S2sStream, domain: &str) -> Side {
        Side {
            stream,
            reader: Reader::new(),
            policy: S2sPolicy::new(domain),
            out: Vec::new(),
            wants: Offer { external: true, dialback: true, bidi: true, management: true },
            certificate: true,
            judges: true,
            management: None,
            suspended: None,
            events: Vec::new(),
            stanzas: Vec::new(),
            error: None,
            acknowledged: 0,
            index: Index::default(),
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8]) {
        if let Err(error) = self.reader.receive(bytes, &self.stream, &self.policy) {
            return self.fail(error);
        }
        self.go_on();
    }

    pub(super) fn go_on(&mut self) {
        loop {
            let Self { reader, stream, policy, index, out, .. } = self;
            match reader.next(stream, policy, index, out) {
                Ok(Some(event)) => self.react(event),
                Ok(None) => return,
                Err(error) => return self.fail(error),
            }
        }
    }

    pub(super) fn fail(&mut self, error: StreamError) {
        self.stream.close(Some(&error), &self.policy, &mut self.out);
        self.error.get_or_insert(error);
    }

    pub(super) fn condition(&self) -> Option<StreamCondition> {
        self.error.as_ref().map(|error| error.condition)
    }

    /// Sends a stanza of `jabber:client`, counted where there is management.
    pub(super) fn send(&mut self, xml: &str) {
        rewrite::to_server(&mut self.out, xml.as_bytes(), None).unwrap();
        if let Some(management) = &mut self.management {
            management.send();
            management.request(&mut self.out);
        }
    }

    pub(super) fn saw(&self, name: &str) -> bool {
        self.events.contains(&name)
    }

    pub(super) fn said(&self) -> String {
        String::from_utf8(self.out.clone()).unwrap()
    }

    fn react(&mut self, event: Event) {
        let policy = &self.policy;
        let name = match event {
            Event::Opened(_) => {
                self.stream.offer(self.wants, policy, &mut self.out);
                "opened"
            }
            Event::StartTls => "start-tls",
            Event::NoTls(_) => "no-tls",
            Event::Features(features) => {
                if self.wants.bidi {
                    self.stream.bidi(policy, &mut self.out);
                }
                if self.stream.is_authenticated() {
                    self.ready();
                } else if features.external && self.wants.external {
                    self.stream.authenticate(&mut self.out);
                } else {
                    self.ask();
                }
                "features"
            }
            Event::External { .. } => {
                if self.certificate {
                    self.stream.authenticated(&mut self.out);
                } else {
                    let refused = SaslFailure::NotAuthorized;
                    if let Err(error) = self.stream.refused(refused, policy, &mut self.out) {
                        self.fail(error);
                    }
                }
                "external"
            }
            Event::Authenticated => "authenticated",
            Event::NotAuthenticated { .. } => {
                self.ask();
                "not-authenticated"
            }
            Event::Dialback(Dialback::Ask { .. }) if !self.judges => "ask",
            Event::Dialback(Dialback::Ask { from, to, key }) => {
                let id = self.stream.id();
                let holds = secret().holds(to.as_str(), from.as_str(), id, &key);
                let verdict = if holds { Verdict::Valid } else { Verdict::Invalid };
                let pair = Pair { local: to, remote: from };
                assert!(self.stream.answer(&pair, verdict, &mut self.out));
                assert!(!self.stream.answer(&pair, verdict, &mut self.out), "answered already");
                "ask"
            }
            Event::Dialback(Dialback::Answer { verdict, .. }) => {
                if verdict == Verdict::Valid {
                    self.ready();
                }
                verdict.name()
            }
            Event::Dialback(Dialback::Verify { from, to, id, key }) => {
                let holds = secret().holds(from.as_str(), to.as_str(), &id, &key);
                let verdict = if holds { Verdict::Valid } else { Verdict::Invalid };
                Dialback::Verified { from: to, to: from, id, verdict }.write(&mut self.out);
                "verify"
            }
            Event::Dialback(Dialback::Verified { .. }) => "verified",
            Event::Bidi => "bidi",
            Event::Stanza { from, to, .. } => {
                let stanza = self.reader.stanza(&self.index);
                let mut written = Vec::new();
                let (from, to) = (from.to_string(), to.to_string());
                rewrite::to_client(&mut written, &stanza, Some(&from), Some(&to));
                self.stanzas.push(String::from_utf8(written).unwrap());
                if let Some(management) = &mut self.management {
                    let number = management.receive();
                    management.handled(number);
                }
                "stanza"
            }
            Event::Enable { resume, .. } => {
                let id = resume.then_some(("s1", 60));
                self.stream.enabled(id, &mut self.out);
                let resumable = id.map(|(id, window_s)| (id.into(), window_s));
                self.management = Some(Management::new(self.stream.pair().unwrap(), resumable));
                "enable"
            }
            Event::Enabled { id, max_s } => {
                self.management.as_mut().unwrap().granted(id, max_s, 300);
                "enabled"
            }
            Event::Resume { previous, h } => {
                let found = self.suspended.take().filter(|suspended| {
                    let is_named = suspended.resumable().map(|(id, _)| id) == Some(&*previous);
                    is_named && Some(suspended.pair()) == self.stream.pair().as_ref()
                });
                match found {
                    Some(mut management) => {
                        self.acknowledged += management.resumed(h).unwrap();
                        self.stream.resumed(&previous, management.tell(), &mut self.out);
                        self.management = Some(management);
                    }
                    None => self.stream.not_managed("item-not-found", Some(3), &mut self.out),
                }
                "resume"
            }
            Event::Resumed { h } => {
                let mut management = self.suspended.take().unwrap();
                self.acknowledged += management.resumed(h).unwrap();
                self.management = Some(management);
                "resumed"
            }
            Event::NotManaged { h } => {
                self.management = None;
                self.acknowledged += h.unwrap_or(0);
                "not-managed"
            }
            Event::Acknowledged { h } => {
                let newly = self.management.as_mut().unwrap().acknowledge(h);
                match newly {
                    Ok(newly) => self.acknowledged += newly,
                    Err(error) => self.fail(error),
                }
                "acknowledged"
            }
            Event::Requested => {
                let management = self.management.as_mut().unwrap();
                management.ask(Instant(0));
                management.answer(false, &mut self.out);
                "requested"
            }
            Event::Failed(error) => {
                self.error.get_or_insert(error);
                self.stream.close(None, policy, &mut self.out);
                "failed"
            }
            Event::Closed => {
                self.stream.close(None, policy, &mut self.out);
                "closed"
            }
        };
        self.events.push(name);
    }

    pub(super) fn ask(&mut self) {
        let pair = self.stream.pair().unwrap();
        let key = secret().key(pair.remote.as_str(), pair.local.as_str(), self.stream.id());
        self.stream.ask(&pair, &key, &self.policy, &mut self.out);
    }

    /// A pair is authenticated for us to send.
    fn ready(&mut self) {
        if self.stream.role() != Role::Initiating {
            return;
        }
        let pair = self.stream.pair().unwrap();
        assert!(self.stream.may_send(&pair));
        if self.stream.is_bidi() {
            assert!(self.stream.trust(&pair));
        }
        if !self.wants.management {
            return;
        }
        if let Some(suspended) = &mut self.suspended {
            let previous = suspended.resumable().map(|(id, _)| id.to_owned()).unwrap();
            let h = suspended.tell();
            self.stream.resume(&previous, h, &mut self.out);
        } else if self.stream.enable(true, &mut self.out) {
            self.management = Some(Management::new(pair, None));
        }
    }
}

/// How bytes are cut on their way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Cut {
    Not,
    Bytes,
    Seed(u64),
}

pub(super) const CUTS: [Cut; 7] =
    [Cut::Not, Cut::Bytes, Cut::Seed(1), Cut::Seed(2), Cut::Seed(3), Cut::Seed(4), Cut::Seed(5)];

/// Carries bytes both ways, and shakes hands where both sides are to, until nothing moves.
pub(super) fn talk(one: &mut Side, other: &mut Side, cut: Cut) {
    let mut rng = Rng::from_u64(if let Cut::Seed(seed) = cut { seed } else { 0 });
    loop {
        if one.out.is_empty() && other.out.is_empty() {
            if !(one.stream.is_starting_tls() && other.stream.is_starting_tls()) {
                return;
            }
            for side in [&mut *one, &mut *other] {
                side.stream.secured(&mut side.out);
                side.go_on();
            }
        }
        carry(one, other, cut, &mut rng);
        carry(other, one, cut, &mut rng);
    }
}

fn carry(from: &mut Side, to: &mut Side, cut: Cut, rng: &mut Rng) {
    let bytes = std::mem::take(&mut from.out);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let length = match cut {
            Cut::Not => rest.len(),
            Cut::Bytes => 1,
            Cut::Seed(_) => 1 + rng.below(rest.len().min(200) as u64) as usize,
        };
        let (piece, later) = rest.split_at(length);
        to.take(piece);
        rest = later;
    }
}
