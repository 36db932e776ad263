-- :name open
INSERT INTO streams_out (peer_id, epoch, tier) VALUES (?, ?, ?)
ON CONFLICT (peer_id, epoch, tier) DO NOTHING;

-- :name end
SELECT id, seq, chain FROM streams_out WHERE peer_id = ? AND epoch = ? AND tier = ?;

-- :name add_item
INSERT INTO stream_items (stream_id, seq, event_seq, chain) VALUES (?, ?, ?, ?);

-- :name move_end
UPDATE streams_out SET seq = ?, chain = ? WHERE id = ?;

-- :name sent
SELECT tier, seq, chain FROM streams_out WHERE peer_id = ? AND epoch = ?;

-- :name acknowledged
-- What the peer said it has, of streams of which it said anything.
SELECT s.tier, s.acked_seq, coalesce(i.chain, s.let_go_chain)
  FROM streams_out s LEFT JOIN stream_items i ON i.stream_id = s.id AND i.seq = s.acked_seq
 WHERE s.peer_id = ? AND s.epoch = ? AND s.acked_seq > 0 AND (i.seq IS NOT NULL OR s.let_go_seq = s.acked_seq);

-- :name chain_at
-- Where the stream still has it: at an item, or where the first item goes on.
SELECT coalesce(i.chain, s.let_go_chain)
  FROM streams_out s LEFT JOIN stream_items i ON i.stream_id = s.id AND i.seq = ?4
 WHERE s.peer_id = ?1 AND s.epoch = ?2 AND s.tier = ?3 AND ?4 > 0 AND (i.seq IS NOT NULL OR s.let_go_seq = ?4);

-- :name acknowledge
UPDATE streams_out SET acked_seq = ?4 WHERE peer_id = ?1 AND epoch = ?2 AND tier = ?3 AND seq >= ?4;

-- :name events_after
-- Each with its place, and then as `get_event` of inbox.sql reads it.
SELECT i.seq, ev.seq, ev.id, ev.subject, ev.partition_key, ev.time, ev.recorded_at, ev.correlation_id, ev.causation_id,
       ev.traceparent, ev.place, ev.extensions, ev.data, ev.origin_id, coalesce(r.sha256, ev.raw_elsewhere)
  FROM streams_out s
  JOIN stream_items i ON i.stream_id = s.id
  JOIN events ev ON ev.seq = i.event_seq
  LEFT JOIN raw_documents r ON r.id = ev.raw_id
 WHERE s.peer_id = ? AND s.epoch = ? AND s.tier = ? AND i.seq > ?
 ORDER BY i.seq
 LIMIT ?;

-- :name received
SELECT tier, seq, chain FROM streams_in WHERE peer_id = ? AND epoch = ?;

-- :name receive
INSERT INTO streams_in (peer_id, epoch, tier, seq, chain) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (peer_id, epoch, tier) DO UPDATE SET seq = excluded.seq, chain = excluded.chain;

-- :name unacknowledged
-- What the ended epoch still owes a peer, in the order of each stream.
SELECT s.peer_id, s.tier, i.event_seq, ev.id, ev.data, i.seq <= s.again_seq
  FROM streams_out s
  JOIN stream_items i ON i.stream_id = s.id AND i.seq > s.acked_seq
  JOIN events ev ON ev.seq = i.event_seq
 WHERE s.epoch = ?
 ORDER BY s.peer_id, s.tier, i.seq;

-- :name owed
-- How many events each peer has still to be sent.
SELECT tier, seq - acked_seq FROM streams_out WHERE peer_id = ? AND epoch = ?;

-- :name received_before
-- Of the newest life before that one of which anything is here.
SELECT epoch, tier, seq, chain
  FROM streams_in
 WHERE peer_id = ?1 AND epoch = (SELECT max(epoch) FROM streams_in WHERE peer_id = ?1 AND epoch < ?2);

-- :name lose
-- What the peer acknowledged of one tier of an ended epoch, and does not have any more.
UPDATE streams_out SET acked_seq = ?4 WHERE peer_id = ?1 AND epoch = ?2 AND tier = ?3 AND acked_seq > ?4;

-- :name ended
SELECT epoch, tier FROM streams_out WHERE peer_id = ? AND epoch >= ? AND epoch < ?;

