"""Entries of other agents' audits, kept as they were written there, and the heads that two agents told each other.

A copy is added only behind the one that it continues, so the copies of one audit are a chain that can be verified as the audit
itself. What its agent turned out to have no longer is set aside under the break that showed it (`state.audit_breaks`), and so
are this store's own entries that it lost and another agent gave back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NewType

from state import audit
from state.audit import GENESIS, AuditBreak, AuditEntry, AuditHead, Row
from state.queries import load

BreakId = NewType("BreakId", int)
"""Of a break; 0 is no break."""

ON_CHAIN: Final = BreakId(0)
_SQL = load("audit_copies")


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What two agents told each other of their audits."""

    site: str  # the other
    epoch: int = 0  # the life of its own in which it told its head; 0: it never did
    head: AuditHead = GENESIS  # its head
    held: AuditHead = GENESIS  # the head of ours that it knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """An entry of an audit that is kept here, with its number among the copies."""

    id: int
    entry: AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Beyond:
    """How much of an audit lies beyond a break: `first` to `last`, 0 where nothing does; how many of these people decided."""

    count: int
    first: int
    last: int
    decisions: int


def told(connection: sqlite3.Connection, site: str) -> Told:
    """What was told between this agent and that of `site`."""
    row = connection.execute(_SQL.find_head, (site,)).fetchone()
    return _told((site, *row)) if row else Told(site=site)


def list_told(connection: sqlite3.Connection) -> list[Told]:
    """The same of every agent that told anything, by site."""
    return [_told(row) for row in connection.execute(_SQL.list_heads)]


def know_head(connection: sqlite3.Connection, site: str, head: AuditHead, *, epoch: int, now: int) -> None:
    """The agent of `site` told its head, in that life of its own."""
    row = {"site": site, "epoch": epoch, "seq": head.seq, "hash": bytes.fromhex(head.hash), "now": now}
    connection.execute(_SQL.know_head, row)


def note_held(connection: sqlite3.Connection, site: str, held: AuditHead) -> None:
    """The agent of `site` knows that head of this audit."""
    connection.execute(_SQL.note_held, {"site": site, "seq": held.seq, "hash": bytes.fromhex(held.hash)})


def is_kept(connection: sqlite3.Connection, site: str) -> bool:
    """Whether any entry of that site's audit is kept here."""
    return connection.execute(_SQL.is_kept, (site,)).fetchone() is not None


def end(connection: sqlite3.Connection, site: str, *, beyond: BreakId = ON_CHAIN) -> AuditHead:
    """The last copy of an audit, on its chain or beyond a break; `GENESIS` where there is none."""
    row = connection.execute(_SQL.end, (site, beyond)).fetchone()
    return AuditHead(seq=row[0], hash=row[1].hex()) if row else GENESIS


def hash_at(connection: sqlite3.Connection, site: str, seq: int) -> str:
    """The hash of that copy on the chain; empty where there is none."""
    if seq == GENESIS.seq:
        return GENESIS.hash
    row = connection.execute(_SQL.hash_at, (site, seq)).fetchone()
    return row[0].hex() if row else ""


def add(connection: sqlite3.Connection, site: str, rows: Iterable[Row]) -> tuple[int, AuditBreak | None]:
    """Keep entries behind the last copy: how many, and the first that does not follow, behind which none is kept."""
    last, count = end(connection, site), 0
    for row in rows:
        if row[0] <= last.seq:
            continue  # it came before
        if wrong := audit.finding(row, last):
            return count, AuditBreak(seq=last.seq + 1, finding=wrong)
        if not connection.execute(_SQL.put_back, {"site": site, "seq": row[0], "hash": row[-1]}).rowcount:
            connection.execute(_SQL.add, (site, ON_CHAIN, *row))
        last, count = audit.head_of(row), count + 1
    return count, None


def add_beyond(connection: sqlite3.Connection, site: str, beyond: BreakId, row: Row) -> None:
    """Keep one entry beyond a break."""
    connection.execute(_SQL.add, (site, beyond, *row))


def set_aside(connection: sqlite3.Connection, site: str, *, after: int, beyond: BreakId) -> None:
    """What is behind `after` lies beyond that break from now on."""
    connection.execute(_SQL.set_aside, {"site": site, "after": after, "break_id": beyond})


def rows_beyond(connection: sqlite3.Connection, site: str, beyond: BreakId, *, after: int, limit: int) -> list[Row]:
    """Entries beyond a break with numbers behind `after`, in their order."""
    wanted = {"site": site, "break_id": beyond, "after": after, "limit": limit}
    return connection.execute(_SQL.list_beyond, wanted).fetchall()


def count_beyond(connection: sqlite3.Connection, site: str, beyond: BreakId) -> Beyond:
    """How much there is beyond a break."""
    count, first, last, decisions = connection.execute(_SQL.count_beyond, (site, beyond)).fetchone()
    return Beyond(count=count, first=first, last=last, decisions=decisions)


def verify(connection: sqlite3.Connection, site: str) -> AuditBreak | None:
    """The first break of the copies of an audit, or None."""
    last = GENESIS
    for row in connection.execute(_SQL.walk, (site,)):
        if wrong := audit.finding(row, last):
            return AuditBreak(seq=last.seq + 1, finding=wrong)
        last = audit.head_of(row)
    return None


def entries(
    connection: sqlite3.Connection,
    site: str,
    *,
    lost: bool = False,
    actor: str | None = None,
    target: str | None = None,
    before: int,
    limit: int,
) -> list[Copy]:
    """Copies of an audit that match all that is given, newest first; with `lost` those that its store has no longer."""
    wanted = {"site": site, "lost": lost, "actor": actor, "target": target, "before": before, "limit": limit}
    rows = connection.execute(_SQL.list, wanted)
    return [Copy(id=number, entry=audit.entry_of(tuple(row))) for number, *row in rows]


def _told(row: tuple[str, int, int, bytes, int, bytes]) -> Told:
    site, epoch, seq, digest, held_seq, held_digest = row
    return Told(
        site=site,
        epoch=epoch,
        head=AuditHead(seq=seq, hash=digest.hex()),
        held=AuditHead(seq=held_seq, hash=held_digest.hex()),
    )
