"""The composition root: the one place that knows every class. Starts them in order, stops them in reverse.

Order of a start: the estate is read and checked; the store is opened, settled and migrated; the estate is put in force; what an
earlier run left in flight becomes in doubt; the control API listens; then the works run. A stop (SIGTERM, SIGINT) lets calls
under way end and settles them. A store that nobody can vouch for ends the process at once, and the next start verifies it.
After several starts that came to nothing only the control API listens, until a person resumes the rest.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import signal
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from os import environ
from pathlib import Path
from typing import Final, Literal

from agent import crash_points
from agent.allow_list import AllowList
from agent.backup import Backups
from agent.backup_folder import row_of
from agent.clock import SystemClock
from agent.control.access import Gate, StoreRegister
from agent.control.endpoint import socket_in, store_in
from agent.control.schema import BackupRow
from agent.control.server import ControlServer
from agent.control.store_desk import Running, StoreDesk
from agent.crash_points import CrashPoint
from agent.drain import Drain
from agent.errand import Answered, Question
from agent.estate.check import load_checked
from agent.estate.compiled import CompiledEstate, compile_estate
from agent.estate_in_force import EstateInForce
from agent.fleet import Fleet
from agent.gathering import Gathering
from agent.leases import Leases
from agent.link import Link, LinkedAgent, NoLink
from agent.raw_archive import RawArchive
from agent.reaper import Reaper
from agent.retention import Retention
from agent.site_estate import SiteEstate, is_enrolled
from agent.start_count import StartCount
from agent.supervisor import Forever, first_in, guard, sleep_unless, unless
from agent.sync.fencing import own_cure
from agent.telemetry import Telemetry, notify_service_manager, start_logging, watchdog_seconds
from agent.works import Ground, Works, open_works
from state import audit, draining, lanes, life, targets
from state.database import Database
from state.model.clock import Clock, to_millis
from state.model.errors import (
    ConfigError,
    ConflictError,
    DistctlError,
    InvariantError,
    StoreCorruptError,
    StoreError,
    StoreInDoubtError,
)
from state.reserve import Reserve

_log = logging.getLogger("distctl.agent")
_SOON: Final = 2.0
"""Seconds after which questions are answered although works have not begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """How an agent is started."""

    estate: Path | None  # None at a site that takes its estate from the hub alone
    site: str
    data: Path
    log: Literal["json", "text"] = "json"


async def run_agent(options: AgentOptions) -> int:
    """Run the agent until it is told to stop. Returns the exit code; raises `ConfigError` and `StoreError` at the start."""
    start_logging(options.log)
    _collect_seldom()
    options = replace(options, estate=options.estate.absolute() if options.estate else None)
    clock = SystemClock()
    compiled = None if is_enrolled(options.data) else _read_estate(options.estate, options.site)
    options.data.mkdir(mode=0o750, parents=True, exist_ok=True)
    starts = StartCount(options.data / "starts")
    starts.begin()
    try:
        return await _run(options, compiled, clock, starts)
    except ConflictError:
        starts.take_back()  # the store and the count are another agent's
        raise
    except DistctlError as error:
        if not isinstance(error, StoreInDoubtError):
            starts.clear()  # it said why, which is no crash
        raise


async def _run(options: AgentOptions, compiled: CompiledEstate | None, clock: Clock, starts: StartCount) -> int:
    crash = crash_points.from_environment(environ)
    fatal: asyncio.Queue[DistctlError] = asyncio.Queue()
    reserve = Reserve(options.data / "reserve")
    make_room = partial(_make_room, reserve)
    database = await _open_store(options.data, clock, crash=crash, on_fatal=fatal.put_nowait, make_room=make_room)
    async with database:
        source = SiteEstate(
            database,
            site=options.site,
            data=options.data,
            folder=options.estate,
            read_folder=partial(_read_estate, options.estate, options.site),
            clock=clock,
        )
        ground = Ground(
            site=options.site,
            home=options.estate or options.data.absolute(),
            database=database,
            archive=RawArchive(options.data / "raw"),
            leases=Leases(clock),
            clock=clock,
            dice=random.Random(),
            crash=crash,
            telemetry=Telemetry(),
            on_sent=lambda _: None,  # the agent's link takes its place
        )
        compiled = compiled or await _begin_at_site(source, starts, ground, options)
        return await Agent(options, ground, source, compiled, fatal, starts, reserve).run()


async def _begin_at_site(
    source: SiteEstate, starts: StartCount, ground: Ground, options: AgentOptions
) -> CompiledEstate:
    """What an enrolled site starts with. One that has neither a bundle nor a folder waits for its hub's, as long as it takes."""
    if options.estate is None and not await source.has_bundle():
        from agent import first_estate  # with what a link needs

        starts.clear()  # waiting is no start that comes to nothing
        _log.info("no estate has come from the hub yet: waiting for it")
        notify_service_manager("READY=1")
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(_feed_watchdog(ground.clock, asyncio.Event()), name="watchdog")
            await first_estate.fetch(ground, source, options.data)
            feeding.cancel()
        starts.begin()
    return await source.begin(starts)


