//! A component over a real socket (XEP-0114): from the configuration to a message both ways, on a node of two shards.

use corefire::stream::component::Secret;
use std::net::SocketAddr;

use crate::client::Client;
use crate::node::{Node, Place};

fn place() -> Place {
    Place::new()
        .set("components.listen=[\"127.0.0.1:0\"]")
        .set("components.secrets.\"bot.localhost\"=hush")
}

fn status(place: &Place) -> serde_json::Value {
    serde_json::from_str(&place.run(&["status", "--json"])).unwrap()
}

fn connect(address: SocketAddr, secret: &str) -> Client {
    let mut component = Client::connect(address);
    component.send(
        "<stream:stream xmlns='jabber:component:accept' to='bot.localhost' \
         xmlns:stream='http://etherx.jabber.org/streams'>",
    );
    let header = component.expect("'>");
    let id = header.split(" id='").nth(1).unwrap().split('\'').next().unwrap();
    let hash = Secret::new(secret).handshake(id);
    component.send(&format!("<handshake>{hash}</handshake>"));
    component
}

fn connections(place: &Place) -> u64 {
    let status = status(place);
    let shards = status["shards"].as_array().unwrap();
    shards.iter().map(|shard| shard["components"]["bot.localhost"].as_u64().unwrap()).sum()
}

#[test]
fn a_component_and_users_exchange_messages_until_it_goes() {
    let place = place();
    place.add_user("alice", "secret");
    let node: Node = place.start();
    let at = place.listener("components.listen");
    let mut wrong = connect(at, "guess");
    assert!(wrong.expect_end().contains("<not-authorized "));

    let mut alice = Client::log_in(&node, "alice", "secret");
    alice.send("<presence/>");
    alice.ping("there");
    // Enough for some on each shard, whichever the kernel gives them to.
    let mut bots: Vec<Client> = (0..8).map(|_| connect(at, "hush")).collect();
    bots.iter_mut().for_each(|bot| _ = bot.expect("<handshake/>"));
    assert_eq!(connections(&place), 8);
    assert!(place.run(&["status"]).contains("component  bot.localhost: 8 connections\n"));
    for (number, bot) in bots.iter_mut().enumerate() {
        bot.send(&format!(
            "<message from='bot.localhost' to='alice@localhost' type='chat'><body>{number}!</body></message>"
        ));
        alice.expect(&format!("<body>{number}!</body>"));
    }
    alice.send("<presence to='room@bot.localhost/alice'/>");
    alice.send("<message to='room@bot.localhost' type='groupchat'><body>hi</body></message>");
    let mut taken = 0;
    for mut bot in bots {
        bot.send("</stream:stream>");
        let end = bot.expect_end();
        assert!(end.ends_with("</stream:stream>"), "{end}");
        taken += end.matches("<body>hi</body>").count();
    }
    assert_eq!(taken, 1, "one connection has the message");
    assert_eq!(connections(&place), 0);
    alice.send("<message to='room@bot.localhost' id='m'><body>hi</body></message>");
    alice.expect("<remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>");
    drop(alice);
    node.stop();
}
