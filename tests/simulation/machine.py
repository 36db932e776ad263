"""One machine: a disk, and the agent that runs over it. Composed as `agent.runtime` composes one, of the same parts.

Left out is what a simulation cannot own: the control API's socket, signals, the estate folder's watcher, TLS and certificates.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key

from agent.estate.compiled import CompiledEstate
from agent.gathering import Gathering
from agent.identity.seal import Seal
from agent.lanes import open_lanes
from agent.leases import Leases
from agent.raw_archive import RawArchive
from agent.reaper import Reaper
from agent.supervisor import guard
from agent.sync.fencing import LinkFencedError
from agent.sync.hub import Hub
from agent.sync.incoming import Incoming
from agent.sync.needs import Reason
from agent.sync.outgoing import Outgoing
from agent.sync.site import SiteLink
from agent.telemetry import Telemetry
from agent.works import Ground, Works, open_works
from state import estates, life, targets
from state.model.clock import to_millis
from state.model.errors import DistctlError
from state.model.event import Environment
from state.outbox import Outbox
from state.reserve import Reserve
from tests.simulation.clock import BEGINNING, SimulatedClock
from tests.simulation.counterparts import Counterparts, CounterpartsClock
from tests.simulation.estate import HUB, SharedEstates, the_estate
from tests.simulation.loop import Life, within
from tests.simulation.network import Network, Wire
from tests.simulation.store import Disk, InlineStore
from tests.simulation.trace import Trace

_SOFTWARE: Final = "simulation"
_KEY: Final = derive_private_key(4711, SECP256R1())  # of the hub's authority, the same in each process
_TELEMETRY: Final = Telemetry()
_SELDOM: Final = 6.0
"""The reaper looks around this many times more seldom than it does: it finds the same."""


class Machine:
    """A disk at a site, and what runs over it."""

    def __init__(
        self,
        name: str,
        site: str,
        disk: Disk,
        *,
        counterparts: Counterparts,
        network: Network,
        dice: random.Random,
        trace: Trace,
    ) -> None:
        self.name = name
        self.site = site
        self.disk = disk
        self.version = 1  # of the estate
        self.skew = timedelta(0)
        self.laziness = 1.0
        self.agent: RunningAgent | None = None
        self.twin: Machine | None = None  # a copy that runs under the same name
        self.on_crash: Callable[[str, str], None] = lambda *_: None  # machine, point
        self.dice = dice
        self.trace = trace
        self.counterparts = counterparts
        self.network = network
        self._crashes_in = 0
        self._crashes_at = ""
        self._lives = 0
        self._is_retired = False

    @property
    def life(self) -> Life | None:
        """That of the agent that runs; None where none does."""
        return self.agent.life if self.agent is not None else None

    @property
    def hub(self) -> Hub:
        """Who answers the sites here."""
        if self.agent is None or self.agent.hub is None:
            raise AssertionError("no hub runs here")
        return self.agent.hub

    @property
    def has_begun(self) -> bool:
        """Whether there was ever an agent over this disk."""
        return not self.disk.connection.in_transaction and life.find(self.disk.connection) is not None

    @property
    def has_taken_in(self) -> bool:
        """Whether there is any event on this disk, between two transactions."""
        connection = self.disk.connection
        return (
            not connection.in_transaction and connection.execute("SELECT 1 FROM events LIMIT 1").fetchone() is not None
        )

    @property
    def epoch(self) -> int:
        """Of the store on this disk; 0: it has none."""
        here = None if self.disk.connection.in_transaction else life.find(self.disk.connection)
        return here.epoch if here is not None else 0

    @property
    def has_fence(self) -> bool:
        """Whether its own store says that it may not go on."""
        if self.disk.connection.in_transaction:
            return False
        here = life.find(self.disk.connection)
        return here is not None and bool(here.fenced)

    def now(self) -> datetime:
        """What its wall clock says."""
        return BEGINNING + self.skew + timedelta(seconds=asyncio.get_running_loop().time())

    @property
    def is_running(self) -> bool:
        """Whether an agent runs."""
        return self.agent is not None

    def start(self) -> None:
        """Start the agent, over what the disk has."""
        if self.agent is not None or self._is_retired:
            return
        self._lives += 1
        self.trace.note("start", self.name)
        self.disk.recover()
        own = Life(f"{self.name} {self._lives}")
        context = within(own)
        self.agent = context.run(RunningAgent, self, own)
        task = asyncio.get_running_loop().create_task(self.agent.run(), name=own.name, context=context)
        task.add_done_callback(_complain)

    def kill(self) -> None:
        """End the agent as a SIGKILL does."""
        if self.agent is None:
            return
        self.trace.note("kill", self.name)
        agent, self.agent = self.agent, None
        self._crashes_in = 0
        agent.life.end()

    def retire(self) -> None:
        """End the agent, and let nobody start it any more."""
        self.kill()
        self._is_retired = True

    def replace_disk(self, disk: Disk) -> None:
        """Put another disk in, with the agent down."""
        self.kill()
        self.disk = disk

    def crash_in(self, passages: int, at: str = "") -> None:
        """Kill the agent at its `passages`th passage of a crash point from now, of those that end with `at`."""
        self._crashes_in, self._crashes_at = passages, at

    def pass_crash_point(self, point: str) -> None:
        """The agent passes this one."""
        if self._crashes_in and point.endswith(self._crashes_at):
            self._crashes_in -= 1
            if self._crashes_in == 0:
                self.trace.note("crash", self.name, point)
                self.kill()
                self.on_crash(self.name, point)
                raise asyncio.CancelledError

    @property
    def compiled(self) -> CompiledEstate:
        """The estate as this machine has it."""
        return the_estate(self.version)

    def adopt(self, version: int) -> None:
        """The estate of this machine changed."""
        self.version = max(self.version, version)
        if self.agent is not None:
            self.agent.reload.set()

    def be_lazy(self, laziness: float) -> None:
        """Sleep so many times longer where nothing is to do, from the next start on."""
        self.laziness = laziness

    def set_clock(self, skew: timedelta) -> None:
        """Set the wall clock wrong by that much."""
        self.trace.note("clock", self.name, skew)
        self.skew = skew
        if self.agent is not None:
            self.agent.clock.skew = self.agent.slow_clock.skew = skew


def _complain(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": f"the agent {task.get_name()} ended by itself", "exception": error}
        )


class RunningAgent:
    """One life of the agent of a machine."""

    def __init__(self, machine: Machine, own: Life) -> None:
        self.life = own
        self.reload = asyncio.Event()
        self.hub: Hub | None = None
        self.link: SiteLink | None = None
        self.works: Works | None = None
        self.fenced = ""
        self._machine = machine
        self._compiled = machine.compiled
        self._stopping = asyncio.Event()  # never: a life ends by being killed
        self._ending = asyncio.Event()  # of the works that run now
        self._redial = asyncio.Event()
        self.clock = CounterpartsClock(own, skew=machine.skew)
        self.clock.counterparts = machine.counterparts
        self.clock.laziness = machine.laziness
        self.slow_clock = SimulatedClock(own, skew=machine.skew, slowness=_SELDOM * machine.laziness)
        dice = random.Random(machine.dice.random())
        self._dice = dice
        self._secret = lambda: f"{dice.getrandbits(128):032x}"
        self.store = InlineStore(machine.disk, own, crash=machine.pass_crash_point, on_fatal=self._die)
        self._ground = Ground(
            site=machine.site,
            home=Path("/"),
            database=self.store,
            archive=RawArchive(Path("/nowhere")),
            leases=Leases(self.clock),
            clock=self.clock,
            dice=dice,
            crash=machine.pass_crash_point,
            telemetry=_TELEMETRY,
            on_sent=self._wake_link,
            known=SharedEstates(self._compiled),
        )
        self.gathering = Gathering(self.store, site=machine.site, clock=self.clock)
        self._reaper = Reaper(
            self.store,
            self._ground.leases,
            Reserve(Path("/")),
            self.slow_clock,
            on_recovered=self._wake,
        )

    @property
    def is_fenced_itself(self) -> bool:
        """Whether this agent says that its own store may not go on."""
        trouble = self.link.trouble if self.link is not None else None
        return (
            isinstance(trouble, LinkFencedError)
            and trouble.fence.site == self._machine.site
            and self._machine.has_fence
        )

    @property
    def is_told_to_stop(self) -> bool:
        """Whether this agent says that its store's life has ended: another store of its site goes on."""
        trouble = self.link.trouble if self.link is not None else None
        return isinstance(trouble, LinkFencedError) and trouble.fence.reason is Reason.ENDED

    async def run(self) -> None:
        """As `agent.runtime.Agent`."""
        await self.store.write(self._start, name="runtime.start")
        await self._adopt()
        if self._machine.site == HUB:
            self.hub = self._make_hub()
        await self._reaper.sweep()
        async with asyncio.TaskGroup() as tasks:
            for name, run in (
                ("reaper", partial(self._reaper.run, self._stopping)),
                ("works", self._work),
                ("estate", self._follow_estate),
                ("link", self._dial),
            ):
                tasks.create_task(guard(name, run, clock=self.clock, stopping=self._stopping))

    def _start(self, connection: sqlite3.Connection) -> None:
        life.begin(connection, self._machine.site, now=to_millis(self.clock.now()))
        targets.close_breakers(connection)

    def _put_in_force(self, compiled: CompiledEstate, connection: sqlite3.Connection) -> None:
        estates.adopt(connection, compiled.estate, now=to_millis(self.clock.now()))
        open_lanes(connection, compiled, site=self._machine.site)
        with Outbox(connection, now=self.clock.now()) as outbox:
            outbox.reconsider()

    async def _adopt(self) -> None:
        """Put in force, one after another, what came since this store was here last."""
        compiled = self._compiled
        for version in range(1, self._machine.version + 1):
            compiled = the_estate(version)
            if not await self.store.read(partial(_holds, compiled)) or version == self._machine.version:
                await self.store.write(partial(self._put_in_force, compiled), name="runtime.adopt_estate")
        self._compiled = compiled

    async def _work(self) -> None:
        while True:
            self._ending = asyncio.Event()
            self.fenced = (await self.store.read(life.get)).fenced
            if self.fenced:
                self.works = None
                await self._ending.wait()
                continue
            if not await self.gathering.is_over():
                self.works = None
                await self._ending.wait()
                continue
            self.works = await open_works(self._ground, self._compiled)
            await self.works.run(self._ending)

    async def _follow_estate(self) -> None:
        while True:
            await self.reload.wait()
            self.reload.clear()
            await self._adopt()
            if self._machine.site == HUB:
                self.hub = self._make_hub()
            self._redial.set()
            self._ending.set()

    async def _dial(self) -> None:
        if self._machine.site == HUB:
            await self._stopping.wait()
        while True:
            self._redial.clear()
            self.link = self._make_link()
            await self.link.run(self._redial)

    def _make_hub(self) -> Hub:
        settings = self._compiled.estate.settings
        seal = Seal.of_hub(_KEY, settings)
        return Hub(
            HUB,
            self.store,
            self._incoming(),
            weights=settings.tier_weights,
            estate=self._compiled.estate.hash,
            software=_SOFTWARE,
            clock=self.clock,
            on_owed=self._wake_targets,
            on_life=self.look_at_life,
            secret=self._secret,
            seal=lambda: seal,
        )

    def _make_link(self) -> SiteLink:
        settings = self._compiled.estate.settings
        return SiteLink(
            Wire(self._machine.site, self._machine.network, self.life),
            self.store,
            self._incoming(),
            hub=HUB,
            weights=settings.tier_weights,
            estate=self._compiled.estate.hash,
            software=_SOFTWARE,
            clock=self.clock,
            dice=self._dice,
            health=dict,
            on_owed=self._wake_targets,
            secret=self._secret,
            on_life=self.look_at_life,
        )

    def _incoming(self) -> Incoming:
        site = self._machine.site
        self._ground.known.add(self._compiled)
        return Incoming(site, Outgoing(site, HUB), self._ground.known, environment=Environment.TEST, clock=self.clock)

    def _wake_link(self, sites: Iterable[str]) -> None:
        if self.hub is not None:
            self.hub.wake(sites)
        elif self.link is not None and HUB in sites:
            self.link.wake()

    def _wake(self) -> None:
        if self.works is not None:
            self.works.wake()

    def _wake_targets(self, names: Collection[str]) -> None:
        if self.works is not None:
            self.works.wake(names)

    def look_at_life(self) -> None:
        """Works end or begin by what the store's life says now."""
        self._ending.set()

    def _die(self, error: DistctlError) -> None:
        """The store cannot be vouched for. Of a life that was ended at a crash point that is no news."""
        if not self.life.has_ended:
            self._machine.trace.note("fatal", self._machine.name, error)
            with suppress(asyncio.CancelledError):
                self._machine.kill()


def _holds(compiled: CompiledEstate, connection: sqlite3.Connection) -> bool:
    return bool(estates.documents(connection, hashes=[compiled.estate.hash]))
