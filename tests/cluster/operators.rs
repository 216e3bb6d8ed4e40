//! What operators ask of a cluster at any of its nodes: where an address is, sessions, users, announcements.

use std::process::Output;
use std::time::{Duration, Instant};

use corefire::stream::component::Secret;

use crate::client::Client;
use crate::cluster::{Cluster, Finding, PASSWORD};
use crate::person::Person;

/// Three nodes; the first account is an administrator's.
fn three() -> Option<(Cluster, [String; 3])> {
    let mut cluster = Cluster::prepare(3, &Finding::Multicast)?;
    let users = [0, 1, 2].map(|owner| cluster.name_at(owner, "user"));
    for place in &mut cluster.places {
        place.add("components.listen=[\"127.0.0.1:0\"]");
        place.add("components.secrets.\"bot.localhost\"=hush");
        place.add(&format!("admins=[\"{}@localhost\"]", users[0]));
    }
    (0..3).for_each(|at| cluster.boot(at));
    cluster.expect_all();
    users.iter().enumerate().for_each(|(at, user)| cluster.add_user((at + 1) % 3, user));
    Some((cluster, users))
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

fn component(cluster: &Cluster, at: usize) -> Client {
    let mut component = Client::connect(cluster.places[at].listener("components.listen"));
    component.send(
        "<stream:stream xmlns='jabber:component:accept' to='bot.localhost' \
         xmlns:stream='http://etherx.jabber.org/streams'>",
    );
    let header = component.expect("'>");
    let id = header.split(" id='").nth(1).unwrap().split('\'').next().unwrap();
    let hash = Secret::new("hush").handshake(id);
    component.send(&format!("<handshake>{hash}</handshake>"));
    component.expect("<handshake/>");
    component
}

#[test]
fn where_an_address_is_is_told_alike_at_each_node() {
    let Some((cluster, users)) = three() else { return };
    let [alice, bob, carol] = &users;
    // Alice sits at a node that does not own her account, and Bob at his own; Carol is away.
    let mut one = Person::at(alice, cluster.node(1).plain);
    let mut two = Person::at(bob, cluster.node(1).plain);
    one.wait_acked();
    two.wait_acked();
    let bots = [component(&cluster, 0), component(&cluster, 2), component(&cluster, 2)];
    let epoch = cluster.expect_all();
    for place in &cluster.places {
        let whereis = |jid: &str| json(&place.run(&["whereis", jid, "--json"]));
        for (user, owner) in [(alice, "n1"), (bob, "n2")] {
            let told = whereis(&format!("{user}@localhost/whatever"));
            assert_eq!((&told["node"], &told["kind"]), (&owner.into(), &"account".into()));
            assert_eq!(told["epoch"], epoch);
            let sessions = told["sessions"].as_array().unwrap();
            assert_eq!(sessions.len(), 1, "{told}");
            let session = &sessions[0];
            assert_eq!((&session["resource"], &session["socket"]), (&"r".into(), &"n2".into()));
            assert_eq!(session["address"], "127.0.0.1");
            assert!(session["since"].as_str().unwrap().starts_with("20"), "{told}");
        }
        let text = place.run(&["whereis", &format!("{alice}@localhost")]);
        assert!(
            text.contains(": node n1, ") && text.contains("\n  /r: at n2 from 127.0.0.1, since 20"),
            "{text}"
        );
        let text = place.run(&["whereis", &format!("{carol}@localhost")]);
        assert!(text.contains("nobody is connected for it"), "{text}");
        let told = whereis("bot.localhost");
        assert_eq!((&told["kind"], &told["silent"]), (&"component".into(), &json("[]")));
        assert_eq!(told["connections"], json("{\"n1\": 1, \"n3\": 2}"), "{told}");
        // Whoever owns its address, by the map, is the same.
        assert_eq!(
            told["node"],
            json(&cluster.places[0].run(&["whereis", "bot.localhost", "--json"]))["node"]
        );
        assert_eq!(whereis("localhost")["kind"], "domain");
        assert_eq!(whereis("someone@elsewhere.example")["kind"], "elsewhere");
    }
    drop(bots);
}

#[test]
fn sessions_users_and_announcements_are_of_all_nodes() {
    let Some((cluster, users)) = three() else { return };
    let mut people: Vec<Person> =
        (0..3).map(|at| Person::at(&users[at], cluster.node((at + 1) % 3).plain)).collect();
    people.iter_mut().for_each(Person::wait_acked);
    for place in &cluster.places {
        let listed = place.run(&["session", "list", "--json"]);
        let sessions: Vec<_> = listed.lines().map(json).collect();
        let mut found: Vec<_> = sessions
            .iter()
            .map(|one| [&one["jid"], &one["node"], &one["socket"]].map(|it| it.as_str().unwrap()))
            .collect();
        found.sort_by_key(|found| found[1]);
        let jids: Vec<String> = users.iter().map(|user| format!("{user}@localhost/r")).collect();
        assert_eq!(
            found,
            [[&*jids[0], "n1", "n2"], [&*jids[1], "n2", "n3"], [&*jids[2], "n3", "n1"]]
        );
        let listed = place.run(&["session", "list", &format!("{}@localhost", users[2])]);
        assert_eq!(listed.lines().count(), 1, "{listed}");
        assert!(listed.contains("at n3 by way of n1"), "{listed}");
    }
    // An administrator at one node counts and reaches those at all of them.
    let mut admin = Client::starttls(cluster.node(2));
    admin.open();
    admin.authenticate(&users[0], PASSWORD);
    admin.expect("<success");
    admin.open();
    admin.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>admin</resource></bind></iq>");
    admin.expect("</iq>");
    let command = |node: &str, more: &str| {
        format!(
            "<iq type='set' id='c' to='localhost'><command xmlns='http://jabber.org/protocol/commands' \
             node='http://jabber.org/protocol/admin#{node}' {more}</command></iq>"
        )
    };
    admin.send(&command("get-online-users-num", ">"));
    let told = admin.expect("</iq>");
    assert!(told.contains("<value>3</value>") && !told.contains("<note"), "{told}");
    admin.send(&command("get-online-users-list", ">"));
    let form = admin.expect("</iq>");
    let session = form.split("sessionid='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    admin.send(&command(
        "get-online-users-list",
        &format!(
            "sessionid='{session}'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
                  <value>http://jabber.org/protocol/admin</value></field></x>"
        ),
    ));
    let told = admin.expect("</iq>");
    for user in &users {
        assert!(told.contains(&format!("<value>{user}@localhost</value>")), "{told}");
    }
    admin.send(&command("announce", ">"));
    let form = admin.expect("</iq>");
    let session = form.split("sessionid='").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    admin.send(&command(
        "announce",
        &format!(
            "sessionid='{session}'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
                  <value>http://jabber.org/protocol/admin</value></field><field var='announcement'>\
                  <value>Snow is coming.</value></field></x>"
        ),
    ));
    let told = admin.expect("</iq>");
    assert!(told.contains("completed") && told.contains("type='info'>done<"), "{told}");
    for person in &mut people {
        person.wait("the announcement", |person| {
            person.headlines.iter().any(|it| it.contains("Snow is coming."))
        });
    }
    // A session ends at whichever node one says so.
    let jid = format!("{}@localhost/r", users[1]);
    assert_eq!(cluster.places[0].run(&["session", "kick", &jid]), "ended 1 session\n");
    people[1].wait_gone();
    let Output { status, stderr, .. } =
        cluster.places[2].program(&["session", "kick", &jid]).output().unwrap();
    let told = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && told.contains("has no session"), "{told}");
}

#[test]
fn a_node_that_hangs_is_told_of_and_not_waited_for_longer_than_a_moment() {
    let Some((cluster, users)) = three() else { return };
    let mut one = Person::at(&users[0], cluster.node(0).plain);
    one.wait_acked();
    cluster.signal(2, libc::SIGSTOP);
    let began = Instant::now();
    let Output { status, stdout, stderr } =
        cluster.places[0].program(&["session", "list"]).output().unwrap();
    let took = began.elapsed();
    cluster.signal(2, libc::SIGCONT);
    let (listed, told) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert!(!status.success() && told.contains("not complete") && told.contains("n3"), "{told}");
    assert!(
        listed.contains(&format!("{}@localhost/r", users[0])),
        "who answers is listed: {listed}"
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
}
