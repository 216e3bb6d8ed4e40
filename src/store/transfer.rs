//! Everything of one store into another, and both held against each other afterwards. Works on the contract alone, so it
//! knows nothing of any backend.

use std::collections::BTreeMap;

use super::{
    AccountRecord, Answer, ArchiveQuery, Counters, Error, LogEntry, Page, Query, Reader, Write,
    Writer, Written,
};
use crate::xmpp::jid::BareJid;

/// Owners that are listed at a time, and rows of a log that are read at a time.
const OWNERS_PAGE: u32 = 1_000;
const LOG_PAGE: u32 = 256;

/// Of one commit.
const BATCH_WRITES: usize = 512;
const BATCH_BYTES: usize = 4 << 20;

/// Differences that are told one by one.
const DIFFERENCES_TOLD: usize = 100;

/// Records by type, in the plural.
pub type Counts = BTreeMap<&'static str, u64>;

/// Why a transfer ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error("reading: {0}")]
    Read(#[source] Error),
    #[error("writing: {0}")]
    Write(#[source] Error),
    #[error("the target has accounts or messages already; give one that is empty")]
    NotEmpty,
    #[error(
        "a store answered another question than was asked; this is a fault of the program: report it"
    )]
    Odd,
}

/// Where two stores differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    pub from: Counts,
    pub to: Counts,
    pub differences: u64,
    /// The first of them, a line each.
    pub told: Vec<String>,
}

/// Copies all that `from` holds at this moment into an empty store, however large a log is.
///
/// - takes: `progress`, told how many accounts are done
/// - gives: what was written
pub fn copy(
    from: &mut dyn Reader,
    to: &mut dyn Writer,
    is_empty: &mut dyn Reader,
    progress: &mut dyn FnMut(u64),
) -> Result<Counts, TransferError> {
    for kind in Kind::ALL {
        if !kind.page(is_empty, None, 1)?.is_empty() {
            return Err(TransferError::NotEmpty);
        }
    }
    from.hold().map_err(TransferError::Read)?;
    let copied = Copy { from, to, batch: Vec::new(), bytes: 0, counts: Counts::new() };
    copied.run(progress)
}

struct Copy<'a> {
    from: &'a mut dyn Reader,
    to: &'a mut dyn Writer,
    batch: Vec<Write>,
    bytes: usize,
    counts: Counts,
}

