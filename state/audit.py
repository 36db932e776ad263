"""Who did what to what, why, and what it was before: an append-only chain of hashes.

An entry is written by the unit that does the privileged action, so the two are one transaction. Its hash covers the hash of the
entry before it: an entry that was edited, removed or slipped in is named by `verify`. A tail that was cut off shows against a
head which somebody else has kept.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from state.model.ids import sha256
from state.queries import load

Json: TypeAlias = Mapping[str, object]
"""What `json` can write: names to text, whole numbers, booleans, None, and lists and mappings of these. No floats for money."""

_SQL = load("audit")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """How far the chain reaches: the number of entries and the hash of the last. Travels to other agents as evidence."""

    seq: int
    hash: str


GENESIS: Final = AuditHead(seq=0, hash="0" * 64)
"""The head of an empty audit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One action. `at_ms` is UTC; `actor` a person, a token or `agent`; `previous_hash` and `hash` are hexadecimal SHA-256."""

    seq: int
    at_ms: int
    actor: str
    action: str
    target: str
    reason: str
    before: Json | None
    after: Json | None
    request_id: str
    details: Json
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditBreak:
    """The first place where the chain does not hold, and how it was noticed."""

    seq: int
    finding: str


Row: TypeAlias = tuple[int, int, str, str, str, str, str | None, str | None, str, str, bytes, bytes]
"""An entry as it is written, for who checks or copies it: seq, at_ms, actor, action, target, reason, before, after, request_id,
details (these three as JSON), previous_hash, hash."""


def append(
    connection: sqlite3.Connection,
    *,
    at_ms: int,
    actor: str,
    action: str,
    target: str,
    reason: str = "",
    before: Json | None = None,
    after: Json | None = None,
    request_id: str = "",
    details: Json | None = None,
) -> AuditEntry:
    """Add an entry inside the caller's unit. Where this fails the action must fail too, so let the error go up."""
    last = head(connection)
    covered = (
        last.seq + 1, at_ms, actor, action, target, reason, _written(before), _written(after), request_id,
        _canonical(details or {}), bytes.fromhex(last.hash),
    )  # fmt: skip
    row: Row = (*covered, _hash(covered))
    connection.execute(_SQL.append, row)
    return entry_of(row)


def head(connection: sqlite3.Connection) -> AuditHead:
    """The newest entry's number and hash; `GENESIS` of an empty audit."""
    row = connection.execute(_SQL.head).fetchone()
    return AuditHead(seq=row[0], hash=row[1].hex()) if row else GENESIS


def verify(connection: sqlite3.Connection, expected: AuditHead = GENESIS) -> AuditBreak | None:
    """The first break of the chain, or None. `expected` is a head seen earlier: the chain must still go through it."""
    last = GENESIS
    for row in connection.execute(_SQL.walk):
        if wrong := finding(row, last):
            return AuditBreak(seq=last.seq + 1, finding=wrong)
        last = head_of(row)
        if last.seq == expected.seq and last.hash != expected.hash:
            return AuditBreak(
                seq=last.seq, finding="its hash is not the one that was seen earlier: the past was rewritten"
            )
    known = max(expected.seq, _numbers_given(connection))
    if last.seq < known:
        return AuditBreak(seq=last.seq + 1, finding=f"the end is missing: there were {known} entries")
    return None


def goes_through(connection: sqlite3.Connection, known: AuditHead) -> bool:
    """Whether the chain has that entry under that number."""
    return hash_at(connection, known.seq) == known.hash


def hash_at(connection: sqlite3.Connection, seq: int) -> str:
    """The hash of that entry; empty where there is none."""
    if seq == GENESIS.seq:
        return GENESIS.hash
    row = connection.execute(_SQL.find, {"seq": seq}).fetchone()
    return row[-1].hex() if row else ""


def rows_after(connection: sqlite3.Connection, seq: int, *, limit: int) -> list[Row]:
    """Entries behind that number, in their order."""
    return connection.execute(_SQL.list_after, (seq, limit)).fetchall()


def began(connection: sqlite3.Connection, site: str) -> int:
    """The last entry of the life before this one of the store of `site`; 0 in its first."""
    (entry,) = connection.execute(_SQL.began, (site,)).fetchone()
    return entry - 1 if entry else 0


def find(connection: sqlite3.Connection, seq: int) -> AuditEntry | None:
    """One entry by its number."""
    row = connection.execute(_SQL.find, {"seq": seq}).fetchone()
    return entry_of(row) if row else None


def entries(
    connection: sqlite3.Connection,
    *,
    actor: str | None = None,
    action: str | None = None,
    target: str | None = None,
    request_id: str | None = None,
    since_ms: int | None = None,
    until_ms: int | None = None,
    before_seq: int | None = None,
    limit: int = 100,
) -> list[AuditEntry]:
    """Entries that match all that is given, newest first, `until_ms` exclusive; `before_seq` is where the next page goes on."""
    wanted = {
        "actor": actor, "action": action, "target": target, "request_id": request_id,
        "since_ms": since_ms, "until_ms": until_ms, "before_seq": before_seq, "limit": limit,
    }  # fmt: skip
    statement = _SQL.list_of_target if target is not None else _SQL.list
    return [entry_of(row) for row in connection.execute(statement, wanted)]


def finding(row: Row, last: AuditHead) -> str:
    """Why the entry does not follow `last`; empty where it does."""
    if row[0] != last.seq + 1:
        return f"it is missing: entry {row[0]} follows {last.seq}"
    if row[-2].hex() != last.hash:
        return "it does not continue the entry before it"
    return "" if _hash(row[:-1]) == row[-1] else "its content is not what was written"


def head_of(row: Row) -> AuditHead:
    """The chain up to that entry."""
    return AuditHead(seq=row[0], hash=row[-1].hex())


def entry_of(row: Row) -> AuditEntry:
    """What the entry says."""
    seq, at_ms, actor, action, target, reason, before, after, request_id, details, previous_hash, own_hash = row
    return AuditEntry(
        seq=seq,
        at_ms=at_ms,
        actor=actor,
        action=action,
        target=target,
        reason=reason,
        before=None if before is None else json.loads(before),
        after=None if after is None else json.loads(after),
        request_id=request_id,
        details=json.loads(details),
        previous_hash=previous_hash.hex(),
        hash=own_hash.hex(),
    )


def _numbers_given(connection: sqlite3.Connection) -> int:
    row = connection.execute(_SQL.numbers_given).fetchone()
    return row[0] if row else 0


def _hash(covered: tuple[object, ...]) -> bytes:
    fields = [part.hex() if isinstance(part, bytes) else part for part in covered]
    return bytes.fromhex(sha256(_canonical(fields).encode()))


def _written(value: Json | None) -> str | None:
    return None if value is None else _canonical(value)


def _canonical(value: object) -> str:
    """One text for one value: sorted names, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