async def _feed_watchdog(clock: Clock, until: asyncio.Event) -> None:
    seconds = watchdog_seconds()
    while seconds is not None and not await sleep_unless(until, seconds, clock=clock):
        notify_service_manager("WATCHDOG=1")


class Agent:
    """A running agent: one store, one site, one estate in force at a time."""

    def __init__(
        self,
        options: AgentOptions,
        ground: Ground,
        source: SiteEstate,
        compiled: CompiledEstate,
        fatal: asyncio.Queue[DistctlError],
        starts: StartCount,
        reserve: Reserve,
    ) -> None:
        self._options = options
        self._in_force = EstateInForce(ground, source, starts, compiled, on_changed=self._work_by)
        linked = LinkedAgent(
            on_owed=self._wake_targets,
            on_life=self._look_at_life,
            on_bundle=self._in_force.look_for_bundle,
            answer=self._answer_hub,
        )
        self._link = _link_of(ground, compiled, options.data, linked)
        self._control: ControlServer | None = None
        self._ground = ground = replace(ground, on_sent=self._link.wake)
        self._fatal = fatal
        self._starts = starts
        self._reserve = reserve
        self._is_waiting = starts.is_safe_mode
        self._works: Works | None = None
        self._stopping = asyncio.Event()
        self._fenced = ""  # why this store may not go on
        self._resumed = asyncio.Event()  # safe mode is over: a person said so, or the agent stops
        self._ending = asyncio.Event()  # of the works that run now
        self._owed = asyncio.Event()  # there may be work for a lane that no works know
        self._has_begun = asyncio.Event()  # works run, or it is known why they do not
        self._backups = Backups(
            ground.database, site=ground.site, data=options.data, clock=ground.clock, crash=ground.crash
        )
        self._gathering = Gathering(ground.database, site=ground.site, clock=ground.clock)
        self._fleet = Fleet(
            ground.database,
            site=ground.site,
            estate=lambda: self._in_force.estate,
            identity=lambda: self._link.identity,
            clock=ground.clock,
            on_life=self._look_at_life,
        )
        self._retention = Retention(
            ground.database,
            ground.archive,
            ground.clock,
            hub=self._hub_site,
            settled=lambda: self._in_force.estate.settings.retention.settled,
            is_backing_up=lambda: self._backups.is_making,
            on_let_go=ground.telemetry.let_go.inc,
            crash=ground.crash,
        )
        self._reaper = Reaper(ground.database, ground.leases, reserve, ground.clock, on_recovered=self._wake)

    async def run(self) -> int:
        """Run until stopped. Returns the exit code."""
        exit_code = 0
        with self._signals():
            try:
                if self._is_waiting:
                    await self._wait_for_a_person()
                if not self._stopping.is_set():
                    await self._live()
                self._starts.clear()
            except* (StoreInDoubtError, StoreCorruptError) as group:
                error = first_in(group)
                _log.critical("the store cannot be vouched for, the agent ends: %s", error)
                exit_code = error.exit_code if isinstance(error, DistctlError) else 1
        _log.info("agent of %s has stopped", self._ground.site)
        return exit_code

    async def _live(self) -> None:
        """The whole agent, until it is stopped."""
        ground, stopping = self._ground, self._stopping
        await self._in_force.prove()
        await ground.database.write(self._start, name="runtime.start")
        await self._in_force.begin()
        await self._reaper.sweep()
        server = self._control = self._server()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_store(stopping), name="store")
            self._guarded(tasks, "control", partial(self._serve, server), stopping)
            self._guarded(tasks, "reaper", partial(self._reaper.run, stopping), stopping)
            self._guarded(tasks, "retention", partial(self._retention.run, stopping), stopping)
            if folder := self._options.estate:
                follow = partial(self._in_force.follow_folder, folder, stopping)
                self._guarded(tasks, "estate", follow, stopping)
            self._guarded(tasks, "bundles", partial(self._in_force.follow_bundles, stopping), stopping)
            self._guarded(tasks, "watchdog", partial(_feed_watchdog, ground.clock, stopping), stopping)
            self._guarded(tasks, "starts", partial(self._in_force.become_well, stopping), stopping)
            self._guarded(tasks, "link", partial(self._link.run, stopping), stopping)
            self._guarded(tasks, "fleet", partial(self._fleet.watch, stopping), stopping)
            self._guarded(tasks, "lanes", self._watch_lanes, stopping)
            self._guarded(tasks, "works", self._work, stopping)
            notify_service_manager("READY=1")
            _log.info("agent of %s is running, estate %s", ground.site, self._in_force.estate.hash)

    async def _wait_for_a_person(self) -> None:
        """Safe mode: answer questions, touch nothing, until a person says that it may go on."""
        resumed = self._resumed
        server = self._server()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_store(resumed), name="store")
            self._guarded(tasks, "control", partial(server.serve, resumed), resumed)
            self._guarded(tasks, "watchdog", partial(_feed_watchdog, self._ground.clock, resumed), resumed)
            notify_service_manager("READY=1")
            _log.critical("%s", self._safe_mode())

    async def resume(self, by: str, reason: str, dry_run: bool) -> None:
        """End safe mode, audited, with the estate as it is by now: an edit may be the cure.

        A dry run ends after what could go wrong.
        Raises `ConflictError` where the agent is not in safe mode, and `ConfigError`, which leaves it there, where the estate
        is wrong.
        """
        async with self._in_force.changing:
            if not self._is_waiting:
                raise ConflictError(
                    "the agent is not in safe mode", hint="`distctl status` says how it is", code="not-safe-mode"
                )
            compiled = await self._in_force.choose_again()
            if dry_run:
                return
            await self._ground.database.write(partial(self._note_resumption, by, reason), name="runtime.resume")
            self._in_force.compiled = compiled
            self._is_waiting = False
            self._resumed.set()

    async def _back_up(self, by: str, folder: str) -> BackupRow:
        made = await self._backups.make(Path(folder), by=by)
        return row_of(made.path, made.manifest, made.manifest_sha256)

    def _note_resumption(self, by: str, reason: str, connection: sqlite3.Connection) -> None:
        millis = to_millis(self._ground.clock.now())
        audit.append(
            connection,
            at_ms=millis,
            actor=by,
            action="resume",
            target="agent",
            reason=reason,
            details={"failed_starts": self._starts.failed},
        )

    def _start(self, connection: sqlite3.Connection) -> None:
        life.begin(connection, self._ground.site, now=to_millis(self._ground.clock.now()))
        targets.close_breakers(connection)

    # The forever-tasks.

    async def _serve(self, server: ControlServer) -> None:
        """Answer questions as soon as there is something to say: works run, or why they do not."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_SOON):
                await unless(self._stopping, self._has_begun.wait())
        await server.serve(self._stopping)

    async def _work(self) -> None:
        try:
            await self._work_on()
        finally:
            self._has_begun.set()

    async def _work_on(self) -> None:
        while not self._stopping.is_set():
            self._ending = asyncio.Event()
            self._fenced = (await self._ground.database.read(life.get)).fenced
            if self._fenced:
                self._works = None
                self._has_begun.set()
                await self._ending.wait()  # it may be adopted while it runs, and begins anew
                continue
            if not await self._gathering.is_over():
                self._works = None
                self._has_begun.set()
                await self._ending.wait()
                continue
            is_draining = (await self._ground.database.read(draining.look)).since is not None
            try:
                self._works = await open_works(self._ground, self._in_force.compiled, takes_in=not is_draining)
            except (DistctlError, ValueError) as error:
                if not await self._in_force.give_back(f"it could not be worked: {error}"):
                    raise
                continue
            if self._stopping.is_set():
                return
            self._has_begun.set()
            self._owed.set()
            await self._works.run(self._ending)

    async def _watch_lanes(self) -> None:
        """Works begin anew where an event came late for a lane that left the estate and was closed."""
        while not self._stopping.is_set():
            await unless(self._stopping, self._owed.wait())
            self._owed.clear()
            owing = await self._ground.database.read(lanes.owing)
            if self._works is not None and self._works.leave_out(owing):
                self._ending.set()

    async def _watch_store(self, until: asyncio.Event) -> None:
        error = await unless(until, self._fatal.get())
        if error is not None:
            raise error

    def _guarded(self, tasks: asyncio.TaskGroup, name: str, run: Forever, until: asyncio.Event) -> None:
        tasks.create_task(guard(name, run, clock=self._ground.clock, stopping=until), name=name)

    def _server(self) -> ControlServer:
        database, running = self._ground.database, self._running()
        gate = Gate(
            StoreRegister(database),
            site=running.site,
            estate=running.estate,
            clock=running.clock,
            allowed_to_hub=partial(AllowList.read, self._options.data),
        )
        return ControlServer(StoreDesk(database, running), socket_in(self._options.data), gate, self._link.elsewhere)

    async def _answer_hub(self, question: Question) -> Answered:
        """Put what somebody at the hub asks to our own control API."""
        hub = self._in_force.estate.settings.hub
        if self._control is None or hub is None:
            raise InvariantError("a link is up and there is no control API", code="no-control")
        return await self._control.answer(question, hub=hub.site)

    # Stopping.

    @contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Finish what is under way and end."""
        if not self._stopping.is_set():
            _log.info("stopping: calls under way may end first")
            notify_service_manager("STOPPING=1")
        self._stopping.set()
        self._resumed.set()
        self._in_force.stop()
        self._ending.set()
        self._backups.stop()

    def _work_by(self, compiled: CompiledEstate) -> None:
        """Another estate is in force: link and works begin anew."""
        self._link.adopt(compiled)
        self._ending.set()

    def _wake(self) -> None:
        if self._works is not None:
            self._works.wake()

    def _wake_targets(self, targets: Collection[str]) -> None:
        self._owed.set()
        if self._works is not None:
            self._works.wake(targets)

    def _look_at_life(self) -> None:
        """This store may not go on, begins to gather, or was answered: works end or begin by what its life says now."""
        self._ending.set()

    def _hub_site(self) -> str | None:
        hub = self._in_force.estate.settings.hub
        return hub.site if hub else None

    def _running(self) -> Running:
        return Running(
            site=self._ground.site,
            clock=self._ground.clock,
            started_at=self._ground.clock.now(),
            estate=lambda: self._in_force.estate,
            troubles=self._troubles,
            metrics=self._ground.telemetry.expose,
            origin=lambda: self._in_force.origin,
            reload=self._in_force.reload,
            resume=self.resume,
            back_up=self._back_up,
            drain=Drain(
                self._ground.database, clock=self._ground.clock, sources=self._sources, on_changed=self._look_at_life
            ),
            fleet=self._fleet,
        )

    def _sources(self) -> int:
        """How many sources this agent reads."""
        here = f"{self._ground.site}/"
        return sum(flow.source.startswith(here) for flow in self._in_force.compiled.flows.values())

    def _troubles(self) -> Sequence[str]:
        if self._is_waiting:
            return [self._safe_mode()]
        full = [f"the disk was full: free space under {self._options.data}"] if self._reserve.is_given_up else []
        fenced = [f"this store is fenced: {self._fenced}; {self._cure()}"] if self._fenced else []
        gathering = [self._gathering.trouble] if self._gathering.trouble else []
        works = self._works.troubles if self._works else fenced or gathering or ["nothing runs: see the log"]
        return [*self._in_force.troubles, *full, *works, *self._link.troubles]

    def _cure(self) -> str:
        return own_cure(self._ground.site, hub=self._hub_site() or self._ground.site)

    def _safe_mode(self) -> str:
        return (
            f"safe mode: the last {self._starts.failed} starts came to nothing, so nothing is taken in and nothing is "
            "delivered; look at the log, then `distctl agent resume --reason ...`"
        )


