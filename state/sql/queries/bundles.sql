-- :name last
SELECT number, estate, adopted_by, adopted_at, seal, state, reason FROM bundles ORDER BY number DESC LIMIT 1;

-- :name in_force
SELECT number, estate, adopted_by, adopted_at, seal, state, reason
  FROM bundles WHERE state IN ('trial', 'good') AND number < ? ORDER BY number DESC LIMIT 1;

-- :name sealed
SELECT number, estate, adopted_by, adopted_at, seal, state, reason
  FROM bundles WHERE estate = ? AND seal <> x'' ORDER BY number DESC LIMIT 1;

-- :name has_estate
SELECT 1 FROM estates WHERE hash = ?;

-- :name add
INSERT INTO bundles (number, estate, adopted_by, adopted_at, seal, state) VALUES (?, ?, ?, ?, ?, ?);

-- :name drop_those_that_came
-- A later one came before they were judged.
DELETE FROM bundles WHERE state = 'came';

-- :name settle
UPDATE bundles SET state = ?, reason = ? WHERE number = ?;
