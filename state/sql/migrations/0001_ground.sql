-- The ground floor: events, what is owed to whom, what was set aside, and who did what.
--
-- Instants are milliseconds since 1970-01-01 UTC, unless a column says that it keeps the text with its offset. Names that repeat
-- on every event are kept once in `origins`. Local ids only rise (AUTOINCREMENT), so that an id is never used twice. What every
-- delivery writes is checked by OR: for an IN of more than two, SQLite builds a table anew for each row that is written.

-- Every estate that was ever in force. An event is routed by the one it carries, whatever came after.
CREATE TABLE estates (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  hash        TEXT    NOT NULL UNIQUE CHECK (length(hash) = 32),
  document    BLOB    NOT NULL,                                    -- canonical JSON of state.model.estate.Estate
  in_force_at INTEGER NOT NULL,                                    -- when it last came into force
  adoption    INTEGER NOT NULL                                     -- rises each time; the highest is the last in force
) STRICT;

-- Where events come from: one row for each source, flow, contract and estate.
CREATE TABLE origins (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  site        TEXT    NOT NULL,
  system      TEXT    NOT NULL,
  flow        TEXT    NOT NULL,
  contract    TEXT    NOT NULL,
  op          TEXT    NOT NULL CHECK (op IN ('snapshot', 'delta', 'command', 'ack', 'correction')),
  environment TEXT    NOT NULL CHECK (environment IN ('test', 'production')),
  estate_id   INTEGER NOT NULL REFERENCES estates (id),
  UNIQUE (site, system, flow, contract, op, environment, estate_id)
) STRICT;

-- Documents as they arrived. One too large to hold lies in the archive folder under its hash and has no content here.
CREATE TABLE raw_documents (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  sha256      BLOB    NOT NULL UNIQUE CHECK (length(sha256) = 32),
  name        TEXT    NOT NULL,
  size        INTEGER NOT NULL,
  content     BLOB,
  received_at INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
  seq            INTEGER PRIMARY KEY AUTOINCREMENT,
  id             BLOB    NOT NULL UNIQUE CHECK (length(id) = 16),  -- taking in the same event again changes nothing
  origin_id      INTEGER NOT NULL REFERENCES origins (id),
  subject        TEXT    NOT NULL CHECK (subject <> ''),
  partition_key  TEXT    NOT NULL,
  time           TEXT    NOT NULL,                                 -- with its offset, as the source said it
  recorded_at    INTEGER NOT NULL,
  correlation_id BLOB,                                             -- NULL: the event begins its chain
  causation_id   BLOB,
  traceparent    TEXT    NOT NULL DEFAULT '',
  raw_id         INTEGER REFERENCES raw_documents (id),
  place          TEXT    NOT NULL DEFAULT '',
  extensions     TEXT,
  data           BLOB    NOT NULL
) STRICT;

-- Which events speak of a business key. Those with `is_subject` are the documents: the last one is the latest of its key.
CREATE TABLE trace (
  key        TEXT    NOT NULL,
  entity     TEXT    NOT NULL,
  is_subject INTEGER NOT NULL CHECK (is_subject IN (0, 1)),
  event_seq  INTEGER NOT NULL REFERENCES events (seq),
  PRIMARY KEY (key, entity, is_subject, event_seq)
) STRICT, WITHOUT ROWID;

-- Systems that we deliver to. An outage opens the breaker, which parks nothing.
CREATE TABLE targets (
  id              INTEGER PRIMARY KEY AUTOINCREMENT,
  name            TEXT    NOT NULL UNIQUE,                         -- site/system
  breaker         TEXT    NOT NULL DEFAULT 'closed' CHECK (breaker IN ('closed', 'open')),
  breaker_reason  TEXT    NOT NULL DEFAULT '',
  retry_at        INTEGER,                                         -- when an open breaker lets the next call try
  failures        INTEGER NOT NULL DEFAULT 0,                      -- calls in a row that did not get through
  last_success_at INTEGER,
  CHECK ((breaker = 'open') = (retry_at IS NOT NULL))
) STRICT;

-- A leg of a flow. The counters move with their rows, in one transaction.
CREATE TABLE lanes (
  id           INTEGER PRIMARY KEY AUTOINCREMENT,
  flow         TEXT    NOT NULL,
  target_id    INTEGER NOT NULL REFERENCES targets (id),
  tier         INTEGER NOT NULL CHECK (tier BETWEEN 1 AND 3),
  order_mode   TEXT    NOT NULL CHECK (order_mode IN ('strict', 'latest', 'any')),
  order_domain TEXT    NOT NULL,
  shadow_of    TEXT,                                               -- compared with that target, never counted
  state        TEXT    NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'held', 'frozen')),
  pending      INTEGER NOT NULL DEFAULT 0 CHECK (pending >= 0),
  inflight     INTEGER NOT NULL DEFAULT 0 CHECK (inflight >= 0),
  in_doubt     INTEGER NOT NULL DEFAULT 0 CHECK (in_doubt >= 0),
  delayed      INTEGER NOT NULL DEFAULT 0 CHECK (delayed >= 0),
  parked       INTEGER NOT NULL DEFAULT 0 CHECK (parked >= 0),
  delivered    INTEGER NOT NULL DEFAULT 0 CHECK (delivered >= 0),
  superseded   INTEGER NOT NULL DEFAULT 0 CHECK (superseded >= 0),
  discarded    INTEGER NOT NULL DEFAULT 0 CHECK (discarded >= 0),
  alike        INTEGER NOT NULL DEFAULT 0,                         -- of a shadow: the same as what it shadows
  different    INTEGER NOT NULL DEFAULT 0,
  UNIQUE (flow, target_id)
) STRICT;

