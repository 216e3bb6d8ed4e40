//! The rows of DESIGN §11 that one load generator can measure, with their budgets: what a message, a login and an idle
//! session cost the server, and how late messages are.
//!
//! Runs against Corefire, started afresh for every row, or against any server that runs already.

mod bench;
mod options;
mod scenario;

use std::path::Path;
use std::process::ExitCode;

use bench::{Bench, Figure};
use options::{Options, USAGE};
use scenario::Chat;

use crate::server::Others;
use crate::{Error, sys};

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

const US: &str = "µs";

const ROWS: &[Row] = &[
    Row {
        name: "chat8",
        what: "CPU per 1:1 message, 8 in flight, 200 sessions",
        budget: 7.0,
        unit: US,
        by_name_only: false,
        needs_start: false,
        measure: |bench| bench.chat(&Chat::default(), &[]),
    },
    Row {
        name: "chat1",
        what: "same, 1 in flight, 1000 sessions",
        budget: 25.0,
        unit: US,
        by_name_only: false,
        needs_start: false,
        measure: |bench| {
            let users = if bench.options.quick { 400 } else { 1000 };
            bench.chat(&Chat { users, window: 1, ..Chat::default() }, &[])
        },
    },
    Row {
        name: "chat8-tls",
        what: "same with TLS on both legs, 8 in flight, 200 sessions",
        budget: 11.0,
        unit: US,
        by_name_only: false,
        needs_start: false,
        measure: |bench| bench.chat(&Chat { tls: true, ..Chat::default() }, &[]),
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
        measure: |bench| {
            bench.chat(&Chat { sm: true, ..Chat::default() }, &["archive.enabled=true"])
        },
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
        measure: |bench| bench.login(false),
    },
    Row {
        name: "login-tls",
        what: "same with a full TLS handshake",
        budget: 450.0,
        unit: US,
        by_name_only: false,
        needs_start: false,
        measure: |bench| bench.login(true),
    },
    Row {
        name: "idle",
        what: "user-space memory per idle session",
        budget: 6144.0,
        unit: "bytes",
        by_name_only: false,
        needs_start: false,
        measure: |bench| bench.idle(false, 0),
    },
    Row {
        name: "idle-tls",
        what: "same with TLS",
        budget: 14336.0,
        unit: "bytes",
        by_name_only: false,
        needs_start: false,
        measure: |bench| bench.idle(true, 0),
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
        measure: |bench| bench.idle(true, 20),
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
        let quiet = Others::begin(bench.running()?)?;
        let figure = (row.measure)(&bench)?;
        let disturbed = quiet.note()?;
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
            disturbed
        ));
    }
    Ok(good || !bench.options.check)
}
