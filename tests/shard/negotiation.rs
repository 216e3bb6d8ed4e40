//! From the first byte to a bound resource (RFC 6120 §4 to §7), and what ends a stream.

use crate::harness::*;
use corefire::store::Write;
use corefire::stream::TlsFacts;
use corefire::stream::sasl::client::{ClientBinding, ScramClient, plain as plain_message};
use corefire::stream::sasl::{Mechanism, TLS_EXPORTER, decode_payload, encode_payload};
use corefire::xmpp::credentials::Credentials;
use std::time::Duration;

const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

fn bindable() -> TlsFacts {
    TlsFacts { exporter: Some([5; 32]), ..TlsFacts::default() }
}

fn auth(mechanism: Mechanism, message: &[u8]) -> String {
    format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{}'>{}</auth>",
        mechanism.name(),
        encode_payload(message)
    )
}

fn response(message: &[u8]) -> String {
    let text = encode_payload(message);
    format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{text}</response>")
}

/// The decoded text of a `<challenge/>`, `<success/>` or `<response/>`.
fn payload(xml: &str) -> Vec<u8> {
    let text = xml.split('>').nth(1).unwrap().split('<').next().unwrap();
    decode_payload(text).unwrap()
}

fn scram(mechanism: Mechanism, user: &str, password: &str) -> ScramClient {
    let binding = match mechanism.is_plus() {
        true => ClientBinding::Used { kind: TLS_EXPORTER, data: &[5; 32] },
        false => ClientBinding::Unsupported,
    };
    ScramClient::new(mechanism, user, password, "fyko", binding).unwrap()
}

/// A connection with TLS whose header is out and whose features are read.
fn opened(node: &mut Node) -> Client {
    let client = node.connect(0);
    node.send(client, HEADER);
    node.read(client);
    client
}

/// The server said this stream error last, and closed.
fn assert_ended(node: &mut Node, client: Client, condition: &str) {
    let text = node.read(client);
    let error = format!("<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>");
    assert!(text.contains(&error), "{condition} wanted: {text}");
    assert!(text.ends_with("</stream:error></stream:stream>"), "{text}");
    assert!(!node.is_open(client));
}

// ---- headers and TLS

#[test]
fn plain_stream_offers_starttls_alone_and_begins_anew_after_the_handshake() {
    let mut node = Node::new(1);
    let client = node.connect_as(0, None);
    node.send(client, HEADER);
    let text = node.read(client);
    assert!(text.starts_with("<?xml version='1.0'?><stream:stream "), "{text}");
    assert!(text.ends_with(
        "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/>\
         </starttls></stream:features>"
    ));
    node.send(client, STARTTLS);
    assert_eq!(node.read(client), "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    node.secure(client, bindable());
    node.send(client, HEADER);
    let text = node.read(client);
    assert!(!text.contains("starttls"), "{text}");
    for mechanism in Mechanism::ALL.into_iter().filter(|it| *it != Mechanism::External) {
        assert!(text.contains(&format!("<mechanism>{}</mechanism>", mechanism.name())), "{text}");
    }
    assert!(text.contains("<channel-binding type='tls-exporter'/>"), "{text}");
}

#[test]
fn auth_before_tls_is_refused_with_encryption_required() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let client = node.connect_as(0, None);
    node.send(client, HEADER);
    node.read(client);
    node.send(client, &plain("alice", PASSWORD));
    assert_eq!(
        node.read(client),
        "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><encryption-required/></failure>"
    );
    assert!(node.is_open(client));
}

#[test]
fn plain_over_plain_text_works_only_where_it_is_permitted() {
    let mut node = Node::with(1, |config| config.policy.tls_required = false);
    node.users(&["alice"]);
    let client = node.connect_as(0, None);
    node.send(client, HEADER);
    let text = node.read(client);
    assert!(text.contains("<starttls") && !text.contains("<required/>"), "{text}");
    assert!(text.contains("<mechanism>PLAIN</mechanism>") && !text.contains("PLUS"), "{text}");
    node.send(client, &plain("alice", PASSWORD));
    assert!(node.read(client).contains("<success"));
}

