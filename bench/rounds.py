"""Interleaved rounds: A B A B, so that what drifts on the machine drifts for both."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TypeAlias

Round: TypeAlias = Callable[[], Awaitable[float]]
"""Does its work once and answers the figure. It may block: nothing else runs meanwhile."""


async def interleaved(sides: Mapping[str, Round], *, rounds: int, warm_up: int = 1) -> dict[str, float]:
    """The median figure of each side, over `rounds` turns of all of them after `warm_up` turns that do not count."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warm_up + rounds):
        for name, run in sides.items():
            gc.collect()
            figure = await run()
            if turn >= warm_up:
                figures[name].append(figure)
    return {name: median(found) for name, found in figures.items()}


@dataclass(slots=True)
class Stopwatch:
    """How long the block took."""

    seconds: float = 0.0

    def rate(self, count: int) -> float:
        """How many a second, where the block did `count`."""
        return count / self.seconds


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Time a block."""
    watch = Stopwatch()
    began = time.perf_counter()
    yield watch
    watch.seconds = time.perf_counter() - began