impl Copy<'_> {
    fn run(mut self, progress: &mut dyn FnMut(u64)) -> Result<Counts, TransferError> {
        // First, so that a copy that breaks off gives no id twice either.
        let counters = counters(self.from)?;
        self.put(Write::RaiseCounters { counters }, 0)?;
        for kind in Kind::ALL {
            let mut owners = Owners::of(kind);
            while let Some(owner) = owners.peek(self.from)? {
                add(&mut self.counts, kind.shown(), 1);
                match kind {
                    Kind::Accounts => self.account(&owner)?,
                    Kind::Domains => self.log(&owner, View::Pending)?,
                }
                progress(self.counts.get(Kind::Accounts.shown()).copied().unwrap_or(0));
                owners.pass();
            }
        }
        self.flush()?;
        self.from.release().map_err(TransferError::Read)?;
        Ok(self.counts)
    }

    fn account(&mut self, owner: &BareJid) -> Result<(), TransferError> {
        let Some(account) = account(self.from, owner)? else { return Err(TransferError::Odd) };
        let AccountRecord { credentials, disabled, roster, roster_version, .. } = *account;
        add(&mut self.counts, "contacts", roster.len() as u64);
        let owner = || owner.clone();
        self.put(Write::CreateAccount { owner: owner(), credentials }, 0)?;
        if disabled {
            self.put(Write::SetDisabled { owner: owner(), disabled }, 0)?;
        }
        if !roster.is_empty() || roster_version > 0 {
            let bytes = roster.len() * 128;
            let (set, remove, version) = (roster, Vec::new(), roster_version);
            self.put(Write::PutRoster { owner: owner(), set, remove, version }, bytes)?;
        }
        for name in slot_names(self.from, &owner())? {
            let Some(value) = slot(self.from, &owner(), &name)? else {
                return Err(TransferError::Odd);
            };
            let bytes = value.len();
            self.put(Write::PutSlot { owner: owner(), name, value: Some(value) }, bytes)?;
            add(&mut self.counts, "slots", 1);
        }
        for view in View::ALL {
            self.log(&owner(), view)?;
        }
        Ok(())
    }

    fn log(&mut self, owner: &BareJid, view: View) -> Result<(), TransferError> {
        let mut after = 0;
        loop {
            let (entries, more) = view.page(self.from, owner, after)?;
            for entry in entries {
                after = entry.id;
                // One that is in both views comes with the archive.
                if view == View::Pending && entry.keep.is_archived() {
                    continue;
                }
                let bytes = entry.stanza.len();
                self.put(Write::AppendLog { owner: owner.clone(), entry }, bytes)?;
                add(&mut self.counts, "messages", 1);
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn put(&mut self, write: Write, bytes: usize) -> Result<(), TransferError> {
        self.batch.push(write);
        self.bytes += bytes;
        if self.batch.len() >= BATCH_WRITES || self.bytes >= BATCH_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TransferError> {
        let written = self.to.commit(&self.batch).map_err(TransferError::Write)?;
        self.batch.clear();
        self.bytes = 0;
        match written.iter().find(|written| **written != Written::Done) {
            None => Ok(()),
            Some(Written::Exists) => Err(TransferError::NotEmpty),
            Some(_) => Err(TransferError::Odd),
        }
    }
}

/// Reads both stores whole, each at one moment, and holds them against each other.
pub fn compare(from: &mut dyn Reader, to: &mut dyn Reader) -> Result<Comparison, TransferError> {
    from.hold().map_err(TransferError::Read)?;
    to.hold().map_err(TransferError::Read)?;
    let mut comparison = Comparison::default();
    compare_held(from, to, &mut comparison)?;
    from.release().map_err(TransferError::Read)?;
    to.release().map_err(TransferError::Read)?;
    Ok(comparison)
}

fn compare_held(
    from: &mut dyn Reader,
    to: &mut dyn Reader,
    comparison: &mut Comparison,
) -> Result<(), TransferError> {
    let (one, other) = (counters(from)?, counters(to)?);
    if one.next_ids != other.next_ids {
        comparison.tell("the ids that were given differ".to_owned());
    }
    // The other one was opened since.
    if other.incarnation < one.incarnation {
        comparison.tell("the number of openings is lower in the target".to_owned());
    }
    for kind in Kind::ALL {
        compare_kind(from, to, kind, comparison)?;
    }
    Ok(())
}

fn compare_kind(
    from: &mut dyn Reader,
    to: &mut dyn Reader,
    kind: Kind,
    comparison: &mut Comparison,
) -> Result<(), TransferError> {
    let (mut left, mut right) = (Owners::of(kind), Owners::of(kind));
    loop {
        match (left.peek(from)?, right.peek(to)?) {
            (None, None) => return Ok(()),
            (Some(one), Some(other)) if one == other => {
                add(&mut comparison.from, kind.shown(), 1);
                add(&mut comparison.to, kind.shown(), 1);
                match kind {
                    Kind::Accounts => compare_account(from, to, &one, comparison)?,
                    Kind::Domains => compare_log(from, to, &one, View::Pending, comparison)?,
                }
                left.pass();
                right.pass();
            }
            (Some(one), other)
                if other.as_ref().is_none_or(|other| one.as_str() < other.as_str()) =>
            {
                add(&mut comparison.from, kind.shown(), 1);
                comparison.tell(format!("{one}: {} not in the target", kind.is()));
                left.pass();
            }
            (_, Some(other)) => {
                add(&mut comparison.to, kind.shown(), 1);
                comparison.tell(format!("{other}: {} in the target alone", kind.is()));
                right.pass();
            }
            (Some(_), None) => return Err(TransferError::Odd),
        }
    }
}

fn compare_account(
    from: &mut dyn Reader,
    to: &mut dyn Reader,
    owner: &BareJid,
    comparison: &mut Comparison,
) -> Result<(), TransferError> {
    let (one, other) = (account(from, owner)?, account(to, owner)?);
    let (Some(one), Some(other)) = (one, other) else { return Err(TransferError::Odd) };
    for (counts, account) in [(&mut comparison.from, &one), (&mut comparison.to, &other)] {
        add(counts, "contacts", account.roster.len() as u64);
    }
    if one != other {
        comparison.tell(format!("{owner}: password, state, roster or number of messages differ"));
    }
    let (names, others) = (slot_names(from, owner)?, slot_names(to, owner)?);
    add(&mut comparison.from, "slots", names.len() as u64);
    add(&mut comparison.to, "slots", others.len() as u64);
    if names != others {
        comparison.tell(format!("{owner}: the slots differ"));
    } else {
        for name in names {
            if slot(from, owner, &name)? != slot(to, owner, &name)? {
                comparison.tell(format!("{owner}: the slot {name:?} differs"));
            }
        }
    }
    for view in View::ALL {
        compare_log(from, to, owner, view, comparison)?;
    }
    Ok(())
}

fn compare_log(
    from: &mut dyn Reader,
    to: &mut dyn Reader,
    owner: &BareJid,
    view: View,
    comparison: &mut Comparison,
) -> Result<(), TransferError> {
    let (mut left, mut right) = (Log::of(view), Log::of(view));
    loop {
        let (one, other) = (left.next(from, owner)?, right.next(to, owner)?);
        if one.is_none() && other.is_none() {
            return Ok(());
        }
        let counts = [(&mut comparison.from, &one), (&mut comparison.to, &other)];
        for (counts, entry) in counts {
            // As they are counted when they are copied.
            let is_counted = |entry: &LogEntry| view == View::Archived || !entry.keep.is_archived();
            add(counts, "messages", u64::from(entry.as_ref().is_some_and(is_counted)));
        }
        if one != other {
            let id = one.or(other).map_or(0, |entry| entry.id);
            comparison.tell(format!("{owner}: the message {id} differs"));
        }
    }
}

impl Comparison {
    fn tell(&mut self, line: String) {
        self.differences += 1;
        if self.told.len() < DIFFERENCES_TOLD {
            self.told.push(line);
        }
    }
}

/// Those who have something in a store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Accounts,
    /// Remote ones, for which messages wait.
    Domains,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Accounts, Kind::Domains];

    fn shown(self) -> &'static str {
        match self {
            Kind::Accounts => "accounts",
            Kind::Domains => "domains",
        }
    }

    /// The start of what is told of one.
    fn is(self) -> &'static str {
        match self {
            Kind::Accounts => "the account is",
            Kind::Domains => "the messages to that domain are",
        }
    }

    /// A page, in the order of the text.
    fn page(
        self,
        reader: &mut dyn Reader,
        after: Option<&BareJid>,
        limit: u32,
    ) -> Result<Vec<BareJid>, TransferError> {
        let after = after.cloned();
        let query = match self {
            Kind::Accounts => Query::Accounts { domain: None, only_disabled: false, after, limit },
            Kind::Domains => Query::RemoteLogs { after, limit },
        };
        match reader.read(&query).map_err(TransferError::Read)? {
            Answer::Accounts(owners) | Answer::RemoteLogs(owners) => Ok(owners),
            _ => Err(TransferError::Odd),
        }
    }
}

