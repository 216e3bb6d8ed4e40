//! XEP-0191: Blocking Command. A list of addresses per account; nothing passes between them and it, and to them it looks
//! as if the user were away ("polite blocking": subscriptions stay).

use super::Settings;
use crate::shard::{
    AccountId, Answers, Audience, Feature, Iq, Manifest, Method, Passage, Phase, Received, Scope,
    Sent, SessionId, Slot, Spec, Turn, Verdict,
};
use crate::store::{Subscription, Write};
use crate::xmpp::jid::{BareJid, Jid};
use crate::xmpp::ns;
use crate::xmpp::stanza_error::{ErrorType, StanzaCondition, StanzaError};
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::writer::Writer;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "blocking",
    specs: &[Spec {
        name: "XEP-0191",
        version: "1.3",
        left_out: "presence to all resources of a contact reaches one that is blocked alone",
    }],
    server_disco: &[ns::BLOCKING],
    account_disco: &[ns::BLOCKING],
    answers: &[
        answers(Method::Get, "blocklist"),
        answers(Method::Set, "block"),
        answers(Method::Set, "unblock"),
    ],
    phases: &[Phase::Sent, Phase::Received, Phase::Audience],
    ..Manifest::EMPTY
};

const fn answers(method: Method, name: &'static str) -> Answers {
    Answers { method, namespace: ns::BLOCKING, name, scopes: &[Scope::Own] }
}

/// One instance per shard.
pub(super) struct Blocking {
    pushes: u64,
}

/// An account's list, sorted: addresses as prepared text.
#[derive(Debug, Default)]
struct BlockList(Vec<Box<str>>);

impl Slot for BlockList {
    const NAME: &'static str = "blocking";

    fn load(stored: Option<&[u8]>) -> Self {
        let text = stored.and_then(|stored| std::str::from_utf8(stored).ok()).unwrap_or_default();
        let mut list: Vec<Box<str>> = text.lines().map(Into::into).collect();
        list.sort_unstable();
        Self(list)
    }
}

impl BlockList {
    fn has(&self, address: &str) -> bool {
        self.0.binary_search_by(|item| (**item).cmp(address)).is_ok()
    }

    /// § JID Matching: the address itself, its bare JID, its domain.
    fn blocks(&self, address: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let bare = address.split_once('/').map_or(address, |(bare, _)| bare);
        let domain = bare.split_once('@').map_or(bare, |(_, domain)| domain);
        self.has(address) || self.has(bare) || self.has(domain)
    }

    /// One address a line, which none can contain; `None` for nothing to keep.
    fn to_stored(&self) -> Option<Vec<u8>> {
        (!self.0.is_empty()).then(|| self.0.join("\n").into_bytes())
    }
}

/// The slot of the list.
pub const SLOT: &str = BlockList::NAME;

/// What the slot keeps of these addresses; `None` for nothing.
pub fn to_stored(addresses: &[Jid]) -> Option<Vec<u8>> {
    let mut list: Vec<Box<str>> = addresses.iter().map(|jid| jid.to_string().into()).collect();
    list.sort_unstable();
    list.dedup();
    BlockList(list).to_stored()
}

/// The addresses in the slot, in their order.
pub fn addresses(stored: &[u8]) -> Vec<Box<str>> {
    BlockList::load(Some(stored)).0
}

/// The session has asked for the list, so it is told of changes.
#[derive(Debug, Default)]
struct Asked(bool);

impl Blocking {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self { pushes: 0 }
    }
}

impl Feature for Blocking {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn pack_session(&self, turn: &Turn<'_>, session: SessionId) -> Option<Vec<u8>> {
        let asked = turn.session_slot_in_use::<Asked>(session)?;
        Some(vec![u8::from(asked.0)])
    }

    fn unpack_session(&mut self, turn: &mut Turn<'_>, session: SessionId, packed: &[u8]) {
        if let Some(asked) = turn.session_slot::<Asked>(session) {
            asked.0 = packed == [1];
        }
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        let Some(account) = iq.account else {
            return Verdict::Error(StanzaCondition::ServiceUnavailable.into());
        };
        let changed = match (iq.method, iq.payload.name) {
            (Method::Get, _) => return list(turn, account, iq.session),
            (Method::Set, "block") => self.block(turn, account, &iq.payload.to_element()),
            (Method::Set, _) => self.unblock(turn, account, &iq.payload.to_element()),
        };
        match changed {
            Ok(true) => {
                let owner = turn.account_jid(account).cloned();
                let value = turn.account(account).and_then(|data| {
                    data.slot_in_use::<BlockList>().and_then(|list| list.to_stored())
                });
                let Some(owner) = owner else {
                    return Verdict::Error(StanzaCondition::InternalServerError.into());
                };
                let name = BlockList::NAME.to_owned();
                turn.write(account, Write::PutSlot { owner, name, value });
                Verdict::Pending
            }
            Ok(false) => Verdict::Result(Vec::new()),
            Err(condition) => Verdict::Error(condition.into()),
        }
    }

