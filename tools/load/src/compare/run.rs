//! The artefacts of a run, read back.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use serde::Deserialize;

use crate::artefacts::hlog::{self, Log, Time};
use crate::artefacts::summary::{SCHEMA, Second};
use crate::artefacts::{LOG, SUMMARY, Summary};
use crate::record::{Latency, Operation};

/// A run as its folder tells it.
#[derive(Clone, Debug)]
pub struct Run {
    pub folder: PathBuf,
    pub summary: Summary,
    pub(super) log: Log,
    /// The seconds of measured phases.
    pub(super) measured: Vec<Second>,
}

/// Why a folder is no run that can be read.
#[derive(Debug)]
pub enum Unreadable {
    File(PathBuf, io::Error),
    Summary(PathBuf, serde_json::Error),
    /// It has that schema.
    Schema(PathBuf, u64),
    Log(PathBuf, hlog::Unreadable),
    /// Log and summary are not of one run: the summary counts so many of that tag, the log so many.
    Apart {
        folder: PathBuf,
        tag: String,
        summary: u64,
        log: u64,
    },
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Summary(path, error) => {
                write!(f, "{}: not a summary of corefire-load: {error}", path.display())
            }
            Self::Schema(path, schema) => write!(
                f,
                "{}: has schema {schema}; this version reads schema {SCHEMA}",
                path.display()
            ),
            Self::Log(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Apart { folder, tag, summary, log } => write!(
                f,
                "{}: {SUMMARY} counts {summary} of {tag}, {LOG} {log}; they are not of one run",
                folder.display()
            ),
        }
    }
}

impl std::error::Error for Unreadable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File(_, error) => Some(error),
            Self::Summary(_, error) => Some(error),
            Self::Log(_, error) => Some(error),
            Self::Schema(..) | Self::Apart { .. } => None,
        }
    }
}

/// What can be counted of an operation in a second.
pub(super) struct Counts {
    pub(super) done: f64,
    pub(super) failed: f64,
}

impl Run {
    /// Reads `summary.json` and `latency.hlog` of a folder.
    ///
    /// - errors: they are missing, of another version, damaged, or not of the same run
    pub fn read(folder: &Path) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Version {
            schema: u64,
        }
        let path = folder.join(SUMMARY);
        let text =
            fs::read_to_string(&path).map_err(|error| Unreadable::File(path.clone(), error))?;
        // The version first: a summary of another one fails in its fields, which would tell nobody why.
        let Version { schema } = serde_json::from_str(&text)
            .map_err(|error| Unreadable::Summary(path.clone(), error))?;
        if schema != u64::from(SCHEMA) {
            return Err(Unreadable::Schema(path, schema));
        }
        let summary: Summary = serde_json::from_str(&text)
            .map_err(|error| Unreadable::Summary(path.clone(), error))?;
        let path = folder.join(LOG);
        let text =
            fs::read_to_string(&path).map_err(|error| Unreadable::File(path.clone(), error))?;
        let log = Log::read(&text).map_err(|error| Unreadable::Log(path, error))?;
        let is_measured =
            |second: &&Second| summary.phases.get(second.phase).is_some_and(|it| it.measured);
        let measured: Vec<Second> = summary.timeline.iter().filter(is_measured).cloned().collect();
        let run = Self { folder: folder.to_owned(), summary, log, measured };
        run.agrees()?;
        Ok(run)
    }

    fn agrees(&self) -> Result<(), Unreadable> {
        for (operation, figures) in &self.summary.operations {
            let log = self.merged(*operation, Time::Response).count();
            if log != figures.response.count {
                return Err(Unreadable::Apart {
                    folder: self.folder.clone(),
                    tag: hlog::tag(*operation, Time::Response),
                    summary: figures.response.count,
                    log,
                });
            }
        }
        Ok(())
    }

    /// All measured seconds together.
    pub(super) fn merged(&self, operation: Operation, time: Time) -> Latency {
        let wanted: BTreeSet<u64> = self.measured.iter().map(|second| second.second).collect();
        self.log.merged((operation, time), |second| wanted.contains(&second))
    }

    /// Second by second, where anything was done.
    pub(super) fn latencies(&self, operation: Operation, time: Time) -> Vec<Option<&Latency>> {
        let of = |second: &Second| self.log.seconds.get(&second.second)?.get(&(operation, time));
        self.measured.iter().map(of).collect()
    }

    pub(super) fn counts(&self, operation: Operation, value: fn(&Counts) -> f64) -> Vec<f64> {
        let of = |second: &Second| {
            let tally = second.operations.get(&operation);
            value(&Counts {
                done: tally.map_or(0, |it| it.done) as f64,
                failed: tally.map_or(0, |it| it.failed.values().sum()) as f64,
            })
        };
        self.measured.iter().map(of).collect()
    }

    /// Operations of all kinds, second by second.
    pub(super) fn all_done(&self) -> Vec<f64> {
        let of = |second: &Second| second.operations.values().map(|it| it.done).sum::<u64>() as f64;
        self.measured.iter().map(of).collect()
    }

    /// Seconds of CPU, if each measured second has them.
    pub(super) fn server_cpu(&self) -> Option<Vec<f64>> {
        self.measured.iter().map(|second| second.server_cpu_s).collect()
    }
}
