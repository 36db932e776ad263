"""Where a site's estate comes from: from its hub as soon as a bundle counts, from its folder until then. Decision 014.

A bundle that came is judged here before anything of it counts. One that is refused stays so until a newer one comes or a person
has it judged again. What counts at any moment is what the store says, so a crash between two steps leaves one of the two.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from agent.allow_list import AllowList
from agent.estate.compiled import CompiledEstate, compile_estate
from agent.estate.load import load
from agent.start_count import StartCount
from state import audit, bundles, estates
from state.bundles import Bundle, BundleState
from state.database import Database
from state.model.clock import Clock, to_millis
from state.model.errors import ConfigError, DistctlError, RejectedError, StoreError
from state.model.estate import Estate, EstateSettings
from state.model.suggestion import suggestion
from state.model.visible import visible

_log = logging.getLogger("distctl.agent")

REVERT_AFTER: Final = 2
"""Starts in a row that came to nothing under a bundle on trial; the next one goes back to what was before it."""

_REASON_SHOWN: Final = 500


class SiteEstate:
    """The estate of one agent. `folder` and `read_folder` are those of its estate folder, if it was given one."""

    def __init__(
        self,
        database: Database,
        *,
        site: str,
        data: Path,
        folder: Path | None,
        read_folder: Callable[[], CompiledEstate],
        clock: Clock,
    ) -> None:
        """`read_folder` raises `ConfigError` where there is no estate in it."""
        self._database = database
        self._site = site
        self._data = data
        self._folder = folder
        self._read_folder = read_folder
        self._clock = clock
        self._folder_differs = False
        self.in_force: Bundle | None = None
        """The bundle that counts; None where the folder does."""
        self.refused: Bundle | None = None
        """The last one, where this site has refused it."""

    @property
    def origin(self) -> str:
        """What counts and what does not, for `status`; empty where the folder counts."""
        if self.in_force is None:
            return ""
        trial = ", on trial" if self.in_force.state is BundleState.TRIAL else ""
        unread = f"; the folder {self._folder} differs and is not read" if self._folder_differs else ""
        return f"{self.in_force.name} of the hub{trial}{unread}"

    @property
    def trouble(self) -> str:
        """Why the hub's estate is not in force, if so."""
        if self.refused is None:
            return ""
        stays = self.in_force.name if self.in_force else "the estate folder"
        return f"{self.refused.name} of the hub is refused, {stays} counts: {self.refused.reason}"

    # What counts.

    async def begin(self, starts: StartCount) -> CompiledEstate:
        """What to start with, which is not a bundle under which start after start came to nothing. Raises `ConfigError`."""
        compiled = await self.choose()
        if starts.failed < REVERT_AFTER:
            return compiled
        before = await self.give_back(f"{starts.failed} starts under it came to nothing")
        if before is None:
            return compiled
        starts.doubt()
        return before

    async def has_bundle(self) -> bool:
        """Whether an estate of the hub counts, or did."""
        return await self._look() is not None

    async def choose(self) -> CompiledEstate:
        """The newest bundle that is on trial or good, or what the folder has. Raises `ConfigError`."""
        bundle = await self._look()
        compiled = await (asyncio.to_thread(self._read_folder) if bundle is None else self._compiled(bundle))
        self.in_force = bundle
        return compiled

    async def give_back(self, why: str) -> CompiledEstate | None:
        """Go back from a bundle on trial; what counts then, or None where there is nothing to go back from or to."""
        bundle = self.in_force
        if bundle is None or bundle.state is not BundleState.TRIAL:
            return None
        return await self.choose() if await self._refuse_for_the_one_before(bundle, why) else None

    async def be_well(self) -> None:
        """The agent ran well for a while: what is on trial is good."""
        bundle = self.in_force
        if bundle is not None and bundle.state is BundleState.TRIAL:
            good = partial(bundles.settle, bundle=bundle, state=BundleState.GOOD)
            await self._database.write(good, name="bundle.good")
            if self.in_force is bundle:
                self.in_force = replace(bundle, state=BundleState.GOOD)

    async def look_at_folder(self) -> None:
        """See whether the folder has something else than what counts."""
        if self._folder is not None and self.in_force is not None:
            found = await asyncio.to_thread(load, self._folder)
            self._folder_differs = found.estate is None or found.estate.hash != self.in_force.estate

    # What came.

    async def judge(
        self, current: CompiledEstate, rehearse: Callable[[CompiledEstate], Awaitable[None]]
    ) -> tuple[Bundle, CompiledEstate] | None:
        """The bundle that came last and is fit for this site; None where none came, or it is refused, which is noted.

        `current` is in force; `rehearse` opens the connectors of an estate. Raises `StoreError`.
        """
        bundle = await self._database.read(bundles.to_judge)
        if bundle is None:
            return None
        try:
            return bundle, await self._judged(bundle, current, rehearse)
        except StoreError:
            raise
        except (DistctlError, ValueError) as error:
            why = str(error)
        except Exception as error:  # noqa: BLE001  whatever it is, the agent would not work under this estate
            _log.exception("%s cannot be put in force by our own fault", bundle.name)
            why = f"{type(error).__name__}: {error}"
        await self._refuse(bundle, why, action="refuse")
        await self._look()
        return None

    async def take(self, bundle: Bundle, state: BundleState) -> None:
        """The bundle is in force now."""
        self.in_force, self.refused = replace(bundle, state=state), None
        await self.look_at_folder()

    async def reconsider(self, by: str) -> bool:
        """Have the last one judged again, where it was refused, because somebody asks; answers whether it was."""
        refused = self.refused
        if refused is None:
            return False
        await self._database.write(partial(self._judge_again, refused, by), name="bundle.reconsider")
        return True

    async def _judged(
        self, bundle: Bundle, current: CompiledEstate, rehearse: Callable[[CompiledEstate], Awaitable[None]]
    ) -> CompiledEstate:
        allowed = await asyncio.to_thread(AllowList.read, self._data)
        allowed.require_estates()
        estate = await self._database.read(partial(estates.find, estate_hash=bundle.estate))
        _require_same_company(current.estate.settings, estate.settings)
        await asyncio.to_thread(self._require_sealed, bundle, current.estate.settings)
        _require_readable(bundle, estate)
        if self._site not in estate.sites:
            hint = suggestion(self._site, estate.sites, "its sites are")
            raise RejectedError(f"it has no site {self._site}", hint=hint, code="unknown-site")
        allowed.require_connectors(system.connector for system in estate.sites[self._site].systems.values())
        compiled = await asyncio.to_thread(compile_estate, estate)
        if estate.hash != current.estate.hash:
            await rehearse(compiled)
        return compiled

    def _require_sealed(self, bundle: Bundle, settings: EstateSettings) -> None:
        from agent.identity.site import SiteIdentity  # an agent alone does without

        if not SiteIdentity.open(self._data, clock=self._clock).seal(settings).is_on(bundle):
            raise RejectedError("it does not carry the seal of the hub that this agent enrolled with", code="seal")

    async def _compiled(self, bundle: Bundle) -> CompiledEstate:
        estate = await self._database.read(partial(estates.find, estate_hash=bundle.estate))
        return await asyncio.to_thread(compile_estate, estate)

    async def _refuse_for_the_one_before(self, bundle: Bundle, why: str) -> bool:
        """Answers whether there is one before it; otherwise nothing changes."""
        if await self._database.read(partial(bundles.in_force, below=bundle.number)) is None:
            try:
                await asyncio.to_thread(self._read_folder)
            except ConfigError as error:
                _log.error("there is nothing to go back to from %s: %s", bundle.name, error)
                return False
        await self._refuse(bundle, why, action="revert")
        return True

    async def _refuse(self, bundle: Bundle, why: str, *, action: str) -> None:
        reason = visible(why)[:_REASON_SHOWN] or "it cannot be put in force"
        await self._database.write(partial(self._note_refusal, bundle, reason, action), name="bundle.refuse")
        _log.error("%s of the hub is refused: %s", bundle.name, reason)

    def _judge_again(self, refused: Bundle, by: str, connection: sqlite3.Connection) -> None:
        bundles.settle(connection, refused, BundleState.CAME)
        audit.append(
            connection,
            at_ms=to_millis(self._clock.now()),
            actor=by,
            action="reconsider",
            target="estate",
            reason=refused.reason,
            before={"bundle": refused.number, "hash": refused.estate},
        )

    def _note_refusal(self, bundle: Bundle, reason: str, action: str, connection: sqlite3.Connection) -> None:
        bundles.settle(connection, bundle, BundleState.REFUSED, reason=reason)
        audit.append(
            connection,
            at_ms=to_millis(self._clock.now()),
            actor="agent",
            action=action,
            target="estate",
            reason=reason,
            before={"bundle": bundle.number, "hash": bundle.estate},
        )

    async def _look(self) -> Bundle | None:
        """The bundle that counts; it is seen, too, whether the last one is refused. None at an agent that is nobody's."""
        if not is_enrolled(self._data):
            return None
        bundle, last = await self._database.read(_standing)
        self.refused = last if last is not None and last.state is BundleState.REFUSED else None
        return bundle


def is_enrolled(data: Path) -> bool:
    """Whether the agent with this data folder is one of a hub's."""
    return (data / "identity" / "agent.pem").exists()


def _standing(connection: sqlite3.Connection) -> tuple[Bundle | None, Bundle | None]:
    return bundles.in_force(connection), bundles.last(connection)


def _require_same_company(ours: EstateSettings, theirs: EstateSettings) -> None:
    if (theirs.name, theirs.environment) != (ours.name, ours.environment):
        raise RejectedError(
            f"it is of {theirs.name} ({theirs.environment}), and this agent runs {ours.name} ({ours.environment})",
            code="other-estate",
        )
    if ours.hub is not None and (theirs.hub is None or theirs.hub.site != ours.hub.site):
        raise RejectedError(f"it has another hub than {ours.hub.site}, which handed it out", code="other-hub")


def _require_readable(bundle: Bundle, estate: Estate) -> None:
    if estate.hash != bundle.estate:
        raise RejectedError(
            "this version of distctl reads it otherwise than the hub's",
            hint="compare the versions of both agents: `distctl agents list`",
            code="estate-version",
        )
