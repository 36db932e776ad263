-- :name ensure
-- The key's row, whose head is the delivery given where the key had nothing unsettled.
INSERT INTO key_queues (target_id, order_domain, partition_key, lane_id, head, state, due_at)
VALUES (?, ?, ?, ?, ?, 'due', ?)
ON CONFLICT (target_id, order_domain, partition_key) DO UPDATE SET due_at = due_at
RETURNING id, head;

-- :name state
SELECT state, due_at FROM key_queues WHERE id = ?;

-- :name claim
UPDATE key_queues SET state = 'inflight' WHERE id = ?;

-- :name next_in_order
SELECT id, lane_id, due_at FROM deliveries WHERE key_id = ? AND settled_at IS NULL ORDER BY id LIMIT 1;

-- :name first_due
-- In any order: the first that is due. It is met soon, since few of a key stand aside or wait for their time.
SELECT id, lane_id, due_at
  FROM deliveries
 WHERE key_id = ? AND settled_at IS NULL AND due_at <= ?
 ORDER BY id
 LIMIT 1;

-- :name soonest
-- In any order, where none is due: what is parked or waits for a person stands aside.
SELECT id, lane_id, due_at
  FROM deliveries
 WHERE key_id = ? AND settled_at IS NULL AND due_at IS NOT NULL
 ORDER BY due_at, id
 LIMIT 1;

-- :name advance
UPDATE key_queues SET lane_id = ?, head = ?, state = ?, due_at = ? WHERE id = ?;

-- :name remove
DELETE FROM key_queues WHERE id = ?;

-- :name nearer_due
-- A wall clock that went back leaves dues in a far future; nothing waits longer than the longest pause. Lane by lane, by index.
UPDATE key_queues SET due_at = ?1 WHERE lane_id IN (SELECT id FROM lanes) AND state = 'due' AND due_at > ?2;
