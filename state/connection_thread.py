"""One SQLite connection and the thread that owns it, by aiosqlite: a call costs one hop there and back, however much it does.

aiosqlite's own methods hop for each statement, which costs 70 % of the throughput. Here a whole function of the connection is
handed over at once. That touches three of aiosqlite's protected names (`_tx`, `_connection`, `_thread`), here only; the
dependency is bounded to the release line that has them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Self, TypeVar, cast

import aiosqlite

from state.model.errors import StoreError

T = TypeVar("T")

_ROWS_AT_ONCE = 64  # for aiosqlite's own cursors, which nobody uses


class ConnectionThread(aiosqlite.Connection):
    """Runs functions of its connection, one after another in the order of `submit`. Ended by `end`."""

    @classmethod
    async def start(cls, name: str, connect: Callable[[], sqlite3.Connection]) -> Self:
        """Run `connect` on a new thread; where it fails, the thread ends and the error is raised here."""
        thread = cls(connect, _ROWS_AT_ONCE)
        thread._thread.name = name
        try:
            return cast("Self", await thread)
        except BaseException:
            thread._thread.join()  # it was told to stop, and must not speak to a loop that may be gone
            raise

    def submit(self, function: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """What `function` will return or raise on the thread. It is handed over at once, before anything is awaited."""
        if self._connection is None:
            raise StoreError("the connection is closed", hint="Nothing was applied", code="store-closed")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._tx.put_nowait((answer, partial(function, self._connection)))
        return answer

    def call(self, function: Callable[[sqlite3.Connection], None]) -> None:
        """Hand over as `submit` does a function that raises nothing and that nobody waits for."""
        if self._connection is None:
            raise StoreError("the connection is closed", hint="Nothing was applied", code="store-closed")
        self._tx.put_nowait((None, partial(function, self._connection)))

    async def end(self) -> None:
        """Finish what was handed in, close the connection, and end the thread."""
        await self.close()
