-- :name find
SELECT site, epoch FROM life;

-- :name begin
INSERT INTO life (id, site, epoch, began_at) VALUES (1, ?, 1, ?);

-- :name next_epoch
UPDATE life SET epoch = epoch + 1, began_at = ?;
