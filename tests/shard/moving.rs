//! A connection that arrives at the wrong core goes to the core of its account, with all it carries (DESIGN §2): as it is within
//! a node, as an image to another one.

use crate::harness::*;

/// A core that does not own the account.
fn elsewhere(node: &Node, name: &str) -> usize {
    (node.owner(name) + 1) % 4
}

fn both(test: impl Fn(Node)) {
    test(Node::new(4));
    test(as_images());
}

/// Its cores give connections to each other as to those of other nodes.
fn as_images() -> Node {
    let mut node = Node::new(4);
    node.moves_as_images = true;
    node
}

fn script(messages: usize) -> String {
    let messages: String =
        (0..messages).map(|number| chat("bob@here", &number.to_string())).collect();
    [HEADER, &plain("alice", PASSWORD), HEADER, &bind("phone"), "<presence/>", &messages].concat()
}

#[test]
fn client_moves_at_its_first_sasl_message_and_only_then() {
    both(|mut node| {
        node.users(&["alice"]);
        let shard = elsewhere(&node, "alice");
        let client = node.connect(shard);
        node.send(client, HEADER);
        assert_eq!((node.moves(client), node.shard_of(client)), (0, shard));
        node.send(client, &plain("alice", PASSWORD));
        assert!(node.read(client).contains("<success"));
        node.send(client, HEADER);
        node.send(client, &bind("phone"));
        assert!(node.read(client).contains("<jid>alice@here/phone</jid>"));
        assert_eq!((node.moves(client), node.shard_of(client)), (1, node.owner("alice")));
        assert_eq!(node.probe(shard).connections, 0);
        assert_eq!(node.probe(node.owner("alice")).connections, 1);
    });
}

#[test]
fn client_at_its_own_core_does_not_move() {
    both(|mut node| {
        let client = node.login("alice", "phone");
        assert_eq!(node.moves(client), 0);
    });
}

#[test]
fn response_that_names_the_account_moves_the_client_too() {
    both(|mut node| {
        node.users(&["alice"]);
        let client = node.connect(elsewhere(&node, "alice"));
        node.send(client, HEADER);
        node.send(client, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>");
        node.send(client, &plain("alice", PASSWORD).replace("auth", "response"));
        assert!(node.read(client).contains("<success"));
        assert_eq!(node.moves(client), 1);
    });
}

#[test]
fn login_in_one_segment_loses_doubles_and_reorders_nothing() {
    both(|mut node| {
        node.users(&["alice"]);
        let bob = node.online("bob", "pc");
        let client = node.connect(elsewhere(&node, "alice"));
        node.send(client, &script(50));
        let received = node.read(bob);
        let wanted: Vec<String> = (0..50).map(|number| number.to_string()).collect();
        assert_eq!(bodies(&received), wanted);
        let said = node.read(client);
        assert_eq!(said.matches("<success").count(), 1);
        assert_eq!(said.matches("<jid>").count(), 1);
        assert_eq!(said.matches("<stream:stream ").count(), 2);
    });
}

#[test]
fn login_byte_by_byte_loses_doubles_and_reorders_nothing() {
    both(|mut node| {
        node.users(&["alice"]);
        let bob = node.online("bob", "pc");
        let client = node.connect(elsewhere(&node, "alice"));
        for byte in script(5).as_bytes() {
            node.send_bytes(client, &[*byte]);
        }
        let received = node.read(bob);
        assert_eq!(bodies(&received), ["0", "1", "2", "3", "4"]);
    });
}

#[test]
fn every_cut_of_the_login_gives_the_same() {
    let script = script(2);
    for (cut, images) in (1..script.len()).flat_map(|cut| [(cut, false), (cut, true)]) {
        let mut node = Node::new(4);
        node.moves_as_images = images;
        node.users(&["alice"]);
        let bob = node.online("bob", "pc");
        let client = node.connect(elsewhere(&node, "alice"));
        node.send(client, &script[..cut]);
        node.send(client, &script[cut..]);
        let received = node.read(bob);
        assert_eq!(bodies(&received), ["0", "1"], "cut at {cut}");
    }
}

#[test]
fn bytes_that_arrive_while_the_store_is_asked_are_kept() {
    both(|mut node| {
        node.users(&["alice"]);
        let bob = node.online("bob", "pc");
        let client = node.connect(elsewhere(&node, "alice"));
        node.hold_store();
        let script = script(3);
        let (login, rest) = script.split_at(script.find("<iq").unwrap());
        node.send(client, login);
        assert!(!node.is_read(client));
        node.send(client, rest);
        assert_eq!(node.read(bob), "");
        node.free_store();
        let received = node.read(bob);
        assert_eq!(bodies(&received), ["0", "1", "2"]);
    });
}

#[test]
fn failed_attempts_are_counted_across_the_move() {
    both(|mut node| {
        node.users(&["alice"]);
        let client = node.connect(elsewhere(&node, "alice"));
        node.send(client, HEADER);
        node.send(client, "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='NONE'/>");
        node.send(client, &plain("alice", "wrong"));
        node.advance(std::time::Duration::from_secs(1));
        node.send(client, &plain("alice", "wrong"));
        assert!(node.read(client).contains("<policy-violation "));
        assert!(!node.is_open(client));
    });
}
