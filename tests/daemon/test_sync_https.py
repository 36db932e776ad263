"""The exchange over real TLS: a hub that listens, sites that enrolled, and what they are told when they are kept out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from agent.identity.seal import Seal
from agent.identity.site import SiteIdentity
from agent.identity.testing import HubRig, running_hub
from agent.sync.fencing import LinkFencedError
from agent.sync.https import HELLO, PUSH, HttpsExchange, add_routes
from agent.sync.hub import Hub
from agent.sync.site import SiteLink
from agent.sync.turns import COME_AGAIN_AFTER, Turns, is_busy
from state import peers
from state.model.errors import DeniedError, RejectedError, TransientError
from state.testing import FrozenClock, temporary_database
from tests.daemon.link_rig import CLOCK, HUB, AgentAt, an_estate, holds, until

WEIGHTS = {1: 8, 2: 3, 3: 1}
COMPILED = an_estate(north="dc-north")


class Rig:
    """A hub behind its listener, and the north behind TLS."""

    def __init__(self, door: HubRig, hub_agent: AgentAt, hub: Hub, north: AgentAt, identity: SiteIdentity) -> None:
        self.door = door
        self.hub_agent = hub_agent
        self.hub = hub
        self.north = north
        self.identity = identity
        self.exchange = HttpsExchange(identity.client(), hub=HUB)
        self.link = SiteLink(
            self.exchange,
            north.database,
            north.incoming,
            hub=HUB,
            weights=WEIGHTS,
            estate=COMPILED.estate.hash,
            software="test",
            clock=CLOCK,
            dice=random.Random(1),
            health=lambda: {"disk_free_bytes": 7},
            on_owed=lambda _: None,
            on_life=lambda: None,
        )
        north.on_sent = lambda _: self.link.wake()


@asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    clock = FrozenClock()
    async with running_hub(folder / "hub", clock=clock) as door:
        hub_agent = await AgentAt(HUB, door.database, COMPILED).begin()
        hub = Hub(
            HUB,
            door.database,
            hub_agent.incoming,
            weights=WEIGHTS,
            estate=COMPILED.estate.hash,
            software="test",
            clock=CLOCK,
            on_owed=lambda _: None,
            on_life=lambda: None,
            seal=lambda: Seal.of_hub(door.identity.authority.key, COMPILED.estate.settings),
        )
        add_routes(door.listener, lambda: hub)
        identity = await door.enrol(folder / "north", clock=clock)
        (folder / "store").mkdir()
        async with temporary_database(folder / "store") as database:
            north = await AgentAt(identity.site, database, COMPILED).begin()
            made = Rig(door, hub_agent, hub, north, identity)
            try:
                yield made
            finally:
                await made.exchange.close()


@asynccontextmanager
async def linked(made: Rig) -> AsyncIterator[None]:
    stopping = asyncio.Event()
    running = asyncio.create_task(made.link.run(stopping))
    yield
    stopping.set()
    await running


async def test_events_go_up_over_tls_and_the_hub_knows_who_brought_them(tmp_path: Path) -> None:
    async with rig(tmp_path) as made, linked(made):
        await made.north.arises(*[made.north.event(f"R-{number}", 1) for number in range(300)])
        await until(lambda: holds(made.hub_agent.owes("hq/erp"), [(f"R-{number}", 1) for number in range(300)]))
        [(said,)] = await made.hub_agent.rows("SELECT said FROM peers WHERE site = 'dc-north'")
        assert orjson.loads(said)["disk_free_bytes"] == 7


async def test_a_site_that_is_denied_is_told_so_within_the_call_that_waits(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        async with linked(made):
            await until(lambda: holds(made.hub_agent.rows("SELECT count(*) FROM peers"), [(1,)]))
            await made.door.identity.deny("dc-north", reason="stolen", by="anna")
            await until(lambda: isinstance(made.link.trouble, DeniedError), seconds=5)
        assert "stolen" in str(made.link.trouble)


async def test_a_fence_travels_with_its_reason_and_its_cure(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.link.greet()
        await made.hub_agent.database.write(
            lambda connection: peers.fence(
                connection, peers.ensure(connection, "dc-north"), reason="cloned", detail="two stores"
            )
        )
        with pytest.raises(LinkFencedError) as caught:
            await made.link.greet()
        assert (caught.value.fence.site, caught.value.fence.reason) == ("dc-north", "cloned")
        assert "distctl agents adopt dc-north" in caught.value.hint


async def test_a_hub_that_is_busy_says_when_to_come_again(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        made.hub._turns = Turns(1, patience=0)
        async with made.hub._turns:
            with pytest.raises(TransientError) as caught:
                await made.exchange.push(b"a frame")
        assert is_busy(caught.value)
        assert caught.value.retry_after == COME_AGAIN_AFTER


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        (HELLO, b"{", "no JSON object"),
        (HELLO, b'{"version": 99, "site": 7}', "malformed"),
        (HELLO, b'{"version": 0}', "version"),
        (PUSH, b"no frame", "frame"),
        (HELLO, b" " * 2_000_000, "larger"),
    ],
)
async def test_what_cannot_be_read_is_refused_and_nothing_is_touched(
    tmp_path: Path, path: str, body: bytes, said: str
) -> None:
    async with rig(tmp_path) as made:
        with pytest.raises(RejectedError, match=said):
            await made.exchange._call(path, body, "application/json")
        assert await made.hub_agent.rows("SELECT count(*) FROM peers") == [(0,)]
