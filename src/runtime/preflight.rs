//! What the system must grant before cores are started: io_uring, locked memory, file descriptors. Each refusal is one
//! line of cause and remedy.

use std::fmt;
use std::io;

/// Memory that one core's rings and buffers lock; measured at 240 KiB for `executor`'s settings.
const LOCKED_PER_CORE: u64 = 256 << 10;
/// Below this the runtime refuses to start, however few cores there are.
const LOCKED_MIN: u64 = 512 << 10;
/// Descriptors that a core needs for itself, and the node for its store, log and command line.
const FILES_PER_CORE: u64 = 16;
const FILES_RESERVED: u64 = 64;
/// Descriptors below which a node is of no use.
const FILES_FOR_CLIENTS_MIN: u64 = 32;

#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(
        "this kernel has no io_uring ({0}); run Linux 5.8 or later with CONFIG_IO_URING, outside of gVisor and the like"
    )]
    NoUring(io::Error),
    #[error(
        "io_uring is switched off on this machine (kernel.io_uring_disabled = {0}); run: sysctl kernel.io_uring_disabled=0"
    )]
    UringDisabled(String),
    #[error(
        "io_uring is forbidden to this process ({0}); in a container, allow io_uring_setup, io_uring_enter and io_uring_register in its seccomp profile"
    )]
    UringForbidden(io::Error),
    #[error(
        "{cores} need {needed} KiB of locked memory and this user may lock {granted}; raise it (systemd: LimitMEMLOCK={needed}K, shell: ulimit -l {needed}), or set node.shards lower"
    )]
    LockedMemory { cores: Cores, needed: u64, granted: u64 },
    #[error(
        "this process may open {granted} files and {cores} need at least {needed}; raise it (systemd: LimitNOFILE={wanted}, shell: ulimit -n {wanted})"
    )]
    Files { cores: Cores, needed: u64, granted: u64, wanted: u64 },
}

/// What a node is to start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cores {
    pub shards: u16,
    pub federation: u16,
    /// Connections that other servers make and that are made to them, at most.
    pub peers: usize,
}

impl Cores {
    fn count(self) -> u64 {
        u64::from(self.shards) + u64::from(self.federation)
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} shards", self.shards)?;
        match self.federation {
            0 => Ok(()),
            federation => write!(f, " and {federation} executors of federation"),
        }
    }
}

/// What the system granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Client connections that descriptors are left for.
    pub connections: usize,
}

/// Checks all of it, and raises the soft limit of descriptors as far as it may go.
///
/// - takes: `connections` of clients; those of other servers go before them
pub fn check(cores: Cores, connections: usize) -> Result<Granted, Refusal> {
    uring()?;
    locked_memory(cores)?;
    files(cores, connections)
}

fn uring() -> Result<(), Refusal> {
    let setting = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match probe_uring() {
        Ok(()) => Ok(()),
        Err(error) => Err(explain(error, setting.trim())),
    }
}

fn explain(error: io::Error, disabled: &str) -> Refusal {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Refusal::NoUring(error),
        Some(libc::EPERM) if !matches!(disabled, "" | "0") => {
            Refusal::UringDisabled(disabled.to_owned())
        }
        _ => Refusal::UringForbidden(error),
    }
}

/// Sets up the smallest ring and closes it again. Lack of locked memory is found by its own check.
#[expect(unsafe_code, reason = "the standard library has no call for it")]
fn probe_uring() -> io::Result<()> {
    // Larger than struct io_uring_params of any kernel so far.
    let mut params = [0_u8; 256];
    // SAFETY: the kernel writes its 120 bytes of params into 256 that are ours and alive during the call.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 2, params.as_mut_ptr()) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOMEM) { Ok(()) } else { Err(error) };
    }
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the descriptor was just made here and is used nowhere else.
    unsafe { libc::close(fd) };
    Ok(())
}

fn locked_memory(cores: Cores) -> Result<(), Refusal> {
    let needed = (cores.count() * LOCKED_PER_CORE).max(LOCKED_MIN);
    let (granted, _) = limit(libc::RLIMIT_MEMLOCK);
    // The runtime asks for its minimum of everybody; only what rings lock is not counted for a privileged user.
    if granted >= needed || (granted >= LOCKED_MIN && is_privileged()) {
        return Ok(());
    }
    Err(Refusal::LockedMemory { cores, needed: needed >> 10, granted: granted >> 10 })
}

fn files(cores: Cores, connections: usize) -> Result<Granted, Refusal> {
    let own = FILES_RESERVED + FILES_PER_CORE * cores.count();
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX / 4);
    let wanted = own + number(connections) + number(cores.peers);
    let (soft, hard) = limit(libc::RLIMIT_NOFILE);
    let granted = if soft < wanted { raise(hard, wanted).unwrap_or(soft) } else { soft };
    let needed = own + FILES_FOR_CLIENTS_MIN;
    if granted < needed {
        return Err(Refusal::Files { cores, needed, granted, wanted: wanted.min(1 << 20) });
    }
    // Where there are few, they are shared: neither clients nor other servers are without.
    let left = granted - own;
    let left = left.saturating_sub(number(cores.peers).min(left / 2));
    let left = usize::try_from(left).unwrap_or(usize::MAX);
    Ok(Granted { connections: connections.min(left) })
}

/// Descriptors that this process may use, and up to how many it may raise that.
pub(super) fn open_files() -> (u64, u64) {
    limit(libc::RLIMIT_NOFILE)
}

#[expect(unsafe_code, reason = "the standard library has no call for it")]
fn limit(which: libc::__rlimit_resource_t) -> (u64, u64) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit fills the struct that is passed, which lives on this stack.
    unsafe { libc::getrlimit(which, &mut limit) };
    (limit.rlim_cur, limit.rlim_max)
}

#[expect(unsafe_code, reason = "the standard library has no call for it")]
fn raise(hard: u64, wanted: u64) -> Option<u64> {
    let to = wanted.min(hard);
    let limit = libc::rlimit { rlim_cur: to, rlim_max: hard };
    // SAFETY: setrlimit reads the struct that is passed, which lives on this stack.
    let done = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } == 0;
    done.then_some(to)
}

/// CAP_IPC_LOCK, bit 14 of the effective capabilities.
fn is_privileged() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & (1 << 14) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: i32, disabled: &str) -> String {
        explain(io::Error::from_raw_os_error(code), disabled).to_string()
    }

    #[test]
    fn each_refusal_of_io_uring_has_its_remedy() {
        assert!(told(libc::ENOSYS, "").contains("Linux 5.8"));
        assert!(told(libc::EPERM, "2").contains("sysctl kernel.io_uring_disabled=0"));
        assert!(told(libc::EPERM, "0").contains("seccomp"));
        assert!(told(libc::EACCES, "").contains("seccomp"));
    }

    #[test]
    fn this_machine_passes() {
        assert!(
            check(Cores { shards: 1, ..Cores::default() }, 16)
                .is_ok_and(|granted| granted.connections == 16)
        );
    }
}
