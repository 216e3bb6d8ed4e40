//! An account that comes from elsewhere, with all that belongs to it: made in one step, or disabled until its last one.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::accounts::{Accounts, Fault, News, account_jid, record};
use super::{ControlResponse, ImportOutcome};
use crate::base::instant::Wall;
use crate::cluster::placement::store_partition;
use crate::store::{Counters, Keep, LogEntry, Origin, RosterItem, Subscription, Write, Written};
use crate::xmpp::credentials::Credentials;
use crate::xmpp::jid::{BareJid, Jid};

/// Ids at and above this are not taken over, so that a damaged file cannot use a store's ids up.
pub const TAKEN_ID_MAX: u64 = 1 << 56;

/// A step. What is in it is done in its order, keys last: an account that a step was cut off in is one that nobody can log
/// in to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    pub jid: String,
    /// Of the first step.
    pub start: Option<Start>,
    /// With it: ids below this one come with messages, of whatever step, and are given to no others.
    pub next_id: Option<u64>,
    pub pieces: Vec<RestoredPiece>,
    /// After it the account is enabled, if it is to be.
    pub last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// One that exists is left alone.
    New,
    /// One that exists goes first, with all that belongs to it.
    Replace,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "piece", rename_all = "snake_case")]
pub enum RestoredPiece {
    Credentials {
        #[serde(with = "super::wire_credentials")]
        credentials: Credentials,
    },
    Roster {
        items: Vec<RestoredItem>,
        version: u64,
    },
    Slot {
        name: String,
        value: Bytes,
    },
    Messages {
        messages: Vec<RestoredMessage>,
    },
    /// It stays disabled.
    Disabled,
}

/// `RosterItem` as it passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredItem {
    pub jid: String,
    pub name: String,
    pub groups: Vec<String>,
    /// Bit 0: to; bit 1: from.
    pub subscription: u8,
    pub ask: bool,
    pub pending_in: Option<Bytes>,
    pub approved: bool,
    pub listed: bool,
}

/// `LogEntry` as it passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredMessage {
    /// As in the store that it comes from, below the first step's `next_id` and no other's; none where it is to get a new
    /// one.
    pub id: Option<u64>,
    /// It waits for a client of its owner.
    pub pending: bool,
    pub archived: bool,
    /// Microseconds since the Unix epoch.
    pub at: u64,
    pub with: String,
    pub stanza: Bytes,
    pub open_end: u32,
    pub close_start: u32,
}

/// Bytes, in base64 on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub Vec<u8>);

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> String {
        BASE64.encode(bytes.0)
    }
}

impl TryFrom<String> for Bytes {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Bytes, base64::DecodeError> {
        BASE64.decode(text).map(Bytes)
    }
}

impl From<&RosterItem> for RestoredItem {
    fn from(item: &RosterItem) -> Self {
        Self {
            jid: item.jid.to_string(),
            name: item.name.clone(),
            groups: item.groups.clone(),
            subscription: match item.subscription {
                Subscription::None => 0,
                Subscription::To => 1,
                Subscription::From => 2,
                Subscription::Both => 3,
            },
            ask: item.ask,
            pending_in: item.pending_in.clone().map(Bytes),
            approved: item.approved,
            listed: item.listed,
        }
    }
}

impl RestoredItem {
    fn to_item(&self) -> Result<RosterItem, String> {
        Ok(RosterItem {
            jid: Jid::parse(&self.jid).map_err(|fault| format!("{:?}: {fault}", self.jid))?,
            name: self.name.clone(),
            groups: self.groups.clone(),
            subscription: match self.subscription {
                0 => Subscription::None,
                1 => Subscription::To,
                2 => Subscription::From,
                3 => Subscription::Both,
                other => return Err(format!("{}: subscription {other}", self.jid)),
            },
            ask: self.ask,
            pending_in: self.pending_in.as_ref().map(|bytes| bytes.0.clone()),
            approved: self.approved,
            listed: self.listed,
        })
    }
}

