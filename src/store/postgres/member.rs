//! This node's place in the database: who may write, since when, and who may not any more.
//!
//! One node at a time has the database, or one cluster. A node alone holds an advisory lock as long as its first connection
//! lives, and those of a cluster hold it together, so that each refuses the other. Whoever takes the lock alone fences the
//! rows of all before it, so that a node which lost its lock unnoticed writes nothing any more; a node of a cluster fences
//! all but those of the other nodes (`share`).

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::super::Error;
use super::fault::{Fault, told};
use super::link::Link;
use super::settings::Settings;
use super::share;

/// Among the advisory locks of the database: "Corefire".
const LOCK: i64 = 0x436f_7265_6669_7265;
/// How long one who starts waits for the lock of a node that ends.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
pub(super) const PATIENCE_STEP: Duration = Duration::from_millis(100);
/// How long a question here may take: fencing waits for what others have under way.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Fenced rows that are kept, for whoever looks.
pub(super) const KEPT: i64 = 64;
/// The oldest server that knows all that is asked of it: PostgreSQL 13.
const OLDEST_SERVER: i32 = 130_000;

/// What a connection's write transactions are known by.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) incarnation: i64,
    pub(super) writer: i32,
    pub(super) generation: i64,
    pub(super) hold: Hold,
}

/// How the lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    Alone,
    /// With the other nodes of the cluster.
    Shared,
}

impl Member {
    /// The name of its session at the server: of this incarnation's sessions alone.
    pub(super) fn session(&self) -> String {
        format!("corefire/{}/{}", self.incarnation, self.writer)
    }

    /// Makes `link` the one connection of this member: what its last one has under way is waited for, and whatever it
    /// still has before it is refused.
    ///
    /// - errors: `Fenced`
    pub(super) fn renew(&mut self, link: &mut Link) -> Result<(), Error> {
        // Only to be quicker: a server that does not let us waits until it misses the other end.
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND usename = current_user \
                   AND application_name = $1 AND pid <> pg_backend_pid()";
        if let Err(fault) = link.once(LIMIT, sql, &[&self.session()]) {
            tracing::debug!(why = %told(&fault), "an old session cannot be ended");
        }
        if self.writer == 0 && !has_lock(link, self.hold, PATIENCE_STEP)? {
            self.check_fence(link)?;
            return Err(Error::Backend("the lock on the database is held by another".to_owned()));
        }
        let sql = "UPDATE member SET generation = generation + 1 \
                   WHERE incarnation = $1 AND writer = $2 AND NOT fenced RETURNING generation";
        let rows = link.once(LIMIT, sql, &[&self.incarnation, &self.writer])?;
        let row = rows.first().ok_or(Error::Fenced)?;
        self.generation = row.try_get(0).map_err(Fault::from)?;
        Ok(())
    }

    fn check_fence(&self, link: &mut Link) -> Result<(), Error> {
        let sql = "SELECT 1 FROM member WHERE incarnation = $1 AND writer = $2 AND NOT fenced";
        let rows = link.once(LIMIT, sql, &[&self.incarnation, &self.writer])?;
        if rows.is_empty() { Err(Error::Fenced) } else { Ok(()) }
    }
}

/// Takes the database for a node that starts.
///
/// - takes: `links`, the connections that will write; the first keeps the lock
/// - gives: the incarnation, and a member for each connection
/// - errors: `Open` where another has the database
pub(super) fn take(
    links: &mut [Link],
    settings: &Settings,
    node: &str,
) -> Result<Vec<Member>, Error> {
    let open_error =
        |reason: &str| Error::Open { path: settings.to_string(), reason: reason.to_owned() };
    let first = links.first_mut().ok_or_else(|| open_error("there is no connection"))?;
    if !has_lock(first, Hold::Alone, PATIENCE)? {
        return Err(open_error(&format!("in use by {}", holder(first)?)));
    }
    // A cluster whose connections were all lost comes back, as long as it has leases.
    if let Some(nodes) = share::leases(first, PATIENCE)? {
        return Err(open_error(&format!("in use by {}", share::told(&nodes))));
    }
    let incarnation = new_incarnation(first, node)?;
    let members = members(incarnation, links.len(), Hold::Alone);
    let oldest = incarnation.saturating_sub(KEPT);
    let first = links.first_mut().ok_or_else(|| open_error("there is no connection"))?;
    first.run(LIMIT, async |client| {
        client.batch_execute("BEGIN; SET LOCAL lock_timeout = '45s'").await?;
        let sql = "UPDATE member SET fenced = true WHERE incarnation <> $1 AND NOT fenced";
        client.execute(sql, &[&incarnation]).await?;
        let sql = "DELETE FROM member WHERE fenced AND incarnation < $1";
        client.execute(sql, &[&oldest]).await?;
        insert(client, &members).await?;
        client.batch_execute("COMMIT").await
    })?;
    name_sessions(links, &members)?;
    Ok(members)
}

