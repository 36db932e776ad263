"""Fills the streams of a site that was away: one order of each tier, taken in by the agent, becomes as many as wanted.

The copies differ from the first as real ones would: own event id, number and trace, the order number that they share with the
other revisions of their key, and the revision in their document. SQL writes the rows; the store's own function puts them into
their stream, with the chain. Nothing is synced meanwhile; the file is whole before it is opened as a store.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from bench.estate import HUB, TIER_FLOWS
from bench.orders import TERMS
from state import life, peers, streams
from state.model.ids import EventId, Seq
from state.streams import Item

REVISIONS: Final = 10
"""How many events of the backlog a key has."""

_FAST: Final = "PRAGMA journal_mode = off; PRAGMA synchronous = off; PRAGMA cache_size = -262144;"
_BASE: Final = """
CREATE TEMP TABLE base AS
SELECT e.seq, e.subject, t.entity, (SELECT seq FROM sqlite_sequence WHERE name = 'events') AS last
  FROM events e JOIN origins o ON o.id = e.origin_id JOIN trace t ON t.event_seq = e.seq AND t.is_subject = 1
 WHERE o.flow = ?
"""
_COPIES: Final = """
CREATE TEMP TABLE copy AS
WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :count)
SELECT n, printf('P%d-%08d', :tier, n % :keys) AS subject, n / :keys AS revision FROM number
"""
_EVENTS: Final = """
INSERT INTO events (seq, id, origin_id, subject, partition_key, time, recorded_at, place, data)
SELECT b.last + c.n, randomblob(16), e.origin_id, c.subject, c.subject, e.time, e.recorded_at, e.place,
       CAST(replace(replace(CAST(e.data AS TEXT), e.subject, c.subject), :terms, printf('%s%03d ', :terms, c.revision)) AS BLOB)
  FROM base b JOIN events e ON e.seq = b.seq, copy c
"""
_TRACE: Final = """
INSERT INTO trace (key, entity, is_subject, event_seq)
SELECT c.subject, b.entity, 1, b.last + c.n FROM base b, copy c
"""
_ADDED: Final = "SELECT e.seq, e.id, e.data FROM base b JOIN events e ON e.seq > b.last ORDER BY e.seq"


def fill_streams(store: Path, counts: dict[int, int]) -> None:
    """Add so many events of each tier to what the site has for its hub."""
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.executescript(_FAST)
        for tier, count in counts.items():
            _add(connection, tier, count)
        connection.execute("PRAGMA journal_mode = wal").fetchall()


def _add(connection: sqlite3.Connection, tier: int, count: int) -> None:
    values = {"count": count, "tier": tier, "keys": -(-count // REVISIONS), "terms": TERMS}
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_BASE, (TIER_FLOWS[tier],))
    for statement in (_COPIES, _EVENTS, _TRACE):
        connection.execute(statement, values)
    peer, epoch = peers.ensure(connection, HUB), life.get(connection).epoch
    streams.append(connection, peer.id, epoch=epoch, tier=tier, items=_items(connection))
    connection.execute("COMMIT")
    connection.executescript("DROP TABLE copy; DROP TABLE base")


def _items(connection: sqlite3.Connection) -> Iterator[Item]:
    for seq, identity, data in connection.execute(_ADDED):
        yield Seq(seq), EventId(identity.hex()), data
