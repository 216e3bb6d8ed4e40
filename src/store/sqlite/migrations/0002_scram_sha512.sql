-- Keys of SCRAM-SHA-512: NULL, all four, for a password that an older program set.
ALTER TABLE account ADD COLUMN sha512_iterations INTEGER;
ALTER TABLE account ADD COLUMN sha512_salt BLOB;
ALTER TABLE account ADD COLUMN sha512_stored_key BLOB;
ALTER TABLE account ADD COLUMN sha512_server_key BLOB;

-- Whether there is any such account must be known at each start, without a walk through all of them.
CREATE INDEX account_without_sha512 ON account (owner) WHERE sha512_stored_key IS NULL;

-- An older program that runs on this database knows nothing of these keys: what it changes must not leave the old
-- password alive in them.
CREATE TRIGGER account_password_changed AFTER UPDATE OF sha256_stored_key ON account
WHEN NEW.sha256_stored_key IS NOT OLD.sha256_stored_key
    AND NEW.sha512_stored_key IS OLD.sha512_stored_key
BEGIN
    UPDATE account
    SET sha512_iterations = NULL, sha512_salt = NULL, sha512_stored_key = NULL, sha512_server_key = NULL
    WHERE owner = NEW.owner;
END;
