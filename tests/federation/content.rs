//! What passes between streams of `jabber:server` and frames of `jabber:client`, through the actor: the same stanza to all who
//! read it, nothing smuggled in either direction, nothing that the peer said it would not take.

use crate::certs;
use crate::peer::*;
use crate::rig::Rig;
use corefire::frame::{Flags, Kind};

const SMUGGLED: &str = "<message from='x@a.example/1' to='y@b.example' id='s'>\
    <body xmlns='jabber:server'>unseen</body></message>";

/// A stanza of a client that wants to be acknowledged.
fn send(rig: &mut Rig, text: &str) {
    let flags = Flags::STORABLE.with(Flags::WANTS_ACK).with(Flags::CONTENT);
    rig.send_flagged(text, Kind::Message, 1, flags);
}

#[test]
fn what_a_peer_sends_is_of_jabber_client_for_us() {
    let from = "from='y@b.example/1' to='x@a.example'";
    let mut rig = Rig::new(A);
    let conn = authenticated(&mut rig);
    for (sent, got) in [
        (
            format!("<message xmlns='jabber:server' {from}><body>1</body></message>"),
            format!("<message {from}><body>1</body></message>"),
        ),
        (
            format!("<message {from}><body xmlns='jabber:server'>2</body></message>"),
            format!("<message {from}><body>2</body></message>"),
        ),
        (
            format!("<s:message xmlns:s='jabber:server' {from}><s:body>3</s:body></s:message>"),
            format!("<message {from}><body>3</body></message>"),
        ),
        (
            format!(
                "<message {from}><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='jabber:client' from='z@c.example'><body>4</body></message>\
                 </forwarded></message>"
            ),
            format!(
                "<message {from}><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='jabber:client' from='z@c.example'><body>4</body></message>\
                 </forwarded></message>"
            ),
        ),
        (
            format!(
                "<message {from}><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='jabber:server'><body>5</body></message></forwarded></message>"
            ),
            format!(
                "<message {from}><forwarded xmlns='urn:xmpp:forward:0'>\
                 <message xmlns='jabber:client'><body>5</body></message></forwarded></message>"
            ),
        ),
    ] {
        rig.hear(conn, &sent);
        assert_eq!(rig.texts(), [got], "{sent}");
    }
    assert!(!rig.has_closed(conn));
}

#[test]
fn header_of_a_peer_may_bind_its_own_prefixes() {
    let mut rig = Rig::new(A);
    let conn = rig.accept("192.0.2.7:4000");
    let header = format!(
        "<stream xmlns='http://etherx.jabber.org/streams' xmlns:s='jabber:server' \
         xmlns:a='urn:ietf:params:xml:ns:xmpp-sasl' from='{B}' to='{A}' version='1.0'>"
    );
    rig.hear(conn, &header);
    rig.hear(conn, STARTTLS);
    rig.said(conn);
    rig.shake(certs::valid(B));
    rig.hear(conn, &header);
    rig.hear(conn, "<a:auth mechanism='EXTERNAL'>=</a:auth>");
    rig.hear(conn, &header);
    let said = rig.said(conn);
    assert!(said.contains("<success") && !said.contains("<stream:error>"), "{said}");
    rig.hear(conn, "<s:message from='y@b.example' to='x@a.example'><s:body>1</s:body></s:message>");
    let got = "<message from='y@b.example' to='x@a.example'><body>1</body></message>";
    assert_eq!(rig.texts(), [got]);
}

#[test]
fn other_protocols_are_no_stanzas() {
    for said in [
        "<message xmlns='jabber:client' from='y@b.example/1' to='x@a.example'/>",
        "<message xmlns='' from='y@b.example/1' to='x@a.example'/>",
        "<stream:message from='y@b.example/1' to='x@a.example'/>",
        "<message from='y@b.example/1' to='x@a.example'><stream:error/></message>",
    ] {
        let mut rig = Rig::new(A);
        let conn = authenticated(&mut rig);
        rig.hear(conn, said);
        assert!(rig.said(conn).contains("<stream:error>"), "{said}");
        assert!(rig.got.is_empty() && rig.has_closed(conn));
    }
}

#[test]
fn client_says_nothing_in_the_name_of_its_server() {
    let mut rig = Rig::new(A);
    send(&mut rig, SMUGGLED);
    rig.message("x@a.example/1", "y@b.example", "m");
    let conn = goes_by_dialback(&mut rig);
    let said = rig.said(conn);
    assert!(said.contains("<body>m</body>") && !said.contains("unseen"), "{said}");
    let texts = rig.texts();
    assert_eq!(texts.len(), 1);
    assert!(texts[0].contains("id='s'") && texts[0].contains("<bad-request"), "{}", texts[0]);
    assert!(!texts[0].contains("unseen"), "{}", texts[0]);
    assert!(rig.handled >= 1, "it was answered");
}

