"""Owes admitted events to the lanes of this site that want them, and tells the audit what that superseded."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

from agent.estate.compiled import CompiledLane
from state import audit
from state.inbox import Admitted
from state.lanes import Lane
from state.model.clock import to_millis
from state.model.delivery import Doubt
from state.model.event import Op
from state.model.ids import EventId
from state.outbox import Outbox, Owed

_NOTHING: Final[Mapping[EventId, datetime]] = MappingProxyType({})


def owe(
    connection: sqlite3.Connection,
    routed: Iterable[tuple[Admitted, Sequence[CompiledLane]]],
    lanes: Mapping[tuple[str, str], Lane],
    *,
    flow: str,
    came_in: str,
    now: datetime,
    again: Mapping[EventId, datetime] = _NOTHING,
) -> None:
    """Owe each event of `flow` to those of its lanes that are in `lanes`, by (flow, target).

    `came_in` names what brought them. Those in `again` a life of this store that ended may have delivered, at the earliest then:
    they begin in doubt.
    """
    with Outbox(connection, now=now) as outbox:
        superseded = outbox.add(
            Owed(
                one.seq,
                lanes[lane.flow, lane.name],
                one.event.partitionkey,
                one.event.op is Op.SNAPSHOT,
                _doubt(again.get(one.event.id), now),
            )
            for one, wanting in routed
            for lane in wanting
            if (lane.flow, lane.name) in lanes
        )
    if superseded:
        audit.append(
            connection,
            at_ms=to_millis(now),
            actor="agent",
            action="supersede",
            target=f"flow {flow}",
            reason="a newer snapshot of the same scope was taken in",
            details={"deliveries": superseded, "document": came_in},
        )


def _doubt(since: datetime | None, now: datetime) -> Doubt | None:
    return Doubt(first_sent_at=min(since, now), last_sent_at=now) if since else None
