//! Messages and requests to and from other domains (DESIGN §7), at the shards: the test plays the federation cores.

use crate::acks::{R, a, resume, returning};
use crate::direct::{one_node_away, online_at};
use crate::harness::*;
use corefire::base::hash::hash64;
use corefire::cluster::placement::federation_core;
use corefire::frame::{Envelope, Flags, Kind, Recipients};
use corefire::shard::ShardConfig;
use corefire::store::{RosterItem, Subscription, Write};
use corefire::xmpp::jid::Jid;
use std::time::Duration;

pub(crate) fn federated(shards: u16) -> Node {
    federated_with(shards, |_| {})
}

pub(crate) fn federated_with(shards: u16, change: impl FnOnce(&mut ShardConfig)) -> Node {
    Node::with(shards, |config| {
        config.federation_cores = 1;
        change(config);
    })
}

/// What Romeo, who is elsewhere, says.
pub(crate) fn romeo(to: &str, body: &str) -> String {
    format!(
        "<message from='romeo@else.example/x' to='{to}' type='chat' id='{body}'>\
         <body>{body}</body></message>"
    )
}

fn request(to: &str, payload: &str) -> String {
    format!("<iq from='romeo@else.example/x' to='{to}' type='get' id='q'>{payload}</iq>")
}

/// The one thing that has gone to other domains.
fn only(node: &mut Node) -> String {
    let mut said = node.said_outside();
    assert_eq!(said.len(), 1, "{said:?}");
    said.remove(0)
}

fn assert_refused(said: &str, condition: &str) {
    let wanted = format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>");
    assert!(said.contains(" type='error'") && said.contains(&wanted), "{condition}: {said}");
}

// ---- out

