"""What happened, in its order: kept of every seed, told of one that fails."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Final

_KEPT: Final = 200_000


class Trace:
    """Moments and words."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, tuple[object, ...]]] = []
        self._loop = asyncio.get_running_loop()

    def note(self, *words: object) -> None:
        """This happens now."""
        if len(self.entries) < _KEPT:
            self.entries.append((self._loop.time(), words))

    def lines(self) -> list[str]:
        """One a moment."""
        return [f"{at:12.3f}  {' '.join(map(str, words))}" for at, words in self.entries]

    def digest(self) -> str:
        """Equal for equal runs."""
        return hashlib.sha256("\n".join(self.lines()).encode()).hexdigest()
