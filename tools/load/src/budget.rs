//! The rows of DESIGN §11 that one load generator can measure, with their budgets: what a message, a login and an idle
//! session cost the server, and how late messages are.
//!
//! Runs against Corefire, started afresh for every row, or against any server that runs already.

mod options;

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use options::{Options, Target, USAGE};

use crate::launch::{Corefire, ScratchDir, Server};
use crate::server::machine_cpu;
use crate::{
    Accounts, Error, Fleet, FleetConfig, PairsConfig, PairsReport, RateConfig, ServerProbe,
    ServiceConfig, Tls, sys,
};

const WARM_UP_SESSIONS: usize = 16;
/// After the warm-up: a server's first interval of measuring is over, whose buffers are no session's.
const SETTLED: Duration = Duration::from_secs(12);
const LOGIN_SESSIONS: Scale = Scale { full: 1000, quick: 200 };
const IDLE_SESSIONS: Scale = Scale { full: 2000, quick: 400 };
const ACCOUNTS: Scale = Scale { full: 2064, quick: 464 };
const BODY_BYTES: usize = 64;
/// Runs whose median is taken, each on the same sessions.
const REPEATS: usize = 3;

/// Share of a core that other processes may take before a figure is marked.
const OTHERS_MAX: f64 = 0.1;

impl Options {
    fn scaled(&self, scale: &Scale) -> usize {
        if self.quick { scale.quick } else { scale.full }
    }

    fn seconds(&self, full: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { full / 4.0 } else { full })
    }
}

struct Scale {
    full: usize,
    quick: usize,
}

/// One row of the table.
struct Row {
    name: &'static str,
    what: &'static str,
    /// Upper bound, in the unit of the row.
    budget: f64,
    unit: &'static str,
    /// Not part of a run that names no rows.
    by_name_only: bool,
    /// Only a server that is started here shows it.
    needs_start: bool,
    measure: fn(&Bench) -> Result<Figure, Error>,
}

/// A measured value.
struct Figure {
    value: f64,
    samples: u64,
    note: String,
}

const US: &str = "µs";

const ROWS: &[Row] = &[
    Row {
        name: "chat8",
        what: "CPU per 1:1 message, 8 in flight, 200 sessions",
        budget: 7.0,
        unit: US,
        by_name_only: false,
        needs_start: false,
        measure: |bench| bench.chat(200, 8, Tls::None, &[], false),
    },
    Row {
        name: "chat1",
        what: "same, 1 in flight, 1000 sessions",
        budget: 25.0,
        unit: US,
        by_name_only: false,
        needs_start: false,
        measure: |bench| {
            let sessions = if bench.options.quick { 400 } else { 1000 };
            bench.chat(sessions, 1, Tls::None, &[], false)
        },
    },
    Row {
        name: "chat8-tls",
        what: "same with TLS on both legs, 8 in flight, 200 sessions",
        budget: 11.0,
        unit: US,
        by_name_only: false,
        needs_start: false,
        measure: |bench| bench.chat(200, 8, bench.tls(), &[], false),
    },
    Row {
        name: "service",
        what: "CPU per message of one component to 200 sessions, 8 each",
        budget: 7.0,
        unit: US,
        by_name_only: false,
        needs_start: true,
        measure: Bench::service,
    },
    Row {
        name: "durable",
        what: "same, XEP-0198 and archive on, whole process",
        budget: 45.0,
        unit: US,
        by_name_only: true,
        needs_start: false,
        measure: |bench| bench.chat(200, 8, Tls::None, &["archive.enabled=true"], true),
    },
    Row {
        name: "rate",
        what: "p99 at 2000 messages/s, open loop",
        budget: 2.0,
        unit: "ms",
        by_name_only: false,
        needs_start: false,
        measure: Bench::rate,
    },
    Row {
        name: "login",
        what: "CPU per login, plain TCP, 32 in flight",
        budget: 150.0,
        unit: US,
        by_name_only: false,
        needs_start: false,
        measure: |bench| bench.login(Tls::None),
    },
    Row {
        name: "login-tls",
        what: "same with a full TLS handshake",
        budget: 450.0,
        unit: US,
        by_name_only: false,
        needs_start: false,
        measure: |bench| bench.login(bench.tls()),
    },
    Row {
        name: "idle",
        what: "user-space memory per idle session",
        budget: 6144.0,
        unit: "bytes",
        by_name_only: false,
        needs_start: false,
        measure: |bench| bench.idle(Tls::None, 0),
    },
    Row {
        name: "idle-tls",
        what: "same with TLS",
        budget: 14336.0,
        unit: "bytes",
        by_name_only: false,
        needs_start: false,
        measure: |bench| bench.idle(bench.tls(), 0),
    },
    Row {
        name: "start",
        what: "start to first answer, empty",
        budget: 300.0,
        unit: "ms",
        by_name_only: false,
        needs_start: true,
        measure: Bench::start,
    },
    Row {
        name: "shards2",
        what: "CPU per message, 2 shards against 1",
        budget: 1.15,
        unit: "times",
        by_name_only: false,
        needs_start: true,
        measure: Bench::shards,
    },
    // The last, as the contacts stay in the rosters.
    Row {
        name: "idle-contacts",
        what: "same with TLS and 20 contacts in the roster",
        budget: 14336.0 + 20.0 * 96.0,
        unit: "bytes",
        by_name_only: false,
        needs_start: false,
        measure: |bench| bench.idle(bench.tls(), 20),
    },
];

