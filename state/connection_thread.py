"""One SQLite connection and the thread that owns it: a call costs one hop there and back, however much it does.

An executor of one thread is all it takes. (aiosqlite hops for each statement, which costs 70 % of the throughput, and its own
thread runs other functions only by private names.)
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

T = TypeVar("T")


class ConnectionThread:
    """Runs functions of its connection, one after another in the order of `submit`. Ended by `stop`."""

    def __init__(self, executor: ThreadPoolExecutor, connection: sqlite3.Connection) -> None:
        self._executor = executor
        self._connection = connection

    @classmethod
    async def start(cls, name: str, connect: Callable[[], sqlite3.Connection]) -> Self:
        """Run `connect` on a new thread; where it fails, the thread ends and the error is raised here."""
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        try:
            return cls(executor, await asyncio.get_running_loop().run_in_executor(executor, connect))
        except BaseException:
            executor.shutdown(wait=False)
            raise

    def submit(self, function: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """What `function` will return or raise on the thread. It is handed over at once, before anything is awaited."""
        return asyncio.get_running_loop().run_in_executor(self._executor, function, self._connection)

    async def stop(self) -> None:
        """Finish what was handed in, close the connection, and end the thread."""
        try:
            await self.submit(sqlite3.Connection.close)
        finally:
            self._executor.shutdown(wait=False)