#[test]
fn bytes_behind_starttls_end_the_stream() {
    let mut node = Node::new(1);
    let client = node.connect_as(0, None);
    node.send(client, &[HEADER, STARTTLS, HEADER].concat());
    assert!(!node.is_open(client));
}

#[test]
fn a_new_line_behind_starttls_is_passed_over() {
    let mut node = Node::new(1);
    let client = node.connect_as(0, None);
    node.send(client, &[HEADER, STARTTLS, "\n"].concat());
    assert!(node.read(client).contains("<proceed"));
    node.secure(client, TlsFacts::default());
    node.send(client, HEADER);
    assert!(node.read(client).contains("<stream:features>"));
}

#[test]
fn starttls_on_an_encrypted_stream_ends_it() {
    let mut node = Node::new(1);
    let client = opened(&mut node);
    node.send(client, STARTTLS);
    assert!(!node.is_open(client));
}

#[test]
fn unknown_host_gets_a_header_of_ours_and_the_error() {
    let mut node = Node::new(1);
    let client = node.connect(0);
    node.send(client, &HEADER.replace("here", "there"));
    let text = node.read(client);
    assert!(text.contains("<stream:stream ") && text.contains(" from='here'"), "{text}");
    assert!(text.contains("<host-unknown "), "{text}");
    assert!(!node.is_open(client));
}

#[test]
fn missing_host_is_the_only_domain_but_unknown_among_several() {
    let header = HEADER.replace(" to='here'", "");
    let mut node = Node::new(1);
    let client = node.connect(0);
    node.send(client, &header);
    assert!(node.read(client).contains("<stream:features>"));
    let mut node = Node::with(1, |config| config.policy.domains.push("other".into()));
    let client = node.connect(0);
    node.send(client, &header);
    assert_ended(&mut node, client, "host-unknown");
}

#[test]
fn stream_without_version_is_of_an_unsupported_one() {
    for version in ["", " version='0.9'", " version='x'"] {
        let mut node = Node::new(1);
        let client = node.connect(0);
        node.send(client, &HEADER.replace(" version='1.0'", version));
        assert_ended(&mut node, client, "unsupported-version");
    }
}

#[test]
fn bad_namespaces_are_answered_behind_a_header() {
    let cases = [
        (HEADER.replace("http://etherx.jabber.org/streams", "urn:x"), "invalid-namespace"),
        (HEADER.replace("jabber:client", "urn:x"), "invalid-namespace"),
        ("<stream xmlns='jabber:client' to='here' version='1.0'>".into(), "bad-namespace-prefix"),
        (HEADER.replace("stream:stream", "stream:other"), "bad-format"),
    ];
    for (header, condition) in cases {
        let mut node = Node::new(1);
        let client = node.connect(0);
        node.send(client, &header);
        let text = node.read(client);
        assert_eq!(text.matches("<stream:stream ").count(), 1, "{text}");
        assert!(text.contains(&format!("<{condition} ")), "{condition} wanted: {text}");
        assert!(!node.is_open(client));
    }
}

#[test]
fn bad_header_after_login_is_answered_behind_a_header_too() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let client = opened(&mut node);
    node.send(client, &plain("alice", PASSWORD));
    node.read(client);
    node.send(client, &HEADER.replace("jabber:client", "urn:x"));
    let text = node.read(client);
    assert!(text.contains("<stream:stream "), "{text}");
    assert!(text.contains("<invalid-namespace "), "{text}");
}

#[test]
fn domain_may_not_change_after_login() {
    let mut node = Node::with(1, |config| config.policy.domains.push("other".into()));
    node.users(&["alice"]);
    let client = opened(&mut node);
    node.send(client, &plain("alice", PASSWORD));
    node.read(client);
    node.send(client, &HEADER.replace("'here'", "'other'"));
    let text = node.read(client);
    assert!(text.contains("<host-unknown "), "{text}");
    assert!(!node.is_open(client));
}

// ---- SASL

