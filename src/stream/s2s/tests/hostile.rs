//! Peers that break the rules, or that somebody on the way has changed.

use super::side::{Cut, Side, pair, talk};
use crate::stream::s2s::reader::READ_BYTES_MAX;
use crate::stream::s2s::{Offer, S2sStream};
use crate::xmpp::stream_error::StreamCondition as C;

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
     xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams' \
     from='here.example' to='there.example' version='1.0'>";
const ANSWER: &str = "<stream:stream xmlns='jabber:server' xmlns:db='jabber:server:dialback' \
     xmlns:stream='http://etherx.jabber.org/streams' from='there.example' to='here.example' \
     id='i' version='1.0'>";
const FEATURES: &str = "<stream:features><mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>\
     <mechanism>EXTERNAL</mechanism></mechanisms></stream:features>";
const AUTH: &str = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>";
const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const MESSAGE: &str = "<message from='a@here.example' to='b@there.example'/>";

/// A receiving side that was told these things over TLS.
fn told(parts: &[&str]) -> Side {
    let mut side = Side::receiving(true);
    parts.iter().for_each(|part| side.take(part.as_bytes()));
    side
}

/// As `told`, authenticated by a certificate first.
fn told_authenticated(parts: &[&str]) -> Side {
    told(&[&[HEADER, AUTH, HEADER], parts].concat())
}

/// An initiating side that got these answers.
fn answered(secure: bool, parts: &[&str]) -> Side {
    let mut side = Side::initiating(secure);
    side.out.clear();
    parts.iter().for_each(|part| side.take(part.as_bytes()));
    side
}

#[test]
fn stripped_starttls_ends_the_stream() {
    let side = answered(false, &[ANSWER, FEATURES]);
    assert_eq!(side.events, ["no-tls"]);
    assert!(side.out.is_empty(), "nothing is sent without TLS");
    let side = answered(false, &[ANSWER, "<stream:features/>"]);
    assert_eq!(side.events, ["no-tls"]);
    let failure = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>";
    let offered = format!("<stream:features>{STARTTLS}</stream:features>");
    let side = answered(false, &[ANSWER, &offered, failure]);
    assert_eq!(side.events, ["no-tls"]);
}

#[test]
fn nothing_but_starttls_without_tls() {
    for (said, condition) in [
        (MESSAGE, C::NotAuthorized),
        ("<db:result from='here.example' to='there.example'>k</db:result>", C::PolicyViolation),
        (
            "<db:verify id='1' from='here.example' to='there.example'>k</db:verify>",
            C::PolicyViolation,
        ),
        ("<bidi xmlns='urn:xmpp:bidi'/>", C::NotAuthorized),
        ("<enable xmlns='urn:xmpp:sm:3'/>", C::NotAuthorized),
    ] {
        let mut side = Side::receiving(false);
        side.take(HEADER.as_bytes());
        assert!(side.said().contains("<required/>"));
        assert!(!side.said().contains("EXTERNAL") && !side.said().contains("bidi"));
        side.take(said.as_bytes());
        assert_eq!(side.condition(), Some(condition), "{said}");
        assert!(side.stanzas.is_empty());
    }
    let mut side = Side::receiving(false);
    side.take(HEADER.as_bytes());
    side.take(AUTH.as_bytes());
    assert!(side.said().contains("<encryption-required/>"));
    side.take(STARTTLS.as_bytes());
    assert!(side.stream.is_starting_tls());
}

#[test]
fn plain_text_behind_starttls_is_refused() {
    // In one read with the request, as who injects it would have it.
    for behind in ["<message/>", " ", HEADER] {
        let mut side = Side::receiving(false);
        side.take(HEADER.as_bytes());
        side.take(format!("{STARTTLS}{behind}").as_bytes());
        assert_eq!(side.condition(), Some(C::PolicyViolation), "{behind}");
        assert!(side.stream.is_closed());
    }
    // And behind it.
    let mut side = Side::receiving(false);
    side.take(HEADER.as_bytes());
    side.take(STARTTLS.as_bytes());
    side.take(MESSAGE.as_bytes());
    assert_eq!(side.condition(), Some(C::PolicyViolation));
    assert!(!side.said().contains("error"), "nothing may be said while TLS is being started");
    let offered = format!("<stream:features>{STARTTLS}</stream:features>");
    let proceed = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
    let side = answered(false, &[ANSWER, &offered, &format!("{proceed}{ANSWER}")]);
    assert_eq!(side.condition(), Some(C::PolicyViolation));
    assert!(!side.saw("features"));
}

