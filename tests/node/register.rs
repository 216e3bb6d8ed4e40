//! In-band registration (XEP-0077) from the first connection to the last trace of the account.

use crate::client::Client;
use crate::node::Place;

fn register(client: &mut Client, name: &str) {
    client.send(&format!(
        "<iq type='set' id='reg'><query xmlns='jabber:iq:register'><username>{name}</username>\
         <password>secret</password></query></iq>"
    ));
}

#[test]
fn a_stranger_registers_writes_and_cancels_the_account() {
    let place = Place::new()
        .set("limits.exempt=[]")
        .set("registration.in_band=true")
        .set("registration.per_network_per_h=3")
        .set("registration.quarantine_s=3600")
        .set("registration.quarantine_strangers_per_h=0");
    place.add_user("bob", "secret");
    let node = place.start();
    let mut alice = Client::starttls(&node);
    assert!(alice.open().contains("http://jabber.org/features/iq-register"));
    alice.send("<iq type='get' id='form'><query xmlns='jabber:iq:register'/></iq>");
    alice.expect("jabber:x:data");
    alice.expect("</iq>");
    register(&mut alice, "bob");
    alice.expect("<conflict");
    alice.expect("</iq>");
    register(&mut alice, "alice");
    alice.expect("type='result'");
    alice.authenticate("alice", "secret");
    alice.expect("<success");
    alice.bind();
    let listed = place.run(&["user", "list", "--json"]);
    let new = listed.lines().find(|line| line.contains("alice@localhost")).unwrap();
    assert!(new.contains("\"quarantine_until\":\"2"), "{new}");

    let hello = "<message to='bob@localhost' type='chat'><body>hello</body></message>";
    alice.send(hello);
    alice.expect("<policy-violation");
    alice.expect("</message>");
    assert_eq!(place.run(&["user", "release", "alice@localhost"]), "released alice@localhost\n");
    let mut bob = Client::log_in(&node, "bob", "secret");
    bob.send("<presence/>");
    bob.ping("1");
    alice.send(hello);
    bob.expect("hello");

    let mut other = Client::starttls(&node);
    other.open();
    register(&mut other, "carol");
    other.expect("type='result'");
    register(&mut other, "dave");
    other.expect("<resource-constraint");

    alice.send("<iq type='set' id='end'><query xmlns='jabber:iq:register'><remove/></query></iq>");
    alice.expect("id='end'");
    let end = alice.expect_end();
    assert!(end.contains("<not-authorized"), "{end}");
    let left = place.run(&["user", "list"]);
    assert_eq!(left, "bob@localhost\ncarol@localhost\n");
}
