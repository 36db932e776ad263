-- Identity of agents: the hub's authority, who was invited, which identity stands for a site, and who is denied.

-- Whose certificates this hub issues, one row: a hub that lost its `ca` folder must not begin another one unasked.
CREATE TABLE authority (
  id          INTEGER PRIMARY KEY CHECK (id = 1),
  fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),   -- SHA-256 of its certificate
  known_since INTEGER NOT NULL
) STRICT;

-- Invitations, each for one enrolment. The secret itself is nowhere.
CREATE TABLE invitations (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  secret_hash  BLOB    NOT NULL UNIQUE CHECK (length(secret_hash) = 32),
  site         TEXT    NOT NULL,
  invited_at   INTEGER NOT NULL,
  expires_at   INTEGER NOT NULL,
  withdrawn_at INTEGER,                                            -- the site was denied before it was used
  used_at      INTEGER,
  key_hash     BLOB    CHECK (key_hash IS NULL OR length(key_hash) = 32),  -- of the public key that used it
  certificate  BLOB,                                               -- what it got: a lost reply is given again
  CHECK (expires_at > invited_at),
  CHECK (withdrawn_at IS NULL OR used_at IS NULL),
  CHECK ((used_at IS NULL) = (key_hash IS NULL) AND (used_at IS NULL) = (certificate IS NULL))
) STRICT;

-- The identity that stands for a site. One is known by the moment of its enrolment, which its certificates carry and renewals keep.
CREATE TABLE identities (
  site          TEXT    PRIMARY KEY,
  enrolled_at   INTEGER NOT NULL,                                  -- those enrolled before are replaced; 0: none is known
  certificate   BLOB,                                              -- the newest, DER
  denied_until  INTEGER NOT NULL DEFAULT 0,                        -- those enrolled up to then are denied; 0: none
  denied_reason TEXT    NOT NULL DEFAULT '',
  CHECK ((enrolled_at = 0) = (certificate IS NULL)),
  CHECK ((denied_until = 0) = (denied_reason = ''))
) STRICT, WITHOUT ROWID;
