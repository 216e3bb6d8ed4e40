//! Logins by SASL2 (XEP-0388): the answer to all that was asked for inline comes with `<success/>`, Bind 2 (XEP-0386) and
//! resumption (XEP-0198) included, and no new stream begins.

use crate::acks::resume;
use crate::harness::*;
use corefire::shard::{Feature, Manifest, SessionId, Turn};
use corefire::store::Write;
use corefire::stream::TlsFacts;
use corefire::stream::sasl::client::{ClientBinding, ScramClient, plain as plain_message};
use corefire::stream::sasl::{Mechanism, TLS_EXPORTER, decode_payload, encode_payload};
use corefire::xmpp::xml::element::Element;
use std::time::Duration;

const SM: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

/// `<authenticate/>` with PLAIN and the right password.
pub(crate) fn authenticate(user: &str, more: &str) -> String {
    authenticate_by("PLAIN", &plain_message("", user, PASSWORD), more)
}

pub(crate) fn authenticate_by(mechanism: &str, message: &[u8], more: &str) -> String {
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>\
         <initial-response>{}</initial-response>{more}</authenticate>",
        encode_payload(message)
    )
}

pub(crate) fn bind2(tag: &str, more: &str) -> String {
    format!("<bind xmlns='urn:xmpp:bind:0'><tag>{tag}</tag>{more}</bind>")
}

pub(crate) fn agent(id: &str) -> String {
    format!("<user-agent id='{id}'><software>test</software></user-agent>")
}

/// A connection with TLS whose header is out and whose features are read.
pub(crate) fn opened(node: &mut Node, user: &str) -> Client {
    let client = node.connect(node.owner(user));
    node.send(client, HEADER);
    node.read(client);
    client
}

pub(crate) fn logged_in(node: &mut Node, user: &str, more: &str) -> (Client, String) {
    let client = opened(node, user);
    node.send(client, &authenticate(user, more));
    let answer = node.read(client);
    assert!(answer.starts_with("<success xmlns='urn:xmpp:sasl:2'>"), "{answer}");
    (client, answer)
}

/// The text of the first element of that name.
pub(crate) fn text<'a>(xml: &'a str, name: &str) -> &'a str {
    let rest = xml.split_once(&format!("<{name}")).unwrap_or_else(|| panic!("{name}: {xml}")).1;
    rest.split_once('>').unwrap().1.split('<').next().unwrap()
}

fn identity(success: &str) -> &str {
    text(success, "authorization-identifier")
}

#[test]
fn feature_lists_mechanisms_and_what_can_be_had_inline_where_there_is_tls() {
    let mut node = Node::with(1, |config| config.policy.tls_required = false);
    let client = node.connect(0);
    node.send(client, HEADER);
    let features = node.read(client);
    let feature = features.split("<authentication xmlns='urn:xmpp:sasl:2'>").nth(1).unwrap();
    assert!(feature.contains("<mechanism>SCRAM-SHA-256</mechanism>"), "{features}");
    let bind = "<bind xmlns='urn:xmpp:bind:0'><inline><feature var='urn:xmpp:sm:3'/>";
    assert!(feature.contains(bind), "{features}");
    assert!(feature.contains("<sm xmlns='urn:xmpp:sm:3'/>"), "{features}");
    assert!(features.contains("<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>"), "both");
    // XEP-0388 §6: only after TLS, though the old profile may be used here.
    let client = node.connect_as(0, None);
    node.send(client, HEADER);
    let features = node.read(client);
    assert!(features.contains("PLAIN") && !features.contains("urn:xmpp:sasl:2"), "{features}");
    node.send(client, &authenticate("alice", ""));
    assert_eq!(
        node.read(client),
        "<failure xmlns='urn:xmpp:sasl:2'>\
         <encryption-required xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>"
    );
}