/// The whole command: reads the arguments, measures, prints.
///
/// - gives: 0, 2 if it could not be run, 99 if `--check` found a row over its budget
pub fn main(
    binary: Option<&Path>,
    arguments: impl Iterator<Item = String>,
    print: impl FnMut(&str),
    complain: impl Fn(&str),
) -> ExitCode {
    let rows: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    let options = match Options::parse(binary, &rows, arguments) {
        Ok(options) => options,
        Err(error) => {
            complain(&format!("{error}\n{USAGE}"));
            return ExitCode::from(2);
        }
    };
    match run(options, print) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(99),
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(2)
        }
    }
}

/// Measures the rows that were asked for and hands each line to `print` as soon as it is there.
///
/// - gives: whether all were within their budgets, or `--check` was not asked for
/// - errors: the first row that could not be measured
fn run(options: Options, mut print: impl FnMut(&str)) -> Result<bool, Error> {
    let available = sys::affinity().map_err(|error| Error::Io("affinity", error))?;
    let own: Vec<_> =
        options.generator_cores.iter().copied().filter(|core| available.contains(core)).collect();
    if available.len() > 1 && !own.is_empty() {
        sys::set_affinity(&own).map_err(|error| Error::Io("affinity", error))?;
    }
    let bench = Bench::new(options)?;
    let mut good = true;
    print(&format!(
        "{:<10} {:<54} {:>9} {:>8}  {:<5} {:>5} {:>9}  note",
        "row", "what", "value", "budget", "unit", "", "samples"
    ));
    for row in ROWS {
        let wanted = if bench.options.only.is_empty() {
            !(row.by_name_only || bench.is_foreign() && row.needs_start)
        } else {
            bench.options.only.iter().any(|name| name == row.name)
        };
        if !wanted {
            continue;
        }
        let quiet = Others::begin(&bench)?;
        let figure = (row.measure)(&bench)?;
        let others = quiet.share(&bench)?;
        let within = figure.value <= row.budget;
        good &= within;
        let digits = if row.unit == "bytes" { 0 } else { 2 };
        print(&format!(
            "{:<10} {:<54} {:>9.digits$} {:>8}  {:<5} {:>5} {:>9}  {}{}",
            row.name,
            row.what,
            figure.value,
            row.budget,
            row.unit,
            if within { "ok" } else { "OVER" },
            figure.samples,
            figure.note,
            if others > OTHERS_MAX {
                format!("; DISTURBED: other processes used {:.0} % of a core", others * 100.0)
            } else {
                String::new()
            }
        ));
    }
    Ok(good || !bench.options.check)
}

