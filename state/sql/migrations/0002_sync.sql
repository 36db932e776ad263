-- Sites in step: whose store this is, and the streams between it and other agents.

-- Whose store this is, and which life of it; one row. A restore or an adoption begins the next epoch.
CREATE TABLE life (
  id       INTEGER PRIMARY KEY CHECK (id = 1),
  site     TEXT    NOT NULL,
  epoch    INTEGER NOT NULL CHECK (epoch >= 1),
  began_at INTEGER NOT NULL,
  fenced   TEXT    NOT NULL DEFAULT ''                             -- why this store may not go on; '' where it may
) STRICT;

-- Other agents: the hub at a site, the sites at a hub.
CREATE TABLE peers (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  site          TEXT    NOT NULL UNIQUE,
  epoch         INTEGER NOT NULL DEFAULT 0,                        -- the newest life of theirs that we know
  state         TEXT    NOT NULL DEFAULT 'open' CHECK (state = 'open' OR state = 'fenced' OR state = 'adopting'),
  reason        TEXT    NOT NULL DEFAULT '',                       -- why nothing is exchanged
  detail        TEXT    NOT NULL DEFAULT '',
  nonce         TEXT    NOT NULL DEFAULT '',                       -- issued last, to us or by us
  nonce_before  TEXT    NOT NULL DEFAULT '',                       -- the one that it replaced
  attempt       TEXT    NOT NULL DEFAULT '',                       -- ours for `nonce`; at a hub, theirs for `nonce_before`
  heard_at      INTEGER,
  said          TEXT    NOT NULL DEFAULT '{}',                     -- what it last said of itself, as JSON
  CHECK ((state = 'fenced') = (reason <> ''))
) STRICT;

-- Streams to others: where each ends, which moves in the transaction that admits the event, and what they have of it.
CREATE TABLE streams_out (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  peer_id     INTEGER NOT NULL REFERENCES peers (id),
  epoch       INTEGER NOT NULL,
  tier        INTEGER NOT NULL CHECK (tier BETWEEN 1 AND 3),
  seq         INTEGER NOT NULL DEFAULT 0,
  chain       BLOB    NOT NULL DEFAULT (zeroblob(32)) CHECK (length(chain) = 32),
  acked_seq   INTEGER NOT NULL DEFAULT 0 CHECK (acked_seq <= seq),
  UNIQUE (peer_id, epoch, tier)
) STRICT;

CREATE TABLE stream_items (
  stream_id INTEGER NOT NULL REFERENCES streams_out (id),
  seq       INTEGER NOT NULL,
  event_seq INTEGER NOT NULL REFERENCES events (seq),
  chain     BLOB    NOT NULL CHECK (length(chain) = 32),
  PRIMARY KEY (stream_id, seq)
) STRICT, WITHOUT ROWID;

-- Streams from others: what is here, moved in the transaction that takes the events in.
CREATE TABLE streams_in (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  peer_id INTEGER NOT NULL REFERENCES peers (id),
  epoch   INTEGER NOT NULL,
  tier    INTEGER NOT NULL CHECK (tier BETWEEN 1 AND 3),
  seq     INTEGER NOT NULL,
  chain   BLOB    NOT NULL CHECK (length(chain) = 32),
  UNIQUE (peer_id, epoch, tier)
) STRICT;

-- Events that came and cannot be taken in yet: they wait for their estate, or behind one of their key that waits.
CREATE TABLE unapplied (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  event_id      BLOB    NOT NULL UNIQUE CHECK (length(event_id) = 16),
  peer_id       INTEGER NOT NULL REFERENCES peers (id),
  tier          INTEGER NOT NULL,
  flow          TEXT    NOT NULL,
  partition_key TEXT    NOT NULL,
  estate        TEXT    NOT NULL,
  attributes    BLOB    NOT NULL,                                  -- as JSON, as they came
  data          BLOB    NOT NULL,
  code          TEXT    NOT NULL,
  detail        TEXT    NOT NULL,
  received_at   INTEGER NOT NULL
) STRICT;

CREATE INDEX unapplied_by_key ON unapplied (flow, partition_key, id);

-- The hash of the raw document of an event that was read elsewhere, where that document is.
ALTER TABLE events ADD COLUMN raw_elsewhere BLOB CHECK (raw_elsewhere IS NULL OR length(raw_elsewhere) = 32);
