"""`make reconnect`: all agents of an estate come back to their hub at once, and none of them is made to wait until it gives up.

A real hub and as many agents as asked for, each with a store, a certificate and two connections of its own; those live in one
process (`bench.fleet`). Orders arise at every site all the time and go to a partner behind the hub. Three scenes, each judged
from the moment at which the hub can be dialled until the last agent is in step: connected, and nothing of its own on its way.

- the first hello of all, at one moment;
- the hub is killed (SIGKILL) and started again, while every third site gathered a backlog;
- every line is cut at one moment and dialled anew in the same, without the jitter that agents have.

A healthy agent is one that is up and goes on exchanging. None of its calls may end without an answer once the hub is there.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import quantiles
from typing import Final

from agent.identity.testing import free_port, listening
from agent.sync.https import DEAD_AFTER
from agent.sync.turns import is_busy
from bench.agent_process import AgentProcess, open_agent, until
from bench.claim import Claim, report, whole_and_in_order
from bench.disk import BUILD, workspace
from bench.estate import HUB, write_fleet_estate
from bench.fleet import Call, Course, FleetAgent, names, open_fleet
from bench.partner import open_partner
from state.model.errors import DistctlError

IN_STEP_WITHIN: Final = 90.0
"""Seconds until the last agent is in step: an agent dials again within a minute, and a backlog takes its time."""

MEMORY_OF_A_SITE: Final = 1.0
"""MB that the hub may hold for each site that is connected."""

MEMORY_WHILE_BUSY: Final = 128.0
"""MB that it may hold beyond that: the frames in work, however many sites have come back."""

_AN_ORDER_EVERY: Final = 10.0  # seconds, at each site
_SHARE: Final = 3  # every third site has a backlog
_AWAY_SECONDS: Final = 10.0
_LINGERS_SECONDS: Final = 15.0  # after all are in step: longer than the hub keeps a pull waiting
_NOTICED_WITHIN: Final = 1.0  # seconds after the hub is there, an attempt to dial it may end that began before
_LOOK_SECONDS: Final = 0.25
_UNSETTLED: Final = "SELECT sum(pending + inflight) FROM lanes"


@dataclass(slots=True)
class Scene:
    """One return of all agents, in seconds of the machine's monotonic clock."""

    name: str
    began: float  # when the hub could be dialled
    in_step: float = 0.0
    megabytes: list[float] = field(default_factory=list)  # what the hub held, now and then
    lag: float = 0.0  # the longest for which this process did not come to look: what it added to an answer
    calls: Sequence[Call] = ()
    downs: Sequence[DistctlError | None] = ()  # why links went down though the hub was there


@dataclass(slots=True)
class Fleet:
    """The agents, their links, and what they saw."""

    agents: Sequence[FleetAgent]
    course: Course = field(default_factory=Course)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _links: list[asyncio.Task[None]] = field(default_factory=list)

    def dial(self) -> None:
        """All links begin in this moment."""
        self._stopping = asyncio.Event()
        self._links = [asyncio.create_task(agent.run(self._stopping, self.course)) for agent in self.agents]

    async def cut(self) -> None:
        """All links end."""
        self._stopping.set()
        await asyncio.gather(*self._links)

    @property
    def arisen(self) -> int:
        """How many orders arose."""
        return sum(agent.arisen for agent in self.agents)

    async def go_on(self) -> None:
        """An order arises at each site in turn, at their pace, for ever."""
        while True:
            for agent in self.agents:
                await asyncio.sleep(_AN_ORDER_EVERY / len(self.agents))
                await agent.arises(1)


