//! What the targets with whole nodes share: choices that an input's bytes make, and a reader of all that a server says.

#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a test's harness, of which a target needs a part"
)]
#[path = "../../../shard/harness.rs"]
pub(crate) mod harness;

use corefire::xmpp::xml::element::Element;
use corefire::xmpp::xml::framer::{Framer, Step, XmlLimits};
use corefire::xmpp::xml::reader::StreamContext;

/// The bytes of an input, taken one by one; zeros follow them.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub(crate) fn pick<'t, T>(&mut self, among: &'t [T]) -> &'t T {
        &among[self.below(among.len())]
    }

    /// Bytes as they are, at most 255.
    pub(crate) fn raw(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (raw, rest) = self.0.split_at(length);
        self.0 = rest;
        raw
    }

    /// Other characters in a few places, once in a while.
    pub(crate) fn mutate(&mut self, text: &str) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        let count = match self.byte() {
            count @ 1..=3 => count,
            _ => 0,
        };
        for _ in 0..count {
            let at = usize::from(self.byte()) | usize::from(self.byte()) << 8;
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] = self.byte();
            }
        }
        bytes
    }
}

/// Reads what a server says on one connection: anything that is not a stream of sound elements is a find.
pub(crate) struct Ear {
    framer: Framer,
    rest: Vec<u8>,
    limits: XmlLimits,
    context: StreamContext,
}

impl Ear {
    pub(crate) fn new() -> Ear {
        let limits = XmlLimits { stanza_bytes_max: 1 << 24, ..XmlLimits::default() };
        let context = StreamContext::client();
        Ear { framer: Framer::new(), rest: Vec::new(), limits, context }
    }

    /// For a connection whose header was read before.
    pub(crate) fn opened() -> Ear {
        let mut ear = Ear::new();
        ear.hear(harness::HEADER);
        ear
    }

    /// Whether the bytes are one element.
    pub(crate) fn takes(&self, bytes: &[u8]) -> bool {
        Element::parse(bytes, &self.context, &self.limits).is_ok()
    }

    pub(crate) fn hear(&mut self, text: &str) -> Vec<Element> {
        let mut heard = Vec::new();
        self.rest.extend_from_slice(text.as_bytes());
        loop {
            let step = self.framer.next(&self.rest, &self.limits);
            let end = match step.unwrap_or_else(|error| panic!("{error}: {text}")) {
                Step::Open(range) => range.end,
                Step::Stanza(range) => {
                    let element = &self.rest[range.clone()];
                    let element = Element::parse(element, &self.context, &self.limits);
                    let element = element.unwrap_or_else(|error| panic!("{error:?}: {text}"));
                    if element.is("urn:ietf:params:xml:ns:xmpp-sasl", "success") {
                        self.framer.restart();
                    }
                    heard.push(element);
                    range.end
                }
                Step::Close(end) => {
                    self.rest.drain(..end);
                    assert!(self.rest.is_empty(), "more after the end: {text}");
                    return heard;
                }
                Step::More(_) => return heard,
            };
            self.rest.drain(..end);
        }
    }
}
