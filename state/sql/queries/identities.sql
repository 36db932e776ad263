-- :name authority
SELECT fingerprint FROM authority;

-- :name know_authority
INSERT INTO authority (id, fingerprint, known_since) VALUES (1, ?, ?);

-- :name forget_authority
DELETE FROM authority;

-- :name add_invitation
INSERT INTO invitations (secret_hash, site, invited_at, expires_at) VALUES (?, ?, ?, ?);

-- :name find_invitation
SELECT id, site, invited_at, expires_at, withdrawn_at, used_at, key_hash, certificate FROM invitations WHERE secret_hash = ?;

-- :name settle_invitation
UPDATE invitations SET used_at = ?, key_hash = ?, certificate = ? WHERE id = ? AND used_at IS NULL;

-- :name withdraw_invitations
UPDATE invitations SET withdrawn_at = ? WHERE site = ? AND invited_at <= ? AND used_at IS NULL AND withdrawn_at IS NULL;

-- :name list
SELECT site, enrolled_at, certificate, denied_until, denied_reason FROM identities ORDER BY site;

-- :name find
SELECT site, enrolled_at, certificate, denied_until, denied_reason FROM identities WHERE site = ?;

-- :name put
INSERT INTO identities (site, enrolled_at, certificate, denied_until, denied_reason) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (site) DO UPDATE SET
  enrolled_at = excluded.enrolled_at,
  certificate = excluded.certificate,
  denied_until = excluded.denied_until,
  denied_reason = excluded.denied_reason;
