"""Key queues: for each (target, order domain, partition key) with unsettled work, which delivery is its head and when it is due.

A row exists while something of its key is unsettled, so a claim looks at work and never at history. The head is the oldest
unsettled delivery; in any order it is the first that is due. A head in flight keeps its place until it is settled or released,
which makes for at most one call at once a key; a head that is parked or waits for a person blocks its key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from state.lanes import Lane, order_mode
from state.model.clock import to_millis
from state.model.delivery import OrderMode
from state.model.ids import LaneId
from state.queries import load

_SQL = load("key_queues")


def bring_dues_near(connection: sqlite3.Connection, *, now: datetime, longest: timedelta) -> int:
    """Make due what waits although it has no reason to, since the wall clock went back while nobody looked: what was never
    tried, and what waits beyond the longest pause. Returns how many keys.
    """
    row = {"now": to_millis(now), "longest": to_millis(now + longest)}
    return connection.execute(_SQL.bring_near, row).rowcount


def move_dues(connection: sqlite3.Connection, *, now: datetime, back: timedelta) -> int:
    """Let what waits wait no longer than it was to, after the wall clock went back by so much. Returns how many keys."""
    row = {"now": to_millis(now), "back": back // timedelta(milliseconds=1)}
    connection.execute(_SQL.move_heads, row)
    return connection.execute(_SQL.move, row).rowcount


class KeyQueues:
    """The key queues inside one unit of work, at one moment."""

    def __init__(self, connection: sqlite3.Connection, *, now: datetime) -> None:
        self._connection = connection
        self._millis = to_millis(now)
        self._modes: dict[LaneId, OrderMode] = {}

    def ensure(self, heads: Iterable[tuple[Lane, str, int]]) -> None:
        """A row for each (lane, partition key, delivery); the delivery is its head where the key is new."""
        rows = [(lane.target_id, lane.order_domain, key, lane.id, head, self._millis) for lane, key, head in heads]
        self._connection.executemany(_SQL.ensure, rows)

    def of(self, delivery: int) -> tuple[int, int]:
        """The key of a delivery and the key's head."""
        key, head = self._connection.execute(_SQL.of_delivery, (delivery,)).fetchone()
        return key, head

    def claim(self, keys: Iterable[int]) -> None:
        """Their heads are in flight."""
        self._connection.executemany(_SQL.claim, [(key,) for key in keys])

    def is_busy(self, key: int, lane: LaneId) -> bool:
        """Whether the key's head stays what it is: it is in flight, or it is due and any order will do."""
        state, due_at = self._connection.execute(_SQL.state, (key,)).fetchone()
        return state == "inflight" or (self._is_unordered(lane) and state == "due" and due_at <= self._millis)

    def advance(self, moved: Sequence[tuple[int, LaneId]]) -> None:
        """Point each key at its next head, or remove it where nothing is left. The lane is that of the delivery that moved."""
        ordered = [(key, self._millis) for key, lane in moved if not self._is_unordered(lane)]
        unordered = [(key, self._millis) for key, lane in moved if self._is_unordered(lane)]
        self._connection.executemany(_SQL.remove, [(key,) for key, _ in moved])
        self._connection.executemany(_SQL.advance, ordered)
        self._connection.executemany(_SQL.advance_in_any_order, unordered)

    def _is_unordered(self, lane: LaneId) -> bool:
        if lane not in self._modes:
            self._modes[lane] = order_mode(self._connection, lane)
        return self._modes[lane] is OrderMode.ANY
