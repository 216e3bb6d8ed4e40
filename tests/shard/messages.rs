//! Where messages go (RFC 6121 §8.5), and what is checked of every stanza on its way.

use crate::harness::*;

/// What is there of the recipient.
#[derive(Clone, Copy, Debug, PartialEq)]
enum There {
    NoAccount,
    NoResource,
    /// One resource, of priority -1.
    Negative,
    /// "pc", of priority 1.
    One,
    /// "pc" and "tab" of priority 5, "low" of priority 1, "bot" of priority -1.
    Several,
    /// "pc", which is bound and has sent no presence.
    Silent,
}

/// How the message is addressed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum To {
    Bare,
    /// A resource that is there.
    Match,
    /// One that is not.
    NoMatch,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// Goes to these resources and nowhere else.
    Reaches(&'static [&'static str]),
    Stored,
    /// `service-unavailable` to the sender.
    Bounced,
    /// Ignored in silence.
    Dropped,
    /// A request that is kept for the account, and shown to these resources now.
    Asked(&'static [&'static str]),
}

use Fate::{Asked, Bounced, Dropped, Reaches, Stored};
use There::{Negative, NoAccount, NoResource, One, Several, Silent};
use To::{Bare, Match, NoMatch};

const NOBODY: &[(&str, i8)] = &[];
const BEST: Fate = Reaches(&["pc", "tab"]);
const PC: Fate = Reaches(&["pc"]);

/// Columns: normal, chat, groupchat, headline, error (the table of §8.5.4). An account that does not exist answers as one
/// that stays unseen: §8.5.1 leaves the choice, but for headlines.
const TABLE: &[(There, To, [Fate; 5])] = &[
    (NoAccount, Bare, [Bounced, Bounced, Bounced, Dropped, Dropped]),
    (NoAccount, NoMatch, [Bounced, Bounced, Bounced, Dropped, Dropped]),
    (NoResource, Bare, [Stored, Stored, Bounced, Dropped, Dropped]),
    (NoResource, NoMatch, [Bounced, Stored, Bounced, Dropped, Dropped]),
    (Negative, Bare, [Stored, Stored, Bounced, Dropped, Dropped]),
    (Negative, Match, [PC, PC, PC, PC, PC]),
    (Negative, NoMatch, [Bounced, Stored, Bounced, Dropped, Dropped]),
    (One, Bare, [PC, PC, Bounced, PC, Dropped]),
    (One, Match, [PC, PC, PC, PC, PC]),
    (One, NoMatch, [Bounced, PC, Bounced, Dropped, Dropped]),
    (Several, Bare, [BEST, BEST, Bounced, Reaches(&["pc", "tab", "low"]), Dropped]),
    (Several, Match, [PC, PC, PC, PC, PC]),
    (Several, NoMatch, [Bounced, BEST, Bounced, Dropped, Dropped]),
    (Silent, Bare, [Stored, Stored, Bounced, Dropped, Dropped]),
    (Silent, Match, [PC, PC, PC, PC, PC]),
    (Silent, NoMatch, [Bounced, Stored, Bounced, Dropped, Dropped]),
];

const ALL: Fate = Reaches(&["pc", "tab", "low", "bot"]);
const REQUEST: Fate = Asked(&[]);

/// Columns: no type, unavailable, subscribe, subscribed, unsubscribe, unsubscribed, probe, error; from a stranger.
/// Subscriptions are the account's, whatever resource they name (§3); priority is for messages alone.
const PRESENCE: &[(There, To, [Fate; 8])] = &[
    (NoAccount, Bare, [Dropped; 8]),
    (NoAccount, NoMatch, [Dropped; 8]),
    (NoResource, Bare, presence(Dropped, REQUEST, Dropped)),
    (NoResource, NoMatch, presence(Dropped, REQUEST, Dropped)),
    (Negative, Bare, presence(PC, Asked(&["pc"]), Dropped)),
    (Negative, Match, presence(PC, Asked(&["pc"]), PC)),
    (Negative, NoMatch, presence(Dropped, Asked(&["pc"]), Dropped)),
    (One, Bare, presence(PC, Asked(&["pc"]), Dropped)),
    (One, Match, presence(PC, Asked(&["pc"]), PC)),
    (One, NoMatch, presence(Dropped, Asked(&["pc"]), Dropped)),
    (Several, Bare, presence(ALL, Asked(&["pc", "tab", "low", "bot"]), Dropped)),
    (Several, Match, presence(PC, Asked(&["pc", "tab", "low", "bot"]), PC)),
    (Several, NoMatch, presence(Dropped, Asked(&["pc", "tab", "low", "bot"]), Dropped)),
    (Silent, Bare, presence(Dropped, REQUEST, Dropped)),
    (Silent, Match, presence(PC, REQUEST, PC)),
    (Silent, NoMatch, presence(Dropped, REQUEST, Dropped)),
];

