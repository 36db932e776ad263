"""Ids that two sites use: an event is known by its site and its id, and only one of two can have an id in a store.

Honest agents make ids of what only they can have read, so one of the two was made up. Which one, no store can tell: the first
stays, and the other is set aside with both named. It is not taken for the same event, so no site keeps an event of another out in
silence.
"""

from __future__ import annotations

import sqlite3
from datetime import datetime

from state import dead_letters
from state.dead_letters import Letter
from state.model.clock import to_millis
from state.model.event import Event
from state.model.ids import EventId, digest


def set_aside(connection: sqlite3.Connection, event: Event, holder: str, *, came_from: str, now: datetime) -> None:
    """Set the event aside, since one of the site `holder` has its id."""
    letter = Letter(
        record_id=record_id(came_from, event.id),
        site=event.site,
        system=event.system,
        flow=event.flow,
        subject=event.subject,
        place=f"event {event.id} from {came_from}",
        field="id",
        rule="an event is known by its site and its id, and an id is of the site whose event came first",
        code="id-taken",
        shown=event.id,
        message=f"this event of {event.site} has the id of one of {holder}: one of the two was made up",
        hint="compare both: `distctl trace` of their keys. Deny the agent that made it up (`distctl agents deny SITE --reason "
        f"...`); if that is the one of {holder}, have {event.site} take its record in again, which gives it an id of its own",
        raw=event.to_json(),
    )
    dead_letters.add(connection, [letter], now=to_millis(now))


def record_id(came_from: str, event: EventId) -> EventId:
    """Under what a thing that came from another agent is set aside: no site can have it in the place of another's."""
    return EventId(digest("set aside", came_from, event, size=16).hex())
