//! From the first stream header to a bound session: STARTTLS, registration, SASL or SASL2, binding or resumption,
//! XEP-0198, carbons, presence.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest;

use crate::scan::{Element, escape};
use crate::scram::{Binding, Hash, KeyCache, Scram};

/// How an account proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha1,
    ScramSha256,
    ScramSha1Plus,
    ScramSha256Plus,
}

impl Mechanism {
    /// The strongest first.
    pub const ALL: [Self; 5] = [
        Self::ScramSha256Plus,
        Self::ScramSha1Plus,
        Self::ScramSha256,
        Self::ScramSha1,
        Self::Plain,
    ];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha1Plus => "SCRAM-SHA-1-PLUS",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
        }
    }

    /// Whether it proves that both ends see the same TLS connection.
    pub fn is_bound(self) -> bool {
        matches!(self, Self::ScramSha1Plus | Self::ScramSha256Plus)
    }
}

/// What the connection must do after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send what was written.
    Send,
    /// Begin TLS, then open a new stream.
    StartTls,
    /// Open a new stream.
    Restart,
    /// The account is there, made just now or before; send what was written.
    Registered,
    /// XEP-0198 counts from here, in both directions; send what was written.
    Enabled,
    /// The old stream goes on: the server has handled so many of its stanzas.
    Resumed(u32),
    /// The old stream cannot go on; of its stanzas the server tells so many handled, if it knows. Send what was written.
    NotResumed(Option<u32>),
    /// The session is bound, enabled and seen as available, as far as was asked.
    Done,
    /// Not part of the login.
    Other,
}

/// Whether a plain connection is to become a TLS one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Starttls {
    Never,
    Offered,
    Always,
}

/// Which way a login goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Way {
    /// SASL, a new stream, binding (RFC 6120).
    #[default]
    Classic,
    /// SASL2 with Bind 2 (XEP-0388, XEP-0386): everything in one exchange.
    Sasl2,
}

/// XEP-0198 of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Management {
    #[default]
    Off,
    /// Acknowledgements.
    On,
    /// Acknowledgements, and a stream that outlives its connection.
    Resume,
}

/// What one account asks for. Built by the engine, read by [`Login`].
pub(crate) struct Wish {
    /// Place in the engine's list of servers.
    pub(crate) target: usize,
    pub(crate) user: String,
    pub(crate) password: Rc<str>,
    pub(crate) resource: String,
    /// `None`: the strongest that is offered and needs no channel binding.
    pub(crate) mechanism: Option<Mechanism>,
    pub(crate) starttls: Starttls,
    pub(crate) way: Way,
    pub(crate) register: bool,
    pub(crate) presence: bool,
    pub(crate) management: Management,
    pub(crate) carbons: bool,
    pub(crate) silent: bool,
    pub(crate) narrow: bool,
}

/// A stream that may go on.
pub(crate) struct Previous<'s> {
    pub(crate) id: &'s str,
    /// Stanzas of the server that were handled.
    pub(crate) received: u32,
}

/// What a login may ask of its surroundings.
pub(crate) struct Around<'s> {
    pub(crate) keys: &'s mut KeyCache,
    /// Channel binding of the TLS connection, by the type's name; `None` if there is none of that type.
    pub(crate) binding: &'s dyn Fn(&str) -> Option<Binding>,
    pub(crate) previous: Option<Previous<'s>>,
}

enum Stage {
    Features,
    Proceed,
    /// What was chosen from the features waits until the account is there.
    Register(Mechanism, Option<Binding>),
    Sasl(Option<Scram>),
    BindFeatures,
    /// What was offered, to fall back to.
    Resume,
    Bind,
    Enable,
    Presence,
    /// Of a component.
    Handshake,
}

/// One login, without input or output. One per connection until it is done.
pub(crate) struct Login {
    stage: Stage,
    secured: bool,
    nonce: String,
    /// Full JID, once bound.
    pub(crate) jid: String,
    /// Of XEP-0198, by which the stream can be resumed; empty if it cannot.
    pub(crate) stream_id: String,
    /// When registration was asked for; kept for the engine.
    pub(crate) registering: Option<std::time::Instant>,
}

