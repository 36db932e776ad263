"""Where an audit does not go on as it was known: of another agent by what is known here, of this one by what another knows.

A break that a person acknowledged is settled; it stays, as what was set aside behind it does.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from state.audit import AuditHead
from state.audit_copies import BreakId
from state.model.clock import from_millis
from state.queries import load

_SQL = load("audit_breaks")
_Row: TypeAlias = tuple[int, str, str, str, int, int, bytes, int, int, int, int | None]


class BreakKind(StrEnum):
    """What a break is. All but the first are findings."""

    RESTORED = "restored"  # the store was put back from a backup: a new life that began in the past of the last
    CUT = "cut"  # in one life it ends earlier than it did
    REWRITTEN = "rewritten"  # in one life an entry is another than it was
    DAMAGED = "damaged"  # an entry that is new here does not follow, or is not what was written


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """One break."""

    id: BreakId
    site: str  # whose audit
    witness: str  # whose agent knew it otherwise
    kind: BreakKind
    epoch: int  # the life in which it was noticed
    known: AuditHead  # how far it was known
    after: int  # the last entry of both, as far as is known by now
    found: int  # where it ended, or was damaged
    noticed_at: datetime
    is_settled: bool


def add(
    connection: sqlite3.Connection,
    *,
    site: str,
    witness: str,
    kind: BreakKind,
    epoch: int,
    known: AuditHead,
    after: int,
    found: int,
    now: int,
) -> Break:
    """Keep a break; `site` to `found` as in `Break`, `now` in milliseconds."""
    row = {
        "site": site,
        "witness": witness,
        "kind": kind,
        "epoch": epoch,
        "known_seq": known.seq,
        "known_hash": bytes.fromhex(known.hash),
        "after": after,
        "found": found,
        "now": now,
    }
    return _break(connection.execute(_SQL.add, row).fetchone())


def find(connection: sqlite3.Connection, *, site: str, witness: str, known: AuditHead) -> Break | None:
    """The break of an audit that its witness knew up to `known`."""
    row = connection.execute(_SQL.find, (site, witness, known.seq, bytes.fromhex(known.hash))).fetchone()
    return _break(row) if row else None


def list_breaks(connection: sqlite3.Connection, *, site: str | None = None, settled: bool = False) -> list[Break]:
    """Breaks in the order in which they were noticed, of one audit or all; with `settled` those too."""
    return [_break(row) for row in connection.execute(_SQL.list, {"site": site, "settled": settled})]


def place(connection: sqlite3.Connection, found: Break, *, after: int) -> None:
    """It is known now which entry is the last of both."""
    connection.execute(_SQL.place, (after, found.id))


def settle(connection: sqlite3.Connection, site: str, *, by: str, reason: str, now: int) -> int:
    """A person knows of the breaks of that audit; returns how many they were."""
    return connection.execute(_SQL.settle, {"site": site, "by": by, "reason": reason, "now": now}).rowcount


def _break(row: _Row) -> Break:
    number, site, witness, kind, epoch, known_seq, known_hash, after, found, noticed_at, settled_at = row
    return Break(
        id=BreakId(number),
        site=site,
        witness=witness,
        kind=BreakKind(kind),
        epoch=epoch,
        known=AuditHead(seq=known_seq, hash=known_hash.hex()),
        after=after,
        found=found,
        noticed_at=from_millis(noticed_at),
        is_settled=settled_at is not None,
    )
