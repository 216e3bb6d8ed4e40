//! A peer that the test plays, in the words of the protocol.

use crate::rig::{Rig, Wish};
use corefire::federation::{ConnId, PeerTls};
use std::time::Duration;

pub(crate) const A: &str = "a.example";
pub(crate) const B: &str = "b.example";

/// The start of a stream.
pub(crate) fn header(from: &str, to: &str, id: &str) -> String {
    let id = if id.is_empty() { String::new() } else { format!(" id='{id}'") };
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
         xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback' \
         from='{from}' to='{to}'{id} version='1.0'>"
    )
}

pub(crate) const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
pub(crate) const PROCEED: &str = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
pub(crate) const EXTERNAL: &str = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL\
    </mechanism></mechanisms>";
pub(crate) const DIALBACK: &str =
    "<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>";
pub(crate) const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";

pub(crate) fn features(what: &str) -> String {
    format!("<stream:features>{what}</stream:features>")
}

/// B comes to A and has shaken hands; its stream is open.
pub(crate) fn comes(rig: &mut Rig, tls: PeerTls) -> ConnId {
    let conn = rig.accept("192.0.2.7:4000");
    rig.hear(conn, &header(B, A, ""));
    let said = rig.said(conn);
    assert!(said.contains("<starttls"), "{said}");
    assert!(!said.contains("dialback/") && !said.contains("EXTERNAL"), "TLS first: {said}");
    rig.hear(conn, STARTTLS);
    assert!(rig.said(conn).contains("<proceed"));
    assert_eq!(rig.shake(tls), conn);
    rig.hear(conn, &header(B, A, ""));
    conn
}

/// B comes and is believed by its certificate.
pub(crate) fn authenticated(rig: &mut Rig) -> ConnId {
    let conn = comes(rig, crate::certs::valid(B));
    let said = rig.said(conn);
    assert!(said.contains("EXTERNAL"), "{said}");
    rig.hear(conn, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>");
    assert!(rig.said(conn).contains("<success"));
    rig.hear(conn, &header(B, A, ""));
    let said = rig.said(conn);
    assert!(said.contains("<stream:features>"), "{said}");
    conn
}

/// A goes to B, as far as the features behind the handshake; gives what A said to them.
pub(crate) fn goes(rig: &mut Rig, tls: PeerTls, offers: &str) -> (ConnId, String) {
    rig.resolve(B, "b.example:5269");
    let conn = rig.connect(0, None);
    let said = rig.said(conn);
    assert!(said.contains("from='a.example' to='b.example'"), "{said}");
    rig.hear(conn, &header(B, A, "s0"));
    rig.hear(conn, &features(STARTTLS));
    assert_eq!(rig.said(conn), STARTTLS);
    rig.hear(conn, PROCEED);
    rig.shake(tls);
    assert!(rig.said(conn).contains("<stream:stream"));
    rig.hear(conn, &header(B, A, "s1"));
    rig.hear(conn, &features(offers));
    let said = rig.said(conn);
    (conn, said)
}

/// A goes to B and is believed by dialback.
pub(crate) fn goes_by_dialback(rig: &mut Rig) -> ConnId {
    let (conn, said) = goes(rig, crate::certs::self_signed(B), DIALBACK);
    assert!(said.contains("<db:result from='a.example' to='b.example'>"), "{said}");
    rig.hear(conn, "<db:result from='b.example' to='a.example' type='valid'/>");
    conn
}

/// The id of the ping that is the last thing in what was said.
pub(crate) fn ping_id(said: &str) -> String {
    let at = said.rfind("<iq type='get' id='").unwrap_or_else(|| panic!("no ping in {said}"));
    said[at..].split('\'').nth(3).unwrap().to_owned()
}

pub(crate) const SM: &str = "<sm xmlns='urn:xmpp:sm:3'/>";

/// A goes to B by its certificate, with XEP-0198 on offer; gives what A said last.
pub(crate) fn managed(rig: &mut Rig) -> (ConnId, String) {
    let (conn, said) = goes(rig, crate::certs::valid(B), EXTERNAL);
    assert!(said.contains("<auth"), "{said}");
    rig.hear(conn, SUCCESS);
    rig.said(conn);
    rig.hear(conn, &header(B, A, "s2"));
    rig.hear(conn, &features(SM));
    let said = rig.said(conn);
    (conn, said)
}

/// The first stream, which can be taken up again.
pub(crate) fn enabled(rig: &mut Rig) -> (ConnId, String) {
    let (conn, said) = managed(rig);
    assert_eq!(said, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    rig.hear(conn, "<enabled xmlns='urn:xmpp:sm:3' id='name' resume='true' max='60'/>");
    let said = rig.said(conn);
    (conn, said)
}

pub(crate) fn send(rig: &mut Rig, ids: &[&str]) {
    for id in ids {
        rig.message("x@a.example/1", "y@b.example", id);
    }
}

/// Time until the next look-up is wanted.
pub(crate) fn again(rig: &mut Rig) {
    rig.advance(Duration::from_secs(3));
    rig.wishes.retain(|wish| matches!(wish, Wish::Resolve(..)));
}

pub(crate) fn bodies(said: &str) -> Vec<&str> {
    said.split("<body>").skip(1).filter_map(|rest| rest.split('<').next()).collect()
}
