-- :name add_target
INSERT INTO targets (name) VALUES (?) ON CONFLICT (name) DO NOTHING;

-- :name add_lane
INSERT INTO lanes (flow, target_id, tier, order_mode, order_domain, shadow_of)
SELECT ?, t.id, ?, ?, ?, ? FROM targets t WHERE t.name = ?
ON CONFLICT (flow, target_id) DO UPDATE
   SET tier = excluded.tier, order_mode = excluded.order_mode, shadow_of = excluded.shadow_of;

-- :name list_lanes
SELECT l.id, l.flow, t.name, t.id, l.tier, l.order_mode, l.order_domain, l.shadow_of
  FROM lanes l JOIN targets t ON t.id = l.target_id;

-- :name last_delivery
-- The last number given; AUTOINCREMENT keeps it even when the row is gone.
SELECT seq FROM sqlite_sequence WHERE name = 'deliveries';

-- :name add_key
-- The key's row, whose head is the delivery given where the key had nothing unsettled.
INSERT INTO key_queues (target_id, order_domain, partition_key, lane_id, head, state, due_at)
VALUES (?, ?, ?, ?, ?, 'due', ?)
ON CONFLICT (target_id, order_domain, partition_key) DO UPDATE SET due_at = due_at
RETURNING id, head;

-- :name key_state
SELECT state, due_at FROM key_queues WHERE id = ?;

-- :name add_delivery
INSERT INTO deliveries (id, event_seq, lane_id, key_id, is_snapshot, due_at) VALUES (?, ?, ?, ?, ?, ?);

-- :name older_snapshots
-- Those of the scope that are known not to be at the target; one in flight or in doubt is settled first.
SELECT id, state
  FROM deliveries
 WHERE key_id = ? AND lane_id = ? AND id < ? AND settled_at IS NULL AND is_snapshot = 1 AND first_sent_at IS NULL
   AND state IN ('pending', 'parked');

-- :name supersede
UPDATE deliveries SET state = 'superseded', settled_at = ?, due_at = NULL, detail = ? WHERE id = ?;

-- :name next_fence
UPDATE counters SET value = value + 1 WHERE name = 'fence' RETURNING value;

-- :name is_due
-- Whether a lane has a key to work on, at this moment.
SELECT EXISTS (SELECT 1 FROM key_queues WHERE lane_id = ? AND state = 'due' AND due_at <= ?);

-- :name next_due
-- When the next key of a lane becomes due.
SELECT min(due_at) FROM key_queues WHERE lane_id = ? AND state = 'due';

-- :name due_heads
-- Deliveries to work on, each with its event as `get_event` of inbox.sql reads it.
SELECT q.id, d.id, d.state, d.version, d.attempts, d.failures, d.payload, d.first_sent_at, d.last_sent_at, d.last_denied_at,
       ev.seq, ev.id, ev.subject, ev.partition_key, ev.time, ev.recorded_at, ev.correlation_id, ev.causation_id,
       ev.traceparent, ev.place, ev.extensions, ev.data, o.site, o.system, o.flow, o.contract, o.op, o.environment, e.hash,
       r.sha256
  FROM key_queues q
  JOIN deliveries d ON d.id = q.head
  JOIN events ev ON ev.seq = d.event_seq
  JOIN origins o ON o.id = ev.origin_id
  JOIN estates e ON e.id = o.estate_id
  LEFT JOIN raw_documents r ON r.id = ev.raw_id
 WHERE q.lane_id = ? AND q.state = 'due' AND q.due_at <= ?
 ORDER BY q.due_at, q.head
 LIMIT ?;

-- :name claim
UPDATE deliveries
   SET state = 'inflight', fence = ?, due_at = NULL, attempts = attempts + 1, idempotency_key = ?, payload = ?,
       first_sent_at = ?
 WHERE id = ?;

-- :name claim_key
UPDATE key_queues SET state = 'inflight' WHERE id = ?;

-- :name settle
-- Answers the key where the lease still holds, and nothing where it is lost.
UPDATE deliveries
   SET state = ?, fence = NULL, settled_at = ?, outcome = ?, reference = ?, detail = ?
 WHERE id = ? AND fence = ? AND state = 'inflight'
RETURNING key_id;

