-- A store that begins again gathers what its former life had: from every agent that it knew.

ALTER TABLE life ADD COLUMN gathering INTEGER NOT NULL DEFAULT 0 CHECK (gathering IN (0, 1));
ALTER TABLE life ADD COLUMN last_event INTEGER NOT NULL DEFAULT 0;  -- the last that the store had when this life began

-- The life of ours in which the peer has given back what it had of the one before, or a person waived it; and up to which marks
-- of its streams it has to hand over until then, as JSON.
ALTER TABLE peers ADD COLUMN answered INTEGER NOT NULL DEFAULT 0;
ALTER TABLE peers ADD COLUMN promised TEXT;

-- Up to here the peer may have had a stream in a life that ended.
ALTER TABLE streams_out ADD COLUMN again_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE unapplied ADD COLUMN is_again INTEGER NOT NULL DEFAULT 0 CHECK (is_again IN (0, 1));

-- How far a stream had come when the newest event here was `event_seq`: where what a peer has lost is looked for.
CREATE TABLE arrivals (
  peer_id   INTEGER NOT NULL REFERENCES peers (id),
  epoch     INTEGER NOT NULL,
  tier      INTEGER NOT NULL,
  seq       INTEGER NOT NULL,
  event_seq INTEGER NOT NULL,
  PRIMARY KEY (peer_id, epoch, tier, seq)
) STRICT, WITHOUT ROWID;

-- By which tier an order domain was sent to a peer last, and up to where: with another tier it waits for what is under way.
CREATE TABLE stream_domains (
  peer_id INTEGER NOT NULL REFERENCES peers (id),
  domain  TEXT    NOT NULL,
  tier    INTEGER NOT NULL CHECK (tier BETWEEN 1 AND 3),
  seq     INTEGER NOT NULL,
  PRIMARY KEY (peer_id, domain)
) STRICT, WITHOUT ROWID;
