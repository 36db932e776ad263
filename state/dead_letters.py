"""Dead letters: a raw record or a delivery that was set aside, with its cause, its bytes and what to do about it.

A record is set aside once, however often its document is read again. At most one letter of a delivery is open.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from state.model.ids import DeliveryId, EventId
from state.queries import load

_SQL = load("dead_letters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What is known about the thing set aside. `raw` are its bytes: the record, or the payload that was refused."""

    record_id: EventId | None = None
    delivery: DeliveryId | None = None
    site: str
    system: str
    flow: str
    subject: str = ""
    place: str
    field: str = ""
    rule: str
    code: str
    shown: str = ""
    message: str
    hint: str
    raw: bytes


def add(connection: sqlite3.Connection, letters: Iterable[Letter], *, now: int, raw_id: int | None = None) -> None:
    """Set aside. A record that was set aside before is not set aside again. `raw_id` is the document of records."""
    connection.executemany(_SQL.add, [_row(letter, raw_id, now) for letter in letters])


def close(
    connection: sqlite3.Connection,
    delivery: DeliveryId,
    state: Literal["replayed", "superseded", "discarded"],
    *,
    now: int,
) -> None:
    """Close the open letter of a delivery, if there is one."""
    connection.execute(_SQL.close, (state, now, delivery))


def _row(letter: Letter, raw_id: int | None, now: int) -> tuple[object, ...]:
    return (
        "record" if letter.delivery is None else "delivery",
        None if letter.record_id is None else bytes.fromhex(letter.record_id),
        letter.delivery,
        letter.site,
        letter.system,
        letter.flow,
        letter.subject,
        letter.place,
        letter.field,
        letter.rule,
        letter.code,
        letter.shown,
        letter.message,
        letter.hint,
        letter.raw,
        raw_id,
        now,
    )
