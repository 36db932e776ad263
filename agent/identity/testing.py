"""What tests of a link need: a hub that really listens, on a clock that a test owns, and a line that can be cut."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from agent.identity.enrolment import enrol
from agent.identity.hub import HubIdentity
from agent.identity.judgement import AgentIdentity
from agent.identity.listener import Listener
from agent.identity.private_files import make_private_folder
from agent.identity.site import SiteIdentity
from state.database import Database
from state.model.clock import Clock
from state.model.estate import Estate, EstateSettings, HubSpec, SiteSpec, SystemSpec
from state.model.event import Environment
from state.testing import FrozenClock, temporary_database

WHO: Final = "/test/1/who"
"""A route of the rig that answers with the site and serial of who asks."""


@dataclass(slots=True, kw_only=True)
class HubRig:
    """A hub of an estate with the sites hq (its own), dc-north and dc-south."""

    in_force: list[Estate]  # the last one is
    database: Database
    identity: HubIdentity
    listener: Listener
    url: str

    async def invite(self, site: str = "dc-north") -> str:
        """The text of an invitation."""
        return (await self.identity.invite(site, by="anna")).token

    async def enrol(self, data: Path, *, clock: Clock, site: str = "dc-north") -> SiteIdentity:
        """An enrolled agent with its data in `data`."""
        return await enrol(self.url, await self.invite(site), data, clock=clock)


def make_estate(
    port: int, *, host: str = "127.0.0.1", sites: tuple[str, ...] = ("hq", "dc-north", "dc-south")
) -> Estate:
    """An estate whose hub listens at that port of this machine."""
    systems = {"erp": SystemSpec(connector="files")}
    hub = HubSpec(site="hq", url=f"https://{host}:{port}", listen=f"127.0.0.1:{port}")
    return Estate(
        settings=EstateSettings(name="acme", environment=Environment.TEST, currency="EUR", hub=hub),
        sites={site: SiteSpec(site=site, systems=systems) for site in sites},
        flows={},
    )


@asynccontextmanager
async def running_hub(folder: Path, *, clock: FrozenClock, port: int | None = None) -> AsyncIterator[HubRig]:
    """A hub with its data in `folder`, listening until the end of the block."""
    in_force = [make_estate(port or free_port())]
    make_private_folder(folder)
    async with temporary_database(folder, now=clock.now()) as database:
        identity = await HubIdentity.open(folder, database, estate=lambda: in_force[-1], clock=clock)
        hub = in_force[0].settings.hub
        assert hub is not None  # `make_estate` gives one
        listener = Listener(identity, listen=hub.listen)
        listener.add(WHO, _who)
        rig = HubRig(in_force=in_force, database=database, identity=identity, listener=listener, url=hub.url)
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(listener.serve(stop))
            await listening(hub.listen)
            try:
                yield rig
            finally:
                stop.set()


async def listening(address: str) -> None:
    """Return when somebody listens at `host:port`."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        port: int = door.getsockname()[1]
        return port


async def _who(_: Request, identity: AgentIdentity) -> Response:
    return JSONResponse({"site": identity.site, "serial": identity.serial})