/// A row: what becomes of news, of a request, of an error. Answers that nobody asked for, and probes of those who may
/// not see, change and tell nothing.
const fn presence(news: Fate, request: Fate, error: Fate) -> [Fate; 8] {
    [news, news, request, Dropped, Dropped, Dropped, Dropped, error]
}

/// Columns: get and set of something that the server knows nothing of, result, error.
const IQS: &[(There, To, [Fate; 4])] = &[
    (NoAccount, Bare, [Bounced, Bounced, Dropped, Dropped]),
    (NoAccount, NoMatch, [Bounced, Bounced, Dropped, Dropped]),
    (NoResource, Bare, [Bounced, Bounced, Dropped, Dropped]),
    (NoResource, NoMatch, [Bounced, Bounced, Dropped, Dropped]),
    (Negative, Bare, [Bounced, Bounced, Dropped, Dropped]),
    (Negative, Match, [PC, PC, PC, PC]),
    (Negative, NoMatch, [Bounced, Bounced, Dropped, Dropped]),
    (One, Bare, [Bounced, Bounced, Dropped, Dropped]),
    (One, Match, [PC, PC, PC, PC]),
    (One, NoMatch, [Bounced, Bounced, Dropped, Dropped]),
    (Several, Bare, [Bounced, Bounced, Dropped, Dropped]),
    (Several, Match, [PC, PC, PC, PC]),
    (Several, NoMatch, [Bounced, Bounced, Dropped, Dropped]),
    (Silent, Bare, [Bounced, Bounced, Dropped, Dropped]),
    (Silent, Match, [PC, PC, PC, PC]),
    (Silent, NoMatch, [Bounced, Bounced, Dropped, Dropped]),
];

fn resources(there: There) -> &'static [(&'static str, i8)] {
    match there {
        NoAccount | NoResource | Silent => NOBODY,
        Negative => &[("pc", -1)],
        One => &[("pc", 1)],
        Several => &[("pc", 5), ("tab", 5), ("low", 1), ("bot", -1)],
    }
}

/// Two names with accounts on one shard, or on two.
fn pair(node: &Node, together: bool) -> (&'static str, &'static str) {
    let names = ["bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan"];
    let fits = |name: &&&str| (node.owner(name) == node.owner("alice")) == together;
    ("alice", names.iter().find(fits).unwrap())
}

/// One cell: sends a stanza to Bob, and sees what became of it.
fn check_cell(shards: u16, together: bool, (there, to): (There, To), stanza: &str, fate: Fate) {
    let cell = format!("{there:?}, {to:?}, {stanza}");
    let mut node = Node::new(shards);
    let (alice, bob) = pair(&node, together);
    let sender = node.online(alice, "phone");
    if there != NoAccount {
        node.users(&[bob]);
    }
    let mut clients: Vec<(&str, Client)> = Vec::new();
    for (name, priority) in resources(there) {
        clients.push((name, node.online_with(bob, name, *priority)));
    }
    if there == Silent {
        clients.push(("pc", node.login(bob, "pc")));
    }
    clients.iter().for_each(|(_, client)| drop(node.read(*client)));
    let to = match to {
        Bare => format!("{bob}@here"),
        Match => format!("{bob}@here/pc"),
        NoMatch => format!("{bob}@here/gone"),
    };
    node.send(sender, &stanza.replace("{to}", &to));
    let reached: Vec<&str> = clients
        .iter()
        .filter(|(_, client)| node.count(*client) == 1)
        .map(|(name, _)| *name)
        .collect();
    let answer = node.read(sender);
    let waits = there != NoAccount && node.roster(bob).iter().any(|one| one.pending_in.is_some());
    assert_eq!(waits, matches!(fate, Asked(_)), "{cell}");
    assert_eq!(node.logged(bob), usize::from(fate == Stored), "{cell}");
    assert_eq!(answer.contains("<service-unavailable "), fate == Bounced, "{cell}");
    assert_eq!(answer.is_empty(), fate != Bounced, "{cell}: {answer}");
    match fate {
        Reaches(wanted) | Asked(wanted) => assert_eq!(reached, wanted, "{cell}"),
        Stored | Bounced | Dropped => assert_eq!(reached, [""; 0], "{cell}"),
    }
}

