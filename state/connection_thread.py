"""One SQLite connection and the thread that owns it: a call in costs one hop there and back, whatever it does."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Self, TypeVar

import aiosqlite

T = TypeVar("T")


class ConnectionThread:
    """Runs functions of its connection one after another. `stop` must be called: the thread keeps the process alive."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    @classmethod
    async def start(cls, connect: Callable[[], sqlite3.Connection]) -> Self:
        """Run `connect` on a new thread; where it fails, the thread ends and the error is raised here."""
        return cls(await aiosqlite.Connection(connect, iter_chunk_size=64))

    async def run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """What `function` returns or raises. A caller that is cancelled leaves it running to its end."""
        # aiosqlite can run any callable on its thread, but offers that only for its own methods: this is the one place that
        # reaches in. An await for each statement instead costs 70 % of the throughput.
        execute: Callable[..., Awaitable[T]] = self._connection._execute  # noqa: SLF001
        return await execute(function, self._connection._conn)  # noqa: SLF001

    async def stop(self) -> None:
        """Finish what was handed in, close the connection, and end the thread."""
        await self._connection.close()