def main(arguments: Sequence[str]) -> None:
    """Run it. Exits with 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.reconnecting", description=__doc__)
    parser.add_argument("agents", nargs="?", type=int, default=200, help="default %(default)s")
    parser.add_argument("--backlog", type=int, default=900, help="orders of every third site; default %(default)s")
    parser.add_argument("--under", type=Path, default=BUILD, help="a folder on a local disk; default %(default)s")
    options = parser.parse_args(arguments)
    logging.getLogger("distctl").setLevel(logging.ERROR)  # each agent says that the hub is away
    with workspace(options.under) as folder:
        claims = asyncio.run(come_back(folder, options.agents, backlog=options.backlog))
    report(claims)


async def come_back(
    folder: Path, count: int, *, backlog: int, away: float = _AWAY_SECONDS, lingers: float = _LINGERS_SECONDS
) -> list[Claim]:
    """Let so many agents come back, once to a hub that was `away` for so many seconds.

    Each scene `lingers` for so many seconds until its calls are looked at.
    """
    port, sites = free_port(), names(count)
    with open_partner(folder / "ledger.db") as partner:
        home = write_fleet_estate(folder / "estate", url=partner.url, port=port, sites=sites)
        async with open_fleet(home, sites, port=port) as agents:
            play = _Play(home, port, Fleet(agents), lingers)
            await play.run(backlog=backlog, away=away)
            return [*_judge(play.scenes, count), whole_and_in_order(partner, play.fleet.arisen)]


@dataclass(slots=True)
class _Play:
    """The scenes, one after the other."""

    home: Path
    port: int
    fleet: Fleet
    lingers: float  # seconds
    scenes: list[Scene] = field(default_factory=list)

    async def run(self, *, backlog: int, away: float) -> None:
        """Play them all, and end when the partner has everything."""
        async with asyncio.TaskGroup() as tasks:
            going_on = tasks.create_task(self.fleet.go_on())
            async with self._hub() as hub:
                async with self._scene("the first hello of all", hub):
                    self.fleet.dial()
                os.kill(hub.pid, signal.SIGKILL)
            await asyncio.sleep(away / 2)
            for agent in self.fleet.agents[::_SHARE]:
                await agent.arises(backlog)
            await asyncio.sleep(away / 2)
            async with self._hub() as hub:
                async with self._scene("the hub was killed", hub):
                    pass
                async with self._scene("every line was cut", hub):
                    await self.fleet.cut()
                    self.fleet.dial()
                going_on.cancel()
                await _in_step(self.fleet, 0.0)
                while left := hub.count(_UNSETTLED):
                    await until(partial(_is_less, hub, left), "the hub delivers something", every=_LOOK_SECONDS)
                await self.fleet.cut()

    @asynccontextmanager
    async def _hub(self) -> AsyncIterator[AgentProcess]:
        """The hub, from the moment it can be dialled."""
        async with open_agent(self.home, HUB, data=self.home / HUB) as hub:
            await listening(f"127.0.0.1:{self.port}")
            yield hub

    @asynccontextmanager
    async def _scene(self, name: str, hub: AgentProcess) -> AsyncIterator[None]:
        """What is done in the block makes all agents come back; afterwards all of them are in step."""
        scene = Scene(name, began=time.monotonic())
        looking = asyncio.create_task(_look_on(hub, scene))
        yield
        await _in_step(self.fleet, scene.began)
        scene.in_step = time.monotonic()
        await asyncio.sleep(self.lingers)
        looking.cancel()
        course = self.fleet.course
        scene.calls = [call for call in course.calls if call.began >= scene.began]
        scene.downs = [why for at, why in course.downs if at >= scene.began + _NOTICED_WITHIN]
        self.scenes.append(scene)
        _say(scene)


def _is_less(hub: AgentProcess, than: int) -> bool:
    return hub.count(_UNSETTLED) < than


async def _look_on(hub: AgentProcess, scene: Scene) -> None:
    while True:
        scene.megabytes.append(hub.resident_megabytes())
        before = time.monotonic()
        await asyncio.sleep(_LOOK_SECONDS)
        scene.lag = max(scene.lag, time.monotonic() - before - _LOOK_SECONDS)


async def _in_step(fleet: Fleet, since: float) -> None:
    """Return when each agent had an answer since then, and nothing of its own on its way once after that."""
    missing = {agent.site: agent for agent in fleet.agents}
    stop_at = time.monotonic() + 2 * IN_STEP_WITHIN
    while missing and time.monotonic() < stop_at:
        await asyncio.sleep(_LOOK_SECONDS)
        answered = {call.site for call in fleet.course.calls if call.began >= since and not call.error}
        for site in sorted(missing.keys() & answered):
            if await missing[site].owed() == 0:
                del missing[site]


def _say(scene: Scene) -> None:
    wrong = Counter(f"{call.kind} {call.error.code}" for call in scene.calls if call.error)
    downs = Counter(str(why)[:200] for why in scene.downs)
    print(f"{scene.name}: in step after {scene.in_step - scene.began:.1f} s", file=sys.stderr)
    for kind in ("hello", "push", "pull"):
        print(f"  {kind}: {_times([call for call in scene.calls if call.kind == kind])}", file=sys.stderr)
    held = f"the hub held {scene.megabytes[0]:.0f} MB, at most {max(scene.megabytes):.0f} MB"
    late = f"this process was late by {scene.lag:.2f} s"
    print(f"  {held}; {late}; refused: {dict(wrong)}; links down: {dict(downs)}", file=sys.stderr, flush=True)


def _times(calls: Sequence[Call]) -> str:
    took = sorted(call.took for call in calls if not call.error)
    if len(took) < 2:
        return f"{len(took)} answered"
    cuts = quantiles(took, n=100, method="inclusive")
    return f"{len(took):,} answered, p50 {cuts[49]:.2f} s, p99 {cuts[98]:.2f} s, at most {took[-1]:.2f} s"


# --- the judge ----------------------------------------------------------------------------------------------------


def _judge(scenes: Sequence[Scene], count: int) -> Iterator[Claim]:
    first = scenes[0]
    at_rest = first.megabytes[-1]
    yield Claim(
        what="a site that is connected costs the hub little",
        found=f"{first.megabytes[0]:.0f} MB before, {at_rest:.0f} MB with all of them",
        holds=at_rest - first.megabytes[0] <= count * MEMORY_OF_A_SITE,
    )
    for scene in scenes:
        yield from _of(scene, at_rest)


def _of(scene: Scene, at_rest: float) -> Iterator[Claim]:
    took, held = scene.in_step - scene.began, max(scene.megabytes) - at_rest
    longest = max(call.took for call in scene.calls)
    wrong = Counter(call.error.code for call in scene.calls if call.error and not is_busy(call.error))
    yield Claim(
        what=f"{scene.name}: every call is answered, no link is given up",
        found=f"{len(scene.calls):,} calls, the longest {longest:.1f} s; {len(scene.downs)} links went down"
        + "".join(f"; {count} ended with {code}" for code, count in wrong.items()),
        holds=not wrong and not scene.downs and longest < DEAD_AFTER,
    )
    yield Claim(
        what=f"{scene.name}: all are in step",
        found=f"the last after {took:.1f} s",
        holds=took <= IN_STEP_WITHIN,
    )
    yield Claim(
        what=f"{scene.name}: the hub's memory is bounded",
        found=f"{held:+.0f} MB at most",
        holds=held <= MEMORY_WHILE_BUSY,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
