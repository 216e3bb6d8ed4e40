//! XEP-0198 §3 to §6: what a server must and should do about sessions that are enabled, resumed, or resumed too late.

use crate::acks::{R, a, resume, returning};
use crate::harness::*;
use crate::sasl2::{authenticate, bind2};
use std::time::Duration;

const NOT_FOUND: &str = "<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>";

fn enable(more: &str) -> String {
    format!("<enable xmlns='urn:xmpp:sm:3' resume='true' {more}/>")
}

/// A new connection of `name` resumes the session `id`; gives the answer, too.
fn back(node: &mut Node, name: &str, id: &str, h: u32) -> (Client, String) {
    let client = returning(node, name);
    node.send(client, &resume(id, h));
    let text = node.read(client);
    (client, text)
}

// ---- enabling (§3)

#[test]
fn client_that_wishes_a_shorter_time_to_resume_gets_it() {
    for (max, told) in [("20", 20), ("999", 60), ("0", 60), ("-1", 60), ("soon", 60)] {
        let mut node = Node::new(1);
        let mut alice = node.login("alice", "phone");
        node.send(alice, &enable(&format!("max='{max}'")));
        let enabled = node.read(alice);
        assert_eq!(attr(&enabled, "max"), told.to_string(), "{max}");
        let id = attr(&enabled, "id").to_owned();
        for (seconds, answer) in [(told - 1, "<resumed "), (told + 1, "<item-not-found ")] {
            node.cut(alice);
            node.advance(Duration::from_secs(seconds));
            let text;
            (alice, text) = back(&mut node, "alice", &id, 0);
            assert!(text.contains(answer), "{max} after {seconds}: {text}");
        }
    }
}

#[test]
fn resumption_is_not_offered_where_the_server_allows_no_time_for_it() {
    let mut node = Node::with(1, |config| config.limits.resume = Duration::ZERO);
    let alice = node.login("alice", "phone");
    node.send(alice, &enable(""));
    assert_eq!(node.read(alice), "<enabled xmlns='urn:xmpp:sm:3'/>");
    node.cut(alice);
    assert_eq!(node.sessions(), 0);
}

#[test]
fn time_that_was_promised_outlasts_a_change_of_the_configuration() {
    let mut node = Node::new(1);
    let (alice, id) = node.online_acked("alice", "phone");
    node.reconfigure(|config| config.limits.resume = Duration::from_secs(1));
    node.cut(alice);
    node.advance(Duration::from_secs(59));
    assert!(back(&mut node, "alice", &id, 1).1.starts_with("<resumed "));
}

#[test]
fn stream_management_before_login_is_refused() {
    for asked in [enable(""), resume("x", 0)] {
        let mut node = Node::new(1);
        let stranger = node.connect(0);
        node.send(stranger, HEADER);
        node.read(stranger);
        node.send(stranger, &asked);
        let text = node.read(stranger);
        assert!(text.starts_with("<failed xmlns='urn:xmpp:sm:3'><unexpected-request "), "{text}");
        assert!(text.contains("<not-authorized "), "{text}");
        assert!(!node.is_open(stranger));
    }
}

#[test]
fn acknowledgements_without_stream_management_change_nothing() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    node.send(alice, &[R, &a(7)].concat());
    assert_eq!(node.read(alice), "");
    assert!(node.is_open(alice));
}

// ---- resuming (§5, §6)

#[test]
fn session_is_resumed_wherever_the_new_connection_lands() {
    let mut node = Node::new(4);
    let alice = node.online("alice", "phone");
    let (mut bob, id) = node.online_acked("bob", "pc");
    let mut h = 1;
    for shard in 0..4 {
        node.send(alice, &chat("bob@here", "seen"));
        assert_eq!(bodies(&node.read(bob)), ["seen"]);
        h += 1;
        node.send(alice, &chat("bob@here", "unseen"));
        node.cut(bob);
        node.send(alice, &chat("bob@here", "missed"));
        bob = node.authenticate(shard, "bob");
        node.send(bob, &resume(&id, h));
        let text = node.read(bob);
        assert!(text.starts_with("<resumed "), "{text}");
        assert_eq!(bodies(&text), ["unseen", "missed"]);
        assert_eq!(node.shard_of(bob), node.owner("bob"));
        h += 2;
        node.send(bob, &a(h));
        node.read(bob);
    }
}

