//! External components (XEP-0114): who may connect, what they send, what is for them, on one shard and on several.

use crate::harness::*;
use corefire::store::Subscription;
use std::time::Duration;

/// A node that knows the components `bot.here` and `news.example`.
fn node(shards: u16) -> Node {
    node_with(shards, |_| {})
}

fn node_with(shards: u16, change: impl FnOnce(&mut corefire::shard::ShardConfig)) -> Node {
    Node::with(shards, |config| {
        config.components = vec![access("bot.here"), access("news.example")];
        change(config);
    })
}

fn message(from: &str, to: &str, body: &str) -> String {
    format!("<message from='{from}' to='{to}' type='chat'><body>{body}</body></message>")
}

/// What was read, without the ids that the server gives to messages (XEP-0359).
fn without_ids(read: &str) -> String {
    let mut pieces = read.split("<stanza-id ");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + piece.split_once("/>").unwrap().1)
}

const TIMEOUT: &str = "<remote-server-timeout xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>";

// ---- streams

#[test]
fn a_stream_that_is_no_known_component_gets_its_condition() {
    let mut node = node(1);
    for (said, condition) in [
        (component_header("here"), "host-unknown"),
        (HEADER.replace("to='here'", "to='bot.here'"), "invalid-namespace"),
        (component_header("bot.here") + "<handshake>00</handshake>", "not-authorized"),
        (component_header("bot.here") + "<message from='bot.here' to='a@here'/>", "not-authorized"),
        (component_header("bot.here") + "<!DOCTYPE a>", "restricted-xml"),
    ] {
        let peer = node.connect_component(0);
        node.send(peer, &said);
        let answer = node.read(peer);
        assert!(answer.contains(&format!("<{condition} xmlns=")), "{said}: {answer}");
        assert!(answer.starts_with("<?xml version='1.0'?><stream:stream "), "{answer}");
        assert!(answer.contains("xmlns='jabber:component:accept'"), "{answer}");
        assert!(answer.ends_with("</stream:error></stream:stream>"), "{answer}");
        assert!(!node.is_open(peer));
    }
    assert_eq!(node.probe(0).connections, 0);
}

#[test]
fn a_component_has_its_time_to_log_in_and_then_may_be_silent() {
    let mut node = node(1);
    let slow = node.connect_component(0);
    node.send(slow, &component_header("bot.here"));
    let bot = node.component(0, "bot.here");
    node.advance(Duration::from_secs(31));
    assert!(node.read(slow).contains("<connection-timeout "));
    assert!(!node.is_open(slow));
    (0..10).for_each(|_| node.advance(Duration::from_secs(60)));
    assert!(node.is_open(bot), "nobody has to say anything");
    let blanks = node.read(bot);
    assert!(blanks.len() >= 4 && blanks.bytes().all(|byte| byte == b' '), "{blanks:?}");
}

#[test]
fn elements_before_the_handshake_are_small() {
    let mut node = node(1);
    let peer = node.connect_component(0);
    node.send(peer, &component_header("bot.here"));
    node.send(peer, &format!("<handshake>{}</handshake>", "0".repeat(10_000)));
    assert!(node.read(peer).contains("<policy-violation "));
    let bot = node.component(0, "bot.here");
    let _alice = node.online("alice", "phone");
    node.send(bot, &message("bot.here", "alice@here", &"x".repeat(10_000)));
    assert!(node.is_open(bot));
}

#[test]
fn a_component_has_so_many_connections() {
    let mut node = node_with(2, |config| config.limits.component_connections = 2);
    let (first, _second) = (node.component(0, "bot.here"), node.component(1, "bot.here"));
    let third = node.connect_component(0);
    node.send(third, &component_header("bot.here"));
    let id = attr(&node.read(third), "id").to_owned();
    let hash = corefire::stream::component::Secret::new("bot.here").handshake(&id);
    node.send(third, &format!("<handshake>{hash}</handshake>"));
    let answer = node.read(third);
    assert!(answer.contains("<resource-constraint ") && !answer.contains("<handshake/>"));
    let _other = node.component(0, "news.example");
    node.send(first, "</stream:stream>");
    let _again = node.component(0, "bot.here");
}

// ---- what a component sends

