//! A client that stays: it numbers what it says, keeps what is not acknowledged (XEP-0198), and comes again at another node
//! when its connection breaks, resuming its session where that is still there.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use corefire::stream::sasl::client::plain;

use crate::client::HEADER;
use crate::cluster::PASSWORD;

/// How long one answer of a login may take before another node is tried.
const ANSWER: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_millis(50);

/// How a connection came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// With a session of its own.
    New,
    Resumed,
}

pub(crate) struct Person {
    user: String,
    domain: String,
    wire: Option<TcpStream>,
    received: Vec<u8>,
    /// By which the session is resumed.
    session: Option<String>,
    /// Stanzas of this session that we sent, and those that the server has not acknowledged, by number.
    sent: u32,
    unacked: VecDeque<(u32, String)>,
    /// Stanzas of this session that we have handled.
    handled: u32,
    /// The ids of messages that came, with the number of the session in which they did.
    pub(crate) messages: Vec<(usize, String)>,
    pub(crate) presences: Vec<String>,
    /// What the server had to say to all.
    pub(crate) headlines: Vec<String>,
    /// Ids of messages that came back as errors.
    pub(crate) bounced: Vec<String>,
    pub(crate) sessions: usize,
    pub(crate) resumptions: usize,
    /// Why connections ended or were not made, for people.
    pub(crate) troubles: Vec<String>,
}

impl Person {
    pub(crate) fn new(user: &str) -> Person {
        Person {
            user: user.to_owned(),
            domain: "localhost".to_owned(),
            wire: None,
            received: Vec::new(),
            session: None,
            sent: 0,
            unacked: VecDeque::new(),
            handled: 0,
            messages: Vec::new(),
            presences: Vec::new(),
            headlines: Vec::new(),
            bounced: Vec::new(),
            sessions: 0,
            resumptions: 0,
            troubles: Vec::new(),
        }
    }

    /// A new session at this node.
    #[track_caller]
    pub(crate) fn at(user: &str, door: SocketAddr) -> Person {
        let mut person = Person::new(user);
        person.come(&[door], Duration::from_secs(20));
        person
    }

    /// As `at`, of another server's domain.
    #[track_caller]
    pub(crate) fn of(user: &str, domain: &str, door: SocketAddr) -> Person {
        let mut person = Person { domain: domain.to_owned(), ..Person::new(user) };
        person.come(&[door], Duration::from_secs(20));
        person
    }

    /// Comes again until one of the nodes takes it.
    #[track_caller]
    pub(crate) fn come(&mut self, doors: &[SocketAddr], patience: Duration) -> Came {
        let until = Instant::now() + patience;
        for door in doors.iter().cycle() {
            match self.try_come(*door) {
                Ok(came) => return came,
                Err(why) => self.troubles.push(format!("at {door}: {why}")),
            }
            assert!(
                Instant::now() < until,
                "{} is not let in: {:#?}",
                self.user,
                self.troubles.iter().rev().take(8).collect::<Vec<_>>()
            );
            std::thread::sleep(AGAIN);
        }
        unreachable!("there are doors")
    }

    /// Connects and logs in; resumes the session if there was one, and sends again what was not acknowledged.
    pub(crate) fn try_come(&mut self, door: SocketAddr) -> Result<Came, String> {
        self.cut();
        let wire = TcpStream::connect_timeout(&door, ANSWER).map_err(|error| error.to_string())?;
        wire.set_nodelay(true).map_err(|error| error.to_string())?;
        wire.set_write_timeout(Some(ANSWER)).map_err(|error| error.to_string())?;
        self.wire = Some(wire);
        let came = self.enter();
        if came.is_err() {
            self.cut();
        }
        came
    }

