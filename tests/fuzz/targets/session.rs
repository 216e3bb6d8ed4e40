//! Bound sessions of an administrator and of two users, on one shard or two. The bytes of an input choose who says what:
//! the IQs of all features, roster changes, presence, messages, CSI, XEP-0198, raw bytes; they let time pass, hold store
//! and rings, and cut and resume connections.
//!
//! Promised: nothing panics, contained or not; what the server says is sound XML; each IQ of type `get` or `set` gets one
//! answer and no second one; accounts and sessions are bounded, and nothing is left when all have gone.

#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "each target takes its part, and some tests replay several"
)]
#[path = "shared/play.rs"]
mod play;

use std::collections::HashMap;
use std::time::Duration;

use corefire::xmpp::jid::Jid;
use corefire::xmpp::xml::element::Element;
use play::harness::{Client, HEADER, Node, PASSWORD, bare, bind, plain};
use play::{Choices, Ear};

const WHO: [(&str, &str); 3] = [("root", "r"), ("alice", "a"), ("bob", "b")];

/// Addresses that stand for `@J`.
const JIDS: [&str; 20] = [
    "",
    "here",
    "alice@here",
    "bob@here",
    "root@here",
    "alice@here/a",
    "bob@here/b",
    "root@here/r",
    "ghost@here",
    "ghost@here/x",
    "new@here",
    "here/x",
    "far",
    "carol@far",
    "carol@far/x",
    "ALICE@HERE/a",
    "@here",
    "a b@here",
    "alice@here/",
    "x@",
];

/// What stands for `@T`: texts, numbers, times.
const TEXTS: [&str; 16] = [
    "",
    "secret",
    "other",
    "x",
    "0",
    "1",
    "-1",
    "128",
    "4294967296",
    "true",
    "a&amp;b",
    "&#x2028;é",
    "2026-01-01T00:00:00Z",
    "http://jabber.org/protocol/admin",
    "remove",
    "]]&gt;",
];

/// Payloads. `@S` is the session of the last command, `@J` an address, `@T` a text, `@C` a command, `@F` a form.
const PAYLOADS: [&str; 40] = [
    "<query xmlns='jabber:iq:roster'/>",
    "<query xmlns='jabber:iq:roster' ver='@T'/>",
    "<query xmlns='jabber:iq:roster'><item jid='@J' name='@T'><group>@T</group></item></query>",
    "<query xmlns='jabber:iq:roster'><item jid='@J' subscription='remove'/></query>",
    "<query xmlns='jabber:iq:roster'><item jid='@J'/><item jid='@J'/></query>",
    "<query xmlns='jabber:iq:last'/>",
    "<query xmlns='jabber:iq:version'/>",
    "<time xmlns='urn:xmpp:time'/>",
    "<ping xmlns='urn:xmpp:ping'/>",
    "<query xmlns='http://jabber.org/protocol/disco#info'/>",
    "<query xmlns='http://jabber.org/protocol/disco#info' node='@C'/>",
    "<query xmlns='http://jabber.org/protocol/disco#items'/>",
    "<query xmlns='http://jabber.org/protocol/disco#items' node='@T'/>",
    "<query xmlns='http://jabber.org/protocol/disco#items' \
     node='http://jabber.org/protocol/commands'/>",
    "<query xmlns='jabber:iq:private'><x xmlns='fuzz:@T'>@T</x></query>",
    "<query xmlns='jabber:iq:private'><x xmlns='fuzz'/><y xmlns='fuzz'/></query>",
    "<query xmlns='jabber:iq:private'/>",
    "<vCard xmlns='vcard-temp'/>",
    "<vCard xmlns='vcard-temp'><FN>@T</FN><PHOTO><BINVAL>@T</BINVAL></PHOTO></vCard>",
    "<query xmlns='jabber:iq:register'/>",
    "<query xmlns='jabber:iq:register'><username>@T</username><password>@T</password></query>",
    "<query xmlns='jabber:iq:register'><username>alice</username><password>@T</password></query>",
    "<query xmlns='jabber:iq:register'><remove/></query>",
    "<blocklist xmlns='urn:xmpp:blocking'/>",
    "<block xmlns='urn:xmpp:blocking'><item jid='@J'/><item jid='@J'/></block>",
    "<unblock xmlns='urn:xmpp:blocking'><item jid='@J'/></unblock>",
    "<unblock xmlns='urn:xmpp:blocking'/>",
    "<enable xmlns='urn:xmpp:carbons:2'/>",
    "<disable xmlns='urn:xmpp:carbons:2'/>",
    "<services xmlns='urn:xmpp:extdisco:2' type='@T'/>",
    "<credentials xmlns='urn:xmpp:extdisco:2'><service host='@J' type='@T'/></credentials>",
    "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>",
    "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'/>",
    "<command xmlns='http://jabber.org/protocol/commands' node='@C'/>",
    "<command xmlns='http://jabber.org/protocol/commands' node='@C' action='execute'>@F</command>",
    "<command xmlns='http://jabber.org/protocol/commands' node='@C' sessionid='@S'>@F</command>",
    "<command xmlns='http://jabber.org/protocol/commands' node='@C' sessionid='@S' \
     action='complete'>@F</command>",
    "<command xmlns='http://jabber.org/protocol/commands' node='@C' sessionid='@S' \
     action='cancel'/>",
    "<nothing xmlns='fuzz'/>",
    "",
];

