//! Stanza errors (RFC 6120 §8.3): this stanza cannot be served; its sender gets a reply and the stream lives on.

use std::borrow::Cow;
use std::fmt;

use crate::xmpp::ns;
use crate::xmpp::stanza::StanzaKind;
use crate::xmpp::xml::writer::Writer;

/// Defined conditions of RFC 6120 §8.3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum StanzaCondition {
    BadRequest,
    Conflict,
    FeatureNotImplemented,
    Forbidden,
    Gone,
    InternalServerError,
    ItemNotFound,
    JidMalformed,
    NotAcceptable,
    NotAllowed,
    NotAuthorized,
    PolicyViolation,
    RecipientUnavailable,
    Redirect,
    RegistrationRequired,
    RemoteServerNotFound,
    RemoteServerTimeout,
    ResourceConstraint,
    ServiceUnavailable,
    SubscriptionRequired,
    UndefinedCondition,
    UnexpectedRequest,
}

/// What the sender may do about it (RFC 6120 §8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ErrorType {
    /// Try again with credentials.
    Auth,
    /// Nothing; trying again will not help.
    Cancel,
    /// Only a warning.
    Continue,
    /// Change the stanza and try again.
    Modify,
    /// Try again later.
    Wait,
}

impl ErrorType {
    pub fn name(self) -> &'static str {
        match self {
            ErrorType::Auth => "auth",
            ErrorType::Cancel => "cancel",
            ErrorType::Continue => "continue",
            ErrorType::Modify => "modify",
            ErrorType::Wait => "wait",
        }
    }
}

impl StanzaCondition {
    pub const ALL: [StanzaCondition; 22] = [
        StanzaCondition::BadRequest,
        StanzaCondition::Conflict,
        StanzaCondition::FeatureNotImplemented,
        StanzaCondition::Forbidden,
        StanzaCondition::Gone,
        StanzaCondition::InternalServerError,
        StanzaCondition::ItemNotFound,
        StanzaCondition::JidMalformed,
        StanzaCondition::NotAcceptable,
        StanzaCondition::NotAllowed,
        StanzaCondition::NotAuthorized,
        StanzaCondition::PolicyViolation,
        StanzaCondition::RecipientUnavailable,
        StanzaCondition::Redirect,
        StanzaCondition::RegistrationRequired,
        StanzaCondition::RemoteServerNotFound,
        StanzaCondition::RemoteServerTimeout,
        StanzaCondition::ResourceConstraint,
        StanzaCondition::ServiceUnavailable,
        StanzaCondition::SubscriptionRequired,
        StanzaCondition::UndefinedCondition,
        StanzaCondition::UnexpectedRequest,
    ];

    /// Name of the condition's element.
    pub fn name(self) -> &'static str {
        match self {
            StanzaCondition::BadRequest => "bad-request",
            StanzaCondition::Conflict => "conflict",
            StanzaCondition::FeatureNotImplemented => "feature-not-implemented",
            StanzaCondition::Forbidden => "forbidden",
            StanzaCondition::Gone => "gone",
            StanzaCondition::InternalServerError => "internal-server-error",
            StanzaCondition::ItemNotFound => "item-not-found",
            StanzaCondition::JidMalformed => "jid-malformed",
            StanzaCondition::NotAcceptable => "not-acceptable",
            StanzaCondition::NotAllowed => "not-allowed",
            StanzaCondition::NotAuthorized => "not-authorized",
            StanzaCondition::PolicyViolation => "policy-violation",
            StanzaCondition::RecipientUnavailable => "recipient-unavailable",
            StanzaCondition::Redirect => "redirect",
            StanzaCondition::RegistrationRequired => "registration-required",
            StanzaCondition::RemoteServerNotFound => "remote-server-not-found",
            StanzaCondition::RemoteServerTimeout => "remote-server-timeout",
            StanzaCondition::ResourceConstraint => "resource-constraint",
            StanzaCondition::ServiceUnavailable => "service-unavailable",
            StanzaCondition::SubscriptionRequired => "subscription-required",
            StanzaCondition::UndefinedCondition => "undefined-condition",
            StanzaCondition::UnexpectedRequest => "unexpected-request",
        }
    }

    /// The condition of that element name, as a peer sends it.
    pub fn from_name(name: &str) -> Option<StanzaCondition> {
        StanzaCondition::ALL.into_iter().find(|condition| condition.name() == name)
    }

    /// The type that RFC 6120 §8.3.3 recommends with the condition.
    pub fn default_type(self) -> ErrorType {
        match self {
            StanzaCondition::Forbidden
            | StanzaCondition::NotAuthorized
            | StanzaCondition::RegistrationRequired
            | StanzaCondition::SubscriptionRequired => ErrorType::Auth,
            StanzaCondition::BadRequest
            | StanzaCondition::JidMalformed
            | StanzaCondition::NotAcceptable
            | StanzaCondition::PolicyViolation
            | StanzaCondition::Redirect => ErrorType::Modify,
            StanzaCondition::RecipientUnavailable
            | StanzaCondition::RemoteServerTimeout
            | StanzaCondition::ResourceConstraint
            | StanzaCondition::UnexpectedRequest => ErrorType::Wait,
            StanzaCondition::Conflict
            | StanzaCondition::FeatureNotImplemented
            | StanzaCondition::Gone
            | StanzaCondition::InternalServerError
            | StanzaCondition::ItemNotFound
            | StanzaCondition::NotAllowed
            | StanzaCondition::RemoteServerNotFound
            | StanzaCondition::ServiceUnavailable
            | StanzaCondition::UndefinedCondition => ErrorType::Cancel,
        }
    }
}