    fn enter(&mut self) -> Result<Came, String> {
        let header = HEADER.replace("'localhost'", &format!("'{}'", self.domain));
        self.say(&header)?;
        self.answer(&["<stream:features"])?;
        let proof = BASE64.encode(plain("", &self.user, PASSWORD));
        self.say(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{proof}</auth>"
        ))?;
        self.answer(&["<success"])?;
        self.say(&header)?;
        self.answer(&["<stream:features"])?;
        if let Some(session) = self.session.clone() {
            let handled = self.handled;
            self.say(&format!("<resume xmlns='urn:xmpp:sm:3' previd='{session}' h='{handled}'/>"))?;
            let answer = self.answer(&["<resumed", "<failed"])?;
            if let Some(h) = attribute(&answer, "h") {
                self.acknowledged(h.parse().map_err(|_| answer.clone())?);
            }
            if answer.starts_with("<resumed") {
                self.resumptions += 1;
                for (_, stanza) in self.unacked.clone() {
                    self.say(&stanza)?;
                }
                return Ok(Came::Resumed);
            }
            self.troubles.push(answer);
            self.session = None;
        }
        self.say(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>r</resource></bind></iq><enable xmlns='urn:xmpp:sm:3' resume='true'/>",
        )?;
        let bound = self.answer(&["<iq"])?;
        if !bound.contains("type='result'") && !bound.contains("type=\"result\"") {
            return Err(bound);
        }
        let enabled = self.answer(&["<enabled", "<failed"])?;
        self.session = attribute(&enabled, "id");
        if self.session.is_none() {
            return Err(enabled);
        }
        self.sessions += 1;
        (self.sent, self.handled) = (0, 0);
        let again = std::mem::take(&mut self.unacked);
        self.stanza("<presence/>".to_owned());
        for (_, stanza) in again {
            if stanza != "<presence/>" {
                self.stanza(stanza);
            }
        }
        Ok(Came::New)
    }

    /// The connection breaks, as seen from here.
    pub(crate) fn cut(&mut self) {
        self.wire = None;
        self.received.clear();
    }

    pub(crate) fn user(&self) -> &str {
        &self.user
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.wire.is_some()
    }

    /// Sends a stanza that counts; kept until it is acknowledged, whatever becomes of the connection.
    pub(crate) fn stanza(&mut self, stanza: String) {
        self.sent += 1;
        self.unacked.push_back((self.sent, stanza.clone()));
        self.tell(&stanza);
    }

    pub(crate) fn message(&mut self, to: &str, id: &str) {
        self.message_to(&format!("{to}@localhost"), id);
    }

    /// As `message`, to whatever address.
    pub(crate) fn message_to(&mut self, to: &str, id: &str) {
        self.stanza(format!(
            "<message to='{to}' type='chat' id='{id}'><body>this is {id}</body></message>"
        ));
    }

    /// Asks what has been handled.
    pub(crate) fn ask(&mut self) {
        self.tell("<r xmlns='urn:xmpp:sm:3'/>");
    }

    pub(crate) fn unacked(&self) -> usize {
        self.unacked.len()
    }

    /// Takes what comes for so long.
    pub(crate) fn listen(&mut self, span: Duration) {
        let until = Instant::now() + span;
        while self.wire.is_some() {
            match self.element(until) {
                Ok(Some(element)) => self.handle(&element),
                Ok(None) => return,
                Err(why) => {
                    self.troubles.push(why);
                    self.cut();
                }
            }
        }
    }

    /// Takes what comes until `is_there` says so.
    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, is_there: impl Fn(&Person) -> bool) {
        let until = Instant::now() + Duration::from_secs(20);
        while !is_there(self) {
            assert!(
                Instant::now() < until && self.wire.is_some(),
                "{}: no {what}; messages {:?}, presences {:?}, unacked {}, troubles {:?}",
                self.user,
                self.messages,
                self.presences,
                self.unacked.len(),
                self.troubles
            );
            self.listen(Duration::from_millis(10));
        }
    }

    /// Waits until the server ends the stream or the connection.
    #[track_caller]
    pub(crate) fn wait_gone(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        while self.wire.is_some() {
            assert!(Instant::now() < until, "{} is still served", self.user);
            self.listen(Duration::from_millis(20));
        }
    }

    /// Waits until all that was said is acknowledged.
    #[track_caller]
    pub(crate) fn wait_acked(&mut self) {
        self.ask();
        self.wait("acknowledgement", |person| person.unacked.is_empty());
    }

    #[track_caller]
    pub(crate) fn wait_message(&mut self, id: &str) {
        self.wait(id, |person| person.messages.iter().any(|(_, found)| found == id));
    }

    /// Whether the last that was heard of an account is that it is there.
    pub(crate) fn sees(&self, user: &str) -> bool {
        let of = |it: &&String| it.contains(&format!("from='{user}@localhost/r'"));
        let last = self.presences.iter().rev().find(of);
        last.is_some_and(|it| attribute(it, "type").is_none())
    }

    /// Waits for a message, and for all that was said to be acknowledged; comes again where it is sent away, as it is when
    /// the account moves to another node.
    #[track_caller]
    pub(crate) fn wait_wherever(&mut self, doors: &[SocketAddr], id: Option<&str>) {
        let until = Instant::now() + Duration::from_secs(20);
        let is_there = |person: &Person| {
            id.is_none_or(|id| person.messages.iter().any(|(_, found)| found == id))
        };
        while !is_there(self) || self.has_unacked() {
            if !self.is_connected() {
                self.come(doors, Duration::from_secs(20));
            }
            self.ask();
            self.listen(Duration::from_millis(20));
            assert!(
                Instant::now() < until,
                "{}: no {id:?}; messages {:?}, unacked {}, troubles {:?}",
                self.user,
                self.messages,
                self.unacked.len(),
                self.troubles
            );
        }
    }

    fn has_unacked(&self) -> bool {
        !self.unacked.is_empty()
    }

    /// What came more than once within one session.
    pub(crate) fn repeated(&self) -> Vec<&(usize, String)> {
        let mut seen = self.messages.iter().collect::<Vec<_>>();
        seen.sort();
        seen.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect()
    }

    /// Ids in the order in which each came first.
    pub(crate) fn firsts(&self) -> Vec<&str> {
        let mut firsts: Vec<&str> = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for (_, id) in &self.messages {
            if seen.insert(id) {
                firsts.push(id);
            }
        }
        firsts
    }

    fn handle(&mut self, element: &str) {
        if element.starts_with("<r ") || element.starts_with("<r/") {
            let handled = self.handled;
            self.tell(&format!("<a xmlns='urn:xmpp:sm:3' h='{handled}'/>"));
        } else if element.starts_with("<a ") {
            if let Some(handled) = attribute(element, "h").and_then(|h| h.parse().ok()) {
                self.acknowledged(handled);
            }
        } else if element.starts_with("<message") {
            self.handled += 1;
            let id = attribute(element, "id").unwrap_or_default();
            match attribute(element, "type").as_deref() {
                Some("error") => self.bounced.push(id),
                Some("headline") => self.headlines.push(element.to_owned()),
                _ => self.messages.push((self.sessions, id)),
            }
        } else if element.starts_with("<presence") {
            self.handled += 1;
            self.presences.push(element.to_owned());
        } else if element.starts_with("<iq") {
            self.handled += 1;
        } else {
            self.troubles.push(element.to_owned());
        }
    }

    fn acknowledged(&mut self, handled: u32) {
        while self.unacked.front().is_some_and(|(number, _)| *number <= handled) {
            self.unacked.pop_front();
        }
    }

    /// Writes, if it can.
    fn tell(&mut self, text: &str) {
        if self.wire.is_some()
            && let Err(why) = self.say(text)
        {
            self.troubles.push(why);
            self.cut();
        }
    }

    fn say(&mut self, text: &str) -> Result<(), String> {
        let wire = self.wire.as_mut().ok_or("no connection")?;
        wire.write_all(text.as_bytes()).map_err(|error| format!("writing: {error}"))
    }

    /// The next element that begins with one of these.
    fn answer(&mut self, beginnings: &[&str]) -> Result<String, String> {
        let until = Instant::now() + ANSWER;
        loop {
            match self.element(until)? {
                None => return Err(format!("no answer ({beginnings:?})")),
                Some(element) if beginnings.iter().any(|one| element.starts_with(one)) => {
                    return Ok(element);
                }
                Some(element) if element.starts_with("<stream:stream") => {}
                Some(element) => return Err(element),
            }
        }
    }

    /// The next element; none when the time is over. The stream's header and end are elements too.
    fn element(&mut self, until: Instant) -> Result<Option<String>, String> {
        loop {
            if let Some(length) = first_element(&self.received) {
                let bytes: Vec<u8> = self.received.drain(..length).collect();
                let element = String::from_utf8(bytes).map_err(|error| error.to_string())?;
                if element.starts_with("</stream") {
                    return Err("the stream was closed".to_owned());
                }
                if element.starts_with("<stream:error") {
                    return Err(element);
                }
                if element.starts_with("<?") {
                    continue;
                }
                return Ok(Some(element));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let wire = self.wire.as_mut().ok_or("no connection")?;
            wire.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
            let mut buffer = [0; 16 << 10];
            match wire.read(&mut buffer) {
                Ok(0) => return Err("closed".to_owned()),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(None);
                }
                // As when a debugger looks at the process.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("reading: {error}")),
            }
        }
    }
}