#[test]
fn nothing_is_known_of_what_was_said_before_tls() {
    let mut side = Side::receiving(false);
    side.take(HEADER.as_bytes());
    side.take(STARTTLS.as_bytes());
    side.stream.secured(&mut side.out);
    side.take(MESSAGE.as_bytes());
    assert_eq!(side.condition(), Some(C::BadFormat), "a header is due");
    let mut side = Side::receiving(false);
    side.take(HEADER.as_bytes());
    side.stream.secured(&mut side.out);
    assert!(!side.stream.is_secure(), "nobody asked for it");
}

#[test]
fn stanza_before_authentication_is_not_authorized() {
    for said in [
        MESSAGE,
        "<presence/>",
        "<iq type='get' id='1'/>",
        "<message xmlns='jabber:client'/>",
        "<x xmlns='y'/>",
        "<db:other from='here.example' to='there.example'/>",
    ] {
        let side = told(&[HEADER, said]);
        let expected =
            if said.starts_with("<db") { C::UnsupportedStanzaType } else { C::NotAuthorized };
        assert_eq!(side.condition(), Some(expected), "{said}");
        assert!(side.stanzas.is_empty());
    }
    // While the key is being verified, too.
    let mut stream = S2sStream::accept(true, "s");
    assert!(!stream.answer(
        &pair("there.example", "here.example"),
        crate::stream::dialback::Verdict::Valid,
        &mut Vec::new()
    ));
    assert!(stream.inbound().is_empty(), "nobody asked");
}

#[test]
fn stanza_of_another_pair_breaks_the_stream() {
    for (said, condition) in [
        ("<message from='a@elsewhere.example' to='b@there.example'/>", C::InvalidFrom),
        ("<message from='a@there.example' to='b@there.example'/>", C::InvalidFrom),
        ("<message from='a@sub.here.example' to='b@there.example'/>", C::InvalidFrom),
        ("<message from='here.example@evil' to='b@there.example'/>", C::InvalidFrom),
        ("<message from='a@here.example' to='b@elsewhere.example'/>", C::HostUnknown),
        ("<message from='a@here.example'/>", C::ImproperAddressing),
        ("<message to='b@there.example'/>", C::ImproperAddressing),
        ("<message from='' to='b@there.example'/>", C::ImproperAddressing),
        ("<message from='a@@here.example' to='b@there.example'/>", C::ImproperAddressing),
        (
            "<message xmlns:p='u' p:from='a@here.example' to='b@there.example'/>",
            C::ImproperAddressing,
        ),
        ("<x xmlns='y'/>", C::UnsupportedStanzaType),
        (
            "<message xmlns='jabber:client' from='a@here.example' to='b@there.example'/>",
            C::UnsupportedStanzaType,
        ),
        ("<stream:features/>", C::UnsupportedStanzaType),
        (AUTH, C::UnsupportedStanzaType),
        (STARTTLS, C::UnsupportedStanzaType),
        (HEADER, C::RestrictedXml),
    ] {
        let side = told_authenticated(&[MESSAGE, said]);
        assert_eq!(side.condition(), Some(condition), "{said}");
        assert_eq!(side.stanzas.len(), 1, "only the one before");
    }
    // Another domain of ours, which the pair is not about.
    let mut side = told_authenticated(&[]);
    side.policy.domains.push("too.example".into());
    side.take(b"<message from='a@here.example' to='b@too.example'/>");
    assert_eq!(side.condition(), Some(C::InvalidFrom));
}