-- One row for each (target, order domain, partition key) with unsettled work: its head and when that is due. The row goes when
-- the last delivery is settled, so a claim looks at work and never at history.
CREATE TABLE key_queues (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  target_id     INTEGER NOT NULL REFERENCES targets (id),
  order_domain  TEXT    NOT NULL,
  partition_key TEXT    NOT NULL,
  lane_id       INTEGER NOT NULL REFERENCES lanes (id),            -- of the head
  head          INTEGER NOT NULL,                                  -- a delivery
  state         TEXT    NOT NULL CHECK (state = 'due' OR state = 'inflight' OR state = 'blocked'),
  due_at        INTEGER NOT NULL,
  UNIQUE (target_id, order_domain, partition_key)
) STRICT;

CREATE INDEX key_queues_due ON key_queues (lane_id, due_at, head) WHERE state = 'due';

-- One event owed to one target; the outbox. States and their meaning: state.model.delivery.DeliveryState.
CREATE TABLE deliveries (
  id              INTEGER PRIMARY KEY AUTOINCREMENT,
  event_seq       INTEGER NOT NULL REFERENCES events (seq),
  lane_id         INTEGER NOT NULL REFERENCES lanes (id),
  key_id          INTEGER NOT NULL,                                -- of key_queues, which may be gone once all is settled
  is_snapshot     INTEGER NOT NULL CHECK (is_snapshot IN (0, 1)),
  state           TEXT    NOT NULL DEFAULT 'pending' CHECK
                    (state = 'pending' OR state = 'inflight' OR state = 'delivered' OR state = 'in_doubt' OR state = 'delayed' OR
                     state = 'parked' OR state = 'superseded' OR state = 'discarded'),
  due_at          INTEGER,                                         -- NULL: waits for a person, or settled
  version         INTEGER NOT NULL DEFAULT 1,
  fence           INTEGER,
  attempts        INTEGER NOT NULL DEFAULT 0,
  failures        INTEGER NOT NULL DEFAULT 0,                      -- attempts that count against the budget
  idempotency_key BLOB             CHECK (idempotency_key IS NULL OR length(idempotency_key) = 16),
  payload         BLOB,                                            -- frozen at the first attempt; NULL: the event's data
  first_sent_at   INTEGER,                                         -- no call left before; the target's memory counts from here
  last_sent_at    INTEGER,                                         -- no call leaves after, until the next attempt
  last_denied_at  INTEGER,                                         -- a probe that counted found nothing
  settled_at      INTEGER,
  outcome         TEXT             CHECK (outcome = 'accepted' OR outcome = 'modified' OR outcome = 'delayed' OR
                                          outcome = 'rejected' OR outcome = 'in_doubt'),
  reference       TEXT    NOT NULL DEFAULT '',                     -- the target's own number
  detail          TEXT    NOT NULL DEFAULT '',
  is_alike        INTEGER          CHECK (is_alike IN (0, 1)),     -- of a shadow
  CHECK ((state = 'inflight') = (fence IS NOT NULL)),
  CHECK ((state = 'delivered' OR state = 'superseded' OR state = 'discarded') = (settled_at IS NOT NULL)),
  CHECK (state <> 'inflight' OR idempotency_key IS NOT NULL)
) STRICT;

CREATE INDEX deliveries_by_event ON deliveries (event_seq);
CREATE INDEX deliveries_unsettled ON deliveries (key_id, id) WHERE settled_at IS NULL;
CREATE INDEX deliveries_in_doubt ON deliveries (lane_id, id) WHERE state = 'in_doubt';
CREATE UNIQUE INDEX deliveries_one_in_flight ON deliveries (key_id) WHERE state = 'inflight';

-- What went other than well: each try that was not accepted at once, with the evidence.
CREATE TABLE attempts (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  delivery_id INTEGER NOT NULL REFERENCES deliveries (id),
  number      INTEGER NOT NULL,
  verdict     TEXT    NOT NULL CHECK (verdict IN ('send', 'resend', 'probe')),
  ended_at    INTEGER NOT NULL,
  result      TEXT    NOT NULL,                                    -- the state it led to
  code        TEXT    NOT NULL,
  detail      TEXT    NOT NULL,
  document    BLOB
) STRICT;