#[test]
fn each_scram_mechanism_logs_in_and_proves_the_server() {
    for mechanism in Mechanism::ALL.into_iter().filter(|it| it.hash().is_some()) {
        let mut node = Node::new(1);
        node.users(&["alice"]);
        let client = node.connect_as(0, Some(bindable()));
        node.send(client, HEADER);
        node.read(client);
        let mut scram = scram(mechanism, "alice", PASSWORD);
        node.send(client, &auth(mechanism, &scram.first()));
        let last = scram.server_first(&payload(&node.read(client))).unwrap();
        node.send(client, &response(&last));
        let success = node.read(client);
        assert!(success.starts_with("<success"), "{mechanism:?}: {success}");
        scram.server_final(&payload(&success)).unwrap();
    }
}

/// What a client learns of SCRAM-SHA-512 for `user`: the first answer with the nonces cut off, and the last.
fn sha512_answers(node: &mut Node, user: &str) -> (usize, String) {
    let client = opened(node);
    let mechanism = Mechanism::ScramSha512;
    let mut scram = scram(mechanism, user, PASSWORD);
    node.send(client, &auth(mechanism, &scram.first()));
    let challenge = payload(&node.read(client));
    let last = scram.server_first(&challenge).unwrap();
    node.send(client, &response(&last));
    (challenge.len(), node.read(client))
}

#[test]
fn password_without_keys_of_sha512_looks_there_like_no_account_and_logs_in_by_sha256() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let old = Credentials { sha512: None, ..CREDENTIALS.clone() };
    node.change_account("alice", Write::SetCredentials { owner: bare("alice"), credentials: old });
    let answers = sha512_answers(&mut node, "alice");
    assert!(answers.1.contains("<not-authorized/>"), "{answers:?}");
    assert_eq!(answers, sha512_answers(&mut node, "nobody"));
    let client = opened(&mut node);
    let mechanism = Mechanism::ScramSha256;
    let mut scram = scram(mechanism, "alice", PASSWORD);
    node.send(client, &auth(mechanism, &scram.first()));
    let last = scram.server_first(&payload(&node.read(client))).unwrap();
    node.send(client, &response(&last));
    assert!(node.read(client).starts_with("<success"));
}

#[test]
fn sha512_is_listed_where_the_node_says_so() {
    let mut node = Node::with(1, |config| config.policy.scram.sha512 = false);
    let client = node.connect_as(0, Some(bindable()));
    node.send(client, HEADER);
    let text = node.read(client);
    assert!(!text.contains("SHA-512") && text.contains("SCRAM-SHA-256-PLUS"), "{text}");
}

#[test]
fn plus_mechanism_is_neither_offered_nor_taken_without_a_binding() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let client = node.connect(0);
    node.send(client, HEADER);
    assert!(!node.read(client).contains("PLUS"));
    let mechanism = Mechanism::ScramSha256Plus;
    node.send(client, &auth(mechanism, &scram(mechanism, "alice", PASSWORD).first()));
    assert!(node.read(client).contains("<invalid-mechanism/>"));
}

#[test]
fn client_that_hides_the_plus_offer_is_refused() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let client = node.connect_as(0, Some(bindable()));
    node.send(client, HEADER);
    node.read(client);
    // "y": it supports bindings and saw none offered, though they were (RFC 5802 §6).
    let binding = ClientBinding::NotOffered;
    let mechanism = Mechanism::ScramSha256;
    let scram = ScramClient::new(mechanism, "alice", PASSWORD, "fyko", binding).unwrap();
    node.send(client, &auth(mechanism, &scram.first()));
    assert!(node.read(client).starts_with("<failure"));
}

#[test]
fn missing_initial_response_is_asked_for() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let client = opened(&mut node);
    node.send(client, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>");
    let challenge = node.read(client);
    assert!(challenge.starts_with("<challenge ") && payload(&challenge).is_empty(), "{challenge}");
    node.send(client, &response(&plain_message("", "alice", PASSWORD)));
    assert!(node.read(client).contains("<success"));
}

