-- :name find
SELECT site, epoch, fenced, gathering, began_at, last_event FROM life;

-- :name begin
INSERT INTO life (id, site, epoch, began_at) VALUES (1, ?, 1, ?);

-- :name begin_epoch
UPDATE life
   SET epoch = ?, began_at = ?, fenced = '', last_event = coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0);

-- :name await_answers
-- Of those that were met, and of one that is named.
UPDATE peers SET promised = NULL, answered = iif(epoch > 0 OR site = ?2, answered, ?1);

-- :name gather
UPDATE life SET gathering = EXISTS (SELECT 1 FROM peers WHERE peers.answered < life.epoch);

-- :name end_gathering
UPDATE life SET gathering = 0 WHERE gathering = 1;

-- :name fence
UPDATE life SET fenced = ? WHERE fenced = '';

-- :name open_unproven
-- What was said of a life that has ended, and what that life did not know, is asked anew.
UPDATE peers SET state = 'open', reason = '', detail = '' WHERE state = 'fenced' AND reason = 'unproven';

-- :name forget_nonces
-- Nonces belong to one life.
UPDATE peers SET nonce = '', nonce_before = '', attempt = '';
