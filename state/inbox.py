"""What was already taken in: an event enters the store once, however often it is read or sent.

The site where it arose and its id are the deduplication key: `admit` writes those that are new and says which. All of it runs
inside the caller's unit of work, so that events, checkpoint and deliveries are one transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from state import trace
from state.model.clock import from_millis, to_millis
from state.model.errors import InvariantError, NotFoundError
from state.model.event import Event
from state.model.ids import EventId, Seq
from state.origins import Origins
from state.queries import load

_SQL = load("inbox")


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event to be admitted and the other business keys its document names, as (entity, key)."""

    event: Event
    references: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Admitted:
    """An event that is new here, under its local number."""

    seq: Seq
    event: Event


def admit(
    connection: sqlite3.Connection,
    arrivals: Iterable[Arrival],
    *,
    raw_id: int | None = None,
    on_taken: Callable[[Event, str], None] | None = None,
) -> list[Admitted]:
    """Write the events that are new, index their business keys, and return them in their order.

    `raw_id` is the document that they were read from. `on_taken` is told of each event whose id an event of another site has, and
    of which site; without it that raises `InvariantError`.
    """
    new = _new(connection, list(arrivals), on_taken or _refuse)
    if not new:
        return []
    numbered = list(enumerate(new, _last_seq(connection) + 1))
    origins = Origins(connection)
    rows = [_row(seq, one.event, origins.id_of(one.event), raw_id) for seq, one in numbered]
    connection.executemany(_SQL.add, rows)
    trace.add(connection, (link for seq, arrival in numbered for link in _links(seq, arrival)))
    return [Admitted(Seq(seq), arrival.event) for seq, arrival in numbered]


def keep_raw(
    connection: sqlite3.Connection, *, sha256: str, name: str, size: int, content: bytes | None, now: int
) -> int:
    """Keep a document as it arrived, once by its hash; returns its local number."""
    digest = bytes.fromhex(sha256)
    found = connection.execute(_SQL.find_raw, (digest,)).fetchone()
    found = found or connection.execute(_SQL.add_raw, (digest, name, size, content, now)).fetchone()
    return int(found[0])


def get(connection: sqlite3.Connection, seq: Seq) -> Event:
    """The event of that local number. Raises `NotFoundError`."""
    row = connection.execute(_SQL.get_event, (seq,)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no event number {seq}", code="unknown-event")
    return event_of(row, Origins(connection))


def site_of(connection: sqlite3.Connection, event: EventId) -> str | None:
    """Where that event arose; None where it never came here."""
    row = connection.execute(_SQL.site_of, (bytes.fromhex(event),)).fetchone()
    return row[0] if row else None


def event_of(row: Sequence[Any], origins: Origins) -> Event:
    """The event of a row of `get_event`."""
    (seq, event_id, subject, partition_key, time, recorded_at, correlation, causation, traceparent, place) = row[:10]
    (extensions, data, origin_id, raw) = row[10:]
    own_id = EventId(event_id.hex())
    origin = origins.get(origin_id)
    return Event(
        id=own_id,
        source=origin.source,
        type=origin.type,
        subject=subject,
        time=datetime.fromisoformat(time),
        contract=origin.contract,
        data=data,
        partitionkey=partition_key,
        sequence=seq,
        recordedtime=from_millis(recorded_at),
        correlationid=correlation.hex() if correlation else own_id,
        causationid=EventId(causation.hex()) if causation else None,
        traceparent=traceparent,
        site=origin.site,
        system=origin.system,
        flow=origin.flow,
        op=origin.op,
        environment=origin.environment,
        estate=origin.estate,
        place=place,
        rawref=raw.hex() if raw else "",
        extensions=orjson.loads(extensions) if extensions else {},
    )


def _last_seq(connection: sqlite3.Connection) -> int:
    row = connection.execute(_SQL.last_seq).fetchone()
    return int(row[0]) if row else 0


def _new(
    connection: sqlite3.Connection, arrivals: Sequence[Arrival], on_taken: Callable[[Event, str], None]
) -> list[Arrival]:
    """Those whose events were not taken in before, each once. Only they take a number."""
    ids = [bytes.fromhex(arrival.event.id) for arrival in arrivals]
    known = connection.execute(_SQL.list_known, (b"".join(ids),)).fetchall() if ids else []
    holders: dict[bytes, str | None] = dict(known)
    new: list[Arrival] = []
    for identity, arrival in zip(ids, arrivals, strict=True):
        if identity not in holders:
            new.append(arrival)
            holders[identity] = arrival.event.site
        elif (holder := holders[identity]) not in {None, arrival.event.site}:
            on_taken(arrival.event, str(holder))
    return new


def _refuse(event: Event, holder: str) -> None:
    raise InvariantError(f"the event {event.id} of {event.site} has the id of one of {holder}", code="id-taken")


def _links(seq: int, arrival: Arrival) -> Iterator[trace.Link]:
    event = arrival.event
    yield (event.subject, event.entity, 1, seq)
    for entity, key in arrival.references:
        yield (key, entity, 0, seq)


def _row(seq: int, event: Event, origin: int, raw_id: int | None) -> tuple[Any, ...]:
    return (
        seq,
        bytes.fromhex(event.id),
        origin,
        event.subject,
        event.partitionkey,
        event.time.isoformat(),
        to_millis(event.recordedtime),
        None if event.correlationid == event.id else bytes.fromhex(event.correlationid),
        bytes.fromhex(event.causationid) if event.causationid else None,
        event.traceparent,
        raw_id,
        event.place,
        orjson.dumps(dict(event.extensions)).decode() if event.extensions else None,
        event.data,
        bytes.fromhex(event.rawref) if event.rawref and raw_id is None else None,
    )
