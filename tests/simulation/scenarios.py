"""Stories with one theme each: what takes weeks, or hundreds of agents, and is over in seconds here."""

from __future__ import annotations

import asyncio
from typing import Final

from tests.simulation.story import Story

DAY: Final = 86_400.0
_LAZINESS: Final = 60.0


class _Quiet(Story):
    """Nothing but what the theme says goes wrong."""

    def some(self, documents: int) -> None:
        """Records arise."""
        for _ in range(documents):
            self.arise()

    def leave_alone(self, *sites: str) -> None:
        """Only these go on, and sleep longer where nothing is to do; the others would exchange weeks of heartbeats."""
        for site, machine in self.world.machines.items():
            machine.kill()
            if site in sites:
                machine.be_lazy(_LAZINESS)
                machine.start()

    def come_back(self) -> None:
        """Everybody works, as awake as ever."""
        for machine in self.world.machines.values():
            machine.kill()
            machine.be_lazy(1.0)
            machine.start()


class OfflineForAMonth(_Quiet):
    """The line of one site is cut for thirty days, and its systems work on."""

    days = 30

    async def run(self) -> None:
        """All of it."""
        self.world.start()
        self.some(10)
        await self.rest()
        self.world.network.line("east").is_cut = True
        self.leave_alone("hq", "east")
        for _ in range(self.days):
            self.some(2)
            await asyncio.sleep(DAY)
        self.world.network.line("east").is_cut = False
        self.come_back()
        await self.rest()


class TargetDownForEightDays(_Quiet):
    """A target is down for eight days, while everything else works."""

    days = 8
    target = "east/scale"

    async def run(self) -> None:
        """All of it."""
        self.world.start()
        self.some(10)
        await self.rest()
        self.leave_alone("east")
        self.world.counterparts.targets[self.target].is_down = True
        for _ in range(self.days):
            self.some(4)
            await asyncio.sleep(DAY)
        self.world.counterparts.targets[self.target].is_down = False
        self.come_back()
        await self.rest()
