//! XEP-0313: what an account's archive takes, and what it gives back; XEP-0441 and XEP-0424 as far as they concern it.

use crate::harness::*;
use corefire::shard::{AckLevel, ShardConfig};
use std::time::Duration;

const NS: &str = "urn:xmpp:mam:2";
/// What the clock of a node begins with.
const START: &str = "2023-11-14T22:13:20";

fn on(config: &mut ShardConfig) {
    config.archive = true;
}

fn archived(shards: u16) -> Node {
    Node::with(shards, on)
}

/// The results of a page, in order, and what `<fin/>` says; or the error.
struct Page {
    results: Vec<String>,
    end: String,
}

impl Page {
    fn bodies(&self) -> Vec<String> {
        let body = |result: &String| bodies(result).first().map(|body| (*body).to_owned());
        self.results.iter().filter_map(body).collect()
    }

    fn ids(&self) -> Vec<String> {
        let id = |result: &String| {
            let start = result.find("<result ").unwrap();
            attr(&result[start..], "id").to_owned()
        };
        self.results.iter().map(id).collect()
    }

    fn is_complete(&self) -> bool {
        self.end.contains("<fin xmlns='urn:xmpp:mam:2' complete='true'>")
    }

    fn text(&self, name: &str) -> Option<&str> {
        let rest = self.end.split_once(&format!("<{name}"))?.1.split_once('>')?.1;
        Some(rest.split_once('<')?.0)
    }
}

fn field(var: &str, value: &str) -> String {
    format!("<field var='{var}'><value>{value}</value></field>")
}

fn form(fields: &str) -> String {
    let form_type = field("FORM_TYPE", NS);
    format!("<x xmlns='jabber:x:data' type='submit'>{form_type}{fields}</x>")
}

fn rsm(inner: &str) -> String {
    format!("<set xmlns='http://jabber.org/protocol/rsm'>{inner}</set>")
}

fn ask(node: &mut Node, client: Client, inner: &str) -> Page {
    let query = format!("<query xmlns='{NS}' queryid='q&amp;1'>{inner}</query>");
    node.send(client, &format!("<iq type='set' id='ask'>{query}</iq>"));
    let mut results = node.elements(client);
    results.retain(|element| !element.starts_with("<r ") && !element.starts_with("<a "));
    let end = results.pop().unwrap();
    assert!(end.starts_with("<iq ") && end.contains(" id='ask'"), "the answer is last: {end}");
    Page { results, end }
}

fn get(node: &mut Node, client: Client, payload: &str) -> String {
    node.send(client, &format!("<iq type='get' id='g'>{payload}</iq>"));
    node.read(client)
}

/// Alice's and Bob's archives, in their words.
fn all(node: &mut Node, client: Client) -> Vec<String> {
    let page = ask(node, client, "");
    assert!(page.is_complete(), "{}", page.end);
    page.bodies()
}

/// Alice and Bob, who have said 1 to 10 to each other a second apart; the odd ones are Alice's.
fn ten(shards: u16) -> (Node, Client, Client) {
    let mut node = archived(shards);
    let (alice, bob) = (node.online("alice", "pc"), node.online("bob", "phone"));
    for number in 1..=10 {
        let (from, to) = if number % 2 == 1 { (alice, "bob@here") } else { (bob, "alice@here/pc") };
        node.send(from, &chat(to, &number.to_string()));
        node.advance(Duration::from_secs(1));
    }
    node.read(alice);
    node.read(bob);
    (node, alice, bob)
}

fn numbers(range: impl IntoIterator<Item = u32>) -> Vec<String> {
    range.into_iter().map(|number| number.to_string()).collect()
}

#[test]
fn both_sides_have_all_they_said_in_order() {
    for shards in [1, 2, 3] {
        let (mut node, alice, bob) = ten(shards);
        for client in [alice, bob] {
            assert_eq!(all(&mut node, client), numbers(1..=10));
        }
        let page = ask(&mut node, bob, "");
        let first = &page.results[0];
        let wrapper = "<message from='bob@here' to='bob@here/phone'><result xmlns='urn:xmpp:mam:2' queryid='q&amp;1' id='";
        assert!(first.starts_with(wrapper), "{first}");
        let forwarded = format!(
            "<forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' stamp='{START}.000Z'/>\
             <message xmlns='jabber:client' "
        );
        assert!(first.contains(&forwarded), "{first}");
        for part in ["from='alice@here/pc'", "to='bob@here'", "id='1'", "type='chat'"] {
            assert!(first.contains(part), "{part}: {first}");
        }
        assert!(
            first.ends_with("<body>1</body></message></forwarded></result></message>"),
            "{first}"
        );
        assert!(page.results[9].contains(&format!("stamp='{}9.000Z'", &START[..18])));
        let mut ids = page.ids();
        assert_eq!((page.text("first"), page.text("last")), (Some(&*ids[0]), Some(&*ids[9])));
        assert_eq!(page.text("count"), Some("10"));
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 10);
    }
}

