"""The SQLite engine: what it must be told, what it answered, and whether its version is safe."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from state.model.errors import InvariantError, StoreError
from state.sqlite_errors import corrupt, primary_code

PAGE_SIZE: Final = 8192
"""Bytes a page, of new files: fewer writes an event than SQLite's 4096."""

_PRAGMAS: Final = {
    "synchronous": 2,  # FULL: what was acknowledged is on disk
    "busy_timeout": 5000,  # milliseconds
    "foreign_keys": 1,
    "trusted_schema": 0,
    "cell_size_check": 1,
    "journal_size_limit": 67_108_864,  # bytes of WAL kept after a checkpoint
    "wal_autocheckpoint": 1000,  # pages
}
_CACHED_STATEMENTS: Final = 512
_OPERATIONS_BETWEEN_LOOKS: Final = 10_000
_FIXED_IN: Final = (3, 51, 3)
_FIXED_BACK_TO: Final = ((3, 50, 7), (3, 44, 6))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """The engine that runs here. `is_safe` is false for a version that can corrupt a WAL; `advice` says what follows."""

    version: str
    is_safe: bool
    advice: str


def engine_check(version: str = sqlite3.sqlite_version) -> EngineReport:
    """Judge an SQLite version (`3.40.1`).

    Before 3.51.3, apart from the corrected 3.50.7 and 3.44.6, two connections that write or checkpoint at once can corrupt a WAL.
    """
    number = tuple(int(part) for part in version.split("."))
    is_safe = number >= _FIXED_IN or any(number[:2] == fix[:2] and number >= fix for fix in _FIXED_BACK_TO)
    if is_safe:
        return EngineReport(version=version, is_safe=True, advice="")
    advice = (
        f"SQLite {version} can corrupt a store that two connections write or checkpoint at once (corrected in 3.51.3, 3.50.7 and "
        "3.44.6). The agent is the only writer, so keep it so: never write to the store with another program while it runs"
    )
    return EngineReport(version=version, is_safe=False, advice=advice)


def connect_writer(path: Path) -> sqlite3.Connection:
    """The connection that writes, with every pragma set and read back. Raises `InvariantError` where one did not take."""
    connection = _connect(path, "rw")
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")  # before WAL; an existing file keeps its own
        _set(connection, "journal_mode", "wal")
        for name, value in _PRAGMAS.items():
            _set(connection, name, value)
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, neither by its mode nor by its pragma."""
    connection = _connect(path, "ro")
    try:
        for name in ("busy_timeout", "trusted_schema", "cell_size_check"):
            _set(connection, name, _PRAGMAS[name])
        _set(connection, "query_only", 1)
        # Only from its first read on does it hold the file, so that a writer that broke is not the last to close and checkpoint.
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def settle_wal(connection: sqlite3.Connection, path: Path) -> None:
    """Bring what the WAL holds into the file and onto the disk, before anything is read back.

    After a failed fsync the page cache can show what the disk does not have; this fsyncs it or fails.
    """
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        hint = f"Another process reads or writes it: look with `fuser -v {path}`"
        raise StoreError(f"the WAL of the store {path} could not be checkpointed", hint=hint, code="store-locked")


def quick_check(connection: sqlite3.Connection, path: Path, *, limit: timedelta) -> bool:
    """Look for damage for at most `limit`; answers whether the whole file was seen. Raises `StoreCorruptError`."""
    stop_at = time.monotonic() + limit.total_seconds()
    connection.set_progress_handler(lambda: time.monotonic() > stop_at, _OPERATIONS_BETWEEN_LOOKS)
    try:
        findings = [finding for (finding,) in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.OperationalError as error:
        if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
            return False
        raise
    finally:
        connection.set_progress_handler(None, 0)
    if findings != ["ok"]:
        raise corrupt(path, "; ".join(findings))
    return True


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,  # transactions begin and end where the code says so
        cached_statements=_CACHED_STATEMENTS,
        timeout=_PRAGMAS["busy_timeout"] / 1000,
    )


def _set(connection: sqlite3.Connection, name: str, value: int | str) -> None:
    connection.execute(f"PRAGMA {name} = {value}").fetchall()
    (answer,) = connection.execute(f"PRAGMA {name}").fetchone()
    if answer != value:
        raise InvariantError(
            f"SQLite {sqlite3.sqlite_version} did not accept {name} = {value}: it says {answer}",
            hint="A network or virtual file system without shared memory cannot hold a store: put it on a local disk",
        )
