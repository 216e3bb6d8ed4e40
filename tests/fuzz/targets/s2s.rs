//! A stream between servers in either role, with a core behind it that grants what it is asked for. The first byte chooses
//! how far the stream is, and the second how the rest is cut; the rest is what the peer says. The last choices take the rest
//! for one stanza, of a peer or of a client, that goes to the other content namespace.
//!
//! Promised: nothing panics; what is written is bounded by what was said; only stanzas of authenticated pairs come through,
//! and they are the same in `jabber:client`; nothing comes through before TLS.

use corefire::base::instant::Instant;
use corefire::stream::dialback::{Dialback, Verdict};
use corefire::stream::resume::Counters;
use corefire::stream::s2s::{Event, Offer, Pair, Reader, Role, S2sPolicy, S2sStream, rewrite};
use corefire::xmpp::jid::{BareJid, Jid};
use corefire::xmpp::ns;
use corefire::xmpp::stanza::{Stanza, write_stamped};
use corefire::xmpp::stream_error::StreamError;
use corefire::xmpp::xml::element::{Element, Node};
use corefire::xmpp::xml::framer::XmlLimits;
use corefire::xmpp::xml::reader::{Index, StreamContext, read};

const HEADER: &str = "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
                      xmlns:stream='http://etherx.jabber.org/streams' from='peer.example' \
                      to='fuzz.example' id='i' version='1.0'>";
const AUTH: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>";
const FEATURES: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
     <mechanism>EXTERNAL</mechanism></mechanisms><bidi xmlns='urn:xmpp:features:bidi'/>\
     <sm xmlns='urn:xmpp:sm:3'/></stream:features>";
const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";

/// What one byte of a peer may cost at most in output.
const OUTPUT_PER_BYTE: usize = 60;
const OUTPUT: usize = 8 << 10;

struct Side {
    stream: S2sStream,
    reader: Reader,
    policy: S2sPolicy,
    management: Option<Counters>,
    index: Index,
    out: Vec<u8>,
    written: usize,
    is_over: bool,
}

impl Side {
    fn new(role: Role, secure: bool) -> Side {
        let mut out = Vec::new();
        let jid = |text| BareJid::parse(text).expect("a domain");
        let stream = match role {
            Role::Receiving => S2sStream::accept(secure, "id"),
            Role::Initiating => {
                let pair = Pair { local: jid("fuzz.example"), remote: jid("peer.example") };
                S2sStream::initiate(pair, secure, &mut out)
            }
        };
        let mut policy = S2sPolicy::new("fuzz.example");
        (policy.pairs_max, policy.verifications_max) = (4, 4);
        policy.limits = XmlLimits { stanza_bytes_max: 20_000, ..XmlLimits::default() };
        let (reader, index) = (Reader::new(), Index::default());
        Side { stream, reader, policy, management: None, index, out, written: 0, is_over: false }
    }

    fn take(&mut self, bytes: &[u8]) {
        if self.is_over {
            return;
        }
        if let Err(error) = self.reader.receive(bytes, &self.stream, &self.policy) {
            return self.end(Some(error));
        }
        loop {
            let Side { stream, reader, policy, index, out, .. } = self;
            let event = reader.next(stream, policy, index, out);
            self.written += self.out.len();
            self.out.clear();
            match event {
                Ok(None) => return assert!(self.reader.unread() <= 300 << 10),
                Ok(Some(event)) => self.react(event),
                Err(error) => return self.end(Some(error)),
            }
            assert!(self.stream.inbound().len() <= self.policy.pairs_max + 1);
        }
    }

    fn end(&mut self, error: Option<StreamError>) {
        self.stream.close(error.as_ref(), &self.policy, &mut self.out);
        assert!(self.stream.is_closed());
        self.is_over = true;
    }

