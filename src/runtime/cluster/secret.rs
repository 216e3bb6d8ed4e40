//! The file with the cluster's secret: read where nobody else can read it, and written once.

use crate::cluster::secret::{BYTES_MAX, Secret, SecretError};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// Why there is no secret. Each is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    #[error("the secret of the cluster cannot be read from {path}: {source}")]
    Unreadable { path: String, source: io::Error },
    #[error("{path}, the secret of the cluster, is not a file")]
    NotAFile { path: String },
    #[error(
        "{path}, the secret of the cluster, may be read by other users of this machine; run: chmod 600 {path}"
    )]
    Exposed { path: String },
    #[error("{path}: {source}")]
    Unfit { path: String, source: SecretError },
    #[error("{path} is there already; other nodes may use it, so it is not overwritten")]
    Exists { path: String },
    #[error("the secret of the cluster cannot be written to {path}: {source}")]
    Unwritable { path: String, source: io::Error },
}

/// Reads the secret.
///
/// - errors: the file is missing, readable by its group or others, no plain file, or holds what `Secret` refuses
pub fn read(path: &Path) -> Result<Secret, SecretFileError> {
    let shown = || path.display().to_string();
    let unreadable = |source| SecretFileError::Unreadable { path: shown(), source };
    // A pipe would be waited for.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable)?;
    // Of what was opened, not of what stands there now.
    let facts = file.metadata().map_err(unreadable)?;
    if !facts.is_file() {
        return Err(SecretFileError::NotAFile { path: shown() });
    }
    if facts.mode() & 0o077 != 0 {
        return Err(SecretFileError::Exposed { path: shown() });
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    let unfit = |source| SecretFileError::Unfit { path: shown(), source };
    let text = str::from_utf8(&bytes).map_err(|_| unfit(SecretError::NotText))?;
    Secret::new(text).map_err(unfit)
}

/// Writes a fresh secret of 32 random bytes as 43 characters, which only this user may read (mode 0600).
///
/// - errors: the file is there already; it cannot be written; the system has no random bytes
pub fn write_fresh(path: &Path) -> Result<(), SecretFileError> {
    let shown = || path.display().to_string();
    let unwritable = |source| SecretFileError::Unwritable { path: shown(), source };
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| unwritable(io::Error::other("the system has no random bytes")))?;
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let file = made.map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => SecretFileError::Exists { path: shown() },
        _ => unwritable(source),
    })?;
    let written = fill(&file, &URL_SAFE_NO_PAD.encode(bytes));
    if written.is_err() {
        // Half a secret must not be taken for one. What cannot be removed is too short to be used.
        let _ = std::fs::remove_file(path);
    }
    written.map_err(unwritable)
}

fn fill(mut file: &File, secret: &str) -> io::Result<()> {
    writeln!(file, "{secret}")?;
    file.sync_all()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::cluster::secret::Label;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_fresh_secret_is_private_and_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        write_fresh(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let key = read(&path).unwrap().derive(Label::Gossip);
        let text = fs::read(&path).unwrap();
        assert_eq!(text.len(), 44);
        assert!(matches!(write_fresh(&path), Err(SecretFileError::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), text);
        let other = directory.path().join("other");
        write_fresh(&other).unwrap();
        assert_ne!(read(&other).unwrap().derive(Label::Gossip), key);
        let nowhere = directory.path().join("no/secret");
        assert!(matches!(write_fresh(&nowhere), Err(SecretFileError::Unwritable { .. })));
    }

    #[test]
    fn files_that_others_may_read_and_what_is_no_secret_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        assert!(matches!(read(&path), Err(SecretFileError::Unreadable { .. })));
        assert!(matches!(read(directory.path()), Err(SecretFileError::NotAFile { .. })));
        write_fresh(&path).unwrap();
        for mode in [0o640, 0o604, 0o610, 0o601, 0o620] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&path), Err(SecretFileError::Exposed { .. })), "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        read(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        for (content, expected) in [
            (&b""[..], SecretError::Empty),
            (b"changeme", SecretError::Guessable),
            (b"\xff\xfe", SecretError::NotText),
            (&[b'x'; BYTES_MAX + 10], SecretError::Long),
        ] {
            fs::write(&path, content).unwrap();
            let Err(SecretFileError::Unfit { source, .. }) = read(&path) else { panic!() };
            assert_eq!(source, expected);
        }
    }
}
