//! The same scenarios against several servers, side by side, as a Markdown table.
//!
//! A server is a folder that holds a folder with a `summary.json` for each scenario. Its file `version`, if there is one,
//! is its title; the file `others` of a scenario says how many percent of a core other processes took during the run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use crate::artefacts::summary::{Judgement, Loop, OperationSummary, Summary};
use crate::artefacts::{Figures, SUMMARY};
use crate::chart::units;
use crate::record::Operation;

/// Percent of a core that others may take before a figure is marked.
const OTHERS_MAX: f64 = 10.0;
/// In this order; others follow by name.
const ORDER: [&str; 6] = ["chat", "busy", "durable", "login", "idle", "rooms"];
const NOTHING: &str = "–";
/// Behind a figure from a machine that had other work.
const DISTURBED: &str = "\u{2020}";

/// Why there is no table.
#[derive(Debug)]
pub enum Error {
    File(PathBuf, io::Error),
    /// A `summary.json` that is none, or of another version.
    Summary(PathBuf, serde_json::Error),
    /// A folder without any run.
    Empty(PathBuf),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Summary(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Empty(path) => write!(f, "{}: no folder in it has a {SUMMARY}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            Self::Summary(_, error) => Some(error),
            Self::Empty(_) => None,
        }
    }
}

/// One run of a server.
#[derive(Clone, Debug)]
struct Run {
    summary: Summary,
    /// Percent of a core that others took.
    others: Option<f64>,
}

/// A server with its runs by scenario.
#[derive(Clone, Debug)]
pub struct Column {
    title: String,
    runs: BTreeMap<String, Run>,
}

impl Run {
    fn is_disturbed(&self) -> bool {
        self.others.is_some_and(|others| others > OTHERS_MAX)
    }
}

impl Column {
    /// - errors: a file that cannot be read; no runs
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let told = |path: &Path| {
            let path = path.to_owned();
            move |error| Error::File(path, error)
        };
        let mut runs = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(told(folder))? {
            let entry = entry.map_err(told(folder))?.path();
            let path = entry.join(SUMMARY);
            if !path.is_file() {
                continue;
            }
            let text = fs::read_to_string(&path).map_err(told(&path))?;
            let summary: Summary =
                serde_json::from_str(&text).map_err(|error| Error::Summary(path, error))?;
            let others = fs::read_to_string(entry.join("others")).ok();
            let others = others.and_then(|text| text.trim().parse().ok());
            let name = entry.file_name().map(|name| name.to_string_lossy().into_owned());
            runs.insert(name.unwrap_or_default(), Run { summary, others });
        }
        if runs.is_empty() {
            return Err(Error::Empty(folder.to_owned()));
        }
        let version = fs::read_to_string(folder.join("version")).ok();
        let version = version.and_then(|text| Some(text.lines().next()?.trim().to_owned()));
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let title = version.filter(|title| !title.is_empty()).or(name).unwrap_or_default();
        Ok(Self { title, runs })
    }
}

/// What a row shows of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Figure {
    Response(Operation),
    /// Of a closed loop, which goes as fast as the server does.
    Throughput(Operation),
    CpuPerMessage,
    CpuPerMessageOfEach,
    CpuPerLogin,
    BytesPerSession,
    /// What became of messages while something was done to the servers.
    Ledger,
}

impl Figure {
    /// What a run has to show.
    fn of(summary: &Summary) -> Vec<Self> {
        let mut figures = Vec::new();
        let measured = summary.operations.iter().filter(|(_, it)| it.done > 0);
        let measured: Vec<Operation> = measured.map(|(operation, _)| *operation).collect();
        for operation in &measured {
            figures.push(match summary.mode {
                Loop::Open => Self::Response(*operation),
                Loop::Closed => Self::Throughput(*operation),
            });
        }
        let cost = &summary.cost;
        let has_logins = measured.contains(&Operation::Login);
        if cost.cpu_us_per_message.is_some() {
            figures.push(Self::CpuPerMessage);
        }
        if !summary.cpu_us_per_message_of_each.is_empty() {
            figures.push(Self::CpuPerMessageOfEach);
        }
        if !summary.faults.is_empty() {
            figures.push(Self::Ledger);
        }
        if cost.cpu_us_per_login.is_some() && has_logins {
            figures.push(Self::CpuPerLogin);
        }
        // Where there is more to do, sessions hold more than they need to be there.
        if cost.bytes_per_session.is_some() && measured.is_empty() {
            figures.push(Self::BytesPerSession);
        }
        figures
    }

