//! The log of an account: what comes in is appended before it is acknowledged, for its archive, until a client has
//! confirmed it, or for both.

use super::account::{AccountId, Busy, Data};
use super::bounce::Bounce;
use super::copy;
use super::deliver::{Line, resource_constraint, service_unavailable, split};
use super::effect::Effects;
use super::heard::{Heard, is_logged};
use super::peers::Peer;
use super::ring::FrameRef;
use super::session::SessionId;
use super::stamp::ends_with_id;
use super::{Core, Post, Waiting, config};
use crate::base::instant::Wall;
use crate::frame::{Envelope, Flags, Kind, message_flags};
use crate::store::{Keep, LogEntry, Origin, Write};
use crate::stream::resume::Unacknowledged;
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::stanza::{MessageType, StanzaKind};
use crate::xmpp::xml::reader::Index;

/// What became of a message that may have to be kept.
pub(super) enum Kept {
    /// It goes on, with its row if it has one.
    Row(Option<u64>),
    /// It went back, or waits for an id.
    No,
}

/// A message that a session leaves behind.
#[derive(Debug)]
pub(super) struct Left {
    /// When its row in a log is from.
    pub ingress: Wall,
    /// By what it may come again, and is looked for in the log.
    pub origin: Option<Origin>,
    pub post: Post,
}

impl Core {
    /// Appends a message to the log of its recipient, as far as that is wanted.
    ///
    /// - takes: `keep`, what for; `unheard`: no session gets it now
    #[expect(clippy::too_many_arguments, reason = "the row and where it comes from")]
    pub(super) fn keep_received(
        &mut self,
        account: AccountId,
        keep: Option<Keep>,
        unheard: bool,
        envelope: &Envelope<'_>,
        to: &str,
        at: FrameRef,
        fx: &mut Effects,
    ) -> Kept {
        if unheard {
            let limit = self.config.limits.offline_messages;
            let slot = self.accounts.get_mut(account.0);
            let rows = slot.and_then(|slot| slot.data()).map_or(0, |data| data.log_rows);
            if rows >= limit {
                self.bounce(envelope, to, &service_unavailable());
                return Kept::No;
            }
        }
        let Some(keep) = keep else { return Kept::Row(None) };
        if self.tickets.len() > config::WRITES_HARD {
            self.bounce(envelope, to, &resource_constraint());
            return Kept::No;
        }
        let Some(id) = self.next_log_id(account, fx) else {
            if let Some(slot) = self.accounts.get_mut(account.0) {
                slot.busy = Busy::Ids;
            }
            // What waits already came later.
            self.wait_for_account(account, envelope, to, at, Line::Front);
            return Kept::No;
        };
        self.append(account, id, keep, envelope, to, at, fx);
        Kept::Row(Some(id))
    }

    /// Where what came in this frame is from: who sent it first, over which ring, with which number.
    pub(super) fn origin(&self, at: FrameRef) -> Origin {
        self.retry_origin.unwrap_or_else(|| {
            let from = self.peers.place(Peer(at.ring));
            Origin {
                incarnation: from.run.incarnation,
                link: (u32::from(from.shard.0) << 16) | u32::from(self.id.0),
                number: at.number,
            }
        })
    }

    /// What is delivered now, if it came with an origin by which it may come again.
    fn heard_of(&self, account: AccountId) -> Option<Heard> {
        let slot = self.accounts.get(account.0)?;
        Some(Heard::new(self.retry_origin?, &slot.jid))
    }

    /// The account's data, if `id` still is the account it was.
    pub(super) fn owned_data(&mut self, id: AccountId, owner: &BareJid) -> Option<&mut Data> {
        let slot = self.accounts.get_mut(id.0)?;
        if slot.jid == *owner { slot.data() } else { None }
    }

