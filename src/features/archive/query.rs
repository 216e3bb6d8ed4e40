//! Questions to an archive: the form with its filters, the page, and how the client wants it.

use crate::base::instant::Wall;
use crate::shard::Turn;
use crate::store::{ArchiveQuery, Page};
use crate::xmpp::data_form::{self, Field, Submitted};
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::writer::Writer;
use crate::xmpp::{datetime, ns};

/// How far the messages that match are counted beside a page. Where the count alone is asked for, the shard's limit holds.
const COUNTED_WITH_PAGE: u32 = 1_000;

/// What must be known of a question once the store has answered it.
#[derive(Debug)]
pub(super) struct Request {
    /// In the client's words, given back with each result.
    pub query_id: Option<String>,
    /// Newest first.
    pub flip: bool,
    /// `None` for ids that were named.
    pub page: Option<Page>,
    /// Ids that were named: each must be there, and what they name is filtered here, not by the store.
    pub named: Option<(usize, Box<ArchiveQuery>)>,
}

/// The form that a client may fill in (XEP-0313, Retrieving form fields).
pub(super) fn form() -> Vec<u8> {
    let fields = [
        Field::new("with", "jid-single", ""),
        Field::new("start", "text-single", ""),
        Field::new("end", "text-single", ""),
        Field::new("before-id", "text-single", ""),
        Field::new("after-id", "text-single", ""),
        Field::new("include-groupchat", "boolean", ""),
    ];
    let mut ids = Vec::with_capacity(192);
    Writer::new(&mut ids)
        .start("field")
        .attr("type", "list-multi")
        .attr("var", "ids")
        .start("validate")
        .attr("xmlns", "http://jabber.org/protocol/xdata-validate")
        .attr("datatype", "xs:string")
        .start("open")
        .close_empty()
        .end("validate")
        .end("field");
    let mut out = Vec::with_capacity(768);
    Writer::new(&mut out).start("query").attr("xmlns", ns::MAM).open();
    data_form::write(&mut out, "form", ("", ""), ns::MAM, &fields, &ids);
    out.extend_from_slice(b"</query>");
    out
}

/// - takes: `all`, the question about the whole archive
/// - errors: `bad-request`; `feature-not-implemented` for fields and ways of paging that are unknown; `item-not-found`
///   for ids that were never given; `policy-violation` for more ids than a page has rows
pub(super) fn read(
    turn: &Turn<'_>,
    asked: &Element,
    mut all: ArchiveQuery,
) -> Result<(ArchiveQuery, Request), StanzaError> {
    if asked.attr("node").is_some_and(|node| !node.is_empty()) {
        return Err(unknown("an account's archive has no nodes"));
    }
    if let Some(form) = asked.child(ns::DATA_FORMS, "x") {
        let form = Submitted::read(form, ns::MAM).ok_or_else(|| bad("not a form of this query"))?;
        filter(turn, &form, &mut all)?;
    }
    let page_max = turn.limits().archive_page;
    all.max = page_max;
    if let Some(set) = asked.child(ns::RSM, "set") {
        page(turn, set, &mut all)?;
    }
    all.count_max = match all.max {
        0 => turn.limits().archive_count,
        _ => COUNTED_WITH_PAGE.min(turn.limits().archive_count),
    };
    let mut request = Request {
        query_id: asked.attr("queryid").map(ToOwned::to_owned),
        flip: asked.child(ns::MAM, "flip-page").is_some(),
        page: all.ids.is_none().then_some(all.page),
        named: None,
    };
    let Some(mut ids) = all.ids.clone() else { return Ok((all, request)) };
    ids.sort_unstable();
    ids.dedup();
    if ids.len() > page_max as usize {
        let text = format!("a query may name {page_max} ids");
        return Err(StanzaError::from(StanzaCondition::PolicyViolation).with_text(text));
    }
    // Whether they are there must not depend on what else is asked for.
    let (owner, count) = (all.owner.clone(), ids.len());
    let named =
        ArchiveQuery { up_to: all.up_to, ids: Some(ids), ..ArchiveQuery::all(owner, page_max) };
    request.named = Some((count, Box::new(all)));
    Ok((named, request))
}

/// The filters in a form.
fn filter(
    turn: &Turn<'_>,
    form: &Submitted,
    query: &mut ArchiveQuery,
) -> Result<(), StanzaError> {
    for (var, values) in form.fields() {
        let value = values.first().map(|value| value.trim()).filter(|value| !value.is_empty());
        let Some(value) = value else { continue };
        match var {
            "with" => {
                query.with = Some(Jid::parse(value).map_err(|_| bad("'with' is no address"))?);
            }
            "start" => query.start = Some(time(value)?),
            // To the end of the millisecond: more of it is not shown.
            "end" => query.end = Some(Wall(time(value)?.0 / 1_000 * 1_000 + 999)),
            "after-id" => query.after_id = Some(position(turn, &query.owner, value)?),
            "before-id" => query.before_id = Some(position(turn, &query.owner, value)?),
            "ids" => {
                let row = |id: &String| position(turn, &query.owner, id.trim());
                query.ids = Some(values.iter().map(row).collect::<Result<_, _>>()?);
            }
            // There is nothing of rooms in an account's archive, whatever is asked for.
            "include-groupchat" if matches!(value, "true" | "1" | "false" | "0") => {}
            "include-groupchat" => return Err(bad("'include-groupchat' is true or false")),
            _ => return Err(unknown(format!("there is no field {var:?}"))),
        }
    }
    Ok(())
}

/// `<set/>` of XEP-0059.
fn page(turn: &Turn<'_>, set: &Element, query: &mut ArchiveQuery) -> Result<(), StanzaError> {
    let child = |name| set.child(ns::RSM, name).map(|child| child.text().trim().to_owned());
    if let Some(max) = child("max") {
        let max: u64 = max.parse().map_err(|_| bad("<max/> is no number"))?;
        query.max = u32::try_from(max).unwrap_or(u32::MAX).min(query.max);
    }
    if child("index").is_some() {
        return Err(unknown("pages are not found by their index"));
    }
    query.page = match (child("after"), child("before")) {
        (Some(_), Some(_)) => return Err(bad("a page is after or before, not both")),
        (None, None) => Page::After(0),
        (Some(id), None) if id.is_empty() => Page::After(0),
        (Some(id), None) => Page::After(position(turn, &query.owner, &id)?),
        (None, Some(id)) if id.is_empty() => Page::Before(u64::MAX),
        (None, Some(id)) => Page::Before(position(turn, &query.owner, &id)?),
    };
    Ok(())
}

fn position(turn: &Turn<'_>, own: &BareJid, id: &str) -> Result<u64, StanzaError> {
    turn.archive_position(own, id).ok_or_else(|| StanzaCondition::ItemNotFound.into())
}

fn time(text: &str) -> Result<Wall, StanzaError> {
    datetime::parse(text).ok_or_else(|| bad("a time is as in 2026-11-26T12:00:00Z"))
}

fn bad(text: &'static str) -> StanzaError {
    StanzaError::from(StanzaCondition::BadRequest).with_text(text)
}

fn unknown(text: impl Into<std::borrow::Cow<'static, str>>) -> StanzaError {
    StanzaError::from(StanzaCondition::FeatureNotImplemented).with_text(text)
}
