"""Many agents in this process, each with a store, a certificate and a link of its own to one hub: as many sites as an estate has.

What is an agent's own is the agent's code: the store on disk, `SiteLink`, the exchange over mutual TLS. What they lack is sources
and relays: an order arises by a call. Their certificates are made with the hub's own authority, whose folder lies with the hub's
data, since enrolling hundreds by token is not what is tried.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Literal, Self, TypeAlias, TypeVar

from agent.clock import SystemClock
from agent.control.endpoint import store_in
from agent.estate.compiled import CompiledEstate, compile_estate
from agent.estate.known import KnownEstates
from agent.estate.load import load
from agent.identity.authority import Authority
from agent.identity.certificates import make_key
from agent.identity.private_files import make_private_folder, write_private
from agent.identity.site import SiteIdentity, folder_in, join, write_hub
from agent.sync.https import DEAD_AFTER, HttpsExchange
from agent.sync.incoming import Incoming
from agent.sync.outgoing import Departure, Outgoing
from agent.sync.site import SiteLink
from agent.sync.wire import Hello, Pull, PushReply, Welcome
from bench.estate import HUB
from bench.orders import revised
from bench.site import mapped
from state import estates, inbox, life, peers, streams
from state.database import Database
from state.inbox import Arrival
from state.model.canonical.reading import parse
from state.model.clock import to_millis
from state.model.errors import DistctlError
from state.model.event import Event
from state.model.ids import event_id

CLOCK: Final = SystemClock()
KEYS: Final = 5
"""Orders of one site; each arises again and again, as its next revision."""

_NUMBERS: Final = 1_000  # a site's orders are numbered from a multiple of this
_WEIGHTS: Final = {1: 8, 2: 3, 3: 1}
Kind: TypeAlias = Literal["hello", "push", "pull"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a site to its hub. Times are of the machine's monotonic clock, in seconds."""

    site: str
    kind: Kind
    began: float
    ended: float
    error: DistctlError | None

    @property
    def took(self) -> float:
        """Seconds."""
        return self.ended - self.began


@dataclass(slots=True)
class Course:
    """What the sites saw: each call that ended, answered or not, and each time a link went down."""

    calls: list[Call] = field(default_factory=list)
    downs: list[tuple[float, DistctlError | None]] = field(default_factory=list)  # when, and why

    async def time(self, site: str, kind: Kind, call: Awaitable[T]) -> T:
        """Await a call and note it. One that is cancelled is not noted: nobody waited for its end."""
        began, error = time.monotonic(), None
        try:
            return await call
        except DistctlError as raised:
            error = raised
            raise
        except asyncio.CancelledError:
            began = -1.0
            raise
        finally:
            if began >= 0:
                self.calls.append(Call(site=site, kind=kind, began=began, ended=time.monotonic(), error=error))


class TimedExchange(HttpsExchange):
    """The exchange of an agent, whose calls are noted."""

    def __init__(self, identity: SiteIdentity, course: Course) -> None:
        super().__init__(identity.client(deadline=DEAD_AFTER), hub=HUB)
        self._site = identity.site
        self._course = course

    async def hello(self, hello: Hello) -> Welcome:
        return await self._course.time(self._site, "hello", super().hello(hello))

    async def push(self, frame: bytes) -> PushReply:
        return await self._course.time(self._site, "push", super().push(frame))

    async def pull(self, pull: Pull) -> bytes:
        return await self._course.time(self._site, "pull", super().pull(pull))


class NotedLink(SiteLink):
    """The link of an agent, whose failures are noted."""

    course: Course

    def _pause(self, failures: int) -> float:
        self.course.downs.append((time.monotonic(), self.trouble))
        return super()._pause(failures)