#[test]
fn addresses_are_prepared_before_they_are_compared() {
    let side = told_authenticated(&["<message from='A@HERE.example' to='B@There.Example/R'/>"]);
    assert_eq!(side.error, None);
    assert_eq!(side.stanzas, ["<message from='a@here.example' to='b@there.example/R'></message>"]);
}

#[test]
fn headers_that_make_no_sense_are_refused_behind_our_own() {
    let with = |from: &str, to: &str| HEADER.replace(from, to);
    for (header, condition) in [
        (with("xmlns='jabber:server'", "xmlns='jabber:client'"), C::InvalidNamespace),
        (with("'jabber:server'", "'jabber:component:accept'"), C::InvalidNamespace),
        (with("there.example", "nobody.example"), C::HostUnknown),
        (with("'there.example'", "'a@there.example'"), C::HostUnknown),
        (with("from='here.example'", "from='there.example'"), C::InvalidFrom),
        (with("'here.example'", "'a@here.example'"), C::InvalidFrom),
        (with("from='here.example'", "from=''"), C::InvalidFrom),
        (with(" version='1.0'>", ">"), C::UnsupportedVersion),
        (with(" version='1.0'>", " version='0.9'>"), C::UnsupportedVersion),
        (with("http://etherx.jabber.org/streams", "u"), C::InvalidNamespace),
        (format!("<stream:stream a='{}'>", "x".repeat(5000)), C::PolicyViolation),
    ] {
        let side = told(&[&header]);
        assert_eq!(side.condition(), Some(condition), "{header}");
        let said = side.said();
        assert!(said.starts_with("<?xml version='1.0'?><stream:stream "), "{said}");
        assert!(said.contains(" from='there.example'"), "{said}");
        assert!(said.ends_with("</stream:error></stream:stream>"), "{said}");
        assert_eq!(said.matches("<stream:stream ").count(), 1);
    }
}

#[test]
fn authenticated_stream_keeps_its_domains() {
    for (header, condition) in [
        (HEADER.replace("here.example' to", "evil.example' to"), C::InvalidFrom),
        (HEADER.replace("to='there.example'", "to='too.example'"), C::HostUnknown),
        (MESSAGE.to_owned(), C::BadFormat),
    ] {
        let mut side = told(&[HEADER, AUTH]);
        side.policy.domains.push("too.example".into());
        side.take(header.as_bytes());
        assert_eq!(side.condition(), Some(condition), "{header}");
        assert!(side.stanzas.is_empty());
    }
    let nameless = HEADER.replace(" from='here.example'", "");
    let side = told(&[HEADER, AUTH, &nameless, MESSAGE]);
    assert_eq!((side.error, side.stanzas.len()), (None, 1));
}

#[test]
fn identity_is_that_of_the_header() {
    let auth = |text: &str| {
        AUTH.replace('=', "\0").replace("\0</", &format!("{text}</")).replace('\0', "=")
    };
    let failure = |side: &Side, name: &str| side.said().contains(&format!("<{name}/></failure>"));
    for (text, name) in [
        ("ZXZpbC5leGFtcGxl", "invalid-authzid"),     // evil.example
        ("dGhlcmUuZXhhbXBsZQ==", "invalid-authzid"), // there.example
        ("YUBoZXJlLmV4YW1wbGU=", "invalid-authzid"), // a@here.example
        ("/w==", "malformed-request"),
        ("?", "incorrect-encoding"),
    ] {
        let side = told(&[HEADER, &auth(text)]);
        assert!(failure(&side, name), "{text}: {}", side.said());
        assert!(!side.stream.is_established() && !side.saw("external"));
    }
    let side = told(&[HEADER, &auth("aGVyZS5leGFtcGxl")]); // here.example
    assert!(side.stream.is_authenticated());
    let side = told(&[&HEADER.replace(" from='here.example'", ""), AUTH]);
    assert!(failure(&side, "invalid-authzid"));
    let side = told(&[HEADER, &AUTH.replace("EXTERNAL", "PLAIN")]);
    assert!(failure(&side, "invalid-mechanism"));
    let response = "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
    let side = told(&[HEADER, &auth(""), response]);
    assert!(side.said().contains("<challenge ") && side.stream.is_authenticated());
    let side = told(&[HEADER, &auth(""), MESSAGE]);
    assert_eq!(side.condition(), Some(C::NotAuthorized));
    let side = told(&[HEADER, response]);
    assert_eq!(side.condition(), Some(C::NotAuthorized));
}

