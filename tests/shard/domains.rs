//! Several domains on one node: the same name at two of them is two people.

use crate::harness::*;

const BOOKS: &str = "bücher.example";

fn node(shards: u16) -> Node {
    Node::with(shards, |config| {
        config.policy.domains = ["here", "other", BOOKS].into_iter().map(Into::into).collect();
    })
}

/// Logs in at a domain, asks for the roster and sends presence. `to` is how the client writes the domain.
fn online(node: &mut Node, name: &str, domain: &str, to: &str) -> Client {
    node.user_at(&format!("{name}@{domain}"));
    let client = node.connect(0);
    let header = HEADER.replace("to='here'", &format!("to='{to}'"));
    node.send(client, &header);
    node.send(client, &plain(name, PASSWORD));
    node.send(client, &header);
    node.read(client);
    node.send(client, &bind("phone"));
    let answer = node.read(client);
    assert!(answer.contains(&format!("<jid>{name}@{domain}/phone</jid>")), "{answer}");
    node.send(client, "<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>");
    node.send(client, "<presence/>");
    node.read(client);
    client
}

#[test]
fn one_name_at_two_domains_is_two_accounts() {
    for shards in [1, 4] {
        let mut node = node(shards);
        let here = online(&mut node, "alice", "here", "here");
        let other = online(&mut node, "alice", "other", "other");
        node.send(here, &chat("alice@other", "1"));
        node.send(other, &chat("alice@here", "2"));
        let (at_here, at_other) = (node.read(here), node.read(other));
        assert_eq!((bodies(&at_here), bodies(&at_other)), (vec!["2"], vec!["1"]));
        assert_eq!(attr(&at_other, "from"), "alice@here/phone");
        node.send(here, "<presence><show>away</show></presence>");
        assert_eq!(node.read(other), "", "neither is the other's resource");
        // Nor does one take the other's name.
        node.send(
            other,
            "<message from='alice@here/phone' to='alice@here'><body>3</body></message>",
        );
        assert!(node.read(other).contains("<invalid-from "));
        assert!(!node.read(here).contains("<body>"));
    }
}

#[test]
fn account_of_one_domain_logs_in_at_no_other() {
    for shards in [1, 4] {
        let mut node = node(shards);
        node.user_at("carol@other");
        let client = node.connect(0);
        node.send(client, HEADER);
        node.send(client, &plain("carol", PASSWORD));
        assert!(node.read(client).contains("<not-authorized/>"));
    }
}

#[test]
fn contacts_of_two_domains_see_one_another() {
    for shards in [1, 4] {
        let mut node = node(shards);
        let alice = online(&mut node, "alice", "here", "here");
        let bob = online(&mut node, "bob", "other", "other");
        node.send(alice, "<presence to='bob@other' type='subscribe'/>");
        assert!(node.read(bob).contains("from='alice@here' to='bob@other' type='subscribe'"));
        node.send(bob, "<presence to='alice@here' type='subscribed'/>");
        node.send(bob, "<presence to='alice@here' type='subscribe'/>");
        let text = node.read(alice);
        assert!(text.contains("<presence from='bob@other/phone' to='alice@here'"), "{text}");
        node.send(alice, "<presence to='bob@other' type='subscribed'/>");
        assert!(node.read(alice).contains("<item jid='bob@other' subscription='both'/>"));
        node.read(bob);
        node.send(alice, "<presence><show>dnd</show></presence>");
        assert!(node.read(bob).contains("<show>dnd</show>"));
        node.read(alice);
        node.cut(bob);
        let text = node.read(alice);
        assert!(text.contains("bob@other/phone") && text.contains("unavailable"), "{text}");
        node.send(alice, &chat("bob@other", "later"));
        let bob = online(&mut node, "bob", "other", "other");
        node.cut(alice);
        assert!(node.read(bob).contains("alice@here/phone"));
    }
}

#[test]
fn each_domain_answers_for_itself() {
    for shards in [1, 4] {
        let mut node = node(shards);
        let alice = online(&mut node, "alice", "here", "here");
        for domain in ["here", "other", BOOKS] {
            let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
            node.send(alice, &format!("<iq type='get' id='i' to='{domain}'>{info}</iq>"));
            let answer = node.read(alice);
            assert_eq!((attr(&answer, "type"), attr(&answer, "from")), ("result", domain));
        }
        node.send(alice, "<iq type='get' id='p' to='third'><ping xmlns='urn:xmpp:ping'/></iq>");
        assert!(node.read(alice).contains("<remote-server-not-found "));
    }
}

/// RFC 7622 §3.2: the domain is compared as it is prepared, however the client writes it.
#[test]
fn international_domain_has_one_form() {
    for to in [
        BOOKS,
        "BÜCHER.example",
        "xn--bcher-kva.example",
        "XN--BCHER-KVA.EXAMPLE",
        "bücher.example.",
    ] {
        let mut node = node(4);
        let reader = online(&mut node, "reader", BOOKS, to);
        let alice = online(&mut node, "alice", "here", "HERE");
        node.send(alice, &chat(&format!("READER@{to}"), "hi"));
        let text = node.read(reader);
        assert_eq!((attr(&text, "to"), bodies(&text)), ("reader@bücher.example", vec!["hi"]));
    }
}

#[test]
fn stream_to_what_is_no_domain_of_ours_is_refused() {
    for to in ["third", "alice@here", "here/x", "", "a b", "xn--", "bucher.example"] {
        let mut node = node(1);
        let client = node.connect(0);
        node.send(client, &HEADER.replace("to='here'", &format!("to='{to}'")));
        let answer = node.read(client);
        assert!(answer.contains("<host-unknown "), "{to}: {answer}");
        assert!(!node.is_open(client), "{to}");
    }
}

#[test]
fn stream_that_names_no_domain_is_refused_where_there_are_several() {
    let mut node = node(1);
    let client = node.connect(0);
    node.send(client, &HEADER.replace(" to='here'", ""));
    assert!(node.read(client).contains("<host-unknown "));
}