#[test]
fn what_is_too_large_for_the_peer_is_answered() {
    let mut rig = Rig::new(A);
    let large = format!(
        "<message from='x@a.example/1' to='y@b.example' id='l'><body>{}</body></message>",
        "x".repeat(2_000)
    );
    send(&mut rig, &large);
    rig.message("x@a.example/1", "y@b.example", "m");
    let limits = "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>1000</max-bytes></limits>";
    let offers = format!("{DIALBACK}{limits}");
    let (conn, said) = goes(&mut rig, certs::self_signed(B), &offers);
    assert!(said.contains("<db:result"), "{said}");
    rig.hear(conn, "<db:result from='b.example' to='a.example' type='valid'/>");
    let said = rig.said(conn);
    assert!(said.contains("<body>m</body>") && !said.contains("xxxx"), "{said}");
    let texts = rig.texts();
    assert_eq!(texts.len(), 1);
    assert!(texts[0].contains("<policy-violation"), "{}", texts[0]);
    assert!(!rig.has_closed(conn));
}

#[test]
fn peer_of_our_stream_sends_no_stanzas_on_it() {
    let message = "<message from='y@b.example/1' to='x@a.example'><body>hi</body></message>";
    let mut rig = Rig::new(A);
    rig.message("x@a.example/1", "y@b.example", "m");
    let conn = goes_by_dialback(&mut rig);
    rig.said(conn);
    rig.hear(conn, message);
    assert!(rig.said(conn).contains("<not-authorized"));
    assert!(rig.got.is_empty() && rig.has_closed(conn));
    // Nor where it offers to, with a certificate that proves nothing.
    let mut rig = Rig::new(A);
    rig.message("x@a.example/1", "y@b.example", "m");
    let bidi = format!("{DIALBACK}<bidi xmlns='urn:xmpp:features:bidi'/>");
    let (conn, said) = goes(&mut rig, certs::self_signed(B), &bidi);
    assert!(said.contains("<db:result") && !said.contains("<bidi"), "{said}");
    rig.hear(conn, "<db:result from='b.example' to='a.example' type='valid'/>");
    rig.hear(conn, message);
    assert!(rig.said(conn).contains("<not-authorized"));
    assert!(rig.got.is_empty());
    // With one that is valid it may, for the two domains of the stream.
    let mut rig = Rig::new(A);
    rig.message("x@a.example/1", "y@b.example", "m");
    let bidi = format!("{EXTERNAL}<bidi xmlns='urn:xmpp:features:bidi'/>");
    let (conn, said) = goes(&mut rig, certs::valid(B), &bidi);
    assert!(said.contains("<bidi xmlns='urn:xmpp:bidi'>"), "{said}");
    rig.hear(conn, SUCCESS);
    rig.hear(conn, &header(B, A, "s2"));
    rig.hear(conn, &features(""));
    rig.hear(conn, message);
    assert_eq!(rig.texts(), [message]);
    rig.hear(conn, &message.replace("y@b.example", "y@c.example"));
    assert!(rig.said(conn).contains("<invalid-from"));
    assert!(rig.got.is_empty() && rig.has_closed(conn));
}

#[test]
fn authenticated_peer_does_not_become_another() {
    let auth = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>";
    let mut rig = Rig::with(crate::rig::config("a.example z.example"), 1);
    for (from, to, condition) in
        [("c.example", A, "<invalid-from"), (B, "z.example", "<host-unknown")]
    {
        let conn = comes(&mut rig, certs::valid("b.example c.example"));
        rig.hear(conn, auth);
        rig.said(conn);
        rig.hear(conn, &header(from, to, ""));
        assert!(rig.said(conn).contains(condition), "{from} {to}");
        assert!(rig.has_closed(conn));
    }
    // It says who it is by the header, not by the message.
    let conn = comes(&mut rig, certs::valid("b.example c.example"));
    rig.said(conn);
    rig.hear(conn, &auth.replace(">=<", ">Yy5leGFtcGxl<")); // c.example
    let said = rig.said(conn);
    assert!(said.contains("<invalid-authzid/>") && !said.contains("<success"), "{said}");
    // A new stream is due behind success.
    let conn = comes(&mut rig, certs::valid(B));
    rig.hear(conn, auth);
    rig.said(conn);
    rig.hear(conn, "<message from='y@b.example' to='x@a.example'><body>1</body></message>");
    assert!(rig.said(conn).contains("<stream:error>"));
    assert!(rig.got.is_empty() && rig.has_closed(conn));
}
