//! Rosters (RFC 6121 §2).

use crate::harness::*;
use crate::subscriptions::*;

pub(crate) fn set(item: &str) -> String {
    format!("<iq type='set' id='set'><query xmlns='jabber:iq:roster'>{item}</query></iq>")
}

#[test]
fn roster_set_is_pushed_to_interested_resources_and_kept() {
    let mut node = Node::new(1);
    let phone = interested(&mut node, "alice", "phone");
    let pc = interested(&mut node, "alice", "pc");
    let deaf = node.online("alice", "deaf");
    for client in [phone, pc, deaf] {
        node.read(client);
    }
    node.send(phone, &set("<item jid='Bob@here' name='B&amp;b'><group>Friends</group></item>"));
    let item =
        "<item jid='bob@here' name='B&amp;b' subscription='none'><group>Friends</group></item>";
    for client in [phone, pc] {
        let text = node.read(client);
        assert!(text.contains(item), "{text}");
        assert!(text.contains("<iq type='set' id='push-"), "{text}");
    }
    assert_eq!(node.read(deaf), "");
    node.send(phone, ROSTER);
    let roster = node.read(phone);
    let version = attr(&roster, "ver").to_owned();
    let query = format!("<query xmlns='jabber:iq:roster' ver='{version}'>{item}</query>");
    assert!(roster.contains(&query), "{roster}");
    let known = ROSTER.replace("<query", &format!("<query ver='{version}'"));
    node.send(phone, &known);
    assert!(!node.read(phone).contains("<query"));
}

#[test]
fn roster_set_beyond_its_limits_is_refused() {
    let mut node = Node::new(1);
    let alice = node.login("alice", "phone");
    let long = "x".repeat(65);
    let cases = [
        (format!("<item jid='b@here' name='{long}'/>"), "not-acceptable"),
        (format!("<item jid='b@here'><group>{long}</group></item>"), "not-acceptable"),
        ("<item jid='b@here'><group/></item>".into(), "not-acceptable"),
        ("<item jid='b@here'><group>g</group><group>g</group></item>".into(), "bad-request"),
        (
            format!(
                "<item jid='b@here'>{}</item>",
                (0..5).map(|n| format!("<group>{n}</group>")).collect::<String>()
            ),
            "not-acceptable",
        ),
        ("<item jid='@'/>".into(), "jid-malformed"),
        ("<item/>".into(), "bad-request"),
        ("<item jid='a@here'/><item jid='b@here'/>".into(), "bad-request"),
        (String::new(), "bad-request"),
        ("<item jid='alice@here'/>".into(), "not-allowed"),
        ("<item jid='none@here' subscription='remove'/>".into(), "item-not-found"),
    ];
    for (item, condition) in cases {
        node.send(alice, &set(&item));
        let answer = node.read(alice);
        assert!(answer.contains(&format!("<{condition} ")), "{item}: {answer}");
    }
    for number in 0..8 {
        node.send(alice, &set(&format!("<item jid='c{number}@here'/>")));
        assert!(node.read(alice).contains("type='result'"));
    }
    node.send(alice, &set("<item jid='c9@here'/>"));
    assert!(node.read(alice).contains("<not-acceptable "));
    node.send(alice, &set("<item jid='c1@here' name='known'/>"));
    assert!(node.read(alice).contains("type='result'"));
    node.send(alice, &to("c9", "subscribe"));
    assert!(node.read(alice).contains("<not-acceptable "));
}

#[test]
fn roster_of_another_account_is_out_of_reach() {
    let (mut node, alice, _) = friends(1);
    node.read(alice);
    node.send(alice, &ROSTER.replace("id=", "to='bob@here' id="));
    assert!(node.read(alice).contains("<service-unavailable "));
}
