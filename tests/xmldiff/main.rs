//! Differential XML: what we forward is read by two parsers that are not ours to the tree that was sent.
//!
//! Stanzas are generated and mutated by the million. Of each that our reader accepts, on a client's or a component's
//! stream, roxmltree and xml-rs must read (1) what came in and (2) what goes out: stamped with addresses, in the
//! client's namespace, with a stanza id and a delay behind it. quick-xml has no say: it builds our own trees.
//!
//! `cargo test` replays `tests/corpus/xml-diff` and runs some thousand cases; `tools/campaign xml-diff --minutes M` runs
//! for as long as it is told, from a fresh seed. A failure prints its case; its file in the corpus is the header, a line
//! feed, and the stanza.

mod generate;
mod parsers;

use corefire::xmpp::ns;
use corefire::xmpp::stanza::{Stanza, write_stamped};
use corefire::xmpp::xml::element::{AttrName, Element, Node};
use corefire::xmpp::xml::framer::XmlLimits;
use corefire::xmpp::xml::reader::{Index, read, read_header};
use std::time::{Duration, Instant};

const CLIENT_HEADER: &str =
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const FROM: &str = "o'brien&co@here/<\u{1f600}>";
const TO: &str = "bob@here";
/// What the server puts behind the content of a message (XEP-0359, XEP-0203).
const APPENDED: &str = "<stanza-id xmlns='urn:xmpp:sid:0' by='bob@here' id='1ca11815f4b8436a'/>\
    <delay xmlns='urn:xmpp:delay' from='here' stamp='2026-01-01T00:00:00Z'/>";

/// Cases of a run without a time.
const CASES: u64 = 5_000;

#[derive(Debug, Default)]
struct Counts {
    cases: u64,
    /// Accepted by our reader, so compared as they came.
    accepted: u64,
    /// Stanzas among them, compared as they go out.
    forwarded: u64,
    /// Of those, written anew through a tree.
    rewritten: u64,
}

/// One case: a stream header and one first-level element behind it.
///
/// - errors: what differs
fn check(header: &str, text: &str, index: &mut Index, counts: &mut Counts) -> Result<(), String> {
    counts.cases += 1;
    let limits = XmlLimits::default();
    let Ok(opened) = read_header(header.as_bytes(), &limits) else { return Ok(()) };
    if parsers::is_out_of_reach(text)
        || read(text.as_bytes(), &opened.context, &limits, index).is_err()
    {
        return Ok(());
    }
    counts.accepted += 1;
    let sent = parsers::both(header, text)?;
    let stanza = Stanza { bytes: text.as_bytes(), index };
    if stanza.kind().is_none() {
        return Ok(());
    }
    counts.forwarded += 1;
    counts.rewritten += u64::from(index.needs_rewrite());
    let mut out = Vec::new();
    let (open_end, close_start) = write_stamped(&mut out, &stanza, Some(FROM), Some(TO));
    let out = String::from_utf8(out).map_err(|_| "not UTF-8".to_owned())?;
    let expected = expected(sent, opened.context.content());
    let read = parsers::both(CLIENT_HEADER, &out)?;
    if read != expected {
        return Err(format!("forwarded as {out:?}\nis {read:?}\nand not {expected:?}"));
    }
    // The offsets are those by which the server adds to a stanza.
    let (open_end, close_start) = (open_end as usize, close_start as usize);
    if !out[..open_end].ends_with('>') || !out[close_start..].starts_with("</") {
        return Err(format!("wrong offsets {open_end} {close_start} in {out:?}"));
    }
    let longer = format!("{}{APPENDED}{}", &out[..close_start], &out[close_start..]);
    let read = parsers::both(CLIENT_HEADER, &longer)?;
    let appended = parsers::both(CLIENT_HEADER, &format!("<message>{APPENDED}</message>"))?;
    let mut expected = expected;
    expected.children.extend(appended.children);
    if read != expected {
        return Err(format!("with appended elements {longer:?}\nis {read:?}"));
    }
    Ok(())
}

