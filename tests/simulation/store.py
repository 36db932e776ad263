"""A store without its thread and its file: the real writer and the real schema on a connection in memory, inline.

A crash leaves what was committed. A copy of a disk is its pages, as a backup or an image of the machine would have them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from state.connection_thread import ConnectionThread
from state.database import READ_SECONDS, Database, Query
from state.group_commit import GroupCommit
from state.migrations import migrate, shipped
from state.model.errors import DistctlError
from tests.simulation.loop import Life

T = TypeVar("T")

_PATH: Final = Path("/distctl.db")
_PAGE_BYTES: Final = 1024  # small ones, since every seed begins with a copy of them for each store


@cache
def empty_store() -> bytes:
    """The pages of a store of the shipped schema in which nothing was ever written."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
    migrate(connection, shipped(), now_ms=0, crash=lambda _: None)
    return connection.serialize()


class Disk:
    """What lies on one machine's disk."""

    def __init__(self, content: bytes | None = None) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=512)
        self.connection.deserialize(content or empty_store())
        self.connection.execute("PRAGMA foreign_keys = ON")

    def recover(self) -> None:
        """What a crash left half done is undone, as a journal does it."""
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def image(self) -> bytes:
        """Everything that was committed."""
        if not self.connection.in_transaction:
            return self.connection.serialize()
        raise AssertionError("an image is taken between two transactions")

    def close(self) -> None:
        """Let go of it."""
        self.connection.close()


class _InlineThread:
    """Runs what it is handed in the loop's own time, in the order in which it was handed in."""

    def __init__(self, connection: sqlite3.Connection, life: Life) -> None:
        self._connection = connection
        self._life = life
        self._loop = asyncio.get_running_loop()

    def call(self, function: Callable[[sqlite3.Connection], None]) -> None:
        """Run it soon."""
        self._loop.call_soon(self._run, function)

    def submit(self, function: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Run it soon, and tell when it was."""
        answer = self._loop.create_future()
        self._loop.call_soon(lambda: answer.set_result(self._run(function)))
        return answer

    def _run(self, function: Callable[[sqlite3.Connection], Any]) -> Any:
        return None if self._life.has_ended else function(self._connection)


class InlineStore(Database):
    """A `Database` over a disk in memory. Writing is the real group commit; reading sees what was committed."""

    def __init__(  # not that of the file: there is none to own
        self,
        disk: Disk,
        life: Life,
        *,
        crash: Callable[[str], None],
        on_fatal: Callable[[DistctlError], None],
    ) -> None:
        self.path = _PATH
        self.was_checked_wholly = True
        self._life = life
        self._disk = disk
        self._loop = asyncio.get_running_loop()
        self._writer = GroupCommit(
            _PATH, crash=crash, on_fatal=on_fatal, sleep=lambda _: None, monotonic=self._loop.time
        )
        self._writer.start(cast("ConnectionThread", _InlineThread(disk.connection, life)))

    async def read(self, query: Query[T], *, deadline: float = READ_SECONDS) -> T:
        """What `query` says of the committed store, a turn of the loop later."""
        self._life.require()
        await asyncio.sleep(0)
        self._life.require()
        return query(self._disk.connection)

    async def write(self, unit: Any, *, name: str = "") -> Any:
        """As that of a file."""
        self._life.require()
        return await self._writer.write(unit, name)

    async def close(self) -> None:
        """Settle what is queued."""
        await self._writer.finish()
