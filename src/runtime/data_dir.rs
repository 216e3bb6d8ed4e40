//! The data directory: made and locked here, used by one process at a time.
//!
//! It holds the store, the lock and the control socket, so who may write in it may read every account.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A locked data directory. Dropping it unlocks; the kernel does so as well when the process ends in any way.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    directory: File,
    _lock: File,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error(
        "data directory {path} cannot be used: {source}; make it a directory of this user, or give another --data-dir"
    )]
    Unusable { path: String, source: std::io::Error },
    #[error(
        "data directory {path} does not exist; start a node or add an account first, or give the right --data-dir"
    )]
    Missing { path: String },
    #[error(
        "data directory {path} may be written by every user of this machine; run: chmod 700 {path}"
    )]
    Exposed { path: String },
    #[error(
        "data directory {path} is in use by process {pid}; stop that process, or give another --data-dir"
    )]
    InUse { path: String, pid: String },
}

impl DataDir {
    /// Makes the directory (mode 0700) where it is missing, and takes its lock.
    ///
    /// - errors: another process holds the lock; the directory cannot be made or written; every user may write in it
    pub fn open(path: &Path) -> Result<DataDir, DataDirError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| {
            DataDirError::Unusable { path: path.display().to_string(), source }
        })?;
        DataDir::open_existing(path)
    }

    /// As `open`, for a directory that must be there.
    pub fn open_existing(path: &Path) -> Result<DataDir, DataDirError> {
        let shown = || path.display().to_string();
        let unusable = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => DataDirError::Missing { path: shown() },
            _ => DataDirError::Unusable { path: shown(), source },
        };
        let directory = File::open(path).map_err(unusable)?;
        if directory.metadata().map_err(unusable)?.mode() & 0o002 != 0 {
            return Err(DataDirError::Exposed { path: shown() });
        }
        let mut lock = private_file(&path.join("lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // Empty for the moment between taking the lock and writing the number.
                let mut pid = String::new();
                let read = lock.take(32).read_to_string(&mut pid);
                let pid = match pid.trim() {
                    "" => "(starting)".to_owned(),
                    pid if read.is_ok() => pid.to_owned(),
                    _ => "(unknown)".to_owned(),
                };
                return Err(DataDirError::InUse { path: shown(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let number = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        number(&mut lock).map_err(unusable)?;
        Ok(DataDir { path: path.to_owned(), directory, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the control socket is, or would be.
    pub fn control_socket(&self) -> PathBuf {
        self.path.join(CONTROL_SOCKET)
    }

    /// A path of the directory that is short whatever its name is: a socket's path ends at 107 bytes.
    pub(crate) fn short_path(&self) -> PathBuf {
        short_path(&self.directory)
    }
}

pub(crate) const CONTROL_SOCKET: &str = "control.sock";

/// The open directory by its number.
pub(crate) fn short_path(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()))
}

fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_directory_and_its_lock_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let data = DataDir::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(path.join("lock")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(data.control_socket(), path.join("control.sock"));
    }

    #[test]
    fn a_locked_directory_names_the_process_that_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::open(dir.path()).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("is in use by process {}", std::process::id())), "{error}");
        drop(held);
        DataDir::open(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_that_all_may_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let error = DataDir::open(dir.path()).unwrap_err();
        assert!(matches!(error, DataDirError::Exposed { .. }), "{error}");
    }

    #[test]
    fn what_is_missing_or_no_directory_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let missing = DataDir::open_existing(&dir.path().join("x")).unwrap_err();
        assert!(matches!(missing, DataDirError::Missing { .. }), "{missing}");
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = DataDir::open(&file).unwrap_err();
        assert!(matches!(error, DataDirError::Unusable { .. }), "{error}");
    }
}
