"""The reaper puts right what time, crashes and full disks leave behind: lost leases, dues that a wall clock moved away, a reserve
that was given up.

It runs at the start, before the relay, and every few seconds after. Lost work becomes in doubt, never pending: nobody can say
whether its call left.

Waits stand in the store by the wall clock, for people to read, and last as long as the monotonic clock says: where the two part,
because the wall clock was set back, dues move with it. What it did while no agent ran nobody knows, so a start goes by what may
wait at all.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from agent.intake import LOW_WATER
from agent.leases import Leases
from agent.supervisor import sleep_unless
from state.database import Database
from state.key_queues import bring_dues_near, move_dues
from state.model.clock import Clock
from state.model.retry import LONGEST_WISH
from state.outbox import Outbox
from state.reserve import Reserve

_log = logging.getLogger("distctl.reaper")
_EVERY: Final = 5.0
_LONGEST_PAUSE: Final = LONGEST_WISH + timedelta(minutes=5)
_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_DRIFT: Final = timedelta(seconds=1)
"""By less two clocks part by themselves."""


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
        self._parted: timedelta | None = None  # the wall clock less the monotonic one, as looked at last

    async def sweep(self) -> int:
        """Put right what is wrong now; returns how many deliveries changed."""
        self._reserve.fill(leaving=LOW_WATER)
        parted = self._clock.now() - _EPOCH - timedelta(seconds=self._clock.monotonic())
        recovered, moved = await self._database.write(partial(self._recover, parted), name="reaper.recover")
        if self._parted is None or abs(parted - self._parted) > _DRIFT:
            self._parted = parted
        if recovered:
            _log.warning("%d deliveries were in nobody's hands and are in doubt", recovered)
        if moved:
            _log.warning("the wall clock was set back, so %d keys became due sooner by it", moved)
        if recovered or moved:
            self._on_recovered()
        return recovered + moved

    async def run(self, stopping: asyncio.Event) -> None:
        """Sweep until the agent stops."""
        while not await sleep_unless(stopping, _EVERY, clock=self._clock):
            await self.sweep()

    def _recover(self, parted: timedelta, connection: sqlite3.Connection) -> tuple[int, int]:
        """How many deliveries are in doubt now, and how many keys were due too late."""
        now = self._clock.now()
        with Outbox(connection, now=now) as outbox:
            recovered = len(outbox.recover(self._leases.holds))
        if self._parted is None:
            return recovered, bring_dues_near(connection, now=now, longest=_LONGEST_PAUSE)
        back = self._parted - parted
        return recovered, move_dues(connection, now=now, back=back) if back > _DRIFT else 0
