"""The schema's numbered steps: `state/sql/migrations/NNNN_name.sql`, forward only.

A step and its record are one transaction, so a process that is killed in between leaves the step wholly done or not begun, and
the next start goes on from there. An applied step is fixed by its SHA-256: a correction is the next step.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from state.model.errors import ConfigError, InvariantError
from state.model.ids import sha256

_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)

_RECORDS = """
CREATE TABLE IF NOT EXISTS migrations (
  version       INTEGER PRIMARY KEY,
  name          TEXT    NOT NULL,
  sha256        TEXT    NOT NULL CHECK (length(sha256) = 64),
  applied_at_ms INTEGER NOT NULL
) STRICT
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One step: its number counts from 1 without gaps, its text is fixed once it was shipped."""

    version: int
    name: str
    sql: str

    @property
    def sha256(self) -> str:
        """The hexadecimal hash that its record keeps."""
        return sha256(self.sql.encode())

    def __str__(self) -> str:
        return f"{self.version:04}_{self.name}"


def shipped() -> tuple[Migration, ...]:
    """The steps that this version of the code brings, in order."""
    return read_folder(files("state") / "sql" / "migrations")


def read_folder(folder: Traversable) -> tuple[Migration, ...]:
    """The steps in `folder`, in order. Raises `InvariantError` where numbers repeat or leave a gap."""
    named = ((_FILE_NAME.fullmatch(file.name), file) for file in folder.iterdir())
    steps = sorted(
        (
            Migration(version=int(match[1]), name=match[2], sql=file.read_text("utf-8"))
            for match, file in named
            if match
        ),
        key=lambda step: step.version,
    )
    if [step.version for step in steps] != list(range(1, len(steps) + 1)):
        raise InvariantError(f"migrations must count from 1 without gaps: {', '.join(map(str, steps))}")
    return tuple(steps)


def migrate(
    connection: sqlite3.Connection, steps: Sequence[Migration], *, now_ms: int, crash: Callable[[str], None]
) -> int:
    """Apply the steps that `connection` lacks, each in a transaction of its own; answers how many.

    Raises `ConfigError` if the file is not a store, is newer than the code, or was made by other steps.
    """
    known = _records(connection)
    _refuse_foreign(connection, known)
    _refuse_changed(known, steps)
    missing = [step for step in steps if step.version not in known]
    for step in missing:
        _apply(connection, step, now_ms=now_ms, crash=crash)
    return len(missing)


def statements(sql: str) -> Iterator[str]:
    """Split a script at the semicolons that end a statement; triggers, strings and comments keep theirs."""
    start = 0
    for end in (match.end() for match in re.finditer(";", sql)):
        if sqlite3.complete_statement(sql[start:end]):
            yield sql[start:end].strip()
            start = end
    if rest := _COMMENT.sub("", sql[start:]).strip():
        raise InvariantError(f"a migration ends in the middle of a statement: {rest[:60]}")


def _apply(connection: sqlite3.Connection, step: Migration, *, now_ms: int, crash: Callable[[str], None]) -> None:
    # executescript() would commit first, and with it half a step.
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(_RECORDS)
        for statement in statements(step.sql):
            connection.execute(statement)
        record = (step.version, step.name, step.sha256, now_ms)
        connection.execute("INSERT INTO migrations (version, name, sha256, applied_at_ms) VALUES (?, ?, ?, ?)", record)
        crash("migration.before_commit")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    crash("migration.after_commit")


def _records(connection: sqlite3.Connection) -> dict[int, tuple[str, str]]:
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'migrations'").fetchone():
        return {}
    rows = connection.execute("SELECT version, name, sha256 FROM migrations ORDER BY version")
    return {version: (name, checksum) for version, name, checksum in rows}


def _refuse_foreign(connection: sqlite3.Connection, known: dict[int, tuple[str, str]]) -> None:
    if not known and connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
        raise ConfigError(
            "the file is an SQLite database, but not a distctl store",
            hint="Name another file; nothing was changed in this one",
            code="not-a-store",
        )


def _refuse_changed(known: dict[int, tuple[str, str]], steps: Sequence[Migration]) -> None:
    ours = {step.version: (step.name, step.sha256) for step in steps}
    if max(known, default=0) > len(steps):
        raise ConfigError(
            f"the store was written by a newer distctl: it is at step {max(known)}, this version knows {len(steps)}",
            hint="Install the newer version again; a store is never migrated back",
            code="store-newer",
        )
    for version, (name, checksum) in known.items():
        if ours[version] != (name, checksum):
            raise ConfigError(
                f"migration {version:04} of the store ({name}) is not the one of this version ({ours[version][0]})",
                hint="Install the distctl that wrote this store, or restore a backup of its own version",
                code="migration-changed",
            )
