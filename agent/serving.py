"""Uvicorn as a part of the agent rather than a program of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


class QuietServer(uvicorn.Server):
    """Uvicorn that leaves the signals alone and sleeps until `stop`, where its own looks ten times a second."""

    def __init__(self, config: uvicorn.Config, stop: asyncio.Event) -> None:
        super().__init__(config)
        self._stop = stop

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them: the runtime owns the signals."""
        yield

    async def main_loop(self) -> None:
        """Until `stop` is set."""
        await self._stop.wait()
