//! The embedded store: one SQLite file in WAL mode, one connection that writes, any number that read.
//!
//! A commit is on disk when it returns (`synchronous=FULL`). The WAL goes back into the file on a thread of its own
//! (`checkpoint.rs`), so that commits do not wait for it. Only the storage threads of `runtime` may call this module,
//! and one process at a time: the lock on the data directory is theirs.

mod archive;
mod check;
mod checkpoint;
mod conversation;
mod error;
mod index;
mod keep;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

pub use check::check;
pub use keep::backup;
pub use reader::SqliteReader;
pub use writer::SqliteWriter;

use super::Error;

/// How long a statement waits for a lock of another connection; only opening and reopening ever do.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Pages in the WAL at which a commit checkpoints by itself. The checkpointer starts at half of it and is done before,
/// unless the disk is slower than the writer.
const WAL_PAGES: u32 = 40_000;

/// Bytes to which the WAL's file is cut when it starts anew: above the size it works at, so that this happens only after a burst.
const WAL_BYTES_KEPT: u32 = 192 << 20;

/// KiB of pages that the writer keeps in memory.
const WRITER_CACHE_KIB: i32 = 64 << 10;

/// KiB of pages that a reader keeps in memory.
const READER_CACHE_KIB: i32 = 8 << 10;

/// Statements that a connection keeps prepared: more than there are.
const STATEMENTS: usize = 64;

/// A store that is ready to be written to.
pub struct Opened {
    pub writer: SqliteWriter,
    /// How often this database was opened, this time included: never the same twice, durable before it is given.
    pub incarnation: u64,
    pub path: PathBuf,
}

/// Opens the database at `path`, or makes one (mode 0600) in a directory that exists.
///
/// What an earlier process left in the WAL is brought into the file first.
/// - errors: `Open` where the file cannot be had or is no database of ours; `Damaged`, also where the file is empty or
///   gone and its WAL is there; `TooNew`; `Full`
pub fn open(path: &Path) -> Result<Opened, Error> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => create(path)?,
        // SQLite would take it for a new database, throw the WAL away, and everybody's account would be gone.
        Ok(file) if file.is_file() && file.len() == 0 => {
            return Err(Error::Damaged(format!("{}: the file is empty", path.display())));
        }
        _ => {}
    }
    let mut writer = SqliteWriter::open(path)?;
    let incarnation = writer.next_incarnation()?;
    Ok(Opened { writer, incarnation, path: path.to_owned() })
}

/// Makes a database under another name, and gives it its own when it is whole: so one that is empty was never ours.
fn create(path: &Path) -> Result<(), Error> {
    let failed = |error: std::io::Error| open_error(path, &error.to_string());
    if beside(path, "-wal").exists() {
        let reason = "the file is gone, and its WAL is there";
        return Err(Error::Damaged(format!("{}: {reason}", path.display())));
    }
    let fresh = beside(path, ".new");
    // An earlier start may have ended here.
    for suffix in ["", "-wal", "-shm"] {
        match std::fs::remove_file(beside(&fresh, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    make(&fresh).map_err(failed)?;
    // The last connection to close brings the WAL into the file.
    drop(SqliteWriter::open(&fresh)?);
    File::open(&fresh).and_then(|file| file.sync_all()).map_err(failed)?;
    std::fs::rename(&fresh, path).map_err(failed)?;
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// The file whose name goes on with `suffix`.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes an empty file.
fn make(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

/// Shuts other users out of the file; SQLite gives the WAL the mode of the file.
fn make_private(path: &Path) -> std::io::Result<()> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    if mode & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(mode & 0o700))?;
    }
    Ok(())
}

/// SQLite counts all memory that it takes, with a lock for all of its connections: a twentieth of the writer's time, for
/// figures that nobody asks for.
#[expect(unsafe_code, reason = "a setting of the whole library")]
fn count_no_memory() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: the option takes one number. Where SQLite is in use already it refuses, and goes on as it was.
        unsafe { rusqlite::ffi::sqlite3_config(rusqlite::ffi::SQLITE_CONFIG_MEMSTATUS, 0) };
    });
}

/// A connection to a database of ours, not yet checked for its version.
fn connect(path: &Path) -> Result<Connection, Error> {
    count_no_memory();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)
        .map_err(|error| open_error(path, &error.to_string()))?;
    conn.busy_timeout(BUSY_WAIT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    match schema::owner(&conn) {
        Ok(schema::Owner::Ours | schema::Owner::Nobody) => {}
        Ok(schema::Owner::Other) => {
            return Err(open_error(path, "the file is a database of another program"));
        }
        Err(error) => {
            return Err(match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt) => {
                    Error::Damaged(format!("{}: {error}", path.display()))
                }
                Some(ErrorCode::DiskFull) => Error::Full,
                _ => open_error(path, &error.to_string()),
            });
        }
    }
    // The bundled SQLite looks at bound values when it plans, and so plans anew whenever one is bound: without this,
    // that was a quarter of the time of the writer.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // No foreign keys: each append would look its owner up again, which the writer has just done.
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "trusted_schema", false)?;
    conn.pragma_update(None, "temp_store", "memory")?;
    conn.pragma_update(None, "synchronous", "full")?;
    conn.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    Ok(conn)
}

fn open_error(path: &Path, reason: &str) -> Error {
    Error::Open { path: path.display().to_string(), reason: reason.to_owned() }
}

/// How far the WAL is, in pages.
struct Wal {
    /// Pages written to it since it last started anew.
    written: u32,
    /// Those of them that are in the file too.
    copied: u32,
}

impl Wal {
    fn left(&self) -> u32 {
        self.written.saturating_sub(self.copied)
    }
}

/// Runs `PRAGMA wal_checkpoint(mode)`.
///
/// - gives: whether a reader or another checkpoint stood in the way, and how far it came
fn checkpoint(conn: &Connection, mode: &str) -> Result<(bool, Wal), Error> {
    let mut statement = conn.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))?;
    let (busy, written, copied): (bool, i64, i64) =
        statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    // -1 where there is no WAL yet.
    let pages = |count| u32::try_from(count).unwrap_or(0);
    Ok((busy, Wal { written: pages(written), copied: pages(copied) }))
}