/// The owners of a kind, page by page.
struct Owners {
    kind: Kind,
    page: std::collections::VecDeque<BareJid>,
    last: Option<BareJid>,
}

impl Owners {
    fn of(kind: Kind) -> Owners {
        Owners { kind, page: std::collections::VecDeque::new(), last: None }
    }

    fn peek(&mut self, reader: &mut dyn Reader) -> Result<Option<BareJid>, TransferError> {
        if self.page.is_empty() {
            self.page = self.kind.page(reader, self.last.as_ref(), OWNERS_PAGE)?.into();
        }
        Ok(self.page.front().cloned())
    }

    fn pass(&mut self) {
        self.last = self.page.pop_front();
    }
}

/// The log is read by its views.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    Pending,
    Archived,
}

impl View {
    const ALL: [View; 2] = [View::Pending, View::Archived];

    /// A page, and whether there is more.
    fn page(
        self,
        reader: &mut dyn Reader,
        owner: &BareJid,
        after: u64,
    ) -> Result<(Vec<LogEntry>, bool), TransferError> {
        let query = match self {
            View::Pending => Query::Log { owner: owner.clone(), after, limit: LOG_PAGE },
            View::Archived => Query::Archive(Box::new(ArchiveQuery {
                page: Page::After(after),
                ..ArchiveQuery::all(owner.clone(), LOG_PAGE)
            })),
        };
        match reader.read(&query).map_err(TransferError::Read)? {
            Answer::Log { entries, more } => Ok((entries, more)),
            Answer::Archive { entries, complete, .. } => Ok((entries, !complete)),
            _ => Err(TransferError::Odd),
        }
    }
}