    fn react(&mut self, event: Event) {
        let Side { stream, policy, out, .. } = self;
        match event {
            Event::Opened(opened) => {
                assert!(policy.serves(opened.to.as_str()));
                let offer = Offer { external: true, dialback: true, bidi: true, management: true };
                stream.offer(offer, policy, out);
            }
            Event::StartTls => stream.secured(out),
            Event::Features(_) => {
                assert!(stream.is_secure());
                stream.bidi(policy, out);
                if !stream.is_authenticated() && !stream.authenticate(out) {
                    let pair = stream.pair().expect("ours");
                    stream.ask(&pair, "key", policy, out);
                    stream.verify(&pair, "id", "key", policy, out);
                } else {
                    self.enable();
                }
            }
            Event::NotAuthenticated { .. } => {
                let pair = stream.pair().expect("ours");
                stream.ask(&pair, "key", policy, out);
            }
            Event::External { domain } => {
                assert!(stream.is_secure() && !policy.serves(domain.as_str()));
                stream.authenticated(out);
            }
            Event::Dialback(Dialback::Ask { from, to, .. }) => {
                let pair = Pair { local: to, remote: from };
                assert!(stream.is_secure());
                assert!(stream.answer(&pair, Verdict::Valid, out), "it asked");
            }
            Event::Dialback(Dialback::Verify { from, to, id, .. }) => {
                let verdict = Verdict::Invalid;
                Dialback::Verified { from: to, to: from, id, verdict }.write(out);
            }
            Event::Dialback(Dialback::Answer { verdict: Verdict::Valid, .. }) => self.enable(),
            Event::Stanza { from, to, .. } => self.stanza(&from, &to),
            Event::Enable { .. } => {
                stream.enabled(Some(("name", 60)), out);
                self.management = Some(Counters::new(None));
            }
            Event::Resume { .. } => stream.not_managed("item-not-found", None, out),
            Event::NotManaged { .. } => self.management = None,
            Event::Acknowledged { h } => {
                let management = self.management.as_mut().expect("it is on");
                if let Err(error) = management.acknowledge(h) {
                    self.end(Some(error));
                }
            }
            Event::Requested => {
                let management = self.management.as_mut().expect("it is on");
                management.ask(Instant(0));
                let h = management.answer(true).expect("it asked");
                out.extend_from_slice(format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>").as_bytes());
            }
            Event::NoTls(_) | Event::Failed(_) | Event::Closed => self.end(None),
            Event::Resumed { .. } => panic!("nobody asked"),
            Event::Authenticated | Event::Enabled { .. } | Event::Bidi | Event::Dialback(_) => {}
        }
        self.written += self.out.len();
        self.out.clear();
    }

    fn enable(&mut self) {
        let pair = self.stream.pair().expect("ours");
        self.stream.trust(&pair);
        if self.stream.enable(true, &mut self.out) {
            self.management = Some(Counters::new(None));
        }
    }

    fn stanza(&mut self, from: &Jid, to: &Jid) {
        assert!(self.stream.is_secure());
        let is_pair = |pair: &Pair| {
            pair.remote.as_str() == from.domain() && pair.local.as_str() == to.domain()
        };
        assert!(self.stream.inbound().iter().any(is_pair), "{from} to {to}");
        if let Some(management) = &mut self.management {
            let number = management.receive();
            management.complete(number);
        }
        let stanza = self.reader.stanza(&self.index);
        inwards(&stanza, self.stream.context(), &from.to_string(), &to.to_string());
    }
}

/// A stanza of a peer is the same in `jabber:client`.
fn inwards(stanza: &Stanza<'_>, context: &StreamContext, from: &str, to: &str) {
    let tree = |bytes: &[u8], context| {
        let mut tree = Element::parse(bytes, context, &XmlLimits::PASSED).expect("it was read");
        tree.remove_attr("from");
        tree.remove_attr("to");
        tree
    };
    let mut expected = tree(stanza.bytes, context);
    rename(&mut expected);
    let mut written = Vec::new();
    rewrite::to_client(&mut written, stanza, Some(from), Some(to));
    let mut index = Index::default();
    read(&written, &StreamContext::client(), &XmlLimits::PASSED, &mut index).expect("our own XML");
    let there = Stanza { bytes: &written, index: &index };
    assert_eq!((there.kind(), stanza.kind().is_some()), (stanza.kind(), true));
    assert_eq!((there.from().as_deref(), there.to().as_deref()), (Some(from), Some(to)));
    assert_eq!(tree(&written, &StreamContext::client()), expected);
}

/// A stanza of a client is refused, or is the same in `jabber:server`.
fn outwards(bytes: &[u8]) {
    let client = StreamContext::client();
    let mut index = Index::default();
    if read(bytes, &client, &XmlLimits::default(), &mut index).is_err() {
        return;
    }
    let stanza = Stanza { bytes, index: &index };
    if stanza.kind().is_none() {
        return;
    }
    let mut frame = Vec::new();
    write_stamped(&mut frame, &stanza, Some("a@fuzz.example"), None);
    let mut written = Vec::new();
    if rewrite::to_server(&mut written, &frame, Some("b@peer.example")).is_err() {
        return assert!(written.is_empty());
    }
    let expected = Element::parse(&frame, &client, &XmlLimits::PASSED).expect("our own XML");
    let server = StreamContext::server();
    let mut there = Element::parse(&written, &server, &XmlLimits::PASSED).expect("our own XML");
    assert_eq!(there.namespace, ns::SERVER);
    assert_eq!(there.attr("to"), Some("b@peer.example"));
    there.remove_attr("to");
    rename(&mut there);
    assert_eq!(there, expected);
}

fn rename(element: &mut Element) {
    if element.namespace == ns::SERVER {
        ns::CLIENT.clone_into(&mut element.namespace);
    }
    for child in &mut element.children {
        if let Node::Element(child) = child {
            rename(child);
        }
    }
}

pub(crate) fn s2s(data: &[u8]) {
    let [script, cuts, said @ ..] = data else { return };
    let (role, secure, parts): (_, _, &[&str]) = match script % 8 {
        0 => (Role::Receiving, false, &[]),
        1 => (Role::Receiving, true, &[HEADER]),
        2 => (Role::Receiving, true, &[HEADER, AUTH, HEADER]),
        3 => (Role::Initiating, false, &[]),
        4 => (Role::Initiating, true, &[HEADER]),
        5 => (Role::Initiating, true, &[HEADER, FEATURES, SUCCESS, HEADER, FEATURES]),
        6 => {
            let mut index = Index::default();
            let context = StreamContext::server();
            if read(said, &context, &XmlLimits::default(), &mut index).is_ok() {
                let stanza = Stanza { bytes: said, index: &index };
                if stanza.kind().is_some() {
                    inwards(&stanza, &context, "a@peer.example", "b@fuzz.example");
                }
            }
            return;
        }
        _ => return outwards(said),
    };
    let mut side = Side::new(role, secure);
    parts.iter().for_each(|part| side.take(part.as_bytes()));
    assert!(!side.is_over, "the script holds");
    assert_eq!(side.stream.is_authenticated(), parts.len() > 2);
    let mut chance = u32::from(*cuts);
    let mut rest = said;
    while !rest.is_empty() {
        chance = chance.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = match cuts {
            0 => rest.len(),
            255 => 1,
            _ => 1 + (chance >> 16) as usize % rest.len().min(400),
        };
        let (piece, later) = rest.split_at(length.min(64 << 10));
        side.take(piece);
        rest = later;
    }
    side.end(None);
    let written = side.written + side.out.len();
    let most = OUTPUT + OUTPUT_PER_BYTE * said.len();
    assert!(written <= most, "{written} bytes out for {} in", said.len());
}
