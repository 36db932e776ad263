"""The trace index: which events speak of a business key, as their subject or by reference."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from state.model.ids import Seq
from state.queries import load

_SQL = load("trace")

Link = tuple[str, str, int, int]
"""(key, entity, 1 where the event is about the key and 0 where it only names it, event number)."""


def add(connection: sqlite3.Connection, links: Iterable[Link]) -> None:
    """Index events under the keys they speak of."""
    connection.executemany(_SQL.add, links)


def find(connection: sqlite3.Connection, key: str, *, limit: int) -> list[Seq]:
    """The newest events that speak of `key`, oldest of them first."""
    rows = connection.execute(_SQL.list_events, (key, limit)).fetchall()
    return [Seq(row[0]) for row in reversed(rows)]


def latest(connection: sqlite3.Connection, *, entity: str, key: str) -> Seq | None:
    """The newest event about the document (entity, key)."""
    row = connection.execute(_SQL.latest, (key, entity)).fetchone()
    return Seq(row[0]) if row else None