    fn on_sent(&mut self, turn: &mut Turn<'_>, sent: &Sent<'_>) -> Passage {
        let Some(to) = sent.to else { return Passage::Pass };
        let blocks = turn
            .account(sent.account)
            .and_then(|data| data.slot_in_use::<BlockList>())
            .is_some_and(|list| list.blocks(&to.to_string()));
        if !blocks || turn.account_jid(sent.account).is_some_and(|own| is_exempt(own, to)) {
            return Passage::Pass;
        }
        Passage::Refuse(
            StanzaError::typed(StanzaCondition::NotAcceptable, ErrorType::Cancel)
                .with_detail("<blocked xmlns='urn:xmpp:blocking:errors'/>"),
        )
    }

    fn lets_messages_pass(&self, turn: &mut Turn<'_>, account: AccountId) -> bool {
        let data = turn.account(account);
        data.and_then(|data| data.slot_in_use::<BlockList>()).is_none_or(|list| list.0.is_empty())
    }

    fn on_received(&mut self, turn: &mut Turn<'_>, received: &Received<'_>) -> Passage {
        let blocks = turn
            .account(received.account)
            .and_then(|data| data.slot_in_use::<BlockList>())
            .is_some_and(|list| list.blocks(received.from));
        if !blocks || is_own(turn.account_jid(received.account), received.from) {
            return Passage::Pass;
        }
        Passage::Refuse(StanzaCondition::ServiceUnavailable.into())
    }

    fn on_audience(&mut self, turn: &mut Turn<'_>, account: AccountId, audience: &mut Audience) {
        let own = turn.account_jid(account).cloned();
        let data = turn.account(account);
        let Some(list) = data.and_then(|data| data.slot_in_use::<BlockList>()) else { return };
        audience.retain(|(_, jid)| !list.blocks(jid) || is_own(own.as_ref(), jid));
    }
}

/// The resources of an account always reach each other, and their server.
fn is_exempt(own: &BareJid, other: &Jid) -> bool {
    other.bare() == own || other.local().is_none() && other.domain() == own.domain()
}

fn is_own(own: Option<&BareJid>, address: &str) -> bool {
    let bare = address.split_once('/').map_or(address, |(bare, _)| bare);
    own.is_some_and(|own| own.as_str() == bare)
}

fn list(turn: &mut Turn<'_>, account: AccountId, session: Option<SessionId>) -> Verdict {
    if let Some(asked) = session.and_then(|session| turn.session_slot::<Asked>(session)) {
        asked.0 = true;
    }
    let mut out = Vec::with_capacity(128);
    let mut writer = Writer::new(&mut out);
    writer.start("blocklist").attr("xmlns", ns::BLOCKING);
    let list = turn.account(account).and_then(|data| data.slot_in_use::<BlockList>());
    for jid in list.iter().flat_map(|list| &list.0) {
        writer.start("item").attr("jid", jid).close_empty();
    }
    writer.end("blocklist");
    Verdict::Result(out)
}

impl Blocking {
    /// Gives whether that changed the list.
    ///
    /// - errors: `bad-request`, `jid-malformed`; `not-acceptable` above `block_list_items`
    fn block(
        &mut self,
        turn: &mut Turn<'_>,
        account: AccountId,
        block: &Element,
    ) -> Result<bool, StanzaCondition> {
        let limit = turn.limits().block_list_items;
        let items = read_items(block)?;
        if items.is_empty() {
            return Err(StanzaCondition::BadRequest);
        }
        let data = turn.account(account).ok_or(StanzaCondition::InternalServerError)?;
        let list = data.slot::<BlockList>();
        let new: Vec<Jid> = items.into_iter().filter(|jid| !list.has(&jid.to_string())).collect();
        if list.0.len() + new.len() > limit {
            return Err(StanzaCondition::NotAcceptable);
        }
        if new.is_empty() {
            return Ok(false);
        }
        // First they see the user go, then they see nothing more.
        for (contact, _) in seen_by(turn, account, &new) {
            turn.hide_from(account, &contact);
        }
        let blocked: BlockList = BlockList::of(&new);
        turn.retract_directed(account, |jid| blocked.blocks(&jid.to_string()));
        if let Some(data) = turn.account(account) {
            let list = data.slot::<BlockList>();
            list.0.extend(blocked.0);
            list.0.sort_unstable();
        }
        self.push(turn, account, "block", &new);
        Ok(true)
    }

