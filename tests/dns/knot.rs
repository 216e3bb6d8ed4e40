//! knot as a server of the test's own.

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = "/usr/sbin/knotd";

/// Ends with the value.
pub(crate) struct Knot {
    child: Child,
    folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
}

impl Knot {
    /// - takes: zones by name, `+` in front for one that is signed; the lines are relative to it
    /// - gives: none where it is not installed, which in CI is a failure
    pub(crate) fn start(zones: &[(&str, &str)]) -> Option<Knot> {
        if !Path::new(PROGRAM).exists() {
            assert!(std::env::var_os("CI").is_none(), "knot is not installed");
            eprintln!("dns: knot is not installed: skipped");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let address = free();
        std::fs::write(folder.path().join("knot.conf"), written(folder.path(), address, zones))
            .unwrap();
        let child = Command::new(PROGRAM)
            .arg("-c")
            .arg(folder.path().join("knot.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let knot = Knot { child, folder, address };
        // It listens before its zones are loaded, and a zone has no answer before it is signed.
        for (zone, _) in zones {
            let zone = zone.trim_start_matches('+');
            until(&format!("knot serves {zone}"), || has_soa(address, zone).then_some(()));
        }
        Some(knot)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file with the key of a signed zone.
    pub(crate) fn anchor(&self, zone: &str) -> PathBuf {
        let text = until("keymgr tells the key", || {
            let output = Command::new("keymgr")
                .arg("-c")
                .arg(self.folder().join("knot.conf"))
                .args([&format!("{zone}."), "dnskey"])
                .output()
                .unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.contains(" DNSKEY ").then_some(text)
        });
        let path = self.folder().join(format!("{zone}.anchor"));
        std::fs::write(&path, text.replace(" DNSKEY ", " IN DNSKEY ")).unwrap();
        path
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again until there is an answer.
fn until<T>(what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether there is a record for the start of the zone (RFC 1035 §4.1).
fn has_soa(address: SocketAddr, zone: &str) -> bool {
    let mut question = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in zone.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 6, 0, 1]);
    let ask = || -> std::io::Result<bool> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(500)))?;
        socket.send_to(&question, address)?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        // Its code, and how many records it has.
        Ok(length > 12 && answer[3] & 15 == 0 && answer[6..8] != [0, 0])
    };
    ask().unwrap_or(false)
}

/// The zones are written beside.
fn written(folder: &Path, address: SocketAddr, zones: &[(&str, &str)]) -> String {
    let path = folder.display();
    let mut text = format!(
        "server:\n    rundir: {path}\n    listen: {}@{}\n    tcp-workers: 2\n    udp-workers: 2\n\
         database:\n    storage: {path}/db\n\
         log:\n  - target: stderr\n    any: warning\n\
         policy:\n  - id: one\n    single-type-signing: on\n    algorithm: ecdsap256sha256\n\
         zone:\n",
        address.ip(),
        address.port(),
    );
    std::fs::create_dir(folder.join("db")).unwrap();
    for (name, lines) in zones {
        let (name, is_signed) = match name.strip_prefix('+') {
            Some(name) => (name, true),
            None => (*name, false),
        };
        let file = folder.join(format!("{name}.zone"));
        let zone = format!(
            "$ORIGIN {name}.\n$TTL 300\n@ SOA ns x 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\n{lines}"
        );
        std::fs::write(&file, zone).unwrap();
        write!(text, "  - domain: {name}\n    file: {}\n", file.display()).unwrap();
        if is_signed {
            text.push_str(
                "    dnssec-signing: on\n    dnssec-policy: one\n    zonefile-sync: -1\n    \
                 zonefile-load: difference\n    journal-content: all\n",
            );
        }
    }
    text
}

/// A port that nobody has, neither UDP nor TCP.
fn free() -> SocketAddr {
    for _ in 0..100 {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port is free for both");
}
