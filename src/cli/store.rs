//! `corefire backup` and `corefire store`: the database itself.

use std::path::Path;

use clap::Subcommand;

use super::backend::{OpenReader, Running};
use super::files::Partial;
use super::{Refusal, print, tell};
use crate::cluster::placement::store_partition;
use crate::config::Config;
use crate::runtime::data_dir::DataDir;
use crate::store::transfer::{self, Counts};
use crate::store::{self, Answer, Place, Query, Reader, Write, Writer, sqlite};

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Read the whole database and look for what cannot be so
    ///
    /// Of the configured store, whether a node runs on it or not. A line for each problem, with what mends it.
    Check,
    /// Copy everything from one database into a new one, then read both and compare
    ///
    /// No node may run on either. Afterwards set storage.url to the new one.
    Move {
        /// As storage.url: sqlite:FILE, relative to the data directory, or postgres://USER@HOST/DATABASE
        from: String,
        /// As storage.url, without accounts in it
        to: String,
    },
    /// Show how many numbers were given, or raise what counts them
    ///
    /// For a database that was put back to an older state, by pg_restore or from a snapshot of its disk: it would give
    /// numbers again which clients have seen after that state. A copy that `corefire backup` made is ahead already.
    Counters {
        /// Set them far ahead; no node may run
        #[arg(long)]
        raise: bool,
    },
}

pub(super) fn run(command: &StoreCommand, config: &Config) -> Result<(), Refusal> {
    match command {
        StoreCommand::Check => check(config),
        StoreCommand::Move { from, to } => move_all(from, to, config),
        StoreCommand::Counters { raise: false } => show_counters(config),
        StoreCommand::Counters { raise: true } => raise_counters(config),
    }
}

/// - errors: there is such a file; the disk; the database
pub(super) fn backup(file: &Path, config: &Config) -> Result<(), Refusal> {
    let place = config.store_place();
    let Place::Sqlite(path) = &place else {
        return Err(Refusal::Plain(format!(
            "{place} is not copied by this: back it up with pg_dump, which does it while the node runs"
        )));
    };
    // Makes sure that there is a database of this version, and that it may be read.
    let opened = OpenReader::of(config).map_err(Refusal::Plain)?;
    let partial = Partial::new(file).map_err(Refusal::Plain)?;
    let told = |cause: &dyn std::fmt::Display| {
        Refusal::Plain(format!("{}: no backup was made: {cause}", file.display()))
    };
    // Made here, so that nobody else may ever read it.
    partial.file().map_err(|error| told(&error))?;
    sqlite::backup(path, partial.until_done()).map_err(|error| told(&error))?;
    partial.done().map_err(|error| told(&error))?;
    drop(opened);
    print(format_args!("backed up {} to {}", path.display(), file.display()))
}

fn check(config: &Config) -> Result<(), Refusal> {
    let place = config.store_place();
    let opened = Running::find(config).map_err(Refusal::Plain)?;
    // Nobody else may change a file while it is looked at, but a running node.
    let lock = match (&place, opened) {
        (Place::Postgres(_), _) | (_, Some(_)) => None,
        (Place::Sqlite(_), None) => Some(DataDir::open_existing(&config.node.data_dir))
            .transpose()
            .map_err(|error| Refusal::Plain(error.to_string()))?,
    };
    let told =
        |error: store::Error| Refusal::Plain(format!("{error}; check storage.url and the user"));
    let checked = place.check(store_partition).map_err(told)?;
    drop(lock);
    for problem in &checked.problems {
        tell(problem);
    }
    let rows: Vec<String> =
        checked.rows.iter().map(|(table, rows)| format!("{table} {rows}")).collect();
    print(format_args!("{place}: {}", rows.join(", ")))?;
    match checked.count {
        0 => print("no problems"),
        1 => Err(Refusal::Plain("1 problem; see the line above".to_owned())),
        count => Err(Refusal::Plain(format!("{count} problems; see the lines above"))),
    }
}

/// A store that nobody else uses.
struct Held {
    place: Place,
    reader: Box<dyn Reader>,
    writer: Box<dyn Writer>,
}

