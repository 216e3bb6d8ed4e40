//! What a feature is: a manifest that says what it answers, and typed phases with empty defaults.

use super::account::AccountId;
use super::errand::Outcome;
use super::input::StoreOutcome;
use super::phase::{Audience, Delivered, Passage, Phase, Received, Sent, SessionChange};
use super::session::SessionId;
use super::turn::Turn;
use crate::xmpp::ns;
use crate::xmpp::stanza::Child;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::writer::Writer;
use std::any::Any;

/// A specification that a feature implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// "RFC 6121 §2", "XEP-0199".
    pub name: &'static str,
    pub version: &'static str,
    /// What is left out; empty where it is complete.
    pub left_out: &'static str,
}

/// Whose answer an IQ asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// `to` is one of our domains.
    Server,
    /// No `to`, or the sender's own bare JID.
    Own,
    /// The bare JID of another account.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Set,
}

/// One kind of IQ request that a feature answers.
#[derive(Clone, Copy, Debug)]
pub struct Answers {
    pub method: Method,
    pub namespace: &'static str,
    pub name: &'static str,
    pub scopes: &'static [Scope],
}

/// What the server says of a feature. Disco, stream features and the table in the README come from it.
#[derive(Debug)]
pub struct Manifest {
    pub name: &'static str,
    pub specs: &'static [Spec],
    /// Features that `disco#info` of the server lists, and of an account.
    pub server_disco: &'static [&'static str],
    pub account_disco: &'static [&'static str],
    /// What the features of a logged-in stream show, as XML.
    pub stream: &'static str,
    pub answers: &'static [Answers],
    /// Namespaces of elements that it takes inside of `<bind/>` (XEP-0386), in `Feature::on_bind`.
    pub bind_inline: &'static [&'static str],
    /// What else it wants to be called for. A message pays for no phase that nobody declares.
    pub phases: &'static [Phase],
    /// It answers with what all features know (`Feature::discover`), which is gathered for it.
    pub gathers: bool,
}

impl Manifest {
    /// One that says nothing, to be filled in: `Manifest { name, specs, ..Manifest::EMPTY }`.
    pub const EMPTY: Manifest = Manifest {
        name: "",
        specs: &[],
        server_disco: &[],
        account_disco: &[],
        stream: "",
        answers: &[],
        bind_inline: &[],
        phases: &[],
        gathers: false,
    };
}

/// A request for service discovery (XEP-0030), as each feature sees it.
#[derive(Clone, Copy)]
pub struct DiscoRequest<'a> {
    /// `disco#items`, not `disco#info`.
    pub is_items: bool,
    pub scope: Scope,
    /// Full JID of the one who asks.
    pub from: &'a str,
    /// The account that is asked; `None` for the server.
    pub account: Option<AccountId>,
    /// The domain or bare JID that is asked.
    pub subject: &'a str,
    /// `None` for the entity itself.
    pub node: Option<&'a str>,
}

/// What features add to the answer, beside what their manifests say.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// Some feature knows the node that was asked for.
    pub is_known_node: bool,
    pub identities: Vec<Identity>,
    pub features: Vec<&'static str>,
    pub forms: Vec<Form>,
    pub items: Vec<Item>,
}

/// `<identity/>`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    pub category: &'static str,
    pub kind: &'static str,
    pub name: String,
}

/// A result form (XEP-0128).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    pub form_type: &'static str,
    /// Names and values, of the type `list-multi`.
    pub fields: Vec<(String, Vec<String>)>,
}

impl Form {
    pub fn write(&self, writer: &mut Writer<'_>) {
        writer.start("x").attr("xmlns", ns::DATA_FORMS).attr("type", "result");
        writer.start("field").attr("var", "FORM_TYPE").attr("type", "hidden");
        writer.start("value").text(self.form_type).end("value").end("field");
        for (var, values) in &self.fields {
            writer.start("field").attr("var", var).attr("type", "list-multi");
            for value in values {
                writer.start("value").text(value).end("value");
            }
            writer.end("field");
        }
        writer.end("x");
    }
}

/// `<item/>`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub jid: String,
    pub node: Option<String>,
    pub name: Option<String>,
}

