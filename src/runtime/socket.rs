//! What a socket can do that neither glommio nor the standard library has a way to: writing beside the task that reads it,
//! half-closing, a reset at the end, and a second number for it.

use glommio::net::{TcpListener, TcpStream};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// A stream over an open socket.
#[expect(unsafe_code, reason = "glommio takes a socket by its number only")]
pub(super) fn stream(fd: OwnedFd) -> TcpStream {
    // SAFETY: `fd` is an open socket, and owned by nobody else once it is a raw number.
    unsafe { TcpStream::from_raw_fd(fd.into_raw_fd()) }
}

/// A listener of this core over one that listens already.
#[expect(unsafe_code, reason = "glommio takes a socket by its number only")]
pub(super) fn listener(socket: std::net::TcpListener) -> TcpListener {
    // SAFETY: `socket` is an open socket, and owned by nobody else once it is a raw number.
    unsafe { TcpListener::from_raw_fd(OwnedFd::from(socket).into_raw_fd()) }
}

/// A non-blocking send; `None` where the kernel takes nothing now.
///
/// - `fd`: of a socket whose task lives, so that the number is its own
#[expect(unsafe_code, reason = "a send without a signal, on a socket that a task reads")]
pub(super) fn send(fd: RawFd, bytes: &[u8]) -> io::Result<Option<usize>> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the descriptor is open, as its task takes the state out before it drops the socket; the kernel reads
    // `bytes.len()` bytes from a slice that lives during the call.
    let sent = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) };
    if sent >= 0 {
        return Ok(usize::try_from(sent).ok());
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
        _ => Err(error),
    }
}

/// Sends sealed records from `left` on; false where the kernel takes no more. When all have left the buffer is given back.
pub(super) fn send_records(fd: RawFd, sealed: &mut Vec<u8>, left: &mut usize) -> io::Result<bool> {
    while *left < sealed.len() {
        match send(fd, &sealed[*left..])? {
            Some(length) => *left += length,
            None => return Ok(false),
        }
    }
    *left = 0;
    sealed.clear();
    if sealed.capacity() > 0 {
        // An idle connection holds no buffer.
        *sealed = Vec::new();
    }
    Ok(true)
}

/// Ends our side; what the peer says is still read.
///
/// - `fd`: of a socket whose task lives
#[expect(unsafe_code, reason = "half-closing a socket that a task reads")]
pub(super) fn shut(fd: RawFd) {
    // SAFETY: the descriptor is open, as its task takes the state out before it drops the socket.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Has a socket that is about to be dropped end by a reset: one system call, and nothing of it stays in the kernel.
#[expect(unsafe_code, reason = "glommio has no linger")]
pub(super) fn reset(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = libc::socklen_t::try_from(size_of::<libc::linger>()).unwrap_or(0);
    // SAFETY: the descriptor is open for as long as `stream` lives; the kernel copies `linger`.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            std::ptr::from_ref(&linger).cast(),
            length,
        );
    }
}

/// A second number for a socket whose task lives.
#[expect(unsafe_code, reason = "a second number for a socket that glommio does not give away")]
pub(super) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open, as its task takes the state out before it drops the socket.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}