/// Carries a step out. Nothing of it is done unless its answer is `Created`.
pub(super) fn step(
    accounts: &mut dyn Accounts,
    restore: Restore,
) -> Result<ControlResponse, String> {
    let owner = match account_jid(&restore.jid, accounts.domains()) {
        Ok(owner) => owner,
        Err(cause) => return Ok(answer(ImportOutcome::Refused { cause })),
    };
    let told = |fault: Fault| fault.to_string();
    // All that may be refused is looked at before anything is done.
    let mut batch = match writes(&owner, &restore) {
        Ok(batch) if restore.next_id.is_none_or(|next| next <= TAKEN_ID_MAX) => batch,
        Ok(_) => {
            let cause = "the ids of its messages are too high".to_owned();
            return Ok(answer(ImportOutcome::Refused { cause }));
        }
        Err(cause) => return Ok(answer(ImportOutcome::Refused { cause })),
    };
    if let Some(start) = restore.start {
        let is_there = record(accounts, &owner).map_err(told)?.is_some();
        let credentials = Credentials::none();
        let create = Write::CreateAccount { owner: owner.clone(), credentials };
        let delete = Write::DeleteAccount { owner: owner.clone() };
        let begin = match start {
            Start::New => vec![create],
            Start::Replace if is_there => vec![delete, create],
            Start::Replace => vec![create],
        };
        let written = accounts.write(begin).map_err(|error| told(error.into()))?;
        // On its own, as the rest would be done to an account that somebody made meanwhile.
        if written.contains(&Written::Exists) {
            return Ok(answer(ImportOutcome::Exists));
        }
    }
    if let Some(next) = restore.next_id {
        let partition = store_partition(owner.hash64());
        let counters = Counters { next_ids: vec![(partition, next)], incarnation: 0 };
        let raise = vec![Write::RaiseCounters { counters }];
        accounts.write(raise).map_err(|error| told(error.into()))?;
        accounts.tell(vec![News::IdsGiven { owner: owner.clone(), partition, next }]);
    }
    give_ids(accounts, &owner, &mut batch).map_err(told)?;
    let written = accounts.write(batch).map_err(|error| told(error.into()))?;
    accounts.tell(vec![News::Changed(owner.clone())]);
    if written.iter().any(|written| *written != Written::Done) {
        return Err(format!("{owner}: the account was deleted meanwhile; import it again"));
    }
    Ok(answer(ImportOutcome::Created))
}

fn answer(outcome: ImportOutcome) -> ControlResponse {
    ControlResponse::Imported { outcomes: vec![outcome] }
}

/// Ids of messages that have none are 0.
fn writes(owner: &BareJid, restore: &Restore) -> Result<Vec<Write>, String> {
    let (mut batch, mut keys) = (Vec::new(), Vec::new());
    let mut disabled = !restore.last;
    for piece in &restore.pieces {
        match piece {
            RestoredPiece::Credentials { credentials } => keys.push(Write::SetCredentials {
                owner: owner.clone(),
                credentials: credentials.clone(),
            }),
            RestoredPiece::Roster { items, version } => batch.push(Write::PutRoster {
                owner: owner.clone(),
                set: items.iter().map(RestoredItem::to_item).collect::<Result<_, _>>()?,
                remove: Vec::new(),
                version: *version,
            }),
            RestoredPiece::Slot { name, value } => batch.push(Write::PutSlot {
                owner: owner.clone(),
                name: name.clone(),
                value: Some(value.0.clone()),
            }),
            RestoredPiece::Messages { messages } => {
                for message in messages {
                    let entry = entry(message)?;
                    batch.push(Write::AppendLog { owner: owner.clone(), entry });
                }
            }
            RestoredPiece::Disabled => disabled = true,
        }
    }
    batch.push(Write::SetDisabled { owner: owner.clone(), disabled });
    batch.extend(keys);
    Ok(batch)
}

fn entry(message: &RestoredMessage) -> Result<LogEntry, String> {
    let with = Jid::parse(&message.with)
        .map_err(|fault| format!("a message with {:?}: {fault}", message.with))?;
    let (open_end, close_start) = (message.open_end as usize, message.close_start as usize);
    if open_end > close_start || close_start > message.stanza.0.len() {
        return Err("a message whose tags are not where they should be".to_owned());
    }
    if message.id.is_some_and(|id| id == 0 || id >= TAKEN_ID_MAX) {
        return Err("a message whose id is too high".to_owned());
    }
    Ok(LogEntry {
        id: message.id.unwrap_or(0),
        at: Wall(message.at),
        with,
        keep: Keep::new(message.pending, message.archived)
            .ok_or("a message that is neither pending nor archived")?,
        origin: Origin::default(),
        stanza: message.stanza.0.clone(),
        open_end: message.open_end,
        close_start: message.close_start,
    })
}

/// Gives ids to messages that have none; those which the owner's shard gives from then on are higher.
fn give_ids(
    accounts: &mut dyn Accounts,
    owner: &BareJid,
    batch: &mut [Write],
) -> Result<(), Fault> {
    let missing = batch.iter().filter(|write| is_without_id(write)).count();
    if missing == 0 {
        return Ok(());
    }
    let partition = store_partition(owner.hash64());
    let count = u32::try_from(missing).map_err(|_| Fault::Odd)?;
    let written = accounts.write(vec![Write::ReserveIds { partition, count }])?;
    let Some(Written::Reserved { first }) = written.first() else { return Err(Fault::Odd) };
    let mut next = *first;
    for write in batch.iter_mut().filter(|write| is_without_id(write)) {
        if let Write::AppendLog { entry, .. } = write {
            entry.id = next;
            next += 1;
        }
    }
    accounts.tell(vec![News::IdsGiven { owner: owner.clone(), partition, next }]);
    Ok(())
}

fn is_without_id(write: &Write) -> bool {
    matches!(write, Write::AppendLog { entry, .. } if entry.id == 0)
}
