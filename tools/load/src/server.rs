//! What a server process has used: CPU time and memory, read from outside.

use std::path::PathBuf;
use std::time::Duration;

use crate::{Error, sys};

/// Looks at one process.
#[derive(Clone, Copy, Debug)]
pub struct ServerProbe {
    pid: u32,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Anonymous resident memory: heap and stacks (`RssAnon` of `/proc/PID/status`).
    pub anonymous: u64,
    /// Pages of its own that were written (`Private_Dirty` of `/proc/PID/smaps_rollup`).
    pub private_dirty: u64,
}

/// CPU time that the whole machine has spent, all cores, idle and stolen time excluded; steps of 10 ms.
pub fn machine_cpu() -> Result<Duration, Error> {
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

    pub fn memory(&self) -> Result<Memory, Error> {
        Ok(Memory {
            anonymous: self.anonymous()?,
            private_dirty: self.field("smaps_rollup", "Private_Dirty:")?,
        })
    }

    /// [`Memory::anonymous`] alone: cheap for both processes, while the other needs a walk over all pages.
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
        let (cpu, memory) = (probe.cpu().unwrap(), probe.memory().unwrap());
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
        assert!(probe.memory().unwrap().anonymous - memory.anonymous >= filled.len() as u64 / 2);
    }
}
