-- Accounts, rosters, slots, logs and blocks of ids. Unsigned numbers are kept as the signed ones with the same bits.

-- Addresses as small numbers, which keeps the log and its index narrow. Rows stay when an account goes: a number that
-- is given again would put one user's rows under another's name.
CREATE TABLE jid (
    id   INTEGER PRIMARY KEY,
    text TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE account (
    owner             INTEGER PRIMARY KEY,      -- jid.id
    disabled          INTEGER NOT NULL,         -- 0, 1
    roster_version    INTEGER NOT NULL,
    sha1_iterations   INTEGER NOT NULL,
    sha1_salt         BLOB NOT NULL,
    sha1_stored_key   BLOB NOT NULL,
    sha1_server_key   BLOB NOT NULL,
    sha256_iterations INTEGER NOT NULL,
    sha256_salt       BLOB NOT NULL,
    sha256_stored_key BLOB NOT NULL,
    sha256_server_key BLOB NOT NULL
) STRICT;

-- Clustered by owner, so that a roster is one range of pages.
CREATE TABLE roster (
    owner        INTEGER NOT NULL,              -- jid.id
    jid          TEXT NOT NULL,                 -- as text: a roster is read whole, and a join per contact would cost more
    name         TEXT NOT NULL,
    groups       TEXT NOT NULL,                 -- JSON array of strings
    subscription INTEGER NOT NULL,              -- 0 none, 1 to, 2 from, 3 both
    ask          INTEGER NOT NULL,
    approved     INTEGER NOT NULL,
    pending_in   BLOB,
    PRIMARY KEY (owner, jid)
) STRICT, WITHOUT ROWID;

CREATE TABLE slot (
    owner INTEGER NOT NULL,                     -- jid.id
    name  TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (owner, name)
) STRICT, WITHOUT ROWID;

-- Rows are appended in the order of arrival whoever owns them; the one index finds an owner's. (owner, id) is unique,
-- which the writer checks: a second index to enforce it would halve the rate of appends.
CREATE TABLE log (
    row         INTEGER PRIMARY KEY,
    owner       INTEGER NOT NULL,               -- jid.id
    id          INTEGER NOT NULL,
    peer        INTEGER NOT NULL,               -- jid.id of the other side
    at          INTEGER NOT NULL,               -- microseconds since the Unix epoch
    incarnation INTEGER NOT NULL,
    link        INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    open_end    INTEGER NOT NULL,
    close_start INTEGER NOT NULL,
    stanza      BLOB NOT NULL
) STRICT;
CREATE INDEX log_owner ON log (owner, id, peer);

-- The first id that was never given, per store partition.
CREATE TABLE id_block (
    partition INTEGER PRIMARY KEY,
    next      INTEGER NOT NULL
) STRICT;

-- One row: how often the database was opened for writing.
CREATE TABLE node (
    only        INTEGER PRIMARY KEY CHECK (only = 1),
    incarnation INTEGER NOT NULL
) STRICT;
INSERT INTO node (only, incarnation) VALUES (1, 0);