#[test]
fn scram_with_channel_binding_ends_in_success_with_the_servers_proof_and_features() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let facts = TlsFacts { exporter: Some([5; 32]), ..TlsFacts::default() };
    let client = node.connect_as(0, Some(facts));
    node.send(client, HEADER);
    node.read(client);
    let binding = ClientBinding::Used { kind: TLS_EXPORTER, data: &[5; 32] };
    let mechanism = Mechanism::ScramSha512Plus;
    let mut scram = ScramClient::new(mechanism, "alice", PASSWORD, "fyko", binding).unwrap();
    node.send(client, &authenticate_by(mechanism.name(), &scram.first(), ""));
    let challenge = node.read(client);
    assert!(challenge.starts_with("<challenge xmlns='urn:xmpp:sasl:2'>"), "{challenge}");
    let first = decode_payload(text(&challenge, "challenge")).unwrap();
    let last = encode_payload(&scram.server_first(&first).unwrap());
    node.send(client, &format!("<response xmlns='urn:xmpp:sasl:2'>{last}</response>"));
    let answer = node.read(client);
    scram.server_final(&decode_payload(text(&answer, "additional-data")).unwrap()).unwrap();
    assert_eq!(identity(&answer), "alice@here");
    // No stream begins: features follow, and a resource is bound in the old way.
    let features = answer.split_once("</success>").unwrap().1;
    assert!(features.starts_with("<stream:features><bind xmlns="), "{answer}");
    node.send(client, &bind("phone"));
    assert!(node.read(client).contains("<jid>alice@here/phone</jid>"));
}

#[test]
fn bound_resource_is_made_of_tag_and_client_and_stays_the_same() {
    let mut node = Node::new(1);
    node.users(&["alice", "bob"]);
    let (first, answer) = logged_in(&mut node, "alice", &[agent("a"), bind2("Fox", "")].concat());
    let full = identity(&answer).to_owned();
    assert!(full.starts_with("alice@here/Fox/") && full.len() == 15 + 12, "{full}");
    assert!(answer.contains("<bound xmlns='urn:xmpp:bind:0'></bound>"), "{answer}");
    assert!(!answer.contains("urn:ietf:params:xml:ns:xmpp-bind'"), "a resource is bound: {answer}");
    node.send(first, &chat("alice@here", "to myself"));
    // The same client again: its earlier session goes.
    let (second, answer) = logged_in(&mut node, "alice", &[agent("a"), bind2("Fox", "")].concat());
    assert_eq!(identity(&answer), full);
    assert!(node.read(first).contains("<conflict"));
    // Another tag of the same client, too.
    let (_, answer) = logged_in(&mut node, "alice", &[agent("a"), bind2("Wolf", "")].concat());
    assert_eq!(identity(&answer), full.replace("Fox", "Wolf"));
    assert!(node.read(second).contains("<conflict"));
    // Another client, another account, a client without an id: other resources, nobody goes.
    let own = full.rsplit('/').next().unwrap();
    for (user, more) in [("alice", agent("b")), ("bob", agent("a")), ("alice", String::new())] {
        let (_, answer) = logged_in(&mut node, user, &[more, bind2("Fox", "")].concat());
        assert!(!answer.contains(own) && identity(&answer).contains("/Fox/"), "{answer}");
    }
    assert_eq!(node.sessions(), 4);
}

#[test]
fn tag_that_no_resource_can_have_is_left_out() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    for tag in ["", "&#x200E;", &"x".repeat(1_020)] {
        let (_, answer) = logged_in(&mut node, "alice", &bind2(tag, ""));
        let resource = identity(&answer).split_once('/').unwrap().1;
        assert_eq!(resource.len(), 12, "{tag:?}: {resource}");
    }
}

#[test]
fn stream_management_starts_inside_of_bound() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let (client, answer) = logged_in(&mut node, "alice", &bind2("Fox", SM));
    assert!(answer.contains("<bound xmlns='urn:xmpp:bind:0'><enabled xmlns='urn:xmpp:sm:3' id='"));
    // xmpp.js would try to enable it again.
    assert!(!answer.contains("<sm xmlns='urn:xmpp:sm:3'/>"), "done is not offered: {answer}");
    node.send(client, "<presence/><r xmlns='urn:xmpp:sm:3'/>");
    assert!(node.read(client).contains("<a xmlns='urn:xmpp:sm:3' h='1'/>"));
}

#[test]
fn stream_management_asked_for_twice_starts_once() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let (_, answer) = logged_in(&mut node, "alice", &bind2("Fox", &[SM, SM].concat()));
    assert_eq!(answer.matches("<enabled ").count(), 1, "{answer}");
}

