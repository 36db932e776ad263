-- :name beginnings
-- Streams to a peer of which something was let go.
SELECT epoch, tier, let_go_seq, let_go_chain, let_go_at FROM streams_out WHERE peer_id = ? AND let_go_seq > 0;

-- :name recorded
-- When the last event that came by a stream up to a sequence was recorded, where it is still here.
SELECT ev.recorded_at
  FROM arrivals a JOIN events ev ON ev.seq = a.event_seq
 WHERE a.peer_id = ? AND a.epoch = ? AND a.tier = ? AND a.seq = ?;

-- :name add
INSERT INTO gaps (peer_id, is_ours, epoch, tier, first_seq, last_seq, since, until, found_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING;

-- :name list
SELECT is_ours, epoch, tier, first_seq, last_seq, since, until FROM gaps WHERE peer_id = ? ORDER BY epoch, tier, first_seq;
