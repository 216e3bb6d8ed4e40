//! The process as the kernel sees it, from `/proc/self`.

use crate::admin::figures::ProcessFigures;
use std::fs;

/// What can be read; the rest is zero.
pub fn figures() -> ProcessFigures {
    let (open_files_max, _) = super::preflight::open_files();
    ProcessFigures {
        cpu_seconds: cpu_seconds().unwrap_or(0.0),
        resident_bytes: resident_bytes().unwrap_or(0),
        // One of them reads the directory.
        open_files: fs::read_dir("/proc/self/fd").map_or(0, |all| (all.count() as u64).max(1) - 1),
        open_files_max,
    }
}

fn cpu_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The name may have blanks; the fields behind it are numbers. utime and stime are the 14th and 15th of all.
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u32>().ok();
    let (user, system) = (ticks()?, ticks()?);
    Some((f64::from(user) + f64::from(system)) / f64::from(u32::try_from(ticks_per_second()).ok()?))
}

/// What the calling thread has used, the kernel's work for it included.
#[expect(unsafe_code, reason = "the standard library does not tell it")]
pub fn thread_cpu_us() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills in the one value that it is given.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0 {
        return 0;
    }
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec) * 1_000_000 + part(time.tv_nsec) / 1_000
}

fn resident_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}

#[expect(unsafe_code, reason = "the standard library does not tell it")]
fn ticks_per_second() -> i64 {
    // SAFETY: takes and gives numbers only.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1)
}

/// Has the calling thread step back when a shard wants its core: for work that takes long and may wait.
#[expect(unsafe_code, reason = "the standard library has no priorities")]
pub(super) fn step_back() {
    // SAFETY: takes and gives numbers only; 0 is the calling thread. Where it is refused all stays as it was.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_used_what_every_process_uses() {
        let mut sum = 0_u64;
        while cpu_seconds().is_some_and(|seconds| seconds == 0.0) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        let figures = figures();
        assert!(figures.cpu_seconds > 0.0);
        assert!(figures.resident_bytes > 1 << 20);
        assert!((3..figures.open_files_max).contains(&figures.open_files), "{figures:?}");
    }
}
