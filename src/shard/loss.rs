//! A node is gone, and with it the sessions of the accounts that it owned: whoever saw their presence sees it end, and
//! asks their new owners where they are now (DESIGN §6: presence converges from the watcher's side).

use super::Shard;
use super::account::AccountId;
use super::effect::Effects;
use super::phase::Audience;
use super::presence;
use crate::cluster::placement::partition;
use crate::store::Subscription;
use crate::xmpp::stanza::PresenceType;

impl Shard {
    /// - takes: by partition, whether its owner was among those that are gone
    pub(super) fn contacts_lost(&mut self, lost: &[bool], fx: &mut Effects) {
        let accounts: Vec<AccountId> =
            self.core.accounts.iter().map(|(id, _)| AccountId(id)).collect();
        for account in accounts {
            if self.core.is_leaving(account) {
                continue;
            }
            let is_awakened = self.core.copies.is_awakened(account);
            let Some(slot) = self.core.accounts.get_mut(account.0) else { continue };
            if slot.data().is_none() {
                // Its sessions came, and its roster is not read yet. Of those that came from copies it is known whom they
                // lost.
                slot.is_unsure |= !slot.sessions.is_empty() && !is_awakened;
                continue;
            }
            // Those of other domains are on no node of ours.
            let is_lost =
                |hash64, is_remote: bool| !is_remote && lost[usize::from(partition(hash64))];
            self.lose_contacts(account, is_lost, fx);
        }
    }

    /// The roster is there: what sessions that came with the account saw of whom is asked anew.
    pub(super) fn see_contacts_anew(&mut self, account: AccountId, fx: &mut Effects) {
        let slot = self.core.accounts.get_mut(account.0);
        if slot.is_some_and(|slot| std::mem::take(&mut slot.is_unsure)) {
            self.lose_contacts(account, |_, _| true, fx);
        }
    }

    /// - takes: which of its contacts are gone, as far as is known, by their hash and by whether they are of another domain
    pub(super) fn lose_contacts(
        &mut self,
        account: AccountId,
        is_lost: impl Fn(u64, bool) -> bool,
        fx: &mut Effects,
    ) {
        let sessions = self.core.available_sessions(account);
        if sessions.is_empty() {
            return;
        }
        let Some(data) = self.core.accounts.get_mut(account.0).and_then(|slot| slot.data()) else {
            return;
        };
        let mut watched: Audience = data
            .roster
            .iter()
            .filter(|item| matches!(item.subscription, Subscription::To | Subscription::Both))
            .map(|item| (item.hash64, item.bare().into()))
            .collect();
        watched.retain(|(hash64, contact)| is_lost(*hash64, self.core.is_remote(contact)));
        if watched.is_empty() {
            return;
        }
        for session in &sessions {
            for (_, contact) in &watched {
                let (stanza, close) = presence::gone(contact);
                self.core.emit_to(*session, &stanza, close, fx);
            }
        }
        for session in sessions {
            let Some(slot) = self.core.sessions.get(session.0) else { continue };
            let from = slot.text.clone();
            let kind = PresenceType::Probe;
            let (stanza, close) = presence::unaddressed(&from, kind);
            self.fan_out(&from, kind, watched.clone(), &stanza, close, close, fx);
        }
    }
}