/// What a tree is after the server has forwarded it.
fn expected(mut sent: Element, content: &str) -> Element {
    fn rename(element: &mut Element, content: &str) {
        if element.namespace == content {
            ns::CLIENT.clone_into(&mut element.namespace);
        }
        for child in &mut element.children {
            if let Node::Element(child) = child {
                rename(child, content);
            }
        }
    }
    rename(&mut sent, content);
    sent.attributes
        .retain(|(name, _)| !name.namespace.is_empty() || name.name != "from" && name.name != "to");
    sent.attributes.push((AttrName::from("from"), FROM.to_owned()));
    sent.attributes.push((AttrName::from("to"), TO.to_owned()));
    parsers::in_order(&mut sent);
    sent
}

fn run(seed: u64, goes_on: impl Fn(u64) -> bool) -> Counts {
    let mut counts = Counts::default();
    let mut index = Index::default();
    let mut generator = generate::Generator::new(seed);
    while goes_on(counts.cases) {
        let (header, text) = generator.case();
        if let Err(difference) = check(&header, &text, &mut index, &mut counts) {
            panic!("seed {seed}, case {}\n{header}\n{text:?}\n{difference}", counts.cases);
        }
    }
    counts
}

/// With `COREFIRE_XML_SECONDS`, as long as that, from the time of day.
#[test]
fn generated_stanzas_are_read_alike_as_sent_and_as_forwarded() {
    let seconds = std::env::var("COREFIRE_XML_SECONDS").ok().and_then(|text| text.parse().ok());
    let counts = match seconds {
        None => run(1, |cases| cases < CASES),
        Some(seconds) => {
            let until = Instant::now() + Duration::from_secs(seconds);
            let epoch = std::time::SystemTime::UNIX_EPOCH;
            let seed = epoch.elapsed().map_or(1, |time| time.as_secs());
            run(seed, |cases| !cases.is_multiple_of(256) || Instant::now() < until)
        }
    };
    eprintln!(
        "xml-diff: cases={} accepted={} forwarded={} rewritten={} differences=0",
        counts.cases, counts.accepted, counts.forwarded, counts.rewritten
    );
    // Else it would say little.
    assert!(counts.accepted * 10 > counts.cases, "{counts:?}");
    assert!(counts.accepted * 10 < counts.cases * 9, "{counts:?}");
    assert!(counts.forwarded * 2 > counts.accepted, "{counts:?}");
    assert!(counts.rewritten * 20 > counts.forwarded, "{counts:?}");
}

#[test]
fn corpus_replays() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/xml-diff");
    let (mut counts, mut index) = (Counts::default(), Index::default());
    for entry in std::fs::read_dir(folder).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let case = std::fs::read_to_string(&path).expect("a file");
        let (header, text) = case.split_once('\n').expect("a header and a stanza");
        if let Err(difference) = check(header, text, &mut index, &mut counts) {
            panic!("{}: {difference}", path.display());
        }
    }
    assert!(counts.cases >= 5, "{counts:?}");
}

/// What must not pass unseen: the check itself.
#[test]
fn a_difference_is_told() {
    let agreed = |text: &str| parsers::both(CLIENT_HEADER, text);
    assert!(agreed("<a><b></a>").is_err());
    assert!(agreed("<a xmlns:p='u' xmlns:q='u' p:x='1' q:x='2'/>").is_err());
    assert_ne!(agreed("<a>x</a>"), agreed("<a>y</a>"));
    assert_ne!(agreed("<a xmlns='u'/>"), agreed("<a/>"));
    assert_eq!(agreed("<a b='1' c='2'/>"), agreed("<a c='2' b='1'></a>"));
    assert_eq!(agreed("<a>&#65;<![CDATA[&]]></a>"), agreed("<a>A&amp;</a>"));
}
