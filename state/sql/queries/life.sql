-- :name find
SELECT site, epoch, fenced FROM life;

-- :name begin
INSERT INTO life (id, site, epoch, began_at) VALUES (1, ?, 1, ?);

-- :name begin_epoch
UPDATE life SET epoch = ?, began_at = ?, fenced = '';

-- :name fence
UPDATE life SET fenced = ? WHERE fenced = '';

-- :name forget_nonces
-- Nonces belong to one life.
UPDATE peers SET nonce = '', nonce_before = '', attempt = '';
