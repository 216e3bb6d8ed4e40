//! A PostgreSQL server of a test's own, from the system's package: made in a directory that goes with it, on a port of the
//! loopback and a socket in that directory. Shared by the tests of the store and those of the program.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// The password of all roles over TCP.
pub(crate) const PASSWORD: &str = "pass word/@:%";

/// Ends with this value, and with the process of the test.
pub(crate) struct Server {
    programs: PathBuf,
    directory: TempDir,
    port: u16,
    options: Vec<String>,
    process: Option<Child>,
}

/// The newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let found = versions.filter_map(|entry| Some(entry.ok()?.path()));
    let newest = found.filter(|path| version(path).is_some()).max_by_key(version)?;
    Some(newest.join("bin")).filter(|path| path.join("initdb").exists())
}

/// The server refuses root, so a test that has it gives it up.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|itself| {
        use std::os::unix::fs::MetadataExt;
        itself.uid() == 0
    })
}

fn id_of(user: &str) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = text.lines().find(|line| line.starts_with(&format!("{user}:")))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn owner() -> Option<(u32, u32)> {
    is_root().then(|| id_of("postgres").or_else(|| id_of("nobody")).expect("a user beside root"))
}

impl Server {
    /// Starts a server; `None`, with a line of why, where PostgreSQL is not installed. In CI it must be.
    ///
    /// - takes: `options`, as of postgresql.conf: `fsync=off`
    pub(crate) fn start(options: &[&str]) -> Option<Server> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os("CI").is_none(), "apt-get install postgresql");
            eprintln!("skipped: PostgreSQL is not installed (apt-get install postgresql)");
            return None;
        };
        let directory = TempDir::new().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        if let Some((user, group)) = owner() {
            chown(directory.path(), Some(user), Some(group)).unwrap();
        }
        let password = directory.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let mut server = Server { programs, directory, port, options, process: None };
        let made = server
            .program("initdb")
            .args(["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"])
            .arg(format!("--pwfile={}", password.display()))
            .arg("-D")
            .arg(server.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        server.run();
        server.sql("postgres", &format!("CREATE ROLE xmpp LOGIN PASSWORD '{PASSWORD}'"));
        Some(server)
    }

    /// A program of the server's, as its user. It ends with whoever called it.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if let Some((user, group)) = owner() {
            command.arg(format!("--reuid={user}")).arg(format!("--regid={group}"));
            command.arg("--clear-groups");
        }
        command.arg(self.programs.join(name)).current_dir("/").stdin(Stdio::null());
        command
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts the server, again after `stop`.
    pub(crate) fn run(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let mut command = self.program("postgres");
        command.arg("-D").arg(self.data()).arg("-k").arg(self.directory.path());
        command.arg("-p").arg(self.port.to_string());
        for option in ["listen_addresses=127.0.0.1", "shared_buffers=32MB", "max_connections=40"] {
            command.arg("-c").arg(option);
        }
        for option in &self.options {
            command.arg("-c").arg(option);
        }
        let process = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.process = Some(process);
        let began = Instant::now();
        while !self.psql("postgres", "SELECT 1").output().unwrap().status.success() {
            let ended = self.process.as_mut().unwrap().try_wait().unwrap();
            let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(ended.is_none(), "the server has ended: {}", log());
            assert!(began.elapsed() < PATIENCE, "the server does not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// Ends all its processes at once, without a farewell and without a checkpoint.
    pub(crate) fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        signal("QUIT", process.id());
        let began = Instant::now();
        while process.try_wait().unwrap().is_none() {
            if began.elapsed() > PATIENCE {
                let _ = process.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Holds all its processes; they let go of nothing, and answer nothing.
    pub(crate) fn pause(&self) {
        for process in self.processes() {
            signal("STOP", process);
        }
    }

    pub(crate) fn resume(&self) {
        for process in self.processes() {
            signal("CONT", process);
        }
    }

    fn processes(&self) -> Vec<u32> {
        let Some(process) = &self.process else { return Vec::new() };
        let itself = process.id();
        let children = format!("/proc/{itself}/task/{itself}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|id| id.parse().ok());
        std::iter::once(itself).chain(children).collect()
    }

    fn psql(&self, database: &str, sql: &str) -> Command {
        let mut command = Command::new(self.programs.join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "postgres"]);
        command.arg("-h").arg(self.directory.path()).arg("-p").arg(self.port.to_string());
        command.args(["-d", database, "-c", sql]).stdin(Stdio::null());
        command
    }

    /// Runs statements as the server's operator; gives what they print.
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database, sql).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Makes an empty database that `xmpp` owns.
    pub(crate) fn database(&self, name: &str) {
        self.sql("postgres", &format!("CREATE DATABASE {name} OWNER xmpp TEMPLATE template0"));
    }

    /// Over TCP, without the password.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://xmpp@127.0.0.1:{}/{database}", self.port)
    }

    /// Over TCP, with the password.
    pub(crate) fn url_with_password(&self, database: &str) -> String {
        format!("postgres://xmpp:pass%20word%2F%40%3A%25@127.0.0.1:{}/{database}", self.port)
    }

    /// Over the Unix socket, where no password is asked for.
    pub(crate) fn socket_url(&self, database: &str) -> String {
        let directory = self.directory.path().display();
        format!("postgres:///{database}?host={directory}&port={}&user=xmpp", self.port)
    }

    /// Writes a file that only the server and root may read; gives its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        if let Some((user, group)) = owner() {
            chown(&path, Some(user), Some(group)).unwrap();
        }
        path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.resume();
        self.stop();
    }
}

fn signal(name: &str, process: u32) {
    // One that has just ended needs no signal.
    let _ = Command::new("kill").arg(format!("-{name}")).arg(process.to_string()).output();
}
