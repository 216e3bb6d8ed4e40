//! XEP-0313: Message Archive Management, with XEP-0059 (Result Set Management), XEP-0441 (the user's preferences) and what
//! XEP-0424 (Message Retraction) asks of an archive. What is archived, and when, is the shard's: `shard::archive`.
//!
//! - `query`: what a client asks for, read and checked
//! - `results`: what it gets
//! - `preferences`: what it wants to have archived

mod preferences;
mod query;
mod results;

use super::Settings;
use crate::shard::{
    AccountId, Answers, DiscoRequest, Discovery, Feature, Iq, Manifest, Method, Scope, Spec,
    StoreOutcome, Turn, Verdict,
};
use crate::store::{Answer, Query};
use crate::xmpp::ns;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use query::Request;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "archive",
    specs: &[
        Spec {
            name: "XEP-0313",
            version: "1.1.3",
            left_out: "messages of rooms; somebody else's archive gets service-unavailable, not forbidden, so that it \
                       does not tell who has an account; an id that was given once and whose message is gone still \
                       works as a position, and is no item-not-found",
        },
        Spec {
            name: "XEP-0059",
            version: "1.0",
            left_out: "pages by index; the count where it is large, but when it alone is asked for",
        },
        Spec { name: "XEP-0424", version: "0.4.2", left_out: "" },
        Spec { name: "XEP-0441", version: "0.2.0", left_out: "configuration by commands" },
    ],
    answers: &[
        answers(Method::Get, "query"),
        answers(Method::Set, "query"),
        answers(Method::Get, "metadata"),
        answers(Method::Get, "prefs"),
        answers(Method::Set, "prefs"),
    ],
    ..Manifest::EMPTY
};

const fn answers(method: Method, name: &'static str) -> Answers {
    Answers { method, namespace: ns::MAM, name, scopes: &[Scope::Own] }
}

/// One instance per shard.
pub(super) struct Archive;

impl Archive {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Archive {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    /// At each account, where there are archives.
    fn discover(
        &mut self,
        turn: &mut Turn<'_>,
        request: &DiscoRequest<'_>,
        found: &mut Discovery,
    ) {
        if turn.has_archives() && request.scope != Scope::Server && !request.is_items {
            found.features.extend([ns::MAM, ns::MAM_EXTENDED, ns::MAM_GROUPCHAT]);
            found.features.extend([ns::RETRACT, ns::RETRACT_TOMBSTONE]);
        }
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        let (Some(account), true) = (iq.account, turn.has_archives()) else {
            return Verdict::Error(StanzaCondition::ServiceUnavailable.into());
        };
        let pending = match (iq.method, iq.payload.name) {
            (Method::Get, "query") => return Verdict::Result(query::form()),
            (Method::Set, "query") => ask(turn, account, iq),
            (_, "metadata") => metadata(turn, account),
            (Method::Get, _) => return Verdict::Result(preferences::shown(turn, account)),
            (Method::Set, _) => preferences::change(turn, account, &iq.payload.to_element()),
        };
        match pending {
            Ok(()) => Verdict::Pending,
            Err(error) => Verdict::Error(error),
        }
    }

    fn on_stored(
        &mut self,
        turn: &mut Turn<'_>,
        account: AccountId,
        outcome: StoreOutcome,
    ) -> Result<Vec<u8>, StanzaError> {
        match outcome {
            StoreOutcome::Answer(Answer::Archive { entries, complete, count }) => {
                let request = turn.take_context::<Request>();
                let request = request.ok_or(StanzaCondition::InternalServerError)?;
                results::send(turn, account, *request, entries, complete, count)
            }
            StoreOutcome::Answer(Answer::ArchiveEnds(ends)) => {
                Ok(results::metadata(turn, account, ends))
            },
            StoreOutcome::Answer(_) => Err(StanzaCondition::InternalServerError.into()),
            StoreOutcome::Written(_) | StoreOutcome::Failed => {
                Ok(preferences::shown(turn, account))
            }
        }
    }
}

/// Has the store read a page.
fn ask(turn: &mut Turn<'_>, account: AccountId, iq: &Iq<'_>) -> Result<(), StanzaError> {
    let all = turn.archive_query(account).ok_or(StanzaCondition::InternalServerError)?;
    let (query, request) = query::read(turn, &iq.payload.to_element(), all)?;
    turn.query_with(account, Query::Archive(Box::new(query)), request);
    Ok(())
}

fn metadata(turn: &mut Turn<'_>, account: AccountId) -> Result<(), StanzaError> {
    let all = turn.archive_query(account).ok_or(StanzaCondition::InternalServerError)?;
    turn.query(account, Query::ArchiveEnds { owner: all.owner, up_to: all.up_to });
    Ok(())
}
