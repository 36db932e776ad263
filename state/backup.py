"""Copies of a store: made while it is written, looked at as a whole before they count, and noted in the store they are of.

Concurrency: a copy is one read transaction. As long as it is open the WAL cannot be reset and grows by what is written, so the
copy goes as fast as the disk allows with short pauses, in which the writer gets the disk (docs/decisions/012). Crash: what was
copied so far is no store that anybody opens; who made it removes it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from state import audit, life
from state.audit import AuditHead
from state.estates import last as last_estate
from state.model.clock import from_millis, to_millis
from state.model.errors import StoreError
from state.model.ids import EstateHash, Seq
from state.queries import load
from state.sqlite_errors import primary_code, translate
from state.streams import PeerId

_SQL = load("backup")

PAGES_AT_ONCE: Final = 256
"""Of 8 KiB, between two pauses."""

PAUSE_SECONDS: Final = 0.002
_STEPS_BETWEEN_SYNCS: Final = 8
"""16 MiB. Left to the end, the sync of a gigabyte would hold up a commit of the writer for half a second."""

_OPERATIONS_BETWEEN_LOOKS: Final = 100_000
_SHOWN: Final = 10

GoOn = Callable[[], None]
"""Called again and again during long work; what it raises ends the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """How far a store has one stream of another agent."""

    peer: PeerId
    epoch: int
    tier: int
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a store holds, in short. `site` is empty and `epoch` 0 where it has no life yet."""

    site: str
    epoch: int
    step: int  # of the schema
    estate: EstateHash | None
    audit: AuditHead
    events: int
    last_event: Seq
    documents: tuple[str, ...]  # those in the archive beside it, by SHA-256
    received: tuple[Received, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """A verified backup of this store, as it was noted here: every event up to `last_event` is in it."""

    id: int
    name: str
    folder: str
    manifest_sha256: str
    epoch: int
    last_event: Seq
    taken_at: datetime
    verified_at: datetime


# --- making one ---------------------------------------------------------------------------------------------------


def copy(source: sqlite3.Connection, target: Path, *, go_on: GoOn, pause: Callable[[float], None] = time.sleep) -> None:
    """Write what `source` sees now into a new file at `target`, on the disk when this returns.

    The file is in rollback mode, so that a look at it needs no second file and changes nothing. Blocks. Raises `StoreError`,
    and what `go_on` raises; then the file is worth nothing.
    """
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with _synced(target) as sync, _translated("a backup", target), _snapshot(source):
        into = sqlite3.connect(target, isolation_level=None)
        try:
            into.execute("PRAGMA journal_mode = OFF")  # a half copy is thrown away, never rolled back
            into.execute("PRAGMA synchronous = OFF")
            steps = 0

            def between_steps(_status: int, remaining: int, _total: int) -> None:
                nonlocal steps
                steps += 1
                if steps % _STEPS_BETWEEN_SYNCS == 0:
                    sync()
                go_on()
                if remaining:
                    pause(PAUSE_SECONDS)

            source.backup(into, pages=PAGES_AT_ONCE, progress=between_steps)
            into.execute("PRAGMA journal_mode = DELETE").fetchall()
        finally:
            into.close()


@contextmanager
def _snapshot(source: sqlite3.Connection) -> Iterator[None]:
    """Without a transaction of its own a copy begins anew whenever somebody commits, and never ends."""
    source.execute("BEGIN")
    try:
        source.execute(_SQL.begin_snapshot).fetchone()
        yield
    finally:
        source.execute("ROLLBACK")


@contextmanager
def _synced(path: Path) -> Iterator[Callable[[], None]]:
    """What brings the file onto the disk; done once more at the end, after which the cache forgets it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield lambda: os.fdatasync(descriptor)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)  # what is read back comes from the disk
    finally:
        os.close(descriptor)


# --- looking at one -----------------------------------------------------------------------------------------------


@contextmanager
def opened(path: Path, *, go_on: GoOn = lambda: None) -> Iterator[sqlite3.Connection]:
    """A connection to a copy that nobody writes: it makes no file and takes no lock. Raises `StoreError`, `StoreCorruptError`."""
    with _translated("looking at a backup", path):
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
        stopped: list[BaseException] = []
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.set_progress_handler(lambda: _is_stopped(go_on, stopped), _OPERATIONS_BETWEEN_LOOKS)
            yield connection
        except sqlite3.OperationalError as error:
            if stopped and primary_code(error) == sqlite3.SQLITE_INTERRUPT:
                raise stopped[0] from error
            raise
        finally:
            connection.close()


