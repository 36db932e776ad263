-- :name adopt
INSERT INTO estates (hash, document, in_force_at, adoption)
VALUES (?, ?, ?, (SELECT coalesce(max(adoption), 0) + 1 FROM estates))
ON CONFLICT (hash) DO UPDATE SET in_force_at = excluded.in_force_at, adoption = excluded.adoption;

-- :name keep
-- Of another agent: never in force here.
INSERT INTO estates (hash, document, in_force_at, adoption) VALUES (?, ?, 0, 0) ON CONFLICT (hash) DO NOTHING;

-- :name find
SELECT document FROM estates WHERE hash = ?;

-- :name last
SELECT hash FROM estates ORDER BY adoption DESC LIMIT 1;

-- :name of_lane
-- The estate that an unsettled delivery of a lane is routed by. It may stand behind the head of another lane of its order domain.
SELECT e.hash, e.document
  FROM lanes l
  JOIN key_queues q ON q.target_id = l.target_id AND q.order_domain = l.order_domain
  JOIN deliveries d ON d.key_id = q.id AND d.settled_at IS NULL AND d.lane_id = l.id
  JOIN events ev ON ev.seq = d.event_seq
  JOIN origins o ON o.id = ev.origin_id
  JOIN estates e ON e.id = o.estate_id
 WHERE l.id = ? AND l.pending + l.inflight + l.in_doubt + l.delayed + l.parked > 0
 LIMIT 1;
