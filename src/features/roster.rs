//! RFC 6121 §2: managing the roster. Who sees whom is `shard::presence`'s to decide; this is what clients read and
//! write.

use super::Settings;
use crate::shard::{
    AccountId, Answers, Feature, Iq, Manifest, Method, RosterChange, Scope, Spec, Turn, Verdict,
};
use crate::store::{RosterItem, Subscription};
use crate::xmpp::jid::Jid;
use crate::xmpp::ns;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::writer::Writer;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "roster",
    specs: &[
        Spec {
            name: "RFC 6121 §2",
            version: "2011",
            left_out: "roster versions are told, differences are not",
        },
        Spec { name: "RFC 6121 §3", version: "2011", left_out: "" },
    ],
    stream: "<ver xmlns='urn:xmpp:features:rosterver'/><sub xmlns='urn:xmpp:features:pre-approval'/>",
    answers: &[
        Answers {
            method: Method::Get,
            namespace: ns::ROSTER,
            name: "query",
            scopes: &[Scope::Own],
        },
        Answers {
            method: Method::Set,
            namespace: ns::ROSTER,
            name: "query",
            scopes: &[Scope::Own],
        },
    ],    ..Manifest::EMPTY
};

/// One instance per shard.
pub(super) struct Roster;

impl Roster {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Roster {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        let Some(account) = iq.account else {
            return Verdict::Error(StanzaError::new(StanzaCondition::ServiceUnavailable));
        };
        let query = iq.payload.to_element();
        match iq.method {
            Method::Get => get(turn, account, iq, &query),
            Method::Set => match set(turn, account, &query) {
                Ok(()) => Verdict::Pending,
                Err(condition) => Verdict::Error(StanzaError::new(condition)),
            },
        }
    }
}

/// §2.1.3, §2.6: the whole roster, or an empty result where the client's version is current.
fn get(turn: &mut Turn<'_>, account: AccountId, iq: &Iq<'_>, query: &Element) -> Verdict {
    if let Some(session) = iq.session {
        turn.set_interested(session);
    }
    let Some(data) = turn.account(account) else {
        return Verdict::Error(StanzaError::new(StanzaCondition::InternalServerError));
    };
    let version = data.roster_version.to_string();
    if query.attr("ver") == Some(version.as_str()) {
        return Verdict::Result(Vec::new());
    }
    let mut items = Vec::with_capacity(128 * data.roster.len());
    for item in data.roster.iter().filter(|item| item.listed) {
        item.to_item().write(&mut items);
    }
    let mut out = Vec::with_capacity(items.len() + 64);
    Writer::new(&mut out)
        .start("query")
        .attr("xmlns", ns::ROSTER)
        .attr("ver", &version)
        .open()
        .raw(&items)
        .end("query");
    Verdict::Result(out)
}

/// §2.3, §2.4, §2.5: one item is added, changed or removed.
fn set(turn: &mut Turn<'_>, account: AccountId, query: &Element) -> Result<(), StanzaCondition> {
    let limit = turn.limits().roster_items;
    let mut items = query.children();
    let (Some(item), None) = (items.next(), items.next()) else {
        return Err(StanzaCondition::BadRequest);
    };
    if item.name != "item" || item.namespace != ns::ROSTER {
        return Err(StanzaCondition::BadRequest);
    }
    let text = item.attr("jid").ok_or(StanzaCondition::BadRequest)?;
    let jid = Jid::parse(text).map_err(|_| StanzaCondition::JidMalformed)?;
    let jid: Jid = jid.into_bare().into();
    let own = turn.account_jid(account).is_some_and(|own| *own == *jid.bare());
    if own {
        // §2.1.2.1: nobody is on their own roster.
        return Err(StanzaCondition::NotAllowed);
    }
    let data = turn.account(account).ok_or(StanzaCondition::InternalServerError)?;
    let known = data.roster.item(&jid);
    let is_listed = known.as_ref().is_some_and(|known| known.listed);
    if item.attr("subscription") == Some("remove") {
        let known = known.filter(|known| known.listed).ok_or(StanzaCondition::ItemNotFound)?;
        remove(turn, account, &known);
        return Ok(());
    }
    if !is_listed && data.listed() >= limit {
        return Err(StanzaCondition::NotAcceptable);
    }
    let (name, groups) = read_item(turn, item)?;
    let contact = match known {
        Some(known) => RosterItem { name, groups, listed: true, ..known },
        None => RosterItem { name, groups, ..RosterItem::new(jid) },
    };
    turn.change_roster(account, RosterChange::Set(contact));
    Ok(())
}

/// §2.5.1: a contact that is removed sees us no longer, and we see it no longer.
fn remove(turn: &mut Turn<'_>, account: AccountId, known: &RosterItem) {
    let (to, from) = match known.subscription {
        Subscription::None => (known.ask, known.pending_in.is_some()),
        Subscription::To => (true, known.pending_in.is_some()),
        Subscription::From => (known.ask, true),
        Subscription::Both => (true, true),
    };
    if from {
        turn.hide_from(account, &known.jid);
        turn.send_subscription(account, &known.jid, "unsubscribed");
    }
    if to {
        turn.send_subscription(account, &known.jid, "unsubscribe");
    }
    turn.change_roster(account, RosterChange::Remove(known.jid.clone()));
}

/// Name and groups within their limits (§2.3.3).
fn read_item(
    turn: &Turn<'_>,
    item: &Element,
) -> Result<(String, Vec<String>), StanzaCondition> {
    let limits = turn.limits();
    let name = item.attr("name").unwrap_or_default().to_owned();
    let mut groups = Vec::new();
    for group in item.children() {
        if group.name != "group" || group.namespace != ns::ROSTER {
            continue;
        }
        let group = group.text();
        if group.is_empty() {
            return Err(StanzaCondition::NotAcceptable);
        }
        if groups.contains(&group) {
            return Err(StanzaCondition::BadRequest);
        }
        groups.push(group);
    }
    let long = |text: &String| text.len() > limits.roster_name_bytes;
    if long(&name) || groups.len() > limits.roster_groups || groups.iter().any(long) {
        return Err(StanzaCondition::NotAcceptable);
    }
    Ok((name, groups))
}