/// A type that is none, or is not known, is that of a normal message (RFC 6121 §5.2.2).
const MESSAGES: [(&str, usize); 7] = [
    (" type='normal'", 0),
    ("", 0),
    (" type='whatever'", 0),
    (" type='chat'", 1),
    (" type='groupchat'", 2),
    (" type='headline'", 3),
    (" type='error'", 4),
];

fn check_table(shards: u16, together: bool) {
    for (there, to, fates) in TABLE {
        for (kind, column) in MESSAGES {
            let stanza = format!("<message{kind} id='m' to='{{to}}'><body>hi</body></message>");
            check_cell(shards, together, (*there, *to), &stanza, fates[column]);
        }
    }
    let types = ["unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe"];
    for (there, to, fates) in PRESENCE {
        let types = types.into_iter().chain(["error"]).map(|kind| format!(" type='{kind}'"));
        for (kind, fate) in std::iter::once(String::new()).chain(types).zip(fates) {
            let stanza = format!("<presence{kind} id='p' to='{{to}}'/>");
            check_cell(shards, together, (*there, *to), &stanza, *fate);
        }
    }
    for (there, to, fates) in IQS {
        for (kind, fate) in ["get", "set", "result", "error"].into_iter().zip(fates) {
            let stanza = format!("<iq type='{kind}' id='i' to='{{to}}'><q xmlns='urn:q'/></iq>");
            check_cell(shards, together, (*there, *to), &stanza, *fate);
        }
    }
}

/// RFC 6121 §4.7.1, RFC 6120 §8.2.3: presence and IQs of a type that nobody knows go nowhere.
#[test]
fn presence_and_requests_of_unknown_type_are_bad() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    for to in ["bob@here", "bob@here/pc", "here", "nobody@here", "alice@here"] {
        for stanza in [
            format!("<presence type='whatever' id='x' to='{to}'/>"),
            format!("<iq type='whatever' id='x' to='{to}'><q xmlns='urn:q'/></iq>"),
            format!("<iq id='x' to='{to}'><q xmlns='urn:q'/></iq>"),
        ] {
            node.send(alice, &stanza);
            assert!(node.read(alice).contains("<bad-request "), "{stanza}");
            assert_eq!(node.read(bob), "", "{stanza}");
        }
    }
}

/// RFC 6121 §8.3: presence is nothing that a server answers.
#[test]
fn presence_to_the_server_is_ignored() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let types = ["subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "unavailable"];
    for to in ["here", "here/x"] {
        node.send(alice, &format!("<presence to='{to}'/>"));
        for kind in types {
            node.send(alice, &format!("<presence to='{to}' type='{kind}'/>"));
        }
    }
    assert_eq!(node.read(alice), "");
    assert_eq!(node.roster("alice"), []);
}

#[test]
fn table_of_delivery_holds_on_one_shard() {
    check_table(1, true);
}

#[test]
fn table_of_delivery_holds_across_shards() {
    check_table(4, false);
}

#[test]
fn table_of_delivery_holds_within_one_of_several_shards() {
    check_table(4, true);
}

#[test]
fn bound_resource_without_presence_gets_what_names_it_and_no_more() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let bob = node.login("bob", "pc");
    node.send(alice, &chat("bob@here/pc", "named"));
    node.send(alice, &chat("bob@here", "account"));
    let received = node.read(bob);
    assert_eq!(bodies(&received), ["named"]);
    assert_eq!(node.logged("bob"), 1);
}

// ---- what is stamped, what is kept

#[test]
fn sender_is_stamped_and_all_else_kept_byte_for_byte() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    let rest = "xml:lang=\"de\" id='a&amp;b' type='chat' xmlns:x='urn:x' x:y=' &lt;'><body>é &#x1F600; \
        <![CDATA[<&]]></body>\n <x:z  k = 'v'/><enc xmlns=\"urn:e\"><i/></enc>";
    node.send(alice, &format!("<message to='bob@here' {rest}</message>"));
    let received = node.read(bob);
    let (received, id) = received.split_at(received.find("<stanza-id ").unwrap());
    assert_eq!(received, format!("<message from='alice@here/phone' to='bob@here' {rest}"));
    assert!(id.ends_with("/></message>") && id.matches('<').count() == 2, "{id}");
    assert_eq!(node.read(alice), "");
}

