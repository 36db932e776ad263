-- :name ensure
-- The delivery given becomes the head where its key has nothing unsettled.
INSERT INTO key_queues (target_id, order_domain, partition_key, lane_id, head, state, due_at)
VALUES (?, ?, ?, ?, ?, 'due', ?)
ON CONFLICT (target_id, order_domain, partition_key) DO NOTHING;

-- :name of_delivery
SELECT q.id, q.head FROM deliveries d JOIN key_queues q ON q.id = d.key_id WHERE d.id = ?;

-- :name state
SELECT state, due_at FROM key_queues WHERE id = ?;

-- :name claim
UPDATE key_queues SET state = 'inflight' WHERE id = ?;

-- :name remove
-- Where nothing is left.
DELETE FROM key_queues
 WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE key_id = ?1 AND settled_at IS NULL);

-- :name advance
-- To the oldest. What was never tried waits for nothing, whatever the clock said when it came.
UPDATE key_queues
   SET (lane_id, head, state, due_at) =
       (SELECT lane_id, id, iif(due_at IS NULL, 'blocked', 'due'),
               coalesce(iif(state = 'pending' AND attempts = 0, min(due_at, ?2), due_at), 0)
          FROM deliveries
         WHERE key_id = ?1 AND settled_at IS NULL
         ORDER BY id
         LIMIT 1)
 WHERE id = ?1;

-- :name advance_in_any_order
-- To the first that is due: it is met soon, since few of a key stand aside or wait for their time. Where none is due, to the
-- soonest, past what is parked or waits for a person.
UPDATE key_queues
   SET (lane_id, head, state, due_at) =
       (SELECT lane_id, id, iif(due_at IS NULL, 'blocked', 'due'),
               coalesce(iif(state = 'pending' AND attempts = 0, min(due_at, ?2), due_at), 0)
          FROM deliveries
         WHERE id = coalesce(
               (SELECT id FROM deliveries WHERE key_id = ?1 AND settled_at IS NULL AND due_at <= ?2 ORDER BY id LIMIT 1),
               (SELECT id FROM deliveries WHERE key_id = ?1 AND settled_at IS NULL AND due_at > ?2 ORDER BY due_at, id LIMIT 1),
               (SELECT id FROM deliveries WHERE key_id = ?1 AND settled_at IS NULL ORDER BY id LIMIT 1)))
 WHERE id = ?1;

-- :name bring_near
-- What was never tried, and what waits beyond the longest pause. Lane by lane, by index.
UPDATE key_queues
   SET due_at = :now
 WHERE lane_id IN (SELECT id FROM lanes) AND state = 'due' AND due_at > :now
   AND (due_at > :longest
        OR EXISTS (SELECT 1 FROM deliveries WHERE id = key_queues.head AND state = 'pending' AND attempts = 0));

-- :name move_heads
UPDATE deliveries
   SET due_at = max(:now, due_at - :back)
 WHERE id IN (SELECT head FROM key_queues WHERE lane_id IN (SELECT id FROM lanes) AND state = 'due' AND due_at > :now);

-- :name move
UPDATE key_queues
   SET due_at = max(:now, due_at - :back)
 WHERE lane_id IN (SELECT id FROM lanes) AND state = 'due' AND due_at > :now;
