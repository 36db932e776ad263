-- :name add
INSERT INTO dead_letters (kind, record_id, delivery_id, site, system, flow, subject, place, field, rule, code, shown, message,
                          hint, raw, raw_id, parked_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (record_id) DO NOTHING;

-- :name close
UPDATE dead_letters SET state = ?, closed_at = ? WHERE delivery_id = ? AND state = 'open';
