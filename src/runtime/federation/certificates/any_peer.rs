//! A verifier that takes any certificate, for both sides of a handshake, and what a handshake failed of.

use super::{parse, weak_key};
use crate::federation::trust::ChainProblem;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, DistinguishedName, OtherError,
    SignatureScheme,
};
use std::sync::Arc;

/// Takes any certificate whose key the peer has, on both sides of a handshake.
#[derive(Debug)]
pub struct AnyPeer {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyPeer {
    pub fn new(provider: &CryptoProvider) -> Arc<AnyPeer> {
        Arc::new(AnyPeer { algorithms: provider.signature_verification_algorithms })
    }
}

/// - errors: for a key that proves nothing
fn take(certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
    let parsed = parse(certificate).ok_or(CertificateError::BadEncoding)?;
    match weak_key(&parsed) {
        Some(bits) => {
            let weak = OtherError(Arc::new(WeakKey { bits }));
            Err(CertificateError::Other(weak).into())
        }
        None => Ok(()),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("RSA key of {bits} bits")]
struct WeakKey {
    bits: u32,
}

impl ServerCertVerifier for AnyPeer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        take(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for AnyPeer {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a server sends what it has, whoever signed it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        take(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why a handshake with another server failed, for who operates this one.
pub fn explain(error: &rustls::Error) -> String {
    use rustls::Error;
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            match other.0.downcast_ref::<WeakKey>() {
                Some(weak) => ChainProblem::WeakKey { bits: weak.bits }.to_string(),
                None => format!("the peer's certificate is not accepted: {other}"),
            }
        }
        Error::InvalidCertificate(CertificateError::BadEncoding) => {
            ChainProblem::Malformed.to_string()
        }
        Error::InvalidCertificate(CertificateError::BadSignature) => {
            "the peer does not have the key of the certificate that it shows".to_owned()
        }
        Error::InvalidMessage(_) => "what the peer says is not TLS".to_owned(),
        Error::PeerIncompatible(why) => {
            format!("no version, cipher or key exchange of TLS is common to both ({why:?})")
        }
        Error::NoApplicationProtocol
        | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the peer does not speak xmpp-server over direct TLS (ALPN)".to_owned()
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "the peer refuses our versions of TLS".to_owned()
        }
        Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            "the peer has no certificate for the domain (SNI)".to_owned()
        }
        Error::AlertReceived(
            why @ (AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRequired
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied),
        ) => format!("the peer does not accept our certificate ({why:?})"),
        Error::AlertReceived(why) => format!("the peer ended the handshake ({why:?})"),
        other => other.to_string(),
    }
}