/// What other processes take of the machine while a row is measured: a figure from a busy machine says little.
struct Others {
    at: Instant,
    used: Duration,
}

impl Others {
    fn begin(bench: &Bench) -> Result<Self, Error> {
        Ok(Self { at: Instant::now(), used: Self::used(bench)? })
    }

    fn used(bench: &Bench) -> Result<Duration, Error> {
        let own = sys::process_cpu(std::process::id());
        let own = own.map_err(|error| Error::Io("own CPU clock", error))?;
        let ended = sys::children_cpu().map_err(|error| Error::Io("rusage", error))?;
        let running = match bench.options.target {
            Target::Running { pid, .. } => ServerProbe::new(pid)?.cpu()?,
            Target::Started { .. } => Duration::ZERO,
        };
        Ok(machine_cpu()?.saturating_sub(own + ended + running))
    }

    /// Cores that they kept busy since the beginning.
    fn share(&self, bench: &Bench) -> Result<f64, Error> {
        let used = Self::used(bench)?.saturating_sub(self.used);
        Ok(used.as_secs_f64() / self.at.elapsed().as_secs_f64().max(1e-9))
    }
}

struct Bench {
    options: Options,
    corefire: Option<(Corefire, ScratchDir)>,
}

/// A server under measurement; a started one ends with it.
struct Running {
    server: Option<Server>,
    probe: ServerProbe,
}

impl Running {
    fn stop(self) -> Result<(), Error> {
        self.server.map_or(Ok(()), Server::stop)
    }
}

impl Bench {
    fn new(options: Options) -> Result<Self, Error> {
        let Target::Started { binary, sets } = &options.target else {
            return Ok(Self { options, corefire: None });
        };
        let data_dir = ScratchDir::new("corefire-e2e")?;
        let corefire = Corefire::new(binary, data_dir.path(), sets)?;
        let accounts = (0..options.scaled(&ACCOUNTS)).map(|index| {
            format!("{}@{}", options.users.replace("{}", &index.to_string()), options.domain)
        });
        corefire.import(accounts, &options.password)?;
        Ok(Self { options, corefire: Some((corefire, data_dir)) })
    }

    fn is_foreign(&self) -> bool {
        self.corefire.is_none()
    }

    fn tls(&self) -> Tls {
        match self.options.target {
            Target::Running { direct_tls: None, .. } => Tls::Starttls,
            _ => Tls::Direct,
        }
    }

    fn start_with(&self, sets: &[&str]) -> Result<Running, Error> {
        let (server, probe) = match (&self.corefire, &self.options.target) {
            (None, Target::Running { pid, .. }) => (None, ServerProbe::new(*pid)?),
            (Some((corefire, _)), _) => {
                let sets: Vec<_> = sets.iter().map(|set| (*set).to_owned()).collect();
                let server = corefire.start(&self.options.server_cores, &sets)?;
                let probe = server.probe()?;
                (Some(server), probe)
            }
            (None, Target::Started { .. }) => {
                return Err(Error::Config("no server".to_owned()));
            }
        };
        Ok(Running { server, probe })
    }

    fn fleet(&self, first: usize, count: usize, tls: Tls, sm: bool) -> Result<Fleet, Error> {
        let address = match (&self.corefire, &self.options.target, tls) {
            (Some((corefire, _)), _, Tls::Direct) => corefire.direct_tls,
            (Some((corefire, _)), _, _) => corefire.plain,
            (None, Target::Running { direct_tls: Some(address), .. }, Tls::Direct) => *address,
            (None, Target::Running { plain, .. }, _) => *plain,
            (None, Target::Started { .. }, _) => {
                return Err(Error::Config("no server".to_owned()));
            }
        };
        let accounts = Accounts {
            pattern: self.options.users.clone(),
            first,
            count,
            password: self.options.password.clone(),
        };
        let config = FleetConfig::new(address, &self.options.domain, accounts);
        Fleet::connect(&FleetConfig { tls, sm, mechanism: self.options.mechanism, ..config })
    }

