//! Logins by SASL2 against two shards with two accounts. The bytes of an input choose what is sent on which connection:
//! elements with right and wrong proofs, what they ask for inline, raw bytes; they let time pass and cut connections.
//!
//! Promised: nothing panics, contained or not; what the server says is sound XML; tokens and sessions are bounded; a
//! login succeeds only with a right proof, and as the one who made it; nothing is left when all have gone.

#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "each target takes its part, and some tests replay several"
)]
#[path = "shared/play.rs"]
mod play;

use std::sync::LazyLock;
use std::time::Duration;

use corefire::stream::TlsFacts;
use corefire::stream::sasl::client::{ClientBinding, ScramClient, plain as plain_message};
use corefire::stream::sasl::{
    Mechanism, SaltedPassword, ScramHash, TLS_EXPORTER, decode_payload, encode_payload, initiator,
};
use corefire::xmpp::ns;
use corefire::xmpp::xml::element::Element;
use play::harness::{Client, HEADER, ITERATIONS, Node, PASSWORD, bind, plain};
use play::{Choices, Ear};

const CONNECTIONS: usize = 8;
const HOLDERS: usize = 2;
const LIFE: u64 = 21 * 86_400;
const EXPORTER: [u8; 32] = [5; 32];

const USERS: [&str; 3] = ["alice", "bob", "ghost"];
const AGENTS: [&str; 4] = ["d4565fa7-4d72-4749-b3d3-740edbf87770", "b", "c", "d"];
const SCRAM: [Mechanism; 6] = [
    Mechanism::ScramSha1,
    Mechanism::ScramSha256,
    Mechanism::ScramSha512,
    Mechanism::ScramSha1Plus,
    Mechanism::ScramSha256Plus,
    Mechanism::ScramSha512Plus,
];
const TOKEN_MECHANISMS: [&str; 3] = ["HT-SHA-256-NONE", "HT-SHA-256-EXPR", "HT-SHA-256-ENDP"];

/// What is asked for beside a login; `@` stands for an id of XEP-0198.
const INLINE: [&str; 8] = [
    "<bind xmlns='urn:xmpp:bind:0'/>",
    "<bind xmlns='urn:xmpp:bind:0'><tag>Fox</tag><enable xmlns='urn:xmpp:sm:3' resume='1'/></bind>",
    "<bind xmlns='urn:xmpp:bind:0'><tag>Fox</tag><enable xmlns='urn:xmpp:carbons:2'/>\
     <inactive xmlns='urn:xmpp:csi:0'/></bind>",
    "<bind xmlns='urn:xmpp:bind:0'><tag>a</tag><tag>b</tag><x xmlns='x'/></bind>",
    "<resume xmlns='urn:xmpp:sm:3' previd='@' h='0'/>",
    "<resume xmlns='urn:xmpp:sm:3' previd='@' h='1'/><bind xmlns='urn:xmpp:bind:0'/>",
    "<bind xmlns='urn:xmpp:bind:0'><enable xmlns='urn:xmpp:sm:3' resume='1'/></bind>\
     <bind xmlns='urn:xmpp:bind:0'/>",
    "<upgrade xmlns='urn:xmpp:sasl:upgrade:0'/>",
];

/// What else a client says.
const SAID: [&str; 16] = [
    "<abort xmlns='urn:xmpp:sasl:2'/>",
    "<abort xmlns='urn:xmpp:sasl:2'><text>no</text></abort>",
    "<next xmlns='urn:xmpp:sasl:2' task='x'/>",
    "<task-data xmlns='urn:xmpp:sasl:2'/>",
    "<response xmlns='urn:xmpp:sasl:2'/>",
    "<response xmlns='urn:xmpp:sasl:2'>=</response>",
    "<authenticate xmlns='urn:xmpp:sasl:2'/>",
    "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-256'/>",
    "<presence/>",
    "<message to='alice@here' type='chat'><body>hi</body></message>",
    "<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>",
    "<r xmlns='urn:xmpp:sm:3'/>",
    "<a xmlns='urn:xmpp:sm:3' h='1'/>",
    "<enable xmlns='urn:xmpp:sm:3' resume='true'/>",
    "<active xmlns='urn:xmpp:csi:0'/>",
    "</stream:stream>",
];

/// The right password with the one salt that all accounts have, and a wrong one: slow, and the same for each input.
static SALTED: LazyLock<[[SaltedPassword; 3]; 2]> = LazyLock::new(|| {
    [PASSWORD, "wrong"].map(|password| {
        [ScramHash::Sha1, ScramHash::Sha256, ScramHash::Sha512].map(|hash| {
            SaltedPassword::derive(password, &[7; 16], ITERATIONS, hash).expect("bounds are kept")
        })
    })
});