-- :name lost
-- What a peer does not have of the epochs since one, in the order in which it is to have it, each event once.
SELECT tier, event_seq, id, data
  FROM (SELECT s.tier, i.event_seq, ev.id, ev.data, s.epoch, i.seq,
               row_number() OVER (PARTITION BY s.tier, i.event_seq ORDER BY s.epoch, i.seq) AS time
          FROM streams_out s
          JOIN stream_items i ON i.stream_id = s.id AND i.seq > s.acked_seq
          JOIN events ev ON ev.seq = i.event_seq
         WHERE s.peer_id = ? AND s.epoch >= ? AND s.epoch <= ?)
 WHERE time = 1
 ORDER BY tier, epoch, seq;

-- :name forget
UPDATE streams_out SET acked_seq = 0 WHERE peer_id = ? AND epoch = ?;

-- :name drop_items
DELETE FROM stream_items WHERE stream_id IN (SELECT id FROM streams_out WHERE peer_id = ? AND epoch = ?);

-- :name sent_last_before
-- The newest of our lives before that one in which the peer was sent anything.
SELECT coalesce(max(epoch), 0) FROM streams_out WHERE peer_id = ? AND epoch < ?;

-- :name again
-- Up to which place each stream may have been had by a life of the peer that ended.
SELECT tier, again_seq FROM streams_out WHERE peer_id = ? AND epoch = ?;

-- :name mark_again
UPDATE streams_out SET again_seq = max(again_seq, min(seq, acked_seq + ?3)) WHERE peer_id = ?1 AND epoch = ?2;

-- :name mark_all_again
-- However far the streams go.
UPDATE streams_out SET again_seq = 9223372036854775807 WHERE peer_id = ? AND epoch = ?;

-- :name end_marking
UPDATE streams_out SET again_seq = seq WHERE again_seq > seq;

-- :name set_again
UPDATE streams_out SET again_seq = ?4 WHERE peer_id = ?1 AND epoch = ?2 AND tier = ?3;

-- :name note_arrival
INSERT INTO arrivals (peer_id, epoch, tier, seq, event_seq)
VALUES (?, ?, ?, ?, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0));

-- :name arrivals_beyond
-- Where the newest event here stood before and after what came by the peer's streams of ended lives beyond a mark; one tier.
SELECT coalesce(max(iif(a.epoch = ?3 AND a.seq <= ?4, a.event_seq, 0)), 0),
       coalesce(max(iif(a.epoch > ?3 OR a.seq > ?4, a.event_seq, 0)), 0)
  FROM arrivals a
 WHERE a.peer_id = ?1 AND a.tier = ?2 AND a.epoch >= ?3 AND a.epoch < ?5;

-- :name came_of
-- Events of a range that arose at a site (?3), or at any other (?4); where ?5 is given only those of that contract.
SELECT ev.seq, ev.id, ev.data
  FROM events ev JOIN origins o ON o.id = ev.origin_id
 WHERE ev.seq > ?1 AND ev.seq <= ?2 AND (?3 = '' OR o.site = ?3) AND (?4 = '' OR o.site <> ?4) AND (?5 = '' OR o.contract = ?5)
 ORDER BY ev.seq;

-- :name begin_anew
UPDATE streams_out
   SET seq = 0, chain = zeroblob(32), acked_seq = 0, let_go_seq = 0, let_go_chain = NULL, let_go_at = NULL
 WHERE peer_id = ? AND epoch = ?;

-- :name tier_under_way
-- The tier by which an order domain was sent last, where the peer does not have all of that.
SELECT f.tier
  FROM stream_domains f
  JOIN streams_out s ON s.peer_id = f.peer_id AND s.epoch = ?3 AND s.tier = f.tier AND s.acked_seq < f.seq
 WHERE f.peer_id = ?1 AND f.domain = ?2;

-- :name note_domain
INSERT INTO stream_domains (peer_id, domain, tier, seq)
SELECT ?1, ?2, ?4, s.seq FROM streams_out s WHERE s.peer_id = ?1 AND s.epoch = ?3 AND s.tier = ?4
ON CONFLICT (peer_id, domain) DO UPDATE SET tier = excluded.tier, seq = excluded.seq;

-- :name move_domains
-- The streams of an epoch were numbered anew: what is under way of a domain lies somewhere in them.
UPDATE stream_domains
   SET seq = coalesce((SELECT s.seq FROM streams_out s
                        WHERE s.peer_id = stream_domains.peer_id AND s.epoch = ?2 AND s.tier = stream_domains.tier), 0)
 WHERE ?1 IS NULL OR peer_id = ?1;
