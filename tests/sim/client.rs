//! A client: logs in in its own way, counts as XEP-0198 wants it, and tells the model what it saw.

use crate::DOMAIN;
use crate::chance::Chance;
use crate::model::Model;
use corefire::stream::sasl::client::{ClientBinding, ScramClient, plain};
use corefire::stream::sasl::{
    ITERATIONS_MIN, Mechanism, SaltedPassword, ScramHash, decode_payload, encode_payload,
};
use corefire::xmpp::xml::framer::{Framer, Step, XmlLimits};
use std::collections::{BTreeSet, VecDeque};
use std::sync::LazyLock;

pub(crate) const PASSWORD: &str = "pencil";
pub(crate) const SALT: [u8; 16] = *b"the salt of all.";

const HASHES: [ScramHash; 3] = [ScramHash::Sha1, ScramHash::Sha256, ScramHash::Sha512];
static SALTED: LazyLock<[SaltedPassword; 3]> = LazyLock::new(|| {
    HASHES.map(|hash| {
        SaltedPassword::derive(PASSWORD, &SALT, ITERATIONS_MIN, hash).expect("bounds are kept")
    })
});

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acks {
    None,
    Counted,
    Resumable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Away,
    Opening,
    Securing,
    Auth,
    Reopening,
    Binding,
    Resuming,
    Online,
}

/// What the client does later, of itself.
#[derive(Clone, Debug)]
pub(crate) enum Later {
    /// Sends these bytes, if the session is still this one.
    Say { session: u32, bytes: Vec<u8>, counted: bool },
    /// Answers `<r/>`.
    Acknowledge { session: u32 },
    /// Answers the ping behind logged messages, which confirms the first so many receipts.
    Pong { session: u32, id: String, upto: u64 },
}

impl Later {
    fn session(&self) -> u32 {
        match self {
            Later::Say { session, .. }
            | Later::Acknowledge { session }
            | Later::Pong { session, .. } => *session,
        }
    }
}

/// What the world must do for the client.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) send: Vec<u8>,
    pub(crate) later: Vec<(u64, Later)>,
    pub(crate) hang_up: bool,
    /// It begins the TLS handshake.
    pub(crate) secure: bool,
    /// It is online now.
    pub(crate) online: bool,
}

pub(crate) struct Client {
    pub(crate) index: usize,
    pub(crate) account: usize,
    pub(crate) user: String,
    pub(crate) resource: String,
    pub(crate) acks: Acks,
    mechanism: Mechanism,
    /// Sends login, bind and first stanzas in one go.
    eager: bool,
    /// It does so on this connection.
    ahead: bool,
    starttls: bool,
    priority: i8,
    /// Of a hundred: requests of peers that it answers.
    answers: u64,
    pub(crate) phase: Phase,
    pub(crate) session: Option<u32>,
    scram: Option<ScramClient>,
    framer: Framer,
    unread: Vec<u8>,
    /// Numbers of what it sent and the server has not acknowledged.
    sent: u32,
    acknowledged: u32,
    pub(crate) unacknowledged: VecDeque<(u32, Vec<u8>, Option<usize>)>,
    outbound: bool,
    inbound: bool,
    received: u32,
    resume_id: Option<String>,
    /// When its session began at the earliest, and when the stream was lost that its server knew last.
    bound_at: u64,
    pub(crate) lost_at: Option<u64>,
    /// When it asked last for its session.
    asked_at: u64,
    /// Messages not yet confirmed: the count of receipts and the number of the stanza.
    unconfirmed: VecDeque<(u64, u32, usize)>,
    receipts: u64,
    /// Messages that came on the present stream.
    on_stream: BTreeSet<usize>,
    pub(crate) logins: u32,
    pub(crate) resumed: u32,
    /// Talks no more of itself, answers all at once.
    pub(crate) quiet: bool,
    pub(crate) answered_requests: u32,
    /// Full JIDs that it sees as available.
    pub(crate) seen: BTreeSet<String>,
}

fn jid(user: &str) -> String {
    format!("{user}@{DOMAIN}")
}

fn header() -> String {
    format!(
        "<?xml version='1.0'?><stream:stream to='{DOMAIN}' version='1.0' xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams'>"
    )
}

pub(crate) fn attr<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let at = tag.find(&format!(" {name}='"))? + name.len() + 3;
    tag[at..].split('\'').next()
}