/// One that the server gave out.
struct Token {
    user: &'static str,
    agent: &'static str,
    mechanism: &'static str,
    text: String,
    given: u64,
    /// The highest `count` that it was used with.
    count: u32,
    dead: bool,
}

/// A login that a connection tries.
#[derive(Clone)]
struct Attempt {
    user: &'static str,
    agent: &'static str,
    /// The mechanism of the token that it may bring.
    asks: &'static str,
    /// Place of the token that it is made with, `count` that is told, `invalidate`.
    token: Option<(usize, u32, bool)>,
}

struct Conn {
    client: Client,
    ear: Ear,
    exporter: bool,
    /// Some login that was tried here may succeed.
    may: bool,
    attempt: Option<Attempt>,
    /// Two logins are under way at once: which of them an answer is for is not followed.
    is_muddled: bool,
    scram: Option<(ScramClient, bool)>,
    challenge: Vec<u8>,
    raw: Vec<u8>,
}

struct World {
    node: Node,
    conns: Vec<Conn>,
    tokens: Vec<Token>,
    resumable: String,
    seconds: u64,
}

pub(crate) fn sasl2(data: &[u8]) {
    let mut choices = Choices(data);
    let mut node = Node::with(2, |config| config.limits.token_holders = HOLDERS);
    node.users(&USERS[..2]);
    let (conns, tokens) = (Vec::new(), Vec::new());
    let mut world = World { node, conns, tokens, resumable: String::from("x"), seconds: 0 };
    world.connect(&mut choices);
    for _ in 0..200 {
        if choices.is_empty() {
            break;
        }
        world.step(&mut choices);
        world.listen();
        world.check();
    }
    world.leave();
}

impl World {
    fn step(&mut self, choices: &mut Choices<'_>) {
        let what = choices.byte();
        let at = usize::from(what >> 4) % self.conns.len();
        match what & 15 {
            0..=4 => {
                let text = self.authenticate(at, choices);
                self.send(at, choices, &text);
            }
            5..=7 => {
                let text = self.respond(at, choices);
                self.send(at, choices, &text);
            }
            8 | 9 => {
                let said = *choices.pick(&SAID);
                self.send(at, choices, said);
            }
            10 => {
                let raw = choices.raw();
                self.conns[at].raw.extend_from_slice(raw);
                self.say(at, raw);
            }
            11 => self.legacy(at, choices),
            12 => self.connect(choices),
            13 => {
                if self.node.is_open(self.conns[at].client) {
                    self.node.cut(self.conns[at].client);
                }
                self.conns.remove(at);
                self.connect(choices);
            }
            14 => {
                let spans = [1, 20, 70, 400, 86_400, 6 * 86_400, 15 * 86_400, LIFE + 1];
                let seconds = *choices.pick(&spans);
                self.seconds += seconds;
                self.node.advance(Duration::from_secs(seconds));
            }
            _ => match choices.below(4) {
                0 => self.node.hold_store(),
                1 => self.node.hold_rings(),
                2 => self.node.free_rings(),
                _ => self.node.free_store(),
            },
        }
    }

    fn connect(&mut self, choices: &mut Choices<'_>) {
        let how = choices.byte();
        if self.conns.len() == CONNECTIONS {
            let first = self.conns.remove(0);
            if self.node.is_open(first.client) {
                self.node.cut(first.client);
            }
        }
        let exporter = how & 1 != 0;
        let facts = TlsFacts { exporter: exporter.then_some(EXPORTER), ..TlsFacts::default() };
        let client = self.node.connect_as(usize::from(how >> 1 & 1), Some(facts));
        self.node.ignore_pings(client);
        if how & 4 == 0 {
            self.node.send(client, HEADER);
        }
        self.conns.push(Conn {
            client,
            ear: Ear::new(),
            exporter,
            may: false,
            attempt: None,
            is_muddled: false,
            scram: None,
            challenge: Vec::new(),
            raw: Vec::new(),
        });
    }

    fn send(&mut self, at: usize, choices: &mut Choices<'_>, text: &str) {
        let bytes = choices.mutate(text);
        if bytes != text.as_bytes() {
            let conn = &mut self.conns[at];
            conn.raw.extend_from_slice(&bytes);
            // What was wrong for one reason may be right now; a guessed secret is not.
            conn.may |= conn.attempt.as_ref().is_some_and(|attempt| attempt.token.is_some());
            conn.may |= conn.scram.as_ref().is_some_and(|(_, right)| *right);
        }
        self.say(at, &bytes);
    }

