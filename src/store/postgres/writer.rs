//! A connection that writes: a batch is one transaction, sent in two round trips.
//!
//! The first begins it, locks the member row and asks which owners have accounts; the second has all changes and the
//! commit. What is lost with a connection is *unknown*, not undone: what was sent may still run. So a new connection first
//! counts the member row's generation up, which waits for what is under way and stops what comes later, and only then is
//! the batch run again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::intern::Intern;
use super::super::{Error, Write, Writer, Written};
use super::fault::Fault;
use super::link::{Call, Link, Value};
use super::member::{self, Member};
use super::plan::{Given, Known, Plan};
use super::reader::credentials;
use super::settings::Settings;
use super::sql::{SQL, Sql};
use crate::base::hash::{Map, Set};
use crate::xmpp::jid::BareJid;

/// How long a step of a commit may take before the connection is given up.
const LIMIT: Duration = Duration::from_secs(30);
/// How often a transaction is run again that another was in the way of, and the first pause before that; it doubles.
const ATTEMPTS: u32 = 6;
const PAUSE: Duration = Duration::from_millis(2);
/// How often the numbers of addresses are asked for that others are just taking.
const INTERN_ATTEMPTS: u32 = 5;

/// A session that waits for its standby must not be told to stop by a timer: PostgreSQL then reports the commit as done.
const SESSION: &str = "SET statement_timeout = 0;";

/// Commits batches. One per connection; lives on its own thread.
pub struct PostgresWriter {
    settings: Arc<Settings>,
    member: Member,
    /// None after a commit that failed, until it is reopened.
    live: Option<Live>,
    /// A batch may be there though its commit failed: it will be run again.
    unknown: bool,
}

struct Live {
    link: Link,
    /// `jid.id` of addresses. They never change, but are forgotten with the connection: the next one may lead to a server
    /// that was put back.
    ids: Intern<i64>,
}

impl PostgresWriter {
    /// A connection for a writer, not yet a member.
    pub(super) fn connect(settings: &Settings, name: &str) -> Result<Link, Error> {
        Link::connect(settings, name, SESSION, &SQL)
    }

    /// - takes: `link`, as `connect` made it
    pub(super) fn new(settings: Arc<Settings>, member: Member, link: Link) -> PostgresWriter {
        let live = Some(Live { link, ids: Intern::default() });
        PostgresWriter { settings, member, live, unknown: false }
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.member.incarnation.cast_unsigned()
    }
}

#[cfg(test)]
impl PostgresWriter {
    /// Stands for a connection that is lost when a commit was done and its answer on the way.
    pub(super) fn lose_answer(&mut self) {
        self.live = None;
        self.unknown = true;
    }

    pub(super) fn member(&self) -> &Member {
        &self.member
    }
}

impl Writer for PostgresWriter {
    fn commit(&mut self, batch: &[Write]) -> Result<Vec<Written>, Error> {
        let live = self.live.as_mut().ok_or_else(closed)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        match live.commit(batch, &self.member, &mut self.unknown) {
            Ok(written) => {
                self.unknown = false;
                Ok(written)
            }
            Err(error) => {
                // With the connection goes whatever the transaction has done.
                self.live = None;
                Err(error)
            }
        }
    }

    fn reopen(&mut self) -> Result<(), Error> {
        self.live = None;
        let mut link = PostgresWriter::connect(&self.settings, &self.member.session())?;
        member::check_server(&mut link)?;
        self.member.renew(&mut link)?;
        self.live = Some(Live { link, ids: Intern::default() });
        Ok(())
    }
}

fn closed() -> Error {
    Error::Backend("closed after an error; to be reopened".to_owned())
}

/// Why an attempt came to nothing.
enum Failure {
    Fault(Fault),
    Other(Error),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure::Fault(fault)
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Failure {
        Failure::Fault(Fault::from(error))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Other(error)
    }
}

impl Live {
    /// - `unknown`: whether the batch may be there already; on an error, whether it may now
    fn commit(
        &mut self,
        batch: &[Write],
        member: &Member,
        unknown: &mut bool,
    ) -> Result<Vec<Written>, Error> {
        let mut pause = PAUSE;
        for attempt in 1.. {
            match self.attempt(batch, member, unknown) {
                Ok(written) => return Ok(written),
                Err(Failure::Fault(fault)) if fault.is_passing() && attempt < ATTEMPTS => {
                    self.link.ask(LIMIT, &[call(Sql::Rollback)])?;
                    std::thread::sleep(pause);
                    pause *= 2;
                }
                Err(Failure::Fault(fault)) => return Err(fault.into()),
                Err(Failure::Other(error)) => return Err(error),
            }
        }
        unreachable!("the last attempt returns")
    }

