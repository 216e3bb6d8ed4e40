//! EXTERNAL (RFC 4422 appendix A) with the certificate of the client, as XEP-0178 §2 uses it: the certificate says who
//! one may be, the message who of them one is. That the certificate holds, the handshake has found.

use super::SaslFailure;
use crate::xmpp::jid::BareJid;

/// Whether a certificate with these addresses is of any use at `domain`.
pub fn is_external_offered(addresses: &[BareJid], domain: &str) -> bool {
    at(addresses, domain).next().is_some()
}

/// Whom the client is to be, by its certificate and its only message.
///
/// - takes: `addresses` of the certificate, each once; `domain` of the stream; `message`, an authorization identity or
///   nothing
/// - errors: `InvalidAuthzid` for an identity that is not among the addresses at `domain`, and for none where there are
///   several; `NotAuthorized` where there is none; `MalformedRequest` for what is no text
/// - source: XEP-0178 §2, RFC 6120 §6.3.8
pub fn external_identity(
    addresses: &[BareJid],
    domain: &str,
    message: &[u8],
) -> Result<BareJid, SaslFailure> {
    let authzid = std::str::from_utf8(message).map_err(|_| SaslFailure::MalformedRequest)?;
    if authzid.contains('\0') {
        return Err(SaslFailure::MalformedRequest);
    }
    let mut here = at(addresses, domain);
    if authzid.is_empty() {
        return match (here.next(), here.next()) {
            (Some(only), None) => Ok(only.clone()),
            (Some(_), Some(_)) => Err(SaslFailure::InvalidAuthzid),
            (None, _) => Err(SaslFailure::NotAuthorized),
        };
    }
    let named = BareJid::parse(authzid).map_err(|_| SaslFailure::InvalidAuthzid)?;
    here.find(|address| **address == named).cloned().ok_or(SaslFailure::InvalidAuthzid)
}

fn at<'a>(addresses: &'a [BareJid], domain: &'a str) -> impl Iterator<Item = &'a BareJid> {
    addresses.iter().filter(move |address| address.domain() == domain && address.local().is_some())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn identity(addresses: &[&str], message: &[u8]) -> Result<String, SaslFailure> {
        let addresses: Vec<_> = addresses.iter().map(|it| BareJid::parse(it).unwrap()).collect();
        external_identity(&addresses, "here", message).map(|jid| jid.as_str().to_owned())
    }

    #[test]
    fn only_address_at_the_domain_needs_no_name() {
        let alice = Ok("alice@here".to_owned());
        assert_eq!(identity(&["alice@here"], b""), alice);
        assert_eq!(identity(&["alice@there", "alice@here"], b""), alice);
        assert_eq!(identity(&["alice@here"], b"alice@here"), alice);
        assert_eq!(identity(&["alice@here"], b"Alice@HERE"), alice, "prepared before comparison");
        assert_eq!(identity(&["alice@there", "here"], b""), Err(SaslFailure::NotAuthorized));
    }

    #[test]
    fn one_of_several_must_be_named() {
        let both = &["alice@here", "bob@here"];
        assert_eq!(identity(both, b"bob@here").unwrap(), "bob@here");
        assert_eq!(identity(both, b""), Err(SaslFailure::InvalidAuthzid));
    }

    #[test]
    fn name_is_one_of_the_addresses_at_the_domain() {
        let shown = &["alice@here", "alice@there", "here"];
        for other in ["bob@here", "alice@there", "here", "alice", "alice@here/phone", "@", "a@b@c"]
        {
            let refused = identity(shown, other.as_bytes());
            assert_eq!(refused, Err(SaslFailure::InvalidAuthzid), "{other}");
        }
        for text in [&b"\xff"[..], b"alice@here\0", b"\0"] {
            assert_eq!(identity(shown, text), Err(SaslFailure::MalformedRequest));
        }
    }

    #[test]
    fn offered_where_the_domain_is_among_the_addresses() {
        let shown = [BareJid::parse("alice@there").unwrap(), BareJid::parse("here").unwrap()];
        assert!(is_external_offered(&shown, "there"));
        assert!(!is_external_offered(&shown, "here"), "no account has the address of a server");
        assert!(!is_external_offered(&[], "here"));
    }
}
