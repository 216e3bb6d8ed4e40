//! A client: one stream at a time, what has arrived on it, and its counts of XEP-0198. It answers by itself what servers
//! may ask of any client at any time.

use std::collections::{BTreeSet, VecDeque};

use corefire::xmpp::ns;
use corefire::xmpp::xml::element::Element;
use corefire::xmpp::xml::framer::{Framer, Step};

use crate::driver::Conn;
use crate::sasl::{Offer, SASL2};
use crate::xml;

pub(crate) const SM: &str = "urn:xmpp:sm:3";
const PING: &str = "urn:xmpp:ping";
/// Ids of the pings by which "nothing" is decided.
pub(crate) const FENCE: &str = "fence-";

pub(crate) struct Session {
    pub(crate) conn: Option<Conn>,
    framer: Framer,
    buffer: Vec<u8>,
    /// First-level elements that no step has looked at.
    pub(crate) inbox: VecDeque<Element>,
    /// Of a component: its domain.
    pub(crate) component: Option<String>,
    /// The server's, where its header has told one.
    pub(crate) stream_id: Option<String>,
    features: Option<Element>,
    /// The last login was by SASL2, or tried to be.
    pub(crate) uses_sasl2: bool,
    /// Full JID, once bound; of a component its domain.
    pub(crate) jid: Option<String>,
    /// What a resumed stream has again.
    last_jid: Option<String>,
    /// XEP-0352: pings would wake it.
    pub(crate) is_inactive: bool,
    pub(crate) ignored: Vec<Element>,
    /// Own pings without an answer.
    pub(crate) fences: BTreeSet<String>,
    pub(crate) management: Management,
    fault: Option<String>,
}

/// XEP-0198.
#[derive(Default)]
pub(crate) struct Management {
    is_on: bool,
    pub(crate) id: Option<String>,
    pub(crate) received: u32,
    /// Counts from the stream's enabling.
    pub(crate) sent: u32,
    unconfirmed: VecDeque<String>,
    pub(crate) is_silent: bool,
    /// Own `<r/>` that a step sent.
    asked: u32,
}

impl Session {
    pub(crate) fn new() -> Session {
        Session {
            conn: None,
            framer: Framer::new(),
            buffer: Vec::new(),
            inbox: VecDeque::new(),
            component: None,
            stream_id: None,
            features: None,
            uses_sasl2: false,
            jid: None,
            last_jid: None,
            is_inactive: false,
            ignored: Vec::new(),
            fences: BTreeSet::new(),
            management: Management::default(),
            fault: None,
        }
    }

    /// A stream begins: the next bytes are a header.
    pub(crate) fn restart(&mut self) {
        self.framer.restart();
        self.buffer.clear();
        self.stream_id = None;
        self.features = None;
        self.uses_sasl2 = false;
    }

    /// What the stream offers those who log in.
    pub(crate) fn offer(&self) -> Offer {
        let offer = |features| Offer::of(features, self.uses_sasl2);
        self.features.as_ref().map(offer).unwrap_or_default()
    }

    pub(crate) fn connected(&mut self, conn: Conn) {
        self.conn = Some(conn);
        self.last_jid = self.jid.take().or(self.last_jid.take());
        self.fences.clear();
        self.is_inactive = false;
        self.restart();
    }

    pub(crate) fn is_bound(&self) -> bool {
        self.conn.is_some() && self.jid.is_some()
    }

    /// Notes what an element that is sent means for this client.
    pub(crate) fn sends(&mut self, element: &Element, text: &str) {
        if is_stanza(element) && self.management.is_on {
            self.management.sent += 1;
            self.management.unconfirmed.push_back(text.to_owned());
        }
        match (element.namespace.as_str(), element.name.as_str()) {
            // What follows on the stream counts, even if it leaves before the answer.
            (SM, "enable") => self.management = Management { is_on: true, ..Default::default() },
            (SM, "r") => self.management.asked += 1,
            (SASL2, "authenticate") => {
                let bind = element.child("urn:xmpp:bind:0", "bind");
                let inactive = bind.and_then(|bind| bind.child("urn:xmpp:csi:0", "inactive"));
                self.is_inactive = inactive.is_some();
            }
            ("urn:xmpp:csi:0", "inactive") => self.is_inactive = true,
            ("urn:xmpp:csi:0", "active") => self.is_inactive = false,
            _ => {}
        }
    }

