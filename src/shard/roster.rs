//! Rosters (RFC 6121 §2): the one place where they change. Each change is applied, pushed to the account's interested
//! sessions and written in one go.

use super::account::{AccountId, Data};
use super::effect::{Effects, Ticket};
use super::outbound::Mark;
use super::{Core, Waiting};
use crate::base::instant::Wall;
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
    /// The entry of `jid`, or the one that is there for all who have none.
    pub(super) fn of(data: &Data, jid: &Jid) -> Self {
        let known = data.roster.item(jid);
        known.unwrap_or_else(|| RosterItem { listed: false, ..RosterItem::new(jid.clone()) })
    }

    /// Whether this is `old` with another request that waits, of which clients see nothing.
    fn waits_as(&self, old: &Contact) -> bool {
        self.pending_in != old.pending_in
            && *self == Contact { pending_in: self.pending_in.clone(), ..old.clone() }
    }

    /// How the roster comes to hold this. An entry that was there for a request alone goes with it.
    pub(super) fn change(self) -> RosterChange {
        if self.listed || self.pending_in.is_some() {
            RosterChange::Set(self)
        } else {
            RosterChange::Remove(self.jid)
        }
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

impl Data {
    /// Contacts that the user has in the roster.
    pub fn listed(&self) -> usize {
        self.roster.iter().filter(|item| item.listed).count()
    }

    /// Requests of others that wait for an answer.
    pub(super) fn requests(&self) -> usize {
        self.roster.iter().filter(|item| !item.listed).count()
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
        let now = self.now.wall;
        let Some(slot) = self.accounts.get_mut(account.0) else { return ticket };
        let owner = slot.jid.clone();
        let Some(data) = slot.data() else { return ticket };
        // What clients do not see is no news to them, and leaves what they hold current.
        let shown = match &change {
            RosterChange::Set(contact) => {
                contact.listed
                    && !data.roster.item(&contact.jid).is_some_and(|old| contact.waits_as(&old))
            }
            RosterChange::Remove(jid) => data.roster.item(jid).is_some_and(|item| item.listed),
        };
        if shown {
            data.roster_version = next_version(data.roster_version, now);
        }
        let version = data.roster_version;
        let mut item = Vec::with_capacity(192);
        let (set, remove) = match change {
            RosterChange::Set(contact) => {
                contact.write(&mut item);
                data.roster.set(&contact);
                (vec![contact], Vec::new())
            }
            RosterChange::Remove(jid) => {
                data.roster.remove(&jid);
                write_removed(&mut item, &jid);
                (Vec::new(), vec![jid])
            }
        };
        if shown {
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
            self.emit(session, &[&out], Mark::NONE, fx);
        }
    }
}

/// The first version of a roster is the time in seconds, the others count on from there: an account that is deleted and
/// made anew never shows a version again that a client may have kept.
fn next_version(version: u64, now: Wall) -> u64 {
    match version {
        0 => (now.0 / 1_000_000).max(1),
        version => version + 1,
    }
}

/// `<item/>` of a contact that is no longer there (RFC 6121 §2.5.2).
fn write_removed(out: &mut Vec<u8>, jid: &Jid) {
    Writer::new(out)
        .start("item")
        .attr("jid", &jid.to_string())
        .attr("subscription", "remove")
        .close_empty();
}