/// Bytes of the first whole element of a stream, whose header stands for itself.
fn first_element(bytes: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        let begin = at + bytes[at..].iter().position(|byte| *byte == b'<')?;
        let mut quote = None;
        let end = begin
            + bytes[begin..].iter().position(|byte| match (quote, byte) {
                (Some(open), byte) => {
                    if *byte == open {
                        quote = None;
                    }
                    false
                }
                (None, b'\'' | b'"') => {
                    quote = Some(*byte);
                    false
                }
                (None, byte) => *byte == b'>',
            })?;
        let tag = &bytes[begin..=end];
        at = end + 1;
        if depth == 0
            && [b"<?".as_slice(), b"<stream:stream", b"</stream:stream"]
                .iter()
                .any(|it| tag.starts_with(it))
        {
            return Some(at);
        }
        if tag.starts_with(b"</") {
            depth = depth.checked_sub(1)?;
        } else if !tag.ends_with(b"/>") {
            depth += 1;
        }
        if depth == 0 {
            return Some(at);
        }
    }
}

/// An attribute of an element's first tag.
pub(crate) fn attribute(element: &str, name: &str) -> Option<String> {
    let tag = &element[..element.find('>')?];
    ['\'', '"'].iter().find_map(|quote| {
        let begin = tag.find(&format!(" {name}={quote}"))? + name.len() + 3;
        let length = tag[begin..].find(*quote)?;
        Some(tag[begin..begin + length].to_owned())
    })
}
