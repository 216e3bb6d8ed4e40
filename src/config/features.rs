//! What operators tell the features: `[contact]`, `[external_services]`.

use super::reader::Section;
use crate::features::Settings;
use crate::features::contact::{Addresses, PURPOSES};
use crate::features::external_services::{Access, Service};

/// URIs for one purpose, and bytes of one URI.
const URIS_MAX: usize = 16;
const URI_BYTES_MAX: usize = 1024;

pub(super) fn settings(top: &mut Section<'_>) -> Settings {
    let services = top.each("external_services", |s, _| service(s));
    Settings {
        contact: top.section("contact", contact),
        external_services: services.into_values().flatten().collect(),
    }
}

fn contact(s: &mut Section<'_>) -> Addresses {
    let mut of = Vec::new();
    for purpose in PURPOSES {
        let uris = s.list(purpose, &[], &["mailto:abuse@example.org"], uri);
        if uris.len() > URIS_MAX {
            s.problem(purpose, format!("more than {URIS_MAX} addresses; leave some out"));
        } else if !uris.is_empty() {
            of.push((purpose, uris));
        }
    }
    Addresses { of }
}

/// Clients show it as a link: it needs a scheme.
fn uri(text: &str) -> Result<String, String> {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let is_plain = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    match is_scheme && is_plain && text.len() <= URI_BYTES_MAX {
        true => Ok(text.to_owned()),
        false => Err("is not a URI such as \"mailto:abuse@example.org\"".to_owned()),
    }
}

fn service(s: &mut Section<'_>) -> Option<Service> {
    let kind = s.parsed("type", "", "turn", word);
    let host = s.parsed("host", "", "turn.example.org", word);
    let port = s.integer("port", 3_478, 1..=u16::MAX);
    let transport = s.parsed("transport", "", "udp", word);
    let name = s.text("name", "");
    let secret = s.text("secret", "");
    let valid_s = s.integer("valid_s", 86_400, 60..=31_536_000);
    let (username, password) = (s.text("username", ""), s.text("password", ""));
    for (key, value, example) in
        [("type", &kind, "\"turn\""), ("host", &host, "\"turn.example.org\"")]
    {
        if value.is_empty() {
            s.problem_here(format!("has no {key}; write {key} = {example}"));
            return None;
        }
    }
    let access = match (secret.is_empty(), username.is_empty() && password.is_empty()) {
        (true, true) => Access::Open,
        (true, false) => Access::Password { username, password },
        (false, true) => Access::Secret { secret, valid_s },
        (false, false) => {
            let message = "has a secret beside username and password; leave one of them out";
            s.problem_here(message.to_owned());
            return None;
        }
    };
    Some(Service { kind, host, port, transport, name, access })
}

fn word(text: &str) -> Result<String, &'static str> {
    match text.len() > 255 || text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err("is longer than 255 bytes or has blanks"),
        false => Ok(text.to_owned()),
    }
}
