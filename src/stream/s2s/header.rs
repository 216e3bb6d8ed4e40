//! Stream headers, both ways (RFC 6120 §4.7), and the features behind ours.

use super::{Event, Offer, Opened, Phase, Role, S2sPolicy, S2sStream};
use crate::stream::dialback::ID_BYTES_MAX;
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::stream_error::{StreamCondition, StreamError};
use crate::xmpp::xml::reader::StreamHeader;
use crate::xmpp::xml::writer::Writer;

impl S2sStream {
    /// The peer's header came.
    ///
    /// - errors: `invalid-namespace`, `host-unknown`, `invalid-from`, `unsupported-version` (RFC 6120 §4.9.3);
    ///   `not-well-formed` where none is due. `close` puts our header before the error. What is wrong with the answer to
    ///   ours is an error of the element behind it, as the peer may have more to say in an error of its own
    pub fn header(
        &mut self,
        header: StreamHeader,
        policy: &S2sPolicy,
    ) -> Result<Option<Event>, StreamError> {
        if self.phase != Phase::Opening {
            return Err(StreamError::new(StreamCondition::NotWellFormed)
                .with_text("a second stream header"));
        }
        match self.role {
            Role::Receiving => self.opened(header, policy).map(Some),
            Role::Initiating => self.answered(header).map(|()| None),
        }
    }

    fn opened(&mut self, header: StreamHeader, policy: &S2sPolicy) -> Result<Event, StreamError> {
        let to = match (&header.to, &policy.domains[..]) {
            (Some(to), _) => domain(to).filter(|to| policy.serves(to.as_str())),
            (None, [only]) => domain(only),
            (None, _) => None,
        };
        let sticks = !self.authenticated || to == self.local;
        if !self.authenticated && to.is_some() {
            // Our header is from there even where an error follows it.
            self.local.clone_from(&to);
        }
        check_namespace(&header)?;
        check_version(&header)?;
        let Some(to) = to else { return Err(StreamError::new(StreamCondition::HostUnknown)) };
        if !sticks {
            return Err(StreamError::new(StreamCondition::HostUnknown)
                .with_text("the stream's domain may not change"));
        }
        let from = match header.from.as_deref() {
            None => None,
            Some(from) => match domain(from) {
                Some(from) if !policy.serves(from.as_str()) => Some(from),
                _ => return Err(StreamError::new(StreamCondition::InvalidFrom)),
            },
        };
        if self.authenticated {
            if from.is_some() && from != self.remote {
                return Err(StreamError::new(StreamCondition::InvalidFrom)
                    .with_text("authenticated as another domain"));
            }
        } else {
            self.remote.clone_from(&from);
        }
        self.context = header.context;
        self.phase = Phase::Offering;
        Ok(Event::Opened(Opened { from, to, is_authenticated: self.authenticated }))
    }

    fn answered(&mut self, header: StreamHeader) -> Result<(), StreamError> {
        check_namespace(&header)?;
        let is_id = |id: &String| !id.is_empty() && id.len() <= ID_BYTES_MAX;
        let is_other = header.from.as_ref().is_some_and(|from| domain(from) != self.remote);
        self.flaw = if is_other {
            let error = StreamError::new(StreamCondition::InvalidFrom);
            Some(error.with_text("the answer is from another domain"))
        } else if !header.id.as_ref().is_some_and(is_id) {
            let error = StreamError::new(StreamCondition::BadFormat);
            Some(error.with_text("a stream header without usable id"))
        } else {
            check_version(&header).err()
        };
        self.id = header.id.filter(is_id).unwrap_or_default().into();
        self.offer.dialback = header.context.bindings().any(|(_, bound)| bound == ns::DIALBACK);
        self.context = header.context;
        self.phase = Phase::Features;
        Ok(())
    }

    /// Receiving: answers `Event::Opened` with our header and the features of this stage.
    pub fn offer(&mut self, offer: Offer, policy: &S2sPolicy, out: &mut Vec<u8>) {
        if self.phase != Phase::Offering {
            return;
        }
        self.offer = Offer { external: offer.external && !self.authenticated, ..offer };
        self.phase = Phase::Open;
        self.write_header(None, out);
        let mut writer = Writer::new(out);
        writer.start("stream:features");
        if !self.secure {
            writer.start("starttls").attr("xmlns", ns::TLS);
            writer.start("required").close_empty().end("starttls");
        } else {
            if self.offer.external {
                writer.start("mechanisms").attr("xmlns", ns::SASL);
                writer.start("mechanism").text("EXTERNAL").end("mechanism").end("mechanisms");
            }
            if self.offer.bidi && !self.bidi {
                writer.start("bidi").attr("xmlns", ns::BIDI_FEATURE).close_empty();
            }
            if self.offer.dialback {
                writer.start("dialback").attr("xmlns", ns::DIALBACK_FEATURE);
                writer.start("errors").close_empty().end("dialback");
            }
            if self.offer.management {
                writer.start("sm").attr("xmlns", ns::SM3).close_empty();
            }
            // Those of an authenticated stream: after dialback there are no further features to tell them with.
            write_limits(&mut writer, policy);
        }
        writer.end("stream:features");
    }

    /// Writes our header; `from` where we do not know yet which of our domains the peer means.
    pub(super) fn write_header(&mut self, from: Option<&str>, out: &mut Vec<u8>) {
        self.header_sent = true;
        if self.role == Role::Receiving {
            self.headers += 1;
            self.id = format!("{}{}", self.seed, self.headers).into();
        }
        let (local, remote) = (self.local.as_ref(), self.remote.as_ref());
        let is_receiving = self.role == Role::Receiving;
        let mut header = Vec::with_capacity(256);
        Writer::new(&mut header)
            .start("stream:stream")
            .attr("xmlns", ns::SERVER)
            .attr("xmlns:stream", ns::STREAMS)
            .attr("xmlns:db", ns::DIALBACK)
            .attr_opt("from", local.map(|local| local.as_str()).or(from))
            .attr_opt("to", remote.map(|remote| remote.as_str()))
            .attr_opt("id", is_receiving.then_some(&*self.id))
            .attr("version", "1.0")
            .attr("xml:lang", "en");
        out.extend_from_slice(b"<?xml version='1.0'?>");
        out.extend_from_slice(&header);
        out.push(b'>');
    }
}

/// XEP-0478: what we take.
pub(super) fn write_limits(writer: &mut Writer<'_>, policy: &S2sPolicy) {
    writer.start("limits").attr("xmlns", ns::STREAM_LIMITS);
    for (name, number) in
        [("max-bytes", policy.limits.stanza_bytes_max), ("idle-seconds", policy.idle_s)]
    {
        writer.start(name).text(&number.to_string()).end(name);
    }
    writer.end("limits");
}

fn check_namespace(header: &StreamHeader) -> Result<(), StreamError> {
    match header.context.content() {
        ns::SERVER => Ok(()),
        // A client or a component that has the wrong port.
        _ => Err(StreamError::new(StreamCondition::InvalidNamespace)),
    }
}

fn check_version(header: &StreamHeader) -> Result<(), StreamError> {
    if header.version.is_none_or(|(major, _)| major < 1) {
        return Err(StreamError::new(StreamCondition::UnsupportedVersion));
    }
    Ok(())
}

/// The domain that an address is, prepared.
pub(super) fn domain(text: &str) -> Option<BareJid> {
    let jid = Jid::parse(text).ok()?;
    (jid.local().is_none() && jid.resource().is_none()).then(|| jid.into_bare())
}