CREATE INDEX attempts_by_delivery ON attempts (delivery_id, id);

-- A delivery or a raw record that was set aside, with its cause and what to do.
CREATE TABLE dead_letters (
  id          INTEGER PRIMARY KEY AUTOINCREMENT,
  kind        TEXT    NOT NULL CHECK (kind IN ('record', 'delivery')),
  record_id   BLOB    UNIQUE CHECK (record_id IS NULL OR length(record_id) = 16),  -- reading again sets aside once
  delivery_id INTEGER REFERENCES deliveries (id),
  site        TEXT    NOT NULL,
  system      TEXT    NOT NULL,                                    -- the source of a record, the target of a delivery
  flow        TEXT    NOT NULL,
  subject     TEXT    NOT NULL DEFAULT '',
  place       TEXT    NOT NULL,
  field       TEXT    NOT NULL DEFAULT '',
  rule        TEXT    NOT NULL,
  code        TEXT    NOT NULL,
  shown       TEXT    NOT NULL DEFAULT '',
  message     TEXT    NOT NULL,
  hint        TEXT    NOT NULL,
  raw         BLOB    NOT NULL,                                    -- the record, or the payload that was refused
  raw_id      INTEGER REFERENCES raw_documents (id),
  state       TEXT    NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'superseded', 'discarded')),
  parked_at   INTEGER NOT NULL,
  closed_at   INTEGER,
  CHECK ((kind = 'delivery') = (delivery_id IS NOT NULL)),
  CHECK ((kind = 'record') = (record_id IS NOT NULL)),
  CHECK ((state = 'open') = (closed_at IS NULL))
) STRICT;

CREATE UNIQUE INDEX dead_letters_one_open ON dead_letters (delivery_id) WHERE state = 'open' AND delivery_id IS NOT NULL;
CREATE INDEX dead_letters_open ON dead_letters (id) WHERE state = 'open';
CREATE INDEX dead_letters_open_of_flow ON dead_letters (flow, id) WHERE state = 'open';

-- What a source remembers, committed with the events it led to.
CREATE TABLE sources (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  name          TEXT    NOT NULL UNIQUE,                           -- flow@site/system
  checkpoint    BLOB,
  records       INTEGER NOT NULL DEFAULT 0,
  unreadable    INTEGER NOT NULL DEFAULT 0,
  last_batch_at INTEGER
) STRICT;

CREATE TABLE source_memory (
  source_id     INTEGER NOT NULL REFERENCES sources (id),
  item          BLOB    NOT NULL,                                  -- hash of what the source named
  remembered_at INTEGER NOT NULL,
  PRIMARY KEY (source_id, item)
) STRICT, WITHOUT ROWID;

-- Numbers that only rise.
CREATE TABLE counters (
  name  TEXT    PRIMARY KEY,
  value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counters (name, value) VALUES ('fence', 0), ('starts', 0);

-- Who did what to what, why, and what it was before: a hash chain without gaps. `hash` covers `previous_hash` and the canonical
-- JSON of every other column, so an edited, removed or inserted entry is named by `audit verify`; a cut tail shows by the heads
-- that other agents keep. The triggers stop accidents and our own bugs; the chain is there for everybody else.
CREATE TABLE audit (
  seq           INTEGER PRIMARY KEY AUTOINCREMENT,                 -- counts from 1 without gaps
  at_ms         INTEGER NOT NULL,
  actor         TEXT    NOT NULL CHECK (actor <> ''),              -- a person, a token or `agent`
  action        TEXT    NOT NULL CHECK (action <> ''),             -- an imperative: `replay`, `discard`, `hold`
  target        TEXT    NOT NULL,                                  -- what was touched: `delivery 17`, `lane po-to-erp/erp`
  reason        TEXT    NOT NULL,
  before_json   TEXT,
  after_json    TEXT,
  request_id    TEXT    NOT NULL,                                  -- ties the entry to the call that asked for it; '' for the agent's own
  details_json  TEXT    NOT NULL,
  previous_hash BLOB    NOT NULL CHECK (length(previous_hash) = 32),
  hash          BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE INDEX audit_by_target ON audit (target, seq);

CREATE TRIGGER audit_refuses_update BEFORE UPDATE ON audit
BEGIN
  SELECT RAISE(ABORT, 'the audit is append-only');
END;

CREATE TRIGGER audit_refuses_delete BEFORE DELETE ON audit
BEGIN
  SELECT RAISE(ABORT, 'the audit is append-only');
END;

-- REPLACE would delete without firing the trigger above, so an entry may only ever continue the chain.
CREATE TRIGGER audit_continues_the_chain BEFORE INSERT ON audit
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM audit)
  OR NEW.previous_hash IS NOT coalesce((SELECT hash FROM audit ORDER BY seq DESC LIMIT 1), zeroblob(32))
BEGIN
  SELECT RAISE(ABORT, 'an audit entry must continue the chain');
END;
