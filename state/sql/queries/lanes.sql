-- :name ensure_target
INSERT INTO targets (name) VALUES (?) ON CONFLICT (name) DO NOTHING;

-- :name ensure
INSERT INTO lanes (flow, target_id, tier, order_mode, order_domain, shadow_of)
SELECT ?, t.id, ?, ?, ?, ? FROM targets t WHERE t.name = ?
ON CONFLICT (flow, target_id) DO UPDATE
   SET tier = excluded.tier, order_mode = excluded.order_mode, shadow_of = excluded.shadow_of;

-- :name list
SELECT l.id, l.flow, t.name, t.id, l.tier, l.order_mode, l.order_domain, l.shadow_of
  FROM lanes l JOIN targets t ON t.id = l.target_id;

-- :name order_mode
SELECT order_mode FROM lanes WHERE id = ?;

-- :name is_due
-- Whether a lane has a key to work on, at this moment.
SELECT EXISTS (SELECT 1 FROM key_queues WHERE lane_id = ? AND state = 'due' AND due_at <= ?);

-- :name next_due
-- When the next key of a lane becomes due.
SELECT min(due_at) FROM key_queues WHERE lane_id = ? AND state = 'due';

-- :name count
UPDATE lanes
   SET pending = pending + ?, inflight = inflight + ?, in_doubt = in_doubt + ?, delayed = delayed + ?, parked = parked + ?,
       delivered = delivered + ?, superseded = superseded + ?, discarded = discarded + ?
 WHERE id = ?;

-- :name count_compared
UPDATE lanes SET alike = alike + ?, different = different + ? WHERE id = ?;

-- :name owing
SELECT id FROM lanes WHERE pending + inflight + in_doubt + delayed > 0;
