-- :name add
INSERT INTO trace (key, entity, is_subject, event_seq) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING;

-- :name list_events
-- The newest events that speak of a key, as subject or by reference.
SELECT DISTINCT event_seq FROM trace WHERE key = ? ORDER BY event_seq DESC LIMIT ?;

-- :name latest
SELECT event_seq FROM trace WHERE key = ? AND entity = ? AND is_subject = 1 ORDER BY event_seq DESC LIMIT 1;
