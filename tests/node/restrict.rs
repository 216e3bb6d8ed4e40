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

/// io_uring_setup fails with `errno` in the program.
#[expect(unsafe_code, reason = "between fork and exec")]
pub(crate) fn without_uring(command: &mut Command, errno: i32) {
    let setup = u32::try_from(libc::SYS_io_uring_setup).unwrap();
    let errno = RETURN_ERRNO | u32::try_from(errno).unwrap();
    let instruction =
        |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let mut filter = [
        // The number of the call is the first field of what a filter sees.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, setup),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, errno),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, RETURN_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: prctl reads the program, whose four instructions the closure owns.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

/// A barrier on all cores of the program fails, which ends it (membarrier(2), MEMBARRIER_CMD_PRIVATE_EXPEDITED).
#[expect(unsafe_code, reason = "between fork and exec")]
pub(crate) fn without_barriers(command: &mut Command) {
    let membarrier = u32::try_from(libc::SYS_membarrier).unwrap();
    let errno = RETURN_ERRNO | u32::try_from(libc::EPERM).unwrap();
    let instruction =
        |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    let mut filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 3, membarrier),
        // The lower half of the first argument.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 16),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, 1 << 3),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, errno),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, RETURN_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: 6, filter: filter.as_mut_ptr() };
        // SAFETY: prctl reads the program, whose six instructions the closure owns.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe { command.pre_exec(install) };
}

/// Every system call but these fails with EPERM in the program, as under the profile of a container.
#[expect(unsafe_code, reason = "between fork and exec")]
pub(crate) fn allow_only(command: &mut Command, numbers: &[u32]) {
    let instruction =
        |code: u32, jt, jf, k| libc::sock_filter { code: u16::try_from(code).unwrap(), jt, jf, k };
    // The number of the call is the first field of what a filter sees.
    let mut filter = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for number in numbers {
        filter.push(instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *number));
        filter.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, RETURN_ALLOW));
    }
    let errno = RETURN_ERRNO | u32::try_from(libc::EPERM).unwrap();
    filter.push(instruction(libc::BPF_RET | libc::BPF_K, 0, 0, errno));
    let length = u16::try_from(filter.len()).unwrap();
    let install = move || {
        let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
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
