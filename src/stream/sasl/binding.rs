//! Channel binding: what ties a SCRAM login to the TLS connection below it, so that one in the middle with a
//! certificate of its own cannot pass the login on (RFC 5056, RFC 5929, RFC 9266, XEP-0440).

use ring::digest;

/// Exported keying material of the connection (RFC 9266).
pub const TLS_EXPORTER: &str = "tls-exporter";
/// Hash of the server's certificate (RFC 5929 §4): all that a client behind a TLS terminator can check.
pub const TLS_SERVER_END_POINT: &str = "tls-server-end-point";

/// The bindings of one connection; empty without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelBinding {
    /// 32 bytes exported with the label `EXPORTER-Channel-Binding` and no context. Set only on TLS 1.3, or on TLS 1.2
    /// with the extended master secret and no renegotiation (RFC 9266 §3, §4.2).
    pub tls_exporter: Option<[u8; 32]>,
    /// What `tls_server_end_point` gives for the certificate that this connection was shown.
    pub tls_server_end_point: Option<Vec<u8>>,
}

impl ChannelBinding {
    /// Whether the -PLUS mechanisms can be offered.
    pub fn is_available(&self) -> bool {
        self.types().next().is_some()
    }

    /// Names of the bindings at hand, stronger first: the children of `<sasl-channel-binding/>` (XEP-0440 §2).
    pub fn types(&self) -> impl Iterator<Item = &'static str> {
        let exporter = self.tls_exporter.is_some().then_some(TLS_EXPORTER);
        let end_point = self.tls_server_end_point.is_some().then_some(TLS_SERVER_END_POINT);
        exporter.into_iter().chain(end_point)
    }

    /// The binding's data; `None` for a type that is unknown or not at hand here.
    pub fn data(&self, name: &str) -> Option<&[u8]> {
        match name {
            TLS_EXPORTER => self.tls_exporter.as_ref().map(|data| data.as_slice()),
            TLS_SERVER_END_POINT => self.tls_server_end_point.as_deref(),
            _ => None,
        }
    }
}

/// The `tls-server-end-point` binding of a certificate.
///
/// - takes: the certificate in DER, the first of the chain
/// - gives: its hash by the hash of its signature algorithm, SHA-256 in place of MD5 and SHA-1; `None` where the
///   algorithm names no single hash (Ed25519, RSASSA-PSS) or the bytes are no certificate: RFC 5929 leaves those
///   without a binding
/// - source: RFC 5929 §4.1
pub fn tls_server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (certificate_body, rest) = take_der(certificate, DER_SEQUENCE)?;
    if !rest.is_empty() {
        return None;
    }
    let (_to_be_signed, rest) = take_der(certificate_body, DER_SEQUENCE)?;
    let (algorithm, _signature) = take_der(rest, DER_SEQUENCE)?;
    let (object_id, _parameters) = take_der(algorithm, DER_OBJECT_ID)?;
    let hash = match object_id {
        MD5_WITH_RSA | SHA1_WITH_RSA | ECDSA_WITH_SHA1 | SHA256_WITH_RSA | ECDSA_WITH_SHA256 => {
            &digest::SHA256
        }
        SHA384_WITH_RSA | ECDSA_WITH_SHA384 => &digest::SHA384,
        SHA512_WITH_RSA | ECDSA_WITH_SHA512 => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(hash, certificate).as_ref().to_vec())
}

const DER_SEQUENCE: u8 = 0x30;
const DER_OBJECT_ID: u8 = 0x06;

// Object identifiers in their DER form: 1.2.840.113549.1.1.N (PKCS #1) and 1.2.840.10045.4.N (X9.62).
const MD5_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x04];
const SHA1_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05];
const SHA256_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
const SHA384_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c];
const SHA512_WITH_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d];
const ECDSA_WITH_SHA1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_WITH_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
const ECDSA_WITH_SHA512: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04];

/// The contents of the element at the front, which must have that tag, and what follows it.
fn take_der(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, first], rest) = bytes.split_first_chunk()?;
    if found != tag {
        return None;
    }
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // A certificate is no larger than a TLS handshake message allows: 2^24 bytes.
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(len)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn certificate(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn end_point_is_the_certificate_under_the_hash_of_its_signature() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        let wanted = digest::digest(&digest::SHA256, &der);
        assert_eq!(tls_server_end_point(&der).unwrap(), wanted.as_ref());

        let der = certificate(&rcgen::PKCS_ECDSA_P384_SHA384);
        let wanted = digest::digest(&digest::SHA384, &der);
        assert_eq!(tls_server_end_point(&der).unwrap(), wanted.as_ref());
    }

    #[test]
    fn certificate_without_a_single_hash_has_no_end_point() {
        assert_eq!(tls_server_end_point(&certificate(&rcgen::PKCS_ED25519)), None);
    }

    #[test]
    fn cut_certificate_has_no_end_point() {
        let der = certificate(&rcgen::PKCS_ECDSA_P256_SHA256);
        for len in 0..der.len() {
            assert_eq!(tls_server_end_point(&der[..len]), None, "cut at {len}");
        }
        let longer = [der.as_slice(), b"\0"].concat();
        assert_eq!(tls_server_end_point(&longer), None);
    }

    #[test]
    fn types_are_those_at_hand_stronger_first() {
        let mut binding = ChannelBinding::default();
        assert!(!binding.is_available());
        binding.tls_server_end_point = Some(vec![1; 32]);
        assert_eq!(binding.types().collect::<Vec<_>>(), [TLS_SERVER_END_POINT]);
        binding.tls_exporter = Some([2; 32]);
        assert_eq!(binding.types().collect::<Vec<_>>(), [TLS_EXPORTER, TLS_SERVER_END_POINT]);
        assert_eq!(binding.data(TLS_EXPORTER), Some([2; 32].as_slice()));
        assert_eq!(binding.data(TLS_SERVER_END_POINT), Some([1; 32].as_slice()));
        assert_eq!(binding.data("tls-unique"), None);
    }
}
