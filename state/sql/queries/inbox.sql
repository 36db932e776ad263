-- :name list_after
-- What was added since.
SELECT seq FROM events WHERE seq > ?;

-- :name last_seq
-- The last number given; AUTOINCREMENT keeps it even when the row is gone.
SELECT seq FROM sqlite_sequence WHERE name = 'events';

-- :name add
-- One that was taken in before is left as it is.
INSERT INTO events (seq, id, origin_id, subject, partition_key, time, recorded_at, correlation_id, causation_id, traceparent,
                    raw_id, place, extensions, data)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING;

-- :name add_raw
INSERT INTO raw_documents (sha256, name, size, content, received_at) VALUES (?, ?, ?, ?, ?) RETURNING id;

-- :name find_raw
SELECT id FROM raw_documents WHERE sha256 = ?;

-- :name get_event
SELECT ev.seq, ev.id, ev.subject, ev.partition_key, ev.time, ev.recorded_at, ev.correlation_id, ev.causation_id,
       ev.traceparent, ev.place, ev.extensions, ev.data, ev.origin_id, r.sha256
  FROM events ev
  LEFT JOIN raw_documents r ON r.id = ev.raw_id
 WHERE ev.seq = ?;
