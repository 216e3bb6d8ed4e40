-- What of the archive is with whom, so that a page of one conversation costs the same however much else its owner has. It
-- runs behind the archive, owner by owner: many rows of one owner are put in at once, into the same few pages, where each
-- on its own would cost a page that is read and written for it.

-- The archived rows of an owner up to conversation_upto.id; none above it.
CREATE TABLE conversation (
    owner INTEGER NOT NULL,                     -- jid.id
    peer  INTEGER NOT NULL,                     -- jid.id of the other side
    id    INTEGER NOT NULL,
    row   INTEGER NOT NULL,                     -- entry.row
    PRIMARY KEY (owner, peer, id)
) STRICT, WITHOUT ROWID;

-- An owner who is not here has none in conversation.
CREATE TABLE conversation_upto (
    owner INTEGER PRIMARY KEY,                  -- jid.id
    id    INTEGER NOT NULL
) STRICT;

-- Whoever takes a row out of the archive, an older program too.
CREATE TRIGGER entry_deleted AFTER DELETE ON entry WHEN OLD.archived = 1
BEGIN
    DELETE FROM conversation WHERE owner = OLD.owner AND peer = OLD.peer AND id = OLD.id AND row = OLD.row;
END;
CREATE TRIGGER entry_hidden AFTER UPDATE OF archived ON entry WHEN OLD.archived = 1 AND NEW.archived = 0
BEGIN
    DELETE FROM conversation WHERE owner = OLD.owner AND peer = OLD.peer AND id = OLD.id AND row = OLD.row;
END;

-- The incarnation that kept these tables last. An older program, which knows nothing of them, raises the other one alone;
-- after it they are made anew, as they are now, when they were never made.
ALTER TABLE node ADD COLUMN conversations INTEGER NOT NULL DEFAULT -1;
