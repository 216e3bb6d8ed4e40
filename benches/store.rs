//! How much the embedded store does: durable messages per second from empty and as it grows, confirmations, account loads,
//! pages of archives short and long, reopening.
//!
//! A message is two rows of 300 bytes, one in the archive of each side; the recipient's is pending, too. Recipients are
//! online: behind the appends each confirms what it got, all but the newest [`ONLINE_LAG`] messages. Run with
//! `cargo bench --bench store`; the variables MESSAGES, BATCH, USERS, STANZA (bytes of each) and LONG (rows of the one long
//! archive) change the size, and TMPDIR the disk.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program that prints figures")]

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use corefire::base::instant::Wall;
use corefire::store::sqlite::{self, SqliteReader, SqliteWriter};
use corefire::store::{
    Answer, ArchiveQuery, Keep, LogEntry, Origin, Page, Query, Reader, RosterItem, Subscription,
    Write, Writer,
};
use corefire::xmpp::credentials::{Credentials, ScramKeys};
use corefire::xmpp::jid::{BareJid, Jid};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

const CONTACTS: usize = 10;

fn main() {
    // `cargo test --benches` only wants to see it run.
    let quick = std::env::args().any(|argument| argument == "--test");
    let messages = size("MESSAGES", if quick { 1_000 } else { 200_000 });
    let users = size("USERS", if quick { 1_000 } else { 100_000 });
    let batch = size("BATCH", 100);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("corefire.db");
    println!("{messages} messages of two rows, {users} users, {batch} messages a commit");

    let owners: Vec<BareJid> =
        (0..users).map(|n| BareJid::parse(&format!("user{n}@example.org")).unwrap()).collect();
    let mut writer = sqlite::open(&path).unwrap().writer;
    create(&mut writer, &owners);
    let stanza = size("STANZA", 300);
    let mut traffic = Traffic::new(owners.len(), batch, stanza);
    append(&mut writer, &owners, &mut traffic, messages, &path);
    let rows = leave(&mut writer, &owners, &mut traffic, messages.min(LEFT));
    loads(&path, &owners, if quick { 100 } else { 50_000 });
    pages(&path, &owners, if quick { 100 } else { 50_000 });
    archives(&path, &owners, if quick { 100 } else { 20_000 });
    long(&mut writer, &path, size("LONG", if quick { 1_000 } else { 1_000_000 }));
    confirm(&mut writer, &owners, &rows, batch);
    reopen(writer, &path);
}

fn size(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// CPU time of this thread, without the one that checkpoints.
fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// CPU time of all threads, in steps of 10 ms.
fn process_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = text.rsplit_once(')').unwrap();
    let ticks: u64 = fields.split(' ').skip(12).take(2).map(|n| n.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Bytes of memory that this process had at once.
fn memory_max() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Bytes that this process has read from files and written to them, whether or not the disk saw them.
fn transferred() -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/self/io").unwrap();
    ["rchar: ", "wchar: "].map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.parse().unwrap()
    })
}

struct Meter {
    name: &'static str,
    start: Instant,
    thread: Duration,
    process: Duration,
    transferred: [u64; 2],
    commits: Vec<Duration>,
}

impl Meter {
    fn start(name: &'static str) -> Meter {
        Meter {
            name,
            start: Instant::now(),
            thread: thread_cpu(),
            process: process_cpu(),
            transferred: transferred(),
            commits: Vec::new(),
        }
    }

    fn commit(&mut self, writer: &mut SqliteWriter, batch: &[Write]) {
        let start = Instant::now();
        writer.commit(batch).unwrap();
        self.commits.push(start.elapsed());
    }

