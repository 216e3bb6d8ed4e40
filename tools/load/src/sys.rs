//! The system calls that the standard library does not wrap: epoll, CPU clocks, affinity, descriptor limit, SIGTERM.
#![expect(unsafe_code, reason = "these calls have no safe form in the standard library")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Events that one wait can return; more stay for the next.
const EVENTS_MAX: usize = 512;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What happened to a registered descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// The token given at registration.
    pub token: u64,
    /// Bytes, an end or an error wait to be read.
    pub readable: bool,
    /// The socket takes bytes, or the connection attempt is over.
    pub writable: bool,
}

/// A level-triggered epoll instance.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the result is checked and then owned by nobody else.
        let epoll =
            unsafe { OwnedFd::from_raw_fd(check(libc::epoll_create1(libc::EPOLL_CLOEXEC))?) };
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    fn control(
        &self,
        operation: libc::c_int,
        fd: RawFd,
        token: u64,
        read: bool,
        write: bool,
    ) -> io::Result<()> {
        let interest =
            if read { libc::EPOLLIN } else { 0 } | if write { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event { events: interest as u32, u64: token };
        // SAFETY: `event` lives through the call; the kernel copies it.
        check(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &mut event) })?;
        Ok(())
    }

    /// Watches for reading, and for writing if asked. A closed descriptor leaves by itself.
    pub fn add(&self, fd: RawFd, token: u64, write: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, true, write)
    }

    /// Changes whether reading and writing are watched.
    pub fn modify(&self, fd: RawFd, token: u64, read: bool, write: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, read, write)
    }

    /// Waits for events into `ready` (cleared first); `None` waits without end. An interrupted wait returns empty.
    pub fn wait(&mut self, timeout: Option<Duration>, ready: &mut Vec<Ready>) -> io::Result<()> {
        ready.clear();
        let limit = timeout.map(|t| libc::timespec {
            tv_sec: t.as_secs().min(i32::MAX as u64) as libc::time_t,
            tv_nsec: libc::c_long::from(t.subsec_nanos() as i32),
        });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // epoll_pwait2 because a planned send time needs more than whole milliseconds.
        // SAFETY: the buffer has room for EVENTS_MAX events; `limit` is null or points to a live timespec.
        let count = unsafe {
            libc::syscall(
                libc::SYS_epoll_pwait2,
                self.epoll.as_raw_fd(),
                self.events.as_mut_ptr(),
                EVENTS_MAX as libc::c_int,
                limit,
                std::ptr::null::<libc::sigset_t>(),
                0usize,
            )
        };
        let count = match check(count as libc::c_int) {
            Ok(count) => count as usize,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel has written `count` events, at most the capacity.
        unsafe { self.events.set_len(count) };
        ready.extend(self.events.iter().map(|event| {
            let bits = event.events;
            let broken = bits & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0;
            Ready {
                token: event.u64,
                readable: broken || bits & libc::EPOLLIN as u32 != 0,
                writable: broken || bits & libc::EPOLLOUT as u32 != 0,
            }
        }));
        Ok(())
    }
}

fn read_clock(clock: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a live timespec.
    check(unsafe { libc::clock_gettime(clock, &mut time) })?;
    Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
}

/// CPU time of a process, user and system, all its threads and those that ended; nanoseconds, unlike `/proc/PID/stat`.
pub fn process_cpu(pid: u32) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is live; the call returns an error number instead of setting errno.
    let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    read_clock(clock)
}

/// CPU time of the children that have ended and been waited for.
pub fn children_cpu() -> io::Result<Duration> {
    // SAFETY: an all-zero rusage is a valid one, and it lives through the call.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        check(libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage))?;
        usage
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

/// Time of the clock behind [`std::time::Instant`], which all processes of a machine share.
pub fn monotonic() -> io::Result<Duration> {
    read_clock(libc::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread.
pub fn thread_cpu() -> io::Result<Duration> {
    read_clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Cores on which the calling thread may run.
pub fn affinity() -> io::Result<Vec<usize>> {
    affinity_of(0)
}

/// Cores on which a thread may run; 0 is the calling one.
pub fn affinity_of(thread: u32) -> io::Result<Vec<usize>> {
    // SAFETY: an all-zero cpu_set_t is an empty set, and it lives through the calls.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let thread = thread as libc::pid_t;
        check(libc::sched_getaffinity(thread, size_of::<libc::cpu_set_t>(), &mut set))?;
        Ok((0..libc::CPU_SETSIZE as usize).filter(|core| libc::CPU_ISSET(*core, &set)).collect())
    }
}

/// Binds the calling thread to `cores`; children started by it inherit that.
pub fn set_affinity(cores: &[usize]) -> io::Result<()> {
    set_affinity_of(0, cores)
}

/// Binds a thread to `cores`; 0 is the calling one.
pub fn set_affinity_of(thread: u32, cores: &[usize]) -> io::Result<()> {
    // SAFETY: as above; the filter keeps the index inside the set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        for core in cores.iter().filter(|core| **core < libc::CPU_SETSIZE as usize) {
            libc::CPU_SET(*core, &mut set);
        }
        let thread = thread as libc::pid_t;
        check(libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &set))?;
    }
    Ok(())
}

/// Lets the calling thread's timed waits end within a microsecond of the wish instead of 50.
pub fn precise_timers() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000 as libc::c_ulong) })?;
    Ok(())
}

/// Lets the calling thread go before all others of its cores; what it starts does not inherit that. False where the
/// process may not (it needs CAP_SYS_NICE).
pub fn go_first() -> bool {
    // SAFETY: zeroed is a valid `sched_param`.
    let mut wish: libc::sched_param = unsafe { std::mem::zeroed() };
    wish.sched_priority = 1;
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `wish` is live during the call; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, policy, &wish) == 0 }
}

/// Lets every other thread go before the calling one.
pub fn yield_to_others() {
    // SAFETY: numbers only; 0 is the calling thread. Where it is refused, the thread stays as it is.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
}

/// The limit of open descriptors as it is, and as far as it can be raised.
pub fn descriptor_limits() -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live in the call.
    unsafe { check(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))? };
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// Raises the soft limit of open descriptors to the hard one and gives it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is live in both calls.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
    }
    Ok(limit.rlim_cur)
}

/// Asks a process to end (SIGTERM).
pub fn terminate(pid: u32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) })?;
    Ok(())
}
