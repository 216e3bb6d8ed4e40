//! What users keep at the server for themselves and others (XEP-0049, XEP-0054), and what the server tells of others
//! (XEP-0215, XEP-0478).

use crate::harness::*;
use corefire::features::external_services::{Access, Service};
use corefire::features::{self, Settings};

fn ask(node: &mut Node, client: Client, kind: &str, to: &str, payload: &str) -> String {
    let to = if to.is_empty() { String::new() } else { format!(" to='{to}'") };
    node.send(client, &format!("<iq type='{kind}' id='q'{to}>{payload}</iq>"));
    node.read(client)
}

const CARD: &str = "<vCard xmlns='vcard-temp'><FN>Alice &amp; Co</FN></vCard>";
const NO_CARD: &str = "<vCard xmlns='vcard-temp'/>";

#[test]
fn card_is_kept_and_shown_to_everybody() {
    let mut node = Node::new(2);
    let alice = node.online("alice", "pc");
    let bob = node.online("bob", "pc");
    let none = ask(&mut node, alice, "get", "", NO_CARD);
    assert!(none.contains("type='result'") && none.contains(NO_CARD), "{none}");
    let done = ask(&mut node, alice, "set", "", CARD);
    assert_eq!(done, "<iq type='result' id='q' to='alice@here/pc'></iq>");
    for (client, to) in [(alice, ""), (alice, "alice@here"), (bob, "alice@here")] {
        let card = ask(&mut node, client, "get", to, NO_CARD);
        assert!(card.contains(CARD), "{to}: {card}");
    }
    ask(&mut node, alice, "set", "", NO_CARD);
    let gone = ask(&mut node, bob, "get", "alice@here", NO_CARD);
    assert!(gone.contains("<service-unavailable "), "{gone}");
}

#[test]
fn card_of_somebody_else_tells_nobody_who_has_an_account() {
    let mut node = Node::new(2);
    node.users(&["carol"]);
    let bob = node.online("bob", "pc");
    for (kind, payload) in [("get", NO_CARD), ("set", CARD)] {
        let known = ask(&mut node, bob, kind, "carol@here", payload);
        let unknown = ask(&mut node, bob, kind, "nobody@here", payload);
        assert_eq!(known.replace("carol", "nobody"), unknown);
        assert!(known.contains("<service-unavailable "), "{known}");
    }
}

#[test]
fn card_above_its_limit_is_refused_and_the_old_one_stays() {
    let mut node = Node::with(1, |config| config.limits.vcard_bytes = 200);
    let alice = node.online("alice", "pc");
    ask(&mut node, alice, "set", "", CARD);
    let large = format!("<vCard xmlns='vcard-temp'><FN>{}</FN></vCard>", "x".repeat(200));
    let refused = ask(&mut node, alice, "set", "", &large);
    assert!(refused.contains("<policy-violation "), "{refused}");
    assert!(ask(&mut node, alice, "get", "", NO_CARD).contains(CARD));
}

fn private(item: &str) -> String {
    format!("<query xmlns='jabber:iq:private'>{item}</query>")
}

#[test]
fn private_xml_is_kept_by_name_and_namespace() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "pc");
    let bookmarks = "<storage xmlns='storage:bookmarks'><conference jid='a@b'/></storage>";
    let prefs = "<p:prefs xmlns:p='urn:p'><p:a b='1'>&lt;</p:a></p:prefs>";
    for item in [bookmarks, prefs] {
        let done = ask(&mut node, alice, "set", "", &private(item));
        assert!(done.contains("type='result'"), "{done}");
    }
    let get = ask(&mut node, alice, "get", "", &private("<storage xmlns='storage:bookmarks'/>"));
    assert!(get.contains(bookmarks), "{get}");
    let get = ask(&mut node, alice, "get", "", &private("<prefs xmlns='urn:p'/>"));
    assert!(get.contains("<prefs xmlns='urn:p'><a b='1'>&lt;</a></prefs>"), "{get}");
    let none = ask(&mut node, alice, "get", "", &private("<other xmlns='urn:p'/>"));
    assert!(
        none.contains("<query xmlns='jabber:iq:private'><other xmlns='urn:p'/></query>"),
        "{none}"
    );
}

