"""Lanes: the legs of flows, what is due in them, and their counters, which move with the deliveries."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from state.model.clock import from_millis, to_millis
from state.model.delivery import DeliveryState, OrderMode
from state.model.ids import LaneId
from state.queries import load

_SQL = load("lanes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A leg of a flow, as the store knows it."""

    id: LaneId
    flow: str
    target: str  # site/system
    target_id: int
    tier: int
    order_mode: OrderMode
    order_domain: str
    shadow_of: str | None


def ensure_lane(
    connection: sqlite3.Connection,
    *,
    flow: str,
    target: str,
    tier: int,
    order_mode: OrderMode,
    order_domain: str,
    shadow_of: str | None,
) -> None:
    """Open the lane (flow, target), or bring it up to date. Its order domain stays while it exists."""
    connection.execute(_SQL.ensure_target, (target,))
    connection.execute(_SQL.ensure, (flow, tier, order_mode, order_domain, shadow_of, target))


def list_lanes(connection: sqlite3.Connection) -> list[Lane]:
    """Every lane there ever was."""
    return [
        Lane(
            id=LaneId(row[0]),
            flow=row[1],
            target=row[2],
            target_id=row[3],
            tier=row[4],
            order_mode=OrderMode(row[5]),
            order_domain=row[6],
            shadow_of=row[7],
        )
        for row in connection.execute(_SQL.list)
    ]


def order_mode(connection: sqlite3.Connection, lane: LaneId) -> OrderMode:
    """In which order the lane's deliveries go."""
    return OrderMode(connection.execute(_SQL.order_mode, (lane,)).fetchone()[0])


def owing(connection: sqlite3.Connection) -> set[LaneId]:
    """The lanes with deliveries on their way or in doubt."""
    return {LaneId(lane) for (lane,) in connection.execute(_SQL.owing)}


def is_due(connection: sqlite3.Connection, lane: LaneId, *, now: datetime) -> bool:
    """Whether the lane has a key to work on now."""
    return bool(connection.execute(_SQL.is_due, (lane, to_millis(now))).fetchone()[0])


def next_due(connection: sqlite3.Connection, lane: LaneId) -> datetime | None:
    """When the lane's next key becomes due; None where nothing will by itself."""
    millis = connection.execute(_SQL.next_due, (lane,)).fetchone()[0]
    return None if millis is None else from_millis(millis)


def count(connection: sqlite3.Connection, moved: Mapping[tuple[LaneId, DeliveryState], int]) -> None:
    """Add to the lanes' counters how many deliveries entered each state (below zero: left it)."""
    for lane in {lane for lane, _ in moved}:
        connection.execute(_SQL.count, (*(moved.get((lane, state), 0) for state in DeliveryState), lane))


def count_compared(connection: sqlite3.Connection, lane: LaneId, *, is_alike: bool) -> None:
    """Count one delivery of a shadow that was compared."""
    connection.execute(_SQL.count_compared, (int(is_alike), int(not is_alike), lane))
