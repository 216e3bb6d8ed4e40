//! The disk that can be told to fail: builds `shim.c`, puts it under a node, and says what it shall do.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::node::{Node, Place};

/// Bytes of `struct control`, and where its parts are.
const CONTROL: usize = 48;
const FSYNC_FAULT: u64 = 0;
const WRITE_FAULT: u64 = 4;
const FSYNC_MS: u64 = 8;
const WALL_S: u64 = 16;
const FAULTS: u64 = 32;

/// A page of the file, which reaches the disk as one.
const PAGE: usize = 4096;

const PATIENCE: Duration = Duration::from_secs(30);

/// What happens to the writes of the database.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Writes {
    Sound = 0,
    /// EIO.
    Fail = 1,
    /// What makes a file longer is cut short, then ENOSPC.
    NoRoom = 2,
    /// Each call writes half of what it was given.
    Short = 3,
}

/// What a power cut leaves of the writes that no fsync brought to the disk.
#[derive(Clone, Copy)]
pub(super) enum Unsynced {
    Lost,
    /// Of each page either the old or the new state, by chance.
    Mixed(u64),
}

pub(super) struct Disk {
    dir: tempfile::TempDir,
    data: PathBuf,
    control: File,
}

impl Disk {
    pub(super) fn under(place: &Place) -> Disk {
        let dir = tempfile::tempdir().unwrap();
        for name in ["disk", "pending"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let path = dir.path().join("control");
        fs::write(&path, [0; CONTROL]).unwrap();
        let control = File::options().read(true).write(true).open(path).unwrap();
        let data = place.data_dir();
        fs::create_dir_all(&data).unwrap();
        Disk { dir, data: data.canonicalize().unwrap(), control }
    }

    /// Starts a node on this disk, where all that is in the directory has been synced.
    #[track_caller]
    pub(super) fn start(&self, place: &Place) -> Node {
        self.sync();
        place.start_as(self.program(place))
    }

    /// Starts a node and kills it after a while, ready or not.
    pub(super) fn start_and_kill(&self, place: &Place, after: Duration) {
        self.sync();
        let mut command = self.program(place);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn sync(&self) {
        let disk = self.dir.path().join("disk");
        for dir in [&disk, &self.dir.path().join("pending")] {
            for name in database_files(dir) {
                fs::remove_file(dir.join(name)).unwrap();
            }
        }
        for name in database_files(&self.data) {
            fs::copy(self.data.join(&name), disk.join(&name)).unwrap();
        }
    }

    pub(super) fn program(&self, place: &Place) -> Command {
        let mut command = place.program(&["serve"]);
        command.env("LD_PRELOAD", library());
        command.env("FAULTS_DIR", self.dir.path()).env("FAULTS_DATA", &self.data);
        command
    }

    pub(super) fn writes(&self, writes: Writes) {
        self.put(WRITE_FAULT, writes as u32);
    }

    pub(super) fn fail_fsync(&self, fails: bool) {
        self.put(FSYNC_FAULT, u32::from(fails));
    }

    pub(super) fn slow_fsync(&self, by: Duration) {
        self.put(FSYNC_MS, u32::try_from(by.as_millis()).unwrap());
    }

    /// The wall clock of the node is off by so many seconds.
    pub(super) fn shift_clock(&self, seconds: i64) {
        self.control.write_all_at(&seconds.to_ne_bytes(), WALL_S).unwrap();
    }

    /// How often a call has failed so far.
    pub(super) fn faults(&self) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, FAULTS).unwrap();
        u64::from_ne_bytes(bytes)
    }

    #[track_caller]
    pub(super) fn wait_for_fault(&self, since: u64) {
        let until = Instant::now() + PATIENCE;
        while self.faults() == since {
            assert!(Instant::now() < until, "the disk was not asked to do anything");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The power is back: the directory holds what was on the disk. The node must have been killed.
    ///
    /// - gives: bytes that differ from what the node had written
    pub(super) fn after_power_cut(&self, unsynced: Unsynced) -> usize {
        let disk = self.dir.path().join("disk");
        let mut differing = 0;
        let names: BTreeSet<String> =
            database_files(&self.data).into_iter().chain(database_files(&disk)).collect();
        let mut random = match unsynced {
            Unsynced::Lost => 0,
            Unsynced::Mixed(seed) => seed | 1,
        };
        for name in names {
            let written = fs::read(self.data.join(&name)).unwrap_or_default();
            let Ok(synced) = fs::read(disk.join(&name)) else {
                differing += written.len();
                fs::remove_file(self.data.join(&name)).unwrap();
                continue;
            };
            let kept = match unsynced {
                Unsynced::Lost => synced,
                Unsynced::Mixed(_) => mixed(&synced, &written, &mut random),
            };
            let same = kept.iter().zip(&written).filter(|(kept, written)| kept == written).count();
            differing += written.len().max(kept.len()) - same;
            fs::write(self.data.join(&name), kept).unwrap();
        }
        // It was memory.
        let _ = fs::remove_file(self.data.join("corefire.db-shm"));
        differing
    }

    fn put(&self, at: u64, value: u32) {
        self.control.write_all_at(&value.to_ne_bytes(), at).unwrap();
    }
}

/// What is kept in files, by name.
fn database_files(dir: &std::path::Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    names
        .map(|name| name.into_string().unwrap())
        .filter(|name| name.starts_with("corefire.db") && !name.ends_with("-shm"))
        .collect()
}

fn mixed(synced: &[u8], written: &[u8], random: &mut u64) -> Vec<u8> {
    let mut kept = Vec::new();
    let length = if next(random).is_multiple_of(2) { synced.len() } else { written.len() };
    for at in (0..length).step_by(PAGE) {
        // A file that was made shorter is so on the disk or not: it has no hole where its end was. With one, the start of
        // a WAL that was brought into the database and cut would be replayed into it, which no file system does.
        let is_cut = at >= written.len();
        let from = if is_cut || next(random).is_multiple_of(2) { synced } else { written };
        let end = (at + PAGE).min(length);
        let there = from.get(at..end.min(from.len())).unwrap_or_default();
        kept.extend_from_slice(there);
        kept.resize(end, 0);
    }
    kept
}

/// Xorshift.
pub(super) fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The shim, built once.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/node/faults/shim.c");
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        // Another run of the tests may build it at the same time.
        let path = dir.join(format!("faults-{}.so", std::process::id()));
        let mut compiler = Command::new("cc");
        compiler.args(["-Wall", "-Wextra", "-O1", "-shared", "-fPIC", "-o"]).arg(&path);
        let output = compiler.arg(source).arg("-ldl").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let named = dir.join("faults.so");
        fs::rename(path, &named).unwrap();
        named
    })
}
