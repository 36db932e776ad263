"""Payloads by the estate that an event carries."""

from __future__ import annotations

import logging
import sqlite3

from agent.estate.compiled import CompiledLane
from agent.estate.known import KnownEstates
from state.lanes import Lane
from state.model.errors import DistctlError, RejectedError
from state.model.event import Event

_log = logging.getLogger("distctl.rendering")


class Renderer:
    """An `agent.relay.Render` by the estates of one store. Used on the store's writer thread."""

    def __init__(self, known: KnownEstates) -> None:
        self._known = known

    def render(self, connection: sqlite3.Connection, lane: Lane, event: Event) -> bytes:
        """The payload of `event` for `lane`. Raises `RejectedError`, which parks it."""
        try:
            found = self._known.get(connection, event.estate).lanes.get((lane.flow, lane.target))
        except RejectedError:
            raise
        except (DistctlError, ValueError) as error:  # a ValueError: a document that this version reads otherwise
            raise RejectedError(
                f"the estate {event.estate} that routes this event cannot be used: {error}",
                rule="an event is routed by the estate it carries",
                hint="keep the version of distctl that wrote it until its lanes are settled",
                code="estate",
            ) from error
        if found is None:
            raise RejectedError(
                f"the estate {event.estate} has no lane {lane.flow} to {lane.target}",
                rule="an event is routed by the estate it carries",
                hint="this is a fault of distctl: keep the store and report it",
                code="estate",
            )
        return _rendered(found, event)


def _rendered(lane: CompiledLane, event: Event) -> bytes:
    try:
        return lane.render(event)
    except RejectedError:
        raise
    except Exception as error:  # our own fault, and yet one bad record never stops a lane
        _log.exception("the mapping of %s to %s failed by our own fault", lane.flow, lane.name)
        raise RejectedError(
            f"the mapping of {lane.flow} to {lane.name} failed ({type(error).__name__})",
            rule="a mapping makes JSON or says why it cannot",
            hint="this is a fault of distctl: the log has the details; report it, or write the mapping in another way",
            code="mapping-fault",
        ) from error
