//! Privacy lists (XEP-0016) as far as they are block lists (XEP-0191): both servers that write XEP-0227 keep a block list so.

use super::PRIVACY;
use crate::xmpp::jid::Jid;
use crate::xmpp::xml::element::Element;

/// The name of the list that is written for a block list.
const LIST: &str = "Blocked contacts";

/// What there is in an account's privacy lists.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lists {
    pub(super) blocked: Vec<Jid>,
    /// Lists and items that no block list can stand for.
    pub(super) left_out: u64,
    /// What is no address.
    pub(super) faults: Vec<String>,
}

/// The default list is in force for all sessions, as a block list is: what denies everything from and to an address is
/// taken over, as long as nothing before it allows more.
pub(super) fn read(query: &Element) -> Lists {
    let mut lists = Lists::default();
    let default = query.child(PRIVACY, "default").and_then(|it| it.attr("name"));
    for list in query.children().filter(|child| child.is(PRIVACY, "list")) {
        if default.is_none() || list.attr("name") != default {
            lists.left_out += 1;
            continue;
        }
        let mut items: Vec<&Element> =
            list.children().filter(|child| child.is(PRIVACY, "item")).collect();
        let order = |item: &Element| item.attr("order").and_then(|it| it.parse::<u64>().ok());
        items.sort_by_key(|item| order(item).unwrap_or(u64::MAX));
        let mut allowed = false;
        for item in items {
            let denies = item.attr("action") == Some("deny");
            let is_of_address = item.attr("type") == Some("jid");
            let of_everything = item.children().next().is_none();
            if !denies && item.attr("type").is_none() && of_everything {
                // The end of the list, which says what holds without it as well.
                break;
            }
            if !denies || !is_of_address || !of_everything || allowed {
                allowed |= !denies;
                lists.left_out += 1;
                continue;
            }
            let value = item.attr("value").unwrap_or_default();
            match Jid::parse(value) {
                Ok(jid) => lists.blocked.push(jid),
                Err(fault) => {
                    lists
                        .faults
                        .push(format!("{value:?} in a privacy list is no address: {fault}"));
                }
            }
        }
    }
    lists
}

/// A block list as the default privacy list.
pub(super) fn write(blocked: &[Box<str>]) -> Element {
    let mut list = Element::new("list", PRIVACY).with_attr("name", LIST);
    for (order, address) in blocked.iter().enumerate() {
        let item = Element::new("item", PRIVACY)
            .with_attr("type", "jid")
            .with_attr("value", &**address)
            .with_attr("action", "deny")
            .with_attr("order", order.to_string());
        list = list.with_child(item);
    }
    let default = Element::new("default", PRIVACY).with_attr("name", LIST);
    Element::new("query", PRIVACY).with_child(default).with_child(list)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::xmpp::xml::context::StreamContext;
    use crate::xmpp::xml::framer::XmlLimits;

    fn read_text(items: &str) -> Lists {
        let text = format!(
            "<query xmlns='jabber:iq:privacy'><default name='a'/><list name='a'>{items}</list></query>"
        );
        let query =
            Element::parse(text.as_bytes(), &StreamContext::client(), &XmlLimits::PASSED).unwrap();
        read(&query)
    }

    fn blocked(lists: &Lists) -> Vec<String> {
        lists.blocked.iter().map(Jid::to_string).collect()
    }

    #[test]
    fn a_block_list_reads_back_as_it_was_written() {
        let lists = read(&write(&["a@b".into(), "spam.example".into()]));
        assert_eq!(
            (blocked(&lists), lists.left_out),
            (vec!["a@b".into(), "spam.example".into()], 0)
        );
    }

    #[test]
    fn what_is_more_than_a_block_list_is_counted_and_nothing_is_blocked_that_was_allowed() {
        let deny = "<item type='jid' value='a@b' action='deny' order='2'/>";
        let lists = read_text(deny);
        assert_eq!((blocked(&lists).len(), lists.left_out), (1, 0));
        let lists =
            read_text(&format!("{deny}<item type='jid' value='a@b' action='allow' order='1'/>"));
        assert_eq!((blocked(&lists).len(), lists.left_out), (0, 2), "by its order");
        let lists = read_text(&format!("<item action='allow' order='1'/>{deny}"));
        assert_eq!((blocked(&lists).len(), lists.left_out), (0, 0), "never reached");
        let part = "<item type='jid' value='a@b' action='deny' order='1'><message/></item>";
        assert_eq!((read_text(part).blocked.len(), read_text(part).left_out), (0, 1));
        let group = "<item type='group' value='x' action='deny' order='1'/>";
        assert_eq!((read_text(group).blocked.len(), read_text(group).left_out), (0, 1));
        let bad = read_text("<item type='jid' value='@' action='deny' order='1'/>");
        assert_eq!((bad.blocked.len(), bad.faults.len()), (0, 1));
    }

    #[test]
    fn a_list_that_is_not_in_force_is_left_out() {
        let mut query = write(&["a@b".into()]);
        query.children.remove(0);
        let lists = read(&query);
        assert_eq!((lists.blocked.len(), lists.left_out), (0, 1));
    }
}