#[test]
fn a_component_reaches_users_on_every_shard_and_they_reach_it() {
    for shards in 1..=4 {
        let mut node = node(shards);
        let bot = node.component(usize::from(shards) - 1, "bot.here");
        for name in ["alice", "bob", "carol", "dave"] {
            let user = node.online(name, "phone");
            node.send(bot, &message("helper@bot.here/x", &format!("{name}@here"), "hi"));
            assert_eq!(
                without_ids(&node.read(user)),
                format!(
                    "<message from='helper@bot.here/x' to='{name}@here' type='chat'>\
                     <body>hi</body></message>"
                )
            );
            let from = format!("{name}@here/phone");
            for to in ["helper@bot.here", "bot.here/any", "bot.here"] {
                node.send(user, &message(&from, to, "back"));
                assert_eq!(node.read(bot), message(&from, to, "back"));
            }
        }
        assert_eq!(node.faults(), 0);
    }
}

#[test]
fn a_message_for_somebody_who_is_away_is_kept() {
    let mut node = node(2);
    node.users(&["alice"]);
    let bot = node.component(0, "bot.here");
    node.send(bot, &message("bot.here", "alice@here", "later"));
    assert_eq!(node.read(bot), "");
    assert_eq!(node.logged("alice"), 1);
    let alice = node.login("alice", "phone");
    node.send(alice, "<presence/>");
    assert_eq!(bodies(&node.read(alice)), ["later"]);
}

#[test]
fn what_cannot_be_delivered_comes_back_to_the_component() {
    let mut node = node(2);
    let bot = node.component(0, "bot.here");
    let iq = |to: &str| {
        format!("<iq type='get' id='i' from='x@bot.here' to='{to}'><q xmlns='urn:unknown'/></iq>")
    };
    node.users(&["alice"]);
    for (said, condition) in [
        (
            message("x@bot.here", "nobody@here/gone", "a").replace("chat", "normal"),
            "service-unavailable",
        ),
        (message("x@bot.here", "nobody@here", "a"), "service-unavailable"),
        (message("x@bot.here", "here", "a"), "service-unavailable"),
        (message("x@bot.here", "a@elsewhere.example", "a"), "remote-server-not-found"),
        (message("x@bot.here", "@here", "a"), "jid-malformed"),
        ("<message from='x@bot.here'><body>a</body></message>".to_owned(), "bad-request"),
        (message("x@bot.here", "a@news.example", "a"), "remote-server-timeout"),
        (iq("alice@here/gone"), "service-unavailable"),
        (iq("here"), "service-unavailable"),
        (iq("alice@here").replace("type='get'", "type='what'"), "bad-request"),
        (iq("alice@here").replace(" id='i'", ""), "bad-request"),
        (iq("alice@here").replace("<q ", "<p xmlns='urn:p'/><q "), "bad-request"),
        ("<presence type='what' from='x@bot.here' to='alice@here'/>".to_owned(), "bad-request"),
    ] {
        node.send(bot, &said);
        let answer = node.read(bot);
        assert!(answer.contains(&format!("<{condition} xmlns=")), "{said}: {answer}");
        assert!(answer.contains(" to='x@bot.here'"), "{said}: {answer}");
        assert!(!answer.contains("<stream:error>"), "{said}: {answer}");
    }
    for silent in [
        "<iq type='result' id='i' from='bot.here' to='@x'/>",
        "<presence from='bot.here' to='here'/>",
    ] {
        node.send(bot, silent);
        assert_eq!(node.read(bot), "", "{silent}");
    }
    assert!(node.is_open(bot));
}

#[test]
fn a_sender_that_is_not_the_component_ends_its_stream() {
    let mut node = node(1);
    let alice = node.online("alice", "phone");
    for (from, condition) in [
        ("from='alice@here'", "invalid-from"),
        ("from='news.example'", "invalid-from"),
        ("from='bot.here.evil'", "invalid-from"),
        ("from='evil/@bot.here'", "invalid-from"),
        ("from='@bot.here'", "improper-addressing"),
        ("from=''", "improper-addressing"),
        ("", "improper-addressing"),
    ] {
        let bot = node.component(0, "bot.here");
        let said = format!("<message {from} to='alice@here'><body>x</body></message>");
        node.send(bot, &said);
        assert!(node.read(bot).contains(&format!("<{condition} ")), "{from}");
        assert!(!node.is_open(bot));
    }
    assert_eq!(node.read(alice), "");
    assert_eq!(node.probe(0).component_connections, 0);
}