    fn stop(mut self, count: usize, what: &str) {
        let wall = self.start.elapsed().as_secs_f64();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
        let thread = each(thread_cpu() - self.thread);
        let process = each(process_cpu() - self.process);
        let rate = count as f64 / wall;
        let now = transferred();
        let [read, wrote] =
            [0, 1].map(|n| (now[n] - self.transferred[n]) as f64 / 1e3 / count as f64);
        println!(
            "{:10} {rate:9.0} {what}/s, CPU {thread:.1} us (whole process {process:.1}), \
             read {read:.1} kB, wrote {wrote:.1} kB",
            self.name
        );
        if !self.commits.is_empty() {
            self.commits.sort_unstable();
            let at = |part: f64| {
                let place = (self.commits.len() - 1) as f64 * part;
                self.commits[place as usize].as_secs_f64() * 1e3
            };
            println!(
                "           commit p50 {:.2} ms, p99 {:.2}, p99.9 {:.2}, max {:.1}",
                at(0.5),
                at(0.99),
                at(0.999),
                at(1.0)
            );
        }
    }
}

fn create(writer: &mut SqliteWriter, owners: &[BareJid]) {
    let keys = |len| ScramKeys {
        iterations: 4096,
        salt: vec![1; 16],
        stored_key: vec![2; len],
        server_key: vec![3; len],
    };
    let credentials =
        Credentials { sha1: keys(20), sha256: keys(32), sha512: Some(keys(64).into()) };
    let mut meter = Meter::start("create");
    for (first, some) in owners.chunks(1_000).enumerate() {
        let batch: Vec<Write> = some
            .iter()
            .enumerate()
            .flat_map(|(n, owner)| {
                let set = (1..=CONTACTS).map(|k| contact(owners, first * 1_000 + n, k)).collect();
                [
                    Write::CreateAccount { owner: owner.clone(), credentials: credentials.clone() },
                    Write::PutRoster { owner: owner.clone(), set, remove: Vec::new(), version: 1 },
                ]
            })
            .collect();
        meter.commit(writer, &batch);
    }
    meter.stop(owners.len(), "accounts with rosters");
}

fn contact(owners: &[BareJid], owner: usize, number: usize) -> RosterItem {
    RosterItem {
        name: format!("Contact {number}"),
        groups: vec!["Friends".to_owned()],
        subscription: Subscription::Both,
        ..RosterItem::new(Jid::from_bare(owners[(owner + number * 7919) % owners.len()].clone()))
    }
}

/// Parts of the appending, whose rates are shown.
const PARTS: usize = 10;
/// The newest messages, which their recipients have not confirmed yet.
const ONLINE_LAG: usize = 5_000;
/// Messages that nobody has confirmed when all others are; these are confirmed later.
const LEFT: usize = 200_000;

/// Messages between contacts, with ids that rise.
struct Traffic {
    rng: ChaCha8Rng,
    users: usize,
    batch: usize,
    stanza: usize,
    last: u64,
    /// Rows that wait to be confirmed: whose, and their ids.
    pending: VecDeque<(usize, u64)>,
}

impl Traffic {
    fn new(users: usize, batch: usize, stanza: usize) -> Traffic {
        let rng = ChaCha8Rng::seed_from_u64(1);
        Traffic { rng, users, batch, stanza, last: 0, pending: VecDeque::new() }
    }

    /// What one commit appends.
    fn appends(&mut self, owners: &[BareJid]) -> Vec<Write> {
        let mut writes = Vec::with_capacity(3 * self.batch);
        for _ in 0..self.batch {
            self.last += 1;
            let from = self.rng.random_range(0..self.users);
            let to = (from + self.rng.random_range(1..=CONTACTS) * 7919) % self.users;
            for (owner, with, keep) in [(from, to, Keep::Archived), (to, from, Keep::Both)] {
                let entry = entry(self.last, owners[with].clone(), keep, self.stanza);
                writes.push(Write::AppendLog { owner: owners[owner].clone(), entry });
            }
            self.pending.push_back((to, self.last));
        }
        writes
    }

    /// Adds what clients that are online confirm meanwhile.
    fn confirm(&mut self, owners: &[BareJid], writes: &mut Vec<Write>) {
        let due = self.pending.len().saturating_sub(ONLINE_LAG);
        writes.extend(self.pending.drain(..due).map(|row| confirmed(owners, &row)));
    }
}

fn confirmed(owners: &[BareJid], (owner, id): &(usize, u64)) -> Write {
    Write::ConfirmLog { owner: owners[*owner].clone(), ids: vec![*id] }
}

