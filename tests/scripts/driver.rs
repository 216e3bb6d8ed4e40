//! What a conversation is held with: connections to a server, whatever it is.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::certificates::{Authority, showing};
use crate::client::config;

/// Everybody's.
pub(crate) const PASSWORD: &str = "secret";

const ALPN: &[u8] = b"xmpp-client";

pub(crate) type Conn = usize;

pub(crate) enum Event {
    Bytes(Vec<u8>),
    Closed,
}

pub(crate) enum Way {
    /// On which passwords may be told.
    Plain,
    Tls,
    /// TLS with a client certificate for this address.
    Certificate(String),
    /// To where components come in.
    Component,
}

pub(crate) trait Driver {
    fn domain(&self) -> &str;

    fn connect(&mut self, way: &Way) -> Result<Conn, String>;

    /// What a login can be bound to, on a connection over TLS (RFC 9266).
    fn exporter(&self, conn: Conn) -> Option<[u8; 32]>;

    /// To a connection that has ended: nothing.
    fn send(&mut self, conn: Conn, bytes: &[u8]);

    /// What happens next on any connection; waits for `wait` where something may still happen.
    fn next(&mut self, wait: Duration) -> Option<(Conn, Event)>;

    fn cut(&mut self, conn: Conn);

    fn advance(&mut self, span: Duration) -> Result<(), String>;
}

/// TCP to a running server, a reading thread for each connection.
pub(crate) struct Sockets {
    addresses: Addresses,
    domain: String,
    open: BTreeMap<Conn, Wire>,
    count: usize,
    tell: Sender<(Conn, Event)>,
    events: Receiver<(Conn, Event)>,
}

/// Where a server listens.
#[derive(Clone)]
pub(crate) struct Addresses {
    /// For clients, without TLS.
    pub(crate) plain: SocketAddr,
    pub(crate) components: Option<SocketAddr>,
    pub(crate) tls: Option<Arc<Tls>>,
}

/// Direct TLS (XEP-0368).
pub(crate) struct Tls {
    pub(crate) address: SocketAddr,
    /// The server's.
    pub(crate) certificate: PathBuf,
    /// Who certifies its clients.
    pub(crate) authority: Authority,
}

struct Wire {
    socket: TcpStream,
    tls: Option<Arc<Mutex<ClientConnection>>>,
}

impl Sockets {
    pub(crate) fn new(addresses: Addresses, domain: &str) -> Sockets {
        let (tell, events) = channel();
        Sockets {
            addresses,
            domain: domain.to_owned(),
            open: BTreeMap::new(),
            count: 0,
            tell,
            events,
        }
    }

    fn wire(&self, way: &Way) -> Result<Wire, String> {
        let dial = |address: SocketAddr| {
            TcpStream::connect_timeout(&address, Duration::from_secs(10))
                .and_then(|socket| socket.set_nodelay(true).map(|()| socket))
                .map_err(|error| format!("{address}: {error}"))
        };
        let (tls, config) = match (way, &self.addresses.tls) {
            (Way::Plain, _) => return dial(self.addresses.plain).map(Wire::plain),
            (Way::Component, _) => {
                let address = self.addresses.components.ok_or("no component may connect")?;
                return dial(address).map(Wire::plain);
            }
            (_, None) => return Err("this server is not asked for TLS".into()),
            (Way::Tls, Some(tls)) => (tls, config(&tls.certificate, &[ALPN])),
            (Way::Certificate(address), Some(tls)) => {
                (tls, showing(&tls.certificate, &tls.authority, address, &[ALPN]))
            }
        };
        let mut socket = dial(tls.address)?;
        let name = ServerName::try_from(self.domain.clone()).map_err(|error| error.to_string())?;
        let mut tls =
            ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).map_err(|error| error.to_string())?;
        }
        Ok(Wire { socket, tls: Some(Arc::new(Mutex::new(tls))) })
    }
}

impl Wire {
    fn plain(socket: TcpStream) -> Wire {
        Wire { socket, tls: None }
    }
}

/// What the bytes of the socket hold, once TLS is taken off; nothing at its end.
fn opened(tls: &Mutex<ClientConnection>, socket: &TcpStream, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut tls = tls.lock().ok()?;
    let (mut rest, mut text, mut buffer) = (bytes, Vec::new(), [0; 16 << 10]);
    while !rest.is_empty() {
        tls.read_tls(&mut rest).ok()?;
        tls.process_new_packets().ok()?;
        while let Ok(length @ 1..) = tls.reader().read(&mut buffer) {
            text.extend_from_slice(&buffer[..length]);
        }
    }
    while tls.wants_write() {
        tls.write_tls(&mut &*socket).ok()?;
    }
    Some(text)
}

impl Driver for Sockets {
    fn domain(&self) -> &str {
        &self.domain
    }

    fn connect(&mut self, way: &Way) -> Result<Conn, String> {
        let wire = self.wire(way)?;
        let mut reading = wire.socket.try_clone().map_err(|error| error.to_string())?;
        let (conn, tell, tls) = (self.count, self.tell.clone(), wire.tls.clone());
        self.count += 1;
        std::thread::spawn(move || {
            let mut buffer = [0; 16 << 10];
            // What came together with the end of the handshake is there already.
            let mut next = tls.as_ref().and_then(|tls| opened(tls, &reading, &[]));
            loop {
                if let Some(text) = next.take().filter(|text| !text.is_empty()) {
                    let _ = tell.send((conn, Event::Bytes(text)));
                }
                let Ok(length @ 1..) = reading.read(&mut buffer) else { break };
                next = match &tls {
                    None => Some(buffer[..length].to_vec()),
                    Some(tls) => opened(tls, &reading, &buffer[..length]),
                };
                if next.is_none() {
                    break;
                }
            }
            let _ = tell.send((conn, Event::Closed));
        });
        self.open.insert(conn, wire);
        Ok(conn)
    }

    fn exporter(&self, conn: Conn) -> Option<[u8; 32]> {
        let tls = self.open.get(&conn)?.tls.as_ref()?.lock().ok()?;
        tls.export_keying_material([0; 32], b"EXPORTER-Channel-Binding", None).ok()
    }

    fn send(&mut self, conn: Conn, bytes: &[u8]) {
        let Some(Wire { socket, tls }) = self.open.get(&conn) else { return };
        let mut socket = socket;
        // What fails here is told by the reading thread.
        let Some(tls) = tls else {
            let _ = socket.write_all(bytes);
            return;
        };
        let Ok(mut tls) = tls.lock() else { return };
        let _ = tls.writer().write_all(bytes);
        while tls.wants_write() && tls.write_tls(&mut socket).is_ok() {}
    }

    fn next(&mut self, wait: Duration) -> Option<(Conn, Event)> {
        self.events.recv_timeout(wait).ok()
    }

    fn cut(&mut self, conn: Conn) {
        if let Some(wire) = self.open.remove(&conn) {
            let _ = wire.socket.shutdown(Shutdown::Both);
        }
    }

    fn advance(&mut self, _: Duration) -> Result<(), String> {
        Err("time passes only in simulation: add `only simulated: REASON`".into())
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // Ends the threads.
        for wire in self.open.values() {
            let _ = wire.socket.shutdown(Shutdown::Both);
        }
    }
}
