//! A whole run on this machine: the share of each worker, faults at their times, the server's process, and the outcome.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use crate::drive::{Failure, Flow, ShareReport, UNREAD, run_share};
use crate::plan::{Plan, Request, Share};
use crate::record::{
    Cost, Environment, Fault, Interval, LedgerCounts, LedgerReport, Outcome, ServerLoad, Verdict,
};
use crate::scenario::FaultWish;
use crate::{Error, ServerProbe};

/// From the call to the plan's zero: time to make the clients.
pub const LEAD: Duration = Duration::from_millis(200);

/// Reads the processes of the servers, second by second.
pub struct ServerWatch {
    processes: Vec<Process>,
}

struct Process {
    probe: ServerProbe,
    before: ServerLoad,
    cpu: Duration,
}

impl Process {
    fn sample(&mut self) -> Option<ServerLoad> {
        let cpu = self.probe.cpu().ok()?;
        let memory = self.probe.anonymous().ok()?;
        let used = cpu.saturating_sub(std::mem::replace(&mut self.cpu, cpu));
        Some(ServerLoad { cpu: used, memory })
    }
}

impl ServerWatch {
    /// - errors: there is no such process, or it may not be looked at
    pub fn new(pid: u32) -> Result<Self, Error> {
        Self::of(&[pid])
    }

    /// Of several servers, or one of several processes.
    ///
    /// - errors: as of [`Self::new`]
    pub fn of(pids: &[u32]) -> Result<Self, Error> {
        let process = |pid: &u32| {
            let probe = ServerProbe::new(*pid)?;
            let (cpu, memory) = (probe.cpu()?, probe.anonymous()?);
            Ok(Process { probe, before: ServerLoad { cpu, memory }, cpu })
        };
        Ok(Self { processes: pids.iter().map(process).collect::<Result<_, Error>>()? })
    }

    /// What they had used and held before the first connection.
    pub fn before(&self) -> ServerLoad {
        sum(self.processes.iter().map(|process| process.before))
    }

    /// Notes CPU time since the last call, and memory now: of all together and, where there are several, of each. Nothing
    /// once one of them is gone.
    pub fn note(&mut self, interval: &mut Interval) {
        let loads: Vec<Option<ServerLoad>> =
            self.processes.iter_mut().map(Process::sample).collect();
        let loads: Option<Vec<ServerLoad>> = loads.into_iter().collect();
        interval.server = loads.as_ref().map(|loads| sum(loads.iter().copied()));
        interval.servers = loads.filter(|loads| loads.len() > 1).unwrap_or_default();
    }
}

fn sum(loads: impl Iterator<Item = ServerLoad>) -> ServerLoad {
    loads.fold(ServerLoad::default(), |sum, load| ServerLoad {
        cpu: sum.cpu + load.cpu,
        memory: sum.memory + load.memory,
    })
}

/// Who looks on while a run goes on. Called on the thread that drives, where there are no worker processes: takes little
/// time.
pub trait Watch {
    /// A second is over, the server's load in it already.
    fn second(&mut self, interval: &Interval) -> Flow;

    /// Something was done to the server.
    fn fault(&mut self, fault: &Fault);

    /// The run is INVALID from now on.
    fn invalid(&mut self, reason: &str);
}

/// Nobody looks on.
pub struct Unwatched;

impl Watch for Unwatched {
    fn second(&mut self, _interval: &Interval) -> Flow {
        Flow::Continue
    }

    fn fault(&mut self, _fault: &Fault) {}

    fn invalid(&mut self, _reason: &str) {}
}

/// Runs each fault's command at its time, on a thread of its own.
pub struct FaultThread {
    done: mpsc::Receiver<Fault>,
    cancel: mpsc::Sender<()>,
    told: Vec<Fault>,
}