/// A view of an owner's log, page by page.
struct Log {
    view: View,
    page: std::collections::VecDeque<LogEntry>,
    after: u64,
    is_over: bool,
}

impl Log {
    fn of(view: View) -> Log {
        Log { view, page: std::collections::VecDeque::new(), after: 0, is_over: false }
    }

    fn next(
        &mut self,
        reader: &mut dyn Reader,
        owner: &BareJid,
    ) -> Result<Option<LogEntry>, TransferError> {
        if self.page.is_empty() && !self.is_over {
            let (entries, more) = self.view.page(reader, owner, self.after)?;
            self.page = entries.into();
            self.is_over = !more;
        }
        let entry = self.page.pop_front();
        self.after = entry.as_ref().map_or(self.after, |entry| entry.id);
        Ok(entry)
    }
}

fn counters(reader: &mut dyn Reader) -> Result<Counters, TransferError> {
    match reader.read(&Query::Counters).map_err(TransferError::Read)? {
        Answer::Counters(counters) => Ok(counters),
        _ => Err(TransferError::Odd),
    }
}

fn account(
    reader: &mut dyn Reader,
    owner: &BareJid,
) -> Result<Option<Box<AccountRecord>>, TransferError> {
    match reader.read(&Query::Account { owner: owner.clone() }).map_err(TransferError::Read)? {
        Answer::Account(account) => Ok(account),
        _ => Err(TransferError::Odd),
    }
}

fn slot_names(reader: &mut dyn Reader, owner: &BareJid) -> Result<Vec<String>, TransferError> {
    match reader.read(&Query::SlotNames { owner: owner.clone() }).map_err(TransferError::Read)? {
        Answer::SlotNames(names) => Ok(names),
        _ => Err(TransferError::Odd),
    }
}

fn slot(
    reader: &mut dyn Reader,
    owner: &BareJid,
    name: &str,
) -> Result<Option<Vec<u8>>, TransferError> {
    let query = Query::Slot { owner: owner.clone(), name: name.to_owned() };
    match reader.read(&query).map_err(TransferError::Read)? {
        Answer::Slot(value) => Ok(value),
        _ => Err(TransferError::Odd),
    }
}

