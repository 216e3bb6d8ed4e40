//! A node's place beside the other nodes of its cluster: its name, which one run at a time has, and the lock that they
//! share.
//!
//! A run has its name as long as its lease lives, and `cluster` renews that. Whoever takes a name over fences the runs
//! that had it before, and whatever else wrote without being the present run of a node.

use std::time::Instant;

use super::super::Error;
use super::cluster::{LEASE_TEXT, SECONDS_LEFT};
use super::fault::Fault;
use super::link::Link;
use super::member::{self, Hold, KEPT, LIMIT, Member, PATIENCE, PATIENCE_STEP};
use super::settings::Settings;

/// How long one who starts waits for the lease of a run that had its name: that one may have crashed just now.
const NAME_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Takes the database for a node of a cluster that starts.
///
/// - takes: `links`, the connections that will write; the first keeps the lock
/// - gives: a member for each connection, and the number of the node
/// - errors: `Open` where one alone has the database, or another run has the name
pub(super) fn take(
    links: &mut [Link],
    settings: &Settings,
    node: &str,
) -> Result<(Vec<Member>, u32), Error> {
    let open_error = |reason: String| Error::Open { path: settings.to_string(), reason };
    let count = links.len();
    let first = links.first_mut().ok_or_else(|| open_error("there is no connection".to_owned()))?;
    if !member::has_lock(first, Hold::Shared, PATIENCE)? {
        return Err(open_error(format!(
            "in use by one that is in no cluster: {}",
            member::holder(first)?
        )));
    }
    let incarnation = member::new_incarnation(first, node)?;
    let members = member::members(incarnation, count, Hold::Shared);
    let began = Instant::now();
    let id = loop {
        match claim(first, node, incarnation, &members)? {
            Ok(id) => break id,
            Err(other) if began.elapsed() >= NAME_PATIENCE => {
                return Err(open_error(format!(
                    "a node of the cluster has the name {node:?} and lives{other}; give this one another name, or stop \
                     that one"
                )));
            }
            Err(_) => std::thread::sleep(PATIENCE_STEP),
        }
    };
    member::name_sessions(links, &members)?;
    Ok((members, id))
}

/// Takes the name, if its lease is over, and fences who wrote before.
///
/// - gives: the number of the node; or where the run is that has the name
fn claim(
    link: &mut Link,
    node: &str,
    incarnation: i64,
    members: &[Member],
) -> Result<Result<u32, String>, Error> {
    let sql = "INSERT INTO cluster_node (name, incarnation, state, shards, weight, link, clients, oldest_frame, \
               newest_frame, version, settled_epoch, lease_until) \
               SELECT $1, 0, 'left', 0, 0, '', '{}', 0, 0, '', 0, '-infinity' \
               WHERE NOT EXISTS (SELECT 1 FROM cluster_node WHERE name = $1) ON CONFLICT DO NOTHING";
    link.once(LIMIT, sql, &[&node])?;
    let lock = format!(
        "SELECT id, {SECONDS_LEFT} > 0 AND {SECONDS_LEFT} <= {LEASE_TEXT}, link FROM cluster_node WHERE name = $1 \
         FOR UPDATE"
    );
    let take = format!(
        "UPDATE cluster_node SET incarnation = $2, state = 'joining', settled_epoch = 0, \
         lease_until = clock_timestamp() + {LEASE_TEXT} * interval '1 second' WHERE id = $1"
    );
    let oldest = incarnation.saturating_sub(KEPT);
    // Ends the session with all that was not committed, should any of this fail.
    let taken = link.run(LIMIT, async |client| {
        client.batch_execute("BEGIN; SET LOCAL lock_timeout = '45s'").await?;
        let row = client.query_one(&lock, &[&node]).await?;
        let (id, lives, place): (i32, bool, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if lives {
            client.batch_execute("ROLLBACK").await?;
            let place = if place.is_empty() { place } else { format!(", at {place}") };
            return Ok(Err(place));
        }
        // All but the present runs of other nodes; it waits for what they have under way.
        let sql = "UPDATE member SET fenced = true WHERE NOT fenced AND NOT EXISTS \
                   (SELECT 1 FROM cluster_node WHERE cluster_node.incarnation = member.incarnation AND id <> $1)";
        client.execute(sql, &[&id]).await?;
        let sql = "DELETE FROM member WHERE fenced AND incarnation < $1";
        client.execute(sql, &[&oldest]).await?;
        member::insert(client, members).await?;
        client.execute(&take, &[&id, &incarnation]).await?;
        client.batch_execute("COMMIT").await?;
        Ok(Ok(id.cast_unsigned()))
    })?;
    Ok(taken)
}

/// The names of the nodes whose leases live for longer than `patience`; none for a schema without clusters.
pub(super) fn leases(
    link: &mut Link,
    patience: std::time::Duration,
) -> Result<Option<Vec<String>>, Error> {
    let sql = format!(
        "SELECT name FROM cluster_node WHERE {SECONDS_LEFT} > 0 AND {SECONDS_LEFT} <= {LEASE_TEXT} ORDER BY id"
    );
    let began = Instant::now();
    loop {
        let rows = link.once(LIMIT, &sql, &[])?;
        if rows.is_empty() {
            return Ok(None);
        }
        if began.elapsed() >= patience {
            let names = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>();
            return Ok(Some(names.map_err(Fault::from)?));
        }
        std::thread::sleep(PATIENCE_STEP);
    }
}

/// Who has the database, in words.
pub(super) fn told(nodes: &[String]) -> String {
    let names: Vec<String> = nodes.iter().map(|name| format!("{name:?}")).collect();
    format!(
        "the nodes of a cluster: {}; use the commands where one of them runs, or stop all of them",
        names.join(", ")
    )
}
