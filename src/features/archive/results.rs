//! Answers from an archive: a message for each row, then what the page was.

use super::query::Request;
use crate::shard::{AccountId, Turn};
use crate::store::{ArchiveEnds, ArchiveQuery, LogEntry, Page};
use crate::xmpp::jid::BareJid;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::xml::writer::Writer;
use crate::xmpp::{datetime, ns};

/// Bytes around a row, as far as a page is measured: its addresses, ids and wrappers.
const WRAPPING: usize = 640;

/// Sends a page, and gives `<fin/>`.
///
/// A page ends early where the session has no room for more: the client asks for the rest as for any next page.
/// - errors: `item-not-found` where an id that was named is not there
pub(super) fn send(
    turn: &mut Turn<'_>,
    account: AccountId,
    request: Request,
    mut entries: Vec<LogEntry>,
    mut complete: bool,
    mut count: Option<u64>,
) -> Result<Vec<u8>, StanzaError> {
    let mut page = Page::After(0);
    if let Some((named, query)) = &request.named {
        if entries.len() < *named {
            return Err(StanzaCondition::ItemNotFound.into());
        }
        (complete, count) = narrow(&mut entries, query);
        page = query.page;
    } else if let Some(asked) = request.page {
        page = asked;
    }
    let session = turn.asking_session().ok_or(StanzaCondition::InternalServerError)?;
    let own = turn.account_jid(account).cloned();
    let to = turn.session_jid(session).map(ToString::to_string);
    let (Some(own), Some(to)) = (own, to) else {
        return Err(StanzaCondition::InternalServerError.into());
    };
    let fit = fitting(turn.room_for(session), &entries, page);
    if fit < entries.len() {
        complete = false;
        match page {
            Page::After(_) => entries.truncate(fit),
            Page::Before(_) => drop(entries.drain(..entries.len() - fit)),
        }
    }
    let fin = fin(turn, &own, &request, &entries, complete, count);
    if request.flip {
        entries.reverse();
    }
    let mut head = Vec::with_capacity(WRAPPING);
    for entry in &entries {
        // The content namespace is not named in what is kept, as it is the default there.
        let Some(rest) = entry.stanza.strip_prefix(b"<message") else { continue };
        head.clear();
        let mut writer = Writer::new(&mut head);
        writer.start("message").attr("from", own.as_str()).attr("to", &to);
        writer.start("result").attr("xmlns", ns::MAM);
        writer.attr_opt("queryid", request.query_id.as_deref());
        writer.attr("id", &turn.archive_id(&own, entry.id));
        writer.start("forwarded").attr("xmlns", ns::FORWARD);
        writer.start("delay").attr("xmlns", ns::DELAY);
        writer.attr("stamp", &datetime::format(entry.at)).close_empty();
        head.extend_from_slice(b"<message xmlns='jabber:client'");
        turn.send(session, &[&head, rest, b"</forwarded></result></message>"]);
    }
    Ok(fin)
}

/// Picks the page out of rows that were read by their ids. Gives whether that is all, and how many match.
fn narrow(entries: &mut Vec<LogEntry>, query: &ArchiveQuery) -> (bool, Option<u64>) {
    entries.retain(|entry| query.passes(entry));
    let count = entries.len() as u64;
    let (above, below) = query.page_bounds();
    entries.retain(|entry| entry.id > above && entry.id < below);
    let max = usize::try_from(query.max).unwrap_or(usize::MAX);
    let complete = entries.len() <= max;
    match query.page {
        Page::After(_) => entries.truncate(max),
        Page::Before(_) => drop(entries.drain(..entries.len().saturating_sub(max))),
    }
    (complete, Some(count))
}

/// How many of the rows, from where the paging begins, have room; one always has.
fn fitting((rows, bytes): (usize, usize), entries: &[LogEntry], page: Page) -> usize {
    let mut left = bytes;
    let mut fits = |entry: &&LogEntry| {
        let size = entry.stanza.len() + WRAPPING;
        let fits = size <= left;
        left = left.saturating_sub(size);
        fits
    };
    let count = match page {
        Page::After(_) => entries.iter().take(rows).take_while(&mut fits).count(),
        Page::Before(_) => entries.iter().rev().take(rows).take_while(&mut fits).count(),
    };
    count.max(1).min(entries.len())
}

fn fin(
    turn: &Turn<'_>,
    own: &BareJid,
    request: &Request,
    entries: &[LogEntry],
    complete: bool,
    count: Option<u64>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    let mut writer = Writer::new(&mut out);
    writer.start("fin").attr("xmlns", ns::MAM);
    if complete {
        writer.attr("complete", "true");
    }
    writer.start("set").attr("xmlns", ns::RSM).open();
    if let (Some(first), Some(last)) = (entries.first(), entries.last()) {
        writer.start("first");
        if request.page == Some(Page::After(0)) {
            writer.attr("index", "0");
        }
        writer.open().text(&turn.archive_id(own, first.id)).end("first");
        writer.start("last").open().text(&turn.archive_id(own, last.id)).end("last");
    }
    if let Some(count) = count {
        writer.start("count").open().text(&count.to_string()).end("count");
    }
    writer.end("set").end("fin");
    out
}

pub(super) fn metadata(
    turn: &Turn<'_>,
    account: AccountId,
    ends: Option<ArchiveEnds>,
) -> Vec<u8> {
    let own = turn.account_jid(account);
    let ends = ends.zip(own).map(|(ends, own)| [("start", own, ends.first), ("end", own, ends.last)]);
    let mut out = Vec::with_capacity(256);
    let mut writer = Writer::new(&mut out);
    writer.start("metadata").attr("xmlns", ns::MAM).open();
    for (name, own, (id, at)) in ends.into_iter().flatten() {
        let (id, at) = (turn.archive_id(own, id), datetime::format(at));
        writer.start(name).attr("id", &id).attr("timestamp", &at).close_empty();
    }
    writer.end("metadata");
    out
}
