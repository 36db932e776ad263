"""Targets: what the relay learned about the systems that it delivers to, for people to see."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from state.model.clock import to_millis
from state.queries import load

_SQL = load("targets")


def note(
    connection: sqlite3.Connection,
    name: str,
    *,
    retry_at: datetime | None,
    reason: str,
    failures: int,
    succeeded_at: datetime | None,
) -> None:
    """How the target's breaker stands, and when a call last got through."""
    millis = [None if moment is None else to_millis(moment) for moment in (retry_at, succeeded_at)]
    connection.execute(_SQL.note, (millis[0], reason, failures, millis[1], name))


def close_breakers(connection: sqlite3.Connection) -> None:
    """Forget the outages that an earlier run saw: the first call tries."""
    connection.execute(_SQL.close_breakers)
