//! A core that the machine's other programs leave while it is measured: `--alone`.
//!
//! Where a core is busy, all that it had beside moves to the others: a shell, a log that is searched, kernel threads. What
//! they take of the shard's core, some milliseconds a second, is far above its p99.9, and would be told as federation's.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::read_dir;
use std::io::ErrorKind;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{Error, sys};

/// Threads that run elsewhere until this is dropped.
struct Others {
    core: usize,
    /// With the cores that they had.
    moved: Vec<(u32, Vec<usize>)>,
    /// All that there were.
    seen: HashSet<u32>,
}

impl Others {
    /// Everything that may leave the core does, but this process; what is started later by others stays away with them.
    ///
    /// - errors: this takes root
    fn away_from(core: usize) -> Result<Self, Error> {
        let mut others = Self { core, moved: Vec::new(), seen: threads()?.into_iter().collect() };
        for thread in others.seen.iter().copied() {
            // It has ended, or has no other core.
            let Ok(before) = sys::affinity_of(thread) else { continue };
            let rest: Vec<usize> = before.iter().copied().filter(|one| *one != core).collect();
            if rest.is_empty() || rest.len() == before.len() {
                continue;
            }
            match sys::set_affinity_of(thread, &rest) {
                Ok(()) => others.moved.push((thread, before)),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    return Err(Error::Config("--alone takes root".to_owned()));
                }
                // Ended meanwhile, or a thread of the kernel that belongs where it is.
                Err(_) => {}
            }
        }
        Ok(others)
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for (thread, before) in &self.moved {
            // Who has ended needs nothing.
            let _ = sys::set_affinity_of(*thread, before);
        }
        // What they started meanwhile, with all the cores but one that most of them had.
        let Some((_, most)) = self.moved.iter().max_by_key(|(_, before)| before.len()) else {
            return;
        };
        let rest: Vec<usize> = most.iter().copied().filter(|one| *one != self.core).collect();
        for thread in threads().unwrap_or_default() {
            if !self.seen.contains(&thread) && sys::affinity_of(thread).is_ok_and(|now| now == rest)
            {
                let _ = sys::set_affinity_of(thread, most);
            }
        }
    }
}

/// Of all processes but this one.
fn threads() -> Result<Vec<u32>, Error> {
    let numbers = |folder: &str| -> std::io::Result<Vec<u32>> {
        let names = read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.file_name());
        Ok(names.filter_map(|name| name.to_str()?.parse().ok()).collect())
    };
    let processes = numbers("/proc").map_err(|error| Error::Io("/proc", error))?;
    let others = processes.into_iter().filter(|process| *process != std::process::id());
    Ok(others
        .flat_map(|process| numbers(&format!("/proc/{process}/task")).unwrap_or_default())
        .collect())
}

/// Runs this program with these arguments, on a core that others have left; they come back when it ends, however it does.
///
/// - gives: its exit status
pub(super) fn run(core: usize, arguments: &[OsString]) -> Result<u8, Error> {
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))
            .map_err(|error| Error::Io("signals", error))?;
    }
    let itself = std::env::current_exe().map_err(|error| Error::Io("this program", error))?;
    let others = Others::away_from(core)?;
    let status = Command::new(itself).args(arguments).status();
    drop(others);
    let status = status.map_err(|error| Error::Io("a second of this program", error))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(2))
}
