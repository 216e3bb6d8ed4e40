//! The node's end of the control socket: a side thread that accepts, and one for each of a few connections.

use std::fs::Permissions;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Deserialize;

use super::{
    ControlHandler, ControlRequest, ControlResponse, Envelope, LINE_BYTES_MAX, PROTOCOL_VERSION,
};
use crate::runtime::data_dir::{CONTROL_SOCKET, DataDir};

/// Commands served at a time; people run one, scripts a few.
const CONNECTIONS_MAX: usize = 8;

/// A connection that is quiet for this long is closed: a hanging command must not hold a place.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// After a failed accept (no descriptors left), so that the thread does not spin; and how late a stop may be noticed.
const PAUSE: Duration = Duration::from_millis(100);

/// The running socket. Dropping it stops accepting and removes the file; answers being made are finished by their
/// threads. To be dropped before the lock of its directory is.
#[derive(Debug)]
pub struct ControlServer {
    listener: Arc<UnixListener>,
    is_stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
    path: PathBuf,
}

/// Makes the socket, mode 0600, in place of one that a dead node left: the lock of `data_dir` shows that it is dead.
///
/// - errors: the socket cannot be made
pub fn bind(data_dir: &DataDir) -> io::Result<UnixListener> {
    let short = data_dir.short_path();
    // Its mode is set before it has its name, so that nobody else gets in between.
    let unnamed = short.join("control.sock.new");
    match std::fs::remove_file(&unnamed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&unnamed)?;
    std::fs::set_permissions(&unnamed, Permissions::from_mode(0o600))?;
    std::fs::rename(&unnamed, short.join(CONTROL_SOCKET))?;
    Ok(listener)
}

/// Makes the socket and serves it until the answer is dropped.
///
/// - errors: the socket or the thread cannot be made
pub fn serve(data_dir: &DataDir, handler: Arc<dyn ControlHandler>) -> io::Result<ControlServer> {
    let listener = Arc::new(bind(data_dir)?);
    let is_stopping = Arc::new(AtomicBool::new(false));
    let acceptor = std::thread::Builder::new().name("control".into()).spawn({
        let (listener, is_stopping) = (listener.clone(), is_stopping.clone());
        move || accept(&listener, &handler, &is_stopping)
    })?;
    let path = data_dir.control_socket();
    Ok(ControlServer { listener, is_stopping, acceptor: Some(acceptor), path })
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Release);
        // Wakes the accept; it then fails.
        let woken = socket2::SockRef::from(&*self.listener).shutdown(std::net::Shutdown::Both);
        // The node still holds the lock, so the file is ours; one that is gone already is as good.
        let _ = std::fs::remove_file(&self.path);
        if let (Some(acceptor), Ok(())) = (self.acceptor.take(), woken) {
            // It cannot have panicked in a way that matters here.
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &UnixListener, handler: &Arc<dyn ControlHandler>, is_stopping: &AtomicBool) {
    let (give, seats) = mpsc::sync_channel(CONNECTIONS_MAX);
    for _ in 0..CONNECTIONS_MAX {
        drop(Seat(give.clone()));
    }
    loop {
        // With all seats taken, further commands wait in the socket's queue.
        let seat = seats.recv_timeout(PAUSE).map(|()| Seat(give.clone()));
        if is_stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok(seat) = seat else { continue };
        let accepted = listener.accept();
        if is_stopping.load(Ordering::Acquire) {
            return;
        }
        let Ok((stream, _)) = accepted else {
            std::thread::sleep(PAUSE);
            continue;
        };
        let handler = handler.clone();
        // Without a thread the connection is dropped, which the command reports.
        let _ = std::thread::Builder::new().name("control-client".into()).spawn(move || {
            let _seat = seat;
            // The command sees its connection end; nobody else is concerned.
            let _ = converse(&stream, &*handler);
        });
    }
}

/// One of the `CONNECTIONS_MAX` places; given back when it is dropped, in whatever way its thread ends.
struct Seat(mpsc::SyncSender<()>);

impl Drop for Seat {
    fn drop(&mut self) {
        // Never full, as there are no more seats than places; closed only when the acceptor has ended.
        let _ = self.0.try_send(());
    }
}

fn converse(stream: &UnixStream, handler: &dyn ControlHandler) -> io::Result<()> {
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_write_timeout(Some(READ_TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut reader).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        if line.len() as u64 > LINE_BYTES_MAX {
            return answer(stream, &ControlResponse::error("the request is larger than 1 MiB"));
        }
        match read_request(&line) {
            Ok(request) => {
                let mut tell = |response| answer(stream, &response).is_ok();
                let last = handler.handle(request, &mut tell);
                answer(stream, &last)?;
            }
            Err(message) => return answer(stream, &ControlResponse::error(message)),
        }
    }
}

fn read_request(line: &[u8]) -> Result<ControlRequest, String> {
    #[derive(Deserialize)]
    struct Version {
        protocol: u32,
    }
    let bad = |error: serde_json::Error| format!("the request cannot be read: {error}");
    let Version { protocol } = serde_json::from_slice(line).map_err(bad)?;
    if protocol != PROTOCOL_VERSION {
        return Err(format!(
            "the running node speaks version {PROTOCOL_VERSION} of the control protocol, this command {protocol}; \
             use the program that the node was started with, or restart the node"
        ));
    }
    let envelope: Envelope<ControlRequest> = serde_json::from_slice(line).map_err(bad)?;
    Ok(envelope.body)
}

