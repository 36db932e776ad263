"""What each source remembers: its checkpoint, and the items it has named. Committed with the events it led to."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Sequence

from state.model.ids import digest
from state.queries import load

_SQL = load("checkpoints")


def find(connection: sqlite3.Connection, source: str) -> bytes | None:
    """The checkpoint of the last committed batch."""
    row = connection.execute(_SQL.find, (source,)).fetchone()
    return row[0] if row else None


def known(connection: sqlite3.Connection, source: str, items: Collection[str]) -> set[str]:
    """Those of `items` that the source remembered."""
    return {item for item in items if connection.execute(_SQL.is_known, (source, _hash(item))).fetchone()}


def advance(
    connection: sqlite3.Connection,
    source: str,
    *,
    checkpoint: bytes | None,
    remember: Sequence[str],
    records: int,
    unreadable: int,
    now: int,
) -> None:
    """Move the source on: a checkpoint of None leaves the old one in place."""
    connection.execute(_SQL.add_source, (source,))
    row = connection.execute(_SQL.advance, (checkpoint, records, unreadable, now, source)).fetchone()
    connection.executemany(_SQL.remember, [(row[0], _hash(item), now) for item in remember])


def _hash(item: str) -> bytes:
    return digest(item, size=16)