#[test]
fn empty_initial_response_is_malformed() {
    let mut node = Node::new(1);
    let client = opened(&mut node);
    node.send(client, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>=</auth>");
    assert!(node.read(client).contains("<malformed-request/>"));
}

#[test]
fn text_that_is_no_base64_has_an_incorrect_encoding() {
    let mut node = Node::new(1);
    let client = opened(&mut node);
    node.send(client, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>!</auth>");
    assert!(node.read(client).contains("<incorrect-encoding/>"));
}

#[test]
fn aborted_login_may_be_tried_again() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let client = opened(&mut node);
    let mechanism = Mechanism::ScramSha256;
    node.send(client, &auth(mechanism, &scram(mechanism, "alice", PASSWORD).first()));
    node.read(client);
    node.send(client, "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    assert!(node.read(client).contains("<aborted/>"));
    node.send(client, &plain("alice", PASSWORD));
    assert!(node.read(client).contains("<success"));
}

#[test]
fn unknown_user_sees_what_a_wrong_password_sees() {
    let transcript = |user: &str| {
        let mut node = Node::new(1);
        node.users(&["alice"]);
        let client = opened(&mut node);
        let mechanism = Mechanism::ScramSha256;
        let mut scram = scram(mechanism, user, "wrong");
        node.send(client, &auth(mechanism, &scram.first()));
        let challenge = node.read(client);
        let last = scram.server_first(&payload(&challenge)).unwrap();
        node.send(client, &response(&last));
        let failure = node.read(client);
        node.send(client, &plain(user, "wrong"));
        (challenge.len(), failure, node.read(client), node.is_open(client))
    };
    let known = transcript("alice");
    assert!(known.1.contains("<not-authorized/>"), "{}", known.1);
    assert_eq!(known, transcript("nobody"));
}

#[test]
fn authzid_of_another_account_is_invalid() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let client = opened(&mut node);
    node.send(client, &auth(Mechanism::Plain, &plain_message("bob@here", "alice", PASSWORD)));
    assert!(node.read(client).contains("<invalid-authzid/>"));
    node.send(client, &auth(Mechanism::Plain, &plain_message("alice@here", "alice", PASSWORD)));
    assert!(node.read(client).contains("<success"));
}

#[test]
fn third_failed_login_ends_the_stream() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let client = opened(&mut node);
    node.send(client, &plain("alice", "wrong"));
    node.send(client, &plain("alice", "wrong"));
    assert!(node.is_open(client));
    node.advance(std::time::Duration::from_secs(1));
    node.send(client, &plain("alice", "wrong"));
    let text = node.read(client);
    assert_eq!(text.matches("<not-authorized/>").count(), 3, "{text}");
    assert!(text.contains("<policy-violation "), "{text}");
    assert!(!node.is_open(client));
}

#[test]
fn disabled_account_cannot_log_in_and_its_sessions_end() {
    let mut node = Node::new(1);
    let session = node.online("alice", "phone");
    let disable = corefire::store::Write::SetDisabled { owner: bare("alice"), disabled: true };
    node.change_account("alice", disable);
    assert!(node.read(session).contains("<policy-violation "));
    assert!(!node.is_open(session));
    let client = opened(&mut node);
    node.send(client, &plain("alice", PASSWORD));
    assert!(node.read(client).contains("<account-disabled/>"));
}

// ---- binding

#[test]
fn features_after_login_are_those_of_binding() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let client = opened(&mut node);
    node.send(client, &plain("alice", PASSWORD));
    node.read(client);
    node.send(client, HEADER);
    let text = node.read(client);
    for feature in ["<bind ", "<sm xmlns='urn:xmpp:sm:3'", "<session "] {
        assert!(text.contains(feature), "{feature}: {text}");
    }
    assert!(!text.contains("mechanism"), "{text}");
}

#[test]
fn resource_is_generated_where_none_is_given() {
    let mut node = Node::new(1);
    let jid = |node: &mut Node| {
        let client = node.authenticate(0, "alice");
        let iq = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
        node.send(client, iq);
        let text = node.read(client);
        text.split("<jid>alice@here/").nth(1).unwrap().split('<').next().unwrap().to_owned()
    };
    let (one, other) = (jid(&mut node), jid(&mut node));
    assert!(one.len() >= 8 && one != other, "{one} {other}");
    assert_eq!(node.sessions(), 2);
}

