//! XEP-0215: External Service Discovery. STUN and TURN servers and the like, with credentials that a TURN server can
//! check by a secret that it shares with this one (`use-auth-secret` of coturn: draft-uberti-behave-turn-rest).

use super::Settings;
use crate::base::instant::Wall;
use crate::shard::{Answers, Feature, Iq, Manifest, Method, Scope, Spec, Turn, Verdict};
use crate::xmpp::datetime;
use crate::xmpp::jid::BareJid;
use crate::xmpp::ns;
use crate::xmpp::stanza_error::StanzaCondition;
use crate::xmpp::xml::writer::Writer;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;

pub(super) static MANIFEST: Manifest = Manifest {
    name: "external_services",
    specs: &[Spec {
        name: "XEP-0215",
        version: "1.0.0",
        left_out: "pushes: the list changes only when the configuration does",
    }],
    server_disco: &[ns::EXTERNAL_SERVICES],
    answers: &[
        Answers {
            method: Method::Get,
            namespace: ns::EXTERNAL_SERVICES,
            name: "services",
            scopes: &[Scope::Server],
        },
        Answers {
            method: Method::Get,
            namespace: ns::EXTERNAL_SERVICES,
            name: "credentials",
            scopes: &[Scope::Server],
        },
    ],
    ..Manifest::EMPTY
};

/// One service, as the operator describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// "stun", "turn", "turns" …
    pub kind: String,
    pub host: String,
    pub port: u16,
    /// "udp", "tcp"; empty where it goes without saying.
    pub transport: String,
    /// For people.
    pub name: String,
    pub access: Access,
}

/// How clients prove themselves to a service.
#[derive(Clone, PartialEq, Eq)]
pub enum Access {
    Open,
    /// The same for everybody.
    Password {
        username: String,
        password: String,
    },
    /// Credentials for a time, made from a secret that the service shares.
    Secret {
        secret: String,
        valid_s: u32,
    },
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Access::Open => "Open",
            Access::Password { .. } => "Password(..)",
            Access::Secret { .. } => "Secret(..)",
        })
    }
}

/// One instance per shard.
pub(super) struct ExternalServices {
    services: Vec<Service>,
}

impl ExternalServices {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { services: settings.external_services.clone() }
    }
}

impl Feature for ExternalServices {
    fn manifest(&self) -> &'static Manifest {
        &MANIFEST
    }

    fn on_iq(&mut self, turn: &mut Turn<'_>, iq: &Iq<'_>) -> Verdict {
        // Credentials are for our own users.
        if !turn.is_local(iq.from) {
            return Verdict::Error(StanzaCondition::Forbidden.into());
        }
        let query = iq.payload.to_element();
        let now = turn.now().wall;
        let mut out = Vec::with_capacity(256);
        let mut writer = Writer::new(&mut out);
        writer.start(iq.payload.name).attr("xmlns", ns::EXTERNAL_SERVICES);
        if iq.payload.name == "services" {
            let kind = query.attr("type");
            writer.attr_opt("type", kind).open();
            for service in self.services.iter().filter(|one| kind.is_none_or(|it| it == one.kind)) {
                service.write(&mut writer, iq.from, now);
            }
        } else {
            // §3.3: one service, by its host and type, and its port where it has several.
            let Some(asked) = query.child(ns::EXTERNAL_SERVICES, "service") else {
                return Verdict::Error(StanzaCondition::BadRequest.into());
            };
            let (host, kind) = (asked.attr("host"), asked.attr("type"));
            let (Some(host), Some(kind)) = (host, kind) else {
                return Verdict::Error(StanzaCondition::BadRequest.into());
            };
            let port = asked.attr("port");
            let is_it = |one: &&Service| {
                one.host == host
                    && one.kind == kind
                    && port.is_none_or(|port| port.parse() == Ok(one.port))
            };
            let mut found = self.services.iter().filter(is_it).peekable();
            if found.peek().is_none() {
                return Verdict::Error(StanzaCondition::ItemNotFound.into());
            }
            found.for_each(|service| service.write(&mut writer, iq.from, now));
        }
        writer.end(iq.payload.name);
        Verdict::Result(out)
    }
}

impl Service {
    fn write(&self, writer: &mut Writer<'_>, from: &str, now: Wall) {
        writer.start("service").attr("type", &self.kind).attr("host", &self.host);
        writer.attr("port", &self.port.to_string());
        for (name, value) in [("transport", &self.transport), ("name", &self.name)] {
            writer.attr_opt(name, Some(value.as_str()).filter(|value| !value.is_empty()));
        }
        match &self.access {
            Access::Open => {}
            Access::Password { username, password } => {
                writer.attr("restricted", "true");
                writer.attr("username", username).attr("password", password);
            }
            Access::Secret { secret, valid_s } => {
                let expires = now.0 / 1_000_000 + u64::from(*valid_s);
                let (username, password) = credentials(secret, expires, from);
                writer.attr("restricted", "true");
                writer.attr("username", &username).attr("password", &password);
                writer.attr("expires", &datetime::format(Wall(expires * 1_000_000)));
            }
        }
        writer.close_empty();
    }
}

/// `EXPIRY:USER` and its HMAC. The user is a number that stays the same and names nobody to the service's operator.
fn credentials(secret: &str, expires_s: u64, from: &str) -> (String, String) {
    let bare = from.split_once('/').map_or(from, |(bare, _)| bare);
    let user = BareJid::parse(bare).map_or(0, |jid| jid.hash64());
    let username = format!("{expires_s}:{user:016x}");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let password = STANDARD.encode(ring::hmac::sign(&key, username.as_bytes()));
    (username, password)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `printf USERNAME | openssl dgst -sha1 -hmac north -binary | base64` gives.
    #[test]
    fn turn_credentials_are_what_a_turn_server_computes() {
        let made = credentials("north", 1_700_000_000, "alice@here/pc");
        let (username, password) = ("1700000000:c6312b93043ca670", "a4BgNfOKJOQoyx37Kn1Q0O/8RSE=");
        assert_eq!(made, (username.to_owned(), password.to_owned()));
        assert_eq!(credentials("north", 1_700_000_000, "alice@here/tab"), made);
    }
}