#[test]
fn the_components_namespace_becomes_the_clients_wherever_it_stands() {
    let mut node = node(1);
    let alice = node.online("alice", "phone");
    let bot = node.component(0, "bot.here");
    let ns = "jabber:component:accept";
    let start = "from='bot.here' to='alice@here/phone'";
    for (sent, read) in [
        (format!("<message xmlns='{ns}' {start}><body>a</body></message>"), "<body>a</body>"),
        (format!("<message {start}><body xmlns='{ns}'>a</body></message>"), "<body>a</body>"),
        (
            format!("<p:message xmlns:p='{ns}' {start}><p:body>a</p:body></p:message>"),
            "<body>a</body>",
        ),
        (
            format!(
                "<message {start}><f xmlns='urn:f'><message xmlns='{ns}'><body>a</body></message></f></message>"
            ),
            "<f xmlns='urn:f'><message xmlns='jabber:client'><body>a</body></message></f>",
        ),
        (
            format!(
                "<message {start}><f xmlns='urn:f' xmlns:p='{ns}'><p:body>a</p:body></f></message>"
            ),
            "<f xmlns='urn:f'><body xmlns='jabber:client'>a</body></f>",
        ),
    ] {
        node.send(bot, &sent);
        let expected = format!("<message from='bot.here' to='alice@here/phone'>{read}</message>");
        assert_eq!(without_ids(&node.read(alice)), expected, "{sent}");
    }
    // A message of another namespace is no stanza of this stream.
    node.send(bot, &format!("<message xmlns='jabber:client' {start}/>"));
    assert!(node.read(bot).contains("<unsupported-stanza-type "));
    assert_eq!(node.read(alice), "");
}

#[test]
fn the_server_answers_a_component_as_it_answers_clients() {
    let mut node = node(2);
    let bot = node.component(1, "bot.here");
    node.send(
        bot,
        "<iq type='get' id='1' from='bot.here/a' to='here'><ping xmlns='urn:xmpp:ping'/></iq>",
    );
    assert_eq!(node.read(bot), "<iq type='result' id='1' from='here' to='bot.here/a'></iq>");
}

#[test]
fn the_server_lists_the_components_that_are_connected() {
    let mut node = node_with(2, |config| config.policy.domains.push("there".into()));
    let alice = node.online("alice", "phone");
    let items = |node: &mut Node, domain: &str| {
        let query = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
        node.send(alice, &format!("<iq type='get' id='d' to='{domain}'>{query}</iq>"));
        node.read(alice)
    };
    assert!(!items(&mut node, "here").contains("<item "));
    let bot = node.component(1 - node.owner("alice"), "bot.here");
    let _news = node.component(0, "news.example");
    let listed = items(&mut node, "here");
    assert!(listed.contains("<item jid='bot.here'/>"), "{listed}");
    assert!(listed.contains("<item jid='news.example'/>"), "{listed}");
    let elsewhere = items(&mut node, "there");
    assert!(!elsewhere.contains("bot.here") && elsewhere.contains("news.example"), "{elsewhere}");
    node.cut(bot);
    assert!(!items(&mut node, "here").contains("bot.here"));
}

// ---- what is for a component

#[test]
fn a_component_that_is_not_connected_cannot_be_reached_for_now() {
    let mut node = node(3);
    let alice = node.online("alice", "phone");
    for said in [
        chat("helper@bot.here", "hi"),
        "<iq type='get' id='1' to='bot.here'><ping xmlns='urn:xmpp:ping'/></iq>".to_owned(),
        "<presence to='bot.here/x'/>".to_owned(),
    ] {
        node.send(alice, &said);
        let answer = node.read(alice);
        assert!(answer.contains(TIMEOUT) && answer.contains("type='wait'"), "{said}: {answer}");
        assert!(answer.contains("from='") && !answer.contains("from='here'"), "{answer}");
    }
    for said in [
        "<message type='error' to='bot.here'><body>x</body></message>",
        "<iq type='result' id='1' to='bot.here'/>",
        "<presence type='unavailable' to='bot.here/x'/>",
    ] {
        node.send(alice, said);
        assert_eq!(node.read(alice), "", "{said}");
    }
}