fn answer(mut stream: &UnixStream, response: &ControlResponse) -> io::Result<()> {
    let envelope = Envelope { protocol: PROTOCOL_VERSION, body: response };
    let mut line = serde_json::to_vec(&envelope)?;
    line.push(b'\n');
    stream.write_all(&line)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::Tell;
    use super::super::client;
    use super::super::trace::{TraceEvent, TraceRequest};
    use super::*;

    /// Notes when nobody listens.
    #[derive(Default)]
    struct Echo(Arc<AtomicBool>);

    impl ControlHandler for Echo {
        fn handle(&self, request: ControlRequest, tell: &mut Tell<'_>) -> ControlResponse {
            match request {
                ControlRequest::Trace(_) => {
                    while tell(ControlResponse::Trace(TraceEvent::Quiet)) {}
                    self.0.store(true, Ordering::Release);
                    ControlResponse::Done
                }
                ControlRequest::Whereis { jid } => ControlResponse::error(jid),
                _ => ControlResponse::Done,
            }
        }
    }

    fn raw(stream: &mut UnixStream, line: &str) -> String {
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        answer
    }

    #[test]
    fn requests_are_answered_and_the_socket_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let server = serve(&data, Arc::new(Echo::default())).unwrap();
        let mode = std::fs::metadata(data.control_socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        let mut connection = client::connect(dir.path()).unwrap().unwrap();
        for jid in ["a@b", "c@d"] {
            let response = connection.call(&ControlRequest::Whereis { jid: jid.into() }).unwrap();
            assert_eq!(response, ControlResponse::error(jid));
        }
        drop(connection);
        drop(server);
        assert!(!data.control_socket().exists());
        assert!(client::connect(dir.path()).unwrap().is_none());
    }

    #[test]
    fn an_answer_of_many_parts_ends_when_nobody_listens() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let unheard = Arc::new(AtomicBool::new(false));
        let _server = serve(&data, Arc::new(Echo(unheard.clone()))).unwrap();
        let mut connection = client::connect(dir.path()).unwrap().unwrap();
        connection.send(&ControlRequest::Trace(TraceRequest::default())).unwrap();
        for _ in 0..1_000 {
            let response = connection.receive().unwrap();
            assert_eq!(response, ControlResponse::Trace(TraceEvent::Quiet));
        }
        assert!(!unheard.load(Ordering::Acquire));
        drop(connection);
        while !unheard.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_socket_left_by_a_dead_node_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        drop(bind(&data).unwrap());
        assert!(data.control_socket().exists());
        assert!(client::connect(dir.path()).unwrap().is_none(), "nobody listens");
        let _server = serve(&data, Arc::new(Echo::default())).unwrap();
        let mut connection = client::connect(dir.path()).unwrap().unwrap();
        assert_eq!(connection.call(&ControlRequest::Status).unwrap(), ControlResponse::Done);
    }

    #[test]
    fn a_directory_with_a_long_name_has_a_socket_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x".repeat(200));
        let data = DataDir::open(&path).unwrap();
        let _server = serve(&data, Arc::new(Echo::default())).unwrap();
        let mut connection = client::connect(&path).unwrap().unwrap();
        assert_eq!(connection.call(&ControlRequest::Status).unwrap(), ControlResponse::Done);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let _server = serve(&data, Arc::new(Echo::default())).unwrap();
        let connect = || UnixStream::connect(data.control_socket()).unwrap();
        let answer = raw(&mut connect(), "{\"protocol\":1,\"request\":\"fly\"}\n");
        assert!(answer.contains("cannot be read"), "{answer}");
        let answer = raw(&mut connect(), "{\"protocol\":9,\"request\":\"status\"}\n");
        assert!(answer.contains("speaks version 1"), "{answer}");
        let answer = raw(&mut connect(), "hello\n");
        assert!(answer.contains("cannot be read"), "{answer}");
        let answer = raw(&mut connect(), &"x".repeat(LINE_BYTES_MAX as usize + 1));
        assert!(answer.contains("larger than 1 MiB"), "{answer}");
    }

    #[test]
    fn a_ninth_command_waits_for_a_seat() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let _server = serve(&data, Arc::new(Echo::default())).unwrap();
        let status = "{\"protocol\":1,\"request\":\"status\"}\n";
        let mut held: Vec<UnixStream> = Vec::new();
        for _ in 0..CONNECTIONS_MAX {
            let mut stream = UnixStream::connect(data.control_socket()).unwrap();
            assert!(raw(&mut stream, status).contains("done"));
            held.push(stream);
        }
        let mut ninth = UnixStream::connect(data.control_socket()).unwrap();
        ninth.write_all(status.as_bytes()).unwrap();
        ninth.set_nonblocking(true).unwrap();
        let error = ninth.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "it has no seat yet");
        ninth.set_nonblocking(false).unwrap();
        held.pop();
        let mut answer = String::new();
        BufReader::new(ninth).read_line(&mut answer).unwrap();
        assert!(answer.contains("done"), "{answer}");
    }
}