    fn pairs(&self, sessions: usize, window: u32, probe: ServerProbe) -> PairsConfig {
        PairsConfig {
            pairs: sessions / 2,
            window,
            body_bytes: BODY_BYTES,
            address: self.options.address,
            warm_up: self.options.seconds(1.0),
            duration: self.options.seconds(3.0),
            messages: None,
            server: Some(probe),
        }
    }

    fn chat(
        &self,
        sessions: usize,
        window: u32,
        tls: Tls,
        sets: &[&str],
        sm: bool,
    ) -> Result<Figure, Error> {
        let running = self.start_with(sets)?;
        let mut fleet = self.fleet(0, sessions, tls, sm)?;
        let config = self.pairs(sessions, window, running.probe);
        let figure = repeated(|| fleet.run_pairs(&config))?;
        fleet.close()?;
        running.stop()?;
        Ok(figure)
    }

    fn service(&self) -> Result<Figure, Error> {
        let address = crate::launch::free_address()?;
        let sets = [
            format!("components.listen=[\"{address}\"]"),
            "components.secrets.\"service.example\"=secret".to_owned(),
        ];
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let running = self.start_with(&sets)?;
        let mut fleet = self.fleet(0, 200, Tls::None, false)?;
        let config = ServiceConfig {
            address,
            domain: "service.example".to_owned(),
            secret: "secret".to_owned(),
            window: 8,
            body_bytes: BODY_BYTES,
            warm_up: self.options.seconds(1.0),
            duration: self.options.seconds(3.0),
            server: running.probe,
        };
        let figure = repeated(|| fleet.run_service(&config))?;
        fleet.close()?;
        running.stop()?;
        Ok(figure)
    }
}

/// The median of some runs.
fn repeated(mut run: impl FnMut() -> Result<PairsReport, Error>) -> Result<Figure, Error> {
    let (mut costs, mut rates, mut own) = (Vec::new(), Vec::new(), Vec::new());
    let (mut samples, mut misordered) = (0, 0);
    for _ in 0..REPEATS {
        let report = run()?;
        costs.push(report.server_us().unwrap_or_default());
        rates.push(report.per_second());
        own.push(report.generator_us());
        samples += report.messages;
        misordered += report.misordered;
    }
    let mut note =
        format!("{}, {:.0}/s, generator {:.2} µs", spread(&costs), median(&rates), median(&own));
    if misordered > 0 {
        let _ = write!(note, ", {misordered} OUT OF ORDER");
    }
    Ok(Figure { value: median(&costs), samples, note })
}

impl Bench {
    fn rate(&self) -> Result<Figure, Error> {
        let running = self.start_with(&[])?;
        let mut fleet = self.fleet(0, 200, Tls::None, false)?;
        let report = fleet.run_rate(&RateConfig {
            pairs: 100,
            per_second: 2000.0,
            body_bytes: BODY_BYTES,
            address: self.options.address,
            warm_up: self.options.seconds(2.0),
            duration: self.options.seconds(10.0),
            server: Some(running.probe),
        })?;
        fleet.close()?;
        running.stop()?;
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let cpu = report.server_cpu.unwrap_or_default().as_secs_f64() * 1e6;
        let note = format!(
            "p50 {:.2}, p99.9 {:.2}, max {:.2} ms; {:.1} µs CPU each; generator late by {:.2} ms at p99{}",
            ms(report.response.quantile(0.5)),
            ms(report.response.quantile(0.999)),
            ms(report.response.max()),
            cpu / report.sent.max(1) as f64,
            ms(report.lateness.quantile(0.99)),
            if report.is_valid() { "" } else { ": INVALID" }
        );
        let value = ms(report.response.quantile(0.99));
        Ok(Figure { value, samples: report.response.count(), note })
    }

