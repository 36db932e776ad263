-- What others hold of this store's audit, and this store of theirs.

-- The heads that two agents told each other last, one row a peer.
CREATE TABLE audit_heads (
  site      TEXT    PRIMARY KEY,
  epoch     INTEGER NOT NULL DEFAULT 0,                            -- the life of theirs in which they told it; 0: they never did
  seq       INTEGER NOT NULL DEFAULT 0,                            -- of their audit
  hash      BLOB    NOT NULL DEFAULT (zeroblob(32)) CHECK (length(hash) = 32),
  heard_at  INTEGER,
  held_seq  INTEGER NOT NULL DEFAULT 0,                            -- of ours, as they know it
  held_hash BLOB    NOT NULL DEFAULT (zeroblob(32)) CHECK (length(held_hash) = 32)
) STRICT, WITHOUT ROWID;

-- Where an audit does not go on as it was known.
CREATE TABLE audit_breaks (
  id             INTEGER PRIMARY KEY AUTOINCREMENT,
  site           TEXT    NOT NULL,                                 -- whose audit
  witness        TEXT    NOT NULL,                                 -- whose agent knew it otherwise
  kind           TEXT    NOT NULL CHECK (kind IN ('restored', 'cut', 'rewritten', 'damaged')),
  epoch          INTEGER NOT NULL,                                 -- the life in which it was noticed
  known_seq      INTEGER NOT NULL,                                 -- how far it was known
  known_hash     BLOB    NOT NULL CHECK (length(known_hash) = 32),
  after_seq      INTEGER NOT NULL,                                 -- the last entry of both, as far as is known by now
  found_seq      INTEGER NOT NULL,                                 -- where it ended, or was damaged, when this was noticed
  noticed_at     INTEGER NOT NULL,
  settled_at     INTEGER,
  settled_by     TEXT,
  settled_reason TEXT,
  CHECK ((settled_at IS NULL) = (settled_by IS NULL) AND (settled_at IS NULL) = (settled_reason IS NULL))
) STRICT;

CREATE INDEX audit_breaks_by_site ON audit_breaks (site, witness, known_seq);

-- Entries of other audits, as they were written there; and of this one, those that it lost and another agent gave back.
CREATE TABLE audit_copies (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  site          TEXT    NOT NULL,
  break_id      INTEGER NOT NULL DEFAULT 0,                        -- it lies beyond that break; 0: on the chain as it is now
  seq           INTEGER NOT NULL,
  at_ms         INTEGER NOT NULL,
  actor         TEXT    NOT NULL,
  action        TEXT    NOT NULL,
  target        TEXT    NOT NULL,
  reason        TEXT    NOT NULL,
  before_json   TEXT,
  after_json    TEXT,
  request_id    TEXT    NOT NULL,
  details_json  TEXT    NOT NULL,
  previous_hash BLOB    NOT NULL CHECK (length(previous_hash) = 32),
  hash          BLOB    NOT NULL CHECK (length(hash) = 32),
  UNIQUE (site, break_id, seq)
) STRICT;
