//! Each bound of `shard::Limits` and of a stream: what is just within it passes, one more gets the condition that
//! `config/corefire.toml` names. How each is met in detail, and what becomes of those concerned, is in `limits.rs`.

use crate::harness::*;
use corefire::base::limit::Rate;
use corefire::shard::ShardConfig;
use std::time::Duration;

/// How one bound is met.
struct Bound {
    /// The field of `Limits`, or of `XmlLimits`.
    name: &'static str,
    set: fn(&mut ShardConfig),
    /// What whom it concerns hears at the bound, and one beyond.
    meet: fn(&mut Node) -> (String, String),
    /// Heard beyond and not at the bound.
    condition: &'static str,
}

/// Sends each stanza, and gives what came back before the last and at the last.
fn each(node: &mut Node, client: Client, stanzas: &[String]) -> (String, String) {
    let (last, rest) = stanzas.split_last().unwrap();
    rest.iter().for_each(|stanza| node.send(client, stanza));
    let before = node.read(client);
    node.send(client, last);
    (before, node.read(client))
}

/// Wrong passwords, the last of which is read a second after the one before.
fn guesses(node: &mut Node, client: Client, users: [&str; 3]) -> (String, String) {
    let [first, second, third] = users.map(|user| plain(user, "wrong"));
    node.send(client, &(first + &second));
    let before = node.read(client);
    node.advance(Duration::from_secs(1));
    node.send(client, &third);
    (before, node.read(client))
}

fn set(id: &str, payload: &str) -> String {
    format!("<iq type='set' id='{id}'>{payload}</iq>")
}

fn contact(number: usize, inner: &str) -> String {
    let item = format!("<item jid='c{number}@here'>{inner}</item>");
    set("r", &format!("<query xmlns='jabber:iq:roster'>{item}</query>"))
}

fn groups(count: usize) -> String {
    contact(0, &(0..count).map(|n| format!("<group>g{n}</group>")).collect::<String>())
}

fn named(bytes: usize) -> String {
    contact(0, &format!("<group>{}</group>", "g".repeat(bytes)))
}

fn private(name: &str, bytes: usize) -> String {
    let item = format!("<{name} xmlns='urn:x'>{}</{name}>", "x".repeat(bytes));
    set("p", &format!("<query xmlns='jabber:iq:private'>{item}</query>"))
}

fn card(bytes: usize) -> String {
    set("v", &format!("<vCard xmlns='vcard-temp'><FN>{}</FN></vCard>", "x".repeat(bytes)))
}

fn failures(count: u32) -> Rate {
    Rate::over(count, Duration::from_secs(600))
}

fn logged_out(node: &mut Node) -> Client {
    node.users(&["alice"]);
    let stranger = node.connect(0);
    node.send(stranger, HEADER);
    node.read(stranger);
    stranger
}

fn alice(node: &mut Node) -> Client {
    node.online("alice", "phone")
}

/// What an opened stream before login hears of the two.
fn strangers(node: &mut Node, within: &str, beyond: &str) -> (String, String) {
    let mut hear = |said: &str| {
        let stranger = node.connect(0);
        node.send(stranger, HEADER);
        node.read(stranger);
        node.send(stranger, said);
        node.read(stranger)
    };
    (hear(within), hear(beyond))
}

/// What a client hears of each, on a session of its own.
fn fresh(node: &mut Node, within: &str, beyond: &str) -> (String, String) {
    let mut hear = |said: &str| {
        let client = alice(node);
        node.send(client, said);
        node.read(client)
    };
    (hear(within), hear(beyond))
}

fn nested(depth: usize) -> String {
    let inner = depth - 1;
    format!("<message to='alice@here'>{}{}</message>", "<a>".repeat(inner), "</a>".repeat(inner))
}

