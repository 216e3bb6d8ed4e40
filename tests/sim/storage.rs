//! The storage thread: commits what is queued as one group, answers each shard in order, reads apart from writes.

use crate::chance::Chance;
use corefire::shard::{StoreOutcome, Ticket};
use corefire::store::memory::{MemoryReader, MemoryStore, MemoryWriter, Tear};
use corefire::store::{Error, Query, Reader as _, Write, Writer as _};
use std::collections::VecDeque;

/// Writes of one commit.
const GROUP: usize = 200;

pub(crate) struct Storage {
    pub(crate) disk: MemoryStore,
    writer: MemoryWriter,
    reader: MemoryReader,
    pub(crate) incarnation: u64,
    queue: VecDeque<(usize, Ticket, Write)>,
    group: Vec<(usize, Ticket, Write)>,
    /// How often the present group has failed.
    failures: u32,
    /// Commits of a thousand that fail.
    pub(crate) faults: u64,
    pub(crate) commits: u64,
}

/// What became of a commit.
pub(crate) enum Commit {
    /// With what was given up.
    Done(Vec<(usize, Ticket, StoreOutcome)>, Vec<Write>),
    /// It failed and is tried again.
    Again,
}

impl Storage {
    pub(crate) fn open(disk: MemoryStore, faults: u64) -> Self {
        let (writer, incarnation) = disk.open();
        let reader = disk.reader();
        Self {
            disk,
            writer,
            reader,
            incarnation,
            queue: VecDeque::new(),
            group: Vec::new(),
            failures: 0,
            faults,
            commits: 0,
        }
    }

    pub(crate) fn push(&mut self, shard: usize, ticket: Ticket, write: Write) {
        self.queue.push_back((shard, ticket, write));
    }

    /// Starts a commit if none runs and something waits.
    pub(crate) fn start(&mut self) -> bool {
        if !self.group.is_empty() || self.queue.is_empty() {
            return false;
        }
        let count = self.queue.len().min(GROUP);
        self.group.extend(self.queue.drain(..count));
        true
    }

    /// The commit that runs comes to its end.
    pub(crate) fn finish(&mut self, chance: &mut Chance) -> Commit {
        let batch: Vec<Write> = self.group.iter().map(|(.., write)| write.clone()).collect();
        let trouble = self.failures > 0 && chance.percent(60);
        if trouble || chance.per_mille(self.faults) {
            let tear = if chance.percent(50) { Tear::Lost } else { Tear::Kept };
            self.disk.tear_next(tear, Error::Full);
        }
        self.commits += 1;
        let mut given_up = Vec::new();
        let outcomes: Vec<StoreOutcome> = match self.writer.commit(&batch) {
            Ok(written) => written.into_iter().map(StoreOutcome::Written).collect(),
            Err(_) => {
                self.writer.reopen().expect("the twin in memory reopens");
                self.failures += 1;
                if self.failures < 4 {
                    return Commit::Again;
                }
                given_up = batch;
                vec![StoreOutcome::Failed; given_up.len()]
            }
        };
        self.failures = 0;
        let group = std::mem::take(&mut self.group);
        let answers = group
            .into_iter()
            .zip(outcomes)
            .map(|((shard, ticket, _), outcome)| (shard, ticket, outcome));
        Commit::Done(answers.collect(), given_up)
    }

    pub(crate) fn read(&mut self, query: &Query) -> StoreOutcome {
        match self.reader.read(query) {
            Ok(answer) => StoreOutcome::Answer(answer),
            Err(_) => StoreOutcome::Failed,
        }
    }

    /// What is not committed yet.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Write> {
        self.queue.iter().chain(&self.group).map(|(.., write)| write)
    }

    /// The node dies: what was not committed is gone; the commit under way is there or not.
    pub(crate) fn crash(self, kept: bool) -> MemoryStore {
        let Self { disk, mut writer, group, .. } = self;
        if kept && !group.is_empty() {
            let batch: Vec<Write> = group.into_iter().map(|(.., write)| write).collect();
            let _ = writer.commit(&batch);
        }
        disk
    }
}
