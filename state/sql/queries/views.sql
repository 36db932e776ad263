-- :name lanes
-- `due_since` is when the longest waiting key could have been sent: an index look-up, also with a million keys.
-- `waiting_behind` begins at what blocks a key, which a person has yet to look at and which is therefore little.
WITH blocking (delivery, key_id) AS (
  SELECT d.id, d.key_id
    FROM dead_letters letter INDEXED BY dead_letters_one_open JOIN deliveries d ON d.id = letter.delivery_id
   WHERE letter.state = 'open' AND letter.delivery_id IS NOT NULL
   UNION ALL
  SELECT doubt.id, doubt.key_id
    FROM deliveries doubt INDEXED BY deliveries_in_doubt
   WHERE doubt.state = 'in_doubt' AND doubt.due_at IS NULL
),
waiting (lane_id) AS (
  SELECT newer.lane_id
    FROM blocking b
    JOIN key_queues q ON q.id = b.key_id AND q.head = b.delivery AND q.state = 'blocked'
    JOIN deliveries newer ON newer.key_id = q.id AND newer.settled_at IS NULL AND newer.state = 'pending'
   LIMIT :most
),
waiting_of_lane (lane_id, deliveries) AS (SELECT lane_id, count(*) FROM waiting GROUP BY lane_id)
SELECT l.flow, t.name AS target, l.tier, l.order_mode AS "order", l.state, l.shadow_of, t.breaker, t.breaker_reason,
       t.retry_at, t.last_success_at, l.pending, l.inflight, l.in_doubt, l.delayed, l.parked, l.delivered, l.superseded,
       l.discarded, l.alike, l.different, coalesce(w.deliveries, 0) AS waiting_behind,
       (SELECT min(q.due_at) FROM key_queues q WHERE q.lane_id = l.id AND q.state = 'due' AND q.due_at <= :now) AS due_since
  FROM lanes l JOIN targets t ON t.id = l.target_id LEFT JOIN waiting_of_lane w ON w.lane_id = l.id
 ORDER BY l.tier, l.flow, t.name;

-- :name sources
SELECT name, records, unreadable, last_batch_at FROM sources;

-- :name flows_ever
-- Every flow that ever read or owed anything here, also those that the estate no longer has.
SELECT flow FROM lanes UNION SELECT substr(name, 1, instr(name, '@') - 1) FROM sources;

-- :name last_event
-- The last number given, which is how many events there ever were.
SELECT seq FROM sqlite_sequence WHERE name = 'events';

-- :name newest_instant
SELECT recorded_at FROM events ORDER BY seq DESC LIMIT 1;

-- :name count_open_dead_letters
SELECT count(*) FROM (SELECT 1 FROM dead_letters WHERE state = 'open' LIMIT :most);

-- :name events
SELECT e.seq, lower(hex(e.id)) AS id, e.time, e.recorded_at, o.flow, o.contract, o.op, e.subject,
       o.site || '/' || o.system AS source, e.place
  FROM events e JOIN origins o ON o.id = e.origin_id
 WHERE e.seq < :before AND (:flow IS NULL OR o.flow = :flow)
 ORDER BY e.seq DESC
 LIMIT :limit;

-- :name events_of_key
-- Those that speak of the key; `is_subject` where they are about it.
SELECT e.seq, lower(hex(e.id)) AS id, e.time, e.recorded_at, o.flow, o.contract, o.op, e.subject,
       o.site || '/' || o.system AS source, e.place,
       max(t.is_subject) AS is_subject
  FROM trace t JOIN events e ON e.seq = t.event_seq JOIN origins o ON o.id = e.origin_id
 WHERE t.key = :key AND e.seq < :before AND (:flow IS NULL OR o.flow = :flow)
 GROUP BY e.seq
 ORDER BY e.seq DESC
 LIMIT :limit;

-- :name event
SELECT e.seq, lower(hex(e.id)) AS id, e.time, e.recorded_at, o.flow, o.contract, o.op, e.subject,
       o.site || '/' || o.system AS source, e.place,
       e.partition_key, lower(hex(coalesce(e.correlation_id, e.id))) AS correlation_id,
       nullif(lower(hex(e.causation_id)), '') AS causation_id,
       e.traceparent, s.hash AS estate_hash, e.extensions, e.raw_id, e.data
  FROM events e JOIN origins o ON o.id = e.origin_id JOIN estates s ON s.id = o.estate_id
 WHERE e.seq = :seq;

-- :name seq_of_event
SELECT seq FROM events WHERE id = :id;

-- :name documents
SELECT seq, data FROM events WHERE seq IN (SELECT value FROM json_each(:seqs));

-- :name document
SELECT name, lower(hex(sha256)) AS sha256, size FROM raw_documents WHERE id = :id;

-- :name deliveries_in_short
-- `behind` is the delivery of the same key that has to be settled first; the letters are the open ones.
SELECT d.event_seq, d.id AS delivery, t.name AS target, d.state, d.reference,
       letter.id AS letter, coalesce(letter.message, '') AS reason, q.head AS behind, ahead.id AS behind_letter
  FROM deliveries d JOIN lanes l ON l.id = d.lane_id JOIN targets t ON t.id = l.target_id
  LEFT JOIN dead_letters letter ON letter.delivery_id = d.id AND letter.state = 'open'
  LEFT JOIN key_queues q ON q.id = d.key_id AND q.head < d.id AND d.state = 'pending' AND l.order_mode <> 'any'
  LEFT JOIN dead_letters ahead ON ahead.delivery_id = q.head AND ahead.state = 'open'
 WHERE d.event_seq IN (SELECT value FROM json_each(:seqs))
 ORDER BY d.id;

