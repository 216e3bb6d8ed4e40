//! XML: cuts change nothing, writing and reading agree, and a second parser reads every accepted stanza as the same
//! tree.

use corefire::xmpp::ns;
use corefire::xmpp::xml::element::{AttrName, Element, Node};
use corefire::xmpp::xml::framer::XmlLimits;
use corefire::xmpp::xml::reader::{Index, StreamContext, read};
use corefire::xmpp::xml::writer::is_xml_char;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use quick_xml::NsReader;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{Namespace, ResolveResult};

#[path = "../fuzz/targets/xml.rs"]
mod target;

const HEADER: &str = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:h='u:h'>";

/// Bits of XML that, strung together, are often nearly right.
const BITS: &[&str] = &[
    "<",
    ">",
    "/",
    "</",
    "/>",
    "<a>",
    "</a>",
    "<a",
    "<b>",
    "</b>",
    "<b/>",
    "<p:a",
    "</p:a>",
    "<h:x/>",
    "<message>",
    "</message>",
    "<message",
    "<1>",
    "<:a/>",
    "<a:>",
    " ",
    "\n",
    "\t",
    "\r\n",
    " b='1'",
    " b=\"2\"",
    "c='3'",
    " p:b='1'",
    " q:b='1'",
    " xmlns='u:1'",
    " xmlns='jabber:client'",
    " xmlns=''",
    " xmlns:p='u:p'",
    " xmlns:q='u:p'",
    " xmlns:q='u&#58;p'",
    " xmlns:p=''",
    " h:b='1'",
    " xml:lang='de'",
    " to='x'",
    " b='<'",
    " b='&'",
    " b='a\tb'",
    "'",
    "\"",
    "=",
    "x",
    "é",
    "\u{1f600}",
    "]]",
    "]]>",
    "]",
    "&amp;",
    "&lt;",
    "&#65;",
    "&#0;",
    "&#xFFFF;",
    "&nope;",
    "&",
    ";",
    "<![CDATA[",
    "<![CDATA[x<&]]>",
    "<!",
    "<!--",
    "-->",
    "<?x?>",
    "<?xml version='1.0'?>",
    "<!DOCTYPE a>",
    "\u{0}",
    "\u{1}",
    "\u{fffe}",
    "\u{feff}",
    "<stream:x/>",
    "</stream:stream>",
];

/// Mostly matched elements, sometimes with a stray bit in them.
fn nearly_xml() -> impl Strategy<Value = String> {
    let name = select(&["a", "b", "p:a", "message", "é", "q:b", "h:x", "xml:y"][..]);
    let attrs = || {
        vec(
            select(
                &[
                    " b='1'",
                    " c=\"'>\"",
                    " p:b='&lt;'",
                    " q:b = 'x'",
                    " xmlns='u:1'",
                    " xmlns=''",
                    " xmlns:p='u:p'",
                    " xmlns:q='u:q'",
                    " xmlns:q='u:p'",
                    " xmlns='jabber:client'",
                    " xml:lang='de'",
                    " d='a\tb\r\nc&#10;'",
                    " h:b='1'",
                    " from='x'",
                    " xmlns:p='u&amp;p'",
                    "\n",
                ][..],
            ),
            0..4,
        )
    };
    let leaf = prop_oneof![
        8 => select(&["text", "&amp;&#65;", "<![CDATA[<x>&]]]]>", "\r\n", "]]", " > ", "é\u{1f600}"][..]).prop_map(str::to_owned),
        1 => select(BITS).prop_map(str::to_owned),
    ];
    let tree = leaf.prop_recursive(4, 24, 4, move |inner| {
        (name.clone(), attrs(), vec(inner, 0..4)).prop_map(|(name, attrs, children)| {
            let (attrs, children) = (attrs.concat(), children.concat());
            if children.is_empty() {
                format!("<{name}{attrs}/>")
            } else {
                format!("<{name}{attrs}>{children}</{name} >")
            }
        })
    });
    (vec(tree, 0..4), select(&["", " xmlns:p='u:p'", " xmlns:p='u:p' xmlns:q='u:q'"][..])).prop_map(
        |(children, declared)| format!("<message{declared}>{}</message>", children.concat()),
    )
}

