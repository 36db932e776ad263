-- :name last_delivery
-- The last number given; AUTOINCREMENT keeps it even when the row is gone.
SELECT seq FROM sqlite_sequence WHERE name = 'deliveries';

-- :name add_delivery
INSERT INTO deliveries (id, event_seq, lane_id, is_snapshot, due_at, state, first_sent_at, last_sent_at, outcome, detail, key_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT id FROM key_queues WHERE target_id = ? AND order_domain = ? AND partition_key = ?));

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

-- :name due_heads
-- Deliveries to work on, each with its event as `get_event` of inbox.sql reads it.
SELECT q.id, d.id, d.state, d.version, d.attempts, d.failures, d.payload, d.first_sent_at, d.last_sent_at, d.last_denied_at,
       ev.seq, ev.id, ev.subject, ev.partition_key, ev.time, ev.recorded_at, ev.correlation_id, ev.causation_id,
       ev.traceparent, ev.place, ev.extensions, ev.data, ev.origin_id, coalesce(r.sha256, ev.raw_elsewhere)
  FROM key_queues q
  JOIN deliveries d ON d.id = q.head
  JOIN events ev ON ev.seq = d.event_seq
  LEFT JOIN raw_documents r ON r.id = ev.raw_id
 WHERE q.lane_id = ? AND q.state = 'due' AND q.due_at <= ?
 ORDER BY q.due_at, q.head
 LIMIT ?;

-- :name claim
UPDATE deliveries
   SET state = 'inflight', fence = ?, due_at = NULL, attempts = attempts + 1, idempotency_key = ?, payload = ?,
       first_sent_at = ?
 WHERE id = ?;

-- :name list_held
-- Of some deliveries those that are held, under which lease, and their keys.
SELECT d.id, d.fence, d.key_id
  FROM json_each(?) given JOIN deliveries d ON d.id = given.value
 WHERE d.state = 'inflight';

-- :name settle
UPDATE deliveries
   SET state = ?, fence = NULL, settled_at = ?, outcome = ?, reference = ?, detail = ?
 WHERE id = ?;

-- :name release
-- Answers the key where the lease still holds, and nothing where it is lost.
UPDATE deliveries
   SET state = ?, fence = NULL, due_at = ?, failures = failures + ?, last_sent_at = ?, last_denied_at = ?, first_sent_at = ?,
       outcome = ?, reference = ?, detail = ?
 WHERE id = ? AND fence = ? AND state = 'inflight'
RETURNING key_id;

-- :name put_back
UPDATE deliveries SET due_at = ?, last_sent_at = ?, last_denied_at = ? WHERE id = ?;

-- :name set_due
UPDATE deliveries SET due_at = ? WHERE id = ?;

-- :name park_unsent
UPDATE deliveries SET state = 'parked', due_at = NULL, outcome = 'rejected', detail = ? WHERE id = ?;

-- :name drop_shadow
UPDATE deliveries
   SET state = 'discarded', settled_at = ?, due_at = NULL, outcome = 'rejected', detail = ?
 WHERE id = ?;

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
SELECT s.id, s.lane_id, (s.attempts = 0) = (p.attempts = 0) AND s.payload IS p.payload AND s.outcome IS p.outcome
  FROM deliveries s
  JOIN lanes sl ON sl.id = s.lane_id AND sl.shadow_of IS NOT NULL
  JOIN targets pt ON pt.name = sl.shadow_of
  JOIN lanes pl ON pl.flow = sl.flow AND pl.target_id = pt.id
  JOIN deliveries p ON p.event_seq = s.event_seq AND p.lane_id = pl.id
 WHERE s.event_seq = ? AND sl.flow = ? AND s.is_alike IS NULL AND s.settled_at IS NOT NULL
   AND (p.settled_at IS NOT NULL OR p.state = 'parked');

-- :name set_alike
UPDATE deliveries SET is_alike = ? WHERE id = ?;
