//! TLS with other servers, as either end: which certificate of ours is shown, and what is known of the peer afterwards.
//!
//! A handshake takes any certificate whose key the peer has, since a server without a valid one may still prove its name by
//! calling back (XEP-0220). What the certificate is worth is found by `certificates` and judged by the actor. Sessions are not
//! resumed: streams between servers last, and a ticket would spare a look at the certificate.

use super::certificates::{AnyPeer, Trust};
use crate::federation::discovery::Target;
use crate::federation::{ClientTls, PeerTls, TlsVersion};
use crate::runtime::tls::{Certificates, Tls};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, ring as provider};
use rustls::pki_types::ServerName;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, Error, ProtocolVersion, ServerConfig, ServerConnection,
    SignatureScheme, SupportedProtocolVersion,
};
use std::sync::Arc;

/// ALPN of streams between servers over direct TLS (XEP-0368 §2).
const ALPN_SERVER: &[u8] = b"xmpp-server";

/// What all TLS with other servers shares. Cloned to every federation core.
#[derive(Clone)]
pub struct FederationTls {
    own: Arc<Certificates>,
    trust: Trust,
    any: Arc<AnyPeer>,
    provider: Arc<CryptoProvider>,
}

impl FederationTls {
    /// - takes: our certificates, shown to clients as well; who is trusted to certify other servers
    pub fn new(own: Arc<Certificates>, trust: Trust) -> FederationTls {
        let provider = Arc::new(provider::default_provider());
        let any = AnyPeer::new(&provider);
        FederationTls { own, trust, any, provider }
    }

    /// The server's end of a connection that another server has made.
    ///
    /// - `to`: the domain that its stream is for, where that was said
    /// - `direct`: the handshake is the first thing on the connection, so ALPN is spoken
    pub(super) fn accept(
        &self,
        to: Option<&str>,
        oldest: TlsVersion,
        direct: bool,
    ) -> Result<Tls, Error> {
        let shown = OwnServer { own: self.own.clone(), to: to.map(Into::into) };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions(oldest))?
            .with_client_cert_verifier(self.any.clone())
            .with_cert_resolver(Arc::new(shown));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        if direct {
            config.alpn_protocols = vec![ALPN_SERVER.to_vec()];
        }
        Ok(Tls::of(ServerConnection::new(Arc::new(config))?.into()))
    }

    /// The client's end of a connection that we have made.
    ///
    /// - `direct`: as for `accept`
    /// - errors: the domain is no name of the DNS
    pub(super) fn connect(&self, client: &ClientTls, direct: bool) -> Result<Tls, Error> {
        let shown = OwnClient(self.own.key(&[&client.own]));
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(versions(client.oldest))?
            .dangerous()
            .with_custom_certificate_verifier(self.any.clone())
            .with_client_cert_resolver(Arc::new(shown));
        config.resumption = Resumption::disabled();
        if direct {
            config.alpn_protocols = vec![ALPN_SERVER.to_vec()];
        }
        let name = server_name(&client.domain)?;
        Ok(Tls::of(ClientConnection::new(Arc::new(config), name)?.into()))
    }

    /// What a finished handshake says of the peer.
    ///
    /// - `target`: where we went, if it was we who connected
    /// - cost: the signatures of the certificate's chain are verified
    pub(super) fn peer(&self, tls: &Tls, target: Option<&Target>) -> PeerTls {
        let connection = tls.connection();
        let is_client = matches!(connection, rustls::Connection::Server(_));
        let chain = connection.peer_certificates();
        PeerTls {
            version: match connection.protocol_version() {
                Some(ProtocolVersion::TLSv1_3) => TlsVersion::Tls13,
                _ => TlsVersion::Tls12,
            },
            alpn: connection.alpn_protocol() == Some(ALPN_SERVER),
            server_name: tls.server_name().map(str::to_owned),
            certificate: chain.and_then(|chain| self.trust.certificate(chain, is_client, target)),
            posh: None,
        }
    }
}

fn versions(oldest: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match oldest {
        TlsVersion::Tls12 => &BOTH,
        TlsVersion::Tls13 => &BOTH[..1],
    }
}

/// - takes: a domain as it stands in addresses; an IP address without its brackets, or with them
fn server_name(domain: &str) -> Result<ServerName<'static>, Error> {
    let plain = domain.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = plain.parse::<std::net::IpAddr>() {
        return Ok(ServerName::IpAddress(address.into()));
    }
    let fault = |_| Error::General(format!("{domain} is no name of the DNS"));
    let name = idna::domain_to_ascii(domain).map_err(|_| fault(()))?;
    ServerName::try_from(name).map_err(|_| fault(()))
}

/// As server: the certificate of the domain that the peer asks for (SNI), or that its stream is for.
#[derive(Debug)]
struct OwnServer {
    own: Arc<Certificates>,
    to: Option<Box<str>>,
}

impl ResolvesServerCert for OwnServer {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let names: Vec<&str> =
            [hello.server_name(), self.to.as_deref()].into_iter().flatten().collect();
        Some(self.own.key(&names))
    }
}

/// As client: the certificate of the domain that the stream is from, whoever the server says that it trusts.
#[derive(Debug)]
struct OwnClient(Arc<CertifiedKey>);

impl ResolvesClientCert for OwnClient {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
