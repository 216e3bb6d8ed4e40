//! What a service manager is told (systemd, Type=notify): a datagram to the socket that `NOTIFY_SOCKET` names. Source:
//! sd_notify(3).

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Tells the manager, if there is one. Failures are logged: the node serves without it.
pub fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
        return;
    };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| send(&address, state));
    if let Err(error) = sent {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

fn send(address: &SocketAddr, state: &str) -> io::Result<()> {
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), address).map(|_| ())
}

/// The fields that go with `RELOADING=1`: the manager takes the `READY=1` that follows for the end of this reload.
#[expect(unsafe_code, reason = "the standard library does not tell the clock's own time")]
pub fn reloading() -> String {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the struct that is passed, which lives on this stack.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    format!("RELOADING=1\nMONOTONIC_USEC={}", time.tv_sec * 1_000_000 + time.tv_nsec / 1_000)
}

/// How often the manager wants to hear that the node lives: half of what it waits for.
pub fn watchdog() -> Option<Duration> {
    let text = std::env::var("WATCHDOG_USEC").ok()?;
    let for_us =
        std::env::var("WATCHDOG_PID").map_or(true, |pid| pid.parse() == Ok(std::process::id()));
    let micros: u64 = text.parse().ok().filter(|micros| *micros > 0 && for_us)?;
    Some(Duration::from_micros(micros / 2).max(Duration::from_millis(10)))
}
