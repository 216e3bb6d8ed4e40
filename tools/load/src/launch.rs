//! Starts a server under test, waits until it accepts, and ends it, in order or by SIGKILL.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::{Error, ServerProbe, sys};

/// How long a server may take to answer for the first time, or to end when asked.
/// Below those of which Linux takes one for a connection (`ip_local_port_range`, from 32768).
const FIRST_PORT: u16 = 20_000;
const PORTS: u32 = 12_000;
const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    /// From the start of the process to its first answer on a stream.
    pub start_time: Duration,
}

impl Server {
    /// Runs a command line, on `cores` if there are any, until it answers to a stream header on `address` (plain TCP).
    ///
    /// - errors: it cannot be run, ends before it answers, or takes more than 30 s
    pub fn start(
        program: &Path,
        arguments: &[OsString],
        cores: &[usize],
        address: SocketAddr,
    ) -> Result<Self, Error> {
        let own = sys::affinity().map_err(|error| Error::Io("affinity", error))?;
        if !cores.is_empty() {
            sys::set_affinity(cores).map_err(|error| Error::Io("affinity", error))?;
        }
        let begin = Instant::now();
        // The child inherits the affinity of the thread that starts it.
        let child = Command::new(program).args(arguments).stdin(Stdio::null()).spawn();
        sys::set_affinity(&own).map_err(|error| Error::Io("affinity", error))?;
        let child = child.map_err(|error| Error::File(program.to_owned(), error))?;
        let mut server = Self { child, start_time: Duration::ZERO };
        while !answers(address) {
            let ended = server.child.try_wait().map_err(|error| Error::Io("waiting", error))?;
            if let Some(status) = ended {
                return Err(Error::Server(format!("ended before it answered: {status}")));
            }
            if begin.elapsed() > START_PATIENCE {
                return Err(Error::Server(format!("does not answer on {address}")));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        server.start_time = begin.elapsed();
        Ok(server)
    }

    pub fn probe(&self) -> Result<ServerProbe, Error> {
        ServerProbe::new(self.child.id())
    }

    pub fn has_ended(&mut self) -> Result<bool, Error> {
        let status = self.child.try_wait().map_err(|error| Error::Io("waiting", error))?;
        Ok(status.is_some())
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) -> Result<(), Error> {
        self.child.kill().map_err(|error| Error::Io("kill", error))?;
        self.child.wait().map_err(|error| Error::Io("waiting", error))?;
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// - errors: it ends with a failure, or not within 15 s
    pub fn stop(mut self) -> Result<(), Error> {
        sys::terminate(self.child.id()).map_err(|error| Error::Io("terminate", error))?;
        let begin = Instant::now();
        loop {
            match self.child.try_wait().map_err(|error| Error::Io("waiting", error))? {
                Some(status) if status.success() || status.signal() == Some(libc::SIGTERM) => {
                    return Ok(());
                }
                Some(status) => return Err(Error::Server(format!("ended with {status}"))),
                None if begin.elapsed() > STOP_PATIENCE => {
                    return Err(Error::Server("does not end when asked".to_owned()));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do about a failure here: it has ended already, or the parent is ending too.
        let _ = self.kill();
    }
}

/// Whether a server on `address` says anything to a stream header, be it an error. That it accepts says less: a backlog
/// takes connections before, and from probes of the port, which are then reset.
fn answers(address: SocketAddr) -> bool {
    let patience = Duration::from_secs(1);
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(
            b"<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
              xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='localhost'>",
        )?;
        Ok(stream.read(&mut [0; 64])? > 0)
    };
    ask().unwrap_or(false)
}

/// A directory for one run, removed when dropped.
pub struct ScratchDir(PathBuf);

impl ScratchDir {
    pub fn new(name: &str) -> Result<Self, Error> {
        let unique = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos());
        let path = std::env::temp_dir().join(format!("{name}-{}-{unique}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| Error::File(path.clone(), error))?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // A directory that stays behind does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A port of loopback that was free a moment ago: none of those that connections leave from, or a client that comes while
/// the server is down could meet itself there and keep the port. Another one each time.
///
/// - errors: a thousand ports in a row are taken
pub fn free_address() -> Result<SocketAddr, Error> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let free = (0..1000).find_map(|_| {
        // Each process begins elsewhere.
        let place =
            std::process::id().wrapping_mul(97).wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        let port = FIRST_PORT + u16::try_from(place % PORTS).unwrap_or(0);
        TcpListener::bind(("127.0.0.1", port)).ok()?.local_addr().ok()
    });
    free.ok_or_else(|| Error::Server("no free port of 127.0.0.1 above 20000".to_owned()))
}

/// What a server's page of metrics says.
pub fn metrics(admin: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /metrics HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A Corefire binary with a data directory of its own, described by its command line (DESIGN §10).
pub struct Corefire {
    binary: PathBuf,
    data_dir: PathBuf,
    /// Accepts plain TCP and STARTTLS.
    pub plain: SocketAddr,
    /// Accepts direct TLS.
    pub direct_tls: SocketAddr,
    sets: Vec<String>,
}

fn key(set: &str) -> &str {
    set.split('=').next().unwrap_or(set)
}

/// PBKDF2 rounds for accounts under test: the least that RFC 7677 §4 allows.
const SCRAM_ITERATIONS: u32 = 4096;

impl Corefire {
    /// - takes: `sets`, further `key=value` for `--set`, which replace the settings of DESIGN §11
    pub fn new(binary: &Path, data_dir: &Path, sets: &[String]) -> Result<Self, Error> {
        let (plain, direct_tls) = (free_address()?, free_address()?);
        let mut all = vec![
            "node.shards=1".to_owned(),
            format!("c2s.listen=[\"{plain}\"]"),
            format!("c2s.direct_tls_listen=[\"{direct_tls}\"]"),
            "c2s.tls=\"optional\"".to_owned(),
            "archive.enabled=false".to_owned(),
            "federation.enabled=false".to_owned(),
            "http.listen=[]".to_owned(),
            "http.tls_listen=[]".to_owned(),
            "admin.listen=\"\"".to_owned(),
            "limits.exempt=[\"127.0.0.0/8\"]".to_owned(),
            format!("auth.scram_iterations={SCRAM_ITERATIONS}"),
            "log.level=\"warn\"".to_owned(),
        ];
        all.extend_from_slice(sets);
        Ok(Self {
            binary: binary.to_owned(),
            data_dir: data_dir.to_owned(),
            plain,
            direct_tls,
            sets: all,
        })
    }

    /// Nodes of one cluster that know each other's addresses, on the database that `storage.url` of `sets` names.
    pub fn cluster(
        binary: &Path,
        folder: &Path,
        count: u16,
        sets: &[String],
    ) -> Result<Vec<Self>, Error> {
        let secret = folder.join("secret");
        let status = Command::new(binary)
            .args(["cluster", "init"])
            .arg(&secret)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .map_err(|error| Error::File(binary.to_owned(), error))?;
        if !status.success() {
            return Err(Error::Server(format!("cluster init: {status}")));
        }
        let links = (0..count).map(|_| free_address()).collect::<Result<Vec<_>, _>>()?;
        let node = |(at, link): (usize, &SocketAddr)| {
            // One that is alone looks for others at its own address, and finds none.
            let seeds: Vec<String> = links
                .iter()
                .filter(|other| *other != link || count == 1)
                .map(|other| format!("\"{other}\""))
                .collect();
            let mut all = vec![
                format!("node.name=\"n{}\"", at + 1),
                "cluster.enabled=true".to_owned(),
                format!("cluster.bind=\"{link}\""),
                format!("cluster.secret_file=\"{}\"", secret.display()),
                "cluster.multicast.group=\"\"".to_owned(),
                format!("cluster.seeds=[{}]", seeds.join(",")),
            ];
            all.extend_from_slice(sets);
            let data_dir = folder.join(format!("n{}", at + 1));
            std::fs::create_dir(&data_dir).map_err(|error| Error::File(data_dir.clone(), error))?;
            Self::new(binary, &data_dir, &all)
        };
        links.iter().enumerate().map(node).collect()
    }

    /// Creates accounts in the data directory of a server that does not run.
    pub fn import(&self, jids: impl Iterator<Item = String>, password: &str) -> Result<(), Error> {
        let mut csv = String::new();
        for jid in jids {
            // Writing to a String does not fail.
            let _ = writeln!(csv, "{jid},{password}");
        }
        let file = self.data_dir.join("accounts.csv");
        std::fs::write(&file, csv).map_err(|error| Error::File(file.clone(), error))?;
        let storage = self.sets.iter().filter(|set| key(set).starts_with("storage."));
        let status = Command::new(&self.binary)
            .args(["user", "import"])
            .arg(&file)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--set", &format!("auth.scram_iterations={SCRAM_ITERATIONS}")])
            .args(storage.flat_map(|set| ["--set", set]))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .map_err(|error| Error::File(self.binary.clone(), error))?;
        if status.success() { Ok(()) } else { Err(Error::Server(format!("user import: {status}"))) }
    }

    /// Runs another of its commands beside the server, on its data directory, and gives what that prints.
    ///
    /// - errors: it cannot be run, or fails
    pub fn command(&self, arguments: &[&str]) -> Result<String, Error> {
        let output = Command::new(&self.binary)
            .args(arguments)
            .arg("--data-dir")
            .arg(&self.data_dir)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| Error::File(self.binary.clone(), error))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => {
                let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                Err(Error::Server(format!("{}: {why}", arguments.join(" "))))
            }
        }
    }

    /// Starts it, with settings of this start only after the others.
    pub fn start(&self, cores: &[usize], sets: &[String]) -> Result<Server, Error> {
        let mut arguments: Vec<OsString> =
            vec!["serve".into(), "--data-dir".into(), self.data_dir.clone().into()];
        let sets: Vec<&String> = self.sets.iter().chain(sets).collect();
        for (at, set) in sets.iter().enumerate() {
            let is_later = |later: &&String| key(later) == key(set);
            if !sets[at + 1..].iter().any(is_later) {
                arguments.extend(["--set".into(), (*set).into()]);
            }
        }
        Server::start(&self.binary, &arguments, cores, self.plain)
    }
}
