//! One client's connection: its place in the login, its socket and TLS, what it still has to cut or to write.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::TcpStream;

use rustls::ClientConnection;

use crate::login::{Login, Wish};
use crate::scan::{Element, Scanner};

pub(crate) enum Link {
    Down,
    Queued,
    Connecting,
    Login(Box<Login>),
    Ready,
    /// The client has opened a stream and says nothing more.
    Silent,
    /// The client has closed its stream and waits for the server's end.
    Closing,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) enabled: bool,
    pub(crate) sent: u32,
    pub(crate) requested: u32,
    pub(crate) received: u32,
}

/// What it takes to go on with a stream over another connection (XEP-0198 §5).
pub(crate) struct Resumable {
    pub(crate) id: String,
    /// Stanzas that the server has not acknowledged, by number.
    pub(crate) unacked: VecDeque<(u32, Box<[u8]>)>,
}

impl Resumable {
    /// The server has handled so many.
    pub(crate) fn acked(&mut self, handled: u32) {
        // Wrapping comparison: h counts modulo 2^32.
        while self.unacked.front().is_some_and(|(n, _)| handled.wrapping_sub(*n) < 1 << 31) {
            self.unacked.pop_front();
        }
    }
}

pub(crate) struct Client {
    pub(crate) wish: Wish,
    pub(crate) link: Link,
    /// Connections that the server or the network ended, where each such end leads to the next target.
    pub(crate) broken: usize,
    pub(crate) jid: String,
    pub(crate) socket: Option<TcpStream>,
    pub(crate) tls: Option<Box<ClientConnection>>,
    pub(crate) scanner: Scanner,
    /// Bytes of a stanza that is not whole yet.
    pub(crate) input: Vec<u8>,
    pub(crate) output: Vec<u8>,
    pub(crate) dirty: bool,
    /// Whether epoll watches for room to write.
    pub(crate) blocked: bool,
    /// Whether what the server sends stays in the kernel.
    pub(crate) deaf: bool,
    pub(crate) counters: Counters,
    /// A stream that may outlive its connection.
    pub(crate) resumable: Option<Box<Resumable>>,
}

impl Client {
    pub(crate) fn new(wish: Wish) -> Self {
        Self {
            wish,
            link: Link::Down,
            broken: 0,
            jid: String::new(),
            socket: None,
            tls: None,
            scanner: Scanner::default(),
            input: Vec::new(),
            output: Vec::new(),
            dirty: false,
            blocked: false,
            deaf: false,
            counters: Counters::default(),
            resumable: None,
        }
    }

    /// Drops the connection and all that belongs to it, but not the stream if it can go on.
    pub(crate) fn reset(&mut self) {
        // Before its login was complete, too little is known about a stream.
        if !matches!(self.link, Link::Ready | Link::Down | Link::Queued | Link::Connecting)
            && !self.is_resuming()
        {
            self.resumable = None;
        }
        self.link = Link::Down;
        self.socket = None;
        self.tls = None;
        self.scanner = Scanner::default();
        self.input = Vec::new();
        self.output.clear();
        self.blocked = false;
        if self.resumable.is_some() {
            self.counters.enabled = false;
            self.counters.requested = self.counters.sent;
        } else {
            self.counters = Counters::default();
        }
    }

    /// Whether a login goes on that may still resume the stream.
    fn is_resuming(&self) -> bool {
        matches!(self.link, Link::Login(_)) && !self.counters.enabled
    }

    /// Writes what is queued, with an `<r/>` behind it when `sm_request_every` stanzas have gone without one.
    ///
    /// - gives: whether the socket did not take all of it
    pub(crate) fn write(&mut self, sm_request_every: u32) -> io::Result<bool> {
        self.dirty = false;
        let Some(mut socket) = self.socket.as_ref() else {
            return Ok(false);
        };
        let due = self.counters.sent.wrapping_sub(self.counters.requested);
        if self.counters.enabled
            && !matches!(self.link, Link::Closing)
            && due >= sm_request_every.max(1)
        {
            self.counters.requested = self.counters.sent;
            self.output.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>");
        }
        let mut written = 0;
        let mut blocked = false;
        if let Some(tls) = &mut self.tls {
            loop {
                written += tls.writer().write(&self.output[written..])?;
                while tls.wants_write() && !blocked {
                    match tls.write_tls(&mut socket) {
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => blocked = true,
                        Err(error) => return Err(error),
                    }
                }
                // During the handshake rustls holds what it can and sends it later.
                if written == self.output.len() || blocked || tls.is_handshaking() {
                    break;
                }
            }
        } else {
            while written < self.output.len() && !blocked {
                match socket.write(&self.output[written..]) {
                    Ok(count) => written += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => blocked = true,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.output.drain(..written);
        Ok(blocked)
    }
}

/// Every request gets an answer (RFC 6120 §8.2.3): pings succeed, all else is not known here.
pub(crate) fn write_answer(request: &Element<'_>, out: &mut Vec<u8>) {
    let ping = request.child("ping").is_some();
    let (from, id) = (request.attribute("from"), request.attribute("id"));
    let kind: &[u8] = if ping { b"result" } else { b"error" };
    for (piece, value) in [(&b"<iq type='"[..], Some(kind)), (b"' id='", id), (b"' to='", from)] {
        if let Some(value) = value {
            out.extend_from_slice(piece);
            // Only the quotes can differ from what stood there: entities are kept as they came.
            for byte in value {
                match byte {
                    b'\'' => out.extend_from_slice(b"&apos;"),
                    _ => out.push(*byte),
                }
            }
        }
    }
    out.extend_from_slice(if ping {
        b"'/>"
    } else {
        b"'><error type='cancel'><service-unavailable \
          xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
    });
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn requests_are_answered_to_where_they_came_from() {
        let answer = |request: &str| {
            let mut out = Vec::new();
            write_answer(&Element::parse(request.as_bytes()).unwrap(), &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            answer("<iq type='get' id=\"1'\" from='a&amp;b'><ping/></iq>"),
            "<iq type='result' id='1&apos;' to='a&amp;b'/>"
        );
        let refusal = answer("<iq type='set' id='2'><x/></iq>");
        assert!(refusal.starts_with("<iq type='error' id='2'><error type='cancel'>"), "{refusal}");
    }
}