/// Names of XEP-0133; with its prefix, but for the last two.
const COMMANDS: [&str; 24] = [
    "add-user",
    "delete-user",
    "disable-user",
    "reenable-user",
    "end-user-session",
    "change-user-password",
    "get-user-roster",
    "user-stats",
    "get-registered-users-num",
    "get-disabled-users-num",
    "get-online-users-num",
    "get-active-users-num",
    "get-idle-users-num",
    "get-registered-users-list",
    "get-disabled-users-list",
    "get-online-users-list",
    "get-active-users",
    "get-idle-users",
    "announce",
    "shutdown",
    "nothing",
    "",
    "http://jabber.org/protocol/commands",
    "fuzz",
];

const FIELDS: [&str; 10] = [
    "accountjid",
    "accountjids",
    "password",
    "password-verify",
    "max_items",
    "delay",
    "subject",
    "body",
    "announcement",
    "FORM_TYPE",
];

/// Whole stanzas and other elements of a session.
const SAID: [&str; 36] = [
    "<presence/>",
    "<presence><priority>@T</priority><show>away</show><status>@T</status></presence>",
    "<presence type='unavailable'/>",
    "<presence to='@J'/>",
    "<presence type='unavailable' to='@J'/>",
    "<presence type='subscribe' to='@J' id='@T'><status>@T</status></presence>",
    "<presence type='subscribed' to='@J'/>",
    "<presence type='unsubscribe' to='@J'/>",
    "<presence type='unsubscribed' to='@J'/>",
    "<presence type='probe' to='@J'/>",
    "<presence type='error' to='@J'/>",
    "<presence type='@T' to='@J'/>",
    "<message to='@J' type='chat' id='@T'><body>@T</body></message>",
    "<message to='@J'><body>@T</body></message>",
    "<message to='@J' type='headline'><body>@T</body></message>",
    "<message to='@J' type='groupchat'><body>@T</body></message>",
    "<message to='@J' type='error'><body>@T</body></message>",
    "<message to='@J' type='@T'/>",
    "<message to='@J' type='chat'><body>@T</body><no-store xmlns='urn:xmpp:hints'/></message>",
    "<message to='@J' type='chat'><store xmlns='urn:xmpp:hints'/></message>",
    "<message to='@J' type='chat'><body>@T</body><private xmlns='urn:xmpp:carbons:2'/>\
     <no-copy xmlns='urn:xmpp:hints'/></message>",
    "<message to='@J' type='chat'><body>@T</body><stanza-id xmlns='urn:xmpp:sid:0' id='@T' \
     by='@J'/><origin-id xmlns='urn:xmpp:sid:0' id='@T'/></message>",
    "<message to='@J' type='chat'><active xmlns='http://jabber.org/protocol/chatstates'/></message>",
    "<message to='@J' type='chat'><received xmlns='urn:xmpp:carbons:2'><forwarded \
     xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client'/></forwarded></received></message>",
    "<iq type='result' id='z@T' to='@J'/>",
    "<iq type='error' id='z@T' to='@J'><error type='cancel'/></iq>",
    "<iq type='@T' id='z' to='@J'/>",
    "<active xmlns='urn:xmpp:csi:0'/>",
    "<inactive xmlns='urn:xmpp:csi:0'/>",
    "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
    "<r xmlns='urn:xmpp:sm:3'/>",
    "<a xmlns='urn:xmpp:sm:3' h='@T'/>",
    "<resume xmlns='urn:xmpp:sm:3' previd='@T' h='0'/>",
    " ",
    "<unknown xmlns='fuzz'/>",
    "</stream:stream>",
];