    /// - gives: what is to be sent at once; the ids of pings of `FENCE` that are answered
    pub(crate) fn receive(&mut self, bytes: &[u8], domain: &str) -> (Vec<Element>, Vec<String>) {
        self.buffer.extend_from_slice(bytes);
        let (mut answers, mut fences) = (Vec::new(), Vec::new());
        loop {
            match self.framer.next(&self.buffer, &xml::limits()) {
                Ok(Step::Open(range)) => {
                    self.stream_id = xml::header_id(&self.buffer[range.clone()]);
                    self.buffer.drain(..range.end);
                }
                Ok(Step::Stanza(range)) => {
                    let read = xml::read(&self.buffer[range.clone()]);
                    self.buffer.drain(..range.end);
                    match read {
                        Ok(element) if is_fence(&element) => {
                            self.management.received += u32::from(self.management.is_on);
                            fences.extend(element.attr("id").map(str::to_owned));
                        }
                        Ok(element) => answers.extend(self.take(element, domain)),
                        Err(fault) => self.fault = Some(fault),
                    }
                }
                Ok(Step::Close(_) | Step::More(_)) => return (answers, fences),
                Err(error) => {
                    self.fault = Some(format!("the server's stream is broken: {error}"));
                    return (answers, fences);
                }
            }
        }
    }

    /// What the server sent that is no XML stream.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    fn take(&mut self, element: Element, domain: &str) -> Option<Element> {
        if is_stanza(&element) {
            self.management.received += u32::from(self.management.is_on);
        }
        self.note(&element);
        let attr = |name| element.attr(name).unwrap_or_default();
        let own = self.jid.as_deref().unwrap_or_default();
        let is_from_server = ["", domain, bare(own)].contains(&attr("from"));
        let is_ping = element.name == "iq"
            && attr("type") == "get"
            && element.child(PING, "ping").is_some()
            && (is_from_server || attr("id").starts_with(FENCE));
        if is_ping {
            let answer = Element::new("iq", ns::CLIENT).with_attr("type", "result");
            let mut answer = answer.with_attr("id", attr("id"));
            if self.component.is_some() {
                answer.set_attr("from", attr("to"));
            }
            return Some(match attr("from") {
                "" => answer,
                from => answer.with_attr("to", from),
            });
        }
        match (element.namespace.as_str(), element.name.as_str()) {
            (SM, "r") => {
                let h = self.management.received.to_string();
                let answer = Element::new("a", SM).with_attr("h", h);
                return (!self.management.is_silent).then_some(answer);
            }
            (SM, "a") if self.management.asked == 0 => return None,
            (SM, "a") => self.management.asked -= 1,
            _ => {}
        }
        self.inbox.push_back(element);
        None
    }

    /// What the server tells about this session, wherever it tells it.
    fn note(&mut self, element: &Element) {
        match (element.namespace.as_str(), element.name.as_str()) {
            (_, "features") => self.features = Some(element.clone()),
            ("urn:xmpp:bind:0", "bound") => self.management = Management::default(),
            (SM, "enabled") => {
                self.management.is_on = true;
                self.management.id = element.attr("id").map(str::to_owned);
            }
            (SM, "a" | "resumed" | "failed") => {
                if element.name == "resumed" {
                    self.jid = self.last_jid.clone();
                }
                if let Some(h) = element.attr("h").and_then(|h| h.parse().ok()) {
                    self.confirm(h);
                }
            }
            (_, "jid") => self.jid = Some(element.text()),
            (_, "authorization-identifier") if element.text().contains('/') => {
                self.jid = Some(element.text());
            }
            _ => {}
        }
        let holds_news = ["iq", "bind", "success", "bound", "enabled", "resumed"];
        if holds_news.contains(&element.name.as_str()) {
            for child in element.children() {
                let is_ours = ["bind", "jid", "authorization-identifier", "bound", "enabled"];
                if is_ours.contains(&child.name.as_str()) || child.namespace == SM {
                    self.note(child);
                }
            }
        }
    }

    fn confirm(&mut self, h: u32) {
        let left = usize::try_from(self.management.sent.wrapping_sub(h)).unwrap_or_default();
        while self.management.unconfirmed.len() > left {
            self.management.unconfirmed.pop_front();
        }
    }

    /// What goes out again over a resumed stream, without being counted twice.
    pub(crate) fn unconfirmed(&self) -> Vec<String> {
        self.management.unconfirmed.iter().cloned().collect()
    }

    pub(crate) fn is_confirmed(&self) -> bool {
        self.management.unconfirmed.is_empty()
    }
}

fn is_fence(element: &Element) -> bool {
    let is_answer = matches!(element.attr("type"), Some("result" | "error"));
    let is_of_fence = |id: &str| id.starts_with(FENCE);
    element.name == "iq" && is_answer && element.attr("id").is_some_and(is_of_fence)
}

pub(crate) fn is_stanza(element: &Element) -> bool {
    element.namespace == ns::CLIENT
        && ["message", "presence", "iq"].contains(&element.name.as_str())
}

pub(crate) fn bare(jid: &str) -> &str {
    jid.split('/').next().unwrap_or_default()
}