/// A number that no run ever had.
pub(super) fn new_incarnation(link: &mut Link, node: &str) -> Result<i64, Error> {
    let sql = "INSERT INTO incarnation (node) VALUES ($1) RETURNING id";
    let rows = link.once(LIMIT, sql, &[&node])?;
    let row = rows.first().ok_or_else(|| Error::Backend("no incarnation is given".to_owned()))?;
    Ok(row.try_get(0).map_err(Fault::from)?)
}

/// Those of a run, one for each connection.
pub(super) fn members(incarnation: i64, count: usize, hold: Hold) -> Vec<Member> {
    let writers = (0..).take(count);
    writers.map(|writer| Member { incarnation, writer, generation: 0, hold }).collect()
}

/// Lets the members of a run write, when the transaction commits.
pub(super) async fn insert(
    client: &Client,
    members: &[Member],
) -> Result<(), tokio_postgres::Error> {
    let incarnations: Vec<i64> = members.iter().map(|member| member.incarnation).collect();
    let writers: Vec<i32> = members.iter().map(|member| member.writer).collect();
    let sql = "INSERT INTO member (incarnation, writer, generation, fenced) \
               SELECT i, w, 0, false FROM unnest($1::bigint[], $2::integer[]) AS of (i, w)";
    client.execute(sql, &[&incarnations, &writers]).await?;
    Ok(())
}

/// Gives each connection the name of its member.
pub(super) fn name_sessions(links: &mut [Link], members: &[Member]) -> Result<(), Error> {
    for (link, member) in links.iter_mut().zip(members) {
        let sql = "SELECT set_config('application_name', $1, false)";
        link.once(LIMIT, sql, &[&member.session()])?;
    }
    Ok(())
}

/// Takes the lock, which lives as long as the session.
pub(super) fn has_lock(link: &mut Link, hold: Hold, patience: Duration) -> Result<bool, Error> {
    let sql = match hold {
        Hold::Alone => "SELECT pg_try_advisory_lock($1)",
        Hold::Shared => "SELECT pg_try_advisory_lock_shared($1)",
    };
    let began = Instant::now();
    loop {
        let rows = link.once(LIMIT, sql, &[&LOCK])?;
        if rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
            return Ok(true);
        }
        if began.elapsed() >= patience {
            return Ok(false);
        }
        std::thread::sleep(PATIENCE_STEP);
    }
}

/// Who has the lock, in words.
pub(super) fn holder(link: &mut Link) -> Result<String, Error> {
    if let Some(nodes) = share::leases(link, Duration::ZERO)? {
        return Ok(share::told(&nodes));
    }
    let sql = "SELECT node, to_char(started AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') \
               FROM incarnation WHERE id = (SELECT max(incarnation) FROM member WHERE NOT fenced)";
    let rows = link.once(LIMIT, sql, &[])?;
    let Some(row) = rows.first() else {
        return Ok("another node, which is just starting; try again".to_owned());
    };
    let (node, since): (String, String) =
        (row.try_get(0).map_err(Fault::from)?, row.try_get(1).map_err(Fault::from)?);
    Ok(format!(
        "the node {node:?} since {since}; use the commands where it runs, or stop it (one that died with its machine is \
         missed within a minute)"
    ))
}

/// Whether the server is one that can be used.
///
/// - errors: `Backend`
pub(super) fn check_server(link: &mut Link) -> Result<(), Error> {
    let sql = "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding'), \
               current_setting('server_version'), pg_is_in_recovery()";
    let rows = link.once(LIMIT, sql, &[])?;
    let row = rows.first().ok_or_else(|| Error::Backend("the server says nothing".to_owned()))?;
    let number: i32 = row.try_get(0).map_err(Fault::from)?;
    let encoding: &str = row.try_get(1).map_err(Fault::from)?;
    let version: &str = row.try_get(2).map_err(Fault::from)?;
    if number < OLDEST_SERVER {
        return Err(Error::Backend(format!(
            "the server is PostgreSQL {version}; version 13 or later is needed"
        )));
    }
    if encoding != "UTF8" {
        return Err(Error::Backend(format!(
            "the database has the encoding {encoding}; make one with: CREATE DATABASE … ENCODING 'UTF8' \
             TEMPLATE template0"
        )));
    }
    if row.try_get(3).map_err(Fault::from)? {
        return Err(Error::Backend("the server is a standby; name the primary".to_owned()));
    }
    Ok(())
}

