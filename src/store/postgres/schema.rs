//! The schema and how it grows: each step is one transaction under a lock that all nodes know.

use std::time::Duration;

use super::super::Error;
pub(super) use super::super::migration::Migration;
use super::super::migration::version;
use super::fault::Fault;
use super::link::Link;

/// All steps that this program knows, in order.
pub(super) static MIGRATIONS: &[Migration] = &[
    Migration { number: 1, oldest: 1, sql: include_str!("migrations/0001_accounts_and_log.sql") },
    Migration {
        number: 2,
        oldest: 1,
        sql: include_str!("migrations/0002_keys_of_other_servers.sql"),
    },
    Migration { number: 3, oldest: 1, sql: include_str!("migrations/0003_cluster.sql") },
    Migration { number: 4, oldest: 1, sql: include_str!("migrations/0004_remote_domains.sql") },
];

/// Among the advisory locks of the database: "CoreMigr".
const LOCK: i64 = 0x436f_7265_4d69_6772;

/// A step may walk through all rows.
const STEP: Duration = Duration::from_secs(3_600);

/// Does the steps that the database lacks.
///
/// - gives: the version of the schema afterwards, which may be above what `known` holds
/// - errors: `TooNew` where the database shuts this program out; then nothing changed
pub(super) fn migrate(link: &mut Link, known: &[Migration]) -> Result<u32, Error> {
    loop {
        // Ends the session with all that was not committed, should any of this fail.
        link.run(STEP, async |client| {
            let lock = format!(
                "BEGIN; SET LOCAL lock_timeout = 0; SELECT pg_advisory_xact_lock({LOCK}); \
                 CREATE TABLE IF NOT EXISTS migration (\
                     number integer PRIMARY KEY, \
                     oldest integer NOT NULL \
                 )"
            );
            client.batch_execute(&lock).await
        })?;
        let version = check(link, known)?;
        let Some(step) = known.iter().find(|step| step.number > version) else {
            link.run(STEP, async |client| client.batch_execute("COMMIT").await)?;
            return Ok(version);
        };
        let (number, oldest) = (step.number, step.oldest);
        let note = format!("INSERT INTO migration (number, oldest) VALUES ({number}, {oldest})");
        link.run(STEP, async |client| {
            client.batch_execute(step.sql).await?;
            client.batch_execute(&format!("{note}; COMMIT")).await
        })?;
    }
}

/// The version of the schema, where this program may use it; 0 for an empty database.
///
/// - errors: `TooNew`
pub(super) fn check(link: &mut Link, known: &[Migration]) -> Result<u32, Error> {
    let sql = "SELECT coalesce(max(number), 0), coalesce(max(oldest), 0) FROM migration";
    let rows = link.once(STEP, sql, &[])?;
    let number = |column| -> Result<u32, Error> {
        let row = rows.first().ok_or_else(|| Error::Damaged("the table migration".to_owned()))?;
        let number: i32 = row.try_get(column).map_err(Fault::from)?;
        Ok(number.cast_unsigned())
    };
    version(known, number(0)?, number(1)?)
}