/// The number behind `m` or `q` in an id or body of ours.
pub(crate) fn number(text: &str, mark: char) -> Option<usize> {
    text.strip_prefix(mark)?.parse().ok()
}

impl Client {
    pub(crate) fn new(index: usize, account: usize, device: usize, chance: &mut Chance) -> Self {
        let acks = match chance.below(4) {
            0 => Acks::None,
            1 if chance.percent(30) => Acks::Counted,
            1 => Acks::None,
            _ => Acks::Resumable,
        };
        let mechanism = match chance.below(3) {
            0 => Mechanism::Plain,
            1 => Mechanism::ScramSha1,
            _ => Mechanism::ScramSha256,
        };
        Self {
            index,
            account,
            user: format!("user{account}"),
            resource: format!("d{device}"),
            acks,
            mechanism,
            eager: mechanism == Mechanism::Plain && chance.percent(50),
            ahead: false,
            starttls: chance.percent(10),
            priority: 0,
            answers: [100, 100, 60, 0][chance.index(4)],
            phase: Phase::Away,
            session: None,
            scram: None,
            framer: Framer::new(),
            unread: Vec::new(),
            sent: 0,
            acknowledged: 0,
            unacknowledged: VecDeque::new(),
            outbound: false,
            inbound: false,
            received: 0,
            resume_id: None,
            bound_at: 0,
            lost_at: None,
            asked_at: 0,
            unconfirmed: VecDeque::new(),
            receipts: 0,
            on_stream: BTreeSet::new(),
            logins: 0,
            resumed: 0,
            quiet: false,
            answered_requests: 0,
            seen: BTreeSet::new(),
        }
    }

    /// It acknowledges what it gets.
    pub(crate) fn confirms(&self) -> bool {
        self.acks != Acks::None
    }

    pub(crate) fn full_jid(&self) -> String {
        format!("{}/{}", jid(&self.user), self.resource)
    }

    /// The stream is gone; gives whether the session is gone with it.
    pub(crate) fn disconnected(&mut self) {
        self.phase = Phase::Away;
        self.unread.clear();
        self.scram = None;
        if self.resume_id.is_none() {
            self.forget();
        }
    }

    /// The session is over: what was not confirmed is forgotten, as if the device had lost it.
    pub(crate) fn forget(&mut self) {
        self.session = None;
        self.sent = 0;
        self.acknowledged = 0;
        self.unacknowledged.clear();
        self.outbound = false;
        self.inbound = false;
        self.received = 0;
        self.resume_id = None;
        self.unconfirmed.clear();
        self.seen.clear();
    }

    pub(crate) fn connected(&mut self, model: &mut Model, chance: &mut Chance, now: u64) -> Orders {
        let mut orders = Orders::default();
        self.framer = Framer::new();
        self.unread.clear();
        self.on_stream.clear();
        self.phase = Phase::Opening;
        orders.send.extend_from_slice(header().as_bytes());
        // Not with a session to resume, as that may fail.
        self.ahead = self.eager && self.resume_id.is_none();
        if self.ahead {
            self.auth(&mut orders, chance);
            orders.send.extend_from_slice(header().as_bytes());
            self.bind(&mut orders, model, now);
            self.first_stanzas(&mut orders);
            if !self.quiet {
                for _ in 0..chance.below(4) {
                    self.chat(&mut orders, model, chance, now);
                }
            }
            self.phase = Phase::Opening;
        }
        orders
    }

    pub(crate) fn secured(&mut self) -> Orders {
        self.framer = Framer::new();
        self.phase = Phase::Opening;
        Orders { send: header().into_bytes(), ..Orders::default() }
    }

