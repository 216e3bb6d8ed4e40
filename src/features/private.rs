//! XEP-0049: Private XML Storage. What a user's clients keep for themselves, an element by its name and namespace.

use super::Settings;
use crate::shard::{
    AccountId, Answers, Feature, Iq, Manifest, Method, Scope, Slot, Spec, StoreOutcome, Turn,
    Verdict,
};
use crate::store::{Answer, Query, Write};
use crate::xmpp::ns;
use crate::xmpp::stanza_error::{StanzaCondition, StanzaError};
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::writer::Writer;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "private",
    specs: &[Spec { name: "XEP-0049", version: "1.2", left_out: "" }],
    server_disco: &[ns::PRIVATE],
    answers: &[
        Answers {
            method: Method::Get,
            namespace: ns::PRIVATE,
            name: "query",
            scopes: &[Scope::Own],
        },
        Answers {
            method: Method::Set,
            namespace: ns::PRIVATE,
            name: "query",
            scopes: &[Scope::Own],
        },
    ],
    ..Manifest::EMPTY
};

/// Bytes of a namespace and name together.
const KEY_BYTES_MAX: usize = 512;

/// What there is, and how large: the elements themselves are read when they are asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Contents {
    items: Vec<(String, usize)>,
}

impl Slot for Contents {
    const NAME: &'static str = "private";

    /// A line for each element: its bytes, a blank, its key.
    fn load(stored: Option<&[u8]>) -> Self {
        let text = stored.and_then(|stored| std::str::from_utf8(stored).ok()).unwrap_or_default();
        let item = |line: &str| {
            let (bytes, key) = line.split_once(' ')?;
            Some((key.to_owned(), bytes.parse().ok()?))
        };
        Self { items: text.lines().filter_map(item).collect() }
    }
}

impl Contents {
    fn store(&self) -> Vec<u8> {
        let line = |(key, bytes): &(String, usize)| format!("{bytes} {key}\n");
        self.items.iter().map(line).collect::<String>().into_bytes()
    }

    fn has(&self, key: &str) -> bool {
        self.items.iter().any(|(known, _)| known == key)
    }

    fn put(&mut self, key: &str, bytes: usize) {
        self.items.retain(|(known, _)| known != key);
        if bytes > 0 {
            self.items.push((key.to_owned(), bytes));
        }
    }

    /// Bytes of all elements but that one.
    fn others(&self, key: &str) -> usize {
        self.items.iter().filter(|(known, _)| known != key).map(|(_, bytes)| bytes).sum()
    }
}

/// What begins the name of an element's slot; its key follows.
pub const SLOT_PREFIX: &str = "~private ";

/// The slots that keep these elements: the list of contents, then each element by its name. Of two elements of one name
/// and namespace the later one stays; what may not be stored gives the reason.
pub fn to_slots(items: &[Element]) -> (Vec<(String, Vec<u8>)>, Vec<&'static str>) {
    let (mut contents, mut slots, mut refused) = (Contents::default(), Vec::new(), Vec::new());
    for item in items {
        let key = match key_of(item) {
            Ok(key) => key,
            Err(reason) => {
                refused.push(reason);
                continue;
            }
        };
        let mut value = Vec::new();
        item.write(&mut value, ns::PRIVATE);
        let name = format!("{SLOT_PREFIX}{key}");
        slots.retain(|(known, _)| *known != name);
        if value != nothing(item) {
            contents.put(&key, value.len());
            slots.push((name, value));
        }
    }
    if !slots.is_empty() {
        slots.insert(0, (Contents::NAME.to_owned(), contents.store()));
    }
    (slots, refused)
}

/// The slot that lists the elements, which follows from them.
pub const CONTENTS_SLOT: &str = Contents::NAME;

fn key_of(item: &Element) -> Result<String, &'static str> {
    let key = format!("{} {}", item.namespace, item.name);
    if item.namespace.is_empty() {
        return Err("it has no namespace");
    }
    if is_reserved(&item.namespace) {
        return Err("its namespace is reserved (XEP-0049)");
    }
    // The key is a line of the list of contents.
    if key.len() > KEY_BYTES_MAX || key.contains('\n') {
        return Err("its name and namespace are too long");
    }
    Ok(key)
}

