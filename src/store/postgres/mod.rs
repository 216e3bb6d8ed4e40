//! The shared store: PostgreSQL 13 or later, a few connections that write and some that read, each on a thread of its own.
//!
//! A commit is as durable as the server makes it when it returns; what makes it worth less is told at start
//! (`member::warnings`). Every write transaction locks its member row, and one that was fenced fails. `share` and
//! `cluster` are for several nodes on one database. Only the storage threads of `runtime` and its thread `authority` may
//! call this module.

mod archive;
mod check;
pub mod cluster;
mod columns;
mod fault;
mod link;
mod member;
mod password;
mod plan;
mod reader;
mod schema;
mod settings;
mod share;
mod sql;
#[cfg(test)]
pub(crate) mod tests;
mod tls;
mod writer;

use std::sync::Arc;

pub use check::check;
pub use password::check_password_file;
pub use reader::PostgresReader;
pub use settings::{Settings, TlsMode};
pub use writer::PostgresWriter;

use super::{Error, Opened, Shared, Writer};

/// Opens the database for a node that writes alone, and brings its schema up to date.
///
/// - takes: `node`, the name by which others see who has it
/// - errors: `Open` where it cannot be reached, is in use, or a proxy lies between that cannot be used; `TooNew`; `Backend`
///   for a server that cannot be used
/// - blocking: up to the time-outs of the settings, and longer where a migration walks through rows
pub fn open(settings: &Settings, node: &str) -> Result<Opened, Error> {
    let (writers, warnings) = writers(settings, node)?;
    let incarnation = writers.first().map_or(0, PostgresWriter::incarnation);
    let boxed = |writer| -> Box<dyn Writer> { Box::new(writer) };
    Ok(Opened { writers: writers.into_iter().map(boxed).collect(), incarnation, warnings })
}

/// Opens the database for a node of a cluster, which writes beside others, and brings its schema up to date.
///
/// - takes: `node`, its name in the cluster
/// - errors: as of [`open`]; `Open` where a node of this name lives, or one alone has the database
/// - blocking: as of [`open`]
pub fn open_shared(settings: &Settings, node: &str) -> Result<Shared, Error> {
    let (writers, warnings, id) = shared_writers(settings, node)?;
    let incarnation = writers.first().map_or(0, PostgresWriter::incarnation);
    let boxed = |writer| -> Box<dyn Writer> { Box::new(writer) };
    let writers = writers.into_iter().map(boxed).collect();
    Ok(Shared { opened: Opened { writers, incarnation, warnings }, node: id })
}

fn writers(settings: &Settings, node: &str) -> Result<(Vec<PostgresWriter>, Vec<String>), Error> {
    let (mut links, warnings) = links(settings)?;
    let members = member::take(&mut links, settings, node)?;
    Ok((joined(settings, members, links), warnings))
}

fn shared_writers(
    settings: &Settings,
    node: &str,
) -> Result<(Vec<PostgresWriter>, Vec<String>, u32), Error> {
    let (mut links, warnings) = links(settings)?;
    let (members, id) = share::take(&mut links, settings, node)?;
    Ok((joined(settings, members, links), warnings, id))
}

/// Connections that will write, of a database whose schema is as new as this program.
fn links(settings: &Settings) -> Result<(Vec<link::Link>, Vec<String>), Error> {
    let name = "corefire/start";
    // The statements of a writer are about the tables that the first connection has yet to make.
    let mut first = link::Link::connect(settings, name, "", &[])?;
    member::check_server(&mut first)?;
    schema::migrate(&mut first, schema::MIGRATIONS)?;
    let warnings = member::warnings(&mut first)?;
    drop(first);
    let mut links = Vec::new();
    for _ in 0..settings.writers.max(1) {
        links.push(PostgresWriter::connect(settings, name)?);
    }
    member::check_sessions(&mut links, settings)?;
    Ok((links, warnings))
}

fn joined(
    settings: &Settings,
    members: Vec<member::Member>,
    links: Vec<link::Link>,
) -> Vec<PostgresWriter> {
    let settings = Arc::new(settings.clone());
    let writers = members.into_iter().zip(links);
    writers.map(|(member, link)| PostgresWriter::new(settings.clone(), member, link)).collect()
}
