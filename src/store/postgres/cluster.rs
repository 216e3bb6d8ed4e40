//! The rows by which a cluster decides who owns what: the nodes with their leases, the epoch with its members, and what
//! happened. Who proposes what and when is decided elsewhere; here an epoch follows another at most once, and who is
//! taken over is fenced in the same transaction.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;

use super::super::Error;
use super::fault::{Fault, told};
use super::link::{Link, Value};
use super::settings::Settings;

/// How long a node has its name and its partitions without being heard of.
pub const LEASE: Duration = Duration::from_secs(3);
pub(super) const LEASE_TEXT: &str = "3";
/// How long the lease of a row of `cluster_node` lives, in seconds, by the server's clock. More than a lease is ever given
/// for comes from a clock that was put back, and counts as none.
pub(super) const SECONDS_LEFT: &str =
    "coalesce(extract(epoch FROM nullif(lease_until, '-infinity') - clock_timestamp()), 0)";

/// How long a step here may take before the connection is given up.
const LIMIT: Duration = Duration::from_secs(2);
/// Changes that are kept.
const EVENTS: i64 = 1_000;

/// A fence waits for the writes that those who are fenced have under way, for so long at a time: the lease of who waits is
/// renewed over the same connection. Timers of statements are off: PostgreSQL would answer a commit that waits for its
/// standby as done.
const SESSION: &str = "SET statement_timeout = 0; SET lock_timeout = '400ms';";

/// What a node says of itself: a row of `cluster_node` or a member of the epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    pub id: u32,
    pub incarnation: u64,
    pub name: String,
    pub shards: u16,
    pub weight: u32,
    pub link: SocketAddr,
    pub clients: Vec<String>,
    /// Of members alone; one that is none needs no such address.
    #[serde(default)]
    pub components: Vec<String>,
    /// As `components`: it talks with other servers.
    #[serde(default)]
    pub federates: bool,
    pub oldest_frame: u16,
    pub newest_frame: u16,
    pub version: String,
}

/// A row of `cluster_node`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Node {
    #[serde(flatten)]
    pub facts: Facts,
    pub state: String,
    pub settled_epoch: u64,
    /// Of its lease, at most [`LEASE`]; 0 for one that is over.
    pub lease_ms: u64,
}

/// All of it, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// 0 before the first.
    pub epoch: u64,
    pub members: Vec<Facts>,
    /// By node id.
    pub nodes: Vec<Node>,
    /// Until the leases of all who were taken over are over; at most [`LEASE`].
    pub clear: Duration,
    pub changed_at: String,
    pub why: String,
}

/// What a node says with its lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beat<'a> {
    pub facts: &'a Facts,
    pub state: &'a str,
    pub settled_epoch: u64,
}

/// The epoch behind another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal<'a> {
    /// Who proposes it, as the number of a node and its incarnation.
    pub by: (u32, u64),
    pub from: u64,
    pub members: &'a [Facts],
    /// Runs that are taken over.
    pub fence: &'a [(u32, u64)],
    /// Of these, those that may be only if their leases are over.
    pub over: &'a [(u32, u64)],
    pub why: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposed {
    Won,
    /// The epoch is another by now, a lease lives that should be over, or the proposer has lost its name.
    Lost,
    /// Who is to be fenced has writes under way; to be tried again.
    Busy,
}

/// A change, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// As of RFC 3339, in UTC.
    pub at: String,
    pub epoch: u64,
    /// The name of who made it.
    pub node: String,
    pub what: String,
}

const RENEW: &str = "UPDATE cluster_node SET state = $3, shards = $4, weight = $5, link = $6, clients = $7, \
    oldest_frame = $8, newest_frame = $9, version = $10, settled_epoch = $11, \
    lease_until = clock_timestamp() + 3 * interval '1 second' \
    WHERE id = $1 AND incarnation = $2 AND state <> 'fenced' \
    AND NOT EXISTS (SELECT 1 FROM member WHERE member.incarnation = $2 AND fenced) RETURNING 1";

/// One statement, so of one moment. Who has taken a name and not yet said anything of itself is left out.
const READ: &str = "SELECT epoch, members::text, \
    (SELECT coalesce(json_agg(row_to_json(n) ORDER BY n.id), '[]')::text FROM (\
        SELECT id, incarnation, name, shards, weight, link, clients, oldest_frame, newest_frame, version, state, \
        settled_epoch, CASE WHEN left_s > 0 AND left_s <= 3 THEN (left_s * 1000)::bigint ELSE 0 END AS lease_ms \
        FROM (SELECT *, coalesce(extract(epoch FROM nullif(lease_until, '-infinity') - clock_timestamp()), 0) AS left_s \
              FROM cluster_node WHERE link <> '') AS c) AS n), \
    (least(greatest(extract(epoch FROM clear_at - clock_timestamp()), 0), 3) * 1000)::bigint, \
    to_char(changed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), why FROM cluster_epoch";

const STATEMENTS: [&str; 2] = [RENEW, READ];

