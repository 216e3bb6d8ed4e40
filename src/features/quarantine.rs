//! Accounts that were made in-band write to few strangers until their quarantine is over (`shard::Quarantine`). Known is
//! who stands in the sender's own roster with a subscription in either direction, which the other side has agreed to.

use super::Settings;
use crate::shard::{
    AccountId, Feature, Leave, Manifest, Passage, Phase, Quarantine, Sent, Slot, Turn,
};
use crate::store::{Subscription, Write};
use crate::xmpp::stanza::StanzaKind;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};

pub(super) static MANIFEST: Manifest =
    Manifest { name: "quarantine", phases: &[Phase::Sent], ..Manifest::EMPTY };

/// One instance per shard.
pub(super) struct InQuarantine;

impl InQuarantine {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for InQuarantine {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_sent(&mut self, turn: &mut Turn<'_>, sent: &Sent<'_>) -> Passage {
        let Some(to) = sent.to.filter(|to| to.local().is_some()) else { return Passage::Pass };
        let per_hour = turn.limits().quarantine_strangers;
        let now = turn.now().wall;
        let Some(data) = turn.account(sent.account) else { return Passage::Pass };
        let Some(quarantine) = data.slot_in_use::<Quarantine>() else { return Passage::Pass };
        if quarantine.until().is_none() || !reaches_out(sent) {
            return Passage::Pass;
        }
        let kept = if quarantine.is_over(now) {
            *quarantine = Quarantine::default();
            None
        } else {
            let known = data.roster.find(to.bare().as_str());
            let is_known = known.is_some_and(|item| item.subscription != Subscription::None);
            // The account's own clients are no strangers.
            if is_known || turn.account_jid(sent.account) == Some(to.bare()) {
                return Passage::Pass;
            }
            let Some(data) = turn.account(sent.account) else { return Passage::Pass };
            match data.slot::<Quarantine>().write_to(to.bare().hash64(), per_hour, now) {
                Leave::Granted => return Passage::Pass,
                Leave::Counted(kept) => Some(kept),
                Leave::Refused => {
                    let error = StanzaError::new(StanzaCondition::PolicyViolation)
                        .with_text("a new account may write to few strangers in an hour");
                    return Passage::Refuse(error);
                }
            }
        };
        if let Some(owner) = turn.account_jid(sent.account).cloned() {
            let name = <Quarantine as Slot>::NAME.to_owned();
            turn.write_beside(sent.account, Write::PutSlot { owner, name, value: kept });
        }
        Passage::Pass
    }

    fn lets_messages_pass(&self, turn: &mut Turn<'_>, account: AccountId) -> bool {
        let data = turn.account(account);
        let quarantine = data.and_then(|data| data.slot_in_use::<Quarantine>());
        quarantine.is_none_or(|quarantine| quarantine.until().is_none())
    }
}

/// Messages and requests to see presence; not errors.
fn reaches_out(sent: &Sent<'_>) -> bool {
    let kind = sent.stanza.type_();
    match sent.kind {
        StanzaKind::Message => kind.as_deref() != Some("error"),
        StanzaKind::Presence => kind.as_deref() == Some("subscribe"),
        StanzaKind::Iq => false,
    }
}
