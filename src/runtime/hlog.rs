//! The interval log of latencies: HdrHistogram's own format (V2, compressed), a line for each series that has counted,
//! with tags and times since the epoch. It is appended to and readable while it grows; each interval is in it as soon as
//! it is over. A file is put aside when it is large or old, and the oldest go: `FILES_KEPT + 1` files of
//! `FILE_BYTES_MAX` and one interval are the most that there can be.

use crate::admin::latency::Sums;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file that is larger or older is put aside, as `NAME.1`.
const FILE_BYTES_MAX: u64 = 32 << 20;
const FILE_AGE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Files put aside: `NAME.1` is the newest, `NAME.7` goes when another comes.
const FILES_KEPT: u32 = 7;
/// What a log begins with.
const FORMAT: &str = "[Histogram log format version 1.3]";
/// The end of a file that is looked through for its last whole line.
const TAIL_BYTES: u64 = 1 << 20;

/// One file that is written. Lives on the thread that merges.
#[derive(Debug)]
pub(super) struct Hlog {
    path: PathBuf,
    file: File,
    length: u64,
    began: SystemTime,
    /// The last interval could not be written.
    failed: bool,
}

/// A whole log: one interval that began then and took so long.
///
/// - errors: none that can happen in memory; a histogram that cannot be written is the program's fault
pub fn text(sums: &Sums, began: SystemTime, took: Duration) -> io::Result<String> {
    let mut bytes = header(began)?;
    bytes.extend(lines(sums, began, took)?);
    String::from_utf8(bytes).map_err(io::Error::other)
}

fn header(began: SystemTime) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    IntervalLogWriterBuilder::new()
        .add_comment(FORMAT)
        .add_comment(concat!(
            "[Logged by corefire ",
            env!("CARGO_PKG_VERSION"),
            "; nanoseconds, but for store_batch: writes of a commit]"
        ))
        .with_start_time(began)
        .begin_log_with(&mut bytes, &mut serializer)?;
    bytes.extend_from_slice(
        b"\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
    );
    Ok(bytes)
}

fn lines(sums: &Sums, began: SystemTime, took: Duration) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new().begin_log_with(&mut bytes, &mut serializer)?;
    let at = began.duration_since(UNIX_EPOCH).unwrap_or_default();
    for (series, sum) in sums.iter().filter(|(_, sum)| !sum.histogram().is_empty()) {
        let tag = series.tag();
        writer
            .write_histogram(sum.histogram(), at, took, Tag::new(&tag))
            .map_err(|error| io::Error::other(error.to_string()))?;
    }
    Ok(bytes)
}

impl Hlog {
    /// Goes on with the file that is there, or begins one.
    ///
    /// - errors: it cannot be written, or holds something else
    pub(super) fn open(path: &Path, now: SystemTime) -> io::Result<Hlog> {
        let mut file = private(path)?;
        let (length, began) = whole_lines(&mut file, now)?;
        file.set_len(length)?;
        let mut log = Hlog { path: path.to_owned(), file, length, began, failed: false };
        log.append(&header(now)?)?;
        Ok(log)
    }

    /// Writes what an interval has counted, which began then and took so long. What cannot be written is left out, and
    /// told once.
    pub(super) fn write(&mut self, sums: &Sums, began: SystemTime, took: Duration) {
        let written = lines(sums, began, took).and_then(|lines| {
            self.rotate(lines.len() as u64, began)?;
            self.append(&lines)
        });
        let path = self.path.display();
        match written {
            Ok(()) if std::mem::take(&mut self.failed) => {
                tracing::info!(%path, "latencies are logged again");
            }
            Ok(()) => {}
            Err(_) if self.failed => {}
            Err(error) => {
                tracing::warn!(%path, %error, "latencies cannot be logged");
                self.failed = true;
            }
        }
    }

    /// All of it, or nothing: a line that is cut short would spoil the file.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.file.write_all(bytes) {
            Ok(()) => {
                self.length += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }

