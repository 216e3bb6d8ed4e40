//! Stanzas between the content namespaces: `jabber:server` on streams between servers, `jabber:client` everywhere else.
//!
//! A stanza of one is the same stanza in the other when its elements of the one content namespace are of the other. Most
//! name it nowhere, as it is the default, and are copied. What must not happen is that an element means one thing to us
//! and another to who reads it next: then it passes what we check in one meaning, and works in the other.
//!
//! - Inwards all that is `jabber:server` in a stanza becomes `jabber:client`. Whatever was `jabber:client` in it, such as
//!   a forwarded message (XEP-0297), stays so. Who judges a stanza of a peer judges what was written here.
//! - Outwards all that is `jabber:client` where the stanza's own elements are becomes `jabber:server`. What names
//!   `jabber:client` by itself, inside of a payload, stays so. What is `jabber:server` is of no use to a client and is
//!   refused: unseen by us, it would be the stanza's own for the peer.

use crate::xmpp::ns;
use crate::xmpp::stanza::{Stanza, has_attr, write_stamped};
use crate::xmpp::xml::element::Element;
use crate::xmpp::xml::framer::XmlLimits;
use crate::xmpp::xml::reader::StreamContext;
use crate::xmpp::xml::writer::write_attr;
use std::fmt;

/// A stanza of ours has elements of `jabber:server`: its sender is told `bad-request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Smuggled;

impl fmt::Display for Smuggled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("elements of jabber:server inside of a stanza")
    }
}

impl std::error::Error for Smuggled {}

/// Appends a stanza of a peer as one of `jabber:client`, with these addresses. Gives as [`write_stamped`].
///
/// - takes: a stanza that was read in the context of a stream between servers
pub fn to_client(
    out: &mut Vec<u8>,
    stanza: &Stanza<'_>,
    from: Option<&str>,
    to: Option<&str>,
) -> (u32, u32) {
    write_stamped(out, stanza, from, to)
}

/// Appends a stanza from a frame for a stream between servers.
///
/// - takes: `stanza`, as written by [`write_stamped`]; `to`, written in where the stanza has no such attribute, as frames
///   for several recipients have
/// - errors: nothing is appended then
/// - cost: one copy, and a search for the name of the other namespace
pub fn to_server(out: &mut Vec<u8>, stanza: &[u8], to: Option<&str>) -> Result<(), Smuggled> {
    if memchr::memmem::find(stanza, ns::SERVER.as_bytes()).is_some() && is_smuggling(stanza) {
        return Err(Smuggled);
    }
    let open_end = open_end(stanza);
    let open = stanza.get(..open_end).unwrap_or_default();
    match to.filter(|_| !has_attr(open, "to")) {
        None => out.extend_from_slice(stanza),
        Some(to) => {
            // `<presence/>` is `<presence to=''/>` then.
            let at = open.len() - usize::from(open.ends_with(b"/"));
            let (before, behind) = stanza.split_at(at);
            out.extend_from_slice(before);
            write_attr(out, "to", to);
            out.extend_from_slice(behind);
        }
    }
    Ok(())
}

