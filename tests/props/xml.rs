//! XML: cuts change nothing, writing and reading agree, and two parsers that are not ours read every accepted stanza as
//! the same tree: quick-xml, which builds the trees of the server, and roxmltree, which has no part in it.

use corefire::xmpp::ns;
use corefire::xmpp::xml::element::{AttrName, Element};
use corefire::xmpp::xml::framer::XmlLimits;
use corefire::xmpp::xml::reader::{Index, StreamContext, read};
use corefire::xmpp::xml::writer::is_xml_char;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

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

/// Stands in for the prefix `xml` of elements, which roxmltree knows only on attributes.
const STAND_IN: &str = "x-m-l";

/// The tree that roxmltree reads; `None` where it finds a fault.
fn second_reading(text: &str) -> Option<Element> {
    let header = HEADER.replace('>', &format!(" xmlns:{STAND_IN}='{STAND_IN}'>"));
    let text = text.replace("<xml:", &format!("<{STAND_IN}:"));
    let text = text.replace("</xml:", &format!("</{STAND_IN}:"));
    let document = format!("{header}{text}</stream:stream>");
    let document = roxmltree::Document::parse(&document).ok()?;
    let mut roots = document.root_element().children();
    match (roots.next(), roots.next()) {
        (Some(root), None) if root.is_element() => second_element(root),
        _ => None,
    }
}

fn second_element(node: roxmltree::Node<'_, '_>) -> Option<Element> {
    let name = node.tag_name();
    let namespace = match name.namespace() {
        Some(STAND_IN) => ns::XML,
        namespace => namespace.unwrap_or_default(),
    };
    let mut element = Element::new(name.name(), namespace);
    for attribute in node.attributes() {
        let namespace = attribute.namespace().unwrap_or_default().to_owned();
        let name = AttrName { namespace, name: attribute.name().to_owned() };
        element.attributes.push((name, attribute.value().to_owned()));
    }
    node.children().try_fold(element, |element, child| match child.node_type() {
        roxmltree::NodeType::Element => Some(element.with_child(second_element(child)?)),
        // A tag that was text in a CDATA section.
        roxmltree::NodeType::Text => {
            Some(element.with_text(&child.text()?.replace(&format!("{STAND_IN}:"), "xml:")))
        }
        _ => None,
    })
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

    /// Also: quick-xml refuses nothing that the strict check accepts.
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
