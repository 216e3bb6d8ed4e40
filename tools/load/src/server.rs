//! What a server process has used: CPU time and memory, read from outside.

use std::collections::BTreeMap;
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

/// What one core of the machine has done since it began, in steps of 10 ms.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreTime {
    pub busy: Duration,
    /// Wanted, and given to others by the host.
    pub stolen: Duration,
}

impl CoreTime {
    /// - errors: there is no such core, or `/proc/stat` cannot be read
    pub fn of(core: usize) -> Result<Self, Error> {
        let path = PathBuf::from("/proc/stat");
        let text = std::fs::read_to_string(&path).map_err(|error| Error::File(path, error))?;
        Self::parse(&text, core).ok_or_else(|| Error::Server(format!("no core {core}")))
    }

    fn parse(text: &str, core: usize) -> Option<Self> {
        let name = format!("cpu{core} ");
        let fields = text.lines().find_map(|line| line.strip_prefix(&name))?;
        let times: Vec<u64> =
            fields.split_whitespace().map_while(|field| field.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal …, in hundredths of a second (USER_HZ).
        let [user, nice, system, _, _, irq, softirq, steal, ..] = times[..] else { return None };
        let ms = |hundredths: u64| Duration::from_millis(hundredths * 10);
        Some(Self { busy: ms(user + nice + system + irq + softirq), stolen: ms(steal) })
    }
}

/// What a thread has had of the cores since it began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ThreadLoad {
    pub name: String,
    pub cpu: Duration,
    /// It had work and waited for a core.
    pub waited: Duration,
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

    /// Its threads, by their ids.
    ///
    /// - errors: it has ended
    pub fn threads(&self) -> Result<BTreeMap<u32, ThreadLoad>, Error> {
        let path = PathBuf::from(format!("/proc/{}/task", self.pid));
        let entries = std::fs::read_dir(&path).map_err(|error| Error::File(path, error))?;
        let load = |entry: std::io::Result<std::fs::DirEntry>| {
            let entry = entry.ok()?;
            let id = entry.file_name().to_str()?.parse().ok()?;
            // One that ends meanwhile is left out.
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            let times = std::fs::read_to_string(entry.path().join("schedstat")).ok()?;
            let mut times = times.split_whitespace().map_while(|nanos| nanos.parse().ok());
            let (cpu, waited) = (times.next()?, times.next()?);
            let (cpu, waited) = (Duration::from_nanos(cpu), Duration::from_nanos(waited));
            Some((id, ThreadLoad { name: name.trim_end().to_owned(), cpu, waited }))
        };
        Ok(entries.filter_map(load).collect())
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
    fn a_core_has_a_line_of_its_own() {
        let text = "cpu  9 9 9 9 9 9 9 9 0 0\ncpu1 1 2 3 100 200 4 5 6 0 0\n";
        let time = CoreTime::parse(text, 1).unwrap();
        assert_eq!(time.busy, Duration::from_millis(150));
        assert_eq!(time.stolen, Duration::from_millis(60));
        assert!(CoreTime::parse(text, 0).is_none());
    }

    #[test]
    fn a_thread_is_known_by_its_name_and_has_what_it_used() {
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let busy = std::thread::Builder::new().name("busy-one".to_owned()).spawn(move || {
            let begin = crate::sys::thread_cpu().unwrap();
            while crate::sys::thread_cpu().unwrap() < begin + Duration::from_millis(30) {}
            tell.send(()).unwrap();
            // It stays until it was looked at.
            let _ = asked.recv();
        });
        told.recv().unwrap();
        let threads = ServerProbe::new(std::process::id()).unwrap().threads().unwrap();
        let found = threads.values().find(|thread| thread.name == "busy-one").unwrap();
        assert!(found.cpu >= Duration::from_millis(20), "{found:?}");
        drop(ask);
        busy.unwrap().join().unwrap();
    }

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
