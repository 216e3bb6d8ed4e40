//! The client's half of a login, by whatever mechanism. It holds the server to what protects the client as well: its
//! proof that it knows the secret, and the hash of what it has listed (XEP-0474).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use corefire::stream::sasl::client::{ClientBinding, ScramClient, plain};
use corefire::stream::sasl::{Mechanism, TLS_EXPORTER, initiator, responder};
use corefire::xmpp::ns;
use corefire::xmpp::xml::element::Element;
use ring::digest;

/// For all logins: nobody listens.
const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";

/// Who logs in, with what, where.
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    /// The password, or a token of the server's.
    pub(crate) secret: &'a str,
    pub(crate) exporter: Option<[u8; 32]>,
    pub(crate) offer: &'a Offer,
}

/// What features have shown of logins.
#[derive(Default)]
pub(crate) struct Offer {
    pub(crate) mechanisms: Vec<String>,
    /// XEP-0440.
    pub(crate) bindings: Vec<String>,
    /// XEP-0484.
    pub(crate) fast: Vec<String>,
}

impl Offer {
    /// - takes: the features of a stream; which of both profiles is used
    pub(crate) fn of(features: &Element, is_sasl2: bool) -> Offer {
        let texts = |list: Option<&Element>| -> Vec<String> {
            let names = list.into_iter().flat_map(Element::children);
            names.filter(|it| it.name == "mechanism").map(Element::text).collect()
        };
        let sasl2 = features.child(SASL2, "authentication");
        let list = match is_sasl2 {
            true => sasl2,
            false => features.child(ns::SASL, "mechanisms"),
        };
        let inline = sasl2.and_then(|it| it.child(SASL2, "inline"));
        let bindings = features.child("urn:xmpp:sasl-cb:0", "sasl-channel-binding");
        let types = bindings.into_iter().flat_map(Element::children);
        Offer {
            mechanisms: texts(list),
            bindings: types.filter_map(|it| it.attr("type")).map(str::to_owned).collect(),
            fast: texts(inline.and_then(|it| it.child("urn:xmpp:fast:0", "fast"))),
        }
    }

    /// XEP-0474 §3.1.
    fn digest_input(&self) -> String {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names.join("\u{1e}")
        };
        match self.bindings[..] {
            [] => sorted(&self.mechanisms),
            _ => format!("{}\u{1f}{}", sorted(&self.mechanisms), sorted(&self.bindings)),
        }
    }
}

pub(crate) const SASL2: &str = "urn:xmpp:sasl:2";

/// What is still to come of a login.
pub(crate) enum Exchange {
    /// The server proves nothing.
    Trusting,
    Scram {
        client: Box<ScramClient>,
        /// The one value of `h` that the server may tell.
        listed: String,
    },
    Token(Vec<u8>),
}

impl Exchange {
    /// - gives: with the message that opens the login
    pub(crate) fn begin(mechanism: &str, login: &Login<'_>) -> Result<(Exchange, Vec<u8>), String> {
        if let Some(kind) = mechanism.strip_prefix("HT-SHA-256-") {
            let data = match (kind, &login.exporter) {
                ("NONE", _) => &[][..],
                ("EXPR", Some(data)) => data,
                _ => return Err(format!("{mechanism} cannot be used here")),
            };
            let proof = responder(login.secret, data);
            return Ok((Exchange::Token(proof), initiator(login.user, login.secret, data)));
        }
        let known = Mechanism::parse(mechanism).ok_or(format!("no mechanism: {mechanism}"))?;
        match known {
            Mechanism::Plain => Ok((Exchange::Trusting, plain("", login.user, login.secret))),
            Mechanism::External => Ok((Exchange::Trusting, Vec::new())),
            _ => {
                let binding = match &login.exporter {
                    Some(data) if known.is_plus() => {
                        ClientBinding::Used { kind: TLS_EXPORTER, data }
                    }
                    _ => ClientBinding::Unsupported,
                };
                let client = ScramClient::new(known, login.user, login.secret, NONCE, binding)
                    .map_err(|error| error.to_string())?;
                let first = client.first();
                let hash = match mechanism.trim_end_matches("-PLUS") {
                    "SCRAM-SHA-1" => &digest::SHA1_FOR_LEGACY_USE_ONLY,
                    "SCRAM-SHA-256" => &digest::SHA256,
                    _ => &digest::SHA512,
                };
                let listed = digest::digest(hash, login.offer.digest_input().as_bytes());
                let listed = BASE64.encode(listed);
                Ok((Exchange::Scram { client: Box::new(client), listed }, first))
            }
        }
    }

    pub(crate) fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, String> {
        let Exchange::Scram { client, listed } = self else {
            return Err("a challenge where the mechanism has none".into());
        };
        let text = String::from_utf8_lossy(challenge);
        let told = text.split(',').find_map(|part| part.strip_prefix("h="));
        if told.is_some_and(|told| told != listed) {
            return Err(format!("the server has listed something else than it says: {text}"));
        }
        client.server_first(challenge).map_err(|error| error.to_string())
    }

    /// - takes: what came with success
    pub(crate) fn check(self, data: &[u8]) -> Result<(), String> {
        match self {
            Exchange::Trusting => Ok(()),
            Exchange::Scram { client, .. } => {
                client.server_final(data).map_err(|error| error.to_string())
            }
            Exchange::Token(proof) if proof == data => Ok(()),
            Exchange::Token(_) => Err("the server does not know the token".into()),
        }
    }
}
