"""How far the play has got: the counterparts publish their next week when it is their cue, and not before.

The play writes a number into a file, the counterparts wait for it. So each act finds work under way, however slow the machine.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from connectors.simulators.folder import put_atomic

_LOOK_EVERY: Final = 0.05  # seconds


class Cue:
    """How many weeks may be published. Without a file: all of them."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path

    async def wait_for(self, week: int) -> None:
        """Return when the week of that number, counted from 0, may be published."""
        while self._path is not None and self._given(self._path) <= week:  # noqa: ASYNC110 - another process gives the cue
            await asyncio.sleep(_LOOK_EVERY)

    def _given(self, path: Path) -> int:
        return int(path.read_text()) if path.exists() else 0


def give_cue(path: Path, weeks: int) -> None:
    """Let so many weeks be published in all."""
    put_atomic(path, str(weeks).encode())
