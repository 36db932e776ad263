"""Every estate that was in force, by hash: an event is routed by the one it carries, whatever came after."""

from __future__ import annotations

import sqlite3

from state.model.errors import NotFoundError
from state.model.estate import Estate
from state.model.ids import EstateHash, LaneId
from state.queries import load

_SQL = load("estates")


def adopt(connection: sqlite3.Connection, estate: Estate, *, now: int) -> EstateHash | None:
    """Put `estate` in force; returns the hash of the one before it, None where it was in force already."""
    row = connection.execute(_SQL.last).fetchone()
    before = EstateHash(row[0]) if row else EstateHash("")
    connection.execute(_SQL.adopt, (estate.hash, estate.to_json(), now))
    return None if before == estate.hash else before


def find(connection: sqlite3.Connection, estate_hash: EstateHash) -> Estate:
    """The estate of that hash. Raises `NotFoundError`."""
    row = connection.execute(_SQL.find, (estate_hash,)).fetchone()
    if row is None:
        raise NotFoundError(f"no estate {estate_hash} was ever in force here", code="unknown-estate")
    return Estate.from_json(row[0])


def of_lane(connection: sqlite3.Connection, lane: LaneId) -> Estate | None:
    """The estate that routes what the lane still owes, or None where it owes nothing."""
    row = connection.execute(_SQL.of_lane, (lane,)).fetchone()
    return Estate.from_json(row[0]) if row else None
