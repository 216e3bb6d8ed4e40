//! XEP-0077 before login: what a stranger asks for, and how it is answered. Whether it gets an account is for the shard.

use crate::xmpp::data_form::{self, Field, Submitted};
use crate::xmpp::ns;
use crate::xmpp::stanza::{IqType, Stanza, StanzaKind};
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError, write_error_reply};
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::writer::Writer;
use std::fmt;

const TITLE: &str = "Registration";
const INSTRUCTIONS: &str = "Choose a name and a password for your account.";

/// An IQ about registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub id: String,
    pub ask: Ask,
}

#[derive(Clone, PartialEq, Eq)]
pub enum Ask {
    /// What must be filled in?
    Fields,
    /// What was filled in; nothing is prepared.
    Account { name: String, password: String },
    /// It cannot be granted, whoever asks.
    Faulty(StanzaCondition),
}

impl fmt::Debug for Ask {
    /// A log shows no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Fields => f.write_str("Fields"),
            Ask::Account { name, .. } => write!(f, "Account {{ name: {name:?}, .. }}"),
            Ask::Faulty(condition) => write!(f, "Faulty({condition:?})"),
        }
    }
}

impl Request {
    /// - takes: an IQ on a stream of `domain`
    /// - gives: `None` for an IQ that is about something else, or for somebody else
    pub fn read(stanza: &Stanza<'_>, domain: &str) -> Option<Self> {
        let kind = stanza.iq_type()?;
        let query = stanza.child(ns::REGISTER, "query")?.to_element();
        let is_ours = stanza.to().is_none_or(|to| to.eq_ignore_ascii_case(domain));
        let id = stanza.id()?.into_owned();
        let ask = match kind {
            IqType::Get if is_ours => Ask::Fields,
            IqType::Set if is_ours => account(&query),
            _ => return None,
        };
        Some(Self { id, ask })
    }
}

/// As elements or as a form.
fn account(query: &Element) -> Ask {
    if query.child(ns::REGISTER, "remove").is_some() {
        // §3.2: there is no account yet that could go.
        return Ask::Faulty(StanzaCondition::UnexpectedRequest);
    }
    let (name, password) = match query.child(ns::DATA_FORMS, "x") {
        Some(form) => {
            let Some(form) = Submitted::read(form, ns::REGISTER) else {
                return Ask::Faulty(StanzaCondition::BadRequest);
            };
            let field = |var| form.value(var).map(str::to_owned);
            (field("username"), field("password"))
        }
        None => {
            let field = |name| query.child(ns::REGISTER, name).map(Element::text);
            (field("username"), field("password"))
        }
    };
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    match (filled(name), filled(password)) {
        (Some(name), Some(password)) => Ask::Account { name, password },
        // §3.1.1: some of what is required is missing.
        _ => Ask::Faulty(StanzaCondition::NotAcceptable),
    }
}

/// Appends the answer that says what must be filled in.
pub fn write_fields(out: &mut Vec<u8>, id: &str, domain: &str) {
    let mut form = Vec::with_capacity(512);
    let fields = [
        Field::new("username", "text-single", "Name").required(),
        Field::new("password", "text-private", "Password").required(),
    ];
    data_form::write(&mut form, "form", (TITLE, INSTRUCTIONS), ns::REGISTER, &fields, b"");
    let mut writer = Writer::new(out);
    writer.start("iq").attr("type", "result").attr("id", id).attr("from", domain).open();
    writer.start("query").attr("xmlns", ns::REGISTER).open();
    writer.start("instructions").open().text(INSTRUCTIONS).end("instructions");
    writer.start("username").close_empty();
    writer.start("password").close_empty();
    writer.raw(&form).end("query").end("iq");
}

/// Appends the answer to a request for an account.
pub fn write_answer(out: &mut Vec<u8>, id: &str, domain: &str, answer: Result<(), StanzaError>) {
    match answer {
        Ok(()) => {
            let mut writer = Writer::new(out);
            writer.start("iq").attr("type", "result").attr("id", id).attr("from", domain);
            writer.close_empty();
        }
        Err(error) => {
            write_error_reply(out, StanzaKind::Iq, Some(id), Some(domain), None, &error);
        }
    }
}
