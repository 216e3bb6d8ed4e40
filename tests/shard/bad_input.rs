//! Bad input, row by row: the condition that RFC 6120 §4.9.3 and §8.3.3 have for it, for any cut of it, before login
//! and after; whether the stream lives; and that nobody else notices. What needs sockets is in `tests/node/bad_input.rs`.

use crate::harness::*;
use corefire::shard::Limits;
use corefire::xmpp::xml::framer::XmlLimits;

/// A node with the limits that one without a configuration has.
fn node() -> Node {
    Node::with(1, |config| {
        config.limits = Limits::default();
        config.policy.limits = XmlLimits::default();
        config.policy.limits_before =
            XmlLimits { stanza_bytes_max: 10_000, depth_max: 16, ..XmlLimits::default() };
    })
}

/// Where a stream is when the bad input comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The stream is open.
    Before,
    /// The resource is bound.
    After,
}

fn client(node: &mut Node, stage: Stage) -> Client {
    if stage == Stage::After {
        return node.online("alice", "phone");
    }
    let client = node.connect(0);
    node.send(client, HEADER);
    node.read(client);
    client
}

/// The bystander still has its stream, and gets its answers.
#[track_caller]
fn assert_unmoved(node: &mut Node, bystander: Client) {
    assert!(node.is_open(bystander));
    let ping = "<iq type='get' id='still' to='here'><ping xmlns='urn:xmpp:ping'/></iq>";
    node.send(bystander, ping);
    let text = node.read(bystander);
    assert!(text.contains("type='result'") && text.contains("id='still'"), "{text}");
    assert_eq!(node.faults(), 0);
}

/// One stream error with that condition, its end tag, and nothing more.
#[track_caller]
fn assert_ends(node: &mut Node, client: Client, condition: &str, what: &str) {
    let text = node.read(client);
    let wanted = format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>");
    assert_eq!(text.matches("<stream:error>").count(), 1, "{what}: {text}");
    assert!(text.contains(&wanted), "{what}: {condition} wanted: {text}");
    assert!(text.ends_with("</stream:error></stream:stream>"), "{what}: {text}");
    assert!(!node.is_open(client), "{what}");
}

/// The input ends the stream with the condition at each stage, whole and (where it is short) in any two pieces.
#[track_caller]
fn ends_at(stages: &[Stage], input: &[u8], condition: &str) {
    let mut node = node();
    let bob = node.online("bob", "pc");
    for &stage in stages {
        let cuts = if input.len() < 200 { 0..input.len() } else { 0..1 };
        for cut in cuts {
            let client = client(&mut node, stage);
            let what = format!("{stage:?}, cut at {cut}");
            node.send_bytes(client, &input[..cut]);
            if node.is_open(client) {
                node.send_bytes(client, &input[cut..]);
            }
            assert_ends(&mut node, client, condition, &what);
        }
        assert_eq!(node.sessions(), 1, "only the bystander's");
        assert_unmoved(&mut node, bob);
    }
}

const BOTH: &[Stage] = &[Stage::Before, Stage::After];

#[track_caller]
fn ends(input: &str, condition: &str) {
    ends_at(BOTH, input.as_bytes(), condition);
}

fn message(inner: &str) -> String {
    format!("<message to='bob@here/pc'>{inner}</message>")
}

// ---- XML

#[test]
fn malformed_xml_is_not_well_formed() {
    for bad in [
        "<message></presence>",
        "<message to=bob/>",
        "<message to='a' to='b'/>",
        "<message to='<'/>",
        "<message a='1'b='2'/>",
        "< message/>",
        "<message><body></message></body>",
        "</message>",
        "<1/>",
        "loose text",
        "<message>&#0;</message>",
        "<message>&#xD800;</message>",
        "<message>& </message>",
    ] {
        ends(bad, "not-well-formed");
    }
}

#[test]
fn document_type_is_restricted() {
    ends("<!DOCTYPE message SYSTEM 'file:///etc/passwd'>", "restricted-xml");
    ends(&message("<!ENTITY x 'y'>"), "restricted-xml");
    let mut node = node();
    let stranger = node.connect(0);
    node.send(stranger, "<?xml version='1.0'?><!DOCTYPE x [<!ENTITY lol 'lol'>]>");
    assert_ends(&mut node, stranger, "restricted-xml", "before the header");
}

