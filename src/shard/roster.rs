//! Rosters (RFC 6121 §2): the one place where they change. Each change is applied, pushed to the account's interested
//! sessions and written in one go.

use super::account::{AccountId, Data};
use super::effect::{Effects, Ticket};
use super::{Core, Waiting};
use crate::store::{RosterItem, Subscription, Write};
use crate::xmpp::jid::Jid;
use crate::xmpp::ns;
use crate::xmpp::xml::writer::Writer;

/// A roster item, as it is or as it would begin.
pub(super) type Contact = RosterItem;

/// One change of a roster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RosterChange {
    Set(RosterItem),
    Remove(Jid),
}

impl Contact {
    /// The entry of `jid`, or an empty one.
    pub(super) fn of(data: &Data, jid: &Jid) -> Self {
        data.contact(jid).cloned().unwrap_or_else(|| RosterItem {
            jid: jid.clone(),
            name: String::new(),
            groups: Vec::new(),
            subscription: Subscription::None,
            ask: false,
            pending_in: None,
            approved: false,
        })
    }

    /// An entry that exists only for a request which is settled goes again.
    pub(super) fn is_worth_keeping(&self) -> bool {
        self.subscription != Subscription::None
            || self.ask
            || self.pending_in.is_some()
            || self.approved
            || !self.name.is_empty()
            || !self.groups.is_empty()
    }

    /// How the roster gets from `before` to this. An entry that was only there for a request goes with it; one that the
    /// user sees stays until the user removes it.
    pub(super) fn change_from(self, before: &Contact, known: bool) -> RosterChange {
        if self.is_worth_keeping() || (known && before.is_shown()) {
            RosterChange::Set(self)
        } else {
            RosterChange::Remove(self.jid)
        }
    }

    /// A contact that only asked and was not answered is not shown (RFC 6121 §2.1.2.5, "None + Pending In").
    pub fn is_shown(&self) -> bool {
        self.subscription != Subscription::None
            || self.ask
            || self.approved
            || !self.name.is_empty()
            || !self.groups.is_empty()
            || self.pending_in.is_none()
    }

    /// `<item/>` as clients see it.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.start("item").attr("jid", &self.jid.to_string());
        if !self.name.is_empty() {
            writer.attr("name", &self.name);
        }
        if self.approved {
            writer.attr("approved", "true");
        }
        writer.attr(
            "subscription",
            match self.subscription {
                Subscription::None => "none",
                Subscription::To => "to",
                Subscription::From => "from",
                Subscription::Both => "both",
            },
        );
        if self.ask {
            writer.attr("ask", "subscribe");
        }
        for group in &self.groups {
            writer.start("group").text(group).end("group");
        }
        writer.end("item");
    }
}

impl Core {
    /// Applies a change, pushes it, and has it written. The ticket of the write is the caller's to wait for.
    pub(super) fn change_roster(
        &mut self,
        account: AccountId,
        change: RosterChange,
        fx: &mut Effects,
    ) -> Ticket {
        let ticket = self.ticket(Waiting::Nobody);
        let Some(slot) = self.accounts.get_mut(account.0) else { return ticket };
        let owner = slot.jid.clone();
        let Some(data) = slot.data() else { return ticket };
        data.roster_version += 1;
        let version = data.roster_version;
        let mut item = Vec::with_capacity(192);
        let (set, remove) = match change {
            RosterChange::Set(contact) => {
                if contact.is_shown() {
                    contact.write(&mut item);
                }
                match data.roster.iter_mut().find(|old| old.jid == contact.jid) {
                    Some(old) => old.clone_from(&contact),
                    None => data.roster.push(contact.clone()),
                }
                (vec![contact], Vec::new())
            }
            RosterChange::Remove(jid) => {
                let shown = data.contact(&jid).is_some_and(Contact::is_shown);
                data.roster.retain(|old| old.jid != jid);
                if shown {
                    Writer::new(&mut item)
                        .start("item")
                        .attr("jid", &jid.to_string())
                        .attr("subscription", "remove")
                        .close_empty();
                }
                (Vec::new(), vec![jid])
            }
        };
        if !item.is_empty() {
            self.push(account, version, &item, fx);
        }
        fx.writes.push((ticket, Write::PutRoster { owner, set, remove, version }));
        self.wrote(account);
        ticket
    }

    /// RFC 6121 §2.1.6: tells the sessions that asked for the roster.
    fn push(&mut self, account: AccountId, version: u64, item: &[u8], fx: &mut Effects) {
        let Some(slot) = self.accounts.get(account.0) else { return };
        for session in slot.sessions.clone() {
            let Some(slot) = self.sessions.get(session.0).filter(|slot| slot.interested) else {
                continue;
            };
            let mut out = Vec::with_capacity(item.len() + 192);
            Writer::new(&mut out)
                .start("iq")
                .attr("type", "set")
                .attr("id", &format!("push-{version}"))
                .attr("to", &slot.text)
                .open()
                .start("query")
                .attr("xmlns", ns::ROSTER)
                .attr("ver", &version.to_string())
                .open()
                .raw(item)
                .end("query")
                .end("iq");
            self.emit(session, &[&out], None, fx);
        }
    }
}