    fn rotate(&mut self, more: u64, now: SystemTime) -> io::Result<()> {
        let age = now.duration_since(self.began).unwrap_or_default();
        if self.length + more <= FILE_BYTES_MAX && age < FILE_AGE_MAX {
            return Ok(());
        }
        for number in (1..FILES_KEPT).rev() {
            match std::fs::rename(self.aside(number), self.aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, self.aside(1))?;
        self.file = private(&self.path)?;
        self.length = 0;
        self.began = now;
        self.append(&header(now)?)
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// How long the file is up to the end of its last whole line, and when it began.
fn whole_lines(file: &mut File, now: SystemTime) -> io::Result<(u64, SystemTime)> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok((0, now));
    }
    let mut start = Vec::new();
    file.take(512).read_to_end(&mut start)?;
    if !start.starts_with(format!("#{FORMAT}\n").as_bytes()) {
        let message = "the file is there and is no histogram log; choose another name";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    let begin = length.saturating_sub(TAIL_BYTES);
    file.seek(SeekFrom::Start(begin))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    // The first line is whole, so there is one in a file that is shorter than this; no line is longer.
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at as u64 + 1);
    Ok((begin + whole, started(&start).unwrap_or(now)))
}

/// `#[StartTime: 1441812279.474 (seconds since epoch)]`
fn started(start: &[u8]) -> Option<SystemTime> {
    let text = String::from_utf8_lossy(start);
    let seconds = text.split_once("#[StartTime: ")?.1.split_once(' ')?.0.parse().ok()?;
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::admin::latency::Series;
    use crate::base::histogram::{Counts, Sum};
    use base64::Engine;
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn sums(millis: &[u64]) -> Sums {
        let mut counts = Counts::default();
        for millis in millis {
            counts.record(Duration::from_millis(*millis));
        }
        let mut sum = Sum::like(counts.histogram().unwrap());
        sum.add(&counts.part());
        Sums::from([(Series::StoreCommit, sum)])
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Tag, start, and the histogram of each line.
    fn read(text: &[u8]) -> Vec<(String, Duration, Histogram<u64>)> {
        let mut found = Vec::new();
        for entry in IntervalLogIterator::new(text) {
            let Ok(LogEntry::Interval(line)) = entry else { continue };
            let bytes =
                base64::engine::general_purpose::STANDARD.decode(line.encoded_histogram()).unwrap();
            let histogram = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
            let tag = line.tag().unwrap().as_str().to_owned();
            found.push((tag, line.start_timestamp(), histogram));
        }
        found
    }

    #[test]
    fn what_is_written_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latency.hlog");
        let mut log = Hlog::open(&path, at(1_000)).unwrap();
        log.write(&sums(&[3, 4, 500]), at(1_010), Duration::from_secs(10));
        log.write(&sums(&[7]), at(1_020), Duration::from_secs(10));
        let text = std::fs::read(&path).unwrap();
        assert!(text.starts_with(b"#[Histogram log format version 1.3]\n"));
        let found = read(&text);
        let told: Vec<_> = found
            .iter()
            .map(|(tag, start, it)| (tag.as_str(), start.as_secs(), it.len()))
            .collect();
        assert_eq!(told, [("store_commit", 1_010, 3), ("store_commit", 1_020, 1)]);
        assert_eq!(found[0].2, *sums(&[3, 4, 500])[&Series::StoreCommit].histogram());
    }

    #[test]
    fn a_restart_goes_on_behind_the_last_whole_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let mut log = Hlog::open(&path, at(1_000)).unwrap();
        log.write(&sums(&[3]), at(1_010), Duration::from_secs(10));
        drop(log);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"Tag=store_commit,1020.000,10.0").unwrap();
        drop(file);
        let mut log = Hlog::open(&path, at(1_030)).unwrap();
        assert_eq!(log.began, at(1_000));
        log.write(&sums(&[4]), at(1_040), Duration::from_secs(10));
        let text = std::fs::read(&path).unwrap();
        assert!(IntervalLogIterator::new(&text).all(|entry| entry.is_ok()));
        assert_eq!(read(&text).len(), 2);
    }

    #[test]
    fn what_is_no_log_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("corefire.db");
        std::fs::write(&path, "SQLite format 3\0").unwrap();
        let error = Hlog::open(&path, at(0)).unwrap_err();
        assert!(error.to_string().contains("no histogram log"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"SQLite format 3\0");
    }

    #[test]
    fn old_and_large_files_are_put_aside_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l");
        let mut log = Hlog::open(&path, at(0)).unwrap();
        for day in 0..20 {
            log.write(&sums(&[day + 1]), at(day * 86_400), Duration::from_secs(10));
        }
        log.length = FILE_BYTES_MAX;
        log.write(&sums(&[100]), at(19 * 86_400 + 10), Duration::from_secs(10));
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["l", "l.1", "l.2", "l.3", "l.4", "l.5", "l.6", "l.7"]);
        let newest = read(&std::fs::read(&path).unwrap());
        assert_eq!(newest.len(), 1);
        assert!(newest[0].2.max() > 99_000_000);
        assert_eq!(read(&std::fs::read(dir.path().join("l.7")).unwrap()).len(), 1);
    }

    #[test]
    fn an_export_is_a_whole_log() {
        let text = text(&sums(&[1, 2]), at(50), Duration::from_secs(9)).unwrap();
        assert_eq!(read(text.as_bytes())[0].2.len(), 2);
    }
}