/// One instance per shard.
pub(super) struct Private;

impl Private {
    pub(super) fn new(_settings: &Settings) -> Self {
        Self
    }
}

impl Feature for Private {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        let query = iq.payload.to_element();
        let mut children = query.children();
        let (Some(item), None) = (children.next(), children.next()) else {
            return Verdict::Error(StanzaCondition::BadRequest.into());
        };
        let Ok(key) = key_of(item) else {
            return Verdict::Error(StanzaCondition::NotAcceptable.into());
        };
        let own = iq.account.and_then(|account| Some((account, turn.account_jid(account)?.clone())));
        let Some((account, owner)) = own else {
            return Verdict::Error(StanzaCondition::ServiceUnavailable.into());
        };
        let name = format!("{SLOT_PREFIX}{key}");
        if iq.method == Method::Get {
            let has = turn.account(account).is_some_and(|data| data.slot::<Contents>().has(&key));
            if !has {
                return Verdict::Result(result(&nothing(item)));
            }
            turn.query(account, Query::Slot { owner, name });
            return Verdict::Pending;
        }
        let mut value = Vec::with_capacity(iq.payload.bytes.len());
        item.write(&mut value, ns::PRIVATE);
        // An element without anything in it is what a client gets that stored nothing.
        let value = (value != nothing(item)).then_some(value);
        let bytes = value.as_ref().map_or(0, Vec::len);
        let (bytes_max, items_max) = (turn.limits().private_bytes, turn.limits().private_items);
        let Some(data) = turn.account(account) else {
            return Verdict::Error(StanzaCondition::InternalServerError.into());
        };
        let contents = data.slot::<Contents>();
        let is_one_more = bytes > 0 && !contents.has(&key);
        if contents.others(&key) + bytes > bytes_max
            || (is_one_more && contents.items.len() >= items_max)
        {
            let text = format!("private storage holds {bytes_max} bytes in {items_max} elements");
            return Verdict::Error(StanzaError::from(StanzaCondition::PolicyViolation).with_text(text));
        }
        contents.put(&key, bytes);
        let list = contents.store();
        let list = (!list.is_empty()).then_some(list);
        let slot = Contents::NAME.to_owned();
        turn.write_beside(account, Write::PutSlot { owner: owner.clone(), name: slot, value: list });
        turn.write(account, Write::PutSlot { owner, name, value });
        Verdict::Pending
    }

    fn on_stored(
        &mut self,
        _turn: &mut Turn<'_>,
        _account: AccountId,
        outcome: StoreOutcome,
    ) -> Result<Vec<u8>, StanzaError> {
        match outcome {
            StoreOutcome::Answer(Answer::Slot(Some(item))) => Ok(result(&item)),
            // The list of contents says that it is there.
            StoreOutcome::Answer(_) => Err(StanzaCondition::InternalServerError.into()),
            StoreOutcome::Written(_) | StoreOutcome::Failed => Ok(Vec::new()),
        }
    }
}

/// XEP-0049 §3.
fn is_reserved(namespace: &str) -> bool {
    namespace.starts_with("jabber:")
        || namespace.starts_with("http://jabber.org/")
        || namespace == ns::VCARD
}

fn nothing(item: &Element) -> Vec<u8> {
    let mut out = Vec::new();
    Element::new(&item.name, &item.namespace).write(&mut out, ns::PRIVATE);
    out
}

fn result(item: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(item.len() + 48);
    Writer::new(&mut out).start("query").attr("xmlns", ns::PRIVATE).raw(item).end("query");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_read_back_as_they_were_stored() {
        let mut contents = Contents::default();
        contents.put("urn:a b", 12);
        contents.put("urn:c d", 5);
        contents.put("urn:a b", 7);
        assert_eq!(Contents::load(Some(&contents.store())), contents);
        assert_eq!((contents.others("urn:a b"), contents.has("urn:c d")), (5, true));
        contents.put("urn:c d", 0);
        assert!(!contents.has("urn:c d"));
        assert_eq!(Contents::load(Some(b"junk\n\xff")), Contents::default());
    }
}
