//! Two domains on one node: a certificate for each, chosen by the name that the client asks for (SNI), and users of both
//! who write to one another.

use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use crate::client::{Client, STARTTLS, config};
use crate::node::{Node, Place};

/// A certificate for `domain`, which nothing but itself vouches for.
fn certify(place: &Place, domain: &str) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([domain.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(place.path(&format!("{domain}.pem")), certificate.pem()).unwrap();
    std::fs::write(place.path(&format!("{domain}.key")), key.serialize_pem()).unwrap();
}

/// `localhost` with the node's own certificate, and `example.org` with its own.
fn place() -> Place {
    let place = Place::new()
        .set("domains=[\"localhost\", \"example.org\"]")
        .set("tls.hosts.\"example.org\".certificate=example.org.pem")
        .set("tls.hosts.\"example.org\".key=example.org.key");
    certify(&place, "example.org");
    place
}

/// By both ways to TLS, trusting `certificate` alone.
fn secured(node: &Node, domain: &str, certificate: &Path) -> [Client; 2] {
    let mut direct = Client::connect(node.direct);
    direct.try_shake_hands(domain, config(certificate, &[b"xmpp-client"])).unwrap();
    let mut starttls = Client::connect(node.plain);
    starttls.open_at(domain);
    starttls.send(STARTTLS);
    starttls.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    starttls.try_shake_hands(domain, config(certificate, &[])).unwrap();
    [direct, starttls]
}

fn log_in(mut client: Client, user: &str, domain: &str) -> Client {
    client.open_at(domain);
    client.authenticate(user, "secret");
    client.expect("<success");
    client.open_at(domain);
    client.send(
        "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>",
    );
    client.expect(&format!("<jid>{user}@{domain}/r</jid>"));
    client.expect("</iq>");
    client.send("<presence/>");
    client.expect(&format!("<presence from='{user}@{domain}/r'"));
    client
}

#[test]
fn each_domain_shows_its_own_certificate_and_users_of_both_exchange_messages() {
    let place = place();
    for user in ["alice@localhost", "bob@example.org"] {
        place.run(&["user", "add", user, "--password", "secret"]);
    }
    let node = place.start();
    let ways = secured(&node, "localhost", &node.certificate());
    let theirs = secured(&node, "example.org", &place.path("example.org.pem"));
    for (alice, bob) in ways.into_iter().zip(theirs) {
        let mut alice = log_in(alice, "alice", "localhost");
        let mut bob = log_in(bob, "bob", "example.org");
        alice.send("<message to='bob@example.org' type='chat'><body>there</body></message>");
        let message = bob.expect("<body>there</body>");
        assert!(message.contains("from='alice@localhost/r'"), "{message}");
        bob.send("<message to='alice@localhost' type='chat'><body>and back</body></message>");
        let message = alice.expect("<body>and back</body>");
        assert!(message.contains("from='bob@example.org/r'"), "{message}");
        for client in [&mut alice, &mut bob] {
            client.send("<presence type='unavailable'/></stream:stream>");
            client.expect_end();
        }
    }
    node.stop();
}

/// The same local part is another account at another domain.
#[test]
fn passwords_and_certificates_are_of_one_domain() {
    let place = place();
    place.run(&["user", "add", "alice@localhost", "--password", "secret"]);
    let node = place.start();
    let [mut direct, _] = secured(&node, "example.org", &place.path("example.org.pem"));
    direct.open_at("example.org");
    direct.authenticate("alice", "secret");
    direct.expect("<not-authorized/>");
    for (name, certificate) in
        [("localhost", place.path("example.org.pem")), ("example.org", node.certificate())]
    {
        let mut client = Client::connect(node.direct);
        let told = client.try_shake_hands(name, config(&certificate, &[b"xmpp-client"]));
        assert!(told.is_err(), "{name}: the other domain's certificate");
    }
    node.stop();
}
