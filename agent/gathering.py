"""What a store does that begins again: it waits until it has back what others had of the life before, and then goes on.

Until then nothing is taken in and nothing is delivered: an event that arose after one that is still to come back would overtake
it, and a delivery whose outcome is still to come back would be asked for in vain.
"""

from __future__ import annotations

import logging
import sqlite3
from functools import partial
from typing import Final

from agent.outcomes import CONTRACT as OUTCOME
from state import audit, life, peers, restore
from state.database import Database
from state.model.clock import Clock, to_millis
from state.model.ids import DeliveryId, Seq

_log: Final = logging.getLogger("distctl.agent")
_AT_ONCE: Final = 1000
"""Outcomes that are looked at in one unit of work."""


class Gathering:
    """Whether this store is still gathering, and from whom."""

    def __init__(self, database: Database, *, site: str, clock: Clock) -> None:
        self._database = database
        self._site = site
        self._clock = clock
        self.awaited: list[str] = []
        """The sites that have not answered yet, as looked at last."""

    @property
    def trouble(self) -> str:
        """What a person is told; empty where nothing is waited for."""
        if not self.awaited:
            return ""
        return (
            f"this store was put back and has to hear from {', '.join(self.awaited)} first: nothing is taken in or "
            "delivered until then; `distctl agents waive SITE --reason ...` goes on without one that will not answer"
        )

    async def is_over(self) -> bool:
        """Whether the store may work. Once everybody has answered, what others say was delivered is settled first."""
        here = await self._database.read(life.get)
        if not here.is_gathering:
            self.awaited = []
            return True
        self.awaited = await self._database.read(peers.unanswered)
        if self.awaited:
            _log.warning("%s", self.trouble)
            return False
        settled = await self._settle(here.last_event)
        superseded = await self._supersede()
        await self._database.write(partial(self._end, settled, superseded), name="gathering.end")
        return True

    async def _settle(self, after: Seq) -> int:
        """Settle what is in doubt here and known elsewhere; returns how many deliveries."""
        settled, place = 0, after
        while True:
            unit = partial(
                restore.settle_answered,
                site=self._site,
                contract=OUTCOME,
                after=place,
                limit=_AT_ONCE,
                now=self._clock.now(),
            )
            count, reached = await self._database.write(unit, name="gathering.settle")
            settled += count
            if reached == place:
                return settled
            place = reached

    async def _supersede(self) -> int:
        """Leave out what a newer snapshot has passed: it would be sent after that one; returns how many deliveries."""
        superseded, place = 0, DeliveryId(0)
        while True:
            unit = partial(restore.supersede_passed, after=place, limit=_AT_ONCE, now=self._clock.now())
            count, reached = await self._database.write(unit, name="gathering.supersede")
            superseded += count
            if reached == place:
                return superseded
            place = reached

    def _end(self, settled: int, superseded: int, connection: sqlite3.Connection) -> None:
        here = life.get(connection)
        if not life.end_gathering(connection):
            return
        audit.append(
            connection,
            at_ms=to_millis(self._clock.now()),
            actor="agent",
            action="gathered",
            target="store",
            reason="every agent has given back what it had, or was waived",
            after={"epoch": here.epoch, "settled": settled, "superseded": superseded},
        )
        _log.info("the store is complete as far as others have it: %d deliveries were settled by their word", settled)
