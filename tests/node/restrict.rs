//! What a system may deny to a node: system calls, limits, rights. Set in the child, before it becomes the program.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What overrides the modes of files; and what overrides the limit of locked memory.
pub(crate) const CAP_DAC_OVERRIDE: libc::c_ulong = 1;
pub(crate) const CAP_IPC_LOCK: libc::c_ulong = 14;

/// Returns of a filter, and of it without its low half (linux/seccomp.h).
const RETURN_ERRNO: u32 = libc::SECCOMP_RET_ERRNO;
const RETURN_ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NOT_PERMITTED: u32 = RETURN_ERRNO | libc::EPERM as u32;

/// Where in what a filter sees the number of the call is, and the lower half of its first argument.
const NUMBER: u32 = 0;
const FIRST_ARGUMENT: u32 = 16;

/// io_uring_setup fails with `errno` in the program.
pub(crate) fn without_uring(command: &mut Command, errno: i32) {
    let setup = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let filter = vec![
        load(NUMBER),
        unless(setup, 1),
        give(RETURN_ERRNO | u32::try_from(errno).unwrap()),
        give(RETURN_ALLOW),
    ];
    install(command, filter);
}

/// A barrier on all cores of the program fails, which ends it (membarrier(2), MEMBARRIER_CMD_PRIVATE_EXPEDITED).
pub(crate) fn without_barriers(command: &mut Command) {
    let membarrier = u32::try_from(libc::SYS_membarrier).unwrap();
    let filter = vec![
        load(NUMBER),
        unless(membarrier, 3),
        load(FIRST_ARGUMENT),
        unless(1 << 3, 1),
        give(NOT_PERMITTED),
        give(RETURN_ALLOW),
    ];
    install(command, filter);
}

/// Every system call but these fails with EPERM in the program, as under the profile of a container.
pub(crate) fn allow_only(command: &mut Command, numbers: &[u32]) {
    let mut filter = vec![load(NUMBER)];
    for number in numbers {
        filter.extend([unless(*number, 1), give(RETURN_ALLOW)]);
    }
    filter.push(give(NOT_PERMITTED));
    install(command, filter);
}

fn instruction(code: u32, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: u16::try_from(code).unwrap(), jt: 0, jf, k }
}

/// Takes the word at `offset` of what a filter sees.
fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, offset)
}

/// Goes past so many instructions if the word is another.
fn unless(word: u32, past: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, past, word)
}

fn give(verdict: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, 0, verdict)
}

/// The program runs under this filter.
#[expect(unsafe_code, reason = "between fork and exec")]
fn install(command: &mut Command, mut filter: Vec<libc::sock_filter>) {
    let len = u16::try_from(filter.len()).unwrap();
    let install = move || {
        let program = libc::sock_fprog { len, filter: filter.as_mut_ptr() };
        // SAFETY: prctl reads the program, whose instructions the closure owns.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

/// Both limits of a resource become `most`, as far as they may.
#[expect(unsafe_code, reason = "between fork and exec")]
pub(crate) fn limit(command: &mut Command, resource: libc::__rlimit_resource_t, most: u64) {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    let install = move || {
        // SAFETY: setrlimit reads the struct, which the closure owns.
        let done = unsafe { libc::setrlimit(resource, &limit) == 0 };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(install) };
}

/// The program lacks this right, even where root runs the tests.
#[expect(unsafe_code, reason = "between fork and exec")]
pub(crate) fn without_right(command: &mut Command, capability: libc::c_ulong) {
    let install = move || {
        // SAFETY: prctl takes two numbers. Who may not drop the right has none to drop.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        Ok(())
    };
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(install) };
}

#[expect(unsafe_code, reason = "the standard library sends no signal but SIGKILL")]
pub(crate) fn send_signal(pid: u32, signal: i32) {
    let pid = i32::try_from(pid).unwrap();
    // SAFETY: kill takes two numbers; the child has not been waited for, so the number is its own.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}
