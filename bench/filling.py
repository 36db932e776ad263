"""Fills a store: one delivery of each flow, written by the store itself, becomes as many as wanted by SQL alone.

The copies differ from the first as real ones would: own event id, number, subject, trace and, where keys are many, own key.
Nothing is synced meanwhile, since nothing is promised to anybody; the file is whole before it is opened as a store.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

_FAST: Final = "PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA cache_size = -262144;"
_BASES: Final = """
CREATE TEMP TABLE base AS
SELECT d.id AS delivery, d.event_seq AS event, d.lane_id AS lane, d.key_id AS key_id, e.subject AS subject,
       (SELECT entity FROM trace t WHERE t.key = e.subject AND t.is_subject = 1) AS entity,
       (SELECT seq FROM sqlite_sequence WHERE name = 'events') AS last_event,
       (SELECT seq FROM sqlite_sequence WHERE name = 'deliveries') AS last_delivery,
       (SELECT seq FROM sqlite_sequence WHERE name = 'key_queues') AS last_key
  FROM deliveries d JOIN lanes l ON l.id = d.lane_id JOIN events e ON e.seq = d.event_seq
 WHERE l.flow = :flow;
CREATE TEMP TABLE copy (n INTEGER PRIMARY KEY, subject TEXT NOT NULL);
"""
_COPIES: Final = """
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :count)
INSERT INTO copy SELECT n, printf('%s%07d', substr(b.subject, 1, 3) || :letter, n) FROM number, base b
"""
_EVENTS: Final = """
INSERT INTO events (seq, id, origin_id, subject, partition_key, time, recorded_at, place, data)
SELECT b.last_event + c.n, randomblob(16), e.origin_id, c.subject,
       CASE WHEN e.partition_key = e.subject THEN c.subject ELSE e.partition_key END, e.time, e.recorded_at, e.place,
       CAST(replace(CAST(e.data AS TEXT), e.subject, c.subject) AS BLOB)
  FROM base b JOIN events e ON e.seq = b.event, copy c
"""
_TRACE: Final = """
INSERT INTO trace (key, entity, is_subject, event_seq)
SELECT c.subject, b.entity, 1, b.last_event + c.n FROM base b, copy c
"""
_KEYS: Final = """
INSERT INTO key_queues (id, target_id, order_domain, partition_key, lane_id, head, state, due_at)
SELECT b.last_key + c.n, k.target_id, k.order_domain, c.subject, k.lane_id, b.last_delivery + c.n, 'due', k.due_at
  FROM base b JOIN key_queues k ON k.id = b.key_id AND k.partition_key = b.subject, copy c
"""
_DELIVERIES: Final = """
INSERT INTO deliveries (id, event_seq, lane_id, key_id, is_snapshot, due_at)
SELECT b.last_delivery + c.n, b.last_event + c.n, b.lane,
       CASE WHEN k.partition_key = b.subject THEN b.last_key + c.n ELSE b.key_id END, d.is_snapshot, d.due_at
  FROM base b JOIN deliveries d ON d.id = b.delivery JOIN key_queues k ON k.id = b.key_id, copy c
"""
_COUNTER: Final = "UPDATE lanes SET pending = pending + :count WHERE id = (SELECT lane FROM base)"


def fill(store: Path, flow: str, count: int, *, letter: str) -> None:
    """Add `count` deliveries like the only one that `flow` has; `letter` begins their order numbers."""
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.executescript(_FAST)
        connection.executescript(_BASES.replace(":flow", f"'{flow}'"))
        connection.execute("BEGIN IMMEDIATE")
        for statement in (_COPIES, _EVENTS, _TRACE, _KEYS, _DELIVERIES, _COUNTER):
            connection.execute(statement, {"count": count, "letter": letter})
        connection.execute("COMMIT")
        connection.execute("PRAGMA journal_mode = wal").fetchall()
