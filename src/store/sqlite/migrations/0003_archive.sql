-- The archive: rows of the log that stay when they are confirmed. What they are kept for stands in two columns, each
-- with an index that holds its own rows only: a log without an archive keeps one index, and reading what is pending
-- costs what is pending, however long the archive is.
ALTER TABLE log RENAME TO entry;
ALTER TABLE entry ADD COLUMN resource TEXT NOT NULL DEFAULT '';     -- of the peer; empty: none
ALTER TABLE entry ADD COLUMN pending INTEGER NOT NULL DEFAULT 1;    -- 0, 1
ALTER TABLE entry ADD COLUMN archived INTEGER NOT NULL DEFAULT 0;   -- 0, 1
DROP INDEX log_owner;
CREATE INDEX entry_pending ON entry (owner, id) WHERE pending = 1;
CREATE INDEX entry_archived ON entry (owner, id, peer) WHERE archived = 1;

-- An older program that runs on this database sees the pending rows alone, and would otherwise deliver the archive. It
-- appends, confirms and deletes through this view.
CREATE VIEW log (row, owner, id, peer, at, incarnation, link, number, open_end, close_start, stanza) AS
SELECT row, owner, id, peer, at, incarnation, link, number, open_end, close_start, stanza
FROM entry WHERE pending = 1;

CREATE TRIGGER log_append INSTEAD OF INSERT ON log
BEGIN
    INSERT INTO entry (owner, id, peer, at, incarnation, link, number, open_end, close_start, stanza)
    VALUES (NEW.owner, NEW.id, NEW.peer, NEW.at, NEW.incarnation, NEW.link, NEW.number, NEW.open_end,
            NEW.close_start, NEW.stanza);
END;

CREATE TRIGGER log_confirm INSTEAD OF DELETE ON log
BEGIN
    DELETE FROM entry WHERE row = OLD.row AND archived = 0;
    UPDATE entry SET pending = 0 WHERE row = OLD.row;
END;

-- It knows nothing of an archive that goes with its account.
CREATE TRIGGER account_deleted AFTER DELETE ON account
BEGIN
    DELETE FROM entry WHERE owner = OLD.owner AND archived = 1;
END;
