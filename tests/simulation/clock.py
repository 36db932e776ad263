"""The clock of one simulated machine: virtual time, and a wall clock that may be set wrong."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Final

from state.testing import NOON
from tests.simulation.loop import Life

BEGINNING: Final = NOON
"""What wall clocks that are right say when virtual time begins."""


class SimulatedClock:
    """A `Clock` on the running loop's time."""

    def __init__(self, life: Life, *, skew: timedelta = timedelta(0), slowness: float = 1.0) -> None:
        """`slowness` makes each sleep that many times as long: for what looks around every few seconds for nothing.

        `laziness` does so with those of a quarter of a minute or more, in stories of weeks: nobody looks in vain that often.
        """
        self.life = life
        self.skew = skew
        self._slowness = slowness
        self.laziness = 1.0
        self._loop = asyncio.get_running_loop()

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return BEGINNING + self.skew + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        """Seconds of virtual time."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of virtual time."""
        self.life.require()
        await asyncio.sleep(seconds * self._slowness * (self.laziness if seconds >= 15 else 1.0))