#[test]
fn private_xml_is_nobody_elses_and_refuses_what_it_cannot_keep() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "pc");
    let bob = node.online("bob", "pc");
    let other = ask(&mut node, bob, "get", "alice@here", &private("<a xmlns='urn:a'/>"));
    assert!(other.contains("<service-unavailable "), "{other}");
    for (item, condition) in [
        ("", "bad-request"),
        ("<a xmlns='urn:a'/><b xmlns='urn:b'/>", "bad-request"),
        ("<a xmlns='jabber:client'/>", "not-acceptable"),
        ("<a xmlns=''/>", "not-acceptable"),
        ("<vCard xmlns='vcard-temp'/>", "not-acceptable"),
    ] {
        let refused = ask(&mut node, alice, "get", "", &private(item));
        assert!(refused.contains(&format!("<{condition} ")), "{item}: {refused}");
    }
}

#[test]
fn private_xml_has_a_bound_and_room_again_when_something_goes() {
    let mut node = Node::with(1, |config| {
        config.limits.private_items = 2;
        config.limits.private_bytes = 100;
    });
    let alice = node.online("alice", "pc");
    let set = |node: &mut Node, item: &str| ask(node, alice, "set", "", &private(item));
    assert!(set(&mut node, "<a xmlns='urn:a'>1</a>").contains("'result'"));
    assert!(set(&mut node, "<b xmlns='urn:b'>1</b>").contains("'result'"));
    assert!(set(&mut node, "<c xmlns='urn:c'>1</c>").contains("<policy-violation "));
    assert!(set(&mut node, "<b xmlns='urn:b'>2</b>").contains("'result'"));
    let long = format!("<b xmlns='urn:b'>{}</b>", "2".repeat(100));
    assert!(set(&mut node, &long).contains("<policy-violation "));
    assert!(set(&mut node, "<a xmlns='urn:a'/>").contains("'result'"));
    assert!(set(&mut node, "<c xmlns='urn:c'>1</c>").contains("'result'"));
}

#[test]
fn external_services_are_told_with_credentials() {
    let service = |kind: &str, access: Access| Service {
        kind: kind.to_owned(),
        host: format!("{kind}.here"),
        port: 3478,
        transport: "udp".to_owned(),
        name: String::new(),
        access,
    };
    let secret = Access::Secret { secret: "north".to_owned(), valid_s: 3_600 };
    let settings = Settings {
        external_services: vec![service("stun", Access::Open), service("turn", secret)],
        ..Settings::default()
    };
    let mut node = Node::with_features(1, |_| {}, || features::with(&settings));
    let alice = node.online("alice", "pc");
    let all = ask(&mut node, alice, "get", "here", "<services xmlns='urn:xmpp:extdisco:2'/>");
    assert!(
        all.contains("<service type='stun' host='stun.here' port='3478' transport='udp'/>"),
        "{all}"
    );
    assert!(all.contains("host='turn.here'") && all.contains("username='1700003600:"), "{all}");
    let some =
        ask(&mut node, alice, "get", "here", "<services xmlns='urn:xmpp:extdisco:2' type='stun'/>");
    assert!(some.contains("stun.here") && !some.contains("turn.here"), "{some}");
    let credentials = |asked: &str| {
        format!("<credentials xmlns='urn:xmpp:extdisco:2'><service {asked}/></credentials>")
    };
    let one = ask(&mut node, alice, "get", "here", &credentials("host='turn.here' type='turn'"));
    assert!(one.contains("password='") && one.contains("expires='2023-11-14T23:13:20"), "{one}");
    let none = ask(&mut node, alice, "get", "here", &credentials("host='x' type='turn'"));
    assert!(none.contains("<item-not-found "), "{none}");
}

#[test]
fn limits_of_the_stream_are_those_of_its_stage() {
    let mut node = Node::new(1);
    node.users(&["alice"]);
    let alice = node.connect(0);
    node.send(alice, HEADER);
    let before = node.read(alice);
    node.send(alice, &plain("alice", PASSWORD));
    node.send(alice, HEADER);
    let after = node.read(alice);
    for (text, bytes) in [(before, 8_192), (after, 65_536)] {
        let limits = format!(
            "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>{bytes}</max-bytes><idle-seconds>1800</idle-seconds></limits>"
        );
        assert!(text.contains(&limits), "{text}");
    }
}
