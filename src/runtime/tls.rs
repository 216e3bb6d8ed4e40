//! rustls, fed with bytes: certificates per domain, tickets, and one small state per connection.

use super::certificate_expiry::expiry;
use super::client_certificate;
use crate::admin::figures::CertificateFigures;
use crate::stream::TlsFacts;
use crate::stream::sasl::tls_server_end_point;
use rustls::crypto::ring as provider;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{Connection, RootCertStore, ServerConfig, ServerConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

/// ALPN of XMPP over direct TLS (XEP-0368 §2).
const ALPN_CLIENT: &[u8] = b"xmpp-client";
/// Label of RFC 9266.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// Plain text that one connection may have sealed and not sent.
const SEALED_MAX: usize = 64 << 10;

/// Certificates by domain, with one for everybody else, and who may certify clients.
#[derive(Debug)]
pub struct Certificates {
    hosts: BTreeMap<String, Arc<Certificate>>,
    fallback: Arc<Certificate>,
    client_ca: Option<Arc<RootCertStore>>,
}

#[derive(Debug)]
struct Certificate {
    key: Arc<CertifiedKey>,
    end_point: Option<Arc<[u8]>>,
}

impl Certificate {
    fn new(key: CertifiedKey) -> Arc<Self> {
        let end_point = key.cert.first().and_then(|first| tls_server_end_point(first));
        Arc::new(Self { key: Arc::new(key), end_point: end_point.map(Into::into) })
    }
}

impl Certificates {
    /// - takes: `client_ca`, without which no client is asked for a certificate
    pub fn new(
        fallback: CertifiedKey,
        hosts: BTreeMap<String, CertifiedKey>,
        client_ca: Option<RootCertStore>,
    ) -> Arc<Self> {
        let hosts = hosts.into_iter().map(|(host, key)| (host, Certificate::new(key))).collect();
        let client_ca = client_ca.map(Arc::new);
        Arc::new(Self { hosts, fallback: Certificate::new(fallback), client_ca })
    }

    fn of(&self, name: Option<&str>) -> &Arc<Certificate> {
        name.and_then(|name| self.own(name)).unwrap_or(&self.fallback)
    }

    /// - takes: a domain, as it stands in addresses or in A-labels
    fn own(&self, name: &str) -> Option<&Arc<Certificate>> {
        let known = self.hosts.get(name);
        known.or_else(|| self.hosts.get(&idna::domain_to_unicode(name).0))
    }

    /// The certificate for the first of `names` that has one of its own.
    pub(super) fn key(&self, names: &[&str]) -> Arc<CertifiedKey> {
        let own = names.iter().find_map(|name| self.own(name));
        own.unwrap_or(&self.fallback).key.clone()
    }
}

impl PartialEq for Certificates {
    /// The same chains for the same names, and the same clients; keys fit their certificates.
    fn eq(&self, other: &Self) -> bool {
        let same = |one: &Certificate, other: &Certificate| one.key.cert == other.key.cert;
        let roots = |it: &Self| it.client_ca.as_ref().map(|store| store.roots.clone());
        same(&self.fallback, &other.fallback)
            && roots(self) == roots(other)
            && self.hosts.len() == other.hosts.len()
            && self
                .hosts
                .iter()
                .zip(&other.hosts)
                .all(|((name, one), (other_name, other))| name == other_name && same(one, other))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.of(hello.server_name()).key.clone())
    }
}

/// What the TLS listeners of a node share. Cloned to every core.
#[derive(Clone)]
pub struct TlsServer {
    config: Arc<ServerConfig>,
    direct: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
}

