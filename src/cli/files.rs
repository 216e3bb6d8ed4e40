//! Files that an import reads, and those that an export or a backup makes: whole or not at all, for this user alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use crate::base::percent;
use crate::portable::{Files, Folders, NameKind};

/// A file that includes others, all below its directory.
pub(super) struct Included {
    /// Resolved.
    root: PathBuf,
}

impl Included {
    /// - takes: the main file
    pub(super) fn of(file: &Path) -> io::Result<Included> {
        let directory = match file.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        Ok(Included { root: directory.canonicalize()? })
    }
}

impl Files for Included {
    fn open(&mut self, from: &str, reference: &str) -> Result<(String, Box<dyn BufRead>), String> {
        // The main file is named by the operator, who may read what he likes.
        if from.is_empty() {
            let file = File::open(reference).map_err(|error| cannot_read(&error))?;
            return Ok((reference.to_owned(), Box::new(BufReader::new(file))));
        }
        let path = decoded(reference)
            .ok_or("is no relative path; write it as in host.xml or host/user.xml")?;
        let is_below =
            path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !is_below || path.as_os_str().is_empty() {
            return Err("leads out of the directory of its file, and is not read".to_owned());
        }
        let path = Path::new(from).parent().unwrap_or(Path::new("")).join(path);
        let resolved = path.canonicalize().map_err(|error| cannot_read(&error))?;
        // By whatever links.
        if !resolved.starts_with(&self.root) {
            return Err("leads out of the directory of the main file, and is not read".to_owned());
        }
        let file = File::open(&resolved).map_err(|error| cannot_read(&error))?;
        if !file.metadata().is_ok_and(|facts| facts.is_file()) {
            return Err("is no file".to_owned());
        }
        Ok((path.display().to_string(), Box::new(BufReader::new(file))))
    }
}

fn cannot_read(error: &io::Error) -> String {
    format!("cannot be read: {error}")
}

/// The path of an URI reference; `None` for one with a scheme, an authority, a query or a fragment.
fn decoded(reference: &str) -> Option<PathBuf> {
    let first = reference.split('/').next().unwrap_or_default();
    if first.contains(':') || reference.contains(['?', '#']) {
        return None;
    }
    percent::decoded(reference).map(PathBuf::from)
}

/// A file name as an URI reference.
pub(super) fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// A tree of folders, as that of Prosody.
pub(super) struct Tree {
    pub(super) root: PathBuf,
}

impl Tree {
    fn path(&self, path: &[&str]) -> PathBuf {
        path.iter().fold(self.root.clone(), |path, name| path.join(name))
    }
}