    fn say(&mut self, at: usize, bytes: &[u8]) {
        let client = self.conns[at].client;
        if self.node.is_open(client) {
            self.node.send_bytes(client, bytes);
        }
    }

    /// `<authenticate/>` with a message that is right or wrong, and its extras.
    fn authenticate(&mut self, at: usize, choices: &mut Choices<'_>) -> String {
        let (how, extras) = (choices.byte(), choices.byte());
        let user = *choices.pick(&USERS);
        let agent = *choices.pick(&AGENTS);
        let is_known = user != "ghost";
        let right = how & 0x80 == 0;
        let password = if right { PASSWORD } else { "wrong" };
        let asks = TOKEN_MECHANISMS[usize::from(extras & 3) % 3];
        let mut attempt = Attempt { user, agent, asks, token: None };
        let mut more = String::new();
        let conn = &mut self.conns[at];
        let (mechanism, message) = match how & 15 {
            0..=2 => {
                conn.may |= right && is_known;
                ("PLAIN", plain_message("", user, password))
            }
            3..=8 => {
                let mechanism = SCRAM[usize::from(how & 15) - 3];
                let binding = match mechanism.is_plus() {
                    true => ClientBinding::Used { kind: TLS_EXPORTER, data: &EXPORTER },
                    false if how & 0x40 != 0 => ClientBinding::NotOffered,
                    false => ClientBinding::Unsupported,
                };
                let scram = ScramClient::new(mechanism, user, password, "fyko", binding);
                let scram = scram.expect("all is printable");
                let message = scram.first();
                conn.scram = Some((scram, right && is_known));
                (mechanism.name(), message)
            }
            _ => {
                let place = choices.byte();
                let count = u32::from(how >> 4 & 3);
                let invalidate = extras & 4 != 0;
                let told = if count > 0 { format!(" count='{count}'") } else { String::new() };
                let ends = if invalidate { " invalidate='true'" } else { "" };
                more += &format!("<fast xmlns='urn:xmpp:fast:0'{told}{ends}/>");
                let known = self.tokens.len().checked_sub(1 + usize::from(place));
                let mut secret = "guessed";
                let mut mechanism = asks;
                let mut signer = user;
                if let Some(place) = known {
                    let token = &self.tokens[place];
                    secret = &token.text;
                    attempt.token = Some((place, count, invalidate));
                    // Most often for the one who has it.
                    if right {
                        attempt.agent = token.agent;
                        (mechanism, signer) = (token.mechanism, token.user);
                        attempt.user = signer;
                    }
                    let is_due = self.seconds < token.given + LIFE;
                    conn.may |= !token.dead
                        && is_due
                        && (count == 0 || count > token.count)
                        && (token.user, token.agent) == (signer, attempt.agent)
                        && token.mechanism == mechanism
                        && (mechanism == TOKEN_MECHANISMS[0] || conn.exporter);
                }
                let data: &[u8] = if mechanism == TOKEN_MECHANISMS[0] { b"" } else { &EXPORTER };
                (mechanism, initiator(signer, secret, data))
            }
        };
        if extras & 8 == 0 {
            let id = attempt.agent;
            more += &format!("<user-agent id='{id}'><software>fuzz</software></user-agent>");
        }
        if extras & 16 == 0 {
            more += &format!("<request-token xmlns='urn:xmpp:fast:0' mechanism='{asks}'/>");
        } else {
            // A token that is replaced without being asked is replaced by one like it.
            attempt.asks = mechanism;
        }
        if extras & 32 == 0 {
            more += &choices.pick(&INLINE).replace('@', &self.resumable);
        }
        conn.is_muddled |= conn.attempt.is_some();
        conn.attempt = Some(attempt);
        format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>\
             <initial-response>{}</initial-response>{more}</authenticate>",
            encode_payload(&message)
        )
    }

    /// The client-final-message to the last challenge, right or with a byte changed.
    fn respond(&mut self, at: usize, choices: &mut Choices<'_>) -> String {
        let conn = &mut self.conns[at];
        let Some((scram, right)) = &mut conn.scram else { return SAID[4].into() };
        let made = scram.server_first_with(&conn.challenge, &mut |password, _, _, hash| {
            Ok(SALTED[usize::from(password != PASSWORD)][hash as usize].clone())
        });
        let Ok(mut last) = made else { return SAID[5].into() };
        let change = choices.byte();
        if change & 0x80 != 0 {
            let place = usize::from(change & 0x7f) % last.len();
            last[place] ^= 1;
        } else {
            conn.may |= *right;
        }
        format!("<response xmlns='urn:xmpp:sasl:2'>{}</response>", encode_payload(&last))
    }

    /// The way of RFC 6120, on the same connections.
    fn legacy(&mut self, at: usize, choices: &mut Choices<'_>) {
        let text = match choices.below(5) {
            0 => HEADER.to_owned(),
            1 => bind("phone"),
            2 => format!("<resume xmlns='urn:xmpp:sm:3' previd='{}' h='0'/>", self.resumable),
            3 => {
                self.conns[at].may = true;
                plain("alice", PASSWORD)
            }
            _ => plain("alice", "wrong"),
        };
        self.say(at, text.as_bytes());
    }

    fn listen(&mut self) {
        for at in 0..self.conns.len() {
            let text = self.node.read(self.conns[at].client);
            for element in self.conns[at].ear.hear(&text) {
                self.heard(at, &element);
            }
        }
    }

    fn heard(&mut self, at: usize, element: &Element) {
        let conn = &mut self.conns[at];
        if element.is(ns::SASL2, "challenge") {
            conn.challenge = decode_payload(&element.text()).expect("a sound challenge");
        }
        let is_success = element.name == "success";
        if is_success {
            let by_bytes = conn.raw.windows(5).any(|window| window == b"PLAIN");
            assert!(conn.may || by_bytes, "a login without a right proof: {element:?}");
        }
        if element.is(ns::SASL2, "success") {
            self.succeeded(at, element);
        }
        if is_success || element.is(ns::SASL2, "failure") {
            self.conns[at].attempt = None;
        }
        if let Some(id) = find(element, "enabled").and_then(|enabled| enabled.attr("id")) {
            id.clone_into(&mut self.resumable);
        }
    }

    fn succeeded(&mut self, at: usize, success: &Element) {
        let conn = &self.conns[at];
        let identity = success.child(ns::SASL2, "authorization-identifier");
        let identity = identity.expect("who it is").text();
        let is_followed = conn.raw.is_empty() && !conn.is_muddled;
        let Some(attempt) = conn.attempt.clone().filter(|_| is_followed) else { return };
        let jid = format!("{}@here", attempt.user);
        assert!(
            identity == jid || identity.starts_with(&format!("{jid}/")),
            "{identity} instead of {jid}"
        );
        if let Some((place, count, invalidate)) = attempt.token {
            let (user, agent) = (self.tokens[place].user, self.tokens[place].agent);
            let token = &mut self.tokens[place];
            token.count = token.count.max(count);
            // Its use ends what was given out before it, and `invalidate` all.
            for (at, other) in self.tokens.iter_mut().enumerate() {
                let is_ended = at < place || invalidate;
                other.dead |= is_ended && (other.user, other.agent) == (user, agent);
            }
        }
        if let Some(token) = success.child(ns::FAST, "token") {
            let text = token.attr("token").expect("a token has its text").to_owned();
            let Attempt { user, agent, asks: mechanism, .. } = attempt;
            let (given, count, dead) = (self.seconds, 0, false);
            self.tokens.push(Token { user, agent, mechanism, text, given, count, dead });
        }
    }

    fn check(&mut self) {
        assert_eq!(self.node.faults(), 0, "a fault was contained");
        assert!(self.node.sessions() <= 2 * 4, "{} sessions", self.node.sessions());
        for user in &USERS[..2] {
            let record = self.node.record(user).expect("it is there");
            for (name, value) in &record.slots {
                assert!(value.len() <= 1 + HOLDERS * 100, "{name}: {} bytes", value.len());
            }
        }
    }

    /// All go, and nothing may be left.
    fn leave(mut self) {
        self.node.free_rings();
        self.node.free_store();
        self.listen();
        for conn in &self.conns {
            if self.node.is_open(conn.client) {
                self.node.cut(conn.client);
            }
        }
        for _ in 0..4 {
            self.node.advance(Duration::from_secs(400));
        }
        self.check();
        let connections: u64 = (0..2).map(|shard| self.node.probe(shard).connections).sum();
        let left = (self.node.sessions(), self.node.accounts(), connections);
        assert_eq!(left, (0, 0, 0), "sessions, accounts, connections left");
    }
}

/// The first element of that name, at any depth.
fn find<'a>(element: &'a Element, name: &str) -> Option<&'a Element> {
    if element.name == name {
        return Some(element);
    }
    element.children().find_map(|child| find(child, name))
}