fn soup() -> impl Strategy<Value = String> {
    vec(select(BITS), 0..12).prop_map(|bits| bits.concat())
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![3 => nearly_xml(), 1 => soup(), 1 => Just("<iq/>".to_owned()), 1 => Just(" \n".to_owned())];
    let header =
        prop_oneof![8 => Just(HEADER), 1 => Just(""), 1 => Just("<?xml version='1.0'?>\n<s>")];
    let flips = vec((any::<prop::sample::Index>(), any::<u8>()), 0..3);
    (header, vec(part, 0..5), flips).prop_map(|(header, parts, flips)| {
        let mut bytes = format!("{header}{}", parts.concat()).into_bytes();
        for (at, byte) in flips {
            // One in four streams keeps all of its bytes, on average.
            if byte & 3 == 0 && !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte >> 1;
            }
        }
        bytes
    })
}

fn xml_text() -> impl Strategy<Value = String> {
    let odd = select(
        &[
            '\t', '\n', '\r', '&', '<', '>', '\'', '"', ']', '\u{7f}', '\u{85}', '\u{2028}',
            '\u{feff}', '\u{fffd}', '\u{ffef}',
        ][..],
    );
    vec(
        prop_oneof![any::<char>().prop_filter("a character of XML", |c| is_xml_char(*c)), odd],
        0..20,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

fn element() -> impl Strategy<Value = Element> {
    let name = || select(&["a", "body", "x.y-z_0", "é"][..]);
    let namespace = || {
        prop_oneof![
            4 => select(&["", ns::CLIENT, "u:1", "u:2", "u:'&<\t\u{1f600}"][..]).prop_map(str::to_owned),
            1 => Just(ns::XML.to_owned()),
        ]
    };
    let attrs = || vec((namespace(), name(), xml_text()), 0..4);
    let plain = (name(), namespace(), attrs())
        .prop_map(|(name, namespace, attrs)| {
            let mut element = Element::new(name, &namespace);
            for (namespace, name, value) in attrs {
                let name = AttrName { namespace, name: name.to_owned() };
                if element.attributes.iter().all(|(known, _)| *known != name) {
                    element.attributes.push((name, value));
                }
            }
            element
        })
        .boxed();
    plain.clone().prop_recursive(4, 20, 4, move |inner| {
        let child = prop_oneof![inner.prop_map(Ok), xml_text().prop_map(Err)];
        (plain.clone(), vec(child, 0..4)).prop_map(|(element, children)| {
            children.into_iter().fold(element, |element, child| match child {
                Ok(child) => element.with_child(child),
                Err(text) => element.with_text(&text),
            })
        })
    })
}

/// The tree that quick-xml reads; `None` where it finds a fault.
fn second_reading(text: &str) -> Option<Element> {
    let document = format!("{HEADER}{text}</stream:stream>");
    let mut reader = NsReader::from_str(&document);
    reader.config_mut().enable_all_checks(true);
    let mut open: Vec<Element> = Vec::new();
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) => open.push(second_element(&reader, &tag)?),
            Event::Empty(tag) => {
                let element = second_element(&reader, &tag)?;
                open.last_mut()?.children.push(Node::Element(element));
            }
            Event::End(_) => {
                let element = open.pop()?;
                match open.last_mut() {
                    Some(parent) => parent.children.push(Node::Element(element)),
                    None => {
                        return match element.children.into_iter().next() {
                            Some(Node::Element(root)) => Some(root),
                            _ => None,
                        };
                    }
                }
            }
            Event::Text(text) => push(open.last_mut()?, &text.xml10_content()),
            Event::CData(text) => push(open.last_mut()?, &text.xml10_content()),
            Event::GeneralRef(reference) => {
                let reference = format!("&{};", &*reference.into_inner());
                push(open.last_mut()?, &quick_xml::escape::unescape(&reference).ok()?);
            }
            _ => return None,
        }
    }
}

fn push(element: &mut Element, text: &str) {
    *element = std::mem::take(element).with_text(text);
}

