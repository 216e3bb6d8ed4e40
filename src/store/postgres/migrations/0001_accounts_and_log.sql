-- Accounts, rosters, slots, logs, blocks of ids, and who may write. Unsigned numbers are kept as the signed ones with the
-- same bits. Texts are compared by their bytes.

-- Addresses as small numbers, which keeps the log and its index narrow. Rows stay when an account goes: a number that
-- is given again would put one user's rows under another's name.
CREATE TABLE jid (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    text text COLLATE "C" NOT NULL UNIQUE
);

CREATE TABLE account (
    owner             bigint PRIMARY KEY,       -- jid.id
    disabled          boolean NOT NULL,
    roster_version    bigint NOT NULL,
    sha1_iterations   bigint NOT NULL,
    sha1_salt         bytea NOT NULL,
    sha1_stored_key   bytea NOT NULL,
    sha1_server_key   bytea NOT NULL,
    sha256_iterations bigint NOT NULL,
    sha256_salt       bytea NOT NULL,
    sha256_stored_key bytea NOT NULL,
    sha256_server_key bytea NOT NULL,
    sha512_iterations bigint,                   -- NULL, all four, for an account that has none
    sha512_salt       bytea,
    sha512_stored_key bytea,
    sha512_server_key bytea
);
-- Whether there is any such account must be known at each start, without a walk through all of them.
CREATE INDEX account_without_sha512 ON account (owner) WHERE sha512_stored_key IS NULL;

CREATE TABLE roster (
    owner        bigint NOT NULL,               -- jid.id
    key          bytea NOT NULL,                -- half of the SHA-256 of jid, which may be longer than an index takes
    jid          text COLLATE "C" NOT NULL,
    name         text NOT NULL,
    groups       text NOT NULL,                 -- JSON array of strings
    subscription smallint NOT NULL,             -- 0 none, 1 to, 2 from, 3 both, 4 not in the roster
    ask          boolean NOT NULL,
    approved     boolean NOT NULL,
    pending_in   bytea,
    PRIMARY KEY (owner, key)
);

CREATE TABLE slot (
    owner bigint NOT NULL,                      -- jid.id
    name  text COLLATE "C" NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (owner, name)
);

-- Messages, each as it will be delivered: the archive, and what waits for its recipient.
CREATE TABLE log (
    owner       bigint NOT NULL,                -- jid.id
    id          bigint NOT NULL,
    peer        bigint NOT NULL,                -- jid.id of the other side
    at          bigint NOT NULL,                -- microseconds since the Unix epoch
    incarnation bigint NOT NULL,
    number      bigint NOT NULL,
    link        integer NOT NULL,
    open_end    integer NOT NULL,
    close_start integer NOT NULL,
    archived    boolean NOT NULL,               -- it stays when it is confirmed
    resource    text NOT NULL,                  -- of the peer; empty: none
    stanza      bytea NOT NULL,
    PRIMARY KEY (owner, id)
);
-- A conversation is read along it, however long the archive is.
CREATE INDEX log_peer ON log (owner, peer, id) WHERE archived;

-- The rows of the log that nobody has confirmed. Apart from them, because PostgreSQL writes a row anew, with its stanza and
-- all its index entries, when a mark in it changes. It comes and goes quickly: what is dead in it is to be swept early.
CREATE TABLE pending (
    owner bigint NOT NULL,
    id    bigint NOT NULL,
    PRIMARY KEY (owner, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

-- The first id that was never given, per store partition.
CREATE TABLE id_block (
    partition integer PRIMARY KEY,
    next      bigint NOT NULL
);

-- One row for each time that a node took the database.
CREATE TABLE incarnation (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    node    text NOT NULL,
    started timestamptz NOT NULL DEFAULT now()
);

-- Who may write: a row for each connection that does. Every transaction that writes first locks its own row FOR SHARE and
-- looks whether it stands as it was: so a node whose rows were fenced, and a connection that was given up for another
-- (which has counted generation up), write nothing any more, whatever they still have on the way. A row each, because
-- a row that several transactions share at once costs PostgreSQL a multixact for every commit.
CREATE TABLE member (
    incarnation bigint NOT NULL,                -- incarnation.id
    writer      integer NOT NULL,
    generation  bigint NOT NULL,
    fenced      boolean NOT NULL,
    PRIMARY KEY (incarnation, writer)
);