/// The connection of the one who takes part. Connects when it must, and anew after each failure.
pub struct ClusterLink {
    settings: Settings,
    name: String,
    link: Option<Link>,
}

impl ClusterLink {
    /// Connects when it is first asked.
    ///
    /// - takes: `name`, what the server's operator sees the session by
    pub fn new(settings: &Settings, name: &str) -> ClusterLink {
        let settings = settings.with_connect_timeout(LIMIT);
        ClusterLink { settings, name: name.to_owned(), link: None }
    }

    /// Renews the lease, and reads what holds.
    ///
    /// - errors: `Fenced` for a run that was taken over or whose name has another run; what was there, after any other, is
    ///   not known
    /// - blocking: 2 s, and as long to connect
    pub fn renew(&mut self, beat: &Beat<'_>) -> Result<Snapshot, Error> {
        let (id, incarnation) = (beat.facts.id.cast_signed(), beat.facts.incarnation.cast_signed());
        let (shards, weight) = (i32::from(beat.facts.shards), i64::from(beat.facts.weight));
        let (oldest, newest) =
            (i32::from(beat.facts.oldest_frame), i32::from(beat.facts.newest_frame));
        let (place, settled) = (beat.facts.link.to_string(), beat.settled_epoch.cast_signed());
        let values: [Value<'_>; 11] = [
            &id,
            &incarnation,
            &beat.state,
            &shards,
            &weight,
            &place,
            &beat.facts.clients,
            &oldest,
            &newest,
            &beat.facts.version,
            &settled,
        ];
        self.with(|link| {
            let answers = link.ask(LIMIT, &[(0, values.to_vec()), (1, Vec::new())])?;
            if answers[0].is_empty() {
                return Err(Error::Fenced);
            }
            replicated(link)?;
            snapshot(&answers[1])
        })
    }

    /// Reads what holds.
    ///
    /// - blocking: as of [`ClusterLink::renew`]
    pub fn read(&mut self) -> Result<Snapshot, Error> {
        self.with(|link| snapshot(&link.ask(LIMIT, &[(1, Vec::new())])?[0]))
    }

    /// Makes the next epoch, and fences who is taken over by it.
    ///
    /// - errors: whether it is made is not known; who reads it again sees
    /// - blocking: as of [`ClusterLink::renew`]
    pub fn propose(&mut self, proposal: &Proposal<'_>) -> Result<Proposed, Error> {
        let members =
            serde_json::to_string(proposal.members).map_err(|e| Error::Backend(e.to_string()))?;
        self.with(|link| {
            let proposed = link.run(LIMIT, async |client| change(client, proposal, &members).await);
            match proposed {
                Ok(Proposed::Won) => {
                    replicated(link)?;
                    Ok(Proposed::Won)
                }
                Ok(proposed) => Ok(proposed),
                Err(fault) if fault.is(&SqlState::LOCK_NOT_AVAILABLE) || fault.is_passing() => {
                    link.run(LIMIT, async |client| client.batch_execute("ROLLBACK").await)?;
                    end_sessions(link, proposal.fence);
                    Ok(Proposed::Busy)
                }
                Err(fault) => Err(fault.into()),
            }
        })
    }

    /// Gives the lease back: this run has ended by its own will.
    ///
    /// - blocking: as of [`ClusterLink::renew`]
    pub fn release(&mut self, node: u32, incarnation: u64) -> Result<(), Error> {
        let (node, incarnation) = (node.cast_signed(), incarnation.cast_signed());
        let sql = "UPDATE cluster_node SET state = 'left', lease_until = clock_timestamp() \
                   WHERE id = $1 AND incarnation = $2 AND state <> 'fenced'";
        self.with(|link| Ok(link.once(LIMIT, sql, &[&node, &incarnation]).map(|_| ())?))
    }

    /// The newest changes, newest first.
    ///
    /// - blocking: as of [`ClusterLink::renew`]
    pub fn events(&mut self, limit: u32) -> Result<Vec<Event>, Error> {
        let limit = i64::from(limit);
        let sql = "SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), epoch, node, what \
                   FROM cluster_event ORDER BY id DESC LIMIT $1";
        self.with(|link| {
            let rows = link.once(LIMIT, sql, &[&limit])?;
            let event = |row: &tokio_postgres::Row| -> Result<Event, tokio_postgres::Error> {
                let epoch: i64 = row.try_get(1)?;
                Ok(Event {
                    at: row.try_get(0)?,
                    epoch: epoch.cast_unsigned(),
                    node: row.try_get(2)?,
                    what: row.try_get(3)?,
                })
            };
            Ok(rows.iter().map(event).collect::<Result<_, _>>().map_err(Fault::from)?)
        })
    }

    /// Does `work` on the connection, which goes with a failure: what it was about to answer would be taken for the answer
    /// to something else.
    fn with<T>(&mut self, work: impl FnOnce(&mut Link) -> Result<T, Error>) -> Result<T, Error> {
        let mut link = match self.link.take() {
            Some(link) => link,
            None => Link::connect_within(&self.settings, &self.name, SESSION, &STATEMENTS, LIMIT)?,
        };
        let done = work(&mut link)?;
        self.link = Some(link);
        Ok(done)
    }
}

