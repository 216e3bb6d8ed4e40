//! What a run leaves behind in its folder.
//!
//! | File | What it is | For |
//! | --- | --- | --- |
//! | `latency.hlog` | histograms by second and operation, HdrHistogram log format | its official tools, `compare` |
//! | `OPERATION.PHASE.response.hgrm`, `….service.hgrm` | percentiles of a phase as text | its official plotter |
//! | `summary.json` | all figures, with a version | programs |
//! | `report.html` | charts and tables, one file | people |

pub mod figures;
pub mod hgrm;
pub mod hlog;
pub mod report;
pub mod stall;
pub mod summary;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

pub use figures::Figures;
pub use summary::Summary;

use crate::record::{Outcome, UnreadableHistogram};

/// Name of the log in the folder.
pub const LOG: &str = "latency.hlog";
/// Name of the summary in the folder.
pub const SUMMARY: &str = "summary.json";
/// Name of the report in the folder.
pub const REPORT: &str = "report.html";

/// Why artefacts could not be written.
#[derive(Debug)]
pub enum Error {
    File(PathBuf, io::Error),
    Report(report::Error),
    Histogram(UnreadableHistogram),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Report(error) => error.fmt(f),
            Self::Histogram(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            Self::Report(error) => Some(error),
            Self::Histogram(error) => Some(error),
        }
    }
}

impl From<UnreadableHistogram> for Error {
    fn from(error: UnreadableHistogram) -> Self {
        Self::Histogram(error)
    }
}

/// Writes all artefacts into `folder`, which is made if it is not there. Those of an earlier run in it are replaced.
///
/// - gives: the summary, whose verdict decides the exit status
/// - errors: the folder cannot be written; a histogram of the run is damaged
pub fn write(outcome: &Outcome, folder: &Path) -> Result<Summary, Error> {
    let summary = Summary::of(outcome)?;
    let file = |path: PathBuf, error| Error::File(path, error);
    fs::create_dir_all(folder).map_err(|error| file(folder.to_owned(), error))?;
    remove_old(folder).map_err(|error| file(folder.to_owned(), error))?;
    let put = |name: &str, text: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| file(path, error))
    };
    put(LOG, hlog::write(outcome)?.as_bytes())?;
    let mut remarks: Vec<String> = hlog::closed(outcome.mode).into_iter().collect();
    remarks.extend(outcome.verdict.invalid.iter().map(|it| format!("INVALID: {}", hlog::line(it))));
    let names = phase_names(outcome);
    for (place, phase) in names.iter().enumerate() {
        for (operation, total) in outcome.totals(|interval| interval.phase == place)? {
            for (time, latency) in
                [(hlog::Time::Response, &total.response), (hlog::Time::Service, &total.service)]
            {
                if latency.is_empty() {
                    continue;
                }
                let mut text = Vec::new();
                // Writing to memory does not fail.
                let _ = hgrm::write(latency, &remarks, &mut text);
                put(&format!("{}.{phase}.{}.hgrm", operation.name(), time.name()), &text)?;
            }
        }
    }
    put(REPORT, report::write(outcome, &summary).map_err(Error::Report)?.as_bytes())?;
    // The last: who sees it sees a folder that is whole.
    put(SUMMARY, summary.to_json().as_bytes())?;
    Ok(summary)
}

/// Distributions of phases that this run does not have, and the summary of what is no longer whole.
fn remove_old(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_old = path.extension().is_some_and(|it| it == "hgrm")
            || path.file_name().is_some_and(|it| it == SUMMARY);
        if is_old && path.is_file() {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Names of the phases as parts of file names: letters, digits, `-` and `_`, no two alike.
fn phase_names(outcome: &Outcome) -> Vec<String> {
    let mut taken = BTreeSet::new();
    let mut names = Vec::with_capacity(outcome.phases.len());
    for phase in &outcome.phases {
        let plain: String = phase
            .name
            .chars()
            .take(64)
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
            .collect();
        let plain = if plain.is_empty() { "phase".to_owned() } else { plain };
        let name = (1..)
            .map(|number| if number == 1 { plain.clone() } else { format!("{plain}-{number}") })
            .find(|name| !taken.contains(name))
            .unwrap_or_default();
        taken.insert(name.clone());
        names.push(name);
    }
    names
}
