//! The `corefire` program: hands its arguments to `cli`.

fn main() -> std::process::ExitCode {
    corefire::cli::main()
}

/// Stands in for the C library's function in this program, and does the same, but for one call.
///
/// Before an executor of glommio sleeps it has the kernel put a barrier on each core that runs a thread of the process
/// (`membarrier`, in `sys/uring.rs`): an interrupt for all who serve somebody else, once a message where there are few, and a
/// quarter of what such a message costs. What it is to keep in order is the flag that the executor sleeps, which it writes,
/// and the queues that it reads then; who fills a queue reads the flag by an exchange, which is a barrier on this processor. So a
/// fence of this core is enough.
///
/// - source: `membarrier(2)`; `SleepNotifier` of glommio 0.9; System V ABI for AMD64, A.2.1
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[expect(unsafe_code, reason = "glommio has no setting for it")]
// SAFETY: the name is that of the C library's function, and so is what it does: callers see no difference.
#[unsafe(no_mangle)]
extern "C" fn syscall(
    number: libc::c_long,
    one: libc::c_long,
    two: libc::c_long,
    three: libc::c_long,
    four: libc::c_long,
    five: libc::c_long,
    six: libc::c_long,
) -> libc::c_long {
    /// MEMBARRIER_CMD_PRIVATE_EXPEDITED
    const ALL_CORES: libc::c_int = 1 << 3;
    // The kernel sees the lower half of it.
    if number == libc::SYS_membarrier && one as libc::c_int == ALL_CORES {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        return 0;
    }
    let result: libc::c_long;
    // SAFETY: what the caller asks of the kernel is the caller's to answer for, as with the C library's function.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") one,
            in("rsi") two,
            in("rdx") three,
            in("r10") four,
            in("r8") five,
            in("r9") six,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    if (-4095..0).contains(&result) {
        // SAFETY: errno of this thread is there as long as the thread.
        unsafe { *libc::__errno_location() = -(result as libc::c_int) };
        return -1;
    }
    result
}