impl TlsServer {
    /// TLS 1.2 and 1.3, tickets, no early data. A client may show a certificate where there is a CA for them; one that does
    /// not verify ends the handshake.
    pub fn new(certificates: Arc<Certificates>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(provider::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = match &certificates.client_ca {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(certificates.clone());
        config.ticketer = provider::Ticketer::new()?;
        config.send_tls13_tickets = 1;
        // RFC 9266 binds to TLS 1.2 only where the master secret is bound to the handshake.
        config.require_ems = true;
        let mut direct = config.clone();
        direct.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
        Ok(Self { config: Arc::new(config), direct: Arc::new(direct), certificates })
    }

    /// - `direct`: the handshake is the first thing on the connection, so ALPN is spoken
    pub fn accept(&self, direct: bool) -> Result<Tls, rustls::Error> {
        let config = if direct { &self.direct } else { &self.config };
        let certificates = Some(self.certificates.clone());
        Ok(Tls { certificates, ..Tls::of(ServerConnection::new(config.clone())?.into()) })
    }

    /// Until when the certificates are good that clients of these domains are shown, and of other names with one of
    /// their own.
    pub fn expiries(&self, domains: &[String]) -> Vec<CertificateFigures> {
        let names: BTreeSet<&String> =
            domains.iter().chain(self.certificates.hosts.keys()).collect();
        let figures = |domain: &String| {
            let expiry = expiry(&self.certificates.of(Some(domain)).key.cert)?;
            Some(CertificateFigures {
                domain: domain.clone(),
                expires_s: expiry.at_s,
                self_signed: expiry.is_self_signed,
            })
        };
        names.into_iter().filter_map(figures).collect()
    }

    pub fn certificates(&self) -> &Arc<Certificates> {
        &self.certificates
    }

    /// Tickets go with their certificates: a client that resumed would take a renewed one for the one it knows.
    pub fn has(&self, certificates: &Certificates) -> bool {
        *self.certificates == *certificates
    }
}

/// One connection's TLS, at either end. Moves between cores with its socket.
pub struct Tls {
    connection: Box<Connection>,
    /// Among which the handshake chooses; others may be in use when it ends.
    certificates: Option<Arc<Certificates>>,
}

/// The peer broke TLS.
#[derive(Debug)]
pub struct TlsBroken(pub rustls::Error);

impl TlsBroken {
    pub(super) fn because(why: impl Display) -> TlsBroken {
        TlsBroken(rustls::Error::General(why.to_string()))
    }
}

impl Tls {
    pub(super) fn of(mut connection: Connection) -> Tls {
        connection.set_buffer_limit(Some(SEALED_MAX));
        Tls { connection: Box::new(connection), certificates: None }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The hello was answered, which is the costly part of a handshake.
    pub fn has_exchanged_keys(&self) -> bool {
        self.connection.negotiated_key_exchange_group().is_some()
    }

    /// What channel binding, EXTERNAL and the stream may know of a finished handshake. Once.
    pub fn facts(&mut self) -> TlsFacts {
        let mut material = [0; 32];
        let exported =
            self.connection.export_keying_material(&mut material, EXPORTER_LABEL, None).is_ok();
        let server_name = self.server_name().map(str::to_owned);
        let end_point = self
            .certificates
            .take()
            .and_then(|certificates| certificates.of(server_name.as_deref()).end_point.clone());
        let shown = self.connection.peer_certificates().and_then(<[_]>::first);
        let addresses = shown.map(|first| client_certificate::addresses(first));
        TlsFacts {
            exporter: exported.then_some(material),
            end_point,
            server_name,
            addresses: addresses.unwrap_or_default(),
        }
    }

    /// The name that the peer asked for, where we are the server.
    pub(super) fn server_name(&self) -> Option<&str> {
        match &*self.connection {
            Connection::Server(server) => server.server_name(),
            Connection::Client(_) => None,
        }
    }

    /// Takes bytes off the wire; gives how many were taken. Plain text waits for `read`.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<usize, TlsBroken> {
        let mut rest = bytes;
        // Reading from memory cannot fail; zero bytes taken means that plain text must be read first.
        let taken = self.connection.read_tls(&mut rest).map_err(TlsBroken::because)?;
        self.connection.process_new_packets().map_err(TlsBroken)?;
        Ok(taken)
    }

    /// Plain text that has arrived; `None` where none waits now. `Some(0)`: the peer ended its side.
    pub fn read(&mut self, into: &mut [u8]) -> Option<usize> {
        self.connection.reader().read(into).ok()
    }

    /// Seals as much of `plain` as may wait; gives how much.
    pub fn seal(&mut self, plain: &[u8]) -> usize {
        self.connection.writer().write(plain).unwrap_or(0)
    }

    /// Moves sealed records to `out`.
    pub fn take_sealed(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            if self.connection.write_tls(out).is_err() {
                return;
            }
        }
    }

    /// Says goodbye; `take_sealed` has the bytes.
    pub fn close(&mut self) {
        self.connection.send_close_notify();
    }
}

/// A self-signed ECDSA certificate and its key, in PEM, for `domains`.
pub fn self_signed(domains: &[String]) -> Result<(String, String), rcgen::Error> {
    // Names that a certificate cannot carry as they are go in as IDNA A-labels.
    let names = domains
        .iter()
        .map(|domain| idna::domain_to_ascii(domain).unwrap_or_else(|_| domain.clone()))
        .collect::<Vec<_>>();
    let made = rcgen::generate_simple_self_signed(names)?;
    Ok((made.cert.pem(), made.signing_key.serialize_pem()))
}

/// Writes a file that only this user may read.
pub fn write_private(path: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}
