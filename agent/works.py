"""The sources and relays of one estate at one site: built, run and stopped together.

A reload builds the next works from the new estate when the old ones have finished what was under way. Lanes that the new estate
no longer has stay open, by the estate that their events carry, until they owe nothing. Where an event comes late for one that
was closed, works begin anew.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agent.breaker import OUTAGE, Breaker
from agent.crash_points import CrashPoint
from agent.estate.compiled import CompiledEstate, CompiledFlow
from agent.estate.connections import merged_settings, source_settings
from agent.estate.known import KnownEstates
from agent.intake import Intake, StoredMemory, source_name
from agent.leases import Leases
from agent.raw_archive import RawArchive
from agent.relay import OpenLane, TargetRelay, TargetTerms
from agent.rendering import Renderer
from agent.supervisor import Forever, guard
from agent.sync.outgoing import Outgoing
from agent.telemetry import Telemetry
from connectors import registry
from connectors.base import Sink, Source, Surroundings
from state import estates
from state.database import Database
from state.lanes import Lane, list_lanes
from state.model.clock import Clock
from state.model.errors import ConfigError, DistctlError
from state.model.estate import Estate, SystemSpec, TargetSpec
from state.model.ids import LaneId

_log = logging.getLogger("distctl.works")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the works stand on, the same from one estate to the next."""

    site: str
    home: Path  # the estate folder: relative folders in settings start here
    database: Database
    archive: RawArchive
    leases: Leases
    clock: Clock
    dice: random.Random
    crash: CrashPoint
    telemetry: Telemetry
    on_sent: Callable[[Collection[str]], None]  # these sites are to have something
    known: KnownEstates = field(default_factory=KnownEstates)
    breakers: dict[str, tuple[SystemSpec, Breaker]] = field(default_factory=dict)  # by target, and how it is reached


@dataclass(frozen=True, slots=True)
class _Leg:
    """A lane with the terms that it is worked under."""

    lane: Lane
    system: SystemSpec
    target: TargetSpec
    is_in_force: bool = True


@dataclass(frozen=True, slots=True)
class _Legs:
    """What of the lanes to this site's systems is worked, what cannot be and why, and what left the estate and owes nothing."""

    legs: Sequence[_Leg]
    stranded: Sequence[tuple[Lane, str]]
    idle: Collection[LaneId]


