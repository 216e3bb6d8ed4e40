//! XEP-0054: vcard-temp. A user's own card, written by the user and read by anybody who knows the address.
//!
//! The card of somebody else that is not there gets the answer of an account that is not there: strangers cannot find
//! out who has an account.

use super::Settings;
use crate::shard::{
    AccountId, Answers, Feature, Iq, Manifest, Method, Scope, Spec, StoreOutcome, Turn, Verdict,
};
use crate::store::{Answer, Query, Write};
use crate::xmpp::ns;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};

pub(super) static MANIFEST: Manifest = Manifest {
    name: "vcard",
    specs: &[Spec {
        name: "XEP-0054",
        version: "1.3.0",
        left_out: "a card of the server itself; a set for somebody else gets service-unavailable, \
                   not forbidden, so that it does not tell who has an account",
    }],
    server_disco: &[ns::VCARD],
    account_disco: &[ns::VCARD],
    answers: &[
        Answers {
            method: Method::Get,
            namespace: ns::VCARD,
            name: "vCard",
            scopes: &[Scope::Own, Scope::Other],
        },
        Answers {
            method: Method::Set,
            namespace: ns::VCARD,
            name: "vCard",
            scopes: &[Scope::Own],
        },
    ],
    ..Manifest::EMPTY
};

/// Read only when it is asked for: cards have pictures in them.
pub const SLOT: &str = "~vcard";

/// One instance per shard.
pub(super) struct Vcard;

impl Vcard {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Vcard {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        let own = iq.account.and_then(|account| Some((account, turn.account_jid(account)?.clone())));
        let Some((account, owner)) = own else {
            return Verdict::Error(StanzaCondition::ServiceUnavailable.into());
        };
        if iq.method == Method::Get {
            turn.query(account, Query::Slot { owner, name: SLOT.to_owned() });
            return Verdict::Pending;
        }
        let card = iq.payload.to_element();
        let mut value = Vec::with_capacity(iq.payload.bytes.len() + 32);
        card.write(&mut value, ns::CLIENT);
        let limit = turn.limits().vcard_bytes;
        if value.len() > limit {
            let text = format!("a card may have {limit} bytes");
            return Verdict::Error(StanzaError::from(StanzaCondition::PolicyViolation).with_text(text));
        }
        let value = (!card.children.is_empty()).then_some(value);
        turn.write(account, Write::PutSlot { owner, name: SLOT.to_owned(), value });
        Verdict::Pending
    }

    fn on_stored(
        &mut self,
        turn: &mut Turn<'_>,
        _account: AccountId,
        outcome: StoreOutcome,
    ) -> Result<Vec<u8>, StanzaError> {
        match outcome {
            StoreOutcome::Answer(Answer::Slot(Some(card))) => Ok(card),
            StoreOutcome::Answer(_) if turn.is_own() => Ok(b"<vCard xmlns='vcard-temp'/>".to_vec()),
            StoreOutcome::Answer(_) => Err(StanzaCondition::ServiceUnavailable.into()),
            StoreOutcome::Written(_) | StoreOutcome::Failed => Ok(Vec::new()),
        }
    }
}
