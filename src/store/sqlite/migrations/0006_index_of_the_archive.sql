-- The index of the archive in two tables: what is appended goes to a small one, and is carried over to the large one where
-- rows that belong beside each other have gathered. An index for all of it takes each row to a page of its own, which is
-- read and written for that one row once the index is larger than memory.
--
-- Of each owner, all ids in archive_main are below those in archive_fresh.

CREATE TABLE archive_main (
    owner INTEGER NOT NULL,                     -- jid.id
    id    INTEGER NOT NULL,
    peer  INTEGER NOT NULL,                     -- jid.id of the other side
    row   INTEGER NOT NULL,                     -- entry.row, with archived = 1
    PRIMARY KEY (owner, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE archive_fresh (
    owner INTEGER NOT NULL,
    id    INTEGER NOT NULL,
    peer  INTEGER NOT NULL,
    row   INTEGER NOT NULL,
    PRIMARY KEY (owner, id)
) STRICT, WITHOUT ROWID;

-- In the order of the old index, page after page. A row that a damaged file has twice must not shut everybody out.
INSERT OR IGNORE INTO archive_main (owner, id, peer, row)
SELECT owner, id, peer, row FROM entry INDEXED BY entry_archived WHERE archived = 1 ORDER BY owner, id;
DROP INDEX entry_archived;

-- A program of version 0.1 works on: it sees pending rows alone, and appends and confirms those. Rows leave the archive
-- under its hands with their account only. Programs between the two, never released, name the index that is gone: they
-- fail at their first look at an account, before they have changed anything.
DROP TRIGGER account_deleted;
CREATE TRIGGER account_deleted AFTER DELETE ON account
BEGIN
    DELETE FROM entry WHERE owner = OLD.owner AND row IN (
        SELECT row FROM archive_main WHERE owner = OLD.owner
        UNION ALL SELECT row FROM archive_fresh WHERE owner = OLD.owner
    );
    DELETE FROM archive_main WHERE owner = OLD.owner;
    DELETE FROM archive_fresh WHERE owner = OLD.owner;
END;