#[test]
fn questions_and_answers_pass_both_ways() {
    for shards in 1..=3 {
        let mut node = node(shards);
        let alice = node.online("alice", "phone");
        let bot = node.component(0, "bot.here");
        let ask = "<q xmlns='urn:q'/></iq>";
        node.send(alice, &format!("<iq type='get' id='1' to='bot.here'>{ask}"));
        assert_eq!(
            node.read(bot),
            format!("<iq from='alice@here/phone' to='bot.here' type='get' id='1'>{ask}")
        );
        node.send(bot, "<iq type='result' id='1' from='bot.here' to='alice@here/phone'/>");
        assert_eq!(
            node.read(alice),
            "<iq from='bot.here' to='alice@here/phone' type='result' id='1'></iq>"
        );
        node.send(
            bot,
            &format!("<iq type='set' id='2' from='bot.here' to='alice@here/phone'>{ask}"),
        );
        assert!(node.read(alice).contains("id='2'"));
        node.send(alice, "<iq type='error' id='2' to='bot.here'/>");
        assert!(node.read(bot).contains("type='error'"));
        // Asked, and gone without an answer (R7).
        node.send(
            bot,
            &format!("<iq type='set' id='3' from='bot.here' to='alice@here/phone'>{ask}"),
        );
        node.send(alice, "</stream:stream>");
        let answer = node.read(bot);
        assert!(answer.contains("id='3'") && answer.contains("<service-unavailable "), "{answer}");
    }
}

#[test]
fn an_acknowledgement_covers_what_a_component_was_given() {
    for shards in 1..=3 {
        let mut node = node(shards);
        let bot = node.component(0, "bot.here");
        let (alice, _) = node.online_acked("alice", "phone");
        node.send(alice, &chat("bot.here", "hi"));
        node.send(alice, "<r xmlns='urn:xmpp:sm:3'/>");
        assert_eq!(node.read(alice), "<a xmlns='urn:xmpp:sm:3' h='2'/>");
        assert_eq!(bodies(&node.read(bot)), ["hi"]);
        assert_eq!(node.logged("alice"), 0);
    }
}

