//! The only place where clocks are read.

use crate::base::instant::{Instant, Now, Wall};
use std::time::{SystemTime, UNIX_EPOCH};

/// Counts from the start of the node, also while the machine sleeps (`CLOCK_BOOTTIME`): a node that wakes up must not believe
/// in the lease that it went to sleep with. Copied to every core, so that their instants compare.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin_ns: u64,
}

impl Clock {
    pub fn start() -> Self {
        Self { origin_ns: since_boot_ns() }
    }

    pub fn now(&self) -> Now {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            mono: self.mono(),
            wall: Wall(u64::try_from(since_epoch.as_micros()).unwrap_or(u64::MAX)),
        }
    }

    pub fn mono(&self) -> Instant {
        Instant(since_boot_ns().saturating_sub(self.origin_ns))
    }
}

#[expect(unsafe_code, reason = "the standard library does not read this clock")]
fn since_boot_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec` to where this one is.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    assert!(failed == 0, "every Linux that has io_uring has this clock");
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_goes_on_as_the_kernel_says_since_the_machine_was_started() {
        // Its first number counts the time asleep, too (proc(5)).
        let up = std::fs::read_to_string("/proc/uptime").unwrap();
        let up: f64 = up.split(' ').next().unwrap().parse().unwrap();
        let ours = since_boot_ns() as f64 / 1e9;
        assert!((ours - up).abs() < 5.0, "{ours} s, and {up} s");

        let clock = Clock::start();
        let (before, began) = (clock.mono(), std::time::Instant::now());
        std::thread::sleep(Duration::from_millis(20));
        let passed = clock.mono().since(before);
        assert!(passed >= Duration::from_millis(20), "{passed:?}");
        assert!(passed <= began.elapsed() + Duration::from_millis(5), "{passed:?}");
    }
}
