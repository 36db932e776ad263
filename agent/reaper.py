"""The reaper puts right what time, crashes and full disks leave behind: lost leases, dues that a wall clock moved out of reach,
a reserve that was given up.

It runs at the start, before the relay, and every few seconds after. Lost work becomes in doubt, never pending: nobody can say
whether its call left.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from agent.intake import LOW_WATER
from agent.leases import Leases
from agent.supervisor import sleep_unless
from state.database import Database
from state.key_queues import bring_dues_near
from state.model.clock import Clock
from state.model.retry import LONGEST_WISH
from state.outbox import Outbox
from state.reserve import Reserve

_log = logging.getLogger("distctl.reaper")
_EVERY: Final = 5.0
_LONGEST_PAUSE: Final = LONGEST_WISH + timedelta(minutes=5)


class Reaper:
    """Recovers deliveries that no worker holds any more."""

    def __init__(
        self,
        database: Database,
        leases: Leases,
        reserve: Reserve,
        clock: Clock,
        *,
        on_recovered: Callable[[], None],
    ) -> None:
        self._database = database
        self._leases = leases
        self._reserve = reserve
        self._clock = clock
        self._on_recovered = on_recovered

    async def sweep(self) -> int:
        """Put right what is wrong now; returns how many deliveries changed."""
        self._reserve.fill(leaving=LOW_WATER)
        recovered = await self._database.write(self._recover, name="reaper.recover")
        if recovered:
            _log.warning("%d deliveries were in nobody's hands and are in doubt", recovered)
            self._on_recovered()
        return recovered

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep until the agent stops."""
        while not await sleep_unless(stopping, _EVERY, clock=self._clock):
            await self.sweep()

    def _recover(self, connection: sqlite3.Connection) -> int:
        now = self._clock.now()
        with Outbox(connection, now=now) as outbox:
            recovered = len(outbox.recover(self._leases.holds))
        return recovered + bring_dues_near(connection, now=now, longest=_LONGEST_PAUSE)
