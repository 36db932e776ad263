"""The people of the estate: they look at what is shown now and then, and do what it says. They know nothing else.

Whatever is fenced has to be shown with its reason and the command that cures it; a fence that is not is a finding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

from agent.fleet import Fleet
from state.model.errors import DistctlError
from tests.simulation.estate import HUB
from tests.simulation.faults import Faults
from tests.simulation.machine import Machine
from tests.simulation.restoring import restored
from tests.simulation.world import World


class Person:
    """Somebody with rights everywhere."""

    def __init__(self, world: World, faults: Faults) -> None:
        self._world = world
        self._faults = faults
        self.complaints: list[str] = []
        self._seen: dict[str, int] = {}  # how much was exchanged with a fenced site when it was first seen fenced
        self._waited: set[str] = set()

    async def look_now_and_then(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._world.dice.uniform(10, 30))
            await self.look()

    async def look(self) -> None:
        """Cure what is shown."""
        self._stop_what_ended()
        hub = self._world.hub
        if hub.agent is None or hub.agent.hub is None:
            return
        if hub.agent.fenced:
            self._restore(hub)
            return
        for machine in self._world.machines.values():
            if machine.site != HUB and machine.agent is not None and machine.agent.is_fenced_itself:
                self._restore(machine)
        try:
            await self._look_at_sites(hub)
        except (DistctlError, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise

    async def _look_at_sites(self, hub: Machine) -> None:
        agent = hub.agent
        if agent is None:
            return
        fleet = Fleet(
            agent.store,
            site=HUB,
            estate=lambda: hub.compiled.estate,
            identity=cast("Any", lambda: SimpleNamespace(standings=list)),
            clock=agent.clock,
            on_life=agent.look_at_life,
        )
        for row in await fleet.agents():
            if row.state != "fenced":
                self._seen.pop(row.agent, None)
                continue
            answered = self._world.network.answered[row.agent]
            if self._seen.setdefault(row.agent, answered) != answered:
                self.complaints.append(f"{row.agent} is fenced, and yet something was exchanged with it")
            if row.agent not in self._waited:
                self._waited.add(row.agent)  # nobody acts on the first look
                continue
            self._waited.discard(row.agent)
            if not row.reason or f"distctl agents adopt {row.agent}" not in row.to_do:
                self.complaints.append(
                    f"{row.agent} is fenced, and what is shown does not help: {row.reason!r}, {row.to_do!r}"
                )
            self._world.cures["site adopted"] += 1
            self._world.trace.note("adopt", row.agent, row.reason)
            self._make_sure_of_one(row.agent)
            self._faults.forget(row.agent)
            self._seen.pop(row.agent, None)
            await fleet.adopt(row.agent, by="somebody", reason="looked")

    def _make_sure_of_one(self, site: str) -> None:
        """Stop all stores of a site but one."""
        self._stop_one(self._world.machines[site], is_twin=self._world.dice.random() < 0.5)

    def _stop_what_ended(self) -> None:
        """A store that says that another of its site goes on is stopped, as it says."""
        for machine in self._world.machines.values():
            if machine.twin is not None:
                for one in (machine, machine.twin):
                    if one.agent is not None and one.agent.is_told_to_stop:
                        self._world.cures["clone stopped"] += 1
                        self._stop_one(machine, is_twin=one is not machine)
                        break

    def _stop_one(self, machine: Machine, *, is_twin: bool) -> None:
        """Stop the machine of a site or its twin; the other goes on."""
        twin, machine.twin = machine.twin, None
        if twin is None:
            return
        twin.retire()
        if not is_twin:
            machine.replace_disk(twin.disk)
            machine.start()

    def _restore(self, hub: Machine) -> None:
        """A store says that it is older than what it said: its next life begins, from what is there."""
        if hub.agent is None:
            return
        self._world.cures["hub restored" if hub.site == HUB else "site restored"] += 1
        self._faults.forget(hub.site)
        self._world.trace.note("restore", hub.name)
        hub.kill()
        hub.disk.recover()
        hub.replace_disk(self._world.disk(restored(hub, hub.disk.image(), taken_at=hub.now())))
        hub.start()

    def findings(self) -> Iterator[str]:
        """What could not be cured by what was shown."""
        yield from self.complaints