#[test]
fn certificate_that_was_not_offered_is_of_no_use() {
    let mut side = Side::receiving(true);
    side.wants.external = false;
    side.take(HEADER.as_bytes());
    side.take(AUTH.as_bytes());
    assert!(side.said().contains("<invalid-mechanism/>"));
    assert!(!side.stream.is_established());
}

#[test]
fn attempts_are_counted() {
    let mut side = Side::receiving(true);
    side.certificate = false;
    side.take(HEADER.as_bytes());
    for _ in 0..2 {
        side.take(AUTH.as_bytes());
        assert_eq!(side.error, None);
    }
    side.take(AUTH.as_bytes());
    assert_eq!(side.condition(), Some(C::PolicyViolation));
}

#[test]
fn too_much_is_refused_before_and_after_authentication() {
    let large = |bytes: usize| {
        format!(
            "<message from='a@here.example' to='b@there.example'>{}</message>",
            "x".repeat(bytes)
        )
    };
    let deep = |depth: usize| {
        let (open, close) = ("<x>".repeat(depth), "</x>".repeat(depth));
        format!("<message from='a@here.example' to='b@there.example'>{open}{close}</message>")
    };
    for said in [large(10_000), deep(16)] {
        assert_eq!(told(&[HEADER, &said]).condition(), Some(C::PolicyViolation));
        assert_eq!(told_authenticated(&[&said]).error, None);
    }
    for said in [large(262_144), deep(64)] {
        assert_eq!(told_authenticated(&[&said]).condition(), Some(C::PolicyViolation));
    }
    // One that never ends is not waited for.
    let mut side = told_authenticated(&["<message>"]);
    for _ in 0..300 {
        side.take("x".repeat(1_000).as_bytes());
    }
    assert_eq!(side.condition(), Some(C::PolicyViolation));
    assert!(side.reader.unread() <= 262_144 + READ_BYTES_MAX);
}

#[test]
fn bytes_that_nobody_reads_are_bounded() {
    let mut side = Side::receiving(true);
    let piece = [b' '; 1 << 16];
    let mut count = 0;
    while side.reader.receive(&piece, &side.stream, &side.policy).is_ok() {
        count += 1;
        assert!(count < 100);
    }
    assert!(side.reader.unread() <= READ_BYTES_MAX + 10_000);
}

#[test]
fn bidi_that_was_not_offered_is_refused() {
    let bidi = "<bidi xmlns='urn:xmpp:bidi'/>";
    let mut side = Side::receiving(true);
    side.wants.bidi = false;
    side.take(HEADER.as_bytes());
    assert!(!side.said().contains("bidi"));
    side.take(bidi.as_bytes());
    assert_eq!(side.condition(), Some(C::NotAuthorized));
    assert_eq!(told(&[HEADER, bidi, bidi]).condition(), Some(C::NotAuthorized), "twice");
    // Late, it is granted for what is authenticated.
    let side = told_authenticated(&[bidi]);
    assert!(side.stream.may_send(&pair("there.example", "here.example")));
}

