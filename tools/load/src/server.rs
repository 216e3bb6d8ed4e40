//! What a server process has used: CPU time and memory, read from outside.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::{Error, sys};

/// Looks at one process.
#[derive(Clone, Copy, Debug)]
pub struct ServerProbe {
    pid: u32,
}

/// CPU time that the whole machine has spent, all cores, idle and stolen time excluded; steps of 10 ms.
fn machine_cpu() -> Result<Duration, Error> {
    let path = PathBuf::from("/proc/stat");
    let text = std::fs::read_to_string(&path).map_err(|error| Error::File(path, error))?;
    // cpu user nice system idle iowait irq softirq …, in hundredths of a second (USER_HZ).
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let busy: u64 = fields
        .take(7)
        .enumerate()
        .filter(|(at, _)| !matches!(at, 3 | 4))
        .filter_map(|(_, field)| field.parse::<u64>().ok())
        .sum();
    Ok(Duration::from_millis(busy * 10))
}

/// Share of a core that other processes may take before a figure is marked.
const OTHERS_MAX: f64 = 0.1;

/// What other processes take of the machine while something is measured: a figure from a busy machine says little.
pub struct Others {
    at: Instant,
    used: Duration,
    /// A server that is not ended yet when `note` is called.
    running: Option<ServerProbe>,
}

impl Others {
    /// Everything counts but this process, its children that have ended, and `running`.
    pub fn begin(running: Option<ServerProbe>) -> Result<Self, Error> {
        Ok(Self { at: Instant::now(), used: Self::used(running)?, running })
    }

    fn used(running: Option<ServerProbe>) -> Result<Duration, Error> {
        let own = sys::process_cpu(std::process::id());
        let own = own.map_err(|error| Error::Io("own CPU clock", error))?;
        let ended = sys::children_cpu().map_err(|error| Error::Io("rusage", error))?;
        let running = running.map_or(Ok(Duration::ZERO), |probe| probe.cpu())?;
        Ok(machine_cpu()?.saturating_sub(own + ended + running))
    }

    /// A mark for a figure that was measured since the beginning, if it needs one.
    pub fn note(&self) -> Result<String, Error> {
        let used = Self::used(self.running)?.saturating_sub(self.used);
        let share = used.as_secs_f64() / self.at.elapsed().as_secs_f64().max(1e-9);
        Ok(match share > OTHERS_MAX {
            true => format!("; DISTURBED: other processes used {:.0} % of a core", share * 100.0),
            false => String::new(),
        })
    }
}

impl ServerProbe {
    /// - errors: there is no such process, or its clock may not be read
    pub fn new(pid: u32) -> Result<Self, Error> {
        let probe = Self { pid };
        probe.cpu()?;
        Ok(probe)
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU time of all its threads, ended ones included.
    pub fn cpu(&self) -> Result<Duration, Error> {
        sys::process_cpu(self.pid).map_err(|error| Error::Io("CPU clock of the server", error))
    }

    /// Anonymous resident memory, in bytes: heap and stacks.
    pub fn anonymous(&self) -> Result<u64, Error> {
        self.field("status", "RssAnon:")
    }

    /// A `Name: 123 kB` line of a file below `/proc/PID`, in bytes.
    fn field(&self, file: &str, name: &str) -> Result<u64, Error> {
        let path = PathBuf::from(format!("/proc/{}/{file}", self.pid));
        let text =
            std::fs::read_to_string(&path).map_err(|error| Error::File(path.clone(), error))?;
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse::<u64>().ok());
        kib.map(|kib| kib * 1024)
            .ok_or_else(|| Error::Server(format!("no {name} in {}", path.display())))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn own_process_shows_the_work_and_the_memory_of_an_ended_thread() {
        let probe = ServerProbe::new(std::process::id()).unwrap();
        let (cpu, memory) = (probe.cpu().unwrap(), probe.anonymous().unwrap());
        let filled = std::thread::spawn(|| {
            let mut bytes = vec![0u8; 16 << 20];
            for (at, byte) in bytes.iter_mut().enumerate() {
                *byte = at as u8 | 1;
            }
            bytes
        })
        .join()
        .unwrap();
        assert!(probe.cpu().unwrap() - cpu > Duration::from_micros(100));
        assert!(probe.anonymous().unwrap() - memory >= filled.len() as u64 / 2);
    }
}
