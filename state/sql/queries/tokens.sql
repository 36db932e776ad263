-- :name add
INSERT INTO tokens (name, hash, person, roles, sites, created_at, created_by, expires_at)
VALUES (:name, :hash, :person, :roles, :sites, :created_at, :created_by, :expires_at)
ON CONFLICT (name) WHERE revoked_at IS NULL DO NOTHING
RETURNING
  id, name, person, roles, sites, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by, revoke_reason;

-- :name find
SELECT id, name, person, roles, sites, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by, revoke_reason
FROM tokens WHERE hash = ?;

-- :name find_not_revoked
SELECT id, name, person, roles, sites, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by, revoke_reason
FROM tokens WHERE name = ? AND revoked_at IS NULL;

-- :name list
-- Newest first; those that were revoked only where they are asked for.
SELECT id, name, person, roles, sites, created_at, created_by, expires_at, last_used_at, revoked_at, revoked_by, revoke_reason
FROM tokens
WHERE id < :before AND (:with_revoked OR revoked_at IS NULL)
ORDER BY id DESC LIMIT :limit;

-- :name note_use
UPDATE tokens SET last_used_at = :now WHERE id = :id AND coalesce(last_used_at, 0) <= :now - :every;

-- :name revoke
UPDATE tokens SET revoked_at = ?, revoked_by = ?, revoke_reason = ? WHERE id = ?;
