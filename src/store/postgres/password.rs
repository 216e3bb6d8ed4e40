//! Passwords that stand beside the URL: alone in a file, or in one of libpq's form (`PGPASSFILE`, `~/.pgpass`).

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file larger than this is none with passwords.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What a line is chosen by.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) host: String,
    pub(super) port: String,
    pub(super) database: String,
    pub(super) user: String,
}

/// Whether a file has a password.
///
/// - errors: a line of cause and remedy
/// - blocking
pub fn check_password_file(path: &Path) -> Result<(), String> {
    alone_in(path).map(drop)
}

/// The password in a file that holds nothing else, but for a line's end.
///
/// - errors: a line of cause and remedy
pub(super) fn alone_in(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let text = read(path).map_err(|error| {
        format!("{shown}: cannot be read: {error}; name a file that this process may read")
    })?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{shown}: is empty; write the password into it")),
        password => Ok(password.to_owned()),
    }
}

/// The password of the first line that fits, in the file of `PGPASSFILE` or else in `~/.pgpass`.
///
/// One that others may read is passed over, as libpq does, with a line in the log.
pub(super) fn from_pgpass(key: &Key) -> Option<String> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".pgpass"));
    let path = std::env::var_os("PGPASSFILE").map(PathBuf::from).or_else(home)?;
    let mode = std::fs::metadata(&path).ok()?.permissions().mode();
    if mode & 0o077 != 0 {
        let path = path.display();
        tracing::warn!(%path, "not used, since others may read the passwords in it; chmod 600");
        return None;
    }
    find(&read(&path).ok()?, key)
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Lines are `HOST:PORT:DATABASE:USER:PASSWORD`; `*` fits all, `\` takes the next character as it is.
fn find(text: &str, key: &Key) -> Option<String> {
    let wanted = [&key.host, &key.port, &key.database, &key.user];
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line)?;
        let (password, fields) = fields.split_last()?;
        let fits = fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then(|| password.clone())
    })
}

/// The five of a line; colons of the last need no escape.
fn fields(line: &str) -> Option<[String; 5]> {
    let mut fields: [String; 5] = Default::default();
    let mut at = 0;
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            ':' if at < 4 => at += 1,
            '\\' => fields[at].extend(chars.next()),
            char => fields[at].push(char),
        }
    }
    (at == 4).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let text = "# comment:*:*:*:no\n\
                    short:line\n\
                    other:5432:corefire:xmpp:no\n\
                    db\\:1:5432:*:xmpp:a\\:b:c\\\\\n\
                    *:*:*:*:later\n";
        let key = |host: &str, user: &str| Key {
            host: host.to_owned(),
            port: "5432".to_owned(),
            database: "corefire".to_owned(),
            user: user.to_owned(),
        };
        assert_eq!(find(text, &key("db:1", "xmpp")).as_deref(), Some("a:b:c\\"));
        assert_eq!(find(text, &key("db:1", "root")).as_deref(), Some("later"));
        assert_eq!(find("", &key("db", "xmpp")), None);
    }

    #[test]
    fn a_file_may_hold_the_password_alone() {
        let directory = tempfile::TempDir::new().expect("a directory");
        let path = directory.path().join("password");
        std::fs::write(&path, "hunter2 \r\n").expect("written");
        assert_eq!(alone_in(&path).as_deref(), Ok("hunter2 "));
        std::fs::write(&path, "\n").expect("written");
        assert!(alone_in(&path).is_err_and(|told| told.contains("is empty")));
        assert!(alone_in(&directory.path().join("none")).is_err());
    }
}
