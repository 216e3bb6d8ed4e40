//! What is told of a stanza: its kind, addresses, id and size, and the names of what is in it. Never what that says.

use crate::xmpp::ns;
use crate::xmpp::stanza::{Stanza, StanzaKind};
use crate::xmpp::stanza_error::StanzaCondition;

/// Characters of an address that are told: none that is valid has more (RFC 7622 §3.1).
const ADDRESS_MAX: usize = 3_071;
const ID_MAX: usize = 64;
/// Names of children, and characters of each.
const CHILDREN_MAX: usize = 8;
const NAME_MAX: usize = 32;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    pub kind: Option<StanzaKind>,
    /// Its `type`, where that is a known one.
    pub type_: Option<&'static str>,
    /// Of an error.
    pub condition: Option<StanzaCondition>,
    pub from: Option<String>,
    pub to: Option<String>,
    pub id: Option<String>,
    pub bytes: usize,
    /// Local names of its children; `…` for more than are told.
    pub children: Vec<String>,
}

impl About {
    /// - `from`, `to`: as the shard knows them; else what the stanza says
    pub(super) fn of(stanza: &Stanza<'_>, from: Option<&str>, to: Option<&str>) -> About {
        let address = |known: Option<&str>, own: &str| match known {
            Some(known) => Some(short(known, ADDRESS_MAX)),
            None => stanza.attr(own).map(|own| short(&own, ADDRESS_MAX)),
        };
        let kind = stanza.kind();
        let type_ = match kind {
            Some(StanzaKind::Message) => {
                let type_ = stanza.message_type().name();
                (stanza.type_().as_deref() == Some(type_)).then_some(type_)
            }
            Some(StanzaKind::Presence) => stanza.presence_type().and_then(|type_| type_.name()),
            Some(StanzaKind::Iq) => stanza.iq_type().map(|type_| type_.name()),
            None => None,
        };
        let mut children: Vec<String> =
            stanza.children().take(CHILDREN_MAX).map(|child| short(child.name, NAME_MAX)).collect();
        if stanza.children().nth(CHILDREN_MAX).is_some() {
            children.push("…".to_owned());
        }
        About {
            kind,
            type_,
            condition: if type_ == Some("error") { condition(stanza) } else { None },
            from: address(from, "from"),
            to: address(to, "to"),
            id: stanza.id().map(|id| short(&id, ID_MAX)),
            bytes: stanza.bytes.len(),
            children,
        }
    }
}

fn condition(stanza: &Stanza<'_>) -> Option<StanzaCondition> {
    let error = stanza.children().find(|child| child.name == "error")?.to_element();
    let mut conditions = error.children().filter(|child| child.namespace == ns::STANZA_ERRORS);
    conditions.find_map(|child| StanzaCondition::from_name(&child.name))
}

fn short(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::xmpp::xml::framer::XmlLimits;
    use crate::xmpp::xml::reader::{self, Index, StreamContext};

    fn about(xml: &str) -> About {
        let mut index = Index::default();
        let limits = XmlLimits::default();
        reader::read(xml.as_bytes(), &StreamContext::client(), &limits, &mut index).unwrap();
        About::of(&Stanza { bytes: xml.as_bytes(), index: &index }, None, Some("bob@here"))
    }

    #[test]
    fn names_are_told_and_texts_are_not() {
        let xml = "<message from='alice@here/a' to='BOB@here' type='chat' id='m1'><subject>secret</subject>\
                   <body>secret</body><x xmlns='a:b' mark='secret'><secret/></x>secret</message>";
        let told = about(xml);
        assert_eq!((told.kind, told.type_), (Some(StanzaKind::Message), Some("chat")));
        assert_eq!(told.from.as_deref(), Some("alice@here/a"));
        assert_eq!((told.to.as_deref(), told.id.as_deref()), (Some("bob@here"), Some("m1")));
        assert_eq!(
            (told.bytes, &*told.children),
            (xml.len(), &["subject", "body", "x"].map(String::from)[..])
        );
        assert!(!format!("{told:?}").contains("secret"), "{told:?}");
    }

    #[test]
    fn a_type_that_is_none_is_not_told() {
        assert_eq!(about("<message type='secret'/>").type_, None);
        assert_eq!(about("<presence type='secret'/>").type_, None);
        assert_eq!(about("<iq type='secret' id='1'/>").type_, None);
    }

    #[test]
    fn an_error_is_told_by_its_condition() {
        let told = about(
            "<iq type='error' id='1'><query xmlns='a:b'/><error type='cancel'><item-not-found \
             xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/><text \
             xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'>secret</text></error></iq>",
        );
        assert_eq!(told.condition, Some(StanzaCondition::ItemNotFound));
    }

    #[test]
    fn what_is_long_is_cut_and_what_is_many_too() {
        let told =
            about(&format!("<message id='{}'>{}</message>", "ä".repeat(100), "<a/>".repeat(9)));
        assert_eq!(told.id.unwrap().chars().count(), ID_MAX + 1);
        assert_eq!(told.children.len(), CHILDREN_MAX + 1);
    }
}
