-- :name beginnings
-- Streams to a peer of which something was let go.
SELECT epoch, tier, let_go_seq, let_go_chain, let_go_at FROM streams_out WHERE peer_id = ? AND let_go_seq > 0;

-- :name recorded
-- When the last event that came by a stream up to a sequence was recorded, where it is still here.
SELECT ev.recorded_at
  FROM arrivals a JOIN events ev ON ev.seq = a.event_seq
 WHERE a.peer_id = ? AND a.epoch = ? AND a.tier = ? AND a.seq = ?;

-- :name add
INSERT INTO gaps (peer_id, is_ours, epoch, tier, first_seq, last_seq, since, until, of_give_back, found_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- :name list
SELECT is_ours, epoch, tier, first_seq, last_seq, since, until, of_give_back
  FROM gaps
 WHERE peer_id = ?
 ORDER BY epoch, tier, first_seq;

-- :name ended
-- Streams of a peer's lives from one on and before another, each with how much of it is here.
SELECT epoch, tier, seq FROM streams_in WHERE peer_id = ? AND epoch >= ? AND epoch < ? ORDER BY epoch, tier;

-- :name number_before
-- The newest local number when a stream had come to a place: what came by it behind that place has higher ones.
SELECT coalesce(max(event_seq), 0)
  FROM arrivals
 WHERE peer_id = ?1 AND (epoch < ?2 OR (epoch = ?2 AND tier = ?3 AND seq <= ?4));

-- :name let_go_upto
SELECT value FROM counters WHERE name = 'let_go_upto';

-- :name frames
-- By which a stream came behind a place, the last first: its end and the newest local number then, and the same of the one before.
SELECT seq, event_seq, lag(seq) OVER w, lag(event_seq) OVER w
  FROM arrivals
 WHERE peer_id = ? AND epoch = ? AND tier = ? AND seq > ?
WINDOW w AS (ORDER BY seq)
 ORDER BY seq DESC;

-- :name count_here
SELECT count(*) FROM events WHERE seq > ? AND seq <= ?;

-- :name around
-- When the last event before some local numbers was recorded, and the first behind them.
SELECT (SELECT recorded_at FROM events WHERE seq <= ? ORDER BY seq DESC LIMIT 1),
       (SELECT recorded_at FROM events WHERE seq >= ? ORDER BY seq LIMIT 1);
