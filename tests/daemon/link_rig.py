"""What the tests of links share: agents with real stores, and a wire between them that a test can cut, delay and make forget."""

from __future__ import annotations

import asyncio
import random
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

import orjson

from agent.clock import SystemClock
from agent.errand import Answered, Question
from agent.estate.compiled import CompiledEstate, compile_estate
from agent.estate.known import KnownEstates
from agent.identity.certificates import make_key
from agent.identity.seal import Seal
from agent.lanes import open_lanes
from agent.outcomes import outcome_event
from agent.owing import owe
from agent.router import route
from agent.sync.errand_runner import ErrandRunner
from agent.sync.errands import Errands, pack
from agent.sync.hub import Hub
from agent.sync.incoming import Incoming
from agent.sync.outgoing import Departure, Outgoing
from agent.sync.site import SiteLink
from agent.sync.wire import Answer, Hello, Pull, PushReply, Welcome, read
from state import bundles, estates, inbox, life, peers
from state.bundles import Bundle, BundleState
from state.database import Database
from state.inbox import Arrival
from state.lanes import list_lanes
from state.model.canonical.reading import parse
from state.model.delivery import DeliveryState, OutcomeKind, TargetMemory
from state.model.errors import NotConnectedError
from state.model.estate import Estate
from state.model.event import Environment, Event
from state.model.ids import event_id
from state.outbox import Outbox, Settlement, next_fence
from state.testing import temporary_database

HUB = "hq"
SITES = ("hq", "north", "south")


