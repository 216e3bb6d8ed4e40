//! The program as a child: a directory of its own, free ports, and what it writes.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Longer than a start takes on a machine that does much else.
const START: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(10);

/// A data directory, and the settings of the nodes that are started on it, one after the other.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    settings: Vec<String>,
}

/// A running node. Dropping it kills it.
pub(crate) struct Node {
    child: Child,
    data_dir: PathBuf,
    log: Receiver<String>,
    /// What was logged up to the line that was last waited for.
    pub(crate) logged: Vec<String>,
    pub(crate) plain: SocketAddr,
    pub(crate) direct: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) incarnation: u64,
}

impl Place {
    pub(crate) fn new() -> Place {
        let settings = [
            "c2s.listen=[\"127.0.0.1:0\"]",
            "c2s.direct_tls_listen=[\"127.0.0.1:0\"]",
            "admin.listen=127.0.0.1:0",
            // Two, so that sockets move and messages cross.
            "node.shards=2",
            "auth.scram_iterations=4096",
            "limits.exempt=[\"127.0.0.0/8\"]",
        ];
        Place { dir: tempfile::tempdir().unwrap(), settings: settings.map(str::to_owned).to_vec() }
    }

    /// Lies over what was set before.
    pub(crate) fn set(mut self, setting: &str) -> Place {
        self.add(setting);
        self
    }

    /// As `set`, of one that is there.
    pub(crate) fn add(&mut self, setting: &str) {
        self.settings.push(setting.to_owned());
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The program, with `arguments` and the settings.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corefire"));
        command.args(arguments).arg("--data-dir").arg(self.data_dir());
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.program(arguments).output().unwrap();
        assert!(status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    #[track_caller]
    pub(crate) fn add_user(&self, name: &str, password: &str) {
        self.run(&["user", "add", &format!("{name}@localhost"), "--password", password]);
    }

    /// Where the running node listens, by the key of its configuration.
    #[track_caller]
    pub(crate) fn listener(&self, key: &str) -> SocketAddr {
        let status: serde_json::Value =
            serde_json::from_str(&self.run(&["status", "--json"])).unwrap();
        let listeners = status["listeners"].as_array().unwrap();
        let listener = listeners.iter().find(|one| one["key"] == key).unwrap();
        listener["address"].as_str().unwrap().parse().unwrap()
    }

    #[track_caller]
    pub(crate) fn start(&self) -> Node {
        self.start_as(self.program(&["serve"]))
    }

    #[track_caller]
    pub(crate) fn start_as(&self, mut command: Command) -> Node {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, log) = channel();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let none = SocketAddr::from(([127, 0, 0, 1], 0));
        let data_dir = self.data_dir();
        let mut node = Node {
            child,
            data_dir,
            log,
            logged: Vec::new(),
            plain: none,
            direct: none,
            admin: none,
            incarnation: 0,
        };
        node.wait_for_any(&[" ready ", "\"message\":\"ready\""]);
        let status: serde_json::Value =
            serde_json::from_str(&self.run(&["status", "--json"])).unwrap();
        let address = |key: &str| {
            let listeners = status["listeners"].as_array().unwrap();
            let listener = listeners.iter().find(|one| one["key"] == key).unwrap();
            listener["address"].as_str().unwrap().parse().unwrap()
        };
        node.plain = address("c2s.listen");
        node.direct = address("c2s.direct_tls_listen");
        node.admin = address("admin.listen");
        node.incarnation = status["incarnation"].as_u64().unwrap();
        assert_eq!(status["pid"], node.child.id());
        node
    }

    /// Starts a node that must refuse: one line, after what the log may have said, and exit status 1.
    #[track_caller]
    pub(crate) fn refused(&self, mut command: Command) -> String {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = output_within(child, START);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert_eq!(output.stdout, b"");
        let told: Vec<_> = text.lines().filter(|line| !line.contains(" INFO ")).collect();
        assert_eq!(told.len(), 1, "one line of cause and remedy: {text}");
        told[0].to_owned()
    }
}

impl Node {
    pub(crate) fn certificate(&self) -> PathBuf {
        self.data_dir.join("tls/certificate.pem")
    }

    /// Waits for a line that contains `wanted`.
    #[track_caller]
    pub(crate) fn wait_for_log(&mut self, wanted: &str) -> String {
        self.wait_for_any(&[wanted])
    }

    #[track_caller]
    fn wait_for_any(&mut self, wanted: &[&str]) -> String {
        let until = Instant::now() + START;
        let before = self.logged.len();
        loop {
            match self.log.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.logged.push(line),
                Err(error) => {
                    panic!("{error} instead of {wanted:?}, after: {:#?}", &self.logged[before..])
                }
            }
            let line = &self.logged[self.logged.len() - 1];
            if wanted.iter().any(|wanted| line.contains(wanted)) {
                return line.clone();
            }
        }
    }

    /// What is logged from now on, up to the end.
    #[track_caller]
    pub(crate) fn rest_of_log(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.log.recv_timeout(START) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return lines,
                Err(error) => panic!("{error} after: {lines:#?}"),
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Bytes of memory that the process holds.
    pub(crate) fn rss(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    pub(crate) fn signal(&self, signal: i32) {
        crate::restrict::send_signal(self.child.id(), signal);
    }

    /// SIGTERM; gives how long the end took.
    #[track_caller]
    pub(crate) fn stop(mut self) -> Duration {
        let began = Instant::now();
        self.signal(libc::SIGTERM);
        let status = ended_within(&mut self.child, START);
        let log: Vec<_> = self.log.try_iter().collect();
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{log:#?}");
        began.elapsed()
    }

    /// Waits for an end that nobody asked for; gives the exit code.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Option<i32> {
        ended_within(&mut self.child, START).expect("it ends").code()
    }

    /// SIGKILL, if it has not ended; gives all that was logged.
    pub(crate) fn last_words(&mut self) -> Vec<String> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let rest = self.rest_of_log();
        std::mem::take(&mut self.logged).into_iter().chain(rest).collect()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.last_words();
        assert_eq!(self.child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The standard library has no wait with a limit.
fn ended_within(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > until {
            return None;
        }
        std::thread::sleep(STEP);
    }
}

/// For children that write little: nobody reads the pipes before the end.
#[track_caller]
fn output_within(mut child: Child, patience: Duration) -> Output {
    if ended_within(&mut child, patience).is_none() {
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        panic!("it runs instead of refusing: {}", String::from_utf8_lossy(&output.stderr));
    }
    child.wait_with_output().unwrap()
}
