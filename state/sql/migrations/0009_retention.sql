-- What was let go by the rule of retention (state.retention), and what of the streams lies beyond it.

-- Ids of events, and of records that were set aside, which are here no more. They stay for good: what is read or sent again is
-- known by its id, however late it comes.
CREATE TABLE let_go (
  id BLOB PRIMARY KEY CHECK (length(id) = 16)
) STRICT, WITHOUT ROWID;

-- Documents whose rows went, and whose files in the archive folder are to go.
CREATE TABLE files_let_go (
  sha256 BLOB PRIMARY KEY CHECK (length(sha256) = 32)
) STRICT, WITHOUT ROWID;

-- Up to here the items of a stream were let go: the chain there, with which it goes on, and when the event there was recorded.
ALTER TABLE streams_out ADD COLUMN let_go_seq   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE streams_out ADD COLUMN let_go_chain BLOB CHECK (let_go_chain IS NULL OR length(let_go_chain) = 32);
ALTER TABLE streams_out ADD COLUMN let_go_at    INTEGER;

-- What a receiver needed of a stream, and its sender held no more. Both keep it.
CREATE TABLE gaps (
  peer_id   INTEGER NOT NULL REFERENCES peers (id),
  is_ours   INTEGER NOT NULL CHECK (is_ours IN (0, 1)),            -- 1: of a stream of ours, which the peer needed
  epoch     INTEGER NOT NULL,                                      -- of the sender
  tier      INTEGER NOT NULL CHECK (tier BETWEEN 1 AND 3),
  first_seq INTEGER NOT NULL,
  last_seq  INTEGER NOT NULL CHECK (last_seq >= first_seq),
  since     INTEGER,                                               -- what came before it was recorded then; NULL: nothing did
  until     INTEGER NOT NULL,                                      -- when the last of it was recorded
  found_at  INTEGER NOT NULL,
  PRIMARY KEY (peer_id, is_ours, epoch, tier, first_seq)
) STRICT, WITHOUT ROWID;

-- What the hub's last verified backup holds of our streams, as it said, as JSON.
ALTER TABLE peers ADD COLUMN backed_up TEXT;

INSERT INTO counters (name, value) VALUES ('let_go', 0);

-- What refers to an event, a delivery or a document, so that one can be let go without a look at all the others.
CREATE INDEX trace_by_event ON trace (event_seq);
CREATE INDEX stream_items_by_event ON stream_items (event_seq);
CREATE INDEX events_by_raw ON events (raw_id) WHERE raw_id IS NOT NULL;
CREATE INDEX dead_letters_by_delivery ON dead_letters (delivery_id) WHERE delivery_id IS NOT NULL;
CREATE INDEX dead_letters_by_raw ON dead_letters (raw_id) WHERE raw_id IS NOT NULL;
CREATE INDEX dead_letters_closed ON dead_letters (closed_at) WHERE closed_at IS NOT NULL;
