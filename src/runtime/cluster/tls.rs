//! TLS of the links: version 1.3 only, both sides with certificates of the cluster's own authority.
//!
//! Nothing is handed out: the authority's Ed25519 key comes from the cluster's secret, so each node computes it, makes a
//! key of its own when it starts, and certifies itself under its name. So a peer has the secret, or it gets no further
//! than the handshake. Certificates tell nodes apart that are set up wrongly; they do not bind a node that has the secret
//! and lies. They are good from a day before the node's start, as clocks differ, for ten years, as there is nothing to
//! renew them but another start.
//!
//! A handshake cannot be replayed: there are no tickets, no resumption and no early data.

use crate::base::instant::Wall;
use crate::cluster::secret::{Label, Secret};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, date_time_ymd,
};
use ring::digest::{SHA256, digest};
use rustls::client::{Resumption, verify_server_name};
use rustls::crypto::ring as provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::sync::Arc;
use std::time::Duration;

/// Told apart from all that might be spoken on that port.
const ALPN: &[u8] = b"corefire-link";
/// RFC 8410 §7: a PKCS #8 structure of an Ed25519 key, up to its 32 bytes.
const PKCS8_ED25519: &[u8; 16] =
    b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const BACKDATED: Duration = Duration::from_secs(86_400);
const GOOD_FOR: Duration = Duration::from_secs(10 * 366 * 86_400);

/// Both sides of the links of one node.
#[derive(Clone, Debug)]
pub(super) struct LinkTls {
    pub(super) server: Arc<ServerConfig>,
    pub(super) client: Arc<ClientConfig>,
}

/// The certificates could not be made: a fault of ours or of the libraries.
#[derive(Debug, thiserror::Error)]
pub enum LinkTlsError {
    #[error("the certificate for links to other nodes cannot be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS for links to other nodes cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    #[error("TLS for links to other nodes cannot check certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("the name of this node cannot stand in a certificate")]
    Name,
}

impl LinkTls {
    /// - takes: the name of this node
    pub(super) fn new(secret: &Secret, name: &str, now: Wall) -> Result<LinkTls, LinkTlsError> {
        let (authority, anchor) = authority(secret)?;
        let mut roots = RootCertStore::empty();
        roots.add(anchor)?;
        let roots = Arc::new(roots);
        let (leaf, key) = leaf(&authority, name, now)?;
        let provider = Arc::new(provider::default_provider());

        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![leaf.clone()], key.clone_key())?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![leaf], key)?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        Ok(LinkTls { server: Arc::new(server), client: Arc::new(client) })
    }
}

/// The name by which a node's certificate is known. Digits of its digest, as a node's name may be longer than a label and
/// have any letters.
pub(super) fn server_name(name: &str) -> String {
    let digest = digest(&SHA256, name.as_bytes());
    let digits: String = digest.as_ref()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits}.node.invalid")
}

/// As `server_name`, for a dialler.
pub(super) fn expected_name(name: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(server_name(name)).ok()
}

/// Whether a certificate (whose chain was verified) is that of the node with this name.
pub(super) fn names(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Some(expected) = expected_name(name) else { return false };
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| verify_server_name(&parsed, &expected).is_ok())
}

