//! The rows of one stage of a plan, column by column, as `unnest` takes them.

use super::super::{Error, LogEntry, RosterItem, Subscription};
use super::link::{Call, Value};
use super::plan::{Replacement, Stage};
use super::sql::Sql;
use crate::xmpp::credentials::{Credentials, ScramKeys};

/// In place of a subscription: the contact is not in the roster, only its request waits.
pub(super) const UNLISTED: i16 = 4;

pub(super) struct Columns<'a> {
    created: Keys<'a>,
    credentials: Keys<'a>,
    disabled: (Vec<i64>, Vec<bool>),
    versions: (Vec<i64>, Vec<i64>),
    roster_removed: (Vec<i64>, Vec<&'a [u8]>),
    roster_put: Contacts<'a>,
    slots_removed: (Vec<i64>, Vec<&'a str>),
    slots_put: (Vec<i64>, Vec<&'a str>, Vec<&'a [u8]>),
    /// For the archive alone, and those that are pending.
    log: [Log<'a>; 2],
    confirmed: (Vec<i64>, Vec<i64>),
    replaced: Replaced<'a>,
    deleted: Vec<i64>,
}

impl<'a> Columns<'a> {
    /// - errors: a row that cannot be written down
    pub(super) fn of(stage: &'a Stage<'_>) -> Result<Columns<'a>, Error> {
        let mut columns = Columns {
            created: Keys::of(stage.created.iter()),
            credentials: Keys::of(stage.credentials.iter()),
            disabled: stage.disabled.iter().unzip(),
            versions: stage.versions.iter().unzip(),
            roster_removed: Default::default(),
            roster_put: Contacts::default(),
            slots_removed: Default::default(),
            slots_put: Default::default(),
            log: Default::default(),
            confirmed: stage.confirmed.iter().copied().unzip(),
            replaced: Replaced::default(),
            deleted: stage.deleted.iter().copied().collect(),
        };
        for ((owner, key), item) in &stage.roster {
            match item {
                Some(item) => columns.roster_put.push(*owner, key, item)?,
                None => {
                    columns.roster_removed.0.push(*owner);
                    columns.roster_removed.1.push(key);
                }
            }
        }
        for ((owner, name), value) in &stage.slots {
            match value {
                Some(value) => {
                    columns.slots_put.0.push(*owner);
                    columns.slots_put.1.push(name);
                    columns.slots_put.2.push(value);
                }
                None => {
                    columns.slots_removed.0.push(*owner);
                    columns.slots_removed.1.push(name);
                }
            }
        }
        for (owner, peer, entry) in &stage.log {
            columns.log[usize::from(entry.keep.is_pending())].push(*owner, *peer, entry);
        }
        for ((owner, id), row) in &stage.replaced {
            columns.replaced.push(*owner, *id, row);
        }
        Ok(columns)
    }

    /// Appends the statements that there are rows for, in the order in which they must run.
    pub(super) fn calls<'c>(&'c self, calls: &mut Vec<Call<'c>>) {
        let mut call = |sql: Sql, owners: &'c Vec<i64>, others: Vec<Value<'c>>| {
            if !owners.is_empty() {
                let mut values: Vec<Value<'c>> = vec![owners];
                values.extend(others);
                calls.push((sql as usize, values));
            }
        };
        call(Sql::CreateAccounts, &self.created.owners, self.created.values());
        call(Sql::SetCredentials, &self.credentials.owners, self.credentials.values());
        call(Sql::SetDisabled, &self.disabled.0, vec![&self.disabled.1]);
        call(Sql::RosterVersions, &self.versions.0, vec![&self.versions.1]);
        call(Sql::RosterRemove, &self.roster_removed.0, vec![&self.roster_removed.1]);
        call(Sql::RosterPut, &self.roster_put.owners, self.roster_put.values());
        call(Sql::SlotRemove, &self.slots_removed.0, vec![&self.slots_removed.1]);
        let (owners, names, values) = &self.slots_put;
        call(Sql::SlotPut, owners, vec![names, values]);
        let [archived, pending] = &self.log;
        call(Sql::LogAppend, &archived.owners, archived.values());
        call(Sql::LogAppendPending, &pending.owners, pending.values());
        call(Sql::LogConfirm, &self.confirmed.0, vec![&self.confirmed.1]);
        call(Sql::LogReplace, &self.replaced.owners, self.replaced.values());
        for sql in [
            Sql::DeleteLog,
            Sql::DeletePending,
            Sql::DeleteSlots,
            Sql::DeleteRoster,
            Sql::DeleteAccounts,
        ] {
            call(sql, &self.deleted, Vec::new());
        }
    }
}

#[derive(Default)]
struct Keys<'a> {
    owners: Vec<i64>,
    /// SHA-1, SHA-256, SHA-512.
    hashes: [KeysOfHash<'a>; 3],
}

#[derive(Default)]
struct KeysOfHash<'a> {
    iterations: Vec<Option<i64>>,
    salts: Vec<Option<&'a [u8]>>,
    stored: Vec<Option<&'a [u8]>>,
    server: Vec<Option<&'a [u8]>>,
}

