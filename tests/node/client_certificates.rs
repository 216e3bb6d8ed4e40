//! Logins by client certificates over real TLS: who gets in, who does not, and who never said more than a password.

use crate::certificates::{Authority, authority, showing};
use crate::client::{Client, STARTTLS};
use crate::node::{Node, Place};

const OFFER: &str = "<mechanism>EXTERNAL</mechanism>";

/// A place whose nodes ask for certificates of that authority.
fn place(authority: &Authority) -> Place {
    let place = Place::new().set("tls.client_ca=ca.pem");
    std::fs::write(place.path("ca.pem"), authority.pem()).unwrap();
    place
}

fn direct(node: &Node, authority: &Authority, address: &str) -> Client {
    let mut client = Client::connect(node.direct);
    client.shake_hands(showing(&node.certificate(), authority, address, &[b"xmpp-client"]));
    client
}

#[test]
fn certificate_logs_in_over_both_ways_to_tls() {
    let ours = authority("ours");
    let place = place(&ours);
    place.add_user("alice", "secret");
    let node = place.start();
    let mut client = Client::connect(node.plain);
    client.open();
    client.send(STARTTLS);
    client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    client.shake_hands(showing(&node.certificate(), &ours, "alice@localhost", &[]));
    for mut client in [client, direct(&node, &ours, "alice@localhost")] {
        assert!(client.open().contains(OFFER));
        client.auth("EXTERNAL", "=");
        client.expect("<success");
        client.bind();
        client.ping("1");
    }
}

#[test]
fn resumed_tls_session_is_the_same_clients() {
    let ours = authority("ours");
    let place = place(&ours).set("node.shards=1");
    place.add_user("alice", "secret");
    let node = place.start();
    let config = showing(&node.certificate(), &ours, "alice@localhost", &[b"xmpp-client"]);
    for resumed in [false, true] {
        let mut client = Client::connect(node.direct);
        client.shake_hands(config.clone());
        assert!(client.open().contains(OFFER));
        client.auth("EXTERNAL", "=");
        client.expect("<success");
        assert_eq!(client.is_resumed(), resumed);
    }
}

#[test]
fn certificate_of_another_authority_ends_the_handshake() {
    let ours = authority("ours");
    let place = place(&ours);
    place.add_user("alice", "secret");
    let node = place.start();
    // Of the same name: clients show what fits by name.
    let theirs = authority("ours");
    let mut client = direct(&node, &theirs, "alice@localhost");
    // In TLS 1.3 the client is done before the server has looked.
    let _ = client.try_send(crate::client::HEADER);
    assert_eq!(client.expect_end(), "");
    Client::direct(&node).open();
}

#[test]
fn no_certificate_and_one_of_another_domain_leave_the_password() {
    let ours = authority("ours");
    let place = place(&ours);
    place.add_user("alice", "secret");
    let node = place.start();
    for mut client in [Client::direct(&node), direct(&node, &ours, "alice@example.org")] {
        assert!(!client.open().contains(OFFER));
        client.auth("EXTERNAL", "=");
        client.expect("<invalid-mechanism/>");
        client.authenticate("alice", "secret");
        client.expect("<success");
        client.bind();
    }
}

#[test]
fn disabled_and_missing_accounts_stay_out() {
    let ours = authority("ours");
    let place = place(&ours);
    place.add_user("alice", "secret");
    let node = place.start();
    place.run(&["user", "disable", "alice@localhost"]);
    for (address, condition) in
        [("alice@localhost", "<account-disabled/>"), ("nobody@localhost", "<not-authorized/>")]
    {
        let mut client = direct(&node, &ours, address);
        assert!(client.open().contains(OFFER));
        client.auth("EXTERNAL", "=");
        client.expect(condition);
    }
}

#[test]
fn authorities_are_exchanged_by_a_reload_and_a_faulty_file_is_told() {
    let (ours, next) = (authority("ours"), authority("next"));
    let place = place(&ours);
    place.add_user("alice", "secret");
    let node = place.start();
    std::fs::write(place.path("ca.pem"), "none").unwrap();
    let output = place.program(&["reload"]).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && told.contains("tls.client_ca"), "{told}");
    assert!(direct(&node, &ours, "alice@localhost").open().contains(OFFER), "goes on as it was");
    std::fs::write(place.path("ca.pem"), next.pem()).unwrap();
    assert_eq!(place.run(&["reload"]), "tls: certificates were renewed\n");
    assert!(direct(&node, &next, "alice@localhost").open().contains(OFFER));
    let mut client = direct(&node, &ours, "alice@localhost");
    let _ = client.try_send(crate::client::HEADER);
    assert_eq!(client.expect_end(), "");
}

#[test]
fn node_does_not_start_with_authorities_that_cannot_be_read() {
    let place = Place::new().set("tls.client_ca=missing.pem");
    let told = place.refused(place.program(&["serve"]));
    assert!(told.contains("tls.client_ca") && told.contains("missing.pem"), "{told}");
}