struct Player {
    name: &'static str,
    resource: &'static str,
    client: Client,
    ear: Ear,
    /// How often each IQ was answered, and whether it has to be: a client that has gone need not.
    asked: HashMap<String, (u32, bool)>,
    /// Those of others that wait for an answer: who asked, and the id.
    owed: Vec<(String, String)>,
    /// For `<resume/>`, once XEP-0198 is enabled, and the stanzas received since.
    acked: Option<(String, u32)>,
    command: String,
    /// Raw bytes were said, or what was sent twice may be heard twice: answers are not counted.
    is_muddled: bool,
    bound: bool,
}

struct World {
    node: Node,
    players: Vec<Player>,
    count: u32,
    shards: usize,
}

pub(crate) fn session(data: &[u8]) {
    let mut choices = Choices(data);
    let shards = 1 + u16::from(choices.byte() & 1);
    let mut node = Node::with(shards, |config| {
        config.admins = vec![bare("root")];
        config.limits.block_list_items = 4;
        config.limits.private_items = 3;
        config.limits.private_bytes = 1_000;
        config.limits.offline_messages = 10;
        config.limits.held_stanzas = 5;
    });
    node.users(&["root", "alice", "bob"]);
    let players = WHO.map(|(name, resource)| {
        let client = node.login(name, resource);
        node.ignore_pings(client);
        Player {
            name,
            resource,
            client,
            ear: Ear::opened(),
            asked: HashMap::new(),
            owed: Vec::new(),
            acked: None,
            command: "x".into(),
            is_muddled: false,
            bound: true,
        }
    });
    let mut world = World { node, players: players.into(), count: 0, shards: shards.into() };
    for _ in 0..200 {
        if choices.is_empty() {
            break;
        }
        world.step(&mut choices);
        world.listen();
        assert_eq!(world.node.faults(), 0, "a fault was contained");
        assert!(world.node.sessions() <= 4 * 4, "{} sessions", world.node.sessions());
    }
    world.leave();
}

impl World {
    fn step(&mut self, choices: &mut Choices<'_>) {
        let what = choices.byte();
        let at = usize::from(what >> 4) % self.players.len();
        match what & 15 {
            0..=6 => self.ask(at, choices),
            7..=10 => {
                let text = *choices.pick(&SAID);
                let text = self.fill(at, text, choices);
                self.say(at, text.as_bytes());
            }
            11 => drop(self.answer(at)),
            12 => {
                if self.node.is_open(self.players[at].client) {
                    self.node.cut(self.players[at].client);
                }
                self.come_back(at, choices);
            }
            13 => {
                let seconds = *choices.pick(&[1, 10, 61, 130, 400]);
                self.node.advance(Duration::from_secs(seconds));
            }
            14 => match choices.below(8) {
                0 => self.node.hold_store(),
                1 => self.node.free_store(),
                2 => self.node.hold_rings(),
                3 => self.node.free_rings(),
                4 => self.node.errands_fail ^= true,
                5 => self.node.store_fails ^= true,
                6 => self.node.relieve(),
                _ => self.node.kick(WHO.map(|(name, _)| bare(name).to_string())[at].as_str()),
            },
            _ => {
                let raw = choices.raw();
                self.players[at].is_muddled = true;
                self.say(at, raw);
            }
        }
    }

