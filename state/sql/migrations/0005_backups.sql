-- Backups of this store that were verified and published. What is behind the last one exists here alone.
CREATE TABLE backups (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  name        TEXT    NOT NULL,
  folder      TEXT    NOT NULL,                                    -- where it was published
  manifest    BLOB    NOT NULL CHECK (length(manifest) = 32),      -- SHA-256
  epoch       INTEGER NOT NULL,                                    -- of this store, when it was taken
  last_event  INTEGER NOT NULL,                                    -- it has every event up to this number
  taken_at    INTEGER NOT NULL,
  verified_at INTEGER NOT NULL
) STRICT;

-- How far a backup has what came from other agents: they may let go what is verified here.
CREATE TABLE backup_marks (
  backup_id INTEGER NOT NULL REFERENCES backups (id),
  peer_id   INTEGER NOT NULL REFERENCES peers (id),
  epoch     INTEGER NOT NULL,
  tier      INTEGER NOT NULL,
  seq       INTEGER NOT NULL,
  PRIMARY KEY (backup_id, peer_id, epoch, tier)
) STRICT, WITHOUT ROWID;