/// The key and a certificate of the authority. The key and the name are the same at every node; that is all that counts of
/// a trust anchor.
fn authority(
    secret: &Secret,
) -> Result<(Issuer<'static, KeyPair>, CertificateDer<'static>), LinkTlsError> {
    let der = [&PKCS8_ED25519[..], &secret.derive(Label::Authority)].concat();
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    let cluster = secret.derive(Label::Cluster);
    let id: String = cluster[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = common_name(&format!("Corefire cluster {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let certificate = params.self_signed(&key)?;
    Ok((Issuer::new(params, key), certificate.der().clone()))
}

fn leaf(
    authority: &Issuer<'static, KeyPair>,
    name: &str,
    now: Wall,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), LinkTlsError> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut params = CertificateParams::new(vec![server_name(name)])?;
    params.distinguished_name = common_name(&server_name(name));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let start = Duration::from_micros(now.0).saturating_sub(BACKDATED);
    // Beyond the year 9999 no certificate can be written.
    let start = start.min(Duration::from_secs(200_000_000_000));
    params.not_before = date_time_ymd(1970, 1, 1) + start;
    params.not_after = params.not_before + GOOD_FOR;
    let certificate = params.signed_by(&key, authority)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok((certificate.der().clone(), key))
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use rustls::{ClientConnection, Connection, ServerConnection};
    use std::time::SystemTime;

    fn secret(letter: char) -> Secret {
        Secret::new(&format!("{letter}7Zq0b1Vh2JtLxYw9cPmN4sKdRfGe8aQ6oTiB3yXz5E")).unwrap()
    }

    fn now() -> Wall {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Wall(u64::try_from(since.as_micros()).unwrap())
    }

    fn at(secret: &Secret, name: &str, shifted_s: i64) -> LinkTls {
        LinkTls::new(secret, name, Wall(now().0.saturating_add_signed(shifted_s * 1_000_000)))
            .unwrap()
    }

    /// Both sides after their handshake, or the first error.
    fn meet(
        client: &LinkTls,
        name: &str,
        server: &LinkTls,
    ) -> Result<(Connection, Connection), rustls::Error> {
        let mut client: Connection =
            ClientConnection::new(client.client.clone(), expected_name(name).unwrap())?.into();
        let mut server: Connection = ServerConnection::new(server.server.clone())?.into();
        for _ in 0..8 {
            for from_client in [true, false] {
                let (one, other) = if from_client {
                    (&mut client, &mut server)
                } else {
                    (&mut server, &mut client)
                };
                let mut bytes = Vec::new();
                while one.wants_write() {
                    one.write_tls(&mut bytes).unwrap();
                }
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    other.read_tls(&mut rest).unwrap();
                    other.process_new_packets()?;
                }
            }
        }
        assert!(!client.is_handshaking() && !server.is_handshaking());
        Ok((client, server))
    }

    #[test]
    fn nodes_of_one_secret_meet_by_name_whatever_it_is() {
        let long = "a node with a very long name, blanks, and ümlauts ".repeat(5);
        let (one, two) = (at(&secret('a'), "one", 0), at(&secret('a'), &long, 0));
        let (client, server) = meet(&one, &long, &two).unwrap();
        let leaf = |connection: &Connection| connection.peer_certificates().unwrap()[0].clone();
        assert!(names(&leaf(&server), "one") && !names(&leaf(&server), &long));
        assert!(names(&leaf(&client), &long) && !names(&leaf(&client), "one"));
        assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }

    #[test]
    fn another_secret_or_another_name_is_refused() {
        let (one, two) = (at(&secret('a'), "one", 0), at(&secret('b'), "two", 0));
        assert!(matches!(meet(&one, "two", &two), Err(rustls::Error::InvalidCertificate(_))));
        let other = at(&secret('a'), "three", 0);
        assert!(matches!(meet(&one, "two", &other), Err(rustls::Error::InvalidCertificate(_))));
        // Who trusts the server but has no certificate of the cluster.
        let mut stranger = at(&secret('a'), "one", 0);
        let (authority, _) = authority(&secret('b')).unwrap();
        let (leaf, key) = leaf(&authority, "one", now()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(super::authority(&secret('a')).unwrap().1).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut client = builder.clone().with_client_auth_cert(vec![leaf], key).unwrap();
        client.alpn_protocols = vec![ALPN.to_vec()];
        stranger.client = Arc::new(client);
        let server = at(&secret('a'), "two", 0);
        assert!(matches!(
            meet(&stranger, "two", &server),
            Err(rustls::Error::InvalidCertificate(_))
        ));
        let mut client = builder.with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        stranger.client = Arc::new(client);
        assert_eq!(
            meet(&stranger, "two", &server).err(),
            Some(rustls::Error::NoCertificatesPresented)
        );
    }

    #[test]
    fn clocks_may_be_hours_apart() {
        let one = at(&secret('a'), "one", 0);
        for hours in [-20, -1, 1, 20] {
            let other = at(&secret('a'), "two", hours * 3600);
            meet(&one, "two", &other).unwrap();
            meet(&other, "one", &one).unwrap();
        }
        let far = at(&secret('a'), "two", 48 * 3600);
        assert!(matches!(meet(&one, "two", &far), Err(rustls::Error::InvalidCertificate(_))));
    }

    #[test]
    fn other_versions_of_tls_are_not_spoken() {
        let (one, two) = (at(&secret('a'), "one", 0), at(&secret('a'), "two", 0));
        let mut old = one.clone();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(authority(&secret('a')).unwrap().1).unwrap();
        let mut client = builder.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![ALPN.to_vec()];
        old.client = Arc::new(client);
        assert!(matches!(meet(&old, "two", &two), Err(rustls::Error::PeerIncompatible(_))));
        let mut other = one;
        let mut client = (*other.client).clone();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        other.client = Arc::new(client);
        assert_eq!(meet(&other, "two", &two).err(), Some(rustls::Error::NoApplicationProtocol));
    }
}
