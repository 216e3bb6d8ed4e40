//! Listening sockets: one for each shard and address, so that the kernel spreads connections over cores. An exclusive
//! probe comes first: two servers never share a port in silence.

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// Connections that the kernel keeps for each shard until they are accepted.
const BACKLOG: i32 = 4096;

/// How long a port may be in use before that is an error.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a client finds behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// XML at once; TLS by STARTTLS.
    Plain,
    /// TLS at once (XEP-0368).
    DirectTls,
    /// XML of an external component (XEP-0114), without TLS.
    Component,
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{key}: {address} is in use by another process; stop it, or set {key} to another port")]
    InUse { key: &'static str, address: SocketAddr },
    #[error(
        "{key}: {address} may not be bound by this user; use a port above 1023, or grant CAP_NET_BIND_SERVICE"
    )]
    Forbidden { key: &'static str, address: SocketAddr },
    #[error(
        "{key}: this machine has no address {address}; write one of its own, or 0.0.0.0 or [::] for all"
    )]
    NoSuchAddress { key: &'static str, address: SocketAddr },
    #[error("{key}: cannot listen on {address}: {source}")]
    Other { key: &'static str, address: SocketAddr, source: io::Error },
}

/// One address that all shards listen on.
#[derive(Debug)]
pub struct Listening {
    /// As bound, so with the port that port 0 became.
    pub address: SocketAddr,
    pub transport: Transport,
    /// The configuration's name for it.
    pub key: &'static str,
    /// One for each shard.
    pub sockets: Vec<TcpListener>,
}

/// Binds `address` for each of `shards`.
pub fn listen(
    key: &'static str,
    transport: Transport,
    address: SocketAddr,
    shards: u16,
) -> Result<Listening, ListenError> {
    let fault = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { key, address },
        io::ErrorKind::PermissionDenied => ListenError::Forbidden { key, address },
        io::ErrorKind::AddrNotAvailable => ListenError::NoSuchAddress { key, address },
        _ => ListenError::Other { key, address, source },
    };
    let probe = exclusive(address).map_err(fault)?;
    // Bound and not listening: whoever connects already would find a socket that closes.
    let bound = probe.local_addr().map_err(fault)?.as_socket().unwrap_or(address);
    drop(probe);
    let mut sockets = Vec::new();
    for _ in 0..shards {
        let socket = socket(bound, true).map_err(fault)?;
        sockets.push(socket.into());
    }
    // Only now: what the kernel gives to a socket stays with it.
    for socket in &sockets {
        socket2::SockRef::from(socket).listen(BACKLOG).map_err(fault)?;
    }
    Ok(Listening { address: bound, transport, key, sockets })
}

/// Binds `address` for one listener that no core shares.
pub fn listen_alone(key: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    let fault = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { key, address },
        io::ErrorKind::PermissionDenied => ListenError::Forbidden { key, address },
        io::ErrorKind::AddrNotAvailable => ListenError::NoSuchAddress { key, address },
        _ => ListenError::Other { key, address, source },
    };
    let socket = exclusive(address).map_err(fault)?;
    socket.listen(64).map_err(fault)?;
    Ok(socket.into())
}

/// A socket on a port that is nobody else's.
///
/// The kernel closes the rings of a process that was killed, and the sockets in them, some time after its end: a server that
/// is started again at once waits for that.
fn exclusive(address: SocketAddr) -> io::Result<Socket> {
    let patient_until = Instant::now() + PATIENCE;
    loop {
        match socket(address, false) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < patient_until =>
            {
                std::thread::sleep(PATIENCE / 100);
            }
            result => return result,
        }
    }
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a server that ended a moment ago do not keep the port.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_refused_even_by_a_server_that_shares_it() {
        let any = "127.0.0.1:0".parse().unwrap();
        let first = listen("c2s.listen", Transport::Plain, any, 2).unwrap();
        assert_eq!(first.sockets.len(), 2);
        let error = listen("c2s.listen", Transport::Plain, first.address, 2).unwrap_err();
        assert!(matches!(error, ListenError::InUse { .. }), "{error}");
        drop(first);
    }
}
