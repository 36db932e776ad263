-- :name streams
-- Streams to others, each peer's from its oldest epoch on.
SELECT s.id, s.peer_id, p.site, s.epoch, s.tier, s.acked_seq, s.let_go_seq
  FROM streams_out s JOIN peers p ON p.id = s.peer_id
 ORDER BY s.peer_id, s.epoch, s.tier;

-- :name oldest_items
-- The oldest that a stream still holds, up to a sequence.
SELECT i.seq, i.chain, i.event_seq, ev.recorded_at
  FROM stream_items i JOIN events ev ON ev.seq = i.event_seq
 WHERE i.stream_id = ? AND i.seq > ? AND i.seq <= ?
 ORDER BY i.seq
 LIMIT ?;

-- :name drop_items
DELETE FROM stream_items WHERE stream_id = ? AND seq > ? AND seq <= ?;

-- :name move_beginning
UPDATE streams_out SET let_go_seq = ?, let_go_chain = ?, let_go_at = ? WHERE id = ?;

-- :name count_left
SELECT count(*) FROM (SELECT 1 FROM stream_items WHERE stream_id = ? AND seq <= ? LIMIT 1);

-- :name drop_carried
-- Of a stream of an ended epoch, what was never acknowledged in it: a later epoch carries it.
DELETE FROM stream_items
 WHERE stream_id = ?1
   AND seq IN (SELECT seq FROM stream_items WHERE stream_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3);

-- :name note_first_sent
-- Where this store began to send its events to others.
INSERT INTO counters (name, value)
SELECT 'first_sent', min(event_seq) FROM stream_items WHERE true HAVING min(event_seq) IS NOT NULL
ON CONFLICT (name) DO NOTHING;

-- :name first_sent
SELECT value FROM counters WHERE name = 'first_sent';

-- :name part
-- The next events in their order, as far as a backup of this store has them, each with whether it is old enough.
SELECT seq, recorded_at < ? FROM events WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?;

-- :name settled
-- Of some events those that the rule lets go, each with whether it is the latest of its business key, and then whether it still
-- refers to its document.
SELECT ev.seq,
       EXISTS (SELECT 1
                 FROM trace t
                WHERE t.event_seq = ev.seq AND t.is_subject = 1
                  AND NOT EXISTS (SELECT 1
                                    FROM trace newer
                                   WHERE newer.key = t.key AND newer.entity = t.entity AND newer.is_subject = 1
                                     AND newer.event_seq > t.event_seq)),
       ev.raw_id IS NOT NULL
  FROM json_each(:seqs) given
  JOIN events ev ON ev.seq = given.value
  JOIN origins o ON o.id = ev.origin_id
 WHERE ev.recorded_at < :before
   AND (ev.seq <= :own OR o.site <> :here OR ev.seq >= :sent)
   AND NOT EXISTS (SELECT 1 FROM stream_items i WHERE i.event_seq = ev.seq)
   AND NOT EXISTS (SELECT 1
                     FROM deliveries d
                    WHERE d.event_seq = ev.seq AND (d.settled_at IS NULL OR d.settled_at >= :before))
   AND NOT EXISTS (SELECT 1
                     FROM deliveries d JOIN dead_letters letter ON letter.delivery_id = d.id
                    WHERE d.event_seq = ev.seq AND (letter.closed_at IS NULL OR letter.closed_at >= :before))
   AND NOT EXISTS (SELECT 1 FROM unapplied u WHERE u.flow = o.flow AND u.partition_key = ev.partition_key);

-- :name drop_attempts
DELETE FROM attempts
 WHERE delivery_id IN (SELECT d.id FROM json_each(?) given JOIN deliveries d ON d.event_seq = given.value);

-- :name drop_letters
DELETE FROM dead_letters
 WHERE delivery_id IN (SELECT d.id FROM json_each(?) given JOIN deliveries d ON d.event_seq = given.value);

-- :name drop_deliveries
DELETE FROM deliveries WHERE event_seq IN (SELECT value FROM json_each(?));

-- :name drop_trace
DELETE FROM trace
 WHERE (key, entity, is_subject, event_seq) IN
       (SELECT t.key, t.entity, t.is_subject, t.event_seq FROM json_each(?) given JOIN trace t ON t.event_seq = given.value);