    fn login(&self, tls: Tls) -> Result<Figure, Error> {
        let running = self.start_with(&[])?;
        self.fleet(0, WARM_UP_SESSIONS, tls, false)?.close()?;
        let count = self.options.scaled(&LOGIN_SESSIONS);
        let before = running.probe.cpu()?;
        let fleet = self.fleet(WARM_UP_SESSIONS, count, tls, false)?;
        let cpu = running.probe.cpu()? - before;
        let note = format!(
            "{}, {:.0} logins/s, presence included",
            self.options.mechanism.name(),
            count as f64 / fleet.login_time().as_secs_f64()
        );
        fleet.close()?;
        running.stop()?;
        Ok(Figure { value: cpu.as_secs_f64() * 1e6 / count as f64, samples: count as u64, note })
    }

    fn idle(&self, tls: Tls, contacts: usize) -> Result<Figure, Error> {
        let count = self.options.scaled(&IDLE_SESSIONS);
        if contacts > 0 {
            // Then started anew, so that the sessions find their rosters in the store.
            let running = self.start_with(&[])?;
            let mut fleet = self.fleet(WARM_UP_SESSIONS, count, Tls::None, false)?;
            fleet.fill_rosters(contacts)?;
            fleet.close()?;
            running.stop()?;
        }
        let running = self.start_with(&[])?;
        self.fleet(0, WARM_UP_SESSIONS, tls, false)?.close()?;
        std::thread::sleep(SETTLED);
        let before = running.probe.memory()?;
        let mut fleet = self.fleet(WARM_UP_SESSIONS, count, tls, false)?;
        fleet.idle(Duration::from_secs(3))?;
        let after = running.probe.memory()?;
        fleet.close()?;
        running.stop()?;
        let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / count as f64;
        let dirty = each(after.private_dirty, before.private_dirty);
        let note = format!("anonymous; private dirty {dirty:.0}");
        let value = each(after.anonymous, before.anonymous);
        Ok(Figure { value, samples: count as u64, note })
    }

    fn start(&self) -> Result<Figure, Error> {
        let mut times = Vec::new();
        for _ in 0..REPEATS {
            let running = self.start_with(&[])?;
            times.extend(running.server.as_ref().map(|s| s.start_time.as_secs_f64() * 1e3));
            running.stop()?;
        }
        if times.is_empty() {
            return Err(Error::Config("only a server started here shows its start".to_owned()));
        }
        Ok(Figure { value: median(&times), samples: times.len() as u64, note: spread(&times) })
    }

    fn shards(&self) -> Result<Figure, Error> {
        if self.is_foreign() {
            return Err(Error::Config("only Corefire has shards".to_owned()));
        }
        let (mut one, mut two, mut ratios, mut samples) = (vec![], vec![], vec![], 0);
        for _ in 0..REPEATS {
            for (shards, costs) in [("node.shards=1", &mut one), ("node.shards=2", &mut two)] {
                let running = self.start_with(&[shards])?;
                let mut fleet = self.fleet(0, 200, Tls::None, false)?;
                let report = fleet.run_pairs(&self.pairs(200, 8, running.probe))?;
                fleet.close()?;
                running.stop()?;
                costs.push(report.server_us().unwrap_or_default());
                samples += report.messages;
            }
            ratios.extend(two.last().zip(one.last()).map(|(two, one)| two / one));
        }
        let note = format!(
            "{}; 1 shard {:.2}, 2 shards {:.2} µs, both on cores {:?}",
            spread(&ratios),
            median(&one),
            median(&two),
            self.options.server_cores
        );
        Ok(Figure { value: median(&ratios), samples, note })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    format!("{low:.2} to {high:.2} in {} runs", values.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[]), 0.0);
    }
}