fn append(
    writer: &mut SqliteWriter,
    owners: &[BareJid],
    traffic: &mut Traffic,
    messages: usize,
    path: &Path,
) {
    let mut wal_max = 0;
    let wal = path.with_extension("db-wal");
    let batches = messages / traffic.batch;
    let mut tenths = Vec::new();
    let mut meter = Meter::start("append");
    for part in 0..PARTS {
        let part = part * batches / PARTS..(part + 1) * batches / PARTS;
        let count = (part.len() * traffic.batch) as f64;
        let (first, cpu) = (meter.commits.len(), process_cpu());
        let [_, wrote] = transferred();
        for _ in part {
            let mut writes = traffic.appends(owners);
            traffic.confirm(owners, &mut writes);
            meter.commit(writer, &writes);
            wal_max = wal_max.max(std::fs::metadata(&wal).map_or(0, |wal| wal.len()));
        }
        let mut commits = meter.commits[first..].to_vec();
        let took: Duration = commits.iter().sum();
        commits.sort_unstable();
        let p99 = commits.get(commits.len() * 99 / 100).copied().unwrap_or_default();
        tenths.push((
            count / took.as_secs_f64().max(1e-9),
            (process_cpu() - cpu).as_secs_f64() * 1e6 / count,
            (transferred()[1] - wrote) as f64 / 1e3 / count,
            p99.as_secs_f64() * 1e3,
        ));
    }
    meter.stop(traffic.batch * batches, "durable messages");
    println!(
        "           by tenths: messages/s (commits alone), CPU us and kB written for each, p99 in ms"
    );
    for (rate, cpu, wrote, p99) in tenths {
        println!("           {rate:9.0} {cpu:9.1} {wrote:9.1} {p99:9.2}");
    }
    println!(
        "           WAL at most {} MiB, memory at most {} MiB",
        wal_max >> 20,
        memory_max() >> 20
    );
}

/// Messages that nobody confirms: they are pending when this returns, and no others.
fn leave(
    writer: &mut SqliteWriter,
    owners: &[BareJid],
    traffic: &mut Traffic,
    messages: usize,
) -> Vec<(usize, u64)> {
    let rest: Vec<Write> = traffic.pending.drain(..).map(|row| confirmed(owners, &row)).collect();
    writer.commit(&rest).unwrap();
    for _ in 0..messages / traffic.batch {
        writer.commit(&traffic.appends(owners)).unwrap();
    }
    traffic.pending.drain(..).collect()
}

fn entry(id: u64, with: BareJid, keep: Keep, stanza: usize) -> LogEntry {
    LogEntry {
        id,
        at: Wall(1_700_000_000_000_000 + id),
        with: Jid::from_bare(with),
        keep,
        origin: Origin { incarnation: 1, link: 2, number: id },
        stanza: vec![b'x'; stanza],
        open_end: 9,
        close_start: 20,
    }
}

/// Messages with the one who writes rarely, of a long archive as of a short one.
const RARE: usize = 50;