#[test]
fn message_goes_to_the_federation_core_and_into_its_senders_archive() {
    for shards in [1, 4] {
        let mut node = federated_with(shards, |config| config.archive = true);
        let alice = node.online("alice", "phone");
        let tablet = node.online("alice", "tablet");
        node.send(tablet, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
        node.read(tablet);
        node.read(alice);
        node.send(alice, &chat("Romeo@Else.example", "hi"));
        let sent = node.gone_out();
        assert_eq!(sent.len(), 1);
        assert_eq!((sent[0].core, &*sent[0].from), (0, "alice@here/phone"));
        assert_eq!(sent[0].to, ["romeo@else.example"]);
        let open = "<message from='alice@here/phone' to='romeo@else.example' ";
        assert!(sent[0].stanza.starts_with(open), "{}", sent[0].stanza);
        assert!(sent[0].flags.contains(Flags::STORABLE.with(Flags::CONTENT)));
        assert!(!sent[0].flags.contains(Flags::WANTS_ACK), "nobody waits for it");
        assert_eq!(bodies(&node.kept("alice", true)), ["hi"]);
        let copy = node.read(tablet);
        assert!(copy.contains("<sent ") && bodies(&copy) == ["hi"], "{copy}");
        assert_eq!(node.read(alice), "");
    }
}

#[test]
fn each_domain_has_one_federation_core() {
    let mut node = federated_with(2, |config| config.federation_cores = 3);
    let alice = node.online("alice", "phone");
    let mut used = [false; 3];
    for number in 0..12 {
        let domain = format!("d{number}.example");
        node.send(alice, &chat(&format!("romeo@{domain}/x"), "hi"));
        let core = federation_core(hash64(domain.as_bytes()), 3).unwrap();
        let sent = node.gone_out();
        assert_eq!((sent.len(), sent[0].core), (1, core));
        used[usize::from(core)] = true;
    }
    assert_eq!(used, [true; 3]);
}

#[test]
fn without_federation_nothing_goes_out() {
    let mut node = Node::new(2);
    let alice = node.online("alice", "phone");
    for stanza in [
        chat("romeo@else.example", "hi"),
        "<iq type='get' id='q' to='else.example'><ping xmlns='urn:xmpp:ping'/></iq>".into(),
        "<presence to='romeo@else.example'/>".into(),
        "<presence to='romeo@else.example' type='subscribe'/>".into(),
    ] {
        node.send(alice, &stanza);
        assert_refused(&node.read(alice), "remote-server-not-found");
    }
}

#[test]
fn storable_message_is_acknowledged_when_the_federation_core_has_handled_it() {
    for shards in [1, 4] {
        let mut node = federated(shards);
        let (alice, _) = node.online_acked("alice", "phone");
        node.hold_foreign();
        node.send(alice, &[&chat("romeo@else.example", "hi"), R].concat());
        assert!(node.gone_out()[0].flags.contains(Flags::WANTS_ACK));
        node.advance(Duration::from_millis(1_100));
        assert_eq!(node.read(alice), a(1), "the initial presence");
        node.free_foreign();
        assert_eq!(node.read(alice), a(2));
    }
}

/// *Handled* is one number for all that goes there: a domain that is dead must not hold up the others, nor a session that
/// is resumed.
#[test]
fn what_cannot_be_kept_is_handled_when_the_federation_core_has_it() {
    let mut node = federated(2);
    let (alice, id) = node.online_acked("alice", "phone");
    node.hold_foreign();
    let passing = "<message to='romeo@else.example'><composing xmlns='urn:x'/></message>";
    node.send(
        alice,
        &[
            passing,
            "<iq type='get' id='q' to='else.example'><ping xmlns='urn:xmpp:ping'/></iq>",
            "<presence to='romeo@else.example'/>",
            "<presence to='juliet@else.example' type='subscribe'/>",
            R,
        ]
        .concat(),
    );
    let sent = node.gone_out();
    assert_eq!(sent.len(), 4);
    assert!(sent.iter().all(|frame| !frame.flags.contains(Flags::WANTS_ACK)));
    assert!(node.read(alice).ends_with(&a(5)));
    node.cut(alice);
    let again = returning(&mut node, "alice");
    node.send(again, &resume(&id, 1));
    assert!(node.read(again).contains("<resumed "));
}

#[test]
fn request_goes_out_and_its_result_comes_back() {
    for shards in [1, 4] {
        let mut node = federated(shards);
        let alice = node.online("alice", "phone");
        let ask = "<iq type='get' id='q' to='else.example'><ping xmlns='urn:xmpp:ping'/></iq>";
        node.send(alice, ask);
        assert_eq!(
            only(&mut node),
            "<iq from='alice@here/phone' to='else.example' type='get' id='q'>\
             <ping xmlns='urn:xmpp:ping'/></iq>"
        );
        node.come_in("<iq from='else.example' to='alice@here/phone' type='result' id='q'/>");
        let result = node.read(alice);
        assert!(result.contains("type='result'") && result.contains("from='else.example'"));
        // What is no request is refused before it leaves.
        node.send(
            alice,
            "<iq type='get' id='q' to='else.example'><a xmlns='x'/><b xmlns='x'/></iq>",
        );
        assert_refused(&node.read(alice), "bad-request");
        assert!(node.gone_out().is_empty());
    }
}

#[test]
fn errors_of_other_domains_reach_who_sent_what_they_refuse_and_are_not_answered() {
    let mut node = federated(2);
    let alice = node.online("alice", "phone");
    for kind in ["message", "iq"] {
        let error = format!(
            "<{kind} from='romeo@else.example' to='alice@here/phone' type='error' id='m'>\
             <error type='cancel'><remote-server-timeout \
             xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></{kind}>"
        );
        node.come_in_as(&error, Flags::REFUSAL);
        assert_refused(&node.read(alice), "remote-server-timeout");
        // To one who is gone, it is dropped.
        node.come_in(&error.replace("phone", "pc"));
        node.come_in(&error.replace("alice", "nobody"));
        node.come_in(&error.replace("alice@here/phone", "here"));
    }
    assert!(node.gone_out().is_empty());
}

#[test]
fn message_between_domains_of_ours_goes_to_no_federation_core() {
    let mut node = federated_with(4, |config| {
        config.policy.domains = ["here", "other"].into_iter().map(Into::into).collect();
        config.components = vec![access("bot.here")];
    });
    node.user_at("bob@other");
    let alice = node.online("alice", "phone");
    let bot = node.component(0, "bot.here");
    node.send(alice, &chat("bob@other", "1"));
    node.send(alice, &chat("x@bot.here", "2"));
    node.send(alice, &chat("other", "3"));
    assert_eq!(bodies(&node.read(bot)), ["2"]);
    assert_refused(&node.read(alice), "service-unavailable");
    assert!(node.gone_out().is_empty());
}

// ---- in

#[test]
fn message_is_delivered_with_all_that_local_ones_get() {
    for shards in [1, 4] {
        let mut node = federated_with(shards, |config| config.archive = true);
        let alice = node.online("alice", "phone");
        let tablet = node.online_with("alice", "tablet", -1);
        node.send(tablet, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
        node.read(tablet);
        node.read(alice);
        node.come_in(&romeo("alice@here", "1"));
        let text = node.read(alice);
        assert!(bodies(&text) == ["1"] && text.contains(" by='alice@here'"), "{text}");
        assert_eq!(attr(&text, "from"), "romeo@else.example/x");
        let copy = node.read(tablet);
        assert!(copy.contains("<received ") && bodies(&copy) == ["1"], "{copy}");
        assert_eq!(bodies(&node.kept("alice", true)), ["1"]);
        let query = "<iq type='set' id='m'><query xmlns='urn:xmpp:mam:2'>\
            <x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
            <value>urn:xmpp:mam:2</value></field><field var='with'>\
            <value>romeo@else.example</value></field></x></query></iq>";
        node.send(alice, query);
        assert_eq!(bodies(&node.read(alice)), ["1"], "by whom it is with");
        assert!(node.gone_out().is_empty());
    }
}

#[test]
fn message_to_one_who_is_away_is_handled_when_it_is_kept() {
    for shards in [1, 4] {
        let mut node = federated(shards);
        node.users(&["bob"]);
        node.come_in(&romeo("bob@here", "before"));
        node.hold_store();
        let shard = node.come_in(&romeo("bob@here", "1"));
        assert_eq!(node.unhandled_from_outside(shard), 1);
        node.free_store();
        assert_eq!(node.unhandled_from_outside(shard), 0);
        let bob = node.online("bob", "pc");
        node.send(bob, " ");
        assert_eq!(node.logged("bob"), 0, "he had both");
        // What cannot be kept goes back to who sent it.
        node.cut(bob);
        node.store_fails = true;
        node.come_in(&romeo("bob@here", "2"));
        assert_refused(&only(&mut node), "resource-constraint");
        assert_eq!(node.unhandled_from_outside(shard), 0);
    }
}

#[test]
fn messages_that_wait_for_an_account_keep_their_order() {
    let mut node = federated(2);
    let alice = node.online("alice", "phone");
    node.cut(alice);
    node.hold_store();
    let wanted: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    wanted.iter().for_each(|body| {
        node.come_in(&romeo("alice@here", body));
    });
    node.free_store();
    let alice = node.login("alice", "pc");
    node.send(alice, "<presence/>");
    assert_eq!(bodies(&node.read(alice)), wanted);
}

#[test]
fn stranger_from_elsewhere_learns_no_more_than_one_from_here() {
    for shards in [1, 4] {
        let mut node = federated(shards);
        let alice = node.online("alice", "phone");
        node.users(&["bob"]);
        let disco = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        for (stanza, condition) in [
            (romeo("nobody@here", "1"), "service-unavailable"),
            (romeo("here", "1"), "service-unavailable"),
            (request("nobody@here", disco), "service-unavailable"),
            (request("alice@here", disco), "service-unavailable"),
            (request("bob@here/pc", disco), "service-unavailable"),
            (request("alice@here", "<query xmlns='jabber:iq:roster'/>"), "service-unavailable"),
            (request("alice@here", "<query xmlns='jabber:iq:last'/>"), "service-unavailable"),
            (request("here", "<query xmlns='urn:unknown'/>"), "service-unavailable"),
            (request("here", "<query xmlns='jabber:iq:register'/>"), "registration-required"),
            (request("here", "<services xmlns='urn:xmpp:extdisco:2'/>"), "forbidden"),
        ] {
            let shard = node.come_in(&stanza);
            let said = only(&mut node);
            assert_refused(&said, condition);
            assert_eq!(attr(&said, "to"), "romeo@else.example/x");
            assert_eq!(node.unhandled_from_outside(shard), 0);
        }
        assert_eq!(node.read(alice), "");
    }
}

#[test]
fn domain_answers_requests_of_others() {
    let mut node = federated_with(4, |config| {
        config.policy.domains = ["here", "other"].into_iter().map(Into::into).collect();
    });
    for domain in ["here", "other", "here/x"] {
        for (payload, answer) in [
            ("<ping xmlns='urn:xmpp:ping'/>", "type='result'"),
            ("<query xmlns='jabber:iq:version'/>", "<name>Corefire</name>"),
            ("<query xmlns='http://jabber.org/protocol/disco#info'/>", "category='server'"),
        ] {
            node.come_in(&request(domain, payload));
            let said = only(&mut node);
            assert!(said.contains(answer) && attr(&said, "from") == domain, "{said}");
        }
    }
    // It has no presence, and asked for nothing.
    for stanza in [
        "<presence from='romeo@else.example/x' to='here'/>",
        "<presence from='romeo@else.example' to='here' type='probe'/>",
        "<presence from='romeo@else.example' to='here' type='subscribe'/>",
        "<iq from='romeo@else.example/x' to='here' type='result' id='q'/>",
    ] {
        node.come_in(stanza);
    }
    assert!(node.gone_out().is_empty());
    assert_eq!(node.faults(), 0);
}

#[test]
fn no_administrator_is_of_another_domain() {
    let commands = "<command xmlns='http://jabber.org/protocol/commands' \
        node='http://jabber.org/protocol/admin#get-online-users-num'/>";
    let mut node = federated_with(1, |config| {
        let admin = corefire::xmpp::jid::BareJid::parse("romeo@else.example").unwrap();
        config.admins = vec![admin, bare("alice")];
    });
    node.come_in(&request("here", commands).replace("'get'", "'set'"));
    assert_refused(&only(&mut node), "forbidden");
}

#[test]
fn request_for_a_resource_is_its_clients_to_answer_once() {
    for shards in [1, 4] {
        let mut node = federated(shards);
        let alice = node.online("alice", "phone");
        for id in ["one", "two"] {
            let ask = request("alice@here/phone", "<query xmlns='urn:x'/>");
            node.come_in(&ask.replace("'q'", &format!("'{id}'")));
            assert_eq!(attr(&node.read(alice), "id"), id);
        }
        node.send(alice, "<iq type='result' id='one' to='romeo@else.example/x'/>");
        let answer = only(&mut node);
        assert!(answer.contains("type='result' id='one'"), "{answer}");
        // R7: the other one is answered for the session that has ended.
        node.cut(alice);
        let answers: Vec<String> =
            node.said_outside().into_iter().filter(|said| said.starts_with("<iq")).collect();
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_refused(&answers[0], "service-unavailable");
        assert_eq!(attr(&answers[0], "id"), "two");
    }
}

#[test]
fn who_is_blocked_is_not_heard_and_hears_of_nobody() {
    let mut node = federated(2);
    let alice = node.online("alice", "phone");
    let block = "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'>\
        <item jid='else.example'/></block></iq>";
    node.send(alice, block);
    node.read(alice);
    node.come_in(&romeo("alice@here", "hi"));
    assert_refused(&only(&mut node), "service-unavailable");
    node.come_in(&request("alice@here/phone", "<query xmlns='urn:x'/>"));
    assert_refused(&only(&mut node), "service-unavailable");
    node.come_in("<presence from='romeo@else.example' to='alice@here' type='probe'/>");
    assert!(node.said_outside().iter().all(|said| !said.contains("/phone'")));
    assert_eq!(node.read(alice), "");
    node.send(alice, &chat("romeo@else.example", "hi"));
    assert_refused(&node.read(alice), "not-acceptable");
    assert!(node.gone_out().is_empty());
}

#[test]
fn federation_core_speaks_for_nobody_here_and_brings_nothing_for_others() {
    let mut node = federated_with(1, |config| config.components = vec![access("bot.here")]);
    let alice = node.online("alice", "phone");
    node.users(&["bob"]);
    for (from, to) in [
        ("bob@here/x", "alice@here"),
        ("here", "alice@here"),
        ("x@bot.here", "alice@here"),
        ("romeo@else.example", "juliet@third.example"),
    ] {
        let said = romeo(to, "hi").replace("romeo@else.example/x", from);
        let stanza = said.as_bytes();
        let open_end = u32::try_from(said.find('>').unwrap() + 1).unwrap();
        let close_start = u32::try_from(said.len() - "</message>".len()).unwrap();
        let frame = Envelope {
            epoch: 0,
            number: 0,
            hops: 0,
            ingress: node.wall(),
            trace: None,
            flags: Flags::WANTS_ACK,
            from,
            to,
            also_to: Recipients::NONE,
            kind: Kind::Message,
            subtype: 0,
            open_end,
            close_start,
            stanza,
        };
        node.bring_in_frame(0, 0, &frame);
        node.bring_in_frame(0, 0, &Envelope { kind: Kind::Control, ..frame });
    }
    assert_eq!(node.probe(0).frames_refused, 8);
    assert_eq!(node.unhandled_from_outside(0), 0, "nobody waits for them");
    assert_eq!((node.read(alice).as_str(), node.accounts()), ("", 1));
    assert!(node.gone_out().is_empty());
}

// ---- components

#[test]
fn components_talk_to_other_domains_and_back_wherever_they_are_connected() {
    for shards in [1, 4] {
        for at in 0..shards {
            let mut node =
                federated_with(shards, |config| config.components = vec![access("bot.here")]);
            let message = romeo("room@bot.here/nick", "hi");
            let shard = node.come_in(&message);
            assert_refused(&only(&mut node), "remote-server-timeout");
            let bot = node.component(at.into(), "bot.here");
            node.come_in(&message);
            node.come_in(&request("bot.here", "<ping xmlns='urn:xmpp:ping'/>"));
            node.come_in("<presence from='romeo@else.example/x' to='room@bot.here/nick'/>");
            let heard = node.elements(bot);
            assert_eq!(heard.len(), 3, "{heard:?}");
            assert_eq!(bodies(&heard[0]), ["hi"]);
            assert_eq!(node.unhandled_from_outside(shard), 0);
            assert!(node.gone_out().is_empty());
            node.send(bot, "<iq type='result' id='q' from='bot.here' to='romeo@else.example/x'/>");
            node.send(bot, "<message from='room@bot.here' to='romeo@else.example/x'/>");
            node.send(bot, "<presence from='room@bot.here/n' to='romeo@else.example/x'/>");
            let sent = node.gone_out();
            assert_eq!(sent.len(), 3);
            assert!(sent.iter().all(|frame| frame.to == ["romeo@else.example/x"]));
            assert_eq!(node.read(bot), "");
            // What it was asked and leaves open is answered for it.
            node.come_in(&request("bot.here", "<ping xmlns='urn:xmpp:ping'/>"));
            node.cut(bot);
            assert_refused(&only(&mut node), "remote-server-timeout");
            assert_eq!(node.faults(), 0);
        }
    }
}

// ---- full rings

fn long(to: &str) -> String {
    let pad = "x".repeat(10_000);
    format!("<message to='{to}' from='bot.here'><body>b</body><x xmlns='urn:x'>{pad}</x></message>")
}

#[test]
fn full_ring_stops_those_alone_who_send_to_other_domains() {
    let mut node = federated_with(1, |config| {
        config.components = vec![access("bot.here")];
        config.limits.output_bytes = 4 << 20;
    });
    let (alice, bob) = (node.online("alice", "phone"), node.online("bob", "pc"));
    let bot = node.component(0, "bot.here");
    node.fill_foreign_rings(true);
    let burst: String = (0..60).map(|_| long("romeo@else.example")).collect();
    node.send(alice, &burst.replace(" from='bot.here'", ""));
    assert!(!node.is_read(alice));
    node.send(bot, &burst);
    assert!(!node.is_read(bot), "nor is a component read");
    node.relieve();
    assert!(!node.is_read(alice) && !node.is_read(bot), "nothing has changed");
    node.send(
        bob,
        &burst.replace(" from='bot.here'", "").replace("romeo@else.example", "bob@here"),
    );
    assert!(node.is_read(bob), "who sends nothing there goes on");
    assert_eq!(bodies(&node.read(bob)).len(), 60);
    assert!(node.gone_out().is_empty());
    node.fill_foreign_rings(false);
    while !node.is_read(alice) || !node.is_read(bot) {
        node.relieve();
    }
    assert_eq!(node.gone_out().len(), 120);
}

#[test]
fn ring_that_takes_no_more_bounces_messages_and_drops_presence() {
    let mut node = federated(1);
    node.users(&["alice"]);
    let mut romeo = RosterItem::new(Jid::parse("romeo@else.example").unwrap());
    romeo.subscription = Subscription::From;
    let (owner, set) = (bare("alice"), vec![romeo]);
    node.change_account("alice", Write::PutRoster { owner, set, remove: Vec::new(), version: 1 });
    let alice = node.online("alice", "phone");
    node.gone_out();
    node.fill_foreign_rings(true);
    // Answers to others, which nobody's reading can stop: as much as the ring takes, and then what may wait for it.
    let id = "y".repeat(60_000);
    for number in 0..600 {
        let from = format!("r{number}@else.example/x");
        node.come_in(&format!(
            "<iq from='{from}' to='alice@here/none' type='get' id='{id}'><q xmlns='urn:x'/></iq>"
        ));
    }
    assert!(node.probe(0).posts_dropped > 0, "the list has a bound");
    node.send(alice, &chat("romeo@else.example", "1"));
    assert_refused(&node.read(alice), "resource-constraint");
    node.send(alice, "<presence/>");
    assert_eq!(node.probe(0).presence_dropped, 1);
    node.fill_foreign_rings(false);
    // What waited goes first.
    (0..4).for_each(|_| node.relieve());
    node.send(alice, &chat("romeo@else.example", "2"));
    let said = node.said_outside();
    assert_eq!(said.iter().flat_map(|said| bodies(said)).collect::<Vec<_>>(), ["2"]);
}

// ---- fronts

#[test]
fn front_leaves_messages_for_other_domains_to_the_owner_of_the_account() {
    let (mut nodes, names) = one_node_away(|config| config.federation_cores = 1);
    let (alice, _) = online_at(&mut nodes, 2, &names[0]);
    let (bob, _) = online_at(&mut nodes, 3, &names[1]);
    assert!(nodes.sends_directly(alice));
    let to = format!("{}@here", names[1]);
    nodes.send(alice, &[chat(&to, "1"), chat("romeo@else.example", "2"), chat(&to, "3")].concat());
    assert_eq!(bodies(&nodes.read(bob)), ["1", "3"]);
    let sent = nodes.gone_out();
    assert_eq!((sent.len(), bodies(&sent[0].stanza)), (1, vec!["2"]));
    nodes.send(alice, R);
    nodes.advance(Duration::from_secs(1));
    assert!(nodes.read(alice).ends_with(&a(4)));
    assert!(nodes.sends_directly(alice), "it is let again");
    assert_eq!(nodes.faults(), 0);
}
