//! The life of a client, or of a component's connection: from the first byte to the last.

use std::collections::BTreeSet;
use std::time::Instant;

use corefire::stream::component::Secret;
use corefire::stream::sasl::{decode_payload, encode_payload};
use corefire::xmpp::ns;
use corefire::xmpp::xml::element::Element;

use super::{Run, name_resource, request};
use crate::driver::{PASSWORD, Way};
use crate::pattern;
use crate::sasl::{Exchange, Login, SASL2};
use crate::script::{ClientName, How};
use crate::session::{SM, Session};
use crate::xml;

impl Run<'_> {
    pub(super) fn connect(&mut self, client: &ClientName, how: How) -> Result<(), String> {
        self.open(client, how)?;
        self.open_stream(client)
    }

    pub(super) fn open(&mut self, client: &ClientName, how: How) -> Result<(), String> {
        self.settle()?;
        let is_component = self.components.contains(&client.account);
        let own = self.names[&client.account].clone();
        let way = match how {
            How::Plain if is_component => Way::Component,
            _ if is_component => return Err("components have no TLS".into()),
            How::Plain => Way::Plain,
            How::Tls => Way::Tls,
            How::Certificate => Way::Certificate(own.clone()),
        };
        if self.sessions.get(client).is_some_and(|session| session.conn.is_some()) {
            return Err("is connected already; name the second connection otherwise".into());
        }
        let conn = self.driver.connect(&way)?;
        let session = self.sessions.entry(client.clone()).or_insert_with(Session::new);
        session.component = is_component.then_some(own);
        session.connected(conn);
        Ok(())
    }

    pub(super) fn send_header(&mut self, client: &ClientName) -> Result<(), String> {
        let domain = self.domain.clone();
        let session = self.session(client)?;
        session.restart();
        let conn = session.conn.ok_or("is not connected")?;
        let streams = "xmlns:stream='http://etherx.jabber.org/streams'";
        let header = match &session.component {
            Some(own) => format!(
                "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' {streams} to='{own}'>"
            ),
            None => format!(
                "<?xml version='1.0'?><stream:stream xmlns='jabber:client' {streams} to='{domain}' version='1.0'>"
            ),
        };
        self.driver.send(conn, header.as_bytes());
        self.busy = Some(client.clone());
        Ok(())
    }

    fn open_stream(&mut self, client: &ClientName) -> Result<(), String> {
        self.send_header(client)?;
        if self.session(client)?.component.is_some() {
            let has_begun = |run: &Run<'_>| run.sessions[client].stream_id.is_some();
            return self.wait_for(has_begun, || "the server opens no stream".into());
        }
        let features = self.next(client)?;
        if features.name != "features" {
            return Err(format!("features, not {}", xml::write(&features)));
        }
        note_offered(&features, &mut self.offered);
        self.set_own(client);
        Ok(())
    }

    /// SASL with a new stream behind it, or a component's handshake.
    pub(super) fn authenticate(
        &mut self,
        client: &ClientName,
        mechanism: &str,
    ) -> Result<(), String> {
        if self.session(client)?.component.is_some() {
            return self.shake_hands(client);
        }
        let mechanism = pattern::fill(mechanism, &self.names)?;
        let (mut exchange, first) = self.begin(client, &mechanism, None)?;
        let auth = Element::new("auth", ns::SASL).with_attr("mechanism", &mechanism);
        // RFC 6120 §6.4.2: an empty message, and not none.
        let first = if first.is_empty() { "=".to_owned() } else { encode_payload(&first) };
        self.send(client, &auth.with_text(&first))?;
        loop {
            let answer = self.next(client)?;
            match answer.name.as_str() {
                "challenge" if answer.namespace == ns::SASL => {
                    let response = exchange.answer(&payload(&answer)?)?;
                    let response = encode_payload(&response);
                    self.send(client, &Element::new("response", ns::SASL).with_text(&response))?;
                }
                "success" if answer.namespace == ns::SASL => {
                    exchange.check(&payload(&answer)?)?;
                    return self.open_stream(client);
                }
                _ => return Err(format!("success, not {}", xml::write(&answer))),
            }
        }
    }

    fn shake_hands(&mut self, client: &ClientName) -> Result<(), String> {
        let session = self.session(client)?;
        let own = session.component.clone();
        let id = session.stream_id.clone().ok_or("the server has not opened its stream")?;
        let hash = Secret::new(PASSWORD).handshake(&id);
        self.send(client, &Element::new("handshake", ns::CLIENT).with_text(&hash))?;
        let answer = self.next(client)?;
        if answer != Element::new("handshake", ns::CLIENT) {
            return Err(format!("a handshake, not {}", xml::write(&answer)));
        }
        self.session(client)?.jid = own;
        Ok(())
    }

    fn begin(
        &mut self,
        client: &ClientName,
        mechanism: &str,
        token: Option<&str>,
    ) -> Result<(Exchange, Vec<u8>), String> {
        let user = self.names[&format!("{}.name", client.account)].clone();
        let session = self.session(client)?;
        let conn = session.conn.ok_or("is not connected")?;
        let (offer, is_inline) = (session.offer(), token.is_some());
        let exporter = self.driver.exporter(conn);
        let secret = token.unwrap_or(PASSWORD);
        if is_inline && !offer.fast.iter().any(|it| it == mechanism) {
            return Err(format!("{mechanism} is not offered: {:?}", offer.fast));
        }
        Exchange::begin(mechanism, &Login { user: &user, secret, exporter, offer: &offer })
    }

    /// SASL2, up to its outcome, which stays unread.
    pub(super) fn authenticate_inline(
        &mut self,
        client: &ClientName,
        mechanism: &str,
        token: Option<&str>,
        elements: &[Element],
    ) -> Result<(), String> {
        self.set_own(client);
        let mechanism = pattern::fill(mechanism, &self.names)?;
        let token = token.map(|token| pattern::fill(token, &self.names)).transpose()?;
        self.session(client)?.uses_sasl2 = true;
        let (mut exchange, first) = self.begin(client, &mechanism, token.as_deref())?;
        let first = Element::new("initial-response", SASL2).with_text(&encode_payload(&first));
        let mut authenticate = Element::new("authenticate", SASL2)
            .with_attr("mechanism", &mechanism)
            .with_child(first);
        for element in elements {
            authenticate = authenticate.with_child(pattern::fill_element(element, &self.names)?);
        }
        self.send(client, &authenticate)?;
        loop {
            self.wait_for_any(client)?;
            let session = self.session(client)?;
            match session.inbox.front().map(|it| it.name.clone()).as_deref() {
                Some("challenge") => {
                    let challenge = session.inbox.pop_front().ok_or("nothing comes")?;
                    let response = encode_payload(&exchange.answer(&payload(&challenge)?)?);
                    self.send(client, &Element::new("response", SASL2).with_text(&response))?;
                }
                Some("success") => {
                    let data =
                        session.inbox.front().and_then(|it| it.child(SASL2, "additional-data"));
                    return exchange.check(&data.map(payload).transpose()?.unwrap_or_default());
                }
                _ => return Ok(()),
            }
        }
    }

    pub(super) fn bind(&mut self, client: &ClientName, resource: &str) -> Result<(), String> {
        if self.components.contains(&client.account) {
            return Err("components bind nothing".into());
        }
        name_resource(&mut self.names, &client.account, resource);
        let wanted = self.names[&format!("{}/{resource}", client.account)].clone();
        let resource = Element::new("resource", ns::BIND).with_text(resource);
        let bind = Element::new("bind", ns::BIND).with_child(resource);
        self.send(client, &request("set", "bind").with_child(bind))?;
        let answer = self.next(client)?;
        let given = answer.child(ns::BIND, "bind").and_then(|bind| bind.child(ns::BIND, "jid"));
        match given {
            Some(jid) if jid.text() == wanted => Ok(()),
            _ => Err(format!("{wanted}, not {}", xml::write(&answer))),
        }
    }

    pub(super) fn log_in(&mut self, client: &ClientName, resource: &str) -> Result<(), String> {
        self.connect(client, How::Plain)?;
        self.authenticate(client, "PLAIN")?;
        match self.session(client)?.component {
            Some(_) => Ok(()),
            None => self.bind(client, resource),
        }
    }

    /// Leaves unread whatever comes besides the roster and the client's own presence.
    pub(super) fn online(
        &mut self,
        client: &ClientName,
        resource: &str,
        priority: Option<&str>,
    ) -> Result<(), String> {
        self.log_in(client, resource)?;
        let query = Element::new("query", "jabber:iq:roster");
        self.send(client, &request("get", "roster").with_child(query))?;
        self.take_one(client, "the roster", |it, _| {
            it.name == "iq" && it.attr("id") == Some("roster") && it.attr("type") == Some("result")
        })?;
        let mut presence = Element::new("presence", ns::CLIENT);
        if let Some(priority) = priority {
            let priority = Element::new("priority", ns::CLIENT).with_text(priority);
            presence = presence.with_child(priority);
        }
        self.send(client, &presence)?;
        self.take_one(client, "its own presence", |it, own| {
            it.name == "presence" && it.attr("type").is_none() && it.attr("from") == Some(own)
        })
    }

    /// Takes the one element out of the inbox, wherever it stands there.
    pub(super) fn take_one(
        &mut self,
        client: &ClientName,
        what: &str,
        is_it: impl Fn(&Element, &str) -> bool,
    ) -> Result<(), String> {
        let place = |run: &Run<'_>| {
            let session = &run.sessions[client];
            let own = session.jid.clone().unwrap_or_default();
            session.inbox.iter().position(|element| is_it(element, &own))
        };
        self.wait_for(|run| place(run).is_some(), || format!("{what} does not come"))?;
        let found = place(self).unwrap_or_default();
        self.session(client)?.inbox.remove(found);
        Ok(())
    }

    pub(super) fn disconnect(&mut self, client: &ClientName) -> Result<(), String> {
        self.settle()?;
        let conn = self.session(client)?.conn.ok_or("is not connected")?;
        self.driver.send(conn, b"</stream:stream>");
        let is_closed = |run: &Run<'_>| run.sessions[client].conn.is_none();
        self.wait_for(is_closed, || "the server does not close its stream".into())?;
        self.busy = Some(client.clone());
        Ok(())
    }

    pub(super) fn is_acknowledged(&mut self, client: &ClientName) -> Result<(), String> {
        let until = Instant::now() + self.patience;
        // An answer covers what is safe by then, which need not be all: ask again.
        while !self.session(client)?.is_confirmed() {
            let asked = self.sessions[client].management.sent;
            self.send(client, &Element::new("r", SM))?;
            let answer = self.next(client)?;
            if !answer.is(SM, "a") {
                return Err(format!("an acknowledgement, not {}", xml::write(&answer)));
            }
            if Instant::now() > until {
                return Err(format!("of {asked} stanzas only {:?}", answer.attr("h")));
            }
        }
        Ok(())
    }

    pub(super) fn resume(&mut self, client: &ClientName) -> Result<(), String> {
        let session = self.session(client)?;
        let id = session.management.id.clone().ok_or("was not told an id")?;
        let received = session.management.received.to_string();
        self.connect(client, How::Plain)?;
        self.authenticate(client, "PLAIN")?;
        let resume = Element::new("resume", SM).with_attr("previd", &id).with_attr("h", received);
        self.send(client, &resume)?;
        let answer = self.next(client)?;
        if !answer.is(SM, "resumed") || answer.attr("previd") != Some(&id) {
            return Err(format!("resumed, not {}", xml::write(&answer)));
        }
        let session = self.session(client)?;
        let again = session.unconfirmed().concat();
        if let Some(conn) = session.conn {
            self.driver.send(conn, again.as_bytes());
        }
        self.busy = Some(client.clone());
        Ok(())
    }
}

/// Namespaces and names of mechanisms.
fn note_offered(element: &Element, offered: &mut BTreeSet<String>) {
    for child in element.children() {
        offered.insert(child.namespace.clone());
        offered.extend(child.attr("var").map(str::to_owned));
        if child.name == "mechanism" {
            offered.insert(child.text());
        }
        note_offered(child, offered);
    }
}

fn payload(element: &Element) -> Result<Vec<u8>, String> {
    match element.text() {
        text if text.is_empty() => Ok(Vec::new()),
        text => decode_payload(&text).map_err(|error| error.to_string()),
    }
}
