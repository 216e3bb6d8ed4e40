//! What operators tell the features: `[contact]`.

use super::reader::Section;
use crate::features::Settings;
use crate::features::contact::{Addresses, PURPOSES};

/// URIs for one purpose, and bytes of one URI.
const URIS_MAX: usize = 16;
const URI_BYTES_MAX: usize = 1024;

pub(super) fn settings(top: &mut Section<'_>) -> Settings {
    Settings { contact: top.section("contact", contact) }
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
