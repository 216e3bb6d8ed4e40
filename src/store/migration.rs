//! The steps by which the schema of a database grows: numbered, forward only.
//!
//! A step records the oldest version of the schema whose program may still use the database after it. So a step that
//! only adds leaves older programs running beside newer ones, and only a step that takes something away shuts them out.

use super::Error;

/// One step of a schema.
pub(super) struct Migration {
    /// 1, 2, 3 .. without gaps: the version of the schema after this step.
    pub(super) number: u32,
    /// Programs that know at least this version may use the database after this step.
    pub(super) oldest: u32,
    pub(super) sql: &'static str,
}

/// The version of the schema, where a program that has the steps `known` may use it.
///
/// - takes: what the database records, the highest of each; 0 where it records nothing
/// - errors: `TooNew`
pub(super) fn version(known: &[Migration], found: u32, oldest: u32) -> Result<u32, Error> {
    let newest = known.last().map_or(0, |step| step.number);
    if oldest > newest {
        return Err(Error::TooNew { found, known: newest });
    }
    Ok(found)
}
