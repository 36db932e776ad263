"""A site in this process: the store, the estate in force and the intake, as the agent builds them, without its relays."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import orjson

from agent.clock import SystemClock
from agent.control.endpoint import store_in
from agent.crash_points import ignore
from agent.estate.compiled import CompiledEstate, CompiledFlow, compile_estate
from agent.estate.load import load
from agent.intake import Intake, StoredMemory, source_name
from agent.lanes import open_lanes
from agent.mapping import Refused
from agent.raw_archive import RawArchive
from agent.sync.outgoing import Outgoing
from bench.estate import SITE
from bench.orders import numbered
from connectors import registry
from connectors.base import Source, SourceRecord, Surroundings
from state import estates
from state.database import Database
from state.inbox import Arrival
from state.lanes import Lane, list_lanes
from state.model.canonical.reading import parse
from state.model.clock import to_millis
from state.model.errors import ConfigError, InvariantError
from state.model.ids import event_id, sha256

_COUNT_EVENTS: Final = "SELECT count(*) FROM events"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSite:
    """What a row may use of a site."""

    home: Path
    database: Database
    compiled: CompiledEstate
    lanes: Sequence[Lane]
    clock: SystemClock

    def lane(self, flow: str) -> Lane:
        """The only lane of a flow."""
        return next(lane for lane in self.lanes if lane.flow == flow)

    def intake(self, flow: str) -> Intake:
        """The intake of a flow."""
        compiled = self.compiled.flows[flow]
        return Intake(
            compiled,
            partial(self.source, flow),
            lanes={(lane.flow, lane.target): lane for lane in self.lanes},
            outgoing=Outgoing(SITE, None),
            database=self.database,
            archive=RawArchive(self.database.path.parent / "raw"),
            clock=self.clock,
            dice=random.Random(),
            crash=ignore,
            on_owed=lambda _: None,
            on_sent=lambda _: None,
            on_read=lambda *_: None,
        )

    def source(self, flow: str) -> Source:
        """The source of a flow."""
        compiled = self.compiled.flows[flow]
        site, _, name = compiled.source.partition("/")
        system = self.compiled.estate.system(site, name)
        connector = registry.find(system.connector)
        if connector.source_settings is None or connector.make_source is None:
            raise ConfigError(f"connector {system.connector} cannot be read from", code="no-source")
        settings = connector.source_settings.model_validate({**system.settings, **compiled.spec.source.settings})
        memory = StoredMemory(self.database, source_name(compiled))
        around = Surroundings(clock=self.clock, memory=memory, name=source_name(compiled), home=self.home)
        return connector.make_source(settings, around)

    async def count_events(self) -> int:
        """How many events the store holds."""
        return int(await self.database.read(lambda connection: connection.execute(_COUNT_EVENTS).fetchone()[0]))

    def arrivals(self, flow: str, payloads: list[bytes]) -> list[Arrival]:
        """The events of orders that came in one file, mapped and checked as the intake does, ready to be admitted."""
        compiled, file = self.compiled.flows[flow], sha256(b"\n".join(payloads))
        return [self._arrival(compiled, file, name, payload) for name, payload in numbered(payloads)]

    def _arrival(self, flow: CompiledFlow, file: str, name: str, payload: bytes) -> Arrival:
        entity = parse(flow.spec.contract, mapped(flow, name, payload))
        now = self.clock.now()
        identity = event_id(
            source=f"/{flow.source}",
            flow=flow.spec.flow,
            batch=file,
            position=name,
            key=name,
            content=payload,
        )
        event = flow.event(entity, identity=identity, time=now, recorded=now, place=f"orders.jsonl {name}")
        return Arrival(event, entity.references())


def mapped(flow: CompiledFlow, name: str, payload: bytes) -> dict[str, Any]:
    """The canonical document of the order of that name."""
    record = SourceRecord(position="1", place=name, fields=orjson.loads(payload), raw=payload)
    for made in flow.documents([record]):
        if isinstance(made, Refused):
            raise made.error
        return made.data
    raise InvariantError(f"no document was made of order {name}")


@asynccontextmanager
async def open_site(home: Path, data: Path) -> AsyncIterator[OpenSite]:
    """The site of the estate in `home`, with its store in `data`; the estate is in force and its lanes are open."""
    estate = load(home).raise_first()
    compiled = compile_estate(estate)
    clock = SystemClock()
    data.mkdir(exist_ok=True)
    async with await Database.open(store_in(data), now=clock.now()) as database:
        await database.write(lambda connection: estates.adopt(connection, estate, now=to_millis(clock.now())))
        await database.write(lambda connection: open_lanes(connection, compiled, site=SITE))
        lanes = [lane for lane in await database.read(list_lanes) if lane.target.startswith(f"{SITE}/")]
        yield OpenSite(home=home, database=database, compiled=compiled, lanes=lanes, clock=clock)