const PRESENCE: &[u8] = b"<presence/>";
const CARBONS: &[u8] = b"<iq type='set' id='carbons'><enable xmlns='urn:xmpp:carbons:2'/></iq>";
const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const SASL2: &str = "urn:xmpp:sasl:2";

impl Login {
    pub(crate) fn new(nonce: String) -> Self {
        Self {
            stage: Stage::Features,
            secured: false,
            nonce,
            jid: String::new(),
            stream_id: String::new(),
            registering: None,
        }
    }

    /// Takes one element of the stream, writes the answer to `out`.
    ///
    /// - gives: [`Step::Other`] for stanzas that arrive beside the login, such as stored messages
    /// - errors: the reason in words: a refusal, a missing feature, an answer that makes no sense
    pub(crate) fn take(
        &mut self,
        element: &Element<'_>,
        wish: &Wish,
        around: &mut Around<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Step, String> {
        let name = element.name();
        match (&mut self.stage, name) {
            (Stage::Features, b"features") => self.features(element, wish, around, out),
            (Stage::Handshake, b"handshake") => Ok(Step::Done),
            (Stage::Proceed, b"proceed") => {
                self.secured = true;
                self.stage = Stage::Features;
                Ok(Step::StartTls)
            }
            (Stage::Register(..), b"iq") if element.attribute("id") == Some(b"register") => {
                self.registered(element, wish, around, out)
            }
            (Stage::Sasl(Some(scram)), b"challenge") => {
                let text = element.text();
                // The server's signature may come as a challenge (RFC 5802 §5 allows both places).
                let answer = if scram.check(&text).is_ok() {
                    self.stage = Stage::Sasl(None);
                    String::new()
                } else {
                    let answer = scram.respond(&text, around.keys);
                    answer.map_err(|error| format!("SCRAM challenge: {error:?}"))?
                };
                let namespace = if wish.way == Way::Sasl2 { SASL2 } else { SASL };
                out.extend_from_slice(
                    format!("<response xmlns='{namespace}'>{answer}</response>").as_bytes(),
                );
                Ok(Step::Send)
            }
            (Stage::Sasl(scram), b"success") => {
                if let Some(scram) = scram {
                    let last = match wish.way {
                        Way::Classic => element.text(),
                        Way::Sasl2 => {
                            let data = element.child("additional-data");
                            data.map(|data| data.text()).unwrap_or_default()
                        }
                    };
                    let checked = scram.check(&last);
                    checked.map_err(|error| format!("SCRAM success: {error:?}"))?;
                }
                if wish.way == Way::Sasl2 {
                    return self.authenticated(element, wish, out);
                }
                self.stage = Stage::BindFeatures;
                Ok(Step::Restart)
            }
            (Stage::Sasl(_), b"failure") => {
                let condition = element.children().next();
                let condition = condition.map_or(&b"unknown"[..], |child| child.name());
                Err(format!("login refused: {}", String::from_utf8_lossy(condition)))
            }
            (Stage::BindFeatures, b"features") => {
                element.child("bind").ok_or("binding is not offered")?;
                if wish.management != Management::Off {
                    element.child("sm").ok_or("XEP-0198 is not offered")?;
                }
                if let Some(previous) = &around.previous {
                    write_resume(previous, out);
                    self.stage = Stage::Resume;
                } else {
                    self.bind(wish, out);
                }
                Ok(Step::Send)
            }
            (Stage::Resume, b"resumed") => {
                self.stage = Stage::Presence;
                Ok(Step::Resumed(handled(element).ok_or("a <resumed/> without h")?))
            }
            (Stage::Resume, b"failed") => {
                self.bind(wish, out);
                Ok(Step::NotResumed(handled(element)))
            }
            (Stage::Bind, b"iq") if element.attribute("id") == Some(b"bind") => {
                let jid = element.child("bind").and_then(|bind| bind.child("jid"));
                let jid = jid.filter(|_| element.attribute("type") == Some(b"result"));
                self.jid = jid.ok_or("binding refused")?.text().into_owned();
                if wish.management != Management::Off {
                    let resume =
                        if wish.management == Management::Resume { " resume='true'" } else { "" };
                    out.extend_from_slice(
                        format!("<enable xmlns='urn:xmpp:sm:3'{resume}/>").as_bytes(),
                    );
                    self.stage = Stage::Enable;
                    return Ok(Step::Send);
                }
                Ok(self.appear(wish, false, out))
            }
            (Stage::Enable, b"enabled") => {
                self.enabled(element);
                Ok(self.appear(wish, true, out))
            }
            (Stage::Enable, b"failed") => Err("XEP-0198 refused".to_owned()),
            // The server shows a session its own presence (RFC 6121 §4.2.2): from here messages to the account reach it.
            (Stage::Presence, b"presence")
                if element.text_of("from").as_deref() == Some(&self.jid) =>
            {
                Ok(Step::Done)
            }
            (
                Stage::Register(..) | Stage::Resume | Stage::Bind | Stage::Enable | Stage::Presence,
                _,
            ) => Ok(Step::Other),
            _ => Err(format!("unexpected <{}/> during login", String::from_utf8_lossy(name))),
        }
    }

    /// Says as a component that it knows the secret (XEP-0114 §3).
    pub(crate) fn shake_hands(
        &mut self,
        stream: &str,
        secret: &str,
        domain: &str,
        out: &mut Vec<u8>,
    ) {
        let text = format!("{stream}{secret}");
        let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        out.extend_from_slice(format!("<handshake>{hash}</handshake>").as_bytes());
        self.jid = domain.to_owned();
        self.stage = Stage::Handshake;
    }

    /// Whether an account was asked for and the answer is out.
    pub(crate) fn is_registering(&self) -> bool {
        matches!(self.stage, Stage::Register(..))
    }

    /// Whether the session is complete after the step that bound or enabled it.
    pub(crate) fn is_complete(&self, wish: &Wish) -> bool {
        matches!(self.stage, Stage::Presence) && !wish.presence
    }

    fn features(
        &mut self,
        element: &Element<'_>,
        wish: &Wish,
        around: &mut Around<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Step, String> {
        let offered = element.child("starttls").is_some();
        if !self.secured && wish.starttls == Starttls::Always && !offered {
            return Err("STARTTLS is not offered".to_owned());
        }
        if !self.secured && wish.starttls != Starttls::Never && offered {
            out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            self.stage = Stage::Proceed;
            return Ok(Step::Send);
        }
        let mechanism = choose(element, wish)?;
        let binding = if mechanism.is_bound() {
            Some(choose_binding(element, around.binding)?)
        } else {
            None
        };
        if wish.register {
            out.extend_from_slice(
                b"<iq type='set' id='register'><query xmlns='jabber:iq:register'><username>",
            );
            escape(&wish.user, out);
            out.extend_from_slice(b"</username><password>");
            escape(&wish.password, out);
            out.extend_from_slice(b"</password></query></iq>");
            self.stage = Stage::Register(mechanism, binding);
            return Ok(Step::Send);
        }
        self.authenticate(mechanism, binding, wish, around, out);
        Ok(Step::Send)
    }

    fn registered(
        &mut self,
        element: &Element<'_>,
        wish: &Wish,
        around: &mut Around<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Step, String> {
        if element.attribute("type") != Some(b"result") {
            let condition = element.child("error").and_then(|error| error.children().next());
            let condition = condition.map_or(&b"unknown"[..], |child| child.name());
            // The account exists.
            if condition != b"conflict" {
                let condition = String::from_utf8_lossy(condition);
                return Err(format!("registration refused: {condition}"));
            }
        }
        if let Stage::Register(mechanism, binding) =
            std::mem::replace(&mut self.stage, Stage::Features)
        {
            self.authenticate(mechanism, binding, wish, around, out);
        }
        Ok(Step::Registered)
    }

    fn authenticate(
        &mut self,
        mechanism: Mechanism,
        binding: Option<Binding>,
        wish: &Wish,
        around: &Around<'_>,
        out: &mut Vec<u8>,
    ) {
        let nonce = std::mem::take(&mut self.nonce);
        let scram = |hash| Scram::new(hash, &wish.user, Rc::clone(&wish.password), nonce, binding);
        let scram = match mechanism {
            Mechanism::Plain => None,
            Mechanism::ScramSha1 | Mechanism::ScramSha1Plus => Some(scram(Hash::Sha1)),
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => Some(scram(Hash::Sha256)),
        };
        let first = match &scram {
            Some(scram) => scram.first(),
            None => BASE64.encode(format!("\0{}\0{}", wish.user, wish.password)),
        };
        let name = mechanism.name();
        match wish.way {
            Way::Classic => out.extend_from_slice(
                format!("<auth xmlns='{SASL}' mechanism='{name}'>{first}</auth>").as_bytes(),
            ),
            Way::Sasl2 => {
                out.extend_from_slice(
                    format!(
                        "<authenticate xmlns='{SASL2}' mechanism='{name}'><initial-response>{first}</initial-response>"
                    )
                    .as_bytes(),
                );
                if let Some(previous) = &around.previous {
                    write_resume(previous, out);
                }
                out.extend_from_slice(b"<bind xmlns='urn:xmpp:bind:0'><tag>");
                escape(&wish.resource, out);
                out.extend_from_slice(b"</tag>");
                match wish.management {
                    Management::Off => {}
                    Management::On => out.extend_from_slice(b"<enable xmlns='urn:xmpp:sm:3'/>"),
                    Management::Resume => {
                        out.extend_from_slice(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
                    }
                }
                if wish.carbons {
                    out.extend_from_slice(b"<enable xmlns='urn:xmpp:carbons:2'/>");
                }
                out.extend_from_slice(b"</bind></authenticate>");
            }
        }
        self.stage = Stage::Sasl(scram);
    }

    /// SASL2 is through: the session is bound, or goes on.
    fn authenticated(
        &mut self,
        success: &Element<'_>,
        wish: &Wish,
        out: &mut Vec<u8>,
    ) -> Result<Step, String> {
        if let Some(resumed) = success.child("resumed") {
            self.stage = Stage::Presence;
            return Ok(Step::Resumed(handled(&resumed).ok_or("a <resumed/> without h")?));
        }
        let bound = success.child("bound").ok_or("SASL2 without Bind 2: nothing was bound")?;
        let jid = success.child("authorization-identifier");
        self.jid = jid.ok_or("no address in <success/>")?.text().into_owned();
        let enabled = bound.child("enabled");
        if wish.management != Management::Off && enabled.is_none() {
            return Err("XEP-0198 refused".to_owned());
        }
        if let Some(enabled) = &enabled {
            self.enabled(enabled);
        }
        self.stage = Stage::Presence;
        if wish.presence {
            out.extend_from_slice(PRESENCE);
        }
        Ok(match enabled {
            Some(_) => Step::Enabled,
            None if wish.presence => Step::Send,
            None => Step::Done,
        })
    }

    fn bind(&mut self, wish: &Wish, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>",
        );
        escape(&wish.resource, out);
        out.extend_from_slice(b"</resource></bind></iq>");
        self.stage = Stage::Bind;
    }

    fn enabled(&mut self, element: &Element<'_>) {
        let can = matches!(element.attribute("resume"), Some(b"true" | b"1"));
        if let Some(id) = element.text_of("id").filter(|_| can) {
            self.stream_id = id.into_owned();
        }
    }

    /// The last stanzas of a login behind binding.
    fn appear(&mut self, wish: &Wish, enabled: bool, out: &mut Vec<u8>) -> Step {
        self.stage = Stage::Presence;
        if wish.carbons {
            out.extend_from_slice(CARBONS);
        }
        if wish.presence {
            out.extend_from_slice(PRESENCE);
        }
        match (enabled, wish.presence) {
            (true, _) => Step::Enabled,
            (false, true) => Step::Send,
            (false, false) => Step::Done,
        }
    }
}

/// Stanzas that a login writes behind the point from which XEP-0198 counts.
pub(crate) fn stanzas_behind(wish: &Wish) -> u32 {
    let carbons = wish.carbons && wish.way == Way::Classic;
    u32::from(carbons) + u32::from(wish.presence)
}

fn write_resume(previous: &Previous<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<resume xmlns='urn:xmpp:sm:3' previd='");
    escape(previous.id, out);
    out.extend_from_slice(format!("' h='{}'/>", previous.received).as_bytes());
}

fn handled(element: &Element<'_>) -> Option<u32> {
    element.text_of("h").and_then(|h| h.parse().ok())
}

/// Picks the mechanism from what is offered, the way the wish goes.
fn choose(features: &Element<'_>, wish: &Wish) -> Result<Mechanism, String> {
    let list = match wish.way {
        Way::Classic => features.child("mechanisms"),
        Way::Sasl2 => {
            let offered = features.child("authentication");
            Some(offered.ok_or("SASL2 is not offered")?)
        }
    };
    let offered = |wanted: &Mechanism| {
        list.is_some_and(|list| {
            list.children().any(|mechanism| mechanism.content() == wanted.name().as_bytes())
        })
    };
    match wish.mechanism {
        Some(wanted) if offered(&wanted) => Ok(wanted),
        Some(wanted) => Err(format!("{} is not offered", wanted.name())),
        None => Mechanism::ALL
            .into_iter()
            .filter(|mechanism| !mechanism.is_bound())
            .find(offered)
            .ok_or_else(|| "none of SCRAM-SHA-256, SCRAM-SHA-1 and PLAIN is offered".to_owned()),
    }
}

/// Picks a channel binding that both ends have (XEP-0440; RFC 9266 where nothing is said).
fn choose_binding(
    features: &Element<'_>,
    binding: &dyn Fn(&str) -> Option<Binding>,
) -> Result<Binding, String> {
    let told = features.child("sasl-channel-binding");
    let has = |name: &str| {
        told.is_none_or(|told| {
            told.children().any(|child| child.attribute("type") == Some(name.as_bytes()))
        })
    };
    ["tls-exporter", "tls-server-end-point"]
        .into_iter()
        .filter(|name| has(name))
        .find_map(binding)
        .ok_or_else(|| "no channel binding is offered that this connection has".to_owned())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    struct Talk {
        login: Login,
        wish: Wish,
        previous: bool,
    }

    fn talk(mechanism: Mechanism, starttls: bool, presence: bool, sm: bool) -> Talk {
        let wish = Wish {
            target: 0,
            user: "a".to_owned(),
            password: "b".into(),
            resource: "r&".to_owned(),
            mechanism: Some(mechanism),
            starttls: if starttls { Starttls::Always } else { Starttls::Never },
            way: Way::Classic,
            register: false,
            presence,
            management: if sm { Management::On } else { Management::Off },
            carbons: false,
            silent: false,
            narrow: false,
        };
        Talk { login: Login::new("nonce".to_owned()), wish, previous: false }
    }

    impl Talk {
        fn take(&mut self, element: &str) -> Result<(Step, String), String> {
            let mut out = Vec::new();
            let element = Element::parse(element.as_bytes()).unwrap();
            let mut around = Around {
                keys: &mut KeyCache::default(),
                binding: &|_| None,
                previous: self.previous.then_some(Previous { id: "old&1", received: 7 }),
            };
            let step = self.login.take(&element, &self.wish, &mut around, &mut out)?;
            Ok((step, String::from_utf8(out).unwrap()))
        }
    }

    const MECHANISMS: &str = "<stream:features><mechanisms><mechanism>SCRAM-SHA-1</mechanism>\
        <mechanism>PLAIN</mechanism></mechanisms></stream:features>";
    const BOUND: &str = "<iq type='result' id='bind'><bind><jid>a@b/r&amp;</jid></bind></iq>";

    #[test]
    fn plain_login_over_starttls_enables_sm_and_waits_for_its_own_presence() {
        let mut talk = talk(Mechanism::Plain, true, true, true);
        let (step, out) = talk.take("<features><starttls/></features>").unwrap();
        assert!(step == Step::Send && out.starts_with("<starttls"));
        assert_eq!(talk.take("<proceed/>").unwrap().0, Step::StartTls);
        let (_, out) = talk.take(MECHANISMS).unwrap();
        assert!(out.contains("mechanism='PLAIN'>AGEAYg==<"), "{out}");
        assert_eq!(talk.take("<success/>").unwrap().0, Step::Restart);
        let (_, out) = talk.take("<features><bind/><sm/></features>").unwrap();
        assert!(out.contains("<resource>r&amp;</resource>"), "{out}");
        let (step, out) = talk.take(BOUND).unwrap();
        assert!(step == Step::Send && out.starts_with("<enable "));
        assert_eq!(talk.login.jid, "a@b/r&");
        let (step, out) = talk.take("<enabled/>").unwrap();
        assert!(step == Step::Enabled && out == "<presence/>");
        assert!(!talk.login.is_complete(&talk.wish));
        assert_eq!(talk.take("<message from='x@y'/>").unwrap().0, Step::Other);
        assert_eq!(talk.take("<presence from='c@b/r'/>").unwrap().0, Step::Other);
        assert_eq!(talk.take("<presence from='a@b/r&amp;'/>").unwrap().0, Step::Done);
    }

    #[test]
    fn without_presence_and_sm_binding_is_the_end() {
        let mut talk = talk(Mechanism::Plain, false, false, false);
        talk.take(MECHANISMS).unwrap();
        talk.take("<success/>").unwrap();
        talk.take("<features><bind/></features>").unwrap();
        assert_eq!(talk.take(BOUND).unwrap(), (Step::Done, String::new()));
    }

    #[test]
    fn refusals_and_missing_features_are_named() {
        let failed = |mut talk: Talk, elements: &[&str]| {
            elements.iter().find_map(|element| talk.take(element).err()).unwrap()
        };
        let plain = || talk(Mechanism::Plain, false, false, true);
        assert_eq!(
            failed(plain(), &[MECHANISMS, "<failure><not-authorized/></failure>"]),
            "login refused: not-authorized"
        );
        assert_eq!(
            failed(plain(), &[MECHANISMS, "<success/>", "<features><bind/></features>"]),
            "XEP-0198 is not offered"
        );
        let scram = talk(Mechanism::ScramSha256, false, false, false);
        assert_eq!(failed(scram, &[MECHANISMS]), "SCRAM-SHA-256 is not offered");
        let tls = talk(Mechanism::Plain, true, false, false);
        assert_eq!(failed(tls, &[MECHANISMS]), "STARTTLS is not offered");
        assert!(failed(plain(), &["<success/>"]).contains("unexpected <success/>"));
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_refused() {
        let mut talk = talk(Mechanism::ScramSha1, false, false, false);
        talk.take(MECHANISMS).unwrap();
        let challenge = BASE64.encode("r=nonceX,s=QSXCR+Q6sek8bf92,i=2");
        talk.take(&format!("<challenge>{challenge}</challenge>")).unwrap();
        assert!(talk.take("<success/>").is_err());
        let last = BASE64.encode("v=rmF9pqV8S7suAoZWja4dJRkFsKQ=");
        let error = talk.take(&format!("<success>{last}</success>")).unwrap_err();
        assert!(error.contains("Signature"), "{error}");
    }

    #[test]
    fn an_account_is_made_before_the_login_and_one_that_exists_will_do() {
        for answer in [
            "<iq type='result' id='register'/>",
            "<iq type='error' id='register'><error><conflict/></error></iq>",
        ] {
            let mut talk = talk(Mechanism::Plain, false, false, false);
            talk.wish.register = true;
            let (step, out) = talk.take(MECHANISMS).unwrap();
            assert!(step == Step::Send && out.contains("<username>a</username>"), "{out}");
            let (step, out) = talk.take(answer).unwrap();
            assert!(step == Step::Registered && out.starts_with("<auth "), "{out}");
        }
        let mut talk = talk(Mechanism::Plain, false, false, false);
        talk.wish.register = true;
        talk.take(MECHANISMS).unwrap();
        let refusal = "<iq type='error' id='register'><error><resource-constraint/></error></iq>";
        assert_eq!(talk.take(refusal).unwrap_err(), "registration refused: resource-constraint");
    }

    #[test]
    fn a_stream_is_resumed_or_bound_anew() {
        let begun = || {
            let mut talk = talk(Mechanism::Plain, false, true, true);
            talk.wish.management = Management::Resume;
            talk.previous = true;
            talk.take(MECHANISMS).unwrap();
            talk.take("<success/>").unwrap();
            let (_, out) = talk.take("<features><bind/><sm/></features>").unwrap();
            assert_eq!(out, "<resume xmlns='urn:xmpp:sm:3' previd='old&amp;1' h='7'/>");
            talk
        };
        assert_eq!(begun().take("<resumed h='12'/>").unwrap().0, Step::Resumed(12));
        let mut talk = begun();
        let (step, out) = talk.take("<failed h='9'/>").unwrap();
        assert!(step == Step::NotResumed(Some(9)) && out.contains("<bind "), "{out}");
        let (_, out) = talk.take(BOUND).unwrap();
        assert!(out.contains("resume='true'"), "{out}");
        talk.take("<enabled id='x' resume='true'/>").unwrap();
        assert_eq!(talk.login.stream_id, "x");
    }

    #[test]
    fn sasl2_binds_enables_and_resumes_in_one_exchange() {
        const FEATURES: &str = "<features><authentication><mechanism>PLAIN</mechanism>\
            <inline/></authentication></features>";
        let begun = |previous| {
            let mut talk = talk(Mechanism::Plain, false, true, true);
            talk.wish.way = Way::Sasl2;
            talk.wish.carbons = true;
            talk.previous = previous;
            let (_, out) = talk.take(FEATURES).unwrap();
            assert!(out.contains("<enable xmlns='urn:xmpp:carbons:2'/></bind>"), "{out}");
            assert_eq!(out.contains("<resume "), previous);
            talk
        };
        let mut talk = begun(false);
        let success = "<success><authorization-identifier>a@b/r.1</authorization-identifier>\
            <bound><enabled/></bound></success>";
        assert_eq!(talk.take(success).unwrap(), (Step::Enabled, "<presence/>".to_owned()));
        assert_eq!(talk.login.jid, "a@b/r.1");
        assert_eq!(talk.take("<features/>").unwrap().0, Step::Other);
        assert_eq!(talk.take("<presence from='a@b/r.1'/>").unwrap().0, Step::Done);
        let success = "<success><resumed h='3'/></success>";
        assert_eq!(begun(true).take(success).unwrap().0, Step::Resumed(3));
    }

    #[test]
    fn channel_binding_takes_what_both_ends_have() {
        let features = |types: &str| {
            format!(
                "<features><mechanisms><mechanism>SCRAM-SHA-256-PLUS</mechanism></mechanisms>\
                 <sasl-channel-binding>{types}</sasl-channel-binding></features>"
            )
        };
        let choose = |types: &str| {
            let features = features(types);
            let features = Element::parse(features.as_bytes()).unwrap();
            let own = |name: &str| {
                (name == "tls-server-end-point")
                    .then_some(Binding { name: "tls-server-end-point", data: vec![1] })
            };
            choose_binding(&features, &own).map(|binding| binding.name)
        };
        let both = "<channel-binding type='tls-exporter'/>\
            <channel-binding type='tls-server-end-point'/>";
        assert_eq!(choose(both), Ok("tls-server-end-point"));
        assert!(choose("<channel-binding type='tls-exporter'/>").is_err());
    }

    #[test]
    fn a_component_says_the_digest_of_stream_and_secret_and_is_done_by_an_empty_handshake() {
        let mut talk = talk(Mechanism::Plain, false, false, false);
        let mut out = Vec::new();
        talk.login.shake_hands("3BF96D32", "stamps", "service.office.example", &mut out);
        let digest = "c46dfe72667783599656c0e6d83bea42c6492164";
        assert_eq!(out, format!("<handshake>{digest}</handshake>").as_bytes());
        let (step, said) = talk.take("<handshake/>").unwrap();
        assert!(matches!(step, Step::Done) && said.is_empty());
        assert_eq!(talk.login.jid, "service.office.example");
    }
}
