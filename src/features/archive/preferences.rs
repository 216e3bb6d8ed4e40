//! XEP-0441: what a user wants to have archived.

use crate::shard::{AccountId, ArchiveDefault, ArchivePreferences, Slot, Turn};
use crate::store::Write;
use crate::xmpp::jid::Jid;
use crate::xmpp::ns;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::writer::Writer;

/// `<prefs/>` as they are.
pub(super) fn shown(turn: &mut Turn<'_>, account: AccountId) -> Vec<u8> {
    let wanted = turn.account(account).and_then(|data| data.slot_in_use::<ArchivePreferences>());
    let usual = ArchivePreferences::default();
    let wanted = wanted.map_or(&usual, |wanted| wanted);
    let mut out = Vec::with_capacity(256);
    let mut writer = Writer::new(&mut out);
    writer.start("prefs").attr("xmlns", ns::MAM).attr("default", wanted.default.name()).open();
    for (name, list) in [("always", &wanted.always), ("never", &wanted.never)] {
        writer.start(name).open();
        for jid in list {
            writer.start("jid").open().text(jid).end("jid");
        }
        writer.end(name);
    }
    writer.end("prefs");
    out
}

/// Takes new preferences over and has them kept.
///
/// - errors: `bad-request`, `jid-malformed`; `not-acceptable` above `archive_preferences`
pub(super) fn change(
    turn: &mut Turn<'_>,
    account: AccountId,
    prefs: &Element,
) -> Result<(), StanzaError> {
    let wanted = read(prefs)?;
    let limit = turn.limits().archive_preferences;
    if wanted.always.len() + wanted.never.len() > limit {
        let text = format!("preferences may name {limit} addresses");
        return Err(StanzaError::from(StanzaCondition::NotAcceptable).with_text(text));
    }
    let owner = turn.account_jid(account).cloned();
    let (Some(owner), Some(data)) = (owner, turn.account(account)) else {
        return Err(StanzaCondition::InternalServerError.into());
    };
    let value = wanted.to_stored();
    *data.slot::<ArchivePreferences>() = wanted;
    let name = ArchivePreferences::NAME.to_owned();
    turn.write(account, Write::PutSlot { owner, name, value });
    Ok(())
}

fn read(prefs: &Element) -> Result<ArchivePreferences, StanzaCondition> {
    let default = prefs.attr("default").and_then(ArchiveDefault::parse);
    let default = default.ok_or(StanzaCondition::BadRequest)?;
    let list = |name: &str| -> Result<Vec<Box<str>>, StanzaCondition> {
        let lists = prefs.children().filter(|child| child.is(ns::MAM, name));
        let mut list = Vec::new();
        for item in lists.flat_map(Element::children) {
            if !item.is(ns::MAM, "jid") {
                return Err(StanzaCondition::BadRequest);
            }
            let jid = Jid::parse(item.text().trim());
            let jid = jid.map_err(|_| StanzaCondition::JidMalformed)?;
            list.push(jid.to_string().into());
        }
        list.sort_unstable();
        list.dedup();
        Ok(list)
    };
    Ok(ArchivePreferences { default, always: list("always")?, never: list("never")? })
}