/// An IQ request that a feature is asked to answer.
#[derive(Clone, Copy)]
pub struct Iq<'a> {
    pub method: Method,
    pub scope: Scope,
    pub payload: Child<'a>,
    /// Full JID of the sender.
    pub from: &'a str,
    /// The sender's session, where it is this account's own.
    pub session: Option<SessionId>,
    /// The account that is asked; `None` for the server.
    pub account: Option<AccountId>,
    /// The domain or bare JID that is asked.
    pub subject: &'a str,
}

/// What became of a request.
#[derive(Debug)]
pub enum Verdict {
    /// The result, with this payload (may be empty).
    Result(Vec<u8>),
    Error(StanzaError),
    /// The store must do something first: the feature gave it to `Turn::store` and will be asked again in `on_stored`.
    Pending,
}

/// One feature; one instance per shard. Its fields hold only what can be rebuilt: an account's state is in slots.
pub trait Feature {
    fn manifest(&self) -> &'static Manifest;

    /// An IQ that its manifest says it answers.
    fn on_iq(&mut self, _turn: &mut Turn<'_>, _iq: &Iq<'_>) -> Verdict {
        Verdict::Error(StanzaCondition::ServiceUnavailable.into())
    }

    /// A session has just been bound by Bind 2 (XEP-0386), and its client asks for this, in a namespace of
    /// `Manifest::bind_inline`. Comes before `SessionChange::Started`; nothing can be written to the client yet. Gives the
    /// XML that `<bound/>` answers with, if any.
    fn on_bind(
        &mut self,
        _turn: &mut Turn<'_>,
        _session: SessionId,
        _request: &Element,
    ) -> Vec<u8> {
        Vec::new()
    }

    /// Adds to an answer of service discovery. Called for all features of a shard, whoever is asked.
    fn discover(
        &mut self,
        _turn: &mut Turn<'_>,
        _request: &DiscoRequest<'_>,
        _found: &mut Discovery,
    ) {
    }

    /// A client's stanza of whatever kind. The first feature that does not let it pass decides.
    fn on_sent(&mut self, _turn: &mut Turn<'_>, _sent: &Sent<'_>) -> Passage {
        Passage::Pass
    }

    /// Whether `on_sent` lets each message of the account's clients to another account pass, and need not see it, until one
    /// of its clients changes something by an IQ of type `set`. `on_sent` is called all the same, where it can be too late.
    /// Copies (XEP-0280) are seen by `on_sent` in any case.
    fn lets_messages_pass(&self, _turn: &mut Turn<'_>, _account: AccountId) -> bool {
        false
    }

    /// A stanza for one of our accounts. The first feature that does not let it pass decides.
    fn on_received(&mut self, _turn: &mut Turn<'_>, _received: &Received<'_>) -> Passage {
        Passage::Pass
    }

    /// A message left a session, or went where it had to.
    fn on_delivered(&mut self, _turn: &mut Turn<'_>, _delivered: &Delivered<'_>) {}

    /// Presence of the account (or a probe) is about to go to these addresses, or their requests to see it come up: takes
    /// out those that must have nothing to do with it.
    fn on_audience(&mut self, _turn: &mut Turn<'_>, _account: AccountId, _audience: &mut Audience) {
    }

    fn on_session(&mut self, _turn: &mut Turn<'_>, _session: SessionId, _change: SessionChange) {}

    /// A session moves to another node: what the feature keeps with it, if anything.
    fn pack_session(&self, _turn: &Turn<'_>, _session: SessionId) -> Option<Vec<u8>> {
        None
    }

    /// A session has come from another node, with what `pack_session` gave there.
    fn unpack_session(&mut self, _turn: &mut Turn<'_>, _session: SessionId, _packed: &[u8]) {}

    /// The store has answered what `on_iq` gave it. Gives the payload of the result.
    fn on_stored(
        &mut self,
        _turn: &mut Turn<'_>,
        _account: AccountId,
        _outcome: StoreOutcome,
    ) -> Result<Vec<u8>, StanzaError> {
        Ok(Vec::new())
    }

    /// A side thread has run what `on_iq` gave to `Turn::errand`. Gives the payload of the result.
    fn on_errand(
        &mut self,
        _turn: &mut Turn<'_>,
        _from: &str,
        _context: Box<dyn Any>,
        _outcome: Outcome,
    ) -> Result<Vec<u8>, StanzaError> {
        Ok(Vec::new())
    }
}