/// Why a stanza is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StanzaError {
    pub condition: StanzaCondition,
    pub error_type: ErrorType,
    /// For people; English.
    pub text: Option<Cow<'static, str>>,
    /// An application's own condition, as XML (RFC 6120 §8.3.4); empty for none.
    pub detail: &'static str,
}

impl StanzaError {
    /// With the type that the RFC recommends.
    pub const fn typed(condition: StanzaCondition, error_type: ErrorType) -> StanzaError {
        StanzaError { condition, error_type, text: None, detail: "" }
    }

    pub fn new(condition: StanzaCondition) -> StanzaError {
        StanzaError::typed(condition, condition.default_type())
    }

    #[must_use]
    pub fn with_text(mut self, text: impl Into<Cow<'static, str>>) -> StanzaError {
        self.text = Some(text.into());
        self
    }

    /// - takes: `detail`, one element that declares its namespace
    #[must_use]
    pub fn with_detail(mut self, detail: &'static str) -> StanzaError {
        self.detail = detail;
        self
    }

    /// Appends `<error type='…'>…</error>` for a place where the content namespace is the default.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.start("error").attr("type", self.error_type.name());
        writer.start(self.condition.name()).attr("xmlns", ns::STANZA_ERRORS).close_empty();
        if let Some(text) = &self.text {
            writer.start("text").attr("xmlns", ns::STANZA_ERRORS).attr("xml:lang", "en");
            writer.text(text).end("text");
        }
        writer.raw(self.detail.as_bytes());
        writer.end("error");
    }
}

impl From<StanzaCondition> for StanzaError {
    fn from(condition: StanzaCondition) -> StanzaError {
        StanzaError::new(condition)
    }
}

impl fmt::Display for StanzaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.condition.name())?;
        match &self.text {
            Some(text) => write!(f, " ({text})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for StanzaError {}

/// Appends the error reply to a stanza (RFC 6120 §8.3.1); its payload is not echoed.
///
/// `from` and `to` are those of the reply: the addressee and the sender of the stanza that is refused. Never reply to
/// a stanza of type `error`.
pub fn write_error_reply(
    out: &mut Vec<u8>,
    kind: StanzaKind,
    id: Option<&str>,
    from: Option<&str>,
    to: Option<&str>,
    error: &StanzaError,
) {
    let mut writer = Writer::new(out);
    writer.start(kind.name()).attr("type", "error");
    writer.attr_opt("id", id).attr_opt("from", from).attr_opt("to", to).open();
    error.write(out);
    out.extend_from_slice(b"</");
    out.extend_from_slice(kind.name().as_bytes());
    out.push(b'>');
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn error_reply_keeps_the_id_and_swaps_the_addresses() {
        let mut out = Vec::new();
        let error = StanzaError::new(StanzaCondition::ItemNotFound).with_text("no <node>");
        write_error_reply(&mut out, StanzaKind::Iq, Some("a'b"), Some("example.org"), None, &error);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "<iq type='error' id='a&apos;b' from='example.org'><error type='cancel'>\
             <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>\
             <text xmlns='urn:ietf:params:xml:ns:xmpp-stanzas' xml:lang='en'>no &lt;node&gt;</text></error></iq>"
        );
    }

    #[test]
    fn every_condition_is_found_by_its_name() {
        for condition in StanzaCondition::ALL {
            assert_eq!(StanzaCondition::from_name(condition.name()), Some(condition));
        }
    }
}
