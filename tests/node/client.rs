//! A small XMPP client that blocks: plain sockets and rustls, one step after the other.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use corefire::stream::sasl::client::plain;
use rustls::client::WantsClientCert;
use rustls::crypto::ring as provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, HandshakeKind, ProtocolVersion, RootCertStore,
    StreamOwned,
};

use crate::node::Node;

/// Longer than anything here takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const HEADER: &str = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";
pub(crate) const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
pub(crate) const SHUTDOWN: &str = "<system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>";

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// Between the two.
    None,
}

/// One connection, and what it has received and nobody has asked for.
pub(crate) struct Client {
    wire: Wire,
    received: Vec<u8>,
}

impl Client {
    /// Connects, and says nothing.
    pub(crate) fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        Client::over(socket)
    }

    /// Whether the node ends a connection that begins with `bytes` without a word, however soon.
    #[track_caller]
    pub(crate) fn is_refused(socket: std::io::Result<TcpStream>, bytes: &[u8]) -> bool {
        let Ok(mut socket) = socket else { return true };
        socket.set_read_timeout(Some(PATIENCE)).unwrap_or_default();
        let mut answer = [0; 1];
        match socket.write_all(bytes).and_then(|()| socket.read(&mut answer)) {
            Ok(length) => length == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    pub(crate) fn over(socket: TcpStream) -> Client {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Client { wire: Wire::Plain(socket), received: Vec::new() }
    }

    /// Connects to the port for direct TLS (XEP-0368) and opens a stream.
    pub(crate) fn direct(node: &Node) -> Client {
        let mut client = Client::connect(node.direct);
        client.shake_hands(config(&node.certificate(), &[b"xmpp-client"]));
        client
    }

    /// Connects, opens a stream and changes over to TLS.
    pub(crate) fn starttls(node: &Node) -> Client {
        let mut client = Client::connect(node.plain);
        client.open();
        client.send(STARTTLS);
        client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        client.shake_hands(config(&node.certificate(), &[]));
        client
    }

    /// A session of `user`, whose password is `password`, at its resource `r`.
    pub(crate) fn log_in(node: &Node, user: &str, password: &str) -> Client {
        let mut client = Client::starttls(node);
        client.open();
        client.authenticate(user, password);
        client.expect("<success");
        client.bind();
        client
    }

    /// As `log_in`, with acknowledgements (XEP-0198).
    pub(crate) fn acked(node: &Node, user: &str, password: &str) -> Client {
        let mut client = Client::log_in(node, user, password);
        client.send("<enable xmlns='urn:xmpp:sm:3'/>");
        client.expect("<enabled ");
        client
    }

    /// After `<success/>`: a new stream, and the resource `r`.
    pub(crate) fn bind(&mut self) {
        self.open();
        self.send(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>",
        );
        self.expect("</jid>");
        self.expect("</iq>");
    }

    #[track_caller]
    pub(crate) fn shake_hands(&mut self, config: ClientConfig) {
        self.try_shake_hands("localhost", config).unwrap();
    }

    /// - takes: `domain`, whose certificate the node shall show
    /// - errors: among others, what is wrong with the one that it shows
    pub(crate) fn try_shake_hands(
        &mut self,
        domain: &str,
        config: ClientConfig,
    ) -> std::io::Result<()> {
        let Wire::Plain(mut socket) = std::mem::replace(&mut self.wire, Wire::None) else {
            panic!("TLS within TLS");
        };
        assert_eq!(self.received, b"", "nothing is said before the handshake");
        let name = ServerName::try_from(domain.to_owned()).unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        self.wire = Wire::Tls(Box::new(StreamOwned::new(tls, socket)));
        Ok(())
    }

    pub(crate) fn alpn(&self) -> Option<Vec<u8>> {
        self.tls().alpn_protocol().map(<[u8]>::to_vec)
    }

    pub(crate) fn version(&self) -> Option<ProtocolVersion> {
        self.tls().protocol_version()
    }

    /// Whether the handshake went on with an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.tls().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// What binds a login to this connection (RFC 9266).
    pub(crate) fn exporter(&self) -> [u8; 32] {
        let label = b"EXPORTER-Channel-Binding";
        self.tls().export_keying_material([0; 32], label, None).unwrap()
    }

    fn tls(&self) -> &ClientConnection {
        match &self.wire {
            Wire::Tls(tls) => &tls.conn,
            _ => panic!("no TLS here"),
        }
    }

    /// Opens a stream; gives what came up to the end of the features.
    pub(crate) fn open(&mut self) -> String {
        self.open_at("localhost")
    }

    /// As `open`, at that domain of the node.
    pub(crate) fn open_at(&mut self, domain: &str) -> String {
        self.send(&HEADER.replace("'localhost'", &format!("'{domain}'")));
        self.expect("</stream:features>")
    }

    /// SASL PLAIN.
    pub(crate) fn authenticate(&mut self, user: &str, password: &str) {
        let message = BASE64.encode(plain("", user, password));
        self.auth("PLAIN", &message);
    }

    pub(crate) fn auth(&mut self, mechanism: &str, message: &str) {
        self.send(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{message}</auth>"
        ));
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.try_send(text).unwrap();
    }

    pub(crate) fn try_send(&mut self, text: &str) -> std::io::Result<()> {
        match &mut self.wire {
            Wire::Plain(socket) => socket.write_all(text.as_bytes()),
            Wire::Tls(tls) => tls.write_all(text.as_bytes()).and_then(|()| tls.flush()),
            Wire::None => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// Receives up to `wanted` and gives all before and with it.
    #[track_caller]
    pub(crate) fn expect(&mut self, wanted: &str) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.received).into_owned();
            if let Some(at) = text.find(wanted) {
                let end = at + wanted.len();
                self.received.drain(..end);
                return text[..end].to_owned();
            }
            match self.receive() {
                Ok(0) => panic!("the stream ended before {wanted}, after: {text}"),
                Ok(_) => {}
                Err(error) => panic!("{error} instead of {wanted}, after: {text}"),
            }
        }
    }

    /// As `expect`; `None` where the stream ends before.
    pub(crate) fn try_expect(&mut self, wanted: &str) -> Option<String> {
        loop {
            let text = String::from_utf8_lossy(&self.received).into_owned();
            if let Some(at) = text.find(wanted) {
                let end = at + wanted.len();
                self.received.drain(..end);
                return Some(text[..end].to_owned());
            }
            if !matches!(self.receive(), Ok(length) if length > 0) {
                return None;
            }
        }
    }

    /// Receives until the peer has closed its side.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) -> String {
        loop {
            match self.receive() {
                Ok(0) => break,
                Ok(_) => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    panic!("no end of: {}", String::from_utf8_lossy(&self.received))
                }
                // Reset, or cut without a goodbye: an end too.
                Err(_) => break,
            }
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.received)).into_owned()
    }

    /// Whether anything arrives within `span`.
    pub(crate) fn is_answered_within(&mut self, span: Duration) -> bool {
        self.socket().set_read_timeout(Some(span)).unwrap();
        let answered = matches!(self.receive(), Ok(length) if length > 0);
        self.socket().set_read_timeout(Some(PATIENCE)).unwrap();
        answered
    }

    /// The socket itself, to do as one pleases with.
    pub(crate) fn into_socket(self) -> TcpStream {
        match self.wire {
            Wire::Plain(socket) => socket,
            Wire::Tls(tls) => tls.sock,
            Wire::None => panic!("no connection"),
        }
    }

    fn socket(&self) -> &TcpStream {
        match &self.wire {
            Wire::Plain(socket) => socket,
            Wire::Tls(tls) => &tls.sock,
            Wire::None => panic!("no connection"),
        }
    }

    fn receive(&mut self) -> std::io::Result<usize> {
        let mut buffer = [0; 16 << 10];
        let length = loop {
            let read = match &mut self.wire {
                Wire::Plain(socket) => socket.read(&mut buffer),
                Wire::Tls(tls) => tls.read(&mut buffer),
                Wire::None => Ok(0),
            };
            match read {
                // Of a read with a time-out, where the process was stopped and goes on.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.received.extend_from_slice(&buffer[..length]);
        Ok(length)
    }

    /// A round trip: what was sent before it has been handled.
    pub(crate) fn ping(&mut self, id: &str) {
        self.ping_at("localhost", id);
    }

    /// As `ping`, of that domain of the node.
    #[track_caller]
    pub(crate) fn ping_at(&mut self, domain: &str, id: &str) {
        self.send(&format!(
            "<iq type='get' id='{id}' to='{domain}'><ping xmlns='urn:xmpp:ping'/></iq>"
        ));
        let answer = self.expect(&format!("id='{id}'"));
        assert!(!answer.contains("type='error'"), "{answer}");
    }
}

/// Trusts the certificate of the node, for its name.
pub(crate) fn config(certificate: &Path, alpn: &[&[u8]]) -> ClientConfig {
    let mut config = trusting(certificate).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// As `config`, before it is said whether the client shows a certificate.
pub(crate) fn trusting(certificate: &Path) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
}
