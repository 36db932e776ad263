"""The links of an agent that has others: the hub listens, a site dials.

Everything but the hub's address follows the estate in force. A site that is not enrolled yet looks for its identity now and then,
so that `distctl agent enrol` needs no restart.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from agent.allow_list import AllowList
from agent.errand import Answered, Elsewhere, Question
from agent.estate.compiled import CompiledEstate
from agent.identity.hub import HubIdentity
from agent.identity.listener import Listener
from agent.identity.seal import Seal
from agent.identity.site import SiteIdentity
from agent.link import LinkedAgent
from agent.supervisor import sleep_unless
from agent.sync.errand_runner import ErrandRunner
from agent.sync.errands import Errands
from agent.sync.fencing import standing_fence
from agent.sync.https import DEAD_AFTER, HttpsExchange, add_routes
from agent.sync.hub import Hub
from agent.sync.incoming import Incoming
from agent.sync.outgoing import Outgoing
from agent.sync.site import SiteLink
from agent.works import Ground
from state import life, peers
from state.identities import Standing
from state.life import Life
from state.model.errors import DistctlError, NotConnectedError, NotFoundError
from state.model.estate import HubSpec
from state.model.suggestion import suggestion
from state.model.visible import visible
from state.peers import Peer

_LOOKS_AGAIN_AFTER: Final = 5.0


class HubLink:
    """The hub: it listens, and answers its sites."""

    def __init__(
        self,
        ground: Ground,
        compiled: CompiledEstate,
        data: Path,
        spec: HubSpec,
        agent: LinkedAgent,
    ) -> None:
        self._ground = ground
        self._data = data
        self._spec = spec
        self._agent = agent
        self._compiled = compiled
        self._errands = Errands(ground.clock.monotonic)
        self._errands.wake = self.wake
        self._hub = self._make_hub(compiled)
        self.troubles: list[str] = []
        self.identity: HubIdentity | None = None
        """Who may call; there while it runs."""

    def adopt(self, compiled: CompiledEstate) -> None:
        """Sites are greeted anew under the new estate."""
        before, self._compiled = self._hub, compiled
        self._hub = self._make_hub(compiled)
        before.retire()

    def wake(self, sites: Iterable[str]) -> None:
        """Answer the pulls of these sites."""
        self._hub.wake(sites)

    @property
    def elsewhere(self) -> Elsewhere:
        """The sites that this hub can ask."""
        return self

    async def ask(self, site: str, question: Question) -> Answered:
        """Put a question to the agent of a site: `agent.errand.Elsewhere`."""
        sites = self._compiled.estate.sites
        if site not in sites:
            raise NotFoundError(f"there is no site {visible(site)}", hint=suggestion(site, sites), code="unknown-site")
        here, peer = await self._ground.database.read(
            lambda connection: (life.get(connection), peers.find(connection, site))
        )
        if self._errands.is_there(site) and (peer is None or standing_fence(here, peer) is None):
            return await self._errands.ask(site, question)
        message, hint = _why_not(site, here, peer)
        raise NotConnectedError(message, hint=hint, code="site-offline")

    async def run(self, stopping: asyncio.Event) -> None:
        """Listen. Raises `ConfigError` where it cannot."""
        ground = self._ground
        self.identity = await HubIdentity.open(
            self._data, ground.database, estate=lambda: self._compiled.estate, clock=ground.clock
        )
        listener = Listener(self.identity, listen=self._spec.listen)
        add_routes(listener, lambda: self._hub)
        try:
            self.troubles = []
            ending = asyncio.create_task(self._let_go(stopping), name="pulls")
            try:
                await listener.serve(stopping)
            finally:
                ending.cancel()
        except DistctlError as error:
            self.troubles = [f"no site can reach this hub: {error}"]
            raise

    async def _let_go(self, stopping: asyncio.Event) -> None:
        """Answer the pulls that wait when the agent stops, rather than break their connections."""
        await stopping.wait()
        self._hub.retire()

    def _make_hub(self, compiled: CompiledEstate) -> Hub:
        ground, settings = self._ground, compiled.estate.settings
        return Hub(
            ground.site,
            ground.database,
            _incoming(ground, compiled, self._spec),
            weights=settings.tier_weights,
            estate=compiled.estate.hash,
            software=version("distctl"),
            clock=ground.clock,
            on_owed=self._agent.on_owed,
            on_life=self._agent.on_life,
            second=settings.hub.second if settings.hub else None,
            on_denied=self._know_denied,
            errands=self._errands,
            seal=self._seal,
        )

    def _seal(self) -> Seal | None:
        return Seal.of_hub(self.identity.authority.key, self._compiled.estate.settings) if self.identity else None

    def _know_denied(self, standing: Standing) -> None:
        if self.identity is not None:
            self.identity.know_denied(standing)


class HubDialler:
    """A site: it dials the hub, as soon as it is enrolled."""

    identity: HubIdentity | None = None
    elsewhere: Elsewhere | None = None

    def __init__(
        self,
        ground: Ground,
        compiled: CompiledEstate,
        data: Path,
        spec: HubSpec,
        agent: LinkedAgent,
    ) -> None:
        self._ground = ground
        self._compiled = compiled
        self._data = data
        self._spec = spec
        self._agent = agent
        self._errands = ErrandRunner(agent.answer, ground.database, hub=spec.site, clock=ground.clock)
        self._link: SiteLink | None = None
        self._missing = ""
        self._again = asyncio.Event()  # the estate changed, or the agent stops

    @property
    def troubles(self) -> list[str]:
        """Why nothing is exchanged with the hub, if so."""
        if self._missing:
            return [self._missing]
        unheard = self._link.trouble if self._link else None
        found = [f"nothing is exchanged with the hub {self._spec.site}: {unheard}"] if unheard else []
        useless = AllowList.read(self._data).trouble
        return [*found, useless] if useless else found

    def adopt(self, compiled: CompiledEstate) -> None:
        """Greet the hub anew under the new estate."""
        self._compiled = compiled
        self._again.set()

    def wake(self, sites: Iterable[str]) -> None:
        """Whatever leaves a site goes to the hub."""
        if self._link is not None and self._spec.site in sites:
            self._link.wake()

    async def run(self, stopping: asyncio.Event) -> None:
        """Dial until the agent stops."""
        while not stopping.is_set():
            try:
                identity = SiteIdentity.open(self._data, clock=self._ground.clock)
            except NotFoundError as error:
                self._missing = str(error)
                await sleep_unless(stopping, _LOOKS_AGAIN_AFTER, clock=self._ground.clock)
                continue
            self._missing = ""
            async with asyncio.TaskGroup() as tasks:
                renewing = tasks.create_task(identity.keep_renewed(stopping), name="identity")
                tasks.create_task(self._errands.work(stopping), name="errands")
                await self._dial(identity, stopping)
                renewing.cancel()

    async def _dial(self, identity: SiteIdentity, stopping: asyncio.Event) -> None:
        """Keep a link up under each estate that comes into force."""
        while not stopping.is_set():
            self._again.clear()
            exchange = HttpsExchange(identity.client(deadline=DEAD_AFTER), hub=self._spec.site)
            try:
                self._errands.exchange = exchange
                link = self._link = self._make_link(exchange)
                async with asyncio.TaskGroup() as tasks:
                    ended = tasks.create_task(self._end_with(stopping), name="sync end")
                    await link.run(self._again)
                    ended.cancel()
            finally:
                self._errands.exchange = None
                await exchange.close()

    async def _end_with(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._again.set()

    def _make_link(self, exchange: HttpsExchange) -> SiteLink:
        ground, settings = self._ground, self._compiled.estate.settings
        return SiteLink(
            exchange,
            ground.database,
            _incoming(ground, self._compiled, self._spec),
            hub=self._spec.site,
            weights=settings.tier_weights,
            estate=self._compiled.estate.hash,
            software=version("distctl"),
            clock=ground.clock,
            dice=ground.dice,
            health=self._health,
            on_bundle=self._agent.on_bundle,
            on_owed=self._agent.on_owed,
            on_life=self._agent.on_life,
            is_second=settings.hub is not None and settings.hub.second == ground.site,
            errands=self._errands,
        )

    def _health(self) -> dict[str, Any]:
        return {
            "disk_free_bytes": shutil.disk_usage(self._data).free,
            "units_queued": self._ground.database.queued,
            "clock": self._ground.clock.now().isoformat(),
            "software": version("distctl"),
        }


def _why_not(site: str, here: Life, peer: Peer | None) -> tuple[str, str]:
    """Why a site cannot be asked now, and what a person does about it."""
    hint = "nothing was done; `distctl agents show` says how it stands"
    if peer is None or peer.heard_at is None:
        return f"the agent of {site} was never heard", f"nothing was done; `distctl agents invite {site}` lets it in"
    fence = standing_fence(here, peer)
    why = f"is fenced ({fence.detail})" if fence else "is not connected"
    return f"the agent of {site} {why}, and was last heard {peer.heard_at:%Y-%m-%d %H:%M:%SZ}", hint


def _incoming(ground: Ground, compiled: CompiledEstate, hub: HubSpec) -> Incoming:
    ground.known.add(compiled)
    return Incoming(
        ground.site,
        Outgoing(ground.site, hub.site, second=hub.second),
        ground.known,
        environment=compiled.estate.settings.environment,
        clock=ground.clock,
    )
