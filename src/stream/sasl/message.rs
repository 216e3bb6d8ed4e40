//! The messages of SCRAM as RFC 5802 §7 spells them: exact order, exact shape, nothing skipped.
//!
//! Values stay as sent where they enter the signatures; only names are unescaped and base64 is undone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{MESSAGE_BYTES_MAX, SaslFailure, saslprep};

/// What the client says of channel binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BindingFlag<'a> {
    /// `n`: it has none.
    Unsupported,
    /// `y`: it has, and believes that the server has not.
    NotOffered,
    /// `p=`: the type it uses.
    Used(&'a str),
}

/// client-first-message.
#[derive(Debug)]
pub(super) struct ClientFirst<'a> {
    pub(super) flag: BindingFlag<'a>,
    /// With its last comma, as `c=` repeats it.
    pub(super) gs2_header: &'a str,
    pub(super) authzid: Option<String>,
    /// Unescaped, not prepared.
    username: String,
    pub(super) nonce: &'a str,
    /// client-first-message-bare.
    pub(super) bare: &'a str,
}

/// client-final-message.
pub(super) struct ClientFinal<'a> {
    /// Decoded `c=`.
    pub(super) binding: Vec<u8>,
    pub(super) nonce: &'a str,
    /// Decoded `p=`.
    pub(super) proof: Vec<u8>,
    pub(super) without_proof: &'a str,
}

/// server-first-message.
pub(super) struct ServerFirst<'a> {
    pub(super) nonce: &'a str,
    pub(super) salt: Vec<u8>,
    pub(super) iterations: u32,
}

/// server-final-message.
pub(super) enum ServerFinal<'a> {
    Verifier(Vec<u8>),
    Error(&'a str),
}

/// A message that does not follow the grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl From<Malformed> for SaslFailure {
    fn from(_: Malformed) -> SaslFailure {
        SaslFailure::MalformedRequest
    }
}

impl<'a> ClientFirst<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<ClientFirst<'a>, Malformed> {
        let text = text(message)?;
        let (flag, rest) = text.split_once(',').ok_or(Malformed)?;
        let flag = match flag.split_once('=') {
            Some(("p", name)) if is_binding_name(name) => BindingFlag::Used(name),
            None if flag == "n" => BindingFlag::Unsupported,
            None if flag == "y" => BindingFlag::NotOffered,
            _ => return Err(Malformed),
        };
        let (authzid, bare) = rest.split_once(',').ok_or(Malformed)?;
        let gs2_header = &text[..text.len() - bare.len()];
        let authzid = match authzid.strip_prefix("a=") {
            Some(name) => Some(unescape(name)?),
            None if authzid.is_empty() => None,
            None => return Err(Malformed),
        };
        // A mandatory extension (`m=`) would stand here; none is known, so that it must be refused.
        let mut attributes = bare.split(',');
        let username = unescape(value(attributes.next(), 'n')?)?;
        let nonce = printable(value(attributes.next(), 'r')?)?;
        attributes.try_for_each(extension)?;
        Ok(ClientFirst { flag, gs2_header, authzid, username, nonce, bare })
    }

    pub(super) fn prepared_username(&self) -> Result<String, SaslFailure> {
        let prepared = saslprep::prepare_query(&self.username).ok_or(SaslFailure::NotAuthorized)?;
        Ok(prepared.into_owned())
    }
}

impl<'a> ClientFinal<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<ClientFinal<'a>, Malformed> {
        let (without_proof, proof) = text(message)?.rsplit_once(',').ok_or(Malformed)?;
        let proof = base64(value(Some(proof), 'p')?)?;
        let mut attributes = without_proof.split(',');
        let binding = base64(value(attributes.next(), 'c')?)?;
        let nonce = printable(value(attributes.next(), 'r')?)?;
        attributes.try_for_each(extension)?;
        Ok(ClientFinal { binding, nonce, proof, without_proof })
    }
}

impl<'a> ServerFirst<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<ServerFirst<'a>, Malformed> {
        let mut attributes = text(message)?.split(',');
        let nonce = printable(value(attributes.next(), 'r')?)?;
        let salt = base64(value(attributes.next(), 's')?)?;
        let iterations = value(attributes.next(), 'i')?;
        if iterations.starts_with('0') || !iterations.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Malformed);
        }
        let iterations = iterations.parse().map_err(|_| Malformed)?;
        attributes.try_for_each(extension)?;
        Ok(ServerFirst { nonce, salt, iterations })
    }
}