#[test]
fn a_user_and_a_component_see_each_others_presence() {
    for shards in 1..=3 {
        let mut node = node(shards);
        let alice = node.online("alice", "phone");
        let bot = node.component(0, "bot.here");
        node.send(alice, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
        node.send(alice, "<presence type='subscribe' to='helper@bot.here/x'/>");
        assert_eq!(
            node.read(bot),
            "<presence from='alice@here' to='helper@bot.here' type='subscribe'></presence>"
        );
        node.send(bot, "<presence type='subscribed' from='helper@bot.here/x' to='alice@here'/>");
        node.send(bot, "<presence type='subscribe' from='helper@bot.here' to='alice@here'/>");
        node.send(
            bot,
            "<presence from='helper@bot.here/x' to='alice@here'><show>dnd</show></presence>",
        );
        let seen = node.read(alice);
        assert!(
            seen.contains("from='helper@bot.here' to='alice@here' type='subscribed'"),
            "{seen}"
        );
        assert!(seen.contains("subscription='to'"), "{seen}");
        assert!(seen.contains("<show>dnd</show>"), "{seen}");
        node.send(alice, "<presence type='subscribed' to='helper@bot.here'/>");
        let told = node.read(bot);
        assert!(told.contains("type='subscribed'"), "{told}");
        assert!(
            told.contains("<presence from='alice@here/phone' to='helper@bot.here'"),
            "the contact learns who is here: {told}"
        );
        node.send(bot, "<presence type='probe' from='helper@bot.here' to='alice@here'/>");
        assert!(node.read(bot).contains("<presence from='alice@here/phone' to='helper@bot.here'"));
        node.send(alice, "<presence><show>away</show></presence>");
        assert_eq!(
            node.read(bot),
            "<presence from='alice@here/phone' to='helper@bot.here'><show>away</show></presence>"
        );
        node.send(alice, "</stream:stream>");
        assert!(node.read(bot).contains("type='unavailable'"));
        let _alice = node.online("alice", "pc");
        let told = node.read(bot);
        assert!(told.contains("type='probe'") && told.contains("from='alice@here/pc'"), "{told}");
    }
}

/// RFC 6121 §A.3.2: whose own server may not know yet is told that the subscription is over, after where the contact is.
#[test]
fn a_component_that_unsubscribes_is_told_that_it_did() {
    for shards in 1..=3 {
        let mut node = node(shards);
        let alice = node.online("alice", "phone");
        let bot = node.component(0, "bot.here");
        node.send(bot, "<presence type='subscribe' from='helper@bot.here' to='alice@here'/>");
        node.send(alice, "<presence type='subscribed' to='helper@bot.here'/>");
        node.read(bot);
        let leave = "<presence type='unsubscribe' from='helper@bot.here' to='alice@here'/>";
        node.send(bot, leave);
        assert_eq!(
            node.read(bot),
            "<presence from='alice@here/phone' type='unavailable' to='helper@bot.here'></presence>\
             <presence from='alice@here' to='helper@bot.here' type='unsubscribed'></presence>"
        );
        node.send(bot, leave);
        assert_eq!(node.read(bot), "", "it changes nothing");
    }
}

/// RFC 6121 §8.5.3.2.2: a request to a resource is one to its account; the others to one that is not there are nothing.
#[test]
fn what_a_component_answers_to_a_resource_that_is_gone_is_ignored() {
    let mut node = node(2);
    let alice = node.online("alice", "phone");
    let bot = node.component(0, "bot.here");
    let send = |node: &mut Node, kind: &str, to: &str| {
        node.send(bot, &format!("<presence type='{kind}' from='x@bot.here' to='{to}'/>"));
    };
    send(&mut node, "subscribe", "alice@here/gone");
    assert!(node.read(alice).contains("from='x@bot.here' to='alice@here' type='subscribe'"));
    node.send(alice, "<presence type='subscribe' to='x@bot.here'/>");
    let subscription = |node: &mut Node| node.roster("alice")[0].subscription;
    send(&mut node, "subscribed", "alice@here/gone");
    assert_eq!(subscription(&mut node), Subscription::None);
    send(&mut node, "subscribed", "alice@here/phone");
    assert_eq!(subscription(&mut node), Subscription::To);
    send(&mut node, "unsubscribed", "alice@here/gone");
    assert_eq!(subscription(&mut node), Subscription::To);
    send(&mut node, "unsubscribed", "alice@here");
    assert_eq!(subscription(&mut node), Subscription::None);
}

#[test]
fn who_told_a_component_directly_is_seen_to_leave() {
    let mut node = node(2);
    let alice = node.online("alice", "phone");
    let bot = node.component(0, "bot.here");
    node.send(alice, "<presence to='room@bot.here/nick'/>");
    assert!(node.read(bot).contains("to='room@bot.here/nick'"));
    node.cut(alice);
    let gone = node.read(bot);
    assert!(
        gone.contains("to='room@bot.here/nick'") && gone.contains("type='unavailable'"),
        "{gone}"
    );
}

/// It got the request, so who asked waits for an answer; one comes, whatever becomes of the component.
#[test]
fn what_a_component_leaves_unanswered_is_answered_when_its_connection_is_lost() {
    for shards in 1..=3 {
        let mut node = node(shards);
        let alice = node.online("alice", "phone");
        let bot = node.component(usize::from(shards) - 1, "bot.here");
        let ask = |id: &str, to: &str| {
            format!("<iq type='get' id='{id}' to='{to}'><q xmlns='urn:q'/></iq>")
        };
        let asked = ["1", "2&amp;&gt;", "3"].map(|id| ask(id, "helper@bot.here/x"));
        node.send(
            alice,
            &[&asked.concat(), "<presence to='bot.here'/>", &ask("4", "bot.here")].concat(),
        );
        assert_eq!(node.read(bot).matches("<iq ").count(), 4);
        let answers = "<iq type='result' id='1' from='helper@bot.here/x' to='alice@here/phone'/>\
                       <iq type='error' id='4' from='bot.here' to='alice@here/phone'/>";
        node.send(bot, answers);
        assert_eq!(node.read(alice).matches("<iq ").count(), 2);
        node.stop_reading(bot);
        node.send(alice, &ask("5", "bot.here"));
        node.cut(bot);
        let told = node.elements(alice);
        let ids: Vec<&str> = told.iter().map(|one| attr(one, "id")).collect();
        assert_eq!(ids, ["2&amp;&gt;", "3", "5"], "{told:?}");
        assert!(told.iter().all(|one| one.contains(TIMEOUT)), "{told:?}");
        assert_eq!(node.faults(), 0);
    }
}

#[test]
fn an_answer_counts_on_whichever_connection_it_comes() {
    for shards in 1..=3 {
        let mut node = node(shards);
        let alice = node.online("alice", "phone");
        let places = [0, usize::from(shards) - 1];
        let bots = places.map(|shard| node.component(shard, "bot.here"));
        node.send(alice, "<iq type='get' id='1' to='bot.here'><q xmlns='urn:q'/></iq>");
        let asked = bots.map(|bot| node.read(bot).contains("<iq "));
        assert!(asked[0] != asked[1], "{asked:?}");
        let (at, other) = if asked[0] { (bots[0], bots[1]) } else { (bots[1], bots[0]) };
        node.send(other, "<iq type='result' id='1' from='bot.here' to='alice@here/phone'/>");
        assert!(node.read(alice).contains("type='result'"));
        node.cut(at);
        assert_eq!(node.read(alice), "");
    }
}

// ---- several connections

#[test]
fn several_connections_share_the_senders_and_each_keeps_its_own() {
    for shards in 1..=4u16 {
        let mut node = node(shards);
        let bots: Vec<Client> =
            (0..4).map(|number| node.component(number % usize::from(shards), "bot.here")).collect();
        let mut shares = [0; 4];
        for number in 0..40 {
            let user = node.online(&format!("user{number}"), "phone");
            (0..3).for_each(|_| node.send(user, &chat("bot.here", "hi")));
            let read: Vec<usize> = bots.iter().map(|bot| bodies(&node.read(*bot)).len()).collect();
            let place = read.iter().position(|count| *count == 3).expect("all on one connection");
            assert_eq!(read.iter().sum::<usize>(), 3);
            shares[place] += 1;
        }
        assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
        // One user of the component has one connection, whoever writes.
        for number in 0..5 {
            let user = node.online(&format!("user{number}"), "pc");
            node.send(user, &chat("room@bot.here", "hi"));
        }
        let read = bots.iter().map(|bot| bodies(&node.read(*bot)).len());
        assert_eq!(read.filter(|count| *count > 0).collect::<Vec<_>>(), [5]);
    }
}

#[test]
fn other_connections_take_over_from_one_that_goes() {
    for shards in 1..=3 {
        let mut node = node(shards);
        let bots =
            [node.component(0, "bot.here"), node.component(usize::from(shards) - 1, "bot.here")];
        let users: Vec<Client> =
            (0..10).map(|number| node.online(&format!("user{number}"), "phone")).collect();
        node.cut(bots[0]);
        users.iter().for_each(|user| node.send(*user, &chat("bot.here", "hi")));
        assert_eq!(bodies(&node.read(bots[1])).len(), 10);
        node.send(bots[1], "</stream:stream>");
        assert_eq!(node.read(bots[1]), "</stream:stream>");
        users.iter().for_each(|user| node.send(*user, &chat("bot.here", "hi")));
        users.iter().for_each(|user| assert!(node.read(*user).contains(TIMEOUT)));
    }
}

#[test]
fn what_is_on_its_way_to_a_connection_that_goes_comes_back() {
    let mut node = node(2);
    let away = 1 - node.owner("alice");
    let alice = node.online("alice", "phone");
    let bot = node.component(away, "bot.here");
    node.hold_rings();
    node.send(alice, &chat("bot.here", "one"));
    node.send(alice, "<iq type='get' id='1' to='bot.here'><q xmlns='urn:q'/></iq>");
    node.cut(bot);
    node.send(alice, &chat("bot.here", "two"));
    node.free_rings();
    let answers = node.read(alice);
    assert_eq!(answers.matches(TIMEOUT).count(), 3, "{answers}");
    assert_eq!(node.probe(away).component_stanzas_bounced, 3);
}

#[test]
fn an_answer_that_meets_a_connection_that_goes_finds_another() {
    let mut node = node(2);
    let [here, there] = [0, 1].map(|shard| node.component(shard, "bot.here"));
    // Somebody of the first core whose words go to the connection at the other.
    let (user, name) = (0..100)
        .map(|number| format!("user{number}"))
        .find_map(|name| {
            let user = node.online(&name, "phone");
            node.send(user, &chat("bot.here", "where"));
            let is_there = node.read(there).contains("where");
            node.read(here);
            (is_there && node.owner(&name) == 0).then_some((user, name))
        })
        .expect("one of a hundred");
    let ask = |node: &mut Node, bot: Client| {
        let from = "<iq type='get' id='1' from='bot.here'";
        node.send(bot, &format!("{from} to='{name}@here/phone'><q xmlns='urn:q'/></iq>"));
        assert!(node.read(user).contains("urn:q"));
    };
    let answer = "<iq type='result' id='1' to='bot.here'/>";
    ask(&mut node, here);
    node.hold_rings();
    node.send(user, answer);
    node.cut(there);
    node.free_rings();
    assert!(node.read(here).contains("type='result'"));
    // And with nobody left it is dropped.
    ask(&mut node, here);
    node.cut(here);
    node.send(user, answer);
    assert_eq!(node.read(user), "");
}

// ---- slow and fast components

#[test]
fn a_component_that_does_not_read_is_closed_and_nothing_is_lost_in_silence() {
    for shards in 1..=2 {
        let mut node = node_with(shards, |config| config.limits.output_bytes = 100_000);
        let alice = node.online("alice", "phone");
        let bot = node.component(0, "bot.here");
        node.send(alice, &chat("bot.here", "read"));
        assert_eq!(bodies(&node.read(bot)), ["read"]);
        node.stop_reading(bot);
        let big = chat("bot.here", &"x".repeat(10_000));
        (0..20).for_each(|_| node.send(alice, &big));
        assert!(!node.is_open(bot));
        let answers = node.read(alice);
        assert_eq!(answers.matches(TIMEOUT).count(), 20, "each is answered");
        assert_eq!(node.probe(0).slow_readers_closed, 1);
        assert_eq!(node.probe(0).connections, 1 - u64::from(node.owner("alice") != 0));
        let again = node.component(0, "bot.here");
        node.send(alice, &chat("bot.here", "back"));
        assert_eq!(bodies(&node.read(again)), ["back"]);
    }
}

#[test]
fn a_component_that_floods_is_made_to_wait_and_loses_nothing() {
    let mut node = node_with(2, |config| config.limits.output_bytes = 4 << 20);
    let away = 1 - node.owner("alice");
    let alice = node.online("alice", "phone");
    let bot = node.component(away, "bot.here");
    let text: String = (0..80)
        .map(|number| message("bot.here", "alice@here", &format!("{number:.>5000}")))
        .collect();
    node.send(bot, &text);
    node.relieve();
    assert!(node.probe(away).reads_paused > 0);
    let read = node.read(alice);
    let numbers: Vec<&str> =
        bodies(&read).iter().map(|body| body.trim_start_matches('.')).collect();
    assert_eq!(numbers, (0..80).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_stopping_node_ends_a_components_stream() {
    let mut node = node(2);
    let bot = node.component(1, "bot.here");
    node.shut_down();
    assert!(node.read(bot).contains("<system-shutdown "));
    assert!(!node.is_open(bot));
}

// ---- another configuration

#[test]
fn a_configuration_that_changes_lets_components_in_and_sends_them_away() {
    let mut node = node(2);
    let alice = node.online("alice", "phone");
    let (bot, news) = (node.component(0, "bot.here"), node.component(1, "news.example"));
    node.reconfigure(|config| {
        config.components = vec![access("news.example"), access("bot.here")];
    });
    assert!(node.is_open(bot) && node.is_open(news));
    node.reconfigure(|config| {
        let mut changed = access("news.example");
        changed.secret = corefire::stream::component::Secret::new("other");
        config.components = vec![changed, access("new.here")];
    });
    assert!(node.read(bot).contains("<host-gone "));
    assert!(node.read(news).contains("<not-authorized "), "its secret is another now");
    assert!(!node.is_open(bot) && !node.is_open(news));
    node.send(alice, &chat("bot.here", "hi"));
    assert!(node.read(alice).contains("<remote-server-not-found "));
    node.send(alice, &chat("news.example", "hi"));
    assert!(node.read(alice).contains(TIMEOUT));
    let new = node.component(1, "new.here");
    node.send(alice, &chat("x@new.here", "hi"));
    assert_eq!(bodies(&node.read(new)), ["hi"]);
}
