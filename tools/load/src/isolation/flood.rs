//! What other servers do to a federation core: connections that begin handshakes and dialback without end, from sixteen
//! networks, and thousands of domains that a user writes to and that nobody answers for.
//!
//! Nothing of it reaches a shard: no pair of domains is ever proved. Connections are bounded by the threads that make them,
//! and their time by `Flood::end`. A fixed ClientHello costs us nothing to say again, and the server a key exchange and a
//! signature each time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::hostile::attacks::{HEADER, expect, plain_auth};
use crate::hostile::dial;
use crate::tls::client_config;
use crate::{Error, sys};

/// Threads that connect, and the connections that each has at a time.
const VISITORS: u64 = 4;
const AT_A_TIME: u64 = 16;
/// Of so many connections one goes on to dialback; even, so that it is one with TLS from the first byte.
const WHOLE: u64 = 16;
const NETWORKS: u64 = 16;
/// Of so many dead domains one has a DNS server that says nothing, which keeps a dial waiting for seconds.
const SILENT: u32 = 500;
/// Messages before an acknowledgement is waited for.
const LETTERS: u32 = 500;
const PATIENCE: Duration = Duration::from_secs(60);

const S2S_HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
    xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback' from='visitor.test' \
    to='localhost' version='1.0'>";
const STARTTLS: &[u8] = b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

pub(super) struct Flood {
    domains: u32,
    visits: bool,
    core: usize,
    socket: UdpSocket,
    dns: SocketAddr,
    stop: AtomicBool,
}

/// How a visitor speaks TLS.
struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    hello: Vec<u8>,
}

impl Tls {
    fn new() -> Result<Self, Error> {
        let mut config = (*client_config()?).clone();
        config.alpn_protocols = vec![b"xmpp-server".to_vec()];
        let fault = |what: String| Error::Config(format!("TLS: {what}"));
        let name = ServerName::try_from("localhost").map_err(|error| fault(error.to_string()))?;
        let mut tls = Self { config: Arc::new(config), name, hello: Vec::new() };
        let mut hello = Vec::new();
        let mut connection = tls.connection().map_err(|error| fault(error.to_string()))?;
        connection.write_tls(&mut hello).map_err(|error| fault(error.to_string()))?;
        tls.hello = hello;
        Ok(tls)
    }

    fn connection(&self) -> Result<ClientConnection, rustls::Error> {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone())
    }
}

impl Flood {
    /// - takes: how many domains are dead, whether others connect, and the core that all this runs on
    pub(super) fn new(domains: u32, visits: bool, core: usize) -> Result<Self, Error> {
        let bound = || -> std::io::Result<(UdpSocket, SocketAddr)> {
            let socket = UdpSocket::bind(("127.0.0.1", 0))?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        };
        let (socket, dns) = bound().map_err(|error| Error::Io("a DNS server", error))?;
        Ok(Self { domains, visits, core, socket, dns, stop: AtomicBool::new(false) })
    }

    /// Where its DNS server is.
    pub(super) fn dns(&self) -> SocketAddr {
        self.dns
    }

    pub(super) fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Begins, and returns when the server has all messages to the dead domains.
    pub(super) fn begin<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        clients: SocketAddr,
        password: &str,
        servers: [SocketAddr; 2],
    ) -> Result<(), Error> {
        scope.spawn(|| {
            self.move_in();
            self.serve_dns();
        });
        let written = self.write_to_the_dead(clients, password);
        // Its threads must not outlive a failure.
        let written = written.inspect_err(|_| self.end())?;
        // The writer stays, or what comes back would be stored for it.
        scope.spawn(move || {
            while self.goes_on() {
                std::thread::sleep(Duration::from_millis(50));
            }
            drop(written);
        });
        if self.visits {
            let tls = Arc::new(Tls::new().inspect_err(|_| self.end())?);
            for visitor in 0..VISITORS {
                let tls = Arc::clone(&tls);
                scope.spawn(move || {
                    self.move_in();
                    self.visit(&tls, visitor, servers);
                });
            }
        }
        Ok(())
    }

    /// To the federation's core. Not behind the federation: it is to have work at all times.
    fn move_in(&self) {
        // Where it fails, the figures of the cores show it.
        let _ = sys::set_affinity(&[self.core]);
    }

    fn visit(&self, tls: &Tls, visitor: u64, [starttls, direct_tls]: [SocketAddr; 2]) {
        let mut number = visitor;
        while self.goes_on() {
            let mut visits = Vec::new();
            for _ in 0..AT_A_TIME {
                number += VISITORS;
                let third = 1 + u8::try_from(number % NETWORKS).unwrap_or(0);
                let from = Ipv4Addr::new(127, 0, third, 1);
                let is_direct = (number / VISITORS).is_multiple_of(2);
                let Ok(mut socket) = dial(if is_direct { direct_tls } else { starttls }, from)
                else {
                    continue;
                };
                let whole = (number / VISITORS).is_multiple_of(WHOLE);
                let said: &[u8] = match (is_direct, whole) {
                    (true, true) => b"",
                    (true, false) => &tls.hello,
                    (false, _) => S2S_HEADER.as_bytes(),
                };
                if socket.write_all(said).is_ok() {
                    visits.push((socket, is_direct, whole));
                }
            }
            for (socket, is_direct, _) in &mut visits {
                let _ = !*is_direct && ask_for_tls(socket, &tls.hello).is_some();
            }
            for (mut socket, _, whole) in visits {
                if whole {
                    let _ = dialback(socket, tls, number);
                } else {
                    // The server has answered, which is what costs it.
                    let _ = socket.read(&mut [0]);
                }
            }
        }
    }

    /// A user writes to each dead domain once.
    fn write_to_the_dead(&self, clients: SocketAddr, password: &str) -> Result<TcpStream, Error> {
        let io = |error| Error::Io("writing to dead domains", error);
        let refused = || Error::Server("did not let the writer in".to_owned());
        let mut socket = dial(clients, Ipv4Addr::LOCALHOST).map_err(io)?;
        let mut say = |said: &str, wanted: &str| {
            socket.write_all(said.as_bytes()).map_err(io)?;
            expect(&mut socket, wanted).ok_or_else(refused)
        };
        say(HEADER, "</stream:features>")?;
        say(&plain_auth("writer", password), "<success")?;
        say(HEADER, "</stream:features>")?;
        say(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>",
            "</iq>",
        )?;
        // Acknowledged messages are kept until their domains are given up, which nobody waits for here.
        say("<enable xmlns='urn:xmpp:sm:3'/>", "<enabled")?;
        let mut sent = 0;
        while sent < self.domains {
            let next = (sent + LETTERS).min(self.domains);
            let letters: String = (sent..next)
                .map(|number| {
                    format!(
                        "<message to='someone@d{number}.dead.test' type='chat' id='l{number}'>\
                         <body>are you there?</body></message>"
                    )
                })
                .collect();
            socket.write_all(letters.as_bytes()).map_err(io)?;
            sent = next;
            wait_for(&mut socket, sent)?;
        }
        Ok(socket)
    }

    fn serve_dns(&self) {
        let mut buffer = [0; 1024];
        while self.goes_on() {
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else { continue };
            if let Some(answer) = answer(&buffer[..length]) {
                let _ = self.socket.send_to(&answer, from);
            }
        }
    }
}

