-- :name count_unsettled
-- What becomes of the deliveries that a store owed when it was copied, lane by lane.
SELECT lane_id, state, iif(state = 'inflight' AND outcome = 'delayed', 'delayed', 'in_doubt'), count(*)
  FROM deliveries
 WHERE settled_at IS NULL AND state IN ('pending', 'inflight')
 GROUP BY 1, 2, 3;

-- :name doubt_unsettled
-- A call may have left at any moment between the copy and now, and what a probe denied before counts no more.
UPDATE deliveries
   SET state = iif(state = 'inflight' AND outcome = 'delayed', 'delayed', 'in_doubt'),
       fence = NULL, due_at = :now, last_sent_at = :now,
       first_sent_at = min(coalesce(first_sent_at, :now),
                           coalesce(:taken, (SELECT recorded_at FROM events WHERE seq = deliveries.event_seq))),
       last_denied_at = NULL, outcome = iif(state = 'inflight' AND outcome = 'delayed', 'delayed', 'in_doubt'), detail = :detail
 WHERE settled_at IS NULL AND state IN ('pending', 'inflight', 'in_doubt');

-- :name list_keys
SELECT id, lane_id FROM key_queues;

-- :name answers
-- What targets here said, as others gave it back, behind a place.
SELECT ev.seq, ev.causation_id, ev.data, ev.recorded_at, json_extract(ev.extensions, '$.answeredsite')
  FROM events ev JOIN origins o ON o.id = ev.origin_id
 WHERE ev.seq > ? AND o.site = ? AND o.contract = ?
 ORDER BY ev.seq
 LIMIT ?;

-- :name unsure
-- The delivery of an event to a target, where it is in doubt, or set aside and may have been sent again since; who gave back the answer may speak of events of one site alone.
SELECT d.id, d.key_id, d.lane_id, d.state, d.is_snapshot AND l.order_mode = 'latest'
  FROM events ev
  JOIN deliveries d ON d.event_seq = ev.seq
  JOIN lanes l ON l.id = d.lane_id
  JOIN targets t ON t.id = l.target_id
  JOIN origins o ON o.id = ev.origin_id
 WHERE ev.id = ? AND o.site = ? AND l.flow = ? AND t.name = ? 
   AND (d.state = 'in_doubt' OR d.state = 'delayed' OR d.state = 'parked');

-- :name settle
UPDATE deliveries
   SET state = 'delivered', settled_at = ?, due_at = NULL, outcome = ?, reference = ?, detail = ?
 WHERE id = ?;

-- :name doubted_before
-- Snapshots of a key that a newer one, which the target has, passed in the life that ended.
SELECT id
  FROM deliveries
 WHERE key_id = ? AND lane_id = ? AND id < ? AND settled_at IS NULL AND is_snapshot = 1 AND state = 'in_doubt';

-- :name passed
-- Snapshots in doubt that a newer one of their key and lane has passed, each with the newest of those.
SELECT old.id, old.key_id, old.lane_id, max(new.id)
  FROM lanes l
  JOIN deliveries old ON old.lane_id = l.id AND old.state = 'in_doubt' AND old.is_snapshot = 1
  JOIN deliveries new ON new.key_id = old.key_id AND new.settled_at IS NULL AND new.id > old.id
                     AND new.lane_id = old.lane_id AND new.is_snapshot = 1 AND new.state <> 'parked'
 WHERE l.order_mode = 'latest' AND old.id > ?
 GROUP BY old.id
 ORDER BY old.id
 LIMIT ?;

-- :name supersede
UPDATE deliveries SET state = 'superseded', settled_at = ?, due_at = NULL, detail = ? WHERE id = ?;
