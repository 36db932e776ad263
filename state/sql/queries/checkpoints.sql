-- :name add_source
INSERT INTO sources (name) VALUES (?) ON CONFLICT (name) DO NOTHING;

-- :name find
SELECT checkpoint FROM sources WHERE name = ?;

-- :name advance
UPDATE sources
   SET checkpoint = coalesce(?, checkpoint), records = records + ?, unreadable = unreadable + ?, last_batch_at = ?
 WHERE name = ?
RETURNING id;

-- :name remember
INSERT INTO source_memory (source_id, item, remembered_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING;

-- :name is_known
SELECT 1 FROM source_memory m JOIN sources s ON s.id = m.source_id WHERE s.name = ? AND m.item = ?;