    fn say(&mut self, at: usize, bytes: &[u8]) {
        let client = self.players[at].client;
        if self.node.is_open(client) {
            self.node.send_bytes(client, bytes);
        }
    }

    /// Puts in what the marks of a template stand for.
    fn fill(&self, at: usize, template: &str, choices: &mut Choices<'_>) -> String {
        let mut pieces = template.split('@');
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (mark, rest) = piece.split_at(1);
            match mark {
                "J" => text += JIDS[choices.below(JIDS.len())],
                "T" => match choices.byte() {
                    255 => text += &"long ".repeat(1_000),
                    which => text += TEXTS[usize::from(which) % TEXTS.len()],
                },
                "S" => text += &self.players[at].command,
                "C" => {
                    let which = choices.below(COMMANDS.len());
                    let prefix = if which < 21 { "http://jabber.org/protocol/admin#" } else { "" };
                    text += &[prefix, COMMANDS[which]].concat();
                }
                _ => text += &form(choices),
            }
            text += rest;
        }
        text
    }

    /// An IQ with an id that no other has.
    fn ask(&mut self, at: usize, choices: &mut Choices<'_>) {
        let how = choices.byte();
        let kind = if how & 1 == 0 { "set" } else { "get" };
        let to = match how >> 1 & 3 {
            0 | 1 => String::new(),
            2 => " to='here'".into(),
            _ => format!(" to='{}'", choices.pick(&JIDS)),
        };
        let payload = *choices.pick(&PAYLOADS);
        let payload = self.fill(at, payload, choices);
        self.count += 1;
        let id = format!("q{}", self.count);
        let inner = choices.mutate(&payload);
        let start = format!("<iq type='{kind}' id='{id}'{to}>");
        let iq = [start.as_bytes(), &inner, b"</iq>"].concat();
        let player = &mut self.players[at];
        if inner != payload.as_bytes() {
            // It may be another stanza now, or two.
            let wrapped = [b"<x>", &inner[..], b"</x>"].concat();
            let is_one = Ear::opened().takes(&wrapped);
            player.is_muddled |= !is_one;
        }
        let is_sent = player.bound && self.node.is_open(player.client);
        if is_sent {
            // A player answers for itself: one that was left inside of an unfinished element, or cut off, does not.
            let address = to.split('\'').nth(1).and_then(|text| Jid::parse(text).ok());
            let is_player = address.is_some_and(|address| {
                WHO.iter().any(|(name, resource)| address.is(&format!("{name}@here/{resource}")))
            });
            player.asked.insert(id, (0, !is_player));
        }
        self.say(at, &iq);
    }

    /// What others have asked this one gets its result.
    fn answer(&mut self, at: usize) -> bool {
        let owed = std::mem::take(&mut self.players[at].owed);
        for (from, id) in &owed {
            let to = if from.is_empty() { String::new() } else { format!(" to='{from}'") };
            self.say(at, format!("<iq type='result' id='{id}'{to}/>").as_bytes());
        }
        !owed.is_empty()
    }

    /// A new connection, which resumes the session or logs in.
    fn come_back(&mut self, at: usize, choices: &mut Choices<'_>) {
        let how = choices.byte();
        let client = self.node.connect(usize::from(how & 1) % self.shards);
        let player = &mut self.players[at];
        self.node.ignore_pings(client);
        player.client = client;
        player.ear = Ear::new();
        player.asked.clear();
        player.owed.clear();
        player.bound = false;
        // Answers that the old session waits for may come to the new one.
        player.is_muddled = true;
        let resumes = player.acked.take().filter(|_| how & 2 == 0);
        let last = match resumes {
            Some((id, h)) => {
                format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>")
            }
            None => bind(player.resource),
        };
        let name = player.name;
        for text in [HEADER, &plain(name, PASSWORD), HEADER, &last] {
            self.say(at, text.as_bytes());
        }
    }

    fn listen(&mut self) {
        for at in 0..self.players.len() {
            let text = self.node.read(self.players[at].client);
            let player = &mut self.players[at];
            for element in player.ear.hear(&text) {
                player.heard(&element);
            }
        }
    }

    /// Everything is set free and answered; then all go.
    fn leave(mut self) {
        self.node.errands_fail = false;
        self.node.free_rings();
        self.node.free_store();
        self.node.free_rings();
        self.listen();
        for _ in 0..8 {
            let mut any = false;
            for at in 0..self.players.len() {
                any |= self.answer(at);
            }
            self.listen();
            if !any {
                break;
            }
        }
        for player in &self.players {
            if player.is_muddled || !self.node.is_open(player.client) {
                continue;
            }
            for (id, (count, must)) in &player.asked {
                assert!(*count == 1 || !must, "no answer to {id} of {}", player.name);
            }
        }
        self.node.store_fails = false;
        for player in &self.players {
            if self.node.is_open(player.client) {
                self.node.cut(player.client);
            }
        }
        for _ in 0..4 {
            self.node.advance(Duration::from_secs(400));
        }
        let left = (self.node.sessions(), self.node.accounts(), self.node.faults());
        assert_eq!(left, (0, 0, 0), "sessions and accounts left, faults");
    }
}

