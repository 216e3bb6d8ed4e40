//! Requests (RFC 6120 §8.2.3, RFC 6121 §8.5): each gets exactly one answer (R7).

use crate::harness::*;
use std::time::Duration;

const PING: &str = "<ping xmlns='urn:xmpp:ping'/>";

fn get(to: &str, payload: &str) -> String {
    let to = if to.is_empty() { String::new() } else { format!(" to='{to}'") };
    format!("<iq type='get' id='q'{to}>{payload}</iq>")
}

/// The one answer to a request.
fn ask(node: &mut Node, client: Client, request: &str) -> String {
    node.send(client, request);
    let mut answers = node.elements(client);
    assert_eq!(answers.len(), 1, "{request}: {answers:?}");
    let answer = answers.remove(0);
    assert_eq!(attr(&answer, "id"), "q", "{answer}");
    answer
}

fn assert_error(answer: &str, condition: &str) {
    assert_eq!(attr(answer, "type"), "error", "{answer}");
    let wanted = format!("<{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>");
    assert!(answer.contains(&wanted), "{condition} wanted: {answer}");
}

/// Alice and Bob see one another.
pub(crate) fn befriend(node: &mut Node, one: Client, other: Client, names: [&str; 2]) {
    let [name, friend] = names;
    node.send(one, &format!("<presence type='subscribe' to='{friend}@here'/>"));
    node.send(other, &format!("<presence type='subscribed' to='{name}@here'/>"));
    node.send(other, &format!("<presence type='subscribe' to='{name}@here'/>"));
    node.send(one, &format!("<presence type='subscribed' to='{friend}@here'/>"));
    node.read(one);
    node.read(other);
}

#[test]
fn unknown_request_is_unavailable_wherever_it_goes() {
    let mut node = Node::new(4);
    let alice = node.online("alice", "phone");
    node.users(&["bob", "carol", "dave", "erin"]);
    let payload = "<q xmlns='urn:unknown'/>";
    for to in
        ["", "here", "here/x", "alice@here", "bob@here", "carol@here", "dave@here", "erin@here"]
    {
        for kind in ["get", "set"] {
            let request = get(to, payload).replace("'get'", &format!("'{kind}'"));
            assert_error(&ask(&mut node, alice, &request), "service-unavailable");
        }
    }
}

#[test]
fn request_to_nobody_is_unavailable() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = node.online("alice", "phone");
        node.users(&["bob", "carol"]);
        for to in ["nobody@here", "nobody@here/x", "bob@here/x", "carol@here/x"] {
            let answer = ask(&mut node, alice, &get(to, PING));
            assert_error(&answer, "service-unavailable");
            assert_eq!(attr(&answer, "from"), to);
        }
    }
}

#[test]
fn request_that_is_none_is_a_bad_request() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    for request in [
        "<iq type='get' id='q'/>",
        "<iq type='get' id='q'><a xmlns='urn:a'/><b xmlns='urn:b'/></iq>",
        "<iq type='ask' id='q'><a xmlns='urn:a'/></iq>",
        "<iq id='q'><a xmlns='urn:a'/></iq>",
    ] {
        assert_error(&ask(&mut node, alice, request), "bad-request");
    }
    node.send(alice, "<iq type='get'><a xmlns='urn:a'/></iq>");
    assert!(node.read(alice).contains("<bad-request "));
}

#[test]
fn answer_comes_from_whom_was_asked() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let answer = ask(&mut node, alice, &get("here", PING));
    assert_eq!(answer, "<iq type='result' id='q' from='here' to='alice@here/phone'></iq>");
    let answer = ask(&mut node, alice, &get("", PING));
    assert_eq!(answer, "<iq type='result' id='q' to='alice@here/phone'></iq>");
    let answer = ask(&mut node, alice, &get("alice@here", PING));
    assert_eq!(attr(&answer, "from"), "alice@here");
}

#[test]
fn request_and_answer_pass_between_two_clients() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = node.online("alice", "phone");
        let bob = node.online("bob", "pc");
        node.send(alice, &get("bob@here/pc", PING));
        let request = node.read(bob);
        assert_eq!(
            request,
            format!("<iq from='alice@here/phone' to='bob@here/pc' type='get' id='q'>{PING}</iq>")
        );
        node.send(bob, "<iq type='result' id='q' to='alice@here/phone'/>");
        assert_eq!(
            node.read(alice),
            "<iq from='bob@here/pc' to='alice@here/phone' type='result' id='q'></iq>"
        );
        node.send(bob, "</stream:stream>");
        assert_eq!(node.read(alice), "", "an answered request gets no second answer");
    }
}

#[test]
fn request_is_answered_for_a_client_that_leaves() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = node.online("alice", "phone");
        let bob = node.online("bob", "pc");
        node.send(alice, &get("bob@here/pc", PING));
        node.cut(bob);
        let answer = node.read(alice);
        assert_error(&answer, "service-unavailable");
        assert_eq!((attr(&answer, "from"), attr(&answer, "id")), ("bob@here/pc", "q"));
    }
}

