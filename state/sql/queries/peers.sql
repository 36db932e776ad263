-- :name ensure
INSERT INTO peers (site) VALUES (?) ON CONFLICT (site) DO NOTHING;

-- :name find
SELECT id, site, epoch, state, reason, detail, nonce, nonce_before, attempt, heard_at, said, answered, promised
  FROM peers
 WHERE site = ?;

-- :name number
SELECT id FROM peers WHERE site = ?;

-- :name list
SELECT id, site, epoch, state, reason, detail, nonce, nonce_before, attempt, heard_at, said, answered, promised
  FROM peers
 ORDER BY site;

-- :name set_epoch
UPDATE peers SET epoch = ? WHERE id = ?;

-- :name set_nonce
UPDATE peers SET nonce = ?, nonce_before = ?, attempt = ? WHERE id = ?;

-- :name hear
UPDATE peers SET heard_at = ?, said = coalesce(?, said) WHERE id = ?;

-- :name keep_receipt
UPDATE peers SET receipt = ? WHERE id = ?;

-- :name receipt
SELECT receipt FROM peers WHERE id = ?;

-- :name promise
UPDATE peers SET promised = ? WHERE id = ?;

-- :name answer
UPDATE peers SET answered = ?1 WHERE id = ?2 AND answered < ?1;

-- :name unanswered
SELECT p.site FROM peers p, life WHERE p.answered < life.epoch AND life.gathering = 1 ORDER BY p.site;

-- :name fence
UPDATE peers SET state = 'fenced', reason = ?, detail = ? WHERE id = ? AND state = 'open';

-- :name refuse
-- A store whose epoch has ended came; the peer stays open, and its detail says when and what, as JSON.
UPDATE peers SET detail = ? WHERE id = ? AND state = 'open';

-- :name open
UPDATE peers SET state = ?, reason = '', detail = '' WHERE id = ?;