impl<'a> ServerFinal<'a> {
    pub(super) fn parse(message: &'a [u8]) -> Result<ServerFinal<'a>, Malformed> {
        let mut attributes = text(message)?.split(',');
        let first = attributes.next();
        let parsed = match value(first, 'e') {
            Ok(error) => ServerFinal::Error(error),
            Err(Malformed) => ServerFinal::Verifier(base64(value(first, 'v')?)?),
        };
        attributes.try_for_each(extension)?;
        Ok(parsed)
    }
}

/// A name with `,` and `=` escaped (saslname). The inverse of `unescape`.
pub(super) fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn unescape(name: &str) -> Result<String, Malformed> {
    let mut parts = name.split('=');
    let mut unescaped = parts.next().ok_or(Malformed)?.to_owned();
    for part in parts {
        if let Some(rest) = part.strip_prefix("2C") {
            unescaped.push(',');
            unescaped.push_str(rest);
        } else {
            unescaped.push('=');
            unescaped.push_str(part.strip_prefix("3D").ok_or(Malformed)?);
        }
    }
    if unescaped.is_empty() { Err(Malformed) } else { Ok(unescaped) }
}

/// No message has a place for NUL (value-safe-char).
fn text(message: &[u8]) -> Result<&str, Malformed> {
    if message.len() > MESSAGE_BYTES_MAX || message.contains(&0) {
        return Err(Malformed);
    }
    std::str::from_utf8(message).map_err(|_| Malformed)
}

fn value(attribute: Option<&str>, name: char) -> Result<&str, Malformed> {
    let value = attribute.and_then(|text| text.strip_prefix(name)?.strip_prefix('='));
    value.filter(|value| !value.is_empty()).ok_or(Malformed)
}

/// An optional extension, to be ignored (RFC 5802 §5.1). Names that mean something elsewhere are no extensions.
fn extension(attribute: &str) -> Result<(), Malformed> {
    let (name, value) = attribute.split_once('=').ok_or(Malformed)?;
    let is_name = matches!(name.as_bytes(), [letter] if letter.is_ascii_alphabetic());
    let is_taken = matches!(name, "a" | "c" | "e" | "i" | "m" | "n" | "p" | "r" | "s" | "v");
    if is_name && !is_taken && !value.is_empty() { Ok(()) } else { Err(Malformed) }
}

fn base64(value: &str) -> Result<Vec<u8>, Malformed> {
    STANDARD.decode(value).map_err(|_| Malformed)
}

/// Commas cannot occur: attributes were split at them.
pub(super) fn printable(nonce: &str) -> Result<&str, Malformed> {
    let is_printable = nonce.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    if is_printable && !nonce.is_empty() { Ok(nonce) } else { Err(Malformed) }
}

fn is_binding_name(name: &str) -> bool {
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    !name.is_empty() && name.bytes().all(is_name_byte)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn client_first_is_taken_apart() {
        let first = ClientFirst::parse(b"p=tls-exporter,a=ann=40=2C=3D,n=b=2Co=3Db,r=a=b,x=1=2");
        assert_eq!(first.unwrap_err(), Malformed, "=40 is no escape");

        let first =
            ClientFirst::parse(b"p=tls-exporter,a=ann=2C=3D,n=b=2Co=3Db,r=a=b,x=1=2").unwrap();
        assert_eq!(first.flag, BindingFlag::Used("tls-exporter"));
        assert_eq!(first.gs2_header, "p=tls-exporter,a=ann=2C=3D,");
        assert_eq!(first.authzid.as_deref(), Some("ann,="));
        assert_eq!(first.username, "b,o=b");
        assert_eq!(first.nonce, "a=b");
        assert_eq!(first.bare, "n=b=2Co=3Db,r=a=b,x=1=2");
    }

    #[test]
    fn malformed_client_first_is_refused() {
        let malformed: [&[u8]; 36] = [
            b"",
            b",",
            b",,",
            b"n",
            b"n,",
            b"n,,",
            b"N,,n=user,r=abc",
            b"x,,n=user,r=abc",
            b"n=,,n=user,r=abc",
            b"yy,,n=user,r=abc",
            b"p,,n=user,r=abc",
            b"p=,,n=user,r=abc",
            b"p=tls exporter,,n=user,r=abc",
            b"p=a=b,,n=user,r=abc",
            b"n,n=user,r=abc",
            b"n,b=x,n=user,r=abc",
            b"n,a=,n=user,r=abc",
            b"n,a=a=,n=user,r=abc",
            b"n,,m=ext,n=user,r=abc",
            b"n,,n=user,r=abc,m=ext",
            b"n,,n=user",
            b"n,,r=abc",
            b"n,,r=abc,n=user",
            b"n,,n=,r=abc",
            b"n,,n=user,r=",
            b"n,,n=user,r=a c",
            b"n,,n=user,r=\xc3\xa9",
            b"n,,n=us\0er,r=abc",
            b"n,,n=us\xffer,r=abc",
            b"n,,n=us=2cer,r=abc",
            b"n,,n=us=er,r=abc",
            b"n,,n=user=,r=abc",
            b"n,,n=user,r=abc,",
            b"n,,n=user,r=abc,x=",
            b"n,,n=user,r=abc,xy=1",
            b"n,,n=user,r=abc,r=abc",
        ];
        for message in malformed {
            let shown = String::from_utf8_lossy(message);
            assert_eq!(ClientFirst::parse(message).unwrap_err(), Malformed, "{shown}");
        }
        let long = format!("n,,n=user,r={}", "x".repeat(MESSAGE_BYTES_MAX));
        assert!(ClientFirst::parse(long.as_bytes()).is_err());
    }

    #[test]
    fn malformed_client_final_is_refused() {
        assert!(ClientFinal::parse(b"c=biws,r=abc,x=y,p=AAAA").is_ok());
        let malformed: [&[u8]; 20] = [
            b"",
            b"c=biws",
            b"c=biws,r=abc",
            b"r=abc,c=biws,p=AAAA",
            b"c=biws,p=AAAA",
            b"c=biws,p=AAAA,r=abc",
            b"c=biws,r=abc,p=AAAA,x=y",
            b"c=biws,r=abc,p=",
            b"c=biws,r=abc,p=AAA",
            b"c=biws,r=abc,p=AAAA=",
            b"c=biws,r=abc,p=AB==",
            b"c=biws,r=abc,p=AA AA",
            b"c=biws,r=abc,p=AAAA,p=AAAA",
            b"c=,r=abc,p=AAAA",
            b"c=biw,r=abc,p=AAAA",
            b"c=bi-_,r=abc,p=AAAA",
            b"c=biws,r=,p=AAAA",
            b"c=biws,r=abc,m=x,p=AAAA",
            b"c=biws,r=abc,,p=AAAA",
            b"c=biws,r=abc\0,p=AAAA",
        ];
        for message in malformed {
            let shown = String::from_utf8_lossy(message);
            assert!(ClientFinal::parse(message).is_err(), "{shown}");
        }
    }

    #[test]
    fn malformed_server_messages_are_refused() {
        assert!(ServerFirst::parse(b"r=abc,s=QSXC,i=4096,x=1").is_ok());
        let malformed: [&[u8]; 11] = [
            b"",
            b"r=abc,s=QSXC",
            b"s=QSXC,r=abc,i=4096",
            b"m=x,r=abc,s=QSXC,i=4096",
            b"r=abc,s=,i=4096",
            b"r=abc,s=QSX,i=4096",
            b"r=abc,s=QSXC,i=",
            b"r=abc,s=QSXC,i=0",
            b"r=abc,s=QSXC,i=+4096",
            b"r=abc,s=QSXC,i=04096",
            b"r=abc,s=QSXC,i=99999999999",
        ];
        for message in malformed {
            let shown = String::from_utf8_lossy(message);
            assert!(ServerFirst::parse(message).is_err(), "{shown}");
        }
        assert!(matches!(ServerFinal::parse(b"v=AAAA"), Ok(ServerFinal::Verifier(_))));
        assert!(matches!(ServerFinal::parse(b"e=other-error"), Ok(ServerFinal::Error(_))));
        let malformed: [&[u8]; 5] = [b"", b"v=", b"v=AAA", b"x=AAAA", b"v=AAAA,"];
        for message in malformed {
            assert!(ServerFinal::parse(message).is_err());
        }
    }

    #[test]
    fn escape_and_unescape_agree() {
        for name in ["user", "a,b", "a=b", "=2C", ",,==", "=", "\u{E9},"] {
            let escaped = escape(name);
            assert!(!escaped.contains(','));
            assert_eq!(unescape(&escaped).unwrap(), name);
        }
    }
}
