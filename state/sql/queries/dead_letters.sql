-- :name add
-- A record that was set aside, closed and let go is not set aside again.
INSERT INTO dead_letters (kind, record_id, delivery_id, site, system, flow, subject, place, field, rule, code, shown, message,
                          hint, raw, raw_id, parked_at)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17
 WHERE ?2 IS NULL OR NOT EXISTS (SELECT 1 FROM let_go WHERE id = ?2)
ON CONFLICT (record_id) DO NOTHING;

-- :name close
UPDATE dead_letters SET state = ?, closed_at = ? WHERE delivery_id = ? AND state = 'open';
