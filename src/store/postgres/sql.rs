//! The statements of the one who writes, each by its name. Arrays carry a batch: one statement, however many rows.

/// In the order of `SQL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Sql {
    Begin,
    Commit,
    Rollback,
    Lock,
    FindJids,
    CommitsLazily,
    InternJids,
    Accounts,
    Credentials,
    CreateAccounts,
    SetCredentials,
    SetDisabled,
    RosterVersions,
    RosterRemove,
    RosterPut,
    SlotRemove,
    SlotPut,
    LogAppend,
    LogAppendPending,
    LogConfirm,
    LogReplace,
    Prune,
    RaiseIds,
    RaiseIncarnation,
    Reserve,
    DeleteLog,
    DeletePending,
    DeleteSlots,
    DeleteRoster,
    DeleteAccounts,
}

/// Rows that are there already stay as they are.
macro_rules! log_append {
    () => {
        "INSERT INTO log \
         (owner, id, peer, at, incarnation, number, link, open_end, close_start, archived, resource, stanza) \
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], \
         $7::integer[], $8::integer[], $9::integer[], $10::boolean[], $11::text[], $12::bytea[]) \
         ON CONFLICT (owner, id) DO NOTHING"
    };
}

pub(super) const SQL: [&str; 30] = [
    // Begin
    "BEGIN",
    // Commit
    "COMMIT",
    // Rollback
    "ROLLBACK",
    // Lock: incarnation, writer, generation. Waits for one who fences, and then sees what he did.
    "SELECT 1 FROM member WHERE incarnation = $1 AND writer = $2 AND generation = $3 AND NOT fenced FOR SHARE",
    // FindJids
    "SELECT id, text FROM jid WHERE text = ANY($1::text[])",
    // CommitsLazily: what interns is durable before anything that uses it, since the log of the database is one.
    "SET LOCAL synchronous_commit = off",
    // InternJids: in one order, so that two that intern the same wait for each other and never both.
    "INSERT INTO jid (text) SELECT t FROM unnest($1::text[]) AS t ORDER BY t COLLATE \"C\" \
     ON CONFLICT (text) DO NOTHING RETURNING id, text",
    // Accounts: which of these are.
    "SELECT owner FROM account WHERE owner = ANY($1::bigint[])",
    // Credentials: of these.
    "SELECT owner, \
     sha1_iterations, sha1_salt, sha1_stored_key, sha1_server_key, \
     sha256_iterations, sha256_salt, sha256_stored_key, sha256_server_key, \
     sha512_iterations, sha512_salt, sha512_stored_key, sha512_server_key \
     FROM account WHERE owner = ANY($1::bigint[])",
    // CreateAccounts
    "INSERT INTO account (owner, \
     sha1_iterations, sha1_salt, sha1_stored_key, sha1_server_key, \
     sha256_iterations, sha256_salt, sha256_stored_key, sha256_server_key, \
     sha512_iterations, sha512_salt, sha512_stored_key, sha512_server_key, \
     disabled, roster_version) \
     SELECT k.*, false, 0 FROM unnest($1::bigint[], \
     $2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[], \
     $6::bigint[], $7::bytea[], $8::bytea[], $9::bytea[], \
     $10::bigint[], $11::bytea[], $12::bytea[], $13::bytea[]) AS k",
    // SetCredentials
    "UPDATE account SET \
     sha1_iterations = k.i1, sha1_salt = k.a1, sha1_stored_key = k.b1, sha1_server_key = k.c1, \
     sha256_iterations = k.i2, sha256_salt = k.a2, sha256_stored_key = k.b2, sha256_server_key = k.c2, \
     sha512_iterations = k.i3, sha512_salt = k.a3, sha512_stored_key = k.b3, sha512_server_key = k.c3 \
     FROM unnest($1::bigint[], \
     $2::bigint[], $3::bytea[], $4::bytea[], $5::bytea[], \
     $6::bigint[], $7::bytea[], $8::bytea[], $9::bytea[], \
     $10::bigint[], $11::bytea[], $12::bytea[], $13::bytea[]) \
     AS k (owner, i1, a1, b1, c1, i2, a2, b2, c2, i3, a3, b3, c3) WHERE account.owner = k.owner",
    // SetDisabled
    "UPDATE account SET disabled = k.disabled FROM unnest($1::bigint[], $2::boolean[]) AS k (owner, disabled) \
     WHERE account.owner = k.owner",
    // RosterVersions
    "UPDATE account SET roster_version = k.version FROM unnest($1::bigint[], $2::bigint[]) AS k (owner, version) \
     WHERE account.owner = k.owner",
    // RosterRemove
    "DELETE FROM roster USING unnest($1::bigint[], $2::bytea[]) AS k (owner, key) \
     WHERE roster.owner = k.owner AND roster.key = k.key",
    // RosterPut
    "INSERT INTO roster (owner, key, jid, name, groups, subscription, ask, approved, pending_in) \
     SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::smallint[], \
     $7::boolean[], $8::boolean[], $9::bytea[]) \
     ON CONFLICT (owner, key) DO UPDATE SET jid = excluded.jid, name = excluded.name, groups = excluded.groups, \
     subscription = excluded.subscription, ask = excluded.ask, approved = excluded.approved, \
     pending_in = excluded.pending_in",
    // SlotRemove
    "DELETE FROM slot USING unnest($1::bigint[], $2::text[]) AS k (owner, name) \
     WHERE slot.owner = k.owner AND slot.name = k.name",
    // SlotPut
    "INSERT INTO slot (owner, name, value) SELECT * FROM unnest($1::bigint[], $2::text[], $3::bytea[]) \
     ON CONFLICT (owner, name) DO UPDATE SET value = excluded.value",
    // LogAppend
    log_append!(),
    // LogAppendPending: a row that is there already is not pending again.
    concat!(
        "WITH appended AS (",
        log_append!(),
        " RETURNING owner, id) INSERT INTO pending (owner, id) SELECT owner, id FROM appended ON CONFLICT DO NOTHING"
    ),
    // LogConfirm: what is in the archive stays there.
    "WITH confirmed AS (\
     DELETE FROM pending USING unnest($1::bigint[], $2::bigint[]) AS k (owner, id) \
     WHERE pending.owner = k.owner AND pending.id = k.id RETURNING pending.owner, pending.id) \
     DELETE FROM log USING confirmed \
     WHERE log.owner = confirmed.owner AND log.id = confirmed.id AND NOT log.archived",
    // LogReplace
    "UPDATE log SET stanza = k.stanza, open_end = k.open_end, close_start = k.close_start \
     FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::integer[], $5::integer[]) \
     AS k (owner, id, stanza, open_end, close_start) WHERE log.owner = k.owner AND log.id = k.id",
    // Prune: owner, before, keep, limit. From the oldest on, while a row is old or has enough newer ones; one more than
    // the limit is counted, to tell whether there are more. The highest `keep` stands for any number.
    "WITH surplus AS (\
     SELECT id FROM log WHERE owner = $1 AND archived AND $3::bigint < 9223372036854775807 \
     ORDER BY id DESC LIMIT 1 OFFSET $3::bigint), \
     oldest AS (\
     SELECT id, at FROM log WHERE owner = $1 AND archived ORDER BY id LIMIT $4::bigint + 1), \
     going AS (\
     SELECT id, bool_and(at < $2::bigint OR id <= coalesce((SELECT id FROM surplus), 0)) OVER (ORDER BY id) AS goes \
     FROM oldest), \
     gone AS (SELECT id FROM going WHERE goes ORDER BY id LIMIT $4::bigint), \
     hidden AS (\
     UPDATE log SET archived = false FROM gone WHERE log.owner = $1 AND log.id = gone.id \
     AND EXISTS (SELECT 1 FROM pending WHERE pending.owner = $1 AND pending.id = gone.id)), \
     deleted AS (\
     DELETE FROM log USING gone WHERE log.owner = $1 AND log.id = gone.id \
     AND NOT EXISTS (SELECT 1 FROM pending WHERE pending.owner = $1 AND pending.id = gone.id)) \
     SELECT count(*) FROM going WHERE goes",
    // RaiseIds
    "INSERT INTO id_block AS b (partition, next) SELECT k.partition, k.next \
     FROM unnest($1::integer[], $2::bigint[]) AS k (partition, next) \
     ON CONFLICT (partition) DO UPDATE SET next = greatest(b.next, excluded.next)",
    // RaiseIncarnation: a row of nobody, behind which the next one gets its number.
    "WITH raised AS (INSERT INTO incarnation (id, node) OVERRIDING SYSTEM VALUE \
     SELECT $1::bigint, 'raised' WHERE $1::bigint > (SELECT coalesce(max(id), 0) FROM incarnation) RETURNING id) \
     SELECT setval(pg_get_serial_sequence('incarnation', 'id'), id) FROM raised",
    // Reserve: the first id is 1, so that "after 0" means "from the start". Past the end the column refuses.
    "INSERT INTO id_block AS b (partition, next) SELECT k.partition, 1 + k.count \
     FROM unnest($1::integer[], $2::bigint[]) AS k (partition, count) \
     ON CONFLICT (partition) DO UPDATE SET next = b.next + excluded.next - 1 \
     RETURNING partition, next",
    // DeleteLog and its like: in the transaction like all else, so that nothing is left to a successor.
    "DELETE FROM log WHERE owner = ANY($1::bigint[])",
    "DELETE FROM pending WHERE owner = ANY($1::bigint[])",
    "DELETE FROM slot WHERE owner = ANY($1::bigint[])",
    "DELETE FROM roster WHERE owner = ANY($1::bigint[])",
    "DELETE FROM account WHERE owner = ANY($1::bigint[])",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_its_statement() {
        assert_eq!(Sql::DeleteAccounts as usize, SQL.len() - 1);
        for (name, start) in [
            (Sql::Rollback, "ROLLBACK"),
            (Sql::Lock, "SELECT 1 FROM member"),
            (Sql::InternJids, "INSERT INTO jid"),
            (Sql::Credentials, "SELECT owner, sha1_iterations"),
            (Sql::SetCredentials, "UPDATE account SET sha1"),
            (Sql::RosterPut, "INSERT INTO roster"),
            (Sql::SlotPut, "INSERT INTO slot"),
            (Sql::LogConfirm, "WITH confirmed"),
            (Sql::Prune, "WITH surplus"),
            (Sql::RaiseIncarnation, "WITH raised"),
            (Sql::Reserve, "INSERT INTO id_block"),
            (Sql::DeleteLog, "DELETE FROM log WHERE"),
        ] {
            assert!(SQL[name as usize].starts_with(start), "{name:?}");
        }
    }
}
