"""The store's one file: one writer with group commit, and readers that cannot write.

Only this process writes, and within it only the writer's connection writes or checkpoints. How units share a transaction,
and what a crash leaves behind, is told in `state/group_commit.py`.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeAlias, TypeVar

from state.connection_thread import ConnectionThread
from state.engine import connect_reader, connect_writer, quick_check, settle_wal
from state.group_commit import GroupCommit, Unit
from state.migrations import Migration, migrate, shipped
from state.model.clock import to_millis
from state.model.errors import DistctlError, StoreError
from state.sqlite_errors import corrupt, primary_code, translate, translate_opening
from state.store_file import Ownership

T = TypeVar("T")

Query: TypeAlias = Callable[[sqlite3.Connection], T]
"""Reads one consistent state of the store, within the reader's deadline."""

READ_SECONDS: Final = 2.0
"""The longest a read may take: while one is open, the WAL cannot be reset."""

_OPERATIONS_BETWEEN_LOOKS: Final = 10_000


class Database:
    """One store, owned and open. Made by `open`, ended by `close` or by leaving `async with`."""

    def __init__(self, path: Path, writer: GroupCommit) -> None:
        self.path = path
        self.was_checked_wholly = False
        """Whether the look for damage at open saw the whole file within its time."""
        self._writer = writer
        self._ownership = Ownership(path)
        self._writer_thread: ConnectionThread | None = None
        self._readers: list[ConnectionThread] = []
        self._free_readers: asyncio.Queue[ConnectionThread] = asyncio.Queue()
        self._is_closed = False

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        now: datetime,
        migrations: Sequence[Migration] | None = None,
        readers: int = 2,
        check_limit: timedelta = timedelta(seconds=5),
        crash: Callable[[str], None] = lambda _: None,
        on_fatal: Callable[[DistctlError], None] = lambda _: None,
        sleep: Callable[[float], None] = time.sleep,
        make_room: Callable[[], bool] = lambda: False,
    ) -> Self:
        """Own the store at `path`, settle its WAL, look for damage, migrate it, and start its writer.

        `crash` is called at each named crash point, `sleep` before a group runs again, and `make_room` when the disk is full,
        to answer whether it is worth another try: all on the writer's thread.
        `on_fatal` is called once, on the loop, when the process has to end. Raises `ConflictError` (another process owns it),
        `StoreCorruptError`, `ConfigError` (foreign, newer or changed), `StoreError` (locked, full, read-only) or
        `StoreInDoubtError` (the disk fails).
        """
        database = cls(path, GroupCommit(path, crash=crash, on_fatal=on_fatal, sleep=sleep, make_room=make_room))
        steps = shipped() if migrations is None else migrations
        prepare = partial(database._prepare, steps, now_ms=to_millis(now), check_limit=check_limit, crash=crash)
        try:
            await database._start(prepare, readers)
        except BaseException:
            await database.close()
            raise
        return database

    async def write(self, unit: Unit[T], *, name: str = "") -> T:
        """Run `unit` in the next group and answer what it returned, once that is on disk.

        What the unit raises is raised here and undoes this unit alone. `name` tells errors and crash points apart. Raises
        `StoreError` where nothing was applied (locked, full, read-only, closed) and `StoreInDoubtError` where nobody can say.
        """
        return await self._writer.write(unit, name)

    async def read(self, query: Query[T], *, deadline: float = READ_SECONDS) -> T:
        """Run `query` on one consistent state, for at most `deadline` seconds including the wait for a reader.

        Raises `StoreError` beyond the deadline or where the store cannot be read.
        """
        stop_at = time.monotonic() + deadline
        reader = await self._free_reader(deadline)
        reading = reader.submit(partial(_read, query, stop_at))
        # Free again when its thread is done, which may be after its caller gave up.
        reading.add_done_callback(lambda _: self._free_readers.put_nowait(reader))
        try:
            return await asyncio.shield(reading)
        except sqlite3.Error as error:
            if primary_code(error) == sqlite3.SQLITE_INTERRUPT:
                raise _too_slow(deadline) from error
            raise translate(error, operation="a read", path=self.path, writing=False) from error

    @property
    def is_broken(self) -> bool:
        """Whether the disk failed under the writer: the process has to end."""
        return self._writer.is_broken

    @property
    def queued(self) -> int:
        """How many units wait for the writer."""
        return self._writer.queued

    async def close(self) -> None:
        """Settle what is queued, bring the WAL into the file, and let another process own the store."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._writer.finish()
        try:
            if self.is_broken:
                # The last connection to close would checkpoint, and so fsync again: that must be one that cannot write.
                await self._stop_writer()
                await self._stop_readers()
            else:
                await self._stop_readers()
                await self._stop_writer()
        finally:
            self._ownership.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _start(self, prepare: Callable[[], sqlite3.Connection], readers: int) -> None:
        try:
            self._writer_thread = await ConnectionThread.start("store-writer", prepare)
            connect = partial(connect_reader, self.path)
            for _ in range(readers):
                self._readers.append(await ConnectionThread.start("store-reader", connect))
        except sqlite3.Error as error:
            raise translate_opening(error, path=self.path) from error
        except UnicodeDecodeError as error:  # SQLite quotes the damaged schema, which is no text any more
            raise corrupt(self.path, f"its schema is not text ({error})") from error
        for reader in self._readers:
            self._free_readers.put_nowait(reader)
        self._writer.start(self._writer_thread)

    def _prepare(
        self, steps: Sequence[Migration], *, now_ms: int, check_limit: timedelta, crash: Callable[[str], None]
    ) -> sqlite3.Connection:
        """On the writer's thread: everything that comes before the first unit."""
        connection = connect_writer(self.path)
        try:
            settle_wal(connection, self.path)
            self.was_checked_wholly = quick_check(connection, self.path, limit=check_limit)
            migrate(connection, steps, now_ms=now_ms, crash=crash)
            self._writer.guard(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _free_reader(self, deadline: float) -> ConnectionThread:
        if self._is_closed:
            raise StoreError(f"the store {self.path} is closed", code="store-closed")
        try:
            async with asyncio.timeout(deadline):
                return await self._free_readers.get()
        except TimeoutError:
            raise _too_slow(deadline) from None

    async def _stop_readers(self) -> None:
        for reader in self._readers:
            await reader.end()

    async def _stop_writer(self) -> None:
        if self._writer_thread:
            await self._writer_thread.end()  # the last connection to close checkpoints and removes the WAL


def _read(query: Query[T], stop_at: float, connection: sqlite3.Connection) -> T:
    """One short transaction, ended whatever happens: an open one would keep the WAL from being reset."""
    connection.set_progress_handler(lambda: time.monotonic() > stop_at, _OPERATIONS_BETWEEN_LOOKS)
    connection.execute("BEGIN")
    try:
        return query(connection)
    finally:
        connection.set_progress_handler(None, 0)
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _too_slow(deadline: float) -> StoreError:
    return StoreError(
        f"the store did not answer in {deadline:g} s",
        hint="Ask for less: a shorter period, one flow, one key",
        code="store-slow",
    )