class HastyClock(SystemClock):
    """The real time, in which nobody pauses for long."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(min(seconds, 0.02))


CLOCK = HastyClock()

_SYSTEM = {"connector": "files", "settings": {"folder": "out"}}
_FIELDS = {"id": "string", "revision": "integer", "sku": "string", "qty": "decimal", "day": "date"}
_MAPPING = {
    "reco_id": "record.id",
    "revision": "record.revision",
    "sku": "record.sku",
    "type": "'buy'",
    "status": "'approved'",
    "supplier": "'ACME'",
    "to_loc": "'NORTH'",
    "quantity": {"value": "record.qty", "unit": "'EA'"},
    "order_date": "record.day",
    "need_date": "record.day",
}


FROM_HQ = {"hq-reco": ("hq/erp", 1, ("north/planning", "south/wms")), "hq-bulk": ("hq/erp", 3, ("south/wms",))}
FROM_SOUTH = {"south-reco": ("south/wms", 1, ("hq/erp",)), "south-bulk": ("south/wms", 2, ("hq/erp", "north/planning"))}
"""Flows from elsewhere, for `an_estate`: name, and then source, tier and targets."""


def an_estate(
    *,
    targets: Collection[str] = ("hq/erp", "south/wms"),
    owner: str = "planning",
    north: str = "north",
    further: Mapping[str, tuple[str, int, Collection[str]]] | None = None,
    second: str | None = None,
    bulk_tier: int = 3,
    mode: str = "strict",
) -> CompiledEstate:
    """Two flows from planning in the north, of tier 1 and 3, to `targets`, and `further` ones. `north` is its site."""
    named = {
        "reco": (f"{north}/planning", 1, targets),
        "bulk": (f"{north}/planning", bulk_tier, targets),
        **(further or {}),
    }
    flows = {
        name: {
            "flow": name,
            "owner": owner,
            "tier": tier,
            "source": {"system": source, "fields": _FIELDS},
            "contract": "replenishment-recommendation/1",
            "mapping": {"fields": _MAPPING},
            "order": {"mode": mode},
            "targets": [{"system": target} for target in wanting],
        }
        for name, (source, tier, wanting) in named.items()
    }
    systems = {"hq": {"erp": _SYSTEM}, north: {"planning": _SYSTEM}, "south": {"wms": _SYSTEM}}
    hub = {"site": HUB, "url": "https://hub.example:7443", "second": second}
    return compile_estate(
        Estate.model_validate(
            {
                "settings": {"name": "acme", "environment": "test", "currency": "EUR", "hub": hub},
                "sites": {site: {"site": site, "systems": own} for site, own in systems.items()},
                "flows": flows,
            }
        )
    )


KEY = make_key()
"""Of the authority of every hub in these tests."""


def adopt_sealed(compiled: CompiledEstate, connection: sqlite3.Connection) -> None:
    """Put an estate in force that the hub once had in force, in a life that it has forgotten."""
    estates.adopt(connection, compiled.estate, now=1)
    last = bundles.last(connection)
    bundle = Bundle(
        number=(last.number if last else 0) + 1,
        estate=compiled.estate.hash,
        adopted_by="ada",
        adopted_at=CLOCK.now(),
        state=BundleState.CAME,
    )
    seal = Seal.of_hub(KEY, compiled.estate.settings)
    bundles.receive(connection, replace(bundle, seal=seal.put_on(bundle)))
    bundles.settle(connection, bundle, BundleState.GOOD)


class AgentAt:
    """An agent at one site: its store, what comes to it and what leaves it."""

    def __init__(self, site: str, database: Database, compiled: CompiledEstate) -> None:
        self.site = site
        self.database = database
        self.compiled = compiled
        hub = compiled.estate.settings.hub
        self.outgoing = Outgoing(site, HUB, second=hub.second if hub else None)
        self.incoming = Incoming(site, self.outgoing, KnownEstates(compiled), environment=Environment.TEST, clock=CLOCK)
        self.on_sent: Callable[[Collection[str]], None] = lambda _: None

    async def begin(self) -> Self:
        """The store's first start."""

        def first(connection: Any) -> None:
            life.begin(connection, self.site, now=0)
            estates.adopt(connection, self.compiled.estate, now=0)
            open_lanes(connection, self.compiled, site=self.site)

        await self.database.write(first)
        return self

    def event(self, key: str, revision: int, *, flow: str = "reco", content: str = "") -> Event:
        """A recommendation of that key; `content` tells two with the same revision apart."""
        record = {
            "reco_id": key,
            "revision": revision,
            "sku": f"SKU-{content or 1}",
            "type": "buy",
            "status": "approved",
            "supplier": "ACME",
            "to_loc": "NORTH",
            "quantity": {"value": "5", "unit": "EA"},
            "order_date": "2026-03-02",
            "need_date": "2026-03-02",
        }
        raw = orjson.dumps(record)
        identity = event_id(
            source=f"/{self.compiled.flows[flow].source}",
            flow=flow,
            batch="b",
            position=f"{key}{revision}",
            key=key,
            content=raw,
        )
        entity = parse("replenishment-recommendation/1", record)
        return self.compiled.flows[flow].event(entity, identity=identity, time=CLOCK.now(), recorded=CLOCK.now())

    async def arises(self, *events: Event) -> None:
        """What intake does with events, without a source."""
        self.on_sent(await self.database.write(lambda connection: self._admit(connection, events)))

    def _admit(self, connection: Any, events: Collection[Event]) -> frozenset[str]:
        lanes = {(lane.flow, lane.target): lane for lane in list_lanes(connection)}
        departures = []
        for one in inbox.admit(connection, [Arrival(event) for event in events]):
            flow = self.compiled.flows[one.event.flow]
            wanting = route(one.event, flow)
            owe(connection, [(one, wanting)], lanes, flow=one.event.flow, came_in="a test", now=CLOCK.now())
            wanted_at = {lane.site for lane in wanting}
            departures.append(Departure(one, flow.spec.tier, wanted_at, flow.spec.order_domain))
        return self.outgoing.send(connection, departures)

    async def delivers(self, target: str, *, says: bytes = b"") -> None:
        """What a relay does whose target takes everything; `says` is put into the mouth of the outcomes."""
        self.on_sent(await self.database.write(lambda connection: self._deliver(connection, target, says)))

    def _deliver(self, connection: Any, target: str, says: bytes) -> frozenset[str]:
        departures = []
        for lane in [lane for lane in list_lanes(connection) if lane.target == target]:
            with Outbox(connection, now=CLOCK.now()) as outbox:
                claims = outbox.claim(
                    lane,
                    fence=next_fence(connection),
                    limit=100,
                    memory=TargetMemory(),
                    call_deadline=timedelta(seconds=1),
                    render=lambda event: event.data,
                )
                outbox.settle([(claim, Settlement(kind=OutcomeKind.ACCEPTED)) for claim in claims])
            for claim in claims:
                answer = outcome_event(
                    claim.event,
                    lane,
                    life=life.get(connection).epoch,
                    revision=claim.attempt,
                    state=DeliveryState.DELIVERED,
                    kind="accepted",
                    reference="4711",
                    detail="",
                    now=CLOCK.now(),
                )
                [admitted] = inbox.admit(connection, [Arrival(replace(answer, data=says) if says else answer)])
                departures.append(Departure(admitted, lane.tier, {claim.event.site}))
        return self.outgoing.send(connection, departures)

    async def outcomes(self) -> list[tuple[str, str]]:
        """(key, target) of the outcomes that are known here."""
        rows = await self.rows(
            "SELECT e.subject, e.data FROM events e JOIN origins o ON o.id = e.origin_id WHERE o.op = 'ack'"
        )
        return sorted((subject, orjson.loads(data)["target"]) for subject, data in rows)

    async def owes(self, target: str) -> list[tuple[str, int]]:
        """(key, revision) of what is owed to a target, in the order in which it was taken in."""
        query = (
            "SELECT e.data FROM deliveries d JOIN events e ON e.seq = d.event_seq JOIN lanes l ON l.id = d.lane_id"
            " JOIN targets t ON t.id = l.target_id WHERE t.name = ? ORDER BY d.id"
        )
        rows = await self.rows(query, target)
        found = [orjson.loads(data) for (data,) in rows]
        return [(one["reco_id"], one.get("revision", 0)) for one in found]

    async def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What the store says."""
        return await self.database.read(lambda connection: connection.execute(query, parameters).fetchall())


class Wire:
    """An exchange through the real codec, straight into a hub; a test says what becomes of each call."""

    def __init__(self, site: str, hub: Callable[[], Hub]) -> None:
        self.site = site
        self.hub = hub
        self.is_cut = False
        self.lost_replies = 0  # the next so many calls arrive, and their answers do not
        self.calls: list[str] = []
        self.under_way: set[asyncio.Task[Any]] = (
            set()
        )  # at the hub, which goes on when nobody waits for the answer any more

    async def hello(self, hello: Hello) -> Welcome:
        answer = await self._carry(
            "hello", self.hub().hello(self.site, read(Hello, orjson.loads(hello.model_dump_json())))
        )
        return read(Welcome, orjson.loads(answer.model_dump_json()))

    async def push(self, frame: bytes) -> PushReply:
        answer = await self._carry("push", self.hub().push(self.site, frame))
        return read(PushReply, orjson.loads(answer.model_dump_json()))

    async def pull(self, pull: Pull) -> bytes:
        raw: bytes = await self._carry(
            "pull", self.hub().pull(self.site, read(Pull, orjson.loads(pull.model_dump_json())))
        )
        return raw

    async def answer(self, answer: Answer) -> None:
        await self._carry("answer", self.hub().answer(self.site, pack(answer)))

    async def _carry(self, name: str, call: Coroutine[Any, Any, Any]) -> Any:
        if self.is_cut:
            call.close()
            raise NotConnectedError("the line is cut")
        self.calls.append(name)
        task = asyncio.create_task(call, name=f"{name} of {self.site}")
        self.under_way.add(task)
        task.add_done_callback(self._ended)
        answer = await asyncio.shield(task)
        if self._is_lost():
            raise NotConnectedError("the reply was lost")
        return answer

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.under_way.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked may be gone

    async def end(self) -> None:
        """The hub ends, and what it was doing for this site with it."""
        under_way = list(self.under_way)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def _is_lost(self) -> bool:
        """Whether the reply is lost: the line may have been cut while the call was under way."""
        if self.lost_replies:
            self.lost_replies -= 1
            return True
        return self.is_cut


class Estatewide:
    """A hub and its sites, each with a store in a folder of its own."""

    def __init__(self, folder: Path, compiled: CompiledEstate) -> None:
        self.folder = folder
        self.compiled = compiled
        self.seal = Seal.of_hub(KEY, compiled.estate.settings)
        self.agents: dict[str, AgentAt] = {}
        self.wires: dict[str, Wire] = {}
        self.links: dict[str, SiteLink] = {}
        self.hub: Hub
        self.hub_fenced = 0
        self.denied: list[str] = []  # sites whose denial is in force again at the hub
        self.second = spec.second if (spec := compiled.estate.settings.hub) else None
        self.errands = Errands()
        self.errands.wake = self._wake
        self.runners: dict[str, ErrandRunner] = {}
        self.asked: list[tuple[str, Question]] = []  # of which site, and what
        self.may_answer = asyncio.Event()  # what a site waits for
        self.may_answer.set()
        self._stores: dict[str, AsyncExitStack] = {}
        self.running: dict[str, tuple[asyncio.Event, asyncio.Task[None]]] = {}

    async def open(self, name: str, *, site: str | None = None) -> AgentAt:
        """Open the store in the folder `name` as the agent of `site`."""
        self._stores[name] = AsyncExitStack()
        (self.folder / name).mkdir(exist_ok=True)
        database = await self._stores[name].enter_async_context(temporary_database(self.folder / name, now=CLOCK.now()))
        agent = self.agents[name] = await AgentAt(site or name, database, self.compiled).begin()
        if agent.site == HUB:
            self.hub = self.make_hub(agent)
            agent.on_sent = self.hub.wake
        else:
            self.wires[name] = Wire(agent.site, lambda: self.hub)
            runner = self.runners[name] = ErrandRunner(partial(self._do, agent.site), database, hub=HUB, clock=CLOCK)
            runner.exchange = self.wires[name]
            link = self.links[name] = SiteLink(
                self.wires[name],
                database,
                agent.incoming,
                hub=HUB,
                weights={1: 8, 2: 3, 3: 1},
                estate=self.compiled.estate.hash,
                software="test",
                clock=CLOCK,
                dice=random.Random(1),
                health=dict,
                on_owed=lambda _: None,
                on_life=lambda: None,
                is_second=agent.site == self.second,
                errands=runner,
            )
            agent.on_sent = lambda _: link.wake()
        return agent

    def make_hub(self, agent: AgentAt) -> Hub:
        """A hub over the store of that agent: each estate that it adopts has one."""
        return Hub(
            HUB,
            agent.database,
            agent.incoming,
            weights={1: 8, 2: 3, 3: 1},
            estate=self.compiled.estate.hash,
            software="test",
            clock=CLOCK,
            on_owed=lambda _: None,
            errands=self.errands,
            on_life=self._count_fence,
            second=self.second,
            on_denied=lambda standing: self.denied.append(standing.site),
            seal=lambda: self.seal,
        )

    async def close(self, name: str) -> None:
        """Stop the agent's link and close its store."""
        await self.stop(name)
        for wire in self.wires.values() if self.agents[name].site == HUB else ():
            await wire.end()
        await self._stores.pop(name).aclose()

    async def copy(self, name: str, to: str) -> None:
        """Copy a data folder as it lies on disk; its agent is closed meanwhile and opened again."""
        site = self.agents[name].site
        was_running = name in self.running
        await self.close(name)
        shutil.copytree(self.folder / name, self.folder / to, dirs_exist_ok=True)
        await self.open(name, site=site)
        if was_running:
            self.start(name)

    def start(self, *names: str) -> None:
        """Run the links of these sites."""
        for name in names:
            stopping = asyncio.Event()
            self.running[name] = (stopping, asyncio.create_task(self._run(name, stopping)))

    def _wake(self, sites: Iterable[str]) -> None:
        self.hub.wake(sites)  # whichever hub it is by now

    async def _run(self, name: str, stopping: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.runners[name].work(stopping))
            await self.links[name].run(stopping)

    async def _do(self, site: str, question: Question) -> Answered:
        self.asked.append((site, question))
        await self.may_answer.wait()
        return Answered(status=200, type="application/json", body=f'"{site}"'.encode())

    async def stop(self, name: str) -> None:
        """Stop a link as a kill does: what is under way is left where it is."""
        if name in self.running:
            _, task = self.running.pop(name)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def end(self) -> None:
        """Close everything."""
        for name in list(self._stores):
            await self.close(name)

    async def in_step(self, *names: str) -> None:
        """Return when nobody has anything to send that the other does not have."""
        await until(lambda: self.is_in_step(*names or tuple(self.running)))

    async def is_in_step(self, *names: str) -> bool:
        """Whether nobody has anything to send that the other does not have."""
        for name in names:
            agent = self.agents[name]
            peer = await agent.rows(
                "SELECT count(*) FROM streams_out WHERE acked_seq < seq AND epoch = (SELECT epoch FROM life)"
            )
            hub = await self.agents[HUB].rows(
                "SELECT count(*) FROM streams_out s JOIN peers p ON p.id = s.peer_id WHERE p.site = ? AND s.acked_seq < s.seq"
                " AND s.epoch = (SELECT epoch FROM life)",
                agent.site,
            )
            if peer[0][0] or hub[0][0]:
                return False
        return True

    async def fence_of(self, site: str) -> tuple[str, str]:
        """How the hub sees a site: its state and the reason."""
        [row] = await self.agents[HUB].rows("SELECT state, reason FROM peers WHERE site = ?", site)
        return (row[0], row[1])

    async def adopt(self, site: str) -> None:
        """What a person at the hub decides."""
        await self.agents[HUB].database.write(
            lambda connection: peers.open_again(connection, peers.ensure(connection, site), adopting=True)
        )

    def _count_fence(self) -> None:
        self.hub_fenced += 1


async def holds(call: Awaitable[Any], expected: object) -> bool:
    """Whether the call answers that."""
    return bool(await call == expected)


async def until(claim: Callable[[], Any], *, seconds: float = 10) -> Any:
    """What `claim` answers as soon as it holds."""
    async with asyncio.timeout(seconds):
        while True:
            answer = claim()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return answer
            await asyncio.sleep(0.005)


@asynccontextmanager
async def estatewide(folder: Path, **options: Any) -> AsyncIterator[Estatewide]:
    """A hub and both sites, open and not yet linked."""
    whole = Estatewide(folder, an_estate(**options))
    try:
        for site in SITES:
            await whole.open(site)
        yield whole
    finally:
        await whole.end()