#[test]
fn processing_instruction_is_restricted() {
    ends("<?php echo 1 ?>", "restricted-xml");
    ends(&message("<?xml-stylesheet href='x'?>"), "restricted-xml");
}

#[test]
fn comment_is_restricted() {
    ends("<!-- not here -->", "restricted-xml");
    ends(&message("<!-- nor here -->"), "restricted-xml");
}

#[test]
fn billion_laughs_are_not_begun() {
    let entities: String = (1..10)
        .map(|n| format!("<!ENTITY lol{n} '{}'>", format!("&lol{};", n - 1).repeat(10)))
        .collect();
    let bomb = format!("<!DOCTYPE lolz [<!ENTITY lol0 'lol'>{entities}]>{}", message("&lol9;"));
    ends(&bomb, "restricted-xml");
    // Without the declaration: no entity but the five exists.
    ends(&message("&lol9;"), "restricted-xml");
    ends("<message to='&lol9;'/>", "restricted-xml");
}

#[test]
fn ten_thousand_nested_elements_violate_the_policy() {
    ends(&message(&"<a>".repeat(10_000)), "policy-violation");
    let closed = format!("{}{}", "<a>".repeat(10_000), "</a>".repeat(10_000));
    ends(&message(&closed), "policy-violation");
}

#[test]
fn a_thousand_attributes_violate_the_policy() {
    let many: String = (0..1_000).map(|n| format!(" a{n}='x'")).collect();
    ends_at(&[Stage::After], format!("<message{many}/>").as_bytes(), "policy-violation");
    let declared: String = (0..1_000).map(|n| format!(" xmlns:p{n}='urn:{n}'")).collect();
    ends_at(&[Stage::After], format!("<message{declared}/>").as_bytes(), "policy-violation");
    // Below the bound of bytes before login, too.
    let some: String = (0..500).map(|n| format!(" a{n}='x'")).collect();
    ends(&format!("<message{some}/>"), "policy-violation");
}

#[test]
fn a_tag_name_of_a_megabyte_violates_the_policy() {
    let name = "a".repeat(1 << 20);
    ends(&format!("<{name}/>"), "policy-violation");
    ends(&message(&format!("<{name}/>")), "policy-violation");
    ends(&message(&format!("<a {name}='x'/>")), "policy-violation");
    let short = "a".repeat(300);
    ends(&message(&format!("<{short}/>")), "policy-violation");
}

#[test]
fn invalid_utf8_is_no_supported_encoding_at_any_split() {
    // A lone continuation, a cut sequence, overlong forms, a surrogate, beyond the last code point, and UTF-16.
    let bad: [&[u8]; 8] = [
        b"\x80",
        b"\xC3",
        b"\xE2\x82",
        b"\xC0\xAF",
        b"\xE0\x80\xAF",
        b"\xED\xA0\x80",
        b"\xF4\x90\x80\x80",
        b"\xFF\xFE",
    ];
    for bytes in bad {
        let input = [b"<message><body>", bytes, b"</body></message>"].concat();
        ends_at(BOTH, &input, "unsupported-encoding");
        let input = [b"<message id='", bytes, b"'/>"].concat();
        ends_at(BOTH, &input, "unsupported-encoding");
    }
}

#[test]
fn valid_utf8_passes_at_any_split() {
    let mut node = node();
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    let input = message("<body>\u{e9}\u{20ac}\u{1f600}</body>").into_bytes();
    for cut in 0..input.len() {
        node.send_bytes(alice, &input[..cut]);
        node.send_bytes(alice, &input[cut..]);
        assert_eq!(bodies(&node.read(bob)), ["\u{e9}\u{20ac}\u{1f600}"], "cut at {cut}");
    }
}

#[test]
fn control_characters_are_not_well_formed() {
    for code in (0..0x20u8).filter(|code| !b"\t\n\r".contains(code)) {
        let input = [b"<message><body>", &[code][..], b"</body></message>"].concat();
        ends_at(BOTH, &input, "not-well-formed");
    }
    for text in ["\u{fffe}", "\u{ffff}", "&#1;", "&#xFFFE;"] {
        ends(&message(text), "not-well-formed");
    }
}