-- :name keep_ids
INSERT INTO let_go (id, origin_id) SELECT ev.id, ev.origin_id FROM json_each(?) given JOIN events ev ON ev.seq = given.value WHERE true
ON CONFLICT DO NOTHING;

-- :name drop_events
DELETE FROM events WHERE seq IN (SELECT value FROM json_each(?));

-- :name part_from_document
-- The latest of a business key stays without the document that it was read from; the hash of that stays.
UPDATE events
   SET raw_elsewhere = (SELECT sha256 FROM raw_documents r WHERE r.id = raw_id), raw_id = NULL
 WHERE seq IN (SELECT value FROM json_each(?));

-- :name arriving
SELECT peer_id, epoch, tier FROM streams_in;

-- :name oldest_arrivals
SELECT seq, event_seq FROM arrivals WHERE peer_id = ? AND epoch = ? AND tier = ? ORDER BY seq LIMIT ?;

-- :name drop_arrivals
DELETE FROM arrivals WHERE peer_id = ? AND epoch = ? AND tier = ? AND seq < ?;

-- :name closed_records
-- Records that were set aside and that a person closed.
SELECT id FROM dead_letters WHERE closed_at < ? AND kind = 'record' ORDER BY closed_at LIMIT ?;

-- :name keep_record_ids
INSERT INTO let_go (id)
SELECT letter.record_id FROM json_each(?) given JOIN dead_letters letter ON letter.id = given.value WHERE true
ON CONFLICT DO NOTHING;

-- :name drop_records
DELETE FROM dead_letters WHERE id IN (SELECT value FROM json_each(?));

-- :name needless_documents
-- The next documents that nothing refers to any more. When one came is looked up last: it stands behind its content.
WITH part (id) AS (SELECT id FROM raw_documents WHERE id > ?1 ORDER BY id LIMIT ?2),
     needless (id) AS MATERIALIZED (
       SELECT p.id
         FROM part p
        WHERE NOT EXISTS (SELECT 1 FROM events ev WHERE ev.raw_id = p.id)
          AND NOT EXISTS (SELECT 1 FROM dead_letters letter WHERE letter.raw_id = p.id))
SELECT r.id, r.size FROM needless n JOIN raw_documents r ON r.id = n.id WHERE r.received_at < ?3 ORDER BY r.id;

-- :name last_of_part
SELECT max(id) FROM (SELECT id FROM raw_documents WHERE id > ? ORDER BY id LIMIT ?);

-- :name drop_documents
-- Answers which they were, and whether they lie in the archive folder.
DELETE FROM raw_documents
 WHERE id IN (SELECT value FROM json_each(?))
   AND NOT EXISTS (SELECT 1 FROM events ev WHERE ev.raw_id = raw_documents.id)
   AND NOT EXISTS (SELECT 1 FROM dead_letters letter WHERE letter.raw_id = raw_documents.id)
RETURNING sha256, content IS NULL;

-- :name note_file
INSERT INTO files_let_go (sha256) VALUES (?) ON CONFLICT DO NOTHING;

-- :name files
-- Each with whether its document came again meanwhile.
SELECT lower(hex(f.sha256)), EXISTS (SELECT 1 FROM raw_documents r WHERE r.sha256 = f.sha256) FROM files_let_go f LIMIT ?;

-- :name forget_file
DELETE FROM files_let_go WHERE sha256 = ?;

-- :name count
UPDATE counters SET value = value + ? WHERE name = 'let_go';

-- :name note_upto
UPDATE counters SET value = max(value, ?) WHERE name = 'let_go_upto';

-- :name counted
SELECT value FROM counters WHERE name = 'let_go';

-- :name oldest
SELECT recorded_at FROM events ORDER BY seq LIMIT 1;

-- :name held
-- How far a backup of this store has the streams of a peer.
SELECT epoch, tier, seq FROM backup_marks WHERE backup_id = ? AND peer_id = ?;

-- :name told
SELECT backed_up FROM peers WHERE site = ?;

-- :name tell
UPDATE peers SET backed_up = ?1 WHERE id = ?2 AND backed_up IS NOT ?1;