#[test]
fn session_is_resumed_in_place_of_binding() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let bob = node.online("bob", "desk");
    let (client, answer) = logged_in(&mut node, "alice", &[agent("a"), bind2("Fox", SM)].concat());
    let (full, id) = (identity(&answer).to_owned(), attr(&answer, "id").to_owned());
    node.send(client, "<presence/>");
    node.cut(client);
    node.send(bob, &chat("alice@here", "while away"));
    let more = [agent("a"), resume(&id, 1), bind2("Fox", SM)].concat();
    let (client, answer) = logged_in(&mut node, "alice", &more);
    assert_eq!(identity(&answer), full);
    assert!(answer.contains(&format!("<resumed xmlns='urn:xmpp:sm:3' h='1' previd='{id}'/>")));
    assert!(!answer.contains("<bound"), "{answer}");
    // Success, features, then what was not acknowledged.
    let after = answer.split_once("</stream:features>").unwrap().1;
    assert_eq!(bodies(after), ["while away"]);
    assert!(!node.read(bob).contains("unavailable"), "the session never ended");
    node.send(client, &chat("bob@here", "back"));
    assert_eq!(bodies(&node.read(bob)), ["back"]);
}

#[test]
fn resumption_waits_until_what_the_session_received_is_handled() {
    let mut node = Node::new(1);
    let _bob = node.login("bob", "desk");
    node.users(&["alice"]);
    let (client, answer) = logged_in(&mut node, "alice", &bind2("Fox", SM));
    let id = attr(&answer, "id").to_owned();
    node.hold_store();
    node.send(client, &chat("carol@here", "to be stored"));
    node.cut(client);
    let client = opened(&mut node, "alice");
    node.send(client, &[authenticate("alice", &resume(&id, 0)), chat("bob@here", "next")].concat());
    assert_eq!(node.read(client), "");
    node.free_store();
    let answer = node.read(client);
    assert!(answer.contains("<resumed xmlns='urn:xmpp:sm:3' h='1'"), "{answer}");
    node.send(client, "<r xmlns='urn:xmpp:sm:3'/>");
    assert!(node.read(client).contains("h='2'"), "what stood behind the login was read");
}

#[test]
fn resumption_that_fails_says_so_and_binds() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let (_, answer) =
        logged_in(&mut node, "alice", &[resume("nothing", 3), bind2("Fox", "")].concat());
    let failed = "<failed xmlns='urn:xmpp:sm:3'>\
                  <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>";
    assert!(answer.contains(&format!("{failed}<bound ")), "{answer}");
    assert!(identity(&answer).contains("/Fox/"));
    // Alone, it leaves the client to bind.
    let (client, answer) = logged_in(&mut node, "alice", &resume("nothing", 3));
    assert!(answer.contains(failed) && answer.contains("xmpp-bind"), "{answer}");
    node.send(client, &bind("phone"));
    assert!(node.read(client).contains("alice@here/phone"));
}

#[test]
fn nothing_asked_for_is_done_where_the_login_fails() {
    let mut node = Node::new(1);
    let (victim, id) = node.online_acked("alice", "phone");
    let client = opened(&mut node, "alice");
    let wrong = plain_message("", "alice", "wrong");
    let more = [resume(&id, 0), bind2("Fox", SM)].concat();
    node.send(client, &authenticate_by("PLAIN", &wrong, &more));
    let failure = "<failure xmlns='urn:xmpp:sasl:2'>\
                   <not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>";
    assert_eq!(node.read(client), failure);
    assert_eq!(node.sessions(), 1);
    assert!(node.is_open(victim));
    // The stream lives, for the old profile as well.
    node.send(client, &plain("alice", PASSWORD));
    assert_eq!(node.read(client), "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
}

#[test]
fn exchange_can_be_aborted_and_missing_initial_response_is_asked_for() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let client = opened(&mut node, "alice");
    let more = bind2("Fox", "");
    let start =
        format!("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>{more}</authenticate>");
    node.send(client, &start);
    assert_eq!(node.read(client), "<challenge xmlns='urn:xmpp:sasl:2'/>");
    node.send(client, "<abort xmlns='urn:xmpp:sasl:2'><text>no</text></abort>");
    assert!(node.read(client).contains("<aborted xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"));
    node.send(client, &start);
    node.read(client);
    let message = encode_payload(&plain_message("", "alice", PASSWORD));
    node.send(client, &format!("<response xmlns='urn:xmpp:sasl:2'>{message}</response>"));
    assert!(node.read(client).contains("<bound "), "what came with the request was kept");
}