    /// Without items: all of them. Gives whether that changed the list.
    fn unblock(
        &mut self,
        turn: &mut Turn<'_>,
        account: AccountId,
        unblock: &Element,
    ) -> Result<bool, StanzaCondition> {
        let items = read_items(unblock)?;
        let data = turn.account(account).ok_or(StanzaCondition::InternalServerError)?;
        let Some(list) = data.slot_in_use::<BlockList>() else { return Ok(false) };
        let named = BlockList::of(&items);
        let (gone, left): (Vec<_>, Vec<_>) = std::mem::take(&mut list.0)
            .into_iter()
            .partition(|item| items.is_empty() || named.has(item));
        list.0 = left;
        if gone.is_empty() {
            return Ok(false);
        }
        let gone: Vec<Jid> = gone.iter().filter_map(|item| Jid::parse(item).ok()).collect();
        for (contact, subscription) in seen_by(turn, account, &gone) {
            let text = contact.to_string();
            let data = turn.account(account).and_then(|data| data.slot_in_use::<BlockList>());
            if data.is_some_and(|list| list.blocks(&text)) {
                continue;
            }
            turn.show_to(account, &contact);
            if subscription == Subscription::Both {
                turn.probe(account, &contact);
            }
        }
        self.push(turn, account, "unblock", if items.is_empty() { &[] } else { &gone });
        Ok(true)
    }

    /// Tells all sessions that asked for the list what became of it.
    fn push(&mut self, turn: &mut Turn<'_>, account: AccountId, what: &str, items: &[Jid]) {
        for session in turn.sessions(account) {
            if !turn.session_slot_in_use::<Asked>(session).is_some_and(|asked| asked.0) {
                continue;
            }
            let Some(to) = turn.session_jid(session).map(ToString::to_string) else { continue };
            self.pushes += 1;
            let mut out = Vec::with_capacity(192);
            let mut writer = Writer::new(&mut out);
            writer.start("iq").attr("type", "set").attr("id", &format!("block-{}", self.pushes));
            writer.attr("to", &to).start(what).attr("xmlns", ns::BLOCKING);
            for item in items {
                writer.start("item").attr("jid", &item.to_string()).close_empty();
            }
            writer.end(what).end("iq");
            turn.send(session, &[&out]);
        }
    }
}

impl BlockList {
    fn of(items: &[Jid]) -> Self {
        let mut list: Vec<Box<str>> = items.iter().map(|jid| jid.to_string().into()).collect();
        list.sort_unstable();
        Self(list)
    }
}

/// The addresses in `<item jid=''/>`, each once.
fn read_items(element: &Element) -> Result<Vec<Jid>, StanzaCondition> {
    let mut items = Vec::new();
    for item in element.children() {
        if !item.is(ns::BLOCKING, "item") {
            return Err(StanzaCondition::BadRequest);
        }
        let jid = item.attr("jid").ok_or(StanzaCondition::BadRequest)?;
        items.push(Jid::parse(jid).map_err(|_| StanzaCondition::JidMalformed)?);
    }
    items.sort_by_cached_key(ToString::to_string);
    items.dedup();
    Ok(items)
}

/// Contacts that see the account's presence and that some of `items` name: the contact, or the one resource that is named.
fn seen_by(turn: &mut Turn<'_>, account: AccountId, items: &[Jid]) -> Vec<(Jid, Subscription)> {
    let Some(data) = turn.account(account) else { return Vec::new() };
    let list = BlockList::of(items);
    let mut seen = Vec::new();
    for contact in data.roster.iter() {
        if !matches!(contact.subscription, Subscription::From | Subscription::Both) {
            continue;
        }
        if list.blocks(contact.jid) {
            seen.push((contact.to_item().jid, contact.subscription));
            continue;
        }
        let resources = items.iter().filter(|item| item.bare().as_str() == contact.bare());
        seen.extend(resources.map(|item| (item.clone(), contact.subscription)));
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(items: &[&str]) -> BlockList {
        BlockList::load(Some(items.join("\n").as_bytes()))
    }

    #[test]
    fn an_item_blocks_the_addresses_that_it_covers() {
        let cases = [
            ("a@d/r", "a@d/r", true),
            ("a@d/r", "a@d/s", false),
            ("a@d/r", "a@d", false),
            ("a@d", "a@d/r", true),
            ("a@d", "a@d", true),
            ("a@d", "b@d", false),
            ("d/r", "d/r", true),
            ("d/r", "d", false),
            ("d/r", "a@d/r", false),
            ("d", "d", true),
            ("d", "d/r", true),
            ("d", "a@d/r", true),
            ("d", "a@sub.d", false),
        ];
        for (item, address, blocked) in cases {
            assert_eq!(list(&["x@y", item]).blocks(address), blocked, "{item} {address}");
        }
    }

    #[test]
    fn what_is_stored_reads_the_same() {
        let kept = list(&["b@d/a resource", "a@d"]);
        assert_eq!(BlockList::load(kept.to_stored().as_deref()).0, kept.0);
        assert_eq!(list(&[]).to_stored(), None);
    }
}
