-- :name append
INSERT INTO audit
  (seq, at_ms, actor, action, target, reason, before_json, after_json, request_id, details_json, previous_hash, hash)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- :name head
SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1;

-- :name walk
SELECT seq, at_ms, actor, action, target, reason, before_json, after_json, request_id, details_json, previous_hash, hash
FROM audit ORDER BY seq;

-- :name numbers_given
-- What AUTOINCREMENT remembers: it outlives the removal of the last entries.
SELECT seq FROM sqlite_sequence WHERE name = 'audit';

-- :name find
SELECT seq, at_ms, actor, action, target, reason, before_json, after_json, request_id, details_json, previous_hash, hash
FROM audit WHERE seq = :seq;

-- :name list_after
SELECT seq, at_ms, actor, action, target, reason, before_json, after_json, request_id, details_json, previous_hash, hash
FROM audit WHERE seq > ? ORDER BY seq LIMIT ?;

-- :name began
-- The entry with which this life of the store began: it was put back, or adopted.
SELECT max(seq) FROM audit
WHERE (target = 'store' AND action = 'restore') OR (target = 'agent ' || ? AND action = 'adopt');

-- :name list
SELECT seq, at_ms, actor, action, target, reason, before_json, after_json, request_id, details_json, previous_hash, hash
FROM audit
WHERE (:actor IS NULL OR actor = :actor OR actor GLOB :actor || '/*' OR actor GLOB '*/' || :actor
       OR actor GLOB :actor || ' via *' OR actor GLOB '*/' || :actor || ' via *')  -- person/token via site
  AND (:action IS NULL OR action = :action)
  AND (:request_id IS NULL OR request_id = :request_id)
  AND (:since_ms IS NULL OR at_ms >= :since_ms)
  AND (:until_ms IS NULL OR at_ms < :until_ms)
  AND seq < coalesce(:before_seq, 9223372036854775807)
ORDER BY seq DESC LIMIT :limit;

-- :name list_of_target
-- The same for one target, by its index.
SELECT seq, at_ms, actor, action, target, reason, before_json, after_json, request_id, details_json, previous_hash, hash
FROM audit
WHERE target = :target
  AND (:actor IS NULL OR actor = :actor OR actor GLOB :actor || '/*' OR actor GLOB '*/' || :actor
       OR actor GLOB :actor || ' via *' OR actor GLOB '*/' || :actor || ' via *')
  AND (:action IS NULL OR action = :action)
  AND (:request_id IS NULL OR request_id = :request_id)
  AND (:since_ms IS NULL OR at_ms >= :since_ms)
  AND (:until_ms IS NULL OR at_ms < :until_ms)
  AND seq < coalesce(:before_seq, 9223372036854775807)
ORDER BY seq DESC LIMIT :limit;
