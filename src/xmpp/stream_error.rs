//! Stream errors (RFC 6120 §4.9): the peer broke the stream; the condition is sent and the stream closed.

use std::borrow::Cow;
use std::fmt;

use crate::xmpp::ns;
use crate::xmpp::xml::writer::Writer;

/// Defined conditions of RFC 6120 §4.9.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StreamCondition {
    BadFormat,
    BadNamespacePrefix,
    Conflict,
    ConnectionTimeout,
    HostGone,
    HostUnknown,
    ImproperAddressing,
    InternalServerError,
    InvalidFrom,
    InvalidNamespace,
    InvalidXml,
    NotAuthorized,
    NotWellFormed,
    PolicyViolation,
    RemoteConnectionFailed,
    Reset,
    ResourceConstraint,
    RestrictedXml,
    SeeOtherHost,
    SystemShutdown,
    UndefinedCondition,
    UnsupportedEncoding,
    UnsupportedFeature,
    UnsupportedStanzaType,
    UnsupportedVersion,
}

impl StreamCondition {
    pub const ALL: [StreamCondition; 25] = [
        StreamCondition::BadFormat,
        StreamCondition::BadNamespacePrefix,
        StreamCondition::Conflict,
        StreamCondition::ConnectionTimeout,
        StreamCondition::HostGone,
        StreamCondition::HostUnknown,
        StreamCondition::ImproperAddressing,
        StreamCondition::InternalServerError,
        StreamCondition::InvalidFrom,
        StreamCondition::InvalidNamespace,
        StreamCondition::InvalidXml,
        StreamCondition::NotAuthorized,
        StreamCondition::NotWellFormed,
        StreamCondition::PolicyViolation,
        StreamCondition::RemoteConnectionFailed,
        StreamCondition::Reset,
        StreamCondition::ResourceConstraint,
        StreamCondition::RestrictedXml,
        StreamCondition::SeeOtherHost,
        StreamCondition::SystemShutdown,
        StreamCondition::UndefinedCondition,
        StreamCondition::UnsupportedEncoding,
        StreamCondition::UnsupportedFeature,
        StreamCondition::UnsupportedStanzaType,
        StreamCondition::UnsupportedVersion,
    ];

    /// Name of the condition's element.
    pub fn name(self) -> &'static str {
        match self {
            StreamCondition::BadFormat => "bad-format",
            StreamCondition::BadNamespacePrefix => "bad-namespace-prefix",
            StreamCondition::Conflict => "conflict",
            StreamCondition::ConnectionTimeout => "connection-timeout",
            StreamCondition::HostGone => "host-gone",
            StreamCondition::HostUnknown => "host-unknown",
            StreamCondition::ImproperAddressing => "improper-addressing",
            StreamCondition::InternalServerError => "internal-server-error",
            StreamCondition::InvalidFrom => "invalid-from",
            StreamCondition::InvalidNamespace => "invalid-namespace",
            StreamCondition::InvalidXml => "invalid-xml",
            StreamCondition::NotAuthorized => "not-authorized",
            StreamCondition::NotWellFormed => "not-well-formed",
            StreamCondition::PolicyViolation => "policy-violation",
            StreamCondition::RemoteConnectionFailed => "remote-connection-failed",
            StreamCondition::Reset => "reset",
            StreamCondition::ResourceConstraint => "resource-constraint",
            StreamCondition::RestrictedXml => "restricted-xml",
            StreamCondition::SeeOtherHost => "see-other-host",
            StreamCondition::SystemShutdown => "system-shutdown",
            StreamCondition::UndefinedCondition => "undefined-condition",
            StreamCondition::UnsupportedEncoding => "unsupported-encoding",
            StreamCondition::UnsupportedFeature => "unsupported-feature",
            StreamCondition::UnsupportedStanzaType => "unsupported-stanza-type",
            StreamCondition::UnsupportedVersion => "unsupported-version",
        }
    }

    /// The condition of that element name, as a peer sends it.
    pub fn from_name(name: &str) -> Option<StreamCondition> {
        StreamCondition::ALL.into_iter().find(|condition| condition.name() == name)
    }
}

/// Why a stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamError {
    pub condition: StreamCondition,
    /// For people who read logs; English.
    pub text: Option<Cow<'static, str>>,
    /// Where to go instead, only with [`StreamCondition::SeeOtherHost`] (§4.9.3.19).
    pub host: Option<Box<str>>,
    /// An application-specific condition beside the defined one, as XML (§4.9.4).
    pub detail: Option<Box<str>>,
}

impl StreamError {
    pub const fn new(condition: StreamCondition) -> StreamError {
        StreamError { condition, text: None, host: None, detail: None }
    }

    /// `host` is a domain or address with an optional port, IPv6 in brackets.
    pub fn see_other_host(host: &str) -> StreamError {
        StreamError { host: Some(host.into()), ..StreamError::new(StreamCondition::SeeOtherHost) }
    }

    #[must_use]
    pub fn with_text(mut self, text: impl Into<Cow<'static, str>>) -> StreamError {
        self.text = Some(text.into());
        self
    }

    /// - takes: `detail`, one element with its own namespace
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<Box<str>>) -> StreamError {
        self.detail = Some(detail.into());
        self
    }

    /// Appends `<stream:error>…</stream:error>`; the stream's header has to bind the prefix `stream`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.start("stream:error").open();
        writer.start(self.condition.name()).attr("xmlns", ns::STREAM_ERRORS);
        if let Some(host) = &self.host {
            writer.text(host);
        }
        writer.end(self.condition.name());
        if let Some(text) = &self.text {
            writer.start("text").attr("xmlns", ns::STREAM_ERRORS).attr("xml:lang", "en");
            writer.text(text).end("text");
        }
        if let Some(detail) = &self.detail {
            writer.raw(detail.as_bytes());
        }
        writer.end("stream:error");
    }
}

impl From<StreamCondition> for StreamError {
    fn from(condition: StreamCondition) -> StreamError {
        StreamError::new(condition)
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.condition.name())?;
        match &self.text {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StreamError {}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn error_is_written_with_text_and_host_escaped() {
        let mut out = Vec::new();
        StreamError::see_other_host("[2001:db8::1]:5222").with_text("a < b").write(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "<stream:error><see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>[2001:db8::1]:5222\
             </see-other-host><text xmlns='urn:ietf:params:xml:ns:xmpp-streams' xml:lang='en'>a &lt; b</text>\
             </stream:error>"
        );
        let mut bare = Vec::new();
        StreamError::new(StreamCondition::Reset).write(&mut bare);
        assert_eq!(
            String::from_utf8(bare).unwrap(),
            "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
        );
    }

    #[test]
    fn every_condition_is_found_by_its_name() {
        for condition in StreamCondition::ALL {
            assert_eq!(StreamCondition::from_name(condition.name()), Some(condition));
        }
        assert_eq!(StreamCondition::from_name("no-such"), None);
    }
}
