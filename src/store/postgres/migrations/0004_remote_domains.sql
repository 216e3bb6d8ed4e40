-- An owner without a local part is a remote domain: its rows in log, none of them archived, wait to be sent there, and it
-- has no account. Which domains have such rows is found among the few addresses that are domains; an older program keeps
-- this index without knowing of it, and never looks at those rows.
CREATE INDEX jid_domain ON jid (text) WHERE strpos(text, '@') = 0;