impl FaultThread {
    pub fn start(faults: &[FaultWish], begin: Instant) -> Self {
        let (sender, done) = mpsc::channel();
        let (cancel, cancelled) = mpsc::channel::<()>();
        let mut faults: Vec<FaultWish> = faults.to_vec();
        faults.sort_by_key(|fault| fault.at);
        std::thread::spawn(move || {
            for fault in faults {
                let wait = (begin + fault.at).saturating_duration_since(Instant::now());
                if cancelled.recv_timeout(wait) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return;
                }
                let at = begin.elapsed();
                let begun = Instant::now();
                let status =
                    Command::new("sh").arg("-c").arg(&fault.command).stdin(Stdio::null()).status();
                let result = status.map_or_else(|error| error.to_string(), |s| s.to_string());
                let fault = Fault { at, name: fault.name, took: begun.elapsed(), result };
                if sender.send(fault).is_err() {
                    return;
                }
            }
        });
        Self { done, cancel, told: Vec::new() }
    }

    /// Tells what was done since the last call.
    pub fn tell(&mut self, watch: &mut dyn Watch) {
        for fault in self.done.try_iter() {
            watch.fault(&fault);
            self.told.push(fault);
        }
    }

    /// What was done; what is not due yet is not done any more.
    pub fn finish(self) -> Vec<Fault> {
        drop(self.cancel);
        self.told.into_iter().chain(self.done.iter()).collect()
    }
}

/// Adds up the ledgers of workers, and keeps the first reason to end early.
pub fn merge_reports(reports: impl IntoIterator<Item = ShareReport>) -> ShareReport {
    let mut sum: Option<ShareReport> = None;
    for report in reports {
        let Some(sum) = &mut sum else {
            sum = Some(report);
            continue;
        };
        add_ledger(&mut sum.ledger, &report.ledger);
        sum.length = sum.length.max(report.length);
        sum.aborted = sum.aborted.take().or(report.aborted);
        sum.target_gone |= report.target_gone;
        for (name, value) in report.facts {
            sum.facts
                .entry(name)
                .and_modify(|known| {
                    if *known != value {
                        *known = format!("{known} {value}");
                    }
                })
                .or_insert(value);
        }
    }
    sum.unwrap_or_default()
}

fn add_ledger(sum: &mut LedgerReport, other: &LedgerReport) {
    let add = |sum: &mut LedgerCounts, other: &LedgerCounts| {
        sum.messages += other.messages;
        sum.received += other.received;
        sum.bounced += other.bounced;
        sum.lost += other.lost;
        sum.duplicated += other.duplicated;
        sum.redelivered += other.redelivered;
        sum.reordered += other.reordered;
        sum.corrupted += other.corrupted;
    };
    add(&mut sum.sent, &other.sent);
    add(&mut sum.acknowledged, &other.acknowledged);
    if let Some(other) = &other.archived {
        add(sum.archived.get_or_insert_default(), other);
    }
}

/// Drives the whole plan on the calling thread.
///
/// - takes: `server`, the processes of the servers if they run here
/// - errors: the target cannot be used, or the tool cannot work; what was seen until then is lost
pub fn run(
    plan: &Plan,
    request: &Request,
    mut server: Option<ServerWatch>,
    watch: &mut dyn Watch,
) -> Result<Outcome, Failure> {
    let started = SystemTime::now() + LEAD;
    let begin = Instant::now() + LEAD;
    let mut faults = FaultThread::start(&plan.scenario.faults, begin);
    let before = server.as_ref().map(ServerWatch::before);
    let mut intervals = Vec::new();
    let mut note = |interval: &Interval| {
        let mut interval = interval.clone();
        if let Some(server) = &mut server {
            server.note(&mut interval);
        }
        let flow = watch.second(&interval);
        faults.tell(watch);
        intervals.push(interval);
        flow
    };
    let report = run_share(plan, Share::WHOLE, begin, &mut note)?;
    Ok(outcome(plan, request, started, intervals, faults.finish(), before, 1, report))
}