#[test]
fn pages_go_forward_and_back() {
    let (mut node, alice, _) = ten(2);
    let mut page = |inner: &str| ask(&mut node, alice, &rsm(inner));
    let first = page("<max>4</max>");
    assert_eq!((first.bodies(), first.is_complete()), (numbers(1..=4), false));
    assert!(first.end.contains("<first index='0'>"), "{}", first.end);
    let after = |page: &Page| format!("<max>4</max><after>{}</after>", page.ids().last().unwrap());
    let second = page(&after(&first));
    assert_eq!((second.bodies(), second.is_complete()), (numbers(5..=8), false));
    assert!(second.end.contains("<first>"), "{}", second.end);
    let third = page(&after(&second));
    assert_eq!((third.bodies(), third.is_complete()), (numbers(9..=10), true));
    let nothing = page(&after(&third));
    assert_eq!((nothing.results.len(), nothing.is_complete()), (0, true));
    assert!(!nothing.end.contains("<first"), "{}", nothing.end);

    let last = page("<max>4</max><before/>");
    assert_eq!((last.bodies(), last.is_complete()), (numbers(7..=10), false));
    let before = |page: &Page| format!("<max>4</max><before>{}</before>", page.ids()[0]);
    let earlier = page(&before(&last));
    assert_eq!((earlier.bodies(), earlier.is_complete()), (numbers(3..=6), false));
    let earliest = page(&before(&earlier));
    assert_eq!((earliest.bodies(), earliest.is_complete()), (numbers(1..=2), true));

    let count = page("<max>0</max>");
    assert_eq!((count.results.len(), count.text("count")), (0, Some("10")));
    let flipped = ask(&mut node, alice, &format!("{}<flip-page/>", rsm("<max>3</max>")));
    assert_eq!(flipped.bodies(), ["3", "2", "1"]);
    assert_eq!(flipped.text("first"), Some(&*first.ids()[0]), "the page is the same");
}

#[test]
fn filters_narrow_the_results_down() {
    let (mut node, alice, _) = ten(2);
    let carol = node.online("carol", "tab");
    node.send(carol, &chat("alice@here", "from carol"));
    node.send(carol, &chat("alice@here/pc", "again"));
    node.send(alice, &chat("alice@here", "to myself"));
    node.read(alice);
    let ids = ask(&mut node, alice, "").ids();
    let mut found = |fields: &str| ask(&mut node, alice, &form(fields)).bodies();
    assert_eq!(found(&field("with", "bob@here")), numbers(1..=10));
    // Alice wrote to Bob's bare address, and got from his phone.
    assert_eq!(found(&field("with", "bob@here/phone")), numbers([2, 4, 6, 8, 10]));
    assert_eq!(found(&field("with", "CAROL@here")), ["from carol", "again"], "prepared first");
    assert_eq!(found(&field("with", "alice@here")), ["to myself"]);
    assert_eq!(found(&field("with", "nobody@here")), [""; 0]);
    let at = |second: &str| format!("{}{second}", &START[..18]);
    assert_eq!(found(&field("end", &at("2Z"))), numbers(1..=3));
    assert_eq!(found(&(field("start", &at("3.000Z")) + &field("end", &at("5Z")))), numbers(4..=6));
    assert_eq!(found(&field("start", "2023-11-15T00:13:28+02:00"))[..2], numbers(9..=10));
    assert_eq!(found(&field("start", "2030-01-01T00:00:00Z")), [""; 0]);
    assert_eq!(found(&field("after-id", &ids[7]))[..2], numbers(9..=10));
    assert_eq!(found(&(field("after-id", &ids[1]) + &field("before-id", &ids[4]))), numbers(3..=4));
    let values = format!("<value>{}</value><value>{}</value>", ids[6], ids[2]);
    assert_eq!(found(&format!("<field var='ids'>{values}</field>")), ["3", "7"]);
    assert_eq!(
        found(&format!("<field var='ids'>{values}</field>{}", field("before-id", &ids[6]))),
        ["3"]
    );
    assert_eq!(found(&field("include-groupchat", "true")).len(), 13);
}