/// Whether each connection has a server's session for itself.
///
/// - errors: `Open`, where a proxy shares them out by the transaction
pub(super) fn check_sessions(links: &mut [Link], settings: &Settings) -> Result<(), Error> {
    let mut processes = Vec::new();
    for link in links {
        let rows = link.once(LIMIT, "SELECT pg_backend_pid()", &[])?;
        let process: Option<i32> = rows.first().and_then(|row| row.try_get(0).ok());
        if processes.contains(&process) {
            let reason = "two connections have one session: a proxy such as PgBouncer shares sessions out by the \
                          transaction; use its session mode, or connect to the server itself";
            return Err(Error::Open { path: settings.to_string(), reason: reason.to_owned() });
        }
        processes.push(process);
    }
    Ok(())
}

/// What makes a commit of this server worth less than it should be, a line each.
pub(super) fn warnings(link: &mut Link) -> Result<Vec<String>, Error> {
    let sql = "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
               current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), \
               (SELECT count(*) FROM pg_stat_replication)";
    let rows = link.once(LIMIT, sql, &[])?;
    let row = rows.first().ok_or_else(|| Error::Backend("the server says nothing".to_owned()))?;
    let text = |column| row.try_get::<_, String>(column).map_err(Fault::from);
    let standbys: i64 = row.try_get(4).map_err(Fault::from)?;
    Ok(worth_less(&Durability {
        fsync: text(0)?,
        full_page_writes: text(1)?,
        synchronous_commit: text(2)?,
        synchronous_standby_names: text(3)?,
        standbys,
    }))
}

/// What the server says of itself, by the names of its settings.
struct Durability {
    fsync: String,
    full_page_writes: String,
    synchronous_commit: String,
    synchronous_standby_names: String,
    /// That are connected.
    standbys: i64,
}

fn worth_less(server: &Durability) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |what: &str, remedy: &str| {
        warnings.push(format!(
            "PostgreSQL {what}: messages that were acknowledged can be lost; {remedy}"
        ));
    };
    if server.fsync == "off" {
        warn(
            "does not wait for its disk (fsync = off), and a crash of its machine can damage the database",
            "set fsync = on in postgresql.conf",
        );
    }
    if server.full_page_writes == "off" {
        warn(
            "does not guard against pages that are half written (full_page_writes = off)",
            "set full_page_writes = on, unless its file system writes whole pages",
        );
    }
    let is_replicated = server.standbys > 0 || !server.synchronous_standby_names.is_empty();
    match server.synchronous_commit.as_str() {
        "off" => warn(
            "answers before a commit is on its disk (synchronous_commit = off)",
            "set synchronous_commit = on for the role or the database",
        ),
        "local" if is_replicated => warn(
            "answers before a commit has reached a standby (synchronous_commit = local)",
            "set synchronous_commit = on, or do without fail-over",
        ),
        _ if server.standbys > 0 && server.synchronous_standby_names.is_empty() => warn(
            "is replicated without waiting for a standby, so that a fail-over forgets the newest commits",
            "name standbys in synchronous_standby_names",
        ),
        _ => {}
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(fsync: &str, commit: &str, names: &str, standbys: i64) -> Vec<String> {
        worth_less(&Durability {
            fsync: fsync.to_owned(),
            full_page_writes: "on".to_owned(),
            synchronous_commit: commit.to_owned(),
            synchronous_standby_names: names.to_owned(),
            standbys,
        })
    }

    #[test]
    fn what_makes_a_commit_worth_less_is_told_with_its_remedy() {
        for (fsync, commit, names, standbys, word) in [
            ("off", "on", "", 0, "fsync = on"),
            ("on", "off", "", 0, "synchronous_commit = on"),
            ("on", "off", "*", 1, "synchronous_commit = on"),
            ("on", "local", "*", 1, "synchronous_commit = on"),
            ("on", "local", "", 1, "synchronous_commit = on"),
            ("on", "on", "", 2, "synchronous_standby_names"),
        ] {
            let warnings = told(fsync, commit, names, standbys);
            assert_eq!(warnings.len(), 1, "{warnings:?}");
            assert!(warnings[0].ends_with(word) || warnings[0].contains(word), "{warnings:?}");
        }
        for (commit, names, standbys) in
            [("on", "", 0), ("on", "*", 1), ("remote_apply", "a", 1), ("local", "", 0)]
        {
            assert_eq!(told("on", commit, names, standbys), [""; 0]);
        }
    }
}
