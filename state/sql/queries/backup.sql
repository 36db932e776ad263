-- :name begin_snapshot
-- The first read fixes what a transaction sees.
SELECT count(*) FROM sqlite_schema;

-- :name steps
SELECT coalesce(max(version), 0) FROM migrations;

-- :name has_table
SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?);

-- :name events
-- How many there are, and the last number given.
SELECT count(*), coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0) FROM events;

-- :name archived_documents
-- Those too large for the store.
SELECT lower(hex(sha256)) FROM raw_documents WHERE content IS NULL ORDER BY sha256;

-- :name received
-- What is here of the streams of others.
SELECT peer_id, epoch, tier, seq FROM streams_in;

-- :name miscounted_lanes
SELECT l.flow || ' to ' || t.name
  FROM lanes l
  JOIN targets t ON t.id = l.target_id
  LEFT JOIN (SELECT lane_id,
                    count(*) FILTER (WHERE state = 'pending') AS pending,
                    count(*) FILTER (WHERE state = 'inflight') AS inflight,
                    count(*) FILTER (WHERE state = 'in_doubt') AS in_doubt,
                    count(*) FILTER (WHERE state = 'delayed') AS delayed,
                    count(*) FILTER (WHERE state = 'parked') AS parked
               FROM deliveries
              WHERE settled_at IS NULL
              GROUP BY lane_id) c ON c.lane_id = l.id
 WHERE l.pending <> coalesce(c.pending, 0) OR l.inflight <> coalesce(c.inflight, 0) OR l.in_doubt <> coalesce(c.in_doubt, 0)
    OR l.delayed <> coalesce(c.delayed, 0) OR l.parked <> coalesce(c.parked, 0)
 LIMIT 10;

-- :name keys_without_head
-- Keys that point at nothing unsettled of theirs.
SELECT q.partition_key
  FROM key_queues q LEFT JOIN deliveries d ON d.id = q.head AND d.key_id = q.id AND d.settled_at IS NULL
 WHERE d.id IS NULL
 LIMIT 10;

-- :name deliveries_without_key
SELECT d.id
  FROM deliveries d LEFT JOIN key_queues q ON q.id = d.key_id
 WHERE d.settled_at IS NULL AND q.id IS NULL
 LIMIT 10;

-- :name note
INSERT INTO backups (name, folder, manifest, epoch, last_event, taken_at, verified_at) VALUES (?, ?, ?, ?, ?, ?, ?)
RETURNING id;

-- :name note_mark
INSERT INTO backup_marks (backup_id, peer_id, epoch, tier, seq) VALUES (?, ?, ?, ?, ?);

-- :name last
SELECT id, name, folder, manifest, epoch, last_event, taken_at, verified_at FROM backups ORDER BY id DESC LIMIT 1;
