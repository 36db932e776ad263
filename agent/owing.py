"""Owes admitted events to the lanes of this site that want them, and tells the audit what that superseded."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from agent.estate.compiled import CompiledLane
from state import audit
from state.inbox import Admitted
from state.lanes import Lane
from state.model.clock import to_millis
from state.model.event import Op
from state.outbox import Outbox, Owed


def owe(
    connection: sqlite3.Connection,
    routed: Iterable[tuple[Admitted, Sequence[CompiledLane]]],
    lanes: Mapping[tuple[str, str], Lane],
    *,
    flow: str,
    came_in: str,
    now: datetime,
) -> None:
    """Owe each event of `flow` to those of its lanes that are in `lanes`, by (flow, target).

    `came_in` names what brought them.
    """
    with Outbox(connection, now=now) as outbox:
        superseded = outbox.add(
            Owed(one.seq, lanes[lane.flow, lane.name], one.event.partitionkey, one.event.op is Op.SNAPSHOT)
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
