"""Threads of one connector's own: a share that hangs holds up this connector and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")


class Threads:
    """A few threads for blocking file work, off the event loop.

    A cancelled caller stops waiting; the work itself runs to its end, so nothing is left half done.
    """

    def __init__(self, name: str, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """What `work` returns or raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def close(self) -> None:
        """Take no more work. Does not wait for what hangs."""
        self._pool.shutdown(wait=False, cancel_futures=True)
