//! What a conversation is held with: connections to a server, whatever it is.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Everybody's.
pub(crate) const PASSWORD: &str = "secret";

pub(crate) type Conn = usize;

pub(crate) enum Event {
    Bytes(Vec<u8>),
    Closed,
}

pub(crate) trait Driver {
    fn domain(&self) -> &str;

    /// A connection on which passwords may be told.
    fn connect(&mut self) -> Result<Conn, String>;

    /// To a connection that has ended: nothing.
    fn send(&mut self, conn: Conn, bytes: &[u8]);

    /// What happens next on any connection; waits for `wait` where something may still happen.
    fn next(&mut self, wait: Duration) -> Option<(Conn, Event)>;

    fn cut(&mut self, conn: Conn);

    fn advance(&mut self, span: Duration) -> Result<(), String>;
}

/// Plain TCP to a running server, a reading thread for each connection.
pub(crate) struct Sockets {
    address: SocketAddr,
    domain: String,
    open: BTreeMap<Conn, TcpStream>,
    count: usize,
    tell: Sender<(Conn, Event)>,
    events: Receiver<(Conn, Event)>,
}

impl Sockets {
    pub(crate) fn new(address: SocketAddr, domain: &str) -> Sockets {
        let (tell, events) = channel();
        Sockets {
            address,
            domain: domain.to_owned(),
            open: BTreeMap::new(),
            count: 0,
            tell,
            events,
        }
    }
}

impl Driver for Sockets {
    fn domain(&self) -> &str {
        &self.domain
    }

    fn connect(&mut self) -> Result<Conn, String> {
        let socket = TcpStream::connect_timeout(&self.address, Duration::from_secs(10))
            .and_then(|socket| socket.set_nodelay(true).map(|()| socket))
            .map_err(|error| format!("{}: {error}", self.address))?;
        let mut reading = socket.try_clone().map_err(|error| error.to_string())?;
        let (conn, tell) = (self.count, self.tell.clone());
        self.count += 1;
        std::thread::spawn(move || {
            let mut buffer = [0; 16 << 10];
            while let Ok(length @ 1..) = reading.read(&mut buffer) {
                let _ = tell.send((conn, Event::Bytes(buffer[..length].to_vec())));
            }
            let _ = tell.send((conn, Event::Closed));
        });
        self.open.insert(conn, socket);
        Ok(conn)
    }

    fn send(&mut self, conn: Conn, bytes: &[u8]) {
        if let Some(mut socket) = self.open.get(&conn) {
            // What fails here is told by the reading thread.
            let _ = socket.write_all(bytes);
        }
    }

    fn next(&mut self, wait: Duration) -> Option<(Conn, Event)> {
        self.events.recv_timeout(wait).ok()
    }

    fn cut(&mut self, conn: Conn) {
        if let Some(socket) = self.open.remove(&conn) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn advance(&mut self, _: Duration) -> Result<(), String> {
        Err("time passes only in simulation: add `only simulated: REASON`".into())
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        // Ends the threads.
        for socket in self.open.values() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}
