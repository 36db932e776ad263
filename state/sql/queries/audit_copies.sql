-- :name find_head
SELECT epoch, seq, hash, held_seq, held_hash FROM audit_heads WHERE site = ?;

-- :name list_heads
SELECT site, epoch, seq, hash, held_seq, held_hash FROM audit_heads ORDER BY site;

-- :name know_head
INSERT INTO audit_heads (site, epoch, seq, hash, heard_at) VALUES (:site, :epoch, :seq, :hash, :now)
ON CONFLICT (site) DO UPDATE SET epoch = :epoch, seq = :seq, hash = :hash, heard_at = :now;

-- :name note_held
INSERT INTO audit_heads (site, held_seq, held_hash) VALUES (:site, :seq, :hash)
ON CONFLICT (site) DO UPDATE SET held_seq = :seq, held_hash = :hash;

-- :name end
-- The last copy of a chain.
SELECT seq, hash FROM audit_copies WHERE site = ? AND break_id = ? ORDER BY seq DESC LIMIT 1;

-- :name is_kept
SELECT 1 FROM audit_copies WHERE site = ? LIMIT 1;

-- :name hash_at
SELECT hash FROM audit_copies WHERE site = ? AND break_id = 0 AND seq = ?;

-- :name walk
SELECT seq, at_ms, actor, action, target, reason, before_json, after_json, request_id, details_json, previous_hash, hash
FROM audit_copies WHERE site = ? AND break_id = 0 ORDER BY seq;

-- :name list_beyond
-- What was set aside, behind an entry.
SELECT seq, at_ms, actor, action, target, reason, before_json, after_json, request_id, details_json, previous_hash, hash
FROM audit_copies WHERE site = :site AND break_id = :break_id AND seq > :after ORDER BY seq LIMIT :limit;

-- :name put_back
-- An entry that was set aside with others is on the chain all the same.
UPDATE audit_copies SET break_id = 0
WHERE site = :site AND seq = :seq AND hash = :hash AND break_id <> 0
  AND id = (SELECT max(id) FROM audit_copies WHERE site = :site AND seq = :seq AND hash = :hash);

-- :name add
INSERT INTO audit_copies
  (site, break_id, seq, at_ms, actor, action, target, reason, before_json, after_json, request_id, details_json, previous_hash, hash)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- :name set_aside
UPDATE audit_copies SET break_id = :break_id WHERE site = :site AND break_id = 0 AND seq > :after;

-- :name list
-- Copies of one audit: what is on its chain, or with `lost` what is not. A person's decisions are those of no agent.
SELECT id,
  seq, at_ms, actor, action, target, reason, before_json, after_json, request_id, details_json, previous_hash, hash
FROM audit_copies
WHERE site = :site AND (break_id <> 0) = :lost
  AND (:actor IS NULL OR actor = :actor OR actor GLOB :actor || '/*' OR actor GLOB '*/' || :actor
       OR actor GLOB :actor || ' via *' OR actor GLOB '*/' || :actor || ' via *')  -- person/token via site
  AND (:target IS NULL OR target = :target)
  AND id < :before
ORDER BY id DESC LIMIT :limit;

-- :name count_beyond
-- How many lie beyond a break, the first and the last of them, and how many of them a person decided. That a backup was made is noted
-- after it, so no store that is put back has the entry of its own: there is nothing to decide again.
SELECT count(*), coalesce(min(seq), 0), coalesce(max(seq), 0),
  coalesce(sum(actor <> 'agent' AND actor NOT GLOB 'agent *' AND action NOT IN ('refuse', 'back up')), 0)
FROM audit_copies WHERE site = ? AND break_id = ?;
