"""What screens and commands read: rows as plain mappings, named as the control API names them.

Reading only. Every function is a `Query`: it sees one consistent state, and its cost is bounded by its `limit`, with the one
exception of a filter over events that hardly ever matches, which the reader's deadline ends.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from state.model.visible import visible
from state.queries import load

Row: TypeAlias = dict[str, Any]
"""A row by its column names; instants are milliseconds since 1970-01-01 UTC, ids hexadecimal."""

NEWEST: Final = 2**63 - 1
"""As `before`: from the newest row on."""
COUNTED_AT_MOST: Final = 100_000
SHOWN_BYTES: Final = 64 * 1024

_SQL = load("views")
_IN_SHORT: Final = ("delivery", "target", "state", "reference", "letter", "reason", "behind", "behind_letter")


def lanes(connection: sqlite3.Connection, *, now: int) -> list[Row]:
    """Every lane with its counters, the most important tier first; counting `waiting_behind` ends at `COUNTED_AT_MOST`."""
    return _rows(connection, _SQL.lanes, {"now": now, "most": COUNTED_AT_MOST})


def sources(connection: sqlite3.Connection) -> dict[str, Row]:
    """What each source yielded, by its name flow@site/system."""
    return {row.pop("name"): row for row in _rows(connection, _SQL.sources)}


def flows_ever(connection: sqlite3.Connection) -> set[str]:
    """The names of all flows that ever read or owed anything here."""
    return {row[0] for row in connection.execute(_SQL.flows_ever)}


def count_events(connection: sqlite3.Connection) -> int:
    """How many events were ever taken in."""
    return _number(connection, _SQL.last_event)


def newest_instant(connection: sqlite3.Connection) -> int | None:
    """When the last event was taken in, in milliseconds; None of an empty store."""
    return _number(connection, _SQL.newest_instant) or None


def count_open_dead_letters(connection: sqlite3.Connection) -> int:
    """How many dead letters are open; counting ends at `COUNTED_AT_MOST`."""
    return _number(connection, _SQL.count_open_dead_letters, {"most": COUNTED_AT_MOST})


def events(
    connection: sqlite3.Connection, *, before: int, limit: int, flow: str | None = None, key: str | None = None
) -> list[Row]:
    """Events older than number `before`, newest first, each with its `deliveries` in short."""
    wanted = {"before": before, "limit": limit, "flow": flow, "key": key}
    found = _rows(connection, _SQL.events if key is None else _SQL.events_of_key, wanted)
    for row, deliveries in zip(found, _by_event(connection, _SQL.deliveries_in_short, found), strict=True):
        row["deliveries"] = deliveries
        row.pop("is_subject", None)
    return found


def event(connection: sqlite3.Connection, seq: int) -> Row | None:
    """One event with its `document` and the `history` of its deliveries."""
    found = _rows(connection, _SQL.event, {"seq": seq})
    if not found:
        return None
    row = found[0]
    row["document"] = _document(connection, row.pop("raw_id"))
    row["extensions"] = json.loads(row["extensions"] or "{}")
    [row["history"]] = histories(connection, [row])
    return row


def seq_of_event(connection: sqlite3.Connection, event_id: bytes) -> int | None:
    """The local number of the event with that id."""
    row = connection.execute(_SQL.seq_of_event, {"id": event_id}).fetchone()
    return row[0] if row else None


def trace(connection: sqlite3.Connection, key: str, *, limit: int) -> list[Row]:
    """The newest events that speak of `key`, the oldest of them first, each with `history`.

    Outcomes of deliveries that are not among these, since they are another site's, have what they say as `said`.
    """
    wanted = {"key": key, "before": NEWEST, "limit": limit, "flow": None}
    found = _rows(connection, _SQL.events_of_key, wanted)[::-1]
    for row, history in zip(found, histories(connection, found), strict=True):
        row["history"] = history
        row["deliveries"] = [{name: one[name] for name in _IN_SHORT} for one in history]
    told = _told(connection, [row["seq"] for row in found if row["contract"].startswith("delivery-outcome/")])
    here = {one["target"] for row in found for one in row["history"]}
    for row in found:
        said = told.get(row["seq"])
        row["said"] = said if said and said["target"] not in here else None
    return found


def _told(connection: sqlite3.Connection, outcomes: Sequence[int]) -> dict[int, Row]:
    """What outcomes say, by their numbers, without those that say nothing that can be shown: another site wrote them."""
    found: dict[int, Row] = {}
    for seq, data in connection.execute(_SQL.documents, {"seqs": json.dumps(outcomes)}):
        try:
            said = json.loads(data)
        except ValueError:
            continue
        if isinstance(said, dict) and said.get("target") and said.get("state"):
            found[seq] = {
                name: visible(str(said.get(name) or "")) for name in ("target", "state", "reference", "detail")
            }
    return found


def histories(connection: sqlite3.Connection, of: Sequence[Row]) -> list[list[Row]]:
    """For each event its deliveries, each with its `tries`."""
    deliveries = _by_event(connection, _SQL.deliveries, of)
    tried = tries(connection, [one["delivery"] for history in deliveries for one in history])
    for history in deliveries:
        for one in history:
            one["tries"] = tried.get(one["delivery"], [])
    return deliveries


def tries(connection: sqlite3.Connection, deliveries: Iterable[int]) -> dict[int, list[Row]]:
    """The tries that went other than well, by delivery."""
    return _grouped(_rows(connection, _SQL.tries, {"deliveries": json.dumps(list(deliveries))}), "delivery_id")


def dead_letters(
    connection: sqlite3.Connection, *, before: int, limit: int, flow: str | None, code: str | None, closed: bool
) -> list[Row]:
    """Dead letters older than number `before`, newest first; with `closed` those that are no longer open too."""
    wanted = {"before": before, "limit": limit, "flow": flow, "code": code}
    return _rows(connection, _SQL.dead_letters if closed else _SQL.open_dead_letters, wanted)


def dead_letter(connection: sqlite3.Connection, number: int) -> Row | None:
    """One dead letter with the first `SHOWN_BYTES` of its raw `bytes`, its `document` and its `tries`."""
    found = _rows(connection, _SQL.dead_letter, {"id": number, "most": SHOWN_BYTES})
    if not found:
        return None
    row = found[0]
    row["document"] = _document(connection, row.pop("raw_id"))
    return _with_evidence(connection, row)


def in_doubt(connection: sqlite3.Connection, *, before: int, limit: int, flow: str | None) -> list[Row]:
    """Deliveries in doubt older than number `before`, newest first."""
    return _rows(connection, _SQL.in_doubt, {"before": before, "limit": limit, "flow": flow})


def in_doubt_delivery(connection: sqlite3.Connection, delivery: int) -> Row | None:
    """One delivery in doubt with the first `SHOWN_BYTES` of its payload's `bytes` and its `tries`."""
    found = _rows(connection, _SQL.in_doubt_delivery, {"delivery": delivery, "most": SHOWN_BYTES})
    return _with_evidence(connection, found[0]) if found else None


def _with_evidence(connection: sqlite3.Connection, row: Row) -> Row:
    delivery = row["delivery"]
    row["waiting_behind"] = _number(connection, _SQL.count_waiting_behind, {"delivery": delivery})
    row["tries"] = tries(connection, [delivery]).get(delivery, [])
    return row


def _document(connection: sqlite3.Connection, raw_id: int | None) -> Row | None:
    found = _rows(connection, _SQL.document, {"id": raw_id})
    return found[0] if found else None


def _by_event(connection: sqlite3.Connection, sql: str, of: Sequence[Row]) -> list[list[Row]]:
    found = _grouped(_rows(connection, sql, {"seqs": json.dumps([row["seq"] for row in of])}), "event_seq")
    return [found.get(row["seq"], []) for row in of]


def _grouped(rows: Iterable[Row], name: str) -> dict[int, list[Row]]:
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.pop(name), []).append(row)
    return groups


def _rows(connection: sqlite3.Connection, sql: str, wanted: Row | None = None) -> list[Row]:
    cursor = connection.execute(sql, wanted or {})
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def _number(connection: sqlite3.Connection, sql: str, wanted: Row | None = None) -> int:
    row = connection.execute(sql, wanted or {}).fetchone()
    return int(row[0]) if row else 0