impl<'a> Keys<'a> {
    fn of<'s>(rows: impl Iterator<Item = (&'s i64, &'s &'a Credentials)>) -> Keys<'a>
    where
        'a: 's,
    {
        let mut keys = Keys::default();
        for (owner, credentials) in rows {
            let Credentials { sha1, sha256, sha512 } = *credentials;
            keys.owners.push(*owner);
            let sets = [Some(sha1), Some(sha256), sha512.as_deref()];
            for (hash, set) in keys.hashes.iter_mut().zip(sets) {
                hash.push(set);
            }
        }
        keys
    }

    fn values(&self) -> Vec<Value<'_>> {
        let mut values: Vec<Value<'_>> = Vec::with_capacity(12);
        for hash in &self.hashes {
            values.push(&hash.iterations);
            values.push(&hash.salts);
            values.push(&hash.stored);
            values.push(&hash.server);
        }
        values
    }
}

impl<'a> KeysOfHash<'a> {
    fn push(&mut self, keys: Option<&'a ScramKeys>) {
        self.iterations.push(keys.map(|keys| i64::from(keys.iterations)));
        self.salts.push(keys.map(|keys| keys.salt.as_slice()));
        self.stored.push(keys.map(|keys| keys.stored_key.as_slice()));
        self.server.push(keys.map(|keys| keys.server_key.as_slice()));
    }
}

#[derive(Default)]
struct Contacts<'a> {
    owners: Vec<i64>,
    keys: Vec<&'a [u8]>,
    jids: Vec<String>,
    names: Vec<&'a str>,
    groups: Vec<String>,
    subscriptions: Vec<i16>,
    asks: Vec<bool>,
    approved: Vec<bool>,
    pending: Vec<Option<&'a [u8]>>,
}

impl<'a> Contacts<'a> {
    fn push(&mut self, owner: i64, key: &'a [u8], item: &'a RosterItem) -> Result<(), Error> {
        let groups = serde_json::to_string(&item.groups)
            .map_err(|error| Error::Backend(format!("groups of a contact: {error}")))?;
        self.owners.push(owner);
        self.keys.push(key);
        self.jids.push(item.jid.to_string());
        self.names.push(&item.name);
        self.groups.push(groups);
        self.subscriptions.push(match item.subscription {
            _ if !item.listed => UNLISTED,
            Subscription::None => 0,
            Subscription::To => 1,
            Subscription::From => 2,
            Subscription::Both => 3,
        });
        self.asks.push(item.ask);
        self.approved.push(item.approved);
        self.pending.push(item.pending_in.as_deref());
        Ok(())
    }

    fn values(&self) -> Vec<Value<'_>> {
        vec![
            &self.keys,
            &self.jids,
            &self.names,
            &self.groups,
            &self.subscriptions,
            &self.asks,
            &self.approved,
            &self.pending,
        ]
    }
}

#[derive(Default)]
struct Log<'a> {
    owners: Vec<i64>,
    ids: Vec<i64>,
    peers: Vec<i64>,
    at: Vec<i64>,
    incarnations: Vec<i64>,
    numbers: Vec<i64>,
    links: Vec<i32>,
    open_ends: Vec<i32>,
    close_starts: Vec<i32>,
    archived: Vec<bool>,
    resources: Vec<&'a str>,
    stanzas: Vec<&'a [u8]>,
}

impl<'a> Log<'a> {
    fn push(&mut self, owner: i64, peer: i64, entry: &'a LogEntry) {
        self.owners.push(owner);
        self.ids.push(entry.id.cast_signed());
        self.peers.push(peer);
        self.at.push(entry.at.0.cast_signed());
        self.incarnations.push(entry.origin.incarnation.cast_signed());
        self.numbers.push(entry.origin.number.cast_signed());
        self.links.push(entry.origin.link.cast_signed());
        self.open_ends.push(entry.open_end.cast_signed());
        self.close_starts.push(entry.close_start.cast_signed());
        self.archived.push(entry.keep.is_archived());
        self.resources.push(entry.with.resource().unwrap_or(""));
        self.stanzas.push(&entry.stanza);
    }

    fn values(&self) -> Vec<Value<'_>> {
        vec![
            &self.ids,
            &self.peers,
            &self.at,
            &self.incarnations,
            &self.numbers,
            &self.links,
            &self.open_ends,
            &self.close_starts,
            &self.archived,
            &self.resources,
            &self.stanzas,
        ]
    }
}

#[derive(Default)]
struct Replaced<'a> {
    owners: Vec<i64>,
    ids: Vec<i64>,
    stanzas: Vec<&'a [u8]>,
    open_ends: Vec<i32>,
    close_starts: Vec<i32>,
}

impl<'a> Replaced<'a> {
    fn push(&mut self, owner: i64, id: i64, row: &Replacement<'a>) {
        self.owners.push(owner);
        self.ids.push(id);
        self.stanzas.push(row.stanza);
        self.open_ends.push(row.open_end.cast_signed());
        self.close_starts.push(row.close_start.cast_signed());
    }

    fn values(&self) -> Vec<Value<'_>> {
        vec![&self.ids, &self.stanzas, &self.open_ends, &self.close_starts]
    }
}