class FleetAgent:
    """The agent of one site."""

    def __init__(self, number: int, identity: SiteIdentity, database: Database, compiled: CompiledEstate) -> None:
        self.site = identity.site
        self.database = database
        self.arisen = 0
        self._number = number
        self._identity = identity
        self._compiled = compiled
        self._outgoing = Outgoing(self.site, HUB)
        self._incoming = Incoming(
            self.site,
            self._outgoing,
            KnownEstates(compiled),
            environment=compiled.estate.settings.environment,
            clock=CLOCK,
        )
        self._link: NotedLink | None = None

    async def begin(self) -> Self:
        """The first start of its store."""
        await self.database.write(self._begin)
        return self

    def _begin(self, connection: sqlite3.Connection) -> None:
        now = to_millis(CLOCK.now())
        life.begin(connection, self.site, now=now)
        estates.adopt(connection, self._compiled.estate, now=now)

    async def run(self, stopping: asyncio.Event, course: Course) -> None:
        """Keep its link up until `stopping` is set."""
        exchange = TimedExchange(self._identity, course)
        self._link = NotedLink(
            exchange,
            self.database,
            self._incoming,
            hub=HUB,
            weights=_WEIGHTS,
            estate=self._compiled.estate.hash,
            software="bench",
            clock=CLOCK,
            dice=random.Random(),
            health=lambda: {"clock": CLOCK.now().isoformat()},
            on_owed=lambda _: None,
            on_life=lambda: None,
        )
        self._link.course = course
        try:
            await self._link.run(stopping)
        finally:
            await exchange.close()

    async def arises(self, count: int) -> None:
        """So many orders arise, each the next revision of one of its keys."""
        events = [self._event(self.arisen + one) for one in range(count)]
        self.arisen += count
        await self.database.write(partial(self._admit, events))
        if self._link is not None:
            self._link.wake()

    async def owed(self) -> int:
        """How many of its events the hub has not acknowledged to it."""
        return await self.database.read(_owed)

    def _admit(self, events: Sequence[Event], connection: sqlite3.Connection) -> None:
        admitted = inbox.admit(connection, [Arrival(event) for event in events])
        self._outgoing.send(connection, [Departure(one, 1, {HUB}, "orders") for one in admitted])

    def _event(self, place: int) -> Event:
        flow = self._compiled.flows[self.site]
        raw = revised(self._number * _NUMBERS + place % KEYS, place // KEYS)
        entity = parse(flow.spec.contract, mapped(flow, str(place), raw))
        now = CLOCK.now()
        identity = event_id(
            source=f"/{flow.source}", flow=self.site, batch="fleet", position=str(place), key="", content=raw
        )
        return flow.event(entity, identity=identity, time=now, recorded=now)


def _owed(connection: sqlite3.Connection) -> int:
    peer = peers.find(connection, HUB)
    return sum(streams.owed(connection, peer.id, epoch=life.get(connection).epoch).values()) if peer else 0


def names(count: int) -> list[str]:
    """The sites of an estate of so many."""
    return [f"dc-{number:03}" for number in range(count)]


@asynccontextmanager
async def open_fleet(home: Path, sites: Sequence[str], *, port: int) -> AsyncIterator[list[FleetAgent]]:
    """The agents of these sites of the estate in `home`, whose hub has its data in `home / HUB` and is not started yet."""
    compiled = compile_estate(load(home).raise_first())
    authority = _make_authority(home / HUB, compiled.estate.settings.name)
    async with AsyncExitStack() as stores:
        agents = []
        for number, site in enumerate(sites):
            data = home / "fleet" / site
            identity = _certify(authority, site, data, port=port)
            database = await Database.open(store_in(data), now=CLOCK.now(), readers=1)
            await stores.enter_async_context(database)
            agents.append(await FleetAgent(number, identity, database, compiled).begin())
        yield agents


def _make_authority(hub: Path, estate: str) -> Authority:
    make_private_folder(hub)
    return Authority.open(hub / "ca", estate=estate, known=None, now=CLOCK.now())


def _certify(authority: Authority, site: str, data: Path, *, port: int) -> SiteIdentity:
    """What enrolling leaves in the agent's data folder."""
    folder = folder_in(data)
    make_private_folder(folder)
    now, key = CLOCK.now(), make_key()
    certificate = authority.certify_agent(key.public_key(), site=site, enrolled_at=to_millis(now), now=now)
    write_private(folder / "agent.pem", join(key, certificate, authority.pem))
    write_hub(folder, f"https://127.0.0.1:{port}")
    return SiteIdentity.open(data, clock=CLOCK)
