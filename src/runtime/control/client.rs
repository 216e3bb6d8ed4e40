//! The command line's end of the control socket.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{ControlRequest, ControlResponse, Envelope, PROTOCOL_VERSION};
use crate::runtime::data_dir::{CONTROL_SOCKET, short_path};

/// An answer may wait for a commit; past this the node is taken to hang.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// An answer larger than this is none; the largest is a full list of accounts with the longest names.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// An open connection to the running node.
#[derive(Debug)]
pub struct ControlClient {
    stream: BufReader<UnixStream>,
}

/// Connects to the node that runs on a data directory.
///
/// - gives: `None` where no node runs
/// - errors: the socket is there and may not be used
pub fn connect(data_dir: &Path) -> io::Result<Option<ControlClient>> {
    // By the number of the open directory: a socket's path ends at 107 bytes, a directory's does not.
    let directory = match File::open(data_dir) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match UnixStream::connect(short_path(&directory).join(CONTROL_SOCKET)) {
        Ok(stream) => {
            stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
            stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
            Ok(Some(ControlClient { stream: BufReader::new(stream) }))
        }
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error),
        },
    }
}

impl ControlClient {
    /// Asks and waits for the answer.
    ///
    /// - errors: the node is gone, hangs (30 s), or answers what cannot be read; the request may have been carried out
    pub fn call(&mut self, request: &ControlRequest) -> io::Result<ControlResponse> {
        self.send(request)?;
        self.receive()
    }

    /// For a request with more than one answer.
    ///
    /// - errors: the node is gone or hangs (30 s)
    pub fn send(&mut self, request: &ControlRequest) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Envelope { protocol: PROTOCOL_VERSION, body: request })?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)
    }

    /// The next answer.
    ///
    /// - errors: as of `call`
    pub fn receive(&mut self) -> io::Result<ControlResponse> {
        let mut answer = Vec::new();
        (&mut self.stream).take(ANSWER_BYTES_MAX).read_until(b'\n', &mut answer)?;
        if answer.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let envelope: Envelope<ControlResponse> = serde_json::from_slice(&answer)?;
        Ok(envelope.body)
    }
}
