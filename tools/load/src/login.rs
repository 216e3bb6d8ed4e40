//! From the first stream header to a bound session: STARTTLS, SASL, binding, XEP-0198, presence.

use std::rc::Rc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::scan::{Element, escape};
use crate::scram::{Hash, KeyCache, Scram};

/// How an account proves itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Plain,
    ScramSha1,
    ScramSha256,
}

impl Mechanism {
    /// The strongest first.
    pub const ALL: [Self; 3] = [Self::ScramSha256, Self::ScramSha1, Self::Plain];

    /// Its registered name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha1 => "SCRAM-SHA-1",
            Self::ScramSha256 => "SCRAM-SHA-256",
        }
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
    /// XEP-0198 counts from here, in both directions; send what was written.
    Enabled,
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

/// What one account asks for. Built by the engine, read by [`Login`].
pub(crate) struct Wish {
    /// Place in the engine's list of servers.
    pub(crate) target: usize,
    pub(crate) user: String,
    pub(crate) password: Rc<str>,
    pub(crate) resource: String,
    /// `None`: the strongest that is offered.
    pub(crate) mechanism: Option<Mechanism>,
    pub(crate) starttls: Starttls,
    pub(crate) presence: bool,
    pub(crate) sm: bool,
}

enum Stage {
    Features,
    Proceed,
    Sasl(Option<Scram>),
    BindFeatures,
    Bind,
    Enable,
    Presence,
}

/// One login, without input or output. One per connection until it is done.
pub(crate) struct Login {
    stage: Stage,
    secured: bool,
    nonce: String,
    /// Full JID, once bound.
    pub(crate) jid: String,
}

const PRESENCE: &[u8] = b"<presence/>";

impl Login {
    pub(crate) fn new(nonce: String) -> Self {
        Self { stage: Stage::Features, secured: false, nonce, jid: String::new() }
    }

