-- :name list_known
-- Of ids that stand one after another, 16 bytes each, those that were taken in before, also where they were let go since, and
-- where each arose; NULL where nobody knows any more.
WITH RECURSIVE given (at) AS
     (SELECT 1 WHERE length(?1) > 0 UNION ALL SELECT at + 16 FROM given WHERE at + 16 <= length(?1))
SELECT substr(?1, at, 16), o.site
  FROM given
  LEFT JOIN events ev ON ev.id = substr(?1, at, 16)
  LEFT JOIN let_go gone ON gone.id = substr(?1, at, 16)
  LEFT JOIN origins o ON o.id = coalesce(ev.origin_id, gone.origin_id)
 WHERE ev.seq IS NOT NULL OR gone.id IS NOT NULL;

-- :name last_seq
-- The last number given; AUTOINCREMENT keeps it even when the row is gone.
SELECT seq FROM sqlite_sequence WHERE name = 'events';

-- :name add
INSERT INTO events (seq, id, origin_id, subject, partition_key, time, recorded_at, correlation_id, causation_id, traceparent,
                    raw_id, place, extensions, data, raw_elsewhere)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- :name add_raw
INSERT INTO raw_documents (sha256, name, size, content, received_at) VALUES (?, ?, ?, ?, ?) RETURNING id;

-- :name find_raw
SELECT id FROM raw_documents WHERE sha256 = ?;

-- :name get_event
SELECT ev.seq, ev.id, ev.subject, ev.partition_key, ev.time, ev.recorded_at, ev.correlation_id, ev.causation_id,
       ev.traceparent, ev.place, ev.extensions, ev.data, ev.origin_id, coalesce(r.sha256, ev.raw_elsewhere)
  FROM events ev
  LEFT JOIN raw_documents r ON r.id = ev.raw_id
 WHERE ev.seq = ?;

-- :name site_of
SELECT o.site FROM events ev JOIN origins o ON o.id = ev.origin_id WHERE ev.id = ?;