#[test]
fn elements_of_the_other_profile_and_stanzas_are_out_of_place() {
    let start = "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'/>";
    let old = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>";
    for (begin, then) in [
        (start, "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AA==</response>"),
        (start, "<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"),
        (start, start),
        (start, "<presence/>"),
        (old, "<response xmlns='urn:xmpp:sasl:2'>AA==</response>"),
        (old, start),
        ("", "<response xmlns='urn:xmpp:sasl:2'>AA==</response>"),
        ("", "<next xmlns='urn:xmpp:sasl:2' task='none'/>"),
    ] {
        let mut node = Node::new(1);
        node.users(&["alice"]);
        let client = opened(&mut node, "alice");
        node.send(client, &[begin, then].concat());
        assert!(
            node.read(client).contains("<not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-st")
        );
        assert!(!node.is_open(client));
    }
    // XEP-0388 §5: once is enough.
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let (client, _) = logged_in(&mut node, "alice", &bind2("Fox", ""));
    node.send(client, &authenticate("alice", ""));
    assert!(node.read(client).contains("<unsupported-stanza-type "));
}

#[test]
fn bad_requests_get_their_conditions() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    for (request, condition) in [
        (authenticate_by("SCRAM-SHA-3", b"x", ""), "invalid-mechanism"),
        (authenticate_by("SCRAM-SHA-256-PLUS", b"x", ""), "invalid-mechanism"),
        (authenticate_by("SCRAM-SHA-256", b"x", ""), "malformed-request"),
        (authenticate_by("PLAIN", b"x", "").replace("eA==", "e A=="), "incorrect-encoding"),
        (
            authenticate_by("PLAIN", &plain_message("bob@here", "alice", PASSWORD), ""),
            "invalid-authzid",
        ),
    ] {
        let client = opened(&mut node, "alice");
        node.send(client, &request);
        let answer = node.read(client);
        assert!(answer.starts_with("<failure xmlns='urn:xmpp:sasl:2'>"), "{answer}");
        assert!(answer.contains(&format!("<{condition} xmlns=")), "{condition}: {answer}");
    }
    // XEP-0198 §6: what is wrong with the resumption is no fault of the login.
    let client = opened(&mut node, "alice");
    node.send(client, &authenticate("alice", "<resume xmlns='urn:xmpp:sm:3' previd='a' h='x'/>"));
    let answer = node.read(client);
    assert!(answer.contains("<failed xmlns='urn:xmpp:sm:3'><bad-request "), "{answer}");
    node.send(client, &bind("phone"));
    assert!(node.read(client).contains("alice@here/phone"));
}

/// XEP-0388 §2.3: an authorization identity must be the one that the header's `from` names.
#[test]
fn authzid_must_agree_with_the_streams_from() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let message = plain_message("alice@here", "alice", PASSWORD);
    for (from, agrees) in
        [("alice@here", true), ("ALICE@here/phone", true), ("bob@here", false), ("@", false)]
    {
        let client = node.connect(0);
        node.send(client, &HEADER.replace(" to=", &format!(" from='{from}' to=")));
        node.read(client);
        node.send(client, &authenticate_by("PLAIN", &message, ""));
        let answer = node.read(client);
        assert_eq!(answer.contains("<success"), agrees, "{from}: {answer}");
        assert_eq!(answer.contains("<invalid-authzid"), !agrees, "{from}: {answer}");
    }
}

#[test]
fn account_with_too_many_sessions_is_told_and_can_bind_once_it_has_room() {
    let mut node = Node::new(1);
    let phones: Vec<_> = (0..4).map(|n| node.login("alice", &n.to_string())).collect();
    let (client, answer) = logged_in(&mut node, "alice", &bind2("Fox", ""));
    let failed = "<failed xmlns='urn:xmpp:bind:0'>\
                  <resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>";
    assert!(answer.contains(failed), "{answer}");
    assert_eq!(identity(&answer), "alice@here");
    node.send(phones[0], "</stream:stream>");
    node.send(client, &bind("phone"));
    assert!(node.read(client).contains("alice@here/phone"));
}

