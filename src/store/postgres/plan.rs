//! A batch as statements over many rows: what its writes come to, one change for each key, in stages where the order of
//! two writes matters.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Error, LOG_ID_MAX, LogEntry, RosterItem, Write, Written, check_counters};
use super::columns::Columns;
use crate::base::hash::{Map, Set};
use crate::xmpp::credentials::Credentials;
use crate::xmpp::jid::{BareJid, Jid};

/// What is known of the addresses in a batch before it is planned.
pub(super) struct Known<'a> {
    /// `jid.id` of all owners that have one, and of all whom a plan names.
    pub(super) ids: Map<&'a BareJid, i64>,
    /// Those of them that have accounts.
    pub(super) accounts: Set<i64>,
    /// The batch may have been done before: the keys of those of its owners that have accounts. No two passwords have
    /// them in common, as each has its own salt.
    pub(super) redone: Option<Map<i64, Credentials>>,
}

/// A batch, ready to be sent.
pub(super) struct Plan<'a> {
    stages: Vec<Stage<'a>>,
    /// Ids to take, per store partition.
    reserved: BTreeMap<u16, u64>,
    /// Before any are taken: the first free id of partitions, and the incarnation, at least; 0 for none.
    raised: BTreeMap<u16, i64>,
    incarnation: i64,
    written: Vec<Planned>,
}

/// What a write will be answered.
enum Planned {
    Known(Written),
    /// `first` counts from the start of what the batch takes of that partition.
    Reserved {
        partition: u16,
        first: u64,
    },
    /// The answer to the prunings' next.
    Pruned {
        limit: u32,
    },
}

/// What the statements of a plan gave.
#[derive(Default)]
pub(super) struct Given {
    /// Per store partition of which ids were taken, the first that is free.
    pub(super) next: BTreeMap<u16, u64>,
    /// Rows that were to go, one more than the limit at most; in the order of the prunings.
    pub(super) pruned: Vec<u64>,
}

/// Another stanza for a row.
#[derive(Clone, Copy)]
pub(super) struct Replacement<'a> {
    pub(super) stanza: &'a [u8],
    pub(super) open_end: u32,
    pub(super) close_start: u32,
}

/// The parameters of `Sql::Prune`.
pub(super) struct Pruning {
    pub(super) owner: i64,
    pub(super) before: i64,
    pub(super) keep: i64,
    pub(super) limit: i64,
}