#[test]
fn own_address_may_be_given_bare_or_full_and_becomes_full() {
    for from in ["alice@here/phone", "alice@here", "ALICE@here"] {
        let mut node = Node::new(1);
        let alice = node.online("alice", "phone");
        let bob = node.online("bob", "pc");
        node.send(alice, &format!("<message from='{from}' to='bob@here'><body>x</body></message>"));
        assert_eq!(attr(&node.read(bob), "from"), "alice@here/phone");
    }
}

#[test]
fn wrong_from_ends_the_stream() {
    for from in ["bob@here", "alice@here/other", "alice@there/phone", "", "@"] {
        let mut node = Node::new(1);
        let alice = node.online("alice", "phone");
        let bob = node.online("bob", "pc");
        node.send(alice, &format!("<message from='{from}' to='bob@here'><body>x</body></message>"));
        assert!(node.read(alice).contains("<invalid-from "), "{from}");
        assert!(!node.is_open(alice));
        assert_eq!(node.read(bob), "");
    }
}

// ---- where else a message may be addressed to

#[test]
fn message_without_to_goes_to_the_own_account() {
    let mut node = Node::new(1);
    let phone = node.online_with("alice", "phone", 1);
    let pc = node.online_with("alice", "pc", 2);
    node.read(phone);
    node.send(phone, "<message type='chat'><body>note</body></message>");
    assert_eq!(bodies(&node.read(pc)), ["note"]);
    assert_eq!(node.read(phone), "");
}

#[test]
fn message_to_the_server_is_bounced() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    node.send(alice, "<message to='here' id='m'><body>x</body></message>");
    let answer = node.read(alice);
    assert!(answer.contains("<service-unavailable "), "{answer}");
    assert_eq!((attr(&answer, "from"), attr(&answer, "id")), ("here", "m"));
    assert_eq!((attr(&answer, "to"), attr(&answer, "type")), ("alice@here/phone", "error"));
}

#[test]
fn remote_domain_is_not_found() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    for stanza in [
        "<message to='x@there'><body>x</body></message>",
        "<presence to='x@there'/>",
        "<presence to='x@there' type='subscribe'/>",
        "<iq type='get' id='1' to='there'><q xmlns='urn:q'/></iq>",
    ] {
        node.send(alice, stanza);
        let answer = node.read(alice);
        assert!(answer.contains("<remote-server-not-found "), "{stanza}: {answer}");
    }
}

#[test]
fn invalid_to_is_malformed() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    for to in ["@here", "a b@here", "bob@", "bob@here/", ""] {
        for stanza in [
            format!("<message to='{to}'><body>x</body></message>"),
            format!("<presence to='{to}'/>"),
            format!("<iq type='get' id='1' to='{to}'><q xmlns='urn:q'/></iq>"),
        ] {
            node.send(alice, &stanza);
            let answer = node.read(alice);
            assert_eq!(answer.matches("<jid-malformed ").count(), 1, "{stanza}: {answer}");
        }
    }
}

#[test]
fn errors_are_never_answered() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    for to in ["bob@here", "bob@here/pc", "here", "x@there", "@here"] {
        for stanza in ["message", "presence", "iq"] {
            node.send(alice, &format!("<{stanza} type='error' id='1' to='{to}'/>"));
            assert_eq!(node.read(alice), "", "{stanza} to {to}");
        }
        node.send(alice, &format!("<iq type='result' id='1' to='{to}'/>"));
        assert_eq!(node.read(alice), "", "result to {to}");
    }
}

#[test]
fn address_is_prepared_before_it_is_looked_up() {
    let mut node = Node::new(1);
    let alice = node.online("alice", "phone");
    let bob = node.online("bob", "pc");
    node.send(alice, &chat("BOB@HERE", "hi"));
    let received = node.read(bob);
    assert_eq!((attr(&received, "to"), bodies(&received)), ("bob@here", vec!["hi"]));
}

#[test]
fn messages_of_one_sender_stay_in_order_across_shards() {
    let mut node = Node::new(4);
    let (alice, bob) = pair(&node, false);
    let sender = node.online(alice, "phone");
    let to = node.online(bob, "pc");
    node.hold_rings();
    let wanted: Vec<String> = (0..40).map(|number| number.to_string()).collect();
    for body in &wanted {
        node.send(sender, &chat(&format!("{bob}@here"), body));
    }
    assert_eq!(node.read(to), "");
    node.free_rings();
    assert_eq!(bodies(&node.read(to)), wanted);
}