    fn title(self, run: &Summary) -> String {
        let rate = |operation| units::grouped(per_second(run, operation, |it| it.planned));
        match self {
            Self::Response(operation) => {
                format!("{} at {}/s: p50, p99, p99.9", operation.name(), rate(operation))
            }
            Self::Throughput(operation) => format!(
                "{}s per second, {} in flight each",
                operation.name(),
                run.window.unwrap_or_default()
            ),
            Self::CpuPerMessage if !run.cpu_us_per_message_of_each.is_empty() => {
                "CPU of all servers per message".to_owned()
            }
            Self::CpuPerMessage => "CPU of the server per message".to_owned(),
            Self::CpuPerMessageOfEach => "CPU of each server per message".to_owned(),
            Self::Ledger => {
                "lost of acknowledged messages; twice, again after a login, overtaken; sent back, of these arrived"
                    .to_owned()
            }
            Self::CpuPerLogin => "CPU of the server per login".to_owned(),
            Self::BytesPerSession => {
                format!("memory per session, {} of them", units::grouped(run.users))
            }
        }
    }

    fn value(self, run: &Summary) -> Option<String> {
        let us = |us: f64| units::microseconds(us);
        match self {
            Self::Response(operation) => {
                let figures: &Figures = &run.operations.get(&operation)?.response;
                let percentiles = [figures.p50_us, figures.p99_us, figures.p99_9_us];
                Some(percentiles.map(|it| us(it as f64)).join(", "))
            }
            Self::Throughput(operation) => {
                run.operations.get(&operation)?;
                Some(units::grouped(per_second(run, operation, |it| it.done)))
            }
            Self::CpuPerMessage => Some(us(run.cost.cpu_us_per_message?)),
            Self::CpuPerMessageOfEach => {
                let each = run.cpu_us_per_message_of_each.iter().map(|it| us(*it));
                Some(each.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
            }
            Self::Ledger => {
                let (sent, acknowledged) = (&run.ledger.sent, &run.ledger.acknowledged);
                let number = units::grouped;
                let both = (sent.received + sent.bounced + sent.lost).saturating_sub(sent.messages);
                Some(format!(
                    "{} of {}; {}, {}, {}; {}, {}",
                    number(acknowledged.lost),
                    number(acknowledged.messages),
                    number(sent.duplicated),
                    number(sent.redelivered),
                    number(sent.reordered),
                    number(sent.bounced),
                    number(both)
                ))
            }
            Self::CpuPerLogin => Some(us(run.cost.cpu_us_per_login?)),
            Self::BytesPerSession => Some(format!(
                "{} bytes",
                units::grouped(run.cost.bytes_per_session?.round() as u64)
            )),
        }
    }
}

/// Over the measured phases without the drain, in which the rest of what was planned before arrives.
fn per_second(run: &Summary, operation: Operation, count: fn(&OperationSummary) -> u64) -> u64 {
    let phases = || run.phases.iter().filter(|phase| phase.measured && phase.kind != "drain");
    let counts = phases().filter_map(|phase| phase.operations.get(&operation));
    let length: f64 = phases().map(|phase| phase.length_s).sum();
    (counts.map(count).sum::<u64>() as f64 / length.max(1e-9)).round() as u64
}

/// The table, and behind it what its reader has to know.
pub fn markdown(columns: &[Column]) -> String {
    let mut notes: Vec<String> = Vec::new();
    let mut text = String::from("| scenario | figure |");
    for column in columns {
        // Writing to a String does not fail.
        let _ = write!(text, " {} |", column.title);
    }
    let _ = write!(text, "\n|---|---|{}\n", "--:|".repeat(columns.len()));
    for scenario in scenarios(columns) {
        let runs: Vec<Option<&Run>> =
            columns.iter().map(|column| column.runs.get(scenario)).collect();
        let mut figures: Vec<Figure> =
            runs.iter().flatten().flat_map(|run| Figure::of(&run.summary)).collect();
        figures.sort_unstable();
        figures.dedup();
        for figure in figures {
            let shown = |run: &&Run| figure.value(&run.summary).is_some();
            let Some(first) = runs.iter().flatten().find(|run| shown(run)) else {
                continue;
            };
            let _ = write!(text, "| {scenario} | {} |", figure.title(&first.summary));
            for (column, run) in columns.iter().zip(&runs) {
                let value = run.and_then(|run| figure.value(&run.summary));
                let mark = run.map_or_else(String::new, |run| marks(run, column, &mut notes));
                let value = value.map_or(NOTHING.to_owned(), |value| value + &mark);
                let _ = write!(text, " {value} |");
            }
            text.push('\n');
        }
    }
    text.push('\n');
    text.push_str(&conditions(columns));
    let runs = columns.iter().flat_map(|column| column.runs.values());
    let others = runs.filter(|run| run.is_disturbed()).filter_map(|run| run.others);
    if let Some(most) = others.max_by(f64::total_cmp) {
        let _ = writeln!(
            text,
            "{DISTURBED} DISTURBED: other processes took up to {most:.0} % of a core meanwhile."
        );
    }
    for (number, note) in (1..).zip(&notes) {
        let _ = writeln!(text, "{number}. {note}");
    }
    text
}

fn scenarios(columns: &[Column]) -> Vec<&str> {
    let names = columns.iter().flat_map(|column| column.runs.keys());
    let mut names: Vec<&str> = names.map(String::as_str).collect();
    let place = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
    names.sort_by_key(|name| (place(name), *name));
    names.dedup();
    names
}

/// Numbers of the notes that belong to a run's figures.
fn marks(run: &Run, column: &Column, notes: &mut Vec<String>) -> String {
    let summary = &run.summary;
    let who = format!("{}, {}", column.title, summary.name);
    let mut told = Vec::new();
    match summary.result {
        Judgement::Pass => {}
        Judgement::Fail => {
            let broken = summary.thresholds.iter().filter(|it| !it.held);
            let broken: Vec<String> =
                broken.map(|it| format!("{} ({})", it.expression, it.measured)).collect();
            told.push(format!("{who}: did not hold {}.", broken.join(", ")));
        }
        Judgement::Aborted => told.push(format!("{who}: ended before its time.")),
        Judgement::Invalid => {
            told.push(format!("{who}: INVALID, {}.", summary.invalid.join("; ")));
        }
    }
    let mut marks = String::new();
    if run.is_disturbed() {
        marks.push_str(DISTURBED);
    }
    for note in told {
        let place = notes.iter().position(|known| *known == note).unwrap_or_else(|| {
            notes.push(note);
            notes.len() - 1
        });
        let _ = write!(marks, " [{}]", place + 1);
    }
    marks
}

/// Machine and date, of the first run.
fn conditions(columns: &[Column]) -> String {
    let runs = || columns.iter().flat_map(|column| column.runs.values());
    let Some(first) = runs().min_by(|a, b| a.summary.started.cmp(&b.summary.started)) else {
        return String::new();
    };
    let environment = &first.summary.environment;
    let fact = |name: &str| environment.facts.get(name).cloned();
    let day = first.summary.started.split('T').next().unwrap_or_default();
    let parts = [
        Some(day.to_owned()),
        fact("processor"),
        fact("cores").map(|cores| format!("{cores} cores")),
        fact("kernel").map(|kernel| format!("Linux {kernel}")),
        Some(format!("corefire-load {}", environment.tool_version)),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{}.\n", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::record::{
        Cost, Environment, Interval, Latency, LedgerReport, LoopMode, Outcome, Phase, Tally,
        Verdict,
    };

    fn outcome(name: &str, tally: Option<(Operation, u64, u64)>, cost: Cost) -> Outcome {
        let tally = tally.map(|(operation, done, us)| {
            let mut latency = Latency::default();
            latency.record_n(Duration::from_micros(us), done);
            let latency = latency.pack();
            let tally = Tally {
                response: latency.clone(),
                service: latency,
                planned: done,
                done,
                ..Tally::default()
            };
            (operation, tally)
        });
        Outcome {
            name: name.to_owned(),
            scenario: String::new(),
            seed: 1,
            mode: LoopMode::Open,
            started: SystemTime::UNIX_EPOCH,
            length: Duration::from_secs(1),
            users: 2000,
            server_before: None,
            phases: vec![Phase {
                name: "hold".to_owned(),
                kind: "hold".to_owned(),
                begin: Duration::ZERO,
                length: Duration::from_secs(1),
                measured: true,
            }],
            intervals: vec![Interval {
                tallies: tally.into_iter().collect(),
                ..Interval::default()
            }],
            faults: Vec::new(),
            ledger: LedgerReport::default(),
            cost,
            thresholds: Vec::new(),
            environment: Environment {
                facts: [("cores".to_owned(), "2".to_owned())].into(),
                ..Environment::default()
            },
            verdict: Verdict::default(),
        }
    }

    fn column(title: &str, outcomes: &[Outcome]) -> Column {
        let runs = outcomes
            .iter()
            .map(|outcome| {
                let summary = Summary::of(outcome).unwrap_or_else(|error| panic!("{error}"));
                (outcome.name.clone(), Run { summary, others: None })
            })
            .collect();
        Column { title: title.to_owned(), runs }
    }

    fn cost(us: f64, bytes: f64) -> Cost {
        Cost {
            cpu_us_per_message: Some(us),
            cpu_us_per_login: None,
            bytes_per_session: Some(bytes),
        }
    }

    fn lines(columns: &[Column]) -> Vec<String> {
        markdown(columns).replace('\u{202f}', " ").lines().map(str::to_owned).collect()
    }

    #[test]
    fn scenarios_stand_side_by_side_and_what_a_server_has_not_is_left_open() {
        let chat = |us| outcome("chat", Some((Operation::Message, 1000, us)), cost(9.0, 7000.0));
        let idle = outcome("idle", None, Cost { cpu_us_per_message: None, ..cost(0.0, 2912.0) });
        let lines = lines(&[column("One 1.0", &[idle, chat(300)]), column("Two", &[chat(4000)])]);
        assert_eq!(
            lines,
            [
                "| scenario | figure | One 1.0 | Two |",
                "|---|---|--:|--:|",
                "| chat | message at 1 000/s: p50, p99, p99.9 | 300 µs, 300 µs, 300 µs | 4 ms, 4 ms, 4 ms |",
                "| chat | CPU of the server per message | 9 µs | 9 µs |",
                "| idle | memory per session, 2 000 of them | 2 912 bytes | – |",
                "",
                "1970-01-01, 2 cores, corefire-load .",
            ]
        );
    }

    #[test]
    fn figures_of_a_run_that_cannot_be_believed_are_marked() {
        let mut chat = outcome("chat", Some((Operation::Message, 1000, 300)), cost(9.0, 7000.0));
        chat.verdict.invalid.push("the tool was late".to_owned());
        let mut disturbed = column("Two", &[outcome("chat", None, cost(9.0, 7000.0))]);
        disturbed.runs.values_mut().for_each(|run| run.others = Some(40.0));
        let lines = lines(&[column("One", &[chat]), disturbed]);
        assert!(lines[2].contains("300 µs, 300 µs, 300 µs [1] |"), "{lines:?}");
        assert!(lines[3].ends_with("| 9 µs [1] | 9 µs† |"), "{lines:?}");
        let notes = &lines[lines.len() - 2..];
        assert_eq!(
            notes,
            [
                "† DISTURBED: other processes took up to 40 % of a core meanwhile.",
                "1. One, chat: INVALID, the tool was late."
            ]
        );
    }

    #[test]
    fn a_folder_without_runs_is_told() {
        let nowhere = Column::read(Path::new("/nowhere/at/all"));
        assert!(matches!(nowhere, Err(Error::File(..))));
    }
}
