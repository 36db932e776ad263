"""The limit: SQLite with nothing around it, told to be as durable as the store is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from state.engine import PAGE_SIZE


class BareSqlite:
    """One table of payloads."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def insert(self, payloads: Sequence[bytes], *, a_commit: int) -> None:
        """Insert them, so many to a transaction."""
        waiting = iter(payloads)
        while rows := [(payload,) for payload in islice(waiting, a_commit)]:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany("INSERT INTO payloads (data) VALUES (?)", rows)
            self._connection.execute("COMMIT")


@contextmanager
def open_bare(path: Path) -> Iterator[BareSqlite]:
    """A new file with WAL and synchronous=FULL, and the page size of the store."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE payloads (id INTEGER PRIMARY KEY AUTOINCREMENT, data BLOB NOT NULL) STRICT")
        yield BareSqlite(connection)