/// One owner with a long archive beside one with a short one: pages of both.
fn long(writer: &mut SqliteWriter, path: &Path, rows: usize) {
    let name = |text: &str| BareJid::parse(text).unwrap();
    let (often, rare) = (name("often@example.org"), name("rare@example.org"));
    let owners = [(name("long@example.org"), rows), (name("short@example.org"), 1_000)];
    for (owner, rows) in &owners {
        create(writer, std::slice::from_ref(owner));
        for first in (0..*rows).step_by(1_000) {
            let batch: Vec<Write> = (first..(first + 1_000).min(*rows))
                .map(|n| {
                    let apart = rows / RARE;
                    let with = if n % apart == apart / 2 { &rare } else { &often };
                    let entry = entry(n as u64 + 1, with.clone(), Keep::Archived, 300);
                    Write::AppendLog { owner: owner.clone(), entry }
                })
                .collect();
            writer.commit(&batch).unwrap();
        }
    }
    let mut reader = SqliteReader::open(path).unwrap();
    println!("pages of 50 from an archive of {rows} rows, and of 1000; p50 of each in us:");
    type Change = fn(&mut ArchiveQuery, u64);
    fn rarely(query: &mut ArchiveQuery) {
        query.with = Some(Jid::parse("rare@example.org").unwrap());
    }
    let kinds: [(&str, Change); 9] = [
        ("the first", |_, _| {}),
        ("the last", |query, _| query.page = Page::Before(u64::MAX)),
        ("from the middle", |query, rows| query.page = Page::After(rows / 2)),
        ("since a time", |query, rows| query.start = Some(Wall(1_700_000_000_000_000 + rows / 2))),
        ("the last with one who writes often", |query, _| {
            query.page = Page::Before(u64::MAX);
            query.with = Some(Jid::parse("often@example.org").unwrap());
        }),
        ("the last with one who writes rarely", |query, _| {
            query.page = Page::Before(u64::MAX);
            rarely(query);
        }),
        ("the first with one who writes rarely", |query, _| rarely(query)),
        ("with one who writes rarely, a time", |query, rows| {
            query.start = Some(Wall(1_700_000_000_000_000 + rows / 2));
            rarely(query);
        }),
        ("with one who writes rarely, counted", |query, _| {
            query.count_max = 10_000;
            rarely(query);
        }),
    ];
    for (what, change) in kinds {
        let medians = owners.each_ref().map(|(owner, rows)| {
            let mut query = ArchiveQuery::all(owner.clone(), 50);
            change(&mut query, *rows as u64);
            let mut times: Vec<Duration> = (0..101)
                .map(|_| {
                    let start = Instant::now();
                    reader.read(&Query::Archive(Box::new(query.clone()))).unwrap();
                    start.elapsed()
                })
                .collect();
            times.sort_unstable();
            times[times.len() / 2].as_secs_f64() * 1e6
        });
        let [long, short] = medians;
        println!("           {what:36} {long:9.0} {short:9.0}   ratio {:.2}", long / short);
    }
}

fn loads(path: &Path, owners: &[BareJid], count: usize) {
    let mut reader = SqliteReader::open(path).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let meter = Meter::start("load");
    for _ in 0..count {
        let owner = owners[rng.random_range(0..owners.len())].clone();
        let Answer::Account(Some(account)) = reader.read(&Query::Account { owner }).unwrap() else {
            panic!("each has an account");
        };
        assert_eq!(account.roster.len(), CONTACTS);
    }
    meter.stop(count, "accounts with 10 contacts");
}

fn pages(path: &Path, owners: &[BareJid], count: usize) {
    let mut reader = SqliteReader::open(path).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let meter = Meter::start("page");
    for _ in 0..count {
        let owner = owners[rng.random_range(0..owners.len())].clone();
        reader.read(&Query::Log { owner, after: 0, limit: 50 }).unwrap();
    }
    meter.stop(count, "pages of a log");
}

/// The newest page of archives.
fn archives(path: &Path, owners: &[BareJid], count: usize) {
    let mut reader = SqliteReader::open(path).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let meter = Meter::start("archive");
    for _ in 0..count {
        let mut query = ArchiveQuery::all(owners[rng.random_range(0..owners.len())].clone(), 50);
        query.page = Page::Before(u64::MAX);
        reader.read(&Query::Archive(Box::new(query))).unwrap();
    }
    meter.stop(count, "pages of an archive");
}

/// Each owner's client confirms what came, row by row, as with XEP-0198.
fn confirm(writer: &mut SqliteWriter, owners: &[BareJid], rows: &[(usize, u64)], batch: usize) {
    let mut meter = Meter::start("confirm");
    for some in rows.chunks(2 * batch) {
        let batch: Vec<Write> = some.iter().map(|row| confirmed(owners, row)).collect();
        meter.commit(writer, &batch);
    }
    meter.stop(rows.len(), "rows");
}

fn reopen(mut writer: SqliteWriter, path: &Path) {
    let wal = std::fs::metadata(path.with_extension("db-wal")).map_or(0, |wal| wal.len());
    let start = Instant::now();
    writer.reopen().unwrap();
    println!("reopen     {:.1} ms, WAL of {} MiB", start.elapsed().as_secs_f64() * 1e3, wal >> 20);
    drop(writer);
    let bytes = std::fs::metadata(path).unwrap().len();
    println!("file       {} MiB", bytes >> 20);
}