/// Where the `>` of the root's start tag is; the whole length where there is none.
fn open_end(stanza: &[u8]) -> usize {
    let mut quote = None;
    let end = stanza.iter().position(|&byte| {
        match (quote, byte) {
            (None, b'\'' | b'"') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
        quote.is_none() && byte == b'>'
    });
    end.unwrap_or(stanza.len())
}

fn is_smuggling(stanza: &[u8]) -> bool {
    let tree = Element::parse(stanza, &StreamContext::client(), &XmlLimits::PASSED);
    // What does not read is no stanza of ours and goes nowhere.
    tree.map_or(true, |tree| has_server_element(&tree))
}

fn has_server_element(element: &Element) -> bool {
    element.namespace == ns::SERVER || element.children().any(has_server_element)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::xmpp::xml::reader::{Index, read, read_header};

    fn inwards(header: &str, xml: &str) -> String {
        let header = read_header(header.as_bytes(), &XmlLimits::default()).unwrap();
        let mut index = Index::default();
        read(xml.as_bytes(), &header.context, &XmlLimits::default(), &mut index).unwrap();
        let mut out = Vec::new();
        to_client(&mut out, &Stanza { bytes: xml.as_bytes(), index: &index }, Some("f"), Some("t"));
        String::from_utf8(out).unwrap()
    }

    fn usual(xml: &str) -> String {
        let header = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' \
             xmlns:db='jabber:server:dialback' xmlns:c='jabber:client' version='1.0'>";
        inwards(header, xml)
    }

    fn outwards(xml: &str, to: Option<&str>) -> Result<String, Smuggled> {
        let mut out = Vec::new();
        let result = to_server(&mut out, xml.as_bytes(), to);
        assert!(result.is_ok() || out.is_empty());
        result.map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn stanza_of_a_peer_is_one_of_a_client() {
        for (xml, written) in [
            (
                "<message from='x' to='y' id='1'><body>hi</body></message>",
                "<message from='f' to='t' id='1'><body>hi</body></message>",
            ),
            (
                "<message xmlns='jabber:server' id='1'/>",
                "<message from='f' to='t' id='1'></message>",
            ),
            // The namespace again, on what is inside.
            (
                "<message><body xmlns='jabber:server'>hi</body></message>",
                "<message from='f' to='t'><body>hi</body></message>",
            ),
            (
                "<message><x xmlns='u'><body xmlns='jabber:server'>hi</body></x></message>",
                "<message from='f' to='t'><x xmlns='u'><body xmlns='jabber:client'>hi</body></x></message>",
            ),
            (
                "<s:message xmlns:s='jabber:server'><s:body>hi</s:body></s:message>",
                "<message from='f' to='t'><body>hi</body></message>",
            ),
            // What was a client's stays so, and is the stanza's own where it stands as such.
            (
                "<message><f xmlns='u'><message xmlns='jabber:client'><body>a</body></message></f></message>",
                "<message from='f' to='t'><f xmlns='u'><message xmlns='jabber:client'><body>a</body></message></f></message>",
            ),
            (
                "<message><c:body>hi</c:body></message>",
                "<message from='f' to='t'><body>hi</body></message>",
            ),
            // A prefix of the header.
            (
                "<message><db:result>k</db:result></message>",
                "<message from='f' to='t'><result xmlns='jabber:server:dialback'>k</result></message>",
            ),
        ] {
            assert_eq!(usual(xml), written, "{xml}");
        }
    }

    #[test]
    fn header_may_bind_the_content_namespace_to_a_prefix() {
        let header = "<stream xmlns='http://etherx.jabber.org/streams' xmlns:s='jabber:server'>";
        assert_eq!(
            inwards(header, "<s:iq type='get'><s:x/><q xmlns='u'/></s:iq>"),
            "<iq from='f' to='t' type='get'><x/><q xmlns='u'/></iq>"
        );
    }

    #[test]
    fn stanza_of_a_client_goes_to_a_server_as_it_is() {
        for xml in [
            "<message from='a@here' to='b@there'><body>jabber:server</body></message>",
            "<message to='b@there' id='jabber:server'><x xmlns='jabber:server:dialback'/></message>",
            "<message to='x'><f xmlns='u'><message xmlns='jabber:client'/></f></message>",
        ] {
            assert_eq!(outwards(xml, Some("c@there")).as_deref(), Ok(xml));
        }
    }

    #[test]
    fn missing_recipient_is_written_in() {
        for (xml, written) in [
            ("<presence from='a'></presence>", "<presence from='a' to='&lt;b'></presence>"),
            ("<presence/>", "<presence to='&lt;b'/>"),
            (
                "<presence a='>' b=\"'>\"><x to='1'/></presence>",
                "<presence a='>' b=\"'>\" to='&lt;b'><x to='1'/></presence>",
            ),
        ] {
            assert_eq!(outwards(xml, Some("<b")).as_deref(), Ok(written));
        }
        assert_eq!(outwards("<presence/>", None).as_deref(), Ok("<presence/>"));
    }

    #[test]
    fn client_says_nothing_in_the_name_of_its_server() {
        for xml in [
            "<message><body xmlns='jabber:server'>hi</body></message>",
            "<message xmlns:s='jabber:server'><s:body>hi</s:body></message>",
            "<message><x xmlns='u'><y xmlns='jabber:server'/></x></message>",
            "<message>jabber:server<cut</message>",
        ] {
            assert_eq!(outwards(xml, None), Err(Smuggled), "{xml}");
        }
    }
}