fn second_element(reader: &NsReader<&[u8]>, tag: &BytesStart<'_>) -> Option<Element> {
    let (namespace, name) = reader.resolver().resolve_element(tag.name());
    let mut element = Element::new(name.as_ref(), &second_namespace(namespace)?);
    for attribute in tag.attributes() {
        let attribute = attribute.ok()?;
        if attribute.key.as_namespace_binding().is_some() {
            continue;
        }
        let (namespace, name) = reader.resolver().resolve_attribute(attribute.key);
        let name =
            AttrName { namespace: second_namespace(namespace)?, name: name.as_ref().to_owned() };
        let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).ok()?;
        element.attributes.push((name, value.into_owned()));
    }
    Some(element)
}

fn second_namespace(resolved: ResolveResult<'_>) -> Option<String> {
    match resolved {
        ResolveResult::Unbound => Some(String::new()),
        // It leaves the name as it was sent.
        ResolveResult::Bound(Namespace(raw)) => {
            let spaced = raw.replace("\r\n", " ").replace(['\t', '\n', '\r'], " ");
            Some(quick_xml::escape::unescape(&spaced).ok()?.into_owned())
        }
        ResolveResult::Unknown(_) => None,
    }
}

/// The stream that [`HEADER`] opens.
fn context() -> StreamContext {
    let header = corefire::xmpp::xml::reader::read_header(HEADER.as_bytes(), &XmlLimits::default());
    header.expect("a header").context
}

fn assert_second_reading_agrees(text: &str) {
    if let Ok(tree) = Element::parse(text.as_bytes(), &context(), &XmlLimits::default()) {
        assert_eq!(second_reading(text), Some(tree), "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn steps_are_the_same_for_any_cut(stream in stream(), cuts in vec(1usize..40, 1..20), drops in any::<bool>()) {
        let limits = target::limits();
        let whole = target::frame(&stream, &limits, true, || stream.len());
        let mut cuts = cuts.iter().copied().cycle();
        prop_assert_eq!(&whole, &target::frame(&stream, &limits, drops, || cuts.next().unwrap_or(1)));
        prop_assert_eq!(&whole, &target::frame(&stream, &limits, drops, || 1));
    }

    #[test]
    fn any_stream_passes_the_fuzz_target(seed in any::<u8>(), stream in stream()) {
        let mut data = vec![seed];
        data.extend(stream);
        target::xml(&data);
    }

    #[test]
    fn elements_are_read_as_they_were_written(element in element()) {
        let mut out = Vec::new();
        element.write(&mut out, ns::CLIENT);
        let read = Element::parse(&out, &StreamContext::client(), &XmlLimits::default());
        prop_assert_eq!(read, Ok(element));
    }

    #[test]
    fn written_elements_are_read_alike_by_a_second_parser(element in element()) {
        let mut out = Vec::new();
        element.write(&mut out, ns::CLIENT);
        let text = String::from_utf8(out).expect("UTF-8");
        assert_second_reading_agrees(&text);
    }

    #[test]
    fn accepted_stanzas_are_read_alike_by_a_second_parser(text in prop_oneof![3 => nearly_xml(), 1 => soup()]) {
        assert_second_reading_agrees(&text);
    }

    #[test]
    fn index_and_tree_accept_the_same(text in prop_oneof![3 => nearly_xml(), 1 => soup()]) {
        let (context, limits) = (context(), XmlLimits::default());
        let index = read(text.as_bytes(), &context, &limits, &mut Index::default());
        prop_assert_eq!(index.err(), Element::parse(text.as_bytes(), &context, &limits).err());
    }
}

#[test]
fn nearly_xml_is_often_accepted() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let accepted = (0..500)
        .filter(|_| {
            let text = nearly_xml().new_tree(&mut runner).expect("a tree").current();
            Element::parse(text.as_bytes(), &context(), &XmlLimits::default()).is_ok()
        })
        .count();
    assert!(
        (50..450).contains(&accepted),
        "the other properties would say little: {accepted} of 500"
    );
}

#[test]
fn corpus_replays() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/xml");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("the corpus") {
        let mut data = std::fs::read(entry.expect("an entry").path()).expect("a file");
        for seed in [0, 1, 7, 40, 255] {
            if let Some(first) = data.first_mut() {
                *first = seed;
            }
            target::xml(&data);
        }
        count += 1;
    }
    assert!(count >= 40, "{count} files");
}