/// Changes among which there is no order but that of their kinds.
#[derive(Default)]
pub(super) struct Stage<'a> {
    pub(super) created: BTreeMap<i64, &'a Credentials>,
    pub(super) credentials: BTreeMap<i64, &'a Credentials>,
    pub(super) disabled: BTreeMap<i64, bool>,
    pub(super) versions: BTreeMap<i64, i64>,
    pub(super) roster: BTreeMap<(i64, Vec<u8>), Option<&'a RosterItem>>,
    pub(super) slots: BTreeMap<(i64, &'a str), Option<&'a [u8]>>,
    pub(super) log: Vec<(i64, i64, &'a LogEntry)>,
    /// The keys of `log`.
    appended: Set<(i64, i64)>,
    pub(super) replaced: BTreeMap<(i64, i64), Replacement<'a>>,
    pub(super) confirmed: BTreeSet<(i64, i64)>,
    /// After all else.
    pub(super) deleted: BTreeSet<i64>,
    /// After these.
    pub(super) pruned: Vec<Pruning>,
}

impl<'a> Plan<'a> {
    /// - errors: what the whole batch must fail for
    pub(super) fn of(batch: &'a [Write], known: &mut Known<'_>) -> Result<Plan<'a>, Error> {
        let mut plan = Plan {
            stages: vec![Stage::default()],
            reserved: BTreeMap::new(),
            raised: BTreeMap::new(),
            incarnation: 0,
            written: Vec::with_capacity(batch.len()),
        };
        for (at, write) in batch.iter().enumerate() {
            let written = match write {
                Write::ReserveIds { partition, count } => {
                    let taken = plan.reserved.entry(*partition).or_insert(0);
                    let first = *taken;
                    *taken += u64::from(*count);
                    Planned::Reserved { partition: *partition, first }
                }
                Write::RaiseCounters { counters } => {
                    check_counters(counters)?;
                    for (partition, next) in &counters.next_ids {
                        let raised = plan.raised.entry(*partition).or_insert(1);
                        *raised = (*raised).max(next.cast_signed());
                    }
                    plan.incarnation = plan.incarnation.max(counters.incarnation.cast_signed());
                    Planned::Known(Written::Done)
                }
                write => plan.of_owner(write, &batch[at + 1..], known)?,
            };
            plan.written.push(written);
        }
        Ok(plan)
    }

    /// - takes: the writes of the batch that come `after`
    fn of_owner(
        &mut self,
        write: &'a Write,
        after: &[Write],
        known: &mut Known<'_>,
    ) -> Result<Planned, Error> {
        if let Write::AppendLog { entry, .. } = write
            && entry.id > LOG_ID_MAX
        {
            return Err(Error::Backend(format!("log id {} is above {LOG_ID_MAX}", entry.id)));
        }
        let id = write.owner().and_then(|owner| known.ids.get(owner)).copied();
        if let Write::CreateAccount { owner, credentials } = write {
            if owner.local().is_none() {
                return Ok(Planned::Known(Written::NoAccount));
            }
            let id = id.ok_or_else(|| Error::Backend("an address has no number".to_owned()))?;
            if !known.accounts.insert(id) {
                let there = known.redone.as_ref().and_then(|redone| redone.get(&id));
                // What is there is what this very write, and those after it, left.
                let is_ours = there.is_some() && there == keys_left(owner, credentials, after);
                return Ok(Planned::Known(if is_ours { Written::Done } else { Written::Exists }));
            }
            self.stage(|stage| !stage.is_done_with(id)).created.insert(id, credentials);
            return Ok(Planned::Known(Written::Done));
        }
        let is_of_domain = write.is_of_domain();
        let Some(id) = id.filter(|id| is_of_domain || known.accounts.contains(id)) else {
            return Ok(Planned::Known(match write {
                // Nothing waits for a domain that has no number.
                _ if is_of_domain => Written::Done,
                // What is wanted, whoever did it.
                Write::DeleteAccount { .. } if known.redone.is_some() => Written::Done,
                _ => Written::NoAccount,
            }));
        };
        match write {
            Write::DeleteAccount { .. } => {
                known.accounts.remove(&id);
                self.stage(|stage| !stage.is_done_with(id)).deleted.insert(id);
            }
            Write::PruneArchive { before, keep, limit, .. } => {
                // As a column compares: what is above all that a row can have comes out as the highest.
                let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
                self.stage(|stage| !stage.deleted.contains(&id)).pruned.push(Pruning {
                    owner: id,
                    before: signed(before.0),
                    keep: signed(*keep),
                    limit: i64::from(*limit),
                });
                return Ok(Planned::Pruned { limit: *limit });
            }
            Write::AppendLog { entry, .. } => {
                let peer = known.ids.get(entry.with.bare()).copied();
                let peer = peer.ok_or_else(|| Error::Backend("a peer has no number".to_owned()))?;
                let key = (id, entry.id.cast_signed());
                let stage = self.stage(|stage| {
                    !stage.confirmed.contains(&key)
                        && !stage.replaced.contains_key(&key)
                        && !stage.is_done_with(id)
                });
                // One that is there already stays as it is.
                if stage.appended.insert(key) {
                    stage.log.push((id, peer, entry));
                }
            }
            other => self.stage(|stage| !stage.is_done_with(id)).change(id, other),
        }
        Ok(Planned::Known(Written::Done))
    }

    /// The last stage, or a new one if that will not do.
    fn stage(&mut self, will_do: impl FnOnce(&Stage<'a>) -> bool) -> &mut Stage<'a> {
        if !self.stages.last().is_some_and(will_do) {
            self.stages.push(Stage::default());
        }
        let last = self.stages.len() - 1;
        &mut self.stages[last]
    }

    /// The rows of each stage, as the statements take them.
    ///
    /// - errors: a row that cannot be written down
    pub(super) fn columns(&self) -> Result<Vec<Columns<'_>>, Error> {
        self.stages.iter().map(Columns::of).collect()
    }

    /// Of `Sql::Reserve`: partitions and counts.
    pub(super) fn reservations(&self) -> (Vec<i32>, Vec<i64>) {
        let reserved = self.reserved.iter();
        reserved.map(|(partition, count)| (i32::from(*partition), count.cast_signed())).unzip()
    }

    /// Of `Sql::RaiseIds`: partitions and ids.
    pub(super) fn raised(&self) -> (Vec<i32>, Vec<i64>) {
        self.raised.iter().map(|(partition, next)| (i32::from(*partition), *next)).unzip()
    }

    /// Of `Sql::RaiseIncarnation`; 0 for none.
    pub(super) fn incarnation(&self) -> i64 {
        self.incarnation
    }

    /// The parameters of the prunings, by stage.
    pub(super) fn prunings(&self) -> impl Iterator<Item = &[Pruning]> {
        self.stages.iter().map(|stage| &stage.pruned[..])
    }

    /// The answers, with what the statements gave.
    pub(super) fn written(self, given: Given) -> Vec<Written> {
        let Plan { reserved, written, .. } = self;
        let mut pruned = given.pruned.into_iter();
        let answer = |planned| match planned {
            Planned::Known(written) => written,
            Planned::Reserved { partition, first } => {
                let count = reserved.get(&partition).copied().unwrap_or(0);
                let next = given.next.get(&partition).copied().unwrap_or(count);
                Written::Reserved { first: next - count + first }
            }
            Planned::Pruned { limit } => {
                let going = pruned.next().unwrap_or(0);
                let more = going > u64::from(limit);
                Written::Pruned { rows: u32::try_from(going).unwrap_or(limit).min(limit), more }
            }
        };
        written.into_iter().map(answer).collect()
    }
}

impl<'a> Stage<'a> {
    /// Its statements of this owner's that come last are there: whatever follows needs another stage.
    fn is_done_with(&self, owner: i64) -> bool {
        self.deleted.contains(&owner) || self.pruned.iter().any(|pruning| pruning.owner == owner)
    }

    /// Of an account that is there.
    fn change(&mut self, id: i64, write: &'a Write) {
        match write {
            Write::SetCredentials { credentials, .. } => match self.created.get_mut(&id) {
                Some(created) => *created = credentials,
                None => {
                    self.credentials.insert(id, credentials);
                }
            },
            Write::SetDisabled { disabled, .. } => {
                self.disabled.insert(id, *disabled);
            }
            Write::PutRoster { set, remove, version, .. } => {
                for jid in remove {
                    self.roster.insert((id, roster_key(jid)), None);
                }
                for item in set {
                    self.roster.insert((id, roster_key(&item.jid)), Some(item));
                }
                self.versions.insert(id, version.cast_signed());
            }
            Write::PutSlot { name, value, .. } => {
                self.slots.insert((id, name), value.as_deref());
            }
            Write::ConfirmLog { ids, .. } => {
                // One above `LOG_ID_MAX` finds nothing, as a number below zero.
                self.confirmed.extend(ids.iter().map(|entry| (id, entry.cast_signed())));
            }
            Write::ReplaceLog { id: row, stanza, open_end, close_start, .. } => {
                let (open_end, close_start) = (*open_end, *close_start);
                let replacement = Replacement { stanza, open_end, close_start };
                self.replaced.insert((id, row.cast_signed()), replacement);
            }
            Write::CreateAccount { .. }
            | Write::DeleteAccount { .. }
            | Write::AppendLog { .. }
            | Write::PruneArchive { .. }
            | Write::RaiseCounters { .. }
            | Write::ReserveIds { .. } => unreachable!("planned before"),
        }
    }
}

/// The keys that an account has in the end that a batch creates with these; `None` where it has none.
fn keys_left<'a>(
    owner: &BareJid,
    created: &'a Credentials,
    after: &'a [Write],
) -> Option<&'a Credentials> {
    let mut left = Some(created);
    for write in after.iter().filter(|write| write.owner() == Some(owner)) {
        match write {
            Write::DeleteAccount { .. } => left = None,
            Write::CreateAccount { credentials, .. } => left = left.or(Some(credentials)),
            Write::SetCredentials { credentials, .. } => left = left.and(Some(credentials)),
            _ => {}
        }
    }
    left
}

/// A contact's place in its roster.
fn roster_key(jid: &Jid) -> Vec<u8> {
    let digest = ring::digest::digest(&ring::digest::SHA256, jid.to_string().as_bytes());
    digest.as_ref()[..16].to_vec()
}
