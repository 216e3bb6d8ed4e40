//! Service discovery (XEP-0030, XEP-0128) and the server's entity capabilities (XEP-0115).

use crate::harness::*;
use corefire::features::{self, Settings, contact::Addresses};

fn query(
    node: &mut Node,
    client: Client,
    to: &str,
    kind: &str,
    disco_node: Option<&str>,
) -> String {
    let disco_node = disco_node.map_or(String::new(), |name| format!(" node='{name}'"));
    let to = if to.is_empty() { String::new() } else { format!(" to='{to}'") };
    node.send(
        client,
        &format!(
            "<iq type='get' id='d'{to}><query xmlns='http://jabber.org/protocol/disco#{kind}'{disco_node}/></iq>"
        ),
    );
    node.read(client)
}

fn settings() -> Settings {
    let abuse = vec!["mailto:abuse@here".to_owned(), "xmpp:admin@here".to_owned()];
    Settings { contact: Addresses { of: vec![("abuse", abuse)] }, ..Settings::default() }
}

fn told() -> Node {
    let change = |config: &mut corefire::shard::ShardConfig| {
        config.policy.features = features::stream_features(&settings());
    };
    Node::with_features(1, change, || features::with(&settings()))
}

#[test]
fn server_says_what_it_is_and_whom_to_write_to() {
    let mut node = told();
    let alice = node.online("alice", "pc");
    let info = query(&mut node, alice, "here", "info", None);
    for part in [
        "<identity category='server' type='im' name='Corefire'/>",
        "<feature var='http://jabber.org/protocol/disco#info'/>",
        "<feature var='urn:xmpp:ping'/>",
        "<value>http://jabber.org/network/serverinfo</value>",
        "<field var='abuse-addresses' type='list-multi'><value>mailto:abuse@here</value>\
         <value>xmpp:admin@here</value></field>",
    ] {
        assert!(info.contains(part), "{part}: {info}");
    }
    let own = query(&mut node, alice, "", "info", None);
    assert!(own.contains("<identity category='account' type='registered'"), "{own}");
    assert!(!own.contains("serverinfo"), "{own}");
}

/// XEP-0115 §6.3: what the stream features promise is what the server answers.
#[test]
fn capabilities_of_the_stream_are_those_of_the_answer() {
    let mut node = told();
    node.users(&["alice"]);
    let alice = node.connect(0);
    node.send(alice, HEADER);
    node.send(alice, &plain("alice", PASSWORD));
    node.read(alice);
    node.send(alice, HEADER);
    let shown = node.read(alice);
    let caps = &shown[shown.find("<c ").unwrap()..];
    let name = format!("{}#{}", attr(caps, "node"), attr(caps, "ver"));
    node.send(alice, &bind("pc"));
    node.read(alice);
    let named = query(&mut node, alice, "here", "info", Some(&name));
    let plain = query(&mut node, alice, "here", "info", None);
    assert_eq!(named.replace(&format!(" node='{name}'"), ""), plain);
    // Computed anew from the answer, as a client does.
    let mut features: Vec<&str> = plain
        .split("<feature var='")
        .skip(1)
        .map(|rest| rest.split('\'').next().unwrap())
        .collect();
    features.sort_unstable();
    let text = format!(
        "server/im//Corefire<{}<http://jabber.org/network/serverinfo<abuse-addresses<mailto:abuse@here<xmpp:admin@here<",
        features.join("<")
    );
    use base64::Engine as _;
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    let hash = base64::engine::general_purpose::STANDARD.encode(digest);
    assert_eq!(attr(caps, "ver"), hash);
}

#[test]
fn unknown_node_is_not_found() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "pc");
    for kind in ["info", "items"] {
        let answer = query(&mut node, alice, "here", kind, Some("nothing"));
        assert!(answer.contains("<item-not-found "), "{answer}");
    }
}

#[test]
fn items_of_an_account_are_its_resources_for_those_who_may_see_them() {
    let mut node = Node::new(2);
    let alice = node.online("alice", "pc");
    let tab = node.online("alice", "tab");
    let bob = node.online("bob", "pc");
    node.read(alice);
    let own = query(&mut node, alice, "alice@here", "items", None);
    assert!(own.contains("<item jid='alice@here/pc'/><item jid='alice@here/tab'/>"), "{own}");
    let strange = query(&mut node, bob, "alice@here", "items", None);
    assert!(strange.contains("<service-unavailable "), "{strange}");
    drop(node.read(tab));
}
