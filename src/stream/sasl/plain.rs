//! PLAIN (RFC 4616): the password itself, under TLS.

use super::{MESSAGE_BYTES_MAX, SaslFailure, saslprep};

/// A parsed PLAIN message. The password is overwritten when it is dropped, as far as that can be promised without
/// control of every copy; it never shows in `Debug`.
#[derive(PartialEq, Eq)]
pub struct Plain {
    /// The identity to act as, as sent; the caller compares it with the account. `None` when left empty.
    pub authzid: Option<String>,
    /// The identity that the password belongs to, prepared as by `peek_username`.
    pub authcid: String,
    /// As sent: `derive` and `verify_plain` prepare it.
    pub password: String,
}

impl Plain {
    /// Takes the message apart.
    ///
    /// - errors: `MalformedRequest` unless there are two NULs, a name and a password in UTF-8, within
    ///   `MESSAGE_BYTES_MAX`; `NotAuthorized` for a name that SASLprep refuses
    /// - source: RFC 4616 §2
    pub fn parse(message: &[u8]) -> Result<Plain, SaslFailure> {
        let parts = Parts::parse(message)?;
        Ok(Plain {
            authzid: (!parts.authzid.is_empty()).then(|| parts.authzid.to_owned()),
            authcid: parts.prepared_authcid()?,
            password: parts.password.to_owned(),
        })
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        let mut password = std::mem::take(&mut self.password).into_bytes();
        password.fill(0);
        // Without a reader the writes above would be dropped as useless.
        std::hint::black_box(&password);
    }
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plain {{ authzid: {:?}, authcid: {:?}, .. }}", self.authzid, self.authcid)
    }
}

/// The name in a PLAIN message, without a copy of its password.
pub(super) fn peek(message: &[u8]) -> Result<String, SaslFailure> {
    Parts::parse(message)?.prepared_authcid()
}

struct Parts<'a> {
    authzid: &'a str,
    authcid: &'a str,
    password: &'a str,
}

impl<'a> Parts<'a> {
    fn parse(message: &'a [u8]) -> Result<Parts<'a>, SaslFailure> {
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(SaslFailure::MalformedRequest);
        }
        let text = std::str::from_utf8(message).map_err(|_| SaslFailure::MalformedRequest)?;
        let mut parts = text.split('\0');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(authzid), Some(authcid), Some(password), None)
                if !authcid.is_empty() && !password.is_empty() =>
            {
                Ok(Parts { authzid, authcid, password })
            }
            _ => Err(SaslFailure::MalformedRequest),
        }
    }

    fn prepared_authcid(&self) -> Result<String, SaslFailure> {
        let prepared = saslprep::prepare_query(self.authcid).ok_or(SaslFailure::NotAuthorized)?;
        Ok(prepared.into_owned())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// RFC 4616 §4.
    #[test]
    fn examples_of_the_rfc_parse() {
        let plain = Plain::parse(b"\0tim\0tanstaaftanstaaf").unwrap();
        assert_eq!(plain.authzid, None);
        assert_eq!(plain.authcid, "tim");
        assert_eq!(plain.password, "tanstaaftanstaaf");

        let plain = Plain::parse(b"Ursel\0Kurt\0xipj3plmq").unwrap();
        assert_eq!(plain.authzid.as_deref(), Some("Ursel"));
        assert_eq!(plain.authcid, "Kurt");
    }

    #[test]
    fn malformed_message_is_refused() {
        let long = [b"\0a\0".as_slice(), &[b'x'; MESSAGE_BYTES_MAX]].concat();
        let malformed: [&[u8]; 11] = [
            b"",
            b"\0",
            b"\0\0",
            b"tim",
            b"\0tim",
            b"\0tim\0",
            b"\0\0password",
            b"\0tim\0pass\0",
            b"\0tim\0pass\0word",
            b"\0t\xffm\0password",
            &long,
        ];
        for message in malformed {
            assert_eq!(Plain::parse(message).unwrap_err(), SaslFailure::MalformedRequest);
            assert_eq!(peek(message).unwrap_err(), SaslFailure::MalformedRequest);
        }
    }

    #[test]
    fn name_is_prepared_and_a_name_that_cannot_be_is_not_authorized() {
        let message = "\0I\u{AD}X\0pass\u{AD}word".as_bytes();
        let plain = Plain::parse(message).unwrap();
        assert_eq!(plain.authcid, "IX");
        assert_eq!(plain.password, "pass\u{AD}word");
        assert_eq!(peek(message).unwrap(), "IX");
        for name in ["\u{7}", "\u{AD}"] {
            let message = format!("\0{name}\0password");
            assert_eq!(Plain::parse(message.as_bytes()), Err(SaslFailure::NotAuthorized));
        }
    }

    #[test]
    fn password_does_not_show_in_debug() {
        let plain = Plain::parse(b"\0tim\0tanstaaf").unwrap();
        assert!(!format!("{plain:?}").contains("tanstaaf"));
    }
}