/// Puts together what workers, faults and the server's process gave, and judges it.
#[expect(clippy::too_many_arguments, reason = "the parts of a run, each from its own source")]
pub fn outcome(
    plan: &Plan,
    request: &Request,
    started: SystemTime,
    intervals: Vec<Interval>,
    faults: Vec<Fault>,
    server_before: Option<ServerLoad>,
    workers: usize,
    report: ShareReport,
) -> Outcome {
    let mut phases = plan.record_phases();
    if let Some(drain) = phases.last_mut() {
        drain.length = report.length.saturating_sub(drain.begin);
    }
    let mut outcome = Outcome {
        name: plan.scenario.name.clone(),
        scenario: scenario_text(request),
        seed: plan.scenario.seed,
        mode: plan.mode,
        started,
        length: report.length,
        users: plan.scenario.users(),
        server_before,
        phases,
        intervals,
        faults,
        ledger: report.ledger,
        cost: Cost::default(),
        thresholds: Vec::new(),
        environment: environment(plan, workers, report.facts),
        verdict: Verdict {
            invalid: Vec::new(),
            aborted: report.aborted,
            target_gone: report.target_gone,
        },
    };
    crate::judge::judge(plan, &mut outcome);
    if let Some(told) = outcome.environment.facts.get(UNREAD) {
        // Else a message that is missing there would pass.
        outcome.verdict.invalid.push(format!("{UNREAD}: {told}"));
    }
    outcome
}

/// The scenario, and what the command line changed in it.
fn scenario_text(request: &Request) -> String {
    let mut text = request.scenario.clone();
    let mut note = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!("# {name} {value}\n"));
        }
    };
    note("--users", request.users.map(|users| users.to_string()));
    note("--rate", request.rate.map(|rate| rate.to_string()));
    note("--duration", request.duration.map(|length| format!("{}s", length.as_secs_f64())));
    note("--seed", request.seed.map(|seed| seed.to_string()));
    note("--closed", request.closed.map(|window| window.to_string()));
    note("--tls", request.tls.clone());
    note("--component", request.component.map(|address| address.to_string()));
    text
}

fn environment(plan: &Plan, workers: usize, mut facts: BTreeMap<String, String>) -> Environment {
    let read = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    if let Some(kernel) = read("/proc/sys/kernel/osrelease") {
        facts.insert("kernel".to_owned(), kernel);
    }
    let processor = read("/proc/cpuinfo").and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    if let Some(processor) = processor {
        facts.insert("processor".to_owned(), processor);
    }
    // All of the machine, whichever of them this process may use.
    let cores = read("/proc/cpuinfo")
        .map_or(0, |text| text.lines().filter(|line| line.starts_with("processor")).count());
    if cores > 0 {
        facts.insert("cores".to_owned(), cores.to_string());
    }
    if let Some(governor) = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") {
        facts.insert("governor".to_owned(), governor);
    }
    facts.insert("schedule".to_owned(), plan.summary().digest);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    facts.insert("command line".to_owned(), arguments.join(" "));
    let join = |part: fn(&crate::plan::Target) -> String| {
        plan.targets.iter().map(part).collect::<Vec<_>>().join(", ")
    };
    Environment {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        target: join(|target| target.address.to_string()),
        domain: join(|target| target.domain.clone()),
        server: None,
        workers,
        facts,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn several_processes_are_noted_together_and_each_and_nothing_once_one_is_gone() {
        let own = std::process::id();
        let mut one = ServerWatch::new(own).unwrap();
        let mut interval = Interval::default();
        one.note(&mut interval);
        assert!(interval.server.is_some() && interval.servers.is_empty());

        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let mut two = ServerWatch::of(&[own, child.id()]).unwrap();
        two.note(&mut interval);
        let sum: u64 = interval.servers.iter().map(|load| load.memory).sum();
        assert_eq!((interval.servers.len(), interval.server.unwrap().memory), (2, sum));
        child.kill().unwrap();
        child.wait().unwrap();
        two.note(&mut interval);
        assert!(interval.server.is_none() && interval.servers.is_empty());
        assert!(ServerWatch::of(&[own, child.id()]).is_err());
    }
}