-- :name release
-- As `settle`.
UPDATE deliveries
   SET state = ?, fence = NULL, due_at = ?, failures = failures + ?, last_sent_at = ?, last_denied_at = ?, first_sent_at = ?,
       outcome = ?, reference = ?, detail = ?
 WHERE id = ? AND fence = ? AND state = 'inflight'
RETURNING key_id;

-- :name put_back
UPDATE deliveries SET due_at = ?, last_sent_at = ?, last_denied_at = ? WHERE id = ?;

-- :name set_due
UPDATE deliveries SET due_at = ? WHERE id = ?;

-- :name park_pending
UPDATE deliveries SET state = 'parked', due_at = NULL, outcome = 'rejected', detail = ? WHERE id = ?;

-- :name drop_shadow
UPDATE deliveries
   SET state = 'discarded', settled_at = ?, due_at = NULL, outcome = 'rejected', detail = ?
 WHERE id = ?;

-- :name next_in_order
SELECT id, lane_id, state, due_at FROM deliveries WHERE key_id = ? AND settled_at IS NULL ORDER BY id LIMIT 1;

-- :name first_due
-- In any order: the first that is due. It is met soon, since few of a key stand aside or wait for their time.
SELECT id, lane_id, state, due_at
  FROM deliveries
 WHERE key_id = ? AND settled_at IS NULL AND due_at <= ?
 ORDER BY id
 LIMIT 1;

-- :name soonest
-- In any order, where none is due: what is parked or waits for a person stands aside.
SELECT id, lane_id, state, due_at
  FROM deliveries
 WHERE key_id = ? AND settled_at IS NULL AND due_at IS NOT NULL
 ORDER BY due_at, id
 LIMIT 1;

-- :name advance_key
UPDATE key_queues SET lane_id = ?, head = ?, state = ?, due_at = ? WHERE id = ?;

-- :name remove_key
DELETE FROM key_queues WHERE id = ?;

-- :name count
UPDATE lanes
   SET pending = pending + ?, inflight = inflight + ?, in_doubt = in_doubt + ?, delayed = delayed + ?, parked = parked + ?,
       delivered = delivered + ?, superseded = superseded + ?, discarded = discarded + ?
 WHERE id = ?;

-- :name count_compared
UPDATE lanes SET alike = alike + ?, different = different + ? WHERE id = ?;

-- :name list_inflight
SELECT id, fence, key_id, lane_id, first_sent_at, outcome FROM deliveries WHERE state = 'inflight';

-- :name list_waiting_for_a_person
SELECT id, key_id, lane_id FROM deliveries WHERE state = 'in_doubt' AND due_at IS NULL;

-- :name doubt
UPDATE deliveries
   SET state = ?, fence = NULL, due_at = ?, last_sent_at = ?, last_denied_at = NULL, first_sent_at = ?, outcome = ?,
       detail = ?
 WHERE id = ?;

-- :name add_attempt
INSERT INTO attempts (delivery_id, number, verdict, ended_at, result, code, detail, document) VALUES (?, ?, ?, ?, ?, ?, ?, ?);

-- :name comparable
-- Shadow deliveries of an event that have ended, beside what they shadow, which has ended too.
SELECT s.id, s.lane_id, s.payload IS p.payload AND s.outcome IS p.outcome
  FROM deliveries s
  JOIN lanes sl ON sl.id = s.lane_id AND sl.shadow_of IS NOT NULL
  JOIN targets pt ON pt.name = sl.shadow_of
  JOIN lanes pl ON pl.flow = sl.flow AND pl.target_id = pt.id
  JOIN deliveries p ON p.event_seq = s.event_seq AND p.lane_id = pl.id
 WHERE s.event_seq = ? AND sl.flow = ? AND s.is_alike IS NULL AND s.settled_at IS NOT NULL
   AND (p.settled_at IS NOT NULL OR p.state = 'parked');

-- :name set_alike
UPDATE deliveries SET is_alike = ? WHERE id = ?;

-- :name nearer_due
-- A wall clock that went back leaves dues in a far future; nothing waits longer than the longest pause. Lane by lane, by index.
UPDATE key_queues SET due_at = ?1 WHERE lane_id IN (SELECT id FROM lanes) AND state = 'due' AND due_at > ?2;