    fn attempt(
        &mut self,
        batch: &[Write],
        member: &Member,
        unknown: &mut bool,
    ) -> Result<Vec<Written>, Failure> {
        let ids = self.ids_of(batch)?;
        let owners: BTreeSet<i64> =
            batch.iter().filter_map(|write| ids.get(write.owner()?).copied()).collect();
        let owners: Vec<i64> = owners.into_iter().collect();
        let locked: [Value<'_>; 3] = [&member.incarnation, &member.writer, &member.generation];
        let mut calls = vec![
            call(Sql::Begin),
            (Sql::Lock as usize, locked.to_vec()),
            (Sql::Accounts as usize, vec![&owners]),
        ];
        if *unknown {
            calls.push((Sql::Credentials as usize, vec![&owners]));
        }
        let answers = self.link.ask(LIMIT, &calls)?;
        if answers[1].is_empty() {
            return Err(Failure::Other(Error::Fenced));
        }
        let mut accounts = Set::default();
        for row in &answers[2] {
            accounts.insert(row.try_get(0)?);
        }
        let mut redone = unknown.then(Map::default);
        if let (Some(redone), Some(rows)) = (&mut redone, answers.get(3)) {
            for row in rows {
                redone.insert(row.try_get(0)?, credentials(row, 1)?);
            }
        }
        let mut known = Known { ids, accounts, redone };
        let plan = Plan::of(batch, &mut known)?;
        let given = self.change(&plan).inspect_err(|failure| {
            *unknown |= !matches!(failure, Failure::Fault(fault) if fault.is_passing());
        })?;
        Ok(plan.written(given))
    }

    /// Makes the changes of a plan and commits.
    fn change(&mut self, plan: &Plan<'_>) -> Result<Given, Failure> {
        let columns = plan.columns()?;
        let (partitions, counts) = plan.reservations();
        let (raised, nexts) = plan.raised();
        let incarnation = plan.incarnation();
        let mut calls = Vec::new();
        let mut prunings = Vec::new();
        for (columns, pruned) in columns.iter().zip(plan.prunings()) {
            columns.calls(&mut calls);
            for pruning in pruned {
                prunings.push(calls.len());
                let values: [Value<'_>; 4] =
                    [&pruning.owner, &pruning.before, &pruning.keep, &pruning.limit];
                calls.push((Sql::Prune as usize, values.to_vec()));
            }
        }
        if !raised.is_empty() {
            calls.push((Sql::RaiseIds as usize, vec![&raised, &nexts]));
        }
        if incarnation > 0 {
            calls.push((Sql::RaiseIncarnation as usize, vec![&incarnation]));
        }
        let reserves = (!partitions.is_empty()).then_some(calls.len());
        if reserves.is_some() {
            calls.push((Sql::Reserve as usize, vec![&partitions, &counts]));
        }
        calls.push(call(Sql::Commit));
        let answers = self.link.ask(LIMIT, &calls)?;
        if self.link.is_unreplicated() {
            // Run again, it waits for the standby anew, and with it for what was done before.
            return Err(Failure::Other(Error::Backend(
                "the wait of a commit for its standby was cancelled".to_owned(),
            )));
        }
        let mut given = Given::default();
        for place in prunings {
            let count: i64 = answers[place].first().map_or(Ok(0), |row| row.try_get(0))?;
            given.pruned.push(count.cast_unsigned());
        }
        for row in reserves.and_then(|place| answers.get(place)).into_iter().flatten() {
            let (partition, first): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
            given.next.insert(u16::try_from(partition).unwrap_or(u16::MAX), first.cast_unsigned());
        }
        Ok(given)
    }

    /// The numbers of all owners that have one, and of all who are to be created or are named by a row; these get one.
    fn ids_of<'b>(&mut self, batch: &'b [Write]) -> Result<Map<&'b BareJid, i64>, Failure> {
        let mut ids = Map::default();
        let mut missing: BTreeMap<&str, &BareJid> = BTreeMap::new();
        let mut named: BTreeSet<&str> = BTreeSet::new();
        let mut want = |jid: &'b BareJid, is_named: bool| {
            if ids.contains_key(jid) {
                return;
            }
            if let Some(id) = self.ids.find(jid) {
                ids.insert(jid, id);
                return;
            }
            missing.insert(jid.as_str(), jid);
            if is_named {
                named.insert(jid.as_str());
            }
        };
        for write in batch {
            if let Some(owner) = write.owner() {
                let is_named = match write {
                    Write::CreateAccount { .. } => owner.local().is_some(),
                    Write::AppendLog { .. } => write.is_of_domain(),
                    _ => false,
                };
                want(owner, is_named);
            }
            if let Write::AppendLog { entry, .. } = write {
                want(entry.with.bare(), true);
            }
        }
        for attempt in 1.. {
            if !missing.is_empty() {
                let texts: Vec<&str> = missing.keys().copied().collect();
                let answers = self.link.ask(LIMIT, &[(Sql::FindJids as usize, vec![&texts])])?;
                self.learn(answers.into_iter().flatten(), &mut missing, &mut ids)?;
            }
            named.retain(|text| missing.contains_key(text));
            if named.is_empty() {
                return Ok(ids);
            }
            if attempt == INTERN_ATTEMPTS {
                return Err(Failure::Other(Error::Backend(
                    "addresses get no numbers; is the database one of several that take writes?"
                        .to_owned(),
                )));
            }
            // Committed apart from the batch, so that two who intern the same do not hold each other's batches up.
            let texts: Vec<&str> = named.iter().copied().collect();
            let calls: [Call<'_>; 4] = [
                call(Sql::Begin),
                call(Sql::CommitsLazily),
                (Sql::InternJids as usize, vec![&texts]),
                call(Sql::Commit),
            ];
            let answers = self.link.ask(LIMIT, &calls)?;
            self.learn(answers.into_iter().flatten(), &mut missing, &mut ids)?;
        }
        unreachable!("the last attempt returns")
    }

    /// Rows of a number and a text.
    fn learn<'b>(
        &mut self,
        rows: impl Iterator<Item = tokio_postgres::Row>,
        missing: &mut BTreeMap<&'b str, &'b BareJid>,
        ids: &mut Map<&'b BareJid, i64>,
    ) -> Result<(), Failure> {
        for row in rows {
            let (id, text): (i64, &str) = (row.try_get(0)?, row.try_get(1)?);
            if let Some(jid) = missing.remove(text) {
                self.ids.put(jid.clone(), id);
                ids.insert(jid, id);
            }
        }
        Ok(())
    }
}

fn call<'a>(sql: Sql) -> Call<'a> {
    (sql as usize, Vec::new())
}