impl Folders for Tree {
    fn names(&mut self, path: &[&str], kind: NameKind) -> Result<Vec<String>, String> {
        let listed = fs::read_dir(self.path(path)).map_err(|error| cannot_read(&error))?;
        let mut names = Vec::new();
        for entry in listed {
            let entry = entry.map_err(|error| cannot_read(&error))?;
            let facts = entry.file_type().map_err(|error| cannot_read(&error))?;
            let is_meant = match kind {
                NameKind::File => facts.is_file(),
                NameKind::Folder => facts.is_dir(),
            };
            // Prosody writes no other names than ASCII.
            if let (true, Ok(name)) = (is_meant, entry.file_name().into_string()) {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn open(&mut self, path: &[&str]) -> Result<Option<Box<dyn BufRead>>, String> {
        match File::open(self.path(path)) {
            Ok(file) => Ok(Some(Box::new(BufReader::new(file)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot_read(&error)),
        }
    }

    fn shown(&self, path: &[&str]) -> String {
        self.path(path).display().to_string()
    }
}

/// Something new on its way: it gets its name when it is whole and durable, and goes if it never is.
pub(super) struct Partial {
    path: PathBuf,
    partial: PathBuf,
    is_done: bool,
}

impl Partial {
    /// - errors: a line of cause and remedy; there is something of that name already
    pub(super) fn new(path: &Path) -> Result<Partial, String> {
        if path.symlink_metadata().is_ok() {
            return Err(format!("{}: there is such a file; give a new name", path.display()));
        }
        let Some(name) = path.file_name() else {
            return Err(format!("{}: is no name of a file", path.display()));
        };
        let mut partial = name.to_owned();
        partial.push(format!(".partial-{}", std::process::id()));
        let partial = path.with_file_name(partial);
        Ok(Partial { path: path.to_owned(), partial, is_done: false })
    }

    /// Where it is until it is done.
    pub(super) fn until_done(&self) -> &Path {
        &self.partial
    }

    pub(super) fn file(&self) -> io::Result<BufWriter<File>> {
        new_file(&self.partial)
    }

    pub(super) fn directory(&self) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(&self.partial)
    }

    /// Gives it its name. What is in it must be flushed already.
    pub(super) fn done(mut self) -> io::Result<()> {
        // A link fails where the name was taken meanwhile, a rename would replace what is there.
        if self.partial.is_dir() {
            if self.path.symlink_metadata().is_ok() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            fs::rename(&self.partial, &self.path)?;
            self.is_done = true;
        } else if let Err(error) = fs::hard_link(&self.partial, &self.path) {
            // Some file systems have no links.
            if error.kind() == io::ErrorKind::AlreadyExists || self.path.symlink_metadata().is_ok()
            {
                return Err(error);
            }
            fs::rename(&self.partial, &self.path)?;
            self.is_done = true;
        }
        let directory = match self.path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        File::open(directory)?.sync_all()
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        // What is left over of it says by its name what it is.
        let _ = match self.partial.is_dir() {
            true => fs::remove_dir_all(&self.partial),
            false => fs::remove_file(&self.partial),
        };
    }
}

/// A new file that only this user may read.
pub(super) fn new_file(path: &Path) -> io::Result<BufWriter<File>> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(BufWriter::with_capacity(256 << 10, file))
}

/// All of it is on disk when this returns.
pub(super) fn finish(mut file: BufWriter<File>) -> io::Result<()> {
    file.flush()?;
    file.get_ref().sync_all()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn includes_are_read_below_the_main_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("a/main.xml");
        fs::create_dir_all(dir.path().join("a/h \u{e9}")).unwrap();
        fs::write(&main, "").unwrap();
        fs::write(dir.path().join("a/h \u{e9}/u.xml"), "").unwrap();
        fs::write(dir.path().join("secret.xml"), "").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret.xml"), dir.path().join("a/link.xml"))
            .unwrap();
        let mut files = Included::of(&main).unwrap();
        let main = main.display().to_string();
        let (name, _) = files.open(&main, &encoded("h \u{e9}/u.xml")).unwrap();
        let (again, _) = files.open(&name, "./u.xml").unwrap();
        assert!(again.ends_with("u.xml"));
        for (from, reference, cause) in [
            (&name, "../main.xml", "leads out"),
            (&main, "../secret.xml", "leads out"),
            (&main, "%2e%2e/secret.xml", "leads out"),
            (&main, "/etc/passwd", "leads out"),
            (&main, "link.xml", "leads out"),
            (&main, "", "leads out"),
            (&main, "file:///etc/passwd", "no relative path"),
            (&main, "http://example.org/x", "no relative path"),
            (&main, "u.xml#x", "no relative path"),
            (&main, "none.xml", "cannot be read"),
            (&main, "h%20%C3%A9", "is no file"),
        ] {
            let refused = files.open(from, reference).err().unwrap();
            assert!(refused.contains(cause), "{reference}: {refused}");
        }
    }

    #[test]
    fn what_is_not_done_leaves_nothing_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let partial = Partial::new(&path).unwrap();
        finish(partial.file().unwrap()).unwrap();
        drop(partial);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let partial = Partial::new(&path).unwrap();
        finish(partial.file().unwrap()).unwrap();
        fs::write(&path, "other").unwrap();
        assert!(partial.done().is_err());
        assert_eq!(fs::read(&path).unwrap(), b"other");
        assert!(Partial::new(&path).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