fn add(counts: &mut Counts, kind: &'static str, number: u64) {
    if number > 0 {
        *counts.entry(kind).or_insert(0) += number;
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(super) mod tests {
    use super::super::contract::{
        append, bare, contact, create, credentials, put_roster, put_slot,
    };
    use super::super::memory::MemoryStore;
    use super::super::sqlite::{self, SqliteReader};
    use super::*;
    use crate::base::instant::Wall;
    use crate::store::Keep;
    use crate::xmpp::credentials::Credentials;

    /// Every kind of record, and more of each than a page or batch holds where that is bounded.
    pub(in crate::store) fn fill(writer: &mut dyn Writer) {
        let juliet = || "juliet@example.org".to_owned();
        let mut batch = vec![
            create(&juliet()),
            Write::SetDisabled { owner: bare(&juliet()), disabled: true },
            put_roster(&juliet(), vec![contact("romeo@example.org"), contact("a.org")], &[], 7),
            put_slot(&juliet(), "blocking", Some(b"x")),
            put_slot(&juliet(), "~vcard", Some(b"<vCard/>")),
            Write::ReserveIds { partition: 9, count: 4_096 },
        ];
        batch.extend((1..=LOG_PAGE as u64 * 2 + 1).map(|id| append(&juliet(), id)));
        let archived = |id, keep| match append(&juliet(), id) {
            Write::AppendLog { owner, entry } => {
                Write::AppendLog { owner, entry: LogEntry { keep, ..entry } }
            }
            other => other,
        };
        batch.extend((1_001..1_300).map(|id| archived(id, Keep::Archived)));
        batch.push(archived(1_300, Keep::Both));
        batch.extend((0..OWNERS_PAGE + 1).map(|n| create(&format!("u{n}@example.net"))));
        batch.extend((1..=LOG_PAGE as u64 + 1).map(|id| append("remote.example", id)));
        batch.extend((0..OWNERS_PAGE).map(|n| append(&format!("d{n}.example"), 1)));
        let owner = bare("u7@example.net");
        let credentials = Credentials { sha1: credentials(3).sha1, ..Credentials::none() };
        batch.push(Write::SetCredentials { owner, credentials });
        writer.commit(&batch).unwrap();
    }

    #[test]
    fn a_store_moves_to_another_backend_and_back_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryStore::new();
        let mut writer = memory.open().0;
        fill(&mut writer);
        let path = dir.path().join("a.db");
        let mut sqlite = sqlite::open(&path).unwrap().writer;
        let (mut from, mut to) = (memory.reader(), SqliteReader::open(&path).unwrap());
        let counts = copy(&mut from, &mut sqlite, &mut to, &mut |_| ()).unwrap();
        let expected = Counts::from([
            ("accounts", 1_002),
            ("contacts", 2),
            ("domains", 1_001),
            ("messages", 2_070),
            ("slots", 2),
        ]);
        assert_eq!(counts, expected);
        let comparison = compare(&mut from, &mut to).unwrap();
        assert_eq!((comparison.differences, &comparison.told), (0, &Vec::new()));
        assert_eq!((&comparison.from, &comparison.to), (&expected, &expected));

        let back = MemoryStore::new();
        let mut writer = back.open().0;
        let counts = copy(&mut to, &mut writer, &mut back.reader(), &mut |_| ()).unwrap();
        assert_eq!(counts, expected);
        assert_eq!(compare(&mut from, &mut back.reader()).unwrap().differences, 0);
        let again = copy(&mut to, &mut writer, &mut back.reader(), &mut |_| ());
        assert!(matches!(again, Err(TransferError::NotEmpty)));
        let waiting = MemoryStore::new();
        let mut writer = waiting.open().0;
        writer.commit(&[append("remote.example", 1)]).unwrap();
        let onto = copy(&mut to, &mut writer, &mut waiting.reader(), &mut |_| ());
        assert!(matches!(onto, Err(TransferError::NotEmpty)), "messages wait in it");
    }

    #[test]
    fn every_difference_is_found() {
        let juliet = "juliet@example.org";
        let changes: &[(&str, Write)] = &[
            ("is in the target alone", create("zoe@example.org")),
            ("is in the target alone", create("abel@example.org")),
            ("not in the target", Write::DeleteAccount { owner: bare("u8@example.net") }),
            ("roster", put_roster(juliet, vec![contact("b.org")], &[], 7)),
            ("state", Write::SetDisabled { owner: bare(juliet), disabled: false }),
            (
                "password",
                Write::SetCredentials { owner: bare(juliet), credentials: credentials(9) },
            ),
            ("the slots differ", put_slot(juliet, "~more", Some(b"x"))),
            ("\"~vcard\" differs", put_slot(juliet, "~vcard", Some(b"y"))),
            ("message 1300", Write::ConfirmLog { owner: bare(juliet), ids: vec![1_300] }),
            (
                "message 1001",
                Write::PruneArchive {
                    owner: bare(juliet),
                    before: Wall(1 << 60),
                    keep: 1_000,
                    limit: 1,
                },
            ),
            ("message 500", Write::ConfirmLog { owner: bare(juliet), ids: vec![500] }),
            (
                "message 7 differs",
                Write::ConfirmLog { owner: bare("remote.example"), ids: vec![7] },
            ),
            (
                "that domain are not in the target",
                Write::ConfirmLog { owner: bare("d5.example"), ids: vec![1] },
            ),
            ("that domain are in the target alone", append("zzz.example", 1)),
            ("ids that were given", Write::ReserveIds { partition: 1, count: 1 }),
        ];
        for (told, change) in changes {
            let (one, other) = (MemoryStore::new(), MemoryStore::new());
            fill(&mut one.open().0);
            let mut writer = other.open().0;
            fill(&mut writer);
            writer.commit(std::slice::from_ref(change)).unwrap();
            let comparison = compare(&mut one.reader(), &mut other.reader()).unwrap();
            assert!(comparison.differences > 0, "{told}");
            let found = comparison.told.iter().any(|line| line.contains(told));
            assert!(found, "{told}: {:?}", comparison.told);
            assert!(comparison.told.len() <= DIFFERENCES_TOLD);
        }
    }
}
