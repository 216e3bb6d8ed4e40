//! Whom a client's certificate names: the XMPP addresses among its subject's alternative names (RFC 6120 §13.7.1.4). That
//! it can be trusted is for the handshake to find.

use crate::xmpp::jid::BareJid;
use x509_parser::asn1_rs::{Error as Asn1Error, FromDer, Oid, TaggedExplicit, Utf8String, oid};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;

/// id-on-xmppAddr
const XMPP_ADDRESS: Oid<'static> = oid!(1.3.6.1.5.5.7.8.5);

/// Addresses that a certificate may name. One with more is no person's, and none of them is taken.
const ADDRESSES_MAX: usize = 16;

/// The bare addresses in a certificate, each once.
///
/// - takes: DER of an end-entity certificate whose chain and signature hold
/// - gives: none where it is not valid now: a session that a ticket resumes is not verified again
/// - source: RFC 6120 §13.7.1.4
pub(super) fn addresses(certificate: &[u8]) -> Box<[BareJid]> {
    let Ok((_, certificate)) = <X509Certificate as FromDer<X509Error>>::from_der(certificate)
    else {
        return Box::default();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Box::default() };
    if !certificate.validity().is_valid() {
        return Box::default();
    }
    let mut found: Vec<BareJid> = Vec::new();
    for name in &names.value.general_names {
        let GeneralName::OtherName(kind, value) = name else { continue };
        let Some(address) = (*kind == XMPP_ADDRESS).then(|| address(value)).flatten() else {
            continue;
        };
        if found.contains(&address) {
            continue;
        }
        if found.len() == ADDRESSES_MAX {
            return Box::default();
        }
        found.push(address);
    }
    found.into()
}

/// - takes: the explicitly tagged value of an `otherName`
fn address(value: &[u8]) -> Option<BareJid> {
    let (rest, text) = TaggedExplicit::<Utf8String<'_>, Asn1Error, 0>::from_der(value).ok()?;
    let text = text.into_inner();
    rest.is_empty().then(|| BareJid::parse(&text.string()).ok()).flatten()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    const OID: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 8, 5];

    fn other_name(oid: &[u64], text: &str) -> SanType {
        SanType::OtherName((oid.to_vec(), text.to_owned().into()))
    }

    fn made(names: Vec<SanType>, change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        change(&mut params);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn found(names: Vec<SanType>) -> Vec<String> {
        addresses(&made(names, |_| ())).iter().map(|jid| jid.as_str().to_owned()).collect()
    }

    #[test]
    fn addresses_are_prepared_and_each_is_given_once() {
        let names = ["Alice@Example.ORG", "alice@example.org", "bob@example.net", "example.org"];
        let names = names.iter().map(|name| other_name(&OID, name)).collect();
        assert_eq!(found(names), ["alice@example.org", "bob@example.net", "example.org"]);
    }

    #[test]
    fn what_is_no_address_of_xmpp_is_passed_over() {
        let user_principal_name = [1, 3, 6, 1, 4, 1, 311, 20, 2, 3];
        let names = vec![
            SanType::Rfc822Name("mail@example.org".try_into().unwrap()),
            SanType::DnsName("example.org".try_into().unwrap()),
            other_name(&user_principal_name, "upn@example.org"),
            other_name(&OID, "no address@"),
            other_name(&OID, "alice@example.org/phone"),
            other_name(&OID, ""),
            other_name(&OID, "alice@example.org"),
        ];
        assert_eq!(found(names), ["alice@example.org"]);
        assert!(found(Vec::new()).is_empty());
    }

    #[test]
    fn certificate_with_too_many_addresses_names_nobody() {
        let names = |count: usize| {
            (0..count).map(|number| other_name(&OID, &format!("u{number}@here"))).collect()
        };
        assert_eq!(found(names(ADDRESSES_MAX)).len(), ADDRESSES_MAX);
        assert!(found(names(ADDRESSES_MAX + 1)).is_empty());
    }

    #[test]
    fn certificate_names_nobody_before_and_after_its_time() {
        let alice = || vec![other_name(&OID, "alice@here")];
        let expired = made(alice(), |params| params.not_after = rcgen::date_time_ymd(2001, 1, 1));
        assert!(addresses(&expired).is_empty());
        let early = made(alice(), |params| params.not_before = rcgen::date_time_ymd(4000, 1, 1));
        assert!(addresses(&early).is_empty());
    }

    proptest! {
        #[test]
        fn damaged_certificates_are_read_without_a_panic(
            changes in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8),
            length in any::<usize>(),
        ) {
            static WHOLE: std::sync::LazyLock<Vec<u8>> =
                std::sync::LazyLock::new(|| made(vec![other_name(&OID, "alice@here")], |_| ()));
            let mut bytes = WHOLE.clone();
            for (place, byte) in changes {
                let place = place % bytes.len();
                bytes[place] = byte;
            }
            addresses(&bytes);
            addresses(&bytes[..length % bytes.len()]);
        }
    }
}
