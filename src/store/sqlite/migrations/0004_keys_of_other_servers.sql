-- Accounts that came from another server have keys for one hash, as a rule. Keys that are not there are empty: the columns
-- stay as they are for older programs, to which an empty key is one that no password leads to.

-- Whether there is any such account must be known at each start, without a walk through all of them.
CREATE INDEX account_without_sha1 ON account (owner) WHERE length(sha1_stored_key) = 0;
CREATE INDEX account_without_sha256 ON account (owner) WHERE length(sha256_stored_key) = 0;
