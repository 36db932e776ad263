"""The estate that is in force at one agent, and what takes its place: an edited folder, or a bundle of the hub, on trial.

Concurrency: one change at a time, under `changing`: a notice and a person may come at once, or two persons. Crash: an estate is
put in force, numbered, audited and its lanes opened in one transaction.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

from agent.estate.compiled import CompiledEstate
from agent.estate.watch import watch
from agent.lanes import open_lanes
from agent.site_estate import SiteEstate
from agent.start_count import WELL_AFTER, StartCount
from agent.supervisor import sleep_unless, unless
from agent.works import Ground, rehearse
from state import audit, bundles, estates
from state.bundles import Bundle, BundleState
from state.model.clock import to_millis
from state.model.errors import ConfigError, DistctlError
from state.model.estate import Estate
from state.model.ids import EstateHash
from state.outbox import Outbox

_log = logging.getLogger("distctl.agent")

Along = Callable[[sqlite3.Connection], None]
"""What is written in the transaction that puts an estate in force."""


class EstateInForce:
    """What one agent works by."""

    def __init__(
        self,
        ground: Ground,
        source: SiteEstate,
        starts: StartCount,
        compiled: CompiledEstate,
        *,
        on_changed: Callable[[CompiledEstate], None],
    ) -> None:
        """`compiled` is what the agent starts with; `on_changed` is told what takes its place."""
        self._ground = ground
        self._source = source
        self._starts = starts
        self._on_changed = on_changed
        self._refused: ConfigError | None = None  # why the last edit is not in force
        self._bundle_came = asyncio.Event()
        self._on_trial = asyncio.Event()  # a bundle came into force, or the agent stops
        self.compiled = compiled
        """What is in force, or is to be when the agent lives."""
        self.changing = asyncio.Lock()
        """Held while it changes."""

    @property
    def estate(self) -> Estate:
        """The estate itself."""
        return self.compiled.estate

    @property
    def origin(self) -> str:
        """Where it comes from, unless from the folder."""
        return self._source.origin

    @property
    def troubles(self) -> list[str]:
        """Why what came last is not in force, one sentence each."""
        edited = [f"the edited estate is refused: {self._refused}"] if self._refused else []
        return [*edited, self._source.trouble] if self._source.trouble else edited

    # Beginning and ending.

    async def prove(self) -> None:
        """See that what the agent starts with can be worked, or go back to what was before it. Raises as a connector does."""
        try:
            await rehearse(self._ground, self.compiled)
        except (DistctlError, ValueError) as error:
            if not await self.give_back(str(error)):
                raise

    async def begin(self) -> None:
        """Put in force what the agent starts with."""
        await self._adopt(self.compiled, by="agent", why="the estate folder changed")

    async def choose_again(self) -> CompiledEstate:
        """What the agent would start with by now: an edit may be the cure. Raises `ConfigError` where it cannot be worked."""
        compiled = await self._source.choose()
        await rehearse(self._ground, compiled)
        return compiled

    def stop(self) -> None:
        """Nothing is waited for any more."""
        self._on_trial.set()

    # What takes its place.

    def look_for_bundle(self) -> None:
        """An estate of the hub may be there to be judged."""
        self._bundle_came.set()

    async def reload(self, by: str) -> bool:
        """Look for a better estate than the one in force: a refused bundle of the hub judged again, or the folder read again.

        Answers whether it changed. Raises `ConfigError` where what is found cannot be put in force.
        """
        async with self.changing:
            if await self._source.reconsider(by):
                changed = await self._take_bundle(by)
                if self._source.refused is not None:
                    raise ConfigError(self._source.trouble, code="refused-bundle")
                return changed
            return await self._read_folder(by)

    async def give_back(self, why: str) -> bool:
        """Go back from a bundle on trial to what was before it; answers whether there was something to go back to."""
        async with self.changing:
            compiled = await self._source.give_back(why)
            if compiled is not None:
                await self._adopt(compiled, by="agent", why="back to what was before the refused bundle")
            return compiled is not None

    async def follow_bundles(self, stopping: asyncio.Event) -> None:
        """What the hub hands out is judged when it is there, one after the other."""
        while not stopping.is_set():
            await unless(stopping, self._bundle_came.wait())
            self._bundle_came.clear()
            if stopping.is_set():
                return
            async with self.changing:
                if await self._take_bundle("agent"):
                    self._ground.telemetry.reloads.labels("adopted").inc()

    async def follow_folder(self, folder: Path, stopping: asyncio.Event) -> None:
        """An edit is put in force as soon as it is there; one that is wrong is refused, and the estate before it stays."""
        async for _ in watch(folder, stopping):
            try:
                async with self.changing:
                    changed = await self._read_folder("agent")
                if changed:
                    self._ground.telemetry.reloads.labels("adopted").inc()
                    _log.info("estate %s is in force", self.estate.hash)
            except ConfigError as error:
                self._ground.telemetry.reloads.labels("refused").inc()
                _log.error("the edited estate is refused, the one before stays in force: %s", error)
                self._refused = error

    async def become_well(self, stopping: asyncio.Event) -> None:
        """Well is who ran for a while since the start, and since the last bundle came into force."""
        while not stopping.is_set():
            self._on_trial.clear()
            if not await sleep_unless(self._on_trial, WELL_AFTER, clock=self._ground.clock):
                self._starts.clear()
                await self._source.be_well()
                await self._on_trial.wait()

    async def _read_folder(self, by: str) -> bool:
        """Read the folder again, where it counts."""
        if self._source.in_force is not None:
            await self._source.look_at_folder()
            return False
        compiled = await self._source.choose()
        if compiled.estate.hash == self.estate.hash:
            self._refused = None
            return False
        await rehearse(self._ground, compiled)
        await self._adopt(compiled, by=by, why="the estate folder changed")
        return True

    async def _take_bundle(self, by: str) -> bool:
        """Put what came from the hub in force, on trial, where it is fit for this site. Answers whether the estate changed."""
        judged = await self._source.judge(self.compiled, partial(rehearse, self._ground))
        if judged is None:
            return False
        bundle, compiled = judged
        is_new = compiled.estate.hash != self.estate.hash
        state = BundleState.TRIAL if is_new else BundleState.GOOD
        why = f"{bundle.name} of the hub, put in force there by {bundle.adopted_by}"
        along = partial(bundles.settle, bundle=bundle, state=state)
        if not is_new:
            await self._ground.database.write(partial(self._put_in_force, compiled, by, why, along), name="bundle.good")
            await self._source.take(bundle, state)
            return False
        self._starts.doubt()
        self._on_trial.set()  # before it is in force: what ran until now says nothing of it
        await self._adopt(compiled, by=by, why=why, along=along)
        await self._source.take(bundle, state)
        _log.info("%s is in force", why)
        return True

    async def _adopt(self, compiled: CompiledEstate, *, by: str, why: str, along: Along | None = None) -> None:
        unit = partial(self._put_in_force, compiled, by, why, along)
        await self._ground.database.write(unit, name="runtime.adopt_estate")
        self.compiled = compiled
        self._refused = None
        self._on_changed(compiled)

    def _put_in_force(
        self, compiled: CompiledEstate, by: str, why: str, along: Along | None, connection: sqlite3.Connection
    ) -> None:
        """A hub numbers what comes into force; `along` is done in the same transaction."""
        now = self._ground.clock.now()
        millis = to_millis(now)
        before: EstateHash | None = estates.adopt(connection, compiled.estate, now=millis)
        issued = self._issue(connection, compiled, by)
        if along is not None:
            along(connection)
        open_lanes(connection, compiled, site=self._ground.site)
        with Outbox(connection, now=now) as outbox:
            outbox.reconsider()
        if before is not None or issued is not None or along is not None:
            audit.append(
                connection,
                at_ms=millis,
                actor=by,
                action="adopt",
                target="estate",
                reason="the first estate" if before == "" and along is None else why,
                before={"hash": before} if before else None,
                after={"hash": compiled.estate.hash},
                details={"bundle": issued.number} if issued else None,
            )

    def _issue(self, connection: sqlite3.Connection, compiled: CompiledEstate, by: str) -> Bundle | None:
        hub = compiled.estate.settings.hub
        if hub is None or hub.site != self._ground.site:
            return None
        return bundles.issue(connection, compiled.estate.hash, by=by, now=self._ground.clock.now())
