-- :name add
INSERT INTO estates (hash, document, stored_at) VALUES (?, ?, ?) ON CONFLICT (hash) DO NOTHING;

-- :name find
SELECT document FROM estates WHERE hash = ?;