class Works:
    """What runs for one estate in force."""

    def __init__(
        self,
        ground: Ground,
        compiled: CompiledEstate,
        lanes: Sequence[Lane],
        found: _Legs,
        *,
        takes_in: bool = True,
    ) -> None:
        """`lanes` are all there are; `found` are those that are worked. Unless it `takes_in`, no source is read."""
        self._ground = ground
        self._compiled = compiled
        self._closing = AsyncExitStack()
        self._idle = found.idle
        self._lanes = {lane.id for lane in lanes}
        self._stranded = [_left(lane, why) for lane, why in found.stranded]
        ground.known.add(compiled)
        hub = compiled.estate.settings.hub
        self._outgoing = Outgoing(ground.site, hub.site, second=hub.second) if hub else Outgoing(ground.site, None)
        self._relays = {name: self._relay(name, of_target) for name, of_target in _by_target(found.legs).items()}
        self._intakes = [self._intake(flow, lanes) for flow in self._local_flows()] if takes_in else []

    @property
    def relays(self) -> Mapping[str, TargetRelay]:
        """The relay of each local target."""
        return self._relays

    @property
    def troubles(self) -> list[str]:
        """The sources that cannot be read at the moment and the lanes that nobody can work, one sentence each."""
        unread = [f"{intake.name} cannot be read: {intake.trouble}" for intake in self._intakes if intake.trouble]
        return unread + self._stranded

    def leave_out(self, owing: Collection[LaneId]) -> bool:
        """Whether one of these lanes owed nothing and was in no estate in force when these works were opened."""
        return any(lane in self._idle or lane not in self._lanes for lane in owing)

    async def run(self, ending: asyncio.Event) -> None:
        """Run until `ending`; then finish what is under way and let go of every connection."""
        async with self._closing, asyncio.TaskGroup() as tasks:
            for intake in self._intakes:
                self._guarded(tasks, f"intake {intake.name}", partial(intake.run, ending), ending)
            for name, relay in self._relays.items():
                for slot in range(relay.slots):
                    self._guarded(tasks, f"relay {name} {slot}", partial(relay.run, slot, ending), ending)
            await ending.wait()
            self.wake()

    def wake(self, targets: Collection[str] | None = None) -> None:
        """There may be work for these targets, or for all."""
        for name, relay in self._relays.items():
            if targets is None or name in targets:
                relay.wake()

    def _guarded(self, tasks: asyncio.TaskGroup, name: str, run: Forever, ending: asyncio.Event) -> None:
        tasks.create_task(guard(name, run, clock=self._ground.clock, stopping=ending), name=name)

    def _local_flows(self) -> Iterator[CompiledFlow]:
        return (flow for flow in self._compiled.flows.values() if flow.source.startswith(f"{self._ground.site}/"))

    def _intake(self, flow: CompiledFlow, lanes: Iterable[Lane]) -> Intake:
        ground = self._ground
        return Intake(
            flow,
            partial(_open_source, ground, self._compiled.estate, flow),
            lanes={(lane.flow, lane.target): lane for lane in lanes},
            outgoing=self._outgoing,
            database=ground.database,
            archive=ground.archive,
            clock=ground.clock,
            dice=ground.dice,
            crash=ground.crash,
            on_owed=self.wake,
            on_sent=ground.on_sent,
            on_read=self._count_read,
        )

    def _relay(self, name: str, legs: Sequence[_Leg]) -> TargetRelay:
        ground = self._ground
        newest = legs[-1]
        return TargetRelay(
            TargetTerms(
                name=name,
                limits=newest.system.limits,
                weights=self._compiled.estate.settings.tier_weights,
            ),
            database=ground.database,
            lanes=[opened for leg in legs if (opened := self._open_if_it_can_be(leg)) is not None],
            render=Renderer(ground.known).render,
            leases=ground.leases,
            breaker=self._breaker(name, newest.system),
            clock=ground.clock,
            dice=ground.dice,
            crash=ground.crash,
            outgoing=self._outgoing,
            on_sent=ground.on_sent,
            shadowed=[
                spec.flow
                for spec in self._compiled.estate.flows.values()
                if any(target.shadow_of for target in spec.targets)
            ],
            on_turn=self._count_turn,
        )

    def _breaker(self, name: str, system: SystemSpec) -> Breaker:
        """That of the works before where the target is reached as before: an outage, and its Retry-After, outlast an edit."""
        reached, breaker = self._ground.breakers.get(name, (None, None))
        if breaker is None or reached != system:
            breaker = Breaker(OUTAGE, self._ground.dice, self._ground.clock)
        breaker.forgo()  # whoever tried for the works before has ended
        self._ground.breakers[name] = (system, breaker)
        return breaker

    def _open_if_it_can_be(self, leg: _Leg) -> OpenLane | None:
        """A lane of an earlier estate may not fit what its system has become: what it owes waits, and the others go on."""
        if leg.is_in_force:
            return self._open(leg)
        try:
            return self._open(leg)
        except (DistctlError, ValueError) as error:
            trouble = _left(leg.lane, error)
            _log.error("%s", trouble)
            self._stranded.append(trouble)
            return None

    def _open(self, leg: _Leg) -> OpenLane:
        sink, can_probe = _open_sink(self._ground, f"{leg.lane.flow}@{leg.lane.target}", leg.system, leg.target)
        self._closing.push_async_callback(sink.close)
        return OpenLane(
            lane=leg.lane,
            sink=sink,
            memory=leg.system.memory.memory(can_probe=can_probe),
            policy=leg.target.retry.policy(),
        )

    def _count_read(self, flow: str, accepted: int, refused: int) -> None:
        self._ground.telemetry.records.labels(flow, "accepted").inc(accepted)
        self._ground.telemetry.records.labels(flow, "refused").inc(refused)

    def _count_turn(self, target: str, settled: int, parked: int) -> None:
        self._ground.telemetry.settled.labels(target).inc(settled)
        self._ground.telemetry.parked.labels(target).inc(parked)


async def open_works(ground: Ground, compiled: CompiledEstate, *, takes_in: bool = True) -> Works:
    """The works of `compiled`; no source is read unless it `takes_in`.

    Raises `ConfigError` where a connector does not take its settings.
    """
    lanes = await ground.database.read(list_lanes)
    found = await ground.database.read(partial(_legs, compiled.estate, ground.site))
    return Works(ground, compiled, lanes, found, takes_in=takes_in)