#[test]
fn request_in_the_queue_of_a_resumed_session_stays_its_clients_to_answer() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let (bob, id) = node.online_acked("bob", "pc");
    node.send(alice, &get("bob@here/pc", PING));
    node.cut(bob);
    node.advance(Duration::from_secs(30));
    let bob = node.authenticate(0, "bob");
    node.send(bob, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"));
    assert!(node.read(bob).contains(PING));
    node.send(bob, "<iq type='result' id='q' to='alice@here/phone'/>");
    assert_eq!(node.read(alice).matches("<iq ").count(), 1);
    node.cut(bob);
    node.advance(Duration::from_secs(61));
    assert_eq!(node.read(alice), "");
}

#[test]
fn result_that_nobody_asked_for_goes_where_it_is_addressed_or_nowhere() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    for to in ["here", "bob@here", "alice@here", "nobody@here/x", "bob@here/x", "x@there"] {
        node.send(alice, &format!("<iq type='result' id='r' to='{to}'/>"));
    }
    node.send(alice, "<iq type='result' id='r'/>");
    assert_eq!((node.read(alice), node.read(bob)), (String::new(), String::new()));
}

// ---- what the server answers

#[test]
fn server_shows_what_it_can() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let info = get("here", "<query xmlns='http://jabber.org/protocol/disco#info'/>");
    let answer = ask(&mut node, alice, &info);
    assert!(answer.contains("<identity category='server' type='im' "), "{answer}");
    for feature in [
        "http://jabber.org/protocol/disco#info",
        "http://jabber.org/protocol/disco#items",
        "urn:xmpp:ping",
        "urn:xmpp:time",
        "jabber:iq:version",
    ] {
        assert!(answer.contains(&format!("<feature var='{feature}'/>")), "{feature}: {answer}");
    }
    let items = get("here", "<query xmlns='http://jabber.org/protocol/disco#items'/>");
    let answer = ask(&mut node, alice, &items);
    assert!(answer.contains("<query xmlns='http://jabber.org/protocol/disco#items'/>"));
    let nodes = info.replace("info'/>", "info' node='x'/>");
    assert_error(&ask(&mut node, alice, &nodes), "item-not-found");
}

#[test]
fn account_shows_itself_to_its_owner_and_its_contacts_alone() {
    for shards in [1, 4] {
        let mut node = Node::new(shards);
        let alice = node.online("alice", "phone");
        let bob = node.online("bob", "pc");
        for query in ["disco#info", "disco#items"] {
            let payload = format!("<query xmlns='http://jabber.org/protocol/{query}'/>");
            for to in ["", "alice@here"] {
                let answer = ask(&mut node, alice, &get(to, &payload));
                assert_eq!(attr(&answer, "type"), "result");
            }
            for to in ["bob@here", "nobody@here"] {
                let answer = ask(&mut node, alice, &get(to, &payload));
                assert_error(&answer, "service-unavailable");
            }
        }
        befriend(&mut node, alice, bob, ["alice", "bob"]);
        let payload = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        let answer = ask(&mut node, alice, &get("bob@here", payload));
        assert!(answer.contains("<identity category='account' type='registered' "), "{answer}");
    }
}

#[test]
fn server_tells_its_time_and_version() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let time = ask(&mut node, alice, &get("here", "<time xmlns='urn:xmpp:time'/>"));
    assert!(time.contains("<tzo>+00:00</tzo><utc>2023-11-14T22:13:20"), "{time}");
    let version = ask(&mut node, alice, &get("here", "<query xmlns='jabber:iq:version'/>"));
    assert!(version.contains("<name>Corefire</name><version>"), "{version}");
    assert!(!version.contains("<os"), "{version}");
}

#[test]
fn session_of_old_clients_is_a_formality() {
    let mut node = Node::new(1);
    let alice = node.login("alice", "phone");
    let request =
        "<iq type='set' id='q'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>";
    assert_eq!(attr(&ask(&mut node, alice, request), "type"), "result");
}

#[test]
fn requests_pipelined_behind_one_that_waits_for_the_store_keep_their_order() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    node.hold_store();
    let set =
        "<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='x@there'/></query></iq>";
    let roster = "<iq type='get' id='2'><query xmlns='jabber:iq:roster'/></iq>";
    node.send(alice, &[set, roster].concat());
    assert_eq!(node.read(alice), "");
    assert!(!node.is_read(alice));
    node.free_store();
    let text = node.read(alice);
    assert!(text.starts_with("<iq type='result' id='1' "), "{text}");
    assert!(text.contains("<item jid='x@there' subscription='none'/>"), "{text}");
    assert!(node.is_read(alice));
}