/// Until the server has acknowledged so many stanzas.
fn wait_for(socket: &mut TcpStream, count: u32) -> Result<(), Error> {
    let io = |error| Error::Io("writing to dead domains", error);
    let begin = Instant::now();
    let wanted = format!("h='{count}'");
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while begin.elapsed() < PATIENCE {
        socket.write_all(b"<r xmlns='urn:xmpp:sm:3'/>").map_err(io)?;
        match socket.read(&mut buffer) {
            Ok(0) => return Err(Error::Server("ended the writer's stream".to_owned())),
            Ok(length) => text += &String::from_utf8_lossy(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(io(error)),
        }
        if text.contains("type='error'") {
            return Err(Error::Server(format!("refused a message to a dead domain: {text}")));
        }
        if text.contains(&wanted) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(Error::Stalled { waiting_for: format!("acknowledgement of message {count}") })
}

/// As far as the ClientHello.
fn ask_for_tls(socket: &mut TcpStream, hello: &[u8]) -> Option<()> {
    expect(socket, "</stream:features>")?;
    socket.write_all(STARTTLS).ok()?;
    expect(socket, "<proceed")?;
    socket.write_all(hello).ok()
}

/// A whole handshake, a stream, and a key that the server has asked nobody about yet.
fn dialback(socket: TcpStream, tls: &Tls, number: u64) -> Option<()> {
    let mut stream = StreamOwned::new(tls.connection().ok()?, socket);
    stream.write_all(S2S_HEADER.as_bytes()).ok()?;
    let mut buffer = [0; 4096];
    let mut text = String::new();
    while !text.contains("</stream:features>") {
        match stream.read(&mut buffer).ok()? {
            0 => return None,
            length => text += &String::from_utf8_lossy(&buffer[..length]),
        }
    }
    let result = format!("<db:result from='d{number}.dead.test' to='localhost'>key</db:result>");
    stream.write_all(result.as_bytes()).ok()
}

/// To a question about a dead domain: an address where nobody listens, no service records, or nothing at all.
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let (mut end, mut number) = (12, None);
    loop {
        let length = usize::from(*query.get(end)?);
        end += 1;
        if length == 0 {
            break;
        }
        let label = std::str::from_utf8(query.get(end..end + length)?).ok()?;
        number = number.or_else(|| label.strip_prefix(['d', 'D'])?.parse::<u32>().ok());
        end += length;
    }
    let question = query.get(12..end + 4)?;
    let is_address = query.get(end..end + 4)? == [0, 1, 0, 1];
    let number = number.unwrap_or(1);
    if number.is_multiple_of(SILENT) {
        return None;
    }
    // A response, recursion available; one question, and one answer or none.
    let mut bytes = query[..2].to_vec();
    bytes.extend([0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    bytes.extend(question);
    if is_address {
        // The name of the question, A, IN, for a second, four bytes.
        bytes.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        bytes.extend([127, 0, 9, 1 + u8::try_from(number % 200).unwrap_or(0)]);
    }
    Some(bytes)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn query(name: &str, kind: u8) -> Vec<u8> {
        let mut bytes = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend(label.as_bytes());
        }
        bytes.extend([0, 0, kind, 0, 1]);
        bytes
    }

    #[test]
    fn the_dead_have_an_address_but_no_service_and_some_no_server() {
        let address = answer(&query("d17.dead.test", 1)).unwrap();
        assert_eq!(&address[..8], [7, 9, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(&address[address.len() - 4..], [127, 0, 9, 18]);
        let service = answer(&query("_xmpp-server._tcp.d17.dead.test", 33)).unwrap();
        assert_eq!(&service[..8], [7, 9, 0x81, 0x80, 0, 1, 0, 0]);
        assert_eq!(answer(&query("_xmpp-server._tcp.d500.dead.test", 33)), None);
        assert_eq!(answer(&query("d17.dead.test", 1)[..20]), None, "cut short");
    }

    #[test]
    fn a_client_hello_is_there_to_be_repeated() {
        let tls = Tls::new().unwrap();
        assert_eq!(tls.hello[0], 22, "a record of a handshake");
        assert!(tls.hello.windows(11).any(|bytes| bytes == b"xmpp-server"));
    }
}