const BOUNDS: &[Bound] = &[
    Bound {
        name: "login_timeout",
        set: |config| config.limits.login_timeout = Duration::from_secs(5),
        meet: |node| {
            let stranger = node.connect(0);
            node.send(stranger, HEADER);
            node.advance(Duration::from_millis(4_900));
            let before = node.read(stranger);
            node.advance(Duration::from_millis(200));
            (before, node.read(stranger))
        },
        condition: "<connection-timeout ",
    },
    Bound {
        name: "silence",
        set: |config| config.limits.silence = Duration::from_secs(60),
        meet: |node| {
            let client = alice(node);
            node.ignore_pings(client);
            node.advance(Duration::from_secs(61));
            let before = node.read(client);
            assert!(before.contains("<ping "), "{before}");
            node.advance(Duration::from_secs(31));
            (before, node.read(client))
        },
        condition: "<connection-timeout ",
    },
    Bound {
        name: "login_attempts",
        set: |config| config.limits.login_attempts = 3,
        meet: |node| {
            node.users(&["alice"]);
            let stranger = node.connect(0);
            node.send(stranger, HEADER);
            guesses(node, stranger, ["alice"; 3])
        },
        condition: "<policy-violation ",
    },
    Bound {
        name: "failed_logins_account",
        set: |config| config.limits.failed_logins_account = failures(2),
        meet: |node| {
            let stranger = logged_out(node);
            guesses(node, stranger, ["alice"; 3])
        },
        condition: "<temporary-auth-failure/>",
    },
    Bound {
        name: "failed_logins_network",
        set: |config| config.limits.failed_logins_network = failures(2),
        meet: |node| {
            let stranger = logged_out(node);
            guesses(node, stranger, ["alice", "bob", "carol"])
        },
        condition: "<temporary-auth-failure/>",
    },
    Bound {
        name: "output_bytes",
        set: |config| config.limits.output_bytes = 70_000,
        meet: |node| {
            let sender = alice(node);
            let bob = node.online("bob", "pc");
            node.stop_reading(bob);
            let said = chat("bob@here/pc", &"x".repeat(15_000));
            let mut open = |count: usize| {
                (0..count).for_each(|_| node.send(sender, &said));
                if node.is_open(bob) { "open" } else { "closed" }.to_owned()
            };
            (open(2), open(1))
        },
        condition: "closed",
    },
    Bound {
        name: "resources_per_account",
        set: |config| config.limits.resources_per_account = 2,
        meet: |node| {
            node.login("alice", "1");
            let second = node.authenticate(0, "alice");
            node.send(second, &bind("2"));
            let third = node.authenticate(0, "alice");
            node.send(third, &bind("3"));
            (node.read(second), node.read(third))
        },
        condition: "<resource-constraint ",
    },
    Bound {
        name: "roster_items",
        set: |config| config.limits.roster_items = 3,
        meet: |node| {
            let client = alice(node);
            each(node, client, &[0, 1, 2, 3].map(|number| contact(number, "")))
        },
        condition: "<not-acceptable ",
    },
    Bound {
        name: "roster_groups",
        set: |config| config.limits.roster_groups = 3,
        meet: |node| fresh(node, &groups(3), &groups(4)),
        condition: "<not-acceptable ",
    },
    Bound {
        name: "roster_name_bytes",
        set: |config| config.limits.roster_name_bytes = 30,
        meet: |node| fresh(node, &named(30), &named(31)),
        condition: "<not-acceptable ",
    },
    Bound {
        name: "block_list_items",
        set: |config| config.limits.block_list_items = 2,
        meet: |node| {
            let client = alice(node);
            let block = |number: usize| {
                let item = format!("<item jid='c{number}@here'/>");
                set("b", &format!("<block xmlns='urn:xmpp:blocking'>{item}</block>"))
            };
            each(node, client, &[0, 1, 2].map(block))
        },
        condition: "<not-acceptable ",
    },
    Bound {
        name: "directed_presence",
        set: |config| config.limits.directed_presence = 2,
        meet: |node| {
            let client = alice(node);
            each(node, client, &[0, 1, 2].map(|number| format!("<presence to='c{number}@here'/>")))
        },
        condition: "<resource-constraint ",
    },
    Bound {
        name: "offline_messages",
        set: |config| config.limits.offline_messages = 2,
        meet: |node| {
            let client = alice(node);
            node.users(&["bob"]);
            each(node, client, &["1", "2", "3"].map(|body| chat("bob@here", body)))
        },
        condition: "<service-unavailable ",
    },
    Bound {
        name: "resume",
        set: |config| config.limits.resume = Duration::from_secs(20),
        meet: |node| {
            let mut after = |seconds: u64| {
                let (client, id) = node.online_acked("alice", "phone");
                node.cut(client);
                node.advance(Duration::from_secs(seconds));
                let again = node.authenticate(0, "alice");
                node.send(again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"));
                node.read(again)
            };
            (after(19), after(21))
        },
        condition: "<item-not-found ",
    },
    Bound {
        name: "sessions_remembered",
        set: |config| config.limits.sessions_remembered = 2,
        meet: |node| {
            let ids = ["1", "2", "3"].map(|resource| {
                let (client, id) = node.online_acked("alice", resource);
                node.send(client, "</stream:stream>");
                id
            });
            let [first, second, third] = ids.map(|id| {
                let again = node.authenticate(0, "alice");
                node.send(again, &format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>"));
                node.read(again)
            });
            (second + &third, first)
        },
        condition: "<failed xmlns='urn:xmpp:sm:3'><item-not-found ",
    },
    Bound {
        name: "resume_queue",
        set: |config| config.limits.resume_queue = 5,
        meet: |node| {
            let sender = alice(node);
            let (bob, _) = node.online_acked("bob", "pc");
            let mut open = |count: usize| {
                (0..count).for_each(|_| node.send(sender, &chat("bob@here/pc", "x")));
                if node.is_open(bob) { "open" } else { "ended" }.to_owned()
            };
            (open(5), open(1))
        },
        condition: "ended",
    },
    Bound {
        name: "pending_stanzas",
        set: |config| config.limits.pending_stanzas = 2,
        meet: |node| {
            let client = alice(node);
            node.users(&["bob"]);
            node.hold_store();
            each(node, client, &["1", "2", "3"].map(|body| chat("bob@here", body)))
        },
        condition: "<resource-constraint ",
    },
    Bound {
        name: "accounts",
        set: |config| config.limits.accounts = 2,
        meet: |node| {
            let client = alice(node);
            let bob = node.online("bob", "pc");
            node.users(&["carol"]);
            let (to_bob, to_carol) = (chat("bob@here", "x"), chat("carol@here", "x"));
            let heard = each(node, client, &[to_bob, to_carol]);
            node.read(bob);
            heard
        },
        condition: "<resource-constraint ",
    },
    Bound {
        name: "vcard_bytes",
        set: |config| config.limits.vcard_bytes = 500,
        meet: |node| fresh(node, &card(400), &card(501)),
        condition: "<policy-violation ",
    },
    Bound {
        name: "private_bytes",
        set: |config| config.limits.private_bytes = 500,
        meet: |node| fresh(node, &private("a", 400), &private("a", 501)),
        condition: "<policy-violation ",
    },
    Bound {
        name: "private_items",
        set: |config| config.limits.private_items = 2,
        meet: |node| {
            let client = alice(node);
            each(node, client, &["a", "b", "c"].map(|name| private(name, 1)))
        },
        condition: "<policy-violation ",
    },
    Bound {
        name: "open_iqs",
        set: |config| config.limits.open_iqs = 2,
        meet: |node| {
            let client = alice(node);
            node.online("bob", "pc");
            let ask = |id: usize| {
                format!("<iq type='get' id='{id}' to='bob@here/pc'><q xmlns='urn:q'/></iq>")
            };
            each(node, client, &[0, 1, 2].map(ask))
        },
        condition: "<resource-constraint ",
    },
    // ---- of streams
    Bound {
        name: "stanza_bytes_max before login",
        set: |config| config.policy.limits_before.stanza_bytes_max = 1_000,
        meet: |node| {
            let auth = |bytes: usize| {
                let bare = "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='X'></auth>";
                bare.replace("><", &format!(">{}<", "x".repeat(bytes - bare.len())))
            };
            strangers(node, &auth(1_000), &auth(1_001))
        },
        condition: "<policy-violation ",
    },
    Bound {
        name: "stanza_bytes_max",
        set: |config| config.policy.limits.stanza_bytes_max = 1_000,
        meet: |node| {
            let bare = chat("alice@here", "").len();
            let said = |bytes: usize| {
                chat("alice@here", "")
                    .replace("<body>", &format!("<body>{}", "x".repeat(bytes - bare)))
            };
            fresh(node, &said(1_000), &said(1_001))
        },
        condition: "<policy-violation ",
    },
    Bound {
        name: "depth_max",
        set: |config| config.policy.limits.depth_max = 10,
        meet: |node| fresh(node, &nested(10), &nested(11)),
        condition: "<policy-violation ",
    },
    Bound {
        name: "attributes_max",
        set: |config| config.policy.limits.attributes_max = 10,
        meet: |node| {
            let said = |count: usize| {
                let attributes: String = (0..count).map(|n| format!(" a{n}='x'")).collect();
                format!("<message to='alice@here'><x{attributes}/></message>")
            };
            fresh(node, &said(10), &said(11))
        },
        condition: "<policy-violation ",
    },
    Bound {
        name: "name_bytes_max",
        set: |config| config.policy.limits.name_bytes_max = 20,
        meet: |node| {
            let said = |bytes: usize| {
                format!("<message to='alice@here'><{}/></message>", "x".repeat(bytes))
            };
            fresh(node, &said(20), &said(21))
        },
        condition: "<policy-violation ",
    },
    Bound {
        name: "header_bytes_max",
        set: |config| config.policy.limits_before.header_bytes_max = 300,
        meet: |node| {
            let mut hear = |bytes: usize| {
                let pad = "x".repeat(bytes - HEADER.len() - " id=''".len());
                let stranger = node.connect(0);
                node.send(stranger, &HEADER.replace(" to=", &format!(" id='{pad}' to=")));
                node.read(stranger)
            };
            (hear(300), hear(301))
        },
        condition: "<policy-violation ",
    },
    Bound {
        name: "component_open_iqs",
        set: |config| {
            config.components = vec![access("bot.here")];
            config.limits.component_open_iqs = 3;
        },
        meet: |node| {
            let mut lost = |count: usize| {
                let (user, bot) = (alice(node), node.component(0, "bot.here"));
                for id in 1..=count {
                    let ask = format!("<iq type='get' id='{id}' to='bot.here'><q xmlns='q'/></iq>");
                    node.send(user, &ask);
                }
                node.read(bot);
                node.cut(bot);
                let answers = node.read(user).matches("<remote-server-timeout ").count();
                node.cut(user);
                if answers < count { "forgotten <" } else { "all" }.to_owned()
            };
            (lost(3), lost(4))
        },
        condition: "forgotten <",
    },
    Bound {
        name: "component_connections",
        set: |config| {
            config.components = vec![access("bot.here")];
            config.limits.component_connections = 2;
        },
        meet: |node| {
            let mut hear = || node.shake_hands(0, "bot.here").1;
            (hear() + &hear(), hear())
        },
        condition: "<resource-constraint ",
    },
];

/// Bounds that are met in another file.
const ELSEWHERE: &[(&str, &str)] = &[
    ("rates", "rates.rs: nobody is refused, but slowed"),
    ("subscription_requests", "subscriptions.rs: the answer is no error but `unsubscribed`"),
    ("probe_reads", "presence.rs: a probe stays unanswered"),
    ("archive_page", "archive.rs: pages are shorter"),
    ("archive_count", "archive.rs: the number is not told"),
    ("archive_preferences", "archive.rs: where there are archives"),
    ("held_stanzas", "csi.rs: what is held goes out"),
    ("held_bytes", "csi.rs: likewise"),
    ("failed_logins_tracked", "shard/attempts.rs: the oldest is forgotten"),
    ("token_holders", "fast.rs: the client idle for longest logs in with its password"),
    ("token_life", "fast.rs: it is a time"),
    ("copies", "copies.rs: the session goes on without a copy"),
    ("copy_bytes", "copies.rs: likewise"),
    ("quarantine", "register.rs: it is a time"),
    ("quarantine_strangers", "register.rs: it holds for accounts that were made in-band"),
];

#[test]
fn what_is_within_a_bound_passes_and_one_more_gets_its_condition() {
    for bound in BOUNDS {
        let mut node = Node::with(1, bound.set);
        let (within, beyond) = (bound.meet)(&mut node);
        let (name, condition) = (bound.name, bound.condition);
        assert!(!within.contains(condition), "{name}, at the bound: {within}");
        assert!(beyond.contains(condition), "{name}, beyond: {condition} wanted: {beyond}");
        assert_eq!(node.faults(), 0, "{name}");
    }
}

#[test]
fn each_bound_is_met_here() {
    let files = [
        (include_str!("../../src/shard/config.rs"), "pub struct Limits {"),
        (include_str!("../../src/xmpp/xml/framer.rs"), "pub struct XmlLimits {"),
    ];
    for (text, start) in files {
        let fields = text.split(start).nth(1).unwrap().split("\n}\n").next().unwrap();
        let fields = fields.lines().filter_map(|line| line.trim().strip_prefix("pub "));
        for field in fields.map(|field| field.split(':').next().unwrap()) {
            let met = BOUNDS.iter().any(|bound| bound.name == field)
                || ELSEWHERE.iter().any(|(name, _)| *name == field);
            assert!(met, "{field} has no row in tests/shard/bounds.rs");
        }
    }
}
