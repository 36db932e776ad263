-- :name adopt
INSERT INTO estates (hash, document, in_force_at) VALUES (?, ?, ?)
ON CONFLICT (hash) DO UPDATE SET in_force_at = excluded.in_force_at;

-- :name find
SELECT document FROM estates WHERE hash = ?;

-- :name last
SELECT hash FROM estates ORDER BY in_force_at DESC, id DESC LIMIT 1;

-- :name of_lane
-- The estate that the first unsettled delivery of a lane is routed by.
SELECT e.document
  FROM key_queues q
  JOIN deliveries d ON d.id = q.head
  JOIN events ev ON ev.seq = d.event_seq
  JOIN origins o ON o.id = ev.origin_id
  JOIN estates e ON e.id = o.estate_id
 WHERE q.lane_id = ?
 LIMIT 1;