#[test]
fn peer_of_our_stream_sends_nothing_unasked() {
    let (mut one, mut other) = (Side::initiating(true), Side::receiving(true));
    let wants = Offer { bidi: false, management: false, ..one.wants };
    (one.wants, other.wants) = (wants, wants);
    for said in [
        "<message from='b@there.example' to='a@here.example'/>",
        "<db:result from='there.example' to='here.example'>k</db:result>",
        "<db:verify id='1' from='there.example' to='here.example'>k</db:verify>",
    ] {
        let (mut one, mut other) = (Side::initiating(true), Side::receiving(true));
        (one.wants, other.wants) = (wants, wants);
        talk(&mut one, &mut other, Cut::Not);
        one.take(said.as_bytes());
        assert_eq!(one.condition(), Some(C::NotAuthorized), "{said}");
    }
    talk(&mut one, &mut other, Cut::Not);
    let before = one.events.len();
    for unasked in [
        "<db:result from='there.example' to='rooms.here.example' type='valid'/>",
        "<db:verify id='1' from='there.example' to='here.example' type='valid'/>",
        "<a xmlns='urn:xmpp:sm:3' h='5'/>",
        "<r xmlns='urn:xmpp:sm:3'/>",
    ] {
        one.take(unasked.as_bytes());
    }
    assert_eq!((one.events.len(), &one.error), (before, &None), "dropped");
    assert!(!one.stream.may_send(&pair("rooms.here.example", "there.example")));
    assert!(!one.stream.trust(&pair("here.example", "there.example")), "without bidi");
}

#[test]
fn answer_to_our_header_has_to_fit_it() {
    let with = |from: &str, to: &str| ANSWER.replace(from, to);
    for (header, condition) in [
        (with("from='there.example'", "from='evil.example'"), C::InvalidFrom),
        (with(" id='i'", ""), C::BadFormat),
        (with("id='i'", "id=''"), C::BadFormat),
        (with("id='i'", &format!("id='{}'", "i".repeat(257))), C::BadFormat),
        (with("'jabber:server'", "'jabber:client'"), C::InvalidNamespace),
        (with(" version='1.0'", ""), C::UnsupportedVersion),
    ] {
        let side = answered(true, &[&header, FEATURES]);
        assert_eq!(side.condition(), Some(condition), "{header}");
        assert!(!side.said().contains("<?xml"), "our header was out");
        assert!(!side.saw("features"));
    }
    // Who knows no such domain may answer in another's name, and says why.
    let error =
        "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    let side = answered(true, &[&with("from='there.example'", "from='other.example'"), error]);
    assert_eq!(side.condition(), Some(C::HostUnknown));
    let side = answered(true, &[ANSWER, MESSAGE]);
    assert_eq!(side.condition(), Some(C::NotAuthorized), "features are due");
    let side = answered(true, &[&with(" from='there.example'", ""), FEATURES]);
    assert_eq!(side.events, ["features"]);
}

#[test]
fn login_that_goes_on_for_ever_is_given_up() {
    let challenge = "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
    let side = answered(true, &[ANSWER, FEATURES, challenge]);
    assert!(side.said().ends_with("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"));
    let failure =
        "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><aborted/><text>no</text></failure>";
    let side = answered(true, &[ANSWER, FEATURES, challenge, failure]);
    assert!(side.saw("not-authenticated") && !side.stream.is_authenticated());
    let success = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
    for said in [challenge, success] {
        let side = answered(true, &[ANSWER, FEATURES, challenge, said]);
        assert_eq!(side.condition(), Some(C::NotAuthorized));
        assert!(!side.stream.is_established());
    }
    assert!(!answered(true, &[ANSWER, success]).stream.is_authenticated(), "nobody asked");
}

#[test]
fn dialback_is_answered_by_what_is_known() {
    let ask = |from: &str, to: &str| format!("<db:result from='{from}' to='{to}'>k</db:result>");
    for (from, to, condition) in [
        ("here.example", "nobody.example", "item-not-found"),
        ("there.example", "there.example", "not-acceptable"),
    ] {
        let side = told(&[HEADER, &ask(from, to)]);
        let said = side.said();
        assert!(said.contains(&format!("from='{to}' to='{from}' type='error'")), "{said}");
        assert!(said.contains(&format!("<{condition} ")), "{said}");
        assert_eq!(side.error, None, "the stream lives on");
    }
    let mut side = Side::receiving(true);
    side.wants.dialback = false;
    side.take(HEADER.as_bytes());
    side.take(ask("here.example", "there.example").as_bytes());
    assert!(side.said().contains("<not-authorized ") && !side.saw("ask"));
    let mut side = Side::receiving(true);
    side.policy.pairs_max = 0;
    side.take(HEADER.as_bytes());
    side.take(ask("here.example", "there.example").as_bytes());
    assert!(side.said().contains("<resource-constraint ") && !side.saw("ask"));
    let side = told_authenticated(&[&ask("here.example", "there.example")]);
    assert!(side.said().ends_with("type='valid'/>") && !side.saw("ask"), "a pair is proved once");
}

