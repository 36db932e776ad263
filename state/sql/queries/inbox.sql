-- :name list_after
SELECT seq FROM events WHERE seq > ?;

-- :name last_seq
-- The last number given; AUTOINCREMENT keeps it even when the row is gone.
SELECT seq FROM sqlite_sequence WHERE name = 'events';

-- :name add
INSERT INTO events (seq, id, origin_id, subject, partition_key, time, recorded_at, correlation_id, causation_id, traceparent,
                    raw_id, place, extensions, data)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING;

-- :name find_origin
SELECT o.id
  FROM origins o JOIN estates e ON e.id = o.estate_id
 WHERE o.site = ? AND o.system = ? AND o.flow = ? AND o.contract = ? AND o.op = ? AND o.environment = ? AND e.hash = ?;

-- :name add_origin
INSERT INTO origins (site, system, flow, contract, op, environment, estate_id)
SELECT ?, ?, ?, ?, ?, ?, e.id FROM estates e WHERE e.hash = ?
RETURNING id;

-- :name add_raw
INSERT INTO raw_documents (sha256, name, size, content, received_at) VALUES (?, ?, ?, ?, ?) RETURNING id;

-- :name find_raw
SELECT id FROM raw_documents WHERE sha256 = ?;

-- :name get_event
SELECT ev.seq, ev.id, ev.subject, ev.partition_key, ev.time, ev.recorded_at, ev.correlation_id, ev.causation_id,
       ev.traceparent, ev.place, ev.extensions, ev.data, o.site, o.system, o.flow, o.contract, o.op, o.environment, e.hash,
       r.sha256
  FROM events ev
  JOIN origins o ON o.id = ev.origin_id
  JOIN estates e ON e.id = o.estate_id
  LEFT JOIN raw_documents r ON r.id = ev.raw_id
 WHERE ev.seq = ?;