#[test]
fn resume_in_a_bound_stream_fails_and_the_stream_lives() {
    let mut node = Node::new(1);
    let (alice, id) = node.online_acked("alice", "phone");
    node.send(alice, &[resume(&id, 1).as_str(), R].concat());
    let text = node.read(alice);
    assert!(text.starts_with("<failed xmlns='urn:xmpp:sm:3'><unexpected-request "), "{text}");
    assert!(text.ends_with(&a(1)), "{text}");
    // So does one who resumed and wants to do so once more.
    node.cut(alice);
    let (alice, text) = back(&mut node, "alice", &id, 1);
    assert!(text.starts_with("<resumed "), "{text}");
    node.send(alice, &[resume(&id, 1).as_str(), R].concat());
    let text = node.read(alice);
    assert!(text.contains("<unexpected-request ") && text.ends_with(&a(1)), "{text}");
}

#[test]
fn resume_without_a_number_is_a_bad_request_and_a_resource_may_be_bound_instead() {
    let mut node = Node::new(1);
    let (alice, id) = node.online_acked("alice", "phone");
    node.cut(alice);
    for h in ["", "h=''", "h='x'", "h='-1'", "h='4294967296'"] {
        let again = node.authenticate(0, "alice");
        node.send(again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' {h}/>"));
        let text = node.read(again);
        assert!(text.starts_with("<failed xmlns='urn:xmpp:sm:3'><bad-request "), "{h}: {text}");
        node.send(again, &bind("pc"));
        assert!(node.read(again).contains("<jid>alice@here/pc</jid>"));
        node.send(again, "</stream:stream>");
    }
    assert!(back(&mut node, "alice", &id, 1).1.starts_with("<resumed "));
}

#[test]
fn of_two_connections_that_wait_to_resume_the_newer_one_gets_the_session() {
    let mut node = Node::new(2);
    let (alice, id) = node.online_acked("alice", "phone");
    node.users(&["bob"]);
    node.send(alice, &chat("bob@here", "before"));
    node.hold_store();
    node.send(alice, &chat("bob@here", "hi"));
    node.cut(alice);
    let (one, _) = back(&mut node, "alice", &id, 1);
    let (two, text) = back(&mut node, "alice", &id, 1);
    assert_eq!(text, "");
    assert!(node.read(one).contains("<conflict "));
    assert!(!node.is_open(one));
    node.free_store();
    assert!(node.read(two).starts_with("<resumed xmlns='urn:xmpp:sm:3' h='3' "));
    assert_eq!(node.sessions(), 1);
}

/// The account stays in memory with its session, and so does all that the session holds.
#[test]
fn resumption_reads_nothing_from_the_store() {
    for inline in [false, true] {
        let mut node = Node::new(4);
        let alice = node.online("alice", "phone");
        let (bob, id) = node.online_acked("bob", "pc");
        node.send(alice, &chat("bob@here", "unseen"));
        node.cut(bob);
        node.send(alice, &chat("bob@here", "missed"));
        let queries = node.queries;
        let writes = node.writes;
        let owner = node.owner("bob");
        let (bob, text) = match inline {
            false => back(&mut node, "bob", &id, 1),
            true => {
                let bob = node.connect((owner + 1) % 4);
                node.send(bob, HEADER);
                node.send(bob, &authenticate("bob", &resume(&id, 1)));
                let text = node.read(bob);
                (bob, text)
            }
        };
        assert!(text.contains("<resumed "), "{text}");
        assert_eq!(bodies(&text), ["unseen", "missed"]);
        assert_eq!(node.queries - queries, 0, "inline: {inline}");
        assert_eq!(node.writes - writes, 0, "inline: {inline}");
        node.send(bob, &a(3));
        assert_eq!(node.queries - queries, 0, "inline: {inline}");
        assert_eq!((node.writes - writes, node.logged("bob")), (1, 0), "what is confirmed goes");
    }
}

/// One compound read for an account that is not in memory, and none for one that is.
#[test]
fn login_reads_an_account_once() {
    let mut node = Node::new(4);
    node.users(&["bob"]);
    for (reads, resource) in [(1, "pc"), (0, "tab"), (0, "pc")] {
        let before = node.queries;
        node.online_acked("bob", resource);
        assert_eq!(node.queries - before, reads, "{resource}");
    }
    // Messages that wait are one more.
    let alice = node.online("alice", "phone");
    node.users(&["carol"]);
    node.send(alice, &chat("carol@here", "hi"));
    let before = node.queries;
    let carol = node.login("carol", "pc");
    node.send(carol, "<presence/>");
    assert_eq!(bodies(&node.read(carol)), ["hi"]);
    assert_eq!(node.queries - before, 1);
}

// ---- too late (§5)

#[test]
fn who_comes_too_late_hears_how_many_of_its_stanzas_were_handled() {
    let mut node = Node::new(4);
    let (alice, id) = node.online_acked("alice", "phone");
    node.users(&["bob"]);
    node.send(alice, &[chat("bob@here", "1"), chat("bob@here", "2")].concat());
    node.cut(alice);
    node.advance(Duration::from_secs(61));
    let failed = format!("<failed xmlns='urn:xmpp:sm:3' h='3'>{NOT_FOUND}");
    let (alice, text) = back(&mut node, "alice", &id, 1);
    assert_eq!(text, failed);
    node.send(alice, &bind("phone"));
    assert!(node.read(alice).contains("<jid>alice@here/phone</jid>"));
    // By SASL2, where the resource that was wished for is bound.
    let inline = node.connect(0);
    node.send(inline, HEADER);
    node.send(inline, &authenticate("alice", &[resume(&id, 1), bind2("Fox", "")].concat()));
    let text = node.read(inline);
    assert!(text.contains(&format!("{failed}<bound ")), "{text}");
    // It is nobody else's number.
    let (_, text) = back(&mut node, "mallory", &id, 1);
    assert_eq!(text, format!("<failed xmlns='urn:xmpp:sm:3'>{NOT_FOUND}"));
}

#[test]
fn number_of_an_ended_session_covers_only_what_is_durable() {
    let mut node = Node::new(1);
    let (alice, id) = node.online_acked("alice", "phone");
    node.users(&["bob"]);
    node.send(alice, &chat("bob@here", "kept"));
    node.hold_store();
    node.send(alice, &chat("bob@here", "open"));
    node.cut(alice);
    node.advance(Duration::from_secs(61));
    let (_, text) = back(&mut node, "alice", &id, 1);
    assert_eq!(text, format!("<failed xmlns='urn:xmpp:sm:3' h='2'>{NOT_FOUND}"));
}

/// A message that was refused is handled; who did not hear of it is not to take it for delivered.
#[test]
fn no_number_is_told_of_a_session_that_took_a_refusal_with_it() {
    for hears in [false, true] {
        let mut node = Node::new(4);
        let (alice, id) = node.online_acked("alice", "phone");
        node.send(alice, &chat("nobody@here", "x"));
        assert!(node.read(alice).contains("<service-unavailable "));
        if hears {
            node.send(alice, &a(2));
        }
        node.cut(alice);
        node.advance(Duration::from_secs(61));
        let number = if hears { " h='2'" } else { "" };
        let (_, text) = back(&mut node, "alice", &id, 1);
        assert_eq!(text, format!("<failed xmlns='urn:xmpp:sm:3'{number}>{NOT_FOUND}"));
    }
}

// ---- what nobody acknowledged (§4, RFC 6121 §8.5.3.2.1)

/// What becomes of what went to a session that ended with its time.
#[test]
fn what_a_lost_session_did_not_acknowledge_goes_where_its_kind_demands() {
    let said = "<body>x</body><no-store xmlns='urn:xmpp:hints'/>";
    for (to, kind, is_bounced) in [
        ("bob@here/pc", "chat", true),
        ("bob@here/pc", "normal", true),
        ("bob@here/pc", "groupchat", true),
        ("bob@here/pc", "headline", false),
        ("bob@here/pc", "error", false),
        ("bob@here", "headline", false),
    ] {
        let mut node = Node::new(1);
        let alice = node.online("alice", "phone");
        let (bob, _) = node.online_acked("bob", "pc");
        let tab = node.online_with("bob", "tab", -1);
        node.send(alice, &format!("<message type='{kind}' to='{to}' id='m'>{said}</message>"));
        node.send(alice, "<iq type='set' to='bob@here/pc' id='q'><q xmlns='urn:q'/></iq>");
        node.send(alice, "<iq type='result' to='bob@here/pc' id='r'/>");
        assert_eq!(bodies(&node.read(bob)), ["x"], "{to} {kind}");
        node.cut(bob);
        node.read(tab);
        node.advance(Duration::from_secs(61));
        let answers = node.read(alice);
        let bounced = answers.contains("<message ") && answers.contains("type='error'");
        assert_eq!(bounced, is_bounced, "{to} {kind}: {answers}");
        assert_eq!(answers.matches("<iq ").count(), 1, "{to} {kind}: {answers}");
        assert!(answers.contains("id='q'"), "{to} {kind}: {answers}");
        assert_eq!(node.logged("bob"), 0, "{to} {kind}");
    }
}

#[test]
fn what_goes_elsewhere_is_stamped_with_when_it_came() {
    for (sender_waits, hint) in [
        (false, ""),
        (true, ""),
        (false, "<no-store xmlns='urn:xmpp:hints'/>"),
        (true, "<no-store xmlns='urn:xmpp:hints'/>"),
    ] {
        for orderly in [false, true] {
            let mut node = Node::new(2);
            let alice = node.online("alice", "phone");
            if sender_waits {
                node.enable(alice);
            }
            let (bob, _) = node.online_acked("bob", "pc");
            let tab = node.online_with("bob", "tab", -1);
            let message =
                format!("<message type='chat' to='bob@here'><body>x</body>{hint}</message>");
            let now = corefire::xmpp::datetime::format(node.wall());
            node.send(alice, &message);
            assert_eq!(bodies(&node.read(bob)), ["x"]);
            node.advance(Duration::from_secs(20));
            if orderly {
                node.send(tab, "<presence><priority>1</priority></presence>");
                node.read(tab);
                node.send(bob, "</stream:stream>");
            } else {
                node.cut(bob);
                node.send(tab, "<presence><priority>1</priority></presence>");
                node.read(tab);
                node.advance(Duration::from_secs(61));
            }
            let text = node.read(tab);
            assert_eq!(bodies(&text), ["x"], "{text}");
            let delay = format!("<delay xmlns='urn:xmpp:delay' from='here' stamp='{now}'");
            assert_eq!(text.matches(&delay).count(), 1, "{sender_waits} {orderly} {hint}: {text}");
            assert_eq!(text.matches("<delay ").count(), 1, "{text}");
        }
    }
}

#[test]
fn session_that_cannot_be_resumed_leaves_what_it_did_not_acknowledge_to_the_account() {
    let mut node = Node::new(2);
    let alice = node.online("alice", "phone");
    let bob = node.login("bob", "pc");
    node.send(bob, "<enable xmlns='urn:xmpp:sm:3'/><presence/>");
    node.read(bob);
    node.send(alice, &[chat("bob@here", "1"), chat("bob@here", "2")].concat());
    assert_eq!(bodies(&node.read(bob)), ["1", "2"]);
    node.cut(bob);
    assert_eq!(node.read(alice), "");
    let bob = node.login("bob", "pc");
    node.send(bob, "<presence/>");
    assert_eq!(bodies(&node.read(bob)), ["1", "2"]);
}

// ---- bounds

#[test]
fn session_that_sleeps_ends_at_the_bound_of_its_queue_and_nothing_is_lost() {
    for (count, bytes) in [(30, 1), (15, 60_000)] {
        let mut node = Node::with(1, |config| config.limits.resume_queue = 20);
        let alice = node.online("alice", "phone");
        let (bob, id) = node.online_acked("bob", "pc");
        node.cut(bob);
        let wanted: Vec<String> =
            (0..count).map(|number| format!("{number} {}", "x".repeat(bytes))).collect();
        for body in &wanted {
            let to = "to='bob@here'";
            node.send(alice, &format!("<message type='chat' {to}><body>{body}</body></message>"));
        }
        assert_eq!(node.read(alice), "");
        assert_eq!(node.sessions(), 1, "{count} of {bytes} bytes");
        let (bob, text) = back(&mut node, "bob", &id, 1);
        assert!(text.ends_with(NOT_FOUND), "{text}");
        node.send(bob, &bind("pc"));
        node.send(bob, "<presence/>");
        let text = node.read(bob);
        assert!(bodies(&text) == wanted, "{count} of {bytes} bytes");
    }
}