    /// Appends a message to the log of its recipient. Where it is pending, the frame it came in is handled when it is
    /// durable.
    #[expect(clippy::too_many_arguments, reason = "the row and where it comes from")]
    fn append(
        &mut self,
        id: AccountId,
        row: u64,
        keep: Keep,
        envelope: &Envelope<'_>,
        to: &str,
        at: FrameRef,
        fx: &mut Effects,
    ) {
        let Some(slot) = self.accounts.get_mut(id.0) else { return };
        let owner = slot.jid.clone();
        let with = self.jids.parse(envelope.from);
        let with = with.unwrap_or_else(|_| Jid::from_bare(owner.clone()));
        if keep.is_archived() && envelope.flags.contains(Flags::RETRACTS) {
            self.retract(id, with.bare().clone(), envelope, fx);
        }
        let entry = LogEntry {
            id: row,
            at: self.time_of_row(id, keep, envelope.ingress, fx),
            with,
            keep,
            origin: self.origin(at),
            stanza: envelope.stanza.to_vec(),
            open_end: envelope.open_end,
            close_start: envelope.close_start,
        };
        let waiting = match keep.is_pending() {
            true => {
                let heard = self.heard_of(id).map(|heard| Box::new((heard, !keep.is_archived())));
                self.append_pending(id, &owner, heard, envelope, to, at)
            }
            false => match self.heard_of(id) {
                // It may come again, and is looked for in the log when this is there.
                Some(heard) => {
                    self.wrote(id);
                    Waiting::Archived(id, heard)
                }
                None => Waiting::Nobody,
            },
        };
        let ticket = self.ticket(waiting);
        fx.writes.push((ticket, Write::AppendLog { owner, entry }));
    }

    /// What waits for a row that the recipient is to confirm.
    fn append_pending(
        &mut self,
        id: AccountId,
        owner: &BareJid,
        heard: Option<Box<(Heard, bool)>>,
        envelope: &Envelope<'_>,
        to: &str,
        at: FrameRef,
    ) -> Waiting {
        if let Some(data) = self.accounts.get_mut(id.0).and_then(|slot| slot.data()) {
            data.log_rows = data.log_rows.saturating_add(1);
        }
        let awaited = at.awaited(envelope.flags);
        self.hold_frame(awaited);
        let open = &envelope.stanza[..envelope.open_end as usize];
        let bounce = Bounce::new(envelope.kind, envelope.subtype, envelope.from, to, open);
        self.wrote(id);
        Waiting::Append {
            account: id,
            owner: owner.clone(),
            since: self.now.mono,
            path: self.path(at),
            at: awaited,
            bounce: Box::new(bounce),
            heard,
            traced: self.trace_keep(envelope, to),
        }
    }

    /// What comes for a session that sleeps is logged; so what it holds already is logged first, or it would come behind
    /// that when the session ends.
    pub(super) fn log_unacknowledged(&mut self, session: SessionId, fx: &mut Effects) {
        let Some(slot) = self.sessions.get_mut(session.0) else { return };
        let account = slot.account;
        let Some(mut counters) = slot.counters.take() else { return };
        let owner = self.accounts.get(account.0).map(|slot| slot.jid.clone());
        let mut is_changed = false;
        let unlogged = |sent: &&mut Unacknowledged| {
            sent.log_id.is_none() && sent.bytes.starts_with(b"<message")
        };
        for sent in counters.unacknowledged_mut().filter(unlogged) {
            let Some(owner) = owner.clone() else { break };
            let Some(mut entry) = self.entry_again(sent) else { continue };
            let Some(id) = self.next_log_id(account, fx) else { break };
            entry.id = id;
            sent.log_id = Some(id);
            is_changed = true;
            if let Some(slot) = self.accounts.get_mut(account.0) {
                slot.changing += 1;
                if let Some(data) = slot.data() {
                    data.log_rows = data.log_rows.saturating_add(1);
                }
            }
            let ticket = self.ticket(Waiting::Log(account));
            fx.writes.push((ticket, Write::AppendLog { owner, entry }));
        }
        if let Some(slot) = self.sessions.get_mut(session.0) {
            slot.counters = Some(counters);
        }
        if is_changed {
            self.changed(session, copy::ROWS);
        }
    }

    pub(super) fn log_sleepers(&mut self, id: AccountId, fx: &mut Effects) {
        let sessions = self.accounts.get(id.0).map(|slot| slot.sessions.clone());
        for session in sessions.unwrap_or_default() {
            if self.sessions.get(session.0).is_some_and(|session| session.conn.is_none()) {
                self.log_unacknowledged(session, fx);
            }
        }
    }

    /// The row of a message that went out without one; `None` for what belongs in no log.
    fn entry_again(&mut self, sent: &Unacknowledged) -> Option<LogEntry> {
        let post = self.message_again(&sent.bytes)?;
        if !post.flags.contains(Flags::STORABLE) {
            return None;
        }
        let with = self.jids.parse(&post.from).ok()?;
        // One of those that wait may be this one.
        self.found.clear();
        let none = Origin { incarnation: self.config.incarnation, ..Origin::default() };
        Some(LogEntry {
            id: 0,
            at: sent.at,
            with,
            keep: Keep::Pending,
            // Its first sender may have to send it again.
            origin: sent.origin.unwrap_or(none),
            stanza: post.stanza,
            open_end: post.open_end,
            close_start: post.close_start,
        })
    }

