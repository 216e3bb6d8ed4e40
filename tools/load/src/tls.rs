//! TLS from the client's side. Certificates are not verified: what is measured is our own server, mostly self-signed.

use std::sync::Arc;

use ring::digest;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, ring as provider, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, SignatureScheme,
};

use crate::Error;
use crate::scram::Binding;

/// How a connection is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Tls {
    #[default]
    None,
    /// RFC 6120 §5, where the server offers it.
    Offered,
    /// RFC 6120 §5.
    Starttls,
    /// From the first byte (XEP-0368).
    Direct,
}

/// Takes every certificate, but checks that the peer holds its key.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Channel binding of a connection: `tls-exporter` (RFC 9266) or `tls-server-end-point` (RFC 5929 §4).
pub(crate) fn binding(connection: &ClientConnection, name: &str) -> Option<Binding> {
    match name {
        // Of TLS 1.2 only with extended master secrets, which is not looked into here.
        "tls-exporter" if connection.protocol_version() == Some(ProtocolVersion::TLSv1_3) => {
            let data = connection.export_keying_material(
                vec![0; 32],
                b"EXPORTER-Channel-Binding",
                Some(&[]),
            );
            Some(Binding { name: "tls-exporter", data: data.ok()? })
        }
        "tls-server-end-point" => {
            let certificate = connection.peer_certificates()?.first()?;
            let algorithm = match signature_hash(certificate)? {
                384 => &digest::SHA384,
                512 => &digest::SHA512,
                _ => &digest::SHA256,
            };
            let data = digest::digest(algorithm, certificate).as_ref().to_vec();
            Some(Binding { name: "tls-server-end-point", data })
        }
        _ => None,
    }
}

/// Bits of the hash in a certificate's signature algorithm; 256 for older ones and those that name none.
fn signature_hash(certificate: &[u8]) -> Option<u32> {
    // Certificate ::= SEQUENCE { tbsCertificate SEQUENCE, signatureAlgorithm SEQUENCE { OID, … }, … } (RFC 5280 §4.1).
    let (_, inside) = value(certificate)?;
    let (tbs, _) = value(inside)?;
    let (_, algorithm) = value(inside.get(tbs..)?)?;
    let (_, name) = value(algorithm)?;
    Some(match name {
        // 1.2.840.113549.1.1.{12,13}: sha384 and sha512 with RSA.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] => 384,
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13] => 512,
        // 1.2.840.10045.4.3.{3,4}: ecdsa with SHA384 and SHA512.
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => 384,
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => 512,
        _ => 256,
    })
}

/// The first DER element: its whole length, and its content.
fn value(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (header, length) = match *bytes.get(1)? {
        short @ 0..=0x7f => (2, usize::from(short)),
        long @ 0x81..=0x84 => {
            let count = usize::from(long & 0x7f);
            let digits = bytes.get(2..2 + count)?;
            let length = digits.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
            (2 + count, length)
        }
        _ => return None,
    };
    Some((header + length, bytes.get(header..header + length)?))
}

/// A configuration without resumption, so that each login pays for a full handshake.
pub(crate) fn client_config() -> Result<Arc<ClientConfig>, Error> {
    let provider = provider::default_provider();
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider.clone()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Config(format!("TLS: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_certificate_is_that_of_its_signature() {
        let certificate = |algorithm: &[u8]| {
            let element = |tag: u8, content: &[u8]| [&[tag, content.len() as u8], content].concat();
            let algorithm = element(0x30, &element(6, algorithm));
            element(0x30, &[element(0x30, &[5; 100]), algorithm].concat())
        };
        let ecdsa384 = [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3];
        let rsa256 = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11];
        assert_eq!(signature_hash(&certificate(&ecdsa384)), Some(384));
        assert_eq!(signature_hash(&certificate(&rsa256)), Some(256));
        assert_eq!(signature_hash(&[0x30, 0x85]), None);
        assert_eq!(value(&[4, 0x82, 1, 0]), None);
        assert_eq!(value(&[4, 0x81, 2, 8, 9, 7]), Some((5, &[8, 9][..])));
    }
}