#[test]
fn undefined_prefix_is_not_well_formed() {
    ends(&message("<x:y/>"), "not-well-formed");
    ends(&message("<y x:z='1'/>"), "not-well-formed");
    ends("<x:message/>", "not-well-formed");
    ends(&message("<y xmlns:x=''/>"), "not-well-formed");
    ends(&message("<y xmlns:xmlns='urn:x'/>"), "not-well-formed");
    ends(&message("<y xmlns:xml='urn:x'/>"), "not-well-formed");
}

#[test]
fn same_attribute_by_two_prefixes_is_not_well_formed() {
    let twice = "<x xmlns:a='urn:same' xmlns:b='urn:same' a:n='1' b:n='2'/>";
    ends(&message(twice), "not-well-formed");
}

#[test]
fn end_of_a_character_section_in_text_is_not_well_formed() {
    ends(&message("<body>a ]]> b</body>"), "not-well-formed");
}

#[test]
fn stream_element_inside_a_stanza_is_invalid() {
    ends(&message("<stream:stream/>"), "invalid-xml");
    ends(&message("<stream:error/>"), "invalid-xml");
    ends(&message("<x xmlns='http://etherx.jabber.org/streams'/>"), "invalid-xml");
    ends(&message("<a:b xmlns:a='http://etherx.jabber.org/streams'/>"), "invalid-xml");
}

// ---- the stream's header

#[track_caller]
fn header_ends(header: &str, condition: &str) {
    let mut node = node();
    let bob = node.online("bob", "pc");
    for cut in 0..header.len() {
        let client = node.connect(0);
        node.send_bytes(client, &header.as_bytes()[..cut]);
        node.send_bytes(client, &header.as_bytes()[cut..]);
        assert_ends(&mut node, client, condition, header);
    }
    assert_unmoved(&mut node, bob);
}

#[test]
fn wrong_stream_namespace_is_invalid() {
    header_ends(&HEADER.replace("http://etherx.jabber.org/streams", "urn:x"), "invalid-namespace");
    header_ends(&HEADER.replace("jabber:client", "jabber:server"), "invalid-namespace");
}

#[test]
fn wrong_version_is_unsupported() {
    header_ends(&HEADER.replace(" version='1.0'", ""), "unsupported-version");
    header_ends(&HEADER.replace("1.0", "0.9"), "unsupported-version");
}

#[test]
fn wrong_host_is_unknown() {
    for host in ["elsewhere.example", "", "conference.here", "a@here", "\u{fffd}"] {
        header_ends(&HEADER.replace("to='here'", &format!("to='{host}'")), "host-unknown");
    }
}

#[test]
fn header_beyond_its_bound_violates_the_policy() {
    let mut node = node();
    let stranger = node.connect(0);
    node.send(stranger, &format!("<stream:stream x='{}", "y".repeat(5_000)));
    assert_ends(&mut node, stranger, "policy-violation", "never closed");
}

// ---- addresses

/// The stanza is answered with the error, and the stream lives.
#[track_caller]
fn refused(stanza: &str, condition: &str) {
    let mut node = node();
    let bob = node.online("bob", "pc");
    let alice = node.online("alice", "phone");
    node.send(alice, stanza);
    let text = node.read(alice);
    let wanted = format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>");
    assert!(text.contains("type='error'") && text.contains(&wanted), "{condition} wanted: {text}");
    assert_eq!(text.matches("type='error'").count(), 1, "{text}");
    assert_eq!(node.read(bob), "");
    assert_unmoved(&mut node, alice);
    assert_unmoved(&mut node, bob);
}

#[test]
fn missing_to_is_the_own_account() {
    let mut node = node();
    let alice = node.online("alice", "phone");
    node.send(alice, "<message type='chat'><body>note</body></message>");
    assert_eq!(bodies(&node.read(alice)), ["note"]);
    node.send(alice, "<iq type='get' id='q'><query xmlns='jabber:iq:roster'/></iq>");
    assert!(node.read(alice).contains("type='result'"));
    assert_unmoved(&mut node, alice);
}

#[test]
fn invalid_to_is_malformed() {
    let long = format!("{}@here", "x".repeat(1_024));
    for to in ["@here", "bob@", "bob@here/", "bo b@here", "bob@@here", "&quot;@here", &long] {
        refused(&format!("<message to='{to}'><body>x</body></message>"), "jid-malformed");
        let iq = format!("<iq type='get' id='q' to='{to}'><q xmlns='urn:q'/></iq>");
        refused(&iq, "jid-malformed");
        refused(&format!("<presence to='{to}'/>"), "jid-malformed");
    }
}

