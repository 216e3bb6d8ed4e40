//! What users have wherever they are connected: accounts, messages, presence, one archive.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::client::Client;
use crate::cluster::{Cluster, Finding, PASSWORD};
use crate::person::Person;

/// A cluster of three, with an account at each node; TLS is spoken with the node that the client is connected to.
fn three() -> Option<(Cluster, [String; 3])> {
    let cluster = Cluster::start(3, &Finding::Multicast)?;
    // Made by way of another node than the owner.
    let users = [0, 1, 2].map(|owner| cluster.new_user(owner, "user", (owner + 1) % 3));
    Some((cluster, users))
}

#[test]
fn an_account_made_at_one_node_logs_in_at_each() {
    let Some((cluster, users)) = three() else { return };
    for at in 0..3 {
        for user in &users {
            let mut client = Client::acked(cluster.node(at), user, PASSWORD);
            client.ping("1");
            let mut client = Client::direct(cluster.node(at));
            client.open();
            client.authenticate(user, "wrong");
            client.expect("<not-authorized");
        }
    }
    for (at, user) in users.iter().enumerate() {
        assert_eq!(cluster.places[at].run(&["user", "list"]).lines().count(), 3);
        let told = cluster.places[at].run(&["user", "list"]);
        assert!(told.contains(&format!("{user}@localhost")), "{told}");
    }
}

/// Who asks several nodes for a name must not learn from what differs that nobody has it.
#[test]
fn a_name_that_nobody_has_gets_the_same_salt_at_each_node() {
    let Some((cluster, users)) = three() else { return };
    let salts = |name: &str| {
        [0, 1, 2].map(|at| {
            let mut client = Client::starttls(cluster.node(at));
            client.open();
            client.auth(
                "SCRAM-SHA-256",
                &BASE64.encode(format!("n,,n={name},r=fyko+d2lbbFgONRv9qkxdawL")),
            );
            let text = client.expect("</challenge>");
            let challenge = text.rsplit_once("</challenge>").unwrap().0.rsplit_once('>').unwrap().1;
            let challenge = String::from_utf8(BASE64.decode(challenge).unwrap()).unwrap();
            challenge.split(',').find_map(|part| part.strip_prefix("s=")).unwrap().to_owned()
        })
    };
    for name in [users[1].as_str(), "nobody", "nobody-else"] {
        let found = salts(name);
        assert!(found.iter().all(|salt| *salt == found[0]), "{name}: {found:?}");
    }
    assert_ne!(salts("nobody")[0], salts("nobody-else")[0]);
}

#[test]
fn messages_go_between_all_nodes_in_order_and_acknowledged() {
    let Some((cluster, users)) = three() else { return };
    // Neither sits with its owner, nor with the other.
    let mut alice = Person::at(&users[0], cluster.node(1).plain);
    let mut bob = Person::at(&users[2], cluster.node(0).plain);
    let ids: Vec<String> = (0..200).map(|number| format!("m{number}")).collect();
    for id in &ids {
        alice.message(&users[2], id);
    }
    alice.wait_acked();
    bob.wait_message("m199");
    assert_eq!(bob.firsts(), ids);
    assert_eq!(bob.messages.len(), 200);
    // Back, at the same time as forth.
    for number in 200..300 {
        alice.message(&users[2], &format!("m{number}"));
        bob.message(&users[0], &format!("b{number}"));
    }
    alice.wait_acked();
    bob.wait_acked();
    alice.wait_message("b299");
    bob.wait_message("m299");
    assert_eq!((alice.messages.len(), bob.messages.len()), (100, 300));
    // Who is nowhere gets it later, at whatever node.
    drop(cluster.places[0].run(&["status", "--json"]));
    alice.message(&users[1], "later");
    alice.wait_acked();
    let mut carol = Person::at(&users[1], cluster.node(2).plain);
    carol.wait_message("later");
}

#[test]
fn presence_is_seen_across_nodes_and_goes_with_the_connection() {
    let Some((cluster, users)) = three() else { return };
    let [alice, bob, _] = &users;
    let mut one = Person::at(alice, cluster.node(1).plain);
    let mut two = Person::at(bob, cluster.node(2).plain);
    befriend(&mut one, alice, &mut two, bob);
    // Another resource of the same account, at a third node, is seen too.
    let mut more = Client::starttls(cluster.node(0));
    more.open();
    more.authenticate(alice, PASSWORD);
    more.expect("<success");
    more.open();
    more.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>more</resource></bind></iq>");
    more.expect("</iq>");
    more.send("<presence><show>away</show></presence>");
    two.wait("presence of the second resource", |two| {
        two.presences.iter().any(|it| it.contains("/more") && it.contains("<show>away</show>"))
    });
    // It sees those of its own account and of the contact.
    more.expect(&format!("{bob}@localhost/r"));
    more.send("</stream:stream>");
    two.wait("absence of the second resource", |two| {
        two.presences.iter().any(|it| it.contains("/more") && it.contains("unavailable"))
    });
}

/// Both see each other from then on.
pub(crate) fn befriend(one: &mut Person, alice: &str, two: &mut Person, bob: &str) {
    one.stanza(format!("<presence to='{bob}@localhost' type='subscribe'/>"));
    two.wait("subscribe", |two| two.presences.iter().any(|it| it.contains("subscribe")));
    two.stanza(format!("<presence to='{alice}@localhost' type='subscribed'/>"));
    two.stanza(format!("<presence to='{alice}@localhost' type='subscribe'/>"));
    one.wait("subscribe", |one| {
        one.presences.iter().any(|it| it.contains("'subscribe'") || it.contains("\"subscribe\""))
    });
    one.stanza(format!("<presence to='{bob}@localhost' type='subscribed'/>"));
    two.wait("presence", |two| two.sees(alice));
    one.wait("presence", |one| one.sees(bob));
}

#[test]
fn one_archive_is_paged_from_any_node() {
    let Some((cluster, users)) = three() else { return };
    let [alice, bob, _] = &users;
    let mut one = Person::at(alice, cluster.node(1).plain);
    for number in 0..30 {
        one.message(bob, &format!("m{number}"));
    }
    one.wait_acked();
    let mut two = Person::at(bob, cluster.node(0).plain);
    two.wait_message("m29");
    two.listen(Duration::from_millis(50));
    for (owner, at) in [(alice, 2), (bob, 2), (alice, 0), (bob, 1)] {
        let mut reader = Client::starttls(cluster.node(at));
        reader.open();
        reader.authenticate(owner, PASSWORD);
        reader.expect("<success");
        reader.open();
        reader.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>reader</resource></bind></iq>");
        reader.expect("</iq>");
        let (mut bodies, mut after) = (Vec::new(), String::new());
        for page in 0..3 {
            reader.send(&format!(
                "<iq type='set' id='p{page}'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'>\
                 <max>10</max>{after}</set></query></iq>"
            ));
            let text = reader.expect("</fin></iq>");
            let found =
                text.split("<body>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned());
            bodies.extend(found);
            let last = text.split("<last>").nth(1).unwrap().split('<').next().unwrap();
            after = format!("<after>{last}</after>");
            assert_eq!(text.contains("complete='true'"), page == 2, "{text}");
        }
        let wanted: Vec<String> = (0..30).map(|number| format!("this is m{number}")).collect();
        assert_eq!(bodies, wanted, "{owner} at {at}");
    }
}