def findings(connection: sqlite3.Connection, *, expected: AuditHead = audit.GENESIS) -> list[str]:
    """What is wrong with a store, a sentence each; nothing where it is whole. Reads all of it.

    Looked at are every page and index, what rows refer to, the chain of the audit, which has to go through `expected`, and
    whether counters and key queues are those of the deliveries.
    """
    if damage := _damage(connection):
        return [f"the file is damaged: {finding}" for finding in damage]
    return [*_lost_references(connection), *_broken_chain(connection, expected), *_out_of_step(connection)]


def contents(connection: sqlite3.Connection) -> Contents:
    """What a store holds; also one that an older version wrote."""
    (step,) = connection.execute(_SQL.steps).fetchone()
    events, last_event = connection.execute(_SQL.events).fetchone()
    lived = life.find(connection) if _has(connection, "life") else None
    return Contents(
        site=lived.site if lived else "",
        epoch=lived.epoch if lived else 0,
        step=step,
        estate=last_estate(connection),
        audit=audit.head(connection),
        events=events,
        last_event=Seq(last_event),
        documents=tuple(name for (name,) in connection.execute(_SQL.archived_documents)),
        received=tuple(_received(connection)) if _has(connection, "streams_in") else (),
    )


def _damage(connection: sqlite3.Connection) -> list[str]:
    try:
        rows = connection.execute(f"PRAGMA integrity_check({_SHOWN})").fetchall()
    except sqlite3.DatabaseError as error:  # what is damaged enough ends the look for damage
        if primary_code(error) != sqlite3.SQLITE_CORRUPT:
            raise
        return [str(error)]
    return [finding for (finding,) in rows if finding != "ok"]


def _lost_references(connection: sqlite3.Connection) -> Iterator[str]:
    for number, (table, row, parent, _) in enumerate(connection.execute("PRAGMA foreign_key_check")):
        if number == _SHOWN:
            return
        yield f"row {row} of {table} refers to a row of {parent} that is not there"


def _broken_chain(connection: sqlite3.Connection, expected: AuditHead) -> Iterator[str]:
    if broken := audit.verify(connection, expected):
        yield f"the audit is broken at entry {broken.seq}: {broken.finding}"


def _out_of_step(connection: sqlite3.Connection) -> Iterator[str]:
    for (lane,) in connection.execute(_SQL.miscounted_lanes):
        yield f"the counters of the lane {lane} are not those of its deliveries"
    for (key,) in connection.execute(_SQL.keys_without_head):
        yield f"the queue of the key {key} points at no delivery of its own"
    for (delivery,) in connection.execute(_SQL.deliveries_without_key):
        yield f"delivery {delivery} is in no queue"


def _received(connection: sqlite3.Connection) -> Iterator[Received]:
    for peer, epoch, tier, seq in connection.execute(_SQL.received):
        yield Received(peer=PeerId(peer), epoch=epoch, tier=tier, seq=seq)


def _has(connection: sqlite3.Connection, table: str) -> bool:
    return bool(connection.execute(_SQL.has_table, (table,)).fetchone()[0])


def _is_stopped(go_on: GoOn, stopped: list[BaseException]) -> bool:
    """SQLite can be told to stop, and not why."""
    try:
        go_on()
    except Exception as error:  # noqa: BLE001 - raised again where the statement ends
        stopped.append(error)
        return True
    return False


@contextmanager
def _translated(operation: str, path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, operation=operation, path=path, writing=False) from error
    except UnicodeDecodeError as error:
        raise StoreError(f"{operation} failed in {path}: its schema is not text", code="store-corrupt") from error


# --- noting one ---------------------------------------------------------------------------------------------------


def note(
    connection: sqlite3.Connection,
    held: Contents,
    *,
    name: str,
    folder: str,
    manifest_sha256: str,
    taken_at: datetime,
    now: datetime,
) -> bool:
    """A backup of this store was verified and published; answers False where the schema is too old to keep that."""
    if not _has(connection, "backups"):
        return False
    row = (
        name,
        folder,
        bytes.fromhex(manifest_sha256),
        held.epoch,
        held.last_event,
        to_millis(taken_at),
        to_millis(now),
    )
    (backup,) = connection.execute(_SQL.note, row).fetchone()
    marks = [(backup, one.peer, one.epoch, one.tier, one.seq) for one in held.received]
    connection.executemany(_SQL.note_mark, marks)
    return True


def last(connection: sqlite3.Connection) -> Noted | None:
    """The last verified backup of this store."""
    row = connection.execute(_SQL.last).fetchone()
    if row is None:
        return None
    number, name, folder, manifest, epoch, last_event, taken_at, verified_at = row
    return Noted(
        id=number,
        name=name,
        folder=folder,
        manifest_sha256=manifest.hex(),
        epoch=epoch,
        last_event=Seq(last_event),
        taken_at=from_millis(taken_at),
        verified_at=from_millis(verified_at),
    )
