-- :name add
INSERT INTO unapplied (event_id, peer_id, tier, flow, partition_key, estate, attributes, data, code, detail, received_at,
                       is_again)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (event_id) DO NOTHING;

-- :name site_of
SELECT json_extract(CAST(attributes AS TEXT), '$.site') FROM unapplied WHERE event_id = ?;

-- :name is_behind
SELECT 1
  FROM unapplied
 WHERE flow = :flow AND partition_key = :partition_key
   AND json_extract(CAST(attributes AS TEXT), '$.site') = :site
   AND json_extract(CAST(attributes AS TEXT), '$.dataschema') <> :beside
 LIMIT 1;

-- :name wanted
SELECT DISTINCT estate
  FROM unapplied
 WHERE (?1 IS NULL OR peer_id = ?1) AND estate NOT IN (SELECT hash FROM estates);

-- :name list_strange
SELECT p.site, u.estate, count(*)
  FROM unapplied u JOIN peers p ON p.id = u.peer_id
 WHERE u.estate NOT IN (SELECT hash FROM estates)
 GROUP BY u.estate, u.peer_id
 ORDER BY p.site, u.estate;

-- :name list
SELECT id, peer_id, tier, attributes, data, is_again FROM unapplied WHERE id > ? ORDER BY id LIMIT ?;

-- :name remove
DELETE FROM unapplied WHERE id = ?;

-- :name is_any
SELECT 1 FROM unapplied WHERE peer_id = ? LIMIT 1;

-- :name count
SELECT count(*) FROM unapplied;
