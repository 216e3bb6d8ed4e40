//! Until when a server's certificate is good.

use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::FromDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;

/// What an operator must know of a chain before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expiry {
    /// Seconds since the Unix epoch, when the first certificate of the chain expires.
    pub at_s: i64,
    /// Nobody vouches for it.
    pub is_self_signed: bool,
}

/// `None` for what cannot be read, and would not have served TLS.
pub(super) fn expiry(chain: &[CertificateDer<'_>]) -> Option<Expiry> {
    let mut first: Option<Expiry> = None;
    for der in chain {
        let (_, one) = <X509Certificate as FromDer<X509Error>>::from_der(der).ok()?;
        let at_s = one.validity().not_after.timestamp();
        let is_self_signed = one.subject() == one.issuer();
        first = Some(match first {
            // The server's own stands first; a root behind it signs itself by right.
            Some(known) => Expiry { at_s: known.at_s.min(at_s), ..known },
            None => Expiry { at_s, is_self_signed },
        });
    }
    first
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

    #[test]
    fn a_chain_is_good_until_its_first_certificate_expires() {
        let mut above = CertificateParams::new(vec!["ca.example".into()]).unwrap();
        above.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        above.distinguished_name.push(rcgen::DnType::CommonName, "an authority");
        above.not_after = date_time_ymd(2027, 1, 1);
        let above_key = KeyPair::generate().unwrap();
        let root = above.self_signed(&above_key).unwrap();
        let mut leaf = CertificateParams::new(vec!["example.org".into()]).unwrap();
        leaf.not_after = date_time_ymd(2030, 1, 1);
        let issuer = Issuer::new(above, above_key);
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let [root, leaf] = [root.der().clone(), leaf.der().clone()];
        // From `date -u -d 2027-01-01 +%s` and 2030-01-01.
        let (in_2027, in_2030) = (1_798_761_600, 1_893_456_000);
        let one = |chain: &[CertificateDer<'_>]| expiry(chain).unwrap();
        let alone = one(std::slice::from_ref(&leaf));
        assert_eq!(alone, Expiry { at_s: in_2030, is_self_signed: false });
        let chain = one(&[leaf, root.clone()]);
        assert_eq!(chain, Expiry { at_s: in_2027, is_self_signed: false });
        assert_eq!(one(&[root]), Expiry { at_s: in_2027, is_self_signed: true });
        assert_eq!(expiry(&[CertificateDer::from(vec![1, 2, 3])]), None);
        assert_eq!(expiry(&[]), None);
    }
}
