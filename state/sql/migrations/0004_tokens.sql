-- Tokens of remote people and of CI. What is kept of one is its SHA-256: 256 random bits cannot be searched, so a slow hash would
-- protect nothing more. A token in use has its name alone; one that was revoked keeps its row, and leaves the name to the next.
CREATE TABLE tokens (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  name          TEXT    NOT NULL CHECK (name <> ''),
  hash          BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32),
  person        TEXT    NOT NULL CHECK (person <> ''),             -- of the estate; what they may is looked up at each use
  roles         TEXT    NOT NULL,        -- a JSON list, sorted
  sites         TEXT,                 -- a JSON list, sorted; NULL: every site
  created_at    INTEGER NOT NULL,
  created_by    TEXT    NOT NULL CHECK (created_by <> ''),
  expires_at    INTEGER NOT NULL,
  last_used_at  INTEGER,                                           -- to the minute
  revoked_at    INTEGER,
  revoked_by    TEXT,
  revoke_reason TEXT,
  CHECK (expires_at > created_at AND expires_at <= created_at + 31536000000),  -- at most 365 days
  CHECK ((revoked_at IS NULL) = (revoked_by IS NULL) AND (revoked_at IS NULL) = (revoke_reason IS NULL))
) STRICT;

CREATE UNIQUE INDEX tokens_not_revoked ON tokens (name) WHERE revoked_at IS NULL;
