-- :name add
INSERT INTO audit_breaks (site, witness, kind, epoch, known_seq, known_hash, after_seq, found_seq, noticed_at)
VALUES (:site, :witness, :kind, :epoch, :known_seq, :known_hash, :after, :found, :now)
RETURNING id, site, witness, kind, epoch, known_seq, known_hash, after_seq, found_seq, noticed_at, settled_at;

-- :name find
-- The newest one of an audit that a witness knew so far.
SELECT id, site, witness, kind, epoch, known_seq, known_hash, after_seq, found_seq, noticed_at, settled_at
FROM audit_breaks WHERE site = ? AND witness = ? AND known_seq = ? AND known_hash = ? ORDER BY id DESC LIMIT 1;

-- :name list
SELECT id, site, witness, kind, epoch, known_seq, known_hash, after_seq, found_seq, noticed_at, settled_at
FROM audit_breaks WHERE (:site IS NULL OR site = :site) AND (:settled OR settled_at IS NULL) ORDER BY id;

-- :name place
UPDATE audit_breaks SET after_seq = ? WHERE id = ?;

-- :name settle
UPDATE audit_breaks SET settled_at = :now, settled_by = :by, settled_reason = :reason
WHERE site = :site AND settled_at IS NULL;
