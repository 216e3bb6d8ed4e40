//! Who answers a command: the running node through its socket, or its store itself where no node runs.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::runtime::control::accounts::{Accounts, perform};
use crate::runtime::control::{AccountRequest, ControlRequest, ControlResponse, client};
use crate::runtime::data_dir::{DataDir, DataDirError};
use crate::store::memory::MemoryStore;
use crate::store::{self, Answer, Opened, Query, Reader, Write, Writer, Written};

/// How long a directory may be in use without a node that answers: one that starts or stops, or another command.
const PATIENCE: Duration = Duration::from_secs(5);

const PATIENCE_STEP: Duration = Duration::from_millis(50);

pub(super) enum Backend {
    Running(Running),
    Stopped(Box<Stopped>),
}

/// A node that answered; each request has a connection of its own, since the node closes quiet ones.
pub(super) struct Running {
    data_dir: PathBuf,
}

/// The data directory, locked.
pub(super) struct Stopped {
    /// The first of its writers: a command has no need of more.
    writer: Box<dyn Writer>,
    reader: Box<dyn Reader>,
    domains: Vec<String>,
    scram_iterations: u32,
    /// Last, so that the lock outlives the connections.
    _lock: DataDir,
}

/// Whether a command may make the data directory, or expects one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Directory {
    Made,
    Expected,
}

impl Backend {
    /// - errors: a line of cause and remedy
    pub(super) fn open(config: &Config, directory: Directory) -> Result<Backend, String> {
        let path = &config.node.data_dir;
        let started = Instant::now();
        loop {
            if let Some(running) = Running::find(config)? {
                return Ok(Backend::Running(running));
            }
            let opened = match directory {
                Directory::Made => DataDir::open(path),
                Directory::Expected => DataDir::open_existing(path),
            };
            match opened {
                Ok(lock) => return Stopped::open(config, lock).map(Box::new).map(Backend::Stopped),
                Err(DataDirError::InUse { .. }) if started.elapsed() < PATIENCE => {
                    std::thread::sleep(PATIENCE_STEP);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// - errors: a line of cause and remedy
    pub(super) fn account(&mut self, request: AccountRequest) -> Result<ControlResponse, String> {
        let response = match self {
            Backend::Running(running) => running.call(&ControlRequest::Account(request))?,
            Backend::Stopped(stopped) => perform(&mut **stopped, request),
        };
        match response {
            ControlResponse::Error { message } => Err(message),
            response => Ok(response),
        }
    }
}

/// The configured store, to be read: beside the node that runs on it, or with the data directory locked.
pub(super) struct OpenReader {
    pub(super) reader: Box<dyn Reader>,
    /// Last, so that the lock outlives the connection.
    _stopped: Option<Box<Stopped>>,
}

impl OpenReader {
    /// - errors: a line of cause and remedy
    pub(super) fn of(config: &Config) -> Result<OpenReader, String> {
        let stopped = match Backend::open(config, Directory::Expected)? {
            Backend::Running(_) => None,
            Backend::Stopped(stopped) => Some(stopped),
        };
        Ok(OpenReader { _stopped: stopped, ..OpenReader::beside(config)? })
    }

    /// Of a store that is not there yet.
    pub(super) fn empty() -> OpenReader {
        OpenReader { reader: Box::new(MemoryStore::new().reader()), _stopped: None }
    }

    /// Where the store is open already, by the node or by a `Backend` that outlives this.
    pub(super) fn beside(config: &Config) -> Result<OpenReader, String> {
        let told = |error: store::Error| format!("{error}; check storage.url and the user");
        let reader = config.store_place().reader().map_err(told)?;
        Ok(OpenReader { reader, _stopped: None })
    }
}

impl Running {
    /// The node that runs on the configured data directory.
    pub(super) fn find(config: &Config) -> Result<Option<Running>, String> {
        let data_dir = config.node.data_dir.clone();
        match client::connect(&data_dir) {
            Ok(Some(_)) => Ok(Some(Running { data_dir })),
            Ok(None) => Ok(None),
            Err(error) => Err(format!(
                "the control socket in {} cannot be used: {error}; run this as the user of the node",
                data_dir.display()
            )),
        }
    }

    /// Has the node answer with more than one answer; `each` gives false once there is enough.
    ///
    /// - errors: a line of cause and remedy
    pub(super) fn stream(
        &self,
        request: &ControlRequest,
        mut each: impl FnMut(ControlResponse) -> bool,
    ) -> Result<(), String> {
        let lost = |error: std::io::Error| {
            let path = self.data_dir.display();
            match error.kind() {
                ErrorKind::UnexpectedEof => format!("the node on {path} has ended"),
                _ => format!("the node on {path} is gone, or hangs: {error}; see its log"),
            }
        };
        let connection = client::connect(&self.data_dir).map_err(lost)?;
        let mut connection = connection.ok_or_else(|| lost(ErrorKind::UnexpectedEof.into()))?;
        connection.send(request).map_err(lost)?;
        loop {
            match connection.receive().map_err(lost)? {
                ControlResponse::Error { message } => return Err(message),
                response => {
                    if !each(response) {
                        return Ok(());
                    }
                }
            }
        }
    }

    pub(super) fn call(&self, request: &ControlRequest) -> Result<ControlResponse, String> {
        let lost = |cause: String| {
            let path = self.data_dir.display();
            format!("the node on {path} {cause}; see whether it took effect, and try again")
        };
        let mut connection = client::connect(&self.data_dir)
            .map_err(|error| lost(format!("cannot be reached: {error}")))?
            .ok_or_else(|| lost("has stopped".into()))?;
        match connection.call(request) {
            Ok(ControlResponse::Error { message }) => Err(message),
            Ok(response) => Ok(response),
            Err(error) => Err(lost(format!("gave no answer: {error}"))),
        }
    }
}

impl Stopped {
    fn open(config: &Config, lock: DataDir) -> Result<Stopped, String> {
        let place = config.store_place();
        let told = |error: store::Error| format!("{error}; check storage.url and the user");
        let Opened { writers, .. } = place.open("a command").map_err(told)?;
        let mut writers = writers.into_iter();
        let writer = writers.next().ok_or("the store has none who writes")?;
        let reader = place.reader().map_err(told)?;
        Ok(Stopped {
            writer,
            reader,
            domains: config.domains.clone(),
            scram_iterations: config.auth.scram_iterations,
            _lock: lock,
        })
    }
}

impl Accounts for Stopped {
    fn domains(&self) -> &[String] {
        &self.domains
    }

    fn scram_iterations(&self) -> u32 {
        self.scram_iterations
    }

    fn write(&mut self, batch: Vec<Write>) -> Result<Vec<Written>, store::Error> {
        self.writer.commit(&batch)
    }

    fn read(&mut self, query: Query) -> Result<Answer, store::Error> {
        self.reader.read(&query)
    }
}
