"""Turns: so many frames are in work at once at a hub, however many sites have come back at the same moment.

A frame in work is a thousand events, or megabytes, several times over. Whoever has no turn yet waits in line; who has waited
long is asked to come again, well before a site would give the hub up, and goes on with the link that it has.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from state.model.errors import DistctlError, TransientError

FRAMES: Final = 8
"""Frames in work at once: they keep the writer and two processors busy."""

PATIENCE: Final = 8.0
"""Seconds in line; with the wait for news it is far below the 30 s after which a site gives a call up."""

BUSY: Final = "busy"
"""The code of the refusal."""

COME_AGAIN_AFTER: Final = timedelta(seconds=3)
"""At the earliest; a site adds as much again at most, by its dice."""


class Turns:
    """`async with turns` is one turn. First come, first served."""

    def __init__(self, places: int = FRAMES, *, patience: float = PATIENCE) -> None:
        self._places = asyncio.Semaphore(places)
        self._patience = patience

    async def __aenter__(self) -> Self:
        """Wait for a turn. Raises `TransientError` with the code `BUSY` where none comes."""
        if not self._places.locked():
            await self._places.acquire()  # at once
            return self
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            raise TransientError(
                "the hub is busy with what other sites brought",
                retry_after=COME_AGAIN_AFTER,
                hint="it is asked again by itself",
                code=BUSY,
            ) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._places.release()


def is_busy(error: DistctlError) -> bool:
    """Whether a hub asks to come again: nothing was done, and nothing is wrong with the link."""
    return isinstance(error, TransientError) and error.code == BUSY
