"""The first estate of a site that enrolled and has no folder: the hub's, fetched before anything of the agent runs. Decision 014.

The link to the hub is made by an estate that has nothing in it but the hub; what the hub hands down is kept as always, and what
comes with it for this site waits in the store. A crash leaves the store as it is between two calls of a link, and the next start
goes on. No control API answers yet: there is nobody whom it could ask who may do what.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Collection
from functools import partial
from pathlib import Path

from agent.control.schema import PROBLEM_TYPE, Problem
from agent.errand import Answered, Question
from agent.estate.compiled import CompiledEstate, compile_estate
from agent.identity.site import HubPlace, SiteIdentity
from agent.link import LinkedAgent
from agent.linked import HubDialler
from agent.site_estate import SiteEstate
from agent.supervisor import guard
from agent.works import Ground, rehearse
from state import bundles, life
from state.bundles import BundleState
from state.model.clock import to_millis
from state.model.errors import ConfigError, InvariantError, NotConnectedError
from state.model.estate import Estate, EstateSettings, HubSpec
from state.model.event import Environment

_log = logging.getLogger("distctl.agent")


async def fetch(ground: Ground, source: SiteEstate, data: Path) -> None:
    """Return when an estate of the hub is in the store, fit for this site, on trial.

    What was refused at an earlier start is judged again. Raises `ConfigError` where the enrolment did not say whose agent it is.
    """
    compiled = _of_nothing_but_the_hub(SiteIdentity.open(data, clock=ground.clock))
    await ground.database.write(partial(_begin_life, ground), name="runtime.start")
    await source.reconsider("agent")
    came, ended = asyncio.Event(), asyncio.Event()
    came.set()
    link = HubDialler(ground, compiled, data, _hub_of(compiled), _nobody_yet(came))
    async with asyncio.TaskGroup() as tasks:
        run = partial(guard, "link", partial(link.run, ended), clock=ground.clock, stopping=ended)
        tasks.create_task(run(), name="link")
        try:
            while not await _took(ground, source, compiled):
                await came.wait()
                came.clear()
        finally:
            ended.set()


async def _took(ground: Ground, source: SiteEstate, compiled: CompiledEstate) -> bool:
    """Whether what came last is in the store on trial; what is unfit is refused, and the hub told why."""
    judged = await source.judge(compiled, partial(rehearse, ground))
    if judged is None:
        return False
    bundle, _ = judged
    await ground.database.write(partial(bundles.settle, bundle=bundle, state=BundleState.TRIAL), name="bundle.first")
    _log.info("%s of the hub is the first estate of %s", bundle.name, ground.site)
    return True


def _of_nothing_but_the_hub(identity: SiteIdentity) -> CompiledEstate:
    place = identity.place
    if not place.site or place.environment not in list(Environment):
        raise ConfigError(
            "no estate has come from the hub yet, and the enrolment did not say which the hub's is",
            hint="enrol it again, with a new invitation, or start it once with --estate FOLDER, a copy of the hub's",
            code="no-estate",
        )
    return compile_estate(Estate(settings=_settings(identity.estate, place), sites={}, flows={}))


def _settings(name: str, place: HubPlace) -> EstateSettings:
    hub = HubSpec(site=place.site, url=place.url)
    return EstateSettings(name=name, environment=Environment(place.environment), currency="XXX", hub=hub)


def _hub_of(compiled: CompiledEstate) -> HubSpec:
    hub = compiled.estate.settings.hub
    if hub is None:
        raise InvariantError("the estate of nothing but the hub has no hub")
    return hub


def _nobody_yet(came: asyncio.Event) -> LinkedAgent:
    return LinkedAgent(on_owed=_wait, on_life=lambda: None, on_bundle=came.set, answer=_refuse)


def _wait(targets: Collection[str]) -> None:
    """What is owed waits for the estate."""


async def _refuse(_: Question) -> Answered:
    problem = Problem(
        title="no-estate",
        status=503,
        detail="the agent has no estate yet, so there is nobody that it may answer",
        code="no-estate",
        hint="`distctl agents show` at the hub says why the hub's is not in force there",
        exit_code=NotConnectedError.exit_code,
    )
    return Answered(status=503, type=PROBLEM_TYPE, body=problem.model_dump_json().encode())


def _begin_life(ground: Ground, connection: sqlite3.Connection) -> None:
    life.begin(connection, ground.site, now=to_millis(ground.clock.now()))
