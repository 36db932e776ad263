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
       fence = NULL, due_at = :now, first_sent_at = min(coalesce(first_sent_at, :taken), :taken), last_sent_at = :now,
       last_denied_at = NULL, outcome = iif(state = 'inflight' AND outcome = 'delayed', 'delayed', 'in_doubt'), detail = :detail
 WHERE settled_at IS NULL AND state IN ('pending', 'inflight', 'in_doubt');

-- :name list_keys
SELECT id, lane_id FROM key_queues;
