//! `corefire-load compare`: a table of two runs, a page on request, and an exit code for scripts.

use std::path::PathBuf;

use clap::Args;

use super::{Complaint, Exit, usage};
use crate::compare::{Change, Options, Run, compare as compared};

pub(super) const EXIT_CODES: &str = "\
Exit codes:
  0   B is the same as A, or better
  1   the runs cannot be read or compared: other scenarios or plans, open against closed loop, invalid runs
  99  a figure of B is worse";

#[derive(Args)]
pub(super) struct CompareArguments {
    /// Folder of the run that is the measure.
    a: PathBuf,
    /// Folder of the run that is judged.
    b: PathBuf,
    /// A page to write, with the distributions of both over one another.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Percent of draws within an interval, 50 to 99.9.
    #[arg(long, value_name = "PERCENT", default_value_t = 99.0)]
    confidence: f64,
    /// A figure that moved by so many percent at most is the same.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    tolerance: f64,
    /// The same seed gives the same intervals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn compare(arguments: &CompareArguments) -> Result<Exit, Complaint> {
    if !(50.0..=99.9).contains(&arguments.confidence) {
        return Err(usage(format!("--confidence {}: give 50 to 99.9", arguments.confidence)));
    }
    if !(0.0..=1000.0).contains(&arguments.tolerance) {
        return Err(usage(format!("--tolerance {}: give 0 to 1000", arguments.tolerance)));
    }
    let options = Options {
        confidence: arguments.confidence / 100.0,
        tolerance: arguments.tolerance / 100.0,
        seed: arguments.seed,
        ..Options::default()
    };
    let read = |folder: &PathBuf| Run::read(folder).map_err(|error| usage(error.to_string()));
    let (a, b) = (read(&arguments.a)?, read(&arguments.b)?);
    let found = compared(&a, &b, &options).map_err(|error| usage(error.to_string()))?;
    if let Some(path) = &arguments.out {
        let page = found.page(&a, &b).map_err(|error| usage(error.to_string()))?;
        std::fs::write(path, page)
            .map_err(|error| usage(format!("--out {}: {error}", path.display())))?;
    }
    print!("{}", found.table());
    Ok(match found.verdict {
        Change::Better | Change::Same => Exit::Pass,
        Change::Worse => Exit::Worse,
    })
}
