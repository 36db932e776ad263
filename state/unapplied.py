"""Events that came from another agent and cannot be taken in yet.

One waits for its estate, and the newer ones of its site, flow and key wait behind it, so that all are taken in in order.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import orjson

from state.model.event import Event, of_attributes
from state.model.ids import EstateHash, EventId
from state.queries import load
from state.streams import PeerId

_SQL = load("unapplied")
_AT_ONCE: Final = 200
"""So many are read into memory: a site of a later version can make many wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """An event that waits, and the stream it came by."""

    number: int
    peer: PeerId
    tier: int
    event: Event
    is_again: bool  # it may have been here in a life that ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Strange:
    """So many events of a site wait for an estate."""

    site: str
    estate: EstateHash
    count: int


def add(
    connection: sqlite3.Connection,
    events: Iterable[Event],
    *,
    peer: PeerId,
    tier: int,
    code: str,
    detail: str,
    now: int,
    again: Container[EventId] = frozenset(),
) -> None:
    """Let these wait, in this order. One that waits already is left where it is. `again`: what may have been here before."""
    rows = [
        (
            bytes.fromhex(event.id),
            peer,
            tier,
            event.flow,
            event.partitionkey,
            event.estate,
            orjson.dumps(event.attributes()),
            event.data,
            code,
            detail,
            now,
            event.id in again,
        )
        for event in events
    ]
    connection.executemany(_SQL.add, rows)


def site_of(connection: sqlite3.Connection, event: EventId) -> str | None:
    """Where the event with that id arose which waits; None where none does."""
    row = connection.execute(_SQL.site_of, (bytes.fromhex(event),)).fetchone()
    return row[0] if row else None


def is_behind(connection: sqlite3.Connection, site: str, flow: str, partition_key: str, *, beside: str) -> bool:
    """Whether events of that flow and key that arose at `site` wait; those of the contract `beside` keep none waiting."""
    row = {"site": site, "flow": flow, "partition_key": partition_key, "beside": beside}
    return connection.execute(_SQL.is_behind, row).fetchone() is not None


def wanted(connection: sqlite3.Connection, *, peer: PeerId | None = None) -> set[EstateHash]:
    """The estates for which events wait that came from `peer`, or from anybody."""
    return {EstateHash(row[0]) for row in connection.execute(_SQL.wanted, (peer,))}


def list_strange(connection: sqlite3.Connection) -> list[Strange]:
    """Whose events wait for an estate that is not here, by site and estate."""
    return [
        Strange(site=site, estate=EstateHash(estate), count=count)
        for site, estate, count in connection.execute(_SQL.list_strange)
    ]


def take(connection: sqlite3.Connection) -> Iterator[Waiting]:
    """All that waits, oldest first; who takes one in `remove`s it."""
    last = 0
    while rows := connection.execute(_SQL.list, (last, _AT_ONCE)).fetchall():
        for last, peer, tier, attributes, data, is_again in rows:
            yield Waiting(
                number=last,
                peer=PeerId(peer),
                tier=tier,
                event=of_attributes(orjson.loads(attributes), data),
                is_again=bool(is_again),
            )


def remove(connection: sqlite3.Connection, waiting: Waiting) -> None:
    """It waits no longer."""
    connection.execute(_SQL.remove, (waiting.number,))


def is_any(connection: sqlite3.Connection, peer: PeerId) -> bool:
    """Whether anything waits that came from `peer`."""
    return connection.execute(_SQL.is_any, (peer,)).fetchone() is not None


def count(connection: sqlite3.Connection) -> int:
    """How many wait."""
    return int(connection.execute(_SQL.count).fetchone()[0])