#[test]
fn whole_conversation_in_one_piece_or_byte_by_byte_moves_to_the_accounts_core() {
    for cut in [usize::MAX, 1, 7] {
        let mut node = Node::new(4);
        node.users(&["alice"]);
        let bob = node.online("bob", "desk");
        let client = node.connect((node.owner("alice") + 1) % 4);
        let login = authenticate("alice", &[agent("a"), bind2("Fox", SM)].concat());
        let script =
            [HEADER, &login, "<presence/>", &chat("bob@here", "1"), &chat("bob@here", "2")];
        for piece in script.concat().as_bytes().chunks(cut.min(10_000)) {
            node.send_bytes(client, piece);
        }
        assert_eq!(bodies(&node.read(bob)), ["1", "2"], "cut at {cut}");
        assert_eq!((node.moves(client), node.shard_of(client)), (1, node.owner("alice")));
        assert!(node.read(client).contains("<enabled "));
    }
}

#[test]
fn account_that_goes_while_its_owner_logs_in_is_not_logged_in() {
    let alice = || bare("alice");
    for (change, condition) in [
        (Write::SetDisabled { owner: alice(), disabled: true }, "account-disabled"),
        (Write::DeleteAccount { owner: alice() }, "not-authorized"),
    ] {
        let mut node = Node::new(1);
        node.users(&["alice"]);
        let client = opened(&mut node, "alice");
        node.send(client, "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-256'/>");
        node.read(client);
        let mechanism = Mechanism::ScramSha256;
        let binding = ClientBinding::Unsupported;
        let mut scram = ScramClient::new(mechanism, "alice", PASSWORD, "fyko", binding).unwrap();
        let response = |data: &[u8]| {
            format!("<response xmlns='urn:xmpp:sasl:2'>{}</response>", encode_payload(data))
        };
        node.send(client, &response(&scram.first()));
        let first = decode_payload(text(&node.read(client), "challenge")).unwrap();
        // The account changes, and is still being read when the last message comes.
        node.hold_store();
        node.change_account("alice", change);
        node.send(client, &response(&scram.server_first(&first).unwrap()));
        assert_eq!(node.read(client), "");
        node.free_store();
        let answer = node.read(client);
        assert!(answer.contains(&format!("<{condition} xmlns=")), "{condition}: {answer}");
        assert_eq!(node.sessions(), 0);
    }
}

// ---- features inside of bind

static INLINE: Manifest =
    Manifest { name: "inline", bind_inline: &["urn:inline"], ..Manifest::EMPTY };

/// Answers `<on/>` with what it was told, and has a bug at `<bug/>`.
struct Inline;

impl Feature for Inline {
    fn manifest(&self) -> &'static Manifest {
        &INLINE
    }

    fn on_bind(&mut self, _turn: &mut Turn<'_>, _session: SessionId, request: &Element) -> Vec<u8> {
        assert!(request.name == "on", "a bug");
        let mut out = Vec::new();
        request.write(&mut out, "");
        out
    }
}

fn with_inline() -> Node {
    let mut node = Node::with_features(1, |_| {}, || vec![Box::new(Inline)]);
    node.users(&["alice"]);
    node
}

#[test]
fn feature_answers_what_is_asked_for_in_its_namespace_and_nobody_else() {
    let mut node = with_inline();
    let asked = "<on xmlns='urn:inline' how='well'><much>2</much></on><on xmlns='urn:other'/>";
    let (_, answer) = logged_in(&mut node, "alice", &bind2("Fox", asked));
    let bound = answer.split_once("<bound xmlns='urn:xmpp:bind:0'>").unwrap().1;
    let told = "<on xmlns='urn:inline' how='well'><much>2</much></on></bound>";
    assert!(bound.starts_with(told), "{answer}");
}

#[test]
fn bug_of_a_feature_inside_of_bind_ends_that_login_and_no_other() {
    let mut node = with_inline();
    let other = node.login("bob", "desk");
    let client = opened(&mut node, "alice");
    node.send(client, &authenticate("alice", &bind2("Fox", "<bug xmlns='urn:inline'/>")));
    let answer = node.read(client);
    assert!(answer.starts_with("<stream:error><internal-server-error "), "{answer}");
    assert!(!node.is_open(client) && node.is_open(other));
    assert_eq!(node.faults(), 1);
    node.advance(Duration::from_secs(61));
    assert_eq!(node.sessions(), 1, "only the other's session is left");
    logged_in(&mut node, "alice", &bind2("Fox", ""));
}