-- :name deliveries
SELECT d.event_seq, d.id AS delivery, t.name AS target, d.state, d.reference,
       letter.id AS letter, coalesce(letter.message, '') AS reason, q.head AS behind, ahead.id AS behind_letter, l.flow, d.version, d.attempts, d.due_at,
       nullif(lower(hex(d.idempotency_key)), '') AS idempotency_key, d.first_sent_at, d.last_sent_at, d.last_denied_at, d.settled_at,
       d.outcome, d.detail
  FROM deliveries d JOIN lanes l ON l.id = d.lane_id JOIN targets t ON t.id = l.target_id
  LEFT JOIN dead_letters letter ON letter.delivery_id = d.id AND letter.state = 'open'
  LEFT JOIN key_queues q ON q.id = d.key_id AND q.head < d.id AND d.state = 'pending' AND l.order_mode <> 'any'
  LEFT JOIN dead_letters ahead ON ahead.delivery_id = q.head AND ahead.state = 'open'
 WHERE d.event_seq IN (SELECT value FROM json_each(:seqs))
 ORDER BY d.id;

-- :name tries
SELECT delivery_id, number, verdict, ended_at, result, code, detail, CAST(document AS TEXT) AS document
  FROM attempts
 WHERE delivery_id IN (SELECT value FROM json_each(:deliveries))
 ORDER BY id;

-- :name open_dead_letters
-- By the index of the open ones: SQLite would rather walk the closed ones too, since they come in the right order.
SELECT id, kind, state, flow, site || '/' || system AS system, subject, place, field, rule, code, shown, message, hint,
       parked_at, closed_at, delivery_id AS delivery
  FROM dead_letters
 WHERE id IN (SELECT id
                FROM dead_letters INDEXED BY dead_letters_open
               WHERE state = 'open' AND id < :before AND (:flow IS NULL OR flow = :flow) AND (:code IS NULL OR code = :code)
               ORDER BY id DESC
               LIMIT :limit)
 ORDER BY id DESC;

-- :name dead_letters
SELECT id, kind, state, flow, site || '/' || system AS system, subject, place, field, rule, code, shown, message, hint,
       parked_at, closed_at, delivery_id AS delivery
  FROM dead_letters
 WHERE id < :before AND (:flow IS NULL OR flow = :flow) AND (:code IS NULL OR code = :code)
 ORDER BY id DESC
 LIMIT :limit;

-- :name dead_letter
SELECT m.id, m.kind, m.state, m.flow, m.site || '/' || m.system AS system, m.subject, m.place, m.field, m.rule, m.code,
       m.shown, m.message, m.hint, m.parked_at, m.closed_at, m.delivery_id AS delivery, m.raw_id,
       nullif(lower(hex(e.id)), '') AS event, length(m.raw) AS size, substr(m.raw, 1, :most) AS bytes
  FROM dead_letters m
  LEFT JOIN deliveries d ON d.id = m.delivery_id
  LEFT JOIN events e ON e.seq = d.event_seq
 WHERE m.id = :id;

-- :name in_doubt
-- By the index of those in doubt, for the same reason.
SELECT d.id AS delivery, l.flow, t.name AS target, e.subject, lower(hex(e.id)) AS event, d.first_sent_at, d.last_sent_at,
       d.last_denied_at, d.due_at, d.attempts, nullif(lower(hex(d.idempotency_key)), '') AS idempotency_key, d.detail
  FROM deliveries d
  JOIN lanes l ON l.id = d.lane_id
  JOIN targets t ON t.id = l.target_id
  JOIN events e ON e.seq = d.event_seq
 WHERE d.id IN (SELECT doubt.id
                  FROM deliveries doubt INDEXED BY deliveries_in_doubt JOIN lanes ON lanes.id = doubt.lane_id
                 WHERE doubt.state = 'in_doubt' AND doubt.id < :before AND (:flow IS NULL OR lanes.flow = :flow)
                 ORDER BY doubt.id DESC
                 LIMIT :limit)
 ORDER BY d.id DESC;

-- :name in_doubt_delivery
SELECT d.id AS delivery, l.flow, t.name AS target, e.subject, lower(hex(e.id)) AS event, d.first_sent_at, d.last_sent_at,
       d.last_denied_at, d.due_at, d.attempts, nullif(lower(hex(d.idempotency_key)), '') AS idempotency_key, d.detail,
       length(coalesce(d.payload, e.data)) AS size, substr(coalesce(d.payload, e.data), 1, :most) AS bytes
  FROM deliveries d
  JOIN lanes l ON l.id = d.lane_id
  JOIN targets t ON t.id = l.target_id
  JOIN events e ON e.seq = d.event_seq
 WHERE d.id = :delivery AND d.state = 'in_doubt';

-- :name count_waiting_behind
SELECT count(*)
  FROM deliveries d JOIN deliveries newer ON newer.key_id = d.key_id AND newer.id > d.id AND newer.settled_at IS NULL
 WHERE d.id = :delivery;