#[test]
fn nothing_comes_between_two_streams() {
    let ask = "<db:result from='rooms.here.example' to='there.example'>k</db:result>";
    let mut side = Side::receiving(true);
    side.judges = false;
    let bidi = "<bidi xmlns='urn:xmpp:bidi'/>";
    [HEADER, bidi, ask, AUTH].iter().for_each(|part| side.take(part.as_bytes()));
    assert!(side.saw("ask") && side.said().ends_with("xmpp-sasl'/>"));
    side.out.clear();
    let (back, rooms) =
        (pair("there.example", "here.example"), pair("there.example", "rooms.here.example"));
    assert!(!side.stream.may_send(&back), "a header is due");
    let valid = crate::stream::dialback::Verdict::Valid;
    assert!(!side.stream.answer(&rooms, valid, &mut side.out));
    assert!(!side.stream.may_ask(&back));
    assert!(side.out.is_empty() && side.stream.inbound().len() == 1);
    side.take(HEADER.as_bytes());
    assert!(side.stream.may_send(&back));
    // Ours: the features are due.
    let success = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>";
    let mut side = answered(true, &[ANSWER, FEATURES, success, ANSWER]);
    let there = pair("here.example", "there.example");
    assert!(!side.stream.may_send(&there));
    side.take(b"<stream:features/>");
    assert!(side.stream.may_send(&there));
}

#[test]
fn management_is_for_authenticated_streams_that_were_offered_it() {
    let enable = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
    let resume = "<resume xmlns='urn:xmpp:sm:3' previd='s1' h='0'/>";
    let refused = |side: &Side| side.said().contains("<failed ") && side.error.is_none();
    for said in [enable, resume] {
        let side = told(&[HEADER, said]);
        assert!(refused(&side) && !side.stream.is_managed());
        let mut side = Side::receiving(true);
        side.wants.management = false;
        [HEADER, AUTH, HEADER, said].iter().for_each(|part| side.take(part.as_bytes()));
        assert!(refused(&side) && !side.stream.is_managed());
        let side = told_authenticated(&[enable, said]);
        assert!(refused(&side) && side.stream.is_managed(), "once");
    }
    let side = told_authenticated(&["<resume xmlns='urn:xmpp:sm:3' h='0'/>"]);
    assert!(side.said().contains("<bad-request "));
    let side = told_authenticated(&[enable, "<a xmlns='urn:xmpp:sm:3' h='x'/>"]);
    assert_eq!(side.condition(), Some(C::BadFormat));
    let side = told_authenticated(&[enable, "<a xmlns='urn:xmpp:sm:3' h='1'/>"]);
    assert_eq!(side.condition(), Some(C::UndefinedCondition));
    let side = told_authenticated(&["<enabled xmlns='urn:xmpp:sm:3'/>"]);
    assert_eq!(side.condition(), Some(C::UnsupportedStanzaType));
}

#[test]
fn error_of_the_peer_ends_the_stream() {
    let text = "x".repeat(300);
    let error = format!(
        "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
         <text xmlns='urn:ietf:params:xml:ns:xmpp-streams'>{text}</text></stream:error>"
    );
    let mut side = told_authenticated(&[&error, MESSAGE]);
    assert_eq!(side.condition(), Some(C::Conflict));
    assert_eq!(side.error.take().unwrap().text.unwrap().len(), 256);
    assert!(side.stanzas.is_empty() && side.said().ends_with("</stream:stream>"));
    let side = answered(true, &[ANSWER, "<stream:error><other/></stream:error>"]);
    assert_eq!(side.condition(), Some(C::UndefinedCondition));
    let side = told_authenticated(&["</stream:stream>", MESSAGE]);
    assert!(side.saw("closed") && side.stanzas.is_empty());
}
