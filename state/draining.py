"""An agent that drains takes nothing in from its own systems. It is drained while it owes nothing to anybody."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from state.model.clock import from_millis
from state.queries import load

_SQL = load("draining")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """What an agent still owes."""

    deliveries: int  # to its own systems, and on their way
    parked: int  # of its own systems, and for a person to decide
    targets: Collection[str]  # the systems that these are owed to
    events: int  # that another agent has not acknowledged yet
    unapplied: int  # events from others that wait for their estate

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each, as the audit and other agents are told."""
        return {
            "deliveries": self.deliveries,
            "parked": self.parked,
            "events": self.events,
            "unapplied": self.unapplied,
        }

    @property
    def is_nothing(self) -> bool:
        """Whether it is free to go."""
        return not any(self.counts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """Since when an agent drains, None: it does not; why; and what it owes at this moment."""

    since: datetime | None
    why: str
    owed: Owed

    @property
    def state(self) -> str:
        """`open`, `draining` or `drained`."""
        if self.since is None:
            return "open"
        return "drained" if self.owed.is_nothing else "draining"


def look(connection: sqlite3.Connection) -> Draining:
    """How it stands now."""
    since, why = connection.execute(_SQL.find).fetchone() or (None, "")
    rows = connection.execute(_SQL.owed).fetchall()
    owed = Owed(
        deliveries=sum(moving for _, moving, _ in rows),
        parked=sum(parked for _, _, parked in rows),
        targets=[target for target, _, _ in rows],
        events=connection.execute(_SQL.unsent).fetchone()[0],
        unapplied=connection.execute(_SQL.unapplied).fetchone()[0],
    )
    return Draining(since=None if since is None else from_millis(since), why=why, owed=owed)


def begin(connection: sqlite3.Connection, *, now: int, why: str) -> bool:
    """Drain from now on; answers whether it did not already."""
    return connection.execute(_SQL.begin, (now, why)).rowcount > 0


def end(connection: sqlite3.Connection) -> None:
    """Take in again."""
    connection.execute(_SQL.end)
