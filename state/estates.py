"""Every estate that was in force, by hash: an event is routed by the one it carries, whatever came after."""

from __future__ import annotations

import sqlite3

from state.model.errors import NotFoundError
from state.model.estate import Estate
from state.model.ids import EstateHash
from state.queries import load

_SQL = load("estates")


def add(connection: sqlite3.Connection, estate: Estate, *, now: int) -> None:
    """Keep `estate`; keeping it again changes nothing."""
    connection.execute(_SQL.add, (estate.hash, estate.to_json(), now))


def find(connection: sqlite3.Connection, estate_hash: EstateHash) -> Estate:
    """The estate of that hash. Raises `NotFoundError`."""
    row = connection.execute(_SQL.find, (estate_hash,)).fetchone()
    if row is None:
        raise NotFoundError(f"no estate {estate_hash} was ever in force here", code="unknown-estate")
    return Estate.from_json(row[0])
