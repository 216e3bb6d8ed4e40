//! Body of the fuzz target `xml`: any bytes as a stream, in any cuts.
//!
//! Plain functions, so that the fuzzer and the replay of the corpus on stable call the same code.

use corefire::xmpp::stanza::{Stanza, write_stamped};
use corefire::xmpp::stream_error::StreamCondition;
use corefire::xmpp::xml::element::Element;
use corefire::xmpp::xml::framer::{Framer, Step, XmlLimits};
use corefire::xmpp::xml::reader::{Index, StreamContext, read, read_header};

/// Small limits, so that short inputs reach them.
pub(crate) fn limits() -> XmlLimits {
    XmlLimits {
        stanza_bytes_max: 2048,
        depth_max: 12,
        header_bytes_max: 512,
        ..XmlLimits::default()
    }
}

/// One step, with the bytes it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Open(Vec<u8>),
    Stanza(Vec<u8>),
    Close,
    Error(StreamCondition),
}

/// Frames `bytes` as they would arrive in pieces of the sizes that `cuts` gives, which is asked again and again.
pub(crate) fn frame(
    bytes: &[u8],
    limits: &XmlLimits,
    drops: bool,
    mut cuts: impl FnMut() -> usize,
) -> Vec<Piece> {
    let mut framer = Framer::new();
    let mut pieces = Vec::new();
    let (mut start, mut end) = (0, 0);
    loop {
        match framer.next(&bytes[start..end], limits) {
            Ok(Step::Open(range)) => {
                pieces.push(Piece::Open(bytes[start + range.start..start + range.end].to_vec()));
                start += range.end;
                assert!(framer.is_idle());
            }
            Ok(Step::Stanza(range)) => {
                pieces.push(Piece::Stanza(bytes[start + range.start..start + range.end].to_vec()));
                start += range.end;
                assert!(framer.is_idle());
            }
            Ok(Step::Close(at)) => {
                pieces.push(Piece::Close);
                start += at;
            }
            Ok(Step::More(droppable)) => {
                assert!(bytes[start..start + droppable].iter().all(|b| b" \t\r\n".contains(b)));
                if drops {
                    start += droppable;
                }
                if end == bytes.len() {
                    return pieces;
                }
                end = (end + cuts().max(1)).min(bytes.len());
            }
            Err(error) => {
                pieces.push(Piece::Error(error.condition));
                return pieces;
            }
        }
    }
}

/// The first byte chooses the cuts, the others are the stream.
///
/// Asserts that the cuts change nothing, and that what is read is written on as the same tree, alone and with its
/// addresses stamped.
pub(crate) fn xml(data: &[u8]) {
    let Some((&seed, stream)) = data.split_first() else { return };
    let limits = limits();
    let whole = frame(stream, &limits, true, || stream.len());
    let mut state = u32::from(seed);
    let in_pieces = frame(stream, &limits, seed & 1 == 0, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) as usize % (1 + usize::from(seed >> 2))
    });
    assert_eq!(whole, in_pieces, "cuts must not change the steps");
    let mut context = StreamContext::client();
    let mut index = Index::default();
    for piece in &whole {
        match piece {
            Piece::Open(bytes) => match read_header(bytes, &limits) {
                Ok(header) => context = header.context,
                // Goes on as on a usual stream, to reach the stanzas behind a bad header.
                Err(_) => context = StreamContext::client(),
            },
            Piece::Stanza(bytes) => stanza(bytes, &context, &limits, &mut index),
            Piece::Close | Piece::Error(_) => {}
        }
    }
}

fn stanza(bytes: &[u8], context: &StreamContext, limits: &XmlLimits, index: &mut Index) {
    let result = read(bytes, context, limits, index);
    let tree = Element::parse(bytes, context, limits);
    assert_eq!(result.clone().err(), tree.clone().err(), "index and tree are of one mind");
    let (Ok(()), Ok(mut tree)) = (result, tree) else { return };
    let view = Stanza { bytes, index };
    assert_eq!((view.name(), view.namespace()), (tree.name.as_str(), tree.namespace.as_str()));
    assert_eq!(view.text(), tree.text());
    let trees: Vec<Element> = view.children().map(|child| child.to_element()).collect();
    assert!(trees.iter().eq(tree.children()), "children read alone are those of the tree");
    for child in view.children() {
        let alone = child.to_element();
        assert_eq!((child.name, child.namespace), (alone.name.as_str(), alone.namespace.as_str()));
        assert_eq!(child.text(), alone.text());
        for name in ["id", "xml:lang"] {
            assert_eq!(child.attr(name).as_deref(), alone.attr(name));
        }
    }

    let mut out = Vec::new();
    let (open_end, close_start) = write_stamped(&mut out, &view, Some("f'<&@x"), None);
    tree.remove_attr("to");
    tree.remove_attr("from");
    assert!(
        out[..open_end as usize].ends_with(b">") && out[close_start as usize..].starts_with(b"</")
    );

    // Where this goes, nothing but the content namespace and `stream` is bound.
    let plain = match context.content() {
        "jabber:server" => StreamContext::server(),
        "jabber:component:accept" => StreamContext::component(),
        _ => StreamContext::client(),
    };
    let wide = XmlLimits::default();
    let mut framer = Framer::new();
    framer.next(b"<s>", &wide).expect("a header");
    assert_eq!(framer.next(&out, &wide), Ok(Step::Stanza(0..out.len())));
    let mut again =
        Element::parse(&out, &plain, &wide).expect("what was accepted is written well-formed");
    assert_eq!(again.attr("from"), Some("f'<&@x"));
    again.remove_attr("from");
    assert_eq!(again, tree, "the stamped stanza is the same tree");
    let mut second = Index::default();
    read(&out, &plain, &wide, &mut second).expect("what was accepted reads again");
    assert!(
        !second.needs_rewrite() || index.needs_rewrite(),
        "a copy leans on no more than its original"
    );
}