impl Player {
    fn heard(&mut self, element: &Element) {
        let is_stanza = ["message", "presence", "iq"].contains(&element.name.as_str());
        if let Some((_, h)) = self.acked.as_mut().filter(|_| is_stanza) {
            *h += 1;
        }
        if element.is("urn:xmpp:sm:3", "enabled") {
            self.acked = element.attr("id").map(|id| (id.to_owned(), 0));
        }
        if element.name != "iq" {
            return;
        }
        let id = element.attr("id").unwrap_or_default().to_owned();
        if let Some(command) = element.child("http://jabber.org/protocol/commands", "command")
            && let Some(session) = command.attr("sessionid")
        {
            session.clone_into(&mut self.command);
        }
        match element.attr("type") {
            Some("get" | "set") => {
                self.owed.push((element.attr("from").unwrap_or_default().to_owned(), id));
            }
            _ if id == "bind" => self.bound = true,
            _ => {
                if let Some((count, _)) = self.asked.get_mut(&id) {
                    *count += 1;
                    assert!(*count == 1 || self.is_muddled, "two answers: {element:?}");
                } else {
                    let is_strange = id.starts_with('q') && !self.is_muddled;
                    assert!(!is_strange, "an answer to nothing: {element:?}");
                }
            }
        }
    }
}

/// A form of administration, with fields and values as they come.
fn form(choices: &mut Choices<'_>) -> String {
    let mut form = String::from("<x xmlns='jabber:x:data' type='submit'>");
    if choices.byte() < 250 {
        form += "<field var='FORM_TYPE'><value>http://jabber.org/protocol/admin</value></field>";
    }
    for _ in 0..choices.below(5) {
        let field = choices.pick(&FIELDS);
        form += &format!("<field var='{field}'>");
        for _ in 0..choices.below(3) {
            let which = choices.byte();
            let value = match which & 1 {
                0 => JIDS[usize::from(which >> 1) % JIDS.len()],
                _ => TEXTS[usize::from(which >> 1) % TEXTS.len()],
            };
            form += &format!("<value>{value}</value>");
        }
        form += "</field>";
    }
    form + "</x>"
}