#[test]
fn questions_that_make_no_sense_are_answered_with_their_condition() {
    let (mut node, alice, bob) = ten(1);
    let bobs = ask(&mut node, bob, "").ids();
    let cases = [
        (form(&field("with", "@")), "bad-request"),
        (form(&field("start", "yesterday")), "bad-request"),
        (form(&field("include-groupchat", "maybe")), "bad-request"),
        (form(&field("{urn:x}text", "rose")), "feature-not-implemented"),
        ("<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>urn:x</value></field></x>".to_owned(), "bad-request"),
        (rsm("<max>many</max>"), "bad-request"),
        (rsm("<index>3</index>"), "feature-not-implemented"),
        (rsm("<before/><after/>"), "bad-request"),
        (rsm("<after>no-id</after>"), "item-not-found"),
        (rsm("<before>0123456789abcdef</before>"), "item-not-found"),
        (form(&field("after-id", "0123456789ABCDEF")), "item-not-found"),
        (form(&field("before-id", "é")), "item-not-found"),
        (form(&field("ids", "0123456789abcdef")), "item-not-found"),
    ];
    for (inner, condition) in cases {
        let page = ask(&mut node, alice, &inner);
        assert!(page.end.contains(&format!("<{condition} ")), "{condition}: {}", page.end);
        assert!(page.results.is_empty());
    }
    // An id of somebody else's archive names nothing in this one.
    for id in bobs {
        let page = ask(&mut node, alice, &rsm(&format!("<after>{id}</after>")));
        assert!(page.end.contains("<item-not-found "), "{}", page.end);
    }
    let query = format!("<query xmlns='{NS}' node='x'/>");
    node.send(alice, &format!("<iq type='set' id='n'>{query}</iq>"));
    assert!(node.read(alice).contains("<feature-not-implemented "));
}

#[test]
fn nobody_reads_the_archive_of_another() {
    let (mut node, alice, _) = ten(2);
    for to in ["bob@here", "nobody@here", "here"] {
        for payload in ["query", "metadata", "prefs"] {
            let iq = format!("<iq type='get' id='o' to='{to}'><{payload} xmlns='{NS}'/></iq>");
            node.send(alice, &iq);
            let answer = node.read(alice);
            assert!(answer.contains("<service-unavailable "), "{to} {payload}: {answer}");
        }
    }
    node.send(
        alice,
        &format!("<iq type='set' id='own' to='alice@here'><query xmlns='{NS}'/></iq>"),
    );
    let text = node.read(alice);
    assert_eq!(bodies(&text), numbers(1..=10));
    assert!(text.contains("<iq type='result' id='own' from='alice@here'"), "{text}");
}

