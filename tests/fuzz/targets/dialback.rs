//! An element of Server Dialback (XEP-0220), as a peer sends it on a stream that binds the prefix `db`.
//!
//! Promised: nothing panics; what was read has domains for addresses and bounded texts, and reads the same when it is
//! written; a key holds for what it was made for, and what a peer sends is not taken for one.

use corefire::stream::dialback::{Dialback, DialbackSecret, ID_BYTES_MAX, KEY_BYTES_MAX};
use corefire::xmpp::stanza::Stanza;
use corefire::xmpp::xml::framer::XmlLimits;
use corefire::xmpp::xml::reader::{Index, StreamContext, read, read_header};

const HEADER: &str = "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";

pub(crate) fn dialback(data: &[u8]) {
    let header = read_header(HEADER.as_bytes(), &XmlLimits::default()).expect("a sound header");
    let Some(element) = element(data, &header.context) else { return };
    let mut written = Vec::new();
    element.write(&mut written);
    let again = self::element(&written, &header.context);
    assert_eq!(again.as_ref(), Some(&element), "{}", String::from_utf8_lossy(&written));
    let (Dialback::Ask { from, to, .. }
    | Dialback::Answer { from, to, .. }
    | Dialback::Verify { from, to, .. }
    | Dialback::Verified { from, to, .. }) = &element;
    assert!(from.local().is_none() && to.local().is_none());
    if let Dialback::Ask { key, .. } | Dialback::Verify { key, .. } = &element {
        assert!(!key.is_empty() && key.len() <= KEY_BYTES_MAX);
        let secret = DialbackSecret::new(b"of the fuzz");
        assert!(!secret.holds(from.as_str(), to.as_str(), "another id", key));
    }
    if let Dialback::Verify { id, .. } | Dialback::Verified { id, .. } = &element {
        assert!(id.len() <= ID_BYTES_MAX);
        let secret = DialbackSecret::new(b"of the fuzz");
        let key = secret.key(from.as_str(), to.as_str(), id);
        assert!(secret.holds(from.as_str(), to.as_str(), id, &key));
        assert!(!secret.holds(from.as_str(), to.as_str(), &format!("{id}x"), &key));
    }
}

fn element(data: &[u8], context: &StreamContext) -> Option<Dialback> {
    let mut index = Index::default();
    read(data, context, &XmlLimits::default(), &mut index).ok()?;
    let stanza = Stanza { bytes: data, index: &index };
    if !Dialback::is(&stanza) {
        return None;
    }
    Dialback::read(&stanza).ok()
}
