-- Who is in the cluster, who owns what since when, and what happened. All leases are by the clock of this server.

-- A row for each name that a node ever had; it stays, and with it the number that decides between equals.
CREATE TABLE cluster_node (
    id            integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text COLLATE "C" NOT NULL UNIQUE,
    incarnation   bigint NOT NULL,              -- incarnation.id of the run that has the name now
    state         text NOT NULL,                -- joining, member, leaving, left (it ended), fenced (it was taken over)
    shards        integer NOT NULL,
    weight        bigint NOT NULL,              -- as it wishes; what holds is in cluster_epoch
    link          text NOT NULL,                -- IP:PORT
    clients       text[] NOT NULL,              -- HOST:PORT
    oldest_frame  integer NOT NULL,
    newest_frame  integer NOT NULL,
    version       text NOT NULL,                -- of the program
    settled_epoch bigint NOT NULL,              -- up to which its shards have what is theirs
    lease_until   timestamptz NOT NULL
) WITH (fillfactor = 50);                       -- each row changes every second

-- One row. It changes only from one epoch to the next, by who names the one before.
CREATE TABLE cluster_epoch (
    one        boolean PRIMARY KEY DEFAULT true CHECK (one),
    epoch      bigint NOT NULL,
    members    jsonb NOT NULL,                  -- the columns of cluster_node that do not change, of each member
    clear_at   timestamptz NOT NULL,            -- when the leases of all who were taken over are over
    changed_at timestamptz NOT NULL,
    why        text NOT NULL
);
INSERT INTO cluster_epoch (epoch, members, clear_at, changed_at, why) VALUES (0, '[]', now(), now(), 'made');

-- The newest changes, for people.
CREATE TABLE cluster_event (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    epoch bigint NOT NULL,
    node  text NOT NULL,                        -- who made the change
    what  text NOT NULL
);