#[test]
fn foreign_to_is_not_found() {
    let message = "<message to='bob@elsewhere.example'><body>x</body></message>";
    refused(message, "remote-server-not-found");
    let iq = "<iq type='get' id='q' to='elsewhere.example'><q xmlns='urn:q'/></iq>";
    refused(iq, "remote-server-not-found");
}

#[test]
fn spoofed_from_ends_the_stream() {
    for from in ["bob@here", "bob@here/pc", "here", "alice@here/other", "alice@elsewhere", "", "@"]
    {
        let stanza = format!("<message from='{from}' to='bob@here/pc'><body>x</body></message>");
        ends_at(&[Stage::After], stanza.as_bytes(), "invalid-from");
        ends_at(&[Stage::After], format!("<presence from='{from}'/>").as_bytes(), "invalid-from");
    }
}

// ---- stanzas that are none

#[test]
fn request_without_id_is_bad() {
    refused("<iq type='get' to='here'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request");
}

#[test]
fn request_with_two_children_is_bad() {
    let two = "<a xmlns='urn:a'/><b xmlns='urn:b'/>";
    refused(&format!("<iq type='get' id='q' to='here'>{two}</iq>"), "bad-request");
    refused(&format!("<iq type='set' id='q' to='bob@here/pc'>{two}</iq>"), "bad-request");
    refused("<iq type='set' id='q' to='bob@here/pc'/>", "bad-request");
}

#[test]
fn request_of_unknown_type_is_bad() {
    refused("<iq type='gets' id='q' to='here'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request");
    refused("<iq id='q' to='bob@here/pc'><ping xmlns='urn:xmpp:ping'/></iq>", "bad-request");
}

#[test]
fn stanza_before_login_is_not_authorized() {
    for stanza in [
        "<message to='bob@here/pc'><body>x</body></message>",
        "<presence/>",
        "<iq type='get' id='q' to='here'><ping xmlns='urn:xmpp:ping'/></iq>",
        "<iq type='set' id='q'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
        "<enable xmlns='urn:xmpp:sm:3'/>",
        "<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>",
        "<r xmlns='urn:xmpp:sm:3'/>",
    ] {
        ends_at(&[Stage::Before], stanza.as_bytes(), "not-authorized");
    }
}

#[test]
fn second_bind_is_not_allowed() {
    refused(&bind("tablet"), "not-allowed");
    let mut node = node();
    let alice = node.online("alice", "phone");
    node.send(alice, &bind("phone"));
    assert!(node.read(alice).contains("<not-allowed "), "not even the same once more");
    assert_eq!(node.sessions(), 1);
}

#[test]
fn oversized_stanza_violates_the_policy_before_login_and_after() {
    let body = |bytes: usize| message(&format!("<body>{}</body>", "x".repeat(bytes)));
    ends_at(&[Stage::Before], body(10_000).as_bytes(), "policy-violation");
    ends_at(&[Stage::After], body(262_144).as_bytes(), "policy-violation");
    // It ends at the bound, and not when the stanza does.
    ends_at(&[Stage::Before], &body(10_000).as_bytes()[..10_001], "policy-violation");
    ends_at(&[Stage::After], &body(262_144).as_bytes()[..262_145], "policy-violation");
    let mut node = node();
    let bob = node.online("bob", "pc");
    let alice = node.online("alice", "phone");
    let fits = body(262_144 - body(0).len());
    assert_eq!(fits.len(), 262_144);
    node.send(alice, &fits);
    assert_eq!(bodies(&node.read(bob))[0].len(), 262_144 - body(0).len());
}

#[test]
fn compression_is_neither_offered_nor_begun() {
    let compress =
        "<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>";
    let mut node = node();
    let stranger = node.connect(0);
    node.send(stranger, HEADER);
    assert!(!node.read(stranger).contains("compress"));
    let alice = node.authenticate(0, "alice");
    node.send(alice, compress);
    assert_ends(&mut node, alice, "not-authorized", "before the bind");
    ends_at(&[Stage::Before], compress.as_bytes(), "not-authorized");
    ends_at(&[Stage::After], compress.as_bytes(), "unsupported-stanza-type");
}