    /// Takes one element of the stream, writes the answer to `out`.
    ///
    /// - gives: [`Step::Other`] for stanzas that arrive beside the login, such as stored messages
    /// - errors: the reason in words: a refusal, a missing feature, an answer that makes no sense
    pub(crate) fn take(
        &mut self,
        element: &Element<'_>,
        wish: &Wish,
        cache: &mut KeyCache,
        out: &mut Vec<u8>,
    ) -> Result<Step, String> {
        let name = element.name();
        match (&mut self.stage, name) {
            (Stage::Features, b"features") => {
                let offered = element.child("starttls").is_some();
                if !self.secured && wish.starttls == Starttls::Always && !offered {
                    return Err("STARTTLS is not offered".to_owned());
                }
                if !self.secured && wish.starttls != Starttls::Never && offered {
                    out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
                    self.stage = Stage::Proceed;
                } else {
                    self.authenticate(element, wish, out)?;
                }
                Ok(Step::Send)
            }
            (Stage::Proceed, b"proceed") => {
                self.secured = true;
                self.stage = Stage::Features;
                Ok(Step::StartTls)
            }
            (Stage::Sasl(Some(scram)), b"challenge") => {
                let text = element.text();
                // The server's signature may come as a challenge (RFC 5802 §5 allows both places).
                let answer = if scram.check(&text).is_ok() {
                    self.stage = Stage::Sasl(None);
                    String::new()
                } else {
                    let answer = scram.respond(&text, cache);
                    answer.map_err(|error| format!("SCRAM challenge: {error:?}"))?
                };
                out.extend_from_slice(b"<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>");
                out.extend_from_slice(answer.as_bytes());
                out.extend_from_slice(b"</response>");
                Ok(Step::Send)
            }
            (Stage::Sasl(scram), b"success") => {
                if let Some(scram) = scram {
                    let checked = scram.check(&element.text());
                    checked.map_err(|error| format!("SCRAM success: {error:?}"))?;
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
                if wish.sm {
                    element.child("sm").ok_or("XEP-0198 is not offered")?;
                }
                out.extend_from_slice(
                    b"<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>",
                );
                escape(&wish.resource, out);
                out.extend_from_slice(b"</resource></bind></iq>");
                self.stage = Stage::Bind;
                Ok(Step::Send)
            }
            (Stage::Bind, b"iq") if element.attribute("id") == Some(b"bind") => {
                let jid = element.child("bind").and_then(|bind| bind.child("jid"));
                let jid = jid.filter(|_| element.attribute("type") == Some(b"result"));
                self.jid = jid.ok_or("binding refused")?.text().into_owned();
                if wish.sm {
                    out.extend_from_slice(b"<enable xmlns='urn:xmpp:sm:3'/>");
                    self.stage = Stage::Enable;
                    return Ok(Step::Send);
                }
                Ok(self.appear(wish, out, Step::Send))
            }
            (Stage::Enable, b"enabled") => Ok(self.appear(wish, out, Step::Enabled)),
            (Stage::Enable, b"failed") => Err("XEP-0198 refused".to_owned()),
            // The server shows a session its own presence (RFC 6121 §4.2.2): from here messages to the account reach it.
            (Stage::Presence, b"presence")
                if element.text_of("from").as_deref() == Some(&self.jid) =>
            {
                Ok(Step::Done)
            }
            (Stage::Bind | Stage::Enable | Stage::Presence, _) => Ok(Step::Other),
            _ => Err(format!("unexpected <{}/> during login", String::from_utf8_lossy(name))),
        }
    }

    /// Whether the session is complete after the step that bound or enabled it.
    pub(crate) fn is_complete(&self, wish: &Wish) -> bool {
        matches!(self.stage, Stage::Presence) && !wish.presence
    }

    fn appear(&mut self, wish: &Wish, out: &mut Vec<u8>, step: Step) -> Step {
        self.stage = Stage::Presence;
        if wish.presence {
            out.extend_from_slice(PRESENCE);
            return step;
        }
        if step == Step::Enabled { step } else { Step::Done }
    }

    fn authenticate(
        &mut self,
        features: &Element<'_>,
        wish: &Wish,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let offered = |wanted: &Mechanism| {
            features.child("mechanisms").is_some_and(|list| {
                list.children().any(|mechanism| mechanism.content() == wanted.name().as_bytes())
            })
        };
        let mechanism = match wish.mechanism {
            Some(wanted) if offered(&wanted) => wanted,
            Some(wanted) => return Err(format!("{} is not offered", wanted.name())),
            None => Mechanism::ALL
                .into_iter()
                .find(offered)
                .ok_or("none of SCRAM-SHA-256, SCRAM-SHA-1 and PLAIN is offered")?,
        };
        let name = mechanism.name();
        let nonce = std::mem::take(&mut self.nonce);
        let scram = |hash| Scram::new(hash, &wish.user, Rc::clone(&wish.password), nonce);
        let scram = match mechanism {
            Mechanism::Plain => None,
            Mechanism::ScramSha1 => Some(scram(Hash::Sha1)),
            Mechanism::ScramSha256 => Some(scram(Hash::Sha256)),
        };
        let first = match &scram {
            Some(scram) => scram.first(),
            None => BASE64.encode(format!("\0{}\0{}", wish.user, wish.password)),
        };
        out.extend_from_slice(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"'>");
        out.extend_from_slice(first.as_bytes());
        out.extend_from_slice(b"</auth>");
        self.stage = Stage::Sasl(scram);
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    struct Talk {
        login: Login,
        wish: Wish,
    }

    fn talk(mechanism: Mechanism, starttls: bool, presence: bool, sm: bool) -> Talk {
        let wish = Wish {
            target: 0,
            user: "a".to_owned(),
            password: "b".into(),
            resource: "r&".to_owned(),
            mechanism: Some(mechanism),
            starttls: if starttls { Starttls::Always } else { Starttls::Never },
            presence,
            sm,
        };
        Talk { login: Login::new("nonce".to_owned()), wish }
    }

    impl Talk {
        fn take(&mut self, element: &str) -> Result<(Step, String), String> {
            let mut out = Vec::new();
            let element = Element::parse(element.as_bytes()).unwrap();
            let step = self.login.take(&element, &self.wish, &mut KeyCache::default(), &mut out)?;
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
}