async def rehearse(ground: Ground, compiled: CompiledEstate) -> None:
    """Open and close every connector of the estate at this site, so that one that cannot be opened is found before it counts.

    Raises `ConfigError`.
    """
    estate = compiled.estate
    for flow in compiled.flows.values():
        if flow.source.startswith(f"{ground.site}/"):
            await _open_source(ground, estate, flow).close()
    for spec, target, name in estate.lanes():
        if name.startswith(f"{ground.site}/"):
            sink, _ = _open_sink(ground, f"{spec.flow}@{name}", _system(name, estate), target)
            await sink.close()


def _legs(estate: Estate, site: str, connection: sqlite3.Connection) -> _Legs:
    """The lanes to this site's systems that are in force or still owe, those of earlier estates first."""
    in_force: list[_Leg] = []
    earlier: list[_Leg] = []
    stranded: list[tuple[Lane, str]] = []
    idle: set[LaneId] = set()
    for lane in list_lanes(connection):
        if not lane.target.startswith(f"{site}/"):
            continue
        if (target := _target(estate, lane)) is not None:
            in_force.append(_Leg(lane, _system(lane.target, estate), target))
            continue
        try:
            old = estates.of_lane(connection, lane.id)
        except ConfigError as error:
            stranded.append((lane, str(error)))
            continue
        if old is None:
            idle.add(lane.id)
        elif (target := _target(old, lane)) is None:
            stranded.append((lane, "the estate that its events carry does not have it"))
        else:
            _log.info("lane %s to %s left the estate and is worked until it owes nothing", lane.flow, lane.target)
            earlier.append(_Leg(lane, _system(lane.target, estate, old), target, is_in_force=False))
    return _Legs(earlier + in_force, stranded, idle)


def _left(lane: Lane, why: object) -> str:
    return f"lane {lane.flow} to {lane.target} left the estate and cannot be worked: {why}"


def _system(target: str, *preferred: Estate) -> SystemSpec:
    """How a target is reached: by the first estate that still has it, so that a new address serves old work.

    A system that is reached in another way by now is no new address: old work goes the old way.
    """
    site, _, name = target.partition("/")
    known = [
        one.sites[site].systems[name] for one in preferred if site in one.sites and name in one.sites[site].systems
    ]
    return next(system for system in known if system.connector == known[-1].connector)


def _target(estate: Estate, lane: Lane) -> TargetSpec | None:
    flow = estate.flows.get(lane.flow)
    wanting = flow.targets if flow is not None else ()
    return next((one for one in wanting if "/".join(estate.resolve(one.system) or ()) == lane.target), None)


def _by_target(legs: Iterable[_Leg]) -> dict[str, list[_Leg]]:
    grouped: defaultdict[str, list[_Leg]] = defaultdict(list)
    for leg in legs:
        grouped[leg.lane.target].append(leg)
    return dict(grouped)


def _open_source(ground: Ground, estate: Estate, flow: CompiledFlow) -> Source:
    site, _, name = flow.source.partition("/")
    system = estate.system(site, name)
    connector = registry.find(system.connector)
    if connector.source_settings is None or connector.make_source is None:
        raise ConfigError(f"connector {system.connector} cannot be read from", code="no-source")
    settings = connector.source_settings.model_validate(source_settings(system, flow.spec.source))
    return connector.make_source(settings, _surroundings(ground, source_name(flow), system))


def _open_sink(ground: Ground, name: str, system: SystemSpec, target: TargetSpec) -> tuple[Sink, bool]:
    """The sink of a lane, and whether it can be asked for our key."""
    connector = registry.find(system.connector)
    if connector.sink_settings is None or connector.make_sink is None:
        raise ConfigError(f"connector {system.connector} cannot deliver", code="no-sink")
    settings = connector.sink_settings.model_validate(merged_settings(system, target.settings))
    return connector.make_sink(settings, _surroundings(ground, name, system)), connector.can_probe(settings)


def _surroundings(ground: Ground, name: str, system: SystemSpec) -> Surroundings:
    return Surroundings(
        clock=ground.clock,
        memory=StoredMemory(ground.database, name),
        name=name,
        home=ground.home,
        deadline=system.limits.deadline,
    )