#[test]
fn recipients_and_their_copies_are_told_the_id_in_the_archive() {
    for acked in [false, true] {
        let mut node = archived(2);
        let (alice, other) = (node.online("alice", "pc"), node.online("alice", "tab"));
        let (bob, copied) = (node.online("bob", "pc"), node.online("bob", "tab"));
        if acked {
            node.enable(alice);
        }
        for client in [other, copied] {
            node.send(client, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq>");
            node.read(client);
        }
        node.read(alice);
        node.read(bob);
        let forged = "<stanza-id xmlns='urn:xmpp:sid:0' by='alice@here' id='mine'/>\
                      <stanza-id xmlns='urn:xmpp:sid:0' by='bob@here' id='yours'/>";
        let message = format!(
            "<message to='bob@here/pc' type='chat' id='m'>{forged}<body>hi</body></message>"
        );
        node.send(alice, &message);
        let id_in = |text: &str, by: &str| -> String {
            let start = format!("<stanza-id xmlns='urn:xmpp:sid:0' by='{by}' id='");
            let found: Vec<&str> = text.split(&start).skip(1).collect();
            assert_eq!(found.len(), 1, "{by}: {text}");
            found[0].split('\'').next().unwrap().to_owned()
        };
        let (got, carbon, sent) = (node.read(bob), node.read(copied), node.read(other));
        let bobs = ask(&mut node, bob, "").ids();
        assert_eq!([id_in(&got, "bob@here")], bobs[..]);
        assert_eq!([id_in(&carbon, "bob@here")], bobs[..]);
        node.read(alice);
        let alices = ask(&mut node, other, "");
        assert_eq!([id_in(&sent, "alice@here")], alices.ids()[..]);
        assert!(!alices.results[0].contains("mine"), "{}", alices.results[0]);
    }
}

#[test]
fn only_what_has_lasting_content_is_archived() {
    let mut node = archived(1);
    let (alice, bob) = (node.online("alice", "pc"), node.online("bob", "pc"));
    let kept = [
        ("chat", "<body>1</body>"),
        ("normal", "<body>2</body>"),
        ("chat", "<received xmlns='urn:xmpp:receipts' id='x'/>"),
        ("chat", "<displayed xmlns='urn:xmpp:chat-markers:0' id='x'/>"),
        ("chat", "<encrypted xmlns='urn:xmpp:omemo:2'/>"),
        ("headline", "<body>3</body><store xmlns='urn:xmpp:hints'/>"),
        ("chat", "<x xmlns='urn:x'/><store xmlns='urn:xmpp:hints'/>"),
    ];
    let passing = [
        ("chat", "<body>x</body><no-store xmlns='urn:xmpp:hints'/>"),
        ("chat", "<body>x</body><no-permanent-store xmlns='urn:xmpp:hints'/>"),
        ("chat", "<composing xmlns='http://jabber.org/protocol/chatstates'/>"),
        ("headline", "<body>x</body>"),
        ("groupchat", "<body>x</body>"),
        ("error", "<body>x</body>"),
    ];
    for (kind, inner) in kept.iter().chain(&passing) {
        node.send(alice, &format!("<message type='{kind}' to='bob@here/pc'>{inner}</message>"));
    }
    node.read(alice);
    let got = node.elements(bob);
    let ids = got.iter().filter(|message| message.contains("<stanza-id ")).count();
    assert_eq!(ids, kept.len(), "an id is one that can be asked for");
    for client in [alice, bob] {
        assert_eq!(ask(&mut node, client, "").results.len(), kept.len());
    }
}

#[test]
fn messages_wait_for_their_recipient_and_stay_when_it_has_them() {
    for acked in [false, true] {
        let mut node = archived(2);
        let alice = node.online("alice", "pc");
        if acked {
            node.enable(alice);
        }
        node.users(&["bob"]);
        node.send(alice, &chat("bob@here", "1"));
        let passing = "<no-permanent-store xmlns='urn:xmpp:hints'/>";
        node.send(
            alice,
            &format!("<message to='bob@here' type='chat'><body>2</body>{passing}</message>"),
        );
        node.send(alice, &chat("bob@here", "3"));
        assert_eq!(node.logged("bob"), 3);
        let bob = node.login("bob", "pc");
        assert_eq!(all(&mut node, bob), ["1", "3"], "before it gets them");
        node.send(bob, "<presence/>");
        let text = node.read(bob);
        assert_eq!(bodies(&text), ["1", "2", "3"]);
        // The harness answers the ping that confirms them.
        assert_eq!(node.logged("bob"), 0);
        let page = ask(&mut node, bob, "");
        assert_eq!(page.bodies(), ["1", "3"]);
        assert!(page.ids().iter().all(|id| text.contains(id.as_str())), "the same ids");
        // What was shown for the one between is a position all the same.
        let between = text.split("<body>2</body>").nth(1).unwrap();
        let id = attr(&between[between.find("<stanza-id ").unwrap()..], "id");
        let after = ask(&mut node, bob, &rsm(&format!("<after>{id}</after>")));
        assert_eq!(after.bodies(), ["3"]);
        assert!(ask(&mut node, bob, &form(&field("ids", id))).end.contains("<item-not-found "));
    }
}

#[test]
fn message_is_not_acknowledged_before_both_archives_have_it() {
    for shards in [1, 2] {
        let mut node = archived(shards);
        let (alice, _) = node.online_acked("alice", "pc");
        let (bob, _) = node.online_acked("bob", "pc");
        node.send(alice, &chat("bob@here", "first"));
        node.send(bob, &chat("alice@here", "and back"));
        node.read(alice);
        node.read(bob);
        node.hold_store();
        node.send(alice, &chat("bob@here", "hi"));
        assert_eq!(bodies(&node.read(bob)), ["hi"], "delivery waits for no disk");
        let h = |node: &mut Node| {
            node.send(alice, "<r xmlns='urn:xmpp:sm:3'/>");
            node.advance(Duration::from_secs(2));
            let text = node.read(alice);
            attr(&text[text.find("<a ").unwrap()..], "h").parse::<u32>().unwrap()
        };
        let before = h(&mut node);
        node.answer_one();
        assert_eq!(h(&mut node), before, "one of two");
        node.answer_one();
        node.advance(Duration::from_secs(2));
        node.free_store();
        assert_eq!(h(&mut node), before + 1);
    }
}

#[test]
fn without_the_promise_nothing_waits_for_the_archive() {
    let mut node = Node::with(2, |config| {
        config.archive = true;
        config.ack = AckLevel::Received;
    });
    let (alice, _) = node.online_acked("alice", "pc");
    let bob = node.online("bob", "pc");
    node.send(alice, &chat("bob@here", "1"));
    node.read(bob);
    node.hold_store();
    node.send(alice, &[&chat("bob@here", "2"), "<r xmlns='urn:xmpp:sm:3'/>"].concat());
    assert!(node.read(alice).contains("<a xmlns='urn:xmpp:sm:3' h='3'/>"));
    assert_eq!(bodies(&node.read(bob)), ["2"]);
    node.free_store();
    assert_eq!(all(&mut node, bob), ["1", "2"]);
    assert_eq!(node.logged("bob"), 0, "nothing of it is pending");
}

#[test]
fn a_message_that_comes_again_is_archived_once() {
    for resumes in [false, true] {
        let mut node = archived(2);
        let alice = node.online("alice", "pc");
        let (bob, id) = node.online_acked("bob", "pc");
        for body in ["1", "2"] {
            node.send(alice, &chat("bob@here", body));
        }
        assert_eq!(bodies(&node.read(bob)), ["1", "2"]);
        node.cut(bob);
        node.send(alice, &chat("bob@here", "3"));
        let bob = if resumes {
            let owner = node.owner("bob");
            let bob = node.authenticate(owner, "bob");
            node.send(bob, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"));
            bob
        } else {
            node.advance(Duration::from_secs(120));
            node.online("bob", "other")
        };
        node.read(bob);
        node.send(bob, "<presence/>");
        node.read(bob);
        assert_eq!(all(&mut node, bob), ["1", "2", "3"], "resumes: {resumes}");
        assert_eq!(all(&mut node, alice), ["1", "2", "3"]);
    }
}

#[test]
fn results_that_a_client_did_not_get_are_for_nobody_else() {
    for resumes in [false, true] {
        let mut node = archived(2);
        let alice = node.online("alice", "pc");
        let (bob, id) = node.online_acked("bob", "pc");
        node.send(alice, &chat("bob@here", "hi"));
        assert_eq!(bodies(&node.read(bob)), ["hi"]);
        node.send(bob, &format!("<iq type='set' id='ask'><query xmlns='{NS}'/></iq>"));
        let h = node.count(bob);
        assert_eq!(h, 2);
        node.cut(bob);
        let owner = node.owner("bob");
        if resumes {
            let bob = node.authenticate(owner, "bob");
            node.send(bob, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"));
            let text = node.read(bob);
            assert_eq!(text.matches("<result ").count(), 1, "{text}");
            continue;
        }
        node.advance(Duration::from_secs(120));
        let again = node.login("bob", "pc");
        node.send(again, "<presence/>");
        let text = node.read(again);
        assert!(!text.contains("<result "), "{text}");
    }
}

#[test]
fn preferences_say_what_is_archived() {
    let mut node = archived(2);
    let (alice, bob) = (node.online("alice", "pc"), node.online("bob", "pc"));
    let carol = node.online("carol", "pc");
    let usual = get(&mut node, alice, &format!("<prefs xmlns='{NS}'/>"));
    let prefs = |default: &str, always: &str, never: &str| {
        let list = |name: &str, jid: &str| match jid {
            "" => format!("<{name}></{name}>"),
            jid => format!("<{name}><jid>{jid}</jid></{name}>"),
        };
        let (always, never) = (list("always", always), list("never", never));
        format!("<prefs xmlns='{NS}' default='{default}'>{always}{never}</prefs>")
    };
    assert!(usual.contains(&prefs("always", "", "")), "{usual}");
    let set = |node: &mut Node, prefs: &str| {
        node.send(alice, &format!("<iq type='set' id='p'>{prefs}</iq>"));
        let answer = node.read(alice);
        assert!(answer.contains(prefs), "{answer}");
    };
    let said = |node: &mut Node, body: &str| {
        node.send(alice, &chat("bob@here", &format!("{body} to bob")));
        node.send(bob, &chat("alice@here", &format!("{body} of bob")));
        node.send(carol, &chat("alice@here", &format!("{body} of carol")));
        node.read(alice);
        let all = all(node, alice);
        all.into_iter().filter(|text| text.starts_with(body)).collect::<Vec<_>>()
    };
    set(&mut node, &prefs("always", "", "bob@here"));
    assert_eq!(said(&mut node, "a"), ["a of carol"]);
    set(&mut node, &prefs("never", "bob@here/pc", ""));
    assert_eq!(said(&mut node, "b"), ["b of bob"], "that resource alone");
    set(&mut node, &prefs("roster", "", ""));
    assert_eq!(said(&mut node, "c"), [""; 0]);
    let item = "<query xmlns='jabber:iq:roster'><item jid='carol@here'/></query>";
    node.send(alice, &format!("<iq type='set' id='r'>{item}</iq>"));
    node.read(alice);
    assert_eq!(said(&mut node, "d"), ["d of carol"]);
    node.read(bob);
    assert_eq!(all(&mut node, bob).len(), 8, "his own archive is his");
    // They are the account's, not the session's.
    node.cut(alice);
    node.advance(Duration::from_secs(300));
    let again = node.online("alice", "pc");
    let kept = get(&mut node, again, &format!("<prefs xmlns='{NS}'/>"));
    assert!(kept.contains(&prefs("roster", "", "")), "{kept}");
    for (wrong, condition) in [
        (format!("<prefs xmlns='{NS}'/>"), "bad-request"),
        (prefs("sometimes", "", ""), "bad-request"),
        (prefs("always", "@", ""), "jid-malformed"),
        (
            format!("<prefs xmlns='{NS}' default='never'><always><x/></always></prefs>"),
            "bad-request",
        ),
    ] {
        node.send(again, &format!("<iq type='set' id='p'>{wrong}</iq>"));
        let answer = node.read(again);
        assert!(answer.contains(&format!("<{condition} ")), "{wrong}: {answer}");
    }
}

#[test]
fn preferences_are_bounded() {
    let mut node = Node::with(1, |config| {
        config.archive = true;
        config.limits.archive_preferences = 2;
    });
    let alice = node.online("alice", "pc");
    let mut set = |count: usize| {
        let jids: String = (0..count).map(|n| format!("<jid>c{n}@here</jid>")).collect();
        let prefs = format!("<prefs xmlns='{NS}' default='always'><never>{jids}</never></prefs>");
        node.send(alice, &format!("<iq type='set' id='p'>{prefs}</iq>"));
        node.read(alice)
    };
    assert!(set(2).contains("type='result'"));
    assert!(set(3).contains("<not-acceptable "));
}

#[test]
fn pages_are_bounded_in_rows_and_bytes() {
    let mut node = Node::with(1, |config| {
        config.archive = true;
        config.limits.archive_page = 5;
        config.limits.archive_count = 8;
    });
    let alice = node.online("alice", "pc");
    node.users(&["bob"]);
    for number in 1..=12 {
        node.send(alice, &chat("bob@here", &number.to_string()));
    }
    node.read(alice);
    let page = ask(&mut node, alice, "");
    assert_eq!((page.bodies(), page.is_complete()), (numbers(1..=5), false));
    assert_eq!(page.text("count"), None, "more than are counted");
    let page = ask(&mut node, alice, &rsm("<max>1000000000000</max><before/>"));
    assert_eq!(page.bodies(), numbers(8..=12));
    let ids = page.ids();
    let values: String = ids.iter().map(|id| format!("<value>{id}</value>")).collect();
    let page = ask(&mut node, alice, &form(&format!("<field var='ids'>{values}</field>")));
    assert_eq!(page.bodies(), numbers(8..=12));
    let more = format!("<field var='ids'>{values}<value>{}</value></field>", "0".repeat(16));
    let refused = ask(&mut node, alice, &form(&more));
    assert!(refused.end.contains("<item-not-found "), "{}", refused.end);

    // 5 of 60 kB are more than half of what may wait for a client: the page ends before.
    let large = "x".repeat(60_000);
    for _ in 0..5 {
        node.send(
            alice,
            &format!("<message to='bob@here' type='chat'><body>{large}</body></message>"),
        );
    }
    node.read(alice);
    let backwards = ask(&mut node, alice, &rsm("<before/>"));
    assert_eq!((backwards.results.len(), backwards.is_complete()), (2, false));
    let next = format!("<before>{}</before>", backwards.text("first").unwrap());
    let next = ask(&mut node, alice, &rsm(&next));
    assert_eq!(next.results.len(), 2);
    assert!(node.is_open(alice));
}

#[test]
fn more_ids_than_a_page_has_rows_are_refused() {
    let mut node = Node::with(1, |config| {
        config.archive = true;
        config.limits.archive_page = 2;
    });
    let alice = node.online("alice", "pc");
    node.users(&["bob"]);
    for number in 1..=3 {
        node.send(alice, &chat("bob@here", &number.to_string()));
    }
    node.read(alice);
    let mut ids = ask(&mut node, alice, "").ids();
    ids.extend(ask(&mut node, alice, &rsm("<before/>")).ids());
    let values: String = ids.iter().map(|id| format!("<value>{id}</value>")).collect();
    let page = ask(&mut node, alice, &form(&format!("<field var='ids'>{values}</field>")));
    assert!(page.end.contains("<policy-violation "), "{}", page.end);
}

#[test]
fn the_form_and_the_ends_are_told() {
    let mut node = archived(1);
    let alice = node.online("alice", "pc");
    let form = get(&mut node, alice, &format!("<query xmlns='{NS}'/>"));
    for var in ["with", "start", "end", "before-id", "after-id", "ids", "include-groupchat"] {
        assert!(form.contains(&format!("var='{var}'")), "{var}: {form}");
    }
    assert!(form.contains("<open/>") && !form.contains("<required"), "{form}");
    let metadata = format!("<metadata xmlns='{NS}'/>");
    let empty = get(&mut node, alice, &metadata);
    assert!(!empty.contains("<start"), "{empty}");
    node.users(&["bob"]);
    for body in ["1", "2", "3"] {
        node.send(alice, &chat("bob@here", body));
        node.advance(Duration::from_secs(1));
    }
    node.read(alice);
    let ids = ask(&mut node, alice, "").ids();
    let told = get(&mut node, alice, &metadata);
    let ends = format!(
        "<start id='{}' timestamp='{START}.000Z'/><end id='{}' timestamp='{}2.000Z'/>",
        ids[0],
        ids[2],
        &START[..18]
    );
    assert!(told.contains(&ends), "{told}");
}

#[test]
fn an_account_says_that_it_has_an_archive_where_it_has_one() {
    for (on, shards) in [(true, 1), (true, 2), (false, 1)] {
        let mut node = Node::with(shards, |config| config.archive = on);
        let alice = node.online("alice", "pc");
        let info = "<query xmlns='http://jabber.org/protocol/disco#info'/>";
        node.send(alice, &format!("<iq type='get' id='d' to='alice@here'>{info}</iq>"));
        let told = node.read(alice);
        for feature in
            ["", "#extended", "#groupchat-field"].map(|suffix| format!("var='{NS}{suffix}'"))
        {
            assert_eq!(told.contains(&feature), on, "{feature}: {told}");
        }
        assert_eq!(told.contains("var='urn:xmpp:message-retract:1#tombstone'"), on);
        node.send(alice, &format!("<iq type='get' id='d' to='here'>{info}</iq>"));
        assert!(!node.read(alice).contains(NS), "the server's own address has none");
    }
}

#[test]
fn without_archives_nothing_is_kept_and_questions_go_unanswered() {
    let mut node = Node::new(2);
    let (alice, bob) = (node.online("alice", "pc"), node.online("bob", "pc"));
    node.send(alice, &chat("bob@here", "hi"));
    node.read(bob);
    for payload in ["query", "metadata", "prefs"] {
        let answer = get(&mut node, bob, &format!("<{payload} xmlns='{NS}'/>"));
        assert!(answer.contains("<service-unavailable "), "{answer}");
    }
    node.reconfigure(on);
    assert_eq!(all(&mut node, bob), [""; 0]);
    node.send(alice, &chat("bob@here", "now"));
    node.read(bob);
    assert_eq!(all(&mut node, bob), ["now"]);
}

#[test]
fn a_message_that_its_sender_takes_back_leaves_a_stone_in_both_archives() {
    for shards in [1, 2] {
        let mut node = archived(shards);
        let (alice, bob) = (node.online("alice", "pc"), node.online("bob", "pc"));
        for number in 1..=80 {
            node.send(alice, &chat("bob@here", &number.to_string()));
        }
        node.send(bob, &chat("alice@here", "80"));
        let retract = |id: &str| {
            format!(
                "<message type='chat' to='bob@here' id='back-{id}'>\
                 <retract xmlns='urn:xmpp:message-retract:1' id='{id}'/></message>"
            )
        };
        node.advance(Duration::from_secs(60));
        for id in ["2", "80", "nothing"] {
            node.send(alice, &retract(id));
        }
        node.read(alice);
        node.read(bob);
        for client in [alice, bob] {
            let mut results = Vec::new();
            let mut after = String::new();
            loop {
                let page = ask(&mut node, client, &rsm(&after));
                results.extend(page.results.iter().cloned());
                if page.is_complete() {
                    break;
                }
                after = format!("<after>{}</after>", page.text("last").unwrap());
            }
            assert_eq!(results.len(), 84, "the retractions are there, too");
            for (place, id) in [(1, "2"), (79, "80")] {
                let stone = &results[place];
                assert!(!stone.contains("<body>"), "{stone}");
                let retracted = format!(
                    "<retracted xmlns='urn:xmpp:message-retract:1' id='back-{id}' stamp='2023-11-14T22:14:20.000Z'/></message>"
                );
                assert!(stone.contains(&retracted), "{stone}");
                assert!(
                    stone.contains("from='alice@here/pc'") && stone.contains(&format!("id='{id}'"))
                );
            }
            let theirs = results[80].contains("<body>80</body>");
            assert!(theirs, "what Bob said is not Alice's to take back");
        }
    }
}

#[test]
fn ids_run_out_and_come_again_without_a_gap() {
    let mut node = archived(1);
    let (alice, _) = node.online_acked("alice", "pc");
    let bob = node.online("bob", "pc");
    node.hold_store();
    for number in 1..=20 {
        node.send(alice, &chat("bob@here", &number.to_string()));
        node.send(bob, &chat("alice@here", &format!("b{number}")));
    }
    node.free_store();
    node.read(alice);
    node.read(bob);
    for client in [alice, bob] {
        let all = all(&mut node, client);
        let of = |b: bool| all.iter().filter(move |text| text.starts_with('b') == b).cloned();
        assert_eq!(of(false).collect::<Vec<_>>(), numbers(1..=20));
        assert_eq!(of(true).count(), 20);
    }
}

#[test]
fn times_are_found_after_the_clock_was_set_back() {
    let mut node = archived(1);
    let alice = node.online("alice", "pc");
    node.users(&["bob"]);
    for number in 1..=10 {
        node.send(alice, &chat("bob@here", &number.to_string()));
        node.advance(Duration::from_secs(60));
    }
    node.set_clock_back(Duration::from_secs(300));
    for number in 11..=20 {
        node.send(alice, &chat("bob@here", &number.to_string()));
        node.advance(Duration::from_secs(60));
    }
    node.read(alice);
    // Minutes 6 to 8 were lived through twice: 7 to 9, and 12 to 14.
    let span = field("start", "2023-11-14T22:19:20Z") + &field("end", "2023-11-14T22:21:20Z");
    let found = |node: &mut Node, client: Client| ask(node, client, &form(&span)).bodies();
    assert_eq!(found(&mut node, alice), numbers([7, 8, 9, 12, 13, 14]));
    // It is known to the account, not to the session.
    node.cut(alice);
    node.advance(Duration::from_secs(600));
    let alice = node.online("alice", "pc");
    assert_eq!(found(&mut node, alice), numbers([7, 8, 9, 12, 13, 14]));
}