    fn auth(&mut self, orders: &mut Orders, chance: &mut Chance) {
        self.phase = Phase::Auth;
        let initial = match self.mechanism {
            Mechanism::Plain => plain("", &self.user, PASSWORD),
            mechanism => {
                let nonce = format!("nonce{}", chance.next());
                let binding = ClientBinding::Unsupported;
                let scram = ScramClient::new(mechanism, &self.user, PASSWORD, &nonce, binding)
                    .expect("a sound login");
                let first = scram.first();
                self.scram = Some(scram);
                first
            }
        };
        let (name, text) = (self.mechanism.name(), encode_payload(&initial));
        orders.send.extend_from_slice(
            format!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{name}'>{text}</auth>"
            )
            .as_bytes(),
        );
    }

    fn bind(&mut self, orders: &mut Orders, model: &mut Model, now: u64) {
        self.forget();
        self.bound_at = now;
        self.session = Some(model.session());
        self.phase = Phase::Binding;
        orders.send.extend_from_slice(
            format!(
                "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                 <resource>{}</resource></bind></iq>",
                self.resource
            )
            .as_bytes(),
        );
    }

    fn first_stanzas(&mut self, orders: &mut Orders) {
        match self.acks {
            Acks::None => {}
            Acks::Counted => {
                orders.send.extend_from_slice(b"<enable xmlns='urn:xmpp:sm:3'/>");
                self.outbound = true;
            }
            Acks::Resumable => {
                orders.send.extend_from_slice(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
                self.outbound = true;
            }
        }
        self.presence(orders);
    }

    pub(crate) fn presence(&mut self, orders: &mut Orders) {
        let text = match self.priority {
            0 => "<presence/>".to_owned(),
            priority => format!("<presence><priority>{priority}</priority></presence>"),
        };
        self.say(orders, text.into_bytes(), None);
    }

    pub(crate) fn jid(&self) -> String {
        format!("{}/{}", jid(&self.user), self.resource)
    }

    /// Sends a stanza, counted where stanzas are.
    pub(crate) fn say(&mut self, orders: &mut Orders, stanza: Vec<u8>, message: Option<usize>) {
        orders.send.extend_from_slice(&stanza);
        if self.outbound {
            self.sent += 1;
            self.unacknowledged.push_back((self.sent, stanza, message));
        }
    }

    pub(crate) fn chat(
        &mut self,
        orders: &mut Orders,
        model: &mut Model,
        chance: &mut Chance,
        now: u64,
    ) {
        let to = chance.index(model.accounts.len());
        let bare = chance.percent(85);
        let message = model.send((self.index, self.session), to, bare, now);
        let devices = model.accounts[to].devices as u64;
        let address = match bare {
            true => jid(&format!("user{to}")),
            false => format!("{}/d{}", jid(&format!("user{to}")), chance.below(devices + 1)),
        };
        let kind = if chance.percent(90) { " type='chat'" } else { "" };
        let filler = match chance.below(40) {
            0 => "z".repeat(chance.index(8000)),
            _ => String::new(),
        };
        let text = format!(
            "<message{kind} to='{address}' id='m{message}'><body>m{message}</body><x xmlns='filler'>{filler}</x></message>"
        );
        self.say(orders, text.into_bytes(), Some(message));
    }

    pub(crate) fn request(
        &mut self,
        orders: &mut Orders,
        model: &mut Model,
        chance: &mut Chance,
        now: u64,
    ) {
        let Some(session) = self.session else { return };
        let request = model.ask(self.index, session, now);
        let account = chance.index(model.accounts.len());
        let devices = model.accounts[account].devices as u64;
        let peer = jid(&format!("user{account}"));
        let to = match chance.below(10) {
            0 => format!(" to='{DOMAIN}'"),
            1 => String::new(),
            2 => format!(" to='{peer}'"),
            3 => format!(" to='{}'", jid("nobody")),
            4 => " to='who@elsewhere.example'".to_owned(),
            _ => format!(" to='{peer}/d{}'", chance.below(devices + 1)),
        };
        let text = match chance.below(8) {
            0 => format!("<iq type='get' id='q{request}'><query xmlns='jabber:iq:roster'/></iq>"),
            1 => {
                let name = chance.below(9);
                format!(
                    "<iq type='set' id='q{request}'><query xmlns='jabber:iq:roster'>\
                     <item jid='{peer}' name='n{name}'/></query></iq>"
                )
            }
            2 => format!("<iq type='set' id='q{request}'{to}><what xmlns='nobody:knows'/></iq>"),
            3 => format!("<iq type='get' id='q{request}'{to}/>"),
            _ => format!("<iq type='get' id='q{request}'{to}><ping xmlns='urn:xmpp:ping'/></iq>"),
        };
        self.say(orders, text.into_bytes(), None);
    }

    /// Subscriptions, priorities, directed presence.
    pub(crate) fn social(
        &mut self,
        orders: &mut Orders,
        model: &mut Model,
        chance: &mut Chance,
        now: u64,
    ) {
        let peer = jid(&format!("user{}", chance.index(model.accounts.len())));
        let text = match chance.below(8) {
            0 | 1 => {
                self.priority = [0, 0, 1, 5, -1][chance.index(5)];
                model.accounts[self.account].disturbed_at = now;
                return self.presence(orders);
            }
            2 => {
                model.accounts[self.account].disturbed_at = now;
                "<presence type='unavailable'/>".to_owned()
            }
            3 | 4 => format!("<presence type='subscribe' to='{peer}'/>"),
            5 => format!("<presence type='subscribed' to='{peer}'/>"),
            6 => format!("<presence type='unsubscribed' to='{peer}'/>"),
            _ => format!("<presence to='{peer}'/>"),
        };
        self.say(orders, text.into_bytes(), None);
    }

    pub(crate) fn ask(&mut self, orders: &mut Orders) {
        if self.outbound {
            orders.send.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>");
        }
    }

    /// From now on it answers all and is there for every message.
    pub(crate) fn settle(&mut self) -> Orders {
        self.quiet = true;
        self.priority = 0;
        self.answers = 100;
        let mut orders = Orders::default();
        if self.phase == Phase::Online {
            self.presence_anew(&mut orders);
            self.ask(&mut orders);
        }
        orders
    }

    /// Whom it told directly no longer knows more than its contacts do (RFC 6121 §4.6.3).
    fn presence_anew(&mut self, orders: &mut Orders) {
        self.say(orders, b"<presence type='unavailable'/>".to_vec(), None);
        self.presence(orders);
    }

    fn sees(&mut self, from: &str, kind: &str) {
        match kind {
            "" => {
                self.seen.insert(from.to_owned());
            }
            // It hears nothing while it is not available, so what it knew is out of date.
            "unavailable" if from == self.jid() => self.seen.clear(),
            "unavailable" if from.contains('/') => {
                self.seen.remove(from);
            }
            "unavailable" => self.seen.retain(|jid| jid.split('/').next() != Some(from)),
            _ => {}
        }
    }

    /// Its session waits to be resumed: it does this then.
    pub(crate) fn must_wait(&self, later: &Later) -> bool {
        self.session == Some(later.session()) && self.phase != Phase::Online
    }

    pub(crate) fn later(&mut self, later: Later, model: &mut Model) -> Orders {
        let mut orders = Orders::default();
        if self.phase != Phase::Online || self.session != Some(later.session()) {
            return orders;
        }
        match later {
            Later::Say { bytes, counted: true, .. } => {
                self.answered_requests += 1;
                self.say(&mut orders, bytes, None);
            }
            Later::Say { bytes, .. } => orders.send.extend_from_slice(&bytes),
            Later::Acknowledge { .. } if self.inbound => {
                let h = self.received;
                orders
                    .send
                    .extend_from_slice(format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>").as_bytes());
                self.confirm(model, |_, number| number <= h);
            }
            Later::Acknowledge { .. } => {}
            Later::Pong { id, upto, .. } => {
                let text = format!("<iq type='result' id='{id}' to='{DOMAIN}'/>");
                self.say(&mut orders, text.into_bytes(), None);
                // What came before counting began has no number.
                self.confirm(model, |receipt, number| receipt <= upto && number == 0);
            }
        }
        orders
    }

    fn confirm(&mut self, model: &mut Model, covers: impl Fn(u64, u32) -> bool) {
        while let Some(&(receipt, number, message)) = self.unconfirmed.front() {
            if !covers(receipt, number) {
                break;
            }
            self.unconfirmed.pop_front();
            model.messages[message].confirmed = true;
        }
    }

    /// Bytes from the server.
    pub(crate) fn bytes(
        &mut self,
        bytes: &[u8],
        model: &mut Model,
        chance: &mut Chance,
        now: u64,
    ) -> Orders {
        let mut orders = Orders::default();
        if self.phase == Phase::Away {
            return orders;
        }
        self.unread.extend_from_slice(bytes);
        let unread = std::mem::take(&mut self.unread);
        let mut at = 0;
        let limits = XmlLimits { stanza_bytes_max: u32::MAX, ..XmlLimits::default() };
        loop {
            match self.framer.next(&unread[at..], &limits) {
                Ok(Step::More(drop)) => {
                    at += drop;
                    break;
                }
                Ok(Step::Open(range)) => at += range.end,
                Ok(Step::Close(_)) => {
                    orders.hang_up = true;
                    break;
                }
                Ok(Step::Stanza(range)) => {
                    let element = &unread[at + range.start..at + range.end];
                    at += range.end;
                    let Ok(text) = std::str::from_utf8(element) else {
                        model.fail(|| "the server wrote what is not UTF-8".to_owned());
                        break;
                    };
                    self.element(text, &mut orders, model, chance, now);
                }
                Err(error) => {
                    let text = String::from_utf8_lossy(&unread).into_owned();
                    model.fail(|| format!("the server wrote ill-formed XML: {error:?}: {text}"));
                    break;
                }
            }
        }
        self.unread = unread[at.min(unread.len())..].to_vec();
        orders
    }

    fn element(
        &mut self,
        text: &str,
        orders: &mut Orders,
        model: &mut Model,
        chance: &mut Chance,
        now: u64,
    ) {
        let tag = &text[..text.find('>').unwrap_or(text.len())];
        let name = tag[1..].split([' ', '/']).next().unwrap_or_default();
        let ahead = self.ahead;
        match name {
            "stream:features" if ahead => self.features_ahead(),
            "stream:features" if self.phase == Phase::Opening => {
                if self.starttls && text.contains("<starttls") {
                    self.phase = Phase::Securing;
                    orders
                        .send
                        .extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
                } else {
                    self.auth(orders, chance);
                }
            }
            "stream:features" if self.phase == Phase::Reopening => match &self.resume_id {
                Some(id) => {
                    let h = self.received;
                    let text = format!("<resume xmlns='urn:xmpp:sm:3' h='{h}' previd='{id}'/>");
                    orders.send.extend_from_slice(text.as_bytes());
                    self.phase = Phase::Resuming;
                    self.asked_at = now;
                    // That number confirms as an acknowledgement does.
                    self.confirm(model, |_, number| number <= h);
                }
                None => self.bind(orders, model, now),
            },
            "proceed" => orders.secure = true,
            "stream:features" => {}
            "stream:error" => orders.hang_up = true,
            "challenge" | "success" => self.sasl(name, text, orders, model),
            "failure" => orders.hang_up = true,
            "enabled" => {
                self.inbound = true;
                self.received = 0;
                self.resume_id = attr(tag, "id").map(str::to_owned);
            }
            "resumed" => {
                let h = attr(tag, "h").and_then(|h| h.parse().ok()).unwrap_or(u32::MAX);
                self.acknowledged(h, model);
                for (_, stanza, message) in &self.unacknowledged {
                    orders.send.extend_from_slice(stanza);
                    if let Some(message) = message {
                        model.messages[*message].again = true;
                    }
                }
                self.resumed += 1;
                self.lost_at = None;
                self.phase = Phase::Online;
                orders.online = true;
                if self.quiet {
                    self.presence_anew(orders);
                    self.ask(orders);
                }
            }
            "failed" if self.phase == Phase::Resuming => {
                // What was handled before the session ended is acknowledged as by `<a/>`.
                if let Some(h) = attr(tag, "h").and_then(|h| h.parse().ok()) {
                    self.acknowledged(h, model);
                }
                model.accounts[self.account].disturbed_at = now;
                let lost_at = self.lost_at.unwrap_or(0);
                model.not_resumed(self.index, self.bound_at, lost_at, self.asked_at..now);
                self.forget();
                self.bind(orders, model, now);
            }
            "r" => {
                if let Some(session) = self.session {
                    let delay = if self.quiet { 0 } else { chance.delay(3_000_000) };
                    orders.later.push((delay, Later::Acknowledge { session }));
                }
            }
            "a" => {
                let h = attr(tag, "h").and_then(|h| h.parse().ok()).unwrap_or(u32::MAX);
                self.acknowledged(h, model);
            }
            "iq" if self.phase == Phase::Binding || (ahead && self.phase != Phase::Online) => {
                if attr(tag, "id") != Some("bind") || attr(tag, "type") != Some("result") {
                    orders.hang_up = true;
                    self.forget();
                    return;
                }
                self.phase = Phase::Online;
                self.lost_at = None;
                self.logins += 1;
                orders.online = true;
                if !ahead {
                    self.first_stanzas(orders);
                } else if self.quiet {
                    // What it sent ahead may be of before it became quiet.
                    self.presence_anew(orders);
                }
                if self.quiet {
                    self.ask(orders);
                }
            }
            "iq" | "message" | "presence" => {
                self.stanza(name, tag, text, orders, model, chance, now)
            }
            _ => model.fail(|| format!("the server wrote {text}")),
        }
    }

    fn features_ahead(&mut self) {
        if self.phase == Phase::Reopening {
            self.phase = Phase::Binding;
        }
    }

    fn sasl(&mut self, name: &str, text: &str, orders: &mut Orders, model: &mut Model) {
        let inner = text.find('>').map_or("", |at| &text[at + 1..]);
        let inner = inner.split('<').next().unwrap_or_default();
        let Ok(data) = decode_payload(inner) else {
            return model.fail(|| format!("the server wrote {text}"));
        };
        if name == "success" {
            if let Some(scram) = self.scram.take()
                && scram.server_final(&data).is_err()
            {
                return model.fail(|| "the server does not know the password".to_owned());
            }
            // What is read next is a new stream: nothing of it came in this element's cut by accident.
            self.framer = Framer::new();
            self.phase = Phase::Reopening;
            if !self.ahead {
                orders.send.extend_from_slice(header().as_bytes());
            }
            return;
        }
        let Some(scram) = self.scram.as_mut() else { return };
        let salted = |_: &str, _: &[u8], _: u32, hash: ScramHash| {
            let place = HASHES.iter().position(|known| *known == hash).unwrap_or_default();
            Ok(SALTED[place].clone())
        };
        let mut salted = salted;
        match scram.server_first_with(&data, &mut salted) {
            Ok(last) => {
                let text = encode_payload(&last);
                let text =
                    format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{text}</response>");
                orders.send.extend_from_slice(text.as_bytes());
            }
            Err(error) => model.fail(|| format!("challenge: {error}")),
        }
    }

    fn acknowledged(&mut self, h: u32, model: &mut Model) {
        let (sent, before) = (self.sent, self.acknowledged);
        if h > sent || h < before {
            let client = self.index;
            return model.fail(|| {
                format!("R1: h {h} for client {client}, which sent {sent} and was told {before}")
            });
        }
        self.acknowledged = h;
        while self.unacknowledged.front().is_some_and(|&(number, ..)| number <= h) {
            let message = self.unacknowledged.pop_front().and_then(|(.., message)| message);
            if let Some(message) = message {
                model.messages[message].covered = true;
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one stanza and the world around it")]
    fn stanza(
        &mut self,
        name: &str,
        tag: &str,
        text: &str,
        orders: &mut Orders,
        model: &mut Model,
        chance: &mut Chance,
        now: u64,
    ) {
        if self.inbound {
            self.received = self.received.wrapping_add(1);
        }
        let Some(session) = self.session else { return };
        let id = attr(tag, "id").unwrap_or_default();
        let kind = attr(tag, "type").unwrap_or_default();
        match (name, kind) {
            ("message", "error") => {
                if let Some(message) = number(id, 'm') {
                    model.messages[message].refused = true;
                }
            }
            ("message", _) => {
                let body = text.find("<body>").map_or("", |at| &text[at + 6..]);
                let body = body.split('<').next().unwrap_or_default();
                if let Some(message) = number(body, 'm') {
                    self.receipts += 1;
                    model.receive(self.account, session, message, now);
                    let is_new = self.on_stream.insert(message);
                    if !is_new && self.inbound {
                        model.twice(self.account, message, now);
                    }
                    self.unconfirmed.push_back((self.receipts, self.received, message));
                }
            }
            ("iq", "result" | "error") => {
                if let Some(request) = number(id, 'q') {
                    model.answered(request);
                }
            }
            ("iq", _) => self.asked(tag, id, session, orders, model, chance),
            ("presence", _) => self.sees(attr(tag, "from").unwrap_or_default(), kind),
            _ => {}
        }
    }

    fn asked(
        &mut self,
        tag: &str,
        id: &str,
        session: u32,
        orders: &mut Orders,
        model: &mut Model,
        chance: &mut Chance,
    ) {
        let from = attr(tag, "from").unwrap_or_default();
        let delay = if self.quiet { 0 } else { chance.delay(2_000_000) };
        if from == DOMAIN {
            let later = Later::Pong { session, id: id.to_owned(), upto: self.receipts };
            orders.later.push((delay, later));
            return;
        }
        let Some(request) = number(id, 'q') else { return };
        let answers = chance.percent(self.answers);
        model.requests[request].holder = Some((self.index, session, answers));
        if answers {
            let text = match chance.percent(80) {
                true => format!("<iq type='result' id='{id}' to='{from}'/>"),
                false => format!(
                    "<iq type='error' id='{id}' to='{from}'><error type='cancel'><gone \
                     xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
                ),
            };
            let later = Later::Say { session, bytes: text.into_bytes(), counted: true };
            orders.later.push((delay, later));
        }
    }
}