fn move_all(from: &str, to: &str, config: &Config) -> Result<(), Refusal> {
    let read = |url: &str| {
        // What is wrong with it says what it is, without its password.
        config.place_at(url).map_err(Refusal::Plain)
    };
    let (from, to) = (read(from)?, read(to)?);
    let lock = DataDir::open_existing(&config.node.data_dir)
        .map_err(|error| Refusal::Plain(error.to_string()))?;
    if same(&from, &to) {
        return Err(Refusal::Plain(format!("{from} and {to} are one database; give a new one")));
    }
    if let Place::Sqlite(path) = &from
        && !path.exists()
    {
        return Err(Refusal::Plain(format!("there is no {}", path.display())));
    }
    let open = |place| open(place, "corefire store move");
    let (mut source, mut target) = (open(from)?, open(to)?);
    let (from, to) = (&source.place, &target.place);
    let broken = |cause: &dyn std::fmt::Display| {
        Refusal::Plain(format!("{from} to {to}: {cause}; nothing of {from} was changed"))
    };
    let (reader, writer) = (source.reader.as_mut(), target.writer.as_mut());
    transfer::copy(reader, writer, target.reader.as_mut(), &mut |_| ())
        .map_err(|error| broken(&error))?;
    let comparison = transfer::compare(source.reader.as_mut(), target.reader.as_mut())
        .map_err(|error| broken(&error))?;
    // Nobody else was to write meanwhile.
    drop((source.writer, target.writer, lock));
    for line in &comparison.told {
        tell(line);
    }
    let shown = |counts: &Counts| {
        let counts: Vec<String> =
            counts.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
        if counts.is_empty() { "nothing".to_owned() } else { counts.join(", ") }
    };
    print(format_args!("{from}: {}", shown(&comparison.from)))?;
    print(format_args!("{to}: {}", shown(&comparison.to)))?;
    match comparison.differences {
        0 => print("no differences; now set storage.url to the new one"),
        differences => Err(Refusal::Plain(format!(
            "{differences} differences; {from} was not changed: go on with it, and remove {to}"
        ))),
    }
}

/// Opens a store for itself: none of PostgreSQL that a node has.
///
/// - takes: `name`, by which others see who has it
fn open(place: Place, name: &str) -> Result<Held, Refusal> {
    let told = |error: store::Error| Refusal::Plain(format!("{place}: {error}"));
    let opened = place.open(name).map_err(told)?;
    let writer = opened.writers.into_iter().next();
    let writer = writer.ok_or_else(|| Refusal::Plain(format!("{place}: cannot be written")))?;
    let reader = place.reader().map_err(told)?;
    Ok(Held { place, reader, writer })
}

fn show_counters(config: &Config) -> Result<(), Refusal> {
    let place = config.store_place();
    let told = |error: store::Error| Refusal::Plain(format!("{place}: {error}"));
    let counters = counters(place.reader().map_err(told)?.as_mut()).map_err(told)?;
    print(format_args!("{place}: {}", shown(&counters)))
}

fn raise_counters(config: &Config) -> Result<(), Refusal> {
    let lock = DataDir::open_existing(&config.node.data_dir)
        .map_err(|error| Refusal::Plain(error.to_string()))?;
    let place = config.store_place();
    if let Place::Sqlite(path) = &place
        && !path.exists()
    {
        return Err(Refusal::Plain(format!("there is no {}", path.display())));
    }
    let mut held = open(place, "corefire store counters")?;
    let place = &held.place;
    let told = |error: store::Error| Refusal::Plain(format!("{place}: {error}"));
    let before = counters(held.reader.as_mut()).map_err(told)?;
    held.writer.commit(&[Write::RaiseCounters { counters: before.ahead() }]).map_err(told)?;
    let after = counters(held.reader.as_mut()).map_err(told)?;
    print(format_args!("{place}: {}", shown(&before)))?;
    print(format_args!("raised to: {}", shown(&after)))?;
    drop((held, lock));
    Ok(())
}

fn counters(reader: &mut dyn Reader) -> Result<store::Counters, store::Error> {
    match reader.read(&Query::Counters)? {
        Answer::Counters(counters) => Ok(counters),
        _ => Err(store::Error::Backend("another answer than was asked for".to_owned())),
    }
}

fn shown(counters: &store::Counters) -> String {
    format!("ids up to {}, incarnation {}", counters.id_max(), counters.incarnation)
}

fn same(one: &Place, other: &Place) -> bool {
    match (one, other) {
        (Place::Sqlite(one), Place::Sqlite(other)) => {
            one == other
                || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
        }
        (one, other) => one == other,
    }
}