    /// Rows that clients confirmed go from the log, one write per account and turn. Those that a session from a copy knew of
    /// wait until owners have settled: a node that leaves may still write for the account.
    pub(super) fn write_confirmed(&mut self, fx: &mut Effects) {
        if self.confirmed.is_empty() {
            return;
        }
        let mut confirmed = std::mem::take(&mut self.confirmed);
        confirmed.sort_by_key(|(account, row)| (account.0.to_u64(), *row));
        confirmed.dedup();
        let mut later = Vec::new();
        for rows in confirmed.chunk_by(|one, other| one.0 == other.0) {
            let Some(slot) = self.accounts.get_mut(rows[0].0.0) else { continue };
            if self.handover.holds(slot.jid.hash64()) {
                later.extend_from_slice(rows);
                continue;
            }
            let (account, owner) = (rows[0].0, slot.jid.clone());
            if let Some(data) = slot.data() {
                let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
                data.log_rows = data.log_rows.saturating_sub(count);
            }
            let ids: Vec<u64> = rows.iter().map(|(_, row)| *row).collect();
            if let Some(replay) = slot.replay.as_mut() {
                replay.confirmed.extend(ids.iter().filter(|id| **id > replay.after));
            }
            let ticket = self.ticket(Waiting::Log(account));
            fx.writes.push((ticket, Write::ConfirmLog { owner, ids }));
            self.wrote(account);
        }
        confirmed.clear();
        confirmed.append(&mut later);
        self.confirmed = confirmed;
    }

    /// Whether it is a message that went back to its sender.
    pub(super) fn is_refusal(&self, bytes: &[u8]) -> bool {
        let mut index = Index::default();
        bytes.starts_with(b"<message")
            && self.view(bytes, &mut index).is_none_or(|it| it.type_().as_deref() == Some("error"))
    }

    /// A message that a session leaves behind, with the time when it went there (XEP-0198 §4, XEP-0203), which it is
    /// stamped with.
    pub(super) fn message_late(&mut self, sent: &Unacknowledged) -> Option<Left> {
        let mut post = self.message_again(&sent.bytes)?;
        let own = self.jids.parse(&post.to).ok()?;
        let (open, rest) = post.stanza.split_at_checked(post.open_end as usize)?;
        let mut stanza = Vec::with_capacity(sent.bytes.len() + 96);
        stanza.extend_from_slice(open);
        super::outbound::write_delay(&mut stanza, own.domain(), sent.at);
        let added = stanza.len() - open.len();
        stanza.extend_from_slice(rest);
        post.close_start += u32::try_from(added).ok()?;
        post.stanza = stanza;
        // Only what has an id is no news to those who measure how long stanzas take.
        let is_known = post.flags.contains(Flags::STAMPED);
        post.flags = post.flags.with(Flags::LEFT);
        Some(Left {
            ingress: if is_known { sent.at } else { self.now.wall },
            origin: sent.origin.filter(|_| is_logged(post.kind, post.flags)),
            post,
        })
    }

    /// A message that went to a client and was not acknowledged, as if it came now. A carbon is only a copy, and so is what
    /// was read from the archive: what it is a copy of has its own way.
    fn message_again(&mut self, bytes: &[u8]) -> Option<Post> {
        let mut index = Index::default();
        let stanza = self.view(bytes, &mut index)?;
        let (from, to) = (stanza.from()?, stanza.to()?);
        let (own, _) = split(&to);
        let is_copy = stanza.children().any(|child| match child.namespace {
            ns::CARBONS => true,
            ns::MAM => *from == *own,
            _ => false,
        });
        if stanza.kind() != Some(StanzaKind::Message) || is_copy {
            return None;
        }
        let kind = MessageType::parse(stanza.type_().as_deref());
        let flags = message_flags(kind, &stanza);
        // What was for the account must not go to the session that now has the name of the old one, past the log.
        let mut post = Post::whole(&from, &to, Kind::Message, kind.code(), bytes.to_vec());
        let own = self.jids.parse(&to).ok()?.into_bare();
        let content = bytes.get(..post.close_start as usize)?;
        post.flags = if ends_with_id(content, &own) { flags.with(Flags::STAMPED) } else { flags };
        Some(post)
    }
}
