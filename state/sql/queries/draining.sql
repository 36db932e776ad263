-- :name find
SELECT draining_since, draining_why FROM life;

-- :name begin
UPDATE life SET draining_since = ?, draining_why = ? WHERE draining_since IS NULL;

-- :name end
UPDATE life SET draining_since = NULL, draining_why = '';

-- :name owed
-- Of each target what was not settled, and of that what waits for a person.
SELECT t.name, sum(l.pending + l.inflight + l.in_doubt + l.delayed), sum(l.parked)
  FROM lanes l JOIN targets t ON t.id = l.target_id
 GROUP BY t.id
HAVING sum(l.pending + l.inflight + l.in_doubt + l.delayed + l.parked) > 0
 ORDER BY t.name;

-- :name unsent
SELECT coalesce(sum(seq - acked_seq), 0) FROM streams_out WHERE epoch = (SELECT epoch FROM life);

-- :name unapplied
SELECT count(*) FROM unapplied;