def _link_of(ground: Ground, compiled: CompiledEstate, data: Path, agent: LinkedAgent) -> Link:
    """The link of the agent of `ground.site`, with its identity in the folder `data`."""
    hub = compiled.estate.settings.hub
    if hub is None:
        return NoLink()
    from agent.linked import HubDialler, HubLink  # 13 MB of TLS and HTTP that an agent alone does without

    kind = HubLink if hub.site == ground.site else HubDialler
    return kind(ground, compiled, data, hub, agent)


async def _open_store(
    data: Path,
    clock: Clock,
    *,
    crash: CrashPoint,
    on_fatal: Callable[[DistctlError], None],
    make_room: Callable[[], bool],
) -> Database:
    """The store; on a full disk opening it needs the reserve too."""
    start = partial(Database.open, store_in(data), now=clock.now(), crash=crash, on_fatal=on_fatal, make_room=make_room)
    try:
        return await start()
    except StoreError as error:
        if error.code != "store-full" or not make_room():
            raise
    return await start()


def _make_room(reserve: Reserve) -> bool:
    """Answers whether a store that is full may be tried again."""
    was_released = reserve.release()
    if was_released:
        _log.error("the disk is full: the reserve was given up, so that results and the audit can still be written")
    return was_released


def _collect_seldom() -> None:
    """A batch makes many objects and no cycles: looking for cycles at the default rate costs a sixth of the intake."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _read_estate(folder: Path | None, site: str) -> CompiledEstate:
    """The estate of a folder, checked and compiled. Raises `ConfigError` for its first mistake, saying how many there are."""
    if folder is None:
        raise ConfigError(
            "no estate has come from the hub yet, and no folder was named",
            hint="start it once with --estate FOLDER, a copy of the hub's",
            code="no-estate",
        )
    estate = load_checked(folder).raise_first()
    if site not in estate.sites:
        known = ", ".join(estate.sites)
        raise ConfigError(
            f"the estate has no site {site!r}", file=str(folder), hint=f"its sites: {known}", code="unknown-site"
        )
    return compile_estate(estate)