#[test]
fn resource_that_cannot_be_prepared_is_a_bad_request() {
    let mut node = Node::new(1);
    let client = node.authenticate(0, "alice");
    node.send(client, &bind("a\u{7}b".replace('\u{7}', "&#x9;").as_str()));
    assert!(node.read(client).contains("<bad-request "));
    node.send(client, &bind("phone"));
    assert!(node.read(client).contains("<jid>alice@here/phone</jid>"));
}

#[test]
fn resource_bound_again_ends_the_old_session_with_conflict() {
    let mut node = Node::new(1);
    let old = node.online("alice", "phone");
    let new = node.online("alice", "phone");
    assert_ended(&mut node, old, "conflict");
    assert!(node.is_open(new));
    assert_eq!(node.sessions(), 1);
}

#[test]
fn stanza_before_binding_ends_the_stream() {
    for stanza in ["<presence/>", "<message to='bob@here'/>", "<iq type='get' id='1'><x/></iq>"] {
        let mut node = Node::new(1);
        let client = node.authenticate(0, "alice");
        node.send(client, stanza);
        let text = node.read(client);
        assert!(text.contains("<not-authorized "), "{stanza}: {text}");
        assert!(!node.is_open(client));
    }
}

#[test]
fn stanza_before_login_ends_the_stream() {
    let mut node = Node::new(1);
    let client = opened(&mut node);
    node.send(client, "<presence/>");
    assert_ended(&mut node, client, "not-authorized");
}

#[test]
fn login_that_takes_too_long_ends() {
    let mut node = Node::new(1);
    let client = node.authenticate(0, "alice");
    let bound = node.login("bob", "pc");
    node.advance(Duration::from_secs(31));
    assert_ended(&mut node, client, "connection-timeout");
    assert!(node.is_open(bound));
}

// ---- XML that ends a stream

#[test]
fn what_is_no_xmpp_is_answered_with_its_stream_error() {
    let long = "x".repeat(70_000);
    let cases = [
        ("<message></presence>".to_owned(), "not-well-formed"),
        ("<message to='b@here'><a:b/></message>".to_owned(), "not-well-formed"),
        ("<message><body>&nbsp;</body></message>".to_owned(), "restricted-xml"),
        ("<!-- x -->".to_owned(), "restricted-xml"),
        ("<?pi x?>".to_owned(), "restricted-xml"),
        (format!("<message><body>{long}</body></message>"), "policy-violation"),
        ("<a xmlns='urn:x'/>".to_owned(), "unsupported-stanza-type"),
        ("text".to_owned(), "not-well-formed"),
    ];
    for (xml, condition) in cases {
        let mut node = Node::new(1);
        let client = node.login("alice", "phone");
        node.send(client, &xml);
        assert_ended(&mut node, client, condition);
        assert_eq!(node.sessions(), 0);
    }
}

#[test]
fn limits_are_narrower_before_login() {
    let mut node = Node::new(1);
    let client = opened(&mut node);
    node.send(client, &format!("<auth x='{}'/>", "x".repeat(9_000)));
    assert_ended(&mut node, client, "policy-violation");
}

#[test]
fn client_that_closes_its_stream_gets_the_end_tag() {
    let mut node = Node::new(1);
    let client = node.online("alice", "phone");
    node.send(client, "</stream:stream>");
    assert_eq!(node.read(client), "</stream:stream>");
    assert!(!node.is_open(client));
    assert_eq!(node.sessions(), 0);
}

#[test]
fn silent_client_is_pinged_and_dropped_when_it_stays_silent() {
    let mut node = Node::new(1);
    let client = node.online("alice", "phone");
    let other = node.online("bob", "pc");
    node.ignore_pings(client);
    node.advance(Duration::from_secs(121));
    assert!(node.read(client).contains("<ping xmlns='urn:xmpp:ping'/>"));
    node.advance(Duration::from_secs(61));
    assert!(node.read(client).contains("<connection-timeout "));
    assert!(!node.is_open(client) && node.is_open(other));
}

#[test]
fn every_stream_ends_with_system_shutdown_when_the_node_does() {
    let mut node = Node::new(2);
    let clients = [node.connect(0), node.online("alice", "phone"), node.online("bob", "pc")];
    node.shut_down();
    for client in clients {
        assert_ended(&mut node, client, "system-shutdown");
    }
}
