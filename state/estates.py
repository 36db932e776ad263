"""Every estate that was in force, by hash: an event is routed by the one it carries, whatever came after."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final

from pydantic import ValidationError

from state.model.errors import ConfigError, NotFoundError, RejectedError
from state.model.estate import Estate, hash_of
from state.model.ids import EstateHash, LaneId
from state.queries import load

_SQL = load("estates")

TOGETHER_BYTES: Final = 4 * 1024 * 1024
"""Of estates that are read at once; there is always room for one."""


def adopt(connection: sqlite3.Connection, estate: Estate, *, now: int) -> EstateHash | None:
    """Put `estate` in force; returns the hash of the one before it, None where it was in force already."""
    before = last(connection)
    connection.execute(_SQL.adopt, (estate.hash, estate.to_json(), now))
    return None if before == estate.hash else before or EstateHash("")


def last(connection: sqlite3.Connection) -> EstateHash | None:
    """The estate that came into force last; None in a store that never had one."""
    row = connection.execute(_SQL.last).fetchone()
    return EstateHash(row[0]) if row else None


def keep(connection: sqlite3.Connection, estate_hash: EstateHash, document: bytes) -> bool:
    """Keep an estate that another agent sent, not in force; answers whether it is new.

    Raises `RejectedError` where the document is not the estate of that hash.
    """
    if (found := hash_of(document)) != estate_hash:
        raise RejectedError(
            f"the estate that came as {estate_hash} is {found}",
            rule="an estate is known by its hash",
            hint="compare the versions of both agents",
            code="estate",
        )
    return connection.execute(_SQL.keep, (estate_hash, document)).rowcount > 0


def keep_all(connection: sqlite3.Connection, documents: Mapping[EstateHash, bytes]) -> int:
    """Keep each of these as `keep`; returns how many are new."""
    return sum(keep(connection, estate_hash, document) for estate_hash, document in documents.items())


def documents(connection: sqlite3.Connection, *, hashes: Iterable[EstateHash]) -> dict[EstateHash, bytes]:
    """Those of these estates that are here, as JSON, as far as they fit `TOGETHER_BYTES`."""
    found: dict[EstateHash, bytes] = {}
    room = TOGETHER_BYTES
    for one in hashes:
        row = connection.execute(_SQL.find, (one,)).fetchone()
        if row is not None and (len(row[0]) <= room or not found):
            found[one] = row[0]
            room -= len(row[0])
    return found


def find(connection: sqlite3.Connection, estate_hash: EstateHash) -> Estate:
    """The estate of that hash. Raises `NotFoundError`, and `ConfigError` for one that this version cannot read."""
    row = connection.execute(_SQL.find, (estate_hash,)).fetchone()
    if row is None:
        raise NotFoundError(f"no estate {estate_hash} was ever in force here", code="unknown-estate")
    return _read(estate_hash, row[0])


def of_lane(connection: sqlite3.Connection, lane: LaneId) -> Estate | None:
    """The estate that routes what the lane still owes, or None where it owes nothing.

    Raises `ConfigError` for one that this version cannot read.
    """
    row = connection.execute(_SQL.of_lane, (lane,)).fetchone()
    return _read(*row) if row else None


def _read(estate_hash: EstateHash, document: bytes) -> Estate:
    try:
        return Estate.from_json(document)
    except ValidationError:
        raise ConfigError(
            f"the estate {estate_hash} cannot be read",
            hint="another agent uses what a later distctl knows: install that here too",
            code="estate-version",
        ) from None
