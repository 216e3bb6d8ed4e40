//! XEP-0077: In-Band Registration, for those who are logged in: what is on file, a new password, the end of the account.
//! Strangers, who are not, are the shard's (`shard::registration`).

use super::Settings;
use crate::shard::errand::{Errand, Outcome, Secret};
use crate::shard::{
    Answers, Feature, Iq, Manifest, Method, Scope, Spec, Turn, Verdict,
};
use crate::xmpp::data_form::Submitted;
use crate::xmpp::jid::BareJid;
use crate::xmpp::ns;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::writer::Writer;
use std::any::Any;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "register",
    specs: &[Spec {
        name: "XEP-0077",
        version: "2.4",
        left_out: "fields other than name and password, redirection to a web page",
    }],
    server_disco: &[ns::REGISTER],
    answers: &[
        Answers {
            method: Method::Get,
            namespace: ns::REGISTER,
            name: "query",
            scopes: &[Scope::Server, Scope::Own],
        },
        Answers {
            method: Method::Set,
            namespace: ns::REGISTER,
            name: "query",
            scopes: &[Scope::Server, Scope::Own],
        },
    ],
    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Register;

impl Register {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Register {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        let bare = iq.from.split_once('/').map_or(iq.from, |(bare, _)| bare);
        let Ok(own) = BareJid::parse(bare) else {
            return Verdict::Error(StanzaCondition::InternalServerError.into());
        };
        // A request for another domain of ours is not one of its account.
        if iq.scope == Scope::Server && iq.subject != own.domain() {
            return Verdict::Error(StanzaCondition::RegistrationRequired.into());
        }
        if iq.method == Method::Get {
            return Verdict::Result(registered(&own));
        }
        let query = iq.payload.to_element();
        if query.child(ns::REGISTER, "remove").is_some() {
            return cancel(turn, &query, own);
        }
        match new_password(&query, &own) {
            // §3.3: not where others can read it.
            Ok(_) if !iq.session.is_some_and(|session| turn.may_send_password(session)) => {
                Verdict::Error(StanzaCondition::NotAuthorized.into())
            }
            Ok(password) => {
                turn.errand(Errand::ChangePassword { jid: own, password }, ());
                Verdict::Pending
            }
            Err(condition) => Verdict::Error(condition.into()),
        }
    }

    fn on_errand(
        &mut self,
        _turn: &mut Turn<'_>,
        _from: &str,
        _context: Box<dyn Any>,
        outcome: Outcome,
    ) -> Result<Vec<u8>, StanzaError> {
        match outcome {
            Outcome::Done => Ok(Vec::new()),
            Outcome::Refused(why) => {
                Err(StanzaError::new(StanzaCondition::NotAcceptable).with_text(why))
            }
            // Deleted meanwhile.
            Outcome::Unknown(_) => Err(StanzaCondition::RegistrationRequired.into()),
            Outcome::Busy => Err(StanzaCondition::ResourceConstraint.into()),
            _ => Err(StanzaCondition::InternalServerError.into()),
        }
    }
}

/// §3.1: the account is registered, under this name.
fn registered(own: &BareJid) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    let mut writer = Writer::new(&mut out);
    writer.start("query").attr("xmlns", ns::REGISTER).open();
    writer.start("registered").close_empty();
    writer.start("username").open().text(own.local().unwrap_or_default()).end("username");
    writer.start("password").close_empty().end("query");
    out
}

/// §3.2: the account goes with all that belongs to it. Its user is told, then all its sessions end.
fn cancel(turn: &mut Turn<'_>, query: &Element, own: BareJid) -> Verdict {
    if query.children().count() != 1 {
        return Verdict::Error(StanzaCondition::BadRequest.into());
    }
    // Where the operator makes the accounts, they are his to remove.
    if !turn.is_registration_open() {
        return Verdict::Error(StanzaCondition::NotAllowed.into());
    }
    turn.errand(Errand::Unregister { jid: own }, ());
    Verdict::Pending
}

/// §3.3: name and password, as elements or as a form.
fn new_password(query: &Element, own: &BareJid) -> Result<Secret, StanzaCondition> {
    let (name, password) = match query.child(ns::DATA_FORMS, "x") {
        Some(form) => {
            let form = Submitted::read(form, ns::REGISTER).ok_or(StanzaCondition::BadRequest)?;
            let field = |var| form.value(var).map(str::to_owned);
            (field("username"), field("password"))
        }
        None => {
            let field = |name| query.child(ns::REGISTER, name).map(Element::text);
            (field("username"), field("password"))
        }
    };
    let name = name.ok_or(StanzaCondition::BadRequest)?;
    let password = password.filter(|password| !password.is_empty());
    let password = password.ok_or(StanzaCondition::BadRequest)?;
    match BareJid::from_parts(Some(&name), own.domain()) {
        Ok(named) if named == *own => Ok(Secret(password)),
        _ => Err(StanzaCondition::Forbidden),
    }
}