/// In a transaction that is open if this fails.
async fn change(
    client: &tokio_postgres::Client,
    proposal: &Proposal<'_>,
    members: &str,
) -> Result<Proposed, tokio_postgres::Error> {
    let (from, next) = (proposal.from.cast_signed(), (proposal.from + 1).cast_signed());
    let (by, run) = (proposal.by.0.cast_signed(), proposal.by.1.cast_signed());
    client.batch_execute("BEGIN").await?;
    // Two who propose wait for each other here, and the second finds another epoch.
    let sql = "UPDATE cluster_epoch SET epoch = $2, members = $3::text::jsonb, changed_at = clock_timestamp(), why = $4 \
               WHERE epoch = $1 AND EXISTS (SELECT 1 FROM cluster_node \
               WHERE id = $5 AND incarnation = $6 AND state <> 'fenced')";
    let changed = client.execute(sql, &[&from, &next, &members, &proposal.why, &by, &run]).await?;
    if changed == 0 {
        client.batch_execute("ROLLBACK").await?;
        return Ok(Proposed::Lost);
    }
    // From here on their leases cannot be renewed: what is left of them is the most that they can believe to have.
    for (node, incarnation) in proposal.fence {
        let sql = "UPDATE cluster_node SET state = 'fenced' WHERE id = $1 AND incarnation = $2 \
                   RETURNING lease_until > clock_timestamp() \
                   AND lease_until <= clock_timestamp() + 3 * interval '1 second'";
        let (id, of) = (node.cast_signed(), incarnation.cast_signed());
        let rows = client.query(sql, &[&id, &of]).await?;
        let lives = match rows.first() {
            Some(row) => row.try_get::<_, bool>(0)?,
            None => false,
        };
        if lives && proposal.over.contains(&(*node, *incarnation)) {
            client.batch_execute("ROLLBACK").await?;
            return Ok(Proposed::Lost);
        }
    }
    if !proposal.fence.is_empty() {
        let runs: Vec<i64> = proposal.fence.iter().map(|(_, run)| run.cast_signed()).collect();
        let sql = "UPDATE cluster_epoch SET clear_at = greatest(clear_at, (\
                   SELECT max(least(lease_until, clock_timestamp() + 3 * interval '1 second')) FROM cluster_node \
                   WHERE incarnation = ANY($1)))";
        client.execute(sql, &[&runs]).await?;
        // Waits for what they have under way; what they send later is refused.
        let sql = "UPDATE member SET fenced = true WHERE incarnation = ANY($1) AND NOT fenced";
        client.execute(sql, &[&runs]).await?;
    }
    let sql = "INSERT INTO cluster_event (epoch, node, what) \
               SELECT $1, name, $3 FROM cluster_node WHERE id = $2";
    client.execute(sql, &[&next, &by, &proposal.why]).await?;
    let sql = "DELETE FROM cluster_event WHERE id <= (SELECT max(id) FROM cluster_event) - $1";
    client.execute(sql, &[&EVENTS]).await?;
    client.batch_execute("COMMIT").await?;
    Ok(Proposed::Won)
}

/// A machine that died in the middle of a transaction leaves it open, with its locks, until the server misses it.
fn end_sessions(link: &mut Link, runs: &[(u32, u64)]) {
    let sessions: Vec<String> = runs.iter().map(|(_, run)| format!("corefire/{run}/%")).collect();
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND usename = current_user \
               AND application_name LIKE ANY($1) AND pid <> pg_backend_pid()";
    // Only to be quicker: a server that does not let us waits until it misses the other end.
    if let Err(fault) = link.once(LIMIT, sql, &[&sessions]) {
        tracing::debug!(why = %told(&fault), "sessions of a node that was taken over cannot be ended");
    }
}

/// - errors: a commit was answered though its standby may not have it
fn replicated(link: &Link) -> Result<(), Error> {
    if link.is_unreplicated() {
        let why = "the wait of a commit for its standby was cancelled";
        return Err(Error::Backend(why.to_owned()));
    }
    Ok(())
}

fn snapshot(rows: &[tokio_postgres::Row]) -> Result<Snapshot, Error> {
    let damaged = |what: &str| Error::Damaged(format!("the table cluster_epoch: {what}"));
    let row = rows.first().ok_or_else(|| damaged("it is empty"))?;
    let number = |place| row.try_get::<_, i64>(place).map(i64::cast_unsigned).map_err(Fault::from);
    let text = |place| row.try_get::<_, String>(place).map_err(Fault::from);
    let (members, nodes) = (text(1)?, text(2)?);
    Ok(Snapshot {
        epoch: number(0)?,
        members: serde_json::from_str(&members).map_err(|error| damaged(&error.to_string()))?,
        nodes: serde_json::from_str(&nodes).map_err(|error| damaged(&error.to_string()))?,
        clear: Duration::from_millis(number(3)?),
        changed_at: text(4)?,
        why: text(5)?,
    })
}
